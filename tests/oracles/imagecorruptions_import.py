"""The package imagecorruptions as an oracle, beside today's libraries.

Its version 1.1.2 asks for `pkg_resources`, a module of SciPy and an argument
of scikit-image that are gone; stand-ins are given to it alone.
"""

import functools
import importlib
import importlib.util
import sys
import types
from unittest import mock

import pytest
from scipy import ndimage


def import_corruptions() -> types.ModuleType:
  """Returns imagecorruptions.corruptions; skips the calling test without."""
  if importlib.util.find_spec('imagecorruptions') is None:
    pytest.skip('imagecorruptions is the oracle here and is not installed')
  resources = types.ModuleType('pkg_resources')
  resources.resource_filename = lambda package, path: path
  stand_ins = {
    'scipy.ndimage.interpolation': ndimage, 'pkg_resources': resources,
  }
  with mock.patch.dict(sys.modules, stand_ins):
    corruptions = importlib.import_module('imagecorruptions.corruptions')
  filters = importlib.import_module('skimage.filters')

  @functools.wraps(filters.gaussian)
  def gaussian(image, sigma, *, multichannel=False):
    return filters.gaussian(
      image, sigma, channel_axis=-1 if multichannel else None
    )

  corruptions.gaussian = gaussian
  return corruptions
