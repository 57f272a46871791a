import jax
import numpy as np
import pytest
from sklearn import metrics

from jaxsens import assessment
from jaxsens.uncertainty import selection

NAMES = ('crazing', 'patches', 'scratches')


def _answers(count=60, classes=3, seed=0):
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, classes, count)
  logits = rng.normal(size=(count, classes)) + 1.2 * np.eye(classes)[labels]
  return logits, labels


def test_measures_equal_scikit_learns():
  logits, labels = _answers()
  p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
  found = assessment.assess(
    jax.random.key(0), logits, labels, NAMES, num_samples=0
  )
  answers = p.argmax(1)
  expected = {
    'accuracy': metrics.accuracy_score(labels, answers),
    'balanced accuracy': metrics.balanced_accuracy_score(labels, answers),
    'F1 macro': metrics.f1_score(labels, answers, average='macro'),
    'F1 weighted': metrics.f1_score(labels, answers, average='weighted'),
    'AUC': metrics.roc_auc_score(labels, p, multi_class='ovr'),
    'negative log-likelihood': metrics.log_loss(labels, p),
  }
  for name, value in expected.items():
    np.testing.assert_allclose(found.measures[name].value, value, err_msg=name)
  assert found.measures['F1 macro'].value != found.measures['accuracy'].value
  np.testing.assert_array_equal(
    found.confusion, metrics.confusion_matrix(labels, answers)
  )
  precision, recall, f1, support = metrics.precision_recall_fscore_support(
    labels, answers
  )
  for k, one in enumerate(found.classes):
    assert (one.name, one.support) == (NAMES[k], support[k])
    np.testing.assert_allclose(
      [one.precision, one.recall, one.f1], [precision[k], recall[k], f1[k]]
    )
  assert np.isnan(found.measures['accuracy'].lower)


def test_interval_of_the_accuracy_is_that_of_a_binomial_share():
  logits, labels = _answers(400)
  found = assessment.assess(
    jax.random.key(0), logits, labels, NAMES, num_samples=600
  ).measures['accuracy']
  half = 1.96 * (found.value * (1 - found.value) / 400) ** 0.5
  np.testing.assert_allclose(
    [found.lower, found.upper], [found.value - half, found.value + half],
    atol=0.2 * half,
  )


def test_two_classes_have_the_f1_of_the_second():
  logits, labels = _answers(classes=2)
  found = assessment.assess(
    jax.random.key(0), logits, labels, ('good', 'bad'), num_samples=0
  )
  np.testing.assert_allclose(
    found.measures['F1 of bad'].value,
    metrics.f1_score(labels, logits.argmax(1)),
  )


def test_class_without_images_has_no_curve_and_no_say_in_the_means():
  logits, labels = _answers()
  labels = np.where(labels == 2, 0, labels)
  found = assessment.assess(
    jax.random.key(0), logits, labels, NAMES, num_samples=50
  )
  last = found.classes[2]
  assert last.support == 0 and np.isnan(last.auc) and np.isnan(last.recall)
  assert np.isfinite(found.measures['AUC'].value)


@pytest.mark.parametrize('change, message', [
  (lambda z, y: (z[:, :2], y), r'\(N, 3\)'),
  (lambda z, y: (z * np.nan, y), '60 images have NaN'),
  (lambda z, y: (z, y + 1), r'in 0\.\.2'),
])  # fmt: skip
def test_bad_answers_are_refused(change, message):
  with pytest.raises(ValueError, match=message):
    assessment.assess(jax.random.key(0), *change(*_answers()), NAMES)


def test_refusal_has_intervals_around_its_measures_and_keeps_recordings():
  rng = np.random.default_rng(0)
  threshold = selection.choose_threshold(rng.random(200), 0.8)
  certainty, correct = rng.random(300), rng.random(300) < 0.8
  of = lambda **options: assessment.assess_refusal(
    jax.random.key(0), threshold, certainty, correct, num_samples=400,
    **options,
  ).measures
  found = of()
  for name, value in selection.refusal_measures(
    certainty >= threshold.value, correct
  ).items():
    one = found[name]
    assert one.value == value and one.lower < value < one.upper, name
  half = 1.96 * (0.8 * 0.2 / 300) ** 0.5
  share = found['coverage']
  np.testing.assert_allclose((share.upper - share.lower) / 2, half, rtol=0.2)
  # Recordings of one image each tell as much; of all images, nothing.
  alone = of(groups=[str(i) for i in range(300)])['coverage']
  np.testing.assert_allclose(
    [alone.lower, alone.upper], [share.lower, share.upper], atol=0.02
  )
  together = of(groups=['a'] * 300)['coverage']
  assert together.lower == together.value == together.upper


def test_refusal_of_right_answers_only_has_no_share_of_the_wrong():
  found = assessment.assess_refusal(
    jax.random.key(0), selection.choose_threshold([0.5], 1.0), [0.4, 0.6],
    [True, True], num_samples=20,
  ).as_dict()
  assert found['measures']['wrong answers refused'] == {
    'value': None, 'lower': None, 'upper': None
  }
  assert found['measures']['coverage']['value'] == 0.5
  assert found['threshold']['value'] == 0.5


def test_images_of_one_class_only_are_assessed_without_area():
  logits, _ = _answers()
  found = assessment.assess(
    jax.random.key(0), logits, np.ones(60, int), NAMES, num_samples=20
  )
  assert np.isnan(found.measures['AUC'].value)
  assert found.measures['accuracy'].lower <= found.measures['accuracy'].value
