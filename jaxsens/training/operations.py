"""Operations of the published augmentations, of a given magnitude.

Every operation takes one image (H, W, C), float in [0, 1], gray or RGB, and a
scalar, and equals torchvision's of that name but for the rounding to 8 bits,
which is done only where an operation is defined by it (posterise, equalise).
Geometric ones read the nearest pixel and fill with black, as torchvision's
policies do by default.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np

from jaxsens.perturbations import colour
from jaxsens.perturbations import geometry
from jaxsens.perturbations import homographies
from jaxsens.perturbations import photometry

Operation = Callable[[jax.Array, jax.Array], jax.Array]

# Weights of torchvision's and PIL's smoothing, over 13.
_CENTRE = 5
_LEVELS = 256
# Longest shift of AutoAugment, pixels of its images of 331.
_SHIFT = 150 / 331


def sharpness(image: ArrayLike, factor: ArrayLike) -> jax.Array:
  """Returns clip(factor * image + (1 - factor) * smoothed image, 0, 1).

  Args:
    image: (H, W, C) in [0, 1].
    factor: scalar >= 0; 0 is smoothed by (1 1 1, 1 5 1, 1 1 1) / 13, 1 the
      identity. Border pixels stay.

  Returns:
    The image, equal to torchvision's `adjust_sharpness`.
  """
  image = jnp.asarray(image)
  factor = jnp.asarray(factor, image.dtype)
  if min(image.shape[:2]) <= 2:
    return image
  rows = image[:-2] + image[1:-1] + image[2:]
  sums = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
  inner = image[1:-1, 1:-1]
  smooth = (sums + (_CENTRE - 1) * inner) / (8 + _CENTRE)
  blend = jnp.clip(factor * inner + (1 - factor) * smooth, 0, 1)
  return jnp.clip(image, 0, 1).at[1:-1, 1:-1].set(blend)


def autocontrast(image: ArrayLike) -> jax.Array:
  """Returns each channel stretched to [0, 1]; a uniform one as it is.

  Args:
    image: (H, W, C) in [0, 1].

  Returns:
    The image, equal to torchvision's `autocontrast`.
  """
  image = jnp.asarray(image)
  lowest, highest = image.min((0, 1)), image.max((0, 1))
  span = highest - lowest
  uniform = span <= 0
  stretched = (image - lowest) / jnp.where(uniform, jnp.ones_like(span), span)
  return jnp.where(uniform, image, jnp.clip(stretched, 0, 1))


def equalise(image: ArrayLike) -> jax.Array:
  """Returns each channel with its 256 levels spread evenly.

  Args:
    image: (H, W, C) in [0, 1], meant as 8-bit values over 255.

  Returns:
    The image, equal to torchvision's and PIL's `equalize` of 8-bit images; a
    channel with almost all its pixels on one level stays.
  """
  image = jnp.asarray(image)
  return jax.vmap(_equalise_channel, 2, 2)(image)


def _equalise_channel(channel):
  levels = jnp.clip(jnp.round(channel * (_LEVELS - 1)), 0, _LEVELS - 1)
  levels = levels.astype(jnp.int32)
  counts = jnp.zeros(_LEVELS, jnp.int32).at[levels.ravel()].add(1)
  # The pixels of the highest level are not spread.
  step = (levels.size - counts[levels.max()]) // (_LEVELS - 1)
  below = jnp.cumsum(counts) - counts
  table = (below + step // 2) // jnp.maximum(step, 1)
  # The lowest level of all is black whatever the step.
  table = jnp.clip(table.at[0].set(0), 0, _LEVELS - 1).astype(channel.dtype)
  return jnp.where(step > 0, table[levels] / (_LEVELS - 1), channel)


def grayscale(image: ArrayLike) -> jax.Array:
  """Returns the luma in all channels, as torchvision's `rgb_to_grayscale`."""
  image = jnp.asarray(image)
  return jnp.broadcast_to(colour.luma(image), image.shape)


