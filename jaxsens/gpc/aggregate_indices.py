"""Indices of an expansion beyond single factors and single outputs.

All follow from the variances V_u of the functional ANOVA decomposition, with
V = Σ_u V_u over the non-empty sets u of factors:

    shapley[d] = Σ_{u ∋ d} V_u / (|u| V)
    closed(group) = Σ_{u ⊆ group} V_u / V
    total(group) = Σ_{u ∩ group ≠ ∅} V_u / V
    generalised S_u = Σ_k w[k] V_u[k] / Σ_k w[k] V[k]

and from the basis, which stays orthonormal when factors are fixed.

References:
  Owen, Sobol' indices and Shapley value, 2014.
  Gamboa, Janon, Klein, Lagnoux, Sensitivity analysis for multidimensional and
  functional outputs, 2014.
  Lamboni, Monod, Makowski, Multivariate sensitivity analysis to measure global
  contribution of input factors in dynamic models, 2011.
"""

from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses

import jax
from jax.typing import ArrayLike
import numpy as np

from jaxsens import factors
from jaxsens.gpc import expansions
from jaxsens.gpc import sobol_indices


def _static():
  return dataclasses.field(metadata={'static': True})


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class GroupedIndices:
  """Indices of disjoint groups of factors, for K outputs.

  All indices of an output without variance are NaN, and `reasons` says why.

  Attributes:
    names: names of the G groups, static.
    members: names of the factors of each group, static.
    reasons: for each output None, or why it has no indices, static.
    first_order: (G, K) Σ_{d in group} S_d: what the members explain one by one.
    closed: (G, K) first order plus the interactions inside of the group; the
      first-order index of the group taken as one factor.
    total: (G, K) closed plus the interactions with all other factors.
    shapley: (G, K) sum of the Shapley effects of the members; over groups
      that hold all factors these sum to one.
    variance: (K,) variance of the expansion.
  """

  names: tuple[str, ...] = _static()
  members: tuple[tuple[str, ...], ...] = _static()
  reasons: tuple[str | None, ...] = _static()
  first_order: np.ndarray
  closed: np.ndarray
  total: np.ndarray
  shapley: np.ndarray
  variance: np.ndarray


def shapley(
  expansion: expansions.Expansion,
  *,
  noise: float = 1e-6,
  scale: ArrayLike | None = None,
) -> np.ndarray:
  """Shapley effects: each V_u shared equally by the factors in u.

      shapley[d, k] = Σ_{u ∋ d} V_u[k] / (|u| V[k])

  Args:
    expansion: the expansion of K outputs.
    noise: as in `sobol_indices.sobol_indices`.
    scale: as in `sobol_indices.sobol_indices`.

  Returns:
    (D, K), between the first-order and the total indices, of sum one over
    the factors; NaN for an output without variance.
  """
  indices = sobol_indices.sobol_indices(expansion, noise=noise, scale=scale)
  return _shapley_matrix(indices) @ indices.subset_values + _empty(indices)


def grouped(
  expansion: expansions.Expansion,
  groups: Mapping[str, Iterable[str]],
  *,
  noise: float = 1e-6,
  scale: ArrayLike | None = None,
) -> GroupedIndices:
  """Indices of groups of factors.

  Args:
    expansion: the expansion of K outputs.
    groups: name of a group -> names of its factors. Factors may be left out.
    noise: as in `sobol_indices.sobol_indices`.
    scale: as in `sobol_indices.sobol_indices`.

  Returns:
    The indices.

  Raises:
    ValueError: no group, an empty group, an unknown factor, or a factor in
      two groups.
  """
  space = expansion.basis.space
  members = {name: tuple(inside) for name, inside in groups.items()}
  positions = _positions(space, members)
  indices = sobol_indices.sobol_indices(expansion, noise=noise, scale=scale)
  subsets = indices.subsets
  shape = (len(members), len(subsets))
  closed = [[p.issuperset(u) for u in subsets] for p in positions]
  total = [[not p.isdisjoint(u) for u in subsets] for p in positions]
  closed, total = (
    np.array(rows, np.float64).reshape(shape) for rows in (closed, total)
  )
  single = np.array([len(u) == 1 for u in subsets], np.float64)
  pick = np.array([[d in p for d in range(space.dim)] for p in positions])
  shares = np.stack([
    closed * single, closed, total, pick @ _shapley_matrix(indices)
  ])  # fmt: skip
  values = shares @ indices.subset_values + _empty(indices)
  return GroupedIndices(
    tuple(members), tuple(members.values()), indices.reasons, *values,
    indices.variance,
  )  # fmt: skip


