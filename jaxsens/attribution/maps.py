"""What an attribution is: a number per pixel, for one number per image.

Every method of this folder explains the score of images,

    score[b] = quantity of interest of image b and its target class,

see `score`, and returns an `Attribution`. Values are signed unless a method
says otherwise; their sum is compared with what the score gains over a baseline
image, whatever the method, so that nobody has to take completeness on trust.
"""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np

from jaxsens import classifiers
from jaxsens import quantities


@dataclasses.dataclass(frozen=True, eq=False)
class Attribution:
  """Attributions of a batch of images by one method.

  Attributes:
    method: its name, with what was chosen.
    values: (B, H, W, C) of the dtype of the images, or (B, H, W, 1) of methods
      that do not know channels; in units of the score, or of the score per unit
      of the image.
    targets: (B,) int32, the class whose score is explained.
    scores: (B,) float64 at the images.
    baseline_scores: (B,) float64 at the baseline.
    num_gradients: (B,) int64 gradients of the network taken per image.
    num_forwards: (B,) int64 passes of the network per image beside these.
  """

  method: str
  values: np.ndarray
  targets: np.ndarray
  scores: np.ndarray
  baseline_scores: np.ndarray
  num_gradients: np.ndarray
  num_forwards: np.ndarray

  @property
  def completeness_error(self) -> np.ndarray:
    """(B,) sum of the values minus what the score gains over the baseline."""
    total = self.values.sum((1, 2, 3), dtype=np.float64)
    return total - (self.scores - self.baseline_scores)

  @property
  def relative_completeness_error(self) -> np.ndarray:
    """(B,) size of the error in gains of the score; inf where that is none."""
    gain = np.abs(self.scores - self.baseline_scores)
    error = np.abs(self.completeness_error)
    return np.divide(
      error, gain, out=np.full_like(gain, np.inf), where=gain > 0
    )

  @property
  def heat_maps(self) -> np.ndarray:
    """(B, H, W) sums over the channels."""
    return self.values.sum(-1)


def score(
  classifier: classifiers.Classifier,
  images: jax.Array,
  targets: jax.Array,
  quantity: str,
) -> jax.Array:
  """Returns the score of every image, (B,).

  Args:
    classifier: what is explained.
    images: (B, H, W, C).
    targets: (B,) integers, the class that the quantity is told to be true.
    quantity: a quantity of one number, 'logit', 'probability', 'margin', ...,
      see `quantities.make_quantities`.

  Raises:
    ValueError: there is no such quantity, or it has several numbers.
  """
  return read(classifier, classifier(images), targets, quantity)


def read(
  classifier: classifiers.Classifier,
  logits: jax.Array,
  targets: jax.Array,
  quantity: str,
) -> jax.Array:
  """Returns what `score` reads off answers (B, K), (B,)."""
  one = quantities.make_quantities(
    [quantity], classifier.class_names, answers=classifier.answers
  )
  if len(one.output_names) > 1:
    raise ValueError(
      f'an attribution explains one number per image, got {quantity!r} of '
      f"{len(one.output_names)}; name the class by `targets` and take 'logit' "
      'or another quantity of one class.'
    )
  return jax.vmap(one)(logits, targets)[:, 0]


@functools.partial(jax.jit, static_argnames='quantity')
def scores_of(classifier, images, targets, *, quantity: str) -> jax.Array:
  """Returns `score`, compiled."""
  return score(classifier, images, targets, quantity)


@functools.partial(jax.jit, static_argnames='quantity')
def scores_and_gradients(
  classifier, images, targets, *, quantity: str
) -> tuple[jax.Array, jax.Array]:
  """Returns scores (B,) and their gradients by the image (B, H, W, C)."""
  def some(images, targets):
    def total(images):
      found = score(classifier, images, targets, quantity)
      return jnp.sum(found), found

    gradients, found = jax.grad(total, has_aux=True)(images)
    return found, gradients

  return in_slices(classifier, some, images, targets)


def in_slices(
  classifier: classifiers.Classifier, function: Callable, *arrays: Any
) -> Any:
  """Returns a function of rows, as many at a time as gradients are fast for.

  Args:
    classifier: says how many.
    function: (*arrays) -> arrays, a row for every row.
    *arrays: pytrees of one number of rows, known when it is traced.
  """
  number = len(jax.tree.leaves(arrays)[0])
  size = classifiers.slice_of(number, classifier.gradient_slice)
  if size == number:
    return function(*arrays)
  parts = jax.tree.map(
    lambda x: jnp.reshape(x, (-1, size, *jnp.shape(x)[1:])), arrays
  )
  found = jax.lax.map(lambda rows: function(*rows), parts)
  return jax.tree.map(lambda x: x.reshape(number, *x.shape[2:]), found)


def as_images(
  classifier: classifiers.Classifier, images: ArrayLike
) -> np.ndarray:
  """Returns images as an array (B, H, W, C) that the classifier takes.

  Raises:
    ValueError: another shape, no image, or a number that is not finite.
  """
  images = np.asarray(images)
  expected = (*classifier.image_size, classifier.channels)
  if images.ndim != 4 or images.shape[1:] != expected or not len(images):
    raise ValueError(
      f'images must have shape (B, {", ".join(map(str, expected))}) with B at '
      f'least 1, got {images.shape}.'
    )
  if not np.issubdtype(images.dtype, np.floating):
    raise ValueError(
      f'images must be floating point in [0, 1], got {images.dtype}.'
    )
  bad = np.flatnonzero(~np.isfinite(images).all((1, 2, 3)))
  if len(bad):
    raise ValueError(f'images {bad[:5].tolist()} hold NaN or infinity.')
  return images


