"""Nodes per second of the evaluator, against PyTorch and its own network.

One gray image of 974 x 800 pixels, three factors (brightness, rotation, tilt),
ResNet18 with six classes; the same random weights everywhere, and logits that
agree before anything is timed. Contestants of a race (`races`), per precision:

- source loop: the source system's own pipeline, Pillow to probability, in
  PyTorch on the CPU, at its 244 pixels and at the size of the others;
- torch: the network alone, channels last; on CUDA in bfloat16 and compiled;
- bare network: our jitted network alone, batch norm folded, at the batch size
  of the engine, on images that are already on the device;
- device program: perturbation, network and quantities as one compiled program
  over a chunk, back to back, on values that are already on the device;
- engine: `jaxsens.evaluation.Evaluator` as a user calls it, from the image and
  the values on the host to the outputs on the host, without a chunk store.

From these, per precision:

    overhead_over_bare_network = bare network / engine - 1
    device_busy = engine / device program

in nodes per second. The device program is the engine without hashing, copying,
dispatching ahead and fetching. Its time is what the device needs for a chunk,
so its share of the engine's wall time estimates how long the device is busy;
gaps between the kernels within a program count as busy. The estimate may exceed
one by the noise of the machine.

Run by `python -m experiments.benchmark --suite=evaluation`.
"""

from collections.abc import Callable
from collections.abc import Sequence
import importlib
import statistics
import types
from typing import Any

import jax
import numpy as np

from experiments.benchmarks import contestants as contestants_lib
from experiments.benchmarks import races
from jaxsens import evaluation
from jaxsens import quantities
from jaxsens.gpc import designs
from jaxsens.gpc import expansions
from jaxsens.gpc import multi_indices
from jaxsens.gpc import sobol_indices

Log = Callable[[str], Any]

_TOLERANCE = 1e-3


def run(
  log: Log,
  *,
  image_sizes: Sequence[int] = (224, 96),
  source_size: int = 244,
  image_shape: Sequence[int] = (974, 800),
  dtypes: Sequence[str] | None = None,
  batch_sizes: Sequence[int] | None = None,
  torch_batch_sizes: Sequence[int] | None = None,
  seconds: float = 4.0,
  num_rounds: int = 5,
  num_source_nodes: int = 64,
  num_index_nodes: Sequence[int] = (12, 8, 6),
  seed: int = 0,
) -> dict[str, Any]:
  """Measures all contestants.

  Args:
    log: receives one line of text at a time.
    image_sizes: sizes of the network's input, pixels; one race each.
    source_size: further size of the source loop, in the first race.
    image_shape: (H, W) of the image that is perturbed.
    dtypes: of the network, 'float32' and 'bfloat16'; by default both on an
      accelerator and the first on CPU.
    batch_sizes: among which the engine's is chosen by measuring; by default
      those of `evaluation.default_batch_sizes`.
    torch_batch_sizes: of the network in torch; the faster one counts. By
      default 8 and 64 on CPU, 256 and 1024 on CUDA.
    seconds: of work of each contestant in each round, about.
    num_rounds: rounds of each race.
    num_source_nodes: nodes of one repetition of the source loop.
    num_index_nodes: Gauss nodes per factor for the effect of bfloat16.
    seed: seed of weights and nodes.

  Returns:
    Plain numbers for JSON. Per size two sections {measure: {row: number}}: one
    row per contestant, and one per precision with the ratios; with bfloat16 one
    with its effect on the Sobol indices.
  """
  backend = jax.default_backend()
  if dtypes is None:
    dtypes = ('float32',) if backend == 'cpu' else ('float32', 'bfloat16')
  baselines = _import_baselines(log)
  device = _torch_device(baselines, backend, log)
  if torch_batch_sizes is None:
    torch_batch_sizes = (8, 64) if device == 'cpu' else (256, 1024)
  if batch_sizes is None:
    batch_sizes = evaluation.default_batch_sizes(backend)
  result = {'image_shape': list(image_shape), 'torch_device': device}
  for size in image_sizes:
    setting = contestants_lib.make_setting(
      jax.random.key(seed), size, image_shape
    )
    source_sizes = (size, source_size) if size == image_sizes[0] else (size,)
    contestants = []
    if baselines:
      difference = _check_logits(setting, baselines)
      log(f'{size} pixels: logits differ by {difference:.1e} at most')
      contestants += contestants_lib.source_loops(
        setting, baselines, dict.fromkeys(source_sizes), num_source_nodes
      )
      contestants += contestants_lib.torch_networks(
        setting, baselines, device, dtypes, torch_batch_sizes
      )
    for dtype in dtypes:
      contestants += contestants_lib.engines(
        setting, dtype, batch_sizes, seconds / 4, log
      )
    rates = races.race(
      contestants, seconds=seconds, num_rounds=num_rounds, log=log
    )
    result[f'{size} pixels'] = _section(contestants, rates, dtypes)
    result[f'{size} pixels, ratios'] = _ratios(contestants, rates, dtypes)
    if 'bfloat16' in dtypes:
      result[f'{size} pixels, bfloat16 against float32'] = _precision_effect(
        setting, num_index_nodes, max(batch_sizes)
      )
  return result


