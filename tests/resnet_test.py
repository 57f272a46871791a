import functools

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsens import classifiers
from jaxsens.models import layers
from jaxsens.models import registry
from jaxsens.models import resnet
from jaxsens.models import states
from jaxsens.weights import convert
from tests.oracles import torchvision_ops

SMALL = dict(num_classes=5, in_channels=1, dropout=0.5)


@functools.cache
def _network(num_classes, in_channels, dropout):
  """Returns a network whose running moments are not the initial ones."""
  network = resnet.resnet18(
    jax.random.key(3), num_classes, in_channels=in_channels, dropout=dropout
  )
  rng = np.random.default_rng(0)
  arrays = {
    name: x + rng.uniform(0.05, 0.5, x.shape) if 'bn' in name else x
    for name, x in states.flatten(network).items()
  }
  return states.replace(network, arrays)


def _images(batch, size, channels):
  rng = np.random.default_rng(1)
  return rng.normal(size=(batch, size, size, channels)).astype(np.float32)


@jax.jit
def _infer(network, images):
  return network(images)


def test_rgb_network_of_1000_classes_has_torchvisions_parameter_count():
  network = nnx.eval_shape(
    lambda: resnet.resnet18(jax.random.key(0), num_classes=1000)
  )
  parameters = jax.tree.leaves(nnx.state(network, nnx.Param))
  # Printed by torchvision's documentation of resnet18.
  assert sum(x.size for x in parameters) == 11_689_512


@pytest.mark.parametrize('in_channels, dropout', [(3, 0.0), (1, 0.5)])
def test_logits_equal_torchvisions(in_channels, dropout):
  torchvision = torchvision_ops.import_torchvision()
  import torch

  network = _network(5, in_channels, dropout)
  peer = torchvision.models.resnet18(num_classes=5)
  peer.conv1 = torch.nn.Conv2d(in_channels, 64, 7, 2, 3, bias=False)
  if dropout:
    peer.fc = torch.nn.Sequential(torch.nn.Dropout(dropout), peer.fc)
  state_dict = convert.to_torch_names(network)
  peer.load_state_dict(
    {name: torch.from_numpy(array) for name, array in state_dict.items()}
  )
  peer.eval()
  # 33 and 65 pixels leave odd sizes to every stage; 33 ends at 2 x 2 pixels.
  for size in (33, 65):
    images = _images(2, size, in_channels)
    with torch.no_grad():
      expected = peer(torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy()
    np.testing.assert_allclose(
      _infer(network, images), expected, atol=1e-4, rtol=1e-5
    )


def test_batch_norm_in_training_equals_torchs():
  torch = pytest.importorskip('torch', reason='torch is the oracle here')
  peer = torch.nn.BatchNorm2d(3)
  norm = layers.BatchNorm(3)
  for scale in (1.0, 3.0):
    images = scale * _images(2, 3, 3) + 0.5
    expected = peer(torch.from_numpy(images.transpose(0, 3, 1, 2)))
    actual = norm(images, train=True)
    np.testing.assert_allclose(
      actual, expected.detach().numpy().transpose(0, 2, 3, 1), atol=1e-5
    )
  np.testing.assert_allclose(norm.mean[...], peer.running_mean, rtol=1e-5)
  np.testing.assert_allclose(norm.var[...], peer.running_var, rtol=1e-5)


@pytest.mark.parametrize('size', [1, 2, 7, 8])
def test_max_pool_equals_reduce_window(size):
  images = _images(2, size, 3)
  expected = nnx.max_pool(images, (3, 3), (2, 2), ((1, 1), (1, 1)))
  np.testing.assert_array_equal(layers.max_pool(images), expected)


@pytest.mark.parametrize(
  'size, stride, kernel_size',
  [(1, 1, 3), (2, 1, 3), (3, 1, 3), (4, 2, 3), (9, 2, 3), (9, 1, 1), (9, 2, 7)],
)
def test_convolution_and_its_gradient_equal_xlas_at_every_size(
  size, stride, kernel_size
):
  images = _images(2, size, 3)
  rng = np.random.default_rng(2)
  kernel = rng.normal(size=(kernel_size, kernel_size, 3, 4)).astype(np.float32)

  def xla(images, kernel):
    return jax.lax.conv_general_dilated(
      images,
      kernel,
      (stride, stride),
      ((kernel_size // 2, kernel_size // 2),) * 2,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )

  ours = functools.partial(layers.convolve, stride=stride)
  np.testing.assert_allclose(
    ours(images, kernel), xla(images, kernel), atol=1e-4
  )
  for argument in (0, 1):
    gradients = [
      jax.grad(lambda *x, f=f: jnp.sum(f(*x) ** 2), argument)(images, kernel)
      for f in (ours, xla)
    ]
    np.testing.assert_allclose(*gradients, rtol=1e-4, atol=1e-3)


def test_folded_network_equals_the_network_with_batch_norm():
  network = _network(**SMALL)
  images = _images(3, 40, 1)
  params = resnet.fold_batch_norm(network)
  expected = _infer(network, images)
  np.testing.assert_allclose(
    jax.jit(resnet.apply_folded)(params, images),
    expected,
    atol=1e-5 * np.abs(expected).max(),
  )
  assert set(params['layer2'][0]) == {'conv1', 'conv2', 'downsample'}


@pytest.mark.parametrize('height, width', [(1, 2), (4, 8), (7, 7), (14, 9)])
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.float64])
def test_convolution_by_tiles_and_its_gradient_equal_xlas(
  height, width, dtype
):
  with jax.enable_x64(dtype == jnp.float64):
    rng = np.random.default_rng(2)
    images = jnp.asarray(rng.normal(size=(2, height, width, 8)), dtype)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 8, 5)), dtype)

    def xla(images):
      return jax.lax.conv_general_dilated(
        images, kernel, (1, 1), ((1, 1), (1, 1)),
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
        precision=jax.lax.Precision.HIGHEST,
      )

    @jax.jit
    def ours(images):
      return layers.convolve_tiles(images, layers.tile_kernel(kernel))

    atol = 1e-3 if dtype == jnp.float32 else 1e-11
    assert ours(images).dtype == dtype
    np.testing.assert_allclose(ours(images), xla(images), atol=atol)
    gradients = [
      jax.grad(lambda x, f=f: jnp.sum(jnp.sin(f(x))))(images)
      for f in (ours, xla)
    ]
    np.testing.assert_allclose(*gradients, atol=10 * atol)


