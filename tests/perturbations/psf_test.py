"""Point spread functions: energy, moments, published kernels."""

from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from jaxsens.perturbations import psf

_ANGLES = (0.0, 30.0, 45.0, 90.0, 137.0, -60.0)
_disk = jax.jit(psf.disk, static_argnums=1)
_line = jax.jit(psf.line, static_argnums=2)
_half_gaussian_line = jax.jit(psf.half_gaussian_line, static_argnums=(3, 4))


def _moments(kernel):
  """Returns the mean (y, x) and the covariance about it."""
  kernel = np.asarray(kernel, np.float64)
  half_width = kernel.shape[0] // 2
  offsets = np.arange(-half_width, half_width + 1)
  points = np.stack(np.meshgrid(offsets, offsets, indexing='ij'))
  mean = np.einsum('dyx,yx->d', points, kernel)
  second = np.einsum('dyx,eyx,yx->de', points, points, kernel)
  return mean, second - np.outer(mean, mean)


class PsfTest(parameterized.TestCase):

  @parameterized.parameters(0.0, 0.2, 0.5, 1.0, 3.7, 10.0, 16.0)
  def test_disk_keeps_energy_and_is_not_negative(self, radius):
    for dtype, tolerance in ((np.float32, 1e-6), (np.float64, 1e-14)):
      with jax.enable_x64(True):
        kernel = np.asarray(_disk(jnp.asarray(radius, dtype), 17))
      self.assertEqual(kernel.dtype, dtype)
      np.testing.assert_allclose(
        np.sum(kernel, dtype=np.float64), 1, atol=tolerance
      )
      self.assertGreaterEqual(np.min(kernel), 0)

  @parameterized.parameters(4.0, 4.3, 4.5)
  def test_disk_fits_an_array_half_a_pixel_narrower(self, radius):
    wide = np.asarray(_disk(radius, 6))
    np.testing.assert_allclose(
      np.pad(_disk(radius, 4), 2), wide, rtol=1e-6
    )

  @parameterized.parameters(3.0, 4.3, 6.0, 10.0, 15.5)
  def test_disk_has_a_quarter_of_the_squared_radius_as_variance(self, radius):
    # An edge of density 6 t (1 - t), one pixel wide, has E[δ²] = 1/20 and
    # E[δ⁴] = 3/560: variance E[R⁴] / (4 E[R²]).
    expected = (radius**4 + 0.3 * radius**2 + 3 / 560) / (
      4 * (radius**2 + 0.05)
    )
    mean, covariance = _moments(_disk(radius, 17))
    np.testing.assert_allclose(mean, 0, atol=1e-5)
    # Sampling on the lattice leaves about two per cent.
    np.testing.assert_allclose(
      covariance, expected * np.eye(2), rtol=0.025, atol=1e-4
    )
    np.testing.assert_allclose(expected, radius**2 / 4, rtol=0.03)

  @parameterized.product(
    length=(0.0, 0.3, 1.0, 7.7, 40.0, 60.0), angle=_ANGLES
  )
  def test_line_keeps_energy_and_centre(self, length, angle):
    kernel = np.asarray(_line(length, angle, 30))
    np.testing.assert_allclose(np.sum(kernel, dtype=np.float64), 1, atol=1e-6)
    self.assertGreaterEqual(np.min(kernel), 0)
    np.testing.assert_allclose(_moments(kernel)[0], 0, atol=1e-4)
    np.testing.assert_allclose(kernel, kernel[::-1, ::-1], atol=1e-6)

  @parameterized.product(length=(8.0, 25.0, 58.0), angle=_ANGLES)
  def test_line_has_a_twelfth_of_the_squared_length_as_variance(
    self, length, angle
  ):
    # Linear interpolation adds f (1 - f) <= 1/4 along each axis.
    radians = np.deg2rad(angle)
    direction = np.array([-np.sin(radians), np.cos(radians)])
    _, covariance = _moments(_line(length, angle, 30))
    along = direction @ covariance @ direction
    normal = np.array([direction[1], -direction[0]])
    across = normal @ covariance @ normal
    self.assertBetween(along - length**2 / 12, -0.01, 0.26)
    self.assertBetween(across, -0.001, 0.26)

  def test_line_along_an_axis_is_a_row_of_equal_pixels_with_half_ends(self):
    kernel = np.asarray(_line(4.0, 0.0, 6))
    expected = np.zeros((13, 13))
    # Integral of the tent over [-2, 2]: 1 inside, 1/2 at the ends.
    expected[6, 4:9] = np.array([0.5, 1, 1, 1, 0.5]) / 4
    np.testing.assert_allclose(kernel, expected, atol=2e-3)

  def test_line_points_up_and_right_at_forty_five_degrees(self):
    kernel = np.asarray(psf.line(8.0, 45.0, 5))
    self.assertGreater(kernel[3, 7], 0.05)
    self.assertLess(kernel[7, 7], 1e-6)

  @parameterized.parameters(0.0, 45.0, 111.0)
  def test_line_of_length_zero_is_one_pixel(self, angle):
    expected = np.zeros((7, 7))
    expected[3, 3] = 1
    np.testing.assert_array_equal(_line(0.0, angle, 3), expected)

  @parameterized.parameters((10.0, 3.0, 20.0), (20.0, 15.0, -45.0))
  def test_half_gaussian_line_puts_each_tap_where_imagemagick_does(
    self, radius, sigma, angle
  ):
    taps = np.arange(int(2 * radius) + 1)
    weights = np.exp(-(taps**2) / (2 * sigma**2))
    weights /= weights.sum()
    expected = np.zeros((81, 81))
    for i, weight in enumerate(weights):
      dx = int(np.ceil(i * np.cos(np.deg2rad(angle)) - 0.5))
      dy = int(np.ceil(i * np.sin(np.deg2rad(angle)) - 0.5))
      expected[40 - dy, 40 - dx] += weight
    actual = _half_gaussian_line(radius, sigma, angle, 40, (224, 224))
    np.testing.assert_allclose(actual, expected, atol=1e-6)

  def test_half_gaussian_line_ends_at_the_border_of_a_small_image(self):
    kernel = _half_gaussian_line(10.0, 8.0, 0.0, 40, (32, 5))
    self.assertEqual(np.count_nonzero(kernel), 5)
    self.assertLess(np.sum(kernel), 1)

  def test_disk_with_alias_equals_the_published_kernel_at_severity_one(self):
    # 29 points within radius 3; alias 0.1 leaves them as they are (e^-50).
    kernel = psf.disk_with_alias(3, 0.1)
    self.assertEqual(kernel.shape, (17, 17))
    self.assertEqual(np.count_nonzero(kernel > 1e-9), 29)
    np.testing.assert_allclose(kernel[8, 8], 1 / 29, rtol=1e-12)

  @parameterized.parameters((0.3, 0.4), (1.5, 0.1), (4, 0.5), (6, 0.5))
  def test_disk_with_alias_keeps_energy_inside_its_array(self, radius, alias):
    np.testing.assert_allclose(
      psf.disk_with_alias(radius, alias).sum(), 1, rtol=1e-12
    )

  @parameterized.parameters((-1, 0.5), (3, 0.0), (9.5, 0.5))
  def test_disk_with_alias_refuses_what_is_not_defined(self, radius, alias):
    with self.assertRaisesRegex(ValueError, 'radius'):
      psf.disk_with_alias(radius, alias)

  @parameterized.named_parameters(
    ('disk', lambda v: psf.disk(v, 9)),
    ('length', lambda v: psf.line(v, 20.0, 9)),
    ('angle', lambda v: psf.line(8.0, v, 9)),
  )
  def test_kernel_differentiates_in(self, kernel):
    probe = np.random.default_rng(0).random((19, 19))
    step = 1e-6
    with jax.enable_x64(True):
      function = jax.jit(jax.value_and_grad(
        lambda v: jnp.sum(kernel(v) * probe)
      ))
      self.assertTrue(np.isfinite(function(0.0)[1]))
      for value in (2.3, 7.4):
        upper, lower = function(value + step)[0], function(value - step)[0]
        np.testing.assert_allclose(
          function(value)[1], (upper - lower) / (2 * step),
          rtol=1e-4, atol=1e-7,
        )
