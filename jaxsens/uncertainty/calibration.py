"""Does a classifier know how often it is right?

`probabilities` are (N, K), rows summing to one, `labels` (N,) integers in
0..K-1. The confidence of an answer is its largest probability. Everything is
computed on the host in float64.

References:
  Guo, Pleiss, Sun, Weinberger, On calibration of modern neural networks, 2017.
  Nguyen and O'Connor, Posterior calibration and exploratory analysis for
  natural language processing models, 2015, for bins of equal mass.
  Brier, Verification of forecasts expressed in terms of probability, 1950.
"""

import dataclasses

from jax.typing import ArrayLike
import numpy as np
from scipy import optimize
from scipy import special

_SUM_TOLERANCE = 1e-3


@dataclasses.dataclass(frozen=True)
class Reliability:
  """Answers in bins of their confidence; empty bins are left out.

  Attributes:
    lower: (B,) least confidence that belongs to each bin.
    upper: (B,) largest.
    counts: (B,) answers.
    confidence: (B,) their mean confidence.
    accuracy: (B,) share of them that is right.
  """

  lower: np.ndarray
  upper: np.ndarray
  counts: np.ndarray
  confidence: np.ndarray
  accuracy: np.ndarray

  @property
  def expected_error(self) -> float:
    """Mean of |accuracy - confidence| over the answers."""
    gaps = np.abs(self.accuracy - self.confidence)
    return float(self.counts @ gaps / self.counts.sum())

  @property
  def largest_error(self) -> float:
    """Largest |accuracy - confidence| of a bin."""
    return float(np.abs(self.accuracy - self.confidence).max())


def reliability(
  probabilities: ArrayLike,
  labels: ArrayLike,
  *,
  num_bins: int = 15,
  equal_mass: bool = False,
) -> Reliability:
  """Returns the answers in bins of confidence.

  Args:
    probabilities: (N, K).
    labels: (N,).
    num_bins: bins of [0, 1].
    equal_mass: bins hold equally many answers, to one; otherwise they are
      equally wide, open at the lower end.

  Raises:
    ValueError: shapes or values are not as described above.
  """
  probabilities, labels = checked(probabilities, labels)
  confidence = probabilities.max(1)
  correct = probabilities.argmax(1) == labels
  if equal_mass:
    order = np.argsort(confidence, kind='stable')
    parts = [p for p in np.array_split(order, num_bins) if len(p)]
    lower = np.array([confidence[p].min() for p in parts])
    upper = np.array([confidence[p].max() for p in parts])
  else:
    edges = np.linspace(0, 1, num_bins + 1)
    bins = np.clip(np.searchsorted(edges, confidence) - 1, 0, num_bins - 1)
    kept = np.unique(bins)
    parts = [np.flatnonzero(bins == b) for b in kept]
    lower, upper = edges[kept], edges[kept + 1]
  return Reliability(
    lower, upper,
    counts=np.array([len(p) for p in parts]),
    confidence=np.array([confidence[p].mean() for p in parts]),
    accuracy=np.array([correct[p].mean() for p in parts]),
  )


def expected_calibration_error(
  probabilities: ArrayLike,
  labels: ArrayLike,
  *,
  num_bins: int = 15,
  equal_mass: bool = False,
) -> float:
  """Returns the mean gap of accuracy and confidence, see `reliability`."""
  return reliability(
    probabilities, labels, num_bins=num_bins, equal_mass=equal_mass
  ).expected_error


def brier_score(probabilities: ArrayLike, labels: ArrayLike) -> float:
  """Returns Σ_k (p_k - [k = label])², mean over images, in [0, 2]."""
  probabilities, labels = checked(probabilities, labels)
  truth = np.eye(probabilities.shape[1])[labels]
  return float(np.mean(np.sum((probabilities - truth) ** 2, axis=1)))


def negative_log_likelihood(logits: ArrayLike, labels: ArrayLike) -> float:
  """Returns the mean of -log softmax(logits)[label], in nats.

  Args:
    logits: (N, K).
    labels: (N,).
  """
  logits = np.asarray(logits, np.float64)
  _, labels = checked(special.softmax(logits, axis=1), labels)
  logs = special.log_softmax(logits, axis=1)
  return float(-np.mean(logs[np.arange(len(labels)), labels]))


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
  """Returns T > 0 for which softmax(logits / T) is most likely.

  The likelihood is concave in 1 / T, so the minimum found is the only one.

  Args:
    logits: (N, K) of validation images.
    labels: (N,).

  References:
    Guo et al. 2017, section 4.2.
  """
  logits = np.asarray(logits, np.float64)
  found = optimize.minimize_scalar(
    lambda log: negative_log_likelihood(logits * np.exp(-log), labels),
    bounds=(np.log(1e-2), np.log(1e2)), method='bounded',
    options={'xatol': 1e-8},
  )
  return float(np.exp(found.x))


def checked(
  probabilities: ArrayLike, labels: ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
  """Returns probabilities (N, K), float64, and labels (N,).

  Raises:
    ValueError: other shapes, labels outside 0..K-1, or rows that are no
      distributions.
  """
  probabilities = np.asarray(probabilities, np.float64)
  labels = np.asarray(labels)
  if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1]:
    raise ValueError(
      'probabilities must have shape (N, K) and labels (N,), got '
      f'{probabilities.shape} and {labels.shape}.'
    )
  if not len(labels):
    raise ValueError('there must be at least one image, got none.')
  if not np.issubdtype(labels.dtype, np.integer) or (
    labels.min() < 0 or labels.max() >= probabilities.shape[1]
  ):
    raise ValueError(
      f'labels must be integers in 0..{probabilities.shape[1] - 1}, got '
      f'{labels.dtype} in {labels.min()}..{labels.max()}.'
    )
  off = np.abs(probabilities.sum(1) - 1)
  # Written so that NaN fails as well.
  if not (off < _SUM_TOLERANCE).all() or probabilities.min() < 0:
    raise ValueError(
      'probabilities must be non-negative with rows that sum to one; '
      f'{np.sum(~(off < _SUM_TOLERANCE))} rows do not.'
    )
  return probabilities, labels
