"""What the page about a data set shows, as plain values."""

from collections.abc import Sequence
import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Pair:
  """Two images that resemble each other.

  Attributes:
    names: of both, as 'part/name'.
    classes: of both.
    correlation: of their thumbnails, 1 for equal ones.
  """

  names: tuple[str, str]
  classes: tuple[str, str]
  correlation: float

  @property
  def across(self) -> bool:
    """Whether the two are in different parts."""
    first, second = (name.split('/')[0] for name in self.names)
    return first != second


@dataclasses.dataclass(frozen=True, eq=False)
class DataResult:
  """A data set of N images in P parts, K classes and C channels.

  Attributes:
    title: of the page.
    line: the data set in one line.
    descriptions: where each part is from, by part.
    class_names: of the classes.
    parts: names of the parts.
    counts: images of each class in each part, (P, K).
    sizes: images by (height, width), the commonest first.
    mean: of each channel, in [0, 1].
    std_of_pixels: standard deviation over all pixels, per channel.
    mean_std_of_images: mean of the images' own standard deviations.
    class_means: mean of each channel by class, (K, C), NaN for an empty class.
    histograms: pixels of each level by class, (K, C, 256).
    labels: class of each image, (N,).
    scores: places of the images in two principal directions, (N, 2).
    shares: of the variance along these directions.
    mean_images: by class, (K, S, S, C), NaN for an empty class.
    examples: some images of each class, any sizes.
    duplicates: images of equal pixels, as 'part/name'.
    leaking_duplicates: those of them in several parts.
    mislabelled: those of them with several classes.
    leaking_groups: groups in several parts, and these parts.
    num_groups: groups of several images.
    near: pairs that are alike but not equal, the closest first.
    threshold: smallest correlation of such a pair.
    truncated: whether there are more pairs than `near` holds.
    pictured: the closest pairs, equal ones among them, with both images.
  """

  title: str
  line: str
  descriptions: dict[str, str]
  class_names: tuple[str, ...]
  parts: tuple[str, ...]
  counts: np.ndarray
  sizes: tuple[tuple[tuple[int, int], int], ...]
  mean: np.ndarray
  std_of_pixels: np.ndarray
  mean_std_of_images: np.ndarray
  class_means: np.ndarray
  histograms: np.ndarray
  labels: np.ndarray
  scores: np.ndarray
  shares: np.ndarray
  mean_images: np.ndarray
  examples: tuple[Sequence[np.ndarray], ...]
  duplicates: tuple[tuple[str, ...], ...]
  leaking_duplicates: tuple[tuple[str, ...], ...]
  mislabelled: tuple[tuple[str, ...], ...]
  leaking_groups: tuple[tuple[str, tuple[str, ...]], ...]
  num_groups: int
  near: tuple[Pair, ...]
  threshold: float
  truncated: bool
  pictured: tuple[tuple[Pair, np.ndarray, np.ndarray], ...]

  @property
  def channel_names(self) -> tuple[str, ...]:
    """Names of the channels."""
    return ('gray',) if len(self.mean) == 1 else ('red', 'green', 'blue')

  @property
  def ordered_pairs(self) -> tuple[Pair, ...]:
    """The pairs, those of different parts first."""
    return tuple(sorted(self.near, key=lambda pair: not pair.across))

  @property
  def near_across(self) -> tuple[Pair, ...]:
    """The pairs of different parts."""
    return tuple(pair for pair in self.near if pair.across)


def as_dict(result: DataResult) -> dict:
  """Returns the numbers of a page, without pictures, for a JSON file."""
  channels = lambda values: [
    None if np.isnan(v) else float(v) for v in np.asarray(values)
  ]
  return {
    'title': result.title,
    'summary': result.line,
    'descriptions': dict(result.descriptions),
    'num_images': int(result.counts.sum()),
    'counts': {
      part: dict(zip(result.class_names, map(int, row), strict=True))
      for part, row in zip(result.parts, result.counts, strict=True)
    },
    'sizes': [
      {'height': h, 'width': w, 'images': n} for (h, w), n in result.sizes
    ],
    'channels': list(result.channel_names),
    'mean': channels(result.mean),
    'std_of_pixels': channels(result.std_of_pixels),
    'mean_std_of_images': channels(result.mean_std_of_images),
    'class_means': {
      name: channels(row)
      for name, row in zip(result.class_names, result.class_means, strict=True)
    },
    'principal_shares': channels(result.shares),
    'duplicates': [list(names) for names in result.duplicates],
    'leaking_duplicates': [list(n) for n in result.leaking_duplicates],
    'duplicates_of_several_classes': [list(n) for n in result.mislabelled],
    'leaking_groups': [
      {'group': group, 'parts': list(parts)}
      for group, parts in result.leaking_groups
    ],
    'near_duplicates': {
      'threshold': result.threshold,
      'pairs': len(result.near),
      'pairs_across_parts': len(result.near_across),
      'truncated': result.truncated,
      'closest': [_pair(pair) for pair in result.near[:100]],
      'closest_across_parts': [_pair(p) for p in result.near_across[:100]],
    },
  }


def _pair(pair):
  return {
    'names': list(pair.names), 'classes': list(pair.classes),
    'correlation': round(pair.correlation, 5),
  }
