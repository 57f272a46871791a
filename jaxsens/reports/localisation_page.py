"""The page about whether heat maps show the defects."""

from collections.abc import Mapping
from typing import Any

from jaxsens.reports import page

_MAIN = ('Dice', 'IoU', 'precision', 'recall', 'accuracy')
_CAPTIONS = {
  'dice': 'Dice of each method with its interval over the images. Grey: maps '
          'that know nothing of the network.',
  'examples': 'The maps as they are judged, with the sign and the blur that '
              'the validation images chose; each on a scale of its own, dark '
              'is most. The orange outline is the true mask.',
}


def render(
  result: Mapping[str, Any], figures: Mapping[str, bytes]
) -> str:
  """Returns the page as HTML.

  Args:
    result: 'title'; 'facts' by name; 'class_names'; 'num_images',
      'num_validation'; 'level' of the intervals; 'grid' of 'signs', 'blurs' and
      'thresholds'; 'everything_dice', of calling every pixel a defect;
      'replacement' of pixels; 'refused', reasons by method; 'comparison' of
      'best', 'dice', 'baseline', 'difference', 'lower', 'upper'; and 'rows',
      each of 'method', 'kind' ('method' or 'baseline'), 'measures' by name of
      'value', 'lower', 'upper', 'num_undefined', 'dice_of_class' by name,
      'choice' of 'sign', 'blur', 'threshold', 'validation_dice', 'at_border',
      and where there is such a thing 'images_per_second', 'cpu_seconds',
      'num_gradients', 'num_forwards', 'completeness', 'sanity' and
      'faithfulness'. None stands for a number that does not exist.
    figures: PNG files by stem, 'dice' and 'examples'.
  """
  rows = sorted(result['rows'], key=lambda row: -_dice(row))
  methods = [row for row in rows if row['kind'] == 'method']
  body = (
    f'<h1>{page.text(result["title"])}</h1>\n',
    _facts(result['facts']),
    _verdict(result),
    _pictures(figures),
    _masks(rows, result),
    _classes(rows, result),
    _maps(rows),
    _costs(methods),
    _checks(rows, result),
    _choices(rows, result),
    _refused(result['refused']),
  )
  return page.document(result['title'], ''.join(body))


def _dice(row):
  value = row['measures']['Dice']['value']
  return -1 if value is None else value


def _facts(facts):
  rows = ''.join(
    f'<dt>{page.text(name)}</dt><dd>{page.text(value)}</dd>\n'
    for name, value in facts.items()
  )
  return f'<dl class="facts">\n{rows}</dl>\n'


def _verdict(result):
  found = result['comparison']
  better = found['lower'] > 0
  span = f'{found["lower"]:+.3f} to {found["upper"]:+.3f}'
  text = (
    f'the best method is {found["best"]}, Dice {found["dice"]:.3f}. The best '
    f'map without a network is “{found["baseline"]}”; the method is '
    f'{found["difference"]:+.3f} above it on the same images ({span}). '
    'Calling every pixel a defect has '
    f'{result["everything_dice"]:.3f}.'
  )
  word = 'Heat maps help:' if better else 'No better than without a network:'
  return (
    f'<p class="verdict {"good" if better else "bad"}">'
    f'<strong>{word}</strong> {page.text(text)}</p>\n'
    '<p class="note">The best of many methods is named by the images that it '
    'is judged on: its lead over the next ones is a little too '
    'good.</p>\n'
  )


def _pictures(figures):
  return ''.join(
    page.picture(figures[stem], caption, caption)
    for stem, caption in _CAPTIONS.items() if stem in figures
  )


def _section(title, *content):
  return f'<section><h2>{page.text(title)}</h2>\n{"".join(content)}</section>\n'


def _note(text):
  return f'<p class="note">{page.text(text)}</p>\n'


def _name(row):
  mark = '' if row['kind'] == 'method' else ' (no network)'
  return page.cell(f'{row["method"]}{mark}')


def _number(value, digits=3):
  return '–' if value is None else f'{value:.{digits}f}'


def _masks(rows, result):
  """Measures of the masks that the maps become."""
  cells = []
  for row in rows:
    line = [_name(row)]
    for name in _MAIN:
      one = row['measures'][name]
      line.append(page.cell(_number(one['value'])))
      if name == 'Dice':
        line.append(page.cell(
          f'{_number(one["lower"])} to {_number(one["upper"])}'
        ))
    cells.append(line)
  interval = f'{100 * result["level"]:g} % interval'
  head = ['method', 'Dice', interval, *_MAIN[1:]]
  return _section('Maps as masks', page.table(head, cells), _note(
    f'Means over {result["num_images"]} images. Sign, blur and threshold of '
    f'each method were chosen on {result["num_validation"]} other images. '
    'Accuracy counts the background as well and is high where the defect is '
    'small.'
  ))


def _classes(rows, result):
  names = [
    name for name in result['class_names']
    if any(name in row['dice_of_class'] for row in rows)
  ]
  cells = [
    [_name(row), *(
      page.cell(_number(row['dice_of_class'].get(name))) for name in names
    )] for row in rows
  ]
  return _section(
    'Dice by class', page.table(['method', *names], cells),
    _note('One threshold serves all classes.'),
  )


