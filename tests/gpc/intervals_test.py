"""Intervals: coverage of known truths, and what they refuse."""

import chaospy
import jax
import numpy as np
import pytest

from jaxsens import factors
from jaxsens.gpc import designs
from jaxsens.gpc import expansions
from jaxsens.gpc import intervals
from jaxsens.gpc import multi_indices
from jaxsens.gpc import regression
from jaxsens.gpc import sobol_indices
from tests.oracles import anova

SPACE = factors.FactorSpace(
  tuple(factors.Factor(name, chaospy.Uniform(-1, 1)) for name in 'abc')
)
NUM_SEEDS = 40
# Functions that the bases below do not resolve, with their true indices.
FUNCTIONS = {
  'ishigami': (anova.ishigami, anova.indices(anova.ishigami_variances())),
  'sobol_g': (anova.sobol_g, anova.indices(anova.sobol_g_variances())),
  'sharp_sigmoid': (
    anova.sharp_sigmoid,
    anova.indices(anova.dense_variances(anova.sharp_sigmoid)),
  ),
}


def projected(function, num_nodes):
  design = designs.tensor_gauss(SPACE, (num_nodes,) * 3)
  basis = expansions.Basis(
    SPACE, multi_indices.tensor_product((num_nodes - 1,) * 3)
  )
  return expansions.project(basis, design, function(design.nodes))


def fitted(function, degree, num_nodes, seed=0):
  design = latin(num_nodes, seed)
  basis = expansions.Basis(SPACE, multi_indices.total_degree(3, degree))
  outputs = function(design.nodes)
  return design, regression.least_squares(basis, design, outputs)


def latin(num_nodes, seed):
  return designs.latin_hypercube(jax.random.key(seed), SPACE, num_nodes)


def held_out(function, num_nodes, seed):
  design = latin(num_nodes, 1000 + seed)
  return {'held_out': design, 'held_out_outputs': function(design.nodes)}


def covered(found, truth):
  """Which subset and total indices lie within their intervals."""
  single = np.array([truth[u] for u in found.subsets])[:, None]
  total = anova.total_indices(truth)[:, None]
  values = np.concatenate([single, total])
  lower = np.concatenate([found.subset_lower, found.total_lower])
  upper = np.concatenate([found.subset_upper, found.total_upper])
  assert np.all((lower >= 0) & (lower <= upper) & (upper <= 1))
  return (values >= lower - 1e-9) & (values <= upper + 1e-9)


def assert_coverage(cases):
  """At least 90 % of all pairs, and no index that is missed as a rule."""
  share = np.mean(np.stack(cases), axis=0)
  assert np.mean(share) >= 0.9, share
  assert np.min(share) >= 0.8, share


@pytest.mark.parametrize('num_nodes', [6, 8])
@pytest.mark.parametrize('name', FUNCTIONS)
def test_intervals_of_quadrature_cover_the_truth(name, num_nodes):
  function, truth = FUNCTIONS[name]
  expansion = projected(function, num_nodes)
  assert_coverage([
    covered(
      intervals.bootstrap(
        jax.random.key(seed), expansion, **held_out(function, 200, seed)
      ),
      truth,
    )
    for seed in range(NUM_SEEDS)
  ])


@pytest.mark.parametrize('fresh', [False, True], ids=['loo', 'loo_and_fresh'])
@pytest.mark.parametrize('name', FUNCTIONS)
def test_intervals_of_regression_cover_the_truth(name, fresh):
  function, truth = FUNCTIONS[name]
  cases = []
  for seed in range(NUM_SEEDS):
    design, fit = fitted(function, 5, 250, seed)
    extra = held_out(function, 100, seed) if fresh else {}
    found = intervals.bootstrap(
      jax.random.key(seed), fit, design=design, **extra
    )
    cases.append(covered(found, truth))
  assert_coverage(cases)


@pytest.mark.parametrize('name', FUNCTIONS)
def test_intervals_shrink_when_the_degree_grows(name):
  function, _ = FUNCTIONS[name]
  widths = []
  for num_nodes in (4, 8, 16):
    found = intervals.bootstrap(
      jax.random.key(0),
      projected(function, num_nodes),
      **held_out(function, 300, 0),
    )
    widths.append(np.mean(found.total_upper - found.total_lower))
  assert widths[0] > 1.5 * widths[1] > 2.25 * widths[2]


def test_intervals_of_a_resolved_function_close():
  found = intervals.bootstrap(
    jax.random.key(0),
    projected(anova.ishigami, 18),
    **held_out(anova.ishigami, 100, 0),
  )
  np.testing.assert_allclose(
    found.subset_lower, found.subset_upper, atol=1e-5
  )


