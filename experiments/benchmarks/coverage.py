"""How often 95 % intervals of Sobol indices hold the truth, and how wide.

Four functions with known indices that their bases do not resolve: Ishigami,
the g function of Sobol' in eight factors, the flow through a borehole, and a
sigmoid that switches within its range. Every seed has a Latin hypercube of its
own, a least-squares fit and intervals from the leave-one-out residuals alone.
"""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import functools
import itertools

import chaospy
import jax
import numpy as np

from jaxsens import factors
from jaxsens.gpc import designs
from jaxsens.gpc import expansions
from jaxsens.gpc import intervals
from jaxsens.gpc import multi_indices
from jaxsens.gpc import regression
from jaxsens.gpc import sobol_indices

_G_COEFFICIENTS = (0.0, 1.0, 4.5, 9.0, 99.0, 99.0, 99.0, 99.0)
# Nodes of the dense rule that gives the truth for the borehole, by factor.
_BOREHOLE_NODES = (10, 4, 4, 2, 4, 2, 6, 6)
_SIGMOID_NODES = 128

Truth = dict[sobol_indices.Subset, float]


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
  """A function with known indices and how it is fitted.

  Attributes:
    name: for tables.
    space: the D factors.
    function: germ (N, D) -> outputs (N, 1).
    truth: returns S_u of all sets u of up to two factors and, under (d, -1),
      the total index of factor d.
    terms: (P, D) multi-indices of the basis.
    num_nodes: N of each design.
  """

  name: str
  space: factors.FactorSpace
  function: Callable[[np.ndarray], np.ndarray]
  truth: Callable[[], Truth]
  terms: np.ndarray
  num_nodes: int


@dataclasses.dataclass(frozen=True)
class Row:
  """What the intervals of one index did over all seeds.

  Attributes:
    problem: name of the problem.
    index: for instance 'S(x0,x2)' or 'T(x1)'.
    truth: the index.
    covered: share of the seeds whose interval holds the truth.
    half_width: mean half width.
    error: root mean square error of the index of the expansion.
  """

  problem: str
  index: str
  truth: float
  covered: float
  half_width: float
  error: float


def problems() -> tuple[Problem, ...]:
  """Returns the four problems."""
  cube = _space(*[chaospy.Uniform(-1, 1)] * 3)
  return (
    Problem(
      'ishigami', cube, _ishigami, _ishigami_truth,
      multi_indices.total_degree(3, 7), 300,
    ),
    Problem(
      'sobol_g', _space(*[chaospy.Uniform(-1, 1)] * 8), _sobol_g,
      _sobol_g_truth, multi_indices.hyperbolic(8, 6, 0.7), 600,
    ),
    Problem(
      'borehole', _borehole_space(), _borehole, _borehole_truth,
      multi_indices.total_degree(8, 2), 120,
    ),
    Problem(
      'steep_sigmoid', cube, _steep_sigmoid, _steep_sigmoid_truth,
      multi_indices.total_degree(3, 8), 1000,
    ),
  )  # fmt: skip


def coverage(
  num_seeds: int,
  *,
  chosen: Sequence[Problem] | None = None,
  num_resamples: int = 1000,
  level: float = 0.95,
) -> list[Row]:
  """Returns one row per problem and index.

  Args:
    num_seeds: designs of each problem.
    chosen: the problems; None for all of `problems`.
    num_resamples: bootstrap resamples of each interval.
    level: nominal coverage.
  """
  rows = []
  for problem in problems() if chosen is None else chosen:
    truth = problem.truth()
    found = [
      _one_seed(problem, seed, num_resamples, level)
      for seed in range(num_seeds)
    ]
    for u in found[0]:
      value, lower, upper = np.array([seed[u] for seed in found]).T
      # The truth of an index that is zero has rounding errors of its own.
      inside = (lower <= truth[u] + 1e-9) & (truth[u] - 1e-9 <= upper)
      rows.append(
        Row(
          problem.name, _index_name(problem.space, u), truth[u],
          float(np.mean(inside)), float(np.mean(upper - lower)) / 2,
          float(np.sqrt(np.mean((value - truth[u]) ** 2))),
        )
      )  # fmt: skip
  return rows


def _one_seed(
  problem: Problem, seed: int, num_resamples: int, level: float
) -> dict[sobol_indices.Subset, tuple[float, float, float]]:
  """Index of the expansion, lower and upper end, by set or (d, -1)."""
  key_design, key_bootstrap = jax.random.split(jax.random.key(seed))
  design = designs.latin_hypercube(
    key_design, problem.space, problem.num_nodes
  )
  basis = expansions.Basis(problem.space, problem.terms)
  fit = regression.least_squares(
    basis, design, problem.function(design.nodes)
  )
  found = intervals.bootstrap(
    key_bootstrap, fit, design=design,
    num_resamples=num_resamples, level=level,
  )  # fmt: skip
  indices = sobol_indices.sobol_indices(fit.expansion)
  single = {
    u: (
      indices.subset_values[s, 0],
      found.subset_lower[s, 0],
      found.subset_upper[s, 0],
    )
    for s, u in enumerate(found.subsets)
    if len(u) <= 2
  }
  total = {
    (d, -1): (
      indices.total[d, 0],
      found.total_lower[d, 0],
      found.total_upper[d, 0],
    )
    for d in range(problem.space.dim)
  }
  return single | total


def _index_name(space: factors.FactorSpace, u: sobol_indices.Subset) -> str:
  if u[-1] == -1:
    return f'T({space.names[u[0]]})'
  return f'S({",".join(space.names[d] for d in u)})'


