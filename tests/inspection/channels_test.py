from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from jaxsens.inspection import channels
from tests.oracles import small_networks


class ChannelsTest(parameterized.TestCase):

  def test_comparison_is_that_of_scipy(self):
    rng = np.random.default_rng(0)
    x = rng.normal(1.0, [1, 2, 3, 4], (12, 4))
    y = rng.normal([1, 2, 0, 9], 1.0, (30, 4))
    found = channels.compare(x, y, offset=0.02)
    expected = stats.ttest_ind(x, y, equal_var=False)
    np.testing.assert_allclose(found.t, expected.statistic)
    np.testing.assert_allclose(found.p_value, expected.pvalue)
    interval = expected.confidence_interval(0.95)
    np.testing.assert_allclose(found.lower, interval.low)
    np.testing.assert_allclose(found.upper, interval.high)
    np.testing.assert_allclose(found.first_std, x.std(0, ddof=1))
    np.testing.assert_allclose(
      found.ratio, (x.mean(0) + 0.02) / (y.mean(0) + 0.02)
    )
    self.assertEqual(found.order[0], 3)
    self.assertTrue((np.diff(np.abs(found.t[found.order])) <= 0).all())

  def test_resampled_intervals_are_near_those_of_welch(self):
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(200, 3)), rng.normal(1, 2, size=(300, 3))
    welch = channels.compare(x, y)
    found = channels.compare(x, y, key=jax.random.key(0), num_samples=2000)
    # An end of a percentile interval of 2,000 resamples errs by about 6 % of
    # a standard error, which is a quarter of the width.
    width = welch.upper - welch.lower
    np.testing.assert_allclose(
      (found.lower - welch.lower) / width, 0, atol=5 * 0.06 / 4
    )
    np.testing.assert_allclose(
      (found.upper - welch.upper) / width, 0, atol=5 * 0.06 / 4
    )

  def test_constant_channels_have_no_nan_but_for_the_ratio(self):
    x = np.zeros((4, 3)) + [0.0, 1.0, 0.0]
    y = np.zeros((5, 3)) + [0.0, 2.0, 0.0]
    x[0, 2] = 1.0
    found = channels.compare(x, y)
    np.testing.assert_array_equal(found.t[:2], [0, -np.inf])
    np.testing.assert_array_equal(found.p_value[:2], [1, 0])
    np.testing.assert_array_equal(found.ratio, [np.nan, 0.5, np.nan])
    self.assertTrue(np.isfinite(found.lower).all())
    np.testing.assert_array_equal(found.order, [1, 2, 0])

  def test_holm_is_that_of_its_definition(self):
    # By hand: 4 * 0.005, 3 * 0.01, 2 * 0.03, then no smaller than before.
    np.testing.assert_allclose(
      channels.holm([0.03, 0.005, 0.04, 0.01]), [0.06, 0.02, 0.06, 0.03]
    )
    np.testing.assert_array_equal(channels.holm([0.9, 0.8]), [1, 1])

  def test_weights_have_the_statistics_of_numpy_by_path(self):
    x = np.random.default_rng(2).normal(size=(3, 4)).astype('f')
    x[0] = 0
    tree = {
      'layer1': [{'kernel': jnp.asarray(x)}], 'count': jnp.arange(3),
      'key': jax.random.key(0), 'half': jnp.ones(2, jnp.bfloat16),
    }
    half, found = channels.weight_statistics(tree)
    self.assertEqual(found.name, 'layer1.0.kernel')
    self.assertEqual(found.shape, (3, 4))
    np.testing.assert_allclose(
      (found.mean, found.std, found.minimum, found.maximum, found.zeros,
       found.norm),
      (x.mean(), x.std(), x.min(), x.max(), 1 / 3, np.sqrt(np.sum(x**2))),
      rtol=1e-5,
    )
    self.assertEqual((half.name, half.mean, half.std), ('half', 1, 0))

  def test_weights_of_a_flax_network_have_its_attribute_paths(self):
    classifier = small_networks.classifier(jax.random.key(0))
    names = [w.name for w in channels.weight_statistics(classifier.params)]
    self.assertIn('stem.kernel', names)
    self.assertIn('norm.var', names)

  @parameterized.parameters(
    (np.zeros((1, 2)), np.zeros((3, 2)), 'first must be .* two images'),
    (np.zeros((3, 2)), np.zeros((3, 3)), 'same channels'),
    (np.zeros((3, 2)), np.full((3, 2), np.nan), 'second holds NaN'),
  )
  def test_bad_groups_are_named(self, first, second, message):
    with self.assertRaisesRegex(ValueError, message):
      channels.compare(first, second)

  def test_bad_weights_are_named(self):
    with self.assertRaisesRegex(ValueError, "'a.b' of shape"):
      channels.weight_statistics({'a': {'b': jnp.array([jnp.nan])}})
    with self.assertRaisesRegex(ValueError, 'no array'):
      channels.weight_statistics({'a': jnp.arange(3)})


if __name__ == '__main__':
  absltest.main()
