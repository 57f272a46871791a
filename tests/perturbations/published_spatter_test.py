"""ImageNet-C's spatter against its formula in NumPy and SciPy, and OpenCV."""

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxsens.perturbations import published_spatter
from jaxsens.perturbations import random_fields

_KEY = jax.random.key(2)


def _image(height, width, channels=3):
  draws = np.random.default_rng(0).random((height, width, channels))
  return (0.8 * draws).astype(np.float32)


def _normal(key, size):
  return np.asarray(random_fields.normal(key, size, jnp.float32), float)


def _splashes(sigma, threshold, size=(60, 50), seed=0):
  """Levels of a liquid as the published program has them."""
  noise = np.random.default_rng(seed).normal(0.65, 0.3, size)
  liquid = ndimage.gaussian_filter(noise, sigma, mode='nearest')
  return np.floor(255 * np.where(liquid < threshold, 0, liquid))


def _relief(distance):
  """The published steps behind the distance, pixel by pixel."""
  box = lambda x: ndimage.uniform_filter(x, 3, mode='mirror')
  whole = np.floor(box(distance) + 1e-4).astype(int)
  counts = np.bincount(whole.ravel(), minlength=21)
  first = counts[np.flatnonzero(counts)[0]]
  table = np.round(255 * (counts.cumsum() - first) / (whole.size - first))
  emboss = [[-2, -1, 0], [-1, 1, 1], [0, 1, 2]]
  level = ndimage.correlate(table[whole], np.float64(emboss), mode='mirror')
  return np.round(box(np.clip(level, 0, 255)))


class PublishedSpatterTest(parameterized.TestCase):

  @parameterized.parameters(1.0, 2.0, 3.0)
  def test_edges_are_those_of_opencv(self, sigma):
    cv2 = pytest.importorskip('cv2')
    levels = _splashes(sigma, 0.66)
    actual = np.asarray(published_spatter.canny(jnp.asarray(levels)))
    levels = levels.astype(np.uint8)
    np.testing.assert_array_equal(actual, cv2.Canny(levels, 150, 150) > 0)
    # The thresholds of the published program.
    published = cv2.Canny(levels, 50, 150) > 0
    self.assertLess((actual != published).mean(), 0.002)

  def test_edge_of_a_step_is_one_pixel_wide_on_its_nearer_side(self):
    levels = np.zeros((7, 8), np.float32)
    levels[:, 4:] = 180
    edges = np.zeros((7, 8), bool)
    edges[:, 3] = True
    np.testing.assert_array_equal(published_spatter.canny(levels), edges)
    np.testing.assert_array_equal(
      published_spatter.canny(levels.T), edges.T
    )
    # Below a slope of 150 (four times the step) there is none.
    self.assertFalse(published_spatter.canny(levels * 37 / 180).any())

  @parameterized.parameters(((40, 33), 0.01), ((9, 70), 0.001), ((1, 5), 0.3))
  def test_distance_is_that_of_scipy_up_to_twenty_pixels(self, size, share):
    edges = np.random.default_rng(1).random(size) < share
    edges[0, 0] = True
    expected = np.minimum(ndimage.distance_transform_edt(~edges), 20)
    np.testing.assert_allclose(
      published_spatter.distance(jnp.asarray(edges)), expected, rtol=1e-6
    )

  def test_mud_is_the_published_formula(self):
    image = _image(40, 33)
    loc, scale, sigma, threshold, blur = 0.65, 0.3, 1.0, 0.65, 1.5
    liquid = ndimage.gaussian_filter(
      loc + scale * _normal(_KEY, (40, 33)), sigma, mode='nearest'
    )
    cover = ndimage.gaussian_filter(
      (liquid > threshold).astype(float), blur, mode='nearest'
    )
    cover = np.where(cover < 0.8, 0, cover)[..., None]
    expected = image * (1 - cover) + cover * np.array([63, 42, 20]) / 255
    actual = jax.jit(published_spatter.imagenet_spatter, static_argnums=6)(
      image, loc, scale, sigma, threshold, blur, True, key=_KEY
    )
    self.assertGreater(cover.mean(), 0.05)
    np.testing.assert_allclose(actual, expected, atol=2e-5)

  def test_water_adds_turquoise_up_to_its_strength_where_the_liquid_is(self):
    image = np.full((48, 48, 3), 0.2, np.float32)
    loc, scale, sigma, threshold, strength = 0.65, 0.3, 2.0, 0.68, 0.6
    liquid = ndimage.gaussian_filter(
      loc + scale * _normal(_KEY, (48, 48)), sigma, mode='nearest'
    )
    added = np.asarray(
      jax.jit(published_spatter.imagenet_spatter, static_argnums=6)(
        image, loc, scale, sigma, threshold, strength, False, key=_KEY
      )
    ) - image
    np.testing.assert_allclose(added[..., 0] * 238 / 175, added[..., 1],
                               atol=1e-6)
    np.testing.assert_allclose(added.max(), strength * 238 / 255, rtol=1e-5)
    np.testing.assert_allclose(added[liquid < threshold - 1e-5], 0, atol=1e-6)

  @parameterized.parameters((3.0, 0.68, 0.6), (2.0, 0.68, 0.5))
  def test_water_is_the_published_formula(self, sigma, threshold, strength):
    image = np.full((60, 50, 3), 0.2, np.float32)
    liquid = ndimage.gaussian_filter(
      0.65 + 0.3 * _normal(_KEY, (60, 50)), sigma, mode='nearest'
    )
    levels = np.floor(255 * np.where(liquid < threshold, 0, liquid))
    edges = np.asarray(published_spatter.canny(jnp.asarray(levels)))
    distance = np.minimum(ndimage.distance_transform_edt(~edges), 20)
    layer = levels * _relief(distance)
    layer = strength * layer / layer.max()
    expected = image + layer[..., None] * np.array([175, 238, 238]) / 255
    actual = jax.jit(published_spatter.imagenet_spatter, static_argnums=6)(
      image, 0.65, 0.3, sigma, threshold, strength, False, key=_KEY
    )
    self.assertGreater(layer.mean(), 0.01)
    # Float32 may round a level of 255 otherwise.
    error = np.abs(actual - np.clip(expected, 0, 1))
    self.assertLess(np.quantile(error, 0.98), 1.5 / 255)
    self.assertLess(error.mean(), 5e-4)

  def test_without_a_splash_the_image_stays(self):
    image = _image(20, 20)
    for mud in (False, True):
      np.testing.assert_array_equal(
        published_spatter.imagenet_spatter(
          image, 0.1, 0.01, 2.0, 0.7, 0.6, mud, key=_KEY
        ), image,
      )

  @parameterized.parameters((1, 1), (1, 6), (6, 1), (30, 3))
  def test_any_size(self, height, width):
    result = published_spatter.imagenet_spatter(
      _image(height, width, 1), 0.65, 0.3, 1.0, 0.6, 0.6, False, key=_KEY
    )
    self.assertEqual(result.shape, (height, width, 1))
    self.assertTrue(np.isfinite(result).all())


if __name__ == '__main__':
  absltest.main()
