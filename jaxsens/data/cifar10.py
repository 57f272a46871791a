"""Exact pixels of CIFAR-10, the part of it that one .npz file holds.

The file has the arrays

    images (N, 32, 32, 3) uint8
    labels (N,) integer in [0, 10)
    split (N,) 'train' or 'test'
    batch (N,) number of the training batch that an image is from; any of tests
    index_in_batch (N,) its position there
    class_names (10,) in the order of the labels

and its images keep their order.

References:
  Krizhevsky, Learning multiple layers of features from tiny images, 2009.
"""

from collections.abc import Mapping
import os
import pathlib
import zipfile

import jax
import numpy as np

from jaxsens.data import image_sets
from jaxsens.data import roots
from jaxsens.data import separation

CLASS_NAMES = (
  'airplane', 'automobile', 'bird', 'cat', 'deer', 'dog', 'frog', 'horse',
  'ship', 'truck',
)  # fmt: skip
FOLDER = 'cifar10'
FILE = 'cifar10_exact_6102.npz'
_SHAPES = {
  'images': (32, 32, 3), 'labels': (), 'split': (), 'batch': (),
  'index_in_batch': (),
}  # fmt: skip


def load_cifar10(
  key: jax.Array,
  *,
  root: str | os.PathLike | None,
  validation_fraction: float,
) -> image_sets.Splits:
  """Loads the exact images, in the order of the file.

  Args:
    key: typed random key of the validation set.
    root: folder of the file, see `roots.find`.
    validation_fraction: part of each class of the training images that goes to
      the validation set, in [0, 1); at 0 that set is empty.

  Returns:
    Training, validation and test set; images float32 (N, 32, 32, 3).

  Raises:
    FileNotFoundError: there is no such folder or file.
    ValueError: the file is damaged or has other arrays, or the fraction is out
      of range.
  """
  path = roots.require(root, FOLDER) / FILE
  arrays = _read(path)
  train, test = (_part(path, arrays, part) for part in ('train', 'test'))
  validation, rest = separation.stratify(
    key, train.labels, train.groups, (validation_fraction,)
  )
  return image_sets.Splits(train.take(rest), train.take(validation), test)


def _read(path: pathlib.Path) -> dict[str, np.ndarray]:
  if not path.is_file():
    raise FileNotFoundError(f'{path}: no such file of CIFAR-10 images.')
  try:
    with np.load(path, allow_pickle=False) as archive:
      arrays = {name: archive[name] for name in archive.files}
  except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
    raise ValueError(f'{path}: not a readable .npz file: {error}') from error
  absent = sorted({*_SHAPES, 'class_names'} - set(arrays))
  if absent:
    raise ValueError(f'{path}: the arrays {absent} are absent.')
  num_images = len(arrays['labels'])
  for name, shape in _SHAPES.items():
    if arrays[name].shape != (num_images, *shape):
      raise ValueError(
        f'{path}: {name} must have shape {(num_images, *shape)}, got '
        f'{arrays[name].shape}.'
      )
  if arrays['images'].dtype != np.uint8:
    raise ValueError(
      f'{path}: images must be uint8, got {arrays["images"].dtype}.'
    )
  names = tuple(map(str, arrays['class_names']))
  if names != CLASS_NAMES:
    raise ValueError(f'{path}: class_names must be {CLASS_NAMES}, got {names}.')
  return arrays


def _part(
  path: pathlib.Path, arrays: Mapping[str, np.ndarray], part: str
) -> image_sets.ImageSet:
  chosen = np.flatnonzero(arrays['split'] == part)
  if not len(chosen):
    raise ValueError(f'{path}: no image of the split {part!r}.')
  names = tuple(
    f'{part}-{batch}-{i:05d}'
    for batch, i in zip(
      arrays['batch'][chosen], arrays['index_in_batch'][chosen], strict=True
    )
  )
  return image_sets.ImageSet(
    images=arrays['images'][chosen].astype(np.float32) / np.float32(255),
    labels=arrays['labels'][chosen].astype(np.int32),
    names=names,
    class_names=CLASS_NAMES,
    groups=names,
    description=f'CIFAR-10, {len(chosen)} exact {part} images of {path.name}',
  )
