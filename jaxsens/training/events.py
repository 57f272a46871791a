"""Event files that TensorBoard shows: scalars and images.

A file is a sequence of records, each a length, its checksum, a message and its
checksum; a message is an `Event` in protobuf's encoding, of which a few fields
are enough. Everything is on the disk when a call returns.

References:
  tensorflow/core/lib/io/record_writer.h; tensorboard/compat/proto/event.proto
  and summary.proto; RFC 3720, appendix B.4 (CRC-32C).
"""

from collections.abc import Mapping
import io
import os
import pathlib
import socket
import struct
import time

from jax.typing import ArrayLike
from matplotlib import figure
import numpy as np
from PIL import Image

from jaxsens import files

_POLYNOMIAL = 0x82F63B78
_MASK = 0xA282EAD8
_VERSION = b'brain.Event:2'
# Fields of Event, Summary, Summary.Value, Summary.Image and SessionLog.
_WALL_TIME, _STEP, _FILE_VERSION, _SUMMARY, _SESSION = 1, 2, 3, 5, 7
_VALUE = 1
_TAG, _SIMPLE_VALUE, _IMAGE = 1, 2, 4
_HEIGHT, _WIDTH, _COLORSPACE, _ENCODED = 1, 2, 3, 4
_STATUS, _START = 1, 1
# Wire types of protobuf.
_VARINT, _DOUBLE, _BYTES, _FLOAT = 0, 1, 2, 5


class Writer:
  """Appends to an event file of its own in a folder."""

  def __init__(self, path: str | os.PathLike, *, first_step: int = 0):
    """Begins a file.

    Args:
      path: folder, made if there is none.
      first_step: TensorBoard forgets what other files of the folder have from
        this step on, which an interrupted training did twice.

    Raises:
      OSError: the folder cannot be written.
    """
    directory = files.make_directory(path)
    # TensorBoard reads the files of a folder in the order of their names.
    name = (
      f'events.out.tfevents.{time.time_ns():020d}.{socket.gethostname()}.'
      f'{os.getpid()}'
    )
    self._path = pathlib.Path(directory) / name
    self._write(_field(_FILE_VERSION, _VERSION))
    if first_step:
      self._write(
        _field(_STEP, first_step)
        + _field(_SESSION, _field(_STATUS, _START))
      )

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    """Writes scalars by tag, as 'validation/loss'."""
    self._summary(step, b''.join(
      _field(_VALUE, _field(_TAG, tag.encode()) + _float(_SIMPLE_VALUE, value))
      for tag, value in values.items()
    ))

  def image(self, step: int, tag: str, image: ArrayLike) -> None:
    """Writes an image.

    Args:
      step: as of the scalars.
      tag: its name.
      image: (H, W, C) float in [0, 1] or uint8, gray or RGB.

    Raises:
      ValueError: another shape.
    """
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] not in (1, 3):
      raise ValueError(
        f'image must have shape (H, W, 1) or (H, W, 3), got {image.shape}.'
      )
    if image.dtype != np.uint8:
      image = np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8)
    stream = io.BytesIO()
    squeezed = image[..., 0] if image.shape[2] == 1 else image
    Image.fromarray(squeezed).save(stream, 'PNG')
    encoded = b''.join((
      _field(_HEIGHT, image.shape[0]), _field(_WIDTH, image.shape[1]),
      _field(_COLORSPACE, image.shape[2]), _field(_ENCODED, stream.getvalue()),
    ))
    value = _field(_TAG, tag.encode()) + _field(_IMAGE, encoded)
    self._summary(step, _field(_VALUE, value))

  def _summary(self, step: int, summary: bytes) -> None:
    self._write(_field(_STEP, step) + _field(_SUMMARY, summary))

  def _write(self, content: bytes) -> None:
    with open(self._path, 'ab') as file:
      file.write(record(_double(_WALL_TIME, time.time()) + content))


def record(message: bytes) -> bytes:
  """Returns a message with its length and the two checksums."""
  length = struct.pack('<Q', len(message))
  return b''.join((
    length, struct.pack('<I', masked_crc(length)),
    message, struct.pack('<I', masked_crc(message)),
  ))


def masked_crc(content: bytes) -> int:
  """Returns the CRC-32C of bytes, turned by 15 bits and shifted."""
  crc = crc32c(content)
  return ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF


def crc32c(content: bytes) -> int:
  """Returns the CRC-32C (Castagnoli) of bytes."""
  table, crc = _TABLE, 0xFFFFFFFF
  for byte in content:
    crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
  return crc ^ 0xFFFFFFFF


def _make_table() -> list[int]:
  table = []
  for crc in range(256):
    for _ in range(8):
      crc = crc >> 1 ^ (_POLYNOMIAL if crc & 1 else 0)
    table.append(crc)
  return table


_TABLE = _make_table()


def _field(number: int, value: int | bytes) -> bytes:
  """Returns a field with a whole number, bytes, text or a message."""
  if isinstance(value, bytes):
    return _varint(number << 3 | _BYTES) + _varint(len(value)) + value
  return _varint(number << 3 | _VARINT) + _varint(int(value))


def _float(number: int, value: float) -> bytes:
  return _varint(number << 3 | _FLOAT) + struct.pack('<f', value)


def _double(number: int, value: float) -> bytes:
  return _varint(number << 3 | _DOUBLE) + struct.pack('<d', value)


def _varint(value: int) -> bytes:
  out = bytearray()
  while value > 0x7F:
    out.append(value & 0x7F | 0x80)
    value >>= 7
  out.append(value)
  return bytes(out)


def confusion_image(
  confusion: ArrayLike, class_names: tuple[str, ...]
) -> np.ndarray:
  """Returns a picture of a confusion matrix with its counts.

  Args:
    confusion: (K, K) counts, rows true, columns answered.
    class_names: K names.

  Returns:
    (H, W, 3) uint8; shades are shares of each row.
  """
  counts = np.asarray(confusion)
  shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
  side = 2.5 + 0.45 * len(counts)
  drawing = figure.Figure((side, side), dpi=100, layout='constrained')
  axes = drawing.add_subplot()
  axes.imshow(shares, cmap='Blues', vmin=0, vmax=1)
  axes.set_xticks(range(len(counts)), class_names, rotation=90)
  axes.set_yticks(range(len(counts)), class_names)
  axes.set_xlabel('answer')
  axes.set_ylabel('class')
  for (i, j), count in np.ndenumerate(counts):
    shade = 'white' if shares[i, j] > 0.5 else 'black'
    axes.text(j, i, str(count), ha='center', va='center', color=shade)
  stream = io.BytesIO()
  drawing.savefig(stream, format='png')
  with Image.open(stream) as picture:
    return np.asarray(picture.convert('RGB'))


def grid_image(images: ArrayLike, num_columns: int = 8) -> np.ndarray:
  """Returns images (N, H, W, C) side by side, (H', W', C), black behind."""
  images = np.asarray(images)
  number, height, width, channels = images.shape
  rows = -(-number // num_columns)
  padded = np.zeros(
    (rows * num_columns, height, width, channels), images.dtype
  )
  padded[:number] = images
  table = padded.reshape(rows, num_columns, height, width, channels)
  return table.swapaxes(1, 2).reshape(
    rows * height, num_columns * width, channels
  )
