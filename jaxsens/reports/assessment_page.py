"""The page of an assessment."""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from jaxsens import assessment
from jaxsens.reports import assessment_figures
from jaxsens.reports import page
from jaxsens.reports import style


def render(
  title: str,
  facts: Mapping[str, Any],
  parts: Mapping[str, assessment.Assessment],
  speed: Sequence[Mapping[str, float]],
  sheets: Sequence[tuple[str, bytes]],
  refusals: Sequence[assessment.Refusal] = (),
  refusal_note: str = '',
) -> str:
  """Returns the page as HTML.

  Args:
    title: of the page.
    facts: about network and data, by name.
    parts: assessments by name ('test', 'linear baseline', ...), the one that
      counts first; its curves are drawn.
    speed: {batch, milliseconds, images_per_second} per batch size.
    sheets: pictures as (caption, PNG).
    refusals: what thresholds on the certainty make of the first part.
    refusal_note: where they come from, or why there are none.
  """
  first_name, first = next(iter(parts.items()))
  body = [f'<h1>{page.text(title)}</h1>\n', _facts(facts)]
  body += ['<h2>Measures</h2>\n', _measures(parts)]
  body += [f'<h2>Classes ({page.text(first_name)})</h2>\n', _classes(first)]
  for plot, caption in (
    (lambda: assessment_figures.plot_confusion(
      first.confusion, first.class_names), 'What is taken for what.'),
    (lambda: assessment_figures.plot_roc(first.classes),
     'How well each class is told from the rest.'),
    (lambda: assessment_figures.plot_trust(
      first.reliability, first.risk_coverage),
     'Left: on the diagonal confidence is accuracy. Right: what is gained by '
     'refusing the least confident.'),
  ):
    body.append(page.picture(style.render_png(plot()), caption, caption))
  if refusals or refusal_note:
    body += ['<h2>Refusing the unsure</h2>\n', _refusals(refusals)]
    body.append(f'<p class="note">{page.text(refusal_note)}</p>\n')
  for caption, png in sheets:
    body.append(page.picture(png, caption, caption))
  if speed:
    body += ['<h2>Speed</h2>\n', _speed(speed)]
  return page.document(title, ''.join(body))


def _facts(facts):
  rows = ''.join(
    f'<dt>{page.text(name)}</dt><dd>{page.text(value)}</dd>\n'
    for name, value in facts.items()
  )
  return f'<dl class="facts">\n{rows}</dl>\n'


def describe(measure: assessment.Measure) -> str:
  """Returns a measure with its interval in words."""
  if measure.lower != measure.lower:
    return f'{measure.value:.4f}'
  return f'{measure.value:.4f} ({measure.lower:.4f} to {measure.upper:.4f})'


def _measures(parts):
  names = list(next(iter(parts.values())).measures)
  rows = [
    [page.cell(name), *(
      page.cell(describe(part.measures[name])) for part in parts.values()
    )]
    for name in names
  ]
  head = [
    'measure (95 % interval)',
    *(f'{name}, {part.num_images} images' for name, part in parts.items()),
  ]
  return page.table(head, rows, head[:1])


def _classes(one):
  rows = [
    [page.cell(c.name), page.cell(c.support), *(
      page.cell(f'{value:.3f}')
      for value in (c.precision, c.recall, c.f1, c.auc)
    )]
    for c in one.classes
  ]
  return page.table(
    ['class', 'images', 'precision', 'recall', 'F1', 'AUC'], rows, ['class']
  )


def _refusals(refusals):
  if not refusals:
    return ''
  names = list(refusals[0].measures)
  rows = [
    [
      page.cell(f'{one.threshold.asked:g}'),
      page.cell(_threshold(one.threshold)),
      *(page.cell(_known(one.measures[name])) for name in names),
    ]
    for one in refusals
  ]
  head = ['share to accept', 'least certainty', *names]
  return page.table(head, rows, head[:1])


def _threshold(threshold):
  text = f'{threshold.value:.6g}'
  if threshold.num_tied > 1:
    text += (
      f' ({threshold.num_tied} images lie on it, {threshold.coverage:.3f} '
      'accepted)'
    )
  return text


def _known(measure):
  return describe(measure) if measure.value == measure.value else 'none'


def _speed(speed):
  rows = [
    [page.cell(row['batch']), page.cell(f'{row["milliseconds"]:.2f}'),
     page.cell(f'{row["images_per_second"]:.1f}')]
    for row in speed
  ]
  return page.table(['batch', 'milliseconds a batch', 'images/s'], rows)
