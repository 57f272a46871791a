"""Point spread functions: the image of one bright pixel, as a small array.

Every function returns an array (2 R + 1, 2 R + 1) with its origin in the
middle, y downwards and x to the right, not negative and (but for quirks of
published kernels, which say so) of sum one, so that a blur keeps the energy of
the image and never leaves its range. R (`half_width`) is static; the sizes are
scalars that may be traced, and the array is smooth in them.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np

_SAMPLES_PER_PIXEL = 3


def disk(radius: ArrayLike, half_width: int) -> jax.Array:
  """Returns the uniform disk of a defocused lens, with a soft edge.

      psf[y, x] ∝ s(r + 1/2 - √(x² + y²)),  s(t) = t² (3 - 2 t), t in [0, 1]

  The edge is one pixel wide, centred on the radius; a disk of radius below
  half a pixel is a single pixel. The variance along an axis tends to r²/4.

  Args:
    radius: r in pixels, scalar, at most half_width + 1/2.
    half_width: R.

  Returns:
    (2 R + 1, 2 R + 1), dtype of the radius.
  """
  radius = _floating(radius)
  offsets = np.arange(-half_width, half_width + 1)
  distance = jnp.asarray(np.hypot(offsets[:, None], offsets), radius.dtype)
  t = jnp.clip(radius + 0.5 - distance, 0, 1)
  weights = t * t * (3 - 2 * t)
  return weights / jnp.sum(weights)


def line(length: ArrayLike, angle: ArrayLike, half_width: int) -> jax.Array:
  """Returns the trace of a point that moves evenly along a straight line.

  The mean over the path of the bilinear interpolation weights Λ of the moving
  point, by 3 samples t per pixel of the longest path:

      psf[y, x] = mean_t Λ(x - t cos a) Λ(y + t sin a),  |t| <= L / 2

  Length zero is a single pixel at every angle. Along an axis the variance is
  L²/12 and up to 1/4 px² of the interpolation.

  Args:
    length: L in pixels, scalar, at most 2 half_width.
    angle: a in degrees, counter-clockwise, 0 along x; a and a + 180 are equal.
    half_width: R.

  Returns:
    (2 R + 1, 2 R + 1), dtype of the length.
  """
  length = _floating(length)
  radians = jnp.deg2rad(jnp.asarray(angle, length.dtype))
  num_samples = _SAMPLES_PER_PIXEL * 2 * half_width + 1
  share = (np.arange(num_samples) + 0.5) / num_samples - 0.5
  t = length * jnp.asarray(share, length.dtype)
  offsets = jnp.arange(-half_width, half_width + 1, dtype=length.dtype)
  along_x = _tent(offsets[:, None] - t * jnp.cos(radians))
  along_y = _tent(offsets[:, None] + t * jnp.sin(radians))
  weights = jnp.matmul(
    along_y, along_x.T, precision=jax.lax.Precision.HIGHEST
  )
  return weights / jnp.sum(weights)


def half_gaussian_line(
  radius: ArrayLike, sigma: ArrayLike, angle: ArrayLike,
  half_width: int, size: tuple[int, int],
) -> jax.Array:
  """Returns the fading trace of ImageMagick, which ImageNet-C adopts.

  Tap i = 0 ... 2 radius has the weight exp(-i²/(2 sigma²)) and shows what lies
  ceil(i cos a - 1/2) pixels to the right and ceil(i sin a - 1/2) below, so a
  counts clockwise on the screen. The taps end where they would leave the
  image, without a new normalisation: there the sum is below one. Piecewise
  constant in the angle; at the angles of a tie, such as 30, the rounding of
  the dtype decides.

  Args:
    radius: in pixels, scalar, at most half_width / 2; between two integers
      the last tap fades in.
    sigma: in pixels, scalar, positive.
    angle: in degrees.
    half_width: R.
    size: (H, W) of the image.

  Returns:
    (2 R + 1, 2 R + 1), dtype of sigma; the kernel of a convolution.
  """
  sigma = _floating(sigma)
  radius, angle = (jnp.asarray(v, sigma.dtype) for v in (radius, angle))
  steps = jnp.arange(half_width + 1, dtype=sigma.dtype)
  weights = jnp.exp(-0.5 * (steps / sigma) ** 2)
  weights = weights * jnp.clip(2 * radius + 1 - steps, 0, 1)
  weights = weights / jnp.sum(weights)
  radians = jnp.deg2rad(angle)
  dx = jnp.ceil(steps * jnp.cos(radians) - 0.5)
  dy = jnp.ceil(steps * jnp.sin(radians) - 0.5)
  inside = (jnp.abs(dy) < size[0]) & (jnp.abs(dx) < size[1])
  weights = weights * jnp.cumprod(inside.astype(sigma.dtype))
  # A convolution reads at minus the offset.
  offsets = jnp.arange(-half_width, half_width + 1, dtype=sigma.dtype)
  along_x = (offsets[:, None] == -dx).astype(sigma.dtype)
  along_y = (offsets[:, None] == -dy).astype(sigma.dtype)
  return jnp.matmul(
    along_y * weights, along_x.T, precision=jax.lax.Precision.HIGHEST
  )


def disk_with_alias(radius: float, alias_sigma: float) -> np.ndarray:
  """Returns the kernel of ImageNet-C's `defocus_blur`.

  A disk with a hard edge, x² + y² <= radius², on 17 x 17 points up to radius 8
  and on 2 radius + 1 beyond, smoothed with a Gaussian of 3 x 3 or 5 x 5 points
  that reflects at the border of the array. The reflection makes the sum differ
  from one where the disk touches that border: 1.013 at radius 8, 1.011 at 10.

  Args:
    radius: in pixels, a number >= 0; above 8 an integer.
    alias_sigma: standard deviation of the smoothing in pixels, positive.

  Returns:
    (2 R + 1, 2 R + 1), float64, R = max(8, radius).

  Raises:
    ValueError: a radius above 8 that is no integer, or a value out of range.

  References:
    Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common
    Corruptions and Perturbations, ICLR 2019.
  """
  if radius < 0 or alias_sigma <= 0:
    raise ValueError(
      'radius must be >= 0 and alias_sigma > 0, got '
      f'{radius} and {alias_sigma}'
    )
  if radius > 8 and radius != int(radius):
    raise ValueError(f'radius above 8 must be an integer, got {radius}')
  half_width, taps = (8, 1) if radius <= 8 else (int(radius), 2)
  offsets = np.arange(-half_width, half_width + 1)
  hard = (offsets[:, None] ** 2 + offsets**2 <= radius**2).astype(np.float64)
  hard /= hard.sum()
  gaussian = np.exp(-0.5 * (np.arange(-taps, taps + 1) / alias_sigma) ** 2)
  gaussian /= gaussian.sum()
  padded = np.pad(hard, taps, mode='reflect')
  windows = np.lib.stride_tricks.sliding_window_view(
    padded, (2 * taps + 1, 2 * taps + 1)
  )
  return np.einsum('yxij,i,j->yx', windows, gaussian, gaussian)


def _tent(x):
  return jnp.maximum(0, 1 - jnp.abs(x))


def _floating(value):
  value = jnp.asarray(value)
  if jnp.issubdtype(value.dtype, jnp.floating):
    return value
  return value.astype(jnp.result_type(float))
