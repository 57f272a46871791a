"""Intervals of averages over units that each carry an error of their own.

A unit is one member of a population (an image, a specimen, a site) with an
estimate that is itself uncertain. What is estimated belongs to the population
that the units are drawn from, so units are resampled with replacement. The
spread of the estimates over the units already holds their own errors; it is
shrunk by that much before a normal draw of each error is added, so that an
error counts once, and still counts where all units agree by chance:

    replicate = Σ_i n_i w_i (m + s (y_i - m) + sd_i z_i) / Σ_i n_i w_i
    s² = max(0, 1 - Σ_i w_i² sd_i² / Σ_i w_i² (y_i - m)²)

with n_i how often unit i was drawn, m the weighted mean, z_i standard normal.
Intervals are Student's with the spread of the replicates: percentiles of the
replicates cover 75 % instead of 95 % for three units.

References:
  Efron, Tibshirani, An introduction to the bootstrap, 1993, chapters 6 and 12.
  Hesterberg, What teachers should know about the bootstrap, 2015, section 4.
"""

from collections.abc import Sequence
import dataclasses

import jax
from jax.typing import ArrayLike
import numpy as np
from scipy import stats

from jaxsens.gpc import designs

# Weights so uneven that one unit speaks alone leave a very wide interval.
_LEAST_UNITS = 1.1
# Half-width of a 95 % interval in standard deviations of a normal variable.
_DEVIATIONS = 1.959963984540054


@dataclasses.dataclass(frozen=True, eq=False)
class IntervalEstimate:
  """Estimates and the ends of their intervals, all of one shape.

  Attributes:
    value: the estimates, NaN where there is nothing to estimate from.
    lower: lower ends, NaN where fewer than two units speak.
    upper: upper ends, likewise.
  """

  value: np.ndarray
  lower: np.ndarray
  upper: np.ndarray


def weighted_means(
  key: jax.Array,
  values: ArrayLike,
  half_widths: ArrayLike,
  weights: ArrayLike,
  *,
  num_resamples: int = 1000,
  level: float = 0.95,
  error_correlation: float = 0.0,
) -> IntervalEstimate:
  """Weighted means over units with intervals.

      mean[c] = Σ_i weights[i] values[i, c] / Σ_i weights[i]

  Args:
    key: typed JAX key.
    values: (I, C) estimates of each unit, finite.
    half_widths: (I, C) half-widths of their 95 % intervals; NaN counts as 0.
    weights: (I,) >= 0; they are resampled with their units.
    num_resamples: number of bootstrap resamples.
    level: probability that an interval covers the mean of the population.
    error_correlation: correlation of the errors of two units, in [0, 1];
      above zero where all units were analysed on one and the same design.

  Returns:
    Estimates (C,), all NaN without a unit of positive weight.

  Raises:
    ValueError: shapes that do not agree, values that are not finite, negative
      weights or half-widths, a correlation outside of [0, 1].
  """
  values, deviations, weights = _checked(values, half_widths, weights)
  if not 0 <= error_correlation <= 1:
    raise ValueError(
      f'error_correlation: expected 0 to 1, got {error_correlation}'
    )
  if not np.any(weights > 0):
    nothing = np.full(values.shape[1], np.nan)
    return IntervalEstimate(nothing, nothing, nothing)
  mean = weights @ values / weights.sum()
  generator = designs.random_generator(key)
  counts = draw_counts(generator, len(values), num_resamples)
  total = counts @ weights
  # Weights can be zero, and so can a resample hold nothing but such units.
  total = np.where(total > 0, total, np.nan)[:, None]
  shrunk = mean + _shrinkage(values - mean, deviations, weights) * (
    values - mean
  )
  scaled = weights[:, None] * deviations
  # The sum of independent normal errors of all drawn units, drawn at once.
  variance = (1 - error_correlation) * (counts @ scaled**2)
  variance += error_correlation * (counts @ scaled) ** 2
  errors = np.sqrt(variance) * generator.standard_normal(variance.shape)
  replicates = (counts @ (weights[:, None] * shrunk) + errors) / total
  return student_interval(mean, replicates, weights, level)


