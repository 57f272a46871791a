"""Least squares for polynomial chaos, with exact leave-one-out.

One factorisation of the Gram matrix serves all K outputs:

    gram = Σ_n w[n] psi[n] psi[n]^T,    gram coefficients = Σ_n w[n] psi[n] y[n]

Leaving one node out needs no refit. With the leverages h and residuals e,

    h[n] = w[n] psi[n]^T gram^-1 psi[n],    e_loo[n] = e[n] / (1 - h[n])

is the error at node n of the fit to all other nodes, exactly.

References:
  Allen, The relationship between variable selection and data augmentation
  and a method for prediction, 1974 (leave-one-out in closed form).
"""

import dataclasses

import jax
from jax.typing import ArrayLike
import numpy as np

from jaxsens.gpc import designs
from jaxsens.gpc import expansions

# The Gram matrix squares the condition of the design matrix; above this one QR
# of the design matrix itself is worth its time.
_MAX_CONDITION = 1e4
# Relative size of a diagonal entry of R that counts as zero.
_RANK_TOLERANCE = 1e-12
# A leverage this close to one leaves no other node that determines the fit.
_FULL_LEVERAGE = 1e-10


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Fit:
  """A least-squares expansion and what is known about its error.

  Attributes:
    expansion: the expansion.
    loo_q2: (K,) 1 - Σ w e_loo² / Σ w (y - mean)², at most 1; NaN when the
      output does not vary or a node has leverage one.
    r2: (K,) the same with the residuals of the fit itself.
    leverages: (N,) in [0, 1], sum P.
    loo_residuals: (N, K) outputs minus leave-one-out predictions.
    condition: 1-norm condition of the design matrix, from its Gram matrix.
  """

  expansion: expansions.Expansion
  loo_q2: np.ndarray
  r2: np.ndarray
  leverages: np.ndarray
  loo_residuals: np.ndarray
  condition: float


def least_squares(
  basis: expansions.Basis,
  design: designs.Design,
  outputs: ArrayLike,
  weights: ArrayLike | None = None,
) -> Fit:
  """Fits all outputs at once.

      coefficients = argmin Σ_n w[n] |outputs[n] - psi[n] coefficients|²

  Args:
    basis: the basis, P terms.
    design: design of N >= P nodes.
    outputs: (N, K) outputs of the model at the nodes.
    weights: (N,) positive weights w of the squares, for instance the
      quadrature weights of the design; None: equal weights.

  Returns:
    The fit.

  Raises:
    ValueError: N < P, outputs or weights of another shape, not finite or not
      positive, or nodes that do not determine all terms.
  """
  outputs = expansions.check_outputs(design, outputs)
  weights = _check_weights(weights, len(outputs))
  if len(outputs) < basis.num_terms:
    raise ValueError(
      f'{len(outputs)} nodes cannot determine {basis.num_terms} terms; '
      'lower the degree or add nodes'
    )
  psi = basis.evaluate(design.nodes)
  coefficients, leverages, condition = _solve(psi, outputs, weights)
  residuals = psi @ coefficients
  np.subtract(outputs, residuals, out=residuals)
  spread = _weighted_squares(
    outputs - np.average(outputs, axis=0, weights=weights), weights
  )
  r2 = _share(_weighted_squares(residuals, weights), spread)
  left = 1 - leverages
  residuals /= np.where(left > _FULL_LEVERAGE, left, np.nan)[:, None]
  loo_q2 = _share(_weighted_squares(residuals, weights), spread)
  expansion = expansions.Expansion(basis, coefficients)
  return Fit(expansion, loo_q2, r2, leverages, residuals, condition)


def _solve(
  psi: np.ndarray, outputs: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
  """Coefficients, leverages and condition: Cholesky, or QR when needed."""
  root = np.sqrt(weights * len(weights))[:, None]
  equal = np.ptp(weights) == 0
  scaled = psi if equal else psi * root
  inverse, condition = _inverse_root(scaled.T @ scaled)
  if not condition < _MAX_CONDITION:
    return _solve_by_qr(scaled, outputs if equal else outputs * root)
  moments = (scaled if equal else scaled * root).T @ outputs
  coefficients = inverse.T @ (inverse @ moments)
  whitened = inverse @ scaled.T
  leverages = np.einsum('pn,pn->n', whitened, whitened)
  return coefficients, leverages, condition


def _inverse_root(gram: np.ndarray) -> tuple[np.ndarray, float]:
  """Inverse Cholesky factor and sqrt of the 1-norm condition of a matrix.

  All in NumPy: SciPy brings a second BLAS, whose threads and those of NumPy
  hold the cores against each other, which costs more than the algebra.
  """
  try:
    inverse = np.linalg.inv(np.linalg.cholesky(gram))
  except np.linalg.LinAlgError:
    return gram, np.inf
  norm = np.linalg.norm(gram, 1) * np.linalg.norm(inverse.T @ inverse, 1)
  return inverse, float(np.sqrt(norm))


def _solve_by_qr(
  scaled: np.ndarray, targets: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
  """The same from a QR factorisation of the scaled design matrix."""
  q, r = np.linalg.qr(scaled)
  diagonal = np.abs(np.diag(r))
  if not diagonal.min() > _RANK_TOLERANCE * diagonal.max():
    raise ValueError(
      f'{len(scaled)} nodes do not determine {len(r)} terms: the design '
      'matrix is rank deficient; lower the degree or choose other nodes'
    )
  coefficients = np.linalg.solve(r, q.T @ targets)
  condition = float(np.linalg.cond(r, 1))
  return coefficients, np.einsum('np,np->n', q, q), condition


def _weighted_squares(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
  """Σ_n weights[n] values[n, k]², without a copy of the squares."""
  return np.einsum('n,nk,nk->k', weights, values, values)


def _share(error: np.ndarray, spread: np.ndarray) -> np.ndarray:
  """1 - error / spread; NaN where nothing varies."""
  with np.errstate(divide='ignore', invalid='ignore'):
    return np.where(spread > 0, 1 - error / spread, np.nan)


def _check_weights(weights: ArrayLike | None, num_nodes: int) -> np.ndarray:
  """Weights (N,) that sum to one."""
  if weights is None:
    return np.full(num_nodes, 1 / num_nodes)
  weights = np.asarray(weights, np.float64)
  if weights.shape != (num_nodes,):
    raise ValueError(
      f'weights: expected shape ({num_nodes},), got {weights.shape}'
    )
  if not (np.all(np.isfinite(weights)) and np.all(weights > 0)):
    raise ValueError('weights: expected finite positive numbers')
  return weights / np.sum(weights)
