"""Maps of coordinates and the one resampling that carries them out.

Conventions shared by every geometric function:

- An image is a float array (H, W, C). Coordinates are in pixels of the source
  image with the origin at its upper left corner: pixel k covers [k, k + 1] and
  its centre is k + 0.5; x runs to the right, y downwards.
- A map takes OUTPUT coordinates to INPUT coordinates ("pull"): the output at p
  shows the input at M(p). It is a homography (3, 3) or a `Distortion`. An
  operation A followed by an operation B is therefore A(B(p)); any sequence of
  homographies is the one matrix A @ B, and any sequence at all is one
  resampling, whose footprint comes from the Jacobian of the whole.
- What lies outside the image is filled with a constant (black by default), with
  the outermost pixels ('edge') or with the mirror image ('reflect').

How the source is low-passed and read is in `resampling`.
"""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np

from jaxsens.perturbations import resampling

Prefiltered = resampling.Prefiltered
prefilter = resampling.prefilter
resize = resampling.resize

# Denominators of a homography below this belong to points at or behind the
# horizon; they show the fill.
_HORIZON = 1e-6


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Distortion:
  """A map of coordinates that is no homography, given by a displacement.

  With R half the diagonal of the picture and (u, v) = (p - centre) / R,

      M(p) = p + R displacement(parameters, u, v)

  so that a displacement of zero is exactly the identity.

  Attributes:
    parameters: array that the displacement takes.
    displacement: (parameters, u, v) -> (du, dv), elementwise in u and v and
      differentiable; a function of module level. It must stay finite for any
      finite u and v.
    size: (H, W) of the picture in pixels.
  """

  parameters: jax.Array
  displacement: Callable = dataclasses.field(metadata={'static': True})
  size: tuple[int, int] = dataclasses.field(metadata={'static': True})


def compose(
  maps: Sequence[ArrayLike | Distortion],
) -> jax.Array | tuple[jax.Array | Distortion, ...]:
  """Returns the one map of operations in the order of application.

  Args:
    maps: homographies (3, 3) and distortions.

  Returns:
    One homography (3, 3) where there are only such; otherwise the sequence with
    neighbouring homographies multiplied, which `warp` takes just as well.

  Raises:
    ValueError: a homography is not (3, 3).
  """
  merged = []
  for one in maps:
    if isinstance(one, Distortion):
      merged.append(one)
      continue
    one = jnp.asarray(one)
    if one.shape != (3, 3):
      raise ValueError(f'homography must have shape (3, 3), got {one.shape}')
    if merged and not isinstance(merged[-1], Distortion):
      merged[-1] = jnp.matmul(
        merged[-1], one, precision=jax.lax.Precision.HIGHEST
      )
    else:
      merged.append(one)
  if not merged:
    return jnp.eye(3)
  if len(merged) == 1 and not isinstance(merged[0], Distortion):
    return merged[0]
  return tuple(merged)


def common_zeros(
  zeros: Sequence[Sequence[tuple[int, int]]],
) -> tuple[tuple[int, int], ...]:
  """Returns the entries that are zero in a product of homographies.

  Args:
    zeros: for each homography the (row, column) of entries that are zero at
      every value.
  """
  product = np.eye(3, dtype=bool)
  for one in zeros:
    filled = np.ones((3, 3), bool)
    for entry in one:
      filled[entry] = False
    product = product @ filled
  return tuple((int(i), int(j)) for i, j in np.argwhere(~product))


