"""Sobol indices of one image's probability by methods that do not adapt.

All return first-order and total indices, (D,) each, of the probability of the
true class.
"""

from collections.abc import Sequence

import jax
import numpy as np
from scipy import optimize

from experiments.benchmarks import network_runs
from experiments.benchmarks import studies
from jaxsens import factors
from jaxsens.gpc import designs
from jaxsens.gpc import expansions
from jaxsens.gpc import multi_indices
from jaxsens.gpc import pick_freeze
from jaxsens.gpc import polynomials
from jaxsens.gpc import regression
from jaxsens.gpc import sobol_indices

Indices = tuple[np.ndarray, np.ndarray]

# Gauss nodes of the grid that surrogates are averaged on, by factor.
_DENSE = {'brightness': 32, 'rotation': 48, 'tilt': 24, 'keystone': 24}
# Degree and largest interaction of the recipe of the source system.
_DEGREE, _INTERACTION = 6, 3
# Lengths from which the likelihood of a Gaussian process is maximised.
_STARTS = (1.0, 0.3)


def recipe(
  key: jax.Array,
  runs: network_runs.Runs,
  images: Sequence[int],
  num_nodes: int,
) -> list[Indices]:
  """Latin hypercube, degree 6 in each factor, least squares, one Gram matrix.

  Args:
    key: of the design.
    runs: the network.
    images: whose indices are asked for.
    num_nodes: runs per image.
  """
  space = runs.study.space
  design = designs.latin_hypercube(key, space, num_nodes)
  terms = multi_indices.tensor_product(
    (_DEGREE,) * space.dim, max_interaction=_INTERACTION
  )
  outputs = np.stack([runs.probability(i, design.nodes) for i in images], 1)
  fit = regression.least_squares(
    expansions.Basis(space, terms), design, outputs
  )
  found = sobol_indices.sobol_indices(fit.expansion)
  return [
    (found.first_order[:, k], found.total[:, k]) for k in range(len(images))
  ]


def gauss(
  runs: network_runs.Runs, image: int, sizes: Sequence[int], *, pushed: bool
) -> Indices:
  """Tensor Gauss projection with the largest degrees.

  Args:
    runs: the network.
    image: the image.
    sizes: nodes per factor.
    pushed: expand the logits and push the expansions through the softmax on
      a dense grid; False: expand the probability, whose sums of squares of
      coefficients are those of its values at the nodes.
  """
  space = runs.study.space
  design = designs.tensor_gauss(space, sizes)
  logits = runs.logits(image, design.nodes)
  if pushed:
    grid = logits.reshape(*sizes, -1)
    dense = [_DENSE[name] for name in space.names]
    for d, factor in enumerate(space.factors):
      matrix = _interpolation(factor, sizes[d], dense[d])
      grid = np.moveaxis(np.tensordot(matrix, grid, axes=(1, d)), 0, d)
    logits, sizes = grid.reshape(-1, logits.shape[1]), dense
  values = studies.probability(logits, runs.study.labels[image])
  return _of_grid(space, values, sizes)


