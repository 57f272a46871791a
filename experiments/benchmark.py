"""Measures this package against its peers, in one run on one machine.

    python -m experiments.benchmark --suite=attribution
    python -m experiments.benchmark --suite=evaluation
    python -m experiments.benchmark --suite=fit --output=fit.json
    python -m experiments.benchmark --suite=gpc --sections=functions,cifar
    python -m experiments.benchmark --suite=kernels
    python -m experiments.benchmark --suite=models
    python -m experiments.benchmark --suite=perturbations
    python -m experiments.benchmark --suite=weights

Prints Markdown tables; `--output` also keeps everything as JSON, with the
machine it was measured on. The suites are modules of `experiments.benchmarks`;
peers that are not installed are left out with a line that says so. Run it from
the root of the repository on a machine that does nothing else: ratios come from
contestants that take turns, but a crowd slows them unequally: torch, which cuts
its work evenly over the cores, more than XLA. On a small GPU
XLA_PYTHON_CLIENT_PREALLOCATE=false leaves torch its share of the memory.
"""

from collections.abc import Callable
from collections.abc import Mapping
import datetime
import importlib
from importlib import metadata
import json
import logging
import math
import os
import pathlib
import platform
import sys
from typing import Any

from absl import app
from absl import flags
import jax

from jaxsens import files

_LOG = logging.getLogger('jaxsens')
# Options of each suite that shrink it to seconds.
QUICK = {
  'attribution': {
    'networks': ('squeezenet1_1',),
    'image_size': 40,
    'num_images': 1,
    'precisions': ('float32',),
    'batch_size': 2,
    'num_steps': 4,
    'speed_steps': 4,
    'num_explained': 4,
    'seconds': 0.01,
    'num_rounds': 2,
    'memory_steps': 4,
    'steps_image_size': 48,
    'num_photos': 2,
    'max_steps': 20,
  },
  'evaluation': {
    'image_sizes': (32,),
    'source_size': 40,
    'image_shape': (120, 100),
    'batch_sizes': (32,),
    'torch_batch_sizes': (4,),
    'seconds': 0.1,
    'num_rounds': 2,
    'num_source_nodes': 8,
    'num_index_nodes': (4, 4, 2),
  },
  'fit': {
    'num_nodes': 400,
    'degree': 2,
    'num_outputs': 4,
    'num_outputs_chaospy': 2,
    'num_repeats': 1,
  },
  'gpc': {
    'sections': ('functions', 'adaptive', 'coverage', 'bootstrap'),
    'num_seeds': 2,
    'num_seeds_large': 1,
    'function_sizes': (32, 64),
    'peer_sizes': (32,),
    'functions': ('ishigami',),
    'max_saltelli': 64,
    'adaptive_sizes': (60,),
    'pygpc_tolerance': 0.1,
    'num_coverage_seeds': 1,
    'num_resamples': 20,
    'bootstrap_size': (100, 2),
    'num_keys': 1,
    'cifar_images': 2,
    'cifar_sizes': (64,),
    'recipe_sizes': (400,),
    'pick_freeze_sizes': (100,),
    'gaussian_sizes': (64,),
    'steel_images': 2,
    'steel_sizes': (64,),
    'steel_recipe_images': 1,
    'steel_recipe_size': 400,
    'steel_truth_size': 64,
  },
  'kernels': {
    'network': 'lenet',
    'image_size': 32,
    'batch_size': 4,
    'forward_sizes': (2,),
    'seconds': 0.01,
    'num_rounds': 2,
  },
  'models': {
    'networks': ('lenet', 'squeezenet1_1'),
    'batch_size': 2,
    'image_size': 32,
    'seconds': 0.01,
    'num_rounds': 2,
  },
  'perturbations': {
    'names': ('brightness', 'rotation', 'gaussian_blur', 'gaussian_noise'),
    'size': 16,
    'num_images': 4,
    'chunk_size': 2,
    'memory_images': (2, 4),
    'network_batch': 1,
    'seconds': 0.01,
    'num_rounds': 2,
  },
  'weights': {'num_photos': 4, 'num_images': 64, 'batch_size': 4},
}
# The module of a suite that is not called as it.
_MODULES = {'gpc': 'gpc_suite'}
_PACKAGES = (
  'jaxsens', 'jax', 'jaxlib', 'flax', 'numpy', 'scipy', 'chaospy', 'pillow',
  'torch', 'torchvision', 'captum', 'pygpc', 'SALib', 'kornia',
  'imagecorruptions',
  'dm-pix', 'scikit-image',
)  # fmt: skip

