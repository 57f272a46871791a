"""Sobol indices of the accuracy itself, over a common tensor grid of factors.

Whether image i gets its class at the factors x is correct_i(x), 0 or 1 or the
probability of it. The accuracy of a group of I images is a function of the
factors like any output,

    A(x) = 1/I Σ_i correct_i(x)

and its indices say what moves the accuracy of the data set: a factor that
breaks one half of the images where it mends the other half does not. They are
given twice. Those of A for exactly these images have no sampling error; for
images *like* these, each V_u is estimated from pairs of different images,

    V_u = 1 / (I (I - 1)) Σ_{i ≠ j} <correct_i, correct_j>_u

because the V_u of a mean over I images is too large by the spread of the
images / I, which reads as interactions when images are few. Intervals
resample the images.

References:
  Efron, Stein, The jackknife estimate of variance, 1981.
  Hoeffding, A class of statistics with asymptotically normal distribution,
  1948 (averages over pairs).
"""

from collections.abc import Sequence
import dataclasses

import jax
from jax.typing import ArrayLike
import numpy as np

from jaxsens import populations
from jaxsens.gpc import designs
from jaxsens.gpc import grid_anova
from jaxsens.gpc import resampling
from jaxsens.gpc import sobol_indices


@dataclasses.dataclass(frozen=True, eq=False)
class AccuracyIndices:
  """Indices of the accuracy of G groups of images in D factors.

  Attributes:
    group_names: (G) 'all images', then the classes.
    num_images: (G,) images of each group.
    subsets: (S) sets of factor positions, by size, then by position.
    accuracy: (G,) mean of A over the factors.
    deviation: (G,) standard deviation of A over the factors, images like
      these; 0 where the pairs show none.
    first_order: (G, D) indices for images like these; NaN where the accuracy
      does not vary or the group has fewer than two images.
    total: (G, D) likewise.
    subset_values: (G, S) S_u of A for exactly these images, NaN where it does
      not vary.
    exact_first_order: (G, D) for exactly these images.
    exact_total: (G, D) likewise.
    main_effects: D estimates (G, n_d) of E[A | x_d] along each factor.
  """

  group_names: tuple[str, ...]
  num_images: np.ndarray
  subsets: tuple[tuple[int, ...], ...]
  accuracy: resampling.IntervalEstimate
  deviation: np.ndarray
  first_order: resampling.IntervalEstimate
  total: resampling.IntervalEstimate
  subset_values: np.ndarray
  exact_first_order: np.ndarray
  exact_total: np.ndarray
  main_effects: tuple[resampling.IntervalEstimate, ...]


def accuracy_indices(
  key: jax.Array,
  correct: ArrayLike,
  weights: Sequence[ArrayLike],
  labels: ArrayLike,
  class_names: tuple[str, ...],
  *,
  num_resamples: int = 1000,
) -> AccuracyIndices:
  """Sobol indices of the accuracy, overall and per class.

  Args:
    key: typed JAX key.
    correct: (I, M) or (I, n_1, ..., n_D), in [0, 1], on a tensor grid of
      M = Π_d n_d nodes, the last factor fastest as in `designs.tensor_gauss`.
    weights: D arrays (n_d,) of the nodes along each factor, of sum one.
    labels: (I,) true classes, int.
    class_names: names of the classes, by label.
    num_resamples: resamples of the images.

  Returns:
    The indices; intervals are of 95 %, cut to [0, 1].

  Raises:
    ValueError: shapes that do not agree, values outside of [0, 1], labels
      without a name, weights not of sum one.
  """
  table = _checked(correct, weights, labels, class_names)
  dim = len(weights)
  images_last = np.moveaxis(table, 0, -1)
  coefficients = grid_anova.coefficients(images_last, weights)
  subsets = grid_anova.subsets(dim)
  members = dict(populations.groups(labels, class_names))
  exact = np.empty((len(members), len(subsets)))
  pairs = [np.empty((num_resamples + 1, len(subsets))) for _ in members]
  counts = _counts(key, members, num_resamples)
  for s, subset in enumerate(subsets):
    block = coefficients[grid_anova.block(subset, dim)]
    block = block.reshape(-1, len(table))
    products = block.T @ block
    for g, inside in enumerate(members.values()):
      inner = products[np.ix_(inside, inside)]
      exact[g, s] = inner.sum() / max(len(inside), 1) ** 2
      pairs[g][:, s] = _over_pairs(inner, counts[g])
  effects = [
    np.moveaxis(effect, -1, 0)
    for effect in grid_anova.main_effects(images_last, weights)
  ]
  totals = [
    np.tensordot(effect, np.asarray(rule), axes=([1], [0]))
    for effect, rule in zip(effects, weights, strict=True)
  ]

  def means(values):
    return resampling.stack([
      populations.plain_means(
        jax.random.fold_in(key, g), values[inside], num_resamples
      ) for g, inside in enumerate(members.values())
    ])  # fmt: skip

  first_order, total = (
    resampling.stack([
      _shares(matrix(subsets, dim), variances, len(inside))
      for variances, inside in zip(pairs, members.values(), strict=True)
    ]) for matrix in (
      sobol_indices.first_order_matrix, sobol_indices.total_matrix
    )
  )  # fmt: skip
  shares = _divided(exact, exact.sum(axis=1, keepdims=True))
  return AccuracyIndices(
    tuple(members),
    np.array([len(inside) for inside in members.values()]),
    subsets,
    means(totals[0]),
    np.sqrt(np.maximum(np.nan_to_num([v[0].sum() for v in pairs]), 0)),
    first_order, total, shares,
    shares @ sobol_indices.first_order_matrix(subsets, dim).T,
    shares @ sobol_indices.total_matrix(subsets, dim).T,
    tuple(means(effect) for effect in effects),
  )  # fmt: skip


