"""The one call from a function to its indices, against closed forms."""

import chaospy
import jax
import numpy as np
import pytest

from jaxsens import factors
from jaxsens import sensitivity

# Ishigami function with a = 7, b = 0.1 on U(-pi, pi)^3; closed-form indices
# (Ishigami and Homma 1990).
_FIRST = [0.31390519, 0.44241114, 0.0]
_TOTAL = [0.55758886, 0.44241114, 0.24368366]


def _space(names='abc'):
  return factors.FactorSpace(tuple(
    factors.Factor(name, chaospy.Uniform(-np.pi, np.pi)) for name in names
  ))


def _ishigami(values):
  a, b, c = values.T
  return np.sin(a) + 7 * np.sin(b) ** 2 + 0.1 * c**4 * np.sin(a)


_TENSOR = {'design': 'tensor_gauss'}


@pytest.mark.parametrize('settings', [
  sensitivity.Settings(),
  sensitivity.Settings(**_TENSOR, num_nodes={'a': 14, 'b': 16, 'c': 10}),
  sensitivity.Settings(
    design='latin_hypercube', num_samples=1500, truncation='total', degree=12
  ),
  sensitivity.Settings(
    design='sobol_sequence', num_samples=1024, truncation='hyperbolic',
    degree=14, q=0.8,
  ),
  sensitivity.Settings(
    design='latin_hypercube', num_samples=2000, degrees={'a': 7, 'b': 8},
    degree=5,
  ),
], ids=lambda s: f'{s.design}-{s.truncation}')
def test_indices_of_the_ishigami_function(settings):
  result = sensitivity.analyse(
    jax.random.key(1), _ishigami, _space(), settings
  )
  np.testing.assert_allclose(
    result.indices.first_order[:, 0], _FIRST, atol=6e-3
  )
  np.testing.assert_allclose(result.indices.total[:, 0], _TOTAL, atol=6e-3)
  assert result.q2[0] > 0.99 and result.verdicts[0].trusted
  lower = result.intervals.total_lower[:, 0] - 1e-9
  assert (lower <= _TOTAL).all()
  assert (result.intervals.total_upper[:, 0] + 1e-9 >= _TOTAL).all()
  random = settings.design in ('latin_hypercube', 'sobol_sequence')
  assert (result.loo_q2 is None) != random


def test_too_low_a_degree_is_not_trusted_and_says_what_to_raise():
  result = sensitivity.analyse(
    jax.random.key(1), _ishigami, _space(),
    sensitivity.Settings(**_TENSOR, num_nodes={'a': 6, 'b': 3, 'c': 6}),
  )
  assert result.q2[0] < 0.9 and not result.verdicts[0].trusted
  assert 'num_nodes.b' in result.verdicts[0].advice[0]
  # The intervals still hold the truth.
  assert (result.intervals.first_order_lower[:, 0] <= _FIRST).all()
  assert (np.array(_FIRST) <= result.intervals.first_order_upper[:, 0]).all()


def test_advice_for_a_random_design_names_its_number_of_samples():
  result = sensitivity.analyse(
    jax.random.key(1), _ishigami, _space(),
    sensitivity.Settings(
      design='latin_hypercube', num_samples=200, degree=2, truncation='total'
    ),
  )
  assert 'gpc.num_samples' in result.verdicts[0].advice[0]
  assert 'num_nodes' not in ''.join(result.verdicts[0].advice)


def test_result_does_not_depend_on_the_order_of_the_factors():
  settings = sensitivity.Settings(
    **_TENSOR, num_nodes={'a': 14, 'b': 16, 'c': 10}
  )
  swapped = sensitivity.analyse(
    jax.random.key(1), lambda v: _ishigami(v[:, [2, 0, 1]]), _space('bca'),
    settings,
  )
  assert swapped.indices.names == ('b', 'c', 'a')
  np.testing.assert_allclose(
    swapped.indices.total[[2, 0, 1], 0], _TOTAL, atol=6e-3
  )


def test_mean_derivative_is_in_physical_units():
  space = factors.FactorSpace((
    factors.Factor('x', chaospy.Uniform(2, 10)),
    factors.Factor('y', chaospy.Normal(0, 3)),
  ))
  result = sensitivity.analyse(
    jax.random.key(0), lambda v: 5 * v[:, 0] - 2 * v[:, 1], space
  )
  np.testing.assert_allclose(
    result.mean_derivatives[:, 0], [5, -2], rtol=1e-9
  )


def test_constant_output_has_no_indices_and_says_why():
  result = sensitivity.analyse(
    jax.random.key(0), lambda v: np.full(len(v), 3.0), _space()
  )
  assert np.isnan(result.indices.first_order).all()
  assert np.isnan(result.indices.total).all()
  assert result.indices.reasons[0]
  assert not result.verdicts[0].trusted


