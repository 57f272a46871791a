"""Does the certainty fall before the answer changes?

Images are followed along a line of growing strength of a perturbation,
s_0 = neutral < s_1 < ... An answer is refused where its certainty is below a
threshold, the one that refuses a chosen share of held-out, unperturbed images.

Images that are answered rightly and accepted at s_0 are followed. The *flip* of
one is the first strength at which its answer is another than at s_0. It is
*announced* where the image is refused at a strength before the flip, else
*caught* where it is refused at the flip, else *silent*: a wrong answer that is
given. An image that never flips but is refused somewhere is a *false alarm*.

All of that depends on how finely the strengths are laid: with more of them
there are more occasions to refuse, before flips and without one. Two shares
tell how much is due to that: the false alarms, and the flips that would be
announced *by chance*, were each image refused where another one is, drawn at
random from those that are followed.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import math
from typing import Any

import jax
from jax.typing import ArrayLike
import numpy as np

from jaxsens.uncertainty import resampling

OUTCOMES = (
  'announced', 'caught', 'silent', 'alarmed', 'kept', 'refused', 'wrong'
)
"""What becomes of an image: three kinds of flips; without a flip refused
somewhere or nowhere; not followed as it is right but refused at s_0, or wrong
there."""

SHARES = (
  'announced', 'caught', 'silent', 'by chance', 'refused at the flip',
  'false alarms', 'margin',
)
"""The first five are shares of the flips, the false alarms of the images that
are followed and do not flip; the margin is the median way from the first
refusal to the flip, over announced flips, in units of the strengths."""

_NUM_FLIPS = 3  # that many outcomes are flips
_FOLLOWED = slice(0, 5)


@dataclasses.dataclass(frozen=True)
class Line:
  """What becomes of images along a line.

  Attributes:
    accepted: (S, N) bool.
    correct: (S, N) bool.
    outcome: (N,) positions in `OUTCOMES`.
    margin: (N,) strength from the first refusal to the flip; NaN where no flip
      is announced.
    refused_at_flip: (N,) bool, whatever was before.
    by_chance: (N,) of a flip: share of the followed images that are refused at
      some strength before it; NaN without a flip.
  """

  accepted: np.ndarray
  correct: np.ndarray
  outcome: np.ndarray
  margin: np.ndarray
  refused_at_flip: np.ndarray
  by_chance: np.ndarray


@dataclasses.dataclass(frozen=True)
class Share:
  """A share, its interval over images, and its difference from the baseline.

  Attributes:
    value: NaN where nothing is there to be a share of.
    lower, upper: the interval; NaN where more than half of the resamples have
      no value.
    difference: value minus that of the baseline.
    difference_lower, difference_upper: its interval, from the same resamples.
  """

  value: float
  lower: float
  upper: float
  difference: float
  difference_lower: float
  difference_upper: float


@dataclasses.dataclass(frozen=True)
class Summary:
  """What becomes of all images along some lines.

  Attributes:
    counts: images by outcome, summed over lines.
    shares: by the names in `SHARES`.
  """

  counts: dict[str, int]
  shares: dict[str, Share]

  def as_dict(self) -> dict[str, Any]:
    """Returns the fields ready for JSON, None for NaN."""
    return {'counts': self.counts, 'shares': {
      name: {
        field: None if math.isnan(value) else value
        for field, value in dataclasses.asdict(share).items()
      } for name, share in self.shares.items()
    }}


@dataclasses.dataclass(frozen=True)
class Course:
  """What accepting does, strength by strength.

  Attributes:
    accuracy: (S,) share of right answers, accepted or not.
    coverage: (S,) share accepted.
    accepted_accuracy: (S,) share of right ones among them, NaN without any.
  """

  accuracy: np.ndarray
  coverage: np.ndarray
  accepted_accuracy: np.ndarray


def threshold(certainty: ArrayLike, abstention_rate: float) -> float:
  """Returns the largest certainty of which at most a share lies below.

  With distinct certainties floor(rate N) of them do; with equal ones there may
  be fewer.

  Args:
    certainty: (N,) of held-out, unperturbed images.
    abstention_rate: the share, in (0, 1).

  Raises:
    ValueError: a rate outside (0, 1), another shape, no images, or NaN.
  """
  certainty = np.asarray(certainty, np.float64)
  if not 0 < abstention_rate < 1:
    raise ValueError(f'abstention_rate must be in (0, 1), got '
                     f'{abstention_rate}.')
  if certainty.ndim != 1 or not certainty.size or np.isnan(certainty).any():
    raise ValueError(
      'certainty must have shape (N,), N > 0, without NaN, got '
      f'{certainty.shape}, {int(np.isnan(certainty).sum())} NaN.'
    )
  # A product as 0.29 * 100 = 28.999999999999996 is 29.
  below = math.floor(abstention_rate * len(certainty) * (1 + 1e-12))
  return float(np.sort(certainty)[below])


def follow(
  certainty: ArrayLike,
  correct: ArrayLike,
  threshold: float,
  strengths: ArrayLike,
) -> Line:
  """Returns what becomes of each image along a line.

  Args:
    certainty: (S, N), larger is surer; the first row is unperturbed.
    correct: (S, N) bool. As only images that are right at s_0 are followed, an
      answer is another one where it is wrong.
    threshold: answers of less certainty are refused.
    strengths: (S,) growing, of the neutral one first.

  Raises:
    ValueError: shapes that do not fit, fewer than two strengths, strengths that
      do not grow, or NaN.
  """
  certainty, strengths = np.asarray(certainty), np.asarray(strengths, float)
  correct = np.asarray(correct)
  _check(certainty, correct, threshold, strengths)
  num, accepted = len(strengths), certainty >= threshold
  # The number of strengths where there is none.
  flip, refusal = _first(~correct), _first(~accepted)
  followed = correct[0] & accepted[0]
  flipped = followed & (flip < num)
  outcome = np.select(
    [
      flipped & (refusal < flip), flipped & (refusal == flip), flipped,
      followed & (refusal < num), followed, correct[0],
    ],
    range(6), 6,
  )
  at = np.append(strengths, np.nan)
  before = (refusal[None, followed] < np.arange(num + 1)[:, None])
  # No images that are followed: no flips either.
  chance = before.mean(1) if followed.any() else np.full(num + 1, np.nan)
  inside = np.minimum(flip, num - 1)
  return Line(
    accepted, correct, outcome,
    margin=np.where(outcome == 0, at[flip] - at[refusal], np.nan),
    refused_at_flip=flipped & ~accepted[inside, np.arange(len(flip))],
    by_chance=np.where(flipped, chance[flip], np.nan),
  )


def course(lines: Sequence[Line]) -> Course:
  """Returns accuracy and coverage at each strength, over all images of lines.

  Args:
    lines: of one factor and direction, for instance of several networks.
  """
  accepted = np.concatenate([line.accepted for line in lines], axis=1)
  correct = np.concatenate([line.correct for line in lines], axis=1)
  number = accepted.sum(1)
  return Course(
    correct.mean(1), accepted.mean(1),
    _ratio((accepted & correct).sum(1), number),
  )


def summarise(
  key: jax.Array,
  methods: Mapping[str, Sequence[Line]],
  *,
  baseline: str,
  groups: Sequence[str] | None = None,
  num_samples: int = 500,
  level: float = 0.95,
) -> dict[str, Summary]:
  """Returns the shares of each method, flips of all its lines together.

  Args:
    key: of the resamples, which are the same for all methods. An image is drawn
      with all its lines.
    methods: lines by method, at least one; all of the same N images in the same
      order. Lines may be of other factors, directions and networks.
    baseline: the method that the others are compared with.
    groups: (N,) recording of each image, drawn as a whole; None: images are
      independent.
    num_samples: resamples of the intervals.
    level: coverage of the intervals.

  Raises:
    ValueError: no such baseline, a method without lines, or other images.
  """
  if baseline not in methods:
    raise ValueError(
      f'baseline must be one of {sorted(methods)}, got {baseline!r}.'
    )
  lengths = {
    name: {len(line.outcome) for line in lines}
    for name, lines in methods.items()
  }
  if len(set().union(*lengths.values())) != 1 or not all(lengths.values()):
    raise ValueError(
      'every method needs lines, all of the same number of images; got '
      f'{ {name: sorted(found) for name, found in lengths.items()} }.'
    )
  (length,) = lengths[baseline]
  tables = {name: _table(lines) for name, lines in methods.items()}
  values = {
    name: _shares(table, np.arange(length)) for name, table in tables.items()
  }
  drawn = [
    {name: _shares(table, rows) for name, table in tables.items()}
    for rows in resampling.resamples(
      key, length, num_samples=num_samples,
      groups=None if groups is None else np.asarray(groups),
    )
  ]
  found = {}
  for name, (counts, *_) in tables.items():
    base = [sample[baseline] for sample in drawn]
    own = [sample[name] for sample in drawn]
    found[name] = Summary(
      dict(zip(OUTCOMES, counts.sum(0).tolist(), strict=True)),
      {
        share: Share(
          values[name][share],
          *_interval([s[share] for s in own], level),
          values[name][share] - values[baseline][share],
          *_interval([
            s[share] - b[share] for s, b in zip(own, base, strict=True)
          ], level),
        ) for share in SHARES
      },
    )
  return found


def _check(certainty, correct, threshold, strengths):
  if certainty.ndim != 2 or correct.shape != certainty.shape:
    raise ValueError(
      'certainty and correct must have shape (S, N), got '
      f'{certainty.shape} and {correct.shape}.'
    )
  if correct.dtype != bool:
    raise ValueError(f'correct must be of type bool, got {correct.dtype}.')
  if strengths.shape != certainty.shape[:1] or len(strengths) < 2:
    raise ValueError(
      f'strengths must have shape (S,), S >= 2, got {strengths.shape}, where '
      f'certainty has {certainty.shape}.'
    )
  if not (np.diff(strengths) > 0).all():
    raise ValueError(f'strengths must grow, got {strengths.tolist()}.')
  if np.isnan(certainty).any() or math.isnan(threshold):
    raise ValueError(
      f'certainty: {int(np.isnan(certainty).sum())} NaN; threshold: '
      f'{threshold}.'
    )


def _first(there):
  """First row (N,) in which something is there, S where there is none."""
  return np.where(there.any(0), there.argmax(0), len(there))


def _ratio(part, whole):
  part, whole = np.asarray(part, float), np.asarray(whole, float)
  return np.divide(
    part, whole, out=np.full_like(part, np.nan), where=whole > 0
  )


def _table(lines):
  """Sums over lines per image, and the margins (L, N)."""
  outcomes = np.stack([line.outcome for line in lines])
  counts = np.stack(
    [(outcomes == k).sum(0) for k in range(len(OUTCOMES))], axis=1
  )
  return (
    counts, np.sum([line.refused_at_flip for line in lines], axis=0),
    np.nansum([line.by_chance for line in lines], axis=0),
    np.stack([line.margin for line in lines]),
  )


def _shares(table, rows):
  counts, refused, chance, margin = (
    table[0][rows].sum(0), table[1][rows].sum(), table[2][rows].sum(),
    table[3][:, rows],
  )
  flips = counts[:_NUM_FLIPS].sum()
  known = margin[~np.isnan(margin)]
  found = _ratio([*counts[:_NUM_FLIPS], chance, refused], [flips] * 5)
  alarms = _ratio([counts[3]], [counts[_FOLLOWED].sum() - flips])
  median = np.median(known) if len(known) else np.nan
  return dict(zip(SHARES, map(float, [*found, *alarms, median]), strict=True))


def _interval(values, level):
  if 2 * np.isnan(values).sum() > len(values) or not values:
    return math.nan, math.nan
  return resampling.percentiles(values, level)
