"""Where things are in a procedural TIG welding frame.

Positions and lengths are in widths of the frame: x runs from -0.5 to 0.5, y
from 0 at the top down to height / width. `p` is the mapping of one frame's
parameters, float32 scalars, that `weld.PARAMETERS` lists.
"""

from collections.abc import Mapping
import dataclasses

import jax
import jax.numpy as jnp

from jaxsens.data.synthetic import textures

Parameters = Mapping[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Canvas:
  """Coordinates and the random fields that several layers share.

  Attributes:
    x: position across, shape (1, W), frame widths from the middle.
    y: position down, shape (H, 1), frame widths from the top.
    pixel: size of a pixel in frame widths.
    size: height and width in pixels.
    broad: noise of a few cells across, shape (H, W).
    ragged: noise that makes outlines ragged, shape (H, W).
    grain: fine noise of etched and sooty metal, shape (H, W).
    key: random key of the fields that belong to one layer.
  """

  x: jax.Array
  y: jax.Array
  pixel: float
  size: tuple[int, int]
  broad: jax.Array
  ragged: jax.Array
  grain: jax.Array
  key: jax.Array

  def layer_key(self, layer: int) -> jax.Array:
    """Returns the key of one layer."""
    return jax.random.fold_in(self.key, layer)


@dataclasses.dataclass(frozen=True)
class Bead:
  """Where the bead lies.

  Attributes:
    depth: distance inside the outline of the bead, negative outside, (H, W).
    across: position across a strand, 0 on its axis, 1 at its edge, (H, W).
    offset: signed distance from the axis of the bead, (H, W).
    below_head: distance below the front of the bead, (H, W).
  """

  depth: jax.Array
  across: jax.Array
  offset: jax.Array
  below_head: jax.Array


def make_canvas(key: jax.Array, size: tuple[int, int]) -> Canvas:
  """Makes the coordinates and shared fields of a frame of `size` pixels."""
  height, width = size
  broad, ragged, grain, own = jax.random.split(key, 4)
  x = (jnp.arange(width, dtype=jnp.float32) + 0.5) / width - 0.5
  y = (jnp.arange(height, dtype=jnp.float32) + 0.5) / width
  return Canvas(
      x=x[None, :],
      y=y[:, None],
      pixel=1.0 / width,
      size=size,
      broad=textures.fractal_field(broad, size, (3, 7), (0.8, 0.6)),
      ragged=textures.fractal_field(
          ragged, size, (14, 34, 80), (0.7, 0.6, 0.5)
      ),
      grain=textures.fractal_field(grain, size, (60, 160), (0.5, 0.9)),
      key=own,
  )


def electrode_tip(p: Parameters) -> jax.Array:
  """Returns the height of the lowest point of the electrode."""
  return p['nozzle_bottom'] + p['electrode_length']


def electrode_x(p: Parameters) -> jax.Array:
  """Returns the position of the axis of the electrode."""
  return p['nozzle_x'] + p['electrode_offset']


def bead_x(p: Parameters) -> jax.Array:
  """Returns the position of the axis of the bead at its front."""
  return electrode_x(p) + p['bead_offset']


def head_y(p: Parameters) -> jax.Array:
  """Returns the height of the front of the bead."""
  return electrode_tip(p) + p['arc_gap']


def bead_outline(canvas: Canvas, p: Parameters) -> Bead:
  """Returns where the bead lies: one strand, or two if they do not fuse."""
  below = canvas.y - head_y(p)
  drift = p['bead_drift'] * below + 0.25 * p['irregularity'] * (
      0.03 * jnp.sin(9.0 * below + p['phase'])
  )
  offset = canvas.x - bead_x(p) - drift
  side = jnp.tanh(offset / 0.01)
  below = below - p['strand_lag'] * side * (p['strand_offset'] > 0.0)
  phase = jnp.pi * below / p['lump_pitch'] + p['phase'] + 0.7 * side
  lumps = jnp.abs(jnp.sin(phase + 0.8 * canvas.broad)) - 0.6
  grown = textures.soft_step(below - 0.1, 0.3)
  half_width = p['bead_half_width'] * (1.0 + p['lumps'] * lumps * grown)
  half_width *= 1.0 + p['bead_taper'] * below
  centre = p['strand_offset'] * p['bead_half_width']
  across = jnp.abs(jnp.abs(offset) - centre)
  above = jnp.maximum(p['head_length'] * half_width - below, 0.0)
  above = above / jnp.maximum(p['head_length'], 0.1)
  power = p['head_squareness']
  # Kept off zero, where a power has no slope.
  wide, high = jnp.maximum(across, 1e-6), jnp.maximum(above, 1e-6)
  radius = (wide**power + high**power) ** (1.0 / power)
  # The outline is ragged around the front and smooth once it is solid.
  early = 0.3 + 0.7 * textures.bump(jnp.maximum(below, 0.0), 0.15)
  rough = p['roughness'] * 0.004 * early * canvas.ragged
  rough += p['irregularity'] * 0.03 * canvas.broad
  return Bead(
      depth=half_width - radius + rough,
      across=across / half_width,
      offset=offset,
      below_head=below,
  )
