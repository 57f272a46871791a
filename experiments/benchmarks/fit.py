"""Fit, exact leave-one-out and all Sobol indices, against pygpc and chaospy.

The recipe of the source system: N = 10,000 Latin hypercube points in three
uniform factors, tensor basis of degree (6, 6, 6), 343 terms, least squares.
One output is the Ishigami function, whose indices are known; many outputs are
random smooth functions. All contestants get the same points and outputs and
run alternately in one process:

- jaxsens: basis, least squares, exact leave-one-out, indices of all subsets;
- chaospy: expansion, `fit_regression`, first-order and total indices with
  normed=True (it has no leave-one-out);
- pygpc: `Static_IO` run with its own error estimate, and
  `get_sensitivities_hdf5`, as the source system calls them. It is a peer and
  never imported elsewhere; without it its rows are left out.

Run by `python -m experiments.benchmark --suite=fit`.
"""

from collections import OrderedDict
from collections.abc import Callable
import contextlib
import importlib
import io
from multiprocessing import pool
import os
import statistics
import tempfile
import time
from typing import Any
from unittest import mock
import warnings

import chaospy
import jax
import numpy as np

from jaxsens import factors
from jaxsens.gpc import designs
from jaxsens.gpc import expansions
from jaxsens.gpc import multi_indices
from jaxsens.gpc import regression
from jaxsens.gpc import sobol_indices

Indices = tuple[np.ndarray, np.ndarray]


def run(
  log: Callable[[str], Any],
  *,
  num_nodes: int = 10_000,
  degree: int = 6,
  num_outputs: int = 1_000,
  num_outputs_chaospy: int = 20,
  num_repeats: int = 3,
  seed: int = 0,
) -> dict[str, Any]:
  """Measures all contestants.

  Args:
    log: receives one line of text at a time.
    num_nodes: number of points N.
    degree: degree of each of the three factors.
    num_outputs: number K of outputs of the second part.
    num_outputs_chaospy: chaospy builds one symbolic polynomial per output; its
      time for K outputs is a straight line through 1 and this many.
    num_repeats: rounds in which each contestant runs once.
    seed: seed of points and random functions.

  Returns:
    Plain numbers for JSON: per contestant seconds of each round, medians,
    best times, ratios to jaxsens as medians over rounds, and the largest
    errors of the indices.
  """
  space = factors.FactorSpace(
    tuple(factors.Factor(f'x{d}', chaospy.Uniform(-1, 1)) for d in range(3))
  )
  key_design, key_outputs = jax.random.split(jax.random.key(seed))
  design = designs.latin_hypercube(key_design, space, num_nodes)
  one = _ishigami(design.nodes)
  many = _random_waves(key_outputs, design.nodes, num_outputs)
  log(f'N = {num_nodes}, degree {degree}, {(degree + 1) ** 3} terms, '
      f'{os.cpu_count()} cores')  # fmt: skip

  def ours(outputs):
    return _jaxsens(space, design, outputs, degree)

  def chaospys(outputs):
    return _chaospy(design, outputs, degree)

  contestants = {'jaxsens': ours, 'chaospy': chaospys}
  pygpc = _import_pygpc(log)
  if pygpc is not None:
    contestants['pygpc'] = lambda y: _pygpc(pygpc, design, y, degree)
  single = _race(contestants, one, num_repeats, log)
  reports = {'K=1': single}
  slow = contestants.pop('chaospy')
  several = _race(contestants, many, num_repeats, log)
  several['seconds']['chaospy'] = _extrapolate(
    slow, many, num_outputs_chaospy, num_repeats, log
  )
  several['chaospy_is_extrapolated_from'] = [1, num_outputs_chaospy]
  reports[f'K={num_outputs}'] = several
  for name, report in reports.items():
    _summarise(name, report, log)
  return {
    'num_nodes': num_nodes,
    'num_terms': (degree + 1) ** 3,
    'num_cores': os.cpu_count(),
    **reports,
  }


