"""captum on torch twins of our networks, with two of its faults repaired.

captum 0.9 gets DeepLIFT wrong behind max pools, for one image as well:

- a rectifier next to a pool, on either side, is given the gradient as it was
  before the rule of its neighbour (the hooks sit on the same tensor); `apart`
  puts a product by one between them;
- windows that overlap have one pixel as their maximum several times, and
  `max_unpool2d` keeps one of the contributions; `summed_unpooling` adds them.

Repaired, its contributions sum to the gain, as they should.
"""

import contextlib
import functools
import types
import warnings

import jax
import numpy as np
import pytest

from jaxsens import classifiers
from jaxsens import quantities
from jaxsens.weights import convert
from tests.oracles import torchvision_networks
from tests.oracles import torchvision_ops

SIZE = 32
CLASS_NAMES = tuple('abcdefg')


def import_captum():
  """Returns captum.attr, or skips the test."""
  pytest.importorskip('torch', reason='torch is the oracle here')
  pytest.importorskip('captum', reason='captum is the oracle here')
  from captum import attr

  return attr


def images(number: int, seed: int = 0) -> np.ndarray:
  rng = np.random.default_rng(seed)
  return rng.uniform(size=(number, SIZE, SIZE, 3)).astype(np.float32)


def as_classifier(model) -> classifiers.Classifier:
  return classifiers.from_flax(
    model, preprocess=classifiers.identity, class_names=CLASS_NAMES,
    image_size=(SIZE, SIZE), channels=3,
  )


@functools.cache
def classifier(name: str) -> classifiers.Classifier:
  return as_classifier(torchvision_networks.network(name))


def peer(name: str):
  """Returns the torch twin, each of whose rectifiers is used once."""
  import_captum()
  torchvision = torchvision_ops.import_torchvision()
  import torch

  made = getattr(torchvision.models, name)(num_classes=len(CLASS_NAMES))
  names = convert.to_torch_names(torchvision_networks.network(name))
  made.load_state_dict({
    key: torch.from_numpy(np.array(array)) for key, array in names.items()
  })
  for module in list(made.modules()):
    if isinstance(module, torch.nn.ReLU):
      module.inplace = False
    if isinstance(module, torchvision.models.resnet.BasicBlock):
      module.relu2 = torch.nn.ReLU()
      module.forward = types.MethodType(_block, module)
  return made.eval()


def _block(block, x):
  y = block.relu(block.bn1(block.conv1(x)))
  skipped = x if block.downsample is None else block.downsample(x)
  return block.relu2(block.bn2(block.conv2(y)) + skipped)


def apart(made):
  """Returns the twin with a product by one on both sides of its pools."""
  import torch

  class Apart(torch.nn.Module):
    def forward(self, x):
      return x * 1

  for module in list(made.modules()):
    for name, child in list(module.named_children()):
      if isinstance(child, torch.nn.MaxPool2d):
        setattr(module, name, torch.nn.Sequential(Apart(), child, Apart()))
  return made


@contextlib.contextmanager
def summed_unpooling():
  """Lets captum add what several windows contribute to one pixel."""
  from captum.attr._core import deep_lift
  import torch

  def unpool(x, indices, size, stride, padding, shape):
    del size, stride, padding
    zeros = torch.zeros(shape).flatten(2)
    return zeros.scatter_add(2, indices.flatten(2), x.flatten(2)).reshape(shape)

  functional = types.SimpleNamespace(
    max_pool2d=torch.nn.functional.max_pool2d, max_unpool2d=unpool
  )
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(deep_lift, 'F', functional)
    yield


def to_torch(arrays: np.ndarray):
  import torch

  return torch.from_numpy(np.ascontiguousarray(arrays.transpose(0, 3, 1, 2)))


def values(method, arrays: np.ndarray, *baselines, **options) -> np.ndarray:
  """Returns captum's attributions (B, H, W, C)."""
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    found = method.attribute(
      to_torch(arrays), *map(to_torch, baselines), **options
    )
  return found.detach().numpy().transpose(0, 2, 3, 1)


def check_close(found, expected, rtol=1e-4):
  """Compares in units of the largest value."""
  scale = np.abs(expected).max()
  assert scale > 0
  np.testing.assert_allclose(found / scale, expected / scale, atol=rtol, rtol=0)


def quantity_of(name: str, logits: jax.Array, label: int) -> jax.Array:
  return quantities.make_quantities([name], CLASS_NAMES[: len(logits)])(
    logits, label
  )[0]
