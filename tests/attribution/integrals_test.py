import functools

import chaospy
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsens import classifiers
from jaxsens import factors
from jaxsens.attribution import gradients
from jaxsens.attribution import integrals
from jaxsens.attribution import paths
from jaxsens.perturbations import chains
from tests.oracles import small_networks
from tests.oracles import torch_twins

_KEY = jax.random.key(0)
_IMAGES = np.asarray(jax.random.uniform(jax.random.key(1), (3, 8, 8, 3)))
_BASELINES = np.asarray(jax.random.uniform(jax.random.key(2), (3, 8, 8, 3)))


def _classifier(function, dtype=np.float32):
  """Returns (sum of a function of w x) as the first of two logits."""
  weights = jax.random.normal(jax.random.key(3), (8, 8, 3)).astype(dtype)
  return classifiers.Classifier(
    apply_fn=functools.partial(_logits, function), params=weights,
    preprocess=classifiers.identity, class_names=('one', 'other'),
    image_size=(8, 8), channels=3,
  )


def _logits(function, params, images):
  total = jnp.einsum('bhwc,hwc->b', images, params)
  return jnp.stack([function(total), -total], -1)


@pytest.mark.parametrize('rule, num_steps', [
  ('gauss_legendre', 2), ('midpoint', 3), ('simpson', 3), ('trapezoid', 2),
  ('adaptive', 5),
])
def test_every_rule_is_exact_for_a_linear_score(rule, num_steps):
  classifier = _classifier(jnp.positive)
  found = integrals.integrated_gradients(
    classifier, _IMAGES, 0, baselines=_BASELINES, rule=rule,
    num_steps=num_steps,
  )
  expected = (_IMAGES - _BASELINES) * np.asarray(classifier.params)
  np.testing.assert_allclose(found.values, expected, rtol=1e-4, atol=1e-6)
  assert np.all(found.relative_completeness_error < 1e-5)
  np.testing.assert_array_equal(found.num_gradients, num_steps)


@pytest.mark.parametrize('degree, rule, num_steps', [
  (5, 'gauss_legendre', 3), (9, 'gauss_legendre', 5), (3, 'simpson', 3),
])
def test_rules_are_exact_to_their_degree(degree, rule, num_steps):
  with jax.enable_x64(True):
    found = integrals.integrated_gradients(
      _classifier(lambda t: t**degree, np.float64), _IMAGES.astype(np.float64),
      0, baselines=_BASELINES, rule=rule, num_steps=num_steps,
    )
    assert np.all(found.relative_completeness_error < 1e-11)
    lower = integrals.integrated_gradients(
      _classifier(lambda t: t**degree, np.float64), _IMAGES.astype(np.float64),
      0, baselines=_BASELINES, rule='midpoint', num_steps=num_steps,
    )
    assert lower.relative_completeness_error.max() > 1e-4


def test_weights_of_all_rules_add_up_to_one():
  for rule in integrals.RULES:
    points, weights = integrals.rule_of(rule, 9)
    np.testing.assert_allclose(weights.sum(), 1)
    np.testing.assert_allclose(weights @ points, 0.5)
    assert 0 <= points.min() and points.max() <= 1


def test_trapezoid_of_captum_loses_a_share_of_a_linear_score():
  attr = pytest.importorskip('captum.attr', reason='captum is the oracle here')
  torch = pytest.importorskip('torch', reason='torch is the oracle here')
  classifier = _classifier(jnp.positive)
  weights = torch_twins.to_torch(np.asarray(classifier.params)[None])

  def forward(images):
    total = (images * weights).sum((1, 2, 3))
    return torch.stack([total, -total], -1)

  theirs = attr.IntegratedGradients(forward).attribute(
    torch_twins.to_torch(_IMAGES), torch_twins.to_torch(_BASELINES), 0,
    n_steps=10, method='riemann_trapezoid',
  )
  ours = integrals.integrated_gradients(
    classifier, _IMAGES, 0, baselines=_BASELINES, rule='trapezoid',
    num_steps=10,
  )
  assert np.all(ours.relative_completeness_error < 1e-5)
  # Its weights, 1/n with halves at the ends, add up to (n - 1) / n.
  np.testing.assert_allclose(
    torch_twins.from_torch(theirs), 0.9 * ours.values, rtol=1e-4, atol=1e-6
  )


def test_integrated_gradients_equal_captums_at_the_same_points():
  attr = pytest.importorskip('captum.attr', reason='captum is the oracle here')
  classifier = small_networks.classifier(_KEY)
  twin = torch_twins.small_network(classifier)
  expected = torch_twins.from_torch(attr.IntegratedGradients(twin).attribute(
    torch_twins.to_torch(_IMAGES), torch_twins.to_torch(_BASELINES), 1,
    n_steps=20,
  ))
  found = integrals.integrated_gradients(
    classifier, _IMAGES, 1, baselines=_BASELINES, num_steps=20
  ).values
  np.testing.assert_allclose(
    found, expected, rtol=0, atol=1e-5 * np.abs(expected).max()
  )


