"""Points at which a surrogate is averaged, and the variances found there.

A surrogate costs next to nothing, so its indices are not read off coefficients
but integrated densely, through whatever function stands behind it (softmax,
argmax). Up to four factors that is a tensor Gauss grid, on which all subsets
are exact sums; beyond, where such a grid has too many points, pick-freeze rows
of one scrambled Sobol sequence with many thousand base points.
"""

from collections.abc import Sequence
import dataclasses
import functools

import jax
import numpy as np

from jaxsens import factors
from jaxsens.gpc import designs
from jaxsens.gpc import expansions
from jaxsens.gpc import grid_anova
from jaxsens.gpc import multi_indices
from jaxsens.gpc import pick_freeze
from jaxsens.gpc import polynomials

Subset = tuple[int, ...]

# Largest number of points of a grid, and base points where there is no grid.
_MAX_POINTS = 16_000
_COARSE_POINTS = 4096
_NUM_BASE = 1024
_NUM_FINE = 8192
# Gauss nodes of one factor: so many, and so many per length of the response.
_FEWEST, _MOST, _PER_LENGTH = 8, 64, 4.0
# Total degree of the fit that pairs are read off where there is no grid.
_PAIR_DEGREE = 4
_SLOPE_DEGREE, _MOST_SLOPE_DEGREE = 8, 16


@dataclasses.dataclass(frozen=True, eq=False)
class Rule:
  """Points and weights for averages over the factors.

  Attributes:
    space: the D factors.
    points: (M, D) germ coordinates.
    weights: (M,) sum 1; for pick-freeze rows zero on all but those of A and B.
    axes: weights of each factor of a tensor grid; None for pick-freeze rows.
    num_base: base points of pick-freeze rows.
  """

  space: factors.FactorSpace
  points: np.ndarray
  weights: np.ndarray
  axes: tuple[np.ndarray, ...] | None
  num_base: int = 0

  @functools.cached_property
  def slopes(self) -> np.ndarray:
    """(D, M) matrix of `main_effect_slopes`."""
    return _slopes(self)


@dataclasses.dataclass(frozen=True, eq=False)
class Variances:
  """ANOVA of K functions at the points of a rule.

  Attributes:
    subsets: S sets of factors: all of a grid, singles and pairs of rows.
    partial: (S, K) variances V_u.
    first_order: (D, K) V_{d}, total: (D, K) Σ_{u ∋ d} V_u.
    mean: (K,), variance: (K,).
  """

  subsets: tuple[Subset, ...]
  partial: np.ndarray
  first_order: np.ndarray
  total: np.ndarray
  mean: np.ndarray
  variance: np.ndarray


def make_rule(
  key: jax.Array,
  space: factors.FactorSpace,
  lengths: Sequence[float],
  *,
  coarse: bool = False,
) -> Rule:
  """Returns a rule that resolves responses of these lengths.

  A grid takes all points that it may have, whatever the lengths: they say how
  the points are shared out. Where it is no grid, `make_fine_rule` has more
  rows.

  Args:
    key: of pick-freeze rows.
    space: the factors.
    lengths: of each factor, the shortest wave of the response in units in
      which a uniform factor has the range [-1, 1].
    coarse: a grid of a quarter of the points, to see how far things are.
  """
  most = _COARSE_POINTS if coarse else _MAX_POINTS
  sizes = [
    _size(factor, length)
    for factor, length in zip(space.factors, lengths, strict=True)
  ]
  fewest = np.array([_size(factor, np.inf) for factor in space.factors])
  if np.prod(fewest.astype(float)) > _MAX_POINTS:
    return _rows(key, space, _NUM_BASE)
  sizes = np.array(sizes)
  while np.prod(sizes.astype(float)) > most:
    # The factor with the most nodes above its minimum gives one away.
    sizes[np.argmax(np.where(sizes > fewest, sizes, 0))] -= 1
  sizes = _filled(space, sizes, most)
  rules = [
    polynomials.gauss_rule(polynomials.recurrence(factor.germ, n - 1), n)
    for factor, n in zip(space.factors, sizes.tolist(), strict=True)
  ]
  design = designs.tensor_gauss(space, sizes.tolist())
  return Rule(
    space, design.nodes, design.weights, tuple(w for _, w in rules)
  )


def make_fine_rule(key: jax.Array, space: factors.FactorSpace) -> Rule:
  """Returns pick-freeze rows for the posterior mean alone."""
  return _rows(key, space, _NUM_FINE)


def variances(rule: Rule, values: np.ndarray) -> Variances:
  """Returns the ANOVA of functions (M, K) given at the points of a rule."""
  if rule.axes is None:
    return _of_rows(rule, values)
  sizes = tuple(map(len, rule.axes))
  subsets, partial = grid_anova.partial_variances(
    values.reshape(*sizes, -1), rule.axes
  )
  dim = len(sizes)
  first = np.stack([partial[subsets.index((d,))] for d in range(dim)])
  total = np.stack([
    sum(partial[s] for s, u in enumerate(subsets) if d in u)
    for d in range(dim)
  ])
  mean = rule.weights @ values
  return Variances(
    subsets, partial, first, total, mean, partial.sum(axis=0)
  )


