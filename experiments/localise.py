r"""Do heat maps show the defects? Every attribution method against masks.

  python -m experiments.localise --config=configs/steel_masks.py
  python -m experiments.localise --config=configs/steel_masks.py \
    --config.localisation.methods="('Grad-CAM', 'RISE')"

Trains on first use, as `experiments.train` does; the data need masks. Test
images that the network recognises are explained by every method of
`experiments.methods`; sign, blur and threshold of its maps are chosen on
validation images and judged on the test images, with 95 % bootstrap intervals.
Maps that know nothing of the network are judged the same way. Two checks stand
beside it: are the maps of a network with permuted params the same, and do the
answers change where a map says that they should?

Writes `localisation.json`, `localisation.csv`, `localisation.html` and the
folder `localisation` of figures into the run directory, and the maps to
`localisation_maps` as soon as a method is done: the same command goes on from
there, or draws the page again.
"""

import dataclasses
import json
import pathlib

from absl import app
import jax
from ml_collections import ConfigDict
import numpy as np

from experiments import evaluate
from experiments import localised_maps
from experiments import localised_measures
from experiments import methods
from experiments import runs
from experiments import train
from jaxsens import files
from jaxsens.attribution import localisation
from jaxsens.attribution import randomised_params
from jaxsens.data import image_sets
from jaxsens.reports import localisation_figures
from jaxsens.reports import localisation_page
from jaxsens.reports import tables

_KEYS = ('choice', 'methods', 'permuted', 'baselines', 'bootstrap', 'ties')


def run(config: ConfigDict, workdir: pathlib.Path) -> dict:
  """Judges the methods; returns the mean Dice by method."""
  options = config.localisation
  wanted = methods.chosen(options.methods)
  check(options)
  runs.start(config, workdir)
  key_data, key_train, _, _, key = runs.split_keys(config)
  splits = train.load_data(key_data, config)
  for name in ('validation', 'test'):
    localised_maps.check_masks(getattr(splits, name), name)
  trained = train.train_or_restore(key_train, config, workdir, lambda: splits)
  study = _study(config, workdir, splits, trained, key)
  rows, shown, refused = [], {}, {}
  for name, function in localised_maps.baselines(
    study.keys['baselines']
  ).items():
    found = localised_maps.of_baseline(
      function, study.validation, study.test
    )
    _add(rows, shown, name, 'baseline', found, study)
  for i, (name, method) in enumerate(wanted.items()):
    try:
      found = _maps_of(name, method, study)
    except methods.REFUSALS as error:
      runs.LOG.warning('%s: not done: %s', name, error)
      refused[name] = str(error)
      continue
    row = _add(rows, shown, name, 'method', found, study)
    dice = row['measures']['Dice']
    runs.LOG.info(
      '%d of %d, %s: Dice %.3f (%.3f to %.3f), %.3g images/s', i + 1,
      len(wanted), name, dice['value'], dice['lower'], dice['upper'],
      row['images_per_second'],
    )
  if len(refused) == len(wanted):
    raise ValueError(f'no method explains this network: {refused}')
  result = _result(config, trained, splits, study, rows, refused)
  _write(workdir, result, _examples(study, shown))
  best = result['comparison']
  runs.LOG.info(
    'Best: %s, Dice %.3f, %.3f above %s', best['best'], best['dice'],
    best['difference'], best['baseline'],
  )
  runs.LOG.info('Page: %s', workdir / 'localisation.html')
  return {row['method']: row['measures']['Dice']['value'] for row in rows}


def check(options: ConfigDict) -> None:
  """Raises ValueError for options that make no sense."""
  least = {
    'num_steps': 1, 'num_masks': 1, 'num_references': 1, 'chunk_size': 1,
    'num_resamples': 1, 'num_validation_images': 0, 'num_images': 0,
    'num_sanity': 0, 'num_faithful': 0, 'num_faithful_steps': 1,
    'num_examples': 1,
  }
  for name, lowest in least.items():
    if options[name] < lowest:
      raise ValueError(
        f'localisation.{name} must be at least {lowest}, got {options[name]}.'
      )
  for name in ('signs', 'blurs', 'thresholds'):
    if not len(options[name]):
      raise ValueError(f'localisation.{name} must not be empty.')
  unknown = set(options.signs) - set(localisation.SIGNS)
  if unknown or min(options.blurs) < 0:
    raise ValueError(
      f'localisation.signs must be of {localisation.SIGNS} and blurs not be '
      f'negative, got {tuple(options.signs)} and {tuple(options.blurs)}.'
    )
  if options.replacement not in ('blur', 'black'):
    raise ValueError(
      "localisation.replacement must be 'blur' or 'black', got "
      f'{options.replacement!r}.'
    )


