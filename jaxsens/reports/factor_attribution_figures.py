"""Figures of what factors do to an answer and to its explanation.

They draw a document and its arrays, see `attribution_page.render`.
"""

from collections.abc import Mapping
from typing import Any

import matplotlib.figure
import numpy as np

from jaxsens.reports import heat_maps
from jaxsens.reports import style

_LEFT, _GAP = 0.15, 0.12
_CLOSE = 0.05  # part of a change that its explanation may miss

Document = Mapping[str, Any]
Arrays = Mapping[str, np.ndarray]

_class = heat_maps.class_name


@style.styled
def plot_panel(
  document: Document, arrays: Arrays
) -> matplotlib.figure.Figure:
  """Returns the heat maps of one image over the range of a factor."""
  part = document['panel']
  images, methods = arrays['panel/images'], part['methods']
  image = document['images'][part['image']]
  width, height = heat_maps.cell(images)
  beside, pitch = 1.75, width + _GAP
  first, tall = height + 0.62, height + _GAP
  figure = heat_maps.new_figure(
    2 * _LEFT + beside + pitch * len(images) - _GAP,
    1.05 + first + tall * len(methods),
  )
  style.add_title(
    figure, f'How the explanation moves with {part["factor"]}: {image["name"]}',
    f'explained throughout: {_class(document, image["target"])}; each method '
    'on one scale, the 99th percentile of its maps; framed: another answer',
  )
  top = figure.get_size_inches()[1] - 0.98
  nominal = image['answer']
  for c, value in enumerate(part['values']):
    left = _LEFT + beside + pitch * c
    style.add_text(
      figure, left, top + 0.06, f'{heat_maps.number(value)} {part["unit"]}',
      size=9.5, weight='bold',
    )
    answer = part['answers'][c]
    heat_maps.put(
      figure, images[c], left, top - height,
      frame=style.FAINT if answer == nominal else style.WRONG,
    )
    heat_maps.put_answer(
      figure, left, top - height - 0.05, width, _class(document, answer),
      part['certainties'][c], _class(document, nominal),
    )
  for r, method in enumerate(methods):
    found = arrays[f'panel/{method["name"]}'].sum(-1)
    scale = heat_maps.scale_of(found, method['kind'])
    bottom = top - first - r * tall - height
    style.add_text(
      figure, _LEFT, bottom + height / 2 + 0.1,
      style.wrap(method['name'], 17), size=9.5, weight='bold', va='bottom',
    )
    heat_maps.put_scale(
      figure, _LEFT, bottom + height / 2, beside - 0.3, scale
    )
    for c, heat_map in enumerate(found):
      heat_maps.put(
        figure, heat_maps.shade(images[c], heat_map, scale),
        _LEFT + beside + pitch * c, bottom,
      )
  return figure


@style.styled
def plot_paths(
  document: Document, arrays: Arrays, i: int
) -> matplotlib.figure.Figure:
  """Returns which pixels carry the effect of each factor on one image."""
  parts = document['paths']
  width, height = heat_maps.cell(arrays['images'])
  pitch, tall = width + 0.2, height + 0.72
  beside, bars = 1.5, 2.3
  figure = heat_maps.new_figure(
    2 * _LEFT + beside + 4 * pitch + 1.0 + bars, 1.15 + tall * len(parts)
  )
  image = document['images'][i]
  style.add_title(
    figure, f'Which pixels carry the effect of a factor: {image["name"]}',
    f'integral of the gradient of the {document["quantity"]} of '
    f'{_class(document, image["target"])} along the perturbation',
  )
  top = figure.get_size_inches()[1] - 1.0
  lefts = [_LEFT + beside + pitch * c for c in range(4)]
  right = lefts[3] + pitch + 0.95
  for left, head in zip((*lefts, right), (
    'as it is', 'perturbed', 'contributions', 'summed in tiles',
    f'change of the {document["quantity"]}',
  ), strict=True):
    style.add_text(figure, left, top + 0.06, head, size=9.5, weight='bold')
  for r, part in enumerate(parts):
    bottom = top - r * tall - height
    end = heat_maps.number(part['ends'][i])
    style.add_text(
      figure, _LEFT, bottom + height / 2, style.wrap(part['factor'], 16),
      size=9.5, weight='bold', va='bottom',
    )
    style.add_text(
      figure, _LEFT, bottom + height / 2 - 0.05,
      f'{heat_maps.number(part["start"])} to {end} {part["unit"]}', size=8.5,
      va='top', color=style.MUTED,
    )
    shown = arrays[f'paths/{part["factor"]}/images'][i]
    heat_map = arrays[f'paths/{part["factor"]}/values'][i].sum(-1)
    for c in range(2):
      heat_maps.put(figure, shown[c], lefts[c], bottom)
      heat_maps.put_answer(
        figure, lefts[c], bottom - 0.05, width,
        _class(document, part['answers'][i][c]), part['certainties'][i][c],
        _class(document, image['label']),
      )
    for left, numbers in zip(
      lefts[2:], (heat_map, heat_maps.in_tiles(heat_map)), strict=True
    ):
      scale = heat_maps.scale_of(numbers, 'signed')
      pixels = heat_maps.shade(shown.mean(0), numbers, scale)
      heat_maps.put(figure, pixels, left, bottom)
      heat_maps.put_scale(figure, left, bottom - 0.05, width, scale)
    _put_sums(figure, part, i, right, bottom, bars, height)
  return figure


