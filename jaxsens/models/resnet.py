"""ResNet18 in Flax NNX, and the same network with batch norm folded away.

Attribute paths equal torchvision's parameter names: the state path
('layer1', 0, 'conv1', 'kernel') is torchvision's `layer1.0.conv1.weight`. With
dropout the head is `fc.1` (`Sequential(Dropout, Linear)`), without it `fc`.
Networks take normalised images (B, H, W, C) and return logits (B, K) in
float32; normalisation is the business of the `Classifier`.

References:
  He et al., Deep residual learning for image recognition, 2016, table 1.
  torchvision.models.resnet18, for padding, names and initial values.
"""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxsens import classifiers
from jaxsens.models import layers


class BasicBlock(nnx.Module):
  """Two 3x3 convolutions and a shortcut: relu(x + f(x)).

  Attributes:
    conv1, bn1, conv2, bn2: the residual branch f.
    downsample: convolution 1x1 and batch norm of the shortcut where the shape
      changes; absent elsewhere.
  """

  def __init__(
    self,
    in_channels: int,
    channels: int,
    stride: int,
    *,
    dtype: DTypeLike,
    rngs: nnx.Rngs,
  ):
    options = dict(dtype=dtype, rngs=rngs)
    self.conv1 = layers.Convolution(
      in_channels, channels, 3, stride=stride, **options
    )
    self.bn1 = layers.BatchNorm(channels)
    self.conv2 = layers.Convolution(channels, channels, 3, **options)
    self.bn2 = layers.BatchNorm(channels)
    if stride != 1 or in_channels != channels:
      shortcut = layers.Convolution(
        in_channels, channels, 1, stride=stride, **options
      )
      self.downsample = nnx.List([shortcut, layers.BatchNorm(channels)])

  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    """Returns relu(shortcut(x) + f(x)), (B, H / stride, W / stride, C)."""
    shortcut = x
    if hasattr(self, 'downsample'):
      convolution, norm = self.downsample
      shortcut = norm(convolution(x), train=train)
    y = layers.relu(self.bn1(self.conv1(x), train=train))
    y = self.bn2(self.conv2(y), train=train)
    return layers.relu(y + shortcut)


class ResNet(nnx.Module):
  """Stem, four stages of residual blocks, mean over the image, linear head.

  Attributes:
    conv1, bn1: stem, 7x7 at stride 2.
    layer1, layer2, layer3, layer4: stages of 64, 128, 256 and 512 channels; all
      but the first halve the image.
    fc: linear head, or [dropout, linear head].
  """

  def __init__(
    self,
    num_blocks: Sequence[int],
    num_classes: int,
    *,
    in_channels: int,
    dropout: float,
    dtype: DTypeLike,
    rngs: nnx.Rngs,
  ):
    self.dtype = jnp.dtype(dtype)
    options = dict(dtype=dtype, rngs=rngs)
    self.conv1 = layers.Convolution(in_channels, 64, 7, stride=2, **options)
    self.bn1 = layers.BatchNorm(64)
    self.layer1 = _stage(64, 64, num_blocks[0], stride=1, **options)
    self.layer2 = _stage(64, 128, num_blocks[1], stride=2, **options)
    self.layer3 = _stage(128, 256, num_blocks[2], stride=2, **options)
    self.layer4 = _stage(256, 512, num_blocks[3], stride=2, **options)
    head = layers.linear(512, num_classes, rngs=rngs)
    self.fc = nnx.List([nnx.Dropout(dropout), head]) if dropout else head

  def __call__(
    self,
    images: jax.Array,
    *,
    train: bool = False,
    key: jax.Array | None = None,
  ) -> jax.Array:
    """Returns the logits of normalised images.

    Args:
      images: (B, H, W, C).
      train: normalise by the moments of the batch, update the running ones and
        drop features before the head.
      key: key of the dropout; needed in training when the head has dropout.

    Returns:
      Logits (B, K), float32.
    """
    x = self.conv1(images.astype(self.dtype))
    x = layers.max_pool(layers.relu(self.bn1(x, train=train)))
    for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
      for block in stage:
        x = block(x, train=train)
    features = jnp.mean(x, (1, 2), dtype=jnp.float32)
    return self._head(features, train, key)

  def _head(
    self, features: jax.Array, train: bool, key: jax.Array | None
  ) -> jax.Array:
    if not isinstance(self.fc, nnx.List):
      return self.fc(features)
    dropout, linear = self.fc
    if train and key is None:
      raise ValueError('training with dropout needs a key.')
    return linear(dropout(features, deterministic=not train, rngs=key))


