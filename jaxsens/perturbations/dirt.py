"""Dirt on the lens or in front of it, damage of the window, occlusion.

Each function takes a float image (H, W, C) in [0, 1], scalar values and, where
it is random, a key; it returns an image of the same shape and dtype in [0, 1].
The main value 0 gives the image back exactly. One key fixes positions, shapes
and order, so the result is smooth in every value. Lengths are in pixels,
positions are shares of width and height from the upper left corner.
"""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np

from jaxsens.perturbations import perturbation
from jaxsens.perturbations import random_fields
from jaxsens.perturbations import textures

_NUM_SPECKS = 24
_SPECKS_AT_ONCE = 6
_NUM_SCRATCHES = 7
# Deviation of the blur under grease, as share of the shorter side.
_GREASE_BLUR = 0.03


def dust(
  image: ArrayLike,
  opacity: ArrayLike,
  radius: ArrayLike = 3.0,
  softness: ArrayLike = 0.8,
  *,
  key: jax.Array,
) -> jax.Array:
  """Returns the image seen past 24 dark specks on the lens or sensor window.

      x prod_j (1 - opacity dark_j mask_j)

  where a mask falls from 1 to 0 about the border of an ellipse; the ellipses
  have 0.4 to 1.6 times the radius, dark_j is 0.4 to 1.

  Args:
    image: (H, W, C) in [0, 1].
    opacity: scalar in [0, 1], of the darkest speck; 0 is the identity.
    radius: scalar above 0, mean radius in pixels.
    softness: scalar >= 0, width of the border relative to the radius: 0 for
      dust on the sensor window (a pixel remains), 1 for dust out of focus.
    key: of positions, shapes and darkness.

  Returns:
    (H, W, C) in [0, 1].
  """
  image = textures.float_image(image)
  opacity, radius, softness = (
    jnp.asarray(a, image.dtype) for a in (opacity, radius, softness)
  )
  draws = random_fields.uniform(key, (6, _NUM_SPECKS), image.dtype)
  radii = radius * (0.4 + 1.2 * draws[2])
  # In squared radii; a pixel is about 2 / radius of them.
  border = jnp.sqrt(softness**2 + radii**-2)
  cos, sin = (f(2 * math.pi * draws[3]) for f in (jnp.cos, jnp.sin))
  stretch = 1 + 0.8 * draws[4]
  # An ellipse as a quadratic form of the offsets, in units of the border.
  unit = -0.5 / (border * radii**2)
  specks = jnp.stack([
    draws[0] * image.shape[1], draws[1] * image.shape[0],
    unit * (cos * cos * stretch + sin * sin / stretch),
    unit * 2 * cos * sin * (stretch - 1 / stretch),
    unit * (sin * sin * stretch + cos * cos / stretch),
    0.5 + 0.5 / border, opacity * (0.4 + 0.6 * draws[5]),
  ], -1)
  columns, rows = textures.centres(image.shape[:2], image.dtype)

  def shade(transmission, group):
    for left, top, xx, xy, yy, middle, dark in group:
      x, y = columns - left, rows - top
      height = (xx * x * x + middle) + (xy * x) * y + yy * y * y
      transmission = transmission * (1 - dark * textures.smoothstep(height))
    return transmission, None

  # A few at a time: all of them unrolled take seconds to compile.
  clear = jnp.ones(image.shape[:2], image.dtype)
  groups = specks.reshape(-1, _SPECKS_AT_ONCE, specks.shape[1])
  transmission, _ = jax.lax.scan(shade, clear, groups)
  return image * transmission[..., None]


def scratches(
  image: ArrayLike,
  opacity: ArrayLike,
  width: ArrayLike = 1.0,
  level: ArrayLike = 0.9,
  *,
  key: jax.Array,
) -> jax.Array:
  """Returns the image under 7 slightly bent lines that taper off.

      x + opacity (1 - prod_j (1 - cover_j)) (level - x)

  with cover_j the share of a pixel's width that the line covers, across it.

  Args:
    image: (H, W, C) in [0, 1].
    opacity: scalar in [0, 1]; 0 is the identity.
    width: scalar >= 0, of the lines, in pixels.
    level: gray level of the lines: bright where the edges of a scratch catch
      light, dark for grooves in the shade.
    key: of the lines.

  Returns:
    (H, W, C) in [0, 1].
  """
  image = textures.float_image(image)
  opacity, width, level = (
    jnp.asarray(a, image.dtype) for a in (opacity, width, level)
  )
  draws = random_fields.uniform(key, (6, _NUM_SCRATCHES), image.dtype)
  x, y = textures.offsets(draws, image.shape)
  cos, sin = (f(math.pi * draws[2]) for f in (jnp.cos, jnp.sin))
  half = max(image.shape[:2]) * (0.12 + 0.4 * draws[3])
  bend = 0.3 * (draws[4] - 0.5) / half
  clear = 1.0
  for j in range(_NUM_SCRATCHES):
    along, across = x[j] * cos[j] + y[j] * sin[j], y[j] * cos[j] - x[j] * sin[j]
    across = jnp.abs(across - bend[j] * along * along)
    cover = _overlap(across - 0.5, across + 0.5, -width / 2, width / 2)
    strength = textures.smoothstep(2 - 2 * jnp.abs(along) / half[j])
    clear = clear * (1 - cover * strength * (0.4 + 0.6 * draws[5, j]))
  return image + opacity * (1 - clear)[..., None] * (level - image)


