"""The evaluation loop of the source system of arXiv:2506.18751, in PyTorch.

For every node one Pillow image is perturbed at full resolution, in 8 bits:
brightness, rotation to the nearest pixel, tilt, then resize, tensor, normalise.
A DataLoader without workers joins 64 of them, ResNet18 on the CPU gives the
logits and the softmax the probability of the true class. Written from a
description of the system, to be compared with it in numbers and in speed; its
conventions are kept on purpose (see README.md).
"""

from collections.abc import Mapping
import math

import numpy as np
from PIL import Image
import torch
from torch import nn
from torch.utils import data

from third_party.pytorch_baselines import torchvision_import

_torchvision = torchvision_import.load()
_functional = _torchvision.transforms.functional

SIZE = 244
"""Size of the network's input, pixels; the network was trained at 224."""
BATCH_SIZE = 64
MEAN, STD = 0.5, 0.5
# Sides of the box whose corners the tilt moves, whatever the image's size.
_BOX = 244


def build_network(num_classes: int) -> nn.Module:
  """Returns ResNet18 with a stem for gray images and dropout in the head."""
  network = _torchvision.models.resnet18(weights=None)
  network.conv1 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
  head = nn.Linear(network.fc.in_features, num_classes)
  network.fc = nn.Sequential(nn.Dropout(0.5), head)
  return network


def load_network(state_dict: Mapping[str, np.ndarray]) -> nn.Module:
  """Returns the network with these weights, set to inference.

  Args:
    state_dict: arrays by torch's names; `fc.1.bias` gives the classes.
  """
  network = build_network(len(state_dict['fc.1.bias']))
  network.load_state_dict({
    name: torch.tensor(np.asarray(array)) for name, array in state_dict.items()
  })
  return network.eval()


def perturb(
  image: Image.Image,
  brightness: float,
  rotation: float,
  tilt: float,
  *,
  size: int = SIZE,
) -> torch.Tensor:
  """Returns the network's input for one node.

  Args:
    image: 8-bit gray.
    brightness: factor, >= 0.
    rotation: degrees, counter-clockwise.
    tilt: degrees; the top edge of the box shrinks by tan(tilt) per side.
    size: height and width of the result, pixels.

  Returns:
    (1, size, size) float32 in [-1, 1].
  """
  image = _functional.adjust_brightness(image, brightness)
  image = _functional.rotate(image, rotation)
  shift = math.tan(math.radians(tilt)) * _BOX
  start = [[0, 0], [_BOX, 0], [_BOX, _BOX], [0, _BOX]]
  end = [[shift, 0], [_BOX - shift, 0], [_BOX, _BOX], [0, _BOX]]
  image = _functional.perspective(image, start, end)
  image = _functional.resize(image, [size, size])
  return _functional.normalize(_functional.to_tensor(image), [MEAN], [STD])


class PerturbedImages(data.Dataset):
  """One image at all nodes, perturbed when it is asked for.

  Attributes:
    image: 8-bit gray Pillow image.
    values: (N, 3) brightness, rotation, tilt.
    size: height and width of the network's input, pixels.
  """

  def __init__(self, image: Image.Image, values: np.ndarray, size: int):
    self.image, self.values, self.size = image, values, size

  def __len__(self) -> int:
    """Returns the number of nodes N."""
    return len(self.values)

  def __getitem__(self, index: int) -> torch.Tensor:
    """Returns the network's input for one node."""
    row = map(float, self.values[index])
    return perturb(self.image, *row, size=self.size)


def probabilities(
  network: nn.Module,
  image: np.ndarray,
  label: int,
  values: np.ndarray,
  *,
  size: int = SIZE,
) -> np.ndarray:
  """Returns the softmax probability of the true class at all nodes, (N,).

  Args:
    network: from `load_network`.
    image: (H, W) uint8.
    label: true class.
    values: (N, 3) brightness (factor), rotation and tilt (degrees).
    size: height and width of the network's input, pixels.
  """
  images = PerturbedImages(Image.fromarray(image), values, size)
  found = []
  with torch.no_grad():
    for batch in data.DataLoader(images, batch_size=BATCH_SIZE):
      found.append(torch.softmax(network(batch), dim=1)[:, label])
  return torch.cat(found).numpy()
