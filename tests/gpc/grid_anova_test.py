"""ANOVA on tensor grids against closed forms and inclusion-exclusion."""

import itertools

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from jaxsens.gpc import grid_anova
from tests.oracles import anova


def random_rules(sizes, seed=0):
  """Uneven positive weights, as no symmetric rule has them."""
  rng = np.random.default_rng(seed)
  rules = [rng.uniform(0.2, 1.0, n) for n in sizes]
  return [rule / rule.sum() for rule in rules]


def by_inclusion_and_exclusion(values, rules):
  """V_u = Σ_{v ⊆ u} (-1)^{|u| - |v|} Var(E[f | x_v]), the definition."""
  dim = len(rules)
  closed = {}
  for size in range(dim + 1):
    for u in itertools.combinations(range(dim), size):
      conditional, kept = values, [rules[d] for d in u]
      for d in reversed(range(dim)):
        if d not in u:
          conditional = np.tensordot(rules[d], conditional, axes=([0], [d]))
      square = conditional**2
      for rule in kept:
        square = np.tensordot(rule, square, axes=([0], [0]))
      closed[u] = square
  return {
    u: sum(
      (-1) ** (len(u) - size) * closed[v]
      for size in range(len(u) + 1) for v in itertools.combinations(u, size)
    )
    for u in closed if u
  }  # fmt: skip


