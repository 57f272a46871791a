"""Kernels, centroids, loss and gradient penalty, against closed forms."""

from absl.testing import parameterized
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from jaxsens.models import inference
from jaxsens.models import layers
from jaxsens.models import registry
from jaxsens.models import states
from jaxsens.uncertainty import duq


def _head(dtype=np.float64, **options):
  """Returns a head of 5 features, 3 classes and 4 dimensions."""
  head = duq.Head(jax.random.key(0), 5, 3, **{
    'num_dimensions': 4, 'length_scale': 0.3, 'initial_count': 2.0, **options
  })
  rng = np.random.default_rng(0)
  kernels = 0.3 * rng.normal(size=(4, 3, 5))
  # Not by [...], which keeps the dtype.
  head.kernels = nnx.Param(jnp.asarray(kernels, dtype))
  head.sums = duq.Centroid(jnp.asarray(rng.normal(size=(4, 3)), dtype))
  head.counts = duq.Centroid(jnp.asarray([2.0, 3.0, 0.9], dtype))
  return head


def _features(number=7, dtype=np.float64):
  rng = np.random.default_rng(1)
  return jnp.asarray(rng.normal(size=(number, 5)), dtype)


class HeadTest(parameterized.TestCase):

  @parameterized.parameters(np.float32, np.float64)
  def test_kernels_equal_loops_over_images_classes_and_dimensions(self, dtype):
    with jax.enable_x64(dtype == np.float64):
      head, features = _head(dtype), _features(dtype=dtype)
      for log_kernels in (head(features), jax.jit(lambda f: head(f))(features)):
        self.assertEqual(log_kernels.dtype, dtype)
        expected = np.zeros((7, 3))
        kernels, sums, counts = (
          np.asarray(v[...], np.float64)
          for v in (head.kernels, head.sums, head.counts)
        )
        for b in range(7):
          for k in range(3):
            for m in range(4):
              z = kernels[m, k] @ np.asarray(features[b], np.float64)
              e = sums[m, k] / counts[k]
              expected[b, k] -= (z - e) ** 2 / 4 / (2 * 0.3**2)
        rtol = 1e-12 if dtype == np.float64 else 1e-4
        np.testing.assert_allclose(log_kernels, expected, rtol=rtol)
        np.testing.assert_allclose(
          duq.certainty(log_kernels), np.exp(expected.max(1)), rtol=rtol * 100
        )

  def test_a_feature_on_its_centroid_has_certainty_one(self):
    head = _head(np.float32)
    head.sums[...] = head.embed(_features(1, np.float32))[0] * head.counts[...]
    log_kernels = head(_features(1, np.float32))
    np.testing.assert_allclose(duq.certainty(log_kernels), 1, atol=1e-6)

  def test_initial_values_have_the_spread_of_the_reference(self):
    head = duq.Head(
      jax.random.key(1), 50, 10, num_dimensions=64, length_scale=0.1,
      initial_count=13.0,
    )
    # torch's kaiming_normal_ of (64, 10, 50): fan 10 * 50, gain sqrt 2.
    number = head.kernels[...].size
    self.assertAlmostEqual(
      float(head.kernels[...].std()) / np.sqrt(2 / 500), 1,
      delta=5 / np.sqrt(2 * number),
    )
    np.testing.assert_array_equal(head.counts[...], np.full(10, 13.0))
    self.assertAlmostEqual(
      float(head.centroids().std()) / 0.05, 1, delta=5 / np.sqrt(2 * 640)
    )
    self.assertAlmostEqual(
      float(head.centroids().mean()), 0, delta=5 * 0.05 / np.sqrt(640)
    )

  def test_certainty_of_nan_features_is_nan(self):
    head = _head(np.float32)
    features = _features(2, np.float32).at[0, 1].set(jnp.nan)
    np.testing.assert_array_equal(
      np.isnan(duq.certainty(head(features))), [True, False]
    )

  @parameterized.parameters(
    ({'length_scale': 0.0}, 'length_scale must be positive.*0.0'),
    ({'length_scale': -1.0}, 'length_scale must be positive'),
    ({'length_scale': np.nan}, 'length_scale must be positive.*nan'),
    ({'initial_count': 0.0}, 'initial_count must be positive'),
    ({'num_dimensions': 0}, 'num_dimensions'),
  )
  def test_values_that_make_no_sense_are_named(self, options, message):
    with self.assertRaisesRegex(ValueError, message):
      _head(**options)

  def test_one_class_only_is_refused(self):
    with self.assertRaisesRegex(ValueError, 'num_classes.*at least 2, got 1'):
      duq.Head(
        jax.random.key(0), 5, 1, num_dimensions=2, length_scale=0.1,
        initial_count=1.0,
      )


