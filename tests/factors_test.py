"""Factors: germs, maps to values, and what is refused."""

import json

import chaospy
import numpy as np
import pytest

from jaxsens import factors

DISTRIBUTIONS = [
  chaospy.Uniform(0, 2),
  chaospy.Beta(2, 3, lower=-1, upper=4),
  chaospy.Normal(1, 2),
  chaospy.TruncNormal(lower=-1, upper=2, mu=0.3, sigma=0.7),
  chaospy.LogNormal(mu=0.2, sigma=0.4, shift=1, scale=3),
  chaospy.Gamma(2.5, scale=3, shift=1),
  chaospy.Exponential(2),
  chaospy.Triangle(0, 1, 3),
  chaospy.LogUniform(0, 2, scale=3, shift=1),
  chaospy.Weibull(1.5),
]
ids = [repr(distribution) for distribution in DISTRIBUTIONS]
probabilities = np.linspace(0.001, 0.999, 41)


def space_of(*distributions):
  return factors.FactorSpace(
    tuple(factors.Factor(f'x{d}', x) for d, x in enumerate(distributions))
  )


@pytest.mark.parametrize('distribution', DISTRIBUTIONS, ids=ids)
def test_germ_quantiles_map_to_quantiles_of_the_values(distribution):
  factor = factors.Factor('x', distribution)
  germ = factor.germ.inv(probabilities)
  np.testing.assert_allclose(
    factor.to_values(germ), distribution.inv(probabilities), rtol=1e-12
  )


@pytest.mark.parametrize('distribution', DISTRIBUTIONS, ids=ids)
def test_to_germ_inverts_to_values(distribution):
  factor = factors.Factor('x', distribution)
  germ = factor.germ.inv(probabilities)
  np.testing.assert_allclose(
    factor.to_germ(factor.to_values(germ)), germ, atol=1e-13
  )


@pytest.mark.parametrize('distribution', DISTRIBUTIONS, ids=ids)
def test_value_slope_is_the_difference_quotient(distribution):
  factor = factors.Factor('x', distribution)
  germ, step = factor.germ.inv(probabilities), 1e-6
  quotient = (
    factor.to_values(germ + step) - factor.to_values(germ - step)
  ) / (2 * step)
  np.testing.assert_allclose(factor.value_slope(germ), quotient, rtol=1e-6)


@pytest.mark.parametrize(
  ('distribution', 'limits'),
  [
    (chaospy.Uniform(-90, 90), (-1, 1)),
    (chaospy.Beta(2, 3, lower=-1, upper=4), (-1, 1)),
    (chaospy.TruncNormal(lower=-1, upper=2, mu=0.3, sigma=0.7), (-1, 1)),
    (chaospy.Triangle(0, 1, 3), (-1, 1)),
    (chaospy.LogUniform(0, 2), (-1, 1)),
    (chaospy.Gamma(2.5, scale=3, shift=1), (0, None)),
  ],
  ids=repr,
)
def test_germ_of_a_bounded_factor_has_standard_limits(distribution, limits):
  germ = factors.Factor('x', distribution).germ
  np.testing.assert_allclose(germ.lower, limits[0], atol=1e-15)
  if limits[1] is not None:
    np.testing.assert_allclose(germ.upper, limits[1], atol=1e-15)


@pytest.mark.parametrize(
  'distribution', [chaospy.Normal(3, 0.1), chaospy.LogNormal(0.2, 0.4)]
)
def test_germ_of_normal_and_log_normal_is_standard_normal(distribution):
  germ = factors.Factor('x', distribution).germ
  np.testing.assert_allclose(germ.mom([1, 2]), [0, 1], atol=1e-15)


def test_gamma_germ_has_unit_scale():
  germ = factors.Factor('x', chaospy.Gamma(2.5, scale=3, shift=1)).germ
  # Mean and variance of Gamma(shape, 1) are the shape.
  np.testing.assert_allclose(germ.ttr([0])[0], 2.5, rtol=1e-14)
  np.testing.assert_allclose(germ.ttr([1])[1], 2.5, rtol=1e-14)


def test_space_maps_columns_in_the_order_of_the_factors():
  space = space_of(chaospy.Uniform(0, 2), chaospy.Normal(10, 3))
  values = space.to_values([[-1.0, 0.0], [0.5, 2.0]])
  np.testing.assert_allclose(values, [[0.0, 10.0], [1.5, 16.0]])
  np.testing.assert_allclose(space.value_slope(values), [[1.0, 3.0]] * 2)


