"""Resizing and cropping before a network, by the conventions of PIL.

torchvision's preset of ImageNet: the short side becomes `side` pixels, the long
one int(side long / short), with a kernel widened by the factor of the
reduction; then the central square. Along each axis, with scale s = in / out,

    resized[i] = Σ_j w[i, j] image[j],  w[i, j] ∝ kernel((j - c_i) / max(s, 1))
    c_i = (i + 1/2) s - 1/2,  Σ_j w[i, j] = 1

PIL rounds to 8 bits behind each axis, the horizontal one first; `levels=255`
does the same.

References:
  Pillow, `Resample.c`; torchvision.transforms.functional, `resize` and
  `center_crop`.
  Keys, Cubic convolution interpolation, 1981, a = -1/2.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np


def resize(
  image: jax.Array,
  size: tuple[int, int],
  *,
  interpolation: str = 'bilinear',
  levels: int | None = None,
) -> jax.Array:
  """Returns an image resized with PIL's weights.

  Args:
    image: (H, W, C) float.
    size: (height, width) of the result, pixels.
    interpolation: 'bilinear' or 'bicubic'.
    levels: round to multiples of 1 / levels behind each axis and clip to
      [0, 1], as 8-bit images are with 255; None does neither.

  Returns:
    (*size, C), of the dtype of the image.

  Raises:
    ValueError: an unknown interpolation, another shape or an empty size.
  """
  if interpolation not in _KERNELS:
    raise ValueError(
      f'interpolation must be one of {sorted(_KERNELS)}, got '
      f'{interpolation!r}.'
    )
  if image.ndim != 3 or min(*size, *image.shape) < 1:
    raise ValueError(
      f'an image (H, W, C) and a size of at least 1 pixel are needed, got '
      f'shape {image.shape} and size {size}.'
    )
  image = jnp.asarray(image)
  for axis, contraction in ((1, 'ij,hjc->hic'), (0, 'ij,jwc->iwc')):
    if image.shape[axis] == size[axis]:
      continue
    matrix = _weights(image.shape[axis], size[axis], interpolation)
    image = jnp.einsum(
      contraction, jnp.asarray(matrix, image.dtype), image,
      precision=jax.lax.Precision.HIGHEST,
    )
    if levels is not None:
      # Halves are rounded up, as the integers of PIL are.
      image = jnp.clip(jnp.floor(image * levels + 0.5) / levels, 0, 1)
  return image


def short_side_size(
  size: tuple[int, int], side: int
) -> tuple[int, int]:
  """Returns (height, width) with the short side of so many pixels.

  The long side is cut to a whole number of pixels, as torchvision does.
  """
  height, width = size
  if height <= width:
    return side, int(side * width / height)
  return int(side * height / width), side


def resize_short_side(
  image: jax.Array,
  side: int,
  *,
  interpolation: str = 'bilinear',
  levels: int | None = None,
) -> jax.Array:
  """Returns an image whose short side has `side` pixels, see `resize`."""
  return resize(
    image, short_side_size(image.shape[:2], side), interpolation=interpolation,
    levels=levels,
  )


def centre_crop(image: jax.Array, side: int) -> jax.Array:
  """Returns the central square of an image.

  The offset round((length - side) / 2) is rounded to even, as torchvision does;
  where the image is shorter, zeros surround it.

  Args:
    image: (H, W, C).
    side: of the square, pixels.

  Returns:
    (side, side, C).
  """
  missing = [max(side - length, 0) for length in image.shape[:2]]
  if any(missing):
    pads = [(n // 2, (n + 1) // 2) for n in missing]
    image = jnp.pad(image, (*pads, (0, 0)))
  top, left = (round((length - side) / 2) for length in image.shape[:2])
  return image[top : top + side, left : left + side]


def _triangle(x: np.ndarray) -> np.ndarray:
  return np.maximum(1 - np.abs(x), 0)


def _cubic(x: np.ndarray) -> np.ndarray:
  x = np.abs(x)
  inner = (1.5 * x - 2.5) * x * x + 1
  outer = ((-0.5 * x + 2.5) * x - 4) * x + 2
  return np.where(x < 1, inner, np.where(x < 2, outer, 0))


_KERNELS = {'bilinear': _triangle, 'bicubic': _cubic}


@functools.lru_cache(maxsize=256)
def _weights(length: int, new_length: int, interpolation: str) -> np.ndarray:
  """Returns the weights (new_length, length) along one axis, float64."""
  scale = length / new_length
  centres = (np.arange(new_length) + 0.5) * scale - 0.5
  distances = (np.arange(length) - centres[:, None]) / max(scale, 1.0)
  weights = _KERNELS[interpolation](distances)
  return weights / weights.sum(1, keepdims=True)
