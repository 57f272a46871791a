"""The integral along a path with its steps where the gradient changes.

The trapezoid rule on points that halve segments. The score is known at every
point of which the gradient is, so that the error of a segment [a, b] of the
path is known and not estimated:

    error = (h(a) + h(b)) (b - a) / 2 - (score(b) - score(a)),
    h = sum of the contributions = d score / d alpha.

The segments of the largest errors are halved until those of all segments add up
to less than the tolerance. A network of rectifiers often gains most of its
score on a short part of the path; there the steps go.

The gradients of two images at a time are kept until their steps are chosen,
since halving a segment changes what its ends weigh.
"""

import dataclasses
from typing import Any

import numpy as np

from jaxsens import classifiers
from jaxsens.attribution import maps
from jaxsens.attribution import paths

_FIRST = np.linspace(0, 1, 5)
_IMAGES_AT_ONCE = 2


@dataclasses.dataclass
class _Steps:
  """Points of the path of one image and what is known there."""

  alphas: list[float]
  scores: list[float]
  contributions: list[np.ndarray]

  def add(self, alpha: float, score: float, contribution: np.ndarray) -> None:
    """Puts a point at its place."""
    place = int(np.searchsorted(self.alphas, alpha))
    self.alphas.insert(place, alpha)
    self.scores.insert(place, score)
    self.contributions.insert(place, contribution)

  def errors(self) -> np.ndarray:
    """(N - 1,) errors of the segments, with their signs."""
    slopes = np.array([c.sum(dtype=np.float64) for c in self.contributions])
    widths = np.diff(self.alphas)
    return widths * (slopes[1:] + slopes[:-1]) / 2 - np.diff(self.scores)

  def is_done(self, tolerance: float, max_steps: int) -> bool:
    """Whether the error is small enough, or no step is left."""
    gain = abs(self.scores[-1] - self.scores[0])
    error = abs(self.errors().sum())
    return len(self.alphas) >= max_steps or error <= tolerance * gain

  def halves(self, number: int) -> np.ndarray:
    """Middles of the segments of the largest errors, at most `number`."""
    worst = np.argsort(-np.abs(self.errors()))[:number]
    alphas = np.asarray(self.alphas)
    return (alphas[worst] + alphas[worst + 1]) / 2

  def integral(self) -> np.ndarray:
    """(H, W, C) by the trapezoid rule."""
    widths = np.diff(self.alphas)
    weights = (np.append(widths, 0) + np.insert(widths, 0, 0)) / 2
    return sum(
      weight * contribution.astype(np.float64)
      for weight, contribution in zip(weights, self.contributions, strict=True)
    )


def integrate(
  classifier: classifiers.Classifier,
  path: paths.Path,
  data: tuple[Any, ...],
  targets: np.ndarray,
  *,
  quantity: str,
  tolerance: float,
  max_steps: int,
  chunk_size: int,
) -> dict[str, np.ndarray]:
  """Returns the fields of an `Attribution` by name.

  Args:
    classifier: what is explained.
    path: see `paths`.
    data: arrays with a row per image.
    targets: (B,) classes.
    quantity: see `maps.score`.
    tolerance: relative completeness error that ends it, at least 0.
    max_steps: most gradients per image, at least 5; where they end it, the
      completeness error tells.
    chunk_size: gradients at a time.

  Returns:
    'values', 'scores', 'baseline_scores', 'num_gradients', 'num_forwards'.

  Raises:
    ValueError: tolerance or max_steps out of range.
  """
  if not tolerance >= 0 or max_steps < len(_FIRST):
    raise ValueError(
      f'tolerance must be at least 0 and max_steps at least {len(_FIRST)}, got '
      f'{tolerance} and {max_steps}.'
    )
  maps.check_chunk_size(chunk_size)
  found = []
  for start in range(0, len(targets), _IMAGES_AT_ONCE):
    images = np.arange(start, min(start + _IMAGES_AT_ONCE, len(targets)))
    found += _integrate_some(
      classifier, path, data, targets, images, quantity, tolerance, max_steps,
      chunk_size,
    )
  number = np.array([len(steps.alphas) for steps in found])
  return {
    'values': np.stack([s.integral() for s in found]).astype(data[0].dtype),
    'scores': np.array([s.scores[-1] for s in found]),
    'baseline_scores': np.array([s.scores[0] for s in found]),
    'num_gradients': number,
    'num_forwards': np.zeros_like(number),
  }


def _integrate_some(
  classifier, path, data, targets, images, quantity, tolerance, max_steps,
  chunk_size,
) -> list[_Steps]:
  every = [_Steps([], [], []) for _ in images]
  wanted = [(i, alpha) for i in range(len(images)) for alpha in _FIRST]
  while wanted:
    for start in range(0, len(wanted), chunk_size):
      chosen = wanted[start : start + chunk_size]
      filled = np.resize(np.array([i for i, _ in chosen]), chunk_size)
      rows = images[filled]
      alphas = np.resize([alpha for _, alpha in chosen], chunk_size)
      scores, values = (np.asarray(x) for x in paths.contributions(
        classifier, path, paths.rows_of(data, rows), alphas, targets[rows],
        quantity=quantity,
      ))
      maps.check_finite(values[: len(chosen)])
      for (i, alpha), score, value in zip(chosen, scores, values, strict=False):
        every[i].add(alpha, float(score), value.copy())
    open_ones = [
      i for i, steps in enumerate(every)
      if not steps.is_done(tolerance, max_steps)
    ]
    share = max(chunk_size // max(len(open_ones), 1), 1)
    wanted = [
      (i, alpha) for i in open_ones
      for alpha in every[i].halves(
        min(share, max_steps - len(every[i].alphas))
      )
    ]
  return every
