"""What a network answers on labelled images, and how good that is."""

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import functools
import math
from typing import Any

from flax import nnx
import jax
from jax.typing import ArrayLike
import numpy as np

from jaxsens.training import batches
from jaxsens.training import metrics

Preprocess = Callable[[jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """What a network does on labelled images.

  Attributes:
    loss: over the whole set; weighted cross-entropy without smoothing where the
      training has no other objective.
    scores: measures of its answers.
  """

  loss: float
  scores: metrics.Scores

  @classmethod
  def from_dict(cls, fields: Mapping[str, Any]) -> 'Evaluation':
    """Returns the evaluation that `dataclasses.asdict` gave to JSON."""
    scores = dict(fields['scores'])
    scores['confusion'] = tuple(map(tuple, scores['confusion']))
    return cls(fields['loss'], metrics.Scores(**scores))


def evaluate(
  model: nnx.Module,
  data: batches.LabelledImages,
  *,
  preprocess: Preprocess,
  class_weights: ArrayLike,
  batch_size: int = 32,
  loss_fn: Callable[
    [np.ndarray, np.ndarray, np.ndarray], float
  ] = metrics.weighted_cross_entropy,
  mesh: jax.sharding.Mesh | None = None,
) -> Evaluation:
  """Returns the loss and the scores of a network, which is left as it is.

  Args:
    model: network, used with its running statistics and without dropout.
    data: labelled images.
    preprocess: images -> normalised images.
    class_weights: (K,) weights of the loss.
    batch_size: images at a time; no effect on the result beyond rounding.
    loss_fn: (logits, labels, class weights) -> loss of the whole set.
    mesh: see `predict`.

  Raises:
    ValueError: class_weights is not (K,), or the labels carry no weight.
  """
  logits = predict(
    model, data.images, preprocess=preprocess, batch_size=batch_size, mesh=mesh
  ).astype(np.float64)
  weights = np.asarray(class_weights, np.float64)
  if weights.shape != logits.shape[1:]:
    raise ValueError(
      f'class_weights must have shape {logits.shape[1:]}, one per logit, got '
      f'{weights.shape}.'
    )
  confusion = metrics.confusion_matrix(
    data.labels, logits.argmax(1), len(weights)
  )
  loss = loss_fn(logits, data.labels, weights)
  return Evaluation(loss, metrics.scores(confusion))


def predict(
  model: nnx.Module,
  images: ArrayLike,
  *,
  preprocess: Preprocess,
  batch_size: int = 32,
  mesh: jax.sharding.Mesh | None = None,
) -> np.ndarray:
  """Returns the logits (N, K) of images (N, H, W, C) in inference mode.

  The last batch is padded and cut, so one compilation serves all batches.

  Args:
    model: network, left as it is.
    images: (N, H, W, C), N at least one.
    preprocess: images -> normalised images.
    batch_size: images at a time; raised to a multiple of the devices.
    mesh: devices with the one axis 'data', over which each batch is divided
      while every device has the network; None is a single device.
  """
  graphdef, state = nnx.split(model)
  place = lambda batch: batch
  if mesh is not None:
    batch_size = mesh.size * math.ceil(batch_size / mesh.size)
    divided, whole = (
      jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))
      for axes in (('data',), ())
    )
    place = lambda batch: jax.device_put(batch, divided)
    state = jax.device_put(state, whole)
  logits = []
  for start in range(0, len(images), batch_size):
    batch = np.asarray(images[start : start + batch_size])
    missing = batch_size - len(batch)
    padded = np.pad(batch, ((0, missing), (0, 0), (0, 0), (0, 0)))
    answers = _forward(graphdef, preprocess, state, place(padded))
    logits.append(np.asarray(answers)[: len(batch)])
  return np.concatenate(logits)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _forward(
  graphdef: nnx.GraphDef,
  preprocess: Preprocess,
  state: nnx.State,
  images: jax.Array,
) -> jax.Array:
  return nnx.merge(graphdef, state)(preprocess(images))
