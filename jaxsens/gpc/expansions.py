"""Polynomial chaos expansions: a basis, its coefficients, what they give.

    g(germ)[k] = Σ_p psi[p](germ) coefficients[p, k],
    psi[p](germ) = Π_d psi_d[multi_indices[p, d]](germ[d])

The basis is orthonormal under the measure of the germ and its first term is
the constant, so that coefficients[0] is the mean and the squares of the others
sum to the variance.

Coefficients are computed on the host in float64. `Basis.evaluate` and
`Expansion.__call__` follow their input: NumPy float64 for host arrays, JAX in
the dtype of the input for JAX arrays, under `jit`, `grad` and `vmap` alike.
"""

from collections.abc import Iterator
import dataclasses
import functools

import jax
from jax.typing import ArrayLike
import numpy as np

from jaxsens import factors
from jaxsens.gpc import designs
from jaxsens.gpc import polynomials

# Numbers in one block of the design matrix on the host (64 MiB).
_BLOCK = 2**23
# Gauss nodes beyond the degree, for the slope of an exponential germ map.
_EXTRA_NODES = 40


@dataclasses.dataclass(frozen=True, eq=False)
class Basis:
  """Static description of an orthonormal basis; hashable, equal by content.

  Attributes:
    space: the D factors.
    multi_indices: (P, D) int64, read-only, row 0 zeros, no row twice.

  Raises:
    ValueError: multi-indices that are not such an array.
  """

  space: factors.FactorSpace
  multi_indices: np.ndarray

  def __post_init__(self):
    given = np.asarray(self.multi_indices)
    dim = self.space.dim
    if given.ndim != 2 or given.shape[1] != dim or len(given) == 0:
      raise ValueError(
        f'multi_indices: expected shape (P, {dim}), got {given.shape}'
      )
    indices = given.astype(np.int64)
    if np.any(indices != given) or np.any(indices < 0):
      raise ValueError('multi_indices: expected integers >= 0')
    if np.any(indices[0]):
      raise ValueError(
        f'multi_indices: expected zeros in row 0, got {indices[0].tolist()}'
      )
    if len(np.unique(indices, axis=0)) != len(indices):
      raise ValueError('multi_indices: a row is given more than once')
    indices.setflags(write=False)
    object.__setattr__(self, 'multi_indices', indices)

  @functools.cached_property
  def _identity(self) -> tuple:
    return self.space, self.multi_indices.shape, self.multi_indices.tobytes()

  def __eq__(self, other: object) -> bool:
    if not isinstance(other, Basis):
      return NotImplemented
    return self._identity == other._identity

  def __hash__(self) -> int:
    return hash(self._identity)

  @property
  def num_terms(self) -> int:
    """Number of terms P."""
    return len(self.multi_indices)

  @functools.cached_property
  def degrees(self) -> tuple[int, ...]:
    """Highest degree of each factor."""
    return tuple(int(degree) for degree in self.multi_indices.max(axis=0))

  def evaluate(self, germ: ArrayLike) -> np.ndarray | jax.Array:
    """Values of all terms.

        psi[..., p] = Π_d psi_d[multi_indices[p, d]](germ[..., d])

    Args:
      germ: (..., D) germ coordinates.

    Returns:
      psi (..., P).

    Raises:
      ValueError: a last axis that is not D.
    """
    xp = polynomials.array_namespace(germ)
    germ = germ if xp is not np else np.asarray(germ, np.float64)
    self._check_germ(germ.shape)
    terms = xp.ones((1,) * germ.ndim, germ.dtype)
    for d, degree in enumerate(self.degrees):
      if degree > 0:
        # Terms in front: picking a degree copies contiguous rows.
        psi_d = polynomials.evaluate(self._recurrence(d), germ[..., d], degree)
        terms = terms * xp.moveaxis(psi_d, -1, 0)[self.multi_indices[:, d]]
    terms = xp.broadcast_to(terms, (self.num_terms, *germ.shape[:-1]))
    return xp.moveaxis(terms, 0, -1)

  def _recurrence(self, d: int) -> polynomials.Recurrence:
    return _cached_recurrence(self.space.factors[d], self.degrees[d])

  def _check_germ(self, shape: tuple[int, ...]) -> None:
    if not shape or shape[-1] != self.space.dim:
      raise ValueError(
        f'germ: expected shape (..., {self.space.dim}) for the factors '
        f'{list(self.space.names)}, got {shape}'
      )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Expansion:
  """A function of the germ as a sum over an orthonormal basis.

  Attributes:
    basis: the basis, static.
    coefficients: (P, K), row 0 the mean of each of the K outputs.
  """

  basis: Basis = dataclasses.field(metadata={'static': True})
  coefficients: np.ndarray | jax.Array

  def __call__(self, germ: ArrayLike) -> np.ndarray | jax.Array:
    """Evaluates the expansion.

    Args:
      germ: (..., D) germ coordinates.

    Returns:
      (..., K) outputs.
    """
    xp = polynomials.array_namespace(germ, self.coefficients)
    if xp is np:
      return self._on_host(np.asarray(germ, np.float64))
    psi = self.basis.evaluate(xp.asarray(germ))
    coefficients = xp.asarray(self.coefficients).astype(psi.dtype)
    return xp.matmul(
      psi, coefficients, precision=jax.lax.Precision.HIGHEST
    )

  @property
  def mean(self) -> np.ndarray | jax.Array:
    """(K,) mean of each output."""
    return self.coefficients[0]

  @property
  def variance(self) -> np.ndarray | jax.Array:
    """(K,) variance of each output, the sum of its squared coefficients."""
    return (self.coefficients[1:] ** 2).sum(axis=0)

  def _on_host(self, germ: np.ndarray) -> np.ndarray:
    """Evaluates blocks of rows, so that psi never exists as a whole."""
    self.basis._check_germ(germ.shape)
    rows = germ.reshape(-1, germ.shape[-1])
    outputs = np.empty((len(rows), self.coefficients.shape[1]))
    for block in _blocks(len(rows), self.basis.num_terms):
      outputs[block] = self.basis.evaluate(rows[block]) @ self.coefficients
    return outputs.reshape(*germ.shape[:-1], -1)


