import numpy as np
import pytest
from scipy import special

from jaxsens.uncertainty import calibration


def _answers(seed=0, count=4000, sharpness=1.0):
  """Logits whose softmax is the truth, times a sharpness."""
  rng = np.random.default_rng(seed)
  logits = rng.normal(0, 2, (count, 4))
  p = special.softmax(logits, axis=1)
  labels = (p.cumsum(1) < rng.random((count, 1))).sum(1)
  return sharpness * logits, labels


def test_hand_table_of_two_bins():
  p = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.55, 0.45]])
  labels = np.array([0, 1, 1, 1])
  found = calibration.reliability(p, labels, num_bins=4)
  # (0.5, 0.75]: 0.6 right, 0.55 wrong; (0.75, 1]: 0.9 right, 0.8 wrong.
  np.testing.assert_allclose(found.lower, [0.5, 0.75])
  np.testing.assert_array_equal(found.counts, [2, 2])
  np.testing.assert_allclose(found.confidence, [0.575, 0.85])
  np.testing.assert_allclose(found.accuracy, [0.5, 0.5])
  np.testing.assert_allclose(found.expected_error, (0.075 + 0.35) / 2)
  np.testing.assert_allclose(found.largest_error, 0.35)


def test_bins_of_equal_mass_hold_equally_many():
  logits, labels = _answers(count=103)
  found = calibration.reliability(
    special.softmax(logits, axis=1), labels, num_bins=10, equal_mass=True
  )
  assert set(found.counts) == {10, 11} and found.counts.sum() == 103
  assert (np.diff(found.lower) > 0).all()


@pytest.mark.parametrize('equal_mass', [False, True])
def test_error_is_small_when_calibrated_and_grows_with_sharpness(equal_mass):
  errors = []
  for sharpness in (1.0, 1.5, 3.0):
    logits, labels = _answers(sharpness=sharpness)
    errors.append(calibration.expected_calibration_error(
      special.softmax(logits, axis=1), labels, equal_mass=equal_mass
    ))
  # Noise of 15 bins of 4,000 answers: below sqrt(15 / 4000) / 2.
  assert errors[0] < 0.03 < errors[1] < errors[2]


def test_brier_score_and_likelihood_equal_scikit_learns():
  metrics = pytest.importorskip('sklearn.metrics')
  logits, labels = _answers(count=50)
  p = special.softmax(logits, axis=1)
  np.testing.assert_allclose(
    calibration.negative_log_likelihood(logits, labels),
    metrics.log_loss(labels, p, labels=range(4)), rtol=1e-12,
  )
  two = special.softmax(logits[:, :2], axis=1)
  binary = labels % 2
  np.testing.assert_allclose(
    calibration.brier_score(two, binary),
    2 * metrics.brier_score_loss(binary, two[:, 1]), rtol=1e-12,
  )


@pytest.mark.parametrize('sharpness', [0.5, 1.0, 4.0])
def test_temperature_undoes_the_sharpness(sharpness):
  logits, labels = _answers(count=20_000, sharpness=sharpness)
  # Standard error of log T about 0.01 with so many answers.
  np.testing.assert_allclose(
    calibration.fit_temperature(logits, labels), sharpness, rtol=0.05
  )


@pytest.mark.parametrize('p, labels, message', [
  ([[0.5, 0.4]], [0], 'sum to one'),
  ([[np.nan, 1.0]], [0], 'sum to one'),
  ([[1.2, -0.2]], [0], 'non-negative'),
  ([[0.5, 0.5]], [2], r'in 0\.\.1'),
  ([[0.5, 0.5]], [0.0], 'integers'),
  ([[0.5, 0.5]], [0, 1], r'\(N, K\)'),
  (np.zeros((0, 2)), np.zeros(0, int), 'at least one'),
])  # fmt: skip
def test_what_is_no_probability_is_refused(p, labels, message):
  with pytest.raises(ValueError, match=message):
    calibration.brier_score(p, labels)
