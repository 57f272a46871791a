"""Tables of a run: rows for reading, CSV and JSON files for machines.

Files are written whole or not at all. A NaN is an empty cell in CSV and null
in JSON, always with the reason beside it. Numbers keep every digit.
"""

import csv
import io
import json
import math
import os
import pathlib
from typing import Any

import numpy as np

from jaxsens import files
from jaxsens.reports import results
from jaxsens.reports import sentences

# Readers of the files check these two; a field that changes meaning raises it.
SCHEMA = 'jaxsens.indices'
SCHEMA_VERSION = 1

COLUMNS = (
  'image', 'label', 'prediction', 'confidence', 'output', 'index', 'factors',
  'unit', 'value', 'lower', 'upper', 'q2', 'trusted', 'reason',
)

# Part of every record here; made where the other words are made.
answer_sentence = sentences.answer_sentence


def index_rows(
  image: results.ImageResult, output: int | None = None
) -> list[dict[str, Any]]:
  """Returns one row per factor for one output.

  Args:
    image: The results of one image.
    output: Position of the output, the main one by default.

  Returns:
    Rows of factor, unit, first_order, first_order_lower, first_order_upper,
    total, total_lower, total_upper (shares of the variance), mean_derivative
    (output per unit), first_error_below and first_error_above (values, None if
    there is none or no curve).
  """
  k = image.main_output if output is None else output
  rows = []
  for d, (name, unit) in enumerate(
    zip(image.factor_names, image.factor_units, strict=True)
  ):
    curve = image.curve(name)
    row = {'factor': name, 'unit': unit}
    for index in ('first_order', 'total'):
      for end in ('', '_lower', '_upper'):
        row[index + end] = float(getattr(image, index + end)[d, k])
    row['mean_derivative'] = float(image.mean_derivatives[d, k])
    row['first_error_below'] = curve.first_error_below if curve else None
    row['first_error_above'] = curve.first_error_above if curve else None
    rows.append(row)
  return rows


def write_indices_csv(
  path: str | os.PathLike, run: results.RunResult
) -> pathlib.Path:
  """Writes every index of every output of every image, one per line.

  The column 'index' says what 'value' is: first_order, total, subset (factors
  joined by ' x '), mean_derivative (per unit of the factor), mean, variance or
  explained_variance.

  Args:
    path: Where to write.
    run: The results.

  Returns:
    The path.
  """
  buffer = io.StringIO()
  writer = csv.DictWriter(buffer, COLUMNS, restval='', lineterminator='\n')
  writer.writeheader()
  for image in run.images:
    for k in range(len(image.output_names)):
      writer.writerows(_csv_rows(image, k))
  return files.write_text(path, buffer.getvalue())


def write_indices_json(
  path: str | os.PathLike, run: results.RunResult
) -> pathlib.Path:
  """Writes the indices by name of image, output and factor.

  The file begins with 'schema' and 'version'. Every index stands under the name
  of its factor; 'reason' is the reason of the nulls of its output, else null.

  Args:
    path: Where to write.
    run: The results.

  Returns:
    The path.
  """
  return _write_json(path, {
    'schema': SCHEMA,
    'version': SCHEMA_VERSION,
    'title': run.title,
    'data': run.data_description,
    'class_names': list(run.class_names),
    'factors': [dict(factor) for factor in run.factors],
    'images': [_image_record(image) for image in run.images],
    'provenance': run.provenance,
  })


def write_metrics(
  path: str | os.PathLike, run: results.RunResult
) -> pathlib.Path:
  """Writes how good the expansions are, per image and output, and what it took.

  Args:
    path: Where to write.
    run: The results.

  Returns:
    The path.
  """
  main_q2 = [image.q2[image.main_output] for image in run.images]
  return _write_json(path, {
    'schema': 'jaxsens.metrics',
    'version': SCHEMA_VERSION,
    'num_images': len(run.images),
    'num_trusted': sum(image.accepted for image in run.images),
    'num_correct': sum(image.correct for image in run.images),
    'lowest_q2': np.min(main_q2),
    'images': [
      {
        'name': image.name,
        'trusted': image.accepted,
        'method': image.method,
        'num_evaluations': image.num_evaluations,
        'half_width': _by_name(
          image.output_names,
          [image.half_width(k) for k in range(len(image.output_names))],
        ),
        'q2': _by_name(image.output_names, image.q2),
        'explained_variance': _by_name(
          image.output_names, image.explained_variance
        ),
      }
      for image in run.images
    ],
    'provenance': run.provenance,
  })


