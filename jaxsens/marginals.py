"""Marginal distributions with atoms: choices, whole numbers, samples.

A discrete measure of M atoms has orthonormal polynomials of degree 0 to M - 1
and no more: with all of them every function of the atoms is expanded without
error, and the Gauss rule of M nodes is the measure itself. The order of atoms
on the axis matters for low degrees only; for a choice without an order (three
filters) take all of them.

`Discrete` offers the part of a chaospy distribution that the package uses.
"""

from collections.abc import Sequence
import dataclasses
import functools

import chaospy
from jax.typing import ArrayLike
import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Discrete:
  """A measure on finitely many numbers.

  Equal values are merged, so that a sample with repeats is an empirical
  distribution; values of probability zero are dropped.

  Attributes:
    values: (M,) float64 increasing atoms.
    probabilities: (M,) float64 positive, sum 1; given as weights >= 0 of any
      sum, None for equal ones.
    name: of the factor, for messages.

  Raises:
    ValueError: no or only one atom, shapes that differ, numbers that are not
      finite, negative weights.
  """

  values: np.ndarray
  probabilities: np.ndarray | None = None
  name: str = ''

  def __post_init__(self):
    given = np.asarray(self.values, np.float64)
    weights = (
      np.ones(given.shape) if self.probabilities is None
      else np.asarray(self.probabilities, np.float64)
    )  # fmt: skip
    if given.ndim != 1 or weights.shape != given.shape:
      raise ValueError(
        'values and probabilities: expected two arrays (M,), got '
        f'{given.shape} and {weights.shape}'
      )
    if not (np.all(np.isfinite(given)) and np.all(np.isfinite(weights))):
      raise ValueError('values and probabilities: expected finite numbers')
    if np.any(weights < 0):
      raise ValueError('probabilities: expected numbers >= 0')
    values, place = np.unique(given[weights > 0], return_inverse=True)
    if len(values) < 2:
      raise ValueError(
        f'values: expected two different atoms or more, got {values.tolist()}'
      )
    mass = np.bincount(place.ravel(), weights[weights > 0])
    object.__setattr__(self, 'values', values)
    object.__setattr__(self, 'probabilities', mass / np.sum(mass))
    for array in (self.values, self.probabilities):
      array.setflags(write=False)

  def __len__(self) -> int:
    """Number of variables, 1, as for chaospy distributions."""
    return 1

  def __repr__(self) -> str:
    if self.num_atoms <= 8:
      return (
        f'Discrete({self.values.tolist()}, {self.probabilities.tolist()})'
      )
    return f'Discrete({self.num_atoms} atoms)'

  @property
  def num_atoms(self) -> int:
    """Number of atoms M."""
    return len(self.values)

  @property
  def lower(self) -> np.ndarray:
    """(1,) smallest atom."""
    return self.values[:1]

  @property
  def upper(self) -> np.ndarray:
    """(1,) largest atom."""
    return self.values[-1:]

  @functools.cached_property
  def _cumulative(self) -> np.ndarray:
    return np.cumsum(self.probabilities)

  def inv(self, uniform: ArrayLike) -> np.ndarray:
    """Smallest atoms whose distribution function reaches probabilities.

    Args:
      uniform: (...) in [0, 1].

    Returns:
      (...) atoms.
    """
    # The last sum may round to less than one.
    place = np.searchsorted(self._cumulative[:-1], uniform, side='left')
    return self.values[place]

  def snap(self, points: ArrayLike) -> np.ndarray:
    """Positions (...) of the atoms next to points (...)."""
    middles = (self.values[1:] + self.values[:-1]) / 2
    return np.searchsorted(middles, points)


def choice(
  options: Sequence, probabilities: ArrayLike | None = None
) -> Discrete:
  """A choice among M options, coded as 0 to M - 1 in their order.

  Args:
    options: the options; only their number matters here.
    probabilities: (M,) weights; None: equal ones.

  Returns:
    The distribution of the code.
  """
  return Discrete(np.arange(len(options)), probabilities)


def of_integers(distribution: chaospy.Distribution) -> Discrete:
  """Atoms of a distribution that chaospy takes for whole numbers.

  Args:
    distribution: one-dimensional, for instance `chaospy.Binomial`.

  Returns:
    The measure; unbounded ones end where chaospy cuts them.
  """
  ends = np.ravel([distribution.lower, distribution.upper])
  # chaospy spreads the atom k over [k - 1/2, k + 1/2]. Its density (4.3.21)
  # gives DiscreteUniform(1, 6) six atoms of 1/5; the function below is right.
  values = np.arange(np.ceil(ends[0]), np.floor(ends[1]) + 1)
  cumulative = np.ravel(distribution.fwd(values + 0.5))
  return Discrete(values, np.maximum(np.diff(cumulative, prepend=0.0), 0))
