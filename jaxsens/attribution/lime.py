"""A linear model of the score in the segments that are kept."""

import dataclasses

import jax
from jax.typing import ArrayLike
import numpy as np

from jaxsens import classifiers
from jaxsens.attribution import maps
from jaxsens.attribution import masking


@dataclasses.dataclass(frozen=True, eq=False)
class Lime(maps.Attribution):
  """Attribution by a linear model; `values` (B, H, W, 1) paint coefficients.

  Each pixel has the coefficient of its segment: what keeping the segment adds
  to the score. The coefficients, not the pixels, sum to the gain of a score
  that is additive in the segments.

  Attributes:
    coefficients: (B, S) of the linear model.
    intercepts: (B,) of the linear model.
    r2: (B,) weighted share of the variance of the score that it explains; 1
      for an additive score, NaN for a constant one.
    segments: (H, W) number of the segment of each pixel.
  """

  coefficients: np.ndarray
  intercepts: np.ndarray
  r2: np.ndarray
  segments: np.ndarray


def lime(
  key: jax.Array,
  classifier: classifiers.Classifier,
  images: ArrayLike,
  targets: ArrayLike | None = None,
  *,
  num_samples: int,
  segments: ArrayLike = (8, 8),
  kernel_width: float = 0.25,
  ridge: float = 1.0,
  baselines: ArrayLike | None = None,
  quantity: str = 'logit',
  chunk_size: int = 8,
) -> Lime:
  """Returns the linear model nearest to the score around the image.

      minimise Σ_n w[n] (score[n] - c - Σ_s z[n, s] β[s])² + ridge Σ_s β[s]²
      w[n] = exp(-d[n]² / kernel_width²),  d[n] = 1 - sqrt(mean_s z[n, s])

  with z[n, s] = 1 where segment s is kept, 0 where it shows the baseline, each
  with probability 1/2; d is the cosine distance from the image itself, which
  is a sample as well.

  Args:
    key: typed JAX key; sample n is of `fold_in(key, n)`, the same for all
      images.
    classifier: what is explained.
    images: (B, H, W, C).
    targets: see `maps.as_targets`.
    num_samples: number of random samples; several per segment.
    segments: see `masking.as_segments`; superpixels of any kind may be given.
    kernel_width: width of the kernel of the weights.
    ridge: penalty of the coefficients, not of the intercept; 0 for none.
    baselines: what is seen in place of a segment; black if None.
    quantity: see `maps.score`.
    chunk_size: masked images at a time.

  Raises:
    ValueError: a number that is not positive, or without a penalty fewer
      samples than tell the segments apart.

  References:
    Ribeiro, Singh, Guestrin, "Why Should I Trust You?", 2016, equation 2; the
    defaults are those of the authors' program, which takes the root of w.
  """
  images = maps.as_images(classifier, images)
  targets = maps.as_targets(classifier, images, targets, chunk_size=chunk_size)
  baselines = maps.as_baselines(images, baselines)
  segments = masking.as_segments(classifier.image_size, segments)
  if num_samples < 1:
    raise ValueError(f'num_samples must be at least 1, got {num_samples}.')
  if not kernel_width > 0:
    raise ValueError(f'kernel_width must be positive, got {kernel_width}.')
  if not ridge >= 0:
    raise ValueError(f'ridge must not be negative, got {ridge}.')
  kept = _draws(key, num_samples, int(segments.max()) + 1)
  masked = masking.scores_under_masks(
    classifier, images, targets, baselines, _paint, segments, kept,
    quantity=quantity, chunk_size=chunk_size,
  )
  scores, at_baseline = masking.scores_at_ends(
    classifier, images, targets, baselines, quantity=quantity,
    chunk_size=chunk_size,
  )
  coefficients, intercepts, r2 = _fit(
    np.concatenate([np.ones((1, kept.shape[1])), kept]),
    np.concatenate([scores[:, None], masked], axis=1).T,
    kernel_width, ridge,
  )
  return Lime(
    method=f'LIME, {kept.shape[1]} segments, {num_samples} samples',
    values=coefficients[:, segments, None].astype(np.float32),
    targets=targets, scores=scores, baseline_scores=at_baseline,
    num_gradients=masking.counted(0, images),
    num_forwards=masking.counted(num_samples + 2, images),
    coefficients=coefficients, intercepts=intercepts, r2=r2, segments=segments,
  )


def _draws(key: jax.Array, number: int, num_segments: int) -> np.ndarray:
  """Returns which segments are kept, (number, num_segments) bool."""
  draw = lambda i: jax.random.bernoulli(
    jax.random.fold_in(key, i), shape=(num_segments,)
  )
  return np.asarray(jax.vmap(draw)(np.arange(number)))


def _paint(segments: jax.Array, kept: jax.Array) -> jax.Array:
  """Returns the mask of the segments that are kept, see `masking.Mask`."""
  return kept[segments]


def _fit(kept, scores, kernel_width, ridge):
  """Returns coefficients (B, S), intercepts (B,), r2 (B,) of scores (N, B)."""
  distance = 1 - np.sqrt(kept.mean(1))
  weights = np.exp(-((distance / kernel_width) ** 2))
  weights /= weights.max()
  centre = np.average(kept, axis=0, weights=weights)
  level = np.average(scores, axis=0, weights=weights)
  design, gain = kept - centre, scores - level
  gram = design.T @ (weights[:, None] * design)
  if not ridge and np.linalg.matrix_rank(gram, hermitian=True) < len(gram):
    raise ValueError(
      f'{len(kept) - 1} samples do not tell {len(gram)} segments apart; '
      'num_samples must be larger, or ridge positive.'
    )
  coefficients = np.linalg.solve(
    gram + ridge * np.eye(len(gram)), design.T @ (weights[:, None] * gain)
  )
  left = weights @ (gain - design @ coefficients) ** 2
  variance = weights @ gain**2
  r2 = 1 - np.divide(
    left, variance, out=np.full_like(left, np.nan), where=variance > 0
  )
  return coefficients.T, level - centre @ coefficients, r2
