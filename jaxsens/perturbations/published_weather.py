"""Fog, frost, snow and spatter by the formulas of ImageNet-C and CIFAR-C.

Plain functions of a float image (H, W, C) in [0, 1], the published tuple of
parameters and a key; all parameters may be traced, so that a severity may lie
between the published ones. Draws are those of `random_fields`: single pictures
differ from those of NumPy while their laws agree. What else differs is said in
each function. For a smooth response to one amount use `weather` and
`splashes`.

References:
  Hendrycks and Dietterich, Benchmarking neural network robustness to common
  corruptions and perturbations, ICLR 2019, and its published code.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsens.perturbations import random_fields
from jaxsens.perturbations import textures

_LUMA = (0.299, 0.587, 0.114)
_MUD = (63 / 255, 42 / 255, 20 / 255)
_WATER = (175 / 255, 238 / 255, 238 / 255)
# Largest radius of the motion blur of snow, and of the Gaussian of spatter
# (four deviations), that the fixed supports have room for.
_MAX_MOTION_RADIUS = 14
_MAX_GAUSSIAN_RADIUS = 16
_DISTANCE_CAP = 20


def imagenet_fog(
  image: ArrayLike, amplitude: ArrayLike, decay: ArrayLike, *, key: jax.Array
) -> jax.Array:
  """Returns clip((x + amplitude plasma) m / (m + amplitude)), m = max x.

  The plasma is diamond-square on the smallest square of a power of two that
  covers the image, cut to its upper left corner.

  Args:
    image: (H, W, C) in [0, 1].
    amplitude: scalar >= 0; 1.5 to 3 in ImageNet-C, 0.2 to 1.5 in CIFAR-C.
    decay: scalar above 0; 2 down to 1.4, and 3 down to 1.75.
    key: of the plasma.

  Returns:
    (H, W, C) in [0, 1]; a black image stays black, as published.
  """
  image = textures.float_image(image)
  amplitude = jnp.asarray(amplitude, image.dtype)
  side = textures.power_of_two(max(image.shape[:2]))
  cloud = textures.plasma(key, (side, side), decay, image.dtype)
  cloud = cloud[:image.shape[0], :image.shape[1], None]
  peak = image.max()
  total = peak + amplitude
  share = peak / jnp.where(total > 0, total, jnp.ones_like(total))
  return jnp.clip((image + amplitude * cloud) * share, 0, 1)


def imagenet_frost(
  image: ArrayLike, keep: ArrayLike, strength: ArrayLike, *, key: jax.Array
) -> jax.Array:
  """Returns clip(keep x + strength texture).

  The texture is `textures.ice`, about the mean colour (0.57, 0.65, 0.70) of the
  five published photographs that are used.

  Args:
    image: (H, W, C) in [0, 1].
    keep: scalar, 1 to 0.6.
    strength: scalar, 0.2 to 0.75.
    key: of the crystals.

  Returns:
    (H, W, C) in [0, 1].
  """
  image = textures.float_image(image)
  keep, strength = (jnp.asarray(a, image.dtype) for a in (keep, strength))
  ice = textures.ice(key, image.shape[:2], image.dtype)[..., None]
  tint = textures.colour((0.57, 0.65, 0.70), image)
  texture = jnp.clip(tint + 0.6 * (ice - 0.31), 0, 1)
  return jnp.clip(keep * image + strength * texture, 0, 1)


def imagenet_snow(
  image: ArrayLike,
  loc: ArrayLike,
  scale: ArrayLike,
  zoom: ArrayLike,
  threshold: ArrayLike,
  radius: ArrayLike,
  sigma: ArrayLike,
  mix: ArrayLike,
  *,
  key: jax.Array,
) -> jax.Array:
  """Returns the image whitened, under a snow layer and the layer turned.

  Normal noise is zoomed, cleared below the threshold, clipped and smeared in a
  direction that is uniform from -135 to -45 degrees; with `white` the larger
  of x and 1.5 gray + 0.5,

      clip(mix x + (1 - mix) white + layer + rot180(layer)).

  The published code rounds the layer to 8 bits; here it is not rounded.

  Args:
    image: (H, W, C) in [0, 1].
    loc: mean of the noise.
    scale: standard deviation of the noise.
    zoom: factor >= 1 of the clipped zoom.
    threshold: noise below it is no snow.
    radius: of the smear, at most 12 pixels: 2 radius + 1 steps of one pixel;
      between whole radii the last steps fade in.
    sigma: deviation of the half Gaussian of the smear, in pixels.
    mix: share of the image that is not whitened.
    key: `split` into those of the noise and of the direction.

  Returns:
    (H, W, C) in [0, 1].
  """
  image = textures.float_image(image)
  dtype, size = image.dtype, image.shape[:2]
  loc, scale, zoom, threshold, radius, sigma, mix = (
    jnp.asarray(a, dtype)
    for a in (loc, scale, zoom, threshold, radius, sigma, mix)
  )
  key_noise, key_angle = jax.random.split(key)
  noise = loc + scale * random_fields.normal(key_noise, size, dtype)
  angle = jax.random.uniform(key_angle, (), dtype, -135, -45)
  margin = 2 * _MAX_MOTION_RADIUS + 1
  rows, columns = (_clipped_zoom(n, zoom, margin, dtype) for n in size)
  layer = _product(rows, noise, columns)
  layer = jnp.where(layer < threshold, jnp.zeros_like(layer), layer)
  layer = _smeared(jnp.clip(layer, 0, 1), size, radius, sigma, angle)[..., None]
  white = jnp.maximum(image, 1.5 * _gray(image) + 0.5)
  layer = layer + jnp.rot90(layer, 2)
  return jnp.clip(mix * image + (1 - mix) * white + layer, 0, 1)


def _clipped_zoom(num, zoom, margin, dtype):
  """Returns the matrix (num + 2 margin, num) of a zoom, edge repeated.

  The middle ceil(num / zoom) samples are stretched to round(that zoom) samples
  by linear interpolation from end to end, as `scipy.ndimage.zoom(order=1)`.
  """
  part = jnp.ceil(num / zoom)
  start = jnp.floor((num - part) / 2)
  last = jnp.maximum(jnp.round(part * zoom) - 1, 1)
  position = jnp.arange(-margin, num + margin, dtype=dtype)
  position = jnp.clip(position, 0, last) * ((part - 1) / last) + start
  distance = jnp.abs(position[:, None] - jnp.arange(num, dtype=dtype))
  return jnp.maximum(1 - distance, 0)


def _smeared(padded, size, radius, sigma, angle):
  """Returns (H, W): half a Gaussian of shifts by whole pixels."""
  num_steps = 2 * _MAX_MOTION_RADIUS + 1
  step = jnp.arange(num_steps, dtype=padded.dtype)
  weights = jnp.exp(-(step**2) / (2 * sigma**2))
  weights = weights * jnp.clip(2 * radius + 1 - step, 0, 1)
  weights = weights / weights.sum()
  radians = jnp.deg2rad(angle)
  shifts = [
    jnp.ceil(step * a - 0.5).astype(jnp.int32) + num_steps
    for a in (jnp.sin(radians), jnp.cos(radians))
  ]
  return sum(
    weights[i] * jax.lax.dynamic_slice(
      padded, (shifts[0][i], shifts[1][i]), size
    )
    for i in range(num_steps)
  )


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

  Both start from normal noise under a Gaussian blur. Mud is the published
  formula: the part above the threshold, blurred by `strength`, cleared below
  0.8, covers in brown. Water adds turquoise in proportion to the noise times
  an embossed, equalised distance from the border of the splashes; that
  distance is the excess over the threshold divided by the slope, while the
  published code finds edges with Canny and takes OpenCV's distance transform.
  The relief inside a splash therefore differs.

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
    cover = jnp.where(cover < 0.8, jnp.zeros_like(cover), cover)[..., None]
    brown = textures.colour(_MUD, image)
    return jnp.clip(image + cover * (brown - image), 0, 1)
  relief = _relief(liquid - threshold)
  layer = jnp.where(liquid < threshold, jnp.zeros_like(liquid), liquid) * relief
  peak, water = layer.max(), textures.colour(_WATER, image)
  layer = strength * layer / jnp.where(peak > 0, peak, jnp.ones_like(peak))
  return jnp.clip(image + layer[..., None] * water, 0, 1)


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
  return _product(matrices[0], jnp.pad(field, reach, mode='edge'), matrices[1])


def _product(rows, field, columns):
  """Returns rows field columns^T in full precision."""
  return jnp.linalg.multi_dot(
    [rows, field, columns.T], precision=jax.lax.Precision.HIGHEST
  )


def _relief(excess):
  """Returns the embossed and equalised distance from the zero line."""
  slope = jnp.hypot(*jnp.gradient(jnp.pad(excess, 1, mode='edge')))[1:-1, 1:-1]
  distance = jnp.abs(excess) / jnp.maximum(slope, jnp.finfo(slope.dtype).tiny)
  distance = _filter3(jnp.minimum(distance, _DISTANCE_CAP), ((1 / 9,) * 3,) * 3)
  distance = jnp.floor(distance)
  # The cumulative histogram; there are at most 21 whole distances.
  below = [(distance <= k).mean() for k in range(_DISTANCE_CAP + 1)]
  least = (distance == distance.min()).mean()
  level = below[0] + sum(
    (below[k] - below[k - 1]) * (distance >= k)
    for k in range(1, _DISTANCE_CAP + 1)
  )
  level = (level - least) / jnp.maximum(1 - least, 1e-6)
  level = _filter3(level, ((-2, -1, 0), (-1, 1, 1), (0, 1, 2)))
  return _filter3(jnp.clip(level, 0, 1), ((1 / 9,) * 3,) * 3)


def _filter3(field, kernel):
  """Returns the correlation with a 3 x 3 kernel, edge repeated."""
  height, width = field.shape
  padded = jnp.pad(field, 1, mode='edge')
  return sum(
    kernel[i][j] * padded[i:i + height, j:j + width]
    for i in range(3) for j in range(3) if kernel[i][j]
  )


def _gray(image):
  """Returns (H, W, 1): BT.601 luma, or the image where it is gray."""
  if image.shape[-1] != 3:
    return image
  return (image * jnp.asarray(_LUMA, image.dtype)).sum(-1, keepdims=True)
