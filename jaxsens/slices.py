"""Nodes on lines and planes of a space: what a person looks at.

All are physical values (N, D) with the factors in the order of the space; the
factors that do not vary keep the values of a given point, usually the identity.
"""

from collections.abc import Sequence

import numpy as np

from jaxsens import factors

# Part of an unbounded factor's distribution that is left out at each end.
_TAIL = 0.005


def axis(
  space: factors.FactorSpace, name: str, num_nodes: int
) -> np.ndarray:
  """Returns evenly spaced values (num_nodes,) over the range of one factor.

  Unbounded factors run from the 0.5 % to the 99.5 % quantile.
  """
  factor = space.factors[space.index(name)]
  quantiles = [float(factor.distribution.inv(u)) for u in (_TAIL, 1 - _TAIL)]
  bounds = factor.germ.lower[0], factor.germ.upper[0]
  bounded = np.isfinite(bounds).all() and max(map(abs, bounds)) <= 1
  lower, upper = (factor.lower, factor.upper) if bounded else quantiles
  return np.linspace(lower, upper, num_nodes)


def line(
  space: factors.FactorSpace,
  name: str,
  num_nodes: int,
  point: Sequence[float],
) -> np.ndarray:
  """Returns nodes (N, D) along one factor through a point (D,).

  The value of the point itself is always among them, so N is num_nodes or one
  more.
  """
  index = space.index(name)
  along = axis(space, name, num_nodes)
  if along[0] <= point[index] <= along[-1]:
    along = np.unique(np.append(along, point[index]))
  nodes = np.tile(np.asarray(point, float), (len(along), 1))
  nodes[:, index] = along
  return nodes


def plane(
  space: factors.FactorSpace,
  names: tuple[str, str],
  num_nodes: int,
  point: Sequence[float],
) -> np.ndarray:
  """Returns nodes (num_nodes^2, D) over two factors through a point (D,).

  The second factor varies fastest.
  """
  x, y = (axis(space, name, num_nodes) for name in names)
  nodes = np.tile(np.asarray(point, float), (num_nodes**2, 1))
  nodes[:, space.index(names[0])] = np.repeat(x, num_nodes)
  nodes[:, space.index(names[1])] = np.tile(y, num_nodes)
  return nodes


def first_change(
  values: np.ndarray, changed: np.ndarray, origin: float
) -> tuple[float | None, float | None]:
  """Returns where something first changes, going out from an origin.

  Args:
    values: (M,) increasing values along a factor.
    changed: (M,) bool, whether it has changed there.
    origin: value to start from.

  Returns:
    The nearest changed values below and above the origin, None where there is
    none. A change at the origin itself counts on both sides.
  """
  values, changed = np.asarray(values), np.asarray(changed, bool)
  below = values[(values <= origin) & changed]
  above = values[(values >= origin) & changed]
  return (
    float(below[-1]) if below.size else None,
    float(above[0]) if above.size else None,
  )
