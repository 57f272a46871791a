"""Kriging against loops, full solves, finite differences and refits."""

import dataclasses
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import chaospy
import jax
import numpy as np

from jaxsens import factors
from jaxsens import marginals
from jaxsens.gpc import designs
from jaxsens.gpc import kriging
from tests.oracles import gaussian_process
from tests.oracles import test_functions

_CUBE = test_functions.space_of(
  a=chaospy.Uniform(-1, 1), b=chaospy.Uniform(-1, 1)
)


def mixed_space():
  """One factor of each kind of germ."""
  space = test_functions.space_of(
    tilt=chaospy.Normal(3, 2), blur=chaospy.LogUniform(0, 2),
    dose=chaospy.Gamma(2.0), offset=chaospy.Uniform(5, 9),
  )  # fmt: skip
  lens = factors.Factor('lens', marginals.Discrete([0.0, 1.0, 5.0]))
  return factors.FactorSpace((*space.factors, lens))


def some_prior(space, seed=0, **changes):
  """A prior with no two parameters alike."""
  rng = np.random.default_rng(seed)
  return dataclasses.replace(
    kriging.default_prior(space),
    lengths=rng.uniform([[0.8], [0.2]], [[2.0], [0.5]], (2, space.dim)),
    share=0.3, amplitude=rng.uniform(-0.5, 0.5, (2, space.dim)), constant=0.4,
    **{'nugget': 1e-2} | changes,
  )


def some_data(space, num_nodes=15, num_outputs=3, seed=1):
  """Nodes of the germ and rough outputs of unlike sizes."""
  nodes = designs.sobol_sequence(jax.random.key(seed), space, num_nodes).nodes
  rng = np.random.default_rng(seed)
  outputs = np.sin(3 * nodes @ rng.normal(size=(space.dim, num_outputs)))
  outputs += 0.2 * rng.normal(size=outputs.shape)
  return nodes, outputs * 10.0 ** np.arange(num_outputs) + 5


class CovarianceTest(parameterized.TestCase):

  @parameterized.named_parameters(
    ('uniform', _CUBE), ('mixed', mixed_space())
  )
  def test_covariance_equals_the_loop(self, space):
    prior = some_prior(space)
    nodes, _ = some_data(space)
    x = prior.standardise(nodes)
    np.testing.assert_allclose(
      kriging.covariance(prior, x, x[:4]),
      gaussian_process.covariance(prior, x, x[:4]), rtol=1e-12,
    )

  def test_standardised_coordinates_have_mean_zero_and_variance_a_third(self):
    # So that a uniform factor covers [-1, 1].
    space = mixed_space()
    prior = kriging.default_prior(space)
    nodes = designs.latin_hypercube(jax.random.key(0), space, 20_000).nodes
    x = prior.standardise(nodes)
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=2e-3)
    np.testing.assert_allclose(x.var(axis=0), 1 / 3, rtol=2e-2)

  def test_uniform_factor_covers_minus_one_to_one(self):
    prior = kriging.default_prior(_CUBE)
    np.testing.assert_allclose(
      prior.standardise([[-1.0, 1.0]]), [[-1.0, 1.0]], rtol=1e-12
    )

  def test_narrow_lengths_count_where_they_carry_variance(self):
    prior = some_prior(_CUBE)
    np.testing.assert_array_equal(prior.shortest_lengths, prior.lengths[1])
    wide = dataclasses.replace(prior, share=1e-4)
    np.testing.assert_array_equal(wide.shortest_lengths, wide.lengths[0])


