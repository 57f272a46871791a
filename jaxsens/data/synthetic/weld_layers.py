"""The layers of a procedural TIG welding frame, back to front.

Each layer takes the picture so far, shape (H, W), and returns the next.
Positions and the parameters `p` are those of `weld_canvas`.
"""

import dataclasses

import jax
import jax.numpy as jnp

from jaxsens.data.synthetic import textures
from jaxsens.data.synthetic import weld_canvas

Bead = weld_canvas.Bead
Canvas = weld_canvas.Canvas
Parameters = weld_canvas.Parameters


def light(canvas: Canvas, p: Parameters) -> jax.Array:
  """Returns the light of the arc on the plate, about 0 to 1, shape (H, W)."""
  dx = canvas.x - weld_canvas.electrode_x(p) - p['light_offset']
  dy = canvas.y - weld_canvas.head_y(p) - 0.3
  spread = p['light_spread']
  far = jnp.sqrt(jnp.square(dx / spread) + jnp.square(dy / (1.3 * spread)))
  return 0.22 + 0.78 / (1.0 + far**3) + 0.05 * canvas.broad


def plate(canvas: Canvas, p: Parameters) -> jax.Array:
  """Draws the brushed plate with spatter, under the light of the arc."""
  dx = canvas.x - weld_canvas.electrode_x(p)
  dy = canvas.y - weld_canvas.electrode_tip(p)
  angle = p['brush_angle'] + 0.05 * canvas.broad * p['brush_waviness']
  bend = p['brush_curve'] * dx * dx
  across = (dy + bend) * jnp.cos(angle) - dx * jnp.sin(angle)
  along = dx * jnp.cos(angle) + dy * jnp.sin(angle)
  # A broken coordinate ends the marks at random places.
  marks = textures.streaks(
      canvas.layer_key(0),
      along + 0.03 * canvas.ragged,
      across + 0.002 * canvas.ragged,
      canvas.pixel,
  )
  contrast = p['brush_contrast'] * jnp.clip(0.8 + 0.6 * canvas.broad, 0.1, 2.0)
  picture = p['plate_brightness'] * light(canvas, p)
  picture *= 1.0 + contrast * marks + 0.03 * canvas.grain
  shape = (round(110 * canvas.size[0] / canvas.size[1]), 110)
  rare = jax.random.uniform(canvas.layer_key(1), shape, jnp.float32)
  dots = jnp.maximum(rare - 1.0 + p['spatter'], 0.0) / p['spatter']
  return picture + 0.3 * textures.spread(dots, canvas.size)


def joint(canvas: Canvas, p: Parameters, picture: jax.Array) -> jax.Array:
  """Draws the line where the two plates meet, and their unequal heights."""
  line = weld_canvas.bead_x(p) + p['joint_offset']
  distance = canvas.x - line + 0.0015 * canvas.ragged
  gap = textures.bump(distance, 0.5 * (p['joint_width'] + canvas.pixel))
  # A line thinner than the pixel that it falls on covers only part of it.
  cover = p['joint_width'] / (p['joint_width'] + canvas.pixel)
  side = 2.0 * textures.soft_step(distance, 0.01 + canvas.pixel) - 1.0
  flank = textures.bump(distance - 2.0 * p['joint_width'], 0.006 + canvas.pixel)
  shade = p['joint_step'] * side * jnp.exp(-jnp.abs(distance) / 0.12)
  picture = picture * (1.0 + shade + 0.25 * p['joint_contrast'] * flank)
  return picture * (1.0 - p['joint_contrast'] * cover * gap)


