"""Clouds by the diamond-square algorithm."""

import functools
import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np

from jaxsens.perturbations import random_fields

# Points across of the grid up to which a plasma is one product with a matrix,
# and how many times as long that grid may be.
_COARSE, _LONGEST = 16, 4


def power_of_two(num: int) -> int:
  """Returns the smallest power of two that is at least num, and at least 2."""
  return 1 << max(1, (num - 1).bit_length())


def plasma(
  key: jax.Array, size: tuple[int, int], decay: ArrayLike, dtype
) -> jax.Array:
  """Returns a cloud by the diamond-square algorithm, from 0 to 1.

  Starting from zeros at a spacing of s = min(size) pixels, every pass halves
  the spacing: the middle of each square of four points, then the middle of
  each edge, becomes

      mean of its four neighbours + decay^(-2 pass) U(-1, 1),

  and the map is periodic. The point (i, j) uses the draw [i, j] of one array.
  The square map is ImageNet-C's `plasma_fractal`, whose offsets are
  `wibble * uniform(-wibble, wibble)`, hence the square of the decay.

  Args:
    key: of the draws.
    size: (H, W), powers of two from 2 on.
    decay: scalar above 0; 1.4 is rough, 3 is smooth.
    dtype: of the result.

  Returns:
    (H, W), least value 0, greatest 1.

  Raises:
    ValueError: a size that is not a power of two.

  References:
    Fournier, Fussell, Carpenter, Computer rendering of stochastic models,
    1982. Hendrycks and Dietterich, Benchmarking neural network robustness to
    common corruptions and perturbations, 2019 (fog).
  """
  if any(power_of_two(n) != n for n in size):
    raise ValueError(f'size must be powers of two from 2 on, got {size}')
  draws = 2 * random_fields.uniform(key, size, dtype) - 1
  shrink = jnp.asarray(decay, dtype) ** -2
  step = max(1, min(size) // _COARSE)
  if math.prod(size) > (_COARSE * step) ** 2 * _LONGEST:
    step = min(size)
  coarse = draws[::step, ::step]
  passes, matrix = _coarse_passes(coarse.shape)
  grid = jnp.matmul(
    matrix.astype(dtype), (shrink**passes * coarse).reshape(-1),
    precision=jax.lax.Precision.HIGHEST,
  ).reshape(coarse.shape)
  amplitude = shrink ** (min(coarse.shape).bit_length() - 1)
  while step > 1:
    half = step // 2
    # Joined by XLA, the passes would take seconds to compile.
    grid = jax.lax.optimization_barrier(_refine(grid, *(
      amplitude * draws[i::step, j::step]
      for i, j in ((half, half), (0, half), (half, 0))
    )))
    step, amplitude = half, amplitude * shrink
  grid = grid - grid.min()
  return grid / grid.max()


@functools.lru_cache(maxsize=16)
def _coarse_passes(size):
  """Returns the pass (H, W) of each point, and the passes as one matrix.

  A plasma is linear in its draws: of small ones all passes are the product of
  a matrix (H W, H W) with the draws times their amplitudes.
  """
  num = math.prod(size)
  unit = np.eye(num).reshape(num, *size)
  passes, step = np.zeros(size, np.int32), min(size)
  grid = np.zeros((num, size[0] // step, size[1] // step))
  number = 0
  while step > 1:
    half = step // 2
    starts = (half, half), (0, half), (half, 0)
    for i, j in starts:
      passes[i::step, j::step] = number
    grid = _refine(
      grid, *(unit[:, i::step, j::step] for i, j in starts), numpy=np
    )
    step, number = half, number + 1
  return passes, grid.reshape(num, num).T


def _refine(corners, middle_offsets, row_offsets, column_offsets, numpy=jnp):
  """Returns the periodic grid (..., 2 H, 2 W) of one pass of diamond-square."""
  roll, stack = numpy.roll, numpy.stack
  right = roll(corners, -1, -1)
  squares = corners + right
  squares = (squares + roll(squares, -1, -2)) / 4 + middle_offsets
  rows = corners + right + squares + roll(squares, 1, -2)
  rows = rows / 4 + row_offsets
  columns = corners + roll(corners, -1, -2)
  columns = (columns + squares + roll(squares, 1, -1)) / 4 + column_offsets
  *batch, height, width = corners.shape
  upper = stack([corners, rows], -1).reshape(*batch, height, 2 * width)
  lower = stack([columns, squares], -1).reshape(*batch, height, 2 * width)
  return stack([upper, lower], -2).reshape(*batch, 2 * height, 2 * width)
