"""The data sets by name, and the types that they come in.

A source is a function load(key, **options) -> Splits. Which data it found is
written in the `description` of each set.
"""

from collections.abc import Callable
from collections.abc import Mapping
import types

import jax

from jaxsens.data import image_sets
from jaxsens.data import weld

ImageSet = image_sets.ImageSet
Splits = image_sets.Splits
resize_all = image_sets.resize_all
load_weld = weld.load_weld

SOURCES: Mapping[str, Callable[..., image_sets.Splits]] = (
    types.MappingProxyType({'weld': weld.load_weld})
)


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
  if name not in SOURCES:
    raise ValueError(
        f'unknown data source {name!r}, expected one of {sorted(SOURCES)}.'
    )
  return SOURCES[name](key, **options)
