"""Adaptive designs: what they cost, when they stop, what they find."""

from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import chaospy
import jax
import numpy as np
from scipy import special

from jaxsens import factors
from jaxsens import marginals
from jaxsens.gpc import adaptive
from jaxsens.gpc import kriging
from jaxsens.gpc import surrogate_rules
from tests.oracles import anova
from tests.oracles import test_functions

_KEY = jax.random.key(0)


def square(dim=2):
  return test_functions.space_of(
    **{f'x{d}': chaospy.Uniform(-1, 1) for d in range(dim)}
  )


def identity(outputs):
  return outputs


def smooth(germ):
  return (germ[:, 0] + germ[:, 1] ** 2 / 2 + germ[:, 0] * germ[:, 1])[:, None]


def rough(germ):
  """Steps and kinks that no polynomial of affordable degree follows."""
  x, y = germ[:, 0], germ[:, 1]
  return (np.abs(np.sin(9 * x)) + 2.0 * (x + 0.3 * y > 0.2) * y)[:, None]


def constant(germ):
  return np.full((len(germ), 1), 0.3)


class Runs:
  """Images as functions of the germ; keeps what was asked for."""

  def __init__(self, *images):
    self.images, self.calls = images, []

  def __call__(self, image, nodes):
    self.calls.append((image, np.array(nodes)))
    return self.images[image](nodes)

  def nodes_of(self, image):
    """(N, D) all nodes at which an image was evaluated, in their order."""
    return np.concatenate([x for i, x in self.calls if i == image])

  def refine(self, space=None, *, key=_KEY, transform=identity, prior=None,
             on_step=None, **options):
    return adaptive.refine(
      key, self, space or square(), [transform] * len(self.images),
      adaptive.Options(**options), prior=prior, on_step=on_step,
    )


class CoarseTest(parameterized.TestCase):
  """Tests of the search alone, with few points of integration."""

  def setUp(self):
    super().setUp()
    self.enterContext(
      mock.patch.object(surrogate_rules, '_MAX_POINTS', 256)
    )


class OptionsTest(parameterized.TestCase):

  @parameterized.parameters(
    (64, 1024, (64, 128, 256, 512, 1024)), (64, 64, (64,)),
    (8, 50, (8, 16, 32, 50)), (10, 21, (10, 20, 21)),
  )
  def test_rounds_double_up_to_the_budget(self, first, most, expected):
    options = adaptive.Options(min_evaluations=first, max_evaluations=most)
    self.assertEqual(options.sizes, expected)

  @parameterized.parameters(
    (dict(tolerance=0.0), 'tolerance.*got 0.0'),
    (dict(tolerance=1.0), 'tolerance.*got 1.0'),
    (dict(tolerance=np.nan), 'tolerance.*nan'),
    (dict(min_evaluations=7), 'min_evaluations.*at least 8, got 7'),
    (dict(max_evaluations=63), 'max_evaluations is 63.*min_evaluations = 64'),
    (dict(level=95.0), 'level.*got 95.0'),
  )
  def test_bad_options_are_named(self, changes, message):
    with self.assertRaisesRegex(ValueError, message):
      adaptive.Options(**changes)