def _race(
  contestants: dict[str, Callable[[np.ndarray], Indices]],
  outputs: np.ndarray,
  num_repeats: int,
  log: Callable[[str], Any],
) -> dict[str, Any]:
  """Runs all contestants in turn, round by round, after one round unseen."""
  seconds = {name: [] for name in contestants}
  found = {}
  contestants['jaxsens'](outputs)
  for repeat in range(num_repeats):
    for name, contestant in contestants.items():
      start = time.perf_counter()
      found[name] = contestant(outputs)
      seconds[name].append(time.perf_counter() - start)
      log(f'K = {outputs.shape[1]}, round {repeat + 1}: {name} '
          f'{seconds[name][-1]:.3f} s')  # fmt: skip
  report = {'seconds': seconds}
  if outputs.shape[1] == 1:
    report['max_index_error'] = {
      name: _error(indices, _ishigami_indices())
      for name, indices in found.items()
    }
  report['max_difference_to_jaxsens'] = {
    name: _error(indices, found['jaxsens'])
    for name, indices in found.items()
    if name != 'jaxsens'
  }
  return report


def _extrapolate(
  contestant: Callable[[np.ndarray], Indices],
  outputs: np.ndarray,
  num_outputs: int,
  num_repeats: int,
  log: Callable[[str], Any],
) -> list[float]:
  """Times for all outputs, straight lines through one and a few outputs."""
  seconds = []
  for _ in range(num_repeats):
    start = time.perf_counter()
    contestant(outputs[:, :1])
    middle = time.perf_counter()
    contestant(outputs[:, :num_outputs])
    one, few = middle - start, time.perf_counter() - middle
    slope = max(0.0, few - one) / (num_outputs - 1)
    seconds.append(one + slope * (outputs.shape[1] - 1))
    log(f'K = {num_outputs}: chaospy {few:.3f} s after {one:.3f} s for one, '
        f'so {seconds[-1]:.0f} s for {outputs.shape[1]}')  # fmt: skip
  return seconds


def _summarise(
  name: str, report: dict[str, Any], log: Callable[[str], Any]
) -> None:
  """Adds medians, best times and ratios to a report and logs them."""
  seconds = report['seconds']
  # Other load on the machine only adds: the best times are free of most of it.
  report['best_seconds'] = {who: min(times) for who, times in seconds.items()}
  ours = seconds['jaxsens']
  report['median_seconds'] = {
    who: statistics.median(times) for who, times in seconds.items()
  }
  report['times_slower_than_jaxsens'] = {
    who: statistics.median(a / b for a, b in zip(times, ours, strict=True))
    for who, times in seconds.items()
    if who != 'jaxsens'
  }
  for who, median in report['median_seconds'].items():
    ratio = report['times_slower_than_jaxsens'].get(who)
    error = report.get('max_index_error', {}).get(who)
    log(
      f'{name}: {who} {median:.3f} s (best '
      f'{report["best_seconds"][who]:.3f})'
      + ('' if ratio is None else f', {ratio:.0f} x jaxsens')
      + ('' if error is None else f', largest index error {error:.1e}')
    )


def _jaxsens(
  space: factors.FactorSpace,
  design: designs.Design,
  outputs: np.ndarray,
  degree: int,
) -> Indices:
  """Fit with exact leave-one-out, then the indices of all subsets."""
  basis = expansions.Basis(space, multi_indices.tensor_product((degree,) * 3))
  fit = regression.least_squares(basis, design, outputs)
  indices = sobol_indices.sobol_indices(fit.expansion)
  return indices.first_order, indices.total


def _chaospy(
  design: designs.Design, outputs: np.ndarray, degree: int
) -> Indices:
  """The same with chaospy; its leave-one-out does not exist."""
  joint = chaospy.J(*[chaospy.Uniform(-1, 1) for _ in range(3)])
  terms = chaospy.generate_expansion(
    degree, joint, normed=True, cross_truncation=np.inf
  )
  if len(terms) != (degree + 1) ** 3:
    raise ValueError(f'chaospy made {len(terms)} terms')
  _, coefficients = chaospy.fit_regression(
    terms, design.nodes.T, outputs, retall=1
  )
  first = chaospy.FirstOrderSobol(terms, coefficients)
  return first, chaospy.TotalOrderSobol(terms, coefficients)


