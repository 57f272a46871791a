"""Brings state dicts to what a network has: names, norms, stem and head.

Every function takes a state dict with torch's names and layouts and returns
another; the arrays are float64 or of the precision that they had.
"""

from collections.abc import Sequence
import dataclasses

from flax import nnx
import numpy as np

from jaxsens import classifiers
from jaxsens.models import inference
from jaxsens.models import layers
from jaxsens.models import registry
from jaxsens.models import states
from jaxsens.weights import state_dicts
from jaxsens.weights import timm_names

StateDict = state_dicts.StateDict

_NORM = ('weight', 'bias', 'running_mean', 'running_var')


@dataclasses.dataclass(frozen=True)
class Adapted:
  """A state dict that fits a network but perhaps for its head.

  Attributes:
    state_dict: arrays by the names of the network.
    notes: what was changed, one sentence each.
    other_head: whether its head is for another number of classes.
  """

  state_dict: StateDict
  notes: tuple[str, ...]
  other_head: bool


def adapt(
  state_dict: StateDict,
  architecture: str,
  model: nnx.Module,
  *,
  epsilon: float | None = None,
  rgb: classifiers.Normalise | None = None,
  gray: classifiers.Normalise | None = None,
) -> Adapted:
  """Returns what a network can be filled with, and what was done for it.

  In this order: timm's names become torchvision's, batch norms that were folded
  into convolutions return, those of another epsilon get that of the network, an
  RGB stem becomes a gray one, and the head takes the place that it has in the
  network.

  Args:
    state_dict: arrays by names of torchvision or timm.
    architecture: a key of `registry.ARCHITECTURES`.
    model: such a network; may be abstract.
    epsilon: of the batch norms that the weights were trained with; None is
      timm's where the names are, otherwise that of the network.
    rgb: normalisation that the weights were trained with; needed, as is
      `gray`, where the network takes gray images and the weights RGB ones.
    gray: normalisation of the gray network.

  Raises:
    ValueError: the names are of no known kind, or a normalisation is missing.
  """
  known = registry.find(architecture)
  notes = []
  if timm_names.is_timm(state_dict):
    state_dict = timm_names.to_torchvision(state_dict, architecture)
    epsilon = timm_names.EPSILON if epsilon is None else epsilon
    notes.append('names of timm became names of torchvision')
  state_dict, count = unfold(state_dict, model, _image_shape(known, model))
  if count:
    notes.append(f'{count} batch norms were found folded into convolutions')
  if epsilon is not None:
    state_dict, count = change_epsilon(state_dict, model, epsilon)
    if count:
      notes.append(f'{count} batch norms had epsilon {epsilon}')
  if _is_rgb_for_gray(state_dict, known, model):
    if rgb is None or gray is None:
      raise ValueError(
        'weights for RGB images in a network for gray ones need both '
        f'normalisations, got rgb={rgb} and gray={gray}.'
      )
    state_dict = gray_stem(
      state_dict, rgb=rgb, gray=gray, conv=known.stem, norm=known.stem_norm
    )
    notes.append('the RGB stem became a gray one')
  state_dict = place_head(state_dict, model, known.head)
  return Adapted(
    state_dict, tuple(notes), _has_other_head(state_dict, model, known.head)
  )


def _stem_channels(known: registry.Architecture, model: nnx.Module) -> int:
  return states.flatten(model)[f'{known.stem}.kernel'].shape[2]


def _image_shape(known, model) -> tuple[int, int, int]:
  return (*known.image_size, _stem_channels(known, model))


def _is_rgb_for_gray(state_dict, known, model) -> bool:
  kernel = state_dict.get(f'{known.stem}.weight')
  if kernel is None or kernel.ndim != 4:
    return False
  return (kernel.shape[1], _stem_channels(known, model)) == (3, 1)


def unfold(
  state_dict: StateDict, model: nnx.Module, image_shape: Sequence[int]
) -> tuple[dict[str, np.ndarray], int]:
  """Returns a state dict with batch norms where they were folded away.

  A batch norm of the network without any entry, behind a convolution that has a
  bias in the state dict and none in the network, becomes

      bias = bias of the convolution, weight = 1,
      running_mean = 0, running_var = 1 - epsilon,

  which adds the bias and does nothing else. Where the convolution has a bias of
  its own that keeps it, and the batch norm does nothing.

  Args:
    state_dict: arrays by torch's names.
    model: the network; may be abstract.
    image_shape: (H, W, C) of images that it takes.

  Returns:
    The state dict, and the number of batch norms that were put back.
  """
  arrays, count = dict(state_dict), 0
  for call in inference.convolution_calls(model, image_shape):
    bias = f'{call.name}.bias'
    names = [f'{call.norm_name}.{leaf}' for leaf in _NORM]
    if call.norm is None or bias not in arrays or any(
      name in arrays for name in names
    ):
      continue
    ones = np.ones_like(arrays[bias], np.float32)
    own_bias = hasattr(call.layer, 'bias')
    offset = 0 * ones if own_bias else arrays.pop(bias)
    variance = ones * np.float32(1 - call.norm.epsilon)
    values = (ones, offset, 0 * ones, variance)
    arrays |= dict(zip(names, values, strict=True))
    count += 1
  return arrays, count


