"""Data sets of images against definitions, brute force and coverage."""

import dataclasses
import itertools

from absl.testing import absltest
from absl.testing import parameterized
import chaospy
import jax
import numpy as np

from jaxsens import factors
from jaxsens import fragility
from jaxsens import population_accuracy
from jaxsens import populations
from jaxsens.gpc import aggregate_indices
from jaxsens.gpc import expansions
from jaxsens.gpc import grid_anova
from jaxsens.gpc import multi_indices
from jaxsens.gpc import sobol_indices
from tests.oracles import synthetic_images

KEY = jax.random.key(3)


def small_population(total, variance=None, labels=None, half_width=0.0,
                     **changes):
  """Images of given total indices (I, D), first-order ones half of them."""
  total = np.asarray(total, np.float64)[:, :, None]
  size, dim, _ = total.shape
  first_order = total / 2
  fields = {
    'image_names': tuple(f'image{i}' for i in range(size)),
    'labels': np.zeros(size, int) if labels is None else np.array(labels),
    'class_names': ('a', 'b', 'none of it'),
    'factor_names': tuple('xyzuvw'[:dim]), 'output_names': ('p',),
    'first_order': first_order, 'first_order_lower': first_order - half_width,
    'first_order_upper': first_order + half_width, 'total': total,
    'total_lower': total - half_width, 'total_upper': total + half_width,
    'mean': np.zeros((size, 1)),
    'variance': np.ones((size, 1)) if variance is None
    else np.asarray(variance, float)[:, None],
    'q2': np.ones((size, 1)), 'failure_probability': np.zeros(size),
    'trusted': np.ones(size, bool), 'method': ('adaptive',) * size,
    'num_evaluations': np.ones(size, int), 'predictions': np.zeros(size, int),
  }
  return populations.Population(**fields | changes)


class PopulationTest(parameterized.TestCase):

  @parameterized.parameters(
    ('total_lower', np.zeros((3, 2, 2))), ('mean', np.zeros(3)),
    ('failure_probability', np.zeros(2)), ('trusted', np.ones((3, 1), bool)),
    ('method', ('a',)), ('reasons', (None,)),
  )
  def test_misshapen_field_is_named_with_both_shapes(self, name, value):
    with self.assertRaisesRegex(ValueError, f'{name} has shape .* expected'):
      small_population(np.zeros((3, 2)), **{name: value})

  @parameterized.parameters(([0, 1, 3],), ([0, -1, 0],), ([0.0, 1.0, 0.0],))
  def test_label_without_a_name_is_refused(self, labels):
    with self.assertRaisesRegex(ValueError, 'labels: expected integers 0 to 2'):
      small_population(np.zeros((3, 2)), labels=labels)


class DistributionTest(absltest.TestCase):

  def test_quantiles_are_those_of_the_images_of_a_group(self):
    total = np.random.default_rng(0).uniform(size=(9, 2))
    labels = np.array([0, 1, 1, 0, 0, 1, 0, 0, 1])
    found = populations.distribution(small_population(total, labels=labels))
    self.assertEqual(found.group_names, ('all images', 'a', 'b', 'none of it'))
    levels = (0.05, 0.25, 0.5, 0.75, 0.95)
    for g, kept in enumerate((labels >= 0, labels == 0, labels == 1)):
      expected = np.quantile(total[kept], levels, axis=0)
      np.testing.assert_allclose(found.total[g, :, :, 0], expected)
      np.testing.assert_allclose(found.first_order[g, :, :, 0], expected / 2)
    np.testing.assert_array_equal(found.num_images, [9, 5, 4, 0])
    self.assertTrue(np.isnan(found.total[3]).all())

  def test_images_without_indices_are_counted_and_named(self):
    total = np.full((4, 2), 0.5)
    total[2] = np.nan
    found = populations.distribution(
      small_population(total, labels=[0, 0, 1, 0])
    )
    self.assertEqual(found.undefined_names, (('image2',),))
    np.testing.assert_array_equal(found.num_defined[:, 0], [3, 3, 0, 0])
    np.testing.assert_array_equal(found.num_images, [4, 3, 1, 0])
    np.testing.assert_allclose(found.total[0], np.full((5, 2, 1), 0.5))


