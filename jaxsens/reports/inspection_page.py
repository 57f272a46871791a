"""The page about what the layers of a network know."""

from collections.abc import Mapping
from typing import Any

from jaxsens.reports import inspection_figures
from jaxsens.reports import page


def render(
  result: Mapping[str, Any], figures: Mapping[str, bytes] | None = None
) -> str:
  """Returns the page as HTML.

  Args:
    result: 'title'; 'facts' by name; 'class_names'; 'labels' of the images that
      are embedded; 'network_accuracy'; and, each empty where it was not done,
      'probes': `Probe.as_dict` with 'layer'; 'embeddings': 'layer', 'method',
      'points', 'neighbour_accuracy', 'perplexity'; 'similarity': 'title',
      'rows', 'columns', 'values'; 'neurons': the fields of `neurons.Neurons`,
      'channels' as texts; 'channels': 'first', 'second' (names of the groups),
      'layers' of 'layer', 'num_channels', 'num_different' and 'top', channels
      by the fields of `channels.Comparison`; 'weights':
      `WeightStatistics.as_dict`; 'regions': see `_region`.
    figures: PNG files by stem; None draws them.
  """
  if figures is None:
    figures = inspection_figures.draw_all(result)
  body = (
    f'<h1>{page.text(result["title"])}</h1>\n',
    _facts(result['facts']),
    _section('Linear probes', _probes(result), figures, {
      'probes': 'Held-out accuracy of a logistic regression on the principal '
                'components of each layer. Hollow: on the images that it was '
                'fitted to, which says nothing of the layer.',
    }),
    _section('Embeddings', _embeddings(result), figures, {
      'embeddings_principal_components':
        'The two directions in which the images differ most.',
      'embeddings_t-sne':
        'Near images stay near; distances between clusters and their sizes '
        'mean little.',
    }),
    _section('Similarity of layers', _similarity(result), figures, {
      'similarity': 'Linear CKA with the unbiased estimate of HSIC.',
    }),
    _section('Neurons', '', figures, {
      'neurons': 'Images that excite single neurons most, found by gradient '
                 'ascent; what the network looks for, not what the data hold.',
      'courses': 'Activation as the ascent went, each step shifted at random.',
    }),
    _section('Channels', _channels(result), figures, {
      'channels': 'The channels whose means differ most, by Welch’s t.',
    }),
    _section('Weights', _weights(result), figures, {
      'weights': 'Kernels as they were trained, from the first to the last.',
    }),
    *(_region(part, figures) for part in result['regions']),
  )
  return page.document(result['title'], ''.join(body))


def _section(title, content, figures, captions):
  pictures = ''.join(
    page.picture(figures[stem], caption, caption)
    for stem, caption in captions.items() if stem in figures
  )
  if not content and not pictures:
    return ''
  return (
    f'<section><h2>{page.text(title)}</h2>\n{content}{pictures}</section>\n'
  )


def _facts(facts):
  rows = ''.join(
    f'<dt>{page.text(name)}</dt><dd>{page.text(value)}</dd>\n'
    for name, value in facts.items()
  )
  return f'<dl class="facts">\n{rows}</dl>\n'


def _probes(result):
  rows = result['probes']
  if not rows:
    return ''
  slow = [row['layer'] for row in rows if not row['converged']]
  warning = (
    '<p class="verdict bad"><strong>Not converged:</strong> the regression of '
    f'{page.text(", ".join(slow))}.</p>\n' if slow else ''
  )
  best = max(rows, key=lambda row: row['accuracy'])
  text = (
    f'The best probe is that of {best["layer"]}, {best["accuracy"]:.3f} '
    f'({best["lower"]:.3f} to {best["upper"]:.3f}); always answering the '
    f'commonest class reaches {best["majority"]:.3f}.'
  )
  cells = [
    [
      page.cell(row['layer']), page.cell(row['num_features']),
      page.cell(row['num_components']), page.cell(f'{row["accuracy"]:.3f}'),
      page.cell(f'{row["lower"]:.3f} to {row["upper"]:.3f}'),
      page.cell(f'{row["training_accuracy"]:.3f}'),
      page.cell(row['num_iterations']),
    ] for row in rows
  ]
  head = ['layer', 'numbers', 'components', 'held-out accuracy',
          '95 % interval', 'on fitted images', 'iterations']
  return f'{warning}<p>{page.text(text)}</p>\n{page.table(head, cells)}'


def _embeddings(result):
  rows = result['embeddings']
  if not rows:
    return ''
  methods = tuple(dict.fromkeys(row['method'] for row in rows))
  layers = tuple(dict.fromkeys(row['layer'] for row in rows))
  found = {(row['layer'], row['method']): row for row in rows}
  cells = [
    [page.cell(layer), *(
      page.cell(f'{found[layer, method]["neighbour_accuracy"]:.3f}')
      for method in methods
    )] for layer in layers
  ]
  return (
    '<p>Share of the images that their five nearest neighbours in the plane '
    'name rightly, each image left out when it is named.</p>\n'
    + page.table(['layer', *methods], cells)
  )


