"""Layers that keep torch's conventions where Flax has its own.

Channels last throughout: `images` (B, H, W, C), convolution kernels
(height, width, in, out). Padding is explicit and symmetric, as torch pads;
initial values follow torch's distributions.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import functools

from flax import nnx
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

# He et al., Delving deep into rectifiers, 2015, eq. 14 ("fan out" form).
kaiming_normal = nnx.initializers.variance_scaling(2.0, 'fan_out', 'normal')

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


class Convolution(nnx.Module):
  """A convolution without bias, padded by (size - 1) / 2 on each side.

  Attributes:
    kernel: (size, size, in, out), float32, trainable; initially Kaiming normal
      over the fan out, as torchvision's residual networks begin.
    stride: step in both directions, pixels.
    dtype: dtype of the computation.
  """

  def __init__(
    self,
    in_channels: int,
    out_channels: int,
    size: int,
    *,
    stride: int = 1,
    dtype: DTypeLike,
    rngs: nnx.Rngs,
  ):
    shape = (size, size, in_channels, out_channels)
    self.kernel = nnx.Param(kaiming_normal(rngs.params(), shape, jnp.float32))
    self.stride = stride
    self.dtype = jnp.dtype(dtype)

  def __call__(self, x: jax.Array) -> jax.Array:
    """Returns the convolution of x (B, H, W, in), see `convolve`."""
    kernel = self.kernel[...].astype(self.dtype)
    return convolve(x.astype(self.dtype), kernel, stride=self.stride)


def linear(in_features: int, out_features: int, *, rngs: nnx.Rngs):
  """Returns a dense layer in float32, initialised as `torch.nn.Linear` is.

  Kernel and bias are drawn from U(-1/sqrt(in_features), 1/sqrt(in_features)).
  """
  uniform = symmetric_uniform(in_features**-0.5)
  return nnx.Linear(
    in_features,
    out_features,
    kernel_init=uniform,
    bias_init=uniform,
    dtype=jnp.float32,
    rngs=rngs,
  )


def symmetric_uniform(bound: float) -> Callable[..., jax.Array]:
  """Returns an initialiser (key, shape) -> values from U(-bound, bound)."""

  def draw(key, shape, dtype=jnp.float32, out_sharding=None):
    return jax.random.uniform(
      key, shape, dtype, -bound, bound, out_sharding=out_sharding
    )

  return draw


class BatchNorm(nnx.Module):
  """Standardises each channel over batch, height and width.

      y = scale (x - mean) / sqrt(var + epsilon) + bias

  In training `mean` and `var` are the moments of the batch, biased, and the
  running ones move a tenth of the way to them; the running variance takes the
  unbiased one, n / (n - 1), as torch's does and Flax's does not. Moments and
  normalisation are float32 whatever the dtype of the input.

  Attributes:
    scale: factor per channel (C,), trainable.
    bias: offset per channel (C,), trainable.
    mean: running mean (C,).
    var: running variance (C,).

  References:
    Ioffe and Szegedy, Batch normalization, 2015, algorithms 1 and 2.
  """

  momentum = 0.1
  epsilon = 1e-5

  def __init__(self, num_features: int):
    self.scale = nnx.Param(jnp.ones((num_features,), jnp.float32))
    self.bias = nnx.Param(jnp.zeros((num_features,), jnp.float32))
    self.mean = nnx.BatchStat(jnp.zeros((num_features,), jnp.float32))
    self.var = nnx.BatchStat(jnp.ones((num_features,), jnp.float32))

  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    """Returns x (..., C) normalised; with `train` updates the running moments.

    Raises:
      ValueError: training on a single value per channel.
    """
    mean, var = self._batch_moments(x) if train else self.moments()
    factor = self.scale[...] * jax.lax.rsqrt(var + self.epsilon)
    offset = self.bias[...] - mean * factor
    return (x.astype(factor.dtype) * factor + offset).astype(x.dtype)

  def moments(self) -> tuple[jax.Array, jax.Array]:
    """Returns the running mean (C,) and variance (C,)."""
    return self.mean[...], self.var[...]

  def _batch_moments(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    count = x.size // x.shape[-1]
    if count < 2:
      raise ValueError(
        'training needs more than one value per channel, got an input of shape '
        f'{x.shape}.'
      )
    axes = tuple(range(x.ndim - 1))
    mean = jnp.mean(x, axes, dtype=jnp.float32)
    var = jnp.mean(jnp.square(x - mean), axes, dtype=jnp.float32)
    self._move('mean', mean)
    self._move('var', var * (count / (count - 1)))
    return mean, var

  def _move(self, name: str, moment: jax.Array) -> None:
    running = getattr(self, name)
    moment = jax.lax.stop_gradient(moment)
    running[...] = running[...] + self.momentum * (moment - running[...])


def relu(x: jax.Array) -> jax.Array:
  """Returns x where it is positive or NaN, 0 elsewhere.

  The gradient at 0 is 0, as `jax.nn.relu` has it. That one is a maximum, which
  XLA:CPU of JAX 0.12 turns from NaN into 0 when a mean follows: a broken
  network would answer with finite logits.
  """
  return jnp.where(x <= 0, jnp.zeros_like(x), x)


def max_pool(x: jax.Array) -> jax.Array:
  """Returns the maxima of 3x3 windows at stride 2, padding 1 of minus infinity.

  The maximum of nine strided slices: on CPU twice as fast as `reduce_window`
  forward (3.4 against 6.5 ms for (8, 112, 112, 64)) and nine times as fast
  backward (14 against 133 ms). At ties the gradient is shared, where
  `reduce_window` gives it to the first.

  Args:
    x: (B, H, W, C).

  Returns:
    Maxima (B, (H + 1) // 2, (W + 1) // 2, C).
  """
  return functools.reduce(jnp.maximum, _windows(x, 3, 2, -jnp.inf))


def convolve(x: jax.Array, kernel: jax.Array, *, stride: int = 1) -> jax.Array:
  """Returns a convolution, padded by (size - 1) / 2 on each side.

  Where the result is smaller than the kernel it is a product of matrices:
  XLA's CPU backend leaves its fast path for such convolutions or for their
  gradients (3x3 on 2x2 pixels, 512 channels, batch 32: 1,100 ms, against 9 ms).

  Args:
    x: (B, H, W, C).
    kernel: (size, size, C, out), size odd.
    stride: step in both directions, pixels.

  Returns:
    (B, ceil(H / stride), ceil(W / stride), out).
  """
  size = kernel.shape[0]
  if min(_strided_size(x, stride)) < size:
    return _convolve_patches(x, kernel, stride)
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    window_strides=(stride, stride),
    padding=((size // 2, size // 2),) * 2,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


def _convolve_patches(
  x: jax.Array, kernel: jax.Array, stride: int
) -> jax.Array:
  """Returns `convolve` as (B h w, size size C) times (size size C, out)."""
  size, channels = kernel.shape[0], kernel.shape[-1]
  windows = _windows(x, size, stride, 0.0)
  patches = jnp.concatenate(list(windows), axis=-1)
  return patches @ kernel.reshape(-1, channels)


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
  # No TF32: the last transform takes differences of these products.
  y = jnp.matmul(
    x.reshape(len(kernel), -1, channels), kernel,
    precision=jax.lax.Precision.HIGHEST,
  )
  y = y.reshape(6, 6, batch, rows, columns, -1)
  y = _combine(_TILE_OUTPUT, [y[i] for i in range(6)])
  y = _combine(_TILE_OUTPUT, [y[:, i] for i in range(6)])
  y = y.transpose(2, 3, 0, 4, 1, 5)
  y = y.reshape(batch, TILE_SIZE * rows, TILE_SIZE * columns, -1)
  return y[:, :height, :width]


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


def _strided_size(x: jax.Array, stride: int) -> tuple[int, int]:
  """Returns (ceil(H / stride), ceil(W / stride))."""
  return -(-x.shape[1] // stride), -(-x.shape[2] // stride)


def _windows(
  x: jax.Array, size: int, stride: int, fill: float
) -> Iterator[jax.Array]:
  """Yields, row by row of a window, what each of its pixels sees of x.

  The images (B, H, W, C) are padded by (size - 1) / 2 on each side with `fill`;
  every result is (B, ceil(H / stride), ceil(W / stride), C).
  """
  height, width = _strided_size(x, stride)
  border = (size // 2, size // 2)
  padded = jnp.pad(x, ((0, 0), border, border, (0, 0)), constant_values=fill)
  every = jax.lax.slice_in_dim
  for i in range(size):
    rows = every(padded, i, i + stride * (height - 1) + 1, stride, axis=1)
    for j in range(size):
      yield every(rows, j, j + stride * (width - 1) + 1, stride, axis=2)