def _import_pygpc(log: Callable[[str], Any]) -> Any:
  """The peer, or None with a line in the log when it is not installed."""
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')
      return importlib.import_module('pygpc')
  except ImportError as error:
    log(f'pygpc is left out ({error}); pip install pygpc adds it')
    return None


def _pygpc(
  pygpc: Any, design: designs.Design, outputs: np.ndarray, degree: int
) -> Indices:
  """Static regression and sensitivities, with the source system's options."""
  import h5py  # Comes with pygpc and is needed for nothing else.

  parameters = OrderedDict(
    (f'x{d}', pygpc.Beta(pdf_shape=[1, 1], pdf_limits=[-1, 1]))
    for d in range(3)
  )
  with (
    tempfile.TemporaryDirectory() as folder,
    contextlib.redirect_stdout(io.StringIO()),
    # Its pool of processes forks this one, which can hang under JAX's threads.
    mock.patch('multiprocessing.Pool', pool.ThreadPool),
  ):
    results = os.path.join(folder, 'gpc')
    grid = pygpc.RandomGrid(parameters_random=parameters, coords=design.nodes)
    algorithm = pygpc.Static_IO(
      parameters=parameters,
      options={
        'method': 'reg',
        'solver': 'Moore-Penrose',
        'settings': None,
        'order': [degree] * 3,
        'order_max': 3 * degree,
        'interaction_order': 3,
        'error_norm': 'relative',
        'backend': 'omp',
        'save_session_format': '.pkl',
        'fn_results': results,
      },
      results=outputs,
      grid=grid,
    )
    session = pygpc.Session(algorithm=algorithm)
    session.run()
    pygpc.get_sensitivities_hdf5(
      fn_gpc=results, calc_sobol=True, calc_global_sens=True
    )
    with h5py.File(results + '.hdf5', 'r') as file:
      shares = file['sens/sobol_norm'][:]
      members = file['sens/sobol_idx_bool'][:].astype(bool)
  sizes = members.sum(axis=1)
  first = [shares[members[:, d] & (sizes == 1)].sum(axis=0) for d in range(3)]
  total = [shares[members[:, d]].sum(axis=0) for d in range(3)]
  return np.stack(first), np.stack(total)


def _ishigami(germ: np.ndarray) -> np.ndarray:
  """Ishigami function with a = 7, b = 0.1 on [-π, π]³."""
  first, second, third = np.pi * germ.T
  y = np.sin(first) + 7 * np.sin(second) ** 2 + 0.1 * third**4 * np.sin(first)
  return y[:, None]


def _ishigami_indices() -> Indices:
  """Its first-order and total indices in closed form."""
  a, b = 7, 0.1
  first = (1 + b * np.pi**4 / 5) ** 2 / 2
  second, both = a**2 / 8, b**2 * np.pi**8 * (1 / 18 - 1 / 50)
  variance = first + second + both
  single = np.array([[first], [second], [0.0]]) / variance
  return single, single + np.array([[both], [0.0], [both]]) / variance


def _random_waves(
  key: jax.Array, germ: np.ndarray, num_outputs: int
) -> np.ndarray:
  """Smooth functions cos(w · germ + b) with normal w and b, (N, K)."""
  generator = designs.random_generator(key)
  directions = generator.normal(size=(3, num_outputs))
  return np.cos(germ @ directions + generator.normal(size=num_outputs))


def _error(found: Indices, expected: Indices) -> float:
  """Largest difference over first-order and total indices."""
  return float(
    max(
      np.max(np.abs(np.reshape(a, np.shape(b)) - b))
      for a, b in zip(found, expected, strict=True)
    )
  )
