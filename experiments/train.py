"""Trains the classifier of a config, or restores the one trained before.

  python -m experiments.train --config=configs/weld.py

`experiments.gpc` does the same on first use. The checkpoint lies in the run
directory; a run with other settings of the analysis but the same data, model
and training takes it over from there.
"""

from collections.abc import Callable
import dataclasses
import hashlib
import json
import pathlib
import shutil
import time

from absl import app
from flax import nnx
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import tqdm

from experiments import runs
from jaxsens import classifiers
from jaxsens.data import image_sets
from jaxsens.data import weld
from jaxsens.data.synthetic import weld as synthetic_weld
from jaxsens.models import registry
from jaxsens.models import resnet
from jaxsens.training import checkpoints
from jaxsens.training import loop
from jaxsens.training import metrics
from jaxsens.weights import convert
from jaxsens.weights import manifest

# Learning rates for random initial values and for pretrained ones.
_RATES = {False: 1e-3, True: 1e-4}
_GRAY = classifiers.Normalise(mean=(0.5,), std=(0.5,))


@dataclasses.dataclass(frozen=True)
class Trained:
  """A classifier and how it came about.

  Attributes:
    classifier: with batch norm folded for inference.
    metadata: of its checkpoint; `metrics` has the validation scores.
    restored: whether the checkpoint was there already.
  """

  classifier: classifiers.Classifier
  metadata: checkpoints.Metadata
  restored: bool


def load_data(key: jax.Array, config: ConfigDict) -> image_sets.Splits:
  """Returns the frames that a config asks for."""
  groups = config.data.held_out_groups
  return weld.load_weld(
    key,
    root=config.data.root or None,
    size_of_synthetic=_frame_size(config.data.synthetic_width),
    num_synthetic_per_class=config.data.synthetic_per_class,
    validation_fraction=config.data.validation_fraction,
    held_out_groups=groups.split(',') if groups else None,
    combine_synthetic=config.data.combine_synthetic,
  )


def train_or_restore(
  key: jax.Array,
  config: ConfigDict,
  workdir: pathlib.Path,
  splits: Callable[[], image_sets.Splits],
) -> Trained:
  """Returns the classifier of a config.

  Args:
    key: of the initial values, the shuffles and the dropout.
    config: `data`, `model`, `training` and `seed` decide which network it is.
    workdir: the checkpoint lies in `checkpoint` below it.
    splits: returns the data; called only if there is something to train.

  Raises:
    ValueError: the run directory holds a checkpoint of another config.
  """
  if config.precision not in ('float32', 'bfloat16'):
    raise ValueError(
      "precision must be 'float32' or 'bfloat16', got "
      f'{config.precision!r}'
    )
  key_init, key_fit = jax.random.split(key)
  path = workdir / 'checkpoint'
  digest = training_hash(config)
  restored = checkpoints.exists(path) or _take_over(path, digest)
  if not restored:
    model, pretrained = _initial(key_init, config)
    _fit(key_fit, model, pretrained, config, path, digest, splits())
  model, metadata = checkpoints.restore(
    path, nnx.eval_shape(lambda: _network(key_init, config)),
    expected={'config_hash': digest},
  )
  size = (config.model.image_size,) * 2
  classifier = resnet.classifier(
    model, preprocess=_GRAY, class_names=metadata.class_names,
    image_size=size, dtype=jnp.dtype(config.precision),
  )
  return Trained(classifier, metadata, restored)


