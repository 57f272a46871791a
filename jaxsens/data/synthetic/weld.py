"""Procedural gray frames of TIG welding of aluminium, in six classes.

A frame is a pure function of explicit physical parameters and of the key of
its textures. The class acts only through the ranges that the parameters are
drawn from, so each picture comes with the whole truth about itself. Geometry
follows a camera that travels with the torch: the nozzle at the top, the
electrode below it, the pool and the solidified bead running downwards.

Lengths are in widths of the frame, brightnesses in [0, 1], angles in radians.
"""

from collections.abc import Mapping
import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np

from jaxsens.data.synthetic import weld_canvas
from jaxsens.data.synthetic import weld_layers

CLASS_NAMES = (
    'good weld',
    'burn through',
    'contamination',
    'lack of fusion',
    'misalignment',
    'lack of penetration',
)

# Height over width of the frames of the public TIG aluminium 5083 set.
ASPECT = 974 / 800

# Range of every parameter where the class does not change it.
PARAMETERS = {
    # camera
    'exposure': (0.80, 1.22),
    'gamma': (0.88, 1.15),
    'noise': (0.001, 0.012),
    'veil': (0.0, 0.05),
    # torch
    'nozzle_x': (-0.07, 0.08),
    'nozzle_bottom': (0.06, 0.40),
    'nozzle_half_width': (0.39, 0.46),
    'nozzle_depth': (0.18, 0.30),
    'nozzle_sheen': (0.01, 0.07),
    'electrode_offset': (-0.03, 0.03),
    'electrode_half_width': (0.055, 0.070),
    'electrode_length': (0.11, 0.17),
    'electrode_brightness': (0.90, 1.05),
    'ball_scale': (0.98, 1.10),
    'collar_slant': (-1.0, 1.0),
    'halo': (0.10, 0.42),
    'halo_radius': (0.03, 0.10),
    'smoke': (0.0, 0.10),
    'smoke_x': (-0.12, 0.12),
    # plate
    'plate_brightness': (0.22, 0.36),
    'light_offset': (-0.10, 0.10),
    'light_spread': (0.28, 0.50),
    'brush_angle': (-1.8, 1.8),
    'brush_curve': (-1.5, 1.5),
    'brush_waviness': (0.0, 0.4),
    'brush_contrast': (0.02, 0.12),
    'spatter': (0.001, 0.008),
    'cleaning_width': (0.05, 0.14),
    'cleaning_flare': (0.0, 0.25),
    'cleaning_softness': (0.01, 0.05),
    'cleaning_contrast': (0.05, 0.45),
    'border_width': (0.010, 0.030),
    'border_contrast': (0.15, 0.65),
    'edge_line': (0.0, 0.6),
    # joint of the two plates
    'joint_offset': (-0.015, 0.015),
    'joint_width': (0.004, 0.009),
    'joint_contrast': (0.0, 0.35),
    'joint_step': (-0.06, 0.06),
    # bead
    'arc_gap': (0.02, 0.15),
    'bead_offset': (-0.03, 0.03),
    'bead_drift': (-0.05, 0.05),
    'bead_half_width': (0.115, 0.210),
    'bead_taper': (-0.10, 0.12),
    'bead_brightness': (0.30, 0.42),
    'bead_shade': (0.05, 0.40),
    'side_light': (-0.12, 0.12),
    'head_squareness': (2.0, 3.4),
    'head_length': (0.6, 1.2),
    'roughness': (0.3, 1.0),
    'irregularity': (0.0, 0.15),
    'ripple_pitch': (0.010, 0.030),
    'ripple_contrast': (0.005, 0.045),
    'ripple_bow': (0.2, 1.0),
    'lumps': (0.0, 0.03),
    'lump_pitch': (0.09, 0.16),
    'strand_offset': (0.0, 0.0),
    'strand_lag': (-0.03, 0.03),
    'phase': (0.0, 6.2832),
    # pool
    'pool_start': (0.06, 0.15),
    'pool_length': (0.14, 0.32),
    'pool_width': (0.90, 1.0),
    'pool_offset': (-0.03, 0.03),
    'pool_bow': (-0.3, 0.5),
    'pool_slant': (-0.15, 0.15),
    'pool_fade': (0.08, 0.30),
    'pool_darkness': (0.55, 0.95),
    'pool_brightness': (0.55, 0.85),
    # contamination
    'soot': (0.0, 0.04),
    'soot_x': (-0.7, 0.7),
    'soot_y': (0.10, 0.28),
    'soot_radius': (0.05, 0.10),
    'soot_brightness': (0.07, 0.20),
    # burnt hole; a radius of zero is no hole
    'hole_radius': (0.0, 0.0),
    'hole_gap': (-0.04, 0.07),
    'hole_x': (-0.25, 0.25),
    'hole_aspect': (0.9, 1.5),
    'hole_skew': (-0.35, 0.35),
    'hole_brightness': (0.22, 0.48),
    'hole_gradient': (-0.25, 0.25),
    'rim_width': (0.015, 0.055),
    'rim_brightness': (0.45, 0.92),
    'rim_gaps': (0.0, 0.8),
    'fold_length': (0.10, 0.30),
    'fold_count': (1.5, 4.0),
}

