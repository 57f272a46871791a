"""Tests of the decay of coefficients, against closed forms.

Legendre coefficients under U(-1, 1), orthonormal, c[n] = sqrt(2 n + 1)
∫ f P[n] / 2:

  exp(a x): sqrt(2 n + 1) i[n](a), i[n] the modified spherical Bessel function
    (NIST DLMF 10.60.8 with z = -i a);
  sign(x): sqrt(2 n + 1) ∫_0^1 P[n] = (P[n-1](0) - P[n+1](0)) / sqrt(2 n + 1)
    for odd n. P[n](0)² ~ 2 / (π n) gives c[n]² ~ 4 / (π n²), so p = 1, and the
    tail Σ_{n > m, odd} c[n]² ~ 2 / (π m);
  |x|: sqrt(2 n + 1) ∫_0^1 x P[n] for even n, ~ n^-2.

1 / (1 + a² x²) has its poles at ±i / a and tanh(a x) at ±i π / (2 a): the
ellipse through ±i y has the sum of half axes y + sqrt(1 + y²).
"""

from absl.testing import absltest
from absl.testing import parameterized
import chaospy
import jax
import numpy as np
from scipy import special

from jaxsens import factors
from jaxsens import marginals
from jaxsens.gpc import coefficient_decay
from jaxsens.gpc import designs
from jaxsens.gpc import expansions
from jaxsens.gpc import multi_indices
from jaxsens.gpc import sobol_indices

_LINE = factors.FactorSpace((factors.Factor('x', chaospy.Uniform(-1, 1)),))
_SQUARE = factors.FactorSpace(tuple(
  factors.Factor(name, chaospy.Uniform(-1, 1)) for name in 'xy'
))


def _quadrature(function, degree, parts=((-1, 0), (0, 1))):
  """Coefficients by 600 Gauss points on each smooth part."""
  x, w = np.polynomial.legendre.leggauss(600)
  x = np.concatenate([(a + b) / 2 + (b - a) / 2 * x for a, b in parts])
  w = np.concatenate([(b - a) / 4 * w for a, b in parts])
  table = np.stack([special.eval_legendre(n, x) for n in range(degree + 1)])
  return np.sqrt(2 * np.arange(degree + 1) + 1) * (table @ (w * function(x)))


def _exp(a, degree):
  n = np.arange(degree + 1)
  return np.sqrt(2 * n + 1) * special.spherical_in(n, a)


def _sign(degree):
  n = np.arange(1, degree + 1)
  at_zero = special.eval_legendre(np.arange(degree + 2), 0.0)
  return np.append(0.0, (at_zero[n - 1] - at_zero[n + 1]) / np.sqrt(2 * n + 1))


def _runge(a):
  return lambda x: 1 / (1 + (a * x) ** 2)


def _tanh(a):
  return lambda x: np.tanh(a * x)


def _expansion(coefficients):
  terms = np.arange(len(coefficients))[:, None]
  return expansions.Expansion(
    expansions.Basis(_LINE, terms), np.asarray(coefficients)[:, None]
  )


def _of(coefficients, **options):
  return coefficient_decay.of_expansion(_expansion(coefficients), **options)


def _needed(coefficients, tolerance=0.01):
  """Required degree from (nearly) all coefficients."""
  tails = np.cumsum(coefficients[:0:-1] ** 2)[::-1]
  return int(np.argmax(np.append(tails, 0.0) <= tolerance * tails[0]))


def _rho(y):
  return y + np.sqrt(1 + y**2)


def _base(num, space=_SQUARE):
  return designs.sobol_sequence(jax.random.key(0), space, num).nodes


