"""Reads the stream that `torch.save` wrote before torch 1.6, inertly.

    pickle   magic number
    pickle   protocol version, 1001
    pickle   {'little_endian': bool, ...}
    pickle   the object; its tensors refer to storages by key
    pickle   [key, ...], the order in which the storages follow
    each     8 bytes, number of values, little-endian, and the values

Storages follow the object that refers to them, so arrays are made first and
filled afterwards; no more is made than the file has bytes for.

References:
  torch.serialization, `_legacy_save`.
"""

from typing import Any
from typing import BinaryIO

import numpy as np

from jaxsens.weights import torch_pickle

MAGIC = b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.'
"""First bytes of such a file: its pickled magic number."""
_PROTOCOL = 1001


def read(file: BinaryIO, size: int) -> Any:
  """Returns what a stream holds, its tensors as read-only arrays.

  Args:
    file: the stream, at its begin.
    size: number of its bytes.

  Raises:
    torch_pickle.Refused: the stream is truncated, is of another protocol or
      byte order, or asks for what is not admitted.
    Exception: a damaged pickle may raise anything.
  """
  _check_start(file)
  storages = _Storages(size)
  content = torch_pickle.Unpickler(file, storages.get).load()
  keys = torch_pickle.Unpickler(file).load()
  if not isinstance(keys, list) or sorted(keys) != sorted(storages.arrays):
    raise torch_pickle.Refused(
      f'storages {sorted(storages.arrays)} are needed, {keys} follow.'
    )
  for key in keys:
    _fill(file, key, storages.arrays[key])
  return content


def _check_start(file: BinaryIO) -> None:
  if file.read(len(MAGIC)) != MAGIC:
    raise torch_pickle.Refused('the magic number is missing.')
  protocol = torch_pickle.Unpickler(file).load()
  if protocol != _PROTOCOL:
    raise torch_pickle.Refused(
      f'protocol {protocol!r}, only {_PROTOCOL} is known.'
    )
  system = torch_pickle.Unpickler(file).load()
  if not isinstance(system, dict) or system.get('little_endian') is not True:
    raise torch_pickle.Refused(
      f'expected the values of a little-endian machine, got {system!r}.'
    )


class _Storages:
  """Storages by key, made empty when they are first referred to.

  Attributes:
    arrays: the storages (size,).
  """

  def __init__(self, limit: int):
    self.arrays: dict[str, np.ndarray] = {}
    self._bytes_left = limit

  def get(self, key: str, dtype: np.dtype, size: int) -> np.ndarray:
    """Returns the storage (size,) of a key."""
    if key not in self.arrays:
      self._bytes_left -= size * dtype.itemsize
      if self._bytes_left < 0:
        raise torch_pickle.Refused(
          f'truncated file, storage {key!r} of {size} values of {dtype} is '
          'larger than what there is.'
        )
      self.arrays[key] = np.zeros(size, dtype)
    array = self.arrays[key]
    if array.dtype != dtype or array.size != size:
      raise torch_pickle.Refused(
        f'storage {key!r} is used with two types or sizes.'
      )
    return array


def _fill(file: BinaryIO, key: str, array: np.ndarray) -> None:
  size = int.from_bytes(file.read(8), 'little')
  data = file.read(array.nbytes)
  if size != array.size or len(data) != array.nbytes:
    raise torch_pickle.Refused(
      f'storage {key!r} has {size} values in {len(data)} bytes where '
      f'{array.size} values of {array.dtype} were expected.'
    )
  array[:] = np.frombuffer(data, array.dtype)