def test_resamples_of_leave_one_out_equal_refitting():
  # One resample that draws each node once: the bounds are plain means, made
  # here from N refits.
  function, _ = FUNCTIONS['sharp_sigmoid']
  design, fit = fitted(function, 2, 40)
  basis, outputs = fit.expansion.basis, function(design.nodes)
  psi = basis.evaluate(design.nodes)
  subsets, members = sobol_indices.term_subsets(basis)
  residuals, components = np.empty(40), np.empty((40, len(subsets)))
  for n in range(40):
    keep = np.arange(40) != n
    c, *_ = np.linalg.lstsq(psi[keep], outputs[keep, 0], rcond=None)
    residuals[n] = outputs[n, 0] - psi[n] @ c
    components[n] = members @ (psi[n] * c)
  residuals -= residuals.mean()
  known = members @ fit.expansion.coefficients[:, 0] ** 2
  known = known + 2 * np.mean(components * residuals[:, None], axis=0)
  missed = np.mean(residuals**2)
  variance = np.sum(known) + missed

  part = intervals._leave_one_out(fit, design)
  lower, upper = intervals._bounds(
    fit.expansion, [part], [np.full((1, 40), 1 / 40)], slice(0, 1), 0.95
  )
  num_subsets = len(subsets)
  np.testing.assert_allclose(
    lower[:num_subsets, 0], np.clip(known / variance, 0, 1), atol=1e-10
  )
  np.testing.assert_allclose(
    upper[:num_subsets, 0],
    np.clip((known + missed) / variance, 0, 1),
    atol=1e-10,
  )


def test_intervals_hold_the_index_of_the_expansion_and_its_names():
  design, fit = fitted(anova.ishigami, 4, 150)
  found = intervals.bootstrap(jax.random.key(0), fit, design=design)
  indices = sobol_indices.sobol_indices(fit.expansion)
  assert found.names == indices.names
  assert found.subsets == indices.subsets
  for name in ('first_order', 'total'):
    values = getattr(indices, name)
    assert np.all(getattr(found, f'{name}_lower') <= values)
    assert np.all(getattr(found, f'{name}_upper') >= values)


def test_higher_levels_give_wider_intervals():
  expansion = projected(anova.sharp_sigmoid, 6)
  options = held_out(anova.sharp_sigmoid, 200, 0)
  low, high = (
    intervals.bootstrap(jax.random.key(0), expansion, level=level, **options)
    for level in (0.5, 0.99)
  )
  assert np.all(high.total_lower <= low.total_lower)
  assert np.all(high.total_upper >= low.total_upper)
  assert np.mean(high.total_upper - low.total_upper) > 0


def test_intervals_are_a_function_of_the_key():
  expansion = projected(anova.sharp_sigmoid, 6)
  options = held_out(anova.sharp_sigmoid, 200, 0)
  one, same, other = (
    intervals.bootstrap(jax.random.key(seed), expansion, **options)
    for seed in (0, 0, 1)
  )
  np.testing.assert_array_equal(one.total_lower, same.total_lower)
  assert np.any(one.total_lower != other.total_lower)


def test_blocks_of_outputs_do_not_change_the_intervals(monkeypatch):
  def outputs(nodes):
    columns = [anova.ishigami(nodes), anova.sharp_sigmoid(nodes)]
    return np.hstack(columns + [np.ones((len(nodes), 1))])

  design, fit = fitted(outputs, 4, 120)

  def run():
    return intervals.bootstrap(
      jax.random.key(0), fit, design=design, num_resamples=50
    )

  whole = run()
  monkeypatch.setattr(intervals, '_BLOCK', 1)
  split = run()
  np.testing.assert_allclose(whole.subset_lower, split.subset_lower)
  np.testing.assert_allclose(whole.total_upper, split.total_upper)
  # An output that does not vary has no interval.
  assert np.all(np.isnan(whole.total_lower[:, 2]))
  assert np.all(np.isnan(whole.subset_upper[:, 2]))
  assert np.all(np.isfinite(whole.total_lower[:, :2]))


def test_bad_input_is_refused():
  key = jax.random.key(0)
  expansion = projected(anova.ishigami, 5)
  design, fit = fitted(anova.ishigami, 3, 60)
  options = held_out(anova.ishigami, 50, 0)
  gauss = designs.tensor_gauss(SPACE, (5, 5, 5))

  def refuses(message, source, **arguments):
    with pytest.raises(ValueError, match=message):
      intervals.bootstrap(key, source, **arguments)

  refuses('does not tell what it misses', expansion)
  refuses('regression fit', expansion, design=design)
  refuses('no random sample', fit, design=gauss)
  refuses('no random sample', fit, held_out=gauss, held_out_outputs=None or 0)
  refuses('has 60 nodes, the design 50', fit, design=latin(50, 1))
  refuses('another design', fit, design=latin(60, 1))
  refuses('held_out_outputs: missing', fit, held_out=design)
  refuses('1 columns, got 2', fit, held_out=options['held_out'],
          held_out_outputs=np.zeros((50, 2)))  # fmt: skip
  refuses('level', expansion, level=1.0, **options)
  refuses('num_resamples', expansion, num_resamples=1, **options)
  few, saturated = fitted(anova.ishigami, 2, 10)
  refuses('leverage one', saturated, design=few)
