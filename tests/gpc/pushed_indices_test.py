"""Indices through a Gaussian process against quadrature, loops and refits."""

import dataclasses

from absl.testing import absltest
from absl.testing import parameterized
import chaospy
import jax
import numpy as np
from scipy import special
from scipy import stats

from jaxsens.gpc import designs
from jaxsens.gpc import intervals as intervals_lib
from jaxsens.gpc import kriging
from jaxsens.gpc import pushed_indices
from jaxsens.gpc import surrogate_rules
from tests.oracles import anova
from tests.oracles import gaussian_process
from tests.oracles import test_functions


def cube(dim):
  return test_functions.space_of(
    **{f'x{d}': chaospy.Uniform(-1, 1) for d in range(dim)}
  )


def identity(outputs):
  return outputs


def softmax(logits):
  return special.softmax(logits, axis=-1)


_SLOPES = np.array([[2.0, -1.0, 0.5], [0.3, 1.5, -1.0], [0.0, 0.4, 2.0]])


def logits_of(germ):
  """Three linear logits of three factors."""
  return germ @ _SLOPES + np.array([0.5, 0.0, -0.2])


def wavy(germ):
  """Two rough outputs; of the first three factors only."""
  x, y, z = germ[:, :3].T
  first = np.sin(5 * x) + 0.4 * y * np.abs(z)
  return np.stack([first, np.cos(4 * y) * x + 3], axis=1)


class Case:
  """Outputs of one or more images at the nodes, and the field behind them."""

  def __init__(self, dim, function, num_nodes, num_columns, **options):
    self.space = cube(dim)
    self.nodes = designs.sobol_sequence(
      jax.random.key(1), self.space, num_nodes
    ).nodes
    self.outputs = function(self.nodes)
    self.prior = kriging.learn(
      jax.random.key(2), kriging.default_prior(self.space), self.nodes,
      self.outputs, max_iterations=25,
    )
    posterior = kriging.condition(self.prior, self.nodes, self.outputs)
    self.field = pushed_indices.make_field(
      jax.random.key(3), posterior, self.space, num_columns, **options
    )

  def infer(self, transform, columns=slice(None), **options):
    return pushed_indices.infer(
      self.field, columns, transform, self.outputs[:, columns], **options
    )


