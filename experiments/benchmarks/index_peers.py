"""Sobol indices of a function by other libraries, at a given number of runs.

Each peer takes (problem, number of runs, seed) and returns (first-order, total,
runs). Regression with a total degree, as chaospy's and pygpc's users do it,
takes the largest degree that leaves two nodes per term.
"""

from collections import OrderedDict
from collections.abc import Callable
from collections.abc import Mapping
import contextlib
import functools
import importlib
import io
import math
from multiprocessing import pool
import os
import tempfile
from typing import Any
from unittest import mock
import warnings

import chaospy
import jax
import numpy as np

from experiments.benchmarks import coverage
from jaxsens.gpc import designs

Found = tuple[np.ndarray, np.ndarray, int]
Peer = Callable[[coverage.Problem, int, int], Found]

# Degree beyond which chaospy's monomials take minutes to build.
_MAX_DEGREE = 10


def find(log: Callable[[str], Any]) -> Mapping[str, Peer]:
  """Returns the peers that are installed; says which are not."""
  peers: dict[str, Peer] = {'chaospy regression': chaospy_regression}
  for name, module, peer in (
    ('pygpc Static', 'pygpc', pygpc_static),
    ('SALib Saltelli', 'SALib', salib_saltelli),
  ):
    if installed(module, log):
      peers[name] = peer
  return peers


def installed(name: str, log: Callable[[str], Any]) -> bool:
  """Whether a peer can be imported; a line in the log if not."""
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')
      importlib.import_module(name)
  except ImportError as error:
    log(f'{name} is left out ({error}); pip install {name} adds it')
    return False
  return True


def total_degree_for(dim: int, num_nodes: int) -> int:
  """Largest total degree with two nodes per term, at least 1."""
  degree = 1
  while (
    degree < _MAX_DEGREE
    and 2 * math.comb(dim + degree + 1, dim) <= num_nodes
  ):
    degree += 1
  return degree


def chaospy_regression(
  problem: coverage.Problem, num_nodes: int, seed: int
) -> Found:
  """Point collocation: a Sobol sequence and total degree."""
  design = _design(problem, num_nodes, seed)
  degree = total_degree_for(problem.space.dim, num_nodes)
  terms = _chaospy_terms(problem.space, degree)
  _, coefficients = chaospy.fit_regression(
    terms, design.nodes.T, problem.function(design.nodes)[:, 0], retall=1
  )
  return (
    chaospy.FirstOrderSobol(terms, coefficients),
    chaospy.TotalOrderSobol(terms, coefficients), num_nodes,
  )


def salib_saltelli(
  problem: coverage.Problem, num_nodes: int, seed: int
) -> Found:
  """Pick-freeze; runs are those of the next power of two of base points."""
  from SALib.analyze import sobol as analyze
  from SALib.sample import sobol as sample

  dim = problem.space.dim
  described = {
    'num_vars': dim, 'names': list(problem.space.names),
    'bounds': [[0.0, 1.0]] * dim,
  }
  num_base = 2 ** math.ceil(math.log2(max(num_nodes / (dim + 2), 2)))
  uniform = sample.sample(
    described, num_base, calc_second_order=False, seed=seed
  )
  outputs = problem.function(problem.space.from_uniform(uniform))[:, 0]
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    found = analyze.analyze(
      described, outputs, calc_second_order=False, num_resamples=2, seed=seed
    )
  return np.array(found['S1']), np.array(found['ST']), len(outputs)


def pygpc_static(
  problem: coverage.Problem, num_nodes: int, seed: int
) -> Found:
  """Least squares with total degree, the same nodes as for chaospy."""
  import pygpc

  dim = problem.space.dim
  design = _design(problem, num_nodes, seed)
  degree = total_degree_for(dim, num_nodes)
  parameters = _pygpc_parameters(pygpc, problem)
  with _pygpc_quiet() as folder:
    algorithm = pygpc.Static_IO(
      parameters=parameters,
      options=_pygpc_options(folder) | {
        'settings': None, 'order': [degree] * dim, 'order_max': degree,
        'interaction_order': dim,
      },
      results=problem.function(design.nodes),
      grid=pygpc.RandomGrid(
        parameters_random=parameters, coords=design.nodes
      ),
    )
    pygpc.Session(algorithm=algorithm).run()
    return *_pygpc_indices(pygpc, folder), num_nodes


