"""Noise of an image sensor, counted in electrons.

A pixel value x in [0, 1] stands for x * white electrons at unit gain and
nominal light. Shot noise is Gaussian with the variance of the Poisson law
unless said otherwise, which holds from about ten electrons on and makes the
image differentiable: the same key gives the same field at every setting.

References:
  EMVA Standard 1288, release 4.0, 2021: linear model of a camera.
"""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsens.perturbations import cameras
from jaxsens.perturbations import perturbation
from jaxsens.perturbations import random_fields


def capture_again(
  image: ArrayLike, light: ArrayLike, gain: ArrayLike, *, key: jax.Array,
  white: ArrayLike, full_well: ArrayLike, read_noise: ArrayLike,
) -> jax.Array:
  """Returns what the camera would have shown with other light and gain.

  The image has the noise of its own capture, which light and gain scale with
  it. Only what is missing from the noise of the new capture is added:

      variance = light (1 - light) x white + (1 - light²) read_noise²,

  in electrons squared; nothing where there is more light than before.

  Args:
    image: (H, W, C) in [0, 1].
    light: > 0, share of the light that the pixels receive, 1 as before.
    gain: > 0, factor of the amplifier behind them, 1 as before.
    key: typed key of the noise.
    white: electrons of the value 1 at unit light and gain.
    full_well: electrons that a pixel holds, at least `white`.
    read_noise: electrons rms.

  Returns:
    (H, W, C) in [0, 1]; `image` itself where light and gain are one. The
    standard deviation grows as sqrt(1 - light) there, and its derivative
    counts as zero at exactly one.
  """
  image = jnp.asarray(image)
  light, gain, white, full_well, read_noise = (
    jnp.asarray(x, image.dtype)
    for x in (light, gain, white, full_well, read_noise)
  )
  missing = light * (1 - light) * image / white
  missing += (1 - light * light) * (read_noise / white) ** 2
  field = random_fields.normal(key, image.shape, image.dtype)
  filled = image * light + _root(missing) * field
  return jnp.clip(jnp.minimum(filled, full_well / white) * gain, 0, 1)


def capture(
  key: jax.Array, image: ArrayLike, *, white: ArrayLike, full_well: ArrayLike,
  read_noise: ArrayLike, dark: ArrayLike = 0.0, light: ArrayLike = 1.0,
  gain: ArrayLike = 1.0, bit_depth: int | None = None, exact: bool = False,
) -> jax.Array:
  """Returns an image without noise as a sensor captures it.

  Args:
    key: typed key.
    image: (H, W, C) in [0, 1], without noise.
    white: electrons of the value 1 at unit light and gain.
    full_well: electrons that a pixel holds.
    read_noise: electrons rms.
    dark: electrons of dark current, whose mean is taken off again.
    light: >= 0, share of the light.
    gain: factor of the amplifier.
    bit_depth: of the converter; None leaves the values continuous.
    exact: draws from the Poisson law itself, for a Threefry key; not
      differentiable, nor smooth in the light.

  Returns:
    (H, W, C) in [0, 1].
  """
  image = jnp.asarray(image)
  key_shot, key_read = jax.random.split(key)
  mean = image * light * white + dark
  if exact:
    electrons = jax.random.poisson(key_shot, mean).astype(image.dtype)
  else:
    field = random_fields.normal(key_shot, image.shape, image.dtype)
    electrons = mean + _root(mean) * field
  electrons = jnp.clip(electrons, 0, full_well)
  field = random_fields.normal(key_read, image.shape, image.dtype)
  signal = electrons + read_noise * field - dark
  result = jnp.clip(signal * gain / white, 0, 1)
  if bit_depth is not None:
    levels = 2**bit_depth - 1
    result = jnp.round(result * levels) / levels
  return result.astype(image.dtype)


