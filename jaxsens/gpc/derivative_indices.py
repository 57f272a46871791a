"""Derivative-based sensitivity measures and the bounds they put on Sobol.

    nu[d] = E[(∂f / ∂x_d)²],    total[d] <= C_d nu[d] / V(f)

where C_d is the Poincaré constant of the law of x_d: the smallest C with
Var(u(x)) <= C E[u'(x)²] for all smooth u. The measure is taken by the
physical value x_d and by the germ. The bound holds in either coordinate;
the germ is used, because a log-normal value has no Poincaré constant while
its germ has the constant one.

With gradients of the true model the bound checks an expansion from a side
that its fit has not seen: a total index above it is wrong.

References:
  Sobol' and Kucherenko, Derivative based global sensitivity measures and their
  link with global sensitivity indices, 2009.
  Lamboni, Iooss, Popelin, Gamboa, Derivative-based global sensitivity
  measures: general links with Sobol' indices and numerical tests, 2013.
  Roustant, Barthe, Iooss, Poincaré inequalities on intervals - application to
  sensitivity analysis, 2017.
  Sudret and Mai, Computing derivative-based global sensitivity measures using
  polynomial chaos expansions, 2015.
"""

import dataclasses
import functools

import chaospy
import jax
from jax.typing import ArrayLike
import numpy as np
from scipy import linalg

from jaxsens import factors
from jaxsens.gpc import designs
from jaxsens.gpc import expansions
from jaxsens.gpc import polynomials
from jaxsens.gpc import sobol_indices

# Degrees of the trial functions of the eigenproblem, and how far the last
# two may differ before the spectrum counts as not resolved.
_TRIAL_DEGREES = (10, 20, 40, 80)
_RESOLVED = 1e-4
# Tail probabilities of the Cheeger bound, and the growth of the ratio from
# the first to the last that betrays a tail heavier than exponential.
_TAILS = (1e-5, 1e-10)
_HEAVIER = 1.3
# Gauss nodes beyond the degree, for the slope of an exponential germ map.
_EXTRA_NODES = 40
# Numbers in one block (64 MiB); outputs are taken block by block.
_BLOCK = 2**23


def _static():
  return dataclasses.field(metadata={'static': True})


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class DerivativeMeasures:
  """Mean squared derivatives of K outputs by D factors.

  Attributes:
    names: names of the factors, static.
    values: (D, K) E[(∂f/∂value_d)²], in squared units of the output per unit
      of the factor.
    germ: (D, K) E[(∂f/∂germ_d)²].
    values_error: (D, K) standard error of `values`, zero from coefficients.
    germ_error: (D, K) standard error of `germ`, zero from coefficients.
  """

  names: tuple[str, ...] = _static()
  values: np.ndarray
  germ: np.ndarray
  values_error: np.ndarray
  germ_error: np.ndarray


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class BoundCheck:
  """Total indices beside their derivative-based upper bounds.

  NaN, and `holds` False, where an output has no indices.

  Attributes:
    names: names of the factors, static.
    total: (D, K) total indices as given.
    bound: (D, K) C_d nu_d / V, infinite where C_d is.
    factor: (D, K) bound / total, how far the bound is from sharp; infinite
      for a total of zero.
    holds: (D, K) bool, total <= bound + 3 of its standard errors, up to
      rounding.
  """

  names: tuple[str, ...] = _static()
  total: np.ndarray
  bound: np.ndarray
  factor: np.ndarray
  holds: np.ndarray


def from_expansion(expansion: expansions.Expansion) -> DerivativeMeasures:
  """Mean squared derivatives of an expansion, from its coefficients.

      nu[d, k] = Σ_{p, q} coefficients[p, k] coefficients[q, k] G_d[a, b]
      G_d[a, b] = E[psi'_d[a](x) psi'_d[b](x) / slope_d(x)²]

  over the pairs of terms with equal degrees in all other factors, a and b
  their degrees in factor d. G_d is integrated by a Gauss rule, exactly where
  the value is an affine function of the germ (slope constant).

  Args:
    expansion: the expansion of K outputs.

  Returns:
    The measures, without standard errors.
  """
  basis = expansion.basis
  coefficients = np.asarray(expansion.coefficients, np.float64)
  shape = (2, basis.space.dim, coefficients.shape[1])
  measures = np.zeros(shape)
  for d, factor in enumerate(basis.space.factors):
    slopes = _derivative_factors(factor, basis.degrees[d])
    rest = np.delete(basis.multi_indices, d, axis=1)
    _, row = np.unique(rest, axis=0, return_inverse=True)
    for i, slopes_i in enumerate(slopes):
      measures[i, d] = _squared_norm(
        slopes_i[:, basis.multi_indices[:, d]], row.ravel(), coefficients
      )
  return DerivativeMeasures(basis.space.names, *measures, *np.zeros(shape))


