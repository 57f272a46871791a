"""Confidence intervals of Sobol indices that know what the expansion misses.

Let g be an expansion, in whatever way it was found, r = f - g what it misses
of the model f, and g_u, r_u their ANOVA components. Components of different
sets are orthogonal and have mean zero, hence E[g_u r_u] = E[g_u r], and

    V_u(f) = V_u(g) + 2 E[g_u r] + V_u(r),    0 <= V_u(r) <= Var(r),
    V(f)   = V(g) + 2 Σ_u E[g_u r] + Var(r).

V_u(g) is known from the coefficients. The two expectations are means over
nodes that the fit has not seen, and only V_u(r) stays open within its bounds:

    S_u(f) in [ V_u(g) + 2 E[g_u r],  V_u(g) + 2 E[g_u r] + Var(r) ] / V(f).

The cross term carries every error of the coefficients, aliasing of a
quadrature as well as noise of a regression; no residual is taken for
orthogonal to the basis. The first end is a lower and the second an upper
bound; the interval reaches from the lower quantile of the one to the upper
quantile of the other over bootstrap resamples of the nodes. A total index is
the sum over the sets that hold the factor and has the same bounds.

Nodes that the fit has not seen are held-out nodes, or the nodes of the fit
itself with leave-one-out residuals and the components of the leave-one-out
expansions, both in closed form, or both together.

Limits: the bootstrap takes nodes as independent, which is conservative for
Latin hypercubes and Sobol sequences, and cannot see what no node has hit. The
leave-one-out residuals of one fit depend on each other weakly.

A bootstrap of the coefficients alone was measured and left out: without the
cross term its intervals for small indices miss the truth nearly always.

References:
  Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
"""

from collections.abc import Iterator
import dataclasses

import jax
from jax.typing import ArrayLike
import numpy as np

from jaxsens.gpc import designs
from jaxsens.gpc import expansions
from jaxsens.gpc import regression
from jaxsens.gpc import sobol_indices

# Numbers in one block of products (64 MiB); outputs are taken block by block.
_BLOCK = 2**23


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Intervals:
  """Intervals of the Sobol indices of K outputs; NaN without variance.

  An interval holds the index of the expansion as well.

  Attributes:
    names: names of the D factors, static.
    subsets: the S sets of factors, as in `SobolIndices`, static.
    level: probability that an interval covers the index of the model, static.
    num_resamples: number of bootstrap resamples, static.
    first_order_lower: (D, K), first_order_upper: (D, K).
    total_lower: (D, K), total_upper: (D, K).
    subset_lower: (S, K), subset_upper: (S, K).
  """

  names: tuple[str, ...] = dataclasses.field(metadata={'static': True})
  subsets: tuple[sobol_indices.Subset, ...] = dataclasses.field(
    metadata={'static': True}
  )
  level: float = dataclasses.field(metadata={'static': True})
  num_resamples: int = dataclasses.field(metadata={'static': True})
  first_order_lower: np.ndarray
  first_order_upper: np.ndarray
  total_lower: np.ndarray
  total_upper: np.ndarray
  subset_lower: np.ndarray
  subset_upper: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class _Unseen:
  """Residuals (N, K) at nodes and what makes the components there.

  component_u[n, k] = Σ_{p in u} (psi[n, p] coefficients[p, k]
                                  - shift[n, p] residuals[n, k])
  """

  psi: np.ndarray
  shift: np.ndarray | None
  residuals: np.ndarray