_SUITE = flags.DEFINE_enum('suite', None, sorted(QUICK), 'What to measure.')
_OUTPUT = flags.DEFINE_string('output', None, 'JSON file to write.')
_QUICK = flags.DEFINE_bool('quick', False, 'Tiny sizes, to try it out.')
_OPTIONS = flags.DEFINE_string(
  'options', '{}', "JSON object of options of the suite's run()."
)
_SECTIONS = flags.DEFINE_list('sections', None, 'Sections of the suite gpc.')
_SEEDS = flags.DEFINE_integer('seeds', None, 'Seeds of the suite gpc.')
_GPC_WORKDIR = flags.DEFINE_string(
  'gpc_workdir', None, 'Work folder of the suite gpc.'
)
_TRUTH_FOLDER = flags.DEFINE_string(
  'truth_folder', None, 'Where the suite gpc finds the truths of its studies.'
)
_STEEL_WORKDIR = flags.DEFINE_string(
  'steel_workdir', None, 'Run directory of configs/steel.py, for the suite gpc.'
)


def run(
  suite: str,
  *,
  quick: bool = False,
  options: Mapping[str, Any] | None = None,
  output: str | os.PathLike | None = None,
  command: str = '',
  log: Callable[[str], Any] = _LOG.info,
) -> dict[str, Any]:
  """Runs a suite.

  Args:
    suite: a key of `QUICK`.
    quick: take the options in `QUICK`.
    options: further keyword arguments of the suite's `run`.
    output: JSON file to write; None writes none.
    command: how it was called, for the record.
    log: receives one line of text at a time.

  Returns:
    {'suite', 'options', 'machine', 'command', 'result'}, fit for JSON.

  Raises:
    ValueError: no such suite.
  """
  if suite not in QUICK:
    raise ValueError(f'suite must be one of {sorted(QUICK)}, got {suite!r}')
  module = importlib.import_module(
    f'experiments.benchmarks.{_MODULES.get(suite, suite)}'
  )
  options = {**(QUICK[suite] if quick else {}), **(options or {})}
  machine = describe_machine()
  log(f'{machine["cpu"]}, {machine["cores"]} cores, {machine["device"]}')
  if machine['load'] is not None and machine['load'] > machine['cores'] / 2:
    log(f'the machine is busy (load {machine["load"]:.1f} on '
        f'{machine["cores"]} cores): these ratios are not to be quoted')
  report = {
    'suite': suite,
    'options': options,
    'machine': machine,
    'command': command,
    'result': module.run(log, **options),
  }
  if output is not None:
    text = json.dumps(_plain(report), indent=2, allow_nan=False)
    files.write_text(output, text + '\n')
  return report


def describe_machine() -> dict[str, Any]:
  """Returns where and with what a benchmark is run."""
  device = jax.devices()[0]
  return {
    'date': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
    'system': platform.platform(),
    'cpu': _cpu_model(),
    'cores': os.cpu_count(),
    'load': _load(),
    'backend': jax.default_backend(),
    'device': device.device_kind,
    'num_devices': jax.device_count(),
    'python': platform.python_version(),
    'versions': _versions(),
    'xla_flags': os.environ.get('XLA_FLAGS', ''),
  }


