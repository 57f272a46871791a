"""Uncertain factors: names, marginal distributions, units, and their germ.

The germ of a factor is its standardised variable. Polynomials are orthonormal
in the germ, designs are drawn in the germ, and `FactorSpace.to_values` turns
germ coordinates into physical settings:

    values[n, d] = t_d(germ[n, d]),    t_d strictly increasing.

`transports` chooses t_d: it is affine, except for `LogNormal` and `LogUniform`.

A discrete factor has atoms on the germ axis as well: `from_uniform` draws
them, and `to_values` gives the value of the nearest one, without rounding.

All arrays are float64 on the host.
"""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any

import chaospy
import numpy as np
from numpy.typing import ArrayLike

from jaxsens import marginals
from jaxsens import transports

# Quantiles that tell two distributions apart where their repr does not (a
# kernel density does not print its data).
_PROBES = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)


@dataclasses.dataclass(frozen=True, eq=False)
class Factor:
  """One uncertain input of the model.

  Two factors are equal when name, unit, the repr of their distributions and
  a few quantiles are equal; a factor can therefore be a static argument.

  Attributes:
    name: what the factor drives, for instance 'rotation'.
    distribution: one-dimensional chaospy distribution of the physical value,
      continuous or of whole numbers, or a `marginals.Discrete`.
    unit: physical unit of the value, '' for a pure number.

  Raises:
    ValueError: empty name, lower limit not below the upper one, parameters
      that are not finite or not admissible.
    TypeError: not such a distribution.
  """

  name: str
  distribution: Any
  unit: str = ''

  def __post_init__(self):
    if not isinstance(self.name, str) or not self.name:
      raise ValueError(f'factor name: expected a word, got {self.name!r}')
    if isinstance(self.distribution, marginals.Discrete):
      return
    _check_kind(self.name, self.distribution)
    _check_works(self.name, self.distribution)
    if self.atoms is None:
      _check_quantiles(self.name, self._identity[-1], self.distribution)

  @functools.cached_property
  def _identity(self) -> tuple:
    """Tuple that decides about equality."""
    if self.atoms is not None:
      return (
        self.name, self.unit, self.atoms.values.tobytes(),
        self.atoms.probabilities.tobytes(),
      )  # fmt: skip
    with np.errstate(all='ignore'):
      quantiles = np.ravel(self.distribution.inv(np.array(_PROBES)))
    return (
      self.name, self.unit, repr(self.distribution),
      tuple(float(q) for q in quantiles),
    )  # fmt: skip

  def __eq__(self, other: object) -> bool:
    if not isinstance(other, Factor):
      return NotImplemented
    return self._identity == other._identity

  def __hash__(self) -> int:
    return hash(self._identity)

  @functools.cached_property
  def atoms(self) -> marginals.Discrete | None:
    """Atoms of the value; None for a continuous factor."""
    if isinstance(self.distribution, marginals.Discrete):
      return self.distribution
    if np.any(self.distribution.interpret_as_integer):
      return marginals.of_integers(self.distribution)
    return None

  @functools.cached_property
  def _transport(self) -> transports.Transport:
    if self.atoms is not None:
      return transports.of_atoms(self.name, self.atoms)
    return transports.of_distribution(self.distribution)

  @property
  def germ(self) -> chaospy.Distribution | marginals.Discrete:
    """Distribution of the germ: the measure of the orthonormal basis."""
    return self._transport.germ

  @property
  def lower(self) -> float:
    """Lower limit of the value; for unbounded factors chaospy's cut-off."""
    return float(np.ravel((self.atoms or self.distribution).lower)[0])

  @property
  def upper(self) -> float:
    """Upper limit of the value; for unbounded factors chaospy's cut-off."""
    return float(np.ravel((self.atoms or self.distribution).upper)[0])

  @functools.cached_property
  def is_affine(self) -> bool:
    """True when the value is an affine function of the germ."""
    return not isinstance(
      self.distribution, (chaospy.LogNormal, chaospy.LogUniform)
    )

  def to_values(self, germ: ArrayLike) -> np.ndarray:
    """Physical values of germ coordinates, same shape."""
    return self._transport.to_values(np.asarray(germ, np.float64))

  def to_germ(self, values: ArrayLike) -> np.ndarray:
    """Germ coordinates of physical values, same shape."""
    return self._transport.to_germ(np.asarray(values, np.float64))

  def value_slope(self, germ: ArrayLike) -> np.ndarray:
    """Derivative of the value by the germ at germ coordinates, same shape."""
    return self._transport.slope(np.asarray(germ, np.float64))


