"""What an expansion misses, at nodes that it has not seen, set by set.

With r = f - g what an expansion g misses of the model f, the variances of the
ANOVA components are V_u(f) = V_u(g) + 2 E[g_u r] + V_u(r). A part is a set of
nodes that knows something about the last two terms: `Fitted`, the nodes of a
least-squares fit, or `Unseen`, residuals at nodes that were not fitted.
`corrections` gives the terms that are means over the nodes, `Shares` what
they say about V_u(r). `intervals` has the formulas and what they are for.
"""

from collections.abc import Sequence
import dataclasses
import functools

from jax.typing import ArrayLike
import numpy as np

from jaxsens import factors
from jaxsens.gpc import designs
from jaxsens.gpc import expansions
from jaxsens.gpc import polynomials
from jaxsens.gpc import regression
from jaxsens.gpc import sobol_indices

# Power of 1 - h under e in the influence of a node. With 1/2 (HC2) intervals
# cover 90-96 % where 95 % are asked, with 3/4 96-99 %, with 1 (HC3) they are
# half as wide again.
_LEVERAGE_POWER = 0.65
# Most polynomials outside of the basis that measure the shares of Var(r).
_MAX_EXTRA_TERMS = 500


@dataclasses.dataclass(frozen=True, eq=False)
class Fitted:
  """What a least-squares fit knows at its own N nodes.

  Attributes:
    nodes: (N, D) germ.
    influence: (N, P) N gram^-1 psi[n].
    leverages: (N,) h.
    residuals: (N, K) e / sqrt(1 - h).
  """

  nodes: np.ndarray
  influence: np.ndarray
  leverages: np.ndarray
  residuals: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Unseen:
  """Residuals (N, K) at nodes (N, D) that were not fitted.

  Attributes:
    nodes: (N, D) germ.
    residuals: (N, K).
    components: (N, S, K) of the expansions that left the residuals.
  """

  nodes: np.ndarray
  residuals: np.ndarray
  components: np.ndarray


def anova_components(
  expansion: expansions.Expansion, germ: ArrayLike
) -> np.ndarray:
  """ANOVA components of an expansion at nodes.

      components[n, u, k] = Σ_{p in u} psi[n, p] coefficients[p, k]

  Args:
    expansion: the expansion.
    germ: (N, D) germ coordinates.

  Returns:
    (N, S, K) float64, sets in the order of `sobol_indices.term_subsets`.
  """
  _, members = sobol_indices.term_subsets(expansion.basis)
  psi = expansion.basis.evaluate(np.asarray(germ, np.float64))
  return _by_subset(psi, np.asarray(expansion.coefficients), members)


def of_fit(
  fit: regression.Fit | expansions.Expansion, design: designs.Design
) -> Fitted:
  """What a fit says at its own nodes."""
  if not isinstance(fit, regression.Fit):
    raise ValueError(
      'design: leave-one-out residuals need a regression fit, got an '
      'expansion; pass held-out nodes'
    )
  if np.ptp(design.weights) > 1e-12 / len(design.weights):
    raise ValueError(
      f'design: nodes of a {design.kind} design are no random sample; pass '
      'held-out nodes'
    )
  if len(design.nodes) != len(fit.loo_residuals):
    raise ValueError(
      f'design: the fit has {len(fit.loo_residuals)} nodes, the design '
      f'{len(design.nodes)}'
    )
  if not np.all(np.isfinite(fit.loo_residuals)):
    raise ValueError(
      'design: a node has leverage one and no leave-one-out residual; add '
      'nodes or pass held-out nodes'
    )
  psi = fit.expansion.basis.evaluate(design.nodes)
  influence = psi @ np.linalg.inv(psi.T @ psi)
  leverages = np.einsum('np,np->n', psi, influence)
  if not np.allclose(leverages, fit.leverages, rtol=1e-6, atol=1e-9):
    raise ValueError(
      'design: its nodes do not give the leverages of the fit: it is another '
      'design, or the fit was weighted; pass held-out nodes'
    )
  influence *= len(psi)
  residuals = fit.loo_residuals * np.sqrt(1 - fit.leverages)[:, None]
  return Fitted(design.nodes, influence, fit.leverages, residuals)