def frozen(
  key: jax.Array, runs: network_runs.Runs, image: int, num_nodes: int
) -> tuple[Indices, int]:
  """Pick-freeze (Saltelli, Jansen) with at most so many runs, and how many."""
  space = runs.study.space
  sample = pick_freeze.sample(key, space, num_nodes // (space.dim + 2))
  outputs = runs.probability(image, sample.nodes)[:, None]
  found = pick_freeze.estimate(sample, outputs)
  return (found.first_order[:, 0], found.total[:, 0]), sample.num_nodes


def gaussian_process(
  key: jax.Array,
  runs: network_runs.Runs,
  image: int,
  num_nodes: int,
  *,
  log_odds: bool,
) -> Indices:
  """Mean of a Matern 5/2 process with one length per factor, on a dense grid.

  Lengths and nugget maximise the likelihood of this image alone.

  Args:
    key: of the design, a Sobol sequence.
    runs: the network.
    image: the image.
    num_nodes: runs.
    log_odds: model log(p / (1 - p)) instead of p.
  """
  space = runs.study.space
  design = designs.sobol_sequence(key, space, num_nodes)
  y = runs.probability(image, design.nodes)
  if log_odds:
    y = np.clip(y, 1e-12, 1 - 1e-12)
    y = np.log(y) - np.log1p(-y)
  sizes = [_DENSE[name] for name in space.names]
  points = designs.tensor_gauss(space, sizes).nodes
  predicted = _predict(design.nodes, y, points)
  if log_odds:
    predicted = 1 / (1 + np.exp(-predicted))
  return _of_grid(space, predicted, sizes)


def _of_grid(space, values, sizes) -> Indices:
  weights = [_rule(f, n)[1] for f, n in zip(space.factors, sizes, strict=True)]
  found = studies.grid_indices(values.reshape(sizes), weights, space.names)
  return found.first_order, found.total


def _interpolation(
  factor: factors.Factor, num_nodes: int, num_dense: int
) -> np.ndarray:
  """Values at dense Gauss nodes of the expansion from few, (dense, few)."""
  recurrence = polynomials.recurrence(factor.germ, num_dense)
  few, weights = polynomials.gauss_rule(recurrence, num_nodes)
  dense, _ = polynomials.gauss_rule(recurrence, num_dense)
  at_few = polynomials.evaluate(recurrence, few, num_nodes - 1)
  at_dense = polynomials.evaluate(recurrence, dense, num_nodes - 1)
  return at_dense @ (weights[:, None] * at_few).T


def _rule(factor, num_nodes):
  recurrence = polynomials.recurrence(factor.germ, num_nodes)
  return polynomials.gauss_rule(recurrence, num_nodes)


def _predict(x: np.ndarray, y: np.ndarray, points: np.ndarray) -> np.ndarray:
  """Posterior mean of the process of highest likelihood at points (M, D)."""
  mean, scale = y.mean(), max(y.std(), 1e-12)
  target, dim = (y - mean) / scale, x.shape[1]
  squares = (x[:, None] - x[None]) ** 2

  def objective(vector):
    inverse_squares = np.exp(-2 * vector[:dim])
    r = np.sqrt(5 * (squares @ inverse_squares))
    kernel, fall = (1 + r + r**2 / 3) * np.exp(-r), (1 + r) * np.exp(-r)
    nugget = np.exp(vector[dim])
    matrix = kernel + nugget * np.eye(len(x))
    try:
      factor = np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
      return 1e10, np.zeros_like(vector)
    root = np.linalg.inv(factor)
    inverse, half_log = root.T @ root, np.sum(np.log(np.diag(factor)))
    solved = inverse @ target
    variance = target @ solved / len(x)
    value = len(x) / 2 * np.log(variance) + half_log
    slope = (inverse - np.outer(solved, solved) / variance) / 2
    by_length = np.tensordot(slope * fall, squares, axes=2)
    by_length *= 5 / 3 * inverse_squares
    return value, np.append(by_length, nugget * np.trace(slope))

  bounds = [(np.log(0.05), np.log(30.0))] * dim + [(np.log(1e-8), 0.0)]
  # From one start alone it may take everything for noise.
  found = [
    optimize.minimize(
      objective, np.append(np.full(dim, np.log(length)), np.log(1e-3)),
      jac=True, method='L-BFGS-B', bounds=bounds, options={'maxiter': 40},
    )
    for length in _STARTS
  ]
  best = min(found, key=lambda one: one.fun).x
  lengths = np.exp(best[:dim])

  def kernel(a, b):
    square = sum(
      ((a[:, d, None] - b[:, d]) / lengths[d]) ** 2 for d in range(dim)
    )
    r = np.sqrt(5 * square)
    return (1 + r + r**2 / 3) * np.exp(-r)

  matrix = kernel(x, x) + np.exp(best[dim]) * np.eye(len(x))
  return mean + scale * (kernel(points, x) @ np.linalg.solve(matrix, target))
