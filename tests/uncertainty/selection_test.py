import jax
import numpy as np
import pytest

from jaxsens.uncertainty import resampling
from jaxsens.uncertainty import selection


def test_hand_table():
  found = selection.risk_coverage(
    [0.9, 0.8, 0.8, 0.3], [True, False, True, False]
  )
  np.testing.assert_allclose(found.threshold, [0.9, 0.8, 0.3])
  np.testing.assert_allclose(found.coverage, [0.25, 0.75, 1])
  np.testing.assert_allclose(found.risk, [0, 1 / 3, 1 / 2])
  # One of two equal ones is wrong: half an error after two answers.
  np.testing.assert_allclose(
    found.area, np.mean([0, 0.5 / 2, 1 / 3, 1 / 2])
  )
  # The best order has both errors last.
  np.testing.assert_allclose(
    found.excess, found.area - np.mean([0, 0, 1 / 3, 1 / 2])
  )
  assert found.at_coverage(0.5) == (0.8, found.risk[1])
  assert found.at_coverage(1) == (0.3, 0.5)
  assert found.at_risk(0.34) == (0.8, 0.75)
  assert found.at_risk(0.0) == (0.9, 0.25)


def test_area_of_ties_is_the_mean_over_random_orders():
  rng = np.random.default_rng(0)
  certainty = rng.integers(0, 4, 30).astype(float)
  correct = rng.random(30) < 0.6
  areas = [
    selection.risk_coverage(
      certainty + 1e-6 * rng.permutation(30), correct
    ).area
    for _ in range(4000)
  ]
  np.testing.assert_allclose(
    selection.risk_coverage(certainty, correct).area, np.mean(areas),
    atol=5 * np.std(areas) / 4000**0.5,
  )


def test_perfect_order_has_no_excess_and_no_order_has_the_error_rate():
  correct = np.arange(100) % 4 != 0
  np.testing.assert_allclose(
    selection.risk_coverage(correct.astype(float), correct).excess, 0,
    atol=1e-12,
  )
  np.testing.assert_allclose(
    selection.risk_coverage(np.zeros(100), correct).area, 0.25, atol=1e-12
  )


def test_all_wrong_is_never_answered_at_low_risk():
  found = selection.risk_coverage([1.0, 2.0], [False, False])
  assert found.at_risk(0.5) == (float('inf'), 0.0)


@pytest.mark.parametrize('certainty, correct, message', [
  ([1.0, np.nan], [True, True], '1 of 2 are NaN'),
  ([], [], 'are NaN'),
  ([1.0], [True, False], 'shape'),
])
def test_bad_certainties_are_refused(certainty, correct, message):
  with pytest.raises(ValueError, match=message):
    selection.risk_coverage(certainty, correct)


def test_bootstrap_of_a_mean_has_the_interval_of_the_normal():
  x = np.random.default_rng(1).normal(3, 2, 400)
  lower, upper = resampling.bootstrap(
    jax.random.key(0), np.mean, [x], num_samples=4000
  )
  half = 1.96 * x.std() / 20
  # Quantiles of 4,000 resamples are good to a few per cent of the half width.
  np.testing.assert_allclose(
    [lower, upper], [x.mean() - half, x.mean() + half], atol=0.1 * half
  )


def test_bootstrap_of_groups_is_wider_when_images_repeat():
  x = np.repeat(np.random.default_rng(1).normal(size=50), 8)
  groups = np.repeat(np.arange(50), 8)
  of = lambda **options: np.ptp(resampling.bootstrap(
    jax.random.key(0), np.mean, [x], num_samples=2000, **options
  ))
  # Eight copies tell no more than one: sqrt(8) times as wide.
  np.testing.assert_allclose(of(groups=groups) / of(), 8**0.5, rtol=0.15)


def test_bootstrap_refuses_what_it_cannot_do():
  key = jax.random.key(0)
  with pytest.raises(ValueError, match='one length'):
    resampling.bootstrap(key, np.mean, [np.zeros(3), np.zeros(4)])
  with pytest.raises(ValueError, match='NaN on 1000 of 1000'):
    resampling.bootstrap(key, lambda x: np.nan, [np.zeros(3)])
