"""Spatter by the formula of ImageNet-C and CIFAR-10-C: splashes of water, mud.

The published program finds the border of a splash of water with Canny's
detector, takes the distance from it, equalises and embosses it; `canny` and
`distance` do this as OpenCV does. Draws are those of `random_fields`. For a
smooth response to one amount use `splashes`.

References:
  Hendrycks and Dietterich, Benchmarking neural network robustness to common
  corruptions and perturbations, ICLR 2019, and its published code.
  Canny, A computational approach to edge detection, PAMI 8(6), 1986.
"""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np

from jaxsens.perturbations import published_blurs
from jaxsens.perturbations import random_fields
from jaxsens.perturbations import textures

_MUD = (63 / 255, 42 / 255, 20 / 255)
_WATER = (175 / 255, 238 / 255, 238 / 255)
# Largest radius of a Gaussian, four deviations.
_MAX_GAUSSIAN_RADIUS = 16
_LARGEST_DISTANCE = 20
_LEAST_COVER = 0.8
# Of Canny's detector, in levels of 255. The program also keeps edges above 50
# that hang on these: no more than 0.2 % of the pixels.
_EDGE_THRESHOLD = 150
_SOBEL = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
_EMBOSS = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
_BOX = np.full((3, 3), 1 / 9)


def imagenet_spatter(
  image: ArrayLike,
  loc: ArrayLike,
  scale: ArrayLike,
  sigma: ArrayLike,
  threshold: ArrayLike,
  strength: ArrayLike,
  mud: bool,
  *,
  key: jax.Array,
) -> jax.Array:
  """Returns the image with splashes of water or of mud.

  Both start from normal noise under a Gaussian blur. Mud: the part above the
  threshold, blurred by `strength` and cleared below 0.8, covers in brown.
  Water adds turquoise in proportion to the noise times the relief.

  Args:
    image: (H, W, C) in [0, 1].
    loc: mean of the noise.
    scale: standard deviation of the noise.
    sigma: deviation of the blur in pixels, at most 4.
    threshold: noise below it is no splash.
    strength: of water, the greatest addition; of mud, the deviation in pixels
      of the blur of its border.
    mud: whether it is mud; a Python bool.
    key: of the noise.

  Returns:
    (H, W, C) in [0, 1].
  """
  image = textures.float_image(image)
  loc, scale, sigma, threshold, strength = (
    jnp.asarray(a, image.dtype)
    for a in (loc, scale, sigma, threshold, strength)
  )
  noise = random_fields.normal(key, image.shape[:2], image.dtype)
  liquid = _gaussian(loc + scale * noise, sigma)
  if mud:
    cover = _gaussian((liquid > threshold).astype(image.dtype), strength)
    cover = jnp.where(cover < _LEAST_COVER, 0, cover)[..., None]
    brown = textures.colour(_MUD, image)
    return jnp.clip(image + cover * (brown - image), 0, 1)
  liquid = jnp.where(liquid < threshold, jnp.zeros_like(liquid), liquid)
  levels = jnp.floor(jnp.clip(255 * liquid, 0, 255))
  layer = levels * _relief(distance(canny(levels)))
  peak, water = layer.max(), textures.colour(_WATER, image)
  layer = strength * layer / jnp.where(peak > 0, peak, jnp.ones_like(peak))
  return jnp.clip(image + layer[..., None] * water, 0, 1)


