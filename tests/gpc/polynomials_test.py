"""Recurrences, orthonormality, and the exactness of Gauss rules."""

import functools

import chaospy
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special
from scipy import stats

from jaxsens import factors
from jaxsens import marginals
from jaxsens.gpc import polynomials

DEGREE = 60


def germ_of(distribution):
  return factors.Factor('x', distribution).germ


def hermite_rule(num_nodes):
  nodes, weights = np.polynomial.hermite_e.hermegauss(num_nodes)
  return nodes, weights / np.sum(weights)


def jacobi_rule(a, b, num_nodes):
  # Beta(a, b) has the density (1 + x)^(a - 1) (1 - x)^(b - 1).
  nodes, weights = special.roots_jacobi(num_nodes, b - 1, a - 1)
  return nodes, weights / np.sum(weights)


def laguerre_rule(shape, num_nodes):
  nodes, weights = special.roots_genlaguerre(num_nodes, shape - 1)
  return nodes, weights / np.sum(weights)


def legendre_rule(density, num_nodes):
  nodes, weights = np.polynomial.legendre.leggauss(num_nodes)
  weights = weights * density(nodes)
  return nodes, weights / np.sum(weights)


def truncated_normal_density(x):
  # TruncNormal(lower=-1, upper=2, mu=0.3, sigma=0.7) on [-1, 1].
  shift, scale = 0.5, 1.5
  low, high = (-1 - 0.3) / 0.7, (2 - 0.3) / 0.7
  return stats.truncnorm.pdf(
    shift + scale * x, low, high, loc=0.3, scale=0.7
  )


# The germ of each factor and an independent rule for its measure.
GERMS = {
  'uniform': (
    germ_of(chaospy.Uniform(0, 2)),
    functools.partial(legendre_rule, np.ones_like),
  ),
  'beta': (
    germ_of(chaospy.Beta(2, 3.5, lower=-1, upper=4)),
    functools.partial(jacobi_rule, 2, 3.5),
  ),
  'beta_mean_half': (
    germ_of(chaospy.Beta(0.5, 1.5)),
    functools.partial(jacobi_rule, 0.5, 1.5),
  ),
  'normal': (germ_of(chaospy.Normal(1, 2)), hermite_rule),
  'truncated_normal': (
    germ_of(chaospy.TruncNormal(lower=-1, upper=2, mu=0.3, sigma=0.7)),
    functools.partial(legendre_rule, truncated_normal_density),
  ),
  'log_normal': (germ_of(chaospy.LogNormal(0.2, 0.4)), hermite_rule),
  'log_uniform': (
    germ_of(chaospy.LogUniform(0, 2)),
    functools.partial(legendre_rule, np.ones_like),
  ),
  'gamma': (
    germ_of(chaospy.Gamma(2.5, scale=3, shift=1)),
    functools.partial(laguerre_rule, 2.5),
  ),
  'exponential': (
    germ_of(chaospy.Exponential(2)),
    functools.partial(laguerre_rule, 1.0),
  ),
}
# Without a rule of another library: own rule, moments of SciPy.
OTHERS = {
  'triangle': germ_of(chaospy.Triangle(0, 1, 3)),
  'weibull': germ_of(chaospy.Weibull(1.5)),
  'kernel_density': germ_of(chaospy.GaussianKDE([0.0, 1.0, 1.2])),
}
ALL = {name: germ for name, (germ, _) in GERMS.items()} | OTHERS


def gram(coefficients, nodes, weights, degree=DEGREE):
  psi = polynomials.evaluate(coefficients, nodes, degree)
  return (psi.T * weights) @ psi


@pytest.mark.parametrize('name', ALL)
def test_polynomials_are_orthonormal_to_degree_60_under_their_own_rule(name):
  coefficients = polynomials.recurrence(ALL[name], DEGREE)
  nodes, weights = polynomials.gauss_rule(coefficients, DEGREE + 1)
  np.testing.assert_allclose(
    gram(coefficients, nodes, weights), np.eye(DEGREE + 1), atol=1e-12
  )


@pytest.mark.parametrize('name', GERMS)
def test_polynomials_are_orthonormal_to_degree_60_under_a_foreign_rule(name):
  germ, rule = GERMS[name]
  nodes, weights = rule(160 if 'uniform' in name or 'trunc' in name else 61)
  coefficients = polynomials.recurrence(germ, DEGREE)
  np.testing.assert_allclose(
    gram(coefficients, nodes, weights), np.eye(DEGREE + 1), atol=1e-12
  )


