"""The files that an assessment leaves in its run directory."""

from collections.abc import Mapping
from collections.abc import Sequence
import csv
import dataclasses
import io
import pathlib
import re
from typing import Any

import numpy as np
from scipy import special

from experiments import runs
from jaxsens import assessment
from jaxsens import files
from jaxsens.data import image_sets
from jaxsens.reports import answer_figures
from jaxsens.reports import assessment_page
from jaxsens.reports import style
from jaxsens.uncertainty import selection

_SHEET_IMAGES = 24


@dataclasses.dataclass(frozen=True)
class Found:
  """What is known of a classifier on a part of the data.

  Attributes:
    facts: about network and data, by name.
    parts: assessments by name.
    speed: see `assessment_page.render`.
    part: N labelled images.
    images: (N, H, W, C) as the network takes them.
    logits: (N, K).
    certainty: (N,).
    refusals: one per threshold; the first is that of pictures and predictions.
    note: where the thresholds come from, or why there are none.
  """

  facts: Mapping[str, Any]
  parts: Mapping[str, assessment.Assessment]
  speed: Sequence[Mapping[str, float]]
  part: image_sets.ImageSet
  images: np.ndarray
  logits: np.ndarray
  certainty: np.ndarray
  refusals: Sequence[assessment.Refusal]
  note: str

  @property
  def threshold(self) -> selection.Threshold | None:
    """The first one, if there is any."""
    return self.refusals[0].threshold if self.refusals else None

  @property
  def limit(self) -> float | None:
    """Least certainty that is accepted by it."""
    return self.threshold.value if self.threshold else None

  @property
  def answers(self) -> np.ndarray:
    """Class of each image, (N,)."""
    return self.logits.argmax(1)


def write(
  workdir: pathlib.Path, found: Found, *, num_annotated: int = 0
) -> None:
  """Writes evaluation.json, evaluation.html, predictions.csv and pictures.

  Args:
    workdir: the run directory.
    found: what is written.
    num_annotated: pictures in `annotated`, the least certain first; -1: all.
  """
  runs.write_json(workdir / 'evaluation.json', {
    'facts': found.facts, 'speed': found.speed,
    'parts': {name: one.as_dict() for name, one in found.parts.items()},
    'refusals': [one.as_dict() for one in found.refusals],
    'refusal_note': found.note,
  })
  files.write_text(workdir / 'predictions.csv', _predictions(found))
  title = f'{found.facts["network"]} on {len(found.part)} images'
  files.write_text(
    workdir / 'evaluation.html',
    assessment_page.render(
      title, found.facts, found.parts, found.speed, _sheets(found),
      found.refusals, found.note,
    ),
  )
  _write_annotated(workdir / 'annotated', found, num_annotated)


def _predictions(found) -> str:
  names, answers = found.part.class_names, found.answers
  p = special.softmax(found.logits, axis=1)
  text = io.StringIO()
  writer = csv.writer(text, lineterminator='\n')
  accepted = None
  if found.threshold:
    accepted = found.threshold.accepts(found.certainty)
  column = [] if accepted is None else ['accepted']
  writer.writerow(['image', 'label', 'answer', 'certainty', *column, *names])
  for i in range(len(found.part)):
    verdict = [] if accepted is None else ['yes' if accepted[i] else 'no']
    writer.writerow([
      found.part.names[i], names[found.part.labels[i]], names[answers[i]],
      f'{found.certainty[i]:.6f}', *verdict, *(f'{x:.6f}' for x in p[i]),
    ])
  return text.getvalue()


def _sheets(found) -> list[tuple[str, bytes]]:
  names, answers = found.part.class_names, found.answers
  labels, certainty = found.part.labels, found.certainty
  wrong = np.flatnonzero(answers != labels)
  sheets = []
  for title, chosen in (
    (f'{len(wrong)} wrong answers, the most certain first',
     wrong[np.argsort(-certainty[wrong], kind='stable')]),
    ('The least certain answers', np.argsort(certainty, kind='stable')),
  ):
    chosen = chosen[:_SHEET_IMAGES]
    if len(chosen):
      figure = answer_figures.plot_answers(
        found.images[chosen], [names[k] for k in answers[chosen]],
        [names[k] for k in labels[chosen]], certainty[chosen], title,
        threshold=found.limit,
      )
      sheets.append((title, style.render_png(figure)))
  return sheets


def _write_annotated(folder, found, number):
  chosen = np.argsort(found.certainty, kind='stable')
  names = found.part.class_names
  for rank, i in enumerate(chosen if number < 0 else chosen[:number]):
    figure = answer_figures.plot_answer(
      found.images[i], names[found.answers[i]], names[found.part.labels[i]],
      found.certainty[i], name=found.part.names[i], threshold=found.limit,
    )
    files.make_directory(folder)
    stem = re.sub(r'[^\w.-]+', '_', found.part.names[i])[-80:]
    files.write_bytes(
      folder / f'{rank:05}_{stem}.png', style.render_png(figure)
    )
