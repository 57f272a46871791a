"""Progress bar, log and event files of a training."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from experiments import runs
from experiments import training_fields
from jaxsens.training import events
from jaxsens.training import loop

_NUM_EXAMPLES = 16


class Watched:
  """Shows a training while it runs: progress bar, log and event files."""

  def __init__(self, workdir, config, settings, train):
    self._directory = workdir / 'events'
    self._writes = training_fields.option(config, 'tensorboard')
    self._writer: events.Writer | None = None
    self._settings, self._train = settings, train
    self._bar = tqdm.tqdm(total=settings.num_epochs, unit='epoch')

  def __enter__(self):
    return self

  def __exit__(self, *error):
    self._bar.close()

  def show_step(self, epoch: int, done: int, total: int) -> None:
    """Shows how far the epoch is."""
    self._bar.set_postfix_str(f'step {done}/{total}')

  def resume(self, history: Sequence[loop.Epoch]) -> None:
    """Takes the epochs that were there before."""
    runs.LOG.info('Going on after epoch %d', len(history))
    self._bar.update(len(history))
    if self._writes:
      self._writer = events.Writer(self._directory, first_step=len(history))

  def show_epoch(self, epoch: loop.Epoch) -> None:
    """Shows and writes a finished epoch."""
    scores = epoch.validation.scores
    self._bar.update()
    self._bar.write(
      f'epoch {epoch.epoch + 1}: train loss {epoch.train_loss:.3f}, validation '
      f'loss {epoch.validation.loss:.3f}, accuracy {scores.accuracy:.3f}, '
      f'macro F1 {scores.f1:.3f}'
    )
    if not self._writes:
      return
    if self._writer is None:
      self._begin()
    self._writer.scalars(epoch.epoch, {
      'train/loss': epoch.train_loss,
      'train/learning_rate': epoch.learning_rate,
      'train/seconds': epoch.seconds,
      'validation/loss': epoch.validation.loss,
      'validation/accuracy': scores.accuracy,
      'validation/balanced_accuracy': scores.balanced_accuracy,
      'validation/macro_f1': scores.f1,
    })

  def _begin(self) -> None:
    """Begins the event file with training images as they are trained on."""
    self._writer = events.Writer(self._directory)
    indices = np.arange(min(_NUM_EXAMPLES, len(self._train.labels)))
    images = self._settings.make_augmentation()(
      jax.random.key(0), indices, jnp.asarray(self._train.images[indices])
    )
    self._writer.image(0, 'train/examples', events.grid_image(images))

  def finish(
    self, tuned: loop.FineTuned, class_names: tuple[str, ...]
  ) -> None:
    """Writes the confusion matrix of the best epoch."""
    if self._writer is not None:
      best = tuned.history[tuned.best_epoch].validation.scores
      self._writer.image(
        tuned.best_epoch, 'validation/confusion',
        events.confusion_image(best.confusion, class_names),
      )