@pytest.mark.parametrize('name', ALL)
def test_weights_are_positive_and_sum_to_one(name):
  coefficients = polynomials.recurrence(ALL[name], DEGREE)
  for num_nodes in (1, 2, 7, 30, 61):
    nodes, weights = polynomials.gauss_rule(coefficients, num_nodes)
    assert nodes.shape == weights.shape == (num_nodes,)
    assert np.all(np.diff(nodes) > 0)
    assert np.all(weights > 0)
    np.testing.assert_allclose(np.sum(weights), 1, atol=2e-14)


@pytest.mark.parametrize('name', GERMS)
@pytest.mark.parametrize('num_nodes', [1, 2, 5, 9])
def test_rule_is_exact_to_degree_2n_minus_1_and_not_to_2n(name, num_nodes):
  germ, foreign = GERMS[name]
  reference_nodes, reference_weights = foreign(40)
  coefficients = polynomials.recurrence(germ, 2 * num_nodes)
  nodes, weights = polynomials.gauss_rule(coefficients, num_nodes)
  degrees = np.arange(2 * num_nodes + 1)
  # Moments around the mean, in standard deviations, stay of one magnitude.
  mean = reference_weights @ reference_nodes
  spread = np.sqrt(reference_weights @ (reference_nodes - mean) ** 2)

  def moments(x, w):
    return w @ ((x[:, None] - mean) / spread) ** degrees

  expected = moments(reference_nodes, reference_weights)
  got = moments(nodes, weights)
  # Odd moments cancel: their rounding is that of the absolute moments.
  scale = reference_weights @ (
    np.abs(reference_nodes[:, None] - mean) / spread
  ) ** degrees
  error = np.abs(got - expected) / scale
  assert np.max(error[:-1]) < 1e-11
  # The error at degree 2n is the squared norm of the monic polynomial.
  norm = np.prod(coefficients.beta[1 : num_nodes + 1]) / spread ** degrees[-1]
  np.testing.assert_allclose(
    expected[-1] - got[-1], norm, rtol=1e-6, atol=1e-11 * scale[-1]
  )
  assert norm > 1e-9 * scale[-1]


@pytest.mark.parametrize(
  'distribution',
  [
    chaospy.Uniform(-1, 1),
    chaospy.Beta(2, 3.5, lower=-1, upper=1),
    chaospy.Normal(0, 1),
    chaospy.Gamma(2.5),
    chaospy.Exponential(1),
  ],
  ids=repr,
)
def test_closed_forms_equal_those_of_chaospy(distribution):
  coefficients = polynomials.recurrence(germ_of(distribution), 30)
  alpha, beta = distribution.ttr(np.arange(31))
  np.testing.assert_allclose(coefficients.alpha, alpha, rtol=1e-12, atol=1e-14)
  np.testing.assert_allclose(coefficients.beta[1:], beta[1:], rtol=1e-12)


@pytest.mark.parametrize(
  'distribution',
  [
    chaospy.TruncNormal(lower=-1, upper=2, mu=0.3, sigma=0.7),
    chaospy.LogUniform(0, 2),
    chaospy.Kumaraswamy(2, 3),
    chaospy.TruncExponential(3),
  ],
  ids=repr,
)
def test_discretised_recurrence_equals_that_of_chaospy(distribution):
  degree = 8
  coefficients = polynomials.recurrence(distribution, degree)
  (expected,) = chaospy.construct_recurrence_coefficients(degree, distribution)
  np.testing.assert_allclose(coefficients.alpha, expected[0], rtol=1e-9)
  np.testing.assert_allclose(coefficients.beta[1:], expected[1][1:], rtol=1e-9)


def test_kink_inside_the_support_is_resolved():
  # chaospy's own rule for this density is wrong in the eighth digit.
  coefficients = polynomials.recurrence(chaospy.Triangle(0, 1, 3), 4)
  nodes, weights = polynomials.gauss_rule(coefficients, 4)
  k = np.arange(1, 8)
  # The density is 2 x / 3 on [0, 1] and (3 - x) / 3 on [1, 3].
  rising = 2 / 3 / (k + 2)
  falling = (3.0 ** (k + 1) - 1) / (k + 1) - (3.0 ** (k + 2) - 1) / 3 / (k + 2)
  expected = rising + falling
  got = weights @ nodes[:, None] ** k
  np.testing.assert_allclose(got, expected, rtol=1e-13)


def test_mean_of_beta_with_shapes_that_sum_to_two():
  # chaospy 4.3.21 gives 1/2 for alpha[0] whatever the shapes.
  coefficients = polynomials.recurrence(chaospy.Beta(0.5, 1.5), 3)
  np.testing.assert_allclose(coefficients.alpha[0], 0.25, rtol=1e-14)


