"""Bilinear interpolation against scipy.ndimage."""

from absl.testing import parameterized
import jax
import numpy as np
from scipy import ndimage

from jaxsens.perturbations import interpolation


class InterpolationTest(parameterized.TestCase):

  @parameterized.parameters((9, 12, 3), (1, 5, 1), (1, 1, 3))
  def test_bilinear_equals_scipy_also_beyond_the_image(self, *shape):
    rng = np.random.default_rng(0)
    image = rng.random(shape)
    rows = rng.uniform(-3, shape[0] + 2, (7, 8))
    columns = rng.uniform(-3, shape[1] + 2, (7, 8))
    expected = np.stack([
      ndimage.map_coordinates(
        image[..., c], [rows, columns], order=1, mode='nearest'
      ) for c in range(shape[2])
    ], -1)
    bilinear = jax.jit(interpolation.bilinear)
    with jax.enable_x64(True):
      actual = bilinear(image, rows, columns)
    np.testing.assert_allclose(actual, expected, atol=1e-13)
    single = bilinear(*(a.astype(np.float32) for a in (image, rows, columns)))
    self.assertEqual(single.dtype, np.float32)
    np.testing.assert_allclose(single, expected, atol=1e-5)

  def test_the_pixels_themselves_are_exact(self):
    image = np.random.default_rng(1).random((6, 7, 3)).astype(np.float32)
    grid = interpolation.pixel_grid(image)
    np.testing.assert_array_equal(interpolation.bilinear(image, *grid), image)