def _study(config, workdir, splits, trained, key):
  options, classifier = config.localisation, trained.classifier
  keys = dict(zip(_KEYS, jax.random.split(key, len(_KEYS)), strict=True))
  validation, test = (
    localised_maps.choose(
      keys['choice'], classifier, getattr(splits, name), number, name
    ) for name, number in (
      ('validation', options.num_validation_images),
      ('test', options.num_images),
    )
  )
  rows = np.asarray(jax.random.permutation(keys['choice'], len(splits.train)))
  references = splits.train.take(np.sort(rows[:options.num_references]))
  context = methods.Context(
    keys['methods'], classifier,
    image_sets.resize_all(references.images, classifier.image_size),
    layer=localised_maps.choose_layer(classifier, options.layer),
    quantity=options.quantity, num_steps=options.num_steps,
    num_masks=options.num_masks,
    # One shape for all, so that nothing is compiled while it is timed.
    chunk_size=min(
      options.chunk_size, len(validation.images), len(test.images)
    ),
  )
  folder = workdir / 'localisation_maps'
  files.make_directory(folder)
  arrays = jax.tree.leaves(classifier.params)
  network = localised_maps.digest(
    np.concatenate([np.ravel(x) for x in arrays]).astype(np.float32)
  )
  return localised_measures.Study(
    keys, options, context, validation, test, classifier.class_names, network,
    folder,
  )


def _maps_of(name, method, study):
  """Returns saved heat maps, or computes and saves them."""
  number = min(study.options.num_sanity, len(study.test.images))
  path = localised_maps.path_of(study.folder, name, [
    number, *localised_maps.decisive(
      study.context, study.network, study.validation, study.test
    ),
  ])
  found = localised_maps.saved(path)
  if found is None:
    runs.LOG.info('%s ...', name)
    classifier = study.context.classifier
    permuted = dataclasses.replace(
      classifier, params=randomised_params.permuted(
        study.keys['permuted'], classifier.params
      ),
    )
    found = localised_maps.compute(
      method, study.context, permuted, study.validation, study.test, number
    )
    localised_maps.save(path, found)
  return found


def _add(rows, shown, name, kind, found, study):
  """Adds the row of a method and the maps of it that a figure shows."""
  options = study.options
  path = localised_maps.path_of(study.folder, name, [
    localised_maps.digest(x)
    for x in (found.validation, found.test, found.randomised)
  ] + [
    [study.network, study.test.names, study.validation.names], {
      field: value for field, value in options.to_dict().items()
      if field not in ('methods', 'num_examples', 'chunk_size')
    },
  ]).with_suffix('.json')
  if path.is_file():
    row = json.loads(path.read_text())
  else:
    row = tables.plain(localised_measures.measure(name, kind, found, study))
    runs.write_json(path, row)
  rows.append(row)
  chosen = _example_rows(study)
  shown[name] = localisation.smooth(
    found.test[chosen], sign=row['choice']['sign'], blur=row['choice']['blur']
  )
  return row


def _example_rows(study):
  """Returns test images that take turns among the classes."""
  labels = study.test.labels
  turns = np.array([(labels[:i] == k).sum() for i, k in enumerate(labels)])
  order = np.lexsort((labels, turns))
  return order[:study.options.num_examples]


def _examples(study, shown):
  chosen = _example_rows(study)
  return {
    'images': study.test.images[chosen], 'masks': study.test.masks[chosen],
    'titles': [study.class_names[k] for k in study.test.labels[chosen]],
    'maps': shown,
  }


def _result(config, trained, splits, study, rows, refused):
  options, test = study.options, study.test
  share = test.masks.mean((1, 2))
  facts = evaluate.describe(config, trained, splits.test)
  del facts['assessed on']
  facts |= {
    'judged on': (
      f'{len(test.images)} images of the {test.num_recognised} recognised of '
      f'{test.num_all} test images: {splits.test.description}'
    ),
    'thresholds chosen on': (
      f'{len(study.validation.images)} images of the '
      f'{study.validation.num_recognised} recognised of '
      f'{study.validation.num_all} validation images'
    ),
    'without a mask of their class': (
      f'{test.num_without_mask + study.validation.num_without_mask} images '
      'left out'
    ),
    'explained': f'{options.quantity} of the predicted class',
    'layer of activation maps': study.context.layer or 'the last with a map',
    'steps and masks': (
      f'{options.num_steps} steps or draws (8 times as many at most where they '
      f'adapt), about {options.num_masks} masks'
    ),
    'defect covers': f'{100 * share.mean():.1f} % of an image on average',
  }
  if trained.metadata.metrics.get('validation_accuracy') is not None:
    facts['validation accuracy'] = (
      f'{trained.metadata.metrics["validation_accuracy"]:.3f}'
    )
  return {
    'title': f'Do heat maps of {config.model.name} show the defects?',
    'facts': facts, 'class_names': list(study.class_names),
    'num_images': len(test.images),
    'num_validation': len(study.validation.images),
    'grid': {
      name: list(options[name]) for name in ('signs', 'blurs', 'thresholds')
    },
    'replacement': options.replacement,
    'everything_dice': float(np.mean(2 * share / (1 + share))),
    'rows': rows, 'refused': refused,
    'comparison': localised_measures.compare(rows, study),
    'names': list(test.names), 'labels': test.labels,
    'level': localised_measures.LEVEL,
  }


def _write(workdir, result, examples):
  figures = localisation_figures.draw_all(result, examples)
  folder = workdir / 'localisation'
  files.make_directory(folder)
  for stem, png in figures.items():
    files.write_bytes(folder / f'{stem}.png', png)
  runs.write_json(workdir / 'localisation.json', tables.plain(result))
  files.write_text(
    workdir / 'localisation.csv', localised_measures.as_csv(result['rows'])
  )
  files.write_text(
    workdir / 'localisation.html', localisation_page.render(result, figures)
  )


if __name__ == '__main__':
  app.run(runs.make_main(run))
