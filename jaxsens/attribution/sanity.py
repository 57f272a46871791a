"""Does a heat map depend on what the network has learned?

A map that stays the same while layer after layer loses its trained values, or
when it is asked about another class, shows the image and not the network. A
network with other params is another pytree, so that all stages of a
randomisation go through one `vmap` over stacked params.
"""

from collections.abc import Sequence
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np

from jaxsens import classifiers
from jaxsens.attribution import infidelity
from jaxsens.attribution import maps
from jaxsens.attribution import measures
from jaxsens.attribution import randomised_params
from jaxsens.attribution import similarity


@dataclasses.dataclass(frozen=True, eq=False)
class Randomisation:
  """Heat maps of a network that loses its trained layers.

  Attributes:
    mode: one of `randomised_params.MODES`.
    stages: name of the layer that stage s randomises (last), from the last
      layer of the network to the first.
    original: (B, H, W) heat maps of the trained network.
    heat_maps: (S, B, H, W) of the stages.
    similarity: of each stage with the trained network, (S, B) each; 1 is a map
      that does not know of the randomised layers.
    targets: (B,) classes that are explained, the same in all stages.
  """

  mode: str
  stages: tuple[str, ...]
  original: np.ndarray
  heat_maps: np.ndarray
  similarity: similarity.Similarity
  targets: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class OtherClass:
  """Heat maps of another class than the target.

  Attributes:
    targets: (B,) classes.
    others: (B,) other classes, drawn at random.
    similarity: of the two maps of each image, (B,) each.
  """

  targets: np.ndarray
  others: np.ndarray
  similarity: similarity.Similarity


def randomise(
  key: jax.Array,
  classifier: classifiers.Classifier,
  images: ArrayLike,
  explain: infidelity.Explain,
  targets: ArrayLike | None = None,
  *,
  mode: str = 'cascading',
  names: Sequence[str] | None = None,
  stages: Sequence[int] | None = None,
  fresh: Any = None,
  vectorised: bool = True,
  stages_at_once: int | None = None,
  chunk_size: int = 8,
) -> Randomisation:
  """Returns the heat maps of a network that loses its trained layers.

  Args:
    key: of the permutations; not used if `fresh` is given.
    classifier: trained.
    images: (B, H, W, C) in [0, 1].
    explain: (classifier, images, targets) -> heat maps; a function made once,
      and traceable if `vectorised`, such as one around
      `maps.scores_and_gradients`.
    targets: see `maps.as_targets`; the answers of the trained network are
      explained in all stages.
    mode: one of `randomised_params.MODES`.
    names: of layers from the first to the last, see
      `randomised_params.stage_params`; None takes all in calling order.
      Reversed they randomise from the bottom.
    stages: numbers of those that are run, 0 has the last layer alone; None
      runs one for every layer.
    fresh: params of a network that was never trained, of the same structure;
      None permutes the trained values within each array.
    vectorised: all stages in one `vmap`; False runs one after the other with
      one program, for methods that are not traceable, and for CPUs, where the
      convolutions of many networks at once gain nothing and compile for long.
    stages_at_once: the most in one `vmap`, which bounds the memory of stacked
      params; None for all.
    chunk_size: images at a time.

  Returns:
    Maps and comparisons. The maps are kept, so that memory grows with stages
    times images.

  Raises:
    ValueError: an unknown mode or layer (the nearest are named), params of
      another structure, or maps of another size.

  References:
    Adebayo et al., Sanity checks for saliency maps, 2018, section 3.
  """
  images = maps.as_images(classifier, images)
  if names is None:
    names = randomised_params.calling_order(classifier)
  if stages_at_once is not None and stages_at_once < 1:
    raise ValueError(
      f'stages_at_once must be at least 1 or None, got {stages_at_once}.'
    )
  targets = maps.as_targets(classifier, images, targets, chunk_size=chunk_size)
  if fresh is None:
    fresh = randomised_params.permuted(key, classifier.params)
  original = _explained(classifier, images, explain, targets, chunk_size)
  stages = _checked_stages(stages, len(names))
  at_once = (stages_at_once or len(stages)) if vectorised else 1
  found = []
  for start in range(0, len(stages), at_once):
    params = randomised_params.stage_params(
      classifier.params, fresh, names, mode,
      stages=stages[start:start + at_once],
    )
    stacked = dataclasses.replace(classifier, params=params)
    found.append(_of_stages(
      stacked, images, explain, targets, vectorised, chunk_size
    ))
  heat_maps = np.concatenate(found)
  return Randomisation(
    mode, tuple(names[-1 - stage] for stage in stages), original, heat_maps,
    similarity.stack([similarity.compare(original, x) for x in heat_maps]),
    targets,
  )


