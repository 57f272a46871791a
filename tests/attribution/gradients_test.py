import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsens import classifiers
from jaxsens.attribution import gradients
from jaxsens.attribution import maps
from jaxsens.attribution import pairs
from tests.oracles import small_networks
from tests.oracles import torch_twins

_KEY = jax.random.key(0)
_IMAGES = np.asarray(jax.random.uniform(jax.random.key(1), (3, 8, 8, 3)))


def _quadratic():
  """Score of class k: (1 + k) |x|² / 2, whose gradient is (1 + k) x."""
  return classifiers.Classifier(
    apply_fn=_quadratic_logits, params=jnp.arange(1.0, 5.0),
    preprocess=classifiers.identity, class_names=tuple('abcd'),
    image_size=(8, 8), channels=3,
  )


def _quadratic_logits(params, images):
  return (images**2).sum((1, 2, 3))[:, None] / 2 * params


def test_gradients_of_a_quadratic_are_known():
  found = gradients.saliency(_quadratic(), _IMAGES, 2, absolute=False)
  np.testing.assert_allclose(found.values, 3 * _IMAGES, rtol=1e-5)
  assert found.method == 'gradient'
  found = gradients.gradient_x_input(_quadratic(), _IMAGES, [0, 1, 2])
  factors = np.array([1, 2, 3])[:, None, None, None]
  np.testing.assert_allclose(found.values, factors * _IMAGES**2, rtol=1e-5)
  # The sum of gradient x input is twice the gain of a quadratic.
  np.testing.assert_allclose(
    found.completeness_error, found.scores - found.baseline_scores, rtol=1e-4
  )
  np.testing.assert_allclose(
    found.relative_completeness_error, 1, rtol=1e-4
  )
  np.testing.assert_allclose(found.heat_maps, found.values.sum(-1))


def test_saliency_is_absolute():
  classifier = small_networks.classifier(_KEY)
  found = gradients.saliency(classifier, _IMAGES)
  signed = gradients.saliency(classifier, _IMAGES, absolute=False)
  np.testing.assert_array_equal(found.values, np.abs(signed.values))
  assert signed.values.min() < 0


def test_answers_are_the_targets_unless_told():
  classifier = small_networks.classifier(_KEY)
  found = gradients.saliency(classifier, _IMAGES)
  np.testing.assert_array_equal(
    found.targets, np.asarray(classifier(_IMAGES)).argmax(-1)
  )
  np.testing.assert_allclose(
    found.scores, np.asarray(classifier(_IMAGES)).max(-1), rtol=1e-5
  )


@pytest.mark.parametrize('quantity', ['probability', 'margin', 'loss'])
def test_other_quantities_are_explained_as_well(quantity):
  classifier = small_networks.classifier(_KEY)
  found = gradients.saliency(
    classifier, _IMAGES, 1, quantity=quantity, absolute=False
  )
  targets = np.ones(3, int)
  read = lambda x: maps.score(classifier, x, targets, quantity)
  _, expected = jax.vjp(read, _IMAGES)
  np.testing.assert_allclose(
    found.values, expected(jnp.ones(3))[0], rtol=1e-4, atol=1e-6
  )


def test_smooth_grad_of_a_quadratic_is_its_gradient_and_the_noise():
  found = gradients.smooth_grad(
    _KEY, _quadratic(), _IMAGES, 0, num_samples=400, noise_level=0.2
  )
  deviation = 0.2 * np.ptp(_IMAGES, axis=(1, 2, 3))[:, None, None, None]
  error = np.abs(found.values - _IMAGES) / (deviation / 20)
  assert error.max() < 5  # standard errors
  variance = gradients.smooth_grad(
    _KEY, _quadratic(), _IMAGES, 0, num_samples=400, noise_level=0.2,
    statistic='variance',
  ).values
  error = (variance / deviation**2 - 1) / np.sqrt(2 / 399)
  assert np.abs(error).max() < 6
  squared = gradients.smooth_grad(
    _KEY, _quadratic(), _IMAGES, 0, num_samples=400, noise_level=0.2,
    statistic='squared',
  ).values
  np.testing.assert_allclose(
    squared, found.values**2 + variance * 399 / 400, rtol=1e-4, atol=1e-6
  )


