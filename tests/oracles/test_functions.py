"""Benchmark functions of the field with their Sobol indices.

Each is a `TestFunction`: a function of physical values, the space of its
factors, and its first-order and total indices, to more digits than any
expansion in the tests reaches.
"""

from collections.abc import Callable
import dataclasses

import chaospy
import numpy as np

from jaxsens import factors

# The coefficients of Sobol-g in the comparisons of eight factors.
G_COEFFICIENTS = (0.0, 1.0, 4.5, 9.0, 99.0, 99.0, 99.0, 99.0)


@dataclasses.dataclass(frozen=True)
class TestFunction:
  """A function with known indices.

  Attributes:
    name: its name.
    space: its D factors.
    of_values: maps values (N, D) to outputs (N, 1).
    first_order: (D,) first-order indices.
    total: (D,) total indices.
    mean: mean of the output.
    variance: variance of the output.
  """

  __test__ = False  # No test class, whatever its name says.

  name: str
  space: factors.FactorSpace
  of_values: Callable[[np.ndarray], np.ndarray]
  first_order: np.ndarray
  total: np.ndarray
  mean: float
  variance: float

  def __call__(self, germ):
    """Outputs (N, 1) at germ coordinates (N, D)."""
    return self.of_values(self.space.to_values(germ))

  def largest_error(self, first_order, total):
    """Largest absolute error over all first-order and total indices."""
    errors = [
      np.ravel(first_order) - self.first_order, np.ravel(total) - self.total
    ]
    return float(np.max(np.abs(errors)))


def space_of(**distributions):
  """Factor space of named chaospy distributions."""
  return factors.FactorSpace(
    tuple(factors.Factor(n, dist) for n, dist in distributions.items())
  )


def ishigami(a: float = 7.0, b: float = 0.1) -> TestFunction:
  """Ishigami: sin x1 + a sin² x2 + b x3⁴ sin x1, x uniform on [-π, π].

  Ishigami and Homma 1990. The variances are closed forms, for instance in
  Saltelli, Chan, Scott, Sensitivity Analysis, 2000, section 2.9.
  """

  def of_values(values):
    first, second, third = values.T
    y = np.sin(first) + a * np.sin(second) ** 2
    return (y + b * third**4 * np.sin(first))[:, None]

  first = (1 + b * np.pi**4 / 5) ** 2 / 2
  second = a**2 / 8
  both = b**2 * np.pi**8 * (1 / 18 - 1 / 50)
  variance = first + second + both
  return TestFunction(
    'ishigami',
    space_of(**{n: chaospy.Uniform(-np.pi, np.pi) for n in ('x1', 'x2', 'x3')}),
    of_values,
    np.array([first, second, 0]) / variance,
    np.array([first + both, second, both]) / variance,
    a / 2,
    variance,
  )


def sobol_g(coefficients: tuple[float, ...] = G_COEFFICIENTS) -> TestFunction:
  """Sobol-g: Π_d (|4 x_d - 2| + a_d) / (1 + a_d), x uniform on [0, 1].

  Saltelli and Sobol' 1995: V_u = Π_{d in u} V_d, V_d = 1 / (3 (1 + a_d)²), so
  that V + 1 = Π_d (1 + V_d) and total[d] V = V_d Π_{e != d} (1 + V_e).
  """
  a = np.array(coefficients)

  def of_values(values):
    return np.prod((np.abs(4 * values - 2) + a) / (1 + a), axis=1)[:, None]

  single = 1 / (3 * (1 + a) ** 2)
  variance = np.prod(1 + single) - 1
  return TestFunction(
    'sobol_g',
    space_of(**{f'x{d}': chaospy.Uniform(0, 1) for d in range(1, len(a) + 1)}),
    of_values,
    single / variance,
    single / (1 + single) * (1 + variance) / variance,
    1.0,
    float(variance),
  )


def borehole() -> TestFunction:
  """Flow of water through a borehole, in m³ per year.

      y = 2π Tu (Hu - Hl) / (ln(r / rw) (1 + Tu / Tl) + 2 L Tu / (rw² Kw))

  Harper and Gupta 1983; the distributions are those of Morris, Mitchell,
  Ylvisaker 1993. The indices come from `borehole_by_quadrature`.
  """
  return TestFunction(
    'borehole',
    space_of(
      rw=chaospy.Normal(0.10, 0.0161812),
      r=chaospy.LogNormal(7.71, 1.0056),
      Tu=chaospy.Uniform(63070, 115600),
      Hu=chaospy.Uniform(990, 1110),
      Tl=chaospy.Uniform(63.1, 116),
      Hl=chaospy.Uniform(700, 820),
      L=chaospy.Uniform(1120, 1680),
      Kw=chaospy.Uniform(9855, 12045),
    ),
    _borehole,
    np.array(_BOREHOLE_FIRST_ORDER),
    np.array(_BOREHOLE_TOTAL),
    _BOREHOLE_MEAN,
    _BOREHOLE_VARIANCE,
  )


