"""Figures over all images of a run: one picture of it all, and the totals."""

from matplotlib import lines
from matplotlib import patches
import matplotlib.figure
import numpy as np

from jaxsens.reports import figures
from jaxsens.reports import results
from jaxsens.reports import sentences
from jaxsens.reports import style

# More rows than this no longer fit a page; the totals show every image.
_MAX_ROWS = 8
_WIDTH = 10.4
# Left edges and width in inches of the bars and the strips.
_BARS, _STRIPS = 4.3, 7.15
_BARS_WIDTH, _STRIPS_WIDTH = 2.2, 1.5


@style.styled
def plot_overview(run: results.RunResult) -> matplotlib.figure.Figure:
  """Returns one row per image: what it is, what moves it, where it breaks.

  Args:
    run: The results; the first eight images are shown.

  Returns:
    A figure with thumbnails and verdicts at the left, nested bars of the
    indices in the middle and the misclassified ranges at the right.
  """
  images = run.images[:_MAX_ROWS]
  row = max(1.3, 0.38 * len(images[0].factor_names) + 0.15)
  height = row * len(images) + 1.65
  figure = style.new_figure(_WIDTH, height)
  subtitle = run.data_description
  if len(images) < len(run.images):
    subtitle = f'{len(images)} of {len(run.images)} images; {subtitle}'
  style.add_title(figure, run.title, subtitle)
  _draw_headers(figure, images, height)
  for i, image in enumerate(images):
    _draw_row(figure, image, height - 1.2 - row * (i + 1), row)
  for i, share in enumerate(('0', '50 %', '100 % of the variance')):
    style.add_text(
      figure, _BARS + i * _BARS_WIDTH / 2, 0.27, share, size=8.5,
      color=style.MUTED, ha='left' if i == 2 else 'center',
    )
  return figure


@style.styled
def plot_totals(run: results.RunResult) -> matplotlib.figure.Figure:
  """Returns the total indices of all images, one line per image.

  Args:
    run: The results.

  Returns:
    A figure with a heat map, images by factors; what is not to be trusted is
    in brackets, what is undefined a dash.
  """
  totals = np.stack([im.total[:, im.main_output] for im in run.images])
  rows, columns = totals.shape
  figure = style.new_figure(
    max(3.4 + 1.25 * columns, 6), 0.32 * rows + 1.15
  )
  style.add_title(figure, 'Share of the variance, with interactions',
                  '(in brackets: not to be trusted; –: undefined)')
  axes = style.add_axes(figure, 3.2, 0.15, 1.25 * columns, 0.32 * rows)
  axes.imshow(np.ma.masked_invalid(totals), cmap=style.SEQUENTIAL, vmin=0,
              vmax=1.15, aspect='auto')
  for i, j in np.ndindex(rows, columns):
    _write_total(axes, i, j, totals[i, j], run.images[i].accepted)
  labels = [f'{im.name} ({im.label_name})' for im in run.images]
  axes.set_yticks(range(rows), [style.shorten(name, 42) for name in labels])
  names = [style.shorten(name, 14) for name in run.images[0].factor_names]
  axes.set_xticks(range(columns), names)
  axes.xaxis.tick_top()
  axes.tick_params(length=0, labelcolor=style.INK)
  axes.spines[:].set_visible(False)
  return figure


def _write_total(axes, i, j, value, accepted):
  text = sentences.format_share(value).replace('undefined', '–')
  text = text if accepted or text == '–' else f'[{text}]'
  color = 'white' if value > 0.75 else style.INK
  axes.text(j, i, text, ha='center', va='center', color=color, size=9.5)


def _draw_headers(figure, images, height):
  marks = [
    patches.Patch(color=style.RIGHT, label='right'),
    patches.Patch(color=style.WRONG, label='wrong'),
    lines.Line2D([], [], ls='', marker='|', ms=9, mew=1.4, color=style.INK,
                 label='unperturbed'),
  ]
  bars = figures.bar_handles(any(image.accepted for image in images))
  for left, title, handles in (
    (_BARS, 'What moves the answer', bars),
    (_STRIPS, 'Where the answer turns wrong', marks),
  ):
    style.add_text(figure, left, height - 0.85, title, weight='bold')
    figure.legend(
      handles=handles, ncols=3, loc='upper left', fontsize=8.5,
      bbox_to_anchor=(left / _WIDTH, (height - 0.93) / height),
      handlelength=1.1, columnspacing=0.9, handletextpad=0.4, borderpad=0,
      borderaxespad=0,
    )


