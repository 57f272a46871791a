"""Curves of deletion and insertion, MuFidelity, and what they share."""

from absl.testing import parameterized
import jax
import numpy as np
from scipy import ndimage
from scipy import stats

from jaxsens.attribution import faithfulness
from jaxsens.attribution import maps
from jaxsens.attribution import measures
from tests.oracles import linear_scores
from tests.oracles import small_networks


class CurveTest(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    self.classifier = small_networks.classifier(jax.random.key(0))
    self.images = linear_scores.images(3, 8)
    rng = np.random.default_rng(1)
    self.maps = rng.normal(size=(3, 8, 8))

  def _score(self, images, targets):
    logits = np.asarray(self.classifier(images), np.float64)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return p[np.arange(len(images)), targets]

  @parameterized.parameters('deletion', 'insertion')
  def test_curve_equals_images_changed_pixel_by_pixel(self, name):
    targets = np.array([1, 3, 0])
    grey = np.float32(0.3)
    curve = getattr(faithfulness, name)(
      self.classifier, self.images, self.maps, targets, num_steps=5,
      baselines=grey, chunk_size=2,
    )
    before = self.images.copy()
    after = np.full_like(before, grey)
    if name == 'insertion':
      before, after = after, before
    expected = []
    for step in range(6):
      for b in range(3):
        order = np.argsort(-self.maps[b].ravel())[:round(64 * step / 5)]
        before.reshape(3, 64, 3)[b, order] = after.reshape(3, 64, 3)[b, order]
      expected.append(self._score(before, targets))
    np.testing.assert_allclose(
      curve.scores, np.stack(expected, 1), rtol=2e-5
    )
    np.testing.assert_allclose(
      curve.shares, [0, 13 / 64, 26 / 64, 38 / 64, 51 / 64, 1]
    )

  def test_area_is_the_trapezoidal_rule_over_the_length(self):
    curve = faithfulness.Curve(
      'x', np.array([0, 0.1, 0.5]), np.array([[1.0, 0.0, 0.5]])
    )
    np.testing.assert_allclose(curve.areas, [(0.05 + 0.1) / 0.5])

  def test_ends_are_the_image_and_the_blurred_image(self):
    curve = faithfulness.deletion(
      self.classifier, self.images, self.maps, 2, num_steps=3, baselines='blur'
    )
    blurred = ndimage.gaussian_filter(
      self.images, (0, 10, 10, 0), mode='nearest'
    )
    np.testing.assert_allclose(
      curve.scores[:, [0, -1]].T,
      [self._score(x, 2) for x in (self.images, blurred)], rtol=2e-5,
    )

  def test_random_maps_have_equal_areas_of_deletion_and_insertion(self):
    number = 200
    images = np.repeat(self.images[:1], number, 0)
    draws = np.random.default_rng(2).normal(size=(2, number, 8, 8))
    areas = [
      getattr(faithfulness, name)(
        self.classifier, images, found, 1, quantity='logit', num_steps=8,
        chunk_size=100,
      ).areas
      for name, found in zip(('deletion', 'insertion'), draws, strict=True)
    ]
    difference = areas[0].mean() - areas[1].mean()
    error = np.sqrt(sum(x.var(ddof=1) for x in areas) / number)
    self.assertLess(abs(difference), 5 * error)
    self.assertGreater(error, 0)

  def test_gradient_of_a_linear_model_is_better_than_any_random_map(self):
    linear = linear_scores.classifier(jax.random.key(3))
    images = linear_scores.images(4)
    gain = (linear_scores.gradients(linear, np.zeros(4, int)) * images).sum(-1)
    random = np.random.default_rng(0).normal(size=gain.shape)
    good, bad = (
      faithfulness.deletion(linear, images, m, 0, quantity='logit').areas
      for m in (gain, random)
    )
    self.assertTrue((good < bad).all())

  def test_curve_does_not_depend_on_the_size_of_chunks(self):
    key = jax.random.key(5)
    constant = np.zeros((3, 8, 8))
    curves = [
      faithfulness.deletion(
        self.classifier, self.images, constant, 0, num_steps=4, key=key,
        chunk_size=size,
      ).scores
      for size in (1, 3)
    ]
    np.testing.assert_allclose(*curves, rtol=1e-5)

  def test_equal_values_follow_rows_or_a_draw_for_each_image(self):
    plain = faithfulness.ranks(np.zeros((2, 2, 3)))
    np.testing.assert_array_equal(plain[1], [[0, 1, 2], [3, 4, 5]])
    drawn = faithfulness.ranks(np.zeros((2, 5, 5)), jax.random.key(0))
    self.assertTrue((drawn[0] != drawn[1]).any())
    np.testing.assert_array_equal(np.sort(drawn[0].ravel()), np.arange(25))

  def test_errors_name_the_image_and_the_shape(self):
    broken = self.maps.copy()
    broken[2, 0, 0] = np.nan
    with self.assertRaisesRegex(ValueError, r'1 images .*\[2\]'):
      faithfulness.deletion(self.classifier, self.images, broken)
    with self.assertRaisesRegex(ValueError, r'\(3, 8, 8\).*got \(3, 4, 4\)'):
      faithfulness.insertion(
        self.classifier, self.images, self.maps[:, :4, :4]
      )
    with self.assertRaisesRegex(ValueError, 'num_steps'):
      faithfulness.deletion(
        self.classifier, self.images, self.maps, num_steps=65
      )
    with self.assertRaisesRegex(ValueError, "'grey'"):
      faithfulness.deletion(
        self.classifier, self.images, self.maps, baselines='grey'
      )


class MuFidelityTest(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    self.linear = linear_scores.classifier(jax.random.key(3))
    self.images = linear_scores.images(3)
    self.targets = np.array([2, 0, 1])
    gradients = linear_scores.gradients(self.linear, self.targets)
    self.exact = (gradients * self.images).sum(-1)

  def _found(self, heat_maps, **options):
    return faithfulness.mufidelity(
      jax.random.key(1), self.linear, self.images, heat_maps, self.targets,
      quantity='logit', **options,
    )

  def test_exact_map_of_a_linear_model_has_one(self):
    # In float32 neighbours in 200 nearly equal sums may change places.
    np.testing.assert_allclose(self._found(self.exact).values, 1, atol=1e-5)
    np.testing.assert_allclose(self._found(-self.exact).values, -1, atol=1e-5)

  def test_random_map_has_none_on_average(self):
    images = np.repeat(self.images[:1], 60, 0)
    random = np.random.default_rng(0).normal(size=(60, 9, 9))
    found = faithfulness.mufidelity(
      jax.random.key(1), self.linear, images, random, 0, quantity='logit',
      num_samples=40, chunk_size=60,
    ).values
    error = found.std(ddof=1) / np.sqrt(60)
    self.assertLess(abs(found.mean()), 5 * error)

  def test_result_does_not_depend_on_the_size_of_chunks(self):
    noisy = self.exact + np.random.default_rng(0).normal(size=(3, 9, 9))
    found = [
      self._found(noisy, num_samples=30, chunk_size=size).values
      for size in (1, 2)
    ]
    np.testing.assert_allclose(*found, atol=1e-3)
    self.assertLess(found[0].max(), 0.99)

  def test_constant_map_is_undefined_and_counted(self):
    maps_ = self.exact.copy()
    # All subsets have as many blocks, so that all sums are equal.
    maps_[1] = 1.0
    found = self._found(maps_, num_samples=10)
    np.testing.assert_array_equal(np.isnan(found.values), [False, True, False])
    self.assertEqual(found.num_undefined, 1)
    self.assertAlmostEqual(found.mean, 1, places=5)

  @parameterized.parameters(
    ({'grid_size': 10}, 'grid_size'), ({'share': 0.0}, 'share'),
    ({'share': 1.0}, 'share'), ({'num_samples': 1}, 'num_samples'),
  )
  def test_options_out_of_range_are_refused(self, options, name):
    with self.assertRaisesRegex(ValueError, name):
      self._found(self.exact, **options)


class SharedTest(parameterized.TestCase):

  def test_spearman_equals_scipy_with_ties(self):
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 6, (2, 4, 5, 5))
    expected = [
      stats.spearmanr(a.ravel(), b.ravel()).statistic
      for a, b in zip(first, second, strict=True)
    ]
    np.testing.assert_allclose(
      measures.spearman(first, second), expected, rtol=1e-12
    )

  def test_attribution_is_taken_for_its_heat_maps(self):
    values = np.arange(24, dtype=np.float32).reshape(1, 2, 4, 3)
    nothing = np.zeros(1)
    found = measures.as_heat_maps(
      maps.Attribution('x', values, nothing, nothing, nothing, nothing, nothing)
    )
    np.testing.assert_array_equal(found, values.sum(-1))