def _borehole(values):
  rw, r, tu, hu, tl, hl, length, kw = values.T
  resistance = np.log(r / rw) * (1 + tu / tl)
  resistance = resistance + 2 * length * tu / (rw**2 * kw)
  return (2 * np.pi * tu * (hu - hl) / resistance)[:, None]


def borehole_by_quadrature(num_nodes=(12, 8, 3, 5, 6, 5)):
  """Indices of the borehole function by tensor Gauss quadrature.

  y = h g with h = Hu - Hl independent of g(rw, r, Tu, Tl, L, Kw), so that six
  dimensions are left and

      V_d = E[h]² Var(E[g | d]),  total_d V = E[h²] E[Var(g | all but d)]
      V_Hu = Var(Hu) E[g]²,       total_Hu V = Var(Hu) E[g²]

  The germ of rw stays within 6 standard deviations (rw > 0) for up to 13
  nodes.

  Args:
    num_nodes: number of nodes of rw, r, Tu, Tl, L, Kw.

  Returns:
    first_order (8,), total (8,), mean, variance.
  """
  hermite = np.polynomial.hermite_e.hermegauss
  legendre = np.polynomial.legendre.leggauss
  rules = [hermite(n) for n in num_nodes[:2]]
  rules += [legendre(n) for n in num_nodes[2:]]
  weights = [w / w.sum() for _, w in rules]
  x = [x for x, _ in rules]
  axes = [0.10 + 0.0161812 * x[0], np.exp(7.71 + 1.0056 * x[1])]
  limits = ((63070, 115600), (63.1, 116), (1120, 1680), (9855, 12045))
  axes += [
    (low + high) / 2 + (high - low) / 2 * x_d
    for (low, high), x_d in zip(limits, x[2:], strict=True)
  ]
  rw, r, tu, tl, length, kw = np.meshgrid(*axes, indexing='ij')
  one = np.ones_like(rw)
  values = [rw, r, tu, one, tl, 0 * one, length, kw]
  values = np.stack([v.ravel() for v in values], axis=1)
  g = _borehole(values).reshape(rw.shape)

  def mean_over(array, axes):
    for d in sorted(axes, reverse=True):
      array = np.tensordot(array, weights[d], axes=([d], [0]))
    return array

  everything = set(range(6))
  mean, square = mean_over(g, everything), mean_over(g**2, everything)
  head, variance_h = 1050.0 - 760.0, 120.0**2 / 12
  head_square = head**2 + 2 * variance_h
  variance = head_square * square - (head * mean) ** 2
  first, total = np.zeros(8), np.zeros(8)
  for d, position in enumerate((0, 1, 2, 4, 6, 7)):
    alone = mean_over(g, everything - {d})
    first[position] = head**2 * (weights[d] @ alone**2 - mean**2)
    closed = mean_over(g, {d}) ** 2
    for e in sorted(everything - {d}, reverse=True):
      closed = closed @ weights[e]
    total[position] = head_square * (square - closed)
  first[[3, 5]] = variance_h * mean**2
  total[[3, 5]] = variance_h * square
  return first / variance, total / variance, head * mean, variance


# borehole_by_quadrature((12, 14, 5, 8, 9, 8)); it agrees with (9, 12, 5, 8, 9,
# 8) and (13, 12, 4, 10, 8, 7) to 1e-11.
_BOREHOLE_FIRST_ORDER = (
  0.663706569801, 1.827355e-06, 5.5e-12, 0.094879624079,
  5.560216e-06, 0.094879624079, 0.090648654263, 0.021937577408,
)  # fmt: skip
_BOREHOLE_TOTAL = (
  0.694129001167, 2.892832e-06, 8.5e-12, 0.106119958209,
  8.501390e-06, 0.106119958209, 0.102788230782, 0.025128822291,
)  # fmt: skip
_BOREHOLE_MEAN = 73.7389364703
_BOREHOLE_VARIANCE = 817.722662432
