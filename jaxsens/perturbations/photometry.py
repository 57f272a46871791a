"""Photometric operations: functions of the pixel values.

Images are float arrays (..., C) with values in [0, 1]; every operation here
acts on each value by itself, so that it may be carried out before a resampling
on the samples that are read.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


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
  powers = jnp.where(positive, image, jnp.ones_like(image)) ** exponent
  return jnp.where(positive, powers, jnp.zeros_like(image))
