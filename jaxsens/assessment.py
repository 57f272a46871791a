"""What a classifier is worth on labelled images, with intervals.

Averages over classes weigh every class alike ('macro') or by its images
('weighted'); the micro average of F1 is the accuracy and bears that name.
Intervals are percentile intervals over images, or over recordings where those
are known.
"""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses

import jax
from jax.typing import ArrayLike
import numpy as np
from scipy import special
from sklearn import metrics

from jaxsens.uncertainty import calibration
from jaxsens.uncertainty import resampling
from jaxsens.uncertainty import selection


@dataclasses.dataclass(frozen=True)
class Measure:
  """A number and its 95 % interval, NaN where there is none."""

  value: float
  lower: float
  upper: float


@dataclasses.dataclass(frozen=True)
class ClassReport:
  """One class against all others.

  Attributes:
    name: of the class.
    support: images of it.
    precision, recall, f1: NaN where the class has neither images nor answers.
    auc: area under the ROC curve of its probability; NaN where the images are
      all of the class or none is.
    false_positive_rate, true_positive_rate: (T,) the ROC curve, empty likewise.
  """

  name: str
  support: int
  precision: float
  recall: float
  f1: float
  auc: float
  false_positive_rate: np.ndarray
  true_positive_rate: np.ndarray


@dataclasses.dataclass(frozen=True)
class Assessment:
  """Measures of a classifier.

  Attributes:
    class_names: K names.
    num_images: N.
    measures: by name: 'accuracy', 'balanced accuracy', 'F1 macro', 'F1
      weighted', with two classes 'F1 of <second class>', 'AUC' (mean over
      classes, one against the rest), 'negative log-likelihood', 'Brier score',
      'ECE' (15 equal widths), 'adaptive ECE' (15 equal masses), 'AURC'.
    classes: a report per class.
    confusion: (K, K) counts, rows true, columns answered.
    reliability: answers in bins of confidence.
    risk_coverage: risk when the least confident are refused.
  """

  class_names: tuple[str, ...]
  num_images: int
  measures: dict[str, Measure]
  classes: tuple[ClassReport, ...]
  confusion: np.ndarray
  reliability: calibration.Reliability
  risk_coverage: selection.RiskCoverage

  def as_dict(self) -> dict:
    """Returns numbers and names ready for JSON; curves are left out."""
    return {
      'num_images': self.num_images,
      'measures': {
        name: dataclasses.asdict(m) for name, m in self.measures.items()
      },
      'classes': [
        {
          field: getattr(one, field)
          for field in (
            'name', 'support', 'precision', 'recall', 'f1', 'auc'
          )
        }
        for one in self.classes
      ],
      'confusion': self.confusion.tolist(),
    }


def assess(
  key: jax.Array,
  logits: ArrayLike,
  labels: ArrayLike,
  class_names: Sequence[str],
  *,
  groups: Sequence[str] | None = None,
  num_samples: int = 1000,
) -> Assessment:
  """Returns the measures of answers.

  Args:
    key: of the resamples.
    logits: (N, K).
    labels: (N,) int.
    class_names: K names.
    groups: (N,) recording of each image; None: images are independent.
    num_samples: resamples of the intervals; 0 gives none.

  Raises:
    ValueError: shapes, labels or logits are not as described.
  """
  logits = np.asarray(logits, np.float64)
  if not np.isfinite(logits).all():
    raise ValueError(
      f'logits: {np.sum(~np.isfinite(logits).all(-1))} images have NaN or '
      'infinite ones.'
    )
  if logits.ndim != 2 or logits.shape[1] != len(class_names):
    raise ValueError(
      f'logits must have shape (N, {len(class_names)}), one per class name, '
      f'got {logits.shape}.'
    )
  probabilities = special.softmax(logits, axis=1)
  probabilities, labels = calibration.checked(probabilities, labels)
  groups = None if groups is None else np.asarray(groups)
  found = {}
  for name, measure in _measures(class_names).items():
    interval = (np.nan, np.nan)
    value = float(measure(logits, probabilities, labels))
    # The area of images of one class is none on every resample.
    if num_samples and not np.isnan(value):
      interval = resampling.bootstrap(
        key, measure, (logits, probabilities, labels), groups=groups,
        num_samples=num_samples,
      )
    found[name] = Measure(value, *interval)
  answers = probabilities.argmax(1)
  return Assessment(
    tuple(class_names), len(labels), found,
    classes=tuple(
      _class_report(name, k, probabilities, labels)
      for k, name in enumerate(class_names)
    ),
    confusion=metrics.confusion_matrix(
      labels, answers, labels=range(len(class_names))
    ),
    reliability=calibration.reliability(probabilities, labels),
    risk_coverage=selection.risk_coverage(
      probabilities.max(1), answers == labels
    ),
  )


