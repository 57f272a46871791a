r"""Trains a classifier with kernels, and chooses their width and the penalty.

  python -m experiments.train_duq --config=configs/steel_duq.py \
    --config.duq.length_scales="(0.1,0.3)" --config.duq.penalties="(0.0,0.5)"

trains one network for every pair, each in a directory of its own, and takes
among those whose accuracy on the validation images is at most a point below the
best the one whose certainty tells right from wrong answers best (area under the
ROC curve; 1 where no answer is wrong). `duq.json` and
`duq.txt` have all of them; the chosen one lies in `chosen`, as
`experiments.train` leaves it, and other experiments take it over if they run
beside it: `--workdir=<this run directory>/NAME` with the chosen values. Without
candidates the values of the config are used. Trainings that are finished are
not repeated, interrupted ones go on.
"""

from collections.abc import Sequence
import dataclasses
import itertools
import math
import pathlib

from absl import app
import jax
from ml_collections import ConfigDict
import numpy as np

from experiments import evaluate
from experiments import runs
from experiments import train
from jaxsens import files
from jaxsens.data import image_sets
from jaxsens.uncertainty import ood

_POINT = 0.01


@dataclasses.dataclass(frozen=True)
class Candidate:
  """A network and what it does on the validation images.

  Attributes:
    length_scale, penalty: what it was trained with.
    accuracy: in [0, 1].
    loss: see `duq_objective.Objective.evaluate`.
    auroc: probability that a right answer is surer than a wrong one; 1 where
      no answer is wrong.
    certainty: mean over the images.
  """

  length_scale: float
  penalty: float
  accuracy: float
  loss: float
  auroc: float
  certainty: float


def run(config: ConfigDict, workdir: pathlib.Path) -> dict:
  """Trains and chooses; returns the metrics of the chosen network."""
  if 'duq' not in config:
    raise ValueError('the config has no field duq, as configs/steel_duq.py has')
  runs.start(config, workdir)
  key_data, key_train = runs.split_keys(config)[:2]
  splits = train.load_data(key_data, config)
  if not len(splits.validation):
    raise ValueError(
      'there are no validation images to choose by: data.validation_fraction '
      f'is {config.data.get("validation_fraction")}'
    )
  candidates = [
    _train(key_train, one, workdir / directory_name(one), splits)
    for one in variants(config)
  ]
  chosen = choose(candidates)
  _write(workdir, candidates, chosen)
  final = _with_values(config, chosen.length_scale, chosen.penalty)
  return train.run(final, workdir / 'chosen')


def variants(config: ConfigDict) -> list[ConfigDict]:
  """Returns a config for every pair of candidates."""
  pairs = itertools.product(
    config.duq.get('length_scales', ()) or (config.duq.length_scale,),
    config.duq.get('penalties', ()) or (config.duq.penalty,),
  )
  return [_with_values(config, *pair) for pair in pairs]


def choose(candidates: Sequence[Candidate]) -> Candidate:
  """Returns the best of those that are at most a point from the most accurate.

  By the area under the ROC curve, then by accuracy; the first of equals.
  """
  best = max(one.accuracy for one in candidates)
  near = [one for one in candidates if one.accuracy >= best - _POINT - 1e-9]
  return max(near, key=lambda one: (one.auroc, one.accuracy))


def directory_name(config: ConfigDict) -> str:
  """Returns the name of the directory of a candidate."""
  return f'scale_{config.duq.length_scale:g}_penalty_{config.duq.penalty:g}'


def _with_values(config, length_scale, penalty):
  one = config.copy_and_resolve_references()
  one.duq.length_scale, one.duq.penalty = float(length_scale), float(penalty)
  return one


def _train(key, config, workdir, splits) -> Candidate:
  trained = train.train_or_restore(key, config, workdir, lambda: splits)
  part, classifier = splits.validation, trained.classifier
  log_kernels = evaluate.answer(
    classifier, image_sets.resize_all(part.images, classifier.image_size)
  )
  certainty = evaluate.certainty_of(classifier, log_kernels)
  correct = log_kernels.argmax(1) == part.labels
  auroc = 1.0 if correct.all() else ood.misclassification_auroc(
    certainty, correct
  )
  found = Candidate(
    config.duq.length_scale, config.duq.penalty, float(correct.mean()),
    trained.metadata.metrics['validation_loss'],
    # Without a right answer nothing is in order.
    0.0 if math.isnan(auroc) else float(auroc), float(np.mean(certainty)),
  )
  runs.LOG.info('%s', _describe(found))
  jax.clear_caches()
  return found


def _describe(one: Candidate) -> str:
  return (
    f'length scale {one.length_scale:g}, penalty {one.penalty:g}: accuracy '
    f'{one.accuracy:.4f}, misclassification AUROC {one.auroc:.4f}, loss '
    f'{one.loss:.4f}, mean certainty {one.certainty:.3f}'
  )


def _write(workdir, candidates, chosen) -> None:
  runs.write_json(workdir / 'duq.json', {
    'chosen': dataclasses.asdict(chosen),
    'candidates': [dataclasses.asdict(one) for one in candidates],
  })
  lines = [
    f'{"chosen  " if one == chosen else "        "}{_describe(one)}'
    for one in candidates
  ]
  files.write_text(workdir / 'duq.txt', '\n'.join(lines) + '\n')
  runs.LOG.info('Chosen by the validation images: %s', _describe(chosen))


if __name__ == '__main__':
  app.run(runs.make_main(run))
