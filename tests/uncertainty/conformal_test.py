import jax
import numpy as np
import pytest
from scipy import special

from jaxsens.uncertainty import conformal

_METHODS = (
  conformal.Method('thr'), conformal.Method('aps'),
  conformal.Method('raps', penalty=0.05, free_ranks=1),
)
_P = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])


def _answers(seed, count, sharpness=2.0):
  """Overconfident probabilities and labels that they only half describe."""
  rng = np.random.default_rng(seed)
  logits = rng.normal(0, 1.5, (count, 4))
  p = special.softmax(logits, axis=1)
  labels = (p.cumsum(1) < rng.random((count, 1))).sum(1)
  return special.softmax(sharpness * logits, axis=1), labels


def test_scores_by_hand():
  np.testing.assert_allclose(
    conformal.Method('thr').scores(_P), [[0.5, 0.7, 0.8], [0.9, 0.9, 0.2]]
  )
  np.testing.assert_allclose(
    conformal.Method('aps').scores(_P), [[0.5, 0.8, 1.0], [0.9, 1.0, 0.8]]
  )
  # Ranks 1 2 3 and 2 3 1, the first one free.
  np.testing.assert_allclose(
    conformal.Method('raps', penalty=0.1, free_ranks=1).scores(_P),
    [[0.5, 0.9, 1.2], [1.0, 1.2, 0.8]],
  )


def test_random_scores_lie_uniformly_in_their_probability():
  p = np.tile(_P[:1], (20_000, 1))
  scores = conformal.Method('aps').scores(p, key=jax.random.key(0))
  lower = np.array([0.0, 0.5, 0.8])
  u = (scores - lower) / p
  assert 0 <= u.min() and u.max() <= 1
  # Five standard errors of a uniform mean.
  np.testing.assert_allclose(u.mean(0), 0.5, atol=5 / np.sqrt(12 * 20_000))


def test_threshold_is_the_order_statistic():
  p = np.stack([np.linspace(0.01, 0.99, 99), 1 - np.linspace(0.01, 0.99, 99)])
  threshold = conformal.calibrate(
    p.T, np.zeros(99, int), method=_METHODS[0], miscoverage=0.1
  )
  # Scores .01 ... .99; ceil(100 x 0.9) = the 90th.
  np.testing.assert_allclose(threshold, 0.90)
  few = conformal.calibrate(
    p.T[:8], np.zeros(8, int), method=_METHODS[0], miscoverage=0.1
  )
  assert few == np.inf
  assert conformal.predict(p.T, few, method=_METHODS[0]).all()


@pytest.mark.parametrize('method', _METHODS)
def test_exchangeable_sets_cover_as_promised(method):
  """Over keys the mean coverage is ceil((n+1)(1-alpha)) / (n+1)."""
  n, num_test, alpha = 39, 60, 0.1
  coverages = []
  for seed in range(200):
    p, labels = _answers(seed, n + num_test)
    key_first, key_second = jax.random.split(jax.random.key(seed))
    threshold = conformal.calibrate(
      p[:n], labels[:n], method=method, miscoverage=alpha, key=key_first
    )
    sets = conformal.predict(p[n:], threshold, method=method, key=key_second)
    coverages.append(conformal.assess(sets, labels[n:]).coverage)
  error = 5 * np.std(coverages) / np.sqrt(len(coverages))
  np.testing.assert_allclose(np.mean(coverages), 36 / 40, atol=error)
  assert error < 0.03


@pytest.mark.parametrize('method', _METHODS)
def test_sets_without_a_key_are_deterministic_and_cover(method):
  p, labels = _answers(0, 4000)
  threshold = conformal.calibrate(
    p[:2000], labels[:2000], method=method, miscoverage=0.1
  )
  sets = conformal.predict(p[2000:], threshold, method=method)
  np.testing.assert_array_equal(
    sets, conformal.predict(p[2000:], threshold, method=method)
  )
  coverage = conformal.assess(sets, labels[2000:]).coverage
  assert coverage > 0.9 - 5 * np.sqrt(0.09 / 1000)


def test_calibration_images_themselves_are_covered_by_rank():
  p, labels = _answers(1, 99)
  for method in _METHODS:
    threshold = conformal.calibrate(p, labels, method=method, miscoverage=0.2)
    sets = conformal.predict(p, threshold, method=method)
    assert sets[np.arange(99), labels].sum() == 80


def test_penalty_makes_the_largest_sets_smaller():
  p, labels = _answers(0, 2000, sharpness=0.3)
  sizes = []
  for method in (_METHODS[1], conformal.Method('raps', 0.5, 2)):
    threshold = conformal.calibrate(p, labels, method=method, miscoverage=0.1)
    sizes.append(conformal.predict(p, threshold, method=method).sum(1))
  assert np.std(sizes[1]) < np.std(sizes[0])


def test_nonempty_sets_hold_the_likeliest_class():
  sets = conformal.predict(_P, 0.1, method=_METHODS[0])
  assert not sets.any()
  filled = conformal.predict(_P, 0.1, method=_METHODS[0], nonempty=True)
  np.testing.assert_array_equal(filled, [[1, 0, 0], [0, 0, 1]])


def test_assessment_by_hand():
  sets = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 1, 1]], bool)
  found = conformal.assess(sets, np.array([0, 0, 1, 1]))
  assert found.coverage == 0.75 and found.mean_size == 1.25
  assert found.class_coverage[:2] == (1.0, 0.5)
  assert np.isnan(found.class_coverage[2]) and found.empty == 0.25
  # Clopper and Pearson's for 3 of 4, from a table of binomial limits.
  np.testing.assert_allclose(
    [found.coverage_lower, found.coverage_upper], [0.1941, 0.9937], atol=1e-4
  )


@pytest.mark.parametrize('call, message', [
  (lambda: conformal.Method('lac'), "'thr', 'aps' or 'raps'"),
  (lambda: conformal.Method('aps', penalty=0.1), 'no penalty'),
  (lambda: conformal.Method('raps', penalty=-1), 'not be negative'),
  (lambda: conformal.calibrate(
    _P, np.array([0, 2]), method=_METHODS[0], miscoverage=1.0), 'miscoverage'),
  (lambda: conformal.calibrate(
    _P, np.array([0, 3]), method=_METHODS[0], miscoverage=0.1), r'0\.\.2'),
  (lambda: conformal.predict(2 * _P, 0.5, method=_METHODS[0]), 'sum to one'),
  (lambda: conformal.assess(_P > 1, np.zeros(3, int)), r'\(N, K\)'),
])
def test_bad_input_is_named(call, message):
  with pytest.raises(ValueError, match=message):
    call()