@pytest.mark.parametrize(
  ('distribution', 'num_nodes'),
  [
    (chaospy.Uniform(-1, 1), 300),
    (chaospy.Normal(0, 1), 300),
    (chaospy.Gamma(2.5), 170),
  ],
  ids=repr,
)
def test_large_rules_stay_exact(distribution, num_nodes):
  # chaospy's own rule stops at 69 nodes with a UnicodeDecodeError.
  coefficients = polynomials.recurrence(distribution, num_nodes)
  nodes, weights = polynomials.gauss_rule(coefficients, num_nodes)
  np.testing.assert_allclose(
    gram(coefficients, nodes, weights), np.eye(DEGREE + 1), atol=1e-12
  )


def test_rules_whose_weights_underflow_are_refused():
  coefficients = polynomials.recurrence(chaospy.Gamma(2.5), 400)
  with pytest.raises(ValueError, match='smallest float64'):
    polynomials.gauss_rule(coefficients, 400)


def test_known_values_of_legendre_polynomials():
  # From the source system's own basis.
  coefficients = polynomials.recurrence(chaospy.Uniform(-1, 1), 3)
  np.testing.assert_allclose(
    polynomials.evaluate(coefficients, np.array([1.0, 0.5]), 3)[:, 1:],
    [
      [1.7320508, 2.2360680, 2.6457513],
      [0.8660254, -0.2795085, -1.1575162],
    ],
    atol=5e-8,
  )


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_values_follow_the_input_plain_and_jitted(dtype):
  with jax.enable_x64(dtype == np.float64):
    coefficients = polynomials.recurrence(chaospy.Normal(0, 1), 8)
    x = np.linspace(-2, 2, 7).reshape(7, 1)
    expected = np.stack(
      [
        special.eval_hermitenorm(k, x) / np.sqrt(special.factorial(k))
        for k in range(9)
      ],
      axis=-1,
    )
    evaluate = functools.partial(polynomials.evaluate, coefficients, degree=8)
    for function in (evaluate, jax.jit(evaluate)):
      psi = function(x=jnp.asarray(x, dtype))
      assert psi.dtype == dtype
      assert psi.shape == (7, 1, 9)
      tolerance = 1e-12 if dtype == np.float64 else 1e-4
      np.testing.assert_allclose(psi, expected, atol=tolerance)
  on_host = polynomials.evaluate(coefficients, x.astype(np.float32), 8)
  assert isinstance(on_host, np.ndarray)
  assert on_host.dtype == np.float64


@pytest.mark.parametrize('name', GERMS)
def test_derivatives_equal_automatic_ones(name):
  germ, _ = GERMS[name]
  coefficients = polynomials.recurrence(germ, 7)
  x = np.ravel(germ.inv(np.linspace(0.1, 0.9, 5)))
  with jax.enable_x64(True):
    expected = jax.vmap(
      jax.jacfwd(lambda t: polynomials.evaluate(coefficients, t, 7))
    )(jnp.asarray(x))
  np.testing.assert_allclose(
    polynomials.evaluate_derivative(coefficients, x, 7),
    expected,
    rtol=1e-9,
    atol=1e-9,
  )


def test_measures_without_moments_are_refused():
  with pytest.raises(ValueError, match='no orthonormal polynomials'):
    polynomials.recurrence(chaospy.StudentT(5), 5)
  with pytest.raises(ValueError, match='tails too heavy'):
    polynomials.recurrence(chaospy.Cauchy(), 5)


def test_a_density_that_is_not_normalised_is_refused():
  # chaospy 4.3.21 truncates a normal distribution with the wrong constant.
  wrong = chaospy.Trunc(chaospy.Normal(), lower=-1, upper=1)
  with pytest.raises(ValueError, match='not to 1'):
    polynomials.recurrence(wrong, 3)


def test_bad_degrees_are_refused():
  coefficients = polynomials.recurrence(chaospy.Uniform(-1, 1), 3)
  with pytest.raises(ValueError, match='at least 0'):
    polynomials.recurrence(chaospy.Uniform(-1, 1), -1)
  with pytest.raises(ValueError, match='0 to 3'):
    polynomials.evaluate(coefficients, np.zeros(2), 4)
  with pytest.raises(ValueError, match='at least 1'):
    polynomials.gauss_rule(coefficients, 0)