def random_logit(
  key: jax.Array,
  classifier: classifiers.Classifier,
  images: ArrayLike,
  explain: infidelity.Explain,
  targets: ArrayLike | None = None,
  *,
  chunk_size: int = 8,
) -> OtherClass:
  """Returns how alike the heat maps of the target and of another class are.

  Args:
    key: of the other class, drawn evenly; each image has its own draw.
    classifier: with two classes at least.
    images: (B, H, W, C) in [0, 1].
    explain: (classifier, images, targets) -> heat maps.
    targets: see `maps.as_targets`.
    chunk_size: images at a time.

  Raises:
    ValueError: a single class, or maps of another size.

  References:
    Sixt, Granz and Landgraf, When explanations lie, 2020, section 5.
  """
  images = maps.as_images(classifier, images)
  number = len(classifier.class_names)
  if number < 2:
    raise ValueError('another class needs a classifier of two at least.')
  targets = maps.as_targets(classifier, images, targets, chunk_size=chunk_size)
  steps = np.asarray([
    jax.random.randint(jax.random.fold_in(key, i), (), 1, number)
    for i in range(len(images))
  ])
  others = ((targets + steps) % number).astype(np.int32)
  first, second = (
    _explained(classifier, images, explain, classes, chunk_size)
    for classes in (targets, others)
  )
  return OtherClass(targets, others, similarity.compare(first, second))


def _checked_stages(stages, number):
  found = np.arange(number) if stages is None else np.asarray(stages)
  if found.ndim != 1 or not len(found) or not (
    np.issubdtype(found.dtype, np.integer)
    and 0 <= found.min() and found.max() < number
  ):
    raise ValueError(
      f'stages must be numbers from 0 to {number - 1}, got {stages}.'
    )
  return found


def _of_stages(stacked, images, explain, targets, vectorised, chunk_size):
  """Returns the heat maps of stacked classifiers, (S, B, H, W)."""
  if not vectorised:
    single = jax.tree.map(lambda x: x[0], stacked)
    return _explained(single, images, explain, targets, chunk_size)[None]
  found = maps.run(
    _all_stages, [images, targets], chunk_size, stacked, explain=explain
  )
  return _checked(found.swapaxes(0, 1), images)


@functools.partial(jax.jit, static_argnames='explain')
def _all_stages(stacked, images, targets, *, explain):
  def of_stage(classifier):
    return measures.heat_maps_of(explain(classifier, images, targets))

  return jnp.swapaxes(jax.vmap(of_stage)(stacked), 0, 1)


def _explained(classifier, images, explain, targets, chunk_size):
  def rows(images, targets):
    return measures.heat_maps_of(explain(classifier, images, targets))

  found = maps.run(rows, [images, targets], chunk_size)
  return _checked(found, images)


def _checked(heat_maps, images):
  if heat_maps.shape[-3:] != images.shape[:3]:
    raise ValueError(
      f'explain must return maps of the size of the images, '
      f'{images.shape[:3]}, got {heat_maps.shape[-3:]}.'
    )
  return heat_maps
