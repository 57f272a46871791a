"""Estimators of Sobol indices from the runs of a pick-freeze sample.

With outputs centred by their mean over all rows, means over base points, and
V the variance of the rows a and b together:

    saltelli   first_order[d] = mean(b (ab_d - a)) / V
    janon      first_order[d] = mean(b ab_d) / mean((b² + ab_d²) / 2)
    jansen     total[d] = mean((a - ab_d)²) / (2 V)
    janon      total[d] = 1 - mean(a ab_d) / mean((a² + ab_d²) / 2)
    second_order[d, e] = mean(ba_d ab_e - a b) / V - S_d - S_e

where janon centres each pair by its own mean. Every one is a sum of ratios of
means over base points (`ratio_estimators`) of quadratic forms of centred
outputs, whose derivative by the centre vanishes.

References:
  Saltelli et al., Variance based sensitivity analysis of model output, 2010,
  table 2, (b) first order and (f) total, which is due to Jansen 1999.
  Janon, Klein, Lagnoux, Nodet, Prieur, Asymptotic normality and efficiency of
  two Sobol index estimators, 2014 (there T_N).
  Saltelli, Making best use of model evaluations, 2002 (second order).
"""

from collections.abc import Callable
import dataclasses

import numpy as np

from jaxsens.gpc import ratio_estimators


@dataclasses.dataclass(frozen=True, eq=False)
class Runs:
  """Centred outputs of M base points by block.

  Attributes:
    a: (M, K) at one base point.
    ab: (M, D, K) at a with factor d from b.
    ba: (M, D, K) at b with factor d from a; (M, 0, K) without second order.
    b: (M, K) at the other base point.
  """

  a: np.ndarray
  ab: np.ndarray
  ba: np.ndarray
  b: np.ndarray

  @classmethod
  def split(cls, outputs: np.ndarray, num_base: int, dim: int) -> 'Runs':
    """Outputs (N, K), with the rows of one base point after each other."""
    rows = outputs.reshape(num_base, -1, outputs.shape[1])
    return cls(
      rows[:, 0], rows[:, 1 : dim + 1], rows[:, dim + 1 : -1], rows[:, -1]
    )

  def pooled(self) -> np.ndarray:
    """(M, K) squares about the common mean of a and b; their mean is V."""
    centre = np.mean((self.a + self.b) / 2, axis=0)
    return ((self.a - centre) ** 2 + (self.b - centre) ** 2) / 2


# From runs and the position of a factor to the terms of its index.
Estimator = Callable[[Runs, int], ratio_estimators.Ratios]


def _saltelli(runs: Runs, d: int) -> ratio_estimators.Ratios:
  return [(1.0, runs.b * (runs.ab[:, d] - runs.a), runs.pooled())]


def _jansen(runs: Runs, d: int) -> ratio_estimators.Ratios:
  return [(1.0, (runs.a - runs.ab[:, d]) ** 2 / 2, runs.pooled())]


def _correlation(one: np.ndarray, other: np.ndarray):
  """Terms h and w of the estimator of Janon et al. for runs of equal law."""
  centre = np.mean((one + other) / 2, axis=0)
  one, other = one - centre, other - centre
  return one * other, (one**2 + other**2) / 2


def _janon(runs: Runs, d: int) -> ratio_estimators.Ratios:
  return [(1.0, *_correlation(runs.b, runs.ab[:, d]))]


def _janon_total(runs: Runs, d: int) -> ratio_estimators.Ratios:
  h, w = _correlation(runs.a, runs.ab[:, d])
  return [(1.0, w - h, w)]


FIRST_ORDER: dict[str, Estimator] = {'saltelli': _saltelli, 'janon': _janon}
TOTAL: dict[str, Estimator] = {'jansen': _jansen, 'janon': _janon_total}


def second_order(
  runs: Runs, d: int, e: int, single: Estimator
) -> ratio_estimators.Ratios:
  """Terms of the index of a pair of factors, from that of single ones.

  Args:
    runs: with second order.
    d: position of one factor.
    e: position of the other.
    single: estimator of the first-order indices that are taken off.
  """
  joint = runs.ba[:, d] * runs.ab[:, e] - runs.a * runs.b
  alone = single(runs, d) + single(runs, e)
  return [(1.0, joint, runs.pooled())] + [(-s, h, w) for s, h, w in alone]
