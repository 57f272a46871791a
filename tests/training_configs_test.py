"""The configs of data that nobody may hand on, on images made here."""

import os
import pathlib
import subprocess
import sys

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest

from configs import filter_labels
from configs import severstal
from configs import weld
from experiments import networks
from experiments import runs
from experiments import train
from experiments import training_fields
from jaxsens.data import class_tree
from jaxsens.data import sources
from jaxsens.models import registry
from jaxsens.models import states
from jaxsens.training import checkpoints
from jaxsens.weights import convert

pytestmark = pytest.mark.usefixtures('quick_compiles')

_ROOT = pathlib.Path(__file__).parents[1]


def _write(path, seed, size):
  path.parent.mkdir(parents=True, exist_ok=True)
  pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
  Image.fromarray(pixels).save(path)


def _write_labels(root, number=10):
  for k, name in enumerate(class_tree.FILTER_LABELS):
    for i in range(number):
      _write(root / name / f'{i:02d}.bmp', 100 * k + i, (12, 16))
  return root


def _write_sheets(root, number=6):
  """Writes as many images of each kind, and one of two kinds."""
  rows = ['ImageId,ClassId,EncodedPixels']
  for k in range(5):
    for i in range(number):
      name = f'{k}_{i}.jpg'
      _write(root / 'train_images' / name, 100 * k + i, (16, 100))
      if k:
        rows.append(f'{name},{k},1 {5 + i}')
  rows.append('1_0.jpg,2,40 3')
  (root / 'train.csv').write_text('\n'.join(rows) + '\n')
  return root


@pytest.mark.parametrize('module, variants', [
  (filter_labels, ('', 'synthetic', 'small')),
  (severstal, ('', 'binary', 'small')),
])
def test_variants_have_the_fields_of_the_welds_and_others_are_refused(
  module, variants
):
  expected = weld.get_config()
  for variant in variants:
    config = module.get_config(variant)
    assert set(config) == set(expected)
    for part in ('training', 'gpc', 'evaluation', 'report'):
      assert set(config[part]) == set(expected[part]), part
    source = sources.find(config.data.name)
    config.data.root = 'none'
    training_fields.check(config)
    assert config.data.name == module.__name__.rpartition('.')[2]
    assert source.image_channels(config.data) == 3
    assert variant in config.name
  with pytest.raises(ValueError, match=f"variant 'tiny'.*{variants[1]}, small"):
    module.get_config('tiny')


def test_labels_are_trained_on_as_in_the_thesis():
  config = filter_labels.get_config()
  rate = lambda settings, epoch: settings.rate(7 * epoch, 7)
  settings = training_fields.settings(config, pretrained=True)
  # MultiStepLR([30, 35], 0.1) of SGD at 0.01, at most 40 epochs.
  np.testing.assert_allclose(
    [rate(settings, epoch) for epoch in (0, 29, 30, 34, 35, 39)],
    [1e-2, 1e-2, 1e-3, 1e-3, 1e-4, 1e-4], rtol=1e-6,
  )
  monitor = settings.make_monitor()
  assert (settings.optimizer, settings.momentum) == ('sgd', 0.9)
  assert settings.weight_decay == 1e-3 and settings.num_epochs == 40
  assert monitor.early_limit == 10 and monitor.replacement_limit == 0
  assert settings.augmentation == 'rand_augment' and settings.magnitude == 9
  assert networks.normalise(config).mean == (0.485, 0.456, 0.406)
  assert training_fields.image_size(config) == (224, 224)


def test_sheets_are_trained_on_as_in_the_study():
  config = severstal.get_config()
  settings = training_fields.settings(config, pretrained=True)
  assert [settings.rate(step, 3) for step in (0, 3, 300)] == [1e-4] * 3
  assert settings.noise_doubling == 0.15 and settings.batch_size == 10
  assert training_fields.training_size(config) == (64, 400)
  binary = severstal.get_config('binary')
  names = sources.find('severstal').classes(binary.data)
  assert len(names) == 2 and binary.training.monitor == 'accuracy'


def test_weights_of_squeezenet_enter_the_network_of_two_stages(tmp_path):
  abstract = jax.eval_shape(
    lambda: registry.create('squeezenet1_1', jax.random.key(0), 1000)
  )
  rng = np.random.default_rng(0)
  arrays = {
    name: rng.standard_normal(x.shape, np.float32)
    for name, x in states.flatten(abstract).items()
  }
  filled = states.replace(abstract, arrays)
  np.savez(tmp_path / 'w.npz', **convert.to_torch_names(filled))
  config = severstal.get_config()
  config.model.init = str(tmp_path / 'w.npz')
  config.data.root = 'none'
  network, pretrained = networks.initial(jax.random.key(1), config)
  assert pretrained
  found = states.flatten(network)
  for name, array in arrays.items():
    np.testing.assert_array_equal(found[name], array, err_msg=name)
  # One linear layer more, of 1000 answers to five classes.
  assert set(found) - set(arrays) == {
    'classifier.5.kernel', 'classifier.5.bias'
  }
  assert found['classifier.5.kernel'].shape == (1000, 5)


