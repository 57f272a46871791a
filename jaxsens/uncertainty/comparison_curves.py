"""Curves of a method of telling how sure an answer is, ready for JSON.

On fixed grids, so that the curves of several methods and networks are as long
and small enough to be kept beside the measures of `comparison`.
"""

from typing import Any

import numpy as np
from scipy import special

from jaxsens.uncertainty import calibration
from jaxsens.uncertainty import comparison
from jaxsens.uncertainty import ood
from jaxsens.uncertainty import selection

COVERAGES = tuple(np.round(np.linspace(0.1, 1, 46), 3).tolist())
"""Shares that are answered, of `accuracy`."""

FALSE_RATES = tuple(np.round(np.linspace(0, 1, 51), 3).tolist())
"""Shares of unknown images taken for known, of `roc`."""

_DIGITS = 5


def of_answers(answers: comparison.Answers) -> dict[str, Any]:
  """Returns the curves of what one network says by one method.

  Returns:
    'accuracy': of the share of the most certain answers, at `COVERAGES`; among
    answers of equal certainty that of a random order, in the mean.
    'roc': by set of unknown images, share of the known ones that pass where
    those of `FALSE_RATES` of the unknown ones do.
    'reliability': 'confidence', 'accuracy' and 'counts' of ten bins of equal
    mass; None where the method has no probabilities.
  """
  curve = selection.risk_coverage(answers.certainty, answers.correct)
  grid = np.asarray(COVERAGES)
  wrong = np.interp(
    grid, np.append(0, curve.coverage),
    np.append(0, curve.coverage * curve.risk),
  )
  bins = None
  if answers.log_probabilities is not None:
    p = special.softmax(
      np.asarray(answers.log_probabilities, np.float64), axis=1
    )
    found = calibration.reliability(
      p, answers.labels, num_bins=10, equal_mass=True
    )
    bins = {
      'confidence': _plain(found.confidence),
      'accuracy': _plain(found.accuracy), 'counts': found.counts.tolist(),
    }
  return {
    'accuracy': _plain(1 - wrong / grid),
    'roc': {
      name: _plain(_roc(ood.curve(answers.certainty, out)))
      for name, out in answers.out.items()
    },
    'reliability': bins,
  }


def _roc(curve: ood.Curve) -> np.ndarray:
  """Share of known images at `FALSE_RATES`, the line between the thresholds."""
  x, y = (np.append(0, n) / n[-1] for n in (curve.num_out, curve.num_in))
  # On a vertical part the upper end: rounding must not choose the lower.
  return np.interp(np.asarray(FALSE_RATES) + 1e-12, x, y)


def _plain(values: np.ndarray) -> list[float]:
  return np.round(values, _DIGITS).tolist()
