"""Filters that apply a transfer function to an image.

A filter adds (transfer - 1) times the spectrum to the image: a transfer
function that is one everywhere gives the image back bit for bit, and the
derivative is right there too. The border is reflected about the edge of the
outermost pixels, which makes the spectrum a cosine transform: a product with a
matrix for axes as long as a network's input, an FFT for longer ones.
Differentiable in whatever the transfer function closes over.

References:
  Martucci, Symmetric convolution and the discrete sine and cosine transforms,
    1994.
"""

from collections.abc import Callable
import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np

# A radial function is evaluated at this many frequencies, refined by cubics to
# _FINE times as many, and read linearly between those.
_NUM_RADII, _FINE = 256, 8
# Largest radial frequency of a pixel grid, cycles per pixel.
_CORNER = np.sqrt(0.5)
# Beyond this length an axis is transformed by FFT rather than by a matrix.
_LONGEST_MATRIX = 512
_HIGHEST = jax.lax.Precision.HIGHEST


def filter_radial(
  image: ArrayLike, transfer: Callable[[jax.Array], jax.Array]
) -> jax.Array:
  """Applies a transfer function that is the same in all directions.

  Args:
    image: (H, W, C).
    transfer: function of radial frequencies (n,) in cycles per pixel.

  Returns:
    (H, W, C), not clipped.
  """
  image = _checked(image)
  height, width = image.shape[:2]
  coarse, lower, share = _radii(height, width)
  table = transfer(jnp.asarray(coarse, image.dtype)) - 1
  table = _refined(table)
  below = table[lower]
  change = below + share.astype(image.dtype) * (table[lower + 1] - below)
  spectrum = _analysed(image.transpose(2, 1, 0))
  added = _synthesised(spectrum * change)
  return image + added.transpose(2, 1, 0)


def filter_separable(
  image: ArrayLike, transfer: Callable[[jax.Array], jax.Array]
) -> jax.Array:
  """Applies transfer(u) transfer(v), one factor for each axis.

  Args:
    image: (H, W, C).
    transfer: function of frequencies (n,) along an axis, cycles per pixel.

  Returns:
    (H, W, C), not clipped.
  """
  image = _checked(image)
  rows = image.transpose(2, 0, 1)
  columns = (rows + _filtered(rows, transfer)).swapaxes(-1, -2)
  return (columns + _filtered(columns, transfer)).transpose(2, 1, 0)


def filter_plane(
  image: ArrayLike, transfer: Callable[[jax.Array, jax.Array], jax.Array]
) -> jax.Array:
  """Applies a real transfer function of both frequencies.

  With a(u, v) the cosine coefficients of the reflected image and H the
  transfer, which has H(-u, -v) = H(u, v), it returns

      sum of a (H(u, v) + H(u, -v)) / 2 cos(2 π u x) cos(2 π v y)
           - a (H(u, v) - H(u, -v)) / 2 sin(2 π u x) sin(2 π v y)

  Args:
    image: (H, W, C).
    transfer: function of u (W, 1) along +x and v (1, H) along +y, which points
      down the rows, in cycles per pixel; returns (W, H).

  Returns:
    (H, W, C), not clipped.
  """
  image = _checked(image)
  height, width = image.shape[:2]
  u = jnp.asarray(_frequencies(width)[:, None], image.dtype)
  v = jnp.asarray(_frequencies(height)[None, :], image.dtype)
  down, up = transfer(u, v) - 1, transfer(u, -v) - 1
  spectrum = _analysed(image.transpose(2, 1, 0))
  added = _synthesised(spectrum * ((down + up) / 2))
  crossed = _synthesised(spectrum * ((down - up) / 2), sine=True)
  return image + (added - crossed).transpose(2, 1, 0)


def _checked(image):
  image = jnp.asarray(image)
  if image.ndim != 3 or not jnp.issubdtype(image.dtype, jnp.floating):
    raise ValueError(
      'image must be a float array (H, W, C), got shape '
      f'{image.shape} of {image.dtype}'
    )
  return image


def _frequencies(length):
  """Cycles per pixel of the cosines of an axis, below one half."""
  return np.arange(length) / (2 * length)


