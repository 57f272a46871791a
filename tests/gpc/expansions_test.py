"""Expansions: basis, projection, evaluation under JAX, mean derivatives."""

import chaospy
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsens import factors
from jaxsens.gpc import designs
from jaxsens.gpc import expansions
from jaxsens.gpc import multi_indices
from tests.oracles import anova


def uniform_space(dim=3):
  return factors.FactorSpace(
    tuple(factors.Factor(f'x{d}', chaospy.Uniform(-1, 1)) for d in range(dim))
  )


MIXED = factors.FactorSpace((
  factors.Factor('rotation', chaospy.Uniform(-90, 90), 'deg'),
  factors.Factor('blur', chaospy.Gamma(2.5, scale=0.3), 'px'),
  factors.Factor('gain', chaospy.LogNormal(0.1, 0.3)),
  factors.Factor('shift', chaospy.Normal(2, 4), 'px'),
))  # fmt: skip


def random_expansion(space, degree, num_outputs=2, seed=0):
  basis = expansions.Basis(
    space, multi_indices.total_degree(space.dim, degree)
  )
  coefficients = np.random.default_rng(seed).normal(
    size=(basis.num_terms, num_outputs)
  )
  return expansions.Expansion(basis, coefficients)


def test_basis_is_orthonormal_in_mixed_factors():
  basis = random_expansion(MIXED, 3).basis
  design = designs.tensor_gauss(MIXED, (4,) * 4)
  psi = basis.evaluate(design.nodes)
  assert psi.shape == (256, 35)
  np.testing.assert_allclose(
    psi.T @ (design.weights[:, None] * psi), np.eye(35), atol=1e-12
  )


def test_basis_values_are_products_of_legendre_polynomials():
  basis = expansions.Basis(uniform_space(2), np.array([[0, 0], [3, 1]]))
  germ = np.array([[0.3, -0.7], [1.0, 0.5]])
  legendre = np.polynomial.legendre.Legendre
  third, first = legendre([0, 0, 0, 1]), legendre([0, 1])
  expected = np.sqrt(7 * 3) * third(germ[:, 0]) * first(germ[:, 1])
  np.testing.assert_allclose(basis.evaluate(germ)[:, 1], expected, rtol=1e-13)
  np.testing.assert_allclose(basis.evaluate(germ)[:, 0], 1)


def test_projection_recovers_an_expansion_of_its_own_degree():
  expansion = random_expansion(MIXED, 3)
  design = designs.tensor_gauss(MIXED, (4,) * 4)
  found = expansions.project(
    expansion.basis, design, expansion(design.nodes)
  )
  np.testing.assert_allclose(
    found.coefficients, expansion.coefficients, atol=1e-11
  )


def test_mean_and_variance_are_those_of_the_outputs():
  expansion = random_expansion(MIXED, 2)
  design = designs.tensor_gauss(MIXED, (3,) * 4)
  outputs = expansion(design.nodes)
  mean = design.weights @ outputs
  np.testing.assert_allclose(expansion.mean, mean, atol=1e-12)
  np.testing.assert_allclose(
    expansion.variance, design.weights @ (outputs - mean) ** 2, rtol=1e-12
  )


@pytest.mark.parametrize('num_nodes', [1, 7, 8, 9])
def test_blocks_of_rows_equal_evaluation_at_once(num_nodes, monkeypatch):
  expansion = random_expansion(uniform_space(), 3)
  germ = np.random.default_rng(1).uniform(-1, 1, (num_nodes, 3))
  expected = expansion.basis.evaluate(germ) @ expansion.coefficients
  monkeypatch.setattr(expansions, '_BLOCK', 4 * expansion.basis.num_terms)
  np.testing.assert_allclose(expansion(germ), expected, atol=1e-12)
  np.testing.assert_allclose(expansion(germ[0]), expected[0], atol=1e-12)


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_jax_evaluation_equals_the_host_plain_and_jitted(dtype):
  expansion = random_expansion(MIXED, 4)
  germ = MIXED.from_uniform(np.random.default_rng(1).uniform(size=(50, 4)))
  expected = expansion(germ)
  with jax.enable_x64(dtype == np.float64):
    x = jnp.asarray(germ, dtype)
    # The expansion as an argument: its basis is static, its leaves traced.
    jitted = jax.jit(lambda expansion, x: expansion(x))
    for outputs in (expansion(x), jitted(expansion, x), jitted(expansion, x)):
      assert outputs.dtype == dtype
      tolerance = 1e-11 if dtype == np.float64 else 1e-4
      np.testing.assert_allclose(
        outputs, expected, atol=tolerance * np.max(np.abs(expected))
      )


