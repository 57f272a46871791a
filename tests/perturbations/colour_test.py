"""Colour against colorsys, torchvision, Planck's law and closed forms."""

import colorsys

from absl.testing import absltest
from absl.testing import parameterized
import jax
import numpy as np
import pytest
from scipy import constants

from jaxsens.perturbations import colour
from tests.oracles import torchvision_ops

_hue = jax.jit(colour.hue)
_saturation = jax.jit(colour.saturation)
_white_balance = jax.jit(colour.white_balance)
_hsv_brightness = jax.jit(colour.hsv_brightness)
_hsv_saturate = jax.jit(colour.hsv_saturate)


def _image():
  """(13, 12, 3) random colours, with neutral, pure, black and tied pixels."""
  image = np.random.default_rng(0).random((13, 12, 3)).astype(np.float32)
  image[0] = image[0, :, :1]
  image[1, :6] = 0
  image[1, 6:] = 1
  image[2] = np.tile(np.eye(3), (4, 1))
  image[3, :, 1] = image[3, :, 0]
  image[4, :, 2] = image[4, :, 1]
  return image


def _by_hsv(image, change):
  """The image with change(h, s, v) applied to each pixel by the stdlib."""
  flat = [
    colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*map(float, pixel))))
    for pixel in image.reshape(-1, 3)
  ]
  return np.array(flat).reshape(image.shape)


def _torchvision(operation, image, value):
  functional = torchvision_ops.import_torchvision().transforms.functional
  torch = pytest.importorskip('torch')
  tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
  return getattr(functional, operation)(tensor, value).numpy().transpose(
    1, 2, 0
  )


class ColourTest(parameterized.TestCase):

  @parameterized.parameters(0.0, 0.4, 1.7)
  def test_saturation_equals_torchvision(self, factor):
    image = _image()
    # torchvision's weight of red is 1e-4 smaller.
    np.testing.assert_allclose(
      _saturation(image, factor),
      _torchvision('adjust_saturation', image, factor),
      atol=1e-4 * abs(1 - factor) + 1e-6,
    )

  def test_saturation_zero_is_the_luma_and_keeps_neutral_pixels(self):
    image = _image()
    gray = _saturation(image, 0.0)
    expected = image @ np.float32([0.299, 0.587, 0.114])
    for channel in range(3):
      np.testing.assert_allclose(gray[..., channel], expected, atol=1e-6)
    for factor in (0.0, 3.0):
      np.testing.assert_allclose(
        _saturation(image, factor)[:2], image[:2], atol=1e-6
      )

  @parameterized.parameters(-0.5, -0.13, 0.01, 0.27, 0.5)
  def test_hue_equals_colorsys_and_torchvision(self, shift):
    image = _image()
    result = _hue(image, shift)
    expected = _by_hsv(image, lambda h, s, v: ((h + shift) % 1, s, v))
    np.testing.assert_allclose(result, expected, atol=2e-6)
    np.testing.assert_allclose(
      result, _torchvision('adjust_hue', image, shift), atol=2e-6
    )

  def test_hue_by_a_third_turns_red_to_green_to_blue(self):
    image = _image()
    np.testing.assert_allclose(
      _hue(image, 1 / 3), np.roll(image, 1, -1), atol=2e-6
    )

  def test_hue_has_a_period_of_one_turn(self):
    image = _image()
    np.testing.assert_allclose(
      _hue(image, 1.2), _hue(image, -0.8), atol=4e-6
    )

  @parameterized.parameters(3000.0, 4500.0, 10000.0)
  def test_white_balance_follows_a_planckian_lamp(self, kelvin):
    wavelengths = np.array([611.4e-9, 549.1e-9, 464.2e-9])
    exponent = constants.h * constants.c / (constants.k * wavelengths)
    lamp = lambda t: 1 / np.expm1(exponent / t)
    light = (lamp(kelvin) / lamp(6500.0)) ** (1 / 2.2)
    pixel = np.full((1, 3), 0.3, np.float32)
    result = np.asarray(_white_balance(pixel, 1e6 / kelvin - 1e6 / 6500))
    # Wien's law leaves out up to 10 % of the light of a channel at 10000 K, but
    # less than 1 % of the ratios of the encoded values.
    np.testing.assert_allclose(
      result[0] / result[0, 1], light / light[1], rtol=0.01
    )

  def test_white_balance_is_warm_above_zero_and_keeps_neutral_luma(self):
    pixel = np.full((1, 3), 0.3, np.float32)
    warm = np.asarray(_white_balance(pixel, 100.0))[0]
    self.assertGreater(warm[0], warm[1])
    self.assertGreater(warm[1], warm[2])
    for shift in (-80.0, 100.0):
      lit = _white_balance(pixel, shift)
      np.testing.assert_allclose(colour.luma(lit), 0.3, rtol=1e-6)

  def test_white_balance_shifts_add_up(self):
    pixel = np.full((1, 3), 0.2, np.float32)
    twice = _white_balance(_white_balance(pixel, 40.0), 70.0)
    once = _white_balance(pixel, 110.0)
    ratio = np.asarray(twice / once)[0]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-6)

  @parameterized.parameters(-0.2, 0.0, 0.1, 0.3, 0.5)
  def test_hsv_brightness_equals_its_definition(self, delta):
    image = _image()
    expected = _by_hsv(
      image, lambda h, s, v: (h, s, np.clip(v + delta, 0, 1))
    )
    np.testing.assert_allclose(
      _hsv_brightness(image, delta), expected, atol=1e-6
    )

  @parameterized.parameters(
    (0.3, 0.0), (0.1, 0.0), (2.0, 0.0), (5.0, 0.1), (20.0, 0.2), (1.0, 0.0)
  )
  def test_hsv_saturate_equals_its_definition(self, c0, c1):
    image = _image()
    expected = _by_hsv(
      image, lambda h, s, v: (h, np.clip(s * c0 + c1, 0, 1), v)
    )
    np.testing.assert_allclose(
      _hsv_saturate(image, c0, c1), expected, atol=2e-6
    )

  def test_gray_images_have_no_colour(self):
    gray = _image()[..., :1]
    np.testing.assert_array_equal(colour.saturation(gray, 0.3), gray)
    np.testing.assert_array_equal(colour.hue(gray, 0.3), gray)
    np.testing.assert_array_equal(colour.white_balance(gray, 80.0), gray)
    np.testing.assert_array_equal(colour.hsv_saturate(gray, 5.0, 0.2), gray)
    np.testing.assert_array_equal(
      colour.hsv_brightness(gray, 0.3), np.minimum(gray + np.float32(0.3), 1)
    )

  @parameterized.parameters(
    colour.luma, lambda x: colour.saturation(x, 1.0),
    lambda x: colour.hue(x, 0.0), lambda x: colour.white_balance(x, 0.0),
    lambda x: colour.hsv_brightness(x, 0.0),
    lambda x: colour.hsv_saturate(x, 1.0, 0.0),
  )
  def test_two_channels_are_refused(self, function):
    with self.assertRaisesRegex(ValueError, r'1 or 3 .* shape \(4, 4, 2\)'):
      function(np.zeros((4, 4, 2)))


if __name__ == '__main__':
  absltest.main()
