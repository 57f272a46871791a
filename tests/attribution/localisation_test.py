"""Heat maps against masks at one threshold or none."""

from absl.testing import parameterized
import numpy as np
from scipy import ndimage

from jaxsens.attribution import localisation


def _masks(number=4, size=10, share=0.3, seed=0):
  return np.random.default_rng(seed).random((number, size, size)) < share


class MapTest(parameterized.TestCase):

  def test_mask_itself_is_perfect(self):
    masks = _masks()
    heat_maps = masks.astype(float)
    overlap = localisation.overlap(
      localisation.above_deviation(heat_maps, 0), masks
    )
    for found in (
      localisation.pointing_game(heat_maps, masks),
      localisation.mass_accuracy(heat_maps, masks),
      localisation.rank_accuracy(heat_maps, masks),
      overlap.dice, overlap.iou, overlap.precision, overlap.recall,
      overlap.accuracy,
    ):
      np.testing.assert_array_equal(found.values, 1, found.name)
      self.assertEqual((found.mean, found.num_undefined), (1, 0))

  def test_constant_map_points_as_a_random_pixel_does(self):
    masks = _masks()
    share = masks.mean((1, 2))
    heat_maps = np.full(masks.shape, 3.0)
    for function in (
      localisation.pointing_game, localisation.mass_accuracy,
      localisation.rank_accuracy,
    ):
      np.testing.assert_allclose(function(heat_maps, masks).values, share)
    for predicted in (
      localisation.above_deviation(heat_maps + 0.1, -1),
      localisation.above_quantile(heat_maps + 0.1, 0),
    ):
      self.assertFalse(predicted.any())

  @parameterized.parameters((0, 0), (1.9, 0), (2, 1), (5, 1))
  def test_pointing_game_tolerates_a_distance(self, tolerance, expected):
    heat_maps, masks = np.zeros((1, 9, 9)), np.zeros((1, 9, 9), bool)
    heat_maps[0, 4, 6], masks[0, 4, :5] = 1, True
    found = localisation.pointing_game(heat_maps, masks, tolerance=tolerance)
    np.testing.assert_array_equal(found.values, [expected])

  def test_mass_and_rank_accuracy_by_hand(self):
    heat_maps = np.array([[[4.0, 3, 2], [1, 0, -9]]])
    masks = np.array([[[True, False, True], [False, False, True]]])
    np.testing.assert_allclose(
      localisation.mass_accuracy(heat_maps, masks).values, [6 / 10]
    )
    np.testing.assert_allclose(
      localisation.rank_accuracy(heat_maps, masks).values, [2 / 3]
    )

  def test_rank_accuracy_is_the_mean_over_orders_of_equal_values(self):
    rng = np.random.default_rng(0)
    heat_map, mask = rng.integers(0, 4, (6, 6)), rng.random((6, 6)) < 0.3
    size = mask.sum()
    draws = []
    for _ in range(4000):
      order = np.lexsort((rng.random(36), -heat_map.ravel()))
      draws.append(mask.ravel()[order[:size]].mean())
    found = localisation.rank_accuracy(heat_map[None], mask[None]).values[0]
    error = np.std(draws) / np.sqrt(len(draws))
    self.assertLess(abs(found - np.mean(draws)), 5 * error)

  def test_empty_mask_is_undefined_and_counted(self):
    masks = _masks()
    masks[2] = False
    heat_maps = np.random.default_rng(0).normal(size=masks.shape)
    for function in (
      localisation.pointing_game, localisation.mass_accuracy,
      localisation.rank_accuracy,
    ):
      found = function(heat_maps, masks)
      np.testing.assert_array_equal(
        np.isnan(found.values), [False, False, True, False]
      )
      self.assertEqual(found.num_undefined, 1)
      self.assertAlmostEqual(found.mean, np.delete(found.values, 2).mean())
    negative = localisation.mass_accuracy(-np.ones(masks.shape), masks)
    self.assertEqual(negative.num_undefined, 4)
    self.assertTrue(np.isnan(negative.mean))


