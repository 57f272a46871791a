"""A number per image, and what the measures of heat maps share.

A heat map is (H, W), signed, large where the method says that the pixel counts
for the target; `maps.Attribution.heat_maps` has one per image. A measure that
does not exist for an image (a mask without pixels, a map without any order) is
NaN there: `Measure.mean` leaves these out and `num_undefined` counts them.
"""

import dataclasses
from typing import Any

import numpy as np
from scipy import stats

from jaxsens.attribution import maps


@dataclasses.dataclass(frozen=True, eq=False)
class Measure:
  """One number per image.

  Attributes:
    name: what is measured.
    values: (B,) float64; NaN where it does not exist.
  """

  name: str
  values: np.ndarray

  @property
  def num_undefined(self) -> int:
    """Number of images for which the measure does not exist."""
    return int(np.isnan(self.values).sum())

  @property
  def mean(self) -> float:
    """Mean over the images for which it exists; NaN if there are none."""
    known = self.values[~np.isnan(self.values)]
    return float(known.mean()) if len(known) else float('nan')


def as_heat_maps(
  heat_maps: Any, shape: tuple[int, int, int] | None = None
) -> np.ndarray:
  """Returns heat maps as float64 (B, H, W).

  Args:
    heat_maps: (B, H, W), or an `Attribution`.
    shape: (B, H, W) that they must have; None takes any.

  Raises:
    ValueError: another shape, or a number that is not finite; the message names
      the images.
  """
  found = np.asarray(heat_maps_of(heat_maps), np.float64)
  if found.ndim != 3 or not found.size or shape not in (None, found.shape):
    expected = '(B, H, W)' if shape is None else str(tuple(shape))
    raise ValueError(
      f'heat_maps must have shape {expected}, one (H, W) per image, got '
      f'{found.shape}.'
    )
  check_finite('heat_maps', found)
  return found


def as_values(
  attributions: Any, shape: tuple[int, ...]
) -> np.ndarray:
  """Returns attributions of every channel, (B, H, W, C).

  Args:
    attributions: an array, or an `Attribution`.
    shape: (B, H, W, C) that they must have.

  Raises:
    ValueError: another shape, or a number that is not finite.
  """
  found = np.asarray(
    attributions.values if isinstance(attributions, maps.Attribution)
    else attributions
  )
  if found.shape != tuple(shape):
    raise ValueError(
      f'attributions must have the shape of the images, {tuple(shape)}, got '
      f'{found.shape}.'
    )
  check_finite('attributions', found)
  return found


def heat_maps_of(found: Any) -> Any:
  """Returns heat maps (B, H, W) of what a method returned; traceable.

  Args:
    found: an `Attribution`, an array (B, H, W, C) whose channels are summed, or
      (B, H, W).
  """
  if isinstance(found, maps.Attribution):
    return found.heat_maps
  return found.sum(-1) if np.ndim(found) == 4 else found


def check_finite(name: str, rows: np.ndarray) -> None:
  """Raises ValueError with the rows that hold NaN or infinity."""
  finite = np.isfinite(rows).reshape(len(rows), -1).all(1)
  bad = np.flatnonzero(~finite)
  if len(bad):
    raise ValueError(
      f'{name} of {len(bad)} images hold NaN or infinity: images '
      f'{bad[:5].tolist()}{", ..." if len(bad) > 5 else ""}.'
    )


def spearman(first: np.ndarray, second: np.ndarray) -> np.ndarray:
  """Returns the rank correlation of every pair of rows, (B,) float64.

  Ties have the mean of their ranks. NaN where all numbers of a row are equal,
  which has no order.

  Args:
    first: (B, ...).
    second: of the same shape.
  """
  ranks = [
    stats.rankdata(np.reshape(x, (len(x), -1)), axis=1)
    for x in (first, second)
  ]
  centred = [x - x.mean(1, keepdims=True) for x in ranks]
  products = np.einsum('bn,bn->b', *centred)
  sizes = np.sqrt(np.prod([np.einsum('bn,bn->b', x, x) for x in centred], 0))
  return np.divide(
    products, sizes, out=np.full(len(sizes), np.nan), where=sizes > 0
  ).clip(-1, 1)
