"""Reads pickles of numbers, texts and NumPy arrays, and of nothing else.

A pickle is a program that may name any function to call. This reader knows the
five names by which NumPy writes arrays and bytes, all of them bound to
functions of its own, and refuses every other name before it is looked up.
Nothing is imported on behalf of the file.
"""

import codecs
import os
import pathlib
import pickle
from typing import Any

import numpy as np

# bool, integers, floats, complex numbers, bytes and text; never objects.
_KINDS = 'biufcSU'


def read(path: str | os.PathLike) -> Any:
  """Returns the content of a pickle, texts of Python 2 as bytes.

  Args:
    path: the file.

  Returns:
    dicts, lists, tuples, numbers, bytes, texts and arrays, as they were saved.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file is no pickle, is truncated, or names anything but
      arrays; the message says what.
  """
  path = pathlib.Path(path)
  with path.open('rb') as file:
    try:
      return _Unpickler(file, encoding='bytes').load()
    except _Refused as refusal:
      raise ValueError(f'{path}: {refusal}') from None
    except Exception as error:  # a damaged pickle may raise anything
      raise ValueError(
        f'{path}: truncated or damaged pickle '
        f'({type(error).__name__}: {error}).'
      ) from error


class _Refused(pickle.UnpicklingError):
  """Something that this reader does not take from a file."""


class _Unpickler(pickle.Unpickler):
  """An unpickler of plain data and arrays."""

  def find_class(self, module: str, name: str) -> Any:
    """Returns one of the functions below."""
    if (module, name) not in _GLOBALS:
      raise _Refused(
        f'the pickle asks for {module}.{name}, which is not admitted: only '
        'numbers, texts, dicts, lists and arrays are.'
      )
    return _GLOBALS[module, name]

  def persistent_load(self, pid: Any) -> Any:
    """Refuses references to what lies outside the file."""
    raise _Refused('the pickle refers to objects outside the file.')


def _empty_array(subtype, shape, kind) -> np.ndarray:
  """Returns the array whose state follows in the pickle."""
  if subtype is not _ARRAY or tuple(shape) != (0,):
    raise _Refused('an array of the pickle is not as NumPy writes it.')
  return np.empty(0, _dtype(kind))


def _dtype(text, align=False, copy=True) -> np.dtype:
  """Returns a dtype of numbers or texts."""
  del align, copy
  name = text.decode('ascii') if isinstance(text, bytes) else text
  dtype = np.dtype(name if isinstance(name, str) else 'O')
  if dtype.kind not in _KINDS or dtype.subdtype or dtype.fields:
    raise _Refused(f'arrays of {name!r} are not admitted, only of numbers.')
  return dtype


def _encode(text, encoding) -> bytes:
  """Returns bytes that Python 3 writes as text where pickles were older."""
  name = encoding.decode('ascii') if isinstance(encoding, bytes) else encoding
  if name != 'latin1':
    raise _Refused(f'bytes of encoding {name!r} are not admitted.')
  return codecs.encode(text, 'latin1')


# Stands for the class numpy.ndarray, which is passed but never called.
_ARRAY = object()
_GLOBALS = {
  ('numpy.core.multiarray', '_reconstruct'): _empty_array,
  ('numpy._core.multiarray', '_reconstruct'): _empty_array,
  ('numpy', 'ndarray'): _ARRAY,
  ('numpy', 'dtype'): _dtype,
  ('_codecs', 'encode'): _encode,
}
