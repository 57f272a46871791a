import jax
import numpy as np
import pytest
from sklearn import metrics

from jaxsens.uncertainty import ood


def test_hand_table_with_ties():
  inside, out = [3.0, 2.0, 2.0, 1.0], [2.0, 0.0]
  # Pairs: against 2: 1 + .5 + .5 + 0; against 0: 4.
  np.testing.assert_allclose(ood.auroc(inside, out), 6 / 8)
  # 95 % of four are four: the threshold is 1, one of two unknown passes.
  np.testing.assert_allclose(ood.fpr_at_tpr(inside, out), 1 / 2)
  np.testing.assert_allclose(ood.fpr_at_tpr(inside, out, 0.75), 1 / 2)
  np.testing.assert_allclose(ood.fpr_at_tpr(inside, out, 0.25), 0)
  # Falling: recall 1/4 at 1; 3/4 at 3 of 4; 1 at 4 of 5.
  np.testing.assert_allclose(
    ood.aupr(inside, out, positive='in'),
    1 / 4 * 1 + 1 / 2 * 3 / 4 + 1 / 4 * 4 / 5,
  )
  # Rising: recall 1/2 at 1 of 1 (0), then 1 at 2 of 5 (1 and the three 2).
  np.testing.assert_allclose(
    ood.aupr(inside, out, positive='out'), 1 / 2 * 1 + 1 / 2 * 2 / 5
  )


def test_areas_equal_pairs_and_scikit_learns_curves():
  rng = np.random.default_rng(0)
  inside = np.round(rng.normal(1, 1, 40), 1)
  out = np.round(rng.normal(0, 1, 25), 1)
  pairs = inside[:, None] - out[None]
  np.testing.assert_allclose(
    ood.auroc(inside, out), np.mean(pairs > 0) + np.mean(pairs == 0) / 2
  )
  truth = np.repeat([1, 0], [40, 25])
  values = np.append(inside, out)
  np.testing.assert_allclose(
    ood.auroc(inside, out), metrics.roc_auc_score(truth, values)
  )
  np.testing.assert_allclose(
    ood.aupr(inside, out, positive='in'),
    metrics.average_precision_score(truth, values),
  )
  np.testing.assert_allclose(
    ood.aupr(inside, out, positive='out'),
    metrics.average_precision_score(1 - truth, -values),
  )
  fpr, tpr, _ = metrics.roc_curve(
    truth, values, drop_intermediate=False
  )
  np.testing.assert_allclose(
    ood.fpr_at_tpr(inside, out), fpr[np.flatnonzero(tpr >= 0.95)[0]]
  )


def test_area_does_not_know_the_scale_of_the_certainty():
  rng = np.random.default_rng(0)
  inside, out = rng.normal(1, 1, 50), rng.normal(0, 1, 50)
  assert ood.measures(ood.curve(np.exp(inside), np.exp(out))) == ood.measures(
    ood.curve(inside, out)
  )
  np.testing.assert_allclose(
    ood.auroc(out, inside), 1 - ood.auroc(inside, out)
  )


def test_infinite_certainties_are_ordered():
  assert ood.auroc([1.0, np.inf], [-np.inf, 0.0]) == 1.0
  assert ood.fpr_at_tpr([1.0, np.inf], [-np.inf, 0.0]) == 0.0


def test_misclassification_area_by_hand():
  correct = [True, True, False, False]
  found = ood.misclassification_auroc([0.9, 0.5, 0.5, 0.1], correct)
  np.testing.assert_allclose(found, 3.5 / 4)
  assert np.isnan(ood.misclassification_auroc([0.9, 0.5], [True, True]))


def test_intervals_cover_the_true_area():
  """Known images N(1, 1), unknown ones N(0, 1): Phi(1 / sqrt(2)) = 0.7602."""
  covered = 0
  for seed in range(40):
    rng = np.random.default_rng(seed)
    found = ood.detection(
      jax.random.key(seed), rng.normal(1, 1, 60), rng.normal(0, 1, 60),
      num_samples=100,
    )
    covered += found.auroc.lower <= 0.7602 <= found.auroc.upper
    assert found.auroc.lower < found.auroc.value < found.auroc.upper
  # Five standard errors below 40 x 0.95; the percentile interval lacks a bit.
  assert covered >= 31


def test_detection_has_the_measures_and_no_intervals_where_none_are_asked():
  found = ood.detection(
    jax.random.key(0), [3.0, 2.0, 1.0], [2.5, 0.0], num_samples=0
  )
  assert (found.num_in, found.num_out) == (3, 2)
  np.testing.assert_allclose(found.auroc.value, 4 / 6)
  assert np.isnan(found.fpr95.lower)
  assert found.as_dict()['aupr_out']['value'] == found.aupr_out.value


@pytest.mark.parametrize('call, message', [
  (lambda: ood.auroc([np.nan], [1.0]), 'certainty_in.*1 NaN'),
  (lambda: ood.auroc([1.0], []), 'certainty_out'),
  (lambda: ood.aupr([1.0], [0.0], positive='both'), "'in' or 'out'"),
  (lambda: ood.fpr_at_tpr([1.0], [0.0], 0.0), 'rate'),
  (lambda: ood.misclassification_auroc([1.0], [True, False]), r'\(N,\)'),
])
def test_bad_input_is_named(call, message):
  with pytest.raises(ValueError, match=message):
    call()
