"""A LeNet-like network for colour images of 32 x 32 pixels in Flax NNX.

    conv1 5x5 - ReLU - max pool 2 - conv2 5x5 - ReLU - max pool 2
    - fc1 400 -> 120 - ReLU - fc2 120 -> 84 - ReLU - fc3 84 -> K

Attribute paths equal the parameter names of the network of PyTorch's CIFAR-10
tutorial. It takes normalised images (B, 32, 32, C) and returns logits (B, K) in
float32.

References:
  LeCun, Bottou, Bengio, Haffner, Gradient-based learning applied to document
  recognition, 1998, section II.B.
"""

from collections.abc import Callable
from collections.abc import Sequence

from flax import nnx
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxsens import classifiers
from jaxsens.models import layers

IMAGE_SIZE = (32, 32)
"""Height and width that the first linear layer calls for, pixels."""


class Convolution(nnx.Module):
  """A convolution with bias and without padding, as torch initialises it.

  Attributes:
    kernel: (size, size, in, out), from U(-b, b), b² = 1 / (size² in).
    bias: (out,), from the same distribution.
  """

  def __init__(
    self, in_channels: int, out_channels: int, size: int, *, rngs: nnx.Rngs
  ):
    draw = layers.symmetric_uniform((size**2 * in_channels) ** -0.5)
    shape = (size, size, in_channels, out_channels)
    self.kernel = nnx.Param(draw(rngs.params(), shape))
    self.bias = nnx.Param(draw(rngs.params(), (out_channels,)))

  def __call__(self, x: jax.Array) -> jax.Array:
    """Returns (B, H - size + 1, W - size + 1, out) in the dtype of x."""
    y = jax.lax.conv_general_dilated(
      x,
      self.kernel[...].astype(x.dtype),
      window_strides=(1, 1),
      padding='VALID',
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )
    return y + self.bias[...].astype(x.dtype)


class LeNet(nnx.Module):
  """Two convolutions and three linear layers.

  Attributes:
    conv1, conv2: convolutions of 6 and 16 channels.
    fc1, fc2, fc3: linear layers; fc1 takes its features in torch's order,
      channel before row before column.
    dtype: dtype of the convolutions; the linear layers are float32.
  """

  def __init__(
    self,
    num_classes: int,
    *,
    in_channels: int,
    dtype: DTypeLike,
    rngs: nnx.Rngs,
  ):
    self.conv1 = Convolution(in_channels, 6, 5, rngs=rngs)
    self.conv2 = Convolution(6, 16, 5, rngs=rngs)
    self.fc1 = layers.linear(400, 120, rngs=rngs)
    self.fc2 = layers.linear(120, 84, rngs=rngs)
    self.fc3 = layers.linear(84, num_classes, rngs=rngs)
    self.dtype = jnp.dtype(dtype)

  def __call__(
    self,
    images: jax.Array,
    *,
    train: bool = False,
    key: jax.Array | None = None,
  ) -> jax.Array:
    """Returns the logits of normalised images.

    Args:
      images: (B, 32, 32, C).
      train: without effect, the network has neither dropout nor statistics.
      key: without effect.

    Returns:
      Logits (B, K), float32.

    Raises:
      ValueError: the images have another size.
    """
    del train, key
    if images.shape[1:3] != IMAGE_SIZE:
      raise ValueError(
        f'images must have {IMAGE_SIZE} pixels, got shape {images.shape}.'
      )
    x = images.astype(self.dtype)
    x = _max_pool(layers.relu(self.conv1(x)))
    x = _max_pool(layers.relu(self.conv2(x)))
    features = x.transpose(0, 3, 1, 2).reshape(len(x), -1)
    x = layers.relu(self.fc1(features.astype(jnp.float32)))
    return self.fc3(layers.relu(self.fc2(x)))


def _max_pool(x: jax.Array) -> jax.Array:
  """Returns the maxima of 2x2 windows of x (B, H, W, C), H and W even."""
  batch, height, width, channels = x.shape
  shape = (batch, height // 2, 2, width // 2, 2, channels)
  return x.reshape(shape).max((2, 4))


def lenet(
  key: jax.Array,
  num_classes: int,
  *,
  in_channels: int = 3,
  dropout: float = 0.0,
  dtype: DTypeLike = jnp.float32,
) -> LeNet:
  """Returns a LeNet-like network with torch's initial distributions.

  Args:
    key: key of the initial values.
    num_classes: K, number of logits.
    in_channels: 3 for RGB, 1 for gray images.
    dropout: must be 0, the network has none.
    dtype: dtype of the convolutions, float32 or bfloat16.

  Returns:
    The network: 62,006 parameters for 10 classes of RGB images.

  Raises:
    ValueError: a number of classes or channels below one, or a dropout.
  """
  if num_classes < 1 or in_channels < 1:
    raise ValueError(
      'num_classes and in_channels must be at least 1, got '
      f'{num_classes} and {in_channels}.'
    )
  if dropout:
    raise ValueError(f'dropout must be 0, the network has none, got {dropout}.')
  return LeNet(
    num_classes, in_channels=in_channels, dtype=dtype, rngs=nnx.Rngs(key)
  )


def classifier(
  model: LeNet,
  *,
  preprocess: Callable[[jax.Array], jax.Array],
  class_names: Sequence[str],
  image_size: tuple[int, int],
  dtype: DTypeLike = jnp.float32,
) -> classifiers.Classifier:
  """Returns the classifier of a network.

  Args:
    model: a trained network.
    preprocess: normalisation that the network was trained with.
    class_names: K names in the order of the logits.
    image_size: must be `IMAGE_SIZE`.
    dtype: dtype of the convolutions.

  Raises:
    ValueError: another image size.
  """
  if tuple(image_size) != IMAGE_SIZE:
    raise ValueError(f'image_size must be {IMAGE_SIZE}, got {image_size}.')
  inference = nnx.clone(model)
  inference.dtype = jnp.dtype(dtype)
  return classifiers.from_flax(
    inference,
    preprocess=preprocess,
    class_names=class_names,
    image_size=image_size,
    channels=model.conv1.kernel.shape[2],
  )
