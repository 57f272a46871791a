"""Imports torchvision beside a CPU build of torch without its compiled part.

torchvision registers shape rules for two operators of its compiled extension on
import and fails when the extension does not fit the installed torch. Declaring
the operators first lets everything written in Python (models and
transforms.functional, the parts used as oracles) be imported.
"""

import types

import pytest


def import_torchvision() -> types.ModuleType:
  """Returns torchvision; skips the calling test when torch or it is absent."""
  torch = pytest.importorskip('torch', reason='torch is the oracle here')
  _declare_operators(torch)
  torchvision = pytest.importorskip(
    'torchvision', reason='torchvision is the oracle here'
  )
  # Not imported by torchvision itself when its extension is missing.
  import torchvision.models
  import torchvision.transforms.functional  # noqa: F401

  return torchvision


def _declare_operators(torch: types.ModuleType) -> None:
  for name in ('nms', 'qnms'):
    if hasattr(torch.ops.torchvision, name):
      continue
    torch.library.define(
      f'torchvision::{name}',
      '(Tensor dets, Tensor scores, float iou_threshold) -> Tensor',
    )
