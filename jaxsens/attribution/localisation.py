"""Does a heat map lie on the object? Heat maps against true masks.

`heat_maps` are (B, H, W), or an `Attribution`; `masks` are (B, H, W) bool, True
on the object, of the size of the maps: nothing is resized in silence. Every
function returns one number per image. A measure that does not exist for an
image is NaN there and counted, see `measures.Measure`:

- an empty mask has no pointing game, mass accuracy, rank accuracy, recall,
  AUROC, AUPRC or AUPRO; a full one no AUROC and no AUPRO;
- a map without a positive value has no mass accuracy;
- an empty prediction has no precision, and with an empty mask no Dice and IoU.

Where values of a map are equal, and order decides, the number is the mean over
all orders: a constant map points at the object with the probability that a
random pixel does.
"""

import dataclasses
from typing import Any

import numpy as np
from scipy import ndimage

from jaxsens.attribution import measures

SIGNS = ('signed', 'positive', 'absolute')
"""What of a heat map counts: as it is, max(map, 0), or |map|."""


def pointing_game(
  heat_maps: Any, masks: np.ndarray, *, tolerance: float = 0
) -> measures.Measure:
  """Returns whether the largest value lies on the object, 0 or 1.

  Args:
    heat_maps: (B, H, W).
    masks: (B, H, W) bool.
    tolerance: in pixels, distance to the object that still counts as a hit.

  Raises:
    ValueError: shapes that differ, values that are not finite, or a negative
      tolerance.

  References:
    Zhang et al., Top-down neural attention by excitation backprop, 2018,
    section 4.2 (tolerance of 15 pixels).
  """
  heat_maps, masks = _checked(heat_maps, masks)
  if tolerance < 0:
    raise ValueError(f'tolerance must not be negative, got {tolerance}.')

  def hit(heat_map, mask):
    near = ndimage.distance_transform_edt(~mask) <= tolerance
    return near[heat_map == heat_map.max()].mean()

  return _each('pointing game', hit, heat_maps, masks)


def mass_accuracy(heat_maps: Any, masks: np.ndarray) -> measures.Measure:
  """Returns the share of the positive values that lies on the object.

      Σ_{mask} max(map, 0) / Σ max(map, 0)

  Args:
    heat_maps: (B, H, W).
    masks: (B, H, W) bool.

  Raises:
    ValueError: shapes that differ, or values that are not finite.

  References:
    Arras, Osman and Samek, CLEVR-XAI, 2022, equation 1.
  """
  def share(heat_map, mask):
    positive = heat_map.clip(0)
    return _ratio(positive[mask].sum(), positive.sum())

  return _each('mass accuracy', share, *_checked(heat_maps, masks))


def rank_accuracy(heat_maps: Any, masks: np.ndarray) -> measures.Measure:
  """Returns the share of the object among as many largest values.

      |the |mask| pixels of largest value within the mask| / |mask|

  Args:
    heat_maps: (B, H, W).
    masks: (B, H, W) bool.

  Raises:
    ValueError: shapes that differ, or values that are not finite.

  References:
    Arras, Osman and Samek, CLEVR-XAI, 2022, equation 2.
  """
  def share(heat_map, mask):
    size = mask.sum()
    last = np.partition(heat_map.ravel(), -size)[-size]
    above, ties = heat_map > last, heat_map == last
    drawn = (size - above.sum()) / ties.sum()
    return (mask[above].sum() + drawn * mask[ties].sum()) / size

  return _each('rank accuracy', share, *_checked(heat_maps, masks))


@dataclasses.dataclass(frozen=True, eq=False)
class Overlap:
  """Pixels of predicted masks against true ones, (B,) int64 each.

  Attributes:
    true_positives: predicted and on the object.
    false_positives: predicted and beside it.
    false_negatives: on the object and not predicted.
    true_negatives: neither.
  """

  true_positives: np.ndarray
  false_positives: np.ndarray
  false_negatives: np.ndarray
  true_negatives: np.ndarray

  @property
  def dice(self) -> measures.Measure:
    """2 TP / (2 TP + FP + FN)."""
    both = 2 * self.true_positives
    return measures.Measure('Dice', _ratio(both, both + self._errors))

  @property
  def iou(self) -> measures.Measure:
    """TP / (TP + FP + FN)."""
    both = self.true_positives
    return measures.Measure('IoU', _ratio(both, both + self._errors))

  @property
  def precision(self) -> measures.Measure:
    """TP / (TP + FP)."""
    both = self.true_positives
    return measures.Measure(
      'precision', _ratio(both, both + self.false_positives)
    )

  @property
  def recall(self) -> measures.Measure:
    """TP / (TP + FN)."""
    both = self.true_positives
    return measures.Measure('recall', _ratio(both, both + self.false_negatives))

  @property
  def accuracy(self) -> measures.Measure:
    """(TP + TN) / all pixels."""
    right = self.true_positives + self.true_negatives
    return measures.Measure('accuracy', _ratio(right, right + self._errors))

  @property
  def _errors(self):
    return self.false_positives + self.false_negatives


