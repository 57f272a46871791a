"""Orthonormal polynomials in one germ variable, by three-term recurrence.

With the monic coefficients alpha and beta of a probability measure (beta[0]
is its mass, 1) the orthonormal polynomials are

    sqrt(beta[k+1]) psi[k+1](x) = (x - alpha[k]) psi[k](x)
                                  - sqrt(beta[k]) psi[k-1](x),
    E[psi[i] psi[j]] = δ_ij,    psi[0] = 1.

Hermite polynomials are the probabilists'. Coefficients and rules are float64
on the host. `evaluate` and `evaluate_derivative` follow the type of their
input: NumPy in float64 for host arrays, JAX in the dtype of the input for JAX
arrays, where they can be traced.

References:
  Gautschi, Orthogonal Polynomials: Computation and Approximation, 2004,
  sections 1.3 (recurrence), 1.4.2 (Christoffel), 2.2 (discretisation) and
  3.1 (Gauss rules).
"""

import dataclasses
from types import ModuleType

import chaospy
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np
from scipy import linalg

from jaxsens import marginals

# Discretisation of measures without a closed form: Gauss-Legendre points per
# panel, first number of panels, degrees that one panel serves, and how far
# panels may be halved.
_PANEL_NODES = 24
_NUM_PANELS = 16
_DEGREES_PER_PANEL = 4
_MAX_HALVINGS = 45
# Largest deviation from orthonormality on the atoms of a discrete measure.
_MAX_DEVIATION = 1e-9
# A wider support than this, in units of the middle half of the mass, means a
# tail so heavy that its moments need not exist.
_MAX_TAIL = 1e5


@dataclasses.dataclass(frozen=True, eq=False)
class Recurrence:
  """Three-term coefficients of the monic polynomials of a measure.

  Constants of a basis, on the host: traced functions close over them.

  Attributes:
    alpha: (degree + 1,) float64.
    beta: (degree + 1,) float64, positive, beta[0] = 1.
  """

  alpha: np.ndarray
  beta: np.ndarray


def array_namespace(*arrays: ArrayLike) -> ModuleType:
  """`jax.numpy` when one of the arrays is a JAX array, else `numpy`."""
  traced = any(isinstance(array, jax.Array) for array in arrays)
  return jnp if traced else np


def recurrence(
  distribution: chaospy.Distribution | marginals.Discrete, degree: int
) -> Recurrence:
  """Coefficients of the polynomials that a distribution makes orthogonal.

  Uses the closed form where chaospy has it (Legendre, Jacobi, Hermite,
  Laguerre and Stieltjes-Wigert) and otherwise the Lanczos process on a fine
  composite Gauss-Legendre rule that is refined where the density bends. A
  distribution with unbounded support and no closed form is cut where chaospy
  cuts it, at probabilities of about 1e-14. A discrete measure is its own rule.

  Args:
    distribution: one-dimensional continuous chaospy distribution, or a
      discrete measure.
    degree: highest degree that the coefficients serve.

  Returns:
    The coefficients for degrees 0 to `degree`.

  Raises:
    ValueError: negative degree, or a measure that has no orthonormal
      polynomials of this degree, or none that float64 can evaluate.
  """
  if degree < 0:
    raise ValueError(f'degree: expected at least 0, got {degree}')
  if isinstance(distribution, marginals.Discrete):
    return _of_atoms(distribution, degree)
  try:
    alpha, beta = np.array(distribution.ttr(np.arange(degree + 1)))
    # chaospy 4.3.21 returns the mid-point for Beta(a, b) with a + b = 2.
    alpha[0] = distribution.mom(1)
  except chaospy.UnsupportedFeature:
    alpha, beta = _lanczos(*_discretise(distribution, degree), degree)
  beta[0] = 1.0
  if not (np.all(np.isfinite(alpha)) and np.all(np.isfinite(beta))) or np.any(
    beta <= 0
  ):
    raise ValueError(
      f'{distribution} has no orthonormal polynomials up to degree {degree}: '
      'moments of that order do not exist or overflow'
    )
  return Recurrence(alpha, beta)


def evaluate(
  coefficients: Recurrence, x: ArrayLike, degree: int
) -> np.ndarray | jax.Array:
  """Values of the orthonormal polynomials.

  Args:
    coefficients: three-term coefficients of at least this degree.
    x: (...) germ coordinates, any shape.
    degree: highest degree.

  Returns:
    (..., degree + 1) values psi[k](x) in the last axis.

  Raises:
    ValueError: a degree above the one of the coefficients.
  """
  alpha, root = _python_floats(coefficients, degree)
  xp, x = _as_floats(x)
  values = [xp.ones_like(x)]
  before = xp.zeros_like(x)
  for k in range(degree):
    after = ((x - alpha[k]) * values[-1] - root[k] * before) / root[k + 1]
    before = values[-1]
    values.append(after)
  # Stacked in front: each degree is one contiguous block of memory.
  return xp.moveaxis(xp.stack(values), 0, -1)


