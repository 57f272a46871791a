"""One self-contained page per run: no script, no link, every picture inside.

The first lines say what to believe: if any Q2 is too low they say that these
indices are not to be trusted and what to raise, before anything else.
"""

from collections.abc import Mapping
import os
import pathlib

from jaxsens import files
from jaxsens.reports import page
from jaxsens.reports import results
from jaxsens.reports import sentences
from jaxsens.reports import tables

_CAPTIONS = {
  'overview': 'Bars: share of the variance of the probability of the true '
              'class. Strips: each factor across its range, the others at '
              'their identity (black mark).',
  'totals': 'Total indices of the probability of the true class.',
  'convergence': 'Largest half-width of the intervals against the runs.',
  'indices': 'First-order (dark) and total (light) indices.',
  'interactions': 'Shares of pairs of factors; first-order on the diagonal.',
  'curves': 'The answer along each factor, the others at their identity.',
  'contact': 'Perturbed images; a wrong answer is framed and crossed.',
  'surface': 'The expansion over two factors; dots are the network itself.',
}


def write_report(
  path: str | os.PathLike,
  run: results.RunResult,
  figures: Mapping[str, bytes],
) -> pathlib.Path:
  """Writes the report of a run as one HTML file.

  Args:
    path: Where to write.
    run: The results.
    figures: PNG files by stem: 'overview' and 'totals' over all images,
      `figure_stem(run, i, kind)` for those of image i; any may be absent.

  Returns:
    The path.
  """
  sections = ''.join(
    _image_section(run, i, figures) for i in range(len(run.images))
  )
  body = _first_lines(run) + _summary(run, figures) + sections
  body += _provenance(run)
  return files.write_text(path, page.document(run.title, body))


def figure_stem(run: results.RunResult, i: int, kind: str) -> str:
  """Returns the file name, without ending, of a figure of image i."""
  name = os.path.splitext(run.images[i].name)[0]
  safe = ''.join(c if c.isascii() and c.isalnum() else '_' for c in name)
  return f'{i:02d}_{safe[-40:].strip("_")}_{kind}'


def _first_lines(run):
  refused = _refusals(run)
  verdict = refused if refused else _trust(run)
  title = f'<h1>{page.text(run.title)}</h1>\n'
  return title + verdict + _reservations(run) + _sharp(run) + _facts(run)


def _refusals(run):
  """Returns the refusal of indices of the answer, '' if all are accepted."""
  items = _items(
    (image.name, sentences.doubt(image)) for image in run.images
  )
  if not items:
    return ''
  return (
    '<div class="verdict bad"><strong>Do not trust these indices '
    f'({len(items)} of {len(run.images)} images).</strong>\n'
    f'<ul>\n{"".join(items)}</ul></div>\n'
  )


def _trust(run):
  lowest = min(image.q2[image.main_output] for image in run.images)
  if run.images[0].max_half_width is not None:
    widest = max(image.half_width(image.main_output) for image in run.images)
    return (
      '<p class="verdict good"><strong>The indices can be trusted.</strong> '
      'Their intervals, which count what the nodes have not shown, reach '
      f'±{widest:.2g} at most (trusted up to '
      f'±{run.images[0].max_half_width:g}); cross-validation explains at '
      f'least {100 * lowest:.0f} % of the variance of the probability of the '
      'true class.</p>\n'
    )
  return (
    '<p class="verdict good"><strong>The indices can be trusted.</strong> On '
    'held-out nodes the expansions explain at least '
    f'{100 * lowest:.1f} % of the variance of the probability of the true '
    f'class (Q2 ≥ {lowest:.3f}; needed: {results.MINIMUM_Q2:g}).</p>\n'
  )


def _reservations(run):
  """Returns which other outputs have indices that are not to be trusted."""
  items = _items(
    (image.name, '; '.join(filter(None, [
      ', '.join(
        f'{image.output_names[k]} ({image.check(k)})'
        for k in sentences.doubtful_outputs(image)
      ),
      '; '.join(image.advice) if image.accepted else '',
    ])))
    for image in run.images if sentences.doubtful_outputs(image)
  )
  if not items:
    return ''
  return (
    '<details class="verdict"><summary>Not to be trusted among the other '
    f'outputs: some of {len(items)} of {len(run.images)} images</summary>\n'
    f'<ul>\n{"".join(items)}</ul></details>\n'
  )


def _sharp(run):
  """Returns along which factors the answers are sharp, '' if none is."""
  items = _items(
    (image.name, sentences.sharpness(image)) for image in run.images
  )
  if not items:
    return ''
  return (
    f'<details class="verdict"><summary>Sharp responses: {len(items)} of '
    f'{len(run.images)} images</summary>\n<p>Degree that a polynomial of the '
    'probability of the true class needs to miss no more than 1 % of '
    'its variance, for factors where no affordable grid carries it. The '
    'network itself may be sharper than its surrogate, on which this is '
    f'read off.</p>\n<ul>\n{"".join(items)}</ul></details>\n'
  )


