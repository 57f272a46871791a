"""The gPC benchmark: its methods against closed forms, and its rows."""

import dataclasses

from absl.testing import absltest
from absl.testing import parameterized
import chaospy
import jax
import numpy as np
import pytest

from experiments.benchmarks import coverage
from experiments.benchmarks import gpc_functions
from experiments.benchmarks import image_methods
from experiments.benchmarks import image_scores
from experiments.benchmarks import index_peers
from experiments.benchmarks import studies
from jaxsens import factors
from jaxsens.gpc import designs
from jaxsens.gpc import intervals as intervals_lib
from tests.oracles import slopes

_SPACE = factors.FactorSpace((
  factors.Factor('brightness', chaospy.Uniform(0, 2)),
  factors.Factor('rotation', chaospy.Uniform(-90, 90)),
  factors.Factor('keystone', chaospy.Uniform(-20, 20)),
))
_ISHIGAMI, _SOBOL_G, _BOREHOLE, _ = coverage.problems()


def _ignore(line):
  del line


def _problem():
  """Returns y = x0 + 2 x1 x2, x uniform on [-1, 1]: V = 1/3 + 4/9."""
  return coverage.Problem(
    'small', _ISHIGAMI.space,
    lambda germ: (germ[:, :1] + 2 * germ[:, 1:2] * germ[:, 2:]),
    lambda: {
      (0,): 3 / 7, (1,): 0.0, (2,): 0.0,
      (0, -1): 3 / 7, (1, -1): 4 / 7, (2, -1): 4 / 7,
    },
    np.zeros((1, 3)), 0,
  )


def _study():
  return slopes.study(_SPACE, gain=5, batch_size=16)


@dataclasses.dataclass
class _Polynomial:
  """Stands for `Runs`: log-odds are given polynomials of the germ."""

  study: studies.Study

  def logits(self, image, nodes):
    del image
    x, y, z = nodes.T
    logit = 2 * x - x * y + 0.5 * z**2
    return np.stack([logit, 0 * logit], axis=1)

  def probability(self, image, nodes):
    return studies.probability(self.logits(image, nodes), 0)

  def truth(self):
    sizes = (40, 40, 40)
    design = designs.tensor_gauss(_SPACE, sizes)
    weights = [np.polynomial.legendre.leggauss(n)[1] / 2 for n in sizes]
    values = self.probability(0, design.nodes).reshape(sizes)
    found = studies.grid_indices(values, weights, _SPACE.names)
    return found.first_order, found.total


def _truth(first, total, half_width=0.0, **errors):
  return studies.Truth(
    ('a', 'b'), np.array(first), np.array(total), 0.5, 0.1, 9, half_width,
    **{name: np.array(x) for name, x in errors.items()},
  )


def _intervals(first, total, half_width):
  """Of two factors and a given half-width about (D,) centres."""
  first, total = np.array(first)[:, None], np.array(total)[:, None]
  return intervals_lib.Intervals(
    names=('a', 'b'), subsets=((0,), (1,)), level=0.95, num_resamples=0,
    first_order_lower=first - half_width, first_order_upper=first + half_width,
    total_lower=total - half_width, total_upper=total + half_width,
    subset_lower=first - half_width, subset_upper=first + half_width,
  )


class PeersTest(parameterized.TestCase):

  @parameterized.parameters(
    ('chaospy_regression', 64, 1e-9), ('salib_saltelli', 20_000, 0.03),
    ('pygpc_static', 64, 1e-9),
  )
  def test_peer_finds_the_indices_of_a_polynomial(self, name, size, atol):
    if 'chaospy' not in name:
      pytest.importorskip('SALib' if 'salib' in name else 'pygpc')
    problem = _problem()
    first, total, runs = getattr(index_peers, name)(problem, size, 0)
    expected = gpc_functions.true_indices(problem)
    np.testing.assert_allclose(first, expected[0], atol=atol)
    np.testing.assert_allclose(total, expected[1], atol=atol)
    self.assertGreaterEqual(runs, size)

  def test_saltelli_takes_the_next_power_of_two(self):
    pytest.importorskip('SALib')
    _, _, runs = index_peers.salib_saltelli(_SOBOL_G, 64, 0)
    self.assertEqual(runs, 8 * 10)

  def test_degree_leaves_two_nodes_per_term(self):
    # binomial(3 + 4, 3) = 35 and binomial(3 + 5, 3) = 56 terms.
    self.assertEqual(index_peers.total_degree_for(3, 111), 4)
    self.assertEqual(index_peers.total_degree_for(3, 112), 5)
    self.assertEqual(index_peers.total_degree_for(8, 4), 1)

  def test_missing_peer_is_said_and_left_out(self):
    lines = []
    self.assertFalse(index_peers.installed('no_such_peer', lines.append))
    self.assertIn('no_such_peer is left out', lines[0])


