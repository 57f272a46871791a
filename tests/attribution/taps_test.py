import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsens import classifiers
from jaxsens.attribution import taps
from jaxsens.models import inference
from jaxsens.models import registry
from tests.oracles import small_networks

_KEY = jax.random.key(0)


def _images(number=3):
  return jax.random.uniform(jax.random.key(1), (number, 8, 8, 3))


def test_layers_have_their_names_and_shapes_in_calling_order():
  found = taps.layer_shapes(small_networks.classifier(_KEY))
  assert found == {
    'stem': (8, 8, 6), 'norm': (8, 8, 6), 'first': (4, 4, 6),
    'second': (4, 4, 6), 'head': (4,),
  }
  assert list(found) == ['stem', 'norm', 'first', 'second', 'head']


def test_activations_are_those_of_the_layers():
  classifier = small_networks.classifier(_KEY)
  images = _images()
  logits, seen = jax.jit(
    lambda c, x: taps.apply(c, x, ['stem', 'head'])
  )(classifier, images)
  network = taps.module_of(classifier)
  np.testing.assert_allclose(
    seen['stem'], network.stem(classifier.preprocess(images)), rtol=1e-5,
    atol=1e-5,
  )
  np.testing.assert_allclose(seen['head'], logits, rtol=1e-6)
  np.testing.assert_allclose(logits, classifier(images), rtol=1e-5, atol=1e-6)


def test_edit_is_what_the_rest_of_the_network_sees():
  classifier = small_networks.classifier(_KEY)
  logits, seen = taps.apply(
    classifier, _images(), ['head'], {'second': jnp.zeros_like, 'head': jnp.sin}
  )
  np.testing.assert_allclose(logits, np.sin(seen['head']), rtol=1e-6)
  plain, _ = taps.apply(classifier, _images(), [])
  assert np.abs(np.sin(plain) - logits).max() > 1e-3


def test_derivative_by_an_activation_equals_finite_differences():
  with jax.enable_x64(True):
    classifier = jax.tree.map(
      lambda x: x.astype(np.float64), small_networks.classifier(_KEY)
    )
    images = _images(2).astype(np.float64)

    def shifted(eps):
      return taps.apply(classifier, images, [], {'first': lambda a: a + eps})[0]

    eps = jnp.zeros((2, 4, 4, 6))
    gradient = jax.grad(lambda eps: shifted(eps)[:, 1].sum())(eps)
    step = jax.random.normal(jax.random.key(2), eps.shape) * 1e-6
    change = shifted(step)[:, 1].sum() - shifted(-step)[:, 1].sum()
    np.testing.assert_allclose(
      2 * jnp.vdot(gradient, step), change, rtol=1e-5
    )


def test_network_itself_stays_as_it_was():
  classifier = small_networks.classifier(_KEY)
  before = classifier(_images())
  taps.apply(classifier, _images(), ['stem'], {'stem': jnp.zeros_like})
  np.testing.assert_array_equal(classifier(_images()), before)


@pytest.mark.parametrize('name', ['squeezenet1_1_reduced7'])
def test_network_that_goes_in_slices_is_shown_whole(name, quick_compiles):
  network = registry.create(name, _KEY, 5)
  classifier = inference.classifier(
    network, preprocess=classifiers.IMAGENET, class_names=tuple('abcde'),
    image_size=(64, 64), channels=3,
  )
  images = jax.random.uniform(_KEY, (6, 64, 64, 3))
  taps.module_of(classifier)
  last = [n for n, s in taps.layer_shapes(classifier).items() if len(s) == 3]
  logits, seen = jax.jit(
    lambda c, x: taps.apply(c, x, last[-1:])
  )(classifier, images)
  assert len(seen[last[-1]]) == 6
  np.testing.assert_allclose(logits, classifier(images), rtol=1e-4, atol=1e-5)


def test_later_calls_of_a_layer_have_names_of_their_own():
  class Twice(small_networks.SmallNetwork):

    def __call__(self, images):
      x = self.stem(images)
      x = self.second(self.second(x))
      return self.head(jnp.mean(x, (1, 2)))

  from flax import nnx

  classifier = classifiers.from_flax(
    Twice(3, 4, rngs=nnx.Rngs(0)), preprocess=classifiers.identity,
    class_names=tuple('abcd'), image_size=(8, 8), channels=3,
  )
  assert taps.layer_names(classifier) == ('stem', 'second', 'second#2', 'head')
  _, seen = taps.apply(classifier, _images(), ['second', 'second#2'])
  network = taps.module_of(classifier)
  np.testing.assert_allclose(
    seen['second#2'], network.second(seen['second']), rtol=1e-4, atol=1e-5
  )


def test_unknown_layer_is_named_with_those_next_to_it():
  classifier = small_networks.classifier(_KEY)
  with pytest.raises(ValueError, match="no layer 'secnd'.*second"):
    taps.apply(classifier, _images(), ['secnd'])
  with pytest.raises(ValueError, match="no layer 'heads'.*head"):
    taps.apply(classifier, _images(), [], {'heads': jnp.sin})


def test_function_has_no_layers():
  classifier = classifiers.Classifier(
    apply_fn=lambda params, x: x.mean((1, 2)), params=(),
    preprocess=classifiers.identity, class_names=tuple('abc'),
    image_size=(8, 8), channels=3,
  )
  with pytest.raises(TypeError, match='from_flax'):
    taps.layer_names(classifier)
