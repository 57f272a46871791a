"""Uneven light against closed forms and symmetries of the frame."""

from absl.testing import absltest
from absl.testing import parameterized
import jax
import numpy as np

from jaxsens.perturbations import illumination

_HALF = np.float32(0.5)

_gradient = jax.jit(illumination.illumination_gradient)
_vignette = jax.jit(illumination.vignette)
_shadow = jax.jit(illumination.shadow)
_glare = jax.jit(illumination.glare)


def _flat(height, width, channels=1):
  return np.full((height, width, channels), _HALF)


def _centres(n):
  return (np.arange(n) + 0.5) / n


class IlluminationTest(parameterized.TestCase):

  def test_gradient_grows_linearly_along_its_angle(self):
    right = _gradient(_flat(4, 10), 0.6, 0.0)
    expected = 0.5 * (1 + 0.6 * (2 * _centres(10) - 1))
    np.testing.assert_allclose(
      right[..., 0], np.tile(expected, (4, 1)), rtol=1e-6
    )
    up = _gradient(_flat(10, 4), 0.6, 90.0)
    np.testing.assert_allclose(up[::-1, 0, 0], expected, rtol=1e-5)

  @parameterized.parameters(0.0, 33.0, -120.0)
  def test_gradient_keeps_the_mean_light(self, angle):
    result = _gradient(_flat(11, 24), 0.5, angle)
    np.testing.assert_allclose(result.mean(), 0.5, rtol=1e-6)

  @parameterized.parameters(10.0, -75.0)
  def test_light_turns_with_the_frame(self, angle):
    image = np.random.default_rng(0).random((9, 16, 3)).astype(np.float32)
    turned = np.ascontiguousarray(np.rot90(image))  # Counter-clockwise.
    for function, before, after in (
      (_gradient, (), ()),
      (_shadow, (0.4,), (0.1,)),
    ):
      np.testing.assert_allclose(
        function(turned, 0.5, *before, angle + 90, *after),
        np.rot90(function(image, 0.5, *before, angle, *after)), atol=2e-6,
      )
    np.testing.assert_allclose(
      _vignette(turned, 0.5, 0.8),
      np.rot90(_vignette(image, 0.5, 0.8)), atol=1e-6,
    )

  @parameterized.parameters((1.0, 0.4), (0.3, 1.0), (0.7, 3.0), (-0.2, 1.0))
  def test_vignette_follows_the_fourth_power_of_the_cosine(
    self, strength, radius
  ):
    height, width = 12, 17
    y, x = np.meshgrid(
      np.arange(height) + 0.5 - height / 2, np.arange(width) + 0.5 - width / 2,
      indexing='ij',
    )
    r = np.hypot(x, y) / np.hypot(height / 2, width / 2)
    fall = lambda r: 1 - np.cos(np.arctan(r / radius)) ** 4
    np.testing.assert_allclose(
      _vignette(_flat(height, width), strength, radius)[..., 0],
      0.5 * (1 - strength * fall(r) / fall(1)), atol=1e-6,
    )

  def test_vignette_of_a_long_lens_is_quadratic(self):
    x = 2 * _centres(64) - 1
    row = _vignette(_flat(1, 64), 0.8, 1e5)[0, :, 0]
    r2 = (x**2 * 64**2) / (64**2 + 1)
    np.testing.assert_allclose(row, 0.5 * (1 - 0.8 * r2), atol=1e-6)

  def test_vignette_loses_its_strength_in_the_corners(self):
    corner = _vignette(_flat(400, 300), 0.6, 0.5)[0, 0, 0]
    np.testing.assert_allclose(corner, 0.5 * 0.4, atol=2e-3)

  def test_shadow_rises_from_10_to_90_percent_over_its_softness(self):
    n, depth, position, softness = 4000, 0.6, 0.3, 0.2
    row = _shadow(_flat(1, n), depth, position, 0.0, softness)
    shaded = (1 - row[0, :, 0] / _HALF) / depth
    edges = np.interp([0.1, 0.5, 0.9], shaded, _centres(n))
    np.testing.assert_allclose(edges, [0.2, 0.3, 0.4], atol=1e-4)

  def test_hard_shadow_has_an_edge_of_one_pixel(self):
    row = _shadow(_flat(1, 40), 0.5, 0.5, 180.0, 0.0)[0, :, 0]
    # Logistic of -2 ln 9 times 3/2 pixels: 1 / (1 + 9^3) is left outside.
    np.testing.assert_allclose(row[:19], 0.25, atol=1e-3)
    np.testing.assert_allclose(row[21:], 0.5, atol=1e-3)
    self.assertBetween(float(row[19]), 0.25, 0.3)

  def test_softness_of_zero_has_finite_derivatives(self):
    slopes = jax.grad(
      lambda v: _shadow(_flat(5, 8), *v).sum()
    )([0.5, 0.5, 0.0, 0.0])
    self.assertTrue(np.isfinite(slopes).all())

  def test_glare_peaks_at_its_position_and_halves_at_half_its_size(self):
    height, width, size = 101, 201, 0.2
    black = np.zeros((height, width, 1), np.float32)
    # Pixel (row 30, column 120) has its centre there.
    x, y = 120.5 / width, 30.5 / height
    result = _glare(black, 0.8, x, y, size)[..., 0]
    light = -np.log1p(-np.asarray(result, np.float64))
    self.assertEqual(np.unravel_index(light.argmax(), light.shape), (30, 120))
    np.testing.assert_allclose(light.max(), 0.8, rtol=1e-5)
    # The pixel of the formula widens half the size from 20.1 to 20.106.
    along = np.arange(width) - 120.0
    np.testing.assert_allclose(
      np.interp(20.106, along[120:], light[30, 120:]), 0.4, atol=1e-4
    )
    np.testing.assert_allclose(
      light[30], 0.8 / (1 + (2**0.5 - 1) * (along / 20.106) ** 2) ** 2,
      atol=1e-5,
    )

  def test_weak_glare_adds_light_and_strong_glare_is_white(self):
    image = np.random.default_rng(0).random((16, 16, 3)).astype(np.float32)
    weak = _glare(image, 1e-3, 0.5, 0.5, 1e3)
    np.testing.assert_allclose(weak - image, 1e-3 * (1 - image), atol=2e-6)
    strong = _glare(image, 1e3, 0.5, 0.5, 1e3)
    np.testing.assert_allclose(strong, 1, atol=1e-6)

  @parameterized.named_parameters(
    (p.name, p) for p in illumination.PERTURBATIONS
  )
  def test_images_without_channels_are_refused(self, perturbation):
    with self.assertRaisesRegex(ValueError, r'\(H, W, C\), got .*\(4, 5\)'):
      perturbation.function(
        np.zeros((4, 5)), *(p.default for p in perturbation.parameters)
      )


if __name__ == '__main__':
  absltest.main()
