import functools
import os

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsens import classifiers
from jaxsens.models import inference
from jaxsens.models import registry
from jaxsens.models import states
from tests.oracles import torchvision_networks

pytestmark = pytest.mark.usefixtures('quick_compiles')

# Sizes that leave every stage something and that each network takes.
_SIZES = {'cnn': (64, 400), 'lenet': (32, 32)}
# The head of VGG16 has 120 million parameters, half a gigabyte in every copy;
# the same convolutions stand in 'vgg16_bn_narrow'.
_NAMES = [name for name in registry.ARCHITECTURES if name != 'vgg16_bn']


# More of the blocks of resnet18, mobilenet_v3_small and efficientnet_b0.
_LARGER = ('resnet34', 'mobilenet_v3_large', 'efficientnet_b1')


@functools.cache
def network(name):
  """Returns a gray network with random weights and running moments."""
  return torchvision_networks.network(name, in_channels=1)


def _size(name):
  return _SIZES.get(name, (64, 64))


def _images(batch, size, channels=1):
  rng = np.random.default_rng(1)
  return rng.normal(size=(batch, *size, channels)).astype(np.float32)


@jax.jit
def _infer(network, images):
  return network(images)


@pytest.mark.parametrize('name', registry.ARCHITECTURES)
def test_prepared_network_has_no_batch_norm_left(name):
  model = nnx.eval_shape(
    lambda: registry.create(name, jax.random.key(0), 7, in_channels=1)
  )
  prepared = nnx.eval_shape(
    lambda model: inference.prepare(model, (*_size(name), 1)), model
  )
  left = states.flatten(prepared)
  assert not [name for name in left if name.endswith(('mean', 'var', 'scale'))]
  assert states.flatten(model).keys() >= left.keys() - {
    name for name in left if name.endswith('bias')
  }


@pytest.mark.parametrize(
  'name', [name for name in _NAMES if name not in _LARGER]
)
def test_prepared_network_equals_the_network_with_batch_norm(name):
  model = network(name)
  images = _images(2, _size(name))
  prepared = inference.prepare(model, images.shape[1:])
  expected = _infer(model, images)
  # Rounding of up to 60 layers in sequence, which tiles make tenfold.
  np.testing.assert_allclose(
    _infer(prepared, images), expected, atol=1e-4 * np.abs(expected).max()
  )


@pytest.mark.parametrize('size, num_tiled', [(12, 0), (40, 7), (97, 13)])
def test_stages_of_at_least_a_tile_have_tiled_kernels(
  monkeypatch, size, num_tiled
):
  monkeypatch.setattr(jax, 'default_backend', lambda: 'cpu')
  prepared = inference.prepare(network('resnet18'), (size + 30, size, 1))
  tiled = [
    name for name, x in states.flatten(prepared).items() if x.ndim == 3
  ]
  # Four, three, three and three convolutions of stride 1 in the stages.
  assert len(tiled) == num_tiled
  assert all('conv' in name for name in tiled)


def test_tiles_change_the_logits_by_rounding_only(monkeypatch):
  model, images = network('resnet18'), _images(2, (49, 49))
  with jax.default_matmul_precision('highest'):
    monkeypatch.setattr(jax, 'default_backend', lambda: 'cpu')
    tiled = _infer(inference.prepare(model, (49, 49, 1)), images)
    monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
    direct = inference.prepare(model, (49, 49, 1))
    assert all(x.ndim != 3 for x in states.flatten(direct).values())
    expected = _infer(direct, images)
  np.testing.assert_allclose(
    tiled, expected, atol=1e-5 * np.abs(expected).max()
  )


def test_bfloat16_network_gives_float32_logits_near_those_of_float32():
  model, images = network('resnet18'), _images(2, (40, 40))
  prepared = inference.prepare(model, (40, 40, 1), dtype=jnp.bfloat16)
  assert prepared.layer1[0].conv1.kernel.dtype == jnp.bfloat16
  assert all(x.ndim != 3 for x in states.flatten(prepared).values())
  logits, expected = _infer(prepared, images), _infer(model, images)
  assert logits.dtype == jnp.float32
  # bfloat16 keeps 8 bits; twenty layers in sequence.
  np.testing.assert_allclose(
    logits, expected, atol=0.1 * np.abs(expected).max()
  )


