"""Activation maps: where a layer says what speaks for a class.

With the activations A (h, w, k) of a layer and g = d score / d A,

    grad_cam      Σ_k w[k] A[..., k],  w[k] = mean over h, w of g[..., k]
    grad_cam_sum  the same with the sum for the mean: h w times as large. The
                  steel study that this project started from has it so.
    grad_cam++    Σ_k w[k] A[..., k],  w[k] = Σ α relu(g) over h, w,
                  α = g² / (2 g² + g³ Σ A over h, w), 0 where that is 0 / 0
    hires_cam     Σ_k g[..., k] A[..., k]
    layer_cam     Σ_k relu(g[..., k]) A[..., k]

and relu of it unless it is left out. Maps are enlarged to the image linearly
between the centres of pixels.

References:
  Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks via
  Gradient-based Localization, 2017, equations 1 and 2.
  Chattopadhyay et al., Grad-CAM++, 2018, equation 19.
  Draelos, Carin, Use HiResCAM instead of Grad-CAM, 2020.
  Jiang et al., LayerCAM, 2021, equations 4 to 6.
"""

from collections.abc import Sequence
import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np

from jaxsens import classifiers
from jaxsens.attribution import layer_scores
from jaxsens.attribution import maps
from jaxsens.attribution import rectifiers
from jaxsens.attribution import taps

KINDS = ('grad_cam', 'grad_cam_sum', 'grad_cam++', 'hires_cam', 'layer_cam')

# Classes whose gradients are taken at once: more would fill the memory.
_CLASSES_AT_ONCE = 16


@dataclasses.dataclass(frozen=True, eq=False)
class ActivationMap(maps.Attribution):
  """Attribution by a layer; `values` (B, H, W, 1) are the enlarged maps.

  Attributes:
    layer: its name.
    layer_maps: (B, h, w) maps as the layer has them.
  """

  layer: str
  layer_maps: np.ndarray


def layer_cams(
  classifier: classifiers.Classifier,
  images: ArrayLike,
  targets: ArrayLike | None = None,
  *,
  layers: Sequence[str],
  kind: str = 'grad_cam',
  relu: bool = True,
  quantity: str = 'logit',
  chunk_size: int = 8,
) -> dict[str, ActivationMap]:
  """Returns the maps of several layers by one forward and backward pass.

  Args:
    classifier: a Flax network.
    images: (B, H, W, C).
    targets: see `maps.as_targets`.
    layers: names, see `taps.layer_names`.
    kind: one of `KINDS`.
    relu: leave what speaks against the class out.
    quantity: see `maps.score`.
    chunk_size: images at a time.

  Raises:
    TypeError: the classifier is not a Flax network.
    ValueError: an unknown layer or kind, or a layer without a map.
  """
  _check_kind(kind)
  if isinstance(layers, str):
    raise ValueError(f'layers must be a sequence of names, got {layers!r}.')
  layers = tuple(layer_scores.with_map(classifier, name) for name in layers)
  images = maps.as_images(classifier, images)
  targets = maps.as_targets(classifier, images, targets, chunk_size=chunk_size)
  scores, found = maps.run(
    _maps, [images, targets], chunk_size, classifier, layers=layers, kind=kind,
    relu=relu, quantity=quantity,
  )
  at_black = maps.baseline_scores(
    classifier, images, targets, None, quantity, chunk_size
  )
  once = np.ones(len(images), np.int64)
  return {
    name: ActivationMap(
      method=f'{kind} of {name}',
      values=enlarged(found[name], classifier.image_size)[..., None],
      targets=targets, scores=scores.astype(np.float64),
      baseline_scores=at_black, num_gradients=once,
      num_forwards=once, layer=name, layer_maps=found[name],
    )
    for name in layers
  }


def activation_map(
  classifier: classifiers.Classifier,
  images: ArrayLike,
  targets: ArrayLike | None = None,
  *,
  layer: str | None = None,
  kind: str = 'grad_cam',
  relu: bool = True,
  quantity: str = 'logit',
  chunk_size: int = 8,
) -> ActivationMap:
  """Returns the map of one layer, see `layer_cams`.

  Args:
    classifier: a Flax network.
    images: (B, H, W, C).
    targets: see `maps.as_targets`.
    layer: its name; None takes the last one with a map.
    kind: one of `KINDS`.
    relu: leave what speaks against the class out.
    quantity: see `maps.score`.
    chunk_size: images at a time.
  """
  if layer is None:
    layer = layer_scores.with_map(classifier, None)
  return layer_cams(
    classifier, images, targets, layers=(layer,), kind=kind, relu=relu,
    quantity=quantity, chunk_size=chunk_size,
  )[layer]


def layer_maps(
  classifier: classifiers.Classifier,
  images: ArrayLike,
  targets: ArrayLike | None = None,
  **options,
) -> np.ndarray:
  """Returns the map as the layer has it, (B, h, w); see `activation_map`."""
  return activation_map(classifier, images, targets, **options).layer_maps


