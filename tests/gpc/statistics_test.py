"""Statistics of surrogates against closed forms, SciPy and enumeration."""

from absl.testing import absltest
from absl.testing import parameterized
import chaospy
import jax
import jax.numpy as jnp
import numpy as np
from scipy import special
from scipy import stats

from jaxsens.gpc import moments
from jaxsens.gpc import statistics
from tests.oracles import surrogates
from tests.oracles import test_functions

KEY = jax.random.key(0)
CUBE = test_functions.space_of(a=chaospy.Uniform(0, 1), b=chaospy.Uniform(0, 1))


class SampleTest(parameterized.TestCase):

  def test_quantiles_and_probabilities_of_a_normal(self):
    sample = statistics.draw(KEY, surrogates.linear_of_normals())
    self.assertEqual(sample.outputs.shape, (8, 8192, 2))
    levels = np.array([0.01, 0.1, 0.5, 0.9, 0.99])
    deviations = surrogates.DEVIATIONS
    expected = surrogates.MEANS + deviations * special.ndtri(levels)[:, None]
    found = statistics.quantiles(sample, levels)
    np.testing.assert_array_less(
      np.abs(found.value - expected), 5 * found.standard_error
    )
    self.assertTrue(np.all(found.standard_error < 0.01 * deviations))
    below = statistics.probability_below(sample, expected)
    np.testing.assert_array_less(
      np.abs(below.value - levels[:, None]), 5 * below.standard_error + 1e-4
    )
    np.testing.assert_array_less(below.standard_error, 1e-3)

  def test_chi_square_of_a_pushed_forward_surrogate(self):
    space = test_functions.space_of(a=chaospy.Normal(), b=chaospy.Normal())
    radius = statistics.draw(
      KEY, lambda germ: np.sum(germ**2, axis=1, keepdims=True), space
    )
    chi2 = stats.chi2(2)
    limits = [0.5, 2.0, 6.0]
    found = statistics.probability_below(radius, limits)
    np.testing.assert_allclose(found.value[:, 0], chi2.cdf(limits), atol=1e-3)
    found = statistics.density(radius, num_bins=24, limits=(0.0, 6.0))
    share = np.diff(chi2.cdf(found.edges[:, 0])) / 0.25
    np.testing.assert_allclose(found.values[:, 0], share, atol=0.01)
    mean = moments.of_sample(radius)
    np.testing.assert_allclose(mean.kurtosis, 9, rtol=0.02)

  def test_jax_surrogates_serve(self):
    jitted = jax.jit(lambda germ: jax.nn.softmax(jnp.asarray(germ), axis=1))
    sample = statistics.draw(KEY, jitted, CUBE)
    # Symmetric: both probabilities have the median and the mean one half.
    np.testing.assert_allclose(
      statistics.quantiles(sample, [0.5]).value, 0.5, atol=2e-3
    )
    result = moments.first_four(KEY, jitted, CUBE)
    np.testing.assert_allclose(result.mean, 0.5, atol=1e-4)
    self.assertFalse(result.exact)

  def test_standard_errors_are_honest(self):
    # The spread of the estimate over 60 keys against the mean of its errors.
    space = test_functions.space_of(a=chaospy.Normal(), b=chaospy.Uniform(0, 1))
    surrogate = lambda germ: np.exp(0.5 * germ[:, :1]) * (1 + germ[:, 1:])
    values, errors = [], []
    for key in jax.random.split(KEY, 60):
      sample = statistics.draw(key, surrogate, space, num_points=256)
      found = statistics.quantiles(sample, [0.1, 0.5, 0.9])
      values.append(found.value)
      errors.append(found.standard_error)
    ratio = np.std(values, axis=0) / np.sqrt(np.mean(np.square(errors), axis=0))
    # The spread of 60 values is known to 9 %; five times that.
    np.testing.assert_array_less(np.abs(ratio - 1), 0.46)

  def test_density_holds_all_mass_of_a_bounded_output(self):
    surrogate = lambda germ: np.stack(
      [germ[:, 0] > 0.5, special.expit(20 * germ[:, 1])], axis=1
    )
    found = statistics.density(
      statistics.draw(KEY, surrogate, CUBE), num_bins=10
    )
    widths = np.diff(found.edges, axis=0)
    np.testing.assert_allclose(np.sum(found.values * widths, axis=0), 1)
    # germ[0] is uniform on [-1, 1]: the first output is one in a quarter.
    np.testing.assert_allclose(found.values[[0, 9], 0], [7.5, 2.5], atol=0.02)
    np.testing.assert_array_equal(found.values[1:9, 0], 0)
    self.assertEqual(found.standard_error.shape, (10, 2))

  def test_a_constant_output_has_no_density_but_quantiles(self):
    sample = statistics.draw(
      KEY, lambda germ: np.stack([germ[:, 0], np.full(len(germ), 3.0)], 1), CUBE
    )
    found = statistics.density(sample, num_bins=4)
    np.testing.assert_array_equal(np.isnan(found.values).any(axis=0), [0, 1])
    np.testing.assert_array_equal(
      statistics.quantiles(sample, [0.1, 0.9]).value[:, 1], 3.0
    )
    # Strictly below.
    below = statistics.probability_below(sample, [3.0, 3.1])
    np.testing.assert_array_equal(below.value[:, 1], [0, 1])

  def test_draws_are_functions_of_the_key(self):
    expansion = surrogates.linear_of_normals()
    one, same = (statistics.draw(KEY, expansion) for _ in range(2))
    np.testing.assert_array_equal(one.outputs, same.outputs)
    self.assertGreater(np.max(np.abs(one.outputs[0] - one.outputs[1])), 1)