class LearnTest(parameterized.TestCase):

  @parameterized.named_parameters(
    ('uniform', _CUBE), ('mixed', mixed_space())
  )
  def test_gradient_equals_central_differences(self, space):
    initial = kriging.default_prior(space)
    nodes, outputs = some_data(space)
    x = initial.standardise(nodes)
    y = (outputs - outputs.mean(axis=0)) / outputs.std(axis=0)
    at = kriging._to_vector(some_prior(space))
    pairs = kriging._Pairs.of(x)
    objective = lambda v: kriging._objective(initial, pairs, y, v)[0]
    step, unit = 1e-5, np.eye(len(at))
    expected = [
      (objective(at + step * e) - objective(at - step * e)) / (2 * step)
      for e in unit
    ]
    found = kriging._objective(initial, kriging._Pairs.of(x), y, at)[1]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)

  def test_objective_is_the_profiled_likelihood_and_a_weak_prior(self):
    initial = kriging.default_prior(_CUBE)
    nodes, outputs = some_data(_CUBE)
    x, y = initial.standardise(nodes), outputs - outputs.mean(axis=0)
    prior = some_prior(_CUBE)
    at = kriging._to_vector(prior)
    away = np.sum((at - kriging._to_vector(initial)) ** 2)
    expected = gaussian_process.mean_log_likelihood(prior, x, y)
    found = -kriging._objective(initial, kriging._Pairs.of(x), y, at)[0]
    np.testing.assert_allclose(
      found, expected - 0.5 * kriging._PENALTY * away, rtol=1e-9
    )

  def test_vector_and_prior_are_inverse(self):
    prior = some_prior(mixed_space())
    back = kriging._from_vector(prior, kriging._to_vector(prior))
    for field in ('lengths', 'share', 'amplitude', 'constant', 'nugget'):
      np.testing.assert_allclose(
        getattr(back, field), getattr(prior, field), rtol=1e-14
      )

  def test_learned_prior_is_likelier_than_the_initial_one(self):
    initial = kriging.default_prior(_CUBE)
    nodes, outputs = some_data(_CUBE, 30)
    found = kriging.learn(jax.random.key(0), initial, nodes, outputs)
    y = outputs - outputs.mean(axis=0)
    x = initial.standardise(nodes)
    likelihood = lambda p: gaussian_process.mean_log_likelihood(p, x, y)
    self.assertGreater(likelihood(found), likelihood(initial) + 0.01)
    y = y / y.std(axis=0)
    self.assertGreaterEqual(
      found.log_likelihood,
      -kriging._objective(
        initial, kriging._Pairs.of(x), y, kriging._to_vector(initial)
      )[0],
    )

  def test_factor_that_does_nothing_gets_the_longer_length(self):
    nodes = designs.sobol_sequence(jax.random.key(0), _CUBE, 32).nodes
    prior = kriging.learn(
      jax.random.key(1), kriging.default_prior(_CUBE), nodes,
      np.sin(4 * nodes[:, [1]]),
    )
    self.assertGreater(prior.lengths[0, 0], 3 * prior.lengths[0, 1])

  def test_constant_outputs_are_left_out(self):
    nodes, outputs = some_data(_CUBE)
    padded = np.insert(outputs, 1, 0.1, axis=1)
    found, expected = (
      kriging.learn(
        jax.random.key(0), kriging.default_prior(_CUBE), nodes, y
      )
      for y in (padded, outputs)
    )
    np.testing.assert_array_equal(found.lengths, expected.lengths)
    self.assertEqual(found.log_likelihood, expected.log_likelihood)

  def test_constant_outputs_alone_leave_the_prior_as_it_was(self):
    nodes, _ = some_data(_CUBE)
    initial = some_prior(_CUBE)
    found = kriging.learn(
      jax.random.key(0), initial, nodes, np.full((len(nodes), 2), 0.1)
    )
    self.assertIs(found, initial)

  def test_units_of_the_outputs_do_not_matter(self):
    nodes, outputs = some_data(_CUBE)
    initial = kriging.default_prior(_CUBE)
    learn = lambda y: kriging.learn(
      jax.random.key(0), initial, nodes, y, max_iterations=5
    )
    found, expected = learn(-256.0 * outputs + 64.0), learn(outputs)
    np.testing.assert_allclose(found.lengths, expected.lengths, rtol=1e-6)
    np.testing.assert_allclose(
      found.log_likelihood, expected.log_likelihood, rtol=1e-8
    )

  def test_order_of_the_factors_does_not_matter(self):
    space = test_functions.space_of(
      a=chaospy.Normal(0, 1), b=chaospy.Uniform(-1, 1), c=chaospy.Uniform(0, 4)
    )
    order = [2, 0, 1]
    turned = factors.FactorSpace(tuple(space.factors[d] for d in order))
    nodes, outputs = some_data(space, 25)
    key = jax.random.key(0)
    learn = lambda s, x: kriging.learn(
      key, kriging.default_prior(s), x, outputs, max_iterations=8
    )
    expected, found = learn(space, nodes), learn(turned, nodes[:, order])
    np.testing.assert_allclose(
      found.lengths, expected.lengths[:, order], rtol=1e-5
    )
    np.testing.assert_allclose(
      found.amplitude, expected.amplitude[:, order], atol=1e-5
    )

  def test_too_many_nodes_are_thinned_by_the_key(self):
    nodes, outputs = some_data(_CUBE, 40)
    learn = lambda seed: kriging.learn(
      jax.random.key(seed), kriging.default_prior(_CUBE), nodes, outputs,
      max_iterations=3,
    )
    with mock.patch.object(kriging, '_MAX_LEARNED', 20):
      first, again, other = learn(0), learn(0), learn(1)
    np.testing.assert_array_equal(first.lengths, again.lengths)
    self.assertFalse(np.array_equal(first.lengths, other.lengths))


