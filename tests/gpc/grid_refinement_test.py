"""Adaptive refinement: exact, frugal, fair to all outputs, within budget."""

import chaospy
import numpy as np
import pytest

from jaxsens import factors
from jaxsens.gpc import expansions
from jaxsens.gpc import grid_refinement
from jaxsens.gpc import multi_indices
from jaxsens.gpc import sparse_grids
from tests.oracles import test_functions


def uniform_space(dim):
  return factors.FactorSpace(
    tuple(factors.Factor(f'x{d}', chaospy.Uniform(-1, 1)) for d in range(dim))
  )


class Counting:
  """A model that keeps every node it was called with."""

  def __init__(self, function):
    self.function = function
    self.nodes = []

  def __call__(self, nodes):
    self.nodes.append(nodes)
    return self.function(nodes)


def step_and_smooth(germ):
  """A step in one factor, and a product of the two others."""
  first, second, third = germ.T
  smooth = np.exp(second) * (1 + third + third**2)
  return np.stack([1.0 * (first > 0.3), smooth], axis=1)


def same_grid(one, other):
  np.testing.assert_array_equal(one.design.nodes, other.design.nodes)


@pytest.mark.parametrize('combine', ['max', 'mean'])
@pytest.mark.parametrize('max_evaluations', [1, 2, 7, 11, 53, 100])
def test_no_node_runs_twice_and_the_budget_holds(combine, max_evaluations):
  model = Counting(step_and_smooth)
  result = grid_refinement.refine(
    model,
    uniform_space(3),
    tolerance=0,
    max_evaluations=max_evaluations,
    combine=combine,
  )
  nodes = np.concatenate(model.nodes)
  assert len(nodes) == max_evaluations
  assert len(np.unique(nodes, axis=0)) == len(nodes)
  assert result.stopped == 'max_evaluations'
  np.testing.assert_array_equal(result.design.nodes, nodes)
  np.testing.assert_array_equal(result.outputs, step_and_smooth(nodes))
  counts = [step.num_evaluations for step in result.history]
  assert counts == np.cumsum([len(x) for x in model.nodes]).tolist()
  projected = sparse_grids.project(result.expansion.basis, result.outputs)
  np.testing.assert_allclose(
    result.expansion.coefficients, projected.coefficients, atol=1e-12
  )


def test_ishigami_needs_50_runs_for_1e_2_and_100_for_1e_5():
  model = test_functions.ishigami()
  result = grid_refinement.refine(
    model, model.space, tolerance=0, max_evaluations=130
  )
  for most, error in ((50, 1e-2), (100, 1e-5)):
    # From there on, not once on the way.
    for step in result.history:
      if step.num_evaluations >= most:
        found = step.indices.first_order, step.indices.total
        assert model.largest_error(*found) < error


def test_borehole_needs_60_runs_for_1e_2():
  model = test_functions.borehole()
  result = grid_refinement.refine(
    model, model.space, tolerance=0, max_evaluations=60
  )
  indices = result.history[-1].indices
  assert model.largest_error(indices.first_order, indices.total) < 1e-2


@pytest.mark.parametrize('tolerance', [1e-2, 1e-3, 1e-4])
def test_stop_at_the_tolerance_bounds_the_error(tolerance):
  for model in (test_functions.ishigami(), test_functions.borehole()):
    result = grid_refinement.refine(
      model, model.space, tolerance=tolerance, max_evaluations=1000
    )
    last = result.history[-1]
    assert result.stopped == 'tolerance'
    assert last.change <= tolerance
    found = last.indices.first_order, last.indices.total
    assert model.largest_error(*found) < tolerance


def test_polynomial_is_found_exactly_and_stops_at_its_degree():
  # No main effect of c or d: they act only together, and a only cubed.
  def model(germ):
    a, b, c, d = germ.T
    return (a**3 + b * a + 2 * c * d)[:, None]

  space = uniform_space(4)
  result = grid_refinement.refine(
    model, space, tolerance=1e-10, max_evaluations=200
  )
  assert result.stopped == 'tolerance'
  germ = np.random.default_rng(0).uniform(-1, 1, (100, 4))
  np.testing.assert_allclose(result.expansion(germ), model(germ), atol=1e-12)
  # E[a⁶] = 1/7 and E[a²b²] = 1/9; 4 E[c²d²] = 4/9.
  np.testing.assert_allclose(
    result.history[-1].indices.total[:, 0] * (1 / 7 + 5 / 9),
    [1 / 7 + 1 / 9, 1 / 9, 4 / 9, 4 / 9],
    atol=1e-12,
  )


