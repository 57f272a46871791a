"""What a kernel per class costs beside a softmax, in one run.

ResNet18 with random weights on random gray images, float32: the update as
`training.steps` makes it, with the softmax and with kernels, without and with
the gradient penalty, under both policies of the centroids; and the answer of
the network as it is prepared for inference. Contestants take turns, see
`races`.

    cost = median over rounds of the time over that of the softmax

    python -m experiments.benchmark --suite=kernels
"""

from collections.abc import Callable
from collections.abc import Sequence
import statistics
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import races
from jaxsens import classifiers
from jaxsens.models import inference
from jaxsens.models import registry
from jaxsens.training import batches
from jaxsens.training import objectives
from jaxsens.training import settings as settings_lib
from jaxsens.training import steps
from jaxsens.uncertainty import duq
from jaxsens.uncertainty import duq_objective

Log = Callable[[str], Any]

BASELINE = 'softmax'
OBJECTIVES = {
  BASELINE: objectives.CrossEntropy(),
  'kernels': duq_objective.Objective(centroids='train'),
  'kernels, second pass': duq_objective.Objective(),
  'kernels, penalty': duq_objective.Objective(0.5, centroids='train'),
  'kernels, penalty, second pass': duq_objective.Objective(0.5),
}
"""Ways of training; the second pass is that of the reference's centroids."""


def run(
  log: Log,
  *,
  network: str = 'resnet18',
  image_size: int = 64,
  num_classes: int = 6,
  batch_size: int = 32,
  forward_sizes: Sequence[int] = (1, 8, 32),
  seconds: float = 1.0,
  num_rounds: int = 7,
) -> dict[str, Any]:
  """Races updates and answers.

  Args:
    log: receives one line of text at a time.
    network: name of `registry.ARCHITECTURES`.
    image_size: pixels per side.
    num_classes: K.
    batch_size: images of an update.
    forward_sizes: images at a time of an answer.
    seconds: of work of each contestant in each round, at least one call.
    num_rounds: rounds.

  Returns:
    {race: {'milliseconds' or 'cost': {contestant: number}}}.
  """
  make = lambda name: _network(name, network, num_classes, image_size)
  race = lambda calls, size: _costs(races.race(
    [
      races.Contestant(name, 'network', 'float32', size, call, size)
      for name, call in calls.items()
    ], seconds=seconds, num_rounds=num_rounds, log=lambda _: None,
  ), size)
  rng = np.random.default_rng(0)
  shape = (image_size, image_size, 1)
  data = batches.LabelledImages(
    rng.random((batch_size, *shape), np.float32),
    rng.integers(0, num_classes, batch_size).astype(np.int32),
  )
  log(f'updates of {network}, {image_size} pixels, batch {batch_size}')
  result = {'update': race({
    name: Updates(make(name), data, objective, num_classes)
    for name, objective in OBJECTIVES.items()
  }, batch_size)}
  for size in forward_sizes:
    log(f'answers, batch {size}')
    images = jnp.asarray(rng.random((size, *shape), np.float32))
    result[f'answer, batch {size}'] = race({
      name: _forward(make(name), images) for name in (BASELINE, 'kernels')
    }, size)
  for name, table in result.items():
    log(f'{name}: ' + ', '.join(
      f'{who} {cost:.3f}' for who, cost in table['cost'].items()
    ))
  return result


def _costs(rates, number):
  return {
    'milliseconds': {
      who: 1e3 * number / statistics.median(x) for who, x in rates.items()
    },
    'cost': {
      who: statistics.median(
        b / a for a, b in zip(x, rates[BASELINE], strict=True)
      ) for who, x in rates.items()
    },
  }


def _network(name, architecture, num_classes, image_size):
  plain = registry.create(
    architecture, jax.random.key(0), num_classes, in_channels=1
  )
  if name == BASELINE:
    return plain
  return duq.make_network(
    jax.random.key(1), registry.without_head(architecture, plain), num_classes,
    image_shape=(image_size, image_size, 1), num_dimensions=None,
    length_scale=0.1, initial_count=5.0,
  )


class Updates:
  """Updates on one fixed batch.

  Attributes:
    state: of the training.
  """

  def __init__(self, network, data, objective, num_classes):
    settings = settings_lib.Settings(
      num_epochs=1, batch_size=len(data.labels), learning_rate=1e-4
    )
    feeder = batches.Feeder(data, settings.batch_size)
    optimizer = settings.make_optimizer(1)
    graphdef, self.state = steps.initial(network, optimizer, settings)
    self._step = steps.make(
      graphdef, optimizer, classifiers.Normalise((0.5,), (0.5,)),
      jnp.ones(num_classes), settings, feeder, objective,
    )
    self._batch = next(feeder.epoch(jax.random.key(0)))
    self._keys = steps.Keys(*jax.random.split(jax.random.key(0), 3))

  def __call__(self, repeats: int) -> None:
    """Makes so many updates and waits for them."""
    for i in range(repeats):
      self.state, _ = self._step(
        self.state, self._keys, np.int32(i), self._batch
      )
    jax.block_until_ready(self.state)


def _forward(network, images):
  prepared = inference.prepare(network, images.shape[1:])
  graphdef, state = nnx.split(prepared)
  forward = jax.jit(lambda state, images: nnx.merge(graphdef, state)(images))

  def run(repeats: int) -> None:
    for _ in range(repeats):
      jax.block_until_ready(forward(state, images))

  return run
