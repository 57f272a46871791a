"""Discrete marginals: atoms, draws, expansions and indices by enumeration."""

import itertools

import chaospy
import jax
import numpy as np
import pytest
from scipy import stats

from jaxsens import factors
from jaxsens import marginals
from jaxsens.gpc import designs
from jaxsens.gpc import expansions
from jaxsens.gpc import intervals
from jaxsens.gpc import multi_indices
from jaxsens.gpc import regression
from jaxsens.gpc import sobol_indices

FILTERS = marginals.choice(['none', 'red', 'blue'], [0.5, 0.2, 0.3])
SPACE = factors.FactorSpace((
  factors.Factor('filter', FILTERS),
  factors.Factor('angle', chaospy.Uniform(0, 2)),
  factors.Factor('frames', chaospy.Binomial(4, 0.3)),
))  # fmt: skip


def model(values):
  kind, angle, frames = values.T
  gain = np.array([1.0, -2.0, 0.5])[kind.astype(int)]
  return (gain * angle**2 + np.sqrt(frames) + 0.5 * gain * frames)[:, None]


def enumerated_indices():
  """S_u by summing over atoms and Gauss-Legendre angles, subset by subset."""
  x, w = np.polynomial.legendre.leggauss(20)
  axes = [np.arange(3), x + 1, np.arange(5)]
  masses = [
    np.array([0.5, 0.2, 0.3]), w / 2, stats.binom.pmf(np.arange(5), 4, 0.3)
  ]  # fmt: skip
  grid = np.stack(np.meshgrid(*axes, indexing='ij'), axis=-1)
  y = model(grid.reshape(-1, 3)).reshape(3, 20, 5)
  y = y - np.einsum('abc,a,b,c->', y, *masses)
  variances = {}
  subsets = [
    u for size in (1, 2, 3) for u in itertools.combinations(range(3), size)
  ]
  for u in subsets:
    kept = y
    for d in sorted(set(range(3)) - set(u), reverse=True):
      kept = np.tensordot(kept, masses[d], axes=([d], [0]))
    closed = kept**2
    for d in u:
      closed = np.tensordot(masses[d], closed, axes=([0], [0]))
    below = sum(v for t, v in variances.items() if set(t) < set(u))
    variances[u] = float(closed) - below
  total = sum(variances.values())
  return {u: v / total for u, v in variances.items()}


def test_quadrature_on_all_atoms_gives_the_enumerated_indices():
  design = designs.tensor_gauss(SPACE, (3, 3, 5))
  values = SPACE.to_values(design.nodes)
  assert set(values[:, 0]) == {0, 1, 2}
  assert set(values[:, 2]) == {0, 1, 2, 3, 4}
  basis = expansions.Basis(SPACE, multi_indices.tensor_product((2, 2, 4)))
  indices = sobol_indices.sobol_indices(
    expansions.project(basis, design, model(values))
  )
  truth = enumerated_indices()
  np.testing.assert_allclose(
    indices.subset_values[:, 0], [truth[u] for u in indices.subsets],
    atol=1e-12,
  )  # fmt: skip


def test_regression_and_intervals_of_discrete_factors():
  design = designs.latin_hypercube(jax.random.key(0), SPACE, 300)
  basis = expansions.Basis(SPACE, multi_indices.tensor_product((2, 1, 2)))
  outputs = model(SPACE.to_values(design.nodes))
  fit = regression.least_squares(basis, design, outputs)
  found = intervals.bootstrap(jax.random.key(1), fit, design=design)
  truth = enumerated_indices()
  total = [sum(v for u, v in truth.items() if d in u) for d in range(3)]
  assert np.all(found.total_lower[:, 0] <= total)
  assert np.all(total <= found.total_upper[:, 0])


def test_draws_have_the_probabilities_of_the_atoms():
  design = designs.latin_hypercube(jax.random.key(0), SPACE, 1000)
  values = SPACE.to_values(design.nodes)
  # A Latin hypercube has one node in each stratum of 1 / 1000.
  for kind, mass in enumerate([0.5, 0.2, 0.3]):
    assert abs(np.mean(values[:, 0] == kind) - mass) <= 0.002
  expected = stats.binom.pmf(np.arange(5), 4, 0.3)
  for count, mass in enumerate(expected):
    assert abs(np.mean(values[:, 2] == count) - mass) <= 0.002


def test_values_and_germ_invert_each_other_without_rounding():
  values = np.array([[2.0, 0.3, 4.0], [1.0, 1.9, 0.0]])
  germ = SPACE.to_germ(values)
  assert np.all(np.abs(germ) <= 1)
  again = SPACE.to_values(germ)
  np.testing.assert_array_equal(again[:, [0, 2]], values[:, [0, 2]])
  with pytest.raises(ValueError, match="'filter': 0.5 is none of its 3"):
    SPACE.to_germ(np.array([[0.5, 0.3, 4.0]]))


@pytest.mark.parametrize(
  ('distribution', 'reference'),
  [
    (chaospy.DiscreteUniform(1, 6), stats.randint(1, 7)),
    (chaospy.Binomial(7, 0.2), stats.binom(7, 0.2)),
  ],
  ids=['die', 'binomial'],
)
def test_atoms_of_chaospy_have_the_masses_of_scipy(distribution, reference):
  atoms = factors.Factor('x', distribution).atoms
  np.testing.assert_allclose(
    atoms.probabilities, reference.pmf(atoms.values), atol=1e-14
  )
  uniform = np.linspace(0.001, 0.999, 57)
  np.testing.assert_array_equal(atoms.inv(uniform), reference.ppf(uniform))


def test_a_sample_with_repeats_is_its_empirical_distribution():
  sample = marginals.Discrete([3.0, 1.0, 3.0, 2.0], [1, 1, 1, 0])
  np.testing.assert_array_equal(sample.values, [1, 3])
  np.testing.assert_allclose(sample.probabilities, [1 / 3, 2 / 3])


def test_factors_are_equal_by_atoms_and_probabilities():
  one, same, other = (
    factors.Factor('x', marginals.choice('abc', weights))
    for weights in ([1, 1, 2], [2, 2, 4], [1, 2, 1])
  )
  assert one == same and hash(one) == hash(same)
  assert one != other
  assert (one.lower, one.upper) == (0, 2)


@pytest.mark.parametrize(
  ('values', 'weights', 'message'),
  [
    ([1.0], None, 'two different atoms'),
    ([1.0, 2.0], [1.0, 0.0], 'two different atoms'),
    ([1.0, np.nan], None, 'finite'),
    ([1.0, 2.0], [1.0, -1.0], '>= 0'),
    ([1.0, 2.0], [1.0], r'\(2,\) and \(1,\)'),
  ],
)
def test_bad_atoms_are_refused(values, weights, message):
  with pytest.raises(ValueError, match=message):
    marginals.Discrete(values, weights)
