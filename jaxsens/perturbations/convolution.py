"""Convolution of an image with a point spread function, and with a Gaussian.

An image is (H, W, C); every channel is convolved with the same kernel and the
result has the size of the image. What lies outside the image is made up, by
NumPy's name of it: 'edge' repeats the outermost pixel (aaa|abc), 'symmetric'
mirrors at the border (cba|abc) and 'reflect' at the outermost pixel (dcb|abc).

The cost does not depend on the size of the kernel's support that is in use:
kernels may have traced parameters and a static support for the largest of
them. Up to rounding the results are exact; nothing is periodic.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np

_BORDERS = ('edge', 'symmetric', 'reflect')
# Below this standard deviation the neighbours' weight underflows in float32.
_SMALLEST_SIGMA = 0.07
# Matrices grow with the cube of the side, Fourier transforms with its square;
# on a CPU they cost the same at 420 pixels.
_LARGEST_FOR_MATRICES = 400


def convolve(
  image: ArrayLike, psf: ArrayLike, *, border: str = 'edge'
) -> jax.Array:
  """Returns the convolution with a kernel, by real Fourier transforms.

      out[y, x] = Σ_{i, j} psf[R + i, R + j] image[y - i, x - j]

  Args:
    image: (H, W, C).
    psf: (2 R + 1, 2 R + 1), origin in the middle, of any symmetry.
    border: 'edge', 'symmetric' or 'reflect', see the module.

  Returns:
    (H, W, C), dtype of the image.

  Raises:
    ValueError: an image that is not (H, W, C), a kernel that is not square
      with an odd side, or an unknown border.
  """
  image = check_image(image)
  psf = jnp.asarray(psf, image.dtype)
  if psf.ndim != 2 or psf.shape[0] != psf.shape[1] or psf.shape[0] % 2 == 0:
    raise ValueError(
      f'psf must be square with an odd side, got shape {psf.shape}'
    )
  if border not in _BORDERS:
    raise ValueError(f'border must be one of {_BORDERS}, got {border!r}')
  height, width, _ = image.shape
  reach = psf.shape[0] // 2
  # Read by index: on a CPU three times faster than `jnp.pad`.
  rows, columns = (
    np.pad(np.arange(n), reach, mode=border) for n in (height, width)
  )
  padded = jnp.transpose(image, (2, 0, 1))[:, :, columns][:, rows]
  # Periodic wrapping only reaches the first 2 R rows and columns.
  size = tuple(_fast_length(n + 2 * reach) for n in (height, width))
  spectrum = jnp.fft.rfft2(padded, size)
  spectrum = spectrum * jnp.fft.rfft2(psf, size)
  result = jnp.fft.irfft2(spectrum, size)
  start = 2 * reach
  result = result[:, start:start + height, start:start + width]
  return jnp.transpose(result, (1, 2, 0))


def convolve_gaussian(
  image: ArrayLike, sigma: ArrayLike, *, reach: int
) -> jax.Array:
  """Returns the convolution with a Gaussian, by one matrix along each axis.

      weight[d] ∝ exp(-d² / (2 sigma²)),  |d| <= reach

  The weights are sampled and normalised to sum one, as in
  `scipy.ndimage.gaussian_filter`; the border is 'edge' (scipy's 'nearest').
  Images with a side above 400 pixels go through `convolve`.

  Args:
    image: (H, W, C).
    sigma: standard deviation in pixels, scalar >= 0.
    reach: largest |d|; four standard deviations leave out 6e-5.

  Returns:
    (H, W, C), dtype of the image.
  """
  image = check_image(image)
  sigma = jnp.asarray(sigma, image.dtype)
  if max(image.shape[:2]) > _LARGEST_FOR_MATRICES:
    one_side = _gaussian_weights(sigma, reach)
    line = jnp.concatenate([one_side[:0:-1], one_side])
    return convolve(image, line[:, None] * line)
  rows, columns = (_gaussian_matrix(sigma, n, reach) for n in image.shape[:2])
  return jnp.einsum(
    'ah,hwc,bw->abc', rows, image, columns,
    precision=jax.lax.Precision.HIGHEST,
  )


def check_image(image: ArrayLike) -> jax.Array:
  """Returns the image as an array; ValueError unless it is float (H, W, C)."""
  image = jnp.asarray(image)
  if image.ndim != 3 or 0 in image.shape:
    raise ValueError(f'image must be (H, W, C), got shape {image.shape}')
  if not jnp.issubdtype(image.dtype, jnp.floating):
    raise ValueError(
      f'image must be of floats in [0, 1], got dtype {image.dtype}'
    )
  return image


def _gaussian_weights(sigma, reach):
  """Returns (reach + 1,) weights of the distances 0, 1, ..., summing to one."""
  sigma = jnp.maximum(sigma, _SMALLEST_SIGMA)
  distance = jnp.arange(reach + 1, dtype=sigma.dtype)
  weights = jnp.exp(-0.5 * (distance / sigma) ** 2)
  return weights / (2 * jnp.sum(weights) - weights[0])


def _gaussian_matrix(sigma, size, reach):
  """Returns (size, size): the Toeplitz matrix, its tails at the outer pixels.

  The outermost pixel stands for everything beyond it.
  """
  if size == 1:
    return jnp.ones((1, 1), sigma.dtype)
  one_side = _gaussian_weights(sigma, reach)
  one_side = jnp.pad(one_side, (0, max(0, size - 1 - reach)))
  distance = np.abs(np.arange(size)[:, None] - np.arange(size))
  tail = jnp.cumsum(one_side[::-1])[::-1][:size]
  matrix = one_side[distance]
  return matrix.at[:, 0].set(tail).at[:, -1].set(tail[::-1])


def _fast_length(length):
  """Returns the next length with no prime factor above seven."""
  while True:
    rest = length
    for factor in (2, 3, 5, 7):
      while rest % factor == 0:
        rest //= factor
    if rest == 1:
      return length
    length += 1
