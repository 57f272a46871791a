"""EfficientNet against torchvision."""

import functools

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsens.models import efficientnet
from jaxsens.models import layers
from jaxsens.models import registry
from jaxsens.models import states
from tests.oracles import torch_networks
from tests.oracles import torchvision_networks

# The parity of the forms that are shipped is held by convolutions_test.
pytestmark = pytest.mark.usefixtures('quick_compiles')


@functools.cache
def _network(name, **options):
  return torchvision_networks.network(
    name, dropout=0.0, stochastic_depth=0.0, **options
  )


@pytest.mark.parametrize('name, num_parameters', [
  ('efficientnet_b0', 5_288_548), ('efficientnet_b1', 7_794_184),
])
def test_network_has_torchvisions_parameter_count(name, num_parameters):
  network = nnx.eval_shape(
    lambda: registry.create(name, jax.random.key(0), 1000)
  )
  parameters = jax.tree.leaves(nnx.state(network, nnx.Param))
  # Printed by torchvision's documentation.
  assert sum(x.size for x in parameters) == num_parameters


@pytest.mark.parametrize('name', ['efficientnet_b0', 'efficientnet_b1'])
def test_logits_equal_torchvisions(name):
  network = _network(name)
  torch_networks.check_inference(
    network, torchvision_networks.peer(name, network),
    torch_networks.images(2, (49, 64), 3),
  )


def test_training_equals_torchvisions():
  # Those of B1 are more of the same blocks.
  network = _network('efficientnet_b0')
  torch_networks.check_training(
    network, torchvision_networks.peer('efficientnet_b0', network),
    torch_networks.images(4, (64, 65), 3), vanishing=1e-2, shift=0.0,
  )


def test_cifar_stem_of_a_gray_network_equals_torchvisions():
  network = _network('efficientnet_b0', stem='cifar', in_channels=1)
  peer = torchvision_networks.peer('efficientnet_b0', network, 1, 1)
  torch_networks.check_inference(
    network, peer, torch_networks.images(2, (16, 18), 1)
  )


def test_branches_are_left_out_ever_more_often():
  # torchvision: 0.2 i / 16 for the i-th of the 16 blocks of B0.
  network = nnx.eval_shape(
    lambda: efficientnet.efficientnet_b0(jax.random.key(0), 2)
  )
  stages = list(network.features)[1:-1]
  rates = [block.drop_rate for stage in stages for block in stage]
  np.testing.assert_allclose(rates, 0.2 * np.arange(16) / 16)


def test_whole_branches_are_left_out_and_the_others_grow():
  network = torchvision_networks.network('efficientnet_b0')
  block = network.features[6][3]
  assert block.is_residual and block.drop_rate > 0.1
  x = jnp.asarray(torch_networks.images(64, (2, 2), 192))

  @jax.jit
  def run(block, key):
    block = nnx.clone(block)
    block.drop_rate = 0.5
    return block(x, train=True, key=key) - x

  @jax.jit
  def whole(block):
    return nnx.clone(block).block(x, train=True)

  branches, expected = run(block, jax.random.key(0)), whole(block)
  left_out = np.abs(branches).max((1, 2, 3)) == 0
  # Binomial: 64 halves, four standard deviations.
  assert 16 <= left_out.sum() <= 48
  np.testing.assert_allclose(
    branches[~left_out], 2 * expected[~left_out], rtol=1e-4, atol=1e-4
  )
  other = run(block, jax.random.key(1))
  assert (left_out != (np.abs(other).max((1, 2, 3)) == 0)).any()
  with pytest.raises(ValueError, match='needs a key'):
    jax.eval_shape(lambda n: nnx.clone(n)(x, train=True), block)


def test_initial_values_of_the_head_have_torchvisions_spread():
  network = nnx.eval_shape(
    lambda: efficientnet.efficientnet_b0(jax.random.key(0), 25)
  )
  assert states.flatten(network)['classifier.1.kernel'].shape == (1280, 25)
  # U(-1 / sqrt(classes), 1 / sqrt(classes)).
  head = layers.symmetric_uniform(25**-0.5)(jax.random.key(0), (1280, 25))
  np.testing.assert_allclose(np.abs(head).max(), 0.2, rtol=0.01)


def test_bad_arguments_are_refused():
  key = jax.random.key(0)
  with pytest.raises(ValueError, match=r'\[0, 1\), got 1.0'):
    efficientnet.efficientnet_b0(key, 2, stochastic_depth=1.0)
  with pytest.raises(ValueError, match='at least 1, got 2 and 0'):
    efficientnet.efficientnet_b1(key, 2, in_channels=0)
