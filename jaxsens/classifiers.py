"""The classifier that every analysis sees: a pure function and its params.

Contract: `images` are float (B, H, W, C), channels last, in [0, 1]; the answer
is `logits` (B, K), one column per class name. Resizing belongs to the
perturbation, normalisation to the classifier, so that a perturbation always
meets an image in [0, 1].

`apply_fn` and `preprocess` are static: they take part in the hash under which
`jit` keeps its compiled programs. Pass functions of a module, functions made
once, or hashable frozen dataclasses such as `Normalise`; a lambda made anew for
every classifier compiles anew for every classifier.
"""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import functools
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def identity(images: jax.Array) -> jax.Array:
  """Returns the images unchanged: the preprocessing of networks without any."""
  return images


@dataclasses.dataclass(frozen=True)
class Normalise:
  """Standardises every channel: (image - mean) / std.

  Attributes:
    mean: mean per channel, in the units of the image, [0, 1].
    std: standard deviation per channel, positive.
  """

  mean: tuple[float, ...]
  std: tuple[float, ...]

  def __post_init__(self):
    object.__setattr__(self, 'mean', tuple(float(m) for m in self.mean))
    object.__setattr__(self, 'std', tuple(float(s) for s in self.std))
    if len(self.mean) != len(self.std):
      raise ValueError(
        f'mean and std must have one entry per channel each, got {self.mean} '
        f'and {self.std}.'
      )
    if not all(s > 0 for s in self.std):
      raise ValueError(f'std must be positive, got {self.std}.')

  def __call__(self, images: jax.Array) -> jax.Array:
    """Returns the standardised images (..., C), in the dtype of `images`."""
    mean = jnp.asarray(self.mean, images.dtype)
    std = jnp.asarray(self.std, images.dtype)
    return (images - mean) / std


IMAGENET = Normalise(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""Normalisation of torchvision's ImageNet weights."""

ANSWERS = ('logits', 'log_kernels')
"""What the columns of an answer may be, see `Classifier.answers`."""


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=['params'],
  meta_fields=[
    'apply_fn',
    'preprocess',
    'class_names',
    'image_size',
    'channels',
    'answers',
    'gradient_slice',
  ],
)
@dataclasses.dataclass(frozen=True)
class Classifier:
  """A network as a pure function of its params.

      logits = apply_fn(params, preprocess(images))

  Attributes:
    apply_fn: (params, images (B, H, W, C)) -> logits (B, K); static.
    params: weights of the network, any pytree of arrays.
    preprocess: images -> images of the same shape; static. `identity` when the
      network takes images in [0, 1].
    class_names: the K names, in the order of the logits; static.
    image_size: (height, width) in pixels that the network takes; static.
    channels: 1 for gray, 3 for RGB; static.
    answers: 'logits', of which a softmax makes probabilities, or 'log_kernels',
      whose exponentials are in [0, 1] and do not sum to one, see
      `uncertainty.duq`; static. Either way the largest column is the answer.
    gradient_slice: how many images at a time their gradients are fastest taken,
      0 is any number; static.
  """

  apply_fn: Callable[[Any, jax.Array], jax.Array]
  params: Any
  preprocess: Callable[[jax.Array], jax.Array]
  class_names: tuple[str, ...]
  image_size: tuple[int, int]
  channels: int
  answers: str = 'logits'
  gradient_slice: int = 0

  def __post_init__(self):
    _set_static(self, 'class_names', _checked_names(self.class_names))
    _set_static(self, 'image_size', _checked_size(self.image_size))
    if int(self.channels) < 1:
      raise ValueError(f'channels must be at least 1, got {self.channels}.')
    if self.answers not in ANSWERS:
      raise ValueError(
        f'answers must be one of {ANSWERS}, got {self.answers!r}.'
      )
    for field in ('apply_fn', 'preprocess'):
      if not callable(getattr(self, field)):
        raise TypeError(
          f'{field} must be a function, got {getattr(self, field)!r}.'
        )

  def __call__(self, images: ArrayLike) -> jax.Array:
    """Returns the logits of a batch of images.

    Args:
      images: (B, H, W, C) float in [0, 1], with (H, W) = `image_size` and
        C = `channels`.

    Returns:
      Logits (B, K), K = len(class_names).

    Raises:
      ValueError: the images or the logits have another shape.
      TypeError: the images are not floating point.
    """
    images = jnp.asarray(images)
    self._check_images(images)
    logits = self.apply_fn(self.params, self.preprocess(images))
    expected = (images.shape[0], len(self.class_names))
    if logits.shape != expected:
      raise ValueError(
        f'apply_fn must return logits of shape {expected} (batch, classes), '
        f'got {logits.shape}; the classes are {self.class_names}.'
      )
    return logits

  def _check_images(self, images: jax.Array) -> None:
    expected = (*self.image_size, self.channels)
    if images.ndim != 4 or images.shape[1:] != expected:
      raise ValueError(
        f'images must have shape (batch, height, width, channels) = (B, '
        f'{", ".join(map(str, expected))}), got {images.shape}.'
      )
    if not jnp.issubdtype(images.dtype, jnp.floating):
      raise TypeError(
        f'images must be floating point in [0, 1], got {images.dtype}; divide '
        'integer images by their largest value first.'
      )