def training_hash(config: ConfigDict) -> str:
  """Returns a hash of what decides the trained network."""
  model = config.model.to_dict()
  if config.training.image_size:
    del model['image_size']
  data = {
    k: v for k, v in config.data.items()
    if k not in ('num_images', 'frame_width')
  }
  parts = [config.seed, data, model, config.training.to_dict()]
  text = json.dumps(parts, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def _fit(key, model, pretrained, config, path, digest, splits) -> None:
  size = (config.training.image_size or config.model.image_size,) * 2
  train, validation = (
    loop.LabelledImages(image_sets.resize_all(part.images, size), part.labels)
    for part in (splits.train, splits.validation)
  )
  runs.LOG.info(
    'Training %s on %d frames, validating on %d: %s', config.model.name,
    len(train.labels), len(validation.labels), splits.train.description,
  )
  settings = {
    field: value for field, value in config.training.items()
    if field != 'image_size'
  }
  if not settings['learning_rate']:
    settings['learning_rate'] = _RATES[pretrained]
  start = time.perf_counter()
  with tqdm.tqdm(total=settings['num_epochs'], unit='epoch') as bar:
    tuned = loop.fine_tune(
      key, model, train, validation, preprocess=_GRAY,
      class_weights=metrics.balanced_class_weights(
        train.labels, len(splits.train.class_names)
      ),
      settings=loop.Settings(**settings),
      on_step=lambda epoch, done, total: bar.set_postfix_str(
        f'step {done}/{total}'
      ),
      on_epoch=lambda epoch: _show(bar, epoch),
    )
  best = tuned.history[tuned.best_epoch].validation
  checkpoints.save(path, tuned.model, checkpoints.Metadata(
    architecture=config.model.name,
    class_names=splits.train.class_names,
    image_size=size, channels=1, mean=_GRAY.mean, std=_GRAY.std,
    data=splits.train.description, config_hash=digest,
    metrics={
      'validation_accuracy': best.scores.accuracy,
      'validation_loss': best.loss,
      'validation': best.scores.as_dict(),
      'pretrained': pretrained,
      'learning_rate': settings['learning_rate'],
      'best_epoch': tuned.best_epoch,
      'training_seconds': time.perf_counter() - start,
      'num_train': len(train.labels),
      'num_validation': len(validation.labels),
      'history': [epoch.as_dict() for epoch in tuned.history],
    },
  ))


def _show(bar, epoch) -> None:
  bar.update()
  bar.write(
    f'epoch {epoch.epoch + 1}: train loss {epoch.train_loss:.3f}, validation '
    f'loss {epoch.validation.loss:.3f}, accuracy '
    f'{epoch.validation.scores.accuracy:.3f}'
  )


def _network(key, config):
  return registry.find(config.model.name)(
    key, len(weld.CLASS_NAMES), in_channels=1, dropout=config.model.dropout
  )


def _initial(key, config):
  """Returns the network and whether its values are pretrained."""
  network = _network(key, config)
  if config.model.init == 'random':
    return network, False
  given = None if config.model.init == 'auto' else config.model.init
  path = manifest.find_pretrained(config.model.name, path=given)
  if path is None:
    runs.LOG.info('No pretrained weights on this machine; random initial ones')
    return network, False
  state_dict = convert.read_state_dict(path)
  if state_dict['conv1.weight'].shape[1] == 3:
    state_dict = convert.gray_stem(
      state_dict, rgb=classifiers.IMAGENET, gray=_GRAY
    )
  loaded = convert.load_torch_names(network, state_dict, replace_head=True)
  runs.LOG.info('Initial weights from %s; new: %s', path, loaded.fresh)
  return loaded.model, True


def _take_over(path: pathlib.Path, digest: str) -> bool:
  """Copies a checkpoint of the same training from a neighbouring run."""
  for other in sorted(path.parent.parent.glob('*/checkpoint')):
    if checkpoints.exists(other) and _trained_as(other, digest):
      runs.LOG.info('Taking over the trained network of %s', other.parent)
      partial = path.with_name('checkpoint.partial')
      shutil.rmtree(partial, ignore_errors=True)
      shutil.copytree(other, partial)
      partial.rename(path)
      return True
  return False


def _frame_size(width: int) -> tuple[int, int]:
  return synthetic_weld.frame_size(width)


def _trained_as(path, digest) -> bool:
  try:
    return checkpoints.read_metadata(path).config_hash == digest
  except ValueError as error:
    runs.LOG.warning('Passing over a neighbouring checkpoint: %s', error)
    return False


def run(config: ConfigDict, workdir: pathlib.Path) -> dict:
  """Trains or restores; returns the metrics of the checkpoint."""
  key_data, key_train = runs.split_keys(config)[:2]
  trained = train_or_restore(
    key_train, config, workdir, lambda: load_data(key_data, config)
  )
  runs.LOG.info(
    'Validation accuracy %.3f; checkpoint in %s',
    trained.metadata.metrics['validation_accuracy'], workdir / 'checkpoint',
  )
  return dict(trained.metadata.metrics)


if __name__ == '__main__':
  app.run(runs.make_main(run))
