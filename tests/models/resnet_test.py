import functools

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsens.models import inference
from jaxsens.models import layers
from jaxsens.models import registry
from jaxsens.models import resnet
from jaxsens.models import states
from jaxsens.weights import convert
from tests.oracles import torch_networks
from tests.oracles import torchvision_networks
from tests.oracles import torchvision_ops

# The parity of the forms that are shipped is held by convolutions_test.
pytestmark = pytest.mark.usefixtures('quick_compiles')

SMALL = dict(num_classes=5, in_channels=1, dropout=0.5)


@functools.cache
def _network(num_classes, in_channels, dropout):
  """Returns a network whose running moments are not the initial ones."""
  network = resnet.resnet18(
    jax.random.key(3), num_classes, in_channels=in_channels, dropout=dropout
  )
  rng = np.random.default_rng(0)
  arrays = {
    name: x + rng.uniform(0.05, 0.5, x.shape) if 'bn' in name else x
    for name, x in states.flatten(network).items()
  }
  return states.replace(network, arrays)


def _images(batch, size, channels):
  rng = np.random.default_rng(1)
  return rng.normal(size=(batch, size, size, channels)).astype(np.float32)


@jax.jit
def _infer(network, images):
  return network(images)


def test_rgb_network_of_1000_classes_has_torchvisions_parameter_count():
  network = nnx.eval_shape(
    lambda: resnet.resnet18(jax.random.key(0), num_classes=1000)
  )
  parameters = jax.tree.leaves(nnx.state(network, nnx.Param))
  # Printed by torchvision's documentation of resnet18.
  assert sum(x.size for x in parameters) == 11_689_512


@pytest.mark.parametrize('in_channels, dropout', [(3, 0.0), (1, 0.5)])
def test_logits_equal_torchvisions(in_channels, dropout):
  torchvision = torchvision_ops.import_torchvision()
  import torch

  network = _network(5, in_channels, dropout)
  peer = torchvision.models.resnet18(num_classes=5)
  peer.conv1 = torch.nn.Conv2d(in_channels, 64, 7, 2, 3, bias=False)
  if dropout:
    peer.fc = torch.nn.Sequential(torch.nn.Dropout(dropout), peer.fc)
  state_dict = convert.to_torch_names(network)
  peer.load_state_dict(
    {name: torch.from_numpy(array) for name, array in state_dict.items()}
  )
  peer.eval()
  # 33 and 65 pixels leave odd sizes to every stage; 33 ends at 2 x 2 pixels.
  for size in (33, 65):
    images = _images(2, size, in_channels)
    with torch.no_grad():
      expected = peer(torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy()
    np.testing.assert_allclose(
      _infer(network, images), expected, atol=1e-4, rtol=1e-5
    )


@pytest.mark.parametrize('name', ['resnet34', 'resnet50'])
def test_deeper_networks_equal_torchvisions(name):
  torchvision = torchvision_ops.import_torchvision()
  network = torchvision_networks.network(name)
  peer = getattr(torchvision.models, name)(num_classes=7)
  torch_networks.check_inference(
    network, peer, torch_networks.images(2, (40, 33), 3)
  )


@pytest.mark.parametrize('block', ['BasicBlock', 'Bottleneck'])
def test_cifar_stem_and_training_equal_torchvisions(block):
  torchvision = torchvision_ops.import_torchvision()
  from torch import nn

  # One block per stage has all there is to a block but the plain shortcut.
  blocks = (2, 1, 1, 1)
  network = resnet.ResNet(
    getattr(resnet, block), blocks, 7, in_channels=3, dropout=0.0, stem='cifar',
    padding='torch', dtype=jnp.float32, rngs=nnx.Rngs(jax.random.key(0)),
  )
  peer = torchvision.models.ResNet(
    getattr(torchvision.models.resnet, block), blocks, 7
  )
  peer.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
  peer.maxpool = nn.Identity()
  batch = torch_networks.images(4, (24, 25), 3)
  torch_networks.check_training(network, peer, batch)
  torch_networks.check_inference(network, peer, batch)


@pytest.mark.parametrize('name', ['resnet18', 'resnet34', 'resnet50'])
def test_training_with_the_published_stem_equals_torchvisions(name):
  torchvision = torchvision_ops.import_torchvision()
  network = torchvision_networks.network(name)
  torch_networks.check_training(
    network, getattr(torchvision.models, name)(num_classes=7),
    torch_networks.images(4, (65, 64), 3),
  )


def test_batch_norm_in_training_equals_torchs():
  torch = pytest.importorskip('torch', reason='torch is the oracle here')
  peer = torch.nn.BatchNorm2d(3)
  norm = layers.BatchNorm(3)
  for scale in (1.0, 3.0):
    images = scale * _images(2, 3, 3) + 0.5
    expected = peer(torch.from_numpy(images.transpose(0, 3, 1, 2)))
    actual = norm(images, train=True)
    np.testing.assert_allclose(
      actual, expected.detach().numpy().transpose(0, 2, 3, 1), atol=1e-5
    )
  np.testing.assert_allclose(norm.mean[...], peer.running_mean, rtol=1e-5)
  np.testing.assert_allclose(norm.var[...], peer.running_var, rtol=1e-5)


def test_initial_values_have_torchvisions_spread():
  network = resnet.resnet18(jax.random.key(0), **SMALL)
  arrays = states.flatten(network)
  # He et al. 2015: std sqrt(2 / fan_out); 3 x 3 x 512 outputs.
  kernel = np.asarray(arrays['layer4.1.conv2.kernel'])
  np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (9 * 512)), rtol=0.01)
  head = np.asarray(arrays['fc.1.kernel'])
  # torch.nn.Linear: U(-1/sqrt(512), 1/sqrt(512)).
  assert np.abs(head).max() <= 512**-0.5
  np.testing.assert_allclose(head.std(), (3 * 512) ** -0.5, rtol=0.05)


def test_inference_is_deterministic_and_leaves_the_state_untouched():
  network = resnet.resnet18(jax.random.key(0), **SMALL)
  before = states.flatten(network)
  images = _images(2, 33, 1)
  np.testing.assert_array_equal(network(images), network(images))
  for name, array in states.flatten(network).items():
    np.testing.assert_array_equal(array, before[name], err_msg=name)


def test_training_with_dropout_needs_a_key():
  with pytest.raises(ValueError, match='needs a key'):
    nnx.clone(_network(**SMALL))(jnp.zeros((2, 33, 33, 1)), train=True)


def test_bad_arguments_are_refused():
  key = jax.random.key(0)
  with pytest.raises(ValueError, match='at least 1, got 0'):
    resnet.resnet18(key, 0)
  with pytest.raises(ValueError, match=r'\[0, 1\), got 1.0'):
    resnet.resnet18(key, 2, dropout=1.0)


def test_unknown_network_is_refused_with_the_nearest_name():
  assert registry.find('resnet18').make is resnet.resnet18
  with pytest.raises(ValueError, match="did you mean 'resnet18'"):
    registry.find('resnet81')


def test_nan_in_an_image_reaches_the_logits():
  # Not so with `jax.nn.relu` under JAX 0.12 on CPU.
  network = _network(**SMALL)
  images = _images(2, 33, 1)
  images[1] = np.nan
  folded = inference.prepare(network, (33, 33, 1))
  logits = _infer(folded, images)
  assert np.isfinite(logits[0]).all() and np.isnan(logits[1]).all()