def pygpc_adaptive(
  problem: coverage.Problem, tolerance: float, seed: int
) -> Found:
  """RegAdaptive, which chooses its own nodes and degree.

  It is told that no more than two factors interact; left to find that out, it
  takes three times as many runs on Ishigami.
  """
  import pygpc

  runs = []

  class Model(pygpc.AbstractModel):
    """The function, as pygpc asks for it."""

    def validate(self):
      """Has no constraints."""

    def simulate(self, process_id=None, matlab_engine=None):
      """Returns outputs at the nodes pygpc asks for."""
      nodes = np.stack([self.p[n] for n in problem.space.names], axis=1)
      runs.append(len(nodes))
      return problem.function(nodes)

  parameters = _pygpc_parameters(pygpc, problem)
  with _pygpc_quiet() as folder:
    algorithm = pygpc.RegAdaptive(
      problem=pygpc.Problem(Model(), parameters),
      options=_pygpc_options(folder) | {
        'order_start': 1, 'order_end': 20,
        'interaction_order': 2,
        'matrix_ratio': 1.5, 'eps': tolerance, 'adaptive_sampling': True,
        'gradient_enhanced': False, 'n_cpu': 0, 'fn_results': None,
        'grid': pygpc.Random, 'grid_options': {'seed': seed},
      },
    )
    gpc, coefficients, _ = algorithm.run()
    shares, _, members = gpc.get_sobol_indices(coefficients)
  shares = np.ravel(shares) / np.sum(shares)
  return *_by_factor(shares, np.array(members, bool)), sum(runs)


def _design(problem, num_nodes, seed) -> designs.Design:
  return designs.sobol_sequence(
    jax.random.key(seed), problem.space, num_nodes
  )


@functools.lru_cache(maxsize=8)
def _chaospy_terms(space, degree):
  joint = chaospy.J(*[factor.germ for factor in space.factors])
  return chaospy.generate_expansion(degree, joint, normed=True)


def _pygpc_parameters(pygpc, problem) -> OrderedDict:
  """The germ: uniform on [-1, 1] or standard normal."""
  def parameter(factor):
    if isinstance(factor.germ, chaospy.Normal):
      return pygpc.Norm(pdf_shape=[0, 1])
    return pygpc.Beta(pdf_shape=[1, 1], pdf_limits=[-1, 1])

  return OrderedDict((f.name, parameter(f)) for f in problem.space.factors)


def _pygpc_options(folder: str) -> dict[str, Any]:
  return {
    'method': 'reg', 'solver': 'Moore-Penrose', 'error_norm': 'relative',
    'error_type': 'loocv', 'backend': 'omp', 'save_session_format': '.pkl',
    'fn_results': os.path.join(folder, 'gpc'),
  }


def _pygpc_indices(pygpc, folder) -> tuple[np.ndarray, np.ndarray]:
  import h5py  # Comes with pygpc and is needed for nothing else.

  results = os.path.join(folder, 'gpc')
  pygpc.get_sensitivities_hdf5(
    fn_gpc=results, calc_sobol=True, calc_global_sens=False
  )
  with h5py.File(results + '.hdf5', 'r') as file:
    shares = file['sens/sobol_norm'][:].ravel()
    members = file['sens/sobol_idx_bool'][:].astype(bool)
  return _by_factor(shares, members)


def _by_factor(shares, members) -> tuple[np.ndarray, np.ndarray]:
  """First-order and total indices from those of sets (S, D) of factors."""
  alone = members.sum(axis=1) == 1
  first = [shares[column & alone].sum() for column in members.T]
  return np.array(first), np.array([shares[c].sum() for c in members.T])


@contextlib.contextmanager
def _pygpc_quiet():
  """A folder for its files; its output is thrown away."""
  with (
    tempfile.TemporaryDirectory() as folder,
    contextlib.redirect_stdout(io.StringIO()),
    warnings.catch_warnings(),
    # Its pool of processes forks this one, which can hang under JAX's threads.
    mock.patch('multiprocessing.Pool', pool.ThreadPool),
  ):
    warnings.simplefilter('ignore')
    yield folder
