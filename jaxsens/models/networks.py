"""What the networks share: from images to features to logits."""

from collections.abc import Callable

from flax import nnx
import jax

from jaxsens import classifiers
from jaxsens.models import layers


class Network(nnx.Module):
  """A network of a feature map, an embedding and a linear head.

  A subclass has `features`, a method or a module (images, *, train, key) ->
  last feature map (B, h, w, D), and `_head`, a method (embeddings (B, D),
  train, key) -> logits (B, K); or it overrides `_embed` and `_logits`.

  Attributes:
    num_features: D, what the head takes.
    slice_size: images that go through together outside of training; 0 is all.
      See `inference.prepare`.
  """

  slice_size = 0

  def embed(
    self,
    images: jax.Array,
    *,
    train: bool = False,
    key: jax.Array | None = None,
  ) -> jax.Array:
    """Returns what the head takes, (B, D), float32."""
    return self._in_slices(self._embed, images, train, key)

  def __call__(
    self,
    images: jax.Array,
    *,
    train: bool = False,
    key: jax.Array | None = None,
  ) -> jax.Array:
    """Returns the logits of normalised images.

    Args:
      images: (B, H, W, C).
      train: normalise by the moments of the batch, update the running ones and
        drop what the network drops.
      key: key of what is dropped; needed in training unless nothing is.

    Returns:
      Logits (B, K), float32.
    """
    return self._in_slices(self._logits, images, train, key)

  def _logits(self, images, train, key):
    return self._head(self._embed(images, train, key), train, key)

  def _embed(self, images, train, key):
    return layers.mean_pool(self.features(images, train=train, key=key))

  def _in_slices(self, function: Callable, images, train, key):
    number = images.shape[0]
    # A program for any number of images, as export makes it, has no slices.
    known = isinstance(number, int)
    size = classifiers.slice_of(number, self.slice_size) if known else number
    if train or size == number or layers.is_observed():
      return function(images, train, key)
    slices = images.reshape(-1, size, *images.shape[1:])
    results = jax.lax.map(lambda part: function(part, train, key), slices)
    return results.reshape(number, -1)


def drop_and_project(
  x: jax.Array,
  drop: nnx.Dropout,
  linear: nnx.Linear,
  train: bool,
  key: jax.Array | None,
) -> jax.Array:
  """Returns the logits (B, K) of an embedding (B, D) behind its dropout."""
  return linear(layers.dropout(x, drop.rate, train=train, key=key))
