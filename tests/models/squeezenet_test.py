"""SqueezeNet against torchvision, whole, cut and with a second stage."""

import functools

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsens.models import layers
from jaxsens.models import registry
from jaxsens.models import squeezenet
from jaxsens.models import states
from tests.oracles import torch_networks
from tests.oracles import torchvision_networks
from tests.oracles import torchvision_ops

# The parity of the forms that are shipped is held by convolutions_test.
pytestmark = pytest.mark.usefixtures('quick_compiles')


@functools.cache
def _network(name, **options):
  return torchvision_networks.network(name, **{'dropout': 0.0, **options})


def _peer(version, num_entries=None, two_stage=False):
  """Returns torchvision's network, cut and headed as its users do."""
  torchvision = torchvision_ops.import_torchvision()
  from torch import nn

  make = getattr(torchvision.models, f'squeezenet{version}')
  peer = make(num_classes=1000 if two_stage else 7, dropout=0.0)
  if num_entries is not None:
    peer.features = peer.features[:num_entries]
    channels = 384 if num_entries >= 10 else 256
    wide = peer.classifier[1].out_channels
    peer.classifier[1] = nn.Conv2d(channels, wide, 1)
  if two_stage:
    first = list(peer.classifier)[:3]
    peer.classifier = nn.Sequential(
      *first, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1000, 7)
    )
  return peer


@pytest.mark.parametrize('head, extra', [('', 0), ('_two_stage', 5)])
@pytest.mark.parametrize('num_classes, full, reduced', [
  (5, 1_240_501, 615_301), (2, 1_237_498, 612_298),
])  # fmt: skip
def test_networks_of_two_stages_have_the_published_parameter_counts(
  num_classes, full, reduced, head, extra
):
  # Without the second stage: K instead of 1000 classes, and no linear layer.
  for name, count, width in (
    ('squeezenet1_1', full, 512), ('squeezenet1_1_reduced10', reduced, 384)
  ):
    if not extra:
      count -= 1001 * num_classes + (1000 - num_classes) * (width + 1)
    assert _count(name + head, num_classes) == count


@pytest.mark.parametrize(
  'name', [n for n in registry.ARCHITECTURES if n.startswith('squeezenet')]
)
def test_network_has_the_parameter_count_of_its_entry(name):
  found = registry.find(name)
  assert _count(name, found.num_classes) == found.num_parameters
  # Printed by torchvision's documentation.
  assert _count('squeezenet1_0', 1000) == 1_248_424
  assert _count('squeezenet1_1', 1000) == 1_235_496


@functools.cache
def _count(name, num_classes):
  key = jax.random.key(0)
  network = nnx.eval_shape(lambda: registry.create(name, key, num_classes))
  return sum(x.size for x in jax.tree.leaves(nnx.state(network, nnx.Param)))


@pytest.mark.parametrize('name', ['squeezenet1_0', 'squeezenet1_1'])
def test_logits_equal_torchvisions(name):
  # Both have max pools whose last window begins inside and ends outside.
  sizes = ((31, 31), (36, 52))
  batches = [torch_networks.images(2, size, 3) for size in sizes]
  torch_networks.check_inference(
    _network(name), _peer(name.removeprefix('squeezenet')), *batches
  )


@pytest.mark.parametrize('num_entries', range(7, 12))
def test_cut_network_of_two_stages_equals_torchvisions(num_entries):
  name = f'squeezenet1_1_reduced{num_entries}_two_stage'
  torch_networks.check_inference(
    _network(name), _peer('1_1', num_entries, two_stage=True),
    torch_networks.images(2, (32, 50), 3),
  )


@pytest.mark.parametrize(
  'name, arguments',
  [
    ('squeezenet1_0', ('1_0',)),
    ('squeezenet1_1', ('1_1',)),
    ('squeezenet1_1_reduced7', ('1_1', 7)),
    ('squeezenet1_1_two_stage', ('1_1', None, True)),
  ],
)
def test_training_equals_torchvisions(name, arguments):
  torch_networks.check_training(
    _network(name), _peer(*arguments), torch_networks.images(2, (33, 40), 3)
  )


