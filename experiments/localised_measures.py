"""What heat maps are worth against masks, as plain numbers."""

from collections.abc import Mapping
from collections.abc import Sequence
import csv
import dataclasses
import io
import pathlib
from typing import Any

import jax
from ml_collections import ConfigDict
import numpy as np

from experiments import localised_maps
from experiments import methods
from jaxsens.attribution import faithfulness
from jaxsens.attribution import similarity
from jaxsens.attribution import thresholds
from jaxsens.uncertainty import resampling

LEVEL = 0.95
"""Coverage of the intervals."""


@dataclasses.dataclass(frozen=True, eq=False)
class Study:
  """What all methods are judged on.

  Attributes:
    keys: random keys by what they are for.
    options: `config.localisation`.
    context: of the methods.
    validation: images that choose the thresholds.
    test: images that are judged.
    class_names: of the network.
    network: a hash of the trained params.
    folder: where maps are kept.
  """

  keys: Mapping[str, jax.Array]
  options: ConfigDict
  context: methods.Context
  validation: localised_maps.Chosen
  test: localised_maps.Chosen
  class_names: tuple[str, ...]
  network: str
  folder: pathlib.Path


def measure(
  name: str, kind: str, found: localised_maps.Found, study: Study
) -> dict[str, Any]:
  """Returns everything that is told of the maps of a method.

  Args:
    name: of the method.
    kind: 'method' or 'baseline'.
    found: its maps.
    study: what they are judged on.

  Returns:
    A row, see `localisation_page.render`, and 'dice' of each test image.
  """
  options, test = study.options, study.test
  choice = thresholds.choose(
    found.validation, study.validation.masks, signs=tuple(options.signs),
    blurs=tuple(options.blurs), thresholds=tuple(options.thresholds),
  )
  judged = thresholds.judge(
    study.keys['bootstrap'], choice, found.test, test.masks,
    groups=test.groups, num_samples=options.num_resamples, level=LEVEL,
  )
  dice = judged.measures['Dice'].values
  row = {
    'method': name, 'kind': kind, **found.facts,
    'choice': {
      'sign': choice.sign, 'blur': choice.blur, 'threshold': choice.threshold,
      'validation_dice': choice.validation_dice, 'at_border': choice.at_border,
    },
    'measures': {
      measure: {
        'value': values.mean, 'lower': judged.intervals[measure][0],
        'upper': judged.intervals[measure][1],
        'num_undefined': values.num_undefined,
      } for measure, values in judged.measures.items()
    },
    'dice_of_class': {
      one: np.nanmean(dice[test.labels == k])
      for k, one in enumerate(study.class_names)
      if np.isfinite(dice[test.labels == k]).any()
    },
    'dice': dice,
  }
  return row | _sanity(found) | _faithful(found, study)


def _sanity(found):
  number = len(found.randomised)
  if not number:
    return {}
  alike = similarity.compare(found.test[:number], found.randomised)
  known = ~np.isnan(alike.spearman)
  mean = lambda x: float(x[known].mean()) if known.any() else None
  return {'sanity': {
    'spearman': mean(alike.spearman),
    'absolute_spearman': mean(alike.absolute_spearman),
    'num_images': number, 'num_undefined': alike.num_undefined,
  }}


def _faithful(found, study):
  options, number = study.options, study.options.num_faithful
  if not number:
    return {}
  images, labels = (x[:number] for x in (study.test.images, study.test.labels))
  arguments = dict(
    num_steps=options.num_faithful_steps, key=study.keys['ties'],
    baselines='blur' if options.replacement == 'blur' else None,
    chunk_size=study.context.chunk_size,
  )
  areas = {
    function.__name__: float(function(
      study.context.classifier, images, found.test[:number], labels,
      **arguments,
    ).areas.mean())
    for function in (faithfulness.deletion, faithfulness.insertion)
  }
  return {'faithfulness': areas | {'num_images': len(images)}}


def compare(
  rows: Sequence[Mapping[str, Any]], study: Study
) -> dict[str, Any]:
  """Compares the best method with the best map that knows no network."""
  best, baseline = (
    max(
      (row for row in rows if row['kind'] == kind),
      key=lambda row: row['measures']['Dice']['value'] or 0,
    ) for kind in ('method', 'baseline')
  )
  gains = np.array([
    a - b if None not in (a, b) else np.nan
    for a, b in zip(best['dice'], baseline['dice'], strict=True)
  ])
  lower, upper = resampling.bootstrap(
    study.keys['bootstrap'], np.nanmean, [gains], groups=study.test.groups,
    num_samples=study.options.num_resamples, level=LEVEL,
  )
  return {
    'best': best['method'], 'dice': best['measures']['Dice']['value'],
    'baseline': baseline['method'], 'difference': float(np.nanmean(gains)),
    'lower': lower, 'upper': upper,
  }


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
  """Returns rows of `measure` as the text of a table, a line each."""
  lines = [_flat(row) for row in rows]
  columns = dict.fromkeys(name for line in lines for name in line)
  buffer = io.StringIO()
  writer = csv.DictWriter(
    buffer, list(columns), restval='', lineterminator='\n'
  )
  writer.writeheader()
  writer.writerows(lines)
  return buffer.getvalue()


def _flat(row):
  """Returns a row without nesting, 'Dice', 'Dice lower', 'choice sign'."""
  line = {}
  for name, value in row.items():
    if name == 'measures':
      for measure, one in value.items():
        line |= {
          f'{measure} {end}'.removesuffix(' value'): number
          for end, number in one.items()
        }
    elif isinstance(value, dict):
      line |= {f'{name} {part}': one for part, one in value.items()}
    elif name != 'dice':
      line[name] = value
  if 'choice at_border' in line:
    line['choice at_border'] = ' '.join(line['choice at_border'])
  return line
