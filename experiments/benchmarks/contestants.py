"""The contestants of the evaluation benchmark, on one setting.

Everything that is timed evaluates the same image with the same weights of a
ResNet18; see `experiments.benchmarks.evaluation` for what each one is.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
import dataclasses
import functools
import types
from typing import Any

import chaospy
import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import races
from jaxsens import classifiers
from jaxsens import evaluation
from jaxsens import factors
from jaxsens import quantities
from jaxsens.gpc import designs
from jaxsens.models import inference
from jaxsens.models import resnet
from jaxsens.perturbations import chains
from jaxsens.weights import convert

CLASS_NAMES = (
  'good weld', 'burn through', 'contamination', 'lack of fusion',
  'misalignment', 'lack of penetration',
)  # fmt: skip
"""The classes of the source system's network."""
NORMALISE = classifiers.Normalise((0.5,), (0.5,))
"""The normalisation of the source system's network."""
LABEL = 2
"""The true class of the image."""
# Standard deviation that the logits of the random network are given.
_SPREAD = 2.0


@dataclasses.dataclass(frozen=True, eq=False)
class Setting:
  """What all contestants at one image size share.

  Attributes:
    size: height and width of the network's input, pixels.
    frame: (H, W) uint8, the image that is perturbed.
    image: (H, W, 1) float32, the same in [0, 1].
    space: the three factors.
    values: (N, 3) nodes, repeated where more are needed.
    model: the network; all contestants have its weights.
    perturb: the chain that makes images of this size.
    key: for the evaluator.
  """

  size: int
  frame: np.ndarray
  image: np.ndarray
  space: factors.FactorSpace
  values: np.ndarray
  model: resnet.ResNet
  perturb: chains.Chain
  key: jax.Array

  @functools.cached_property
  def state_dict(self) -> dict[str, np.ndarray]:
    """The weights by torch's names."""
    return convert.to_torch_names(self.model)

  def classifier(self, dtype: str) -> classifiers.Classifier:
    """Returns the classifier with folded batch norm in this precision."""
    return _classifier(self.model, self.size, dtype)


def random_network(
  key: jax.Array, perturb: chains.Chain, image: np.ndarray, values: np.ndarray
) -> resnet.ResNet:
  """Returns a random gray ResNet18 whose answers move with the perturbation.

  The head is scaled and shifted so that over the given nodes every logit has
  mean 0 and standard deviation 2; without that a random network gives about
  the same probabilities at every node.

  Args:
    key: key of the initial values.
    perturb: chain that makes images of the size to be used.
    image: (H, W, 1) in [0, 1].
    values: (N, D) nodes.
  """
  model = resnet.resnet18(key, len(CLASS_NAMES), in_channels=1, dropout=0.5)
  prepared = jax.jit(perturb.prepare)(image)

  @jax.jit
  def evaluate(classifier, values):
    images = jax.vmap(lambda row: perturb.apply(prepared, row))(values)
    return classifier(images)

  classifier = _classifier(model, perturb.size[0], 'float32')
  logits = evaluate(classifier, jnp.asarray(values, jnp.float32))
  state_dict = convert.to_torch_names(model)
  scale = _SPREAD / np.std(logits, axis=0)
  centred = state_dict['fc.1.bias'] - np.mean(logits, axis=0)
  state_dict['fc.1.bias'] = scale * centred
  state_dict['fc.1.weight'] = scale[:, None] * state_dict['fc.1.weight']
  return convert.load_torch_names(model, state_dict).model


def welding_space() -> factors.FactorSpace:
  """Returns the three factors of the source system."""
  return factors.FactorSpace((
    factors.Factor('brightness', chaospy.Uniform(0, 2), 'factor'),
    factors.Factor('rotation', chaospy.Uniform(-90, 90), 'deg'),
    factors.Factor('tilt', chaospy.Uniform(-20, 20), 'deg'),
  ))


def smooth_frame(shape: Sequence[int]) -> np.ndarray:
  """Returns a gray picture (H, W) uint8: a bright spot on a wavy ground."""
  y, x = np.meshgrid(*(np.linspace(0, 1, n) for n in shape), indexing='ij')
  spot = np.exp(-30 * ((x - 0.6) ** 2 + (y - 0.4) ** 2))
  waves = np.sin(9 * x + 4 * y) * np.cos(13 * y - 3 * x)
  return np.uint8(255 * (0.35 + 0.2 * waves + 0.44 * spot))


def make_setting(
  key: jax.Array, size: int, image_shape: Sequence[int]
) -> Setting:
  """Returns image, nodes and random weights for one size of the input."""
  key_network, key_design, key_evaluation = jax.random.split(key, 3)
  space = welding_space()
  design = designs.latin_hypercube(key_design, space, 1024)
  values = space.to_values(design.nodes).astype(np.float32)
  frame = smooth_frame(image_shape)
  image = np.float32(frame[..., None]) / 255
  perturb = chains.make_chain(space, (size, size))
  model = random_network(key_network, perturb, image, values[:32])
  return Setting(
    size, frame, image, space, values, model, perturb, key_evaluation
  )


