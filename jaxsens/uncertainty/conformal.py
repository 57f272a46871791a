"""Sets of classes that hold the true one with a probability that is chosen.

Every class of an image has a score, larger where it fits worse; a set takes the
classes whose score is at most a threshold, the ceil((n + 1)(1 - alpha))-th
smallest score of the true classes of n calibration images. If these and a new
image are exchangeable, its set holds the true class with a probability of at
least 1 - alpha, whatever the network: over calibration sets, not for each
class or image.

    'thr'    1 - p_k
    'aps'    Σ of the p_j above p_k  +  u p_k
    'raps'   the same  +  penalty max(0, rank of k - free_ranks)

Classes of equal probability rank in their order. u is uniform on [0, 1), one
per image, where a key is given, and 1 without; without it the sets are larger
than need be. A set may be empty, unless `nonempty` adds its likeliest class.

References:
  Sadinle, Lei, Wasserman, Least ambiguous set-valued classifiers with bounded
  error levels, 2019 (THR).
  Romano, Sesia, Candès, Classification with valid and adaptive coverage, 2020
  (APS).
  Angelopoulos, Bates, Malik, Jordan, Uncertainty sets for image classifiers
  using conformal prediction, 2021 (RAPS).
"""

import dataclasses

import jax
from jax.typing import ArrayLike
import numpy as np
from scipy import stats

from jaxsens.uncertainty import calibration


@dataclasses.dataclass(frozen=True)
class Method:
  """How the classes of an image are scored.

  Attributes:
    name: 'thr', 'aps' or 'raps'.
    penalty: of 'raps', per rank beyond the free ones, not negative.
    free_ranks: of 'raps', ranks without a penalty.
  """

  name: str
  penalty: float = 0.0
  free_ranks: int = 0

  def __post_init__(self):
    if self.name not in ('thr', 'aps', 'raps'):
      raise ValueError(
        f"name must be 'thr', 'aps' or 'raps', got {self.name!r}."
      )
    if not self.penalty >= 0 or self.free_ranks < 0:
      raise ValueError(
        'penalty and free_ranks must not be negative, got '
        f'{self.penalty} and {self.free_ranks}.'
      )
    if self.name != 'raps' and (self.penalty or self.free_ranks):
      raise ValueError(f'{self.name} has no penalty and no free ranks.')

  def scores(
    self, probabilities: ArrayLike, *, key: jax.Array | None = None
  ) -> np.ndarray:
    """Returns the scores (N, K) of all classes of images.

    Args:
      probabilities: (N, K).
      key: of the randomisation; None takes u = 1.
    """
    p = _probabilities(probabilities)
    if self.name == 'thr':
      return 1 - p
    order = np.argsort(-p, axis=1, kind='stable')
    ranks = np.argsort(order, axis=1) + 1
    sorted_p = np.take_along_axis(p, order, 1)
    above = np.cumsum(sorted_p, axis=1) - sorted_p
    above = np.take_along_axis(above, ranks - 1, 1)
    u = 1.0 if key is None else np.asarray(
      jax.random.uniform(key, (len(p), 1)), np.float64
    )
    beyond = np.maximum(ranks - self.free_ranks, 0)
    return above + u * p + self.penalty * beyond


@dataclasses.dataclass(frozen=True)
class Assessment:
  """What sets are worth on labelled images.

  Attributes:
    coverage: share of the sets that hold the true class.
    coverage_lower, coverage_upper: Clopper and Pearson's interval.
    mean_size: classes per set.
    size_lower, size_upper: normal interval of it.
    class_coverage: (K,) coverage of the images of each class, NaN where none.
    empty: share of the sets without any class.
    level: of the intervals.
  """

  coverage: float
  coverage_lower: float
  coverage_upper: float
  mean_size: float
  size_lower: float
  size_upper: float
  class_coverage: tuple[float, ...]
  empty: float
  level: float


def calibrate(
  probabilities: ArrayLike,
  labels: ArrayLike,
  *,
  method: Method,
  miscoverage: float,
  key: jax.Array | None = None,
) -> float:
  """Returns the threshold; infinity where there are too few images for it.

  Args:
    probabilities: (n, K) of calibration images, which nothing was chosen by.
    labels: (n,).
    method: how classes are scored.
    miscoverage: alpha in (0, 1).
    key: see `Method.scores`; of no other images.

  Raises:
    ValueError: alpha is out of range, or see `calibration.checked`.
  """
  if not 0 < miscoverage < 1:
    raise ValueError(f'miscoverage must lie in (0, 1), got {miscoverage}.')
  probabilities, labels = calibration.checked(probabilities, labels)
  scores = method.scores(probabilities, key=key)
  true = np.sort(scores[np.arange(len(labels)), labels])
  # (n + 1)(1 - alpha) may come out a rounding error above an integer.
  rank = int(np.ceil((len(true) + 1) * (1 - miscoverage) - 1e-9))
  return float(true[rank - 1]) if rank <= len(true) else float('inf')


def predict(
  probabilities: ArrayLike,
  threshold: float,
  *,
  method: Method,
  key: jax.Array | None = None,
  nonempty: bool = False,
) -> np.ndarray:
  """Returns the sets (N, K) bool.

  Args:
    probabilities: (N, K).
    threshold: of `calibrate` with the same method.
    method: how classes are scored.
    key: see `Method.scores`; given or not as in the calibration.
    nonempty: whether the likeliest class is always in.
  """
  probabilities = _probabilities(probabilities)
  # Summed in another order, 1 may be a little more than 1.
  sets = method.scores(probabilities, key=key) <= threshold + 1e-12
  if nonempty:
    sets[np.arange(len(sets)), probabilities.argmax(1)] = True
  return sets


def assess(
  sets: ArrayLike, labels: ArrayLike, *, level: float = 0.95
) -> Assessment:
  """Returns coverage and size of sets.

  The interval is over test images with the calibration as it is; the coverage
  that a calibration happens to have spreads by about
  sqrt(alpha (1 - alpha) / n) around its mean.

  Args:
    sets: (N, K) bool.
    labels: (N,) int in 0..K-1.
    level: of the intervals, in (0, 1).

  Raises:
    ValueError: other shapes, no images, or a level out of range.
  """
  sets, labels = np.asarray(sets, bool), np.asarray(labels)
  if sets.ndim != 2 or labels.shape != sets.shape[:1] or not len(labels):
    raise ValueError(
      'sets must have shape (N, K) and labels (N,) with N >= 1, got '
      f'{sets.shape} and {labels.shape}.'
    )
  if not 0 < level < 1:
    raise ValueError(f'level must be in (0, 1), got {level}.')
  covered = sets[np.arange(len(labels)), labels]
  exact = stats.binomtest(int(covered.sum()), len(covered)).proportion_ci(level)
  sizes = sets.sum(1)
  half = stats.norm.ppf((1 + level) / 2) * np.std(sizes) / len(sizes) ** 0.5
  return Assessment(
    float(covered.mean()), float(exact.low), float(exact.high),
    float(sizes.mean()), float(sizes.mean() - half), float(sizes.mean() + half),
    tuple(
      float(covered[labels == k].mean()) if np.any(labels == k) else np.nan
      for k in range(sets.shape[1])
    ),
    float(np.mean(sizes == 0)), level,
  )


def _probabilities(probabilities):
  p = np.asarray(probabilities, np.float64)
  if p.ndim != 2:
    raise ValueError(f'probabilities must have shape (N, K), got {p.shape}.')
  return calibration.checked(p, np.zeros(len(p), np.int32))[0]
