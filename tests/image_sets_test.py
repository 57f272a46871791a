"""Tests of sets of images and of their resizing."""

import numpy as np
from PIL import Image
import pytest

from jaxsens.data import image_sets
from tests.oracles import image_folders


def small_set(count=4, **changes):
  fields = {
      'images': np.zeros((count, 5, 4, 1), np.float32),
      'labels': np.arange(count) % 2,
      'names': tuple(f'n{i}' for i in range(count)),
      'class_names': ('a', 'b'),
      'groups': ('g',) * count,
      'description': 'zeros',
  }
  return image_sets.ImageSet(**(fields | changes))


def test_fields_of_different_length_raise():
  with pytest.raises(ValueError, match="'labels': 3"):
    small_set(labels=np.zeros(3, int))


def test_label_out_of_range_raises_with_the_name_of_the_image():
  with pytest.raises(ValueError, match=r'n1: label 2 is out of range'):
    small_set(labels=np.array([0, 2, 1, 0]))


def test_take_keeps_every_field_in_the_given_order():
  images = np.arange(4, dtype=np.float32)[:, None, None, None]
  taken = small_set(images=images, parameters={'p': np.arange(4.0)}).take(
      [3, 1]
  )
  assert taken.names == ('n3', 'n1')
  np.testing.assert_array_equal(taken.images[:, 0, 0, 0], [3, 1])
  np.testing.assert_array_equal(taken.parameters['p'], [3, 1])


def test_joined_set_marks_unknown_parameters_with_nan():
  second = small_set(
      names=('m0', 'm1', 'm2', 'm3'),
      images=np.ones((4, 7, 6, 1), np.float32),
      parameters={'p': np.arange(4.0), 'k': np.ones((4, 2), np.uint32)},
  )
  joined = image_sets.join(small_set(), second, 'both')
  assert [image.shape for image in joined.images][3:5] == [(5, 4, 1), (7, 6, 1)]
  np.testing.assert_array_equal(
      joined.parameters['p'], [np.nan] * 4 + [0, 1, 2, 3]
  )
  np.testing.assert_array_equal(joined.parameters['k'][3:5], [[0, 0], [1, 1]])
  picked = joined.take([5, 0])
  assert picked.images[0].shape == (7, 6, 1)
  assert picked.take([1]).names == ('n0',)


def test_sets_of_other_classes_are_not_joined():
  with pytest.raises(ValueError, match='cannot join'):
    image_sets.join(small_set(), small_set(class_names=('a', 'c')), '')


def test_resize_all_takes_images_of_different_sizes(tmp_path):
  paths = (
      image_folders.write_image(tmp_path / 'a.png', size=(8, 10)),
      image_folders.write_image(tmp_path / 'b.png', size=(16, 12)),
  )
  images = image_sets.LazyImages(paths)
  resized = image_sets.resize_all(images, (5, 4))
  assert resized.shape == (2, 5, 4, 1) and resized.dtype == np.float32
  # A constant picture but for one pixel.
  np.testing.assert_allclose(resized[:, 3:, 3:], 100 / 255, rtol=1e-5)


def test_resize_all_halves_like_pillow():
  rng = np.random.default_rng(0)
  image = rng.random((40, 30), np.float32)
  expected = Image.fromarray(image).resize((15, 20), Image.Resampling.BILINEAR)
  resized = image_sets.resize_all(image[None, ..., None], (20, 15))
  np.testing.assert_allclose(
      resized[0, ..., 0], np.asarray(expected), atol=1e-5
  )


def test_resize_of_arrays_and_of_sequences_agree():
  images = np.random.default_rng(0).random((35, 9, 8, 1)).astype(np.float32)
  array = image_sets.resize_all(images, (5, 4))
  np.testing.assert_allclose(
      array, image_sets.resize_all(list(images), (5, 4)), atol=1e-6
  )


def test_resize_of_nothing_raises():
  with pytest.raises(ValueError, match='at least one image'):
    image_sets.resize_all([], (5, 4))


def masked_set(**changes):
  masks = np.zeros((4, 5, 4, 2), bool)
  masks[np.arange(4), 0, np.arange(4), 1] = True
  return small_set(masks=masks, mask_names=('a', 'b'), **changes)


def test_masks_follow_their_images():
  taken = masked_set().take([2, 0])
  assert [np.argwhere(mask).tolist() for mask in taken.masks] == [
      [[0, 2, 1]], [[0, 0, 1]]
  ]
  lazy = small_set(masks=list(masked_set().masks), mask_names=('a', 'b'))
  np.testing.assert_array_equal(lazy.take([3]).masks[0], masked_set().masks[3])
  joined = image_sets.join(
      masked_set(), masked_set(names=('m0', 'm1', 'm2', 'm3')), 'both'
  )
  np.testing.assert_array_equal(joined.masks[5], masked_set().masks[1])
  assert joined.mask_names == ('a', 'b')


def test_masks_that_do_not_fit_are_refused():
  with pytest.raises(ValueError, match="'masks': 3"):
    small_set(masks=np.zeros((3, 5, 4, 1), bool))
  with pytest.raises(ValueError, match=r"masks of \('a', 'b'\) and of nothing"):
    image_sets.join(masked_set(), small_set(names=('m0', 'm1', 'm2', 'm3')), '')
