"""Guided backpropagation and deconvolution: gradients with rectifiers changed.

The forward pass is that of the network; behind the logits and through all other
layers derivatives are what they are. At a rectifier max(z, 0), or a clipped one
min(max(z, 0), c), a gradient g of its result becomes, for its argument,

    guided          max(g, 0) [0 < z < c]
    deconvolution   max(g, 0)

instead of g [0 < z < c]. Rectifiers are recognised by their values, however
they are written; another elementwise function would have no such rule, and a
network with one is refused.

References:
  Springenberg et al., Striving for simplicity: the all convolutional net, 2015,
  sec. 3.4.
  Zeiler and Fergus, Visualizing and understanding convolutional networks, 2014,
  sec. 2.1.
"""

from collections.abc import Sequence
import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np

from jaxsens import classifiers
from jaxsens.attribution import interpreter
from jaxsens.attribution import maps

# Arguments at which a function is compared with a rectifier; the last one is
# beyond every bound that is looked for.
_PROBES = np.concatenate([
  np.linspace(-12, 12, 193), np.geomspace(1e-6, 1e6, 61),
  -np.geomspace(1e-6, 1e6, 61), [1e7],
])


def guided_backpropagation(
  classifier: classifiers.Classifier,
  images: ArrayLike,
  targets: ArrayLike | None = None,
  *,
  quantity: str = 'logit',
  chunk_size: int = 8,
) -> maps.Attribution:
  """Returns gradients that no rectifier lets through where they are negative.

  Args:
    classifier: what is explained, without other nonlinear functions.
    images: (B, H, W, C).
    targets: a class, or one per image; None takes the answers.
    quantity: see `maps.score`; differentiated by the logits as it is.
    chunk_size: images at a time.

  Raises:
    ValueError: wrong shapes, an unknown class or quantity, or a function that
      is no rectifier, by the names of its primitives.
    FloatingPointError: the network answers with NaN or infinity.
  """
  return _attribution(
    'guided backpropagation', True, classifier, images, targets, quantity,
    chunk_size,
  )


def deconvolution(
  classifier: classifiers.Classifier,
  images: ArrayLike,
  targets: ArrayLike | None = None,
  *,
  quantity: str = 'logit',
  chunk_size: int = 8,
) -> maps.Attribution:
  """Returns gradients that every rectifier rectifies, instead of masking them.

  Args and Raises: see `guided_backpropagation`.
  """
  return _attribution(
    'deconvolution', False, classifier, images, targets, quantity, chunk_size
  )


def _attribution(
  method, guided, classifier, images, targets, quantity, chunk_size
):
  images = maps.as_images(classifier, images)
  classes = maps.as_targets(classifier, images, targets, chunk_size=chunk_size)
  values, scores = maps.run(
    _gradients, [images, classes], chunk_size, classifier, quantity=quantity,
    guided=guided,
  )
  at_black = maps.baseline_scores(
    classifier, images, classes, None, quantity, chunk_size
  )
  count = np.ones(len(images), np.int64)
  return maps.Attribution(
    method, values, classes, scores.astype(np.float64),
    at_black, count, count + (targets is None),
  )


@functools.partial(jax.jit, static_argnames=('quantity', 'guided'))
def _gradients(classifier, images, targets, *, quantity, guided):
  def total(images, targets):
    (logits,) = interpreter.evaluate(
      Rectifiers(guided), lambda x, classifier: classifier(x), (images,),
      classifier,
    )
    scores = maps.read(classifier, logits, targets, quantity)
    return jnp.sum(scores), scores

  def some(images, targets):
    return jax.grad(total, has_aux=True)(images, targets)

  return maps.in_slices(classifier, some, images, targets)


@dataclasses.dataclass(frozen=True)
class Rectifiers:
  """The rules of the two methods, see `interpreter.Rules`.

  Attributes:
    guided: whether the mask of the forward pass counts as well.
  """

  guided: bool

  def elementwise(
    self, function: interpreter.Function, z: interpreter.Lanes
  ) -> interpreter.Lanes:
    """Returns the values of a rectifier, with the changed gradient.

    Raises:
      ValueError: the function is no rectifier.
    """
    bound = _bound(function)
    if bound is None:
      raise ValueError(
        'guided backpropagation and deconvolution change rectifiers only, and '
        f'the network has another function of single numbers: {function.names}.'
      )
    guided = self.guided
    pure, captured = interpreter.hoisted(function, z[0])

    @jax.custom_vjp
    def rectifier(captured, z):
      return pure(captured, z)

    def forward(captured, z):
      return pure(captured, z), (z > 0) & (z < bound) if guided else None

    def backward(mask, g):
      kept = g > 0 if mask is None else mask & (g > 0)
      return None, jnp.where(kept, g, 0)

    rectifier.defvjp(forward, backward)
    return tuple(rectifier(captured, one) for one in z)

  def product(
    self,
    operation: interpreter.Operation,
    u: interpreter.Lanes,
    v: interpreter.Lanes,
  ) -> interpreter.Lanes:
    """Returns the products, with their own derivatives."""
    return tuple(map(operation, u, v))

  def quotient(
    self, u: interpreter.Lanes, v: interpreter.Lanes
  ) -> interpreter.Lanes:
    """Returns the quotients, with their own derivatives."""
    return tuple(one / other for one, other in zip(u, v, strict=True))

  def extremum(
    self,
    kind: str,
    operation: interpreter.Operation,
    operands: Sequence[interpreter.Lanes],
  ) -> interpreter.Lanes:
    """Returns the maxima or minima, with their own derivatives."""
    del kind
    return tuple(map(operation, *operands))


def _bound(function: interpreter.Function) -> float | None:
  """Returns c of min(max(z, 0), c), inf of max(z, 0); None of all others."""
  probes = _PROBES.astype(function.source.lanes[0].dtype)
  found = function.of_numbers(probes)
  if found is None or not np.isfinite(found).all():
    return None
  last = float(found[-1])
  bound = np.inf if last == float(probes[-1]) else last
  rounding = 4 * float(jnp.finfo(found.dtype).eps)
  expected = np.clip(probes.astype(np.float64), 0, bound)
  same = np.allclose(found.astype(np.float64), expected, rounding, atol=0)
  return bound if bound > 0 and same else None
