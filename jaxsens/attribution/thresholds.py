"""From heat maps to masks, with a threshold that no test image has chosen.

Blur, sign and threshold are chosen on validation images, by the mean Dice over
a grid; then they are judged on images that took no part, with intervals over
resampled images.
"""

from collections.abc import Sequence
import dataclasses
from typing import Any

import jax
import numpy as np

from jaxsens.attribution import localisation
from jaxsens.attribution import measures
from jaxsens.attribution import ranking
from jaxsens.uncertainty import resampling

RULES = ('deviation', 'quantile')
"""A threshold at mean + k · std of a map, or at a quantile of it."""


@dataclasses.dataclass(frozen=True, eq=False)
class Choice:
  """How heat maps become masks, as chosen on validation images.

  Attributes:
    sign: one of `localisation.SIGNS`.
    blur: standard deviation in pixels.
    rule: one of `RULES`.
    threshold: k, or the share of the pixels below.
    validation_dice: mean over the validation images where Dice exists.
    num_validation: of these images.
    num_undefined: validation images without a Dice at this choice.
    signs, blurs, thresholds: the grid.
    table: mean Dice of the grid, (signs, blurs, thresholds).
  """

  sign: str
  blur: float
  rule: str
  threshold: float
  validation_dice: float
  num_validation: int
  num_undefined: int
  signs: tuple[str, ...]
  blurs: tuple[float, ...]
  thresholds: tuple[float, ...]
  table: np.ndarray

  @property
  def at_border(self) -> tuple[str, ...]:
    """Which of 'blur', 'threshold' are at an end of a grid of several."""
    return tuple(
      name for name, value, grid in (
        ('blur', self.blur, self.blurs),
        ('threshold', self.threshold, self.thresholds),
      )
      if len(grid) > 1 and value in (min(grid), max(grid))
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Judgement:
  """What a choice is worth on images that took no part in it.

  Attributes:
    measures: by name, a number per image each.
    intervals: by name, (lower, upper) of the mean; NaN where no image has it.
    level: coverage of the intervals.
  """

  measures: dict[str, measures.Measure]
  intervals: dict[str, tuple[float, float]]
  level: float


def choose(
  heat_maps: Any,
  masks: np.ndarray,
  *,
  signs: Sequence[str] = ('positive', 'absolute'),
  blurs: Sequence[float] = (0.0, 1.0, 2.0, 4.0, 8.0),
  rule: str = 'deviation',
  thresholds: Sequence[float] = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0),
) -> Choice:
  """Returns the choice of largest mean Dice on validation images.

  Of equal ones the first in the order of the grid (sign, blur, threshold).

  Args:
    heat_maps: (B, H, W) of validation images.
    masks: (B, H, W) bool.
    signs: of `localisation.SIGNS`.
    blurs: standard deviations in pixels.
    rule: one of `RULES`.
    thresholds: k, or shares of the pixels below.

  Raises:
    ValueError: an empty grid, an unknown rule, masks of another size, or no
      image with a Dice.
  """
  if rule not in RULES or not (len(signs) and len(blurs) and len(thresholds)):
    raise ValueError(
      f'rule must be one of {RULES} and the grid not be empty, got {rule!r}, '
      f'signs {tuple(signs)}, blurs {tuple(blurs)} and thresholds '
      f'{tuple(thresholds)}.'
    )
  table = np.empty((len(signs), len(blurs), len(thresholds)))
  undefined = np.empty(table.shape, int)
  for i, sign in enumerate(signs):
    for j, blur in enumerate(blurs):
      smoothed = localisation.smooth(heat_maps, sign=sign, blur=blur)
      for k, threshold in enumerate(thresholds):
        predicted = _above(smoothed, rule, threshold)
        dice = localisation.overlap(predicted, masks).dice
        table[i, j, k], undefined[i, j, k] = dice.mean, dice.num_undefined
  if np.isnan(table).all():
    raise ValueError(
      'no validation image has a Dice: all masks are empty and no pixel is '
      'above any threshold.'
    )
  best = np.unravel_index(np.nanargmax(table), table.shape)
  i, j, k = best
  return Choice(
    signs[i], float(blurs[j]), rule, float(thresholds[k]), float(table[best]),
    len(smoothed), int(undefined[best]), tuple(signs), tuple(map(float, blurs)),
    tuple(map(float, thresholds)), table,
  )


def binarise(choice: Choice, heat_maps: Any) -> np.ndarray:
  """Returns the masks that a choice makes of heat maps, (B, H, W) bool."""
  smoothed = localisation.smooth(
    heat_maps, sign=choice.sign, blur=choice.blur
  )
  return _above(smoothed, choice.rule, choice.threshold)


def judge(
  key: jax.Array,
  choice: Choice,
  heat_maps: Any,
  masks: np.ndarray,
  *,
  tolerance: float = 0.0,
  groups: np.ndarray | None = None,
  num_samples: int = 1000,
  level: float = 0.95,
) -> Judgement:
  """Returns all measures of localisation on images that chose nothing.

  Measures of a mask use the choice; the pointing game, accuracies of mass and
  rank and the areas under curves use maps of its sign and blur.

  Args:
    key: of the resamples, the same for all measures.
    choice: made on other images.
    heat_maps: (B, H, W) of test images.
    masks: (B, H, W) bool.
    tolerance: of the pointing game, in pixels.
    groups: (B,) recording of each image; whole groups are resampled.
    num_samples: resamples.
    level: coverage of the intervals, in (0, 1).

  Raises:
    ValueError: masks of another size, values that are not finite, a level
      outside (0, 1).
  """
  smoothed = localisation.smooth(
    heat_maps, sign=choice.sign, blur=choice.blur
  )
  predicted = _above(smoothed, choice.rule, choice.threshold)
  overlap = localisation.overlap(predicted, masks)
  found = [
    overlap.dice, overlap.iou, overlap.precision, overlap.recall,
    overlap.accuracy,
    localisation.pointing_game(smoothed, masks, tolerance=tolerance),
    localisation.mass_accuracy(smoothed, masks),
    localisation.rank_accuracy(smoothed, masks),
    ranking.auroc(smoothed, masks), ranking.auprc(smoothed, masks),
    ranking.aupro(smoothed, masks),
  ]
  values = np.stack([measure.values for measure in found], 1)
  means = np.stack([
    _means(values[rows])
    for rows in resampling.resamples(
      key, len(values), groups=groups, num_samples=num_samples
    )
  ])
  return Judgement(
    {measure.name: measure for measure in found},
    {
      measure.name: (float('nan'),) * 2 if np.isnan(measure.mean)
      else resampling.percentiles(column, level)
      for measure, column in zip(found, means.T, strict=True)
    },
    level,
  )


def _above(smoothed, rule, threshold):
  if rule == 'deviation':
    return localisation.above_deviation(smoothed, threshold)
  return localisation.above_quantile(smoothed, threshold)


def _means(values):
  """Returns the means of the columns over what exists; NaN of nothing."""
  known = ~np.isnan(values)
  return np.divide(
    np.where(known, values, 0).sum(0), known.sum(0),
    out=np.full(values.shape[1], np.nan), where=known.any(0),
  )
