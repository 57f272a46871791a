"""NEU-Seg: surfaces of hot-rolled steel, 200 x 200 pixels, with pixel masks.

    root/img_dir/{training,val,test}/NAME.jpg
    root/ann_dir/{training,val,test}/NAME.png   0 none, 1 .. 3 a defect

The training set is made of `training` (or `train`) and, where that is absent,
of `val`; `test` is the test set. The files are JPEG with three equal channels;
the images are gray, (200, 200, 1). Masks are bool (200, 200, 3), one channel
per defect. `parameters['areas']`, int64 (N, 3), counts their pixels.

References:
  Dong et al., PGA-Net: pyramid feature fusion and global context attention
  network for automated surface defect detection, 2020.
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
from jaxsens.data import mask_labels
from jaxsens.data import partition
from jaxsens.data import roots
from jaxsens.data import steel

FOLDER = 'neu_seg'
DEFECTS = ('inclusion', 'patches', 'scratches')
_TRAIN = ('training', 'train')


@dataclasses.dataclass(frozen=True)
class IndexMasks(Sequence):
  """Files of one number per pixel, each decoded whenever it is asked for.

  Attributes:
    paths: gray PNG files, 0 for none and m for the m-th kind.
    num_kinds: M.
  """

  paths: tuple[pathlib.Path, ...]
  num_kinds: int

  def __len__(self) -> int:
    return len(self.paths)

  def __getitem__(self, index: int) -> np.ndarray:
    """Decodes one mask, bool (H, W, M).

    Raises:
      ValueError: a pixel has another number.
    """
    path = self.paths[index]
    image = image_files.read_image(path, channels=1)
    numbers = np.round(255 * image).astype(np.int64)
    if numbers.max(initial=0) > self.num_kinds:
      raise ValueError(
        f'{path}: pixels must be numbers in [0, {self.num_kinds}], got '
        f'{numbers.max()}.'
      )
    return numbers == np.arange(1, self.num_kinds + 1)

  def take(self, indices: Sequence[int]) -> 'IndexMasks':
    """Returns the masks of the given positions, still undecoded."""
    paths = tuple(self.paths[i] for i in indices)
    return dataclasses.replace(self, paths=paths)


def load_neu_seg(
  key: jax.Array,
  *,
  root: str | os.PathLike | None,
  validation_fraction: float,
  label_policy: str,
  skip_unreadable: bool = False,
) -> image_sets.Splits:
  """Loads the images and their masks.

  Args:
    key: typed random key of the validation set.
    root: folder that holds `img_dir`, see `roots.find`.
    validation_fraction: part of each class of the training images, in [0, 1).
    label_policy: 'largest' or 'single', see `mask_labels`; every image has a
      defect, so that there is no class without one.
    skip_unreadable: whether images that are unreadable are left out, counted
      and named in the description.

  Returns:
    Training, validation and test set, decoded when asked for; the masks are
    decoded once here.

  Raises:
    FileNotFoundError: there is no such folder, or images without masks.
    ValueError: an argument is out of range, or a mask is empty or has other
      numbers.
  """
  if label_policy not in ('largest', 'single'):
    raise ValueError(
      f"label_policy must be 'largest' or 'single', got {label_policy!r}."
    )
  if not 0 <= validation_fraction < 1:
    raise ValueError(
      f'validation_fraction must lie in [0, 1), got {validation_fraction}.'
    )
  folder = roots.require(root, FOLDER)
  parts = _parts(folder)
  pool, test = (
    _image_set(folder, part, label_policy, skip_unreadable)
    for part in (parts, ('test',))
  )
  train, validation = partition.split(
    key, pool.labels, pool.groups,
    (1 - validation_fraction, validation_fraction),
  )
  return image_sets.Splits(pool.take(train), pool.take(validation), test)


def _parts(folder):
  """Returns the folders of the training pool."""
  images = folder / 'img_dir'
  if not images.is_dir():
    raise FileNotFoundError(f'{images}: no folder of images.')
  if not (images / 'test').is_dir():
    raise FileNotFoundError(f'{images / "test"}: no folder of test images.')
  found = tuple(p for p in (*_TRAIN, 'val') if (images / p).is_dir())
  if not found:
    raise FileNotFoundError(f'{images}: no folder training, train or val.')
  return found


def _image_set(folder, parts, policy, skip):
  images = sorted(
    path for part in parts
    for path in (folder / 'img_dir' / part).glob('*.jpg')
  )
  if not images:
    raise ValueError(f'{folder / "img_dir"}: no .jpg files in {parts}.')
  masks = [
    folder / 'ann_dir' / path.parent.name / f'{path.stem}.png'
    for path in images
  ]
  absent = [path.name for path in masks if not path.is_file()]
  if absent:
    raise FileNotFoundError(
      f'{folder / "ann_dir"}: {len(absent)} of {len(masks)} masks are absent, '
      f'first {absent[0]}.'
    )
  left_out = image_files.unreadable(images, channels=3) if skip else ()
  skipped = [images[i].name for i in left_out]
  keep = [i for i in range(len(images)) if i not in set(left_out)]
  images, masks = [images[i] for i in keep], [masks[i] for i in keep]
  if not images:
    raise ValueError(f'{folder}: all {len(skipped)} images are unreadable.')
  lazy = IndexMasks(tuple(masks), len(DEFECTS))
  areas = np.array([mask.sum((0, 1)) for mask in lazy], np.int64)
  areas = areas.reshape(-1, len(DEFECTS))
  for i in np.flatnonzero(areas.sum(1) == 0)[:1]:
    raise ValueError(f'{masks[i]}: the mask marks no defect.')
  labels, kept = mask_labels.label(areas, policy)
  note = image_files.skipped_note(skipped)
  return image_sets.ImageSet(
    images=steel.GrayImages(tuple(images)),
    labels=labels - 1,
    names=tuple(f'{path.parent.name}/{path.stem}' for path in images),
    class_names=DEFECTS,
    groups=tuple(_digest(path) for path in images),
    description=(
      f'NEU-Seg, of {kept.sum()} images in {folder} {"+".join(parts)}, '
      f'label: {policy} defect{note}'
    ),
    parameters={'areas': areas},
    masks=lazy,
    mask_names=DEFECTS,
  ).take(np.flatnonzero(kept))


def _digest(path: pathlib.Path) -> str:
  return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
