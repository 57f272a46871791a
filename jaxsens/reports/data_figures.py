"""Figures of a data set: what is in it and how its classes look."""

import matplotlib.figure
import numpy as np

from jaxsens.reports import data_results
from jaxsens.reports import style

_WIDTH = 10.0
_NAME = 1.6
_CHANNELS = {
  'gray': style.INK, 'red': '#c43c2b', 'green': '#2a8a4a', 'blue': '#2f62c4'
}
_PARTS = (style.ALONE, style.TOTAL, style.DOUBT_ALONE)


def draw_all(result: data_results.DataResult) -> dict[str, bytes]:
  """Returns the PNG files of a data set by stem."""
  figures = {
    'counts': plot_counts(result),
    'examples': plot_examples(result),
    'mean_images': plot_mean_images(result),
    'histograms': plot_histograms(result),
    'components': plot_components(result),
  }
  if result.pictured:
    figures['pairs'] = plot_pairs(result)
  return {stem: style.render_png(figure) for stem, figure in figures.items()}


@style.styled
def plot_counts(result: data_results.DataResult) -> matplotlib.figure.Figure:
  """Returns bars of the images of each class, the parts end to end."""
  row, top, bottom = 0.3, 0.95, 0.45
  height = top + row * len(result.class_names) + bottom
  figure = style.new_figure(_WIDTH, height)
  style.add_title(
    figure, 'Images of each class',
    f'{result.counts.sum()} images in {len(result.class_names)} classes',
  )
  axes = style.add_axes(
    figure, 1.9, bottom, _WIDTH - 2.6, row * len(result.class_names)
  )
  places = np.arange(len(result.class_names))
  left = np.zeros(len(places))
  for part, counts, colour in zip(
    result.parts, result.counts, _PARTS, strict=True
  ):
    axes.barh(
      places, counts, 0.7, left=left, color=colour,
      label=f'{part} {counts.sum()}',
    )
    left = left + counts
  for place, total in zip(places, left, strict=True):
    axes.text(total, place, f' {total:.0f}', va='center', size=8.5,
              color=style.MUTED)
  axes.set_yticks(places, [style.shorten(n, 26) for n in result.class_names])
  axes.set_ylim(len(places) - 0.5, -0.5)
  axes.set_xlim(0, 1.08 * max(left.max(initial=0), 1))
  axes.set_xlabel('images')
  figure.legend(
    *axes.get_legend_handles_labels(), ncols=3, loc='upper left',
    bbox_to_anchor=(0.005, 1 - 0.58 / height),
  )
  return figure


@style.styled
def plot_examples(result: data_results.DataResult) -> matplotlib.figure.Figure:
  """Returns a row of images per class, each in its own aspect."""
  columns = max((len(row) for row in result.examples), default=1) or 1
  tall = max(
    (min(im.shape[0] / im.shape[1], 1.5) for row in result.examples
     for im in row), default=1.0,
  )
  if tall < 0.4:  # strips of sheet would be too small to see
    columns = min(columns, 3)
  cell = (_WIDTH - _NAME - 0.2) / columns
  step = cell * tall + 0.06
  height = 0.75 + step * len(result.examples)
  figure = style.new_figure(_WIDTH, height)
  style.add_title(
    figure, 'Some images of each class',
    'drawn at random from all parts, shown as they are',
  )
  for r, (name, row) in enumerate(
    zip(result.class_names, result.examples, strict=True)
  ):
    bottom = height - 0.7 - (r + 1) * step
    _row_name(figure, bottom + step / 2, name,
              '' if len(row) else 'no image')
    for c, image in enumerate(row[:columns]):
      axes = style.add_axes(
        figure, _NAME + c * cell, bottom, cell - 0.05, cell * tall
      )
      _show(axes, style.thumbnail(image, round(1.2 * style.DPI * cell * tall)))
  return figure


@style.styled
def plot_mean_images(
  result: data_results.DataResult
) -> matplotlib.figure.Figure:
  """Returns the mean image of each class; a bias of the camera shows here."""
  columns = min(len(result.class_names), 6)
  rows = -(-len(result.class_names) // columns)
  cell = min((_WIDTH - 0.2) / columns, 1.75)
  step = cell + 0.15
  height = 0.68 + rows * step
  figure = style.new_figure(_WIDTH, height)
  style.add_title(
    figure, 'Mean image of each class',
    'at a common size, levels as they are: light and vignetting of the class',
  )
  for i, (name, image) in enumerate(
    zip(result.class_names, result.mean_images, strict=True)
  ):
    r, c = divmod(i, columns)
    bottom = height - 0.65 - (r + 1) * step
    axes = style.add_axes(
      figure, 0.15 + c * cell, bottom + 0.02, cell - 0.1, cell - 0.1
    )
    axes.set_title(style.shorten(name, 22), size=8.5, pad=2)
    if np.isnan(image).any():
      axes.set_axis_off()
      axes.text(0.5, 0.5, 'no image', ha='center', va='center',
                color=style.MUTED, transform=axes.transAxes)
    else:
      _show(axes, style.thumbnail(image, len(image)), interpolation='nearest')
  return figure


@style.styled
def plot_histograms(
  result: data_results.DataResult
) -> matplotlib.figure.Figure:
  """Returns the share of pixels at each level, all classes and each."""
  names = ('all classes', *result.class_names)
  counts = np.concatenate([
    result.histograms.sum(0, keepdims=True), result.histograms
  ])
  totals = np.maximum(counts.sum(-1, keepdims=True), 1)
  # 64 bins of four levels: single levels are combs after JPEG.
  density = (counts / totals).reshape(*counts.shape[:-1], 64, 4).sum(-1)
  density = 64 * density
  # Peaks at the ends, from saturation, would flatten all the rest.
  ceiling = 1.15 * max(density[..., 1:-1].max(initial=0), 0.1)
  figure, panels = _panels(
    len(names), 'Levels of the pixels',
    'probability density over 64 bins of [0, 1]; '
    f'cut at {ceiling:.2g}, bars at the ends are saturated pixels',
  )
  levels = (np.arange(64) + 0.5) / 64
  for axes, name, row in zip(panels, names, density, strict=True):
    for channel, curve in zip(result.channel_names, row, strict=True):
      axes.plot(levels, curve, color=_CHANNELS[channel], lw=1.1)
      axes.fill_between(levels, curve, color=_CHANNELS[channel], alpha=0.12,
                        lw=0)
    axes.set_title(style.shorten(name, 24), size=9)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, ceiling)
    axes.set_yticks([])
    axes.set_xticks([0, 0.5, 1], ['0', '0.5', '1'])
  return figure


