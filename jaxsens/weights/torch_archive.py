"""Reads PyTorch's zip archives (`.pth`, `.pt`) without PyTorch, inertly.

An archive is a zip file of stored members: `<name>/data.pkl`, a pickle in which
every tensor refers to a storage by key, and `<name>/data/<key>`, the raw bytes
of each storage. A pickle is a program; this reader admits only the globals of
`_GLOBALS`, all replaced by objects of its own that build arrays and nothing
else, and refuses every other global by its name before it is looked up. Nothing
is imported, called or executed on behalf of the file.

References:
  torch.serialization, "Serialization file format".
"""

from collections import OrderedDict
from collections.abc import Mapping
from collections.abc import Sequence
import io
import math
import os
import pathlib
import pickle
from typing import Any
from typing import NamedTuple
import zipfile

import ml_dtypes
import numpy as np

_LEGACY_MAGIC = b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.'
_STORED_MAGIC = b'PK\x03\x04'

_STORAGES = {
  'DoubleStorage': np.float64,
  'FloatStorage': np.float32,
  'HalfStorage': np.float16,
  'BFloat16Storage': ml_dtypes.bfloat16,
  'LongStorage': np.int64,
  'IntStorage': np.int32,
  'ShortStorage': np.int16,
  'CharStorage': np.int8,
  'ByteStorage': np.uint8,
  'BoolStorage': np.bool_,
  'ComplexFloatStorage': np.complex64,
  'ComplexDoubleStorage': np.complex128,
}


def read(path: str | os.PathLike) -> Any:
  """Returns the content of an archive, its tensors as read-only arrays.

  Args:
    path: a file that `torch.save` wrote in its zip format (torch >= 1.6).

  Returns:
    What was saved, of dicts, lists, tuples, numbers, strings and, for every
    tensor or parameter, a NumPy array of its shape, dtype and values.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file is no such archive, is truncated or damaged, or asks
      for a global that is not admitted; the message names file and global.
  """
  path = pathlib.Path(path)
  _check_kind(path)
  try:
    with zipfile.ZipFile(path) as archive:
      return _Archive(archive).content()
  except _Refused as refusal:
    raise ValueError(f'{path}: {refusal}') from None
  except Exception as error:  # a damaged pickle may raise anything
    raise ValueError(
      f'{path}: truncated or damaged archive ({type(error).__name__}: {error}).'
    ) from error


def _check_kind(path: pathlib.Path) -> None:
  """Raises when the first bytes or the end are not those of a zip archive."""
  with open(path, 'rb') as file:
    start = file.read(len(_LEGACY_MAGIC))
  if start == _LEGACY_MAGIC:
    raise ValueError(
      f'{path}: written in the format that torch used before version 1.6; '
      'save it again with a later torch.'
    )
  if not start.startswith(_STORED_MAGIC):
    raise ValueError(f'{path}: not a PyTorch zip archive.')
  if not zipfile.is_zipfile(path):
    raise ValueError(
      f'{path}: truncated archive, the directory at its end is missing.'
    )


class _Refused(pickle.UnpicklingError):
  """Something that this reader does not take from a file."""


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
    return _Unpickler(io.BytesIO(self._bytes('data.pkl')), self).load()

  def storage(self, key: str, dtype: np.dtype, size: int) -> np.ndarray:
    """Returns a storage as a read-only array (size,), read once."""
    if key not in self._storages:
      data = self._bytes(f'data/{key}')
      if size < 0 or len(data) != size * dtype.itemsize:
        raise _Refused(
          f'storage {key!r} has {len(data)} bytes where {size} values of '
          f'{dtype} were expected.'
        )
      self._storages[key] = np.frombuffer(data, dtype)
    array = self._storages[key]
    if array.dtype != dtype or array.size != size:
      raise _Refused(f'storage {key!r} is used with two types or sizes.')
    return array

  def _find_prefix(self) -> str:
    programs = [n for n in self._members if n.split('/')[1:] == ['data.pkl']]
    if len(programs) != 1:
      raise _Refused(
        'not a PyTorch archive, it should hold one <name>/data.pkl and holds '
        f'{programs or "none"}.'
      )
    return programs[0].removesuffix('data.pkl')

  def _check_byte_order(self) -> None:
    if f'{self._prefix}byteorder' not in self._members:
      return
    order = self._bytes('byteorder').decode('ascii', 'replace').strip()
    if order != 'little':
      raise _Refused(
        f'byte order {order!r}, expected little-endian; save it again on a '
        'little-endian machine.'
      )

  def _bytes(self, name: str) -> bytes:
    info = self._members.get(self._prefix + name)
    if info is None:
      raise _Refused(f'member {self._prefix + name} is missing.')
    if info.compress_type != zipfile.ZIP_STORED:
      raise _Refused(f'member {info.filename} is compressed; torch stores it.')
    return self._archive.read(info)


