"""DeepLIFT against closed forms, its completeness, and captum."""

import functools

from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsens import classifiers
from jaxsens.attribution import deeplift
from tests.attribution import captum_peers
from tests.oracles import small_networks

pytestmark = pytest.mark.usefixtures('quick_compiles')


def _convolve(x, kernel):
  return jax.lax.conv_general_dilated(
    x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )


def _pool(x, size, stride):
  return jax.lax.reduce_window(
    x, -jnp.inf, jax.lax.max, (1, size, size, 1), (1, stride, stride, 1),
    'VALID',
  )


def _layer_norm(x):
  centred = x - x.mean(-1, keepdims=True)
  return centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-5)


def _everything(params, x):
  """Rectifier used twice, residual, pool, SiLU, layer norm, gate."""
  a, b, c, d, e = params
  relu = jax.nn.relu
  x = relu(_convolve(x, a) + 0.1)
  x = _pool(x, 3, 2)
  x = relu(x + _convolve(relu(_convolve(x, b) - 0.05), c))
  x = jax.nn.silu(_layer_norm(x))
  gate = jax.nn.sigmoid(relu(x.mean((1, 2))) @ d)
  return (x * gate[:, None, None]).mean((1, 2)) @ e


def _three_convolutions(params, x):
  a, b, c, d, e = params
  x = jax.nn.relu(_convolve(x, a) + e[:6])
  x = _pool(_convolve(x, b), 2, 2)
  return jax.nn.relu(_convolve(x, c)).mean((1, 2)) @ d


def _rectifier_then_pool(params, x):
  a, b, _, d, _ = params
  return _pool(jax.nn.relu(_convolve(x, a)), 2, 2).mean((1, 2)) @ d


def _perceptron(params, x):
  first, bias, second = params
  return jax.nn.relu(x.reshape(len(x), -1) @ first + bias) @ second


def _params(*shapes, dtype=np.float64):
  rng = np.random.default_rng(1)
  return tuple(
    (rng.normal(size=s) / np.sqrt(np.prod(s[:-1]))).astype(dtype)
    for s in shapes
  )


_K = (3, 3, 6, 6)


def _network(apply_fn, params, size=8):
  return classifiers.Classifier(
    apply_fn, params, classifiers.identity, tuple('abcd'), (size, size), 3
  )


def _images(number, size=8, seed=0, dtype=np.float32):
  rng = np.random.default_rng(seed)
  return rng.uniform(size=(number, size, size, 3)).astype(dtype)


class DeepliftTest(parameterized.TestCase):
  @parameterized.parameters('logit', 'probability', 'margin', 'entropy')
  def test_values_sum_to_the_gain(self, quantity):
    with jax.enable_x64(True):
      params = _params((3, 3, 3, 6), _K, _K, (6, 6), (6, 4))
      found = deeplift.deeplift(
        _network(_everything, params), _images(3, dtype=np.float64), 2,
        quantity=quantity, baselines=_images(3, seed=1, dtype=np.float64),
      )
    self.assertLess(found.relative_completeness_error.max(), 1e-12)
    self.assertGreater(np.abs(found.values).max(), 1e-4)

  def test_values_sum_to_the_gain_in_single_precision(self):
    params = _params((3, 3, 3, 6), _K, _K, (6, 6), (6, 4), dtype=np.float32)
    found = deeplift.deeplift(_network(_everything, params), _images(3), 2)
    total = np.abs(found.values).sum((1, 2, 3))
    self.assertLess((np.abs(found.completeness_error) / total).max(), 1e-6)
    own = _everything(params, _images(3))[:, 2]
    np.testing.assert_allclose(found.scores, own, rtol=1e-5)

  def test_rectifiers_without_bias_and_black_are_gradient_times_input(self):
    params = _params((192, 10), (10,), (10, 4), dtype=np.float32)
    network = _network(_perceptron, (params[0], 0 * params[1], params[2]))
    images = _images(3)
    slopes = jax.grad(lambda x: network(x)[:, 1].sum())(images)
    np.testing.assert_allclose(
      deeplift.deeplift(network, images, 1).values, images * slopes,
      rtol=1e-4, atol=1e-6,
    )

  def test_one_hidden_layer_by_hand(self):
    with jax.enable_x64(True):
      params = first, bias, second = _params((192, 10), (10,), (10, 4))
      images = _images(3, dtype=np.float64)
      baselines = _images(3, seed=1, dtype=np.float64)
      found = deeplift.deeplift(
        _network(_perceptron, params), images, [0, 1, 3], baselines=baselines
      )
    z, z0 = (x.reshape(3, -1) @ first + bias for x in (images, baselines))
    share = (np.maximum(z, 0) - np.maximum(z0, 0)) / (z - z0)
    slopes = (share * second.T[[0, 1, 3]]) @ first.T
    np.testing.assert_allclose(
      found.values, (images - baselines) * slopes.reshape(images.shape),
      rtol=1e-10, atol=1e-14,
    )

  def test_values_do_not_depend_on_chunks_and_neighbours(self):
    network, images = small_networks.classifier(jax.random.key(0)), _images(5)
    whole = deeplift.deeplift(network, images, chunk_size=5)
    for found in (
      deeplift.deeplift(network, images, chunk_size=2),
      deeplift.deeplift(network, images, whole.targets, chunk_size=1),
    ):
      np.testing.assert_allclose(
        found.values, whole.values, rtol=1e-4, atol=1e-6
      )
    np.testing.assert_array_equal(whole.num_gradients, 1)
    np.testing.assert_array_equal(whole.num_forwards, 2)

  def test_deepshap_is_the_mean_over_baselines(self):
    network, images = small_networks.classifier(jax.random.key(0)), _images(2)
    baselines = _images(3, seed=1)
    found = deeplift.deepshap(network, images, baselines, 1)
    single = [
      deeplift.deeplift(network, images, 1, baselines=b) for b in baselines
    ]
    for name in ('values', 'baseline_scores', 'scores'):
      np.testing.assert_allclose(
        getattr(found, name), np.mean([getattr(s, name) for s in single], 0),
        rtol=1e-4, atol=1e-6,
      )
    np.testing.assert_array_equal(found.num_gradients, 3)

  def test_bad_input_is_refused(self):
    network, images = small_networks.classifier(jax.random.key(0)), _images(2)
    with self.assertRaisesRegex(ValueError, 'baselines must have shape'):
      deeplift.deepshap(network, images, images[0])
    with self.assertRaisesRegex(ValueError, 'NaN'):
      deeplift.deepshap(network, images, np.full_like(images, np.nan))
    with self.assertRaisesRegex(ValueError, 'baselines must be'):
      deeplift.deeplift(network, images, baselines=images[:, :4])
    with self.assertRaisesRegex(ValueError, 'targets'):
      deeplift.deeplift(network, images, 9)
    with self.assertRaisesRegex(ValueError, 'argmax'):
      deeplift.deeplift(network, images, quantity='correctness')
    with self.assertRaisesRegex(ValueError, 'chunk_size'):
      deeplift.deeplift(network, images, 0, chunk_size=0)


