"""Runs of a network of a study, kept on disk, and the seconds they took.

A file per image and sequence of nodes holds the longest part of the sequence
that was asked for: growing a nested design runs the new nodes alone.
"""

from collections.abc import Callable
import dataclasses
import hashlib
import io
import pathlib
import time

import numpy as np

from experiments.benchmarks import studies
from jaxsens import files

# Nodes by which a sequence is known.
_FIRST = 8


@dataclasses.dataclass(frozen=True, eq=False)
class _Kept:
  """Nodes (N, D), logits (N, C) there, and the seconds that they took."""

  nodes: np.ndarray
  logits: np.ndarray
  seconds: float

  @property
  def parts(self) -> list[np.ndarray]:
    """The logits, if there are any."""
    return [self.logits] if len(self.nodes) else []


_EMPTY = _Kept(np.empty((0, 0)), np.empty((0, 0)), 0.0)


@dataclasses.dataclass(frozen=True, eq=False)
class Runs:
  """Logits of the images of a study.

  Attributes:
    study: the study.
    folder: where the logits are kept.
    seconds: {(image, sequence): seconds of all runs that were asked for}, of
      the time when they were really made.
  """

  study: studies.Study
  folder: pathlib.Path
  seconds: dict[tuple[int, str], float] = dataclasses.field(
    default_factory=dict
  )

  def logits(self, image: int, nodes: np.ndarray) -> np.ndarray:
    """Returns logits (N, C) at germ coordinates (N, D)."""
    path = self._path(image, nodes)
    start = time.perf_counter()
    kept = _read(path)
    num_shared = min(len(kept.nodes), len(nodes))
    if num_shared and not np.array_equal(
      kept.nodes[:num_shared], nodes[:num_shared]
    ):
      kept = _EMPTY
    fresh = nodes[len(kept.nodes):]
    if len(fresh):
      logits = self.study.evaluate(image, self.study.space.to_values(fresh))
      kept = _Kept(
        nodes, np.concatenate([*kept.parts, logits]),
        kept.seconds + time.perf_counter() - start,
      )
      _write(path, kept)
    share = len(nodes) / len(kept.nodes)
    self.seconds[image, path.stem] = share * kept.seconds
    return kept.logits[: len(nodes)]

  def probability(self, image: int, nodes: np.ndarray) -> np.ndarray:
    """Returns the probability (N,) of the image's own class."""
    logits = self.logits(image, nodes)
    return studies.probability(logits, self.study.labels[image])

  def warm_up(self) -> None:
    """Compiles the network, so that no measured run pays for it."""
    size = self.study.evaluator.batching.batch_size
    middle = np.zeros((size, self.study.space.dim))
    self.study.evaluate(0, self.study.space.to_values(middle))

  def _path(self, image: int, nodes: np.ndarray) -> pathlib.Path:
    picture = np.asarray(self.study.images.images[image], np.float32)
    digest = hashlib.sha256(self.study.digest.encode() + picture.tobytes())
    digest.update(repr(self.study.space).encode())
    digest.update(np.ascontiguousarray(nodes[:_FIRST]).tobytes())
    return self.folder / f'{self.study.name}-{digest.hexdigest()[:24]}.npz'


def transform(label: int) -> Callable[[np.ndarray], np.ndarray]:
  """Returns logits (..., C) -> probability of a class (..., 1)."""

  def of_logits(logits: np.ndarray) -> np.ndarray:
    others = logits - logits[..., label : label + 1]
    return 1 / np.sum(np.exp(np.minimum(others, 700)), axis=-1, keepdims=True)

  return of_logits


def _read(path: pathlib.Path) -> _Kept:
  if not path.exists():
    return _EMPTY
  with np.load(path, allow_pickle=False) as kept:
    return _Kept(kept['nodes'], kept['logits'], float(kept['seconds']))


def _write(path: pathlib.Path, kept: _Kept) -> None:
  files.make_directory(path.parent)
  content = io.BytesIO()
  np.savez(content, **vars(kept))
  files.write_bytes(path, content.getvalue())