class FunctionsTest(absltest.TestCase):

  def test_true_indices_are_the_published_ones(self):
    first, total = gpc_functions.true_indices(_ISHIGAMI)
    # Closed form, to the digits of Saltelli et al. 2000, section 2.9.
    np.testing.assert_allclose(first, [0.3139, 0.4424, 0], atol=1e-4)
    np.testing.assert_allclose(total, [0.5576, 0.4424, 0.2437], atol=1e-4)

  def test_cut_rounds_share_one_sequence_of_nodes(self):
    problem = _problem()
    small, large = gpc_functions.rounds(
      jax.random.key(0), lambda _, nodes: problem.function(nodes),
      problem.space, [lambda outputs: outputs], (16, 32),
    )
    np.testing.assert_array_equal(
      large.answers[0].nodes[:16], small.answers[0].nodes
    )
    self.assertEqual(large.answers[0].num_evaluations, 32)
    indices = large.answers[0].inference.indices
    error = gpc_functions.largest_error(
      indices.first_order, indices.total, gpc_functions.true_indices(problem)
    )
    self.assertLess(error, 1e-6)

  def test_first_size_is_the_one_from_which_all_are_below(self):
    rows = [
      {'runs': n, 'worst error': e, 'seeds': 1, 'first key': 0}
      for n, e in ((32, 0.005), (64, 0.02), (128, 0.009), (256, 0.001))
    ]
    *passed, last = gpc_functions._first_below('engine', rows)
    self.assertEqual(passed, rows)
    self.assertEqual(last['runs'], 128)
    *_, last = gpc_functions._first_below('engine', rows[:2])
    self.assertNotIn('runs', last)
    self.assertEqual(last['worst error'], 0.02)


  def test_seeds_start_at_the_first_key(self):
    def rows(first_key, num_seeds):
      found = gpc_functions.errors(
        _ignore, 'ishigami', (20,), (), first_key=first_key,
        num_seeds=num_seeds, num_seeds_large=1, max_saltelli=8,
      )
      return {row['row']: row for row in found}

    both, one, other = rows(100, 2), rows(100, 1), rows(101, 1)
    for name in ('engine, 20', 'sparse regression, 20'):
      self.assertEqual(both[name]['first key'], 100)
      errors = [x[name]['worst error'] for x in (one, other)]
      self.assertNotEqual(*errors)
      np.testing.assert_allclose(both[name]['worst error'], max(errors))
      np.testing.assert_allclose(both[name]['median error'], np.mean(errors))
    self.assertGreater(both['engine, 20']['error / half-width'], 0)


