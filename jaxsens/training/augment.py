"""Augmentation of a batch on the device: flips, crops and a policy.

It runs inside the compiled training step. The key of an image is made of the
epoch and of its place in the training set, so that what happens to an image
depends neither on the batch that it is in nor on the order of the batches nor
on how many devices share the work.
"""

from collections.abc import Callable
import dataclasses
import functools
import math

import jax
import jax.numpy as jnp

from jaxsens.training import policies

CROPS = ('none', 'padded', 'resized')
# Share of the area and ratio of width to height that a resized crop keeps.
_SCALE = (0.08, 1.0)
_RATIO = (3 / 4, 4 / 3)
_NUM_ATTEMPTS = 10


@dataclasses.dataclass(frozen=True)
class Augmentation:
  """What is done to every training image, first to last.

  Attributes:
    crop: 'none'; 'padded', a window of the image's size at a random place of
      the image with `crop_padding` black pixels around it; 'resized', a random
      part of `random_resized_crop` enlarged to the size of the image.
    crop_padding: pixels on each side.
    flip: probability of exchanging left and right.
    policy: one of `policies.NAMES`.
    num_operations: of the policy 'rand_augment'.
    magnitude: of the policy 'rand_augment', 0 to 30.
  """

  crop: str = 'none'
  crop_padding: int = 4
  flip: float = 0.0
  policy: str = 'none'
  num_operations: int = 2
  magnitude: int = 9

  def __post_init__(self):
    if self.crop not in CROPS:
      raise ValueError(f'crop must be one of {CROPS}, got {self.crop!r}.')
    if self.crop_padding < 0 or self.num_operations < 1:
      raise ValueError(
        'crop_padding must not be negative and num_operations at least 1, got '
        f'{self.crop_padding} and {self.num_operations}.'
      )
    if not 0 <= self.flip <= 1:
      raise ValueError(f'flip must be a probability, got {self.flip}.')
    self._policy()

  def _policy(self):
    return policies.find(
      self.policy, num_operations=self.num_operations, magnitude=self.magnitude
    )

  @property
  def changes(self) -> bool:
    """Whether anything is done at all."""
    return bool(
      self.crop != 'none' or self.flip or self.policy != 'none'
    )

  def one(self, key: jax.Array, image: jax.Array) -> jax.Array:
    """Returns an image (H, W, C) in [0, 1], augmented."""
    key_crop, key_flip, key_policy = jax.random.split(key, 3)
    if self.crop == 'padded':
      image = padded_crop(key_crop, image, self.crop_padding)
    if self.crop == 'resized':
      image = random_resized_crop(key_crop, image)
    if self.flip:
      flips = jax.random.bernoulli(key_flip, self.flip)
      image = jnp.where(flips, image[:, ::-1], image)
    policy = self._policy()
    return image if policy is None else policy(key_policy, image)

  def __call__(
    self,
    key: jax.Array,
    indices: jax.Array,
    images: jax.Array,
    *,
    mesh: jax.sharding.Mesh | None = None,
  ) -> jax.Array:
    """Returns a batch with every image augmented by a key of its own.

    Args:
      key: of the epoch.
      indices: (N,) places of the images in the training set.
      images: (N, H, W, C) in [0, 1].
      mesh: mesh with the axis 'data' over which the batch is divided.

    Returns:
      (N, H, W, C).
    """
    if not self.changes:
      return images
    run = functools.partial(_one_by_one, self.one)
    if mesh is not None:
      spec = jax.sharding.PartitionSpec
      run = jax.shard_map(
        run, mesh=mesh, in_specs=(spec(), spec('data'), spec('data')),
        out_specs=spec('data'), check_vma=False,
      )
    return run(key, indices, images)


def _one_by_one(
  function: Callable[[jax.Array, jax.Array], jax.Array],
  key: jax.Array,
  indices: jax.Array,
  images: jax.Array,
) -> jax.Array:
  """Loops over the images, so that a switch carries out one branch only."""
  return jax.lax.map(
    lambda one: function(jax.random.fold_in(key, one[0]), one[1]),
    (indices, images),
  )


def padded_crop(key: jax.Array, image: jax.Array, padding: int) -> jax.Array:
  """Returns a window at a random place of the image padded with black.

  Args:
    key: typed key.
    image: (H, W, C).
    padding: pixels on each side.

  Returns:
    (H, W, C), as torchvision's RandomCrop(size, padding).
  """
  places = jax.random.randint(key, (2,), 0, 2 * padding + 1)
  padded = jnp.pad(image, ((padding, padding), (padding, padding), (0, 0)))
  return jax.lax.dynamic_slice(padded, (*places, 0), image.shape)


def random_resized_crop(key: jax.Array, image: jax.Array) -> jax.Array:
  """Returns a random part of an image, resized to the image's size.

  The part is that of torchvision's RandomResizedCrop: area and logarithm of the
  ratio of the sides uniform, ten attempts, then the largest allowed part in the
  middle. Resizing is bilinear with antialiasing; at the edge of the part it
  reads the neighbouring pixels of the image where torchvision ends.

  Args:
    key: typed key.
    image: (H, W, C).

  Returns:
    (H, W, C) in the range of the image.
  """
  top, left, height, width = _draw_part(key, image.shape[:2])
  scale = jnp.stack([image.shape[0] / height, image.shape[1] / width])
  offset = -jnp.stack([top, left]) * scale
  return jax.image.scale_and_translate(
    image, image.shape, (0, 1), scale.astype(image.dtype),
    offset.astype(image.dtype), 'linear', antialias=True,
  )


def _draw_part(key, size):
  """Returns top, left, height and width, whole pixels as floats."""
  full_height, full_width = size
  key_area, key_ratio, key_place = jax.random.split(key, 3)
  areas = full_height * full_width * jax.random.uniform(
    key_area, (_NUM_ATTEMPTS,), minval=_SCALE[0], maxval=_SCALE[1]
  )
  ratios = jnp.exp(jax.random.uniform(
    key_ratio, (_NUM_ATTEMPTS,), minval=math.log(_RATIO[0]),
    maxval=math.log(_RATIO[1]),
  ))
  widths = jnp.round(jnp.sqrt(areas * ratios))
  heights = jnp.round(jnp.sqrt(areas / ratios))
  fits = (
    (widths > 0) & (widths <= full_width)
    & (heights > 0) & (heights <= full_height)
  )
  first = jnp.argmax(fits)
  places = jax.random.uniform(key_place, (2,))
  height, width = heights[first], widths[first]
  top = jnp.floor(places[0] * (full_height - height + 1))
  left = jnp.floor(places[1] * (full_width - width + 1))
  drawn = jnp.stack([top, left, height, width])
  return jnp.where(fits.any(), drawn, jnp.asarray(_middle(size), drawn.dtype))


def _middle(size):
  full_height, full_width = size
  ratio = full_width / full_height
  width = full_height * _RATIO[1] if ratio > _RATIO[1] else full_width
  height = full_width / _RATIO[0] if ratio < _RATIO[0] else full_height
  height, width = round(height), round(width)
  return (full_height - height) // 2, (full_width - width) // 2, height, width
