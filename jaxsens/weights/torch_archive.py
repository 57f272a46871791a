"""Reads PyTorch's files (`.pth`, `.pt`) without PyTorch, inertly.

An archive is a zip file of stored members: `<name>/data.pkl`, a pickle in which
every tensor refers to a storage by key, and `<name>/data/<key>`, the raw bytes
of each storage. Files from before torch 1.6 are one stream, see `torch_legacy`.
Nothing is imported, called or executed on behalf of a file, see `torch_pickle`.

References:
  torch.serialization, "Serialization file format".
"""

import io
import os
import pathlib
from typing import Any
import zipfile

import numpy as np

from jaxsens.weights import torch_legacy
from jaxsens.weights import torch_pickle

_STORED_MAGIC = b'PK\x03\x04'
_TAR_MAGIC = b'ustar'
_TAR_OFFSET = 257


def read(path: str | os.PathLike) -> Any:
  """Returns what a file holds, its tensors as read-only arrays.

  Args:
    path: a file that `torch.save` wrote, in its zip format (torch >= 1.6) or in
      the one before.

  Returns:
    What was saved, of dicts, lists, tuples, numbers, strings and, for every
    tensor or parameter, a NumPy array of its shape, dtype and values.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file is none of torch's, is truncated or damaged, or asks
      for a global that is not admitted; the message names file and global.
  """
  path = pathlib.Path(path)
  is_legacy = _is_legacy(path)
  try:
    if is_legacy:
      with open(path, 'rb') as file:
        return torch_legacy.read(file, path.stat().st_size)
    with zipfile.ZipFile(path) as archive:
      return _Archive(archive).content()
  except torch_pickle.Refused as refusal:
    raise ValueError(f'{path}: {refusal}') from None
  except Exception as error:  # a damaged pickle may raise anything
    raise ValueError(
      f'{path}: truncated or damaged archive ({type(error).__name__}: {error}).'
    ) from error


def _is_legacy(path: pathlib.Path) -> bool:
  """Returns whether a file has the format of before torch 1.6.

  Raises:
    ValueError: it has neither that nor the zip format.
  """
  with open(path, 'rb') as file:
    start = file.read(_TAR_OFFSET + len(_TAR_MAGIC))
  if start.startswith(torch_legacy.MAGIC):
    return True
  if start[_TAR_OFFSET:] == _TAR_MAGIC:
    raise ValueError(
      f'{path}: written in the tar format of torch 0.1; save it again with a '
      'later torch.'
    )
  if not start.startswith(_STORED_MAGIC):
    raise ValueError(f'{path}: not a file that torch.save writes.')
  if not zipfile.is_zipfile(path):
    raise ValueError(
      f'{path}: truncated archive, the directory at its end is missing.'
    )
  return False


class _Archive:
  """The members of one open archive."""

  def __init__(self, archive: zipfile.ZipFile):
    self._archive = archive
    self._members = {info.filename: info for info in archive.infolist()}
    self._prefix = self._find_prefix()
    self._storages: dict[str, np.ndarray] = {}

  def content(self) -> Any:
    """Returns the unpickled content."""
    self._check_byte_order()
    program = io.BytesIO(self._bytes('data.pkl'))
    return torch_pickle.Unpickler(program, self.storage).load()

  def storage(self, key: str, dtype: np.dtype, size: int) -> np.ndarray:
    """Returns a storage as a read-only array (size,), read once."""
    if key not in self._storages:
      data = self._bytes(f'data/{key}')
      if len(data) != size * dtype.itemsize:
        raise torch_pickle.Refused(
          f'storage {key!r} has {len(data)} bytes where {size} values of '
          f'{dtype} were expected.'
        )
      self._storages[key] = np.frombuffer(data, dtype)
    array = self._storages[key]
    if array.dtype != dtype or array.size != size:
      raise torch_pickle.Refused(
        f'storage {key!r} is used with two types or sizes.'
      )
    return array

  def _find_prefix(self) -> str:
    programs = [n for n in self._members if n.split('/')[1:] == ['data.pkl']]
    if len(programs) != 1:
      raise torch_pickle.Refused(
        'not a PyTorch archive, it should hold one <name>/data.pkl and holds '
        f'{programs or "none"}.'
      )
    return programs[0].removesuffix('data.pkl')

  def _check_byte_order(self) -> None:
    if f'{self._prefix}byteorder' not in self._members:
      return
    order = self._bytes('byteorder').decode('ascii', 'replace').strip()
    if order != 'little':
      raise torch_pickle.Refused(
        f'byte order {order!r}, expected little-endian; save it again on a '
        'little-endian machine.'
      )

  def _bytes(self, name: str) -> bytes:
    info = self._members.get(self._prefix + name)
    if info is None:
      raise torch_pickle.Refused(f'member {self._prefix + name} is missing.')
    if info.compress_type != zipfile.ZIP_STORED:
      raise torch_pickle.Refused(
        f'member {info.filename} is compressed; torch stores it.'
      )
    return self._archive.read(info)
