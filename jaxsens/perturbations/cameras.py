"""Cameras as their data sheets describe them, and what they let through.

One image pixel is `binning` sensor pixels wide: the network sees a cutout of
the sensor's picture, made smaller by that factor.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsens.perturbations import otf
from jaxsens.perturbations import spectral_filters


@dataclasses.dataclass(frozen=True)
class Camera:
  """Lens and sensor; a pytree, so that every number may be differentiated.

  Attributes:
    focal_length: m.
    aperture: diameter of the entrance pupil, m.
    pixel_pitch: m, of the sensor; the pixels are square and have no gaps.
    binning: sensor pixels along a side of an image pixel.
    wavelength: m, centre of the band.
    distance: from the lens to the part in focus, m.
    exposure_time: s.
    quantum_efficiency: electrons per photon.
    full_well: electrons that a sensor pixel holds.
    white_share: of the full well, what the image value 1 stands for.
    read_noise: electrons rms of a sensor pixel.
    dark_current: electrons per second and sensor pixel.
  """

  focal_length: ArrayLike
  aperture: ArrayLike
  pixel_pitch: ArrayLike
  binning: ArrayLike
  wavelength: ArrayLike
  distance: ArrayLike
  exposure_time: ArrayLike
  quantum_efficiency: ArrayLike
  full_well: ArrayLike
  white_share: ArrayLike
  read_noise: ArrayLike
  dark_current: ArrayLike

  def __post_init__(self):
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if isinstance(value, (int, float)) and not 0 < value < math.inf:
        raise ValueError(
          f'camera: {field.name} must be positive and finite, got {value}'
        )
    numbers = (self.distance, self.focal_length)
    if all(isinstance(x, (int, float)) for x in numbers):
      if self.distance <= self.focal_length:
        raise ValueError(
          f'camera: distance {self.distance} m must be beyond the focal length '
          f'{self.focal_length} m'
        )

  @property
  def f_number(self) -> ArrayLike:
    """Focal length over aperture."""
    return self.focal_length / self.aperture

  @property
  def magnification(self) -> ArrayLike:
    """Size on the sensor over size of the part."""
    return self.focal_length / (self.distance - self.focal_length)

  @property
  def image_distance(self) -> ArrayLike:
    """From the lens to the sensor, m."""
    return self.distance * self.magnification

  @property
  def pixel(self) -> ArrayLike:
    """Side of an image pixel on the sensor, m."""
    return self.pixel_pitch * self.binning

  @property
  def pixel_on_part(self) -> ArrayLike:
    """Side of an image pixel on the part, m."""
    return self.pixel / self.magnification

  @property
  def cutoff(self) -> ArrayLike:
    """Highest frequency that the lens passes, cycles per image pixel."""
    return self.pixel * self.aperture / (self.wavelength * self.image_distance)

  @property
  def white(self) -> ArrayLike:
    """Electrons of the value 1, summed over an image pixel."""
    return self.white_share * self.full_well * self.binning**2

  def path_error(self, displacement: ArrayLike) -> ArrayLike:
    """Wavelengths of defocus (W20) of a part `displacement` m too far away."""
    vergence = displacement / (self.distance * (self.distance + displacement))
    return self.aperture**2 / (8 * self.wavelength) * vergence

  def light(self, nominal: 'Camera') -> ArrayLike:
    """Electrons of an image pixel under the same lamps, nominal is 1."""
    def collected(camera):
      angle = camera.aperture / camera.image_distance
      return (
        angle**2 * camera.pixel**2 * camera.exposure_time
        * camera.quantum_efficiency
      )
    return collected(self) / collected(nominal)


jax.tree_util.register_dataclass(
  Camera, [field.name for field in dataclasses.fields(Camera)], []
)

# 5 megapixels of 3.45 um behind a lens of 35 mm at f/4, half a metre away: an
# image pixel covers 92 um of the part.
INDUSTRIAL = Camera(
  focal_length=35e-3, aperture=8.75e-3, pixel_pitch=3.45e-6, binning=2,
  wavelength=0.55e-6, distance=0.5, exposure_time=2e-3,
  quantum_efficiency=0.6, full_well=10500.0, white_share=0.9, read_noise=2.4,
  dark_current=1.0,
)
# What the catalogue says of it.
DEFAULT_NOTE = (
  'Default camera: 3.45 um pixels binned 2 x 2, 35 mm at f/4, part at 0.5 m, '
  '92 um of the part per image pixel; pass `camera` for another.'
)


def transfer(
  camera: Camera, u: ArrayLike, v: ArrayLike, *,
  displacement: ArrayLike = 0.0, rms: ArrayLike = 0.0,
  motion: tuple[ArrayLike, ArrayLike] = (0.0, 0.0), cn2: ArrayLike = 0.0,
  path: ArrayLike = 0.0,
) -> jax.Array:
  """Returns the transfer function of the whole camera.

  Args:
    camera: lens and sensor.
    u: along +x, cycles per image pixel.
    v: along +y, down the rows; broadcasts with u.
    displacement: of the part out of focus, m, positive away from the camera.
    rms: of the vibration along one axis, m on the part.
    motion: (x, y) of the part during the exposure, m, y down the rows.
    cn2: structure parameter of the air, m^(-2/3).
    path: through that air, m.

  Returns:
    The product of lens, detector, vibration, motion and air.
  """
  u, v = jnp.asarray(u), jnp.asarray(v)
  square = u * u + v * v
  positive = square > 0
  radius = jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1)), 0)
  scale = 1 / camera.pixel_on_part
  return (
    otf.defocus(radius, camera.cutoff, camera.path_error(displacement))
    * otf.box(u, 1) * otf.box(v, 1) * otf.vibration(radius, rms * scale)
    * otf.box(u * motion[0] + v * motion[1], scale)
    * otf.turbulence(
      radius * camera.image_distance / camera.pixel, camera.wavelength, cn2,
      path,
    )
  )


def photograph(
  image: ArrayLike, camera: Camera, *, nominal: Camera = INDUSTRIAL, **scene
) -> jax.Array:
  """Returns the image as another camera at the same place would show it.

  Sharpness only: the picture keeps its scale and its brightness.

  Args:
    image: (H, W, C) in [0, 1], taken by `nominal` in focus and at rest.
    camera: any number of which may be traced.
    nominal: camera of the image.
    **scene: what `transfer` takes of displacement, rms, motion, cn2 and path.

  Returns:
    (H, W, C) in [0, 1].
  """
  # In cycles per pixel of the image at hand, whose side both are seen with.
  zoom = camera.pixel_on_part / nominal.pixel_on_part
  filtered = spectral_filters.filter_plane(image, lambda u, v: otf.extra(
    transfer(camera, u * zoom, v * zoom, **scene), transfer(nominal, u, v),
    False,
  ))
  return jnp.clip(filtered, 0, 1)
