"""Errors, explained variance, saturation, and the gate of trust."""

import chaospy
import jax
import numpy as np
import pytest

from jaxsens import factors
from jaxsens.gpc import designs
from jaxsens.gpc import diagnostics
from jaxsens.gpc import expansions
from jaxsens.gpc import multi_indices
from tests.oracles import anova

SPACE = factors.FactorSpace((
  factors.Factor('brightness', chaospy.Uniform(0, 2)),
  factors.Factor('rotation', chaospy.Uniform(-90, 90), 'deg'),
  factors.Factor('tilt', chaospy.Uniform(-20, 20), 'deg'),
))  # fmt: skip


def wave(germ):
  """Fast in the rotation, slow in the others."""
  brightness, rotation, tilt = germ.T
  return (np.sin(12 * rotation + 1) + brightness + 0.3 * tilt**2)[:, None]


def projected(function, num_nodes):
  design = designs.tensor_gauss(SPACE, num_nodes)
  basis = expansions.Basis(
    SPACE, multi_indices.tensor_product([n - 1 for n in num_nodes])
  )
  return expansions.project(basis, design, function(design.nodes))


def fresh(num_nodes=2000):
  return designs.latin_hypercube(jax.random.key(9), SPACE, num_nodes)


def test_q2_and_nrmse_of_known_errors():
  outputs = np.array([[0.0, 5.0], [2.0, 5.0], [4.0, 5.0]])
  predictions = outputs + np.array([[1.0], [0.0], [-1.0]])
  # Squares: error 2, spread 8; rmse sqrt(2 / 3), range 4.
  np.testing.assert_allclose(
    diagnostics.q2(outputs, predictions), [0.75, np.nan]
  )
  np.testing.assert_allclose(
    diagnostics.nrmse(outputs, predictions), [np.sqrt(2 / 3) / 4, np.nan]
  )
  mean_only = np.broadcast_to(outputs.mean(axis=0), outputs.shape)
  np.testing.assert_allclose(diagnostics.q2(outputs, mean_only)[0], 0)
  for function in (diagnostics.q2, diagnostics.nrmse):
    with pytest.raises(ValueError, match=r'\(3, 2\) and \(3, 1\)'):
      function(outputs, predictions[:, :1])


def test_explained_variance_ratio_is_one_for_a_resolved_function():
  expansion = projected(anova.ishigami, (16, 16, 16))
  design = designs.tensor_gauss(SPACE, (20, 20, 20))
  ratio = diagnostics.explained_variance_ratio(
    expansion, anova.ishigami(design.nodes), design.weights
  )
  np.testing.assert_allclose(ratio, 1, atol=1e-8)
  halved = expansions.Expansion(expansion.basis, expansion.coefficients / 2)
  sample = diagnostics.explained_variance_ratio(
    halved, anova.ishigami(fresh().nodes)
  )
  np.testing.assert_allclose(sample, 0.25, atol=0.02)
  constant = diagnostics.explained_variance_ratio(expansion, np.ones((9, 1)))
  assert np.isnan(constant[0])


def test_saturation_is_the_share_at_the_edge_of_the_basis():
  basis = expansions.Basis(SPACE, multi_indices.tensor_product((3, 1, 0)))
  coefficients = np.zeros((basis.num_terms, 1))
  place = {tuple(a): p for p, a in enumerate(basis.multi_indices.tolist())}
  coefficients[place[0, 0, 0]] = 7
  coefficients[place[1, 0, 0]] = 2
  coefficients[place[2, 1, 0]] = 1
  coefficients[place[3, 0, 0]] = 1
  # The two highest degrees of the first factor; the only one of the second;
  # a factor that the basis leaves out is not resolved at all.
  np.testing.assert_allclose(
    diagnostics.saturation(expansions.Expansion(basis, coefficients)),
    [[2 / 6], [1 / 6], [1]],
  )


def test_saturation_names_the_fast_factor():
  shares = diagnostics.saturation(projected(wave, (8, 8, 8)))[:, 0]
  assert np.argmax(shares) == 1
  assert shares[1] > 10 * max(shares[0], shares[2])


def test_untrusted_output_names_the_factor_to_raise():
  coarse, fine = projected(wave, (6, 8, 6)), projected(wave, (6, 30, 6))
  design = fresh()
  outputs = wave(design.nodes)

  def verdict(expansion, **options):
    values = diagnostics.q2(outputs, expansion(design.nodes))
    return diagnostics.trust(values, expansion, **options)[0]

  refused = verdict(coarse)
  assert not refused.trusted
  assert refused.q2 < 0.9
  assert 'gpc.num_nodes.rotation' in refused.advice[0]
  assert 'degree 7' in refused.advice[0]
  assert not any('tilt' in line for line in refused.advice)
  accepted = verdict(fine)
  assert accepted.trusted
  assert accepted.advice == ()
  assert not verdict(fine, threshold=1.1).trusted


def test_missing_interactions_are_not_blamed_on_a_degree():
  design = designs.tensor_gauss(SPACE, (12, 12, 12))
  basis = expansions.Basis(
    SPACE, multi_indices.tensor_product((11,) * 3, max_interaction=1)
  )

  def product(germ):
    return (germ[:, 0] + 3 * germ[:, 0] * germ[:, 1])[:, None]

  expansion = expansions.project(basis, design, product(design.nodes))
  nodes = fresh().nodes
  values = diagnostics.q2(product(nodes), expansion(nodes))
  (verdict,) = diagnostics.trust(values, expansion)
  assert not verdict.trusted
  assert 'no factor is short of degree' in verdict.advice[0]
  assert 'max_interaction' in verdict.advice[0]


def test_output_that_does_not_vary_is_not_trusted():
  expansion = projected(lambda germ: np.ones((len(germ), 1)), (3, 3, 3))
  (verdict,) = diagnostics.trust([np.nan], expansion)
  assert not verdict.trusted
  assert 'does not vary' in verdict.advice[0]
  with pytest.raises(ValueError, match=r'\(1,\), got \(2,\)'):
    diagnostics.trust([0.5, 0.5], expansion)
