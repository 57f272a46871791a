"""Kriging: Gaussian process regression with a prior learned from all outputs.

For responses too rough for polynomials of any affordable degree. Each output
is taken as one draw of a Gaussian process of zero mean and covariance

    s² k(x, y) + m,
    k(x, y) = a(x) a(y) Σ_j share_j Π_d (1 + r_jd) exp(-r_jd)
              + constant + nugget δ(x, y),
    r_jd = sqrt(3) |x_d - y_d| / length_jd,
    a(x) = exp(Σ_d slope_d x_d + curvature_d x_d²)

with x the germ, shifted and scaled so that a uniform factor covers [-1, 1].
Two products of Matern 3/2 kernels, a wide and a narrow one, have their own
length for every factor, which is the anisotropy; the amplitude a lets an
image that goes dark stop to answer; the mean is profiled out. All outputs
share k and thereby one factorisation, and k is learned by maximum likelihood
from all of them together; only s differs.

The mean of the posterior is smoother than the function: indices of the mean
miss the variance that the nodes have not resolved, first of all in the
interactions. Indices are therefore means over draws of the posterior, and
their spread says how far they can be wrong.

All host NumPy, float64.

References:
  Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006,
  eqs. 2.25, 5.8, 5.9 (likelihood and gradient), 5.12 (leave-one-out).
  Wilson et al., Efficiently sampling functions from Gaussian process
  posteriors, 2020, eq. 11 (pathwise draws).
  Schoebi, Sudret, Wiart, Polynomial-chaos-based kriging, 2015.
"""

import dataclasses
import functools

import jax
import numpy as np
from scipy import linalg
from scipy import optimize

from jaxsens import factors
from jaxsens.gpc import designs
from jaxsens.gpc import polynomials

# Nodes from which the prior is learned at most: the cost grows with the cube.
# A part of a nested design is too thin to tell a wave from noise.
_MAX_LEARNED = 1024
# Nodes up to which a known prior is not the only start of the search.
_FEW = 256
# Weak normal prior of the logarithms of the parameters, for few nodes.
_PENALTY = 2e-3
_MIN_NUGGET = 1e-8
_NUM_FEATURES = 1024
_ROWS = 4096


@dataclasses.dataclass(frozen=True, eq=False)
class Prior:
  """Parameters of the covariance, see the module.

  Attributes:
    center: (D,), scale: (D,): x = (germ - center) / scale.
    lengths: (2, D) of the wide and of the narrow kernel.
    share: variance of the narrow kernel relative to the wide one.
    amplitude: (2, D) slope and curvature of log a.
    constant: variance of the mean over all x.
    nugget: variance that no node tells about another.
    log_likelihood: mean over outputs and nodes of what was maximised.
  """

  center: np.ndarray
  scale: np.ndarray
  lengths: np.ndarray
  share: float
  amplitude: np.ndarray
  constant: float
  nugget: float
  log_likelihood: float = -np.inf

  @property
  def shortest_lengths(self) -> np.ndarray:
    """(D,) lengths of the narrow kernel where it matters, else of the wide."""
    narrow = self.share > 0.01
    return self.lengths[1] if narrow else self.lengths[0]

  def standardise(self, germ: np.ndarray) -> np.ndarray:
    """Coordinates x (N, D) of germ points (N, D)."""
    return (np.asarray(germ, np.float64) - self.center) / self.scale

  def envelope(self, x: np.ndarray) -> np.ndarray:
    """Amplitude a (N,) at x (N, D)."""
    slope, curvature = self.amplitude
    return np.exp(np.clip(x @ slope + x**2 @ curvature, -30.0, 30.0))


