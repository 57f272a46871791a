"""Compares initial values: the same network from weights of others and random.

  python -m experiments.pretrained_vs_random \\
    --config=configs/pretrained_vs_random.py

Every training differs from its partner in `model.init` alone: seed, split,
images, order and settings are the same. Each has a directory of its own and is
not repeated; networks are scored on the test images. Writes `comparison.json`,
`comparison.csv` and `comparison.html`: accuracy, macro F1, AUC, likelihood and
calibration by share of the training images with intervals over seeds, tests
paired by seed (Student) and by image (McNemar, exact), and the Sobol indices of
the networks of all images.
"""

from collections.abc import Sequence
import csv
import dataclasses
import io
import itertools
import json
import pathlib

from absl import app
from ml_collections import ConfigDict
import numpy as np
from scipy import stats

from experiments import evaluate
from experiments import gpc
from experiments import runs
from experiments import train
from jaxsens import assessment
from jaxsens import files
from jaxsens.data import image_sets
from jaxsens.reports import comparison_page
from jaxsens.training import repeats

MEASURES = (
  'accuracy', 'F1 macro', 'AUC', 'negative log-likelihood', 'ECE',
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Run:
  """One training and its scores on the test images.

  Attributes:
    init: initial values.
    fraction: share of the training images.
    seed: of everything random.
    measures: by name, see `MEASURES`.
    correct: (N,) whether each test image is recognised.
    totals: total index of each factor by name, mean over the images that were
      analysed; empty where that was not asked for.
  """

  init: str
  fraction: float
  seed: int
  measures: dict[str, float]
  correct: np.ndarray
  totals: dict[str, float]


def run(config: ConfigDict, workdir: pathlib.Path) -> dict:
  """Trains, scores and compares; returns what was written."""
  runs.start(config, workdir)
  asked = config.comparison
  if len(asked.inits) != 2:
    raise ValueError(f'comparison.inits must be two, got {asked.inits}')
  found = []
  for fraction, number, i in itertools.product(
    asked.fractions, range(asked.num_seeds), range(2)
  ):
    one = _config(config, asked.inits[i], fraction, config.seed + number)
    folder = workdir / f'{i}_{fraction:g}_{one.seed}'
    runs.LOG.info(
      'From %s, %g of the images, seed %d', asked.inits[i], fraction, one.seed
    )
    sensitive = asked.sensitivity and fraction == max(asked.fractions)
    found.append((i, _run(one, folder, asked.inits[i], fraction, sensitive)))
  pair = [[r for i, r in found if i == k] for k in range(2)]
  result = {
    'inits': list(asked.inits),
    'rows': [
      compare(
        [r for r in pair[0] if r.fraction == fraction],
        [r for r in pair[1] if r.fraction == fraction],
      )
      for fraction in asked.fractions
    ],
  }
  _write(workdir, result)
  return result


def compare(first: Sequence[Run], second: Sequence[Run]) -> dict:
  """Returns what two kinds of initial values differ by, at one share.

  Args:
    first, second: runs with the same seeds in the same order.

  Returns:
    'fraction'; 'measures': {name: {'values': two summaries, 'difference':
    summary of second - first, 'p': of a paired t-test, None where all
    differences are equal or there is one}}; 'mcnemar': counts of images that
    only the first or only the second recognises, over all seeds, and the exact
    p-value of each seed; 'totals': {factor: two summaries}.
  """
  if [r.seed for r in first] != [r.seed for r in second]:
    raise ValueError('runs must have the same seeds in the same order.')
  measures = {}
  for name in first[0].measures:
    values = [[r.measures[name] for r in part] for part in (first, second)]
    measures[name] = _paired(values)
  only = [
    (int(np.sum(a.correct & ~b.correct)), int(np.sum(b.correct & ~a.correct)))
    for a, b in zip(first, second, strict=True)
  ]
  return {
    'fraction': first[0].fraction,
    'num_seeds': len(first),
    'measures': measures,
    'mcnemar': {
      'only_first': sum(a for a, _ in only),
      'only_second': sum(b for _, b in only),
      'p': [
        float(stats.binomtest(a, a + b).pvalue) if a + b else 1.0
        for a, b in only
      ],
    },
    'totals': {
      factor: _paired([
        [r.totals[factor] for r in part] for part in (first, second)
      ])
      for factor in first[0].totals
    },
  }


def _paired(values) -> dict:
  first, second = (np.asarray(v, np.float64) for v in values)
  difference = second - first
  p = None
  if len(difference) > 1 and np.ptp(difference) > 0:
    p = float(stats.ttest_rel(second, first).pvalue)
  return {
    'values': [repeats.summarise(v).as_dict() for v in (first, second)],
    'difference': repeats.summarise(difference).as_dict(),
    'p': p,
  }


def _config(config, init, fraction, seed) -> ConfigDict:
  one = config.copy_and_resolve_references()
  one.seed = seed
  one.model.init = init
  one.training.fraction = fraction
  with one.unlocked():  # the flag's config takes no fields and loses none
    del one['comparison']
  return one


def _run(config, workdir, init, fraction, sensitive) -> Run:
  runs.start(config, workdir)
  key_data, key_train, _, _, key_bootstrap = runs.split_keys(config)
  splits = train.load_data(key_data, config)
  trained = train.train_or_restore(key_train, config, workdir, lambda: splits)
  part = splits.test if len(splits.test) else splits.validation
  images = image_sets.resize_all(part.images, trained.classifier.image_size)
  logits = evaluate.answer(trained.classifier, images)
  found = assessment.assess(
    key_bootstrap, logits, part.labels, part.class_names, num_samples=0
  )
  totals = {}
  if sensitive:
    gpc.run(config, workdir)
    totals = _totals(json.loads((workdir / 'indices.json').read_text()))
  return Run(
    init, fraction, config.seed,
    {name: found.measures[name].value for name in MEASURES},
    logits.argmax(1) == part.labels, totals,
  )


def _totals(document) -> dict[str, float]:
  """Mean over the images of the total indices of the main output."""
  tables = [
    image['outputs'][image['main_output']]['total']
    for image in document['images']
  ]
  return {
    name: float(np.nanmean([table[name]['value'] for table in tables]))
    for name in tables[0]
  }


def _write(workdir, result) -> None:
  runs.write_json(workdir / 'comparison.json', result)
  text = io.StringIO()
  writer = csv.writer(text, lineterminator='\n')
  writer.writerow([
    'fraction', 'measure', *result['inits'], 'difference', 'lower', 'upper', 'p'
  ])
  for row in result['rows']:
    for name, m in (row['measures'] | row['totals']).items():
      d = m['difference']
      writer.writerow([
        row['fraction'], name, *(v['mean'] for v in m['values']), d['mean'],
        d['lower'], d['upper'], m['p'],
      ])
  files.write_text(workdir / 'comparison.csv', text.getvalue())
  files.write_text(
    workdir / 'comparison.html', comparison_page.render(result)
  )
  runs.LOG.info('Page: %s', workdir / 'comparison.html')


if __name__ == '__main__':
  app.run(runs.make_main(run))