def _import_baselines(log: Log) -> types.SimpleNamespace | None:
  """Returns the PyTorch baselines, or None with a line that says why not."""
  try:
    return types.SimpleNamespace(**{
      name: importlib.import_module(f'third_party.pytorch_baselines.{name}')
      for name in ('gpc_weld', 'forward')
    })
  except ImportError as error:
    log('source loop and torch are left out. Run from the root of the '
        f'repository with torch and torchvision installed: {error}')
    return None


def _torch_device(baselines, backend: str, log: Log) -> str | None:
  if baselines is None:
    return None
  if backend == 'cpu':
    return 'cpu'
  if baselines.forward.has_cuda():
    return 'cuda'
  log(f'jax runs on {backend}, torch sees no CUDA device and stays on the CPU')
  return 'cpu'


def _check_logits(setting: contestants_lib.Setting, baselines) -> float:
  """Returns the largest difference of logits to torch's on one image.

  Both in full float32: torch on the CPU, JAX without TF32.

  Raises:
    ValueError: they differ by more than 1e-3.
  """
  classifier = setting.classifier('float32')
  images = jax.jit(setting.perturb)(setting.image, setting.values[0])[None]
  with jax.default_matmul_precision('highest'):
    ours = jax.jit(lambda network, x: network(x))(classifier, images)
  network = baselines.gpc_weld.load_network(setting.state_dict)
  normalised = np.asarray(contestants_lib.NORMALISE(images))
  theirs = baselines.forward.logits(network, normalised)
  difference = float(np.abs(np.asarray(ours) - theirs).max())
  if not difference <= _TOLERANCE:
    raise ValueError(
      f'logits of the same weights differ by {difference:g} from torch, more '
      f'than {_TOLERANCE:g}: {np.asarray(ours).tolist()}, {theirs.tolist()}'
    )
  return difference


def _section(contestants, rates: races.Rates, dtypes) -> dict[str, Any]:
  """Returns the measures of the contestants, and of the engine over each."""
  engines = {dtype: rates[f'engine {dtype}'] for dtype in dtypes}
  medians = {name: statistics.median(of) for name, of in rates.items()}
  return {
    'nodes_per_second': medians,
    'milliseconds_per_node': {n: 1000 / rate for n, rate in medians.items()},
    'batch_size': {c.name: c.batch_size for c in contestants},
    **{
      f'engine_{dtype}_over': {
        name: races.median_ratio(engine, of) for name, of in rates.items()
      }
      for dtype, engine in engines.items()
    },
    'nodes_per_second_of_rounds': rates,
  }


def _ratios(contestants, rates: races.Rates, dtypes) -> dict[str, Any]:
  """Returns the ratios that have a target, per precision.

  The engine is compared with the fastest network of torch of its precision, in
  each round anew; sources always compute in float32.
  """
  measures = {}
  for dtype in dtypes:
    engine = rates[f'engine {dtype}']
    bare, program = (
      rates[f'{kind} {dtype}'] for kind in ('bare network', 'device program')
    )
    network = races.fastest({
      c.name: rates[c.name]
      for c in contestants
      if (c.kind, c.dtype) == ('torch', dtype)
    })
    found = {
      f'engine_over_{c.kind}': races.median_ratio(engine, rates[c.name])
      for c in contestants
      if c.kind.startswith('source')
    }
    if network is not None:
      found['engine_over_torch'] = races.median_ratio(engine, network)
    found['overhead_over_bare_network'] = races.median_ratio(bare, engine) - 1
    found['device_busy'] = races.median_ratio(engine, program)
    for measure, value in found.items():
      measures.setdefault(measure, {})[dtype] = value
  return measures


def _precision_effect(setting, num_nodes, batch_size) -> dict[str, Any]:
  """Returns the largest changes of outputs and indices by bfloat16.

  Indices come from a projection on a tensor of Gauss rules, half the number of
  nodes as degree, in both precisions on the same nodes. Float32 is what the
  backend makes of it: convolutions with TF32 on CUDA.
  """
  names = ('probabilities', 'margin', 'entropy')
  read = quantities.make_quantities(names, contestants_lib.CLASS_NAMES)
  design = designs.tensor_gauss(setting.space, num_nodes)
  basis = expansions.Basis(
    setting.space, multi_indices.tensor_product([n // 2 for n in num_nodes])
  )
  outputs, indices = {}, {}
  for dtype in ('float32', 'bfloat16'):
    evaluator = evaluation.make_evaluator(
      setting.classifier(dtype), setting.perturb, read,
      batching=evaluation.Batching(batch_size, batch_size),
    )
    values = setting.space.to_values(design.nodes)
    outputs[dtype] = evaluator(
      setting.key, setting.image, contestants_lib.LABEL, values
    )
    indices[dtype] = sobol_indices.sobol_indices(
      expansions.project(basis, design, outputs[dtype])
    )
  single, half = indices['float32'], indices['bfloat16']
  changes = {
    'output_change': np.abs(outputs['bfloat16'] - outputs['float32']).max(0),
    'first_order_change': np.abs(half.first_order - single.first_order).max(0),
    'total_change': np.abs(half.total - single.total).max(0),
  }
  return {
    measure: dict(zip(read.output_names, map(float, change), strict=True))
    for measure, change in changes.items()
  }
