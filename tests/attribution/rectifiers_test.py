"""Guided backpropagation and deconvolution against hand and captum."""

import functools

from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsens import classifiers
from jaxsens.attribution import interpreter
from jaxsens.attribution import rectifiers
from jaxsens.models import layers
from tests.attribution import captum_peers
from tests.oracles import small_networks

pytestmark = pytest.mark.usefixtures('quick_compiles')

_FORMS = {
  'jax': jax.nn.relu,
  'maximum': lambda x: jnp.maximum(x, 0),
  'reversed': lambda x: jnp.maximum(0.0, x),
  'where': lambda x: jnp.where(x > 0, x, 0.0),
  'ours': layers.relu,
  'twice': lambda x: jax.nn.relu(jax.nn.relu(x)),
  'clip': lambda x: jnp.clip(x, 0),
  'product': lambda x: x * (x > 0),
}
_CLIPPED = {
  'jax': jax.nn.relu6,
  'ours': layers.relu6,
  'clip': lambda x: jnp.clip(x, 0, 6),
  'min': lambda x: jnp.minimum(jnp.maximum(x, 0), 6),
}


def _found(guided, activation, z, g):
  """Returns what the gradient g of a result becomes."""
  rules = rectifiers.Rectifiers(guided)

  def value(z):
    (y,) = interpreter.evaluate(rules, activation, (z,))
    np.testing.assert_array_equal(y.shape, z.shape)
    return y

  y, pull = jax.vjp(value, z)
  np.testing.assert_array_equal(y, activation(z))
  return pull(g)[0]


class RuleTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    rng = np.random.default_rng(0)
    self.z = rng.normal(0, 6, (4, 30)).astype(np.float32)
    self.g = rng.normal(size=(4, 30)).astype(np.float32)

  @parameterized.named_parameters(*_FORMS.items())
  def test_rectifier_is_recognised(self, activation):
    kept = np.maximum(self.g, 0)
    np.testing.assert_array_equal(
      _found(False, activation, self.z, self.g), kept
    )
    np.testing.assert_array_equal(
      _found(True, activation, self.z, self.g), kept * (self.z > 0)
    )

  @parameterized.named_parameters(*_CLIPPED.items())
  def test_clipped_rectifier_is_recognised(self, activation):
    kept = np.maximum(self.g, 0)
    inside = (self.z > 0) & (self.z < 6)
    np.testing.assert_array_equal(
      _found(True, activation, self.z, self.g), kept * inside
    )
    np.testing.assert_array_equal(
      _found(False, activation, self.z, self.g), kept
    )

  @parameterized.parameters(
    (jax.nn.silu, 'logistic'), (jax.nn.sigmoid, 'logistic'),
    (jax.nn.gelu, 'tanh'), (jnp.tanh, 'tanh'), (jnp.abs, 'abs'),
    (layers.hard_swish, 'mul'), (jax.nn.leaky_relu, 'select_n'),
    (lambda x: jnp.clip(x, 0.5), 'max'), (lambda x: jnp.clip(x, -1, 6), 'max'),
  )
  def test_another_function_is_refused_by_name(self, activation, name):
    with self.assertRaisesRegex(ValueError, name):
      _found(True, activation, self.z, self.g)

  def test_affine_steps_behind_a_rectifier_are_no_part_of_it(self):
    found = _found(
      True, lambda x: jax.nn.relu(2 * jax.nn.relu(x) - 1), self.z, self.g
    )
    inner = np.maximum(self.g, 0) * (2 * np.maximum(self.z, 0) > 1)
    np.testing.assert_array_equal(found, 2 * inner * (self.z > 0))


def _two_layers(params, x):
  first, second = params
  hidden = jax.nn.relu(x.reshape(len(x), -1) @ first)
  return jax.nn.relu(hidden @ second)


@functools.cache
def _params():
  rng = np.random.default_rng(1)
  return tuple(
    rng.normal(size=shape).astype(np.float32) for shape in ((12, 9), (9, 3))
  )


class MethodTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    rng = np.random.default_rng(0)
    self.images = rng.uniform(size=(5, 8, 8, 3)).astype(np.float32)
    self.classifier = small_networks.classifier(jax.random.key(0))

  def _by_hand(self, images, targets, guided):
    first, second = _params()
    z = images.reshape(len(images), -1) @ first
    y = np.maximum(z, 0) @ second
    g = np.eye(3)[targets]
    if guided:
      g = g * (y > 0)
    g = np.maximum(g @ second.T, 0)
    if guided:
      g = g * (z > 0)
    return (g @ first.T).reshape(images.shape)

  @parameterized.parameters(True, False)
  def test_two_layers_by_hand(self, guided):
    images = self.images[:, :2, :2]
    network = classifiers.Classifier(
      _two_layers, _params(), classifiers.identity, ('a', 'b', 'c'), (2, 2), 3
    )
    method = (
      rectifiers.guided_backpropagation if guided else rectifiers.deconvolution
    )
    targets = np.array([0, 1, 2, 1, 0])
    np.testing.assert_allclose(
      method(network, images, targets).values,
      self._by_hand(images, targets, guided), rtol=1e-5, atol=1e-6,
    )

  @parameterized.parameters('logit', 'probability', 'margin', 'entropy')
  def test_scores_are_those_of_the_network(self, quantity):
    found = rectifiers.guided_backpropagation(
      self.classifier, self.images, 1, quantity=quantity, chunk_size=2
    )
    whole = rectifiers.guided_backpropagation(
      self.classifier, self.images, 1, quantity=quantity, chunk_size=5
    )
    own = jax.vmap(
      lambda logits: captum_peers.quantity_of(quantity, logits, 1)
    )(self.classifier(self.images))
    np.testing.assert_allclose(found.scores, own, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.values, whole.values, rtol=1e-4, atol=1e-7)
    np.testing.assert_array_equal(found.num_gradients, 1)
    np.testing.assert_array_equal(found.num_forwards, 1)

  @parameterized.parameters(('squeezenet1_1', True), ('resnet18', False))
  def test_agrees_with_captum(self, name, guided):
    classifier = captum_peers.classifier(name)
    peer = captum_peers.peer(name)
    captum = captum_peers.import_captum()
    images = captum_peers.images(2)
    method, kind = (
      (rectifiers.guided_backpropagation, captum.GuidedBackprop) if guided
      else (rectifiers.deconvolution, captum.Deconvolution)
    )
    expected = captum_peers.values(kind(peer), images, target=3)
    captum_peers.check_close(method(classifier, images, 3).values, expected)

  def test_wrong_images_and_classes_are_refused(self):
    with self.assertRaisesRegex(ValueError, 'images must have shape'):
      rectifiers.deconvolution(self.classifier, self.images[:, :4])
    with self.assertRaisesRegex(ValueError, 'targets'):
      rectifiers.guided_backpropagation(self.classifier, self.images, 4)
    with self.assertRaisesRegex(ValueError, 'chunk_size'):
      rectifiers.deconvolution(self.classifier, self.images, 0, chunk_size=0)