def warp(
  source: resampling.Prefiltered,
  mapping: ArrayLike | Distortion | Sequence[ArrayLike | Distortion],
  size: tuple[int, int],
  *,
  pointwise: Callable[[jax.Array], jax.Array] | None = None,
  method: str = 'bilinear',
  border: str = 'footprint',
  fill: ArrayLike | str = 0.0,
  zeros: Sequence[tuple[int, int]] = (),
) -> jax.Array:
  """Returns the prefiltered image seen through a map.

  Args:
    source: from `prefilter` for the same size.
    mapping: a homography (3, 3), a distortion, or a tuple or list of them in
      order of application; all output to input in source pixels.
    size: (H', W') of the output.
    pointwise: a function of pixel values alone, applied to the source before
      the resampling (photometric operations that come first in a chain).
    method: 'bilinear', or 'nearest' which takes the nearest sample of the
      prefiltered grid.
    border: how the picture ends before a constant. 'footprint' mixes it with
      the fill by the share of the output pixel that lies inside; 'zero' fades
      over one source pixel, as torch's zero padding does; 'hard' cuts, as PIL
      does, and always holds for 'nearest'.
    fill: what lies outside the source: a value, a value per channel (C,),
      'edge' for the nearest pixel of the border (scipy.ndimage's 'nearest',
      NumPy's 'edge'), or 'reflect' for the picture mirrored at its edges
      (scipy.ndimage's 'reflect', NumPy's 'symmetric'). Behind the horizon of a
      perspective, 'edge' goes on and 'reflect' is arbitrary.
    zeros: (row, column) of entries of a homography that are known to be zero,
      which makes it faster where rows or columns stay such; ignored where the
      map has a distortion.

  Returns:
    (H', W', C), differentiable in the map ('bilinear').

  Raises:
    ValueError: an unknown method, border or fill.
  """
  _check_options(method, border, fill, source.levels.shape[-1])
  dtype = source.levels.dtype
  x, y, valid, jacobian = _project(
    _to_base_pixels(source, mapping, size), size, dtype, zeros
  )
  extent_x = source.source_size[1] / source.pixel[1]
  extent_y = source.source_size[0] / source.pixel[0]
  constant = not isinstance(fill, str)
  if not constant:
    x, y = (jnp.where(valid, p, p / _HORIZON) for p in (x, y))
  if not constant and fill == 'reflect':
    x, y = _reflect(x, extent_x), _reflect(y, extent_y)
  if method == 'nearest':
    sampled = resampling.nearest(source, x, y)
    sampled = sampled if pointwise is None else pointwise(sampled)
  else:
    sampled = resampling.interpolate(
      source, x, y, _level(source, jacobian),
      pointwise=pointwise or (lambda pixels: pixels),
    )
  if not constant:
    return sampled
  if border == 'hard' or method == 'nearest':
    inside = (x >= 0) & (x < extent_x) & (y >= 0) & (y < extent_y)
    coverage = inside.astype(dtype)
  else:
    per_x, per_y = (
      _inverse_footprint(jacobian) if border == 'footprint' else (1, 1)
    )
    coverage = _cover(x, extent_x, per_x) * _cover(y, extent_y, per_y)
  coverage = jnp.where(valid, coverage, jnp.zeros_like(coverage))[..., None]
  return sampled * coverage + jnp.asarray(fill, dtype) * (1 - coverage)


def transform(
  image: ArrayLike,
  mapping: ArrayLike | Distortion | Sequence[ArrayLike | Distortion],
  *,
  method: str = 'bilinear',
  border: str = 'zero',
  fill: ArrayLike | str = 0.0,
) -> jax.Array:
  """Returns an image of the same size seen through a map.

  Plain interpolation without prefiltering. With the homographies of
  `homographies` and `perspectives` it equals torchvision's `affine`, `rotate`
  and `perspective` on float tensors.

  Args:
    image: (H, W, C).
    mapping: see `warp`; in pixels of the image.
    method: 'bilinear' or 'nearest'.
    border: see `warp`.
    fill: see `warp`.

  Returns:
    (H, W, C).
  """
  image = jnp.asarray(image)
  size = image.shape[:2]
  source = resampling.prefilter(image, size)
  return warp(source, mapping, size, method=method, border=border, fill=fill)


def _check_options(method, border, fill, channels):
  if border not in ('footprint', 'zero', 'hard'):
    raise ValueError(
      f"border must be 'footprint', 'zero' or 'hard', got {border!r}"
    )
  if method not in ('bilinear', 'nearest'):
    raise ValueError(f"method must be 'bilinear' or 'nearest', got {method!r}")
  if isinstance(fill, str):
    if fill not in ('edge', 'reflect'):
      raise ValueError(
        f"fill must be a number, one per channel, 'edge' or 'reflect', "
        f'got {fill!r}'
      )
  elif np.shape(fill) not in ((), (1,), (channels,)):
    raise ValueError(
      f'fill must be a number or of shape ({channels},), one per channel, '
      f'got shape {np.shape(fill)}'
    )


