"""Sparse grids: exact on their set, equal to the combination of tensors."""

import chaospy
import numpy as np
import pytest

from jaxsens import factors
from jaxsens.gpc import designs
from jaxsens.gpc import expansions
from jaxsens.gpc import multi_indices
from jaxsens.gpc import nested_rules
from jaxsens.gpc import sparse_grids
from tests.oracles import smolyak

DISTRIBUTIONS = {
  'uniform': lambda: chaospy.Uniform(-90, 90),
  'normal': lambda: chaospy.Normal(2, 4),
  'beta': lambda: chaospy.Beta(2, 5),
  'gamma': lambda: chaospy.Gamma(2.5, scale=0.3),
  'truncated': lambda: chaospy.TruncNormal(-1, 2, 0.3, 0.7),
}


def space_of(*names):
  return factors.FactorSpace(
    tuple(
      factors.Factor(f'{name}{d}', DISTRIBUTIONS[name]())
      for d, name in enumerate(names)
    )
  )


SPACES = {
  'uniform': space_of('uniform', 'uniform', 'uniform'),
  'normal': space_of('normal', 'normal', 'normal'),
  'beta': space_of('beta', 'beta', 'beta'),
  'mixed': space_of('uniform', 'normal', 'beta'),
  'other': space_of('truncated', 'gamma', 'uniform'),
}
SETS = {
  'total': multi_indices.total_degree(3, 7),
  'hyperbolic': multi_indices.hyperbolic(3, 14, 0.5),
  'tensor': multi_indices.tensor_product((3, 0, 4)),
  'anisotropic': np.array(
    sorted(
      {(i, j, 0) for i in range(20) for j in range(2)}
      | {(i, 0, k) for i in range(3) for k in range(6)}
    )
  ),
  'constant': np.zeros((1, 3), int),
}


def random_expansion(space, rows, num_outputs=2, seed=0):
  basis = expansions.Basis(space, rows)
  size = (basis.num_terms, num_outputs)
  coefficients = np.random.default_rng(seed).normal(size=size)
  return expansions.Expansion(basis, coefficients)


def smooth(space, germ):
  x = space.to_values(germ) / [max(abs(f.upper), 1) for f in space.factors]
  return np.stack(
    [np.sin(x @ [1.0, 2.0, 0.5]), np.exp(-x[:, 0] * x[:, 2])], axis=1
  )


@pytest.mark.parametrize('space', SPACES)
@pytest.mark.parametrize('rows', SETS)
def test_every_polynomial_of_the_set_is_reproduced(space, rows):
  expansion = random_expansion(SPACES[space], SETS[rows])
  basis = expansion.basis
  design = sparse_grids.sparse_grid(basis)
  found = sparse_grids.project(basis, expansion(design.nodes))
  np.testing.assert_allclose(
    found.coefficients, expansion.coefficients, atol=1e-12
  )


@pytest.mark.parametrize('space', SPACES)
@pytest.mark.parametrize('rows', SETS)
def test_weights_integrate_the_set_and_sum_to_one(space, rows):
  basis = expansions.Basis(SPACES[space], SETS[rows])
  design = sparse_grids.sparse_grid(basis)
  assert design.kind == 'sparse_grid'
  np.testing.assert_allclose(np.sum(design.weights), 1, atol=1e-12)
  np.testing.assert_allclose(
    design.weights @ basis.evaluate(design.nodes),
    np.eye(basis.num_terms)[0],
    atol=1e-12,
  )


@pytest.mark.parametrize('space', SPACES)
@pytest.mark.parametrize('rows', ['total', 'anisotropic', 'tensor'])
def test_projection_is_the_combination_of_tensor_projections(space, rows):
  space, rows = SPACES[space], SETS[rows]
  basis = expansions.Basis(space, rows)
  outputs = smooth(space, sparse_grids.sparse_grid(basis).nodes)
  found = sparse_grids.project(basis, outputs)
  nodes = [nested_rules.leja_rule(f, 20).nodes for f in space.factors]
  expected = smolyak.combination(
    space, rows, nodes, lambda germ: smooth(space, germ)
  )
  np.testing.assert_allclose(
    found.coefficients,
    [expected[tuple(row)] for row in basis.multi_indices.tolist()],
    atol=1e-11,
  )


def test_projection_takes_the_outputs_as_values_at_the_nodes():
  space = SPACES['mixed']
  basis = expansions.Basis(space, SETS['total'])
  design = sparse_grids.sparse_grid(basis)
  outputs = smooth(space, design.nodes)
  found = sparse_grids.project(basis, outputs)
  np.testing.assert_allclose(found(design.nodes), outputs, atol=1e-11)


