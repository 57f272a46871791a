"""Layers that keep torch's conventions where Flax has its own.

Channels last throughout: `images` (B, H, W, C), convolution kernels
(height, width, in, out). Initial values follow torch's distributions. Layers
that normalise or drop take `train`, and `key` where they draw.
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import contextvars

from flax import nnx
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxsens.models import convolutions

Initialiser = Callable[..., jax.Array]
Observer = Callable[[nnx.Module, jax.Array, jax.Array], None]

# He et al., Delving deep into rectifiers, 2015, eq. 14 ("fan out" form), and
# the uniform "fan in" form that torch's layers have unless told otherwise.
kaiming_normal = nnx.initializers.variance_scaling(2.0, 'fan_out', 'normal')
kaiming_uniform = nnx.initializers.variance_scaling(2.0, 'fan_in', 'uniform')
torch_uniform = nnx.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')

_OBSERVER: contextvars.ContextVar[Observer | None] = contextvars.ContextVar(
  'observer', default=None
)


@contextlib.contextmanager
def observe(observer: Observer) -> Iterator[None]:
  """Shows an observer every convolution and batch norm that runs within.

  Args:
    observer: called as (layer, its input, its result), in order.
  """
  token = _OBSERVER.set(observer)
  try:
    yield
  finally:
    _OBSERVER.reset(token)


def is_observed() -> bool:
  """Whether an observer is shown what runs."""
  return _OBSERVER.get() is not None


def _shown(layer: nnx.Module, x: jax.Array, y: jax.Array) -> jax.Array:
  observer = _OBSERVER.get()
  if observer is not None:
    observer(layer, x, y)
  return y


class Convolution(nnx.Module):
  """A convolution, see `convolutions.convolve`.

  Attributes:
    kernel: (size, size, in / groups, out), float32, trainable.
    bias: (out,), float32, trainable; absent in a convolution without.
    stride: step in both directions, pixels.
    padding: 'torch', 'same' or a number of pixels.
    dtype: dtype of the computation.
  """

  def __init__(
    self,
    in_channels: int,
    out_channels: int,
    size: int,
    *,
    stride: int = 1,
    padding: str | int = 'torch',
    depthwise: bool = False,
    bias: bool = False,
    initial: Initialiser = kaiming_normal,
    initial_bias: Initialiser = nnx.initializers.zeros,
    dtype: DTypeLike,
    rngs: nnx.Rngs,
  ):
    if depthwise and in_channels != out_channels:
      raise ValueError(
        'a depthwise convolution has as many channels in as out, got '
        f'{in_channels} and {out_channels}.'
      )
    shape = (size, size, 1 if depthwise else in_channels, out_channels)
    self.kernel = nnx.Param(initial(rngs.params(), shape, jnp.float32))
    if bias:
      self.bias = nnx.Param(
        initial_bias(rngs.params(), (out_channels,), jnp.float32)
      )
    self.stride = stride
    self.padding = padding
    self.dtype = jnp.dtype(dtype)

  def __call__(self, x: jax.Array) -> jax.Array:
    """Returns the convolution of x (B, H, W, in)."""
    y = convolutions.convolve(
      x.astype(self.dtype), self.kernel[...].astype(self.dtype),
      stride=self.stride, padding=self.padding,
    )
    if hasattr(self, 'bias'):
      y = y + self.bias[...].astype(self.dtype)
    return _shown(self, x, y)


def linear(
  in_features: int,
  out_features: int,
  *,
  initial: Initialiser | None = None,
  initial_bias: Initialiser | None = None,
  rngs: nnx.Rngs,
) -> nnx.Linear:
  """Returns a dense layer in float32, initialised as `torch.nn.Linear` is.

  Kernel and bias are drawn from U(-1/sqrt(in_features), 1/sqrt(in_features))
  where no other distribution is given.
  """
  uniform = symmetric_uniform(in_features**-0.5)
  return nnx.Linear(
    in_features,
    out_features,
    kernel_init=initial or uniform,
    bias_init=initial_bias or uniform,
    dtype=jnp.float32,
    rngs=rngs,
  )


def symmetric_uniform(bound: float) -> Initialiser:
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
  running ones move by the share `momentum` of the way to them; the running
  variance takes the unbiased one, n / (n - 1), as torch's does and Flax's does
  not. Moments and normalisation are float32 whatever the dtype of the input.

  Attributes:
    scale: factor per channel (C,), trainable.
    bias: offset per channel (C,), trainable.
    mean: running mean (C,).
    var: running variance (C,).
    momentum: share of the way that the running moments move.
    epsilon: added to the variance.

  References:
    Ioffe and Szegedy, Batch normalization, 2015, algorithms 1 and 2.
  """

  def __init__(
    self, num_features: int, *, momentum: float = 0.1, epsilon: float = 1e-5
  ):
    self.momentum = momentum
    self.epsilon = epsilon
    self.scale = nnx.Param(jnp.ones((num_features,), jnp.float32))
    self.bias = nnx.Param(jnp.zeros((num_features,), jnp.float32))
    self.mean = nnx.BatchStat(jnp.zeros((num_features,), jnp.float32))
    self.var = nnx.BatchStat(jnp.ones((num_features,), jnp.float32))

  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    """Returns x (..., C) normalised; with `train` updates the running moments.

    Without `scale` (see `inference`) it returns x as it is.

    Raises:
      ValueError: training on a single value per channel.
    """
    if not hasattr(self, 'scale'):
      return x
    mean, var = self._batch_moments(x) if train else self.moments()
    factor = self.scale[...] * jax.lax.rsqrt(var + self.epsilon)
    offset = self.bias[...] - mean * factor
    y = (x.astype(factor.dtype) * factor + offset).astype(x.dtype)
    return _shown(self, x, y)

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


