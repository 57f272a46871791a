"""Converts state dicts with torchvision's names to networks, and back.

Layout rules, the only differences between the two:

    torch                                 here
    <conv>.weight (out, in, h, w)         <conv>.kernel (h, w, in, out)
    <linear>.weight (out, in)             <linear>.kernel (in, out)
    <norm>.weight, .bias                  <norm>.scale, .bias
    <norm>.running_mean, .running_var     <norm>.mean, .var
    <norm>.num_batches_tracked            none: a counter that torch ignores
                                          when its momentum is a number

Names that are missing, left over or of another shape raise one error that lists
them all.
"""

from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
import os
import pathlib
import zipfile

from flax import nnx
import numpy as np

from jaxsens import classifiers
from jaxsens.models import states
from jaxsens.weights import safetensors
from jaxsens.weights import torch_archive

StateDict = Mapping[str, np.ndarray]

_TORCH_NAMES = {
  'kernel': 'weight',
  'scale': 'weight',
  'bias': 'bias',
  'mean': 'running_mean',
  'var': 'running_var',
}
_COUNTER = 'num_batches_tracked'
_ENTRIES = ('model_state_dict', 'state_dict', 'model')


@dataclasses.dataclass(frozen=True)
class Loaded:
  """A network filled from a state dict, and what was not taken from it.

  Attributes:
    model: the filled network.
    fresh: names, as torch would call them, that kept their initial values.
    unused: names of the state dict that were not used.
  """

  model: nnx.Module
  fresh: tuple[str, ...]
  unused: tuple[str, ...]


