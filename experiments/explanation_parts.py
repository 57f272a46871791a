"""What `experiments.explain` finds out about images and about factors."""

from collections.abc import Mapping
import dataclasses
import functools
import time

import jax
from ml_collections import ConfigDict
import numpy as np

from experiments import evaluate
from experiments import gpc
from experiments import methods as methods_lib
from experiments import runs
from jaxsens import classifiers
from jaxsens import factors
from jaxsens import slices
from jaxsens.attribution import cam
from jaxsens.attribution import integrals
from jaxsens.attribution import layer_scores
from jaxsens.attribution import maps
from jaxsens.attribution import randomised_params
from jaxsens.attribution import similarity
from jaxsens.data import image_sets
from jaxsens.perturbations import chains
from jaxsens.perturbations import registry

_CLASSES = 10  # whose activation maps are shown beside each other
_COLUMNS = 7  # values of a factor
# A path past many edges of pixels takes more steps than a straight line.
_LONGER, _TOLERANCE = 16, 1e-2

Arrays = dict[str, np.ndarray]


def attribute(
  context: methods_lib.Context,
  chosen: Mapping[str, methods_lib.Method],
  images: np.ndarray,
  targets: np.ndarray,
  *,
  skip: bool = False,
) -> tuple[list[dict], Arrays, list[dict]]:
  """Explains images by several methods.

  Args:
    context: of the methods.
    chosen: methods by name.
    images: (B, H, W, C).
    targets: (B,) classes.
    skip: leave out methods that this network cannot have, instead of raising.

  Returns:
    What is known of each method, its values (B, H, W, C) by name, and the
    methods left out with the reason.
  """
  entries, values, skipped = [], {}, []
  for name, method in chosen.items():
    start = time.perf_counter()
    try:
      found = method(context, images, targets)
    except methods_lib.REFUSALS as error:
      if not skip:
        raise
      runs.LOG.warning('%s is left out: %s', name, error)
      skipped.append({'name': name, 'reason': str(error)})
      continue
    seconds = time.perf_counter() - start
    share = found.relative_completeness_error
    sums = ''
    if name in methods_lib.COMPLETE:
      sums = f', sums off by {np.median(share):.2g} of the gain (median)'
    runs.LOG.info('%s: %d images in %.1f s%s', name, len(images), seconds, sums)
    values[name] = np.asarray(found.values, np.float32)
    entries.append({
      'name': name, 'method': found.method,
      'kind': kind_of(name, found),
      'complete': name in methods_lib.COMPLETE,
      'scores': found.scores, 'baseline_scores': found.baseline_scores,
      'completeness_error': found.completeness_error, 'relative_error': share,
      'num_gradients': found.num_gradients, 'num_forwards': found.num_forwards,
      'seconds': seconds,
    })
  return entries, values, skipped


def kind_of(name: str, found: maps.Attribution) -> str:
  """Returns what the numbers of a map are, see `heat_maps.scale_of`."""
  if name == 'RISE':  # mean scores, which are high or low everywhere
    return 'level'
  return 'signed' if (found.heat_maps < 0).any() else 'unsigned'


def randomise(
  key: jax.Array,
  context: methods_lib.Context,
  chosen: Mapping[str, methods_lib.Method],
  images: np.ndarray,
  targets: np.ndarray,
  trained: Arrays,
) -> tuple[list[dict], Arrays]:
  """Explains by a network of permuted params; see `attribute`.

  The rank correlations with the maps of the trained network come along.
  """
  network = context.classifier
  permuted = dataclasses.replace(
    network, params=randomised_params.permuted(key, network.params)
  )
  entries, values, _ = attribute(
    dataclasses.replace(context, classifier=permuted),
    {name: chosen[name] for name in trained}, images, targets, skip=True,
  )
  for entry in entries:
    alike = similarity.compare(*(
      part[entry['name']].sum(-1) for part in (trained, values)
    ))
    entry['spearman'] = alike.spearman
    entry['absolute_spearman'] = alike.absolute_spearman
    entry['ssim'] = alike.ssim
  return entries, values


def class_maps(
  context: methods_lib.Context, images: np.ndarray, logits: np.ndarray
) -> tuple[dict, np.ndarray]:
  """Returns Grad-CAM of all classes, or of the ten that are likeliest."""
  layer = layer_scores.with_map(context.classifier, context.layer)
  certainties = probabilities(context.classifier, logits)
  ranked = np.argsort(-certainties.mean(0), kind='stable')[:_CLASSES]
  classes = np.sort(ranked)
  found = cam.grad_cam_of_classes(
    context.classifier, images, layer, classes=classes,
    chunk_size=context.chunk_size,
  )
  return {
    'layer': layer, 'classes': classes, 'certainties': certainties[:, classes],
  }, found


def probabilities(
  classifier: classifiers.Classifier, logits: np.ndarray
) -> np.ndarray:
  """Returns softmax probabilities, or kernels, (N, K) float64."""
  logits = np.asarray(logits, np.float64)
  if classifier.answers == 'log_kernels':
    return np.exp(logits)
  powers = np.exp(logits - logits.max(-1, keepdims=True))
  return powers / powers.sum(-1, keepdims=True)


