"""Small networks of every kind of layer, for tests of what explains them."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from jaxsens import classifiers
from jaxsens.models import layers


class SmallNetwork(nnx.Module):
  """Convolution - batch norm - ReLU - pool - residual block - mean - linear.

  Attributes:
    stem, norm, first, second, head: its layers.
  """

  def __init__(self, channels: int, num_classes: int, *, rngs: nnx.Rngs):
    def convolution(inside, outside):
      return nnx.Conv(
        inside, outside, (3, 3), rngs=rngs,
        bias_init=nnx.initializers.normal(0.1),
      )

    self.stem = convolution(channels, 6)
    self.norm = nnx.BatchNorm(6, use_running_average=True, rngs=rngs)
    self.norm.mean[...] = jnp.linspace(-0.2, 0.3, 6)
    self.norm.var[...] = jnp.linspace(0.5, 1.5, 6)
    self.first = convolution(6, 6)
    self.second = convolution(6, 6)
    self.head = nnx.Linear(
      6, num_classes, rngs=rngs, bias_init=nnx.initializers.normal(0.1)
    )

  def __call__(self, images: jax.Array) -> jax.Array:
    """Returns logits (B, K) of images (B, H, W, C)."""
    x = jax.nn.relu(self.norm(self.stem(images)))
    x = nnx.max_pool(x, (2, 2), (2, 2))
    x = jax.nn.relu(x + self.second(jax.nn.relu(self.first(x))))
    return self.head(jnp.mean(x, (1, 2)))


class Trainable(nnx.Module):
  """Convolution, batch norm, dropout, head: everything that training moves."""

  def __init__(self, rngs):
    self.conv1 = layers.Convolution(1, 8, 3, dtype=np.float32, rngs=rngs)
    self.bn1 = layers.BatchNorm(8)
    self.dropout = nnx.Dropout(0.1)
    self.fc = layers.linear(8, 3, rngs=rngs)

  def __call__(self, images, *, train=False, key=None):
    x = layers.relu(self.bn1(self.conv1(images), train=train))
    features = self.dropout(x.mean((1, 2)), deterministic=not train, rngs=key)
    return self.fc(features)


def classifier(
  key: jax.Array, *, size: int = 8, channels: int = 3, num_classes: int = 4
) -> classifiers.Classifier:
  """Returns a classifier with random values."""
  return classifiers.from_flax(
    SmallNetwork(channels, num_classes, rngs=nnx.Rngs(key)),
    preprocess=classifiers.Normalise((0.4,) * channels, (0.3,) * channels),
    class_names=tuple(f'class {i}' for i in range(num_classes)),
    image_size=(size, size), channels=channels,
  )


def linear(
  key: jax.Array, *, size: tuple[int, int] = (6, 8), channels: int = 2,
  num_classes: int = 3,
) -> classifiers.Classifier:
  """Returns a linear one; `params` are weights (H, W, C, K) and bias (K,)."""
  key_weights, key_bias = jax.random.split(key)
  shape = (*size, channels, num_classes)
  return classifiers.Classifier(
    apply_fn=_linear,
    params=(
      jax.random.normal(key_weights, shape),
      jax.random.normal(key_bias, (num_classes,)),
    ),
    preprocess=classifiers.identity,
    class_names=tuple(f'class {i}' for i in range(num_classes)),
    image_size=size, channels=channels,
  )


def _linear(params, images):
  weights, bias = params
  return jnp.einsum('bhwc,hwck->bk', images, weights) + bias


def folded(classifier: classifiers.Classifier) -> classifiers.Classifier:
  """Returns the same function with the batch norm in the first convolution."""
  network = nnx.merge(classifier.apply_fn.graphdef, classifier.params)
  norm = network.norm
  factor = norm.scale[...] / jnp.sqrt(norm.var[...] + norm.epsilon)
  network.stem.kernel[...] = network.stem.kernel[...] * factor
  network.stem.bias[...] = (
    norm.bias[...] + (network.stem.bias[...] - norm.mean[...]) * factor
  )
  norm.mean[...], norm.bias[...] = jnp.zeros(6), jnp.zeros(6)
  norm.scale[...], norm.var[...] = jnp.ones(6), jnp.ones(6) - norm.epsilon
  return classifiers.from_flax(
    network, preprocess=classifier.preprocess,
    class_names=classifier.class_names, image_size=classifier.image_size,
    channels=classifier.channels,
  )
