"""Labelled images in memory, and their way to the devices in batches."""

from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

# Largest training set that is put on the device whole.
_DEVICE_BYTES = 4 * 2**30


@dataclasses.dataclass(frozen=True)
class LabelledImages:
  """Images with their classes.

  Attributes:
    images: (N, H, W, C) float in [0, 1].
    labels: (N,) int in 0..K-1.
  """

  images: np.ndarray
  labels: np.ndarray

  def __post_init__(self):
    if np.ndim(self.images) != 4 or np.shape(self.labels) != (
      len(self.images),
    ):
      raise ValueError(
        'images must have shape (N, H, W, C) and labels (N,), got '
        f'{np.shape(self.images)} and {np.shape(self.labels)}.'
      )
    if not len(self.labels):
      raise ValueError('there must be at least one labelled image, got none.')


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
  """Images as a training step takes them.

  Attributes:
    images: (N, H, W, C): the whole training set, or just this batch.
    labels: (N,) likewise.
    rows: (B,) rows of the batch in these arrays.
    indices: (B,) places of its images in the training set.
  """

  images: jax.Array
  labels: jax.Array
  rows: jax.Array
  indices: jax.Array

  def take(self) -> tuple[jax.Array, jax.Array]:
    """Returns the images (B, H, W, C) and the labels (B,)."""
    return tuple(
      jnp.asarray(array).at[self.rows].get(mode='promise_in_bounds')
      for array in (self.images, self.labels)
    )


class Feeder:
  """Gives out the batches of every epoch.

  A set of up to `device_bytes` is put on the device once, and a step gathers
  its images there. Of a larger one each batch is gathered on the host.

  Attributes:
    batch_size: images per batch.
    steps_per_epoch: batches per epoch.
    mesh: mesh of the devices with the one axis 'data', over which a batch is
      divided; None for a single device.
  """

  def __init__(
    self,
    data: LabelledImages,
    batch_size: int,
    *,
    devices: Sequence[jax.Device] | None = None,
    device_bytes: int = _DEVICE_BYTES,
  ):
    """Puts the images on the devices if they fit.

    Args:
      data: the training set.
      batch_size: images per batch; a smaller set is one batch.
      devices: to divide the work over; default all local ones. Of them as many
        are used as divide the batch into equal parts.
      device_bytes: largest set that is put there whole.
    """
    self.batch_size = min(batch_size, len(data.labels))
    self.steps_per_epoch = len(data.labels) // self.batch_size
    self.mesh = _mesh(devices or jax.local_devices(), self.batch_size)
    self._data = data
    self._resident = None
    if np.asarray(data.images).nbytes <= device_bytes:
      self._resident = self.replicate((
        jnp.asarray(data.images), jnp.asarray(data.labels)
      ))

  def replicate(self, tree):
    """Returns a tree of arrays, of which every device has all."""
    if self.mesh is None:
      return tree
    return jax.device_put(tree, self.sharding())

  def sharding(self, *axes: str) -> jax.sharding.NamedSharding | None:
    """Returns how an array lies on the devices, None for a single one."""
    if self.mesh is None:
      return None
    return jax.sharding.NamedSharding(
      self.mesh, jax.sharding.PartitionSpec(*axes)
    )

  def epoch(self, key: jax.Array) -> Iterator[Batch]:
    """Yields the batches of an epoch, shuffled by its key."""
    order = np.asarray(jax.random.permutation(key, len(self._data.labels)))
    kept = order[: self.steps_per_epoch * self.batch_size].astype(np.int32)
    for indices in kept.reshape(self.steps_per_epoch, self.batch_size):
      yield self._batch(indices)

  def _batch(self, indices: np.ndarray) -> Batch:
    if self._resident is not None:
      images, labels = self._resident
      rows = self._divide(indices)
      return Batch(images, labels, rows, rows)
    return Batch(
      self._divide(self._data.images[indices]),
      self._divide(self._data.labels[indices]),
      self._divide(np.arange(len(indices), dtype=np.int32)),
      self._divide(indices),
    )

  def _divide(self, array: np.ndarray):
    if self.mesh is None:
      return array
    return jax.device_put(array, self.sharding('data'))


def _mesh(
  devices: Sequence[jax.Device], batch_size: int
) -> jax.sharding.Mesh | None:
  number = max(
    n for n in range(1, len(devices) + 1) if batch_size % n == 0
  )
  if number == 1:
    return None
  return jax.sharding.Mesh(np.asarray(devices[:number]), ('data',))
