"""Reads image files strictly: a wrong or damaged file raises and is named."""

from collections.abc import Sequence
import io
import pathlib

import numpy as np
from PIL import Image

SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff')

_MODES = {1: 'L', 3: 'RGB'}
_PNG_SIGNATURE = b'\x89PNG\r\n\x1a\n'
_PNG_END = b'IEND'


def read_image(path: pathlib.Path | str, *, channels: int) -> np.ndarray:
  """Decodes an 8-bit gray or RGB image.

  Args:
    path: the file.
    channels: 1 for gray (PIL mode 'L'), 3 for colour (mode 'RGB').

  Returns:
    The image, shape (H, W, channels), float32 in [0, 1].

  Raises:
    FileNotFoundError: if there is no such file.
    ValueError: if the file is no image, is truncated, or has another mode
      than `channels` calls for.
  """
  path = pathlib.Path(path)
  if channels not in _MODES:
    raise ValueError(f'channels must be 1 or 3, got {channels}.')
  if not path.is_file():
    raise FileNotFoundError(f'{path}: no such image file.')
  data = path.read_bytes()
  # PIL can be set to accept a cut file as if its rest were gray.
  if data.startswith(_PNG_SIGNATURE) and _PNG_END not in data[-4096:]:
    raise ValueError(
        f'{path}: the image is unreadable or truncated (a PNG of {len(data)} '
        'bytes without its end mark).'
    )
  try:
    with Image.open(io.BytesIO(data)) as image:
      image.load()
      mode = image.mode
      pixels = np.asarray(image) if mode == _MODES[channels] else None
  except (OSError, SyntaxError, ValueError) as error:
    raise ValueError(
        f'{path}: the image is unreadable or truncated ({error}).'
    ) from error
  if pixels is None:
    raise ValueError(_mode_message(path, mode, channels))
  pixels = pixels.astype(np.float32) / np.float32(255)
  return pixels[..., None] if channels == 1 else pixels


def read_size(path: pathlib.Path | str) -> tuple[int, int]:
  """Returns height and width in pixels from the head of a file.

  Raises:
    FileNotFoundError: if there is no such file.
    ValueError: if the file is no image.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f'{path}: no such image file.')
  try:
    with Image.open(path) as image:
      return image.size[1], image.size[0]
  except (OSError, SyntaxError, ValueError) as error:
    raise ValueError(f'{path}: the image is unreadable ({error}).') from error


def unreadable(
    paths: Sequence[pathlib.Path], *, channels: int
) -> tuple[int, ...]:
  """Returns the positions of files that `read_image` refuses.

  Every file is decoded once, which takes as long as reading the whole set.

  Args:
    paths: the files.
    channels: 1 for gray, 3 for RGB files.
  """
  refused = []
  for i, path in enumerate(paths):
    try:
      read_image(path, channels=channels)
    except (OSError, ValueError):
      refused.append(i)
  return tuple(refused)


def skipped_note(names: Sequence[str]) -> str:
  """Returns which images were left out, in words, '' if none was."""
  if not names:
    return ''
  plural = 's' if len(names) > 1 else ''
  return f', {len(names)} unreadable image{plural} skipped: {", ".join(names)}'


def _mode_message(path, mode, channels):
  expected = _MODES[channels]
  kind = '8-bit gray' if channels == 1 else '8-bit RGB'
  return (
      f'{path}: expected an {kind} image (PIL mode {expected!r}), got mode '
      f'{mode!r}. Convert it once with PIL: '
      f"Image.open(path).convert('{expected}').save(path)."
  )
