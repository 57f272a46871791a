"""Figures of heat maps against masks; each returns a new Figure.

They draw the parts of a result, see `localisation_page.render`.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import matplotlib.figure
import numpy as np

from jaxsens.reports import style

_WIDTH = 10.0
_COLUMNS = 3  # of methods among the examples
# Values above this share of a map are drawn alike, so that one pixel does not
# make all others dark.
_BRIGHTEST = 0.995


def draw_all(
  result: Mapping[str, Any], examples: Mapping[str, Any]
) -> dict[str, bytes]:
  """Returns the PNG files by stem.

  Args:
    result: see `localisation_page.render`.
    examples: 'images' (N, H, W, C), 'masks' (N, H, W), 'titles' of the images,
      and 'maps' by method, (N, H, W).
  """
  figures = {
    'dice': plot_dice(result['rows'], result['level']),
    'examples': plot_examples(result['rows'], examples),
  }
  return {stem: style.render_png(figure) for stem, figure in figures.items()}


@style.styled
def plot_dice(
  rows: Sequence[Mapping[str, Any]], level: float
) -> matplotlib.figure.Figure:
  """Returns bars of the Dice of each method, largest first."""
  rows = _ordered(rows)
  height = 1.25 + 0.26 * len(rows)
  figure = style.new_figure(_WIDTH, height)
  number = len(rows[0]['dice'])
  style.add_title(
    figure, 'How well the maps cover the defects',
    f'mean Dice over {number} test images; lines: {100 * level:g} % over '
    'images; thresholds chosen on other images',
  )
  left = 2.75
  axes = style.add_axes(
    figure, left, 0.5, _WIDTH - left - 0.6, 0.26 * len(rows)
  )
  dice = [row['measures']['Dice'] for row in rows]
  value = lambda end: np.array([
    np.nan if one[end] is None else one[end] for one in dice
  ])
  y = np.arange(len(rows))[::-1]
  colors = [
    style.TOTAL if row['kind'] == 'method' else style.DOUBT_TOTAL
    for row in rows
  ]
  axes.barh(y, value('value'), 0.72, color=colors)
  axes.hlines(y, value('lower'), value('upper'), color=style.INK, lw=1.4)
  trivial = max(
    (row['measures']['Dice']['value'] or 0 for row in rows
     if row['kind'] == 'baseline'), default=None,
  )
  if trivial is not None:
    axes.axvline(trivial, color=style.MUTED, lw=1, ls=(0, (4, 3)), zorder=0)
  top = np.nanmax(np.append(value('upper'), 0.1))
  axes.set_xlim(0, 1.12 * top)
  for place, one, end in zip(y, value('value'), value('upper'), strict=True):
    if np.isfinite(one):
      axes.text(
        end + 0.008 * top, place, f'{one:.3f}', va='center', size=8.5,
        color=style.MUTED,
        bbox={'facecolor': 'white', 'edgecolor': 'none', 'pad': 0.6},
      )
  axes.set_ylim(-0.6, len(rows) - 0.4)
  axes.set_yticks(y, [
    style.shorten(row['method'], 34) for row in rows
  ])
  axes.tick_params(axis='y', length=0, labelcolor=style.INK)
  for label, row in zip(axes.get_yticklabels(), rows, strict=True):
    if row['kind'] == 'baseline':
      label.set_color(style.MUTED)
  axes.set_xlabel('Dice (dashed: the best map without a network)')
  axes.grid(axis='x')
  axes.set_axisbelow(True)
  return figure


@style.styled
def plot_examples(
  rows: Sequence[Mapping[str, Any]], examples: Mapping[str, Any]
) -> matplotlib.figure.Figure:
  """Returns images with their masks and the maps of all methods."""
  rows = _ordered(rows)
  number = len(examples['images'])
  count = -(-len(rows) // _COLUMNS)
  block = (_WIDTH - 0.3) / _COLUMNS
  side = (block - 0.2) / max(number, 3)
  # The images above the first column, somewhat larger.
  large = min(1.7, (_WIDTH - 0.3) / number)
  top, pitch = 0.75, side + 0.3
  height = top + large + 0.3 + count * pitch + 0.1
  figure = style.new_figure(_WIDTH, height)
  style.add_title(
    figure, 'Where the methods see the defects',
    'test images in turn among the classes, with the true masks outlined; '
    'methods by their Dice over all images',
  )
  place = lambda left, upper, size: style.add_axes(
    figure, left, height - upper - size, size - 0.06, size - 0.06
  )
  for i in range(number):
    axes = place(0.15 + i * large, top, large)
    _show(axes, style.thumbnail(examples['images'][i], 260))
    _outline(axes, examples['masks'][i], 1.4)
    axes.set_title(
      style.shorten(examples['titles'][i], 20), size=9, pad=3
    )
  for j, row in enumerate(rows):
    column, line = divmod(j, count)
    left, upper = 0.15 + column * block, top + large + 0.3 + line * pitch
    dice = row['measures']['Dice']['value']
    value = '–' if dice is None else f'{dice:.3f}'
    style.add_text(
      figure, left, height - upper + 0.02,
      f'{style.shorten(row["method"], 30)}  {value}', size=8.5, va='bottom',
      color=style.INK if row['kind'] == 'method' else style.MUTED,
    )
    for i, heat_map in enumerate(examples['maps'][row['method']]):
      axes = place(left + i * side, upper, side)
      _show(axes, _scaled(heat_map), cmap=style.SEQUENTIAL, vmin=0, vmax=1)
      _outline(axes, examples['masks'][i], 0.7)
  return figure


def _ordered(rows):
  return sorted(
    rows, key=lambda row: -(row['measures']['Dice']['value'] or 0)
  )


def _show(axes, image, **options):
  axes.imshow(image, aspect='auto', extent=(0, 1, 1, 0), **options)
  axes.set(xticks=[], yticks=[])
  for spine in axes.spines.values():
    spine.set(visible=True, color=style.FAINT, linewidth=0.6)


def _outline(axes, mask, width):
  """Draws the border of a mask (H, W) over an image of the unit square."""
  framed = np.pad(np.asarray(mask, float), 1)
  rows, columns = (
    (np.arange(-1, n + 1) + 0.5) / n for n in np.shape(mask)
  )
  axes.contour(
    columns, rows, framed, [0.5], colors=[style.WRONG], linewidths=width
  )
  axes.set(xlim=(0, 1), ylim=(1, 0))


def _scaled(heat_map):
  low, high = heat_map.min(), np.quantile(heat_map, _BRIGHTEST)
  if high <= low:
    high = heat_map.max()
  return (heat_map - low) / (high - low if high > low else 1)
