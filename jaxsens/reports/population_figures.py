"""Figures of a whole data set; each `plot_*` returns a new Figure.

One colour per class here, light grey where there are more classes than
colours; a hollow mark is an image whose indices are not to be trusted,
vermilion a wrong answer.
"""

from collections.abc import Sequence
import math

from matplotlib import lines
import matplotlib.figure
import numpy as np

from jaxsens.reports import population_results
from jaxsens.reports import sentences
from jaxsens.reports import style

# Okabe and Ito's palette less the colour of a wrong answer, then Tol's muted.
_CLASS_COLORS = (
  '#0072b2', '#e69f00', '#009e73', '#cc79a7', '#56b4e9', '#332288', '#999933',
  '#882255', '#44aa99', '#66707a',
)
_TITLES = {'total': 'with interactions', 'first_order': 'alone'}
# Thumbnails of the fragility figure: columns, and rows of the most fragile.
_COLUMNS, _ROWS = 6, 2


def class_color(label: int, class_names: Sequence[str]) -> str:
  """Returns the colour of a class, grey where colours do not suffice."""
  return _CLASS_COLORS[label] if few_classes(class_names) else style.MUTED


def few_classes(class_names: Sequence[str]) -> bool:
  """Returns whether there is a colour for each class."""
  return len(class_names) <= len(_CLASS_COLORS)


@style.styled
def plot_distributions(
  study: population_results.PopulationStudy,
) -> matplotlib.figure.Figure:
  """Returns how the indices of each factor spread over the images.

  Args:
    study: The results.

  Returns:
    A figure with one block of rows per factor: a box (5, 25, 50, 75, 95 %)
    over all images, then a lane of marks per class with its median; total
    indices at the left, first-order indices at the right.
  """
  population = study.population
  lanes = _lanes(population)
  block = 0.34 + 0.17 * len(lanes) + 0.12
  num_factors = len(population.factor_names)
  height = block * num_factors
  handles = _strip_handles(population, lanes)
  legend = 0.2 * math.ceil(len(handles) / 4)
  figure = style.new_figure(9.6, height + 1.2 + legend)
  num_undefined = len(study.distribution.undefined_names[study.output])
  subtitle = f'{population.num_images} images'
  if num_undefined:
    subtitle += f', {num_undefined} of them without indices (no variance)'
  name = population.output_names[study.output]
  style.add_title(figure, f'What moves {name}, image by image', subtitle)
  for i, index in enumerate(('total', 'first_order')):
    axes = style.add_axes(figure, 1.35 + 4.15 * i, 0.5, 3.85, height)
    _draw_strips(axes, study, index, lanes, block)
    axes.set_xlabel(f'share of the variance {_TITLES[index]}')
    if i == 0:
      axes.set_yticks(
        [block * (d + 0.5) for d in range(num_factors)],
        [style.shorten(name, 13) for name in population.factor_names],
      )
      axes.tick_params('y', labelcolor=style.INK, labelsize=10.5)
    else:
      axes.set_yticks([])
  figure.legend(
    handles=handles, ncols=4, loc='lower left',
    bbox_to_anchor=(1.3 / 9.6, (height + 0.56) / (height + 1.2 + legend)),
    handletextpad=0.3, columnspacing=1.2, borderpad=0, borderaxespad=0,
  )
  return figure


