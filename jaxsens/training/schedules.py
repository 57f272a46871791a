"""Learning rates: a factor on the rate of an optimiser, update by update."""

from collections.abc import Sequence
import dataclasses

import jax.numpy as jnp
from jax.typing import ArrayLike

NAMES = ('warmup_cosine', 'linear_warmup_cosine', 'multistep', 'constant')


@dataclasses.dataclass(frozen=True)
class Schedule:
  """A factor on the learning rate.

  Attributes:
    name: one of `NAMES`. 'warmup_cosine' is `epoch_factor`, which changes from
      epoch to epoch; 'linear_warmup_cosine' changes from update to update, see
      `linear_warmup_cosine`; 'multistep' multiplies by `milestone_factor` at
      the beginning of every epoch in `milestones`, as torch's MultiStepLR does;
      'constant' is 1.
    warmup_epochs: of the two cosines.
    end_epoch: of the two cosines.
    final_factor: of the two cosines.
    milestones: epochs, counted from 0, growing.
    milestone_factor: factor at each of them.
  """

  name: str = 'warmup_cosine'
  warmup_epochs: int = 3
  end_epoch: int = 10
  final_factor: float = 0.1
  milestones: Sequence[int] = ()
  milestone_factor: float = 0.1

  def __post_init__(self):
    if self.name not in NAMES:
      raise ValueError(f'schedule must be one of {NAMES}, got {self.name!r}.')
    if 'cosine' in self.name:
      _check_epochs(self.warmup_epochs, self.end_epoch)
    milestones = tuple(self.milestones)
    if self.name == 'multistep' and (
      not milestones or milestones != tuple(sorted(set(milestones)))
    ):
      raise ValueError(
        'milestones of the multistep schedule must be epochs that grow, got '
        f'{milestones}.'
      )

  def factor(self, step: ArrayLike, steps_per_epoch: int) -> ArrayLike:
    """Returns the factor on the rate of an update.

    Args:
      step: number of updates made before, a number or an array.
      steps_per_epoch: updates after which an epoch is over.

    Returns:
      Factors of the shape of `step`, float32.
    """
    cosine = {
      'warmup_epochs': self.warmup_epochs, 'end_epoch': self.end_epoch,
      'final_factor': self.final_factor,
    }
    if self.name == 'warmup_cosine':
      return epoch_factor(step // steps_per_epoch, **cosine)
    if self.name == 'linear_warmup_cosine':
      return linear_warmup_cosine(step, steps_per_epoch, **cosine)
    passed = jnp.zeros(jnp.shape(step), jnp.float32)
    if self.name == 'multistep':
      for milestone in self.milestones:
        passed += jnp.asarray(step) >= milestone * steps_per_epoch
    return jnp.float32(self.milestone_factor) ** passed


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
  _check_epochs(warmup_epochs, end_epoch)
  epoch = jnp.asarray(epoch, jnp.float32)
  t = (epoch - warmup_epochs) / (end_epoch - warmup_epochs)
  cosine = (1 + jnp.cos(jnp.pi * jnp.clip(t, 0, 1))) / 2
  return final_factor + (1 - final_factor) * cosine


def linear_warmup_cosine(
  step: ArrayLike,
  steps_per_epoch: int,
  *,
  warmup_epochs: int,
  end_epoch: int,
  final_factor: float,
) -> ArrayLike:
  """Returns the factor of a rate that rises linearly, then falls by a cosine.

      (n + 1) / N                      n < N = warmup_epochs steps_per_epoch
      `epoch_factor` at the fractional epoch n / steps_per_epoch      after it

  Args:
    step: n, number of updates made before.
    steps_per_epoch: updates after which an epoch is over.
    warmup_epochs: epochs in which the rate rises.
    end_epoch: epoch at whose beginning the cosine ends.
    final_factor: factor from then on.

  References:
    Goyal et al., Accurate, large minibatch SGD, 2017, sec. 2.2; Loshchilov and
    Hutter, SGDR: stochastic gradient descent with warm restarts, 2017, eq. 5.
  """
  step = jnp.asarray(step, jnp.float32)
  rise = (step + 1) / max(warmup_epochs * steps_per_epoch, 1)
  fall = epoch_factor(
    step / steps_per_epoch, warmup_epochs=warmup_epochs, end_epoch=end_epoch,
    final_factor=final_factor,
  )
  return jnp.where(step < warmup_epochs * steps_per_epoch, rise, fall)


def _check_epochs(warmup_epochs: int, end_epoch: int) -> None:
  if not 0 <= warmup_epochs < end_epoch:
    raise ValueError(
      'the epochs must satisfy 0 <= warmup_epochs < end_epoch, got '
      f'{warmup_epochs} and {end_epoch}.'
    )
