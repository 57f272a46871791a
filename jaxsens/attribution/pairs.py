"""Pairs of an image and a sample of it, a chunk at a time.

What takes many samples of every image, steps of a path or copies with noise,
runs through all pairs in chunks of one size, filled with several images where
these have few samples, and adds up on the host what belongs to one image. So
the memory depends neither on the number of images nor on that of samples, and
one compiled program serves all.
"""

from collections.abc import Iterator
import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Chunk:
  """Some of the pairs.

  Attributes:
    images: (N,) number of the image of each pair.
    samples: (N,) number of its sample.
    kept: how many pairs are meant; those behind only fill the chunk up.
  """

  images: np.ndarray
  samples: np.ndarray
  kept: int

  @property
  def groups(self) -> np.ndarray:
    """(N,) which of the images of the chunk each pair is of, from 0."""
    return self.images - self.images[0]

  def add_sums(self, totals: np.ndarray, sums: np.ndarray) -> None:
    """Adds sums (G, ...) over the pairs of each group to totals (B, ...)."""
    first = self.images[0]
    totals[first : first + len(sums)] += sums[: len(totals) - first]

  def add(self, totals: np.ndarray, values: np.ndarray) -> None:
    """Adds values (N, ...) to the totals (B, ...) of their images, in place."""
    rows = self.images[: self.kept]
    for i in np.unique(rows):
      chosen = values[: self.kept][rows == i]
      totals[i] += chosen.sum(0, dtype=totals.dtype)


def chunks(
  num_images: int, num_samples: int, chunk_size: int
) -> Iterator[Chunk]:
  """Yields all pairs, image by image.

  Raises:
    ValueError: a number that is not positive.
  """
  if min(num_images, num_samples, chunk_size) < 1:
    raise ValueError(
      'num_images, num_samples and chunk_size must be at least 1, got '
      f'{num_images}, {num_samples} and {chunk_size}.'
    )
  number = num_images * num_samples
  size = min(chunk_size, number)
  for start in range(0, number, size):
    flat = np.minimum(np.arange(start, start + size), number - 1)
    yield Chunk(
      flat // num_samples, flat % num_samples, min(size, number - start)
    )


def max_groups(num_samples: int, chunk_size: int) -> int:
  """Returns how many images a chunk of pairs is of at most."""
  return -(-(chunk_size - 1) // num_samples) + 1
