"""Thresholds chosen on validation and judged on test images."""

from absl.testing import parameterized
import jax
import numpy as np
from scipy import ndimage

from jaxsens.attribution import localisation
from jaxsens.attribution import thresholds


def _noisy_squares(number, seed, sign=1):
  """Squares of 8 pixels in noise that a blur takes away."""
  rng = np.random.default_rng(seed)
  masks = np.zeros((number, 24, 24), bool)
  for mask in masks:
    y, x = rng.integers(0, 16, 2)
    mask[y:y + 8, x:x + 8] = True
  return sign * masks + 1.5 * rng.normal(size=masks.shape), masks


class ChooseTest(parameterized.TestCase):

  def test_choice_is_the_best_of_a_grid_by_hand(self):
    heat_maps, masks = _noisy_squares(6, 0)
    blurs, ks = (0.0, 1.0, 3.0), (0.5, 1.0, 2.0)
    choice = thresholds.choose(
      heat_maps, masks, signs=['signed'], blurs=blurs, thresholds=ks
    )
    table = np.zeros((3, 3))
    for i, blur in enumerate(blurs):
      for j, k in enumerate(ks):
        for heat_map, mask in zip(heat_maps, masks, strict=True):
          smooth = ndimage.gaussian_filter(heat_map, blur)
          found = smooth > smooth.mean() + k * smooth.std()
          dice = 2 * (found & mask).sum() / (found.sum() + mask.sum())
          table[i, j] += dice / 6
    np.testing.assert_allclose(choice.table[0], table)
    best = np.unravel_index(table.argmax(), (3, 3))
    self.assertEqual(
      (choice.blur, choice.threshold), (blurs[best[0]], ks[best[1]])
    )
    self.assertEqual(choice.validation_dice, choice.table.max())
    # Noise of 1.5 under a signal of 1: without a blur nothing is found.
    self.assertGreater(choice.blur, 0)

  def test_sign_is_chosen(self):
    heat_maps, masks = _noisy_squares(6, 0, sign=-3)
    choice = thresholds.choose(heat_maps, masks)
    self.assertEqual(choice.sign, 'absolute')

  def test_quantile_near_the_share_of_the_masks_is_chosen(self):
    heat_maps, masks = _noisy_squares(6, 0, sign=10)
    choice = thresholds.choose(
      heat_maps, masks, rule='quantile', blurs=[0],
      thresholds=[0.5, 0.889, 0.97],
    )
    self.assertEqual(choice.threshold, 0.889)  # 1 - 64 / 576
    self.assertEqual(choice.at_border, ())

  def test_choice_at_an_end_of_its_grid_says_so(self):
    heat_maps, masks = _noisy_squares(6, 0)
    choice = thresholds.choose(
      heat_maps, masks, blurs=[0.0, 0.1, 1.0], thresholds=[1.0]
    )
    self.assertEqual(choice.at_border, ('blur',))

  def test_images_without_dice_are_counted(self):
    heat_maps, masks = _noisy_squares(4, 0)
    masks[1], heat_maps[1] = False, 0
    choice = thresholds.choose(heat_maps, masks)
    self.assertEqual((choice.num_validation, choice.num_undefined), (4, 1))
    with self.assertRaisesRegex(ValueError, 'no validation image'):
      thresholds.choose(0 * heat_maps, masks & False)

  def test_bad_grids_are_refused(self):
    heat_maps, masks = _noisy_squares(2, 0)
    with self.assertRaisesRegex(ValueError, "'otsu'"):
      thresholds.choose(heat_maps, masks, rule='otsu')
    with self.assertRaisesRegex(ValueError, 'blurs'):
      thresholds.choose(heat_maps, masks, blurs=[])
    with self.assertRaisesRegex(ValueError, 'size'):
      thresholds.choose(heat_maps, masks[:, 1:])


class JudgeTest(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    self.choice = thresholds.choose(*_noisy_squares(6, 0))

  def test_judgement_is_of_the_chosen_masks(self):
    heat_maps, masks = _noisy_squares(12, 5)
    found = thresholds.judge(
      jax.random.key(0), self.choice, heat_maps, masks, num_samples=200
    )
    predicted = thresholds.binarise(self.choice, heat_maps)
    dice = localisation.overlap(predicted, masks).dice
    np.testing.assert_array_equal(found.measures['Dice'].values, dice.values)
    for name, (lower, upper) in found.intervals.items():
      mean = found.measures[name].mean
      self.assertTrue(lower <= mean <= upper, name)
    lower, upper = found.intervals['Dice']
    # Percentiles of a mean: close to ±1.96 standard errors.
    width = 2 * 1.96 * dice.values.std() / np.sqrt(12)
    np.testing.assert_allclose(upper - lower, width, rtol=0.3)

  def test_images_without_a_measure_are_left_out_and_counted(self):
    heat_maps, masks = _noisy_squares(8, 5)
    masks[3] = False
    found = thresholds.judge(
      jax.random.key(0), self.choice, heat_maps, masks, num_samples=50
    )
    self.assertEqual(found.measures['recall'].num_undefined, 1)
    self.assertEqual(found.measures['Dice'].num_undefined, 0)
    self.assertFalse(np.isnan(found.intervals['recall']).any())

  def test_measure_that_no_image_has_is_nan(self):
    heat_maps, masks = _noisy_squares(3, 5)
    found = thresholds.judge(
      jax.random.key(0), self.choice, heat_maps, masks & False, num_samples=20
    )
    self.assertTrue(np.isnan(found.intervals['recall']).all())
    self.assertEqual(found.measures['recall'].num_undefined, 3)
