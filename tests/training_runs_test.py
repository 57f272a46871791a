"""Fields of `config.training`, and trainings with several seeds."""

import json
import logging
import pathlib

from ml_collections import ConfigDict
import numpy as np
import pytest

from configs import cifar10
from configs import steel
from configs import weld
from experiments import convert_weights
from experiments import runs
from experiments import train
from experiments import training_fields
from jaxsens.models import states
from jaxsens.training import checkpoints
from jaxsens.training import snapshots

pytestmark = pytest.mark.usefixtures('quick_compiles')


def test_an_option_left_at_its_default_leaves_the_hash_as_it_was():
  config = weld.get_config('small')
  # The hash from before the options were there.
  assert train.training_hash(config) == '3c942ba2e07d95f8'
  del config.training['mixup']
  config.training.tensorboard = False
  config.training.num_runs = 7
  assert train.training_hash(config) == '3c942ba2e07d95f8'
  config.training.flip = 0.5
  assert train.training_hash(config) != '3c942ba2e07d95f8'


@pytest.mark.parametrize('module', [weld, steel, cifar10])
def test_defaults_of_the_configs_are_those_of_the_settings(module):
  training = module.get_config().training
  defaults = training_fields.defaults()
  assert set(training) == {*defaults, 'num_epochs'}
  for name in set(training) - set(training_fields.HASHED):
    assert training[name] == defaults[name], name


@pytest.mark.parametrize(('fields', 'message'), [
  ({'early_limits': 3}, "'early_limits'.*mean 'early_limit'"),
  ({'precision': 'float16'}, 'training.precision.*float16'),
  ({'class_weights': 'inverse'}, "class_weights.*'inverse'"),
  ({'optimizer': 'lion'}, "optimizer.*'lion'"),
  ({'schedule': 'multistep'}, 'milestones'),
])
def test_fields_that_make_no_sense_are_named(fields, message):
  config = weld.get_config('small')
  config.training.update(fields)
  with pytest.raises(ValueError, match=message):
    training_fields.check(config)


def test_class_without_training_images_is_named_and_weighs_nothing(caplog):
  config = weld.get_config('small')
  labels, names = np.array([0, 0, 2]), ('good', 'burn', 'gap')
  runs.LOG.propagate = True
  with caplog.at_level(logging.WARNING):
    weights = training_fields.class_weights(config, labels, names)
    assert 'burn' in caplog.text
  np.testing.assert_allclose(weights, [0.75, 0, 1.5])
  config.training.class_weights = 'none'
  np.testing.assert_array_equal(
    training_fields.class_weights(config, labels, names), [1, 0, 1]
  )


def test_several_seeds_give_a_table_and_restore(tmp_path):
  config = runs.resolve(weld.get_config('small'))
  config.model.update({'name': 'lenet', 'dropout': 0.0})
  config.training.update({'num_runs': 2, 'precision': 'bfloat16'})
  summary = train.run(config, tmp_path)
  assert json.loads((tmp_path / 'runs.json').read_text()) == json.loads(
    json.dumps(summary)
  )
  assert summary['seeds'] == [0, 1]
  values = []
  for seed in summary['seeds']:
    directory = tmp_path / f'seed_{seed}'
    metadata = json.loads(
      (directory / 'checkpoint' / 'metadata.json').read_text()
    )
    values.append(metadata['metrics']['validation_loss'])
    assert len(list((directory / 'events').iterdir())) == 1
    # Best and last are kept, and of the snapshots what decided them.
    kept = checkpoints.read_metadata(directory / 'last')
    assert kept.metrics['epoch'] == 0 and kept.architecture == 'lenet'
    left = [path.name for path in (directory / 'training').iterdir()]
    assert left == ['finished.json']
  found = summary['measures']['validation_loss']
  np.testing.assert_allclose(found['mean'], np.mean(values))
  np.testing.assert_allclose(found['std'], np.std(values, ddof=1))
  assert values[0] != values[1]
  assert 'validation_macro_f1' in (tmp_path / 'runs.txt').read_text()
  again = train.run(config, tmp_path)
  assert again == summary
  # Another training in the same place: what differs is named.
  config.training.update({'flip': 0.5, 'num_runs': 1})
  with pytest.raises(ValueError, match='training.flip: written with 0.0'):
    train.run(config, tmp_path / 'seed_0')