def _similarity(result):
  between = [p for p in result['similarity'] if p.get('between')]
  items = ''
  for part in between:
    found = [
      (row, *max(zip(values, part['columns'], strict=True)))
      for row, values in zip(part['rows'], part['values'], strict=True)
    ]
    items += ''.join(
      f'<li>{page.text(row)} is most like {page.text(column)} of the other '
      f'model ({value:.2f})</li>\n' for row, value, column in found
    )
  return f'<ul>\n{items}</ul>\n' if items else ''


def _channels(result):
  part = result['channels']
  if not part:
    return ''
  text = (
    f'{part["first"]} ({part["num_first"]} images) against {part["second"]} '
    f'({part["num_second"]}). A channel differs where the p-value of Welch’s '
    't, adjusted for all channels of its layer (Holm), is below 0.05.'
  )
  cells = [
    [
      page.cell(layer['layer']), page.cell(layer['num_channels']),
      page.cell(layer['num_different']), page.cell(one['channel']),
      page.cell(f'{one["first_mean"]:.3g} ± {one["first_std"]:.2g}'),
      page.cell(f'{one["second_mean"]:.3g} ± {one["second_std"]:.2g}'),
      page.cell(f'{one["difference"]:+.3g} ({one["lower"]:.3g} to '
                f'{one["upper"]:.3g})'),
      page.cell('–' if one['ratio'] is None else f'{one["ratio"]:.3g}'),
      page.cell(f'{one["adjusted_p"]:.1g}'),
    ]
    for layer in part['layers'] for one in layer['top'][:1]
  ]
  head = ['layer', 'channels', 'differ', 'most', part['first'], part['second'],
          'difference (95 %)', 'ratio', 'adjusted p']
  return f'<p>{page.text(text)}</p>\n{page.table(head, cells)}'


def _weights(result):
  rows = result['weights']
  if not rows:
    return ''
  cells = [
    [
      page.cell(row['name']), page.cell(' × '.join(map(str, row['shape']))),
      *(page.cell(f'{row[name]:.3g}') for name in (
        'mean', 'std', 'minimum', 'maximum', 'norm'
      )), page.cell(f'{100 * row["zeros"]:.3g} %'),
    ] for row in rows
  ]
  table = page.table(
    ['array', 'shape', 'mean', 'std', 'least', 'largest', 'norm', 'zero'],
    cells,
  )
  return (
    f'<details><summary>All {len(rows)} arrays</summary>{table}</details>\n'
  )


def _region(part, figures):
  """Returns the section of one kind of region.

  Args:
    part: 'kind' in words, 'definition', 'fill', 'quantity', 'num_images' (all
      of them), 'areas', 'changes', 'control_changes', 'num_changed' and
      'num_control_changed' of those that have it, 'effect_p' (None without
      any), 'groups' (None, or `GroupComparison.as_dict` of the certainty with
      and without), 'within' (the same by class) and 'examples'.
    figures: PNG files by stem.
  """
  number = len(part['areas'])
  text = (
    f'{part["definition"]}: {number} of {part["num_images"]} images have some.'
  )
  body = f'<p>{page.text(text)}</p>\n'
  if number:
    size = lambda values: sum(map(abs, values)) / number
    line = (
      f'Without them {part["num_changed"]} of these answers change, and the '
      f'{part["quantity"]} of the answer moves by '
      f'{size(part["changes"]):.4f} on average; the same shape elsewhere '
      f'changes {part["num_control_changed"]} and moves it by '
      f'{size(part["control_changes"]):.4f}'
    )
    if part['effect_p'] is not None:
      line += f' (Wilcoxon’s signed ranks: p = {part["effect_p"]:.2g})'
    body += f'<p>{page.text(line)}.</p>\n'
  if part['groups']:
    rows = {'all classes': part['groups'], **part['within']}
    cells = [
      [
        page.cell(name), page.cell(one['num_first']),
        page.cell(one['num_second']), page.cell(f'{one["first_median"]:.3f}'),
        page.cell(f'{one["second_median"]:.3f}'),
        page.cell(f'{one["superiority"]:.3f}'),
        page.cell(f'{one["p_value"]:.2g}'),
      ] for name, one in rows.items()
    ]
    body += page.table([
      'certainty', 'images with', 'without', 'median with', 'median without',
      'surer with', 'p (Mann–Whitney)',
    ], cells) + (
      '<p class="note">“Surer with” is the probability that an image with them '
      'is answered more surely than one without, 0.5 is no difference. All '
      'classes together the regions may stand for the classes that have '
      'them.</p>\n'
    )
  return _section(f'Region: {part["kind"]}', body, figures, {
    f'region_{part["kind"]}':
      'The region outlined; the dots are the images that have it.',
  })
