"""Tone: functions that treat every pixel value, or every channel, alike.

Images are float arrays (..., C) with values in [0, 1], gray or colour. What is
'pointwise' below acts on each value by itself, so that it may be carried out
before a resampling on the samples that are read; contrast needs the mean of a
whole image (H, W, C).

A camera with a linear response (gamma 1, usual for machine vision) makes the
multiplications exact; in an image encoded for a display a change of light by g
multiplies the values by about g ** (1 / 2.2).
"""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsens.perturbations import colour
from jaxsens.perturbations import perturbation

# Floats of an 8-bit image may lie a rounding below their level.
_SLACK = 1e-3


def brightness(image: ArrayLike, factor: ArrayLike) -> jax.Array:
  """Returns clip(factor * image, 0, 1).

  Args:
    image: (..., C) in [0, 1].
    factor: scalar >= 0; 0 is black, 1 the identity, 2 doubles and saturates.

  Returns:
    The image scaled and clipped; equal to torchvision's `adjust_brightness`.
  """
  image = jnp.asarray(image)
  factor = jnp.asarray(factor, image.dtype)
  return jnp.clip(image * factor, 0, 1)


def offset(image: ArrayLike, amount: ArrayLike) -> jax.Array:
  """Returns clip(image + amount, 0, 1).

  Args:
    image: (..., C) in [0, 1].
    amount: scalar; 0 is the identity, -1 black, 1 white.

  Returns:
    The image shifted and clipped.
  """
  image = jnp.asarray(image)
  return jnp.clip(image + jnp.asarray(amount, image.dtype), 0, 1)


def gamma(image: ArrayLike, exponent: ArrayLike) -> jax.Array:
  """Returns image ** exponent.

  Args:
    image: (..., C) in [0, 1].
    exponent: scalar > 0; above 1 dark parts grow darker, 1 is the identity.

  Returns:
    The image, black where it was black; equal to torchvision's `adjust_gamma`.
    Black pixels have derivative zero in the image and in the exponent.
  """
  image = jnp.asarray(image)
  exponent = jnp.asarray(exponent, image.dtype)
  # The slope of a root at zero is infinite and would turn into NaN where a
  # pixel is black at every brightness.
  positive = image > 0
  logs = jnp.log(jnp.where(positive, image, jnp.ones_like(image)))
  # Exact at one, and on CPU four times faster than a power.
  powers = image * jnp.exp((exponent - 1) * logs)
  return jnp.where(positive, powers, jnp.zeros_like(image))


def exposure(image: ArrayLike, stops: ArrayLike) -> jax.Array:
  """Returns clip(2 ** stops * image, 0, 1).

  Args:
    image: (..., C) in [0, 1].
    stops: scalar, EV; +1 doubles the light, 0 is the identity.

  Returns:
    The image scaled and clipped: `brightness` on a logarithmic scale.
  """
  image = jnp.asarray(image)
  return brightness(image, jnp.exp2(jnp.asarray(stops, image.dtype)))


def black_level(image: ArrayLike, level: ArrayLike) -> jax.Array:
  """Returns clip(image + level * (1 - image), 0, 1).

  Args:
    image: (..., C) in [0, 1].
    level: scalar <= 1, what black becomes while white stays; below zero,
      values under -level / (1 - level) are crushed to black. 0 is the identity.

  Returns:
    The image with its pedestal moved, clipped.
  """
  image = jnp.asarray(image)
  level = jnp.asarray(level, image.dtype)
  return jnp.clip(image + level * (1 - image), 0, 1)


def contrast(image: ArrayLike, factor: ArrayLike) -> jax.Array:
  """Returns clip(factor * image + (1 - factor) * m, 0, 1), m the mean luma.

  Args:
    image: (H, W, C) in [0, 1], C = 1 or 3.
    factor: scalar >= 0; 0 is uniform gray, 1 the identity.

  Returns:
    The image about the mean of its gray version: torchvision's
    `adjust_contrast`, up to its weight of red (see `colour.luma`).

  Raises:
    ValueError: the image is not (H, W, 1) or (H, W, 3).
  """
  image = jnp.asarray(image)
  return _about(image, colour.luma(_channel_means(image)), factor)


def imagenet_contrast(image: ArrayLike, factor: ArrayLike) -> jax.Array:
  """Returns clip(factor * image + (1 - factor) * m, 0, 1), m per channel.

  Args:
    image: (H, W, C) in [0, 1].
    factor: scalar >= 0; 0 is uniform colour, 1 the identity.

  Returns:
    The image about the mean of each channel; equal to ImageNet-C's `contrast`.

  Raises:
    ValueError: the image is not (H, W, C).

  References:
    Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common
    Corruptions and Perturbations, ICLR 2019.
  """
  image = jnp.asarray(image)
  return _about(image, _channel_means(image), factor)


