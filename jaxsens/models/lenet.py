"""A LeNet-like network for colour images of 32 x 32 pixels in Flax NNX.

    conv1 5x5 - ReLU - max pool 2 - conv2 5x5 - ReLU - max pool 2
    - fc1 400 -> 120 - ReLU - fc2 120 -> 84 - ReLU - fc3 84 -> K

Attribute paths equal the parameter names of the network of PyTorch's CIFAR-10
tutorial.

References:
  LeCun, Bottou, Bengio, Haffner, Gradient-based learning applied to document
  recognition, 1998, section II.B.
"""

from flax import nnx
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxsens.models import convolutions
from jaxsens.models import layers
from jaxsens.models import networks

IMAGE_SIZE = (32, 32)
"""Height and width that the first linear layer calls for, pixels."""


class LeNet(networks.Network):
  """Two convolutions and three linear layers.

  Attributes:
    conv1, conv2: convolutions of 6 and 16 channels.
    fc1, fc2, fc3: linear layers; fc1 takes its features in torch's order,
      channel before row before column.
    dtype: dtype of the convolutions; the linear layers are float32.
    num_features: D, what fc3 takes.
  """

  num_features = 84

  def __init__(
    self,
    num_classes: int,
    *,
    in_channels: int,
    dtype: DTypeLike,
    rngs: nnx.Rngs,
  ):
    def convolution(channels, out_channels):
      uniform = layers.symmetric_uniform((25 * channels) ** -0.5)
      return layers.Convolution(
        channels, out_channels, 5, padding=0, bias=True, initial=uniform,
        initial_bias=uniform, dtype=dtype, rngs=rngs,
      )

    self.conv1 = convolution(in_channels, 6)
    self.conv2 = convolution(6, 16)
    self.fc1 = layers.linear(400, 120, rngs=rngs)
    self.fc2 = layers.linear(120, 84, rngs=rngs)
    self.fc3 = layers.linear(84, num_classes, rngs=rngs)
    self.dtype = jnp.dtype(dtype)

  def features(
    self,
    images: jax.Array,
    *,
    train: bool = False,
    key: jax.Array | None = None,
  ) -> jax.Array:
    """Returns the last feature map (B, 5, 5, 16) of images (B, 32, 32, C).

    Raises:
      ValueError: the images have another size.
    """
    del train, key
    if images.shape[1:3] != IMAGE_SIZE:
      raise ValueError(
        f'images must have {IMAGE_SIZE} pixels, got shape {images.shape}.'
      )
    x = images.astype(self.dtype)
    for convolution in (self.conv1, self.conv2):
      x = layers.relu(convolution(x))
      x = convolutions.max_pool(x, size=2, padding=0)
    return x

  def _embed(self, images, train, key):
    x = self.features(images)
    x = x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1).astype(jnp.float32)
    return layers.relu(self.fc2(layers.relu(self.fc1(x))))

  def _head(self, x, train, key):
    return self.fc3(x)


def lenet(
  key: jax.Array,
  num_classes: int,
  *,
  in_channels: int = 3,
  dropout: float | None = None,
  stem: str = 'imagenet',
  padding: str = 'torch',
  dtype: DTypeLike = jnp.float32,
) -> LeNet:
  """Returns a LeNet-like network with torch's initial distributions.

  Args: see `registry.create`; it has one stem, no dropout and no padding.
  """
  layers.check_widths(num_classes, in_channels)
  layers.check_fixed('lenet', dropout=dropout, stem=stem, padding=padding)
  return LeNet(
    num_classes, in_channels=in_channels, dtype=dtype, rngs=nnx.Rngs(key)
  )
