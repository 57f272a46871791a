"""Finds weight files by entry of the manifest, path or address, verified."""

from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import csv
import dataclasses
import hashlib
import json
import pathlib
import re
from typing import Any
import urllib.parse

from flax import nnx
import jax
import tqdm

from jaxsens.models import registry
from jaxsens.weights import cache
from jaxsens.weights import download
from jaxsens.weights import manifest
from jaxsens.weights import safetensors
from jaxsens.weights import state_dicts

# torch.hub's convention: the name ends in the first digits of the SHA-256.
_DIGEST = re.compile(r'-([0-9a-f]{8,64})\.\w+$')
HEADER = 'jaxsens'
"""Entry of the header of a .safetensors file that was written here."""
FACTS = (
  'architecture', 'options', 'class_names', 'image_size', 'channels', 'mean',
  'std', 'data',
)
"""What stands there in JSON, fields of `checkpoints.Metadata`."""


@dataclasses.dataclass(frozen=True)
class Source:
  """Where weights come from.

  Attributes:
    path: the file, on this machine.
    digest: its SHA-256.
    verified: what the digest was compared with, in words.
    public: its entry of the manifest, or None.
  """

  path: pathlib.Path
  digest: str
  verified: str
  public: manifest.PublicWeights | None = None


def listing() -> str:
  """Returns the manifest as a table, with what lies on this machine."""
  rows = [('name', 'file', 'top-1', 'licence', 'here')]
  for entry in manifest.PUBLIC_WEIGHTS.values():
    rows.append((
      entry.name, entry.filename,
      '' if entry.top1 is None else f'{entry.top1:.2f}', entry.licence,
      _state(entry),
    ))
  return f'{_aligned(rows)}\ncache: {cache.folder()}'


def networks() -> str:
  """Returns the networks as a table: size, work, weights known, source.

  FLOPs are of one RGB image of the published size; a multiply-add is two.
  """
  rows = [('name', 'parameters', 'GFLOPs', 'input', 'weights', 'source')]
  for name, known in registry.ARCHITECTURES.items():
    blank = nnx.eval_shape(lambda name=name, known=known: registry.create(
      name, jax.random.key(0), known.num_classes
    ))
    entries = manifest.of_architecture(name)
    height, width = known.image_size
    rows.append((
      name, f'{registry.num_parameters(blank):,}',
      f'{registry.flops(blank, (height, width, 3)) / 1e9:.2g}',
      f'{height} x {width}',
      ', '.join(
        f'{e.name.partition(".")[2]} ({e.licence})' for e in entries
      ) or 'none',
      known.source,
    ))
  return _aligned(rows)


def _aligned(rows) -> str:
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  return '\n'.join(
    '  '.join(
      cell.ljust(w) for cell, w in zip(row, widths, strict=True)
    ).rstrip()
    for row in rows
  )


def _state(entry: manifest.PublicWeights) -> str:
  if cache.is_present(entry.filename):
    return 'yes'
  return 'no, can be fetched' if entry.is_downloadable else 'no'


def find(
  source: str | None, model: str | None, *, sha256: str = ''
) -> Source:
  """Returns the verified file of a source, fetched where needed.

  Args:
    source: entry of the manifest, its part behind the dot, file or address;
      None is the usual entry of the model.
    model: name of the network; None is that of the entry.
    sha256: first digits that a file or address must have.

  Raises:
    FileNotFoundError: it is not there and cannot be had.
    ValueError: it is none of these, or its digest is another.
  """
  name = source or model
  if name is None:
    raise ValueError('--model or --source is needed, or --list.')
  if urllib.parse.urlsplit(name).scheme in ('http', 'https', 'file'):
    return _from_address(name, sha256)
  if pathlib.Path(name).is_file():
    path = cache.verified(pathlib.Path(name), sha256)
    return _source(path, f'the digits {sha256}' if sha256 else '')
  if pathlib.Path(name).suffix in state_dicts.SUFFIXES:
    raise FileNotFoundError(f'{name}: no such weight file.')
  if model is not None and f'{model}.{name}' in manifest.PUBLIC_WEIGHTS:
    name = f'{model}.{name}'
  entry = manifest.find(name)
  with progress_bar(entry.filename) as progress:
    path = manifest.fetch(entry.name, progress=progress)
  full = len(entry.sha256) == 64
  return _source(
    path, f'the {"" if full else "first digits of the "}manifest', entry
  )


def _from_address(url: str, sha256: str) -> Source:
  filename = pathlib.PurePosixPath(urllib.parse.urlsplit(url).path).name
  if pathlib.Path(filename).suffix not in state_dicts.SUFFIXES:
    raise ValueError(
      f'{url}: the address of a file is needed, one of '
      f'{", ".join(state_dicts.SUFFIXES)}.'
    )
  found = _DIGEST.search(filename)
  known = sha256 or (found.group(1) if found else '')
  if not known:
    # Two files of one name must not be taken for each other.
    filename = f'{hashlib.sha256(url.encode()).hexdigest()[:8]}-{filename}'
  with progress_bar(filename) as progress:
    path = cache.fetch(filename, url, known, progress=progress)
  return _source(path, f'the digits {known}' if known else '')


def _source(path, verified, public=None) -> Source:
  with open(path, 'rb') as file:
    digest = hashlib.file_digest(file, 'sha256').hexdigest()
  return Source(path, digest, verified, public)


@contextlib.contextmanager
def progress_bar(name: str) -> Iterator[download.Progress]:
  """Yields a function that shows how much of a file is there."""
  bars: list[tqdm.tqdm] = []

  def show(have: int, total: int | None) -> None:
    if not bars:
      bars.append(tqdm.tqdm(
        desc=name, total=total, unit='B', unit_scale=True, unit_divisor=1024,
      ))
    bars[0].update(have - bars[0].n)

  try:
    yield show
  finally:
    for bar in bars:
      bar.close()


def own_facts(path: pathlib.Path) -> dict[str, Any]:
  """Returns what stands under `HEADER` in a file, {} where nothing does.

  Raises:
    ValueError: the header is damaged.
  """
  if path.suffix != '.safetensors':
    return {}
  text = safetensors.read_metadata(path).get(HEADER)
  try:
    facts = json.loads(text or '{}')
    if facts and not set(FACTS) <= facts.keys():
      raise ValueError(f'expected the fields {FACTS}, got {sorted(facts)}')
  except (ValueError, AttributeError) as error:
    raise ValueError(f'{path}: damaged entry {HEADER!r}: {error}') from error
  return facts


def class_names(path: str | None, number: int) -> tuple[str, ...]:
  """Returns the names in a text file, or csv with a column `name`.

  Args:
    path: the file; None makes names up.
    number: how many there must be.

  Raises:
    ValueError: there is another number of them.
  """
  if path is None:
    return tuple(f'class {i}' for i in range(number))
  with open(path, newline='') as file:
    if path.endswith('.csv'):
      names = tuple(row['name'] for row in csv.DictReader(file))
    else:
      names = tuple(line.strip() for line in file if line.strip())
  if len(names) != number:
    raise ValueError(f'{path}: {len(names)} class names for {number} classes.')
  return names


def unusual(options: Mapping[str, Any]) -> Iterator[str]:
  """Says in what the network is not that of torchvision."""
  if options.get('padding', 'torch') != 'torch':
    yield f"needs the padding {options['padding']!r} of Keras wherever it runs"
  if options.get('stem', 'imagenet') != 'imagenet':
    yield f'needs the stem {options["stem"]!r} wherever it runs'
