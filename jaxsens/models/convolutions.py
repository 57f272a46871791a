"""Convolutions and maxima over windows, in the form that a platform runs fast.

Channels last: x (B, H, W, C), kernels (height, width, in, out), explicit zero
padding. XLA:CPU runs dense 3x3 convolutions at the speed of its products of
matrices, and some others far below it; each of those has a second form here,
equal to rounding, which is chosen by platform and shape when a program is
traced. Figures: batch 8, two cores, float32.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import contextvars
import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxsens.models import winograd

Padding = tuple[tuple[int, int], tuple[int, int]]

_NO_PADDING = ((0, 0), (0, 0))
_PLATFORM: contextvars.ContextVar[str | None] = contextvars.ContextVar(
  'platform', default=None
)
_TWICE: contextvars.ContextVar[bool] = contextvars.ContextVar(
  'twice', default=False
)


@contextlib.contextmanager
def for_platform(name: str) -> Iterator[None]:
  """Gives what is traced within the forms of a platform, such as 'gpu'."""
  token = _PLATFORM.set(name)
  try:
    yield
  finally:
    _PLATFORM.reset(token)


@contextlib.contextmanager
def differentiated_twice() -> Iterator[None]:
  """Gives what is traced within the forms whose second derivatives are fast.

  XLA's CPU backend leaves its fast path in those of convolutions at stride 2:
  three of them take 200 of the 700 ms of an update of ResNet18 with a gradient
  penalty (64 pixels, batch 32).
  """
  token = _TWICE.set(True)
  try:
    yield
  finally:
    _TWICE.reset(token)


def _on_cpu() -> bool:
  return (_PLATFORM.get() or jax.default_backend()) == 'cpu'


def padding_of(
  padding: str | int, size: int, stride: int, image: Sequence[int]
) -> Padding:
  """Returns the rows and columns of zeros around an image.

  Args:
    padding: 'torch' pads (size - 1) / 2 on each side; 'same' as TensorFlow
      does, for a result of ceil(side / stride), the odd one at the end; a
      number pads so many on each side.
    size: side of the window.
    stride: its step.
    image: (H, W) in pixels.

  Returns:
    ((top, bottom), (left, right)).

  Raises:
    ValueError: an unknown padding.
  """
  if padding == 'torch':
    padding = (size - 1) // 2
  if isinstance(padding, int):
    return ((padding, padding),) * 2
  if padding != 'same':
    raise ValueError(
      f"padding must be 'torch', 'same' or a number, got {padding!r}."
    )
  totals = [
    max((-(-side // stride) - 1) * stride + size - side, 0) for side in image
  ]
  return tuple((total // 2, total - total // 2) for total in totals)


def convolve(
  x: jax.Array,
  kernel: jax.Array,
  *,
  stride: int = 1,
  padding: str | int = 'torch',
) -> jax.Array:
  """Returns a convolution.

  Args:
    x: (B, H, W, C).
    kernel: (size, size, C, out); (size, size, 1, C) for one filter per channel
      where C > 1; or (36, C, out) from `winograd.tile_kernel`, which takes
      stride 1 and padding by one pixel.
    stride: step in both directions, pixels.
    padding: see `padding_of`.

  Returns:
    (B, h, w, out).
  """
  if kernel.ndim == 3:
    return winograd.convolve_tiles(x, kernel)
  size = kernel.shape[0]
  pads = padding_of(padding, size, stride, x.shape[1:3])
  if kernel.shape[2] == 1 < x.shape[-1]:
    return _convolve_channels(x, kernel, stride, pads)
  if size == 1 and pads == _NO_PADDING and _on_cpu():
    return _project(x, kernel, stride)
  if min(_result_size(x, size, stride, pads)) < size:
    return _convolve_patches(x, kernel, stride, pads)
  if _is_thin(x.shape, kernel.shape, stride):
    return _convolve_rows(x, kernel, pads)
  if stride > 1 and _TWICE.get() and _on_cpu():
    return _convolve_patches(x, kernel, stride, pads)
  if _is_stem(kernel.shape, stride):
    return _convolve_stem(pads, jnp.asarray(x), jnp.asarray(kernel))
  if _on_cpu():
    return _convolve_dense(stride, pads, jnp.asarray(x), jnp.asarray(kernel))
  return _convolve(x, kernel, stride, pads)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _convolve_dense(
  stride: int, pads: Padding, x: jax.Array, kernel: jax.Array
) -> jax.Array:
  """Returns `_convolve`, whose input gradient is fast within loops as well.

  The gradient is a convolution by the kernel with its last axes swapped. XLA's
  CPU backend leaves its fast path for those unless they are outside of loops,
  where it swaps the arrays (3x3 at stride 2, 256 -> 512 channels, four images
  of 14 pixels: 10.6 ms, against 1.3). Here the tangent has them swapped, which
  its transpose undoes.
  """
  return _convolve(x, kernel, stride, pads)


def _dense_tangent(stride, pads, primals, tangents):
  x, kernel = primals
  dx, dkernel = tangents
  y = _convolve_dense(stride, pads, x, kernel)
  dy = jnp.zeros_like(y)
  if not isinstance(dkernel, jax.custom_derivatives.SymbolicZero):
    dy += _convolve(x, dkernel, stride, pads)
  if not isinstance(dx, jax.custom_derivatives.SymbolicZero):
    dy += _convolve_swapped(dx, kernel, stride, pads)
  return y, dy


_convolve_dense.defjvp(_dense_tangent, symbolic_zeros=True)


def _convolve_swapped(x, kernel, stride, pads):
  """Returns `_convolve` by a kernel that is kept as (size, size, out, in)."""
  kernel = jax.lax.optimization_barrier(kernel.swapaxes(-1, -2))
  return jax.lax.conv_general_dilated(
    x, kernel, window_strides=(stride, stride), padding=pads,
    dimension_numbers=('NHWC', 'HWOI', 'NHWC'),
  )


def _convolve(x, kernel, stride, pads, groups=1):
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    window_strides=(stride, stride),
    padding=pads,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=groups,
  )


def _project(x, kernel, stride):
  """Returns the convolution by a 1x1 kernel as a product of two matrices.

  Hardly faster than XLA's convolution forward on CPU; its gradients are, and
  make an update of ResNet50 1.2 times as fast (224 pixels).
  """
  x = x[:, ::stride, ::stride]
  y = x.reshape(-1, x.shape[-1]) @ kernel[0, 0]
  return y.reshape(*x.shape[:-1], -1)


def _convolve_channels(x, kernel, stride, pads):
  """Returns the convolution of each channel with a filter of its own.

  On CPU the sum of shifted images: 7 to 18 times as fast as XLA's grouped
  convolution for 3x3 filters.
  """
  if not _on_cpu():
    return _convolve(x, kernel, stride, pads, groups=x.shape[-1])
  size = kernel.shape[0]
  taps = kernel.reshape(size * size, -1)
  windows = _windows(x, size, stride, pads, 0.0)
  return sum(tap * window for tap, window in zip(taps, windows, strict=True))


def _convolve_patches(x, kernel, stride, pads):
  """Returns the convolution as one product of matrices.

  XLA's CPU backend leaves its fast path where the result is smaller than the
  kernel, or in the gradients of such convolutions (3x3 on 2x2 pixels, 512
  channels, batch 32: 1,100 ms, against 9 ms).
  """
  size, channels = kernel.shape[0], kernel.shape[-1]
  windows = _windows(x, size, stride, pads, 0.0)
  patches = jnp.concatenate(list(windows), axis=-1)
  return patches @ kernel.reshape(-1, channels)


def _is_thin(x_shape, kernel_shape, stride) -> bool:
  """Whether `_convolve_rows` is faster: small images of few channels on CPU."""
  size, _, channels, out_channels = kernel_shape
  return (
    _on_cpu()
    and stride == 1
    and size > 3
    and x_shape[2] * max(channels, out_channels) <= _THIN_ROW
  )


# Numbers in a row of the image; wider ones make too many products by zero.
_THIN_ROW = 256


def _convolve_rows(x, kernel, pads):
  """Returns the convolution as one product with a banded matrix.

  The rows that a result depends on, side by side, times the kernel laid out
  along them. Six times the multiplications of LeNet's first layer, 5x5 from 3
  to 6 channels, at the speed of products of matrices.
  """
  size, _, channels, out_channels = kernel.shape
  height, width = _result_size(x, size, 1, pads)
  x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
  x = x.reshape(*x.shape[:2], -1)
  rows = jnp.concatenate([x[:, i : i + height] for i in range(size)], axis=-1)
  # 1 where a pixel of a row lies so many steps behind that of the result.
  steps = np.arange(width + size - 1)[:, None] - np.arange(width)
  band = (steps == np.arange(size)[:, None, None]).astype(kernel.dtype)
  matrix = jnp.einsum(
    'jvu,ijco->ivcuo', band, kernel, precision=jax.lax.Precision.HIGHEST
  )
  y = rows.reshape(-1, rows.shape[-1]) @ matrix.reshape(rows.shape[-1], -1)
  return y.reshape(-1, height, width, out_channels)


def _is_stem(shape: Sequence[int], stride: int) -> bool:
  """Whether `_convolve_stem` is faster: a stem of colour images on CPU."""
  size, _, channels, out_channels = shape
  return (
    _on_cpu()
    and (stride, channels) == (2, 3)
    and (size == 7 or size == 3 and out_channels <= _NARROW_STEM)
  )


# With more channels the plain form is the faster one.
_NARROW_STEM = 32


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _convolve_stem(
  pads: Padding, x: jax.Array, kernel: jax.Array
) -> jax.Array:
  """Returns a convolution at stride 2 whose gradients have their own forms.

  XLA's CPU backend is slow in the input gradient of 7x7 (processor time 86 ms
  at 224 pixels, 64 channels; 31 by rows of blocks) and in 3x3 forward (21 ms
  for 24 channels, 11 for 32; 4.6 by blocks); the other forms are the slower
  ones everywhere else. A rule for tangents rather than one for cotangents, so
  that every order and mode of differentiation stays possible.
  """
  if kernel.shape[0] == 3:
    return _convolve(*_blocks(x, kernel, pads), 1, _NO_PADDING)
  return _convolve(x, kernel, 2, pads)


def _stem_tangent(pads, primals, tangents):
  x, kernel = primals
  dx, dkernel = tangents
  y = _convolve_stem(pads, x, kernel)
  dy = jnp.zeros_like(y)
  if not isinstance(dkernel, jax.custom_derivatives.SymbolicZero):
    dy += _convolve(x, dkernel, 2, pads)
  if not isinstance(dx, jax.custom_derivatives.SymbolicZero):
    by_rows = kernel.shape[0] == 7
    form = _convolve_block_rows if by_rows else _convolve_swapped
    dy += form(dx, kernel, 2, pads)
  return y, dy


_convolve_stem.defjvp(_stem_tangent, symbolic_zeros=True)


def _convolve_block_rows(x, kernel, stride, pads):
  """Returns the convolution of 2x2 blocks, four of a row gathered at a time."""
  del stride
  x, kernel = _blocks(x, kernel, pads)
  size, _, _, channels = kernel.shape
  width = x.shape[2] - size + 1
  x = jnp.concatenate([x[:, :, i : i + width] for i in range(size)], axis=-1)
  kernel = kernel.reshape(size, 1, -1, channels)
  return _convolve_swapped(x, kernel, 1, _NO_PADDING)


def _blocks(
  x: jax.Array, kernel: jax.Array, pads: Padding
) -> tuple[jax.Array, jax.Array]:
  """Returns what turns a step of two pixels into one of a block of 2x2.

  Args:
    x: (B, H, W, C).
    kernel: (size, size, C, out) of an odd size.
    pads: zeros around x.

  Returns:
    Padded images (B, h + (size - 1) / 2, w + (size - 1) / 2, 4 C), and the
    kernel ((size + 1) / 2, (size + 1) / 2, 4 C, out), both with the pixels of a
    block in the channels.
  """
  size, channels = kernel.shape[0], x.shape[-1]
  half = (size + 1) // 2
  rows, columns = (
    side + half - 1 for side in _result_size(x, size, 2, pads)
  )
  edges = [
    (before, 2 * count - side - before, 0)
    for side, (before, _), count in zip(
      x.shape[1:3], pads, (rows, columns), strict=True
    )
  ]
  zero = jnp.zeros((), x.dtype)
  x = jax.lax.pad(x, zero, [(0, 0, 0), *edges, (0, 0, 0)])
  x = x.reshape(-1, rows, 2, columns, 2, channels)
  x = x.transpose(0, 1, 3, 2, 4, 5).reshape(-1, rows, columns, 4 * channels)
  kernel = jnp.pad(kernel, ((0, 1), (0, 1), (0, 0), (0, 0)))
  kernel = kernel.reshape(half, 2, half, 2, channels, -1)
  kernel = kernel.transpose(0, 2, 1, 3, 4, 5)
  return x, kernel.reshape(half, half, 4 * channels, -1)


def max_pool(
  x: jax.Array,
  *,
  size: int = 3,
  stride: int = 2,
  padding: str | int = 'torch',
  ceil: bool = False,
) -> jax.Array:
  """Returns the maxima of windows, padded with minus infinity.

  On CPU the maximum of strided slices, twice as fast as `reduce_window` (3.4
  against 6.5 ms for (8, 112, 112, 64)). At ties the gradient goes to the first,
  as torch has it.

  Args:
    x: (B, H, W, C).
    size: side of a window, pixels.
    stride: step in both directions, pixels.
    padding: see `padding_of`.
    ceil: windows that begin inside and end outside count as well, as torch's
      `ceil_mode` has it.

  Returns:
    Maxima (B, h, w, C).
  """
  pads = padding_of(padding, size, stride, x.shape[1:3])
  if ceil:
    pads = tuple(
      (before, after + _missing(side, before, after, size, stride))
      for side, (before, after) in zip(x.shape[1:3], pads, strict=True)
    )
  if _on_cpu():
    return _max_pool(size, stride, pads, x)
  return jax.lax.reduce_window(
    x, -jnp.inf, jax.lax.max, (1, size, size, 1), (1, stride, stride, 1),
    ((0, 0), *pads, (0, 0)),
  )


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def _max_pool(size: int, stride: int, pads: Padding, x: jax.Array) -> jax.Array:
  return functools.reduce(
    jnp.maximum, _windows(x, size, stride, pads, -jnp.inf)
  )


@_max_pool.defjvp
def _max_pool_tangent(size, stride, pads, primals, tangents):
  """Returns the maxima and the tangents of the pixels that they are.

  Which pixel of a window that is, is found image by image: what a loop returns
  is kept, and otherwise XLA finds it anew for every pixel of every window that
  the gradient adds up (88 ms for (8, 112, 112, 64); 13 so).
  """
  (x,), (dx,) = primals, tangents
  chosen = jax.lax.map(
    lambda image: _first_largest(
      _windows(image[None], size, stride, pads, -jnp.inf)
    )[0],
    x,
  )
  windows = _windows_by_phase(dx, size, stride, pads)
  dy = sum(
    jnp.where(chosen == k, window, 0) for k, window in enumerate(windows)
  )
  return _max_pool(size, stride, pads, x), dy


def _first_largest(windows: Iterator[jax.Array]) -> jax.Array:
  """Returns the number of the first of the largest windows at each pixel."""
  first, *others = windows
  number = jnp.int8 if len(others) < 128 else jnp.int32
  largest, chosen = first, jnp.zeros(first.shape, number)
  for k, window in enumerate(others, 1):
    larger = window > largest
    largest = jnp.where(larger, window, largest)
    chosen = jnp.where(larger, number(k), chosen)
  return chosen


def _missing(side, before, after, size, stride):
  """Returns what a last window lacks that begins ahead of the end padding."""
  missing = -(side + before + after - size) % stride
  begins_inside = side + after + missing - size < side
  return missing if begins_inside else 0


def _result_size(x, size, stride, pads):
  """Returns (h, w) of the windows that fit."""
  return tuple(
    (side + before + after - size) // stride + 1
    for side, (before, after) in zip(x.shape[1:3], pads, strict=True)
  )


def _windows(
  x: jax.Array, size: int, stride: int, pads: Padding, fill: float
) -> Iterator[jax.Array]:
  """Yields, row by row of a window, what each of its pixels sees of x.

  The images (B, H, W, C) are padded with `fill`; every result is (B, h, w, C).
  """
  height, width = _result_size(x, size, stride, pads)
  padded = x
  if any(map(any, pads)):
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=fill)
  every = jax.lax.slice_in_dim
  for i in range(size):
    rows = every(padded, i, i + stride * (height - 1) + 1, stride, axis=1)
    for j in range(size):
      yield every(rows, j, j + stride * (width - 1) + 1, stride, axis=2)


def _windows_by_phase(
  x: jax.Array, size: int, stride: int, pads: Padding
) -> Iterator[jax.Array]:
  """Yields what `_windows` does with zeros around, in a form to transpose.

  The rows and columns of x are dealt out to `stride` parts, from which windows
  are cut without steps; so the gradient of a window needs none either.
  """
  height, width = _result_size(x, size, stride, pads)
  rows, columns = (side + (size - 1) // stride for side in (height, width))
  edges = [
    (before, stride * count - side - before, 0)
    for side, (before, _), count in zip(
      x.shape[1:3], pads, (rows, columns), strict=True
    )
  ]
  zero = jnp.zeros((), x.dtype)
  x = jax.lax.pad(x, zero, [(0, 0, 0), *edges, (0, 0, 0)])
  x = x.reshape(-1, rows, stride, columns, stride, x.shape[-1])
  parts = [
    [
      part.reshape(-1, rows, columns, x.shape[-1])
      for part in jax.lax.split(line, (1,) * stride, axis=4)
    ]
    for line in jax.lax.split(x, (1,) * stride, axis=2)
  ]
  for i in range(size):
    for j in range(size):
      part = parts[i % stride][j % stride]
      top, left = i // stride, j // stride
      yield part[:, top : top + height, left : left + width]