def generalised(
  expansion: expansions.Expansion,
  *,
  output_weights: ArrayLike | None = None,
  max_order: int | None = None,
  noise: float = 1e-6,
  scale: ArrayLike | None = None,
) -> sobol_indices.SobolIndices:
  """Sobol indices of the vector of all outputs: shares of a trace.

      S_u = Σ_k w[k] V_u[k] / Σ_k w[k] V[k] = tr(W Cov_u) / tr(W Cov)

  with W = diag(w). They average the indices of the outputs, each with the
  weight of its variance; without weights no rotation of the outputs changes
  them. Outputs of different units need weights, for instance 1 / V[k].

  They are the indices of one output with the coefficients
  sqrt(Σ_k w[k] coefficients[p, k]²).

  Args:
    expansion: the expansion of K outputs.
    output_weights: (K,) weights w >= 0, or (G, K) for G vectors of outputs,
      for instance one row per image; None: one vector, all ones.
    max_order: as in `sobol_indices.sobol_indices`.
    noise: as in `sobol_indices.sobol_indices`.
    scale: (K,) or () magnitude of the outputs, there.

  Returns:
    Indices of 1 or G outputs. Their `variance` is Σ_k w[k] V[k], their `mean`
    the root of Σ_k w[k] mean[k]², a magnitude.

  Raises:
    ValueError: weights of another shape, negative, not finite, or all zero.
  """
  squares = np.asarray(expansion.coefficients, np.float64) ** 2
  num_outputs = squares.shape[1]
  weights = _output_weights(output_weights, num_outputs)
  if scale is not None:
    scales = np.broadcast_to(np.asarray(scale, np.float64), num_outputs)
    scale = np.sqrt(weights @ scales**2)
  vector = expansions.Expansion(expansion.basis, np.sqrt(squares @ weights.T))
  return sobol_indices.sobol_indices(
    vector, max_order=max_order, noise=noise, scale=scale
  )


def conditional(
  expansion: expansions.Expansion,
  fixed: Mapping[str, ArrayLike],
  *,
  coordinates: str = 'values',
) -> expansions.Expansion:
  """Expansion in the remaining factors when some are held at given values.

      coefficients'[q, k] = Σ_{p: rest(p) = q} coefficients[p, k]
                            Π_{d fixed} psi_d[multi_indices[p, d]](x_d)

  Its mean is the conditional mean, its variance and its Sobol indices are
  those of the output given the fixed factors. For independent factors only.

  Args:
    expansion: the expansion of K outputs.
    fixed: name -> value (), or (M,) of the same M for all names to hold them
      at M settings at once.
    coordinates: 'values' when the values are physical, 'germ' when they are
      germ coordinates.

  Returns:
    The expansion in the other factors, in their order: of K outputs for
    scalars, else of M K outputs, setting by setting.

  Raises:
    ValueError: unknown name, no factor left, values of different shapes, not
      finite, or outside of the range of their factor, where a polynomial
      means nothing.
  """
  basis, space = expansion.basis, expansion.basis.space
  positions = [space.index(name) for name in fixed]
  rest = [d for d in range(space.dim) if d not in positions]
  if not rest:
    raise ValueError(
      f'fixed: all factors {list(space.names)} are fixed, none is left; '
      'evaluate the expansion instead'
    )
  germ = _fixed_germ(space, fixed, coordinates)
  # At the fixed germ, with any other coordinate: terms of the rest are cut off.
  indices = basis.multi_indices.copy()
  indices[:, rest] = 0
  kept, place = np.unique(indices, axis=0, return_inverse=True)
  points = np.zeros((germ.shape[1], space.dim))
  points[:, positions] = germ.T
  psi = expansions.Basis(space, kept).evaluate(points)[:, place.ravel()]
  rows, row = np.unique(
    basis.multi_indices[:, rest], axis=0, return_inverse=True
  )
  order = np.lexsort([*(-rows.T[::-1]), rows.sum(axis=1)])
  gather = np.zeros((len(rows), basis.num_terms))
  gather[np.argsort(order)[row.ravel()], np.arange(basis.num_terms)] = 1.0
  coefficients = np.asarray(expansion.coefficients, np.float64)
  settled = psi.T[:, :, None] * coefficients[:, None]
  remaining = factors.FactorSpace(tuple(space.factors[d] for d in rest))
  return expansions.Expansion(
    expansions.Basis(remaining, rows[order]),
    gather @ settled.reshape(basis.num_terms, -1),
  )