@functools.lru_cache(maxsize=16)
def _radii(height, width):
  """Frequencies (n,) of a table, and where (W, H) radii lie in its fine form.

  The spectra of this module have the columns first.
  """
  step = _CORNER / (_NUM_RADII - 1)
  radius = np.hypot(
    _frequencies(width)[:, None], _frequencies(height)[None, :]
  )
  position = radius / step * _FINE
  lower = np.minimum(position.astype(np.int32), (_NUM_RADII - 1) * _FINE - 1)
  return np.arange(_NUM_RADII) * step, lower, position - lower


def _refined(table):
  """Values (n,) to ((n - 1) _FINE + 1,) by Catmull-Rom cubics.

  A radial function is even, which gives the point before the first one.
  """
  last = 2 * table[-1:] - table[-2:-1]
  padded = jnp.concatenate([table[1:2], table, last])
  t = (np.arange(_FINE) / _FINE).astype(table.dtype)
  before = ((-t + 2) * t - 1) * t / 2
  after = (t - 1) * t * t / 2
  here = ((3 * t - 5) * t * t + 2) / 2
  following = ((-3 * t + 4) * t + 1) * t / 2
  num = len(table) - 1
  fine = sum(
    padded[i:i + num, None] * weight
    for i, weight in enumerate((before, here, following, after))
  )
  return jnp.concatenate([fine.reshape(-1), table[-1:]])


@functools.lru_cache(maxsize=16)
def _waves(length, sine):
  """Orthonormal cosines (frequency, position), or the sines beside them."""
  phase = np.pi * np.outer(np.arange(length), np.arange(length) + 0.5) / length
  waves = (np.sin if sine else np.cos)(phase) * np.sqrt(2 / length)
  waves[0] /= np.sqrt(2)
  return waves


def _analysed(x):
  """Cosine coefficients (C, W, H) of (C, W, H), or of any last two axes."""
  return _cosines(_cosines(x).swapaxes(-1, -2)).swapaxes(-1, -2)


def _synthesised(x, sine=False):
  return _sum_of_waves(
    _sum_of_waves(x, sine).swapaxes(-1, -2), sine
  ).swapaxes(-1, -2)


def _cosines(x):
  """Cosine coefficients along the last axis."""
  length = x.shape[-1]
  if length <= _LONGEST_MATRIX:
    waves = _waves(length, False).T.astype(x.dtype)
    return jnp.matmul(x, waves, precision=_HIGHEST)
  spectrum = jnp.fft.rfft(x, 2 * length)[..., :length]
  turned, scale = _half_sample(length, x.dtype)
  return jnp.real(spectrum * jnp.conj(turned)) * scale


def _sum_of_waves(x, sine):
  """Sum of cosines, or of sines, with coefficients along the last axis."""
  length = x.shape[-1]
  if length <= _LONGEST_MATRIX:
    waves = _waves(length, sine).astype(x.dtype)
    return jnp.matmul(x, waves, precision=_HIGHEST)
  turned, scale = _half_sample(length, x.dtype)
  # The FFT halves the constant term, which the orthonormal scale has at
  # sqrt(1 / length).
  both = scale * np.where(np.arange(length) == 0, 2, 1)
  spectrum = x * (both * length).astype(x.dtype) * turned
  if sine:
    spectrum = -1j * spectrum
  return jnp.fft.irfft(spectrum, 2 * length)[..., :length]


def _half_sample(length, dtype):
  """Shift by half a sample (length,), complex, and the orthonormal scale."""
  index = np.arange(length)
  turned = np.exp(0.5j * np.pi * index / length)
  scale = np.sqrt(np.where(index == 0, 1, 2) / length)
  return turned.astype(jnp.result_type(dtype, jnp.complex64)), scale.astype(
    dtype
  )


def _filtered(x, transfer):
  """What the transfer function adds along the last axis."""
  length = x.shape[-1]
  frequency = jnp.asarray(_frequencies(length), x.dtype)
  change = transfer(frequency) - 1
  if length > _LONGEST_MATRIX:
    return _sum_of_waves(_cosines(x) * change, False)
  waves = _waves(length, False).astype(x.dtype)
  kernel = jnp.matmul(waves.T * change, waves, precision=_HIGHEST)
  return jnp.matmul(x, kernel, precision=_HIGHEST)