def cleaned_zone(
    canvas: Canvas, p: Parameters, bead: Bead, picture: jax.Array
) -> jax.Array:
  """Draws the zone beside the bead that the arc cleaned of its oxide."""
  down = jnp.maximum(bead.below_head, 0.0)
  reach = p['cleaning_width'] * (0.85 + 0.25 * canvas.broad)
  reach += p['cleaning_flare'] * down
  reach = reach + bead.depth + 0.010 * canvas.ragged
  edge = p['cleaning_softness'] * (1.0 + 4.0 * down) + canvas.pixel
  zone = textures.soft_step(reach, edge)
  lift = zone * jnp.exp(-down / 0.8)
  speckle = 1.0 + 0.05 * (canvas.grain + canvas.ragged) * lift
  picture = picture * (1.0 + p['cleaning_contrast'] * lift) * speckle
  border = p['border_width'] * (1.0 + 0.4 * canvas.ragged)
  border = jnp.exp(-jnp.maximum(-bead.depth, 0.0) / jnp.maximum(border, 4e-3))
  fade = 0.35 + 0.65 * textures.bump(down, 0.25)
  picture = picture * (1.0 - p['border_contrast'] * border * fade)
  edge_line = textures.bump(-bead.depth - 0.016, 0.005 + 0.7 * canvas.pixel)
  solid = textures.soft_step(bead.below_head - 0.25, 0.3)
  return picture * (1.0 + p['edge_line'] * edge_line * solid)


def bead_surface(
    canvas: Canvas, p: Parameters, bead: Bead, picture: jax.Array
) -> jax.Array:
  """Draws the solidified bead with its ripples."""
  across = jnp.minimum(bead.across, 1.0)
  bow = p['ripple_bow'] * p['bead_half_width']
  front = bead.below_head + bow * across * across
  pitch = p['ripple_pitch']
  wave = jnp.sin(2.0 * jnp.pi * (front + 0.025 * canvas.broad) / pitch)
  wave *= jnp.clip(0.7 + 0.7 * canvas.ragged, 0.0, 2.0)
  # Ripples finer than two pixels cannot be seen.
  seen = jnp.exp(-jnp.square(canvas.pixel / pitch) * 8.0)
  end = p['pool_start'] + p['pool_length']
  cooling = jnp.exp(-jnp.maximum(bead.below_head - end, 0.0) / 0.25)
  lit = p['bead_brightness'] * (0.35 + 0.55 * light(canvas, p) + 0.3 * cooling)
  lit *= 1.0 + 0.08 * canvas.broad
  shading = 1.0 - p['bead_shade'] * across**3
  shading += p['side_light'] * jnp.tanh(bead.offset / p['bead_half_width'])
  ripples = 1.0 + p['ripple_contrast'] * seen * wave * (1.0 - 0.4 * across)
  surface = lit * shading * ripples * (1.0 + 0.015 * canvas.grain)
  # Each lump is a scale: lit in front, dark in the crease behind it.
  phase = jnp.pi * (front - bow * 0.5) / p['lump_pitch'] + p['phase']
  phase += 0.7 * jnp.tanh(bead.offset / 0.01) + 0.8 * canvas.broad
  strength = jnp.minimum(p['lumps'] / 0.4, 1.0)
  surface *= 1.0 + 0.22 * strength * jnp.cos(jnp.mod(phase, jnp.pi))
  crease = jnp.exp(-7.0 * jnp.abs(jnp.sin(phase)))
  surface *= 1.0 - 0.45 * strength * crease
  inside = textures.soft_step(bead.depth, 0.008 + canvas.pixel)
  return picture + inside * (surface - picture)


