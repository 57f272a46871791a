"""Confidence intervals of Sobol indices that know what the expansion misses.

Let g be an expansion, in whatever way it was found, r = f - g what it misses
of the model f, and g_u, r_u their ANOVA components. Components of different
sets are orthogonal and have mean zero, hence E[g_u r_u] = E[g_u r], and

    V_u(f) = V_u(g) + 2 E[g_u r] + V_u(r),    Σ_u V_u(r) = Var(r),
    V(f)   = V(g) + 2 Σ_u E[g_u r] + Var(r).

V_u(g) is known from the coefficients; the rest is estimated at nodes that the
expansion has not seen. E[g_u r] and Var(r) are means over them. How Var(r) is
shared out among the sets is measured on polynomials psi_p: those just outside
of the basis, and those of the basis itself unless they were fitted to the same
nodes,

    V_u(r) >= Σ_{p in u} E[psi_p r]²,    without bias from Σ_{n != m} r_n r_m
                                         psi_p(x_n) psi_p(x_m) / (N (N - 1)),

and what they leave of Var(r) goes to the sets at random, each between nothing
and twice its measured proportion. Resamples are those of a Bayesian bootstrap
of the nodes, with the noise of the measured shares and the random remainder;
an interval holds the middle of what they give. A total index is a sum over
sets, those outside of the basis among them.

A least-squares fit says more than its unseen residuals do. With the Gram
matrix, the leverages h[n] and the residuals e[n] of the fit, its coefficients
have the errors Σ_n w[n] influence[n], influence[n] = N gram^-1 psi[n] e[n],
over weights w of the nodes, so that

    V_u(f) = Σ_{p in u} (coefficients[p]² - variance of its error) + V_u(r'),

with r' what the best coefficients leave of f. e² / (1 - h) estimates squares
without bias; leave-one-out residuals, e / (1 - h), are those of a fit that
lacks the node, and exaggerate at the edges of the range.

Limits: the bootstrap takes nodes as independent, which is conservative for
Latin hypercubes and Sobol sequences, and cannot see what no node has hit.

Measured and left out: a bootstrap of the coefficients alone, which misses the
truth of small indices nearly always, and 0 <= V_u(r) <= Var(r) as all that is
known of V_u(r), which is two to three times as wide.

References:
  Rubin, The Bayesian bootstrap, 1981.
  MacKinnon and White, Some heteroskedasticity-consistent covariance matrix
  estimators with improved finite sample properties, 1985 (HC2, HC3).
"""

from collections.abc import Iterator
import dataclasses

import jax
from jax.typing import ArrayLike
import numpy as np

from jaxsens.gpc import designs
from jaxsens.gpc import expansions
from jaxsens.gpc import regression
from jaxsens.gpc import residuals as residuals_lib
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


def bootstrap(
  key: jax.Array,
  source: regression.Fit | expansions.Expansion,
  *,
  design: designs.Design | None = None,
  held_out: designs.Design | None = None,
  held_out_outputs: ArrayLike | None = None,
  num_resamples: int = 1000,
  level: float = 0.95,
  noise: float = 1e-6,
  scale: ArrayLike | None = None,
) -> Intervals:
  """Intervals that cover the indices of the model, not of the expansion.

  Args:
    key: typed JAX key of the resamples.
    source: the expansion, or the fit that holds it.
    design: for a fit, its random design of equal weights; its residuals are
      used. None: held-out nodes only.
    held_out: random design of M nodes that were not fitted.
    held_out_outputs: (M, K) outputs of the model there.
    num_resamples: number of resamples.
    level: coverage, in (0, 1).
    noise: as in `sobol_indices`.
    scale: as in `sobol_indices`.

  Returns:
    The intervals, within [0, 1].

  Raises:
    ValueError: neither kind of nodes, a quadrature design, shapes that do not
      fit, a level outside of (0, 1) or fewer than two resamples.
  """
  is_fit = isinstance(source, regression.Fit)
  expansion = source.expansion if is_fit else source
  parts = []
  if design is not None:
    parts.append(residuals_lib.of_fit(source, design))
  if held_out is not None:
    parts.append(
      residuals_lib.of_held_out(expansion, held_out, held_out_outputs)
    )
  if not parts:
    raise ValueError(
      'intervals need held-out nodes, or the design of a regression fit: an '
      'expansion alone does not tell what it misses'
    )
  indices = sobol_indices.sobol_indices(expansion, noise=noise, scale=scale)
  return _resample(key, expansion, indices, parts, num_resamples, level)


