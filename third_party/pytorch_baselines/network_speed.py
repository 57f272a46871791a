"""Networks of torchvision to be timed: forward passes and training steps.

Random weights and images, float32 on the CPU, as torchvision's own training
reference writes a step: gradients cleared, cross-entropy, backward, SGD with
momentum.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from third_party.pytorch_baselines import forward
from third_party.pytorch_baselines import public_networks
from third_party.pytorch_baselines import torchvision_import

LAYOUTS = {
  'NCHW': torch.contiguous_format, 'channels_last': torch.channels_last,
}  # fmt: skip


def create(
  architecture: str, num_classes: int, batch_size: int, size: int
) -> nn.Module | None:
  """Returns a network with random weights, None where there is none.

  Its running moments are those of a random batch. With the initial ones the
  images fade from layer to layer until they are denormal numbers, with which
  torch, unlike XLA, computes many times more slowly.
  """
  models = torchvision_import.load().models
  if architecture == 'lenet':
    network = public_networks.blank_lenet()
  elif hasattr(models, architecture):
    make = getattr(models, architecture)
    network = make(weights=None, num_classes=num_classes)
  else:
    return None
  norms = [x for x in network.modules() if isinstance(x, nn.BatchNorm2d)]
  kept = [norm.momentum for norm in norms]
  for norm in norms:
    norm.momentum = 1.0
  with torch.no_grad():
    network.train()(_images(batch_size, size, 'NCHW'))
  for norm, momentum in zip(norms, kept, strict=True):
    norm.momentum = momentum
  return network.eval()


def arrays(network: nn.Module) -> dict[str, np.ndarray]:
  """Returns copies of all weights and moments by torch's names."""
  return {n: x.numpy().copy() for n, x in network.state_dict().items()}


def logits(network: nn.Module, images: np.ndarray) -> np.ndarray:
  """Returns the logits (B, K) of normalised images (B, H, W, C)."""
  return forward.logits(network, images)


def make_forward(
  network: nn.Module, batch_size: int, size: int, layout: str
) -> Callable[[int], None]:
  """Returns a function that runs a number of batches in inference mode.

  Args:
    network: changed to the memory layout.
    batch_size: images (3, size, size) per batch.
    size: height and width, pixels.
    layout: key of `LAYOUTS`.
  """
  images = _images(batch_size, size, layout)
  network = network.to(memory_format=LAYOUTS[layout]).eval()

  def run(num_batches: int) -> None:
    with torch.inference_mode():
      for _ in range(num_batches):
        network(images)

  return run


def make_training_step(
  network: nn.Module,
  batch_size: int,
  size: int,
  layout: str,
  num_classes: int,
) -> Callable[[int], None]:
  """Returns a function that makes a number of updates by SGD."""
  images = _images(batch_size, size, layout)
  labels = torch.arange(batch_size) % num_classes
  network = network.to(memory_format=LAYOUTS[layout]).train()
  optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)

  def run(num_steps: int) -> None:
    for _ in range(num_steps):
      optimizer.zero_grad()
      functional.cross_entropy(network(images), labels).backward()
      optimizer.step()

  return run


def _images(batch_size, size, layout):
  images = torch.randn(batch_size, 3, size, size)
  return images.contiguous(memory_format=LAYOUTS[layout])
