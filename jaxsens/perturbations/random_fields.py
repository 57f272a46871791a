"""Random fields: independent uniform and normal numbers, one per pixel.

The bits are those of `jax.random.bits` for a Threefry key, so a field depends
on its key and shape alone, never on the batch, the device or the precision of
the image. On a CPU `jax.random` spends most of the time of a noise in drawing:
its rounds are kept rolled, each a pass over memory, and the function that
turns bits into normals, fused with the rounds, repeats them several times.
Here the rounds are unrolled into one pass, in chunks that end the fusion.

References:
  Salmon et al. (2011), Parallel random numbers: as easy as 1, 2, 3 (Threefry).
"""

import math

import jax
import jax.numpy as jnp

# Rotations of Threefry-2x32, for even and odd groups of four rounds.
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_NUM_GROUPS = 5
_PARITY = 0x1BD11BDA
_NUM_CHUNKS = 2


def bits(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """Returns uint32 of `shape`, equal to `jax.random.bits(key, shape)`.

  Args:
    key: typed key; of another kind than Threefry, `jax.random` draws.
    shape: of the field.
  """
  if str(jax.random.key_impl(key)) != 'threefry2x32':
    return jax.random.bits(key, shape, jnp.uint32)
  words = jax.random.key_data(key)
  size = math.prod(shape)
  chunk = -(-size // _NUM_CHUNKS)
  draw = lambda start: _threefry(
    words[0], words[1], start + jax.lax.iota(jnp.uint32, chunk)
  )
  starts = jnp.arange(_NUM_CHUNKS, dtype=jnp.uint32) * jnp.uint32(chunk)
  return jax.lax.map(draw, starts).reshape(-1)[:size].reshape(shape)


def uniform(
  key: jax.Array, shape: tuple[int, ...], dtype: jax.typing.DTypeLike
) -> jax.Array:
  """Returns uniform numbers: odd multiples of 2**-24, never 0 or 1.

  Args:
    key: typed key.
    shape: of the field.
    dtype: of the result; the numbers are the same in every precision that
      holds them.
  """
  return _uniform32(key, shape).astype(dtype)


def normal(
  key: jax.Array, shape: tuple[int, ...], dtype: jax.typing.DTypeLike
) -> jax.Array:
  """Returns standard normal numbers: the quantiles of `uniform`.

  Args:
    key: typed key.
    shape: of the field.
    dtype: of the result; drawn in float32 whatever it is.
  """
  return normal_quantile(_uniform32(key, shape)).astype(dtype)


def uniform_pairs(
  key: jax.Array, shape: tuple[int, ...], dtype: jax.typing.DTypeLike
) -> tuple[jax.Array, jax.Array]:
  """Returns two fields, uniform in (-1, 1), from 16 random bits each.

  Args:
    key: typed key.
    shape: of each field.
    dtype: of the results, odd multiples of 2**-16.
  """
  both = bits(key, shape)
  return tuple(
    (half.astype(dtype) + 0.5) / 2**15 - 1
    for half in (both >> 16, both & 0xFFFF)
  )


def normal_quantile(share: jax.Array) -> jax.Array:
  """Returns the standard normal quantile of a share in (0, 1)."""
  return math.sqrt(2) * jax.lax.erf_inv(2 * share - 1)


def _uniform32(key, shape):
  # The 23 upper bits and a half are exact in float32, as is their product.
  upper = (bits(key, shape) >> jnp.uint32(9)).astype(jnp.float32)
  return (upper + jnp.float32(0.5)) * jnp.float32(2**-23)


def _threefry(word0, word1, counter):
  """Encrypts (0, counter) by 20 rounds and folds the two words into one."""
  schedule = (word0, word1, word0 ^ word1 ^ jnp.uint32(_PARITY))
  x0 = jnp.zeros_like(counter) + schedule[0]
  x1 = counter + schedule[1]
  for group in range(_NUM_GROUPS):
    for shift in _ROTATIONS[group % 2]:
      x0 = x0 + x1
      x1 = (x1 << jnp.uint32(shift)) | (x1 >> jnp.uint32(32 - shift))
      x1 = x0 ^ x1
    x0 = x0 + schedule[(group + 1) % 3]
    x1 = x1 + schedule[(group + 2) % 3] + jnp.uint32(group + 1)
  return x0 ^ x1
