"""The page about which pixels speak for an answer."""

from collections.abc import Mapping
import pathlib
from typing import Any

import numpy as np

from jaxsens import files
from jaxsens.reports import attribution_figures
from jaxsens.reports import belief_figures
from jaxsens.reports import page


def write_all(
  folder: pathlib.Path,
  document: Mapping[str, Any],
  arrays: Mapping[str, np.ndarray],
) -> None:
  """Writes `explanation.html` and the figures in `explanation`.

  Args:
    folder: run directory.
    document: see `render`.
    arrays: see `render`.
  """
  figures = attribution_figures.draw_all(document, arrays)
  pictures = files.make_directory(folder / 'explanation')
  for stem, png in figures.items():
    files.write_bytes(pictures / f'{stem}.png', png)
  files.write_text(
    folder / 'explanation.html', render(document, arrays, figures)
  )


def render(
  document: Mapping[str, Any],
  arrays: Mapping[str, np.ndarray],
  figures: Mapping[str, bytes] | None = None,
) -> str:
  """Returns the page as HTML.

  Args:
    document: 'title'; 'facts' by name; 'quantity' that is explained;
      'class_names'; 'images' of 'name', 'label', 'answer', 'target' (classes),
      'certainty', 'score'; 'methods' of 'name', 'method', 'kind' (see
      `heat_maps.scale_of`), 'seconds'
      and, one per image, 'scores', 'baseline_scores', 'completeness_error',
      'relative_error' (None where the score gains nothing), 'num_gradients',
      'num_forwards', and 'complete', whether the values promise to sum to the
      gain; 'skipped' of 'name', 'reason'; 'annotate'; and, each
      empty or None where it was not done, 'classes' of 'layer', 'classes',
      'certainties'; 'panel' of 'factor', 'unit', 'values', 'image', 'answers',
      'certainties', 'methods'; 'paths' of 'factor', 'unit', 'start', and, one
      per image, 'ends', 'answers', 'certainties' (two each), 'changes',
      'positive', 'negative', 'completeness_error', 'num_gradients';
      'randomised' as methods, with 'spearman', 'absolute_spearman' and 'ssim';
      'belief' as `experiments.believing` has it;
      'indices' of 'method', 'factors', 'outputs', 'units', 'images'.
    arrays: 'images' (B, H, W, C); 'values/<method>' (B, H, W, C or 1); and, as
      far as there are such, 'masks' (B, H, W), 'classes' (B, K, H, W),
      'panel/images', 'panel/<method>', 'paths/<factor>/images' (B, 2, H, W, C),
      'paths/<factor>/values', 'randomised/<method>'.
    figures: PNG files by stem; None draws them.
  """
  if figures is None:
    figures = attribution_figures.draw_all(document, arrays)
  outlined = ' Outlined: where the defect is.' if 'masks' in arrays else ''
  body = (
    f'<h1>{page.text(document["title"])}</h1>\n',
    _facts(document['facts']),
    _section('Heat maps', _methods(document), figures, 'heat_maps',
             'The images exactly as the network sees them, and how much each '
             'pixel counts; below each map by how much its sum misses what the '
             'score gains over the baseline, where the method promises that it '
             f'does not, and what it took.{outlined}'),
    _section('For and against', '', figures, 'parts',
             'The maps of the first image in parts.'),
    _section('Every class', '', figures, 'classes',
             'What speaks for each class, without what speaks against it.'),
    _section('Over the range of a factor', '', figures, 'factor',
             'The class that is explained stays the same.'),
    _section('Effects of the factors', _paths(document), figures, 'paths',
             'The contributions belong to the pixels that the network sees, '
             'which move where the perturbation moves them; they add up to the '
             'change of the score but for the error of the integral.'),
    _section('Permuted parameters', _randomised(document), figures,
             'randomised', ''),
    _section('Can they be believed?', _belief(document), figures, 'belief', ''),
    _section('Where the map lies', _indices(document), figures, 'indices', ''),
    _section('Large', '', figures, 'annotated', ''),
    '<details><summary>Settings</summary>'
    f'{page.tree(document.get("settings", {}))}</details>\n',
  )
  return page.document(document['title'], ''.join(body))


def _section(title, content, figures, stem, caption):
  found = [
    name for name in figures
    if name == stem or name.rpartition('_')[0] == stem
  ]
  pictures = ''.join(
    page.picture(figures[name], f'{title}, {name}', caption if not i else '')
    for i, name in enumerate(found)
  )
  if not content and not pictures:
    return ''
  return (
    f'<section><h2>{page.text(title)}</h2>\n{pictures}{content}</section>\n'
  )


def _facts(facts):
  rows = ''.join(
    f'<dt>{page.text(name)}</dt><dd>{page.text(value)}</dd>\n'
    for name, value in facts.items() if value is not None
  )
  return f'<dl class="facts">\n{rows}</dl>\n'


