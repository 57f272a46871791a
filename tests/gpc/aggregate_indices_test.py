"""Aggregate indices against brute force, identities and closed forms."""

import itertools
import math

from absl.testing import absltest
from absl.testing import parameterized
import chaospy
import jax
import numpy as np

from jaxsens import factors
from jaxsens.gpc import aggregate_indices
from jaxsens.gpc import designs
from jaxsens.gpc import expansions
from jaxsens.gpc import multi_indices
from jaxsens.gpc import sobol_indices
from tests.oracles import anova

NAMES = ('a', 'b', 'c', 'd')
SPACE = factors.FactorSpace((
  factors.Factor('a', chaospy.Uniform(10, 30), 'deg'),
  factors.Factor('b', chaospy.Normal(1, 2)),
  factors.Factor('c', chaospy.Gamma(2.5)),
  factors.Factor('d', chaospy.LogUniform(0, 1)),
))  # fmt: skip


def random_expansion(num_outputs=3, seed=0, degree=4):
  basis = expansions.Basis(SPACE, multi_indices.total_degree(4, degree))
  coefficients = np.random.default_rng(seed).normal(
    size=(basis.num_terms, num_outputs)
  )
  return expansions.Expansion(basis, coefficients)


def ishigami_expansion():
  space = factors.FactorSpace(
    tuple(factors.Factor(n, chaospy.Uniform(-1, 1)) for n in NAMES[:3])
  )
  design = designs.tensor_gauss(space, (16,) * 3)
  basis = expansions.Basis(space, multi_indices.tensor_product((15,) * 3))
  return expansions.project(basis, design, anova.ishigami(design.nodes))


class ShapleyTest(parameterized.TestCase):

  def test_effects_equal_the_definition_over_all_coalitions(self):
    # Shapley 1953: mean gain of d over the orders in which factors join, of
    # the value c(u) = Var(E[y | factors in u]).
    expansion = random_expansion()
    indices = sobol_indices.sobol_indices(expansion)
    expected = np.zeros((4, 3))
    for d, name in enumerate(NAMES):
      others = [n for n in NAMES if n != name]
      for size in range(4):
        for coalition in itertools.combinations(others, size):
          gain = indices.closed((*coalition, name)) - indices.closed(coalition)
          expected[d] += gain / (4 * math.comb(3, size))
    np.testing.assert_allclose(
      aggregate_indices.shapley(expansion), expected, rtol=1e-12
    )

  def test_effects_sum_to_one_between_first_order_and_total(self):
    expansion = random_expansion(num_outputs=20)
    indices = sobol_indices.sobol_indices(expansion)
    effects = aggregate_indices.shapley(expansion)
    np.testing.assert_allclose(effects.sum(axis=0), 1, rtol=1e-13)
    self.assertTrue(np.all(effects >= indices.first_order))
    self.assertTrue(np.all(effects <= indices.total))

  def test_ishigami(self):
    v = anova.ishigami_variances()
    expected = np.array([v[0,] + v[0, 2] / 2, v[1,], v[0, 2] / 2])
    np.testing.assert_allclose(
      aggregate_indices.shapley(ishigami_expansion())[:, 0],
      expected / sum(v.values()),
      atol=1e-9,
    )

  def test_outputs_without_variance_are_nan(self):
    expansion = random_expansion()
    expansion.coefficients[1:, 1] = 0
    effects = aggregate_indices.shapley(expansion)
    np.testing.assert_array_equal(
      np.isnan(effects), np.tile([False, True, False], (4, 1))
    )


