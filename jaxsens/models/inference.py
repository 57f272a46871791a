"""Networks as they are run: batch norm folded, kernels in their fastest form.

Nothing here knows an architecture. What follows what, and at which size, is
observed while the network is traced once on an abstract image; a batch norm
whose input is the result of a convolution is folded into it.
"""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import math
import os

from flax import nnx
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxsens import classifiers
from jaxsens.models import layers
from jaxsens.models import networks
from jaxsens.models import winograd


@dataclasses.dataclass(frozen=True)
class Call:
  """A convolution as it was met in a network.

  Attributes:
    name: its attribute path, joined by dots.
    layer: the convolution.
    norm_name: the path of the batch norm that takes its result, or None.
    norm: that batch norm, or None.
    input_shape: (H, W, C) of its input.
    output_shape: (h, w, out) of its result.
  """

  name: str
  layer: layers.Convolution
  norm_name: str | None
  norm: layers.BatchNorm | None
  input_shape: tuple[int, int, int]
  output_shape: tuple[int, int, int]


def convolution_calls(
  model: nnx.Module, image_shape: Sequence[int]
) -> tuple[Call, ...]:
  """Returns the convolutions of a network in the order in which they run.

  Args:
    model: any network made of `layers`; may be abstract.
    image_shape: (H, W, C) of an image.
  """
  seen = []
  graphdef, state = nnx.split(model)

  def forward(state, images):
    copy = nnx.merge(graphdef, state)
    names = {
      id(module): '.'.join(map(str, path))
      for path, module in nnx.iter_modules(copy)
    }
    note = lambda layer, x, y: seen.append((names[id(layer)], layer, x, y))
    with layers.observe(note):
      return copy(images)

  images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
  jax.eval_shape(forward, state, images)
  own = {'.'.join(map(str, path)): m for path, m in nnx.iter_modules(model)}
  norms = {
    id(x): name for name, layer, x, _ in seen
    if isinstance(layer, layers.BatchNorm)
  }
  return tuple(
    Call(
      name, own[name], norms.get(id(y)), own.get(norms.get(id(y))),
      x.shape[1:], y.shape[1:],
    )
    for name, layer, x, y in seen if isinstance(layer, layers.Convolution)
  )


def prepare(
  model: nnx.Module,
  image_shape: Sequence[int],
  *,
  dtype: DTypeLike = jnp.float32,
  tiles: bool = True,
) -> nnx.Module:
  """Returns the equivalent network for inference.

      folded kernel[..., c] = kernel[..., c] f[c]
      folded bias[c] = bias[c] + (bias of the convolution[c] - mean[c]) f[c]
      f[c] = scale[c] / sqrt(var[c] + epsilon)

  with the running moments; the folded batch norms have no arrays left. On CPU,
  in float32, 3x3 kernels at stride 1 that act on at least a whole tile are
  transformed for `winograd.convolve_tiles`: ResNet18 runs 1.3 times as fast
  at 64 pixels, 1.6 times at 224 (batch 8). On less than a tile reading the
  larger kernels costs more than is gained. There large maps go through a few
  images at a time, see `slice_size`.

  Args:
    model: a network with its running moments, left as it is.
    image_shape: (H, W, C) of the images to come; the result is valid for every
      H and W that the network takes.
    dtype: of the convolutions, and so of their computation.
    tiles: whether kernels may be transformed, which quadruples their memory.
  """
  model = nnx.clone(model)
  dtype = jnp.dtype(dtype)
  calls = convolution_calls(model, image_shape)
  for call in calls:
    if call.norm is not None:
      _fold(call.layer, call.norm)
    _cast(call.layer, dtype)
    if tiles and _is_tiled(call, dtype):
      tiled = winograd.tile_kernel(call.layer.kernel[...])
      call.layer.kernel = nnx.Param(tiled)
  for _, module in nnx.iter_modules(model):
    if isinstance(module, networks.Network):
      module.slice_size = slice_size(calls)
  if hasattr(model, 'dtype'):
    model.dtype = dtype
  return model


