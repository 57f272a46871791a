"""Networks: forward pass and training step beside PyTorch's, in one run.

Every network of `networks` with the same random weights on random RGB images of
its published size (or `image_size`), float32: ours as it is run (batch norm
folded, kernels in the fastest form) against torchvision's in inference mode, in
both memory layouts of torch; then an update by SGD with momentum, batch norm in
training mode, dropout as published. LeNet takes its 32 pixels. Contestants take
turns, see `races`.

    forward, training = images per second, median over rounds
    ratio = median over rounds of ours / the faster layout of torch
    logit_difference = max |ours - torch| of one batch

    python -m experiments.benchmark --suite=models

Torch has `torch.get_num_threads()` threads of its own and XLA has its own; both
use all cores of the process.
"""

from collections.abc import Callable
from collections.abc import Sequence
import copy
import gc
import statistics
from typing import Any

from flax import nnx
import jax
import numpy as np
import optax

from experiments.benchmarks import races
from jaxsens.models import inference
from jaxsens.models import registry
from jaxsens.training import losses
from jaxsens.weights import convert

Log = Callable[[str], Any]

NETWORKS = (
  'lenet', 'resnet18', 'resnet34', 'resnet50', 'mobilenet_v2',
  'mobilenet_v3_small', 'mobilenet_v3_large', 'squeezenet1_0', 'squeezenet1_1',
  'efficientnet_b0', 'efficientnet_b1', 'shufflenet_v2_x1_0', 'vgg16_bn',
)  # fmt: skip
KINDS = ('forward', 'training')
OURS = 'ours'


def run(
  log: Log,
  *,
  networks: Sequence[str] = NETWORKS,
  kinds: Sequence[str] = KINDS,
  batch_size: int = 8,
  image_size: int | None = None,
  seconds: float = 1.0,
  num_rounds: int = 5,
) -> dict[str, Any]:
  """Races networks against torch.

  Args:
    log: receives one line of text at a time.
    networks: names of `registry.ARCHITECTURES` that torchvision has as well.
    kinds: of `KINDS`.
    batch_size: images per batch.
    image_size: pixels per side; None is the published size.
    seconds: of work of each contestant in each round, at least one batch.
    num_rounds: rounds.

  Returns:
    {kind: {measure: {network: number}}}.
  """
  unknown = sorted(set(kinds) - set(KINDS))
  if unknown:
    raise ValueError(f'kinds must be among {KINDS}, got {unknown}.')
  peers = _peers(log)
  result: dict[str, Any] = {kind: {} for kind in kinds}
  for name in networks:
    size = registry.find(name).image_size[0]
    if image_size and name != 'lenet':
      size = image_size
    for kind in kinds:
      log(f'{name}, {kind}, {size} pixels, batch {batch_size}')
      contestants, difference = _contestants(
        peers, name, kind, batch_size, size, log
      )
      rates = races.race(
        contestants, seconds=seconds, num_rounds=num_rounds, log=lambda _: None
      )
      measures = {'pixels': size, **_measures(rates)}
      if difference is not None:
        measures['logit_difference'] = difference
      for measure, value in measures.items():
        result[kind].setdefault(measure, {})[name] = value
      log(', '.join(f'{n} {value:.3g}' for n, value in measures.items()))
      # Memory of a VGG in three programs.
      del contestants
      gc.collect()
      jax.clear_caches()
  return result


def _measures(rates: races.Rates) -> dict[str, float]:
  measures = {who: statistics.median(x) for who, x in rates.items()}
  peers = {who: x for who, x in rates.items() if who != OURS}
  if peers:
    best = races.fastest(peers)
    ratios = [a / b for a, b in zip(rates[OURS], best, strict=True)]
    measures |= {
      'ratio': statistics.median(ratios),
      'least_ratio': min(ratios),
      'largest_ratio': max(ratios),
    }
  return measures


def _peers(log: Log):
  """Returns the module of torch's networks, or None where torch is absent."""
  try:
    from third_party.pytorch_baselines import network_speed

    network_speed.torchvision_import.load()
  except ImportError as error:
    log(f'left out: PyTorch ({error})')
    return None
  return network_speed