def _maps(rows):
  """Measures of the maps themselves."""
  names = [name for name in rows[0]['measures'] if name not in _MAIN]
  cells = []
  for row in rows:
    line = [_name(row)]
    for name in names:
      one = row['measures'][name]
      left = f' ({one["num_undefined"]} without)' * bool(one['num_undefined'])
      line.append(page.cell(f'{_number(one["value"])}{left}'))
    cells.append(line)
  return _section('Maps without a threshold', page.table(
    ['method', *names], cells
  ), _note(
    'Of the maps with the chosen sign and blur. Pointing game: is the largest '
    'value on the defect; mass accuracy: the share of the positive values '
    'there; rank accuracy: the share of the defect among as many largest '
    'values; AUROC, AUPRC: areas over the pixels of an image; AUPRO: overlap '
    'of regions, a small one counting as much as a large one.'
  ))


def _costs(methods):
  cells = [
    [
      _name(row), page.cell(f'{row["images_per_second"]:.3g}'),
      page.cell(f'{row["cpu_seconds"]:.3g}'),
      page.cell(f'{row["num_gradients"]:.4g}'),
      page.cell(f'{row["num_forwards"]:.4g}'),
      page.cell('–' if row['completeness'] is None
                else f'{row["completeness"]:.2g}'),
    ]
    for row in sorted(methods, key=lambda row: row['cpu_seconds'])
  ]
  return _section('What they take', page.table([
    'method', 'images per second', 'CPU seconds', 'gradients', 'passes',
    'completeness error',
  ], cells), _note(
    'CPU seconds (of all cores), gradients and passes of the network per '
    'image. Warm: nothing is compiled while the test images are explained. '
    'Images per second suffer from what else the machine does, CPU seconds '
    'hardly. '
    'Completeness error: what the values of a map and what the score gains '
    'over the baseline differ by, in gains of the score, median over the test '
    'images; only integrals and DeepLIFT promise a small one.'
  ))


def _checks(rows, result):
  cells = []
  for row in rows:
    sanity, areas = row.get('sanity'), row.get('faithfulness')
    if not (sanity or areas):
      continue
    line = [_name(row)]
    if sanity:
      left = f' ({sanity["num_undefined"]} without)' * bool(
        sanity['num_undefined']
      )
      line += [
        page.cell(f'{_number(sanity["spearman"], 2)}{left}'),
        page.cell(_number(sanity['absolute_spearman'], 2)),
      ]
    else:
      line += [page.cell('–')] * 2
    line += [
      page.cell(_number(areas[name] if areas else None))
      for name in ('deletion', 'insertion')
    ]
    cells.append(line)
  if not cells:
    return ''
  numbers = {
    part: max(row[part]['num_images'] for row in rows if part in row)
    for part in ('sanity', 'faithfulness') if any(part in row for row in rows)
  }
  words = {
    'sanity': 'Spearman: rank correlation with the map of the same network '
              'after its params were permuted within each array, of {} images; '
              'near 1 (or -1) the map shows the image and not what was '
              'learned. Sizes: the same without the signs. A map that is the '
              'same everywhere has no order and is left out.',
    'faithfulness': 'Deletion and insertion: area under the probability of the '
                    'class while pixels are exchanged, the largest values '
                    'first, of {} images; small and large are good. '
                    'What stands for a pixel that is taken away: '
                    f'{result["replacement"]}.',
  }
  notes = ''.join(
    _note(words[part].format(number)) for part, number in numbers.items()
  )
  return _section('Are they about the network?', page.table([
    'method', 'Spearman', 'of sizes', 'deletion', 'insertion'
  ], cells), notes)


def _choices(rows, result):
  cells = [
    [
      _name(row), page.cell(row['choice']['sign'], 'text'),
      page.cell(f'{row["choice"]["blur"]:g}'),
      page.cell(f'{row["choice"]["threshold"]:g}'),
      page.cell(_number(row['choice']['validation_dice'])),
      page.cell(', '.join(_ends(row['choice'])) or '–', 'text'),
    ] for row in rows
  ]
  grid = '; '.join(
    f'{name} {", ".join(map(str, values))}'
    for name, values in result['grid'].items()
  )
  return _section('What was chosen', page.table([
    'method', 'sign', 'blur', 'threshold', 'validation Dice',
    'at the end of the grid',
  ], cells, ('sign', 'at the end of the grid')), _note(
    f'The grid: {grid}. Blurs in pixels; a pixel is a defect where the map is '
    'above its mean by so many standard deviations.'
  ))


def _ends(choice):
  """Returns what is at an end of the grid that could be moved."""
  return [
    name for name in choice['at_border'] if name != 'blur' or choice['blur']
  ]


def _refused(refused):
  if not refused:
    return ''
  items = ''.join(
    f'<li><b>{page.text(name)}</b>: {page.text(reason)}</li>\n'
    for name, reason in refused.items()
  )
  return _section('Not done', f'<ul>\n{items}</ul>\n')
