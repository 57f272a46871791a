"""Filters against the FFT of the mirrored image and scipy.ndimage."""

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from jaxsens.perturbations import otf
from jaxsens.perturbations import spectral_filters

# The last two have axes that are transformed by FFT.
_SIZES = [(8, 11), (1, 1), (521, 4), (3, 600)]


# One compilation of a filter is quicker than its operations one by one.
_radial, _separable, _plane = (
  jax.jit(function, static_argnums=1) for function in (
    spectral_filters.filter_radial, spectral_filters.filter_separable,
    spectral_filters.filter_plane,
  )
)


def _image(height, width, channels=3):
  shape = (height, width, channels)
  return np.random.default_rng(height + width).uniform(size=shape)


def _by_fft(image, transfer):
  """The image mirrored to four times its size, filtered over its spectrum."""
  mirrored = np.concatenate([image, image[::-1]], 0)
  mirrored = np.concatenate([mirrored, mirrored[:, ::-1]], 1)
  v = np.fft.fftfreq(mirrored.shape[0])[:, None, None]
  u = np.fft.fftfreq(mirrored.shape[1])[None, :, None]
  # At one half cycle per pixel the spectrum of a mirrored image is zero.
  spectrum = np.fft.fft2(mirrored, axes=(0, 1)) * np.asarray(transfer(u, v))
  filtered = np.fft.ifft2(spectrum, axes=(0, 1)).real
  return filtered[:image.shape[0], :image.shape[1]]


class SpectralFiltersTest(parameterized.TestCase):

  @parameterized.product(size=_SIZES, channels=[1, 3])
  def test_filters_equal_the_fft_of_the_mirrored_image(self, size, channels):
    image = _image(*size, channels)
    with jax.enable_x64(True):
      for filtered, transfer, tolerance in (
        (_separable(
          image, lambda f: jnp.sinc(2.2 * f)
        ), lambda u, v: np.sinc(2.2 * u) * np.sinc(2.2 * v), 1e-12),
        (_plane(
          image, lambda u, v: jnp.sinc(3.1 * u - 1.7 * v)
        ), lambda u, v: np.sinc(3.1 * u - 1.7 * v), 1e-12),
        # Read from a table.
        (_radial(
          image, lambda f: 1 / (1 + 30 * f**2)
        ), lambda u, v: 1 / (1 + 30 * (u**2 + v**2)), 1e-5),
      ):
        np.testing.assert_allclose(
          filtered, _by_fft(image, transfer), atol=tolerance
        )

  @parameterized.parameters(0.8, 2.0)
  def test_gaussian_equals_scipy_ndimage(self, sigma):
    image = _image(40, 33).astype(np.float32)
    expected = ndimage.gaussian_filter(
      image, (sigma, sigma, 0), mode='reflect', truncate=8
    )
    for apply in (_radial, _separable):
      actual = apply(image, lambda f: otf.vibration(f, sigma))
      # scipy cuts the density to samples, whose transform repeats.
      np.testing.assert_allclose(actual, expected, atol=0.01 / sigma**4)

  def test_table_of_a_radial_transfer_is_fine_enough_for_wide_blurs(self):
    # Twenty pixels across, whose transfer has fourteen zeros in the plane.
    image = _image(64, 64, 1)
    with jax.enable_x64(True):
      radius = lambda u, v: jnp.sqrt(jnp.maximum(u * u + v * v, 1e-30))
      disk = lambda f: otf.defocus(f, 1.5, 20 * 1.5 / 8)
      np.testing.assert_allclose(
        _radial(image, disk),
        _plane(
          image, lambda u, v: disk(radius(u, v))
        ), atol=1e-5,
      )

  @parameterized.parameters(np.float32, np.float64)
  def test_transfer_of_one_gives_the_image_back(self, dtype):
    image = _image(13, 600).astype(dtype)
    with jax.enable_x64(True):
      for filtered in (
        _radial(image, jnp.ones_like),
        _separable(image, jnp.ones_like),
        _plane(image, lambda u, v: 1 + 0 * u * v),
      ):
        assert filtered.dtype == dtype
        np.testing.assert_array_equal(filtered, image)

  def test_mean_is_kept(self):
    image = _image(12, 17)
    blurred = _radial(
      image, lambda f: otf.defocus(f, 1.0, 2.0)
    )
    np.testing.assert_allclose(
      blurred.mean((0, 1)), image.mean((0, 1)), rtol=1e-5
    )

  @parameterized.parameters(((4, 4),), ((2, 4, 4, 3),))
  def test_images_of_another_rank_are_refused(self, shape):
    with self.assertRaisesRegex(ValueError, r'\(H, W, C\)'):
      _radial(np.zeros(shape), jnp.ones_like)

  def test_integer_images_are_refused(self):
    with self.assertRaisesRegex(ValueError, 'uint8'):
      _plane(
        np.zeros((4, 4, 3), np.uint8), lambda u, v: u * v
      )


if __name__ == '__main__':
  absltest.main()