def _space(*distributions: chaospy.Distribution) -> factors.FactorSpace:
  return factors.FactorSpace(
    tuple(factors.Factor(f'x{d}', x) for d, x in enumerate(distributions))
  )


def _truth_of(variances: Truth, dim: int) -> Truth:
  """S_u to pairs, and totals under (d, -1), from the V_u of all sets."""
  variance = sum(variances.values())
  total = {
    (d, -1): sum(v for u, v in variances.items() if d in u) / variance
    for d in range(dim)
  }
  small = {u: v / variance for u, v in variances.items() if len(u) <= 2}
  pairs = itertools.combinations(range(dim), 2)
  return dict.fromkeys(pairs, 0.0) | small | total


def _ishigami(germ: np.ndarray) -> np.ndarray:
  """Ishigami and Homma 1990 with a = 7, b = 0.1."""
  first, second, third = np.pi * germ.T
  y = np.sin(first) * (1 + 0.1 * third**4) + 7 * np.sin(second) ** 2
  return y[:, None]


def _ishigami_truth() -> Truth:
  """Closed form, for instance Saltelli et al. 2000, section 2.9."""
  variances = {
    (0,): (1 + 0.1 * np.pi**4 / 5) ** 2 / 2,
    (1,): 49 / 8,
    (2,): 0.0,
    (0, 2): 0.01 * np.pi**8 * (1 / 18 - 1 / 50),
  }
  return _truth_of(variances, 3)


def _sobol_g(germ: np.ndarray) -> np.ndarray:
  """Saltelli and Sobol' 1995, on [-1, 1]."""
  a = np.array(_G_COEFFICIENTS)
  return np.prod((np.abs(2 * germ) + a) / (1 + a), axis=1)[:, None]


def _sobol_g_truth() -> Truth:
  """V_u = Π_{d in u} 1 / (3 (1 + a_d)²)."""
  single = [1 / (3 * (1 + a) ** 2) for a in _G_COEFFICIENTS]
  dim = len(single)
  variances = {
    u: float(np.prod([single[d] for d in u]))
    for size in range(1, dim + 1)
    for u in itertools.combinations(range(dim), size)
  }
  return _truth_of(variances, dim)


def _borehole_space() -> factors.FactorSpace:
  """Harper and Gupta 1983: metres, square metres per year."""
  marginals = {
    'rw': chaospy.Normal(0.10, 0.0161812),
    'r': chaospy.LogNormal(7.71, 1.0056),
    'Tu': chaospy.Uniform(63070, 115600),
    'Hu': chaospy.Uniform(990, 1110),
    'Tl': chaospy.Uniform(63.1, 116),
    'Hl': chaospy.Uniform(700, 820),
    'L': chaospy.Uniform(1120, 1680),
    'Kw': chaospy.Uniform(9855, 12045),
  }
  return factors.FactorSpace(
    tuple(factors.Factor(name, x) for name, x in marginals.items())
  )


def _borehole(germ: np.ndarray) -> np.ndarray:
  """Flow through a borehole, cubic metres per year."""
  rw, r, tu, hu, tl, hl, length, kw = _borehole_space().to_values(germ).T
  log = np.log(r / rw)
  inner = 1 + 2 * length * tu / (log * rw**2 * kw) + tu / tl
  return (2 * np.pi * tu * (hu - hl) / (log * inner))[:, None]


@functools.cache
def _borehole_truth() -> Truth:
  """Projection on a dense tensor of Gauss rules."""
  space = _borehole_space()
  design = designs.tensor_gauss(space, _BOREHOLE_NODES)
  return _dense_truth(
    _borehole(design.nodes)[:, 0], design.weights, _BOREHOLE_NODES
  )


def _steep_sigmoid(germ: np.ndarray) -> np.ndarray:
  """Probability of a classifier that changes its mind within the range."""
  first, second, third = germ.T
  logit = first - 0.5 * second + 0.7 * first * third + 0.2
  return (0.5 + 0.5 * np.tanh(10 * logit))[:, None]


@functools.cache
def _steep_sigmoid_truth() -> Truth:
  """Integrals on a dense tensor of Gauss-Legendre rules."""
  num_nodes = (_SIGMOID_NODES,) * 3
  design = designs.tensor_gauss(
    _space(*[chaospy.Uniform(-1, 1)] * 3), num_nodes
  )
  outputs = _steep_sigmoid(design.nodes)[:, 0]
  return _dense_truth(outputs, design.weights, num_nodes)


def _dense_truth(
  outputs: np.ndarray, weights: np.ndarray, num_nodes: Sequence[int]
) -> Truth:
  """S_u to pairs and totals by integrating a grid over all other factors."""
  dim = len(num_nodes)
  y, w = outputs.reshape(num_nodes), weights.reshape(num_nodes)
  y = y - np.sum(w * y)
  variance = np.sum(w * y**2)

  def closed(u):
    others = tuple(d for d in range(dim) if d not in u)
    mass = np.sum(w, axis=others)
    return np.sum(np.sum(w * y, axis=others) ** 2 / mass) / variance

  truth = {(d,): closed((d,)) for d in range(dim)}
  for d, e in itertools.combinations(range(dim), 2):
    truth[d, e] = closed((d, e)) - truth[d,] - truth[e,]
  for d in range(dim):
    truth[d, -1] = 1 - closed(tuple(e for e in range(dim) if e != d))
  return {u: float(value) for u, value in truth.items()}
