"""Rows of a long benchmark, kept on disk as they are measured.

A section is measured by a generator of rows, {'table', 'row', measure: number},
and has a file of its own, one JSON object per line: a run that is killed keeps
what it had, and sections may run in processes of their own.
"""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import datetime
import json
import math
import os
import pathlib
import time
from typing import Any

Row = dict[str, Any]


def record(
  folder: pathlib.Path,
  section: str,
  rows: Iterable[Row],
  options: Mapping[str, Any],
) -> Iterator[Row]:
  """Writes the rows of a section as they come, and passes them on.

  Args:
    folder: where the file SECTION.jsonl is; an older one is replaced.
    section: name of the section.
    rows: what it measures.
    options: for the record.
  """
  path = folder / f'{section}.jsonl'
  path.unlink(missing_ok=True)
  start = time.perf_counter()
  header = {
    'section': section, 'options': dict(options), 'load_before': load(),
    'date': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
  }
  _append(path, header)
  for row in rows:
    _append(path, row)
    yield row
  _append(path, {'seconds': time.perf_counter() - start})


def read(folder: pathlib.Path, sections: Sequence[str]) -> dict[str, Any]:
  """Returns the tables of all sections on disk.

  Args:
    folder: that of `record`.
    sections: their names, in the order of the tables.

  Returns:
    {table: {measure: {row: number}}}, with a table 'sections' that says how
    long each took and how busy the machine was before.
  """
  tables: dict[str, Any] = {}
  about: dict[str, dict[str, float]] = {'seconds': {}, 'load before': {}}
  for section in sections:
    path = folder / f'{section}.jsonl'
    if not path.exists():
      continue
    header, *rows = map(json.loads, path.read_text().splitlines())
    about['load before'][section] = header['load_before']
    for row in rows:
      if 'table' in row:
        _add(tables.setdefault(row['table'], {}), row)
      else:
        about['seconds'][section] = round(row['seconds'], 1)
  return tables | {'sections': about}


def describe(row: Row) -> str:
  """Returns a row as a line of text."""
  numbers = ', '.join(
    f'{measure} {value:.4g}' for measure, value in row.items()
    if measure not in ('table', 'row')
  )
  return f'{row["table"]}: {row["row"]}: {numbers}'


def load() -> float:
  """Returns the load of the last minute; 0 where the system has none."""
  return round(os.getloadavg()[0], 1) if hasattr(os, 'getloadavg') else 0.0


def _add(table: dict[str, dict[str, float]], row: Row) -> None:
  for measure, value in row.items():
    if measure not in ('table', 'row'):
      value = math.nan if value is None else value
      table.setdefault(measure, {})[row['row']] = value


def _append(path: pathlib.Path, content: Mapping[str, Any]) -> None:
  plain = {
    name: None if isinstance(x, float) and not math.isfinite(x) else x
    for name, x in content.items()
  }
  with path.open('a') as file:
    file.write(json.dumps(plain, allow_nan=False) + '\n')
