"""Colour: functions that mix or weigh the three channels of a pixel.

Images are float arrays (..., C) with values in [0, 1] and C = 1 or 3. Every
function here acts on each pixel by itself. A gray image has no colour: its
saturation, hue and white balance leave it as it is.

Hue, saturation and value are those of the HSV hexcone. No conversion to HSV and
back is made: with the value V = max(R, G, B) and the chroma C = V - min(R, G,
B), each function needs only part of it, and the identity stays exact.
"""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np

from jaxsens.perturbations import perturbation

# Rec. 601, of red, green and blue.
_LUMA = (0.299, 0.587, 0.114)
# Dominant wavelengths of the Rec. 709 primaries in metres.
_WAVELENGTHS = (611.4e-9, 549.1e-9, 464.2e-9)
# Second radiation constant, metre kelvin; a mired is 1e-6 per kelvin.
_RADIATION = 1.438777e-2
_MIRED = 1e-6
# Encoded values are about the light to this power.
_ENCODING = 1 / 2.2


def luma(image: ArrayLike) -> jax.Array:
  """Returns the gray version 0.299 R + 0.587 G + 0.114 B.

  Args:
    image: (..., C), C = 1 or 3.

  Returns:
    (..., 1); a gray image itself. The weights are those of Rec. 601 and PIL
    and sum to one, so that gray stays gray; torchvision's tensors use 0.2989
    for red and darken neutral pixels by 1e-4.

  Raises:
    ValueError: C is neither 1 nor 3.
  """
  image = jnp.asarray(image)
  if _is_gray(image):
    return image
  red, green, blue = _channels(image)
  gray = _LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue
  return gray[..., None]


def saturation(image: ArrayLike, factor: ArrayLike) -> jax.Array:
  """Returns clip(factor * image + (1 - factor) * luma(image), 0, 1).

  Args:
    image: (..., C) in [0, 1], C = 1 or 3.
    factor: scalar >= 0; 0 is gray, 1 the identity.

  Returns:
    The image with its colours moved away from gray or towards it; torchvision's
    `adjust_saturation` up to its weight of red, see `luma`.

  Raises:
    ValueError: C is neither 1 nor 3.
  """
  image = jnp.asarray(image)
  if _is_gray(image):
    return image
  factor = jnp.asarray(factor, image.dtype)
  return jnp.clip(factor * image + (1 - factor) * luma(image), 0, 1)


def hue(image: ArrayLike, shift: ArrayLike) -> jax.Array:
  """Returns the image with its hue shifted, value and saturation kept.

  Args:
    image: (..., C) in [0, 1], C = 1 or 3.
    shift: scalar, turns of the colour circle, periodic; +1/3 turns red to
      green, 0 is the identity.

  Returns:
    The image, equal to torchvision's `adjust_hue`. Continuous and piecewise
    linear in the shift, with kinks at the six pure colours.

  Raises:
    ValueError: C is neither 1 nor 3.
  """
  image = jnp.asarray(image)
  if _is_gray(image):
    return image
  shift = jnp.asarray(shift, image.dtype)
  red, green, blue = _channels(image)
  value = jnp.maximum(jnp.maximum(red, green), blue)
  lowest = jnp.minimum(jnp.minimum(red, green), blue)
  chroma = value - lowest
  is_red, is_green = value == red, value == green
  ahead = jnp.where(
    is_red, green - blue, jnp.where(is_green, blue - red, red - green)
  )
  pure = jnp.where(is_red, 0, jnp.where(is_green, 2, 4)).astype(image.dtype)
  one = jnp.ones_like(chroma)
  sextant = pure + ahead / jnp.where(chroma > 0, chroma, one) + 6 * shift
  # Red, green and blue lie a third of a turn apart.
  phases = sextant[..., None] + jnp.asarray((0, 4, 2), image.dtype)
  shifted = lowest[..., None] + chroma[..., None] * _hexcone(phases)
  # At zero the image to the last bit, with the slopes of the formula.
  fixed = jax.lax.stop_gradient
  same = fixed(image) + (shifted - fixed(shifted))
  return jnp.where(shift == 0, same, shifted)


def _hexcone(sextant):
  """Returns the share of the chroma in red at a hue in sixths of a turn."""
  wrapped = sextant - 6 * jnp.floor(sextant / 6)
  return jnp.clip(jnp.abs(wrapped - 3) - 1, 0, 1)


def white_balance(image: ArrayLike, shift: ArrayLike) -> jax.Array:
  """Returns clip(gains * image, 0, 1) under a lamp of another temperature.

  A shift of m mired changes the reciprocal temperature 1 / T of the lamp by
  m 1e-6 / K. By Wien's law its light at the wavelength l of a channel changes
  by exp(-c2 m 1e-6 / l), whatever T was; the value of an encoded pixel by

      gains[c] = exp(-c2 m 1e-6 / (2.2 l[c])) / sum_j w[j] exp(same of j),

  where the weights w of the luma keep the gray version of a neutral pixel.

  Args:
    image: (..., C) in [0, 1], C = 1 or 3.
    shift: scalar, mired; positive is warmer: +100 takes daylight of 6500 K to
      3940 K. 0 is the identity.

  Returns:
    The image as the camera shows it with its balance left as it was.

  Raises:
    ValueError: C is neither 1 nor 3.
  """
  image = jnp.asarray(image)
  if _is_gray(image):
    return image
  shift = jnp.asarray(shift, image.dtype)
  rates = -_RADIATION * _MIRED * _ENCODING / np.array(_WAVELENGTHS)
  # About green, and minus one, so that the gains at zero are one exactly.
  changes = jnp.expm1(shift * jnp.asarray(rates - rates[1], image.dtype))
  weights = jnp.asarray(_LUMA, image.dtype)
  gains = (1 + changes) / (1 + (weights * changes).sum())
  return jnp.clip(image * gains, 0, 1)


