"""Disturbances in the units of a camera's data sheet and of its mounting.

Each acts on an image that the nominal camera took in focus and at rest, and
takes away what the disturbance takes beyond that camera; its identity gives
the image back. The catalogue is that of `cameras.INDUSTRIAL`; every function
takes another camera by keyword.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsens.perturbations import cameras
from jaxsens.perturbations import otf
from jaxsens.perturbations import perturbation
from jaxsens.perturbations import spectral_filters


def defocus_distance(
  image: ArrayLike, distance: ArrayLike, f_number: ArrayLike = 4.0, *,
  camera: cameras.Camera = cameras.INDUSTRIAL,
) -> jax.Array:
  """Shows a part that lies `distance` mm behind the plane in focus.

  Args:
    image: (H, W, C) in [0, 1], in focus.
    distance: scalar, mm, negative towards the camera; 0 is the identity.
    f_number: scalar, at which the picture is taken, in focus and out of it.
    camera: that took the image.

  Returns:
    (H, W, C) in [0, 1].
  """
  image = jnp.asarray(image)
  distance = jnp.asarray(distance, image.dtype)
  lens = dataclasses.replace(camera, aperture=camera.focal_length / f_number)
  waves = lens.path_error(distance * 1e-3)
  filtered = spectral_filters.filter_radial(image, lambda frequency: otf.extra(
    otf.defocus(frequency, lens.cutoff, waves),
    otf.diffraction(frequency, lens.cutoff), distance == 0,
  ))
  return jnp.clip(filtered, 0, 1)


def aperture(
  image: ArrayLike, f_number: ArrayLike, *,
  camera: cameras.Camera = cameras.INDUSTRIAL,
) -> jax.Array:
  """Shows the part at another f-number, equally bright.

  Args:
    image: (H, W, C) in [0, 1], taken at `camera.f_number`, the identity.
    f_number: scalar > 0; a larger one blurs by diffraction.
    camera: that took the image.

  Returns:
    (H, W, C) in [0, 1].
  """
  image = jnp.asarray(image)
  f_number = jnp.asarray(f_number, image.dtype)
  lens = dataclasses.replace(camera, aperture=camera.focal_length / f_number)
  filtered = spectral_filters.filter_radial(image, lambda frequency: otf.extra(
    otf.diffraction(frequency, lens.cutoff),
    otf.diffraction(frequency, camera.cutoff), f_number == camera.f_number,
  ))
  return jnp.clip(filtered, 0, 1)


def pixel_pitch(
  image: ArrayLike, pitch: ArrayLike, *,
  camera: cameras.Camera = cameras.INDUSTRIAL,
) -> jax.Array:
  """Shows what larger sensor pixels make of the same field of view.

  Args:
    image: (H, W, C) in [0, 1], taken with `camera.pixel_pitch`, the identity.
    pitch: scalar > 0, um, side of the light-sensitive area.
    camera: that took the image.

  Returns:
    (H, W, C) in [0, 1], on the same grid.
  """
  image = jnp.asarray(image)
  pitch = jnp.asarray(pitch, image.dtype)
  nominal = camera.pixel_pitch * 1e6
  filtered = spectral_filters.filter_separable(
    image, lambda frequency: otf.extra(
      otf.box(frequency, pitch / nominal), otf.box(frequency, 1.0),
      pitch == nominal,
    )
  )
  return jnp.clip(filtered, 0, 1)


def vibration(
  image: ArrayLike, rms: ArrayLike, *,
  camera: cameras.Camera = cameras.INDUSTRIAL,
) -> jax.Array:
  """Shakes the part against the camera during the exposure.

  Args:
    image: (H, W, C) in [0, 1].
    rms: scalar >= 0, um on the part along each axis; 0 is the identity.
    camera: that took the image.

  Returns:
    (H, W, C) in [0, 1].
  """
  image = jnp.asarray(image)
  pixels = jnp.asarray(rms, image.dtype) * 1e-6 / camera.pixel_on_part
  filtered = spectral_filters.filter_separable(
    image, lambda frequency: otf.vibration(frequency, pixels)
  )
  return jnp.clip(filtered, 0, 1)


def object_speed(
  image: ArrayLike, speed: ArrayLike, angle: ArrayLike = 0.0,
  exposure: ArrayLike = 2.0, *, camera: cameras.Camera = cameras.INDUSTRIAL,
) -> jax.Array:
  """Moves the part at constant speed during the exposure.

  Args:
    image: (H, W, C) in [0, 1].
    speed: scalar, mm/s on the part; 0 is the identity.
    angle: scalar, degrees counter-clockwise from +x.
    exposure: scalar, ms.
    camera: that took the image.

  Returns:
    (H, W, C) in [0, 1].
  """
  image = jnp.asarray(image)
  speed, angle, exposure = (
    jnp.asarray(x, image.dtype) for x in (speed, angle, exposure)
  )
  pixels = speed * exposure * (1e-6 / camera.pixel_on_part)
  x, y = jnp.cos(jnp.deg2rad(angle)), -jnp.sin(jnp.deg2rad(angle))
  filtered = spectral_filters.filter_plane(
    image, lambda u, v: otf.box(u * x + v * y, pixels)
  )
  return jnp.clip(filtered, 0, 1)


def turbulence(
  image: ArrayLike, cn2: ArrayLike, path: ArrayLike = 0.5, *,
  camera: cameras.Camera = cameras.INDUSTRIAL,
) -> jax.Array:
  """Looks through hot air.

  Args:
    image: (H, W, C) in [0, 1].
    cn2: scalar >= 0, 1e-9 m^(-2/3); 0 is the identity.
    path: scalar >= 0, m of hot air.
    camera: that took the image.

  Returns:
    (H, W, C) in [0, 1].
  """
  image = jnp.asarray(image)
  cn2, path = (jnp.asarray(x, image.dtype) for x in (cn2, path))
  per_radian = camera.image_distance / camera.pixel
  filtered = spectral_filters.filter_radial(
    image, lambda frequency: otf.turbulence(
      frequency * per_radian, camera.wavelength, cn2 * 1e-9, path
    )
  )
  return jnp.clip(filtered, 0, 1)


PERTURBATIONS = (
  perturbation.Perturbation(
    'defocus_distance', 'spatial', defocus_distance, 'mm', 0.0, (-30.0, 30.0),
    source=(
      'Goodman, Introduction to Fourier Optics, section 6.4, circular pupil; '
      'pyBSM circular_aperture_OTF_with_defocus in its purpose'
    ),
    limits=(-100.0, 200.0), family='camera physics',
    others=(
      perturbation.Parameter(
        'defocus_distance_f_number', 'f-number', 4.0, (2.8, 16.0), (2.8, 32.0)
      ),
    ),
    happens=(
      'The part lies nearer to or farther from the camera than the plane in '
      'focus: another part height, a worn fixture, a lens that was touched.'
    ),
    symptoms=(
      'the picture is soft', 'high parts are blurred', 'edges look doubled',
      'it got worse after the lens was changed',
    ),
    caveats=(
      'The same distance over the whole picture, no change of scale, no '
      'aberration of the lens. ' + cameras.DEFAULT_NOTE
    ),
  ),
  perturbation.Perturbation(
    'aperture', 'spatial', aperture, 'f-number', cameras.INDUSTRIAL.f_number,
    (4.0, 32.0),
    source=(
      'Goodman, Introduction to Fourier Optics, equation 6-32; '
      'pyBSM circular_aperture_OTF'
    ),
    limits=(1.0, 128.0), family='camera physics',
    happens=(
      'The iris is closed for more depth of field, or turned by accident; '
      'diffraction then limits what the lens resolves.'
    ),
    symptoms=(
      'everything is evenly soft', 'fine scratches vanish',
      'the iris ring was not locked',
    ),
    caveats=(
      'Brightness is kept, as lamp or exposure make up for it (exposure_time '
      'has the other case); aberrations of an open lens are left out, so that '
      'an f-number below that of the camera sharpens slightly. '
      + cameras.DEFAULT_NOTE
    ),
  ),
  perturbation.Perturbation(
    'pixel_pitch', 'spatial', pixel_pitch, 'um',
    cameras.INDUSTRIAL.pixel_pitch * 1e6, (3.45, 20.0),
    source='Goodman, section 2.4; pyBSM detector_OTF',
    limits=(0.1, 100.0), family='camera physics',
    happens=(
      'Another sensor with larger pixels at the same field of view takes the '
      'place of the one the network was trained with.'
    ),
    symptoms=(
      'the new camera shows less detail', 'edges look stepped or soft',
      'small defects are missed',
    ),
    caveats=(
      'The average over the larger pixel only; the picture keeps its grid, '
      'so there is no aliasing. ' + cameras.DEFAULT_NOTE
    ),
  ),
  perturbation.Perturbation(
    'vibration', 'spatial', vibration, 'um', 0.0, (0.0, 400.0),
    source=(
      'Eismann and LeMaster, equation 3-28 with pi squared; pyBSM jitter_OTF'
    ),
    limits=(0.0, 5000.0), family='camera physics',
    happens=(
      'The housing or the part shakes while the shutter is open, many times '
      'per exposure and in all directions.'
    ),
    symptoms=(
      'the housing vibrates', 'blurred while the press runs',
      'sharp at standstill only', 'the bracket came loose',
    ),
    caveats=(
      'Fast against the exposure and Gaussian; a slow swing is object_speed. '
      + cameras.DEFAULT_NOTE
    ),
  ),
  perturbation.Perturbation(
    'object_speed', 'spatial', object_speed, 'mm/s', 0.0, (0.0, 500.0),
    source='Eismann and LeMaster, equation 3-29; pyBSM drift_OTF',
    limits=(-10000.0, 10000.0), family='camera physics',
    others=(
      perturbation.Parameter(
        'object_speed_angle', 'deg', 0.0, (-90.0, 90.0)
      ),
      perturbation.Parameter(
        'object_speed_exposure', 'ms', 2.0, (0.1, 10.0), (0.0, 1000.0)
      ),
    ),
    happens=(
      'The conveyor, the robot or the part moves on during the exposure.'
    ),
    symptoms=(
      'smeared along the belt', 'worse when the line runs faster',
      'lines across the motion vanish', 'the strobe does not fire',
    ),
    caveats=(
      'Constant speed, the whole picture alike, global shutter. '
      + cameras.DEFAULT_NOTE
    ),
  ),
  perturbation.Perturbation(
    'turbulence', 'spatial', turbulence, '1e-9 m^(-2/3)', 0.0, (0.0, 10.0),
    source=(
      'Eismann and LeMaster, equation 3-3, long exposure; r0 of a spherical '
      'wave after Schmidt (2010); pyBSM turbulence_OTF, coherence_diameter'
    ),
    limits=(0.0, 1000.0), family='camera physics',
    others=(
      perturbation.Parameter(
        'turbulence_path', 'm', 0.5, (0.1, 5.0), (0.0, 1e5)
      ),
    ),
    happens=(
      'Hot air rises from a furnace, a weld or a hot part between it and the '
      'camera. Outdoor air at noon has 1e-13, the air over a hot plate 1e-10 '
      'to 1e-8.'
    ),
    symptoms=(
      'the air shimmers', 'soft above hot parts',
      'worse when the furnace door is open',
    ),
    caveats=(
      'Mean over an exposure long against the flicker: no wobble of short '
      'exposures; uniform turbulence of the inertial range. '
      + cameras.DEFAULT_NOTE
    ),
  ),
)
