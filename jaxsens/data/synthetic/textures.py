"""Random textures and soft edges of procedural pictures.

Everything is a function of position in the picture, not of pixels: the same
key gives the same pattern at every resolution, and detail finer than a pixel
fades instead of aliasing. Positions are in units of the width of the frame.
"""

from collections.abc import Sequence
import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np


def soft_step(distance: ArrayLike, width: ArrayLike) -> jax.Array:
  """Rises smoothly from 0 to 1 where `distance` changes sign.

      s = clip(1/2 + distance / width, 0, 1);  s² (3 - 2 s)

  Args:
    distance: signed distance to an edge, positive inside, any shape.
    width: full width of the transition, > 0, same unit as `distance`.

  Returns:
    The coverage in [0, 1], shape of `distance` broadcast with `width`.
  """
  s = jnp.clip(0.5 + distance / width, 0.0, 1.0)
  return s * s * (3.0 - 2.0 * s)


def bump(distance: ArrayLike, width: ArrayLike) -> jax.Array:
  """Returns the Gaussian exp(-(distance / width)² / 2), broadcast."""
  return jnp.exp(-0.5 * jnp.square(distance / width))


@functools.lru_cache(maxsize=64)
def interpolation_matrix(num_cells: int, num_pixels: int) -> np.ndarray:
  """Returns the weights that spread lattice values over pixels.

  A cell's value reaches two cells to either side through a cubic B-spline,
  widened to the pixels where they are larger than the cells.

  Args:
    num_cells: lattice points, their middles spread evenly.
    num_pixels: pixels, over the same length.

  Returns:
    The weights, shape (num_pixels, num_cells), float32, rows sum to one.
  """
  scale = max(1.0, num_cells / num_pixels)
  middles = (np.arange(num_pixels) + 0.5) * num_cells / num_pixels - 0.5
  t = np.abs(middles[:, None] - np.arange(num_cells)[None, :]) / scale
  near = 2 / 3 - t**2 + t**3 / 2
  far = np.clip(2 - t, 0, None) ** 3 / 6
  weights = np.where(t < 1, near, far)
  weights /= weights.sum(axis=1, keepdims=True)
  return weights.astype(np.float32)


def spread(lattice: jax.Array, size: tuple[int, int]) -> jax.Array:
  """Spreads a lattice of values (rows, columns) smoothly over `size`."""
  down = interpolation_matrix(lattice.shape[0], size[0])
  across = interpolation_matrix(lattice.shape[1], size[1])
  return jnp.einsum(
      'hr,rc,wc->hw', down, lattice, across, precision=jax.lax.Precision.HIGHEST
  )


def fractal_field(
    key: jax.Array,
    size: tuple[int, int],
    num_cells: Sequence[int],
    amplitudes: Sequence[float],
) -> jax.Array:
  """Draws smooth Gaussian noise that has detail of several scales.

      f = 2 Σ_i amplitudes[i] spread(normal lattice i)

  with num_cells[i] cells across the width; the factor 2 makes up for the
  standard deviation of 1/2 that a spread lattice has. All lattices come from
  one draw, which keeps the compiled program small.

  Args:
    key: typed random key.
    size: height and width of the picture in pixels.
    num_cells: cells across the width, one per scale.
    amplitudes: standard deviation of each scale, about.

  Returns:
    The field, shape `size`, float32, mean 0.
  """
  shapes = [(max(2, round(n * size[0] / size[1])), n) for n in num_cells]
  counts = np.cumsum([0] + [rows * columns for rows, columns in shapes])
  numbers = jax.random.normal(key, (int(counts[-1]),), jnp.float32)
  total = jnp.zeros(size, jnp.float32)
  for i, (shape, amplitude) in enumerate(zip(shapes, amplitudes, strict=True)):
    lattice = numbers[counts[i] : counts[i + 1]].reshape(shape)
    total += 2.0 * amplitude * spread(lattice, size)
  return total


def streaks(
    key: jax.Array,
    along: jax.Array,
    across: jax.Array,
    pixel: float,
    *,
    length: float = 0.3,
    width: float = 0.006,
    table_shape: tuple[int, int] = (256, 16),
) -> jax.Array:
  """Draws brush marks: noise stretched along one curved coordinate.

  A periodic table of normal numbers is read at (across / width,
  along / length) with linear interpolation. Marks finer than a pixel lose
  contrast as the mean of independent marks does, by sqrt(width / pixel).

  Args:
    key: typed random key.
    along: coordinate along the marks, shape (H, W), in frame widths.
    across: coordinate across the marks, shape (H, W), in frame widths.
    pixel: size of a pixel in frame widths.
    length: length of a mark in frame widths.
    width: width of a mark in frame widths.
    table_shape: marks across and along after which the pattern repeats.

  Returns:
    The pattern, shape (H, W), mean 0, variance at most 1.
  """
  table = jax.random.normal(key, table_shape, jnp.float32)
  row, column = across / width, along / length
  first_row, first_column = jnp.floor(row), jnp.floor(column)
  total = jnp.zeros_like(row)
  for i, row_part in ((0, 1 - row + first_row), (1, row - first_row)):
    rows = jnp.mod(first_row + i, table_shape[0]).astype(jnp.int32)
    for j, part in ((0, 1 - column + first_column), (1, column - first_column)):
      columns = jnp.mod(first_column + j, table_shape[1]).astype(jnp.int32)
      total += row_part * part * table[rows, columns]
  return min(1.0, width / pixel) ** 0.5 * total
