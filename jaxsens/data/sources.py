"""The data sets by name, and the types that they come in.

A source is a function load(key, **options) -> Splits, and what is known of its
images without reading them. Which data it found is written in the `description`
of each set.
"""

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import functools
import os
import pathlib
import types

import jax

from jaxsens.data import cifar10
from jaxsens.data import image_sets
from jaxsens.data import roots
from jaxsens.data import steel
from jaxsens.data import weld

ImageSet = image_sets.ImageSet
Splits = image_sets.Splits
resize_all = image_sets.resize_all
load_weld = weld.load_weld


@dataclasses.dataclass(frozen=True)
class Source:
  """A data set by its name.

  Attributes:
    load: (key, *, root, **options) -> Splits.
    find_root: (root or '' or None) -> folder of the data, None if there is
      none.
    class_names: name of each class, in the order of the labels.
    channels: 1 for gray, 3 for RGB images.
  """

  load: Callable[..., image_sets.Splits]
  find_root: Callable[[str | os.PathLike | None], pathlib.Path | None]
  class_names: tuple[str, ...]
  channels: int


SOURCES: Mapping[str, Source] = types.MappingProxyType({
    'cifar10': Source(
        cifar10.load_cifar10,
        functools.partial(roots.find, name=cifar10.FOLDER),
        cifar10.CLASS_NAMES,
        channels=3,
    ),
    'steel': Source(
        steel.load_steel,
        functools.partial(roots.find, name=steel.FOLDER),
        steel.CLASS_NAMES,
        channels=1,
    ),
    'weld': Source(
        weld.load_weld, weld.find_root, weld.CLASS_NAMES, channels=1
    ),
})


def find(name: str) -> Source:
  """Returns the source of that name.

  Raises:
    ValueError: if there is no such source.
  """
  if name not in SOURCES:
    raise ValueError(
        f'unknown data source {name!r}, expected one of {sorted(SOURCES)}.'
    )
  return SOURCES[name]


def load(name: str, key: jax.Array, **options) -> image_sets.Splits:
  """Loads a data set by name.

  Args:
    name: one of `SOURCES`.
    key: typed random key of the splits and of procedural images.
    **options: keyword arguments of the source's own function.

  Returns:
    The training, validation and test set.

  Raises:
    ValueError: if there is no such source.
  """
  return find(name).load(key, **options)
