"""Reads and writes `.safetensors` files: a length, a JSON header, raw arrays.

    8 bytes            length n of the header, unsigned, little-endian
    n bytes            {name: {dtype, shape, data_offsets: [begin, end]}, ...}
    the rest           the arrays, little-endian, row-major

Nothing in such a file can be executed; every length and offset is checked
against the size of the file before it is used.

References:
  Hugging Face, safetensors, "Format".
"""

from collections.abc import Mapping
import json
import math
import os
import pathlib
from typing import Any

import ml_dtypes
import numpy as np

_DTYPES = {
  'F64': np.float64,
  'F32': np.float32,
  'F16': np.float16,
  'BF16': ml_dtypes.bfloat16,
  'I64': np.int64,
  'I32': np.int32,
  'I16': np.int16,
  'I8': np.int8,
  'U64': np.uint64,
  'U32': np.uint32,
  'U16': np.uint16,
  'U8': np.uint8,
  'BOOL': np.bool_,
}


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """Returns the arrays of a file by name, read-only.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file is truncated or its header is not as described above;
      the message names the file and the tensor.
  """
  path = pathlib.Path(path)
  data = path.read_bytes()
  try:
    header, body = _split(data)
    return {
      name: _array(name, entry, body)
      for name, entry in header.items()
      if name != '__metadata__'
    }
  except (ValueError, KeyError, TypeError) as error:
    raise ValueError(f'{path}: damaged safetensors file: {error}') from error


def read_metadata(path: str | os.PathLike) -> dict[str, str]:
  """Returns the strings that the header of a file has beside the arrays.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the header is damaged.
  """
  path = pathlib.Path(path)
  with open(path, 'rb') as file:
    length = int.from_bytes(file.read(8), 'little')
    data = length.to_bytes(8, 'little')
    if length <= path.stat().st_size:
      data += file.read(length)
  try:
    found = _split(data)[0].get('__metadata__', {})
    return {str(name): str(text) for name, text in found.items()}
  except (ValueError, AttributeError) as error:
    raise ValueError(f'{path}: damaged safetensors file: {error}') from error


def write(
  path: str | os.PathLike,
  arrays: Mapping[str, np.ndarray],
  *,
  metadata: Mapping[str, str] | None = None,
) -> None:
  """Writes arrays by name; the file appears when it is complete.

  Args:
    path: the file; its folder exists.
    arrays: arrays of a dtype that the format has.
    metadata: further strings for the header.

  Raises:
    OSError: the file cannot be written.
    ValueError: an array has another dtype.
  """
  path = pathlib.Path(path)
  bad = [f'{n} ({x.dtype})' for n, x in arrays.items() if _code(x) is None]
  if bad:
    raise ValueError(f'{path}: safetensors has no such dtype: {bad}.')
  # Large items first keeps every array at a multiple of its item size.
  names = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
  header: dict[str, Any] = {'__metadata__': dict(metadata or {})}
  position = 0
  for name in names:
    array, begin = arrays[name], position
    position += array.nbytes
    header[name] = {
      'dtype': _code(array), 'shape': list(array.shape),
      'data_offsets': [begin, position],
    }
  text = json.dumps(header, separators=(',', ':')).encode()
  text += b' ' * (-len(text) % 8)
  partial = path.with_name(f'.{path.name}.{os.getpid()}')
  try:
    with open(partial, 'wb') as file:
      file.write(len(text).to_bytes(8, 'little') + text)
      for name in names:
        file.write(_little_endian(arrays[name]).tobytes())
    partial.replace(path)
  finally:
    partial.unlink(missing_ok=True)


def _code(array: np.ndarray) -> str | None:
  dtype = array.dtype.newbyteorder('=')
  return next((c for c, known in _DTYPES.items() if dtype == known), None)


def _little_endian(array: np.ndarray) -> np.ndarray:
  return array.astype(array.dtype.newbyteorder('<'), copy=False)


def _split(data: bytes) -> tuple[Mapping[str, Any], memoryview]:
  length = int.from_bytes(data[:8], 'little')
  if len(data) < 8 or length > len(data) - 8:
    raise ValueError(
      f'the header should have {length} bytes, the file has {len(data)}.'
    )
  header = json.loads(data[8 : 8 + length], object_pairs_hook=_without_repeats)
  if not isinstance(header, dict):
    raise ValueError('the header is not a JSON object.')
  return header, memoryview(data)[8 + length :]


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  names = [name for name, _ in pairs]
  repeated = sorted({name for name in names if names.count(name) > 1})
  if repeated:
    raise ValueError(f'names stand twice in the header: {repeated}.')
  return dict(pairs)


def _array(name: str, entry: Mapping[str, Any], body: memoryview) -> np.ndarray:
  if entry['dtype'] not in _DTYPES:
    raise ValueError(f'tensor {name!r} has unknown dtype {entry["dtype"]!r}.')
  dtype = np.dtype(_DTYPES[entry['dtype']])
  begin, end = entry['data_offsets']
  size = math.prod(entry['shape']) * dtype.itemsize
  if not 0 <= begin <= end <= len(body) or end - begin != size:
    raise ValueError(
      f'tensor {name!r} of shape {entry["shape"]} and dtype {dtype} needs '
      f'{size} bytes and claims {begin}:{end} of {len(body)}.'
    )
  return np.frombuffer(body[begin:end], dtype).reshape(entry['shape'])
