"""Statistics of the outputs of a surrogate: draws, quantiles, density.

A surrogate is any function of the germ, (N, D) -> (N, K): an `Expansion`, or
an expansion of logits pushed through the softmax. Its outputs are drawn at
several independently scrambled Sobol sequences; every statistic is that of
all draws together, and its standard error comes from the spread of the
statistic over the sequences:

    standard_error = std_r(statistic of sequence r) / sqrt(num_replicates)

It is the error of the integration alone: how far the surrogate is from the
model is said by `diagnostics`.

References:
  Owen, Scrambled net variance for integrals of smooth functions, 1997.
"""

from collections.abc import Callable
from collections.abc import Iterator
import dataclasses

import jax
from jax.typing import ArrayLike
import numpy as np

from jaxsens import factors
from jaxsens.gpc import designs
from jaxsens.gpc import expansions

Surrogate = Callable[[np.ndarray], ArrayLike]

# Rows of one call of a surrogate.
_BLOCK_ROWS = 2**14


@dataclasses.dataclass(frozen=True, eq=False)
class Sample:
  """Outputs of a surrogate at random germ points.

  Attributes:
    outputs: (R, M, K) float64: R independent scrambled sequences of M points.
  """

  outputs: np.ndarray

  @property
  def pooled(self) -> np.ndarray:
    """(R M, K) outputs of all sequences."""
    return self.outputs.reshape(-1, self.outputs.shape[2])


@dataclasses.dataclass(frozen=True, eq=False)
class Estimate:
  """A statistic and its standard error.

  Attributes:
    value: (Q, K), or (K,) where there is one number for each output.
    standard_error: same shape, of the integration over the germ.
  """

  value: np.ndarray
  standard_error: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Density:
  """Histogram of each output.

  Attributes:
    edges: (B + 1, K) increasing limits of the bins.
    values: (B, K) density in each bin; times its width it sums to the
      share of the draws within the edges. NaN for a constant output.
    standard_error: (B, K).
  """

  edges: np.ndarray
  values: np.ndarray
  standard_error: np.ndarray


def draw(
  key: jax.Array,
  surrogate: Surrogate,
  space: factors.FactorSpace | None = None,
  *,
  num_points: int = 2**13,
  num_replicates: int = 8,
) -> Sample:
  """Outputs of a surrogate at scrambled Sobol sequences of the germ.

  Args:
    key: typed JAX key.
    surrogate: maps germ (N, D) float64 to outputs (N, K).
    space: the D factors; None for an `Expansion`, which holds them.
    num_points: points M of each sequence; powers of two keep its balance.
    num_replicates: independent sequences R, at least 2 for standard errors.

  Returns:
    The sample of R M points.

  Raises:
    ValueError: no space, one that is not that of the expansion, too few
      points or sequences, outputs of another shape or not finite.
  """
  space = space_of(surrogate, space)
  if num_replicates < 2:
    raise ValueError(
      f'num_replicates: expected at least 2, got {num_replicates}'
    )
  outputs = []
  for replicate_key in jax.random.split(key, num_replicates):
    design = designs.sobol_sequence(replicate_key, space, num_points)
    rows = [surrogate(design.nodes[b]) for b in _blocks(num_points)]
    rows = [_two_axes(part) for part in rows]
    outputs.append(
      expansions.check_outputs(design, np.concatenate(rows))
    )
  return Sample(np.stack(outputs))


def quantiles(sample: Sample, probabilities: ArrayLike) -> Estimate:
  """Quantiles of each output.

  Args:
    sample: the sample.
    probabilities: (Q,) numbers in [0, 1].

  Returns:
    (Q, K) quantiles.

  Raises:
    ValueError: probabilities of another shape or outside of [0, 1].
  """
  levels = np.asarray(probabilities, np.float64)
  if levels.ndim != 1 or not np.all((levels >= 0) & (levels <= 1)):
    raise ValueError(
      f'probabilities: expected (Q,) numbers in [0, 1], got {probabilities}'
    )
  return Estimate(
    np.quantile(sample.pooled, levels, axis=0),
    standard_error(
      np.stack([np.quantile(y, levels, axis=0) for y in sample.outputs])
    ),
  )


