"""Rules for surrogates against closed forms and exact polynomials."""

from absl.testing import absltest
from absl.testing import parameterized
import chaospy
import jax
import numpy as np

from jaxsens import factors
from jaxsens import marginals
from jaxsens.gpc import expansions
from jaxsens.gpc import grid_anova
from jaxsens.gpc import multi_indices
from jaxsens.gpc import sobol_indices
from jaxsens.gpc import surrogate_rules
from tests.oracles import anova
from tests.oracles import test_functions

_KEY = jax.random.key(0)


def cube(dim):
  return test_functions.space_of(
    **{f'x{d}': chaospy.Uniform(-1, 1) for d in range(dim)}
  )


def with_lens(space, num_atoms=3):
  """The same space and a discrete factor of uneven probabilities."""
  atoms = np.arange(num_atoms) ** 2.0
  lens = marginals.Discrete(atoms, np.arange(1.0, num_atoms + 1))
  return factors.FactorSpace((*space.factors, factors.Factor('lens', lens)))


def mixed_space():
  return test_functions.space_of(
    tilt=chaospy.Uniform(5, 9), shift=chaospy.Normal(3, 2),
    blur=chaospy.LogUniform(0, 3), dose=chaospy.LogNormal(0.5, 0.4),
  )  # fmt: skip


class RuleTest(parameterized.TestCase):

  @parameterized.parameters(
    (1, 0.02), (2, 0.02), (3, 0.02), (3, 1.0), (4, 0.02), (4, 5.0), (5, 0.02),
    (8, 0.02),
  )
  def test_sizes_keep_below_the_limit_and_weights_sum_to_one(
    self, dim, length
  ):
    rule = surrogate_rules.make_rule(_KEY, cube(dim), [length] * dim)
    self.assertEqual(rule.points.shape, (len(rule.weights), dim))
    np.testing.assert_allclose(rule.weights.sum(), 1, rtol=1e-12)
    self.assertLessEqual(np.abs(rule.points).max(), 1)
    if dim <= 4:
      self.assertLessEqual(len(rule.points), surrogate_rules._MAX_POINTS)
      self.assertEqual(
        len(rule.points), np.prod([len(axis) for axis in rule.axes])
      )
      for axis in rule.axes:
        self.assertGreaterEqual(len(axis), surrogate_rules._FEWEST)
        self.assertLessEqual(len(axis), surrogate_rules._MOST)
    else:
      self.assertIsNone(rule.axes)
      self.assertLen(rule.points, rule.num_base * (dim + 2))

  def test_points_go_where_the_response_is_short(self):
    rule = surrogate_rules.make_rule(_KEY, cube(3), [0.02, 10.0, 0.3])
    first, second, third = map(len, rule.axes)
    self.assertGreater(first, third)
    self.assertGreater(third, second)
    # Long responses keep their points where short ones have to give some away.
    tight = surrogate_rules.make_rule(_KEY, cube(4), [0.02, 0.02, 0.02, 9.0])
    self.assertLen(tight.axes[3], surrogate_rules._FEWEST + 1)

  def test_discrete_factor_has_its_atoms_and_no_more(self):
    space = with_lens(cube(2))
    rule = surrogate_rules.make_rule(_KEY, space, [1.0, 1.0, 0.01])
    np.testing.assert_allclose(rule.axes[2], np.arange(1, 4) / 6, rtol=1e-12)
    np.testing.assert_allclose(
      np.unique(rule.points[:, 2].round(12)),
      space.factors[2].germ.values, atol=1e-12,
    )

  def test_five_factors_with_few_atoms_still_make_a_grid(self):
    space = with_lens(cube(4), 2)
    rule = surrogate_rules.make_rule(_KEY, space, [1.0] * 5)
    self.assertLen(rule.axes, 5)

  def test_fine_rule_has_more_rows(self):
    space = cube(5)
    rule = surrogate_rules.make_rule(_KEY, space, [1.0] * 5)
    fine = surrogate_rules.make_fine_rule(_KEY, space)
    self.assertGreater(fine.num_base, rule.num_base)
    np.testing.assert_allclose(fine.weights.sum(), 1, rtol=1e-12)

  @parameterized.parameters((1, 64), (2, 64), (3, 25), (4, 11))
  def test_smooth_outputs_leave_points_for_a_sharp_transform(self, dim, size):
    # A grid of nine nodes is wrong by 2e-3 here, whatever stands on it.
    rule = surrogate_rules.make_rule(_KEY, cube(dim), [5.0] * dim)
    self.assertGreaterEqual(min(map(len, rule.axes)), size)
    if dim == 3:
      found = surrogate_rules.variances(rule, anova.sharp_sigmoid(rule.points))
      exact = anova.dense_variances(anova.sharp_sigmoid, 60)
      np.testing.assert_allclose(
        found.partial[:, 0], [exact[u] for u in found.subsets], atol=2e-5
      )

  def test_not_one_length_per_factor_is_an_error(self):
    with self.assertRaises(ValueError):
      surrogate_rules.make_rule(_KEY, cube(2), [1.0])