@functools.cache
def _converted():
  """Returns params of `_three_convolutions` and a maker of torch layers."""
  import torch

  params = _params(
    (3, 3, 3, 6), _K, _K, (6, 4), (6,), dtype=np.float32
  )

  def convolution(kernel, bias=None):
    layer = torch.nn.Conv2d(
      *kernel.shape[2:], 3, padding=1, bias=bias is not None
    )
    layer.weight.data = torch.tensor(kernel.transpose(3, 2, 0, 1).copy())
    if bias is not None:
      layer.bias.data = torch.tensor(bias)
    return layer

  head = torch.nn.Linear(6, 4, bias=False)
  head.weight.data = torch.tensor(params[3].T.copy())
  end = torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), head
  return params, convolution, end


class CaptumTest(parameterized.TestCase):
  def test_three_convolutions_agree(self):
    captum = captum_peers.import_captum()
    from torch import nn

    params, convolution, end = _converted()
    peer = nn.Sequential(
      convolution(params[0], params[4]), nn.ReLU(), convolution(params[1]),
      nn.MaxPool2d(2), convolution(params[2]), nn.ReLU(), *end,
    )
    network = _network(_three_convolutions, params)
    image, baselines = _images(1), _images(4, seed=1)
    captum_peers.check_close(
      deeplift.deeplift(network, image, 3, baselines=baselines[0]).values,
      captum_peers.values(
        captum.DeepLift(peer), image, baselines[:1], target=3
      ), 1e-5,
    )
    captum_peers.check_close(
      deeplift.deepshap(network, image, baselines, 3).values,
      captum_peers.values(
        captum.DeepLiftShap(peer), image, baselines, target=3
      ), 1e-5,
    )

  def test_captum_is_incomplete_where_a_pool_follows_a_rectifier(self):
    captum = captum_peers.import_captum()
    from torch import nn

    params, convolution, end = _converted()
    peer = nn.Sequential(
      convolution(params[0]), nn.ReLU(), nn.MaxPool2d(2), *end
    )
    network = _network(_rectifier_then_pool, params)
    images, baselines = _images(3), _images(3, seed=1)
    found = deeplift.deeplift(network, images, 3, baselines=baselines)
    theirs = captum_peers.values(
      captum.DeepLift(peer), images, baselines, target=3
    )
    gain = found.scores - found.baseline_scores
    self.assertLess(found.relative_completeness_error.max(), 1e-4)
    error = np.abs(theirs.sum((1, 2, 3)) - gain) / np.abs(gain)
    self.assertGreater(error.min(), 1e-2)
    repaired = captum_peers.values(
      captum.DeepLift(captum_peers.apart(peer)), images, baselines, target=3
    )
    captum_peers.check_close(found.values, repaired, 1e-5)

  @parameterized.parameters('squeezenet1_1', 'resnet18')
  def test_networks_agree_with_captum_once_its_pools_are_repaired(self, name):
    captum = captum_peers.import_captum()
    peer = captum_peers.peer(name)
    image, baseline = captum_peers.images(1), captum_peers.images(1, 1)
    found = deeplift.deeplift(
      captum_peers.classifier(name), image, 3, baselines=baseline
    )
    gain = found.scores - found.baseline_scores
    theirs = captum_peers.values(
      captum.DeepLift(peer), image, baseline, target=3
    )
    self.assertGreater(np.abs(theirs.sum() - gain), 0.05 * np.abs(gain))
    with captum_peers.summed_unpooling():
      repaired = captum_peers.values(
        captum.DeepLift(captum_peers.apart(peer)), image, baseline, target=3
      )
    captum_peers.check_close(found.values, repaired)
    self.assertLess(
      np.abs(found.completeness_error), 1e-6 * np.abs(found.values).sum()
    )
