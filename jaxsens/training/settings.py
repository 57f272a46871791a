"""How a network is trained."""

import dataclasses

import optax

from jaxsens.training import augment
from jaxsens.training import losses
from jaxsens.training import monitors
from jaxsens.training import optimizers
from jaxsens.training import schedules


@dataclasses.dataclass(frozen=True)
class Settings:
  """How long, how fast and in what portions a network is trained.

  Attributes:
    num_epochs: passes over the training images.
    batch_size: images per update. The images left over at the end of an epoch
      sit it out; another shuffle leaves out others. A set smaller than a batch
      is one batch.
    optimizer, learning_rate, weight_decay, momentum, nesterov, clip_norm: see
      `optimizers.create`.
    schedule, warmup_epochs, end_epoch, final_factor, milestones,
      milestone_factor: see `schedules.Schedule`.
    label_smoothing: share of every label that is spread over all classes.
    mixup: alpha of `losses.mix`; 0 mixes nothing.
    ema_decay: of `optimizers.move_average` over parameters and running moments;
      the average is what is evaluated and kept. 0 takes no average.
    augmentation: the policy of `augment.Augmentation`.
    num_operations, magnitude, crop, crop_padding, flip: see
      `augment.Augmentation`.
    noise_doubling: standard deviation, in units of the normalised images, of
      the noise on a copy of every batch that is trained on beside it; 0 makes
      no copy.
    monitor, early_limit, replacement_limit: see `monitors.Monitor`.
  """

  num_epochs: int
  batch_size: int = 32
  learning_rate: float = 1e-4
  weight_decay: float = 1e-4
  warmup_epochs: int = 3
  end_epoch: int = 10
  final_factor: float = 0.1
  optimizer: str = 'adamw'
  momentum: float = 0.9
  nesterov: bool = False
  clip_norm: float = 0.0
  schedule: str = 'warmup_cosine'
  milestones: tuple[int, ...] = ()
  milestone_factor: float = 0.1
  label_smoothing: float = 0.0
  mixup: float = 0.0
  ema_decay: float = 0.0
  augmentation: str = 'none'
  num_operations: int = 2
  magnitude: int = 9
  crop: str = 'none'
  crop_padding: int = 4
  flip: float = 0.0
  noise_doubling: float = 0.0
  monitor: str = 'loss'
  early_limit: int = 0
  replacement_limit: int = 0

  def __post_init__(self):
    if self.num_epochs < 1 or self.batch_size < 1:
      raise ValueError(
        'num_epochs and batch_size must be at least 1, got '
        f'{self.num_epochs} and {self.batch_size}.'
      )
    if not self.learning_rate > 0 or not self.weight_decay >= 0:
      raise ValueError(
        'learning_rate must be positive and weight_decay not negative, got '
        f'{self.learning_rate} and {self.weight_decay}.'
      )
    if not 0 <= self.ema_decay < 1:
      raise ValueError(f'ema_decay must be in [0, 1), got {self.ema_decay}.')
    if not self.noise_doubling >= 0:
      raise ValueError(
        f'noise_doubling must not be negative, got {self.noise_doubling}.'
      )
    losses.check(self.label_smoothing, self.mixup)
    optimizers.check(
      self.optimizer, self.momentum, self.nesterov, self.clip_norm
    )
    self.make_monitor()
    self.make_schedule()
    self.make_augmentation()

  def make_schedule(self) -> schedules.Schedule:
    """Returns the factor on the learning rate."""
    return schedules.Schedule(
      self.schedule, self.warmup_epochs, self.end_epoch, self.final_factor,
      tuple(self.milestones), self.milestone_factor,
    )

  def make_augmentation(self) -> augment.Augmentation:
    """Returns what is done to the training images."""
    return augment.Augmentation(
      self.crop, self.crop_padding, self.flip, self.augmentation,
      self.num_operations, self.magnitude,
    )

  def make_monitor(self) -> monitors.Monitor:
    """Returns a monitor that has seen no epoch."""
    return monitors.Monitor(
      self.monitor, self.early_limit, self.replacement_limit
    )

  def make_optimizer(
    self, steps_per_epoch: int
  ) -> optax.GradientTransformation:
    """Returns the optimiser."""
    return optimizers.create(
      self.optimizer, learning_rate=self.learning_rate,
      schedule=self.make_schedule(), steps_per_epoch=steps_per_epoch,
      weight_decay=self.weight_decay, momentum=self.momentum,
      nesterov=self.nesterov, clip_norm=self.clip_norm,
    )

  def rate(self, step: int, steps_per_epoch: int) -> float:
    """Returns the learning rate of the update after `step` others."""
    factor = self.make_schedule().factor(step, steps_per_epoch)
    return self.learning_rate * float(factor)