def pool(
    canvas: Canvas, p: Parameters, bead: Bead, picture: jax.Array
) -> jax.Array:
  """Draws the molten pool: dark near the arc, then a bright reflection."""
  inside = textures.soft_step(bead.depth - 0.004, 0.006 + canvas.pixel)
  end = p['pool_start'] + p['pool_length']
  melt = textures.soft_step(p['pool_start'] + 0.02 - bead.below_head, 0.06)
  dark = p['pool_darkness'] * p['bead_brightness']
  dark = dark * (1.0 + 0.12 * canvas.ragged * p['roughness'])
  picture = picture + inside * melt * (dark - picture)
  relative = (bead.offset - p['pool_offset'] * p['bead_half_width']) / (
      p['pool_width'] * p['bead_half_width']
  )
  centre = p['strand_offset'] / p['pool_width']
  relative = jnp.abs(jnp.abs(relative) - centre)
  relative += p['irregularity'] * (0.2 * canvas.broad + 0.1 * canvas.ragged)
  square = jnp.square(relative)
  wobble = p['irregularity'] * 0.12 * canvas.broad + 0.006 * canvas.ragged
  # An ellipse for a bow of one, a flat front for zero.
  bow = 1.0 - jnp.sqrt(jnp.maximum(1.0 - square, 1e-6))
  bow *= 0.5 * p['pool_bow'] * p['pool_length']
  top = p['pool_start'] + bow
  top = top + p['pool_slant'] * bead.offset
  bottom = end - bow
  down = bead.below_head + wobble * (0.3 + p['irregularity'])
  mask = textures.soft_step(down - top, 0.010 + canvas.pixel)
  mask *= textures.soft_step(bottom - down, p['pool_fade'])
  limit = p['pool_width'] * p['bead_half_width']
  mask *= textures.soft_step((1.0 - relative) * limit, 0.012 + canvas.pixel)
  glow = p['pool_brightness'] * (
      1.0 - 0.35 * jnp.clip((down - top) / p['pool_length'], 0.0, 1.0)
  )
  glow = glow * (1.0 + 0.05 * canvas.broad)
  return picture + inside * mask * (jnp.maximum(glow, picture) - picture)


def soot(
    canvas: Canvas, p: Parameters, bead: Bead, picture: jax.Array
) -> jax.Array:
  """Draws the dark specks of contamination on and around the pool."""
  dx = bead.offset - p['soot_x'] * p['bead_half_width']
  dy = bead.below_head - p['soot_y']
  near = jnp.exp(-0.5 * (dx * dx + 0.6 * dy * dy) / p['soot_radius'] ** 2)
  texture = 0.40 * canvas.ragged + 0.5 * canvas.broad + 0.15 * canvas.grain
  amount = 3.2 * near * p['soot'] - 1.5 + texture
  cover = textures.soft_step(amount, 0.8) * jnp.minimum(6.0 * p['soot'], 1.0)
  cover *= textures.soft_step(bead.depth + 0.03, 0.03)
  dark = p['soot_brightness'] * (1.0 + 0.35 * canvas.ragged)
  return picture + cover * (dark - picture)


@dataclasses.dataclass(frozen=True)
class Hole:
  """Where a burnt hole lies.

  Attributes:
    distance: distance outside the outline, negative inside, (H, W).
    downward: vertical position, -1 above the hole, 1 below it, (H, W).
    sagged: distance outside the melt that sagged below the hole, (H, W).
  """

  distance: jax.Array
  downward: jax.Array
  sagged: jax.Array


def hole_outline(canvas: Canvas, p: Parameters) -> Hole:
  """Returns where the hole and the melt that sagged out of it lie."""
  radius = p['hole_radius']
  centre_y = weld_canvas.electrode_tip(p) + p['hole_gap']
  centre_y += radius * p['hole_aspect']
  dy = (canvas.y - centre_y) / p['hole_aspect']
  dx = canvas.x - weld_canvas.bead_x(p) - p['hole_x'] * radius
  dx = dx + p['hole_skew'] * dy
  length = jnp.sqrt(dx * dx + dy * dy + 1e-12)
  angle = jnp.arctan2(dx, dy)
  wave = 0.10 * jnp.sin(2.0 * angle + p['phase'])
  wave += 0.07 * jnp.sin(3.0 * angle + 2.3 * p['phase'])
  wave += 0.08 * canvas.broad + 0.02 * canvas.ragged
  wave = radius * (1.0 + p['irregularity'] * wave)
  # The melt covers the disc that slides down and shrinks on its way.
  slide = jnp.clip(dy / jnp.maximum(p['fold_length'], 0.02), 0.0, 1.0)
  below = dy - slide * p['fold_length']
  disc = (1.2 * radius + p['rim_width']) * (1.0 - 0.35 * slide * slide)
  disc += 0.25 * p['irregularity'] * radius * canvas.broad
  return Hole(
      distance=length - wave,
      downward=dy / jnp.sqrt(length * length + 0.25 * radius * radius),
      sagged=jnp.sqrt(dx * dx + below * below + 1e-12) - disc,
  )


