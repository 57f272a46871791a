"""The configs of the studies on published data, as a user runs them."""

import os
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from configs import cifar10 as cifar10_config
from configs import steel as steel_config
from experiments import gpc
from experiments import image_results
from experiments import runs
from experiments import train
from jaxsens import classifiers
from jaxsens import sensitivity
from jaxsens.data import image_sets
from jaxsens.training import checkpoints

SHARED = pathlib.Path(os.environ.get('JAXSENS_SHARED', '../shared'))
NEEDED = (
  SHARED / 'weights' / 'cifar_net.pth',
  SHARED / 'data' / 'cifar10' / 'cifar10_exact_6102.npz',
)
needs_cifar = pytest.mark.skipif(
  not all(path.is_file() for path in NEEDED), reason=f'no {NEEDED}'
)


def _resolved(module, arg=''):
  return runs.resolve(module.get_config(arg))


@pytest.mark.parametrize('module', [cifar10_config, steel_config])
def test_unknown_variants_are_refused(module):
  with pytest.raises(ValueError, match="unknown variant 'smal'.*small"):
    module.get_config('smal')


@pytest.mark.parametrize('module, arg, dim', [
  (cifar10_config, '', 3), (cifar10_config, 'small', 3), (steel_config, '', 3),
  (steel_config, 'small', 3), (steel_config, 'six', 6),
])
def test_configs_make_a_space_and_settings(module, arg, dim):
  config = module.get_config(arg)
  space = gpc.make_space(config)
  assert space.dim == dim
  assert isinstance(gpc.make_settings(config), sensitivity.Settings)


def test_factors_of_the_analysis_leave_the_trained_network():
  digests = {
    train.training_hash(steel_config.get_config(arg)) for arg in ('', 'six')
  }
  assert len(digests) == 1
  assert train.training_hash(steel_config.get_config('small')) not in digests


def test_recognised_images_are_those_named_rightly():
  pixels = np.linspace(0, 1, 70, dtype=np.float32)[:, None, None, None]
  images = image_sets.ImageSet(
    images=np.tile(pixels, (1, 4, 4, 1)), labels=np.arange(70) % 2,
    names=tuple(map(str, range(70))), class_names=('dark', 'bright'),
    groups=('',) * 70, description='',
  )

  def apply_fn(params, batch):
    level = batch.mean((1, 2, 3))
    return jnp.stack([params - level, level - params], 1)

  classifier = classifiers.Classifier(
    apply_fn, jnp.float32(0.5), classifiers.identity, images.class_names,
    (2, 2), 1,
  )
  found = image_results.recognised(classifier, images)
  expected = [i for i in range(70) if (i >= 35) == i % 2]
  assert found.names == tuple(map(str, expected))


@needs_cifar
def test_published_weights_are_analysed_without_training(tmp_path):
  config = _resolved(cifar10_config, 'small')
  gpc.run(config, tmp_path)
  metadata = checkpoints.read_metadata(tmp_path / 'checkpoint')
  assert round(metadata.metrics['validation_accuracy'], 3) == 0.640
  assert metadata.data.startswith('none in this run, scored on 1017')
  assert (tmp_path / 'report.html').is_file()
  with np.load(tmp_path / 'design.npz') as kept:
    # The first airplane and automobile that torch, too, names rightly.
    assert list(kept['images']) == ['test-0-00021', 'test-0-00009']


def test_no_epochs_without_weights_is_refused(tmp_path):
  config = cifar10_config.get_config('small')
  config.model.init = 'random'
  splits = image_sets.Splits(None, None, None)
  key = runs.split_keys(config)[1]
  with pytest.raises(ValueError, match='num_epochs is 0.*no weights of lenet'):
    train.train_or_restore(key, config, tmp_path, lambda: splits)
