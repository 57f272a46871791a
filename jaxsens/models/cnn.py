"""A small network for wide gray or colour images in Flax NNX.

    4 x [convolution 3x3 to 32, no padding - ReLU - max pool 2] - flatten
    - linear 256 - dropout - ReLU - linear 32 - dropout - ReLU - linear K

Attribute paths are `features.0`, `.3`, `.6`, `.9` and `classifier.0`, `.3`,
`.6`, the parameter names of two `torch.nn.Sequential`; `features` is called
like a method.

References:
  F. Grimaldi, machine_learning_intepretability_in_steel_industry (software),
  its "CNN" for images of steel surfaces, 64 x 400 pixels.
"""

from collections.abc import Sequence

from flax import nnx
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxsens.models import convolutions
from jaxsens.models import layers
from jaxsens.models import networks

IMAGE_SIZE = (64, 400)
"""Height and width for which the network was published, pixels."""

_WIDTH = 32
_NUM_CONVOLUTIONS = 4


class Features(nnx.List):
  """The convolutions, each followed by 'relu' and 'pool'."""

  def __call__(
    self,
    images: jax.Array,
    *,
    train: bool = False,
    key: jax.Array | None = None,
  ) -> jax.Array:
    """Returns the last feature map (B, h, w, 32) of images (B, H, W, C)."""
    del train, key
    x = images
    for entry in self:
      if entry == 'relu':
        x = layers.relu(x)
      elif entry == 'pool':
        x = convolutions.max_pool(x, size=2, padding=0)
      else:
        x = entry(x)
    return x


class CNN(networks.Network):
  """Four convolutions and three linear layers.

  Attributes:
    features: the convolutions; called as the method of other networks is.
    classifier: the linear layers; entries without arrays are None. The first
      takes features in torch's order, channel before row before column.
    dropout: probability of dropping a feature, twice.
    image_size: (height, width) that the first linear layer calls for, pixels.
    num_features: D, what the last layer takes.
  """

  num_features = 32

  def __init__(
    self,
    num_classes: int,
    *,
    in_channels: int,
    dropout: float,
    image_size: Sequence[int],
    dtype: DTypeLike,
    rngs: nnx.Rngs,
  ):
    self.dtype = jnp.dtype(dtype)
    self.dropout = dropout
    self.image_size = tuple(image_size)
    entries, channels = [], in_channels
    for _ in range(_NUM_CONVOLUTIONS):
      convolution = layers.Convolution(
        channels, _WIDTH, 3, padding=0, bias=True, initial=layers.torch_uniform,
        initial_bias=layers.symmetric_uniform((9 * channels) ** -0.5),
        dtype=dtype, rngs=rngs,
      )
      entries += [convolution, 'relu', 'pool']
      channels = _WIDTH
    self.features = Features(entries)
    height, width = map(_last_side, self.image_size)
    if min(height, width) < 1:
      raise ValueError(
        f'image_size must be at least 46 pixels per side, got {image_size}.'
      )
    gap = [None, None]
    self.classifier = nnx.List([
      layers.linear(_WIDTH * height * width, 256, rngs=rngs), *gap,
      layers.linear(256, 32, rngs=rngs), *gap,
      layers.linear(32, num_classes, rngs=rngs),
    ])  # fmt: skip

  def _embed(self, images, train, key):
    if images.shape[1:3] != self.image_size:
      raise ValueError(
        f'images must have {self.image_size} pixels, got shape {images.shape}.'
      )
    keys = (None, None)
    if train and key is not None:
      keys = jax.random.split(key)
    x = self.features(images)
    x = x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1).astype(jnp.float32)
    for index, key in zip((0, 3), keys, strict=True):
      x = self.classifier[index](x)
      x = layers.relu(layers.dropout(x, self.dropout, train=train, key=key))
    return x

  def _head(self, x, train, key):
    return self.classifier[6](x)


def _last_side(side: int) -> int:
  for _ in range(_NUM_CONVOLUTIONS):
    side = (side - 2) // 2
  return side


def cnn(
  key: jax.Array,
  num_classes: int,
  *,
  in_channels: int = 3,
  dropout: float | None = None,
  stem: str = 'imagenet',
  padding: str = 'torch',
  dtype: DTypeLike = jnp.float32,
  image_size: Sequence[int] = IMAGE_SIZE,
) -> CNN:
  """Returns a network with torch's initial distributions.

  Args: see `registry.create`; dropout is 0.3 unless given, there is one stem
    and no padding. `image_size` is (height, width) in pixels.
  """
  layers.check_widths(num_classes, in_channels)
  if layers.checked_stem(stem) != 'imagenet' or padding != 'torch':
    raise ValueError(
      'cnn has one stem and no padding, got '
      f'stem={stem!r}, padding={padding!r}.'
    )
  rate = 0.3 if dropout is None else dropout
  return CNN(
    num_classes, in_channels=in_channels, dropout=layers.checked_dropout(rate),
    image_size=image_size, dtype=dtype, rngs=nnx.Rngs(key),
  )
