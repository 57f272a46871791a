"""Functional ANOVA of values on a tensor grid with weights, without a basis.

On the product of D rules with weights w_d > 0 of sum one, every function is

    f(x) = Σ_u f_u(x_u),   Σ_{i_d} w_d[i_d] f_u(x_u) = 0 for each d in u,

and the variances V_u = Σ w f_u² sum to the variance of f on the grid. They
are exact for the grid; how far the grid stands for the factors is another
question. Multiplying by the roots of the weights makes each axis Euclidean;
a reflection then turns its constant direction into its first coordinate,

    c = (H_1 ⊗ ... ⊗ H_D) (√w f),   V_u = Σ c², first along axes outside of u,

so no variance is a difference of larger numbers and none is negative.

References:
  Efron, Stein, The jackknife estimate of variance, 1981.
  Householder, Unitary triangularization of a nonsymmetric matrix, 1958.
"""

from collections.abc import Sequence
import itertools

from jax.typing import ArrayLike
import numpy as np

Subset = tuple[int, ...]


def partial_variances(
  values: ArrayLike, weights: Sequence[ArrayLike]
) -> tuple[tuple[Subset, ...], np.ndarray]:
  """Variance of every component of the decomposition on the grid.

  Args:
    values: (n_1, ..., n_D, K) the K outputs on the grid.
    weights: D arrays (n_d,), >= 0, each of sum one.

  Returns:
    The S = 2^D - 1 non-empty sets of axes, by size and then by position, and
    their variances (S, K) float64, >= 0. An output with a value that is not
    finite is NaN throughout.

  Raises:
    ValueError: shapes that do not agree, or weights that are negative, not
      finite, or not of sum one.
  """
  array = coefficients(values, weights)
  dim = array.ndim - 1
  all_sets = subsets(dim)
  squares = np.square(array, out=array)
  variances = [
    squares[block(subset, dim)].reshape(-1, array.shape[-1]).sum(axis=0)
    for subset in all_sets
  ]
  return all_sets, np.array(variances)


def coefficients(
  values: ArrayLike, weights: Sequence[ArrayLike]
) -> np.ndarray:
  """Coordinates of the values, less their mean, in an orthonormal basis.

  Linear in the values, so that those of a mean of outputs are the mean of
  theirs. `block` gives the coordinates of the component f_u.

  Args:
    values: (n_1, ..., n_D, K) the K outputs on the grid.
    weights: D arrays (n_d,), >= 0, each of sum one.

  Returns:
    (n_1, ..., n_D, K) float64, NaN for an output that is not finite.

  Raises:
    ValueError: as in `partial_variances`.
  """
  table, rules = _checked(values, weights)
  broken = ~np.isfinite(table).all(axis=tuple(range(len(rules))))
  table = np.where(broken, 0.0, table)
  table -= _mean(table, rules)
  for d, rule in enumerate(rules):
    table = _reflected(table, np.sqrt(rule), d)
  table[..., broken] = np.nan
  return table


def block(subset: Subset, dim: int) -> tuple[slice | int, ...]:
  """Where `coefficients` holds the component of a set of axes.

  Args:
    subset: positions of the axes of the set.
    dim: number of axes D.

  Returns:
    An index: past the first entry of the axes of the set, the first entry of
    the others.
  """
  return tuple(slice(1, None) if d in subset else 0 for d in range(dim))


def subsets(dim: int) -> tuple[Subset, ...]:
  """All non-empty sets of `dim` axes, by size, then by position."""
  return tuple(
    subset for size in range(1, dim + 1)
    for subset in itertools.combinations(range(dim), size)
  )  # fmt: skip


def main_effects(
  values: ArrayLike, weights: Sequence[ArrayLike]
) -> tuple[np.ndarray, ...]:
  """Conditional means E[f | x_d] along each axis, the mean included.

      effects[d][i, k] = Σ_{all other axes} Π_{e ≠ d} w_e f[..., i, ..., k]

  Args:
    values: (n_1, ..., n_D, K) the K outputs on the grid.
    weights: D arrays (n_d,), >= 0, each of sum one.

  Returns:
    D arrays (n_d, K) float64.

  Raises:
    ValueError: as in `partial_variances`.
  """
  table, rules = _checked(values, weights)
  return tuple(_mean(table, rules, kept=d) for d in range(len(rules)))


def _mean(table, rules, kept=None):
  """(K,) mean over all axes, or (n_kept, K) over all but one."""
  for d in reversed(range(len(rules))):
    if d != kept:
      table = np.tensordot(rules[d], table, axes=([0], [d]))
  return table


def _reflected(table: np.ndarray, root: np.ndarray, axis: int) -> np.ndarray:
  """Table times the roots, with the unit vector `root` turned into -e_0."""
  front = np.moveaxis(table, axis, 0)
  shape = front.shape
  scaled = root[:, None] * front.reshape(len(root), -1)
  normal = root.copy()
  normal[0] += 1.0
  # The normal has the squared length 2 (1 + root[0]), at least 2.
  scaled -= np.outer(normal, normal @ scaled / normal[0])
  return np.moveaxis(scaled.reshape(shape), 0, axis)


def _checked(values, weights):
  """Values in float64 and weights as arrays, after a check."""
  table = np.asarray(values, np.float64)
  rules = [np.asarray(rule, np.float64) for rule in weights]
  shapes = [rule.shape for rule in rules]
  if not rules or table.shape[:-1] != tuple(
    shape[0] if len(shape) == 1 else None for shape in shapes
  ):
    raise ValueError(
      'values: expected shape (n_1, ..., n_D, K) for weights (n_d,), got '
      f'{table.shape} and weights of shapes {shapes}'
    )
  for d, rule in enumerate(rules):
    if not (np.all(rule >= 0) and abs(rule.sum() - 1) <= 1e-9):
      raise ValueError(
        f'weights[{d}]: expected finite numbers >= 0 of sum 1, got '
        f'{rule.tolist()}'
      )
  return table, [rule / rule.sum() for rule in rules]