def _draw_row(figure, image, bottom, row):
  rule = style.add_axes(figure, 0.15, bottom + row - 0.02, _WIDTH - 0.3, 0.01)
  rule.axhline(0, color=style.FAINT, lw=0.8)
  rule.axis('off')
  _draw_picture(figure, image, bottom, row)
  height = 0.38 * len(image.factor_names)
  lower = bottom + (row - height) / 2
  axes = style.add_axes(figure, _BARS, lower, _BARS_WIDTH, height)
  figures.draw_index_bars(axes, image)
  names = [style.shorten(name, 13) for name in image.factor_names]
  axes.set_yticks(range(len(names)), names)
  axes.tick_params('y', labelcolor=style.INK, labelsize=10)
  axes.set_xticks(axes.get_xticks(), [])
  if image.defined:
    _write_totals(axes, image)
  strips = style.add_axes(figure, _STRIPS, lower, _STRIPS_WIDTH, height)
  _draw_strips(strips, image)


def _write_totals(axes, image):
  """Writes each total index at the end of its bar or interval."""
  k = image.main_output
  for i, total in enumerate(image.total[:, k]):
    end = np.nanmax([total, image.total_upper[i, k]])
    axes.annotate(
      sentences.format_share(total), (min(end, 1), i + 0.18), (4, 0),
      textcoords='offset points', va='center', size=8.5, color=style.MUTED,
      annotation_clip=False,
    )


def _draw_picture(figure, image, bottom, row):
  """Draws the thumbnail with the label, the answer and the trust beside it."""
  side = 1.1
  axes = style.add_axes(figure, 0.15, bottom + (row - side) / 2, side, side)
  axes.imshow(style.thumbnail(image.image, 200))
  axes.set_anchor('W')
  axes.axis('off')
  ink = {True: style.INK, False: style.WRONG}
  written = (
    (style.shorten(image.label_name, 20), {'weight': 'bold', 'size': 10.5}),
    (style.shorten(image.name, 26), {'size': 8.5, 'color': style.MUTED}),
    (_answer(image), {'color': ink[image.correct]}),
    (_trust(image), {'color': ink[image.accepted]}),
  )
  for i, (text, options) in enumerate(written):
    options = {'size': 9.5, 'va': 'center'} | options
    style.add_text(figure, 1.4, bottom + row / 2 + 0.36 - 0.24 * i, text,
                   **options)


def _answer(image):
  name = style.shorten(image.prediction_name, 20)
  mark = '✓' if image.correct else '✗'
  return f'{mark} {name} {100 * image.confidence:.0f} %'


def _trust(image):
  q2 = image.q2[image.main_output]
  text = f'Q² {q2:.2f}' if image.defined else 'undefined'
  return text if image.accepted else f'{text}: do not trust'


def _draw_strips(axes, image):
  """Draws the range of each factor, wrong parts filled, errors in figures."""
  for i, name in enumerate(image.factor_names):
    curve = image.curve(name)
    if curve is None:
      continue
    lower, upper = curve.values[0], curve.values[-1]
    scale = 1 / (upper - lower)
    axes.barh(i, 1, 0.5, color=style.RIGHT)
    for start, stop, _ in curve.wrong_ranges(image.label):
      axes.barh(i, (stop - start) * scale, 0.5, left=(start - lower) * scale,
                color=style.WRONG)
    axes.vlines((curve.identity - lower) * scale, i - 0.36, i + 0.36,
                color=style.INK, lw=1.4)
    axes.text(1.06, i, _error_text(curve, image), va='center', size=9,
              color=style.INK)
  axes.set_xlim(0, 1)
  axes.set_ylim(len(image.factor_names) - 0.5, -0.5)
  axes.axis('off')


def _error_text(curve, image):
  if not image.correct:
    return 'wrong unperturbed'
  errors = [
    sentences.format_value(end, signed=curve.identity == 0)
    for end in (curve.first_error_below, curve.first_error_above)
    if end is not None
  ]
  if not errors:
    lower, upper = (f'{end:.3g}' for end in curve.values[[0, -1]])
    return f'never in {lower} … {upper} {curve.unit}'.replace('-', '−').strip()
  return f'{" and ".join(errors)} {curve.unit}'.replace('-', '−').strip()
