"""First four moments of the outputs of a surrogate.

    skewness = E[(y - mean)³] / V^(3/2),    kurtosis = E[(y - mean)⁴] / V²

Those of a polynomial are exact by Gauss quadrature of four times its degree,
where the tensor of the rules is small; all others come from draws of the
surrogate (`statistics`), with standard errors.
"""

import dataclasses

import jax
import numpy as np

from jaxsens import factors
from jaxsens.gpc import designs
from jaxsens.gpc import expansions
from jaxsens.gpc import statistics

# Numbers in one block of outputs (64 MiB).
_BLOCK = 2**23


@dataclasses.dataclass(frozen=True, eq=False)
class Moments:
  """First four moments of K outputs.

  Skewness and kurtosis of an output without variance are NaN.

  Attributes:
    mean: (K,).
    variance: (K,).
    skewness: (K,) E[(y - mean)³] / variance^(3/2).
    kurtosis: (K,) E[(y - mean)⁴] / variance², 3 for a normal output.
    standard_errors: (4, K) of the above in order; zeros when exact.
    exact: whether quadrature was exact up to rounding.
  """

  mean: np.ndarray
  variance: np.ndarray
  skewness: np.ndarray
  kurtosis: np.ndarray
  standard_errors: np.ndarray
  exact: bool


def first_four(
  key: jax.Array,
  surrogate: statistics.Surrogate,
  space: factors.FactorSpace | None = None,
  *,
  max_nodes: int = 2**18,
  num_points: int = 2**13,
  num_replicates: int = 8,
) -> Moments:
  """First four moments, exact where that is affordable.

  Args:
    key: typed JAX key, of no effect on exact moments.
    surrogate: as in `statistics.draw`.
    space: as in `statistics.draw`.
    max_nodes: largest tensor of Gauss rules for an `Expansion`.
    num_points: as in `statistics.draw`.
    num_replicates: as in `statistics.draw`.

  Returns:
    The moments; their `exact` tells which way was taken.

  Raises:
    ValueError: as in `statistics.draw`.
  """
  if isinstance(surrogate, expansions.Expansion):
    statistics.space_of(surrogate, space)
    if np.prod(_fourth_power_nodes(surrogate.basis), dtype=float) <= max_nodes:
      return exact(surrogate, max_nodes=max_nodes)
  return of_sample(
    statistics.draw(
      key, surrogate, space, num_points=num_points,
      num_replicates=num_replicates,
    )
  )  # fmt: skip


def exact(
  expansion: expansions.Expansion, *, max_nodes: int = 2**18
) -> Moments:
  """First four moments of a polynomial, exact up to rounding.

  A Gauss rule of 2 n_d + 1 nodes is exact for the fourth power of degree n_d.

  Args:
    expansion: the expansion of K outputs.
    max_nodes: largest number of nodes Π_d (2 n_d + 1).

  Returns:
    The moments.

  Raises:
    ValueError: more nodes than max_nodes.
  """
  num_nodes = _fourth_power_nodes(expansion.basis)
  total = np.prod(num_nodes, dtype=float)
  if total > max_nodes:
    raise ValueError(
      f'max_nodes: exact moments need {total:.3g} nodes {num_nodes}, more '
      f'than {max_nodes}; use statistics.draw'
    )
  design = designs.tensor_gauss(expansion.basis.space, num_nodes)
  coefficients = np.asarray(expansion.coefficients, np.float64)
  mean, variance = coefficients[0], np.sum(coefficients[1:] ** 2, axis=0)
  host = expansions.Expansion(expansion.basis, coefficients)
  third = fourth = np.zeros(len(mean))
  step = max(1, _BLOCK // len(mean))
  for start in range(0, len(design.nodes), step):
    block = slice(start, start + step)
    gaps = host(design.nodes[block]) - mean
    weights = design.weights[block]
    third, fourth = third + weights @ gaps**3, fourth + weights @ gaps**4
  rows = _standardised(mean, variance, third, fourth)
  return Moments(*rows, np.zeros((4, len(mean))), True)


def of_sample(sample: statistics.Sample) -> Moments:
  """First four moments of a sample.

  Args:
    sample: the sample.

  Returns:
    The moments with standard errors. That of the kurtosis is itself uncertain
    where rare corners of the germ carry the fourth power: more points help.
  """
  values = np.stack(_plain_moments(sample.pooled))
  spread = np.stack([np.stack(_plain_moments(y)) for y in sample.outputs])
  return Moments(*values, statistics.standard_error(spread), False)


def _fourth_power_nodes(basis: expansions.Basis) -> tuple[int, ...]:
  """Gauss nodes that integrate the fourth power of the basis exactly."""
  return tuple(2 * degree + 1 for degree in basis.degrees)


def _plain_moments(y: np.ndarray) -> tuple[np.ndarray, ...]:
  """Mean, variance, skewness and kurtosis (K,) of draws (M, K)."""
  mean = np.mean(y, axis=0)
  gaps = y - mean
  squares = gaps**2
  return _standardised(
    mean, squares.mean(axis=0), (squares * gaps).mean(axis=0),
    (squares**2).mean(axis=0),
  )  # fmt: skip


def _standardised(
  mean: np.ndarray, variance: np.ndarray, third: np.ndarray, fourth: np.ndarray
) -> tuple[np.ndarray, ...]:
  """Divides central moments; NaN where the variance is rounding alone."""
  silent = variance <= (16 * np.finfo(np.float64).eps * mean) ** 2
  safe = np.where(silent, np.nan, variance)
  return mean, variance, third / safe**1.5, fourth / safe**2
