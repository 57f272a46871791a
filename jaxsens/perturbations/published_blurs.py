"""The blurs of ImageNet-C and CIFAR-10-C with their published parameters.

They serve the severity maps and are equal to the published program up to its
rounding to eight bits, in distribution where it is random. Images are (H, W, C)
floats in [0, 1]. `gaussian_blur` of the benchmark is `optics.gaussian_blur`;
for responses that are smooth in the value see `optics`.

References:
  Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common
  Corruptions and Perturbations, ICLR 2019.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np

from jaxsens.perturbations import convolution
from jaxsens.perturbations import psf

_MAX_MOTION_RADIUS = 20
# Following a chain of copies for 2**6 steps; a chain goes on with probability
# below one half, so a longer one is rarer than 1e-14 in 224 x 224 pixels.
_CHAIN_DOUBLINGS = 6


def defocus_blur(
  image: ArrayLike, radius: float, alias_sigma: float
) -> jax.Array:
  """Returns the published defocus: `psf.disk_with_alias`, border 'reflect'.

  Args:
    image: (H, W, C) in [0, 1].
    radius: of the disk in pixels, a number.
    alias_sigma: of the smoothing of its edge in pixels, a number.

  Returns:
    (H, W, C), clipped to [0, 1].
  """
  kernel = psf.disk_with_alias(radius, alias_sigma)
  result = convolution.convolve(image, kernel, border='reflect')
  return jnp.clip(result, 0, 1)


def motion_blur(
  image: ArrayLike, radius: ArrayLike, sigma: ArrayLike, angle: ArrayLike
) -> jax.Array:
  """Returns the published motion blur: a fading trace to one side.

  Args:
    image: (H, W, C) in [0, 1].
    radius: half the number of taps in pixels, scalar in [0, 20].
    sigma: of the half Gaussian in pixels, scalar, positive.
    angle: in degrees; see `psf.half_gaussian_line`. The benchmark draws it
      evenly from [-45, 45].

  Returns:
    (H, W, C), clipped to [0, 1]; border 'edge'.
  """
  image = convolution.check_image(image)
  reach = 2 * _MAX_MOTION_RADIUS
  padded = jnp.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode='edge')
  return jnp.clip(smear(padded, image.shape, radius, sigma, angle), 0, 1)


def smear(
  padded: ArrayLike, shape: tuple[int, ...], radius: ArrayLike,
  sigma: ArrayLike, angle: ArrayLike,
) -> jax.Array:
  """Returns the convolution with `psf.half_gaussian_line`, as a sum of shifts.

  Args:
    padded: (H + 2 R, W + 2 R, ...), with R more pixels on every side; R / 2
      is the largest radius.
    shape: (H, W, ...) of the image.
    radius: scalar in [0, R / 2].
    sigma: in pixels, scalar, positive.
    angle: in degrees.

  Returns:
    (H, W, ...), of `shape`.
  """
  padded = jnp.asarray(padded)
  radius, sigma, angle = (
    jnp.asarray(v, padded.dtype) for v in (radius, sigma, angle)
  )
  reach = (padded.shape[0] - shape[0]) // 2
  step = jnp.arange(reach + 1, dtype=padded.dtype)
  weights = jnp.exp(-0.5 * (step / sigma) ** 2)
  weights = weights * jnp.clip(2 * radius + 1 - step, 0, 1)
  weights = weights / weights.sum()
  radians = jnp.deg2rad(angle)
  down, right = (
    jnp.ceil(step * along - 0.5) for along in (jnp.sin(radians),
                                               jnp.cos(radians))
  )
  inside = (jnp.abs(down) < shape[0]) & (jnp.abs(right) < shape[1])
  weights = weights * jnp.cumprod(inside.astype(padded.dtype))

  rows, columns = (
    reach + offset.astype(jnp.int32) for offset in (down, right)
  )
  return sum_of_shifts(padded, shape, weights, rows, columns)


def sum_of_shifts(
  padded: jax.Array, shape: tuple[int, ...], weights: ArrayLike,
  rows: ArrayLike, columns: ArrayLike,
) -> jax.Array:
  """Returns the sum of weights[i] padded[rows[i]:, columns[i]:], cut to shape.

  Args:
    padded: (H', W', ...).
    shape: (H, W, ...) of the result.
    weights: (N,).
    rows: (N,) integers in [0, H' - H].
    columns: (N,) integers in [0, W' - W].

  Returns:
    (H, W, ...), computed once however often it is used: XLA would evaluate a
    sum that is not a loop anew in every use.
  """

  def add(total, tap):
    weight, *start = tap
    start = *start, *(jnp.int32(0),) * (padded.ndim - 2)
    return total + weight * jax.lax.dynamic_slice(padded, start, shape), None

  taps = weights, *(jnp.asarray(i, jnp.int32) for i in (rows, columns))
  return jax.lax.scan(add, jnp.zeros(shape, padded.dtype), taps)[0]


def zoom_blur(image: ArrayLike, zooms: Sequence[float]) -> jax.Array:
  """Returns the mean of the image and its zooms, the image counted once more.

  Args:
    image: (H, W, C) in [0, 1].
    zooms: numbers >= 1, in the benchmark from 1 upwards in even steps.

  Returns:
    (H, W, C). A zoom keeps ceil(n / zoom) pixels of the middle and stretches
    them by `scipy.ndimage.zoom` of order 1, whose outermost pixels stay.

  Raises:
    ValueError: no zooms, or one below 1.
  """
  image = convolution.check_image(image)
  if len(zooms) == 0 or min(zooms) < 1:
    raise ValueError(f'zooms must be numbers >= 1, at least one, got {zooms}')
  total = image
  for zoom in zooms:
    rows, columns = (
      jnp.asarray(_zoom_matrix(n, float(zoom)), image.dtype)
      for n in image.shape[:2]
    )
    total = total + jnp.einsum(
      'ah,hwc,bw->abc', rows, image, columns,
      precision=jax.lax.Precision.HIGHEST,
    )
  return jnp.clip(total / (len(zooms) + 1), 0, 1)


def read_rows(image: jax.Array, positions: jax.Array) -> jax.Array:
  """Returns the rows of an image at real positions, interpolated linearly.

  Args:
    image: (H, W, C).
    positions: (N,), in [0, H - 1].

  Returns:
    (N, W, C).
  """
  if image.shape[0] == 1:
    return jnp.broadcast_to(image, (len(positions), *image.shape[1:]))
  first = jnp.clip(jnp.floor(positions), 0, image.shape[0] - 2)
  share = (positions - first)[:, None, None]
  first = first.astype(jnp.int32)
  upper, lower = (
    image.at[first + i].get(mode='promise_in_bounds') for i in (0, 1)
  )
  return (1 - share) * upper + share * lower


def glass_blur(
  image: ArrayLike,
  sigma: ArrayLike,
  max_delta: ArrayLike,
  iterations: int,
  *,
  key: jax.Array,
) -> jax.Array:
  """Returns the published glass blur: Gaussian, local shuffle, Gaussian.

  The published program visits the pixels from the last to the first and means
  to swap each with a neighbour at a random offset in [-max_delta, max_delta).
  On RGB images the assignment through views only copies the neighbour, which
  may itself have been replaced before. Here every pixel follows that chain of
  copies at once, which gives the same image from the same offsets.

  Args:
    image: (H, W, C) in [0, 1]; rounded down to 255 steps before the shuffle,
      with the derivative of the identity.
    sigma: of both Gaussians in pixels, scalar in [0, 2].
    max_delta: largest offset in pixels, a whole number, may be traced.
    iterations: number of shuffles.
    key: of the offsets.

  Returns:
    (H, W, C), clipped to [0, 1].
  """
  image = convolution.check_image(image)
  height, width, channels = image.shape
  max_delta = jnp.asarray(max_delta, jnp.int32)
  count = (2 * max_delta).astype(jnp.uint32)
  blurred = convolution.convolve_gaussian(image, sigma, reach=8)
  rounded = jnp.clip(jnp.floor(blurred * 255) / 255, 0, 1)
  blurred = blurred + jax.lax.stop_gradient(rounded - blurred)
  flat = blurred.reshape(height * width, channels)
  for key_iteration in jax.random.split(key, iterations):
    # Two offsets from 16 random bits each.
    bits = jax.random.bits(key_iteration, (height, width), jnp.uint32)
    down, right = (
      ((half * count) >> 16).astype(jnp.int32) - max_delta
      for half in (bits >> 16, bits & 0xFFFF)
    )
    source = shuffle_sources(down, right, max_delta)
    flat = flat.at[source.ravel()].get(mode='promise_in_bounds')
  shuffled = flat.reshape(height, width, channels)
  result = convolution.convolve_gaussian(shuffled, sigma, reach=8)
  return jnp.clip(result, 0, 1)


def shuffle_sources(
  down: ArrayLike, right: ArrayLike, max_delta: ArrayLike
) -> jax.Array:
  """Returns the flat index of the pixel that each pixel shows after a shuffle.

  Args:
    down: (H, W) integers, row offsets in [-max_delta, max_delta).
    right: (H, W) integers, column offsets in the same range.
    max_delta: pixels with row or column up to max_delta, or beyond the size
      less max_delta, stay.

  Returns:
    (H, W), int32.
  """
  height, width = down.shape
  rows = jnp.arange(height, dtype=jnp.int32)[:, None]
  columns = jnp.arange(width, dtype=jnp.int32)
  inside = lambda i, n: (i > max_delta) & (i <= n - max_delta) & (i < n)
  moves = inside(rows, height) & inside(columns, width)
  index = rows * width + columns
  row, column = rows + down, columns + right
  target = jnp.where(moves, row * width + column, index).ravel()
  # Visited before: further down the picture, and one of those that move.
  moved = moves.ravel().at[target].get(mode='promise_in_bounds')
  continues = moved & (target > index.ravel())
  link = jnp.where(continues, target, index.ravel())
  # A loop, because XLA would fuse gathers in a row and read 2^6 times.
  link = jax.lax.fori_loop(
    0, _CHAIN_DOUBLINGS,
    lambda _, link: link.at[link].get(mode='promise_in_bounds'), link,
  )
  return target[link].reshape(height, width)


def _zoom_matrix(size, zoom):
  """Returns (size, size), float64: crop, stretch and cut along one axis."""
  kept = int(np.ceil(size / zoom))
  start = (size - kept) // 2
  stretched = round(kept * zoom)
  position = np.arange(size) * ((kept - 1) / max(stretched - 1, 1))
  distance = np.arange(kept) - position[:, None]
  matrix = np.zeros((size, size))
  matrix[:, start:start + kept] = np.maximum(0, 1 - np.abs(distance))
  return matrix
