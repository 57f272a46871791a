"""Severstal: flat sheet steel, 1600 x 256 pixels, with masks of four defects.

    root/train.csv
    root/train_images/NAME.jpg   (or root/images, or root itself)

The csv has one row per image and defect, in one of two layouts:

    ImageId,ClassId,EncodedPixels        ClassId 1 .. 4; 0 for no defect
    ImageId_ClassId,EncodedPixels        NAME.jpg_3,...; empty for no defect

The masks are run lengths, counted down the columns from 1, see `run_lengths`.
Images that are in no row, or in none with pixels, are without defect. A pixel
may have several defects: masks are bool (H, W, 4), one channel per defect, and
nothing overwrites anything. Rows of the same image and defect are united.
`parameters['areas']`, int64 (N, 4), counts the pixels of each.

No licence allows to hand the images on: kaggle.com/c/severstal-steel-defect-
detection.
"""

from collections.abc import Sequence
import csv
import dataclasses
import hashlib
import os
import pathlib

import jax
import numpy as np

from jaxsens.data import image_files
from jaxsens.data import image_sets
from jaxsens.data import mask_labels
from jaxsens.data import partition
from jaxsens.data import roots
from jaxsens.data import run_lengths

FOLDER = 'severstal'
TABLE = 'train.csv'
DEFECTS = ('defect 1', 'defect 2', 'defect 3', 'defect 4')
CLASS_NAMES = ('no defect', *DEFECTS)
_IMAGE_FOLDERS = ('train_images', 'images', '')


@dataclasses.dataclass(frozen=True)
class RunLengthMasks(Sequence):
  """Masks of run lengths, each decoded whenever it is asked for.

  Attributes:
    texts: run lengths of every kind of defect, '' for none, per image.
    sizes: height and width per image.
  """

  texts: tuple[tuple[str, ...], ...]
  sizes: tuple[tuple[int, int], ...]

  def __len__(self) -> int:
    return len(self.texts)

  def __getitem__(self, index: int) -> np.ndarray:
    """Decodes one mask, bool (H, W, M)."""
    return np.stack([
      run_lengths.decode(text, self.sizes[index]) for text in self.texts[index]
    ], axis=-1)

  def take(self, indices: Sequence[int]) -> 'RunLengthMasks':
    """Returns the masks of the given positions, still undecoded."""
    return RunLengthMasks(
      tuple(self.texts[i] for i in indices),
      tuple(self.sizes[i] for i in indices),
    )


def load_severstal(
  key: jax.Array,
  *,
  root: str | os.PathLike | None,
  validation_fraction: float,
  test_fraction: float,
  label_policy: str,
  skip_unreadable: bool = False,
) -> image_sets.Splits:
  """Loads the images with labels and masks, split at random by class.

  Args:
    key: typed random key of the split.
    root: folder that holds the csv, see `roots.find`.
    validation_fraction: part of each class that chooses the epoch.
    test_fraction: part of each class that nothing is chosen by; neither is
      negative and their sum is below 1.
    label_policy: 'binary', 'single' or 'largest', see `mask_labels`.
    skip_unreadable: whether images that are unreadable are left out, counted
      and named in the description.

  Returns:
    Training, validation and test set, RGB and decoded when asked for.

  Raises:
    FileNotFoundError: there is no such folder or table, or images that the
      table lists are absent.
    ValueError: an argument is out of range, or the table is malformed; the
      message names the image.
  """
  mask_labels.check(label_policy)
  fractions = (validation_fraction, test_fraction)
  if min(fractions) < 0 or sum(fractions) >= 1:
    raise ValueError(
      'validation_fraction and test_fraction must be at least 0 with a sum '
      f'below 1, got {fractions}.'
    )
  folder = roots.require(root, FOLDER)
  pool = _pool(folder, label_policy, skip_unreadable)
  parts = partition.split(
    key, pool.labels, pool.groups, (1 - sum(fractions), *fractions)
  )
  return image_sets.Splits(*map(pool.take, parts))


