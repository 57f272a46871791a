import json

import numpy as np
import pytest
from sklearn import metrics

from jaxsens.uncertainty import comparison
from jaxsens.uncertainty import comparison_curves


def _answers(ties=False, count=200):
  rng = np.random.default_rng(0)
  labels = rng.integers(0, 3, count)
  logits = rng.normal(size=(count, 3)) + 1.5 * np.eye(3)[labels]
  certainty = logits.max(1).round(0 if ties else 12)
  return comparison.Answers(
    certainty, logits.argmax(1) == labels,
    {'far': rng.normal(size=70).round(0 if ties else 12)}, labels, logits,
  )


@pytest.mark.parametrize('ties', [False, True])
def test_accuracy_is_that_of_the_most_certain_share(ties):
  answers = _answers(ties)
  found = comparison_curves.of_answers(answers)['accuracy']
  rng = np.random.default_rng(1)
  of_orders = []
  for _ in range(400 if ties else 1):
    order = np.lexsort((rng.random(200), -answers.certainty))
    right = np.cumsum(answers.correct[order]) / np.arange(1, 201)
    counts = np.round(200 * np.array(comparison_curves.COVERAGES)).astype(int)
    of_orders.append(right[counts - 1])
  # Of 200 answers every share of the grid is a whole number.
  np.testing.assert_allclose(
    200 * np.array(comparison_curves.COVERAGES), counts, atol=1e-9
  )
  np.testing.assert_allclose(
    found, np.mean(of_orders, 0), atol=0.02 if ties else 1e-5
  )
  np.testing.assert_allclose(found[-1], answers.correct.mean(), atol=1e-5)


@pytest.mark.parametrize('ties', [False, True])
def test_roc_is_that_of_scikit_learn_and_has_its_area(ties):
  answers = _answers(ties)
  found = comparison_curves.of_answers(answers)['roc']['far']
  truth = np.repeat([1, 0], [200, 70])
  both = np.append(answers.certainty, answers.out['far'])
  x, y, _ = metrics.roc_curve(truth, both)
  grid = np.array(comparison_curves.FALSE_RATES)
  # On vertical parts the upper end.
  expected = np.interp(grid + 1e-12, x, y)
  np.testing.assert_allclose(found, expected, atol=1e-5)
  area = np.trapezoid(found, grid)
  np.testing.assert_allclose(area, metrics.roc_auc_score(truth, both),
                             atol=0.02)


def test_bins_hold_all_images_and_methods_without_probabilities_have_none():
  answers = _answers()
  found = comparison_curves.of_answers(answers)
  bins = found['reliability']
  assert sum(bins['counts']) == 200 and set(bins['counts']) == {20}
  gaps = np.abs(np.array(bins['accuracy']) - bins['confidence'])
  p = np.exp(answers.log_probabilities)
  p /= p.sum(1, keepdims=True)
  np.testing.assert_allclose(
    gaps.mean(), comparison_curves.calibration.expected_calibration_error(
      p, answers.labels, num_bins=10, equal_mass=True
    ), atol=1e-4,
  )
  bare = comparison.Answers(answers.certainty, answers.correct, answers.out)
  other = comparison_curves.of_answers(bare)
  assert other['reliability'] is None
  assert other['accuracy'] == found['accuracy']
  assert json.loads(json.dumps(found)) == found