def main_effect_slopes(rule: Rule, values: np.ndarray) -> np.ndarray:
  """Returns E[∂ f / ∂ value_d] in physical units, (D, K).

  From the main effects alone, which hold all of it, expanded to the degree
  that the rule resolves: by projection on a grid, by least squares on rows.

  Args:
    rule: the rule.
    values: (M, K) functions at its points.

  Returns:
    The mean derivatives; NaN for a discrete factor, which has none.
  """
  return rule.slopes @ values


def _slopes(rule: Rule) -> np.ndarray:
  discrete = np.array([f.atoms is not None for f in rule.space.factors])
  most = [_SLOPE_DEGREE] * len(discrete)
  if rule.axes is not None:
    most = [min(len(axis) - 1, _MOST_SLOPE_DEGREE) for axis in rule.axes]
  degrees = np.where(discrete, 0, most)
  terms = np.zeros((1 + degrees.sum(), len(degrees)), np.int64)
  owners = np.repeat(np.arange(len(degrees)), degrees)
  terms[np.arange(1, len(terms)), owners] = np.concatenate(
    [np.arange(1, degree + 1) for degree in degrees]
  )
  basis = expansions.Basis(rule.space, terms)
  psi = basis.evaluate(rule.points)
  if rule.axes is not None:
    effects = (psi * rule.weights[:, None]).T
  else:
    psi = np.where(rule.weights[:, None] > 0, psi, 0)
    # The columns are nearly orthonormal: normal equations lose no digits.
    effects = np.linalg.solve(psi.T @ psi, psi.T)
  slopes = expansions.mean_derivatives(expansions.Expansion(basis, effects))
  return np.where(discrete[:, None], np.nan, slopes)


def _filled(
  space: factors.FactorSpace, sizes: np.ndarray, max_points: int
) -> np.ndarray:
  """Sizes with the points that are left, given to the smallest ones.

  The lengths are those of the outputs; a softmax of smooth logits is much
  sharper, and nothing else tells of the error of a grid.
  """
  most = [
    _MOST if factor.atoms is None else min(_MOST, factor.atoms.num_atoms)
    for factor in space.factors
  ]
  while np.any(sizes < most):
    grown = sizes.copy()
    grown[np.argmin(np.where(sizes < most, sizes, _MOST))] += 1
    if np.prod(grown.astype(float)) > max_points:
      break
    sizes = grown
  return sizes


def _size(factor: factors.Factor, length: float) -> int:
  size = np.clip(_FEWEST + np.ceil(_PER_LENGTH / length), _FEWEST, _MOST)
  if factor.atoms is not None:
    size = min(size, factor.atoms.num_atoms)
  return int(size)


def _rows(
  key: jax.Array, space: factors.FactorSpace, num_base: int
) -> Rule:
  """Rows A, A with one column of B for each factor, and B, base by base."""
  sample = pick_freeze.sample(key, space, num_base)
  weights = np.zeros((num_base, space.dim + 2))
  weights[:, [0, -1]] = 0.5 / num_base
  return Rule(space, sample.nodes, weights.ravel(), None, num_base)


def _of_rows(rule: Rule, values: np.ndarray) -> Variances:
  """First order by Saltelli et al. 2010, totals by Jansen 1999."""
  dim = rule.space.dim
  mean = rule.weights @ values
  centred = values - mean
  variance = rule.weights @ centred**2
  rows = centred.reshape(rule.num_base, dim + 2, -1)
  a, mixed, b = rows[:, :1], rows[:, 1:-1], rows[:, -1:]
  first = np.mean(b * (mixed - a), axis=0)
  total = np.mean((mixed - a) ** 2, axis=0) / 2
  subsets, pairs = _pairs(rule, centred)
  partial = np.concatenate([first, pairs])
  singles = tuple((d,) for d in range(dim))
  return Variances(
    singles + subsets, partial, first, total, mean, variance
  )


def _pairs(rule, centred) -> tuple[tuple[Subset, ...], np.ndarray]:
  """Variances of pairs from a least-squares polynomial of low degree."""
  dim = rule.space.dim
  terms = multi_indices.total_degree(dim, _PAIR_DEGREE, max_interaction=2)
  rows = rule.weights > 0
  columns = np.ones((2 * rule.num_base, len(terms)))
  for d, factor in enumerate(rule.space.factors):
    degree = _PAIR_DEGREE
    if factor.atoms is not None:
      degree = min(degree, factor.atoms.num_atoms - 1)
    table = polynomials.recurrence(factor.germ, degree)
    psi = polynomials.evaluate(table, rule.points[rows, d], degree)
    keep = terms[:, d] <= degree
    terms, columns = terms[keep], columns[:, keep]
    columns = columns * psi[:, terms[:, d]]
  found = np.linalg.lstsq(columns, centred[rows], rcond=None)[0] ** 2
  subsets = tuple((i, j) for i in range(dim) for j in range(i + 1, dim))
  support = terms > 0
  partial = [
    found[support[:, i] & support[:, j]].sum(axis=0) for i, j in subsets
  ]
  return subsets, np.array(partial)
