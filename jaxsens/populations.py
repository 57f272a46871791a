"""Sobol indices of whole data sets of images, as arrays.

A `Population` holds what the analysis of each image gave; here it becomes
statements about the data set: how the indices are distributed over images,
what they are per class, which images and classes are fragile. No image is
dropped without being counted: images whose indices are undefined (an output
without variance has none) are left out of an average by name.

Group 0 is all images, group 1 + label a class. Intervals are of the
population that the images are drawn from, as in `gpc.resampling`.
"""

from collections.abc import Iterator
import dataclasses

import jax
from jax.typing import ArrayLike
import numpy as np

from jaxsens.gpc import resampling

ALL_IMAGES = 'all images'
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)

_PER_FACTOR = tuple(
  f'{index}{end}' for index in ('first_order', 'total')
  for end in ('', '_lower', '_upper')
)  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False)
class Population:
  """Results of the analysis of I images in D factors, for K outputs.

  Attributes:
    image_names: (I) names of the images.
    labels: (I,) true classes, int.
    class_names: names of the classes, by label.
    factor_names: (D) names of the factors.
    output_names: (K) names of the outputs.
    first_order: (I, D, K) first-order indices, NaN where undefined.
    first_order_lower: (I, D, K) lower ends of their 95 % intervals, NaN where
      unknown.
    first_order_upper: (I, D, K) upper ends.
    total: (I, D, K) total indices, NaN where undefined.
    total_lower: (I, D, K) lower ends of their 95 % intervals.
    total_upper: (I, D, K) upper ends.
    mean: (I, K) means of the outputs under the factors.
    variance: (I, K) their variances.
    q2: (I, K) share of the variance explained on held-out nodes.
    failure_probability: (I,) probability of a wrong class under the factors.
    trusted: (I,) bool, whether the indices may be believed.
    method: (I) how each image was analysed.
    num_evaluations: (I,) model runs spent on each image.
    predictions: (I,) classes of the unperturbed images, int.
    reasons: (I) why an image is not trusted, None if it is; () if not told.

  Raises:
    ValueError: shapes that do not agree, labels without a name.
  """

  image_names: tuple[str, ...]
  labels: np.ndarray
  class_names: tuple[str, ...]
  factor_names: tuple[str, ...]
  output_names: tuple[str, ...]
  first_order: np.ndarray
  first_order_lower: np.ndarray
  first_order_upper: np.ndarray
  total: np.ndarray
  total_lower: np.ndarray
  total_upper: np.ndarray
  mean: np.ndarray
  variance: np.ndarray
  q2: np.ndarray
  failure_probability: np.ndarray
  trusted: np.ndarray
  method: tuple[str, ...]
  num_evaluations: np.ndarray
  predictions: np.ndarray
  reasons: tuple[str | None, ...] = ()

  def __post_init__(self):
    sizes = self.num_images, len(self.factor_names), len(self.output_names)
    shapes = {name: sizes for name in _PER_FACTOR}
    shapes |= {name: sizes[::2] for name in ('mean', 'variance', 'q2')}
    shapes |= {name: sizes[:1] for name in (
      'labels', 'failure_probability', 'trusted', 'num_evaluations',
      'predictions', 'method',
    )}  # fmt: skip
    shapes |= {'reasons': sizes[:1]} if self.reasons else {}
    for name, shape in shapes.items():
      if np.shape(getattr(self, name)) != shape:
        raise ValueError(
          f'Population: {name} has shape {np.shape(getattr(self, name))}, '
          f'expected {shape} for {sizes[0]} images, {sizes[1]} factors and '
          f'{sizes[2]} outputs'
        )
    if not sizes[0]:
      raise ValueError('Population: image_names is empty, expected images')
    check_labels(self.labels, self.class_names)

  @property
  def num_images(self) -> int:
    """Number of images I."""
    return len(self.image_names)

  @property
  def defined(self) -> np.ndarray:
    """(I, K) bool, whether an output of an image has indices."""
    return np.isfinite(self.first_order + self.total).all(axis=1)

  @property
  def correct(self) -> np.ndarray:
    """(I,) bool, whether the unperturbed image gets its class."""
    return np.asarray(self.predictions) == np.asarray(self.labels)