def test_network_with_tiled_kernels_equals_the_folded_one(monkeypatch):
  monkeypatch.setattr(jax, 'default_backend', lambda: 'cpu')
  params = resnet.fold_batch_norm(_network(**SMALL))
  # The stages have 13, 7, 4 and 2 pixels.
  tiled = resnet.tile_kernels(params, (49, 52))
  images = _images(2, 49, 1)
  apply = jax.jit(resnet.apply_folded)
  with jax.default_matmul_precision('highest'):
    expected, actual = apply(params, images), apply(tiled, images)
  np.testing.assert_allclose(
    actual, expected, atol=1e-5 * np.abs(expected).max()
  )


@pytest.mark.parametrize('size, num_tiled', [(12, 0), (40, 2), (97, 4)])
def test_stages_of_at_least_a_tile_have_tiled_kernels(
  monkeypatch, size, num_tiled
):
  monkeypatch.setattr(jax, 'default_backend', lambda: 'cpu')
  params = resnet.fold_batch_norm(_network(**SMALL))
  tiled = resnet.tile_kernels(params, (size + 30, size))
  for i in range(4):
    first, second = tiled[f'layer{i + 1}']
    ndim = 3 if i < num_tiled else 4
    assert first['conv2']['kernel'].ndim == ndim
    assert second['conv1']['kernel'].ndim == ndim
  # At stride 2 the direct form stays.
  assert tiled['layer2'][0]['conv1']['kernel'].ndim == 4