class CentroidTest(parameterized.TestCase):

  def test_moving_averages_equal_those_by_hand(self):
    head = duq.Head(
      jax.random.key(0), 2, 3, num_dimensions=1, length_scale=1.0,
      initial_count=1.0,
    )
    head.kernels[...] = jnp.array([[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]])
    head.counts[...] = jnp.array([4.0, 2.0, 1.0])
    head.sums[...] = jnp.array([[8.0, 2.0, 3.0]])
    features = jnp.array([[1.0, 5.0], [3.0, 5.0], [5.0, 6.0]])
    duq.update_centroids(head, features, jnp.array([0, 0, 1]), 0.75)
    # 0.75 * (4, 2, 1) + 0.25 * (2, 1, 0), and the first feature of two images,
    # the second of one.
    np.testing.assert_allclose(head.counts[...], [3.5, 1.75, 0.75])
    np.testing.assert_allclose(head.sums[...], [[7.0, 3.0, 2.25]])

  def test_centroid_of_a_class_that_the_batch_lacks_stays(self):
    head = _head(np.float32)
    before = np.asarray(head.centroids())
    for _ in range(3):
      duq.update_centroids(
        head, _features(dtype=np.float32), jnp.array([0, 2] * 3 + [0]), 0.9
      )
    np.testing.assert_allclose(head.centroids()[:, 1], before[:, 1], rtol=1e-6)
    self.assertTrue((np.asarray(head.centroids()) != before)[:, 0].all())

  def test_constant_features_become_the_centroids(self):
    head, features = _head(np.float32), _features(3, np.float32)
    labels = jnp.array([0, 1, 2])
    for _ in range(200):
      duq.update_centroids(head, features, labels, 0.9)
    np.testing.assert_allclose(
      duq.certainty(head(features)), np.ones(3), rtol=1e-5
    )

  def test_no_gradient_passes_through_the_update(self):
    head = _head(np.float32)
    graphdef, state = nnx.split(head)

    def moved(features):
      copy = nnx.merge(graphdef, state, copy=True)
      duq.update_centroids(copy, features, jnp.array([0, 1, 2]), 0.9)
      return copy.sums[...].sum()

    slopes = jax.grad(moved)(_features(3, np.float32))
    np.testing.assert_array_equal(slopes, np.zeros((3, 5)))


