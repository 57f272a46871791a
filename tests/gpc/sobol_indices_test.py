"""Sobol indices against closed forms, dense quadrature and chaospy."""

import chaospy
import jax
import numpy as np
import pytest

from jaxsens import factors
from jaxsens.gpc import designs
from jaxsens.gpc import expansions
from jaxsens.gpc import multi_indices
from jaxsens.gpc import regression
from jaxsens.gpc import sobol_indices
from tests.oracles import anova

NAMES = ('a', 'b', 'c')
SPACE = factors.FactorSpace(
  tuple(factors.Factor(name, chaospy.Uniform(-1, 1)) for name in NAMES)
)


def projected(function, num_nodes, space=SPACE):
  design = designs.tensor_gauss(space, (num_nodes,) * space.dim)
  degrees = (num_nodes - 1,) * space.dim
  basis = expansions.Basis(space, multi_indices.tensor_product(degrees))
  return expansions.project(basis, design, function(design.nodes))


def assert_equals(indices, expected, tolerance, k=0):
  assert indices.subsets == anova.SUBSETS
  np.testing.assert_allclose(
    indices.subset_values[:, k],
    [expected[u] for u in anova.SUBSETS],
    atol=tolerance,
  )
  np.testing.assert_allclose(
    indices.first_order[:, k],
    [expected[d,] for d in range(3)],
    atol=tolerance,
  )
  np.testing.assert_allclose(
    indices.total[:, k], anova.total_indices(expected), atol=tolerance
  )


def additive(germ):
  first, second, third = germ.T
  return (3 * first + second**2 + np.exp(third))[:, None]


def product(germ):
  return np.prod(1 + np.array([0.5, 1.0, 2.0]) * germ, axis=1)[:, None]


def test_ishigami():
  expansion = projected(anova.ishigami, 16)
  expected = anova.ishigami_variances()
  indices = sobol_indices.sobol_indices(expansion)
  assert_equals(indices, anova.indices(expected), 1e-9)
  # Variance and mean of the textbook.
  np.testing.assert_allclose(indices.variance, 13.844587940719254, rtol=1e-9)
  np.testing.assert_allclose(indices.mean, 3.5, rtol=1e-9)


def test_sobol_g_with_kinks_converges_to_the_closed_form():
  # An even number of nodes: the kink lies between two of them.
  expansion = projected(anova.sobol_g, 20)
  indices = sobol_indices.sobol_indices(expansion)
  assert_equals(indices, anova.indices(anova.sobol_g_variances()), 2e-3)


def test_total_index_of_additive_function_equals_first_order():
  indices = sobol_indices.sobol_indices(projected(additive, 14))
  # Variances of 3 x, x² and exp(x) for x uniform on [-1, 1].
  variances = np.array([3, 4 / 45, (np.e**2 - np.e**-2) / 4 - np.sinh(1) ** 2])
  expected = variances / variances.sum()
  np.testing.assert_allclose(indices.first_order[:, 0], expected, atol=1e-12)
  np.testing.assert_allclose(indices.total[:, 0], expected, atol=1e-12)


def test_product_function_has_the_indices_of_the_product_formula():
  # E[(1 + c x)²] - 1 = c² / 3, and V_u is the product over u.
  single = np.array([0.5, 1.0, 2.0]) ** 2 / 3
  variances = {u: float(np.prod(single[list(u)])) for u in anova.SUBSETS}
  indices = sobol_indices.sobol_indices(projected(product, 2))
  assert_equals(indices, anova.indices(variances), 1e-13)


@pytest.mark.parametrize(
  ('function', 'num_nodes', 'tolerance'),
  [(anova.seed_sigmoid, 20, 1e-8), (anova.sharp_sigmoid, 20, 2e-3)],
)
def test_sigmoids_agree_with_dense_quadrature(function, num_nodes, tolerance):
  expected = anova.indices(anova.dense_variances(function))
  indices = sobol_indices.sobol_indices(projected(function, num_nodes))
  assert_equals(indices, expected, tolerance)


def test_seed_recipe_gives_the_seed_indices():
  # The source system's own run: 2000 LHS points, degree (6, 6, 6).
  design = designs.latin_hypercube(jax.random.key(0), SPACE, 2000)
  basis = expansions.Basis(SPACE, multi_indices.tensor_product((6, 6, 6)))
  fit = regression.least_squares(
    basis, design, anova.seed_sigmoid(design.nodes)
  )
  indices = sobol_indices.sobol_indices(fit.expansion)
  expected = {
    (0,): 0.8424, (1,): 0.0793, (2,): 7e-6,
    (0, 1): 0.0124, (0, 2): 0.0567, (1, 2): 0.0052, (0, 1, 2): 0.0039,
  }  # fmt: skip
  # Both are estimates from 2000 points; noise adds to the many small terms.
  assert_equals(indices, expected, 3e-3)


