"""Percentile intervals of any measure, by resampling images."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence

import jax
from jax.typing import ArrayLike
import numpy as np


def resamples(
  key: jax.Array,
  length: int,
  *,
  groups: np.ndarray | None = None,
  num_samples: int = 1000,
) -> Iterator[np.ndarray]:
  """Yields the rows of each resample, (N,), drawn with repetition.

  Args: see `bootstrap`; `length` is N.
  """
  members = [np.array([i]) for i in range(length)] if groups is None else [
    np.flatnonzero(groups == group) for group in np.unique(groups)
  ]
  seed = np.asarray(jax.random.key_data(key)).ravel()
  rng = np.random.default_rng(seed)
  for _ in range(num_samples):
    drawn = rng.integers(len(members), size=len(members))
    yield np.concatenate([members[i] for i in drawn])


def percentiles(values: ArrayLike, level: float) -> tuple[float, float]:
  """Returns the percentile interval of a measure on resamples.

  Args:
    values: (S,); NaN where the measure does not exist, which is left out.
    level: coverage of the interval, in (0, 1).

  Raises:
    ValueError: a level outside (0, 1), or more than half of them are NaN.
  """
  if not 0 < level < 1:
    raise ValueError(f'level must be in (0, 1), got {level}.')
  values = np.asarray(values, np.float64)
  known = values[~np.isnan(values)]
  if len(known) < len(values) / 2:
    raise ValueError(
      f'the measure is NaN on {len(values) - len(known)} of {len(values)} '
      'resamples: too few images of a class.'
    )
  tail = (1 - level) / 2
  lower, upper = np.quantile(known, [tail, 1 - tail])
  return float(lower), float(upper)


def bootstrap(
  key: jax.Array,
  measure: Callable[..., float],
  arrays: Sequence[np.ndarray],
  *,
  groups: np.ndarray | None = None,
  num_samples: int = 1000,
  level: float = 0.95,
) -> tuple[float, float]:
  """Returns the percentile interval of measure(*arrays) over images.

  Samples on which the measure is NaN (a class that was not drawn) are left out.

  Args:
    key: of the resamples.
    measure: of arrays whose leading axis is the image.
    arrays: (N, ...) each.
    groups: (N,) recording of each image; whole groups are drawn, as images of
      one recording resemble each other. None draws images.
    num_samples: resamples.
    level: coverage of the interval, in (0, 1).

  Raises:
    ValueError: a level outside (0, 1), lengths that differ, or a measure that
      is NaN on more than half of the samples.

  References:
    Efron and Tibshirani, An introduction to the bootstrap, 1993, chapter 13.
  """
  lengths = {len(array) for array in arrays}
  if len(lengths) != 1 or not 0 < level < 1:
    raise ValueError(
      f'arrays must have one length and level be in (0, 1), got {lengths} and '
      f'{level}.'
    )
  (length,) = lengths
  return percentiles([
    measure(*(array[rows] for array in arrays))
    for rows in resamples(
      key, length, groups=groups, num_samples=num_samples
    )
  ], level)