class PartialVariancesTest(parameterized.TestCase):

  @parameterized.parameters(1, 2, 3, 4, 5, 6)
  def test_product_function_has_the_variances_of_its_closed_form(self, dim):
    # For f = Π_d g_d(x_d): V_u = Π_{d in u} Var g_d Π_{d not in u} (E g_d)².
    sizes = (4, 3, 5, 2, 3, 4)[:dim]
    rules = random_rules(sizes)
    rng = np.random.default_rng(1)
    single = [rng.normal(0.5, 1.0, n) for n in sizes]
    values = np.ones(())
    for g in single:
      values = np.multiply.outer(values, g)
    means = [w @ g for w, g in zip(rules, single, strict=True)]
    spread = [
      w @ (g - m) ** 2 for w, g, m in zip(rules, single, means, strict=True)
    ]
    subsets, variances = grid_anova.partial_variances(values[..., None], rules)
    expected = [
      np.prod([spread[d] if d in u else means[d] ** 2 for d in range(dim)])
      for u in subsets
    ]
    self.assertLen(subsets, 2**dim - 1)
    np.testing.assert_allclose(variances[:, 0], expected, rtol=1e-11)

  @parameterized.parameters(((5,),), ((4, 3),), ((3, 4, 2),), ((3, 2, 4, 3),))
  def test_variances_equal_inclusion_and_exclusion(self, sizes):
    rules = random_rules(sizes)
    values = np.random.default_rng(2).normal(size=(*sizes, 3))
    subsets, variances = grid_anova.partial_variances(values, rules)
    expected = by_inclusion_and_exclusion(values, rules)
    np.testing.assert_allclose(
      variances, [expected[u] for u in subsets], rtol=1e-10, atol=1e-13
    )

  def test_subsets_come_by_size_then_by_position(self):
    subsets, _ = grid_anova.partial_variances(
      np.zeros((2, 2, 2, 1)), random_rules((2, 2, 2))
    )
    self.assertEqual(
      subsets, ((0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2))
    )

  def test_variances_sum_to_the_variance_on_the_grid(self):
    sizes = (6, 5, 4, 3, 2, 3)
    rules = random_rules(sizes)
    values = np.random.default_rng(3).normal(7.0, 2.0, size=(*sizes, 2))
    joint = np.ones(())
    for rule in rules:
      joint = np.multiply.outer(joint, rule)
    mean = np.tensordot(joint, values, axes=6)
    expected = np.tensordot(joint, (values - mean) ** 2, axes=6)
    _, variances = grid_anova.partial_variances(values, rules)
    np.testing.assert_allclose(variances.sum(axis=0), expected, rtol=1e-12)

  def test_ishigami_on_gauss_nodes_has_the_published_variances(self):
    x, w = np.polynomial.legendre.leggauss(20)
    grid = np.stack(np.meshgrid(x, x, x, indexing='ij'), axis=-1)
    values = anova.ishigami(grid.reshape(-1, 3)).reshape(20, 20, 20, 1)
    subsets, variances = grid_anova.partial_variances(values, [w / 2] * 3)
    expected = anova.ishigami_variances()
    np.testing.assert_allclose(
      variances[:, 0], [expected[u] for u in subsets], rtol=1e-10, atol=1e-12
    )

  def test_outputs_do_not_touch_each_other(self):
    sizes = (3, 4, 2)
    rules = random_rules(sizes)
    values = np.random.default_rng(4).normal(size=(*sizes, 5))
    values[1, 2, 0, 3] = np.nan
    values[0, 0, 0, 4] = np.inf
    _, variances = grid_anova.partial_variances(values, rules)
    for k in range(3):
      _, alone = grid_anova.partial_variances(values[..., [k]], rules)
      np.testing.assert_allclose(variances[:, [k]], alone, rtol=1e-13)
    self.assertTrue(np.isnan(variances[:, 3:]).all())

  @parameterized.parameters(0.0, 1.0, -3e8)
  def test_constant_output_has_variances_of_rounding_size(self, constant):
    rules = random_rules((5, 4, 3))
    _, variances = grid_anova.partial_variances(
      np.full((5, 4, 3, 1), constant), rules
    )
    self.assertLessEqual(variances.max(), (1e-15 * constant) ** 2)

  def test_variances_keep_their_digits_beside_a_large_mean(self):
    rules = random_rules((6, 5))
    values = np.random.default_rng(5).normal(size=(6, 5, 1))
    _, expected = grid_anova.partial_variances(values, rules)
    _, shifted = grid_anova.partial_variances(values + 1e6, rules)
    np.testing.assert_allclose(shifted, expected, rtol=1e-8)

  def test_nodes_of_weight_zero_do_not_count(self):
    rules = random_rules((3, 4))
    values = np.random.default_rng(6).normal(size=(3, 4, 2))
    padded = np.concatenate([np.full((1, 4, 2), 50.0), values])
    _, expected = grid_anova.partial_variances(values, rules)
    _, variances = grid_anova.partial_variances(
      padded, [np.append(0.0, rules[0]), rules[1]]
    )
    np.testing.assert_allclose(variances, expected, rtol=1e-12)

  def test_factor_of_one_node_has_no_variance(self):
    values = np.array([1.0, 2.0, 4.0]).reshape(1, 3, 1)
    subsets, variances = grid_anova.partial_variances(
      values, [[1.0], [0.25, 0.5, 0.25]]
    )
    # Mean 9/4, mean square 25/4, hence the variance 19/16.
    self.assertEqual(subsets, ((0,), (1,), (0, 1)))
    np.testing.assert_allclose(variances[:, 0], [0, 19 / 16, 0], atol=1e-15)

  @parameterized.named_parameters(
    ('shape', np.zeros((3, 2, 1)), [[0.5, 0.5], [0.5, 0.5]], 'n_1, ..., n_D'),
    ('no_outputs_axis', np.zeros((2, 2)), [[0.5, 0.5]] * 2, 'n_1, ..., n_D'),
    ('no_axis', np.zeros(3), [], 'n_1, ..., n_D'),
    ('matrix', np.zeros((2, 1)), [[[0.5, 0.5]]], 'n_1, ..., n_D'),
    ('sum', np.zeros((2, 1)), [[0.5, 0.6]], r'weights\[0\].*sum 1'),
    ('negative', np.zeros((2, 1)), [[1.5, -0.5]], r'weights\[0\]'),
    ('nan', np.zeros((2, 1)), [[1.0, np.nan]], r'weights\[0\]'),
  )  # fmt: skip
  def test_bad_input_names_what_was_expected(self, values, weights, message):
    with self.assertRaisesRegex(ValueError, message):
      grid_anova.partial_variances(values, weights)


class MainEffectsTest(parameterized.TestCase):

  def test_effects_of_an_additive_function_are_its_terms(self):
    rules = random_rules((4, 3))
    a, b = np.array([1.0, -2, 0, 5]), np.array([2.0, 3, 7])
    effects = grid_anova.main_effects((a[:, None] + b)[..., None], rules)
    np.testing.assert_allclose(effects[0][:, 0], a + rules[1] @ b, rtol=1e-13)
    np.testing.assert_allclose(effects[1][:, 0], b + rules[0] @ a, rtol=1e-13)

  def test_variance_of_an_effect_is_the_variance_of_its_set(self):
    sizes = (4, 3, 5)
    rules = random_rules(sizes)
    values = np.random.default_rng(7).normal(size=(*sizes, 2))
    _, variances = grid_anova.partial_variances(values, rules)
    effects = grid_anova.main_effects(values, rules)
    for d, (effect, rule) in enumerate(zip(effects, rules, strict=True)):
      spread = rule @ (effect - rule @ effect) ** 2
      np.testing.assert_allclose(spread, variances[d], rtol=1e-11)


if __name__ == '__main__':
  absltest.main()
