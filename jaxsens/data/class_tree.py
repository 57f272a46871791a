"""Trees of class folders, with or without folders of parts above them.

    root/<class>/...                     everything is split here
    root/{train,val,test}/<class>/...    the tree's own parts

`training`, `valid` and `validation` are understood as well. A part that the
tree lacks is separated from the training images. The classes are the names of
the folders in alphabetical order, whatever order the file system lists them in;
or they are given, and then no other folder is taken. Names that begin with a
dot, `__MACOSX` and files that are no images are passed over.

The printed filter labels (NTZ) are such a tree: 24-bit BMP files of 320 x 240
pixels in four classes.
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
from jaxsens.data import partition
from jaxsens.data import roots

FILTER_LABELS_FOLDER = 'filter_labels'
FILTER_LABELS = (
  'fail_label_crooked_print', 'fail_label_half_printed',
  'fail_label_not_fully_printed', 'no_fail',
)  # fmt: skip
PARTS = {
  'train': 'train', 'training': 'train', 'val': 'validation',
  'valid': 'validation', 'validation': 'validation', 'test': 'test',
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Files:
  """The images of one part, in the order of classes and then of names."""

  paths: tuple[pathlib.Path, ...]
  labels: tuple[int, ...]
  names: tuple[str, ...]
  groups: tuple[str, ...]


def load_folder(
  key: jax.Array,
  *,
  root: str | os.PathLike | None,
  channels: int,
  validation_fraction: float,
  test_fraction: float,
  class_names: Sequence[str] | None = None,
  skip_unreadable: bool = False,
) -> image_sets.Splits:
  """Loads a tree of class folders.

  Images of the same content, and those in one folder below that of a class,
  are one group and stay in one part, where parts are made here.

  Args:
    key: typed random key of the parts that are made here.
    root: the folder.
    channels: 1 for gray, 3 for RGB files.
    validation_fraction: share of each class for validation, in [0, 1).
    test_fraction: share for the test. A tree's own part counts, not its share.
    class_names: the classes in the order of the labels, None for those of the
      folders.
    skip_unreadable: whether unreadable images are left out, counted and named
      in the description, for which all are decoded once; else the first that
      is asked for raises.

  Returns:
    Training, validation and test set, decoded when asked for.

  Raises:
    FileNotFoundError: there is no such folder.
    ValueError: an argument is out of range, a class is empty, or the tree has
      another layout.
  """
  if not root:
    raise FileNotFoundError('the source "folder" has no folder: give its root.')
  folder = roots.require(root, 'folder')
  _check_fractions(validation_fraction, test_fraction)
  names = None if class_names is None else tuple(class_names)
  class_names = names or find_class_names(folder)
  parts, skipped = {}, []
  for part, base in _part_folders(folder).items():
    files = _list(folder, base, class_names, complete=part == 'train')
    parts[part], left_out = _readable(files, class_names, base, channels,
                                      skip_unreadable)
    skipped += left_out
  fractions = [
    0.0 if part in parts else share for part, share in
    (('validation', validation_fraction), ('test', test_fraction))
  ]
  train = parts['train']
  made = dict(zip(('train', 'validation', 'test'), partition.split(
    key, train.labels, train.groups, (1 - sum(fractions), *fractions)
  ), strict=True))
  note = image_files.skipped_note(skipped)
  return image_sets.Splits(*(
    _image_set(
      *((parts[part], None) if part in parts and part != 'train'
        else (train, made[part])),
      class_names, channels, f'{part} images of {folder}{note}',
    )
    for part in ('train', 'validation', 'test')
  ))


def load_filter_labels(
  key: jax.Array,
  *,
  root: str | os.PathLike | None,
  validation_fraction: float,
  test_fraction: float,
  skip_unreadable: bool = False,
) -> image_sets.Splits:
  """Loads the printed filter labels; see `load_folder` for the arguments."""
  return load_folder(
    key, root=roots.require(root, FILTER_LABELS_FOLDER), channels=3,
    validation_fraction=validation_fraction, test_fraction=test_fraction,
    class_names=FILTER_LABELS, skip_unreadable=skip_unreadable,
  )


def find_class_names(root: str | os.PathLike) -> tuple[str, ...]:
  """Returns the class folders of a tree, in alphabetical order.

  Raises:
    FileNotFoundError: there is no such folder.
    ValueError: the tree has no class folders.
  """
  folder = pathlib.Path(root)
  if not folder.is_dir():
    raise FileNotFoundError(f'{folder}: the data root is no folder.')
  base = _part_folders(folder)['train']
  names = tuple(sorted(path.name for path in _folders(base)))
  if not names:
    raise ValueError(f'{base}: no class folders.')
  return names


def _check_fractions(*fractions):
  if min(fractions) < 0 or sum(fractions) >= 1:
    raise ValueError(
      'validation_fraction and test_fraction must be at least 0 with a sum '
      f'below 1, got {fractions}.'
    )


def _folders(base):
  return [
    path for path in base.iterdir()
    if path.is_dir() and not path.name.startswith(('.', '__MACOSX'))
  ]


def _part_folders(root):
  """Returns the folder of each part; the root itself if there are no parts."""
  folders = _folders(root)
  parts = {}
  for path in sorted(folders):
    part = PARTS.get(path.name.lower())
    if part in parts:
      raise ValueError(
        f'{root}: {parts[part].name} and {path.name} are the same part.'
      )
    if part:
      parts[part] = path
  if not parts:
    return {'train': root}
  others = sorted(p.name for p in folders if p not in parts.values())
  if others:
    raise ValueError(
      f'{root}: {others} lie beside {sorted(p.name for p in parts.values())}; '
      'expected either folders of parts or folders of classes.'
    )
  if 'train' not in parts:
    raise ValueError(f'{root}: no train folder beside {sorted(parts)}.')
  return parts


def _list(root, base, class_names, complete):
  """Lists the images of a part, each class in alphabetical order of paths."""
  folders = {path.name: path for path in _folders(base)}
  unknown = sorted(set(folders) - set(class_names))
  if unknown:
    raise ValueError(
      f'{base}: the folders {unknown} are no classes, expected '
      f'{list(class_names)}.'
    )
  absent = [name for name in class_names if name not in folders]
  if complete and absent:
    raise ValueError(f'{base}: the folders of the classes {absent} are absent.')
  loose = sorted(p.name for p in base.iterdir() if _is_image(p))
  if loose:
    raise ValueError(
      f'{base}: {len(loose)} images lie outside of class folders, first '
      f'{loose[0]}.'
    )
  paths, labels, groups = [], [], []
  for label, name in enumerate(class_names):
    if name not in folders:
      continue
    found = sorted(p for p in folders[name].rglob('*') if _is_image(p))
    if not found:
      raise ValueError(f'{folders[name]}: the class {name!r} has no images.')
    paths += found
    labels += [label] * len(found)
    groups += [
      str(p.relative_to(base)) if p.parent == folders[name]
      else str(p.parent.relative_to(base)) for p in found
    ]
  names = tuple(path.relative_to(root).as_posix() for path in paths)
  digests = [hashlib.sha256(p.read_bytes()).hexdigest() for p in paths]
  return _Files(
    tuple(paths), tuple(labels), names, partition.connect(groups, digests)
  )


def _is_image(path):
  return (
    path.suffix.lower() in image_files.SUFFIXES and path.is_file()
    and not path.name.startswith('.')
  )


def _readable(files, class_names, base, channels, skip):
  """Returns the files to use and the names of those that are left out."""
  if not skip:
    return files, []
  bad = set(image_files.unreadable(files.paths, channels=channels))
  good = [i for i in range(len(files.paths)) if i not in bad]
  kept = _Files(*(
    tuple(getattr(files, field.name)[i] for i in good)
    for field in dataclasses.fields(files)
  ))
  for label in sorted(set(files.labels) - set(kept.labels)):
    raise ValueError(
      f'{base}: the class {class_names[label]!r} has no readable images.'
    )
  return kept, [files.names[i] for i in sorted(bad)]


def _image_set(files, chosen, class_names, channels, what):
  chosen = range(len(files.paths)) if chosen is None else chosen.tolist()
  pick = lambda values: tuple(values[i] for i in chosen)
  return image_sets.ImageSet(
    images=image_sets.LazyImages(pick(files.paths), channels=channels),
    labels=np.array(pick(files.labels), np.int32),
    names=pick(files.names),
    class_names=tuple(class_names),
    groups=pick(files.groups),
    description=f'{len(chosen)} {what}',
  )
