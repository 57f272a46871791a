"""Unpickles what PyTorch saved without PyTorch, inertly.

A pickle is a program. This unpickler admits only the globals of `_GLOBALS`, all
replaced by objects of its own that build arrays and nothing else, and refuses
every other global by its name before it is looked up. Nothing is imported,
called or executed on behalf of the file.

References:
  torch.serialization, "Serialization file format".
"""

from collections import OrderedDict
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import math
import pickle
from typing import Any
from typing import BinaryIO
from typing import NamedTuple

import ml_dtypes
import numpy as np

Storage = Callable[[str, np.dtype, int], np.ndarray]
"""(key, dtype, size) -> the storage (size,)."""

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


class Refused(pickle.UnpicklingError):
  """Something that this reader does not take from a file."""


class Unpickler(pickle.Unpickler):
  """Unpickler that knows the globals of `_GLOBALS` and no other."""

  def __init__(self, file: BinaryIO, storage: Storage | None = None):
    """Reads from `file`; `storage` finds what tensors refer to."""
    super().__init__(file, encoding='utf-8')
    self._storage = storage

  def find_class(self, module: str, name: str) -> Any:
    """Returns what stands for a global.

    Raises:
      Refused: it is not admitted.
    """
    try:
      return _GLOBALS[module, name]
    except KeyError:
      raise Refused(
        f"refused the global '{module}.{name}': a file of weights needs only "
        'tensors in dicts and lists. Nothing in it was executed.'
      ) from None

  def persistent_load(self, pid: Any) -> np.ndarray:
    """Returns the storage (size,) that a tensor refers to.

    Raises:
      Refused: the reference is no reference to a storage.
    """
    # The legacy format has a sixth entry, None or a view of the storage.
    if (
      self._storage is None
      or not isinstance(pid, tuple)
      or len(pid) not in (5, 6)
      or pid[0] != 'storage'
    ):
      raise Refused(f'unknown kind of reference {pid!r}.')
    kind, key, _, size, *view = pid[1:]
    if not (
      isinstance(kind, _StorageType)
      and isinstance(key, str)
      and type(size) is int
      and size >= 0
    ):
      raise Refused(f'unknown kind of storage {pid!r}.')
    array = self._storage(key, np.dtype(kind.dtype), size)
    return array if not view or view[0] is None else _view(array, view[0])


def _view(storage: np.ndarray, view: Any) -> np.ndarray:
  """Returns the part of a storage that a view (key, offset, size) names."""
  if not (isinstance(view, tuple) and len(view) == 3):
    raise Refused(f'unknown kind of view {view!r}.')
  _, offset, size = view
  if min(offset, size) < 0 or offset + size > storage.size:
    raise Refused(
      f'a view of {size} values at {offset} leaves its storage of '
      f'{storage.size}.'
    )
  return storage[offset : offset + size]


class _StorageType(NamedTuple):
  """Stands for torch.FloatStorage and its like."""

  dtype: Any


class _Builder:
  """A callable without attributes, so that no pickle can alter it."""

  __slots__ = ()


class _Tensor(_Builder):
  """Stands for torch._utils._rebuild_tensor and _rebuild_tensor_v2."""

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
      raise Refused(f'tensor of shape {shape} has strides {strides}.')
    last = offset + sum(
      (n - 1) * s for n, s in zip(shape, strides, strict=True)
    )
    empty = math.prod(shape) == 0
    if not empty and last >= storage.size:
      raise Refused(
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
      raise Refused(f'NumPy type {code!r} is not a plain number.')
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
      raise Refused(f'bytes written in {encoding!r}, expected latin1.')
    return text.encode('latin1')


_GLOBALS: Mapping[tuple[str, str], Any] = {
  ('collections', 'OrderedDict'): OrderedDict,
  ('torch._utils', '_rebuild_tensor'): _Tensor(),
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