def _channel_means(image):
  if image.ndim != 3:
    raise ValueError(f'image must be (H, W, C), got shape {image.shape}')
  height, width, channels = image.shape
  # Columns first, in whole rows of memory; the barrier keeps XLA from joining
  # the two sums into one over a last axis of three, which is slower on CPU.
  columns = jax.lax.optimization_barrier(
    image.reshape(height, width * channels).sum(0)
  )
  total = columns.reshape(width, channels).sum(0)
  return total / (height * width)


def _about(image, mean, factor):
  # As a blend, because (x - m) + m is not x in floating point.
  factor = jnp.asarray(factor, image.dtype)
  return jnp.clip(factor * image + (1 - factor) * mean, 0, 1)


def posterise(image: ArrayLike, bits: ArrayLike) -> jax.Array:
  """Returns the image cut to L = round(2 ** bits) levels,

      floor(255 image L / 256) (256 / L) / 255.

  Args:
    image: (..., C) in [0, 1], meant as 8-bit values over 255.
    bits: scalar >= 0, not necessarily whole; from 8 on the identity.

  Returns:
    The image with the highest bits kept, equal to torchvision's and PIL's
    `posterize` of 8-bit images at whole bits. Piecewise constant in both
    arguments.
  """
  image = jnp.asarray(image)
  bits = jnp.asarray(bits, image.dtype)
  step = 256 / jnp.round(jnp.exp2(jnp.minimum(bits, 8)))
  cut = jnp.floor((image * 255 + _SLACK) / step) * (step / 255)
  return jnp.where(bits >= 8, image, cut)


def solarise(image: ArrayLike, threshold: ArrayLike) -> jax.Array:
  """Returns 1 - image where image >= threshold, image elsewhere.

  Args:
    image: (..., C) in [0, 1].
    threshold: scalar in [0, 1]; 0 is the negative, 1 the identity (there
      torchvision still turns pure white to black).

  Returns:
    The partly inverted image, below 1 equal to torchvision's `solarize`.
    Piecewise constant in the threshold.
  """
  image = jnp.asarray(image)
  threshold = jnp.asarray(threshold, image.dtype)
  inverted = (image >= threshold) & (threshold < 1)
  return jnp.where(inverted, 1 - image, image)


def invert(image: ArrayLike, share: ArrayLike) -> jax.Array:
  """Returns (1 - share) * image + share * (1 - image).

  Args:
    image: (..., C) in [0, 1].
    share: scalar in [0, 1] of the negative; 0 is the identity, 1/2 uniform
      gray, 1 the negative.

  Returns:
    The blend, linear in the share; at 1 torchvision's `invert`.
  """
  image = jnp.asarray(image)
  share = jnp.asarray(share, image.dtype)
  return jnp.clip(image + share * (1 - 2 * image), 0, 1)


