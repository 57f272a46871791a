"""Homographies of changes within the plane of the picture.

Every function returns the homography (3, 3) that takes OUTPUT to INPUT
coordinates, in pixels with the origin at the upper left corner; see `geometry`
for the conventions and `geometry.warp` for carrying them out. At the identity
of its main value each is exactly the unit matrix. Angles are in degrees.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsens.perturbations import perturbation


def rotation(degrees: ArrayLike, size: tuple[int, int]) -> jax.Array:
  """Returns the homography of a counter-clockwise rotation about the centre.

  Args:
    degrees: angle, scalar.
    size: (H, W) of the image in pixels.

  Returns:
    (3, 3), output to input coordinates. Equal to torchvision's `rotate`.
  """
  radians = jnp.deg2rad(degrees)
  cos, sin = jnp.cos(radians), jnp.sin(radians)
  y, x = size[0] / 2, size[1] / 2
  zero, one = jnp.zeros_like(cos), jnp.ones_like(cos)
  return _matrix(
    [cos, -sin, x - cos * x + sin * y],
    [sin, cos, y - sin * x - cos * y],
    [zero, zero, one],
  )


def scaling(factor: ArrayLike, size: tuple[int, int]) -> jax.Array:
  """Returns the homography of a zoom about the centre.

      x_in = W / 2 + (x_out - W / 2) / factor, and so for y

  Args:
    factor: positive scalar; 2 shows everything twice as large, 1 is the
      identity.
    size: (H, W) of the image in pixels.

  Returns:
    (3, 3), output to input coordinates. Equal to torchvision's `affine` with
    this scale.
  """
  inverse = 1 / jnp.asarray(factor)
  height, width = size
  return _diagonal(
    inverse, inverse, (1 - inverse) * (width / 2), (1 - inverse) * (height / 2)
  )


def translation_x(fraction: ArrayLike, size: tuple[int, int]) -> jax.Array:
  """Returns the homography that moves the picture to the right.

  Args:
    fraction: scalar, part of the width; negative values move to the left.
    size: (H, W) of the image in pixels.

  Returns:
    (3, 3), output to input coordinates. Equal to torchvision's `affine` with a
    translation by (fraction W, 0) pixels.
  """
  fraction = jnp.asarray(fraction)
  zero, one = jnp.zeros_like(fraction), jnp.ones_like(fraction)
  return _diagonal(one, one, -fraction * size[1], zero)


def translation_y(fraction: ArrayLike, size: tuple[int, int]) -> jax.Array:
  """Returns the homography that moves the picture down.

  Args:
    fraction: scalar, part of the height; negative values move up.
    size: (H, W) of the image in pixels.

  Returns:
    (3, 3), output to input coordinates. Equal to torchvision's `affine` with a
    translation by (0, fraction H) pixels.
  """
  fraction = jnp.asarray(fraction)
  zero, one = jnp.zeros_like(fraction), jnp.ones_like(fraction)
  return _diagonal(one, one, zero, -fraction * size[0])


def aspect(ratio: ArrayLike, size: tuple[int, int]) -> jax.Array:
  """Returns the homography that makes the picture wider and lower.

      x_in = W / 2 + (x_out - W / 2) / sqrt(ratio)
      y_in = H / 2 + (y_out - H / 2) * sqrt(ratio)

  Areas are kept.

  Args:
    ratio: positive scalar, by which width / height of things grows.
    size: (H, W) of the image in pixels.

  Returns:
    (3, 3), output to input coordinates.
  """
  wider = jnp.sqrt(jnp.asarray(ratio))
  height, width = size
  return _diagonal(
    1 / wider, wider, (1 - 1 / wider) * (width / 2),
    (1 - wider) * (height / 2),
  )


def shear_x(degrees: ArrayLike, size: tuple[int, int]) -> jax.Array:
  """Returns the homography that moves rows sideways by their height.

      x_in = x_out + tan(t) (y_out - H / 2)

  Args:
    degrees: angle t, scalar, within +-90; positive values move the upper half
      to the right.
    size: (H, W) of the image in pixels.

  Returns:
    (3, 3), output to input coordinates. Equal to torchvision's `affine` with
    shear (t, 0); followed by `shear_y` with (t, s).
  """
  slope = jnp.tan(jnp.deg2rad(degrees))
  zero, one = jnp.zeros_like(slope), jnp.ones_like(slope)
  return _matrix(
    [one, slope, -slope * (size[0] / 2)], [zero, one, zero], [zero, zero, one]
  )


def shear_y(degrees: ArrayLike, size: tuple[int, int]) -> jax.Array:
  """Returns the homography that moves columns up or down by their place.

      y_in = y_out + tan(t) (x_out - W / 2)

  Args:
    degrees: angle t, scalar, within +-90; positive values move the left half
      down.
    size: (H, W) of the image in pixels.

  Returns:
    (3, 3), output to input coordinates. Equal to torchvision's `affine` with
    shear (0, t).
  """
  slope = jnp.tan(jnp.deg2rad(degrees))
  zero, one = jnp.zeros_like(slope), jnp.ones_like(slope)
  return _matrix(
    [one, zero, zero], [slope, one, -slope * (size[1] / 2)], [zero, zero, one]
  )


def flip_x(switch: ArrayLike, size: tuple[int, int]) -> jax.Array:
  """Returns the homography that exchanges left and right.

  Args:
    switch: scalar; above 0.5 the picture is flipped, otherwise it stays.
    size: (H, W) of the image in pixels.

  Returns:
    (3, 3), output to input coordinates. Equal to torchvision's `hflip`.
  """
  zero, one, flips = _switched(switch)
  return _matrix(
    [1 - 2 * flips, zero, flips * size[1]], [zero, one, zero], [zero, zero, one]
  )


def flip_y(switch: ArrayLike, size: tuple[int, int]) -> jax.Array:
  """Returns the homography that exchanges top and bottom, else as `flip_x`.

  Equal to torchvision's `vflip`.
  """
  zero, one, flips = _switched(switch)
  return _matrix(
    [one, zero, zero], [zero, 1 - 2 * flips, flips * size[0]], [zero, zero, one]
  )


def crop(
  share: ArrayLike, x: ArrayLike, y: ArrayLike, size: tuple[int, int]
) -> jax.Array:
  """Returns the homography that shows a part of the picture enlarged.

      x_in = (1 - 2 share) x_out + 2 share x W,   and so for y

  Args:
    share: scalar below 1/2, part of the width and of the height cut off at
      each side by a crop in the middle.
    x: scalar in [0, 1], place of the crop: 0 at the left edge, 0.5 in the
      middle, 1 at the right edge.
    y: scalar in [0, 1], likewise from the top edge.
    size: (H, W) of the image in pixels.

  Returns:
    (3, 3), output to input coordinates.
  """
  share = jnp.asarray(share)
  height, width = size
  kept = 1 - 2 * share
  return _diagonal(
    kept, kept, 2 * share * x * width, 2 * share * y * height
  )


def _switched(switch):
  """Returns 0, 1 and the switch as one of them, of its dtype."""
  switch = jnp.asarray(switch)
  zero, one = jnp.zeros_like(switch), jnp.ones_like(switch)
  return zero, one, jnp.where(switch > 0.5, one, zero)


def _diagonal(factor_x, factor_y, x, y):
  """Returns the homography p -> (factor_x p_x + x, factor_y p_y + y)."""
  zero, one = jnp.zeros_like(factor_x), jnp.ones_like(factor_x)
  return _matrix([factor_x, zero, x], [zero, factor_y, y], [zero, zero, one])


def _matrix(*rows):
  return jnp.stack([jnp.stack(row) for row in rows])


def _entry(name, function, unit, identity, sensible_range, source, **fields):
  return perturbation.Perturbation(
    name, 'geometric', function, unit, identity, sensible_range, source,
    family='geometry', **fields,
  )


# Entries that are zero where lines stay parallel, and where rows or columns
# stay such.
_AFFINE = ((2, 0), (2, 1))
_ROWS, _COLUMNS = (1, 0), (0, 1)
_AXES = (*_AFFINE, _ROWS, _COLUMNS)

_MOVED = {
  'symptoms': (
    'parts are not centred', 'the trigger is late', 'part of it is cut off',
    'the stop has moved',
  ),
  'caveats': 'Moves the background with the part; shows the fill where the '
  'real camera would show more of the scene.',
}
_ALONG_THE_WAY = ('share of the free way', 0.5, (0.0, 1.0), (0.0, 1.0))

PERTURBATIONS = (
  _entry(
    'rotation', rotation, 'deg', 0.0, (-90.0, 90.0),
    'torchvision rotate: counter-clockwise about the centre',
    zeros=_AFFINE,
    happens='The part lies turned under the camera, or the camera has turned '
    'in its mount.',
    symptoms=(
      'parts lie crooked', 'the camera was knocked', 'the fixture has play',
      'parts come turned on the belt',
    ),
    caveats='Turns the light and the background with the part; the corners '
    'show the fill.',
  ),
  _entry(
    'scale', scaling, 'factor', 1.0, (0.5, 2.0),
    'torchvision affine: zoom about the centre',
    limits=(0.05, 20.0), minifies=True,
    zeros=_AXES,
    happens='The part is nearer to the camera or further away, or the lens was '
    'zoomed or exchanged.',
    symptoms=(
      'parts look larger or smaller than before', 'the working distance moved',
      'another lens was fitted', 'a new part size',
    ),
    caveats='Enlarging invents no detail and the focus does not change.',
  ),
  _entry(
    'aspect', aspect, 'ratio', 1.0, (0.7, 1.4),
    'width / height times the ratio, areas kept (torchvision '
    'RandomResizedCrop ratio)',
    limits=(0.05, 20.0), minifies=True,
    zeros=_AXES,
    happens='The picture is stretched in one direction: a line scan camera '
    'whose clock does not match the belt, or a resize that ignores the '
    'proportions.',
    symptoms=(
      'circles look like ellipses', 'the belt speed was changed',
      'images come stretched', 'the resolution was changed',
    ),
    caveats='The same stretch all over the picture; a belt whose speed varies '
    'within an image stretches its rows differently.',
  ),
  _entry(
    'translation_x', translation_x, 'share of the width', 0.0, (-0.5, 0.5),
    'torchvision affine: positive values move the picture to the right',
    zeros=_AXES,
    happens='The part lies further to one side, or the trigger comes early or '
    'late.',
    **_MOVED,
  ),
  _entry(
    'translation_y', translation_y, 'share of the height', 0.0, (-0.5, 0.5),
    'torchvision affine: positive values move the picture down',
    zeros=_AXES,
    happens='The part lies higher or lower in the picture, or the trigger '
    'comes early or late.',
    **_MOVED,
  ),
  _entry(
    'shear_x', shear_x, 'deg', 0.0, (-20.0, 20.0),
    'torchvision affine: first component of shear',
    limits=(-80.0, 80.0), minifies=True,
    zeros=(*_AFFINE, _ROWS),
    happens='The part moves sideways while a rolling shutter reads one row '
    'after the other; the tangent is the speed in pixels per row time.',
    symptoms=(
      'upright edges lean while the belt runs', 'squares become slanted',
      'leaning only at speed', 'the cheap camera skews moving parts',
    ),
    caveats='A steady speed; vibration under a rolling shutter bends the edges '
    'instead. Carries no motion blur.',
  ),
  _entry(
    'shear_y', shear_y, 'deg', 0.0, (-20.0, 20.0),
    'torchvision affine: second component of shear',
    limits=(-80.0, 80.0), minifies=True,
    zeros=(*_AFFINE, _COLUMNS),
    happens='A line scan camera, or a rolling shutter that reads columns, does '
    'not stand square to the motion.',
    symptoms=(
      'level edges slope', 'squares become slanted',
      'the line camera was mounted askew',
    ),
    caveats='A steady speed and a flat part.',
  ),
  _entry(
    'flip_x', flip_x, '0 or 1', 0.0, (0.0, 1.0), 'torchvision hflip',
    mirrors=1,
    limits=(0.0, 1.0), differentiable=False,
    zeros=_AXES,
    happens='The picture is mirrored left to right: a mirror in the path of '
    'light, another camera driver, a left-hand part.',
    symptoms=(
      'letters are mirrored', 'the driver was updated',
      'left and right parts are mixed', 'a mirror was added',
    ),
    caveats='Jumps at one half; meant for a factor of two values.',
  ),
  _entry(
    'flip_y', flip_y, '0 or 1', 0.0, (0.0, 1.0), 'torchvision vflip',
    mirrors=0,
    limits=(0.0, 1.0), differentiable=False,
    zeros=_AXES,
    happens='The picture is mirrored top to bottom: another camera driver, or '
    'a line scan camera on a belt that runs backwards.',
    symptoms=(
      'pictures are upside down', 'the driver was updated',
      'the belt runs backwards',
    ),
    caveats='Jumps at one half; meant for a factor of two values.',
  ),
  _entry(
    'crop', crop, 'share of the side', 0.0, (0.0, 0.25),
    'share cut off at each side, enlarged to the full picture (torchvision '
    'resized_crop)',
    limits=(0.0, 0.49),
    others=(
      perturbation.Parameter('crop_x', *_ALONG_THE_WAY),
      perturbation.Parameter('crop_y', *_ALONG_THE_WAY),
    ),
    zeros=_AXES,
    happens='The region of interest is set tighter or elsewhere, so that the '
    'part fills more of the picture or loses an edge.',
    symptoms=(
      'the region of interest was redrawn', 'edges of the part are missing',
      'the detector in front crops too tightly',
    ),
    caveats='Width and height are cut by the same share; combine with aspect '
    'for others.',
  ),
)
