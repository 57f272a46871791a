"""Random fields made from a key: clouds, smooth noise, specks, ice crystals.

Every function returns an array (H, W) in the dtype asked for and takes no
image file. The same key gives the same field whatever the other values are,
so that a perturbation changes smoothly when its value changes. Coordinates
are in pixels, origin at the upper left corner, pixel k has its centre at
k + 0.5; angles are in degrees, counter-clockwise, 0 along +x.
"""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np

from jaxsens.perturbations import plasmas
from jaxsens.perturbations import random_fields

# Standard deviations per full width at half maximum of a Gaussian.
_PER_WIDTH = 1 / math.sqrt(8 * math.log(2))
_LUMA = (0.299, 0.587, 0.114)
_CRYSTALS_ACROSS = (4, 9)
_BARBS_PER_CRYSTAL = 8


def float_image(image: ArrayLike) -> jax.Array:
  """Returns the image as an array; ValueError unless a float (H, W, C)."""
  image = jnp.asarray(image)
  if image.ndim != 3:
    raise ValueError(f'image must be (H, W, C), got shape {image.shape}')
  if not jnp.issubdtype(image.dtype, jnp.floating):
    raise ValueError(f'image must be float in [0, 1], got {image.dtype}')
  return image


def colour(rgb: tuple[float, float, float], image: jax.Array) -> jax.Array:
  """Returns (C,): the colour, or its luma where the image has no 3 channels.

  The luma is that of ITU-R BT.601, as PIL's.
  """
  if image.shape[-1] == 3:
    return jnp.asarray(rgb, image.dtype)
  luma = sum(a * b for a, b in zip(rgb, _LUMA, strict=True))
  return jnp.full(image.shape[-1:], luma, image.dtype)


def smoothstep(value: jax.Array) -> jax.Array:
  """Returns 3 t^2 - 2 t^3 of t = clip(value, 0, 1)."""
  value = jnp.clip(value, 0, 1)
  return value * value * (3 - 2 * value)


def centres(size: tuple[int, int], dtype) -> tuple[jax.Array, jax.Array]:
  """Returns the pixel centres x (1, W) and y (H, 1)."""
  x = jnp.arange(size[1], dtype=dtype) + 0.5
  y = jnp.arange(size[0], dtype=dtype) + 0.5
  return x[None, :], y[:, None]


def offsets(
  points: jax.Array, shape: tuple[int, ...]
) -> tuple[list[jax.Array], list[jax.Array]]:
  """Returns the offsets of all pixels from points given as shares.

  Args:
    points: (2 or more, N); row 0 shares of the width, row 1 of the height.
    shape: (H, W, ...) of the image.

  Returns:
    N arrays x (1, W) and N arrays y (H, 1), in pixels.
  """
  x, y = centres(shape[:2], points.dtype)
  left, top = points[0] * shape[1], points[1] * shape[0]
  return [x - a for a in left], [y - a for a in top]


def clouds(key: jax.Array, size: tuple[int, int], dtype) -> jax.Array:
  """Returns a cloud (H, W) of any size, at least 0, of mean 1.

  A part of the smallest `plasmas.plasma` that covers the size, of decay 2.
  """
  cover = tuple(plasmas.power_of_two(n) for n in size)
  field = plasmas.plasma(key, cover, 2.0, dtype)[:size[0], :size[1]]
  # One pixel may be the least of its map, that is zero.
  return (field + 0.01) / (field + 0.01).mean()


def frequencies(size: tuple[int, int], dtype) -> tuple[jax.Array, jax.Array]:
  """Returns x (1, W // 2 + 1) and y (H, 1) of `rfft2`, cycles per pixel."""
  x, y = np.fft.rfftfreq(size[1]), np.fft.fftfreq(size[0])
  return jnp.asarray(x, dtype)[None, :], jnp.asarray(y, dtype)[:, None]


