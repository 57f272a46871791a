"""Figures of which pixels speak for an answer; each returns a new Figure.

They draw a document and its arrays, see `attribution_page.render`; nothing is
computed but colours and their limits.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import matplotlib.figure
import numpy as np

from jaxsens.reports import belief_figures
from jaxsens.reports import factor_attribution_figures
from jaxsens.reports import heat_maps
from jaxsens.reports import style

_METHODS = 8  # columns of a figure
_ROWS = 6  # images of a figure
_CLASSES = 10
_LEFT, _GAP = 0.15, 0.12
_PARTS = (
  ('signed', lambda x: x), ('for the class', lambda x: np.maximum(x, 0)),
  ('against the class', lambda x: np.minimum(x, 0)), ('size', np.abs),
)

Document = Mapping[str, Any]
Arrays = Mapping[str, np.ndarray]

_class = heat_maps.class_name


def draw_all(document: Document, arrays: Arrays) -> dict[str, bytes]:
  """Returns the PNG files of a document by stem, of the parts that it has."""
  figures = {}
  number = len(document['images'])
  methods = document['methods']
  for j in range(0, len(methods), _METHODS):
    for i in range(0, number, _ROWS):
      stem = _numbered('heat_maps', len(figures))
      figures[stem] = plot_heat_maps(
        document, arrays, range(i, min(i + _ROWS, number)),
        methods[j:j + _METHODS],
      )
  figures['parts'] = plot_parts(document, arrays, 0)
  if document['classes']:
    for n, i in enumerate(range(0, number, _ROWS)):
      figures[_numbered('classes', n)] = plot_classes(
        document, arrays, range(i, min(i + _ROWS, number))
      )
  if document['panel']:
    figures['factor'] = factor_attribution_figures.plot_panel(document, arrays)
  if document['paths']:
    for i in range(number):
      figures[_numbered('paths', i)] = factor_attribution_figures.plot_paths(
        document, arrays, i
      )
  if document['randomised']:
    for n, i in enumerate(range(0, number, _ROWS // 2)):
      figures[_numbered('randomised', n)] = plot_randomised(
        document, arrays, range(i, min(i + _ROWS // 2, number))
      )
  if document['belief']:
    figures['belief'] = belief_figures.plot_belief(document)
  if document['indices']:
    figures['indices'] = factor_attribution_figures.plot_indices(
      document, arrays
    )
  if document['annotate']:
    for i in range(number):
      figures[f'annotated_{i:05d}'] = plot_annotated(document, arrays, i)
  return {
    stem: style.render_png(figure) for stem, figure in figures.items()
    if figure is not None
  }


@style.styled
def plot_heat_maps(
  document: Document,
  arrays: Arrays,
  rows: Sequence[int],
  methods: Sequence[Mapping[str, Any]],
) -> matplotlib.figure.Figure:
  """Returns a row per image: the image, and a heat map of every method."""
  width, height = heat_maps.cell(arrays['images'])
  pitch, tall = width + _GAP, height + 0.66
  figure = heat_maps.new_figure(
    max(9.0, 2 * _LEFT + pitch * (1 + len(methods)) - _GAP),
    1.05 + tall * len(rows),
  )
  style.add_title(
    figure, f'Which pixels speak for the answer ({document["quantity"]} of the '
    'class)', 'blue: against, vermilion: for; purple: no sign; colours end at '
    'the 99th percentile of |values|'
    + ('; outlined: defect' if 'masks' in arrays else ''),
  )
  top = figure.get_size_inches()[1] - 0.98
  _put_heads(figure, methods, top, pitch)
  for r, i in enumerate(rows):
    bottom = top - r * tall - height
    heat_maps.put_image(figure, document, arrays, i, _LEFT, bottom, width)
    for j, method in enumerate(methods):
      _put_map(
        figure, arrays, method, f'values/{method["name"]}', i,
        _LEFT + pitch * (j + 1), bottom, width,
      )
  return figure


@style.styled
def plot_parts(
  document: Document, arrays: Arrays, i: int
) -> matplotlib.figure.Figure | None:
  """Returns what speaks for and what against the class of one image.

  None where no method has signs.
  """
  methods = [m for m in document['methods'] if m['kind'] == 'signed'][:_METHODS]
  if not methods:
    return None
  width, height = heat_maps.cell(arrays['images'])
  pitch, tall = width + _GAP, height + 0.32
  figure = heat_maps.new_figure(
    max(9.0, 2 * _LEFT + pitch * (1 + len(methods)) - _GAP),
    1.05 + tall * len(_PARTS) + 0.1,
  )
  image = document['images'][i]
  style.add_title(
    figure, f'For and against {_class(document, image["target"])}: '
    f'{image["name"]}',
    'each column on one scale, the 99th percentile of |map|',
  )
  top = figure.get_size_inches()[1] - 0.98
  _put_heads(figure, methods, top, pitch)
  heat_maps.put_image(figure, document, arrays, i, _LEFT, top - height, width)
  for r, (name, part) in enumerate(_PARTS):
    bottom = top - r * tall - height
    if r:
      style.add_text(
        figure, _LEFT + width, bottom + height / 2, name, ha='right',
        va='center', weight='bold',
      )
    for j, method in enumerate(methods):
      heat_map = arrays[f'values/{method["name"]}'][i].sum(-1)
      scale = heat_maps.scale_of(
        heat_map, 'unsigned' if name == 'size' else 'signed'
      )
      left = _LEFT + pitch * (j + 1)
      heat_maps.put(
        figure, heat_maps.shade(
          arrays['images'][i], part(heat_map), scale
        ), left, bottom, mask=_mask(arrays, i),
      )
      heat_maps.put_scale(figure, left, bottom - 0.03, width, scale)
  return figure


@style.styled
def plot_classes(
  document: Document, arrays: Arrays, rows: Sequence[int]
) -> matplotlib.figure.Figure:
  """Returns the activation maps of the classes, a row per image."""
  part = document['classes']
  width, height = heat_maps.cell(arrays['images'])
  pitch, tall = width + _GAP, height + 0.55
  figure = heat_maps.new_figure(
    max(9.0, 2 * _LEFT + pitch * (1 + len(part['classes'])) - _GAP),
    1.05 + tall * len(rows),
  )
  style.add_title(
    figure, f'Where the network sees each class: Grad-CAM of {part["layer"]}',
    'each row on one scale (99th percentile); framed: the answer; below: '
    'certainty',
  )
  top = figure.get_size_inches()[1] - 0.98
  _put_heads(
    figure, [{'name': _class(document, k)} for k in part['classes']], top, pitch
  )
  for r, i in enumerate(rows):
    bottom = top - r * tall - height
    heat_maps.put_image(figure, document, arrays, i, _LEFT, bottom, width)
    scale = heat_maps.scale_of(arrays['classes'][i], 'unsigned')
    for j, k in enumerate(part['classes']):
      left = _LEFT + pitch * (j + 1)
      heat_maps.put(
        figure, heat_maps.shade(
          arrays['images'][i], arrays['classes'][i, j], scale
        ), left, bottom, mask=_mask(arrays, i),
        frame=style.ALONE if k == document['images'][i]['answer']
        else style.FAINT,
      )
      heat_maps.put_notes(
        figure, left, bottom - 0.3, [f'{part["certainties"][i][j]:.2f}'], 8.5
      )
      heat_maps.put_scale(figure, left, bottom - 0.04, width, scale)
  return figure


@style.styled
def plot_randomised(
  document: Document, arrays: Arrays, rows: Sequence[int]
) -> matplotlib.figure.Figure:
  """Returns the maps of the network and of one that has learned nothing."""
  methods = document['randomised'][:_METHODS]
  width, height = heat_maps.cell(arrays['images'])
  pitch, tall = width + _GAP, height + 0.32
  figure = heat_maps.new_figure(
    max(9.0, 2 * _LEFT + pitch * (1 + len(methods)) - _GAP),
    1.05 + (2 * tall + 0.35) * len(rows),
  )
  style.add_title(
    figure, 'Do the maps know what the network has learned?',
    'upper rows: the trained network, lower rows: its parameters permuted; ρ: '
    'rank correlation of the two maps’ sizes, near 1 where the map shows the '
    'image only',
  )
  top = figure.get_size_inches()[1] - 0.98
  _put_heads(figure, methods, top, pitch)
  own = {method['name']: method for method in document['methods']}
  for r, i in enumerate(rows):
    above = top - r * (2 * tall + 0.35)
    heat_maps.put_image(
      figure, document, arrays, i, _LEFT, above - height, width
    )
    style.add_text(
      figure, _LEFT + width, above - tall - height / 2, 'permuted', ha='right',
      va='center', weight='bold',
    )
    for j, method in enumerate(methods):
      left = _LEFT + pitch * (j + 1)
      for k, (folder, entry) in enumerate((
        ('values', own[method['name']]), ('randomised', method)
      )):
        bottom = above - k * tall - height
        heat_map = arrays[f'{folder}/{method["name"]}'][i].sum(-1)
        scale = heat_maps.scale_of(heat_map, entry['kind'])
        heat_maps.put(figure, heat_maps.shade(
          arrays['images'][i], heat_map, scale
        ), left, bottom, mask=_mask(arrays, i))
        heat_maps.put_scale(
          figure, left, bottom - 0.03, width, scale
        )
      value = method['absolute_spearman'][i]
      text = 'ρ does not exist' if value is None else f'ρ = {value:.2f}'
      heat_maps.put_notes(
        figure, left, bottom - 0.27, [text.replace('-', '−')], 8.5
      )
  return figure


@style.styled
def plot_annotated(
  document: Document, arrays: Arrays, i: int
) -> matplotlib.figure.Figure:
  """Returns one image and its first heat map, large."""
  side = 2 * heat_maps.SIDE
  width, height = heat_maps.cell(arrays['images'], side)
  figure = heat_maps.new_figure(2 * width + 0.5, height + 1.45)
  image, method = document['images'][i], document['methods'][0]
  style.add_title(
    figure, f'{_class(document, image["answer"])}: {image["name"]}',
    f'{method["name"]}, {document["quantity"]} of '
    f'{_class(document, image["target"])}',
  )
  bottom, left = 0.6, _LEFT + width + 0.2
  heat_maps.put(figure, arrays['images'][i], _LEFT, bottom, side=side)
  heat_maps.put_answer(
    figure, _LEFT, bottom - 0.06, width, _class(document, image['answer']),
    image['certainty'], _class(document, image['label']),
  )
  heat_map = arrays[f'values/{method["name"]}'][i].sum(-1)
  scale = heat_maps.scale_of(heat_map, method['kind'])
  heat_maps.put(figure, heat_maps.shade(
    arrays['images'][i], heat_map, scale
  ), left, bottom, mask=_mask(arrays, i), side=side)
  heat_maps.put_scale(
    figure, left, bottom - 0.06, width, scale
  )
  return figure


def _put_map(figure, arrays, method, key, i, left, bottom, width):
  """Puts a heat map with the bar of its colours and what is known of it."""
  heat_map = arrays[key][i].sum(-1)
  scale = heat_maps.scale_of(heat_map, method['kind'])
  heat_maps.put(
    figure, heat_maps.shade(
      arrays['images'][i], heat_map, scale
    ), left, bottom, mask=_mask(arrays, i),
  )
  heat_maps.put_scale(
    figure, left, bottom - 0.05, width, scale
  )
  error, share = method['completeness_error'][i], method['relative_error'][i]
  text = f'sum off by {heat_maps.number(error, plus=True)}'
  if not method['complete']:
    text = 'promises no sum'
  elif share is not None and share < 1e-4:
    text = 'sum exact to 0.01 %'
  elif share is not None and share < 10:
    text += f' ({100 * share:.{0 if share >= 0.1 else 1}f} %)'
  heat_maps.put_notes(
    figure, left, bottom - 0.29, [text, _cost(method, i)]
  )


def _cost(method, i) -> str:
  """Returns what a map took, in words."""
  words = []
  for field, one, many in (
    ('num_gradients', 'gradient', 'gradients'),
    ('num_forwards', 'pass', 'passes'),
  ):
    number = method[field][i]
    if number:
      words.append(f'{number:,} {one if number == 1 else many}')
  return ', '.join(words)


def _put_heads(figure, methods, top, pitch):
  """Puts the names of columns above them, behind that of the images."""
  for j, method in enumerate(methods):
    style.add_text(
      figure, _LEFT + pitch * (j + 1), top + 0.08,
      style.wrap(method['name'], max(12, int(pitch * 12))), size=9.5,
      weight='bold', va='baseline', linespacing=1.0,
    )


def _mask(arrays, i):
  return arrays['masks'][i] if 'masks' in arrays else None


def _numbered(stem, n) -> str:
  return stem if not n else f'{stem}_{n + 1}'
