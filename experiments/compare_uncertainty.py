"""Compares ways of telling how sure a classifier is.

  python -m experiments.compare_uncertainty \\
    --config=configs/steel_uncertainty.py

Networks of several seeds are trained on one split, or restored, each in a
directory of its own. The test images are what is known; `comparison.out_sets`
are not. Writes `uncertainty.json`, `uncertainty.csv` and `uncertainty.html`:
accuracy, likelihood and calibration where a method has probabilities, how well
the certainty tells wrong answers (AUROC, AURC) and unknown images (AUROC, AUPR
both ways, FPR95), with intervals over images and differences from the largest
softmax probability; and coverage and size of conformal sets.
"""

import csv
import functools
import io
import pathlib

from absl import app
import jax
from ml_collections import ConfigDict
import numpy as np
from scipy import special

from experiments import certainty_methods
from experiments import judged_networks
from experiments import runs
from experiments import train
from experiments import unknown_images
from jaxsens import files
from jaxsens.reports import uncertainty_page
from jaxsens.uncertainty import comparison
from jaxsens.uncertainty import comparison_curves
from jaxsens.uncertainty import conformal

_NUM_CALIBRATIONS = 50
_SETS = (
  conformal.Method('thr'), conformal.Method('aps'),
  conformal.Method('raps', penalty=0.05, free_ranks=1),
)


def run(config: ConfigDict, workdir: pathlib.Path) -> dict:
  """Trains, judges and compares; returns what was written."""
  runs.start(config, workdir)
  asked = config.comparison
  if asked.num_seeds < 1:
    raise ValueError(
      f'comparison.num_seeds must be at least 1, got {asked.num_seeds}'
    )
  key_data, _, key_out, key_fit, key_bootstrap = runs.split_keys(config)
  splits, held_out = unknown_images.without_classes(
    train.load_data(key_data, config), asked.held_out_classes
  )
  train_one = functools.partial(
    judged_networks.train_one, config, workdir, splits
  )
  seeds = range(config.seed, config.seed + asked.num_seeds)
  trained = [train_one(seed) for seed in seeds]
  data = judged_networks.load(
    key_out, config, splits, held_out, trained[0].classifier
  )
  outputs, found = [], {}

  def judge(methods, outputs):
    for method in methods:
      found.setdefault(method.name, []).append(
        _answers(method, outputs, data.labels['test'])
      )

  for i, one in enumerate(trained):
    runs.LOG.info('Judging with network %d of %d', i + 1, len(trained))
    key = jax.random.fold_in(key_fit, i)
    outputs.append(
      judged_networks.ask(key, one, data, asked.num_dropout_samples)
    )
    judge(certainty_methods.of_softmax(outputs[-1], data.labels), outputs[-1])
    judge(certainty_methods.of_features(
      key, asked, outputs[-1], data.labels
    ), outputs[-1])
  if len(outputs) > 1:
    judge(
      certainty_methods.of_ensemble(), judged_networks.joined(outputs)
    )
  for name in sorted(asked.get('others', {})):
    for i, seed in enumerate(seeds):
      one = train_one(seed, name)
      of_other = judged_networks.ask(key_fit, one, data, 0)
      if one.classifier.answers == 'log_kernels':
        judge([certainty_methods.of_kernels()], of_other)
      else:
        suffix = f', {name}'
        judge(certainty_methods.of_softmax(
          of_other, data.labels, suffix=suffix
        ), of_other)
        judge(certainty_methods.of_features(
          jax.random.fold_in(key_fit, i), asked, of_other, data.labels,
          suffix=suffix,
        ), of_other)
  runs.LOG.info('Resampling')
  rows = comparison.compare(
    key_bootstrap, found, baseline=certainty_methods.BASELINE,
    num_samples=asked.num_resamples,
  )
  result = {
    'facts': _facts(config, trained, data),
    'baseline': certainty_methods.BASELINE,
    'larger_is_better': comparison.LARGER_IS_BETTER,
    'out_sets': [n for n in data.images if n not in judged_networks.KNOWN],
    'rows': [row.as_dict() for row in rows],
    'curves': {
      'coverages': list(comparison_curves.COVERAGES),
      'false_rates': list(comparison_curves.FALSE_RATES),
      'methods': {
        name: comparison_curves.of_answers(answers[0])
        for name, answers in found.items()
      },
    },
    'conformal': _conformal(key_bootstrap, asked, outputs[0], data.labels),
  }
  _write(workdir, result)
  return result


def _answers(method, outputs, labels) -> comparison.Answers:
  judged = {
    name: tuple(np.asarray(x, np.float64) for x in method.judge(o))
    for name, o in outputs.items() if name not in ('train', 'validation')
  }
  certainty, logits = judged.pop('test')
  own = (labels, logits) if method.probabilistic else ()
  return comparison.Answers(
    certainty, logits.argmax(1) == labels,
    {name: values for name, (values, _) in judged.items()}, *own,
  )


def _conformal(key, asked, outputs, labels) -> list[dict]:
  """Sets calibrated on one half of the test images, judged on the other.

  The validation images would not do: they chose the epoch.
  """
  p = special.softmax(outputs['test'].logits.astype(np.float64), axis=1)
  truth, rows = labels['test'], []
  for method in _SETS:
    found = []
    for i in range(_NUM_CALIBRATIONS):
      keys = jax.random.split(jax.random.fold_in(key, i), 3)
      order = np.asarray(jax.random.permutation(keys[0], len(truth)))
      first, second = np.array_split(order, 2)
      threshold = conformal.calibrate(
        p[first], truth[first], method=method, key=keys[1],
        miscoverage=asked.miscoverage,
      )
      found.append(conformal.assess(conformal.predict(
        p[second], threshold, method=method, key=keys[2]
      ), truth[second]))
    mean = lambda field, found=found: float(
      np.mean([getattr(one, field) for one in found])
    )
    rows.append({
      'method': method.name.upper(), 'asked': 1 - asked.miscoverage,
      'coverage': mean('coverage'), 'size': mean('mean_size'),
      'empty': mean('empty'),
      'coverage_std': float(np.std([one.coverage for one in found])),
    })
  return rows


def _facts(config, trained, data) -> dict[str, str]:
  first = trained[0].metadata
  accuracy = [
    one.metadata.metrics['validation_accuracy'] for one in trained
  ]
  return {
    'network': config.model.name,
    'networks': f'{len(trained)}, seeds from {config.seed}',
    'validation accuracy': ', '.join(f'{a:.4f}' for a in accuracy),
    'data': first.data,
    **{
      name: f'{len(images)} images' if name in judged_networks.KNOWN else
      f'{len(images)} {unknown_images.describe(name, config.comparison)}'
      for name, images in data.images.items()
    },
  }


def _write(workdir, result) -> None:
  runs.write_json(workdir / 'uncertainty.json', result)
  text = io.StringIO()
  writer = csv.writer(text, lineterminator='\n')
  fields = (
    'mean', 'std', 'lower', 'upper', 'difference', 'difference_lower',
    'difference_upper',
  )
  writer.writerow(['method', 'measure', *fields])
  for row in result['rows']:
    for name, entry in row['measures'].items():
      writer.writerow([row['method'], name, *(entry[f] for f in fields)])
  files.write_text(workdir / 'uncertainty.csv', text.getvalue())
  files.write_text(
    workdir / 'uncertainty.html', uncertainty_page.render(result)
  )
  runs.LOG.info('Page: %s', workdir / 'uncertainty.html')


if __name__ == '__main__':
  app.run(runs.make_main(run))
