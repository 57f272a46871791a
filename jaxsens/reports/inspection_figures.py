"""Figures of what the layers of a network know; each returns a new Figure.

They draw the parts of a result, see `inspection_page.render`.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from matplotlib import lines
import matplotlib.figure
import numpy as np

from jaxsens.reports import neuron_figures
from jaxsens.reports import population_figures
from jaxsens.reports import style

_WIDTH = 10.0
_MARKERS = 'osD^vPX<>*'


def draw_all(result: Mapping[str, Any]) -> dict[str, bytes]:
  """Returns the PNG files of a result by stem, of the parts that it has."""
  figures = {}
  if result['probes']:
    figures['probes'] = plot_probes(
      result['probes'], result.get('network_accuracy')
    )
  for method in dict.fromkeys(row['method'] for row in result['embeddings']):
    stem = method.replace(' ', '_').lower()
    figures[f'embeddings_{stem}'] = plot_embeddings(
      [row for row in result['embeddings'] if row['method'] == method],
      result['labels'], result['class_names'],
    )
  if result['similarity']:
    figures['similarity'] = plot_similarity(result['similarity'])
  if result['neurons']:
    figures['neurons'] = neuron_figures.plot_neurons(result['neurons'])
    figures['courses'] = neuron_figures.plot_courses(result['neurons'])
  if result['channels']:
    figures['channels'] = neuron_figures.plot_channels(result['channels'])
  if result['weights']:
    figures['weights'] = plot_weights(result['weights'])
  for part in result['regions']:
    if part['examples']:
      figures[f'region_{part["kind"]}'] = neuron_figures.plot_region(part)
  return {stem: style.render_png(figure) for stem, figure in figures.items()}


@style.styled
def plot_probes(
  rows: Sequence[Mapping[str, Any]], network_accuracy: float | None = None
) -> matplotlib.figure.Figure:
  """Returns the accuracy of the probes over the depth, with intervals."""
  figure = style.new_figure(_WIDTH, 3.9)
  first = rows[0]
  style.add_title(
    figure, 'How well a linear probe of each layer tells the classes apart',
    f'fitted on {first["num_train"]} training images, scored on '
    f'{first["num_test"]} held-out images; lines: 95 % over images',
  )
  axes = style.add_axes(figure, 0.75, 0.9, _WIDTH - 2.7, 2.25)
  x = np.arange(len(rows))
  value = lambda name: np.array([row[name] for row in rows])
  axes.plot(x, value('accuracy'), color=style.ALONE, lw=1, alpha=0.5)
  axes.vlines(x, value('lower'), value('upper'), color=style.ALONE, lw=2)
  axes.scatter(x, value('accuracy'), 32, color=style.ALONE, zorder=4)
  axes.scatter(
    x, value('training_accuracy'), 20, facecolor='white',
    edgecolor=style.MUTED, zorder=3,
  )
  axes.axhline(first['majority'], color=style.MUTED, lw=1, ls=(0, (4, 3)))
  axes.set_xlim(-0.4, len(rows) - 0.6)
  low = min(value('lower').min(), first['majority'])
  axes.set_ylim(max(0, low - 0.05), 1.03)
  # Labels beside the axes, apart where the values are not.
  labels = [
    (rows[-1]['accuracy'], 'held-out images', style.ALONE),
    (rows[-1]['training_accuracy'], 'fitted images', style.MUTED),
    (first['majority'], 'commonest class', style.MUTED),
  ]
  if network_accuracy is not None:
    axes.axhline(network_accuracy, color=style.WRONG, lw=1, ls=(0, (1, 2)))
    labels.append((network_accuracy, 'the network', style.WRONG_TEXT))
  _label_ends(axes, labels)
  axes.set_ylabel('accuracy')
  axes.set_xticks(
    x, [style.shorten(row['layer'], 20) for row in rows], rotation=30,
    ha='right', rotation_mode='anchor',
  )
  axes.grid(axis='y')
  axes.set_axisbelow(True)
  return figure


@style.styled
def plot_embeddings(
  rows: Sequence[Mapping[str, Any]],
  labels: Sequence[int],
  class_names: Sequence[str],
) -> matplotlib.figure.Figure:
  """Returns the images as points, a panel per layer, a colour per class."""
  labels = np.asarray(labels)
  columns = min(5, len(rows))
  count = -(-len(rows) // columns)
  side = (_WIDTH - 0.3) / 5
  legend_rows = -(-len(class_names) // 6)
  top = 0.75 + 0.24 * legend_rows
  height = top + count * (side + 0.28) + 0.05
  figure = style.new_figure(_WIDTH, height)
  perplexity = rows[0].get('perplexity')
  extra = '' if perplexity is None else f', perplexity {perplexity:.3g}'
  style.add_title(
    figure, f'The images as each layer sees them: {rows[0]["method"]}',
    f'{len(labels)} held-out images{extra}; above each panel the share that '
    'the 5 nearest points name rightly',
  )
  few = population_figures.few_classes(class_names)
  for i, row in enumerate(rows):
    r, c = divmod(i, columns)
    axes = style.add_axes(
      figure, 0.15 + c * side, height - top - (r + 1) * (side + 0.28) + 0.1,
      side - 0.12, side - 0.12,
    )
    points = np.asarray(row['points'])
    for k in range(len(class_names)):
      chosen = labels == k
      axes.scatter(
        *points[chosen].T, s=9, lw=0, alpha=0.75,
        color=population_figures.class_color(k, class_names),
        marker=_MARKERS[k % len(_MARKERS)] if few else 'o',
      )
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
      spine.set_visible(True)
      spine.set_color(style.FAINT)
    name = style.shorten(row['layer'], 17)
    axes.set_title(f'{name}  {row["neighbour_accuracy"]:.2f}', size=9, pad=3)
  if few:
    handles = [
      lines.Line2D(
        [], [], ls='', marker=_MARKERS[k % len(_MARKERS)], ms=5,
        color=population_figures.class_color(k, class_names),
        label=style.shorten(name, 18),
      ) for k, name in enumerate(class_names)
    ]
    figure.legend(
      handles=handles, ncols=6, loc='upper left', handletextpad=0.1,
      columnspacing=1.2, bbox_to_anchor=(0.005, 1 - 0.6 / height),
    )
  return figure


@style.styled
def plot_similarity(
  parts: Sequence[Mapping[str, Any]],
) -> matplotlib.figure.Figure:
  """Returns matrices of linear CKA, side by side or one below the other."""
  per_row = min(2, len(parts))
  most = max(len(p['columns']) for p in parts)
  cell = min(0.46, (_WIDTH / per_row - 1.15) / most)
  grid = [parts[i : i + per_row] for i in range(0, len(parts), per_row)]
  tall = [
    max(len(p['rows']) for p in row) * cell + 1.2 for row in grid
  ]
  figure = style.new_figure(_WIDTH, 0.75 + sum(tall))
  style.add_title(
    figure, 'How alike the layers see the images: linear CKA',
    '1: the same up to rotation and scale; 0: no more than independent '
    'features',
  )
  top = figure.get_size_inches()[1] - 0.7
  for row, drop in zip(grid, tall, strict=True):
    for c, part in enumerate(row):
      values = np.asarray(part['values'])
      width, height = values.shape[1] * cell, values.shape[0] * cell
      axes = style.add_axes(
        figure, 1.05 + c * (_WIDTH / 2 - 0.05), top - 0.35 - height, width,
        height,
      )
      _draw_matrix(axes, values, part)
    top -= drop
  return figure


@style.styled
def plot_weights(
  rows: Sequence[Mapping[str, Any]],
) -> matplotlib.figure.Figure:
  """Returns mean ± 2 standard deviations and the range of every kernel."""
  chosen = [row for row in rows if len(row['shape']) > 1] or list(rows)
  line = 0.19
  tall = max(line * len(chosen), 0.6)
  figure = style.new_figure(_WIDTH, tall + 1.45)
  style.add_title(
    figure, 'Weights of each layer',
    'left: mean ± 2 standard deviations, thin: least to largest; right: size '
    'of a number (root of the mean square)',
  )
  places = np.arange(len(chosen))[::-1]
  get = lambda name: np.array([row[name] for row in chosen])
  left = style.add_axes(figure, 2.6, 0.55, 4.6, tall)
  left.hlines(
    places, get('minimum'), get('maximum'), color=style.TOTAL, lw=1
  )
  left.hlines(
    places, get('mean') - 2 * get('std'), get('mean') + 2 * get('std'),
    color=style.ALONE, lw=3,
  )
  left.scatter(get('mean'), places, 14, color='white', edgecolor=style.ALONE,
               zorder=4)
  left.axvline(0, color=style.MUTED, lw=0.8, zorder=0)
  left.set_yticks(
    places, [style.shorten(row['name'], 34) for row in chosen], size=7.5
  )
  left.set_xlabel('weight')
  right = style.add_axes(figure, 7.5, 0.55, 2.3, tall)
  sizes = [float(np.prod(row['shape'])) for row in chosen]
  right.barh(places, get('norm') / np.sqrt(sizes), 0.7, color=style.TOTAL)
  right.set_yticks([])
  right.set_xlabel('root of the mean square')
  for axes in (left, right):
    axes.set_ylim(-0.7, len(chosen) - 0.3)
    axes.grid(axis='x')
    axes.set_axisbelow(True)
  return figure


def _draw_matrix(axes, values, part):
  axes.imshow(values, cmap=style.SEQUENTIAL, vmin=0, vmax=1, aspect='auto')
  for (i, j), value in np.ndenumerate(values):
    axes.text(
      j, i, f'{value:.2f}'.replace('-', '−').replace('0.', '.'), ha='center',
      va='center', size=7, color='white' if value > 0.55 else style.INK,
    )
  for set_ticks, names, turned in (
    (axes.set_xticks, part['columns'], dict(
      rotation=35, ha='right', rotation_mode='anchor'
    )), (axes.set_yticks, part['rows'], {}),
  ):
    set_ticks(
      range(len(names)), [style.shorten(name, 14) for name in names], size=8,
      **turned,
    )
  axes.tick_params(length=0)
  for spine in axes.spines.values():
    spine.set_visible(False)
  axes.set_title(style.shorten(part['title'], 52), size=9.5)


def _label_ends(axes, labels):
  """Writes labels to the right of the axes, at their values but apart."""
  low, high = axes.get_ylim()
  least = 0.09 * (high - low)
  labels = sorted(labels, key=lambda label: -label[0])
  places, last = [], np.inf
  for value, _, _ in labels:
    last = min(value, last - least)
    places.append(last)
  if places[-1] < low:  # pushed out below
    places = [place + low - places[-1] for place in places]
  for place, (value, text, color) in zip(places, labels, strict=True):
    axes.annotate(
      f'{text} {value:.3f}', (1, place), xycoords=('axes fraction', 'data'),
      xytext=(6, 0), textcoords='offset points', va='center', size=8.5,
      color=color, annotation_clip=False,
    )
