"""Checkpoints of networks: their arrays by Orbax, and what they belong to.

A checkpoint is a folder with the arrays (parameters and statistics, by the
names of `models.states`) and a `Metadata`. It is written beside its place and
renamed into it when complete, so a reader never meets half of one.
"""

from collections.abc import Mapping
import dataclasses
import json
import os
import pathlib
import shutil
from typing import Any

from flax import nnx
import jax
import numpy as np
from orbax import checkpoint as ocp

from jaxsens.models import states

_FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Metadata:
  """What a network is and comes from.

  Attributes:
    architecture: name of the network in `models.registry`.
    class_names: names of the logits, in order.
    image_size: (height, width) in pixels that it was trained on.
    channels: 1 for gray, 3 for RGB.
    mean, std: its normalisation, per channel.
    data: description of the training data.
    config_hash: hash of the configuration that it was trained with.
    metrics: measures by name, ready for JSON.
    options: what `registry.create` was told beside classes and channels:
      dropout, stem, padding.
  """

  architecture: str
  class_names: tuple[str, ...]
  image_size: tuple[int, int]
  channels: int
  mean: tuple[float, ...]
  std: tuple[float, ...]
  data: str
  config_hash: str
  metrics: Mapping[str, Any]
  options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def save(
  path: str | os.PathLike, model: nnx.Module, metadata: Metadata
) -> None:
  """Writes a checkpoint, replacing the one that may be there.

  Args:
    path: folder of the checkpoint; its parents are made.
    model: network whose parameters and statistics are kept.
    metadata: what belongs to it.

  Raises:
    OSError: the folder cannot be written.
    ValueError: the folder exists and is no checkpoint.
  """
  path = pathlib.Path(path).absolute()
  if path.exists() and not exists(path):
    raise ValueError(f'{path} exists and is no checkpoint; not replaced.')
  path.parent.mkdir(parents=True, exist_ok=True)
  aside = path.with_name(f'.{path.name}.{os.getpid()}')
  shutil.rmtree(aside, ignore_errors=True)
  arrays = {n: np.asarray(x) for n, x in states.flatten(model).items()}
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(aside / 'arrays', arrays)
  document = {
    'format': _FORMAT,
    'shapes': {name: array.shape for name, array in arrays.items()},
    **dataclasses.asdict(metadata),
  }
  (aside / 'metadata.json').write_text(json.dumps(document, indent=2) + '\n')
  _swap(aside, path)


def _swap(aside: pathlib.Path, path: pathlib.Path) -> None:
  """Moves a finished folder to `path`, removing what was there."""
  old = aside.with_name(f'{aside.name}.old')
  if path.exists():
    path.rename(old)
  aside.rename(path)
  shutil.rmtree(old, ignore_errors=True)


def exists(path: str | os.PathLike) -> bool:
  """Returns whether a finished checkpoint lies at `path`."""
  return (pathlib.Path(path) / 'metadata.json').is_file()


def read_metadata(path: str | os.PathLike) -> Metadata:
  """Returns the metadata of a checkpoint without reading its arrays.

  Raises:
    FileNotFoundError: there is no checkpoint.
    ValueError: the metadata are damaged or of another format.
  """
  document = _document(pathlib.Path(path))
  fields = {f.name: document[f.name] for f in dataclasses.fields(Metadata)}
  lists = ('class_names', 'image_size', 'mean', 'std')
  return Metadata(
    **{n: tuple(v) if n in lists else v for n, v in fields.items()}
  )


def _document(path: pathlib.Path) -> dict[str, Any]:
  if not exists(path):
    raise FileNotFoundError(f'{path}: no checkpoint there.')
  try:
    document = json.loads((path / 'metadata.json').read_text())
  except ValueError as error:
    raise ValueError(f'{path}: damaged metadata.json: {error}') from error
  # Checkpoints of before 0.2 have no options.
  document.setdefault('options', {})
  needed = {'shapes', *(f.name for f in dataclasses.fields(Metadata))}
  absent = sorted(needed - set(document))
  if document.get('format') != _FORMAT or absent:
    raise ValueError(
      f'{path}: checkpoint format {document.get("format")}, expected {_FORMAT}'
      f'; absent fields: {absent}.'
    )
  return document


def restore(
  path: str | os.PathLike, model: nnx.Module, *, expected: Mapping[str, Any]
) -> tuple[nnx.Module, Metadata]:
  """Returns a copy of a network with the arrays of a checkpoint.

  Args:
    path: folder that `save` wrote.
    model: network of the same architecture, left as it is; an abstract one
      (`nnx.eval_shape`) saves the drawing of initial values.
    expected: fields of `Metadata` by name, with the values that this use needs
      (`config_hash`, `class_names`, ...); the others may be anything.

  Returns:
    The filled network and the metadata of the checkpoint.

  Raises:
    FileNotFoundError: there is no checkpoint.
    ValueError: the checkpoint is of another configuration or architecture, or
      is damaged; the message names every field, array and shape that differs.
  """
  path = pathlib.Path(path).absolute()
  metadata = read_metadata(path)
  _check_expected(path, metadata, expected)
  needed = {name: x.shape for name, x in states.flatten(model).items()}
  given = {n: tuple(s) for n, s in _document(path)['shapes'].items()}
  problems = states.differences(needed, given)
  if problems:
    raise ValueError(f'{path}: checkpoint of another network: {problems}')
  return states.replace(model, _arrays(path, model)), metadata


def _check_expected(
  path: pathlib.Path, metadata: Metadata, expected: Mapping[str, Any]
) -> None:
  different = [
    f'{name}: checkpoint {getattr(metadata, name)!r}, needed {value!r}'
    for name, value in expected.items()
    if _plain(getattr(metadata, name)) != _plain(value)
  ]
  if different:
    raise ValueError(
      f'{path}: checkpoint of another configuration: {"; ".join(different)}'
    )


def _plain(value: Any) -> Any:
  """Returns a value as JSON gives it back, so that tuples equal lists."""
  return json.loads(json.dumps(value))


def _arrays(path: pathlib.Path, model: nnx.Module) -> dict[str, jax.Array]:
  wanted = {
    name: jax.ShapeDtypeStruct(x.shape, x.dtype)
    for name, x in states.flatten(model).items()
  }
  try:
    with ocp.StandardCheckpointer() as checkpointer:
      return checkpointer.restore(path / 'arrays', wanted)
  except (OSError, ValueError, KeyError) as error:
    raise ValueError(f'{path}: damaged checkpoint: {error}') from error
