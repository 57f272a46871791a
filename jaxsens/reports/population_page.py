"""The report of a whole data set: one self-contained page, tables, figures.

The first lines answer in sentences: what moves the accuracy and by how much,
how many images are to be believed and why others are not, which class is the
most fragile. Figures follow, then a table of all images.
"""

from collections.abc import Mapping
import os
import pathlib

import numpy as np

from jaxsens import files
from jaxsens.reports import accuracy_figures
from jaxsens.reports import convergence
from jaxsens.reports import page
from jaxsens.reports import population_figures
from jaxsens.reports import population_results
from jaxsens.reports import population_sentences
from jaxsens.reports import population_tables
from jaxsens.reports import sentences
from jaxsens.reports import style

# Stem of a figure -> heading, caption.
_FIGURES = {
  'accuracy': (
    'What moves the accuracy',
    'Accuracy along each factor, averaged over the other factors, with a 95 % '
    'band over images; below, shares of its variance.',
  ),
  'fragility': (
    'Which images break',
    'Images by the probability of a wrong class under the factors, with the '
    'factor of the largest total index.',
  ),
  'class_totals': (
    'Which factor moves which class',
    'Mean total index of the images of each class with its 95 % interval; in '
    'brackets, how many images were averaged.',
  ),
  'distributions': (
    'How the images differ',
    'One mark per image. Boxes: 5, 25, 50, 75 and 95 % of all images; bars: '
    'median of a class.',
  ),
  'convergence': (
    'How the intervals narrowed',
    'Largest half-width of the intervals of each image against its model runs.',
  ),
}


def write_all(
  directory: str | os.PathLike, study: population_results.PopulationStudy
) -> dict[str, pathlib.Path]:
  """Writes the tables, the figures and the report of a data set.

  Each file is written whole or not at all, the report last.

  Args:
    directory: Where to write; made if absent.
    study: The results.

  Returns:
    Paths by name: 'population.csv', 'population.npz',
    'figures/population_<stem>.png' and 'population.html'.

  Raises:
    OSError: If the directory cannot be written.
  """
  directory = pathlib.Path(directory)
  paths = {
    name: write(directory / name, study) for name, write in (
      ('population.csv', population_tables.write_csv),
      ('population.npz', population_tables.write_npz),
    )
  }  # fmt: skip
  pictures = render_figures(study)
  for stem, picture in pictures.items():
    name = f'figures/population_{stem}.png'
    paths[name] = files.write_bytes(directory / name, picture)
  paths['population.html'] = write_report(
    directory / 'population.html', study, pictures
  )
  return paths


def render_figures(
  study: population_results.PopulationStudy,
) -> dict[str, bytes]:
  """Returns every figure that the results allow as PNG, by stem.

  Args:
    study: The results.

  Returns:
    'accuracy' with indices of the accuracy, 'fragility' with thumbnails,
    'class_totals', 'distributions', 'convergence' with recorded steps.
  """
  figures = {
    'class_totals': population_figures.plot_class_totals,
    'distributions': population_figures.plot_distributions,
  }
  if study.accuracy is not None:
    figures['accuracy'] = accuracy_figures.plot_accuracy
  if study.thumbnails is not None:
    figures['fragility'] = population_figures.plot_fragility
  if study.steps:
    figures['convergence'] = lambda study: convergence.plot(
      study.steps, study.tolerance
    )
  return {
    stem: style.render_png(plot(study)) for stem, plot in figures.items()
  }


def write_report(
  path: str | os.PathLike,
  study: population_results.PopulationStudy,
  pictures: Mapping[str, bytes],
) -> pathlib.Path:
  """Writes the report of a data set as one HTML file.

  Args:
    path: Where to write.
    study: The results.
    pictures: PNG files by stem, as `render_figures` returns them; any may be
      absent.

  Returns:
    The path.
  """
  sections = ''.join(
    f'<section><h2>{page.text(heading)}</h2>\n'
    f'{page.picture(pictures[stem], heading, caption)}'
    f'{_accuracy_table(study) if stem == "accuracy" else ""}</section>\n'
    for stem, (heading, caption) in _FIGURES.items() if stem in pictures
  )
  body = (
    f'{_first_lines(study)}{sections}{_images(study)}'
    f'<section><h2>Provenance</h2>\n<div class="tree">'
    f'{page.tree(study.provenance)}</div></section>\n'
  )
  return files.write_text(path, page.document(study.title, body))


