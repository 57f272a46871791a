"""ShuffleNetV2 with widths of factor 1 in Flax NNX.

Attribute paths equal torchvision's parameter names, `stage2.0.branch1.0` and
`conv5.0`. With dropout the head is `fc.1` (`Sequential(Dropout, Linear)`),
without it `fc`.

References:
  Ma et al., ShuffleNet V2: practical guidelines for efficient CNN architecture
  design, 2018, figure 3 and table 5.
  torchvision.models.shufflenetv2, for padding, names and initial values.
"""

from flax import nnx
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxsens.models import convolutions
from jaxsens.models import layers
from jaxsens.models import networks

_STEM_WIDTH = 24
# Units and width of stages 2, 3 and 4.
_STAGES = ((4, 116), (8, 232), (4, 464))
_LAST_WIDTH = 1024


class Unit(nnx.Module):
  """Two branches side by side, their channels shuffled.

  At stride 1 the first branch is one half of the channels as it is, at stride
  2 both take all channels.

  Attributes:
    branch1: convolution 3x3 per channel and norm, 1x1 and norm; absent at
      stride 1.
    branch2: convolution 1x1 and norm, 3x3 per channel and norm, 1x1 and norm.
  """

  def __init__(self, in_channels: int, width: int, stride: int, **options):
    half = width // 2
    if stride > 1:
      self.branch1 = nnx.List([
        *_depthwise(in_channels, stride, options),
        *_pointwise(in_channels, half, options),
      ])
      taken = in_channels
    else:
      taken = half
    self.branch2 = nnx.List([
      *_pointwise(taken, half, options),
      *_depthwise(half, stride, options),
      *_pointwise(half, half, options),
    ])

  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    """Returns (B, H / stride, W / stride, width)."""
    if hasattr(self, 'branch1'):
      kept, taken = _run(self.branch1, x, train), x
    else:
      kept, taken = jnp.split(x, 2, axis=-1)
    return shuffle(kept, _run(self.branch2, taken, train))


def shuffle(first: jax.Array, second: jax.Array) -> jax.Array:
  """Returns channels of one and the other image by turns.

      y[..., 2 i] = first[..., i]   y[..., 2 i + 1] = second[..., i]
  """
  both = jnp.stack([first, second], axis=-1)
  return both.reshape(*first.shape[:-1], -1)


def _depthwise(channels, stride, options):
  convolution = layers.Convolution(
    channels, channels, 3, stride=stride, depthwise=True, **options
  )
  return [convolution, layers.BatchNorm(channels)]


def _pointwise(in_channels, channels, options):
  convolution = layers.Convolution(in_channels, channels, 1, **options)
  return [convolution, layers.BatchNorm(channels), 'relu']


def _run(entries, x, train):
  for entry in entries:
    if entry == 'relu':
      x = layers.relu(x)
    elif isinstance(entry, layers.BatchNorm):
      x = entry(x, train=train)
    else:
      x = entry(x)
  return x


class ShuffleNet(networks.Network):
  """Stem, three stages of units, a 1x1 convolution, mean, linear head.

  Attributes:
    conv1: stem, 3x3 at stride 2 and a max pool; at stride 1 and none where the
      stem is 'cifar'.
    stage2, stage3, stage4: units; the first of each halves the image.
    conv5: convolution 1x1 and norm.
    fc: linear head, or [dropout, linear head].
    num_features: D, what the head takes.
  """

  num_features = _LAST_WIDTH

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
    self.stem = layers.checked_stem(stem)
    self.padding = padding
    options = dict(
      initial=layers.torch_uniform, padding=padding, dtype=dtype, rngs=rngs
    )
    convolution = layers.Convolution(
      in_channels, _STEM_WIDTH, 3, stride=1 if stem == 'cifar' else 2, **options
    )
    norm = layers.BatchNorm(_STEM_WIDTH)
    self.conv1 = nnx.List([convolution, norm, 'relu'])
    channels = _STEM_WIDTH
    for i, (count, width) in enumerate(_STAGES):
      units = [Unit(channels, width, 2, **options)]
      units += [Unit(width, width, 1, **options) for _ in range(count - 1)]
      setattr(self, f'stage{i + 2}', nnx.List(units))
      channels = width
    self.conv5 = nnx.List(_pointwise(channels, _LAST_WIDTH, options))
    head = layers.linear(_LAST_WIDTH, num_classes, rngs=rngs)
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
    x = _run(self.conv1, images, train)
    if self.stem != 'cifar':
      x = convolutions.max_pool(x, padding=self.padding)
    for stage in (self.stage2, self.stage3, self.stage4):
      for unit in stage:
        x = unit(x, train=train)
    return _run(self.conv5, x, train)

  def _head(self, x, train, key):
    if not isinstance(self.fc, nnx.List):
      return self.fc(x)
    return networks.drop_and_project(x, *self.fc, train, key)


def shufflenet_v2_x1_0(
  key: jax.Array,
  num_classes: int,
  *,
  in_channels: int = 3,
  dropout: float | None = None,
  stem: str = 'imagenet',
  padding: str = 'torch',
  dtype: DTypeLike = jnp.float32,
) -> ShuffleNet:
  """Returns a network with torchvision's initial distributions.

  Args: see `registry.create`.
  """
  layers.check_widths(num_classes, in_channels)
  return ShuffleNet(
    num_classes, in_channels=in_channels,
    dropout=layers.checked_dropout(dropout or 0.0), stem=stem, padding=padding,
    dtype=dtype, rngs=nnx.Rngs(key),
  )
