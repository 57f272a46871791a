"""Least squares: recovery, leave-one-out, weights, conditioning."""

import chaospy
import jax
import numpy as np
import pytest

from jaxsens import factors
from jaxsens.gpc import designs
from jaxsens.gpc import expansions
from jaxsens.gpc import multi_indices
from jaxsens.gpc import regression
from tests.oracles import anova
from tests.oracles import refits

SPACE = factors.FactorSpace(
  tuple(factors.Factor(name, chaospy.Uniform(-1, 1)) for name in 'abc')
)


def basis_of(degree):
  return expansions.Basis(SPACE, multi_indices.total_degree(3, degree))


def design_of(num_nodes, seed=0):
  return designs.latin_hypercube(jax.random.key(seed), SPACE, num_nodes)


def two_outputs(nodes):
  return np.hstack([anova.ishigami(nodes), anova.sharp_sigmoid(nodes)])


def clustered(nodes):
  """Nodes in a corner of the cube: an ill-conditioned design matrix."""
  return designs.Design(
    0.9 + 0.02 * nodes, np.full(len(nodes), 1 / len(nodes)), 'clustered'
  )


def test_an_expansion_of_the_basis_is_recovered():
  basis = basis_of(3)
  truth = np.random.default_rng(0).normal(size=(basis.num_terms, 4))
  design = design_of(100)
  outputs = expansions.Expansion(basis, truth)(design.nodes)
  fit = regression.least_squares(basis, design, outputs)
  np.testing.assert_allclose(fit.expansion.coefficients, truth, atol=1e-12)
  np.testing.assert_allclose(fit.loo_q2, 1, atol=1e-12)
  np.testing.assert_allclose(fit.r2, 1, atol=1e-12)


@pytest.mark.parametrize('weighted', [False, True])
@pytest.mark.parametrize('ill', [False, True], ids=['cholesky', 'qr'])
def test_leave_one_out_equals_refitting(weighted, ill):
  design = design_of(45)
  if ill:
    design = clustered(design.nodes)
  basis, outputs = basis_of(2), two_outputs(design.nodes)
  weights = np.random.default_rng(0).uniform(0.5, 2, 45) if weighted else None
  fit = regression.least_squares(basis, design, outputs, weights)
  assert (fit.condition > 1e4) == ill
  used = np.ones(45) if weights is None else weights
  expected = refits.leave_one_out_residuals(
    basis.evaluate(design.nodes), outputs, used
  )
  np.testing.assert_allclose(
    fit.loo_residuals, expected, atol=1e-6 if ill else 1e-10
  )
  mean = np.average(outputs, axis=0, weights=used)
  expected_q2 = 1 - used @ expected**2 / (used @ (outputs - mean) ** 2)
  np.testing.assert_allclose(
    fit.loo_q2, expected_q2, atol=1e-6 if ill else 1e-10
  )


@pytest.mark.parametrize('weighted', [False, True])
def test_coefficients_equal_those_of_numpy(weighted):
  design, basis = design_of(60), basis_of(3)
  outputs = two_outputs(design.nodes)
  weights = np.random.default_rng(0).uniform(0.5, 2, 60) if weighted else None
  fit = regression.least_squares(basis, design, outputs, weights)
  root = np.sqrt(np.ones(60) if weights is None else weights)[:, None]
  psi = basis.evaluate(design.nodes)
  expected, *_ = np.linalg.lstsq(root * psi, root * outputs, rcond=None)
  np.testing.assert_allclose(
    fit.expansion.coefficients, expected, atol=1e-11
  )
  hat = (root * psi) @ np.linalg.pinv(root * psi)
  np.testing.assert_allclose(fit.leverages, np.diag(hat), atol=1e-11)
  np.testing.assert_allclose(np.sum(fit.leverages), basis.num_terms)


