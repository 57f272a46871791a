"""Announced, caught and silent flips, by hand and by identities."""

import math

from absl.testing import parameterized
import jax
import numpy as np

from jaxsens.uncertainty import announcement

_STRENGTHS = (0.0, 1.0, 2.0, 4.0)
# A column per image; refused below 0.5.
_CERTAINTY = np.array([
  [0.9, 0.9, 0.9, 0.9, 0.9, 0.2, 0.9, 0.9],
  [0.3, 0.8, 0.8, 0.4, 0.8, 0.9, 0.2, 0.4],
  [0.8, 0.1, 0.7, 0.9, 0.7, 0.9, 0.2, 0.9],
  [0.7, 0.9, 0.1, 0.9, 0.6, 0.1, 0.2, 0.3],
])
_CORRECT = np.array([
  [1, 1, 1, 1, 1, 1, 0, 1],
  [1, 1, 1, 1, 1, 0, 1, 1],
  [1, 0, 0, 1, 1, 0, 1, 1],
  [0, 1, 0, 1, 1, 0, 1, 0],
], bool)
_OUTCOMES = (
  'announced', 'caught', 'silent', 'alarmed', 'kept', 'refused', 'wrong',
  'announced',
)


def _follow(threshold=0.5, certainty=_CERTAINTY, correct=_CORRECT):
  return announcement.follow(certainty, correct, threshold, _STRENGTHS)


def _summary(lines, **options):
  return announcement.summarise(
    jax.random.key(0), {'a': lines}, baseline='a', num_samples=50, **options
  )['a']


def _random(seed, strengths=6, count=200):
  rng = np.random.default_rng(seed)
  certainty = rng.random((strengths, count))
  correct = rng.random((strengths, count)) < 0.8
  return certainty, correct, np.arange(strengths)