class AggregateTest(parameterized.TestCase):

  def test_weighted_index_is_the_generalised_one_of_all_images(self):
    space = factors.FactorSpace(
      tuple(factors.Factor(n, chaospy.Uniform(-1, 1)) for n in 'xyz')
    )
    basis = expansions.Basis(space, multi_indices.total_degree(3, 3))
    rng = np.random.default_rng(1)
    scales = rng.lognormal(size=12)
    expansion = expansions.Expansion(
      basis, scales * rng.normal(size=(basis.num_terms, 12))
    )
    single = sobol_indices.sobol_indices(expansion)
    images = small_population(
      single.total.T, single.variance,
      first_order=single.first_order.T[:, :, None],
    )
    found = populations.aggregate(KEY, images)
    expected = aggregate_indices.generalised(expansion)
    np.testing.assert_allclose(
      found.weighted_total.value[0], expected.total, rtol=1e-12
    )
    np.testing.assert_allclose(
      found.weighted_first_order.value[0], expected.first_order, rtol=1e-12
    )
    np.testing.assert_allclose(
      found.mean_total.value[0, :, 0], single.total.mean(axis=1), rtol=1e-12
    )

  def test_images_without_indices_leave_the_average_alone(self):
    total = np.random.default_rng(2).uniform(size=(6, 2))
    with_nan = np.concatenate([total, np.full((1, 2), np.nan)])
    labels, variance = [0, 1, 0, 1, 0, 1, 1], np.arange(7.0)
    found = populations.aggregate(
      KEY, small_population(with_nan, variance, labels)
    )
    expected = populations.aggregate(
      KEY, small_population(total, variance[:6], labels[:6])
    )
    np.testing.assert_array_equal(found.num_defined[:, 0], [6, 3, 3, 0])
    for name in ('mean_total', 'weighted_total', 'mean_first_order'):
      for end in ('value', 'lower', 'upper'):
        np.testing.assert_array_equal(
          getattr(getattr(found, name), end),
          getattr(getattr(expected, name), end),
        )

  def test_mask_averages_the_included_images(self):
    total = np.random.default_rng(3).uniform(size=(8, 2))
    include = np.arange(8) % 2 == 0
    found = populations.aggregate(
      KEY, small_population(total), include=include
    )
    np.testing.assert_allclose(
      found.mean_total.value[0, :, 0], total[include].mean(axis=0)
    )

  def test_class_without_images_is_nan_and_one_image_has_no_interval(self):
    images = small_population(np.full((3, 1), 0.4), labels=[0, 0, 1])
    found = populations.aggregate(KEY, images).mean_total
    np.testing.assert_allclose(found.value[:, 0, 0], [0.4, 0.4, 0.4, np.nan])
    self.assertTrue(np.isnan(found.lower[2:]).all())
    np.testing.assert_allclose(found.upper[:2, 0, 0], [0.4, 0.4])

  def test_unknown_share_of_the_spread_widens_the_interval(self):
    total = np.random.default_rng(4).uniform(0.4, 0.41, size=(20, 1))
    widths = [
      np.ptp([e.lower[0, 0, 0], e.upper[0, 0, 0]]) for e in (
        populations.aggregate(KEY, small_population(total, half_width=h))
        .mean_total for h in (0.0, 0.3)
      )
    ]  # fmt: skip
    # Own errors of deviation 0.153, mean of 20: 2.15 * 0.153 / sqrt(20).
    self.assertLess(widths[0], 0.01)
    np.testing.assert_allclose(widths[1], 2 * 0.0736, rtol=0.12)

  def test_ends_stay_within_0_and_1(self):
    images = small_population([[0.0], [1.0], [0.9]], half_width=0.5)
    found = populations.aggregate(KEY, images).mean_total
    self.assertEqual((found.lower[0, 0, 0], found.upper[0, 0, 0]), (0, 1))

  def test_95_percent_intervals_cover_the_averages_of_the_population(self):
    # 40 of 400 known images with errors of their own, 80 trials; five
    # standard errors of a coverage of 95 %: 0.12.
    pool = synthetic_images.population(400, seed=5)
    defined = np.flatnonzero(pool.defined[:, 0])
    total = pool.total[defined, :, 0]
    variance = pool.variance[defined, 0]
    truth = [total.mean(axis=0), variance @ total / variance.sum()]
    rng = np.random.default_rng(6)
    covered = np.zeros((2, 3))
    for trial in range(80):
      drawn = rng.integers(len(defined), size=40)
      images = small_population(
        total[drawn] + 0.05 * rng.normal(size=(40, 3)), variance[drawn],
        half_width=1.96 * 0.05, class_names=('one',),
      )
      found = populations.aggregate(
        jax.random.key(trial), images, num_resamples=300
      )
      for i, estimate in enumerate((found.mean_total, found.weighted_total)):
        covered[i] += (estimate.lower[0, :, 0] <= truth[i]) & (
          truth[i] <= estimate.upper[0, :, 0]
        )
    np.testing.assert_array_less(0.83, covered / 80)

  def test_mask_of_another_shape_is_refused(self):
    with self.assertRaisesRegex(ValueError, r'include: expected shape \(2,\)'):
      populations.aggregate(
        KEY, small_population(np.ones((2, 1))), include=[True]
      )


