"""Derivative measures and Poincaré bounds against closed forms."""

from absl.testing import absltest
from absl.testing import parameterized
import chaospy
import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from jaxsens import factors
from jaxsens.gpc import derivative_indices
from jaxsens.gpc import designs
from jaxsens.gpc import expansions
from jaxsens.gpc import multi_indices
from jaxsens.gpc import sobol_indices
from tests.oracles import test_functions

MIXED = factors.FactorSpace((
  factors.Factor('a', chaospy.Uniform(10, 30)),
  factors.Factor('b', chaospy.Normal(1, 2)),
  factors.Factor('c', chaospy.LogNormal(0.3, 0.5)),
  factors.Factor('d', chaospy.LogUniform(0, 1)),
))  # fmt: skip


def random_expansion(space=MIXED, degree=3, num_outputs=2):
  basis = expansions.Basis(space, multi_indices.total_degree(space.dim, degree))
  coefficients = np.random.default_rng(0).normal(
    size=(basis.num_terms, num_outputs)
  )
  return expansions.Expansion(basis, coefficients)


def projected(function, space, num_nodes):
  design = designs.tensor_gauss(space, (num_nodes,) * space.dim)
  basis = expansions.Basis(
    space, multi_indices.tensor_product((num_nodes - 1,) * space.dim)
  )
  return expansions.project(basis, design, function(design.nodes))


def ishigami_gradients(values, a=7.0, b=0.1):
  first, second, third = values.T
  return np.stack([
    np.cos(first) * (1 + b * third**4),
    a * np.sin(2 * second),
    4 * b * third**3 * np.sin(first),
  ], axis=1)[:, :, None]  # fmt: skip


# E[cos² x1 (1 + b x3⁴)²], a² E[sin²(2 x2)], 16 b² E[x3⁶ sin² x1].
ISHIGAMI = np.array([
  (1 + 2 * 0.1 * np.pi**4 / 5 + 0.01 * np.pi**8 / 9) / 2,
  49 / 2,
  8 * 0.01 * np.pi**6 / 7,
])  # fmt: skip


class FromExpansionTest(parameterized.TestCase):

  def test_ishigami(self):
    function = test_functions.ishigami()
    expansion = projected(function, function.space, 18)
    measures = derivative_indices.from_expansion(expansion)
    np.testing.assert_allclose(measures.values[:, 0], ISHIGAMI, rtol=1e-8)
    np.testing.assert_allclose(
      measures.germ[:, 0], np.pi**2 * ISHIGAMI, rtol=1e-8
    )
    self.assertEqual(measures.names, ('x1', 'x2', 'x3'))

  def test_they_equal_quadrature_of_the_gradient_by_autodiff(self):
    expansion = random_expansion()
    # Beyond exactness of the polynomials: slopes are exponentials.
    design = designs.tensor_gauss(MIXED, (4, 4, 24, 16))
    with jax.enable_x64(True):
      gradient = jax.jit(jax.vmap(jax.jacfwd(expansion)))
      by_germ = np.asarray(gradient(jnp.asarray(design.nodes)))
    by_germ = np.swapaxes(by_germ, 1, 2)
    slopes = MIXED.value_slope(design.nodes)[:, :, None]
    measures = derivative_indices.from_expansion(expansion)
    for found, squares in (
      (measures.germ, by_germ**2), (measures.values, (by_germ / slopes) ** 2)
    ):
      expected = np.tensordot(design.weights, squares, axes=1)
      np.testing.assert_allclose(found, expected, rtol=1e-9)
    np.testing.assert_array_equal(measures.values_error, 0)

  def test_many_outputs_are_taken_block_by_block(self):
    space = factors.FactorSpace(MIXED.factors[:2])
    expansion = random_expansion(space, degree=40, num_outputs=700)
    some = expansions.Expansion(
      expansion.basis, expansion.coefficients[:, [0, 350, 699]]
    )
    np.testing.assert_allclose(
      derivative_indices.from_expansion(expansion).values[:, [0, 350, 699]],
      derivative_indices.from_expansion(some).values,
      rtol=1e-12,
    )

  def test_a_factor_without_terms_has_no_derivative(self):
    basis = expansions.Basis(MIXED, [[0, 0, 0, 0], [1, 0, 0, 0]])
    expansion = expansions.Expansion(basis, np.array([[5.0], [2.0]]))
    measures = derivative_indices.from_expansion(expansion)
    # 2 sqrt(3) germ = 2 sqrt(3) (value - 20) / 10.
    np.testing.assert_allclose(measures.values[:, 0], [0.12, 0, 0, 0])