class ConditionTest(parameterized.TestCase):

  @parameterized.named_parameters(
    ('uniform', _CUBE, 1e-2), ('mixed', mixed_space(), 1e-2),
    ('small_nugget', _CUBE, 1e-6),
  )
  def test_leave_one_out_equals_refits_that_profile_the_mean(
    self, space, nugget
  ):
    prior = some_prior(space, nugget=nugget)
    nodes, outputs = some_data(space)
    posterior = kriging.condition(prior, nodes, outputs)
    residuals, variance = gaussian_process.leave_one_out(
      prior, prior.standardise(nodes), outputs
    )
    np.testing.assert_allclose(posterior.loo_variance, variance, rtol=1e-8)
    np.testing.assert_allclose(
      posterior.loo_residuals, residuals, rtol=1e-8, atol=1e-8
    )

  def test_posterior_mean_equals_the_full_solve(self):
    space = mixed_space()
    prior = some_prior(space)
    nodes, outputs = some_data(space)
    posterior = kriging.condition(prior, nodes, outputs)
    points, _ = some_data(space, 6, seed=5)
    expected = [
      gaussian_process.predict(prior, prior.standardise(nodes), outputs, x)[0]
      for x in prior.standardise(points)
    ]
    np.testing.assert_allclose(posterior(points), expected, rtol=1e-9)
    np.testing.assert_allclose(
      posterior(points, slice(1, 3)), np.array(expected)[:, 1:3], rtol=1e-9
    )

  def test_mean_is_that_of_generalised_least_squares(self):
    prior = some_prior(_CUBE)
    nodes, outputs = some_data(_CUBE)
    x = prior.standardise(nodes)
    np.testing.assert_allclose(
      kriging.condition(prior, nodes, outputs).mean_outputs,
      gaussian_process.profiled_mean(
        gaussian_process.with_nugget(prior, x), outputs
      ), rtol=1e-9,
    )

  def test_blocks_of_points_do_not_change_the_mean(self):
    prior = some_prior(_CUBE)
    nodes, outputs = some_data(_CUBE)
    posterior = kriging.condition(prior, nodes, outputs)
    points, _ = some_data(_CUBE, 32, seed=3)
    expected = posterior(points)
    with mock.patch.object(kriging, '_ROWS', 5):
      np.testing.assert_allclose(posterior(points), expected, rtol=1e-12)

  def test_mean_interpolates_where_the_nugget_is_small(self):
    prior = some_prior(_CUBE, nugget=1e-9)
    nodes, outputs = some_data(_CUBE)
    posterior = kriging.condition(prior, nodes, outputs)
    np.testing.assert_allclose(
      posterior(nodes) / outputs.std(axis=0), outputs / outputs.std(axis=0),
      atol=1e-5,
    )

  def test_outputs_do_not_touch_each_other(self):
    prior = some_prior(_CUBE)
    nodes, outputs = some_data(_CUBE)
    together = kriging.condition(prior, nodes, outputs)
    for k in range(outputs.shape[1]):
      alone = kriging.condition(prior, nodes, outputs[:, [k]])
      np.testing.assert_array_equal(together.factor, alone.factor)
      np.testing.assert_allclose(
        together.loo_residuals[:, [k]], alone.loo_residuals, rtol=1e-10
      )

  def test_constant_output_is_predicted_without_error(self):
    nodes, _ = some_data(_CUBE)
    posterior = kriging.condition(
      some_prior(_CUBE), nodes, np.full((len(nodes), 1), 0.3)
    )
    np.testing.assert_allclose(posterior(nodes[:3] / 2), 0.3, rtol=1e-12)
    np.testing.assert_allclose(posterior.loo_residuals, 0, atol=1e-12)

  def test_repeated_nodes_of_discrete_factors_are_no_obstacle(self):
    lens = factors.Factor('lens', marginals.Discrete([0.0, 1.0, 5.0]))
    space = factors.FactorSpace((lens,))
    nodes = designs.sobol_sequence(jax.random.key(0), space, 32).nodes
    outputs = nodes**2
    prior = kriging.learn(
      jax.random.key(1), kriging.default_prior(space), nodes, outputs
    )
    posterior = kriging.condition(prior, nodes, outputs)
    np.testing.assert_allclose(posterior(nodes), outputs, atol=1e-4)

  def test_output_covariance_is_the_mean_of_standardised_products(self):
    prior = some_prior(_CUBE)
    nodes, outputs = some_data(_CUBE)
    residuals, variance = gaussian_process.leave_one_out(
      prior, prior.standardise(nodes), outputs
    )
    expected = np.zeros((2, 2))
    for r, v in zip(residuals[:, 1:], variance, strict=True):
      expected += np.outer(r, r) / v / len(nodes)
    found = kriging.output_covariance(
      kriging.condition(prior, nodes, outputs), slice(1, 3)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-8)

  def test_output_covariance_of_draws_of_the_prior_is_their_scale(self):
    # E[loo_residual² / loo_variance] = s² for a mean that is profiled out.
    prior = some_prior(_CUBE)
    nodes, _ = some_data(_CUBE, 12)
    matrix = gaussian_process.with_nugget(prior, prior.standardise(nodes))
    root = np.linalg.cholesky(matrix)
    rng = np.random.default_rng(0)
    outputs = 7 + 3 * root @ rng.normal(size=(12, 4000))
    posterior = kriging.condition(prior, nodes, outputs)
    squares = np.mean(
      posterior.loo_residuals**2 / posterior.loo_variance[:, None], axis=0
    )
    error = squares.std() / np.sqrt(len(squares))
    self.assertLess(abs(squares.mean() - 9), 5 * error)
    self.assertLess(error, 0.1)

  @parameterized.named_parameters(
    ('rows', np.zeros((4, 2)), np.zeros((3, 1)), r'\(4, 2\) and \(3, 1\)'),
    ('vector', np.zeros((4, 2)), np.zeros(4), r'\(4, 2\) and \(4,\)'),
    ('factors', np.zeros((4, 3)), np.zeros((4, 1)), r'\(N, 2\).*\(4, 3\)'),
    ('one_node', np.zeros((1, 2)), np.zeros((1, 1)), 'N >= 2'),
    ('nan', np.eye(2), np.array([[1, 2], [3, np.nan]]), 'node 1, output 1'),
    ('inf_node', np.array([[0, 1], [np.inf, 0]]), np.eye(2),
     'node 1, factor 0'),
  )  # fmt: skip
  def test_bad_input_names_what_was_expected(self, nodes, outputs, message):
    prior = kriging.default_prior(_CUBE)
    with self.assertRaisesRegex(ValueError, message):
      kriging.condition(prior, nodes, outputs)
    with self.assertRaisesRegex(ValueError, message):
      kriging.learn(jax.random.key(0), prior, nodes, outputs)