class BadInputTest(parameterized.TestCase):

  def test_surrogates_that_do_not_fit_are_refused(self):
    expansion = surrogates.linear_of_normals()
    identity = lambda germ: germ
    with self.assertRaisesRegex(ValueError, 'space: needed'):
      statistics.draw(KEY, identity)
    with self.assertRaisesRegex(ValueError, r"expansion is in \['a', 'b', 'c'"):
      statistics.draw(KEY, expansion, CUBE)
    with self.assertRaisesRegex(ValueError, 'other factors'):
      moments.first_four(KEY, expansion, CUBE)
    with self.assertRaisesRegex(ValueError, r'\(N, K\), got \(8192,\)'):
      statistics.draw(KEY, lambda germ: germ[:, 0], CUBE)
    with self.assertRaisesRegex(ValueError, 'not finite'):
      statistics.draw(KEY, lambda germ: np.where(germ > 0, np.nan, 1), CUBE)
    with self.assertRaisesRegex(ValueError, r'expected shape \(64, K\)'):
      statistics.draw(KEY, lambda germ: germ[1:], CUBE, num_points=64)
    with self.assertRaisesRegex(ValueError, 'num_replicates'):
      statistics.draw(KEY, identity, CUBE, num_replicates=1)
    with self.assertRaisesRegex(ValueError, 'at least 1'):
      statistics.draw(KEY, identity, CUBE, num_points=0)
    with self.assertRaisesRegex(TypeError, 'key'):
      statistics.draw(0, identity, CUBE)

  def test_options_that_mean_nothing_are_refused(self):
    sample = statistics.draw(KEY, lambda germ: germ, CUBE, num_points=8)
    for levels in ([1.2], 0.5, [np.nan]):
      with self.assertRaisesRegex(ValueError, 'probabilities'):
        statistics.quantiles(sample, levels)
    with self.assertRaisesRegex(ValueError, r'\(Q, 2\), got \(1, 3\)'):
      statistics.probability_below(sample, [[1, 2, 3]])
    with self.assertRaisesRegex(ValueError, 'got NaN'):
      statistics.probability_below(sample, [np.nan])
    with self.assertRaisesRegex(ValueError, 'num_bins'):
      statistics.density(sample, num_bins=0)
    with self.assertRaisesRegex(ValueError, 'lower < upper'):
      statistics.density(sample, limits=(1, 1))


if __name__ == '__main__':
  absltest.main()
