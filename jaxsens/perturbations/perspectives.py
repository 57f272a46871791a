"""Homographies of a picture that is turned out of its plane.

Every function returns the homography (3, 3) that takes OUTPUT to INPUT
coordinates, in pixels with the origin at the upper left corner; see `geometry`
for the conventions and `geometry.warp` for carrying them out. At the identity
of its main value each is exactly the unit matrix. Angles are in degrees.

`tilt_x` and `tilt_y` are a pinhole camera; `keystone` is one at a distance of
one image height that also magnifies so that the height at the centre is kept,
and `tilt` is the trapezoid of the source system.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsens.perturbations import perturbation


def tilt(degrees: ArrayLike, size: tuple[int, int]) -> jax.Array:
  """Returns the homography that shrinks the top edge by tan(t) per side.

  With s = tan(t), the corners (0, 0) and (W, 0) move to (s W, 0) and
  (W - s W, 0) while the bottom edge stays; negative angles widen the top. The
  closed form of the eight-coefficient perspective transform is, up to scale,

      [[1, s W / H, -s W], [0, 1, 0], [0, 2 s / H, 1 - 2 s]].

  Args:
    degrees: angle t, scalar, below arctan(1/2) = 26.57 where the top edge
      vanishes.
    size: (H, W) of the image in pixels. The source system used the fixed box
      (244, 244) whatever the image.

  Returns:
    (3, 3), output to input coordinates.

  References:
    Bahr et al., Sensitivity Analysis of Image Classification Models using
    Generalized Polynomial Chaos, arXiv:2506.18751, 2025 (its trapezoid).
  """
  slope = jnp.tan(jnp.deg2rad(degrees))
  height, width = size
  zero, one = jnp.zeros_like(slope), jnp.ones_like(slope)
  return _matrix(
    [one, slope * (width / height), -slope * width],
    [zero, one, zero],
    [zero, slope * (2 / height), one - 2 * slope],
  )


def keystone(degrees: ArrayLike, size: tuple[int, int]) -> jax.Array:
  """Returns the homography of a camera that tilts about its horizontal axis.

  The plane of the picture is seen from a distance of one image height, and
  the image is centred again: with (u, v) the output coordinates about the
  centre,

      (u, v)_in = (u, v) / (1 + tan(t) v / H)

  Positive angles show the upper half smaller and the lower half larger.

  Args:
    degrees: angle t, scalar, within +-60 where the horizon stays outside.
    size: (H, W) of the image in pixels.

  Returns:
    (3, 3), output to input coordinates, up to scale.
  """
  slope = jnp.tan(jnp.deg2rad(degrees))
  height, width = size
  zero, one = jnp.zeros_like(slope), jnp.ones_like(slope)
  # w = 1 + slope (y - H / 2) / H; x_in = (x - W / 2) / w + W / 2.
  offset = one - slope / 2
  return _matrix(
    [one, slope * (width / (2 * height)), (offset - 1) * (width / 2)],
    [zero, one + slope / 2, (offset - 1) * (height / 2)],
    [zero, slope / height, offset],
  )


def tilt_x(
  degrees: ArrayLike, field_of_view: ArrayLike, size: tuple[int, int]
) -> jax.Array:
  """Returns the homography of a picture turned about its horizontal axis.

  A pinhole camera looks at the centre of the plane of the picture from the
  distance d, in pixels, at which the longer side fills the field of view f:

      d = max(H, W) / (2 tan(f / 2))

  With (u, v) the output coordinates about the centre and t the angle,

      (u, v)_in = (u, v / cos(t)) / (1 + tan(t) v / d)

  Positive angles move the upper edge away from the camera and show it smaller.

  Args:
    degrees: angle t, scalar, within +-90. Beyond 90 - f / 2 the horizon is in
      the picture.
    field_of_view: angle f, scalar in degrees, above 0 and below 180. Small
      angles are a long lens far away, which shows the tilt as a mere stretch.
    size: (H, W) of the image in pixels.

  Returns:
    (3, 3), output to input coordinates.

  References:
    Hartley and Zisserman, Multiple View Geometry in Computer Vision, 2nd ed.,
    2004, section 8.1 (the image of a plane).
  """
  stretch, slope = _turned(degrees, field_of_view, size)
  y, x = size[0] / 2, size[1] / 2
  zero, one = jnp.zeros_like(slope), jnp.ones_like(slope)
  # w = 1 + slope (y_out - y); the last column brings the centre back.
  return _matrix(
    [one, slope * x, -slope * (x * y)],
    [zero, stretch + slope * y, (1 - stretch) * y - slope * (y * y)],
    [zero, slope, one - slope * y],
  )


def tilt_y(
  degrees: ArrayLike, field_of_view: ArrayLike, size: tuple[int, int]
) -> jax.Array:
  """Returns the homography of a picture turned about its vertical axis.

  `tilt_x` with rows and columns exchanged:

      (u, v)_in = (u / cos(t), v) / (1 + tan(t) u / d)

  Positive angles move the left edge away from the camera and show it smaller.

  Args:
    degrees: angle t, scalar, within +-90.
    field_of_view: angle f over the longer side, scalar in degrees.
    size: (H, W) of the image in pixels.

  Returns:
    (3, 3), output to input coordinates.
  """
  stretch, slope = _turned(degrees, field_of_view, size)
  y, x = size[0] / 2, size[1] / 2
  zero, one = jnp.zeros_like(slope), jnp.ones_like(slope)
  return _matrix(
    [stretch + slope * x, zero, (1 - stretch) * x - slope * (x * x)],
    [slope * y, one, -slope * (x * y)],
    [slope, zero, one - slope * x],
  )


def _turned(degrees, field_of_view, size):
  """Returns 1 / cos(t) and tan(t) / d, d the distance of the camera."""
  radians = jnp.deg2rad(degrees)
  half = jnp.tan(jnp.deg2rad(field_of_view) / 2)
  return 1 / jnp.cos(radians), jnp.tan(radians) * half * (2 / max(size))


def _matrix(*rows):
  return jnp.stack([jnp.stack(row) for row in rows])


def _field_of_view(name):
  return perturbation.Parameter(name, 'deg', 50.0, (20.0, 80.0), (1.0, 150.0))


# Entries that are zero where rows, and where columns stay such.
_ROWS, _COLUMNS = ((1, 0), (2, 0)), ((0, 1), (2, 1))

PERTURBATIONS = (
  perturbation.Perturbation(
    'tilt', 'geometric', tilt, 'deg', 0.0, (-20.0, 20.0),
    'arXiv:2506.18751: the top edge shrinks by tan(t) W per side',
    limits=(-80.0, 26.5), minifies=True, zeros=_ROWS,
    family='geometry',
    happens='The far edge of the part is shown smaller because the camera '
    'looks from the front; the trapezoid of the source system.',
    symptoms=(
      'the picture runs together at the top', 'the camera hangs crooked',
      'parallel edges converge',
    ),
    caveats='The angle measures the corners and is not that of a camera; for '
    'one take tilt_x.',
  ),
  perturbation.Perturbation(
    'keystone', 'geometric', keystone, 'deg', 0.0, (-20.0, 20.0),
    'camera tilted about its horizontal axis, one image height away',
    limits=(-60.0, 60.0), minifies=True, zeros=_ROWS,
    family='geometry',
    happens='The camera looks at the part from the front or the back instead '
    'of from straight above.',
    symptoms=(
      'parallel edges converge', 'the camera hangs crooked',
      'the bracket was bent',
    ),
    caveats='Keeps the height at the centre, which a real tilt shortens by '
    'cos(t); for that take tilt_x.',
  ),
  perturbation.Perturbation(
    'tilt_x', 'geometric', tilt_x, 'deg', 0.0, (-45.0, 45.0),
    'pinhole camera, Hartley and Zisserman 2004, section 8.1',
    limits=(-85.0, 85.0), minifies=True, zeros=_ROWS,
    family='geometry',
    others=(_field_of_view('tilt_x_field_of_view'),),
    happens='The part lies tilted towards the camera or away from it, or the '
    'camera looks from the front instead of from straight above.',
    symptoms=(
      'parallel edges converge', 'the top looks further away',
      'parts do not lie flat', 'the camera arm sags',
    ),
    caveats='A flat picture turned in space: no parallax, no hidden sides, the '
    'same light, everything in focus.',
  ),
  perturbation.Perturbation(
    'tilt_y', 'geometric', tilt_y, 'deg', 0.0, (-45.0, 45.0),
    'pinhole camera, Hartley and Zisserman 2004, section 8.1',
    limits=(-85.0, 85.0), minifies=True, zeros=_COLUMNS,
    family='geometry',
    others=(_field_of_view('tilt_y_field_of_view'),),
    happens='The part lies tilted to one side, or the camera looks from the '
    'side instead of from straight above.',
    symptoms=(
      'one side looks further away', 'parallel edges converge sideways',
      'parts do not lie flat', 'the camera was knocked from the side',
    ),
    caveats='A flat picture turned in space: no parallax, no hidden sides, the '
    'same light, everything in focus.',
  ),
)
