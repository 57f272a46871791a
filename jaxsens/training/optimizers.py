"""AdamW with a learning rate that changes from epoch to epoch."""

import jax.numpy as jnp
from jax.typing import ArrayLike
import optax


def epoch_factor(
  epoch: ArrayLike,
  *,
  warmup_epochs: int = 3,
  end_epoch: int = 10,
  final_factor: float = 0.1,
) -> ArrayLike:
  """Returns the factor on the learning rate in an epoch.

      1                                                    e < warmup_epochs
      final + (1 - final) (1 + cos(π t)) / 2               in between
      final                                                e > end_epoch
      t = (e - warmup_epochs) / (end_epoch - warmup_epochs)

  Args:
    epoch: e, counted from 0; a number or an array.
    warmup_epochs: epochs at the full rate, before the cosine begins.
    end_epoch: epoch in which the cosine ends, later than `warmup_epochs`.
    final_factor: factor from then on.

  Returns:
    Factors of the shape of `epoch`, float32.

  Raises:
    ValueError: the cosine would end before it begins.
  """
  if not 0 <= warmup_epochs < end_epoch:
    raise ValueError(
      'the epochs must satisfy 0 <= warmup_epochs < end_epoch, got '
      f'{warmup_epochs} and {end_epoch}.'
    )
  epoch = jnp.asarray(epoch, jnp.float32)
  t = (epoch - warmup_epochs) / (end_epoch - warmup_epochs)
  cosine = (1 + jnp.cos(jnp.pi * jnp.clip(t, 0, 1))) / 2
  return final_factor + (1 - final_factor) * cosine


def adamw(
  *,
  learning_rate: float = 1e-4,
  weight_decay: float = 1e-4,
  steps_per_epoch: int,
  warmup_epochs: int = 3,
  end_epoch: int = 10,
  final_factor: float = 0.1,
) -> optax.GradientTransformation:
  """Returns AdamW (0.9, 0.999, epsilon 1e-8) with `epoch_factor` on its rate.

  Decay acts on every parameter, biases and batch norm included, as
  `torch.optim.AdamW` does: p <- p - rate (m / (sqrt(v) + epsilon) + decay p).

  Args:
    learning_rate: rate in the first epochs.
    weight_decay: decay per step, in units of the rate.
    steps_per_epoch: updates after which an epoch is over.
    warmup_epochs: see `epoch_factor`.
    end_epoch: see `epoch_factor`.
    final_factor: see `epoch_factor`.

  References:
    Loshchilov and Hutter, Decoupled weight decay regularization, 2019, alg. 2.
  """
  if steps_per_epoch < 1:
    raise ValueError(
      f'steps_per_epoch must be at least 1, got {steps_per_epoch}.'
    )

  def rate(step: ArrayLike) -> ArrayLike:
    return learning_rate * epoch_factor(
      step // steps_per_epoch,
      warmup_epochs=warmup_epochs,
      end_epoch=end_epoch,
      final_factor=final_factor,
    )

  return optax.adamw(rate, weight_decay=weight_decay)
