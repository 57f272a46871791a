"""Deterministic uncertainty quantification: one kernel per class on features.

A head maps the features f (B, D) of an image into a space of M dimensions for
every class and compares them there with the centroid of the class:

    z[b, m, k] = Σ_d f[b, d] kernels[m, k, d]
    e[m, k]    = sums[m, k] / counts[k]
    d[b, k]    = mean_m (z[b, m, k] - e[m, k])² / (2 length_scale²)
    K[b, k]    = exp(-d[b, k])

The answer is the class of the largest kernel and its value the certainty, in
(0, 1]: kernels are no probabilities, they do not sum to one, and far from all
centroids all of them are small. Everything here computes with the
`log_kernels` -d (B, K), which serve as logits wherever the largest one counts.

References:
  van Amersfoort, Smith, Teh, Gal, Uncertainty estimation using a single deep
  deterministic neural network, 2020, eqs. 1 to 6, and the code published with
  it (y0ast/deterministic-uncertainty-quantification) where the two differ.
"""

from collections.abc import Callable
from collections.abc import Sequence
import math

from flax import nnx
import jax
import jax.numpy as jnp

# Distances below it count as it does in log(1 - K), which continues in a line:
# the gradient would otherwise grow without bound where an image lies on the
# centroid of another class. It is what float32 resolves of K next to one.
_SMALLEST_DISTANCE = 2.0**-23


class Centroid(nnx.Variable):
  """What a head remembers of the features of the classes; not trained."""


class Head(nnx.Module):
  """Kernels and centroids of the classes, see the module.

  Attributes:
    kernels: (M, K, D) float32, trainable.
    counts: (K,) float32, moving average of the images per batch.
    sums: (M, K) float32, moving average of the sums of their embeddings.
    length_scale: width of the kernels in units of the embedding.
  """

  def __init__(
    self,
    key: jax.Array,
    num_features: int,
    num_classes: int,
    *,
    num_dimensions: int,
    length_scale: float,
    initial_count: float,
  ):
    """Draws the initial values of the reference.

    Args:
      key: of the initial values.
      num_features: D.
      num_classes: K, at least two.
      num_dimensions: M.
      length_scale: positive.
      initial_count: `counts` at the beginning, about the images per class of a
        batch. Centroids begin at N(0, 0.05²).

    Raises:
      ValueError: one class only, or a value that makes no sense.
    """
    if num_classes < 2:
      raise ValueError(
        f'num_classes must be at least 2, got {num_classes}: a kernel learns '
        'where its class ends from the others.'
      )
    if num_features < 1 or num_dimensions < 1:
      raise ValueError(
        'num_features and num_dimensions must be at least 1, got '
        f'{num_features} and {num_dimensions}.'
      )
    _check_positive('length_scale', length_scale)
    _check_positive('initial_count', initial_count)
    key_kernels, key_centroids = jax.random.split(key)
    # torch takes the last two axes for the inputs of a kernel (M, K, D).
    std = math.sqrt(2 / (num_classes * num_features))
    shape = (num_dimensions, num_classes, num_features)
    self.kernels = nnx.Param(
      std * jax.random.normal(key_kernels, shape, jnp.float32)
    )
    centroids = 0.05 * jax.random.normal(key_centroids, shape[:2], jnp.float32)
    self.counts = Centroid(
      jnp.full((num_classes,), initial_count, jnp.float32)
    )
    self.sums = Centroid(initial_count * centroids)
    self.length_scale = float(length_scale)

  def embed(self, features: jax.Array) -> jax.Array:
    """Returns z (B, M, K) of features (B, D)."""
    return jnp.einsum('bd,mkd->bmk', features, self.kernels[...])

  def centroids(self) -> jax.Array:
    """Returns e (M, K)."""
    return self.sums[...] / self.counts[...]

  def log_kernels(self, features: jax.Array) -> jax.Array:
    """Returns -d (B, K), not positive, of features (B, D)."""
    # In this order, a product of matrices without a copy of the kernels.
    z = jnp.einsum('mkd,bd->mkb', self.kernels[...], features)
    squares = jnp.square(z - self.centroids()[..., None])
    return -jnp.mean(squares, 0).T / (2 * self.length_scale**2)

  def __call__(self, features: jax.Array) -> jax.Array:
    """Returns the log-kernels (B, K) of features (B, D)."""
    return self.log_kernels(features)


