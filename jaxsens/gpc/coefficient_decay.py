"""How fast the coefficients of a response fall with the degree in a factor.

The energy of degree n in factor d is the variance that polynomials of that
degree in x_d carry, whatever they are of the others:

    energy[d][n] = Σ_{p: multi_indices[p, d] = n} coefficients[p]²
                 = E[c_n(x_~d)²],    c_n(x_~d) = E[f psi_d[n](x_d) | x_~d],
    Σ_{n > 0} energy[d][n] = V total[d].

Two laws are fitted to it (`decay_laws`), geometric and algebraic decay. What
lies above the highest degree is extrapolated by the law that fits better, and
the required degree is the smallest with

    Σ_{n > degree} energy[d][n] <= tolerance V.

A response is called slow along a factor whose required degree is above 30. A
tensor rule that carries degree 30 in three factors takes 31³ = 29791 runs, a
total degree of 30 has 5456 coefficients: neither is affordable.

A surrogate shows its own decay. One that smooths what its nodes have not
resolved decays faster than the model: required degrees are as a rule too low.
"""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import functools

import numpy as np
from numpy.typing import ArrayLike

from jaxsens import factors
from jaxsens.gpc import decay_laws
from jaxsens.gpc import expansions
from jaxsens.gpc import polynomials

AFFORDABLE_DEGREE = 30
TOLERANCE = 0.01
# Share of the Gauss degrees that aliasing leaves usable (at 0.75 a step seems
# to need half of its degree).
_USABLE = 0.5


@dataclasses.dataclass(frozen=True, eq=False)
class Decay:
  """Decay of K outputs along D factors.

  Attributes:
    names: the D factors.
    tolerance: share of the variance that the required degree may neglect.
    energies: of each factor (n_d + 1, K) shares of the variance by degree;
      the row of degree zero is zero.
    remainders: (D, K) shares of the variance above the degrees n_d.
    geometric_rates: (D, K) rho > 1; NaN where nothing could be fitted.
    algebraic_rates: (D, K) p > 1/2; NaN likewise.
    laws: D tuples of K words: 'geometric' or 'algebraic', whichever fits
      better; 'finite' for a polynomial whose coefficients are zero from some
      degree on; 'unknown' with too few degrees for a fit, which is taken for
      a polynomial as well; 'constant' without variance along the factor.
    required_degrees: (D, K) whole numbers, at most ten times the highest known
      degree n_d, which also stands for more; NaN for an output that does not
      vary.
  """

  names: tuple[str, ...]
  tolerance: float
  energies: tuple[np.ndarray, ...]
  remainders: np.ndarray
  geometric_rates: np.ndarray
  algebraic_rates: np.ndarray
  laws: tuple[tuple[str, ...], ...]
  required_degrees: np.ndarray

  @property
  def slow(self) -> np.ndarray:
    """(D, K) whether the required degree is above any affordable one."""
    return self.required_degrees > AFFORDABLE_DEGREE

  def rate(self, d: int, k: int = 0) -> float:
    """Returns rho or p of the law that fits better, NaN where none does."""
    law = self.laws[d][k]
    rates = {
      decay_laws.GEOMETRIC: self.geometric_rates,
      decay_laws.ALGEBRAIC: self.algebraic_rates,
    }
    return float(rates[law][d, k]) if law in rates else float('nan')

  def describe(self, k: int = 0) -> dict[str, dict]:
    """Returns the decay of one output in words and numbers.

    Args:
      k: the output.

    Returns:
      Factor -> required_degree, law, rate, fall (how coefficients fall with
      the degree n, '' without a law) and slow.
    """
    return {
      name: {
        'required_degree': float(self.required_degrees[d, k]),
        'law': self.laws[d][k],
        'rate': self.rate(d, k),
        'fall': self._fall(d, k),
        'slow': bool(self.slow[d, k]),
      }
      for d, name in enumerate(self.names)
    }

  def sentence(self, k: int = 0) -> str:
    """Returns which factors are sharp and how much; '' if none is."""
    order = np.argsort(-self.required_degrees[:, k], kind='stable')
    parts = [
      f'{self.names[d]} (degree {self.required_degrees[d, k]:.0f}, '
      f'coefficients fall like {self._fall(d, k)})'
      for d in order if self.slow[d, k]
    ]
    if not parts:
      return ''
    return (
      f'sharp response along {", ".join(parts)}: a polynomial that misses '
      f'{100 * self.tolerance:g} % of the variance needs about that degree, '
      f'{AFFORDABLE_DEGREE} is affordable'
    )

  def _fall(self, d, k) -> str:
    law, rate = self.laws[d][k], self.rate(d, k)
    if law == decay_laws.ALGEBRAIC:
      return f'n^-{rate:.2g}'
    return f'{rate:.4g}^-n' if law == decay_laws.GEOMETRIC else ''


