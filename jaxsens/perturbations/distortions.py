"""Distortions of the picture by the lens.

They are maps of coordinates, `geometry.Distortion`, that compose with
homographies into one resampling.
"""

import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsens.perturbations import geometry
from jaxsens.perturbations import perturbation

# Radii beyond this, in half diagonals, get the factor of this radius: only
# points far outside any picture, near the horizon of a perspective.
_MAX_RADIUS = 4.0


def radial(
  k1: ArrayLike, k2: ArrayLike, size: tuple[int, int]
) -> geometry.Distortion:
  """Returns the radial distortion of a lens about the centre.

  With r the distance of the output point from the centre in half diagonals of
  the picture, it shows the input in the same direction at

      r_in = r (1 + k1 r^2 + k2 r^4)

  Positive coefficients are a barrel (the picture shrinks towards its corners
  and the corners show the fill), negative ones a pincushion. This is Brown's
  direction, from the distorted to the ideal point, which needs no inverse;
  OpenCV's coefficients go the other way and have the opposite sign to first
  order. One to one within the picture where 1 + 3 k1 r^2 + 5 k2 r^4 > 0 for r
  up to 1.

  Args:
    k1: scalar.
    k2: scalar.
    size: (H, W) of the image in pixels.

  References:
    Brown, Close-range camera calibration, Photogrammetric Engineering 37(8),
    855-866, 1971.
  """
  dtype = jnp.result_type(0.0, k1, k2)
  parameters = jnp.stack([jnp.asarray(k1, dtype), jnp.asarray(k2, dtype)])
  return geometry.Distortion(parameters, _radial_displacement, tuple(size))


def lens(
  k1: ArrayLike, k2_share: ArrayLike, size: tuple[int, int]
) -> geometry.Distortion:
  """Returns `radial` with k2 as a share of k1, so that k1 = 0 is the identity.

      r_in = r (1 + k1 (r^2 + k2_share r^4))

  Args:
    k1: scalar; positive for a barrel, negative for a pincushion.
    k2_share: scalar, k2 / k1; negative for a moustache, whose bending turns
      back towards the corners.
    size: (H, W) of the image in pixels.

  Returns:
    The distortion, one to one for k1 in [-0.18, 0.45] and k2_share in
    [-1, 0.5].
  """
  return radial(k1, jnp.multiply(k1, k2_share), size)


def _radial_displacement(parameters, u, v):
  k1, k2 = parameters
  square = u * u + v * v
  # The derivative of a minimum would divide.
  square = jnp.where(square < _MAX_RADIUS**2, square, _MAX_RADIUS**2)
  stretch = square * (k1 + k2 * square)
  return u * stretch, v * stretch


PERTURBATIONS = (
  perturbation.Perturbation(
    'lens', 'geometric', lens, 'k1 at half the diagonal', 0.0, (-0.15, 0.3),
    'Brown 1971: radial polynomial from the distorted to the ideal point',
    limits=(-0.18, 0.45), minifies=True, family='geometry',
    others=(
      perturbation.Parameter(
        'lens_k2', 'share of lens', 0.0, (-0.5, 0.5), (-1.0, 0.5)
      ),
    ),
    happens='The lens bends straight lines: outwards with short focal lengths '
    '(barrel, positive), inwards with long or zoom lenses (pincushion, '
    'negative).',
    symptoms=(
      'straight edges look bent', 'a wide-angle lens was fitted',
      'parts at the edge look smaller', 'the calibration was lost',
    ),
    caveats='About the centre of the picture and without tangential terms; the '
    'lens does not get darker or less sharp towards the corners.',
  ),
)
