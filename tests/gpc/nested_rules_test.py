"""Nested rules: exactness, growth, stability, and what they refuse."""

import chaospy
import numpy as np
import pytest

from jaxsens import factors
from jaxsens.gpc import nested_rules
from jaxsens.gpc import polynomials

FACTORS = {
  'uniform': factors.Factor('x', chaospy.Uniform(-90, 90)),
  'normal': factors.Factor('x', chaospy.Normal(2, 4)),
  'beta': factors.Factor('x', chaospy.Beta(2, 5)),
  'arcsine': factors.Factor('x', chaospy.Beta(0.5, 0.5)),
  'gamma': factors.Factor('x', chaospy.Gamma(2.5, scale=0.3)),
  'truncated': factors.Factor('x', chaospy.TruncNormal(-1, 2, 0.3, 0.7)),
  'triangle': factors.Factor('x', chaospy.Triangle(0, 0.2, 1)),
  'log_normal': factors.Factor('x', chaospy.LogNormal(0, 0.3)),
}
SYMMETRIC = ('uniform', 'normal', 'arcsine', 'log_normal')


def gauss(factor, num_nodes):
  return polynomials.gauss_rule(
    polynomials.recurrence(factor.germ, num_nodes - 1), num_nodes
  )


@pytest.mark.parametrize('name', FACTORS)
@pytest.mark.parametrize('num_nodes', [1, 2, 7, 16, 50])
def test_weights_are_exact_to_their_degree_and_sum_to_one(name, num_nodes):
  factor = FACTORS[name]
  rule = nested_rules.leja_rule(factor, num_nodes)
  coefficients = polynomials.recurrence(factor.germ, num_nodes)
  psi = polynomials.evaluate(coefficients, rule.nodes, num_nodes - 1)
  expected = np.eye(num_nodes)[0]
  np.testing.assert_allclose(rule.weights @ psi, expected, atol=1e-12)
  np.testing.assert_allclose(np.sum(rule.weights), 1, atol=1e-12)


@pytest.mark.parametrize('name', FACTORS)
@pytest.mark.parametrize('num_nodes', [2, 5, 9])
def test_weights_integrate_powers_like_a_gauss_rule(name, num_nodes):
  factor = FACTORS[name]
  rule = nested_rules.leja_rule(factor, num_nodes)
  nodes, weights = gauss(factor, num_nodes)
  scale = np.max(np.abs(rule.nodes)) ** np.arange(num_nodes)
  powers = np.arange(num_nodes)
  np.testing.assert_allclose(
    rule.weights @ (rule.nodes[:, None] ** powers / scale),
    weights @ (nodes[:, None] ** powers / scale),
    atol=1e-12,
  )


@pytest.mark.parametrize('name', FACTORS)
def test_projection_recovers_polynomials(name):
  factor, num_nodes = FACTORS[name], 30
  rule = nested_rules.leja_rule(factor, num_nodes)
  coefficients = polynomials.recurrence(factor.germ, num_nodes)
  psi = polynomials.evaluate(coefficients, rule.nodes, num_nodes - 1)
  found = rule.to_coefficients @ (rule.to_surpluses @ psi)
  np.testing.assert_allclose(found, np.eye(num_nodes), atol=1e-12)


@pytest.mark.parametrize('name', FACTORS)
def test_growth_keeps_every_node_and_leading_block(name):
  factor = FACTORS[name]
  longest = nested_rules.leja_rule(
    factor, nested_rules.max_num_nodes(factor)
  )
  assert len(np.unique(longest.nodes)) == longest.num_nodes >= 25
  for n in (1, 2, 10, 21):
    rule = nested_rules.leja_rule(factor, n)
    np.testing.assert_array_equal(rule.nodes, longest.nodes[:n])
    for name_of_triangle in ('to_surpluses', 'to_coefficients'):
      block = getattr(longest, name_of_triangle)[:n, :n]
      scale = np.max(np.abs(block), axis=0)
      np.testing.assert_allclose(
        getattr(rule, name_of_triangle) / scale, block / scale, atol=1e-12
      )


@pytest.mark.parametrize('name', FACTORS)
def test_newton_polynomials_vanish_at_earlier_nodes(name):
  factor, n = FACTORS[name], 20
  rule = nested_rules.leja_rule(factor, n)
  coefficients = polynomials.recurrence(factor.germ, n)
  psi = polynomials.evaluate(coefficients, rule.nodes, n - 1)
  newton = psi @ rule.to_coefficients
  # Rounding is relative to the largest value that these norms allow.
  bound = np.outer(np.linalg.norm(psi, axis=1), rule.norms)
  np.testing.assert_allclose(
    np.triu(newton) / bound, np.eye(n) / bound, atol=1e-14
  )
  nodes, weights = gauss(factor, n)
  values = (
    polynomials.evaluate(coefficients, nodes, n - 1) @ rule.to_coefficients
  )
  np.testing.assert_allclose(
    rule.norms, np.sqrt(weights @ values**2), rtol=1e-10
  )


@pytest.mark.parametrize('name', FACTORS)
def test_first_node_is_the_mean_and_rules_stay_stable(name):
  factor = FACTORS[name]
  rule = nested_rules.leja_rule(factor, nested_rules.max_num_nodes(factor))
  mean = float(np.ravel(factor.germ.mom(1))[0])
  np.testing.assert_allclose(rule.nodes[0], mean, atol=1e-12)
  for n in range(1, rule.num_nodes + 1, 7):
    # Σ |w| = 1 would be positive weights; Newton-Cotes has 1e3 at 30 nodes.
    weights = nested_rules.leja_rule(factor, n).weights
    assert np.sum(np.abs(weights)) < 2


@pytest.mark.parametrize('name', SYMMETRIC)
def test_odd_rules_of_symmetric_measures_are_symmetric(name):
  for n in (3, 9, 31):
    rule = nested_rules.leja_rule(FACTORS[name], n)
    order = np.argsort(rule.nodes)
    np.testing.assert_array_equal(
      rule.nodes[order], -rule.nodes[order[::-1]]
    )
    np.testing.assert_allclose(
      rule.weights[order], rule.weights[order[::-1]], atol=1e-13
    )


def test_bad_numbers_of_nodes_are_refused():
  factor = FACTORS['uniform']
  limit = nested_rules.max_num_nodes(factor)
  for num_nodes in (0, limit + 1):
    with pytest.raises(
      ValueError, match=f"1 to {limit} for factor 'x', got {num_nodes}"
    ):
      nested_rules.leja_rule(factor, num_nodes)


def test_measures_without_moments_are_refused():
  factor = factors.Factor('x', chaospy.Cauchy())
  with pytest.raises(ValueError, match='no nested rule.*tails too heavy'):
    nested_rules.leja_rule(factor, 3)


@pytest.mark.parametrize('name', [*SYMMETRIC, 'beta'])
def test_recurrences_behind_the_candidates_are_orthonormal_to_degree_200(name):
  factor = FACTORS[name]
  nodes, weights = gauss(factor, 201)
  psi = polynomials.evaluate(
    polynomials.recurrence(factor.germ, 200), nodes, 200
  )
  gram = (psi * weights[:, None]).T @ psi
  np.testing.assert_allclose(gram, np.eye(201), atol=1e-12)