class _Unpickler(pickle.Unpickler):
  """Unpickler that knows the globals of `_GLOBALS` and no other."""

  def __init__(self, file: io.BytesIO, archive: _Archive):
    super().__init__(file, encoding='utf-8')
    self._archive = archive

  def find_class(self, module: str, name: str) -> Any:
    try:
      return _GLOBALS[module, name]
    except KeyError:
      raise _Refused(
        f"refused the global '{module}.{name}': a file of weights needs only "
        'tensors in dicts and lists. Nothing in it was executed.'
      ) from None

  def persistent_load(self, pid: Any) -> np.ndarray:
    if not isinstance(pid, tuple) or len(pid) != 5 or pid[0] != 'storage':
      raise _Refused(f'unknown kind of reference {pid!r}.')
    _, kind, key, _, size = pid
    if not isinstance(kind, _StorageType) or not isinstance(key, str):
      raise _Refused(f'unknown kind of storage {pid!r}.')
    return self._archive.storage(key, np.dtype(kind.dtype), size)


class _StorageType(NamedTuple):
  """Stands for torch.FloatStorage and its like."""

  dtype: Any


class _Builder:
  """A callable without attributes, so that no pickle can alter it."""

  __slots__ = ()


class _Tensor(_Builder):
  """Stands for torch._utils._rebuild_tensor_v2."""

  __slots__ = ()

  def __call__(
    self,
    storage: np.ndarray,
    offset: int,
    shape: Sequence[int],
    strides: Sequence[int],
    *_: Any,
  ) -> np.ndarray:
    """Returns the view of `storage` with this offset and strides (values)."""
    if len(shape) != len(strides) or min((offset, *shape, *strides)) < 0:
      raise _Refused(f'tensor of shape {shape} has strides {strides}.')
    last = offset + sum(
      (n - 1) * s for n, s in zip(shape, strides, strict=True)
    )
    empty = math.prod(shape) == 0
    if not empty and last >= storage.size:
      raise _Refused(
        f'tensor of shape {tuple(shape)}, strides {tuple(strides)} and offset '
        f'{offset} leaves its storage of {storage.size} values.'
      )
    return np.lib.stride_tricks.as_strided(
      storage[:0] if empty else storage[offset:],
      tuple(shape),
      tuple(s * storage.itemsize for s in strides),
      writeable=False,
    )


class _Parameter(_Builder):
  """Stands for torch._utils._rebuild_parameter."""

  __slots__ = ()

  def __call__(self, tensor: np.ndarray, *_: Any) -> np.ndarray:
    return tensor


class _Size(_Builder):
  """Stands for torch.Size."""

  __slots__ = ()

  def __call__(self, lengths: Sequence[int] = ()) -> tuple[int, ...]:
    return tuple(lengths)


class _NumpyType:
  """The type of a NumPy scalar, for plain numbers and booleans only."""

  __slots__ = ('_dtype', '_order')

  def __init__(self, code: str):
    if code[:1] not in 'fiub' or not code[1:].isdigit():
      raise _Refused(f'NumPy type {code!r} is not a plain number.')
    self._dtype = np.dtype(code)
    self._order = '<'

  def __setstate__(self, state: tuple) -> None:
    self._order = '>' if state[1] == '>' else '<'

  def number(self, data: bytes) -> Any:
    """Returns the Python number in `data`."""
    return np.frombuffer(data, self._dtype.newbyteorder(self._order)).item()


class _MakeNumpyType(_Builder):
  """Stands for numpy.dtype."""

  __slots__ = ()

  def __call__(self, code: str, *_: Any) -> _NumpyType:
    return _NumpyType(code)


class _NumpyScalar(_Builder):
  """Stands for numpy's `scalar`: metrics in checkpoints are often such."""

  __slots__ = ()

  def __call__(self, kind: _NumpyType, data: bytes) -> Any:
    return kind.number(data)


class _Encode(_Builder):
  """Stands for _codecs.encode, by which protocol 2 writes bytes."""

  __slots__ = ()

  def __call__(self, text: str, encoding: str = 'latin1') -> bytes:
    if encoding != 'latin1':
      raise _Refused(f'bytes written in {encoding!r}, expected latin1.')
    return text.encode('latin1')


_GLOBALS: Mapping[tuple[str, str], Any] = {
  ('collections', 'OrderedDict'): OrderedDict,
  ('torch._utils', '_rebuild_tensor_v2'): _Tensor(),
  ('torch._utils', '_rebuild_parameter'): _Parameter(),
  ('torch', 'Size'): _Size(),
  ('numpy', 'dtype'): _MakeNumpyType(),
  ('numpy.core.multiarray', 'scalar'): _NumpyScalar(),
  ('numpy._core.multiarray', 'scalar'): _NumpyScalar(),
  ('_codecs', 'encode'): _Encode(),
  **{
    ('torch', name): _StorageType(dtype) for name, dtype in _STORAGES.items()
  },
}