def smooth_noise(
  key: jax.Array, size: tuple[int, int], length: ArrayLike, dtype
) -> jax.Array:
  """Returns periodic Gaussian noise of mean 0 and variance 1, in two octaves.

  White noise through exp(-2 pi^2 length^2 f^2), and a share of 0.08 of it
  a third as wide, divided by the deviation that the filter leaves.

  Args:
    key: of the draws.
    size: (H, W).
    length: scalar, deviation in pixels of the wider Gaussian.
    dtype: of the result.

  Returns:
    (H, W), standard normal at every point.
  """
  x, y = frequencies(size, dtype)
  exponent = -2 * math.pi**2 * jnp.asarray(length, dtype) ** 2 * (x**2 + y**2)
  transfer = jnp.exp(exponent) + 0.08 * jnp.exp(exponent / 9)
  # Columns strictly between zero and Nyquist stand for two each.
  count = np.full(transfer.shape[1], 2.0)
  count[0] = 1.0
  if size[1] % 2 == 0:
    count[-1] = 1.0
  power = (transfer**2 * jnp.asarray(count, dtype)).sum() / math.prod(size)
  white = random_fields.normal(key, size, dtype)
  return _filtered(white, transfer) / jnp.sqrt(power)


def specks(
  key: jax.Array, size: tuple[int, int], amount: ArrayLike, *,
  spacing: float, width: ArrayLike, length: ArrayLike, angle: ArrayLike, dtype,
) -> jax.Array:
  """Returns a sum of Gaussian specks or streaks at random pixels.

  Every pixel has a fixed draw v, uniform from 0 to spacing^2, and bears a
  speck of height smoothstep(amount - v): there is one such pixel with v < 1 in
  spacing^2, and more of them show, and higher, as the amount grows. The map is
  periodic.

  Args:
    key: of the draws.
    size: (H, W).
    amount: scalar from 0 (no speck) on.
    spacing: pixels between specks at amount 1.
    width: scalar, full width at half maximum across, above 0.
    length: scalar, what motion adds along the angle, full width at half
      maximum; the widths add in squares.
    angle: degrees of the motion.
    dtype: of the result.

  Returns:
    (H, W), at least 0 up to rounding; exactly 0 where the amount is 0.
  """
  width, length, angle, amount = (
    jnp.asarray(a, dtype) for a in (width, length, angle, amount)
  )
  draws = random_fields.uniform(key, size, dtype) * spacing**2
  heights = smoothstep(amount - draws)
  across = (width * _PER_WIDTH) ** 2
  along = across + (length * _PER_WIDTH) ** 2
  x, y = frequencies(size, dtype)
  cos, sin = jnp.cos(jnp.deg2rad(angle)), jnp.sin(jnp.deg2rad(angle))
  # y runs downwards.
  exponent = along * (cos * x - sin * y) ** 2 + across * (sin * x + cos * y)**2
  peak = 2 * math.pi * jnp.sqrt(across * along)
  return _filtered(heights, peak * jnp.exp(-2 * math.pi**2 * exponent))


def _filtered(field, transfer):
  """Returns the periodic convolution with a real transfer function."""
  return jnp.fft.irfft2(jnp.fft.rfft2(field) * transfer, field.shape)


def ice(key: jax.Array, size: tuple[int, int], dtype) -> jax.Array:
  """Returns the thickness of frost flowers on glass, from 0 to 1.

  Voronoi cells about the jittered points of two lattices, 4 and 9 cells across
  the shorter side. Each cell is a feather: a spine through its point in a
  direction of its own and barbs that leave it at 60 degrees, bent and broken
  by smooth noise, on a milky ground. A cloud decides where the ice is thick.

  Args:
    key: of all draws.
    size: (H, W).
    dtype: of the result.

  Returns:
    (H, W) in [0, 1].
  """
  key_noise, key_cloud, *key_cells = jax.random.split(
    key, 2 + len(_CRYSTALS_ACROSS)
  )
  scale = min(size) / _CRYSTALS_ACROSS[-1]
  noise = smooth_noise(key_noise, size, max(scale / 5, 0.5), dtype)
  # Joined by XLA, it would be compiled with each of the layers.
  noise = jax.lax.optimization_barrier(noise)
  thickness = jnp.zeros(size, dtype)
  for key_layer, across in zip(key_cells, _CRYSTALS_ACROSS, strict=True):
    cell = max(2, round(min(size) / across))
    layer = _feathers(key_layer, size, cell, noise)
    thickness = thickness + layer - thickness * layer
  cloud = 0.25 + 0.75 * smoothstep(clouds(key_cloud, size, dtype) - 0.3)
  ground = 0.25 + 0.05 * noise
  return jnp.clip(cloud * (ground + (1 - ground) * thickness), 0, 1)