def test_labels_run_from_the_command_line(tmp_path):
  root = _write_labels(tmp_path / 'images')
  done = subprocess.run(
    [
      sys.executable, '-m', 'experiments.train',
      '--config=configs/filter_labels.py:small', f'--config.data.root={root}',
      f'--workdir={tmp_path / "run"}',
    ],
    cwd=_ROOT, env=os.environ | {'PYTHONPATH': str(_ROOT)},
    capture_output=True, text=True, check=False,
  )
  assert done.returncode == 0, done.stderr
  metadata = checkpoints.read_metadata(tmp_path / 'run' / 'checkpoint')
  assert metadata.class_names == class_tree.FILTER_LABELS
  # 80 : 10 : 10 of ten images in each of four classes.
  assert metadata.metrics['num_train'] == 32
  assert metadata.metrics['num_validation'] == 4
  assert metadata.channels == 3 and metadata.image_size == (32, 32)


@pytest.mark.parametrize('policy, num_classes, num_images', [
  ('single', 5, 29), ('binary', 2, 30)
])
def test_sheets_run_at_their_own_aspect(
  tmp_path, policy, num_classes, num_images
):
  config = severstal.get_config('small')
  config.data.update({
    'root': str(_write_sheets(tmp_path / 'sheets')), 'label_policy': policy
  })
  config.training.tensorboard = False
  config = runs.resolve(config)
  metrics = train.run(config, tmp_path / 'run')
  metadata = checkpoints.read_metadata(tmp_path / 'run' / 'checkpoint')
  assert metadata.image_size == (16, 50)
  assert len(metadata.class_names) == num_classes
  used = metrics['num_train'] + metrics['num_validation']
  # 60 + 20 %; the image of two kinds is left out where kinds count.
  assert abs(used - 0.8 * num_images) <= num_classes / 2
  trained = train.train_or_restore(
    jax.random.key(0), config, tmp_path / 'run', splits=None
  )
  assert trained.restored
  assert trained.classifier(np.zeros((2, 16, 50, 3), np.float32)).shape == (
    2, num_classes
  )


def test_one_image_of_each_class_leaves_none_to_validate(tmp_path):
  config = filter_labels.get_config('small')
  config.data.root = str(_write_labels(tmp_path / 'images', number=1))
  with pytest.raises(ValueError, match='no validation images in 0 validation'):
    train.run(runs.resolve(config), tmp_path / 'run')


def test_corrupt_image_ends_a_training_that_was_not_asked_to_skip_it(tmp_path):
  root = _write_labels(tmp_path / 'images')
  bad = root / class_tree.FILTER_LABELS[1] / '04.bmp'
  bad.write_bytes(bad.read_bytes()[:100])
  config = filter_labels.get_config('small')
  # No part that this experiment would not look at.
  config.data.update({'root': str(root), 'test_fraction': 0.0})
  config.model.update({'name': 'lenet'})
  config.training.tensorboard = False
  with pytest.raises(ValueError, match='04.bmp'):
    train.run(runs.resolve(config), tmp_path / 'run')
  config.data.skip_unreadable = True
  train.run(runs.resolve(config), tmp_path / 'run2')
  data = checkpoints.read_metadata(tmp_path / 'run2' / 'checkpoint').data
  assert '1 unreadable' in data and '04.bmp' in data


def test_spectral_norm_of_a_config_leaves_out_the_head():
  config = weld.get_config('small')
  assert networks.constraint(jax.random.key(0), None, config) is None
  digest = training_fields.training_hash(config)
  config.training.spectral_norm = 0.5
  assert training_fields.training_hash(config) != digest
  network = networks.create(jax.random.key(0), config)
  params = nnx.state(network, nnx.Param)
  constraint = networks.constraint(jax.random.key(0), network, config)
  zeros = jax.tree.map(jnp.zeros_like, params)
  updates, _ = constraint.update(zeros, constraint.init(params), params)
  moved = {
    '.'.join(map(str, path)) for path, leaf in nnx.to_flat_state(updates)
    if np.abs(leaf.get_value()).max() > 1e-6
  }
  assert 'conv1.kernel' in moved
  assert not any(name.startswith(('fc', 'bn1')) for name in moved)


def test_spectral_norm_below_zero_is_refused():
  config = weld.get_config('small')
  config.training.spectral_norm = -1.0
  with pytest.raises(ValueError, match='spectral_norm must not be negative'):
    training_fields.check(config)