def bootstrap_residuals(
  key: jax.Array,
  expansion: expansions.Expansion,
  nodes: ArrayLike,
  residuals: ArrayLike,
  *,
  components: ArrayLike | None = None,
  num_resamples: int = 1000,
  level: float = 0.95,
  noise: float = 1e-6,
  scale: ArrayLike | None = None,
) -> Intervals:
  """Intervals for an expansion that was found in any way.

  For instance with the residuals of a cross-validation that repeats the whole
  search of the basis in every fold, or the leave-one-out residuals of a ridge
  regression. The residual at a node has to come from an expansion that has not
  seen it, g^(-n), and so has E[g_u r]: without `components` that expansion is
  taken for the final one, which is right for fresh nodes and too optimistic
  for cross-validation.

  Args:
    key: typed JAX key of the resamples.
    expansion: the final expansion.
    nodes: (N, D) germ coordinates, a random sample.
    residuals: (N, K) outputs of the model minus unseen predictions.
    components: (N, S, K) `residuals.anova_components` of the expansion of each
      node, in the order of the sets of `expansion`.
    num_resamples: number of resamples.
    level: coverage, in (0, 1).
    noise: as in `sobol_indices`.
    scale: as in `sobol_indices`.

  Returns:
    The intervals, within [0, 1].

  Raises:
    ValueError: shapes that do not fit, residuals that are not finite, a level
      outside of (0, 1) or fewer than two resamples or nodes.
  """
  nodes = np.asarray(nodes, np.float64)
  residuals = np.asarray(residuals, np.float64)
  num_outputs = expansion.coefficients.shape[1]
  if residuals.shape != (len(nodes), num_outputs) or len(nodes) < 2:
    raise ValueError(
      f'residuals: expected shape ({len(nodes)}, {num_outputs}) of two nodes '
      f'or more, got {residuals.shape}'
    )
  if not np.all(np.isfinite(residuals)):
    raise ValueError('residuals: expected finite numbers')
  indices = sobol_indices.sobol_indices(expansion, noise=noise, scale=scale)
  if components is None:
    components = residuals_lib.anova_components(expansion, nodes)
  components = np.asarray(components, np.float64)
  expected = (len(nodes), len(indices.subsets), num_outputs)
  if components.shape != expected:
    raise ValueError(
      f'components: expected shape {expected}, got {components.shape}'
    )
  part = residuals_lib.Unseen(nodes, residuals, components)
  return _resample(key, expansion, indices, [part], num_resamples, level)


def _resample(
  key: jax.Array,
  expansion: expansions.Expansion,
  indices: sobol_indices.SobolIndices,
  parts: list[residuals_lib.Fitted | residuals_lib.Unseen],
  num_resamples: int,
  level: float,
) -> Intervals:
  """Intervals from all parts together."""
  if not 0 < level < 1:
    raise ValueError(f'level: expected a number in (0, 1), got {level}')
  if num_resamples < 2:
    raise ValueError(f'num_resamples: expected 2 or more, got {num_resamples}')
  generator = designs.random_generator(key)
  subsets, members = sobol_indices.term_subsets(expansion.basis)
  sums = np.vstack([
    np.eye(len(subsets)),
    sobol_indices.total_matrix(subsets, expansion.basis.space.dim),
  ])  # fmt: skip
  num_nodes = sum(len(part.nodes) for part in parts)
  # Every output uses the same random numbers. Columns of weights sum to one.
  weights = generator.standard_exponential((num_nodes, num_resamples))
  weights /= np.sum(weights, axis=0)
  normal = generator.standard_normal((len(sums) + 1, 1, num_resamples))
  fractions = 2 * generator.random((len(sums), 1, num_resamples))
  shares = residuals_lib.Shares.make(expansion.basis, subsets, parts)
  largest = max(num_nodes, num_resamples) * len(sums)
  bounds = []
  for k in _output_blocks(expansion.coefficients.shape[1], largest):
    coefficients = np.asarray(expansion.coefficients)[:, k]
    products, squares = residuals_lib.corrections(
      parts, coefficients, members, k
    )
    known = products.reshape(num_nodes, -1).T @ weights
    # The basis of the mean alone has no subset, so no -1 here.
    shape = (len(subsets), coefficients.shape[1], num_resamples)
    known = known.reshape(shape)
    known += (members @ coefficients**2)[:, :, None]
    missed = np.maximum(squares.T @ weights, 0)
    values = np.tensordot(sums, known, axes=1)
    residuals = [part.residuals[:, k] for part in parts]
    values += shares.of(residuals, missed, normal, fractions)
    variance = known.sum(axis=0) + missed
    bounds.append(_quantiles(values, variance, level))
  lower = np.concatenate([low for low, _ in bounds], axis=1)
  upper = np.concatenate([high for _, high in bounds], axis=1)
  return _as_intervals(indices, lower, upper, level, num_resamples)


def _output_blocks(num_outputs: int, num_numbers: int) -> Iterator[slice]:
  """Slices of the outputs whose products fit into a block."""
  step = max(1, _BLOCK // num_numbers)
  for start in range(0, num_outputs, step):
    yield slice(start, min(start + step, num_outputs))


def _quantiles(
  values: np.ndarray, variance: np.ndarray, level: float
) -> tuple[np.ndarray, np.ndarray]:
  """Outer order statistics (U, K') of (U, K', R) values over a variance."""
  ratios = np.where(variance > 0, values, 0) / np.where(
    variance > 0, variance, 1
  )
  last = ratios.shape[-1] - 1
  below = int(np.floor((1 - level) / 2 * last))
  ratios.partition((below, last - below), axis=-1)
  return (
    np.clip(ratios[..., below], 0, 1),
    np.clip(ratios[..., last - below], 0, 1),
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
  # Of a basis of the mean alone there is no NaN of a subset to pass on.
  empty = 0 * indices.first_order
  return Intervals(
    names=indices.names,
    subsets=indices.subsets,
    level=level,
    num_resamples=num_resamples,
    first_order_lower=single @ lower[:num_subsets] + empty,
    first_order_upper=single @ upper[:num_subsets] + empty,
    total_lower=lower[num_subsets:],
    total_upper=upper[num_subsets:],
    subset_lower=lower[:num_subsets],
    subset_upper=upper[:num_subsets],
  )