def _stage(
  in_channels: int,
  channels: int,
  num_blocks: int,
  *,
  stride: int,
  dtype: DTypeLike,
  rngs: nnx.Rngs,
) -> nnx.List:
  options = dict(dtype=dtype, rngs=rngs)
  first = BasicBlock(in_channels, channels, stride, **options)
  rest = [
    BasicBlock(channels, channels, 1, **options) for _ in range(num_blocks - 1)
  ]
  return nnx.List([first, *rest])


def resnet18(
  key: jax.Array,
  num_classes: int,
  *,
  in_channels: int = 3,
  dropout: float = 0.0,
  dtype: DTypeLike = jnp.float32,
) -> ResNet:
  """Returns a ResNet18 with torchvision's initial distributions.

  Args:
    key: key of the initial values.
    num_classes: K, number of logits.
    in_channels: 3 for RGB, 1 for gray images.
    dropout: probability of dropping a feature before the head, in [0, 1). When
      positive the head is called `fc.1`, otherwise `fc`.
    dtype: dtype of the convolutions, float32 or bfloat16; parameters, batch
      norm and head are float32.

  Returns:
    The network: 11,689,512 parameters for 1000 classes of RGB images.

  Raises:
    ValueError: a number of classes or channels below one, or a dropout outside
      [0, 1).
  """
  if num_classes < 1 or in_channels < 1:
    raise ValueError(
      'num_classes and in_channels must be at least 1, got '
      f'{num_classes} and {in_channels}.'
    )
  if not 0 <= dropout < 1:
    raise ValueError(f'dropout must be in [0, 1), got {dropout}.')
  return ResNet(
    (2, 2, 2, 2),
    num_classes,
    in_channels=in_channels,
    dropout=dropout,
    dtype=dtype,
    rngs=nnx.Rngs(key),
  )


def fold_batch_norm(
  model: ResNet, *, dtype: DTypeLike = jnp.float32
) -> dict[str, Any]:
  """Returns the params of the equivalent inference network without batch norm.

      folded kernel[..., c] = kernel[..., c] f[c]
      folded bias[c] = bias[c] - mean[c] f[c]
      f[c] = scale[c] / sqrt(var[c] + epsilon)

  with the running moments, so `apply_folded(params, images)` equals
  `model(images)` up to rounding.

  Args:
    model: a network with its running moments.
    dtype: dtype of the folded convolutions, and so of their computation; the
      head stays float32.

  Returns:
    Nested dicts and lists named as the network's attributes; every convolution
    is a dict of `kernel` (h, w, in, out) and `bias` (out,).
  """
  params = {'conv1': _folded(model.conv1, model.bn1, dtype)}
  for name in ('layer1', 'layer2', 'layer3', 'layer4'):
    stage = getattr(model, name)
    params[name] = [_folded_block(block, dtype) for block in stage]
  head = model.fc[1] if isinstance(model.fc, nnx.List) else model.fc
  params['fc'] = {'kernel': head.kernel[...], 'bias': head.bias[...]}
  return params


def _folded(
  convolution: layers.Convolution, norm: layers.BatchNorm, dtype: DTypeLike
) -> dict[str, jax.Array]:
  mean, var = norm.moments()
  factor = norm.scale[...] / jnp.sqrt(var + norm.epsilon)
  return {
    'kernel': (convolution.kernel[...] * factor).astype(dtype),
    'bias': (norm.bias[...] - mean * factor).astype(dtype),
  }


def _folded_block(block: BasicBlock, dtype: DTypeLike) -> dict[str, Any]:
  params = {
    'conv1': _folded(block.conv1, block.bn1, dtype),
    'conv2': _folded(block.conv2, block.bn2, dtype),
  }
  if hasattr(block, 'downsample'):
    params['downsample'] = _folded(*block.downsample, dtype)
  return params


