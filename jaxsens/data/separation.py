"""Separates labelled images into parts that share no recording.

Neighbouring frames of one video are nearly the same picture. A part that
judges a network must therefore not hold frames of a recording that the
network was fitted to, wherever the classes have recordings to spare.
"""

from collections.abc import Sequence

import jax
import numpy as np


def held_back_group(
    labels: Sequence[int], groups: Sequence[str]
) -> str | None:
  """Returns the smallest recording all of whose classes remain without it.

  Args:
    labels: class of each image, length N.
    groups: recording of each image, length N.

  Returns:
    The recording, the first by name among equally small ones, or None if
    there is none that the classes can spare.
  """
  members = _members(groups)
  homes = _recordings_of_classes(labels, groups)
  spare = [
      (len(indices), group)
      for group, indices in members.items()
      if all(len(homes[labels[i]]) > 1 for i in indices)
  ]
  return min(spare)[1] if spare else None


def separate(
    key: jax.Array,
    labels: Sequence[int],
    groups: Sequence[str],
    fraction: float,
) -> tuple[np.ndarray, np.ndarray]:
  """Separates a fraction of every class, by whole recordings if possible.

  The classes take turns, the rarest first. A class with several recordings
  gives whole ones, in random order, as long as they do not exceed the
  fraction, but at least its smallest; every class keeps one recording. Only a
  class that cannot spare a recording gives frames of one that stays: the
  first or the last of them in the given order, so that few of the separated
  frames have a neighbour that stays. A class of one image keeps it.

  Args:
    key: typed random key.
    labels: class of each image, length N.
    groups: recording of each image, length N.
    fraction: the wanted part of each class, in (0, 1).

  Returns:
    stay: positions of the images that stay, ascending.
    leave: positions of the separated images, ascending.

  Raises:
    ValueError: if `fraction` is not in (0, 1).
  """
  if not 0.0 < fraction < 1.0:
    raise ValueError(f'fraction must lie in (0, 1), got {fraction}.')
  labels = np.asarray(labels)
  members = _members(groups)
  homes = _recordings_of_classes(labels, groups)
  key_order, key_end = jax.random.split(key)
  names = sorted(members)
  order = [names[i] for i in jax.random.permutation(key_order, len(names))]
  leaving = set()
  counts = np.bincount(labels)
  for label in sorted(homes, key=lambda c: (counts[c], c)):
    wanted = max(1, round(fraction * counts[label]))
    chosen = _whole_recordings(label, wanted, order, labels, members, homes)
    leaving.update(i for group in chosen for i in members[group])
    if not np.isin(np.flatnonzero(labels == label), list(leaving)).any():
      from_end = jax.random.bernoulli(jax.random.fold_in(key_end, label))
      leaving.update(_end_of_class(labels, label, wanted, bool(from_end)))
  leave = np.array(sorted(leaving), np.int64)
  stay = np.setdiff1d(np.arange(len(labels)), leave)
  return stay, leave


def stratify(
    key: jax.Array,
    labels: Sequence[int],
    groups: Sequence[str],
    fractions: Sequence[float],
) -> tuple[np.ndarray, ...]:
  """Separates fractions of every class at random, recordings kept together.

  For data whose recordings are single images, but for a duplicate here and
  there; `separate` is for clips.

  Args:
    key: typed random key.
    labels: class of each image, length N.
    groups: recording of each image, length N, each of one class.
    fractions: the wanted parts of each class, each at least 0, their sum
      below 1.

  Returns:
    Positions of the images of each part, ascending, and last those of the
    rest. Of n images of a class the first k parts hold round(n sum(fractions
    [:k])), more where a recording would have been cut.

  Raises:
    ValueError: if the fractions are out of range or a recording has several
      classes.
  """
  if min(fractions, default=0) < 0 or sum(fractions) >= 1:
    raise ValueError(
        'fractions must be at least 0 with a sum below 1, got '
        f'{tuple(fractions)}.'
    )
  labels = np.asarray(labels)
  _, inverse = np.unique(np.asarray(groups), return_inverse=True)
  _check_single_class(labels, inverse, groups)
  # Sorted on the host: XLA takes seconds to compile a sort on CPU.
  draws = np.asarray(jax.random.bits(key, (inverse.max(initial=0) + 1,)))
  parts = np.empty(len(labels), int)
  for label in np.unique(labels):
    members = np.flatnonzero(labels == label)
    members = members[np.lexsort((inverse[members], draws[inverse[members]]))]
    kin = inverse[members]
    starts = np.flatnonzero(np.r_[True, kin[1:] != kin[:-1]])
    sizes = np.diff(np.r_[starts, len(members)])
    bounds = np.round(np.cumsum(fractions) * len(members))
    parts[members] = np.digitize(np.repeat(starts, sizes), bounds)
  return tuple(
      np.flatnonzero(parts == i) for i in range(len(fractions) + 1)
  )


def _check_single_class(labels, inverse, groups):
  first = np.full(inverse.max(initial=0) + 1, -1)
  first[inverse[::-1]] = labels[::-1]
  for i in np.flatnonzero(first[inverse] != labels)[:1]:
    raise ValueError(f'recording {groups[i]!r} has images of several classes.')


def _members(groups):
  members = {}
  for i, group in enumerate(groups):
    members.setdefault(group, []).append(i)
  return members


def _recordings_of_classes(labels, groups):
  homes = {}
  for label, group in zip(labels, groups, strict=True):
    homes.setdefault(int(label), set()).add(group)
  return homes


def _whole_recordings(label, wanted, order, labels, members, homes):
  """Chooses recordings for one class and strikes them from all `homes`."""
  candidates = [group for group in order if group in homes[label]]
  sizes = {g: int((labels[members[g]] == label).sum()) for g in candidates}
  chosen, got = [], 0

  def take(group):
    for c in set(labels[members[group]].tolist()):
      homes[c].discard(group)
    chosen.append(group)

  def spare(group):
    return all(len(homes[c]) > 1 for c in labels[members[group]].tolist())

  for group in candidates:
    if got + sizes[group] <= wanted and spare(group):
      take(group)
      got += sizes[group]
  if not chosen:
    spares = [group for group in candidates if spare(group)]
    if spares:
      take(min(spares, key=sizes.get))
  return chosen


def _end_of_class(labels, label, wanted, from_end):
  indices = np.flatnonzero(labels == label).tolist()
  wanted = min(wanted, len(indices) - 1)
  if wanted == 0:
    return []
  return indices[-wanted:] if from_end else indices[:wanted]