class Network(nnx.Module):
  """A feature extractor and the head that judges its features.

  Attributes:
    extractor: a network with `embed(images, train=, key=) -> (B, D)`.
    head: see `Head`.
  """

  def __init__(self, extractor: nnx.Module, head: Head):
    self.extractor = extractor
    self.head = head

  def embed(
    self,
    images: jax.Array,
    *,
    train: bool = False,
    key: jax.Array | None = None,
  ) -> jax.Array:
    """Returns what the head takes, (B, D), of normalised images."""
    return self.extractor.embed(images, train=train, key=key)

  def __call__(
    self,
    images: jax.Array,
    *,
    train: bool = False,
    key: jax.Array | None = None,
  ) -> jax.Array:
    """Returns the log-kernels (B, K) of normalised images (B, H, W, C).

    Args:
      images: (B, H, W, C).
      train: normalise by the moments of the batch and move the running ones;
        the centroids stay, see `update_centroids`.
      key: of what the extractor drops in training.
    """
    return self.head(self.embed(images, train=train, key=key))


def make_network(
  key: jax.Array,
  extractor: nnx.Module,
  num_classes: int,
  *,
  image_shape: Sequence[int],
  num_dimensions: int | None,
  length_scale: float,
  initial_count: float,
) -> Network:
  """Returns an extractor with a new head of the width that it needs.

  Args:
    key: of the head.
    extractor: see `Network`; used as it is, not copied.
    num_classes: K.
    image_shape: (H, W, C) of an image.
    num_dimensions: M; None for as many as there are features.
    length_scale: see `Head`.
    initial_count: see `Head`.

  Raises:
    ValueError: see `Head`.
  """
  graphdef, state = nnx.split(extractor)
  embed = lambda state, images: nnx.merge(graphdef, state).embed(images)
  images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
  num_features = jax.eval_shape(embed, state, images).shape[-1]
  return Network(extractor, Head(
    key, num_features, num_classes,
    num_dimensions=num_dimensions or num_features, length_scale=length_scale,
    initial_count=initial_count,
  ))


def certainty(log_kernels: jax.Array) -> jax.Array:
  """Returns the largest kernel (B,), in [0, 1], of log-kernels (B, K)."""
  return jnp.exp(jnp.max(log_kernels, axis=-1))


def binary_cross_entropy(
  log_kernels: jax.Array,
  labels: jax.Array,
  class_weights: jax.Array | None = None,
) -> jax.Array:
  """Returns the loss of the kernels as K answers yes or no.

      loss = Σ_b w[y_b] l_b / Σ_b w[y_b]
      l_b  = -mean_k (log K[b, k] if k = y_b else log(1 - K[b, k]))

  The mean over the batch and the classes, where the weights are one. Both
  logarithms are exact however small K or 1 - K is, down to 1 - K = 2⁻²³, below
  which the second continues as a straight line in the distance.

  Args:
    log_kernels: (B, K), not positive.
    labels: (B,) int.
    class_weights: (K,) not negative, w; None for ones.
  """
  numerator, denominator = binary_cross_entropy_sums(
    log_kernels, labels, class_weights
  )
  return numerator / denominator