def _first_lines(study):
  population = study.population
  share = np.mean(population.trusted)
  trust = ' good' if share == 1 else ' bad' if share < 0.5 else ''
  written = (
    ('answer', population_sentences.accuracy_sentences(study)),
    ('answer', population_sentences.image_sentence(study)),
    ('answer', population_sentences.class_sentence(study)),
    (f'verdict{trust}', population_sentences.trust_sentences(study)),
    ('note', population_sentences.undefined_sentence(study)),
  )
  paragraphs = ''.join(
    f'<p class="{kind}">{page.text(text)}</p>\n'
    for kind, text in written if text
  )
  runs = np.asarray(population.num_evaluations)
  facts = {
    'Data': study.data_description,
    'Images': f'{population.num_images:,} in {len(population.class_names)} '
              f'classes',
    'Factors': _factors(study),
    'Model runs': f'{runs.sum():,.0f}, {np.median(runs):,.0f} for the median '
                  f'image',
  }
  rows = ''.join(
    f'<dt>{page.text(name)}</dt><dd>{page.text(fact)}</dd>\n'
    for name, fact in facts.items()
  )
  return (
    f'<h1>{page.text(study.title)}</h1>\n{paragraphs}'
    f'<dl class="facts">\n{rows}</dl>\n'
  )


def _factors(study):
  if not study.axes:
    return ', '.join(study.population.factor_names)
  return '; '.join(
    f'{axis.name} {axis.values[0]:.3g} to {axis.values[-1]:.3g} {axis.unit}'
    .strip() for axis in study.axes
  )


def _accuracy_table(study):
  """Indices of the accuracy of every group."""
  accuracy = study.accuracy
  names = [axis.name for axis in study.axes]
  rows = []
  for g, group in enumerate(accuracy.group_names):
    fails = study.fragility.failure_probability
    rows.append([
      page.cell(group), page.cell(int(accuracy.num_images[g])),
      page.cell(_share(accuracy.accuracy, g)),
      page.cell(f'{accuracy.deviation[g]:.3f}'),
      page.cell(_share(fails, g)),
      *(
        page.cell(
          f'{_share(accuracy.first_order, (g, d))} / '
          f'{_share(accuracy.total, (g, d))}'
        ) for d in range(len(names))
      ),
    ])  # fmt: skip
  head = ['group', 'images', 'accuracy', 'standard deviation',
          'failure probability', *names]
  note = (
    'Accuracy over the factors; per factor: share of its variance alone / '
    'with interactions, for images like these, with 95 % intervals.'
  )
  return f'{page.table(head, rows)}<p class="note">{page.text(note)}</p>\n'


def _images(study):
  population = study.population
  head = ['image', 'rank', 'true class', 'answer', 'fails', 'leading factor',
          *population.factor_names, 'Q2', 'method', 'runs', 'trust']
  rows = [
    _image_row(study, rank, i) for rank, i in enumerate(study.fragility.order)
  ]
  note = (
    'Most fragile first. Per factor: share of the variance of '
    f'{population.output_names[study.output]} alone / with its interactions '
    'and the interval of that; ~: another factor may lead.'
  )
  return (
    f'<section><h2>All images</h2>\n<p class="note">{page.text(note)}</p>\n'
    + page.table(head, rows, (
      'true class', 'answer', 'leading factor', 'method', 'trust'
    )) + '</section>\n'
  )  # fmt: skip


def _image_row(study, rank, i):
  population, k = study.population, study.output
  names = population.class_names
  reason = population.reasons[i] if population.reasons else None
  trusted = bool(population.trusted[i])
  q2 = population.q2[i, k]
  return [
    page.cell(population.image_names[i]), page.cell(rank + 1),
    page.cell(names[population.labels[i]], 'text'),
    page.cell(names[population.predictions[i]],
              'text' if population.correct[i] else 'text wrong'),
    page.cell(sentences.format_share(
      population.failure_probability[i]
    ).replace('undefined', '–')),
    page.cell(population_figures.leading_text(study, i), 'text'),
    *(
      page.cell(_index_text(population, i, d, k))
      for d in range(len(population.factor_names))
    ),
    page.cell(f'{q2:.3f}' if np.isfinite(q2) else '–'),
    page.cell(population.method[i], 'text'),
    page.cell(f'{population.num_evaluations[i]:,.0f}'),
    page.cell('yes', 'text') if trusted
    else page.cell(f'no: {reason or "no reason was recorded"}', 'text wrong'),
  ]  # fmt: skip


def _index_text(population, i, d, k):
  if not population.defined[i, k]:
    return '–'
  alone = sentences.format_share(population.first_order[i, d, k])
  total = sentences.format_share(population.total[i, d, k])
  return f'{alone} / {total}' + sentences.format_interval(
    population.total_lower[i, d, k], population.total_upper[i, d, k]
  )


def _share(estimate, where):
  return sentences.format_share(
    estimate.value[where]
  ).replace('undefined', '–') + sentences.format_interval(
    estimate.lower[where], estimate.upper[where]
  )
