"""Areas under curves over all thresholds of a heat map, against true masks.

Contract as in `localisation`: `heat_maps` (B, H, W), `masks` (B, H, W) bool,
and NaN, counted, where an area does not exist.
"""

from typing import Any

import numpy as np
from scipy import ndimage
from sklearn import metrics

from jaxsens.attribution import localisation
from jaxsens.attribution import measures


def auroc(heat_maps: Any, masks: np.ndarray) -> measures.Measure:
  """Returns the area under true over false positive rate of the pixels.

  Args:
    heat_maps: (B, H, W).
    masks: (B, H, W) bool; NaN for an empty and for a full one.

  Raises:
    ValueError: shapes that differ, or values that are not finite.
  """
  def area(heat_map, mask):
    if mask.all() or not mask.any():
      return np.nan
    return metrics.roc_auc_score(mask.ravel(), heat_map.ravel())

  return _each('pixel AUROC', area, heat_maps, masks)


def auprc(heat_maps: Any, masks: np.ndarray) -> measures.Measure:
  """Returns the average precision of the pixels.

  Args:
    heat_maps: (B, H, W).
    masks: (B, H, W) bool; NaN for an empty one, 1 for a full one. A random map
      has the share of the mask.

  Raises:
    ValueError: shapes that differ, or values that are not finite.
  """
  def area(heat_map, mask):
    if not mask.any():
      return np.nan
    return metrics.average_precision_score(mask.ravel(), heat_map.ravel())

  return _each('pixel AUPRC', area, heat_maps, masks)


def aupro(
  heat_maps: Any, masks: np.ndarray, *, max_false_positive_rate: float = 0.3
) -> measures.Measure:
  """Returns the area under the overlap of regions, for few false positives.

      ∫_0^f PRO d(FPR) / f,    PRO = mean over regions of |found| / |region|

  where regions are the parts of the mask, connected also across corners, so
  that a small one counts as much as a large one. Thresholds are of one image.

  Args:
    heat_maps: (B, H, W).
    masks: (B, H, W) bool; NaN for an empty and for a full one.
    max_false_positive_rate: f, in (0, 1].

  Raises:
    ValueError: shapes that differ, values that are not finite, or f outside
      (0, 1].

  References:
    Bergmann et al., The MVTec anomaly detection dataset, 2021, section 5.3.
  """
  limit = max_false_positive_rate
  if not 0 < limit <= 1:
    raise ValueError(
      f'max_false_positive_rate must be in (0, 1], got {limit}.'
    )

  def area(heat_map, mask):
    if mask.all() or not mask.any():
      return np.nan
    rates, overlaps = _region_curve(heat_map, mask)
    # The first at the limit or beyond; there may be several, one above another.
    stop = np.flatnonzero(rates >= limit)[0]
    end = np.interp(
      limit, rates[stop - 1:stop + 1], overlaps[stop - 1:stop + 1]
    ) if rates[stop] > limit else overlaps[stop]
    return np.trapezoid(
      np.append(overlaps[:stop], end), np.append(rates[:stop], limit)
    ) / limit

  return _each(f'pixel AUPRO to {limit:g}', area, heat_maps, masks)


def _region_curve(heat_map, mask):
  """Returns false positive rates and mean overlaps, from (0, 0) to (1, 1)."""
  regions, number = ndimage.label(mask, np.ones((3, 3)))
  sizes = np.bincount(regions.ravel())
  gains = np.where(mask, 1 / (number * sizes[regions]), 0).ravel()
  order = np.argsort(-heat_map, axis=None, kind='stable')
  values = heat_map.ravel()[order]
  # Equal values pass a threshold together.
  last = np.append(values[1:] != values[:-1], True)
  false = np.cumsum(~mask.ravel()[order])[last] / sizes[0]
  overlaps = np.cumsum(gains[order])[last]
  return np.append(0, false), np.append(0, overlaps)


def _each(name, function, heat_maps, masks):
  heat_maps = measures.as_heat_maps(heat_maps)
  masks = localisation.as_masks(masks, heat_maps.shape)
  return measures.Measure(name, np.array([
    float(function(heat_map, mask))
    for heat_map, mask in zip(heat_maps, masks, strict=True)
  ]))
