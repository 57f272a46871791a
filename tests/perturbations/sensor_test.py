"""The sensor against Pillow, closed forms and frequencies."""

import functools
import inspect

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from jaxsens.perturbations import sensor

_BY_NAME = {p.name: p for p in sensor.PERTURBATIONS}
_SMOOTH = [p.name for p in sensor.PERTURBATIONS if p.differentiable]
_pixelate = jax.jit(sensor.pixelate)
_pixelate_to_scale = jax.jit(sensor.pixelate_to_scale)


def _image(shape=(9, 7, 3), seed=0):
  return np.random.default_rng(seed).random(shape).astype(np.float32)


def _apply(name, image, values, key):
  draws = {'key': key} if _BY_NAME[name].random else {}
  return _BY_NAME[name].function(image, *values, **draws)


@functools.cache
def _jitted(name):
  return jax.jit(lambda *args: _apply(name, *args))


def _values(name, main):
  return (main, *(p.default for p in _BY_NAME[name].others))


class SensorTest(parameterized.TestCase):

  @parameterized.product(
    name=list(_BY_NAME), shape=[(9, 7, 3), (8, 5, 1)]
  )
  def test_identity_gives_the_image_and_values_stay_in_range(
    self, name, shape
  ):
    image, key = _image(shape), jax.random.key(0)
    for end in (0, 1):
      others = [p.sensible_range[end] for p in _BY_NAME[name].others]
      np.testing.assert_array_equal(
        _jitted(name)(image, (0.0, *others), key), image
      )
    heavy = np.asarray(
      _jitted(name)(image, _values(name, _BY_NAME[name].limits[1]), key)
    )
    self.assertEqual(heavy.dtype, np.float32)
    self.assertTrue(((heavy > -1e-6) & (heavy < 1 + 1e-6)).all())

  def test_names_of_the_parameters_match_the_arguments(self):
    for name, entry in _BY_NAME.items():
      arguments = inspect.signature(entry.function).parameters.values()
      positional = [a for a in arguments if a.kind != a.KEYWORD_ONLY]
      self.assertLen(positional, 1 + len(entry.parameters), name)
      self.assertTrue(all(p.name.startswith(name) for p in entry.others))

  def test_row_banding_is_a_sine_of_the_gain(self):
    image = np.full((16, 3, 1), 0.5, np.float32)
    banded = np.asarray(sensor.row_banding(image, 0.2, 8.0, 90.0))
    # Period 8 from a crest at the upper edge, at the centres of the rows.
    y = np.arange(16) + 0.5
    expected = 0.5 + 0.1 * np.cos(np.pi * y / 4)
    np.testing.assert_allclose(banded[:, 1, 0], expected, atol=1e-6)

  def test_row_noise_moves_whole_rows_by_its_deviation(self):
    image = np.full((4000, 2, 3), 0.5, np.float32)
    moves = np.asarray(sensor.row_noise(image, 0.05, key=jax.random.key(0)))
    moves = (moves - 0.5) / 0.05
    np.testing.assert_array_equal(moves, np.broadcast_to(
      moves[:, :1, :1], moves.shape
    ))
    rows = moves[:, 0, 0]
    self.assertLess(abs(rows.mean()), 5 / len(rows) ** 0.5)
    self.assertLess(abs(rows.var() - 1), 5 * (2 / len(rows)) ** 0.5)

  @parameterized.parameters((0.02, 0.5), (0.3, 0.2), (0.3, 1.0), (1.0, 0.0))
  def test_dead_pixels_are_black_or_white_in_all_channels(self, share, hot):
    image = np.full((200, 150, 3), 0.5, np.float32)
    stuck = np.asarray(
      sensor.dead_pixels(image, share, hot, key=jax.random.key(0))
    )
    self.assertTrue((stuck == stuck[..., :1]).all())
    for level, p in ((0, share * (1 - hot)), (1, share * hot)):
      error = (p * (1 - p) / image[..., 0].size) ** 0.5
      self.assertLessEqual(
        abs((stuck[..., 0] == level).mean() - p), 5 * error
      )
    more = np.asarray(sensor.dead_pixels(
      image, min(1.5 * share, 1), hot, key=jax.random.key(0)
    ))
    np.testing.assert_array_equal(more[stuck != 0.5], stuck[stuck != 0.5])

  @parameterized.parameters(1, 2, 4, 8)
  def test_quantisation_to_bits_has_the_levels_of_rounding(self, bits):
    image, top = _image(), 2**bits - 1
    np.testing.assert_allclose(
      sensor.quantisation(image, 1 / top), np.round(image * top) / top,
      atol=1e-6,
    )

  @parameterized.product(
    size=[(32, 32), (224, 224)],
    scale=[0.95, 0.9, 0.85, 0.75, 0.65, 0.6, 0.5, 0.4, 0.3, 0.25],
  )
  def test_pixelation_to_a_scale_is_that_of_pillow(self, size, scale):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    small = [int(n * scale) for n in size[::-1]]
    expected = Image.fromarray(pixels).resize(small, Image.Resampling.BOX)
    expected = expected.resize(size[::-1], Image.Resampling.NEAREST)
    actual = 255 * np.asarray(
      _pixelate_to_scale(pixels.astype(np.float32) / 255, scale)
    )
    # Pillow rounds to eight bits after either axis.
    self.assertLess(abs(actual - np.asarray(expected)).max(), 1.001)

  @parameterized.parameters(2, 4, 8)
  def test_whole_blocks_have_their_means(self, side):
    image = _image((16, 24, 3))
    means = image.reshape(16 // side, side, 24 // side, side, 3).mean((1, 3))
    np.testing.assert_allclose(
      _pixelate(image, 1 - 1 / side),
      means.repeat(side, 0).repeat(side, 1), atol=1e-6,
    )

  @parameterized.parameters(0.13, 0.37, 0.6, 0.81, 0.99)
  def test_pixelation_weights_blocks_by_area(self, loss):
    # Slow reference: blocks of one axis, from samples 1 / 1000 pixels apart.
    size, fine = 11, 1000
    row = _image((1, size, 1))
    x = (np.arange(size * fine) + 0.5) / fine
    block = np.floor(x * (1 - loss)).astype(int)
    samples = row[0, :, 0].repeat(fine)
    means = np.bincount(block, samples) / np.bincount(block)
    expected = means[block].reshape(size, fine).mean(1)
    np.testing.assert_allclose(
      _pixelate(row, loss)[0, :, 0], expected, atol=2e-3
    )

  def test_pixelation_is_continuous_and_keeps_the_mean(self):
    image = _image((16, 12, 1))
    losses = np.linspace(0, 0.9, 901, dtype=np.float32)
    images = np.asarray(jax.vmap(_pixelate, (None, 0))(image, losses))
    self.assertLess(abs(np.diff(images, axis=0)).max(), 0.1)
    np.testing.assert_allclose(
      images.mean((1, 2, 3)), image.mean(), rtol=1e-5
    )

  @parameterized.parameters(0.0, 0.5, 0.75)
  def test_slope_of_pixelation_at_a_kink_is_that_to_the_right(self, loss):
    with jax.enable_x64(True):
      image = jnp.asarray(_image((6, 5, 1)), jnp.float64)
      total = jax.jit(lambda v: (sensor.pixelate(image, v) * image).sum())
      right = (total(loss + 1e-7) - total(loss)) / 1e-7
      np.testing.assert_allclose(
        jax.jit(jax.grad(total))(loss), right, rtol=1e-5
      )

  def test_long_image_is_pixelated(self):
    image = _image((3000, 50, 1))
    result = np.asarray(_pixelate(image, 0.5))
    np.testing.assert_allclose(
      result[-2:, -2:, 0], image[-2:, -2:].mean(), atol=1e-5
    )


if __name__ == '__main__':
  absltest.main()
