"""Optics against scipy.ndimage, slow float64 references and invariants."""

import functools

from absl.testing import parameterized
import jax
import numpy as np
from scipy import ndimage

from jaxsens.perturbations import optics
from tests.oracles import torchvision_ops

_KEY = jax.random.key(3)
# A generic main value of each, and where it must be the identity.
_VALUES = {
  'gaussian_blur': 1.7, 'defocus': 2.8, 'motion_blur': 6.3, 'zoom_blur': 1.23,
  'glass_blur': 1.6, 'chromatic_shift': 1.4,
}
_BY_NAME = {p.name: p for p in optics.PERTURBATIONS}
_NAMES = tuple((name, name) for name in _VALUES)


def _image(shape=(18, 21, 3), seed=0):
  """A smooth random image in [0, 1]."""
  image = np.random.default_rng(seed).random(shape)
  image = ndimage.gaussian_filter(image, 1.0, axes=(0, 1), mode='wrap')
  spread = np.ptp(image) or 1.0
  return (image - image.min()) / spread


@functools.cache
def _apply(name):
  """Returns the jitted function (image, main, *others) of that name."""
  entry = _BY_NAME[name]
  if entry.random:
    return jax.jit(lambda *args: entry.function(*args, key=_KEY))
  return jax.jit(entry.function)


def _others(name):
  return [parameter.default for parameter in _BY_NAME[name].others]


class CatalogueTest(parameterized.TestCase):

  def test_every_perturbation_has_a_value_in_these_tests(self):
    self.assertEqual(tuple(_BY_NAME), tuple(_VALUES))

  def test_severity_five_of_imagenet_c_lies_inside_the_limits(self):
    for name, largest in (
      ('gaussian_blur', 6), ('defocus', 10), ('motion_blur', 41),
      ('zoom_blur', 1.3), ('glass_blur', 4),
    ):
      self.assertLessEqual(largest, _BY_NAME[name].limits[1])


class EveryPerturbationTest(parameterized.TestCase):

  @parameterized.named_parameters(*_NAMES)
  def test_identity_gives_a_gray_image_back_whatever_the_others_are(self, name):
    entry, apply = _BY_NAME[name], _apply(name)
    image = _image((18, 21, 1)).astype(np.float32)
    image[3:6, 3:6] = 1
    for end in (0, 1):
      others = [parameter.sensible_range[end] for parameter in entry.others]
      np.testing.assert_array_equal(
        apply(image, entry.identity, *others), image
      )

  @parameterized.named_parameters(*_NAMES)
  def test_response_tends_to_the_identity(self, name):
    entry = _BY_NAME[name]
    image = _image().astype(np.float32)
    near = _apply(name)(image, entry.identity + 1e-4, *_others(name))
    np.testing.assert_allclose(near, image, atol=1e-3)

  @parameterized.named_parameters(*_NAMES)
  def test_result_stays_in_range_where_everything_saturates(self, name):
    image = np.ones((18, 21, 3), np.float32)
    image[8:, :] = 0
    result = _apply(name)(image, _VALUES[name], *_others(name))
    self.assertEqual(result.dtype, np.float32)
    self.assertGreaterEqual(np.min(result), 0)
    self.assertLessEqual(np.max(result), 1)

  @parameterized.named_parameters(*_NAMES)
  def test_constant_image_stays_constant(self, name):
    image = np.full((18, 21, 3), 0.625, np.float32)
    result = _apply(name)(image, _VALUES[name], *_others(name))
    np.testing.assert_allclose(result, image, atol=1e-6)


