"""From outputs at nodes to what the report shows of each image."""

from collections.abc import Sequence
import dataclasses

import jax
from ml_collections import ConfigDict
import numpy as np

from jaxsens import evaluation
from jaxsens import sensitivity
from jaxsens import slices
from jaxsens.data import image_sets
from jaxsens.perturbations import chains
from jaxsens.perturbations import registry
from jaxsens.reports import results
from jaxsens.reports import sentences as sentences_lib

# Points per axis at which the surrogate is drawn.
_FINE = 201
_FINE_PLANE = 61


@dataclasses.dataclass(frozen=True, eq=False)
class Views:
  """All nodes of an image: those of the plan, then one line per factor.

  Attributes:
    values: (N, D) physical values.
    plan_rows: rows of the plan.
    line_rows: rows of each factor's line, by name.
    identity: (D,) values that leave the image as it is.
    num_contact_images: pictures along each line.
  """

  values: np.ndarray
  plan_rows: slice
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
  return registry.get(name).unit


def make_views(
  plan: sensitivity.Plan, chain: chains.Chain, options: ConfigDict
) -> Views:
  """Returns the nodes of the plan and of a line along each factor."""
  identity = np.array(chain.identity, float)
  parts, rows, start = [plan.values], {}, len(plan.values)
  for name in plan.space.names:
    nodes = slices.line(plan.space, name, options.num_line_nodes, identity)
    parts.append(nodes)
    rows[name] = slice(start, start + len(nodes))
    start += len(nodes)
  return Views(
    np.concatenate(parts), slice(0, len(plan.values)), rows, identity,
    options.num_contact_images,
  )


def make_planes(
  plan: sensitivity.Plan,
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
    if plan.space.dim == 1:
      planes.append(Plane(plan.space.names * 2, np.empty((0, 1))))
      continue
    totals = np.nan_to_num(answer.indices.total[:, 0])
    first, second = sorted(np.argsort(-totals, kind='stable')[:2])
    names = plan.space.names[first], plan.space.names[second]
    planes.append(Plane(names, slices.plane(
      plan.space, names, options.num_plane_nodes, identity
    )))
  return planes


def make_image_result(
  key: jax.Array,
  evaluator: evaluation.Evaluator,
  frames: image_sets.ImageSet,
  i: int,
  plan: sensitivity.Plan,
  answer: sensitivity.Sensitivity,
  views: Views,
  outputs: np.ndarray,
  plane: Plane,
  plane_outputs: np.ndarray,
) -> results.ImageResult:
  """Returns what the report shows of the i-th frame."""
  image, label = frames.images[i], int(frames.labels[i])
  key = jax.random.fold_in(key, i)
  probabilities = outputs[:, evaluator.quantities.columns('probabilities')]
  line = views.line_rows[plan.space.names[0]]
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
    output_names=evaluator.quantities.output_names, main_output=0,
    factor_names=plan.space.names, factor_units=plan.space.units,
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
        key, evaluator, image, label, plan, answer, views, name,
        outputs, probabilities,
      )
      for name in plan.space.names
    ),
    surfaces=_surfaces(evaluator, plan, answer, views, plane, plane_outputs),
  )


def sentences(result: results.RunResult) -> list[str]:
  """Returns one sentence per image, for the log."""
  return [
    f'{image.name}: {sentences_lib.answer_sentence(image)}'
    for image in result.images
  ]


def _curve(
  key, evaluator, image, label, plan, answer, views, name, outputs,
  probabilities,
) -> results.FactorCurve:
  d = plan.space.index(name)
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
    name=name, unit=plan.space.units[d], values=values, truth=outputs[rows],
    surrogate_values=fine[:, d],
    surrogate=np.asarray(answer.expansion(plan.space.to_germ(fine))),
    predicted=predicted, identity=identity,
    contact_images=evaluator.render(key, image, views.values[rows][shown]),
    contact_values=values[shown], contact_predicted=predicted[shown],
    contact_confidence=probabilities[rows][shown].max(1),
    first_flip_below=flips[0], first_flip_above=flips[1],
    first_error_below=errors[0], first_error_above=errors[1],
  )


def _surfaces(evaluator, plan, answer, views, plane, plane_outputs):
  if not len(plane.values):
    return ()
  x, y = (plan.space.index(name) for name in plane.names)
  fine = slices.plane(plan.space, plane.names, _FINE_PLANE, views.identity)
  surrogate = np.asarray(answer.expansion(plan.space.to_germ(fine)))[:, 0]
  return (results.Surface(
    name_x=plane.names[0], unit_x=plan.space.units[x],
    name_y=plane.names[1], unit_y=plan.space.units[y],
    fixed={
      name: float(value)
      for name, value in zip(plan.space.names, views.identity, strict=True)
      if name not in plane.names
    },
    x=fine[::_FINE_PLANE, x], y=fine[:_FINE_PLANE, y],
    surrogate=surrogate.reshape(_FINE_PLANE, _FINE_PLANE),
    nodes_x=plane.values[:, x], nodes_y=plane.values[:, y],
    nodes_truth=plane_outputs[:, 0],
    output_name=evaluator.quantities.output_names[0],
  ),)


def _advice(verdicts) -> tuple[str, ...]:
  """Returns what to raise for the answer, else for the worst other output."""
  worst = min(verdicts, key=lambda v: np.inf if np.isnan(v.q2) else v.q2)
  return verdicts[0].advice or worst.advice


def _nearest(values, value) -> int:
  return int(np.abs(values - value).argmin())