def _counts(key, members, num_resamples):
  """For each group (1 + B, n) how often an image counts, the group first."""
  counts = []
  for g, inside in enumerate(members.values()):
    generator = designs.random_generator(jax.random.fold_in(key, g))
    drawn = np.zeros((num_resamples, 0))
    if len(inside):
      drawn = resampling.draw_counts(generator, len(inside), num_resamples)
    counts.append(np.concatenate([np.ones((1, len(inside))), drawn]))
  return counts


def _over_pairs(inner: np.ndarray, counts: np.ndarray) -> np.ndarray:
  """(1 + B,) mean inner product of pairs of different images; NaN without."""
  squares = counts**2
  sums = np.einsum('bi,bi->b', counts @ inner, counts)
  sums -= squares @ np.diagonal(inner)
  num_pairs = counts.sum(axis=1) ** 2 - squares.sum(axis=1)
  return _divided(sums, num_pairs)


def _shares(matrix, variances, num_images) -> resampling.IntervalEstimate:
  """Indices (D,) of the first row of variances, the others its replicates."""
  whole = variances.sum(axis=1, keepdims=True)
  shares = np.clip(_divided(variances @ matrix.T, whole), 0, 1)
  estimate = resampling.student_interval(
    shares[0], shares[1:], np.ones(num_images), 0.95
  )
  known = np.where(np.isfinite(estimate.value), 0.0, np.nan)
  return resampling.IntervalEstimate(
    estimate.value,
    np.clip(estimate.lower, 0, 1) + known,
    np.clip(estimate.upper, 0, 1) + known,
  )


def _divided(numerator, denominator):
  """The quotient, NaN where the denominator is no more than rounding."""
  numerator, denominator = np.broadcast_arrays(numerator, denominator)
  return np.divide(
    numerator, denominator, out=np.full(numerator.shape, np.nan),
    where=denominator > 1e-24,
  )  # fmt: skip


def _checked(correct, weights, labels, class_names):
  """(I, n_1, ..., n_D) float64 after a check."""
  table = np.asarray(correct, np.float64)
  shape = tuple(np.size(rule) for rule in weights)
  if not table.size or table.shape[1:] not in (shape, (np.prod(shape),)):
    raise ValueError(
      f'correct: expected shape (I, {np.prod(shape)}) or (I, '
      f'{", ".join(map(str, shape))}) for weights of sizes {shape}, got '
      f'{table.shape}'
    )
  if not np.all((table >= 0) & (table <= 1)):
    raise ValueError('correct: expected numbers in [0, 1]')
  if np.shape(labels) != table.shape[:1]:
    raise ValueError(
      f'labels: expected shape {table.shape[:1]}, got {np.shape(labels)}'
    )
  populations.check_labels(labels, class_names)
  return table.reshape(len(table), *shape)
