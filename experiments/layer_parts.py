"""The parts of an inspection as plain numbers, see `inspect_layers`."""

from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import dataclasses
from typing import Any

import jax
import numpy as np

from jaxsens import classifiers
from jaxsens.data import image_sets
from jaxsens.inspection import channels
from jaxsens.inspection import embeddings
from jaxsens.inspection import probes
from jaxsens.inspection import regions
from jaxsens.inspection import similarity

_NUM_TOP = 12  # channels told of each layer
_NUM_EXAMPLES = 6
_MIN_PIXELS = 4
_MIN_GROUP = 3
_FILLS = {
  'black': 'black', 'white': 'white', 'mean': 'the mean of the rest',
  'blur': 'the image out of focus',
  'neighbours': 'what is around them, smoothly',
}


@dataclasses.dataclass(frozen=True, eq=False)
class Chosen:
  """Images that are looked at.

  Attributes:
    images: (N, H, W, C).
    labels: (N,).
    groups: recording of each, or None where no two images share one.
  """

  images: np.ndarray
  labels: np.ndarray
  groups: np.ndarray | None


def choose(
  key: jax.Array,
  part: image_sets.ImageSet,
  number: int,
  size: tuple[int, int],
) -> Chosen:
  """Returns at most `number` images of a part, drawn at random, in order.

  Raises:
    ValueError: there are fewer than 10 of them.
  """
  if min(number, len(part)) < 10:
    raise ValueError(
      'probes and embeddings take 10 images at the least, there are '
      f'{len(part)} and --num_images is {number}.'
    )
  order = np.asarray(jax.random.permutation(key, len(part)))[:number]
  rows = np.sort(order)
  part = part.take(rows)
  images = image_sets.resize_all(part.images, size)
  groups = np.asarray(part.groups)
  distinct = len(set(groups.tolist())) == len(groups)
  return Chosen(images, part.labels, None if distinct else groups)


def probe_layers(
  key: jax.Array,
  found: Sequence[Mapping[str, np.ndarray]],
  fitted_labels: np.ndarray,
  shown: Chosen,
  num_samples: int,
) -> list[dict[str, Any]]:
  """Returns a probe of each layer.

  Args:
    key: of the intervals.
    found: features of the fitted and of the shown images by layer.
    fitted_labels: (N,).
    shown: held-out images.
    num_samples: resamples.
  """
  fitted, held_out = found
  rows = []
  for name in fitted:
    with _named(name):
      probe = probes.fit(
        key, fitted[name], fitted_labels, held_out[name], shown.labels,
        groups=shown.groups, num_samples=num_samples,
      )
    rows.append({'layer': name} | probe.as_dict())
  return rows


def embed_layers(
  key: jax.Array,
  found: Mapping[str, np.ndarray],
  labels: np.ndarray,
  perplexity: float | None,
) -> list[dict[str, Any]]:
  """Returns principal components and t-SNE of each layer."""
  rows = []
  for name, values in found.items():
    with _named(name):
      both = (
        embeddings.principal(values),
        embeddings.tsne(key, values, perplexity=perplexity),
      )
    for one in both:
      rows.append({'layer': name} | dataclasses.asdict(one) | {
        'neighbour_accuracy': embeddings.neighbour_accuracy(one.points, labels)
      })
  return rows


def compare_layers(
  found: Mapping[str, np.ndarray],
  others: Mapping[str, np.ndarray] | None,
) -> list[dict[str, Any]]:
  """Returns CKA of the layers with each other, and with those of others."""
  pairs = [('layers of the network', found, None)]
  if others is not None:
    pairs += [
      ('the network (rows) and the other one', found, others),
      ('layers of the other network', others, None),
    ]
  return [
    {
      'title': title, 'rows': list(rows),
      'columns': list(rows if columns is None else columns),
      'values': similarity.cka_matrix(rows, columns),
      'between': columns is not None,
    } for title, rows, columns in pairs
  ]


def compare_groups(
  means: Mapping[str, np.ndarray],
  labels: np.ndarray,
  first: Sequence[int],
  second: Sequence[int],
  class_names: Sequence[str],
) -> dict[str, Any]:
  """Returns how channels differ between classes; {} without two groups."""
  chosen = [np.isin(labels, group) for group in (first, second)]
  if not means or min(group.sum() for group in chosen) < 2:
    return {}
  layers = []
  for name, values in means.items():
    found = channels.compare(*(values[group] for group in chosen))
    fields = {
      field: value for field, value in dataclasses.asdict(found).items()
      if np.shape(value) and field != 'order'
    }
    layers.append({
      'layer': name, 'num_channels': values.shape[1],
      'num_different': int((found.adjusted_p < 0.05).sum()),
      'top': [
        {'channel': int(c)} | {
          field: float(value[c]) if np.isfinite(value[c]) else None
          for field, value in fields.items()
        } for c in found.order[:_NUM_TOP]
      ],
    })
  several = f'the other {len(second)} classes'
  return {
    'first': class_names[first[0]],
    'second': class_names[second[0]] if len(second) == 1 else several,
    'num_first': int(chosen[0].sum()), 'num_second': int(chosen[1].sum()),
    'layers': layers,
  }


