"""A network that is one linear layer, whose every derivative is known."""

from collections.abc import Sequence

from flax import nnx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np

from jaxsens import classifiers


class LinearNetwork(nnx.Module):
  """Logits of the flattened image: x @ kernel + bias.

  Attributes:
    head: the layer.
  """

  def __init__(self, kernel: ArrayLike):
    self.head = nnx.Linear(*np.shape(kernel), rngs=nnx.Rngs(0))
    self.head.kernel[...] = jnp.asarray(kernel)

  def __call__(self, images: jax.Array) -> jax.Array:
    """Returns logits (B, K) of images (B, H, W, C)."""
    return self.head(images.reshape(len(images), -1))


def classifier(
  kernel: ArrayLike, shape: Sequence[int]
) -> classifiers.Classifier:
  """Returns the linear classifier of images of a shape (H, W, C)."""
  names = tuple(f'class {k}' for k in range(np.shape(kernel)[1]))
  return classifiers.from_flax(
    LinearNetwork(kernel), preprocess=classifiers.identity, class_names=names,
    image_size=tuple(shape[:2]), channels=shape[2],
  )
