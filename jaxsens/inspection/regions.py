"""What a region of the images does to the answer: it is replaced, and judged.

A region is a mask (H, W), or one per image: a rectangle, white stains, black
padding. It is replaced by something that shows nothing, and the score of the
image is compared with what it was. As any change of that size might do the
same, the effect is compared with that of the same shape elsewhere, see
`elsewhere`.

References:
  Mann and Whitney, On a test of whether one of two random variables is
  stochastically larger than the other, 1947.
"""

from collections.abc import Callable
import dataclasses

import jax
from jax.typing import ArrayLike
import numpy as np
from scipy import ndimage
from scipy import stats

from jaxsens import classifiers
from jaxsens.attribution import maps
from jaxsens.attribution import road

_BLUR = 0.125  # standard deviation of 'blur', in heights of the image


@dataclasses.dataclass(frozen=True, eq=False)
class Effect:
  """What replacing a region does; arrays (B,).

  Attributes:
    before, after: score of each image as it is and without the region.
    answers_before, answers_after: class answered.
    areas: share of the pixels that the region takes.
    images: (B, H, W, C) with the region replaced.
  """

  before: np.ndarray
  after: np.ndarray
  answers_before: np.ndarray
  answers_after: np.ndarray
  areas: np.ndarray
  images: np.ndarray

  @property
  def changes(self) -> np.ndarray:
    """(B,) score without the region minus score with it."""
    return self.after - self.before

  @property
  def changed(self) -> np.ndarray:
    """(B,) whether the answer is another one without the region."""
    return self.answers_after != self.answers_before


@dataclasses.dataclass(frozen=True)
class GroupComparison:
  """Two groups of numbers compared by rank.

  Attributes:
    num_first, num_second: numbers of each.
    first_median, second_median: their medians.
    u: Mann-Whitney U of the first.
    superiority: probability that one of the first is larger than one of the
      second, ties counting half; U / (num_first num_second).
    p_value: two-sided; that both are draws from one distribution.
  """

  num_first: int
  num_second: int
  first_median: float
  second_median: float
  u: float
  superiority: float
  p_value: float

  def as_dict(self) -> dict:
    """Returns the fields by name."""
    return dataclasses.asdict(self)


def rectangle(
  image_size: tuple[int, int], top: int, left: int, height: int, width: int
) -> np.ndarray:
  """Returns the mask (H, W) of a rectangle.

  Raises:
    ValueError: it is empty or reaches over the border.
  """
  rows, columns = image_size
  if not (
    0 <= top < top + height <= rows and 0 <= left < left + width <= columns
  ):
    raise ValueError(
      f'the rectangle at row {top}, column {left} of {height} x {width} pixels '
      f'must be within the image of {rows} x {columns}.'
    )
  mask = np.zeros(image_size, bool)
  mask[top : top + height, left : left + width] = True
  return mask


def stains(
  images: ArrayLike, level: float = 0.98, *, min_pixels: int = 1
) -> np.ndarray:
  """Returns masks (B, H, W) of pixels at `level` or above in all channels.

  Args:
    images: (B, H, W, C) in [0, 1].
    level: least level.
    min_pixels: of a connected piece (by edge or corner); smaller ones are left
      out.
  """
  bright = (_checked_images(images) >= level).all(-1)
  return _without_specks(bright, min_pixels, lambda labels: labels >= 0)


def padding(
  images: ArrayLike, level: float = 0.0, *, min_pixels: int = 1
) -> np.ndarray:
  """Returns masks (B, H, W) of black pixels that hang together with the border.

  Args:
    images: (B, H, W, C) in [0, 1].
    level: largest level in all channels that counts as black.
    min_pixels: as of `stains`.
  """
  dark = (_checked_images(images) <= level).all(-1)
  border = np.ones(dark.shape[1:], bool)
  border[1:-1, 1:-1] = False
  return _without_specks(
    dark, min_pixels, lambda labels: np.isin(labels, labels[border])
  )


def elsewhere(key: jax.Array, masks: ArrayLike) -> np.ndarray:
  """Returns masks (B, H, W) shifted at random, cyclically: regions to compare.

  The shift is drawn for each image by `fold_in(key, its index)` among those
  that meet the region itself least.
  """
  masks = np.asarray(masks, bool)
  moved = np.empty_like(masks)
  for i, mask in enumerate(masks):
    seed = jax.random.key_data(jax.random.fold_in(key, i))
    rng = np.random.default_rng(np.asarray(seed).ravel())
    spectrum = np.fft.rfft2(mask)
    overlap = np.fft.irfft2(np.abs(spectrum) ** 2, mask.shape).round()
    free = np.argwhere(overlap == overlap.min())
    moved[i] = np.roll(mask, free[rng.integers(len(free))], (0, 1))
  return moved


def replace(
  images: ArrayLike, masks: ArrayLike, fill: str = 'neighbours'
) -> np.ndarray:
  """Returns the images with the masked pixels replaced.

  Args:
    images: (B, H, W, C).
    masks: (H, W), or (B, H, W), bool.
    fill: 'black', 'white', 'mean' (of the pixels outside the mask, per
      channel), 'blur' (the image out of focus), or 'neighbours': each masked
      pixel is a mean of its neighbours, see `attribution.road`, which is smooth
      and meets what is around it.

  Raises:
    ValueError: an unknown fill, shapes that do not fit, or a mask that leaves
      no pixel to take 'mean' or 'neighbours' from.
  """
  images = _checked_images(images)
  masks = _checked_masks(images, masks)
  check_fill(fill)
  whole = np.flatnonzero(masks.all((1, 2)))
  if len(whole) and fill in ('mean', 'neighbours'):
    raise ValueError(
      f'the mask of image {whole[0]} is the whole image: nothing is left to '
      f'take {fill!r} from.'
    )
  found = images.copy()
  for image, mask in zip(found, masks, strict=True):
    if mask.any():
      image[mask] = FILLS[fill](image, mask)
  return found