def markdown(report: Mapping[str, Any]) -> str:
  """Returns machine and tables of a report as Markdown.

  A section {measure: {row: number}} of the result becomes a table with a column
  per measure; what is nested deeper or is no number is for the JSON file only.
  """
  machine = report['machine']
  versions = ', '.join(f'{n} {v}' for n, v in machine['versions'].items())
  parts = [
    f'## {report["suite"]}',
    f'{machine["date"]}; {machine["cpu"]}, {machine["cores"]} cores; '
    f'{machine["backend"]}: {machine["num_devices"]} x {machine["device"]}; '
    f'Python {machine["python"]}, {versions}; load before: {machine["load"]}',
  ]
  if report.get('command'):
    parts.append(f'`{report["command"]}`')
  for title, section in report['result'].items():
    columns = _columns(section)
    if columns:
      parts += [f'### {title}', _table(columns)]
  return '\n\n'.join(parts) + '\n'


def _columns(section: Any) -> dict[str, Mapping[str, float]]:
  if not isinstance(section, Mapping):
    return {}
  return {
    measure: rows
    for measure, rows in section.items()
    if isinstance(rows, Mapping)
    and rows
    and all(isinstance(value, int | float) for value in rows.values())
  }


def _table(columns: Mapping[str, Mapping[str, float]]) -> str:
  names = dict.fromkeys(name for rows in columns.values() for name in rows)
  header = ['', *(measure.replace('_', ' ') for measure in columns)]
  lines = [header, ['---', *['---:'] * len(columns)]]
  for name in names:
    lines.append([name, *(_cell(rows.get(name)) for rows in columns.values())])
  return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)


def _cell(value: float | None) -> str:
  if value is None:
    return ''
  if isinstance(value, int) or not math.isfinite(value):
    return str(value)
  if abs(value) >= 1000:
    return f'{value:.0f}'
  return f'{value:.3g}' if abs(value) < 100 else f'{value:.1f}'


def _plain(value: Any) -> Any:
  """Returns a value that JSON can hold; what is not finite becomes null."""
  if isinstance(value, Mapping):
    return {str(name): _plain(entry) for name, entry in value.items()}
  if isinstance(value, list | tuple):
    return [_plain(entry) for entry in value]
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value


def _versions() -> dict[str, str]:
  found = {}
  for name in _PACKAGES:
    try:
      found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
      continue
  return found


def _cpu_model() -> str:
  path = pathlib.Path('/proc/cpuinfo')
  for line in path.read_text().splitlines() if path.exists() else ():
    if line.startswith('model name'):
      return line.partition(':')[2].strip()
  return platform.processor() or platform.machine()


def _load() -> float | None:
  """Returns the load of the last minute; None where the system has none."""
  return round(os.getloadavg()[0], 1) if hasattr(os, 'getloadavg') else None


def _parse_options(text: str) -> dict[str, Any]:
  try:
    options = json.loads(text)
  except json.JSONDecodeError as error:
    raise ValueError(f'--options is no JSON: {error}') from error
  if not isinstance(options, dict):
    raise ValueError(f'--options must be a JSON object, got {text!r}')
  return options


def main(argv: list[str]) -> None:
  """Runs the suite that the flags ask for and prints its tables."""
  if len(argv) > 1:
    raise app.UsageError(f'unexpected arguments: {argv[1:]}')
  if _SUITE.value is None:
    raise app.UsageError(f'--suite is needed: {", ".join(sorted(QUICK))}')
  _LOG.setLevel(logging.INFO)
  flagged = {
    'sections': _SECTIONS.value, 'num_seeds': _SEEDS.value,
    'workdir': _GPC_WORKDIR.value, 'truth_folder': _TRUTH_FOLDER.value,
    'steel_workdir': _STEEL_WORKDIR.value,
  }
  options = _parse_options(_OPTIONS.value)
  options |= {n: value for n, value in flagged.items() if value is not None}
  if _SUITE.value != 'gpc' and any(v is not None for v in flagged.values()):
    raise app.UsageError(f'{", ".join(flagged)} are for the suite gpc')
  report = run(
    _SUITE.value, quick=_QUICK.value, options=options, output=_OUTPUT.value,
    command=' '.join(['python -m experiments.benchmark', *sys.argv[1:]]),
  )
  print(markdown(report))


if __name__ == '__main__':
  app.run(main)