class GroupedTest(parameterized.TestCase):

  def test_a_group_is_one_factor_whose_members_are_integrated_together(self):
    expansion = random_expansion(degree=3)
    design = designs.tensor_gauss(SPACE, (4, 4, 4, 4))
    y = expansion(design.nodes).reshape(4, 4, 4, 4, 3)
    rules = [
      designs.tensor_gauss(factors.FactorSpace((f,)), (4,)).weights
      for f in SPACE.factors
    ]
    inside = np.einsum('abcdk,b,d->ack', y, rules[1], rules[3])
    mean = np.einsum('ack,a,c->k', inside, rules[0], rules[2])
    closed = np.einsum('ack,a,c->k', (inside - mean) ** 2, rules[0], rules[2])
    outside = np.einsum('abcdk,a,c->bdk', y, rules[0], rules[2])
    others = np.einsum('bdk,b,d->k', (outside - mean) ** 2, rules[1], rules[3])
    result = aggregate_indices.grouped(expansion, {'pair': ['c', 'a']})
    np.testing.assert_allclose(result.closed[0], closed / expansion.variance)
    np.testing.assert_allclose(
      result.total[0], 1 - others / expansion.variance
    )

  def test_groups_of_one_factor_have_the_indices_of_the_factor(self):
    expansion = random_expansion()
    indices = sobol_indices.sobol_indices(expansion)
    result = aggregate_indices.grouped(expansion, {n: [n] for n in NAMES})
    self.assertEqual(result.names, NAMES)
    np.testing.assert_allclose(result.first_order, indices.first_order)
    np.testing.assert_allclose(result.closed, indices.first_order)
    np.testing.assert_allclose(result.total, indices.total)
    np.testing.assert_allclose(
      result.shapley, aggregate_indices.shapley(expansion)
    )

  def test_sums_over_a_partition(self):
    expansion = random_expansion()
    groups = {'geometry': ('b', 'd'), 'light': ('a',), 'rest': ('c',)}
    result = aggregate_indices.grouped(expansion, groups)
    self.assertEqual(result.members, (('b', 'd'), ('a',), ('c',)))
    np.testing.assert_allclose(result.shapley.sum(axis=0), 1)
    # total(group) + closed(all others) = 1.
    others = aggregate_indices.grouped(expansion, {'o': ('a', 'c')})
    np.testing.assert_allclose(result.total[0] + others.closed[0], 1)
    indices = sobol_indices.sobol_indices(expansion)
    np.testing.assert_allclose(
      result.first_order[0], indices.first_order[1] + indices.first_order[3]
    )
    np.testing.assert_allclose(
      result.closed[0] - result.first_order[0], indices.interactions[1, 3]
    )
    everything = aggregate_indices.grouped(expansion, {'all': NAMES})
    np.testing.assert_allclose(everything.closed, 1)
    np.testing.assert_allclose(everything.total, 1)

  def test_outputs_without_variance_are_nan_with_a_reason(self):
    expansion = random_expansion()
    expansion.coefficients[1:, 1] = 0
    result = aggregate_indices.grouped(expansion, {'g': ['a', 'b']})
    self.assertIn('does not vary', result.reasons[1])
    for values in (
      result.first_order, result.closed, result.total, result.shapley
    ):
      np.testing.assert_array_equal(np.isnan(values), [[False, True, False]])

  @parameterized.parameters(
    ({}, 'at least one group'),
    ({'g': []}, "'g' holds no factor"),
    ({'g': ['a', 'z']}, "unknown factor 'z'"),
    ({'g': ['a', 'b'], 'h': ['b']}, "'b' is in 'g' and in 'h'"),
    ({'g': ['a', 'a']}, 'must not overlap'),
  )
  def test_bad_groups_are_refused(self, groups, message):
    with self.assertRaisesRegex(ValueError, message):
      aggregate_indices.grouped(random_expansion(), groups)


