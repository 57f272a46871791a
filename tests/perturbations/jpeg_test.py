"""JPEG against the bytes that Pillow encodes and decodes."""

import io

from absl.testing import absltest
from absl.testing import parameterized
import jax
import numpy as np
from PIL import Image
from scipy import ndimage

from jaxsens.perturbations import jpeg

_smooth = jax.jit(jpeg.jpeg)
_codec = jax.jit(jpeg.jpeg_codec)
_FUNCTIONS = {'jpeg': _smooth, 'jpeg_codec': _codec}


def _image(shape=(32, 40, 3), seed=0):
  """Smooth colours with texture and an edge, multiples of 1 / 255."""
  rng = np.random.default_rng(seed)
  image = ndimage.gaussian_filter(rng.random(shape), (3, 3, 0), mode='reflect')
  image = (image - image.min()) / max(np.ptp(image), 1e-9)
  image[shape[0] // 3:, : shape[1] // 2] *= 0.4
  image += 0.05 * rng.standard_normal(shape)
  return (np.round(255 * image.clip(0, 1)) / 255).astype(np.float32)


def _pillow(image, quality):
  """Levels 0 to 255 that Pillow decodes from what it encodes."""
  pixels = np.round(255 * image).astype(np.uint8)
  file = io.BytesIO()
  Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(
    file, 'JPEG', quality=quality
  )
  decoded = np.asarray(Image.open(io.BytesIO(file.getvalue())))
  return decoded.reshape(image.shape).astype(float)


class JpegTest(parameterized.TestCase):

  @parameterized.product(
    quality=[95, 80, 65, 58, 50, 40, 25, 18, 15, 10, 7, 1], channels=[1, 3]
  )
  def test_codec_equals_pillow(self, quality, channels):
    image = _image((64, 72, channels))
    difference = 255 * np.asarray(_codec(image, 100 - quality)) - _pillow(
      image, quality
    )
    # libjpeg's transform in fixed point moves some values by one level, and
    # now and then a coefficient to the next step.
    self.assertLess(abs(difference).mean(), 0.4)
    self.assertLess((abs(difference) > 1.5).mean(), 0.08)

  @parameterized.parameters(
    (17, 31, 3), (18, 30, 3), (23, 16, 3), (9, 3, 3), (5, 4, 3), (1, 1, 3),
    (1, 40, 3), (23, 14, 1), (1, 1, 1),
  )
  def test_codec_continues_other_sizes_as_libjpeg(self, *shape):
    image = _image(shape)
    difference = 255 * np.asarray(_codec(image, 40)) - _pillow(image, 60)
    self.assertLess(abs(difference).mean(), 0.4)
    self.assertLess((abs(difference) > 1.5).mean(), 0.1)

  @parameterized.product(
    name=list(_FUNCTIONS), shape=[(32, 40, 3), (32, 40, 1)]
  )
  def test_identity_gives_the_image_and_values_stay_in_range(
    self, name, shape
  ):
    image = np.random.default_rng(0).random(shape).astype(np.float32)
    function = _FUNCTIONS[name]
    np.testing.assert_array_equal(function(image, 0.0), image)
    heavy = np.asarray(function(image, 99.0))
    self.assertEqual(heavy.dtype, np.float32)
    self.assertTrue(((heavy >= 0) & (heavy <= 1)).all())

  @parameterized.product(quality=[90, 75, 50, 25, 10], channels=[1, 3])
  def test_smooth_approximation_is_near_the_codec(self, quality, channels):
    image = _image((32, 40, channels))
    compression = 100 - quality
    codec = np.asarray(_codec(image, compression))
    error = abs(np.asarray(_smooth(image, compression)) - codec).mean()
    self.assertLess(error, 0.5 * abs(codec - image).mean())

  def test_smooth_approximation_vanishes_with_the_compression(self):
    image = _image((32, 40, 3))
    for compression in (1.0, 0.1, 0.01):
      change = abs(np.asarray(_smooth(image, compression)) - image).max()
      self.assertLess(change, 0.1 * compression + 2e-6)

  def test_soft_rounding_keeps_whole_numbers_and_halves(self):
    x = np.array([-2.0, -1.0, 0.0, 3.0, 0.5, -1.5])
    np.testing.assert_allclose(jpeg._round_softly(x), x, atol=1e-6)
    # Continuous, with a continuous slope, at whole numbers.
    with jax.enable_x64(True):
      slope = jax.vmap(jax.grad(jpeg._round_softly))
      np.testing.assert_allclose(
        slope(np.array([1 - 1e-9])), slope(np.array([1 + 1e-9])), rtol=1e-6
      )
      np.testing.assert_allclose(
        jpeg._round_softly(np.array([1 - 1e-9])), 1, atol=1e-8
      )

  def test_two_channels_are_refused(self):
    with self.assertRaisesRegex(ValueError, r'\(H, W, 3\).*\(4, 5, 2\)'):
      jpeg.jpeg(np.zeros((4, 5, 2), np.float32), 10.0)


if __name__ == '__main__':
  absltest.main()