def of_held_out(
  expansion: expansions.Expansion,
  held_out: designs.Design,
  outputs: ArrayLike | None,
) -> Unseen:
  """Residuals at held-out nodes."""
  if outputs is None:
    raise ValueError('held_out_outputs: missing for the held-out design')
  if np.ptp(held_out.weights) > 1e-12 / len(held_out.weights):
    raise ValueError(
      f'held_out: nodes of a {held_out.kind} design are no random sample'
    )
  outputs = expansions.check_outputs(held_out, outputs)
  num_outputs = expansion.coefficients.shape[1]
  if outputs.shape[1] != num_outputs:
    raise ValueError(
      f'held_out_outputs: expected {num_outputs} columns, '
      f'got {outputs.shape[1]}'
    )
  components = anova_components(expansion, held_out.nodes)
  predictions = components.sum(axis=1) + np.asarray(expansion.mean)
  return Unseen(held_out.nodes, outputs - predictions, components)


def corrections(
  parts: Sequence[Fitted | Unseen],
  coefficients: np.ndarray,
  members: np.ndarray,
  outputs: slice,
) -> tuple[np.ndarray, np.ndarray]:
  """What each node says about the variances, apart from the shares.

  Their means over the nodes of all parts are V_u(f) - V_u(g) without the share
  of u in the missed variance, and that variance. With a fit among the parts,
  which comes first, only what its basis cannot hold is missed: held-out nodes
  put down the errors of its coefficients to their sets.

  Args:
    parts: the parts, N nodes in all.
    coefficients: (P, K') of the expansion.
    members: (S, P) from `term_subsets`.
    outputs: which of the K outputs.

  Returns:
    (N, S, K') and (N, K').
  """
  products, squares, noise = [], [], 0.0
  for part in parts:
    residuals = part.residuals[:, outputs]
    if isinstance(part, Fitted):
      square = residuals**2
      spread = part.influence**2 @ members.T / len(residuals)
      noise = spread.T @ square / len(residuals)
      power = (1 - part.leverages)[:, None] ** (0.5 - _LEVERAGE_POWER)
      product = _by_subset(part.influence, coefficients, members)
      product *= 2 * (residuals * power)[:, None]
      # The residuals of a fit are orthogonal to its basis.
      product -= product.mean(axis=0)
      product -= spread[:, :, None] * square[:, None]
    else:
      # E[g_u] = 0: a constant taken off the residual changes no expectation.
      residuals = residuals - residuals.mean(axis=0)
      product = 2 * part.components[:, :, outputs] * residuals[:, None]
      product += noise
      square = residuals**2 - np.sum(noise, axis=0)
    products.append(product)
    squares.append(square)
  return np.concatenate(products), np.concatenate(squares)


def _by_subset(
  rows: np.ndarray, coefficients: np.ndarray, members: np.ndarray
) -> np.ndarray:
  """(N, S, K) Σ_{p in u} rows[n, p] coefficients[p, k]."""
  sums = np.empty((len(rows), len(members), coefficients.shape[1]))
  for s, member in enumerate(members):
    terms = np.flatnonzero(member)
    sums[:, s] = rows[:, terms] @ coefficients[terms]
  return sums