def burn_through(
    canvas: Canvas, p: Parameters, picture: jax.Array
) -> jax.Array:
  """Draws a burnt hole: folded melt below, bright rim, gray inside."""
  hole = hole_outline(canvas, p)
  present = jnp.minimum(p['hole_radius'] / 0.02, 1.0)
  picture = _folds(canvas, p, hole, picture, present)
  picture = _rim(canvas, p, hole, picture, present)
  dx = (canvas.x - weld_canvas.bead_x(p)) / jnp.maximum(p['hole_radius'], 0.02)
  inner = p['hole_brightness'] * (
      1.0
      + p['hole_gradient'] * dx
      - 0.25 * hole.downward
      + 0.15 * canvas.broad
  )
  edge_shadow = jnp.exp(jnp.minimum(hole.distance, 0.0) / 0.02)
  inner = inner * (1.0 - 0.4 * edge_shadow)
  opening = textures.soft_step(-hole.distance, 0.010 + canvas.pixel)
  return picture + present * opening * (inner - picture)


def _folds(canvas, p, hole, picture, present):
  """Draws the crescents of melt that sagged below the hole."""
  inside = textures.soft_step(-hole.sagged, 0.012 + canvas.pixel)
  # From 0 at the hole to 1 at the end: the folds meet at the hole's sides.
  beyond = jnp.maximum(hole.distance, 0.0)
  along = beyond / (beyond + jnp.maximum(-hole.sagged, 0.0) + 0.004)
  count = p['fold_count'] * along * along + 0.3 * canvas.broad
  wave = jnp.sin(2.0 * jnp.pi * count + 0.5 * canvas.ragged) + (
      0.5 * jnp.sin(4.4 * jnp.pi * count)
  )
  # They are too close together to be told apart beside the hole.
  sagging = textures.soft_step(hole.downward, 1.2)
  wave *= textures.soft_step(along - 0.3, 0.5) * sagging
  bright = 1.1 - (0.3 + 0.6 * sagging) * along + 0.26 * wave
  bright *= p['bead_brightness']
  bright *= 1.0 + 0.03 * canvas.grain + 0.10 * canvas.broad
  bright *= 1.0 - 0.5 * sagging * textures.bump(hole.sagged, 0.012)
  return picture + present * inside * (jnp.maximum(bright, 0.04) - picture)


def _rim(canvas, p, hole, picture, present):
  """Draws the glowing edge of the hole, brightest towards the arc."""
  thickness = p['rim_width'] * (1.0 - 0.2 * hole.downward)
  thickness *= 1.0 + 0.4 * canvas.broad + 0.2 * canvas.ragged
  thickness = jnp.maximum(thickness, 0.008)
  middle = (2.0 * hole.distance - thickness) / thickness
  rim = textures.soft_step(1.0 - jnp.abs(middle), 0.8 + canvas.pixel / 0.01)
  rim *= 1.0 - p['rim_gaps'] * textures.soft_step(canvas.ragged - 0.4, 0.6)
  far = textures.soft_step(hole.downward + 0.3, 1.6)
  glow = p['rim_brightness'] * (1.0 - 0.4 * far)
  glow = glow * (1.0 - 0.25 * jnp.clip(middle, -1.0, 1.0) + 0.1 * canvas.broad)
  return picture + present * rim * (glow - picture)