def exposure_time(
  image: ArrayLike, stops: ArrayLike, compensation: ArrayLike = 0.0, *,
  key: jax.Array, camera: cameras.Camera = cameras.INDUSTRIAL,
) -> jax.Array:
  """Exposes `stops` longer, with the noise of that many electrons.

  Args:
    image: (H, W, C) in [0, 1].
    stops: scalar, factors of two of the light; 0 is the identity.
    compensation: scalar, share of the stops that the gain takes back.
    key: typed key of the noise.
    camera: that took the image.

  Returns:
    (H, W, C) in [0, 1].
  """
  image = jnp.asarray(image)
  stops = jnp.asarray(stops, image.dtype)
  return _captured(
    image, jnp.exp2(stops), jnp.exp2(-stops * compensation), key, camera
  )


def sensor_gain(
  image: ArrayLike, decibels: ArrayLike, compensation: ArrayLike = 1.0, *,
  key: jax.Array, camera: cameras.Camera = cameras.INDUSTRIAL,
) -> jax.Array:
  """Amplifies by `decibels`, at so much less light.

  Args:
    image: (H, W, C) in [0, 1].
    decibels: scalar, 20 log10 of the factor; 0 is the identity.
    compensation: scalar, 1 where the light falls as the gain rises, 0 where
      it stays and the picture grows brighter.
    key: typed key of the noise.
    camera: that took the image.

  Returns:
    (H, W, C) in [0, 1].
  """
  image = jnp.asarray(image)
  stops = jnp.asarray(decibels, image.dtype) * (math.log2(10) / 20)
  return _captured(
    image, jnp.exp2(-stops * compensation), jnp.exp2(stops), key, camera
  )


def _root(variance):
  """Square root, zero with derivative zero where nothing is to be rooted."""
  positive = variance > 0
  root = jnp.sqrt(jnp.where(positive, variance, jnp.ones_like(variance)))
  return jnp.where(positive, root, jnp.zeros_like(variance))


def _captured(image, light, gain, key, camera):
  return capture_again(
    image, light, gain, key=key, white=camera.white,
    full_well=camera.full_well * camera.binning**2,
    read_noise=camera.read_noise * camera.binning,
  )


PERTURBATIONS = (
  perturbation.Perturbation(
    'exposure_time', 'spatial', exposure_time, 'stops', 0.0, (-4.0, 2.0),
    source='EMVA Standard 1288, linear camera model', limits=(-16.0, 16.0),
    random=True, family='camera physics',
    others=(
      perturbation.Parameter(
        'exposure_time_compensation', 'share of the stops', 0.0, (0.0, 1.0),
        (0.0, 1.0),
      ),
    ),
    happens=(
      'The exposure is set shorter or longer, or the lamp is weaker: fewer '
      'electrons per pixel, with their noise, or a full well.'
    ),
    symptoms=(
      'too dark', 'bright metal burns out', 'grainy in dark corners',
      'somebody changed the exposure',
    ),
    caveats=(
      'Adds the noise that the picture lacks, none for longer exposures. The '
      'noise starts as the square root of the light lost, a slope that counts '
      'as zero at exactly 0. Gaussian shot noise; values count as linear in '
      'the light; motion blur does not change with it. '
      + cameras.DEFAULT_NOTE
    ),
  ),
  perturbation.Perturbation(
    'sensor_gain', 'spatial', sensor_gain, 'dB', 0.0, (0.0, 48.0),
    source='EMVA Standard 1288, linear camera model', limits=(-24.0, 96.0),
    random=True, family='camera physics',
    others=(
      perturbation.Parameter(
        'sensor_gain_compensation', 'share of the gain', 1.0, (0.0, 1.0),
        (0.0, 1.0),
      ),
    ),
    happens=(
      'The automatic gain makes up for light that is missing: the brightness '
      'stays, the noise of few electrons is amplified.'
    ),
    symptoms=(
      'the picture is grainy', 'noisy since the lamp aged',
      'noise flickers from shot to shot',
    ),
    caveats=(
      'Gaussian shot noise, no fixed pattern, read noise the same at every '
      'gain; the slope of the noise counts as zero at exactly 0 dB. '
      + cameras.DEFAULT_NOTE
    ),
  ),
)