def test_outputs_do_not_starve_each_other():
  result = grid_refinement.refine(
    step_and_smooth, uniform_space(3), tolerance=0, max_evaluations=100
  )
  alone = grid_refinement.refine(
    lambda germ: step_and_smooth(germ)[:, :1],
    uniform_space(3),
    tolerance=0,
    max_evaluations=100,
  )
  # S of exp(second): 1 - 2 sinh(1)² / sinh(2) of its own second moment.
  mean, square = np.sinh(1), np.sinh(2) / 2
  mean_third, square_third = 4 / 3, 1 + 1 / 3 + 2 / 3 + 1 / 5
  variance = square * square_third - (mean * mean_third) ** 2
  expected = np.array(
    [
      0,
      (square - mean**2) * mean_third**2,
      mean**2 * (square_third - mean_third**2),
    ]
  )
  first_order = result.history[-1].indices.first_order
  np.testing.assert_allclose(
    first_order[:, 1], expected / variance, atol=2e-3
  )
  # The step has a grid of its own size besides, and finds its only factor.
  np.testing.assert_allclose(first_order[:, 0], [1, 0, 0], atol=1e-12)
  degrees = result.expansion.basis.degrees
  assert degrees[0] > 20
  assert degrees[1] > alone.expansion.basis.degrees[1]


def test_scale_and_offset_of_an_output_do_not_matter():
  def scaled(germ):
    return step_and_smooth(germ) * [1e6, 1e-3] + [2e6, 1e-3]

  options = {'tolerance': 0, 'max_evaluations': 60}
  space = uniform_space(3)
  same_grid(
    grid_refinement.refine(step_and_smooth, space, **options),
    grid_refinement.refine(scaled, space, **options),
  )


def test_constant_output_has_no_say():
  def padded(germ):
    outputs = step_and_smooth(germ)
    return np.concatenate([outputs, np.full((len(germ), 1), 1 / 3)], axis=1)

  options = {'tolerance': 0, 'max_evaluations': 60}
  space = uniform_space(3)
  with_constant = grid_refinement.refine(padded, space, **options)
  same_grid(
    with_constant, grid_refinement.refine(step_and_smooth, space, **options)
  )
  assert 'does not vary' in with_constant.history[-1].indices.reasons[2]


def test_model_that_is_constant_stops():
  result = grid_refinement.refine(
    lambda germ: np.ones((len(germ), 2)),
    uniform_space(2),
    tolerance=1e-3,
    max_evaluations=100,
  )
  assert result.stopped == 'tolerance'
  assert result.design.num_nodes < 20
  np.testing.assert_allclose(result.expansion.mean, 1, rtol=1e-12)


def test_order_of_factors_does_not_matter():
  model = test_functions.ishigami()
  order = [2, 0, 1]
  turned = factors.FactorSpace(tuple(model.space.factors[d] for d in order))
  options = {'tolerance': 0, 'max_evaluations': 150}
  result = grid_refinement.refine(model, model.space, **options)
  other = grid_refinement.refine(
    lambda germ: model(germ[:, np.argsort(order)]), turned, **options
  )
  np.testing.assert_allclose(
    other.history[-1].indices.total,
    result.history[-1].indices.total[order],
    atol=1e-7,
  )


def test_continuing_keeps_every_run():
  model = Counting(step_and_smooth)
  space = uniform_space(3)
  start = grid_refinement.refine(
    model, space, tolerance=0, max_evaluations=40, combine='mean'
  )
  result = grid_refinement.refine(
    model,
    space,
    tolerance=0,
    max_evaluations=90,
    combine='mean',
    start=start,
  )
  nodes = np.concatenate(model.nodes)
  assert len(nodes) == 90
  np.testing.assert_array_equal(result.design.nodes, nodes)
  np.testing.assert_array_equal(result.outputs[:40], start.outputs)
  counts = [step.num_evaluations for step in result.history]
  assert counts == sorted(set(counts))


