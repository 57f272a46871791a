"""Figures and page: does the certainty fall before the answer changes?"""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from matplotlib import lines
from matplotlib import patches
import matplotlib.figure
import numpy as np

from jaxsens.reports import page
from jaxsens.reports import style

_FLIPS = ('announced', 'caught', 'silent')
_COLORS = {
  'announced': style.ALONE, 'caught': style.TOTAL, 'silent': style.WRONG,
}
_COURSES = {
  'accuracy': ('all answers right', style.MUTED, (0, (4, 2))),
  'coverage': ('accepted', style.ALONE, '-'),
  'accepted_accuracy': ('accepted answers right', style.INK, '-'),
}
_LINE = 0.27  # inches of a method
_LABELS = 3.1  # for their names


@style.styled
def plot_flips(result: Mapping[str, Any]) -> matplotlib.figure.Figure:
  """Returns what becomes of the flips by each method, and its false alarms.

  Args:
    result: see `render`.
  """
  rows = result['rows']
  height = _LINE * len(rows)
  figure = style.new_figure(_LABELS + 6.9, height + 1.55)
  style.add_title(
    figure, 'Does the certainty fall before the answer changes?',
    f'{_percent(result["abstention_rate"])} of unperturbed answers refused; '
    'lines: 95 % over images',
  )
  places = np.arange(len(rows))[::-1]
  left = style.add_axes(figure, _LABELS, 0.55, 3.7, height)
  right = style.add_axes(figure, _LABELS + 4.1, 0.55, 2.6, height)
  for place, row in zip(places, rows, strict=True):
    shares = row['all']['shares']
    _draw_flips(left, place, shares)
    _draw_alarms(right, place, shares['false alarms'])
  names = left.set_yticks(
    places, [style.shorten(row['method'], 40) for row in rows]
  )
  for tick, row in zip(names, rows, strict=True):
    if row['method'] == result['baseline']:
      tick.label1.set_weight('bold')
  left.tick_params('y', length=0, labelcolor=style.INK)
  right.set_yticks([])
  left.set_xlabel('share of the changed answers')
  right.set_xlabel('share of the images without a change')
  for axes, title in ((left, ''), (right, 'refused all the same')):
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ['0', '', '50 %', '', '100 %'])
    axes.set_title(title)
    axes.grid(axis='x', color=style.FAINT, lw=0.6)
    axes.set_axisbelow(True)
  handles = [
    patches.Patch(color=_COLORS[name], label=label) for name, label in (
      ('announced', 'refused before'), ('caught', 'only at the change'),
      ('silent', 'silent'),
    )
  ]
  handles.append(lines.Line2D(
    [], [], color='white', marker='D', ls='', markersize=5,
    markeredgecolor=style.INK, label='before, by chance',
  ))
  w, h = figure.get_size_inches()
  figure.legend(
    handles=handles, ncols=4, loc='lower right',
    bbox_to_anchor=((_LABELS + 3.8) / w, (height + 0.62) / h),
    handlelength=1.0, handletextpad=0.4, columnspacing=1.0, borderpad=0,
    borderaxespad=0,
  )
  return figure


def _draw_flips(axes, place, shares):
  if shares['announced']['value'] is None:
    axes.text(0.01, place, 'no changes', va='center', color=style.MUTED, size=9)
    return
  start = 0.0
  for name in _FLIPS:
    width = shares[name]['value']
    axes.barh(place, width, 0.72, start, color=_COLORS[name])
    start += width
  announced = shares['announced']
  if announced['lower'] is not None:
    for color, width in (('white', 3.6), (style.INK, 1.6)):
      axes.hlines(place, announced['lower'], announced['upper'], color=color,
                  lw=width)
  axes.scatter(shares['by chance']['value'], place, 22, color='white',
               marker='D', edgecolors=style.INK, linewidths=0.9, zorder=4)


def _draw_alarms(axes, place, share):
  if share['value'] is None:
    return
  if share['lower'] is not None:
    axes.hlines(place, share['lower'], share['upper'], color=style.ALONE,
                lw=1.5)
  axes.scatter(share['value'], place, 26, color=style.ALONE, zorder=4)