def grad_cam_of_classes(
  classifier: classifiers.Classifier,
  images: ArrayLike,
  layer: str | None = None,
  *,
  classes: Sequence[int] | None = None,
  kind: str = 'grad_cam',
  relu: bool = True,
  quantity: str = 'logit',
  chunk_size: int = 8,
) -> np.ndarray:
  """Returns the maps of all classes on one scale, (B, K, H, W) float32.

  One forward pass serves all classes; only the backward pass from the layer's
  end on is taken once per class.

  Args:
    classifier: a Flax network.
    images: (B, H, W, C).
    layer: its name; None takes the last one with a map.
    classes: the K classes; all if None.
    kind: one of `KINDS`.
    relu: leave what speaks against the class out.
    quantity: see `maps.score`; the class takes the place of the true one.
    chunk_size: images at a time.

  Raises:
    TypeError: the classifier is not a Flax network.
    ValueError: an unknown layer, class or kind, or a layer without a map.
  """
  _check_kind(kind)
  layer = layer_scores.with_map(classifier, layer)
  images = maps.as_images(classifier, images)
  number = len(classifier.class_names)
  classes = np.asarray(range(number) if classes is None else classes)
  if classes.ndim != 1 or not np.issubdtype(classes.dtype, np.integer) or (
    not len(classes) or classes.min() < 0 or classes.max() >= number
  ):
    raise ValueError(
      f'classes must be a sequence of classes from 0 to {number - 1}, got '
      f'{classes.tolist()}.'
    )
  found = maps.run(
    functools.partial(_maps_of_classes, classifier, jnp.asarray(classes)),
    [images], chunk_size, layer=layer, kind=kind, relu=relu, quantity=quantity,
  )
  return enlarged(found, classifier.image_size)


def guided_grad_cam(
  classifier: classifiers.Classifier,
  images: ArrayLike,
  targets: ArrayLike | None = None,
  *,
  layer: str | None = None,
  quantity: str = 'logit',
  chunk_size: int = 8,
) -> maps.Attribution:
  """Returns guided backpropagation times the enlarged Grad-CAM.

  Args:
    classifier: a Flax network.
    images: (B, H, W, C).
    targets: see `maps.as_targets`.
    layer: of Grad-CAM; None takes the last one with a map.
    quantity: see `maps.score`.
    chunk_size: images at a time.

  Returns:
    Values (B, H, W, C).
  """
  where = activation_map(
    classifier, images, targets, layer=layer, quantity=quantity,
    chunk_size=chunk_size,
  )
  what = rectifiers.guided_backpropagation(
    classifier, images, where.targets, quantity=quantity, chunk_size=chunk_size
  )
  return maps.Attribution(
    method=f'guided grad_cam of {where.layer}',
    values=what.values * where.values, targets=where.targets,
    scores=where.scores, baseline_scores=where.baseline_scores,
    num_gradients=where.num_gradients + what.num_gradients,
    num_forwards=where.num_forwards + what.num_forwards,
  )


@functools.partial(
  jax.jit, static_argnames=('layers', 'kind', 'relu', 'quantity')
)
def _maps(classifier, images, targets, *, layers, kind, relu, quantity):
  def some(images, targets):
    scores, activations, gradients = layer_scores.gradients(
      classifier, images, targets, layers, quantity
    )
    return scores, {
      name: _map(activations[name], gradients[name], kind, relu)
      for name in layers
    }

  return maps.in_slices(classifier, some, images, targets)


@functools.partial(
  jax.jit, static_argnames=('layer', 'kind', 'relu', 'quantity')
)
def _maps_of_classes(classifier, classes, images, *, layer, kind, relu,
                     quantity):
  """Returns maps (B, K, h, w): one forward pass, a cotangent per class."""
  from_layer = lambda eps: _of_layer(classifier, images, layer, eps)
  eps = layer_scores.zeros(classifier, images, [layer])
  logits, backward, activation = jax.vjp(from_layer, eps, has_aux=True)

  def one(label):
    targets = jnp.full(len(images), label)
    total = lambda logits: jnp.sum(
      maps.read(classifier, logits, targets, quantity)
    )
    (found,) = backward(jax.grad(total)(logits))
    return _map(activation, found[layer], kind, relu)

  if len(classes) <= _CLASSES_AT_ONCE:
    return jax.vmap(one, out_axes=1)(classes)
  found = jax.lax.map(one, classes, batch_size=_CLASSES_AT_ONCE)
  return jnp.moveaxis(found, 0, 1)


def _of_layer(classifier, images, layer, eps):
  logits, activations = taps.apply(
    classifier, images, [layer], layer_scores.shifted(eps, {})
  )
  return logits, activations[layer]


def _map(activation, gradient, kind, relu):
  """Returns the map (B, h, w) of activations and gradients (B, h, w, k)."""
  places = (1, 2)
  if kind == 'hires_cam':
    weights = gradient
  elif kind == 'layer_cam':
    weights = jax.nn.relu(gradient)
  elif kind == 'grad_cam++':
    sums = jnp.sum(activation, places, keepdims=True)
    below = 2 * gradient**2 + sums * gradient**3
    safe = jnp.where(below == 0, 1, below)
    alpha = jnp.where(below == 0, 0, gradient**2 / safe)
    weights = jnp.sum(
      alpha * jax.nn.relu(gradient), places, keepdims=True
    )
  elif kind == 'grad_cam_sum':
    weights = jnp.sum(gradient, places, keepdims=True)
  else:
    weights = jnp.mean(gradient, places, keepdims=True)
  found = jnp.sum(weights * activation, -1)
  return jax.nn.relu(found) if relu else found


@functools.partial(jax.jit, static_argnames='size')
def _resized(found, *, size):
  shape = (*found.shape[:-2], *size)
  return jax.image.resize(found, shape, 'bilinear', antialias=False)


def enlarged(found: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Returns maps (..., h, w) at (..., H, W), size = (H, W)."""
  return np.asarray(_resized(found, size=tuple(size)))


def _check_kind(kind: str) -> None:
  if kind not in KINDS:
    raise ValueError(f'kind must be one of {KINDS}, got {kind!r}.')