def of_expansion(
  expansion: expansions.Expansion,
  *,
  tolerance: float = TOLERANCE,
  main_effects: bool = False,
) -> Decay:
  """Returns the decay of an expansion.

  Args:
    expansion: of K outputs.
    tolerance: share of the variance that may be neglected, in (0, 1).
    main_effects: energies of the terms that hold the factor alone instead of
      all terms that hold it.

  Raises:
    ValueError: another tolerance.
  """
  basis = expansion.basis
  coefficients = np.asarray(expansion.coefficients, np.float64)
  squares = coefficients[1:] ** 2
  indices = basis.multi_indices[1:]
  energies = []
  for d, degree in enumerate(basis.degrees):
    chosen = indices[:, d] > 0
    if main_effects:
      chosen &= np.count_nonzero(indices, axis=1) == 1
    energy = np.zeros((degree + 1, squares.shape[1]))
    np.add.at(energy, indices[chosen, d], squares[chosen])
    energies.append(energy)
  return _decay(
    basis.space, energies, None, coefficients[0], squares.sum(axis=0),
    tolerance,
  )


def of_surrogate(
  surrogate: Callable[[np.ndarray], np.ndarray],
  space: factors.FactorSpace,
  base: ArrayLike,
  *,
  num_nodes: Sequence[int] = (16, 64),
  tolerance: float = TOLERANCE,
  main_effects: bool = False,
) -> Decay:
  """Returns the decay of any function of the factors.

  Through each base point runs one line along each factor, with a Gauss rule
  on it. Degrees up to half of the rule are read off; what is above counts as
  one remainder. A factor that the first rule does not resolve, because its
  required degree is above what was read off, gets the next one. All lines of
  a rule are asked for in one call.

  Args:
    surrogate: germ (N, D) -> outputs (N, K).
    space: the D factors.
    base: (M, D) germ coordinates of an equally weighted sample of the factors,
      for instance the first points of a Sobol sequence.
    num_nodes: increasing numbers of Gauss nodes; fewer are used where a factor
      has fewer atoms or its measure does not carry so many.
    tolerance: share of the variance that may be neglected, in (0, 1).
    main_effects: energies of the mean over the lines instead of the mean of
      the energies. That mean is one over M points: part of the interactions
      stays in, about 1 / M of their energy.

  Raises:
    ValueError: another tolerance, base points, rules or outputs of another
      shape, or outputs that are not finite.
  """
  base = np.asarray(base, np.float64)
  if base.ndim != 2 or base.shape[1] != space.dim or not len(base):
    raise ValueError(f'base: expected (M, {space.dim}), got {base.shape}')
  sizes = tuple(num_nodes)
  if not sizes or sizes[0] < 2 or np.any(np.diff(sizes) <= 0):
    raise ValueError(
      f'num_nodes: expected increasing numbers from 2 on, got {sizes}'
    )
  rules = [None] * space.dim
  read = [None] * space.dim
  coarse, found = range(space.dim), None
  for size in sizes:
    for d in coarse:
      rules[d] = _rule(space.factors[d], size)
    lines = [_lines(base, d, rules[d].nodes) for d in coarse]
    outputs = _outputs(surrogate, np.concatenate(lines))
    ends = np.cumsum([len(line) for line in lines])[:-1]
    for d, values in zip(coarse, np.split(outputs, ends), strict=True):
      values = values.reshape(len(base), len(rules[d].nodes), -1)
      read[d] = _spectrum(rules[d], values, main_effects)
    energies, remainders, means, variances = zip(*read, strict=True)
    found = _decay(
      space, energies, np.array(remainders), np.mean(means, axis=0),
      np.mean(variances, axis=0), tolerance,
    )
    coarse = [
      d for d in range(space.dim)
      if np.any(found.required_degrees[d] > rules[d].highest)
    ]
    if not coarse:
      break
  return found