def _methods(document):
  cells = [
    [
      page.cell(method['name']), page.cell(method['method'], 'text'),
      page.cell(_median(method['completeness_error'], '+.3g')),
      page.cell(
        _percent(method['relative_error']) if method['complete'] else
        'not promised'
      ),
      page.cell(_median(method['num_gradients'], ',.0f')),
      page.cell(_median(method['num_forwards'], ',.0f')),
      page.cell(f'{method["seconds"] / len(document["images"]):.2f}'),
    ] for method in document['methods']
  ]
  table = page.table(
    ['method', 'as done', 'sum off by', 'of the gain', 'gradients', 'passes',
     's per image'], cells, text_columns=['as done'],
  )
  left_out = ''.join(
    f'<li>{page.text(one["name"])}: {page.text(one["reason"])}</li>\n'
    for one in document['skipped']
  )
  return (
    '<p class="note">Medians over the images; seconds with compilation.</p>\n'
    + table + (f'<p>Left out:</p><ul>{left_out}</ul>\n' if left_out else '')
  )


def _paths(document):
  cells = [
    [
      page.cell(image['name']), page.cell(part['factor'], 'text'),
      page.cell(f'{part["start"]:.3g} to {part["ends"][i]:.3g} '
                f'{part["unit"]}'),
      page.cell(f'{part["changes"][i]:+.3g}'),
      page.cell(f'{part["positive"][i]:+.3g}'),
      page.cell(f'{part["negative"][i]:+.3g}'),
      page.cell(f'{part["completeness_error"][i]:+.2g}'),
      page.cell(f'{part["num_gradients"][i]:,}'),
    ]
    for i, image in enumerate(document['images'])
    for part in document['paths']
  ]
  return page.table(
    ['image', 'factor', 'path', 'change of the score', 'pixels for',
     'pixels against', 'sum off by', 'gradients'], cells,
    text_columns=['factor'],
  ) if cells else ''


def _randomised(document):
  cells = [
    [
      page.cell(method['name']), page.cell(_median(method['spearman'], '.2f')),
      page.cell(_median(method['absolute_spearman'], '.2f')),
      page.cell(_median(method['ssim'], '.2f')),
    ] for method in document['randomised']
  ]
  return page.table(
    ['method', 'rank correlation', 'of sizes', 'structural similarity'], cells
  ) + (
    '<p class="note">Medians over the images, of the maps of the network with '
    'those of a network whose parameters are permuted within each array. A map '
    'that stays alike shows the image, not what was learned.</p>\n'
  ) if cells else ''


def _belief(document):
  rows = document['belief']
  if not rows:
    return ''
  cells = [
    [page.cell(row['name'])] + [
      page.cell(_median(row[field] or (), '.3g'))
      for field, _ in belief_figures.MEASURES
    ] + [page.cell(_median(stage, '.2f')) for stage in row['cascade']]
    for row in rows
  ]
  titles = [title for _, title in belief_figures.MEASURES]
  return page.table(
    ['method', *titles, *(f'without {name}' for name in rows[0]['stages'])],
    cells,
  ) + (
    '<p class="note">Medians over the images; ↑ more is better, ↓ less. '
    'Deletion, insertion, ROAD: mean probability of the class while the pixels '
    'that count most are blackened, come back, or are imputed. MuFidelity: '
    'rank correlation of sums of the map with what blackening blocks costs. '
    'Infidelity: share of the changes under small noise that the map does not '
    'explain, for maps of such changes. Sensitivity: how far the map moves '
    'within 0.02 around the image, in its own norm. Other class: rank '
    'correlation with the map of another class. Without a layer: the same with '
    'the map of the network whose parameters are permuted from the last layer '
    'to this one. Two maps that show the image alone are alike.</p>\n'
  )


def _indices(document):
  part = document['indices']
  if not part:
    return ''
  cells = [
    [
      page.cell(document['images'][i]['name']), page.cell(output, 'text'),
      page.cell(_value(found['q2'][k], '.2f')), *(
        page.cell(f'{_value(found["first_order"][d][k], ".2f")} / '
                  f'{_value(found["total"][d][k], ".2f")}')
        for d in range(len(part['factors']))
      ),
      page.cell('yes' if found['trusted'][k] else 'no', 'text'),
    ]
    for i, found in enumerate(part['images'])
    for k, output in enumerate(part['outputs'])
  ]
  text = (
    'Shares of the variance over the perturbed images: first order / total. By '
    'kriging or sparse polynomials, from as many perturbed images as the '
    'intervals need; Q² is the share of the variance that these predict where '
    'they were not fitted.'
  )
  return f'<p>{page.text(text)}</p>\n' + page.table(
    ['image', 'output', 'Q²', *part['factors'], 'to be trusted'], cells,
    text_columns=['output', 'to be trusted'],
  )


def _median(values, form):
  known = [value for value in values if value is not None]
  return f'{np.median(known):{form}}' if known else '–'


def _percent(values):
  known = [value for value in values if value is not None]
  return f'{100 * np.median(known):.2g} %' if known else '–'


def _value(value, form):
  return '–' if value is None else f'{value:{form}}'
