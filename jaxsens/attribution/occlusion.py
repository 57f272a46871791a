"""What the score loses where a window of the image is covered."""

from collections.abc import Sequence
import dataclasses

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np

from jaxsens import classifiers
from jaxsens.attribution import maps
from jaxsens.attribution import masking


@dataclasses.dataclass(frozen=True, eq=False)
class Occlusion(maps.Attribution):
  """Attribution by covering; `values` are (B, H, W, 1) in units of the score.

  A value is the mean drop over the windows that cover the pixel. Its sum over
  the pixels is not the gain of the score: each drop counts once per pixel.

  Attributes:
    drops: (B, rows, columns) score minus the score with that window covered.
    tops: (rows,) first pixel row of the windows.
    lefts: (columns,) first pixel column of the windows.
    window: (height, width) of a window; the last ones are cut at the border.
  """

  drops: np.ndarray
  tops: np.ndarray
  lefts: np.ndarray
  window: tuple[int, int]


def occlusion(
  classifier: classifiers.Classifier,
  images: ArrayLike,
  targets: ArrayLike | None = None,
  *,
  window: int | tuple[int, int],
  stride: int | tuple[int, int] | None = None,
  baselines: ArrayLike | None = None,
  quantity: str = 'logit',
  chunk_size: int = 8,
) -> Occlusion:
  """Returns what the score loses where a sliding window covers the image.

      drops[b, i, j] = score(image) - score(image, window (i, j) from baseline)

  Args:
    classifier: what is explained.
    images: (B, H, W, C).
    targets: see `maps.as_targets`.
    window: (height, width) in pixels, or one number for both.
    stride: (down, right) in pixels, at most the window so that every pixel is
      covered; None for windows side by side.
    baselines: what covers: black, a number, an image or one per image.
    quantity: see `maps.score`.
    chunk_size: covered images at a time.

  Raises:
    ValueError: a window larger than the image, or a stride larger than it.

  References:
    Zeiler, Fergus, Visualizing and Understanding Convolutional Networks, 2014.
  """
  images = maps.as_images(classifier, images)
  targets = maps.as_targets(classifier, images, targets, chunk_size=chunk_size)
  baselines = maps.as_baselines(images, baselines)
  window = _checked_pair('window', window, classifier.image_size, 'image')
  stride = _checked_pair(
    'stride', window if stride is None else stride, window, 'window'
  )
  tops, lefts = (
    np.arange(-(-(length - size) // step) + 1) * step
    for length, size, step in zip(
      classifier.image_size, window, stride, strict=True
    )
  )
  rows = np.stack(np.meshgrid(tops, lefts, indexing='ij'), -1).reshape(-1, 2)
  covered = masking.scores_under_masks(
    classifier, images, targets, baselines,
    _Window(classifier.image_size, window), 0, rows, quantity=quantity,
    chunk_size=chunk_size,
  )
  scores, at_baseline = masking.scores_at_ends(
    classifier, images, targets, baselines, quantity=quantity,
    chunk_size=chunk_size,
  )
  drops = scores[:, None] - covered
  height, width = window
  values = np.zeros((len(images), *classifier.image_size))
  counts = np.zeros(classifier.image_size)
  for (top, left), drop in zip(rows, drops.T, strict=True):
    values[:, top:top + height, left:left + width] += drop[:, None, None]
    counts[top:top + height, left:left + width] += 1
  return Occlusion(
    method=f'occlusion, window {height}x{width}, stride '
    f'{stride[0]}x{stride[1]}',
    values=(values / counts)[..., None].astype(np.float32), targets=targets,
    scores=scores, baseline_scores=at_baseline,
    num_gradients=masking.counted(0, images),
    num_forwards=masking.counted(len(rows) + 2, images),
    drops=drops.reshape(-1, len(tops), len(lefts)), tops=tops, lefts=lefts,
    window=window,
  )


@dataclasses.dataclass(frozen=True)
class _Window:
  """Mask that is 0 in a window and 1 elsewhere, see `masking.Mask`."""

  size: tuple[int, int]
  window: tuple[int, int]

  def __call__(self, shared: jax.Array, row: jax.Array) -> jax.Array:
    del shared
    down, right = (
      (jnp.arange(length) >= start) & (jnp.arange(length) < start + covered)
      for length, start, covered in zip(
        self.size, row, self.window, strict=True
      )
    )
    return ~(down[:, None] & right)


def _checked_pair(
  name: str, given: int | Sequence[int], limit: tuple[int, int], what: str
) -> tuple[int, int]:
  pair = np.asarray(given)
  if not np.issubdtype(pair.dtype, np.integer) or pair.shape not in ((), (2,)):
    raise ValueError(
      f'{name} must be a whole number of pixels or (height, width), got '
      f'{given!r}.'
    )
  pair = np.broadcast_to(pair, (2,))
  if np.any(pair < 1) or np.any(pair > np.array(limit)):
    raise ValueError(
      f'{name} must be at least 1 and at most the {what}, {tuple(limit)} '
      f'pixels, got {tuple(pair.tolist())}.'
    )
  return int(pair[0]), int(pair[1])
