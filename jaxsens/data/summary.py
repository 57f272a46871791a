"""What a data set consists of, and whether its parts are apart.

Two numbers go by the name of the standard deviation of a data set: that over
all pixels of all images, by which one normalises, and the mean of those of the
single images, which is smaller: it leaves out how the images differ in
brightness. Both are given, under their names.
"""

from collections.abc import Sequence
import dataclasses

import numpy as np

from jaxsens.data import image_sets
from jaxsens.data import measurements

PARTS = ('train', 'validation', 'test')


@dataclasses.dataclass(frozen=True, eq=False)
class Summary:
  """Counts, levels and faults of the parts of a data set.

  Attributes:
    class_names: of the classes.
    parts: names of the parts.
    counts: images of each class in each part, int64 (parts, classes).
    sizes: images by (height, width), the commonest first.
    mean: of each channel over all pixels, (C,), in [0, 1].
    std_of_pixels: standard deviation of each channel over all pixels.
    mean_std_of_images: mean over the images of the standard deviation of each.
    duplicates: images of the same pixels, as 'part/name', each at least two.
    leaking_duplicates: those of them that are in more than one part.
    leaking_groups: groups that are in more than one part, and these parts.
    labels_differ: those of the duplicates that have several classes.
  """

  class_names: tuple[str, ...]
  parts: tuple[str, ...]
  counts: np.ndarray
  sizes: tuple[tuple[tuple[int, int], int], ...]
  mean: np.ndarray
  std_of_pixels: np.ndarray
  mean_std_of_images: np.ndarray
  duplicates: tuple[tuple[str, ...], ...]
  leaking_duplicates: tuple[tuple[str, ...], ...]
  leaking_groups: tuple[tuple[str, tuple[str, ...]], ...]
  labels_differ: tuple[tuple[str, ...], ...]

  @property
  def leaks(self) -> bool:
    """Whether any image or group is in two parts."""
    return bool(self.leaking_duplicates or self.leaking_groups)


def summarise(
  splits: image_sets.Splits,
  measured: Sequence[measurements.Measurements] | None = None,
) -> Summary:
  """Returns the summary of a data set; reads every image unless measured.

  Args:
    splits: the three parts.
    measured: the measurements of each part, in the order of `PARTS`.
  """
  sets = [getattr(splits, part) for part in PARTS]
  if measured is None:
    measured = [measurements.measure(part) for part in sets]
  everything = measurements.join(measured)
  class_names = splits.train.class_names
  counts = [np.bincount(s.labels, minlength=len(class_names)) for s in sets]
  sizes, numbers = np.unique(everything.sizes, axis=0, return_counts=True)
  mean, std = measurements.moments(everything.histograms.sum(0))
  clusters = _duplicates(sets, measured)
  name = lambda found: tuple(
    tuple(f'{PARTS[part]}/{sets[part].names[i]}' for part, i in cluster)
    for cluster in found
  )
  return Summary(
    class_names=class_names,
    parts=PARTS,
    counts=np.array(counts, np.int64),
    sizes=tuple(
      (tuple(sizes[i].tolist()), int(numbers[i]))
      for i in np.argsort(-numbers, kind='stable')
    ),
    mean=mean,
    std_of_pixels=std,
    mean_std_of_images=(
      everything.stds.mean(0) if len(everything) else np.zeros_like(mean)
    ),
    duplicates=name(clusters),
    leaking_duplicates=name(
      c for c in clusters if len({part for part, _ in c}) > 1
    ),
    leaking_groups=_leaking_groups(sets),
    labels_differ=name(
      c for c in clusters if len({sets[p].labels[i] for p, i in c}) > 1
    ),
  )


def line(summary: Summary) -> str:
  """Returns the summary in one line."""
  parts = [
    f'{part} {counts.sum()} ('
    + ', '.join(
      f'{name} {count}'
      for name, count in zip(summary.class_names, counts, strict=True)
    ) + ')'
    for part, counts in zip(summary.parts, summary.counts, strict=True)
    if counts.sum()
  ]
  (height, width), number = summary.sizes[0] if summary.sizes else ((0, 0), 0)
  others = summary.counts.sum() - number
  size = f'{height} x {width}'
  if others:
    size += f' and {others} of other sizes'
  copies = sum(map(len, summary.duplicates)) - len(summary.duplicates)
  leaks = (
    f'leaks between parts: {len(summary.leaking_duplicates)} duplicates, '
    f'{len(summary.leaking_groups)} groups' if summary.leaks
    else 'no duplicate and no group in two parts'
  )
  return '; '.join([
    f'{summary.counts.sum()} images: {", ".join(parts)}', size,
    f'mean {_numbers(summary.mean)}',
    f'std of all pixels {_numbers(summary.std_of_pixels)}',
    f'mean std of images {_numbers(summary.mean_std_of_images)}',
    f'{copies} exact duplicate{"" if copies == 1 else "s"}', leaks,
  ])


def _duplicates(sets, measured):
  """Returns positions (part, i) of equal images, those of each together."""
  seen = {}
  for part, found in enumerate(measured):
    if len(found) != len(sets[part]):
      raise ValueError(
        f'{PARTS[part]} has {len(sets[part])} images but {len(found)} are '
        'measured.'
      )
    for i, digest in enumerate(found.digests):
      seen.setdefault(digest, []).append((part, i))
  return [tuple(cluster) for cluster in seen.values() if len(cluster) > 1]


def _leaking_groups(sets):
  homes = {}
  for part, found in zip(PARTS, sets, strict=True):
    for group in found.groups:
      homes.setdefault(group, {})[part] = None
  return tuple(
    (group, tuple(parts)) for group, parts in homes.items() if len(parts) > 1
  )


def _numbers(values):
  return ' '.join(f'{value:.4f}' for value in values)
