"""Estimates that are sums of ratios of means over independent rows.

    R = Σ_i sign[i] mean_n(h[i]) / mean_n(w[i])

Its first-order error is the mean over rows of the influence function

    influence[n] = Σ_i sign[i] (h[i, n] - R[i] w[i, n]) / mean(w[i]),

whose spread gives the asymptotic interval; the bootstrap draws rows with
replacement.

References:
  van der Vaart, Asymptotic Statistics, 1998, chapters 3 (delta method) and 23
  (bootstrap).
"""

from collections.abc import Callable
from collections.abc import Sequence

import jax
import numpy as np
from scipy import special

from jaxsens.gpc import designs

# Numbers in one block of resamples (64 MiB).
_BLOCK = 2**23

# Triples (sign, h (M, K), w (M, K)) of M rows and K outputs.
Ratios = Sequence[tuple[float, np.ndarray, np.ndarray]]
# From ratios to the estimate and its limits, each (K,).
Limits = Callable[[Ratios], tuple[np.ndarray, np.ndarray, np.ndarray]]


def value(ratios: Ratios) -> np.ndarray:
  """Sum of ratios of means.

  Args:
    ratios: triples (sign, h (M, K), w (M, K)).

  Returns:
    (K,), NaN where a mean of w is not positive.
  """
  return sum(
    sign * _divide(h.mean(axis=0), w.mean(axis=0)) for sign, h, w in ratios
  )


def asymptotic(level: float) -> Limits:
  """Function that finds normal limits by the delta method.

  Args:
    level: nominal coverage, in (0, 1).

  Returns:
    Function from ratios to estimate, lower and upper limit, each (K,).
  """
  quantile = special.ndtri((1 + level) / 2)

  def limits(ratios):
    influence = 0.0
    for sign, h, w in ratios:
      ratio = _divide(h.mean(axis=0), w.mean(axis=0))
      influence = influence + sign * _divide(h - ratio * w, w.mean(axis=0))
    half = quantile * influence.std(axis=0, ddof=1) / np.sqrt(len(influence))
    centre = value(ratios)
    return centre, centre - half, centre + half

  return limits


def bootstrap(
  key: jax.Array, level: float, num_resamples: int, num_rows: int
) -> Limits:
  """Function that finds percentile limits over resamples of the rows.

  All ratios see the same resamples.

  Args:
    key: typed JAX key of the resamples.
    level: nominal coverage, in (0, 1).
    num_resamples: number of resamples.
    num_rows: number of rows M.

  Returns:
    Function from ratios to estimate, lower and upper limit, each (K,).
  """
  generator = designs.random_generator(key)
  shares, step = np.full(num_rows, 1 / num_rows), max(1, _BLOCK // num_rows)
  # How often a row is drawn fits a byte: it is Poisson with mean one.
  counts = [
    generator.multinomial(
      num_rows, shares, size=min(step, num_resamples - start)
    ).astype(np.uint8)
    for start in range(0, num_resamples, step)
  ]
  probabilities = [(1 - level) / 2, (1 + level) / 2]

  def limits(ratios):
    resamples = np.concatenate([
      sum(sign * _divide(count @ h, count @ w) for sign, h, w in ratios)
      for count in (block.astype(np.float64) for block in counts)
    ])  # fmt: skip
    low, high = np.quantile(resamples, probabilities, axis=0)
    return value(ratios), low, high

  return limits


def _divide(h: np.ndarray, w: np.ndarray) -> np.ndarray:
  """Ratio h / w, NaN where w is not positive."""
  return h / np.where(w > 0, w, np.nan)
