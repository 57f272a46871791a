"""Checkpoints: what is written comes back, or the error says what is wrong."""

import dataclasses
import functools

from flax import nnx
import jax
import numpy as np
import pytest

from jaxsens.models import resnet
from jaxsens.models import states
from jaxsens.training import checkpoints
from tests.oracles import small_networks

pytestmark = pytest.mark.usefixtures('quick_compiles')

_IMAGES = np.random.default_rng(1).random((2, 8, 8, 1), np.float32)


@functools.cache
def _network():
  return small_networks.Trainable(nnx.Rngs(0))


_METADATA = checkpoints.Metadata(
  architecture='resnet18',
  class_names=('level', 'across', 'along'),
  image_size=(8, 8),
  channels=1,
  mean=(0.5,),
  std=(0.5,),
  data='stripes, 70 images, seed 1',
  config_hash='0123abcd',
  metrics={'accuracy': 0.5, 'confusion': [[1, 0], [0, 1]]},
)


def test_checkpoint_gives_back_network_and_metadata(tmp_path):
  path = tmp_path / 'new' / 'checkpoint'
  assert not checkpoints.exists(path)
  checkpoints.save(path, _network(), _METADATA)
  assert checkpoints.exists(path)
  abstract = nnx.eval_shape(lambda: small_networks.Trainable(nnx.Rngs(1)))
  network, metadata = checkpoints.restore(
    path, abstract, expected={'config_hash': '0123abcd', 'image_size': (8, 8)}
  )
  assert metadata == _METADATA
  restored = states.flatten(network)
  for name, array in states.flatten(_network()).items():
    np.testing.assert_array_equal(restored[name], array, err_msg=name)
  np.testing.assert_array_equal(
    network(_IMAGES), _network()(_IMAGES)
  )


def test_saving_again_replaces_the_checkpoint_and_leaves_nothing_aside(
  tmp_path,
):
  path = tmp_path / 'checkpoint'
  checkpoints.save(path, _network(), _METADATA)
  later = dataclasses.replace(_METADATA, config_hash='later')
  checkpoints.save(path, small_networks.Trainable(nnx.Rngs(5)), later)
  network, metadata = checkpoints.restore(path, _network(), expected={})
  assert metadata.config_hash == 'later'
  assert (network.fc.kernel[...] != _network().fc.kernel[...]).any()
  assert [entry.name for entry in tmp_path.iterdir()] == ['checkpoint']


def test_checkpoint_of_another_configuration_names_what_differs(tmp_path):
  checkpoints.save(tmp_path / 'a', _network(), _METADATA)
  expected = {
    'config_hash': 'ffff',
    'class_names': ('level', 'across'),
    'channels': 1,
  }
  with pytest.raises(ValueError) as caught:
    checkpoints.restore(tmp_path / 'a', _network(), expected=expected)
  message = str(caught.value)
  assert "config_hash: checkpoint '0123abcd', needed 'ffff'" in message
  assert "needed ('level', 'across')" in message
  assert 'channels' not in message


def test_checkpoint_of_another_network_names_the_arrays(tmp_path):
  checkpoints.save(tmp_path / 'a', _network(), _METADATA)
  other = nnx.eval_shape(
    lambda: resnet.resnet18(jax.random.key(0), 3, in_channels=1)
  )
  with pytest.raises(ValueError, match='missing: .*layer1.0.bn1.bias') as error:
    checkpoints.restore(tmp_path / 'a', other, expected={})
  assert 'conv1.kernel: needed (7, 7, 1, 64), given (3, 3, 1, 8)' in str(
    error.value
  )


def test_missing_and_damaged_checkpoints_are_reported(tmp_path):
  with pytest.raises(FileNotFoundError, match='absent: no checkpoint'):
    checkpoints.restore(tmp_path / 'absent', _network(), expected={})
  path = tmp_path / 'a'
  checkpoints.save(path, _network(), _METADATA)
  for file in (path / 'arrays').rglob('*'):
    if file.is_file():
      file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
  with pytest.raises(ValueError, match='a: damaged checkpoint'):
    checkpoints.restore(path, _network(), expected={})
  (path / 'metadata.json').write_text('{"format"')
  with pytest.raises(ValueError, match='damaged metadata.json'):
    checkpoints.read_metadata(path)
  (path / 'metadata.json').write_text('{"format": 99}')
  with pytest.raises(ValueError, match='format 99, expected 1'):
    checkpoints.read_metadata(path)


def test_a_folder_that_is_no_checkpoint_is_not_replaced(tmp_path):
  (tmp_path / 'a').mkdir()
  with pytest.raises(ValueError, match='is no checkpoint; not replaced'):
    checkpoints.save(tmp_path / 'a', _network(), _METADATA)
