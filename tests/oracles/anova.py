"""Functions with known Sobol indices, and slow reference decompositions.

All functions take germ coordinates (N, 3), uniform on [-1, 1], and return
(N, 1). All references are dicts from a tuple of factor positions to S_u.
"""

from collections.abc import Callable
import itertools

import numpy as np

SUBSETS = tuple(
  u for size in (1, 2, 3) for u in itertools.combinations(range(3), size)
)
G_COEFFICIENTS = (0.0, 1.0, 4.5)


def ishigami(germ):
  """Ishigami and Homma 1990 with a = 7, b = 0.1."""
  x = np.pi * germ
  first, second, third = x[:, 0], x[:, 1], x[:, 2]
  y = np.sin(first) + 7 * np.sin(second) ** 2
  return (y + 0.1 * third**4 * np.sin(first))[:, None]


def ishigami_variances():
  """Closed form, for instance Saltelli et al. 2000, section 2.9."""
  a, b = 7, 0.1
  variances = dict.fromkeys(SUBSETS, 0.0)
  variances[0,] = (1 + b * np.pi**4 / 5) ** 2 / 2
  variances[1,] = a**2 / 8
  variances[0, 2] = b**2 * np.pi**8 * (1 / 18 - 1 / 50)
  return variances


def sobol_g(germ):
  """Sobol' g function, Saltelli and Sobol' 1995."""
  a = np.array(G_COEFFICIENTS)
  u = (germ + 1) / 2
  return np.prod((np.abs(4 * u - 2) + a) / (1 + a), axis=1)[:, None]


def sobol_g_variances():
  """V_u = Π_{d in u} 1 / (3 (1 + a_d)²)."""
  single = [1 / (3 * (1 + a) ** 2) for a in G_COEFFICIENTS]
  return {u: float(np.prod([single[d] for d in u])) for u in SUBSETS}


def sharp_sigmoid(germ):
  """Probability of a classifier that changes its mind within the range."""
  first, second, third = germ.T
  logit = 10 * (first - 0.5 * second + 0.7 * first * third + 0.2)
  return (1 / (1 + np.exp(-logit)))[:, None]


def seed_sigmoid(germ):
  """The check function of the source system: σ(3 x1 - x2 + 2 x1 x3)."""
  first, second, third = germ.T
  logit = 3 * first - second + 2 * first * third
  return (1 / (1 + np.exp(-logit)))[:, None]


def indices(variances):
  """S_u from V_u."""
  total = sum(variances.values())
  return {u: v / total for u, v in variances.items()}


def total_indices(first_and_higher):
  """(3,) sums over the sets that hold each factor."""
  return np.array(
    [sum(s for u, s in first_and_higher.items() if d in u) for d in range(3)]
  )


def dense_variances(
  function: Callable[[np.ndarray], np.ndarray], num_nodes: int = 80
) -> dict[tuple[int, ...], float]:
  """V_u by integrating the function out on a dense Gauss-Legendre grid."""
  x, w = np.polynomial.legendre.leggauss(num_nodes)
  w = w / 2
  grid = np.stack(np.meshgrid(x, x, x, indexing='ij'), axis=-1)
  y = function(grid.reshape(-1, 3)).reshape((num_nodes,) * 3)
  mean = np.einsum('ijk,i,j,k->', y, w, w, w)
  variances = {}
  for u in SUBSETS:
    conditional = y - mean
    for d in sorted(set(range(3)) - set(u), reverse=True):
      conditional = np.tensordot(conditional, w, axes=([d], [0]))
    closed = conditional**2
    for _ in u:
      closed = np.tensordot(closed, w, axes=([0], [0]))
    below = [v for v in variances if set(v) < set(u)]
    variances[u] = float(closed) - sum(variances[v] for v in below)
  return variances