def test_kernels_are_tiled_in_float32_on_cpu_only(monkeypatch):
  network = _network(**SMALL)
  half = resnet.fold_batch_norm(network, dtype=jnp.bfloat16)
  assert resnet.tile_kernels(half, (224, 224)) is half
  single = resnet.fold_batch_norm(network)
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  assert resnet.tile_kernels(single, (224, 224)) is single


def test_bfloat16_network_gives_float32_logits_near_those_of_float32():
  network = _network(**SMALL)
  images = _images(2, 40, 1)
  params = resnet.fold_batch_norm(network, dtype=jnp.bfloat16)
  assert params['layer1'][0]['conv1']['kernel'].dtype == jnp.bfloat16
  logits = jax.jit(resnet.apply_folded)(params, images)
  expected = _infer(network, images)
  assert logits.dtype == jnp.float32
  # bfloat16 keeps 8 bits; twenty layers in sequence.
  np.testing.assert_allclose(
    logits, expected, atol=0.1 * np.abs(expected).max()
  )


def test_classifier_normalises_and_folds():
  network = _network(**SMALL)
  classifier = resnet.classifier(
    network,
    preprocess=classifiers.Normalise((0.5,), (0.5,)),
    class_names=tuple('abcde'),
    image_size=(40, 40),
  )
  images = np.random.default_rng(0).random((2, 40, 40, 1), np.float32)
  np.testing.assert_allclose(
    classifier(images), _infer(network, 2 * images - 1), rtol=1e-4, atol=1e-4
  )
  assert classifier.channels == 1


def test_initial_values_have_torchvisions_spread():
  network = resnet.resnet18(jax.random.key(0), **SMALL)
  arrays = states.flatten(network)
  # He et al. 2015: std sqrt(2 / fan_out); 3 x 3 x 512 outputs.
  kernel = np.asarray(arrays['layer4.1.conv2.kernel'])
  np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (9 * 512)), rtol=0.01)
  head = np.asarray(arrays['fc.1.kernel'])
  # torch.nn.Linear: U(-1/sqrt(512), 1/sqrt(512)).
  assert np.abs(head).max() <= 512**-0.5
  np.testing.assert_allclose(head.std(), (3 * 512) ** -0.5, rtol=0.05)


def test_inference_is_deterministic_and_leaves_the_state_untouched():
  network = resnet.resnet18(jax.random.key(0), **SMALL)
  before = states.flatten(network)
  images = _images(2, 33, 1)
  np.testing.assert_array_equal(network(images), network(images))
  for name, array in states.flatten(network).items():
    np.testing.assert_array_equal(array, before[name], err_msg=name)


def test_training_with_dropout_needs_a_key():
  with pytest.raises(ValueError, match='needs a key'):
    _network(**SMALL)._head(jnp.zeros((1, 512)), True, None)


def test_bad_arguments_are_refused():
  key = jax.random.key(0)
  with pytest.raises(ValueError, match='at least 1, got 0'):
    resnet.resnet18(key, 0)
  with pytest.raises(ValueError, match=r'\[0, 1\), got 1.0'):
    resnet.resnet18(key, 2, dropout=1.0)


def test_unknown_network_is_refused_with_the_nearest_name():
  assert registry.find('resnet18') is resnet.resnet18
  with pytest.raises(ValueError, match="did you mean 'resnet18'"):
    registry.find('resnet81')


def test_relu_keeps_nan_and_has_no_gradient_at_zero():
  x = jnp.array([-1.0, 0.0, 2.0, jnp.nan])
  np.testing.assert_array_equal(layers.relu(x), [0, 0, 2, np.nan])
  gradient = jax.grad(lambda x: layers.relu(x).sum())(x[:3])
  np.testing.assert_array_equal(gradient, [0, 0, 1])


def test_nan_in_an_image_reaches_the_logits():
  # Not so with `jax.nn.relu` under JAX 0.12 on CPU.
  network = _network(**SMALL)
  images = _images(2, 33, 1)
  images[1] = np.nan
  params = resnet.fold_batch_norm(network)
  logits = jax.jit(resnet.apply_folded)(params, images)
  assert np.isfinite(logits[0]).all() and np.isnan(logits[1]).all()
