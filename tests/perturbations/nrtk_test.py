"""Camera physics, haze and distortion against NRTK 1.1 and pyBSM 0.16.

NRTK works on images of 8 bits. Its optical perturbers turn a transfer function
into a point spread function that is

- sampled at the centres of the pixels, not integrated over them, so that a
  spread narrower than two pixels aliases;
- read off a grid of 1501 points with the pixel rounded so that a whole number
  of pixels fits; where that number is even the kernel is off by half a pixel;
- cut to the smallest window that holds 95 % and scaled up to 100 %;
- applied with mirrored borders, and the result is cut to whole levels.

Here the grid, the pixel and the band (one wavelength) are chosen so that the
number is odd and nothing is resampled: one pixel of the image is one pixel of
the sensor. What is left is the cut of 95 %, which shows where the spread has
wide wings (aperture, turbulence), and the levels (half a level on average).

NRTK's defocus is a Gaussian and not that of a lens; it has its own test.
"""

from absl.testing import parameterized
import chaospy
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxsens import factors
from jaxsens.perturbations import camera
from jaxsens.perturbations import cameras
from jaxsens.perturbations import chains
from jaxsens.perturbations import optics
from jaxsens.perturbations import weather

_FOCAL_LENGTH, _PITCH, _WAVELENGTH = 35e-3, 1e-6, 0.55e-6
_PIXEL_ANGLE = _PITCH / _FOCAL_LENGTH
_INTERIOR = (slice(24, -24),) * 2
# Odd numbers of pixels over the grid of NRTK.
_SHARP, _WIDE_OPEN = 1.003, 2.0