def dropout(
  x: jax.Array, rate: float, *, train: bool, key: jax.Array | None
) -> jax.Array:
  """Returns x with elements dropped and the others made larger, in training.

  Raises:
    ValueError: no key in training.
  """
  if not train or not rate:
    return x
  return _dropped(x, rate, x.shape, key)


def stochastic_depth(
  x: jax.Array, rate: float, *, train: bool, key: jax.Array | None
) -> jax.Array:
  """Returns the residual branch x with whole images of it dropped, in training.

  References:
    Huang et al., Deep networks with stochastic depth, 2016.
  """
  if not train or not rate:
    return x
  return _dropped(x, rate, (len(x), 1, 1, 1), key)


def _dropped(x, rate, shape, key):
  if key is None:
    raise ValueError('training with dropout needs a key.')
  kept = jax.random.bernoulli(key, 1 - rate, shape)
  return jnp.where(kept, x / (1 - rate), jnp.zeros_like(x))


def checked_dropout(rate: float) -> float:
  """Returns a probability of dropping.

  Raises:
    ValueError: it is not in [0, 1).
  """
  if not 0 <= rate < 1:
    raise ValueError(f'dropout must be in [0, 1), got {rate}.')
  return rate


def checked_stem(stem: str) -> str:
  """Returns a kind of stem.

  Raises:
    ValueError: it is neither 'imagenet' nor 'cifar'.
  """
  if stem not in ('imagenet', 'cifar'):
    raise ValueError(f"stem must be 'imagenet' or 'cifar', got {stem!r}.")
  return stem


def check_fixed(
  name: str, *, dropout: float | None, stem: str, padding: str
) -> None:
  """Raises ValueError for options of a network that has none of them."""
  if dropout or checked_stem(stem) != 'imagenet' or padding != 'torch':
    raise ValueError(
      f'{name} has no dropout, one stem and one padding, got '
      f'dropout={dropout}, stem={stem!r}, padding={padding!r}.'
    )


def check_widths(num_classes: int, in_channels: int) -> None:
  """Raises ValueError for less than one class or channel."""
  if num_classes < 1 or in_channels < 1:
    raise ValueError(
      'num_classes and in_channels must be at least 1, got '
      f'{num_classes} and {in_channels}.'
    )


def relu(x: jax.Array) -> jax.Array:
  """Returns x where it is positive or NaN, 0 elsewhere.

  The gradient at 0 is 0, as `jax.nn.relu` has it. That one is a maximum, which
  XLA:CPU of JAX 0.12 turns from NaN into 0 when a mean follows: a broken
  network would answer with finite logits.
  """
  return jnp.where(x <= 0, jnp.zeros_like(x), x)


def relu6(x: jax.Array) -> jax.Array:
  """Returns x between 0 and 6; NaN stays."""
  return jnp.where(x >= 6, jnp.full_like(x, 6), relu(x))


def hard_sigmoid(x: jax.Array) -> jax.Array:
  """Returns relu6(x + 3) / 6."""
  return relu6(x + 3) / 6


def hard_swish(x: jax.Array) -> jax.Array:
  """Returns x relu6(x + 3) / 6 (Howard et al., MobileNetV3, 2019, sec. 5.2)."""
  return x * hard_sigmoid(x)


def silu(x: jax.Array) -> jax.Array:
  """Returns x sigmoid(x)."""
  return x * jax.nn.sigmoid(x)


def mean_pool(x: jax.Array) -> jax.Array:
  """Returns the mean over height and width, (B, C), float32."""
  return jnp.mean(x, (1, 2), dtype=jnp.float32)