@dataclasses.dataclass(frozen=True)
class _FlaxForward:
  """Hashable forward pass of a split Flax NNX module in inference mode."""

  graphdef: nnx.GraphDef

  def __call__(self, state: nnx.State, images: jax.Array) -> jax.Array:
    return nnx.merge(self.graphdef, state)(images)


def from_flax(
  model: nnx.Module,
  *,
  preprocess: Callable[[jax.Array], jax.Array],
  class_names: Sequence[str],
  image_size: tuple[int, int],
  channels: int,
  answers: str = 'logits',
  gradient_slice: int = 0,
) -> Classifier:
  """Returns the classifier of any Flax NNX module that maps images to logits.

  The module is used as `model.eval()` leaves it: no dropout, running averages
  in batch norm. The caller's module itself is left as it was.

  Args:
    model: module with `model(images (B, H, W, C)) -> logits (B, K)`.
    preprocess: see `Classifier`.
    class_names: see `Classifier`.
    image_size: see `Classifier`.
    channels: see `Classifier`.
    answers: see `Classifier`.
    gradient_slice: see `Classifier`.

  Returns:
    The classifier; its `params` are the whole state of the module.
  """
  inference = nnx.clone(model)
  inference.eval()
  graphdef, state = nnx.split(inference)
  return Classifier(
    apply_fn=_FlaxForward(graphdef),
    params=state,
    preprocess=preprocess,
    class_names=tuple(class_names),
    image_size=image_size,
    channels=channels,
    answers=answers,
    gradient_slice=gradient_slice,
  )


def slice_of(number: int, limit: int) -> int:
  """Returns how many of a number of images go together.

  The largest divisor within the limit; all where that is below half the limit,
  since small slices cost more than they gain, or where there is no limit.
  """
  if not 0 < limit < number:
    return number
  size = max(n for n in range(1, limit + 1) if number % n == 0)
  return size if 2 * size >= limit else number


def _set_static(instance: Classifier, field: str, value: Any) -> None:
  object.__setattr__(instance, field, value)


def _checked_names(class_names: Sequence[str]) -> tuple[str, ...]:
  names = tuple(class_names)
  if isinstance(class_names, str) or not names:
    raise ValueError(
      f'class_names must be a sequence of names, got {class_names!r}.'
    )
  repeated = sorted({str(name) for name in names if names.count(name) > 1})
  if repeated:
    raise ValueError(f'class_names must differ from each other: {repeated}.')
  return names


def _checked_size(image_size: Sequence[int]) -> tuple[int, int]:
  size = tuple(int(length) for length in image_size)
  if len(size) != 2 or min(size) < 1:
    raise ValueError(
      f'image_size must be (height, width) in pixels, got {image_size}.'
    )
  return size
