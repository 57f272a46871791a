"""Everything that a run's directory shows: tables, figures, the report."""

import os
import pathlib

from jaxsens import files
from jaxsens.reports import convergence
from jaxsens.reports import figures
from jaxsens.reports import html
from jaxsens.reports import overview
from jaxsens.reports import results
from jaxsens.reports import style
from jaxsens.reports import tables


def write_all(
  directory: str | os.PathLike, run: results.RunResult
) -> dict[str, pathlib.Path]:
  """Writes the tables, the figures and the report of a run.

  Each file is written whole or not at all, the report last; figures of an
  earlier report of the same directory stay where no new one takes their name.

  Args:
    directory: Where to write; made if absent.
    run: The results.

  Returns:
    Paths by name: 'indices.csv', 'indices.json', 'metrics.json',
    'figures/<stem>.png' and 'report.html'.

  Raises:
    OSError: If the directory cannot be written.
  """
  directory = pathlib.Path(directory)
  writers = {
    'indices.csv': tables.write_indices_csv,
    'indices.json': tables.write_indices_json,
    'metrics.json': tables.write_metrics,
  }
  paths = {
    name: write(directory / name, run) for name, write in writers.items()
  }
  pictures = render_figures(run)
  for stem, picture in pictures.items():
    name = f'figures/{stem}.png'
    paths[name] = files.write_bytes(directory / name, picture)
  paths['report.html'] = html.write_report(
    directory / 'report.html', run, pictures
  )
  return paths


def render_figures(run: results.RunResult) -> dict[str, bytes]:
  """Returns every figure of a run as PNG, by file stem.

  Args:
    run: The results.

  Returns:
    'overview', 'totals' for two images or more, 'convergence' of an adaptive
    run, and those of each image.
  """
  pictures = {'overview': style.render_png(overview.plot_overview(run))}
  if len(run.images) > 1:
    pictures['totals'] = style.render_png(overview.plot_totals(run))
  if run.steps:
    pictures['convergence'] = style.render_png(
      convergence.plot(run.steps, run.tolerance)
    )
  for i, image in enumerate(run.images):
    for kind, figure in figures.image_figures(image, run.class_names):
      pictures[html.figure_stem(run, i, kind)] = style.render_png(figure)
  return pictures