@style.styled
def plot_class_totals(
  study: population_results.PopulationStudy,
) -> matplotlib.figure.Figure:
  """Returns the mean total index of every class and factor with its interval.

  Args:
    study: The results.

  Returns:
    A figure with a heat map, classes by factors, all images on top.
  """
  aggregates, k = study.aggregates, study.output
  totals = aggregates.mean_total
  value = totals.value[:, :, k]
  rows, columns = value.shape
  figure = style.new_figure(max(2.9 + 1.5 * columns, 6.4), 0.5 * rows + 1.2)
  name = study.population.output_names[k]
  style.add_title(
    figure, 'Which factor moves which class',
    f'mean share of Var {name} with interactions, 95 % interval',
  )
  axes = style.add_axes(figure, 2.7, 0.15, 1.5 * columns, 0.5 * rows)
  axes.imshow(np.ma.masked_invalid(value), cmap=style.SEQUENTIAL, vmin=0,
              vmax=1.15, aspect='auto')
  for i, j in np.ndindex(rows, columns):
    text = sentences.format_share(value[i, j]).replace('undefined', '–')
    interval = sentences.format_interval(
      totals.lower[i, j, k], totals.upper[i, j, k]
    ).strip()
    color = 'white' if value[i, j] > 0.7 else style.INK
    axes.text(j, i, f'{text}\n{interval}' if interval else text, ha='center',
              va='center', color=color, size=9, linespacing=1.2)
  axes.axhline(0.5, color='white', lw=4)
  axes.set_yticks(range(rows), [
    f'{style.shorten(group, 24)} ({number})' for group, number in zip(
      aggregates.group_names, aggregates.num_defined[:, k], strict=True
    )
  ])  # fmt: skip
  axes.get_yticklabels()[0].set_weight('bold')
  names = [style.shorten(n, 16) for n in study.population.factor_names]
  axes.set_xticks(range(columns), names)
  axes.xaxis.tick_top()
  axes.tick_params(length=0, labelcolor=style.INK, labelsize=10)
  axes.spines[:].set_visible(False)
  return figure


@style.styled
def plot_fragility(
  study: population_results.PopulationStudy,
) -> matplotlib.figure.Figure:
  """Returns the most and the least fragile images and what breaks them.

  Images that are wrong already unperturbed are counted, not shown, unless
  there is no other.

  Args:
    study: The results, with thumbnails.

  Returns:
    A figure of thumbnails, each with its failure probability and its leading
    factor.
  """
  shown = study.fragility.order
  known = np.isfinite(study.population.failure_probability[shown])
  shown = shown[known]
  right = shown[study.population.correct[shown]]
  num_wrong = len(shown) - len(right)
  subtitle = 'probability of a wrong class, leading factor (~: in doubt)'
  if num_wrong and len(right):
    subtitle += f'; {num_wrong} wrong unperturbed, not shown'
  shown = right if len(right) else shown
  most = shown[: _COLUMNS * _ROWS]
  least = shown[len(most):][-_COLUMNS:][::-1]
  blocks = [('Most fragile', most)]
  blocks += [('Least fragile', least)] if len(least) else []
  cell, pitch = 1.22, 1.95
  rows = [math.ceil(len(block) / _COLUMNS) for _, block in blocks]
  height = 0.7 + sum(0.32 + pitch * n for n in rows)
  figure = style.new_figure(1.55 * _COLUMNS + 0.3, height)
  style.add_title(figure, 'Which images the factors break', subtitle)
  top = height - 0.7
  for (title, block), num_rows in zip(blocks, rows, strict=True):
    style.add_text(figure, 0.15, top - 0.05, title, va='top', size=11,
                   weight='bold')
    for j, i in enumerate(block):
      axes = style.add_axes(
        figure, 0.15 + 1.55 * (j % _COLUMNS),
        top - 0.32 - pitch * (j // _COLUMNS) - cell, cell, cell,
      )
      _draw_thumbnail(axes, study, i)
    top -= 0.32 + pitch * num_rows
  return figure


@style.styled
def _lanes(population):
  """Returns the labels of each lane of the strips: one class, or all."""
  present = np.unique(population.labels).tolist()
  if not few_classes(population.class_names):
    return [present]
  return [[label] for label in present]


def _draw_strips(axes, study, index, lanes, block):
  population, k = study.population, study.output
  values = getattr(population, index)[:, :, k]
  quantiles = getattr(study.distribution, index)[0, :, :, k]
  for d in range(len(population.factor_names)):
    if d % 2 == 0:
      axes.axhspan(block * d, block * (d + 1), color='#f5f7f9', lw=0)
    _draw_box(axes, quantiles[:, d], block * d + 0.2)
    for i, labels in enumerate(lanes):
      inside = np.flatnonzero(np.isin(population.labels, labels))
      inside = inside[np.isfinite(values[inside, d])]
      color = class_color(labels[0], population.class_names)
      center = block * d + 0.34 + 0.17 * (i + 0.5)
      # Golden-ratio steps spread neighbours without a random draw.
      shift = 0.12 * ((np.arange(len(inside)) * 0.618034) % 1 - 0.5)
      trusted = np.asarray(population.trusted, bool)[inside]
      x, y = values[inside, d], center + shift
      axes.scatter(x[trusted], y[trusted], s=9, color=color, alpha=0.75, lw=0)
      axes.scatter(x[~trusted], y[~trusted], s=10, facecolor='none',
                   edgecolor=color, lw=0.7)
      if len(inside):
        axes.vlines(np.median(x), center - 0.08, center + 0.08, lw=1.6,
                    color=style.INK)
  axes.set_xlim(-0.02, 1.02)
  axes.set_ylim(block * len(population.factor_names), 0)
  axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ['0', '', '50 %', '', '100 %'])
  axes.grid(axis='x', color=style.FAINT, lw=0.6)
  axes.set_axisbelow(True)
  axes.spines[['left', 'bottom']].set_visible(False)
  axes.tick_params(length=0)