@dataclasses.dataclass(frozen=True)
class FactorSpace:
  """Independent factors in the order in which they are applied.

  Attributes:
    factors: the factors; their names differ.

  Raises:
    ValueError: no factor, or two factors of one name.
    TypeError: an entry that is not a `Factor`.
  """

  factors: tuple[Factor, ...]

  def __post_init__(self):
    object.__setattr__(self, 'factors', tuple(self.factors))
    if not self.factors:
      raise ValueError('factors: expected at least one factor, got none')
    for factor in self.factors:
      if not isinstance(factor, Factor):
        raise TypeError(f'factors: expected Factor, got {factor!r}')
    twice = sorted({n for n in self.names if self.names.count(n) > 1})
    if twice:
      raise ValueError(f'factors: names given more than once: {twice}')

  @property
  def names(self) -> tuple[str, ...]:
    """Names of the factors, in order."""
    return tuple(factor.name for factor in self.factors)

  @property
  def units(self) -> tuple[str, ...]:
    """Units of the factors, in order."""
    return tuple(factor.unit for factor in self.factors)

  @property
  def dim(self) -> int:
    """Number of factors D."""
    return len(self.factors)

  def index(self, name: str) -> int:
    """Position of the factor of this name.

    Args:
      name: name of one of the factors.

    Returns:
      Its index.

    Raises:
      ValueError: unknown name; the message lists the known ones.
    """
    if name not in self.names:
      raise ValueError(f'unknown factor {name!r}; known: {list(self.names)}')
    return self.names.index(name)

  def to_values(self, germ: ArrayLike) -> np.ndarray:
    """Turns germ coordinates into physical values.

    Args:
      germ: (N, D) germ coordinates.

    Returns:
      (N, D) float64 values in the units of the factors.
    """
    return self._columns(germ, 'germ', lambda f, x: f.to_values(x))

  def to_germ(self, values: ArrayLike) -> np.ndarray:
    """Turns physical values into germ coordinates.

    Args:
      values: (N, D) values in the units of the factors.

    Returns:
      (N, D) float64 germ coordinates.
    """
    return self._columns(values, 'values', lambda f, x: f.to_germ(x))

  def from_uniform(self, uniform: ArrayLike) -> np.ndarray:
    """Turns points of the unit cube into germ coordinates.

    germ[n, d] = F_d^-1(uniform[n, d]) with F_d the distribution function of
    the germ, and for atoms the smallest one with F_d >= uniform[n, d]. The ends
    0 and 1 are moved inside by half a rounding unit.

    Args:
      uniform: (N, D) points in [0, 1].

    Returns:
      (N, D) float64 germ coordinates.

    Raises:
      ValueError: points outside of [0, 1].
    """
    uniform = np.asarray(uniform, np.float64)
    if not np.all((uniform >= 0) & (uniform <= 1)):
      raise ValueError('uniform: expected points in [0, 1]')
    half = np.finfo(np.float64).epsneg / 2
    inside = np.clip(uniform, half, 1 - 2 * half)
    return self._columns(inside, 'uniform', lambda f, u: f.germ.inv(u))

  def value_slope(self, germ: ArrayLike) -> np.ndarray:
    """Derivative of each value by its germ coordinate.

    Args:
      germ: (N, D) germ coordinates.

    Returns:
      (N, D) float64, slope[n, d] = d values[n, d] / d germ[n, d] > 0.
    """
    return self._columns(germ, 'germ', lambda f, x: f.value_slope(x))

  def describe(self) -> list[dict[str, Any]]:
    """Plain description of the factors, fit for JSON."""
    return [
      {
        'name': factor.name,
        'distribution': repr(factor.distribution),
        'unit': factor.unit,
        'lower': factor.lower,
        'upper': factor.upper,
      }
      for factor in self.factors
    ]

  def _columns(
    self,
    points: ArrayLike,
    what: str,
    function: Callable[[Factor, np.ndarray], np.ndarray],
  ) -> np.ndarray:
    """Applies a function of (factor, column) to the columns of points."""
    points = np.asarray(points, np.float64)
    if points.ndim != 2 or points.shape[1] != self.dim:
      raise ValueError(
        f'{what}: expected shape (N, {self.dim}) for the factors '
        f'{list(self.names)}, got {points.shape}'
      )
    pairs = zip(self.factors, points.T, strict=True)
    columns = [function(f, x) for f, x in pairs]
    return np.stack([np.reshape(x, points.shape[0]) for x in columns], axis=1)


def _check_kind(name: str, distribution: Any) -> None:
  """Refuses what is no one-dimensional distribution."""
  if not isinstance(distribution, chaospy.Distribution):
    raise TypeError(
      f'factor {name!r}: expected a chaospy distribution, got {distribution!r}'
    )
  if len(distribution) != 1 or distribution.stochastic_dependent:
    raise TypeError(
      f'factor {name!r}: expected one independent marginal, got {distribution}'
    )


def _check_works(name: str, distribution: Any) -> None:
  """Refuses what chaospy builds but cannot evaluate (2 * Uniform() + 1)."""
  try:
    with np.errstate(all='ignore'):
      np.ravel([distribution.lower, distribution.upper])
      distribution.inv(np.array(_PROBES))
  except Exception as error:
    raise TypeError(
      f'factor {name!r}: chaospy cannot evaluate {distribution!r}: {error}'
    ) from error


def _check_quantiles(name: str, quantiles: tuple, distribution: Any) -> None:
  """Refuses inverted limits and parameters that are not admissible.

  chaospy itself accepts TruncNormal(lower=2, upper=-1) or Gamma(-1).
  """
  with np.errstate(all='ignore'):
    limits = np.ravel([distribution.lower, distribution.upper])
  if not np.all(np.isfinite(limits)):
    raise ValueError(
      f'factor {name!r}: limits of {distribution} are not finite: '
      f'{limits.tolist()}'
    )
  if limits[0] >= limits[1]:
    raise ValueError(
      f'factor {name!r}: expected lower < upper, got {limits.tolist()} '
      f'from {distribution}'
    )
  if not np.all(np.isfinite(quantiles)) or np.any(np.diff(quantiles) <= 0):
    raise ValueError(
      f'factor {name!r}: parameters of {distribution} are not admissible, '
      'its quantiles do not increase'
    )
