"""Files of the results of a data set: CSV for reading, NPZ with every array.

Files are written whole or not at all. A NaN is an empty cell in CSV. Numbers
keep every digit.
"""

import csv
import dataclasses
import io
import math
import os
import pathlib

import numpy as np

from jaxsens import files
from jaxsens.reports import population_results

COLUMNS = (
  'image', 'label', 'prediction', 'output', 'factor', 'first_order',
  'first_order_lower', 'first_order_upper', 'total', 'total_lower',
  'total_upper', 'mean', 'variance', 'q2', 'failure_probability',
  'fragility_rank', 'leading', 'trusted', 'reason', 'method',
  'num_evaluations',
)

_INDICES = COLUMNS[5:11]
# Results that go into the file of arrays, by their name in the study.
_PARTS = (
  'population', 'distribution', 'aggregates', 'trusted_aggregates',
  'fragility', 'accuracy', 'axes', 'steps',
)


def write_csv(
  path: str | os.PathLike, study: population_results.PopulationStudy
) -> pathlib.Path:
  """Writes one line per image and factor, for every output.

  'fragility_rank' is 1 for the most fragile image, 'leading' says whether the
  factor has the largest total index of the image.

  Args:
    path: Where to write.
    study: The results.

  Returns:
    The path.
  """
  buffer = io.StringIO()
  writer = csv.DictWriter(buffer, COLUMNS, lineterminator='\n')
  writer.writeheader()
  for i in range(study.population.num_images):
    writer.writerows(_rows(study, i))
  return files.write_text(path, buffer.getvalue())


def write_npz(
  path: str | os.PathLike, study: population_results.PopulationStudy
) -> pathlib.Path:
  """Writes every array of the results, but not the thumbnails.

  Arrays are named by where they stand, as in 'population.total' (I, D, K) or
  'aggregates.mean_total.lower' (G, D, K); names are arrays of text, an absent
  reason is ''. `numpy.load` reads the file without pickles.

  Args:
    path: Where to write.
    study: The results.

  Returns:
    The path.
  """
  arrays: dict[str, np.ndarray] = {'output': np.array(study.output)}
  for part in _PARTS:
    _collect(arrays, part, getattr(study, part))
  buffer = io.BytesIO()
  np.savez_compressed(buffer, **arrays)
  return files.write_bytes(path, buffer.getvalue())


def _rows(study, i):
  """Yields the lines of one image."""
  population = study.population
  reasons = population.reasons or (None,) * population.num_images
  ranks = np.argsort(study.fragility.order)
  names = population.class_names
  fixed = {
    'image': population.image_names[i],
    'label': names[population.labels[i]],
    'prediction': names[population.predictions[i]],
    'failure_probability': _number(population.failure_probability[i]),
    'fragility_rank': int(ranks[i]) + 1,
    'trusted': str(bool(population.trusted[i])).lower(),
    'reason': reasons[i] or '',
    'method': population.method[i],
    'num_evaluations': int(population.num_evaluations[i]),
  }
  for k, output in enumerate(population.output_names):
    moments = {
      name: _number(getattr(population, name)[i, k])
      for name in ('mean', 'variance', 'q2')
    }
    for d, factor in enumerate(population.factor_names):
      lead = k == study.output and d == study.fragility.leading_factor[i]
      yield fixed | moments | {
        'output': output, 'factor': factor, 'leading': str(bool(lead)).lower(),
        **{
          name: _number(getattr(population, name)[i, d, k])
          for name in _INDICES
        },
      }  # fmt: skip


def _collect(arrays, name, value):
  """Adds all arrays below a value under names that say where they stand."""
  if value is None:
    return
  if dataclasses.is_dataclass(value):
    for field in dataclasses.fields(value):
      _collect(arrays, f'{name}.{field.name}', getattr(value, field.name))
  elif isinstance(value, tuple) and any(
    isinstance(entry, tuple) or dataclasses.is_dataclass(entry)
    for entry in value
  ):
    for i, entry in enumerate(value):
      _collect(arrays, f'{name}.{i}', entry)
  elif isinstance(value, tuple) and any(
    isinstance(entry, str) for entry in value
  ):
    arrays[name] = np.array([entry or '' for entry in value], np.str_)
  elif not (isinstance(value, tuple) and value == ()):
    arrays[name] = np.asarray(value)


def _number(value):
  return repr(float(value)) if math.isfinite(value) else ''