def tile_kernels(
  params: dict[str, Any], image_size: tuple[int, int]
) -> dict[str, Any]:
  """Returns folded params as this platform runs them fastest.

  On CPU, in float32, 3x3 kernels at stride 1 that act on at least a whole tile
  are transformed for `layers.convolve_tiles`: the network runs 1.3 times as
  fast at 64 pixels, 1.4 times at 96, 1.6 times at 224 (batch 8). On less than a
  tile reading the larger kernels costs more than is gained. All else stays.

  Args:
    params: what `fold_batch_norm` returns.
    image_size: (height, width) in pixels of the images to come; the result is
      valid for every size.

  Returns:
    Params for `apply_folded`; transformed kernels are (36, in, out).
  """
  if (
    jax.default_backend() != 'cpu'
    or params['conv1']['kernel'].dtype != jnp.float32
  ):
    return params
  tiled = dict(params)
  for i, name in enumerate(('layer1', 'layer2', 'layer3', 'layer4')):
    if -(-min(image_size) // 2 ** (i + 2)) >= layers.TILE_SIZE:
      tiled[name] = [_tile_block(block) for block in params[name]]
  return tiled


def _tile_block(block: dict[str, Any]) -> dict[str, Any]:
  # The first convolution of a block with a `downsample` has stride 2.
  names = ('conv2',) if 'downsample' in block else ('conv1', 'conv2')
  return block | {
    name: block[name] | {'kernel': layers.tile_kernel(block[name]['kernel'])}
    for name in names
  }


def apply_folded(params: dict[str, Any], images: jax.Array) -> jax.Array:
  """Returns the logits of a network folded by `fold_batch_norm`.

  Args:
    params: what `fold_batch_norm` or `tile_kernels` returns.
    images: (B, H, W, C), normalised as the network expects.

  Returns:
    Logits (B, K), float32. Convolutions run in the dtype of their kernels.
  """
  stem = params['conv1']
  x = images.astype(stem['kernel'].dtype)
  x = layers.max_pool(layers.relu(_convolve(stem, x, stride=2)))
  for name in ('layer1', 'layer2', 'layer3', 'layer4'):
    for i, block in enumerate(params[name]):
      x = _apply_block(block, x, 2 if i == 0 and name != 'layer1' else 1)
  features = jnp.mean(x, (1, 2), dtype=jnp.float32)
  return features @ params['fc']['kernel'] + params['fc']['bias']


def _apply_block(
  params: dict[str, Any], x: jax.Array, stride: int
) -> jax.Array:
  y = layers.relu(_convolve(params['conv1'], x, stride=stride))
  y = _convolve(params['conv2'], y)
  if 'downsample' in params:
    x = _convolve(params['downsample'], x, stride=stride)
  return layers.relu(x + y)


def _convolve(
  params: dict[str, jax.Array], x: jax.Array, *, stride: int = 1
) -> jax.Array:
  kernel, bias = params['kernel'], params['bias']
  if kernel.ndim == 3:
    return layers.convolve_tiles(x, kernel) + bias
  return layers.convolve(x, kernel, stride=stride) + bias


def classifier(
  model: ResNet,
  *,
  preprocess: Callable[[jax.Array], jax.Array],
  class_names: Sequence[str],
  image_size: tuple[int, int],
  dtype: DTypeLike = jnp.float32,
) -> classifiers.Classifier:
  """Returns the classifier of a network, batch norm folded for inference.

  Args:
    model: a trained network.
    preprocess: normalisation that the network was trained with.
    class_names: K names in the order of the logits.
    image_size: (height, width) in pixels.
    dtype: see `fold_batch_norm`.
  """
  return classifiers.Classifier(
    apply_fn=apply_folded,
    params=tile_kernels(fold_batch_norm(model, dtype=dtype), image_size),
    preprocess=preprocess,
    class_names=tuple(class_names),
    image_size=image_size,
    channels=model.conv1.kernel.shape[2],
  )