def from_gradients(
  space: factors.FactorSpace,
  design: designs.Design,
  gradients: ArrayLike,
) -> DerivativeMeasures:
  """Mean squared derivatives from gradients of the model at a design.

      nu[d, k] = Σ_n weights[n] gradients[n, d, k]²

  Args:
    space: the D factors.
    design: design of N nodes; anything with `nodes` and `weights`.
    gradients: (N, D, K) derivatives of the outputs by the physical values.

  Returns:
    The measures. Standard errors take equally weighted nodes as independent,
    conservatively for a Sobol sequence; they are zero for other weights,
    which belong to a quadrature.

  Raises:
    ValueError: gradients of another shape or not finite.
  """
  gradients = np.asarray(gradients, np.float64)
  expected = (len(design.nodes), space.dim)
  if gradients.ndim != 3 or gradients.shape[:2] != expected:
    raise ValueError(
      f'gradients: expected shape ({expected[0]}, {expected[1]}, K) for the '
      f'factors {list(space.names)}, got {gradients.shape}'
    )
  bad = np.argwhere(~np.isfinite(gradients))
  if len(bad):
    n, d, k = bad[0]
    raise ValueError(
      f'gradients: {len(bad)} values are not finite, the first is '
      f'{gradients[n, d, k]} at node {n}, factor {space.names[d]!r}, output {k}'
    )
  slopes = space.value_slope(design.nodes)[:, :, None]
  squares = [gradients**2, (gradients * slopes) ** 2]
  weights = np.asarray(design.weights, np.float64)
  means = [np.tensordot(weights, square, axes=1) for square in squares]
  errors = [np.zeros_like(mean) for mean in means]
  num_nodes = len(weights)
  if num_nodes > 1 and np.ptp(weights) <= 1e-12 / num_nodes:
    errors = [s.std(axis=0, ddof=1) / np.sqrt(num_nodes) for s in squares]
  return DerivativeMeasures(space.names, *means, *errors)


def check(
  measures: DerivativeMeasures,
  space: factors.FactorSpace,
  indices: sobol_indices.SobolIndices,
) -> BoundCheck:
  """Compares total indices with C_d nu_d / V in germ coordinates.

  For an affine value this is the bound in physical units as well. The bound
  is sharp for an additive function of the first eigenfunctions: x itself for
  a normal x, sin(π x / (b - a)) about the centre for a uniform one.

  Args:
    measures: the derivative measures of K outputs.
    space: the D factors.
    indices: Sobol indices of the same outputs; V is their normaliser.

  Returns:
    Bounds, factors, and where they hold. Measures and indices of one
    expansion always agree; gradients of the model may contradict it.

  Raises:
    ValueError: other factors or another number of outputs.
  """
  if not measures.names == space.names == indices.names:
    raise ValueError(
      f'factors differ: measures {list(measures.names)}, space '
      f'{list(space.names)}, indices {list(indices.names)}'
    )
  if measures.germ.shape != indices.total.shape:
    raise ValueError(
      f'indices: expected total indices of shape {measures.germ.shape}, got '
      f'{indices.total.shape}'
    )
  constants = np.array([_germ_constant(f) for f in space.factors])[:, None]
  valid = np.array([reason is None for reason in indices.reasons])
  valid &= indices.normaliser > 0
  variance = np.where(valid, indices.normaliser, np.nan)
  with np.errstate(invalid='ignore', divide='ignore'):
    # An infinite constant bounds nothing, not even where nu is zero.
    bound = np.where(
      np.isinf(constants) & valid, np.inf, constants * measures.germ / variance
    )
    error = np.nan_to_num(constants * measures.germ_error / variance)
    silent = (indices.total == 0) & valid
    factor = np.where(silent, np.inf, bound / indices.total)
  holds = indices.total <= bound * (1 + 1e-9) + 3 * error + 1e-14
  return BoundCheck(space.names, indices.total, bound, factor, holds)