def _to_base_pixels(source, mapping, size):
  """Returns the steps from output pixels to base pixels of the source."""
  steps = mapping if isinstance(mapping, (tuple, list)) else [mapping]
  dtype = source.levels.dtype
  to_base = np.diag([1 / source.pixel[1], 1 / source.pixel[0], 1.0])
  from_output = np.diag([
    source.source_size[1] / size[1], source.source_size[0] / size[0], 1.0
  ])
  steps = [
    jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), step)
    for step in (to_base, *steps, from_output)
  ]
  composed = compose(steps)
  return composed if isinstance(composed, tuple) else (composed,)


def _project(steps, size, dtype, zeros):
  """Maps the output pixel centres; returns also validity and Jacobian.

  All are of shapes that broadcast to the size: an x that is the same along a
  column is (1, W), a y that is the same along a row (H, 1).
  """
  zeros = zeros if len(steps) == 1 else ()
  x = (jnp.arange(size[1], dtype=dtype) + 0.5)[None, :]
  y = (jnp.arange(size[0], dtype=dtype) + 0.5)[:, None]
  valid, jacobian = True, None
  # The last operation is the first to be undone.
  for step in reversed(steps):
    if isinstance(step, Distortion):
      x, y, one = _displace(step, x, y)
    else:
      x, y, in_front, one = _apply_homography(step, x, y, zeros)
      valid = in_front & valid
    jacobian = one if jacobian is None else _product(one, jacobian)
  return x, y, valid, jacobian


def _apply_homography(homography, x, y, zeros):
  """Maps positions; the Jacobian by the quotient rule."""
  h = [
    [None if (i, j) in zeros else homography[i, j] for j in range(3)]
    for i in range(3)
  ]
  u, v, w = (
    sum(
      factor if p is None else factor * p
      for factor, p in zip(row, (x, y, None), strict=True) if factor is not None
    )
    for row in h
  )
  valid = w > _HORIZON
  # One division, and where w depends on the row or column alone few.
  inverse = 1 / jnp.where(valid, w, jnp.ones_like(w))
  x, y = u * inverse, v * inverse

  def slope(i, j, p):
    own = 0.0 if h[i][j] is None else h[i][j]
    return (own if h[2][j] is None else own - p * h[2][j]) * inverse

  jacobian = [[slope(i, j, p) for j in range(2)] for i, p in enumerate((x, y))]
  return x, y, valid, jacobian


def _displace(distortion, x, y):
  height, width = distortion.size
  radius = math.hypot(height, width) / 2
  u, v = (x - width / 2) / radius, (y - height / 2) / radius
  move = lambda u, v: distortion.displacement(distortion.parameters, u, v)
  one, zero = jnp.ones_like(u), jnp.zeros_like(u)
  (du, dv), (u_u, v_u) = jax.jvp(move, (u, v), (one, zero))
  _, (u_v, v_v) = jax.jvp(move, (u, v), (zero, one))
  jacobian = [[1 + u_u, u_v], [v_u, 1 + v_v]]
  return x + radius * du, y + radius * dv, jacobian


def _product(a, b):
  return [
    [a[i][0] * b[0][j] + a[i][1] * b[1][j] for j in range(2)]
    for i in range(2)
  ]


def _reflect(position, extent):
  """Mirrors positions at 0 and at the extent, as often as needed."""
  mirrored = jnp.abs(jnp.mod(position + extent, 2 * extent) - extent)
  inside = (position >= 0) & (position <= extent)
  return jnp.where(inside, position, mirrored)


def _inverse_footprint(jacobian):
  """Returns 1 / widths along x and y of an output pixel, in base pixels."""
  (xx, xy), (yx, yy) = jacobian
  return 1 / jnp.sqrt(xx**2 + xy**2), 1 / jnp.sqrt(yx**2 + yy**2)


def _level(source, jacobian):
  """Returns the fractional level whose kernel is as wide as the footprint."""
  if source.levels.shape[0] == 1:
    return None
  (xx, xy), (yx, yy) = jacobian
  along = jnp.maximum(xx**2 + yx**2, xy**2 + yy**2)
  level = 0.5 * jnp.log2(jnp.maximum(along, jnp.ones_like(along)))
  return jnp.minimum(level, source.levels.shape[0] - 1)


def _cover(position, extent, per_width):
  """Share of a footprint that lies inside [0, extent], linear at each end."""
  left = jnp.clip(position * per_width + 0.5, 0, 1)
  right = jnp.clip((extent - position) * per_width + 0.5, 0, 1)
  return left * right
