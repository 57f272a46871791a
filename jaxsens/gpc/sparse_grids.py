"""Sparse grids: nested nodes, and their expansion by sums of projections.

A sparse grid is a downward closed set of multi-indices over the nested
sequences x_d of `nested_rules`: row i is a term of the basis and a node,

    nodes[n, d] = x_d[multi_indices[n, d]],

so that a grid has as many nodes as terms. The level of a factor is its degree:
a tensor rule of level i has i_d + 1 nodes in factor d and resolves degree i_d.
Its projection is interpolation, and that of the grid is the Smolyak sum

    P f = Σ_i Δ_i f,    Δ_i = ⊗_d (P_d[i_d] - P_d[i_d - 1]),

which reproduces every polynomial of the set. With nested rules a difference
is one number times a product of Newton polynomials,
Δ_i f = surpluses[i] Π_d N_d[i_d], and all of them come from one sweep over
the lines of the grid in each factor. The sum of weights times psi times
outputs over the nodes, which mistakes high degrees for low ones, is not
offered, and `expansions.project` refuses the design.

References:
  Conrad and Marzouk, Adaptive Smolyak pseudospectral approximations, 2013,
  sections 3 and 4 (sums of tensor projections; internal aliasing).
"""

from collections.abc import Iterator
from collections.abc import Sequence

from jax.typing import ArrayLike
import numpy as np

from jaxsens import factors
from jaxsens.gpc import designs
from jaxsens.gpc import expansions
from jaxsens.gpc import nested_rules


def sparse_grid(basis: expansions.Basis) -> designs.Design:
  """Nodes of the sparse grid of a downward closed basis.

  Args:
    basis: the basis of N terms.

  Returns:
    Design of N nodes in the order of the terms, kind 'sparse_grid'. Its
    weights integrate every polynomial of the basis and may be negative.

  Raises:
    ValueError: a set that is not downward closed, or a degree beyond the
      nested rule of its factor.
  """
  rules = nested_rules_of(basis.space)
  weights = np.zeros((basis.num_terms, 1))
  weights[0] = 1.0
  for name in ('to_coefficients', 'to_surpluses'):
    transposed = [getattr(rule, name).T for rule in rules]
    weights = _sweep(basis, weights, transposed)
  return designs.Design(grid_nodes(basis), weights[:, 0], 'sparse_grid')


def grid_nodes(basis: expansions.Basis) -> np.ndarray:
  """Nodes (N, D) of `sparse_grid` alone, for a set known to be closed."""
  rules = nested_rules_of(basis.space)
  columns = zip(rules, basis.multi_indices.T, strict=True)
  return np.stack([rule.nodes[i] for rule, i in columns], axis=1)


def surpluses(basis: expansions.Basis, outputs: ArrayLike) -> np.ndarray:
  """Hierarchical surpluses: what each node adds to the coarser grids.

      surpluses[n, k] = outputs[n, k] - (Σ_{j below i} Δ_j f[k])(nodes[n]),
      i = multi_indices[n], j <= i in every factor and j != i

  Args:
    basis: downward closed basis of N terms.
    outputs: (N, K) finite outputs at the nodes of `sparse_grid(basis)`.

  Returns:
    (N, K) float64.

  Raises:
    ValueError: a set that is not downward closed, a degree beyond the nested
      rule of its factor.
  """
  outputs = np.asarray(outputs, np.float64)
  rules = nested_rules_of(basis.space)
  return _sweep(basis, outputs, [rule.to_surpluses for rule in rules])


def difference_norms(basis: expansions.Basis) -> np.ndarray:
  """Norms of the products of Newton polynomials.

  Args:
    basis: downward closed basis of N terms.

  Returns:
    (N,) float64; times |surpluses| they are the norms E[(Δ_i f)²]^(1/2), the
    root of the sum of squared changes of the coefficients by node n.
  """
  norms = [rule.norms for rule in nested_rules_of(basis.space)]
  columns = zip(norms, basis.multi_indices.T, strict=True)
  return np.prod([norms_d[i] for norms_d, i in columns], axis=0)


def project(
  basis: expansions.Basis, outputs: ArrayLike
) -> expansions.Expansion:
  """Expands by the Smolyak sum of tensor projections.

  Args:
    basis: downward closed basis of N terms.
    outputs: (N, K) outputs of the model at the nodes of `sparse_grid(basis)`.

  Returns:
    The expansion; it takes the outputs as its values at the nodes, and is the
    model itself when that is a polynomial of the basis.

  Raises:
    ValueError: a set that is not downward closed, a degree beyond the nested
      rule of its factor, or outputs of another shape or not finite.
  """
  outputs = expansions.check_outputs(sparse_grid(basis), outputs)
  return sum_of_differences(basis, surpluses(basis, outputs))


def sum_of_differences(
  basis: expansions.Basis, surpluses: np.ndarray
) -> expansions.Expansion:
  """The expansion Σ_i Δ_i f of hierarchical surpluses (N, K)."""
  matrices = [r.to_coefficients for r in nested_rules_of(basis.space)]
  return expansions.Expansion(basis, _sweep(basis, surpluses, matrices))


def nested_rules_of(
  space: factors.FactorSpace,
) -> list[nested_rules.NestedRule]:
  """Longest nested rule of each factor; shorter ones are its leading part."""
  return [
    nested_rules.leja_rule(factor, nested_rules.max_num_nodes(factor))
    for factor in space.factors
  ]


def _sweep(
  basis: expansions.Basis, values: np.ndarray, matrices: Sequence[np.ndarray]
) -> np.ndarray:
  """Applies matrices[d] along the lines of the grid, factor after factor.

  A tensor product of triangles of one kind, or of their transposes, never
  leaves a downward closed set: a line of length n sees the leading block.
  """
  for d, matrix in enumerate(matrices):
    if basis.degrees[d] >= len(matrix):
      raise ValueError(
        f'degree {basis.degrees[d]} of factor {basis.space.names[d]!r}: its '
        f'nested rule serves at most {len(matrix) - 1}'
      )
    swept = np.empty_like(values)
    for lines in _lines(basis.multi_indices, d):
      n = lines.shape[1]
      swept[lines] = np.einsum(
        'ij,ljk->lik', matrix[:n, :n], values[lines], optimize=True
      )
    values = swept
  return values


def _lines(indices: np.ndarray, d: int) -> Iterator[np.ndarray]:
  """Rows (L, n) of all lines in factor d, for each length n of a line."""
  others = np.delete(indices, d, axis=1)
  order = np.lexsort([indices[:, d], *others.T])
  starts = np.flatnonzero(indices[order, d] == 0)
  lengths = np.diff([*starts, len(order)])
  expected = np.concatenate([np.arange(n) for n in lengths])
  same_line = np.repeat(order[starts], lengths)
  if not (
    len(expected) == len(order)
    and np.array_equal(indices[order, d], expected)
    and np.array_equal(others[order], others[same_line])
  ):
    raise ValueError(
      'multi_indices: expected a downward closed set: with each index also '
      'those with a smaller degree in any factor'
    )
  for n in np.unique(lengths):
    yield order[starts[lengths == n][:, None] + np.arange(n)]