def test_indices_equal_those_of_chaospy_for_a_normed_basis():
  joint = chaospy.J(chaospy.Uniform(-1, 1), chaospy.Normal(), chaospy.Gamma(2))
  polynomials, _ = chaospy.generate_expansion(
    4, joint, normed=True, retall=True
  )
  exponents = chaospy.glexindex(
    0, 5, 3, graded=polynomials_graded, reverse=polynomials_reverse
  )
  coefficients = np.random.default_rng(0).normal(size=len(polynomials))
  space = factors.FactorSpace((
    factors.Factor('a', chaospy.Uniform(-1, 1)),
    factors.Factor('b', chaospy.Normal()),
    factors.Factor('c', chaospy.Gamma(2)),
  ))  # fmt: skip
  basis = expansions.Basis(space, exponents)
  # Both bases order their terms alike: they agree at random points.
  germ = space.from_uniform(np.random.default_rng(1).uniform(size=(9, 3)))
  np.testing.assert_allclose(
    polynomials(*germ.T).T, basis.evaluate(germ), rtol=1e-8, atol=1e-8
  )
  indices = sobol_indices.sobol_indices(
    expansions.Expansion(basis, coefficients[:, None])
  )
  np.testing.assert_allclose(
    indices.first_order[:, 0],
    chaospy.FirstOrderSobol(polynomials, coefficients),
    atol=1e-12,
  )
  np.testing.assert_allclose(
    indices.total[:, 0],
    chaospy.TotalOrderSobol(polynomials, coefficients),
    atol=1e-12,
  )


# The order in which chaospy.generate_expansion sorts its terms.
polynomials_graded = True
polynomials_reverse = True


@pytest.fixture(name='random_indices', scope='module')
def fixture_random_indices():
  basis = expansions.Basis(SPACE, multi_indices.total_degree(3, 5))
  coefficients = np.random.default_rng(0).normal(size=(basis.num_terms, 6))
  return sobol_indices.sobol_indices(
    expansions.Expansion(basis, coefficients)
  )


def test_subset_indices_sum_to_one_and_totals_bound_first_order(
  random_indices,
):
  np.testing.assert_allclose(
    random_indices.subset_values.sum(axis=0), 1, atol=1e-12
  )
  assert np.all(random_indices.first_order <= random_indices.total)
  assert np.all(random_indices.subset_values >= 0)


def test_interactions_are_symmetric_with_first_order_on_the_diagonal(
  random_indices,
):
  matrix = random_indices.interactions
  np.testing.assert_array_equal(matrix, np.swapaxes(matrix, 0, 1))
  for d in range(3):
    np.testing.assert_array_equal(matrix[d, d], random_indices.first_order[d])
  pair = random_indices.subsets.index((0, 2))
  np.testing.assert_array_equal(
    matrix[0, 2], random_indices.subset_values[pair]
  )


def test_closed_index_sums_what_lies_inside(random_indices):
  s = dict(
    zip(random_indices.subsets, random_indices.subset_values, strict=True)
  )
  np.testing.assert_allclose(
    random_indices.closed(['c', 'a']), s[0,] + s[2,] + s[0, 2]
  )
  np.testing.assert_allclose(random_indices.closed(NAMES), 1)
  np.testing.assert_allclose(random_indices.closed([]), 0)
  # The total index is one minus the closed index of all others.
  np.testing.assert_allclose(
    random_indices.total[1], 1 - random_indices.closed(['a', 'c'])
  )
  with pytest.raises(ValueError, match=r"unknown factors \['z'\]"):
    random_indices.closed(['a', 'z'])


def test_order_of_the_factors_does_not_change_what_their_names_carry():
  basis = expansions.Basis(SPACE, multi_indices.total_degree(3, 4))
  coefficients = np.random.default_rng(0).normal(size=(basis.num_terms, 2))
  order = [2, 0, 1]
  permuted = expansions.Basis(
    factors.FactorSpace(tuple(SPACE.factors[d] for d in order)),
    basis.multi_indices[:, order],
  )
  one, two = (
    sobol_indices.sobol_indices(expansions.Expansion(b, coefficients))
    for b in (basis, permuted)
  )
  for name in NAMES:
    i, j = one.names.index(name), two.names.index(name)
    np.testing.assert_allclose(one.total[i], two.total[j], rtol=1e-13)
    np.testing.assert_allclose(one.first_order[i], two.first_order[j])

  def by_name(indices):
    keys = map(frozenset, indices.subset_names)
    return dict(zip(keys, indices.subset_values, strict=True))

  first, second = by_name(one), by_name(two)
  assert first.keys() == second.keys()
  for key, value in first.items():
    np.testing.assert_allclose(value, second[key], rtol=1e-13)


