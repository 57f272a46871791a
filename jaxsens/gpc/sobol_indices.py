"""Sobol indices of a polynomial chaos expansion, from its coefficients.

With the terms grouped by the set u of factors that they hold,

    V_u = Σ_{p: support(p) = u} coefficients[p]²,    S_u = V_u / V,

the subset indices S_u of all non-empty u sum to one over the variance V of
the expansion. Derived from them:

    first_order[d] = S_{d}          total[d] = Σ_{u ∋ d} S_u
    closed(u) = Σ_{v ⊆ u} S_v       interactions[d, e] = S_{d, e}

They describe the expansion. How far they describe the model is said by
`diagnostics` and `intervals`.

References:
  Sobol', Sensitivity estimates for nonlinear mathematical models, 1993.
  Sudret, Global sensitivity analysis using polynomial chaos expansions, 2008,
  eqs. 36-43.
"""

from collections.abc import Iterable
import dataclasses

import jax
from jax.typing import ArrayLike
import numpy as np

from jaxsens.gpc import expansions

Subset = tuple[int, ...]


def _static():
  return dataclasses.field(metadata={'static': True})


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class SobolIndices:
  """Sobol indices of K outputs in D factors.

  All indices of an output without variance are NaN, and `reasons` says why.

  Attributes:
    names: names of the factors, static.
    subsets: S sets of factor positions, by size, then by position, static.
    max_order: largest size of a set in `subsets`, static.
    reasons: for each output None, or why it has no indices, static.
    subset_values: (S, K) S_u.
    first_order: (D, K).
    total: (D, K).
    interactions: (D, D, K) symmetric; diagonal: first order.
    mean: (K,) mean of the expansion.
    variance: (K,) variance of the expansion.
    normaliser: (K,) variance that the indices are shares of.
  """

  names: tuple[str, ...] = _static()
  subsets: tuple[Subset, ...] = _static()
  max_order: int = _static()
  reasons: tuple[str | None, ...] = _static()
  subset_values: np.ndarray
  first_order: np.ndarray
  total: np.ndarray
  interactions: np.ndarray
  mean: np.ndarray
  variance: np.ndarray
  normaliser: np.ndarray

  @property
  def subset_names(self) -> tuple[tuple[str, ...], ...]:
    """Names of the factors of each subset."""
    return tuple(tuple(self.names[d] for d in u) for u in self.subsets)

  def closed(self, names: Iterable[str]) -> np.ndarray:
    """Closed index of a set of factors: all that they explain together.

        closed(u) = Σ_{v ⊆ u} S_v = Var(E[y | factors in u]) / V

    Args:
      names: names of the factors in the set.

    Returns:
      (K,) closed indices.

    Raises:
      ValueError: unknown name, or a set larger than `max_order`, whose
        interactions are not kept.
    """
    names = set(names)
    unknown = sorted(names - set(self.names))
    if unknown:
      raise ValueError(f'unknown factors {unknown}; known: {list(self.names)}')
    if len(names) > self.max_order:
      raise ValueError(
        f'closed index of {len(names)} factors needs subsets of that size, '
        f'max_order is {self.max_order}'
      )
    inside = [names.issuperset(subset) for subset in self.subset_names]
    empty = np.where([reason is None for reason in self.reasons], 0.0, np.nan)
    return empty + np.sum(self.subset_values[np.array(inside, bool)], axis=0)


def sobol_indices(
  expansion: expansions.Expansion,
  *,
  max_order: int | None = None,
  normaliser: ArrayLike | None = None,
  noise: float = 1e-6,
  scale: ArrayLike | None = None,
) -> SobolIndices:
  """Sobol indices of an expansion.

  Args:
    expansion: the expansion of K outputs.
    max_order: largest size of the sets in `subsets`; None: all sets of the
      basis. Total indices and interactions always count all terms.
    normaliser: (K,) variance that the indices are shares of; None: the
      variance of the expansion, so that the S_u sum to one.
    noise: rounding noise of the outputs relative to `scale`. The default is
      that of float32 arithmetic. An output whose standard deviation does not
      exceed noise * scale has no indices.
    scale: (K,) or () magnitude of the outputs; None: the root mean square of
      the expansion. Outputs that are differences of large numbers (margins)
      need the magnitude of those numbers.

  Returns:
    The indices.

  Raises:
    ValueError: a max_order below one.
  """
  if max_order is not None and max_order < 1:
    raise ValueError(f'max_order: expected at least 1, got {max_order}')
  names = expansion.basis.space.names
  coefficients = np.asarray(expansion.coefficients, np.float64)
  subsets, variances = partial_variances(expansion)
  mean, variance = coefficients[0], np.sum(coefficients[1:] ** 2, axis=0)
  if normaliser is None:
    normaliser = variance
  normaliser = np.broadcast_to(
    np.asarray(normaliser, np.float64), variance.shape
  )
  reasons = reasons_without_indices(mean, variance, noise, scale)
  valid = np.array([reason is None for reason in reasons])
  shares = variances / np.where(valid & (normaliser > 0), normaliser, np.nan)
  # A basis without larger sets has no more to keep: nothing is cut off.
  largest = max(map(len, subsets), default=0)
  order = len(names) if max_order is None else max_order
  order = len(names) if order >= largest else order
  num_kept = sum(len(subset) <= order for subset in subsets)
  empty = np.where(valid, 0.0, np.nan)
  return SobolIndices(
    names=names,
    subsets=subsets[:num_kept],
    max_order=order,
    reasons=reasons,
    subset_values=shares[:num_kept],
    first_order=first_order_matrix(subsets, len(names)) @ shares + empty,
    total=total_matrix(subsets, len(names)) @ shares + empty,
    interactions=_interactions(subsets, len(names), shares) + empty,
    mean=mean,
    variance=variance,
    normaliser=normaliser,
  )  # fmt: skip