def _draw_box(axes, quantiles, y):
  if not np.isfinite(quantiles).all():
    return
  low, lower, median, upper, high = quantiles
  axes.hlines(y, low, high, color=style.INK, lw=1)
  axes.barh(y, upper - lower, 0.16, left=lower, color='white',
            edgecolor=style.INK, lw=1, zorder=3)
  axes.vlines(median, y - 0.08, y + 0.08, color=style.INK, lw=2.2, zorder=4)


def _strip_handles(population, lanes):
  handles = [
    lines.Line2D([], [], ls='', marker='o', ms=5, mec='none',
                 color=class_color(labels[0], population.class_names),
                 label=style.shorten(population.class_names[labels[0]], 22)
                 if len(labels) == 1 else 'one image')
    for labels in lanes
  ]
  if not np.all(population.trusted):
    handles.append(lines.Line2D(
      [], [], ls='', marker='o', ms=5, mfc='none', mec=style.MUTED,
      label='not to be trusted',
    ))
  return handles


def _draw_thumbnail(axes, study, i):
  population = study.population
  wrong = not population.correct[i]
  axes.imshow(style.thumbnail(study.thumbnails[i], 170), aspect='auto')
  axes.set(xticks=[], yticks=[])
  for spine in axes.spines.values():
    spine.set(visible=True, color=style.WRONG if wrong else style.FAINT,
              linewidth=3 if wrong else 1)
  failure = sentences.format_share(population.failure_probability[i])
  label = population.class_names[population.labels[i]]
  axes.text(0, -0.06, f'fails {failure}', transform=axes.transAxes, va='top',
            size=10, weight='bold')
  for j, text in enumerate((
    style.shorten(label, 19), leading_text(study, i),
    style.shorten(population.image_names[i], 22),
  )):
    axes.text(0, -0.21 - 0.125 * j, text, transform=axes.transAxes, va='top',
              size=8.5, color=style.MUTED if j == 2 else style.INK)


def leading_text(study: population_results.PopulationStudy, i: int) -> str:
  """Returns the leading factor of an image and its total index."""
  lead = study.fragility.leading_factor[i]
  if lead < 0:
    return 'no variance'
  share = study.population.total[i, lead, study.output]
  name = style.shorten(study.population.factor_names[lead], 13)
  doubt = '~ ' if study.fragility.tied[i] else ''
  return f'{doubt}{name} {sentences.format_share(share)}'