class LossTest(parameterized.TestCase):

  @parameterized.parameters(np.float32, np.float64)
  def test_loss_equals_the_plain_formula_where_that_is_exact(self, dtype):
    with jax.enable_x64(dtype == np.float64):
      d = np.random.default_rng(0).uniform(0.05, 3, (6, 4))
      labels = np.array([0, 1, 3, 3, 2, 0])
      weights = np.array([1.0, 2.0, 0.0, 0.5])
      k, own = np.exp(-d), np.eye(4)[labels]
      losses = -(own * np.log(k) + (1 - own) * np.log(1 - k)).mean(1)
      for given, expected in (
        (None, losses.mean()),
        (weights, weights[labels] @ losses / weights[labels].sum()),
      ):
        found = duq.binary_cross_entropy(
          jnp.asarray(-d, dtype), jnp.asarray(labels),
          None if given is None else jnp.asarray(given, dtype),
        )
        np.testing.assert_allclose(
          found, expected, rtol=1e-12 if dtype == np.float64 else 1e-5
        )

  def test_loss_equals_that_of_torch(self):
    try:
      import torch
    except ImportError:
      self.skipTest('torch is the oracle here')
    d = np.random.default_rng(0).uniform(0.05, 9, (6, 4)).astype(np.float32)
    labels = np.array([0, 1, 3, 3, 2, 0])
    expected = torch.nn.functional.binary_cross_entropy(
      torch.exp(-torch.tensor(d)), torch.eye(4)[torch.tensor(labels)]
    )
    found = duq.binary_cross_entropy(jnp.asarray(-d), jnp.asarray(labels))
    np.testing.assert_allclose(found, expected.item(), rtol=1e-5)

  def test_logarithm_is_exact_from_tiny_to_huge_distances(self):
    d = np.array([2.0**-23, 1e-6, 1e-3, 0.5, 3.0, 20.0, 80.0], np.float32)
    exact = d.astype(np.float64)
    np.testing.assert_allclose(
      duq.log_one_minus_exp(-jnp.asarray(d)), np.log(-np.expm1(-exact)),
      rtol=1e-5, atol=1e-8,
    )
    slopes = jax.vmap(jax.grad(duq.log_one_minus_exp))(-jnp.asarray(d))
    # d/d(log K) log(1 - K) = -1 / (1 / K - 1).
    np.testing.assert_allclose(
      slopes, -1 / np.expm1(exact), rtol=1e-5, atol=1e-7
    )

  def test_gradients_stay_finite_at_zero_and_at_any_distance(self):
    d = jnp.array([0.0, 1e-30, 1e-10, 1e3, 1e30], jnp.float32)
    for labels in ([0] * 5, [1] * 5):
      loss = lambda d, labels=labels: duq.binary_cross_entropy(
        jnp.stack([-d, -jnp.ones_like(d)], 1), jnp.array(labels)
      )
      value, slopes = jax.value_and_grad(loss)(d)
      self.assertTrue(np.isfinite(value))
      self.assertTrue(np.isfinite(slopes).all())
    # The gradient of a feature that reaches the centroid of another class
    # falls to zero with its distance; the formula's own grows without bound.
    push = lambda z: duq.log_one_minus_exp(-jnp.square(z))
    slopes = jax.vmap(jax.grad(push))(jnp.array([0.0, 1e-8, 1e-6, 1e-5]))
    self.assertEqual(float(slopes[0]), 0.0)
    np.testing.assert_allclose(slopes[1:] / slopes[1], [1, 100, 1000], rtol=0.1)

  def test_wrong_shapes_are_named(self):
    with self.assertRaisesRegex(ValueError, r'\(4, 2\) and \(3,\)'):
      duq.binary_cross_entropy(jnp.zeros((4, 2)), jnp.zeros(3, int))


class PenaltyTest(parameterized.TestCase):

  @parameterized.product(norm_power=(1, 2), sides=('one', 'two'))
  def test_penalty_and_its_gradient_equal_finite_differences(
    self, norm_power, sides
  ):
    with jax.enable_x64(True):
      rng = np.random.default_rng(2)
      images = jnp.asarray(rng.normal(size=(4, 3, 2)))
      # Gradients of about the norm one, some shorter and some longer.
      matrix = jnp.asarray(rng.normal(size=(6, 5)))
      head = _head()

      def kernel_sum(matrix, x):
        features = jnp.tanh(x.reshape(len(x), -1) @ matrix)
        return 1.4 * jnp.sum(jnp.exp(head(features)))

      def penalty(matrix):
        return duq.gradient_penalty(
          lambda x: kernel_sum(matrix, x), images, norm_power=norm_power,
          sides=sides,
        )

      slopes, h = np.zeros(images.shape), 1e-5
      for i in np.ndindex(*images.shape):
        step = np.zeros(images.shape)
        step[i] = h
        slopes[i] = (
          kernel_sum(matrix, images + step) - kernel_sum(matrix, images - step)
        ) / (2 * h)
      norms = np.sqrt((slopes**2).sum((1, 2)))
      excess = norms**norm_power - 1
      if sides == 'one':
        excess = np.maximum(excess, 0)
      self.assertTrue((norms > 1).any() and (norms < 1).any(), norms)
      np.testing.assert_allclose(penalty(matrix), (excess**2).mean(), rtol=1e-6)

      direction = jnp.asarray(rng.normal(size=matrix.shape))
      difference = (
        penalty(matrix + h * direction) - penalty(matrix - h * direction)
      ) / (2 * h)
      derivative = jnp.vdot(jax.jit(jax.grad(penalty))(matrix), direction)
      np.testing.assert_allclose(derivative, difference, rtol=1e-6)

  def test_gradient_of_norm_zero_has_a_finite_derivative(self):
    slopes = jax.grad(lambda g: duq.penalty_of(g))(jnp.zeros((2, 3)))
    np.testing.assert_array_equal(slopes, np.zeros((2, 3)))

  def test_unknown_options_are_named(self):
    for options in ({'norm_power': 3}, {'sides': 'both'}):
      with self.assertRaisesRegex(ValueError, 'norm_power must be 1 or 2'):
        duq.penalty_of(jnp.ones((2, 3)), **options)