def change_epsilon(
  state_dict: StateDict, model: nnx.Module, epsilon: float
) -> tuple[dict[str, np.ndarray], int]:
  """Returns a state dict for the epsilons that a network has.

      weight' = weight sqrt((running_var + epsilon') / (running_var + epsilon))

  keeps what each batch norm does with its running moments.

  Args:
    state_dict: arrays by torch's names, trained with `epsilon`.
    model: the network, its batch norms with epsilon'; may be abstract.
    epsilon: see above.

  Returns:
    The state dict, and the number of batch norms that were changed.
  """
  arrays, count = dict(state_dict), 0
  for path, module in nnx.iter_modules(model):
    name = '.'.join(map(str, path))
    weight, variance = f'{name}.weight', f'{name}.running_var'
    if (
      not isinstance(module, layers.BatchNorm)
      or module.epsilon == epsilon
      or not {weight, variance} <= set(arrays)
    ):
      continue
    variance = arrays[variance].astype(np.float64)
    ratio = (variance + module.epsilon) / (variance + epsilon)
    arrays[weight] = arrays[weight] * np.sqrt(ratio)
    count += 1
  return arrays, count


def place_head(
  state_dict: StateDict, model: nnx.Module, head: str
) -> dict[str, np.ndarray]:
  """Returns a state dict whose head stands where a network has its own.

  A network with dropout has its head at `<head>.1` where one without has it at
  `<head>`; state dicts may have either.
  """
  inner = f'{head}.1'
  to_inner = f'{inner}.kernel' in states.flatten(model)
  is_inner = f'{inner}.weight' in state_dict
  if to_inner == is_inner:
    return dict(state_dict)
  old, new = (head, inner) if to_inner else (inner, head)
  renamed = {f'{old}.{leaf}': f'{new}.{leaf}' for leaf in ('weight', 'bias')}
  return {renamed.get(name, name): x for name, x in state_dict.items()}


def _has_other_head(state_dict, model, head) -> bool:
  own = states.flatten(model)
  name = head if f'{head}.kernel' in own else f'{head}.1'
  given = state_dict.get(f'{name}.weight')
  if given is None or not given.ndim:
    return False
  return given.shape[0] != own[f'{name}.kernel'].shape[-1]


def gray_stem(
  state_dict: StateDict,
  *,
  rgb: classifiers.Normalise,
  gray: classifiers.Normalise,
  conv: str = 'conv1',
  norm: str | None = 'bn1',
) -> dict[str, np.ndarray]:
  """Returns a state dict whose stem takes gray images instead of RGB ones.

  A gray image g enters the RGB network as (g, g, g), normalised per channel
  with mean m_c and standard deviation s_c; the gray network sees
  x = (g - m) / s. Channel c then is (s / s_c) x + (m - m_c) / s_c, so

      W_gray = Σ_c (s / s_c) W_c
      running_mean_gray = running_mean - Σ_c (m - m_c) / s_c Σ_hw W_c

  make both networks equal wherever the stem sees no padding; a stem with a bias
  has the constant added there instead. At the border they differ: zero padding
  means the gray level m in one network and the colour (m_c) in the other.

  Args:
    state_dict: of an RGB network, by torch's names.
    rgb: normalisation of the RGB network, three channels.
    gray: normalisation of the gray network, one channel.
    conv: name of the first convolution.
    norm: name of the batch norm that follows it; None where none does.

  Returns:
    A copy with `<conv>.weight` (out, 1, h, w) and `<conv>.bias` or
    `<norm>.running_mean` (out,), both float32.

  Raises:
    ValueError: the names are absent, or the stem or a normalisation has another
      number of channels.
  """
  kernel_name, bias_name = f'{conv}.weight', f'{conv}.bias'
  has_bias = bias_name in state_dict or norm is None
  offset_name = bias_name if has_bias else f'{norm}.running_mean'
  absent = [n for n in (kernel_name, offset_name) if n not in state_dict]
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
  constant = np.einsum('c,ochw->o', shift, kernel) * (1 if has_bias else -1)
  return {
    **state_dict,
    kernel_name: gray_kernel.astype(np.float32),
    offset_name: (state_dict[offset_name] + constant).astype(np.float32),
  }