def read_state_dict(
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
      dict or several, or asks for code to be executed.
  """
  path = pathlib.Path(path)
  if path.suffix in ('.pth', '.pt'):
    return _state_dict_entry(path, torch_archive.read(path), entry)
  if entry is not None:
    raise ValueError(f'{path}: only .pth files have entries, got {entry!r}.')
  if path.suffix == '.safetensors':
    return safetensors.read(path)
  if path.suffix == '.npz':
    return _read_npz(path)
  raise ValueError(
    f'{path}: weights are read from .npz, .safetensors, .pth or .pt files.'
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


def load_torch_names(
  model: nnx.Module,
  state_dict: StateDict,
  *,
  replace_head: bool = False,
  head: str = 'fc',
) -> Loaded:
  """Returns a copy of a network with the values of a state dict.

  Args:
    model: network whose attribute paths are torch's names, left as it is; it
      may be abstract (`nnx.eval_shape`) when its head is not kept.
    state_dict: floating-point arrays by torch's names, in torch's layouts; any
      precision, cast to that of the network.
    replace_head: keep the network's own initial head and leave that of the
      state dict unused, whatever its number of classes.
    head: name of the head.

  Returns:
    The filled network, and the names that were kept fresh or left unused.

  Raises:
    ValueError: names are missing, left over or misshapen, or values are not
      finite floating-point numbers.
  """
  own = states.flatten(model)
  names = {name: _torch_name(name) for name in own}
  fresh = {n for n in names.values() if replace_head and _is_in(n, head)}
  if replace_head and not fresh:
    raise ValueError(f'the network has no head {head!r} to keep.')
  unused = _unused(state_dict, names.values(), head if replace_head else None)
  given = {n: x for n, x in state_dict.items() if n not in unused}
  _check_shapes(own, given, fresh)
  _check_values(given)
  arrays = {
    name: own[name] if torch in fresh else _from_torch(given[torch])
    for name, torch in names.items()
  }
  return Loaded(
    states.replace(model, arrays), tuple(sorted(fresh)), tuple(sorted(unused))
  )


def _is_in(name: str, module: str) -> bool:
  return name.startswith(f'{module}.')


def _unused(
  state_dict: StateDict, needed: Iterable[str], head: str | None
) -> set[str]:
  """Returns the names passed over on purpose: counters and a replaced head."""
  mean = 'running_mean'
  counters = {
    name.removesuffix(mean) + _COUNTER for name in needed if name.endswith(mean)
  }
  return {
    name
    for name in state_dict
    if name in counters or (head is not None and _is_in(name, head))
  }


def _check_shapes(own: StateDict, given: StateDict, fresh: set[str]) -> None:
  needed = {
    _torch_name(name): tuple(x.shape[i] for i in _to_torch_axes(x.ndim))
    for name, x in own.items()
  }
  needed = {name: shape for name, shape in needed.items() if name not in fresh}
  problems = states.differences(needed, {n: x.shape for n, x in given.items()})
  if problems:
    raise ValueError(f'weights do not fit the network: {problems}')


def _check_values(given: StateDict) -> None:
  bad = [
    f'{name} ({array.dtype})'
    for name, array in given.items()
    if not _is_real(array) or not np.isfinite(array.astype(np.float32)).all()
  ]
  if bad:
    raise ValueError(f'weights must be finite floating-point numbers: {bad}.')


def _is_real(array: np.ndarray) -> bool:
  # bfloat16 is not a subtype of np.floating but casts to float32 exactly.
  return array.dtype.kind == 'f' or array.dtype.name == 'bfloat16'


def _torch_name(name: str) -> str:
  module, _, leaf = name.rpartition('.')
  return f'{module}.{_TORCH_NAMES[leaf]}'


def _from_torch(array: np.ndarray) -> np.ndarray:
  axes = {4: (2, 3, 1, 0), 2: (1, 0)}.get(array.ndim)
  return array if axes is None else np.transpose(array, axes)


def _to_torch_axes(num_axes: int) -> tuple[int, ...]:
  """Returns our axes in the order in which torch has them."""
  return {4: (3, 2, 0, 1), 2: (1, 0)}.get(num_axes, tuple(range(num_axes)))


def to_torch_names(model: nnx.Module) -> dict[str, np.ndarray]:
  """Returns the state dict that torch's network of the same names would have.

  The inverse of `load_torch_names`. Counters of batch norm are zero.
  """
  arrays = {name: np.asarray(x) for name, x in states.flatten(model).items()}
  state_dict = {}
  for name, array in arrays.items():
    layout = np.transpose(array, _to_torch_axes(array.ndim))
    state_dict[_torch_name(name)] = np.array(layout, order='C')
    if name.endswith('.mean'):
      counter = f'{name.removesuffix("mean")}{_COUNTER}'
      state_dict[counter] = np.zeros((), np.int64)
  return state_dict


def gray_stem(
  state_dict: StateDict,
  *,
  rgb: classifiers.Normalise,
  gray: classifiers.Normalise,
  conv: str = 'conv1',
  norm: str = 'bn1',
) -> dict[str, np.ndarray]:
  """Returns a state dict whose stem takes gray images instead of RGB ones.

  A gray image g enters the RGB network as (g, g, g), normalised per channel
  with mean m_c and standard deviation s_c; the gray network sees
  x = (g - m) / s. Channel c then is (s / s_c) x + (m - m_c) / s_c, so

      W_gray = Σ_c (s / s_c) W_c
      running_mean_gray = running_mean - Σ_c (m - m_c) / s_c Σ_hw W_c

  make both networks equal wherever the stem sees no padding. At the border they
  differ: zero padding means the gray level m in one network and the colour
  (m_c) in the other.

  Args:
    state_dict: of an RGB network, by torch's names.
    rgb: normalisation of the RGB network, three channels.
    gray: normalisation of the gray network, one channel.
    conv: name of the first convolution, which has no bias.
    norm: name of the batch norm that follows it.

  Returns:
    A copy with `<conv>.weight` (out, 1, h, w) and `<norm>.running_mean` (out,),
    both float32.

  Raises:
    ValueError: the names are absent, or the stem or a normalisation has another
      number of channels.
  """
  kernel_name, mean_name = f'{conv}.weight', f'{norm}.running_mean'
  absent = [n for n in (kernel_name, mean_name) if n not in state_dict]
  if absent:
    raise ValueError(f'the state dict of an RGB network must have {absent}.')
  kernel = state_dict[kernel_name].astype(np.float64)
  channels = (kernel.shape[1], len(rgb.mean), len(gray.mean))
  if channels != (3, 3, 1):
    raise ValueError(
      'channels of the stem, of rgb and of gray must be (3, 3, 1), got '
      f'{channels}; {kernel_name} has shape {kernel.shape}.'
    )
  ratio = gray.std[0] / np.asarray(rgb.std)
  shift = (gray.mean[0] - np.asarray(rgb.mean)) / np.asarray(rgb.std)
  gray_kernel = np.einsum('c,ochw->ohw', ratio, kernel)[:, None]
  constant = np.einsum('c,ochw->o', shift, kernel)
  return {
    **state_dict,
    kernel_name: gray_kernel.astype(np.float32),
    mean_name: (state_dict[mean_name] - constant).astype(np.float32),
  }
