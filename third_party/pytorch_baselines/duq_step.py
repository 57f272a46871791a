"""One training step of DUQ in torch, as a reference.

The order is that of the published training script: a pass in training mode
gives kernels, loss and penalty; the optimiser moves; a second pass in
evaluation mode with the new weights moves the centroids.

References:
  van Amersfoort et al., Uncertainty estimation using a single deep
  deterministic neural network, 2020.
"""

import torch
from torch import nn
from torch.nn import functional


class Duq(nn.Module):
  """An extractor, kernels (M, K, D), and centroids as buffers.

  Attributes:
    extractor: images -> features (B, D).
    kernels: (M, K, D).
    counts: (K,).
    sums: (M, K).
  """

  def __init__(
    self,
    extractor: nn.Module,
    kernels: torch.Tensor,
    counts: torch.Tensor,
    sums: torch.Tensor,
    length_scale: float,
  ):
    super().__init__()
    self.extractor = extractor
    self.kernels = nn.Parameter(kernels)
    self.register_buffer('counts', counts)
    self.register_buffer('sums', sums)
    self.length_scale = length_scale

  def embed(self, images: torch.Tensor) -> torch.Tensor:
    """Returns (B, M, K)."""
    return torch.einsum('bd,mkd->bmk', self.extractor(images), self.kernels)

  def forward(self, images: torch.Tensor) -> torch.Tensor:
    """Returns the kernels (B, K)."""
    offsets = self.embed(images) - self.sums / self.counts
    distances = (offsets**2).mean(1) / (2 * self.length_scale**2)
    return torch.exp(-distances)


def step(
  network: Duq,
  optimizer: torch.optim.Optimizer,
  images: torch.Tensor,
  labels: torch.Tensor,
  *,
  penalty: float,
  decay: float,
) -> float:
  """Makes one step; returns the loss before it, with the penalty.

  Args:
    network: changed in place.
    optimizer: of its parameters.
    images: (B, C, H, W), normalised.
    labels: (B,) int.
    penalty: weight of the two-sided penalty on the norm; 0 leaves it out.
    decay: of counts and sums.
  """
  onehot = functional.one_hot(labels, len(network.counts)).to(images.dtype)
  network.train()
  images = images.detach().requires_grad_(penalty > 0)
  kernels = network(images)
  loss = functional.binary_cross_entropy(kernels, onehot)
  if penalty:
    slopes = torch.autograd.grad(kernels.sum(), images, create_graph=True)[0]
    excess = slopes.flatten(1).norm(dim=1) - 1
    loss = loss + penalty * (excess**2).mean()
  optimizer.zero_grad()
  loss.backward()
  optimizer.step()
  network.eval()
  with torch.no_grad():
    totals = torch.einsum('bmk,bk->mk', network.embed(images), onehot)
    network.counts.mul_(decay).add_((1 - decay) * onehot.sum(0))
    network.sums.mul_(decay).add_((1 - decay) * totals)
  return loss.item()
