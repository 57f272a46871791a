"""ImageNet-C's weather against its formulas in NumPy and SciPy."""

import math

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from jaxsens.perturbations import published_weather
from jaxsens.perturbations import random_fields
from tests.oracles import diamond_square

_KEY = jax.random.key(2)


def _image(height, width, channels=3):
  draws = np.random.default_rng(0).random((height, width, channels))
  return (0.8 * draws).astype(np.float32)


def _normal(key, size):
  return np.asarray(random_fields.normal(key, size, jnp.float32), float)


def _snow_layer(noise, zoom, threshold, radius, sigma, angle):
  """The published steps, in float and without rounding to 8 bits."""
  height, width = noise.shape
  rows, columns = (math.ceil(n / zoom) for n in noise.shape)
  top, left = (height - rows) // 2, (width - columns) // 2
  layer = ndimage.zoom(
    noise[top:top + rows, left:left + columns], zoom, order=1
  )
  layer = np.where(layer < threshold, 0, np.clip(layer, 0, 1))
  steps = np.arange(2 * radius + 1)
  weights = np.exp(-steps**2 / (2 * sigma**2))
  smeared = np.zeros_like(layer)
  for step, weight in zip(steps, weights / weights.sum(), strict=True):
    dy, dx = (
      -math.ceil(step * f(np.deg2rad(angle)) - 0.5) for f in (np.sin, np.cos)
    )
    y = np.clip(np.arange(layer.shape[0]) - dy, 0, layer.shape[0] - 1)
    x = np.clip(np.arange(layer.shape[1]) - dx, 0, layer.shape[1] - 1)
    smeared += weight * layer[np.ix_(y, x)]
  return smeared[:height, :width]


class PublishedWeatherTest(parameterized.TestCase):

  @parameterized.parameters(((32, 20), 1.5, 2.0), ((17, 17), 0.75, 2.5))
  def test_fog_is_the_published_formula(self, size, amplitude, decay):
    image = _image(*size)
    draws = 2 * np.asarray(
      random_fields.uniform(_KEY, (32, 32), jnp.float32), float
    ) - 1
    cloud = diamond_square.plasma(draws, decay)[:size[0], :size[1], None]
    peak = image.max()
    expected = np.clip(
      (image + amplitude * cloud) * peak / (peak + amplitude), 0, 1
    )
    actual = jax.jit(published_weather.imagenet_fog)(
      image, amplitude, decay, key=_KEY
    )
    np.testing.assert_allclose(actual, expected, atol=3e-6)

  def test_fog_of_amplitude_zero_is_the_identity_on_a_black_image(self):
    image = np.zeros((4, 4, 3), np.float32)
    actual = published_weather.imagenet_fog(image, 0.0, 2.0, key=_KEY)
    np.testing.assert_array_equal(actual, image)

  @parameterized.parameters(
    ((48, 40), (0.1, 0.3, 3, 0.5, 10, 4, 0.8)),
    ((31, 33), (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65)),
    ((32, 32), (0.2, 0.2, 1, 0.6, 8, 3, 0.95)),
  )
  def test_snow_is_the_published_formula(self, size, parameters):
    loc, scale, zoom, threshold, radius, sigma, mix = parameters
    image = _image(*size)
    key_noise, key_angle = jax.random.split(_KEY)
    angle = jax.random.uniform(key_angle, (), jnp.float32, -135, -45)
    layer = _snow_layer(
      loc + scale * _normal(key_noise, size), zoom, threshold, radius, sigma,
      float(angle),
    )[..., None]
    gray = image @ np.array([[0.299], [0.587], [0.114]])
    white = np.maximum(image, 1.5 * gray + 0.5)
    expected = mix * image + (1 - mix) * white + layer + layer[::-1, ::-1]
    actual = jax.jit(published_weather.imagenet_snow)(
      image, *parameters, key=_KEY
    )
    # A pixel at the threshold may fall on either side of it in float32.
    different = np.abs(actual - np.clip(expected, 0, 1)).max(-1) > 1e-4
    self.assertLess(different.mean(), 0.005)
    self.assertGreater(layer.max(), 0.05)

  def test_frost_is_affine_in_the_image_until_it_saturates(self):
    frost = jax.jit(published_weather.imagenet_frost)
    image = _image(24, 20)
    texture = frost(0 * image, 1.0, 0.4, key=_KEY)
    expected = np.clip(0.7 * image + texture, 0, 1)
    actual = frost(image, 0.7, 0.4, key=_KEY)
    np.testing.assert_allclose(actual, expected, atol=1e-6)

  def test_frost_has_the_colours_of_the_published_photographs(self):
    # Means of the five pictures; the red of the first varies the most.
    photographs = np.array([
      (0.304, 0.581, 0.645), (0.775, 0.792, 0.828), (0.775, 0.792, 0.828),
      (0.564, 0.622, 0.672), (0.395, 0.440, 0.486),
    ])
    black = np.zeros((48, 48, 3), np.float32)
    frost = jax.jit(jax.vmap(lambda key: published_weather.imagenet_frost(
      black, 1.0, 1.0, key=key
    )))
    textures = np.asarray(frost(jax.random.split(_KEY, 100)))
    means = textures.mean((1, 2))
    distances = np.linalg.norm(means[:, None] - photographs, axis=-1)
    self.assertLess(distances.min(1).max(), 0.03)
    # A fifth each, two fifths for the one that is there twice.
    drawn = np.bincount(distances.argmin(1), minlength=5) / 100
    np.testing.assert_allclose(drawn, [0.2, 0.4, 0, 0.2, 0.2], atol=0.15)
    first = textures[distances.argmin(1) == 0].std((1, 2)).mean(0)
    np.testing.assert_allclose(first, [0.108, 0.064, 0.058], rtol=0.1)


if __name__ == '__main__':
  absltest.main()