def probability_below(sample: Sample, thresholds: ArrayLike) -> Estimate:
  """Probability that an output lies below a threshold.

  Args:
    sample: the sample.
    thresholds: (Q,) thresholds for all outputs, or (Q, K).

  Returns:
    (Q, K) probabilities of output < threshold. Where all draws agree the
    standard error is zero and says nothing about rarer events than
    1 / (R M).

  Raises:
    ValueError: thresholds of another shape, or NaN.
  """
  num_outputs = sample.outputs.shape[2]
  limits = np.asarray(thresholds, np.float64)
  if limits.ndim == 1:
    limits = np.repeat(limits[:, None], num_outputs, axis=1)
  if limits.ndim != 2 or limits.shape[1] != num_outputs:
    raise ValueError(
      f'thresholds: expected shape (Q,) or (Q, {num_outputs}), '
      f'got {np.shape(thresholds)}'
    )
  if np.any(np.isnan(limits)):
    raise ValueError('thresholds: expected numbers, got NaN')
  # (R, Q, K), one threshold after the other to spare memory.
  below = np.stack(
    [np.mean(sample.outputs < row, axis=1) for row in limits], axis=1
  )
  return Estimate(below.mean(axis=0), standard_error(below))


def density(
  sample: Sample,
  *,
  num_bins: int = 64,
  limits: tuple[float, float] | None = None,
) -> Density:
  """Histogram density of each output.

  A histogram keeps the mass of a bounded output, a probability for instance,
  inside of its bounds.

  Args:
    sample: the sample.
    num_bins: bins B of equal width.
    limits: outer edges for all outputs; None: the range of each one.

  Returns:
    The density.

  Raises:
    ValueError: no bin, or limits that do not increase.
  """
  if num_bins < 1:
    raise ValueError(f'num_bins: expected at least 1, got {num_bins}')
  if limits is not None and not limits[0] < limits[1]:
    raise ValueError(f'limits: expected lower < upper, got {limits}')
  columns = [
    _histogram(y, num_bins, limits) for y in np.moveaxis(sample.outputs, 2, 0)
  ]
  edges, values = (np.stack(part, -1) for part in zip(*columns, strict=True))
  return Density(edges, values.mean(axis=0), standard_error(values))


def space_of(
  surrogate: Surrogate, space: factors.FactorSpace | None
) -> factors.FactorSpace:
  """Space of a surrogate, known or given.

  Args:
    surrogate: an `Expansion` or another function of the germ.
    space: its factors; None for an `Expansion`.

  Returns:
    The factors.

  Raises:
    ValueError: no space, or one that is not that of the expansion.
  """
  if isinstance(surrogate, expansions.Expansion):
    own = surrogate.basis.space
    if space is not None and space != own:
      raise ValueError(
        f'space: the expansion is in {list(own.names)}, got other factors: '
        f'{list(space.names)}'
      )
    return own
  if space is None:
    raise ValueError('space: needed for a surrogate that is no Expansion')
  return space


def _blocks(num_rows: int) -> Iterator[slice]:
  for start in range(0, num_rows, _BLOCK_ROWS):
    yield slice(start, start + _BLOCK_ROWS)


def _two_axes(outputs: ArrayLike) -> np.ndarray:
  array = np.asarray(outputs, np.float64)
  if array.ndim != 2:
    raise ValueError(
      f'surrogate: expected outputs of shape (N, K), got {array.shape}'
    )
  return array


def standard_error(replicates: np.ndarray) -> np.ndarray:
  """Standard error of the mean over replicates.

  Args:
    replicates: (R, ...) values of a statistic.

  Returns:
    (...) standard errors.
  """
  return np.std(replicates, axis=0, ddof=1) / np.sqrt(len(replicates))


def _histogram(
  y: np.ndarray, num_bins: int, limits: tuple[float, float] | None
) -> tuple[np.ndarray, np.ndarray]:
  """Edges (B + 1,) and densities (R, B) of the draws (R, M) of one output."""
  lower, upper = (np.min(y), np.max(y)) if limits is None else limits
  edges = np.linspace(lower, upper, num_bins + 1)
  if not np.all(np.diff(edges) > 0):
    return edges, np.full((len(y), num_bins), np.nan)
  counts = np.stack([np.histogram(row, edges)[0] for row in y])
  return edges, counts / (y.shape[1] * np.diff(edges))
