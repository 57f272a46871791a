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