@dataclasses.dataclass(frozen=True, eq=False)
class Posterior:
  """What N nodes say about K outputs.

  Attributes:
    prior: the prior.
    nodes: (N, D) germ coordinates.
    mean_outputs: (K,) profiled means m.
    factor: (N, N) lower Cholesky factor of k at the nodes.
    solved: (N, K) k^-1 (outputs - m).
    loo_residuals: (N, K) outputs minus their leave-one-out prediction, with
      the prior of all nodes and m profiled anew without the node.
    loo_variance: (N,) variance of these in units of s², that of m included.
  """

  prior: Prior
  nodes: np.ndarray
  mean_outputs: np.ndarray
  factor: np.ndarray
  solved: np.ndarray
  loo_residuals: np.ndarray
  loo_variance: np.ndarray

  def __call__(
    self, germ: np.ndarray, columns: slice = slice(None)
  ) -> np.ndarray:
    """Posterior mean (M, K) at germ points (M, D), or some of its columns."""
    solved = self.solved[:, columns]
    return self.mean_outputs[columns] + self._weighted(germ, solved)

  def _weighted(self, germ: np.ndarray, solved: np.ndarray) -> np.ndarray:
    """k(germ, nodes) @ solved, (M, K), without the whole of k in memory."""
    found = np.empty((len(germ), solved.shape[1]))
    for rows in range(0, len(germ), _ROWS):
      block = slice(rows, rows + _ROWS)
      found[block] = self.cross(germ[block]) @ solved
    return found

  def cross(self, germ: np.ndarray) -> np.ndarray:
    """Covariance k (M, N) between germ points and nodes."""
    x = self.prior.standardise(germ)
    return covariance(self.prior, x, self.prior.standardise(self.nodes))


