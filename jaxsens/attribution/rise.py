"""Scores of the image under random masks, averaged where a mask was open."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np

from jaxsens import classifiers
from jaxsens.attribution import maps
from jaxsens.attribution import masking


@dataclasses.dataclass(frozen=True, eq=False)
class Rise(maps.Attribution):
  """Attribution by random masks; `values` (B, H, W, 1) are mean scores.

  A value is the mean score given that the pixel is seen. Only differences
  between pixels tell something: the mean over all masks is in each.

  Attributes:
    standard_errors: (B, H, W) of the values, over the random masks.
    num_masks: number of masks.
  """

  standard_errors: np.ndarray
  num_masks: int


def rise(
  key: jax.Array,
  classifier: classifiers.Classifier,
  images: ArrayLike,
  targets: ArrayLike | None = None,
  *,
  num_masks: int,
  grid: int | tuple[int, int] = 7,
  keep: float = 0.5,
  baselines: ArrayLike | None = None,
  quantity: str = 'logit',
  chunk_size: int = 8,
) -> Rise:
  """Returns the mean score over random masks, weighted by what each shows.

      values[p] = Σ_n score(masked n) mask[n, p] / Σ_n mask[n, p]

  A mask is a grid of cells, each open with probability `keep`, enlarged
  linearly by one cell more than the image has and cut out at a random shift.
  The authors divide by `keep` in place of the mean mask; this adds noise
  proportional to the mean score, and the same in expectation. They take the
  probability as `quantity`.

  Args:
    key: typed JAX key; mask n is of `fold_in(key, n)`, the same for all images.
    classifier: what is explained.
    images: (B, H, W, C).
    targets: see `maps.as_targets`.
    num_masks: number of masks; the authors take 4000 to 8000 for 224 pixels.
    grid: (rows, columns) of cells, or one number for both.
    keep: probability that a cell is open, in (0, 1).
    baselines: what is seen where a mask is closed; black if None.
    quantity: see `maps.score`.
    chunk_size: masked images at a time.

  Raises:
    ValueError: fewer than two masks, a grid finer than the image, or `keep`
      outside of (0, 1).

  References:
    Petsiuk, Das, Saenko, RISE: Randomized Input Sampling for Explanation of
    Black-box Models, 2018, equations 5 to 7.
  """
  images = maps.as_images(classifier, images)
  targets = maps.as_targets(classifier, images, targets, chunk_size=chunk_size)
  baselines = maps.as_baselines(images, baselines)
  grid = tuple(int(n) for n in np.broadcast_to(np.asarray(grid), (2,)))
  if any(not 1 <= g <= s for g, s in zip(grid, classifier.image_size)):  # noqa: B905
    raise ValueError(
      'grid must have at least one cell and at most one per pixel of '
      f'{classifier.image_size}, got {grid}.'
    )
  if num_masks < 2:
    raise ValueError(f'num_masks must be at least 2, got {num_masks}.')
  if not 0 < keep < 1:
    raise ValueError(f'keep must lie in (0, 1), got {keep}.')
  make_mask = _Grid(classifier.image_size, grid, float(keep))
  rows = np.arange(num_masks)
  masked = masking.scores_under_masks(
    classifier, images, targets, baselines, make_mask, key, rows,
    quantity=quantity, chunk_size=chunk_size,
  )
  scores, at_baseline = masking.scores_at_ends(
    classifier, images, targets, baselines, quantity=quantity,
    chunk_size=chunk_size,
  )
  values, errors = _means(make_mask, key, rows, masked)
  return Rise(
    method=f'RISE, {num_masks} masks of {grid[0]}x{grid[1]} cells, '
    f'{keep:g} open',
    values=values[..., None].astype(np.float32), targets=targets,
    scores=scores, baseline_scores=at_baseline,
    num_gradients=masking.counted(0, images),
    num_forwards=masking.counted(num_masks + 2, images),
    standard_errors=errors, num_masks=num_masks,
  )


def _means(make_mask, key, rows, masked):
  """Returns the weighted means of scores and their standard errors."""
  number = len(masked)
  centre = masked.mean(1, keepdims=True)
  off = masked - centre
  one = np.ones((1, len(rows)))
  first = masking.weighted_sums(
    make_mask, key, rows, np.concatenate([off, one])
  )
  weight = first[-1]
  if not np.all(weight > 0):
    raise ValueError(
      f'{len(rows)} masks leave {np.sum(weight <= 0)} pixels in the dark; '
      'num_masks must be larger.'
    )
  mean = first[:-1] / weight
  second = masking.weighted_sums(
    make_mask, key, rows, np.concatenate([off**2, off, one]), power=2
  )
  squares, products, ones = second[:number], second[number:-1], second[-1]
  spread = squares - 2 * mean * products + mean**2 * ones
  error = np.sqrt(np.maximum(spread, 0)) / weight
  return mean + centre[..., None], error


@dataclasses.dataclass(frozen=True)
class _Grid:
  """Random mask of a key and a number, see `masking.Mask`."""

  size: tuple[int, int]
  grid: tuple[int, int]
  keep: float

  def __call__(self, key: jax.Array, row: jax.Array) -> jax.Array:
    key_cells, key_shift = jax.random.split(jax.random.fold_in(key, row))
    cells = jax.random.bernoulli(key_cells, self.keep, self.grid)
    cell = tuple(-(-s // g) for s, g in zip(self.size, self.grid, strict=True))
    down, right = (
      _linear_weights(g, (g + 1) * c)
      for g, c in zip(self.grid, cell, strict=True)
    )
    top, left = jax.random.randint(key_shift, (2,), 0, jnp.array(cell))
    down = jax.lax.dynamic_slice_in_dim(down, top, self.size[0])
    right = jax.lax.dynamic_slice_in_dim(right, left, self.size[1])
    return jnp.einsum(
      'hi,ij,wj->hw', down, cells.astype(jnp.float32), right,
      precision=jax.lax.Precision.HIGHEST,
    )


def _linear_weights(num_cells: int, length: int) -> jax.Array:
  """Returns (length, num_cells) weights, linear between centres of cells."""
  places = (np.arange(length) + 0.5) * num_cells / length - 0.5
  places = np.clip(places, 0, num_cells - 1)
  distance = np.abs(places[:, None] - np.arange(num_cells))
  return jnp.asarray(np.maximum(0, 1 - distance), jnp.float32)
