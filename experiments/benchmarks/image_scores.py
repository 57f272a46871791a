"""How wrong indices of images are, and what their intervals say about it.

An index is off by what the method errs and, where the truth was sampled, by
what the truth errs. The second has a known standard error se for each index
and is independent of the first, so that

    root mean square error = sqrt(max(0, mean((estimate - truth)² - se²)))

over indices, images and keys does not grow with it. Median and worst errors
do, and coverage falls with it.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses

import numpy as np

from experiments.benchmarks import gpc_functions
from experiments.benchmarks import studies
from jaxsens.gpc import intervals as intervals_lib

Indices = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Scores:
  """Errors of R keys, I images and 2 D indices, first-order ones first.

  Attributes:
    images: the images, by position in their study.
    wrong: (R, I, 2 D) estimate minus truth.
    truth_errors: (I, 2 D) standard errors of the truth; NaN: not known.
    half_widths: (R, I, 2 D) of the intervals; None of a method without.
    inside: (R, I, 2 D) whether the interval holds the truth; None without.
  """

  images: tuple[int, ...]
  wrong: np.ndarray
  truth_errors: np.ndarray
  half_widths: np.ndarray | None = None
  inside: np.ndarray | None = None


def score(
  truths: Mapping[int, studies.Truth],
  images: Sequence[int],
  found: Sequence[Sequence[Indices]],
  intervals: Sequence[Sequence[intervals_lib.Intervals]] | None = None,
) -> Scores:
  """Returns the scores of a method.

  Args:
    truths: by position of the image.
    images: the I images that were analysed.
    found: for each of R keys and each image first-order (D,) and total (D,)
      indices.
    intervals: likewise those of the first output, if the method has any.
  """
  known = [truths[i] for i in images]
  expected = np.array([truth.indices for truth in known])
  estimates = np.array([
    [np.concatenate([np.ravel(part) for part in one]) for one in of_key]
    for of_key in found
  ])
  unknown = np.full(expected.shape[1], np.nan)
  errors = np.array([
    unknown if truth.errors is None else truth.errors for truth in known
  ])
  scores = Scores(tuple(images), estimates - expected, errors)
  if intervals is None:
    return scores
  return dataclasses.replace(
    scores,
    half_widths=np.array([
      list(map(gpc_functions.half_widths, one)) for one in intervals
    ]),
    inside=np.array([
      [
        gpc_functions.covers(one, (truth.first_order, truth.total))
        for one, truth in zip(of_key, known, strict=True)
      ]
      for of_key in intervals
    ]),
  )


def summary(scores: Scores, images: Sequence[int]) -> dict[str, float]:
  """Returns measures of some of the images.

  The error of an image is the largest over its indices. The median error is
  the median over keys of the median over images; the worst is that of all keys
  and images. With intervals:

    covered: share of all indices that are inside of theirs.
    mean half-width: of the widest interval of each image.
    error / half-width: the 95 % quantile over all indices; 1 is what intervals
      of 95 % would have.
    worst image covered: share of the indices that are inside of theirs, over
      all keys, of the image of the worst error.

  With truths whose errors are known for each index:

    root mean square error: as above; 0: not told from that of the truth.
    truth's own: root mean square standard error of the truth.
    images of it: those that have such truths, if not all.

  Args:
    scores: of a method.
    images: which of its images, by position in the study.
  """
  at = [scores.images.index(i) for i in images]
  largest = np.abs(scores.wrong[:, at]).max(axis=-1)
  medians = np.median(largest, axis=1)
  worst = at[int(np.argmax(largest.max(axis=0)))]
  measures = {
    'images': len(at), 'keys': len(largest),
    'median error': float(np.median(medians)),
    'worst error': float(largest.max()),
    'position of the worst': scores.images[worst],
  }
  if len(medians) > 1:
    measures['median error of the worst key'] = float(medians.max())
  measures |= _without_noise(scores.wrong[:, at], scores.truth_errors[at])
  if scores.inside is None:
    return measures
  widths = scores.half_widths[:, at]
  return measures | {
    'covered': float(scores.inside[:, at].mean()),
    'mean half-width': float(np.nanmean(widths.max(axis=-1))),
    'error / half-width': gpc_functions.relative_error(
      scores.wrong[:, at], widths
    ),
    'worst image covered': float(scores.inside[:, worst].mean()),
  }


def _without_noise(wrong, truth_errors) -> dict[str, float]:
  """Measures over the images whose truths have a known error."""
  known = ~np.isnan(truth_errors).any(axis=1)
  if not known.any():
    return {}
  squares = truth_errors[known] ** 2
  # Of NumPy, which keeps NaN: a method without an answer has no error.
  excess = np.maximum(0, np.mean(wrong[:, known] ** 2 - squares))
  measures = {'root mean square error': float(np.sqrt(excess))}
  if squares.any():
    measures["truth's own"] = float(np.sqrt(squares.mean()))
  if not known.all():
    measures['images of it'] = int(known.sum())
  return measures
