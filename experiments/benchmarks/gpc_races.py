"""Shorter races of the gPC suite: five digits, coverage, bootstrap."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import statistics
import time
from typing import Any

import chaospy
import jax
import numpy as np

from experiments.benchmarks import coverage
from experiments.benchmarks import gpc_functions
from experiments.benchmarks import index_peers
from experiments.benchmarks import tables
from jaxsens import factors
from jaxsens.gpc import designs
from jaxsens.gpc import expansions
from jaxsens.gpc import grid_refinement
from jaxsens.gpc import intervals
from jaxsens.gpc import multi_indices
from jaxsens.gpc import regression
from jaxsens.gpc import sobol_indices

_FIVE_DIGITS = 1e-5
_MAX_GRID = 400
# Refits are timed on few resamples and extended to all of them.
_NUM_REFITS = 20
_NUM_ROUNDS = 5


def to_five_digits(
  log: Callable[[str], Any],
  sizes: Sequence[int],
  num_seeds: int,
  pygpc_tolerance: float,
) -> Iterator[tables.Row]:
  """Yields the runs that Ishigami takes to an error of 1e-5.

  Args:
    log: receives one line of text at a time.
    sizes: runs that sparse regression is tried at, growing.
    num_seeds: designs of sparse regression.
    pygpc_tolerance: at which pygpc's adaptive regression stops.
  """
  problem = next(p for p in coverage.problems() if p.name == 'ishigami')
  expected = gpc_functions.true_indices(problem)
  yield _grid_row(problem, expected)
  for n in sizes:
    start = time.perf_counter()
    wrong = [
      gpc_functions.largest_error(
        *gpc_functions.sparse_indices(problem, n, seed), expected
      )
      for seed in range(num_seeds)
    ]
    seconds = (time.perf_counter() - start) / num_seeds
    if max(wrong) <= _FIVE_DIGITS or n == sizes[-1]:
      name = f'sparse regression, worst of {num_seeds} seeds'
      yield _five_digits(name, n, max(wrong), seconds)
      break
  if index_peers.installed('pygpc', log):
    start = time.perf_counter()
    first, total, runs = index_peers.pygpc_adaptive(
      problem, pygpc_tolerance, 0
    )
    error = gpc_functions.largest_error(first, total, expected)
    seconds = time.perf_counter() - start
    yield _five_digits('pygpc RegAdaptive, pairs only', runs, error, seconds)


def coverage_of_fits(num_seeds: int) -> Iterator[tables.Row]:
  """Yields how often intervals of least-squares fits hold the truth.

  Args:
    num_seeds: designs per problem.
  """
  for problem in coverage.problems():
    rows = coverage.coverage(num_seeds, chosen=[problem])
    for kind, kept in (
      ('all indices', rows),
      ('indices > 0.001', [row for row in rows if row.truth > 1e-3]),
    ):
      covered = [row.covered for row in kept]
      yield {
        'table': 'coverage of 95 % intervals of least-squares fits',
        'row': f'{problem.name}, N = {problem.num_nodes}, {kind}',
        'indices': len(kept), 'seeds': num_seeds,
        'mean covered': float(np.mean(covered)),
        'least covered': float(np.min(covered)),
        'mean half-width': float(np.mean([row.half_width for row in kept])),
        'mean error (rms)': float(np.mean([row.error for row in kept])),
      }


def bootstrap(
  num_resamples: int, num_nodes: int, degree: int
) -> Iterator[tables.Row]:
  """Yields seconds of the bootstrap of all indices beside refits.

  Args:
    num_resamples: resamples.
    num_nodes: N.
    degree: of each of three factors.
  """
  space = factors.FactorSpace(
    tuple(factors.Factor(f'x{d}', chaospy.Uniform(-1, 1)) for d in range(3))
  )
  key_design, key = jax.random.split(jax.random.key(0))
  design = designs.latin_hypercube(key_design, space, num_nodes)
  basis = expansions.Basis(space, multi_indices.tensor_product((degree,) * 3))
  generator = designs.random_generator(key)
  for num_outputs in (1, 10):
    directions = generator.normal(size=(3, num_outputs))
    outputs = np.cos(3 * design.nodes @ directions)
    fit = regression.least_squares(basis, design, outputs)

    def resample(fit=fit):
      intervals.bootstrap(
        key, fit, design=design, num_resamples=num_resamples
      )

    def refit(outputs=outputs):
      for _ in range(_NUM_REFITS):
        rows = generator.integers(num_nodes, size=num_nodes)
        _refit(basis, design, outputs, rows)

    resample()
    ours = statistics.median(_seconds(resample) for _ in range(_NUM_ROUNDS))
    theirs = _seconds(refit) / _NUM_REFITS * num_resamples
    yield {
      'table': f'{num_resamples} bootstrap resamples of all indices',
      'row': f'N = {num_nodes}, {basis.num_terms} terms, K = {num_outputs}',
      'seconds, warm': ours, 'refits, seconds': theirs,
      'ratio': theirs / ours,
    }


def _refit(basis, design, outputs, rows) -> None:
  """A resample as others do it: fit and indices anew."""
  psi = basis.evaluate(design.nodes[rows])
  # A resample holds nodes twice and may not determine all terms.
  found = np.linalg.lstsq(psi, outputs[rows], rcond=None)[0]
  sobol_indices.sobol_indices(expansions.Expansion(basis, found))


def _grid_row(problem, expected) -> tables.Row:
  """Runs from which on the adaptive grid stays below the error."""
  start = time.perf_counter()
  found = grid_refinement.refine(
    problem.function, problem.space, tolerance=_FIVE_DIGITS / 10,
    max_evaluations=_MAX_GRID,
  )
  seconds = time.perf_counter() - start
  runs, error = found.history[-1].num_evaluations, np.inf
  for step in reversed(found.history):
    wrong = gpc_functions.largest_error(
      step.indices.first_order, step.indices.total, expected
    )
    if wrong > _FIVE_DIGITS:
      break
    runs, error = step.num_evaluations, wrong
  row = _five_digits('adaptive grid', runs, error, seconds)
  return row | {'runs when it stopped': found.history[-1].num_evaluations}


def _five_digits(name, runs, error, seconds) -> tables.Row:
  return {
    'table': 'Ishigami to 1e-5', 'row': name, 'runs': int(runs),
    'error': float(error), 'seconds': seconds,
  }


def _seconds(work: Callable[[], Any]) -> float:
  start = time.perf_counter()
  work()
  return time.perf_counter() - start
