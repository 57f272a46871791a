"""Designs: where, in germ coordinates, the model is evaluated.

Nodes and weights are float64 on the host; weights sum to one. Random designs
take a typed JAX key and are a function of it alone.
"""

from collections.abc import Sequence
import dataclasses

import jax
import numpy as np
from scipy.stats import qmc

from jaxsens import factors
from jaxsens.gpc import polynomials


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Design:
  """Nodes of a design and their quadrature weights.

  Attributes:
    nodes: (N, D) float64 germ coordinates.
    weights: (N,) float64, sum 1.
    kind: 'tensor_gauss', 'latin_hypercube' or 'sobol_sequence'.
  """

  nodes: np.ndarray
  weights: np.ndarray
  kind: str = dataclasses.field(metadata={'static': True})

  @property
  def num_nodes(self) -> int:
    """Number of nodes N."""
    return len(self.nodes)


def tensor_gauss(
  space: factors.FactorSpace, num_nodes: Sequence[int]
) -> Design:
  """Tensor product of the Gauss rules of the factors.

  Exact for products of polynomials of degree 2 num_nodes[d] - 1 in factor d.
  The last factor varies fastest.

  Args:
    space: the factors.
    num_nodes: number of nodes of each factor, in their order.

  Returns:
    Design of N = Π_d num_nodes[d] nodes.

  Raises:
    ValueError: not one number of nodes, at least 1, per factor.
  """
  if len(num_nodes) != space.dim:
    raise ValueError(
      f'num_nodes: expected one number for each of {list(space.names)}, '
      f'got {list(num_nodes)}'
    )
  for num_nodes_d in num_nodes:
    _at_least_one(num_nodes_d)
  rules = [
    polynomials.gauss_rule(polynomials.recurrence(factor.germ, n - 1), n)
    for factor, n in zip(space.factors, num_nodes, strict=True)
  ]
  axes = np.meshgrid(*[nodes for nodes, _ in rules], indexing='ij')
  weights = np.ones(1)
  for _, weights_d in rules:
    weights = np.multiply.outer(weights, weights_d).ravel()
  nodes = np.stack([axis.ravel() for axis in axes], axis=1)
  return Design(nodes, weights, 'tensor_gauss')


def latin_hypercube(
  key: jax.Array, space: factors.FactorSpace, num_nodes: int
) -> Design:
  """Latin hypercube: each of N strata of each factor holds one node.

  Args:
    key: typed JAX key.
    space: the factors.
    num_nodes: number of nodes N.

  Returns:
    Design with equal weights.

  References:
    McKay, Beckman, Conover, A comparison of three methods for selecting
    values of input variables, 1979.
  """
  generator = random_generator(key)
  size = (_at_least_one(num_nodes), space.dim)
  strata = np.tile(np.arange(num_nodes)[:, None], (1, space.dim))
  strata = generator.permuted(strata, axis=0)
  uniform = (strata + generator.random(size)) / num_nodes
  return _equal_weights(space, uniform, 'latin_hypercube')


def sobol_sequence(
  key: jax.Array, space: factors.FactorSpace, num_nodes: int
) -> Design:
  """First points of a scrambled Sobol sequence.

  Args:
    key: typed JAX key; it drives the scrambling.
    space: the factors.
    num_nodes: number of nodes N; powers of two keep the balance.

  Returns:
    Design with equal weights.

  References:
    Owen, On dropping the first Sobol' point, 2020 (the first point is kept).
  """
  _at_least_one(num_nodes)
  sequence = qmc.Sobol(space.dim, scramble=True, rng=random_generator(key))
  # Drawn as a power of two, because SciPy warns about every other number.
  exponent = int(np.ceil(np.log2(num_nodes)))
  uniform = sequence.random_base2(exponent)[:num_nodes]
  return _equal_weights(space, uniform, 'sobol_sequence')


def random_generator(key: jax.Array) -> np.random.Generator:
  """NumPy generator whose state is a function of a typed JAX key.

  Args:
    key: one typed key, as made by `jax.random.key`.

  Returns:
    The generator.

  Raises:
    TypeError: not a single typed key.
  """
  dtype = getattr(key, 'dtype', None)
  if dtype is None or not jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key):
    raise TypeError(f'key: expected a key of jax.random.key, got {key!r}')
  if key.shape:
    raise TypeError(f'key: expected one key, got shape {key.shape}')
  return np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())


def _equal_weights(
  space: factors.FactorSpace, uniform: np.ndarray, kind: str
) -> Design:
  """Design of points of the unit cube, all of the same weight."""
  weights = np.full(len(uniform), 1 / len(uniform))
  return Design(space.from_uniform(uniform), weights, kind)


def _at_least_one(num_nodes: int) -> int:
  if num_nodes < 1:
    raise ValueError(f'num_nodes: expected at least 1, got {num_nodes}')
  return num_nodes
