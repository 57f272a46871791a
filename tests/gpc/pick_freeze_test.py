"""Pick-freeze estimates against closed forms, SALib and slow references."""

from absl.testing import absltest
from absl.testing import parameterized
import chaospy
import jax
import numpy as np
import pytest
from scipy import stats

from jaxsens import factors
from jaxsens.gpc import designs
from jaxsens.gpc import expansions
from jaxsens.gpc import pick_freeze
from tests.oracles import anova
from tests.oracles import test_functions

KEY = jax.random.key(0)
MIXED = test_functions.space_of(
  a=chaospy.Uniform(10, 30), b=chaospy.Normal(1, 2), c=chaospy.Gamma(2.5)
)
ESTIMATORS = tuple(
  (first, total) for first in pick_freeze.FIRST_ORDER
  for total in pick_freeze.TOTAL
)  # fmt: skip


def independent_sample(seed, space, num_base):
  """The rows of a sample whose base points are independent."""
  a, b = space.from_uniform(
    np.random.default_rng(seed).random((2 * num_base, space.dim))
  ).reshape(2, num_base, space.dim)
  rows = [a]
  for d in range(space.dim):
    rows.append(a.copy())
    rows[-1][:, d] = b[:, d]
  nodes = np.stack([*rows, b], axis=1).reshape(-1, space.dim)
  return pick_freeze.Sample(space.names, False, nodes)


def covered(found, function):
  """Which intervals (2, D) of the first output hold the index."""
  pairs = (
    (found.first_order_lower, found.first_order_upper, function.first_order),
    (found.total_lower, found.total_upper, function.total),
  )
  return [(low[:, 0] <= s) & (s <= high[:, 0]) for low, high, s in pairs]


class SampleTest(parameterized.TestCase):

  def test_rows_of_a_base_point_swap_one_coordinate(self):
    sample = pick_freeze.sample(KEY, MIXED, 16, second_order=True)
    self.assertEqual(sample.num_base, 16)
    self.assertEqual(sample.num_nodes, 16 * (2 * 3 + 2))
    rows = sample.nodes.reshape(16, 8, 3)
    a, b = rows[:, 0], rows[:, -1]
    self.assertTrue(np.all(a != b))
    for d in range(3):
      for e in range(3):
        ab, ba = (b, a) if d == e else (a, b)
        np.testing.assert_array_equal(rows[:, 1 + d, e], ab[:, e])
        np.testing.assert_array_equal(rows[:, 4 + d, e], ba[:, e])

  def test_base_points_are_one_stratified_sequence_of_twice_the_columns(self):
    sample = pick_freeze.sample(KEY, MIXED, 64)
    self.assertEqual(sample.num_nodes, 64 * (3 + 2))
    rows = sample.nodes.reshape(64, 5, 3)
    base = np.concatenate([rows[:, 0], rows[:, -1]], axis=1)
    uniform = np.stack(
      [
        MIXED.factors[d % 3].germ.fwd(column)
        for d, column in enumerate(base.T)
      ],
      axis=1,
    )  # fmt: skip
    np.testing.assert_array_equal(
      np.sort(np.floor(64 * uniform), axis=0),
      np.tile(np.arange(64.0)[:, None], (1, 6)),
    )

  @parameterized.parameters(False, True)
  def test_growing_keeps_the_runs_already_paid_for(self, second_order):
    short, long, other = (
      pick_freeze.sample(key, MIXED, n, second_order=second_order)
      for key, n in ((KEY, 10), (KEY, 100), (jax.random.key(1), 10))
    )
    np.testing.assert_array_equal(
      long.nodes[: short.num_nodes], short.nodes
    )
    self.assertGreater(np.max(np.abs(short.nodes - other.nodes)), 0.1)

  def test_a_sample_is_a_design_of_equal_weights_and_a_pytree(self):
    sample = pick_freeze.sample(KEY, MIXED, 8)
    np.testing.assert_allclose(sample.weights, 1 / 40)
    self.assertEqual(sample.kind, 'pick_freeze')
    outputs = expansions.check_outputs(sample, np.ones((40, 2)))
    self.assertEqual(outputs.shape, (40, 2))
    leaves, structure = jax.tree.flatten(sample)
    again = jax.tree.unflatten(structure, leaves)
    self.assertEqual((again.names, again.num_base), (MIXED.names, 8))

  def test_bad_arguments_are_refused(self):
    with self.assertRaisesRegex(ValueError, 'num_base: expected at least 2'):
      pick_freeze.sample(KEY, MIXED, 1)
    with self.assertRaisesRegex(TypeError, 'key'):
      pick_freeze.sample(0, MIXED, 8)


