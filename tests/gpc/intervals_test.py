"""Intervals: coverage of known truths, and what they refuse."""

import chaospy
import jax
import numpy as np
import pytest
from scipy import special

from jaxsens import factors
from jaxsens.gpc import designs
from jaxsens.gpc import expansions
from jaxsens.gpc import intervals
from jaxsens.gpc import multi_indices
from jaxsens.gpc import regression
from jaxsens.gpc import residuals
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


@pytest.mark.parametrize('name', FUNCTIONS)
def test_intervals_are_narrower_than_the_missed_variance(name):
  # What is left open is shared out by measurement, not given to every index.
  function, _ = FUNCTIONS[name]
  design, fit = fitted(function, 5, 250)
  found = intervals.bootstrap(jax.random.key(0), fit, design=design)
  outputs = function(design.nodes)
  missed = np.mean(fit.loo_residuals**2) / np.var(outputs)
  widths = found.subset_upper - found.subset_lower
  assert np.mean(widths) < missed


def test_influence_of_a_node_is_the_change_of_the_coefficients_without_it():
  design, fit = fitted(anova.sharp_sigmoid, 2, 40)
  outputs = anova.sharp_sigmoid(design.nodes)
  psi = fit.expansion.basis.evaluate(design.nodes)
  part = residuals.of_fit(fit, design)
  for n in range(40):
    keep = np.arange(40) != n
    without, *_ = np.linalg.lstsq(psi[keep], outputs[keep], rcond=None)
    np.testing.assert_allclose(
      part.influence[n] * fit.loo_residuals[n] / 40,
      (fit.expansion.coefficients - without)[:, 0],
      atol=1e-12,
    )


def test_mean_correction_of_a_fit_takes_the_noise_of_its_coefficients_off():
  design, fit = fitted(anova.sharp_sigmoid, 3, 60)
  basis = fit.expansion.basis
  psi = basis.evaluate(design.nodes)
  inverse = np.linalg.inv(psi.T @ psi)
  # The HC2 estimate of the covariance, MacKinnon and White 1985, eq. 9.
  squares = fit.loo_residuals[:, 0] ** 2 * (1 - fit.leverages)
  covariance = inverse @ (psi.T * squares) @ psi @ inverse
  _, members = sobol_indices.term_subsets(basis)
  products, missed = residuals.corrections(
    [residuals.of_fit(fit, design)], fit.expansion.coefficients, members,
    slice(0, 1),
  )  # fmt: skip
  np.testing.assert_allclose(
    products.mean(axis=0)[:, 0], -members @ np.diag(covariance), atol=1e-12
  )
  np.testing.assert_allclose(missed.mean(), squares.mean(), rtol=1e-12)


def test_missed_variance_is_given_to_the_factor_that_misses_it():
  # Degree 7 in the first factor, which the basis of degree 5 cannot hold.
  def function(nodes):
    seventh = special.eval_legendre(7, nodes[:, 0]) * np.sqrt(15)
    return (nodes[:, 0] + nodes[:, 1] + 0.3 * seventh)[:, None]

  expansion = projected(function, 6)
  options = held_out(function, 400, 0)
  nodes, outputs = options['held_out'].nodes, options['held_out_outputs']
  found = intervals.bootstrap(jax.random.key(0), expansion, **options)
  truth = np.array([1 / 3 + 0.09, 1 / 3, 0]) / (2 / 3 + 0.09)
  assert np.all(found.total_lower[:, 0] <= truth + 1e-9)
  assert np.all(truth <= found.total_upper[:, 0])
  # An interval of all that is open would be as wide as this.
  missed = np.var(outputs - expansion(nodes)) / np.var(outputs)
  width = (found.subset_upper - found.subset_lower)[:, 0]
  assert width[2] < 0.3 * missed


def test_residuals_of_held_out_nodes_give_the_intervals_of_held_out_nodes():
  expansion = projected(anova.sharp_sigmoid, 6)
  options = held_out(anova.sharp_sigmoid, 200, 0)
  nodes = options['held_out'].nodes
  errors = options['held_out_outputs'] - expansion(nodes)
  expected = intervals.bootstrap(jax.random.key(0), expansion, **options)
  for components in (None, residuals.anova_components(expansion, nodes)):
    found = intervals.bootstrap_residuals(
      jax.random.key(0), expansion, nodes, errors, components=components
    )
    np.testing.assert_allclose(
      found.subset_lower, expected.subset_lower, atol=1e-12
    )
    np.testing.assert_allclose(
      found.total_upper, expected.total_upper, atol=1e-12
    )