def test_units_and_affine_changes_of_the_output_do_not_matter(random_indices):
  basis = expansions.Basis(SPACE, multi_indices.total_degree(3, 5))
  coefficients = np.random.default_rng(0).normal(size=(basis.num_terms, 6))
  coefficients = -1e5 * coefficients
  coefficients[0] += 3e5
  changed = sobol_indices.sobol_indices(
    expansions.Expansion(basis, coefficients)
  )
  np.testing.assert_allclose(
    changed.subset_values, random_indices.subset_values, rtol=1e-12
  )


def test_max_order_cuts_the_list_and_not_the_totals(random_indices):
  basis = expansions.Basis(SPACE, multi_indices.total_degree(3, 5))
  coefficients = np.random.default_rng(0).normal(size=(basis.num_terms, 6))
  cut = sobol_indices.sobol_indices(
    expansions.Expansion(basis, coefficients), max_order=1
  )
  assert cut.subsets == ((0,), (1,), (2,))
  np.testing.assert_array_equal(cut.total, random_indices.total)
  np.testing.assert_array_equal(cut.interactions, random_indices.interactions)
  np.testing.assert_array_equal(
    cut.closed(['a']), random_indices.closed(['a'])
  )
  with pytest.raises(ValueError, match='max_order is 1'):
    cut.closed(['a', 'b'])
  with pytest.raises(ValueError, match='at least 1'):
    sobol_indices.sobol_indices(
      expansions.Expansion(basis, coefficients), max_order=0
    )


def test_output_without_variance_has_no_indices_and_a_reason():
  basis = expansions.Basis(SPACE, multi_indices.total_degree(3, 2))
  coefficients = np.zeros((basis.num_terms, 4))
  coefficients[0] = [0.0, 1.0, 1.0, 1e-9]
  # float32 noise around one, a true variation, a tiny but clean one.
  coefficients[1:, 1] = 1e-8
  coefficients[1:, 2] = 1e-3
  coefficients[1:, 3] = 1e-10
  indices = sobol_indices.sobol_indices(
    expansions.Expansion(basis, coefficients)
  )
  silent = [reason is not None for reason in indices.reasons]
  assert silent == [True, True, False, False]
  assert 'does not vary' in indices.reasons[0]
  assert 'rounding noise' in indices.reasons[1]
  for values in (
    indices.subset_values, indices.first_order, indices.total,
    indices.interactions.reshape(9, 4), indices.closed(['a'])[None],
  ):  # fmt: skip
    np.testing.assert_array_equal(
      np.isnan(values), np.broadcast_to(silent, values.shape)
    )


def test_scale_of_the_outputs_decides_what_noise_is():
  basis = expansions.Basis(SPACE, multi_indices.total_degree(3, 1))
  coefficients = np.array([[0.0], [1e-6], [1e-6], [1e-6]])
  expansion = expansions.Expansion(basis, coefficients)
  # A margin of logits near ten: its float32 noise is 1e-5.
  assert sobol_indices.sobol_indices(expansion).reasons == (None,)
  assert sobol_indices.sobol_indices(expansion, scale=10.0).reasons[0]
  loose = sobol_indices.sobol_indices(expansion, scale=10.0, noise=1e-8)
  assert loose.reasons == (None,)


def test_basis_of_the_constant_alone_has_no_indices():
  expansion = expansions.Expansion(
    expansions.Basis(SPACE, np.zeros((1, 3), int)), np.ones((1, 2))
  )
  indices = sobol_indices.sobol_indices(expansion)
  assert indices.subsets == ()
  assert np.all(np.isnan(indices.total))
  assert np.all(np.isnan(indices.first_order))


def test_normaliser_sets_what_the_indices_are_shares_of(random_indices):
  basis = expansions.Basis(SPACE, multi_indices.total_degree(3, 5))
  coefficients = np.random.default_rng(0).normal(size=(basis.num_terms, 6))
  variance = 2 * np.sum(coefficients[1:] ** 2, axis=0)
  halved = sobol_indices.sobol_indices(
    expansions.Expansion(basis, coefficients), normaliser=variance
  )
  np.testing.assert_allclose(halved.total, random_indices.total / 2)
  np.testing.assert_array_equal(halved.normaliser, variance)
  np.testing.assert_array_equal(
    random_indices.normaliser, random_indices.variance
  )


def test_indices_are_a_pytree():
  indices = sobol_indices.sobol_indices(projected(product, 3))
  leaves, structure = jax.tree.flatten(indices)
  again = jax.tree.unflatten(structure, leaves)
  assert again.names == NAMES
  assert again.reasons == (None,)
  np.testing.assert_array_equal(again.total, indices.total)
