"""The figure of what speaks for and against heat maps."""

from collections.abc import Mapping
from typing import Any

import matplotlib.figure
import numpy as np

from jaxsens.reports import heat_maps
from jaxsens.reports import style

MEASURES = (
  ('deletion', 'deletion ↓'), ('insertion', 'insertion ↑'), ('road', 'ROAD ↓'),
  ('mufidelity', 'MuFidelity ↑'), ('infidelity', 'infidelity ↓'),
  ('sensitivity', 'sensitivity ↓'), ('other_class', 'other class ↓'),
)
"""Fields of `believing.check`, and what they are called; which way is good."""

_ROW, _COLUMN, _WIDE = 0.34, 1.05, 2.3


def median(values: Any) -> float:
  """Returns the median of what is known; NaN where nothing is."""
  known = [] if values is None else [x for x in values if x is not None]
  return float(np.median(known)) if known else np.nan


@style.styled
def plot_belief(document: Mapping[str, Any]) -> matplotlib.figure.Figure:
  """Returns medians over the images as bars, and the cascade as lines.

  Args:
    document: see `attribution_page.render`.
  """
  rows = document['belief']
  left = 0.25 + 0.085 * max(len(row['name']) for row in rows)
  tall = _ROW * len(rows)
  figure = heat_maps.new_figure(
    left + (_COLUMN + 0.15) * len(MEASURES) + _WIDE + 0.45, tall + 2.2
  )
  style.add_title(
    figure, 'Can the maps be believed?',
    'medians over the images; ↑ more is better, ↓ less; right: rank '
    'correlation with the map of the network without its last layers',
  )
  y = np.arange(len(rows))[::-1]
  for k, (field, title) in enumerate(MEASURES):
    axes = style.add_axes(
      figure, left + (_COLUMN + 0.15) * k, 0.95, _COLUMN, tall
    )
    values = np.array([median(row[field]) for row in rows])
    axes.barh(y, np.nan_to_num(values), 0.7, color=style.TOTAL)
    axes.axvline(0, color=style.INK, lw=0.8)
    low, high = min(np.nanmin([*values, 0]), 0), np.nanmax([*values, 1e-9])
    axes.set_xlim(low - 0.02 * (high - low), low + 1.02 * (high - low))
    for place, value in zip(y, values, strict=True):
      axes.annotate(
        heat_maps.number(value) if np.isfinite(value) else '–', (0, place),
        (3, 0), textcoords='offset points', va='center', size=8.5,
      )
    axes.set_xticks([])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_yticks(y, [row['name'] for row in rows] if not k else ())
    axes.tick_params(left=False)
    axes.set_title(title, size=9)
  _plot_cascade(
    style.add_axes(
      figure, left + (_COLUMN + 0.15) * len(MEASURES) + 0.1, 0.95, _WIDE, tall
    ), rows, y,
  )
  return figure


def _plot_cascade(axes, rows, y):
  """Draws a line of rank correlations from 0 to 1 in the row of each method."""
  stages = rows[0]['stages']
  x = np.arange(len(stages) + 1)
  for row, place in zip(rows, y, strict=True):
    values = [1.0, *(median(stage) for stage in row['cascade'])]
    axes.axhline(place - 0.38, color=style.MUTED, lw=0.5)
    axes.plot(
      x, place - 0.38 + 0.76 * np.clip(values, 0, 1), color=style.ALONE,
      lw=1.5, marker='o', ms=3,
    )
    axes.annotate(
      '–' if np.isnan(values[-1]) else f'{values[-1]:.2f}', (x[-1], place),
      (6, 0), textcoords='offset points', va='center', size=8.5,
      annotation_clip=False,
    )
  axes.set_ylim(-0.6, len(rows) - 0.4)
  axes.set_yticks([])
  axes.set_xticks(x, ['trained', *stages], rotation=40, ha='right', size=8)
  axes.set_title('layers lost, cascade ↓', size=9)