class BlurTest(parameterized.TestCase):

  @parameterized.parameters(0.8, 2.0, 6.0)
  def test_gaussian_blur_equals_scipy(self, sigma):
    image = _image((40, 31, 3))
    expected = ndimage.gaussian_filter(
      image, sigma, mode='nearest', radius=64, axes=(0, 1)
    )
    with jax.enable_x64(True):
      actual = jax.jit(optics.gaussian_blur)(image, sigma)
    np.testing.assert_allclose(actual, expected, atol=1e-12)

  def test_gaussian_blur_equals_torchvision_inside(self):
    torchvision = torchvision_ops.import_torchvision()
    import torch
    image = _image((40, 40, 3)).astype(np.float32)
    expected = torchvision.transforms.functional.gaussian_blur(
      torch.from_numpy(image.transpose(2, 0, 1).copy()), [13, 13], [1.2, 1.2]
    ).numpy().transpose(1, 2, 0)
    actual = _apply('gaussian_blur')(image, 1.2)
    # Its border mirrors and its kernel ends at five standard deviations.
    inner = np.s_[7:-7, 7:-7]
    np.testing.assert_allclose(actual[inner], expected[inner], atol=2e-6)

  def test_defocus_of_a_bright_pixel_is_a_disk(self):
    image = np.zeros((41, 41, 1), np.float32)
    image[20, 20] = 1
    result = np.asarray(_apply('defocus')(image, 8.0))[..., 0]
    y, x = np.mgrid[-20:21, -20:21]
    distance = np.hypot(y, x)
    self.assertLess(result[distance > 8.5].max(), 1e-6)
    # Even, 1 / (π r²) within two per cent.
    np.testing.assert_allclose(
      result[distance < 7.5], 1 / (np.pi * 64), rtol=0.02
    )

  def test_motion_blur_equals_the_mean_of_shifted_images(self):
    image = _image((30, 33, 1))
    length, angle = 9.0, 35.0
    t = length * ((np.arange(400) + 0.5) / 400 - 0.5)
    radians = np.deg2rad(angle)
    expected = np.mean([
      ndimage.shift(
        image[..., 0], (-s * np.sin(radians), s * np.cos(radians)), order=1,
        mode='nearest',
      ) for s in t
    ], axis=0)
    blur = _apply('motion_blur')
    actual = blur(image.astype(np.float32), length, angle)
    np.testing.assert_allclose(actual[..., 0], expected, atol=2e-3)

  def test_motion_blur_across_stripes_along_x_changes_nothing(self):
    stripes = np.tile((np.arange(24) % 4 < 2)[:, None, None], (1, 20, 1))
    stripes = stripes.astype(np.float32)
    blur = _apply('motion_blur')
    np.testing.assert_allclose(blur(stripes, 12.0, 0.0), stripes, atol=1e-5)
    self.assertLess(np.ptp(blur(stripes, 12.0, 90.0)[8:16]), 0.1)

  def test_motion_blur_has_a_period_of_half_a_turn(self):
    image = _image().astype(np.float32)
    blur = _apply('motion_blur')
    np.testing.assert_allclose(
      blur(image, 9.0, 25.0), blur(image, 9.0, -155.0), atol=2e-6
    )

  @parameterized.parameters(1.1, 1.3)
  def test_zoom_blur_equals_the_mean_over_zooms(self, max_zoom):
    y, x = np.mgrid[0:48, 0:40].astype(float)
    image = 0.5 + 0.4 * np.sin(x / 5) * np.cos(y / 6)
    zoomed = []
    for zoom in max_zoom ** (np.arange(16) / 15):
      rows, columns = (y - 23.5) / zoom + 23.5, (x - 19.5) / zoom + 19.5
      zoomed.append(ndimage.map_coordinates(image, [rows, columns], order=1))
    blur = _apply('zoom_blur')
    actual = blur(image[..., None].astype(np.float32), max_zoom)
    # Interpolating twice instead of once flattens waves of 31 px a little.
    np.testing.assert_allclose(
      actual[..., 0], np.mean(zoomed, axis=0), atol=6e-3
    )

  def test_zoom_blur_keeps_the_symmetry_of_the_image(self):
    image = _image((20, 20, 1)).astype(np.float32)
    image = (image + image[::-1]) / 2
    result = _apply('zoom_blur')(image, 1.2)
    np.testing.assert_allclose(result, result[::-1], atol=1e-5)


class GlassTest(parameterized.TestCase):

  def test_the_same_key_gives_the_same_glass_and_another_key_another(self):
    image = _image().astype(np.float32)
    blur = jax.jit(optics.glass_blur)
    first = blur(image, 2.0, key=_KEY)
    np.testing.assert_array_equal(
      first, _apply('glass_blur')(image, 2.0, 0.4)
    )
    other = blur(image, 2.0, key=jax.random.key(4))
    self.assertGreater(np.max(np.abs(first - other)), 0.01)

  def test_response_is_continuous_at_a_fixed_key(self):
    image = _image().astype(np.float32)
    blur = _apply('glass_blur')
    change = blur(image, 2.0, 0.4) - blur(image, 2.001, 0.4)
    self.assertLess(np.max(np.abs(change)), 1e-2)

  def test_displacements_are_even_up_to_their_largest(self):
    # On a ramp the displacement along x can be read off.
    ramp = np.broadcast_to(np.arange(200.0) / 200, (100, 200))[..., None]
    result = _apply('glass_blur')(ramp.astype(np.float32), 4.0, 0.0)
    moved = ((result - ramp) * 200)[:, 10:-10].ravel()
    self.assertLessEqual(np.max(np.abs(moved)), 4.001)
    # Uniform in [-4, 4]: mean 0, variance 16/3; five standard errors.
    error = 5 / moved.size**0.5
    self.assertLess(abs(np.mean(moved)), error * (16 / 3) ** 0.5)
    self.assertLess(
      abs(np.var(moved) - 16 / 3), error * (4**4 / 5 - (16 / 3) ** 2) ** 0.5
    )


class ChromaticTest(parameterized.TestCase):

  def test_gray_and_green_stay(self):
    shift = _apply('chromatic_shift')
    gray = _image((18, 21, 1)).astype(np.float32)
    np.testing.assert_array_equal(shift(gray, 2.0), gray)
    image = _image().astype(np.float32)
    result = shift(image, 2.0)
    np.testing.assert_array_equal(result[..., 1], image[..., 1])

  def test_red_and_blue_are_scaled_about_the_centre(self):
    image = _image((30, 40, 3))
    # Half the diagonal of 30 x 40 is 25 px.
    y, x = np.mgrid[0:30, 0:40].astype(float)
    actual = _apply('chromatic_shift')(image.astype(np.float32), 2.5)
    for channel, zoom in ((0, 1.1), (2, 0.9)):
      seen = [(y - 14.5) / zoom + 14.5, (x - 19.5) / zoom + 19.5]
      expected = ndimage.map_coordinates(
        image[..., channel], seen, order=1, mode='nearest'
      )
      np.testing.assert_allclose(actual[..., channel], expected, atol=1e-5)
