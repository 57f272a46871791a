"""How well a certainty tells the known from the unknown, and right from wrong.

A certainty is larger where an image is known, or an answer right. Equal ones
count half in the area under the ROC curve; thresholds take them together.

References:
  Hendrycks and Gimpel, A baseline for detecting misclassified and
  out-of-distribution examples, 2017, for the areas with either kind as the
  positive one.
  Fawcett, An introduction to ROC analysis, 2006.
"""

import dataclasses
from typing import Any

import jax
from jax.typing import ArrayLike
import numpy as np

from jaxsens.uncertainty import resampling


@dataclasses.dataclass(frozen=True)
class Measure:
  """A number and its percentile interval over images, NaN where none is."""

  value: float
  lower: float
  upper: float


@dataclasses.dataclass(frozen=True)
class Detection:
  """How well unknown images are found by their low certainty.

  Attributes:
    auroc: probability that a known image is surer than an unknown one.
    aupr_in: area under the precision-recall curve, known images positive.
    aupr_out: the same with the unknown ones positive. Both depend on how many
      there are of either kind.
    fpr95: share of unknown images that pass where 95 % of the known ones do.
    num_in, num_out: images of either kind.
  """

  auroc: Measure
  aupr_in: Measure
  aupr_out: Measure
  fpr95: Measure
  num_in: int
  num_out: int

  def as_dict(self) -> dict[str, Any]:
    """Returns the fields by name, nested, ready for JSON."""
    return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Curve:
  """How many images pass at every threshold, the highest first.

  Attributes:
    num_in: (T,) known images whose certainty is at least the threshold.
    num_out: (T,) unknown ones; both end with all.
  """

  num_in: np.ndarray
  num_out: np.ndarray

  @property
  def auroc(self) -> float:
    """Area under the ROC curve, by trapezia."""
    x, y = (np.append(0, n) / n[-1] for n in (self.num_out, self.num_in))
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1])) / 2)

  @property
  def average_precision(self) -> float:
    """Σ of the precision times the growth of the recall, known positive."""
    precision = self.num_in / (self.num_in + self.num_out)
    recall = np.append(0, self.num_in) / self.num_in[-1]
    return float(np.diff(recall) @ precision)

  def reverse(self) -> 'Curve':
    """Returns the curve of those with a certainty at most the threshold."""
    below = lambda n: n[-1] - np.append(0, n[:-1])[::-1]
    return Curve(below(self.num_out), below(self.num_in))

  def fpr_at_tpr(self, rate: float) -> float:
    """Share of unknown images that pass where `rate` of the known ones do."""
    # Rounding must not ask for one image more than the share is.
    needed = max(int(np.ceil(rate * self.num_in[-1] - 1e-9)), 1)
    i = np.searchsorted(self.num_in, needed)
    return float(self.num_out[i] / self.num_out[-1])


def curve(certainty_in: ArrayLike, certainty_out: ArrayLike) -> Curve:
  """Returns how many images pass at every threshold.

  Args:
    certainty_in: (N,) of known images.
    certainty_out: (M,) of unknown ones.

  Raises:
    ValueError: other shapes, no images of a kind, or NaN.
  """
  inside = _checked('certainty_in', certainty_in)
  return _curve(inside, _checked('certainty_out', certainty_out))


def _curve(inside, out):
  values = np.concatenate([inside, out])
  order = np.argsort(-values, kind='stable')
  known = order < len(inside)
  ordered = values[order]
  # Differences of infinite certainties would be NaN.
  ends = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(order) - 1)
  passed = np.cumsum(known)[ends]
  return Curve(passed, ends + 1 - passed)


def auroc(certainty_in: ArrayLike, certainty_out: ArrayLike) -> float:
  """Returns P(in > out) + P(in = out) / 2, see `curve`."""
  return curve(certainty_in, certainty_out).auroc


