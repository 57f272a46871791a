"""What NRTK (with pyBSM) calls the perturbations, for the benchmark.

It takes one image of 8 bits at a time. What its optics have in common with ours
and what not is said and tested in `tests/perturbations/nrtk_test.py`. Its point
spread functions are made once and kept, so that a call is a convolution. Water
drops are left out: it renders drops of given geometry before the whole lens.
"""

from collections.abc import Callable
import importlib
import types
from typing import Any

import numpy as np

from jaxsens.perturbations import cameras


def calls(
  module: types.ModuleType, images: np.ndarray
) -> dict[str, Callable[[], Any]]:
  """Returns the calls by the name of our perturbation.

  Args:
    module: nrtk.
    images: (B, H, W, 3) float32 in [0, 1]; the first is used.

  Raises:
    ImportError: a part of NRTK lacks a library.
  """
  # NRTK imports its parts by name.
  load = lambda name: importlib.import_module(
    f'{module.__name__}.impls.perturb_image.{name}'
  )
  levels = np.uint8(np.round(images[0] * 255))
  optical, otf, blur = (
    load(name) for name in ('optical', 'optical.otf', 'photometric.blur')
  )
  enhance, noise = load('photometric.enhance'), load('photometric.noise')
  haze = load('environment').HazePerturber(factor=0.7)
  kernel = min(12, min(levels.shape[:2]) - 2) // 2 * 2 + 1
  camera = cameras.INDUSTRIAL
  pixel = camera.pixel / camera.focal_length

  def call(perturber, **options):
    return lambda: perturber(image=levels, **options)

  def sensor(name, **settings):
    """One pixel of the image is one of the sensor: nothing is resampled."""
    distance = settings.pop('altitude', 250.0)
    perturber = getattr(otf, name)(
      p_x=camera.pixel, f=camera.focal_length, ground_range=0,
      altitude=distance, **{'D': camera.aperture} | settings,
    )
    return call(perturber, img_gsd=distance * pixel)

  band = {'mtf_wavelengths': [camera.wavelength], 'mtf_weights': [1.0]}
  wide, shake = 3 * camera.pixel, 1.5 * pixel
  return {
    'aperture': sensor(
      'CircularAperturePerturber', D=camera.focal_length / 16, **band
    ),
    'pixel_pitch': sensor('DetectorPerturber', w_x=wide, w_y=wide),
    'vibration': sensor('JitterPerturber', s_x=shake, s_y=shake),
    # A Gaussian instead of the spread of a lens.
    'defocus_distance': sensor(
      'DefocusPerturber', w_x=3 * pixel, w_y=3 * pixel
    ),
    'turbulence': sensor(
      'TurbulenceAperturePerturber', altitude=2.0, slant_range=2.0,
      cn2_at_1m=1e-9, ha_wind_speed=0.0, int_time=1.0, n_tdi=1.0,
      aircraft_speed=1e9, **band,
    ),
    'haze': call(haze, sky_color=[230.0] * 3),
    'lens': call(optical.RadialDistortionPerturber(k=[0.05, 0.0, 0.0])),
    'gaussian_blur': call(blur.GaussianBlurPerturber(ksize=kernel)),
    'brightness': call(enhance.BrightnessPerturber(factor=1.3)),
    'contrast': call(enhance.ContrastPerturber(factor=1.3)),
    'saturation': call(enhance.ColorPerturber(factor=1.3)),
    'gaussian_noise': call(noise.GaussianNoisePerturber(var=0.01)),
    'speckle_noise': call(noise.SpeckleNoisePerturber(var=0.04)),
    'impulse_noise': call(noise.SaltAndPepperNoisePerturber(amount=0.1)),
  }
