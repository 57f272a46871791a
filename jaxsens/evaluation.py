"""Sends nodes through perturbation, network and quantity, in batches.

    outputs[n, :] = quantities(classifier(perturb(image, values[n])), label)

This is the only module that holds perturbed batches or knows about devices. The
whole path of a chunk of nodes is one compiled program: the image stays on the
device, perturbed images never leave it, and only the outputs (N, K) come back.
A chunk is cut into batches inside the program, so memory does not grow with the
number of nodes and the host has nothing to do in between; the next chunk is
dispatched before the last one is fetched. The last chunk is padded and the
padding is cut off, so one compilation serves all chunks.

Finished chunks are kept in a `ChunkStore` under the hash of everything that
defines them: image, label, params, perturbations, quantities and values.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import functools
import hashlib
import io
import json
import pathlib
import re
import time
from typing import Protocol
import warnings

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np

from jaxsens import classifiers
from jaxsens import files
from jaxsens import quantities as quantities_lib

# Chunks in flight: one computes while the one before is fetched and stored.
_IN_FLIGHT = 2


class Perturb(Protocol):
  """What the evaluation needs of a chain of perturbations."""

  def prepare(self, image: jax.Array):
    """Returns the part of the work that no value changes."""

  def apply(self, prepared, values: jax.Array, key: jax.Array) -> jax.Array:
    """Returns the perturbed image (H, W, C) for one row of values (D,)."""

  def describe(self) -> dict:
    """Returns JSON-able data that defines the result."""


@dataclasses.dataclass(frozen=True)
class Batching:
  """How nodes are cut.

  Attributes:
    batch_size: images that go through the network together.
    chunk_size: nodes per stored chunk and compiled call, a multiple of it.
  """

  batch_size: int
  chunk_size: int

  def __post_init__(self):
    if self.batch_size < 1 or self.chunk_size % self.batch_size:
      raise ValueError(
        'chunk_size must be a positive multiple of batch_size, got '
        f'{self.chunk_size} and {self.batch_size}'
      )


class ChunkStore:
  """Finished chunks as .npy files, each written whole or not at all."""

  def __init__(self, directory: str | pathlib.Path):
    self._directory = pathlib.Path(directory)
    files.make_directory(self._directory)

  def load(self, name: str, shape: tuple[int, int]) -> np.ndarray | None:
    """Returns a chunk, or None if it is absent or, with a warning, damaged."""
    path = self._directory / f'{name}.npy'
    if not path.exists():
      return None
    try:
      outputs = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
      warnings.warn(f'{path} is damaged ({error}); evaluating it again',
                    stacklevel=2)
      return None
    if outputs.shape != shape:
      warnings.warn(
        f'{path} has shape {outputs.shape}, expected {shape}; evaluating it '
        'again', stacklevel=2,
      )
      return None
    return outputs

  def save(self, name: str, outputs: np.ndarray) -> None:
    """Writes a chunk; an OSError names the file and what is safe."""
    content = io.BytesIO()
    np.save(content, outputs, allow_pickle=False)
    files.write_bytes(self._directory / f'{name}.npy', content.getvalue())


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluator:
  """Evaluates one classifier under one chain of perturbations.

  Made by `make_evaluator`, which compiles nothing yet.

  Attributes:
    classifier: the network.
    perturb: the chain; its output has the size that the classifier takes.
    quantities: what is read off the logits.
    batching: how nodes are cut.
    store: where finished chunks are kept; None keeps nothing.
    mesh: devices to share the nodes of every batch; None uses the default one.
    num_draws: draws of random perturbations at every node. Of more than one,
      the quantities are those of the mean of the softmax probabilities, or of
      the kernels.
  """

  classifier: classifiers.Classifier
  perturb: Perturb
  quantities: quantities_lib.Quantities
  batching: Batching
  store: ChunkStore | None
  mesh: jax.sharding.Mesh | None
  num_draws: int
  _prepare: Callable
  _run_chunk: Callable
  _digest: str

  def __call__(
    self,
    key: jax.Array,
    image: ArrayLike,
    label: int,
    values: ArrayLike,
    *,
    name: str = 'image',
    progress: Callable[[int], None] = lambda num_nodes: None,
  ) -> np.ndarray:
    """Returns the outputs of one image at all nodes.

    Args:
      key: for perturbations that draw; the same at every node.
      image: (H, W, C) float in [0, 1], of any size.
      label: true class, 0 <= label < C.
      values: (N, D) physical values, one row a node.
      name: of the image, for error messages.
      progress: called with the number of nodes whenever a chunk is done.

    Returns:
      (N, K) float32.

    Raises:
      ValueError: image, label or values do not fit.
      FloatingPointError: the network gave NaN or infinity; names the node.
        Chunks finished before stay stored.
    """
    image = self._check_image(np.asarray(image), name)
    values = _check_values(values)
    if not 0 <= label < len(self.classifier.class_names):
      raise ValueError(
        f'{name}: label {label} is not among the '
        f'{len(self.classifier.class_names)} classes'
      )
    image_digest = _hash(
      self._digest, image.shape, image.tobytes(), int(label),
      jax.random.key_data(key).tolist(),
    )
    outputs = np.empty(
      (len(values), len(self.quantities.output_names)), np.float32
    )
    todo = []
    for start in range(0, len(values), self.batching.chunk_size):
      rows = values[start:start + self.batching.chunk_size]
      chunk = _hash(image_digest, rows.shape, rows.tobytes())[:24]
      found = self.store and self.store.load(
        chunk, (len(rows), outputs.shape[1])
      )
      if found is None:
        todo.append((start, rows, chunk))
      else:
        outputs[start:start + len(rows)] = found
        progress(len(rows))
    if not todo:
      return outputs
    for (start, rows, chunk), result in self._stream(key, image, label, todo):
      _check_finite(result, rows, name)
      if self.store:
        self.store.save(chunk, result)
      outputs[start:start + len(rows)] = result
      progress(len(rows))
    return outputs

  def render(
    self, key: jax.Array, image: ArrayLike, values: ArrayLike
  ) -> np.ndarray:
    """Returns the perturbed images (N, H, W, C) of a handful of nodes."""
    prepared = self._prepare(jnp.asarray(image, jnp.float32))
    values = _check_values(values)
    return np.asarray(_render(self.perturb, prepared, values, key))

  def _stream(self, key, image, label, todo) -> Iterator:
    """Yields chunks and results, dispatching ahead of what is fetched."""
    prepared = self._prepare(jnp.asarray(image))
    waiting = []
    for item in todo:
      rows = item[1]
      padded = np.concatenate([
        rows, np.repeat(rows[-1:], self.batching.chunk_size - len(rows), 0)
      ])
      batches = padded.reshape(-1, self.batching.batch_size, rows.shape[1])
      num_batches = -(-len(rows) // self.batching.batch_size)
      waiting.append((item, self._run_chunk(
        self.classifier, prepared, jnp.asarray(batches), num_batches, label, key
      )))
      if len(waiting) == _IN_FLIGHT:
        yield _fetch(*waiting.pop(0))
    for item, result in waiting:
      yield _fetch(item, result)

  def _check_image(self, image, name):
    if image.ndim != 3 or image.shape[2] != self.classifier.channels:
      raise ValueError(
        f'{name}: expected an image (H, W, {self.classifier.channels}), got '
        f'shape {image.shape}'
      )
    if not np.issubdtype(image.dtype, np.floating):
      raise TypeError(
        f'{name}: expected floating point pixels in [0, 1], got {image.dtype}; '
        'divide integers by their largest value'
      )
    image = image.astype(np.float32)
    if not np.isfinite(image).all():
      raise ValueError(f'{name}: the image has NaN or infinite pixels')
    if image.min() < 0 or image.max() > 1:
      raise ValueError(
        f'{name}: pixels must lie in [0, 1], got '
        f'[{image.min():g}, {image.max():g}]'
      )
    return image


def make_evaluator(
  classifier: classifiers.Classifier,
  perturb: Perturb,
  quantities: quantities_lib.Quantities,
  *,
  batching: Batching,
  store: ChunkStore | None = None,
  mesh: jax.sharding.Mesh | None = None,
  num_draws: int = 1,
) -> Evaluator:
  """Returns an evaluator; see `Evaluator` for the arguments.

  Raises:
    ValueError: no draw, the batch cannot be shared evenly over the devices of
      the mesh, or params are not finite (some backends lose NaN on its way
      through a network, so that the outputs would not show it).
  """
  for path, leaf in jax.tree_util.tree_leaves_with_path(classifier.params):
    leaf = np.asarray(leaf)
    if jnp.issubdtype(leaf.dtype, jnp.floating) and not np.isfinite(leaf).all():
      raise ValueError(
        f'the params have NaN or infinite values at '
        f'{jax.tree_util.keystr(path)}'
      )
  if num_draws < 1:
    raise ValueError(f'num_draws must be at least 1, got {num_draws}')
  if mesh is not None and batching.batch_size % mesh.size:
    raise ValueError(
      f'batch_size {batching.batch_size} must be a multiple of the '
      f'{mesh.size} devices of the mesh'
    )
  digest = _hash(
    _digest_classifier(classifier),
    json.dumps(perturb.describe(), sort_keys=True), quantities.output_names,
    *([] if num_draws == 1 else [num_draws]),
  )
  return Evaluator(
    classifier, perturb, quantities, batching, store, mesh, num_draws,
    jax.jit(perturb.prepare),
    _make_run_chunk(perturb, quantities, mesh, num_draws), digest,
  )


def measure_batching(
  evaluator: Evaluator,
  image: ArrayLike,
  values: ArrayLike,
  batch_sizes: Iterable[int],
  *,
  seconds_per_chunk: float = 4.0,
  num_repeats: int = 2,
) -> tuple[Batching, dict[int, float]]:
  """Measures which batch size is fastest here and fits the chunk to it.

  Args:
    evaluator: its batching is not used.
    image: (H, W, C) an image to try.
    values: (N, D) some rows to try; repeated as needed.
    batch_sizes: candidates. Small ones win on CPU, large ones on accelerators.
    seconds_per_chunk: about how long a chunk should take; what a kill loses.
    num_repeats: timed calls per candidate, of which the fastest counts.

  Returns:
    The batching and the nodes per second of each candidate.
  """
  prepared = evaluator._prepare(jnp.asarray(image, jnp.float32))
  values = _check_values(values)
  rates = {}
  for batch_size in batch_sizes:
    # At least 32 nodes a call: a call's fixed cost must not decide.
    num_batches = max(1, 32 // batch_size)
    rows = np.resize(values, (num_batches * batch_size, values.shape[1]))
    rows = jnp.asarray(rows.reshape(num_batches, batch_size, -1))
    call = lambda rows=rows: jax.block_until_ready(evaluator._run_chunk(
      evaluator.classifier, prepared, rows, len(rows), 0, jax.random.key(0)
    ))
    call()
    seconds = []
    for _ in range(num_repeats):
      start = time.perf_counter()
      call()
      seconds.append(time.perf_counter() - start)
    rates[batch_size] = num_batches * batch_size / min(seconds)
  best = max(rates, key=rates.get)
  num_batches = max(1, round(seconds_per_chunk * rates[best] / best))
  return Batching(best, best * num_batches), rates


def default_batch_sizes(backend: str, num_devices: int = 1) -> tuple[int, ...]:
  """Returns the batch sizes worth trying on a backend ('cpu', 'gpu', 'tpu')."""
  sizes = (4, 8, 16) if backend == 'cpu' else (128, 256, 512, 1024)
  return tuple(num_devices * max(1, size // num_devices) for size in sizes)


def _make_run_chunk(perturb, quantities, mesh, num_draws):
  """Returns the compiled path of a chunk: values (batches, B, D) to outputs."""

  def run_draw(classifier, prepared, values, key):
    images = jax.vmap(lambda row: perturb.apply(prepared, row, key))(values)
    return classifier(images).astype(jnp.float32)

  def run_batch(classifier, prepared, values, label, key):
    if num_draws == 1:
      logits = run_draw(classifier, prepared, values, key)
    else:
      # One draw after the other: memory does not grow with their number.
      normalise = (
        jax.nn.log_softmax if classifier.answers == 'logits' else lambda x: x
      )
      log_probabilities = jax.lax.map(
        lambda one: normalise(run_draw(classifier, prepared, values, one)),
        jax.random.split(key, num_draws),
      )
      logits = jax.nn.logsumexp(log_probabilities, axis=0) - np.log(num_draws)
    return jax.vmap(quantities, (0, None))(logits, label)

  def run_chunk(classifier, prepared, values, num_batches, label, key):
    def fill(i, outputs):
      result = run_batch(classifier, prepared, values[i], label, key)
      return outputs.at[i].set(result)

    shape = (*values.shape[:2], len(quantities.output_names))
    # Only the batches that hold nodes are run: a chunk may be nearly empty.
    return jax.lax.fori_loop(
      0, num_batches, fill, jnp.zeros(shape, jnp.float32)
    )

  if mesh is None:
    return jax.jit(run_chunk)
  replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
  nodes = jax.sharding.NamedSharding(
    mesh, jax.sharding.PartitionSpec(None, mesh.axis_names[0])
  )
  return jax.jit(
    run_chunk,
    in_shardings=(
      replicated, replicated, nodes, replicated, replicated, replicated
    ),
    out_shardings=nodes,
  )


@functools.partial(jax.jit, static_argnums=0)
def _render(perturb, prepared, values, key):
  return jax.vmap(lambda row: perturb.apply(prepared, row, key))(values)


def _fetch(item, result):
  outputs = np.asarray(result)
  return item, outputs.reshape(-1, outputs.shape[-1])[:len(item[1])]


def _check_values(values) -> np.ndarray:
  values = np.ascontiguousarray(values, np.float32)
  if values.ndim != 2:
    raise ValueError(f'values must be (N, D), got {values.shape}')
  if not np.isfinite(values).all():
    raise ValueError('values must be finite')
  return values


def _check_finite(outputs, rows, name):
  bad = np.flatnonzero(~np.isfinite(outputs).all(1))
  if bad.size:
    raise FloatingPointError(
      f'{name}: the network gave NaN or infinity at {bad.size} of {len(rows)} '
      f'nodes of a chunk, first at values {rows[bad[0]].tolist()}. Chunks that '
      'were finished before are kept'
    )


def _digest_classifier(classifier) -> str:
  """Hashes the network as a program together with its params.

  The program is the traced computation, so two functions that compute the same
  are the same and no function's address or name matters.
  """
  images = jax.ShapeDtypeStruct(
    (1, *classifier.image_size, classifier.channels), jnp.float32
  )
  program = jax.make_jaxpr(lambda network, x: network(x))(classifier, images)
  text = re.sub('0x[0-9a-f]+', '', str(program))
  return _hash(
    text, *map(_digest_array, program.consts),
    *map(_digest_array, jax.tree.leaves(classifier.params)),
  )


def _digest_array(array) -> bytes:
  array = np.asarray(array)
  digest = hashlib.sha256(f'{array.dtype}{array.shape}'.encode())
  digest.update(np.ascontiguousarray(array).tobytes())
  return digest.digest()


def _hash(*parts: bytes | str | int | Sequence) -> str:
  digest = hashlib.sha256()
  for part in parts:
    digest.update(part if isinstance(part, bytes) else repr(part).encode())
    digest.update(b'\0')
  return digest.hexdigest()