@dataclasses.dataclass(frozen=True, eq=False)
class Distribution:
  """Quantiles over images of the indices, for G groups of images.

  Attributes:
    group_names: (G) 'all images', then the classes.
    levels: (Q) probabilities of the quantiles.
    first_order: (G, Q, D, K) quantiles, NaN for a group without any index.
    total: (G, Q, D, K) likewise.
    num_images: (G,) images of each group.
    num_defined: (G, K) those of them whose indices are defined.
    undefined_names: (K) names of the images without indices.
  """

  group_names: tuple[str, ...]
  levels: tuple[float, ...]
  first_order: np.ndarray
  total: np.ndarray
  num_images: np.ndarray
  num_defined: np.ndarray
  undefined_names: tuple[tuple[str, ...], ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Aggregates:
  """Averages over images with 95 % intervals, for G groups; each (G, D, K).

  Attributes:
    group_names: (G) 'all images', then the classes.
    num_defined: (G, K) images that were averaged.
    mean_first_order: mean over images, each image one answer.
    mean_total: likewise.
    weighted_first_order: Σ_i V_i S_i / Σ_i V_i, the index of the vector of the
      outputs of all images (generalised index).
    weighted_total: likewise.
  """

  group_names: tuple[str, ...]
  num_defined: np.ndarray
  mean_first_order: resampling.IntervalEstimate
  mean_total: resampling.IntervalEstimate
  weighted_first_order: resampling.IntervalEstimate
  weighted_total: resampling.IntervalEstimate


def check_labels(labels: ArrayLike, class_names: tuple[str, ...]) -> None:
  """Raises ValueError for a label without a class name."""
  labels = np.asarray(labels)
  if labels.dtype.kind not in 'iu' or np.any(
    (labels < 0) | (labels >= len(class_names))
  ):
    raise ValueError(
      f'labels: expected integers 0 to {len(class_names) - 1} for the classes '
      f'{list(class_names)}, got {np.unique(labels).tolist()}'
    )


def groups(
  labels: ArrayLike, class_names: tuple[str, ...]
) -> Iterator[tuple[str, np.ndarray]]:
  """Yields the name and the positions (n,) of all images and of each class."""
  labels = np.asarray(labels)
  yield ALL_IMAGES, np.arange(len(labels))
  for label, name in enumerate(class_names):
    yield name, np.flatnonzero(labels == label)


def distribution(
  population: Population, *, levels: tuple[float, ...] = LEVELS
) -> Distribution:
  """Quantiles of every index over images, overall and per class.

  Args:
    population: the images.
    levels: probabilities of the quantiles.

  Returns:
    The quantiles; images without indices are counted and named.
  """
  defined = population.defined
  members = dict(groups(population.labels, population.class_names))
  undefined = tuple(
    tuple(population.image_names[i] for i in np.flatnonzero(~defined[:, k]))
    for k in range(len(population.output_names))
  )
  return Distribution(
    tuple(members), tuple(levels),
    *(_quantiles(index, defined, members, levels)
      for index in (population.first_order, population.total)),
    np.array([len(inside) for inside in members.values()]),
    np.array([defined[inside].sum(axis=0) for inside in members.values()]),
    undefined,
  )  # fmt: skip


def aggregate(
  key: jax.Array,
  population: Population,
  *,
  include: ArrayLike | None = None,
  num_resamples: int = 1000,
  error_correlation: float = 0.0,
) -> Aggregates:
  """Averages of the indices over images, overall and per class.

  Args:
    key: typed JAX key.
    population: the images.
    include: (I,) bool, images to average; None: all whose indices are defined.
    num_resamples: resamples of the images.
    error_correlation: as in `resampling.weighted_means`.

  Returns:
    The averages; intervals are cut to [0, 1] and NaN for one image.

  Raises:
    ValueError: a mask of another shape.

  References:
    Gamboa, Janon, Klein, Lagnoux, Sensitivity analysis for multidimensional
    and functional outputs, 2014.
  """
  usable = population.defined
  if include is not None:
    include = np.asarray(include, bool)
    if include.shape != (population.num_images,):
      raise ValueError(
        f'include: expected shape ({population.num_images},), got '
        f'{include.shape}'
      )
    usable = usable & include[:, None]
  members = dict(groups(population.labels, population.class_names))

  def means(index, key, weights):
    return _over_groups(
      key, population, index, weights, usable, members,
      num_resamples=num_resamples, error_correlation=error_correlation,
    )  # fmt: skip

  keys = jax.random.split(key, 4)
  ones = np.ones_like(population.variance)
  return Aggregates(
    tuple(members),
    np.array([usable[inside].sum(axis=0) for inside in members.values()]),
    means('first_order', keys[0], ones), means('total', keys[1], ones),
    means('first_order', keys[2], population.variance),
    means('total', keys[3], population.variance),
  )  # fmt: skip


def plain_means(
  key: jax.Array, values: np.ndarray, num_resamples: int
) -> resampling.IntervalEstimate:
  """Means over images of exact values (I, ...), ends cut to [0, 1]."""
  flat = values.reshape(len(values), int(np.prod(values.shape[1:])))
  means = resampling.weighted_means(
    key, flat, np.zeros_like(flat), np.ones(len(flat)),
    num_resamples=num_resamples,
  )  # fmt: skip
  return _shaped(means, values.shape[1:])


def _shaped(estimate, shape) -> resampling.IntervalEstimate:
  """The estimate in another shape, ends cut to [0, 1]."""
  return resampling.IntervalEstimate(
    estimate.value.reshape(shape),
    np.clip(estimate.lower, 0, 1).reshape(shape),
    np.clip(estimate.upper, 0, 1).reshape(shape),
  )


def _quantiles(index, defined, members, levels):
  """(G, Q, D, K) quantiles over the images with indices."""
  _, dim, num_outputs = index.shape
  shape = len(members), len(levels), dim, num_outputs
  quantiles = np.full(shape, np.nan)
  for g, inside in enumerate(members.values()):
    for k in range(num_outputs):
      known = index[inside[defined[inside, k]], :, k]
      if len(known):
        quantiles[g, :, :, k] = np.quantile(known, levels, axis=0)
  return quantiles


def _over_groups(key, population, index, weights, usable, members, **options):
  """Estimates (G, D, K) of the means of one index in every group."""
  values = getattr(population, index)
  lower, upper = (
    getattr(population, f'{index}_{end}') for end in ('lower', 'upper')
  )
  half_widths = np.maximum(upper - values, values - lower)
  rows = []
  for g, inside in enumerate(members.values()):
    columns = []
    for k in range(values.shape[2]):
      kept = inside[usable[inside, k]]
      columns.append(resampling.weighted_means(
        # One resampling of the images serves all outputs of a group.
        jax.random.fold_in(key, g), values[kept, :, k],
        half_widths[kept, :, k], weights[kept, k], **options,
      ))  # fmt: skip
    rows.append(resampling.stack(columns, axis=-1))
  stacked = resampling.stack(rows)
  return _shaped(stacked, stacked.value.shape)