class GridTest(parameterized.TestCase):

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.linear = Case(3, logits_of, 48, 3)
    cls.wavy = Case(3, wavy, 48, 2)

  def test_identity_on_a_smooth_function_gives_its_closed_form(self):
    # Variances of x + y²/2 + x y / 3 (z idle): 1/3, 1/45 and 1/81.
    smooth = lambda x: (
      x[:, [0]] + x[:, [1]] ** 2 / 2 + x[:, [0]] * x[:, [1]] / 3
    )
    case = Case(2, smooth, 48, 1)
    found = case.infer(identity)
    parts = np.array([1 / 3, 1 / 45, 1 / 81])
    np.testing.assert_allclose(
      found.indices.subset_values[:, 0], parts / parts.sum(), atol=2e-3
    )
    np.testing.assert_allclose(found.indices.variance, parts.sum(), rtol=5e-3)
    np.testing.assert_allclose(found.indices.mean, 1 / 6, rtol=5e-3)
    # E[1 + y / 3] and E[y + x / 3].
    np.testing.assert_allclose(found.mean_derivatives[:, 0], [1, 0], atol=0.01)
    np.testing.assert_allclose(found.q2, 1, atol=1e-3)
    np.testing.assert_allclose(found.explained_variance, 1, atol=0.05)

  def test_probabilities_of_linear_logits_agree_with_quadrature(self):
    found = self.linear.infer(softmax)
    for k in range(3):
      exact = anova.indices(anova.dense_variances(
        lambda x, k=k: softmax(logits_of(x))[:, [k]], 24
      ))
      np.testing.assert_allclose(
        found.indices.subset_values[:, k],
        [exact[u] for u in found.indices.subsets], atol=3e-3,
      )
      np.testing.assert_allclose(
        found.indices.total[:, k], anova.total_indices(exact), atol=3e-3
      )

  def test_surrogate_is_the_posterior_mean_pushed_through(self):
    found = self.linear.infer(softmax)
    points = self.linear.nodes[:5] / 2
    np.testing.assert_allclose(
      found.surrogate(points), softmax(logits_of(points)), atol=5e-3
    )

  def test_quantities_together_are_those_of_each_beside_the_first(self):
    # The first sets how far the draws stray, for all.
    together = self.wavy.infer(
      lambda y: np.concatenate([y**2, np.tanh(y), y[..., :1] > 0], axis=-1)
    )
    alone = (
      lambda y: y[..., :1] ** 2, lambda y: y[..., 1:] ** 2,
      lambda y: np.tanh(y[..., :1]), lambda y: np.tanh(y[..., 1:]),
      lambda y: y[..., :1] > 0,
    )
    for k, transform in enumerate(alone):
      last = min(k, 1)
      one = self.wavy.infer(lambda y, transform=transform: np.concatenate(
        [y[..., :1] ** 2, transform(y)], axis=-1
      ))
      for name in ('subset_values', 'first_order', 'total', 'interactions',
                   'mean', 'variance'):
        np.testing.assert_allclose(
          getattr(together.indices, name)[..., k],
          getattr(one.indices, name)[..., last], rtol=1e-9, atol=1e-12,
        )
      for name in ('first_order_lower', 'total_upper', 'subset_upper'):
        np.testing.assert_allclose(
          getattr(together.intervals, name)[..., k],
          getattr(one.intervals, name)[..., last], rtol=1e-9, atol=1e-12,
        )
      np.testing.assert_allclose(together.q2[k], one.q2[last], rtol=1e-9)
      np.testing.assert_allclose(
        together.half_widths[k], one.half_widths[last], rtol=1e-9
      )

  def test_indices_and_intervals_equal_a_loop_over_draws(self):
    case, level = self.wavy, 0.9
    found = case.infer(np.tanh, level=level)
    shares, parts, variances = [], [], []
    standard = case.field.posterior.loo_residuals / np.sqrt(
      case.field.posterior.loo_variance
    )[:, None]
    values, vectors = np.linalg.eigh(standard.T @ standard / len(standard))
    # The root is one of many: any R with R R^T = S has the same law, and the
    # loop has to take the same one.
    root = vectors * np.sqrt(values)
    found_error = expected_error = 0.0
    for n, output in enumerate(case.outputs):
      predicted = output - case.field.posterior.loo_residuals[n]
      drawn = [
        np.tanh(predicted + root @ case.field.left_out[n, s])[0]
        for s in range(pushed_indices.NUM_DRAWS)
      ]
      found_error += (np.tanh(output[0]) - np.mean(drawn)) ** 2
      expected_error += np.var(drawn, ddof=1) * (1 + 1 / len(drawn))
    root *= np.sqrt(found_error / expected_error)
    mean = case.field.posterior(case.field.rule.points)
    for s in range(pushed_indices.NUM_DRAWS):
      drawn = np.stack([
        mean[:, c] + sum(
          root[c, e] * case.field.deviations[:, s, e] for e in range(2)
        ) for c in range(2)
      ], axis=1)  # fmt: skip
      one = surrogate_rules.variances(case.field.rule, np.tanh(drawn))
      parts.append(one.partial)
      variances.append(one.variance)
      shares.append(one.partial / one.variance)
    expected = np.mean(parts, axis=0) / np.mean(variances, axis=0)
    np.testing.assert_allclose(
      found.indices.subset_values, expected, rtol=1e-9, atol=1e-12
    )
    of_mean = surrogate_rules.variances(case.field.rule, np.tanh(mean))
    shift = expected - of_mean.partial / of_mean.variance
    spread = stats.t.ppf(0.95, len(shares) - 1) * np.std(
      shares, axis=0, ddof=1
    ) * pushed_indices._INFLATION
    half = np.sqrt(spread**2 + (pushed_indices._DOUBT * shift) ** 2)
    np.testing.assert_allclose(
      found.intervals.subset_lower, np.maximum(expected - half, 0), atol=1e-9
    )
    np.testing.assert_allclose(
      found.intervals.subset_upper, np.minimum(expected + half, 1), atol=1e-9
    )
    np.testing.assert_allclose(
      found.explained_variance,
      of_mean.variance / np.tanh(case.outputs).var(axis=0), rtol=1e-9,
    )

  def test_ratio_is_that_of_the_true_variance_over_the_drawn_one(self):
    # The error of a mean of S draws has 1 + 1/S times their variance, which
    # the truth, three times as wide, does not share.
    generator = np.random.default_rng(0)
    left_out = generator.standard_normal((20_000, 4, 1))
    outputs = 3 * generator.standard_normal((20_000, 1))
    at_zero = np.zeros_like(outputs)
    found = pushed_indices._ratio(
      left_out, np.eye(1), identity, outputs, at_zero
    )
    np.testing.assert_allclose(found, (9 + 1 / 4) / (1 + 1 / 4), rtol=0.05)
    # Where the quantity looks alone counts.
    half = np.arange(20_000)[:, None] < 10_000
    masked = lambda y: y * (half if y.ndim == 2 else half[:, None])
    quiet = np.where(half, outputs / 3, outputs)
    found = pushed_indices._ratio(left_out, np.eye(1), masked, quiet, at_zero)
    np.testing.assert_allclose(found, 1, rtol=0.05)
    constant = pushed_indices._ratio(
      left_out, np.eye(1), np.zeros_like, outputs, at_zero
    )
    self.assertEqual(constant, 1)

  def test_draws_of_one_image_have_the_covariance_of_its_residuals(self):
    # y and 2 y + 1: their draws move together, so that the difference of twice
    # the first and the second never varies.
    twin = lambda x: np.stack([wavy(x)[:, 0], 2 * wavy(x)[:, 0] + 1], axis=1)
    case = Case(3, twin, 32, 2)
    found = case.infer(lambda y: 2 * y[..., :1] - y[..., 1:])
    self.assertLess(found.indices.variance[0], 1e-10)
    self.assertIsNotNone(found.indices.reasons[0])

  def test_images_of_one_field_are_those_of_their_own(self):
    both = Case(3, lambda x: np.hstack([logits_of(x), wavy(x)]), 32, 2)
    own = kriging.condition(both.prior, both.nodes, both.outputs[:, 3:])
    field = pushed_indices.make_field(
      jax.random.key(3), own, both.space, 2
    )
    expected = pushed_indices.infer(
      field, slice(0, 2), np.tanh, both.outputs[:, 3:]
    )
    found = both.infer(np.tanh, slice(3, 5))
    np.testing.assert_allclose(
      found.indices.subset_values, expected.indices.subset_values, atol=1e-7
    )
    np.testing.assert_allclose(found.q2, expected.q2, rtol=1e-7)

  def test_quantity_without_variance_has_no_indices_but_a_reason(self):
    found = self.linear.infer(
      lambda y: np.stack([y[..., 0], 0 * y[..., 0] + 0.3], axis=-1)
    )
    self.assertIsNone(found.indices.reasons[0])
    self.assertIn('does not vary', found.indices.reasons[1])
    for name in ('subset_values', 'first_order', 'total', 'interactions'):
      values = getattr(found.indices, name)
      self.assertTrue(np.isfinite(values[..., 0]).all(), name)
      self.assertTrue(np.isnan(values[..., 1]).all(), name)
    self.assertTrue(np.isnan(found.intervals.total_upper[:, 1]).all())
    self.assertTrue(np.isnan(found.half_widths[1]))
    self.assertTrue(np.isnan(found.explained_variance[1]))
    self.assertGreater(found.explained_variance[0], 0.9)

  def test_step_at_one_node_alone_has_a_reason_and_no_number(self):
    largest = self.linear.outputs[:, 0].max()
    at_one_node = lambda y: (y[..., :1] == largest).astype(float)
    found = self.linear.infer(at_one_node)
    self.assertIn('does not vary', found.indices.reasons[0])
    self.assertTrue(np.isnan(found.indices.total).all())

  def test_q2_is_that_of_pushed_refits(self):
    case = Case(3, wavy, 16, 2)
    found = case.infer(np.tanh)
    residuals, _ = gaussian_process.leave_one_out(
      case.prior, case.prior.standardise(case.nodes), case.outputs
    )
    y, left_out = np.tanh(case.outputs), np.tanh(case.outputs - residuals)
    expected = 1 - np.sum((y - left_out) ** 2, axis=0) / np.sum(
      (y - y.mean(axis=0)) ** 2, axis=0
    )
    np.testing.assert_allclose(found.q2, expected, rtol=1e-7)

  def test_number_of_draws_is_that_of_the_field(self):
    case = Case(3, wavy, 24, 2, num_draws=3)
    found = case.infer(identity)
    self.assertEqual(found.intervals.num_resamples, 3)
    draws = surrogate_rules.variances(case.field.rule, (
      case.field.mean[:, None] + case.field.deviations @ pushed_indices._root(
        kriging.output_covariance(case.field.posterior, slice(None))
      ).T
    ).reshape(len(case.field.rule.points), -1))
    shares = (draws.total / draws.variance).reshape(3, 3, 2)
    # Two degrees of freedom.
    spread = 4.30265273 * shares.std(axis=1, ddof=1)
    open_end = found.intervals.total_upper < 1
    self.assertTrue(open_end.any())
    reached = found.intervals.total_upper - found.indices.total
    self.assertTrue(np.all(reached[open_end] >= spread[open_end] * (1 - 1e-9)))

  def test_field_is_a_function_of_the_key(self):
    make = lambda seed: pushed_indices.make_field(
      jax.random.key(seed), self.wavy.field.posterior, self.wavy.space, 2
    )
    np.testing.assert_array_equal(make(0).deviations, make(0).deviations)
    self.assertFalse(np.array_equal(make(0).deviations, make(1).deviations))