def test_initial_set_runs_first_and_is_cut_at_the_budget():
  space = uniform_space(3)
  rows = multi_indices.tensor_product((4, 1, 0))
  model = Counting(step_and_smooth)
  grid_refinement.refine(
    model, space, tolerance=0, max_evaluations=30, initial=rows
  )
  expected = sparse_grids.sparse_grid(expansions.Basis(space, rows)).nodes
  np.testing.assert_array_equal(model.nodes[0], expected)
  short = grid_refinement.refine(
    model, space, tolerance=0, max_evaluations=5, initial=rows
  )
  assert short.design.num_nodes == 5


@pytest.mark.parametrize(
  ('initial', 'message'),
  [
    ([[0, 0, 0], [2, 0, 0]], 'downward closed'),
    (multi_indices.tensor_product((100, 0, 0)), 'degree 100 of factor'),
    ([[0, 0]], r'\(P, 3\)'),
  ],
)
def test_bad_initial_sets_are_refused_before_they_cost_runs(initial, message):
  model = Counting(step_and_smooth)
  with pytest.raises(ValueError, match=message):
    grid_refinement.refine(
      model,
      uniform_space(3),
      tolerance=0,
      max_evaluations=200,
      initial=initial,
    )
  assert not model.nodes


def test_refinement_ends_where_the_rules_end():
  space = factors.FactorSpace((factors.Factor('x', chaospy.Gamma(2)),))
  result = grid_refinement.refine(
    lambda germ: 1.0 * (germ > 1), space, tolerance=0, max_evaluations=500
  )
  assert result.stopped == 'degrees'
  assert result.design.num_nodes == 50


def test_outputs_that_are_not_finite_name_their_node():
  def broken(germ):
    outputs = step_and_smooth(germ)
    outputs[np.isclose(germ[:, 1], np.max(germ[:, 1])), 1] = np.nan
    return outputs

  with pytest.raises(ValueError, match=r'output 1 is nan at node \d+, germ c'):
    grid_refinement.refine(
      broken, uniform_space(3), tolerance=0, max_evaluations=40
    )


@pytest.mark.parametrize(
  'outputs',
  [
    lambda n: np.zeros(n),
    lambda n: np.zeros((n + 1, 2)),
    lambda n: np.zeros((n, 0)),
    lambda n: np.zeros((n, 2 + (n < 10))),
  ],
  ids=['flat', 'long', 'empty', 'changing'],
)
def test_outputs_of_another_shape_are_refused(outputs):
  with pytest.raises(ValueError, match='evaluate: expected outputs of shape'):
    grid_refinement.refine(
      lambda germ: outputs(len(germ)),
      uniform_space(3),
      tolerance=0,
      max_evaluations=40,
    )


@pytest.mark.parametrize(
  ('changed', 'message'),
  [
    ({'max_evaluations': 0}, 'max_evaluations: expected.*at least 1, got 0'),
    ({'max_evaluations': 2.5}, 'max_evaluations.*2.5'),
    ({'tolerance': -1}, 'tolerance.*-1'),
    ({'tolerance': np.nan}, 'tolerance.*nan'),
    ({'combine': 'sum'}, "'max' or 'mean', got 'sum'"),
  ],
)
def test_bad_options_are_refused(changed, message):
  options = {'tolerance': 0, 'max_evaluations': 20} | changed
  with pytest.raises(ValueError, match=message):
    grid_refinement.refine(step_and_smooth, uniform_space(3), **options)


def test_start_must_fit():
  options = {'tolerance': 0, 'max_evaluations': 20}
  start = grid_refinement.refine(step_and_smooth, uniform_space(3), **options)
  with pytest.raises(ValueError, match='at least 20, got 19'):
    grid_refinement.refine(
      step_and_smooth,
      uniform_space(3),
      tolerance=0,
      max_evaluations=19,
      start=start,
    )
  with pytest.raises(ValueError, match='start: expected a refinement in'):
    grid_refinement.refine(
      step_and_smooth, uniform_space(4), start=start, **options
    )
