"""Scores of images of which a mask lets only a part through.

    blended[n] = mask[n] image + (1 - mask[n]) baseline,    mask in [0, 1]

A mask is a pure function of `shared`, which all masks have, and of a row of its
own. Masks are made where they are used, a chunk at a time, and the same ones
serve every image: neither their number nor that of the images is in the memory,
but for one score each.
"""

from collections.abc import Callable
from collections.abc import Sequence
import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np

from jaxsens import classifiers
from jaxsens.attribution import maps

Mask = Callable[..., jax.Array]
"""(shared, row) -> (H, W) in [0, 1]; a function made once, or hashable."""


def scores_under_masks(
  classifier: classifiers.Classifier,
  images: np.ndarray,
  targets: np.ndarray,
  baselines: np.ndarray,
  make_mask: Mask,
  shared: ArrayLike,
  rows: np.ndarray,
  *,
  quantity: str,
  chunk_size: int,
) -> np.ndarray:
  """Returns the score of every image under every mask, (B, N) float64.

  Args:
    classifier: what is explained.
    images: (B, H, W, C).
    targets: (B,) classes.
    baselines: (B, H, W, C), seen where a mask is 0.
    make_mask: see `Mask`.
    shared: its first argument.
    rows: N rows, its second argument.
    quantity: see `maps.score`.
    chunk_size: masks at a time.
  """
  shared, found = jnp.asarray(shared), []
  for image, baseline, target in zip(images, baselines, targets, strict=True):
    found.append(maps.run(
      _scores, [rows], chunk_size, classifier, jnp.asarray(image),
      jnp.asarray(baseline), target, shared, make_mask=make_mask,
      quantity=quantity,
    ))
  return np.asarray(found, np.float64)


def scores_at_ends(
  classifier: classifiers.Classifier,
  images: np.ndarray,
  targets: np.ndarray,
  baselines: np.ndarray,
  *,
  quantity: str,
  chunk_size: int,
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the scores of images and of baselines, (B,) float64 each."""
  first, second = (
    maps.run(
      maps.scores_of, [x, targets], chunk_size, classifier, quantity=quantity
    )
    for x in (images, baselines)
  )
  return first.astype(np.float64), second.astype(np.float64)


def weighted_sums(
  make_mask: Mask,
  shared: ArrayLike,
  rows: np.ndarray,
  weights: np.ndarray,
  *,
  power: int = 1,
  chunk_size: int = 64,
) -> np.ndarray:
  """Returns sums over masks, (R, H, W) float64.

      sums[r] = Σ_n weights[r, n] mask[n]^power

  Args:
    make_mask: see `Mask`.
    shared: its first argument.
    rows: N rows, its second argument.
    weights: (R, N).
    power: of the masks.
    chunk_size: masks at a time.
  """
  shared, total = jnp.asarray(shared), 0.0
  size = min(chunk_size, len(rows))
  for start in range(0, len(rows), size):
    index = np.arange(start, start + size)
    inside = index < len(rows)
    index = np.minimum(index, len(rows) - 1)
    part = np.asarray(weights[:, index] * inside, np.float32)
    total = total + np.asarray(
      _sums(shared, rows[index], part, make_mask=make_mask, power=power),
      np.float64,
    )
  return total


def as_segments(size: tuple[int, int], segments: ArrayLike) -> np.ndarray:
  """Returns the number of the segment of every pixel, (H, W) int32.

  Args:
    size: (height, width) of the images.
    segments: (rows, columns) of a grid of rectangles, as equal as they get, or
      (H, W) numbers from 0, of which none is left out.

  Raises:
    ValueError: neither of them, or a grid finer than the pixels.
  """
  given = np.asarray(segments)
  if not np.issubdtype(given.dtype, np.integer) or given.shape not in (
    (2,), tuple(size)
  ):
    raise ValueError(
      'segments must be (rows, columns) of a grid or integers of shape '
      f'{tuple(size)}, got {given.dtype} of shape {given.shape}.'
    )
  if given.shape == (2,):
    if np.any(given < 1) or np.any(given > np.array(size)):
      raise ValueError(
        f'segments: a grid over {tuple(size)} pixels has at least one and at '
        f'most one block per pixel along each side, got {tuple(given)}.'
      )
    row, column = (np.arange(s) * g // s for s, g in zip(size, given))  # noqa: B905
    given = row[:, None] * given[1] + column
  found = np.unique(given)
  if not np.array_equal(found, np.arange(len(found))):
    raise ValueError(
      'segments must be numbered from 0 without a gap, got '
      f'{len(found)} numbers from {found[0]} to {found[-1]}.'
    )
  return given.astype(np.int32)


def counted(number: int, images: Sequence) -> np.ndarray:
  """Returns a number once per image, (B,) int64."""
  return np.full(len(images), number, np.int64)


@functools.partial(jax.jit, static_argnames=('make_mask', 'quantity'))
def _scores(
  classifier, image, baseline, target, shared, rows, *, make_mask, quantity
):
  masks = jax.vmap(make_mask, (None, 0))(shared, rows)
  masks = masks[..., None].astype(image.dtype)
  blended = masks * image + (1 - masks) * baseline
  targets = jnp.full(len(masks), target)
  return maps.score(classifier, blended, targets, quantity)


@functools.partial(jax.jit, static_argnames=('make_mask', 'power'))
def _sums(shared, rows, weights, *, make_mask, power):
  masks = jax.vmap(make_mask, (None, 0))(shared, rows) ** power
  return jnp.einsum(
    'rn,nhw->rhw', weights, masks.astype(weights.dtype),
    precision=jax.lax.Precision.HIGHEST,
  )