def test_smooth_grad_without_noise_is_the_gradient():
  classifier = small_networks.classifier(_KEY)
  found = gradients.smooth_grad(
    _KEY, classifier, _IMAGES, noise_level=0.0, num_samples=3
  )
  plain = gradients.saliency(classifier, _IMAGES, absolute=False)
  np.testing.assert_allclose(found.values, plain.values, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('chunk_size', [1, 7, 100])
def test_chunks_change_nothing_but_rounding(chunk_size):
  classifier = small_networks.classifier(_KEY)
  compared = [
    gradients.smooth_grad(
      _KEY, classifier, _IMAGES, num_samples=5, chunk_size=size
    ).values for size in (4, chunk_size)
  ]
  np.testing.assert_allclose(*compared, rtol=1e-4, atol=1e-6)


def test_noise_belongs_to_the_number_of_the_image():
  classifier = small_networks.classifier(_KEY)
  one, all_three = (
    gradients.smooth_grad(_KEY, classifier, images, 0, num_samples=4).values
    for images in (_IMAGES[:1], _IMAGES)
  )
  np.testing.assert_allclose(one[0], all_three[0], rtol=1e-4, atol=1e-6)
  other = gradients.smooth_grad(
    jax.random.key(5), classifier, _IMAGES, 0, num_samples=4
  ).values
  assert np.abs(other - all_three).max() > 1e-4


def test_gradients_equal_captums():
  attr = pytest.importorskip('captum.attr', reason='captum is the oracle here')
  classifier = small_networks.classifier(_KEY)
  twin = torch_twins.small_network(classifier)
  images = torch_twins.to_torch(_IMAGES)
  for ours, theirs in (
    (gradients.saliency, attr.Saliency(twin)),
    (gradients.gradient_x_input, attr.InputXGradient(twin)),
  ):
    found = ours(classifier, _IMAGES, 2).values
    expected = torch_twins.from_torch(
      theirs.attribute(images.requires_grad_(), target=2)
    )
    np.testing.assert_allclose(
      found, expected, rtol=0, atol=1e-5 * np.abs(expected).max()
    )


def test_pairs_are_all_there_once():
  seen = [
    (int(i), int(s)) for chunk in pairs.chunks(3, 5, 4)
    for i, s in zip(
      chunk.images[: chunk.kept], chunk.samples[: chunk.kept], strict=True
    )
  ]
  assert seen == [(i, s) for i in range(3) for s in range(5)]
  assert {len(chunk.images) for chunk in pairs.chunks(3, 5, 4)} == {4}


@pytest.mark.parametrize('options, message', [
  (dict(targets=7), r'from 0 to 3 \(class 0.*got 7'),
  (dict(targets=[0, 1]), r'shape \(3,\)'),
  (dict(targets=[0.5, 1, 2]), 'must be an integer'),
  (dict(quantity='probabilities'), 'one number per image'),
  (dict(quantity='logits'), "take 'logit'"),
  (dict(baselines=np.zeros((4, 4, 3))), r'baselines must be.*\(4, 4, 3\)'),
  (dict(baselines=np.nan), 'baselines hold NaN'),
  (dict(chunk_size=0), 'chunk_size must be at least 1'),
])
def test_bad_arguments_are_named(options, message):
  with pytest.raises(ValueError, match=message):
    gradients.saliency(small_networks.classifier(_KEY), _IMAGES, **options)


@pytest.mark.parametrize('images, message', [
  (_IMAGES[0], r'must have shape \(B, 8, 8, 3\)'),
  (_IMAGES[:0], 'B at least 1'),
  (_IMAGES[..., :1], r'got \(3, 8, 8, 1\)'),
  ((255 * _IMAGES).astype(np.uint8), 'floating point'),
  (np.where(_IMAGES > 0.9, np.nan, _IMAGES), 'hold NaN'),
])
def test_bad_images_are_named(images, message):
  with pytest.raises(ValueError, match=message):
    gradients.gradient_x_input(small_networks.classifier(_KEY), images)


@pytest.mark.parametrize('options', [
  dict(statistic='median'), dict(num_samples=0), dict(noise_level=-1.0),
  dict(statistic='variance', num_samples=1), dict(noise_level=np.nan),
])
def test_bad_noise_is_named(options):
  with pytest.raises(ValueError, match='|'.join(options)):
    gradients.smooth_grad(
      _KEY, small_networks.classifier(_KEY), _IMAGES, **options
    )


def test_network_that_answers_nan_is_refused():
  broken = jax.tree.map(
    lambda x: x * np.nan, small_networks.classifier(_KEY)
  )
  with pytest.raises(FloatingPointError, match='NaN'):
    gradients.saliency(broken, _IMAGES, 0)
  with pytest.raises(FloatingPointError, match='NaN'):
    gradients.smooth_grad(_KEY, broken, _IMAGES, 0)