class FromGradientsTest(parameterized.TestCase):

  def test_ishigami_within_five_standard_errors(self):
    space = test_functions.ishigami().space
    design = designs.latin_hypercube(jax.random.key(0), space, 4000)
    measures = derivative_indices.from_gradients(
      space, design, ishigami_gradients(space.to_values(design.nodes))
    )
    gaps = np.abs(measures.values[:, 0] - ISHIGAMI)
    self.assertTrue(np.all(gaps < 5 * measures.values_error[:, 0]))
    self.assertTrue(np.all(measures.values_error[:, 0] < 0.05 * ISHIGAMI))
    np.testing.assert_allclose(measures.germ, np.pi**2 * measures.values)
    np.testing.assert_allclose(
      measures.germ_error, np.pi**2 * measures.values_error
    )

  def test_quadrature_is_exact_and_has_no_standard_error(self):
    # y = v_a² v_c by values; E[v_c²] of the log-normal is exp(2 m + 2 s²).
    design = designs.tensor_gauss(MIXED, (3, 1, 30, 1))
    a, _, c, _ = MIXED.to_values(design.nodes).T
    gradients = np.zeros((len(a), 4, 1))
    gradients[:, 0, 0], gradients[:, 2, 0] = 2 * a * c, a**2
    measures = derivative_indices.from_gradients(MIXED, design, gradients)
    square_c = np.exp(2 * 0.3 + 2 * 0.5**2)
    moment = (30.0 ** np.arange(1, 6) - 10.0 ** np.arange(1, 6)) / 20
    moment = moment / np.arange(1, 6)
    np.testing.assert_allclose(
      measures.values[:, 0], [4 * moment[2] * square_c, 0, moment[4], 0],
      rtol=1e-12,
    )  # fmt: skip
    # By the germ the slope of c = exp(0.3 + 0.5 x) is c / 2.
    np.testing.assert_allclose(
      measures.germ[2, 0], moment[4] * square_c / 4, rtol=1e-12
    )
    np.testing.assert_array_equal(measures.values_error, 0)

  def test_bad_gradients_are_refused(self):
    design = designs.sobol_sequence(jax.random.key(0), MIXED, 8)
    with self.assertRaisesRegex(
      ValueError, r"\(8, 4, K\) for the factors \['a', .* got \(8, 3, 1\)"
    ):
      derivative_indices.from_gradients(MIXED, design, np.ones((8, 3, 1)))
    gradients = np.ones((8, 4, 2))
    gradients[5, 2, 1] = np.nan
    with self.assertRaisesRegex(
      ValueError, "1 values .* nan at node 5, factor 'c', output 1"
    ):
      derivative_indices.from_gradients(MIXED, design, gradients)


class PoincareConstantTest(parameterized.TestCase):

  @parameterized.named_parameters(
    # Roustant et al. 2017; the derivative v of the eigenfunction solves
    # v'' + (p' v / p)' = -λ v with v = 0 at the ends.
    ('uniform', chaospy.Uniform(2, 5), 9 / np.pi**2, 1e-12),
    ('normal', chaospy.Normal(1, 3), 9, 1e-12),
    ('triangle', chaospy.Triangle(-1, 0, 1),
     special.jn_zeros(0, 1)[0] ** -2, 1e-4),
    ('truncated_exponential', chaospy.TruncExponential(3),
     1 / (1 / 4 + np.pi**2 / 9), 1e-12),
    # u' solves the Hermite equation, He_2 has its zeros at -1 and 1.
    ('truncated_normal', chaospy.TruncNormal(-1, 1, 0, 1), 1 / 3, 1e-12),
    # u' = x exp(x / (a + 1)), eigenvalue a / (a + 1)².
    ('gamma', chaospy.Gamma(2.5), 3.5**2 / 2.5, 1e-5),
    # Continuous spectrum from 1/4 on; Cheeger's bound is sharp.
    ('exponential', chaospy.Exponential(2), 16, 1e-5),
  )  # fmt: skip
  def test_closed_forms(self, distribution, expected, tolerance):
    constant = derivative_indices.poincare_constant(distribution)
    np.testing.assert_allclose(constant, expected, rtol=tolerance)
    # It serves as an upper bound.
    self.assertGreaterEqual(constant, expected * (1 - 1e-12))

  def test_log_normal_has_none(self):
    self.assertEqual(
      derivative_indices.poincare_constant(chaospy.LogNormal(0, 0.5)), np.inf
    )

  def test_the_inequality_holds_for_functions_outside_of_the_trial_space(self):
    distribution = chaospy.Beta(0.7, 2.3)
    constant = derivative_indices.poincare_constant(distribution)
    space = factors.FactorSpace((factors.Factor('x', distribution),))
    design = designs.tensor_gauss(space, (200,))
    x = space.to_values(design.nodes)[:, 0]
    for rate in (0.1, 1.0, 3.0, 7.0):
      y, slope = np.sin(rate * x), rate * np.cos(rate * x)
      variance = design.weights @ y**2 - (design.weights @ y) ** 2
      self.assertLessEqual(variance, constant * (design.weights @ slope**2))


