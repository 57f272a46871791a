"""Snapshots of a training, from which it goes on after any interruption.

After every epoch everything that the next one depends on is written while it
runs: arrays by Orbax, asynchronously, and a JSON document beside them. A
snapshot counts once Orbax has renamed its folder into place, so that a process
killed at any moment leaves the one before. Only the last and the best are kept,
and once the training is finished neither: what decided it stays, so that
another training is still refused there.

  epoch_0003.json   what belongs to the arrays, written first
  epoch_0003        the arrays
  finished.json     after the training: no snapshot counts any more
"""

from collections.abc import Mapping
import dataclasses
import json
import os
import pathlib
import shutil
from typing import Any

import jax
import numpy as np
from orbax import checkpoint as ocp

from jaxsens import files

_FORMAT = 1
_MISSING = object()


@dataclasses.dataclass(frozen=True)
class Snapshot:
  """A finished snapshot.

  Attributes:
    epoch: after which it was taken.
    document: what was said of it, as JSON gives it back.
    path: folder of its arrays.
  """

  epoch: int
  document: Mapping[str, Any]
  path: pathlib.Path

  def arrays(self, like: Any) -> Any:
    """Returns the tree of arrays, on the host.

    Args:
      like: tree of arrays of the same form, shapes and dtypes.

    Raises:
      ValueError: the snapshot is damaged or of another network.
    """
    wanted = {
      name: np.zeros(np.shape(leaf), leaf.dtype)
      for name, leaf in _named(like).items()
    }
    try:
      with ocp.StandardCheckpointer() as checkpointer:
        found = checkpointer.restore(self.path, wanted)
    except (OSError, ValueError, KeyError) as error:
      raise ValueError(f'{self.path}: damaged snapshot: {error}') from error
    for name, leaf in wanted.items():
      if np.shape(found[name]) != leaf.shape:
        raise ValueError(
          f'{self.path}: snapshot of another network: {name} has shape '
          f'{np.shape(found[name])}, expected {leaf.shape}.'
        )
    treedef = jax.tree.structure(like)
    return jax.tree.unflatten(treedef, [found[name] for name in wanted])