def hsv_brightness(image: ArrayLike, delta: ArrayLike) -> jax.Array:
  """Returns the image with clip(V + delta, 0, 1) for its HSV value V.

  Args:
    image: (..., C) in [0, 1], C = 1 or 3; a gray image is its own value.
    delta: scalar; 0 is the identity.

  Returns:
    The image, equal to ImageNet-C's `brightness`: every channel times the
    ratio of the values, and gray where the image was black.

  Raises:
    ValueError: C is neither 1 nor 3.

  References:
    Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common
    Corruptions and Perturbations, ICLR 2019; scikit-image rgb2hsv.
  """
  image = jnp.asarray(image)
  delta = jnp.asarray(delta, image.dtype)
  if _is_gray(image):
    return jnp.clip(image + delta, 0, 1)
  red, green, blue = _channels(image)
  value = jnp.maximum(jnp.maximum(red, green), blue)
  lit = value > 0
  changed = jnp.clip(value + delta, 0, 1)
  ratio = changed / jnp.where(lit, value, jnp.ones_like(value))
  return jnp.where(lit[..., None], image * ratio[..., None], changed[..., None])


def hsv_saturate(image: ArrayLike, c0: ArrayLike, c1: ArrayLike) -> jax.Array:
  """Returns the image with clip(c0 S + c1, 0, 1) for its HSV saturation S.

  Args:
    image: (..., C) in [0, 1], C = 1 or 3.
    c0: scalar >= 0; 1 together with c1 = 0 is the identity.
    c1: scalar, added.

  Returns:
    The image, equal to ImageNet-C's `saturate`. As there, a neutral pixel has
    hue zero, so that a positive c1 turns it reddish; a gray image stays.

  Raises:
    ValueError: C is neither 1 nor 3.

  References:
    Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common
    Corruptions and Perturbations, ICLR 2019; scikit-image rgb2hsv.
  """
  image = jnp.asarray(image)
  if _is_gray(image):
    return image
  c0 = jnp.asarray(c0, image.dtype)
  c1 = jnp.asarray(c1, image.dtype)
  red, green, blue = _channels(image)
  value = jnp.maximum(jnp.maximum(red, green), blue)
  chroma = value - jnp.minimum(jnp.minimum(red, green), blue)
  one = jnp.ones_like(value)
  saturated = chroma / jnp.where(value > 0, value, one)
  coloured = saturated > 0
  changed = jnp.clip(c0 * saturated + c1, 0, 1)
  # A channel lies below V by its share of the chroma, which is V S.
  divisor = jnp.where(coloured, saturated, one)
  lost = jnp.where(coloured, 1 - changed / divisor, jnp.zeros_like(value))
  reddish = jnp.where(coloured, jnp.zeros_like(value), value * changed)
  moved = image + (value[..., None] - image) * lost[..., None]
  return moved - reddish[..., None] * jnp.asarray((0, 1, 1), image.dtype)


def _channels(image):
  return image[..., 0], image[..., 1], image[..., 2]


def _is_gray(image):
  """Returns whether C = 1; raises ValueError where C is neither 1 nor 3."""
  if image.ndim < 1 or image.shape[-1] not in (1, 3):
    raise ValueError(
      'image must have 1 or 3 channels on its last axis, got shape '
      f'{image.shape}'
    )
  return image.shape[-1] == 1


PERTURBATIONS = (
  perturbation.Perturbation(
    'saturation', 'pointwise', saturation, unit='factor', identity=1.0,
    sensible_range=(0.0, 2.0), limits=(0.0, math.inf),
    source='torchvision adjust_saturation: blend with the gray image',
    family='photometry',
    happens='Colours are paler or stronger: the colour matrix of the camera or '
    'its driver, a lamp with a gap in its spectrum, a bleached or dusty part.',
    symptoms=(
      'colours are washed out', 'colours are too strong',
      'the picture is almost gray', 'the new camera shows other colours',
    ),
    caveats='The same factor for every hue; no effect on gray images.',
  ),
  perturbation.Perturbation(
    'hue', 'pointwise', hue, unit='turns', identity=0.0,
    sensible_range=(-0.1, 0.1),
    source='torchvision adjust_hue: HSV hue plus shift, -0.5 to 0.5 turns',
    family='photometry',
    happens='Every colour turns on the colour circle: another batch of paint '
    'or plastic, a swapped filter, channels in the wrong order (1/3 turn).',
    symptoms=(
      'red looks orange', 'the colour of the batch is different',
      'red and blue are swapped',
    ),
    caveats='A lamp does not turn hues but weighs channels: see white_balance. '
    'No effect on gray images. Has kinks at the six pure colours.',
  ),
  perturbation.Perturbation(
    'white_balance', 'pointwise', white_balance, unit='mired', identity=0.0,
    sensible_range=(-100.0, 200.0), limits=(-500.0, 500.0),
    source="Wien's law at the Rec. 709 primaries, luma kept; + is warmer",
    family='photometry',
    happens='The colour temperature of the light changes, or the camera '
    'balances on something else: another lamp, daylight, an ageing LED.',
    symptoms=(
      'everything is yellowish', 'the picture has a blue cast',
      'colours differ between morning and evening',
      'it changed after the lamp was replaced',
    ),
    caveats='A black body seen at three wavelengths; no green or magenta cast '
    'of fluorescent tubes. No effect on gray images.',
  ),
)
