"""Elastic deformation against SciPy and statistics of the fields."""

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from jaxsens.perturbations import elastic
from jaxsens.perturbations import random_fields

_elastic = jax.jit(lambda image, amplitude, sigma, key: elastic.elastic(
  image, amplitude, sigma, key=key
))


def _image(shape=(20, 27, 3), seed=0):
  return np.random.default_rng(seed).random(shape).astype(np.float32)


def _read(image, down, right, mode='reflect'):
  """The image at displaced positions, by SciPy."""
  i, j = np.mgrid[: image.shape[0], : image.shape[1]]
  return np.stack([
    ndimage.map_coordinates(
      image[..., c].astype(float), [i + down, j + right], order=1, mode=mode
    )
    for c in range(image.shape[2])
  ], -1)


def _affine(size, moves):
  """Displacements that undo the affine map of three points, by a solve."""
  height, width = size
  arm = min(size) // 3
  points = np.array([width // 2, height // 2]) + arm * np.array(
    [[1, 1], [1, -1], [-1, -1]]
  )
  back = np.linalg.solve(np.c_[points + moves, np.ones(3)], points)
  y, x = np.mgrid[:height, :width]
  read = np.stack([x, y, np.ones_like(x)], -1) @ back
  return read[..., 1] - y, read[..., 0] - x


class ElasticTest(parameterized.TestCase):

  @parameterized.parameters((20, 27, 3, 2.0), (9, 5, 1, 30.0), (1, 1, 3, 3.0))
  def test_displacing_equals_scipy(self, height, width, channels, spread):
    image = _image((height, width, channels))
    rng = np.random.default_rng(1)
    down, right = spread * rng.standard_normal((2, height, width))
    with jax.enable_x64(True):
      actual = jax.jit(elastic.displace)(image.astype(float), down, right)
    np.testing.assert_allclose(actual, _read(image, down, right), atol=1e-12)

  @parameterized.parameters(
    (20, 27, 3), (8, 5, 1), (300, 5, 1)
  )
  def test_identity_gives_the_image_whatever_the_smoothness(self, *shape):
    image, key = _image(shape), jax.random.key(0)
    for sigma in (0.5, 4.0, 40.0):
      np.testing.assert_array_equal(_elastic(image, 0.0, sigma, key), image)
      moved = np.asarray(_elastic(image, 3.0, sigma, key))
      self.assertTrue(np.isfinite(moved).all())
      self.assertBetween(moved.min(), image.min() - 1e-6, 1)
      self.assertBetween(moved.max(), 0, image.max() + 1e-6)

  def test_fields_have_unit_deviation_and_the_correlation_of_the_filter(self):
    keys = jax.random.split(jax.random.key(1), 4000)
    fields = jax.jit(jax.vmap(
      lambda key: jnp.stack(
        elastic._smooth_fields(key, (16, 20), jnp.float32(2))
      )
    ))(keys)
    at, apart = np.asarray(fields[:, :, 8, 3]), np.asarray(fields[:, :, 8, 7])
    error = 5 * (2 / 4000) ** 0.5
    np.testing.assert_allclose(at.var(0), 1, atol=error)
    np.testing.assert_allclose(at.mean(0), 0, atol=error)
    np.testing.assert_allclose((at * apart).mean(0), np.exp(-1), atol=error)
    # Down and right are independent.
    np.testing.assert_allclose((at[:, 0] * at[:, 1]).mean(), 0, atol=error)

  def test_one_key_gives_one_field_at_every_amplitude(self):
    # A ramp shows the displacement, away from the borders.
    ramp = np.broadcast_to(np.arange(40) / 40, (40, 40))[..., None]
    ramp, key = ramp.astype(np.float32), jax.random.key(2)
    weak, strong = (
      np.asarray(_elastic(ramp, a, 5.0, key) - ramp)[:, 12:-12]
      for a in (0.5, 2.0)
    )
    np.testing.assert_allclose(strong, 4 * weak, atol=1e-5)

  @parameterized.parameters(0.0, 0.5, 2.3, 6.4, 14.0)
  def test_filter_equals_scipy(self, sigma):
    noise = np.random.default_rng(0).random((20, 27))
    with jax.enable_x64(True):
      rows, columns = (
        np.asarray(jax.jit(elastic._filter_matrix, static_argnums=1)(sigma, n))
        for n in noise.shape
      )
    expected = ndimage.gaussian_filter(
      noise, sigma, mode='reflect', truncate=3
    )
    np.testing.assert_allclose(rows @ noise @ columns.T, expected, atol=1e-12)

  @parameterized.parameters((6.4, 1.28, 1.6), (3.2, 0.96, 0.96), (0, 0, 2.56))
  def test_transform_of_imagenet_c_equals_its_steps(
    self, alpha, sigma, affine
  ):
    image, key = _image((32, 32, 3)), jax.random.key(5)
    key_points, key_noise = jax.random.split(key)
    draw = lambda key, shape: 2 * np.asarray(
      random_fields.uniform(key, shape, jnp.float32), float
    ) - 1
    moves = affine * draw(key_points, (3, 2))
    moved = _read(image, *_affine((32, 32), moves))
    fields = [
      alpha * ndimage.gaussian_filter(u, sigma, mode='reflect', truncate=3)
      for u in draw(key_noise, (2, 32, 32))
    ]
    actual = jax.jit(elastic.elastic_transform)(
      image, float(alpha), float(sigma), affine, key=key
    )
    np.testing.assert_allclose(actual, _read(moved, *fields), atol=1e-4)

  def test_points_that_move_right_move_the_picture_right(self):
    image = _image((12, 12, 1))
    down, right = elastic._affine_displacements(
      (12, 12), jnp.array([[3.0, 0.0]] * 3)
    )
    moved = np.asarray(elastic.displace(image, down, right))
    np.testing.assert_allclose(moved[:, 3:], image[:, :-3], atol=1e-5)


if __name__ == '__main__':
  absltest.main()