def test_uniform_points_at_the_ends_stay_finite():
  space = space_of(chaospy.Normal(), chaospy.Gamma(2), chaospy.Uniform(-1, 1))
  germ = space.from_uniform([[0.0] * 3, [0.5] * 3, [1.0] * 3])
  assert np.all(np.isfinite(germ))
  assert np.all(np.diff(germ, axis=0) > 0)
  with pytest.raises(ValueError, match=r'points in \[0, 1\]'):
    space.from_uniform([[0.5, 0.5, 1.5]])


def test_factors_are_equal_by_content_and_hashable():
  def make(upper=90, unit='deg'):
    return factors.Factor('rotation', chaospy.Uniform(-90, upper), unit)

  assert make() == make()
  assert hash(make()) == hash(make())
  assert make() != make(upper=80)
  assert make() != make(unit='rad')
  spaces = {factors.FactorSpace((make(),)), factors.FactorSpace((make(),))}
  assert len(spaces) == 1


def test_kernel_densities_of_other_data_differ_although_their_repr_agrees():
  one, two = chaospy.GaussianKDE([1, 2, 3.0]), chaospy.GaussianKDE([1, 2, 9.0])
  assert repr(one) == repr(two)
  assert factors.Factor('x', one) != factors.Factor('x', two)


def test_description_survives_json():
  space = factors.FactorSpace(
    (factors.Factor('tilt', chaospy.Uniform(-20, 20), 'deg'),)
  )
  described = json.loads(json.dumps(space.describe()))
  assert described == [
    {
      'name': 'tilt',
      'distribution': 'Uniform(lower=-20, upper=20)',
      'unit': 'deg',
      'lower': -20.0,
      'upper': 20.0,
    }
  ]


@pytest.mark.parametrize(
  ('distribution', 'message'),
  [
    # chaospy builds all of these without complaint.
    (chaospy.TruncNormal(lower=2, upper=-1), 'lower < upper'),
    (chaospy.LogUniform(2, 0), 'lower < upper'),
    (chaospy.Normal(0, -1), 'lower < upper'),
    (chaospy.Normal(0, np.inf), 'not finite'),
    (chaospy.Normal(0, np.nan), 'not finite'),
    (chaospy.Gamma(-1), 'not finite'),
    (chaospy.LogNormal(0, -1), 'not admissible'),
    (chaospy.Beta(-1, 2), 'not admissible'),
  ],
  ids=lambda x: repr(x) if isinstance(x, chaospy.Distribution) else None,
)
def test_bad_parameters_are_refused_by_name_of_the_factor(
  distribution, message
):
  with pytest.raises(ValueError, match=message) as raised:
    factors.Factor('blur', distribution)
  assert 'blur' in str(raised.value)


@pytest.mark.parametrize(
  ('distribution', 'message'),
  [
    (3.0, 'chaospy distribution'),
    (chaospy.J(chaospy.Uniform(), chaospy.Uniform()), 'one independent'),
    (2 * chaospy.Uniform() + 1, 'cannot evaluate'),
  ],
  ids=['number', 'joint', 'operator'],
)
def test_what_is_no_marginal_is_refused(distribution, message):
  with pytest.raises(TypeError, match=message):
    factors.Factor('blur', distribution)


def test_bad_spaces_are_refused():
  factor = factors.Factor('blur', chaospy.Uniform())
  with pytest.raises(ValueError, match=r"more than once: \['blur'\]"):
    factors.FactorSpace((factor, factor))
  with pytest.raises(ValueError, match='at least one'):
    factors.FactorSpace(())
  with pytest.raises(TypeError, match='expected Factor'):
    factors.FactorSpace((chaospy.Uniform(),))
  with pytest.raises(ValueError, match='expected a word'):
    factors.Factor('', chaospy.Uniform())
  space = factors.FactorSpace((factor,))
  with pytest.raises(ValueError, match=r"'noise'; known: \['blur'\]"):
    space.index('noise')
  with pytest.raises(ValueError, match=r'\(N, 1\).*\(2, 3\)'):
    space.to_values(np.zeros((2, 3)))
