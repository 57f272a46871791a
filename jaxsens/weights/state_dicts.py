"""Reads state dicts, arrays by torch's names, from files.

What files do to a state dict is undone here: a prefix that a wrapper put before
every name, and 8-bit integers with scales in the place of an array,

    <name>[o, ...] = <name>_int8[o, ...] <name>_scale[o]

with a scale per entry of the first axis, or one for all.
"""

from collections.abc import Mapping
import os
import pathlib
import zipfile

import numpy as np

from jaxsens.weights import safetensors
from jaxsens.weights import torch_archive

StateDict = Mapping[str, np.ndarray]

SUFFIXES = ('.npz', '.safetensors', '.pth', '.pt', '.bin')
"""Suffixes of the files that are read."""
_TORCH_SUFFIXES = ('.pth', '.pt', '.bin')
_ENTRIES = ('model_state_dict', 'state_dict', 'model')
# torch.nn.DataParallel and torch.compile.
_PREFIXES = ('module.', '_orig_mod.')
_INTEGERS, _SCALE = '_int8', '_scale'


def read(
  path: str | os.PathLike, *, entry: str | None = None
) -> dict[str, np.ndarray]:
  """Returns the state dict in a `.npz`, `.safetensors`, `.pth` or `.pt` file.

  Args:
    path: the file; its suffix decides how it is read.
    entry: where a `.pth` checkpoint of several entries keeps the state dict;
      by default the file itself, or the one entry of it that is called
      'model_state_dict', 'state_dict' or 'model'.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the suffix is unknown, or the file is damaged, holds no state
      dict or several, or asks for code to be executed, or its integers and
      their scales do not fit.
  """
  path = pathlib.Path(path)
  state_dict = _read(path, entry)
  try:
    return dequantise(strip_prefix(state_dict))
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from None


def _read(path: pathlib.Path, entry: str | None) -> dict[str, np.ndarray]:
  if path.suffix in _TORCH_SUFFIXES:
    return _state_dict_entry(path, torch_archive.read(path), entry)
  if entry is not None:
    raise ValueError(f'{path}: only .pth files have entries, got {entry!r}.')
  if path.suffix == '.safetensors':
    return safetensors.read(path)
  if path.suffix == '.npz':
    return _read_npz(path)
  raise ValueError(
    f'{path}: weights are read from {", ".join(SUFFIXES[:-1])} or '
    f'{SUFFIXES[-1]} files.'
  )


def _read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
  try:
    with np.load(path, allow_pickle=False) as archive:
      return {name: archive[name] for name in archive.files}
  except (ValueError, EOFError, zipfile.BadZipFile) as error:
    raise ValueError(f'{path}: not a readable .npz file: {error}') from error


def _state_dict_entry(
  path: pathlib.Path, content: object, entry: str | None
) -> dict[str, np.ndarray]:
  names = list(content) if isinstance(content, Mapping) else []
  if entry is None and names and not _is_state_dict(content):
    found = [name for name in _ENTRIES if name in names]
    entry = found[0] if len(found) == 1 else None
  if entry is not None:
    content = content.get(entry) if names else None
  if not _is_state_dict(content):
    raise ValueError(
      f'{path}: no state dict{f" at entry {entry!r}" if entry else ""}; the '
      f'file holds {names or type(content).__name__}. Name the entry that maps '
      'names to tensors.'
    )
  return dict(content)


def _is_state_dict(content: object) -> bool:
  return (
    isinstance(content, Mapping)
    and bool(content)
    and all(isinstance(name, str) for name in content)
    and all(isinstance(array, np.ndarray) for array in content.values())
  )


def strip_prefix(state_dict: StateDict) -> dict[str, np.ndarray]:
  """Returns a state dict without the prefix that a wrapper gave every name."""
  for prefix in _PREFIXES:
    if state_dict and all(name.startswith(prefix) for name in state_dict):
      stripped = {n.removeprefix(prefix): x for n, x in state_dict.items()}
      return strip_prefix(stripped)
  return dict(state_dict)


def dequantise(state_dict: StateDict) -> dict[str, np.ndarray]:
  """Returns a state dict with floats in the place of integers and scales.

  Raises:
    ValueError: a scale is missing, has another length or is no positive number,
      integers are not int8, or an array stands beside its integers.
  """
  quantised = [n for n in state_dict if n.endswith(_INTEGERS)]
  names = [n.removesuffix(_INTEGERS) for n in quantised]
  taken = {*quantised, *(f'{name}{_SCALE}' for name in names)}
  arrays = {n: x for n, x in state_dict.items() if n not in taken}
  for name in names:
    if name in arrays:
      raise ValueError(f'{name} stands beside {name}{_INTEGERS}.')
    arrays[name] = _scaled(name, state_dict)
  return arrays


def _scaled(name: str, state_dict: StateDict) -> np.ndarray:
  integers = state_dict[f'{name}{_INTEGERS}']
  scale = state_dict.get(f'{name}{_SCALE}')
  if scale is None:
    raise ValueError(f'{name}{_INTEGERS} has no {name}{_SCALE} beside it.')
  if integers.dtype != np.int8 or not integers.ndim:
    raise ValueError(
      f'{name}{_INTEGERS} must be an array of int8, got {integers.dtype} of '
      f'shape {integers.shape}.'
    )
  if scale.shape not in ((), (1,), integers.shape[:1]):
    raise ValueError(
      f'{name}{_SCALE} must have one value or {len(integers)}, one per output '
      f'channel, got shape {scale.shape}.'
    )
  scale = scale.astype(np.float32).reshape(-1)
  if not (np.isfinite(scale) & (scale > 0)).all():
    raise ValueError(f'{name}{_SCALE} must hold finite positive numbers.')
  return integers * scale.reshape(-1, *[1] * (integers.ndim - 1))