class GeneralisedTest(parameterized.TestCase):

  def test_indices_are_ratios_of_traces_of_covariances(self):
    expansion = random_expansion(degree=3)
    design = designs.tensor_gauss(SPACE, (4, 4, 4, 4))
    y = expansion(design.nodes)
    w = np.array([0.2, 3.0, 1.0])
    gaps = y - expansion.mean
    covariance = gaps.T @ (design.weights[:, None] * gaps)
    rest = design.weights.reshape(4, 64)
    conditional = np.einsum(
      'am,amk->ak', rest / rest.sum(axis=1, keepdims=True),
      gaps.reshape(4, 64, 3),
    )  # fmt: skip
    of_a = conditional.T @ (rest.sum(axis=1)[:, None] * conditional)
    result = aggregate_indices.generalised(expansion, output_weights=w)
    np.testing.assert_allclose(
      result.first_order[0, 0],
      np.trace(w * of_a) / np.trace(w * covariance),
      rtol=1e-10,
    )
    np.testing.assert_allclose(result.variance, np.trace(w * covariance))

  def test_rotations_of_the_outputs_change_nothing(self):
    # Gamboa et al. 2014: invariance under isometries and scaling.
    expansion = random_expansion()
    rotation, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    rotated = expansions.Expansion(
      expansion.basis, 5 * expansion.coefficients @ rotation
    )
    one, other = map(aggregate_indices.generalised, (expansion, rotated))
    np.testing.assert_allclose(one.subset_values, other.subset_values)
    np.testing.assert_allclose(one.total, other.total)
    np.testing.assert_allclose(one.subset_values.sum(axis=0), 1)

  def test_they_are_averages_weighted_by_variance(self):
    expansion = random_expansion()
    indices = sobol_indices.sobol_indices(expansion)
    result = aggregate_indices.generalised(expansion)
    np.testing.assert_allclose(
      result.total[:, 0],
      indices.total @ expansion.variance / expansion.variance.sum(),
    )

  def test_rows_of_weights_give_one_vector_each(self):
    expansion = random_expansion()
    indices = sobol_indices.sobol_indices(expansion)
    result = aggregate_indices.generalised(
      expansion, output_weights=np.eye(3)
    )
    np.testing.assert_allclose(result.subset_values, indices.subset_values)
    np.testing.assert_allclose(result.closed(['a', 'b']), indices.closed('ab'))

  def test_constant_outputs_take_no_part_and_alone_have_a_reason(self):
    expansion = random_expansion()
    expansion.coefficients[1:, 1] = 0
    result = aggregate_indices.generalised(
      expansion, output_weights=[[1, 1, 1], [0, 1, 0], [1, 0, 1]]
    )
    self.assertEqual(
      [r is None for r in result.reasons], [True, False, True]
    )
    np.testing.assert_allclose(result.total[:, 0], result.total[:, 2])
    scaled = aggregate_indices.generalised(expansion, scale=1e9)
    self.assertIn('rounding noise', scaled.reasons[0])

  @parameterized.parameters(
    ([1, 2], r'expected shape \(3,\) or \(G, 3\), got \(2,\)'),
    ([1, -1, 1], 'finite numbers >= 0'),
    ([1, np.nan, 1], 'finite numbers >= 0'),
    ([[1, 1, 1], [0, 0, 0]], 'all weights of a vector are zero'),
  )
  def test_bad_weights_are_refused(self, weights, message):
    with self.assertRaisesRegex(ValueError, message):
      aggregate_indices.generalised(
        random_expansion(), output_weights=weights
      )


