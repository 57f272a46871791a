"""Labelled images and what is known about them.

Images are gray or colour, float32 in [0, 1], shape (H, W, C). A set holds them
in memory as one array, or names files that are decoded one by one as they are
asked for: 26,666 frames of 800 x 974 pixels would take 83 GB as floats.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools
import pathlib

import jax
from jax.typing import ArrayLike
import numpy as np

from jaxsens.data import image_files

_RESIZE_CHUNK = 32


@dataclasses.dataclass(frozen=True)
class LazyImages(Sequence):
  """Image files, each decoded whenever it is asked for.

  Attributes:
    paths: the files, in order.
    channels: 1 for gray, 3 for RGB files.
  """

  paths: tuple[pathlib.Path, ...]
  channels: int = 1

  def __len__(self) -> int:
    return len(self.paths)

  def __getitem__(self, index: int) -> np.ndarray:
    """Decodes one image, float32 (H, W, C) in [0, 1]."""
    return image_files.read_image(self.paths[index], channels=self.channels)

  def take(self, indices: Sequence[int]) -> 'LazyImages':
    """Returns the images of the given positions, still undecoded."""
    paths = tuple(self.paths[i] for i in indices)
    return dataclasses.replace(self, paths=paths)


@dataclasses.dataclass(frozen=True, eq=False)
class RenderedImages(Sequence):
  """Procedural images, drawn whenever they are asked for.

  Attributes:
    parameters: arrays of leading length N that define the images.
    size: height and width in pixels.
    render_all: (parameters, size) -> images (N, H, W, C).
  """

  parameters: Mapping[str, np.ndarray]
  size: tuple[int, int]
  render_all: Callable[[Mapping, tuple[int, int]], np.ndarray]

  def __len__(self) -> int:
    return len(next(iter(self.parameters.values())))

  def __getitem__(self, index: int) -> np.ndarray:
    """Draws one image, float32 (H, W, C) in [0, 1]."""
    return self.take([range(len(self))[index]]).all()[0]

  def take(self, indices: Sequence[int]) -> 'RenderedImages':
    """Returns the images of the given positions, still undrawn."""
    parameters = {n: v[np.asarray(indices)] for n, v in self.parameters.items()}
    return dataclasses.replace(self, parameters=parameters)

  def all(self) -> np.ndarray:
    """Draws all images, (N, H, W, C), faster than one by one."""
    return self.render_all(self.parameters, self.size)


@dataclasses.dataclass(frozen=True)
class JoinedImages(Sequence):
  """Images of two sources, one after the other.

  Attributes:
    first: images, an array (N, H, W, C) or a sequence of (H, W, C).
    second: images of the same number of channels, of any size.
  """

  first: Sequence[np.ndarray] | np.ndarray
  second: Sequence[np.ndarray] | np.ndarray

  def __len__(self) -> int:
    return len(self.first) + len(self.second)

  def __getitem__(self, index: int) -> np.ndarray:
    """Returns one image, float32 (H, W, C) in [0, 1]."""
    index = range(len(self))[index]
    if index < len(self.first):
      return self.first[index]
    return self.second[index - len(self.first)]

  def take(self, indices: Sequence[int]) -> 'PickedImages':
    """Returns the images of the given positions, still undecoded."""
    return PickedImages(self, tuple(int(i) for i in indices))


@dataclasses.dataclass(frozen=True)
class PickedImages(Sequence):
  """Some images of a sequence, in any order.

  Attributes:
    images: the sequence that they are picked from.
    indices: their positions in it.
  """

  images: Sequence[np.ndarray]
  indices: tuple[int, ...]

  def __len__(self) -> int:
    return len(self.indices)

  def __getitem__(self, index: int) -> np.ndarray:
    """Returns one image, float32 (H, W, C) in [0, 1]."""
    return self.images[self.indices[index]]

  def take(self, indices: Sequence[int]) -> 'PickedImages':
    """Returns the images of the given positions, still undecoded."""
    return PickedImages(self.images, tuple(self.indices[i] for i in indices))


@dataclasses.dataclass(frozen=True, eq=False)
class ImageSet:
  """Labelled images, in a fixed order.

  Attributes:
    images: float32 in [0, 1]: an array (N, H, W, C), or a sequence that
      decodes one (H, W, C) at a time, where sizes may differ.
    labels: class of each image, int32 (N,).
    names: name of each image, unique within the set.
    class_names: name of each class, in the order of the labels.
    groups: recording that each image belongs to, as a video clip; images of
      one recording resemble each other.
    description: which data these are, in words, for logs and reports.
    parameters: the truth about procedural images, or what else is known of
      each, arrays of leading length N by name; a real image among procedural
      ones has NaN (0 in integer arrays). None where nothing is known.
    masks: where the defects are: bool (H, W, M) for each image, an array or a
      sequence that decodes one at a time; pixels may have several defects.
      None where there are no masks.
    mask_names: what each of the M channels of the masks marks.
  """

  images: Sequence[np.ndarray] | np.ndarray
  labels: np.ndarray
  names: tuple[str, ...]
  class_names: tuple[str, ...]
  groups: tuple[str, ...]
  description: str
  parameters: Mapping[str, np.ndarray] | None = None
  masks: Sequence[np.ndarray] | np.ndarray | None = None
  mask_names: tuple[str, ...] = ()

  def __post_init__(self):
    labels = np.asarray(self.labels, np.int32)
    object.__setattr__(self, 'labels', labels)
    lengths = {
        'images': len(self.images),
        'labels': len(labels),
        'names': len(self.names),
        'groups': len(self.groups),
    }
    if self.masks is not None:
      lengths['masks'] = len(self.masks)
    for name, values in (self.parameters or {}).items():
      lengths[f'parameters[{name!r}]'] = len(values)
    if len(set(lengths.values())) > 1:
      raise ValueError(f'ImageSet fields differ in length: {lengths}.')
    if len(set(self.names)) != len(self.names):
      raise ValueError('ImageSet.names must be unique.')
    num_classes = len(self.class_names)
    for i in np.flatnonzero((labels < 0) | (labels >= num_classes))[:1]:
      raise ValueError(
          f'{self.names[i]}: label {labels[i]} is out of range, expected an '
          f'integer in [0, {num_classes}): {", ".join(self.class_names)}.'
      )

  def __len__(self) -> int:
    return len(self.labels)

  def __iter__(self) -> Iterator[tuple[np.ndarray, int]]:
    """Yields (image, label) pairs in order."""
    for i in range(len(self)):
      yield self.images[i], int(self.labels[i])

  def take(self, indices: ArrayLike) -> 'ImageSet':
    """Returns the set of the given positions, in their order."""
    indices = np.asarray(indices, np.int64).reshape(-1)
    parameters = self.parameters
    if parameters is not None:
      parameters = {n: np.asarray(v)[indices] for n, v in parameters.items()}
    return dataclasses.replace(
        self,
        images=_pick(self.images, indices),
        labels=self.labels[indices],
        names=tuple(self.names[i] for i in indices),
        groups=tuple(self.groups[i] for i in indices),
        parameters=parameters,
        masks=None if self.masks is None else _pick(self.masks, indices),
    )


def _pick(images, indices):
  if isinstance(images, np.ndarray):
    return images[indices]
  if hasattr(images, 'take'):
    return images.take(indices)
  return PickedImages(images, tuple(int(i) for i in indices))


@dataclasses.dataclass(frozen=True)
class Splits:
  """The three disjoint parts of a data set.

  Attributes:
    train: images that the parameters of a network are fitted to.
    validation: images that choose the epoch and the settings.
    test: images that nothing was chosen by.
  """

  train: ImageSet
  validation: ImageSet
  test: ImageSet


def join(first: ImageSet, second: ImageSet, description: str) -> ImageSet:
  """Returns the images of `first`, then those of `second`.

  Args:
    first: a set of images.
    second: another with the same classes and no name in common.
    description: which data they are together.

  Returns:
    The joined set. Parameters that only one of them has are NaN (0 in integer
    arrays) for the other.

  Raises:
    ValueError: if the classes or the kinds of masks differ.
  """
  if first.class_names != second.class_names:
    raise ValueError(
        f'cannot join sets of classes {first.class_names} and '
        f'{second.class_names}.'
    )
  if first.mask_names != second.mask_names or (
      (first.masks is None) != (second.masks is None)
  ):
    raise ValueError(
        f'cannot join sets with masks of {first.mask_names or "nothing"} and '
        f'of {second.mask_names or "nothing"}.'
    )
  masks = None
  if first.masks is not None:
    masks = JoinedImages(first.masks, second.masks)
  return ImageSet(
      images=JoinedImages(first.images, second.images),
      labels=np.concatenate([first.labels, second.labels]),
      names=first.names + second.names,
      class_names=first.class_names,
      groups=first.groups + second.groups,
      description=description,
      parameters=_join_parameters(first, second),
      masks=masks,
      mask_names=first.mask_names,
  )


def _join_parameters(first, second):
  if first.parameters is None and second.parameters is None:
    return None
  parts = [(s.parameters or {}, len(s)) for s in (first, second)]
  joined = {}
  for name in parts[0][0] | parts[1][0]:
    known = [p[name] for p, _ in parts if name in p][0]
    blank = np.nan if np.issubdtype(known.dtype, np.floating) else 0
    joined[name] = np.concatenate([
        p.get(name, np.full((n, *known.shape[1:]), blank, known.dtype))
        for p, n in parts
    ])
  return joined


@functools.partial(jax.jit, static_argnames='size')
def _resize(images, size):
  shape = (images.shape[0], *size, images.shape[-1])
  return jax.image.resize(images, shape, 'bilinear', antialias=True)


def resize_all(
    images: Sequence[np.ndarray] | np.ndarray, size: tuple[int, int]
) -> np.ndarray:
  """Resizes images of any sizes to one, bilinear with anti-aliasing.

  Args:
    images: array (N, H, W, C) or sequence of (H, W, C), float in [0, 1]; a
      lazily read one is decoded one image at a time.
    size: height and width of the result in pixels.

  Returns:
    The images, shape (N, *size, C), float32.

  Raises:
    ValueError: if there are no images or their numbers of channels differ.
  """
  if not len(images):
    raise ValueError('resize_all needs at least one image.')
  if isinstance(images, JoinedImages):
    parts = [images.first, images.second]
    resized = [resize_all(part, size) for part in parts if len(part)]
  elif not isinstance(images, np.ndarray | RenderedImages):
    resized = [np.asarray(_resize(image[None], size)) for image in images]
  else:
    images = images.all() if isinstance(images, RenderedImages) else images
    chunks = range(0, len(images), _RESIZE_CHUNK)
    resized = [
        np.asarray(_resize(images[i : i + _RESIZE_CHUNK], size)) for i in chunks
    ]
  channels = {part.shape[-1] for part in resized}
  if len(channels) > 1:
    raise ValueError(f'images differ in channels: {sorted(channels)}.')
  return np.concatenate(resized).astype(np.float32)
