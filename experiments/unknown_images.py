"""Pictures of things that a classifier was not trained on."""

from collections.abc import Sequence
import dataclasses
import functools

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np

from jaxsens.data import image_sets
from jaxsens.data import sources
from jaxsens.data import weld
from jaxsens.data.synthetic import textures
from jaxsens.data.synthetic import weld as synthetic_weld


def load(
  key: jax.Array,
  config: ConfigDict,
  held_out: np.ndarray | None,
  size: tuple[int, int],
  channels: int,
) -> dict[str, np.ndarray]:
  """Returns the sets of unknown images by name, (M, *size, channels) each.

  Args:
    key: of procedural images and of choices.
    config: `comparison` of a config: `out_sets`, `num_out`, `weld_root`.
    held_out: images of classes that were kept from the training, or None.
    size: height and width in pixels.
    channels: 1 for gray, 3 for RGB; gray ones are repeated.

  Raises:
    ValueError: an unknown name, or no held-out classes where they are asked
      for.
  """
  sets = {}
  for i, name in enumerate(config.out_sets):
    key_set = jax.random.fold_in(key, i)
    if name == 'weld':
      images = _weld(key_set, config.weld_root, config.num_out, size)
    elif name == 'textures':
      images = draw_textures(key_set, config.num_out, size, channels)
    elif name == 'held_out':
      if held_out is None or not len(held_out):
        raise ValueError(
          "comparison.out_sets has 'held_out', but held_out_classes is empty."
        )
      order = jax.random.permutation(key_set, len(held_out))
      images = image_sets.resize_all(
        held_out[np.sort(order[: config.num_out])], size
      )
    else:
      raise ValueError(
        "comparison.out_sets must be among 'weld', 'textures' and 'held_out', "
        f'got {name!r}.'
      )
    sets[name] = np.repeat(images, channels // images.shape[-1], axis=-1)
  return sets


def describe(name: str, config: ConfigDict) -> str:
  """Returns what a set of unknown images is.

  Args:
    name: of the set.
    config: `comparison` of a config.
  """
  root = weld.find_root(config.weld_root)
  return {
    'weld': (
      'procedural TIG frames' if root is None else f'TIG frames in {root}'
    ),
    'textures': 'procedural textures',
    'held_out': f'images of {", ".join(config.held_out_classes)}',
  }[name]


def without_classes(
  splits: image_sets.Splits, names: Sequence[str]
) -> tuple[image_sets.Splits, np.ndarray | None]:
  """Returns the splits of the other classes, and all images of these.

  Args:
    splits: training, validation and test set.
    names: classes to take out; the others are numbered anew, in their order.

  Raises:
    ValueError: the data have no such class, or fewer than two others.
  """
  if not names:
    return splits, None
  known = splits.train.class_names
  unknown = sorted(set(names) - set(known))
  if unknown or len(set(names)) > len(known) - 2:
    raise ValueError(
      f'comparison.held_out_classes must leave two of {known}, got '
      f'{tuple(names)}.'
    )
  kept = np.array([k for k, name in enumerate(known) if name not in names])
  parts, left = [], []
  for part in (splits.train, splits.validation, splits.test):
    inside = np.isin(part.labels, kept)
    one = part.take(np.flatnonzero(inside))
    parts.append(dataclasses.replace(
      one, labels=np.searchsorted(kept, one.labels).astype(part.labels.dtype),
      class_names=tuple(known[k] for k in kept),
    ))
    if not inside.all():
      left.append(np.stack(list(part.take(np.flatnonzero(~inside)).images)))
  return image_sets.Splits(*parts), np.concatenate(left)


def draw_textures(
  key: jax.Array, number: int, size: tuple[int, int], channels: int
) -> np.ndarray:
  """Returns pictures of nothing: clouds, grain, stripes, brush marks in turn.

  Mean and contrast differ from picture to picture, about as those of surfaces
  under a camera do; channels have gains of their own.

  Args:
    key: of all of them.
    number: N.
    size: height and width in pixels.
    channels: C.

  Returns:
    (N, *size, C) float32 in [0, 1].
  """
  kinds = (_clouds, _grain, _stripes, _brush)
  drawn = []
  for k, kind in enumerate(kinds):
    keys = jax.random.split(jax.random.fold_in(key, k), -(-number // 4))
    drawn.append(_draw_all(keys, kind, tuple(size), channels))
  in_turn = np.stack([np.asarray(x) for x in drawn], axis=1)
  return in_turn.reshape(-1, *size, channels)[:number]


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _draw_all(keys, kind, size, channels):
  return jax.vmap(lambda key: _toned(key, kind, size, channels))(keys)


def _toned(key, kind, size, channels):
  key_kind, key_tone = jax.random.split(key)
  field = kind(key_kind, size)
  field = (field - field.mean()) / jnp.maximum(field.std(), 1e-6)
  tone = jax.random.uniform(key_tone, (2 + channels,))
  mean, contrast = 0.3 + 0.4 * tone[0], 0.05 + 0.15 * tone[1]
  gains = 1 if channels == 1 else 0.7 + 0.6 * tone[2:]
  picture = (mean + contrast * field)[..., None] * gains
  return jnp.clip(picture, 0, 1).astype(jnp.float32)


def _clouds(key, size):
  return textures.fractal_field(key, size, (2, 4, 8, 16), (1, 0.5, 0.25, 0.12))


def _grain(key, size):
  return textures.fractal_field(key, size, (16, 32), (1, 0.7))


def _turned(key, size):
  """Coordinates in widths of the picture, turned at random."""
  y, x = jnp.meshgrid(
    jnp.arange(size[0]) / size[1], jnp.arange(size[1]) / size[1], indexing='ij'
  )
  angle = jax.random.uniform(key, (), maxval=jnp.pi)
  return (
    x * jnp.cos(angle) + y * jnp.sin(angle),
    y * jnp.cos(angle) - x * jnp.sin(angle),
  )


def _stripes(key, size):
  key_turn, key_wave = jax.random.split(key)
  along, _ = _turned(key_turn, size)
  frequency, phase = jax.random.uniform(key_wave, (2,))
  return jnp.sin(2 * jnp.pi * ((3 + 12 * frequency) * along + phase))


def _brush(key, size):
  key_turn, key_marks = jax.random.split(key)
  along, across = _turned(key_turn, size)
  return textures.streaks(
    key_marks, along, across, 1 / size[1], width=0.02
  )


def _weld(key, root, number, size):
  """Frames of TIG welding: real ones where there are any, or procedural."""
  key_draw, key_choice = jax.random.split(key)
  classes = len(weld.CLASS_NAMES)
  if weld.find_root(root) is None:
    chosen = weld.procedural_set(
      key_draw, synthetic_weld.frame_size(128), -(-number // classes),
      'unknown', 'procedural TIG frames',
    ).images
  else:
    splits = sources.load(
      'weld', key_draw, root=root or None, size_of_synthetic=(78, 64),
      num_synthetic_per_class=2, validation_fraction=0.2,
      combine_synthetic='never',
    )
    rest = image_sets.JoinedImages(splits.validation.images, splits.test.images)
    chosen = image_sets.JoinedImages(splits.train.images, rest)
    order = jax.random.permutation(key_choice, len(chosen))
    chosen = chosen.take(np.sort(order[:number]))
  return image_sets.resize_all(chosen, size)[:number]
