"""Bilinear interpolation of an image at any positions.

Positions are indices of pixels: row i has its centre at i. Beyond the centres
of the outermost pixels their values are repeated ('edge').
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def pixel_grid(image: ArrayLike) -> tuple[jax.Array, jax.Array]:
  """Returns the rows (H, 1) and columns (1, W) of an image's own pixels.

  Args:
    image: (H, W, C).

  Returns:
    Two arrays of the dtype of the image, which broadcast to (H, W).
  """
  height, width, _ = image.shape
  rows = jnp.arange(height, dtype=image.dtype)
  columns = jnp.arange(width, dtype=image.dtype)
  return rows[:, None], columns[None]


def zoomed_grid(
  image: ArrayLike, zoom: ArrayLike
) -> tuple[jax.Array, jax.Array]:
  """Returns the rows (H, 1) and columns (1, W) that a zoom shows.

  Args:
    image: (H, W, C).
    zoom: positive scalar, about the centre; 2 shows all twice as large.
  """
  return tuple(
    (positions - (n - 1) / 2) / zoom + (n - 1) / 2
    for positions, n in zip(pixel_grid(image), image.shape[:2], strict=True)
  )


def bilinear(
  image: ArrayLike, rows: ArrayLike, columns: ArrayLike
) -> jax.Array:
  """Returns the image between its pixels.

  Args:
    image: (H, W, C).
    rows: positions, of a shape that broadcasts with that of columns to (M, N).
    columns: likewise.

  Returns:
    (M, N, C), differentiable in the positions; equal to
    `scipy.ndimage.map_coordinates` of order 1 with mode 'nearest'.
  """
  image = jnp.asarray(image)
  height, width, channels = image.shape
  i0, i1, di = _neighbours(rows, height)
  j0, j1, dj = _neighbours(columns, width)
  di, dj = di[..., None], dj[..., None]
  flat = image.reshape(height * width, channels)
  read = lambda i, j: flat.at[i * width + j].get(mode='promise_in_bounds')
  above = read(i0, j0) * (1 - dj) + read(i0, j1) * dj
  below = read(i1, j0) * (1 - dj) + read(i1, j1) * dj
  return above * (1 - di) + below * di


def _neighbours(positions, size):
  """Returns the two indices around positions, clamped, and the share."""
  positions = jnp.clip(positions, 0, size - 1)
  lower = jnp.floor(jax.lax.stop_gradient(positions))
  share = positions - lower
  lower = lower.astype(jnp.int32)
  return lower, jnp.minimum(lower + 1, size - 1), share