def check_fill(fill: str) -> None:
  """Raises ValueError for a fill that `replace` does not know."""
  if fill not in FILLS:
    raise ValueError(f'fill must be one of {tuple(FILLS)}, got {fill!r}.')


def usual_quantity(classifier: classifiers.Classifier) -> str:
  """Returns 'probability', or 'kernel' of a classifier that answers these."""
  return 'kernel' if classifier.answers == 'log_kernels' else 'probability'


def effect(
  classifier: classifiers.Classifier,
  images: ArrayLike,
  masks: ArrayLike,
  targets: ArrayLike | None = None,
  *,
  fill: str = 'neighbours',
  quantity: str | None = None,
  chunk_size: int = 32,
) -> Effect:
  """Returns what replacing a region does to the scores and the answers.

  Args:
    classifier: any.
    images: (B, H, W, C) in [0, 1].
    masks: (H, W), or (B, H, W), bool: the region.
    targets: class whose score counts, or one per image; None: the answers to
      the images as they are.
    fill: see `replace`.
    quantity: of one number, see `quantities`; None: `usual_quantity`.
    chunk_size: images at a time.

  Raises: as `replace`, and `maps.as_images`, `maps.as_targets`.
  """
  images = maps.as_images(classifier, images)
  masks = _checked_masks(images, masks)
  targets = maps.as_targets(
    classifier, images, targets, chunk_size=chunk_size
  )
  replaced = replace(images, masks, fill)
  quantity = quantity or usual_quantity(classifier)
  (before, first), (after, second) = (
    (
      np.asarray(maps.run(
        maps.scores_of, [x, targets], chunk_size, classifier, quantity=quantity
      ), np.float64),
      maps.as_targets(classifier, x, None, chunk_size=chunk_size),
    ) for x in (images, replaced)
  )
  return Effect(before, after, first, second, masks.mean((1, 2)), replaced)


def compare_groups(first: ArrayLike, second: ArrayLike) -> GroupComparison:
  """Compares two groups of numbers by Mann and Whitney's U.

  Args:
    first: (N,), as the certainties of images with stains.
    second: (M,), as those of images without.

  Raises:
    ValueError: an empty group, another shape, or NaN.
  """
  x, y = (np.asarray(values, np.float64) for values in (first, second))
  for name, values in (('first', x), ('second', y)):
    if values.ndim != 1 or not values.size or np.isnan(values).any():
      raise ValueError(
        f'{name} must be (N,) numbers, at least one and none NaN, got shape '
        f'{values.shape}.'
      )
  found = stats.mannwhitneyu(x, y, alternative='two-sided')
  return GroupComparison(
    len(x), len(y), float(np.median(x)), float(np.median(y)),
    float(found.statistic), float(found.statistic / (len(x) * len(y))),
    float(found.pvalue),
  )


def compare_pairs(first: ArrayLike, second: ArrayLike) -> float:
  """Returns the p-value of Wilcoxon's signed ranks of two numbers per image.

  Two-sided; 1 where all pairs are equal.

  Args:
    first: (N,), as sizes of the changes that the region makes.
    second: (N,), as of those that the same shape makes elsewhere.

  Raises:
    ValueError: other shapes, no pair, or NaN.
  """
  steps = np.subtract(first, second, dtype=np.float64)
  if steps.ndim != 1 or not steps.size or np.isnan(steps).any():
    raise ValueError(
      'first and second must be (N,) numbers, at least one and none NaN, got '
      f'shapes {np.shape(first)} and {np.shape(second)}.'
    )
  return float(stats.wilcoxon(steps).pvalue) if steps.any() else 1.0


def _mean(image, mask):
  return image[~mask].mean(0)


def _blur(image, mask):
  spread = _BLUR * image.shape[0]
  return ndimage.gaussian_filter(
    image, (spread, spread, 0), mode='nearest'
  )[mask]


FILLS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray | float]] = {
  'black': lambda image, mask: 0.0,
  'white': lambda image, mask: 1.0,
  'mean': _mean,
  'blur': _blur,
  'neighbours': road.means_of_neighbours,
}
"""What is put in place of a region, by name."""


def _without_specks(masks, min_pixels, chosen):
  """Keeps the connected pieces that are large enough and chosen by label."""
  kept = np.empty_like(masks)
  for i, mask in enumerate(masks):
    labels, _ = ndimage.label(mask, np.ones((3, 3)))
    large = np.bincount(labels.ravel()) >= min_pixels
    kept[i] = mask & large[labels] & chosen(labels)
  return kept


def _checked_images(images):
  images = np.asarray(images)
  if images.ndim != 4 or not images.size:
    raise ValueError(f'images must be (B, H, W, C), got {images.shape}.')
  return images


def _checked_masks(images, masks):
  masks = np.asarray(masks)
  if masks.dtype != bool or masks.shape not in (
    images.shape[1:3], images.shape[:3]
  ):
    raise ValueError(
      f'masks must be bool of shape {images.shape[1:3]} or '
      f'{images.shape[:3]}, got {masks.dtype} of shape {masks.shape}.'
    )
  return np.broadcast_to(masks, images.shape[:3])