class GridVariancesTest(parameterized.TestCase):

  def test_ishigami_has_its_closed_form(self):
    function = test_functions.ishigami()
    rule = surrogate_rules.make_rule(_KEY, function.space, [0.3] * 3)
    found = surrogate_rules.variances(rule, function(rule.points))
    expected = anova.ishigami_variances()
    np.testing.assert_allclose(
      found.partial[:, 0], [expected[u] for u in found.subsets], atol=1e-6
    )
    np.testing.assert_allclose(found.variance, function.variance, rtol=1e-6)
    np.testing.assert_allclose(found.mean, function.mean, rtol=1e-6)
    self.assertLess(
      function.largest_error(
        found.first_order / found.variance, found.total / found.variance
      ), 1e-6,
    )

  def test_variances_are_those_of_the_grid(self):
    space = with_lens(mixed_space())
    rule = surrogate_rules.make_rule(_KEY, space, [1.0] * 5)
    values = np.random.default_rng(0).normal(size=(len(rule.points), 2)) + 3
    found = surrogate_rules.variances(rule, values)
    subsets, partial = grid_anova.partial_variances(
      values.reshape(*map(len, rule.axes), 2), rule.axes
    )
    self.assertEqual(found.subsets, subsets)
    np.testing.assert_array_equal(found.partial, partial)
    mean = rule.weights @ values
    np.testing.assert_allclose(found.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(
      found.variance, rule.weights @ (values - mean) ** 2, rtol=1e-10
    )
    for d in range(5):
      np.testing.assert_array_equal(
        found.first_order[d], partial[subsets.index((d,))]
      )
      np.testing.assert_allclose(
        found.total[d],
        sum(v for u, v in zip(subsets, partial, strict=True) if d in u),
      )

  def test_polynomial_in_all_kinds_of_factors_has_its_exact_variances(self):
    space = with_lens(mixed_space())
    basis = expansions.Basis(space, multi_indices.total_degree(5, 2))
    rng = np.random.default_rng(1)
    expansion = expansions.Expansion(basis, rng.normal(size=(21, 2)))
    rule = surrogate_rules.make_rule(_KEY, space, [2.0] * 5)
    found = surrogate_rules.variances(rule, expansion(rule.points))
    subsets, exact = sobol_indices.partial_variances(expansion)
    for subset, value in zip(found.subsets, found.partial, strict=True):
      expected = exact[subsets.index(subset)] if subset in subsets else 0
      np.testing.assert_allclose(value, expected, rtol=1e-9, atol=1e-11)


class RowVariancesTest(parameterized.TestCase):

  def test_sobol_g_is_within_the_error_of_its_rows(self):
    # The error is that of the keys; the bound five standard errors of one.
    function = test_functions.sobol_g()
    indices = []
    for seed in range(6):
      rule = surrogate_rules.make_rule(
        jax.random.key(seed), function.space, [1.0] * 8
      )
      found = surrogate_rules.variances(rule, function(rule.points))
      indices.append(np.concatenate(
        [found.first_order, found.total]
      )[:, 0] / found.variance)
    exact = np.concatenate([function.first_order, function.total])
    error = np.std(indices, axis=0, ddof=1)
    self.assertLess(error.max(), 0.05)
    np.testing.assert_array_less(np.abs(indices[0] - exact), 5 * error + 1e-6)

  def test_fine_rows_are_closer_to_sobol_g(self):
    function = test_functions.sobol_g()
    errors = []
    for make in (
      lambda key: surrogate_rules.make_rule(key, function.space, [1.0] * 8),
      lambda key: surrogate_rules.make_fine_rule(key, function.space),
    ):
      rule = make(_KEY)
      found = surrogate_rules.variances(rule, function(rule.points))
      errors.append(function.largest_error(
        found.first_order / found.variance, found.total / found.variance
      ))
    self.assertLess(errors[1], errors[0])
    self.assertLess(errors[1], 0.02)

  def test_pairs_of_a_polynomial_are_exact(self):
    # Of total degree four with pairs alone: the fit holds all of it.
    space = with_lens(cube(5), 4)
    terms = multi_indices.total_degree(6, 4, max_interaction=2)
    terms = terms[terms[:, 5] <= 3]
    rng = np.random.default_rng(2)
    expansion = expansions.Expansion(
      expansions.Basis(space, terms), rng.normal(size=(len(terms), 2))
    )
    rule = surrogate_rules.make_rule(_KEY, space, [1.0] * 6)
    self.assertIsNone(rule.axes)
    found = surrogate_rules.variances(rule, expansion(rule.points))
    subsets, exact = sobol_indices.partial_variances(expansion)
    pairs = [s for s, u in enumerate(found.subsets) if len(u) == 2]
    self.assertLen(pairs, 15)
    for s in pairs:
      np.testing.assert_allclose(
        found.partial[s], exact[subsets.index(found.subsets[s])], rtol=1e-8
      )

  def test_columns_do_not_touch_each_other_and_offsets_do_not_count(self):
    function = test_functions.sobol_g()
    rule = surrogate_rules.make_rule(_KEY, function.space, [1.0] * 8)
    one = function(rule.points)
    both = surrogate_rules.variances(rule, np.hstack([one, one**2 + 1e3]))
    alone = surrogate_rules.variances(rule, one + 1e3)
    for name in ('partial', 'first_order', 'total', 'variance'):
      np.testing.assert_allclose(
        getattr(both, name)[..., 0], getattr(alone, name)[..., 0],
        rtol=1e-6, atol=1e-9,
      )


class SlopesTest(parameterized.TestCase):

  @parameterized.named_parameters(
    ('grid', mixed_space(), 3), ('discrete', with_lens(mixed_space()), 2),
  )
  def test_slopes_on_a_grid_are_those_of_an_exact_polynomial(
    self, space, degree
  ):
    basis = expansions.Basis(
      space, multi_indices.total_degree(space.dim, degree)
    )
    rng = np.random.default_rng(3)
    expansion = expansions.Expansion(
      basis, rng.normal(size=(basis.num_terms, 2))
    )
    rule = surrogate_rules.make_rule(_KEY, space, [2.0] * space.dim)
    found = surrogate_rules.main_effect_slopes(rule, expansion(rule.points))
    alone = [
      row for row in range(basis.num_terms)
      if not basis.multi_indices[row, 4:].any()
    ]
    # What holds no discrete factor, as an expansion of the others.
    rest = expansions.Expansion(
      expansions.Basis(mixed_space(), basis.multi_indices[alone][:, :4]),
      expansion.coefficients[alone],
    )
    expected = expansions.mean_derivatives(rest)
    np.testing.assert_allclose(found[:4], expected, rtol=1e-8, atol=1e-9)
    self.assertTrue(np.isnan(found[4:]).all())

  def test_slope_of_values_that_are_linear_is_their_factor(self):
    space = mixed_space()
    rule = surrogate_rules.make_rule(_KEY, space, [0.1] * 4)
    slopes = np.array([2.0, -3.0, 0.5, 4.0])
    values = space.to_values(rule.points) @ slopes
    found = surrogate_rules.main_effect_slopes(rule, values[:, None])
    np.testing.assert_allclose(found[:, 0], slopes, rtol=1e-6)

  def test_slopes_on_rows_of_an_additive_polynomial_are_exact(self):
    space = cube(6)
    rule = surrogate_rules.make_rule(_KEY, space, [1.0] * 6)
    self.assertIsNone(rule.axes)
    x = rule.points
    values = 50 + 3 * x[:, 0] - x[:, 1] ** 3 + x[:, 2] ** 2
    found = surrogate_rules.main_effect_slopes(rule, values[:, None])
    # E[3], E[-3 x²], E[2 x] for x uniform on [-1, 1].
    np.testing.assert_allclose(
      found[:, 0], [3, -1, 0, 0, 0, 0], atol=1e-9
    )

  def test_slopes_on_rows_do_not_depend_on_the_mean(self):
    function = test_functions.sobol_g()
    rule = surrogate_rules.make_rule(_KEY, function.space, [1.0] * 8)
    values = function(rule.points)
    np.testing.assert_allclose(
      surrogate_rules.main_effect_slopes(rule, values + 1e4),
      surrogate_rules.main_effect_slopes(rule, values), atol=1e-7,
    )


if __name__ == '__main__':
  absltest.main()
