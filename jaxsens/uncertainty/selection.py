"""What is gained when a classifier may say "I don't know".

The answers are ordered by a certainty, the most certain first; a coverage is
the share that is answered, a risk the share of wrong ones among those. Answers
of equal certainty are kept or refused together.

References:
  Geifman and El-Yaniv, Selective classification for deep neural networks, 2017.
  Geifman, Uziel, El-Yaniv, Bias-reduced uncertainty estimation, 2019, for the
  area under the curve and its excess.
"""

import dataclasses

from jax.typing import ArrayLike
import numpy as np


@dataclasses.dataclass(frozen=True)
class RiskCoverage:
  """Risk against coverage, one entry per distinct certainty.

  Attributes:
    threshold: (T,) least certainty that is answered, falling.
    coverage: (T,) share answered, in (0, 1], growing.
    risk: (T,) share of wrong answers among them.
    area: mean risk over the coverages 1/N..N/N (AURC). Within a group of equal
      certainty the risk is that of a random order, in the mean.
    excess: area minus that of the best order of the same answers (E-AURC).
  """

  threshold: np.ndarray
  coverage: np.ndarray
  risk: np.ndarray
  area: float
  excess: float

  def at_coverage(self, coverage: float) -> tuple[float, float]:
    """Returns threshold and risk of the least coverage of at least this."""
    if not 0 < coverage <= 1:
      raise ValueError(f'coverage must be in (0, 1], got {coverage}.')
    i = np.searchsorted(self.coverage, coverage - 1e-12)
    return float(self.threshold[i]), float(self.risk[i])

  def at_risk(self, risk: float) -> tuple[float, float]:
    """Returns threshold and coverage of the largest coverage of this risk.

    Where no coverage has so low a risk they are infinity and 0.
    """
    allowed = np.flatnonzero(self.risk <= risk)
    if not len(allowed):
      return float('inf'), 0.0
    return float(self.threshold[allowed[-1]]), float(self.coverage[allowed[-1]])


def risk_coverage(certainty: ArrayLike, correct: ArrayLike) -> RiskCoverage:
  """Returns the risk at every coverage.

  Args:
    certainty: (N,), larger is surer.
    correct: (N,) bool, whether each answer is right.

  Raises:
    ValueError: other shapes, no answers, or NaN.
  """
  certainty = np.asarray(certainty, np.float64)
  correct = np.asarray(correct)
  if certainty.ndim != 1 or certainty.shape != correct.shape:
    raise ValueError(
      'certainty and correct must have shape (N,), got '
      f'{certainty.shape} and {correct.shape}.'
    )
  if not len(certainty) or np.isnan(certainty).any():
    raise ValueError(
      f'certainty: {np.isnan(certainty).sum()} of {len(certainty)} are NaN.'
    )
  order = np.argsort(-certainty, kind='stable')
  ordered, wrong = certainty[order], ~correct[order].astype(bool)
  ends = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)
  answered, errors = ends + 1, np.cumsum(wrong)[ends]
  area = _area(answered, errors)
  best = np.sort(wrong)
  counts = np.arange(1, len(best) + 1)
  return RiskCoverage(
    threshold=ordered[ends], coverage=answered / len(ordered),
    risk=errors / answered, area=area,
    excess=area - _area(counts, np.cumsum(best)),
  )


@dataclasses.dataclass(frozen=True)
class Threshold:
  """Least certainty that is accepted, chosen on images of its own.

  Attributes:
    asked: share that was to be accepted.
    value: certainties of at least this are accepted.
    coverage: share accepted of the images that it was chosen on; more than
      asked where images of equal certainty are accepted together.
    num_tied: how many of these images lie exactly on it.
  """

  asked: float
  value: float
  coverage: float
  num_tied: int

  def accepts(self, certainty: ArrayLike) -> np.ndarray:
    """Returns which answers are accepted, (N,) bool; NaN never is."""
    return np.asarray(certainty, np.float64) >= self.value


def choose_threshold(certainty: ArrayLike, coverage: float) -> Threshold:
  """Returns the largest threshold that accepts at least a share of images.

  Args:
    certainty: (N,) of images that are not judged afterwards.
    coverage: the share, in (0, 1].

  Raises:
    ValueError: a share out of range, or what `risk_coverage` refuses.
  """
  certainty = np.asarray(certainty, np.float64)
  found = risk_coverage(certainty, np.ones(certainty.shape, bool))
  value, _ = found.at_coverage(coverage)
  return Threshold(
    float(coverage), value, float(np.mean(certainty >= value)),
    int(np.sum(certainty == value)),
  )


def refusal_measures(
  accepted: ArrayLike, correct: ArrayLike
) -> dict[str, float]:
  """Returns what a rule of acceptance makes of answers, by name.

  'coverage', share accepted; 'accuracy of the accepted' and 'risk', one minus
  it, NaN where none is; 'wrong answers refused', their share, NaN where no
  answer is wrong.

  Args:
    accepted: (N,) bool.
    correct: (N,) bool.

  Raises:
    ValueError: other shapes, or no answers.
  """
  accepted, correct = (np.asarray(x, bool) for x in (accepted, correct))
  if accepted.ndim != 1 or accepted.shape != correct.shape or not len(accepted):
    raise ValueError(
      'accepted and correct must have shape (N,), N >= 1, got '
      f'{accepted.shape} and {correct.shape}.'
    )
  share = lambda of: float(np.mean(of)) if len(of) else float('nan')
  accuracy = share(correct[accepted])
  return {
    'coverage': share(accepted),
    'accuracy of the accepted': accuracy,
    'risk': 1 - accuracy,
    'wrong answers refused': share(~accepted[~correct]),
  }


def _area(answered: np.ndarray, errors: np.ndarray) -> float:
  """Mean risk over 1..N answered, errors linear between the given counts."""
  counts = np.arange(1, answered[-1] + 1)
  expected = np.interp(counts, np.append(0, answered), np.append(0, errors))
  return float(np.mean(expected / counts))