def test_anova_components_sum_to_the_expansion_and_are_those_of_averaging():
  # A polynomial of the basis: E[f | x0] by a Gauss rule over the others.
  def function(nodes):
    first, second, third = nodes.T
    return (1 + first**3 + 2 * second + first * third**2)[:, None]

  expansion = projected(function, 5)
  nodes = latin(20, 0).nodes
  components = residuals.anova_components(expansion, nodes)
  np.testing.assert_allclose(
    components.sum(axis=1) + expansion.mean, function(nodes), atol=1e-12
  )
  first = nodes[:, :1]
  np.testing.assert_allclose(
    components[:, 0], first**3 + first / 3, atol=1e-12
  )


@pytest.mark.parametrize('name', ['ishigami', 'sharp_sigmoid'])
def test_intervals_of_ridge_with_more_terms_than_nodes_cover_the_truth(name):
  function, truth = FUNCTIONS[name]
  basis = expansions.Basis(SPACE, multi_indices.total_degree(3, 9))
  _, members = sobol_indices.term_subsets(basis)
  prior = 0.4 ** basis.multi_indices.sum(axis=1)
  cases = []
  for seed in range(NUM_SEEDS):
    design = latin(150, seed)
    psi = basis.evaluate(design.nodes)
    kernels = np.stack([(psi * (prior * member)) @ psi.T for member in members])
    kernel = (psi * prior) @ psi.T
    inverse = np.linalg.inv(kernel + 1e-4 * np.eye(150))
    dual = inverse @ function(design.nodes)
    expansion = expansions.Expansion(basis, prior[:, None] * (psi.T @ dual))
    errors = dual / np.diag(inverse)[:, None]
    # Without node n the dual weights are dual - inverse[:, n] errors[n].
    shift = np.einsum('snm,mn->ns', kernels, inverse)
    components = residuals.anova_components(expansion, design.nodes)
    components -= shift[:, :, None] * errors[:, None]
    found = intervals.bootstrap_residuals(
      jax.random.key(seed), expansion, design.nodes, errors,
      components=components, num_resamples=400,
    )  # fmt: skip
    cases.append(covered(found, truth))
  assert_coverage(cases)


@pytest.mark.parametrize('degree', [3, 6])
def test_extra_terms_are_the_shell_around_a_total_degree(degree):
  basis = expansions.Basis(SPACE, multi_indices.total_degree(3, degree))
  wider = multi_indices.total_degree(3, degree + 2)
  expected = {tuple(row) for row in wider if sum(row) > degree}
  assert set(map(tuple, residuals.extra_terms(basis))) == expected


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


def test_basis_of_the_mean_alone_has_no_indices_and_nan_for_intervals():
  def function(nodes):
    return np.hstack([anova.ishigami(nodes), np.ones((len(nodes), 1))])

  design, fit = fitted(function, 0, 60)
  assert fit.expansion.basis.num_terms == 1
  indices = sobol_indices.sobol_indices(fit.expansion)
  assert all('does not vary' in reason for reason in indices.reasons)
  options = held_out(function, 50, 0)
  errors = options['held_out_outputs'] - fit.expansion.mean
  key, nodes = jax.random.key(0), options['held_out'].nodes
  for found in (
    intervals.bootstrap_residuals(key, fit.expansion, nodes, errors),
    intervals.bootstrap(key, fit.expansion, **options),
    intervals.bootstrap(key, fit, design=design, **options),
  ):
    assert found.subsets == ()
    assert found.subset_lower.shape == found.subset_upper.shape == (0, 2)
    for name in ('first_order', 'total'):
      for bound in ('lower', 'upper'):
        np.testing.assert_array_equal(
          getattr(found, f'{name}_{bound}'), np.full((3, 2), np.nan)
        )


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
  nodes = options['held_out'].nodes
  for message, errors, components in [
    (r'residuals: expected shape \(50, 1\)', np.zeros((50, 2)), None),
    ('residuals: expected finite', np.full((50, 1), np.nan), None),
    (r'components: expected shape \(50, 7, 1\)', np.zeros((50, 1)),
     np.zeros((50, 3, 1))),
  ]:  # fmt: skip
    with pytest.raises(ValueError, match=message):
      intervals.bootstrap_residuals(
        key, expansion, nodes, errors, components=components
      )
  few, saturated = fitted(anova.ishigami, 2, 10)
  refuses('leverage one', saturated, design=few)