class ConditionalTest(parameterized.TestCase):

  def test_it_is_the_expansion_at_the_fixed_values(self):
    expansion = random_expansion()
    fixed = {'d': 1.7, 'b': -2.0}
    result = aggregate_indices.conditional(expansion, fixed)
    self.assertEqual(result.basis.space.names, ('a', 'c'))
    rest = result.basis.space.from_uniform(
      np.random.default_rng(0).uniform(size=(7, 2))
    )
    values = np.zeros((7, 4))
    values[:, [0, 2]] = result.basis.space.to_values(rest)
    values[:, 3], values[:, 1] = fixed['d'], fixed['b']
    np.testing.assert_allclose(
      result(rest), expansion(SPACE.to_germ(values)), rtol=1e-10
    )
    # The remaining terms stand in the order of all other bases.
    np.testing.assert_array_equal(
      result.basis.multi_indices, multi_indices.total_degree(2, 4)
    )

  def test_germ_coordinates_mean_the_same_settings(self):
    expansion = random_expansion()
    germ = float(SPACE.factors[3].to_germ(1.7))
    one = aggregate_indices.conditional(expansion, {'d': 1.7})
    other = aggregate_indices.conditional(
      expansion, {'d': germ}, coordinates='germ'
    )
    np.testing.assert_array_equal(one.coefficients, other.coefficients)

  @parameterized.parameters((('a',),), (('c',),), (('b', 'd'),))
  def test_law_of_total_variance(self, names):
    # V = E[Var(y | fixed)] + Var(E[y | fixed]), by an exact Gauss rule.
    expansion = random_expansion()
    fixed_space = factors.FactorSpace(
      tuple(SPACE.factors[SPACE.index(name)] for name in names)
    )
    rule = designs.tensor_gauss(fixed_space, (5,) * len(names))
    result = aggregate_indices.conditional(
      expansion, dict(zip(names, rule.nodes.T, strict=True)),
      coordinates='germ',
    )  # fmt: skip
    means = result.mean.reshape(-1, 3)
    within = rule.weights @ result.variance.reshape(-1, 3)
    between = rule.weights @ (means - expansion.mean) ** 2
    np.testing.assert_allclose(within + between, expansion.variance)
    indices = sobol_indices.sobol_indices(expansion)
    np.testing.assert_allclose(
      between, indices.closed(names) * expansion.variance
    )

  def test_ishigami_given_the_third_factor(self):
    # y = s sin x1 + 7 sin² x2 with s = 1 + 0.1 x3⁴, additive in x1 and x2.
    third = np.array([-1.0, 0.0, 0.6])
    result = aggregate_indices.conditional(ishigami_expansion(), {'c': third})
    indices = sobol_indices.sobol_indices(result)
    first = (1 + 0.1 * (np.pi * third) ** 4) ** 2 / 2
    expected = np.array([first, np.full(3, 49 / 8)]) / (first + 49 / 8)
    np.testing.assert_allclose(indices.first_order, expected, atol=1e-5)
    np.testing.assert_allclose(indices.total, expected, atol=1e-5)

  def test_fixing_nothing_changes_nothing(self):
    expansion = random_expansion()
    result = aggregate_indices.conditional(expansion, {})
    np.testing.assert_array_equal(
      result.basis.multi_indices, expansion.basis.multi_indices
    )
    np.testing.assert_array_equal(result.coefficients, expansion.coefficients)

  @parameterized.parameters(
    ({'z': 1.0}, {}, "unknown factor 'z'"),
    (dict.fromkeys(NAMES, 1.0), {}, 'all factors .* are fixed'),
    ({'a': 31.0}, {}, r"'a' must lie within \[10.0, 30.0\] deg, got 31.0"),
    ({'a': np.nan}, {}, "'a' must lie within"),
    ({'a': 1.5}, {'coordinates': 'germ'}, r'got 35.0'),
    ({'a': 20.0}, {'coordinates': 'unit'}, "'values' or 'germ'"),
    ({'a': [20.0], 'b': [1.0, 2.0]}, {}, 'one shape'),
    ({'a': [[20.0]]}, {}, 'one shape'),
  )
  def test_bad_settings_are_refused(self, fixed, options, message):
    with self.assertRaisesRegex(ValueError, message):
      aggregate_indices.conditional(random_expansion(), fixed, **options)


class TreeTest(absltest.TestCase):

  def test_results_are_pytrees(self):
    result = aggregate_indices.grouped(random_expansion(), {'g': ['a', 'b']})
    leaves, structure = jax.tree.flatten(result)
    again = jax.tree.unflatten(structure, leaves)
    self.assertEqual(again.members, (('a', 'b'),))
    np.testing.assert_array_equal(again.total, result.total)


if __name__ == '__main__':
  absltest.main()
