"""MobileNetV2 and V3 in Flax NNX.

Attribute paths equal torchvision's parameter names: the state path
('features', 1, 'conv', 0, 0, 'kernel') is `features.1.conv.0.0.weight`.

References:
  Sandler et al., MobileNetV2, 2018, table 2.
  Howard et al., Searching for MobileNetV3, 2019, tables 1 and 2.
  torchvision.models.mobilenetv2 and mobilenetv3, for names and initial values.
"""

from collections.abc import Sequence
import functools

from flax import nnx
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxsens.models import inverted_residual
from jaxsens.models import layers
from jaxsens.models import networks

# Factor of the width, channels out, number of blocks, stride of the first one.
_V2 = (
  (1, 16, 1, 1),
  (6, 24, 2, 2),
  (6, 32, 3, 2),
  (6, 64, 4, 2),
  (6, 96, 3, 1),
  (6, 160, 3, 2),
  (6, 320, 1, 1),
)

# Size of the filters, width, channels out, squeeze and excitation, activation,
# stride.
_RE, _HS = layers.relu, layers.hard_swish
_V3_LARGE = (
  (3, 16, 16, False, _RE, 1),
  (3, 64, 24, False, _RE, 2),
  (3, 72, 24, False, _RE, 1),
  (5, 72, 40, True, _RE, 2),
  (5, 120, 40, True, _RE, 1),
  (5, 120, 40, True, _RE, 1),
  (3, 240, 80, False, _HS, 2),
  (3, 200, 80, False, _HS, 1),
  (3, 184, 80, False, _HS, 1),
  (3, 184, 80, False, _HS, 1),
  (3, 480, 112, True, _HS, 1),
  (3, 672, 112, True, _HS, 1),
  (5, 672, 160, True, _HS, 2),
  (5, 960, 160, True, _HS, 1),
  (5, 960, 160, True, _HS, 1),
)
_V3_SMALL = (
  (3, 16, 16, True, _RE, 2),
  (3, 72, 24, False, _RE, 2),
  (3, 88, 24, False, _RE, 1),
  (5, 96, 40, True, _HS, 2),
  (5, 240, 40, True, _HS, 1),
  (5, 240, 40, True, _HS, 1),
  (5, 120, 48, True, _HS, 1),
  (5, 144, 48, True, _HS, 1),
  (5, 288, 96, True, _HS, 2),
  (5, 576, 96, True, _HS, 1),
  (5, 576, 96, True, _HS, 1),
)

_head_normal = nnx.initializers.normal(0.01)


class LinearBottleneck(nnx.Module):
  """The block of MobileNetV2; its last convolution and norm stand in the list.

  Attributes:
    conv: [widening and its norm], filters and their norm, narrowing, its norm.
    is_residual: the branch is added to its input.
  """

  def __init__(
    self,
    in_channels: int,
    expanded: int,
    out_channels: int,
    *,
    stride: int,
    **options,
  ):
    part = functools.partial(
      inverted_residual.ConvolutionNorm, activation=layers.relu6, **options
    )
    self.conv = nnx.List([
      part(expanded, expanded, 3, stride=stride, depthwise=True),
      layers.Convolution(expanded, out_channels, 1, **options),
      layers.BatchNorm(out_channels),
    ])
    if expanded != in_channels:
      self.conv.insert(0, part(in_channels, expanded, 1))
    self.is_residual = stride == 1 and in_channels == out_channels

  def __call__(
    self,
    x: jax.Array,
    *,
    train: bool = False,
    key: jax.Array | None = None,
  ) -> jax.Array:
    """Returns (B, H / stride, W / stride, out) of x (B, H, W, in)."""
    del key
    y = x
    *parts, convolution, norm = self.conv
    for part in parts:
      y = part(y, train=train)
    y = norm(convolution(y), train=train)
    return x + y if self.is_residual else y


