"""Torch's twin of the small network, for libraries that explain torch's."""

import numpy as np
import pytest


def small_network(classifier):
  """Returns the twin in float64 of `small_networks.classifier`.

  It takes images in [0, 1], (B, C, H, W), as numbers are normalised inside.
  """
  torch = pytest.importorskip('torch', reason='torch is the oracle here')
  from jaxsens.attribution import taps

  network = taps.module_of(classifier)

  class Twin(torch.nn.Module):

    def __init__(self):
      super().__init__()
      width = network.stem.kernel[...].shape[-1]
      self.stem = _convolution(torch, network.stem)
      self.norm = torch.nn.BatchNorm2d(width)
      for name, value in (
        ('weight', network.norm.scale), ('bias', network.norm.bias),
        ('running_mean', network.norm.mean), ('running_var', network.norm.var),
      ):
        getattr(self.norm, name).data = _tensor(torch, value)
      self.first = _convolution(torch, network.first)
      self.second = _convolution(torch, network.second)
      self.head = torch.nn.Linear(width, network.head.kernel[...].shape[-1])
      self.head.weight.data = _tensor(torch, network.head.kernel).T
      self.head.bias.data = _tensor(torch, network.head.bias)
      self.relus = torch.nn.ModuleList(torch.nn.ReLU() for _ in range(3))
      self.pool = torch.nn.MaxPool2d(2)

    def forward(self, images):
      mean = torch.tensor(classifier.preprocess.mean).double()
      std = torch.tensor(classifier.preprocess.std).double()
      x = (images - mean[:, None, None]) / std[:, None, None]
      x = self.pool(self.relus[0](self.norm(self.stem(x))))
      x = self.relus[2](x + self.second(self.relus[1](self.first(x))))
      return self.head(x.mean((2, 3)))

  return Twin().double().eval()


def to_torch(images):
  """Returns images (B, H, W, C) as a tensor (B, C, H, W) in float64."""
  torch = pytest.importorskip('torch', reason='torch is the oracle here')
  channels_first = np.asarray(images, np.float64).transpose(0, 3, 1, 2)
  return torch.tensor(channels_first.copy())


def from_torch(tensor):
  """Returns a tensor (B, C, H, W) as an array (B, H, W, C)."""
  return tensor.detach().numpy().transpose(0, 2, 3, 1)


def _tensor(torch, variable):
  return torch.tensor(np.asarray(variable[...], np.float64))


def _convolution(torch, layer):
  kernel = _tensor(torch, layer.kernel).permute(3, 2, 0, 1).contiguous()
  out, inside = kernel.shape[:2]
  convolution = torch.nn.Conv2d(inside, out, 3, padding=1)
  convolution.weight.data = kernel
  convolution.bias.data = _tensor(torch, layer.bias)
  return convolution
