"""Areas under curves over all thresholds."""

from absl.testing import parameterized
import numpy as np
from scipy import ndimage
from sklearn import metrics

from jaxsens.attribution import ranking


def _brute_force_aupro(heat_map, mask, limit):
  """Counts at every threshold, region by region."""
  regions, number = ndimage.label(mask, np.ones((3, 3)))
  points = [(0.0, 0.0)]
  for threshold in np.unique(heat_map)[::-1]:
    found = heat_map >= threshold
    rate = (found & ~mask).sum() / (~mask).sum()
    overlaps = [found[regions == r].mean() for r in range(1, number + 1)]
    points.append((rate, np.mean(overlaps)))
  area = 0.0
  for (x0, y0), (x1, y1) in zip(points[:-1], points[1:], strict=True):
    if x0 >= limit or x1 == x0:
      continue
    end = min(x1, limit)
    y_end = y0 + (y1 - y0) * (end - x0) / (x1 - x0)
    area += (end - x0) * (y0 + y_end) / 2
  return area / limit


class RankingTest(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    rng = np.random.default_rng(0)
    self.masks = ndimage.gaussian_filter(
      rng.normal(size=(4, 16, 15)), (0, 1, 1)
    ) > 0.3
    self.maps = rng.normal(size=self.masks.shape) + self.masks
    # Many equal values.
    self.maps[1] = np.round(self.maps[1])

  def test_mask_itself_is_perfect(self):
    heat_maps = self.masks.astype(float)
    for function in (ranking.auroc, ranking.auprc, ranking.aupro):
      np.testing.assert_allclose(function(heat_maps, self.masks).values, 1)

  def test_areas_are_those_of_scikit_learn(self):
    pairs = list(zip(self.masks, self.maps, strict=True))
    np.testing.assert_allclose(
      ranking.auroc(self.maps, self.masks).values,
      [metrics.roc_auc_score(m.ravel(), h.ravel()) for m, h in pairs],
    )
    np.testing.assert_allclose(
      ranking.auprc(self.maps, self.masks).values,
      [metrics.average_precision_score(m.ravel(), h.ravel()) for m, h in pairs],
    )

  @parameterized.parameters(0.05, 0.3, 1.0)
  def test_aupro_equals_counting_at_every_threshold(self, limit):
    found = ranking.aupro(
      self.maps, self.masks, max_false_positive_rate=limit
    )
    expected = [
      _brute_force_aupro(h, m, limit)
      for h, m in zip(self.maps, self.masks, strict=True)
    ]
    np.testing.assert_allclose(found.values, expected, rtol=1e-10)

  def test_aupro_of_one_region_up_to_one_is_the_auroc(self):
    mask = np.zeros((1, 16, 15), bool)
    mask[0, 3:7, 2:9] = True
    np.testing.assert_allclose(
      ranking.aupro(self.maps[:1], mask, max_false_positive_rate=1).values,
      ranking.auroc(self.maps[:1], mask).values,
    )

  def test_aupro_stops_at_the_limit_below_a_vertical_jump(self):
    # At the rate 1/2 exactly the second half of the region is found.
    mask = np.array([[[True, True, False, False]]])
    heat_map = np.array([[[4.0, 2.0, 3.0, 1.0]]])
    found = ranking.aupro(heat_map, mask, max_false_positive_rate=0.5)
    np.testing.assert_allclose(found.values, [0.5])

  def test_small_regions_count_as_much_as_large_ones(self):
    mask = np.zeros((1, 10, 10), bool)
    mask[0, :5, :5], mask[0, 9, 9] = True, True
    only_large = np.where(mask, 1.0, 0.0)
    only_large[0, 9, 9] = -1
    found = ranking.aupro(only_large, mask)
    # Found: half of the regions, whatever the threshold, to the limit.
    np.testing.assert_allclose(found.values, [0.5])

  def test_empty_and_full_masks(self):
    masks = self.masks.copy()
    masks[0], masks[1] = False, True
    for function, undefined in (
      (ranking.auroc, [True, True]), (ranking.auprc, [True, False]),
      (ranking.aupro, [True, True]),
    ):
      found = function(self.maps, masks)
      np.testing.assert_array_equal(
        np.isnan(found.values), [*undefined, False, False]
      )
      self.assertEqual(found.num_undefined, sum(undefined))
    self.assertEqual(ranking.auprc(self.maps, masks).values[1], 1)

  def test_bad_input_is_named(self):
    with self.assertRaisesRegex(ValueError, r'\(4, 16, 15\), got \(4, 15, 16'):
      ranking.auroc(self.maps, self.masks.swapaxes(1, 2))
    with self.assertRaisesRegex(ValueError, 'max_false_positive_rate'):
      ranking.aupro(self.maps, self.masks, max_false_positive_rate=0)