def read_table(path: pathlib.Path) -> dict[str, tuple[str, ...]]:
  """Returns the run lengths of each image that a csv lists, one per defect.

  Args:
    path: the csv, in either layout.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: columns are absent, or a defect is no number in [0, 4].
  """
  if not path.is_file():
    raise FileNotFoundError(f'{path}: no such table of defects.')
  with path.open(newline='', encoding='utf-8-sig') as file:
    reader = csv.DictReader(file)
    columns = set(reader.fieldnames or ())
    joined = 'ImageId_ClassId' in columns
    needed = {'ImageId_ClassId'} if joined else {'ImageId', 'ClassId'}
    if not {*needed, 'EncodedPixels'} <= columns:
      raise ValueError(
        f'{path}: expected the columns ImageId, ClassId, EncodedPixels or '
        f'ImageId_ClassId, EncodedPixels, got {reader.fieldnames}.'
      )
    rows = list(reader)
  table = {}
  for row in rows:
    if joined:
      name, _, number = (row['ImageId_ClassId'] or '').rpartition('_')
    else:
      name, number = row['ImageId'], row['ClassId']
    defect = _defect(path, name, number)
    text = _text(path, name, defect, row['EncodedPixels'])
    texts = table.setdefault(name, [''] * len(DEFECTS))
    if defect and text:
      texts[defect - 1] = f'{texts[defect - 1]} {text}'.strip()
  return {name: tuple(texts) for name, texts in table.items()}


def _defect(path, name, number):
  # A column with gaps is written as floats: 3.0, or empty for none.
  try:
    value = float(number) if number and number.strip() else 0.0
  except ValueError:
    value = -1.0
  if not name or value not in range(len(DEFECTS) + 1):
    raise ValueError(
      f'{path}: defect {number!r} of image {name!r}, expected a number in '
      f'[0, {len(DEFECTS)}].'
    )
  return int(value)


def _text(path, name, defect, text):
  text = (text or '').strip()
  text = '' if text.lower() == 'nan' or text == '-1' else text
  if text and not defect:
    raise ValueError(f'{path}: {name} has run lengths but no defect.')
  return text


def _pool(folder, policy, skip):
  table = read_table(folder / TABLE)
  paths = _image_paths(folder)
  known = {path.name for path in paths}
  absent = sorted(set(table) - known)
  if absent:
    raise FileNotFoundError(
      f'{folder / TABLE}: {len(absent)} listed images are absent below '
      f'{paths[0].parent}, first {", ".join(absent[:3])}.'
    )
  left_out = image_files.unreadable(paths, channels=3) if skip else ()
  skipped = [paths[i].name for i in left_out]
  paths = [p for i, p in enumerate(paths) if i not in set(left_out)]
  if not paths:
    raise ValueError(f'{folder}: all {len(skipped)} images are unreadable.')
  none = ('',) * len(DEFECTS)
  texts = tuple(table.get(path.name, none) for path in paths)
  sizes = tuple(map(image_files.read_size, paths))
  areas = np.array([
    [
      _area(text, size, f'{path.name}, {defect}')
      for text, defect in zip(row, DEFECTS, strict=True)
    ]
    for path, row, size in zip(paths, texts, sizes, strict=True)
  ], np.int64).reshape(-1, len(DEFECTS))
  labels, kept = mask_labels.label(areas, policy)
  note = image_files.skipped_note(skipped)
  left = ''
  if not kept.all():
    left = f', {(~kept).sum()} of several defects left out'
  return image_sets.ImageSet(
    images=image_sets.LazyImages(tuple(paths), channels=3),
    labels=labels,
    names=tuple(path.stem for path in paths),
    class_names=mask_labels.class_names(policy, CLASS_NAMES[0], DEFECTS),
    groups=tuple(_digest(path) for path in paths),
    description=(
      f'Severstal, of {kept.sum()} steel surfaces in {folder}, label: '
      f'{policy}{left}{note}'
    ),
    parameters={'areas': areas},
    masks=RunLengthMasks(texts, sizes),
    mask_names=DEFECTS,
  ).take(np.flatnonzero(kept))


def _area(text, size, name):
  if not text:
    return 0
  return int(run_lengths.decode(text, size, name).sum())


def _image_paths(folder):
  for name in _IMAGE_FOLDERS:
    paths = sorted((folder / name).glob('*.jpg'))
    if paths:
      return paths
  raise ValueError(f'{folder}: no .jpg files in it or in train_images.')


def _digest(path: pathlib.Path) -> str:
  return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
