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
from jaxsens.data import class_tree
from jaxsens.data import image_sets
from jaxsens.data import mask_labels
from jaxsens.data import neu_seg
from jaxsens.data import roots
from jaxsens.data import severstal
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
    class_names: name of each class, in the order of the labels; () if only
      the data say them, see `classes`.
    channels: 1 for gray, 3 for RGB images; `image_channels` heeds the options.
    defaults: options to look at the data with, where nobody chose any.
    class_names_of: options -> class names, where they depend on those.
  """

  load: Callable[..., image_sets.Splits]
  find_root: Callable[[str | os.PathLike | None], pathlib.Path | None]
  class_names: tuple[str, ...]
  channels: int
  defaults: Mapping[str, object] = dataclasses.field(default_factory=dict)
  class_names_of: Callable[[Mapping], tuple[str, ...]] | None = None

  def classes(self, options: Mapping) -> tuple[str, ...]:
    """Returns the names of the classes that `load` gives with these options."""
    if self.class_names_of is None:
      return self.class_names
    return self.class_names_of(options)

  def image_channels(self, options: Mapping) -> int:
    """Returns 1 for gray and 3 for RGB images, with these options."""
    return options.get('channels', self.channels)


def _folder_root(root):
  return pathlib.Path(root) if root else None


def _folder_classes(options):
  given = options.get('class_names')
  return tuple(given) if given else class_tree.find_class_names(options['root'])


def _severstal_classes(options):
  return mask_labels.class_names(
      options.get('label_policy', 'largest'),
      severstal.CLASS_NAMES[0],
      severstal.DEFECTS,
  )


_SHARES = types.MappingProxyType(
    {'validation_fraction': 0.15, 'test_fraction': 0.15}
)

SOURCES: Mapping[str, Source] = types.MappingProxyType({
    'cifar10': Source(
        cifar10.load_cifar10,
        functools.partial(roots.find, name=cifar10.FOLDER),
        cifar10.CLASS_NAMES,
        channels=3,
        defaults={'validation_fraction': 0.1},
    ),
    'filter_labels': Source(
        class_tree.load_filter_labels,
        functools.partial(roots.find, name=class_tree.FILTER_LABELS_FOLDER),
        class_tree.FILTER_LABELS,
        channels=3,
        defaults=_SHARES,
    ),
    'folder': Source(
        class_tree.load_folder,
        _folder_root,
        (),
        channels=3,
        defaults={'channels': 3, **_SHARES},
        class_names_of=_folder_classes,
    ),
    'neu_seg': Source(
        neu_seg.load_neu_seg,
        functools.partial(roots.find, name=neu_seg.FOLDER),
        neu_seg.DEFECTS,
        channels=1,
        defaults={'validation_fraction': 0.15, 'label_policy': 'largest'},
    ),
    'severstal': Source(
        severstal.load_severstal,
        functools.partial(roots.find, name=severstal.FOLDER),
        severstal.CLASS_NAMES,
        channels=3,
        defaults={'label_policy': 'largest', **_SHARES},
        class_names_of=_severstal_classes,
    ),
    'steel': Source(
        steel.load_steel,
        functools.partial(roots.find, name=steel.FOLDER),
        steel.CLASS_NAMES,
        channels=1,
        defaults=_SHARES,
    ),
    'weld': Source(
        weld.load_weld,
        weld.find_root,
        weld.CLASS_NAMES,
        channels=1,
        defaults={
            'size_of_synthetic': (78, 64),
            'num_synthetic_per_class': 20,
            'validation_fraction': 0.2,
            'combine_synthetic': 'never',
        },
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
