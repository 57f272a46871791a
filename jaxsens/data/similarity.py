"""Which images resemble each other: near-duplicates and principal components.

Both work on thumbnails, as `measurements.measure` makes them.
"""

import numpy as np
from scipy.sparse import linalg as sparse_linalg

_CHUNK = 1024
_FULL_SIZE = 400


def near_duplicates(
  thumbnails: np.ndarray, *, threshold: float, max_pairs: int = 100_000
) -> tuple[np.ndarray, np.ndarray]:
  """Returns pairs of images whose thumbnails correlate, the closest first.

  The correlation is that of the pixels of both, all channels together, after
  halving the thumbnails and taking from each its quadratic trend, as all
  images of one lamp have it. It does not see a change of brightness or
  contrast. Images with no more than a trend are in no pair.

  Args:
    thumbnails: (N, S, S, C), S even.
    threshold: smallest correlation of a pair, in (0, 1].
    max_pairs: so many pairs are returned at most.

  Returns:
    pairs: int64 (M, 2), the smaller position first.
    correlations: (M,), descending.

  Raises:
    ValueError: the threshold is out of range.
  """
  if not 0 < threshold <= 1:
    raise ValueError(f'threshold must lie in (0, 1], got {threshold}.')
  n, size = thumbnails.shape[:2]
  half = size // 2
  halved = thumbnails.reshape(n, half, 2, half, 2, thumbnails.shape[-1])
  flat = _without_trend(halved.mean((2, 4))).astype(np.float32)
  flat = flat.reshape(n, half * half * thumbnails.shape[-1])
  norms = np.linalg.norm(flat, axis=1, keepdims=True)
  # Half a level of 8 bits in each pixel is noise of the rounding.
  norms = np.where(norms > 0.5 / 255 * flat.shape[1] ** 0.5, norms, np.inf)
  flat = flat / norms
  pairs, found = [], []
  for start in range(0, n, _CHUNK):
    rows = flat[start:start + _CHUNK]
    likeness = rows @ flat[start:].T
    first, second = np.nonzero(likeness >= threshold - 1e-6)
    above = second > first
    first, second = first[above], second[above]
    pairs.append(np.stack([first, second], axis=1) + start)
    found.append(likeness[first, second])
  if not pairs:
    return np.empty((0, 2), np.int64), np.empty(0)
  pairs, found = np.concatenate(pairs), np.concatenate(found)
  order = np.argsort(-found, kind='stable')[:max_pairs]
  return pairs[order], np.minimum(found[order], 1.0)


def _without_trend(images):
  """Returns (N, S, S, C) less the best quadratic function of the place."""
  size = images.shape[1]
  y, x = np.meshgrid(*[np.linspace(-1, 1, size)] * 2, indexing='ij')
  terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y]).reshape(6, -1)
  basis = np.linalg.qr(terms.T)[0]
  pixels = images.reshape(len(images), size * size, images.shape[-1])
  return pixels - basis @ (basis.T @ pixels)


def principal_components(
  thumbnails: np.ndarray, num: int = 2
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the images in the directions in which they differ most.

  Args:
    thumbnails: (N, S, S, C).
    num: number of directions.

  Returns:
    scores: float64 (N, num), 0 where there are fewer directions.
    shares: part of the variance along each, (num,).

  The sign of a direction is such that its largest entry is positive.
  """
  n = len(thumbnails)
  flat = thumbnails.reshape(n, np.prod(thumbnails.shape[1:]))
  flat = flat.astype(np.float64)
  flat = flat - flat.mean(0) if n else flat
  total = (flat**2).sum()
  scores, shares = np.zeros((n, num)), np.zeros(num)
  if not total:
    return scores, shares
  if min(flat.shape) <= _FULL_SIZE:
    _, values, directions = np.linalg.svd(flat, full_matrices=False)
  else:
    start = np.cos(np.arange(min(flat.shape)))
    _, values, directions = sparse_linalg.svds(flat, k=num, v0=start)
    order = np.argsort(-values)
    values, directions = values[order], directions[order]
  directions = directions[:num]
  largest = np.abs(directions).argmax(1)
  signs = np.sign(directions[np.arange(len(directions)), largest])
  scores[:, :len(directions)] = flat @ (directions * signs[:, None]).T
  shares[:len(directions)] = values[:num] ** 2 / total
  return scores, shares
