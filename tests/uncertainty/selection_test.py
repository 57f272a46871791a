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


@pytest.mark.parametrize('coverage, value, accepted, tied', [
  (0.2, 0.9, 1, 1),
  # Two equal ones are accepted together, also where one would do.
  (0.4, 0.7, 3, 2), (0.6, 0.7, 3, 2),
  (0.61, 0.5, 4, 1), (1.0, 0.1, 5, 1),
])
def test_threshold_accepts_at_least_the_share_and_ties_together(
  coverage, value, accepted, tied
):
  certainty = np.array([0.7, 0.1, 0.9, 0.5, 0.7])
  found = selection.choose_threshold(certainty, coverage)
  assert found == selection.Threshold(coverage, value, accepted / 5, tied)
  assert found.accepts(certainty).sum() == accepted
  # Any larger threshold accepts too few.
  above = np.sum(certainty > value) / 5
  assert above < coverage


def test_threshold_keeps_its_share_of_new_images_on_average():
  rng = np.random.default_rng(0)
  shares = [
    selection.choose_threshold(rng.random(99), 0.9).accepts(
      rng.random(50)
    ).mean()
    for _ in range(2000)
  ]
  # ceil(0.9 * 99) = 90 accepted: the threshold is the 10th of 99, whose mean
  # is 10 / 100.
  np.testing.assert_allclose(
    np.mean(shares), 0.9, atol=4 * np.std(shares) / 2000**0.5
  )


def test_nan_is_never_accepted_and_chooses_no_threshold():
  found = selection.choose_threshold([0.0, 0.0], 0.5)
  assert found.accepts([np.nan, 0.0]).tolist() == [False, True]
  for certainty, share, message in (
    ([0.1, np.nan], 0.5, '1 of 2 are NaN'), ([], 0.5, 'are NaN'),
    ([0.1], 0.0, r'\(0, 1\], got 0.0'), ([0.1], 1.01, 'got 1.01'),
  ):
    with pytest.raises(ValueError, match=message):
      selection.choose_threshold(certainty, share)


def test_refusal_by_a_hand_table():
  accepted = [True, True, True, False, False]
  correct = [True, True, False, False, True]
  found = selection.refusal_measures(accepted, correct)
  assert found == pytest.approx({
    'coverage': 3 / 5, 'accuracy of the accepted': 2 / 3, 'risk': 1 / 3,
    'wrong answers refused': 1 / 2,
  })
  none = selection.refusal_measures([False, False], [True, True])
  assert none['coverage'] == 0 and np.isnan(
    [none['risk'], none['wrong answers refused']]
  ).all()
  with pytest.raises(ValueError, match=r'\(2,\) and \(1,\)'):
    selection.refusal_measures([True, False], [True])
