"""The LeNet-like network against torch, and its weights on exact images."""

import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsens import classifiers
from jaxsens.data import cifar10
from jaxsens.models import inference
from jaxsens.models import lenet
from jaxsens.models import registry
from jaxsens.models import states
from jaxsens.training import loop
from jaxsens.weights import convert

pytestmark = pytest.mark.usefixtures('quick_compiles')

SHARED = pathlib.Path(os.environ.get('JAXSENS_SHARED', '../shared'))
WEIGHTS = SHARED / 'weights' / 'cifar_net.pth'
IMAGES = SHARED / 'data' / 'cifar10' / cifar10.FILE
NORMALISE = classifiers.Normalise((0.5,) * 3, (0.5,) * 3)


def _torch_network(state_dict):
  """The network in torch's own layers, filled in their order."""
  torch = pytest.importorskip('torch', reason='torch is the oracle here')
  nn = torch.nn
  network = nn.Sequential(
    nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5),
    nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(400, 120), nn.ReLU(),
    nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
  )  # fmt: skip
  layers = [n for n in ('conv1', 'conv2', 'fc1', 'fc2', 'fc3')]
  names = [f'{n}.{kind}' for n in layers for kind in ('weight', 'bias')]
  arrays = [torch.from_numpy(np.array(state_dict[name])) for name in names]
  network.load_state_dict(dict(zip(network.state_dict(), arrays, strict=True)))

  def forward(images):
    with torch.no_grad():
      return network(torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy()

  return forward


def test_logits_equal_torchs():
  network = registry.create('lenet', jax.random.key(0), 10)
  forward = _torch_network(convert.to_torch_names(network))
  images = np.random.default_rng(0).normal(size=(5, 32, 32, 3))
  images = images.astype(np.float32)
  np.testing.assert_allclose(network(images), forward(images), atol=1e-5)


def test_network_has_the_parameter_count_of_the_published_weights():
  arrays = states.flatten(lenet.lenet(jax.random.key(0), 10))
  assert sum(x.size for x in arrays.values()) == 62_006


@pytest.mark.skipif(
  not (WEIGHTS.is_file() and IMAGES.is_file()),
  reason=f'no {WEIGHTS} or no {IMAGES}',
)
def test_published_weights_have_their_accuracy_on_exact_images():
  state_dict = convert.read_state_dict(WEIGHTS)
  blank = lenet.lenet(jax.random.key(0), 10)
  network = convert.load_torch_names(blank, state_dict).model
  splits = cifar10.load_cifar10(
    jax.random.key(0), root=IMAGES.parent, validation_fraction=0.0
  )
  # Measured with torch, of 1,017 and 5,085 images.
  for part, expected in ((splits.test, 0.640), (splits.train, 0.738)):
    logits = loop.predict(
      network, part.images, preprocess=NORMALISE, batch_size=64
    )
    accuracy = np.mean(logits.argmax(1) == part.labels)
    assert round(accuracy, 3) == expected
  forward = _torch_network(state_dict)
  images = splits.test.images[:50]
  np.testing.assert_allclose(
    network(NORMALISE(images)), forward(2 * images - 1), atol=1e-5
  )


def test_classifier_normalises_and_keeps_the_network():
  network = lenet.lenet(jax.random.key(0), 4, in_channels=1)
  classifier = inference.classifier(
    network, preprocess=classifiers.Normalise((0.5,), (0.5,)),
    class_names='abcd', image_size=(32, 32), channels=1,
  )
  images = np.random.default_rng(0).random((2, 32, 32, 1), np.float32)
  np.testing.assert_allclose(
    classifier(images), network(2 * images - 1), atol=1e-6
  )
  half = inference.classifier(
    network, preprocess=classifiers.identity, class_names='abcd',
    image_size=(32, 32), channels=1, dtype=jnp.bfloat16,
  )
  assert half(images).dtype == jnp.float32
  assert network.dtype == jnp.float32
  np.testing.assert_allclose(half(images), network(images), atol=0.05)


def test_nan_in_an_image_reaches_the_logits():
  network = lenet.lenet(jax.random.key(0), 4)
  images = np.zeros((2, 32, 32, 3), np.float32)
  images[1, 16, 16] = np.nan
  logits = jax.jit(lambda network, x: network(x))(network, images)
  assert np.isfinite(logits[0]).all() and np.isnan(logits[1]).all()


def test_bad_arguments_are_refused():
  key = jax.random.key(0)
  with pytest.raises(ValueError, match='at least 1, got 0'):
    lenet.lenet(key, 0)
  with pytest.raises(ValueError, match='has no dropout'):
    lenet.lenet(key, 2, dropout=0.5)
  network = lenet.lenet(key, 2)
  with pytest.raises(ValueError, match=r'\(1, 28, 28, 3\)'):
    network(jnp.zeros((1, 28, 28, 3)))