def canny(levels: jax.Array) -> jax.Array:
  """Returns where the slope is steep and steepest across the edge.

  Args:
    levels: (H, W), whole numbers from 0 to 255.

  Returns:
    (H, W), bool; OpenCV's `Canny` of aperture 3 and thresholds 150 and 150.
  """
  across = _filter3(levels, _SOBEL, 'edge')
  down = _filter3(levels, _SOBEL.T, 'edge')
  size = jnp.abs(across) + jnp.abs(down)
  height, width = levels.shape
  padded = jnp.pad(size, 1)
  at = lambda i, j: padded[1 + i:1 + i + height, 1 + j:1 + j + width]
  tangent = math.tan(math.pi / 8)
  flat = jnp.abs(down) < jnp.abs(across) * tangent
  steep = jnp.abs(down) > jnp.abs(across) * (2 + tangent)
  falling = (across < 0) == (down < 0)
  # OpenCV's rules for ties.
  largest = jnp.where(
    flat, (size > at(0, -1)) & (size >= at(0, 1)),
    jnp.where(
      steep, (size > at(-1, 0)) & (size >= at(1, 0)),
      jnp.where(
        falling, (size > at(-1, -1)) & (size > at(1, 1)),
        (size > at(-1, 1)) & (size > at(1, -1)),
      ),
    ),
  )
  return largest & (size > _EDGE_THRESHOLD)


def distance(edges: jax.Array) -> jax.Array:
  """Returns the Euclidean distance from the nearest True, at most 20 pixels.

  Args:
    edges: (H, W), bool.

  Returns:
    (H, W), float.
  """
  squares = jnp.where(edges, 0.0, float(_LARGEST_DISTANCE**2))
  # The nearest in the column, then the nearest of the columns beside.
  return jnp.sqrt(_nearest(_nearest(squares, 0), 1))


def _nearest(squares, axis):
  """Returns min over d of squares[i + d] + d**2 along an axis."""
  reach = _LARGEST_DISTANCE
  pad = [(0, 0), (0, 0)]
  pad[axis] = (reach, reach)
  padded = jnp.pad(squares, pad, constant_values=float(reach**2))

  def lower(least, step):
    for start in (reach - step, reach + step):
      beside = jax.lax.dynamic_slice_in_dim(
        padded, start, squares.shape[axis], axis
      )
      least = jnp.minimum(least, beside + (step * step).astype(least.dtype))
    return least, None

  return jax.lax.scan(lower, squares, jnp.arange(1, reach))[0]


def _relief(distance):
  """Returns the embossed and equalised distance in levels of 255."""
  whole = jnp.floor(_filter3(distance, _BOX, 'reflect') + 1e-4)
  # The cumulative histogram; there are 21 whole distances.
  below = [(whole <= k).mean() for k in range(_LARGEST_DISTANCE + 1)]
  least = (whole == whole.min()).mean()
  level = below[0] + sum(
    (below[k] - below[k - 1]) * (whole >= k)
    for k in range(1, _LARGEST_DISTANCE + 1)
  )
  level = jnp.round(255 * (level - least) / jnp.maximum(1 - least, 1e-6))
  level = jnp.clip(_filter3(level, _EMBOSS, 'reflect'), 0, 255)
  return jnp.round(_filter3(level, _BOX, 'reflect'))


def _filter3(field, kernel, border):
  """Returns the correlation with a 3 x 3 kernel."""
  # NumPy cannot reflect a single row.
  border = border if min(field.shape) > 1 else 'edge'
  rows, columns = np.nonzero(kernel)
  return published_blurs.sum_of_shifts(
    jnp.pad(field, 1, mode=border), field.shape,
    jnp.asarray(kernel[rows, columns], field.dtype), rows, columns,
  )


def _gaussian(field, sigma):
  """Returns scipy's `gaussian_filter(mode='nearest', truncate=4)`."""
  reach = _MAX_GAUSSIAN_RADIUS
  matrices = []
  for num in field.shape:
    rows = jnp.arange(num, dtype=field.dtype)[:, None] + reach
    offset = rows - jnp.arange(num + 2 * reach, dtype=field.dtype)
    weights = jnp.exp(-(offset**2) / (2 * sigma**2))
    inside = jnp.abs(offset) <= jnp.floor(4 * sigma + 0.5)
    weights = jnp.where(inside, weights, jnp.zeros_like(weights))
    matrices.append(weights / weights.sum(1, keepdims=True))
  return jnp.linalg.multi_dot(
    [matrices[0], jnp.pad(field, reach, mode='edge'), matrices[1].T],
    precision=jax.lax.Precision.HIGHEST,
  )
