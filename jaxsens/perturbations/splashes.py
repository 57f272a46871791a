"""Liquids on the lens: splashes of water or mud, and droplets.

Each function takes a float image (H, W, C) in [0, 1], scalar values and a key;
it returns an image of the same shape and dtype in [0, 1]. The main value 0
gives the image back exactly. One key fixes positions and shapes, so the result
is smooth in every value. Lengths are in pixels.
"""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsens.perturbations import interpolation
from jaxsens.perturbations import perturbation
from jaxsens.perturbations import random_fields
from jaxsens.perturbations import textures

_NUM_DROPLETS = 20
_MUD = (63 / 255, 42 / 255, 20 / 255)
_WATER = (175 / 255, 238 / 255, 238 / 255)


def spatter(
  image: ArrayLike,
  share: ArrayLike,
  mud: ArrayLike = 0.0,
  size: ArrayLike = 4.0,
  *,
  key: jax.Array,
) -> jax.Array:
  """Returns the image with splashes of water or mud on the lens.

  The splashes are the parts of a smooth random field above its quantile
  1 - share. Water adds a pale layer with a bright and a dark side; mud is
  opaque brown.

  Args:
    image: (H, W, C) in [0, 1].
    share: scalar in [0, 1], of the picture that is covered, borders included;
      0 is the identity.
    mud: scalar from 0 (water) to 1 (mud), mixed in between.
    size: scalar above 0, deviation in pixels of the smoothing of the field;
      splashes are about four times as wide.
    key: of the field.

  Returns:
    (H, W, C) in [0, 1].
  """
  image = textures.float_image(image)
  share, mud = (jnp.asarray(a, image.dtype) for a in (share, mud))
  field = textures.smooth_noise(key, image.shape[:2], size, image.dtype)
  # From 0 at the highest point to 1; its quantiles are the shares.
  rank = jax.lax.erfc(field * math.sqrt(0.5)) / 2
  excess = share - rank
  mask = textures.smoothstep(excess / 0.03)
  relief = textures.smoothstep(excess / 0.3) * mask
  slope = jnp.roll(relief, (1, 1), (0, 1)) - jnp.roll(relief, (-1, -1), (0, 1))
  slope = slope * mask
  water_layer = (0.2 * mask - 0.5 * slope)[..., None]
  water = image + water_layer * textures.colour(_WATER, image)
  muddy = mask[..., None] * (textures.colour(_MUD, image) - image)
  return jnp.clip(water + mud * (image + muddy - water), 0, 1)


def droplets(
  image: ArrayLike, amount: ArrayLike, *, key: jax.Array
) -> jax.Array:
  """Returns the image through 20 water droplets on the lens.

  A droplet is a strong small lens: it shows a wide part of the scene upside
  down, twice as far from its centre on the other side, and has a dark rim.
  Its radius is amount times 0.03 to 0.1 of the shorter side. Below an amount of
  0.2 the drops are flat and weak lenses.

  Args:
    image: (H, W, C) in [0, 1].
    amount: scalar in [0, 1], radius relative to the largest; 0 is the
      identity.
    key: of positions and sizes.

  Returns:
    (H, W, C) in [0, 1]; reflected at the borders.
  """
  image = textures.float_image(image)
  amount = jnp.asarray(amount, image.dtype)
  draws = random_fields.uniform(key, (3, _NUM_DROPLETS), image.dtype)
  x, y = textures.offsets(draws, image.shape)
  radii = amount * 0.1 * min(image.shape[:2]) * (0.3 + 0.7 * draws[2] ** 2)
  present = textures.smoothstep(5 * amount)
  shift_x = shift_y = shade = jnp.zeros(image.shape[:2], image.dtype)
  for j in range(_NUM_DROPLETS):
    # A tiny radius instead of none keeps the quotient finite.
    squares = (x[j] * x[j] + y[j] * y[j]) / (radii[j] ** 2 + 1e-3)
    mask = present * textures.smoothstep((1 - squares) / 0.2)
    shift_x, shift_y = shift_x - 3 * mask * x[j], shift_y - 3 * mask * y[j]
    shade = jnp.maximum(shade, mask * textures.smoothstep(2 * squares - 1))
  seen = _displaced(image, shift_x, shift_y)
  return seen * (1 - 0.45 * shade[..., None])


def _displaced(image, shift_x, shift_y):
  """Returns the image read, bilinearly, at shifted pixels, reflected."""
  height, width, _ = image.shape
  rows, columns = interpolation.pixel_grid(image)
  return interpolation.bilinear(
    image, _reflected(rows + shift_y, height),
    _reflected(columns + shift_x, width),
  )


def _reflected(position, num):
  """Folds positions into [0, num - 1], about the centres at the ends."""
  if num == 1:
    return jnp.zeros_like(position)
  period = 2 * (num - 1)
  position = jnp.mod(position, period)
  return jnp.minimum(position, period - position)


_UNIT = (0.0, 1.0)

PERTURBATIONS = (
  perturbation.Perturbation(
    'spatter', 'spatial', spatter, 'share covered', identity=0.0,
    sensible_range=(0.0, 0.4), limits=_UNIT, random=True,
    source='level set of smooth Gaussian noise at a quantile; after ImageNet-C '
      'spatter, whose formula is imagenet_spatter',
    others=(
      perturbation.Parameter('spatter_mud', 'share of mud', 0.0, _UNIT, _UNIT),
      perturbation.Parameter(
        'spatter_size', 'px', 4.0, (1.0, 10.0), (0.3, 500.0)
      ),
    ),
    family='weather and dirt',
    happens='Coolant, water, paint or mud splashes on the window and hides or '
      'lightens patches of the picture.',
    symptoms=(
      'patches on the window', 'coolant splashes on the camera',
      'brown stains', 'paint mist on the glass',
    ),
    caveats='Water does not refract here (see droplets); splashes do not run. '
      'The share holds on average over keys.',
  ),
  perturbation.Perturbation(
    'droplets', 'spatial', droplets, 'relative radius', identity=0.0,
    sensible_range=_UNIT, limits=_UNIT, random=True,
    source='20 discs that show the scene upside down, as drops do (Roser and '
      'Geiger 2009); NRTK WaterDropletPerturber traces rays instead',
    family='weather and dirt',
    happens='Water or coolant drops sit on the lens; each shows a small '
      'picture of the scene, upside down.',
    symptoms=(
      'drops on the lens', 'round distorted spots after washing',
      'condensation on the window', 'upside-down details',
    ),
    caveats='Round drops of fixed number that grow; in focus, no blur. Rays '
      'are not traced.',
  ),
)
