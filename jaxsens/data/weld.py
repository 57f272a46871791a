"""Frames of TIG welding of aluminium 5083, real and procedural.

The real frames are those of Bacioiu et al., "Automated defect classification
of aluminium 5083 TIG welding using HDR camera and neural networks" (2019),
published at kaggle.com/datasets/danielbacioiu/tig-aluminium-5083: 8-bit gray
PNG of 800 x 974 pixels in six classes, named by the clip that they are from.

Without real frames, procedural ones stand in for them, see
`synthetic.weld`. Every set says in its `description` which frames it holds.
"""

from collections.abc import Sequence
import os
import pathlib
from typing import Literal

import jax
import numpy as np

from jaxsens.data import folder
from jaxsens.data import image_sets
from jaxsens.data import separation
from jaxsens.data.synthetic import weld as synthetic_weld

CLASS_NAMES = synthetic_weld.CLASS_NAMES

# Where data sets are looked for if no root is given: $JAXSENS_DATA/al5083.
DATA_VARIABLE = 'JAXSENS_DATA'
DATA_FOLDER = 'al5083'


def find_root(root: str | os.PathLike | None) -> pathlib.Path | None:
  """Returns the folder of real frames.

  Args:
    root: the folder, or None or '' to look for `al5083` in the folder that
      the environment variable JAXSENS_DATA names.

  Returns:
    The given root, whether or not it exists; else the folder that was looked
    for if it exists; else None.
  """
  if root:
    return pathlib.Path(root)
  base = os.environ.get(DATA_VARIABLE)
  if base and (pathlib.Path(base) / DATA_FOLDER).is_dir():
    return pathlib.Path(base) / DATA_FOLDER
  return None


def load_weld(
    key: jax.Array,
    *,
    root: str | os.PathLike | None,
    size_of_synthetic: tuple[int, int],
    num_synthetic_per_class: int,
    validation_fraction: float,
    held_out_groups: Sequence[str] | None = None,
    combine_synthetic: Literal['auto', 'always', 'never'] = 'auto',
    skip_unreadable: bool = False,
) -> image_sets.Splits:
  """Loads welding frames, split into training, validation and test set.

  Real frames are found in one of the layouts of `data.folder`. The test set
  is the data's own. Where the layout has none, or one that was not made to
  judge the rest by (labels.csv), clips are held back from the training pool
  and follow after the test set's other frames: `held_out_groups`, or else the
  smallest clip whose classes other clips still show. If no clip can be
  spared either, part of the pool becomes the test set as for validation.

  The validation set is separated from the pool by `separation.separate`:
  seeded, from each class about the fraction, by whole clips wherever a class
  has several; a class seen in one clip only gives the beginning or the end
  of that clip, and its validation result is then too good.

  Without real frames all three sets are procedural; their textures and
  parameters come from different keys. The test set is as large as the
  validation set. Procedural frames that help out real ones join the training
  and the validation set, never the test set.

  Args:
    key: typed random key.
    root: folder of the real frames, see `find_root`.
    size_of_synthetic: height and width of procedural frames in pixels;
      `synthetic.weld.frame_size` keeps the aspect of real ones.
    num_synthetic_per_class: procedural frames per class in the training and
      validation set together.
    validation_fraction: part of each class for validation, in (0, 1).
    held_out_groups: clips to hold back from training; () holds back none.
    combine_synthetic: whether procedural frames join real ones: 'auto' if
      the training pool lacks a class, 'always' or 'never'.
    skip_unreadable: whether unreadable frames are left out, counted and named
      in the description, for which all are decoded once; else the first that
      is asked for raises.

  Returns:
    The three sets, real frames before procedural ones.

  Raises:
    FileNotFoundError: if the root or files that it lists are missing.
    ValueError: if an argument is out of range, or the root is empty, has no
      known layout, or lists malformed or mislabelled files, or no such clip.
  """
  _check_arguments(
      size_of_synthetic,
      num_synthetic_per_class,
      validation_fraction,
      combine_synthetic,
  )
  keys = jax.random.split(key, 5)
  found = find_root(root)
  if found is None:
    return _all_procedural(
        keys[:3],
        size_of_synthetic,
        num_synthetic_per_class,
        validation_fraction,
    )
  pool, test, note = _pool_and_test(
      keys[3], found, held_out_groups, validation_fraction, skip_unreadable
  )
  stay, leave = separation.separate(
      keys[4], pool.labels, pool.groups, validation_fraction
  )
  lacking = [
      name for i, name in enumerate(CLASS_NAMES) if i not in pool.labels
  ]
  train = _real_set(pool.take(stay), found, note)
  validation = _real_set(pool.take(leave), found, note)
  wanted = {'auto': bool(lacking), 'always': True, 'never': False}
  if wanted[combine_synthetic]:
    reason = f'real frames lack {", ".join(lacking) or "no class"}'
    num_train, num_validation = _synthetic_counts(
        num_synthetic_per_class, validation_fraction
    )
    train, validation = (
        _with_procedural(real, part_key, size_of_synthetic, num, part, reason)
        for real, part_key, num, part in (
            (train, keys[0], num_train, 'train'),
            (validation, keys[1], num_validation, 'validation'),
        )
    )
  return image_sets.Splits(train, validation, _real_set(test, found, note))


