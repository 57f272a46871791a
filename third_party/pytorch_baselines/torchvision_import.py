"""Imports torchvision also beside a CPU build of torch.

On import torchvision registers shape rules for two operators of its compiled
part and fails when that part does not fit the installed torch. Declaring the
operators then lets everything that is written in Python be imported: the models
and the transforms. Where the compiled part fits, nothing is declared.
"""

import importlib
import types

_SIGNATURE = '(Tensor dets, Tensor scores, float iou_threshold) -> Tensor'
_OPERATORS = ('nms', 'qnms')


def load() -> types.ModuleType:
  """Returns torchvision with `models` and `transforms.functional` imported.

  Raises:
    ImportError: torch or torchvision is not installed.
  """
  try:
    torch = importlib.import_module('torch')
    torchvision = _import_or_declare(torch)
  except ImportError as error:
    raise ImportError(
      f'the PyTorch baselines need torch and torchvision ({error}): pip '
      'install torch, then pip install --no-deps torchvision'
    ) from error
  # Not imported by torchvision itself when its compiled part is missing.
  importlib.import_module('torchvision.models')
  importlib.import_module('torchvision.transforms.functional')
  return torchvision


def _import_or_declare(torch: types.ModuleType) -> types.ModuleType:
  try:
    return importlib.import_module('torchvision')
  except RuntimeError as error:
    if 'torchvision::' not in str(error):
      raise
  for name in _OPERATORS:
    if not hasattr(torch.ops.torchvision, name):
      torch.library.define(f'torchvision::{name}', _SIGNATURE)
  return importlib.import_module('torchvision')
