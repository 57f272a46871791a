"""Convolution against scipy.ndimage and dense sums in float64."""

from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from jaxsens.perturbations import convolution

_SCIPY_MODE = {'edge': 'nearest', 'symmetric': 'reflect', 'reflect': 'mirror'}


def _image(shape, seed=0):
  return np.random.default_rng(seed).random(shape)


class ConvolutionTest(parameterized.TestCase):

  @parameterized.product(
    case=(((7, 19, 1), 3), ((16, 16, 3), 11), ((1, 9, 1), 4), ((1, 1, 3), 2)),
    border=tuple(_SCIPY_MODE),
  )
  def test_convolution_equals_scipy(self, case, border):
    shape, half_width = case
    image = _image(shape)
    # Without symmetry, so that a flip or a transposition shows.
    kernel = _image((2 * half_width + 1,) * 2, seed=1)
    expected = ndimage.convolve(
      image, kernel[..., None], mode=_SCIPY_MODE[border]
    )
    convolve = jax.jit(convolution.convolve, static_argnames='border')
    with jax.enable_x64(True):
      actual = convolve(image, kernel, border=border)
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)
    single = convolve(
      image.astype(np.float32), kernel / kernel.sum(), border=border
    )
    self.assertEqual(single.dtype, np.float32)
    np.testing.assert_allclose(single, expected / kernel.sum(), atol=2e-6)

  # From 401 pixels on by Fourier transforms.
  @parameterized.parameters((16, 16, 3), (1, 9, 1), (1, 1, 3), (401, 3, 1))
  def test_gaussian_equals_scipy(self, *shape):
    image, reach = _image(shape), 10
    function = jax.jit(
      convolution.convolve_gaussian, static_argnames='reach'
    )
    for sigma in (0.3, 1.0, 2.7, 6.0):
      expected = ndimage.gaussian_filter(
        image, sigma, mode='nearest', radius=reach, axes=(0, 1)
      )
      with jax.enable_x64(True):
        actual = function(image, sigma, reach=reach)
      np.testing.assert_allclose(actual, expected, atol=1e-13)
      single = function(image.astype(np.float32), sigma, reach=reach)
      self.assertEqual(single.dtype, np.float32)
      np.testing.assert_allclose(single, expected, atol=2e-6)

  def test_inner_impulse_keeps_its_sum(self):
    image = np.zeros((31, 31, 1), np.float32)
    image[15, 15] = 1
    kernel = _image((9, 9), seed=2)
    blurred = jax.jit(convolution.convolve)(image, kernel / kernel.sum())
    np.testing.assert_allclose(jnp.sum(blurred), 1, atol=1e-5)

  def test_bad_images_and_kernels_are_named(self):
    image = np.zeros((4, 4, 1), np.float32)
    with self.assertRaisesRegex(ValueError, r'\(4, 4\)'):
      convolution.convolve(image[..., 0], np.ones((3, 3)))
    with self.assertRaisesRegex(ValueError, 'uint8'):
      convolution.convolve_gaussian(image.astype(np.uint8), 1.0, reach=4)
    with self.assertRaisesRegex(ValueError, r'\(2, 2\)'):
      convolution.convolve(image, np.ones((2, 2)))
    with self.assertRaisesRegex(ValueError, 'wrap'):
      convolution.convolve(image, np.ones((3, 3)), border='wrap')