def bootstrap(
  key: jax.Array,
  source: regression.Fit | expansions.Expansion,
  *,
  design: designs.Design | None = None,
  held_out: designs.Design | None = None,
  held_out_outputs: ArrayLike | None = None,
  num_resamples: int = 400,
  level: float = 0.95,
  noise: float = 1e-6,
  scale: ArrayLike | None = None,
) -> Intervals:
  """Intervals that cover the indices of the model, not of the expansion.

  Args:
    key: typed JAX key of the resamples.
    source: the expansion, or the fit that holds it.
    design: for a fit, its random design of equal weights; its leave-one-out
      residuals are used. None: held-out nodes only.
    held_out: random design of M nodes that were not fitted.
    held_out_outputs: (M, K) outputs of the model there.
    num_resamples: number of resamples.
    level: coverage, in (0, 1).
    noise: as in `sobol_indices`.
    scale: as in `sobol_indices`.

  Returns:
    The intervals, within [0, 1].

  Raises:
    ValueError: neither kind of unseen nodes, a quadrature design, shapes that
      do not fit, a level outside of (0, 1) or fewer than two resamples.
  """
  if not 0 < level < 1:
    raise ValueError(f'level: expected a number in (0, 1), got {level}')
  if num_resamples < 2:
    raise ValueError(f'num_resamples: expected 2 or more, got {num_resamples}')
  is_fit = isinstance(source, regression.Fit)
  expansion = source.expansion if is_fit else source
  parts = []
  if design is not None:
    parts.append(_leave_one_out(source, design))
  if held_out is not None:
    parts.append(_held_out(expansion, held_out, held_out_outputs))
  if not parts:
    raise ValueError(
      'intervals need held-out nodes, or the design of a regression fit: an '
      'expansion alone does not tell what it misses'
    )
  indices = sobol_indices.sobol_indices(expansion, noise=noise, scale=scale)
  generator = designs.random_generator(key)
  counts = [_counts(generator, num_resamples, len(p.psi)) for p in parts]
  total = sum(len(part.psi) for part in parts)
  counts = [count / total for count in counts]
  bounds = [
    _bounds(expansion, parts, counts, outputs, level)
    for outputs in _output_blocks(expansion, total)
  ]
  lower = np.concatenate([low for low, _ in bounds], axis=1)
  upper = np.concatenate([high for _, high in bounds], axis=1)
  return _as_intervals(indices, lower, upper, level, num_resamples)


def _leave_one_out(
  fit: regression.Fit | expansions.Expansion, design: designs.Design
) -> _Unseen:
  """Leave-one-out residuals and components of a fit at its own nodes.

  Without node n the coefficients are c - gram^-1 psi[n] e_loo[n].
  """
  if not isinstance(fit, regression.Fit):
    raise ValueError(
      'design: leave-one-out residuals need a regression fit, got an '
      'expansion; pass held-out nodes'
    )
  if np.ptp(design.weights) > 1e-12 / len(design.weights):
    raise ValueError(
      f'design: nodes of a {design.kind} design are no random sample; pass '
      'held-out nodes'
    )
  if len(design.nodes) != len(fit.loo_residuals):
    raise ValueError(
      f'design: the fit has {len(fit.loo_residuals)} nodes, the design '
      f'{len(design.nodes)}'
    )
  if not np.all(np.isfinite(fit.loo_residuals)):
    raise ValueError(
      'design: a node has leverage one and no leave-one-out residual; add '
      'nodes or pass held-out nodes'
    )
  psi = fit.expansion.basis.evaluate(design.nodes)
  shift = psi * np.linalg.solve(psi.T @ psi, psi.T).T
  if not np.allclose(shift.sum(axis=1), fit.leverages, rtol=1e-6, atol=1e-9):
    raise ValueError(
      'design: its nodes do not give the leverages of the fit: it is another '
      'design, or the fit was weighted; pass held-out nodes'
    )
  return _Unseen(psi, shift, fit.loo_residuals)


def _held_out(
  expansion: expansions.Expansion,
  held_out: designs.Design,
  outputs: ArrayLike | None,
) -> _Unseen:
  """Residuals and components at held-out nodes."""
  if outputs is None:
    raise ValueError('held_out_outputs: missing for the held-out design')
  if np.ptp(held_out.weights) > 1e-12 / len(held_out.weights):
    raise ValueError(
      f'held_out: nodes of a {held_out.kind} design are no random sample'
    )
  outputs = expansions.check_outputs(held_out, outputs)
  num_outputs = expansion.coefficients.shape[1]
  if outputs.shape[1] != num_outputs:
    raise ValueError(
      f'held_out_outputs: expected {num_outputs} columns, '
      f'got {outputs.shape[1]}'
    )
  psi = expansion.basis.evaluate(held_out.nodes)
  return _Unseen(psi, None, outputs - psi @ expansion.coefficients)


def _counts(
  generator: np.random.Generator, num_resamples: int, num_nodes: int
) -> np.ndarray:
  """(R, N) how often each node is drawn when N are drawn with replacement."""
  draws = generator.integers(num_nodes, size=(num_resamples, num_nodes))
  draws += num_nodes * np.arange(num_resamples)[:, None]
  counts = np.bincount(draws.ravel(), minlength=num_resamples * num_nodes)
  return counts.reshape(num_resamples, num_nodes).astype(np.float64)


