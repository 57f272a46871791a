"""Fog, frost and snow by the formulas of ImageNet-C and CIFAR-C.

Plain functions of a float image (H, W, C) in [0, 1], the published tuple of
parameters and a key; all parameters may be traced, so that a severity may lie
between the published ones. Draws are those of `random_fields`: single pictures
differ from those of NumPy while their laws agree. What else differs is said in
each function. For a smooth response to one amount use `weather`.

References:
  Hendrycks and Dietterich, Benchmarking neural network robustness to common
  corruptions and perturbations, ICLR 2019, and its published code.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsens.perturbations import plasmas
from jaxsens.perturbations import published_blurs
from jaxsens.perturbations import random_fields
from jaxsens.perturbations import textures

_LUMA = (0.299, 0.587, 0.114)
# Mean and standard deviation of the colours of the photographs of frost; the
# second and the third are the same picture.
_FROST = (
  ((0.304, 0.581, 0.645), (0.108, 0.064, 0.058)),
  ((0.775, 0.792, 0.828), (0.078, 0.081, 0.084)),
  ((0.775, 0.792, 0.828), (0.078, 0.081, 0.084)),
  ((0.564, 0.622, 0.672), (0.104, 0.104, 0.109)),
  ((0.395, 0.440, 0.486), (0.148, 0.146, 0.142)),
)
# Largest radius of the motion blur of snow.
_MAX_MOTION_RADIUS = 14


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
  side = plasmas.power_of_two(max(image.shape[:2]))
  cloud = plasmas.plasma(key, (side, side), decay, image.dtype)
  cloud = cloud[:image.shape[0], :image.shape[1], None]
  peak = image.max()
  total = peak + amplitude
  share = peak / jnp.where(total > 0, total, jnp.ones_like(total))
  return jnp.clip((image + amplitude * cloud) * share, 0, 1)


def imagenet_frost(
  image: ArrayLike, keep: ArrayLike, strength: ArrayLike, *, key: jax.Array
) -> jax.Array:
  """Returns clip(keep x + strength texture).

  The texture is `textures.ice` with the mean and the standard deviation of
  each colour of one of the five published photographs that are used, drawn
  with equal chances; their crystals differ.

  Args:
    image: (H, W, C) in [0, 1].
    keep: scalar, 1 to 0.6.
    strength: scalar, 0.2 to 0.75.
    key: `split` into those of the crystals and of the photograph.

  Returns:
    (H, W, C) in [0, 1].
  """
  image = textures.float_image(image)
  keep, strength = (jnp.asarray(a, image.dtype) for a in (keep, strength))
  key_ice, key_photograph = jax.random.split(key)
  ice = textures.ice(key_ice, image.shape[:2], image.dtype)
  # Through a loop, because XLA would make the ice anew for its mean and spread.
  half = jnp.full(2, 0.5, ice.dtype)
  ice = published_blurs.sum_of_shifts(ice, ice.shape, half, (0, 0), (0, 0))
  ice = ice[..., None]
  index = jax.random.randint(key_photograph, (), 0, len(_FROST))
  mean, deviation = (
    rgb if image.shape[-1] == 3 else rgb @ jnp.asarray(_LUMA, image.dtype)
    for rgb in jnp.asarray(_FROST, image.dtype)[index]
  )
  spread = jnp.sqrt(jnp.mean((ice - ice.mean()) ** 2) + 1e-12)
  texture = mean + deviation * ((ice - ice.mean()) / spread)
  return jnp.clip(keep * image + strength * jnp.clip(texture, 0, 1), 0, 1)


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
  margin = 2 * _MAX_MOTION_RADIUS
  rows, columns = (_clipped_zoom(n, zoom, margin, dtype) for n in size)
  layer = _product(rows, noise, columns)
  layer = jnp.where(layer < threshold, jnp.zeros_like(layer), layer)
  layer = published_blurs.smear(
    jnp.clip(layer, 0, 1), size, radius, sigma, angle
  )[..., None]
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


def _product(rows, field, columns):
  """Returns rows field columns^T in full precision."""
  return jnp.linalg.multi_dot(
    [rows, field, columns.T], precision=jax.lax.Precision.HIGHEST
  )


def _gray(image):
  """Returns (H, W, 1): BT.601 luma, or the image where it is gray."""
  if image.shape[-1] != 3:
    return image
  return (image * jnp.asarray(_LUMA, image.dtype)).sum(-1, keepdims=True)