def test_classifier_normalises_and_folds():
  model = network('resnet18')
  classifier = inference.classifier(
    model, preprocess=classifiers.Normalise((0.5,), (0.5,)),
    class_names=tuple('abcdefg'), image_size=(40, 40), channels=1,
  )
  images = np.random.default_rng(0).random((2, 40, 40, 1), np.float32)
  np.testing.assert_allclose(
    classifier(images), _infer(model, 2 * images - 1), rtol=1e-4, atol=1e-4
  )
  assert classifier.channels == 1


def test_calls_name_what_follows_what():
  model = nnx.eval_shape(
    lambda: registry.create('resnet18', jax.random.key(0), 2)
  )
  calls = inference.convolution_calls(model, (64, 96, 3))
  assert len(calls) == 20
  first, last = calls[0], calls[-1]
  assert (first.name, first.norm_name) == ('conv1', 'bn1')
  assert first.layer is model.conv1 and first.norm is model.bn1
  assert first.input_shape == (64, 96, 3)
  assert first.output_shape == (32, 48, 64)
  assert (last.name, last.norm_name) == ('layer4.1.conv2', 'layer4.1.bn2')
  assert last.output_shape == (2, 3, 512)
  names = {call.name: call.norm_name for call in calls}
  assert names['layer2.0.downsample.0'] == 'layer2.0.downsample.1'


def test_preparing_leaves_the_network_as_it_is():
  model = network('resnet18')
  before = states.flatten(model)
  inference.prepare(model, (40, 40, 1))
  assert states.flatten(model).keys() == before.keys()


@pytest.mark.parametrize(
  'number, limit, expected',
  [(8, 0, 8), (8, 4, 4), (8, 5, 4), (8, 8, 8), (3, 8, 3), (7, 4, 7), (9, 4, 3),
   (1, 1, 1), (5, 1, 1)],
)  # fmt: skip
def test_slices_divide_the_batch(number, limit, expected):
  assert classifiers.slice_of(number, limit) == expected


def test_slices_change_neither_logits_nor_gradients():
  images = _images(4, (64, 64))
  prepared = inference.prepare(network('squeezenet1_1'), images.shape[1:])
  assert any(x.ndim == 3 for x in states.flatten(prepared).values())
  whole, cut = nnx.clone(prepared), nnx.clone(prepared)
  whole.slice_size, cut.slice_size = 0, 2

  @jax.jit
  def both(model, images):
    squares = lambda images: jnp.sum(model(images) ** 2)
    return model(images), model.embed(images), jax.grad(squares)(images)

  assert 'while' in jax.jit(both).lower(cut, images).as_text()
  for found, expected in zip(
    both(cut, images), both(whole, images), strict=True
  ):
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, atol=1e-5 * scale)


def test_large_maps_go_in_slices_and_small_ones_whole():
  shapes = [(64, 64), (448, 448)]
  sizes = [
    inference.prepare(network('resnet18'), (*shape, 1)).slice_size
    for shape in shapes
  ]
  cores = os.cpu_count()
  assert sizes[0] > 32 or sizes[0] == cores
  assert cores <= sizes[1] <= max(cores, 2)


def test_gradients_of_light_networks_go_in_smaller_slices():
  shape = (448, 448, 1)
  light, heavy = network('squeezenet1_1'), network('resnet18')
  for model, share in ((light, 2), (heavy, 1)):
    whole = inference.slice_size(inference.convolution_calls(model, shape))
    found = inference.gradient_slice_size(model, shape)
    assert found == max(whole // share, min(whole, os.cpu_count()))


def test_other_platforms_run_whole_batches(monkeypatch):
  calls = inference.convolution_calls(network('resnet18'), (64, 64, 1))
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  assert inference.slice_size(calls) == 0
  size = inference.gradient_slice_size(network('resnet18'), (64, 64, 1))
  assert size == 0
