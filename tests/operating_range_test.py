"""Failure probabilities, and the largest safe boxes against brute force."""

import itertools

import chaospy
import jax
import numpy as np
import pytest
from scipy import optimize

from jaxsens import box_search
from jaxsens import factors
from jaxsens import failure
from jaxsens import marginals
from jaxsens import operating_range

KEY = jax.random.key(0)


def make_space(*distributions):
  return factors.FactorSpace(tuple(
    factors.Factor(f'x{i}', distribution, 'm')
    for i, distribution in enumerate(distributions)
  ))


def unit_space(dim):
  return make_space(*[chaospy.Uniform(0, 1)] * dim)


def to_unit(germ):
  return (germ + 1) / 2


def never(germ):
  return np.zeros(len(germ))


def always(germ):
  return np.ones(len(germ))


def brute_force(table, start, max_failure):
  """Largest mass of all boxes of equal cells that hold the start, by loops."""
  sides = [
    [(a, b) for a in range(place + 1) for b in range(place, size + 1) if a < b]
    for place, size in zip(start, table.shape, strict=True)
  ]
  best = 0.0
  for box in itertools.product(*sides):
    inside = table[tuple(slice(a, b) for a, b in box)]
    if inside.mean() <= max_failure + 1e-12:
      best = max(best, inside.size / table.size)
  return best


def test_failure_probability_of_a_half_space():
  # P(x0 + x1 > 1.5) = 1/8.
  failing = lambda germ: to_unit(germ).sum(1) > 1.5
  found = failure.failure_probability(KEY, unit_space(2), failing, 20_000)
  error = np.sqrt(1 / 8 * 7 / 8 / 20_000)
  np.testing.assert_allclose(found.standard_error, error, rtol=0.03)
  np.testing.assert_allclose(found.value, 1 / 8, atol=5 * error)
  assert found.lower < 1 / 8 < found.upper


def test_weighted_failure_probability_is_the_weighted_mean():
  failed = np.array([[0, 1], [1, 1], [0, 0.5]])
  found = failure.weighted_failure_probability(failed, [0.2, 0.3, 0.5])
  np.testing.assert_allclose(found.value, [0.3, 0.75])
  # sqrt(0.04 0.09 + 0.09 0.49 + 0.25 0.09)
  np.testing.assert_allclose(found.standard_error[0], np.sqrt(0.0702))


@pytest.mark.parametrize(('num_failed', 'lower', 'upper'), [
  # 1 - 0.025^(1/20); the middle row is the textbook interval of 2 in 20.
  (0, 0, 0.168433), (2, 0.012349, 0.316983), (20, 0.831567, 1),
])
def test_intervals_are_those_of_clopper_and_pearson(num_failed, lower, upper):
  failed = np.arange(20) < num_failed
  found = failure.weighted_failure_probability(failed, np.full(20, 1 / 20))
  np.testing.assert_allclose([found.lower, found.upper], [lower, upper],
                             atol=1e-6)


def test_intervals_cover_at_least_as_often_as_they_say():
  failed = np.random.default_rng(0).random((200, 500)) < 0.03
  found = failure.estimate(failed, np.ones(failed.shape, bool))
  covered = np.mean((found.lower <= 0.03) & (found.upper >= 0.03))
  # 95 % less five standard errors of 500 trials.
  assert covered >= 0.95 - 5 * np.sqrt(0.95 * 0.05 / 500)


