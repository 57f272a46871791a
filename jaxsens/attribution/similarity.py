"""How alike two heat maps of one image are."""

import dataclasses

import numpy as np
from scipy import ndimage

from jaxsens.attribution import measures

_WINDOW = 1.5
_TRUNCATE = 3.5


@dataclasses.dataclass(frozen=True, eq=False)
class Similarity:
  """Three comparisons of pairs of heat maps, all 1 for equal maps.

  Attributes:
    spearman: (..., B) rank correlations of the values; NaN where a map has one
      value only.
    absolute_spearman: (..., B) rank correlations of their sizes.
    ssim: (..., B) structural similarity, see `ssim`.
  """

  spearman: np.ndarray
  absolute_spearman: np.ndarray
  ssim: np.ndarray

  @property
  def num_undefined(self) -> int:
    """Number of pairs without a rank correlation of the values."""
    return int(np.isnan(self.spearman).sum())


def compare(first: np.ndarray, second: np.ndarray) -> Similarity:
  """Returns how alike heat maps are, pair by pair.

  Args:
    first: (B, H, W).
    second: (B, H, W).
  """
  return Similarity(
    measures.spearman(first, second),
    measures.spearman(np.abs(first), np.abs(second)),
    ssim(first, second),
  )


def stack(rows: list[Similarity]) -> Similarity:
  """Returns comparisons with a leading axis of several."""
  return Similarity(
    np.stack([row.spearman for row in rows]),
    np.stack([row.absolute_spearman for row in rows]),
    np.stack([row.ssim for row in rows]),
  )


def ssim(first: np.ndarray, second: np.ndarray) -> np.ndarray:
  """Returns the mean structural similarity of pairs of heat maps, (B,).

      (2 μ μ' + c₁)(2 σ_xy + c₂) / ((μ² + μ'² + c₁)(σ² + σ'² + c₂))

  of maps m turned into (1 + m / max |m|) / 2, in [0, 1] with zero at 1/2 (with
  signed numbers the product of two negative factors would call a map and its
  negative alike); local moments under a Gaussian of 1.5 pixels cut off at 5,
  mirrored at the border; c₁ = 0.01², c₂ = 0.03².

  Args:
    first: (B, H, W).
    second: (B, H, W).

  References:
    Wang et al., Image quality assessment, 2004, equation 13.
  """
  x, y = (_scaled(np.asarray(maps, np.float64)) for maps in (first, second))
  mean_x, mean_y = _local(x), _local(y)
  variance_x = _local(x * x) - mean_x**2
  variance_y = _local(y * y) - mean_y**2
  covariance = _local(x * y) - mean_x * mean_y
  c1, c2 = 0.01**2, 0.03**2
  found = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
  found /= (mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)
  return found.mean((1, 2))


def _scaled(maps):
  sizes = np.abs(maps).max((1, 2), keepdims=True)
  return (1 + maps / np.where(sizes > 0, sizes, 1)) / 2


def _local(maps):
  return ndimage.gaussian_filter(
    maps, (0, _WINDOW, _WINDOW), mode='reflect', truncate=_TRUNCATE
  )
