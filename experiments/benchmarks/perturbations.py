"""Milliseconds per image of every perturbation, beside other libraries.

Contestants of a race (`races`), one race per perturbation:

- values: one image, prepared once, at many values, as the engine does it:
  jit(vmap(chain.apply)) over the values, one key;
- images: many images, each prepared and with a value and a key of its own;
- every library of `perturbation_peers` that has the same operation, on as many
  images as it takes at once;
- a forward pass of a ResNet18 on 8 images of the same size.

The corruptions of ImageNet-C at severity 3 run as images in a table of their
own, beside imagecorruptions and the same forward pass.

Images are RGB float32 and stream through in chunks. Main values run through the
sensible range; other parameters keep their defaults. Ratios are medians over
the rounds:

    over_peer = images / fastest peer of the round
    share_of_resnet18 = values (of a corruption: images) / forward pass

`slower` is 1 where over_peer is above 1.05, `costly` where the share is above
0.15. Memory: growth of the peak of the process from `memory_images[0]` to
`memory_images[1]` images streamed, the smallest of several repetitions; beside
the size of a chunk and that of the images added. `grows` is 1 above half of the
latter. Linux only.

    python -m experiments.benchmark --suite=perturbations
    python -m experiments.benchmark --suite=perturbations \
      --options='{"num_images": 1024, "names": ["fog", "lens"]}'
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import ctypes
import functools
import gc
import pathlib
import statistics
from typing import Any

import chaospy
import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import perturbation_peers
from experiments.benchmarks import races
from experiments.benchmarks import tables
from jaxsens import classifiers
from jaxsens import factors
from jaxsens.models import inference
from jaxsens.models import resnet
from jaxsens.perturbations import chains
from jaxsens.perturbations import registry
from jaxsens.perturbations import severity

Log = Callable[[str], Any]

TOLERANCE = 0.05
"""Share by which a peer may be faster within the noise of a race."""
LARGEST_SHARE = 0.15
"""Share of a forward pass that a perturbation may cost."""
_SECTION = 'perturbations'
_SPEED = 'milliseconds per image'
_SEVERITY = 'imagenet_c at severity 3, milliseconds per image'
_MEMORY = 'growth of the peak of memory, MiB'
_NUM_CLASSES = 1000
# Of ImageNet-C, at which imagecorruptions runs as well.
_LEVEL = 3
_NUM_REPETITIONS = 3


def run(
  log: Log,
  *,
  names: Sequence[str] | None = None,
  severities: Sequence[str] | None = None,
  size: int = 224,
  num_images: int = 64,
  chunk_size: int = 8,
  memory_images: Sequence[int] = (64, 256),
  network_batch: int = 8,
  seconds: float = 0.1,
  num_rounds: int = 3,
  workdir: str = 'runs/benchmark-perturbations',
  seed: int = 0,
) -> dict[str, Any]:
  """Measures perturbations, peers and a ResNet18.

  Args:
    log: receives one line of text at a time.
    names: of registered perturbations; None is all but those of the
      benchmarks of severities.
    severities: corruptions of ImageNet-C; None is all, but none where `names`
      are given.
    size: height and width of the images, pixels.
    num_images: images or values that stream through in one repetition.
    chunk_size: of them in one call; a peer that takes a batch gets as many.
    memory_images: images streamed for the lower and the upper peak; empty
      leaves memory out.
    network_batch: images of one forward pass.
    seconds: of work of each contestant in each round, about.
    num_rounds: rounds of each race.
    workdir: holds the rows, which a run that is killed leaves behind.
    seed: of images, weights and keys.

  Returns:
    {table: {measure: {name: number}}}.

  Raises:
    KeyError: an unknown perturbation.
    ValueError: num_images is no multiple of chunk_size.
  """
  if severities is None:
    severities = severity.names('imagenet_c') if names is None else ()
  for name in severities:
    severity.imagenet_c(name, _LEVEL)
  names = registry.names() if names is None else tuple(names)
  for name in names:
    registry.get(name)
  for count in (num_images, *memory_images):
    if count % chunk_size:
      raise ValueError(
        f'num_images: {count} is no multiple of chunk_size {chunk_size}'
      )
  images = _images(seed, chunk_size, size)
  forward = _forward(seed, images, network_batch)
  peers = perturbation_peers.peers(
    perturbation_peers.load(log), images, log
  )

  def rows() -> Iterator[tables.Row]:
    for name in names:
      ours = _Ours(name, images, seed)
      yield {
        'table': _SPEED, 'row': name,
        **_speed(
          {'values': ours.at_values, 'images': ours.over_images},
          perturbation_peers.working(peers.get(name, ()), log), forward,
          num_images, seconds, num_rounds,
        ),
      }
      if memory_images and has_resettable_peak():
        yield {
          'table': _MEMORY, 'row': name, **_memory(ours, memory_images),
        }
    for name in severities:
      found = peers.get(f'imagenet_c/{name}', ())
      yield {
        'table': _SEVERITY, 'row': name,
        **_speed(
          {'images': _severity(name, images, seed)},
          perturbation_peers.working(found, log), forward, num_images, seconds,
          num_rounds,
        ),
      }

  folder = pathlib.Path(workdir)
  folder.mkdir(parents=True, exist_ok=True)
  options = {
    'size': size, 'num_images': num_images, 'chunk_size': chunk_size,
    'seconds': seconds, 'num_rounds': num_rounds, 'seed': seed,
  }
  for row in tables.record(folder, _SECTION, rows(), options):
    log(tables.describe(row))
  result = tables.read(folder, (_SECTION,))
  for table in (_SPEED, _SEVERITY):
    if table in result:
      _log_exceptions(result[table], log)
  return result


def has_resettable_peak() -> bool:
  """Whether the peak of memory can be measured again and again."""
  return pathlib.Path('/proc/self/clear_refs').exists()


class _Ours:
  """The two programs of a perturbation, and what streams through them."""

  def __init__(self, name: str, images: np.ndarray, seed: int):
    entry = registry.get(name)
    space = factors.FactorSpace((
      factors.Factor(name, chaospy.Uniform(*entry.sensible_range)),
    ))
    chain = chains.make_chain(space, images.shape[1:3])
    count = len(images)
    self.images = jnp.asarray(images)
    self.values = jnp.linspace(
      *entry.sensible_range, count, dtype=jnp.float32
    )[:, None]
    self.key = jax.random.key(seed)
    self.keys = jax.random.split(self.key, count)
    self.prepared = jax.jit(chain.prepare)(self.images[0])
    self._values = jax.jit(jax.vmap(chain.apply, (None, 0, None)))
    self._images = jax.jit(jax.vmap(chain))

  def at_values(self, num_images: int) -> None:
    """Streams one image at many values."""
    for _ in range(num_images // len(self.images)):
      jax.block_until_ready(
        self._values(self.prepared, self.values, self.key)
      )

  def over_images(self, num_images: int) -> None:
    """Streams images, which are prepared as well."""
    for _ in range(num_images // len(self.images)):
      jax.block_until_ready(self._images(self.images, self.values, self.keys))


def _severity(
  name: str, images: np.ndarray, seed: int
) -> Callable[[int], None]:
  """Returns what streams a number of images through a corruption."""
  corrupt = jax.jit(jax.vmap(severity.imagenet_c(name, _LEVEL)))
  inputs = jnp.asarray(images)
  keys = jax.random.split(jax.random.key(seed), len(images))

  def stream(num_images):
    for _ in range(num_images // len(images)):
      jax.block_until_ready(corrupt(inputs, keys))

  return stream


def _images(seed: int, count: int, size: int) -> np.ndarray:
  """Smooth pictures with some noise, (B, H, W, 3)."""
  rng = np.random.default_rng(seed)
  y, x = np.mgrid[0:size, 0:size] / size
  phase = rng.uniform(0, 6, (count, 1, 1, 3))
  waves = np.sin(9 * x + 5 * y)[..., None] + np.cos(
    12 * y[..., None] - 4 * x[..., None] + phase
  )
  noise = 0.03 * rng.normal(size=(count, size, size, 3))
  return np.float32(np.clip(0.5 + 0.2 * waves + noise, 0, 1))


def _forward(seed: int, images: np.ndarray, batch: int) -> races.Contestant:
  """The forward pass that a perturbation is compared with."""
  size = images.shape[1:3]
  classifier = inference.classifier(
    resnet.resnet18(jax.random.key(seed), _NUM_CLASSES),
    preprocess=classifiers.Normalise((0.5,) * 3, (0.25,) * 3),
    class_names=[str(i) for i in range(_NUM_CLASSES)], image_size=size,
    channels=3,
  )
  evaluate = jax.jit(lambda network, x: network(x))
  inputs = jnp.asarray(np.resize(images, (batch, *images.shape[1:])))
  return _contestant(
    'resnet18', batch,
    lambda: jax.block_until_ready(evaluate(classifier, inputs)),
  )


def _contestant(
  name: str, count: int, call: Callable[[], Any]
) -> races.Contestant:
  def repeat(repeats):
    for _ in range(repeats):
      call()

  return races.Contestant(name, name, 'float32', count, repeat, count)


def _speed(ours, peers, forward, num_images, seconds, num_rounds):
  """Returns the measures of one perturbation."""
  contestants = [
    *(
      _contestant(name, num_images, functools.partial(stream, num_images))
      for name, stream in ours.items()
    ),
    *(_contestant(p.library, p.num_images, p.call) for p in peers), forward,
  ]
  rates = races.race(
    contestants, seconds=seconds, num_rounds=num_rounds, log=lambda line: None
  )
  network = rates[forward.name]
  with_values = 'values' in ours
  share = races.median_ratio(
    network, rates['values' if with_values else 'images']
  )
  row = {
    name: 1000 / statistics.median(of) for name, of in rates.items()
  } | {'share_of_resnet18': share, 'costly': int(share > LARGEST_SHARE)}
  if with_values:
    row['share_with_preparing'] = races.median_ratio(network, rates['images'])
  fastest = races.fastest({p.library: rates[p.library] for p in peers})
  if fastest is not None:
    over = races.median_ratio(fastest, rates['images'])
    row |= {'over_peer': over, 'slower': int(over > 1 + TOLERANCE)}
    if with_values:
      row['values_over_peer'] = races.median_ratio(fastest, rates['values'])
  return row


def _memory(ours: _Ours, counts: Sequence[int]) -> dict[str, float]:
  """Returns how the peak grows from the first number of images to the last."""
  extra = (counts[-1] - counts[0]) * ours.images[0].nbytes / 2**20
  measures = {}
  for measure, stream in (
    ('values', ours.at_values), ('images', ours.over_images)
  ):
    # What is made once is made here.
    stream(counts[-1])
    measures[measure] = min(
      _growth(stream, counts) for _ in range(_NUM_REPETITIONS)
    )
  grows = max(measures.values()) > extra / 2
  return measures | {
    'grows': int(grows), 'one_chunk': ours.images.nbytes / 2**20,
    'if_all_were_held': extra,
  }


def _growth(stream: Callable[[int], None], counts: Sequence[int]) -> float:
  """Returns the peak at the last number of images less that at the first."""
  peaks = []
  for count in counts:
    gc.collect()
    _return_freed_memory()
    # Sets the peak of the process to what it holds now.
    pathlib.Path('/proc/self/clear_refs').write_text('5')
    stream(count)
    peaks.append(_peak())
  return peaks[-1] - peaks[0]


def _return_freed_memory() -> None:
  """Has glibc give back what its pools hold, which would hide a growth."""
  trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)
  if trim is not None:
    trim(0)


def _peak() -> float:
  """Returns the largest resident memory since it was last reset, MiB."""
  for line in pathlib.Path('/proc/self/status').read_text().splitlines():
    if line.startswith('VmHWM'):
      return int(line.split()[1]) / 1024
  raise OSError('/proc/self/status has no VmHWM')


def _log_exceptions(table: dict[str, dict[str, float]], log: Log) -> None:
  """Says which perturbations miss a target."""
  for flag, measure, text in (
    ('slower', 'over_peer', 'slower than the fastest peer'),
    ('costly', 'share_of_resnet18', 'above 15 % of a ResNet18'),
  ):
    flagged = [
      f'{name} ({table[measure][name]:.2f})'
      for name, found in table.get(flag, {}).items()
      if found
    ]
    log(f'{text}: {", ".join(flagged) or "none"}')
