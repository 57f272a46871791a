"""Scores as functions of what a layer says, and which layers have a map."""

from collections.abc import Mapping
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxsens import classifiers
from jaxsens.attribution import maps
from jaxsens.attribution import taps


def gradients(
  classifier: classifiers.Classifier,
  images: jax.Array,
  targets: jax.Array,
  names: Sequence[str],
  quantity: str,
  edit: Mapping[str, taps.Edit] | None = None,
) -> tuple[jax.Array, dict[str, jax.Array], dict[str, jax.Array]]:
  """Returns scores, activations, and gradients of the scores by these.

  Args:
    classifier: a Flax network.
    images: (B, H, W, C).
    targets: (B,) classes.
    names: layers.
    quantity: see `maps.score`.
    edit: see `taps.apply`; the gradient is that by the edited activation.

  Returns:
    Scores (B,), activations and gradients (B, *layer shape) by name. All
    gradients are of one backward pass.
  """
  edit = edit or {}

  def total(eps):
    logits, activations = taps.apply(
      classifier, images, names, shifted(eps, edit)
    )
    scores = maps.read(classifier, logits, targets, quantity)
    return jnp.sum(scores), (scores, activations)

  eps = zeros(classifier, images, names)
  found, (scores, activations) = jax.grad(total, has_aux=True)(eps)
  return scores, activations, found


def shifted(
  eps: Mapping[str, jax.Array], edit: Mapping[str, taps.Edit]
) -> dict[str, taps.Edit]:
  """Returns the edits with eps added to what they give."""
  def one(name):
    before = edit.get(name, lambda a: a)
    return lambda a: before(a) + eps[name].astype(a.dtype)

  return dict(edit) | {name: one(name) for name in eps}


def zeros(
  classifier: classifiers.Classifier, images: jax.Array, names: Sequence[str]
) -> dict[str, jax.Array]:
  """Returns zeros (B, *layer shape) by name."""
  shapes = taps.layer_shapes(classifier)
  return {
    name: jnp.zeros((len(images), *shapes[name]), images.dtype)
    for name in names
  }


def layers_with_maps(classifier: classifiers.Classifier) -> tuple[str, ...]:
  """Returns the layers that say something of more than one place, in order.

  Their activations are (B, h, w, c) with h w > 1.

  Raises:
    TypeError: the classifier is not a Flax network.
  """
  return _with_maps(taps.layer_shapes(classifier))


def with_map(
  classifier: classifiers.Classifier, layer: str | None
) -> str:
  """Returns the name of a layer with a map; of the last one where None.

  Raises:
    TypeError: the classifier is not a Flax network.
    ValueError: there is no such layer, or it has no map.
  """
  shapes = taps.layer_shapes(classifier)
  known = _with_maps(shapes)
  if layer is None:
    if not known:
      raise ValueError('the network has no layer with a map of places.')
    return known[-1]
  taps.check_known(shapes, [layer])
  if layer not in known:
    raise ValueError(
      f'layer {layer!r} has no map of places: expected (height, width, '
      f'channels) with more than one place, got {shapes[layer]}; layers with a '
      f'map are {", ".join(known[-6:])} ({len(known)} in all).'
    )
  return layer


def _with_maps(shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, ...]:
  return tuple(
    name for name, shape in shapes.items()
    if len(shape) == 3 and shape[0] * shape[1] > 1
  )
