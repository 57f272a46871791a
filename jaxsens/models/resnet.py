"""ResNet18, 34 and 50 in Flax NNX.

Attribute paths equal torchvision's parameter names: the state path
('layer1', 0, 'conv1', 'kernel') is torchvision's `layer1.0.conv1.weight`. With
dropout the head is `fc.1` (`Sequential(Dropout, Linear)`), without it `fc`.

References:
  He et al., Deep residual learning for image recognition, 2016, table 1.
  torchvision.models.resnet, for padding, names and initial values.
"""

from collections.abc import Sequence
import functools

from flax import nnx
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxsens.models import convolutions
from jaxsens.models import layers
from jaxsens.models import networks


class BasicBlock(nnx.Module):
  """Two 3x3 convolutions and a shortcut: relu(shortcut(x) + f(x)).

  Attributes:
    conv1, bn1, conv2, bn2: the residual branch f.
    downsample: convolution 1x1 and batch norm of the shortcut where the shape
      changes; absent elsewhere.
  """

  expansion = 1

  def __init__(self, in_channels: int, width: int, stride: int, **options):
    self.conv1 = layers.Convolution(
      in_channels, width, 3, stride=stride, **options
    )
    self.bn1 = layers.BatchNorm(width)
    self.conv2 = layers.Convolution(width, width, 3, **options)
    self.bn2 = layers.BatchNorm(width)
    if stride != 1 or in_channels != width:
      self.downsample = _shortcut(in_channels, width, stride, options)

  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    """Returns (B, H / stride, W / stride, width)."""
    y = layers.relu(self.bn1(self.conv1(x), train=train))
    y = self.bn2(self.conv2(y), train=train)
    return layers.relu(y + _shortcut_of(self, x, train))


class Bottleneck(nnx.Module):
  """Convolutions 1x1, 3x3 and 1x1 to four times the width, and a shortcut.

  The 3x3 convolution has the stride, as torchvision's has.

  Attributes:
    conv1, bn1, conv2, bn2, conv3, bn3: the residual branch.
    downsample: see `BasicBlock`.
  """

  expansion = 4

  def __init__(self, in_channels: int, width: int, stride: int, **options):
    channels = self.expansion * width
    self.conv1 = layers.Convolution(in_channels, width, 1, **options)
    self.bn1 = layers.BatchNorm(width)
    self.conv2 = layers.Convolution(width, width, 3, stride=stride, **options)
    self.bn2 = layers.BatchNorm(width)
    self.conv3 = layers.Convolution(width, channels, 1, **options)
    self.bn3 = layers.BatchNorm(channels)
    if stride != 1 or in_channels != channels:
      self.downsample = _shortcut(in_channels, channels, stride, options)

  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    """Returns (B, H / stride, W / stride, 4 width)."""
    y = layers.relu(self.bn1(self.conv1(x), train=train))
    y = layers.relu(self.bn2(self.conv2(y), train=train))
    y = self.bn3(self.conv3(y), train=train)
    return layers.relu(y + _shortcut_of(self, x, train))


def _shortcut(in_channels, channels, stride, options):
  convolution = layers.Convolution(
    in_channels, channels, 1, stride=stride, **options
  )
  return nnx.List([convolution, layers.BatchNorm(channels)])


def _shortcut_of(block, x, train):
  if not hasattr(block, 'downsample'):
    return x
  convolution, norm = block.downsample
  return norm(convolution(x), train=train)


class ResNet(networks.Network):
  """Stem, four stages of residual blocks, mean over the image, linear head.

  Attributes:
    conv1, bn1: stem, 7x7 at stride 2 and a max pool; 3x3 at stride 1 and none
      where the stem is 'cifar'.
    layer1, layer2, layer3, layer4: stages of width 64, 128, 256 and 512; all
      but the first halve the image.
    fc: linear head, or [dropout, linear head].
    num_features: D, what the head takes.
  """

  def __init__(
    self,
    block: type,
    num_blocks: Sequence[int],
    num_classes: int,
    *,
    in_channels: int,
    dropout: float,
    stem: str,
    padding: str,
    dtype: DTypeLike,
    rngs: nnx.Rngs,
  ):
    self.dtype = jnp.dtype(dtype)
    self.stem = layers.checked_stem(stem)
    self.padding = padding
    options = dict(dtype=dtype, rngs=rngs, padding=padding)
    size, stride = (3, 1) if stem == 'cifar' else (7, 2)
    self.conv1 = layers.Convolution(
      in_channels, 64, size, stride=stride, **options
    )
    self.bn1 = layers.BatchNorm(64)
    channels = 64
    for i, count in enumerate(num_blocks):
      width, stride = 64 * 2**i, 1 if i == 0 else 2
      stage = []
      for j in range(count):
        stage.append(block(channels, width, stride if j == 0 else 1, **options))
        channels = block.expansion * width
      setattr(self, f'layer{i + 1}', nnx.List(stage))
    self.num_features = channels
    head = layers.linear(channels, num_classes, rngs=rngs)
    self.fc = nnx.List([nnx.Dropout(dropout), head]) if dropout else head

  def features(
    self,
    images: jax.Array,
    *,
    train: bool = False,
    key: jax.Array | None = None,
  ) -> jax.Array:
    """Returns the last feature map (B, h, w, D) of images (B, H, W, C)."""
    del key
    x = self.conv1(images.astype(self.dtype))
    x = layers.relu(self.bn1(x, train=train))
    if self.stem != 'cifar':
      x = convolutions.max_pool(x, padding=self.padding)
    for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
      for block in stage:
        x = block(x, train=train)
    return x

  def _head(self, x, train, key):
    if not isinstance(self.fc, nnx.List):
      return self.fc(x)
    return networks.drop_and_project(x, *self.fc, train, key)


def _resnet(
  block: type,
  num_blocks: Sequence[int],
  key: jax.Array,
  num_classes: int,
  *,
  in_channels: int = 3,
  dropout: float | None = None,
  stem: str = 'imagenet',
  padding: str = 'torch',
  dtype: DTypeLike = jnp.float32,
) -> ResNet:
  """Returns a network with torchvision's initial distributions.

  Args: see `registry.create`.
  """
  layers.check_widths(num_classes, in_channels)
  return ResNet(
    block, num_blocks, num_classes, in_channels=in_channels,
    dropout=layers.checked_dropout(dropout or 0.0), stem=stem, padding=padding,
    dtype=dtype, rngs=nnx.Rngs(key),
  )


resnet18 = functools.partial(_resnet, BasicBlock, (2, 2, 2, 2))
resnet34 = functools.partial(_resnet, BasicBlock, (3, 4, 6, 3))
resnet50 = functools.partial(_resnet, Bottleneck, (3, 4, 6, 3))
