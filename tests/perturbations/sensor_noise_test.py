"""Noise in electrons against the laws that it stands for."""

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from jaxsens.perturbations import cameras
from jaxsens.perturbations import sensor_noise

_SIDE = 160
_SENSOR = dict(white=400.0, full_well=500.0, read_noise=5.0)


def _variance_error(variance):
  """Five standard errors of the variance of _SIDE² normal numbers."""
  return 5 * variance * np.sqrt(2 / _SIDE**2)


class SensorNoiseTest(parameterized.TestCase):

  @parameterized.parameters(0.7, 0.25)
  def test_added_noise_completes_that_of_the_capture(self, light):
    # Noise of the first capture, scaled with it, plus what is added is the
    # noise of a capture with less light: shot and read noise in electrons.
    level, gain = 0.5, 1 / light
    image = jnp.full((_SIDE, _SIDE, 1), level)
    again = sensor_noise.capture_again(
      image, light, gain, key=jax.random.key(1), **_SENSOR
    )
    electrons = level * _SENSOR['white']
    first = (electrons + 25.0) * light**2
    expected = (electrons * light + 25.0 - first) * (gain / 400.0) ** 2
    np.testing.assert_allclose(again.mean(), level, atol=5 * np.sqrt(
      expected
    ) / _SIDE)
    np.testing.assert_allclose(
      again.var(), expected, atol=_variance_error(expected)
    )

  def test_more_light_adds_no_noise_and_saturates(self):
    image = jnp.linspace(0, 1, 30).reshape(5, 6, 1)
    again = sensor_noise.capture_again(
      image, 2.0, 1.0, key=jax.random.key(0), **_SENSOR
    )
    np.testing.assert_allclose(again, np.minimum(2 * image, 1), rtol=1e-6)
    # A well of 500 electrons at a quarter of the gain is 500 / 400 / 4.
    again = sensor_noise.capture_again(
      image, 4.0, 0.25, key=jax.random.key(0), **_SENSOR
    )
    np.testing.assert_allclose(again, np.minimum(image, 0.3125), rtol=1e-6)

  @parameterized.parameters(False, True)
  def test_capture_has_the_moments_of_shot_and_read_noise(self, exact):
    image = jnp.full((_SIDE, _SIDE, 1), 0.5)
    shown = sensor_noise.capture(
      jax.random.key(2), image, dark=30.0, light=0.8, gain=1.1, exact=exact,
      **_SENSOR
    )
    electrons = 0.5 * 0.8 * 400
    mean = electrons * 1.1 / 400
    variance = (electrons + 30 + 25) * (1.1 / 400) ** 2
    np.testing.assert_allclose(
      shown.mean(), mean, atol=5 * np.sqrt(variance) / _SIDE
    )
    np.testing.assert_allclose(
      shown.var(), variance, atol=_variance_error(variance)
    )

  def test_exact_capture_without_read_noise_counts_electrons(self):
    shown = sensor_noise.capture(
      jax.random.key(3), jnp.full((20, 20, 1), 0.02), white=400.0,
      full_well=500.0, read_noise=0.0, exact=True,
    )
    counts = np.asarray(shown) * 400
    np.testing.assert_allclose(counts, np.round(counts), atol=1e-4)
    assert len(np.unique(np.round(counts))) > 5

  def test_bit_depth_leaves_so_many_levels(self):
    image = jnp.linspace(0, 1, 4000).reshape(40, 100, 1)
    shown = sensor_noise.capture(
      jax.random.key(4), image, bit_depth=4, **_SENSOR
    )
    np.testing.assert_allclose(
      np.unique(shown), np.arange(16) / 15, atol=1e-6
    )

  def test_same_key_gives_the_same_field_at_every_setting(self):
    image = jnp.full((8, 8, 1), 0.5)
    noise = lambda decibels: np.asarray(sensor_noise.sensor_gain(
      image, decibels, key=jax.random.key(5)
    )) - 0.5
    weak, strong = noise(12.0), noise(24.0)
    assert np.corrcoef(weak.ravel(), strong.ravel())[0, 1] > 1 - 1e-5
    assert strong.std() > weak.std() > 0
    other = sensor_noise.sensor_gain(image, 24.0, key=jax.random.key(6)) - 0.5
    assert abs(np.corrcoef(other.ravel(), strong.ravel())[0, 1]) < 0.5

  def test_stops_and_decibels_are_factors_of_light(self):
    image = jnp.full((4, 4, 1), 0.2)
    key = jax.random.key(0)
    np.testing.assert_allclose(
      sensor_noise.exposure_time(image, 1.5, key=key), 0.2 * 2**1.5, rtol=1e-6
    )
    np.testing.assert_allclose(
      sensor_noise.sensor_gain(image, 6.0, 0.0, key=key), 0.2 * 10**0.3,
      rtol=1e-6,
    )
    # 6.0206 dB at half the light is a stop taken back by the gain.
    np.testing.assert_allclose(
      sensor_noise.sensor_gain(image, 20 * np.log10(2), key=key),
      sensor_noise.exposure_time(image, -1.0, 1.0, key=key), rtol=1e-5,
    )

  def test_binned_pixels_hold_the_electrons_of_four(self):
    c = cameras.INDUSTRIAL
    np.testing.assert_allclose(c.white, 4 * 0.9 * 10500)
    image = jnp.full((_SIDE, _SIDE, 1), 0.5)
    shown = sensor_noise.exposure_time(image, -3.0, key=jax.random.key(7))
    light = 1 / 8
    expected = (
      light * (1 - light) * 0.5 * c.white
      + (1 - light**2) * (c.read_noise * 2) ** 2
    ) / c.white**2
    np.testing.assert_allclose(
      shown.var(), expected, atol=_variance_error(expected)
    )


if __name__ == '__main__':
  absltest.main()