class LawTest(parameterized.TestCase):

  @parameterized.parameters(2, 5, 20)
  def test_poles_give_the_geometric_rate(self, a):
    decay = _of(_quadrature(_runge(a), 60))
    self.assertEqual(decay.laws, (('geometric',),))
    # sqrt(n) in front of rho^-n bends the slope by 1 / (4 n) at most.
    np.testing.assert_allclose(decay.rate(0), _rho(1 / a), rtol=0.012)

  def test_exponential_is_geometric_and_needs_what_its_bessel_series_says(
    self
  ):
    for a in (1.0, 10.0):
      coefficients = _exp(a, 30)
      decay = _of(coefficients, tolerance=1e-4)
      self.assertEqual(decay.laws, (('geometric',),))
      self.assertEqual(
        decay.required_degrees[0, 0], _needed(coefficients, 1e-4)
      )

  @parameterized.parameters(20, 41, 80)
  def test_step_falls_with_power_one_and_needs_two_over_pi_tolerance(
    self, degree
  ):
    decay = _of(_sign(degree))
    self.assertEqual(decay.laws, (('algebraic',),))
    np.testing.assert_allclose(decay.rate(0), 1.0, atol=0.05)
    # 2 / (π 0.01) = 63.7; from degree 20 that is an extrapolation by three.
    np.testing.assert_allclose(
      decay.required_degrees[0, 0], 63.7, rtol=0.05 if degree > 60 else 0.4
    )
    self.assertTrue(decay.slow[0, 0])

  def test_kink_falls_with_power_two(self):
    coefficients = _quadrature(np.abs, 300)
    decay = _of(coefficients[:61], tolerance=1e-5)
    self.assertEqual(decay.laws, (('algebraic',),))
    np.testing.assert_allclose(decay.rate(0), 2.0, atol=0.05)
    np.testing.assert_allclose(
      decay.required_degrees[0, 0], _needed(coefficients, 1e-5), rtol=0.1
    )

  def test_steep_tanh_looks_like_a_step_before_it_turns_geometric(self):
    coefficients = _quadrature(_tanh(50), 300)
    early, late = _of(coefficients[:16]), _of(coefficients)
    self.assertEqual(early.laws, (('algebraic',),))
    np.testing.assert_allclose(early.rate(0), 1.0, atol=0.1)
    self.assertEqual(late.laws, (('geometric',),))
    np.testing.assert_allclose(late.rate(0), _rho(np.pi / 100), rtol=0.003)
    self.assertEqual(late.required_degrees[0, 0], _needed(coefficients))

  def test_truncated_series_of_a_peak_is_extrapolated(self):
    coefficients = _quadrature(_runge(20), 400)
    decay = _of(coefficients[:31])
    self.assertGreater(_needed(coefficients), 30)
    np.testing.assert_allclose(
      decay.required_degrees[0, 0], _needed(coefficients), rtol=0.05
    )

  def test_odd_and_even_responses_with_the_same_poles_have_one_rate(self):
    even = _of(_quadrature(_runge(5), 40))
    odd = _of(_quadrature(lambda x: x * _runge(5)(x), 40))
    np.testing.assert_allclose(even.rate(0), odd.rate(0), rtol=0.01)

  @parameterized.parameters(3, 7)
  def test_polynomial_finishes_at_its_degree(self, degree):
    coefficients = np.zeros(20)
    coefficients[: degree + 1] = 1.0
    decay = _of(coefficients + 1e-14)
    self.assertEqual(decay.laws, (('finite',),))
    self.assertEqual(decay.required_degrees[0, 0], degree)
    self.assertTrue(np.isnan(decay.rate(0)))
    self.assertFalse(decay.slow[0, 0])

  def test_too_few_degrees_have_no_rate_but_a_degree(self):
    decay = _of([1.0, 1.0, 0.5, 0.01])
    self.assertEqual(decay.laws, (('unknown',),))
    self.assertEqual(decay.required_degrees[0, 0], 2)

  def test_rule_with_few_degrees_says_more_than_those(self):
    decay = coefficient_decay.of_surrogate(
      np.sign, _LINE, np.zeros((1, 1)), num_nodes=(4,)
    )
    self.assertEqual(decay.laws, (('unknown',),))
    self.assertEqual(decay.required_degrees[0, 0], 3)

  def test_constant_has_no_rate_and_no_degree(self):
    decay = _of([3.0] + [1e-13] * 9)
    self.assertEqual(decay.laws, (('constant',),))
    self.assertTrue(np.isnan(decay.required_degrees[0, 0]))
    self.assertTrue(np.isnan(decay.rate(0)))
    self.assertFalse(decay.slow[0, 0])
    self.assertEqual(decay.sentence(), '')

  def test_scale_and_mean_do_not_matter(self):
    coefficients = _quadrature(_runge(5), 30)
    other = -40 * coefficients
    other[0] = 1000.0
    one, two = _of(coefficients), _of(other)
    np.testing.assert_allclose(one.rate(0), two.rate(0), rtol=1e-9)
    np.testing.assert_array_equal(one.required_degrees, two.required_degrees)

  def test_no_law_is_followed_further_than_ten_times_the_known_degrees(self):
    decay = _of(np.ones(20))
    self.assertEqual(decay.required_degrees[0, 0], 190)
    self.assertTrue(decay.slow[0, 0])