def panel(
  key: jax.Array,
  context: methods_lib.Context,
  chosen: Mapping[str, methods_lib.Method],
  config: ConfigDict,
  frames: image_sets.ImageSet,
  i: int,
  target: int,
  name: str,
) -> tuple[dict, Arrays]:
  """Explains one image at values over the range of a factor.

  Returns:
    What is known, the perturbed images and the values of each method.
  """
  space = one_factor(config, name)
  values = slices.axis(space, name, _COLUMNS)
  images = render(
    gpc.make_chain(config, space), frames.images[i], values[:, None], key
  )
  logits = evaluate.answer(context.classifier, images)
  entries, found, _ = attribute(
    context, chosen, images, np.full(len(images), target), skip=True
  )
  return {
    'factor': name, 'unit': space.units[0], 'values': values, 'image': i,
    'answers': logits.argmax(1),
    'certainties': evaluate.certainty_of(context.classifier, logits),
    'methods': entries,
  }, {'images': images, **found}


def paths(
  key: jax.Array,
  context: methods_lib.Context,
  config: ConfigDict,
  frames: image_sets.ImageSet,
  targets: np.ndarray,
  name: str,
  value: float | None,
) -> tuple[dict, Arrays] | None:
  """Explains what a factor changes, from no perturbation to the end of it.

  Args:
    key: of what is random in the perturbation.
    context: of the explanation.
    config: of the factors.
    frames: images before the perturbation.
    targets: (B,) classes.
    name: of the factor.
    value: where the path ends; None is the end of the range at which the score
      of the image changes more.

  Returns:
    What is known, images (B, 2, H, W, C) and values (B, H, W, C); None where
    the image is no differentiable function of the factor.
  """
  parameter = registry.parameter(name)[1]
  if not parameter.differentiable:
    runs.LOG.info('%s: no path, it has no derivative', name)
    return None
  # Roundings and nearest pixels have no derivative either.
  config = config.copy_and_resolve_references()
  config.perturbation.method = 'bilinear'
  if config.perturbation.convention == 'paper':
    config.perturbation.convention = 'sequential'
  space = one_factor(config, name)
  chain = gpc.make_chain(config, space)
  start = float(chain.identity[0])
  ends = slices.axis(space, name, 2) if value is None else np.array([value])
  rows = []
  for i in range(len(frames)):
    key_image = jax.random.fold_in(key, i)
    shown = render(
      chain, frames.images[i], np.array([start, *ends])[:, None],
      # The draw that the path has.
      jax.random.fold_in(key_image, 0),
    )
    found, logits = maps.run(
      _scores, [shown, np.full(len(shown), targets[i])], len(shown),
      context.classifier, quantity=context.quantity,
    )
    far = int(np.abs(found[1:] - found[0]).argmax())
    path = integrals.perturbation_path(
      key_image, context.classifier, np.asarray(frames.images[i])[None], chain,
      [start], [ends[far]], targets[i:i + 1], quantity=context.quantity,
      rule='adaptive', tolerance=_TOLERANCE,
      num_steps=_LONGER * context.num_steps, chunk_size=context.chunk_size,
    )
    both = [0, far + 1]
    rows.append({
      'ends': ends[far], 'answers': logits[both].argmax(1),
      'certainties': evaluate.certainty_of(context.classifier, logits[both]),
      'changes': float(path.scores[0] - path.baseline_scores[0]),
      'positive': path.heat_maps[0].clip(0).sum(dtype=float),
      'negative': path.heat_maps[0].clip(max=0).sum(dtype=float),
      'completeness_error': path.completeness_error[0],
      'num_gradients': path.num_gradients[0],
      'images': shown[both], 'values': path.values[0],
    })
  joined = {field: np.stack([row[field] for row in rows]) for field in rows[0]}
  arrays = {field: joined.pop(field) for field in ('images', 'values')}
  runs.LOG.info(
    'Path of %s: changes of %s', name,
    ', '.join(f'{change:+.3g}' for change in joined['changes']),
  )
  return {
    'factor': name, 'unit': space.units[0], 'start': start, **joined,
  }, arrays


def one_factor(config: ConfigDict, name: str) -> factors.FactorSpace:
  """Returns the space of one factor of a config."""
  space = gpc.make_space(config)
  return factors.FactorSpace((space.factors[space.index(name)],))


def render(
  chain: chains.Chain, image: np.ndarray, values: np.ndarray, key: jax.Array
) -> np.ndarray:
  """Returns an image under values (N, D), float32 (N, H, W, C) in [0, 1]."""
  found = maps.run(
    functools.partial(_perturbed, np.asarray(image, np.float32), key),
    [np.asarray(values, np.float32)], 16, chain=chain,
  )
  return np.clip(found, 0, 1)


@functools.partial(jax.jit, static_argnames='chain')
def _perturbed(image, key, values, *, chain):
  return jax.vmap(chain, (None, 0, None))(image, values, key)


@functools.partial(jax.jit, static_argnames='quantity')
def _scores(classifier, images, targets, *, quantity):
  found = maps.score(classifier, images, targets, quantity)
  return found, classifier(images)
