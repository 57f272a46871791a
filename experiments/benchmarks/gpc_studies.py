"""Errors of the engine and of its peers on real networks.

The quantity is the probability of the class that the network gives the
unperturbed image; the truths are those of `studies`.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools
import pathlib
import time
from typing import Any

import jax
import numpy as np

from experiments.benchmarks import gpc_functions
from experiments.benchmarks import image_methods
from experiments.benchmarks import network_runs
from experiments.benchmarks import studies
from experiments.benchmarks import tables
from jaxsens.gpc import adaptive

# Half-width that no image reaches.
_TOLERANCE = 1e-9
_TENSORS = ((7, 7, 7), (10, 10, 10), (16, 16, 16))
# Nodes that were chosen by hand after looking at the truths.
_BY_HAND = tuple(
  {'rotation': r, 'brightness': b, 'keystone': k}
  for r, b, k in ((16, 8, 4), (24, 8, 5), (32, 8, 4))
)

Truths = Mapping[int, studies.Truth]


@dataclasses.dataclass(frozen=True)
class Places:
  """Where things are kept.

  Attributes:
    folder: of the runs of the networks.
    truths: of `studies.truth`.
    steel: run directory of the steel network.
    compute: compute truths that are missing.
  """

  folder: pathlib.Path
  truths: pathlib.Path
  steel: pathlib.Path
  compute: bool


class _Missing(Exception):
  """A truth is not on disk."""


def cifar(
  log: Callable[[str], Any],
  places: Places,
  *,
  num_images: int,
  sizes: Sequence[int],
  num_first: int,
  recipe_sizes: Sequence[int],
  pick_freeze_sizes: Sequence[int],
  gaussian_sizes: Sequence[int],
) -> Iterator[tables.Row]:
  """Yields rows on CIFAR-10; see `gpc_suite.run` for the arguments."""
  study = studies.cifar_study(num_images)
  truths = _truths(log, places, study, studies.truth)
  runs = network_runs.Runs(study, places.folder / 'network')
  runs.warm_up()
  first = list(truths)[:num_first]
  log(f'cifar: {len(truths)} of {num_images} images have a truth')
  key = jax.random.key(0)
  yield from engine(runs, truths, sizes, len(first))
  row = functools.partial(_row, runs, truths)
  for n in recipe_sizes:
    found = image_methods.recipe(key, runs, first, n)
    yield row('least squares, degree (6,6,6)', n, first, found)
  for n in pick_freeze_sizes:
    found = [image_methods.frozen(key, runs, i, n) for i in first]
    yield row('pick-freeze', found[0][1], first, [f for f, _ in found])
  by_hand = [tuple(c[name] for name in study.space.names) for c in _BY_HAND]
  for shape in (*_TENSORS, *by_hand):
    for pushed in (False, True):
      found = [
        image_methods.gauss(runs, i, shape, pushed=pushed) for i in first
      ]
      kind = 'logits, pushed' if pushed else 'probability'
      name = f'Gauss {"x".join(map(str, shape))}, {kind}'
      yield row(name, int(np.prod(shape)), first, found)
  for n in gaussian_sizes:
    for log_odds in (False, True):
      found = [
        image_methods.gaussian_process(key, runs, i, n, log_odds=log_odds)
        for i in first
      ]
      kind = 'log-odds' if log_odds else 'probability'
      yield row(f'Gaussian process, {kind}', n, first, found)


def steel(
  log: Callable[[str], Any],
  places: Places,
  num_factors: int,
  *,
  num_images: int,
  sizes: Sequence[int],
  num_recipe_images: int,
  recipe_size: int,
) -> Iterator[tables.Row]:
  """Yields rows on steel surfaces; see `gpc_suite.run` for the arguments."""
  study = studies.steel_study(num_images, num_factors, workdir=places.steel)
  find = studies.sampled_truth
  if num_factors == 3:
    find = functools.partial(studies.truth, num_nodes=studies.STEEL_GRID)
  truths = _truths(log, places, study, find)
  log(f'{study.name}: {len(truths)} of {num_images} images have a truth')
  if not truths:
    return
  yield from _race_with_recipe(
    log, network_runs.Runs(study, places.folder / 'network'), truths, sizes,
    num_recipe_images, recipe_size,
  )


def _race_with_recipe(
  log, runs, truths, sizes, num_recipe_images, recipe_size
) -> Iterator[tables.Row]:
  """Rows of engine, pick-freeze and recipe, and the ratio of runs."""
  name = runs.study.name
  runs.warm_up()
  first = list(truths)[:num_recipe_images]
  of_engine = []
  for row in engine(runs, truths, sizes, len(first)):
    of_engine.append(row)
    yield row
  key = jax.random.key(0)
  for n in sizes:
    found = [image_methods.frozen(key, runs, i, n) for i in first]
    yield _row(
      runs, truths, 'pick-freeze', found[0][1], first, [f for f, _ in found]
    )
  log(f'{name}: the recipe on {len(first)} images')
  found = image_methods.recipe(key, runs, first, recipe_size)
  recipe = _row(
    runs, truths, "the source system's recipe", recipe_size, first, found
  )
  yield recipe
  goal = recipe[_measure('median', len(first))]
  reached = [
    row for row in of_engine if row[_measure('median', len(first))] <= goal
  ]
  best = reached[0] if reached else of_engine[-1]
  ratio = {'ratio of runs': recipe_size / best['runs']} if reached else {}
  yield {
    'table': "runs that reach the median error of the source system's recipe",
    'row': f'{name}, {len(first)} images', 'error of the recipe': goal,
    'error of the engine': best[_measure('median', len(first))],
    'runs of the engine': best['runs'], **ratio,
    'largest half-width of a truth': max(t.half_width for t in truths.values()),
  }


def engine(
  runs: network_runs.Runs,
  truths: Truths,
  sizes: Sequence[int],
  num_first: int,
) -> Iterator[tables.Row]:
  """Yields errors of the engine for all images together, by runs per image.

  Args:
    runs: the network.
    truths: of the images that are analysed, by position.
    sizes: runs per image, growing.
    num_first: images of the first columns.
  """
  images = list(truths)
  asked = []

  def evaluate(i, nodes):
    start = time.perf_counter()
    logits = runs.logits(images[i], nodes)
    asked.append(time.perf_counter() - start)
    return logits

  transforms = [
    network_runs.transform(int(runs.study.labels[i])) for i in images
  ]
  for n in sizes:
    runs.seconds.clear()
    asked.clear()
    start = time.perf_counter()
    # From the start for each number of runs: a refinement tells its answers at
    # its end, and this is what one with this budget costs.
    found = adaptive.refine(
      jax.random.key(0), evaluate, runs.study.space, transforms,
      adaptive.Options(
        tolerance=_TOLERANCE, max_evaluations=n,
        min_evaluations=min(sizes[0], n),
      ),
    ).answers
    spent = time.perf_counter() - start - sum(asked)
    network = sum(runs.seconds.values())
    inferences = [answer.inference for answer in found]
    inside = [
      gpc_functions.covers(
        one.intervals, (truths[i].first_order, truths[i].total)
      )
      for i, one in zip(images, inferences, strict=True)
    ]
    indices = [
      (one.indices.first_order, one.indices.total) for one in inferences
    ]
    yield _row(runs, truths, 'engine', n, images, indices, num_first) | {
      'covered': float(np.mean(inside)),
      'mean half-width': float(
        np.nanmean([one.half_widths[0] for one in inferences])
      ),
      'engine seconds': spent, 'network seconds': network,
      "engine's share": spent / (spent + network),
    }


def _truths(
  log: Callable[[str], Any],
  places: Places,
  study: studies.Study,
  find: Callable[..., studies.Truth],
) -> Truths:
  """Truths by position of the image, of those images that have one."""
  if not places.compute:
    study = dataclasses.replace(study, evaluator=_refuse)
  found = {}
  for i in range(len(study.images)):
    try:
      found[i] = find(study, i, folder=places.truths)
    except _Missing:
      log(f'{study.name}: no truth of image {i} in {places.truths}')
  return found


def _refuse(*unused_args, **unused_options):
  raise _Missing


def _row(
  runs: network_runs.Runs,
  truths: Truths,
  method: str,
  num_runs: int,
  images: Sequence[int],
  found: Iterable[image_methods.Indices],
  num_first: int | None = None,
) -> tables.Row:
  """Errors over the first images, and over all where there are more."""
  wrong = np.array([
    gpc_functions.largest_error(
      first, total, (truths[i].first_order, truths[i].total)
    )
    for i, (first, total) in zip(images, found, strict=True)
  ])
  num_first = len(wrong) if num_first is None else num_first
  row = {
    'table': runs.study.name, 'row': f'{method}, {num_runs}',
    'runs': int(num_runs),
  }
  for count in dict.fromkeys((num_first, len(wrong))):
    row[_measure('median', count)] = float(np.median(wrong[:count]))
    row[_measure('worst', count)] = float(np.max(wrong[:count]))
  row['position of the worst'] = images[int(np.argmax(wrong))]
  return row


def _measure(kind: str, count: int) -> str:
  return f'{kind} error of {count}'
