"""captum on networks of torchvision, and two of its faults repaired.

captum 0.9 gets DeepLIFT wrong behind max pools, for one image as well:

- a rectifier next to a pool, on either side, is given the gradient as it was
  before the rule of its neighbour (the hooks sit on the same tensor); `apart`
  puts a product by one between them;
- windows that overlap have one pixel as their maximum several times, and
  `max_unpool2d` keeps one of the contributions; `summed_unpooling` adds them.

Repaired, its contributions sum to the gain, as they should.
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import types
import warnings

from captum import attr
from captum import metrics
from captum.attr._core import deep_lift
import numpy as np
import torch
from torch import nn
import torchvision

from third_party.pytorch_baselines import network_speed

FORMATS = {
  'NCHW': torch.contiguous_format, 'channels_last': torch.channels_last,
}  # fmt: skip


class _Apart(nn.Module):

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    return x * 1


def create(
  architecture: str, num_classes: int, size: int, precision: str = 'float32',
  *, seed: int = 1,
) -> tuple[nn.Module, dict[str, np.ndarray]]:
  """Returns a network with random weights, and these by torch's names."""
  with torch.random.fork_rng():
    torch.manual_seed(seed)
    network = network_speed.create(architecture, num_classes, 4, size)
  arrays = network_speed.arrays(network)
  return single_use(network).to(getattr(torch, precision)), arrays


def single_use(network: nn.Module) -> nn.Module:
  """Returns the network with every rectifier used once and none in place."""
  for module in list(network.modules()):
    if isinstance(module, nn.ReLU):
      module.inplace = False
    if isinstance(module, torchvision.models.resnet.BasicBlock):
      module.relu2 = nn.ReLU()
      module.forward = types.MethodType(_block, module)
  return network.eval()


def _block(block, x):
  y = block.relu(block.bn1(block.conv1(x)))
  skipped = x if block.downsample is None else block.downsample(x)
  return block.relu2(block.bn2(block.conv2(y)) + skipped)


def apart(network: nn.Module) -> nn.Module:
  """Returns the network with a product by one on both sides of its pools."""
  for module in list(network.modules()):
    for name, child in list(module.named_children()):
      if isinstance(child, nn.MaxPool2d):
        setattr(module, name, nn.Sequential(_Apart(), child, _Apart()))
  return network


@contextlib.contextmanager
def summed_unpooling() -> Iterator[None]:
  """Lets captum add what several windows contribute to one pixel."""
  def unpool(x, indices, size, stride, padding, shape):
    del size, stride, padding
    zeros = torch.zeros(shape, dtype=x.dtype).flatten(2)
    return zeros.scatter_add(2, indices.flatten(2), x.flatten(2)).reshape(shape)

  before = deep_lift.F
  deep_lift.F = types.SimpleNamespace(
    max_pool2d=nn.functional.max_pool2d, max_unpool2d=unpool
  )
  try:
    yield
  finally:
    deep_lift.F = before


def tensor(images: np.ndarray, layout: str = 'NCHW') -> torch.Tensor:
  """Returns images (B, H, W, C) as (B, C, H, W) in a memory layout."""
  channels_first = torch.from_numpy(np.ascontiguousarray(
    np.asarray(images).transpose(0, 3, 1, 2)
  ))
  return channels_first.to(memory_format=FORMATS[layout])


def array(found: torch.Tensor) -> np.ndarray:
  """Returns (B, C, H, W) as (B, H, W, C)."""
  return found.detach().numpy().transpose(0, 2, 3, 1)


METHODS: dict[str, Callable] = {
  'saliency': attr.Saliency,
  'gradient x input': attr.InputXGradient,
  'integrated gradients': attr.IntegratedGradients,
  'DeepLIFT': attr.DeepLift,
  'guided backpropagation': attr.GuidedBackprop,
  'deconvolution': attr.Deconvolution,
}


def attribute(
  network: nn.Module,
  method: str,
  images: torch.Tensor,
  target: int,
  **options,
) -> torch.Tensor:
  """Returns captum's attributions (B, C, H, W) by a key of `METHODS`."""
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    return METHODS[method](network).attribute(
      images.requires_grad_(), target=target, **options
    )


def grad_cam(
  network: nn.Module, layer: str, images: torch.Tensor, target: int
) -> np.ndarray:
  """Returns the map of a layer (B, h, w), rectified."""
  explainer = attr.LayerGradCam(network, network.get_submodule(layer))
  found = explainer.attribute(images, target, relu_attributions=True)
  return found.detach().numpy()[:, 0]


def conductance(
  network: nn.Module,
  layer: str,
  images: torch.Tensor,
  target: int,
  num_steps: int,
) -> np.ndarray:
  """Returns the conductance of a layer (B, h, w, C)."""
  explainer = attr.LayerConductance(network, network.get_submodule(layer))
  found = explainer.attribute(images, target=target, n_steps=num_steps)
  return array(found)


def infidelity(
  network: nn.Module,
  images: torch.Tensor,
  attributions: torch.Tensor,
  target: int,
  perturbations: np.ndarray,
) -> np.ndarray:
  """Returns the infidelity (B,) under given perturbations (B, S, H, W, C)."""
  num_samples = perturbations.shape[1]
  flat = tensor(perturbations.reshape(-1, *perturbations.shape[2:]))
  found = metrics.infidelity(
    network, lambda x: (flat, x - flat), images, attributions, target=target,
    n_perturb_samples=num_samples,
    max_examples_per_batch=len(images) * num_samples,
  )
  return found.detach().numpy()