class Snapshots:
  """The snapshots of one training, in a folder of their own.

  Attributes:
    path: the folder.
    config: what decides the training, ready for JSON; a snapshot of another
      one is refused.
  """

  def __init__(self, path: str | os.PathLike, config: Mapping[str, Any]):
    self.path = pathlib.Path(path).absolute()
    self.config = json.loads(json.dumps(config))
    self._checkpointer: ocp.StandardCheckpointer | None = None

  def last(self) -> Snapshot | None:
    """Returns the newest finished snapshot, None where there is none.

    There is none of a training that `finish` has ended.

    Raises:
      ValueError: it, or the finished training, is of another configuration,
        whose fields are named.
    """
    if self._finished_path.is_file():
      self._check(self._read(self._finished_path))
      return None
    found = [self.find(epoch) for epoch in self._epochs()]
    return found[-1] if found else None

  def find(self, epoch: int) -> Snapshot:
    """Returns the snapshot of an epoch.

    Raises:
      ValueError: there is none, it is damaged or of another configuration.
    """
    document = self._read(self._document_path(epoch))
    self._check(document)
    return Snapshot(epoch, document['content'], self._arrays_path(epoch))

  def save(
    self, epoch: int, tree: Any, document: Mapping[str, Any], best_epoch: int
  ) -> None:
    """Begins to write a snapshot; returns when the arrays may change.

    Waits for the one before it, and removes what is neither that nor the best.

    Args:
      epoch: after which it is taken.
      tree: tree of arrays.
      document: what belongs to it, ready for JSON.
      best_epoch: epoch whose snapshot must stay.

    Raises:
      OSError: the folder cannot be written.
    """
    if self._checkpointer is None:
      self._begin()
    self.wait()
    arrays = {
      name: np.array(leaf) for name, leaf in _named(tree).items()
    }
    self._write(self._document_path(epoch), content=document)
    shutil.rmtree(self._arrays_path(epoch), ignore_errors=True)
    self._checkpointer.save(self._arrays_path(epoch), arrays)
    # Until this one is finished, the one before and its best are what counts.
    self._keep({*self._last_and_best(), best_epoch, epoch})

  def wait(self) -> None:
    """Waits until the snapshot that is being written is finished."""
    if self._checkpointer is not None:
      self._checkpointer.wait_until_finished()

  def close(self) -> None:
    """Waits, removes all but the last and the best, and stops the writer."""
    if self._checkpointer is not None:
      self.wait()
      self._checkpointer.close()
      self._checkpointer = None
      self._keep(self._last_and_best())

  def has_remains(self) -> bool:
    """Returns whether any snapshot, finished or not, lies in the folder."""
    return any(self.path.glob('epoch_*'))

  def finish(self) -> None:
    """Removes the snapshots of a training whose network is kept elsewhere.

    A process killed meanwhile leaves some of them; they count no more, and go
    when this is called again.

    Raises:
      OSError: the folder cannot be written.
    """
    self.close()
    if not self._finished_path.is_file():
      files.make_directory(self.path)
      self._write(self._finished_path)
    self._remove_all()

  def _begin(self) -> None:
    files.make_directory(self.path)
    if self._finished_path.is_file():
      # What is left of a training whose network has been removed since.
      self._remove_all()
      self._finished_path.unlink()
    for entry in self.path.iterdir():
      # Half a snapshot of a process that was killed.
      if 'orbax-checkpoint-tmp' in entry.name:
        shutil.rmtree(entry, ignore_errors=True)
    self._checkpointer = ocp.StandardCheckpointer()

  def _last_and_best(self) -> set[int]:
    """Returns the last finished epoch and the best as of then."""
    last = self._epochs()[-1:]
    return {
      *last, *(
        self._read(self._document_path(epoch))['content']['best_epoch']
        for epoch in last
      )
    }

  def _keep(self, kept: set[int]) -> None:
    for path in self.path.glob('epoch_*.json'):
      epoch = _epoch(path)
      if epoch not in kept:
        # The document last: arrays without one would be taken for damaged.
        shutil.rmtree(self._arrays_path(epoch), ignore_errors=True)
        path.unlink(missing_ok=True)

  def _remove_all(self) -> None:
    for path in self.path.glob('epoch_*'):
      if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
      else:
        path.unlink(missing_ok=True)

  def _epochs(self) -> list[int]:
    """Returns the epochs of the finished snapshots, in order."""
    return sorted(
      _epoch(path) for path in self.path.glob('epoch_*.json')
      if self._arrays_path(_epoch(path)).is_dir()
    )

  def _check(self, document: Mapping[str, Any]) -> None:
    problems = differing_fields(document['config'], self.config)
    if problems:
      raise ValueError(
        f'{self.path}: snapshots of a training with another configuration: '
        f'{"; ".join(problems)}. Remove that folder, or choose another run '
        'directory, to train anew.'
      )

  def _write(self, path: pathlib.Path, **further: Any) -> None:
    document = {'format': _FORMAT, 'config': self.config, **further}
    files.write_text(path, json.dumps(document) + '\n')

  def _read(self, path: pathlib.Path) -> dict[str, Any]:
    try:
      document = json.loads(path.read_text())
    except (OSError, ValueError) as error:
      raise ValueError(f'{path}: damaged snapshot: {error}') from error
    if document.get('format') != _FORMAT:
      raise ValueError(
        f'{path}: snapshot format {document.get("format")}, expected {_FORMAT}.'
      )
    return document

  @property
  def _finished_path(self) -> pathlib.Path:
    return self.path / 'finished.json'

  def _arrays_path(self, epoch: int) -> pathlib.Path:
    return self.path / f'epoch_{epoch:04d}'

  def _document_path(self, epoch: int) -> pathlib.Path:
    return self.path / f'epoch_{epoch:04d}.json'


def differing_fields(
  given: Mapping[str, Any], needed: Mapping[str, Any], prefix: str = ''
) -> list[str]:
  """Returns a sentence for every field in which two configurations differ.

  Args:
    given: nested fields of what was written.
    needed: nested fields of what is asked for.
    prefix: put before the names.
  """
  sentences = []
  for name in sorted({*given, *needed}):
    one, two = given.get(name, _MISSING), needed.get(name, _MISSING)
    if isinstance(one, Mapping) and isinstance(two, Mapping):
      sentences += differing_fields(one, two, f'{prefix}{name}.')
    elif one != two:
      said = ['absent' if v is _MISSING else repr(v) for v in (one, two)]
      sentences.append(f'{prefix}{name}: written with {said[0]}, now {said[1]}')
  return sentences


def _epoch(path: pathlib.Path) -> int:
  return int(path.stem.removeprefix('epoch_'))


def _named(tree: Any) -> dict[str, Any]:
  """Returns the leaves of a tree by names that a file may have."""
  leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
  return {
    f'{i:05d}' + ''.join(c if c.isalnum() else '_' for c in
                         jax.tree_util.keystr(path)): leaf
    for i, (path, leaf) in enumerate(leaves)
  }
