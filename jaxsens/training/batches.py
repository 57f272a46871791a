"""Labelled images in memory, and their way to the devices in batches.

The images are arrays in memory, read and resized once; there is no pipeline of
workers such as Grain's. The sets that are trained on here have 10^3 to 10^5
small images, which fit: nothing is decoded twice, an epoch is a permutation
that follows from its key, so that a resumed training sees the same batches
without the state of an iterator, and augmentation runs on the device, where the
images are. A loader of workers earns its processes where a set does not fit the
memory of the host; then this module is what it would replace.

What fits the memory of the devices is put there once. Of what does not, each
batch is gathered on the host and sent.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

PLACEMENTS = ('auto', 'device', 'host')
"""Where the training images lie, see `Feeder`."""
# Of the free memory of a device; the rest is for network and activations.
_SHARE = 0.5
# For devices that do not say how much they have, as CPUs.
_UNKNOWN_BYTES = 4 * 2**30


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

  A set that fits is put on the devices once, whole on each, and a step gathers
  its images there. Of another each batch is gathered on the host. The batches
  are the same.

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
    placement: str = 'auto',
    device_bytes: int | None = None,
  ):
    """Puts the images on the devices if they fit.

    Args:
      data: the training set.
      batch_size: images per batch; a smaller set is one batch.
      devices: to divide the work over; default all local ones. Of them as many
        are used as divide the batch into equal parts.
      placement: 'device' puts the set there, 'host' leaves it, 'auto' puts
        what fits.
      device_bytes: largest set that fits; None is half of what the fullest of
        the devices has free, or 4 GiB where they do not say.

    Raises:
      ValueError: the placement is unknown, or is 'device' and the set does not
        fit; the message has both numbers of bytes.
    """
    check_placement(placement)
    devices = list(devices or jax.local_devices())
    self.batch_size = min(batch_size, len(data.labels))
    self.steps_per_epoch = len(data.labels) // self.batch_size
    self.mesh = _mesh(devices, self.batch_size)
    self._data = data
    self._resident = None
    if _is_put(data, placement, device_bytes, devices):
      self._resident = self.replicate((
        jnp.asarray(data.images), jnp.asarray(data.labels)
      ))

  @property
  def is_resident(self) -> bool:
    """Whether the set lies on the devices."""
    return self._resident is not None

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


def check_placement(placement: str) -> None:
  """Raises ValueError for a placement that there is not."""
  if placement not in PLACEMENTS:
    raise ValueError(
      f'placement must be one of {PLACEMENTS}, got {placement!r}.'
    )


def _is_put(data, placement, device_bytes, devices) -> bool:
  """Returns whether the images are put on the devices."""
  if placement == 'host':
    return False
  needed = np.asarray(data.images).nbytes + np.asarray(data.labels).nbytes
  limit = free_bytes(devices) if device_bytes is None else device_bytes
  if needed > limit and placement == 'device':
    raise ValueError(
      f'{len(data.labels)} training images of {np.shape(data.images)[1:]} take '
      f'{needed:,} bytes, of which {limit:,} may be used on the device; the '
      "placement 'host' sends each batch by itself, 'auto' does so where it "
      'must.'
    )
  return needed <= limit


def free_bytes(devices: Sequence[jax.Device]) -> int:
  """Returns how many bytes of images each of some devices may hold."""
  limits = []
  for device in devices:
    found = device.memory_stats() or {}
    if 'bytes_limit' not in found:
      return _UNKNOWN_BYTES
    free = found['bytes_limit'] - found.get('bytes_in_use', 0)
    limits.append(int(_SHARE * free))
  return min(limits)


def _mesh(
  devices: Sequence[jax.Device], batch_size: int
) -> jax.sharding.Mesh | None:
  number = max(
    n for n in range(1, len(devices) + 1) if batch_size % n == 0
  )
  if number == 1:
    return None
  return jax.sharding.Mesh(np.asarray(devices[:number]), ('data',))