class FactorsTest(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    terms = multi_indices.total_degree(2, 6)
    generator = np.random.default_rng(0)
    self.expansion = expansions.Expansion(
      expansions.Basis(_SQUARE, terms), generator.normal(size=(len(terms), 3))
    )

  def test_energies_sum_to_the_sobol_indices(self):
    indices = sobol_indices.sobol_indices(self.expansion)
    for main, expected in (
      (False, indices.total), (True, indices.first_order)
    ):
      decay = coefficient_decay.of_expansion(
        self.expansion, main_effects=main
      )
      found = np.stack([energy.sum(axis=0) for energy in decay.energies])
      np.testing.assert_allclose(found, expected, rtol=1e-12)

  def test_lines_give_the_energies_of_an_expansion(self):
    # Base points of a Gauss rule with equal weights, ±1 / sqrt(3), are exact
    # for what is linear in the other factor.
    keep = self.expansion.basis.multi_indices.max(axis=1) <= 1
    keep |= (self.expansion.basis.multi_indices == 0).any(axis=1)
    coefficients = self.expansion.coefficients * keep[:, None]
    expansion = expansions.Expansion(self.expansion.basis, coefficients)
    root = 1 / np.sqrt(3)
    base = root * np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]])
    for main in (False, True):
      expected = coefficient_decay.of_expansion(expansion, main_effects=main)
      found = coefficient_decay.of_surrogate(
        expansion, _SQUARE, base, main_effects=main
      )
      for one, two in zip(found.energies, expected.energies, strict=True):
        # The variance is that of the lines, quadratic terms of y included.
        ratio = one[1:7].sum(axis=0) / two.sum(axis=0)
        np.testing.assert_allclose(one[:7], two * ratio, atol=1e-12)
        np.testing.assert_allclose(one[7:], 0, atol=1e-12)

  def test_each_factor_of_a_product_has_its_own_rate(self):
    # Far from separable energies: along x those of Runge, along y of a step.
    def function(germ):
      x, y = germ.T
      return (_runge(2)(x) * np.sign(y - 0.1))[:, None]

    decay = coefficient_decay.of_surrogate(
      function, _SQUARE, _base(64), num_nodes=(64,)
    )
    self.assertEqual(decay.laws, (('geometric',), ('algebraic',)))
    np.testing.assert_allclose(decay.rate(0), _rho(0.5), rtol=0.03)
    np.testing.assert_array_equal(decay.slow[:, 0], [False, True])
    text = decay.sentence()
    self.assertIn('sharp response along y (degree', text)
    self.assertNotIn('x (', text)
    described = decay.describe()
    self.assertEqual(described['x']['law'], 'geometric')
    self.assertFalse(described['x']['slow'])
    self.assertTrue(described['y']['slow'])
    self.assertIn('n^-', described['y']['fall'])

  @parameterized.parameters(
    (lambda t: np.tanh(5 * t), 5), (lambda t: np.tanh(10 * t), 9),
    (lambda t: 1 / (1 + (10 * t) ** 2), 23),
    (lambda t: 1 / (1 + (20 * t) ** 2), 44),
  )
  def test_oblique_fronts_and_ridges_need_what_fine_rules_say(
    self, front, expected
  ):
    # Expected: 256 lines of 400 nodes, which resolve all of these.
    decay = coefficient_decay.of_surrogate(
      lambda g: front(g[:, :1] - 0.6 * g[:, 1:]), _SQUARE, _base(16)
    )
    np.testing.assert_allclose(
      decay.required_degrees[0, 0], expected, rtol=0.12
    )
    self.assertEqual(decay.slow[0, 0], expected > 30)

  def test_oblique_step_needs_the_mean_over_its_places(self):
    # A step at t has the tail 2 sqrt(1 - t²) / (π m). Along x every line has
    # one, E sqrt(1 - 0.36 y²) = 0.937; along y those with |x| < 0.6 have one,
    # 0.6 π / 4 = 0.471.
    decay = coefficient_decay.of_surrogate(
      lambda g: np.sign(g[:, :1] - 0.6 * g[:, 1:]), _SQUARE, _base(64)
    )
    np.testing.assert_allclose(
      decay.required_degrees[:, 0], 63.7 * np.array([0.937, 0.471]), rtol=0.25
    )
    self.assertTrue(decay.slow[0, 0])

  def test_only_what_the_first_rule_leaves_open_gets_the_second(self):
    sizes = []

    def function(germ):
      sizes.append(len(germ))
      return np.exp(germ[:, :1]) + np.tanh(20 * germ[:, 1:])

    coefficient_decay.of_surrogate(
      function, _SQUARE, _base(4), num_nodes=(12, 40)
    )
    self.assertEqual(sizes, [2 * 4 * 12, 4 * 40])

  def test_rounding_to_single_precision_does_not_matter(self):
    def function(germ):
      return np.exp(germ[:, :1]) + germ[:, 1:] ** 3

    one, two = (
      coefficient_decay.of_surrogate(f, _SQUARE, _base(4))
      for f in (function, lambda g: function(g).astype(np.float32))
    )
    np.testing.assert_array_equal(one.required_degrees, two.required_degrees)
    np.testing.assert_allclose(
      one.geometric_rates[0], two.geometric_rates[0], rtol=0.05
    )

  def test_factor_without_effect_needs_degree_zero(self):
    decay = coefficient_decay.of_surrogate(
      lambda g: np.exp(3 * g[:, :1]), _SQUARE, _base(4)
    )
    self.assertEqual(decay.laws[1], ('constant',))
    self.assertEqual(decay.required_degrees[1, 0], 0)
    self.assertFalse(np.isnan(decay.required_degrees[0, 0]))

  def test_outputs_are_taken_one_by_one(self):
    functions = (lambda g: np.exp(g[:, :1]), lambda g: np.sign(g[:, 1:]))
    together = coefficient_decay.of_surrogate(
      lambda g: np.hstack([f(g) for f in functions]), _SQUARE, _base(8),
      num_nodes=(64,),
    )
    for k, function in enumerate(functions):
      alone = coefficient_decay.of_surrogate(
        function, _SQUARE, _base(8), num_nodes=(64,)
      )
      np.testing.assert_array_equal(
        together.required_degrees[:, k], alone.required_degrees[:, 0]
      )

  def test_normal_factor_has_the_energies_of_its_hermite_series(self):
    # exp(z) = e^(1/2) Σ psi[n](z) / sqrt(n!), variance e (e - 1).
    space = factors.FactorSpace((factors.Factor('z', chaospy.Normal(0, 1)),))
    decay = coefficient_decay.of_surrogate(np.exp, space, np.zeros((1, 1)))
    n = np.arange(1, 9)
    np.testing.assert_allclose(
      decay.energies[0][1:9, 0], 1 / special.factorial(n) / (np.e - 1),
      rtol=1e-4,
    )
    self.assertEqual(decay.required_degrees[0, 0], 4)

  @parameterized.parameters(2, 5)
  def test_discrete_factor_ends_at_its_atoms(self, num_atoms):
    decay = self._of_atoms(num_atoms)
    self.assertEqual(decay.laws, (('finite',),))
    self.assertBetween(decay.required_degrees[0, 0], 1, num_atoms - 1)

  def test_many_atoms_get_as_many_nodes_as_float64_carries(self):
    # cos(40 x) turns faster than the lower half of 60 degrees can follow.
    decay = self._of_atoms(60)
    self.assertGreater(decay.required_degrees[0, 0], 20)
    self.assertLess(len(decay.energies[0]), 60)

  def _of_atoms(self, num_atoms):
    atoms = marginals.Discrete(
      np.linspace(-1, 1, num_atoms), np.full(num_atoms, 1 / num_atoms)
    )
    space = factors.FactorSpace((factors.Factor('n', atoms),))
    return coefficient_decay.of_surrogate(
      lambda g: np.cos(40 * g + 1), space, np.full((1, 1), -1.0)
    )