# What each class changes. Neighbouring classes overlap at the ends.
CLASS_PARAMETERS = {
    'good weld': {},
    'burn through': {
        'hole_radius': (0.08, 0.25),
        'pool_brightness': (0.30, 0.60),
        'irregularity': (0.2, 1.0),
        'bead_half_width': (0.13, 0.22),
        'pool_length': (0.05, 0.20),
    },
    'contamination': {
        'soot': (0.42, 1.0),
        'soot_radius': (0.06, 0.12),
        'pool_bow': (0.2, 1.0),
        'irregularity': (0.25, 1.0),
        'bead_offset': (-0.06, 0.06),
        'smoke': (0.05, 0.42),
        'pool_width': (0.45, 1.0),
        'pool_offset': (-0.4, 0.4),
        'pool_length': (0.08, 0.26),
        'pool_fade': (0.03, 0.16),
        'pool_brightness': (0.36, 0.80),
        'pool_slant': (-0.6, 0.6),
        'roughness': (0.6, 1.6),
        'arc_gap': (0.03, 0.20),
        'halo_radius': (0.04, 0.14),
    },
    'lack of fusion': {
        'strand_offset': (1.0, 1.25),
        'bead_half_width': (0.045, 0.080),
        'lumps': (0.03, 0.40),
        'joint_contrast': (0.55, 0.95),
        'joint_width': (0.007, 0.016),
        'pool_width': (0.30, 0.60),
        'pool_start': (0.05, 0.12),
        'pool_length': (0.05, 0.13),
        'pool_fade': (0.02, 0.06),
        'pool_brightness': (0.45, 0.85),
        'pool_bow': (0.5, 1.0),
        'irregularity': (0.0, 0.3),
        'cleaning_width': (0.06, 0.18),
        'head_length': (0.6, 1.4),
    },
    'misalignment': {
        # The side of the joint is drawn apart, see sample_parameters.
        'joint_offset': (0.10, 0.26),
        'joint_contrast': (0.55, 0.95),
        'joint_width': (0.012, 0.024),
        'joint_step': (-0.30, 0.30),
        'bead_half_width': (0.085, 0.170),
        'bead_offset': (-0.05, 0.05),
        'pool_width': (0.60, 1.0),
        'pool_offset': (-0.25, 0.25),
        'pool_slant': (-0.35, 0.35),
        'pool_length': (0.10, 0.28),
    },
    'lack of penetration': {
        'bead_half_width': (0.065, 0.125),
        'pool_width': (0.30, 0.55),
        'pool_start': (0.05, 0.10),
        'pool_length': (0.07, 0.14),
        'pool_bow': (0.7, 1.0),
        'pool_fade': (0.015, 0.05),
        'pool_brightness': (0.60, 0.95),
        'pool_darkness': (0.40, 0.75),
        'ripple_pitch': (0.008, 0.018),
        'ripple_contrast': (0.02, 0.08),
        'head_squareness': (2.0, 2.6),
        'head_length': (0.8, 1.2),
        'bead_shade': (0.2, 0.5),
        'cleaning_flare': (0.1, 0.4),
    },
}

_RENDER_CHUNK = 16


def frame_size(width: int) -> tuple[int, int]:
  """Returns height and width in pixels with the aspect of real frames."""
  return round(width * ASPECT), width


def parameter_bounds() -> tuple[np.ndarray, np.ndarray]:
  """Returns lower and upper bounds, each (num_classes, num_parameters)."""
  bounds = np.array([
      [CLASS_PARAMETERS[name].get(key, PARAMETERS[key]) for key in PARAMETERS]
      for name in CLASS_NAMES
  ])
  return bounds[..., 0], bounds[..., 1]