def typical_channels(
  values: np.ndarray, labels: np.ndarray, number: int
) -> list[tuple[int, int]]:
  """Returns (channel, class), classes in turn, no channel twice.

  The channel is, of those left, the one that is highest for the class against
  the rest, by Welch's t.

  Args:
    values: (N, C).
    labels: (N,).
    number: of pairs, fewer if there are not so many channels.
  """
  classes, counts = np.unique(labels, return_counts=True)
  classes = classes[(counts > 1) & (counts < len(labels) - 1)]
  ranks = {
    k: np.argsort(-channels.compare(
      values[labels == k], values[labels != k]
    ).t, kind='stable') for k in classes
  }
  found: list[tuple[int, int]] = []
  for i in range(min(number, values.shape[1]) if len(classes) else 0):
    k = classes[i % len(classes)]
    taken = [channel for channel, _ in found]
    found.append((int(next(c for c in ranks[k] if c not in taken)), int(k)))
  return found


def describe_weights(
  arrays: Mapping[str, np.ndarray], layers: Sequence[str]
) -> list[dict[str, Any]]:
  """Returns statistics of the weights, in the order of their layers."""
  place = {name: i for i, name in enumerate(layers)}
  found = channels.weight_statistics(dict(arrays))
  return [one.as_dict() for one in sorted(
    found,
    key=lambda one: place.get(one.name.rpartition('.')[0], len(layers)),
  )]


def replace_regions(
  key: jax.Array,
  classifier: classifiers.Classifier,
  shown: Chosen,
  certainty: np.ndarray,
  options: Any,
) -> list[dict[str, Any]]:
  """Returns what stains and padding do to the answers.

  Args:
    key: of where regions are moved for comparison.
    classifier: what answers.
    shown: the images.
    certainty: (N,) of the answers.
    options: has `stain_level` and `fill`.
  """
  level = options.stain_level
  return [
    _replace_region(key, classifier, shown, certainty, options.fill, *what)
    for what in (
      ('white stains', f'Pieces of at least {_MIN_PIXELS} pixels at {level:g} '
       'or above', regions.stains(
         shown.images, level, min_pixels=_MIN_PIXELS
       )),
      ('black padding', f'Pieces of at least {_MIN_PIXELS} pixels at 0 that '
       'hang together with the border', regions.padding(
         shown.images, min_pixels=_MIN_PIXELS
       )),
    )
  ]


@contextlib.contextmanager
def _named(layer):
  """Says in errors which layer they are about."""
  try:
    yield
  except ValueError as error:
    raise ValueError(f'layer {layer!r}: {error}') from error


def _replace_region(
  key, classifier, shown, certainty, fill, kind, definition, masks
):
  there = masks.any((1, 2))
  # Of an image that is all region nothing would be left.
  rows = np.flatnonzero(there & ~masks.all((1, 2)))
  part = {
    'kind': kind, 'definition': definition, 'fill': _FILLS[fill],
    'quantity': regions.usual_quantity(classifier),
    'num_images': len(masks), 'areas': [], 'changes': [],
    'control_changes': [], 'num_changed': 0, 'num_control_changed': 0,
    'effect_p': None, 'groups': None, 'within': {}, 'examples': [],
  }
  if not len(rows):
    return part
  images, masks = shown.images[rows], masks[rows]
  found = regions.effect(classifier, images, masks, fill=fill)
  control = regions.effect(
    classifier, images, regions.elsewhere(key, masks), fill=fill
  )
  names = classifier.class_names
  order = np.argsort(-np.abs(found.changes), kind='stable')[:_NUM_EXAMPLES]
  within = {
    names[k]: _by_certainty(certainty, there, shown.labels == k)
    for k in range(len(names))
  }
  return part | {
    'areas': found.areas.tolist(), 'changes': found.changes.tolist(),
    'control_changes': control.changes.tolist(),
    'num_changed': int(found.changed.sum()),
    'num_control_changed': int(control.changed.sum()),
    'effect_p': regions.compare_pairs(
      np.abs(found.changes), np.abs(control.changes)
    ),
    'groups': _by_certainty(certainty, there, np.ones(len(there), bool)),
    'within': {name: one for name, one in within.items() if one},
    'examples': [
      {
        'image': images[i], 'replaced': found.images[i], 'mask': masks[i],
        'answer_before': names[found.answers_before[i]],
        'answer_after': names[found.answers_after[i]],
        'before': float(found.before[i]), 'after': float(found.after[i]),
      } for i in order
    ],
  }


def _by_certainty(certainty, there, among):
  """Certainty with and without a region, None of too few images."""
  groups = certainty[there & among], certainty[~there & among]
  if min(map(len, groups)) < _MIN_GROUP:
    return None
  return regions.compare_groups(*groups).as_dict()
