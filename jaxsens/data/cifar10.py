"""CIFAR-10: colour photographs of 32 x 32 pixels in ten classes.

Five forms of it are read, see `cifar10_forms`; all of them keep the order of
their files.

References:
  Krizhevsky, Learning multiple layers of features from tiny images, 2009.
"""

import os
import pathlib

import jax
import numpy as np

from jaxsens.data import cifar10_forms as forms
from jaxsens.data import image_sets
from jaxsens.data import roots
from jaxsens.data import separation

CLASS_NAMES = forms.CLASS_NAMES
FOLDER = 'cifar10'
FILE = forms.EXACT_FILE
FORMS = ('exact', 'jpeg', 'python', 'binary', 'tfds')


def load_cifar10(
  key: jax.Array,
  *,
  root: str | os.PathLike | None,
  validation_fraction: float,
  form: str = 'auto',
) -> image_sets.Splits:
  """Loads the images, in the order of the files.

  Args:
    key: typed random key of the validation set.
    root: folder of the files, see `roots.find`; of 'tfds', its data_dir, None
      for the package's own default.
    validation_fraction: part of each class of the training images that goes to
      the validation set, in [0, 1); at 0 that set is empty.
    form: one of `FORMS`, or 'auto' for the first but tfds whose files are
      there.

  Returns:
    Training, validation and test set; images float32 (N, 32, 32, 3).

  Raises:
    FileNotFoundError: there is no such folder or file.
    ModuleNotFoundError: tensorflow-datasets is absent.
    ValueError: a file is damaged or has other content, or an argument is out of
      range.
  """
  pool, where = _read(root, form)
  train, test = (_part(pool, part, where) for part in ('train', 'test'))
  validation, rest = separation.stratify(
    key, train.labels, train.groups, (validation_fraction,)
  )
  return image_sets.Splits(train.take(rest), train.take(validation), test)


def _read(root, form):
  """Returns the images and the name of where they were read."""
  if form not in ('auto', *FORMS):
    raise ValueError(f"form must be 'auto' or one of {FORMS}, got {form!r}.")
  if form == 'tfds':
    folder = pathlib.Path(root) if root else None
    return forms.read_tfds(folder), 'tensorflow-datasets'
  folder = roots.require(root, FOLDER)
  if form == 'auto':
    form = _form_of(folder)
  if form in ('exact', 'jpeg'):
    name = FILE if form == 'exact' else forms.JPEG_FILE
    read = forms.read_exact if form == 'exact' else forms.read_jpeg
    return read(folder / name), name
  if form == 'python':
    folder = _below(folder, forms.PYTHON_FOLDER)
    return forms.read_python(folder), str(folder)
  folder = _below(folder, forms.BINARY_FOLDER)
  return forms.read_binary(folder), str(folder)


def _form_of(folder):
  batch = forms.BATCHES[0]
  there = {
    'exact': (folder / FILE).is_file(),
    'python': (_below(folder, forms.PYTHON_FOLDER) / batch).is_file(),
    'binary': (_below(folder, forms.BINARY_FOLDER) / f'{batch}.bin').is_file(),
    'jpeg': (folder / forms.JPEG_FILE).is_file(),
  }
  for form, found in there.items():
    if found:
      return form
  raise FileNotFoundError(
    f'{folder}: no CIFAR-10 images, expected {FILE}, {forms.JPEG_FILE}, '
    f'{batch} and its like, or {batch}.bin.'
  )


def _below(folder, name):
  return folder / name if (folder / name).is_dir() else folder


def _part(pool, part, where) -> image_sets.ImageSet:
  chosen = np.flatnonzero(pool.split == part)
  if not len(chosen):
    raise ValueError(f'{where}: no image of the split {part!r}.')
  names = tuple(pool.names[i] for i in chosen)
  return image_sets.ImageSet(
    images=pool.images[chosen].astype(np.float32) / np.float32(255),
    labels=pool.labels[chosen],
    names=names,
    class_names=CLASS_NAMES,
    groups=names,
    description=f'CIFAR-10, {len(chosen)} {pool.kind} {part} images of {where}',
  )