class ScoresTest(absltest.TestCase):

  def test_measures_of_two_images_and_two_keys(self):
    truths = {
      3: _truth([0.2, 0.3], [0.7, 0.8]), 5: _truth([0.1, 0.1], [0.9, 0.9])
    }
    # Largest errors: 0.1 and 0.4 of the first key, 0.2 and 0.02 of the other.
    found = [
      [([0.3, 0.3], [0.65, 0.8]), ([0.1, 0.5], [0.9, 0.9])],
      [([0.2, 0.3], [0.7, 0.6]), ([0.12, 0.1], [0.9, 0.9])],
    ]
    intervals = [
      [_intervals(*found[0][0], 0.08), _intervals(*found[0][1], 0.1)],
      [_intervals(*found[1][0], 0.05), _intervals(*found[1][1], 0.01)],
    ]
    scores = image_scores.score(truths, [3, 5], found, intervals)
    np.testing.assert_allclose(
      scores.wrong[0], [[0.1, 0, -0.05, 0], [0, 0.4, 0, 0]], atol=1e-12
    )
    whole = image_scores.summary(scores, [3, 5])
    expected = {
      'images': 2, 'keys': 2, 'median error': (0.25 + 0.11) / 2,
      'worst error': 0.4, 'position of the worst': 5,
      'median error of the worst key': 0.25,
      'root mean square error': np.sqrt(
        (0.1**2 + 0.05**2 + 0.4**2 + 0.2**2 + 0.02**2) / 16
      ),
      'covered': 12 / 16, 'mean half-width': 0.06,
      # The ratios are 1.25, 0.625, 4, 4, 2 and zeros; 95 % of 16.
      'error / half-width': np.quantile(
        [1.25, 0.625, 4, 4, 2] + [0] * 11, 0.95
      ),
      'worst image covered': 6 / 8,
    }
    self.assertEqual(whole.keys(), expected.keys())
    for name, value in expected.items():
      np.testing.assert_allclose(whole[name], value, err_msg=name)
    one = image_scores.summary(scores, [3])
    np.testing.assert_allclose(one['worst error'], 0.2)
    self.assertEqual(one['position of the worst'], 3)
    np.testing.assert_allclose(one['worst image covered'], 6 / 8)

  def test_noise_of_the_truth_leaves_the_root_mean_square_alone(self):
    noise = np.random.default_rng(0)
    errors = np.array([0.02, 0.05, 0.04, 0.1])
    true = np.array([0.3, 0.4, 0.6, 0.7])
    estimate = true + [0.03, -0.01, 0.02, 0.04]
    truths = {
      i: _truth(
        drawn[:2], drawn[2:], 0.2, first_order_error=errors[:2],
        total_error=errors[2:],
      )
      for i, drawn in enumerate(noise.normal(true, errors, (4000, 4)))
    }
    found = [[(estimate[:2], estimate[2:])] * len(truths)]
    row = image_scores.summary(
      image_scores.score(truths, list(truths), found), list(truths)
    )
    # The mean square of the noise is 0.0036, that of the estimate 0.00075; the
    # mean of 16,000 has a standard error below 6e-5.
    expected = np.mean((estimate - true) ** 2)
    np.testing.assert_allclose(
      row['root mean square error'] ** 2, expected, atol=3e-4
    )
    np.testing.assert_allclose(
      row["truth's own"], np.sqrt(np.mean(errors**2))
    )
    # One that repeats the truth to well within its error is not told from it.
    exact = [[(x.first_order, x.total) for x in truths.values()]]
    row = image_scores.summary(
      image_scores.score(truths, list(truths), exact), list(truths)
    )
    self.assertEqual(row['root mean square error'], 0)

  def test_truths_without_errors_stay_out_of_the_root_mean_square(self):
    truths = {
      0: _truth([0.2, 0.3], [0.7, 0.8], 0.1), 1: _truth([0.1, 0.1], [0.9, 0.9])
    }
    found = [[([0.9, 0.9], [0.9, 0.9]), ([0.1, 0.1], [0.9, 0.7])]]
    scores = image_scores.score(truths, [0, 1], found)
    row = image_scores.summary(scores, [0, 1])
    np.testing.assert_allclose(row['root mean square error'], 0.1)
    self.assertEqual(row['images of it'], 1)
    self.assertNotIn(
      'root mean square error', image_scores.summary(scores, [0])
    )

  def test_method_without_an_answer_has_no_error(self):
    truths = {0: _truth([0.2, 0.3], [0.7, 0.8])}
    nan = [np.nan, np.nan]
    found = image_scores.score(truths, [0], [[(nan, nan)]])
    row = image_scores.summary(found, [0])
    for name in ('median error', 'worst error', 'root mean square error'):
      self.assertTrue(np.isnan(row[name]), name)


class ImageMethodsTest(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    self.runs = _Polynomial(_study())
    self.expected = self.runs.truth()

  def error(self, found):
    return gpc_functions.largest_error(*found, self.expected)

  def test_pushed_logits_are_exact_where_the_grid_resolves_them(self):
    found = image_methods.gauss(self.runs, 0, (2, 2, 3), pushed=True)
    self.assertLess(self.error(found), 1e-9)
    direct = image_methods.gauss(self.runs, 0, (2, 2, 3), pushed=False)
    self.assertGreater(self.error(direct), 1e-3)

  def test_direct_gauss_converges(self):
    found = image_methods.gauss(self.runs, 0, (16, 12, 12), pushed=False)
    self.assertLess(self.error(found), 1e-6)

  def test_recipe_converges_for_a_smooth_probability(self):
    (found,) = image_methods.recipe(jax.random.key(0), self.runs, [0], 1500)
    self.assertLess(self.error(found), 2e-3)

  @parameterized.parameters(False, True)
  def test_gaussian_process_comes_near(self, log_odds):
    found = image_methods.gaussian_process(
      jax.random.key(0), self.runs, 0, 64, log_odds=log_odds
    )
    self.assertLess(self.error(found), 0.01)

  def test_pick_freeze_stays_within_the_runs(self):
    found, num_runs = image_methods.frozen(
      jax.random.key(0), self.runs, 0, 5004
    )
    self.assertEqual(num_runs, 5000)
    self.assertLess(self.error(found), 0.03)




if __name__ == '__main__':
  absltest.main()