def as_targets(
  classifier: classifiers.Classifier,
  images: np.ndarray,
  targets: ArrayLike | None,
  *,
  chunk_size: int = 8,
) -> np.ndarray:
  """Returns one class per image, int32 (B,).

  Args:
    classifier: what is explained.
    images: (B, H, W, C).
    targets: a class, or one per image; None takes the answers.
    chunk_size: images at a time.

  Raises:
    ValueError: a class that there is not, or another number of classes.
  """
  number = len(classifier.class_names)
  if targets is None:
    logits = run(_answers, [images], chunk_size, classifier)
    return logits.argmax(-1).astype(np.int32)
  given = np.asarray(targets)
  if not np.issubdtype(given.dtype, np.integer) or given.shape not in (
    (), (len(images),)
  ):
    raise ValueError(
      'targets must be an integer or one per image, of shape '
      f'({len(images)},), got {given.dtype} of shape {given.shape}.'
    )
  if given.size and not (0 <= given.min() and given.max() < number):
    wrong = given[(given < 0) | (given >= number)].ravel()[0]
    raise ValueError(
      f'targets must be classes from 0 to {number - 1} '
      f'({", ".join(classifier.class_names[:8])}'
      f'{", ..." if number > 8 else ""}), got {wrong}.'
    )
  return np.broadcast_to(given, (len(images),)).astype(np.int32)


def as_baselines(images: np.ndarray, baselines: ArrayLike | None) -> np.ndarray:
  """Returns one baseline per image, (B, H, W, C); black where None is given.

  Args:
    images: (B, H, W, C).
    baselines: a number, an image (H, W, C), or one per image.

  Raises:
    ValueError: another shape, or a number that is not finite.
  """
  given = np.asarray(0 if baselines is None else baselines, images.dtype)
  if given.shape not in ((), images.shape[1:], images.shape):
    raise ValueError(
      f'baselines must be a number, an image {images.shape[1:]} or one per '
      f'image {images.shape}, got shape {given.shape}.'
    )
  if not np.isfinite(given).all():
    raise ValueError('baselines hold NaN or infinity.')
  return np.broadcast_to(given, images.shape)


_read = jax.jit(read, static_argnames='quantity')


@jax.jit
def _answers(classifier, images):
  return classifier(images)


def run(
  function,
  arrays: Sequence[np.ndarray],
  chunk_size: int,
  *leading,
  **options,
):
  """Returns what a function of rows makes of arrays, a chunk at a time.

  The last chunk is filled up with copies of its last row and cut again, so
  that one compiled program serves all, and a result depends on the size of the
  chunks by rounding alone.

  Args:
    function: (*leading, *rows of the arrays, **options) -> an array, or a tuple
      of arrays, with a row for each.
    arrays: arrays of N rows each.
    chunk_size: rows at a time.
    *leading: further arguments, the same for all.
    **options: by name.

  Returns:
    NumPy arrays of N rows each.

  Raises:
    ValueError: chunk_size is not positive.
    FloatingPointError: a result is not finite.
  """
  check_chunk_size(chunk_size)
  number = len(arrays[0])
  size = min(chunk_size, number)
  pieces = []
  for start in range(0, number, size):
    rows = np.minimum(np.arange(start, start + size), number - 1)
    found = function(*leading, *(a[rows] for a in arrays), **options)
    kept = min(size, number - start)
    pieces.append(jax.tree.map(lambda x: np.asarray(x)[:kept], found))  # noqa: B023
  joined = jax.tree.map(lambda *parts: np.concatenate(parts), *pieces)
  for part in jax.tree.leaves(joined):
    if np.issubdtype(part.dtype, np.floating):
      check_finite(part)
  return joined


def baseline_scores(
  classifier: classifiers.Classifier,
  images: np.ndarray,
  targets: np.ndarray,
  baselines: ArrayLike | None,
  quantity: str,
  chunk_size: int,
) -> np.ndarray:
  """Returns the scores of the baselines of images, float64 (B,).

  One that all images share goes through the network once.
  """
  origins = as_baselines(images, baselines)
  if np.ndim(baselines) < images.ndim:
    logits = run(_answers, [origins[:1]], 1, classifier)
    logits = np.broadcast_to(logits, (len(targets), logits.shape[1]))
    found = _read(classifier, logits, targets, quantity=quantity)
    return np.asarray(found, np.float64)
  return run(
    scores_of, [origins, targets], chunk_size, classifier, quantity=quantity
  ).astype(np.float64)


def check_finite(values: np.ndarray) -> None:
  """Raises FloatingPointError for values with NaN or infinity."""
  if not np.isfinite(values).all():
    raise FloatingPointError(
      'the network answers with NaN or infinity, so that nothing can be '
      'attributed.'
    )


def check_chunk_size(chunk_size: int) -> None:
  """Raises ValueError if a number of rows at a time is not positive."""
  if chunk_size < 1:
    raise ValueError(f'chunk_size must be at least 1, got {chunk_size}.')
