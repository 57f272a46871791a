"""Tests of the separation of a set by recordings."""

import jax
import numpy as np
import pytest

from jaxsens.data import separation
from tests.oracles import image_folders

KEY = jax.random.key(0)


def test_smallest_recording_whose_class_remains_is_held_back():
  labels = [0] * 5 + [1] * 9
  groups = ['only'] * 5 + ['short'] * 3 + ['long'] * 6
  assert separation.held_back_group(labels, groups) == 'short'


def test_no_recording_is_held_back_that_is_the_last_of_its_class():
  assert separation.held_back_group([0, 0, 1], ['a', 'a', 'b']) is None


@pytest.mark.parametrize('seed', range(5))
def test_separated_parts_share_no_recording_and_hold_all_classes(seed):
  rows = {c: {f'{c}{i}': 10 + i for i in range(5)} for c in range(3)}
  rows[0] = {'mixed': 6} | rows[0]
  rows[1] = {'mixed': 6} | rows[1]
  names = image_folders.clips(rows)
  labels = np.array(list(names.values()))
  groups = np.array([name.split('/')[0] for name in names])
  stay, leave = separation.separate(
      jax.random.key(seed), labels, groups, 0.25
  )
  assert sorted([*stay, *leave]) == list(range(len(labels)))
  assert not set(groups[stay]) & set(groups[leave])
  assert set(labels[stay]) == set(labels[leave]) == {0, 1, 2}
  # Five clips of 10 to 14 frames: one fits into a quarter of 60, or 66.
  for count in np.bincount(labels[leave]):
    assert 6 <= count <= 20


def test_huge_recording_is_not_separated_if_a_small_one_can_be():
  groups = ['big'] * 60 + ['small'] * 3
  _, leave = separation.separate(KEY, [0] * 63, groups, 0.1)
  assert list(leave) == [60, 61, 62]


def test_only_recording_of_a_class_gives_one_end():
  for seed in range(4):
    _, leave = separation.separate(
        jax.random.key(seed), [0] * 20, ['a'] * 20, 0.25
    )
    assert list(leave) in ([0, 1, 2, 3, 4], [15, 16, 17, 18, 19])


def test_separate_is_the_same_for_a_key_and_differs_between_keys():
  groups = [f'g{i}' for i in range(40)]
  parts = [
      separation.separate(jax.random.key(s), [0] * 40, groups, 0.25)[1].tolist()
      for s in (0, 0, 1)
  ]
  assert parts[0] == parts[1] != parts[2]
  assert len(parts[0]) == 10


def test_class_of_one_image_keeps_it():
  stay, leave = separation.separate(KEY, [0, 1, 1], ['a', 'b', 'c'], 0.5)
  assert 0 in stay and len(leave) == 1