def _put_sums(figure, part, i, left, bottom, width, height):
  """Draws the parts of a change beside each other and the change itself."""
  axes = style.add_axes(figure, left, bottom + 0.15, width - 0.6, height - 0.15)
  rows = (
    ('pixels for', part['positive'][i], style.WRONG),
    ('pixels against', part['negative'][i], style.ALONE),
    ('their sum', part['positive'][i] + part['negative'][i], style.DOUBT_ALONE),
    ('change', part['changes'][i], style.INK),
  )
  values = [value for _, value, _ in rows]
  y = np.arange(len(rows))[::-1]
  axes.barh(y, values, 0.62, color=[color for *_, color in rows])
  axes.axvline(0, color=style.MUTED, lw=0.8)
  axes.set_yticks(y, [name for name, *_ in rows])
  span = max(map(abs, values)) or 1
  axes.set_xlim(
    1.15 * min(min(values), -0.25 * span), 1.15 * max(max(values), 0.25 * span)
  )
  for place, value in zip(y, values, strict=True):
    axes.annotate(
      heat_maps.number(value, plus=True), (max(value, 0), place), (4, 0),
      textcoords='offset points', va='center', size=8, annotation_clip=False,
    )
  error, change = part['completeness_error'][i], part['changes'][i]
  if abs(error) > _CLOSE * abs(change):
    style.add_text(
      figure, left - 0.55, bottom - 0.05,
      f'sum off by {heat_maps.number(error, plus=True)} after '
      f'{part["num_gradients"][i]:,} gradients', size=8, va='top',
      color=style.WRONG_TEXT,
    )
  axes.tick_params(left=False, labelsize=8.5)
  axes.set_xticks([])
  axes.spines[:].set_visible(False)


@style.styled
def plot_indices(
  document: Document, arrays: Arrays
) -> matplotlib.figure.Figure:
  """Returns Sobol indices of where a heat map lies, a row per image."""
  part = document['indices']
  factors, outputs = part['factors'], part['outputs']
  width, height = heat_maps.cell(arrays['images'])
  column, tall = 1.75, max(height, 0.3 * len(factors) + 0.3) + 0.6
  beside = 0.1 + 0.085 * max(map(len, factors))
  start = _LEFT + width + 0.2 + beside
  figure = heat_maps.new_figure(
    start + (column + 0.15) * len(outputs), 1.2 + tall * len(part['images'])
  )
  style.add_title(
    figure,
    f'What moves the explanation: Sobol indices of the {part["method"]} map',
    'dark: alone, light: with interactions, lines: 95 %; grey: not to be '
    'trusted',
  )
  top = figure.get_size_inches()[1] - 1.1
  y = np.arange(len(factors))[::-1]
  for r, found in enumerate(part['images']):
    bottom = top - r * tall - height
    heat_maps.put_image(figure, document, arrays, r, _LEFT, bottom, width)
    for k, output in enumerate(outputs):
      axes = style.add_axes(
        figure, start + (column + 0.15) * k, bottom, column, height - 0.1
      )
      trusted = found['trusted'][k]
      light, dark = (style.TOTAL, style.ALONE) if trusted else (
        style.DOUBT_TOTAL, style.DOUBT_ALONE
      )
      first, total, lower, upper = (
        np.nan_to_num(np.array(found[name], float)[:, k]) for name in
        ('first_order', 'total', 'total_lower', 'total_upper')
      )
      axes.barh(y, total, 0.7, color=light)
      axes.barh(y, first, 0.7, color=dark)
      axes.hlines(y, lower, upper, color=style.INK, lw=1.2)
      axes.set_xlim(0, 1.02)
      axes.set_xticks([0, 0.5, 1], ['0', '0.5', '1'])
      axes.set_yticks(y, factors if not k else [''] * len(factors))
      axes.tick_params(left=False, labelsize=8.5)
      name = f'{output} ({part["units"][k]})' if part['units'][k] else output
      axes.set_title(
        f'{name}\n{heat_maps.number(found["mean"][k])} ± '
        f'{heat_maps.number(found["std"][k])}, Q² '
        f'{heat_maps.number(found["q2"][k])}', size=8.5,
      )
  return figure
