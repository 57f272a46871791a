"""Networks that are compared, and what they say of images.

They are those of one config with other seeds, trained on one split.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools
import pathlib

import jax
from ml_collections import ConfigDict
import numpy as np

from experiments import certainty_methods
from experiments import runs
from experiments import train
from experiments import unknown_images
from jaxsens import classifiers
from jaxsens.data import image_sets
from jaxsens.models import inference
from jaxsens.uncertainty import ensembles

KNOWN = ('train', 'validation', 'test')
_BATCH = 32


@dataclasses.dataclass(frozen=True)
class Data:
  """Images by part, of the size of the network, and the labels of the known.

  Attributes:
    images: 'train', 'validation', 'test' and the unknown sets.
    labels: of the first three, in 0..K-1.
  """

  images: Mapping[str, np.ndarray]
  labels: Mapping[str, np.ndarray]


def train_one(
  config: ConfigDict,
  workdir: pathlib.Path,
  splits: image_sets.Splits,
  seed: int,
  other: str = '',
) -> train.Trained:
  """Returns the network of a seed, restored where it is trained.

  Args:
    config: with `comparison`.
    workdir: the network lies in a directory of its own below it.
    splits: see `unknown_images.without_classes`.
    seed: of the network; the split is that of `config.seed`.
    other: which of `comparison.others` says what differs from the config.
  """
  one = config.copy_and_resolve_references()
  one.seed = seed
  with one.unlocked():
    # They decide the network, and no other run may take it over.
    one.data.split_seed = config.seed
    if config.comparison.held_out_classes:
      one.data.held_out_classes = config.comparison.held_out_classes
    if other:
      one.update(config.comparison.others[other])
    del one['comparison']
  folder = workdir / f'{other or "seed"}_{seed}'
  runs.start(one, folder)
  return train.train_or_restore(
    runs.split_keys(one)[1], one, folder, lambda: splits
  )


def load(
  key: jax.Array,
  config: ConfigDict,
  splits: image_sets.Splits,
  held_out: np.ndarray | None,
  classifier: classifiers.Classifier,
) -> Data:
  """Returns the images of the splits and unknown ones.

  Args:
    key: of the unknown ones.
    config: with `comparison`.
    splits: without the held-out classes.
    held_out: images of these, or None.
    classifier: whose size and channels they get.
  """
  size = classifier.image_size
  parts = {
    name: part for name in KNOWN if len(part := getattr(splits, name))
  }
  unknown = unknown_images.load(
    key, config.comparison, held_out, size, classifier.channels
  )
  return Data(
    {n: image_sets.resize_all(p.images, size) for n, p in parts.items()}
    | unknown,
    {n: p.labels for n, p in parts.items()},
  )


def ask(
  key: jax.Array,
  trained: train.Trained,
  data: Data,
  num_samples: int,
) -> dict[str, certainty_methods.Outputs]:
  """Returns what a network says of each part.

  Args:
    key: of dropout.
    trained: the network.
    data: images.
    num_samples: answers under dropout, where the network has some.
  """
  classifier = trained.classifier
  shape = (*classifier.image_size, classifier.channels)
  prepared = inference.prepare(trained.network, shape)
  try:
    dropping = ensembles.with_dropout(trained.network, shape)
  except ValueError:  # it drops nothing
    dropping = None

  @functools.partial(jax.jit, static_argnums=2)
  def answer(key, images, num_samples):
    images = classifier.preprocess(images)
    answers = prepared.embed(images), prepared(images)
    if not num_samples:
      return *answers, answers[1][None][:0]
    return *answers, dropping(key, images, num_samples)

  found = {}
  for i, (name, images) in enumerate(data.images.items()):
    of_part = 0 if name == 'train' or dropping is None else num_samples
    batches = []
    for start in range(0, len(images), _BATCH):
      chosen = images[start : start + _BATCH]
      padded = np.resize(chosen, (_BATCH, *images.shape[1:]))
      one = jax.random.fold_in(jax.random.fold_in(key, i), start)
      features, logits, samples = map(np.asarray, answer(one, padded, of_part))
      n = len(chosen)
      batches.append((
        features[:n], logits[:n], samples[:, :n]
      ))
    features, logits, samples = zip(*batches, strict=True)
    found[name] = certainty_methods.Outputs(
      np.concatenate(features), np.concatenate(logits),
      np.concatenate(samples, axis=1),
    )
  return found


def joined(
  outputs: Sequence[Mapping[str, certainty_methods.Outputs]],
) -> dict[str, certainty_methods.Outputs]:
  """Returns the outputs of all networks, their logits as samples."""
  return {
    name: dataclasses.replace(
      o, samples=np.stack([one[name].logits for one in outputs])
    )
    for name, o in outputs[0].items()
  }
