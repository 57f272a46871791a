"""Real networks on real images, and the true Sobol indices of their answers.

A study is a trained classifier, images of a test set that it recognises, and a
space of factors. What competes on it asks `evaluate` for the logits of one
image at rows of physical values; `truth` integrates the same function on a
dense grid, and is kept on disk because it takes minutes.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import hashlib
import io
import json
import os
import pathlib

from flax import nnx
import jax
import numpy as np

from configs import cifar10 as cifar10_config
from configs import steel as steel_config
from experiments import gpc
from experiments import image_results
from experiments import runs
from experiments import train
from jaxsens import classifiers
from jaxsens import evaluation
from jaxsens import factors
from jaxsens import files
from jaxsens import quantities
from jaxsens.data import image_sets
from jaxsens.gpc import designs
from jaxsens.gpc import pick_freeze
from jaxsens.models import inference
from jaxsens.models import registry
from jaxsens.models import states
from jaxsens.perturbations import chains
from jaxsens.weights import convert
from jaxsens.weights import manifest

GRID = {'brightness': 40, 'rotation': 64, 'tilt': 24, 'keystone': 24}
"""Nodes per factor of the grid that serves as the truth of `cifar_study`."""

STEEL_GRID = {'brightness': 20, 'rotation': 48, 'tilt': 20}
"""The same of `steel_study` with three factors."""

_CIFAR_NORMALISE = classifiers.Normalise((0.5,) * 3, (0.5,) * 3)
_CHUNK_SIZE = 4096
# Apart from the seeds that methods are tried with.
_TRUTH_SEED = 20_000


@dataclasses.dataclass(frozen=True, eq=False)
class Study:
  """A classifier under perturbations of images that it recognises.

  Attributes:
    name: of the study.
    space: the factors, in the order in which they act.
    images: the images; the label of each is the classifier's own answer.
    evaluator: gives the logits.
    key: for the evaluator; no perturbation draws from it.
    digest: of the network and the perturbations, for caches.
  """

  name: str
  space: factors.FactorSpace
  images: image_sets.ImageSet
  evaluator: evaluation.Evaluator
  key: jax.Array
  digest: str

  @property
  def labels(self) -> np.ndarray:
    """Class of each image, (num_images,) int32."""
    return self.images.labels

  @property
  def class_names(self) -> tuple[str, ...]:
    """The C classes, in the order of the logits."""
    return self.images.class_names

  def evaluate(self, image_index: int, values: np.ndarray) -> np.ndarray:
    """Returns the logits of one image at physical values.

    Args:
      image_index: position in `images`.
      values: (N, D), columns in the order of `space`.

    Returns:
      (N, C) float64.
    """
    label = int(self.labels[image_index])
    logits = self.evaluator(
      self.key, self.images.images[image_index], label, values,
      name=self.images.names[image_index],
    )
    return logits.astype(np.float64)


@dataclasses.dataclass(frozen=True, eq=False)
class Truth:
  """Sobol indices of the probability of the true class of one image.

  Attributes:
    names: the D factors.
    first_order: (D,).
    total: (D,).
    mean: of the probability.
    variance: of the probability.
    num_evaluations: runs of the network that it took.
    half_width: largest half width of the 95 % intervals of its indices; 0 of a
      grid, whose error is not of chance.
    first_order_error: (D,) standard errors of the first-order indices; None of
      a grid, and of a sampled truth that was kept before these were.
    total_error: the same of the total indices.
  """

  names: tuple[str, ...]
  first_order: np.ndarray
  total: np.ndarray
  mean: float
  variance: float
  num_evaluations: int
  half_width: float = 0.0
  first_order_error: np.ndarray | None = None
  total_error: np.ndarray | None = None

  @property
  def indices(self) -> np.ndarray:
    """First-order indices and then total ones, (2 D,)."""
    return np.concatenate([self.first_order, self.total])

  @property
  def errors(self) -> np.ndarray | None:
    """Standard errors of `indices`, (2 D,); None: not known for each.

    Those of a grid are 0. The largest interval alone does not tell them.
    """
    if self.half_width == 0:
      return np.zeros_like(self.indices)
    if self.first_order_error is None or self.total_error is None:
      return None
    return np.concatenate([self.first_order_error, self.total_error])


def cifar_study(num_images: int = 52) -> Study:
  """Returns the study of a LeNet-like network on exact CIFAR-10 images.

  Args:
    num_images: the first so many test images, in the order of the file, that
      the network recognises.

  Raises:
    FileNotFoundError: images or weights are not on this machine.
    ValueError: fewer images are recognised.
  """
  config = runs.resolve(cifar10_config.get_config())
  path = manifest.find_pretrained(config.model.name)
  if path is None:
    raise FileNotFoundError('no weights of lenet (cifar_net.pth) found.')
  test = train.load_data(runs.split_keys(config)[0], config).test
  blank = nnx.eval_shape(
    lambda: registry.create(
      config.model.name, jax.random.key(0), len(test.class_names)
    )
  )
  network = convert.load_torch_names(blank, convert.read_state_dict(path)).model
  classifier = inference.classifier(
    network, preprocess=_CIFAR_NORMALISE, class_names=test.class_names,
    image_size=(config.model.image_size,) * 2, channels=3,
  )
  images = image_results.recognised(classifier, test)
  return make_study(
    'cifar', classifier, _first(images, np.arange(len(images)), num_images),
    gpc.make_space(config), batch_size=64,
    digest=_digest(config.model.name, network),
  )


def steel_study(
  num_images: int = 20,
  num_factors: int = 3,
  *,
  workdir: str | os.PathLike,
) -> Study:
  """Returns the study of a ResNet18 on surfaces of steel (NEU-DET).

  Args:
    num_images: test images that the network recognises, the classes in turn.
    num_factors: 3, or 6 for the further factors of `configs/steel.py:six`.
    workdir: run directory of `configs/steel.py` with the checkpoint; the
      network is trained there if it holds none.

  Raises:
    FileNotFoundError: the images are not on this machine.
    ValueError: another number of factors, or fewer images are recognised.
  """
  if num_factors not in (3, 6):
    raise ValueError(f'num_factors must be 3 or 6, got {num_factors}')
  config = runs.resolve(
    steel_config.get_config('six' if num_factors == 6 else '')
  )
  key_data, key_train = runs.split_keys(config)[:2]
  splits = train.load_data(key_data, config)
  trained = train.train_or_restore(
    key_train, config, pathlib.Path(workdir), lambda: splits
  )
  images = image_results.recognised(trained.classifier, splits.test)
  return make_study(
    f'steel{num_factors}', trained.classifier,
    _first(images, gpc.in_turn(images.labels), num_images),
    gpc.make_space(config), batch_size=32,
    digest=_digest(config.model.name, trained.network),
  )


def make_study(
  name: str,
  classifier: classifiers.Classifier,
  images: image_sets.ImageSet,
  space: factors.FactorSpace,
  *,
  batch_size: int,
  digest: str,
) -> Study:
  """Returns the study of a classifier; see `Study` for the arguments.

  Args:
    name: of the study.
    classifier: the network.
    images: images that it recognises.
    space: factors named like perturbations, in the order in which they act.
    batch_size: images that go through the network together.
    digest: of the network.
  """
  chain = chains.make_chain(space, classifier.image_size)
  evaluator = evaluation.make_evaluator(
    classifier, chain,
    quantities.make_quantities(('logits',), classifier.class_names),
    batching=evaluation.Batching(batch_size, _CHUNK_SIZE),
  )
  described = json.dumps([digest, chain.describe()])
  return Study(
    name, space, images, evaluator, jax.random.key(0),
    hashlib.sha256(described.encode()).hexdigest(),
  )


def probability(logits: np.ndarray, label: int) -> np.ndarray:
  """Returns the softmax probability (N,) of a class from logits (N, C)."""
  shifted = np.exp(logits - logits.max(1, keepdims=True))
  return shifted[:, label] / shifted.sum(1)


def truth(
  study: Study,
  image_index: int,
  num_nodes: Mapping[str, int] = GRID,
  *,
  folder: str | os.PathLike,
) -> Truth:
  """Returns the indices on a tensor Gauss grid, from disk if they are there.

  Args:
    study: the study.
    image_index: position in its images.
    num_nodes: nodes of each factor, by its name.
    folder: where finished truths are kept, one .npz file each, named by a
      hash of network, perturbations, factors, image and grid.
  """
  sizes = [int(num_nodes[name]) for name in study.space.names]

  def compute():
    design = designs.tensor_gauss(study.space, sizes)
    logits = study.evaluate(image_index, study.space.to_values(design.nodes))
    values = probability(logits, study.labels[image_index])
    weights = [
      designs.tensor_gauss(factors.FactorSpace((factor,)), (n,)).weights
      for factor, n in zip(study.space.factors, sizes, strict=True)
    ]
    return grid_indices(values.reshape(sizes), weights, study.space.names)

  return _kept(study, image_index, ['tensor_gauss', sizes], folder, compute)


def sampled_truth(
  study: Study,
  image_index: int,
  num_base: int = 512,
  num_samples: int = 8,
  *,
  folder: str | os.PathLike,
) -> Truth:
  """Returns the indices by pick-freeze, where a grid has too many nodes.

  Args:
    study: the study, of D factors.
    image_index: position in its images.
    num_base: base points of each sample; the runs are num_samples num_base
      (D + 2).
    num_samples: independently scrambled Sobol sequences, at least 3; their
      spread gives `half_width` and the standard error of each index.
    folder: as in `truth`.
  """

  def compute():
    key = jax.random.fold_in(jax.random.key(_TRUTH_SEED), image_index)
    estimates, num_evaluations = [], 0
    for key_sample in jax.random.split(key, num_samples):
      sample = pick_freeze.sample(key_sample, study.space, num_base)
      logits = study.evaluate(image_index, study.space.to_values(sample.nodes))
      values = probability(logits, study.labels[image_index])
      estimates.append(pick_freeze.estimate(sample, values[:, None]))
      num_evaluations += sample.num_nodes
    found = pick_freeze.combine(estimates)
    widths = [
      found.first_order_upper - found.first_order_lower,
      found.total_upper - found.total_lower,
    ]
    return Truth(
      found.names, found.first_order[:, 0], found.total[:, 0],
      float(found.mean[0]), float(found.variance[0]), num_evaluations,
      float(np.max(widths)) / 2,
      *(_standard_error([getattr(one, kind)[:, 0] for one in estimates])
        for kind in ('first_order', 'total')),
    )

  how = ['pick_freeze', num_base, num_samples]
  return _kept(study, image_index, how, folder, compute)


def grid_indices(
  values: np.ndarray, weights: Sequence[np.ndarray], names: Sequence[str]
) -> Truth:
  """Returns the indices of a function on a tensor grid, factor by factor.

      first_order[d] = Var(E[f | x_d]) / Var(f)
      total[d] = 1 - Var(E[f | all but x_d]) / Var(f)

  Args:
    values: f at the nodes, one axis per factor.
    weights: of the nodes of each factor, sum 1.
    names: the D factors.
  """
  mean = _integrate(values, weights, range(values.ndim))
  centred = values - mean
  every = frozenset(range(values.ndim))

  def closed(kept):
    """Returns Var(E[f | kept factors])."""
    conditional = _integrate(centred, weights, every - kept)
    rest = [weights[d] for d in sorted(kept)]
    return float(_integrate(conditional**2, rest, range(len(rest))))

  variance = closed(every)
  dims = range(values.ndim)
  return Truth(
    tuple(names),
    np.array([closed(frozenset({d})) for d in dims]) / variance,
    1 - np.array([closed(every - {d}) for d in dims]) / variance,
    float(mean), variance, values.size,
  )


def _standard_error(samples: Sequence[np.ndarray]) -> np.ndarray:
  """Of the mean of independent samples, from their spread."""
  return np.std(samples, axis=0, ddof=1) / np.sqrt(len(samples))


def _integrate(values, weights, axes):
  for d in sorted(axes, reverse=True):
    values = np.tensordot(values, weights[d], axes=([d], [0]))
  return values


def _first(images, order, num_images) -> image_sets.ImageSet:
  if len(images) < num_images:
    raise ValueError(
      f'only {len(images)} test images are recognised, asked for {num_images}'
    )
  return images.take(order[:num_images])


def _digest(name: str, network: nnx.Module) -> str:
  digest = hashlib.sha256(name.encode())
  for path, array in sorted(states.flatten(network).items()):
    digest.update(path.encode() + np.asarray(array).tobytes())
  return digest.hexdigest()


def _kept(
  study: Study,
  image_index: int,
  how: list,
  folder: str | os.PathLike,
  compute: Callable[[], Truth],
) -> Truth:
  image = np.asarray(study.images.images[image_index], np.float32)
  parts = [
    study.digest, repr(study.space), how, int(study.labels[image_index])
  ]
  digest = hashlib.sha256(json.dumps(parts).encode() + image.tobytes())
  name = f'{study.name}-{digest.hexdigest()[:24]}.npz'
  path = pathlib.Path(folder) / name
  if path.exists():
    return _read(path)
  found = compute()
  files.make_directory(path.parent)
  content = io.BytesIO()
  known = {name: x for name, x in vars(found).items() if x is not None}
  np.savez(content, image=study.images.names[image_index], **known)
  files.write_bytes(path, content.getvalue())
  return found


def _read(path: pathlib.Path) -> Truth:
  with np.load(path, allow_pickle=False) as kept:
    found = {
      field.name: kept[field.name] for field in dataclasses.fields(Truth)
      if field.name in kept.files
    }
  names = tuple(map(str, found.pop('names')))
  plain = {k: x if x.ndim else x.item() for k, x in found.items()}
  return Truth(names, **plain)