PERTURBATIONS = (
  perturbation.Perturbation(
    'brightness', 'pointwise', brightness, unit='factor', identity=1.0,
    sensible_range=(0.0, 2.0), limits=(0.0, math.inf),
    source='torchvision adjust_brightness: clip(factor * image)',
    family='photometry',
    happens='The lamp gives more or less light than at commissioning: it ages, '
    'its supply drifts, its cover is dirty or its distance has changed.',
    symptoms=(
      'the picture is too dark', 'the lamp is getting old',
      'bright parts are washed out', 'it changed after the lamp was replaced',
    ),
    caveats='Noise does not grow when the image is brightened; detail lost by '
    'clipping is not recovered.',
  ),
  perturbation.Perturbation(
    'offset', 'pointwise', offset, unit='share of white', identity=0.0,
    sensible_range=(-0.5, 0.5),
    source='additive brightness: clip(image + amount)', family='photometry',
    happens='Light that does not come from the part reaches every pixel alike: '
    'daylight in an open housing, or a wrong digital offset.',
    symptoms=(
      'everything is brighter, also the black', 'the housing door was open',
      'black is not black any more',
    ),
    caveats='White saturates; black_level keeps it. Stray light is rarely '
    'uniform: see illumination_gradient and glare.',
  ),
  perturbation.Perturbation(
    'gamma', 'pointwise', gamma, unit='exponent', identity=1.0,
    sensible_range=(0.5, 2.0), limits=(0.01, 100.0),
    source='torchvision adjust_gamma: image ** exponent', family='photometry',
    happens='The response curve of the camera or of its driver is another one: '
    'a gamma or display setting was changed, or the camera was exchanged.',
    symptoms=(
      'mid-tones are darker, black and white are right',
      'the new camera looks different', 'shadows are lifted',
      'someone changed the camera settings',
    ),
    caveats='One power for all channels; real response curves have a toe and a '
    'shoulder.',
  ),
  perturbation.Perturbation(
    'exposure', 'pointwise', exposure, unit='EV', identity=0.0,
    sensible_range=(-2.0, 2.0), limits=(-20.0, 20.0),
    source='photographic stops: clip(2 ** EV * image)', family='photometry',
    happens='Shutter time, aperture or automatic exposure differ from the '
    'setting that the classifier was trained with.',
    symptoms=(
      'the picture is overexposed', 'automatic exposure is pumping',
      'the aperture ring has moved', 'too dark since the line runs faster',
    ),
    caveats='Neither the noise of a short exposure nor the motion blur of a '
    'long one; exact where the values are linear in light.',
  ),
  perturbation.Perturbation(
    'black_level', 'pointwise', black_level, unit='share of white',
    identity=0.0, sensible_range=(-0.2, 0.3), limits=(-math.inf, 1.0),
    source='sensor pedestal, white held: clip(image + b (1 - image))',
    family='photometry',
    happens='The value of black moves: a pedestal is set wrongly, the sensor '
    'warms up, or a film on the window scatters light.',
    symptoms=(
      'blacks look gray', 'the picture is milky', 'dark details have vanished',
      'it changes while the camera warms up',
    ),
    caveats='One level for the whole frame and all channels; no fixed pattern '
    'and no dark noise.',
  ),
  perturbation.Perturbation(
    'contrast', 'spatial', contrast, unit='factor', identity=1.0,
    sensible_range=(0.3, 1.8), limits=(0.0, math.inf),
    source='torchvision adjust_contrast: blend with the mean of the gray image',
    family='photometry',
    happens='Bright and dark move together or apart: diffuse instead of '
    'directed light, a hazy window, or contrast set in the camera.',
    symptoms=(
      'the picture is flat', 'edges are hard to see', 'it looks foggy',
      'too harsh, shadows are black',
    ),
    caveats='The centre is the mean of this image, so that a bright part in '
    'the frame changes the result of every pixel.',
  ),
  perturbation.Perturbation(
    'posterise', 'pointwise', posterise, unit='bits', identity=8.0,
    sensible_range=(1.0, 8.0), limits=(0.0, math.inf), differentiable=False,
    source='torchvision / PIL posterize: keep the highest bits of 8',
    family='photometry',
    happens='Gray levels are lost between sensor and classifier: a transfer '
    'with fewer bits, strong gain in software, an indexed file format.',
    symptoms=(
      'bands instead of smooth shading', 'only a few gray levels',
      'the surface looks stepped',
    ),
    caveats='Cuts downwards and so darkens by half a step, as PIL does; no '
    'dithering. Bits between whole ones give round(2 ** bits) levels.',
  ),
  perturbation.Perturbation(
    'solarise', 'pointwise', solarise, unit='threshold', identity=1.0,
    sensible_range=(0.3, 1.0), limits=(0.0, 1.0), differentiable=False,
    source='torchvision solarize: 1 - image where image >= threshold',
    family='photometry',
    happens='Values above a threshold are inverted: an overflow or wrong '
    'sign in the image transfer, or a wrong lookup table. Also a stress test.',
    symptoms=(
      'highlights are black', 'bright spots have dark cores',
      'negative colours in places',
    ),
    caveats='Rare on a line; at threshold 1 the identity, where torchvision '
    'turns pure white to black.',
  ),
  perturbation.Perturbation(
    'invert', 'pointwise', invert, unit='share of the negative',
    identity=0.0, sensible_range=(0.0, 1.0), limits=(0.0, 1.0),
    source='blend with the negative; at 1 torchvision invert',
    family='photometry',
    happens='Bright and dark exchange roles: bright-field against dark-field '
    'light, back light, inverted polarity. Shares below 1 blend the two.',
    symptoms=(
      'the picture is a negative', 'the defect is bright instead of dark',
      'somebody changed from ring light to back light',
    ),
    caveats='A real change to dark field alters the shading too; at 1/2 '
    'nothing is left of the picture.',
  ),
)