class NetworkTest(parameterized.TestCase):

  @parameterized.parameters(
    ('lenet', 32, 3), ('resnet18', 32, 1), ('mobilenet_v3_small', 32, 3),
    ('squeezenet1_1_reduced7_two_stage', 32, 3),
  )
  def test_any_network_of_the_registry_takes_a_head(self, name, side, channels):
    def make():
      extractor = registry.create(
        name, jax.random.key(0), 4, in_channels=channels
      )
      return duq.make_network(
        jax.random.key(1), registry.without_head(name, extractor), 4,
        image_shape=(side, side, channels), num_dimensions=None,
        length_scale=0.1, initial_count=2.0,
      )

    network = nnx.eval_shape(make)
    graphdef, state = nnx.split(network)
    images = jax.ShapeDtypeStruct((2, side, side, channels), jnp.float32)
    answer = jax.eval_shape(
      lambda state, x: nnx.merge(graphdef, state)(x), state, images
    )
    self.assertEqual(answer.shape, (2, 4))
    names = set(states.flatten(network))
    head = f'extractor.{registry.find(name).head}.'
    self.assertFalse([n for n in names if n.startswith(head)])
    self.assertContainsSubset(
      {'head.kernels', 'head.counts', 'head.sums'}, names
    )

  def test_prepared_network_has_no_batch_norm_and_answers_alike(self):
    network = small_network()
    images = jax.random.uniform(jax.random.key(5), (3, 8, 8, 1))
    prepared = inference.prepare(network, (8, 8, 1))
    self.assertIn('extractor.bn1.mean', states.flatten(network))
    self.assertNotIn('extractor.bn1.mean', states.flatten(prepared))
    np.testing.assert_allclose(prepared(images), network(images), rtol=1e-4)

  def test_network_computes_in_bfloat16_where_it_is_prepared_so(self):
    images = jax.random.uniform(jax.random.key(5), (3, 8, 8, 1))
    prepared = inference.prepare(
      small_network(), (8, 8, 1), dtype=jnp.bfloat16
    )
    arrays = states.flatten(prepared)
    self.assertEqual(arrays['extractor.conv1.kernel'].dtype, jnp.bfloat16)
    self.assertEqual(arrays['head.kernels'].dtype, jnp.float32)
    answer = prepared(images)
    self.assertEqual(answer.dtype, jnp.float32)
    # Eight bits of precision, squared distances.
    np.testing.assert_allclose(answer, small_network()(images), rtol=0.1)


class Extractor(nnx.Module):
  """A convolution, perhaps batch norm, and the mean over the image."""

  def __init__(self, rngs, norm=True):
    self.conv1 = layers.Convolution(1, 6, 3, dtype=np.float32, rngs=rngs)
    if norm:
      self.bn1 = layers.BatchNorm(6)

  def embed(self, images, *, train=False, key=None):
    """Returns (B, 6)."""
    del key
    x = self.conv1(images)
    if hasattr(self, 'bn1'):
      x = self.bn1(x, train=train)
    return layers.mean_pool(layers.relu(x))


def small_network(norm=True, **options):
  network = duq.make_network(
    jax.random.key(1), Extractor(nnx.Rngs(0), norm), 3, image_shape=(8, 8, 1),
    **{'num_dimensions': 4, 'length_scale': 0.3, 'initial_count': 2.0,
       **options},
  )
  if norm:
    network.extractor.bn1.mean[...] = jnp.linspace(-0.2, 0.3, 6)
    network.extractor.bn1.var[...] = jnp.linspace(0.5, 1.5, 6)
  return network



