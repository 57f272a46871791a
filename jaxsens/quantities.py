"""Quantities of interest: what is read off the logits of one image.

Each quantity is a pure function (logits (C,), label ()) -> (k,) with k fixed by
the number of classes. `Quantities` joins several into one function, so that one
pass through the network serves all of them.
"""

from collections.abc import Sequence
import dataclasses

import jax
import jax.numpy as jnp


def logits(logits: jax.Array, label: jax.Array) -> jax.Array:
  """Returns the logits (C,) themselves."""
  del label
  return logits


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


_FUNCTIONS = {
  'logits': logits,
  'probabilities': probabilities,
  'probability': probability,
  'margin': margin,
  'entropy': entropy,
  'loss': loss,
  'correctness': correctness,
}
_PER_CLASS = {'logits': 'logit of {}', 'probabilities': 'probability of {}'}
_SINGLE = {
  'probability': 'probability of the true class',
  'margin': 'margin of the true class',
  'entropy': 'entropy',
  'loss': 'loss',
  'correctness': 'correctness',
}


@dataclasses.dataclass(frozen=True)
class Quantities:
  """Several quantities of interest as one function.

  Attributes:
    names: keys of the quantities, in the order of the outputs.
    class_names: the C names of the classes.
  """

  names: tuple[str, ...]
  class_names: tuple[str, ...]

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
      _FUNCTIONS[name](logits, label) for name in self.names
    ])


def make_quantities(
  names: Sequence[str], class_names: Sequence[str]
) -> Quantities:
  """Returns the named quantities joined into one function.

  Args:
    names: some of 'logits', 'probabilities', 'probability' (of the true class),
      'margin', 'entropy', 'loss', 'correctness'.
    class_names: the C names of the classes.

  Raises:
    ValueError: an unknown name (the known ones are listed) or a repeated one.
  """
  unknown = [name for name in names if name not in _FUNCTIONS]
  if unknown or len(set(names)) < len(names) or not names:
    raise ValueError(
      f'quantities must be distinct and among {", ".join(_FUNCTIONS)}; '
      f'got {tuple(names)}'
    )
  return Quantities(tuple(names), tuple(class_names))
