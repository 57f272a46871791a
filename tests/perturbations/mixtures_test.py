"""Mixing and choosing against the formulas and the parts themselves."""

import functools

from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsens.perturbations import geometry
from jaxsens.perturbations import homographies
from jaxsens.perturbations import mixtures
from jaxsens.perturbations import noise
from jaxsens.perturbations import photometry

_KEY = jax.random.key(3)


def _image(shape=(8, 10, 3), seed=0):
  return np.random.default_rng(seed).random(shape).astype(np.float32)


def _entry(module, name):
  return next(p for p in module.PERTURBATIONS if p.name == name)


def _darker(image):
  return image * 0.5


def _noisy(image, key):
  return noise.gaussian_noise(image, 0.1, key=key)


class MixTest(parameterized.TestCase):

  @parameterized.parameters(0.0, 0.3, 1.0)
  def test_is_the_formula_in_the_size_of_the_image(self, share):
    image, other, mask = _image(), _image(seed=1), _image((8, 10), seed=2)
    mixed = mixtures.mix_with('belt', other, mask).function
    weight = share * mask[..., None]
    np.testing.assert_allclose(
      jax.jit(mixed)(image, share), image * (1 - weight) + other * weight,
      atol=1e-6,
    )

  def test_share_zero_is_the_image_and_one_without_mask_the_other(self):
    mixed = mixtures.mix_with('belt', _image(seed=1)).function
    np.testing.assert_array_equal(mixed(_image(), 0.0), _image())
    np.testing.assert_array_equal(mixed(_image(), 1.0), _image(seed=1))

  def test_mask_keeps_the_part(self):
    mask = np.ones((8, 10), np.float32)
    mask[2:5, 3:7] = 0
    mixed = mixtures.mix_with('belt', _image(seed=1), mask)
    swapped = np.asarray(mixed.function(_image(), 1.0))
    np.testing.assert_array_equal(swapped[2:5, 3:7], _image()[2:5, 3:7])
    np.testing.assert_array_equal(swapped[5:], _image(seed=1)[5:])

  def test_other_and_mask_of_other_sizes_are_resized(self):
    # Constant images are kept by any resampling whose weights sum to one.
    other = np.full((31, 17, 3), 0.25, np.float32)
    mask = np.full((5, 6), 0.5, np.float32)
    mixed = mixtures.mix_with('belt', other, mask).function
    np.testing.assert_allclose(
      mixed(_image(), 1.0), 0.5 * _image() + 0.125, atol=1e-6
    )

  def test_gray_and_colour_mix(self):
    gray = mixtures.mix_with('a', _image(seed=1)).function
    weights = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
    np.testing.assert_allclose(
      gray(_image((8, 10, 1)), 1.0), (_image(seed=1) @ weights)[..., None],
      atol=1e-6,
    )
    coloured = mixtures.mix_with('a', _image((8, 10, 1), 1)).function
    np.testing.assert_allclose(
      coloured(_image(), 1.0), np.repeat(_image((8, 10, 1), 1), 3, -1)
    )

  def test_derivative_in_the_share_is_the_masked_difference(self):
    other, mask = _image(seed=1), _image((8, 10), seed=2)
    mixed = mixtures.mix_with('belt', other, mask).function
    slope = jax.jacfwd(functools.partial(mixed, _image()))(0.0)
    np.testing.assert_allclose(
      slope, (other - _image()) * mask[..., None], atol=1e-6
    )

  def test_source_tells_other_images_apart_and_equal_ones_are_equal(self):
    first, same, other = (
      mixtures.mix_with('belt', _image(seed=seed)) for seed in (1, 1, 2)
    )
    self.assertEqual(first, same)
    self.assertNotEqual(first, other)
    self.assertNotEqual(first.source, other.source)

  @parameterized.parameters(
    (np.zeros((4, 4), np.float32), None, 'other must be'),
    (np.zeros((4, 4, 3), np.uint8), None, 'other must be floating'),
    (np.full((4, 4, 3), 2.0), None, r'other must lie in \[0, 1\]'),
    (np.full((4, 4, 3), np.nan), None, r'other must lie in \[0, 1\]'),
    (np.zeros((4, 4, 3)), np.zeros((4, 4, 3)), 'mask must be'),
    (np.zeros((0, 4, 3)), None, 'other is empty'),
  )
  def test_bad_arrays_are_named(self, other, mask, match):
    with pytest.raises(ValueError, match=f'belt: {match}'):
      mixtures.mix_with('belt', other, mask)


class ChoiceTest(parameterized.TestCase):

  def test_value_picks_the_option_and_zero_none(self):
    gamma = _entry(photometry, 'gamma')
    rotation = _entry(homographies, 'rotation')
    chosen = mixtures.choice(
      'filter', [_darker, (gamma, 2.0), (rotation, 90.0)]
    )
    image = _image((9, 9, 3))
    expected = [
      image, image * 0.5, photometry.gamma(image, 2.0),
      geometry.transform(image, homographies.rotation(90.0, (9, 9))),
    ]
    pick = lambda value: chosen.function(image, value)
    np.testing.assert_array_equal(pick(0.0), image)
    for value, picture in enumerate(expected):
      np.testing.assert_allclose(jax.jit(pick)(value), picture, atol=1e-6)
    np.testing.assert_allclose(
      jax.jit(jax.vmap(pick))(jnp.arange(4.0)), jnp.stack(expected), atol=1e-6
    )
    self.assertEqual(chosen.limits, (0.0, 3.0))
    self.assertFalse(chosen.random)

  @parameterized.parameters((0.49, 0), (0.5, 1), (1.49, 1), (1.5, 2))
  def test_values_are_rounded_halves_upwards(self, value, index):
    pick = mixtures.choice('filter', [_darker, lambda x: x * 0.25]).function
    np.testing.assert_array_equal(
      pick(_image(), value), _image() * (1, 0.5, 0.25)[index]
    )

  def test_random_options_get_the_key(self):
    entry = _entry(noise, 'gaussian_noise')
    for option, random in (((entry, 0.1), False), (_noisy, True)):
      chosen = mixtures.choice('camera', [option], random=random)
      self.assertTrue(chosen.random)
      np.testing.assert_allclose(
        chosen.function(_image(), 1.0, key=_KEY), _noisy(_image(), _KEY),
        atol=1e-6,
      )

  def test_wrong_number_of_values_is_refused(self):
    gamma = _entry(photometry, 'gamma')
    with pytest.raises(ValueError, match='option 1: .* got 3 values'):
      mixtures.choice('a', [(gamma, (1.0, 2.0, 3.0))])

  def test_equal_choices_are_equal_and_sources_tell_values_apart(self):
    gamma = _entry(photometry, 'gamma')
    first, same, other = (
      mixtures.choice('filter', [(gamma, v)]) for v in (2.0, 2.0, 0.5)
    )
    self.assertEqual(first, same)
    self.assertNotEqual(first.source, other.source)

  def test_bad_options_are_named(self):
    gamma = _entry(photometry, 'gamma')
    for options, error, match in (
      ([], ValueError, 'at least one option'),
      (['gamma'], TypeError, "option 1 must be .* got 'gamma'"),
      ([_darker, (gamma, -1.0)], ValueError, 'option 2: gamma -1 is outside'),
    ):
      with pytest.raises(error, match=match):
        mixtures.choice('filter', options)
    cut = mixtures.choice('filter', [lambda image: image[1:]])
    with pytest.raises(ValueError, match='must keep the shape'):
      cut.function(_image(), 1.0)
