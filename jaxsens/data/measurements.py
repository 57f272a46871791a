"""What one look at every image tells: content, sizes, levels, thumbnails.

All of it is measured in levels of 8 bits, which is exact for images read from
files; procedural ones are rounded.
"""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import hashlib

import numpy as np
from PIL import Image

from jaxsens.data import image_sets

_LEVELS = np.arange(256) / 255


@dataclasses.dataclass(frozen=True, eq=False)
class Measurements:
  """Measurements of N images of C channels.

  Attributes:
    digests: hash of size and pixels of each; equal for equal images only.
    sizes: height and width of each, int64 (N, 2).
    means: mean of each channel over an image, (N, C), in [0, 1].
    stds: standard deviation over the pixels of an image, (N, C).
    histograms: pixels of each level by class, int64 (K, C, 256).
    thumbnails: the images at a common size, float32 (N, S, S, C); aspects are
      not kept.
  """

  digests: tuple[str, ...]
  sizes: np.ndarray
  means: np.ndarray
  stds: np.ndarray
  histograms: np.ndarray
  thumbnails: np.ndarray

  def __len__(self) -> int:
    return len(self.digests)


def measure(
  images: image_sets.ImageSet,
  *,
  thumbnail_size: int = 32,
  on_image: Callable[[], None] = lambda: None,
) -> Measurements:
  """Returns the measurements of a set, each image decoded once.

  Args:
    images: the set.
    thumbnail_size: height and width S of the thumbnails, in pixels; images of
      this size are kept as they are, larger ones averaged, smaller ones
      repeated.
    on_image: called after each image.

  Raises:
    ValueError: images differ in their number of channels, or an image is
      unreadable.
  """
  digests, sizes, means, stds, thumbnails = [], [], [], [], []
  histograms = None
  for image, label in images:
    levels = _levels(image)
    height, width, channels = levels.shape
    if histograms is None:
      histograms = np.zeros((len(images.class_names), channels, 256), np.int64)
    if channels != histograms.shape[1]:
      raise ValueError(
        f'{images.names[len(digests)]}: {channels} channels, the images before '
        f'it have {histograms.shape[1]}.'
      )
    counts = np.stack([
      np.bincount(levels[..., c].ravel(), minlength=256)
      for c in range(channels)
    ])
    histograms[label] += counts
    mean, std = moments(counts)
    means.append(mean)
    stds.append(std)
    sizes.append((height, width))
    digests.append(_digest(levels))
    thumbnails.append(_thumbnail(levels, thumbnail_size))
    on_image()
  if histograms is None:
    histograms = np.zeros((len(images.class_names), 1, 256), np.int64)
  channels, size = histograms.shape[1], thumbnail_size
  return Measurements(
    digests=tuple(digests),
    sizes=np.array(sizes, np.int64).reshape(-1, 2),
    means=np.array(means).reshape(-1, channels),
    stds=np.array(stds).reshape(-1, channels),
    histograms=histograms,
    thumbnails=np.array(thumbnails, np.float32).reshape(
      -1, size, size, channels
    ),
  )


def join(parts: Sequence[Measurements]) -> Measurements:
  """Returns the measurements of several sets of the same classes as of one."""
  parts = [part for part in parts if len(part)] or list(parts[:1])
  stacked = {
    name: np.concatenate([getattr(part, name) for part in parts])
    for name in ('sizes', 'means', 'stds', 'thumbnails')
  }
  return Measurements(
    digests=tuple(d for part in parts for d in part.digests),
    histograms=sum(part.histograms for part in parts),
    **stacked,
  )


def moments(histogram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns mean and standard deviation, in [0, 1], of counts (..., 256)."""
  total = np.maximum(histogram.sum(-1), 1)
  mean = histogram @ _LEVELS / total
  square = (histogram * (_LEVELS - mean[..., None]) ** 2).sum(-1) / total
  return mean, np.sqrt(square)


def _levels(image):
  return np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8)


def _digest(levels):
  content = hashlib.sha256(repr(levels.shape).encode())
  content.update(np.ascontiguousarray(levels))
  return content.hexdigest()[:32]


def _thumbnail(levels, size):
  if levels.shape[:2] == (size, size):
    return levels / np.float32(255)
  channels = [
    np.asarray(
      Image.fromarray(levels[..., c].astype(np.float32)).resize(
        (size, size), Image.Resampling.BOX
      )
    )
    for c in range(levels.shape[-1])
  ]
  return np.stack(channels, axis=-1) / np.float32(255)
