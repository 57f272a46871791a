"""Figures of one image's results; each `plot_*` returns a new Figure.

Dark blue is what a factor does alone, light blue what it does with its
interactions, vermilion is a wrong answer, grey a number not to be trusted.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import math
import textwrap

from matplotlib import lines
from matplotlib import patches
import matplotlib.figure
import numpy as np

from jaxsens.reports import results
from jaxsens.reports import sentences
from jaxsens.reports import style
from jaxsens.reports import surfaces

_COLUMNS = 3


def image_figures(
  image: results.ImageResult, class_names: Sequence[str]
) -> Iterator[tuple[str, matplotlib.figure.Figure]]:
  """Yields every figure of one image that its results allow, with its kind.

  Args:
    image: The results of one image.
    class_names: Names of the classes, by label.

  Yields:
    ('indices', ...), ('interactions', ...) for two factors or more with defined
    indices, ('curves', ...) and ('contact', ...) if there are curves,
    ('surface_0', ...) and so on.
  """
  yield 'indices', plot_indices(image)
  if len(image.factor_names) > 1 and image.defined:
    yield 'interactions', plot_interactions(image)
  if image.curves:
    yield 'curves', plot_curves(image, class_names)
    yield 'contact', plot_contact_sheet(image, class_names)
  for i, surface in enumerate(image.surfaces):
    yield f'surface_{i}', surfaces.plot_surface(surface)


@style.styled
def plot_indices(image: results.ImageResult) -> matplotlib.figure.Figure:
  """Returns bars of the first-order and total indices with their intervals.

  Args:
    image: The results of one image.

  Returns:
    A figure with two bars per factor: dark alone, light with interactions.
  """
  num_factors = len(image.factor_names)
  height = 0.45 * num_factors
  figure = style.new_figure(6.2, height + 1.5)
  _title(figure, image, f'What moves {image.main_name}')
  axes = style.add_axes(figure, 1.25, 0.55, 3.55, height)
  draw_index_bars(axes, image)
  axes.set_yticks(
    range(num_factors), [style.shorten(n, 16) for n in image.factor_names]
  )
  axes.tick_params('y', labelcolor=style.INK, labelsize=10)
  axes.set_xlabel('share of the variance')
  if image.defined:
    _write_shares(figure, axes, image)
  figure.legend(
    handles=bar_handles(image.accepted), ncols=3, loc='lower left',
    bbox_to_anchor=(1.2 / 6.2, (height + 0.6) / (height + 1.5)),
    handlelength=1.2, columnspacing=1.2, borderpad=0, borderaxespad=0,
  )
  return figure


def draw_index_bars(axes, image: results.ImageResult):
  """Draws two bars with intervals per factor, the first factor on top.

  Args:
    axes: Where to draw; y is the position of the factor.
    image: The results of one image.
  """
  k, rows = image.main_output, np.arange(len(image.factor_names))
  alone, total = bar_colors(image.accepted)
  if image.defined:
    for index, shift, color in (
      ('first_order', -0.18, alone), ('total', 0.18, total),
    ):
      axes.barh(rows + shift, getattr(image, index)[:, k], 0.36, color=color)
      axes.hlines(
        rows + shift, getattr(image, f'{index}_lower')[:, k],
        getattr(image, f'{index}_upper')[:, k], color=style.INK, lw=1.2,
      )
  else:
    reason = image.reasons[k] or 'no reason was recorded'
    width = axes.get_position().width * axes.figure.get_size_inches()[0]
    text = textwrap.fill(f'undefined: {style.shorten(reason, 90)}',
                         round(13 * width))
    axes.text(0.03, 0.5, text, va='center', transform=axes.transAxes,
              color=style.WRONG, size=9)
  axes.set_xlim(0, 1)
  axes.set_ylim(len(rows) - 0.5, -0.5)
  axes.set_xticks([0, 0.5, 1], ['0', '50 %', '100 %'])
  axes.set_xticks([0.25, 0.75], minor=True)
  axes.grid(axis='x', which='both', color=style.FAINT, lw=0.6, zorder=0)
  axes.set_axisbelow(True)
  axes.spines['bottom'].set_visible(False)
  axes.tick_params(length=0, which='both')


def bar_colors(accepted: bool) -> tuple[str, str]:
  """Returns the colours of first-order and total bars."""
  if accepted:
    return style.ALONE, style.TOTAL
  return style.DOUBT_ALONE, style.DOUBT_TOTAL


def bar_handles(accepted: bool = True) -> list:
  """Returns the legend of the bars."""
  alone, total = bar_colors(accepted)
  return [
    patches.Patch(color=alone, label='alone'),
    patches.Patch(color=total, label='with interactions'),
    lines.Line2D([], [], color=style.INK, lw=1.1, label='interval'),
  ]


@style.styled
def plot_interactions(image: results.ImageResult) -> matplotlib.figure.Figure:
  """Returns the matrix of pairwise indices, first-order on the diagonal.

  Args:
    image: The results of one image, of two factors or more.

  Returns:
    A figure with the lower triangle of the matrix, in percent.
  """
  num_factors = len(image.factor_names)
  matrix = image.interactions[:, :, image.main_output]
  side = 0.85 * num_factors
  figure = style.new_figure(max(side + 1.6, 5.6), side + 1.4)
  _title(figure, image, 'Which factors act together')
  axes = style.add_axes(figure, 1.25, 0.6, side, side)
  upper = np.triu(np.ones_like(matrix, bool), 1)
  axes.imshow(
    np.ma.masked_array(matrix, upper | ~np.isfinite(matrix)), vmin=0, vmax=1,
    cmap=style.SEQUENTIAL if image.accepted else 'Greys',
  )
  for i, j in zip(*np.tril_indices(num_factors), strict=True):
    text = sentences.format_share(matrix[i, j]).replace('undefined', '–')
    color = 'white' if matrix[i, j] > 0.65 else style.INK
    axes.text(j, i, text, ha='center', va='center', color=color, size=10)
  names = [style.shorten(name, 14) for name in image.factor_names]
  slanted = any(len(name) > 10 for name in names)
  axes.set_xticks(
    range(num_factors), names, rotation=25 if slanted else 0,
    ha='right' if slanted else 'center', rotation_mode='anchor',
  )
  axes.set_yticks(range(num_factors), names)
  axes.tick_params(length=0, labelcolor=style.INK, labelsize=10)
  axes.spines[:].set_visible(False)
  return figure


@style.styled
def plot_curves(
  image: results.ImageResult, class_names: Sequence[str]
) -> matplotlib.figure.Figure:
  """Returns the main output along each factor, the others at their identity.

  Args:
    image: The results of one image, with one curve or more.
    class_names: Names of the classes, by label.

  Returns:
    A figure with one panel per curve: the expansion as a line, the network's
    answers as marks, misclassified ranges shaded and named.
  """
  columns = min(len(image.curves), _COLUMNS)
  rows = math.ceil(len(image.curves) / columns)
  height = 2.8 * rows + 0.9
  width = 2.65 if columns > 1 else 5.1
  figure = style.new_figure((width + 0.6) * columns + 0.4, height)
  _title(figure, image, f'{image.main_name} along each factor')
  for i, curve in enumerate(image.curves):
    axes = style.add_axes(
      figure, 0.7 + (width + 0.6) * (i % columns),
      height - 3.1 - 2.8 * (i // columns), width, 2.1,
    )
    _draw_curve(axes, curve, image, class_names)
    if i % columns == 0:
      axes.set_ylabel(image.main_name)
  figure.legend(
    handles=_curve_handles(image.accepted), ncols=4, loc='upper left',
    bbox_to_anchor=(0.1 / figure.get_size_inches()[0], 1 - 0.62 / height),
    columnspacing=1.4, handlelength=1.6, borderpad=0, borderaxespad=0.3,
  )
  return figure


@style.styled
def plot_contact_sheet(
  image: results.ImageResult, class_names: Sequence[str]
) -> matplotlib.figure.Figure:
  """Returns the perturbed images with the answer and confidence under each.

  Args:
    image: The results of one image, with one curve or more.
    class_names: Names of the classes, by label.

  Returns:
    A figure with one row per curve; wrong answers are framed and crossed.
  """
  columns = max(len(curve.contact_values) for curve in image.curves)
  width, pitch = 1.25, 1.43
  h, w = image.curves[0].contact_images.shape[1:3]
  row = width * min(max(h / w, 0.5), 1.5) + 0.66
  size = pitch * columns + 1.35, row * len(image.curves) + 0.75
  figure = style.new_figure(max(size[0], 6), size[1])
  style.add_title(
    figure, 'What the model says to each perturbed image', _name(image)
  )
  for i, curve in enumerate(image.curves):
    bottom = size[1] - 0.75 - row * (i + 1)
    name = '\n'.join(filter(None, [
      style.wrap(curve.name, 13),
      style.wrap(f'({curve.unit})', 13) if curve.unit else '',
    ]))
    style.add_text(figure, 0.15, bottom + 0.3 + row / 2, name, va='center',
                   size=10.5, weight='bold')
    for j in range(len(curve.contact_values)):
      axes = style.add_axes(
        figure, 1.3 + pitch * j, bottom + 0.46, width, row - 0.66
      )
      _draw_contact(axes, curve, j, image.label, class_names)
  return figure


def _title(figure, image, title):
  """Writes the title, the image's name and, if it must be, the doubt."""
  if image.accepted:
    style.add_title(figure, title, _name(image))
  else:
    q2 = image.q2[image.main_output]
    doubt = f'Q² = {q2:.2f}' if image.defined else 'undefined'
    style.add_title(
      figure, title, f'NOT TO BE TRUSTED ({doubt}): {_name(image)}',
      style.WRONG,
    )


