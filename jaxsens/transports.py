"""Maps from the germ of a factor to its value.

    value = t(germ),    t strictly increasing.

t is affine, except for `LogNormal` and `LogUniform`, whose germ is a normal or
uniform variable that is mapped through an exponential: the polynomials in a
log-normal variable itself are not dense (Ernst et al. 2012). The germ of a
bounded variable lies in [-1, 1]; that of atoms has its ends there.

References:
  Ernst, Mugler, Starkloff, Ullmann, On the convergence of generalized
  polynomial chaos expansions, 2012, section 4.
"""

from collections.abc import Callable
import dataclasses

import chaospy
import numpy as np
from scipy import special

from jaxsens import marginals

# Distributions whose recurrence chaospy has and whose germ has unit scale.
_SCALED = (chaospy.Normal, chaospy.Gamma, chaospy.Exponential)
# Distributions whose limits are those of the variable itself. All others are
# cut by chaospy far out in the tails, so that their limits are no scale.
_BOUNDED = (
  chaospy.LowerUpperDistribution,
  chaospy.LogUniform,
  chaospy.Trunc,
  chaospy.TruncExponential,
  chaospy.TruncNormal,
)


@dataclasses.dataclass(frozen=True)
class Transport:
  """Map t from germ to value, its inverse, and its slope.

  Attributes:
    germ: distribution of the germ.
    to_values: t; keeps the shape of germ coordinates, as the next two do.
    to_germ: inverse of t.
    slope: dt/dgerm at germ coordinates.
  """

  germ: chaospy.Distribution | marginals.Discrete
  to_values: Callable[[np.ndarray], np.ndarray]
  to_germ: Callable[[np.ndarray], np.ndarray]
  slope: Callable[[np.ndarray], np.ndarray]


def of_distribution(distribution: chaospy.Distribution) -> Transport:
  """Chooses the germ of a distribution and the map from germ to value.

  Args:
    distribution: one-dimensional, continuous.
  """
  if isinstance(distribution, chaospy.LogNormal):
    return _log_normal(distribution)
  if isinstance(distribution, chaospy.LogUniform):
    return _log_uniform(distribution)
  shift, scale = _affine_map(distribution)
  if isinstance(distribution, chaospy.Uniform):
    germ = chaospy.Uniform(-1, 1)
  elif isinstance(distribution, chaospy.Normal):
    germ = chaospy.Normal(0, 1)
  else:
    germ = chaospy.ShiftScaleDistribution(
      distribution, shift=-shift / scale, scale=1 / scale
    )
  return Transport(
    germ,
    lambda germ: shift + scale * germ,
    lambda values: (values - shift) / scale,
    lambda germ: np.full(np.shape(germ), scale),
  )


def of_atoms(name: str, atoms: marginals.Discrete) -> Transport:
  """Map between the atoms of the value and their images on [-1, 1].

  Args:
    name: of the factor, for messages. `to_germ` raises a ValueError with it
      for a value that is none of the atoms.
    atoms: of the value.
  """
  lower, upper = atoms.values[0], atoms.values[-1]
  shift, scale = (lower + upper) / 2, (upper - lower) / 2
  germ = marginals.Discrete(
    (atoms.values - shift) / scale, atoms.probabilities, name
  )

  def to_germ(values):
    places = atoms.snap(values)
    far = np.abs(atoms.values[places] - values) > 1e-9 * scale
    if np.any(far):
      raise ValueError(
        f'factor {name!r}: {np.asarray(values)[far].ravel()[0]} is none of '
        f'its {atoms.num_atoms} values'
      )
    return germ.values[places]

  return Transport(
    germ,
    lambda points: atoms.values[germ.snap(points)],
    to_germ,
    lambda points: np.full(np.shape(points), scale),
  )


def _affine_map(distribution: chaospy.Distribution) -> tuple[float, float]:
  """Shift and scale of value = shift + scale * germ."""
  lower, upper = _limits(distribution)
  if isinstance(distribution, _BOUNDED):
    return (lower + upper) / 2, (upper - lower) / 2
  if isinstance(distribution, _SCALED):
    # The recurrence holds mean and variance without rounding.
    (mean, _), (_, variance) = distribution.ttr(np.arange(2))
    if isinstance(distribution, chaospy.Normal):
      return mean, np.sqrt(variance)
    return lower, variance / (mean - lower)
  low, middle, high = np.ravel(distribution.inv(special.ndtr([-1, 0, 1])))
  return float(middle), float(high - low) / 2


def _log_normal(distribution: chaospy.Distribution) -> Transport:
  """Map value = shift + scale * exp(sigma * germ) of a normal germ."""
  shift, _ = _limits(distribution)
  low, high = np.ravel(distribution.inv(special.ndtr([0, 1]))) - shift
  scale, sigma = float(low), float(np.log(high / low))
  return _exponential(chaospy.Normal(0, 1), shift, scale, sigma)


def _log_uniform(distribution: chaospy.Distribution) -> Transport:
  """Map value = shift + scale * exp(rate * germ), germ on [-1, 1]."""
  shift = float(np.ravel(distribution.get_parameters(None, {})['shift'])[0])
  lower, upper = np.log(np.array(_limits(distribution)) - shift)
  scale, rate = float(np.exp((lower + upper) / 2)), float(upper - lower) / 2
  return _exponential(chaospy.Uniform(-1, 1), shift, scale, rate)


def _exponential(
  germ: chaospy.Distribution, shift: float, scale: float, rate: float
) -> Transport:
  """Map value = shift + scale * exp(rate * germ)."""
  return Transport(
    germ,
    lambda germ: shift + scale * np.exp(rate * germ),
    lambda values: np.log((values - shift) / scale) / rate,
    lambda germ: scale * rate * np.exp(rate * germ),
  )


def _limits(distribution: chaospy.Distribution) -> tuple[float, float]:
  return (
    float(np.ravel(distribution.lower)[0]),
    float(np.ravel(distribution.upper)[0]),
  )
