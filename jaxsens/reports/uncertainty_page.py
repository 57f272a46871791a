"""The page that compares ways of telling how sure a classifier is."""

from collections.abc import Mapping
from typing import Any

import matplotlib.figure
import numpy as np

from jaxsens.reports import comparison_curves
from jaxsens.reports import page
from jaxsens.reports import style

_LABELS = 2.9  # inches for the names of the methods
_WIDTH = 2.2
_LINE = 0.26


@style.styled
def plot_areas(result: Mapping[str, Any]) -> matplotlib.figure.Figure:
  """Returns the areas under the ROC curves, a line per method.

  Args:
    result: see `render`.
  """
  rows = result['rows']
  panels = [('misclassification AUROC', 'wrong answers')] + [
    (f'AUROC, {name}', f'unknown: {name}') for name in result['out_sets']
  ]
  height = _LINE * len(rows)
  figure = style.new_figure(
    _LABELS + len(panels) * (_WIDTH + 0.3) + 0.1, height + 1.6
  )
  style.add_title(
    figure, 'What the certainty tells from known, right answers',
    'area under the ROC curve, 0.5 is chance; lines: 95 % over images; '
    'dots: networks',
  )
  places = np.arange(len(rows))[::-1]
  for i, (name, title) in enumerate(panels):
    axes = style.add_axes(
      figure, _LABELS + i * (_WIDTH + 0.3), 0.6, _WIDTH, height
    )
    axes.set_title(style.shorten(title, 28))
    for place, row in zip(places, rows, strict=True):
      entry = row['measures'][name]
      if entry['mean'] is None:
        continue
      color = (
        style.WRONG if row['method'] == result['baseline'] else style.ALONE
      )
      if entry['lower'] is not None:
        axes.plot(
          [entry['lower'], entry['upper']], [place] * 2, color=color, lw=1.5
        )
      axes.scatter(
        entry['values'], [place] * len(entry['values']), 10,
        color=style.MUTED, zorder=3,
      )
      axes.scatter([entry['mean']], [place], 26, color=color, zorder=4)
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.set_yticks(places, [
      style.shorten(row['method'], 40) if i == 0 else '' for row in rows
    ])
    axes.set_xlim(right=1.005)
    axes.grid(axis='x')
  return figure


def render(result: Mapping[str, Any]) -> str:
  """Returns the page as HTML.

  Args:
    result: 'facts' by name; 'baseline', a method; 'out_sets', names;
      'larger_is_better' by measure; 'rows' of `comparison.Row.as_dict`;
      'conformal': a dict per kind of sets with 'method', 'asked', 'coverage',
      'coverage_std', 'size' and 'empty'; 'curves': 'coverages', 'false_rates'
      and 'methods', see `uncertainty.comparison_curves`.
  """
  baseline = result['baseline']
  body = [
    '<h1>How sure is the classifier?</h1>\n', _facts(result['facts']),
    page.picture(
      style.render_png(plot_areas(result)), 'areas under ROC curves',
      f'Test images; the baseline, {baseline}, in vermilion.',
    ),
    '<h2>Answers</h2>\n',
    f'<p>Mean over the networks, 95 % interval over the images in brackets. '
    f'* marks what is better than {page.text(baseline)}, ! what is worse, as '
    'far as the interval of the difference on the same images tells; of so '
    'many comparisons one in twenty is marked by chance.</p>\n',
    _table(result, ''),
  ]
  curves = result['curves']
  methods = curves['methods']
  for figure, caption in (
    (comparison_curves.plot_reliability(methods, baseline),
     'Methods that have probabilities of their own: above the diagonal they '
     'claim too little, below it too much.'),
    (comparison_curves.plot_coverage(methods, curves['coverages'], baseline),
     'The higher to the left, the better the certainty knows the wrong '
     'answers; at the right end is the accuracy.'),
  ):
    if figure is not None:
      caption += ' First network of each; the baseline in vermilion.'
      body.append(page.picture(style.render_png(figure), caption, caption))
  for name in result['out_sets']:
    body.append(f'<h2>Unknown: {page.text(name)}</h2>\n')
    body.append(_table(result, f', {name}'))
    caption = (
      'The nearer to the upper left corner, the better. First network of each; '
      'the baseline in vermilion.'
    )
    figure = comparison_curves.plot_roc(
      methods, curves['false_rates'], baseline, name
    )
    body.append(page.picture(style.render_png(figure), caption, caption))
  body.append('<h2>Sets of classes</h2>\n')
  body.append(_sets(result['conformal']))
  return page.document('Uncertainty compared', ''.join(body))


def _facts(facts):
  rows = ''.join(
    f'<dt>{page.text(name)}</dt><dd>{page.text(value)}</dd>\n'
    for name, value in facts.items()
  )
  return f'<dl class="facts">\n{rows}</dl>\n'


def _table(result, suffix):
  """Measures whose names end so; without a suffix those of known images."""
  better = result['larger_is_better']
  names = [name + suffix for name in better]
  there = {name for row in result['rows'] for name in row['measures']}
  names = [name for name in names if name in there]
  rows = [
    [page.cell(row['method']), *(
      page.cell(_cell(
        row['measures'].get(name), better[name.removesuffix(suffix)]
      )) for name in names
    )]
    for row in result['rows']
  ]
  head = ['method', *(name.removesuffix(suffix) for name in names)]
  return page.table(head, rows, head[:1])


def _cell(entry, larger_is_better):
  if entry is None or entry['mean'] is None:
    return ''
  text = f'{entry["mean"]:.4f}'
  if entry['lower'] is not None:
    text += f' ({entry["lower"]:.3f} to {entry["upper"]:.3f})'
  lower, upper = entry['difference_lower'], entry['difference_upper']
  if lower is None or lower <= 0 <= upper:
    return text
  return text + (' *' if (lower > 0) == larger_is_better else ' !')


def _sets(rows):
  lines = [
    [
      page.cell(row['method']), page.cell(f'{row["asked"]:.3f}'),
      page.cell(f'{row["coverage"]:.4f} ± {row["coverage_std"]:.4f}'),
      page.cell(f'{row["size"]:.3f}'), page.cell(f'{row["empty"]:.4f}'),
    ]
    for row in rows
  ]
  head = ['sets', 'asked', 'coverage', 'classes per set', 'empty']
  return page.table(head, lines, head[:1]) + (
    '<p class="note">Calibrated on one half of the test images and judged on '
    'the other, mean over random halves; first network.</p>\n'
  )