class ErrorsTest(parameterized.TestCase):

  @parameterized.parameters(0.0, 1.0, float('nan'))
  def test_tolerance_that_is_no_share(self, tolerance):
    with self.assertRaisesRegex(ValueError, 'tolerance'):
      _of([1.0, 2.0], tolerance=tolerance)

  @parameterized.parameters(((),), ((1,),), ((16, 16),), ((20, 10),))
  def test_rules_that_do_not_grow(self, sizes):
    with self.assertRaisesRegex(ValueError, 'num_nodes'):
      coefficient_decay.of_surrogate(
        np.exp, _LINE, np.zeros((1, 1)), num_nodes=sizes
      )

  @parameterized.parameters(((0, 1),), ((2, 2),), ((3,),))
  def test_base_points_of_another_shape(self, shape):
    with self.assertRaisesRegex(ValueError, r'base: expected \(M, 1\)'):
      coefficient_decay.of_surrogate(np.exp, _LINE, np.zeros(shape))

  def test_outputs_of_another_shape_or_not_finite(self):
    for function, message in (
      (lambda g: g[:, 0], r'surrogate: expected \(16, K\), got \(16,\)'),
      (lambda g: g[1:], r'got \(15, 1\)'),
      (lambda g: g * np.nan, 'not finite'),
    ):
      with self.assertRaisesRegex(ValueError, message):
        coefficient_decay.of_surrogate(function, _LINE, np.zeros((1, 1)))


if __name__ == '__main__':
  absltest.main()
