"""Sobol indices of where a heat map lies, under perturbations of its image."""

import dataclasses

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np

from experiments import explanation_parts
from experiments import gpc
from experiments import methods as methods_lib
from experiments import runs
from jaxsens import sensitivity
from jaxsens.attribution import moments
from jaxsens.data import image_sets

_OUTPUTS = (('centre x', 'px'), ('centre y', 'px'), ('spread', 'px'))
_OF_MASKS = (('mass inside', ''), ('soft Dice', ''))
_BLOCK = 64  # perturbed images in memory
_FEWEST = 64  # nodes of the first round


def find(
  key: jax.Array,
  context: methods_lib.Context,
  config: ConfigDict,
  frames: image_sets.ImageSet,
  masks: np.ndarray | None,
  targets: np.ndarray,
  method: str,
  num_nodes: int,
) -> dict:
  """Returns what share of the moves of a heat map each factor has.

  The outputs are centre of mass and spread of the positive part of the map,
  and, where there are masks, its mass inside of the mask and their soft Dice;
  a mask moves with its image. Nodes are added until the intervals are narrow
  enough, see `sensitivity.refine`.

  Args:
    key: of nodes, noise and draws.
    context: of the method.
    config: of the factors.
    frames: B images before the perturbation.
    masks: (B, h, w) bool of their size, or None.
    targets: (B,) classes that are explained, whatever the perturbation.
    method: name of one of `methods.METHODS`.
    num_nodes: of each image, at most.
  """
  explain = methods_lib.chosen([method])[method]
  space = gpc.make_space(config)
  chain = gpc.make_chain(config, space)
  moved = dataclasses.replace(chain, steps=tuple(
    step for step in chain.steps if step.perturbation.kind == 'geometric'
  ))
  key_search, key_noise = jax.random.split(key)
  outputs = _OUTPUTS + (_OF_MASKS if masks is not None else ())

  def evaluate(i, nodes):
    key_image = jax.random.fold_in(key_noise, i)
    rows = []
    for start in range(0, len(nodes), _BLOCK):
      values = space.to_values(nodes[start:start + _BLOCK])
      images = explanation_parts.render(
        chain, frames.images[i], values, key_image
      )
      heat_maps = explain(
        context, images, np.full(len(images), targets[i])
      ).heat_maps
      inside = np.zeros((len(images), 0, 0))
      if masks is not None:
        inside = explanation_parts.render(
          moved, masks[i][..., None], values, key_image
        )[..., 0]
      rows.append(np.asarray(_moments(heat_maps, inside), float))
    return np.concatenate(rows)

  answers, _ = sensitivity.refine(
    key_search, evaluate, space, [lambda found: found] * len(frames),
    sensitivity.Settings(
      max_evaluations=num_nodes, min_evaluations=min(_FEWEST, num_nodes),
      fallback_evaluations=0,
    ), on_step=_log,
  )
  return {
    'method': method, 'factors': space.names,
    'outputs': [name for name, _ in outputs],
    'units': [unit for _, unit in outputs],
    'images': [_described(answer) for answer in answers],
  }


def _log(step):
  runs.LOG.info(
    '%d perturbed images each, %d of %d go on', step.num_evaluations,
    step.open.sum(), len(step.open),
  )


@jax.jit
def _moments(heat_maps, masks):
  """Returns the outputs (N, K) of maps (N, H, W) and masks, empty for none."""
  def one(heat_map, mask):
    y, x = moments.centre_of_mass(heat_map)
    found = [x, y, moments.spread(heat_map)]
    if mask.size:
      found += [
        moments.mass_inside(heat_map, mask), moments.soft_dice(heat_map, mask)
      ]
    return jnp.stack(found)

  return jax.vmap(one)(jnp.asarray(heat_maps), masks)


def _described(answer: sensitivity.Sensitivity) -> dict:
  indices, intervals = answer.indices, answer.intervals
  return {
    'first_order': indices.first_order, 'total': indices.total,
    'first_order_lower': intervals.first_order_lower,
    'first_order_upper': intervals.first_order_upper,
    'total_lower': intervals.total_lower,
    'total_upper': intervals.total_upper, 'mean': indices.mean,
    'std': np.sqrt(indices.variance), 'q2': answer.q2,
    'trusted': [verdict.trusted for verdict in answer.verdicts],
    'advice': [verdict.advice for verdict in answer.verdicts],
    'num_evaluations': answer.num_evaluations, 'surrogate': answer.method,
  }