def aupr(
  certainty_in: ArrayLike, certainty_out: ArrayLike, *, positive: str
) -> float:
  """Returns the area under the precision-recall curve (average precision).

  Args:
    certainty_in, certainty_out: see `curve`.
    positive: 'in' or 'out', what is to be found: by high certainty or by low.

  Raises:
    ValueError: as `curve`, or another `positive`.
  """
  if positive not in ('in', 'out'):
    raise ValueError(f"positive must be 'in' or 'out', got {positive!r}.")
  found = curve(certainty_in, certainty_out)
  return (found if positive == 'in' else found.reverse()).average_precision


def fpr_at_tpr(
  certainty_in: ArrayLike, certainty_out: ArrayLike, rate: float = 0.95
) -> float:
  """Returns the share of unknown images that pass as known.

  The threshold is the largest that lets at least the share `rate` of the known
  images pass; certainties equal to it pass.

  Args:
    certainty_in, certainty_out: see `curve`.
    rate: in (0, 1].

  Raises:
    ValueError: as `curve`, or a rate out of range.
  """
  if not 0 < rate <= 1:
    raise ValueError(f'rate must lie in (0, 1], got {rate}.')
  return curve(certainty_in, certainty_out).fpr_at_tpr(rate)


def misclassification_auroc(
  certainty: ArrayLike, correct: ArrayLike
) -> float:
  """Returns the probability that a right answer is surer than a wrong one.

  Args:
    certainty: (N,).
    correct: (N,) bool.

  Returns:
    The area; NaN where all answers are right, or all wrong.

  Raises:
    ValueError: other shapes or NaN.
  """
  certainty, correct = np.asarray(certainty), np.asarray(correct)
  if certainty.shape != correct.shape or certainty.ndim != 1:
    raise ValueError(
      'certainty and correct must have shape (N,), got '
      f'{certainty.shape} and {correct.shape}.'
    )
  correct = correct.astype(bool)
  certainty = _checked('certainty', certainty)
  if correct.all() or not correct.any():
    return float('nan')
  return _curve(certainty[correct], certainty[~correct]).auroc


def measures(found: Curve) -> dict[str, float]:
  """Returns the measures of a `Detection` by name."""
  return {
    'auroc': found.auroc,
    'aupr_in': found.average_precision,
    'aupr_out': found.reverse().average_precision,
    'fpr95': found.fpr_at_tpr(0.95),
  }


def detection(
  key: jax.Array,
  certainty_in: ArrayLike,
  certainty_out: ArrayLike,
  *,
  num_samples: int = 1000,
  level: float = 0.95,
) -> Detection:
  """Returns all measures with bootstrap intervals.

  Known and unknown images are drawn apart, so that their numbers stay.

  Args:
    key: of the resamples.
    certainty_in: (N,) of known images.
    certainty_out: (M,) of unknown ones.
    num_samples: resamples; 0 gives no intervals.
    level: coverage of the intervals.

  Raises:
    ValueError: as `curve`.
  """
  inside = _checked('certainty_in', certainty_in)
  out = _checked('certainty_out', certainty_out)
  values = measures(_curve(inside, out))
  key_in, key_out = jax.random.split(key)
  drawn = [
    measures(_curve(inside[i], out[j])) for i, j in zip(
      resampling.resamples(key_in, len(inside), num_samples=num_samples),
      resampling.resamples(key_out, len(out), num_samples=num_samples),
      strict=True,
    )
  ]
  found = {}
  for name, value in values.items():
    interval = (float('nan'),) * 2
    if drawn:
      interval = resampling.percentiles([one[name] for one in drawn], level)
    found[name] = Measure(value, *interval)
  return Detection(**found, num_in=len(inside), num_out=len(out))


def _checked(name, values):
  values = np.asarray(values, np.float64)
  if values.ndim != 1 or not len(values) or np.isnan(values).any():
    raise ValueError(
      f'{name} must have shape (N,), N >= 1, without NaN; got {values.shape}, '
      f'{int(np.isnan(values).sum())} NaN.'
    )
  return values