def overlap(predicted: np.ndarray, masks: np.ndarray) -> Overlap:
  """Returns how predicted masks cover true ones.

  Args:
    predicted: (B, H, W) bool, see `binarise`.
    masks: (B, H, W) bool.

  Raises:
    ValueError: shapes that differ, or numbers other than bool.
  """
  predicted = as_masks(predicted, np.shape(masks), 'predicted')
  masks = as_masks(masks, predicted.shape)
  counts = [
    (p & m).sum((1, 2))
    for p, m in (
      (predicted, masks), (predicted, ~masks), (~predicted, masks),
      (~predicted, ~masks),
    )
  ]
  return Overlap(*counts)


def smooth(
  heat_maps: Any, *, sign: str = 'positive', blur: float = 0.0
) -> np.ndarray:
  """Returns heat maps of one sign under a Gaussian, (B, H, W).

  Args:
    heat_maps: (B, H, W).
    sign: one of `SIGNS`, taken before the blur.
    blur: standard deviation in pixels; 0 for none. The border is mirrored.

  Raises:
    ValueError: an unknown sign, a negative blur, or values not finite.
  """
  heat_maps = measures.as_heat_maps(heat_maps)
  if sign not in SIGNS or blur < 0:
    raise ValueError(
      f'sign must be one of {SIGNS} and blur not negative, got {sign!r} and '
      f'{blur}.'
    )
  if sign != 'signed':
    heat_maps = heat_maps.clip(0) if sign == 'positive' else np.abs(heat_maps)
  return ndimage.gaussian_filter(heat_maps, (0, blur, blur), mode='reflect')


def above_deviation(heat_maps: Any, deviations: float) -> np.ndarray:
  """Returns the pixels above mean + deviations · std of each map, (B, H, W).

  A constant map has none, whatever the number of deviations.

  Args:
    heat_maps: (B, H, W), see `smooth`.
    deviations: k, of the standard deviation over the pixels of the map.
  """
  heat_maps = measures.as_heat_maps(heat_maps)
  means = heat_maps.mean((1, 2), keepdims=True)
  stds = heat_maps.std((1, 2), keepdims=True)
  return (heat_maps > means + deviations * stds) & _varies(heat_maps)


def above_quantile(heat_maps: Any, share: float) -> np.ndarray:
  """Returns the pixels above a quantile of each map, (B, H, W).

  Strictly above: of a map that is zero nearly everywhere these are fewer than
  1 - share, and of a constant one none.

  Args:
    heat_maps: (B, H, W), see `smooth`.
    share: of the pixels below, in [0, 1].

  Raises:
    ValueError: a share outside [0, 1], or values not finite.
  """
  heat_maps = measures.as_heat_maps(heat_maps)
  if not 0 <= share <= 1:
    raise ValueError(f'share must be in [0, 1], got {share}.')
  limits = np.quantile(heat_maps, share, (1, 2), keepdims=True)
  return (heat_maps > limits) & _varies(heat_maps)


def as_masks(
  masks: np.ndarray, shape: tuple[int, ...], name: str = 'masks'
) -> np.ndarray:
  """Returns masks as a bool array (B, H, W) of a given shape.

  Raises:
    ValueError: another shape, or values other than bool.
  """
  masks = np.asarray(masks)
  if masks.shape != tuple(shape) or masks.ndim != 3:
    raise ValueError(
      f'{name} must have the size of the heat maps, (B, H, W) = '
      f'{tuple(shape)}, got {masks.shape}; resize the maps or the masks first.'
    )
  if masks.dtype != bool:
    raise ValueError(
      f'{name} must be bool, got {masks.dtype}; write for instance mask > 0.'
    )
  return masks


def _checked(heat_maps, masks):
  heat_maps = measures.as_heat_maps(heat_maps)
  return heat_maps, as_masks(masks, heat_maps.shape)


def _each(name, function, heat_maps, masks):
  """Returns a measure that exists where the mask has a pixel."""
  return measures.Measure(name, np.array([
    float(function(heat_map, mask)) if mask.any() else np.nan
    for heat_map, mask in zip(heat_maps, masks, strict=True)
  ]))


def _ratio(numerators, denominators):
  found = np.full(np.shape(denominators), np.nan)
  return np.divide(
    numerators, denominators, out=found, where=np.asarray(denominators) > 0
  )


def _varies(heat_maps):
  # Rounding can put the mean of equal values beside them.
  lowest, highest = (
    f(heat_maps, axis=(1, 2), keepdims=True) for f in (np.min, np.max)
  )
  return lowest < highest