class CostTest(CoarseTest):

  def test_budget_is_spent_and_never_exceeded(self):
    runs = Runs(rough, lambda x: -rough(x[:, ::-1]))
    found = runs.refine(
      tolerance=1e-4, min_evaluations=16, max_evaluations=40
    )
    for i, answer in enumerate(found.answers):
      self.assertEqual(answer.num_evaluations, 40)
      self.assertLen(runs.nodes_of(i), 40)
    self.assertEqual([s.num_evaluations for s in found.history], [16, 32, 40])
    self.assertEqual([len(x) for _, x in runs.calls], [16, 16, 16, 16, 8, 8])
    self.assertFalse(found.history[-1].open.any())

  def test_every_node_is_evaluated_once_per_image(self):
    runs = Runs(rough, smooth)
    found = runs.refine(
      tolerance=1e-4, min_evaluations=16, max_evaluations=64
    )
    for i, answer in enumerate(found.answers):
      nodes = runs.nodes_of(i)
      self.assertLen(np.unique(nodes, axis=0), len(nodes))
      np.testing.assert_array_equal(answer.nodes, nodes)
      np.testing.assert_array_equal(answer.outputs, runs.images[i](nodes))

  def test_larger_budget_starts_with_the_nodes_of_a_smaller_one(self):
    few, many = Runs(rough), Runs(rough)
    few.refine(tolerance=1e-4, min_evaluations=8, max_evaluations=12)
    many.refine(tolerance=1e-4, min_evaluations=16, max_evaluations=40)
    np.testing.assert_array_equal(few.nodes_of(0), many.nodes_of(0)[:12])

  def test_image_that_is_done_costs_no_more_while_others_go_on(self):
    runs = Runs(rough, smooth, rough)
    found = runs.refine(
      tolerance=0.02, min_evaluations=32, max_evaluations=128
    )
    self.assertEqual(
      [answer.num_evaluations for answer in found.answers], [128, 32, 128]
    )
    self.assertEqual([len(runs.nodes_of(i)) for i in range(3)], [128, 32, 128])
    np.testing.assert_array_equal(found.history[0].open, [True, False, True])
    # The answer of the image that is done stays that of its round.
    self.assertEqual(found.history[-1].half_widths[1],
                     found.history[0].half_widths[1])

  def test_search_stops_where_the_tolerance_is_met(self):
    runs = Runs(smooth)
    found = runs.refine(tolerance=0.02, min_evaluations=32)
    self.assertLen(runs.calls, 1)
    self.assertLen(found.history, 1)
    widths = found.answers[0].inference.half_widths
    self.assertLessEqual(widths[0], 0.02)
    self.assertEqual(found.history[0].half_widths[0], widths[0])

  def test_image_whose_intervals_are_too_wide_goes_on(self):
    found = Runs(rough).refine(
      tolerance=0.005, min_evaluations=16, max_evaluations=32
    )
    self.assertGreater(found.history[0].half_widths[0], 0.005)
    self.assertTrue(found.history[0].open[0])

  def test_each_round_is_told_once(self):
    told = []
    found = Runs(rough, smooth).refine(
      tolerance=1e-4, min_evaluations=8, max_evaluations=32,
      on_step=told.append,
    )
    self.assertEqual(tuple(told), found.history)
    self.assertLen(told, 3)


