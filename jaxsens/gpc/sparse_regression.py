"""Sparse regression: the few terms of a large basis that the outputs need.

Orthogonal matching pursuit takes one term after the other, each time the one
that lowers the weighted residual most. With the candidates a[p] orthogonal to
all terms taken, and the residuals e[k] of the normalised outputs,

    gain[p] = prior[p] Σ_k (a[p]ᵀ e[k])² / |a[p]|²

A new term q updates all candidates by one product with the matrix of them:

    |a[p]|² -= (a[p]ᵀ q)²,    a[p]ᵀ e[k] -= (a[p]ᵀ q) (qᵀ e[k])

The prior says how likely a term is before it is tried; without it, a basis
much larger than the number of nodes is mostly chance correlations. The first
pursuit takes Π_d (1 + degree_d)^-1/2. Later ones learn from the one before how
much variance each factor has at or above each degree, and so which directions
and interactions are worth a try.

Number of terms, candidates and prior are those of the smallest error in
cross-validation, whose folds run their own pursuits with their own learned
priors. All folds and the fit to all nodes advance together on one design
matrix, and all outputs share one set of terms.

References:
  Chen, Billings, Luo, Orthogonal least squares methods and their application
  to non-linear system identification, 1989 (the gain of a term).
  Tropp, Gilbert, Strauss, Algorithms for simultaneous sparse approximation,
  2006 (several outputs).
"""

from collections.abc import Sequence
import dataclasses

import jax
from jax.typing import ArrayLike
import numpy as np

from jaxsens import factors
from jaxsens.gpc import designs
from jaxsens.gpc import expansions
from jaxsens.gpc import multi_indices
from jaxsens.gpc import regression
from jaxsens.gpc import sobol_indices

# Share of its expected square that a candidate must have at the nodes, outside
# of the terms taken. Below it the nodes do not determine the term.
_UNDETERMINED = 0.03
# Relative squared error at which a fit is exact but for rounding.
_EXACT = 1e-26
# Range of an output, relative to its size, that counts as constant.
_ROUNDING = 1e-12
# Largest number of terms relative to the nodes of the smallest fold.
_LARGEST_SHARE = 0.85
# A pursuit ends when its cross-validation error has not fallen for so many
# steps, and this share of the steps taken.
_PATIENCE = 10, 0.25
# Pursuits on one set of candidates: the universal prior, then learned ones.
_NUM_PURSUITS = 3
# Share of variance that a learned prior leaves to degree k of any factor.
_UNSEEN = 1e-4, 0.5
# Principal outputs that the choice of terms looks at.
_MAX_PRINCIPAL = 32
# Candidates of one hyperbolic set, per node and at most.
_CANDIDATES = 10, 2000


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class SparseFit(regression.Fit):
  """A least-squares fit to selected terms, and how well selection predicts.

  `loo_q2` and `r2` take the selected terms as given and are too optimistic
  about new nodes. The folds of `cv_q2` selected their terms themselves; only
  the number of terms and the set of candidates are common to all folds.

  Attributes:
    cv_q2: (K,) 1 - Σ cv_residuals² / Σ (y - mean)²; NaN for a constant output.
    cv_residuals: (N, K) outputs minus predictions of the fold without them.
    cv_components: (N, S, K) ANOVA components of these predictions, in the sets
      of `sobol_indices.term_subsets` of the basis.
  """

  cv_q2: np.ndarray
  cv_residuals: np.ndarray
  cv_components: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class _Selection:
  """Terms (F, M) of all folds, the last of which fits all nodes."""

  basis: expansions.Basis
  terms: np.ndarray
  error: float


