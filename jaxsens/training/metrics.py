"""Measures of classification.

`labels` (N,) are integers in 0..K-1, `logits` (N, K). Measures come from the
confusion matrix, counts[i, j] = images of class i called class j, and are
averaged over classes, every class counting alike ("macro").
"""

from collections.abc import Mapping
import dataclasses

from jax.typing import ArrayLike
import numpy as np
from scipy import special


def weighted_cross_entropy(
  logits: np.ndarray, labels: np.ndarray, class_weights: np.ndarray
) -> float:
  """Returns the loss of a whole set, on the host, without smoothing.

      loss = Σ_n w[y_n] l_n / Σ_n w[y_n],  l_n = -log softmax(logits_n)[y_n]

  Raises:
    ValueError: every label has weight zero.
  """
  weights = class_weights[labels]
  if not weights.sum() > 0:
    raise ValueError(
      'the labels must carry weight; their classes '
      f'{sorted(set(np.asarray(labels).tolist()))} have weights '
      f'{class_weights}.'
    )
  chosen = np.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
  losses = special.logsumexp(logits, axis=1) - chosen
  return float(weights @ losses / weights.sum())


def balanced_class_weights(labels: ArrayLike, num_classes: int) -> np.ndarray:
  """Returns the weight N / (C n_k) of every class k.

  n_k of the N labels are k, and C classes occur at all; a class that does not
  occur gets weight zero. With every class present these are scikit-learn's
  "balanced" weights.

  Args:
    labels: (N,) int.
    num_classes: K.

  Returns:
    (K,) float32.
  """
  counts = np.bincount(check_labels(labels, num_classes), None, num_classes)
  present = counts > 0
  weights = np.zeros(num_classes, np.float32)
  weights[present] = counts.sum() / (present.sum() * counts[present])
  return weights


def confusion_matrix(
  labels: ArrayLike, predictions: ArrayLike, num_classes: int
) -> np.ndarray:
  """Returns counts (K, K): rows are the true classes, columns the answers."""
  rows = check_labels(labels, num_classes)
  columns = check_labels(predictions, num_classes)
  if rows.shape != columns.shape:
    raise ValueError(
      f'labels and predictions must have one shape, got {rows.shape} and '
      f'{columns.shape}.'
    )
  cells = np.bincount(rows * num_classes + columns, None, num_classes**2)
  return cells.reshape(num_classes, num_classes)


def check_labels(labels: ArrayLike, num_classes: int) -> np.ndarray:
  """Returns labels (N,) as int64.

  Raises:
    ValueError: they are not integers in 0..num_classes - 1.
  """
  labels = np.asarray(labels)
  if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
    raise ValueError(
      f'labels must be integers of shape (N,), got {labels.dtype} of shape '
      f'{labels.shape}.'
    )
  if labels.size and (labels.min() < 0 or labels.max() >= num_classes):
    raise ValueError(
      f'labels must be in 0..{num_classes - 1}, got {labels.min()}..'
      f'{labels.max()}.'
    )
  return labels.astype(np.int64)


@dataclasses.dataclass(frozen=True)
class Scores:
  """Measures of a classifier on a labelled set, all in [0, 1].

  Attributes:
    accuracy: fraction of correct answers.
    balanced_accuracy: mean recall of the classes that occur.
    precision: mean over classes of correct / called so; 0 where never called.
    recall: mean over classes of correct / occurring; 0 where none occurs.
    f1: mean over classes of their harmonic means of precision and recall.
    confusion: counts, rows true, columns answered.

  The last three means are over the classes that occur or are answered, as
  scikit-learn takes them with `average='macro', zero_division=0`.
  """

  accuracy: float
  balanced_accuracy: float
  precision: float
  recall: float
  f1: float
  confusion: tuple[tuple[int, ...], ...]

  def as_dict(self) -> Mapping[str, object]:
    """Returns the measures by name, ready for JSON."""
    return dataclasses.asdict(self)


def scores(confusion: ArrayLike) -> Scores:
  """Returns the measures of a confusion matrix (K, K), see `Scores`.

  Raises:
    ValueError: the matrix is not square or counts nothing.
  """
  counts = np.asarray(confusion, np.float64)
  if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or not counts.sum():
    raise ValueError(
      f'confusion must be square with some counts, got shape {counts.shape}.'
    )
  correct, true, called = np.diag(counts), counts.sum(1), counts.sum(0)
  involved = (true + called) > 0
  recall = _ratio(correct, true)
  return Scores(
    accuracy=float(correct.sum() / counts.sum()),
    balanced_accuracy=float(recall[true > 0].mean()),
    precision=float(_ratio(correct, called)[involved].mean()),
    recall=float(recall[involved].mean()),
    f1=float(_ratio(2 * correct, true + called)[involved].mean()),
    confusion=tuple(tuple(map(int, row)) for row in counts),
  )


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
  """Returns numerator / denominator, 0 where the denominator is 0."""
  safe = np.where(denominator > 0, denominator, 1)
  return np.where(denominator > 0, numerator / safe, 0.0)
