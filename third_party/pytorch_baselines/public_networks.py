"""Networks of torchvision filled with public weights, as a reference.

State dicts whose batch norms were folded into convolutions fill networks
without batch norms, and Keras's padding is written out in front of every
convolution; so nothing here goes the way that the package takes.
"""

import collections
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from third_party.pytorch_baselines import torchvision_import


class SamePadded(nn.Module):
  """A convolution behind the zeros that TensorFlow's 'SAME' puts around it."""

  def __init__(self, convolution: nn.Conv2d):
    super().__init__()
    self.convolution = convolution
    self.convolution.padding = (0, 0)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    """Returns the convolution of x (B, C, H, W)."""
    pads: list[int] = []
    for axis in (1, 0):
      size = self.convolution.kernel_size[axis]
      stride = self.convolution.stride[axis]
      side = x.shape[2 + axis]
      total = max((-(-side // stride) - 1) * stride + size - side, 0)
      pads += [total // 2, total - total // 2]
    return self.convolution(functional.pad(x, pads))


def load(
  architecture: str,
  arrays: Mapping[str, np.ndarray],
  *,
  padding: str = 'torch',
  num_classes: int = 1000,
) -> nn.Module:
  """Returns torchvision's network with these weights, in inference mode.

  Args:
    architecture: name of a function of torchvision.models.
    arrays: all weights by torchvision's names, of any precision; without an
      entry for any running mean the batch norms are taken to be folded.
    padding: 'torch', or 'same' as Keras pads.
    num_classes: number of logits.
  """
  models = torchvision_import.load().models
  network = getattr(models, architecture)(
    weights=None, num_classes=num_classes
  )
  if not any(name.endswith('running_mean') for name in arrays):
    _remove_norms(network)
  tensors = {
    name: torch.from_numpy(np.asarray(x, np.float32).copy())
    for name, x in arrays.items()
  }
  counters = {
    name: x for name, x in network.state_dict().items()
    if name.endswith('num_batches_tracked')
  }
  network.load_state_dict({**counters, **tensors})
  if padding == 'same':
    _pad_same(network)
  return network.eval()


def _remove_norms(network: nn.Module) -> None:
  """Removes batch norms and gives the convolutions before them biases."""
  before = None
  for parent in list(network.modules()):
    for name, child in list(parent.named_children()):
      if isinstance(child, nn.Conv2d):
        before = child
      elif isinstance(child, nn.BatchNorm2d):
        before.bias = nn.Parameter(torch.zeros(child.num_features))
        setattr(parent, name, nn.Identity())


def _pad_same(network: nn.Module) -> None:
  for parent in list(network.modules()):
    for name, child in list(parent.named_children()):
      if isinstance(child, nn.Conv2d) and child.kernel_size != (1, 1):
        setattr(parent, name, SamePadded(child))


def lenet(arrays: Mapping[str, np.ndarray]) -> nn.Module:
  """Returns the network of PyTorch's CIFAR-10 tutorial with these weights."""
  network = blank_lenet()
  network.load_state_dict({
    name: torch.from_numpy(np.array(x)) for name, x in arrays.items()
  })
  return network.eval()


def blank_lenet() -> nn.Sequential:
  """Returns the network of PyTorch's CIFAR-10 tutorial, weights random."""
  stages: dict[str, nn.Module] = {}
  for i, (before, after) in enumerate(((3, 6), (6, 16)), 1):
    stages[f'conv{i}'] = nn.Conv2d(before, after, 5)
    stages[f'relu{i}'] = nn.ReLU()
    stages[f'pool{i}'] = nn.MaxPool2d(2)
  stages['flatten'] = nn.Flatten()
  for i, (before, after) in enumerate(((400, 120), (120, 84)), 1):
    stages[f'fc{i}'] = nn.Linear(before, after)
    stages[f'relu{i + 2}'] = nn.ReLU()
  stages['fc3'] = nn.Linear(84, 10)
  return nn.Sequential(collections.OrderedDict(stages))


def logits(
  network: nn.Module, images: np.ndarray, *, batch_size: int
) -> np.ndarray:
  """Returns the logits (B, K) of normalised images (B, H, W, C) on the CPU."""
  rows = []
  with torch.no_grad():
    for i in range(0, len(images), batch_size):
      batch = np.ascontiguousarray(
        images[i : i + batch_size].transpose(0, 3, 1, 2)
      )
      rows.append(network(torch.from_numpy(batch)).numpy())
  return np.concatenate(rows)
