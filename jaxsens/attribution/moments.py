"""Where a heat map lies and how wide it is, as differentiable functions of it.

Every function takes one heat map (H, W) and works with its positive part as a
distribution over the pixels,

    weight[y, x] = max(map[y, x], 0) / Σ max(map, 0).

A map without a positive pixel says nothing about where: it counts as uniform,
so that its centre is the centre of the image, and its gradient is zero.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def distribution(heat_map: ArrayLike) -> jax.Array:
  """Returns the weights of the pixels, (H, W), which sum to one.

  Raises:
    ValueError: not one map (H, W).
  """
  positive = _positive(heat_map)
  total = jnp.sum(positive)
  exists = total > 0
  safe = jnp.where(exists, total, jnp.ones_like(total))
  return jnp.where(exists, positive / safe, 1 / positive.size)


def centre_of_mass(heat_map: ArrayLike) -> jax.Array:
  """Returns the mean position (y, x) in pixels, (2,); 0 is the first pixel.

  Args:
    heat_map: (H, W).
  """
  weights = distribution(heat_map)
  rows, columns = _positions(weights)
  return jnp.stack([jnp.sum(weights * rows), jnp.sum(weights * columns)])


def spread(heat_map: ArrayLike) -> jax.Array:
  """Returns the root mean square distance from the centre in pixels, ().

      spread² = Σ weight ((y - centre_y)² + (x - centre_x)²)

  Zero, with gradient zero, for a map of one positive pixel.

  Args:
    heat_map: (H, W).
  """
  weights = distribution(heat_map)
  rows, columns = _positions(weights)
  y, x = centre_of_mass(heat_map)
  variance = jnp.sum(weights * ((rows - y) ** 2 + (columns - x) ** 2))
  exists = variance > 0
  root = jnp.sqrt(jnp.where(exists, variance, jnp.ones_like(variance)))
  return jnp.where(exists, root, jnp.zeros_like(root))


def entropy(heat_map: ArrayLike) -> jax.Array:
  """Returns the Shannon entropy in nats, (), from 0 to log(H W).

      entropy = - Σ weight log weight

  Args:
    heat_map: (H, W).
  """
  weights = distribution(heat_map)
  safe = jnp.where(weights > 0, weights, jnp.ones_like(weights))
  return -jnp.sum(weights * jnp.log(safe))


def mass_inside(heat_map: ArrayLike, mask: ArrayLike) -> jax.Array:
  """Returns the share of the weights inside of a mask, (), in [0, 1].

  Args:
    heat_map: (H, W).
    mask: (H, W), 1 inside and 0 outside.

  Raises:
    ValueError: a mask of another size.
  """
  weights = distribution(heat_map)
  return jnp.sum(weights * _as_mask(mask, weights))


def soft_dice(heat_map: ArrayLike, mask: ArrayLike) -> jax.Array:
  """Returns the Dice coefficient of a map without threshold, (), in [0, 1].

      dice = 2 Σ p m / (Σ p + Σ m),    p = max(map, 0) / max map

  One for a map that is constant inside of the mask and not positive outside;
  zero if the map has no positive pixel or the mask none.

  Args:
    heat_map: (H, W).
    mask: (H, W), 1 inside and 0 outside.

  Raises:
    ValueError: a mask of another size.
  """
  positive = _positive(heat_map)
  mask = _as_mask(mask, positive)
  top = jnp.max(positive)
  p = positive / jnp.where(top > 0, top, jnp.ones_like(top))
  total = jnp.sum(p) + jnp.sum(mask)
  safe = jnp.where(total > 0, total, jnp.ones_like(total))
  return 2 * jnp.sum(p * mask) / safe


def _positive(heat_map):
  heat_map = jnp.asarray(heat_map)
  if heat_map.ndim != 2:
    raise ValueError(
      f'heat_map must be one map (H, W), got shape {heat_map.shape}; map over '
      'several by jax.vmap.'
    )
  return jnp.maximum(heat_map, jnp.zeros_like(heat_map))


def _as_mask(mask, heat_map):
  mask = jnp.asarray(mask)
  if mask.shape != heat_map.shape:
    raise ValueError(
      f'mask must have the shape of the heat map, {heat_map.shape}, got '
      f'{mask.shape}.'
    )
  return mask.astype(heat_map.dtype)


def _positions(weights):
  height, width = weights.shape
  return (
    jnp.arange(height, dtype=weights.dtype)[:, None],
    jnp.arange(width, dtype=weights.dtype)[None, :],
  )
