r"""Trains the classifier of a config, or restores the one trained before.

  python -m experiments.train --config=configs/weld.py

`experiments.gpc` does the same on first use. The run directory holds two
checkpoints, `checkpoint` with the network of the best epoch, which is what
everything else reads, and `last` with that of the last one; a run with other
settings of the analysis but the same data, model and training takes them over
from there. A training that was interrupted, however hard, goes on from the
snapshot of its last epoch (`training` in the run directory, written while the
next epoch runs) and ends with bitwise the same network; then the snapshots are
removed. `events` there is for TensorBoard.

  python -m experiments.train --config=configs/steel.py \
    --config.training.num_runs=5

trains with the seeds 0 to 4, each in a directory of its own, and writes mean,
standard deviation and interval to `runs.json` and `runs.txt`.
"""

from collections.abc import Callable
import dataclasses
import pathlib
import time

from absl import app
from flax import nnx
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np

from experiments import neighbours
from experiments import networks
from experiments import runs
from experiments import training_fields
from experiments import watching
from jaxsens import classifiers
from jaxsens import files
from jaxsens.data import image_sets
from jaxsens.data import sources
from jaxsens.data.synthetic import weld as synthetic_weld
from jaxsens.models import inference
from jaxsens.training import checkpoints
from jaxsens.training import loop
from jaxsens.training import repeats
from jaxsens.training import snapshots