def slice_size(calls: Sequence[Call]) -> int:
  """Returns how many images are to go through a network together; 0 is all.

  On CPU a program whose memory exceeds 32 MiB is given fresh pages by glibc in
  every run, and zeroing them costs up to a third of the time: eight images of
  224 pixels in slices of four or two are 1.1 (ResNet) to 1.4 times (MobileNetV3
  large) as fast. At least as many images as there are cores go together.

  Args:
    calls: convolutions, see `convolution_calls`.
  """
  if jax.default_backend() != 'cpu':
    return 0
  largest = max(
    math.prod(call.input_shape) + math.prod(call.output_shape)
    for call in calls
  )
  return max(_SLICE_NUMBERS // largest, os.cpu_count() or 1)


def gradient_slice_size(model: nnx.Module, image_shape: Sequence[int]) -> int:
  """Returns how many images' gradients are to be taken together; 0 is all.

  What the backward pass keeps doubles the memory, so that half of `slice_size`
  stays below the same limit (SqueezeNet1.1 at 224 pixels, eight images: 1.5
  times as fast). But where kernels outweigh the maps, reading them for few
  images costs more than fresh pages do (ResNet18: four at a time are 1.1 times
  as fast as two or eight).

  Args:
    model: a network as it is trained.
    image_shape: (H, W, C) of its images.
  """
  calls = convolution_calls(model, image_shape)
  size = slice_size(calls)
  numbers = sum(math.prod(call.layer.kernel.shape) for call in calls)
  if numbers > _SLICE_NUMBERS:
    return size
  return max(size // 2, min(size, os.cpu_count() or 1))


def classifier(
  model: nnx.Module,
  *,
  preprocess: Callable[[jax.Array], jax.Array],
  class_names: Sequence[str],
  image_size: tuple[int, int],
  channels: int,
  dtype: DTypeLike = jnp.float32,
  answers: str = 'logits',
) -> classifiers.Classifier:
  """Returns the classifier of a network, prepared for inference.

  Args:
    model: a trained network.
    preprocess: normalisation that the network was trained with.
    class_names: K names in the order of the logits.
    image_size: (height, width) in pixels.
    channels: 1 for gray, 3 for RGB.
    dtype: see `prepare`.
    answers: see `classifiers.Classifier`.
  """
  return classifiers.from_flax(
    prepare(model, (*image_size, channels), dtype=dtype),
    preprocess=preprocess, class_names=class_names, image_size=image_size,
    channels=channels, answers=answers,
    gradient_slice=gradient_slice_size(model, (*image_size, channels)),
  )


def _fold(convolution: layers.Convolution, norm: layers.BatchNorm) -> None:
  mean, var = norm.moments()
  factor = norm.scale[...] / jnp.sqrt(var + norm.epsilon)
  before = convolution.bias[...] if hasattr(convolution, 'bias') else 0.0
  convolution.kernel = nnx.Param(convolution.kernel[...] * factor)
  convolution.bias = nnx.Param(norm.bias[...] + (before - mean) * factor)
  for name in ('scale', 'bias', 'mean', 'var'):
    delattr(norm, name)


def _cast(convolution: layers.Convolution, dtype: jnp.dtype) -> None:
  convolution.dtype = dtype
  for name in ('kernel', 'bias'):
    if hasattr(convolution, name):
      array = getattr(convolution, name)[...].astype(dtype)
      setattr(convolution, name, nnx.Param(array))


def _is_tiled(call: Call, dtype: jnp.dtype) -> bool:
  """Whether tiles are the fastest form on this platform."""
  height, width, channels, _ = call.layer.kernel.shape
  return (
    jax.default_backend() == 'cpu'
    and dtype == jnp.float32
    and (height, width) == (3, 3)
    and call.layer.stride == 1
    and call.layer.padding in ('torch', 'same', 1)
    and channels == call.input_shape[-1]
    and channels >= _TILED_CHANNELS
    and min(call.output_shape[:2]) >= winograd.TILE_SIZE
  )


# Images in a slice times the largest input and result of a convolution. Their
# memory, with what else is held at that time, stays below 32 MiB.
_SLICE_NUMBERS = 5_000_000

# Fewer channels leave the products of the tiles too thin.
_TILED_CHANNELS = 16
