"""Ratio estimators against the closed form of one mean and slow loops."""

from absl.testing import absltest
from absl.testing import parameterized
import jax
import numpy as np
from scipy import stats

from jaxsens.gpc import ratio_estimators

RNG = np.random.default_rng(0)
H, W = RNG.normal(1, 1, (400, 3)), RNG.uniform(1, 2, (400, 3))


class RatioEstimatorsTest(parameterized.TestCase):

  def test_a_mean_has_the_interval_of_the_mean(self):
    ones = np.ones_like(H)
    found = ratio_estimators.asymptotic(0.9)([(1.0, H, ones)])
    expected = stats.norm.interval(0.9, H.mean(axis=0), stats.sem(H, axis=0))
    np.testing.assert_allclose(found, [H.mean(axis=0), *expected])

  def test_spread_equals_that_of_the_jackknife(self):
    ratios = [(1.0, H, W), (-2.0, W**2, W)]
    value, _, upper = ratio_estimators.asymptotic(0.6826894921370859)(ratios)
    without = [
      ratio_estimators.value([
        (sign, np.delete(h, n, axis=0), np.delete(w, n, axis=0))
        for sign, h, w in ratios
      ])
      for n in range(400)
    ]  # fmt: skip
    # The jackknife of Efron and Tibshirani 1993; both differ by O(1 / M).
    jackknife = np.sqrt(399 * np.var(without, axis=0))
    np.testing.assert_allclose(upper - value, jackknife, rtol=0.01)

  def test_percentiles_of_the_bootstrap(self):
    value, lower, upper = ratio_estimators.bootstrap(
      jax.random.key(0), 0.6826894921370859, 4000, 400
    )([(1.0, H, W)])
    again, low, high = ratio_estimators.asymptotic(0.6826894921370859)(
      [(1.0, H, W)]
    )
    np.testing.assert_array_equal(value, again)
    # A 16 % quantile of 4000 draws is known to 2.4 % of a standard deviation.
    np.testing.assert_allclose(
      (upper - lower) / (high - low), 1, atol=5 * 0.024
    )

  def test_resamples_that_fill_several_blocks(self):
    # A block has 2**23 numbers: 16 of the 36 resamples.
    rows = 2**19
    h = np.linspace(0, 1, rows)[:, None]
    value, lower, upper = ratio_estimators.bootstrap(
      jax.random.key(0), 0.95, 36, rows
    )([(1.0, h, np.ones_like(h))])
    half = 1.96 * np.sqrt(1 / 12 / rows)
    np.testing.assert_allclose(value, 0.5)
    self.assertBetween(float((upper - lower)[0] / half), 1.0, 3.0)

  def test_a_mean_that_is_not_positive_gives_nan(self):
    w = W.copy()
    w[:, 1] = 0
    for limits in (
      ratio_estimators.asymptotic(0.95),
      ratio_estimators.bootstrap(jax.random.key(0), 0.95, 20, 400),
    ):
      found = np.stack(limits([(1.0, H, w)]))
      np.testing.assert_array_equal(
        np.isnan(found), [[False, True, False]] * 3
      )


if __name__ == '__main__':
  absltest.main()
