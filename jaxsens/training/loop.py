"""Training of a network on labelled images.

Images are float (N, H, W, C) in [0, 1], already of the size that the network
takes; `preprocess` normalises them inside the compiled step. A network is
called as `model(images)` for inference and as `model(images, train=True,
key=key)` in training, where it may move its statistics and drop features.

Every random choice comes from the key that is passed in, from the epoch and
from the update: the same key, data and settings give bitwise the same network
on the same machine, whether or not the training was interrupted.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import math
import time
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np
import optax

from jaxsens.training import batches
from jaxsens.training import metrics
from jaxsens.training import objectives
from jaxsens.training import scoring
from jaxsens.training import settings as settings_lib
from jaxsens.training import snapshots as snapshots_lib
from jaxsens.training import steps

Evaluation = scoring.Evaluation
LabelledImages = batches.LabelledImages
Preprocess = scoring.Preprocess
Settings = settings_lib.Settings
evaluate = scoring.evaluate
predict = scoring.predict


@dataclasses.dataclass(frozen=True)
class Epoch:
  """One pass over the training images.

  Attributes:
    epoch: its number, from 0.
    learning_rate: rate of its first update.
    train_loss: the objective over its batches, each before its update, of the
      images as they were trained on.
    validation: evaluation after its last update.
    seconds: duration of its updates, without the evaluation.
  """

  epoch: int
  learning_rate: float
  train_loss: float
  validation: Evaluation
  seconds: float

  def as_dict(self) -> dict[str, Any]:
    """Returns the fields by name, nested, ready for JSON."""
    return dataclasses.asdict(self)

  @classmethod
  def from_dict(cls, fields: Mapping[str, Any]) -> 'Epoch':
    """Returns the epoch that `as_dict` gave to JSON."""
    validation = Evaluation.from_dict(fields['validation'])
    return cls(**{**fields, 'validation': validation})


@dataclasses.dataclass(frozen=True)
class FineTuned:
  """A trained network.

  Attributes:
    model: the network after its best epoch.
    best_epoch: the epoch of the best validation, the first of equals.
    history: every epoch, in order.
    last: the network after its last epoch, after any replacement.
  """

  model: nnx.Module
  best_epoch: int
  history: tuple[Epoch, ...]
  last: nnx.Module


def fine_tune(
  key: jax.Array,
  model: nnx.Module,
  train: LabelledImages,
  validation: LabelledImages,
  *,
  preprocess: Preprocess,
  class_weights: ArrayLike,
  settings: Settings,
  objective: objectives.Objective | None = None,
  constraint: optax.GradientTransformation | None = None,
  on_step: Callable[[int, int, int], None] | None = None,
  on_epoch: Callable[[Epoch], None] | None = None,
  on_resume: Callable[[Sequence[Epoch]], None] | None = None,
  snapshots: snapshots_lib.Snapshots | None = None,
  devices: Sequence[jax.Device] | None = None,
  placement: str = 'auto',
) -> FineTuned:
  """Returns a trained network as it was after its best epoch.

  Args:
    key: key of the shuffles, the dropout and the augmentation.
    model: network to start from, left as it is.
    train: images whose gradients are taken, of at least two classes.
    validation: other images, which choose the epoch that is kept.
    preprocess: images -> normalised images.
    class_weights: (K,) weights of the cross-entropy, see `losses`. A class
      without training images should have weight zero.
    settings: see `Settings`.
    objective: what is minimised; default the cross-entropy that the settings
      ask for.
    constraint: last link of the optimiser's chain, as `spectral.projection`.
    on_step: called after every update with the epoch, the number of updates
      done in it and the number of updates in an epoch.
    on_epoch: called after every epoch.
    on_resume: called with the epochs that a snapshot has already, if it has.
    snapshots: where the state is kept after every epoch and taken up again;
      None keeps nothing.
    devices: to divide each batch over, in training and in validation, see
      `batches.Feeder`.
    placement: where the training images lie, see `batches.Feeder`; no effect on
      the result beyond rounding.

  Returns:
    The networks of the best and of the last epoch, and the history of all.

  Raises:
    FloatingPointError: the loss of a batch or of the validation is not finite;
      the snapshot of the epoch before stays.
    ValueError: a label is out of range, class_weights is not (K,), the training
      images are all of one class or do not fit where they are to be placed,
      the objective refuses them or the settings, or the snapshots are of
      another training.
  """
  weights = _checked_weights(class_weights, train, validation)
  _check_classes(train)
  objective = objective or objectives.CrossEntropy.of(settings)
  objective.check(settings, train.labels, len(weights))
  feeder = batches.Feeder(
    train, settings.batch_size, devices=devices, placement=placement
  )
  run = _Run(
    key, model, preprocess, weights, settings, feeder, objective,
    constraint, snapshots,
  )
  if run.history and on_resume is not None:
    on_resume(tuple(run.history))
  try:
    while len(run.history) < settings.num_epochs and not run.should_stop:
      train_loss, seconds = run.update_all(on_step)
      trained = run.network(run.state)
      run.conclude(train_loss, seconds, evaluate(
        trained, validation, preprocess=preprocess, class_weights=weights,
        batch_size=settings.batch_size, loss_fn=objective.evaluate,
        mesh=feeder.mesh,
      ))
      if on_epoch is not None:
        on_epoch(run.history[-1])
  finally:
    if snapshots is not None:
      snapshots.close()
  return FineTuned(
    run.network(run.best, gathered=True), run.best_epoch, tuple(run.history),
    run.network(run.state, gathered=True),
  )


class _Run:
  """The state of a training between its epochs."""

  def __init__(
    self, key, model, preprocess, weights, settings, feeder, objective,
    constraint, snapshots,
  ):
    # The first two are those of a plain split.
    self._key_shuffle, self._key_dropout = jax.random.split(key)
    self._key_augment = jax.random.fold_in(key, 2)
    self._key_mixing = jax.random.fold_in(key, 3)
    self._settings, self._feeder = settings, feeder
    self._snapshots = snapshots
    self._monitor = settings.make_monitor()
    optimizer = settings.make_optimizer(feeder.steps_per_epoch)
    if constraint is not None:
      optimizer = optax.chain(optimizer, constraint)
    self._graphdef, state = steps.initial(model, optimizer, settings)
    self._step = steps.make(
      self._graphdef, optimizer, preprocess, weights, settings, feeder,
      objective,
    )
    self.history: list[Epoch] = []
    self.best: steps.State | None = None
    self.state = feeder.replicate(state)
    self._resume(state)

  @property
  def should_stop(self) -> bool:
    return self._monitor.should_stop

  @property
  def best_epoch(self) -> int:
    return self._monitor.best_epoch

  def network(
    self, state: steps.State, *, gathered: bool = False
  ) -> nnx.Module:
    """Returns the network to evaluate, with memory of its own.

    Args:
      state: on all devices.
      gathered: whether its arrays are wanted on the first device alone.
    """
    variables = steps.copy(state.evaluated())
    if gathered and self._feeder.mesh is not None:
      variables = jax.device_put(variables, self._feeder.mesh.devices[0])
    return nnx.merge(self._graphdef, *variables)

  def update_all(self, on_step) -> tuple[float, float]:
    """Runs an epoch; returns its training loss and its seconds."""
    start, sums = time.perf_counter(), np.zeros(2)
    epoch, num_steps = len(self.history), self._feeder.steps_per_epoch
    augmentation = jax.random.fold_in(self._key_augment, epoch)
    shuffle = jax.random.fold_in(self._key_shuffle, epoch)
    for i, batch in enumerate(self._feeder.epoch(shuffle)):
      number = epoch * num_steps + i
      keys = steps.Keys(
        augmentation, jax.random.fold_in(self._key_dropout, number),
        jax.random.fold_in(self._key_mixing, number),
      )
      self.state, batch_sums = self._step(
        self.state, keys, np.int32(number), batch
      )
      sums += np.asarray(batch_sums)
      if not math.isfinite(sums[0] / sums[1]):
        self._fail(sums[0] / sums[1], f'training of epoch {epoch}, step {i}', i)
      if on_step is not None:
        on_step(epoch, i + 1, num_steps)
    return float(sums[0] / sums[1]), time.perf_counter() - start

  def conclude(
    self, train_loss: float, seconds: float, validation: Evaluation
  ) -> None:
    """Ends an epoch: history, best network, replacement, snapshot."""
    number = len(self.history)
    if not math.isfinite(validation.loss):
      self._fail(validation.loss, f'validation of epoch {number}', 0)
    self.history.append(
      Epoch(number, self._rate(0), train_loss, validation, seconds)
    )
    replaces = self._monitor.observe(validation)
    if self.best_epoch == number:
      self.best = self._weights_of(self.state)
    elif replaces:
      self.state = dataclasses.replace(
        steps.copy(self.best), opt_state=self.state.opt_state
      )
    if self._snapshots is not None:
      content = {
        'history': [epoch.as_dict() for epoch in self.history],
        'best_epoch': self.best_epoch,
      }
      self._snapshots.save(number, self.state, content, self.best_epoch)

  def _weights_of(self, state: steps.State) -> steps.State:
    """Returns a copy without the state of the optimiser."""
    return steps.copy(dataclasses.replace(state, opt_state=None))

  def _resume(self, state: steps.State) -> None:
    last = None if self._snapshots is None else self._snapshots.last()
    if last is None:
      return
    self.history = [Epoch.from_dict(e) for e in last.document['history']]
    for epoch in self.history:
      self._monitor.observe(epoch.validation)
    self.state = self._placed(last.arrays(state))
    best = self.state
    if self.best_epoch != last.epoch:
      found = self._snapshots.find(self.best_epoch)
      best = self._placed(found.arrays(state))
    self.best = self._weights_of(best)

  def _placed(self, state: steps.State) -> steps.State:
    return self._feeder.replicate(jax.tree.map(jnp.array, state))

  def _rate(self, step: int) -> float:
    num_steps = self._feeder.steps_per_epoch
    number = len(self.history) * num_steps + step
    return self._settings.rate(number, num_steps)

  def _fail(self, loss: float, where: str, step: int) -> None:
    kept = ''
    if self._snapshots is not None and self.history:
      kept = (
        f' The snapshot of epoch {len(self.history) - 1} is kept in '
        f'{self._snapshots.path}.'
      )
    raise FloatingPointError(
      f'the loss is {loss} in the {where}, at the learning rate '
      f'{self._rate(step):.3g}; check the images, the class weights and the '
      f'learning rate.{kept}'
    )


def _checked_weights(
  class_weights: ArrayLike, *sets: LabelledImages
) -> jax.Array:
  """Returns the weights as float32 after checking that they fit the labels."""
  weights = np.asarray(class_weights, np.float32)
  if weights.ndim != 1 or not (weights >= 0).all():
    raise ValueError(
      f'class_weights must be (K,) and not negative, got {class_weights}.'
    )
  for data in sets:
    metrics.check_labels(data.labels, len(weights))
  return jnp.asarray(weights)


def _check_classes(train: LabelledImages) -> None:
  classes = np.unique(train.labels)
  if len(classes) < 2:
    raise ValueError(
      'the training images must be of at least two classes, got '
      f'{len(train.labels)} of class {classes[0]} alone.'
    )
