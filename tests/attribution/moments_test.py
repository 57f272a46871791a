"""Moments of a heat map and soft overlaps."""

from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from jaxsens.attribution import localisation
from jaxsens.attribution import moments


class MomentsTest(parameterized.TestCase):

  def test_two_pixels_by_hand(self):
    heat_map = jnp.zeros((5, 7)).at[1, 2].set(3.0).at[3, 6].set(1.0)
    heat_map = heat_map.at[0, 0].set(-50.0)
    np.testing.assert_allclose(
      moments.centre_of_mass(heat_map), [1.5, 3.0], rtol=1e-6
    )
    # Distance of the two is sqrt(20): variance 20 p (1 - p).
    np.testing.assert_allclose(
      moments.spread(heat_map), np.sqrt(20 * 0.75 * 0.25), rtol=1e-6
    )
    np.testing.assert_allclose(
      moments.entropy(heat_map), -0.75 * np.log(0.75) - 0.25 * np.log(0.25),
      rtol=1e-6,
    )

  def test_map_without_positive_pixel_counts_as_uniform(self):
    heat_map = -jnp.ones((4, 6))
    np.testing.assert_allclose(moments.centre_of_mass(heat_map), [1.5, 2.5])
    np.testing.assert_allclose(
      moments.entropy(heat_map), np.log(24), rtol=1e-6
    )
    np.testing.assert_allclose(moments.mass_inside(
      heat_map, jnp.zeros((4, 6)).at[:, 0].set(1)
    ), 1 / 6, rtol=1e-6)

  @parameterized.parameters(
    moments.centre_of_mass, moments.spread, moments.entropy,
    lambda m: moments.mass_inside(m, jnp.eye(6)),
    lambda m: moments.soft_dice(m, jnp.eye(6)),
  )
  def test_gradient_equals_finite_differences_also_under_vmap(self, function):
    with jax.enable_x64(True):
      rng = np.random.default_rng(0)
      heat_maps = rng.normal(size=(2, 6, 6))
      direction = rng.normal(size=(6, 6))
      total = lambda m: jnp.sum(function(m))
      found = jax.jit(jax.vmap(jax.grad(total)))(heat_maps)
      for i in range(2):
        step = 1e-6 * direction
        slope = total(heat_maps[i] + step) - total(heat_maps[i] - step)
        np.testing.assert_allclose(
          np.sum(found[i] * direction), slope / 2e-6, rtol=1e-6
        )

  @parameterized.parameters(
    moments.centre_of_mass, moments.spread, moments.entropy,
    lambda m: moments.soft_dice(m, jnp.zeros((5, 5))),
  )
  def test_gradients_of_empty_and_of_one_pixel_maps_are_finite(self, function):
    total = lambda m: jnp.sum(function(m))
    for heat_map in (jnp.zeros((5, 5)), jnp.zeros((5, 5)).at[2, 2].set(1.0)):
      self.assertTrue(np.isfinite(jax.grad(total)(heat_map)).all())

  def test_soft_dice_of_a_binary_map_is_the_dice(self):
    rng = np.random.default_rng(0)
    predicted, mask = rng.random((2, 9, 9)) < 0.4
    expected = localisation.overlap(predicted[None], mask[None]).dice.values[0]
    np.testing.assert_allclose(
      moments.soft_dice(5.0 * predicted, mask), expected, rtol=1e-6
    )
    np.testing.assert_allclose(moments.soft_dice(3.0 * mask, mask), 1)

  def test_mass_inside_is_the_mass_accuracy(self):
    rng = np.random.default_rng(0)
    heat_map, mask = rng.normal(size=(9, 9)), rng.random((9, 9)) < 0.4
    expected = localisation.mass_accuracy(heat_map[None], mask[None]).values[0]
    np.testing.assert_allclose(
      moments.mass_inside(heat_map, mask), expected, rtol=1e-6
    )

  def test_shapes_are_checked(self):
    with self.assertRaisesRegex(ValueError, r'\(2, 3, 3\).*vmap'):
      moments.entropy(np.zeros((2, 3, 3)))
    with self.assertRaisesRegex(ValueError, r'\(3, 3\), got \(3, 4\)'):
      moments.soft_dice(np.zeros((3, 3)), np.zeros((3, 4)))
