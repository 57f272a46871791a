"""Does the score of a network move where a heat map says that it should?

Pixels are taken away (or given back) in the order of a heat map and the score
of the target class is followed. A faithful map has a low curve of deletion and
a high one of insertion; a map without any information has the same area under
both, on average over its draws. Perturbed images exist one chunk at a time.
"""

from collections.abc import Sequence
import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np
from scipy import ndimage

from jaxsens import classifiers
from jaxsens.attribution import maps
from jaxsens.attribution import measures

_BLUR = 10.0


@dataclasses.dataclass(frozen=True, eq=False)
class Curve:
  """The score of images while more and more of their pixels are exchanged.

  Attributes:
    name: what was done.
    shares: (S + 1,) float64 share of the pixels, rising; the first is zero.
    scores: (B, S + 1) float64; the first column is at no exchanged pixel.
  """

  name: str
  shares: np.ndarray
  scores: np.ndarray

  @property
  def areas(self) -> np.ndarray:
    """(B,) areas by the trapezoidal rule over the range of the shares."""
    steps = np.diff(self.shares)
    middles = (self.scores[:, 1:] + self.scores[:, :-1]) / 2
    return middles @ steps / steps.sum()


def deletion(
  classifier: classifiers.Classifier,
  images: ArrayLike,
  heat_maps: ArrayLike,
  targets: ArrayLike | None = None,
  *,
  quantity: str = 'probability',
  num_steps: int = 20,
  baselines: ArrayLike | str | None = None,
  key: jax.Array | None = None,
  chunk_size: int = 8,
) -> Curve:
  """Returns scores while the pixels of largest values become the baseline.

  Args:
    classifier: whose score.
    images: (B, H, W, C) in [0, 1].
    heat_maps: (B, H, W).
    targets: see `maps.as_targets`.
    quantity: of one number, see `maps.score`.
    num_steps: S equal parts of the pixels.
    baselines: what takes their place: None for black, 'blur' for the image
      under a Gaussian of 10 pixels, or as `maps.as_baselines` takes them.
    key: orders equal values at random, so that a constant map is a random
      order; None orders them row by row from the top.
    chunk_size: images at a time.

  Returns:
    The curve; the smaller its area, the better the map.

  Raises:
    ValueError: heat maps of another size or not finite (the images are named),
      or more steps than pixels.

  References:
    Petsiuk et al., RISE, 2018, section 4.1.
  """
  return _curve(
    'deletion', classifier, images, heat_maps, targets, quantity, num_steps,
    baselines, key, chunk_size,
  )


def insertion(
  classifier: classifiers.Classifier,
  images: ArrayLike,
  heat_maps: ArrayLike,
  targets: ArrayLike | None = None,
  *,
  quantity: str = 'probability',
  num_steps: int = 20,
  baselines: ArrayLike | str | None = None,
  key: jax.Array | None = None,
  chunk_size: int = 8,
) -> Curve:
  """Returns scores while the baseline gets back the pixels of largest values.

  Args: as in `deletion`.

  Returns:
    The curve; the larger its area, the better the map.

  Raises:
    ValueError: as in `deletion`.

  References:
    Petsiuk et al., RISE, 2018, section 4.1.
  """
  return _curve(
    'insertion', classifier, images, heat_maps, targets, quantity, num_steps,
    baselines, key, chunk_size,
  )


def mufidelity(
  key: jax.Array,
  classifier: classifiers.Classifier,
  images: ArrayLike,
  heat_maps: ArrayLike,
  targets: ArrayLike | None = None,
  *,
  quantity: str = 'probability',
  grid_size: int = 9,
  share: float = 0.2,
  num_samples: int = 200,
  baselines: ArrayLike | str | None = None,
  chunk_size: int = 8,
) -> measures.Measure:
  """Returns how well sums of a map rank what masking costs.

      rank correlation over subsets S of (Σ_{i in S} map_i, F(x) - F(x_S))

  where x_S has the baseline in the blocks S, round(share G²) of G x G.

  Args:
    key: of the subsets; image b and subset s have their own.
    classifier: whose score F.
    images: (B, H, W, C) in [0, 1].
    heat_maps: (B, H, W) whose sums are in units of the score, up to a factor.
    targets: see `maps.as_targets`.
    quantity: of one number, see `maps.score`.
    grid_size: G, blocks along height and width.
    share: of the blocks in a subset, in (0, 1).
    num_samples: subsets.
    baselines: as in `deletion`.
    chunk_size: images at a time.

  Returns:
    Spearman's correlations; NaN where all sums or all drops are equal.

  Raises:
    ValueError: heat maps of another size or not finite, a grid finer than the
      image, a share of no or of all blocks, fewer than two samples.

  References:
    Bhatt et al., Evaluating and aggregating feature-based model explanations,
    2020, definition 3; the blocks as in Fel et al., Look at the variance, 2021.
  """
  images = maps.as_images(classifier, images)
  size = images.shape[1:3]
  count = round(share * grid_size**2)
  if not 1 <= grid_size <= min(size):
    raise ValueError(
      f'grid_size must be from 1 to the shorter side, {min(size)} pixels, got '
      f'{grid_size}.'
    )
  if not 0 < count < grid_size**2 or num_samples < 2:
    raise ValueError(
      f'share must leave and take blocks of {grid_size}² and num_samples be at '
      f'least 2, got {share} (blocks: {count}) and {num_samples}.'
    )
  heat_maps = measures.as_heat_maps(heat_maps, images.shape[:3])
  targets = maps.as_targets(classifier, images, targets, chunk_size=chunk_size)
  rows = [images, as_replacements(images, baselines),
          heat_maps.astype(images.dtype), targets, np.arange(len(images))]
  sums, masked, scores = maps.run(
    _subset_rows, rows, chunk_size, key, classifier, quantity=quantity,
    num_samples=num_samples, grid_size=grid_size, count=count,
  )
  drops = scores[:, None].astype(np.float64) - masked
  return measures.Measure('MuFidelity', measures.spearman(sums, drops))


