"""VGG16 with batch norm in Flax NNX, with the published and a narrow head.

Attribute paths equal torchvision's parameter names, `features.0` and
`classifier.0`, `.3`, `.6`; `features` is called like a method. The head is

    mean over 7x7 parts - linear - ReLU - dropout - linear - ReLU - dropout
    - linear

of widths 4096 and 4096, or 256 and 32 where it is narrow.

References:
  Simonyan and Zisserman, Very deep convolutional networks for large-scale image
  recognition, 2015, table 1 D.
  torchvision.models.vgg, for names and initial values.
"""

from collections.abc import Sequence
import functools

from flax import nnx
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
import numpy as np

from jaxsens.models import convolutions
from jaxsens.models import layers
from jaxsens.models import networks

_WIDTHS = (
  64, 64, 'pool', 128, 128, 'pool', 256, 256, 256, 'pool', 512, 512, 512,
  'pool', 512, 512, 512, 'pool',
)  # fmt: skip
_PARTS = 7


class Features(nnx.List):
  """All but the head, numbered as torchvision does.

  An entry is a convolution, a batch norm, 'relu' or 'pool'.

  Attributes:
    padding: of the max pools.
  """

  def __init__(self, entries: Sequence, padding: str):
    super().__init__(entries)
    self.padding = padding

  def __call__(
    self,
    images: jax.Array,
    *,
    train: bool = False,
    key: jax.Array | None = None,
  ) -> jax.Array:
    """Returns the last feature map (B, h, w, 512) of images (B, H, W, C)."""
    del key
    x = images
    for entry in self:
      if entry == 'relu':
        x = layers.relu(x)
      elif entry == 'pool':
        x = convolutions.max_pool(x, size=2, padding=self.padding)
      elif isinstance(entry, layers.BatchNorm):
        x = entry(x, train=train)
      else:
        x = entry(x)
    return x


def adaptive_mean(x: jax.Array, parts: int) -> jax.Array:
  """Returns the means over a grid of parts of an image.

      y[i, j] = mean of rows floor(i H / parts) to ceil((i + 1) H / parts) - 1
      and of columns likewise

  Args:
    x: (B, H, W, C), of any size.
    parts: number of parts of each side.

  Returns:
    (B, parts, parts, C).
  """
  for axis in (1, 2):
    side = x.shape[axis]
    if side != parts:
      shares = jnp.asarray(_shares(side, parts), x.dtype)
      x = jnp.moveaxis(jnp.tensordot(x, shares, (axis, 1)), -1, axis)
  return x


def _shares(side: int, parts: int) -> np.ndarray:
  """Returns the share (parts, side) that each line has of each part."""
  starts = np.arange(parts) * side // parts
  ends = -(-(np.arange(parts) + 1) * side // parts)
  lines = np.arange(side)
  inside = (lines >= starts[:, None]) & (lines < ends[:, None])
  return inside / (ends - starts)[:, None]


class VGG(networks.Network):
  """Thirteen 3x3 convolutions, five max pools, three linear layers.

  Attributes:
    features: all but the head; called as the method of other networks is.
    classifier: the head; entries without arrays are None. Its first layer takes
      features in torch's order, channel before row before column.
    dropout: probability of dropping a feature, twice.
    num_features: D, what the last layer takes.
  """

  def __init__(
    self,
    widths: tuple[int, int],
    initial: dict,
    num_classes: int,
    *,
    in_channels: int,
    dropout: float,
    padding: str,
    dtype: DTypeLike,
    rngs: nnx.Rngs,
  ):
    self.dtype = jnp.dtype(dtype)
    self.dropout = dropout
    entries, channels = [], in_channels
    for width in _WIDTHS:
      if width == 'pool':
        entries.append(width)
        continue
      convolution = layers.Convolution(
        channels, width, 3, padding=padding, bias=True, dtype=dtype, rngs=rngs
      )
      entries += [convolution, layers.BatchNorm(width), 'relu']
      channels = width
    self.features = Features(entries, padding)
    sizes = (channels * _PARTS**2, *widths, num_classes)
    dense = [
      layers.linear(*pair, **initial, rngs=rngs)
      for pair in zip(sizes[:-1], sizes[1:], strict=True)
    ]
    gap = [None, None]
    self.classifier = nnx.List([dense[0], *gap, dense[1], *gap, dense[2]])
    self.num_features = widths[-1]

  def _embed(self, images, train, key):
    """Returns the last hidden layer before its dropout."""
    x = adaptive_mean(self.features(images, train=train), _PARTS)
    x = x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1).astype(jnp.float32)
    x = layers.relu(self.classifier[0](x))
    x = self._dropped(x, 0, train, key)
    return layers.relu(self.classifier[3](x))

  def _head(self, x, train, key):
    return self.classifier[6](self._dropped(x, 1, train, key))

  def _dropped(self, x, index, train, key):
    if train and key is not None:
      key = jax.random.split(key)[index]
    return layers.dropout(x, self.dropout, train=train, key=key)


def _vgg(
  widths: tuple[int, int],
  initial: dict,
  key: jax.Array,
  num_classes: int,
  *,
  in_channels: int = 3,
  dropout: float | None = None,
  stem: str = 'imagenet',
  padding: str = 'torch',
  dtype: DTypeLike = jnp.float32,
) -> VGG:
  """Returns a network with torchvision's initial distributions.

  Args: see `registry.create`; dropout is 0.5 unless given, and both stems are
    the published one, which is 3x3 at stride 1.
  """
  layers.check_widths(num_classes, in_channels)
  layers.checked_stem(stem)
  rate = 0.5 if dropout is None else dropout
  return VGG(
    widths, initial, num_classes, in_channels=in_channels,
    dropout=layers.checked_dropout(rate), padding=padding, dtype=dtype,
    rngs=nnx.Rngs(key),
  )


vgg16_bn = functools.partial(
  _vgg, (4096, 4096),
  dict(
    initial=nnx.initializers.normal(0.01),
    initial_bias=nnx.initializers.zeros,
  ),
)  # fmt: skip
# Its linear layers start as torch's do.
vgg16_bn_narrow = functools.partial(_vgg, (256, 32), {})