class MobileNetV2(networks.Network):
  """Stem, bottlenecks, 1x1 convolution, mean over the image, linear head.

  Attributes:
    features: images (B, H, W, C) -> last feature map (B, h, w, 1280).
    classifier: dropout and linear head.
    num_features: D, what the head takes.
  """

  def __init__(
    self,
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
    self.num_features = 1280
    options = dict(padding=padding, dtype=dtype, rngs=rngs)
    part = functools.partial(
      inverted_residual.ConvolutionNorm, activation=layers.relu6, **options
    )
    stride = 1 if layers.checked_stem(stem) == 'cifar' else 2
    self.features = inverted_residual.Chain(
      [part(in_channels, 32, 3, stride=stride)]
    )
    channels = 32
    for factor, width, count, stride in _V2:
      for i in range(count):
        self.features.append(LinearBottleneck(
          channels, factor * channels, width, stride=stride if i == 0 else 1,
          **options,
        ))
        channels = width
    self.features.append(part(channels, self.num_features, 1))
    self.classifier = nnx.List([
      nnx.Dropout(dropout),
      layers.linear(
        self.num_features, num_classes, initial=_head_normal,
        initial_bias=nnx.initializers.zeros, rngs=rngs,
      ),
    ])

  def _head(self, x, train, key):
    return networks.drop_and_project(x, *self.classifier, train, key)


class MobileNetV3(networks.Network):
  """Stem, blocks, 1x1 convolution, mean over the image, two linear layers.

  Attributes:
    features: images (B, H, W, C) -> last feature map (B, h, w, channels).
    classifier: linear, hard swish, dropout and linear head.
    num_features: D, what the head takes.
  """

  def __init__(
    self,
    blocks: Sequence[tuple],
    num_features: int,
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
    self.num_features = num_features
    norm = functools.partial(layers.BatchNorm, momentum=0.01, epsilon=1e-3)
    options = dict(norm=norm, padding=padding, dtype=dtype, rngs=rngs)
    part = functools.partial(
      inverted_residual.ConvolutionNorm, activation=layers.hard_swish, **options
    )
    stride = 1 if layers.checked_stem(stem) == 'cifar' else 2
    self.features = inverted_residual.Chain(
      [part(in_channels, 16, 3, stride=stride)]
    )
    channels = 16
    for size, expanded, width, squeezes, activation, stride in blocks:
      squeezed = inverted_residual.divisible(expanded // 4) if squeezes else 0
      self.features.append(inverted_residual.InvertedResidual(
        channels, expanded, width, size, stride=stride, activation=activation,
        squeezed=squeezed, **options,
      ))
      channels = width
    self.features.append(part(channels, 6 * channels, 1))
    dense = functools.partial(
      layers.linear, initial=_head_normal,
      initial_bias=nnx.initializers.zeros, rngs=rngs,
    )
    self.classifier = nnx.List([
      dense(6 * channels, num_features),
      layers.hard_swish,
      nnx.Dropout(dropout),
      dense(num_features, num_classes),
    ])

  def _embed(self, images, train, key):
    linear, activation, _, _ = self.classifier
    return activation(linear(super()._embed(images, train, key)))

  def _head(self, x, train, key):
    return networks.drop_and_project(x, *self.classifier[2:], train, key)


def _mobilenet(
  network: type,
  arguments: tuple,
  key: jax.Array,
  num_classes: int,
  *,
  in_channels: int = 3,
  dropout: float | None = None,
  stem: str = 'imagenet',
  padding: str = 'torch',
  dtype: DTypeLike = jnp.float32,
) -> nnx.Module:
  """Returns a network with torchvision's initial distributions.

  Args: see `registry.create`; the published dropout is 0.2.
  """
  layers.check_widths(num_classes, in_channels)
  return network(
    *arguments, num_classes, in_channels=in_channels,
    dropout=layers.checked_dropout(0.2 if dropout is None else dropout),
    stem=stem, padding=padding, dtype=dtype, rngs=nnx.Rngs(key),
  )


mobilenet_v2 = functools.partial(_mobilenet, MobileNetV2, ())
mobilenet_v3_small = functools.partial(
  _mobilenet, MobileNetV3, (_V3_SMALL, 1024)
)
mobilenet_v3_large = functools.partial(
  _mobilenet, MobileNetV3, (_V3_LARGE, 1280)
)
