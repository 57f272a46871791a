"""Images with masks, and heat maps of them that are kept once computed."""

from collections.abc import Callable
import dataclasses
import hashlib
import io
import json
import pathlib
import re
import time
from typing import Any
import zipfile

import jax
import numpy as np

from experiments import evaluate
from experiments import methods
from jaxsens import classifiers
from jaxsens import files
from jaxsens.attribution import taps
from jaxsens.data import image_sets

# What a saved file holds; another number leaves old ones unused.
_VERSION = 1
_SURE = 20.0  # seconds that a compilation of a second does not matter in


@dataclasses.dataclass(frozen=True, eq=False)
class Chosen:
  """Images that the network recognises, with the masks of their classes.

  Attributes:
    images: (N, H, W, C).
    masks: (N, H, W) bool, one pixel or more each.
    labels: (N,) int32, which are the answers of the network.
    names: of the images.
    groups: recording of each, or None where no two images share one.
    num_all: images of the part.
    num_recognised: of these.
    num_without_mask: recognised ones that were met and have no pixel of their
      class.
  """

  images: np.ndarray
  masks: np.ndarray
  labels: np.ndarray
  names: tuple[str, ...]
  groups: np.ndarray | None
  num_all: int
  num_recognised: int
  num_without_mask: int


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
  """Heat maps by one method.

  Attributes:
    validation, test, randomised: (N, H, W) float32, those of the last by a
      network whose params are permuted, of the first test images.
    facts: 'images_per_second' and 'cpu_seconds' per image (of all cores; both
      warm), 'num_gradients', 'num_forwards' (means per image), 'completeness'
      (median relative error), 'explained_as' (what the method calls itself);
      nothing of baselines.
  """

  validation: np.ndarray
  test: np.ndarray
  randomised: np.ndarray
  facts: dict[str, Any]


def check_masks(part: image_sets.ImageSet, name: str) -> None:
  """Raises ValueError for a part without images or masks."""
  if not len(part):
    raise ValueError(
      f'there are no {name} images: the validation images choose thresholds, '
      'the test images judge them.'
    )
  if part.masks is None:
    raise ValueError(
      f'the {name} images ({part.description}) have no masks, so that there is '
      'nothing to compare heat maps with; configs/steel_masks.py has data with '
      'masks.'
    )
  if not set(part.class_names) & set(part.mask_names):
    raise ValueError(
      f'the masks mark {", ".join(part.mask_names)}, none of which is a class '
      f'({", ".join(part.class_names)}).'
    )


def choose(
  key: jax.Array,
  classifier: classifiers.Classifier,
  part: image_sets.ImageSet,
  number: int,
  name: str,
) -> Chosen:
  """Returns images that the network recognises, drawn at random.

  Args:
    key: of the draw; more images of the same key hold the fewer ones.
    classifier: what recognises.
    part: images with masks.
    number: at most; 0 takes all.
    name: of the part.

  Raises:
    ValueError: no masks, or none of the images is recognised.
  """
  check_masks(part, name)
  images = image_sets.resize_all(part.images, classifier.image_size)
  right = evaluate.answer(classifier, images).argmax(1) == part.labels
  order = np.asarray(jax.random.permutation(key, len(part)))
  masks, without = {}, 0
  for i in order[right[order]].tolist():
    if number and len(masks) == number:
      break
    mask = _own_mask(part, i, classifier.image_size)
    if mask.any():
      masks[i] = mask
    else:
      without += 1
  if not masks:
    raise ValueError(
      f'none of the {len(part)} {name} images is recognised and has a mask of '
      f'its class ({right.sum()} are recognised).'
    )
  rows = sorted(masks)
  groups = np.asarray(part.groups)[rows]
  return Chosen(
    images[rows], np.stack([masks[i] for i in rows]), part.labels[rows],
    tuple(part.names[i] for i in rows),
    groups if len(np.unique(groups)) < len(rows) else None,
    len(part), int(right.sum()), without,
  )


def _own_mask(part, index, size):
  """Returns the mask of the class of an image, (H, W); empty if it has none."""
  name = part.class_names[part.labels[index]]
  if name not in part.mask_names:
    return np.zeros(size, bool)
  return nearest(
    np.asarray(part.masks[index])[..., part.mask_names.index(name)], size
  )


