"""VGG16 with batch norm against torchvision.

Its published head has 120 million parameters, minutes of work in a test; the
convolutions are compared with the narrow head behind them, the published head
by its names, shapes and initial distribution.
"""

import collections
import functools

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsens.models import registry
from jaxsens.models import states
from jaxsens.models import vgg
from tests.oracles import torch_networks
from tests.oracles import torchvision_networks
from tests.oracles import torchvision_ops

# The parity of the forms that are shipped is held by convolutions_test.
pytestmark = pytest.mark.usefixtures('quick_compiles')


@functools.cache
def _network(**options):
  options = {'dropout': 0.0, **options}
  return torchvision_networks.network('vgg16_bn_narrow', **options)


def _peer(in_channels=3):
  """Returns torchvision's convolutions and the narrow head."""
  torchvision = torchvision_ops.import_torchvision()
  from torch import nn

  tv = torchvision.models.vgg
  features = tv.make_layers(tv.cfgs['D'], batch_norm=True)
  features[0] = nn.Conv2d(in_channels, 64, 3, padding=1)
  classifier = nn.Sequential(
    nn.Linear(25088, 256), nn.ReLU(), nn.Dropout(0.0), nn.Linear(256, 32),
    nn.ReLU(), nn.Dropout(0.0), nn.Linear(32, torchvision_networks.NUM_CLASSES),
  )  # fmt: skip
  return nn.Sequential(collections.OrderedDict(
    features=features, avgpool=nn.AdaptiveAvgPool2d(7), flatten=nn.Flatten(),
    classifier=classifier,
  ))  # fmt: skip


@pytest.mark.parametrize('name, count', [
  ('vgg16_bn', 138_365_992), ('vgg16_bn_narrow', 21_154_309),
])  # fmt: skip
def test_network_has_the_published_parameter_count(name, count):
  found = registry.find(name)
  network = _abstract(name, found.num_classes)
  parameters = jax.tree.leaves(nnx.state(network, nnx.Param))
  assert sum(x.size for x in parameters) == count == found.num_parameters


def _abstract(name, num_classes=5, **options):
  key = jax.random.key(0)
  return nnx.eval_shape(
    lambda: registry.create(name, key, num_classes, **options)
  )


def test_published_head_has_torchvisions_names_and_shapes():
  torchvision = torchvision_ops.import_torchvision()
  import torch

  with torch.device('meta'):
    peer = torchvision.models.vgg16_bn(num_classes=5, init_weights=False)
  expected = {
    f'classifier.{name}'.replace('weight', 'kernel'): tuple(x.shape[::-1])
    for name, x in peer.classifier.named_parameters()
  }
  actual = {
    name: x.shape for name, x in states.flatten(_abstract('vgg16_bn')).items()
  }
  assert expected.items() <= actual.items()
  assert sum('classifier' in name for name in actual) == len(expected)


def test_logits_equal_torchvisions():
  # They leave 1 x 1 and 2 x 7 for the mean over 7 x 7 parts.
  sizes = ((32, 32), (64, 230))
  batches = [torch_networks.images(2, size, 3) for size in sizes]
  torch_networks.check_inference(_network(), _peer(), *batches)


def test_training_of_a_gray_network_equals_torchvisions():
  torch_networks.check_training(
    _network(in_channels=1), _peer(1), torch_networks.images(4, (64, 66), 1)
  )


@pytest.mark.parametrize('height, width', [(1, 2), (7, 8), (13, 14), (20, 3)])
def test_adaptive_mean_equals_torchs(height, width):
  torch = pytest.importorskip('torch', reason='torch is the oracle here')
  images = torch_networks.images(2, (height, width), 3)
  expected = torch.nn.functional.adaptive_avg_pool2d(
    torch.from_numpy(images.transpose(0, 3, 1, 2)), 7
  )
  np.testing.assert_allclose(
    vgg.adaptive_mean(images, 7), expected.numpy().transpose(0, 2, 3, 1),
    atol=1e-6,
  )


def test_same_padding_reaches_the_pools():
  network = _abstract('vgg16_bn_narrow', padding='same')
  images = jax.ShapeDtypeStruct((1, 33, 64, 3), jnp.float32)
  # Sides 33, 17, 9, 5, 3, 2 with pads and 33, 16, 8, 4, 2, 1 without.
  shape = nnx.eval_shape(lambda n, x: n.features(x), network, images).shape
  assert shape == (1, 2, 2, 512)
  shape = nnx.eval_shape(
    lambda n, x: n.features(x), _abstract('vgg16_bn_narrow'), images
  ).shape
  assert shape == (1, 1, 2, 512)


def test_initial_values_have_the_spread_of_their_source():
  network = vgg.vgg16_bn_narrow(jax.random.key(0), 5)
  arrays = {n: np.asarray(x) for n, x in states.flatten(network).items()}
  kernel = arrays['features.40.kernel']
  np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (9 * 512)), rtol=0.01)
  # torch.nn.Linear: U(-1/sqrt(25088), 1/sqrt(25088)).
  head = arrays['classifier.0.kernel']
  np.testing.assert_allclose(head.std(), (3 * 25088) ** -0.5, rtol=0.01)
  # torchvision: N(0, 0.01); the widths are made small for the test.
  initial = vgg.vgg16_bn.args[1]
  small = vgg.VGG(
    (64, 64), initial, 5, in_channels=1, dropout=0.5, padding='torch',
    dtype=jnp.float32, rngs=nnx.Rngs(jax.random.key(1)),
  )
  head = np.asarray(small.classifier[0].kernel[...])
  np.testing.assert_allclose(head.std(), 0.01, rtol=0.01)
  assert not np.any(small.classifier[0].bias[...])


def test_dropout_acts_twice_with_keys_of_their_own():
  network = _network(dropout=None)
  assert network.dropout == 0.5
  ones = jnp.ones((1, 1000))
  key = jax.random.key(0)
  first, second = (network._dropped(ones, i, True, key) for i in (0, 1))
  for x in (first, second):
    assert 400 < np.count_nonzero(x) < 600 and x.max() == 2
  assert np.any(first != second)
  np.testing.assert_array_equal(network._dropped(ones, 0, False, None), ones)
  with pytest.raises(ValueError, match='needs a key'):
    network._dropped(ones, 0, True, None)