def fit(
  key: jax.Array,
  space: factors.FactorSpace,
  design: designs.Design,
  outputs: ArrayLike,
  *,
  exponents: Sequence[float] = (1.0, 0.75, 0.5, 0.4),
  max_interaction: int | None = None,
  num_folds: int = 10,
) -> SparseFit:
  """Fits an expansion whose basis it finds itself.

  Candidates are, for each exponent q, the largest hyperbolic set that is not
  too large for the number of nodes; cross-validation chooses among them.

  Args:
    key: typed JAX key; it drives the folds.
    space: the D factors.
    design: N nodes that follow the distribution of the factors; all of the
      same weight here.
    outputs: (N, K) outputs of the model at the nodes.
    exponents: exponents q in (0, 1] of the hyperbolic sets.
    max_interaction: largest number of factors in one term; None: no limit.
    num_folds: number of folds of the cross-validation.

  Returns:
    The fit; nodes that determine nothing else leave the mean alone.

  Raises:
    ValueError: outputs of another shape or not finite, no exponent or one
      outside of (0, 1], or not 2 <= num_folds <= N / 2.
  """
  candidates = dict.fromkeys(
    _largest_basis(space, design.num_nodes, q, max_interaction)
    for q in exponents
  )
  return orthogonal_matching_pursuit(
    key, list(candidates), design, outputs, num_folds=num_folds
  )


def orthogonal_matching_pursuit(
  key: jax.Array,
  candidates: Sequence[expansions.Basis],
  design: designs.Design,
  outputs: ArrayLike,
  *,
  num_folds: int = 10,
) -> SparseFit:
  """Fits the terms that the outputs need, out of given bases; see `fit`.

  Args:
    key: typed JAX key; it drives the folds.
    candidates: bases of any number of terms; one of them is chosen.
    design: design of N nodes.
    outputs: (N, K) outputs of the model at the nodes.
    num_folds: number of folds of the cross-validation.

  Returns:
    The fit; its terms are in the order in which they were taken.

  Raises:
    ValueError: no candidates, or as for `fit`.
  """
  if not candidates:
    raise ValueError('candidates: expected at least one basis, got none')
  outputs = expansions.check_outputs(design, outputs)
  train = _folds(key, len(outputs), num_folds)
  targets = _principal_outputs(outputs)
  selections = [_select(basis, design, targets, train) for basis in candidates]
  best = min(selections, key=lambda selection: selection.error)
  psi = best.basis.evaluate(design.nodes)
  rows = best.basis.multi_indices[best.terms[-1]]
  basis = expansions.Basis(best.basis.space, rows)
  residuals, components = _cross_validate(
    psi, outputs, best.terms, train, _members(best.basis, basis)
  )
  dense = regression.least_squares(basis, design, outputs)
  # Constant outputs have a mean and no scores.
  varies = _varies(outputs)
  coefficients = dense.expansion.coefficients * varies
  coefficients[0] = np.where(varies, coefficients[0], outputs.mean(axis=0))
  score = np.where(varies, 1, np.nan)
  spread = np.sum((outputs - outputs.mean(axis=0)) ** 2, axis=0) * score
  known = dict(vars(dense), loo_q2=dense.loo_q2 * score, r2=dense.r2 * score)
  known['expansion'] = expansions.Expansion(basis, coefficients)
  q2 = 1 - np.sum(residuals**2, axis=0) / spread
  return SparseFit(
    **known, cv_q2=q2, cv_residuals=residuals, cv_components=components
  )


def _select(
  basis: expansions.Basis,
  design: designs.Design,
  targets: np.ndarray,
  train: np.ndarray,
) -> _Selection:
  """Repeats the pursuit with learned priors while that lowers the error."""
  psi = basis.evaluate(design.nodes)
  prior = np.prod((1.0 + basis.multi_indices) ** -0.5, axis=1)
  best = None
  for _ in range(_NUM_PURSUITS):
    terms, errors = _pursue(psi, targets, train, prior)
    size = 1 + int(np.argmax(errors <= max(errors.min(), _EXACT)))
    found = _Selection(basis, terms[:, :size], float(errors[size - 1]))
    if best is not None and found.error >= best.error:
      break
    best = found
    prior = np.stack([
      _learned_prior(basis, p, _coefficients(psi[n][:, p], targets[n]))
      for n, p in zip(train, best.terms, strict=True)
    ])
  return best


