"""Remove and debias: pixels are replaced by what their neighbours suggest.

A pixel that is black where its neighbours are not tells a network by its shape
alone which pixels a heat map chose. Here a missing pixel is the weighted mean
of its eight neighbours, known or missing,

    x_i = Σ_j w_ij x_j / Σ_j w_ij,    w = 1/6 beside, 1/12 across a corner,

with the sums over the neighbours inside of the image: one sparse, symmetric
linear system for each image and share, and a little noise on its solution.

References:
  Rong et al., A consistent and efficient evaluation strategy for attribution
  methods, 2022, section 4.2.
"""

from collections.abc import Sequence
import functools

import jax
from jax.typing import ArrayLike
import numpy as np
from scipy import sparse
from scipy.sparse import linalg

from jaxsens import classifiers
from jaxsens.attribution import faithfulness
from jaxsens.attribution import maps
from jaxsens.attribution import measures

ORDERS = ('most_relevant_first', 'least_relevant_first')
"""What is removed first: the largest values of a heat map, or the smallest."""

_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9)
_NEIGHBOURS = {
  (y, x): 1 / 12 if y and x else 1 / 6
  for y in (-1, 0, 1) for x in (-1, 0, 1) if y or x
}


def road(
  key: jax.Array,
  classifier: classifiers.Classifier,
  images: ArrayLike,
  heat_maps: ArrayLike,
  targets: ArrayLike | None = None,
  *,
  quantity: str = 'probability',
  order: str = 'most_relevant_first',
  shares: Sequence[float] = _SHARES,
  noise: float = 0.01,
  chunk_size: int = 8,
) -> faithfulness.Curve:
  """Returns scores while a growing share of the pixels is imputed.

  Args:
    key: of the noise, and of the order of equal values; each image its own.
    classifier: whose score.
    images: (B, H, W, C) in [0, 1].
    heat_maps: (B, H, W).
    targets: see `maps.as_targets`.
    quantity: of one number, see `maps.score`; 'correctness' gives the published
      accuracies.
    order: one of `ORDERS`.
    shares: of the pixels, rising, in (0, 1): something must be left to impute
      from.
    noise: standard deviation of what is added to imputed pixels.
    chunk_size: images at a time.

  Returns:
    The curve, which begins at share 0. A faithful map has a small area with the
    most relevant pixels first, and a large one with the least relevant first.

  Raises:
    ValueError: an unknown order, shares that do not rise in (0, 1) or remove no
      or all pixels, negative noise, heat maps of another size or not finite.
  """
  images = maps.as_images(classifier, images)
  heat_maps = measures.as_heat_maps(heat_maps, images.shape[:3])
  if order not in ORDERS:
    raise ValueError(f'order must be one of {ORDERS}, got {order!r}.')
  size = heat_maps[0].size
  counts = np.round(np.asarray(shares, float) * size).astype(int)
  steps = np.diff([0, *counts, size])
  if not len(counts) or counts.ndim != 1 or (steps <= 0).any() or noise < 0:
    raise ValueError(
      'shares must rise strictly within (0, 1) in parts of a pixel at least, '
      f'and noise not be negative; got {tuple(shares)} of {size} pixels and '
      f'{noise}.'
    )
  targets = maps.as_targets(classifier, images, targets, chunk_size=chunk_size)
  key_ties, key_noise = jax.random.split(key)
  sign = 1 if order == ORDERS[0] else -1
  places = faithfulness.ranks(sign * heat_maps, key_ties)
  scores = maps.run(
    _rows, [images, places, targets, np.arange(len(images))], chunk_size,
    key_noise, classifier, counts=(0, *counts), noise=noise, quantity=quantity,
  )
  return faithfulness.Curve(
    f'ROAD, {order.replace("_", " ")}', np.array([0, *counts]) / size,
    scores.astype(np.float64),
  )


def impute(
  key: jax.Array, image: ArrayLike, missing: ArrayLike, *, noise: float = 0.01
) -> np.ndarray:
  """Returns an image whose missing pixels come from their neighbours.

  Args:
    key: of the noise.
    image: (H, W, C); what the missing pixels hold does not matter.
    missing: (H, W) bool.
    noise: standard deviation of what is added to imputed pixels.

  Returns:
    (H, W, C) of the dtype of the image; not clipped.

  Raises:
    ValueError: other shapes, or all pixels are missing.
  """
  image, missing = np.asarray(image), np.asarray(missing, bool)
  if image.ndim != 3 or missing.shape != image.shape[:2]:
    raise ValueError(
      f'image must be (H, W, C) and missing (H, W), got {image.shape} and '
      f'{missing.shape}.'
    )
  if missing.all():
    raise ValueError('all pixels are missing: nothing to impute from.')
  result = image.copy()
  if missing.any():
    draws = np.asarray(_draws(key, image.shape))[missing]
    result[missing] = means_of_neighbours(image, missing) + noise * draws
  return result


def means_of_neighbours(image: np.ndarray, missing: np.ndarray) -> np.ndarray:
  """Returns the solution of the system at the missing pixels, (M, C) float64.

  Args:
    image: (H, W, C).
    missing: (H, W) bool, some of them.
  """
  rows, columns = np.nonzero(missing)
  number = len(rows)
  ids = np.full(missing.shape, -1)
  ids[missing] = np.arange(number)
  outside = -2
  ids = np.pad(ids, 1, constant_values=outside)
  values = np.pad(image.astype(np.float64), ((1, 1), (1, 1), (0, 0)))
  totals = np.zeros(number)
  known = np.zeros((number, image.shape[2]))
  entries = []
  for (y, x), weight in _NEIGHBOURS.items():
    at = rows + 1 + y, columns + 1 + x
    other = ids[at]
    totals += weight * (other != outside)
    known += weight * (other == -1)[:, None] * values[at]
    coupled = np.flatnonzero(other >= 0)
    entries.append((np.full(len(coupled), -weight), coupled, other[coupled]))
  entries.append((totals, np.arange(number), np.arange(number)))
  data, i, j = (np.concatenate(part) for part in zip(*entries, strict=True))
  system = sparse.csc_matrix((data, (i, j)), shape=(number, number))
  # Symmetric and positive definite: no pivots are needed.
  factors = linalg.splu(
    system, permc_spec='MMD_AT_PLUS_A', diag_pivot_thresh=0.0,
    options={'SymmetricMode': True},
  )
  return factors.solve(known)


@functools.partial(jax.jit, static_argnames='shape')
def _draws(key, shape):
  return jax.random.normal(key, shape, np.float32)


def _rows(
  key, classifier, images, places, targets, indices, *, counts, noise, quantity
):
  # The last chunk is filled up with copies, which need no systems of their own.
  own, copies = np.unique(indices, return_inverse=True)
  first = [int(np.flatnonzero(indices == index)[0]) for index in own]
  result = []
  for step, count in enumerate(counts):
    found = np.stack([
      impute(
        jax.random.fold_in(jax.random.fold_in(key, index), step), images[row],
        places[row] < count, noise=noise,
      )
      for index, row in zip(own, first, strict=True)
    ])[copies]
    result.append(np.asarray(
      maps.scores_of(classifier, found, targets, quantity=quantity)
    ))
  return np.stack(result, 1)
