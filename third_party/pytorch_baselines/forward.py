"""The network alone in PyTorch, as fast as PyTorch makes it without changes.

Channels last, inference mode, random images that are already where the network
is. What a pipeline on PyTorch could reach at best if perturbing cost nothing.
"""

from collections.abc import Callable
import copy

import numpy as np
import torch
from torch import nn


def has_cuda() -> bool:
  """Returns whether torch sees a CUDA device."""
  return torch.cuda.is_available()


def logits(network: nn.Module, images: np.ndarray) -> np.ndarray:
  """Returns the logits (B, K) of normalised images (B, H, W, C), float32."""
  channels_first = torch.tensor(np.moveaxis(images, -1, 1))
  with torch.inference_mode():
    return network(channels_first).numpy()


def make_forward(
  network: nn.Module,
  batch_size: int,
  size: int,
  *,
  dtype: str = 'float32',
  device: str = 'cpu',
  compiled: bool = False,
) -> Callable[[int], None]:
  """Returns a function that runs a number of batches and waits for them.

  Args:
    network: a network in inference mode; it is copied.
    batch_size: gray images per batch.
    size: height and width of the images, pixels.
    dtype: 'float32' or 'bfloat16', of weights and images. Convolutions in
      float32 use TF32 on CUDA as torch does by default.
    device: 'cpu' or 'cuda'.
    compiled: run under `torch.compile`; the first call compiles.
  """
  dtype = getattr(torch, dtype)
  last = torch.channels_last
  network = copy.deepcopy(network).to(device, dtype, memory_format=last)
  network.requires_grad_(False)
  if compiled:
    network = torch.compile(network, dynamic=False)
  images = torch.randn(batch_size, 1, size, size, device=device, dtype=dtype)
  images = images.contiguous(memory_format=last)

  def run(num_batches: int) -> None:
    with torch.inference_mode():
      for _ in range(num_batches):
        network(images)
    if device == 'cuda':
      torch.cuda.synchronize()

  return run
