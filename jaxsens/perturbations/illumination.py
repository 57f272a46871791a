"""Uneven light: gains and added light that vary over the image.

Images are float arrays (H, W, C) with values in [0, 1], gray or colour. Angles
are in degrees, counter-clockwise from the direction of +x (to the right), true
in the picture whatever its aspect ratio. Positions x and y are shares of width
and height from the upper left corner, y downwards. Extents are shares of the
longer side, so that a value means the same at every resolution. All functions
are smooth in all their parameters up to the clipping at black and white.
"""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsens.perturbations import perturbation

# A logistic edge rises from 10 to 90 % over 2 ln 9 of its scales.
_EDGE = 2 * math.log(9)
# (1 + 4 (sqrt(2) - 1) (r / s)^2)^-2 has the full width s at half its maximum.
_MOFFAT = 4 * (math.sqrt(2) - 1)


def illumination_gradient(
  image: ArrayLike, strength: ArrayLike, angle: ArrayLike
) -> jax.Array:
  """Returns clip(image * (1 + strength (u cos a + v sin a)), 0, 1).

  Args:
    image: (H, W, C) in [0, 1].
    strength: scalar, relative change of the light from the centre to the edge
      of the longer side, where u or v is 1; 0 is the identity.
    angle: scalar a, degrees, the direction in which the light grows.

  Returns:
    The image, brighter towards one side and darker towards the other.

  Raises:
    ValueError: the image is not (H, W, C).
  """
  image = _checked(image)
  u, v = _centred(image, 0.5, 0.5)
  along = _along(u, v, jnp.asarray(angle, image.dtype))
  gain = 1 + jnp.asarray(strength, image.dtype) * (2 * along)
  return jnp.clip(image * gain[..., None], 0, 1)


def vignette(
  image: ArrayLike, strength: ArrayLike, radius: ArrayLike
) -> jax.Array:
  """Returns clip(image * (1 - strength f(r) / f(1)), 0, 1), by the cos^4 law.

      f(r) = 1 - cos^4 t,  tan t = r / radius,

  with r the distance from the centre in half diagonals.

  Args:
    image: (H, W, C) in [0, 1].
    strength: scalar <= 1, share of the light that is lost in the corners, what
      data sheets of lenses give as one minus the relative illumination; 0 is
      the identity, below zero the corners are brighter.
    radius: scalar > 0, the focal length in half diagonals, which shapes the
      fall: large values lose with the square of r, small ones leave a hot spot
      of about this radius.

  Returns:
    The image, darker away from its centre.

  Raises:
    ValueError: the image is not (H, W, C).
  """
  image = _checked(image)
  height, width = image.shape[:2]
  longer = max(height, width)
  u, v = _centred(image, 0.5, 0.5)
  square = (u**2 + v**2) * (4 * longer**2 / (height**2 + width**2))
  inverse = 1 / jnp.asarray(radius, image.dtype) ** 2
  q = inverse * square
  # f(r) / f(1) with the common factors cancelled: no difference of numbers
  # near one at large radii.
  corner = (1 + inverse) ** 2 / (2 + inverse)
  loss = square * (2 + q) / (1 + q) ** 2 * corner
  gain = 1 - jnp.asarray(strength, image.dtype) * loss
  return jnp.clip(image * gain[..., None], 0, 1)


def shadow(
  image: ArrayLike,
  depth: ArrayLike,
  position: ArrayLike,
  angle: ArrayLike,
  softness: ArrayLike,
) -> jax.Array:
  """Returns clip(image * (1 - depth s), 0, 1), s in [0, 1] across an edge.

      s = logistic(2 ln 9 (p - position) / sqrt(softness^2 + pixel^2)),

  where p runs along the direction, from 0 to 1 over the longer side. The pixel
  in the root keeps the hardest edge one pixel wide.

  Args:
    image: (H, W, C) in [0, 1].
    depth: scalar <= 1, share of the light that is lost in the shadow; 0 is the
      identity, below zero there is a bright patch.
    position: scalar, where the edge crosses the direction; 0.5 is the centre.
    angle: scalar, degrees, the direction from the light into the shadow.
    softness: scalar >= 0, width of the half-shadow from 10 to 90 % as a share
      of the longer side.

  Returns:
    The image with one side in the shadow.

  Raises:
    ValueError: the image is not (H, W, C).
  """
  image = _checked(image)
  u, v = _centred(image, 0.5, 0.5)
  along = 0.5 + _along(u, v, jnp.asarray(angle, image.dtype))
  position = jnp.asarray(position, image.dtype)
  scale = _EDGE / _widened(image, softness)
  shaded = jax.nn.sigmoid((along - position) * scale)
  gain = 1 - jnp.asarray(depth, image.dtype) * shaded
  return jnp.clip(image * gain[..., None], 0, 1)


def glare(
  image: ArrayLike,
  amplitude: ArrayLike,
  x: ArrayLike,
  y: ArrayLike,
  size: ArrayLike,
) -> jax.Array:
  """Returns image + (1 - image) (1 - exp(-amplitude g)), g a spot of light.

  The spot has a core and a wide halo, as what a lens makes of a bright point
  (Moffat's profile with exponent 2, w its full width at half maximum):

      g = (1 + 4 (sqrt(2) - 1) (r / w)^2)^-2,  w^2 = size^2 + pixel^2.

  The light adds to that of the part and saturates smoothly at white: weak
  glare adds amplitude g (1 - image), strong glare is a white disk that grows
  with the amplitude.

  Args:
    image: (H, W, C) in [0, 1].
    amplitude: scalar >= 0, peak of the added light in units of white; 0 is the
      identity.
    x: scalar, centre as a share of the width from the left.
    y: scalar, centre as a share of the height from the top.
    size: scalar >= 0, width of the spot as a share of the longer side.

  Returns:
    The image with a white spot, the same in all channels.

  Raises:
    ValueError: the image is not (H, W, C).

  References:
    Moffat, A Theoretical Investigation of Focal Stellar Images in the
    Photographic Emulsion and Application to Photographic Photometry, 1969.
  """
  image = _checked(image)
  u, v = _centred(image, x, y)
  rate = _MOFFAT / _widened(image, size) ** 2
  spot = 1 / (1 + rate * (u**2 + v**2)) ** 2
  veil = -jnp.expm1(-jnp.asarray(amplitude, image.dtype) * spot)
  return image + (1 - image) * veil[..., None]