def _name(image):
  return f'{style.shorten(image.name, 28)} ({image.label_name})'


def _write_shares(figure, axes, image):
  """Writes both indices of each factor to the right of its bar."""
  k = image.main_output
  for i in range(len(image.factor_names)):
    alone = sentences.format_share(image.first_order[i, k])
    total = sentences.format_share(image.total[i, k])
    axes.annotate(
      f'{alone}, in all {total}', (1, i), (8, 0), va='center', size=9,
      textcoords='offset points', annotation_clip=False,
    )


def _draw_curve(axes, curve, image, class_names):
  k = image.main_output
  right = np.asarray(curve.predicted) == image.label
  for lower, upper, predicted in curve.wrong_ranges(image.label):
    axes.axvspan(lower, upper, color=style.WRONG, alpha=0.16, lw=0)
    _name_range(axes, curve, lower, upper, class_names[predicted])
  axes.axvline(curve.identity, color=style.MUTED, lw=1, ls=(0, (4, 3)))
  axes.plot(curve.surrogate_values, curve.surrogate[:, k], lw=2.4,
            color=bar_colors(image.accepted)[0])
  truth = curve.truth[:, k]
  axes.plot(curve.values[right], truth[right], 'o', ms=3.4, color=style.INK)
  axes.plot(curve.values[~right], truth[~right], 'X', ms=5.5, mew=0.5,
            color=style.WRONG, mec='white')
  shown = np.concatenate([truth, curve.surrogate[:, k]])
  low, high = np.nanmin(shown), np.nanmax(shown)
  if np.nanmin(truth) >= 0 and np.nanmax(truth) <= 1:
    low, high = min(low, 0), max(high, 1)
  axes.set_ylim(low - 0.04 * (high - low), high + 0.06 * (high - low) + 1e-9)
  margin = 0.02 * (curve.values[-1] - curve.values[0])
  axes.set_xlim(curve.values[0] - margin, curve.values[-1] + margin)
  axes.set_xlabel(f'{curve.name} ({curve.unit})' if curve.unit else curve.name)
  axes.grid(color=style.FAINT, lw=0.5)
  axes.set_axisbelow(True)


