import dataclasses
import json

import jax
import numpy as np
import pytest
from scipy import special
from sklearn import metrics

from jaxsens.uncertainty import comparison


def _answers(seed, shift=1.0, count=80, probabilities=True):
  """Certainties that know the wrong and the unknown by a shift."""
  rng = np.random.default_rng(seed)
  labels = np.random.default_rng(99).integers(0, 3, count)
  logits = rng.normal(size=(count, 3)) + 1.5 * np.eye(3)[labels]
  correct = logits.argmax(1) == labels
  return comparison.Answers(
    rng.normal(size=count) + shift * correct, correct,
    {'noise': rng.normal(size=50) - shift, 'weld': rng.normal(size=30)},
    *((labels, logits) if probabilities else ()),
  )


def test_measures_equal_scikit_learns():
  answers = _answers(0)
  found = comparison.measures(answers)
  p = special.softmax(answers.log_probabilities, axis=1)
  truth = np.repeat([1, 0], [80, 50])
  both = np.append(answers.certainty, answers.out['noise'])
  expected = {
    'accuracy': metrics.accuracy_score(answers.labels, p.argmax(1)),
    'negative log-likelihood': metrics.log_loss(answers.labels, p),
    'misclassification AUROC': metrics.roc_auc_score(
      answers.correct, answers.certainty
    ),
    'AUROC, noise': metrics.roc_auc_score(truth, both),
    'AUPR in, noise': metrics.average_precision_score(truth, both),
    'AUPR out, noise': metrics.average_precision_score(1 - truth, -both),
  }
  for name, value in expected.items():
    np.testing.assert_allclose(found[name], value, err_msg=name)
  assert {name.split(',')[0] for name in found} == set(
    comparison.LARGER_IS_BETTER
  )


def test_rows_hold_means_over_runs_and_intervals_around_them():
  methods = {'a': [_answers(0), _answers(1)], 'b': [_answers(2, 3.0)]}
  rows = comparison.compare(
    jax.random.key(0), methods, baseline='a', num_samples=60
  )
  assert [row.method for row in rows] == ['a', 'b']
  first = rows[0].measures['AUROC, noise']
  single = [comparison.measures(run)['AUROC, noise'] for run in methods['a']]
  np.testing.assert_allclose(first.values, single)
  np.testing.assert_allclose(first.mean, np.mean(single))
  np.testing.assert_allclose(first.std, np.std(single, ddof=1))
  assert first.lower < first.mean < first.upper
  assert np.isnan(rows[1].measures['AUROC, noise'].std)


def test_baseline_differs_from_itself_by_nothing():
  rows = comparison.compare(
    jax.random.key(0), {'a': [_answers(0)]}, baseline='a', num_samples=20
  )
  for entry in rows[0].measures.values():
    assert entry.difference == 0
    assert entry.difference_lower == entry.difference_upper == 0


def test_paired_difference_is_narrower_than_two_intervals():
  """A method that is the baseline plus a little noise."""
  base = _answers(0)
  rng = np.random.default_rng(5)
  blur = lambda x: x + 0.3 * rng.normal(size=len(x))
  other = dataclasses.replace(
    base, certainty=blur(base.certainty),
    out={name: blur(x) for name, x in base.out.items()},
  )
  rows = comparison.compare(
    jax.random.key(0), {'base': [base], 'other': [other]}, baseline='base',
    num_samples=100,
  )
  entry = rows[1].measures['AUROC, noise']
  assert entry.difference_upper - entry.difference_lower < 0.6 * (
    entry.upper - entry.lower
  )


def test_methods_without_probabilities_lack_these_measures_alone():
  rows = comparison.compare(
    jax.random.key(0),
    {'p': [_answers(0)], 'none': [_answers(1, probabilities=False)]},
    baseline='p', num_samples=10,
  )
  lacking = set(rows[0].measures) - set(rows[1].measures)
  assert lacking == {
    'negative log-likelihood', 'ECE', 'adaptive ECE', 'Brier score'
  }
  # Nor has a baseline without them a difference to offer.
  rows = comparison.compare(
    jax.random.key(0),
    {'p': [_answers(0)], 'none': [_answers(1, probabilities=False)]},
    baseline='none', num_samples=10,
  )
  assert np.isnan(rows[0].measures['ECE'].difference)


def test_perfect_answers_have_no_misclassification_area_and_json_says_null():
  perfect = dataclasses.replace(_answers(0), correct=np.ones(80, bool))
  rows = comparison.compare(
    jax.random.key(0), {'a': [perfect]}, baseline='a', num_samples=10
  )
  assert np.isnan(rows[0].measures['misclassification AUROC'].mean)
  document = json.loads(json.dumps(rows[0].as_dict(), allow_nan=False))
  entry = document['measures']['misclassification AUROC']
  assert entry['mean'] is None and entry['values'] == [None]


@pytest.mark.parametrize('methods, message', [
  ({'a': [_answers(0)]}, 'baseline must be one of'),
  ({'base': []}, 'has no runs'),
  ({'base': [_answers(0)], 'b': [_answers(0, count=70)]}, "'b' judges"),
  ({'base': [dataclasses.replace(_answers(0), labels=None)]}, 'both be given'),
  ({'base': [dataclasses.replace(
    _answers(0), certainty=np.full(80, np.nan))]}, '80 NaN'),
])
def test_bad_input_is_named(methods, message):
  with pytest.raises(ValueError, match=message):
    comparison.compare(jax.random.key(0), methods, baseline='base')
