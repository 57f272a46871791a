"""torchvision as an oracle, also beside a CPU build of torch."""

import types

import pytest

from third_party.pytorch_baselines import torchvision_import


def import_torchvision() -> types.ModuleType:
  """Returns torchvision; skips the calling test when torch or it is absent."""
  try:
    return torchvision_import.load()
  except ImportError as error:
    pytest.skip(f'torchvision is the oracle here: {error}')
