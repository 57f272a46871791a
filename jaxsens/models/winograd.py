"""Winograd tiles: 3x3 convolutions with a quarter of the multiplications."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

# Lavin and Gray, Fast algorithms for convolutional neural networks, 2016,
# section 4.3, F(4x4, 3x3): B transposed, G and A transposed.
TILE_SIZE = 4
_TILE_INPUT = (
  (4, 0, -5, 0, 1, 0),
  (0, -4, -4, 1, 1, 0),
  (0, 4, -4, -1, 1, 0),
  (0, -2, -1, 2, 1, 0),
  (0, 2, -1, -2, 1, 0),
  (0, 4, 0, -5, 0, 1),
)
_TILE_KERNEL = (
  (1 / 4, 0, 0),
  (-1 / 6, -1 / 6, -1 / 6),
  (-1 / 6, 1 / 6, -1 / 6),
  (1 / 24, 1 / 12, 1 / 6),
  (1 / 24, -1 / 12, 1 / 6),
  (0, 0, 1),
)
_TILE_OUTPUT = (
  (1, 1, 1, 1, 1, 0),
  (0, 1, -1, 2, -2, 0),
  (0, 1, 1, 4, 4, 0),
  (0, 1, -1, 8, -8, 1),
)


def tile_kernel(kernel: jax.Array) -> jax.Array:
  """Returns a 3x3 kernel as `convolve_tiles` takes it.

      tiled[6 j + i] = Σ_kl G[i, k] G[j, l] kernel[k, l]

  Args:
    kernel: (3, 3, C, out).

  Returns:
    (36, C, out): four times the memory.
  """
  transform = jnp.asarray(_TILE_KERNEL, kernel.dtype)
  tiled = jnp.einsum(
    'ik,jl,klco->jico', transform, transform, kernel,
    precision=jax.lax.Precision.HIGHEST,
  )
  return tiled.reshape(-1, *kernel.shape[2:])


def convolve_tiles(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Returns `convolve` by a 3x3 kernel with a quarter of the multiplications.

  Winograd's F(4x4, 3x3). Every tile of 4x4 pixels comes from the 6x6 pixels d
  around it by 36 products instead of 144:

      y = Aᵀ [(G kernel Gᵀ) (Bᵀ d B)] A

  with products by element, summed over the channels. The transforms amplify
  rounding, about tenfold in float32.

  Args:
    x: (B, H, W, C); any size, sides are padded to multiples of four.
    kernel: (36, C, out), see `tile_kernel`.

  Returns:
    (B, H, W, out).

  References:
    Lavin and Gray, Fast algorithms for convolutional neural networks, 2016,
    eq. 8 and section 4.3.
  """
  batch, height, width, channels = x.shape
  rows, columns = -(-height // TILE_SIZE), -(-width // TILE_SIZE)
  bottom, right = TILE_SIZE * rows + 1 - height, TILE_SIZE * columns + 1 - width
  x = jnp.pad(x, ((0, 0), (1, bottom), (1, right), (0, 0)))
  x = _combine(_TILE_INPUT, _tile_lines(x, rows, 1))
  x = _combine(_TILE_INPUT, _tile_lines(x, columns, 3))
  x = x.reshape(len(kernel), -1, channels)
  y = (_multiply_few if _are_few(x, kernel) else _multiply)(x, kernel)
  y = y.reshape(6, 6, batch, rows, columns, -1)
  y = _combine(_TILE_OUTPUT, [y[i] for i in range(6)])
  y = _combine(_TILE_OUTPUT, [y[:, i] for i in range(6)])
  y = y.transpose(2, 3, 0, 4, 1, 5)
  y = y.reshape(batch, TILE_SIZE * rows, TILE_SIZE * columns, -1)
  return y[:, :height, :width]


def _multiply(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Returns the products (36, N, out) of x (36, N, C) and a tiled kernel."""
  # No TF32: the last transform takes differences of these products.
  return jnp.matmul(x, kernel, precision=jax.lax.Precision.HIGHEST)


def _are_few(x: jax.Array, kernel: jax.Array) -> bool:
  """Whether `_multiply_few` has the faster gradient."""
  return x.shape[1] <= _FEW_ROWS and kernel[0].size >= _LARGE_KERNEL


# From here on reading the kernel costs more than the products.
_FEW_ROWS = 32
_LARGE_KERNEL = 256 * 256


@jax.custom_jvp
def _multiply_few(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Returns `_multiply`, whose gradient reads a large kernel as it lies.

  XLA's CPU backend turns kernels around to multiply few rows by their
  transposes: 18 ms for 4 rows of 512 channels, 2.5 with the kernel to the left,
  which it has to be kept from undoing.
  """
  return _multiply(x, kernel)


def _multiply_few_tangent(primals, tangents):
  x, kernel = primals
  dx, dkernel = tangents
  y = _multiply_few(x, kernel)
  dy = jnp.zeros_like(y)
  if not isinstance(dkernel, jax.custom_derivatives.SymbolicZero):
    dy += _multiply(x, dkernel)
  if not isinstance(dx, jax.custom_derivatives.SymbolicZero):
    columns = jax.lax.optimization_barrier(dx.transpose(0, 2, 1))
    product = jax.lax.dot_general(
      kernel, columns, (((1,), (1,)), ((0,), (0,))),
      precision=jax.lax.Precision.HIGHEST,
    )
    dy += jax.lax.optimization_barrier(product).transpose(0, 2, 1)
  return y, dy


_multiply_few.defjvp(_multiply_few_tangent, symbolic_zeros=True)


def _tile_lines(x: jax.Array, count: int, axis: int) -> list[jax.Array]:
  """Returns the first to sixth lines of all `count` tiles along an axis."""
  step, span = TILE_SIZE, TILE_SIZE * (count - 1) + 1
  every = jax.lax.slice_in_dim
  return [every(x, i, i + span, step, axis=axis) for i in range(step + 2)]


def _combine(
  matrix: Sequence[Sequence[int]], arrays: Sequence[jax.Array]
) -> jax.Array:
  """Returns Σ_k matrix[i, k] arrays[k], stacked over i; sums, not a product.

  On CPU the sums are faster than a product of so small a matrix.
  """
  return jnp.stack([
    sum(
      factor * x for factor, x in zip(row, arrays, strict=True) if factor
    )
    for row in matrix
  ])