def project(
  basis: Basis, design: designs.Design, outputs: ArrayLike
) -> Expansion:
  """Expands by quadrature on a tensor of Gauss rules.

      coefficients[p, k] = Σ_n weights[n] psi[n, p] outputs[n, k]

  Args:
    basis: the basis.
    design: tensor Gauss design of N nodes in the same factors.
    outputs: (N, K) outputs of the model at the nodes.

  Returns:
    The expansion; it interpolates polynomials of the basis exactly.

  Raises:
    ValueError: outputs of another shape or not finite, a design that is no
      tensor Gauss rule, or a degree whose squares the rule cannot integrate
      exactly (2 degree > 2 num_nodes - 1), where high degrees would be
      mistaken for low ones without a sign.
  """
  outputs = check_outputs(design, outputs)
  _check_exactness(basis, design)
  coefficients = np.zeros((basis.num_terms, outputs.shape[1]))
  for block in _blocks(len(outputs), basis.num_terms):
    psi = basis.evaluate(design.nodes[block])
    weighted = design.weights[block, None] * outputs[block]
    coefficients += psi.T @ weighted
  return Expansion(basis, coefficients)


def mean_derivatives(expansion: Expansion) -> np.ndarray:
  """Mean derivative of the outputs by each factor, in physical units.

      derivatives[d, k] = E[∂ g_k / ∂ value_d]
                        = Σ_p coefficients[p, k] E[psi'_d[a](x) / slope_d(x)]

  over the terms p that hold factor d alone, with degree a = multi_indices[p,
  d]; slope_d is the derivative of the value by the germ. All other terms have
  mean zero. The sign says which way the output moves on average.

  Args:
    expansion: the expansion.

  Returns:
    (D, K) float64, in units of the output per unit of the factor.

  References:
    Xiu, Fast numerical methods for stochastic computations: a review, 2009,
    eq. 3.14 (there by the germ).
  """
  basis = expansion.basis
  coefficients = np.asarray(expansion.coefficients, np.float64)
  derivatives = np.zeros((basis.space.dim, coefficients.shape[1]))
  for d in range(basis.space.dim):
    others = np.delete(basis.multi_indices, d, axis=1)
    alone = ~np.any(others, axis=1)
    slopes = _mean_slopes(basis.space.factors[d], basis.degrees[d])
    degrees = basis.multi_indices[alone, d]
    derivatives[d] = slopes[degrees] @ coefficients[alone]
  return derivatives