class EstimateTest(parameterized.TestCase):

  @parameterized.parameters(False, True)
  def test_values_equal_those_of_salib_on_the_same_runs(self, second_order):
    analysis = pytest.importorskip('SALib.analyze.sobol')
    problem = {'num_vars': 3, 'names': ['a', 'b', 'c'], 'bounds': [[-1, 1]] * 3}
    function = test_functions.ishigami()
    sample = pick_freeze.sample(
      KEY, function.space, 100, second_order=second_order
    )
    outputs = function(sample.nodes)
    expected = analysis.analyze(
      problem, outputs[:, 0], calc_second_order=second_order, seed=1
    )
    found = pick_freeze.estimate(sample, outputs)
    np.testing.assert_allclose(
      found.first_order[:, 0], expected['S1'], atol=1e-12
    )
    np.testing.assert_allclose(found.total[:, 0], expected['ST'], atol=1e-12)
    if second_order:
      upper = np.triu_indices(3, 1)
      np.testing.assert_allclose(
        found.second_order[upper][:, 0], expected['S2'][upper], atol=1e-12
      )
    else:
      self.assertIsNone(found.second_order)

  def test_points_equal_those_of_salib_for_the_same_generator(self):
    sampling = pytest.importorskip('SALib.sample.sobol')
    problem = {'num_vars': 2, 'names': ['a', 'b'], 'bounds': [[-1, 1]] * 2}
    space = test_functions.space_of(
      a=chaospy.Uniform(0, 1), b=chaospy.Uniform(0, 1)
    )
    expected = sampling.sample(problem, 16, seed=designs.random_generator(KEY))
    found = pick_freeze.sample(KEY, space, 16, second_order=True)
    np.testing.assert_allclose(found.nodes, expected, atol=1e-12)

  def test_janon_estimator_is_the_formula_of_the_paper(self):
    function = test_functions.ishigami()
    sample = pick_freeze.sample(KEY, function.space, 50)
    y = function(sample.nodes)[:, 0].reshape(50, 5)
    found = pick_freeze.estimate(
      sample, y.reshape(-1, 1), first_order='janon', total='janon'
    )

    def formula(one, other):
      # With the pooled mean and variance of both columns.
      square = np.mean((one + other) / 2) ** 2
      above = np.mean(one * other) - square
      return above / (np.mean((one**2 + other**2) / 2) - square)

    for d in range(3):
      np.testing.assert_allclose(
        found.first_order[d, 0], formula(y[:, 4], y[:, 1 + d])
      )
      np.testing.assert_allclose(
        found.total[d, 0], 1 - formula(y[:, 0], y[:, 1 + d])
      )

  @parameterized.product(
    function=('ishigami', 'sobol_g', 'borehole'), estimators=ESTIMATORS
  )
  def test_closed_forms_within_five_standard_errors(self, function, estimators):
    function = getattr(test_functions, function)()
    first, total = estimators
    sample = independent_sample(0, function.space, 4000)
    found = pick_freeze.estimate(
      sample, function(sample.nodes), first_order=first, total=total,
      level=0.6826894921370859,
    )  # fmt: skip
    for value, upper, truth in (
      (found.first_order, found.first_order_upper, function.first_order),
      (found.total, found.total_upper, function.total),
    ):
      gaps = np.abs(value[:, 0] - truth)
      np.testing.assert_array_less(gaps, 5 * (upper - value)[:, 0])
      np.testing.assert_array_less(gaps, 0.1)
    np.testing.assert_allclose(found.mean, function.mean, rtol=0.05)
    np.testing.assert_allclose(found.variance, function.variance, rtol=0.1)

  @parameterized.parameters('ishigami', 'sobol_g', 'borehole')
  def test_a_sobol_sequence_is_sharper_than_independent_points(self, function):
    # The largest standard error of 2048 independent base points is 0.025 and
    # more; the largest of the errors of a sequence is half of that in median.
    function = getattr(test_functions, function)()
    errors = []
    for key in jax.random.split(KEY, 9):
      sample = pick_freeze.sample(key, function.space, 2048)
      found = pick_freeze.estimate(sample, function(sample.nodes))
      errors.append(function.largest_error(found.first_order, found.total))
      np.testing.assert_allclose(found.mean, function.mean, rtol=0.01)
      np.testing.assert_allclose(found.variance, function.variance, rtol=0.05)
    self.assertLess(np.median(errors), 0.0125)

  def test_second_order_of_ishigami(self):
    function = test_functions.ishigami()
    sample = pick_freeze.sample(KEY, function.space, 4096, second_order=True)
    found = pick_freeze.estimate(sample, function(sample.nodes))
    expected = anova.indices(anova.ishigami_variances())
    for d, e in ((0, 1), (0, 2), (1, 2)):
      self.assertLess(
        abs(found.second_order[d, e, 0] - expected[d, e]), 0.03
      )
      self.assertLess(found.second_order_lower[d, e, 0], expected[d, e])
      self.assertGreater(found.second_order_upper[d, e, 0], expected[d, e])
    np.testing.assert_array_equal(
      found.second_order, np.swapaxes(found.second_order, 0, 1)
    )
    self.assertTrue(np.all(np.isnan(found.second_order[range(3), range(3)])))

  @parameterized.parameters(*ESTIMATORS)
  def test_asymptotic_errors_are_those_of_independent_rows(self, first, total):
    # 200 independent repetitions: their spread is known to 5 %.
    function = test_functions.ishigami()
    results = [
      pick_freeze.estimate(
        sample, function(sample.nodes), first_order=first, total=total
      )
      for sample in (
        independent_sample(seed, function.space, 400) for seed in range(200)
      )
    ]
    for name in ('first_order', 'total'):
      values = np.stack([getattr(r, name) for r in results])
      upper = np.stack([getattr(r, f'{name}_upper') for r in results])
      ratio = (upper - values).mean(axis=0) / 1.96 / values.std(axis=0)
      np.testing.assert_array_less(np.abs(ratio - 1), 0.25)

  def test_bootstrap_intervals_agree_with_asymptotic_ones(self):
    function = test_functions.ishigami()
    sample = pick_freeze.sample(KEY, function.space, 512, second_order=True)
    outputs = function(sample.nodes)
    plain = pick_freeze.estimate(sample, outputs)
    resampled = pick_freeze.estimate(
      sample, outputs, num_resamples=2000, key=jax.random.key(1)
    )
    self.assertEqual(plain.intervals, 'asymptotic')
    self.assertEqual(resampled.intervals, 'bootstrap')
    for name in ('first_order', 'total', 'second_order'):
      value = getattr(plain, name)
      np.testing.assert_array_equal(getattr(resampled, name), value)
      width = getattr(plain, f'{name}_upper') - getattr(plain, f'{name}_lower')
      for end in ('lower', 'upper'):
        gap = getattr(plain, f'{name}_{end}') - getattr(
          resampled, f'{name}_{end}'
        )
        # A 2.5 % quantile of 2000 draws is known to 6 % of a standard
        # deviation, 1.5 % of the width; the rest is skewness.
        self.assertTrue(np.all(np.nan_to_num(np.abs(gap / width)) < 0.1))

  @parameterized.parameters(0, 300)
  def test_intervals_cover(self, num_resamples):
    # Nominal 95 % over 100 samples; 5 standard errors below are 84 %.
    function = test_functions.sobol_g((0.0, 1.0, 4.5))
    hits = []
    for seed in range(100):
      sample = independent_sample(seed, function.space, 256)
      found = pick_freeze.estimate(
        sample, function(sample.nodes), num_resamples=num_resamples,
        key=jax.random.key(seed),
      )  # fmt: skip
      hits.append(covered(found, function))
    np.testing.assert_array_less(0.84, np.mean(hits, axis=0))

  def test_outputs_are_treated_alike_in_any_number_unit_and_offset(self):
    function = test_functions.ishigami()
    sample = pick_freeze.sample(KEY, function.space, 64, second_order=True)
    y = function(sample.nodes)
    both = pick_freeze.estimate(sample, np.hstack([y, 1e3 - 50 * y]))
    one = pick_freeze.estimate(sample, y)
    for name in ('first_order', 'total', 'second_order', 'total_lower'):
      for k in range(2):
        np.testing.assert_allclose(
          getattr(both, name)[..., k], getattr(one, name)[..., 0], rtol=1e-9
        )

  @parameterized.parameters(0, 50)
  def test_outputs_without_variance_are_nan_with_a_reason(self, num_resamples):
    sample = pick_freeze.sample(KEY, MIXED, 32, second_order=True)
    y = np.sum(sample.nodes, axis=1)
    noisy = 1 + 1e-9 * y
    outputs = np.stack([y, np.full_like(y, 2.0), noisy], axis=1)
    found = pick_freeze.estimate(
      sample, outputs, num_resamples=num_resamples, key=KEY
    )
    self.assertIsNone(found.reasons[0])
    self.assertIn('does not vary', found.reasons[1])
    self.assertIn('rounding noise', found.reasons[2])
    for name in ('first_order', 'total'):
      for part in ('', '_lower', '_upper'):
        np.testing.assert_array_equal(
          np.isnan(getattr(found, name + part)),
          np.tile([False, True, True], (3, 1)),
        )
    np.testing.assert_array_equal(
      np.isnan(found.second_order[0, 1]), [False, True, True]
    )
    loud = pick_freeze.estimate(sample, outputs, noise=1e-12)
    self.assertIsNone(loud.reasons[2])
    self.assertIsNotNone(
      pick_freeze.estimate(sample, outputs, scale=1e9).reasons[0]
    )

  def test_one_factor_explains_everything(self):
    space = factors.FactorSpace(MIXED.factors[:1])
    sample = pick_freeze.sample(KEY, space, 256, second_order=True)
    found = pick_freeze.estimate(sample, sample.nodes)
    np.testing.assert_allclose(found.first_order, 1, atol=0.02)
    np.testing.assert_allclose(found.total, 1, atol=0.02)
    self.assertEqual(found.second_order.shape, (1, 1, 1))

  @parameterized.parameters(
    ({'level': 1.0}, 'level'),
    ({'num_resamples': 1, 'key': KEY}, '0 or at least 2'),
    ({'num_resamples': -3, 'key': KEY}, '0 or at least 2'),
    ({'num_resamples': 10}, 'need a key'),
    ({'first_order': 'jansen'}, "expected one of .* got 'jansen'"),
    ({'total': 'saltelli'}, "expected one of .* got 'saltelli'"),
  )
  def test_bad_options_are_refused(self, options, message):
    sample = pick_freeze.sample(KEY, MIXED, 4)
    with self.assertRaisesRegex(ValueError, message):
      pick_freeze.estimate(sample, np.ones((20, 1)), **options)

  def test_bad_outputs_are_refused(self):
    sample = pick_freeze.sample(KEY, MIXED, 4)
    with self.assertRaisesRegex(ValueError, r'\(20, K\) .* got \(16, 1\)'):
      pick_freeze.estimate(sample, np.ones((16, 1)))
    outputs = np.ones((20, 2))
    outputs[3, 1] = np.nan
    with self.assertRaisesRegex(ValueError, 'nan at node 3, output 1'):
      pick_freeze.estimate(sample, outputs)

  def test_estimates_are_a_pytree(self):
    sample = pick_freeze.sample(KEY, MIXED, 8)
    found = pick_freeze.estimate(sample, sample.nodes)
    leaves, structure = jax.tree.flatten(found)
    again = jax.tree.unflatten(structure, leaves)
    self.assertEqual(again.reasons, (None,) * 3)
    np.testing.assert_array_equal(again.total, found.total)