def test_adaptive_keeps_its_tolerance_and_reaches_the_limit_of_many_steps():
  classifier = small_networks.classifier(_KEY)
  options = dict(baselines=_BASELINES, chunk_size=16)
  found = integrals.integrated_gradients(
    classifier, _IMAGES, 1, rule='adaptive', num_steps=2000, tolerance=1e-4,
    **options,
  )
  assert np.all(found.relative_completeness_error < 1.1e-4)
  fine = integrals.integrated_gradients(
    classifier, _IMAGES, 1, rule='midpoint', num_steps=2000, **options
  )
  size = np.abs(fine.values).max()
  np.testing.assert_allclose(found.values, fine.values, atol=0.05 * size)
  assert np.all(found.num_gradients < 2000)


def test_adaptive_takes_fewer_gradients_where_the_score_jumps():
  # All is gained on one hundredth of the path.
  classifier = _classifier(lambda t: jnp.tanh(100 * (t - 3)))
  image = np.asarray(classifier.params)[None] * 6
  image = (image / (image * classifier.params).sum() * 6).astype(np.float32)
  found = integrals.integrated_gradients(
    classifier, image, 0, rule='adaptive', num_steps=400, tolerance=1e-3
  )
  assert found.relative_completeness_error[0] < 1e-3
  fixed = integrals.integrated_gradients(
    classifier, image, 0, num_steps=int(2 * found.num_gradients[0])
  )
  assert fixed.relative_completeness_error[0] > 1e-3


def test_adaptive_stops_at_the_most_steps_and_tells_the_error():
  found = integrals.integrated_gradients(
    small_networks.classifier(_KEY), _IMAGES, 1, baselines=_BASELINES,
    rule='adaptive', num_steps=7, tolerance=0.0,
  )
  np.testing.assert_array_equal(found.num_gradients, 7)
  assert np.all(found.relative_completeness_error > 0)


@pytest.mark.parametrize('rule', ['gauss_legendre', 'adaptive'])
def test_chunks_change_nothing_but_rounding(rule):
  classifier = small_networks.classifier(_KEY)
  compared = [
    integrals.integrated_gradients(
      classifier, _IMAGES, 1, baselines=_BASELINES, rule=rule, num_steps=9,
      tolerance=0.0, chunk_size=size,
    ) for size in ((4, 9) if rule == 'gauss_legendre' else (4, 4))
  ]
  np.testing.assert_allclose(
    *(c.values for c in compared), rtol=1e-4, atol=1e-6
  )


def test_folding_the_batch_norm_away_changes_no_attribution():
  classifier = small_networks.classifier(_KEY)
  network = small_networks.folded(classifier)
  compared = [
    integrals.integrated_gradients(c, _IMAGES, 1, num_steps=5).values
    for c in (classifier, network)
  ]
  np.testing.assert_allclose(*compared, rtol=1e-3, atol=1e-5)


def test_blur_path_adds_up_and_begins_at_the_blurred_image():
  classifier = small_networks.classifier(_KEY)
  found = integrals.blur_integrated_gradients(
    classifier, _IMAGES, 2, rule='adaptive', num_steps=2000, max_sigma=3.0
  )
  assert np.all(found.relative_completeness_error < 1.1e-3)
  blurred = jax.vmap(
    lambda image: paths.Blur(3.0)((image,), jnp.zeros(()))
  )(_IMAGES)
  np.testing.assert_allclose(
    found.baseline_scores, classifier(blurred)[:, 2], rtol=1e-4
  )


def test_blur_keeps_the_mean_and_damps_waves_as_a_gaussian():
  rows = np.cos(np.pi * 3 * (2 * np.arange(16) + 1) / 32)
  image = (np.ones((8, 1)) * rows)[..., None].astype(np.float32)
  blurred = paths.Blur(2.0)((image,), jnp.asarray(0.5))  # sigma 1
  damping = np.exp(-((np.pi * 3 / 16) ** 2) / 2)
  np.testing.assert_allclose(blurred, damping * image, atol=1e-5)
  sharp = paths.Blur(2.0)((_IMAGES[0],), jnp.asarray(1.0))
  np.testing.assert_allclose(sharp, _IMAGES[0], atol=1e-5)
  flat = paths.Blur(1e3)((_IMAGES[0],), jnp.asarray(0.0))
  np.testing.assert_allclose(
    flat, np.broadcast_to(_IMAGES[0].mean((0, 1)), (8, 8, 3)), atol=1e-5
  )