class AnnouncementTest(parameterized.TestCase):

  def test_hand_table_of_outcomes(self):
    line = _follow()
    names = [announcement.OUTCOMES[k] for k in line.outcome]
    self.assertEqual(tuple(names), _OUTCOMES)
    nan = math.nan
    np.testing.assert_array_equal(
      line.margin, [3, nan, nan, nan, nan, nan, nan, 3]
    )
    # The first is sure again when it flips, the last is not.
    np.testing.assert_array_equal(
      line.refused_at_flip, [0, 1, 0, 0, 0, 0, 0, 1]
    )
    # Of the six that are followed, refused before strength 4: the first two,
    # the fourth, the last; before strength 2: the same but the second.
    np.testing.assert_allclose(
      line.by_chance, [4 / 6, 3 / 6, 3 / 6, nan, nan, nan, nan, 4 / 6]
    )

  def test_hand_table_of_shares(self):
    summary = _summary([_follow()])
    self.assertEqual(summary.counts, {
      'announced': 2, 'caught': 1, 'silent': 1, 'alarmed': 1, 'kept': 1,
      'refused': 1, 'wrong': 1,
    })
    values = {name: share.value for name, share in summary.shares.items()}
    self.assertEqual(list(values), list(announcement.SHARES))
    values['by chance'] = round(values['by chance'], 12)
    self.assertEqual(values, {
      'announced': 0.5, 'caught': 0.25, 'silent': 0.25,
      'by chance': round(14 / 6 / 4, 12), 'refused at the flip': 0.5,
      'false alarms': 0.5, 'margin': 3.0,
    })
    for share in summary.shares.values():
      self.assertLessEqual(share.lower, share.value)
      self.assertGreaterEqual(share.upper, share.value)

  def test_hand_table_of_course(self):
    course = announcement.course([_follow()])
    np.testing.assert_allclose(course.accuracy, np.array([7, 7, 5, 4]) / 8)
    np.testing.assert_allclose(course.coverage, np.array([7, 4, 6, 4]) / 8)
    np.testing.assert_allclose(
      course.accepted_accuracy, [6 / 7, 3 / 4, 4 / 6, 3 / 4]
    )

  def test_nothing_is_refused_without_threshold(self):
    certainty, correct, strengths = _random(0)
    line = announcement.follow(certainty, correct, -math.inf, strengths)
    summary = _summary([line])
    self.assertEqual(summary.shares['silent'].value, 1)
    for name in ('announced', 'caught', 'by chance', 'false alarms',
                 'refused at the flip'):
      self.assertEqual(summary.shares[name].value, 0, name)
    course = announcement.course([line])
    np.testing.assert_array_equal(course.coverage, 1)
    np.testing.assert_array_equal(course.accepted_accuracy, course.accuracy)

  def test_everything_is_announced_that_is_sure_only_unperturbed(self):
    certainty, correct, strengths = _random(1)
    certainty[0] = math.inf
    correct[1] = True  # else a flip at the first strength is only caught
    line = announcement.follow(certainty, correct, 2.0, strengths)
    summary = _summary([line])
    for name in ('announced', 'by chance', 'false alarms',
                 'refused at the flip'):
      self.assertEqual(summary.shares[name].value, 1, name)

  def test_infinite_threshold_follows_nothing_and_has_no_shares(self):
    certainty, correct, strengths = _random(2)
    line = announcement.follow(certainty, correct, math.inf, strengths)
    summary = _summary([line])
    self.assertEqual(summary.counts['refused'], correct[0].sum())
    for name, share in summary.shares.items():
      self.assertTrue(math.isnan(share.value), name)
      self.assertTrue(math.isnan(share.lower), name)
    course = announcement.course([line])
    self.assertTrue(np.isnan(course.accepted_accuracy).all())
    self.assertIsNone(summary.as_dict()['shares']['silent']['value'])

  def test_no_flips_have_no_shares_but_false_alarms(self):
    certainty, correct, strengths = _random(3)
    line = announcement.follow(
      certainty, np.ones_like(correct), 0.1, strengths
    )
    shares = _summary([line]).shares
    self.assertTrue(math.isnan(shares['silent'].value))
    self.assertTrue(math.isnan(shares['announced'].upper))
    followed = certainty[:, certainty[0] >= 0.1]
    self.assertEqual(
      shares['false alarms'].value, np.mean(followed.min(0) < 0.1)
    )

  def test_outcomes_agree_with_a_slow_reference(self):
    certainty, correct, strengths = _random(4)
    line = announcement.follow(certainty, correct, 0.2, strengths)
    for i, outcome in enumerate(line.outcome):
      self.assertEqual(
        announcement.OUTCOMES[outcome],
        _slow_outcome(certainty[:, i] >= 0.2, correct[:, i]),
      )

  def test_higher_thresholds_announce_no_less_of_the_same_flips(self):
    certainty, correct, strengths = _random(5)
    certainty[0] = 1
    values = []
    for threshold in (0.05, 0.2, 0.5, 0.9):
      line = announcement.follow(certainty, correct, threshold, strengths)
      values.append([
        _summary([line]).shares[name].value
        for name in ('announced', 'silent', 'false alarms')
      ])
    steps = np.diff(values, axis=0)
    self.assertTrue((steps[:, [0, 2]] > 0).all())
    self.assertTrue((steps[:, 1] < 0).all())

  def test_certainty_that_knows_nothing_announces_as_by_chance(self):
    certainty, correct, strengths = _random(6, count=40_000)
    line = announcement.follow(certainty, correct, 0.2, strengths)
    shares = announcement.summarise(
      jax.random.key(0), {'a': [line]}, baseline='a', num_samples=1
    )['a'].shares
    np.testing.assert_allclose(
      shares['announced'].value, shares['by chance'].value, atol=0.01
    )

  @parameterized.parameters(0.01, 0.1, 0.29, 0.5, 0.999)
  def test_threshold_refuses_the_share_that_is_asked_for(self, rate):
    certainty = np.random.default_rng(0).random(100)
    found = announcement.threshold(certainty, rate)
    self.assertEqual(np.sum(certainty < found), math.floor(100 * rate + 1e-9))

  def test_threshold_of_equal_certainties_refuses_fewer(self):
    self.assertEqual(announcement.threshold([1, 1, 1, 1, 0.5], 0.5), 1)
    self.assertEqual(announcement.threshold([1, 1, 1, 1], 0.5), 1)

  def test_shares_of_lines_together_are_those_of_their_flips(self):
    lines = [
      announcement.follow(c, r, 0.3, s) for c, r, s in map(_random, (7, 8))
    ]
    apart = [_summary([line]).counts for line in lines]
    both = _summary(lines)
    for name, count in both.counts.items():
      self.assertEqual(count, sum(one[name] for one in apart))
    flips = sum(both.counts[n] for n in ('announced', 'caught', 'silent'))
    self.assertEqual(both.shares['silent'].value,
                     both.counts['silent'] / flips)

  def test_difference_from_itself_is_zero_and_intervals_are_of_the_key(self):
    line = announcement.follow(*_random(9)[:2], 0.3, range(6))
    other = announcement.follow(*_random(10)[:2], 0.3, range(6))
    ask = lambda seed: announcement.summarise(
      jax.random.key(seed), {'a': [line], 'b': [other]}, baseline='a',
      num_samples=40,
    )
    found = ask(0)
    share = found['a'].shares['announced']
    self.assertEqual(
      (share.difference, share.difference_lower, share.difference_upper),
      (0, 0, 0),
    )
    self.assertLess(share.lower, share.upper)
    self.assertNotEqual(found['b'].shares['announced'].difference, 0)
    self.assertEqual(found, ask(0))
    self.assertNotEqual(found, ask(1))

  def test_groups_are_drawn_as_a_whole(self):
    line = announcement.follow(*_random(11)[:2], 0.3, range(6))
    share = _summary([line], groups=['one'] * 200).shares['announced']
    self.assertEqual((share.lower, share.upper), (share.value,) * 2)

  @parameterized.parameters(0, 1, -0.1, math.nan)
  def test_rate_outside_of_the_unit_interval_is_refused(self, rate):
    with self.assertRaisesRegex(ValueError, 'abstention_rate must be in'):
      announcement.threshold([0.1, 0.2], rate)

  def test_bad_input_is_named(self):
    nan = np.where(_CERTAINTY < 0.15, np.nan, _CERTAINTY)
    for message, arguments in (
      ('shape', (_CERTAINTY[0], _CORRECT[0], 0.5, _STRENGTHS)),
      ('shape', (_CERTAINTY, _CORRECT[1:], 0.5, _STRENGTHS)),
      ('type bool', (_CERTAINTY, _CORRECT.astype(int), 0.5, _STRENGTHS)),
      ('strengths must have', (_CERTAINTY, _CORRECT, 0.5, _STRENGTHS[1:])),
      ('must grow', (_CERTAINTY, _CORRECT, 0.5, (0, 2, 1, 3))),
      ('3 NaN', (nan, _CORRECT, 0.5, _STRENGTHS)),
      ('threshold: nan', (_CERTAINTY, _CORRECT, math.nan, _STRENGTHS)),
    ):
      with self.assertRaisesRegex(ValueError, message):
        announcement.follow(*arguments)
    with self.assertRaisesRegex(ValueError, 'without NaN'):
      announcement.threshold([0.1, math.nan], 0.5)
    line = _follow()
    for message, methods in (
      ('baseline', {'b': [line]}), ('needs lines', {'a': [line], 'b': []}),
      ('needs lines', {'a': [line, announcement.follow(
        *_random(0)[:2], 0.5, range(6)
      )]}),
    ):
      with self.assertRaisesRegex(ValueError, message):
        announcement.summarise(jax.random.key(0), methods, baseline='a')


def _slow_outcome(accepted, correct):
  if not correct[0]:
    return 'wrong'
  if not accepted[0]:
    return 'refused'
  refused = False
  for given, right in zip(accepted, correct, strict=True):
    if not right:
      if refused:
        return 'announced'
      return 'silent' if given else 'caught'
    refused = refused or not given
  return 'alarmed' if refused else 'kept'
