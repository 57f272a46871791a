"""From outputs at nodes to what the report shows of each image."""

from collections.abc import Sequence
import dataclasses
import functools

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np

from jaxsens import classifiers
from jaxsens import evaluation
from jaxsens import factors
from jaxsens import quantities as quantities_lib
from jaxsens import sensitivity
from jaxsens import slices
from jaxsens.data import image_sets
from jaxsens.gpc import pushed_indices
from jaxsens.perturbations import chains
from jaxsens.perturbations import registry
from jaxsens.reports import results
from jaxsens.reports import sentences as sentences_lib

# Points per axis at which the surrogate is drawn.
_FINE = 201
_FINE_PLANE = 61
# Images that are classified together.
_BATCH_SIZE = 32
# Rows of logits that are turned into quantities together.
_ROWS = 8192


@dataclasses.dataclass(frozen=True, eq=False)
class Views:
  """Nodes on one line per factor, at which every image is looked at.

  Attributes:
    space: the factors.
    values: (N, D) physical values.
    line_rows: rows of each factor's line, by name.
    identity: (D,) values that leave the image as it is.
    num_contact_images: pictures along each line.
  """

  space: factors.FactorSpace
  values: np.ndarray
  line_rows: dict[str, slice]
  identity: np.ndarray
  num_contact_images: int


@dataclasses.dataclass(frozen=True, eq=False)
class Plane:
  """Nodes over the two strongest factors of an image."""

  names: tuple[str, str]
  values: np.ndarray


def unit_of(name: str) -> str:
  """Returns the unit of the perturbation that a factor drives."""
  return registry.parameter(name)[1].unit


def recognised(
  classifier: classifiers.Classifier, images: image_sets.ImageSet
) -> image_sets.ImageSet:
  """Returns the images that the classifier names rightly, in their order."""
  pixels = image_sets.resize_all(images.images, classifier.image_size)
  answer = jax.jit(lambda network, batch: network(batch).argmax(1))
  answers = np.empty(len(pixels), int)
  for start in range(0, len(pixels), _BATCH_SIZE):
    batch = pixels[start:start + _BATCH_SIZE]
    padded = np.resize(batch, (_BATCH_SIZE, *batch.shape[1:]))
    answers[start:start + len(batch)] = answer(classifier, padded)[:len(batch)]
  return images.take(np.flatnonzero(answers == images.labels))