def _perturb():
  return chains.make_chain(factors.FactorSpace((
    factors.Factor('rotation', chaospy.Uniform(-30, 30), 'deg'),
    factors.Factor('brightness', chaospy.Uniform(0.5, 1.5)),
  )), (8, 8))


def test_perturbation_path_adds_up_to_what_the_perturbation_changes():
  classifier = small_networks.classifier(_KEY)
  perturb = _perturb()
  found = integrals.perturbation_path(
    _KEY, classifier, _IMAGES, perturb, [0.0, 1.0], [20.0, 1.4], 1,
    rule='adaptive', num_steps=1000, tolerance=1e-3,
  )
  perturbed = np.stack([
    perturb(image, jnp.asarray([20.0, 1.4]), _KEY) for image in _IMAGES
  ])
  change = classifier(perturbed)[:, 1] - classifier(_IMAGES)[:, 1]
  np.testing.assert_allclose(
    found.values.sum((1, 2, 3)), change, rtol=2e-3, atol=1e-4
  )
  assert np.abs(change).min() > 1e-3


def test_path_of_brightness_alone_is_integrated_gradients():
  # Brightness multiplies, so that its path from 0 to 1 is the straight line.
  classifier = small_networks.classifier(_KEY)
  found = integrals.perturbation_path(
    _KEY, classifier, _IMAGES, _darkened, [0.0], [1.0], 1, num_steps=7
  )
  expected = integrals.integrated_gradients(
    classifier, _IMAGES, 1, num_steps=7
  )
  np.testing.assert_allclose(
    found.values, expected.values, rtol=1e-3, atol=1e-6
  )


def _darkened(image, values, key):
  del key
  return values[0] * image


def test_expected_gradients_add_up_to_the_gain_over_the_mean_reference():
  with jax.enable_x64(True):
    classifier = _classifier(lambda t: t**2, np.float64)
    found = integrals.expected_gradients(
      _KEY, classifier, _IMAGES.astype(np.float64), _BASELINES, 0,
      num_samples=3000, chunk_size=500,
    )
    expected = np.square(
      np.einsum('bhwc,hwc->b', _BASELINES, classifier.params)
    ).mean()
    np.testing.assert_allclose(found.baseline_scores, expected, rtol=1e-5)
    assert np.all(found.relative_completeness_error < 0.02)


def test_expected_gradients_of_one_reference_are_integrated_gradients():
  classifier = _classifier(jnp.positive)
  found = integrals.expected_gradients(
    _KEY, classifier, _IMAGES, _BASELINES[:1], 0, num_samples=2
  )
  expected = (_IMAGES - _BASELINES[:1]) * np.asarray(classifier.params)
  np.testing.assert_allclose(found.values, expected, rtol=1e-4, atol=1e-6)
  again = integrals.expected_gradients(
    _KEY, classifier, _IMAGES[:1], _BASELINES[:1], 0, num_samples=2
  )
  np.testing.assert_allclose(again.values, found.values[:1], rtol=1e-5)


def test_gradient_x_input_is_one_step_at_the_image():
  classifier = small_networks.classifier(_KEY)
  _, values = paths.contributions(
    classifier, paths.straight, (_IMAGES, np.zeros_like(_IMAGES)), np.ones(3),
    np.array([1, 1, 1]), quantity='logit',
  )
  np.testing.assert_allclose(
    values, gradients.gradient_x_input(classifier, _IMAGES, 1).values,
    rtol=1e-4, atol=1e-7,
  )


@pytest.mark.parametrize('options, message', [
  (dict(rule='kronrod'), 'rule must be one of'),
  (dict(num_steps=0), 'num_steps of at least 1'),
  (dict(rule='simpson', num_steps=4), 'odd num_steps'),
  (dict(rule='trapezoid', num_steps=1), 'at least 2'),
  (dict(rule='adaptive', num_steps=3), 'max_steps at least 5'),
  (dict(rule='adaptive', tolerance=-1.0), 'tolerance must be'),
  (dict(baselines=np.zeros((2, 8, 8, 3))), 'baselines must be'),
])
def test_bad_arguments_are_named(options, message):
  with pytest.raises(ValueError, match=message):
    integrals.integrated_gradients(
      small_networks.classifier(_KEY), _IMAGES, **options
    )


def test_bad_values_of_a_perturbation_are_named():
  classifier = small_networks.classifier(_KEY)
  with pytest.raises(ValueError, match=r'\(D,\) each'):
    integrals.perturbation_path(
      _KEY, classifier, _IMAGES, _darkened, [0.0], [1.0, 2.0], 1
    )
  with pytest.raises(ValueError, match='max_sigma must be positive'):
    integrals.blur_integrated_gradients(classifier, _IMAGES, max_sigma=0.0)
