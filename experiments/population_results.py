"""From the answers of many images to the report of the data set."""

from collections.abc import Sequence

import jax
import numpy as np

from jaxsens import factors
from jaxsens import fragility
from jaxsens import population_accuracy
from jaxsens import populations
from jaxsens import quantities as quantities_lib
from jaxsens import sensitivity
from jaxsens.data import image_sets
from jaxsens.gpc import designs
from jaxsens.perturbations import chains
from jaxsens.reports import population_results
from jaxsens.reports import results

# Images from which there is a report of the data set.
FEWEST = 8
# Nodes of the common grid on which the accuracy is averaged, at most in all.
_GRID_NODES = 4096
_THUMBNAIL = 64


def make_study(
  key: jax.Array,
  title: str,
  frames: image_sets.ImageSet,
  space: factors.FactorSpace,
  chain: chains.Chain,
  quantities: quantities_lib.Quantities,
  answers: Sequence[sensitivity.Sensitivity],
  logits_at_identity: np.ndarray,
  steps: Sequence[results.ConvergenceStep],
  tolerance: float | None,
  provenance: dict,
) -> population_results.PopulationStudy:
  """Returns what the report of a data set shows.

  Args:
    key: of the resamples.
    title: of the report.
    frames: the I images.
    space: the factors.
    chain: their perturbations.
    quantities: the first is the one that the report is about.
    answers: one per image.
    logits_at_identity: (I, C) of the unperturbed images.
    steps: of an adaptive run.
    tolerance: of an adaptive run, else None.
    provenance: what made the results.
  """
  population = make_population(
    frames, space, quantities, answers, logits_at_identity
  )
  keys = jax.random.split(key, 4)
  accuracy, axes = None, ()
  if 'correctness' in quantities.names:
    accuracy, axes = _accuracy(
      keys[0], frames, space, chain, quantities, answers
    )
  return population_results.PopulationStudy(
    title=title, data_description=f'{len(frames)} of {frames.description}',
    population=population, output=0,
    distribution=populations.distribution(population),
    aggregates=populations.aggregate(keys[1], population),
    trusted_aggregates=populations.aggregate(
      keys[2], population, include=population.trusted
    ),
    fragility=fragility.rank(keys[3], population),
    accuracy=accuracy, axes=axes, steps=tuple(steps), tolerance=tolerance,
    thumbnails=image_sets.resize_all(
      frames.images, (_THUMBNAIL, _THUMBNAIL)
    ),
    provenance=provenance,
  )


def make_population(
  frames: image_sets.ImageSet,
  space: factors.FactorSpace,
  quantities: quantities_lib.Quantities,
  answers: Sequence[sensitivity.Sensitivity],
  logits_at_identity: np.ndarray,
) -> populations.Population:
  """Returns the answers of I images as arrays."""
  stack = lambda read: np.stack([read(answer) for answer in answers])
  failure = np.full(len(answers), np.nan)
  if 'correctness' in quantities.names:
    k = quantities.index('correctness')
    failure = 1 - stack(lambda a: a.indices.mean[k])
  return populations.Population(
    image_names=tuple(frames.names), labels=np.asarray(frames.labels),
    class_names=tuple(frames.class_names), factor_names=space.names,
    output_names=quantities.output_names,
    first_order=stack(lambda a: a.indices.first_order),
    first_order_lower=stack(lambda a: a.intervals.first_order_lower),
    first_order_upper=stack(lambda a: a.intervals.first_order_upper),
    total=stack(lambda a: a.indices.total),
    total_lower=stack(lambda a: a.intervals.total_lower),
    total_upper=stack(lambda a: a.intervals.total_upper),
    mean=stack(lambda a: a.indices.mean),
    variance=stack(lambda a: a.indices.variance),
    q2=stack(lambda a: a.q2),
    failure_probability=np.clip(failure, 0, 1),
    trusted=np.array([answer.verdicts[0].trusted for answer in answers]),
    method=tuple(answer.method for answer in answers),
    num_evaluations=np.array([a.num_evaluations for a in answers]),
    predictions=logits_at_identity.argmax(axis=1),
    reasons=tuple(
      None if answer.verdicts[0].trusted
      else answer.indices.reasons[0] or 'the check of its indices failed'
      for answer in answers
    ),
  )


def _accuracy(key, frames, space, chain, quantities, answers):
  """Indices of the accuracy over the images, from the surrogates."""
  size = max(2, min(16, int(_GRID_NODES ** (1 / space.dim))))
  sizes = [
    size if factor.atoms is None else min(size, factor.atoms.num_atoms)
    for factor in space.factors
  ]
  design = designs.tensor_gauss(space, sizes)
  rules = [
    designs.tensor_gauss(factors.FactorSpace((factor,)), (n,))
    for factor, n in zip(space.factors, sizes, strict=True)
  ]
  k = quantities.index('correctness')
  correct = np.stack([
    np.clip(answer.surrogate(design.nodes)[:, k], 0, 1) for answer in answers
  ])
  accuracy = population_accuracy.accuracy_indices(
    key, correct, [rule.weights for rule in rules],
    np.asarray(frames.labels), tuple(frames.class_names),
  )
  axes = tuple(
    population_results.FactorAxis(
      factor.name, factor.unit, factor.to_values(rule.nodes[:, 0]),
      float(identity),
    )
    for factor, rule, identity in zip(
      space.factors, rules, chain.identity, strict=True
    )
  )
  return accuracy, axes
