"""Low-pass filtering of a source for one output size, and reading it.

Resampling to a smaller image is made in two parts, so that only the second
depends on where is read. `prefilter` low-passes the source once with the
triangle kernel of the output pixel and stores it on a grid three times finer
than the output. `interpolate` then reads that grid. Three is odd, so the
centres of the output pixels are points of the fine grid: the identity gives
exactly the antialiased resize, and a rotation by a fraction of a degree does
not suddenly lose sharpness as it would by interpolating between output pixels.
Where the picture is shrunk further (the far edge of a tilt), `interpolate`
goes between levels with kernels 1, 2, 4 ... output pixels wide
(Williams, Pyramidal parametrics, SIGGRAPH 1983).

Positions are in base pixels, see `Prefiltered`: pixel k covers [k, k + 1]. An
image is a float array (H, W, C).
"""

from collections.abc import Callable
import dataclasses

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np

_OVERSAMPLING = 3


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Prefiltered:
  """A source image made ready for resampling to one output size.

  Attributes:
    levels: (L, Hf, Wf, C), the source low-passed with kernels 1, 2, 4, ...
      output pixels wide, all on the same grid.
    source_size: (H, W) of the source, in source pixels.
    pixel: (y, x), source pixels per base pixel; a base pixel is the coarser of
      output pixel and source pixel along that axis.
  """

  levels: jax.Array
  source_size: tuple[int, int] = dataclasses.field(metadata={'static': True})
  pixel: tuple[float, float] = dataclasses.field(metadata={'static': True})


def resize(image: ArrayLike, size: tuple[int, int]) -> jax.Array:
  """Returns the image resized with the antialiased triangle kernel.

  Args:
    image: (H, W, C).
    size: (H', W') in pixels.

  Returns:
    (H', W', C). Equal to torch's bilinear `interpolate(antialias=True)`.
  """
  image = jnp.asarray(image)
  return _low_pass(image, size, size)


def prefilter(
  image: ArrayLike, size: tuple[int, int], *, num_levels: int = 1
) -> Prefiltered:
  """Returns the image low-passed for resampling to a size.

  Args:
    image: (H, W, C).
    size: (H', W') of the output that `warp` will make.
    num_levels: 1 for homographies that never shrink the picture beyond the
      resize itself; each further level covers another factor of two.

  Returns:
    The prefiltered levels. An axis that is not made smaller stays as it is in
    level 0.
  """
  image = jnp.asarray(image)
  if image.ndim != 3:
    raise ValueError(f'image must be (H, W, C), got shape {image.shape}')
  grids = [_fine_size(n, m) for n, m in zip(image.shape, size, strict=False)]
  pixels = tuple(min(n, m) for n, m in zip(image.shape, size, strict=False))
  if tuple(grids) == image.shape[:2]:
    levels = _widened(image, num_levels)
  else:
    levels = jnp.stack([
      _low_pass(image, grids, pixels, widening=2**level)
      for level in range(num_levels)
    ])
  pixel = tuple(
    max(1.0, n / m) for n, m in zip(image.shape, size, strict=False)
  )
  return Prefiltered(levels, image.shape[:2], pixel)


def nearest(source: Prefiltered, x: ArrayLike, y: ArrayLike) -> jax.Array:
  """Returns the samples of level 0 nearest to positions.

  Args:
    source: from `prefilter`.
    x: (...) in base pixels; beyond the picture the outermost sample is taken.
    y: (...), likewise.

  Returns:
    (..., C).
  """
  i, j = _grid_position(source, x, y)
  i, j = (jnp.floor(k + 0.5).astype(jnp.int32) for k in (i, j))
  return _gather(source, 0, i, j)


def interpolate(
  source: Prefiltered,
  x: ArrayLike,
  y: ArrayLike,
  level: ArrayLike | None = None,
  *,
  pointwise: Callable[[jax.Array], jax.Array] = lambda pixels: pixels,
) -> jax.Array:
  """Returns the source at positions, linear between samples and levels.

  Args:
    source: from `prefilter`.
    x: in base pixels, of a shape that broadcasts with that of y to (H', W');
      beyond the picture the outermost sample is taken. Where it is the same
      along columns, (1, W') is faster.
    y: likewise; (H', 1) where it is the same along rows.
    level: in [0, L - 1], scalar or (H', W'), or None for level 0 alone.
    pointwise: a function of pixel values alone, applied to the samples.

  Returns:
    (H', W', C), differentiable in x, y and level.
  """
  i, j = _grid_position(source, x, y)
  if level is None:
    return _bilinear(source, 0, i, j, pointwise)
  below = jnp.floor(jax.lax.stop_gradient(level))
  below = jnp.minimum(below, source.levels.shape[0] - 2)
  share = (level - below)[..., None]
  below = below.astype(jnp.int32)
  fine = _bilinear(source, below, i, j, pointwise)
  coarse = _bilinear(source, below + 1, i, j, pointwise)
  return fine * (1 - share) + coarse * share


