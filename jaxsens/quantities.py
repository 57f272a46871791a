"""Quantities of interest: what is read off the logits of one image.

Each quantity is a pure function (logits (C,), label ()) -> (k,) with k fixed by
the number of classes. `Quantities` joins several into one function, so that one
pass through the network serves all of them.

What may be read off depends on what the classifier answers: of logits a softmax
makes probabilities; log-kernels (`Classifier.answers`) are each a value of its
own, and a softmax of them would hide that all kernels are small. A quantity
that an answer does not have is refused.
"""

from collections.abc import Sequence
import dataclasses

import jax
import jax.numpy as jnp


def logits(logits: jax.Array, label: jax.Array) -> jax.Array:
  """Returns the logits (C,) themselves."""
  del label
  return logits


def logit(logits: jax.Array, label: jax.Array) -> jax.Array:
  """Returns the logit (or log-kernel) of the true class, (1,)."""
  return logits[label][None]


def probabilities(logits: jax.Array, label: jax.Array) -> jax.Array:
  """Returns the softmax probability of every class, (C,)."""
  del label
  return jax.nn.softmax(logits)


def probability(logits: jax.Array, label: jax.Array) -> jax.Array:
  """Returns the softmax probability of the true class, (1,)."""
  return jax.nn.softmax(logits)[label][None]


def margin(logits: jax.Array, label: jax.Array) -> jax.Array:
  """Returns the logit of the true class minus the largest other one, (1,).

  Positive exactly where the answer is right.
  """
  true = jnp.arange(logits.shape[0]) == label
  other = jnp.max(jnp.where(true, -jnp.inf, logits))
  return (logits[label] - other)[None]


def entropy(logits: jax.Array, label: jax.Array) -> jax.Array:
  """Returns the Shannon entropy of the probabilities in nats, (1,)."""
  del label
  log_p = jax.nn.log_softmax(logits)
  return -jnp.sum(jnp.exp(log_p) * log_p)[None]


def loss(logits: jax.Array, label: jax.Array) -> jax.Array:
  """Returns the cross-entropy of the true class in nats, (1,)."""
  return -jax.nn.log_softmax(logits)[label][None]


def correctness(logits: jax.Array, label: jax.Array) -> jax.Array:
  """Returns 1 where the largest logit is that of the true class, else 0."""
  return (jnp.argmax(logits) == label).astype(logits.dtype)[None]


def certainty(logits: jax.Array, label: jax.Array) -> jax.Array:
  """Returns the largest softmax probability, (1,)."""
  del label
  return jnp.max(jax.nn.softmax(logits))[None]


def kernels(logits: jax.Array, label: jax.Array) -> jax.Array:
  """Returns the kernel of every class, (C,), from log-kernels."""
  del label
  return jnp.exp(logits)


def kernel(logits: jax.Array, label: jax.Array) -> jax.Array:
  """Returns the kernel of the true class, (1,), from log-kernels."""
  return jnp.exp(logits[label])[None]


def kernel_certainty(logits: jax.Array, label: jax.Array) -> jax.Array:
  """Returns the largest kernel, (1,), from log-kernels."""
  del label
  return jnp.exp(jnp.max(logits))[None]


_FUNCTIONS = {
  'logits': logits,
  'logit': logit,
  'probabilities': probabilities,
  'probability': probability,
  'margin': margin,
  'entropy': entropy,
  'loss': loss,
  'correctness': correctness,
  'certainty': certainty,
}
_OF_KERNELS = {
  'logits': logits,
  'logit': logit,
  'kernels': kernels,
  'kernel': kernel,
  'margin': margin,
  'correctness': correctness,
  'certainty': kernel_certainty,
}
_OF_ANSWERS = {'logits': _FUNCTIONS, 'log_kernels': _OF_KERNELS}
_PER_CLASS = {
  'logits': 'logit of {}',
  'probabilities': 'probability of {}',
  'kernels': 'kernel of {}',
}
_SINGLE = {
  'logit': 'logit of the true class',
  'probability': 'probability of the true class',
  'margin': 'margin of the true class',
  'entropy': 'entropy',
  'loss': 'loss',
  'correctness': 'correctness',
  'certainty': 'certainty',
  'kernel': 'kernel of the true class',
}


@dataclasses.dataclass(frozen=True)
class Quantities:
  """Several quantities of interest as one function.

  Attributes:
    names: keys of the quantities, in the order of the outputs.
    class_names: the C names of the classes.
    answers: what the classifier answers, see `Classifier.answers`.
  """

  names: tuple[str, ...]
  class_names: tuple[str, ...]
  answers: str = 'logits'

  @property
  def output_names(self) -> tuple[str, ...]:
    """One name per output, K in all."""
    result = []
    for name in self.names:
      if name in _PER_CLASS:
        result += [_PER_CLASS[name].format(c) for c in self.class_names]
      else:
        result.append(_SINGLE[name])
    return tuple(result)

  def index(self, name: str) -> int:
    """Returns the first column of a quantity, by its key."""
    before = self.names[: self.names.index(name)]
    return len(Quantities(before, self.class_names).output_names)

  def columns(self, name: str) -> slice:
    """Returns the columns of a quantity, by its key."""
    start = self.index(name)
    size = len(self.class_names) if name in _PER_CLASS else 1
    return slice(start, start + size)

  def __call__(self, logits: jax.Array, label: jax.Array) -> jax.Array:
    """Returns the outputs (K,) of one image from its logits (C,)."""
    return jnp.concatenate([
      _OF_ANSWERS[self.answers][name](logits, label) for name in self.names
    ])


def make_quantities(
  names: Sequence[str],
  class_names: Sequence[str],
  *,
  answers: str = 'logits',
) -> Quantities:
  """Returns the named quantities joined into one function.

  Args:
    names: of logits some of 'logits', 'logit' (of the true class),
      'probabilities', 'probability' (of the true class), 'margin', 'entropy',
      'loss', 'correctness', 'certainty' (the largest probability); of
      log-kernels 'logits' (themselves), 'logit', 'kernels', 'kernel' (of the
      true class), 'margin', 'correctness', 'certainty' (the largest kernel).
    class_names: the C names of the classes.
    answers: `Classifier.answers`.

  Raises:
    ValueError: a repeated name or one that the answers do not have (those that
      they have are listed).
  """
  if answers not in _OF_ANSWERS:
    raise ValueError(
      f'answers must be one of {tuple(_OF_ANSWERS)}, got {answers!r}'
    )
  known = _OF_ANSWERS[answers]
  unknown = [name for name in names if name not in known]
  if unknown or len(set(names)) < len(names) or not names:
    of = '' if answers == 'logits' else f' of {answers}'
    raise ValueError(
      f'quantities{of} must be distinct and among {", ".join(known)}; '
      f'got {tuple(names)}'
    )
  return Quantities(tuple(names), tuple(class_names), answers)