class AccuracyTest(parameterized.TestCase):

  @parameterized.named_parameters(
    ('ishigami', test_functions.ishigami(), 64, 0.01),
    ('sobol_g', test_functions.sobol_g((0.0, 1.0, 4.5, 9.0)), 128, 0.03),
    ('borehole', test_functions.borehole(), 32, 0.02),
  )
  def test_benchmark_is_met_within_its_budget(self, function, budget, error):
    found = Runs(function).refine(
      function.space, tolerance=error, min_evaluations=32,
      max_evaluations=budget,
    )
    indices = found.answers[0].inference.indices
    self.assertLess(
      function.largest_error(indices.first_order, indices.total), error
    )

  def test_probabilities_of_logits_meet_the_tolerance(self):
    # Sharp: the plain probability is nearly a step.
    def logits(germ):
      first = 10 * (germ[:, 0] - 0.5 * germ[:, 1]
                    + 0.7 * germ[:, 0] * germ[:, 2] + 0.2)
      return np.stack([first, 0 * first], axis=1)

    found = Runs(logits).refine(
      square(3), tolerance=0.02, min_evaluations=32, max_evaluations=128,
      transform=lambda y: special.softmax(y, axis=-1)[..., :1],
    )
    inference = found.answers[0].inference
    exact = anova.indices(anova.dense_variances(anova.sharp_sigmoid, 80))
    total = anova.total_indices(exact)
    np.testing.assert_allclose(
      inference.indices.total[:, 0], total, atol=0.02
    )
    self.assertEqual(found.answers[0].method, 'kriging')

  def test_sparse_terms_win_on_a_polynomial_and_kriging_on_steps(self):
    found = Runs(smooth, rough).refine(
      tolerance=1e-6, min_evaluations=64, max_evaluations=64
    )
    self.assertEqual(
      [answer.method for answer in found.answers], ['sparse', 'kriging']
    )
    self.assertEqual(found.history[0].methods, ('sparse', 'kriging'))
    # Variances 1/3, 1/45 and 1/9 of x, y² / 2 and x y.
    parts = np.array([1 / 3, 1 / 45, 1 / 9])
    np.testing.assert_allclose(
      found.answers[0].inference.indices.subset_values[:, 0],
      parts / parts.sum(), rtol=1e-9,
    )
    np.testing.assert_allclose(
      found.answers[0].inference.mean_derivatives[:, 0], [1, 0], atol=1e-9
    )

  def test_every_image_has_a_surrogate_of_its_own(self):
    two = lambda x: np.hstack([rough(x), 5 - 3 * rough(x[:, ::-1])])
    turned = lambda x: two(x)[:, ::-1]
    with mock.patch.object(adaptive, '_MAX_SPARSE', 0):
      found = Runs(two, turned, lambda x: 2 * two(x)).refine(
        tolerance=1e-6, min_evaluations=64, max_evaluations=64
      )
    for answer in found.answers:
      self.assertEqual(answer.method, 'kriging')
      missed = answer.inference.surrogate(answer.nodes) - answer.outputs
      np.testing.assert_array_less(
        missed.std(axis=0), 0.3 * answer.outputs.std(axis=0)
      )
      self.assertEqual(answer.inference.indices.total.shape, (2, 2))
    first, second, third = (a.inference.indices.total for a in found.answers)
    # Kriging knows no units, and its draws are those of the same columns.
    np.testing.assert_allclose(third, first, atol=1e-6)
    np.testing.assert_allclose(second[:, ::-1], first, atol=0.05)

  def test_all_quantities_are_there_whichever_surrogate_wins(self):
    def quantities(outputs):
      return np.concatenate([outputs, outputs**2, 0 * outputs], axis=-1)

    for function, method in ((smooth, 'sparse'), (rough, 'kriging')):
      found = Runs(function).refine(
        tolerance=0.02, min_evaluations=32, max_evaluations=64,
        transform=quantities,
      )
      answer = found.answers[0]
      self.assertEqual(answer.method, method)
      inference = answer.inference
      self.assertEqual(inference.indices.total.shape, (2, 3))
      self.assertTrue(np.isfinite(inference.indices.total[:, :2]).all())
      self.assertTrue(np.isnan(inference.indices.total[:, 2]).all())
      self.assertEqual(inference.surrogate(answer.nodes).shape[1], 3)
      self.assertEqual(inference.half_widths.shape, (3,))

  def test_single_factor_explains_everything(self):
    found = Runs(lambda x: np.abs(np.sin(4 * x))).refine(
      square(1), tolerance=0.02, min_evaluations=16, max_evaluations=32
    )
    indices = found.answers[0].inference.indices
    self.assertEqual(indices.subsets, ((0,),))
    np.testing.assert_allclose(indices.total, 1, rtol=1e-9)
    np.testing.assert_allclose(indices.interactions, [[[1]]], rtol=1e-9)

  def test_smallest_first_round_works(self):
    found = Runs(smooth).refine(
      tolerance=0.5, min_evaluations=8, max_evaluations=8
    )
    self.assertEqual(found.answers[0].num_evaluations, 8)
    self.assertTrue(np.isfinite(found.answers[0].inference.indices.total).all())

  def test_discrete_factors_have_indices(self):
    lens = factors.Factor('lens', marginals.Discrete([0.0, 1.0, 5.0]))
    space = factors.FactorSpace((*square(1).factors, lens))
    found = Runs(lambda x: x[:, :1] * (2 + x[:, 1:])).refine(
      space, tolerance=0.02, min_evaluations=32, max_evaluations=64
    )
    # x (2 + c), c in {-1, -0.6, 1}: V_x = E[2 + c]² / 3, V_xc = Var(c) / 3.
    c = np.array([-1, -0.6, 1])
    exact = np.array([(2 + c.mean()) ** 2, 0, c.var()])
    indices = found.answers[0].inference.indices
    shares = dict(zip(
      indices.subsets, indices.subset_values[:, 0], strict=True
    ))
    np.testing.assert_allclose(
      [shares.get(u, 0.0) for u in ((0,), (1,), (0, 1))],
      exact / exact.sum(), atol=0.02,
    )


  def test_quantities_of_several_outputs_have_a_direct_check(self):
    # Two logits; their sigmoid is expanded through them and by itself.
    def logits(x):
      return np.stack([3 * np.abs(x[:, 0]) + x[:, 1], 0 * x[:, 0]], axis=1)

    def probability(y):
      return 1 / (1 + np.exp(y[..., 1:] - y[..., :1]))

    found = adaptive.refine(
      jax.random.key(0), lambda i, nodes: logits(nodes), square(2),
      [probability],
      adaptive.Options(
        tolerance=1e-4, min_evaluations=64, max_evaluations=64
      ),
    )
    (answer,) = found.answers
    self.assertEqual(answer.method, 'kriging')
    np.testing.assert_allclose(
      answer.direct.indices.total[:, 0],
      answer.inference.indices.total[:, 0], atol=0.03,
    )