class DrawsTest(parameterized.TestCase):

  @parameterized.named_parameters(
    ('uniform', _CUBE), ('mixed', mixed_space())
  )
  def test_draws_have_mean_zero_and_the_posterior_covariance(self, space):
    # Over many keys, because the draws of one share their random features.
    prior = some_prior(space)
    nodes, outputs = some_data(space, 8)
    posterior = kriging.condition(prior, nodes, outputs)
    points, _ = some_data(space, 5, seed=9)
    means, covariances = [], []
    for seed in range(60):
      _, drawn = kriging.draw(
        jax.random.key(seed), posterior, points, 64
      )
      means.append(drawn.mean(axis=1))
      covariances.append(drawn @ drawn.T / 64)
    expected = gaussian_process.posterior_covariance(
      prior, prior.standardise(nodes), prior.standardise(points)
    )
    for found, exact in ((means, 0), (covariances, expected)):
      error = np.std(found, axis=0, ddof=1) / np.sqrt(len(found))
      np.testing.assert_array_less(
        np.abs(np.mean(found, axis=0) - exact), 5 * error
      )
    self.assertLess(np.max(error), 0.05 * np.max(expected))

  def test_draws_vanish_at_the_nodes(self):
    prior = some_prior(_CUBE, nugget=1e-8)
    nodes, outputs = some_data(_CUBE)
    posterior = kriging.condition(prior, nodes, outputs)
    _, drawn = kriging.draw(jax.random.key(0), posterior, nodes, 32)
    # The nugget lets them go five times 1e-4 off, single precision less.
    self.assertLess(np.abs(drawn).max(), 1e-3)

  def test_draws_are_a_function_of_the_key(self):
    nodes, outputs = some_data(_CUBE)
    posterior = kriging.condition(some_prior(_CUBE), nodes, outputs)
    draw = lambda seed: kriging.draw(
      jax.random.key(seed), posterior, nodes / 2, 3
    )[1]
    np.testing.assert_array_equal(draw(0), draw(0))
    self.assertEqual(draw(0).shape, (len(nodes), 3))
    self.assertGreater(np.abs(draw(0) - draw(1)).max(), 1e-3)


if __name__ == '__main__':
  absltest.main()