@style.styled
def plot_components(
  result: data_results.DataResult
) -> matplotlib.figure.Figure:
  """Returns the images in two principal directions, class by class."""
  shares = ' and '.join(f'{100 * share:.0f} %' for share in result.shares)
  figure, panels = _panels(
    len(result.class_names), 'Principal components of the thumbnails',
    f'first against second, {shares} of the variance; one class (blue) among '
    'all (grey)', aspect=0.85,
  )
  low, high = (
    (result.scores.min(0), result.scores.max(0)) if len(result.scores)
    else (np.zeros(2), np.zeros(2))
  )
  margin = 0.05 * (high - low) + 1e-9
  size = 2.0 if len(result.scores) > 2000 else 6.0
  for k, (axes, name) in enumerate(
    zip(panels, result.class_names, strict=True)
  ):
    inside = result.labels == k
    axes.scatter(*result.scores[~inside].T, s=size, color=style.FAINT, lw=0,
                 rasterized=True)
    axes.scatter(*result.scores[inside].T, s=size, color=style.ALONE, lw=0,
                 alpha=0.7, rasterized=True)
    axes.set_title(style.shorten(name, 24), size=9)
    axes.set_xlim(low[0] - margin[0], high[0] + margin[0])
    axes.set_ylim(low[1] - margin[1], high[1] + margin[1])
    axes.tick_params(labelsize=7)
  return figure


@style.styled
def plot_pairs(result: data_results.DataResult) -> matplotlib.figure.Figure:
  """Returns the closest pairs side by side."""
  columns = 3
  rows = -(-len(result.pictured) // columns)
  cell = (_WIDTH - 0.2) / columns
  size = (cell - 0.25) / 2
  tall = size * max(
    min(image.shape[0] / image.shape[1], 1.2)
    for _, *pair in result.pictured for image in pair
  )
  step = tall + 0.52
  height = 0.75 + rows * step
  figure = style.new_figure(_WIDTH, height)
  style.add_title(
    figure, 'The closest pairs',
    'equal or nearly equal images, first those of different parts; '
    'orange: different parts or classes',
  )
  for i, (pair, *pictures) in enumerate(result.pictured):
    r, c = divmod(i, columns)
    left, bottom = 0.1 + c * cell, height - 0.7 - (r + 1) * step
    for j, picture in enumerate(pictures):
      axes = style.add_axes(
        figure, left + j * (size + 0.05), bottom + 0.42, size, tall
      )
      _show(axes, style.thumbnail(picture, round(1.5 * style.DPI * tall)))
    bad = pair.across or pair.classes[0] != pair.classes[1]
    names = '\n'.join(style.shorten(name, 46) for name in pair.names)
    label = 'equal' if pair.correlation >= 1 else f'{pair.correlation:.3f}'
    style.add_text(
      figure, left, bottom + 0.39, f'{names}\n{label}', size=6.8, va='top',
      color=style.WRONG_TEXT if bad else style.MUTED,
    )
  return figure


def _panels(number, title, subtitle, aspect=0.62):
  columns = min(number, 4)
  rows = -(-number // columns)
  cell = min((_WIDTH - 0.3) / columns, 3.2)
  tall = aspect * cell
  height = 0.8 + rows * (tall + 0.5)
  figure = style.new_figure(_WIDTH, height)
  style.add_title(figure, title, subtitle)
  panels = [
    style.add_axes(
      figure, 0.4 + (i % columns) * cell,
      height - 0.75 - (i // columns + 1) * (tall + 0.5) + 0.28,
      cell - 0.4, tall,
    )
    for i in range(number)
  ]
  return figure, panels


def _row_name(figure, y, name, note):
  text = style.shorten(name, 22) + (f'\n{note}' if note else '')
  style.add_text(figure, 0.15, y, text, va='center', size=9)


def _show(axes, picture, **options):
  axes.imshow(picture, aspect='equal', **options)
  axes.set_axis_off()
