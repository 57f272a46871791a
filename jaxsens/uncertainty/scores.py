"""How sure an answer is, read off its logits.

A certainty is one number per image, larger is surer, and has no unit: only the
order counts, see `ood` and `selection`. `logits` are (..., K), or (S, ..., K)
where a classifier answers several times (members of an ensemble, masks of
dropout). All functions are pure and follow the dtype of the logits.

References:
  Hendrycks and Gimpel, A baseline for detecting misclassified and
  out-of-distribution examples, 2017.
  Liu, Wang, Owens, Li, Energy-based out-of-distribution detection, 2020.
  Gal, Uncertainty in deep learning, 2016, section 3.3.1, and Depeweg et al.,
  Decomposition of uncertainty, 2018, for the mutual information.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Predictive:
  """What several answers to the same images say together.

  The entropy of the mean splits into the mean entropy, which doubts of single
  answers make up, and the mutual information, which their disagreement does.

  Attributes:
    log_probabilities: (..., K) log of the mean of the probabilities; they serve
      as logits of the common answer.
    negative_entropy: (...) minus the entropy of these, in nats.
    negative_mutual_information: (...) mean entropy of the single answers minus
      the entropy of these, in nats, at most 0.
  """

  log_probabilities: jax.Array
  negative_entropy: jax.Array
  negative_mutual_information: jax.Array


def maximum_probability(logits: ArrayLike) -> jax.Array:
  """Returns the largest softmax probability, (...)."""
  return jnp.max(jax.nn.softmax(_checked(logits)), axis=-1)


def negative_entropy(logits: ArrayLike) -> jax.Array:
  """Returns Σ_k p_k log p_k of the softmax probabilities, (...), in nats."""
  logs = jax.nn.log_softmax(_checked(logits))
  return jnp.sum(_times_log(logs, logs), axis=-1)


def negative_energy(
  logits: ArrayLike, *, temperature: float = 1.0
) -> jax.Array:
  """Returns T log Σ_k exp(logits_k / T), (...).

  Unlike the probabilities it grows when all logits do.

  Args:
    logits: (..., K).
    temperature: T, positive.

  Raises:
    ValueError: another temperature.
  """
  if not temperature > 0:
    raise ValueError(f'temperature must be positive, got {temperature}.')
  scaled = _checked(logits) / temperature
  return temperature * jax.nn.logsumexp(scaled, axis=-1)


def of_samples(logits: ArrayLike) -> Predictive:
  """Returns the common answer of several ones and how far they agree.

  Args:
    logits: (S, ..., K), one answer per leading index.

  Raises:
    ValueError: there is no axis of samples, or it is empty.
  """
  logits = _checked(logits)
  if logits.ndim < 2 or not len(logits):
    raise ValueError(
      f'logits must have shape (S, ..., K) with S >= 1, got {logits.shape}.'
    )
  logs = jax.nn.log_softmax(logits)
  mean = jax.nn.logsumexp(logs, axis=0) - jnp.log(
    jnp.asarray(len(logs), logs.dtype)
  )
  # As a mean of divergences it is not the difference of two large numbers.
  divergence = jnp.sum(
    _times_log(logs, jnp.where(jnp.isneginf(logs), 0, logs - mean)), axis=-1
  )
  return Predictive(
    mean, jnp.sum(_times_log(mean, mean), axis=-1),
    -jnp.maximum(jnp.mean(divergence, axis=0), 0),
  )


def _times_log(logs, others):
  """exp(logs) others, 0 where the probability is 0."""
  return jnp.where(jnp.isneginf(logs), 0, jnp.exp(logs) * others)


def _checked(logits):
  logits = jnp.asarray(logits)
  if not logits.ndim or not logits.shape[-1]:
    raise ValueError(
      f'logits must have shape (..., K) with K >= 1, got {logits.shape}.'
    )
  return logits
