"""Whether heat maps can be believed: what should change with them, and does.

Of the answers, where a map says that they should change:

    deletion, insertion  mean probability of the class while the pixels that
                         count most are blackened, or come back to a black image
    road                 the same while they are imputed from their neighbours
    mufidelity           rank correlation of sums of the map over random blocks
                         with what blackening these costs
    infidelity           mean square of what a map of changes of the score is
                         wrong by under small noise, fitted up to a factor, as a
                         share of that of a map of zeros

and of the map itself:

    sensitivity          how far it moves within 0.02 around the image, in its
                         own norm
    other_class          rank correlation with the map of another class
    cascade              the same with the maps of the network while it loses
                         its layers, from the last one on
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

import jax
import numpy as np

from experiments import methods as methods_lib
from experiments import runs
from jaxsens.attribution import faithfulness
from jaxsens.attribution import infidelity
from jaxsens.attribution import randomised_params
from jaxsens.attribution import road
from jaxsens.attribution import sanity

_DRAWS = 4  # around each image, and of the map there
_STAGES = 5  # of the cascade
_BLOCKS = 7  # along both sides, of MuFidelity
_NOISE = infidelity.GaussianNoise(0.03)


def check(
  key: jax.Array,
  context: methods_lib.Context,
  chosen: Mapping[str, methods_lib.Method],
  images: np.ndarray,
  targets: np.ndarray,
  values: Mapping[str, np.ndarray],
) -> list[dict[str, Any]]:
  """Returns what speaks for and against each method, a row each.

  Args:
    key: of everything random.
    context: of the methods.
    chosen: methods by name.
    images: (B, H, W, C).
    targets: (B,) classes.
    values: (B, H, W, C or 1) of each method.

  Returns:
    Rows of 'name' and, one number per image, 'deletion', 'insertion', 'road',
    'mufidelity', 'sensitivity', 'other_class', 'infidelity' (None where the
    values are no changes of the score, or there is one class); 'cascade', rank
    correlations (stages, B), and 'stages', the first layer that each lost.
  """
  names = randomised_params.calling_order(context.classifier)
  stages = np.unique(
    np.linspace(0, len(names) - 1, _STAGES).round().astype(int)
  )
  rows = []
  for name, method in chosen.items():
    runs.LOG.info('%s: whether to believe it', name)
    rows.append({'name': name} | _of_answers(
      key, context, images, targets, name, values[name]
    ) | _of_maps(key, context, method, images, targets, stages))
  return rows


def _of_answers(key, context, images, targets, name, values):
  """Returns what the network says to the map of a method."""
  classifier = context.classifier
  heat_maps = values.sum(-1)
  options = dict(chunk_size=context.chunk_size)
  arguments = (classifier, images, heat_maps, targets)
  return {
    'deletion': faithfulness.deletion(*arguments, key=key, **options).areas,
    'insertion': faithfulness.insertion(*arguments, key=key, **options).areas,
    'road': road.road(key, *arguments, **options).areas,
    'mufidelity': faithfulness.mufidelity(
      key, *arguments, grid_size=min(_BLOCKS, *images.shape[1:3]), **options
    ).values,
    'infidelity': _infidelity(
      key, context, images, targets, name, values
    ),
  }


def _infidelity(key, context, images, targets, name, values):
  """Returns the share of the changes that a map does not explain."""
  if name not in methods_lib.SLOPES | methods_lib.SHARES:
    return None
  found = [
    infidelity.infidelity(
      key, context.classifier, images, phi, targets, normalise=True,
      quantity=context.quantity, perturb=_NOISE, num_samples=8 * _DRAWS,
      baselines=0 if name in methods_lib.SHARES else None,
      chunk_size=context.chunk_size,
    ).values for phi in (values, np.zeros_like(values))
  ]
  return np.divide(
    *found, out=np.full(len(images), np.nan), where=found[1] > 0
  )


def _of_maps(key, context, method, images, targets, stages):
  """Returns how the map moves with the image, the class and the network."""
  def explain(classifier, images, targets):
    return method(
      dataclasses.replace(context, classifier=classifier), images, targets
    )

  arguments = (key, context.classifier, images)
  options = dict(chunk_size=context.chunk_size)
  cascade = sanity.randomise(
    *arguments, explain, targets, vectorised=False,
    stages=stages, **options,
  )
  other = None
  if len(context.classifier.class_names) > 1:
    other = sanity.random_logit(
      *arguments, explain, targets, **options
    ).similarity.spearman
  return {
    'sensitivity': infidelity.sensitivity_max(
      *arguments, explain, targets, num_samples=_DRAWS, **options
    ).values,
    'other_class': other,
    'cascade': cascade.similarity.absolute_spearman,
    'stages': cascade.stages,
  }