def evaluate_derivative(
  coefficients: Recurrence, x: ArrayLike, degree: int
) -> np.ndarray | jax.Array:
  """First derivatives of the orthonormal polynomials.

      sqrt(beta[k+1]) psi'[k+1] = psi[k] + (x - alpha[k]) psi'[k]
                                  - sqrt(beta[k]) psi'[k-1]

  Args:
    coefficients: three-term coefficients of at least this degree.
    x: (...) germ coordinates, any shape.
    degree: highest degree.

  Returns:
    (..., degree + 1) values of d psi[k] / dx in the last axis.

  Raises:
    ValueError: a degree above the one of the coefficients.
  """
  alpha, root = _python_floats(coefficients, degree)
  psi = evaluate(coefficients, x, degree)
  xp, x = _as_floats(x)
  slopes = [xp.zeros_like(x)]
  before = xp.zeros_like(x)
  for k in range(degree):
    after = psi[..., k] + (x - alpha[k]) * slopes[-1] - root[k] * before
    before = slopes[-1]
    slopes.append(after / root[k + 1])
  return xp.moveaxis(xp.stack(slopes), 0, -1)


def gauss_rule(
  coefficients: Recurrence, num_nodes: int
) -> tuple[np.ndarray, np.ndarray]:
  """Gauss rule of a measure, exact for polynomials up to 2 num_nodes - 1.

  Nodes are the eigenvalues of the Jacobi matrix (Golub and Welsch 1969), two
  Newton steps sharper; weights come from the Christoffel function,

      weights[n] = 1 / Σ_{k < num_nodes} psi[k](nodes[n])²,

  a sum of positive terms, which keeps the tiny ones relatively exact.

  Args:
    coefficients: three-term coefficients of degree >= num_nodes - 1.
    num_nodes: number of nodes, at least 1.

  Returns:
    nodes (num_nodes,) increasing and weights (num_nodes,), which sum to one.

  Raises:
    ValueError: fewer than one node, too few coefficients, or so many nodes
      that the polynomials overflow at the outermost ones.
  """
  if num_nodes < 1:
    raise ValueError(f'num_nodes: expected at least 1, got {num_nodes}')
  alpha, root = _python_floats(coefficients, num_nodes - 1)
  nodes = linalg.eigh_tridiagonal(
    np.array(alpha), np.array(root[1:]), eigvals_only=True
  )
  with np.errstate(over='ignore', invalid='ignore'):
    for _ in range(2):
      nodes = nodes - _newton_step(coefficients, nodes, num_nodes)
    psi = evaluate(coefficients, nodes, num_nodes - 1)
    weights = 1 / np.sum(psi**2, axis=-1)
  if not np.all(np.isfinite(nodes)) or not np.all(weights > 0):
    raise ValueError(
      f'num_nodes: {num_nodes} nodes put weights of this measure below the '
      'smallest float64; use fewer'
    )
  return nodes, weights


def _newton_step(
  coefficients: Recurrence, nodes: np.ndarray, num_nodes: int
) -> np.ndarray:
  """Newton correction p(x) / p'(x) of the zeros of p = psi[num_nodes]."""
  last = num_nodes - 1
  psi = evaluate(coefficients, nodes, last)
  slopes = evaluate_derivative(coefficients, nodes, last)
  # sqrt(beta[num_nodes]) cancels in the ratio and need not be known.
  gap = nodes - coefficients.alpha[last]
  value, slope = gap * psi[:, last], psi[:, last] + gap * slopes[:, last]
  if last > 0:
    root = np.sqrt(coefficients.beta[last])
    value = value - root * psi[:, last - 1]
    slope = slope - root * slopes[:, last - 1]
  return value / slope


def _python_floats(
  coefficients: Recurrence, degree: int
) -> tuple[list[float], list[float]]:
  """Lists alpha and sqrt(beta) to `degree` as floats, which adopt any dtype."""
  if not 0 <= degree < len(coefficients.alpha):
    raise ValueError(
      f'degree: expected 0 to {len(coefficients.alpha) - 1}, which the '
      f'coefficients serve, got {degree}'
    )
  alpha = np.asarray(coefficients.alpha)[: degree + 1]
  root = np.sqrt(np.asarray(coefficients.beta)[: degree + 1])
  return alpha.tolist(), root.tolist()


def _as_floats(x: ArrayLike) -> tuple[ModuleType, np.ndarray | jax.Array]:
  """Namespace and floating-point form of an input."""
  if array_namespace(x) is np:
    return np, np.asarray(x, np.float64)
  if jnp.issubdtype(x.dtype, jnp.floating):
    return jnp, x
  return jnp, x.astype(jnp.result_type(float))