def make_push(
  quantities: quantities_lib.Quantities, label: int
) -> pushed_indices.Transform:
  """Returns the map from logits (..., C) to quantities (..., K) of a class."""

  def push(logits):
    logits = np.asarray(logits)
    if not logits.size:
      return np.empty((*logits.shape[:-1], len(quantities.output_names)))
    rows = logits.reshape(-1, logits.shape[-1]).astype(np.float32)
    # Blocks of one size, so that one compilation serves all calls.
    padded = np.resize(rows, (-(-len(rows) // _ROWS) * _ROWS, rows.shape[1]))
    found = np.concatenate([
      _push(quantities, block, label)
      for block in np.split(padded, len(padded) // _ROWS)
    ])[:len(rows)]
    return found.reshape(*logits.shape[:-1], -1).astype(np.float64)

  return push


@functools.partial(jax.jit, static_argnums=0)
def _push(quantities, logits, label):
  return jax.vmap(quantities, in_axes=(0, None))(logits, label)


def make_views(
  space: factors.FactorSpace, chain: chains.Chain, options: ConfigDict
) -> Views:
  """Returns the nodes of a line along each factor."""
  identity = np.array(chain.identity, float)
  parts, rows, start = [], {}, 0
  for name in space.names:
    nodes = slices.line(space, name, options.num_line_nodes, identity)
    parts.append(nodes)
    rows[name] = slice(start, start + len(nodes))
    start += len(nodes)
  return Views(
    space, np.concatenate(parts), rows, identity, options.num_contact_images
  )


def make_planes(
  space: factors.FactorSpace,
  chain: chains.Chain,
  answers: Sequence[sensitivity.Sensitivity],
  options: ConfigDict,
) -> list[Plane]:
  """Returns for each image the plane of the pair that moves its answer most.

  A space of one factor has no plane: its nodes are empty.
  """
  identity = np.array(chain.identity, float)
  planes = []
  for answer in answers:
    if space.dim == 1:
      planes.append(Plane(space.names * 2, np.empty((0, 1))))
      continue
    totals = np.nan_to_num(answer.indices.total[:, 0])
    first, second = sorted(np.argsort(-totals, kind='stable')[:2])
    names = space.names[first], space.names[second]
    planes.append(Plane(names, slices.plane(
      space, names, options.num_plane_nodes, identity
    )))
  return planes


def make_image_result(
  key: jax.Array,
  evaluator: evaluation.Evaluator,
  quantities: quantities_lib.Quantities,
  frames: image_sets.ImageSet,
  i: int,
  answer: sensitivity.Sensitivity,
  views: Views,
  logits: np.ndarray,
  plane: Plane,
  plane_logits: np.ndarray,
  *,
  max_half_width: float | None,
  limits: dict,
) -> results.ImageResult:
  """Returns what the report shows of the i-th frame.

  `logits` (N, C) are those at `views.values`, `plane_logits` those on the
  plane; `max_half_width` is None where held-out Q2 decides about trust.
  """
  image, label = frames.images[i], int(frames.labels[i])
  key = jax.random.fold_in(key, i)
  space, push = views.space, make_push(quantities, label)
  outputs = push(logits)
  # Of kernels each is a certainty of its own.
  of = jnp.exp if quantities.answers == 'log_kernels' else jax.nn.softmax
  probabilities = np.asarray(of(jnp.asarray(logits)))
  line = views.line_rows[space.names[0]]
  at_identity = line.start + _nearest(
    views.values[line, 0], views.identity[0]
  )
  confidence = probabilities[at_identity]
  names = frames.class_names
  indices, intervals = answer.indices, answer.intervals
  return results.ImageResult(
    name=frames.names[i], label=label, label_name=names[label],
    prediction=int(confidence.argmax()),
    prediction_name=names[int(confidence.argmax())],
    confidence=float(confidence.max()),
    image=image,
    output_names=quantities.output_names, main_output=0,
    factor_names=space.names, factor_units=space.units,
    first_order=indices.first_order, total=indices.total,
    first_order_lower=intervals.first_order_lower,
    first_order_upper=intervals.first_order_upper,
    total_lower=intervals.total_lower, total_upper=intervals.total_upper,
    interactions=indices.interactions, subsets=indices.subsets,
    subset_values=indices.subset_values, mean=indices.mean,
    variance=indices.variance, mean_derivatives=answer.mean_derivatives,
    q2=answer.q2, explained_variance=answer.explained_variance,
    trusted=answer.verdicts[0].trusted, advice=_advice(answer.verdicts),
    reasons=indices.reasons,
    curves=tuple(
      _curve(
        key, evaluator, image, label, answer, views, name,
        outputs, probabilities,
      )
      for name in space.names
    ),
    surfaces=_surfaces(
      quantities, answer, views, plane, push(plane_logits)
    ),
    method=answer.method, num_evaluations=answer.num_evaluations,
    max_half_width=max_half_width, limits=limits,
    decay=answer.decay.describe() if answer.decay else {},
  )


def sentences(result: results.RunResult) -> list[str]:
  """Returns one sentence per image, for the log."""
  return [
    f'{image.name}: {sentences_lib.answer_sentence(image)}'
    for image in result.images
  ]


def _curve(
  key, evaluator, image, label, answer, views, name, outputs,
  probabilities,
) -> results.FactorCurve:
  space = views.space
  d = space.index(name)
  rows = views.line_rows[name]
  values = views.values[rows, d]
  predicted = probabilities[rows].argmax(1)
  identity = float(views.identity[d])
  at_identity = predicted[_nearest(values, identity)]
  flips = slices.first_change(values, predicted != at_identity, identity)
  errors = slices.first_change(values, predicted != label, identity)
  fine = np.tile(views.identity, (_FINE, 1))
  fine[:, d] = np.linspace(values[0], values[-1], _FINE)
  shown = np.unique(np.round(
    np.linspace(0, len(values) - 1, views.num_contact_images)
  ).astype(int))
  return results.FactorCurve(
    name=name, unit=space.units[d], values=values, truth=outputs[rows],
    surrogate_values=fine[:, d],
    surrogate=np.asarray(answer.surrogate(space.to_germ(fine))),
    predicted=predicted, identity=identity,
    contact_images=evaluator.render(key, image, views.values[rows][shown]),
    contact_values=values[shown], contact_predicted=predicted[shown],
    contact_confidence=probabilities[rows][shown].max(1),
    first_flip_below=flips[0], first_flip_above=flips[1],
    first_error_below=errors[0], first_error_above=errors[1],
  )


def _surfaces(quantities, answer, views, plane, plane_outputs):
  if not len(plane.values):
    return ()
  space = views.space
  x, y = (space.index(name) for name in plane.names)
  fine = slices.plane(space, plane.names, _FINE_PLANE, views.identity)
  surrogate = np.asarray(answer.surrogate(space.to_germ(fine)))[:, 0]
  return (results.Surface(
    name_x=plane.names[0], unit_x=space.units[x],
    name_y=plane.names[1], unit_y=space.units[y],
    fixed={
      name: float(value)
      for name, value in zip(space.names, views.identity, strict=True)
      if name not in plane.names
    },
    x=fine[::_FINE_PLANE, x], y=fine[:_FINE_PLANE, y],
    surrogate=surrogate.reshape(_FINE_PLANE, _FINE_PLANE),
    nodes_x=plane.values[:, x], nodes_y=plane.values[:, y],
    nodes_truth=plane_outputs[:, 0],
    output_name=quantities.output_names[0],
  ),)


def _advice(verdicts) -> tuple[str, ...]:
  """Returns what to raise for the answer, else for the worst other output."""
  doubted = [v for v in verdicts if not v.trusted]
  worst = min(
    doubted or verdicts, key=lambda v: np.inf if np.isnan(v.q2) else v.q2
  )
  return verdicts[0].advice or worst.advice


def _nearest(values, value) -> int:
  return int(np.abs(values - value).argmin())