def _lenet_config(**training):
  config = runs.resolve(weld.get_config('small'))
  config.model.update({'name': 'lenet', 'dropout': 0.0, 'init': 'random'})
  config.training.update({'tensorboard': False, **training})
  return config


def test_best_and_last_network_are_those_of_their_epochs(tmp_path):
  # So high a rate after the first epoch that it remains the best.
  config = _lenet_config(
    num_epochs=3, optimizer='sgd', learning_rate=1e-3, schedule='multistep',
    milestones=(1,), milestone_factor=1e3, clip_norm=1.0,
  )
  train.run(config, tmp_path / 'a')
  best, last = (
    convert_weights.read_checkpoint(tmp_path / 'a' / name)
    for name in ('checkpoint', 'last')
  )
  assert best[1].metrics['epoch'] == best[1].metrics['best_epoch'] == 0
  assert last[1].metrics['epoch'] == 2
  history = last[1].metrics['history']
  assert last[1].metrics['validation_loss'] == history[2]['validation']['loss']
  assert best[1].metrics['validation_loss'] == history[0]['validation']['loss']
  best, last = (states.flatten(network) for network, _ in (best, last))
  assert any((best[name] != last[name]).any() for name in best)
  # A neighbour takes both over, and refuses another training by its fields.
  other = config.copy_and_resolve_references()
  other.gpc.max_evaluations = 65
  train.run(other, tmp_path / 'b')
  taken, _ = convert_weights.read_checkpoint(tmp_path / 'b' / 'last')
  for name, array in states.flatten(taken).items():
    np.testing.assert_array_equal(array, last[name])
  other.training.momentum = 0.5
  with pytest.raises(ValueError, match='training.momentum: written with 0.9'):
    train.run(other, tmp_path / 'b')


def test_remains_of_a_finished_training_go_when_it_is_restored(
  tmp_path, monkeypatch
):
  config = _lenet_config()
  with monkeypatch.context() as patched:
    # Saving goes on beside the training, and is waited for.
    patched.setattr(snapshots.Snapshots, 'finish', snapshots.Snapshots.close)
    train.run(config, tmp_path)
  folder = tmp_path / 'training'
  assert (folder / 'epoch_0000').is_dir()
  train.run(config, tmp_path)
  assert [path.name for path in folder.iterdir()] == ['finished.json']


def test_loss_that_is_no_number_leaves_the_snapshot_and_no_checkpoint(tmp_path):
  config = _lenet_config(
    num_epochs=3, optimizer='sgd', schedule='multistep', milestones=(1,),
    milestone_factor=1e36, momentum=0.0,
  )
  with pytest.raises(FloatingPointError, match='snapshot of epoch 0 is kept'):
    train.run(config, tmp_path)
  assert (tmp_path / 'training' / 'epoch_0000').is_dir()
  assert not (tmp_path / 'checkpoint').exists()
  config.training.clip_norm = 1.0
  with pytest.raises(ValueError, match='training.clip_norm: written with 0.0'):
    train.run(config, tmp_path)


@pytest.mark.parametrize('size', [0, -3, (32,), (32, 0), (1, 2, 3)])
def test_image_size_that_cannot_be_is_named(size):
  config = _lenet_config()
  model = config.model.to_dict() | {'image_size': size}
  config.model = ConfigDict(model)
  with pytest.raises(ValueError, match='model.image_size must be one positive'):
    train.run(config, pathlib.Path('unused'))


def test_placement_decides_no_training_and_an_unknown_one_is_named():
  config = _lenet_config()
  digest = train.training_hash(config)
  config.training.placement = 'host'
  assert train.training_hash(config) == digest
  training_fields.check(config)
  config.training.placement = 'disk'
  with pytest.raises(ValueError, match="placement.*got 'disk'"):
    training_fields.check(config)