class CombineTest(parameterized.TestCase):

  def estimates(self, keys, num_base=64, num_outputs=1, **options):
    function = test_functions.sobol_g()
    samples = [
      pick_freeze.sample(key, function.space, num_base, **options)
      for key in keys
    ]
    return [
      pick_freeze.estimate(s, np.tile(function(s.nodes), num_outputs))
      for s in samples
    ]

  def test_mean_and_interval_of_student(self):
    parts = self.estimates(jax.random.split(KEY, 5), second_order=True)
    found = pick_freeze.combine(parts, level=0.9)
    values = np.stack([part.total[:, 0] for part in parts])
    expected = stats.t.interval(
      0.9, 4, values.mean(axis=0), stats.sem(values, axis=0)
    )
    np.testing.assert_allclose(found.total[:, 0], values.mean(axis=0))
    np.testing.assert_allclose(found.total_lower[:, 0], expected[0])
    np.testing.assert_allclose(found.total_upper[:, 0], expected[1])
    np.testing.assert_allclose(
      found.second_order[0, 1, 0],
      np.mean([part.second_order[0, 1, 0] for part in parts]),
    )
    self.assertEqual((found.num_base, found.intervals), (320, 'replicates'))
    self.assertEqual(found.level, 0.9)

  def test_intervals_cover_where_single_sequences_do_not(self):
    # One sequence of 1024 base points missed the total index of the seventh
    # factor with one key in ten, by up to eight standard errors.
    function = test_functions.sobol_g()
    hits = [
      covered(
        pick_freeze.combine(self.estimates(jax.random.split(key, 5))), function
      )
      for key in jax.random.split(jax.random.key(3), 40)
    ]
    # Nominal 95 % over 40; 5 standard errors below are 78 %.
    np.testing.assert_array_less(0.78, np.mean(hits, axis=0))

  def test_reasons_are_kept(self):
    parts = self.estimates(jax.random.split(KEY, 3), num_outputs=2)
    sample = pick_freeze.sample(KEY, test_functions.sobol_g().space, 64)
    outputs = np.stack([sample.nodes[:, 0], np.ones(sample.num_nodes)], axis=1)
    found = pick_freeze.combine(
      [*parts, pick_freeze.estimate(sample, outputs)]
    )
    self.assertIsNone(found.reasons[0])
    self.assertIn('does not vary', found.reasons[1])
    for values in (found.first_order, found.total_lower, found.total_upper):
      np.testing.assert_array_equal(np.isnan(values), [[False, True]] * 8)
    self.assertIsNone(found.second_order)

  def test_estimates_that_do_not_match_are_refused(self):
    keys = jax.random.split(KEY, 3)
    with self.assertRaisesRegex(ValueError, 'at least 3, got 2'):
      pick_freeze.combine(self.estimates(keys[:2]))
    with self.assertRaisesRegex(ValueError, 'level'):
      pick_freeze.combine(self.estimates(keys), level=0)
    for options in (
      {'num_base': 32}, {'num_outputs': 2}, {'second_order': True}
    ):
      with self.assertRaisesRegex(ValueError, 'expected the same factors'):
        pick_freeze.combine(
          self.estimates(keys) + self.estimates(keys[:1], **options)
        )


if __name__ == '__main__':
  absltest.main()