@pytest.mark.parametrize(('settings', 'message'), [
  ({'design': 'gauss'}, 'design'),
  ({'truncation': 'full'}, 'truncation'),
  ({'num_held_out': 0}, 'num_held_out'),
  ({'max_evaluations': 10}, 'max_evaluations is 10'),
  ({'tolerance': 0.0}, 'tolerance'),
])
def test_unknown_settings_are_refused(settings, message):
  with pytest.raises(ValueError, match=message):
    sensitivity.Settings(**settings)


def test_settings_of_a_factor_that_is_not_there_are_refused():
  with pytest.raises(ValueError, match=r"num_nodes names \['z'\]"):
    sensitivity.plan(
      jax.random.key(0), _space(),
      sensitivity.Settings(**_TENSOR, num_nodes={'z': 3}),
    )


def test_outputs_of_another_length_are_refused():
  plan = sensitivity.plan(
    jax.random.key(0), _space(), sensitivity.Settings(
      **_TENSOR, num_nodes=dict.fromkeys('abc', 3)
    ),
  )
  with pytest.raises(ValueError, match=r'outputs must be \(539, K\)'):
    sensitivity.conclude(jax.random.key(0), plan, np.zeros((5, 1)))


def test_an_adaptive_run_has_no_plan():
  with pytest.raises(ValueError, match='call refine'):
    sensitivity.plan(jax.random.key(0), _space(), sensitivity.Settings())


def test_an_adaptive_run_stops_within_its_budget_and_counts_its_runs():
  asked = []

  def function(values):
    asked.append(len(values))
    return _ishigami(values)

  result = sensitivity.analyse(
    jax.random.key(0), function, _space(),
    sensitivity.Settings(max_evaluations=100, min_evaluations=32),
  )
  assert sum(asked) == result.num_evaluations <= 100
  assert result.method == 'sparse'
  np.testing.assert_allclose(result.surrogate(result.nodes)[:, 0], _ishigami(
    result.expansion.basis.space.to_values(result.nodes)
  ), atol=0.05)


def test_where_no_surrogate_helps_the_indices_are_sampled_from_the_function():
  # A wave far shorter than the distance of any two nodes; the first factor
  # alone carries 1/2 of the variance.
  def function(values):
    a, b, _ = values.T
    return np.sign(np.sin(4e4 * a)) + np.sign(np.sin(3e4 * b))

  result = sensitivity.analyse(
    jax.random.key(0), function, _space(),
    sensitivity.Settings(
      max_evaluations=64, min_evaluations=32, fallback_evaluations=8192
    ),
  )
  assert result.method == 'pick_freeze'
  assert result.num_evaluations == 64 + 8190
  np.testing.assert_allclose(
    result.indices.total[:, 0], [0.5, 0.5, 0], atol=0.08
  )


@pytest.mark.parametrize('settings', [
  sensitivity.Settings(min_evaluations=256),
  sensitivity.Settings(**_TENSOR, num_nodes={'a': 40, 'b': 4, 'c': 4}),
], ids=lambda s: s.design)
def test_sharp_factor_is_found_and_named(settings):
  # A peak along a, as wide as 1/25 of its half range; a polynomial of degree 2
  # along b; no effect of c.
  result = sensitivity.analyse(
    jax.random.key(1),
    lambda v: 1 / (1 + (8 * (v[:, 0] - 0.5)) ** 2) + 0.01 * v[:, 1] ** 2,
    _space(), settings,
  )
  np.testing.assert_array_equal(result.decay.slow[:, 0], [True, False, False])
  assert result.decay.required_degrees[1, 0] <= 3
  assert result.decay.sentence().startswith('sharp response along a (degree')


def test_advice_without_trust_ends_with_the_sharp_factors():
  def step(values):
    return np.sign(values[:, 0] + 0.6 * values[:, 1] + 0.5)

  doubted = sensitivity.analyse(
    jax.random.key(1), step, _space('ab'),
    sensitivity.Settings(**_TENSOR, num_nodes={'a': 8, 'b': 8}, min_q2=0.999),
  )
  assert doubted.decay.slow.any()
  assert 'gpc.num_nodes' in doubted.verdicts[0].advice[0]
  assert doubted.verdicts[0].advice[-1] == doubted.decay.sentence()
  trusted = sensitivity.analyse(
    jax.random.key(1), step, _space('ab'),
    sensitivity.Settings(**_TENSOR, num_nodes={'a': 8, 'b': 8}, min_q2=0.1),
  )
  assert trusted.decay.slow.any() and trusted.verdicts[0].advice == ()


def test_smooth_and_constant_responses_are_not_sharp():
  for function in (_ishigami, lambda v: np.full(len(v), 3.0)):
    result = sensitivity.analyse(jax.random.key(0), function, _space())
    assert not result.decay.slow.any() and result.decay.sentence() == ''
  assert np.isnan(result.decay.required_degrees).all()
