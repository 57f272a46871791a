"""Random fields against slow sums, closed forms and statistics."""

from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from jaxsens.perturbations import plasmas
from jaxsens.perturbations import random_fields
from jaxsens.perturbations import textures
from tests.oracles import diamond_square

_KEY = jax.random.key(5)


def _periodic(num, centre):
  """Distances of pixel indices from a point, on a ring."""
  return (np.arange(num) - centre + num / 2) % num - num / 2


class TexturesTest(parameterized.TestCase):

  @parameterized.parameters((2, 2.0), (16, 1.4), (32, 3.0))
  def test_plasma_equals_diamond_square_point_by_point(self, num, decay):
    draws = 2 * np.asarray(
      random_fields.uniform(_KEY, (num, num), jnp.float32), float
    ) - 1
    actual = jax.jit(plasmas.plasma, static_argnums=(1, 3))(
      _KEY, (num, num), decay, jnp.float32
    )
    np.testing.assert_allclose(
      actual, diamond_square.plasma(draws, decay), atol=2e-6
    )

  @parameterized.parameters(((32, 64),), ((64, 4),), ((512, 4),))
  def test_plasma_by_a_matrix_equals_pass_after_pass(self, size):
    expected, actual = [], []
    for found, coarse in ((expected, 1), (actual, 16)):
      with mock.patch.object(plasmas, '_COARSE', coarse):
        found.append(plasmas.plasma(_KEY, size, 1.7, jnp.float32))
    self.assertGreater(np.std(expected[0]), 0.05)
    np.testing.assert_allclose(actual, expected, atol=2e-6)

  def test_plasma_of_a_size_that_is_no_power_of_two_raises(self):
    with self.assertRaisesRegex(ValueError, r'\(24, 32\)'):
      plasmas.plasma(_KEY, (24, 32), 2.0, jnp.float32)

  def test_clouds_have_mean_one_and_are_positive(self):
    field = jax.jit(textures.clouds, static_argnums=(1, 2))(
      _KEY, (17, 40), jnp.float32
    )
    self.assertEqual(field.shape, (17, 40))
    np.testing.assert_allclose(field.mean(), 1, rtol=1e-5)
    self.assertGreater(field.min(), 0)
    self.assertGreater(field.std(), 0.1)

  @parameterized.parameters(0.5, 2.0)
  def test_smooth_noise_has_mean_zero_and_variance_one(self, length):
    # Over independent keys every point is standard normal; the points used
    # are ten deviations apart or more, hence nearly independent.
    draw = jax.jit(jax.vmap(
      lambda key: textures.smooth_noise(key, (21, 20), length, jnp.float32)
    ))
    points = np.asarray(draw(jax.random.split(_KEY, 2000)))[:, 0, 0]
    error = 1 / np.sqrt(len(points))
    self.assertLess(abs(points.mean()), 5 * error)
    self.assertLess(abs(points.var() - 1), 5 * np.sqrt(2) * error)

  def test_smooth_noise_is_correlated_as_its_gaussians_say(self):
    # Transfer H has correlation ifft(H^2) / ifft(H^2)[0]; in one octave
    # exp(-d^2 / (4 length^2)).
    length, distance = 2.0, 3
    draw = jax.vmap(
      lambda key: textures.smooth_noise(key, (24, 24), length, jnp.float32)
    )
    fields = np.asarray(jax.jit(draw)(jax.random.split(_KEY, 500)))
    actual = (fields * np.roll(fields, distance, 2)).mean()
    frequency = np.fft.fftfreq(24)
    squares = (length * np.pi) ** 2 * np.add.outer(frequency**2, frequency**2)
    power = (np.exp(-2 * squares) + 0.08 * np.exp(-2 * squares / 9)) ** 2
    covariance = np.fft.ifft2(power).real[0]
    np.testing.assert_allclose(
      actual, covariance[distance] / covariance[0], atol=0.02
    )

  def test_specks_equal_a_sum_of_rotated_gaussians(self):
    size, width, length, angle = (24, 30), 2.0, 6.0, 30.0
    draws = np.asarray(random_fields.uniform(_KEY, size, jnp.float32), float)
    rise = np.clip(0.8 - draws * 7.0**2, 0, 1)
    heights = rise**2 * (3 - 2 * rise)
    deviation = width / 2.3548200450309493
    along = np.hypot(width, length) / 2.3548200450309493
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    expected = np.zeros(size)
    for i, j in zip(*np.nonzero(heights), strict=True):
      y, x = np.meshgrid(
        -_periodic(size[0], i), _periodic(size[1], j), indexing='ij'
      )
      u, v = (cos * x + sin * y) / along, (cos * y - sin * x) / deviation
      expected += heights[i, j] * np.exp(-(u**2 + v**2) / 2)
    actual = textures.specks(
      _KEY, size, 0.8, spacing=7.0, width=width, length=length, angle=angle,
      dtype=jnp.float32,
    )
    self.assertGreater(expected.max(), 0.1)
    np.testing.assert_allclose(actual, expected, atol=0.01)

  def test_ice_is_a_share_and_has_contrast(self):
    field = np.asarray(jax.jit(textures.ice, static_argnums=(1, 2))(
      _KEY, (37, 50), jnp.float32
    ))
    self.assertEqual(field.shape, (37, 50))
    self.assertBetween(field.min(), 0, 0.4)
    self.assertBetween(field.max(), 0.6, 1)

  def test_colour_of_a_gray_image_is_its_luma(self):
    gray = textures.colour((1.0, 0.5, 0.0), jnp.zeros((2, 2, 1)))
    np.testing.assert_allclose(gray, [0.299 + 0.587 / 2], rtol=1e-6)

  @parameterized.parameters(
    (np.zeros((4, 4), np.float32), r'\(4, 4\)'),
    (np.zeros((4, 4, 3), np.uint8), 'uint8'),
  )
  def test_what_is_no_float_image_raises(self, image, message):
    with self.assertRaisesRegex(ValueError, message):
      textures.float_image(image)


if __name__ == '__main__':
  absltest.main()