training_hash = training_fields.training_hash


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
  name = training_fields.source_name(config)
  if name != 'weld':
    options = {
      k: v for k, v in config.data.items()
      if k not in ('name', *training_fields.NOT_DATA)
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
    skip_unreadable=config.data.get('skip_unreadable', False),
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
    ValueError: the run directory holds a checkpoint or snapshots of another
      config, or a field of the config makes no sense.
  """
  training_fields.check(config)
  key_init, key_fit = jax.random.split(key)
  path = workdir / 'checkpoint'
  digest = training_fields.training_hash(config)
  kept = _snapshots(config, workdir)
  found = checkpoints.exists(path)
  restored = found or neighbours.take_over(path, digest)
  if restored and not neighbours.trained_as(path, digest):
    # Names the fields, where they are known; below only the hash is.
    kept.last()
  elif restored and (not found or kept.has_remains()):
    kept.finish()
  if not restored:
    model, pretrained = networks.initial(key_init, config)
    if config.training.num_epochs:
      _fit(key_fit, model, pretrained, config, workdir, digest, splits(), kept)
    else:
      _keep(model, pretrained, config, path, digest, splits())
    kept.finish()
  model, metadata = checkpoints.restore(
    path, nnx.eval_shape(lambda: networks.create(key_init, config)),
    expected={'config_hash': digest},
  )
  size = training_fields.image_size(config)
  classifier = inference.classifier(
    model, preprocess=networks.normalise(config),
    class_names=metadata.class_names, image_size=size,
    channels=metadata.channels,
    dtype=jnp.dtype(config.precision),
    answers='log_kernels' if 'duq' in config else 'logits',
  )
  return Trained(classifier, model, metadata, restored)


def _fit(
  key, model, pretrained, config, workdir, digest, splits, kept
) -> None:
  for name, part in (
    ('training', splits.train), ('validation', splits.validation)
  ):
    if not len(part):
      raise ValueError(
        f'no {name} images in {part.description}: every class needs some for '
        'each part'
      )
  size = training_fields.training_size(config)
  train, validation = (
    loop.LabelledImages(image_sets.resize_all(part.images, size), part.labels)
    for part in (splits.train, splits.validation)
  )
  train = _part_of(key, train, training_fields.option(config, 'fraction'))
  runs.LOG.info(
    'Training %s on %d images, validating on %d: %s', config.model.name,
    len(train.labels), len(validation.labels), splits.train.description,
  )
  class_names = splits.train.class_names
  weights = training_fields.class_weights(config, train.labels, class_names)
  settings = training_fields.settings(config, pretrained)
  watched = watching.Watched(workdir, config, settings, train)
  start = time.perf_counter()
  with watched:
    tuned = loop.fine_tune(
      key, model, train, validation, preprocess=networks.normalise(config),
      class_weights=weights,
      settings=settings,
      objective=training_fields.objective(config),
      constraint=networks.constraint(key, model, config),
      on_step=watched.show_step,
      on_epoch=watched.show_epoch,
      on_resume=watched.resume,
      snapshots=kept,
      placement=training_fields.option(config, 'placement'),
    )
  watched.finish(tuned, class_names)
  data = splits.train.description
  metrics = {
    'pretrained': pretrained,
    'learning_rate': settings.learning_rate,
    'best_epoch': tuned.best_epoch,
    'training_seconds': time.perf_counter() - start,
    'num_train': len(train.labels),
    'num_validation': len(validation.labels),
    'history': [epoch.as_dict() for epoch in tuned.history],
  }
  # The best one last: where it is, the training is over.
  for name, model, epoch in (
    ('last', tuned.last, len(tuned.history) - 1),
    ('checkpoint', tuned.model, tuned.best_epoch),
  ):
    scored = tuned.history[epoch].validation
    _save(workdir / name, model, config, size, data, digest, scored, {
      'epoch': epoch, **metrics
    })


def _part_of(key, data, fraction) -> loop.LabelledImages:
  """Returns a share of the images of each class, at least one of each.

  A larger share of the same key holds the smaller ones.
  """
  if fraction == 1:
    return data
  order = np.asarray(jax.random.permutation(key, len(data.labels)))
  chosen = [
    of_class[: max(1, round(fraction * len(of_class)))]
    for of_class in (
      order[data.labels[order] == k] for k in np.unique(data.labels)
    )
  ]
  kept = np.sort(np.concatenate(chosen))
  return loop.LabelledImages(data.images[kept], data.labels[kept])


def _snapshots(config, workdir) -> snapshots.Snapshots:
  return snapshots.Snapshots(
    workdir / 'training', training_fields.decisive(config)
  )


def _keep(model, pretrained, config, path, digest, splits) -> None:
  """Saves pretrained weights as they are, with their scores.

  They are scored on the validation set, or on the test set where that is empty.
  """
  if not pretrained:
    raise ValueError(
      f'training.num_epochs is 0 and there are no weights of '
      f'{config.model.name}: model.init is {config.model.init!r}'
    )
  if 'duq' in config:
    raise ValueError('kernels are trained: training.num_epochs must not be 0')
  part = 'validation' if len(splits.validation) else 'test'
  chosen = getattr(splits, part)
  size = training_fields.image_size(config)
  scored = loop.evaluate(
    model,
    loop.LabelledImages(
      image_sets.resize_all(chosen.images, size), chosen.labels
    ),
    preprocess=networks.normalise(config),
    class_weights=[1.0] * len(chosen.class_names),
  )
  data = f'none in this run, scored on {len(chosen)} of {chosen.description}'
  _save(path, model, config, size, data, digest, scored, {
    'pretrained': True,
    'num_train': 0,
    'num_validation': len(chosen),
  })


def _save(path, model, config, size, data, digest, scored, metrics) -> None:
  normalise = networks.normalise(config)
  source = sources.find(training_fields.source_name(config))
  checkpoints.save(path, model, checkpoints.Metadata(
    architecture=config.model.name,
    class_names=training_fields.class_names(config), image_size=size,
    channels=source.image_channels(config.data), mean=normalise.mean,
    std=normalise.std, data=data, config_hash=digest,
    options=networks.options(config),
    metrics={
      'validation_accuracy': scored.scores.accuracy,
      'validation_loss': scored.loss,
      'validation': scored.scores.as_dict(),
      **metrics,
    },
  ))


def _frame_size(width: int) -> tuple[int, int]:
  return synthetic_weld.frame_size(width)


def run(config: ConfigDict, workdir: pathlib.Path) -> dict:
  """Trains or restores, once or with several seeds; returns the metrics."""
  num_runs = training_fields.option(config, 'num_runs')
  if num_runs < 1:
    raise ValueError(f'training.num_runs must be at least 1, got {num_runs}')
  if num_runs == 1:
    return _run_once(config, workdir)
  seeds = range(config.seed, config.seed + num_runs)
  found = []
  for seed in seeds:
    one = config.copy_and_resolve_references()
    one.seed = seed
    found.append(_run_once(one, workdir / f'seed_{seed}'))
  return _summarise(list(seeds), found, workdir)


def _run_once(config, workdir) -> dict:
  key_data, key_train = runs.split_keys(config)[:2]
  trained = train_or_restore(
    key_train, config, workdir, lambda: load_data(key_data, config)
  )
  runs.LOG.info(
    'Validation accuracy %.3f; checkpoint in %s',
    trained.metadata.metrics['validation_accuracy'], workdir / 'checkpoint',
  )
  return dict(trained.metadata.metrics)


def _summarise(seeds, found, workdir) -> dict:
  """Writes and returns what the runs say together."""
  measures = {
    'accuracy': [run['validation_accuracy'] for run in found],
    'macro_f1': [run['validation']['f1'] for run in found],
    'balanced_accuracy': [run['validation']['balanced_accuracy']
                          for run in found],
    'loss': [run['validation_loss'] for run in found],
  }
  summaries = {
    f'validation_{name}': repeats.summarise(values)
    for name, values in measures.items()
  }
  text = repeats.table(summaries)
  summary = {
    'seeds': seeds,
    'measures': {name: one.as_dict() for name, one in summaries.items()},
  }
  runs.write_json(workdir / 'runs.json', summary)
  files.write_text(workdir / 'runs.txt', text + '\n')
  runs.LOG.info('%d runs:\n%s', len(seeds), text)
  return summary


if __name__ == '__main__':
  app.run(runs.make_main(run))