@pytest.mark.parametrize(
  ('name', 'degree'),
  [
    ('uniform', 200), ('beta', 200), ('beta_mean_half', 200), ('normal', 200),
    ('truncated_normal', 200), ('log_uniform', 200), ('triangle', 200),
    # The weights of larger rules underflow, which is an error below.
    ('gamma', 180), ('exponential', 180),
  ],
)  # fmt: skip
def test_polynomials_are_orthonormal_to_high_degree(name, degree):
  germ = ALL[name]
  coefficients = polynomials.recurrence(germ, degree + 2)
  nodes, weights = polynomials.gauss_rule(coefficients, degree + 1)
  np.testing.assert_allclose(
    gram(coefficients, nodes, weights, degree), np.eye(degree + 1), atol=1e-12
  )


@pytest.mark.parametrize('name', ['truncated_normal', 'triangle'])
def test_degree_200_of_a_discretised_measure_under_a_foreign_rule(name):
  germ = ALL[name]
  # Gauss-Legendre on both sides of the kink, by the density of the germ.
  kink = -1 / 3 if name == 'triangle' else 0.0
  x, w = np.polynomial.legendre.leggauss(400)
  nodes = np.concatenate([
    (kink - 1 + (kink + 1) * x) / 2, (kink + 1 + (1 - kink) * x) / 2
  ])  # fmt: skip
  weights = np.concatenate([w * (kink + 1) / 2, w * (1 - kink) / 2])
  weights = weights * germ.pdf(nodes)
  coefficients = polynomials.recurrence(germ, 200)
  # Slopes of 1e5 at the ends magnify the rounding of the foreign nodes.
  np.testing.assert_allclose(
    gram(coefficients, nodes, weights, 200), np.eye(201), atol=1e-11
  )


def test_rules_of_gamma_stop_where_their_weights_underflow():
  coefficients = polynomials.recurrence(germ_of(chaospy.Gamma(2.5)), 200)
  with pytest.raises(ValueError, match='201 nodes .* smallest float64'):
    polynomials.gauss_rule(coefficients, 201)


ATOMS = {
  'filters': marginals.Discrete([0, 1, 2], [0.2, 0.5, 0.3]),
  'die': germ_of(chaospy.DiscreteUniform(1, 6)),
  'binomial': germ_of(chaospy.Binomial(12, 0.3)),
  'poisson': marginals.Discrete(
    np.arange(15), stats.poisson.pmf(np.arange(15), 2.5)
  ),
  'sample': marginals.Discrete([0.3, -1.0, 0.3, 7.0, 2.5, 2.5, 2.5]),
}


@pytest.mark.parametrize('name', ATOMS)
def test_rule_of_all_atoms_is_the_measure_itself(name):
  measure = ATOMS[name]
  num_atoms = measure.num_atoms
  coefficients = polynomials.recurrence(measure, num_atoms - 1)
  nodes, weights = polynomials.gauss_rule(coefficients, num_atoms)
  np.testing.assert_allclose(nodes, measure.values, atol=1e-12)
  np.testing.assert_allclose(weights, measure.probabilities, atol=1e-12)
  psi = polynomials.evaluate(coefficients, measure.values, num_atoms - 1)
  np.testing.assert_allclose(
    (psi.T * measure.probabilities) @ psi, np.eye(num_atoms), atol=1e-11
  )


def test_coefficients_of_a_binomial_are_those_of_krawtchouk():
  # Monic Krawtchouk polynomials, Koekoek and Swarttouw 1998, eq. 1.10.4.
  num, p, k = 12, 0.3, np.arange(9)
  coefficients = polynomials.recurrence(
    marginals.of_integers(chaospy.Binomial(num, p)), 8
  )
  np.testing.assert_allclose(
    coefficients.alpha, p * (num - k) + k * (1 - p), rtol=1e-10
  )
  np.testing.assert_allclose(
    coefficients.beta[1:], (k * p * (1 - p) * (num + 1 - k))[1:], rtol=1e-10
  )


def test_degrees_beyond_the_atoms_are_refused_by_name():
  factor = factors.Factor('filter', marginals.choice(['red', 'green', 'none']))
  with pytest.raises(ValueError, match="'filter' has 3 atoms .* degree 2"):
    polynomials.recurrence(factor.germ, 3)


def test_degrees_beyond_float64_are_refused_by_name():
  factor = factors.Factor('count', chaospy.DiscreteUniform(1, 80))
  polynomials.recurrence(factor.germ, 20)
  with pytest.raises(ValueError, match="'count' .* orthonormal up to degree"):
    polynomials.recurrence(factor.germ, 79)
