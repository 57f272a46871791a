"""Moments against closed forms."""

from absl.testing import absltest
from absl.testing import parameterized
import chaospy
import jax
import numpy as np
from scipy import stats

from jaxsens.gpc import expansions
from jaxsens.gpc import moments
from jaxsens.gpc import multi_indices
from jaxsens.gpc import statistics
from tests.oracles import surrogates
from tests.oracles import test_functions

KEY = jax.random.key(0)
CUBE = test_functions.space_of(a=chaospy.Uniform(0, 1), b=chaospy.Uniform(0, 1))


class MomentsTest(parameterized.TestCase):

  def test_linear_function_of_normals_is_normal(self):
    result = moments.exact(surrogates.linear_of_normals())
    self.assertTrue(result.exact)
    np.testing.assert_allclose(result.mean, surrogates.MEANS)
    np.testing.assert_allclose(result.variance, surrogates.DEVIATIONS**2)
    np.testing.assert_allclose(result.skewness, 0, atol=1e-13)
    np.testing.assert_allclose(result.kurtosis, 3)
    np.testing.assert_array_equal(result.standard_errors, 0)

  def test_squares_and_cubes_of_a_normal(self):
    # Chi-square of one degree; x³ has moments E[x⁶] = 15, E[x¹²] = 10395.
    space = test_functions.space_of(a=chaospy.Normal(0, 1))
    expansion = surrogates.projected(
      lambda x: np.hstack([x**2, x**3]), space, (4,)
    )
    result = moments.exact(expansion)
    mean, variance, skewness, excess = stats.chi2(1).stats('mvsk')
    np.testing.assert_allclose(result.mean, [mean, 0], atol=1e-14)
    np.testing.assert_allclose(result.variance, [variance, 15])
    np.testing.assert_allclose(result.skewness, [skewness, 0], atol=1e-13)
    np.testing.assert_allclose(result.kurtosis, [excess + 3, 10395 / 225])

  def test_gamma(self):
    space = test_functions.space_of(a=chaospy.Gamma(2.5, 3))
    result = moments.exact(surrogates.projected(lambda x: x, space, (2,)))
    expected = stats.gamma(2.5, scale=3).stats('mvsk')
    np.testing.assert_allclose(result.mean, expected[0])
    np.testing.assert_allclose(result.variance, expected[1])
    np.testing.assert_allclose(result.skewness, expected[2])
    np.testing.assert_allclose(result.kurtosis, expected[3] + 3)

  def test_ishigami(self):
    # y - 3.5 = u + v with u = (1 + 0.1 x3⁴) sin x1, v = -3.5 cos(2 x2), both
    # symmetric: no skewness, and E[u⁴] + 6 E[u²] E[v²] + E[v⁴] above V².
    function = test_functions.ishigami()
    powers = np.array([1, 4, 6, 4, 1]) * 0.1 ** np.arange(5)
    fourth = powers @ (np.pi ** (4 * np.arange(5)) / (4 * np.arange(5) + 1))
    second = (1 + 0.2 * np.pi**4 / 5 + 0.01 * np.pi**8 / 9) / 2
    expected = 3 / 8 * fourth + 6 * second * 49 / 8 + 3 / 8 * 3.5**4
    # x3⁴ needs degree 4, the sines about 17.
    expansion = surrogates.projected(
      function.of_values, function.space, (18, 18, 5)
    )
    result = moments.exact(expansion)
    np.testing.assert_allclose(result.mean, 3.5, rtol=1e-9)
    np.testing.assert_allclose(result.variance, function.variance, rtol=1e-9)
    np.testing.assert_allclose(result.skewness, 0, atol=1e-9)
    np.testing.assert_allclose(
      result.kurtosis, expected / function.variance**2, rtol=1e-7
    )

  def test_outputs_without_variance_have_no_shape(self):
    basis = expansions.Basis(CUBE, multi_indices.total_degree(2, 1))
    coefficients = np.array([[7.0, 7.0], [0.0, 1.0], [0.0, 0.0]])
    expansion = expansions.Expansion(basis, coefficients)
    for result in (
      moments.exact(expansion),
      moments.of_sample(statistics.draw(KEY, expansion)),
    ):
      for values in (result.skewness, result.kurtosis):
        np.testing.assert_array_equal(np.isnan(values), [True, False])
      np.testing.assert_allclose(result.mean, 7, atol=1e-4)
      # Uniform: 9 / 5.
      np.testing.assert_allclose(result.kurtosis[1], 1.8, atol=1e-3)

  def test_too_many_nodes_are_refused_and_sampled_instead(self):
    expansion = surrogates.linear_of_normals()
    with self.assertRaisesRegex(ValueError, r'27 nodes \(3, 3, 3\), more'):
      moments.exact(expansion, max_nodes=26)
    sampled = moments.first_four(KEY, expansion, max_nodes=26)
    exact = moments.first_four(KEY, expansion)
    self.assertTrue(exact.exact)
    self.assertFalse(sampled.exact)
    for i, name in enumerate(('mean', 'variance', 'skewness', 'kurtosis')):
      gaps = np.abs(getattr(sampled, name) - getattr(exact, name))
      # Five standard errors of eight replicates: the tail of Student's t with
      # seven degrees of freedom, 0.2 %.
      np.testing.assert_array_less(gaps, 5 * sampled.standard_errors[i])


if __name__ == '__main__':
  absltest.main()