def procedural_set(
    key: jax.Array,
    size: tuple[int, int],
    num_per_class: int,
    part: str,
    description: str,
) -> image_sets.ImageSet:
  """Draws a balanced set of procedural frames, the classes in turn.

  Args:
    key: typed random key.
    size: height and width in pixels.
    num_per_class: frames per class.
    part: name of the set, which starts the names of its frames.
    description: which data they are.

  Returns:
    The set, with the parameters of each frame; frames are drawn when asked for.
  """
  num_images = num_per_class * len(CLASS_NAMES)
  labels = np.arange(num_images) % len(CLASS_NAMES)
  parameters = synthetic_weld.sample_parameters(key, num_images, labels)
  return image_sets.ImageSet(
      images=image_sets.RenderedImages(
          parameters, tuple(size), synthetic_weld.render_all
      ),
      labels=labels,
      names=tuple(f'procedural-{part}-{i:05d}' for i in range(num_images)),
      class_names=CLASS_NAMES,
      groups=tuple(f'procedural/{part}/{i:05d}' for i in range(num_images)),
      description=description,
      parameters=parameters,
  )


def _check_arguments(size, num_per_class, fraction, combine):
  if len(size) != 2 or min(size) < 8:
    raise ValueError(
        'size_of_synthetic must be (height, width) of at least 8 pixels, got '
        f'{size}.'
    )
  if num_per_class < 2:
    raise ValueError(
        f'num_synthetic_per_class must be at least 2, got {num_per_class}.'
    )
  if not 0.0 < fraction < 1.0:
    raise ValueError(
        f'validation_fraction must lie in (0, 1), got {fraction}.'
    )
  if combine not in ('auto', 'always', 'never'):
    raise ValueError(
        "combine_synthetic must be 'auto', 'always' or 'never', got "
        f'{combine!r}.'
    )


def _synthetic_counts(num_per_class, fraction):
  """Returns frames per class for training and for validation."""
  num_validation = round(fraction * num_per_class)
  num_validation = min(max(num_validation, 1), num_per_class - 1)
  return num_per_class - num_validation, num_validation


def _all_procedural(keys, size, num_per_class, fraction):
  base = os.environ.get(DATA_VARIABLE)
  sought = f'${DATA_VARIABLE}/{DATA_FOLDER}'
  if base:
    where = f'no real data found at {pathlib.Path(base) / DATA_FOLDER}'
  else:
    where = f'no real data found: no root given and {sought} not set'
  num_train, num_validation = _synthetic_counts(num_per_class, fraction)
  counts = (num_train, num_validation, num_validation)
  parts = ('train', 'validation', 'test')
  return image_sets.Splits(*(
      procedural_set(
          part_key,
          size,
          count,
          part,
          f'{count * len(CLASS_NAMES)} procedural TIG frames ({where})',
      )
      for part_key, count, part in zip(keys, counts, parts, strict=True)
  ))


def _pool_and_test(key, root, held_out_groups, fraction, skip):
  """Returns files to train with, files to test with, and a note on clips."""
  listing = folder.list_files(root, CLASS_NAMES)
  pool, test, skipped = listing.pool, listing.test, ''
  if skip:
    pool, test, skipped = folder.readable(pool, test, channels=1)
  if held_out_groups is None and not listing.separates and _has_clips(pool):
    spare = separation.held_back_group(pool.labels, pool.groups)
    held_out_groups = () if spare is None else (spare,)
  held_out_groups = tuple(held_out_groups or ())
  unknown = sorted(set(held_out_groups) - set(pool.groups))
  if unknown:
    raise ValueError(
        f'{root}: held_out_groups {unknown} are no clips of the training '
        f'pool, which has {sorted(set(pool.groups))[:20]}.'
    )
  held = [i for i, g in enumerate(pool.groups) if g in held_out_groups]
  kept = [i for i, g in enumerate(pool.groups) if g not in held_out_groups]
  if not kept:
    raise ValueError(f'{root}: held_out_groups leave no frame to train with.')
  note = skipped
  if held:
    test = _chain(test, pool.take(held))
    pool = pool.take(kept)
    note += f', clip {", ".join(held_out_groups)} held back from training'
  if test is None:
    stay, leave = separation.separate(key, pool.labels, pool.groups, fraction)
    pool, test = pool.take(stay), pool.take(leave)
  return pool, test, note


def _has_clips(files):
  return len(set(files.groups)) < len(files)


def _chain(first, second):
  if first is None:
    return second
  return folder.LabelledFiles(
      first.paths + second.paths,
      first.labels + second.labels,
      first.names + second.names,
      first.groups + second.groups,
  )


def _real_set(files, root, note):
  return image_sets.ImageSet(
      images=image_sets.LazyImages(files.paths, channels=1),
      labels=np.array(files.labels, np.int32),
      names=files.names,
      class_names=CLASS_NAMES,
      groups=files.groups,
      description=(
          f'TIG aluminium 5083, {len(files)} real frames from {root}{note}'
      ),
  )


def _with_procedural(real, key, size, num_per_class, part, reason):
  num_images = num_per_class * len(CLASS_NAMES)
  description = (
      f'{real.description}, plus {num_images} procedural TIG frames '
      f'({num_per_class} per class; {reason})'
  )
  drawn = procedural_set(key, size, num_per_class, part, description)
  if not len(real):
    return drawn
  return image_sets.join(real, drawn, description)