def nozzle(canvas: Canvas, p: Parameters, picture: jax.Array) -> jax.Array:
  """Draws the dark gas nozzle with its faint edges."""
  depth = p['nozzle_depth']
  dx = jnp.abs(canvas.x - p['nozzle_x']) / p['nozzle_half_width']
  dy = jnp.maximum(canvas.y - p['nozzle_bottom'] + depth, 0.0) / depth
  radius = (dx**2.4 + dy**2.4 + 1e-12) ** (1.0 / 2.4)
  inside = textures.soft_step((1.0 - radius) * depth, 0.006 + canvas.pixel)
  body = 0.02 + p['nozzle_sheen'] * textures.bump(radius - 0.985, 0.012)
  # The chamfer at the top of the nozzle catches a little light.
  arc = canvas.y - p['nozzle_bottom'] + depth + 0.12 + 0.15 * dx * dx
  body += 1.6 * p['nozzle_sheen'] * textures.bump(arc, 0.03)
  from_axis = canvas.x - weld_canvas.electrode_x(p)
  column = textures.bump(from_axis, p['electrode_half_width'])
  up = jnp.exp((canvas.y - p['nozzle_bottom']) / 0.12)
  body += 0.10 * p['halo'] * column * jnp.minimum(up, 1.0)
  return picture + inside * (body - picture)


def electrode(canvas: Canvas, p: Parameters, picture: jax.Array) -> jax.Array:
  """Draws the glowing electrode, its molten ball and the glare around it."""
  half_width = p['electrode_half_width']
  ball = half_width * p['ball_scale']
  centre = weld_canvas.electrode_tip(p) - ball
  dx = canvas.x - weld_canvas.electrode_x(p)
  dy = canvas.y - centre
  radius = jnp.sqrt(dx * dx + dy * dy + 1e-12)
  start = p['nozzle_bottom'] - 0.008 * textures.bump(dx, half_width)
  shaft = jnp.maximum(jnp.abs(dx) - half_width, dy)
  distance = jnp.maximum(jnp.minimum(radius - ball, shaft), start - canvas.y)
  beside = jnp.clip(canvas.y, p['nozzle_bottom'], centre) - canvas.y
  # Rounded at its top, so that the glare shows no outline on the nozzle.
  around = jnp.sqrt(dx * dx + beside * beside + ball * ball) - 1.3 * ball
  glare = p['halo'] * jnp.exp(-around / p['halo_radius'])
  picture = picture + glare * (1.0 - 0.5 * picture)
  inside = textures.soft_step(-distance, 0.008 + canvas.pixel)
  lower = textures.soft_step(dy - 0.1 * ball, 1.6 * ball)
  edge = jnp.exp(jnp.minimum(radius - ball, 0.0) / (0.18 * ball))
  bright = 0.82 + 0.16 * lower * edge - 0.12 * textures.soft_step(
      -dy - 0.4 * ball, 1.2 * ball
  )
  collar = dy + 0.3 * ball - 0.2 * p['collar_slant'] * dx
  bright += 0.08 * textures.bump(collar, 0.005 + 0.5 * canvas.pixel)
  bright -= 0.08 * textures.bump(collar - 0.02, 0.012)
  bright = p['electrode_brightness'] * bright
  return picture + inside * (bright - picture)


def smoke(canvas: Canvas, p: Parameters, picture: jax.Array) -> jax.Array:
  """Adds fume lit by the arc, and a faint veil over the whole frame."""
  dx = canvas.x - weld_canvas.electrode_x(p) - p['smoke_x']
  dy = canvas.y - weld_canvas.electrode_tip(p) - 0.08
  plume = textures.bump(dx, 0.16) * textures.bump(dy, 0.2)
  own = textures.fractal_field(canvas.layer_key(2), canvas.size, (4,), (1.0,))
  plume = plume * jnp.clip(1.0 + 0.5 * own, 0.2, 2.0)
  veil = p['smoke'] * plume + p['veil']
  return picture + veil * (1.0 - picture)