class FragilityTest(absltest.TestCase):

  def test_images_rank_by_failure_then_by_the_smallest_range(self):
    images = small_population(
      np.full((6, 1), 0.5),
      failure_probability=np.array([0.1, 0.4, np.nan, 0.4, 0.4, 0.0]),
    )
    found = fragility.rank(
      KEY, images, smallest_range=[0.1, 0.9, 0.0, np.nan, 0.2, 0.3]
    )
    np.testing.assert_array_equal(found.order, [4, 1, 3, 0, 5, 2])

  def test_leading_factor_has_the_largest_total_index(self):
    images = small_population(
      [[0.2, 0.7, 0.3], [0.6, 0.55, 0.1], [np.nan] * 3], half_width=0.1
    )
    found = fragility.rank(KEY, images)
    np.testing.assert_array_equal(found.leading_factor, [1, 0, -1])
    np.testing.assert_array_equal(found.tied, [False, True, False])

  def test_class_fails_with_the_mean_probability_of_its_images(self):
    images = small_population(
      np.full((5, 1), 0.5), labels=[0, 0, 1, 1, 1],
      failure_probability=np.array([0.1, 0.3, 0.5, 0.7, np.nan]),
    )
    found = fragility.rank(KEY, images).failure_probability
    np.testing.assert_allclose(found.value, [0.4, 0.2, 0.6, np.nan])

  def test_smallest_ranges_of_another_shape_are_refused(self):
    with self.assertRaisesRegex(ValueError, 'smallest_range'):
      fragility.rank(
        KEY, small_population(np.ones((2, 1))), smallest_range=[0.1]
      )


