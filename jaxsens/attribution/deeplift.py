"""DeepLIFT by secant lines, and its mean over baselines, DeepSHAP.

    values = (x - x0) * gradient at x of the network of secants through x0

see `secants`. For any network: functions, layers that are used twice, residual
sums, gates, normalisation of layers, softmax and attention are all made of the
steps that have a rule, and the values sum to the gain of the score over the
baseline to rounding. captum 0.9 has the same rules; it differs at a softmax,
which it normalises, and at max pools that stand next to a rectifier or whose
windows overlap, where its values do not sum to the gain in general.
"""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np

from jaxsens import classifiers
from jaxsens.attribution import interpreter
from jaxsens.attribution import maps
from jaxsens.attribution import secants


def deeplift(
  classifier: classifiers.Classifier,
  images: ArrayLike,
  targets: ArrayLike | None = None,
  *,
  quantity: str = 'logit',
  baselines: ArrayLike | None = None,
  chunk_size: int = 8,
) -> maps.Attribution:
  """Returns what the difference of each number from a baseline contributes.

  Args:
    classifier: what is explained.
    images: (B, H, W, C).
    targets: a class, or one per image; None takes the answers.
    quantity: see `maps.score`; the logit is what DeepLIFT is meant for.
    baselines: a number, an image (H, W, C) or one per image; None is black.
    chunk_size: images at a time.

  Raises:
    ValueError: wrong shapes, an unknown class or quantity, or a network with a
      step that has no rule, by the name of its primitive.
    FloatingPointError: the network answers with NaN or infinity.
  """
  images = maps.as_images(classifier, images)
  classes = maps.as_targets(classifier, images, targets, chunk_size=chunk_size)
  baselines = maps.as_baselines(images, baselines)
  values, scores, at_baselines = maps.run(
    _contributions, [images, classes, baselines], chunk_size, classifier,
    quantity=quantity,
  )
  return _attribution(
    'DeepLIFT', values, classes, scores, at_baselines, 1, targets is None
  )


def deepshap(
  classifier: classifiers.Classifier,
  images: ArrayLike,
  baselines: ArrayLike,
  targets: ArrayLike | None = None,
  *,
  quantity: str = 'logit',
  chunk_size: int = 8,
) -> maps.Attribution:
  """Returns the mean of DeepLIFT over baselines, which all images share.

  The baselines are taken one after the other: memory does not grow with their
  number.

  Args:
    classifier: what is explained.
    images: (B, H, W, C).
    baselines: (M, H, W, C), images of the data.
    targets: a class, or one per image; None takes the answers.
    quantity: see `maps.score`.
    chunk_size: images at a time.

  Returns:
    The attribution; `baseline_scores` are means over the baselines.

  Raises:
    ValueError, FloatingPointError: see `deeplift`.

  References:
    Lundberg and Lee, A unified approach to interpreting model predictions,
    2017, sec. 4.2.
  """
  images = maps.as_images(classifier, images)
  classes = maps.as_targets(classifier, images, targets, chunk_size=chunk_size)
  given = np.asarray(baselines, images.dtype)
  if given.shape[1:] != images.shape[1:] or not len(given):
    raise ValueError(
      f'baselines must have shape (M, {", ".join(map(str, images.shape[1:]))})'
      f' with M at least 1, got {given.shape}.'
    )
  if not np.isfinite(given).all():
    raise ValueError('baselines hold NaN or infinity.')
  values, scores, at_baselines = maps.run(
    functools.partial(_mean_contributions, given), [images, classes],
    chunk_size, classifier, quantity=quantity,
  )
  return _attribution(
    f'DeepSHAP, {len(given)} baselines', values, classes, scores, at_baselines,
    len(given), targets is None,
  )


def _attribution(
  method: str,
  values: np.ndarray,
  classes: np.ndarray,
  scores: np.ndarray,
  at_baselines: np.ndarray,
  number: int,
  answered: bool,
) -> maps.Attribution:
  """Returns the record of a number of baselines per image."""
  count = np.full(len(values), number, np.int64)
  return maps.Attribution(
    method, values, classes, scores.astype(np.float64),
    at_baselines.astype(np.float64), count, count + answered,
  )


def _secant_gradient(classifier, images, targets, baselines, quantity):
  """Returns contributions, scores and scores at the baselines."""
  def score(images, classifier, targets):
    return maps.score(classifier, images, targets, quantity)

  def total(images):
    at, reference = interpreter.evaluate(
      secants.Secants(), score, (images, baselines), classifier, targets
    )
    return jnp.sum(at), (at, reference)

  slopes, (at, reference) = jax.grad(total, has_aux=True)(images)
  return (images - baselines) * slopes, at, reference


@functools.partial(jax.jit, static_argnames='quantity')
def _contributions(classifier, images, targets, baselines, *, quantity):
  return maps.in_slices(
    classifier, lambda *rows: _secant_gradient(classifier, *rows, quantity),
    images, targets, baselines,
  )


def _mean_contributions(baselines, classifier, images, targets, *, quantity):
  return _sweep(classifier, images, targets, baselines, quantity=quantity)


@functools.partial(jax.jit, static_argnames='quantity')
def _sweep(classifier, images, targets, baselines, *, quantity):
  """Returns the means over baselines (M, H, W, C), one at a time."""
  def some(images, targets):
    def add(sums, baseline):
      origins = jnp.broadcast_to(baseline, images.shape)
      found = _secant_gradient(classifier, images, targets, origins, quantity)
      return jax.tree.map(jnp.add, sums, found), None

    like = jax.eval_shape(
      lambda: _secant_gradient(classifier, images, targets, images, quantity)
    )
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
    sums, _ = jax.lax.scan(add, zeros, baselines)
    return jax.tree.map(lambda x: x / len(baselines), sums)

  return maps.in_slices(classifier, some, images, targets)
