"""Designs: exactness, stratification, and the key."""

import chaospy
import jax
import numpy as np
import pytest

from jaxsens import factors
from jaxsens.gpc import designs

SPACE = factors.FactorSpace((
  factors.Factor('a', chaospy.Uniform(0, 2)),
  factors.Factor('b', chaospy.Normal(1, 2)),
  factors.Factor('c', chaospy.Gamma(2.5, scale=3)),
))  # fmt: skip
RANDOM = [designs.latin_hypercube, designs.sobol_sequence]


def to_uniform(nodes):
  columns = zip(SPACE.factors, nodes.T, strict=True)
  return np.stack([f.germ.fwd(x) for f, x in columns], axis=1)


def test_tensor_gauss_integrates_products_of_moments():
  design = designs.tensor_gauss(SPACE, (2, 3, 4))
  assert design.nodes.shape == (24, 3)
  assert design.kind == 'tensor_gauss'
  np.testing.assert_allclose(np.sum(design.weights), 1, rtol=1e-14)
  x, y, z = design.nodes.T
  # E[x²] = 1/3, E[y⁴] = 3, E[z⁷] = Γ(9.5) / Γ(2.5) of the three germs.
  expected = 1 / 3 * 3 * np.prod(2.5 + np.arange(7))
  np.testing.assert_allclose(
    design.weights @ (x**2 * y**4 * z**7), expected, rtol=1e-12
  )


def test_last_factor_of_a_tensor_varies_fastest():
  nodes = designs.tensor_gauss(SPACE, (2, 1, 3)).nodes
  assert np.all(np.diff(nodes[:3, 2]) > 0)
  assert np.all(nodes[:3, 0] == nodes[0, 0])


def test_every_stratum_of_a_latin_hypercube_holds_one_node():
  design = designs.latin_hypercube(jax.random.key(0), SPACE, 50)
  strata = np.floor(to_uniform(design.nodes) * 50)
  np.testing.assert_array_equal(
    np.sort(strata, axis=0), np.tile(np.arange(50)[:, None], (1, 3))
  )


def test_every_stratum_of_a_sobol_sequence_holds_one_node():
  design = designs.sobol_sequence(jax.random.key(0), SPACE, 64)
  strata = np.floor(to_uniform(design.nodes) * 64)
  np.testing.assert_array_equal(
    np.sort(strata, axis=0), np.tile(np.arange(64)[:, None], (1, 3))
  )


@pytest.mark.parametrize('make', RANDOM)
def test_random_designs_are_functions_of_the_key(make):
  one, same = (make(jax.random.key(3), SPACE, 20) for _ in range(2))
  other = make(jax.random.key(4), SPACE, 20)
  np.testing.assert_array_equal(one.nodes, same.nodes)
  assert np.max(np.abs(one.nodes - other.nodes)) > 0.1
  np.testing.assert_allclose(one.weights, 1 / 20)
  assert one.kind == make.__name__


@pytest.mark.parametrize('make', RANDOM)
def test_random_designs_estimate_the_mean(make):
  nodes = make(jax.random.key(1), SPACE, 4096).nodes
  # Means of the germs; five standard errors of plain Monte Carlo.
  standard_error = np.sqrt(np.array([1 / 3, 1, 2.5]) / 4096)
  assert np.all(np.abs(nodes.mean(axis=0) - [0, 0, 2.5]) < 5 * standard_error)


def test_longer_sobol_sequence_starts_with_the_shorter_one():
  short = designs.sobol_sequence(jax.random.key(2), SPACE, 10)
  long = designs.sobol_sequence(jax.random.key(2), SPACE, 100)
  np.testing.assert_array_equal(long.nodes[:10], short.nodes)


def test_a_design_is_a_pytree_of_its_arrays():
  design = designs.tensor_gauss(SPACE, (1, 2, 1))
  leaves, structure = jax.tree.flatten(design)
  assert [leaf.shape for leaf in leaves] == [(2, 3), (2,)]
  assert jax.tree.unflatten(structure, leaves).kind == 'tensor_gauss'


def test_bad_arguments_are_refused():
  with pytest.raises(ValueError, match=r"\['a', 'b', 'c'\], got \[2, 3\]"):
    designs.tensor_gauss(SPACE, (2, 3))
  with pytest.raises(ValueError, match='at least 1'):
    designs.tensor_gauss(SPACE, (2, 0, 3))
  for make in RANDOM:
    with pytest.raises(ValueError, match='at least 1'):
      make(jax.random.key(0), SPACE, 0)
    with pytest.raises(TypeError, match='expected a key'):
      make(0, SPACE, 5)
    with pytest.raises(TypeError, match='one key'):
      make(jax.random.split(jax.random.key(0)), SPACE, 5)
