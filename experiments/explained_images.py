"""Which images are explained, for which class, and what comes with them."""

from collections.abc import Sequence
import dataclasses
import difflib

import jax
from ml_collections import ConfigDict
import numpy as np

from experiments import gpc
from experiments import image_results
from jaxsens import classifiers
from jaxsens.data import image_sets

TARGETS = ('predicted', 'label')
"""Classes that depend on the image."""

_REFERENCES = 20  # images of the data, for the methods that compare with them


def check_target(class_names: Sequence[str], target: str) -> None:
  """Raises ValueError for a target that is no class; the nearest are named."""
  if target not in (*TARGETS, *class_names):
    near = difflib.get_close_matches(target, class_names, 3, 0.3)
    raise ValueError(
      f'--target must be predicted, label or a class, got {target!r}; next to '
      f'it are {", ".join(near or class_names)}.'
    )


def choose_images(
  part: image_sets.ImageSet, classifier: classifiers.Classifier,
  config: ConfigDict, wanted: Sequence[str],
) -> image_sets.ImageSet:
  """Returns the images of names or numbers, or some of every class.

  Raises:
    ValueError: there is no such image, or the network recognises none.
  """
  if not wanted:
    if config.data.get('only_recognised', False):
      part = image_results.recognised(classifier, part)
      if not len(part):
        raise ValueError(
          'the network recognises none of the test images; name some by '
          '--images.'
        )
    return gpc.analysed_frames(part, config)
  rows = []
  for name in wanted:
    if name in part.names:
      rows.append(part.names.index(name))
    elif name.isdigit() and int(name) < len(part):
      rows.append(int(name))
    else:
      near = difflib.get_close_matches(name, part.names, 3, 0.3)
      raise ValueError(
        f'--images: there is no image {name!r}; numbers go from 0 to '
        f'{len(part) - 1}, names are as {", ".join(near or part.names[:3])}.'
      )
  return part.take(rows)


def choose_targets(
  target: str, class_names: Sequence[str], logits: np.ndarray,
  labels: np.ndarray,
) -> np.ndarray:
  """Returns the class of each image that is explained, (B,) int32."""
  if target == 'predicted':
    return logits.argmax(1).astype(np.int32)
  if target == 'label':
    return labels
  return np.full(len(labels), class_names.index(target), np.int32)


def references(
  key: jax.Array, splits: image_sets.Splits,
  classifier: classifiers.Classifier,
) -> np.ndarray:
  """Returns some training images; test images where there are none."""
  part = next(p for p in (splits.train, splits.test) if len(p))
  rows = np.asarray(jax.random.permutation(key, len(part)))[:_REFERENCES]
  return image_sets.resize_all(
    part.take(np.sort(rows)).images, classifier.image_size
  )


def decoded(frames: image_sets.ImageSet) -> image_sets.ImageSet:
  """Returns images that are read or drawn once, however often looked at."""
  images = frames.images
  if isinstance(images, image_sets.RenderedImages):
    images = images.all()
  return dataclasses.replace(
    frames, images=[np.asarray(image, np.float32) for image in images]
  )


def defects(frames: image_sets.ImageSet) -> np.ndarray | None:
  """Returns where the defect of the label is, (B, h, w) bool.

  All defects of an image where none is of its label; None without masks.
  """
  if frames.masks is None:
    return None
  found = []
  for mask, label in zip(frames.masks, frames.labels, strict=True):
    name = frames.class_names[label]
    if name in frames.mask_names:
      mask = mask[..., [frames.mask_names.index(name)]]
    found.append(mask.any(-1))
  return np.stack(found)


def resized(masks: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Returns masks (B, h, w) as the network sees them, (B, H, W)."""
  return image_sets.resize_all(
    masks[..., None].astype(np.float32), size
  )[..., 0] >= 0.5