@dataclasses.dataclass(frozen=True)
class Refusal:
  """What answering only above a threshold makes of the answers.

  Attributes:
    threshold: see `selection.choose_threshold`.
    measures: those of `selection.refusal_measures` by name.
  """

  threshold: selection.Threshold
  measures: dict[str, Measure]

  def as_dict(self) -> dict:
    """Returns numbers ready for JSON, None for NaN."""
    plain = lambda x: None if np.isnan(x) else x
    return {
      'threshold': dataclasses.asdict(self.threshold),
      'measures': {
        name: {k: plain(x) for k, x in dataclasses.asdict(m).items()}
        for name, m in self.measures.items()
      },
    }


def assess_refusal(
  key: jax.Array,
  threshold: selection.Threshold,
  certainty: ArrayLike,
  correct: ArrayLike,
  *,
  groups: Sequence[str] | None = None,
  num_samples: int = 1000,
) -> Refusal:
  """Returns what a threshold makes of answers.

  The intervals are over the images that are judged; the threshold stays.

  Args:
    key: of the resamples.
    threshold: chosen on other images.
    certainty: (N,).
    correct: (N,) bool.
    groups: see `assess`.
    num_samples: see `assess`. No interval either where a measure does not
      exist on more than half of the resamples.

  Raises:
    ValueError: other shapes, or no answers.
  """
  accepted, correct = threshold.accepts(certainty), np.asarray(correct)
  values = selection.refusal_measures(accepted, correct)
  drawn = [
    selection.refusal_measures(accepted[rows], correct[rows])
    for rows in resampling.resamples(
      key, len(accepted), num_samples=num_samples,
      groups=None if groups is None else np.asarray(groups),
    )
  ]
  found = {}
  for name, value in values.items():
    known = [x for one in drawn if not np.isnan(x := one[name])]
    interval = (np.nan, np.nan)
    if known and 2 * len(known) >= num_samples and not np.isnan(value):
      interval = resampling.percentiles(known, 0.95)
    found[name] = Measure(value, *interval)
  return Refusal(threshold, found)


def _measures(class_names) -> dict[str, Callable]:
  """Functions of (logits, probabilities, labels)."""
  f1 = lambda average: lambda z, p, y: metrics.f1_score(
    y, p.argmax(1), average=average, zero_division=0
  )
  table = {
    'accuracy': lambda z, p, y: np.mean(p.argmax(1) == y),
    'balanced accuracy': _balanced_accuracy,
    'F1 macro': f1('macro'),
    'F1 weighted': f1('weighted'),
  }
  if len(class_names) == 2:
    table[f'F1 of {class_names[1]}'] = lambda z, p, y: metrics.f1_score(
      y, p.argmax(1), pos_label=1, zero_division=0
    )
  expected = calibration.expected_calibration_error
  return table | {
    'AUC': _mean_auc,
    'negative log-likelihood': lambda z, p, y: (
      calibration.negative_log_likelihood(z, y)
    ),
    'Brier score': lambda z, p, y: calibration.brier_score(p, y),
    'ECE': lambda z, p, y: expected(p, y),
    'adaptive ECE': lambda z, p, y: expected(p, y, equal_mass=True),
    'AURC': lambda z, p, y: selection.risk_coverage(
      p.max(1), p.argmax(1) == y
    ).area,
  }


def _balanced_accuracy(logits, probabilities, labels):
  answers = probabilities.argmax(1)
  return np.mean([
    np.mean(answers[labels == k] == k) for k in np.unique(labels)
  ])


def _mean_auc(logits, probabilities, labels):
  """Mean over the classes that have images, NaN where only one has."""
  present = np.unique(labels)
  if len(present) < 2:
    return np.nan
  return np.mean([
    metrics.roc_auc_score(labels == k, probabilities[:, k]) for k in present
  ])


def _class_report(name, k, probabilities, labels):
  of_class, answered = labels == k, probabilities.argmax(1) == k
  hits = np.sum(of_class & answered)
  share = lambda total: hits / total if total else np.nan
  auc, curve = np.nan, (np.zeros(0), np.zeros(0))
  if 0 < of_class.sum() < len(labels):
    auc = metrics.roc_auc_score(of_class, probabilities[:, k])
    curve = metrics.roc_curve(of_class, probabilities[:, k])[:2]
  both = of_class.sum() + answered.sum()
  return ClassReport(
    name, int(of_class.sum()), float(share(answered.sum())),
    float(share(of_class.sum())), float(2 * hits / both) if both else np.nan,
    float(auc), *curve,
  )