def poincare_constant(distribution: chaospy.Distribution) -> float:
  """Poincaré constant of a one-dimensional distribution, or a bound on it.

  The reciprocal of the smallest positive eigenvalue of the stiffness matrix
  in the orthonormal polynomials of the distribution,

      A[i, j] = E[psi'[i] psi'[j]],    i, j = 1 ... n,

  with n doubled until the constant stands still (then it is exact to 1e-4):
  (b - a)² / π² for a uniform, the variance for a normal distribution. Where it
  does not, the spectrum is continuous (exponential tails), and Cheeger's
  upper bound is taken,

      C <= 4 sup_x (min(F(x), 1 - F(x)) / density(x))²,

  infinite for heavier tails. A distribution that chaospy cuts far out in the
  tails for want of closed recurrence coefficients is taken as cut.

  Args:
    distribution: one-dimensional continuous chaospy distribution.

  Returns:
    The constant, in squared units of the variable.
  """
  before = None
  for degree in _TRIAL_DEGREES:
    constant = _galerkin_constant(distribution, degree)
    if constant is None:
      break
    if before is not None and constant - before <= _RESOLVED * constant:
      # It grows to the limit with the degree; the last step bounds the rest.
      return constant + (constant - before)
    before = constant
  return _cheeger_bound(distribution)


def _derivative_factors(
  factor: factors.Factor, degree: int
) -> tuple[np.ndarray, np.ndarray]:
  """Matrices (M, degree + 1) whose Gram matrices are G in values and germ."""
  num_nodes = max(1, degree) + (0 if factor.is_affine else _EXTRA_NODES)
  recurrence = polynomials.recurrence(factor.germ, max(degree, num_nodes - 1))
  nodes, weights = polynomials.gauss_rule(recurrence, num_nodes)
  slopes = polynomials.evaluate_derivative(recurrence, nodes, degree)
  slopes = np.sqrt(weights)[:, None] * slopes
  return slopes / factor.value_slope(nodes)[:, None], slopes


def _squared_norm(
  slopes: np.ndarray, row: np.ndarray, coefficients: np.ndarray
) -> np.ndarray:
  """Sums over m and r of (Σ_{p: row[p] = r} slopes[m, p] coefficients[p])².

  Args:
    slopes: (M, P) derivative factors of the terms.
    row: (P,) which combination of the other factors a term has.
    coefficients: (P, K).

  Returns:
    (K,).
  """
  num_rows = row.max() + 1
  order = np.argsort(row, kind='stable')
  starts = np.searchsorted(row[order], np.arange(num_rows))
  coefficients, slopes = coefficients[order], slopes[:, order]
  step = max(1, _BLOCK // slopes.size)
  sums = np.zeros(coefficients.shape[1])
  for start in range(0, len(sums), step):
    block = slice(start, start + step)
    terms = slopes[:, :, None] * coefficients[:, block]
    grouped = np.add.reduceat(terms, starts, axis=1)
    sums[block] = np.einsum('mrk,mrk->k', grouped, grouped)
  return sums


@functools.lru_cache(maxsize=256)
def _germ_constant(factor: factors.Factor) -> float:
  """Poincaré constant of the germ of a factor, computed once."""
  return poincare_constant(factor.germ)


def _galerkin_constant(
  distribution: chaospy.Distribution, degree: int
) -> float | None:
  """Rayleigh-Ritz value of the constant; None beyond float64."""
  try:
    with np.errstate(all='ignore'):
      recurrence = polynomials.recurrence(distribution, degree)
      nodes, weights = polynomials.gauss_rule(recurrence, degree)
      slopes = polynomials.evaluate_derivative(recurrence, nodes, degree)
  except ValueError:
    return None
  slopes = np.sqrt(weights)[:, None] * slopes[:, 1:]
  if not np.all(np.isfinite(slopes)):
    return None
  # Singular values keep the small eigenvalue apart from the large ones.
  return float(linalg.svdvals(slopes)[-1] ** -2)


def _cheeger_bound(distribution: chaospy.Distribution) -> float:
  """Cheeger's bound on a grid of quantiles; infinite for heavy tails."""
  tails = np.concatenate([
    _TAILS, np.geomspace(_TAILS[1], 0.5, 2001), np.linspace(1e-3, 0.5, 2001)
  ])  # fmt: skip
  sides = []
  for points in (distribution.inv(tails), distribution.inv(1 - tails)):
    with np.errstate(divide='ignore', invalid='ignore'):
      ratios = tails / distribution.pdf(np.ravel(points))
    if not ratios[1] <= _HEAVIER * max(ratios[0], np.max(ratios[-2001:])):
      return np.inf
    sides.append(np.max(ratios))
  return float(4 * max(sides) ** 2)