class AccuracyIndicesTest(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    self.labels, table = synthetic_images.probabilities(24, seed=7)
    self.correct = (table >= 0.5).astype(np.float64)
    _, self.weights = synthetic_images.rules()

  def indices(self, correct, labels=None, **options):
    return population_accuracy.accuracy_indices(
      KEY, correct, self.weights, self.labels if labels is None else labels,
      options.pop('class_names', synthetic_images.CLASSES), **options,
    )

  def variances(self, maps):
    """(S, G) variances of maps (G, n_1, ..., n_D)."""
    return grid_anova.partial_variances(
      np.moveaxis(np.asarray(maps), 0, -1), self.weights
    )[1]

  def test_exact_indices_are_those_of_the_mean_map(self):
    found = self.indices(self.correct)
    members = [self.labels >= 0] + [self.labels == c for c in range(4)]
    variances = self.variances([self.correct[m].mean(axis=0) for m in members])
    expected = (variances / variances.sum(axis=0)).T
    np.testing.assert_allclose(found.subset_values, expected, rtol=1e-9)
    np.testing.assert_allclose(
      found.exact_first_order, expected[:, :3], rtol=1e-9
    )
    np.testing.assert_allclose(
      found.exact_total[:, 2], expected[:, [2, 4, 5, 6]].sum(axis=1), rtol=1e-9
    )

  def test_indices_of_images_like_these_average_over_pairs(self):
    # <f, g>_u = (V_u(f + g) - V_u(f) - V_u(g)) / 2 for every pair of images.
    maps = self.correct[:9]
    pairs = []
    for i, j in itertools.combinations(range(9), 2):
      both = self.variances([maps[i] + maps[j], maps[i], maps[j]])
      pairs.append((both[:, 0] - both[:, 1] - both[:, 2]) / 2)
    expected = np.mean(pairs, axis=0)
    found = self.indices(maps, np.zeros(9, int))
    np.testing.assert_allclose(
      found.first_order.value[0], np.maximum(expected[:3] / expected.sum(), 0),
      rtol=1e-9,
    )
    np.testing.assert_allclose(
      found.deviation[0], np.sqrt(expected.sum()), rtol=1e-9
    )

  def test_equal_images_have_the_indices_of_their_map_without_width(self):
    correct = np.broadcast_to(self.correct[2], self.correct.shape)
    found = self.indices(correct)
    for g in range(5):
      np.testing.assert_allclose(
        found.total.value[g], found.exact_total[g], rtol=1e-9
      )
    np.testing.assert_allclose(found.total.lower, found.total.upper, atol=1e-9)

  def test_few_images_bias_the_exact_indices_and_not_those_of_pairs(self):
    # 60 draws of 6 images from 300 known ones; the truth is that of all 300.
    _, table = synthetic_images.probabilities(300, seed=8)
    pool = (table >= 0.5).astype(np.float64)
    truth = self.variances([pool.mean(axis=0)])[:, 0]
    interaction = truth[3:].sum()
    rng = np.random.default_rng(9)
    pairs, exact = [], []
    for _ in range(60):
      maps = pool[rng.integers(300, size=6)]
      found = self.indices(
        maps, np.zeros(6, int), num_resamples=2, class_names=('one',)
      )
      spread = found.deviation[0] ** 2
      pairs.append(spread)
      exact.append(self.variances([maps.mean(axis=0)])[3:].sum())
    error = 5 * np.std(pairs) / np.sqrt(60)
    self.assertLess(abs(np.mean(pairs) - truth.sum()), error)
    self.assertGreater(np.mean(exact), 1.5 * interaction)

  def test_95_percent_intervals_cover_the_indices_of_the_population(self):
    # 30 of 300 known images, 60 trials; measured 0.89 to 1 with 200 trials of
    # another population, less five standard errors.
    _, table = synthetic_images.probabilities(300, seed=8)
    pool = (table >= 0.5).astype(np.float64)
    exact = self.indices(pool, np.zeros(300, int), num_resamples=2)
    truth = exact.exact_first_order[0], exact.exact_total[0]
    rng = np.random.default_rng(10)
    covered = np.zeros((2, 3))
    for _ in range(60):
      found = self.indices(
        pool[rng.integers(300, size=30)], np.zeros(30, int),
        num_resamples=200, class_names=('one',),
      )
      for i, estimate in enumerate((found.first_order, found.total)):
        covered[i] += (estimate.lower[0] <= truth[i]) & (
          truth[i] <= estimate.upper[0]
        )
    np.testing.assert_array_less(0.75, covered / 60)

  def test_main_effects_and_level_are_means_over_images(self):
    found = self.indices(self.correct)
    w = self.weights
    expected = np.einsum('inmk,m,k->n', self.correct, w[1], w[2]) / 24
    np.testing.assert_allclose(found.main_effects[0].value[0], expected)
    np.testing.assert_allclose(found.accuracy.value[0], w[0] @ expected)
    self.assertEqual(
      [e.value.shape for e in found.main_effects], [(5, 11), (5, 7), (5, 5)]
    )
    self.assertTrue(np.all(found.main_effects[0].lower[0] <= expected))

  def test_flat_and_gridded_nodes_are_the_same(self):
    flat = self.indices(self.correct.reshape(24, -1))
    np.testing.assert_array_equal(
      flat.total.value, self.indices(self.correct).total.value
    )

  def test_accuracy_that_does_not_vary_has_no_indices(self):
    found = self.indices(np.ones_like(self.correct))
    self.assertTrue(np.isnan(found.total.value).all())
    self.assertTrue(np.isnan(found.total.lower).all())
    self.assertTrue(np.isnan(found.exact_total).all())
    np.testing.assert_allclose(found.accuracy.value, np.ones(5))
    np.testing.assert_allclose(found.deviation, np.zeros(5), atol=1e-15)

  def test_single_image_has_exact_indices_only(self):
    found = self.indices(self.correct[2:3], [0])
    self.assertTrue(np.isnan(found.total.value).all())
    self.assertTrue(np.isfinite(found.exact_total[:2]).all())
    self.assertTrue(np.isnan(found.exact_total[2:]).all())

  @parameterized.named_parameters(
    ('nodes', np.ones((24, 384)), None, 'correct: expected shape'),
    ('range', np.full((24, 385), 1.2), None, r'correct: .* in \[0, 1\]'),
    ('nan', np.full((24, 385), np.nan), None, r'correct: .* in \[0, 1\]'),
    ('labels', np.ones((24, 385)), [0], 'labels: expected shape'),
    ('name', np.ones((24, 385)), [9] * 24, 'labels: expected integers'),
  )
  def test_bad_input_is_named(self, correct, labels, message):
    with self.assertRaisesRegex(ValueError, message):
      self.indices(correct, labels)


class KeysTest(absltest.TestCase):

  def test_same_key_gives_the_same_intervals(self):
    images = synthetic_images.population(20)
    one, same, other = (
      dataclasses.astuple(populations.aggregate(key, images).mean_total)[1]
      for key in (KEY, KEY, jax.random.key(4))
    )
    np.testing.assert_array_equal(one, same)
    self.assertFalse(np.array_equal(one, other, equal_nan=True))


if __name__ == '__main__':
  absltest.main()
