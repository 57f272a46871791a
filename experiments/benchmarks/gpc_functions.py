"""Errors of the engine and of its peers on functions with known indices.

Every seed is a design of its own. The engine goes from size to size as its
refinement does, each round on the runs of those before and with the prior that
they taught it.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import time
from typing import Any

import jax
import numpy as np

from experiments.benchmarks import coverage
from experiments.benchmarks import index_peers
from experiments.benchmarks import tables
from jaxsens import factors
from jaxsens.gpc import adaptive
from jaxsens.gpc import designs
from jaxsens.gpc import sobol_indices
from jaxsens.gpc import sparse_regression

# Half-width of the intervals at which a seed is done.
_TOLERANCE = 1e-7
# Largest size that all seeds are tried at.
_SMALL = 300
_TARGET = 0.01
# Total index from which on coverage counts.
_MATTERS = 1e-3
# Half-width below which an interval is a point.
_POINT = 1e-9
_QUANTILE = 0.95
# pygpc gives chaospy's numbers to rounding, and takes long.
_NUM_PYGPC_SEEDS = 2

Indices = tuple[np.ndarray, np.ndarray]


def errors(
  log: Callable[[str], Any],
  name: str,
  sizes: Sequence[int],
  peer_sizes: Sequence[int],
  *,
  first_key: int,
  num_seeds: int,
  num_seeds_large: int,
  max_saltelli: int,
) -> Iterator[tables.Row]:
  """Yields rows of errors on a function by method and runs.

  Args:
    log: receives one line of text at a time.
    name: of one of `coverage.problems`.
    sizes: runs of the engine and of sparse regression.
    peer_sizes: runs of the peers.
    first_key: of the designs, and seed of the peers; the others follow it.
    num_seeds: designs at up to 300 runs.
    num_seeds_large: designs beyond.
    max_saltelli: base points up to which 1 % is sought.
  """
  problem = {one.name: one for one in coverage.problems()}[name]
  expected = true_indices(problem)
  peers = index_peers.find(log)
  seeds = {
    n: range(first_key, first_key + count)
    for n in sizes
    for count in [num_seeds if n <= _SMALL else num_seeds_large]
  }
  yield from _first_below(
    f'{name}, engine', _engine(log, problem, expected, seeds)
  )
  yield from _first_below(
    f'{name}, sparse', _sparse(problem, expected, seeds)
  )
  for peer, method in peers.items():
    most = _NUM_PYGPC_SEEDS if 'pygpc' in peer else num_seeds
    for n in peer_sizes:
      yield _peer_row(
        problem, expected, peer, method, n,
        range(first_key, first_key + min(most, num_seeds)),
      )
  if 'SALib Saltelli' in peers:
    yield _saltelli_needs(
      problem, expected, range(first_key, first_key + num_seeds), max_saltelli
    )


def true_indices(problem: coverage.Problem) -> Indices:
  """Returns first-order (D,) and total (D,) indices of a problem."""
  truth, dims = problem.truth(), range(problem.space.dim)
  return (
    np.array([truth[d,] for d in dims]),
    np.array([truth[d, -1] for d in dims]),
  )


def largest_error(first: Any, total: Any, expected: Indices) -> float:
  """Returns the largest error over first-order and total indices."""
  pairs = zip((first, total), expected, strict=True)
  return float(max(
    np.max(np.abs(np.ravel(found) - truth)) for found, truth in pairs
  ))


def covers(intervals, expected: Indices) -> np.ndarray:
  """Whether the intervals of the first output hold each index, (2 D,)."""
  inside = [
    (lower[:, 0] <= truth + 1e-9) & (truth - 1e-9 <= upper[:, 0])
    for lower, upper, truth in (
      (intervals.first_order_lower, intervals.first_order_upper, expected[0]),
      (intervals.total_lower, intervals.total_upper, expected[1]),
    )
  ]
  return np.concatenate(inside)


def half_widths(intervals) -> np.ndarray:
  """Half-widths of the intervals of the first output, (2 D,)."""
  widths = [
    intervals.first_order_upper - intervals.first_order_lower,
    intervals.total_upper - intervals.total_lower,
  ]
  return np.concatenate([width[:, 0] for width in widths]) / 2


def relative_error(wrong: Any, widths: Any) -> float:
  """The 95 % quantile of errors divided by the half-widths of intervals.

  Intervals that hold 95 % and have the truth and the estimate where they should
  be have 1; how far above it is says how wrong they are.

  Args:
    wrong: errors of indices.
    widths: half-widths of their intervals, of the same shape.
  """
  ratios = np.abs(wrong) / np.maximum(widths, _POINT)
  return float(np.quantile(ratios, _QUANTILE))


def sparse_indices(
  problem: coverage.Problem, num_nodes: int, seed: int
) -> Indices:
  """Returns first-order and total indices by sparse regression alone."""
  key_design, key_fit = jax.random.split(jax.random.key(seed))
  design = designs.sobol_sequence(key_design, problem.space, num_nodes)
  fit = sparse_regression.fit(
    key_fit, problem.space, design, problem.function(design.nodes)
  )
  found = sobol_indices.sobol_indices(fit.expansion)
  return found.first_order, found.total


def rounds(
  key: jax.Array,
  evaluate: adaptive.Evaluate,
  space: factors.FactorSpace,
  transforms: Sequence[Callable[[np.ndarray], np.ndarray]],
  sizes: Sequence[int],
) -> Iterator[adaptive.Refinement]:
  """Yields what the engine knows after each number of runs.

  One refinement tells its answers at the end only. This one is cut at every
  size and goes on with the same sequence of nodes and the prior learned so far,
  whatever its tolerance.

  Args:
    key: of the designs.
    evaluate: the model; runs of smaller sizes are asked for again.
    space: the factors.
    transforms: as in `adaptive.refine`.
    sizes: numbers of runs, growing.
  """
  prior = None
  for n in sizes:
    options = adaptive.Options(
      tolerance=_TOLERANCE, max_evaluations=n, min_evaluations=n
    )
    found = adaptive.refine(
      key, evaluate, space, transforms, options, prior=prior
    )
    prior = found.prior
    yield found


def _engine(log, problem, expected, seeds) -> Iterator[tables.Row]:
  """Rows of the engine; all seeds advance together, size by size."""
  refinements = {
    seed: rounds(
      jax.random.key(seed), lambda _, nodes: problem.function(nodes),
      problem.space, [lambda outputs: outputs], list(seeds),
    )
    for seed in max(seeds.values(), key=len)
  }
  answers: dict[int, adaptive.Answer] = {}
  matters = np.tile(expected[1] > _MATTERS, 2)
  for n, chosen in seeds.items():
    start = time.perf_counter()
    for seed in chosen:
      known = answers.get(seed)
      if known is None or not known.inference.half_widths[0] <= _TOLERANCE:
        answers[seed] = next(refinements[seed]).answers[0]
    seconds = (time.perf_counter() - start) / len(chosen)
    log(f'{problem.name}: {n} runs, {seconds:.1f} s per seed')
    found = [answers[seed].inference for seed in chosen]
    wrong = [
      largest_error(one.indices.first_order, one.indices.total, expected)
      for one in found
    ]
    inside = [covers(one.intervals, expected)[matters] for one in found]
    off = [
      np.ravel([one.indices.first_order, one.indices.total])
      - np.ravel(expected)
      for one in found
    ]
    widths = [half_widths(one.intervals) for one in found]
    yield _row(problem.name, 'engine', n, chosen, wrong, {
      'covered': np.mean(inside),
      'mean half-width': np.mean([one.half_widths[0] for one in found]),
      'error / half-width': relative_error(
        np.array(off)[:, matters], np.array(widths)[:, matters]
      ),
      'by polynomials': np.mean(
        [answers[seed].method == 'sparse' for seed in chosen]
      ),
      'seconds per seed': seconds,
    })


def _sparse(problem, expected, seeds) -> Iterator[tables.Row]:
  for n, chosen in seeds.items():
    wrong = [
      largest_error(*sparse_indices(problem, n, seed), expected)
      for seed in chosen
    ]
    yield _row(problem.name, 'sparse regression', n, chosen, wrong)


def _peer_row(problem, expected, peer, method, size, seeds) -> tables.Row:
  found = [method(problem, size, seed) for seed in seeds]
  wrong = [largest_error(f, t, expected) for f, t, _ in found]
  return _row(problem.name, peer, found[0][2], seeds, wrong)


def _saltelli_needs(problem, expected, seeds, most) -> tables.Row:
  """Runs that pick-freeze takes until the worst seed is below 1 %."""
  num_base, row = 64, None
  while row is None or (row['worst error'] >= _TARGET and num_base <= most):
    size = num_base * (problem.space.dim + 2)
    row = _peer_row(
      problem, expected, 'SALib Saltelli', index_peers.salib_saltelli, size,
      seeds,
    )
    num_base *= 2
  return _needs(f'{problem.name}, SALib Saltelli', row)


def _first_below(label, rows) -> Iterator[tables.Row]:
  """Passes rows on; adds the size from which on all are below 1 %."""
  known, smallest = [], None
  for row in rows:
    known.append(row)
    yield row
  for row in reversed(known):
    if row['worst error'] >= _TARGET:
      break
    smallest = row
  yield _needs(label, smallest or known[-1])


def _needs(label: str, row: tables.Row) -> tables.Row:
  """A row without runs where the target is not reached."""
  reached = row['worst error'] < _TARGET
  runs = {'runs': row['runs']} if reached else {}
  return {
    'table': 'runs to 1 % error, worst seed', 'row': label, **runs,
    'worst error': row['worst error'], 'seeds': row['seeds'],
    'first key': row['first key'],
  }


def _row(table, method, runs, seeds, wrong, more=None) -> tables.Row:
  return {
    'table': table, 'row': f'{method}, {runs}', 'runs': int(runs),
    'seeds': len(wrong), 'first key': seeds[0],
    'median error': float(np.median(wrong)),
    'worst error': float(np.max(wrong)),
    **{name: float(x) for name, x in (more or {}).items()},
  }