def _items(texts):
  """Returns list items of (image, text), without those of empty text."""
  return [
    f'<li><b>{page.text(name)}</b>: {page.text(text)}</li>\n'
    for name, text in texts if text
  ]


def _facts(run):
  accuracy = _find(run.provenance, 'validation_accuracy')
  model = run.provenance.get('model', 'model not recorded')
  quality = (
    f'validation accuracy {100 * accuracy:.1f} %'
    if isinstance(accuracy, int | float) else 'validation accuracy not recorded'
  )
  factors = '; '.join(
    f'{factor["name"]} {_value(factor["lower"])} to {_value(factor["upper"])} '
    f'{factor["unit"]}'.strip() + f' ({factor["distribution"]})'
    for factor in run.factors
  )
  facts = {
    'Data': run.data_description,
    'Model': f'{model}, {quality}',
    'Factors': factors,
  }
  evaluations = _find(run.provenance, 'num_evaluations')
  if isinstance(evaluations, int | float):
    facts['Evaluations'] = f'{evaluations:,.0f} perturbed images'
  rows = ''.join(
    f'<dt>{page.text(name)}</dt><dd>{page.text(fact)}</dd>\n'
    for name, fact in facts.items()
  )
  return f'<dl class="facts">\n{rows}</dl>\n'


def _value(value):
  return f'{value:.4g}' if isinstance(value, int | float) else value


def _find(tree, name):
  """Returns the first entry of that name at any depth, None if absent."""
  if not hasattr(tree, 'items'):
    return None
  if name in tree:
    return tree[name]
  found = (_find(branch, name) for branch in tree.values())
  return next((entry for entry in found if entry is not None), None)


def _summary(run, figures):
  answers = ''.join(
    f'<li><b>{page.text(image.name)}</b> ({page.text(image.label_name)}): '
    f'{page.text(sentences.answer_sentence(image))}</li>\n'
    for image in run.images
  )
  totals = _figure(figures, 'totals', 'Totals') if len(run.images) > 1 else ''
  steps = _figure(figures, 'convergence', 'Convergence') if run.steps else ''
  return (
    f'<h2>The answer</h2>\n<ul>\n{answers}</ul>\n'
    f'{_figure(figures, "overview", "Overview of all images")}'
    f'<h2>Indices of the probability of the true class</h2>\n'
    f'{_summary_table(run)}{totals}{steps}'
  )


def _summary_table(run):
  names = run.images[0].factor_names
  head = ['image', 'true class', 'answer', *names, 'Q2', 'trust']
  rows = []
  for image in run.images:
    answer = f'{image.prediction_name}, {100 * image.confidence:.0f} %'
    k = image.main_output
    rows.append([
      page.cell(image.name), page.cell(image.label_name, 'text'),
      page.cell(answer, 'text' if image.correct else 'text wrong'),
      *(page.cell(_both_shares(row)) for row in tables.index_rows(image)),
      page.cell(f'{image.q2[k]:.3f}' if image.q2[k] == image.q2[k] else '–'),
      page.cell('yes') if image.accepted else page.cell('no', 'wrong'),
    ])
  note = 'Per factor: share of the variance alone / with its interactions.'
  table = page.table(head, rows, ('true class', 'answer'))
  return table + f'<p class="note">{note}</p>\n'


def _both_shares(row):
  alone = sentences.format_share(row['first_order'])
  total = sentences.format_share(row['total'])
  return alone if alone == total == 'undefined' else f'{alone} / {total}'


def _image_section(run, i, figures):
  image = run.images[i]

  def shown(kind):
    stem = figure_stem(run, i, kind)
    return _figure(figures, stem, f'{image.name}: {kind}', kind)

  surfaces = ''.join(
    shown(f'surface_{j}') for j in range(len(image.surfaces))
  )
  heading = page.text(f'{image.name} ({image.label_name})')
  return (
    f'<section><h2>{heading}</h2>\n'
    f'<p>{page.text(sentences.answer_sentence(image))}</p>\n'
    f'{_factor_table(image)}{_subset_note(image)}{_limits(image)}'
    f'<div class="pair">{shown("indices")}{shown("interactions")}</div>\n'
    f'{shown("curves")}{shown("contact")}{surfaces}'
    f'{_outputs_table(image)}</section>\n'
  )