@style.styled
def plot_courses(result: Mapping[str, Any]) -> matplotlib.figure.Figure:
  """Returns accuracy and coverage along each factor, a row per shown method.

  Args:
    result: see `render`.
  """
  by_name = {row['method']: row for row in result['rows']}
  shown = [by_name[name] for name in result['shown']]
  factors = list(dict.fromkeys(line['factor'] for line in result['lines']))
  width, height = 2.5, 1.45
  figure = style.new_figure(
    0.75 + len(factors) * (width + 0.25), len(shown) * (height + 0.42) + 1.45
  )
  w, h = figure.get_size_inches()
  style.add_title(
    figure, 'What is accepted, and how much of it is right',
    f'{_percent(result["abstention_rate"])} of unperturbed answers refused',
  )
  for i, row in enumerate(shown):
    bottom = 0.55 + (len(shown) - 1 - i) * (height + 0.42)
    for j, factor in enumerate(factors):
      axes = style.add_axes(
        figure, 0.6 + j * (width + 0.25), bottom, width, height
      )
      neutral, unit = _draw_courses(axes, result['lines'], factor, row)
      axes.axvline(neutral, color=style.FAINT, lw=1, zorder=0)
      axes.set_ylim(-0.02, 1.03)
      axes.set_yticks([0, 0.25, 0.5, 0.75, 1], (
        ['0', '', '50 %', '', '100 %'] if j == 0 else [''] * 5
      ))
      axes.grid(axis='y', color=style.FAINT, lw=0.5)
      axes.set_axisbelow(True)
      if j == 0:
        axes.set_title(style.shorten(row['method'], 44), weight='bold')
      if i == len(shown) - 1:
        axes.set_xlabel(f'{factor} ({unit})' if unit else factor)
      else:
        axes.tick_params('x', labelbottom=False)
  figure.legend(
    handles=[
      lines.Line2D([], [], color=color, ls=kind, lw=2, label=label)
      for label, color, kind in _COURSES.values()
    ],
    ncols=3, loc='upper left', bbox_to_anchor=(0.15 / w, 1 - 0.62 / h),
    handlelength=1.8, columnspacing=1.2, borderpad=0, borderaxespad=0.2,
  )
  return figure


def _draw_courses(axes, ways, factor, row):
  """Draws the ways of a factor, and returns its neutral value and unit."""
  places = [i for i, way in enumerate(ways) if way['factor'] == factor]
  for i in places:
    for name, (_, color, kind) in _COURSES.items():
      heights = np.array(row['courses'][i][name], float)
      axes.plot(ways[i]['values'], heights, color=color, ls=kind, lw=1.8,
                marker='.', markersize=3)
  return ways[places[0]]['values'][0], ways[places[0]]['unit']


