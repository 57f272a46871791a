"""The page that compares two kinds of initial values."""

from collections.abc import Mapping
from typing import Any

import matplotlib.figure
import numpy as np

from jaxsens.reports import page
from jaxsens.reports import style

_SHOWN = ('accuracy', 'F1 macro', 'negative log-likelihood', 'ECE')


@style.styled
def plot_curves(result: Mapping[str, Any]) -> matplotlib.figure.Figure:
  """Returns measures against the share of the training images.

  Args:
    result: 'inits', two names; 'rows' with 'fraction' and 'measures', see
      `render`.
  """
  width = 2.6
  figure = style.new_figure(0.5 + len(_SHOWN) * (width + 0.55), 3.6)
  style.add_title(
    figure, 'Learning curves', 'dots: seeds; lines: their means'
  )
  rows = result['rows']
  fractions = np.array([row['fraction'] for row in rows])
  for i, name in enumerate(_SHOWN):
    axes = style.add_axes(figure, 0.6 + i * (width + 0.55), 0.6, width, 2.2)
    axes.set_title(name)
    for k, color in enumerate((style.MUTED, style.ALONE)):
      found = [row['measures'][name]['values'][k] for row in rows]
      axes.plot(
        fractions, [v['mean'] for v in found], color=color, lw=1.5,
        label=style.shorten(result['inits'][k], 26),
      )
      for fraction, v in zip(fractions, found, strict=True):
        axes.scatter(
          [fraction] * len(v['values']), v['values'], 14, color=color, alpha=0.7
        )
    axes.set_xscale('log')
    axes.set_xticks(fractions, [f'{f:g}' for f in fractions])
    axes.minorticks_off()
    axes.set_xlabel('share of the training images')
    axes.grid(axis='y')
    if i == 0:
      axes.legend(loc='best')
  return figure


def render(result: Mapping[str, Any]) -> str:
  """Returns the page as HTML.

  Args:
    result: 'inits': two names; 'rows': one per share of the images with
      'fraction', 'num_seeds', 'measures' and 'totals' ({name: {'values': two
      summaries, 'difference': a summary, 'p'}}) and 'mcnemar'.
  """
  names = [page.text(name) for name in result['inits']]
  body = [
    f'<h1>{names[0]} and {names[1]}</h1>\n',
    '<p>The same trainings but for their initial values; mean over seeds '
    'and, for the difference, 95 % interval of Student and p-value of the '
    'paired test.</p>\n',
    page.picture(
      style.render_png(plot_curves(result)), 'learning curves',
      'Test images.',
    ),
  ]
  for row in result['rows']:
    body.append(f'<h2>{row["fraction"]:g} of the training images</h2>\n')
    body.append(_table(result, row['measures'], 'measure'))
    m = row['mcnemar']
    p = ', '.join(f'{value:.3g}' for value in m['p'])
    body.append(
      f'<p>Test images that only one of them recognises, over '
      f'{row["num_seeds"]} seeds: {m["only_first"]} only {names[0]}, '
      f'{m["only_second"]} only {names[1]}; McNemar p by seed {p}.</p>\n'
    )
    if row['totals']:
      body.append('<h3>Total Sobol indices</h3>\n')
      body.append(_table(result, row['totals'], 'factor'))
  return page.document('Initial values compared', ''.join(body))


def _table(result, measures, title):
  rows = [
    [page.cell(name), *(
      page.cell(f'{v["mean"]:.4f}' + (
        '' if v['std'] is None else f' ± {v["std"]:.4f}'
      ))
      for v in m['values']
    ), page.cell(_difference(m['difference'])),
     page.cell('' if m['p'] is None else f'{m["p"]:.3g}')]
    for name, m in measures.items()
  ]
  return page.table(
    [title, *result['inits'], 'difference', 'p'], rows, [title]
  )


def _difference(d):
  if d['lower'] is None:
    return f'{d["mean"]:+.4f}'
  return f'{d["mean"]:+.4f} ({d["lower"]:+.4f} to {d["upper"]:+.4f})'