def _of_atoms(distribution: marginals.Discrete, degree: int) -> Recurrence:
  """Coefficients of a discrete measure, exact to rounding."""
  num_atoms = distribution.num_atoms
  who = f'factor {distribution.name!r}' if distribution.name else 'the measure'
  if degree >= num_atoms:
    raise ValueError(
      f'degree {degree}: {who} has {num_atoms} atoms and therefore polynomials '
      f'up to degree {num_atoms - 1}'
    )
  values, mass = distribution.values, distribution.probabilities
  coefficients = Recurrence(*_lanczos(values, mass, degree))
  with np.errstate(all='ignore'):
    psi = evaluate(coefficients, values, degree)
    # Three terms lose digits between the atoms' ends towards the last degree.
    gaps = np.abs((psi.T * mass) @ psi - np.eye(degree + 1))
  good = np.all(np.tril(gaps) < _MAX_DEVIATION, axis=1)
  if not np.all(good):
    raise ValueError(
      f'degree {degree}: {who} has {num_atoms} atoms, but float64 keeps its '
      f'polynomials orthonormal up to degree {np.argmin(good) - 1} only'
    )
  return coefficients


def _discretise(
  distribution: chaospy.Distribution, degree: int
) -> tuple[np.ndarray, np.ndarray]:
  """Nodes and weights of a composite rule for the measure.

  Panels are halved until the integrals of the density against the first four
  powers of the panel coordinate agree with those of the two halves. They are
  narrow at the ends, where polynomials of high degree turn fastest.
  """
  lower = float(np.ravel(distribution.lower)[0])
  upper = float(np.ravel(distribution.upper)[0])
  middle = np.ptp(distribution.inv(np.array([0.25, 0.75])))
  if not upper - lower < _MAX_TAIL * middle:
    raise ValueError(
      f'{distribution} has tails too heavy for polynomials: its support is '
      f'{(upper - lower) / middle:.1e} times the span of its middle half'
    )
  num_panels = max(_NUM_PANELS, degree // _DEGREES_PER_PANEL)
  place = (1 - np.cos(np.linspace(0, np.pi, num_panels + 1))) / 2
  edges = lower + (upper - lower) * place
  panels = np.stack([edges[:-1], edges[1:]], axis=1)
  nodes_done, mass_done = [], []
  for halving in range(_MAX_HALVINGS + 1):
    nodes, mass = _panel_masses(distribution, panels)
    middles = panels.mean(axis=1)
    halves = np.stack([panels[:, 0], middles, middles, panels[:, 1]], axis=1)
    good = _agree(mass, _panel_masses(distribution, halves.reshape(-1, 2))[1])
    good |= halving == _MAX_HALVINGS
    nodes_done.append(nodes[good].ravel())
    mass_done.append(mass[good].ravel())
    panels = halves[~good].reshape(-1, 2)
    if len(panels) == 0:
      break
  nodes, mass = np.concatenate(nodes_done), np.concatenate(mass_done)
  if not abs(np.sum(mass) - 1) < 1e-6:
    raise ValueError(
      f'the density of {distribution} integrates to {np.sum(mass)}, not to 1'
    )
  return nodes[mass > 0], mass[mass > 0] / np.sum(mass)


def _agree(mass: np.ndarray, mass_of_halves: np.ndarray) -> np.ndarray:
  """Which panels (B,) integrate like their two halves (2B, M)."""
  x, _ = np.polynomial.legendre.leggauss(_PANEL_NODES)
  x_of_halves = np.concatenate([(x - 1) / 2, (x + 1) / 2])
  whole = mass @ np.vander(x, 4)
  apart = mass_of_halves.reshape(len(mass), -1) @ np.vander(x_of_halves, 4)
  return np.max(np.abs(whole - apart), axis=1) < 1e-16


def _panel_masses(
  distribution: chaospy.Distribution, panels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Nodes (B, M) and density times weights (B, M) of panels (B, 2)."""
  x, weights = np.polynomial.legendre.leggauss(_PANEL_NODES)
  half = (panels[:, 1] - panels[:, 0])[:, None] / 2
  nodes = panels[:, :1] + half * (x + 1)
  with np.errstate(all='ignore'):
    density = np.reshape(distribution.pdf(nodes.ravel()), nodes.shape)
  # Panels next to an integrable pole shrink until a node rounds onto it.
  density = np.where(np.isfinite(density), density, 0.0)
  return nodes, density * half * weights


def _lanczos(
  nodes: np.ndarray, weights: np.ndarray, degree: int
) -> tuple[np.ndarray, np.ndarray]:
  """Coefficients of a discrete measure, with full reorthogonalisation."""
  basis = np.zeros((degree + 1, len(nodes)))
  alpha, beta = np.zeros(degree + 1), np.ones(degree + 1)
  basis[0] = np.sqrt(weights)
  for k in range(degree + 1):
    vector = nodes * basis[k]
    alpha[k] = basis[k] @ vector
    for _ in range(2):
      vector = vector - (basis[: k + 1] @ vector) @ basis[: k + 1]
    if k < degree:
      norm = np.linalg.norm(vector)
      basis[k + 1] = vector / norm
      beta[k + 1] = norm**2
  return alpha, beta
