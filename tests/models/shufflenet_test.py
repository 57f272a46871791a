"""ShuffleNetV2 against torchvision."""

import functools

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsens.models import inference
from jaxsens.models import shufflenet
from jaxsens.models import states
from tests.oracles import torch_networks
from tests.oracles import torchvision_networks
from tests.oracles import torchvision_ops

# The parity of the forms that are shipped is held by convolutions_test.
pytestmark = pytest.mark.usefixtures('quick_compiles')


@functools.cache
def _network(**options):
  return torchvision_networks.network('shufflenet_v2_x1_0', **options)


def _peer():
  torchvision = torchvision_ops.import_torchvision()
  return torchvision.models.shufflenet_v2_x1_0(num_classes=7)


def test_network_has_torchvisions_parameter_count():
  network = nnx.eval_shape(
    lambda: shufflenet.shufflenet_v2_x1_0(jax.random.key(0), 1000)
  )
  parameters = jax.tree.leaves(nnx.state(network, nnx.Param))
  # Printed by torchvision's documentation.
  assert sum(x.size for x in parameters) == 2_278_604


def test_logits_equal_torchvisions():
  sizes = ((32, 32), (49, 64))
  batches = [torch_networks.images(2, size, 3) for size in sizes]
  torch_networks.check_inference(_network(), _peer(), *batches)


def test_training_equals_torchvisions():
  torch_networks.check_training(
    _network(), _peer(), torch_networks.images(4, (64, 65), 3)
  )


def test_cifar_stem_of_a_gray_network_equals_torchvisions():
  peer = _peer()
  from torch import nn

  peer.conv1[0] = nn.Conv2d(1, 24, 3, padding=1, bias=False)
  peer.maxpool = nn.Identity()
  peer.fc = nn.Sequential(nn.Dropout(0.5), peer.fc)
  network = _network(stem='cifar', in_channels=1, dropout=0.5)
  torch_networks.check_inference(
    network, peer, torch_networks.images(2, (16, 18), 1)
  )
  with pytest.raises(ValueError, match='needs a key'):
    nnx.clone(network)(jnp.zeros((2, 16, 16, 1)), train=True)


def test_shuffle_takes_channels_by_turns():
  first, second = jnp.arange(3.0), jnp.full(3, 9.0)
  shuffled = shufflenet.shuffle(*(
    x.reshape(1, 1, 1, 3) for x in (first, second)
  ))
  np.testing.assert_array_equal(shuffled.ravel(), [0, 9, 1, 9, 2, 9])


def test_same_padding_reaches_every_convolution():
  make = lambda: shufflenet.shufflenet_v2_x1_0(
    jax.random.key(0), 2, padding='same'
  )
  network = nnx.eval_shape(make)
  calls = inference.convolution_calls(network, (40, 40, 3))
  assert len(calls) == 56
  assert all(call.layer.padding == 'same' for call in calls)
  assert network.padding == 'same'


def test_initial_values_have_torchs_spread():
  network = shufflenet.shufflenet_v2_x1_0(jax.random.key(0), 5)
  arrays = {n: np.asarray(x) for n, x in states.flatten(network).items()}
  # U(-1 / sqrt(fan_in), 1 / sqrt(fan_in)); 9 inputs of a channel alone.
  for name, fan_in in (
    ('conv5.0.kernel', 464), ('stage4.1.branch2.3.kernel', 9)
  ):
    bound = fan_in**-0.5
    assert 0.98 * bound < np.abs(arrays[name]).max() <= bound
    np.testing.assert_allclose(arrays[name].std(), bound / 3**0.5, rtol=0.05)
