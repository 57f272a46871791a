"""The loss that training minimises: cross-entropy with weights and smoothing.

`labels` (N,) are integers in 0..K-1, `logits` (N, K), float32.
"""

import jax
import jax.numpy as jnp
import numpy as np


def cross_entropy_sums(
  logits: jax.Array,
  labels: jax.Array,
  class_weights: jax.Array,
  *,
  smoothing: float = 0.0,
) -> tuple[jax.Array, jax.Array]:
  """Returns numerator and denominator of the weighted cross-entropy.

      loss = Σ_n [(1 - s) w[y_n] l_n[y_n] + s / K Σ_k w[k] l_n[k]] / Σ_n w[y_n]
      l_n = -log softmax(logits_n)

  which is the mean that `torch.nn.CrossEntropyLoss(weight=w,
  label_smoothing=s)` takes: smoothed labels weigh by the class that they are
  smoothed to, the mean by the labels as they were.

  Args:
    logits: (N, K).
    labels: (N,) int.
    class_weights: (K,) non-negative, w.
    smoothing: s in [0, 1).

  Returns:
    Numerator and denominator, scalars in the dtype of the logits.
  """
  numerators, weights = _terms(logits, labels, class_weights, smoothing)
  return jnp.sum(numerators), jnp.sum(weights)


def mixed_cross_entropy_sums(
  logits: jax.Array,
  labels: jax.Array,
  partners: jax.Array,
  share: jax.Array,
  class_weights: jax.Array,
  *,
  smoothing: float = 0.0,
) -> tuple[jax.Array, jax.Array]:
  """Returns the sums of images that were mixed by `mix`.

  Args:
    logits: (N, K) of the mixed images.
    labels: (N,) int, of the images with the given share.
    partners: (N,) int, of those with the rest.
    share: scalar in [0, 1].
    class_weights: (K,) non-negative.
    smoothing: in [0, 1).

  Returns:
    Share times the sums for the labels plus the rest of those for the partners.
  """
  one = cross_entropy_sums(logits, labels, class_weights, smoothing=smoothing)
  two = cross_entropy_sums(logits, partners, class_weights, smoothing=smoothing)
  return tuple(
    share * a + (1 - share) * b for a, b in zip(one, two, strict=True)
  )


def mix(
  key: jax.Array, images: jax.Array, labels: jax.Array, alpha: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns images mixed with those of the batch in reverse order (mixup).

  Args:
    key: draws the share from Beta(alpha, alpha), one for the batch.
    images: (N, H, W, C).
    labels: (N,).
    alpha: positive.

  Returns:
    Mixed images, the labels of the partners and the share of the first.

  References:
    Zhang et al., mixup: beyond empirical risk minimization, 2018.
  """
  share = jax.random.beta(key, alpha, alpha, dtype=images.dtype)
  return share * images + (1 - share) * images[::-1], labels[::-1], share


def check(smoothing: float, mixup: float) -> None:
  """Raises ValueError for a smoothing or an alpha that makes no sense."""
  if not 0 <= smoothing < 1:
    raise ValueError(f'label_smoothing must be in [0, 1), got {smoothing}.')
  if not (mixup >= 0 and np.isfinite(mixup)):
    raise ValueError(f'mixup must not be negative, got {mixup}.')


def _terms(logits, labels, class_weights, smoothing):
  """Returns numerators (N,) and weights (N,)."""
  log_probabilities = jax.nn.log_softmax(logits)
  chosen = jnp.take_along_axis(log_probabilities, labels[:, None], axis=1)[:, 0]
  class_weights = class_weights.astype(logits.dtype)
  weights = class_weights[labels]
  numerators = -(weights * chosen)
  if smoothing:
    uniform = -(log_probabilities * class_weights).mean(1)
    numerators = (1 - smoothing) * numerators + smoothing * uniform
  return numerators, weights
