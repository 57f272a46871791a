"""Fields of `config.training`, and trainings with several seeds."""

import json
import logging

import numpy as np
import pytest

from configs import cifar10
from configs import steel
from configs import weld
from experiments import runs
from experiments import train
from experiments import training_fields


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