def test_cifar_stem_keeps_the_resolution():
  network = _network('squeezenet1_1_reduced8', stem='cifar', in_channels=1)
  peer = _peer('1_1', 8)
  from torch import nn

  peer.features[0] = nn.Conv2d(1, 64, 3, padding=1)
  peer.features[2] = nn.Identity()
  torch_networks.check_inference(
    network, peer, torch_networks.images(2, (9, 12), 1)
  )
  images = jnp.zeros((1, 16, 16, 1))
  # Only the max pool behind the first two Fires is left.
  assert jax.eval_shape(network.features, images).shape == (1, 8, 8, 256)


def test_same_padding_reaches_stem_and_pools():
  network = _network('squeezenet1_1', padding='same')
  shapes = {32: 2, 33: 3, 64: 4}
  for side, expected in shapes.items():
    images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    shape = jax.eval_shape(network.features, images).shape
    assert shape == (1, expected, expected, 512)


def test_initial_values_have_torchvisions_spread():
  network = squeezenet.squeezenet1_1(jax.random.key(0), 100)
  arrays = {n: np.asarray(x) for n, x in states.flatten(network).items()}
  # U(-sqrt(6 / fan_in), sqrt(6 / fan_in)): std sqrt(2 / fan_in).
  kernel = arrays['features.12.expand3x3.kernel']
  assert np.abs(kernel).max() <= np.sqrt(6 / (9 * 64))
  np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (9 * 64)), rtol=0.01)
  head = arrays['classifier.1.kernel']
  np.testing.assert_allclose(head.std(), 0.01, rtol=0.02)
  assert not any(np.any(x) for n, x in arrays.items() if n.endswith('bias'))
  cut = squeezenet.reduced(7, 'two_stage')(jax.random.key(0), 5)
  kernel = np.asarray(cut.classifier[1].kernel[...])
  np.testing.assert_allclose(np.abs(kernel).max(), 256**-0.5, rtol=0.01)


def test_embedding_enters_the_second_stage():
  network = _network('squeezenet1_1_reduced7_two_stage')
  images = torch_networks.images(2, (32, 32), 3)
  embed = jax.jit(lambda network, x: network.embed(x))
  embedded = embed(network, images)
  assert embedded.shape == (2, 1000) and embedded.dtype == jnp.float32
  logits = jax.jit(lambda network, x: network(x))(network, images)
  np.testing.assert_allclose(
    network.classifier[5](embedded), logits, atol=1e-6
  )
  plain = _network('squeezenet1_1_reduced7')
  expected = layers.mean_pool(plain.features(images))
  np.testing.assert_allclose(embed(plain, images), expected, atol=1e-5)
  assert expected.shape == (2, plain.num_features) == (2, 256)


def test_dropout_acts_in_training_only_and_needs_a_key():
  network = _network('squeezenet1_1_reduced7', dropout=None)
  assert network.dropout == 0.5
  images = torch_networks.images(1, (32, 32), 3)
  with pytest.raises(ValueError, match='needs a key'):
    network(images, train=True)
  run = jax.jit(lambda network, key: network(images, train=True, key=key))
  draws = [run(network, jax.random.key(seed)) for seed in (0, 0, 1)]
  np.testing.assert_array_equal(draws[0], draws[1])
  assert np.abs(draws[0] - draws[2]).max() > 1e-3


def test_bad_arguments_are_refused():
  key = jax.random.key(0)
  with pytest.raises(ValueError, match='at least 1, got 0'):
    squeezenet.squeezenet1_1(key, 0)
  with pytest.raises(ValueError, match=r"7 to 11.*got 12 and 'conv'"):
    squeezenet.reduced(12)
  with pytest.raises(ValueError, match=r'\[0, 1\), got 1.0'):
    squeezenet.squeezenet1_1(key, 2, dropout=1.0)
