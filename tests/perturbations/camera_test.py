"""Cameras and the disturbances in their units."""

import dataclasses

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage
from scipy import special

from jaxsens.perturbations import camera
from jaxsens.perturbations import cameras
from jaxsens.perturbations import sensor_noise

_ALL = camera.PERTURBATIONS + sensor_noise.PERTURBATIONS
_BY_NAME = [(p.name, p) for p in _ALL]
_photograph = jax.jit(cameras.photograph)
_transfer = jax.jit(cameras.transfer)
_speed = jax.jit(camera.object_speed)


def _image(height, width, channels=3, dtype=np.float32):
  draw = np.random.default_rng(height).uniform(
    0.3, 0.7, (height, width, channels)
  )
  return jnp.asarray(draw, dtype)


def _keywords(perturbation, index=0):
  if not perturbation.random:
    return {}
  return {'key': jax.random.fold_in(jax.random.key(0), index)}


class CamerasTest(parameterized.TestCase):

  def test_lens_equation_and_sizes(self):
    c = cameras.INDUSTRIAL
    np.testing.assert_allclose(
      1 / c.distance + 1 / c.image_distance, 1 / c.focal_length
    )
    np.testing.assert_allclose(c.f_number, 4.0)
    # 6.9 um on the sensor at a magnification of 35 / 465.
    np.testing.assert_allclose(c.pixel_on_part, 6.9e-6 * 465 / 35)
    # 1 / (wavelength * f-number * (1 + magnification)) per metre.
    np.testing.assert_allclose(
      c.cutoff, 6.9e-6 / (0.55e-6 * 4 * (1 + 35 / 465))
    )

  def test_far_out_of_focus_is_the_disk_of_ray_optics(self):
    c, shift = cameras.INDUSTRIAL, 0.08
    # Similar triangles behind the lens, in image pixels.
    image_of_part = 1 / (1 / c.focal_length - 1 / (c.distance + shift))
    diameter = c.aperture * abs(c.image_distance / image_of_part - 1) / c.pixel
    frequency = np.array([0.02, 0.035, 0.05])
    argument = np.pi * diameter * frequency
    with jax.enable_x64(True):
      actual = _transfer(c, frequency, 0.0, displacement=shift)
      at_rest = _transfer(c, frequency, 0.0)
    np.testing.assert_allclose(
      actual / at_rest, 2 * special.j1(argument) / argument, atol=0.02
    )

  def test_transfer_is_one_at_zero_and_even(self):
    scene = dict(
      displacement=0.02, rms=1e-4, motion=(3e-4, -1e-4), cn2=1e-9, path=0.5
    )
    u, v = np.array([0.0, 0.1, -0.1]), np.array([0.0, 0.2, -0.2])
    with jax.enable_x64(True):
      value = np.asarray(_transfer(cameras.INDUSTRIAL, u, v, **scene))
    np.testing.assert_allclose(value[0], 1, rtol=1e-12)
    np.testing.assert_allclose(value[1], value[2], rtol=1e-12)
    assert 0 < abs(value[1]) < 1

  def test_light_grows_with_the_square_of_the_aperture(self):
    c = cameras.INDUSTRIAL
    wide = dataclasses.replace(c, aperture=2 * c.aperture)
    np.testing.assert_allclose(wide.light(c), 4.0)
    longer = dataclasses.replace(c, exposure_time=3 * c.exposure_time)
    np.testing.assert_allclose(longer.light(c), 3.0)

  def test_photograph_of_the_nominal_camera_is_the_image(self):
    image = _image(12, 9)
    actual = _photograph(image, cameras.INDUSTRIAL)
    np.testing.assert_allclose(actual, image, atol=1e-6)

  def test_photograph_agrees_with_the_single_disturbances(self):
    image = _image(20, 16)
    c = cameras.INDUSTRIAL
    at_rest = dict(
      displacement=0.0, rms=0.0, motion=(0.0, 0.0), cn2=0.0, path=0.5
    )
    photograph = lambda camera, **scene: _photograph(
      image, camera, **(at_rest | scene)
    )
    for actual, expected in (
      (photograph(c, rms=150e-6),
       jax.jit(camera.vibration)(image, 150.0)),
      (photograph(c, displacement=0.02),
       jax.jit(camera.defocus_distance)(image, 20.0)),
      (photograph(
        dataclasses.replace(c, aperture=c.focal_length / 11)
      ), jax.jit(camera.aperture)(image, 11.0)),
      (photograph(
        c, motion=(4e-4 * np.cos(0.5), -4e-4 * np.sin(0.5))
      ), jax.jit(camera.object_speed)(image, 100.0, np.rad2deg(0.5), 4.0)),
      (photograph(c, cn2=2e-9, path=0.5),
       jax.jit(camera.turbulence)(image, 2.0)),
    ):
      # The extra transfer is regularised where the nominal one is small.
      np.testing.assert_allclose(actual, expected, atol=3e-4)
      assert np.abs(expected - image).max() > 0.02

  def test_photograph_differentiates_in_every_number_of_the_camera(self):
    with jax.enable_x64(True):
      image = _image(10, 8, dtype=np.float64)
      base = jax.tree.map(jnp.float64, cameras.INDUSTRIAL)
      both = jax.jit(jax.value_and_grad(lambda c: jnp.sum(
        _photograph(image, c, displacement=0.02, rms=5e-5) ** 2
      )))
      total = lambda c: both(c)[0]
      slopes = both(base)[1]
      for name in (
        'focal_length', 'aperture', 'pixel_pitch', 'binning', 'wavelength',
        'distance',
      ):
        value = getattr(base, name)
        step = 1e-5 * value
        up = total(dataclasses.replace(base, **{name: value + step}))
        down = total(dataclasses.replace(base, **{name: value - step}))
        np.testing.assert_allclose(
          getattr(slopes, name), (up - down) / (2 * step), rtol=1e-5
        )

  @parameterized.parameters(
    ('aperture', -1.0, 'aperture must be positive'),
    ('distance', 0.03, 'beyond the focal length'),
    ('full_well', float('nan'), 'full_well must be positive'),
  )
  def test_impossible_cameras_are_refused(self, name, value, message):
    with self.assertRaisesRegex(ValueError, message):
      dataclasses.replace(cameras.INDUSTRIAL, **{name: value})


