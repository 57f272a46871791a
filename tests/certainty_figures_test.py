"""Figures of certainties: bars below pictures, curves of several methods."""

from matplotlib import colors
import numpy as np
import pytest

from jaxsens.reports import answer_figures
from jaxsens.reports import comparison_curves as figures
from jaxsens.reports import style
from jaxsens.uncertainty import comparison
from jaxsens.uncertainty import comparison_curves

_IMAGE = np.linspace(0, 1, 48, dtype=np.float32).reshape(6, 8, 1)


def _bars(figure):
  """Length, colour and threshold of each bar of certainty."""
  found = []
  for axes in figure.axes:
    if axes.images:
      continue
    bar = axes.patches[-1]
    ticks = [line.get_xdata()[0] for line in axes.lines]
    found.append((
      bar.get_width(), colors.to_hex(bar.get_facecolor()),
      ticks[0] if ticks else None,
    ))
  return found


def test_bars_are_as_long_as_the_certainty_and_grey_below_the_tick():
  certainties = [0.9, 0.6, 0.3]
  figure = answer_figures.plot_answers(
    [_IMAGE] * 3, ['a', 'b', 'c'], ['a', 'x', 'c'], certainties, 'title',
    threshold=0.6,
  )
  assert _bars(figure) == [
    (0.9, style.ALONE, 0.6), (0.6, style.ALONE, 0.6),
    (0.3, style.DOUBT_ALONE, 0.6),
  ]
  pictures = [axes for axes in figure.axes if axes.images]
  frames = [colors.to_hex(a.spines['left'].get_edgecolor()) for a in pictures]
  assert frames == [style.FAINT, style.WRONG, style.FAINT]
  texts = [text.get_text() for text in figure.texts]
  assert '✗ b' in texts and '0.60, is x' in texts and '0.90' in texts


def test_without_a_threshold_nothing_is_refused():
  figure = answer_figures.plot_answers(
    [_IMAGE], ['a'], ['a'], [0.01], 'title'
  )
  assert _bars(figure) == [(0.01, style.ALONE, None)]
  assert not any('refused' in text.get_text() for text in figure.texts)


@pytest.mark.parametrize('certainty, verdict, color', [
  (0.75, 'accepted', style.ALONE), (0.25, 'refused', style.DOUBT_ALONE),
])
def test_single_picture_says_answer_label_certainty_and_verdict(
  certainty, verdict, color
):
  figure = answer_figures.plot_answer(
    _IMAGE, 'patches', 'crazing', certainty, name='a/b.png', threshold=0.5
  )
  assert _bars(figure) == [(certainty, color, 0.5)]
  texts = [text.get_text() for text in figure.texts]
  assert texts[:2] == ['✗ patches', 'is crazing']
  assert f'certainty {certainty:.3f}, {verdict}: threshold 0.500' in texts
  # Small pictures are enlarged, their aspect is kept.
  picture = next(axes for axes in figure.axes if axes.images)
  width, height = figure.get_size_inches() * picture.get_position().size
  np.testing.assert_allclose(width / height, 8 / 6)
  assert width > 3


def _curves(number, num_bins=2):
  rng = np.random.default_rng(0)
  labels = rng.integers(0, 3, 60)
  found = {}
  for i in range(number):
    logits = rng.normal(size=(60, 3)) + 2 * np.eye(3)[labels]
    own = (labels, logits) if i < num_bins else ()
    found[f'method {i}'] = comparison_curves.of_answers(comparison.Answers(
      logits.max(1), logits.argmax(1) == labels,
      {'far': rng.normal(size=30)}, *own,
    ))
  return found


def _lines(figure):
  """Names of the lines of each panel."""
  return [
    [
      line.get_label() for line in axes.lines
      if not line.get_label().startswith('_')
    ]
    for axes in figure.axes
  ]


@pytest.mark.parametrize('number', [1, 6, 7, 17])
def test_every_method_is_drawn_once_beside_the_baseline(number):
  curves = _curves(number)
  for figure in (
    figures.plot_coverage(curves, comparison_curves.COVERAGES, 'method 0'),
    figures.plot_roc(
      curves, comparison_curves.FALSE_RATES, 'method 0', 'far'
    ),
  ):
    panels = _lines(figure)
    assert all(names[0] == 'method 0' for names in panels)
    assert all(len(names) <= 6 for names in panels)
    others = [name for names in panels for name in names[1:]]
    assert others == list(curves)[1:]
    assert style.render_png(figure).startswith(b'\x89PNG')


def test_drawn_are_the_numbers():
  curves = _curves(2)
  figure = figures.plot_coverage(
    curves, comparison_curves.COVERAGES, 'method 0'
  )
  line = figure.axes[0].lines[1]
  np.testing.assert_array_equal(line.get_xdata(), comparison_curves.COVERAGES)
  np.testing.assert_array_equal(
    line.get_ydata(), curves['method 1']['accuracy']
  )


def test_reliability_has_the_methods_with_probabilities_alone():
  panels = _lines(figures.plot_reliability(_curves(5, num_bins=3), 'method 0'))
  assert panels == [['method 0', 'method 1', 'method 2']]
  assert figures.plot_reliability(_curves(2, num_bins=0), 'method 0') is None
