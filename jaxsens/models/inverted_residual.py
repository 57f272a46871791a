"""Inverted residual blocks, the parts of MobileNets and EfficientNets.

A block widens the channels by a 1x1 convolution, filters each of them alone and
narrows them by another 1x1 convolution that no activation follows. Attribute
paths equal torchvision's parameter names.

References:
  Sandler et al., MobileNetV2, 2018, section 3.3 and table 1.
  Howard et al., Searching for MobileNetV3, 2019, sections 5.2 and 5.3.
  Hu et al., Squeeze-and-excitation networks, 2018, section 3.
"""

from collections.abc import Callable

from flax import nnx
import jax
from jax.typing import DTypeLike

from jaxsens.models import layers

Activation = Callable[[jax.Array], jax.Array]
Norm = Callable[[int], layers.BatchNorm]


def divisible(channels: float) -> int:
  """Returns a multiple of eight near `channels`, at least 90 % of it.

  References:
    Sandler et al., the published code of MobileNetV2.
  """
  nearest = max(8, int(channels + 4) // 8 * 8)
  return nearest + 8 if nearest < 0.9 * channels else nearest


class Chain(nnx.List):
  """Blocks (x, *, train, key) -> x that run one after another."""

  def __call__(
    self,
    x: jax.Array,
    *,
    train: bool = False,
    key: jax.Array | None = None,
  ) -> jax.Array:
    """Returns what the last block makes of x (B, H, W, C)."""
    keys = [None] * len(self)
    if train and key is not None:
      keys = jax.random.split(key, len(self))
    for block, key in zip(self, keys, strict=True):
      x = block(x, train=train, key=key)
    return x


class ConvolutionNorm(nnx.List):
  """A convolution, its batch norm and an activation.

  Args:
    activation: what follows the batch norm; None for nothing.
    norm: number of channels -> batch norm.
    options: of `layers.Convolution`.
  """

  def __init__(
    self,
    in_channels: int,
    out_channels: int,
    size: int,
    *,
    activation: Activation | None = None,
    norm: Norm = layers.BatchNorm,
    **options,
  ):
    convolution = layers.Convolution(in_channels, out_channels, size, **options)
    super().__init__([convolution, norm(out_channels)])
    if activation is not None:
      self.append(activation)

  def __call__(
    self,
    x: jax.Array,
    *,
    train: bool = False,
    key: jax.Array | None = None,
  ) -> jax.Array:
    """Returns (B, H / stride, W / stride, out) of x (B, H, W, in)."""
    del key
    convolution, norm, *activation = self
    x = norm(convolution(x), train=train)
    return activation[0](x) if activation else x


class SqueezeExcitation(nnx.Module):
  """Weighs each channel by what the means of all channels say.

      y = x gate(fc2(activation(fc1(mean of x over the image))))

  Attributes:
    fc1, fc2: 1x1 convolutions with bias to `squeezed` channels and back.
    activation: between them.
    gate: behind them.
  """

  def __init__(
    self,
    channels: int,
    squeezed: int,
    *,
    activation: Activation,
    gate: Activation,
    dtype: DTypeLike,
    rngs: nnx.Rngs,
  ):
    options = dict(bias=True, dtype=dtype, rngs=rngs)
    self.fc1 = layers.Convolution(channels, squeezed, 1, **options)
    self.fc2 = layers.Convolution(squeezed, channels, 1, **options)
    self.activation = activation
    self.gate = gate

  def __call__(
    self,
    x: jax.Array,
    *,
    train: bool = False,
    key: jax.Array | None = None,
  ) -> jax.Array:
    """Returns x (B, H, W, C) weighted."""
    del train, key
    mean = layers.mean_pool(x)[:, None, None]
    weights = self.gate(self.fc2(self.activation(self.fc1(mean))))
    return x * weights.astype(x.dtype)


class InvertedResidual(nnx.Module):
  """Widens, filters each channel, weighs the channels, narrows.

  Attributes:
    block: the branch; the first convolution is absent where nothing widens and
      the weighing where `squeezed` is 0.
    is_residual: the branch is added to its input.
    drop_rate: probability of leaving the branch out for an image, in training.
  """

  def __init__(
    self,
    in_channels: int,
    expanded: int,
    out_channels: int,
    size: int,
    *,
    stride: int,
    activation: Activation,
    padding: str,
    norm: Norm = layers.BatchNorm,
    squeezed: int = 0,
    squeeze_activation: Activation = layers.relu,
    gate: Activation = layers.hard_sigmoid,
    drop_rate: float = 0.0,
    dtype: DTypeLike,
    rngs: nnx.Rngs,
  ):
    options = dict(dtype=dtype, rngs=rngs)
    inner = dict(norm=norm, padding=padding, **options)
    chain = Chain()
    if expanded != in_channels:
      chain.append(ConvolutionNorm(
        in_channels, expanded, 1, activation=activation, **inner
      ))
    chain.append(ConvolutionNorm(
      expanded, expanded, size, stride=stride, depthwise=True,
      activation=activation, **inner
    ))
    if squeezed:
      chain.append(SqueezeExcitation(
        expanded, squeezed, activation=squeeze_activation, gate=gate, **options
      ))
    chain.append(ConvolutionNorm(expanded, out_channels, 1, **inner))
    self.block = chain
    self.is_residual = stride == 1 and in_channels == out_channels
    self.drop_rate = drop_rate

  def __call__(
    self,
    x: jax.Array,
    *,
    train: bool = False,
    key: jax.Array | None = None,
  ) -> jax.Array:
    """Returns (B, H / stride, W / stride, out) of x (B, H, W, in)."""
    y = self.block(x, train=train)
    if not self.is_residual:
      return y
    return x + layers.stochastic_depth(y, self.drop_rate, train=train, key=key)
