"""Pictures of features in a plane: principal components and t-SNE.

What looks apart in such a picture may not be, and the other way round; the
number beside it is the share of images that their neighbours in the plane name
rightly, each image being left out when it is named.

References:
  van der Maaten and Hinton, Visualizing data using t-SNE, 2008.
  Kobak and Berens, The art of using t-SNE for single-cell transcriptomics,
  2019, for the start from principal components.
"""

import dataclasses

import jax
from jax.typing import ArrayLike
import numpy as np
from sklearn import decomposition
from sklearn import manifold
from sklearn import neighbors


@dataclasses.dataclass(frozen=True, eq=False)
class Embedding:
  """Images as points of a plane.

  Attributes:
    points: (N, 2) float64.
    method: 'principal components' or 't-SNE'.
    explained: share of the variance along each axis, of components only.
    perplexity: effective number of neighbours, of t-SNE only.
    divergence: Kullback-Leibler divergence reached, of t-SNE only.
  """

  points: np.ndarray
  method: str
  explained: tuple[float, float] | None = None
  perplexity: float | None = None
  divergence: float | None = None


def principal(features: ArrayLike) -> Embedding:
  """Returns the first two principal components of features (N, D).

  The sign is such that the feature of the largest weight has a positive one.

  Raises:
    ValueError: fewer than three images or two features, NaN, or no variance.
  """
  features = _checked(features)
  model = decomposition.PCA(2, svd_solver='full')
  points = model.fit_transform(features)
  return Embedding(
    points, 'principal components',
    explained=tuple(map(float, model.explained_variance_ratio_)),
  )


def default_perplexity(number: int) -> float:
  """Returns min(30, (N - 1) / 3), what t-SNE takes for N images."""
  return min(30.0, (number - 1) / 3)


def checked_perplexity(perplexity: float | None, number: int) -> float:
  """Returns a perplexity that N images allow, the usual one for None.

  Raises:
    ValueError: it is not between 1 and N - 1 (exclusive).
  """
  usual = default_perplexity(number)
  found = usual if perplexity is None else float(perplexity)
  if not 1 < found < number - 1:
    raise ValueError(
      f'perplexity must be above 1 and below the {number - 1} neighbours that '
      f'each of {number} images has, got {found:g}; {usual:.3g} is usual.'
    )
  return found


def tsne(
  key: jax.Array,
  features: ArrayLike,
  *,
  perplexity: float | None = None,
  num_components: int = 50,
  max_iterations: int = 1000,
) -> Embedding:
  """Returns t-SNE of features (N, D), started from principal components.

  Args:
    key: of what scikit-learn draws.
    features: (N, D).
    perplexity: effective number of neighbours; at least 5 shows more than
      chance. None: `default_perplexity`.
    num_components: principal components to which more features are reduced.
    max_iterations: of the descent.

  Raises:
    ValueError: a perplexity that is not between 1 and N - 1 (exclusive), or as
      `principal`.
  """
  features = _checked(features)
  number = len(features)
  perplexity = checked_perplexity(perplexity, number)
  if min(features.shape) > num_components:
    features = decomposition.PCA(
      num_components, svd_solver='full'
    ).fit_transform(features)
  model = manifold.TSNE(
    2, perplexity=perplexity, init='pca', learning_rate='auto',
    max_iter=max_iterations, random_state=random_state(key),
  )
  points = model.fit_transform(features).astype(np.float64)
  return Embedding(
    points, 't-SNE', perplexity=perplexity,
    divergence=float(model.kl_divergence_),
  )


def neighbour_accuracy(
  points: ArrayLike, labels: ArrayLike, *, num_neighbours: int = 5
) -> float:
  """Returns the share of points named rightly by their nearest neighbours.

  Each point is left out when it is named, by the majority of its neighbours;
  of equal votes the smallest class counts. Chance is the sum of the squared
  shares of the classes.

  Args:
    points: (N, D).
    labels: (N,) int.
    num_neighbours: that vote.

  Raises:
    ValueError: shapes that do not fit, or not more points than neighbours.
  """
  points, labels = np.asarray(points, np.float64), np.asarray(labels)
  if points.ndim != 2 or labels.shape != points.shape[:1]:
    raise ValueError(
      f'points must be (N, D) and labels (N,), got {points.shape} and '
      f'{labels.shape}.'
    )
  if not 1 <= num_neighbours < len(points):
    raise ValueError(
      f'num_neighbours must be from 1 to {len(points) - 1} for {len(points)} '
      f'points, got {num_neighbours}.'
    )
  search = neighbors.NearestNeighbors(n_neighbors=num_neighbours).fit(points)
  # Without an argument a point is no neighbour of its own.
  near = search.kneighbors(return_distance=False)
  classes, index = np.unique(labels, return_inverse=True)
  votes = np.eye(len(classes))[index[near]].sum(1)
  return float(np.mean(votes.argmax(1) == index))


def random_state(key: jax.Array) -> int:
  """Returns a seed for scikit-learn that the key decides."""
  return int(jax.random.randint(key, (), 0, 2**31 - 1))


def _checked(features):
  features = np.asarray(features, np.float64)
  if features.ndim != 2 or len(features) < 3 or features.shape[1] < 2:
    raise ValueError(
      'features must be (N, D) of at least three images and two numbers each, '
      f'got {features.shape}.'
    )
  if not np.isfinite(features).all():
    raise ValueError('features hold NaN or infinity.')
  if not np.ptp(features, axis=0).any():
    raise ValueError('features are the same for all images.')
  return features
