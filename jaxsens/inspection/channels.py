"""How the channels of layers differ between two groups of images, and weights.

Of each channel the activation, a number per image (`features.extract` with
'mean' or 'max'), is compared by Welch's t, which lets the groups differ in
spread and size. Of the many channels of a layer some differ by chance: the
adjusted p-values (Holm) hold for all channels of the layer together.

References:
  Welch, The generalization of "Student's" problem when several different
  population variances are involved, 1947.
  Holm, A simple sequentially rejective multiple test procedure, 1979.
"""

from collections.abc import Iterator
import dataclasses
from typing import Any

import jax
from jax.typing import ArrayLike
import numpy as np
from scipy import stats


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
  """Channels of a layer in two groups of images; arrays (C,), as the layer's.

  Attributes:
    num_first, num_second: images of the groups.
    first_mean, first_std: of the first group; spread with n - 1.
    second_mean, second_std: of the second.
    difference: mean of the first minus that of the second.
    lower, upper: ends of its interval.
    ratio: mean of the first by that of the second, both with the offset added;
      NaN where the second is then zero.
    t: Welch's statistic; 0 where neither mean nor spread differ from equal
      constants.
    p_value: of it, two-sided.
    adjusted_p: by Holm, for all channels together.
    order: the channels, the largest |t| first.
  """

  num_first: int
  num_second: int
  first_mean: np.ndarray
  first_std: np.ndarray
  second_mean: np.ndarray
  second_std: np.ndarray
  difference: np.ndarray
  lower: np.ndarray
  upper: np.ndarray
  ratio: np.ndarray
  t: np.ndarray
  p_value: np.ndarray
  adjusted_p: np.ndarray
  order: np.ndarray


def compare(
  first: ArrayLike,
  second: ArrayLike,
  *,
  offset: float = 0.0,
  level: float = 0.95,
  key: jax.Array | None = None,
  num_samples: int = 1000,
) -> Comparison:
  """Compares the channels of a layer between two groups of images.

  Args:
    first: (N, C) activations of one group.
    second: (M, C) of the other.
    offset: added to both means in the ratio, against division by little.
    level: of the intervals.
    key: if given, the intervals are percentiles of differences of resampled
      groups instead of Welch's.
    num_samples: resamples.

  Raises:
    ValueError: shapes that do not fit, a group of fewer than two images, NaN.
  """
  x, y = (
    _checked(name, values) for name, values in
    (('first', first), ('second', second))
  )
  if x.shape[1] != y.shape[1]:
    raise ValueError(
      'first and second must have the same channels, got shapes '
      f'{x.shape} and {y.shape}.'
    )
  if not 0 < level < 1:
    raise ValueError(f'level must be in (0, 1), got {level}.')
  difference = x.mean(0) - y.mean(0)
  parts = x.var(0, ddof=1) / len(x), y.var(0, ddof=1) / len(y)
  error = np.sqrt(sum(parts))
  varies = error > 0
  with np.errstate(divide='ignore', invalid='ignore'):
    t = np.where(
      varies, difference / error,
      np.where(difference == 0, 0.0, np.sign(difference) * np.inf),
    )
    # Welch and Satterthwaite.
    freedom = np.where(varies, error**4 / (
      parts[0] ** 2 / (len(x) - 1) + parts[1] ** 2 / (len(y) - 1)
    ), 1.0)
    shifted = y.mean(0) + offset
    ratio = np.where(shifted != 0, (x.mean(0) + offset) / shifted, np.nan)
  p_value = 2 * stats.t.sf(np.abs(t), freedom)
  if key is None:
    half = stats.t.ppf((1 + level) / 2, freedom) * error
    lower, upper = difference - half, difference + half
  else:
    lower, upper = _percentiles(key, x, y, level, num_samples)
  return Comparison(
    num_first=len(x), num_second=len(y),
    first_mean=x.mean(0), first_std=x.std(0, ddof=1),
    second_mean=y.mean(0), second_std=y.std(0, ddof=1),
    difference=difference, lower=lower, upper=upper, ratio=ratio, t=t,
    p_value=p_value, adjusted_p=holm(p_value),
    order=np.argsort(-np.abs(t), kind='stable'),
  )


def holm(p_values: ArrayLike) -> np.ndarray:
  """Returns p-values (C,) adjusted for C tests together, by Holm."""
  p_values = np.asarray(p_values, np.float64)
  order = np.argsort(p_values, kind='stable')
  number = len(p_values)
  stepped = p_values[order] * np.arange(number, 0, -1)
  adjusted = np.empty(number)
  adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1)
  return adjusted


@dataclasses.dataclass(frozen=True)
class WeightStatistics:
  """What the numbers of one array of weights are like.

  Attributes:
    name: its path, joined by dots.
    shape: of the array.
    mean, std, minimum, maximum: of its numbers.
    zeros: share that is exactly zero.
    norm: root of the sum of squares.
  """

  name: str
  shape: tuple[int, ...]
  mean: float
  std: float
  minimum: float
  maximum: float
  zeros: float
  norm: float

  def as_dict(self) -> dict:
    """Returns the fields by name."""
    return dataclasses.asdict(self)


def weight_statistics(params: Any) -> tuple[WeightStatistics, ...]:
  """Returns statistics of every floating-point array of a tree, in its order.

  Args:
    params: any pytree; arrays of other kinds, as keys and counts, are left out.

  Raises:
    ValueError: there is none, or one is empty, NaN or infinite, by name.
  """
  found = tuple(_statistics(params))
  if not found:
    raise ValueError('params hold no array of floating-point numbers.')
  return found


def _statistics(params) -> Iterator[WeightStatistics]:
  for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
    if not jax.numpy.issubdtype(jax.numpy.result_type(leaf), np.floating):
      continue
    name, x = _name(path), np.asarray(leaf, np.float64)
    if not x.size or not np.isfinite(x).all():
      raise ValueError(
        f'{name!r} of shape {x.shape} is empty or holds NaN or infinity.'
      )
    yield WeightStatistics(
      name, x.shape, float(x.mean()), float(x.std()), float(x.min()),
      float(x.max()), float(np.mean(x == 0)), float(np.linalg.norm(x)),
    )


def _name(path):
  parts = (
    str(getattr(entry, 'key', getattr(entry, 'idx', getattr(
      entry, 'name', entry
    )))) for entry in path
  )
  # A variable of Flax holds its array as `value`.
  return '.'.join(part for part in parts if part != 'value')


def _percentiles(key, x, y, level, num_samples):
  rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
  # Counts of each image in a resample, as weights: no copy of the data.
  means = (
    rng.multinomial(len(z), np.full(len(z), 1 / len(z)), num_samples) @ z
    / len(z) for z in (x, y)
  )
  first, second = means
  tail = (1 - level) / 2
  return np.quantile(first - second, [tail, 1 - tail], axis=0)


def _checked(name, values):
  values = np.asarray(values, np.float64)
  if values.ndim != 2 or len(values) < 2:
    raise ValueError(
      f'{name} must be (N, C) of at least two images, got {values.shape}.'
    )
  if not np.isfinite(values).all():
    raise ValueError(f'{name} holds NaN or infinity.')
  return values