class CheckTest(parameterized.TestCase):

  def test_ishigami_factors(self):
    # The constant is (2π)² / π² = 4 in physical units.
    function = test_functions.ishigami()
    expansion = projected(function, function.space, 18)
    result = derivative_indices.check(
      derivative_indices.from_expansion(expansion),
      function.space,
      sobol_indices.sobol_indices(expansion),
    )
    bound = 4 * ISHIGAMI / function.variance
    np.testing.assert_allclose(result.bound[:, 0], bound, rtol=1e-8)
    np.testing.assert_allclose(
      result.factor[:, 0], bound / function.total, rtol=1e-7
    )
    self.assertTrue(np.all(result.holds))

  def test_equality_for_linear_functions_of_normals(self):
    # Sobol' and Kucherenko 2009: total = σ² nu / V.
    space = factors.FactorSpace((
      factors.Factor('a', chaospy.Normal(3, 0.5)),
      factors.Factor('b', chaospy.Normal(0, 4)),
    ))  # fmt: skip
    expansion = projected(
      lambda germ: space.to_values(germ) @ [[2.0], [-1.0]], space, 3
    )
    result = derivative_indices.check(
      derivative_indices.from_expansion(expansion), space,
      sobol_indices.sobol_indices(expansion),
    )  # fmt: skip
    np.testing.assert_allclose(result.total[:, 0], [1 / 17, 16 / 17])
    np.testing.assert_allclose(result.factor, 1, rtol=1e-10)
    self.assertTrue(np.all(result.holds))

  def test_equality_for_the_first_eigenfunction_of_the_uniform(self):
    space = factors.FactorSpace((factors.Factor('a', chaospy.Uniform(2, 5)),))
    expansion = projected(lambda germ: np.sin(np.pi / 2 * germ), space, 20)
    result = derivative_indices.check(
      derivative_indices.from_expansion(expansion), space,
      sobol_indices.sobol_indices(expansion),
    )  # fmt: skip
    np.testing.assert_allclose(result.factor, 1, rtol=1e-9)
    self.assertTrue(np.all(result.holds))

  def test_the_bound_holds_for_every_expansion(self):
    expansion = random_expansion(num_outputs=50)
    result = derivative_indices.check(
      derivative_indices.from_expansion(expansion), MIXED,
      sobol_indices.sobol_indices(expansion),
    )  # fmt: skip
    self.assertTrue(np.all(result.holds))
    self.assertTrue(np.all(result.factor >= 1))
    np.testing.assert_allclose(result.total * result.factor, result.bound)

  def test_gradients_of_the_model_contradict_a_wrong_expansion(self):
    function = test_functions.ishigami()
    design = designs.sobol_sequence(jax.random.key(0), function.space, 2048)
    gradients = ishigami_gradients(function.space.to_values(design.nodes))
    # A model whose second factor acts a hundred times less.
    gradients[:, 1] /= 100
    expansion = projected(function, function.space, 16)
    result = derivative_indices.check(
      derivative_indices.from_gradients(function.space, design, gradients),
      function.space,
      sobol_indices.sobol_indices(expansion),
    )
    self.assertEqual(result.holds[:, 0].tolist(), [True, False, True])

  def test_outputs_without_variance_and_factors_without_effect(self):
    basis = expansions.Basis(MIXED, [[0, 0, 0, 0], [1, 0, 0, 0]])
    expansion = expansions.Expansion(basis, np.array([[5.0, 5.0], [2.0, 0.0]]))
    result = derivative_indices.check(
      derivative_indices.from_expansion(expansion), MIXED,
      sobol_indices.sobol_indices(expansion),
    )  # fmt: skip
    np.testing.assert_array_equal(np.isnan(result.factor[:, 1]), True)
    np.testing.assert_array_equal(result.holds[:, 1], False)
    np.testing.assert_array_equal(result.factor[1:, 0], np.inf)
    np.testing.assert_array_equal(result.holds[:, 0], True)

  def test_arguments_that_do_not_fit_are_refused(self):
    expansion = random_expansion()
    measures = derivative_indices.from_expansion(expansion)
    other = factors.FactorSpace(MIXED.factors[:2])
    small = random_expansion(other)
    with self.assertRaisesRegex(ValueError, 'factors differ'):
      derivative_indices.check(
        measures, MIXED, sobol_indices.sobol_indices(small)
      )
    one = expansions.Expansion(expansion.basis, expansion.coefficients[:, :1])
    with self.assertRaisesRegex(ValueError, r'\(4, 2\), got \(4, 1\)'):
      derivative_indices.check(
        measures, MIXED, sobol_indices.sobol_indices(one)
      )

  def test_results_are_pytrees(self):
    expansion = random_expansion()
    measures = derivative_indices.from_expansion(expansion)
    result = derivative_indices.check(
      measures, MIXED, sobol_indices.sobol_indices(expansion)
    )
    for value in (measures, result):
      leaves, structure = jax.tree.flatten(value)
      again = jax.tree.unflatten(structure, leaves)
      self.assertEqual(again.names, MIXED.names)


if __name__ == '__main__':
  absltest.main()