def covariance(prior: Prior, x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Covariance k (N, M) of x (N, D) and y (M, D) without the nugget."""
  wide, narrow = (_product(x, y, lengths) for lengths in prior.lengths)
  shape = (wide + prior.share * narrow) * prior.envelope(x)[:, None]
  return shape * prior.envelope(y) + prior.constant


def default_prior(space: factors.FactorSpace) -> Prior:
  """A prior without preference for a factor, where learning starts."""
  dim = space.dim
  # Mean and variance head the recurrence, that of discrete factors included.
  heads = [polynomials.recurrence(factor.germ, 1) for factor in space.factors]
  center = np.array([head.alpha[0] for head in heads])
  scale = np.sqrt([3 * head.beta[1] for head in heads])
  lengths = np.stack([np.full(dim, 1.5), np.full(dim, 0.3)])
  return Prior(
    center, scale, lengths, 0.1, np.zeros((2, dim)), 0.1, 1e-2
  )


def learn(
  key: jax.Array,
  initial: Prior,
  nodes: np.ndarray,
  outputs: np.ndarray,
  *,
  known: Prior | None = None,
  max_iterations: int = 60,
) -> Prior:
  """Prior of highest likelihood over all outputs together.

      log L = -1/2 mean_k log s_k² - 1/N Σ log diag(factor),
      s_k² = y_k^T k^-1 y_k / N

  Args:
    key: chooses the nodes that are used where there are too many.
    initial: where the search starts, and where few nodes leave it.
    nodes: (N, D) germ coordinates.
    outputs: (N, K); constant ones are left out.
    known: of fewer nodes or of similar outputs; the search also starts there,
      and the better of both ends counts. Alone it would not do while there
      are few nodes, which often suggest a local optimum.
    max_iterations: of L-BFGS.

  Returns:
    The prior; `known` or `initial` where no output varies.

  Raises:
    ValueError: shapes that do not fit, fewer than two nodes, or numbers that
      are not finite.
  """
  nodes, outputs = _checked(initial, nodes, outputs)
  if len(nodes) > _MAX_LEARNED:
    rows = designs.random_generator(key).permutation(len(nodes))
    rows = rows[:_MAX_LEARNED]
    nodes, outputs = nodes[rows], outputs[rows]
  spread = outputs.std(axis=0)
  varies = spread > 1e-12 * np.maximum(np.abs(outputs).max(axis=0), 1e-300)
  if not np.any(varies):
    return known or initial
  y = outputs[:, varies] - outputs[:, varies].mean(axis=0)
  y = y / spread[varies]
  x = initial.standardise(nodes)
  bounds = _bounds(x.shape[1])
  objective = functools.partial(_objective, initial, _Pairs.of(x), y)
  found = min((
    optimize.minimize(
      objective, np.clip(_to_vector(start), bounds[:, 0], bounds[:, 1]),
      jac=True, method='L-BFGS-B', bounds=bounds,
      options={'maxiter': max_iterations},
    )
    for start in _starts(initial, known, len(nodes))
  ), key=lambda end: end.fun)
  return dataclasses.replace(
    _from_vector(initial, found.x), log_likelihood=-float(found.fun)
  )


def _starts(initial, known, num_nodes) -> list[Prior]:
  if known is None:
    return [initial]
  return [known] if num_nodes > _FEW else [initial, known]


def condition(
  prior: Prior, nodes: np.ndarray, outputs: np.ndarray
) -> Posterior:
  """Posterior of outputs (N, K) at nodes (N, D) in germ coordinates.

      m = 1^T k^-1 outputs / 1^T k^-1 1
      loo_variance[n] = 1 / (k^-1 - k^-1 1 1^T k^-1 / 1^T k^-1 1)[n, n]
      loo_residuals[n] = loo_variance[n] (k^-1 (outputs - m))[n]

  Raises:
    ValueError: shapes that do not fit, fewer than two nodes, or numbers that
      are not finite.

  References:
    Dubrule, Cross validation of kriging in a unique neighborhood, 1983.
  """
  nodes, outputs = _checked(prior, nodes, outputs)
  x = prior.standardise(nodes)
  matrix = covariance(prior, x, x)
  matrix[np.diag_indices(len(x))] += prior.nugget
  factor = np.linalg.cholesky(matrix)
  inverse = _inverse(factor)
  ones = inverse.sum(axis=1)
  mean = ones @ outputs / ones.sum()
  solved = inverse @ (outputs - mean)
  diagonal = np.diag(inverse) - ones**2 / ones.sum()
  return Posterior(
    prior=prior, nodes=nodes, mean_outputs=mean, factor=factor, solved=solved,
    loo_residuals=solved / diagonal[:, None], loo_variance=1 / diagonal,
  )


def output_covariance(posterior: Posterior, columns: slice) -> np.ndarray:
  """s² of outputs that vary together, (C, C), from leave-one-out residuals.

      S[k, l] = mean_n loo_residuals[n, k] loo_residuals[n, l]
                / loo_variance[n]

  Args:
    posterior: the posterior.
    columns: which outputs.
  """
  standard = posterior.loo_residuals[:, columns] / np.sqrt(
    posterior.loo_variance
  )[:, None]
  return standard.T @ standard / len(standard)


def draw(
  key: jax.Array, posterior: Posterior, germ: np.ndarray, num_draws: int
) -> tuple[np.ndarray, np.ndarray]:
  """Posterior mean, and draws of (function - posterior mean) / s.

  A draw of the prior minus its own prediction from the nodes (Matheron's
  rule); the prior is drawn through random Fourier features.

  Args:
    key: typed JAX key.
    posterior: the posterior.
    germ: (M, D) points.
    num_draws: number of draws S; one key's share their random frequencies.

  Returns:
    (M, K) and (M, S).
  """
  generator = designs.random_generator(key)
  prior = posterior.prior
  points = np.concatenate([posterior.nodes, np.asarray(germ, np.float64)])
  drawn = _prior_draws(generator, prior, prior.standardise(points), num_draws)
  num_nodes = len(posterior.nodes)
  at_nodes = drawn[:num_nodes] + np.sqrt(prior.nugget) * (
    generator.standard_normal((num_nodes, num_draws))
  )
  inner = linalg.cho_solve((posterior.factor, True), at_nodes)
  # One covariance of points and nodes, which is most of the work, for both.
  found = posterior._weighted(
    points[num_nodes:], np.concatenate([posterior.solved, inner], axis=1)
  )
  mean, predicted = np.split(found, [posterior.solved.shape[1]], axis=1)
  return posterior.mean_outputs + mean, drawn[num_nodes:] - predicted


def _product(x: np.ndarray, y: np.ndarray, lengths: np.ndarray) -> np.ndarray:
  """Product of Matern 3/2 kernels over the factors, (N, M)."""
  front, distance = np.ones((len(x), len(y))), np.zeros((len(x), len(y)))
  for d, length in enumerate(lengths):
    r = np.abs(x[:, d, None] - y[:, d]) * (np.sqrt(3) / length)
    front *= 1 + r
    distance += r
  return front * np.exp(-distance)


def _prior_draws(generator, prior, x, num_draws) -> np.ndarray:
  """Draws (M, S) of the process without its nugget at x (M, D)."""
  drawn = np.zeros((len(x), num_draws))
  for lengths, variance in zip(prior.lengths, (1, prior.share), strict=True):
    # The spectral measure of Matern 3/2 is Student's t with 3 degrees.
    frequencies = generator.standard_t(3, (len(lengths), _NUM_FEATURES))
    phases = generator.uniform(0, 2 * np.pi, _NUM_FEATURES)
    size = np.sqrt(2 * variance / _NUM_FEATURES)
    coefficients = size * generator.standard_normal((_NUM_FEATURES, num_draws))
    # Single precision is ten times faster and far inside the Monte Carlo error.
    coefficients = coefficients.astype(np.float32)
    frequencies = frequencies.astype(np.float32)
    scaled = (x / lengths).astype(np.float32)
    for rows in range(0, len(x), _ROWS):
      angles = scaled[rows : rows + _ROWS] @ frequencies
      angles += phases.astype(np.float32)
      drawn[rows : rows + _ROWS] += np.cos(angles) @ coefficients
  drawn *= prior.envelope(x)[:, None]
  mean = np.sqrt(prior.constant) * generator.standard_normal(num_draws)
  return drawn + mean


@dataclasses.dataclass(frozen=True, eq=False)
class _Pairs:
  """What the likelihood needs of the nodes, each pair of them once.

  Attributes:
    x: (N, D) coordinates.
    later, earlier: (N (N - 1) / 2,) positions, later > earlier.
    distances: (D, N (N - 1) / 2).
  """

  x: np.ndarray
  later: np.ndarray
  earlier: np.ndarray
  distances: np.ndarray

  @classmethod
  def of(cls, x: np.ndarray) -> '_Pairs':
    """Pairs of the rows of x (N, D)."""
    later, earlier = np.tril_indices(len(x), -1)
    return cls(x, later, earlier, np.abs(x[later] - x[earlier]).T.copy())

  def product(self, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Product of Matern 3/2 kernels, and r (D, pairs)."""
    r = self.distances * (np.sqrt(3) / lengths)[:, None]
    return np.prod(1 + r, axis=0) * np.exp(-r.sum(axis=0)), r

  def row_sums(self, values: np.ndarray) -> np.ndarray:
    """Sums (N,) over each row of a symmetric matrix with zero diagonal."""
    return sum(
      np.bincount(ends, values, len(self.x))
      for ends in (self.later, self.earlier)
    )


def _objective(initial, pairs, y, vector):
  """Negative mean log likelihood and its gradient."""
  prior = _from_vector(initial, vector)
  num_nodes, num_outputs = y.shape
  envelope = prior.envelope(pairs.x)
  outer = envelope[pairs.later] * envelope[pairs.earlier]
  wide, r_wide = pairs.product(prior.lengths[0])
  narrow, r_narrow = pairs.product(prior.lengths[1])
  wide *= outer
  narrow *= prior.share * outer
  matrix = np.zeros((num_nodes, num_nodes))
  matrix[pairs.later, pairs.earlier] = wide + narrow + prior.constant
  diagonal = envelope**2
  matrix[np.diag_indices(num_nodes)] = (
    (1 + prior.share) * diagonal + prior.constant + prior.nugget
  )
  factor, failed = linalg.lapack.dpotrf(matrix, lower=True, overwrite_a=True)
  if failed:
    return 1e10, np.zeros_like(vector)
  # Only the lower half is filled.
  inverse, _ = linalg.lapack.dpotri(factor, lower=True)
  solved = linalg.blas.dsymm(1.0, inverse, y, lower=True)
  squares = np.mean(y * solved, axis=0)
  value = 0.5 * np.mean(np.log(squares))
  value += np.sum(np.log(np.diag(factor))) / num_nodes
  scaled = solved / np.sqrt(squares * num_outputs * num_nodes)
  slope = linalg.blas.dsyrk(
    -0.5, scaled, beta=0.5 / num_nodes, c=inverse, lower=True
  )
  on_diagonal = np.diag(slope)
  off_diagonal = slope[pairs.later, pairs.earlier]
  by_wide, by_narrow = off_diagonal * wide, off_diagonal * narrow
  gradient = []
  for part, r in ((by_wide, r_wide), (by_narrow, r_narrow)):
    gradient += list(2 * ((r**2 / (1 + r)) @ part))
  variances = on_diagonal * diagonal
  gradient += [2 * np.sum(by_narrow) + prior.share * np.sum(variances)]
  rows = 2 * pairs.row_sums(by_wide + by_narrow)
  rows += 2 * (1 + prior.share) * variances
  gradient += list(rows @ pairs.x) + list(rows @ pairs.x**2)
  trace = np.sum(on_diagonal)
  gradient += [prior.constant * (2 * np.sum(off_diagonal) + trace)]
  gradient += [prior.nugget * trace]
  away = vector - _to_vector(initial)
  value += 0.5 * _PENALTY * np.sum(away**2)
  return value, np.array(gradient) + _PENALTY * away


def _to_vector(prior: Prior) -> np.ndarray:
  return np.concatenate([
    np.log(prior.lengths).ravel(), [np.log(prior.share)],
    prior.amplitude.ravel(), [np.log(prior.constant), np.log(prior.nugget)],
  ])


def _from_vector(initial: Prior, vector: np.ndarray) -> Prior:
  dim = len(initial.center)
  return dataclasses.replace(
    initial,
    lengths=np.exp(vector[: 2 * dim]).reshape(2, dim),
    share=float(np.exp(vector[2 * dim])),
    amplitude=vector[2 * dim + 1 : 4 * dim + 1].reshape(2, dim),
    constant=float(np.exp(vector[-2])),
    nugget=float(np.exp(vector[-1])),
  )


def _bounds(dim: int) -> np.ndarray:
  """Limits of the vector, (4 D + 3, 2)."""
  return np.array(
    [(np.log(0.05), np.log(30.0))] * dim + [(np.log(0.02), np.log(3.0))] * dim
    + [(np.log(1e-4), np.log(10.0))] + [(-3.0, 3.0)] * (2 * dim)
    + [(np.log(1e-4), np.log(1e3)), (np.log(_MIN_NUGGET), 0.0)]
  )


def _inverse(factor: np.ndarray) -> np.ndarray:
  """Inverse of the matrix of which this is the Cholesky factor."""
  half = np.linalg.inv(factor)
  return half.T @ half


def _checked(prior, nodes, outputs):
  """Nodes and outputs in float64, after a check."""
  nodes = np.asarray(nodes, np.float64)
  outputs = np.asarray(outputs, np.float64)
  if nodes.ndim != 2 or outputs.ndim != 2 or len(nodes) != len(outputs):
    raise ValueError(
      'expected nodes (N, D) and outputs (N, K), got '
      f'{nodes.shape} and {outputs.shape}'
    )
  if len(nodes) < 2 or nodes.shape[1] != len(prior.center):
    raise ValueError(
      f'nodes: expected (N, {len(prior.center)}) with N >= 2 for this prior, '
      f'got {nodes.shape}'
    )
  if not np.all(np.isfinite(nodes)):
    n, d = np.argwhere(~np.isfinite(nodes))[0]
    raise ValueError(
      f'nodes: {nodes[n, d]} at node {n}, factor {d} is not finite'
    )
  if not np.all(np.isfinite(outputs)):
    n, k = np.argwhere(~np.isfinite(outputs))[0]
    raise ValueError(
      f'outputs: {outputs[n, k]} at node {n}, output {k} is not finite'
    )
  return nodes, outputs