@dataclasses.dataclass(frozen=True, eq=False)
class Shares:
  """Measures how the missed variance is shared out.

  Attributes:
    psi: (N, Q) polynomials at all nodes, over N.
    targets: (U + 1, Q) zeros and ones: which polynomial belongs to which
      subset or total index; last row all.
  """

  psi: np.ndarray
  targets: np.ndarray

  @classmethod
  def make(
    cls,
    basis: expansions.Basis,
    subsets: Sequence[sobol_indices.Subset],
    parts: Sequence[Fitted | Unseen],
  ) -> 'Shares':
    """Polynomials outside of the basis; without a fit, of it as well."""
    terms = extra_terms(basis)
    if not any(isinstance(part, Fitted) for part in parts):
      terms = np.concatenate([basis.multi_indices[1:], terms])
    nodes = np.concatenate([part.nodes for part in parts])
    constant = np.zeros((1, basis.space.dim), np.int64)
    wider = expansions.Basis(basis.space, np.concatenate([constant, terms]))
    psi = wider.evaluate(nodes)[:, 1:] / len(nodes)
    holds = terms > 0
    sets = np.zeros((len(subsets), basis.space.dim), bool)
    for row, subset in zip(sets, subsets, strict=True):
      row[list(subset)] = True
    same = np.all(sets[:, None] == holds, axis=2)
    everything = np.ones((1, len(terms)), bool)
    targets = np.concatenate([same, holds.T, everything])
    return cls(psi, targets.astype(np.float64))

  def of(
    self,
    residuals: list[np.ndarray],
    missed: np.ndarray,
    normal: np.ndarray,
    fractions: np.ndarray,
  ) -> np.ndarray:
    """Draws of the variance that each target has of the missed one.

    Args:
      residuals: (N, K') of all parts.
      missed: (K', R) variance to share out.
      normal: (U + 1, 1, R) standard normal numbers.
      fractions: (U, 1, R) random numbers of mean one, for what no polynomial
        here measures.

    Returns:
      (U, K', R), at most `missed`.
    """
    residuals = np.concatenate([r - r.mean(axis=0) for r in residuals])
    noise = (self.psi**2).T @ residuals**2
    squares = (self.psi.T @ residuals) ** 2 - noise
    spread = 2 * noise**2 + 4 * np.maximum(squares, 0) * noise
    share = (self.targets @ squares)[:, :, None]
    deviation = np.sqrt(self.targets @ spread)[:, :, None]
    every = np.maximum(share[-1] + deviation[-1] * normal[-1], 0)
    each = np.maximum(share[:-1] + deviation[:-1] * normal[:-1], 0)
    # The floor keeps the ratios finite; a share of zero stays zero.
    floor = 1e-12 * missed + np.finfo(np.float64).tiny
    whole = np.maximum(np.maximum(each, every), floor)
    measured = each * np.minimum(missed / whole, 1)
    open_share = np.maximum(missed - every, 0)
    return measured + open_share * np.minimum(fractions * each / whole, 1)


@functools.lru_cache(maxsize=64)
def extra_terms(basis: expansions.Basis) -> np.ndarray:
  """Multi-indices just outside of a basis.

  Two steps forward from the terms of the basis, because an even or odd
  function has nothing one step away. High interactions are dropped where there
  are too many.

  Args:
    basis: the basis.

  Returns:
    (Q, D) int64, none of them in the basis.
  """
  limits = [
    _highest_degree(factor, degree)
    for factor, degree in zip(basis.space.factors, basis.degrees, strict=True)
  ]
  dim = basis.space.dim
  found = basis.multi_indices
  for _ in range(2):
    ahead = (found[:, None] + np.eye(dim, dtype=np.int64)).reshape(-1, dim)
    found = np.unique(np.concatenate([found, ahead]), axis=0)
    found = found[np.all(found <= limits, axis=1)]
  inside = set(map(tuple, basis.multi_indices.tolist()))
  extra = np.array(
    [row for row in found.tolist() if tuple(row) not in inside], np.int64
  ).reshape(-1, dim)
  orders = np.count_nonzero(extra, axis=1)
  largest = orders.max(initial=0)
  while np.count_nonzero(orders <= largest) > _MAX_EXTRA_TERMS and largest > 1:
    largest -= 1
  return extra[orders <= largest]


def _highest_degree(factor: factors.Factor, degree: int) -> int:
  """The degree plus two, or less where the measure has no such polynomial."""
  for more in (2, 1):
    try:
      polynomials.recurrence(factor.germ, degree + more)
    except ValueError:
      continue
    return degree + more
  return degree
