"""The probability that a model fails.

Whether it fails is asked of a function of germ coordinates,

    failing(germ (N, D)) -> (N,) or (N, I), in [0, 1],

which answers 0 or 1, or a probability of failing, for one or for I images. It
may be the model itself or a surrogate.
"""

import dataclasses
from typing import Protocol

import jax
from jax.typing import ArrayLike
import numpy as np
from scipy import stats

from jaxsens import factors
from jaxsens.gpc import designs

# Rows of one call of `failing`.
_BLOCK_ROWS = 2**15
# Rounding that failures may be beside [0, 1].
_SLACK = 1e-6
_COVERAGE = 0.95


class Failing(Protocol):
  """Whether the model fails, or how probably."""

  def __call__(self, germ: np.ndarray) -> ArrayLike:
    """Returns (N,) or (N, I) in [0, 1] for germ coordinates (N, D)."""


@dataclasses.dataclass(frozen=True, eq=False)
class Probability:
  """An estimated probability; all arrays are () or (I,).

  Attributes:
    value: the estimate; NaN where there are no draws.
    standard_error: of the estimate.
    lower: lower end of the 95 % interval of Clopper and Pearson, which never
      covers too rarely for independent draws of 0 and 1.
    upper: upper end.
    num_draws: draws behind it.

  References:
    Clopper, Pearson, The use of confidence or fiducial limits illustrated in
    the case of the binomial, 1934.
  """

  value: np.ndarray
  standard_error: np.ndarray
  lower: np.ndarray
  upper: np.ndarray
  num_draws: np.ndarray

  def take(self, index: int) -> 'Probability':
    """Returns the row of one image."""
    return Probability(*(rows[index] for rows in vars(self).values()))


def failure_probability(
  key: jax.Array,
  space: factors.FactorSpace,
  failing: Failing,
  num_draws: int,
) -> Probability:
  """Estimates the probability of failing from independent draws.

  Args:
    key: typed JAX key.
    space: the D factors.
    failing: see the module.
    num_draws: number of draws.

  Raises:
    ValueError: no draws, or answers of `failing` that are not in [0, 1].
  """
  if num_draws < 1:
    raise ValueError(f'num_draws: expected at least 1, got {num_draws}')
  germ = space.from_uniform(
    designs.random_generator(key).random((num_draws, space.dim))
  )
  failed, is_single = evaluate(failing, germ)
  found = estimate(failed, np.ones(failed.shape, bool))
  return found.take(0) if is_single else found


def weighted_failure_probability(
  failed: ArrayLike, weights: ArrayLike
) -> Probability:
  """Estimates the probability of failing from nodes evaluated already.

      value = Σ_n weights[n] failed[n]
      standard_error² = Σ_n weights[n]² (failed[n] - value)²

  The standard error is that of independent nodes: right for those, too large
  for balanced ones (Latin hypercube, Sobol), and an order of magnitude for
  quadrature rules, which see a jump at their nodes alone. The interval takes
  1 / Σ_n weights[n]² for the number of draws.

  Args:
    failed: (N,) or (N, I) in [0, 1].
    weights: (N,) >= 0, sum 1.

  Raises:
    ValueError: shapes that do not fit, negative weights or another sum,
      failures that are not in [0, 1].
  """
  failed, is_single = _checked(failed, len(np.atleast_1d(weights)))
  weights = np.asarray(weights, np.float64)
  if weights.ndim != 1 or np.any(weights < 0) or abs(weights.sum() - 1) > 1e-6:
    raise ValueError('weights: expected (N,) numbers >= 0 of sum 1')
  value = weights @ failed
  error = np.sqrt(weights**2 @ (failed - value) ** 2)
  num_draws = np.full(value.shape, 1 / np.sum(weights**2))
  interval = _interval(value, num_draws)
  found = Probability(value, error, *interval, num_draws)
  return found.take(0) if is_single else found


def evaluate(
  failing: Failing, germ: np.ndarray
) -> tuple[np.ndarray, bool]:
  """Asks for the failures at germ points, in blocks of rows.

  Args:
    failing: see the module.
    germ: (N, D).

  Returns:
    (N, I) failures, and whether they came without an axis of images (I = 1).

  Raises:
    ValueError: answers of another shape, or not in [0, 1].
  """
  starts = range(0, len(germ), _BLOCK_ROWS)
  parts = [np.asarray(failing(germ[i:i + _BLOCK_ROWS])) for i in starts]
  return _checked(np.concatenate(parts), len(germ))


def estimate(failed: np.ndarray, is_inside: np.ndarray) -> Probability:
  """Estimates failure probabilities, each from a part of the draws.

  Args:
    failed: (N, I) in [0, 1].
    is_inside: (N, I) bool, the draws that count.

  Returns:
    Probabilities (I,).
  """
  num_draws = np.sum(is_inside, axis=0).astype(np.float64)
  some = np.maximum(num_draws, 1)
  value = np.sum(failed * is_inside, axis=0) / some
  variance = np.sum((failed - value) ** 2 * is_inside, axis=0) / some
  lower, upper = _interval(value, num_draws)
  value = np.where(num_draws > 0, value, np.nan)
  error = np.where(num_draws > 0, np.sqrt(variance / some), np.nan)
  return Probability(value, error, lower, upper, num_draws)


def _checked(failed, num_nodes) -> tuple[np.ndarray, bool]:
  failed = np.asarray(failed, np.float64)
  if failed.ndim not in (1, 2) or len(failed) != num_nodes or not failed.size:
    raise ValueError(
      f'failing: expected shape ({num_nodes},) or ({num_nodes}, images), got '
      f'{failed.shape}'
    )
  if not np.all((failed >= -_SLACK) & (failed <= 1 + _SLACK)):
    raise ValueError(
      'failing: expected numbers in [0, 1], got '
      f'[{np.min(failed):g}, {np.max(failed):g}]'
    )
  return np.clip(failed.reshape(num_nodes, -1), 0, 1), failed.ndim == 1


def _interval(value, num_draws):
  """Clopper-Pearson interval of failures value * num_draws."""
  failures = value * num_draws
  passes = num_draws - failures
  tail = (1 - _COVERAGE) / 2
  # Arguments of zero are replaced, their results are not used.
  some = lambda count: np.where(count > 0, count, 1.0)
  lower = stats.beta.ppf(tail, some(failures), passes + 1)
  upper = stats.beta.ppf(1 - tail, failures + 1, some(passes))
  return (
    np.where(failures > 0, lower, 0.0), np.where(passes > 0, upper, 1.0)
  )
