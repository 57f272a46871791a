"""Tests of the splitting by shares, and of the joining of groups."""

import itertools

import jax
import numpy as np
import pytest

from jaxsens.data import partition

KEY = jax.random.key(0)


def random_groups(seed, num_groups, num_classes, largest=12):
  """Images of groups that are large and small, of one class and of several."""
  rng = np.random.default_rng(seed)
  labels, groups = [], []
  for g in range(num_groups):
    size = rng.integers(1, largest + 1)
    classes = rng.integers(num_classes, size=rng.integers(1, 3))
    labels += rng.choice(classes, size).tolist()
    groups += [f'g{g}'] * size
  order = rng.permutation(len(labels))
  return np.array(labels)[order], np.array(groups)[order]


def distance(parts, labels, fractions):
  """The sum that the docstring of `split` has."""
  total = 0.0
  for label in np.unique(labels):
    number = (labels == label).sum()
    for part, fraction in zip(parts, fractions, strict=True):
      total += ((labels[part] == label).sum() / number - fraction) ** 2
  return total


@pytest.mark.parametrize('seed', range(20))
def test_every_image_is_in_one_part_and_no_group_in_two(seed):
  labels, groups = random_groups(seed, 3 + 3 * seed, 1 + seed % 5)
  fractions = [(0.7, 0.15, 0.15), (0.5, 0.5), (0.2, 0.3, 0.4, 0.1)][seed % 3]
  parts = partition.split(jax.random.key(seed), labels, groups, fractions)
  assert len(parts) == len(fractions)
  np.testing.assert_array_equal(
    np.sort(np.concatenate(parts)), np.arange(len(labels))
  )
  homes = [set(groups[part]) for part in parts]
  for one, other in itertools.combinations(homes, 2):
    assert not one & other
  for part in parts:
    assert (np.diff(part) > 0).all()


@pytest.mark.parametrize('seed', range(8))
def test_no_move_and_no_exchange_of_groups_comes_closer(seed):
  labels, groups = random_groups(seed, 14, 3)
  fractions = (0.6, 0.25, 0.15)
  parts = partition.split(KEY, labels, groups, fractions)
  home = {g: p for p, part in enumerate(parts) for g in groups[part]}
  score = lambda homes: distance(
    [
      np.flatnonzero([homes[g] == p for g in groups])
      for p in range(len(fractions))
    ],
    labels, fractions,
  )
  best = score(home)
  for group, part in itertools.product(home, range(3)):
    assert score(home | {group: part}) >= best - 1e-9
  for one, other in itertools.combinations(home, 2):
    swapped = home | {one: home[other], other: home[one]}
    assert score(swapped) >= best - 1e-9


def test_split_is_near_the_best_of_all_assignments():
  fractions = (0.6, 0.4)
  excess = []
  for seed in range(12):
    labels, groups = random_groups(seed, 9, 2)
    names = sorted(set(groups))
    best = min(
      distance(
        [
          np.flatnonzero([where[names.index(g)] == p for g in groups])
          for p in range(2)
        ],
        labels, fractions,
      )
      for where in itertools.product(range(2), repeat=len(names))
    )
    parts = partition.split(KEY, labels, groups, fractions)
    excess.append(distance(parts, labels, fractions) - best)
  assert min(excess) > -1e-9
  # The search is local; 0.02 is a tenth of a class in one part.
  assert max(excess) < 0.02
  assert np.median(excess) < 1e-9


def test_single_images_are_split_to_the_rounded_shares():
  labels = np.repeat([0, 1, 2], [100, 40, 7])
  groups = [str(i) for i in range(len(labels))]
  parts = partition.split(KEY, labels, groups, (0.7, 0.2, 0.1))
  counts = np.array([np.bincount(labels[part], minlength=3) for part in parts])
  np.testing.assert_array_equal(counts[:, :2], [[70, 28], [20, 8], [10, 4]])
  assert np.abs(counts[:, 2] - [4.9, 1.4, 0.7]).max() < 1


def test_split_is_a_function_of_the_key():
  labels, groups = np.zeros(50, int), [str(i) for i in range(50)]
  parts = [
    partition.split(jax.random.key(k), labels, groups, (0.5, 0.5))[0].tolist()
    for k in (0, 0, 1)
  ]
  assert parts[0] == parts[1] != parts[2]


def test_part_without_share_stays_empty_and_nothing_splits_into_nothing():
  labels, groups = random_groups(0, 6, 2)
  parts = partition.split(KEY, labels, groups, (0.5, 0.0, 0.5))
  assert not len(parts[1]) and len(parts[0]) and len(parts[2])
  assert [len(p) for p in partition.split(KEY, [], [], (0.5, 0.5))] == [0, 0]
  everything, = partition.split(KEY, labels, groups, (1.0,))
  assert len(everything) == len(labels)


@pytest.mark.parametrize(
  'fractions', [(0.5, 0.4), (1.2, -0.2), (), (float('nan'), 1.0)]
)
def test_shares_that_are_none_are_refused(fractions):
  with pytest.raises(ValueError, match='fractions must be at least 0'):
    partition.split(KEY, [0, 1], ['a', 'b'], fractions)


def test_labels_and_groups_of_different_length_are_refused():
  with pytest.raises(ValueError, match='got 2 labels but 1 groups'):
    partition.split(KEY, [0, 1], ['a'], (1.0,))


def test_connected_groupings_keep_together_what_any_of_them_does():
  # Frames of clips a and b; the copy x of a frame joins both; d is alone.
  clips = ('a', 'a', 'b', 'b', 'd')
  copies = ('1', 'x', 'x', '4', '5')
  assert partition.connect(clips, copies) == ('a', 'a', 'a', 'a', 'd')
  assert partition.connect(clips) == clips
  # A chain that only the last image closes.
  assert len(set(partition.connect('abc', 'xyy', 'qrq'))) == 1
