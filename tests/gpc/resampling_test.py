"""Intervals of means over units against Student's interval and coverage."""

from absl.testing import absltest
from absl.testing import parameterized
import jax
import numpy as np
from scipy import stats

from jaxsens.gpc import designs
from jaxsens.gpc import resampling

KEY = jax.random.key(0)
# Five standard errors of a standard deviation of 4,000 normal replicates.
RESAMPLES, SPREAD_ERROR = 4000, 5 / np.sqrt(2 * 4000)


def half_width(estimate):
  return (estimate.upper - estimate.lower) / 2


def means(values, half_widths, weights=None, **options):
  weights = np.ones(len(values)) if weights is None else weights
  return resampling.weighted_means(
    KEY, values, half_widths, weights, num_resamples=RESAMPLES, **options
  )


class WeightedMeansTest(parameterized.TestCase):

  def test_value_is_the_weighted_mean(self):
    rng = np.random.default_rng(0)
    values, weights = rng.normal(size=(20, 3)), rng.uniform(size=20)
    estimate = means(values, np.zeros((20, 3)), weights)
    np.testing.assert_allclose(
      estimate.value, np.average(values, axis=0, weights=weights), rtol=1e-12
    )

  @parameterized.parameters(3, 10, 100)
  def test_exact_units_have_the_interval_of_student(self, num_units):
    values = np.random.default_rng(1).normal(size=(num_units, 2))
    estimate = means(values, np.zeros_like(values))
    expected = stats.t.ppf(0.975, num_units - 1) * stats.sem(values, axis=0)
    np.testing.assert_allclose(
      half_width(estimate), expected, rtol=SPREAD_ERROR
    )

  @parameterized.parameters((0.0, 0.1), (0.3, np.sqrt(0.01 * 0.7 + 0.3)),
                            (1.0, 1.0))
  def test_equal_units_have_the_interval_of_their_own_errors(self, rho, scale):
    # 100 errors of deviation 1: variance of their mean (1 - ρ) / 100 + ρ.
    num_units = 100
    values = np.full((num_units, 1), 0.5)
    estimate = means(
      values, np.full_like(values, 1.959963984540054), error_correlation=rho
    )
    expected = stats.t.ppf(0.975, 99) * np.sqrt(100 / 99) * scale
    np.testing.assert_allclose(
      half_width(estimate), expected, rtol=SPREAD_ERROR
    )

  def test_errors_within_the_spread_count_once(self):
    # What is seen varies by 1; half of that variance may be own error.
    values = np.random.default_rng(2).normal(size=(50, 1))
    values = (values - values.mean()) / values.std()
    own = np.full_like(values, 1.959963984540054 * np.sqrt(0.5))
    np.testing.assert_allclose(
      half_width(means(values, own)), half_width(means(values, 0 * own)),
      rtol=2 * SPREAD_ERROR,
    )

  def test_unknown_half_widths_count_as_zero(self):
    values = np.random.default_rng(3).normal(size=(9, 1))
    unknown = means(values, np.full_like(values, np.nan))
    exact = means(values, np.zeros_like(values))
    np.testing.assert_array_equal(unknown.lower, exact.lower)

  def test_scale_of_the_weights_does_not_matter(self):
    rng = np.random.default_rng(4)
    values, weights = rng.normal(size=(15, 2)), rng.uniform(size=15)
    one = means(values, np.ones_like(values), weights)
    other = means(values, np.ones_like(values), 1e-9 * weights)
    np.testing.assert_allclose(one.lower, other.lower, rtol=1e-9)

  @parameterized.parameters(0.0, 0.05, 0.3)
  def test_95_percent_intervals_cover_a_skewed_population(self, own_error):
    # Ratios of sums over 100 units drawn from Beta(2, 5) with weights that
    # rise with the value; five standard errors of 300 trials: 0.063.
    rng = np.random.default_rng(5)
    pool = rng.beta(2, 5, 100_000)
    pool_weights = np.exp(pool + 0.3 * rng.normal(size=len(pool)))
    truth = [pool.mean(), np.average(pool, weights=pool_weights)]
    covered = np.zeros(2)
    for trial in range(300):
      drawn = rng.integers(len(pool), size=100)
      values = pool[drawn] + own_error * rng.normal(size=100)
      for i, weights in enumerate((np.ones(100), pool_weights[drawn])):
        estimate = resampling.weighted_means(
          jax.random.key(trial), values[:, None],
          np.full((100, 1), 1.96 * own_error), weights, num_resamples=300,
        )
        covered[i] += estimate.lower[0] <= truth[i] <= estimate.upper[0]
    np.testing.assert_array_less(0.95 - 0.063, covered / 300)

  def test_one_unit_has_a_value_and_no_interval(self):
    estimate = means(np.array([[0.3, 0.4]]), np.zeros((1, 2)))
    np.testing.assert_array_equal(estimate.value, [0.3, 0.4])
    self.assertTrue(np.isnan([estimate.lower, estimate.upper]).all())

  @parameterized.parameters(0, 3)
  def test_no_unit_of_positive_weight_gives_nan(self, num_units):
    values = np.ones((num_units, 2))
    estimate = means(values, values, np.zeros(num_units))
    self.assertTrue(np.isnan(estimate.value).all())
    self.assertEqual(estimate.lower.shape, (2,))

  def test_key_decides_the_interval(self):
    values = np.random.default_rng(6).normal(size=(9, 1))
    lower = [
      resampling.weighted_means(
        jax.random.key(seed), values, 0 * values, np.ones(9)
      ).lower for seed in (1, 1, 2)
    ]  # fmt: skip
    self.assertEqual(lower[0], lower[1])
    self.assertNotEqual(lower[0], lower[2])

  @parameterized.named_parameters(
    ('shape', np.ones((3, 2)), np.ones((3, 1)), np.ones(3), 'shapes'),
    ('weights', np.ones((3, 1)), np.ones((3, 1)), np.ones(2), 'shapes'),
    ('nan', np.full((3, 1), np.nan), np.ones((3, 1)), np.ones(3), 'values'),
    ('sign', np.ones((3, 1)), -np.ones((3, 1)), np.ones(3), 'half_widths'),
    ('weight', np.ones((3, 1)), np.ones((3, 1)), -np.ones(3), 'weights'),
  )
  def test_bad_input_is_named(self, values, half_widths, weights, message):
    with self.assertRaisesRegex(ValueError, message):
      means(values, half_widths, weights)

  def test_correlation_outside_of_its_range_is_named(self):
    with self.assertRaisesRegex(ValueError, 'error_correlation'):
      means(np.ones((2, 1)), np.ones((2, 1)), error_correlation=1.5)


class CountsTest(absltest.TestCase):

  def test_every_resample_draws_as_many_units_as_there_are(self):
    counts = resampling.draw_counts(designs.random_generator(KEY), 7, 5000)
    np.testing.assert_array_equal(counts.sum(axis=1), np.full(5000, 7))
    # Multinomial: mean 1, variance 6/7; five standard errors.
    np.testing.assert_allclose(
      counts.mean(axis=0), np.ones(7), atol=5 * np.sqrt(6 / 7 / 5000)
    )
    np.testing.assert_allclose(counts.var(axis=0), np.full(7, 6 / 7), rtol=0.12)


if __name__ == '__main__':
  absltest.main()