def _overlap(low, high, lower, upper):
  """Returns the length that two intervals share."""
  shared = jnp.minimum(high, upper) - jnp.maximum(low, lower)
  return jnp.maximum(shared, 0)


def smudge(
  image: ArrayLike,
  amount: ArrayLike,
  x: ArrayLike = 0.5,
  y: ArrayLike = 0.5,
  size: ArrayLike = 0.6,
) -> jax.Array:
  """Returns the image with a greasy fingerprint on the lens.

      x + amount mask (0.75 blur + 0.25 0.8 - x)

  where the mask is an upright oval with soft border and the ridges of a
  finger, and blur is a Gaussian of deviation 3 % of the shorter side.

  Args:
    image: (H, W, C) in [0, 1].
    amount: scalar in [0, 1]; 0 is the identity.
    x: centre, share of the width.
    y: centre, share of the height.
    size: scalar above 0, height of the print as share of the shorter side.

  Returns:
    (H, W, C) in [0, 1].
  """
  image = textures.float_image(image)
  amount, x, y, size = (
    jnp.asarray(a, image.dtype) for a in (amount, x, y, size)
  )
  columns, rows = textures.centres(image.shape[:2], image.dtype)
  extent = size * min(image.shape[:2])
  u = (columns - x * image.shape[1]) / (0.75 * extent)
  v = (rows - y * image.shape[0]) / extent
  squares = 4 * (u * u + v * v)
  # Ridges are arches about a point below the centre, 24 to the height; they
  # fade where they are less than four pixels apart.
  contrast = 0.4 * textures.smoothstep(extent / 48 - 1)
  arch = jnp.sqrt(u * u + 0.6 * (v - 0.3) ** 2 + 0.01) + 0.05 * jnp.sin(9 * u)
  ridges = 1 - contrast * (0.5 + 0.5 * jnp.sin(2 * math.pi * 24 * arch))
  mask = (amount * textures.smoothstep(1.3 - squares) * ridges)[..., None]
  grease = 0.75 * _blurred(image) + 0.2
  return image + mask * (grease - image)


def _blurred(image):
  """Returns the image under a wide Gaussian, through a four times coarser one.

  Weights are divided by their sum, also at the borders: flat stays flat.
  """
  deviation = max(0.5, _GREASE_BLUR * min(image.shape[:2]))
  down_y, up_y = _coarse(image.shape[0], deviation, image.dtype)
  down_x, up_x = _coarse(image.shape[1], deviation, image.dtype)
  coarse = jnp.einsum('ih,jw,hwc->ijc', down_y, down_x, image)
  return jnp.einsum('hi,wj,ijc->hwc', up_y, up_x, coarse)


