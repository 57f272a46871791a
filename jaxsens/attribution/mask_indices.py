"""Sobol indices of how much of each block of the image is seen.

Block d of the image is blended with the baseline, by u[d] ~ U(0, 1):

    image(u) = u[block] image + (1 - u[block]) baseline

and the variance of the score over u is attributed to the blocks by the same
estimators that attribute it to physical factors elsewhere in this project. The
total index of a block has its part in every interaction with other blocks.
"""

import dataclasses

import chaospy
import jax
from jax.typing import ArrayLike
import numpy as np

from jaxsens import classifiers
from jaxsens import factors
from jaxsens.attribution import maps
from jaxsens.attribution import masking
from jaxsens.gpc import pick_freeze


@dataclasses.dataclass(frozen=True, eq=False)
class MaskIndices(maps.Attribution):
  """Attribution by variance; `values` (B, H, W, 1) paint total indices.

  Values are shares of a variance, positive up to their error, and do not tell
  for or against. They are 0 where the score has no variance.

  Attributes:
    indices: of the S blocks (factors) and B images (outputs), with intervals;
      its `reasons` tell for which image there are none.
    segments: (H, W) number of the block of each pixel.
  """

  indices: pick_freeze.PickFreezeIndices
  segments: np.ndarray


def mask_indices(
  key: jax.Array,
  classifier: classifiers.Classifier,
  images: ArrayLike,
  targets: ArrayLike | None = None,
  *,
  num_base: int,
  segments: ArrayLike = (8, 8),
  level: float = 0.95,
  num_resamples: int = 0,
  baselines: ArrayLike | None = None,
  quantity: str = 'logit',
  chunk_size: int = 8,
) -> MaskIndices:
  """Returns total Sobol indices of the blocks of masks, and their intervals.

  Args:
    key: typed JAX key of the sample, which all images share, and of resamples.
    classifier: what is explained.
    images: (B, H, W, C).
    targets: see `maps.as_targets`.
    num_base: base points of the estimate; the network is run
      num_base (S + 2) times per image for S blocks.
    segments: see `masking.as_segments`.
    level: nominal coverage of an interval.
    num_resamples: 0 for asymptotic intervals, else of the bootstrap.
    baselines: what is seen where a mask is closed; black if None.
    quantity: see `maps.score`.
    chunk_size: masked images at a time.

  Raises:
    ValueError: see `pick_freeze.sample` and `pick_freeze.estimate`.

  References:
    Fel, Cadene, Chalvidal, Cord, Vigouroux, Serre, Look at the Variance!
    Efficient Black-box Explanations with Sobol-based Sensitivity Analysis,
    2021.
  """
  images = maps.as_images(classifier, images)
  targets = maps.as_targets(classifier, images, targets, chunk_size=chunk_size)
  baselines = maps.as_baselines(images, baselines)
  segments = masking.as_segments(classifier.image_size, segments)
  space = factors.FactorSpace(tuple(
    factors.Factor(f'block {d}', chaospy.Uniform(0, 1))
    for d in range(int(segments.max()) + 1)
  ))
  key_sample, key_resamples = jax.random.split(key)
  sample = pick_freeze.sample(key_sample, space, num_base)
  seen = space.to_values(sample.nodes).astype(np.float32)
  masked = masking.scores_under_masks(
    classifier, images, targets, baselines, _paint, segments, seen,
    quantity=quantity, chunk_size=chunk_size,
  )
  indices = pick_freeze.estimate(
    sample, masked.T, level=level, num_resamples=num_resamples,
    key=key_resamples,
  )
  scores, at_baseline = masking.scores_at_ends(
    classifier, images, targets, baselines, quantity=quantity,
    chunk_size=chunk_size,
  )
  total = np.nan_to_num(indices.total, nan=0.0).T
  return MaskIndices(
    method=f'Sobol indices of masks, {space.dim} blocks, {num_base} base '
    'points',
    values=total[:, segments, None].astype(np.float32), targets=targets,
    scores=scores, baseline_scores=at_baseline,
    num_gradients=masking.counted(0, images),
    num_forwards=masking.counted(sample.num_nodes + 2, images),
    indices=indices, segments=segments,
  )


def _paint(segments: jax.Array, seen: jax.Array) -> jax.Array:
  """Returns the mask of how much of each block is seen, see `masking.Mask`."""
  return seen[segments]