def shear_x(image: jax.Array, slope: ArrayLike) -> jax.Array:
  """Returns the image with x_in = x_out + slope y_out; y from the top edge."""
  degrees = jnp.rad2deg(jnp.arctan(slope))
  # About the corner, which is the centre of an image without height.
  return _move(image, homographies.shear_x(degrees, (0, 0)))


def shear_y(image: jax.Array, slope: ArrayLike) -> jax.Array:
  """Returns the image with y_in = y_out + slope x_out; x from the left edge."""
  degrees = jnp.rad2deg(jnp.arctan(slope))
  return _move(image, homographies.shear_y(degrees, (0, 0)))


def translate_x(image: jax.Array, share: ArrayLike) -> jax.Array:
  """Returns the image moved by a share of its width, whole pixels, right."""
  width = image.shape[1]
  # Slack, because a share times a width may lie a rounding below its pixel.
  pixels = jnp.trunc(share * width * (1 + 1e-6))
  return _move(image, homographies.translation_x(pixels / width, (1, width)))


def translate_y(image: jax.Array, share: ArrayLike) -> jax.Array:
  """Returns the image moved by a share of its height, whole pixels, down."""
  height = image.shape[0]
  pixels = jnp.trunc(share * height * (1 + 1e-6))
  return _move(image, homographies.translation_y(pixels / height, (height, 1)))


def rotate(image: jax.Array, degrees: ArrayLike) -> jax.Array:
  """Returns the image turned counter-clockwise about its centre."""
  return _move(image, homographies.rotation(degrees, image.shape[:2]))


def _move(image, matrix):
  return geometry.transform(image, matrix, method='nearest', border='hard')


# The operations of `RandAugment`, in torchvision's order, and what
# `AutoAugment` has beside them.
OPERATIONS: dict[str, Operation] = {
  'Identity': lambda image, _: image,
  'ShearX': shear_x,
  'ShearY': shear_y,
  'TranslateX': translate_x,
  'TranslateY': translate_y,
  'Rotate': rotate,
  'Brightness': lambda image, m: photometry.brightness(image, 1 + m),
  'Color': lambda image, m: colour.saturation(image, 1 + m),
  'Contrast': lambda image, m: photometry.contrast(image, 1 + m),
  'Sharpness': lambda image, m: sharpness(image, 1 + m),
  'Posterize': photometry.posterise,
  'Solarize': photometry.solarise,
  'AutoContrast': lambda image, _: autocontrast(image),
  'Equalize': lambda image, _: equalise(image),
  'Invert': lambda image, _: 1 - image,
}

_SIGNED = frozenset((
  'ShearX', 'ShearY', 'TranslateX', 'TranslateY', 'Rotate', 'Brightness',
  'Color', 'Contrast', 'Sharpness',
))
_LARGEST = {
  'ShearX': 0.3, 'ShearY': 0.3, 'TranslateX': _SHIFT, 'TranslateY': _SHIFT,
  'Rotate': 30.0, 'Brightness': 0.9, 'Color': 0.9, 'Contrast': 0.9,
  'Sharpness': 0.9,
}


def magnitude(name: str, index: int, num_bins: int) -> float:
  """Returns what torchvision gives an operation at a magnitude, without sign.

  Args:
    name: one of `OPERATIONS`.
    index: 0 to num_bins - 1; the higher, the stronger.
    num_bins: number of magnitudes.

  Returns:
    Slope, share of the width or height, degrees, factor minus one, bits, or
    threshold in [0, 1]; 0 where an operation has no magnitude.

  Raises:
    ValueError: there is no such magnitude.
  """
  if not 0 <= index < num_bins:
    raise ValueError(f'magnitude must be in 0..{num_bins - 1}, got {index}.')
  share = index / (num_bins - 1) if num_bins > 1 else 0.0
  if name == 'Posterize':
    return 8.0 - float(np.round(4 * share))
  if name == 'Solarize':
    return 1 - share
  return _LARGEST.get(name, 0.0) * share


def is_signed(name: str) -> bool:
  """Returns whether the magnitude of an operation takes either sign."""
  return name in _SIGNED