def _shapley_matrix(indices: sobol_indices.SobolIndices) -> np.ndarray:
  """(D, S) share of each factor in each set."""
  sizes = np.array([len(subset) for subset in indices.subsets], np.float64)
  members = sobol_indices.total_matrix(indices.subsets, len(indices.names))
  return members / sizes


def _empty(indices: sobol_indices.SobolIndices) -> np.ndarray:
  """(K,) zeros, NaN for outputs without variance."""
  return np.where([reason is None for reason in indices.reasons], 0.0, np.nan)


def _positions(
  space: factors.FactorSpace, members: Mapping[str, tuple[str, ...]]
) -> list[set[int]]:
  """Positions of the factors of each group, after a check of the names."""
  if not members:
    raise ValueError('groups: expected at least one group, got none')
  owner: dict[str, str] = {}
  for group, names in members.items():
    if not names:
      raise ValueError(f'groups: {group!r} holds no factor')
    for name in names:
      space.index(name)
      if name in owner:
        raise ValueError(
          f'groups: factor {name!r} is in {owner[name]!r} and in {group!r}; '
          'groups must not overlap'
        )
      owner[name] = group
  return [{space.index(name) for name in names} for names in members.values()]


def _output_weights(
  weights: ArrayLike | None, num_outputs: int
) -> np.ndarray:
  """(G, K) weights after a check."""
  if weights is None:
    return np.ones((1, num_outputs))
  array = np.asarray(weights, np.float64)
  if array.ndim not in (1, 2) or array.shape[-1] != num_outputs:
    raise ValueError(
      f'output_weights: expected shape ({num_outputs},) or '
      f'(G, {num_outputs}), got {array.shape}'
    )
  array = np.atleast_2d(array)
  if not np.all((array >= 0) & np.isfinite(array)):
    raise ValueError('output_weights: expected finite numbers >= 0')
  if not np.all(np.any(array > 0, axis=1)):
    raise ValueError('output_weights: all weights of a vector are zero')
  return array


def _fixed_germ(
  space: factors.FactorSpace,
  fixed: Mapping[str, ArrayLike],
  coordinates: str,
) -> np.ndarray:
  """(F, M) germ coordinates of the fixed factors."""
  if coordinates not in ('values', 'germ'):
    raise ValueError(
      f"coordinates: expected 'values' or 'germ', got {coordinates!r}"
    )
  given = {name: np.asarray(x, np.float64) for name, x in fixed.items()}
  shapes = {name: x.shape for name, x in given.items()}
  if len(set(shapes.values())) > 1 or any(len(s) > 1 for s in shapes.values()):
    raise ValueError(
      f'fixed: expected scalars or arrays of one shape (M,), got {shapes}'
    )
  germ = [
    _germ_within_range(space.factors[space.index(name)], x, coordinates)
    for name, x in given.items()
  ]
  return np.array(germ).reshape(len(germ), -1 if germ else 1)


def _germ_within_range(
  factor: factors.Factor, x: np.ndarray, coordinates: str
) -> np.ndarray:
  """Germ of values of a factor, refused outside of its range."""
  values, germ = x, x
  with np.errstate(divide='ignore', invalid='ignore'):
    if coordinates == 'values':
      germ = factor.to_germ(values)
    else:
      values = factor.to_values(germ)
  lower, upper = factor.lower, factor.upper
  slack = 1e-9 * (upper - lower)
  inside = (values >= lower - slack) & (values <= upper + slack)
  inside &= np.isfinite(germ)
  if not np.all(inside):
    raise ValueError(
      f'fixed: {factor.name!r} must lie within [{lower}, {upper}] '
      f'{factor.unit}, got {np.ravel(values[~inside])[0]}'
    )
  return germ