@dataclasses.dataclass(frozen=True, eq=False)
class _Rule:
  """Gauss rule of N nodes, psi (N, N), and the highest degree to read off."""

  nodes: np.ndarray
  weights: np.ndarray
  psi: np.ndarray
  highest: int


def _outputs(surrogate, points) -> np.ndarray:
  """Outputs (N, K) after a check."""
  outputs = np.asarray(surrogate(points), np.float64)
  if outputs.ndim != 2 or len(outputs) != len(points) or not outputs.size:
    raise ValueError(
      f'surrogate: expected ({len(points)}, K), got {outputs.shape}'
    )
  if not np.all(np.isfinite(outputs)):
    raise ValueError('surrogate: some outputs are not finite')
  return outputs


def _spectrum(rule, values, main_effects):
  """Energies (L + 1, K), remainder, mean and variance (K,) of lines (M, N, K).
  """
  mean = np.einsum('n,mnk->k', rule.weights, values) / len(values)
  spread = values - mean
  variance = np.einsum('n,mnk->k', rule.weights, spread**2) / len(values)
  if main_effects:
    spread = spread.mean(axis=0, keepdims=True)
  # (M, K, N) times (N, degrees).
  along = np.moveaxis(spread, 1, -1) @ (rule.weights[:, None] * rule.psi)
  energy = np.mean(along**2, axis=0).T
  energy[0] = 0.0
  above = energy[rule.highest + 1 :].sum(axis=0)
  return energy[: rule.highest + 1], above, mean, variance


def _decay(space, energies, remainders, mean, variance, tolerance) -> Decay:
  """Fits both laws to the energies of every factor and output."""
  if not 0 < tolerance < 1:
    raise ValueError(f'tolerance: expected in (0, 1), got {tolerance}')
  varies = variance > decay_laws.ROUNDING * (variance + mean**2)
  scale = np.where(varies, variance, np.nan)
  energies = [energy / scale for energy in energies]
  shape = len(energies), len(variance)
  rates, required = np.full((2, *shape), np.nan), np.full(shape, np.nan)
  kept, laws = np.zeros(shape), []
  for d, energy in enumerate(energies):
    words = []
    for k in range(shape[1]):
      above = None if remainders is None else remainders[d, k] / scale[k]
      if not varies[k]:
        words.append(decay_laws.CONSTANT)
        kept[d, k] = np.nan
        continue
      # All degrees of a measure of few atoms: nothing is above.
      atoms = space.factors[d].atoms
      if atoms is not None and len(energy) >= atoms.num_atoms:
        above = 0.0
      fit = decay_laws.fit(energy[1:, k], above, tolerance)
      rates[:, d, k] = fit.rho, fit.p
      kept[d, k], required[d, k] = fit.remainder, fit.required_degree
      words.append(fit.law)
    laws.append(tuple(words))
  return Decay(
    names=space.names, tolerance=tolerance, energies=tuple(energies),
    remainders=kept, geometric_rates=rates[0], algebraic_rates=rates[1],
    laws=tuple(laws), required_degrees=required,
  )


@functools.lru_cache(maxsize=256)
def _rule(factor: factors.Factor, num_nodes: int) -> _Rule:
  """The rule of a line, with fewer nodes where there are no so many."""
  atoms = None if factor.atoms is None else factor.atoms.num_atoms
  size = num_nodes if atoms is None else min(num_nodes, atoms)
  while True:
    try:
      table = polynomials.recurrence(factor.germ, size - 1)
      nodes, weights = polynomials.gauss_rule(table, size)
      break
    except ValueError:
      # Heavy tails and many atoms do not carry so many in float64.
      size -= 1
      if not size:
        raise
  psi = polynomials.evaluate(table, nodes, size - 1)
  complete = atoms is not None and size == atoms
  return _Rule(
    nodes, weights, psi, size - 1 if complete else int(_USABLE * size)
  )


def _lines(base: np.ndarray, d: int, nodes: np.ndarray) -> np.ndarray:
  """Points (M N, D) of the lines along factor d."""
  points = np.repeat(base, len(nodes), axis=0)
  points[:, d] = np.tile(nodes, len(base))
  return points