def _name_range(axes, curve, lower, upper, name):
  """Writes the class of a wrong range upright in it, if it is wide enough."""
  share = (upper - lower) / (curve.values[-1] - curve.values[0])
  if share > 0.06:
    axes.text(
      (lower + upper) / 2, 0.97, style.shorten(name, 20), va='top',
      ha='center', rotation=90, size=8, color=style.WRONG_TEXT,
      transform=axes.get_xaxis_transform(),
    )


def _curve_handles(accepted):
  color, _ = bar_colors(accepted)
  return [
    lines.Line2D([], [], color=color, lw=2.4, label='expansion'),
    lines.Line2D([], [], ls='', marker='o', ms=4, color=style.INK,
                 label='network, right class'),
    lines.Line2D([], [], ls='', marker='X', ms=6, color=style.WRONG,
                 mec='white', label='network, wrong class'),
    lines.Line2D([], [], color=style.MUTED, lw=1, ls=(0, (4, 3)),
                 label='unperturbed'),
  ]


def _draw_contact(axes, curve, j, label, class_names):
  predicted = int(curve.contact_predicted[j])
  wrong = predicted != label
  axes.imshow(style.thumbnail(curve.contact_images[j], 170), aspect='auto')
  axes.set(xticks=[], yticks=[])
  for spine in axes.spines.values():
    spine.set(visible=True, color=style.WRONG if wrong else style.FAINT,
              linewidth=3 if wrong else 1)
  value = sentences.format_value(
    curve.contact_values[j], signed=curve.identity == 0
  ).replace('-', '−')
  axes.set_title(value, size=9, loc='center', pad=3)
  confidence = f'{100 * curve.contact_confidence[j]:.0f} %'
  name = style.shorten(class_names[predicted], 19)
  axes.set_xlabel(
    f'{"✗ " if wrong else ""}{name}\n{confidence}', size=8, labelpad=4,
    linespacing=1.25, color=style.WRONG if wrong else style.INK,
  )
