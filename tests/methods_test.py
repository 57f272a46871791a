import jax
import numpy as np
import pytest

from experiments import methods
from jaxsens.attribution import conductance
from tests.oracles import small_networks

pytestmark = pytest.mark.usefixtures('quick_compiles')


def test_sets_of_methods_name_methods():
  named = methods.COMPLETE | methods.SLOPES | methods.SHARES
  assert named <= set(methods.METHODS)
  assert not methods.SLOPES & (methods.SHARES | methods.COMPLETE)


@pytest.mark.parametrize(
  'name, function', [
    ('conductance', conductance.conductance),
    ('layer integrated gradients', conductance.layer_integrated_gradients),
  ],
)
def test_pixels_have_what_the_places_of_a_layer_have(name, function):
  classifier = small_networks.classifier(jax.random.key(0))
  images = np.asarray(jax.random.uniform(jax.random.key(1), (2, 8, 8, 3)))
  targets = np.array([1, 2])
  context = methods.Context(
    jax.random.key(2), classifier, images, layer='second', num_steps=5
  )
  found = methods.METHODS[name](context, images, targets)
  expected = function(
    classifier, images, targets, layer='second', num_steps=5
  )
  assert found.values.shape == (2, 8, 8, 1)
  places = expected.values.sum(-1)
  # Between the outermost centres each place of 4 x 4 has 2 x 2 pixels; the
  # middle two of four lines stand for their neighbours alike.
  blocks = found.values[..., 0].reshape(2, 4, 2, 4, 2).sum((2, 4))
  weights = np.array([
    [7 / 8, 1 / 8, 0, 0], [1 / 8, 3 / 4, 1 / 8, 0], [0, 1 / 8, 3 / 4, 1 / 8],
    [0, 0, 1 / 8, 7 / 8],
  ])
  np.testing.assert_allclose(
    blocks, weights @ places @ weights.T, atol=1e-5 * np.abs(places).max()
  )
  np.testing.assert_array_equal(found.scores, expected.scores)