def check_outputs(design: designs.Design, outputs: ArrayLike) -> np.ndarray:
  """Outputs as (N, K) float64.

  Args:
    design: design of N nodes.
    outputs: (N, K) outputs of the model at the nodes.

  Returns:
    The same numbers.

  Raises:
    ValueError: another shape, no output, or a value that is not finite; the
      message names the first such node.
  """
  outputs = np.asarray(outputs, np.float64)
  num_nodes = len(design.nodes)
  if outputs.ndim != 2 or len(outputs) != num_nodes or outputs.size == 0:
    raise ValueError(
      f'outputs: expected shape ({num_nodes}, K) for a design of {num_nodes} '
      f'nodes, got {outputs.shape}'
    )
  # The sum is finite unless a value is not, or the values overflow.
  if not np.isfinite(np.sum(outputs)):
    bad = np.argwhere(~np.isfinite(outputs))
    if len(bad):
      n, k = bad[0]
      raise ValueError(
        f'outputs: {len(bad)} of {outputs.size} values are not finite, the '
        f'first is {outputs[n, k]} at node {n}, output {k}'
      )
  return outputs


@functools.lru_cache(maxsize=256)
def _cached_recurrence(
  factor: factors.Factor, degree: int
) -> polynomials.Recurrence:
  return polynomials.recurrence(factor.germ, degree)


def _mean_slopes(factor: factors.Factor, degree: int) -> np.ndarray:
  """E[psi'[k](x) / slope(x)] for k = 0 ... degree, by a Gauss rule."""
  num_nodes = degree + (1 if factor.is_affine else _EXTRA_NODES)
  coefficients = polynomials.recurrence(factor.germ, num_nodes - 1)
  nodes, weights = polynomials.gauss_rule(coefficients, num_nodes)
  slopes = polynomials.evaluate_derivative(coefficients, nodes, degree)
  return (weights / factor.value_slope(nodes)) @ slopes


def _check_exactness(basis: Basis, design: designs.Design) -> None:
  """Refuses degrees that the design cannot tell apart."""
  if design.kind != 'tensor_gauss':
    raise ValueError(
      f'project needs a tensor_gauss design, got {design.kind!r}; fit this '
      'one with regression.least_squares'
    )
  if design.nodes.shape[1] != basis.space.dim:
    raise ValueError(
      f'design: expected nodes (N, {basis.space.dim}), '
      f'got {design.nodes.shape}'
    )
  for d, name in enumerate(basis.space.names):
    num_nodes = len(np.unique(design.nodes[:, d]))
    if 2 * basis.degrees[d] > 2 * num_nodes - 1:
      raise ValueError(
        f'degree {basis.degrees[d]} of factor {name!r} needs at least '
        f'{basis.degrees[d] + 1} Gauss nodes, the design has {num_nodes}'
      )


def _blocks(num_rows: int, num_terms: int) -> Iterator[slice]:
  """Consecutive slices that cover the rows of a design matrix."""
  step = max(1, _BLOCK // num_terms)
  for start in range(0, num_rows, step):
    yield slice(start, start + step)