def _pursue(
  psi: np.ndarray, targets: np.ndarray, train: np.ndarray, prior: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Pursuits on F sets of nodes at once.

  Vectors q and residuals are kept at all N nodes; those of a fold are
  orthonormal on its training nodes and predictions at the others.

  Args:
    psi: (N, P) candidates, the constant first.
    targets: (N, R) outputs.
    train: (F, N) which nodes each pursuit may see.
    prior: (F, P) or (P,) factors of the gains.

  Returns:
    terms (F, M) in the order taken, and errors (M,): mean square, over all
    nodes held out, of their residuals with 1 ... M terms.
  """
  num_folds, num_nodes = train.shape
  fold, seen = np.arange(num_folds), train.astype(np.float64)
  limit = min(psi.shape[1], int(_LARGEST_SHARE * seen.sum(axis=1).min()))
  squares = seen @ psi**2
  smallest = _UNDETERMINED * seen.sum(axis=1, keepdims=True)
  moments = np.matmul(psi.T, seen[:, :, None] * targets)
  residuals = np.repeat(targets[None], num_folds, axis=0)
  taken = np.empty((num_folds, limit, num_nodes))
  products = np.empty((num_folds, limit, psi.shape[1]))
  terms = np.zeros((num_folds, limit), np.int64)
  open_to = np.ones((num_folds, psi.shape[1]), bool)
  errors = []
  for size in range(limit):
    if size > 0:
      open_to &= squares > smallest
      gains = np.einsum('fpr,fpr->fp', moments, moments) * prior
      gains = np.where(open_to, gains / np.maximum(squares, smallest), -1)
      terms[:, size] = np.argmax(gains, axis=1)
      if not np.all(np.any(open_to, axis=1)):
        break
    new = terms[:, size]
    open_to[fold, new] = False
    q = psi[:, new].T - _combine(products[fold, :size, new], taken[:, :size])
    q /= np.sqrt(np.sum(seen * q**2, axis=1))[:, None]
    taken[:, size] = q
    products[:, size] = inner = (seen * q) @ psi
    shares = _combine(seen * q, residuals)
    squares -= inner**2
    moments -= inner[:, :, None] * shares[:, None, :]
    residuals -= q[:, :, None] * shares[:, None, :]
    errors.append(np.sum(residuals[~train] ** 2) / np.sum(~train))
    best = int(np.argmin(errors))
    patience = _PATIENCE[0] + _PATIENCE[1] * size
    if size - best > patience or errors[best] <= _EXACT:
      break
  return terms[:, : len(errors)], np.array(errors)


def _combine(shares: np.ndarray, vectors: np.ndarray) -> np.ndarray:
  """Σ_m shares[f, m] vectors[f, m, :] of each fold f."""
  return np.matmul(shares[:, None, :], vectors)[:, 0]


def _learned_prior(
  basis: expansions.Basis, terms: np.ndarray, coefficients: np.ndarray
) -> np.ndarray:
  """Prior (P,) from how the variance of a fit is spread over the degrees.

      prior[p] = Π_d sqrt(share_d[degree of p in d]),
      share_d[k] = variance of the terms with degree >= k in d / variance

  share_d[0] = 1; the others never fall below what unseen degrees are left.
  """
  energy = np.sum(coefficients**2, axis=1)
  energy[0] = 0
  energy /= max(np.sum(energy), np.finfo(np.float64).tiny)
  prior = np.ones(basis.num_terms)
  for d, degree in enumerate(basis.degrees):
    degrees = basis.multi_indices[:, d]
    share = np.bincount(degrees[terms], energy, minlength=degree + 1)
    share = np.cumsum(share[::-1])[::-1]
    share = np.maximum(share, _UNSEEN[0] * _UNSEEN[1] ** np.arange(degree + 1))
    share[0] = 1
    prior *= np.sqrt(share[degrees])
  return prior


def _cross_validate(
  psi: np.ndarray,
  outputs: np.ndarray,
  terms: np.ndarray,
  train: np.ndarray,
  members: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
  """Residuals (N, K) and components (N, S, K) of the fold without the node."""
  residuals = np.empty_like(outputs)
  components = np.empty((len(outputs), len(members), outputs.shape[1]))
  for n, p in zip(train[:-1], terms[:-1], strict=True):
    coefficients = _coefficients(psi[n][:, p], outputs[n])
    unseen = psi[~n][:, p]
    residuals[~n] = outputs[~n] - unseen @ coefficients
    for s, inside in enumerate(members[:, p]):
      components[~n, s] = unseen[:, inside] @ coefficients[inside]
  return residuals, components


def _members(
  candidates: expansions.Basis, selected: expansions.Basis
) -> np.ndarray:
  """Which candidate belongs to which set of factors of a basis, (S, P)."""
  subsets, _ = sobol_indices.term_subsets(selected)
  support = candidates.multi_indices > 0
  rows = np.zeros((len(subsets), support.shape[1]), bool)
  for s, subset in enumerate(subsets):
    rows[s, list(subset)] = True
  return np.all(support == rows[:, None], axis=2)


def _coefficients(psi: np.ndarray, targets: np.ndarray) -> np.ndarray:
  """Least-squares coefficients (P, K) of terms that the nodes determine."""
  return np.linalg.solve(psi.T @ psi, psi.T @ targets)


def _principal_outputs(outputs: np.ndarray) -> np.ndarray:
  """Principal components (N, R) of the outputs, scaled to unit variance.

  Their sums of squares are means over the outputs that vary: choosing terms
  for thousands of outputs costs as much as for a few.
  """
  centred = (outputs - outputs.mean(axis=0))[:, _varies(outputs)]
  centred /= np.sqrt(np.mean(centred**2, axis=0) * centred.shape[1])
  left, scale, _ = np.linalg.svd(centred, full_matrices=False)
  return (left * scale)[:, :_MAX_PRINCIPAL]


def _varies(outputs: np.ndarray) -> np.ndarray:
  """Which outputs (K,) vary by more than rounding."""
  return np.ptp(outputs, axis=0) > _ROUNDING * np.max(np.abs(outputs), axis=0)


def _folds(key: jax.Array, num_nodes: int, num_folds: int) -> np.ndarray:
  """Nodes (num_folds + 1, N) that each fold fits; the last fits all."""
  if not 2 <= num_folds <= num_nodes / 2:
    raise ValueError(
      f'num_folds: expected 2 ... {num_nodes // 2} for {num_nodes} nodes, '
      f'got {num_folds}'
    )
  order = designs.random_generator(key).permutation(num_nodes)
  held_out = np.empty(num_nodes, np.int64)
  held_out[order] = np.arange(num_nodes) % num_folds
  return held_out != np.arange(num_folds + 1)[:, None]


def _largest_basis(
  space: factors.FactorSpace, num_nodes: int, q: float, limit: int | None
) -> expansions.Basis:
  """Largest hyperbolic set of not too many terms; at least degree one."""
  most = min(_CANDIDATES[0] * num_nodes, _CANDIDATES[1])
  rows = np.zeros((1, space.dim))
  for degree in range(1, num_nodes):
    larger = multi_indices.hyperbolic(
      space.dim, degree, q, max_interaction=limit
    )
    if degree > 1 and len(larger) > most:
      break
    rows = larger
  # A factor of M atoms has polynomials up to degree M - 1.
  limits = np.array([
    np.inf if factor.atoms is None else factor.atoms.num_atoms - 1
    for factor in space.factors
  ])
  return expansions.Basis(space, rows[np.all(rows <= limits, axis=1)])