class IntervalsTest(parameterized.TestCase):

  @parameterized.parameters((3, 24), (5, 40))
  def test_intervals_hold_their_index_and_lie_in_the_unit_interval(
    self, dim, num_nodes
  ):
    # Of five factors, two are idle: on rows their estimates straddle zero.
    found = Case(dim, wavy, num_nodes, 2).infer(np.tanh)
    for name, values in (
      ('first_order', found.indices.first_order),
      ('total', found.indices.total), ('subset', found.indices.subset_values),
    ):
      lower = getattr(found.intervals, f'{name}_lower')
      upper = getattr(found.intervals, f'{name}_upper')
      self.assertTrue(np.all(lower >= 0) and np.all(upper <= 1), name)
      self.assertTrue(np.all(lower <= values + 1e-12), name)
      self.assertTrue(np.all(values <= upper + 1e-12), name)
      self.assertEqual(lower.shape, values.shape)

  def test_wider_level_has_wider_intervals(self):
    case = Case(3, wavy, 24, 2)
    narrow, wide = case.infer(np.tanh, level=0.5), case.infer(np.tanh)
    self.assertTrue(np.all(narrow.half_widths < wide.half_widths))

  def test_half_width_is_the_largest_of_first_order_and_total(self):
    lower = np.zeros((2, 3))
    made = intervals_lib.Intervals(
      ('a', 'b'), ((0,), (1,), (0, 1)), 0.95, 8,
      first_order_lower=lower, total_lower=lower + 0.1,
      first_order_upper=np.array([[0.2, 0.1, 0.0], [0.1, 0.1, np.nan]]),
      total_upper=np.array([[0.2, 0.5, 0.2], [0.1, 0.7, 0.2]]),
      subset_lower=np.zeros((3, 3)), subset_upper=np.ones((3, 3)),
    )
    np.testing.assert_allclose(
      pushed_indices.half_widths(made), [0.1, 0.3, np.nan], rtol=1e-12
    )

  def test_more_nodes_narrow_the_intervals(self):
    few, many = (
      Case(3, wavy, n, 2).infer(identity).half_widths for n in (16, 96)
    )
    self.assertTrue(np.all(many < few / 2), (few, many))


