"""The attribution methods that experiments offer, by name."""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import functools

import jax
import numpy as np

from jaxsens import classifiers
from jaxsens.attribution import cam
from jaxsens.attribution import conductance
from jaxsens.attribution import deeplift
from jaxsens.attribution import gradients
from jaxsens.attribution import integrals
from jaxsens.attribution import layer_scores
from jaxsens.attribution import lime
from jaxsens.attribution import maps
from jaxsens.attribution import mask_indices
from jaxsens.attribution import occlusion
from jaxsens.attribution import rectifiers
from jaxsens.attribution import rise


@dataclasses.dataclass(frozen=True, eq=False)
class Context:
  """What methods need beside the images.

  Attributes:
    key: of what is random.
    classifier: what is explained.
    references: (M, H, W, C), images of the data, for expected gradients and
      DeepSHAP.
    layer: of the activation maps; None is the last with a map.
    quantity: what is explained, see `maps.score`.
    num_steps: of integrals, and samples of those that draw.
    num_masks: of the black-box methods, about.
    chunk_size: images at a time.
  """

  key: jax.Array
  classifier: classifiers.Classifier
  references: np.ndarray
  layer: str | None = None
  quantity: str = 'logit'
  num_steps: int = 50
  num_masks: int = 400
  chunk_size: int = 8


Method = Callable[[Context, np.ndarray, np.ndarray], maps.Attribution]


def _options(context: Context) -> dict:
  return dict(quantity=context.quantity, chunk_size=context.chunk_size)


def _plain(function, **fixed) -> Method:
  """Of methods of images and targets alone."""
  def explain(context, images, targets):
    return function(
      context.classifier, images, targets, **_options(context), **fixed
    )

  return explain


def _integral(function, **fixed) -> Method:
  def explain(context, images, targets):
    steps = context.num_steps
    if fixed.get('rule') == 'adaptive':
      steps = 8 * context.num_steps  # at most
    return function(
      context.classifier, images, targets, num_steps=steps,
      **_options(context), **fixed,
    )

  return explain


def _drawn(function, number: str, **fixed) -> Method:
  """Of methods that draw so many of something."""
  def explain(context, images, targets):
    count = context.num_steps if number == 'num_samples' else context.num_masks
    return function(
      context.key, context.classifier, images, targets, **{number: count},
      **_options(context), **fixed,
    )

  return explain


def _expected_gradients(context, images, targets):
  return integrals.expected_gradients(
    context.key, context.classifier, images, context.references, targets,
    num_samples=context.num_steps, **_options(context),
  )


def _deepshap(context, images, targets):
  return deeplift.deepshap(
    context.classifier, images, context.references[:10], targets,
    **_options(context),
  )


def _activation_map(context, images, targets, *, kind):
  return cam.activation_map(
    context.classifier, images, targets, layer=context.layer, kind=kind,
    **_options(context),
  )


def _guided_grad_cam(context, images, targets):
  return cam.guided_grad_cam(
    context.classifier, images, targets, layer=context.layer,
    **_options(context),
  )


def _of_layer(context, images, targets, *, function):
  """Returns what the units of a layer carry, at the pixels they belong to."""
  found = function(
    context.classifier, images, targets,
    layer=layer_scores.with_map(context.classifier, context.layer),
    num_steps=context.num_steps, **_options(context),
  )
  places = found.values.sum(-1)
  height, width = images.shape[1:3]
  # A pixel has its share of what a place of the layer has.
  share = places[0].size / (height * width)
  values = share * cam.enlarged(places, (height, width))[..., None]
  return maps.Attribution(
    found.method, values, found.targets, found.scores, found.baseline_scores,
    found.num_gradients, found.num_forwards,
  )


def _occlusion(context, images, targets):
  # So many positions of a square window, each overlapping the next by half.
  side = max(round(context.num_masks**0.5), 2)
  height, width = images.shape[1:3]
  stride = max(-(-max(height, width) // (side + 1)), 1)
  window = (min(2 * stride, height), min(2 * stride, width))
  return occlusion.occlusion(
    context.classifier, images, targets, window=window, stride=stride,
    **_options(context),
  )


def _lime(context, images, targets):
  return lime.lime(
    context.key, context.classifier, images, targets,
    num_samples=context.num_masks, **_options(context),
  )


def _mask_indices(context, images, targets):
  segments = (6, 6)
  return mask_indices.mask_indices(
    context.key, context.classifier, images, targets, segments=segments,
    num_base=max(context.num_masks // (segments[0] * segments[1] + 2), 2),
    **_options(context),
  )


METHODS: dict[str, Method] = {
  'saliency': _plain(gradients.saliency),
  'gradient x input': _plain(gradients.gradient_x_input),
  'integrated gradients': _integral(integrals.integrated_gradients),
  'integrated gradients, adaptive': _integral(
    integrals.integrated_gradients, rule='adaptive'
  ),
  'expected gradients': _expected_gradients,
  'blur path': _integral(integrals.blur_integrated_gradients),
  'SmoothGrad': _drawn(gradients.smooth_grad, 'num_samples'),
  'SmoothGrad squared': _drawn(
    gradients.smooth_grad, 'num_samples', statistic='squared'
  ),
  'VarGrad': _drawn(gradients.smooth_grad, 'num_samples', statistic='variance'),
  'guided backpropagation': _plain(rectifiers.guided_backpropagation),
  'deconvolution': _plain(rectifiers.deconvolution),
  'DeepLIFT': _plain(deeplift.deeplift),
  'DeepSHAP': _deepshap,
  'Grad-CAM': functools.partial(_activation_map, kind='grad_cam'),
  'Grad-CAM++': functools.partial(_activation_map, kind='grad_cam++'),
  'HiResCAM': functools.partial(_activation_map, kind='hires_cam'),
  'LayerCAM': functools.partial(_activation_map, kind='layer_cam'),
  'guided Grad-CAM': _guided_grad_cam,
  'conductance': functools.partial(
    _of_layer, function=conductance.conductance
  ),
  'layer integrated gradients': functools.partial(
    _of_layer, function=conductance.layer_integrated_gradients
  ),
  'occlusion': _occlusion,
  'RISE': _drawn(rise.rise, 'num_masks'),
  'LIME': _lime,
  'mask indices': _mask_indices,
}
"""What explains images, by the name under which it is asked for."""

# JAX raises NotImplementedError for a primitive without a derivative.
REFUSALS = (TypeError, ValueError, NotImplementedError, FloatingPointError)
"""What a method raises that a network, its layers or its answers rule out."""

COMPLETE = frozenset({
  'integrated gradients', 'integrated gradients, adaptive',
  'expected gradients', 'blur path', 'DeepLIFT', 'DeepSHAP',
})
"""Whose values promise to sum to what the score gains over the baseline."""

SLOPES = frozenset({
  'saliency', 'SmoothGrad', 'guided backpropagation', 'deconvolution',
})
"""Whose values are changes of the score per unit of the image."""

SHARES = frozenset({
  'gradient x input', 'integrated gradients', 'integrated gradients, adaptive',
  'DeepLIFT',
})
"""Whose values are changes of the score from the black image."""


def chosen(names: Sequence[str]) -> dict[str, Method]:
  """Returns the methods of some names; all where none is given.

  Raises:
    ValueError: there is no such method; all names are listed.
  """
  unknown = [name for name in names if name not in METHODS]
  if unknown:
    raise ValueError(
      f'methods must be among {", ".join(METHODS)}; got {", ".join(unknown)}'
    )
  return {name: METHODS[name] for name in names or METHODS}