class StateTest(CoarseTest):

  def test_same_key_gives_the_same_numbers(self):
    options = dict(tolerance=1e-3, min_evaluations=16, max_evaluations=32)
    first, second = (
      Runs(smooth, rough).refine(**options) for _ in range(2)
    )
    other = Runs(smooth, rough).refine(key=jax.random.key(1), **options)
    for a, b in zip(first.answers, second.answers, strict=True):
      self.assertEqual(a.method, b.method)
      for name in ('subset_values', 'first_order', 'total', 'variance'):
        np.testing.assert_array_equal(
          getattr(a.inference.indices, name), getattr(b.inference.indices, name)
        )
      np.testing.assert_array_equal(
        a.inference.intervals.total_lower, b.inference.intervals.total_lower
      )
    self.assertFalse(
      np.array_equal(first.answers[0].nodes, other.answers[0].nodes)
    )

  def test_order_of_the_images_does_not_matter(self):
    options = dict(tolerance=0.02, min_evaluations=16, max_evaluations=32)
    forward = Runs(smooth, rough, constant).refine(**options)
    back = Runs(constant, rough, smooth).refine(**options)
    for a, b in zip(forward.answers, back.answers[::-1], strict=True):
      self.assertEqual(a.method, b.method)
      self.assertEqual(a.num_evaluations, b.num_evaluations)
      np.testing.assert_allclose(
        a.inference.indices.total, b.inference.indices.total, atol=1e-4
      )

  def test_prior_of_an_earlier_refinement_is_where_learning_starts(self):
    options = dict(tolerance=1e-3, min_evaluations=16, max_evaluations=32)
    earlier = Runs(rough).refine(**options).prior
    with mock.patch.object(kriging, 'learn', wraps=kriging.learn) as learn:
      found = Runs(rough).refine(prior=earlier, **options)
    self.assertIs(learn.call_args_list[0].kwargs['known'], earlier)
    second = learn.call_args_list[1].kwargs['known']
    self.assertIsNot(second, earlier)
    self.assertGreater(found.prior.log_likelihood, -np.inf)

  def test_prior_without_anything_to_learn_stays(self):
    earlier = kriging.default_prior(square())
    found = Runs(constant).refine(
      prior=earlier, min_evaluations=8, max_evaluations=16
    )
    self.assertIs(found.prior, earlier)

  def test_constant_image_has_a_reason_and_does_not_disturb_the_others(self):
    runs = Runs(constant, smooth, constant)
    found = runs.refine(
      tolerance=0.02, min_evaluations=16, max_evaluations=256
    )
    for i in (0, 2):
      inference = found.answers[i].inference
      self.assertIn('does not vary', inference.indices.reasons[0])
      self.assertTrue(np.isnan(inference.indices.total).all())
      self.assertTrue(np.isnan(inference.half_widths).all())
      # A rare event gets some more runs to show, but not all of them.
      self.assertEqual(found.answers[i].num_evaluations, 64)
    parts = np.array([1 / 3, 1 / 45, 1 / 9])
    np.testing.assert_allclose(
      found.answers[1].inference.indices.subset_values[:, 0],
      parts / parts.sum(), atol=0.02,
    )

  def test_event_that_the_first_round_misses_is_found_later(self):
    event = lambda x: (x[:, :1] > 0.93) * (x[:, :1] - 0.93)
    runs = Runs(event)
    found = runs.refine(
      key=jax.random.key(2), tolerance=0.05, min_evaluations=8,
      max_evaluations=64,
    )
    self.assertEqual(np.ptp(event(runs.calls[0][1])), 0)
    self.assertTrue(np.isnan(found.history[0].half_widths[0]))
    indices = found.answers[0].inference.indices
    self.assertIsNone(indices.reasons[0])
    self.assertGreater(indices.total[0, 0], indices.total[1, 0])

  def test_output_that_is_not_finite_names_image_and_node(self):
    def broken(germ):
      outputs = np.hstack([rough(germ), smooth(germ)])
      if len(runs.calls) > 2:
        outputs[3, 1] = np.nan
      return outputs

    runs = Runs(lambda x: np.hstack([rough(x), rough(x)]), broken)
    # The second round has the nodes 16 to 31.
    with self.assertRaisesRegex(
      ValueError, 'output 1 of image 1 is nan at node 19'
    ):
      runs.refine(tolerance=1e-6, min_evaluations=16, max_evaluations=32)

  @parameterized.named_parameters(
    ('vector', (lambda x: x[:, 0],), r'\(16, C\) of image 0, got \(16,\)'),
    ('rows', (lambda x: x[:5],), r'\(16, C\) of image 0, got \(5, 2\)'),
    ('none', (lambda x: x[:, :0],), r'\(16, C\) of image 0, got \(16, 0\)'),
    ('widths', (lambda x: x, smooth), r'\(16, 2\) of image 1, got \(16, 1\)'),
  )
  def test_outputs_of_another_shape_name_their_image(self, images, message):
    with self.assertRaisesRegex(ValueError, message):
      Runs(*images).refine(min_evaluations=16)

  def test_no_image_is_an_error(self):
    with self.assertRaisesRegex(ValueError, 'at least one image'):
      adaptive.refine(_KEY, Runs(), square(), [])


if __name__ == '__main__':
  absltest.main()
