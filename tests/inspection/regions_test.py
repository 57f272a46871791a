from absl.testing import absltest
from absl.testing import parameterized
import jax
import numpy as np
from scipy import ndimage
from scipy import stats

from jaxsens.inspection import regions
from tests.oracles import linear_network

_SHAPE = (6, 7, 2)


def _images(number=3):
  rng = np.random.default_rng(0)
  return rng.uniform(0.1, 0.9, (number, *_SHAPE)).astype('f')


class RegionsTest(parameterized.TestCase):

  def test_effect_on_a_linear_model_is_the_sum_over_the_region(self):
    kernel = np.random.default_rng(1).normal(size=(84, 3)).astype('f')
    images = _images()
    mask = regions.rectangle(_SHAPE[:2], 1, 2, 3, 4)
    found = regions.effect(
      linear_network.classifier(kernel, _SHAPE), images, mask, [0, 2, 1],
      fill='black', quantity='logit', chunk_size=2,
    )
    weights = kernel.T.reshape(3, *_SHAPE)[[0, 2, 1]]
    inside = np.where(mask[..., None], images * weights, 0).sum((1, 2, 3))
    np.testing.assert_allclose(found.changes, -inside, atol=1e-5)
    np.testing.assert_allclose(found.areas, 12 / 42)
    answers = images.reshape(3, -1) @ kernel
    np.testing.assert_array_equal(found.answers_before, answers.argmax(-1))
    without = np.where(mask[..., None], 0, images).reshape(3, -1) @ kernel
    np.testing.assert_array_equal(
      found.changed, without.argmax(-1) != answers.argmax(-1)
    )

  def test_empty_region_changes_nothing(self):
    kernel = np.ones((84, 2), 'f')
    found = regions.effect(
      linear_network.classifier(kernel, _SHAPE), _images(),
      np.zeros((3, 6, 7), bool),
    )
    np.testing.assert_array_equal(found.changes, 0)
    np.testing.assert_array_equal(found.images, _images())

  @parameterized.parameters('black', 'white', 'mean', 'blur', 'neighbours')
  def test_only_the_region_is_replaced(self, fill):
    images = _images()
    masks = np.zeros((3, 6, 7), bool)
    masks[0, 2:4, 2:5] = masks[1, 0, :] = True
    before = images.copy()
    found = regions.replace(images, masks, fill)
    np.testing.assert_array_equal(images, before)
    np.testing.assert_array_equal(found[~masks], images[~masks])
    self.assertTrue((found[masks] != images[masks]).all())
    expected = {
      'black': 0.0, 'white': 1.0,
      'mean': images[0][~masks[0]].mean(0),
      'blur': ndimage.gaussian_filter(
        images[0], (0.75, 0.75, 0), mode='nearest'
      )[masks[0]],
    }
    if fill in expected:
      np.testing.assert_allclose(
        found[0][masks[0]], np.broadcast_to(expected[fill], (6, 2)), atol=1e-6
      )

  def test_neighbours_are_averaged_up_to_the_border(self):
    images = _images(1)
    mask = np.zeros((6, 7), bool)
    mask[:3, 3:] = True
    mask[4, 1] = True
    found = regions.replace(images, mask)[0].astype(np.float64)
    for r, c in np.argwhere(mask):
      near = [
        (found[y, x], 1 if y != r and x != c else 2)
        for y in range(max(r - 1, 0), min(r + 2, 6))
        for x in range(max(c - 1, 0), min(c + 2, 7)) if (y, x) != (r, c)
      ]
      values, weights = zip(*near, strict=True)
      np.testing.assert_allclose(
        found[r, c], np.average(values, 0, weights), atol=1e-6
      )

  def test_plane_is_continued_by_neighbours(self):
    row, column = np.mgrid[:6, :7] / 20
    image = (0.2 + row + 2 * column)[None, ..., None]
    mask = regions.rectangle((6, 7), 1, 2, 3, 3)
    np.testing.assert_allclose(regions.replace(image, mask), image, atol=1e-12)

  def test_stains_are_bright_in_all_channels_and_no_specks(self):
    images = _images(2)
    images[0, 1:3, 1:4] = 1.0
    images[0, 5, 6] = 0.99
    images[1, 0, 0] = (1.0, 0.5)
    found = regions.stains(images)
    self.assertEqual(found.sum(), 7)
    without = regions.stains(images, min_pixels=2)
    np.testing.assert_array_equal(
      without[0], regions.rectangle((6, 7), 1, 1, 2, 3)
    )
    self.assertFalse(without[1].any())

  def test_padding_is_black_and_hangs_together_with_the_border(self):
    images = _images(2)
    images[0, :, :2] = 0
    images[0, 3, 2] = 0
    images[0, 3, 4] = 0  # inside
    found = regions.padding(images)
    expected = regions.rectangle((6, 7), 0, 0, 6, 2)
    expected[3, 2] = True
    np.testing.assert_array_equal(found[0], expected)
    self.assertFalse(found[1].any())

  def test_region_elsewhere_has_its_shape_and_keeps_away_from_it(self):
    masks = np.zeros((4, 6, 7), bool)
    masks[:, 1:3, 1:4] = True
    masks[3, :, :] = True
    moved = regions.elsewhere(jax.random.key(0), masks)
    np.testing.assert_array_equal(moved.sum((1, 2)), masks.sum((1, 2)))
    self.assertFalse((moved & masks)[:3].any())
    self.assertGreater(len({one.tobytes() for one in moved[:3]}), 1)
    one = regions.elsewhere(jax.random.key(0), masks[:1])
    np.testing.assert_array_equal(one[0], moved[0])

  def test_groups_are_compared_as_pairs_are_counted(self):
    x, y = [0.9, 0.5, 0.7], [0.5, 0.1, 0.8, 0.2]
    wins = sum((a > b) + 0.5 * (a == b) for a in x for b in y)
    found = regions.compare_groups(x, y)
    self.assertEqual(found.u, wins)
    self.assertEqual(found.superiority, wins / 12)
    self.assertEqual(found.p_value, stats.mannwhitneyu(x, y).pvalue)
    self.assertEqual((found.first_median, found.second_median), (0.7, 0.35))

  def test_pairs_are_compared_by_the_ranks_of_their_differences(self):
    first = np.array([0.5, 0.9, 0.4, 0.8, 0.7])
    second = np.array([0.1, 0.3, 0.2, 0.5, 0.6])
    # All of five signs are positive: 2 of 2^5 outcomes are as far out.
    np.testing.assert_allclose(regions.compare_pairs(first, second), 2 / 32)
    self.assertEqual(regions.compare_pairs(first, first), 1)
    with self.assertRaisesRegex(ValueError, 'at least one'):
      regions.compare_pairs([], [])

  @parameterized.parameters(
    (dict(fill='red'), "fill must be one of .*'blur'"),
    (dict(masks=np.zeros((5, 7), bool)), r'masks must be bool of shape \(6, 7'),
    (dict(masks=np.zeros((6, 7))), 'got float64'),
    (dict(masks=np.ones((6, 7), bool)), 'whole image'),
    (dict(masks=np.ones((6, 7), bool), fill='mean'), 'whole image'),
    (dict(images=np.zeros((6, 7))), 'images must be'),
  )
  def test_bad_input_is_named(self, changed, message):
    options = dict(images=_images(), masks=np.zeros((6, 7), bool)) | changed
    with self.assertRaisesRegex(ValueError, message):
      regions.replace(**options)

  def test_bad_rectangle_and_groups_are_named(self):
    with self.assertRaisesRegex(ValueError, 'within the image of 6 x 7'):
      regions.rectangle((6, 7), 4, 0, 3, 2)
    with self.assertRaisesRegex(ValueError, 'first must be'):
      regions.compare_groups([], [1.0])
    with self.assertRaisesRegex(ValueError, 'second must be'):
      regions.compare_groups([1.0], [np.nan])


if __name__ == '__main__':
  absltest.main()
