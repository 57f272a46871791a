"""NEU-DET: surfaces of hot-rolled steel, 200 x 200 pixels, in six classes.

The class of an image is the start of its file name, `patches_101.jpg`. The
folders `IMAGES` and `Validation_Images` below the root, of which one may be
absent, are one pool; files of the same content, of which there are two, are one
recording, so that no split separates them. The files are JPEG with three equal
channels; the images are gray, (200, 200, 1).

References:
  Song and Yan, A noise robust method based on completed local binary patterns
  for hot-rolled steel strip surface defects, 2013.
"""

from collections.abc import Sequence
import dataclasses
import hashlib
import os
import pathlib

import jax
import numpy as np

from jaxsens.data import image_files
from jaxsens.data import image_sets
from jaxsens.data import roots
from jaxsens.data import separation

CLASS_NAMES = (
  'crazing', 'inclusion', 'patches', 'pitted_surface', 'rolled-in_scale',
  'scratches',
)  # fmt: skip
FOLDER = 'neu_det'
_PARTS = ('IMAGES', 'Validation_Images')


@dataclasses.dataclass(frozen=True)
class GrayImages(Sequence):
  """RGB files of equal channels, each decoded whenever it is asked for.

  Attributes:
    paths: the files, in order.
  """

  paths: tuple[pathlib.Path, ...]

  def __len__(self) -> int:
    return len(self.paths)

  def __getitem__(self, index: int) -> np.ndarray:
    """Decodes one image, float32 (H, W, 1) in [0, 1].

    Raises:
      ValueError: the channels differ.
    """
    image = image_files.read_image(self.paths[index], channels=3)
    if (image != image[..., :1]).any():
      raise ValueError(f'{self.paths[index]}: the image is not gray.')
    return np.ascontiguousarray(image[..., :1])

  def take(self, indices: Sequence[int]) -> 'GrayImages':
    """Returns the images of the given positions, still undecoded."""
    return GrayImages(tuple(self.paths[i] for i in indices))


def load_steel(
  key: jax.Array,
  *,
  root: str | os.PathLike | None,
  validation_fraction: float,
  test_fraction: float,
  skip_unreadable: bool = False,
) -> image_sets.Splits:
  """Loads the images, split at random, each class in the same proportions.

  Args:
    key: typed random key of the split.
    root: folder that holds `IMAGES`, see `roots.find`.
    validation_fraction: part of each class that chooses the epoch.
    test_fraction: part of each class that nothing is chosen by; the sum of
      both lies in (0, 1).
    skip_unreadable: whether unreadable images are left out, counted and named
      in the description, for which all are decoded once; else the first that
      is asked for raises.

  Returns:
    Training, validation and test set, decoded when asked for.

  Raises:
    FileNotFoundError: there is no such folder.
    ValueError: a fraction is out of range, or the folder holds no images, a
      name that begins with no class or a name twice.
  """
  fractions = (validation_fraction, test_fraction)
  if min(fractions) <= 0 or sum(fractions) >= 1:
    raise ValueError(
      'validation_fraction and test_fraction must be positive with a sum below '
      f'1, got {fractions}.'
    )
  pool = _pool(roots.require(root, FOLDER), skip_unreadable)
  test, validation, train = separation.stratify(
    key, pool.labels, pool.groups, (test_fraction, validation_fraction)
  )
  return image_sets.Splits(
    pool.take(train), pool.take(validation), pool.take(test)
  )


def _pool(root: pathlib.Path, skip: bool) -> image_sets.ImageSet:
  paths = sorted(
    path for part in _PARTS for path in (root / part).glob('*.jpg')
  )
  if not paths:
    raise ValueError(f'{root}: no .jpg files below {" or ".join(_PARTS)}.')
  bad = image_files.unreadable(paths, channels=3) if skip else ()
  note = image_files.skipped_note([paths[i].name for i in bad])
  paths = [path for i, path in enumerate(paths) if i not in set(bad)]
  if not paths:
    raise ValueError(f'{root}: all {len(bad)} images are unreadable.')
  return image_sets.ImageSet(
    images=GrayImages(tuple(paths)),
    labels=np.array([_label(path) for path in paths], np.int32),
    names=tuple(path.stem for path in paths),
    class_names=CLASS_NAMES,
    groups=tuple(_digest(path) for path in paths),
    description=(
      f'NEU-DET, of {len(paths)} hot-rolled steel surfaces in {root}{note}'
    ),
  )


def _label(path: pathlib.Path) -> int:
  name = path.stem.rpartition('_')[0]
  if name not in CLASS_NAMES:
    raise ValueError(
      f'{path}: the name begins with no class, expected one of {CLASS_NAMES}.'
    )
  return CLASS_NAMES.index(name)


def _digest(path: pathlib.Path) -> str:
  return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
