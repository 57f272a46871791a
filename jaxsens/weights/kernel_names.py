"""State dicts of networks with a kernel per class, see `uncertainty.duq`.

With the names of the code that was published with the method, whose layouts are
the same:

    W (M, K, D)                 head.kernels
    N (K,)                      head.counts
    m (M, K)                    head.sums
    feature_extractor.<name>    the extractor, see `convert`

References:
  van Amersfoort, Smith, Teh, Gal, Uncertainty estimation using a single deep
  deterministic neural network, 2020 (y0ast/deterministic-uncertainty-
  quantification).
"""

from flax import nnx
import numpy as np

from jaxsens.models import states
from jaxsens.weights import convert
from jaxsens.weights import state_dicts

_HEAD = {'W': 'kernels', 'N': 'counts', 'm': 'sums'}
_EXTRACTOR = 'feature_extractor.'


def are_in(state_dict: state_dicts.StateDict) -> bool:
  """Returns whether a state dict is that of a network with kernels."""
  return _HEAD.keys() <= state_dict.keys()


def to_torch_names(model: nnx.Module) -> dict[str, np.ndarray]:
  """Returns the state dict of a network with `extractor` and `head`."""
  found = {
    _EXTRACTOR + name: array
    for name, array in convert.to_torch_names(model.extractor).items()
  }
  return found | {
    name: np.array(getattr(model.head, field)[...])
    for name, field in _HEAD.items()
  }


def load_torch_names(
  model: nnx.Module, state_dict: state_dicts.StateDict
) -> nnx.Module:
  """Returns a copy of a network with the values of a state dict.

  Args:
    model: network with `extractor` and `head`, left as it is; may be abstract.
    state_dict: see `to_torch_names`.

  Raises:
    ValueError: names or shapes differ, or values are not finite.
  """
  extractor = {
    name.removeprefix(_EXTRACTOR): array
    for name, array in state_dict.items() if name.startswith(_EXTRACTOR)
  }
  filled = convert.load_torch_names(model.extractor, extractor).model
  arrays = {
    f'extractor.{name}': array
    for name, array in states.flatten(filled).items()
  }
  for name, array in state_dict.items():
    if not name.startswith(_EXTRACTOR):
      arrays[f'head.{_HEAD.get(name, name)}'] = array
  for name, field in _HEAD.items():
    if not np.isfinite(np.asarray(state_dict.get(name, 0.0))).all():
      raise ValueError(f'{name}, the {field} of the kernels, must be finite.')
  return states.replace(model, arrays)