def _limits(image):
  """Returns safe ranges, safe box and worst case as sentences, '' if none."""
  limits = image.limits
  units = dict(zip(image.factor_names, image.factor_units, strict=True))

  def span(name, box):
    if box['status'] == 'nominal fails':
      return f'{name}: none'
    low, high = box['limits'][name]
    return f'{name} {low:.3g} to {high:.3g} {units[name]}'.strip()

  lines = []
  if 'safe_box' in limits:
    share, box = f'{100 * limits["max_failure"]:g} %', limits['safe_box']
    ranges = ', '.join(
      span(name, found) for name, found in limits['safe_range'].items()
    )
    joint = ', '.join(span(name, box) for name in box['limits'])
    lines.append(
      'The class is wrong with probability '
      f'{limits["failure_probability"]:.2f} over all factors. Safe range '
      f'(wrong in at most {share}) of each factor alone: {ranges}. Of all '
      'together: '
      + (joint if box['status'] in ('box', 'whole') else box['status'])
      + f' ({100 * box["mass"]:.2g} % of the probability'
      + (', refuted by the check).' if box['refuted'] else ').')
    )
  if 'worst_case' in limits:
    worst = limits['worst_case']
    where = ', '.join(
      f'{name} {value:.3g} {units[name]}'.strip()
      for name, value in worst['values'].items()
    )
    lines.append(
      f'Worst case found: margin {worst["margin"]:.3g} at {where} (unperturbed '
      f'{worst["nominal_margin"]:.3g}).'
    )
  return ''.join(
    f'<p class="note">{page.text(line)}</p>\n' for line in lines
  )


def _factor_table(image):
  head = ['factor', 'alone', 'with interactions', 'mean derivative',
          'first error below', 'first error above']
  rows = []
  for row in tables.index_rows(image):
    curve = image.curve(row['factor'])
    shares = [
      sentences.format_share(row[index]) + sentences.format_interval(
        row[f'{index}_lower'], row[f'{index}_upper']
      ) for index in ('first_order', 'total')
    ]
    slope = row['mean_derivative']
    per = f' per {row["unit"]}' if row['unit'] else ''
    errors = [
      '–' if curve is None else 'never' if row[end] is None
      else sentences.format_value(
        row[end], row['unit'], signed=curve.identity == 0
      )
      for end in ('first_error_below', 'first_error_above')
    ]
    rows.append([
      page.cell(entry) for entry in (
        row['factor'], *shares,
        f'{slope:+.2g}{per}' if slope == slope else 'undefined', *errors,
      )
    ])
  return page.table(head, rows)


def _subset_note(image):
  k = image.main_output
  parts = [
    f'{tables.subset_name(image, subset)} '
    f'{sentences.format_share(image.subset_values[s, k])}'
    for s, subset in enumerate(image.subsets)
    if len(subset) > 1 and image.subset_values[s, k] >= 0.005
  ]
  joint = f' Acting together: {", ".join(parts)}.' if parts else ''
  moments = (
    f'{image.main_name} has the mean {image.mean[k]:.3g} and the standard '
    f'deviation {max(image.variance[k], 0) ** 0.5:.3g} over the factors.'
  )
  return f'<p class="note">{page.text(moments + joint)}</p>\n'


def _outputs_table(image):
  head = ['output', 'mean', 'standard deviation', *image.factor_names, 'Q2']
  explained = any(image.reasons)
  head += ['reason'] * explained
  rows = []
  for k, name in enumerate(image.output_names):
    q2, low = image.q2[k], not image.sufficient(k)
    rows.append([
      page.cell(name), page.cell(f'{image.mean[k]:.3g}'),
      page.cell(f'{max(image.variance[k], 0) ** 0.5:.3g}'),
      *(page.cell(_both_shares(row)) for row in tables.index_rows(image, k)),
      page.cell(f'{q2:.3f}' if q2 == q2 else '–', 'wrong' if low else ''),
      *[page.cell(image.reasons[k] or '', 'text reason')] * explained,
    ])
  return (
    '<details><summary>All outputs (share alone / with interactions)</summary>'
    f'{page.table(head, rows, ("reason",))}</details>\n'
  )


def _provenance(run):
  stages = _find(run.provenance, 'stage_seconds')
  seconds = ''
  if hasattr(stages, 'items'):
    rows = [[page.cell(name), page.cell(f'{value:.2f}')]
            for name, value in stages.items()]
    seconds = f'<h3>Seconds per stage</h3>\n{page.table(["stage", "s"], rows)}'
  return (
    f'<section><h2>Provenance</h2>\n<p>{page.text(run.data_description)}</p>\n'
    f'{seconds}<div class="tree">{page.tree(run.provenance)}</div></section>\n'
  )


def _figure(figures, stem, alternative, kind='') -> str:
  """Returns a figure with its caption, '' if there is none of that stem."""
  if stem not in figures:
    return ''
  caption = _CAPTIONS[(kind or stem).split('_')[0]]
  return page.picture(figures[stem], alternative, caption)
