"""Nested interpolatory rules of one factor: weighted Leja sequences.

The nodes x[0], x[1], ... of a sequence are ordered, and every rule is a
prefix: the rule of n nodes is exact for polynomials below degree n, and
growing it by one node keeps all runs already paid for. Starting at the mean,
each node is the candidate where the product of the distances to the nodes so
far, weighted by the measure, is largest,

    x[n] = argmax_x sqrt(λ(x)) Π_{m<n} |x - x[m]|,

with λ the Christoffel function of a Gauss rule of many more nodes: the
candidates are its nodes, and λ its weights. For a symmetric measure each node
is followed by its mirror image. No density is needed, so that every marginal
with a recurrence has a sequence, also on an unbounded support.

The Newton polynomials of a sequence, N[k](x[n]) = 0 for n < k and
N[k](x[k]) = 1, factor the matrix psi[n, p] = psi_p(x[n]) of the orthonormal
polynomials into a lower and an upper triangle. Their inverses turn outputs at
the nodes into hierarchical surpluses, and surpluses into coefficients:

    surpluses = to_surpluses @ outputs
    coefficients = to_coefficients @ surpluses

Leading blocks of both serve the shorter rules.

References:
  Narayan and Jakeman, Adaptive Leja sparse grid constructions for stochastic
  collocation and high-dimensional approximation, 2014, sections 2 and 3.
  Bos, De Marchi, Sommariva, Vianello, Computing multivariate Fekete and Leja
  points by numerical linear algebra, 2010, section 3.
"""

import dataclasses
import functools

import chaospy
import numpy as np
from scipy import linalg

from jaxsens import factors
from jaxsens.gpc import polynomials

# Gauss nodes that a sequence is chosen from, tried in this order: the weights
# of heavy tails underflow early. A sequence is at most half as long.
_NUM_CANDIDATES = (201, 101, 51, 25)
# Largest error of their Gram matrix; good recurrences give 1e-12 or less.
_ORTHONORMALITY = 1e-9


@dataclasses.dataclass(frozen=True, eq=False)
class NestedRule:
  """First n nodes of the sequence of a measure, and what they determine.

  Constants on the host, float64, read-only.

  Attributes:
    nodes: (n,) germ coordinates in the order of growth.
    to_surpluses: (n, n) unit lower triangle.
    to_coefficients: (n, n) upper triangle; column k holds the coefficients of
      the Newton polynomial N[k] in the orthonormal basis.
  """

  nodes: np.ndarray
  to_surpluses: np.ndarray
  to_coefficients: np.ndarray

  @property
  def num_nodes(self) -> int:
    """Number of nodes n."""
    return len(self.nodes)

  @functools.cached_property
  def norms(self) -> np.ndarray:
    """(n,) norms E[N[k]²]^(1/2) of the Newton polynomials."""
    return np.linalg.norm(self.to_coefficients, axis=0)

  @property
  def weights(self) -> np.ndarray:
    """(n,) quadrature weights, sum 1, not all of them positive.

    They are the row of the constant in the interpolatory projection.
    """
    return self.to_coefficients[0] @ self.to_surpluses


def max_num_nodes(factor: factors.Factor) -> int:
  """Length of the longest sequence of a factor."""
  return len(_sequence(factor)[1])


@functools.lru_cache(maxsize=256)
def leja_rule(factor: factors.Factor, num_nodes: int) -> NestedRule:
  """Nested rule of the germ of a factor.

  Args:
    factor: the factor.
    num_nodes: number of nodes n, from 1 to `max_num_nodes`.

  Returns:
    The rule; rules of fewer nodes are its leading parts.

  Raises:
    ValueError: a number of nodes outside of that range, or a germ that has
      no sequence.
  """
  coefficients, sequence = _sequence(factor)
  if not 1 <= num_nodes <= len(sequence):
    raise ValueError(
      f'num_nodes: expected 1 to {len(sequence)} for factor '
      f'{factor.name!r}, got {num_nodes}'
    )
  nodes = sequence[:num_nodes].copy()
  psi = polynomials.evaluate(coefficients, nodes, num_nodes - 1)
  # Rows of unit length: on an unbounded support they differ by many orders.
  scale = 1 / np.linalg.norm(psi, axis=1)
  lower, upper = _triangles(psi * scale[:, None])
  identity = np.eye(num_nodes)
  inverse = linalg.solve_triangular(lower, identity, lower=True)
  arrays = (
    nodes,
    inverse / scale[:, None] * scale,
    linalg.solve_triangular(upper, identity) * scale,
  )
  for array in arrays:
    array.setflags(write=False)
  return NestedRule(*arrays)


@functools.lru_cache(maxsize=256)
def _sequence(
  factor: factors.Factor,
) -> tuple[polynomials.Recurrence, np.ndarray]:
  """Recurrence and longest Leja sequence of the germ of a factor."""
  coefficients, candidates, weights = _candidates(factor.germ)
  num_nodes = len(candidates) // 2
  mean = coefficients.alpha[0]
  mirrored = np.allclose(candidates - mean, mean - candidates[::-1], atol=1e-9)
  nodes = [mean]
  objective = np.log(weights) / 2
  with np.errstate(divide='ignore'):
    objective += np.log(np.abs(candidates - mean))
    while len(nodes) < num_nodes:
      best = int(np.argmax(objective))
      # Of a mirrored pair, equal up to rounding, the upper one comes first.
      pair = [max(best, len(candidates) - 1 - best)] if mirrored else [best]
      if mirrored:
        pair.append(len(candidates) - 1 - pair[0])
      for i in pair:
        nodes.append(candidates[i])
        objective += np.log(np.abs(candidates - candidates[i]))
  sequence = np.array(nodes[:num_nodes])
  if mirrored:
    sequence[2::2] = 2 * mean - sequence[1:-1:2][: len(sequence[2::2])]
  return coefficients, sequence


def _candidates(
  germ: chaospy.Distribution,
) -> tuple[polynomials.Recurrence, np.ndarray, np.ndarray]:
  """Recurrence and largest Gauss rule of a measure that float64 can hold.

  A discretised measure has a limit to its degree as well; beyond it the
  polynomials are not orthonormal under their own rule.
  """
  reason = 'its polynomials are not orthonormal'
  for num_nodes in _NUM_CANDIDATES:
    try:
      coefficients = polynomials.recurrence(germ, num_nodes - 1)
      nodes, weights = polynomials.gauss_rule(coefficients, num_nodes)
    except ValueError as error:
      reason = error
      continue
    psi = polynomials.evaluate(coefficients, nodes, num_nodes - 1)
    gram = (psi * weights[:, None]).T @ psi
    if np.max(np.abs(gram - np.eye(num_nodes))) < _ORTHONORMALITY:
      return coefficients, nodes, weights
  raise ValueError(f'{germ} has no nested rule: {reason}')


def _triangles(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """LU factors without pivoting; the order of the nodes is the pivoting."""
  upper, lower = matrix.copy(), np.eye(len(matrix))
  for k in range(len(matrix) - 1):
    lower[k + 1 :, k] = upper[k + 1 :, k] / upper[k, k]
    upper[k + 1 :] -= lower[k + 1 :, k, None] * upper[k]
    upper[k + 1 :, k] = 0.0
  return lower, upper
