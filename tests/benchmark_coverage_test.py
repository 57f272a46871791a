"""Coverage benchmark: its truths, and few seeds of all four problems."""

import numpy as np
import pytest

from experiments.benchmarks import coverage
from tests.oracles import anova

NUM_SEEDS = 40
PROBLEMS = {problem.name: problem for problem in coverage.problems()}


def test_truth_of_the_borehole_is_the_published_one():
  # First and total indices of the literature to 1e-4.
  truth = PROBLEMS['borehole'].truth()
  published = {
    0: (0.6637, 0.6941), 3: (0.0949, 0.1061), 5: (0.0949, 0.1061),
    6: (0.0907, 0.1028), 7: (0.0219, 0.0251),
  }  # fmt: skip
  for d, (first, total) in published.items():
    assert abs(truth[d,] - first) < 1e-4
    assert abs(truth[d, -1] - total) < 1e-4
  assert max(truth[d,] for d in (1, 2, 4)) < 2e-5


def test_truth_of_the_sigmoid_is_that_of_a_coarser_rule():
  problem = PROBLEMS['steep_sigmoid']
  truth = problem.truth()
  expected = anova.indices(anova.dense_variances(problem.function, 96))
  for u, value in expected.items():
    if len(u) <= 2:
      np.testing.assert_allclose(truth[u], value, atol=1e-4)


@pytest.mark.parametrize('name', PROBLEMS)
def test_intervals_cover_the_truth_and_are_not_far_too_wide(name):
  rows = coverage.coverage(
    NUM_SEEDS, chosen=[PROBLEMS[name]], num_resamples=400
  )
  covered = np.array([row.covered for row in rows if row.truth > 1e-3])
  # Five standard deviations of a binomial share, for a single index.
  assert np.min(covered) >= 0.95 - 5 * np.sqrt(0.95 * 0.05 / NUM_SEEDS)
  assert np.mean(covered) >= 0.9
  for row in rows:
    if row.truth > 1e-3:
      assert row.half_width < 4 * row.error
