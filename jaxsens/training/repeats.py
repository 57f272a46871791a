"""What several trainings that differ in their seeds say together."""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import math
from typing import Any

from jax.typing import ArrayLike
import numpy as np
from scipy import stats


@dataclasses.dataclass(frozen=True)
class Summary:
  """A measure over runs.

  Attributes:
    values: one per run.
    mean: their mean.
    std: their sample standard deviation (n - 1); NaN of a single run.
    lower, upper: Student's interval of the mean over all runs that might have
      been made; NaN of a single run.
    level: its confidence.
  """

  values: tuple[float, ...]
  mean: float
  std: float
  lower: float
  upper: float
  level: float

  def as_dict(self) -> dict[str, Any]:
    """Returns the fields by name, ready for JSON: None where there is none."""
    return {
      name: None if isinstance(v, float) and math.isnan(v) else v
      for name, v in dataclasses.asdict(self).items()
    }


def summarise(values: ArrayLike, level: float = 0.95) -> Summary:
  """Returns mean, spread and interval of a measure over runs.

      mean +- t std / sqrt(n),   t of Student's distribution with n - 1 degrees

  Args:
    values: (n,), one per run.
    level: confidence of the interval.

  Raises:
    ValueError: no value, or a level outside (0, 1).
  """
  values = np.asarray(values, np.float64)
  if values.ndim != 1 or not len(values) or not 0 < level < 1:
    raise ValueError(
      'values must have shape (n,) with n >= 1 and level lie in (0, 1), got '
      f'{values.shape} and {level}.'
    )
  mean, number = float(values.mean()), len(values)
  std = half = math.nan
  if number > 1:
    std = float(values.std(ddof=1))
    half = float(stats.t.ppf((1 + level) / 2, number - 1)) * std
    half /= math.sqrt(number)
  return Summary(
    tuple(map(float, values)), mean, std, mean - half, mean + half, level
  )


def table(
  summaries: Mapping[str, Summary], names: Sequence[str] = ()
) -> str:
  """Returns a table in plain text, one measure per line.

  Args:
    summaries: by the name of the measure.
    names: which, in this order; default all.
  """
  rows = [('measure', 'runs', 'mean', 'std', 'interval')]
  for name in names or summaries:
    found = summaries[name]
    rows.append((
      name, str(len(found.values)), f'{found.mean:.4f}', f'{found.std:.4f}',
      f'{100 * found.level:.0f} %: {found.lower:.4f} to {found.upper:.4f}',
    ))
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  return '\n'.join(
    '  '.join(
      cell.ljust(width) for cell, width in zip(row, widths, strict=True)
    ).rstrip()
    for row in rows
  )
