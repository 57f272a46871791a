"""Homographies of one image and the resampling that carries them out.

Conventions shared by every function here:

- An image is a float array (H, W, C). Coordinates are in pixels of the source
  image with the origin at its upper left corner: pixel k covers [k, k + 1] and
  its centre is k + 0.5; x runs to the right, y downwards.
- A homography (3, 3) maps OUTPUT coordinates to INPUT coordinates ("pull"):
  the output at p shows the input at H p. An operation A followed by an
  operation B is therefore the product A @ B, and any sequence of geometric
  operations is one homography and one resampling.
- Angles of the public functions are in degrees.
- What lies outside the image is filled with a constant (black by default).

Resampling to a smaller image is made in two parts, so that only the second
depends on the homography. `prefilter` low-passes the source once with the
triangle kernel of the output pixel and stores it on a grid three times finer
than the output. `warp` then interpolates on that grid. Three is odd, so the
centres of the output pixels are points of the fine grid: the identity gives
exactly the antialiased resize, and a rotation by a fraction of a degree does
not suddenly lose sharpness as it would by interpolating between output pixels.
Where the homography itself shrinks the picture (the far edge of a tilt), `warp`
interpolates between levels with kernels 1, 2, 4 ... output pixels wide
(Williams, Pyramidal parametrics, SIGGRAPH 1983).
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np

_OVERSAMPLING = 3
# Denominators of a homography below this belong to points at or behind the
# horizon; they show the fill.
_HORIZON = 1e-6


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


def rotation(
  degrees: ArrayLike, size: tuple[int, int]
) -> jax.Array:
  """Returns the homography of a counter-clockwise rotation about the centre.

  Args:
    degrees: angle, scalar.
    size: (H, W) of the image in pixels.

  Returns:
    (3, 3), output to input coordinates. Equal to torchvision's `rotate`.
  """
  radians = jnp.deg2rad(degrees)
  cos, sin = jnp.cos(radians), jnp.sin(radians)
  y, x = size[0] / 2, size[1] / 2
  zero, one = jnp.zeros_like(cos), jnp.ones_like(cos)
  return jnp.stack([
    jnp.stack([cos, -sin, x - cos * x + sin * y]),
    jnp.stack([sin, cos, y - sin * x - cos * y]),
    jnp.stack([zero, zero, one]),
  ])


def tilt(degrees: ArrayLike, size: tuple[int, int]) -> jax.Array:
  """Returns the homography that shrinks the top edge by tan(t) per side.

  With s = tan(t), the corners (0, 0) and (W, 0) move to (s W, 0) and
  (W - s W, 0) while the bottom edge stays; negative angles widen the top. The
  closed form of the eight-coefficient perspective transform is, up to scale,

      [[1, s W / H, -s W], [0, 1, 0], [0, 2 s / H, 1 - 2 s]].

  Args:
    degrees: angle t, scalar, below arctan(1/2) = 26.57 where the top edge
      vanishes.
    size: (H, W) of the image in pixels. The source system used the fixed box
      (244, 244) whatever the image.

  Returns:
    (3, 3), output to input coordinates.

  References:
    Bahr et al., Sensitivity Analysis of Image Classification Models using
    Generalized Polynomial Chaos, arXiv:2506.18751, 2025 (its trapezoid).
  """
  slope = jnp.tan(jnp.deg2rad(degrees))
  height, width = size
  zero, one = jnp.zeros_like(slope), jnp.ones_like(slope)
  return jnp.stack([
    jnp.stack([one, slope * (width / height), -slope * width]),
    jnp.stack([zero, one, zero]),
    jnp.stack([zero, slope * (2 / height), one - 2 * slope]),
  ])


def keystone(degrees: ArrayLike, size: tuple[int, int]) -> jax.Array:
  """Returns the homography of a camera that tilts about its horizontal axis.

  The plane of the picture is seen from a distance of one image height, and
  the image is centred again: with (u, v) the output coordinates about the
  centre,

      (u, v)_in = (u, v) / (1 + tan(t) v / H)

  Positive angles show the upper half smaller and the lower half larger.

  Args:
    degrees: angle t, scalar, within +-60 where the horizon stays outside.
    size: (H, W) of the image in pixels.

  Returns:
    (3, 3), output to input coordinates, up to scale.
  """
  slope = jnp.tan(jnp.deg2rad(degrees))
  height, width = size
  zero, one = jnp.zeros_like(slope), jnp.ones_like(slope)
  # w = 1 + slope (y - H / 2) / H; x_in = (x - W / 2) / w + W / 2.
  offset = one - slope / 2
  return jnp.stack([
    jnp.stack([
      one, slope * (width / (2 * height)), (offset - 1) * (width / 2)
    ]),
    jnp.stack([zero, one + slope / 2, (offset - 1) * (height / 2)]),
    jnp.stack([zero, slope / height, offset]),
  ])


def scaling(factor: ArrayLike, size: tuple[int, int]) -> jax.Array:
  """Returns the homography of a zoom about the centre.

      x_in = W / 2 + (x_out - W / 2) / factor, and so for y

  Args:
    factor: positive scalar; 2 shows everything twice as large, 1 is the
      identity.
    size: (H, W) of the image in pixels.

  Returns:
    (3, 3), output to input coordinates. Equal to torchvision's `affine` with
    this scale.
  """
  inverse = 1 / jnp.asarray(factor)
  height, width = size
  return _diagonal_affine(
    inverse, (1 - inverse) * (width / 2), (1 - inverse) * (height / 2)
  )


def translation_x(fraction: ArrayLike, size: tuple[int, int]) -> jax.Array:
  """Returns the homography that moves the picture to the right.

  Args:
    fraction: scalar, part of the width; negative values move to the left.
    size: (H, W) of the image in pixels.

  Returns:
    (3, 3), output to input coordinates. Equal to torchvision's `affine` with a
    translation by (fraction W, 0) pixels.
  """
  fraction = jnp.asarray(fraction)
  zero, one = jnp.zeros_like(fraction), jnp.ones_like(fraction)
  return _diagonal_affine(one, -fraction * size[1], zero)


def translation_y(fraction: ArrayLike, size: tuple[int, int]) -> jax.Array:
  """Returns the homography that moves the picture down.

  Args:
    fraction: scalar, part of the height; negative values move up.
    size: (H, W) of the image in pixels.

  Returns:
    (3, 3), output to input coordinates. Equal to torchvision's `affine` with a
    translation by (0, fraction H) pixels.
  """
  fraction = jnp.asarray(fraction)
  zero, one = jnp.zeros_like(fraction), jnp.ones_like(fraction)
  return _diagonal_affine(one, zero, -fraction * size[0])


def _diagonal_affine(factor, x, y):
  """Returns the homography p -> factor p + (x, y)."""
  zero, one = jnp.zeros_like(factor), jnp.ones_like(factor)
  return jnp.stack([
    jnp.stack([factor, zero, x]),
    jnp.stack([zero, factor, y]),
    jnp.stack([zero, zero, one]),
  ])


def compose(homographies: list[jax.Array]) -> jax.Array:
  """Returns the one homography of operations in the order of application."""
  result = jnp.eye(3, dtype=homographies[0].dtype if homographies else None)
  for homography in homographies:
    result = jnp.matmul(
      result, homography, precision=jax.lax.Precision.HIGHEST
    )
  return result


def resize(image: ArrayLike, size: tuple[int, int]) -> jax.Array:
  """Returns the image resized with the antialiased triangle kernel.

  Args:
    image: (H, W, C).
    size: (H', W') in pixels.

  Returns:
    (H', W', C). Equal to torch's bilinear `interpolate(antialias=True)`.
  """
  image = jnp.asarray(image)
  rows = _resampling_matrix(image.shape[0], size[0], size[0])
  columns = _resampling_matrix(image.shape[1], size[1], size[1])
  return _apply_separable(image, rows, columns)


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
  levels = []
  for level in range(num_levels):
    rows, columns = (
      _resampling_matrix(n, grid, min(m, n), widening=2**level)
      for n, m, grid in zip(image.shape, size, grids, strict=False)
    )
    levels.append(_apply_separable(image, rows, columns))
  pixel = tuple(
    max(1.0, n / m) for n, m in zip(image.shape, size, strict=False)
  )
  return Prefiltered(jnp.stack(levels), image.shape[:2], pixel)


def warp(
  source: Prefiltered,
  homography: ArrayLike,
  size: tuple[int, int],
  *,
  pointwise=None,
  method: str = 'bilinear',
  border: str = 'footprint',
  fill: float = 0.0,
) -> jax.Array:
  """Returns the prefiltered image seen through a homography.

  Args:
    source: from `prefilter` for the same size.
    homography: (3, 3), output to input, both in source pixels.
    size: (H', W') of the output.
    pointwise: a function of pixel values alone, applied to the source before
      the resampling (photometric operations that come first in a chain).
    method: 'bilinear', or 'nearest' which takes the nearest sample of the
      prefiltered grid.
    border: how the picture ends. 'footprint' mixes it with the fill by the
      share of the output pixel that lies inside; 'zero' fades over one source
      pixel, as torch's zero padding does; 'hard' cuts, as PIL does, and always
      holds for 'nearest'.
    fill: value of what lies outside the source.

  Returns:
    (H', W', C), differentiable in the homography ('bilinear').
  """
  if border not in ('footprint', 'zero', 'hard'):
    raise ValueError(
      f"border must be 'footprint', 'zero' or 'hard', got {border!r}"
    )
  if method not in ('bilinear', 'nearest'):
    raise ValueError(f"method must be 'bilinear' or 'nearest', got {method!r}")
  dtype = source.levels.dtype
  pointwise = pointwise or (lambda x: x)
  to_base = np.diag([1 / source.pixel[1], 1 / source.pixel[0], 1.0])
  from_output = np.diag([
    source.source_size[1] / size[1], source.source_size[0] / size[0], 1.0
  ])
  total = compose([
    jnp.asarray(to_base, dtype), jnp.asarray(homography, dtype),
    jnp.asarray(from_output, dtype),
  ])
  x, y, valid, jacobian = _project(total, size, dtype)
  extent_x = source.source_size[1] / source.pixel[1]
  extent_y = source.source_size[0] / source.pixel[0]
  if method == 'nearest':
    sampled = pointwise(_nearest(source, x, y))
  else:
    level = _level(source, jacobian)
    sampled = _interpolate(source, x, y, level, pointwise)
  if border == 'hard' or method == 'nearest':
    inside = (x >= 0) & (x < extent_x) & (y >= 0) & (y < extent_y)
    coverage = inside.astype(dtype)
  else:
    width_x, width_y = _footprint(jacobian) if border == 'footprint' else (1, 1)
    coverage = _cover(x, extent_x, width_x) * _cover(y, extent_y, width_y)
  coverage = jnp.where(valid, coverage, jnp.zeros_like(coverage))
  coverage = coverage[..., None]
  return sampled * coverage + jnp.asarray(fill, dtype) * (1 - coverage)


def transform(
  image: ArrayLike,
  homography: ArrayLike,
  *,
  method: str = 'bilinear',
  border: str = 'zero',
  fill: float = 0.0,
) -> jax.Array:
  """Returns an image of the same size seen through a homography.

  Plain interpolation without prefiltering. With the homographies of this module
  it equals torchvision's `rotate` and `perspective` on float tensors.

  Args:
    image: (H, W, C).
    homography: (3, 3), output to input, in pixels.
    method: 'bilinear' or 'nearest'.
    border: see `warp`.
    fill: value of what lies outside.

  Returns:
    (H, W, C).
  """
  image = jnp.asarray(image)
  size = image.shape[:2]
  source = prefilter(image, size)
  return warp(
    source, homography, size, method=method, border=border, fill=fill
  )


def _project(homography, size, dtype):
  """Maps the output pixel centres; also the Jacobian by the quotient rule."""
  qx = (jnp.arange(size[1], dtype=dtype) + 0.5)[None, :]
  qy = (jnp.arange(size[0], dtype=dtype) + 0.5)[:, None]
  h = homography
  u, v, w = (h[i, 0] * qx + h[i, 1] * qy + h[i, 2] for i in range(3))
  valid = w > _HORIZON
  w = jnp.where(valid, w, jnp.ones_like(w))
  x, y = u / w, v / w
  jacobian = [
    [(h[i, j] - p * h[2, j]) / w for j in range(2)]
    for i, p in enumerate((x, y))
  ]
  return x, y, valid, jacobian


def _footprint(jacobian):
  """Returns the widths along x and y of an output pixel, in base pixels."""
  (xx, xy), (yx, yy) = jacobian
  return jnp.sqrt(xx**2 + xy**2), jnp.sqrt(yx**2 + yy**2)


def _level(source, jacobian):
  """Returns the fractional level whose kernel is as wide as the footprint."""
  if source.levels.shape[0] == 1:
    return None
  (xx, xy), (yx, yy) = jacobian
  along = jnp.maximum(xx**2 + yx**2, xy**2 + yy**2)
  level = 0.5 * jnp.log2(jnp.maximum(along, jnp.ones_like(along)))
  return jnp.minimum(level, source.levels.shape[0] - 1)


def _cover(position, extent, width):
  """Share of a footprint that lies inside [0, extent], linear at each end."""
  left = jnp.clip(position / width + 0.5, 0, 1)
  right = jnp.clip((extent - position) / width + 0.5, 0, 1)
  return left * right


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


def _nearest(source, x, y):
  i, j = _grid_position(source, x, y)
  i, j = (jnp.floor(k + 0.5).astype(jnp.int32) for k in (i, j))
  return _gather(source, 0, i, j)


def _interpolate(source, x, y, level, pointwise):
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


def _resampling_matrix(num_source, num_grid, num_pixels, *, widening=1):
  """Returns (num_grid, num_source): triangle weights, rows summing to one.

  The kernel is as wide as `widening` of the coarser of a source pixel and one
  of `num_pixels` output pixels; its centres are the `num_grid` grid points.
  """
  centres = (np.arange(num_grid) + 0.5) * num_source / num_grid
  width = widening * max(1.0, num_source / num_pixels)
  distance = np.arange(num_source)[None, :] + 0.5 - centres[:, None]
  matrix = np.maximum(0.0, 1.0 - np.abs(distance) / width)
  return matrix / matrix.sum(1, keepdims=True)


def _apply_separable(image, rows, columns):
  rows, columns = (jnp.asarray(m, image.dtype) for m in (rows, columns))
  return jnp.einsum(
    'ah,hwc,bw->abc', rows, image, columns,
    precision=jax.lax.Precision.HIGHEST,
  )
