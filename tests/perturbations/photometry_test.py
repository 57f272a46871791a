"""Tone against torchvision, 8-bit operations written out, and closed forms."""

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np
import pytest

from jaxsens.perturbations import photometry
from tests.oracles import torchvision_ops


def _image(shape=(20, 30, 3), dtype=np.float32):
  return np.random.default_rng(0).random(shape).astype(dtype)


def _torchvision(operation, image, *values):
  """The operation of torchvision.transforms.functional on (H, W, C)."""
  functional = torchvision_ops.import_torchvision().transforms.functional
  torch = pytest.importorskip('torch')
  tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
  result = getattr(functional, operation)(tensor, *values)
  return result.numpy().transpose(1, 2, 0)


def _levels():
  """All values of an 8-bit image, (16, 16, 1) integers."""
  return np.arange(256).reshape(16, 16, 1)


class PhotometryTest(parameterized.TestCase):

  @parameterized.parameters(0.01, 0.5, 1.0, 2.2, 100.0)
  def test_gamma_is_a_power(self, exponent):
    image = _levels().astype(np.float32) / 255
    np.testing.assert_allclose(
      photometry.gamma(image, exponent),
      image.astype(np.float64) ** exponent, atol=1e-6,
    )

  @parameterized.parameters(-3.0, -0.4, 1.7)
  def test_exposure_is_brightness_by_a_power_of_two(self, stops):
    image = _image()
    np.testing.assert_allclose(
      photometry.exposure(image, stops), np.minimum(image * 2**stops, 1),
      rtol=1e-6,
    )

  def test_black_level_moves_black_and_keeps_white(self):
    image = np.array([[0.0], [0.25], [0.5], [1.0]], np.float32)
    # level + (1 - level) image; below zero, what is under 0.25 / 1.25 is black.
    np.testing.assert_allclose(
      photometry.black_level(image, 0.2)[:, 0], [0.2, 0.4, 0.6, 1.0], rtol=1e-6
    )
    np.testing.assert_allclose(
      photometry.black_level(image, -0.25)[:, 0], [0, 0.0625, 0.375, 1.0],
      rtol=1e-6,
    )

  @parameterized.parameters(0.0, 0.3, 1.8)
  def test_contrast_equals_torchvision(self, factor):
    for channels in (1, 3):
      image = _image((20, 30, channels))
      expected = _torchvision('adjust_contrast', image, factor)
      # torchvision's weight of red is 1e-4 smaller.
      atol = 1e-4 * abs(1 - factor) * (channels == 3) + 2e-6
      result = photometry.contrast(image, factor)
      np.testing.assert_allclose(result, expected, atol=atol)

  def test_contrast_blends_with_the_mean_of_the_gray_image(self):
    image = _image(dtype=np.float64)
    mean = (image @ [0.299, 0.587, 0.114]).mean()
    for factor in (0.0, 0.5, 2.5):
      expected = np.clip(factor * image + (1 - factor) * mean, 0, 1)
      result = photometry.contrast(image.astype(np.float32), factor)
      np.testing.assert_allclose(result, expected, atol=2e-6)

  @parameterized.parameters(0.4, 0.3, 0.2, 0.1, 0.05)
  def test_imagenet_contrast_equals_its_formula(self, factor):
    image = _image(dtype=np.float64) * (0.4, 0.7, 1.0)
    means = image.mean((0, 1), keepdims=True)
    np.testing.assert_allclose(
      photometry.imagenet_contrast(image.astype(np.float32), factor),
      np.clip((image - means) * factor + means, 0, 1), atol=1e-6,
    )

  @parameterized.parameters(*range(9))
  def test_posterise_keeps_the_highest_bits(self, bits):
    levels = _levels()
    expected = (levels >> (8 - bits)) << (8 - bits)
    image = levels.astype(np.float32) / 255
    # Also where earlier arithmetic left a value just below its level.
    for rounded in (image, np.nextafter(image, np.float32(0))):
      result = photometry.posterise(rounded, bits)
      np.testing.assert_allclose(result, expected / 255, atol=1e-6)

  @parameterized.parameters(1, 3, 6)
  def test_posterise_equals_torchvision_on_8_bits(self, bits):
    levels = (_image() * 255).astype(np.uint8)
    result = photometry.posterise(levels.astype(np.float32) / 255, bits)
    expected = _torchvision('posterize', levels, bits)
    np.testing.assert_array_equal(np.round(result * 255), expected)

  @parameterized.parameters(1.6, 2.3, 5.5, 7.9)
  def test_posterise_between_whole_bits_has_rounded_count(self, bits):
    fine = np.linspace(0, 1, 20001, dtype=np.float32)[:, None]
    count = len(np.unique(photometry.posterise(fine, bits)))
    self.assertEqual(count, round(2**bits))

  @parameterized.parameters(0.0, 0.25, 0.8)
  def test_solarise_equals_torchvision(self, threshold):
    image = np.concatenate([_image(), np.full((1, 30, 3), 0.25, np.float32)])
    np.testing.assert_array_equal(
      photometry.solarise(image, threshold),
      _torchvision('solarize', image, threshold),
    )

  def test_solarise_inverts_from_the_threshold_on(self):
    image = np.array([[0.2], [0.5], [0.75], [1.0]], np.float32)
    result = photometry.solarise(image, 0.5)[:, 0]
    np.testing.assert_allclose(result, [0.2, 0.5, 0.25, 0.0], rtol=1e-6)

  def test_invert_is_linear_in_its_share_and_ends_at_the_negative(self):
    image = _image()
    np.testing.assert_allclose(
      photometry.invert(image, 1.0), 1 - image, atol=1e-7
    )
    np.testing.assert_allclose(photometry.invert(image, 0.5), 0.5, atol=1e-7)
    np.testing.assert_allclose(
      photometry.invert(image, 0.3), 0.7 * image + 0.3 * (1 - image), atol=1e-6
    )

  def test_contrast_refuses_what_is_no_image(self):
    with self.assertRaisesRegex(ValueError, r'\(H, W, C\), got shape \(4, 3\)'):
      photometry.contrast(np.zeros((4, 3)), 1.0)
    with self.assertRaisesRegex(ValueError, r'\(H, W, C\), got shape \(4,\)'):
      photometry.imagenet_contrast(np.zeros(4), 1.0)
    with self.assertRaisesRegex(ValueError, '1 or 3 channels'):
      photometry.contrast(np.zeros((4, 3, 2)), 1.0)


if __name__ == '__main__':
  absltest.main()
