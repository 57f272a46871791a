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
import dataclasses

from flax import nnx
import numpy as np

from jaxsens import classifiers
from jaxsens.models import registry
from jaxsens.models import states
from jaxsens.weights import adaptation
from jaxsens.weights import state_dicts

StateDict = state_dicts.StateDict
read_state_dict = state_dicts.read
gray_stem = adaptation.gray_stem

_TORCH_NAMES = {
  'kernel': 'weight',
  'scale': 'weight',
  'bias': 'bias',
  'mean': 'running_mean',
  'var': 'running_var',
}
_COUNTER = 'num_batches_tracked'


@dataclasses.dataclass(frozen=True)
class Loaded:
  """A network filled from a state dict, and what was not taken from it.

  Attributes:
    model: the filled network.
    fresh: names, as torch would call them, that kept their initial values.
    unused: names of the state dict that were not used.
    notes: what was changed in the state dict before, one sentence each.
  """

  model: nnx.Module
  fresh: tuple[str, ...]
  unused: tuple[str, ...]
  notes: tuple[str, ...] = ()


def load(
  architecture: str,
  model: nnx.Module,
  state_dict: StateDict,
  *,
  replace_head: bool | None = None,
  allow_unused: bool = False,
  epsilon: float | None = None,
  rgb: classifiers.Normalise | None = None,
  gray: classifiers.Normalise | None = None,
) -> Loaded:
  """Returns a copy of a network with the values of a state dict of any kind.

  Names of timm, batch norms folded into convolutions, batch norms of another
  epsilon, RGB stems for gray images and heads for another number of classes are
  recognised, see `adaptation.adapt`.

  Args:
    architecture: a key of `registry.ARCHITECTURES`.
    model: such a network, left as it is.
    state_dict: arrays by names of torchvision or timm.
    replace_head: keep the network's own initial head; None keeps it where the
      one of the state dict has another number of classes.
    allow_unused: pass over names that the network does not have, as a shortened
      network needs it.
    epsilon: of the batch norms that the weights were trained with, where it is
      neither timm's nor the network's.
    rgb: normalisation that the weights were trained with.
    gray: normalisation of the network, where it takes gray images.

  Raises:
    ValueError: see `load_torch_names` and `adaptation.adapt`.
  """
  adapted = adaptation.adapt(
    state_dict, architecture, model, epsilon=epsilon, rgb=rgb, gray=gray
  )
  if replace_head is None:
    replace_head = adapted.other_head
  loaded = load_torch_names(
    model, adapted.state_dict, replace_head=replace_head,
    head=registry.find(architecture).head, allow_unused=allow_unused,
  )
  return dataclasses.replace(loaded, notes=adapted.notes)


def load_torch_names(
  model: nnx.Module,
  state_dict: StateDict,
  *,
  replace_head: bool = False,
  head: str = 'fc',
  allow_unused: bool = False,
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
    allow_unused: leave names that the network does not have unused.

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
  if allow_unused:
    unused |= set(state_dict) - set(names.values())
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


def to_torchvision_names(
  model: nnx.Module, architecture: str
) -> dict[str, np.ndarray]:
  """Returns the state dict that torchvision's network of this name takes.

  As `to_torch_names`, but the head of a network with dropout stands where
  torchvision has it; dropout itself has no values.
  """
  head = registry.find(architecture).head
  state_dict = to_torch_names(model)
  return {
    n.replace(f'{head}.1.', f'{head}.', 1) if _is_in(n, f'{head}.1') else n: x
    for n, x in state_dict.items()
  }
