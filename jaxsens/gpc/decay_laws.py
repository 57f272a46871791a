"""Laws by which the energies of polynomial degrees fall, fitted to a spectrum.

Energies are squared coefficients c_n². The laws are c_n ~ rho^-n of a response
that is analytic (rho is the sum of the half axes of the largest Bernstein
ellipse without a pole, if the factor is uniform) and c_n ~ n^-p of one with a
kink or a step (Legendre: p = 1 of a step, 2 of a kink inside of the range). The
fit is least squares of the logarithm of the tail energy Σ_{n > m}, which falls
monotonically: it does not see the zeros of odd and even responses. Tails end
at the highest known degree L, those of the laws as well.

References:
  Trefethen, Approximation Theory and Approximation Practice, 2013, theorem 8.1
  (geometric) and 7.1 (algebraic), there for Chebyshev coefficients.
  Wang and Xiang, On the convergence rates of Legendre approximation, 2012,
  theorems 2.1 and 2.2.
"""

import dataclasses
import functools

import numpy as np

GEOMETRIC, ALGEBRAIC = 'geometric', 'algebraic'
FINITE, UNKNOWN, CONSTANT = 'finite', 'unknown', 'constant'
# Times the highest known degree to which a law is followed.
FURTHEST = 10
# Share of the variance below which a tail is rounding, and of the mean square
# below which the variance is: outputs may have gone through float32.
ROUNDING = 1e-12
# Tail energies that a fit needs at least.
_FEWEST = 4
# Candidates: rho - 1 and p - 1/2; at p = 1/2 the variance is infinite.
_EXCESSES = np.geomspace(1e-4, 99.0, 241)
_POWERS = np.geomspace(0.02, 30.0, 241)


@dataclasses.dataclass(frozen=True)
class Fit:
  """What a spectrum follows.

  Attributes:
    law: 'geometric', 'algebraic', 'finite', 'unknown' or 'constant'.
    remainder: share of the variance above the highest known degree.
    required_degree: whole number, at most `FURTHEST` times that degree.
    rho: geometric rate, p: algebraic rate; NaN where nothing was fitted.
  """

  law: str
  remainder: float
  required_degree: float
  rho: float = float('nan')
  p: float = float('nan')


def fit(
  energy: np.ndarray, above: float | None, tolerance: float
) -> Fit:
  """Returns the law of one spectrum and the degree that it requires.

  Args:
    energy: (L,) of the degrees 1 to L, shares of the variance.
    above: measured energy of higher degrees; None where they are unknown.
    tolerance: share that may be neglected.
  """
  highest = len(energy)
  tails = np.append(np.cumsum(energy[::-1])[::-1], 0.0)
  if tails[0] + (above or 0.0) <= ROUNDING:
    return Fit(CONSTANT, 0.0, 0.0)
  # Sums of two neighbours, because every other energy may vanish.
  pairs = np.append(np.cumsum((energy[:-1] + energy[1:])[::-1])[::-1], 0.0)
  usable = np.flatnonzero(pairs > ROUNDING)
  # Odd and even responses end one degree before the edge or at it.
  ends = not (above or 0.0) > ROUNDING and tails[-3:].max() <= ROUNDING
  if len(usable) < _FEWEST or above == 0.0:
    law = FINITE if ends or above == 0.0 else UNKNOWN
    left = above or 0.0
    return Fit(law, left, _measured(tails + left, tolerance))
  if ends and _drops(energy):
    return Fit(FINITE, 0.0, _measured(tails, tolerance))
  # The first degrees are not yet those of the law.
  rows = usable[min(len(usable) // 4, len(usable) - _FEWEST) :]
  excess, errors_1 = _least(_EXCESSES, _shapes(highest, True), pairs, rows)
  power, errors_2 = _least(_POWERS, _shapes(highest, False), pairs, rows)
  rho, p = 1 + excess, 0.5 + power
  law = GEOMETRIC if errors_1 <= errors_2 else ALGEBRAIC
  if above is None:
    above = _beyond(law, rho, p, energy, rows[0])
  if above <= tolerance:
    return Fit(law, above, _measured(tails + above, tolerance), rho, p)
  # From the tail at the highest degree on, the law alone.
  if law == GEOMETRIC:
    degree = highest + np.log(above / tolerance) / (2 * np.log(rho))
  else:
    with np.errstate(over='ignore'):
      ratio = np.power(above / tolerance, 1 / (2 * p - 1))
    degree = (highest + 0.5) * ratio - 0.5
  degree = float(min(np.ceil(degree), FURTHEST * highest))
  return Fit(law, above, degree, rho, p)


def _drops(energy) -> bool:
  """Whether the last energies above rounding end in a cliff, not in a slope.

  A slope that reaches the rounding floor has small energies just above it; a
  polynomial ends with one that is far above.
  """
  last = energy[energy > ROUNDING]
  return bool(last[-1] > 1e3 * ROUNDING)


def _beyond(law, rho, p, energy, first) -> float:
  """Energy above the highest degree by a law scaled to the energies."""
  highest, known = len(energy), energy[first:].sum()
  if law == GEOMETRIC:
    # Σ_{n > L} r^n / Σ_{first < n <= L} r^n with r = rho^-2.
    exponent = 2 * (highest - first) * np.log(rho)
    return float(known / np.expm1(min(exponent, 700.0)))
  scale = known / np.sum(np.arange(first + 1, highest + 1) ** (-2.0 * p))
  return float(scale * (highest + 0.5) ** (1 - 2 * p) / (2 * p - 1))


def _measured(tails, tolerance) -> float:
  """Smallest degree whose tail (degrees 0 to L) is within the tolerance.

  Where none is, L + 1: at least that.
  """
  within = np.flatnonzero(tails <= tolerance)
  return float(within[0] if len(within) else len(tails))


@functools.lru_cache(maxsize=64)
def _shapes(highest: int, geometric: bool) -> np.ndarray:
  """Logarithms of the pair tails (rates, L) of the laws, of unit scale."""
  degrees = np.arange(1, highest + 1)
  if geometric:
    logs = -2 * np.log1p(_EXCESSES)[:, None] * degrees
  else:
    logs = -2 * (0.5 + _POWERS)[:, None] * np.log(degrees)
  pairs = np.logaddexp(logs[:, :-1], logs[:, 1:])
  tails = np.logaddexp.accumulate(pairs[:, ::-1], axis=1)[:, ::-1]
  return np.concatenate([tails, np.full((len(tails), 1), -np.inf)], axis=1)


def _least(rates, shapes, pairs, rows) -> tuple[float, float]:
  """Rate of least squares of the logarithms, and its mean square."""
  gaps = np.log(pairs[rows]) - shapes[:, rows]
  errors = gaps.var(axis=1)
  i = int(errors.argmin())
  if not 0 < i < len(rates) - 1:
    return float(rates[i]), float(errors[i])
  # Parabola through the three best, in the logarithm of the rate.
  left, middle, right = errors[i - 1 : i + 2]
  bend = left - 2 * middle + right
  shift = 0.5 * (left - right) / bend if bend > 0 else 0.0
  step = np.log(rates[i + 1] / rates[i])
  return float(rates[i] * np.exp(shift * step)), float(
    middle - 0.25 * (left - right) * shift
  )
