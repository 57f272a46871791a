"""Conductance: completeness, integrated gradients, and captum's limit."""

from absl.testing import parameterized
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsens import classifiers
from jaxsens.attribution import conductance
from tests.oracles import small_networks
from tests.oracles import torch_networks

pytestmark = pytest.mark.usefixtures('quick_compiles')

_TARGETS = np.array([3, 0, 1])


class _Same(nnx.Module):
  """Says what it hears: a name for the image."""

  def __call__(self, x):
    return x


class _SmoothNetwork(nnx.Module):
  """Name - convolution - tanh - convolution - tanh - mean - linear."""

  def __init__(self):
    rngs = nnx.Rngs(4)
    self.same = _Same()
    self.first = nnx.Conv(3, 6, (3, 3), rngs=rngs)
    self.second = nnx.Conv(6, 5, (3, 3), rngs=rngs)
    self.head = nnx.Linear(5, 4, rngs=rngs)

  def __call__(self, images):
    x = jnp.tanh(3 * self.first(self.same(images)))
    return self.head(jnp.mean(jnp.tanh(2 * self.second(x)), (1, 2)))


def _classifier():
  return classifiers.from_flax(
    _SmoothNetwork(), preprocess=classifiers.identity,
    class_names=('a', 'b', 'c', 'd'), image_size=(6, 8), channels=3,
  )


def _images(size=(6, 8)):
  rng = np.random.default_rng(3)
  return rng.uniform(-1, 1, (3, *size, 3)).astype(np.float32)


def _integrated_gradients(images, baseline, num_steps=40):
  """Returns integrated gradients of the smooth network, by the definition."""
  classifier = _classifier()
  nodes, weights = np.polynomial.legendre.leggauss(num_steps)
  score = lambda x: jnp.sum(classifier(x)[np.arange(3), _TARGETS])
  slope = jax.jit(jax.grad(score))
  way = images - np.float32(baseline)
  points = (np.float32(baseline + (1 + t) / 2 * way) for t in nodes)
  return sum(
    w / 2 * np.float64(slope(x)) * way
    for x, w in zip(points, weights, strict=True)
  )


class ConductanceTest(parameterized.TestCase):

  @parameterized.parameters('same', 'first', 'second', 'head')
  def test_total_is_the_gain_of_the_score(self, layer):
    for method in (
      conductance.conductance, conductance.layer_integrated_gradients
    ):
      found = method(
        _classifier(), _images(), _TARGETS, layer=layer, num_steps=30,
        baselines=0.2,
      )
      gain = found.scores - found.baseline_scores
      self.assertGreater(np.abs(gain).min(), 0.02)
      np.testing.assert_allclose(found.completeness_error, 0, atol=2e-6)
      np.testing.assert_allclose(found.channel_sums.sum(1), gain, atol=2e-6)
      self.assertEqual(found.channel_sums.shape[1], found.values.shape[-1])

  def test_conductance_of_the_image_is_its_integrated_gradients(self):
    images = _images()
    expected = _integrated_gradients(images, 0.2)
    for method in (
      conductance.conductance, conductance.layer_integrated_gradients
    ):
      found = method(
        _classifier(), images, _TARGETS, layer='same', num_steps=40,
        baselines=0.2,
      )
      np.testing.assert_allclose(
        found.values, expected, atol=1e-5 * np.abs(expected).max()
      )

  def test_last_linear_layer_conducts_by_its_own_gain(self):
    # F = logit[target]: the unit of the target has all of it, others nothing.
    found = conductance.conductance(
      _classifier(), _images(), _TARGETS, layer='head', num_steps=20
    )
    gain = found.scores - found.baseline_scores
    np.testing.assert_allclose(
      found.values, gain[:, None] * np.eye(4)[_TARGETS], atol=1e-6
    )

  def test_layer_that_is_passed_by_is_not_complete_and_tells(self):
    classifier = small_networks.classifier(jax.random.key(2))
    images = _images((8, 8))
    errors = {
      layer: conductance.conductance(
        classifier, images, _TARGETS, layer=layer, num_steps=64
      ).relative_completeness_error
      for layer in ('norm', 'second')
    }
    self.assertLess(np.median(errors['norm']), 0.02)
    self.assertGreater(np.median(errors['second']), 0.05)

  def test_captum_comes_to_the_same_as_its_steps_shrink(self):
    attr = pytest.importorskip('captum.attr', reason='captum is the oracle')
    import torch

    peer = torch_networks.fill(_peer(torch), _SmoothNetwork())
    images = _images()
    inputs = torch.from_numpy(images.transpose(0, 3, 1, 2))
    goals = torch.from_numpy(_TARGETS)

    def captum(method, layer, num_steps):
      made = getattr(attr, method)(peer, layer)
      found = made.attribute(inputs, 0.2, goals, n_steps=num_steps)
      return found.detach().numpy().transpose(0, 2, 3, 1)

    for name in ('first', 'second'):
      layer, options = getattr(peer, name), {'layer': name, 'baselines': 0.2}
      found = conductance.layer_integrated_gradients(
        _classifier(), images, _TARGETS, num_steps=20, **options
      )
      expected = captum('LayerIntegratedGradients', layer, 20)
      largest = np.abs(expected).max()
      np.testing.assert_allclose(found.values, expected, atol=1e-4 * largest)
      # captum multiplies gradients by differences between one node and the
      # next, an error in proportion to 1 / (n_steps + 1), and leaves out what
      # is before the first and behind the last node.
      found = conductance.conductance(
        _classifier(), images, _TARGETS, num_steps=20, **options
      )
      coarse, fine = (
        captum('LayerConductance', layer, n) for n in (399, 799)
      )
      largest = np.abs(fine).max()
      limit = 2 * fine - coarse
      np.testing.assert_allclose(found.values, limit, atol=1e-4 * largest)
      gain = found.scores - found.baseline_scores
      delta = np.abs(coarse.sum((1, 2, 3)) - gain)
      self.assertTrue(
        np.all(delta > 20 * np.abs(found.completeness_error))
      )

  @parameterized.parameters(1, 3)
  def test_result_does_not_depend_on_the_chunk_size(self, chunk_size):
    options = {'layer': 'second', 'num_steps': 7}
    first, second = (
      conductance.conductance(
        _classifier(), _images(), _TARGETS, chunk_size=size, **options
      )
      for size in (2, chunk_size)
    )
    np.testing.assert_allclose(first.values, second.values, atol=1e-7)
    np.testing.assert_array_equal(first.num_gradients, 7)
    np.testing.assert_array_equal(first.num_forwards, 9)

  @parameterized.parameters(
    ({'layer': 'fist'}, "no layer 'fist'; next to it are first"),
    ({'num_steps': 0}, 'num_steps must be at least 1'),
    ({'targets': 4}, 'targets must be classes from 0 to 3'),
    ({'baselines': np.zeros((2, 2))}, 'baselines must be'),
  )
  def test_bad_input_is_refused(self, options, message):
    with self.assertRaisesRegex(ValueError, message):
      conductance.conductance(
        _classifier(), _images(), **{'layer': 'first'} | options
      )


def _peer(torch):
  """Returns torch's network of the same names."""
  class Peer(torch.nn.Module):

    def __init__(self):
      super().__init__()
      self.first = torch.nn.Conv2d(3, 6, 3, padding=1)
      self.second = torch.nn.Conv2d(6, 5, 3, padding=1)
      self.head = torch.nn.Linear(5, 4)

    def forward(self, x):
      x = torch.tanh(3 * self.first(x))
      return self.head(torch.tanh(2 * self.second(x)).mean((2, 3)))

  return Peer()