@pytest.mark.parametrize('max_failure', [0.01, 0.1, 0.3])
@pytest.mark.parametrize(('dim', 'num_cells'), [(1, 40), (2, 10), (3, 6)])
def test_box_is_the_best_of_all_boxes_of_the_grid(dim, num_cells, max_failure):
  shape = (num_cells,) * dim
  for seed in range(3):
    table = np.random.default_rng(seed).random(shape) < 0.12
    start = (num_cells // 2,) * dim

    def failing(germ, table=table):
      cells = tuple(np.floor(to_unit(germ) * num_cells).astype(int).T)
      # The nominal point itself, an edge of cells, does not fail.
      return table[cells] & ~np.all(germ == 0, axis=1)

    found = operating_range.safe_box(
      KEY, unit_space(dim), failing, [0.5] * dim, max_failure,
      num_cells=num_cells, num_check=10,
    )
    expected = brute_force(table, start, max_failure)
    np.testing.assert_allclose(found.mass, expected, atol=1e-12)
    if expected:
      assert found.search_failure <= max_failure + 1e-12
      assert np.all(found.lower <= 0.5) and np.all(found.upper >= 0.5)
      np.testing.assert_allclose(np.prod(found.upper - found.lower), expected)
    else:
      assert found.status == 'below resolution' and found.is_empty


def test_search_in_steps_finds_what_the_search_of_all_boxes_finds(monkeypatch):
  failing = lambda germ: np.sum(germ**2, 1) > 0.7
  run = lambda: operating_range.safe_box(
    KEY, unit_space(2), failing, [0.4, 0.5], 0.05, num_cells=60
  )
  every = run()
  monkeypatch.setattr(box_search, '_MAX_BOXES', 20_000)
  np.testing.assert_allclose(run().mass, every.mass, rtol=1e-9)


@pytest.mark.parametrize(('dim', 'tolerance'), [(2, 0.02), (3, 0.06)])
def test_box_under_a_half_space(dim, tolerance):
  # Failing where sum(x) > 1. In [0, a]^D (a <= 1, the corner cut off is a
  # simplex of edge s = D a - 1 <= a): share s^D / (D! a^D) = p, so that
  # a = 1 / (D - (D! p)^(1/D)).
  factorial = {2: 2, 3: 6}[dim]
  edge = 1 / (dim - (factorial * 0.02) ** (1 / dim))
  failing = lambda germ: to_unit(germ).sum(1) > 1
  found = operating_range.safe_box(
    KEY, unit_space(dim), failing, [0.0] * dim, 0.02
  )
  np.testing.assert_allclose(found.mass, edge**dim, rtol=tolerance)
  np.testing.assert_allclose(found.lower, 0)
  assert found.status == 'box' and not found.is_refuted
  assert found.check.lower <= 0.02 <= found.check.upper + 0.002


def test_box_in_a_disc():
  # Square of half edge a around the centre of a disc of radius 1/2, a < 1/2:
  # four segments of the disc stick out of it.
  def share(a):
    segment = np.arccos(2 * a) / 4 - a * np.sqrt(1 / 4 - a**2)
    return 1 - (np.pi / 4 - 4 * segment) / (4 * a**2)

  half = optimize.brentq(lambda a: share(a) - 0.05, 0.36, 0.499)
  failing = lambda germ: np.sum((to_unit(germ) - 0.5) ** 2, 1) > 1 / 4
  found = operating_range.safe_box(
    KEY, unit_space(2), failing, [0.5, 0.5], 0.05
  )
  np.testing.assert_allclose(found.mass, (2 * half) ** 2, rtol=0.015)
  np.testing.assert_allclose(found.upper, 0.5 + half, atol=0.03)
  assert found.check.lower <= 0.05 <= found.check.upper
  # All draws of the check are in the one box.
  assert found.check.num_draws == 2**12


@pytest.mark.parametrize('dim', [4, 6])
def test_box_of_many_factors_under_independent_limits(dim):
  # Failing where x0 > 0.6 or x1 > 0.8, and in no other factor: safe where
  # (0.6 / b0) (0.8 / b1) >= 1 - p, so that b0 b1 = 0.48 / (1 - p).
  failing = lambda germ: (to_unit(germ)[:, 0] > 0.6) | (
    to_unit(germ)[:, 1] > 0.8
  )
  found = operating_range.safe_box(
    KEY, unit_space(dim), failing, [0.3] * dim, 0.1, num_points=2**13
  )
  np.testing.assert_allclose(found.mass, 0.48 / 0.9, rtol=0.05)
  np.testing.assert_allclose(found.upper[2:], 1)
  assert found.check.value < 0.13


def test_box_of_four_factors_comes_near_to_the_exact_grid_search():
  # The fourth factor does nothing, so the box of three factors is the truth.
  failing = lambda germ: to_unit(germ)[:, :3].sum(1) > 1.2
  exact = operating_range.safe_box(
    KEY, unit_space(3), failing, [0.1] * 3, 0.05
  )
  found = operating_range.safe_box(
    KEY, unit_space(4), failing, [0.1] * 4, 0.05
  )
  np.testing.assert_allclose(found.mass, exact.mass, rtol=0.1)
  assert found.search_failure <= 0.05


def test_a_box_of_too_few_points_is_not_offered():
  # A cube of 0.12^4 holds 7 of the 2^15 points: too few to tell 1 % from 0.
  failing = lambda germ: np.any(np.abs(to_unit(germ) - 0.5) > 0.06, axis=1)
  found = operating_range.safe_box(
    KEY, unit_space(4), failing, [0.5] * 4, 0.01
  )
  assert found.status == 'below resolution' and found.is_empty


@pytest.mark.parametrize('others', ['nominal', 'distribution'])
def test_range_beside_a_limit(others):
  # Failing where x0 > 0.6: (b - 0.6) / b <= p, so that b = 0.6 / (1 - p).
  failing = lambda germ: to_unit(germ)[:, 0] > 0.6
  found = operating_range.safe_range(
    KEY, unit_space(3), failing, 'x0', [0.5] * 3, 0.04, others=others
  )
  assert found.names == ('x0',) and found.units == ('m',)
  np.testing.assert_allclose(found.lower, 0)
  np.testing.assert_allclose(found.upper, 0.625, atol=0.004)
  assert found.check.lower <= 0.04 <= found.check.upper


def test_range_over_the_distribution_of_the_others():
  # P(x0 + x1 > 1.2 | x0 <= b) = (b - 0.2)^2 / (2 b), by a triangle.
  failing = lambda germ: to_unit(germ)[:, 0] + to_unit(germ)[:, 1] > 1.2
  space = unit_space(2)
  run = lambda others: operating_range.safe_range(
    KEY, space, failing, 'x0', [0.1, 0.5], 0.1, others=others
  )
  # (b - 0.2)^2 = 0.2 b: b = 0.3 + sqrt(0.05).
  found = run('distribution')
  np.testing.assert_allclose(found.upper, 0.3 + np.sqrt(0.05), atol=0.01)
  assert found.check.lower <= 0.1 <= found.check.upper
  # With x1 = 0.5 it fails where x0 > 0.7: b = 0.7 / 0.9.
  found = run('nominal')
  np.testing.assert_allclose(found.upper, 0.7 / 0.9, atol=0.002)
  assert found.check.lower <= 0.1 <= found.check.upper


def test_range_is_in_physical_values_and_measured_by_probability():
  space = make_space(chaospy.LogUniform(0, 2), chaospy.Normal(10, 2))
  # Failing above 4 and below 1.2 of the first, beyond one sigma of the second.
  failing = lambda germ: (space.to_values(germ)[:, 0] > 4) | (
    np.abs(germ[:, 1]) > 1
  )
  found = operating_range.safe_range(
    KEY, space, failing, 'x0', [2, 10], 1e-6, others='nominal'
  )
  np.testing.assert_allclose(found.upper, 4, rtol=0.003)
  np.testing.assert_allclose(found.mass, np.log(4) / 2, atol=0.002)
  found = operating_range.safe_range(
    KEY, space, failing, 'x1', [2, 10], 1e-6, others='nominal'
  )
  np.testing.assert_allclose([*found.lower, *found.upper], [8, 12], atol=0.02)
  # P(|normal| < 1)
  np.testing.assert_allclose(found.mass, 0.6826895, atol=0.003)


def test_atoms_of_discrete_factors_are_in_or_out():
  atoms = marginals.Discrete([1, 2, 3, 5, 8], [0.1, 0.2, 0.3, 0.3, 0.1])
  space = make_space(atoms, chaospy.Uniform(0, 1))
  # Failing at 1 for all, at 8 for x1 > 1/2.
  def failing(germ):
    values = space.to_values(germ)
    return (values[:, 0] == 1) | ((values[:, 0] == 8) & (values[:, 1] > 0.5))

  run = lambda max_failure: operating_range.safe_box(
    KEY, space, failing, [3, 0.25], max_failure, num_cells=40
  )
  small = run(0.01)
  np.testing.assert_allclose(small.lower, [2, 0])
  np.testing.assert_allclose(small.upper, [5, 1])
  np.testing.assert_allclose(small.mass, 0.8)
  # Atom 8 adds 0.05 of 0.9.
  large = run(0.06)
  np.testing.assert_allclose([large.lower[0], large.upper[0]], [2, 8])
  np.testing.assert_allclose(large.search_failure, 0.05 / 0.9)
  alone = operating_range.safe_range(
    KEY, space, failing, 'x0', [5, 0.25], 0.01, others='nominal'
  )
  np.testing.assert_allclose([*alone.lower, *alone.upper], [2, 8])


def test_many_atoms_share_cells():
  space = make_space(marginals.Discrete(np.arange(1000.0)))
  failing = lambda germ: space.to_values(germ)[:, 0] >= 700
  found = operating_range.safe_box(
    KEY, space, failing, [400.0], 0.01, num_cells=50
  )
  # 701 ... 707 atoms of which 1 % fail, to the 20 atoms of a cell.
  np.testing.assert_allclose(found.upper, 703, atol=21)
  assert found.lower == 0


def test_of_equal_intervals_the_one_that_fails_least_is_taken():
  # Cells of 1/4: [0, 3/4] fails at 1/3 of its points, [1/4, 1] at 0.4.
  failed = np.array([1.0, 0.0, 0.0, 1.2]) * np.array([1, 0, 0, 0.8])

  def failing(germ):
    cells = np.floor(to_unit(germ[:, 0]) * 4).astype(int)
    return np.where(germ[:, 0] == 0, 0, failed[cells])

  found = operating_range.safe_box(
    KEY, unit_space(1), failing, [0.5], 0.35, num_cells=4
  )
  np.testing.assert_allclose([*found.lower, *found.upper], [0.25, 1])
  np.testing.assert_allclose(found.search_failure, 0.96 / 3)


@pytest.mark.parametrize('dim', [1, 2, 3, 4])
def test_what_never_fails_is_safe_everywhere(dim):
  found = operating_range.safe_box(
    KEY, unit_space(dim), never, [0.3] * dim, 0.01,
    num_cells=8, num_points=2**12,
  )
  assert found.status == 'whole' and found.is_whole and not found.is_empty
  np.testing.assert_array_equal(found.lower, 0)
  np.testing.assert_array_equal(found.upper, 1)
  assert found.mass == 1 and found.check.value == 0
  # 1 - 0.025^(1 / 4096)
  np.testing.assert_allclose(found.check.upper, 9.0019e-4, rtol=1e-3)


@pytest.mark.parametrize('dim', [1, 3, 4])
def test_where_the_nominal_point_fails_there_is_no_box(dim):
  found = operating_range.safe_box(
    KEY, unit_space(dim), always, [0.3] * dim, 0.01, num_cells=8
  )
  assert found.status == 'nominal fails' and found.is_empty
  assert np.isnan(found.upper).all() and found.mass == 0
  assert found.check.num_draws == 0 and np.isnan(found.check.value)
  for others in ('nominal', 'distribution'):
    found = operating_range.safe_range(
      KEY, unit_space(dim), always, 'x0', [0.3] * dim, 0.01, others=others
    )
    assert found.status == 'nominal fails'


@pytest.mark.parametrize('value', [0.0, 1.0])
def test_nominal_values_may_lie_at_the_ends_of_the_range(value):
  failing = lambda germ: np.abs(to_unit(germ)[:, 0] - value) > 0.495
  found = operating_range.safe_box(
    KEY, unit_space(2), failing, [value, value], 0.01
  )
  np.testing.assert_allclose(found.mass, 0.5, atol=0.005)
  assert found.lower[0] == 0 if value == 0 else found.upper[0] == 1


def test_images_are_treated_one_by_one():
  limits = np.array([0.3, 0.9, 0.45, 2.0])
  failing = lambda germ: to_unit(germ)[:, :1] > limits
  found = operating_range.safe_box(
    KEY, unit_space(2), failing, [0.4, 0.4], 0.02, num_cells=50
  )
  assert found.lower.shape == (4, 2) and found.check.value.shape == (4,)
  assert found.status.tolist() == ['nominal fails', 'box', 'box', 'whole']
  for i in range(4):
    alone = operating_range.safe_box(
      KEY, unit_space(2), lambda germ, i=i: failing(germ)[:, i], [0.4, 0.4],
      0.02, num_cells=50,
    )
    np.testing.assert_array_equal(found.take(i).upper, alone.upper)
    np.testing.assert_array_equal(found.take(i).mass, alone.mass)


def test_a_box_found_by_chance_is_refuted_by_the_check():
  # Fails at one of three points, but at none of those of the search.
  calls = []

  def failing(germ):
    calls.append(len(germ))
    return np.full(len(germ), 0.0 if len(calls) == 1 else 1 / 3)

  found = operating_range.safe_box(KEY, unit_space(1), failing, [0.5], 0.05)
  assert found.is_whole and found.is_refuted
  assert found.num_evaluations == sum(calls)


def run_box(nominal=(0.5, 0.5), max_failure=0.1, failing=never, **options):
  return operating_range.safe_box(
    KEY, unit_space(2), failing, nominal, max_failure, **options
  )


def test_bad_input_is_named():
  with pytest.raises(ValueError, match="2 of factor 'x1' is outside .* m"):
    run_box((0.5, 2.0))
  with pytest.raises(ValueError, match='nan'):
    run_box((0.5, np.nan))
  with pytest.raises(ValueError, match=r'nominal.*\(3,\)'):
    run_box((0.5, 0.5, 0.5))
  for max_failure in (0.0, 1.0, np.nan):
    with pytest.raises(ValueError, match='max_failure'):
      run_box(max_failure=max_failure)
  with pytest.raises(ValueError, match='num_cells'):
    run_box(num_cells=1)
  with pytest.raises(ValueError, match='num_check'):
    run_box(num_check=0)
  with pytest.raises(ValueError, match=r'failing: expected numbers in \[0, 1'):
    run_box(failing=lambda germ: germ[:, 0] * 3)
  with pytest.raises(ValueError, match='failing'):
    run_box(failing=lambda germ: np.full(len(germ), np.nan))
  with pytest.raises(ValueError, match='failing: expected shape'):
    run_box(failing=lambda germ: np.zeros(3))
  for options in ({'name': 'tilt'}, {'others': 'mean'}):
    arguments = {'name': 'x0', 'others': 'nominal'} | options
    with pytest.raises(ValueError, match=next(iter(options.values()))):
      operating_range.safe_range(
        KEY, unit_space(2), never, nominal=[0.5] * 2, max_failure=0.1,
        **arguments,
      )
  with pytest.raises(ValueError, match='num_draws'):
    failure.failure_probability(KEY, unit_space(1), never, 0)
  with pytest.raises(ValueError, match='weights'):
    failure.weighted_failure_probability([0, 1], [0.5, 0.6])
  with pytest.raises(ValueError, match='shape'):
    failure.weighted_failure_probability([0, 1, 1], [0.5, 0.5])
  with pytest.raises(ValueError, match='none of its 2 values'):
    operating_range.safe_box(
      KEY, make_space(marginals.Discrete([0, 2])), never, [1.0], 0.1
    )