def _contestants(peers, name, kind, batch_size, size, log):
  """Returns ours and torch's, with equal weights, and how far they differ."""
  num_classes = registry.find(name).num_classes
  theirs = peers and peers.create(name, num_classes, batch_size, size)
  if theirs is None:
    log(f'{name}: only ours')
  ours = _network(name, num_classes, theirs and peers.arrays(theirs))
  rng = np.random.default_rng(0)
  images = rng.normal(size=(batch_size, size, size, 3)).astype(np.float32)
  difference = None
  if kind == 'forward':
    forward = _make_forward(ours, images)
    contestants = [_contestant(OURS, batch_size, _repeated(forward))]
    if theirs is not None:
      # Before anything changes the weights or their layout.
      difference = float(np.abs(
        np.asarray(forward()) - peers.logits(theirs, images)
      ).max())
  else:
    call = Updates(ours, images, num_classes)
    contestants = [_contestant(OURS, batch_size, call)]
  for layout in peers.LAYOUTS if theirs is not None else ():
    network = copy.deepcopy(theirs)
    if kind == 'forward':
      call = peers.make_forward(network, batch_size, size, layout)
    else:
      call = peers.make_training_step(
        network, batch_size, size, layout, num_classes
      )
    contestants.append(_contestant(f'torch_{layout}', batch_size, call))
  return contestants, difference


def _network(name, num_classes, arrays):
  """Returns our network, with these weights by torch's names or random ones."""
  def make():
    return registry.create(name, jax.random.key(0), num_classes)

  blank = nnx.eval_shape(make)
  if arrays is not None:
    return convert.load(name, blank, arrays).model
  graphdef, _ = nnx.split(blank)
  return nnx.merge(graphdef, jax.jit(lambda: nnx.split(make())[1])())


def _contestant(name, batch_size, call) -> races.Contestant:
  return races.Contestant(
    name, 'network', 'float32', batch_size, call, batch_size
  )


def _repeated(call):
  def run(repeats: int) -> None:
    for _ in range(repeats):
      jax.block_until_ready(call())

  return run


def _make_forward(network, images):
  prepared = inference.prepare(network, images.shape[1:])
  graphdef, state = nnx.split(prepared)
  forward = jax.jit(lambda state, images: nnx.merge(graphdef, state)(images))
  images = jax.device_put(images)
  return lambda: forward(state, images)


class Updates:
  """Updates as `training.steps` makes them, on one fixed batch.

  Attributes:
    state: (params, rest, state of the optimiser).
  """

  def __init__(
    self, network: nnx.Module, images: np.ndarray, num_classes: int
  ):
    graphdef, params, rest = nnx.split(network, nnx.Param, ...)
    images = jax.device_put(images)
    optimizer = optax.sgd(1e-3, momentum=0.9)
    labels = np.arange(len(images)) % num_classes
    class_weights = np.ones(num_classes, np.float32)

    def loss_fn(params, rest, key):
      model = nnx.merge(graphdef, params, rest, copy=True)
      logits = model(images, train=True, key=key)
      total, weight = losses.cross_entropy_sums(
        logits, labels, class_weights, smoothing=0.0
      )
      return total / weight, nnx.split(model, nnx.Param, ...)[2]

    def step(params, rest, opt_state, key):
      gradient, rest = jax.grad(loss_fn, has_aux=True)(params, rest, key)
      updates, opt_state = optimizer.update(gradient, opt_state, params)
      return optax.apply_updates(params, updates), rest, opt_state

    self.state = (params, rest, optimizer.init(params))
    self._step = jax.jit(step, donate_argnums=(0, 1, 2))
    self._key = jax.random.key(1)

  def __call__(self, num_steps: int) -> None:
    """Makes a number of updates and waits for them."""
    for i in range(num_steps):
      self.state = self._step(*self.state, jax.random.fold_in(self._key, i))
      jax.block_until_ready(self.state)
