"""Lens distortion against its formula in NumPy and scipy's interpolation."""

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from jaxsens.perturbations import distortions
from jaxsens.perturbations import geometry


def _pull(x, y, k1, k2, size):
  height, width = size
  x, y = x - width / 2, y - height / 2
  square = (x**2 + y**2) / (np.hypot(height, width) / 2) ** 2
  factor = 1 + k1 * square + k2 * square**2
  return x * factor + width / 2, y * factor + height / 2


class DistortionsTest(parameterized.TestCase):

  @parameterized.product(
    k1=[-0.15, 0.4], k2=[-0.1, 0.05], size=[(17, 40), (3, 1)],
    fill_mode=[('edge', 'nearest'), ('reflect', 'reflect')],
  )
  def test_image_equals_interpolation_at_the_polynomial(
    self, k1, k2, size, fill_mode
  ):
    fill, mode = fill_mode
    image = np.random.default_rng(0).random((*size, 1)).astype(np.float32)
    y, x = np.mgrid[0:size[0], 0:size[1]] + 0.5
    x, y = _pull(x, y, k1, k2, size)
    expected = ndimage.map_coordinates(
      image[..., 0], [y - 0.5, x - 0.5], order=1, mode=mode
    )
    lens = distortions.radial(k1, k2, size)
    actual = jax.jit(
      lambda image, lens: geometry.transform(image, lens, fill=fill)
    )(image, lens)
    np.testing.assert_allclose(actual[..., 0], expected, atol=2e-5)

  def test_second_coefficient_of_the_lens_is_a_share_of_the_first(self):
    np.testing.assert_allclose(
      distortions.lens(0.2, -0.5, (8, 8)).parameters, [0.2, -0.1], rtol=1e-6
    )

  @parameterized.product(k1=[-0.18, 0.45], share=[-1.0, 0.0, 0.5])
  def test_lens_is_one_to_one_within_its_limits(self, k1, share):
    radius = np.linspace(0, 1, 1001)
    entry, = distortions.PERTURBATIONS
    self.assertIn(k1, entry.limits)
    moved = radius * (1 + k1 * (radius**2 + share * radius**4))
    self.assertGreater(np.diff(moved).min(), 0)

  def test_barrel_leaves_the_corners_black_and_pincushion_does_not(self):
    image = np.ones((32, 32, 1), np.float32)
    barrel, pincushion = (
      np.asarray(geometry.transform(image, distortions.lens(k1, 0., (32, 32))))
      for k1 in (0.3, -0.15)
    )
    self.assertEqual(barrel[0, 0], 0)
    self.assertGreater(barrel[16].mean(), 0.85)
    np.testing.assert_array_equal(pincushion, 1)

  def test_batches_of_coefficients_equal_a_loop(self):
    image = np.random.default_rng(2).random((16, 12, 3)).astype(np.float32)
    shown = jax.jit(lambda k1: geometry.transform(
      image, distortions.lens(k1, 0.1, (16, 12))
    ))
    values = jnp.array([-0.1, 0.0, 0.2])
    np.testing.assert_allclose(
      jax.vmap(shown)(values), jnp.stack([shown(k) for k in values]), atol=1e-6
    )

  def test_points_far_outside_stay_finite_beyond_a_horizon(self):
    # The denominator passes through zero inside the picture.
    pull = jnp.array([[1.0, 0, 0], [0, 1, 0], [0, -0.04, 1]])
    maps = [distortions.radial(0.45, -0.4, (50, 50)), pull]
    image = np.random.default_rng(3).random((50, 50, 1))
    for fill in (0.25, 'edge', 'reflect'):
      out = np.asarray(jax.jit(
        lambda maps, fill=fill: geometry.transform(image, maps, fill=fill)
      )(maps))
      self.assertTrue(np.isfinite(out).all())
      self.assertLessEqual(out.max(), image.max())


if __name__ == '__main__':
  absltest.main()
