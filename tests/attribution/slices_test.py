"""Attributions do not depend on how many images go through together."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxsens.attribution import cam
from jaxsens.attribution import conductance
from jaxsens.attribution import deeplift
from jaxsens.attribution import gradients
from jaxsens.attribution import integrals
from jaxsens.attribution import maps
from jaxsens.attribution import rectifiers
from tests.oracles import small_networks

_IMAGES = np.asarray(jax.random.uniform(jax.random.key(1), (4, 8, 8, 3)))
_TARGETS = np.array([1, 0, 2, 1])


def _darker(image, values, key):
  return image * (1 - values[0]) + 0.01 * jax.random.normal(key, image.shape)


_METHODS = {
  'saliency': gradients.saliency,
  'integrated gradients': lambda *x: integrals.integrated_gradients(
    *x, num_steps=3
  ),
  'perturbation path': lambda classifier, images, targets: (
    integrals.perturbation_path(
      jax.random.key(3), classifier, images, _darker, [0.0], [0.5], targets,
      num_steps=4,
    )
  ),
  'guided backpropagation': rectifiers.guided_backpropagation,
  'DeepLIFT': deeplift.deeplift,
  'DeepSHAP': lambda classifier, images, targets: deeplift.deepshap(
    classifier, images, _IMAGES[::-1], targets
  ),
  'Grad-CAM': cam.activation_map,
  'conductance': lambda *x: conductance.conductance(
    *x, layer='second', num_steps=3
  ),
  'layer integrated gradients': lambda *x: (
    conductance.layer_integrated_gradients(*x, layer='second', num_steps=3)
  ),
}


@pytest.mark.parametrize('name', _METHODS)
def test_slices_change_nothing(name):
  whole = small_networks.classifier(jax.random.key(0))
  cut = dataclasses.replace(whole, gradient_slice=2)
  found, expected = (
    _METHODS[name](classifier, _IMAGES, _TARGETS) for classifier in (cut, whole)
  )
  scale = np.abs(expected.values).max()
  assert scale > 0
  np.testing.assert_allclose(found.values, expected.values, atol=1e-5 * scale)
  np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5)


def test_programs_of_slices_are_loops():
  cut = dataclasses.replace(
    small_networks.classifier(jax.random.key(0)), gradient_slice=2
  )
  lowered = lambda images: maps.scores_and_gradients.lower(
    cut, images, _TARGETS[: len(images)], quantity='logit'
  ).as_text()
  assert 'while' in lowered(_IMAGES)
  assert 'while' not in lowered(_IMAGES[:2])
  assert 'while' not in lowered(_IMAGES[:1])


@pytest.mark.parametrize('baseline', [None, 0.25, _IMAGES[3]])
def test_a_baseline_that_images_share_scores_as_one_of_each(baseline):
  classifier = small_networks.classifier(jax.random.key(0))
  shared, own = (
    maps.baseline_scores(classifier, _IMAGES, _TARGETS, b, 'margin', 3)
    for b in (baseline, maps.as_baselines(_IMAGES, baseline))
  )
  assert shared.dtype == np.float64
  np.testing.assert_allclose(shared, own, rtol=1e-5)
  assert len(set(shared[:3])) == 3