def test_full_tensor_agrees_with_projection_by_gauss_rules():
  space = SPACES['uniform']
  basis = expansions.Basis(space, multi_indices.tensor_product((13,) * 3))
  gauss = designs.tensor_gauss(space, (14,) * 3)
  expected = expansions.project(basis, gauss, smooth(space, gauss.nodes))
  nodes = sparse_grids.sparse_grid(basis).nodes
  found = sparse_grids.project(basis, smooth(space, nodes))
  np.testing.assert_allclose(
    found.coefficients, expected.coefficients, atol=1e-9
  )


def test_order_of_factors_does_not_matter():
  names, order = ('uniform', 'normal', 'beta'), [2, 0, 1]
  space = space_of(*names)
  turned = factors.FactorSpace(tuple(space.factors[d] for d in order))
  rows = SETS['anisotropic']
  basis = expansions.Basis(space, rows)
  basis_turned = expansions.Basis(turned, rows[:, order])
  design = sparse_grids.sparse_grid(basis)
  design_turned = sparse_grids.sparse_grid(basis_turned)
  np.testing.assert_array_equal(design.nodes[:, order], design_turned.nodes)
  outputs = smooth(space, design.nodes)
  np.testing.assert_allclose(
    sparse_grids.project(basis_turned, outputs).coefficients,
    sparse_grids.project(basis, outputs).coefficients,
    atol=1e-12,
  )


def test_nodes_are_unique_and_those_of_a_subset_are_kept():
  space = SPACES['mixed']
  large = sparse_grids.sparse_grid(
    expansions.Basis(space, multi_indices.total_degree(3, 6))
  ).nodes
  small = sparse_grids.sparse_grid(
    expansions.Basis(space, multi_indices.total_degree(3, 4))
  ).nodes
  assert len(np.unique(large, axis=0)) == len(large)
  assert {tuple(x) for x in small} <= {tuple(x) for x in large}


def test_difference_norms_are_the_change_of_the_coefficients():
  space = SPACES['mixed']
  rows = multi_indices.total_degree(3, 4)
  basis = expansions.Basis(space, rows)
  outputs = smooth(space, sparse_grids.sparse_grid(basis).nodes)
  surpluses = sparse_grids.surpluses(basis, outputs)
  norms = sparse_grids.difference_norms(basis)
  for n in (1, 5, 20, len(rows) - 1):
    # Rows are sorted by degree: each prefix is a downward closed set.
    fine, coarse = (
      sparse_grids.project(expansions.Basis(space, rows[:m]), outputs[:m])
      for m in (n + 1, n)
    )
    change = fine.coefficients.copy()
    change[:n] -= coarse.coefficients
    np.testing.assert_allclose(
      np.abs(surpluses[n]) * norms[n],
      np.linalg.norm(change, axis=0),
      atol=1e-12,
    )


def test_weights_times_psi_is_refused_and_would_be_wrong():
  space = SPACES['uniform']
  basis = expansions.Basis(space, SETS['total'])
  design = sparse_grids.sparse_grid(basis)
  expansion = random_expansion(space, SETS['total'])
  outputs = expansion(design.nodes)
  with pytest.raises(ValueError, match="got 'sparse_grid'"):
    expansions.project(basis, design, outputs)
  psi = basis.evaluate(design.nodes)
  naive = psi.T @ (design.weights[:, None] * outputs)
  assert np.max(np.abs(naive - expansion.coefficients)) > 1


@pytest.mark.parametrize(
  'rows',
  [
    [[0, 0, 0], [2, 0, 0]],
    [[0, 0, 0], [1, 0, 0], [1, 1, 0]],
    [[0, 0, 0], [1, 1, 1]],
    [[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 1]],
  ],
)
def test_sets_that_are_not_downward_closed_are_refused(rows):
  basis = expansions.Basis(SPACES['mixed'], np.array(rows))
  with pytest.raises(ValueError, match='downward closed'):
    sparse_grids.sparse_grid(basis)
  with pytest.raises(ValueError, match='downward closed'):
    sparse_grids.project(basis, np.zeros((len(rows), 1)))


def test_degrees_beyond_the_nested_rule_and_bad_outputs_are_refused():
  space = SPACES['uniform']
  deep = expansions.Basis(space, multi_indices.tensor_product((100, 0, 0)))
  with pytest.raises(ValueError, match="degree 100 of factor 'uniform0'.*99"):
    sparse_grids.sparse_grid(deep)
  basis = expansions.Basis(space, SETS['tensor'])
  with pytest.raises(ValueError, match=r'\(20, K\).*\(19, 1\)'):
    sparse_grids.project(basis, np.zeros((19, 1)))
  with pytest.raises(ValueError, match='nan at node 0, output 0'):
    sparse_grids.project(basis, np.full((20, 1), np.nan))