def render(result: Mapping[str, Any]) -> str:
  """Returns the page as HTML.

  Args:
    result: 'facts' by name; 'baseline', a method; 'abstention_rate'; 'shown',
      methods whose courses are drawn; 'outcomes', names; 'lines': a dict per
      line with 'factor', 'unit', and 'values' from the neutral one on; 'rows':
      a dict per method with 'method', 'refused' (of held-out images, by
      network), 'all' and 'factors' (by name) of
      `announcement.Summary.as_dict`, and 'courses', per line lists by name.
  """
  rate, baseline = _percent(result['abstention_rate']), result['baseline']
  factors = list(dict.fromkeys(line['factor'] for line in result['lines']))
  body = [
    '<h1>Does the certainty fall before the answer changes?</h1>\n',
    _facts(result['facts']),
    f'<p>{page.text(_sentence(result))}</p>\n',
    page.picture(
      style.render_png(plot_flips(result)), 'announced changes by method',
      'Diamonds: share that would be announced if every image were refused '
      'where another one is.',
    ),
    '<h2>Along each factor</h2>\n',
  ]
  if result['shown']:
    body.append(page.picture(
      style.render_png(plot_courses(result)), 'accuracy against strength',
      'The other factors at their neutral values, all networks together.',
    ))
  body += [
    '<h2>All factors together</h2>\n',
    f'<p>An answer is refused where its certainty is below the value that '
    f'refuses {rate} of held-out, unperturbed images. Images are followed that '
    'are right and accepted unperturbed. The first change of the answer is '
    'announced where the image was refused at a smaller strength, caught where '
    'only at that of the change, else silent: a wrong answer that is given. '
    'Refused without a change is a false alarm. The margin is the median way '
    'from the first refusal to the change, as a share of the way to the limit. '
    f'* marks what is better than {page.text(baseline)}, ! what is worse, as '
    'far as the interval of the difference on the same images tells.</p>\n',
    _shares(result), '<h2>Announced by factor</h2>\n',
    _by_factor(result, factors, 'announced'),
    '<h2>Silent by factor</h2>\n', _by_factor(result, factors, 'silent'),
    '<h2>What becomes of the images</h2>\n', _counts(result),
    '<p class="note">Images of all lines and networks. Those that are wrong or '
    'refused unperturbed are not followed.</p>\n',
  ]
  return page.document('Announced changes', ''.join(body))


def _percent(share: float) -> str:
  return f'{100 * share:.3g} %'


def _sentence(result):
  (row,) = (
    row for row in result['rows'] if row['method'] == result['baseline']
  )
  shares = row['all']['shares']
  flips = sum(row['all']['counts'][name] for name in _FLIPS)
  if not flips:
    return f'By the {row["method"]} no answer changes.'
  value = lambda name: _percent(shares[name]['value'])
  text = (
    f'By the {row["method"]} {value("announced")} of {flips} changes are '
    f'announced ({value("by chance")} would be by chance), {value("caught")} '
    f'are refused only when they happen, {value("silent")} are silent'
  )
  if shares['false alarms']['value'] is not None:
    text += (
      f'; of the images whose answer stays {value("false alarms")} are '
      'refused somewhere'
    )
  return text + '.'


def _facts(facts):
  rows = ''.join(
    f'<dt>{page.text(name)}</dt><dd>{page.text(value)}</dd>\n'
    for name, value in facts.items()
  )
  return f'<dl class="facts">\n{rows}</dl>\n'


def _shares(result):
  better = {
    'announced': True, 'by chance': None, 'caught': None, 'silent': False,
    'refused at the flip': True, 'false alarms': False, 'margin': None,
  }
  rows = []
  for row in result['rows']:
    flips = sum(row['all']['counts'][name] for name in _FLIPS)
    rows.append([
      page.cell(row['method']), page.cell(_percent(np.mean(row['refused']))),
      page.cell(flips), *(
        page.cell(_cell(row['all']['shares'][name], larger))
        for name, larger in better.items()
      ),
    ])
  head = ['method', 'refused, held-out', 'changes', *better]
  head[head.index('refused at the flip')] = 'refused at the change'
  return page.table(head, rows, head[:1])


def _by_factor(result, factors: Sequence[str], name):
  rows = [
    [page.cell(row['method']), *(
      page.cell(_cell(
        row['factors'][factor]['shares'][name], name == 'announced'
      )) for factor in factors
    )] for row in result['rows']
  ]
  return page.table(['method', *factors], rows, ['method'])


def _counts(result):
  rows = [
    [page.cell(row['method']), *(
      page.cell(row['all']['counts'][name]) for name in result['outcomes']
    )] for row in result['rows']
  ]
  return page.table(['method', *result['outcomes']], rows, ['method'])


def _cell(share, larger_is_better):
  if share['value'] is None:
    return ''
  text = f'{share["value"]:.3f}'
  if share['lower'] is None:
    return text
  text += f' ({share["lower"]:.3f} to {share["upper"]:.3f})'
  lower, upper = share['difference_lower'], share['difference_upper']
  if larger_is_better is None or lower is None or lower <= 0 <= upper:
    return text
  return text + (' *' if (lower > 0) == larger_is_better else ' !')