class OverlapTest(parameterized.TestCase):

  def test_measures_by_hand(self):
    predicted = np.zeros((1, 4, 5), bool)
    masks = np.zeros((1, 4, 5), bool)
    predicted[0, :2] = True  # 10 pixels
    masks[0, 1:, :2] = True  # 6 pixels, 2 of them predicted
    found = localisation.overlap(predicted, masks)
    expected = {
      'dice': 4 / 16, 'iou': 2 / 14, 'precision': 2 / 10, 'recall': 2 / 6,
      'accuracy': 8 / 20,
    }
    for name, value in expected.items():
      np.testing.assert_allclose(getattr(found, name).values, [value])

  def test_empty_and_full_masks(self):
    empty, full = np.zeros((1, 3, 3), bool), np.ones((1, 3, 3), bool)
    table = {
      # predicted, mask: dice, iou, precision, recall, accuracy
      ('empty', 'empty'): (np.nan, np.nan, np.nan, np.nan, 1),
      ('empty', 'full'): (0, 0, np.nan, 0, 0),
      ('full', 'empty'): (0, 0, 0, np.nan, 0),
      ('full', 'full'): (1, 1, 1, 1, 1),
    }
    masks = {'empty': empty, 'full': full}
    for (predicted, mask), expected in table.items():
      found = localisation.overlap(masks[predicted], masks[mask])
      np.testing.assert_array_equal(
        [getattr(found, name).values[0] for name in (
          'dice', 'iou', 'precision', 'recall', 'accuracy'
        )], expected,
      )

  def test_masks_of_another_size_or_kind_are_refused(self):
    heat_maps = np.ones((2, 6, 6))
    with self.assertRaisesRegex(ValueError, r'\(2, 6, 6\), got \(2, 5, 5\)'):
      localisation.rank_accuracy(heat_maps, np.ones((2, 5, 5), bool))
    with self.assertRaisesRegex(ValueError, 'bool, got float64'):
      localisation.mass_accuracy(heat_maps, heat_maps)
    with self.assertRaisesRegex(ValueError, 'predicted must be bool'):
      localisation.overlap(heat_maps, heat_maps > 0)
    heat_maps[1, 0, 0] = np.nan
    with self.assertRaisesRegex(ValueError, r'images \[1\]'):
      localisation.pointing_game(heat_maps, heat_maps > 0)
    with self.assertRaisesRegex(ValueError, 'tolerance'):
      localisation.pointing_game(
        np.ones((1, 2, 2)), np.ones((1, 2, 2), bool), tolerance=-1
      )


class BinariseTest(parameterized.TestCase):

  def test_threshold_at_mean_and_deviations_of_the_blurred_map(self):
    heat_map = np.random.default_rng(0).normal(size=(12, 11))
    blurred = ndimage.gaussian_filter(np.abs(heat_map), 1.5)
    found = localisation.above_deviation(
      localisation.smooth(heat_map[None], sign='absolute', blur=1.5), 2
    )
    np.testing.assert_array_equal(
      found[0], blurred > blurred.mean() + 2 * blurred.std()
    )

  def test_images_of_a_batch_do_not_mix(self):
    heat_maps = np.random.default_rng(0).normal(size=(3, 12, 11))
    together = localisation.smooth(heat_maps, blur=2)
    np.testing.assert_allclose(
      together[1:2], localisation.smooth(heat_maps[1:2], blur=2)
    )

  def test_signs(self):
    heat_maps = np.array([[[-2.0, 1.0]]])
    for sign, expected in (
      ('signed', [-2, 1]), ('positive', [0, 1]), ('absolute', [2, 1]),
    ):
      np.testing.assert_array_equal(
        localisation.smooth(heat_maps, sign=sign)[0, 0], expected
      )

  def test_quantile_leaves_its_share_above(self):
    heat_maps = np.random.default_rng(0).normal(size=(3, 20, 20))
    found = localisation.above_quantile(heat_maps, 0.9)
    np.testing.assert_array_equal(found.sum((1, 2)), 40)

  def test_options_out_of_range_are_refused(self):
    heat_maps = np.ones((1, 3, 3))
    with self.assertRaisesRegex(ValueError, "'negative'"):
      localisation.smooth(heat_maps, sign='negative')
    with self.assertRaisesRegex(ValueError, 'blur'):
      localisation.smooth(heat_maps, blur=-1)
    with self.assertRaisesRegex(ValueError, 'share'):
      localisation.above_quantile(heat_maps, 1.5)
