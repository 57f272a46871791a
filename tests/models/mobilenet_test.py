"""MobileNetV2 and V3 against torchvision."""

import functools

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsens.models import inference
from jaxsens.models import inverted_residual
from jaxsens.models import layers
from jaxsens.models import mobilenet
from jaxsens.models import registry
from jaxsens.models import states
from tests.oracles import torch_networks
from tests.oracles import torchvision_networks

# The parity of the forms that are shipped is held by convolutions_test.
pytestmark = pytest.mark.usefixtures('quick_compiles')

NAMES = ('mobilenet_v2', 'mobilenet_v3_small', 'mobilenet_v3_large')


@functools.cache
def _network(name, **options):
  return torchvision_networks.network(name, dropout=0.0, **options)


@pytest.mark.parametrize('name', NAMES)
def test_network_has_torchvisions_parameter_count(name):
  network = nnx.eval_shape(
    lambda: registry.create(name, jax.random.key(0), 1000)
  )
  parameters = jax.tree.leaves(nnx.state(network, nnx.Param))
  # Printed by torchvision's documentation.
  assert sum(x.size for x in parameters) == {
    'mobilenet_v2': 3_504_872,
    'mobilenet_v3_small': 2_542_856,
    'mobilenet_v3_large': 5_483_032,
  }[name]


@pytest.mark.parametrize('name', NAMES)
def test_logits_equal_torchvisions(name):
  network = _network(name)
  torch_networks.check_inference(
    network, torchvision_networks.peer(name, network),
    torch_networks.images(2, (49, 64), 3),
  )


# Three is midway between the kinks of ReLU6. The large V3 has the blocks of
# the small one.
@pytest.mark.parametrize('name, shift', [(NAMES[0], 3.0), (NAMES[1], 0.0)])
def test_training_equals_torchvisions(name, shift):
  network = _network(name)
  torch_networks.check_training(
    network, torchvision_networks.peer(name, network),
    torch_networks.images(4, (64, 65), 3), vanishing=1e-2, shift=shift,
  )


def test_cifar_stem_of_a_gray_network_equals_torchvisions():
  network = _network('mobilenet_v3_small', stem='cifar', in_channels=1)
  peer = torchvision_networks.peer('mobilenet_v3_small', network, 1, 1)
  torch_networks.check_inference(
    network, peer, torch_networks.images(2, (16, 18), 1)
  )


def test_same_padding_equals_torch_with_the_odd_zeros_at_the_end():
  torch = pytest.importorskip('torch', reason='torch is the oracle here')
  block = inverted_residual.InvertedResidual(
    4, 12, 8, 5, stride=2, activation=layers.hard_swish, padding='same',
    squeezed=8, dtype=jnp.float32, rngs=nnx.Rngs(jax.random.key(1)),
  )
  (widen, *_), (filters, *_), weigh, (narrow, *_) = block.block
  images = torch_networks.images(2, (10, 11), 4)
  x = torch.from_numpy(images.transpose(0, 3, 1, 2))

  def convolve(x, layer, **options):
    kernel = np.array(layer.kernel[...].transpose(3, 2, 0, 1))
    bias = getattr(layer, 'bias', None)
    bias = None if bias is None else torch.from_numpy(np.array(bias[...]))
    kernel = torch.from_numpy(kernel)
    return torch.nn.functional.conv2d(x, kernel, bias, **options)

  # Norms with their initial moments divide by sqrt(1 + epsilon).
  norm = lambda x: x / np.sqrt(1 + 1e-5)
  swish = torch.nn.functional.hardswish
  x = swish(norm(convolve(x, widen)))
  # Ten rows to five and eleven columns to six, 5 x 5 filters at stride two.
  x = torch.nn.functional.pad(x, (2, 2, 1, 2))
  x = swish(norm(convolve(x, filters, stride=2, groups=12)))
  squeezed = torch.relu(convolve(x.mean((2, 3), keepdim=True), weigh.fc1))
  x = x * torch.nn.functional.hardsigmoid(convolve(squeezed, weigh.fc2))
  expected = norm(convolve(x, narrow)).numpy().transpose(0, 2, 3, 1)
  assert expected.shape == (2, 5, 6, 8)
  np.testing.assert_allclose(
    block(images), expected, atol=1e-5 * np.abs(expected).max()
  )


def test_same_padding_reaches_every_convolution():
  for name in NAMES:
    network = nnx.eval_shape(
      lambda name=name: registry.create(
        name, jax.random.key(0), 2, padding='same'
      )
    )
    calls = inference.convolution_calls(network, (64, 64, 3))
    assert all(
      call.layer.padding == 'same'
      for call in calls if call.layer.kernel.shape[0] > 1
    )


@pytest.mark.parametrize('name, width, depth', [
  ('mobilenet_v2', 1280, 1280),
  ('mobilenet_v3_small', 1024, 576),
  ('mobilenet_v3_large', 1280, 960),
])
def test_head_takes_what_embed_gives(name, width, depth):
  network = nnx.eval_shape(lambda: registry.create(name, jax.random.key(0), 2))
  assert network.num_features == width
  graphdef, state = nnx.split(network)

  def run(state, images):
    copy = nnx.merge(graphdef, state)
    return copy.features(images), copy.embed(images)

  images = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
  features, embedded = jax.eval_shape(run, state, images)
  assert features.shape == (2, 2, 2, depth)
  assert embedded.shape == (2, width)


def test_dropout_acts_before_the_last_layer_and_draws_from_the_key():
  network = torchvision_networks.network('mobilenet_v3_small')
  assert network.classifier[2].rate == 0.2
  images = jnp.asarray(torch_networks.images(2, (32, 32), 3))

  @jax.jit
  def run(network, key):
    return nnx.clone(network)(images, train=True, key=key)

  first, again, other = (
    run(network, jax.random.key(seed)) for seed in (0, 0, 1)
  )
  np.testing.assert_array_equal(first, again)
  assert np.abs(first - other).max() > 1e-3 * np.abs(first).max()
  with pytest.raises(ValueError, match='needs a key'):
    jax.eval_shape(lambda n: nnx.clone(n)(images, train=True), network)


def test_initial_values_have_torchvisions_spread():
  block = mobilenet.LinearBottleneck(
    32, 192, 32, stride=1, padding='torch', dtype=jnp.float32,
    rngs=nnx.Rngs(jax.random.key(0)),
  )
  arrays = states.flatten(block)
  # std sqrt(2 / fan_out); torch counts all 192 channels of the filters.
  for name, fan_out in (('0.0', 192), ('1.0', 9 * 192), ('2', 32)):
    kernel = np.asarray(arrays[f'conv.{name}.kernel'])
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / fan_out), rtol=0.05)


def test_widths_of_weighing_are_multiples_of_eight():
  # Howard et al.: a quarter of the width, at least nine tenths of it.
  widths = [16, 72, 96, 120, 144, 240, 288, 480, 576, 672, 960]
  divisible = [inverted_residual.divisible(width // 4) for width in widths]
  assert divisible == [8, 24, 24, 32, 40, 64, 72, 120, 144, 168, 240]


def test_bad_arguments_are_refused():
  key = jax.random.key(0)
  with pytest.raises(ValueError, match='at least 1, got 0'):
    mobilenet.mobilenet_v2(key, 0)
  with pytest.raises(ValueError, match=r'\[0, 1\), got 1.0'):
    mobilenet.mobilenet_v3_large(key, 2, dropout=1.0)
  with pytest.raises(ValueError, match="'cifar', got 'gray'"):
    nnx.eval_shape(lambda: mobilenet.mobilenet_v3_small(key, 2, stem='gray'))