def test_gradients_by_germ_and_coefficients_equal_difference_quotients():
  expansion = random_expansion(MIXED, 3, num_outputs=1)
  x = np.array([0.2, 1.5, -0.3, 0.6])
  with jax.enable_x64(True):
    slope = jax.grad(lambda t: expansion(t)[0])(jnp.asarray(x))
    by_coefficients = jax.grad(
      lambda c: expansions.Expansion(expansion.basis, c)(x)[0]
    )(jnp.asarray(expansion.coefficients))
  step = 1e-6 * np.eye(4)
  expected = (expansion(x + step) - expansion(x - step))[:, 0] / 2e-6
  np.testing.assert_allclose(slope, expected, rtol=1e-6)
  np.testing.assert_allclose(
    by_coefficients[:, 0], expansion.basis.evaluate(x), rtol=1e-12
  )


def test_equal_bases_are_one_static_argument():
  bases = [random_expansion(MIXED, 2).basis for _ in range(2)]
  assert bases[0] == bases[1]
  assert hash(bases[0]) == hash(bases[1])
  assert bases[0] != random_expansion(MIXED, 3).basis
  with pytest.raises(ValueError, match='read-only'):
    bases[0].multi_indices[0, 0] = 1
  traces = []

  @jax.jit
  def evaluate(expansion, x):
    traces.append(x.shape)
    return expansion(x)

  for basis in bases:
    expansion = expansions.Expansion(basis, jnp.ones((basis.num_terms, 1)))
    evaluate(expansion, jnp.ones((3, 4)))
  assert len(traces) == 1


def test_mean_derivatives_are_in_physical_units():
  # y = 2 rotation + 3 blur² + gain + 5 shift²: affine germs and an
  # exponential one.
  def model(values):
    rotation, blur, gain, shift = values.T
    y = 2 * rotation + 3 * blur**2 + gain + 5 * shift**2
    return y[:, None]

  design = designs.tensor_gauss(MIXED, (2, 3, 30, 3))
  basis = expansions.Basis(MIXED, multi_indices.tensor_product((1, 2, 29, 2)))
  outputs = model(MIXED.to_values(design.nodes))
  expansion = expansions.project(basis, design, outputs)
  # E[6 blur] = 6 shape scale, E[10 shift] = 10 mu: not off by the factor two
  # that a half-range normalisation gives for a normal factor.
  expected = [[2.0], [6 * 2.5 * 0.3], [1.0], [10 * 2.0]]
  np.testing.assert_allclose(
    expansions.mean_derivatives(expansion), expected, rtol=1e-9
  )


