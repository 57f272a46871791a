"""Figure of the accuracy of a data set: along each factor, and its indices."""

import math

from matplotlib import lines
import matplotlib.figure
import numpy as np

from jaxsens.reports import figures
from jaxsens.reports import population_figures
from jaxsens.reports import population_results
from jaxsens.reports import sentences
from jaxsens.reports import style


@style.styled
def plot_accuracy(
  study: population_results.PopulationStudy,
) -> matplotlib.figure.Figure:
  """Returns the accuracy along each factor and the indices of the accuracy.

  Args:
    study: The results, with the indices of the accuracy.

  Returns:
    A figure with one panel per factor (mean over the other factors, all
    images with their 95 % band, classes thin) and bars of the indices.
  """
  accuracy, num_factors = study.accuracy, len(study.axes)
  columns = min(num_factors, 3)
  rows = math.ceil(num_factors / columns)
  bars = 0.45 * num_factors
  width = max(3.1 * columns + 0.55, 7.8)
  handles = _effect_handles(study)
  legend_columns = int(width // 1.9)
  legend = 0.19 * (math.ceil(len(handles) / legend_columns) - 1)
  height = 2.75 * rows + bars + legend + 1.75
  figure = style.new_figure(width, height)
  mean = sentences.format_share(accuracy.accuracy.value[0])
  interval = sentences.format_interval(
    accuracy.accuracy.lower[0], accuracy.accuracy.upper[0]
  )
  style.add_title(
    figure, 'What moves the accuracy',
    f'{accuracy.num_images[0]} images; mean over the factors {mean}{interval}',
  )
  for d in range(num_factors):
    axes = style.add_axes(
      figure, 0.7 + 3.1 * (d % columns),
      height - legend - 3.0 - 2.75 * (d // columns), 2.55, 1.95,
    )
    _draw_effect(axes, study, d)
    if d % columns == 0:
      axes.set_ylabel('accuracy')
  figure.legend(
    handles=handles, ncols=legend_columns, loc='upper left',
    bbox_to_anchor=(0.15 / width, 1 - 0.62 / height), handlelength=1.4,
    columnspacing=1.1, handletextpad=0.4, borderpad=0, borderaxespad=0.2,
  )
  axes = style.add_axes(figure, 1.5, 0.5, 3.1, bars)
  _draw_accuracy_bars(axes, study)
  figure.legend(
    handles=figures.bar_handles(), ncols=3, loc='lower left',
    bbox_to_anchor=(1.45 / width, (bars + 0.56) / height), handlelength=1.2,
    columnspacing=1.2, borderpad=0, borderaxespad=0,
  )
  return figure


def _draw_effect(axes, study, d):
  axis, effect = study.axes[d], study.accuracy.main_effects[d]
  names = study.population.class_names
  if population_figures.few_classes(names):
    for label in range(len(names)):
      axes.plot(axis.values, effect.value[1 + label], lw=1,
                color=population_figures.class_color(label, names))
  axes.fill_between(axis.values, effect.lower[0], effect.upper[0], lw=0,
                    color=style.MUTED, alpha=0.3)
  axes.plot(axis.values, effect.value[0], color=style.INK, lw=2.4)
  if axis.identity is not None:
    axes.axvline(axis.identity, color=style.MUTED, lw=1, ls=(0, (4, 3)))
  axes.set_ylim(-0.02, 1.03)
  axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ['0', '', '50 %', '', '100 %'])
  axes.set_xlabel(f'{axis.name} ({axis.unit})' if axis.unit else axis.name)
  axes.grid(color=style.FAINT, lw=0.5)
  axes.set_axisbelow(True)


def _effect_handles(study):
  names = study.population.class_names
  handles = [
    lines.Line2D([], [], color=style.INK, lw=2.4,
                 label=study.accuracy.group_names[0])
  ]
  if population_figures.few_classes(names):
    present = set(np.unique(study.population.labels).tolist())
    handles += [
      lines.Line2D([], [], lw=1.4, label=style.shorten(name, 22),
                   color=population_figures.class_color(label, names))
      for label, name in enumerate(names) if label in present
    ]
  return handles


def _draw_accuracy_bars(axes, study):
  accuracy = study.accuracy
  rows = np.arange(len(study.axes))
  for index, shift, color in (
    ('first_order', -0.18, style.ALONE), ('total', 0.18, style.TOTAL),
  ):
    estimate = getattr(accuracy, index)
    axes.barh(rows + shift, np.nan_to_num(estimate.value[0]), 0.36,
              color=color)
    axes.hlines(rows + shift, estimate.lower[0], estimate.upper[0],
                color=style.INK, lw=1.2)
  for d in rows:
    texts = [
      sentences.format_share(estimate.value[0, d]) + sentences.format_interval(
        estimate.lower[0, d], estimate.upper[0, d]
      ) for estimate in (accuracy.first_order, accuracy.total)
    ]
    axes.annotate(
      f'{texts[0]}, in all {texts[1]}', (1, d), (8, 0), va='center', size=9,
      textcoords='offset points', annotation_clip=False,
    )
  axes.set_xlim(0, 1)
  axes.set_ylim(len(rows) - 0.5, -0.5)
  axes.set_xticks([0, 0.5, 1], ['0', '50 %', '100 %'])
  axes.set_yticks(rows, [style.shorten(a.name, 16) for a in study.axes])
  axes.tick_params('y', labelcolor=style.INK, labelsize=10)
  axes.tick_params(length=0)
  axes.grid(axis='x', color=style.FAINT, lw=0.6)
  axes.set_axisbelow(True)
  axes.spines['bottom'].set_visible(False)
  axes.set_xlabel('share of the variance of the accuracy')