def nearest(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Returns a mask (h, w) at another size, the nearest pixel for each."""
  rows, columns = (
    ((np.arange(new) + 0.5) * old / new).astype(int)
    for old, new in zip(mask.shape, size, strict=True)
  )
  return mask[rows[:, None], columns]


def choose_layer(classifier: classifiers.Classifier, name: str) -> str | None:
  """Returns the layer of activation maps; None for the last one with a map.

  Args:
    classifier: a Flax network.
    name: of the layer; '' takes the last `features.N`, since what follows it
      in a SqueezeNet is a map per class already.

  Raises:
    ValueError: there is no such layer.
  """
  if name:
    taps.check_layers(classifier, [name])
    return name
  stages = [
    layer for layer, shape in taps.layer_shapes(classifier).items()
    if re.fullmatch(r'features\.\d+', layer) and len(shape) == 3
  ]
  return stages[-1] if stages else None


def baselines(key: jax.Array) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
  """Returns maps that know nothing of the network: images -> (N, H, W)."""
  def random(images):
    return np.stack([
      np.asarray(jax.random.uniform(
        jax.random.fold_in(key, i), images.shape[1:3]
      )) for i in range(len(images))
    ])

  def blob(images):
    rows, columns = (np.linspace(-1, 1, n) for n in images.shape[1:3])
    one = np.exp(-2 * (rows[:, None]**2 + columns**2))
    return np.repeat(one[None], len(images), 0)

  return {
    'random map': random,
    'centre blob': blob,
    'image: darkness': lambda images: 1 - images.mean(-1),
    'image: distance from its mean': lambda images: np.abs(
      images - images.mean((1, 2), keepdims=True)
    ).mean(-1),
  }


def of_baseline(function, validation: Chosen, test: Chosen) -> Found:
  """Returns the maps of a function of the images."""
  return Found(
    function(validation.images), function(test.images),
    np.zeros((0, *test.masks.shape[1:])), {},
  )


def path_of(folder: pathlib.Path, name: str, decisive: Any) -> pathlib.Path:
  """Returns where something is kept: its name and a hash of what decides it."""
  slug = re.sub(r'\W+', '_', name.replace('+', 'p')).strip('_').lower()
  text = json.dumps([_VERSION, name, decisive], sort_keys=True)
  digest = hashlib.sha256(text.encode()).hexdigest()[:12]
  return folder / f'{slug}-{digest}'


def decisive(context: methods.Context, network: str, *parts: Chosen) -> list:
  """Returns what decides maps beside the method, as JSON has it."""
  return [
    network, jax.random.key_data(context.key).tolist(), context.layer,
    context.quantity, context.num_steps, context.num_masks,
    [digest(context.references), *(
      [digest(part.images), part.labels.tolist()] for part in parts
    )],
  ]


def digest(array: np.ndarray) -> str:
  """Returns a hash of an array."""
  return hashlib.sha256(np.ascontiguousarray(array)).hexdigest()[:16]


def saved(path: pathlib.Path) -> Found | None:
  """Returns the maps of a file; None if it is not there or not whole."""
  path = path.with_suffix('.npz')
  if not path.is_file():
    return None
  try:
    with np.load(path) as content:
      return Found(
        content['validation'], content['test'], content['randomised'],
        json.loads(str(content['facts'])),
      )
  except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
    return None


def save(path: pathlib.Path, found: Found) -> None:
  """Writes maps whole or not at all."""
  buffer = io.BytesIO()
  np.savez(
    buffer, validation=found.validation, test=found.test,
    randomised=found.randomised, facts=json.dumps(found.facts),
  )
  files.write_bytes(path.with_suffix('.npz'), buffer.getvalue())


def _timed(call):
  """Returns what a call returns, its seconds, and those of all cores."""
  begun, busy = time.perf_counter(), time.process_time()
  found = call()
  return found, time.perf_counter() - begun, time.process_time() - busy


def compute(
  method: methods.Method,
  context: methods.Context,
  permuted: classifiers.Classifier,
  validation: Chosen,
  test: Chosen,
  num_sanity: int,
) -> Found:
  """Returns the heat maps of a method and what they took.

  The validation images are explained first, so that the compiled programs are
  there when the test images are, which are timed; where that is over soon, once
  more, since a few small programs know the number of images.

  Args:
    method: of `methods.METHODS`.
    context: its classifier is the trained one.
    permuted: the same without what it has learned.
    validation: images.
    test: images.
    num_sanity: of these for the permuted network.
  """
  first = method(context, validation.images, validation.labels)
  explain = lambda: method(context, test.images, test.labels)
  found, seconds, busy = _timed(explain)
  if seconds < _SURE:
    _, seconds, busy = _timed(explain)
  randomised = np.zeros((0, *test.masks.shape[1:]), np.float32)
  if num_sanity:
    randomised = method(
      dataclasses.replace(context, classifier=permuted),
      test.images[:num_sanity], test.labels[:num_sanity],
    ).heat_maps
  error = found.relative_completeness_error
  return Found(
    *(x.astype(np.float32) for x in (
      first.heat_maps, found.heat_maps, randomised
    )),
    {
      'explained_as': found.method,
      'images_per_second': len(test.images) / seconds,
      'cpu_seconds': busy / len(test.images),
      'num_gradients': float(found.num_gradients.mean()),
      'num_forwards': float(found.num_forwards.mean()),
      'completeness': float(np.median(error)),
    },
  )