def _output_blocks(
  expansion: expansions.Expansion, num_nodes: int
) -> Iterator[slice]:
  """Slices of the outputs whose products fit into a block."""
  subsets, _ = sobol_indices.term_subsets(expansion.basis)
  num_outputs = expansion.coefficients.shape[1]
  step = max(1, _BLOCK // (num_nodes * max(1, len(subsets))))
  for start in range(0, num_outputs, step):
    yield slice(start, min(start + step, num_outputs))


def _bounds(
  expansion: expansions.Expansion,
  parts: list[_Unseen],
  counts: list[np.ndarray],
  outputs: slice,
  level: float,
) -> tuple[np.ndarray, np.ndarray]:
  """Lower and upper ends (S + D, K') of all subset and total indices."""
  coefficients = np.asarray(expansion.coefficients)[:, outputs]
  subsets, members = sobol_indices.term_subsets(expansion.basis)
  residuals = [part.residuals[:, outputs] for part in parts]
  centre = np.mean(np.concatenate(residuals), axis=0)
  cross, missed = 0.0, 0.0
  for part, count, residual in zip(parts, counts, residuals, strict=True):
    products = _components(part, coefficients, members, residual)
    # E[g_u] = 0: a constant taken off the residual changes no expectation.
    products *= (residual - centre)[:, None]
    flat = count @ products.reshape(len(products), -1)
    cross = cross + flat.reshape(len(count), *products.shape[1:])
    missed = missed + count @ (residual - centre) ** 2
  known = members @ coefficients**2 + 2 * cross
  variance = np.sum(known, axis=1) + missed
  sums = np.vstack([
    np.eye(len(subsets)),
    sobol_indices.total_matrix(subsets, expansion.basis.space.dim),
  ])  # fmt: skip
  low = np.einsum('us,rsk->urk', sums, known)
  return _quantiles(low, low + missed, variance, level)


def _components(
  part: _Unseen,
  coefficients: np.ndarray,
  members: np.ndarray,
  residuals: np.ndarray,
) -> np.ndarray:
  """ANOVA components (N, S, K') of the expansion at the nodes."""
  components = np.empty((len(part.psi), len(members), residuals.shape[1]))
  for s, member in enumerate(members):
    terms = np.flatnonzero(member)
    components[:, s] = part.psi[:, terms] @ coefficients[terms]
    if part.shift is not None:
      partial_leverage = part.shift[:, terms].sum(axis=1)
      components[:, s] -= partial_leverage[:, None] * residuals
  return components


def _quantiles(
  low: np.ndarray, high: np.ndarray, variance: np.ndarray, level: float
) -> tuple[np.ndarray, np.ndarray]:
  """Outer quantiles over resamples of (U, R, K') bounds of V_u(f)."""
  safe = np.where(variance > 0, variance, 1.0)
  low = np.where(variance > 0, low / safe, 0.0)
  high = np.where(variance > 0, high / safe, 1.0)
  tail = (1 - level) / 2
  return (
    np.clip(np.quantile(low, tail, axis=1), 0, 1),
    np.clip(np.quantile(high, 1 - tail, axis=1), 0, 1),
  )


def _as_intervals(
  indices: sobol_indices.SobolIndices,
  lower: np.ndarray,
  upper: np.ndarray,
  level: float,
  num_resamples: int,
) -> Intervals:
  """Sorts the bounds into the result, each widened to the point estimate."""
  values = np.concatenate([indices.subset_values, indices.total])
  # minimum and maximum pass the NaN of outputs without variance on.
  lower, upper = np.minimum(lower, values), np.maximum(upper, values)
  num_subsets = len(indices.subsets)
  single = sobol_indices.first_order_matrix(
    indices.subsets, len(indices.names)
  )
  return Intervals(
    names=indices.names,
    subsets=indices.subsets,
    level=level,
    num_resamples=num_resamples,
    first_order_lower=single @ lower[:num_subsets],
    first_order_upper=single @ upper[:num_subsets],
    total_lower=lower[num_subsets:],
    total_upper=upper[num_subsets:],
    subset_lower=lower[:num_subsets],
    subset_upper=upper[:num_subsets],
  )
