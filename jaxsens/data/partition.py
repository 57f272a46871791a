"""Splits labelled images into parts of given shares, groups kept whole.

Where `separation.stratify` wants groups of one class and `separation.separate`
cuts a clip when a class has no other, `split` never cuts a group and takes
groups of any classes: the parts then have the shares that the groups allow.
"""

from collections.abc import Sequence

import jax
import numpy as np

# Above so many kinds of groups, pairs of groups are no longer exchanged.
_MAX_KINDS_TO_EXCHANGE = 400
_TOLERANCE = 1e-12


def split(
  key: jax.Array,
  labels: Sequence[int],
  groups: Sequence[str],
  fractions: Sequence[float],
) -> tuple[np.ndarray, ...]:
  """Splits images so that every part has its share of each class.

  The parts are chosen to make

      Σ_p Σ_c (n[p, c] / N[c] - fractions[p])²

  small, n[p, c] of the N[c] images of class c being in part p: groups are
  dealt out, the largest first, each to the part where it helps most; then
  groups move, or two of them change places, while that helps. What results no
  single move or exchange improves. Of groups that are alike, which one goes
  where is random.

  Args:
    key: typed random key.
    labels: class of each image, length N.
    groups: group of each image, length N; a group may have several classes.
    fractions: wanted share of each part, at least 0, their sum 1.

  Returns:
    Positions of the images of each part, ascending; every image is in exactly
    one part and no group is in two.

  Raises:
    ValueError: the fractions are out of range or the lengths differ.
  """
  fractions = np.asarray(fractions, np.float64)
  if (
    fractions.ndim != 1 or not fractions.size or not (fractions >= 0).all()
    or abs(fractions.sum() - 1) > 1e-6
  ):
    raise ValueError(
      f'fractions must be at least 0 with the sum 1, got {fractions.tolist()}.'
    )
  labels = np.asarray(labels).reshape(-1)
  if len(labels) != len(groups):
    raise ValueError(f'got {len(labels)} labels but {len(groups)} groups.')
  if not len(labels):
    return tuple(np.empty(0, np.int64) for _ in fractions)
  classes, of_class = np.unique(labels, return_inverse=True)
  names, of_group = np.unique(np.asarray(groups), return_inverse=True)
  counts = np.zeros((len(names), len(classes)), np.int64)
  np.add.at(counts, (of_group, of_class), 1)
  kinds, of_kind = np.unique(counts, axis=0, return_inverse=True)
  shares = kinds / counts.sum(0)
  dealt = _improve(shares, _deal(shares, np.bincount(of_kind), fractions),
                   fractions)
  parts = _draw(key, of_kind.reshape(-1), dealt)[of_group]
  return tuple(np.flatnonzero(parts == i) for i in range(len(fractions)))


def connect(*groupings: Sequence[str]) -> tuple[str, ...]:
  """Returns the finest groups that keep together what any grouping does.

  A clip and the copies of its frames elsewhere become one group.

  Args:
    *groupings: one or more groups per image, each of length N.

  Returns:
    The group of each image, length N, named by the first image's group in the
    first grouping.
  """
  first = groupings[0]
  parents = list(range(len(first)))

  def find(i):
    while parents[i] != i:
      parents[i] = parents[parents[i]]
      i = parents[i]
    return i

  for grouping in groupings:
    seen = {}
    for i, group in enumerate(grouping):
      a, b = find(seen.setdefault(group, i)), find(i)
      parents[max(a, b)] = min(a, b)
  return tuple(first[find(i)] for i in range(len(first)))


def _deal(shares, numbers, fractions):
  """Deals out groups, the largest first; returns (kinds, parts) counts."""
  dealt = np.zeros((len(shares), len(fractions)), np.int64)
  surplus = -np.repeat(fractions[:, None], shares.shape[1], axis=1)
  # A part of share 0 stays empty, even where a group is too large for others.
  closed = np.where(fractions > 0, 0.0, np.inf)
  for kind in np.argsort(-shares.sum(1), kind='stable'):
    for _ in range(numbers[kind]):
      part = np.argmin(surplus @ shares[kind] + closed)
      surplus[part] += shares[kind]
      dealt[kind, part] += 1
  return dealt


def _improve(shares, dealt, fractions):
  """Moves and exchanges groups between parts as long as the sum falls."""
  squares = (shares**2).sum(1)
  distances = None
  if len(shares) <= _MAX_KINDS_TO_EXCHANGE:
    distances = squares[:, None] + squares[None] - 2 * shares @ shares.T
  open_parts = np.flatnonzero(fractions > 0)
  while True:
    surplus = dealt.T @ shares - fractions[:, None]
    best, change = -_TOLERANCE, None
    for p in open_parts:
      for q in open_parts:
        if p == q:
          continue
        slope = 2 * shares @ (surplus[q] - surplus[p])
        gain = np.where(dealt[:, p] > 0, 2 * squares + slope, np.inf)
        kind = int(np.argmin(gain))
        if gain[kind] < best:
          best, change = gain[kind], (p, q, kind, None)
        if distances is not None and p < q:
          gain = 2 * distances + slope[:, None] - slope[None]
          gain = np.where(dealt[:, p, None] * dealt[:, q] > 0, gain, np.inf)
          kind, other = np.unravel_index(np.argmin(gain), gain.shape)
          if gain[kind, other] < best:
            best, change = gain[kind, other], (p, q, kind, other)
    if change is None:
      return dealt
    p, q, kind, other = change
    dealt[kind, [p, q]] += [-1, 1]
    if other is not None:
      dealt[other, [p, q]] += [1, -1]


def _draw(key, of_kind, dealt):
  """Returns the part of each group, at random among groups of one kind."""
  # Sorted on the host: XLA takes seconds to compile a sort on CPU.
  draws = np.asarray(jax.random.bits(key, (len(of_kind),)))
  parts = np.empty(len(of_kind), np.int64)
  for kind, numbers in enumerate(dealt):
    members = np.flatnonzero(of_kind == kind)
    members = members[np.argsort(draws[members], kind='stable')]
    parts[members] = np.repeat(np.arange(len(numbers)), numbers)
  return parts