def _checked(image):
  image = jnp.asarray(image)
  if image.ndim != 3:
    raise ValueError(f'image must be (H, W, C), got shape {image.shape}')
  return image


def _centred(image, x, y):
  """Returns pixel centres about (x, y) as shares of the longer side, v up.

  u is (1, W) and v (H, 1).
  """
  height, width = image.shape[:2]
  longer = max(height, width)
  x = jnp.asarray(x, image.dtype) * width
  y = jnp.asarray(y, image.dtype) * height
  u = (jnp.arange(width, dtype=image.dtype) + 0.5 - x) / longer
  v = (y - 0.5 - jnp.arange(height, dtype=image.dtype)) / longer
  return u[None, :], v[:, None]


def _along(u, v, angle):
  radians = jnp.deg2rad(angle)
  return u * jnp.cos(radians) + v * jnp.sin(radians)


def _widened(image, extent):
  """Returns the root of extent^2 plus the square of one pixel."""
  extent = jnp.asarray(extent, image.dtype)
  return jnp.sqrt(extent**2 + 1 / max(image.shape[:2]) ** 2)


def _angle(name):
  return perturbation.Parameter(
    name, 'deg', 0.0, sensible_range=(-180.0, 180.0)
  )


PERTURBATIONS = (
  perturbation.Perturbation(
    'illumination_gradient', 'spatial', illumination_gradient,
    unit='relative change at the edge', identity=0.0,
    sensible_range=(0.0, 0.6),
    source='image * (1 + a (u cos phi + v sin phi)), as Albumentations '
    'Illumination (linear)',
    others=(_angle('illumination_gradient_angle'),),
    family='photometry',
    happens='One side of the field gets more light than the other: a lamp out '
    'of place, one of several lamps out, daylight from a window.',
    symptoms=(
      'one side is darker', 'one lamp has failed', 'the lamp has been knocked',
      'it depends on where the part lies',
    ),
    caveats='Linear across the frame and independent of the shape of the part; '
    'shading and highlights do not move.',
  ),
  perturbation.Perturbation(
    'vignette', 'spatial', vignette, unit='share lost in the corners',
    identity=0.0, sensible_range=(0.0, 0.8), limits=(-math.inf, 1.0),
    source='natural vignetting, cos^4 law, scaled to the loss in the corners',
    others=(perturbation.Parameter(
      'vignette_radius', 'half diagonals', 1.0, sensible_range=(0.3, 3.0),
      limits=(0.05, math.inf),
    ),),
    family='photometry',
    happens='The corners get less light than the centre: another lens or '
    'aperture, too small an image circle, a ring light that is too close.',
    symptoms=(
      'the corners are dark', 'bright in the middle only',
      'defects at the rim are missed', 'worse with the aperture open',
    ),
    caveats='Centred and round; the hard edge of a filter ring that reaches '
    'into the picture is not modelled.',
  ),
  perturbation.Perturbation(
    'shadow', 'spatial', shadow, unit='share of light lost', identity=0.0,
    sensible_range=(0.0, 0.8), limits=(-math.inf, 1.0),
    source='logistic edge, image * (1 - depth s); pixel-wide when hard',
    others=(
      perturbation.Parameter(
        'shadow_position', 'share of the longer side', 0.5,
        sensible_range=(0.0, 1.0),
      ),
      _angle('shadow_angle'),
      perturbation.Parameter(
        'shadow_softness', 'share of the longer side', 0.1,
        sensible_range=(0.0, 0.5), limits=(0.0, math.inf),
      ),
    ),
    family='photometry',
    happens='Something stands between lamp and part: a gripper, a cable, a '
    'person, the edge of the fixture.',
    symptoms=(
      'a shadow across the part', 'half of the part is dark',
      'it happens when somebody walks by', 'the edge of the shadow is rejected',
    ),
    caveats='One straight edge of even softness; no shadow of the relief of '
    'the part, no colour of the remaining light.',
  ),
  perturbation.Perturbation(
    'glare', 'spatial', glare, unit='multiples of white', identity=0.0,
    sensible_range=(0.0, 5.0), limits=(0.0, math.inf),
    source='additive Moffat spot (exponent 2), saturating as 1 - exp(-light)',
    others=(
      perturbation.Parameter(
        'glare_x', 'share of the width', 0.5, sensible_range=(0.0, 1.0)
      ),
      perturbation.Parameter(
        'glare_y', 'share of the height', 0.5, sensible_range=(0.0, 1.0)
      ),
      perturbation.Parameter(
        'glare_size', 'share of the longer side', 0.2,
        sensible_range=(0.05, 0.6), limits=(0.0, math.inf),
      ),
    ),
    family='photometry',
    happens='A lamp or the sun is mirrored by the part or its oil film into '
    'the lens and burns out a spot.',
    symptoms=(
      'a white spot on the part', 'it shines when the part is oily',
      'the reflection hides the defect', 'burnt out in one place',
    ),
    caveats='One round spot of white light that ignores the shape of the part; '
    'no ghosts and no streaks of the lens.',
  ),
)
