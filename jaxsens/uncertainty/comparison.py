"""Several methods of telling how sure an answer is, on the same images.

Every measure is the mean over the runs of a method (networks of other seeds).
Its interval comes from resamples of the images, the same for all methods and
runs; so does that of its difference from a baseline, which is what says whether
one method is better: intervals of two methods may overlap where that of their
difference lies off zero. Neither knows how networks of new seeds would spread;
`std` does.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import math
from typing import Any

import jax
import numpy as np

from jaxsens.uncertainty import calibration
from jaxsens.uncertainty import ood
from jaxsens.uncertainty import resampling
from jaxsens.uncertainty import selection

LARGER_IS_BETTER = {
  'accuracy': True, 'negative log-likelihood': False, 'ECE': False,
  'adaptive ECE': False, 'Brier score': False, 'misclassification AUROC': True,
  'AURC': False, 'AUROC': True, 'AUPR in': True, 'AUPR out': True,
  'FPR95': False,
}
"""Measures in the order of the table; the last four once per unknown set."""

_OF_SETS = {
  'auroc': 'AUROC', 'aupr_in': 'AUPR in', 'aupr_out': 'AUPR out',
  'fpr95': 'FPR95',
}


@dataclasses.dataclass(frozen=True)
class Answers:
  """What one network, or one ensemble, says of the images by one method.

  Attributes:
    certainty: (N,) of the known images, larger is surer.
    correct: (N,) bool, whether each is recognised.
    out: (M,) certainties of each set of unknown images by its name.
    labels: (N,) of the known images, or None without probabilities.
    log_probabilities: (N, K), or logits, or None where a method has none.
  """

  certainty: np.ndarray
  correct: np.ndarray
  out: Mapping[str, np.ndarray]
  labels: np.ndarray | None = None
  log_probabilities: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Entry:
  """A measure of a method.

  Attributes:
    values: one per run.
    mean: their mean; NaN where a run has none (all its answers are right).
    std: their sample standard deviation; NaN of a single run.
    lower, upper: interval of the mean over images.
    difference: mean minus that of the baseline.
    difference_lower, difference_upper: its interval over images.
  """

  values: tuple[float, ...]
  mean: float
  std: float
  lower: float
  upper: float
  difference: float
  difference_lower: float
  difference_upper: float


@dataclasses.dataclass(frozen=True)
class Row:
  """A method.

  Attributes:
    method: its name.
    measures: by name; those of unknown images as 'AUROC, <set>'.
  """

  method: str
  measures: dict[str, Entry]

  def as_dict(self) -> dict[str, Any]:
    """Returns the fields ready for JSON, None for NaN."""
    plain = lambda v: (
      None if isinstance(v, float) and math.isnan(v) else v
    )
    return {
      'method': self.method,
      'measures': {
        name: {
          field: [plain(v) for v in value] if field == 'values'
          else plain(value)
          for field, value in dataclasses.asdict(entry).items()
        }
        for name, entry in self.measures.items()
      },
    }


def measures(answers: Answers) -> dict[str, float]:
  """Returns all measures of answers by name.

  Raises:
    ValueError: shapes that do not fit, or NaN.
  """
  _check(answers)
  rows = {name: np.arange(len(x)) for name, x in answers.out.items()}
  return _measures(answers, np.arange(len(answers.certainty)), rows)


def compare(
  key: jax.Array,
  methods: Mapping[str, Sequence[Answers]],
  *,
  baseline: str,
  groups: np.ndarray | None = None,
  num_samples: int = 500,
  level: float = 0.95,
) -> tuple[Row, ...]:
  """Returns a row of measures per method.

  Args:
    key: of the resamples.
    methods: by name, one answer per run; all about the same images in the same
      order.
    baseline: the method that the others are compared with.
    groups: (N,) recording of each known image, drawn as a whole; None: images
      are independent.
    num_samples: resamples of the intervals; 0 gives none.
    level: coverage of the intervals.

  Raises:
    ValueError: no such baseline, a method without runs, other images, or NaN.
  """
  if baseline not in methods:
    raise ValueError(
      f'baseline must be one of {sorted(methods)}, got {baseline!r}.'
    )
  length, sizes = _check_all(methods)
  whole = np.arange(length), {name: np.arange(n) for name, n in sizes.items()}
  keys = jax.random.split(key, 1 + len(sizes))
  drawn = zip(
    resampling.resamples(
      keys[0], length, groups=groups, num_samples=num_samples
    ),
    *(
      resampling.resamples(k, n, num_samples=num_samples)
      for k, n in zip(keys[1:], sizes.values(), strict=True)
    ),
    strict=True,
  )
  samples = [
    _means(methods, inside, dict(zip(sizes, outside, strict=True)))
    for inside, *outside in drawn
  ]
  values = {
    method: [_measures(run, *whole) for run in found]
    for method, found in methods.items()
  }
  means = _means(methods, *whole)
  rows = []
  for method, found in values.items():
    entries = {}
    for name, mean in means[method].items():
      base = means[baseline].get(name, math.nan)
      at = lambda s, m, name=name: s[m].get(name, math.nan)
      of_runs = tuple(run[name] for run in found)
      entries[name] = Entry(
        of_runs, mean,
        float(np.std(of_runs, ddof=1)) if len(of_runs) > 1 else math.nan,
        *_interval([at(s, method) for s in samples], level), mean - base,
        *_interval(
          [at(s, method) - at(s, baseline) for s in samples], level
        ),
      )
    rows.append(Row(method, entries))
  return tuple(rows)


def _means(methods, inside, out):
  """Returns the mean over runs of each measure of each method."""
  found = {}
  for method, answers in methods.items():
    runs = [_measures(run, inside, out) for run in answers]
    found[method] = {
      name: float(np.mean([run[name] for run in runs])) for name in runs[0]
    }
  return found


def _measures(answers, inside, out):
  certainty, correct = answers.certainty[inside], answers.correct[inside]
  found = {'accuracy': float(np.mean(correct))}
  if answers.log_probabilities is not None:
    logits, labels = answers.log_probabilities[inside], answers.labels[inside]
    p = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
    found |= {
      'negative log-likelihood':
        calibration.negative_log_likelihood(logits, labels),
      'ECE': calibration.expected_calibration_error(p, labels),
      'adaptive ECE': calibration.expected_calibration_error(
        p, labels, equal_mass=True
      ),
      'Brier score': calibration.brier_score(p, labels),
    }
  found['misclassification AUROC'] = ood.misclassification_auroc(
    certainty, correct
  )
  found['AURC'] = selection.risk_coverage(certainty, correct).area
  for name, rows in out.items():
    curve = ood.curve(certainty, answers.out[name][rows])
    found |= {
      f'{_OF_SETS[short]}, {name}': value
      for short, value in ood.measures(curve).items()
    }
  return found


def _interval(values, level):
  known = [v for v in values if not math.isnan(v)]
  if not known or len(known) < len(values) / 2:
    return math.nan, math.nan
  return resampling.percentiles(known, level)


def _check_all(methods):
  """Returns how many known images there are and how many of each other set."""
  expected = None
  for method, answers in methods.items():
    if not answers:
      raise ValueError(f'method {method!r} has no runs.')
    for run in answers:
      _check(run)
      shape = len(run.certainty), {n: len(x) for n, x in run.out.items()}
      expected = expected or shape
      if shape != expected:
        raise ValueError(
          f'method {method!r} judges {shape} images, others {expected}.'
        )
  return expected


def _check(answers):
  certainty = np.asarray(answers.certainty)
  if certainty.ndim != 1 or np.shape(answers.correct) != certainty.shape:
    raise ValueError(
      'certainty and correct must have shape (N,), got '
      f'{certainty.shape} and {np.shape(answers.correct)}.'
    )
  if (answers.labels is None) != (answers.log_probabilities is None):
    raise ValueError('labels and log_probabilities must both be given or none.')
  for name, values in {'certainty': certainty, **answers.out}.items():
    if np.ndim(values) != 1 or np.isnan(values).any():
      raise ValueError(
        f'{name}: certainties must have shape (N,) without NaN, got '
        f'{np.shape(values)}, {int(np.isnan(values).sum())} NaN.'
      )