def test_weighted_least_squares_on_gauss_nodes_equals_projection():
  design = designs.tensor_gauss(SPACE, (4, 4, 4))
  basis, outputs = basis_of(3), two_outputs(design.nodes)
  fit = regression.least_squares(basis, design, outputs, design.weights)
  expansion = expansions.project(basis, design, outputs)
  np.testing.assert_allclose(
    fit.expansion.coefficients, expansion.coefficients, atol=1e-11
  )


def test_condition_is_that_of_the_gram_matrix():
  design, basis = design_of(80), basis_of(3)
  fit = regression.least_squares(basis, design, two_outputs(design.nodes))
  psi = basis.evaluate(design.nodes)
  np.testing.assert_allclose(
    fit.condition, np.sqrt(np.linalg.cond(psi.T @ psi, 1)), rtol=1e-8
  )


def test_all_outputs_at_once_equal_each_alone():
  design, basis = design_of(80), basis_of(3)
  outputs = two_outputs(design.nodes)
  both = regression.least_squares(basis, design, outputs)
  for k in range(2):
    alone = regression.least_squares(basis, design, outputs[:, k : k + 1])
    np.testing.assert_allclose(
      both.expansion.coefficients[:, k],
      alone.expansion.coefficients[:, 0],
      atol=1e-13,
    )
    np.testing.assert_allclose(both.loo_q2[k], alone.loo_q2[0], atol=1e-13)


def test_leave_one_out_q2_predicts_the_held_out_one():
  design, basis = design_of(400), basis_of(6)
  fit = regression.least_squares(basis, design, two_outputs(design.nodes))
  fresh = design_of(4000, seed=1).nodes
  outputs = two_outputs(fresh)
  error = np.mean((outputs - fit.expansion(fresh)) ** 2, axis=0)
  held_out = 1 - error / np.var(outputs, axis=0)
  np.testing.assert_allclose(fit.loo_q2, held_out, atol=0.05)
  assert np.all(fit.r2 > fit.loo_q2)


def test_float32_outputs_are_fitted_in_float64():
  design, basis = design_of(60), basis_of(2)
  outputs = two_outputs(design.nodes).astype(np.float32)
  fit = regression.least_squares(basis, design, outputs)
  assert fit.expansion.coefficients.dtype == np.float64
  same = regression.least_squares(basis, design, outputs.astype(np.float64))
  np.testing.assert_array_equal(
    fit.expansion.coefficients, same.expansion.coefficients
  )


def test_constant_output_and_saturated_fit_have_no_q2():
  design, basis = design_of(30), basis_of(2)
  fit = regression.least_squares(basis, design, np.ones((30, 1)))
  assert np.isnan(fit.loo_q2[0])
  assert np.isnan(fit.r2[0])
  few = design_of(basis.num_terms)
  saturated = regression.least_squares(basis, few, two_outputs(few.nodes))
  np.testing.assert_allclose(saturated.leverages, 1, atol=1e-9)
  assert np.all(np.isnan(saturated.loo_q2))
  np.testing.assert_allclose(saturated.r2, 1, atol=1e-9)


def test_bad_input_is_refused():
  design, basis = design_of(30), basis_of(2)
  outputs = two_outputs(design.nodes)
  with pytest.raises(ValueError, match='9 nodes cannot determine 10 terms'):
    few = design_of(9)
    regression.least_squares(basis, few, two_outputs(few.nodes))
  same = designs.Design(np.zeros((30, 3)), design.weights, 'sobol_sequence')
  with pytest.raises(ValueError, match='rank deficient'):
    regression.least_squares(basis, same, outputs)
  with pytest.raises(ValueError, match=r'\(30,\), got \(29,\)'):
    regression.least_squares(basis, design, outputs, np.ones(29))
  with pytest.raises(ValueError, match='finite positive'):
    regression.least_squares(basis, design, outputs, np.zeros(30))
  outputs[7, 1] = np.inf
  with pytest.raises(ValueError, match='1 of 60.*inf at node 7, output 1'):
    regression.least_squares(basis, design, outputs)
