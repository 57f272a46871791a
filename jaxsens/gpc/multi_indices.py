"""Sets of multi-indices: which products of polynomials a basis holds.

A set is an int array (P, D): row p holds the degree of each factor in term p.
Row 0 is the constant. Rows are sorted by total degree, then by the degree of
the first factor, then of the second, highest first. All sets are downward
closed, hold no row twice, and are built as whole arrays, factor by factor.
"""

from collections.abc import Sequence

import numpy as np


def total_degree(
  dim: int, degree: int, *, max_interaction: int | None = None
) -> np.ndarray:
  """All multi-indices with Σ_d alpha_d <= degree.

  Args:
    dim: number of factors D.
    degree: largest total degree.
    max_interaction: largest number of factors in one term; None: no limit.

  Returns:
    (P, D) int64, P = binomial(dim + degree, dim) without a limit.

  Raises:
    ValueError: no factor, negative degree or limit.
  """
  costs = [np.arange(_natural(degree, 'degree') + 1.0)] * _positive(dim)
  return _lower_set(costs, float(degree), max_interaction)


def tensor_product(
  degrees: Sequence[int], *, max_interaction: int | None = None
) -> np.ndarray:
  """All multi-indices with alpha_d <= degrees[d].

  Args:
    degrees: largest degree of each factor.
    max_interaction: largest number of factors in one term; None: no limit.

  Returns:
    (P, D) int64, P = Π_d (degrees[d] + 1) without a limit.

  Raises:
    ValueError: no factor, negative degree or limit.
  """
  _positive(len(degrees))
  costs = [np.zeros(_natural(n, 'degrees') + 1) for n in degrees]
  return _lower_set(costs, 0.0, max_interaction)


def hyperbolic(
  dim: int, degree: int, q: float, *, max_interaction: int | None = None
) -> np.ndarray:
  """All multi-indices with (Σ_d alpha_d^q)^(1/q) <= degree.

  q = 1 is the total degree; smaller q drops interactions first.

  Args:
    dim: number of factors D.
    degree: largest degree of a single factor.
    q: exponent in (0, 1].
    max_interaction: largest number of factors in one term; None: no limit.

  Returns:
    (P, D) int64.

  Raises:
    ValueError: no factor, negative degree or limit, q outside of (0, 1].

  References:
    Blatman and Sudret, Adaptive sparse polynomial chaos expansion based on
    least angle regression, 2011, eq. 20.
  """
  if not 0 < q <= 1:
    raise ValueError(f'q: expected a number in (0, 1], got {q}')
  cost = np.arange(_natural(degree, 'degree') + 1.0) ** q
  return _lower_set([cost] * _positive(dim), cost[-1], max_interaction)


def _lower_set(
  costs: Sequence[np.ndarray], budget: float, max_interaction: int | None
) -> np.ndarray:
  """Rows whose costs sum to the budget at most, for increasing costs."""
  limit = len(costs) if max_interaction is None else max_interaction
  _natural(limit, 'max_interaction')
  rows = np.zeros((1, 0), np.int64)
  left = np.full(1, budget * (1 + 1e-12))
  for cost in costs:
    counts = np.searchsorted(cost, left, side='right')
    counts[np.count_nonzero(rows, axis=1) >= limit] = 1
    parents = np.repeat(np.arange(len(rows)), counts)
    starts = np.cumsum(counts) - counts
    degrees = np.arange(len(parents)) - starts[parents]
    rows = np.column_stack([rows[parents], degrees])
    left = left[parents] - cost[degrees]
  return rows[np.lexsort([*(-rows.T[::-1]), rows.sum(axis=1)])]


def _natural(number: int, what: str) -> int:
  if int(number) != number or number < 0:
    raise ValueError(f'{what}: expected an integer >= 0, got {number}')
  return int(number)


def _positive(dim: int) -> int:
  if int(dim) != dim or dim < 1:
    raise ValueError(f'dim: expected at least one factor, got {dim}')
  return int(dim)