def _grid_position(source, x, y):
  """Base pixels to fractional indices of the fine grid, clamped inside."""
  _, height, width, _ = source.levels.shape
  scale_y = height * source.pixel[0] / source.source_size[0]
  scale_x = width * source.pixel[1] / source.source_size[1]
  i = jnp.clip(y * scale_y - 0.5, 0, height - 1)
  j = jnp.clip(x * scale_x - 0.5, 0, width - 1)
  return i, j


def _gather(source, level, i, j):
  """Reads the grid at integer indices that are known to be inside."""
  num_levels, height, width, channels = source.levels.shape
  flat = source.levels.reshape(num_levels * height * width, channels)
  index = (level * height + i) * width + j
  return flat.at[index].get(mode='promise_in_bounds')


def _bilinear(source, level, i, j, pointwise):
  _, height, width, _ = source.levels.shape
  i0, j0 = (jnp.floor(jax.lax.stop_gradient(k)) for k in (i, j))
  di, dj = (i - i0)[..., None], (j - j0)[..., None]
  i0, j0 = i0.astype(jnp.int32), j0.astype(jnp.int32)
  i1, j1 = jnp.minimum(i0 + 1, height - 1), jnp.minimum(j0 + 1, width - 1)
  tap = lambda a, b: pointwise(_gather(source, level, a, b))
  top = tap(i0, j0) * (1 - dj) + tap(i0, j1) * dj
  bottom = tap(i1, j0) * (1 - dj) + tap(i1, j1) * dj
  return top * (1 - di) + bottom * di


def _fine_size(source_size, output_size):
  if output_size >= source_size:
    return source_size
  return _OVERSAMPLING * output_size


def _low_pass(image, grid, num_pixels, *, widening=1):
  """Returns the image on a grid (rows, columns), low-passed for pixels."""
  rows, columns = (
    _resampling_matrix(n, g, m, widening=widening)
    for n, g, m in zip(image.shape, grid, num_pixels, strict=False)
  )
  operands, terms = [image], ['hwc']
  result = 'hwc'
  for matrix, old, new in ((rows, 'h', 'a'), (columns, 'w', 'b')):
    if matrix is not None:
      operands.append(jnp.asarray(matrix, image.dtype))
      terms.append(new + old)
      result = result.replace(old, new)
  if len(operands) == 1:
    return image
  return jnp.einsum(
    f'{",".join(terms)}->{result}', *operands,
    precision=jax.lax.Precision.HIGHEST,
  )


def _widened(image, num_levels):
  """Returns `_resampling_matrix` of a grid that stays applied for each level.

  The triangle 2 w wide is that w wide followed by (1, 2, 1) / 4 at w pixels;
  zeros around the image keep this exact, and the sums of the weights that fall
  inside divide. Rows of all channels are one contiguous axis.
  """
  height, width, channels = image.shape
  # The widest kernel reaches this far on each side.
  reach = 2 ** (num_levels - 1) - 1
  total = jnp.pad(
    image.reshape(height, width * channels),
    ((reach, reach), (reach * channels, reach * channels)),
  )
  levels = [image]
  for level in range(1, num_levels):
    step, last = 2 ** (level - 1), 2**level - 1
    total = _one_two_one(_one_two_one(total, 0, step), 1, step * channels)
    margin = reach - last
    rows, columns = (
      1 / _triangle_sums(n, 2**level) for n in (height, width)
    )
    inside = total[
      margin:margin + height, margin * channels:(margin + width) * channels
    ]
    scaled = (
      inside * jnp.asarray(rows[:, None], image.dtype)
      * jnp.asarray(np.repeat(columns, channels), image.dtype)
    )
    levels.append(scaled.reshape(image.shape))
  return jnp.stack(levels)


def _one_two_one(array, axis, step):
  """Weighted sums of array[k], array[k + step] and array[k + 2 step]."""
  length = array.shape[axis] - 2 * step
  a, b, c = (
    jax.lax.slice_in_dim(array, k, k + length, axis=axis)
    for k in (0, step, 2 * step)
  )
  return a + 2 * b + c


def _triangle_sums(length, width):
  """Sums of the integer weights of a triangle that fall inside, (length,)."""
  weights = width - np.abs(np.arange(1 - width, width))
  sums = np.convolve(np.ones(length), weights)
  return sums[width - 1:width - 1 + length]


def _resampling_matrix(num_source, num_grid, num_pixels, *, widening):
  """Returns (num_grid, num_source): triangle weights, rows summing to one.

  The kernel is as wide as `widening` of the coarser of a source pixel and one
  of `num_pixels` output pixels; its centres are the `num_grid` grid points.
  None stands for the identity.
  """
  width = widening * max(1.0, num_source / num_pixels)
  if num_grid == num_source and width == 1:
    return None
  centres = (np.arange(num_grid) + 0.5) * num_source / num_grid
  distance = np.arange(num_source)[None, :] + 0.5 - centres[:, None]
  matrix = np.maximum(0.0, 1.0 - np.abs(distance) / width)
  return matrix / matrix.sum(1, keepdims=True)
