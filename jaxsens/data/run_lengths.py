"""Masks as run lengths: 'start length start length ...'.

Pixels are counted from 1 down the columns: of a mask of H rows, pixel number n
lies in row (n - 1) mod H of column (n - 1) div H.
"""

import numpy as np


def runs(text: str, shape: tuple[int, int], name: str) -> np.ndarray:
  """Returns the runs of a text, checked against the image.

  Args:
    text: run lengths, '' if no pixel is marked.
    shape: height and width of the mask.
    name: of what the text is, for messages.

  Returns:
    First pixel, counted from 1, and length of each run, int64 (R, 2).

  Raises:
    ValueError: the text has an odd number of entries or others than integers,
      or a run is empty or reaches out of the image.
  """
  try:
    numbers = np.array([int(word) for word in text.split()], np.int64)
  except (ValueError, OverflowError) as error:
    raise ValueError(
      f'{name}: run lengths must be integers: {error}.'
    ) from None
  if numbers.size % 2:
    raise ValueError(
      f'{name}: run lengths are pairs of start and length, got an odd number '
      f'of entries, {numbers.size}.'
    )
  pairs = numbers.reshape(-1, 2)
  height, width = shape
  # Room behind the start, not the end, which may be no int64.
  room = height * width - pairs[:, 0] + 1
  wrong = (pairs < 1).any(1) | (pairs[:, 1] > room)
  for start, length in pairs[wrong][:1]:
    raise ValueError(
      f'{name}: the run of {length} pixels from {start} on does not lie in an '
      f'image of {height} x {width} pixels, counted from 1.'
    )
  return pairs


def decode(text: str, shape: tuple[int, int], name: str = 'mask') -> np.ndarray:
  """Returns the mask of a text, bool (H, W).

  Args:
    text: run lengths, '' if no pixel is marked; runs may overlap.
    shape: height and width of the mask.
    name: of what the text is, for messages.

  Raises:
    ValueError: see `runs`.
  """
  # Changes of depth at the ends of the runs, summed along the columns.
  steps = np.zeros(shape[0] * shape[1] + 1, np.int64)
  pairs = runs(text, shape, name)
  np.add.at(steps, pairs[:, 0] - 1, 1)
  np.add.at(steps, pairs.sum(1) - 1, -1)
  return (np.cumsum(steps[:-1]) > 0).reshape(shape, order='F')


def encode(mask: np.ndarray) -> str:
  """Returns the run lengths of a mask (H, W), '' if no pixel is marked."""
  pixels = np.asarray(mask, bool).ravel(order='F').astype(np.int8)
  changes = np.flatnonzero(np.diff(pixels, prepend=0, append=0))
  starts, ends = changes[::2], changes[1::2]
  return ' '.join(
    f'{start + 1} {end - start}'
    for start, end in zip(starts, ends, strict=True)
  )