def binary_cross_entropy_sums(
  log_kernels: jax.Array,
  labels: jax.Array,
  class_weights: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Returns numerator and denominator of `binary_cross_entropy`."""
  if log_kernels.ndim != 2 or labels.shape != log_kernels.shape[:1]:
    raise ValueError(
      'log_kernels must have shape (B, K) and labels (B,), got '
      f'{log_kernels.shape} and {labels.shape}.'
    )
  own = jnp.arange(log_kernels.shape[1]) == labels[:, None]
  losses = -jnp.mean(
    jnp.where(own, log_kernels, log_one_minus_exp(log_kernels)), axis=1
  )
  if class_weights is None:
    weights = jnp.ones_like(losses)
  else:
    weights = class_weights.astype(losses.dtype)[labels]
  return jnp.sum(weights * losses), jnp.sum(weights)


def log_one_minus_exp(log_kernels: jax.Array) -> jax.Array:
  """Returns log(1 - K) from log K, elementwise.

      log(1 - K) = log(-expm1(-d)),  d = -log K

  relatively exact where K is close to one, absolutely where it is small.
  """
  distances = -log_kernels
  kept = jnp.maximum(distances, _SMALLEST_DISTANCE)
  below = jnp.minimum(distances - _SMALLEST_DISTANCE, 0)
  return jnp.log(-jnp.expm1(-kept)) + below / math.expm1(_SMALLEST_DISTANCE)


def gradient_penalty(
  kernel_sum_fn: Callable[[jax.Array], jax.Array],
  images: jax.Array,
  *,
  norm_power: int = 1,
  sides: str = 'two',
) -> jax.Array:
  """Returns how far the gradients of the kernels are from the norm one.

      penalty = mean_b (‖∂ Σ_k,b' K[b', k] / ∂ images[b]‖^norm_power - 1)²

  It keeps features from being insensitive to what moves an image away from the
  data. With the moments of the batch in batch norm the gradient with respect
  to one image has the kernels of the others in it, as the reference has.

  Args:
    kernel_sum_fn: images -> sum of all kernels, a scalar.
    images: (B, ...), as the network takes them: normalised.
    norm_power: 1, as in the reference's code, or 2, as in the paper's eq. 6.
    sides: 'two', or 'one' to let gradients be shorter.

  Raises:
    ValueError: an unknown option.

  References:
    Gulrajani et al., Improved training of Wasserstein GANs, 2017, sec. 4.
  """
  return penalty_of(
    jax.grad(kernel_sum_fn)(images), norm_power=norm_power, sides=sides
  )


def penalty_of(
  gradients: jax.Array, *, norm_power: int = 1, sides: str = 'two'
) -> jax.Array:
  """Returns the penalty of gradients (B, ...), see `gradient_penalty`."""
  check_penalty(norm_power, sides)
  squares = jnp.sum(
    jnp.square(gradients), axis=tuple(range(1, gradients.ndim))
  )
  # The root has no derivative at zero.
  norms = squares if norm_power == 2 else jnp.sqrt(squares + 1e-12)
  excess = norms - 1
  return jnp.mean(jnp.square(jnp.maximum(excess, 0) if sides == 'one'
                             else excess))


def update_centroids(
  head: Head, features: jax.Array, labels: jax.Array, decay: float
) -> None:
  """Moves the centroids of a head towards the features of a batch.

      counts[k]  <- decay counts[k]  + (1 - decay) Σ_b [y_b = k]
      sums[m, k] <- decay sums[m, k] + (1 - decay) Σ_b [y_b = k] z[b, m, k]

  The centroid of a class that the batch lacks stays where it is. NaN features
  make the centroid of their class NaN, and so every certainty from then on.

  Args:
    head: whose `counts` and `sums` are replaced.
    features: (B, D).
    labels: (B,) int in 0..K-1.
    decay: in [0, 1).
  """
  features = jax.lax.stop_gradient(features)
  own = jax.nn.one_hot(labels, head.counts.shape[0], dtype=features.dtype)
  # Σ_b own[b, k] z[b, m, k], without the embedding of every image.
  totals = jnp.einsum(
    'mkd,kd->mk', jax.lax.stop_gradient(head.kernels[...]), own.T @ features
  )
  move = lambda old, new: decay * old + (1 - decay) * new
  head.counts[...] = move(head.counts[...], jnp.sum(own, 0))
  head.sums[...] = move(head.sums[...], totals)


def check_penalty(norm_power: int, sides: str) -> None:
  """Raises ValueError for options that `gradient_penalty` does not have."""
  if norm_power not in (1, 2) or sides not in ('one', 'two'):
    raise ValueError(
      "norm_power must be 1 or 2 and sides 'one' or 'two', got "
      f'{norm_power!r} and {sides!r}.'
    )


def _check_positive(name: str, value: float) -> None:
  if not (math.isfinite(value) and value > 0):
    raise ValueError(f'{name} must be positive and finite, got {value}.')
