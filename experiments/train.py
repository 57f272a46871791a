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
from jaxsens.data import sources
from jaxsens.data.synthetic import weld as synthetic_weld
from jaxsens.models import inference
from jaxsens.models import registry
from jaxsens.training import checkpoints
from jaxsens.training import loop
from jaxsens.training import metrics
from jaxsens.weights import convert
from jaxsens.weights import manifest

# Learning rates for random initial values and for pretrained ones.
_RATES = {False: 1e-3, True: 1e-4}
_GRAY = classifiers.Normalise(mean=(0.5,), std=(0.5,))
# What `config.data` says about the analysis and not about the data.
_NOT_DATA = ('num_images', 'frame_width', 'only_recognised')


@dataclasses.dataclass(frozen=True)
class Trained:
  """A classifier and how it came about.

  Attributes:
    classifier: with batch norm folded for inference.
    network: as it was trained.
    metadata: of its checkpoint; `metrics` has the validation scores.
    restored: whether the checkpoint was there already.
  """

  classifier: classifiers.Classifier
  network: nnx.Module
  metadata: checkpoints.Metadata
  restored: bool


def load_data(key: jax.Array, config: ConfigDict) -> image_sets.Splits:
  """Returns the images that a config asks for."""
  name = source_name(config)
  if name != 'weld':
    options = {
      k: v for k, v in config.data.items() if k not in ('name', *_NOT_DATA)
    }
    return sources.load(
      name, key, **(options | {'root': config.data.root or None})
    )
  groups = config.data.held_out_groups
  return sources.load(
    name, key,
    root=config.data.root or None,
    size_of_synthetic=_frame_size(config.data.synthetic_width),
    num_synthetic_per_class=config.data.synthetic_per_class,
    validation_fraction=config.data.validation_fraction,
    held_out_groups=groups.split(',') if groups else None,
    combine_synthetic=config.data.combine_synthetic,
  )


def source_name(config: ConfigDict) -> str:
  """Returns the data source of a config, 'weld' where it names none."""
  return config.data.get('name', 'weld')


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
    if config.training.num_epochs:
      _fit(key_fit, model, pretrained, config, path, digest, splits())
    else:
      _keep(model, pretrained, config, path, digest, splits())
  model, metadata = checkpoints.restore(
    path, nnx.eval_shape(lambda: _network(key_init, config)),
    expected={'config_hash': digest},
  )
  size = (config.model.image_size,) * 2
  classifier = inference.classifier(
    model, preprocess=_normalise(config), class_names=metadata.class_names,
    image_size=size, channels=metadata.channels,
    dtype=jnp.dtype(config.precision),
  )
  return Trained(classifier, model, metadata, restored)


def training_hash(config: ConfigDict) -> str:
  """Returns a hash of what decides the trained network."""
  model = config.model.to_dict()
  if config.training.image_size:
    del model['image_size']
  data = {
    k: v for k, v in config.data.items()
    if k not in _NOT_DATA
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
    'Training %s on %d images, validating on %d: %s', config.model.name,
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
      key, model, train, validation, preprocess=_normalise(config),
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
  data = splits.train.description
  _save(path, tuned.model, config, size, data, digest, best, {
    'pretrained': pretrained,
    'learning_rate': settings['learning_rate'],
    'best_epoch': tuned.best_epoch,
    'training_seconds': time.perf_counter() - start,
    'num_train': len(train.labels),
    'num_validation': len(validation.labels),
    'history': [epoch.as_dict() for epoch in tuned.history],
  })


def _keep(model, pretrained, config, path, digest, splits) -> None:
  """Saves pretrained weights as they are, with their scores.

  They are scored on the validation set, or on the test set where that is empty.
  """
  if not pretrained:
    raise ValueError(
      f'training.num_epochs is 0 and there are no weights of '
      f'{config.model.name}: model.init is {config.model.init!r}'
    )
  part = 'validation' if len(splits.validation) else 'test'
  chosen = getattr(splits, part)
  size = (config.model.image_size,) * 2
  scored = loop.evaluate(
    model,
    loop.LabelledImages(
      image_sets.resize_all(chosen.images, size), chosen.labels
    ),
    preprocess=_normalise(config),
    class_weights=[1.0] * len(chosen.class_names),
  )
  data = f'none in this run, scored on {len(chosen)} of {chosen.description}'
  _save(path, model, config, size, data, digest, scored, {
    'pretrained': True,
    'num_train': 0,
    'num_validation': len(chosen),
  })


def _save(path, model, config, size, data, digest, scored, metrics) -> None:
  normalise = _normalise(config)
  source = sources.find(source_name(config))
  checkpoints.save(path, model, checkpoints.Metadata(
    architecture=config.model.name, class_names=source.class_names,
    image_size=size, channels=source.channels, mean=normalise.mean,
    std=normalise.std, data=data, config_hash=digest,
    metrics={
      'validation_accuracy': scored.scores.accuracy,
      'validation_loss': scored.loss,
      'validation': scored.scores.as_dict(),
      **metrics,
    },
  ))


def _normalise(config) -> classifiers.Normalise:
  channels = sources.find(source_name(config)).channels
  return classifiers.Normalise(_GRAY.mean * channels, _GRAY.std * channels)


def _show(bar, epoch) -> None:
  bar.update()
  bar.write(
    f'epoch {epoch.epoch + 1}: train loss {epoch.train_loss:.3f}, validation '
    f'loss {epoch.validation.loss:.3f}, accuracy '
    f'{epoch.validation.scores.accuracy:.3f}'
  )


def _network(key, config):
  source = sources.find(source_name(config))
  return registry.create(
    config.model.name, key, len(source.class_names), in_channels=source.channels,
    dropout=config.model.dropout,
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
  gray = sources.find(source_name(config)).channels == 1
  if gray and state_dict['conv1.weight'].shape[1] == 3:
    state_dict = convert.gray_stem(
      state_dict, rgb=classifiers.IMAGENET, gray=_GRAY
    )
  loaded = convert.load_torch_names(
    network, state_dict, replace_head=config.training.num_epochs > 0,
    head=registry.find(config.model.name).head,
  )
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
