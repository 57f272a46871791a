"""Asserts that torch's network of the same names does what ours does."""

import numpy as np

from jaxsens.models import states
from jaxsens.weights import convert
from tests.oracles import torchvision_networks


def images(batch, size, channels):
  """Returns normalised images (batch, *size, channels)."""
  rng = np.random.default_rng(1)
  return rng.normal(size=(batch, *size, channels)).astype(np.float32)


def fill(peer, network):
  """Returns torch's network with the values of ours; names must be the same."""
  import torch

  state_dict = convert.to_torch_names(network)
  peer.load_state_dict({n: torch.from_numpy(x) for n, x in state_dict.items()})
  return peer


def check_inference(network, peer, *batches, rtol=1e-4):
  """Asserts equal logits, relative to the largest."""
  fill(peer, network).eval()
  for batch in batches:
    expected = torchvision_networks.peer_logits(peer, batch)
    assert np.abs(expected).max() > 0
    actual = torchvision_networks.logits(network, batch)
    _check('logits', actual, expected, rtol)


def check_training(
  network, peer, batch, rtol=1e-4, vanishing=1e-3, shift=4.0
):
  """Asserts equal logits, moments and gradients in training without dropout.

  Each array relative to its largest number, or to the share `vanishing` of the
  largest gradient where that is more: gradients of biases ahead of a batch norm
  vanish but for rounding. Batch norms are moved by `shift` so that few values
  are negative: where one falls within rounding of the kink of a ReLU, the
  gradients of two float32 networks differ by a percent, and either may be the
  nearer to float64's.
  """
  arrays = states.flatten(network)
  arrays |= {
    name: x + shift for name, x in arrays.items()
    if name.endswith('bias') and name.replace('bias', 'scale') in arrays
  }
  network = states.replace(network, arrays)
  rng = np.random.default_rng(2)
  num_classes = len(list(peer.parameters())[-1])
  weights = rng.normal(size=(len(batch), num_classes)).astype(np.float32)
  expected = torchvision_networks.peer_step(fill(peer, network), batch, weights)
  actual = torchvision_networks.step(network, batch, weights)
  assert actual.keys() == expected.keys()
  parameters = {name for name, _ in peer.named_parameters()}
  floor = vanishing * max(np.abs(expected[name]).max() for name in parameters)
  for name, x in expected.items():
    if not name.endswith('num_batches_tracked'):
      own_floor = floor if name in parameters else 0.0
      _check(name, actual[name], x, rtol, own_floor)


def _check(name, actual, expected, rtol, floor=0.0):
  largest = max(np.abs(expected).max(), floor)
  np.testing.assert_allclose(
    actual, expected, rtol=0, atol=rtol * largest, err_msg=name
  )