def sample_parameters(
    key: jax.Array, num_images: int, labels: ArrayLike
) -> dict[str, np.ndarray]:
  """Draws the parameters of frames of given classes.

  Every parameter is uniform on its range for the class, independent of the
  others. The joint of a misaligned weld lies left or right with equal
  probability.

  Args:
    key: typed random key.
    num_images: number of frames N.
    labels: class of each frame, integers in [0, 6), shape (N,).

  Returns:
    A mapping of parameter name to float32 values (N,), and of 'noise_key' to
    uint32 (N, 2), the key of each frame's textures.

  Raises:
    ValueError: if `labels` has another shape or values out of range.
  """
  labels = np.asarray(labels)
  if labels.shape != (num_images,):
    raise ValueError(
        f'labels must have shape ({num_images},), got {labels.shape}.'
    )
  num_classes = len(CLASS_NAMES)
  if labels.size and (labels.min() < 0 or labels.max() >= num_classes):
    raise ValueError(
        f'labels must lie in [0, {num_classes}), got '
        f'{labels.min()}..{labels.max()}.'
    )
  key_values, key_side, key_noise = jax.random.split(key, 3)
  lower, upper = parameter_bounds()
  shape = (num_images, len(PARAMETERS))
  u = np.asarray(jax.random.uniform(key_values, shape, jnp.float32))
  values = lower[labels] + (upper - lower)[labels] * u
  parameters = {
      name: values[:, i].astype(np.float32) for i, name in enumerate(PARAMETERS)
  }
  side = np.asarray(jax.random.rademacher(key_side, (num_images,), jnp.float32))
  parameters['joint_offset'] = parameters['joint_offset'] * side
  noise_keys = jax.random.split(key_noise, num_images)
  parameters['noise_key'] = np.asarray(jax.random.key_data(noise_keys))
  return parameters


def render(
    parameters: Mapping[str, ArrayLike], size: tuple[int, int]
) -> jax.Array:
  """Draws one frame from its parameters.

  Args:
    parameters: scalars of one frame, see `PARAMETERS`, and 'noise_key' (2,).
    size: height and width in pixels; `frame_size` keeps the real aspect.

  Returns:
    The image, shape (height, width, 1), float32 in [0, 1].
  """
  p = {name: jnp.asarray(parameters[name], jnp.float32) for name in PARAMETERS}
  key = jax.random.wrap_key_data(jnp.asarray(parameters['noise_key']))
  key_canvas, key_noise = jax.random.split(key)
  canvas = weld_canvas.make_canvas(key_canvas, size)
  bead = weld_canvas.bead_outline(canvas, p)
  picture = weld_layers.plate(canvas, p)
  picture = weld_layers.joint(canvas, p, picture)
  picture = weld_layers.cleaned_zone(canvas, p, bead, picture)
  picture = weld_layers.bead_surface(canvas, p, bead, picture)
  picture = weld_layers.pool(canvas, p, bead, picture)
  picture = weld_layers.soot(canvas, p, bead, picture)
  picture = weld_layers.burn_through(canvas, p, picture)
  picture = weld_layers.smoke(canvas, p, picture)
  picture = weld_layers.nozzle(canvas, p, picture)
  picture = weld_layers.electrode(canvas, p, picture)
  picture = jnp.maximum(p['exposure'] * picture, 1e-4) ** p['gamma']
  picture += p['noise'] * jax.random.normal(key_noise, size, jnp.float32)
  return jnp.clip(picture, 0.0, 1.0)[..., None]


@functools.partial(jax.jit, static_argnames='size')
def _render_chunk(parameters, size):
  return jax.vmap(lambda one: render(one, size))(parameters)


def render_all(
    parameters: Mapping[str, ArrayLike], size: tuple[int, int]
) -> np.ndarray:
  """Draws many frames in small chunks of one compiled shape.

  Args:
    parameters: values of N frames, as `sample_parameters` returns them.
    size: height and width in pixels.

  Returns:
    The images, shape (N, height, width, 1), float32 in [0, 1].
  """
  names = (*PARAMETERS, 'noise_key')
  arrays = {name: np.asarray(parameters[name]) for name in names}
  num_images = len(arrays['noise_key'])
  images = np.empty((num_images, *size, 1), np.float32)
  for first in range(0, num_images, _RENDER_CHUNK):
    rows = np.arange(first, first + _RENDER_CHUNK)
    rows = np.minimum(rows, num_images - 1)
    chunk = _render_chunk({n: a[rows] for n, a in arrays.items()}, size)
    stop = min(first + _RENDER_CHUNK, num_images)
    images[first:stop] = np.asarray(chunk)[: stop - first]
  return images