class DisturbancesTest(parameterized.TestCase):

  @parameterized.named_parameters(*_BY_NAME)
  def test_identity_gives_a_gray_image_back_whatever_the_others(self, p):
    apply = jax.jit(lambda image, *values: p.function(
      image, *values, **_keywords(p)
    ))
    image = _image(13, 8, 1).at[0, :2, 0].set(jnp.array([0, 1.0]))
    for others in (
      [q.default for q in p.others], [q.sensible_range[1] for q in p.others],
    ):
      actual = apply(image, p.identity, *others)
      np.testing.assert_array_equal(actual, image)

  @parameterized.named_parameters(*_BY_NAME)
  def test_results_of_long_images_stay_in_range_at_the_ends(self, p):
    apply = jax.jit(lambda image, *v: p.function(image, *v, **_keywords(p)))
    rng = np.random.default_rng(0)
    image = jnp.asarray(rng.integers(0, 2, (600, 3, 1)), jnp.float32)
    for end in (0, 1):
      for ranges in ('sensible_range', 'limits'):
        main = getattr(p, ranges)[end]
        actual = apply(image, main, *[q.default for q in p.others])
        assert actual.shape == image.shape
        assert np.isfinite(actual).all()
        assert actual.min() >= 0 and actual.max() <= 1

  def test_vibration_equals_scipy_ndimage(self):
    image = np.asarray(_image(30, 24))
    sigma = 200e-6 / cameras.INDUSTRIAL.pixel_on_part
    expected = ndimage.gaussian_filter(
      image, (sigma, sigma, 0), mode='reflect', truncate=8
    )
    np.testing.assert_allclose(
      jax.jit(camera.vibration)(image, 200.0), expected, atol=1e-4
    )

  def test_speed_along_x_leaves_columns_alone_and_90_degrees_rows(self):
    rows = jnp.broadcast_to(_image(20, 1), (20, 16, 3))
    moved = _speed(rows, 300.0, 0.0)
    np.testing.assert_allclose(moved, rows, atol=1e-5)
    assert np.abs(_speed(rows, 300.0, 90.0) - rows).max() > 0.05

  def test_speed_at_45_degrees_smears_upwards_to_the_right(self):
    point = jnp.zeros((33, 33, 1)).at[16, 16].set(1.0)
    smeared = np.asarray(_speed(point, 400.0, 45.0))[..., 0]
    assert smeared[14, 18] > 10 * abs(smeared[18, 18])
    np.testing.assert_allclose(smeared[14, 18], smeared[18, 14], atol=1e-6)

  def test_smaller_aperture_is_sharper_out_of_focus(self):
    image = _image(24, 24)
    defocus = jax.jit(camera.defocus_distance)
    spread = [
      float(jnp.std(defocus(image, 20.0, n)))
      for n in (2.8, 4.0, 8.0)
    ]
    assert spread[0] < spread[1] < spread[2]

  def test_catalogue_is_complete(self):
    for p in _ALL:
      assert p.family == 'camera physics' and p.happens and p.caveats
      assert 3 <= len(p.symptoms) <= 5
      assert p.limits[0] <= p.identity <= p.limits[1]
      for other in p.others:
        assert other.name.startswith(p.name + '_')
        assert other.limits[0] <= other.default <= other.limits[1]
    names = [q.name for p in _ALL for q in p.parameters]
    assert len(set(names)) == len(names)


if __name__ == '__main__':
  absltest.main()