def _coarse(num, deviation, dtype):
  """Returns matrices of Gaussian means on a coarse grid, and back linearly."""
  step = max(1, min(4, int(deviation)))
  fine = np.arange(num) + 0.5
  coarse = step * (np.arange(-(-num // step)) + 0.5)
  distance = fine - coarse[:, None]
  down = np.exp(-(distance**2) / (2 * deviation**2))
  up = np.maximum(1 - np.abs(distance.T) / step, 0)
  return tuple(
    jnp.asarray(m / m.sum(1, keepdims=True), dtype) for m in (down, up)
  )


def occlusion(
  image: ArrayLike,
  share: ArrayLike,
  x: ArrayLike = 0.5,
  y: ArrayLike = 0.5,
  level: ArrayLike = 0.0,
) -> jax.Array:
  """Returns the image with an upright gray square in front.

  A pixel that the square covers in part is mixed by the share of its area.

  Args:
    image: (H, W, C) in [0, 1].
    share: scalar >= 0, side of the square as share of the width; 0 is the
      identity.
    x: centre, share of the width; parts outside the picture are lost.
    y: centre, share of the height.
    level: gray level of the square, in [0, 1].

  Returns:
    (H, W, C) in [0, 1].
  """
  image = textures.float_image(image)
  share, x, y, level = (
    jnp.asarray(a, image.dtype) for a in (share, x, y, level)
  )
  height, width, _ = image.shape
  half = share * width / 2
  columns, rows = textures.centres((height, width), image.dtype)
  cover = math.prod(
    _overlap(p - 0.5, p + 0.5, c - half, c + half)
    for p, c in ((columns, x * width), (rows, y * height))
  )
  return image + cover[..., None] * (level - image)


_UNIT = (0.0, 1.0)
_FULL = {'sensible_range': _UNIT, 'limits': _UNIT, 'identity': 0.0}

PERTURBATIONS = (
  perturbation.Perturbation(
    'dust', 'spatial', dust, 'opacity', identity=0.0,
    sensible_range=(0.0, 0.7), limits=_UNIT, random=True,
    source='24 soft ellipses that take light, fixed by the key',
    others=(
      perturbation.Parameter(
        'dust_radius', 'px', 3.0, (1.0, 10.0), (0.3, 500.0)
      ),
      perturbation.Parameter(
        'dust_softness', 'radii', 0.8, (0.0, 1.0), (0.0, 3.0)
      ),
    ),
    family='weather and dirt',
    happens='Dust settles on the lens or the sensor window and throws dark '
      'specks that stay where they are from picture to picture.',
    symptoms=(
      'the same dark spots in every picture', 'grinding dust on the lens',
      'spots go away after wiping', 'false pores',
    ),
    caveats='The number is fixed; dust out of focus is soft but does not '
      'depend on the aperture.',
  ),
  perturbation.Perturbation(
    'scratches', 'spatial', scratches, 'opacity', **_FULL, random=True,
    source='7 bent, tapering lines with the area of a pixel they cover',
    others=(
      perturbation.Parameter(
        'scratches_width', 'px', 1.0, (0.3, 4.0), (0.0, 100.0)
      ),
      perturbation.Parameter(
        'scratches_level', 'gray level', 0.9, _UNIT, _UNIT
      ),
    ),
    family='weather and dirt',
    happens='The protective window or the part itself is scratched; the edges '
      'catch light or lie in the shade.',
    symptoms=(
      'fine bright lines', 'the window was wiped with a dirty cloth',
      'false cracks', 'scratches from handling',
    ),
    caveats='The number is fixed; no flare along the scratch, and the same '
      'sharpness wherever it lies.',
  ),
  perturbation.Perturbation(
    'smudge', 'spatial', smudge, 'amount', **_FULL,
    source='blend with a Gaussian blur and a gray veil under a mask',
    others=(
      perturbation.Parameter('smudge_x', 'share of the width', 0.5, _UNIT),
      perturbation.Parameter('smudge_y', 'share of the height', 0.5, _UNIT),
      perturbation.Parameter(
        'smudge_size', 'share of the shorter side', 0.6, (0.2, 1.5),
        (0.01, 10.0),
      ),
    ),
    family='weather and dirt',
    happens='Somebody touched the lens, or oil splashed on it: one region is '
      'milky and soft.',
    symptoms=(
      'one area is always blurred', 'fingerprint on the lens',
      'halo about bright parts', 'worse after the lens was changed',
    ),
    caveats='One print, upright; bright lights do not throw streaks.',
  ),
  perturbation.Perturbation(
    'occlusion', 'spatial', occlusion, 'share of the width', identity=0.0,
    sensible_range=(0.0, 0.6), limits=(0.0, 10.0),
    source='gray square with exact pixel coverage; occlusion sensitivity of '
      'Zeiler and Fergus 2014 moves such a square',
    others=(
      perturbation.Parameter('occlusion_x', 'share of the width', 0.5, _UNIT),
      perturbation.Parameter('occlusion_y', 'share of the height', 0.5, _UNIT),
      perturbation.Parameter(
        'occlusion_level', 'gray level', 0.0, _UNIT, _UNIT
      ),
    ),
    family='weather and dirt',
    happens='A gripper, a cable, a label or a hand is in front of the part.',
    symptoms=(
      'something is in the way', 'the gripper is in the picture',
      'a cable hangs in front of the camera', 'half of the part is hidden',
    ),
    caveats='One upright square of one gray level; no shadow, in focus.',
  ),
)