def _scene(size=160):
  """A picture with the spectrum of a photograph and an edge, 8 bits."""
  rng = np.random.default_rng(0)
  u, v = np.meshgrid(*[np.fft.fftfreq(size)] * 2)
  decay = 1 / np.maximum(np.hypot(u, v), 1 / size)
  waves = np.fft.ifft2(
    np.fft.fft2(rng.normal(size=(3, size, size))) * decay
  ).real
  picture = 0.5 + 0.15 * (waves / waves.std()).transpose(1, 2, 0)
  picture[size // 2:, size // 3:] *= 0.6
  return np.uint8(np.round(np.clip(picture, 0, 1) * 255))


def _camera(f_number, pitch=_PITCH):
  """A camera far from the part: the angles at the lens are those of NRTK."""
  return cameras.Camera(
    focal_length=_FOCAL_LENGTH, aperture=_FOCAL_LENGTH / f_number,
    pixel_pitch=pitch, binning=1, wavelength=_WAVELENGTH, distance=1e4,
    exposure_time=1e-3, quantum_efficiency=1.0, full_well=1e4, white_share=1.0,
    read_noise=1.0, dark_current=1.0,
  )


def _simulate(name, scene, f_number, distance=250.0, **settings):
  """Returns the picture of an NRTK perturber before and after its rounding."""
  otf = pytest.importorskip(
    'nrtk.impls.perturb_image.optical.otf', exc_type=ImportError
  )
  pytest.importorskip('pybsm')
  perturber = getattr(otf, name)(
    p_x=_PITCH, f=_FOCAL_LENGTH, ground_range=0, altitude=distance,
    opt_trans_wavelengths=np.array([-1e-9, 1e-9]) + _WAVELENGTH,
    D=_FOCAL_LENGTH / f_number, **settings,
  )
  step = distance * _PIXEL_ANGLE
  levels, _ = perturber(image=scene, img_gsd=step)
  _, exact, _ = perturber._simulator.simulate_image(
    scene.astype(float), gsd=step
  )
  return exact / 255, levels / 255


def _mean_levels(actual, expected):
  """Mean absolute difference inside, in levels of 255."""
  error = np.abs(np.asarray(actual, float) - expected)[_INTERIOR]
  return 255 * error.mean()


class OpticsTest(parameterized.TestCase):

  def _check(self, actual, simulated, bound):
    exact, levels = simulated
    self.assertLess(_mean_levels(actual, exact), bound)
    # Cut to whole levels: half a level more.
    self.assertLess(_mean_levels(actual, levels), bound + 0.5)

  @parameterized.parameters(1.0, 2.0, 4.0)
  def test_vibration_equals_jitter(self, pixels):
    scene = _scene()
    angle = pixels * _PIXEL_ANGLE
    lens = _camera(_WIDE_OPEN)
    actual = camera.vibration(
      jnp.float32(scene / 255), 1e6 * pixels * lens.pixel_on_part, camera=lens
    )
    simulated = _simulate(
      'JitterPerturber', scene, _WIDE_OPEN, s_x=angle, s_y=angle
    )
    self.assertGreater(_mean_levels(scene / 255, simulated[0]), 2)
    self._check(actual, simulated, 0.4)

  @parameterized.parameters(3.0, 5.0, 9.0)
  def test_pixel_pitch_equals_the_detector_of_larger_pixels(self, pitch):
    scene = _scene()
    nominal, _ = _simulate(
      'DetectorPerturber', scene, _SHARP, w_x=_PITCH, w_y=_PITCH
    )
    actual = camera.pixel_pitch(
      jnp.float32(nominal), pitch, camera=_camera(_SHARP)
    )
    simulated = _simulate(
      'DetectorPerturber', scene, _SHARP, w_x=pitch * _PITCH,
      w_y=pitch * _PITCH,
    )
    self._check(actual, simulated, 0.4)

  @parameterized.parameters(16.003, 32.003)
  def test_aperture_equals_the_circular_aperture(self, f_number):
    scene = _scene()
    band = {'mtf_wavelengths': [_WAVELENGTH], 'mtf_weights': [1.0]}
    nominal, _ = _simulate('CircularAperturePerturber', scene, 8.003, **band)
    actual = camera.aperture(
      jnp.float32(nominal), f_number, camera=_camera(8.003)
    )
    simulated = _simulate('CircularAperturePerturber', scene, f_number, **band)
    # Wings of an Airy disk beyond 95 %.
    self._check(actual, simulated, 1.4)

  @parameterized.parameters(3e-10, 1e-9)
  def test_turbulence_equals_that_of_a_long_exposure(self, cn2):
    scene, path = _scene(), 2.0
    simulated = _simulate(
      'TurbulenceAperturePerturber', scene, _WIDE_OPEN, distance=path,
      slant_range=path, cn2_at_1m=cn2, mtf_wavelengths=[_WAVELENGTH],
      mtf_weights=[1.0], ha_wind_speed=0.0, int_time=1.0, n_tdi=1.0,
      # Wind that averages all: no short exposure.
      aircraft_speed=1e9,
    )
    # Hufnagel and Valley's profile falls by 2 % over two metres.
    height = np.linspace(0, path, 201)
    profile = 2.7e-16 * np.exp(-height / 1500) + cn2 * np.exp(-height / 100)
    weight = (height / path) ** (5 / 3)
    mean = (profile * weight).sum() / weight.sum()
    actual = camera.turbulence(
      jnp.float32(scene / 255), mean * 1e9, path, camera=_camera(_WIDE_OPEN)
    )
    self._check(actual, simulated, 1.0)

  def test_its_defocus_is_a_gaussian_of_the_radius_over_the_root_of_eight(self):
    scene, pixels = _scene(), 6.0
    angle = pixels * _PIXEL_ANGLE
    simulated = _simulate(
      'DefocusPerturber', scene, _WIDE_OPEN, w_x=angle, w_y=angle
    )
    actual = optics.gaussian_blur(
      jnp.float32(scene / 255), pixels / np.sqrt(8)
    )
    self._check(actual, simulated, 0.4)


class OthersTest(parameterized.TestCase):

  @parameterized.parameters(False, True)
  def test_haze_is_equal_up_to_the_cut_to_levels(self, with_depth):
    environment = pytest.importorskip(
      'nrtk.impls.perturb_image.environment', exc_type=ImportError
    )
    scene = _scene(64)
    depth = np.linspace(0.2, 2, 64 * 64).reshape(64, 64)
    maps = {'depth_map': np.dstack([depth] * 3)} if with_depth else {}
    expected, _ = environment.HazePerturber(factor=0.7)(
      image=scene, sky_color=[200.0] * 3, **maps
    )
    actual = 255 * np.asarray(weather.haze(
      jnp.float32(scene / 255), 0.7, 200 / 255,
      depth=depth if with_depth else None,
    ))
    error = actual - expected
    self.assertLess(error.max(), 1.001)
    self.assertGreater(error.min(), -0.001)

  @parameterized.parameters((0.1, 0.0), (-0.04, 0.0), (0.05, -0.02))
  def test_lens_is_the_radial_distortion_up_to_its_cut_to_pixels(self, k1, k2):
    optical = pytest.importorskip(
      'nrtk.impls.perturb_image.optical', exc_type=ImportError
    )
    # Level and position are the same along x, then along y.
    size = 128
    ramp = np.dstack([*np.mgrid[:size, :size], np.zeros((size, size))])
    # Its radius is one at the side's middle, ours in the corner.
    expected, _ = optical.RadialDistortionPerturber(k=[k1 / 2, k2 / 4, 0])(
      image=ramp.astype(np.uint8)
    )
    space = factors.FactorSpace(tuple(
      factors.Factor(name, chaospy.Uniform(-0.5, 0.5))
      for name in ('lens', 'lens_k2')
    ))
    chain = chains.make_chain(space, (size, size), clip_values=True)
    actual = 255 * np.asarray(chain(
      jnp.float32(ramp / 255), jnp.float32([k1, k2 / k1]), jax.random.key(0)
    ))
    # Away from where ours blends with what is outside.
    seen = (expected[..., :2] > 1).all(-1)
    inside = ndimage.binary_erosion(seen, np.ones((3, 3)), iterations=2)
    self.assertGreater(inside.mean(), 0.5)
    error = (actual - expected)[..., :2][inside]
    # Whole pixels, rounded down: half a pixel on average, one at most.
    np.testing.assert_allclose(error.mean(), 0.5, atol=0.15)
    self.assertLess(np.abs(error - 0.5).max(), 1.0)