class RowsTest(parameterized.TestCase):

  def test_more_than_four_factors_are_integrated_on_rows(self):
    # x_1 + 2 x_2 + x_3 x_4 of five factors: variances 1/3, 4/3 and 1/9.
    def function(x):
      return (x[:, 0] + 2 * x[:, 1] + x[:, 2] * x[:, 3])[:, None]

    case = Case(5, function, 64, 1)
    self.assertIsNone(case.field.rule.axes)
    found = case.infer(identity)
    total = 1 / 3 + 4 / 3 + 1 / 9
    np.testing.assert_allclose(
      found.indices.first_order[:, 0],
      np.array([1 / 3, 4 / 3, 0, 0, 0]) / total, atol=0.02,
    )
    np.testing.assert_allclose(
      found.indices.total[:, 0],
      np.array([1 / 3, 4 / 3, 1 / 9, 1 / 9, 0]) / total, atol=0.02,
    )
    np.testing.assert_allclose(
      found.indices.interactions[2, 3], 1 / 9 / total, atol=0.02
    )
    self.assertEqual(found.indices.max_order, 2)
    np.testing.assert_allclose(
      found.mean_derivatives[:, 0], [1, 2, 0, 0, 0], atol=0.05
    )

  def test_fine_rows_correct_the_indices_of_the_posterior_mean(self):
    # Without spread between draws the indices are those of the fine rows.
    case = Case(5, wavy, 40, 2)
    still = dataclasses.replace(
      case.field, deviations=0 * case.field.deviations
    )
    found = pushed_indices.infer(still, slice(None), np.tanh, case.outputs)
    fine = surrogate_rules.variances(
      case.field.fine, np.tanh(case.field.posterior(case.field.fine.points))
    )
    np.testing.assert_allclose(
      found.indices.total, np.clip(fine.total / fine.variance, 0, 1),
      atol=1e-9,
    )
    np.testing.assert_allclose(
      found.indices.first_order,
      np.clip(fine.first_order / fine.variance, 0, 1), atol=1e-9,
    )
    # Nor is there any doubt, but for a small index that was moved to zero.
    np.testing.assert_array_less(found.half_widths, 1e-3)


if __name__ == '__main__':
  absltest.main()