def _classifier(model, size, dtype) -> classifiers.Classifier:
  return inference.classifier(
    model, preprocess=NORMALISE, class_names=CLASS_NAMES,
    image_size=(size, size), channels=1, dtype=jnp.dtype(dtype),
  )


def source_loops(
  setting: Setting,
  baselines: types.SimpleNamespace,
  sizes: Iterable[int],
  num_nodes: int,
) -> list[races.Contestant]:
  """Returns the source system's loop at several sizes of the input."""
  network = baselines.gpc_weld.load_network(setting.state_dict)

  def loop(repeats, size):
    values = np.resize(setting.values, (repeats * num_nodes, 3))
    return baselines.gpc_weld.probabilities(
      network, setting.frame, LABEL, values, size=size
    )

  return [
    races.Contestant(
      f'source loop, {size} pixels', f'source_{size}', 'float32', num_nodes,
      functools.partial(loop, size=size), baselines.gpc_weld.BATCH_SIZE,
    )
    for size in sizes
  ]


def torch_networks(
  setting: Setting,
  baselines: types.SimpleNamespace,
  device: str,
  dtypes: Sequence[str],
  batch_sizes: Sequence[int],
) -> list[races.Contestant]:
  """Returns the network in torch; bfloat16 on CUDA compiled, the rest eager."""
  network = baselines.gpc_weld.load_network(setting.state_dict)
  result = []
  for dtype in dtypes:
    compiled = dtype != 'float32' and device == 'cuda'
    for batch_size in batch_sizes:
      name = f'torch {dtype}{" compiled" if compiled else ""}'
      result.append(races.Contestant(
        f'{name}, batch {batch_size}', 'torch', dtype, batch_size,
        baselines.forward.make_forward(
          network, batch_size, setting.size, dtype=dtype, device=device,
          compiled=compiled,
        ),
        batch_size,
      ))
  return result


def engines(
  setting: Setting,
  dtype: str,
  batch_sizes: Sequence[int],
  seconds_per_chunk: float,
  log: Callable[[str], Any],
) -> list[races.Contestant]:
  """Returns bare network, device program and engine, in one batch size."""
  evaluator = evaluation.make_evaluator(
    setting.classifier(dtype), setting.perturb,
    quantities.make_quantities(
      ('probabilities', 'probability', 'margin', 'entropy'), CLASS_NAMES
    ),
    batching=evaluation.Batching(1, 1),
  )
  batching, rates = evaluation.measure_batching(
    evaluator, setting.image, setting.values, batch_sizes,
    seconds_per_chunk=seconds_per_chunk,
  )
  log(f'{setting.size} pixels, {dtype}, nodes/s by batch size: '
      + ', '.join(f'{size}: {rate:.1f}' for size, rate in rates.items())
      + f'; chunks of {batching.chunk_size}')
  evaluator = dataclasses.replace(evaluator, batching=batching)

  def engine(repeats):
    values = np.resize(setting.values, (repeats * batching.chunk_size, 3))
    evaluator(setting.key, setting.image, LABEL, values)

  runs = {
    'bare network': (batching.batch_size, _bare_network(evaluator)),
    'device program': (
      batching.chunk_size, _device_program(evaluator, setting)
    ),
    'engine': (batching.chunk_size, engine),
  }
  return [
    races.Contestant(
      f'{kind} {dtype}', kind, dtype, num_nodes, function, batching.batch_size
    )
    for kind, (num_nodes, function) in runs.items()
  ]


def _bare_network(evaluator: evaluation.Evaluator) -> Callable[[int], None]:
  classifier = evaluator.classifier
  shape = (
    evaluator.batching.batch_size, *classifier.image_size, classifier.channels
  )
  images = jax.random.normal(jax.random.key(0), shape, jnp.float32)
  network = jax.jit(classifier.apply_fn)
  return _back_to_back(lambda: network(classifier.params, images))


def _device_program(evaluator, setting: Setting) -> Callable[[int], None]:
  """Returns chunks of the engine's work back to back, all on the device."""

  def run_batch(classifier, prepared, values):
    images = jax.vmap(
      lambda row: setting.perturb.apply(prepared, row, setting.key)
    )(values)
    logits = classifier(images).astype(jnp.float32)
    return jax.vmap(evaluator.quantities, (0, None))(logits, LABEL)

  @jax.jit
  def run_chunk(classifier, prepared, values):
    return jax.lax.map(
      lambda rows: run_batch(classifier, prepared, rows), values
    )

  batching = evaluator.batching
  prepared = jax.jit(setting.perturb.prepare)(setting.image)
  values = np.resize(setting.values, (batching.chunk_size, 3))
  values = jnp.asarray(values).reshape(-1, batching.batch_size, 3)

  return _back_to_back(
    lambda: run_chunk(evaluator.classifier, prepared, values)
  )


def _back_to_back(call: Callable[[], jax.Array]) -> Callable[[int], None]:
  """Returns a function that keeps the device busy with a number of calls.

  An accelerator is given all of them at once. On CPU a call waiting behind
  another one would compete with it for the cores.
  """
  on_cpu = jax.default_backend() == 'cpu'
  wait = jax.block_until_ready if on_cpu else (lambda result: result)

  def run(repeats):
    for _ in range(repeats):
      result = wait(call())
    jax.block_until_ready(result)

  return run