def _feathers(key, size, cell, noise):
  """Returns the feathers of cells of that many pixels, from 0 to 1."""
  squares, along, across, tone = _nearest_crystal(key, size, cell, noise.dtype)
  across = jnp.abs(across + 0.05 * noise)
  barbs = _BARBS_PER_CRYSTAL * (0.7 + 0.6 * tone)
  phase = barbs * (0.87 * along - 0.5 * across) + 0.3 * noise
  # Barbs two pixels apart or less would alias.
  contrast = min(1.0, max(0.0, cell / _BARBS_PER_CRYSTAL - 2))
  wave = 0.5 + 0.5 * jnp.cos(2 * math.pi * phase)
  crest = 1 - contrast + contrast * wave * wave
  spine = 1 - smoothstep(10 * across)
  fade = smoothstep(1.2 - 1.5 * across) * smoothstep(1.6 - squares)
  broken = smoothstep(0.75 + 0.4 * noise)
  feather = jnp.maximum(0.75 * crest * fade * broken, spine * fade)
  return feather * (0.35 + 0.65 * tone)


def _nearest_crystal(key, size, cell, dtype):
  """Returns squared distance, along, across, tone of the nearest point.

  Lengths are in cells, in the frame of the crystal.
  """
  # The points lie about the corners of the cells: with this jitter the nearest
  # is nearly always at one of the four corners of a pixel's cell.
  rows, columns = (-(-n // cell) for n in size)
  draws = random_fields.uniform(key, (4, rows + 1, columns + 1), dtype)
  points_x = 0.8 * draws[0] - 0.4 + jnp.arange(columns + 1, dtype=dtype)
  points_y = 0.8 * draws[1] - 0.4 + jnp.arange(rows + 1, dtype=dtype)[:, None]
  inside = (jnp.arange(cell, dtype=dtype) + 0.5) / cell
  x = inside + jnp.arange(columns, dtype=dtype)[:, None]
  y = (inside + jnp.arange(rows, dtype=dtype)[:, None])[..., None, None]

  turn = 2 * math.pi * draws[2]
  lattices = points_x, points_y, jnp.cos(turn), jnp.sin(turn), draws[3]

  # A loop, as XLA would repeat an unrolled search for each of its results, and
  # not an index to read from, as a gather keeps what follows from SIMD.
  def compare(best, corner):
    point_x, point_y, cos, sin, tone = (
      jax.lax.dynamic_slice(a, corner, (rows, columns))[:, None, :, None]
      for a in lattices
    )
    u, v = x - point_x, y - point_y
    squares = u * u + v * v
    found = squares, u * cos + v * sin, v * cos - u * sin, tone
    nearer = squares < best[0]
    best = tuple(
      jnp.where(nearer, a, b) for a, b in zip(found, best, strict=True)
    )
    return best, None

  corners = jnp.asarray(list(np.ndindex(2, 2)), jnp.int32)
  # No pixel is that far from the points of its cell.
  start = (jnp.full((rows, cell, columns, cell), 9, dtype),) * 4
  best, _ = jax.lax.scan(compare, start, corners)
  return [
    a.reshape(rows * cell, columns * cell)[:size[0], :size[1]] for a in best
  ]