def test_mean_derivatives_equal_monte_carlo_with_interactions():
  space = factors.FactorSpace((
    factors.Factor('a', chaospy.Normal(1, 0.5)),
    factors.Factor('b', chaospy.LogUniform(0, 1)),
    factors.Factor('c', chaospy.Uniform(0, 2)),
  ))  # fmt: skip
  design = designs.tensor_gauss(space, (16, 16, 16))
  basis = expansions.Basis(space, multi_indices.tensor_product((15,) * 3))

  def model(v):
    return np.sin(v[:, 0] * v[:, 1]) + v[:, 2] ** 2 * v[:, 0]

  outputs = model(space.to_values(design.nodes))[:, None]
  found = expansions.mean_derivatives(
    expansions.project(basis, design, outputs)
  )
  generator = np.random.default_rng(0)
  v = space.to_values(space.from_uniform(generator.uniform(size=(100000, 3))))
  samples = np.stack(
    [
      v[:, 1] * np.cos(v[:, 0] * v[:, 1]) + v[:, 2] ** 2,
      v[:, 0] * np.cos(v[:, 0] * v[:, 1]),
      2 * v[:, 2] * v[:, 0],
    ]
  )
  error = np.abs(found[:, 0] - samples.mean(axis=1))
  assert np.all(error < 5 * samples.std(axis=1) / np.sqrt(100000))


def test_mean_derivatives_of_the_seed_function():
  # Monte Carlo of 2e6 points in the source system's own check.
  space = uniform_space()
  design = designs.tensor_gauss(space, (20,) * 3)
  basis = expansions.Basis(space, multi_indices.tensor_product((19,) * 3))
  expansion = expansions.project(
    basis, design, anova.seed_sigmoid(design.nodes)
  )
  np.testing.assert_allclose(
    expansions.mean_derivatives(expansion)[:, 0],
    [0.4154, -0.1523, 0.0001],
    atol=5e-4,
  )
  np.testing.assert_allclose(expansion.mean, 0.50012, atol=5e-4)
  np.testing.assert_allclose(expansion.variance, 0.097745, atol=2e-4)


def test_degrees_that_the_rule_cannot_integrate_are_refused():
  space = uniform_space(2)
  design = designs.tensor_gauss(space, (4, 3))
  outputs = np.zeros((12, 1))
  fine = expansions.Basis(space, multi_indices.tensor_product((3, 2)))
  expansions.project(fine, design, outputs)
  coarse = expansions.Basis(space, multi_indices.tensor_product((3, 3)))
  with pytest.raises(ValueError, match="degree 3 of factor 'x1'.*4 Gauss"):
    expansions.project(coarse, design, outputs)
  random = designs.latin_hypercube(jax.random.key(0), space, 12)
  with pytest.raises(ValueError, match='least_squares'):
    expansions.project(fine, random, outputs)


@pytest.mark.parametrize(
  ('outputs', 'message'),
  [
    (np.zeros(12), r'\(12, K\).*\(12,\)'),
    (np.zeros((11, 2)), r'\(12, K\).*\(11, 2\)'),
    (np.zeros((12, 0)), r'\(12, K\).*\(12, 0\)'),
    (np.full((12, 2), np.nan), '24 of 24 values.*nan at node 0, output 0'),
  ],
  ids=['flat', 'short', 'empty', 'nan'],
)
def test_bad_outputs_are_refused(outputs, message):
  space = uniform_space(2)
  design = designs.tensor_gauss(space, (4, 3))
  basis = expansions.Basis(space, multi_indices.tensor_product((3, 2)))
  with pytest.raises(ValueError, match=message):
    expansions.project(basis, design, outputs)


@pytest.mark.parametrize(
  ('rows', 'message'),
  [
    ([[0, 0, 0]], r'\(P, 2\)'),
    ([[1, 0], [0, 0]], 'zeros in row 0'),
    ([[0, 0], [1, 0], [1, 0]], 'more than once'),
    ([[0, 0], [1, -1]], 'integers >= 0'),
    ([[0, 0], [0.5, 1]], 'integers >= 0'),
  ],
)
def test_bad_multi_indices_are_refused(rows, message):
  with pytest.raises(ValueError, match=message):
    expansions.Basis(uniform_space(2), np.array(rows))


def test_germ_of_another_dimension_is_refused():
  expansion = random_expansion(uniform_space(), 2)
  for germ in (np.zeros((4, 2)), jnp.zeros((4, 2)), np.zeros(2)):
    with pytest.raises(ValueError, match=r'\(\.\.\., 3\)'):
      expansion(germ)