def as_replacements(
  images: np.ndarray, baselines: ArrayLike | str | None
) -> np.ndarray:
  """Returns what stands in place of pixels, (B, H, W, C).

  Args:
    images: (B, H, W, C).
    baselines: None, 'blur' or an array, see `deletion`.

  Raises:
    ValueError: another word or shape.
  """
  if not isinstance(baselines, str):
    return maps.as_baselines(images, baselines)
  if baselines != 'blur':
    raise ValueError(
      f"baselines must be None (black), 'blur' or an array, got {baselines!r}."
    )
  return np.stack([
    ndimage.gaussian_filter(x, (_BLUR, _BLUR, 0), mode='nearest')
    for x in images
  ])


def ranks(
  heat_maps: np.ndarray, key: jax.Array | None = None
) -> np.ndarray:
  """Returns the place of every pixel in the order of a map, (B, H, W) int32.

  Args:
    heat_maps: (B, H, W); the largest value has place 0.
    key: orders equal values at random, with a draw of its own for each image;
      None orders them row by row from the top.
  """
  number, size = len(heat_maps), heat_maps[0].size
  result = np.empty((number, size), np.int32)
  for i, heat_map in enumerate(heat_maps.reshape(number, size)):
    ties = np.arange(size) if key is None else np.asarray(
      jax.random.permutation(jax.random.fold_in(key, i), size)
    )
    result[i, np.lexsort((ties, -heat_map))] = np.arange(size)
  return result.reshape(heat_maps.shape)


def _curve(
  name, classifier, images, heat_maps, targets, quantity, num_steps, baselines,
  key, chunk_size,
):
  images = maps.as_images(classifier, images)
  heat_maps = measures.as_heat_maps(heat_maps, images.shape[:3])
  size = heat_maps[0].size
  if not 1 <= num_steps <= size:
    raise ValueError(
      f'num_steps must be from 1 to the number of pixels, {size}, got '
      f'{num_steps}.'
    )
  targets = maps.as_targets(classifier, images, targets, chunk_size=chunk_size)
  counts = np.round(np.linspace(0, size, num_steps + 1)).astype(np.int32)
  pair = [images, as_replacements(images, baselines)]
  before, after = pair if name == 'deletion' else pair[::-1]
  scores = maps.run(
    _curve_rows, [before, after, ranks(heat_maps, key), targets], chunk_size,
    classifier, counts=counts, quantity=quantity,
  )
  return Curve(name, counts / size, scores.astype(np.float64))


def _curve_rows(
  classifier, before, after, ranks, targets, *, counts: Sequence[int],
  quantity: str,
):
  return np.stack([
    np.asarray(_exchanged(
      classifier, before, after, ranks, targets, count, quantity=quantity
    ))
    for count in counts
  ], 1)


@functools.partial(jax.jit, static_argnames='quantity')
def _exchanged(classifier, before, after, ranks, targets, count, *, quantity):
  images = jnp.where((ranks < count)[..., None], after, before)
  return maps.score(classifier, images, targets, quantity)


def _subset_rows(
  key, classifier, images, baselines, heat_maps, targets, indices, *,
  num_samples, quantity, **options,
):
  found = [
    jax.tree.map(np.asarray, _subset(
      key, classifier, images, baselines, heat_maps, targets, indices, sample,
      quantity=quantity, **options,
    ))
    for sample in np.arange(num_samples)
  ]
  sums, masked = (np.stack(parts, 1) for parts in zip(*found, strict=True))
  scores = maps.scores_of(classifier, images, targets, quantity=quantity)
  return sums, masked, scores


@functools.partial(
  jax.jit, static_argnames=('quantity', 'grid_size', 'count')
)
def _subset(
  key, classifier, images, baselines, heat_maps, targets, indices, sample, *,
  quantity, grid_size, count,
):
  """Returns sums of the map in one subset per image, (b,), and scores, (b,)."""
  def draw(index):
    own = jax.random.fold_in(jax.random.fold_in(key, index), sample)
    order = jax.random.permutation(own, grid_size**2)
    return (order < count).reshape(grid_size, grid_size)

  height, width = images.shape[1:3]
  rows = np.arange(height) * grid_size // height
  columns = np.arange(width) * grid_size // width
  chosen = jax.vmap(draw)(indices)[:, rows[:, None], columns]
  sums = jnp.sum(jnp.where(chosen, heat_maps, 0), (1, 2))
  masked = jnp.where(chosen[..., None], baselines, images)
  return sums, maps.score(classifier, masked, targets, quantity)
