import dataclasses

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsens import classifiers

NAMES = ('flat', 'rough', 'torn')


def _linear(params, images):
  return images.reshape(len(images), -1) @ params['kernel'] + params['bias']


def _classifier(**changes):
  fields = dict(
    apply_fn=_linear,
    params={'kernel': jnp.ones((8, 3)), 'bias': jnp.arange(3.0)},
    preprocess=classifiers.Normalise((0.5,), (0.25,)),
    class_names=NAMES,
    image_size=(4, 2),
    channels=1,
  )
  return classifiers.Classifier(**{**fields, **changes})


@jax.jit
def _call(classifier, images):
  return classifier(images)


@pytest.mark.parametrize('call', [_call, lambda c, images: c(images)])
def test_logits_are_the_function_of_the_normalised_images(call):
  logits = call(_classifier(), jnp.full((5, 4, 2, 1), 0.75))
  # Eight pixels of (0.75 - 0.5) / 0.25 = 1, plus the biases 0, 1, 2.
  np.testing.assert_allclose(logits, np.tile([8.0, 9.0, 10.0], (5, 1)))


def test_normalise_acts_per_channel_and_keeps_the_dtype():
  normalise = classifiers.Normalise((0.1, 0.2, 0.3), (1.0, 2.0, 4.0))
  images = jnp.full((1, 2, 2, 3), 0.5, jnp.bfloat16)
  normalised = normalise(images)
  assert normalised.dtype == jnp.bfloat16
  np.testing.assert_allclose(
    normalised[0, 0, 0].astype(jnp.float32), [0.4, 0.15, 0.05], rtol=1e-2
  )


def test_classifiers_of_equal_static_fields_share_one_compilation():
  traces = []

  @jax.jit
  def call(classifier, images):
    traces.append(1)
    return classifier(images)

  for _ in range(3):
    call(_classifier(), jnp.zeros((2, 4, 2, 1)))
  assert len(traces) == 1


def test_only_params_are_leaves():
  leaves, _ = jax.tree.flatten(_classifier())
  assert sorted(leaf.shape for leaf in leaves) == [(3,), (8, 3)]


def test_logits_differentiate_with_respect_to_the_images():
  gradient = jax.grad(lambda x: _classifier()(x).sum())(jnp.zeros((1, 4, 2, 1)))
  # Three logits of slope one in each normalised pixel, 1 / 0.25 per level.
  np.testing.assert_allclose(gradient, np.full((1, 4, 2, 1), 12.0))


class _Network(nnx.Module):
  def __init__(self, rngs):
    self.norm = nnx.BatchNorm(2, rngs=rngs)
    self.linear = nnx.Linear(2, 3, rngs=rngs)
    self.dropout = nnx.Dropout(0.5, rngs=rngs)

  def __call__(self, images):
    return self.linear(self.dropout(self.norm(images.mean((1, 2)))))


def test_flax_network_is_used_in_inference_mode_and_left_as_it_was():
  network = _Network(nnx.Rngs(0))
  classifier = classifiers.from_flax(
    network,
    preprocess=classifiers.identity,
    class_names=NAMES,
    image_size=(6, 6),
    channels=2,
  )
  images = jax.random.uniform(jax.random.key(0), (4, 6, 6, 2))
  expected = images.mean((1, 2)) / np.sqrt(1 + 1e-5) @ network.linear.kernel
  np.testing.assert_allclose(_call(classifier, images), expected, atol=1e-6)
  np.testing.assert_array_equal(
    _call(classifier, images), _call(classifier, images)
  )
  assert not network.dropout.deterministic
  np.testing.assert_array_equal(network.norm.mean[...], [0.0, 0.0])


@pytest.mark.parametrize(
  'images, message',
  [
    (np.zeros((2, 4, 2, 3)), r'\(B, 4, 2, 1\), got \(2, 4, 2, 3\)'),
    (np.zeros((4, 2, 1)), r'got \(4, 2, 1\)'),
    (np.zeros((2, 2, 4, 1)), r'got \(2, 2, 4, 1\)'),
  ],
)
def test_images_of_another_shape_are_refused(images, message):
  with pytest.raises(ValueError, match=message):
    _classifier()(images)


def test_integer_images_are_refused():
  with pytest.raises(TypeError, match=r'\[0, 1\], got uint8'):
    _classifier()(np.zeros((2, 4, 2, 1), np.uint8))


def test_logits_of_another_number_of_classes_are_refused():
  classifier = _classifier(class_names=('flat', 'rough'))
  with pytest.raises(ValueError, match=r'shape \(2, 2\).*got \(2, 3\)'):
    classifier(np.zeros((2, 4, 2, 1)))


@pytest.mark.parametrize(
  'changes, error, message',
  [
    (dict(class_names=()), ValueError, 'sequence of names'),
    (dict(class_names='flat'), ValueError, "got 'flat'"),
    (dict(class_names=('a', 'b', 'a')), ValueError, r"\['a'\]"),
    (dict(image_size=(4,)), ValueError, r'\(height, width\)'),
    (dict(image_size=(4, 0)), ValueError, r'got \(4, 0\)'),
    (dict(channels=0), ValueError, 'at least 1, got 0'),
    (dict(apply_fn=3), TypeError, 'apply_fn must be a function'),
    (dict(preprocess=None), TypeError, 'preprocess must be a function'),
  ],
)
def test_bad_fields_are_refused(changes, error, message):
  with pytest.raises(error, match=message):
    _classifier(**changes)


def test_normalise_refuses_bad_constants():
  with pytest.raises(ValueError, match='one entry per channel'):
    classifiers.Normalise((0.5,), (0.5, 0.5))
  with pytest.raises(ValueError, match='positive'):
    classifiers.Normalise((0.5,), (0.0,))


def test_classifier_is_frozen():
  with pytest.raises(dataclasses.FrozenInstanceError):
    _classifier().channels = 3
