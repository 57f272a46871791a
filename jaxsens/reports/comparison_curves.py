"""Curves of several ways of telling how sure an answer is, side by side.

The methods come in panels of a few, each with the baseline in vermilion.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import matplotlib.figure
import numpy as np

from jaxsens.reports import style

_PER_PANEL = 5  # methods beside the baseline
# Told apart by hue and by dash, whatever the colour vision.
_LINES = (
  ('#0072b2', '-'), ('#009e73', (0, (5, 1.5))), ('#cc79a7', (0, (2, 1))),
  ('#e69f00', '-'), ('#56b4e9', (0, (4, 1, 1, 1))),
)
_SIDE, _LEFT, _BELOW = 3.1, 0.9, 0.6


@style.styled
def plot_reliability(
  curves: Mapping[str, Mapping[str, Any]], baseline: str
) -> matplotlib.figure.Figure | None:
  """Returns accuracy against confidence, or None without probabilities.

  Args:
    curves: by method, see `uncertainty.comparison_curves.of_answers`.
    baseline: a method.
  """
  with_bins = {
    name: one['reliability'] for name, one in curves.items()
    if one['reliability'] is not None
  }
  if not with_bins:
    return None
  lows = [
    min(bins['confidence'] + bins['accuracy']) for bins in with_bins.values()
  ]
  low = max(0.0, np.floor(10 * min(lows)) / 10)
  figure, panels = _panels(
    with_bins, baseline, 'Is the confidence the accuracy?',
    'ten bins of equally many test images',
  )
  for axes, names in panels:
    axes.plot([low, 1], [low, 1], color=style.FAINT, lw=1, zorder=0)
    for name, (color, dash) in names:
      bins = with_bins[name]
      axes.plot(
        bins['confidence'], bins['accuracy'], color=color, ls=dash, lw=1.4,
        marker='o', ms=3, label=style.shorten(name, 38),
      )
    axes.set_xlim(low - 0.01, 1.01)
    axes.set_ylim(low - 0.01, 1.01)
    _finish(axes, 'confidence', 'accuracy')
  return figure


@style.styled
def plot_coverage(
  curves: Mapping[str, Mapping[str, Any]],
  coverages: Sequence[float],
  baseline: str,
) -> matplotlib.figure.Figure:
  """Returns the accuracy of what is answered against its share.

  Args:
    curves: see `plot_reliability`.
    coverages: shares of the entries of 'accuracy'.
    baseline: a method.
  """
  low = min(min(one['accuracy']) for one in curves.values())
  margin = max(0.04 * (1 - low), 1e-3)
  figure, panels = _panels(
    curves, baseline, 'What is gained by refusing the unsure',
    'test images; the least certain are refused first',
  )
  for axes, names in panels:
    for name, (color, dash) in names:
      axes.plot(
        coverages, curves[name]['accuracy'], color=color, ls=dash, lw=1.4,
        label=style.shorten(name, 38),
      )
    axes.set_ylim(low - margin, 1 + margin)
    _finish(axes, 'share that is answered', 'accuracy of these')
  return figure


@style.styled
def plot_roc(
  curves: Mapping[str, Mapping[str, Any]],
  false_rates: Sequence[float],
  baseline: str,
  out_set: str,
) -> matplotlib.figure.Figure:
  """Returns the ROC curves of known against unknown images.

  Args:
    curves: see `plot_reliability`.
    false_rates: shares of unknown images of the entries of 'roc'.
    baseline: a method.
    out_set: which unknown images.
  """
  figure, panels = _panels(
    curves, baseline, f'Known images and unknown ones: {out_set}',
    'share of each that is above a threshold on the certainty',
  )
  for axes, names in panels:
    axes.plot([0, 1], [0, 1], color=style.FAINT, lw=1, zorder=0)
    for name, (color, dash) in names:
      axes.plot(
        [0, *false_rates], [0, *curves[name]['roc'][out_set]], color=color,
        ls=dash, lw=1.4, label=style.shorten(name, 38),
      )
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.02)
    _finish(axes, 'unknown taken for known', 'known that pass')
  return figure


def _panels(names, baseline, title, subtitle):
  """Returns a figure, and its panels with the lines of each."""
  others = [name for name in names if name != baseline]
  count = max(1, -(-len(others) // _PER_PANEL))
  groups = [list(part) for part in np.array_split(others, count)]
  legend = 0.2 * (1 + max(map(len, groups))) + 0.15
  tall = _BELOW + _SIDE + legend + 0.75
  figure = style.new_figure(len(groups) * (_SIDE + _LEFT) + 0.3, tall)
  style.add_title(figure, title, subtitle)
  panels = []
  for i, group in enumerate(groups):
    axes = style.add_axes(
      figure, _LEFT + i * (_SIDE + _LEFT), _BELOW, _SIDE, _SIDE
    )
    lines = list(zip(group, _LINES, strict=False))
    if baseline in names:
      lines.insert(0, (baseline, (style.WRONG, '-')))
    panels.append((axes, lines))
  return figure, panels


def _finish(axes, x, y):
  axes.set_xlabel(x)
  axes.set_ylabel(y)
  axes.grid(color=style.FAINT, lw=0.5)
  axes.set_axisbelow(True)
  axes.legend(
    loc='lower left', bbox_to_anchor=(-0.02, 1.0), borderaxespad=0.2,
    handlelength=2.4, labelspacing=0.25, fontsize=8.5,
  )