def partial_variances(
  expansion: expansions.Expansion,
) -> tuple[tuple[Subset, ...], np.ndarray]:
  """Variance of each component of the functional ANOVA decomposition.

  Args:
    expansion: the expansion of K outputs.

  Returns:
    The S sets of factors of the basis without the empty one, by size and then
    by position, and the variances V_u (S, K).
  """
  subsets, members = term_subsets(expansion.basis)
  squares = np.asarray(expansion.coefficients, np.float64) ** 2
  return subsets, members @ squares


def term_subsets(
  basis: expansions.Basis,
) -> tuple[tuple[Subset, ...], np.ndarray]:
  """Sets of factors of a basis and which term belongs to which.

  Args:
    basis: the basis of P terms.

  Returns:
    The S non-empty sets and a (S, P) float64 matrix of zeros and ones.
  """
  support = basis.multi_indices[1:] > 0
  rows, inverse = np.unique(support, axis=0, return_inverse=True)
  found = [tuple(np.flatnonzero(row).tolist()) for row in rows]
  ranks = sorted(range(len(found)), key=lambda s: (len(found[s]), found[s]))
  members = np.zeros((len(found), basis.num_terms))
  place = np.argsort(np.array(ranks, int))
  members[place[inverse.ravel()], np.arange(1, basis.num_terms)] = 1.0
  return tuple(found[s] for s in ranks), members


def first_order_matrix(subsets: tuple[Subset, ...], dim: int) -> np.ndarray:
  """(D, S) zeros and ones: which set is the single factor d."""
  return np.array(
    [[float(subset == (d,)) for subset in subsets] for d in range(dim)]
  ).reshape(dim, len(subsets))


def total_matrix(subsets: tuple[Subset, ...], dim: int) -> np.ndarray:
  """(D, S) zeros and ones: which set holds factor d."""
  return np.array(
    [[float(d in subset) for subset in subsets] for d in range(dim)]
  ).reshape(dim, len(subsets))


def _interactions(
  subsets: tuple[Subset, ...], dim: int, shares: np.ndarray
) -> np.ndarray:
  """(D, D, K) indices of pairs; the diagonal holds single factors."""
  matrix = np.zeros((dim, dim, shares.shape[1]))
  for subset, share in zip(subsets, shares, strict=True):
    if len(subset) <= 2:
      matrix[subset[0], subset[-1]] = matrix[subset[-1], subset[0]] = share
  return matrix


def reasons_without_indices(
  mean: np.ndarray,
  variance: np.ndarray,
  noise: float,
  scale: ArrayLike | None,
) -> tuple[str | None, ...]:
  """Says why an output has no indices; None where it has.

  Args:
    mean: (K,) of the outputs.
    variance: (K,) of the outputs.
    noise: as in `sobol_indices`.
    scale: as in `sobol_indices`.
  """
  if scale is None:
    scale = np.sqrt(mean**2 + variance)
  scales = np.broadcast_to(np.asarray(scale, np.float64), variance.shape)
  reasons = []
  for v, s in zip(variance, scales, strict=True):
    if not np.isfinite(v):
      reasons.append('the output is not finite')
    elif np.sqrt(v) <= noise * s:
      reasons.append(
        f'the output does not vary: its standard deviation {np.sqrt(v):.1e} '
        f'is within the rounding noise {noise * s:.1e}'
      )
    else:
      reasons.append(None)
  return tuple(reasons)
