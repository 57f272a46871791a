"""Trained networks in neighbouring run directories."""

import pathlib
import shutil

from experiments import runs
from jaxsens.training import checkpoints


def take_over(path: pathlib.Path, digest: str) -> bool:
  """Copies the checkpoints of the same training from a neighbouring run.

  Args:
    path: of the network of the best epoch, `checkpoint` in a run directory;
      that of the last one comes along.
    digest: hash of what decides the training.

  Returns:
    Whether there was one.
  """
  for other in sorted(path.parent.parent.glob('*/checkpoint')):
    if checkpoints.exists(other) and trained_as(other, digest):
      runs.LOG.info('Taking over the trained network of %s', other.parent)
      last = other.with_name('last')
      if checkpoints.exists(last):
        _copy(last, path.with_name('last'))
      _copy(other, path)
      return True
  return False


def trained_as(path: pathlib.Path, digest: str) -> bool:
  """Returns whether a checkpoint is of the training of a hash."""
  try:
    return checkpoints.read_metadata(path).config_hash == digest
  except ValueError as error:
    runs.LOG.warning('Passing over a neighbouring checkpoint: %s', error)
    return False


def _copy(source: pathlib.Path, target: pathlib.Path) -> None:
  """Copies a folder, which appears when it is complete."""
  partial = target.with_name(f'{target.name}.partial')
  shutil.rmtree(partial, ignore_errors=True)
  if checkpoints.exists(target):
    shutil.rmtree(target)
  shutil.copytree(source, partial)
  partial.rename(target)
