"""What experiments share: flags, the run directory and its first files."""

from collections.abc import Callable
import contextlib
import hashlib
import importlib.metadata
import json
import logging
import os
import pathlib
import platform
import signal
import sys
import threading
import time

from absl import flags
from absl import logging as absl_logging
import jax
from ml_collections import ConfigDict
from ml_collections import config_flags

from jaxsens import files
from jaxsens.data import sources

LOG = logging.getLogger('jaxsens')

_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'File with get_config(), as configs/weld.py[:variant].'
)
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Run directory; default runs/<config>-<hash of the config>.'
)
_PACKAGES = (
  'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy', 'scipy',
  'chaospy', 'matplotlib',
)
_REPEAT_AFTER = 5.  # Seconds.


def make_main(
  run: Callable[[ConfigDict, pathlib.Path], dict]
) -> Callable[[list[str]], None]:
  """Returns the `main` of an experiment: run(config, workdir)."""

  def main(argv: list[str]) -> None:
    if len(argv) > 1:
      raise SystemExit(f'unexpected arguments: {argv[1:]}')
    if _CONFIG.value is None:
      raise SystemExit('--config=configs/weld.py is needed')
    absl_logging.set_verbosity(absl_logging.WARNING)
    log_to_stderr()
    config = resolve(_CONFIG.value)
    workdir = pathlib.Path(_WORKDIR.value or default_workdir(config))
    try:
      with _insistent_interrupts():
        run(config, workdir)
    except KeyboardInterrupt:
      LOG.warning('Interrupted. The same command resumes in %s', workdir)
      sys.exit(130)
    except (ValueError, KeyError, OSError, FloatingPointError) as error:
      # A message for the user; the trace is for developers.
      if os.environ.get('JAXSENS_TRACEBACK'):
        raise
      text = error.args[0] if isinstance(error, KeyError) else error
      raise SystemExit(f'error: {text}') from error

  return main


@contextlib.contextmanager
def _insistent_interrupts():
  """Repeats a Ctrl-C until it has ended what runs inside.

  Python drops an exception that comes up in a finaliser or in a callback of its
  garbage collector, and with it the interrupt, if it arrives there.
  """
  repeats, main_thread = [], threading.get_ident()

  def interrupt(*_):
    repeat = threading.Timer(_REPEAT_AFTER, _interrupt, [main_thread])
    repeats.append(repeat)
    repeat.start()
    raise KeyboardInterrupt

  before = signal.signal(signal.SIGINT, interrupt)
  try:
    yield
  finally:
    signal.signal(signal.SIGINT, before)
    for repeat in repeats:
      repeat.cancel()


def _interrupt(thread):
  if hasattr(signal, 'pthread_kill'):  # ends what the thread waits for
    signal.pthread_kill(thread, signal.SIGINT)
  else:
    signal.raise_signal(signal.SIGINT)


def log_to_stderr() -> None:
  """Shows the project's own log; that of the libraries from warnings on."""
  handler = logging.StreamHandler(sys.stderr)
  handler.setFormatter(logging.Formatter('%(asctime)s %(message)s', '%H:%M:%S'))
  LOG.addHandler(handler)
  LOG.setLevel(logging.INFO)
  LOG.propagate = False


def resolve(config: ConfigDict) -> ConfigDict:
  """Returns the config with what the environment decides written into it."""
  config = config.copy_and_resolve_references()
  source = sources.find(config.data.get('name', 'weld'))
  root = source.find_root(config.data.root)
  config.data.root = '' if root is None else str(root)
  return config


def default_workdir(config: ConfigDict) -> pathlib.Path:
  """Returns runs/<name>-<hash of the resolved config>."""
  text = json.dumps(config.to_dict(), sort_keys=True)
  digest = hashlib.sha256(text.encode()).hexdigest()[:8]
  return pathlib.Path('runs') / f'{config.name}-{digest}'


def split_keys(config: ConfigDict) -> tuple[jax.Array, ...]:
  """Returns the keys of data, training, design, noise and bootstrap."""
  return tuple(jax.random.split(jax.random.key(config.seed), 5))


def start(config: ConfigDict, workdir: pathlib.Path) -> None:
  """Makes the run directory and writes config.json and versions.json."""
  files.make_directory(workdir)
  write_json(workdir / 'config.json', config.to_dict())
  write_json(workdir / 'versions.json', versions())


def versions() -> dict[str, str | int]:
  """Returns the versions and the machine that a run depends on."""
  device = jax.devices()[0]
  return {
    'python': platform.python_version(),
    **{name: importlib.metadata.version(name) for name in _PACKAGES},
    'jaxsens': importlib.metadata.version('jaxsens'),
    'platform': platform.platform(),
    'backend': jax.default_backend(),
    'device': device.device_kind,
    'num_devices': jax.device_count(),
    'num_cores': os.cpu_count(),
  }


def write_json(path: pathlib.Path, content: dict) -> None:
  """Writes a JSON file whole or not at all."""
  files.write_text(path, json.dumps(content, indent=2) + '\n')


class Stages:
  """Seconds per stage, in the order in which stages are first entered."""

  def __init__(self):
    self.seconds: dict[str, float] = {}

  @contextlib.contextmanager
  def __call__(self, name: str):
    """Adds the time spent inside to a stage."""
    LOG.info('%s ...', name.capitalize())
    start_time = time.perf_counter()
    try:
      yield
    finally:
      elapsed = time.perf_counter() - start_time
      self.seconds[name] = self.seconds.get(name, 0.0) + elapsed
