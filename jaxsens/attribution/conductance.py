"""Which units of a layer carry what the score gains from baseline to image.

With the activations A of a layer and the path x(t) = x0 + t (x - x0),

    conductance[j] = ∫ dF/dA[j] (x(t)) dA[j]/dt (x(t)) dt,  t from 0 to 1

and with the path in the layer, A(t) = A(x0) + t (A(x) - A(x0)),

    layer integrated gradients[j] = (A[j](x) - A[j](x0)) ∫ dF/dA[j] (A(t)) dt

Both sum to F(x) - F(x0) over a layer through which every way from the image to
the score leads; over a layer inside of a residual block only to the part that
goes through it. `completeness_error` tells either. A derivative by t is one
forward derivative, so that no difference of activations is taken: memory does
not depend on the number of steps, and the rule keeps its order.

References:
  Dhamdhere, Sundararajan, Yan, How Important Is a Neuron?, 2018, equation 3.
  Sundararajan, Taly, Yan, Axiomatic Attribution for Deep Networks, 2017.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np

from jaxsens import classifiers
from jaxsens.attribution import layer_scores
from jaxsens.attribution import maps
from jaxsens.attribution import taps


@dataclasses.dataclass(frozen=True, eq=False)
class LayerAttribution(maps.Attribution):
  """Attribution to the units of a layer; `values` are (B, *layer shape).

  Attributes:
    layer: its name.
  """

  layer: str

  @property
  def completeness_error(self) -> np.ndarray:
    """(B,) sum of the values minus what the score gains over the baseline."""
    total = self.values.reshape(len(self.values), -1).sum(-1, dtype=np.float64)
    return total - (self.scores - self.baseline_scores)

  @property
  def channel_sums(self) -> np.ndarray:
    """(B, c) sums over all places of the layer, float64."""
    number, channels = self.values.shape[0], self.values.shape[-1]
    places = self.values.reshape(number, -1, channels)
    return places.sum(1, dtype=np.float64)


def conductance(
  classifier: classifiers.Classifier,
  images: ArrayLike,
  targets: ArrayLike | None = None,
  *,
  layer: str,
  num_steps: int = 50,
  baselines: ArrayLike | None = None,
  quantity: str = 'logit',
  chunk_size: int = 8,
) -> LayerAttribution:
  """Returns the conductance of every unit of a layer.

  Args:
    classifier: a Flax network.
    images: (B, H, W, C).
    targets: see `maps.as_targets`.
    layer: its name, see `taps.layer_names`.
    num_steps: nodes of the Gauss-Legendre rule.
    baselines: where the path starts; black if None.
    quantity: see `maps.score`.
    chunk_size: images at a time.

  Returns:
    Values (B, *layer shape); `num_forwards` has one derivative along the path
    per step.

  Raises:
    TypeError: the classifier is not a Flax network.
    ValueError: there is no such layer, or no step.
  """
  return _integrated(
    'conductance', _conductance_step, 1, classifier, images, targets, layer,
    num_steps, baselines, quantity, chunk_size,
  )


def layer_integrated_gradients(
  classifier: classifiers.Classifier,
  images: ArrayLike,
  targets: ArrayLike | None = None,
  *,
  layer: str,
  num_steps: int = 50,
  baselines: ArrayLike | None = None,
  quantity: str = 'logit',
  chunk_size: int = 8,
) -> LayerAttribution:
  """Returns integrated gradients along the straight path in a layer.

  Where the layer is not all that the score depends on, the rest is that of the
  image.

  Args:
    classifier: a Flax network.
    images: (B, H, W, C).
    targets: see `maps.as_targets`.
    layer: its name, see `taps.layer_names`.
    num_steps: nodes of the Gauss-Legendre rule.
    baselines: what the layer says at the start of the path; black if None.
    quantity: see `maps.score`.
    chunk_size: images at a time.

  Returns:
    Values (B, *layer shape).

  Raises:
    TypeError: the classifier is not a Flax network.
    ValueError: there is no such layer, or no step.
  """
  return _integrated(
    'layer integrated gradients', _layer_step, 0, classifier, images, targets,
    layer, num_steps, baselines, quantity, chunk_size,
  )


def _integrated(
  method, step, forwards_per_step, classifier, images, targets, layer,
  num_steps, baselines, quantity, chunk_size,
):
  taps.check_layers(classifier, [layer])
  if num_steps < 1:
    raise ValueError(f'num_steps must be at least 1, got {num_steps}.')
  images = maps.as_images(classifier, images)
  targets = maps.as_targets(classifier, images, targets, chunk_size=chunk_size)
  baselines = maps.as_baselines(images, baselines)
  nodes, weights = np.polynomial.legendre.leggauss(num_steps)
  scores, at_baseline, values = maps.run(
    _sum_over_steps, [images, baselines, targets], chunk_size, step,
    (1 + nodes) / 2, weights / 2, classifier, layer=layer, quantity=quantity,
  )
  counts = np.ones(len(images), np.int64)
  return LayerAttribution(
    method=f'{method} of {layer}, {num_steps} steps', values=values,
    targets=targets, scores=scores.astype(np.float64),
    baseline_scores=at_baseline.astype(np.float64),
    num_gradients=num_steps * counts,
    num_forwards=(forwards_per_step * num_steps + 2) * counts, layer=layer,
  )


def _sum_over_steps(
  step, nodes, weights, classifier, images, baselines, targets, *, layer,
  quantity,
):
  """Returns scores, baseline scores and the integral, a step at a time."""
  images, baselines = jnp.asarray(images), jnp.asarray(baselines)
  first, start = _ends(
    classifier, baselines, targets, layer=layer, quantity=quantity
  )
  last, end = _ends(
    classifier, images, targets, layer=layer, quantity=quantity
  )
  total = jnp.zeros_like(end)
  for node, weight in zip(nodes, weights, strict=True):
    total = step(
      total, classifier, images, baselines, targets, start, end,
      np.asarray(node, images.dtype), np.asarray(weight, images.dtype),
      layer=layer, quantity=quantity,
    )
  return last, first, total


@functools.partial(jax.jit, static_argnames=('layer', 'quantity'))
def _ends(classifier, images, targets, *, layer, quantity):
  def some(images, targets):
    logits, activations = taps.apply(classifier, images, [layer])
    scores = maps.read(classifier, logits, targets, quantity)
    return scores, activations[layer]

  return maps.in_slices(classifier, some, images, targets)


@functools.partial(jax.jit, static_argnames=('layer', 'quantity'))
def _conductance_step(
  total, classifier, images, baselines, targets, start, end, node, weight, *,
  layer, quantity,
):
  del start, end

  def some(images, baselines, targets):
    way = images - baselines
    here = baselines + node * way
    activation = lambda x: taps.apply(classifier, x, [layer])[1][layer]
    _, slope = jax.jvp(activation, (here,), (way,))
    _, _, gradient = layer_scores.gradients(
      classifier, here, targets, [layer], quantity
    )
    return gradient[layer] * slope

  return total + weight * maps.in_slices(
    classifier, some, images, baselines, targets
  )


@functools.partial(jax.jit, static_argnames=('layer', 'quantity'))
def _layer_step(
  total, classifier, images, baselines, targets, start, end, node, weight, *,
  layer, quantity,
):
  del baselines

  def some(images, targets, start, end):
    way = end - start
    edit = {layer: lambda a: start + node * way}
    _, _, gradient = layer_scores.gradients(
      classifier, images, targets, [layer], quantity, edit
    )
    return gradient[layer] * way

  return total + weight * maps.in_slices(
    classifier, some, images, targets, start, end
  )