def plain(value: Any) -> Any:
  """Returns a value as JSON has it: NaN and infinities become None.

  Args:
    value: Nested mappings, sequences, arrays, numbers and text.

  Returns:
    The same out of dict, list, int, float, str, bool and None.
  """
  if hasattr(value, 'items'):
    return {str(key): plain(entry) for key, entry in value.items()}
  if isinstance(value, np.ndarray | np.generic):
    return plain(value.tolist())
  if isinstance(value, list | tuple | set | frozenset):
    return [plain(entry) for entry in value]
  if isinstance(value, float):
    return value if math.isfinite(value) else None
  if value is None or isinstance(value, bool | int | str):
    return value
  return str(value)


def _write_json(path, record):
  text = json.dumps(plain(record), indent=2, ensure_ascii=False)
  return files.write_text(path, text + '\n')


def _by_name(names, values):
  return dict(zip(names, values, strict=True))


def _csv_rows(image, k):
  """Yields the lines of one output of one image."""
  fixed = {
    'image': image.name,
    'label': image.label_name,
    'prediction': image.prediction_name,
    'confidence': _cell(image.confidence),
    'output': image.output_names[k],
    'q2': _cell(image.q2[k]),
    'trusted': str(_trusted(image, k)).lower(),
  }
  for entry in _csv_entries(image, k):
    value = entry['value']
    cells = {
      key: entry[key] if isinstance(entry[key], str) else _cell(entry[key])
      for key in entry
    }
    reason = '' if math.isfinite(value) else _reason(image, k)
    yield fixed | cells | {'reason': reason}


def _csv_entries(image, k):
  for index in ('mean', 'variance', 'explained_variance'):
    yield {'index': index, 'value': getattr(image, index)[k]}
  for row in index_rows(image, k):
    for index in ('first_order', 'total'):
      yield {
        'index': index,
        'factors': row['factor'],
        'value': row[index],
        'lower': row[f'{index}_lower'],
        'upper': row[f'{index}_upper'],
      }
    yield {
      'index': 'mean_derivative',
      'factors': row['factor'],
      'unit': f'1/{row["unit"]}' if row['unit'] else '',
      'value': row['mean_derivative'],
    }
  for subset, values in zip(image.subsets, image.subset_values, strict=True):
    yield {
      'index': 'subset',
      'factors': subset_name(image, subset),
      'value': values[k],
    }


def _image_record(image):
  return {
    'name': image.name,
    'label': image.label_name,
    'prediction': image.prediction_name,
    'confidence': image.confidence,
    'main_output': image.main_name,
    'trusted': image.accepted,
    'advice': list(image.advice),
    'answer': answer_sentence(image),
    'first_errors': {
      row['factor']: [row['first_error_below'], row['first_error_above']]
      for row in index_rows(image)
    },
    'first_flips': {
      curve.name: [curve.first_flip_below, curve.first_flip_above]
      for curve in image.curves
    },
    'decay': image.decay,
    'outputs': {
      name: _output_record(image, k)
      for k, name in enumerate(image.output_names)
    },
  }


def _output_record(image, k):
  subsets = [subset_name(image, subset) for subset in image.subsets]
  record = {
    'reason': _reason(image, k) if _undefined(image, k) else None,
    'mean': image.mean[k],
    'variance': image.variance[k],
    'q2': image.q2[k],
    'explained_variance': image.explained_variance[k],
    'trusted': _trusted(image, k),
  }
  for row in index_rows(image, k):
    for field in ('first_order', 'total'):
      record.setdefault(field, {})[row['factor']] = {
        'value': row[field],
        'lower': row[f'{field}_lower'],
        'upper': row[f'{field}_upper'],
      }
    record.setdefault('mean_derivative', {})[row['factor']] = row[
      'mean_derivative'
    ]
  record['subsets'] = _by_name(subsets, image.subset_values[:, k])
  return record


def subset_name(image: results.ImageResult, subset: tuple[int, ...]) -> str:
  """Returns the names of the factors of a subset, joined by ' x '."""
  return ' x '.join(image.factor_names[d] for d in subset)


def _undefined(image, k):
  values = (image.first_order[:, k], image.total[:, k])
  return not all(np.isfinite(entry).all() for entry in values)


def _trusted(image, k):
  if k == image.main_output:
    return image.accepted
  return image.sufficient(k) and not _undefined(image, k)


def _reason(image, k):
  return image.reasons[k] or 'no reason was recorded'


def _cell(value):
  return repr(float(value)) if math.isfinite(value) else ''