def stack(
  estimates: Sequence[IntervalEstimate], axis: int = 0
) -> IntervalEstimate:
  """Estimates of one shape stacked along a new axis."""
  return IntervalEstimate(*(
    np.stack([getattr(e, name) for e in estimates], axis)
    for name in ('value', 'lower', 'upper')
  ))  # fmt: skip


def draw_counts(
  generator: np.random.Generator, num_units: int, num_resamples: int
) -> np.ndarray:
  """How often each unit is drawn in each resample.

  Args:
    generator: source of the draws.
    num_units: number of units I.
    num_resamples: number of resamples B.

  Returns:
    (B, I) float64, rows of sum I.
  """
  drawn = generator.integers(num_units, size=(num_resamples, num_units))
  drawn += num_units * np.arange(num_resamples)[:, None]
  counts = np.bincount(drawn.ravel(), minlength=num_units * num_resamples)
  return counts.reshape(num_resamples, num_units).astype(np.float64)


def student_interval(
  value: np.ndarray, replicates: np.ndarray, weights: np.ndarray, level: float
) -> IntervalEstimate:
  """Student's interval around an estimate with the spread of its replicates.

      value ± t(n - 1) sqrt(n / (n - 1)) std_b(replicate_b)

  The root is there because the spread over n units is too small by it; n is
  the effective number (Σ weights)² / Σ weights² of units.

  Args:
    value: (C,) estimates.
    replicates: (B, C) replicates; NaN is left out.
    weights: (I,) weights of the units, >= 0.
    level: probability that the interval covers.

  Returns:
    The estimates with their ends, which are NaN where fewer than two units
    have a weight or no replicate is finite.
  """
  nothing = np.full(replicates.shape[1], np.nan)
  if np.count_nonzero(weights) < 2:
    return IntervalEstimate(value, nothing, nothing)
  num_units = weights.sum() ** 2 / np.sum(weights**2)
  num_units = max(num_units, _LEAST_UNITS)
  usable = np.isfinite(replicates).any(axis=0)
  spread = nothing.copy()
  spread[usable] = np.nanstd(replicates[:, usable], axis=0)
  reach = stats.t.ppf((1 + level) / 2, num_units - 1)
  reach *= np.sqrt(num_units / (num_units - 1))
  return IntervalEstimate(value, value - reach * spread, value + reach * spread)


def _shrinkage(
  centred: np.ndarray, deviations: np.ndarray, weights: np.ndarray
) -> np.ndarray:
  """(C,) share of the spread over units that is not their own error."""
  squares = (weights**2)[:, None]
  spread = np.sum(squares * centred**2, axis=0)
  own = np.sum(squares * deviations**2, axis=0)
  share = np.divide(own, spread, out=np.ones_like(own), where=spread > own)
  return np.sqrt(1 - share)


def _checked(values, half_widths, weights):
  """Values, standard deviations and weights after a check."""
  values = np.asarray(values, np.float64)
  half_widths = np.asarray(half_widths, np.float64)
  weights = np.asarray(weights, np.float64)
  shapes = values.shape, half_widths.shape, weights.shape
  if values.ndim != 2 or shapes[1:] != (values.shape, values.shape[:1]):
    raise ValueError(
      'expected values (I, C), half_widths (I, C) and weights (I,), got '
      f'shapes {shapes}'
    )
  if not np.isfinite(values).all():
    raise ValueError('values: expected finite numbers; leave the others out')
  if not (np.all(weights >= 0) and np.isfinite(weights).all()):
    raise ValueError('weights: expected finite numbers >= 0')
  if np.any(half_widths < 0):
    raise ValueError('half_widths: expected numbers >= 0')
  deviations = np.nan_to_num(half_widths, posinf=0.0) / _DEVIATIONS
  return values, deviations, weights
