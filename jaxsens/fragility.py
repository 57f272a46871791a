"""Which images and classes are fragile: broken by the factors.

An image is the more fragile the more probable a wrong class is under the
factors; among equals, the smaller the share of its range at which a single
factor breaks it. No image leaves the ranking: one of unknown failure
probability stands last.
"""

import dataclasses

import jax
from jax.typing import ArrayLike
import numpy as np

from jaxsens import populations
from jaxsens.gpc import resampling


@dataclasses.dataclass(frozen=True, eq=False)
class Fragility:
  """Which images and classes the factors break.

  Attributes:
    order: (I,) positions of the images, most fragile first; images of unknown
      failure probability last.
    leading_factor: (I,) position of the factor of the largest total index, -1
      where it is undefined.
    tied: (I,) bool, whether the interval of another factor reaches the lower
      end of that of the leading one.
    smallest_range: (I,) smallest share of its range at which a factor breaks
      the image, NaN where none does or none was given.
    group_names: (G) 'all images', then the classes.
    failure_probability: (G,) means over images with intervals.
  """

  order: np.ndarray
  leading_factor: np.ndarray
  tied: np.ndarray
  smallest_range: np.ndarray
  group_names: tuple[str, ...]
  failure_probability: resampling.IntervalEstimate


def rank(
  key: jax.Array,
  population: populations.Population,
  *,
  output: int = 0,
  smallest_range: ArrayLike | None = None,
  num_resamples: int = 1000,
) -> Fragility:
  """Ranks images by how probably, then by how easily the factors break them.

  Args:
    key: typed JAX key.
    population: the images.
    output: position of the output whose indices name the leading factor.
    smallest_range: (I,) smallest share of its range at which a single factor
      breaks the image, NaN where none does; None: not known.
    num_resamples: resamples of the images.

  Returns:
    The ranking, and the failure probability of each class.

  Raises:
    ValueError: smallest ranges of another shape.
  """
  failure = np.asarray(population.failure_probability, np.float64)
  if smallest_range is None:
    smallest_range = np.full(failure.shape, np.nan)
  smallest_range = np.asarray(smallest_range, np.float64)
  if smallest_range.shape != failure.shape:
    raise ValueError(
      f'smallest_range: expected shape {failure.shape}, got '
      f'{smallest_range.shape}'
    )
  leading, tied = _leading(population, output)
  known = np.isfinite(failure)
  # lexsort puts NaN last, as the last key decides first.
  order = np.lexsort([smallest_range, -failure])
  members = dict(populations.groups(population.labels, population.class_names))
  inside = [positions[known[positions]] for positions in members.values()]
  estimates = resampling.stack([
    populations.plain_means(
      jax.random.fold_in(key, g), failure[positions], num_resamples
    )
    for g, positions in enumerate(inside)
  ])  # fmt: skip
  return Fragility(
    order, leading, tied, smallest_range, tuple(members), estimates
  )


def _leading(population, output):
  """Position of the leading factor of each image and whether it is shared."""
  total = population.total[:, :, output]
  defined = population.defined[:, output]
  leading = np.where(
    defined, np.argmax(np.where(defined[:, None], total, 0), axis=1), -1
  )
  rows = np.arange(population.num_images)
  lower = population.total_lower[rows, leading, output]
  upper = population.total_upper[:, :, output].copy()
  upper[rows, leading] = -np.inf
  # An interval that is not known reaches no farther than its index.
  upper = np.where(np.isnan(upper), total, upper)
  lower = np.where(np.isnan(lower), total[rows, leading], lower)
  with np.errstate(invalid='ignore'):
    return leading, defined & (upper.max(axis=1) >= lower)
