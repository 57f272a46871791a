"""Optimisers with torch's conventions, and the average of the parameters."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import optax

from jaxsens.training import schedules

NAMES = ('adamw', 'adam', 'sgd')


def create(
  name: str,
  *,
  learning_rate: float,
  schedule: schedules.Schedule,
  steps_per_epoch: int,
  weight_decay: float = 0.0,
  momentum: float = 0.9,
  nesterov: bool = False,
  clip_norm: float = 0.0,
) -> optax.GradientTransformation:
  """Returns an optimiser by name.

  Decay acts on every parameter, biases and batch norm included, as torch's
  optimisers do; with rate r, gradient g and decay d:

      adamw   p <- p - r (adam(g) + d p)         (0.9, 0.999, epsilon 1e-8)
      adam    p <- p - r adam(g + d p)
      sgd     b <- momentum b + g + d p,  p <- p - r b, and with nesterov
              p <- p - r (g + d p + momentum b)

  Args:
    name: one of `NAMES`.
    learning_rate: rate where the factor of the schedule is one.
    schedule: the factor.
    steps_per_epoch: updates after which an epoch is over.
    weight_decay: d.
    momentum: of 'sgd'; 0 for none.
    nesterov: of 'sgd' with momentum.
    clip_norm: gradients longer than that, over all parameters, are shortened
      to it before anything else; 0 leaves them.

  Raises:
    ValueError: an unknown name, or a value that makes no sense.

  References:
    Loshchilov and Hutter, Decoupled weight decay regularization, 2019, alg. 2;
    Sutskever et al., On the importance of initialization and momentum, 2013.
  """
  if steps_per_epoch < 1:
    raise ValueError(
      f'steps_per_epoch must be at least 1, got {steps_per_epoch}.'
    )
  check(name, momentum, nesterov, clip_norm)

  def rate(step: ArrayLike) -> ArrayLike:
    return learning_rate * schedule.factor(step, steps_per_epoch)

  if name == 'adamw':
    optimizer = optax.adamw(rate, weight_decay=weight_decay)
  else:
    optimizer = optax.adam(rate) if name == 'adam' else optax.sgd(
      rate, momentum or None, nesterov
    )
    if weight_decay:
      optimizer = optax.chain(
        optax.add_decayed_weights(weight_decay), optimizer
      )
  if clip_norm:
    optimizer = optax.chain(optax.clip_by_global_norm(clip_norm), optimizer)
  return optimizer


def check(
  name: str, momentum: float, nesterov: bool, clip_norm: float
) -> None:
  """Raises ValueError for options that no optimiser has, see `create`."""
  if name not in NAMES:
    raise ValueError(f'optimizer must be one of {NAMES}, got {name!r}.')
  if not 0 <= momentum < 1:
    raise ValueError(f'momentum must be in [0, 1), got {momentum}.')
  if nesterov and (name != 'sgd' or not momentum):
    raise ValueError('nesterov needs the optimizer sgd with a momentum.')
  if clip_norm < 0:
    raise ValueError(f'clip_norm must not be negative, got {clip_norm}.')


def move_average(
  average: Any, values: Any, step: ArrayLike, decay: float
) -> Any:
  """Returns the exponential moving average after an update.

      a <- c a + (1 - c) v,   c = min(decay, (1 + n) / (10 + n))

  so that the first updates, far from where the training ends, are forgotten
  sooner.

  Args:
    average: tree of arrays, a.
    values: tree of the same form after the update, v; of what is not floating
      the value is taken.
    step: n, number of updates made before.
    decay: in [0, 1).

  References:
    Polyak and Juditsky, Acceleration of stochastic approximation by averaging,
    1992; the ramp is that of TensorFlow's ExponentialMovingAverage.
  """
  step = jnp.asarray(step, jnp.float32)
  kept = jnp.minimum(decay, (1 + step) / (10 + step))

  def move(a, v):
    if not jnp.issubdtype(v.dtype, jnp.floating):
      return v
    return kept * a + (1 - kept) * v

  return jax.tree.map(move, average, values)
