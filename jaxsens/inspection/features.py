"""What the layers say of images, as one row of numbers per image.

A layer is named as in `attribution.taps`; beside the layers of the network
there are 'input', the pixels, and 'logits', the answer. Rows are

    flatten  all numbers of the layer; of more than `limit` of them a sketch:
             each is added, with a random sign, to one of `limit` sums, which
             keeps inner products and distances between images on average
             (relative error about 1 / sqrt(limit)); or a choice of pixels
    mean     the mean over the pixels of each channel
    max      the maximum over the pixels of each channel

The sketch is linear, so that principal components, linear probes and linear
CKA of it are estimates of those of the layer; of layers within the limit they
are exact.

References:
  Weinberger et al., Feature hashing for large scale multitask learning, 2009.
"""

from collections.abc import Sequence
import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np
from scipy import sparse

from jaxsens import classifiers
from jaxsens.attribution import maps
from jaxsens.attribution import taps

INPUT = 'input'
LOGITS = 'logits'
REDUCTIONS = ('flatten', 'mean', 'max')
THINNINGS = ('sketch', 'pixels')


def extract(
  key: jax.Array,
  classifier: classifiers.Classifier,
  images: ArrayLike,
  names: Sequence[str],
  *,
  reduce: str = 'flatten',
  limit: int | None = 4096,
  thinning: str = 'sketch',
  chunk_size: int = 32,
) -> dict[str, np.ndarray]:
  """Returns the features of each layer, (N, D) float32 by name.

  Equal keys thin a layer of the same name and shape alike, so that features of
  several sets of images can be used together.

  Args:
    key: of the sketch or the choice of pixels.
    classifier: a Flax network.
    images: (N, H, W, C) in [0, 1].
    names: layers, 'input' and 'logits' among them if wanted.
    reduce: 'flatten', 'mean' or 'max', see above; layers without pixels are
      left as they are.
    limit: numbers per layer from which on 'flatten' thins; None never does.
    thinning: 'sketch', or 'pixels': as many whole pixels as fit, without
      repetition, the same ones of all images.
    chunk_size: images at a time.

  Raises:
    ValueError: an unknown layer (the nearest names are told), option or shape.
    FloatingPointError: a layer says NaN or infinity.
  """
  images = maps.as_images(classifier, images)
  maps.check_chunk_size(chunk_size)
  for option, value, known in (
    ('reduce', reduce, REDUCTIONS), ('thinning', thinning, THINNINGS)
  ):
    if value not in known:
      raise ValueError(f'{option} must be one of {known}, got {value!r}.')
  if limit is not None and limit < 1:
    raise ValueError(f'limit must be at least 1 or None, got {limit}.')
  names = tuple(dict.fromkeys(names))
  if not names:
    raise ValueError('names: no layer is asked for.')
  inner = tuple(name for name in names if name not in (INPUT, LOGITS))
  taps.check_layers(classifier, inner)
  thin = {
    name: _make_thinning(_key_of(key, name), shape, limit, thinning)
    if reduce == 'flatten' else _rows
    for name, shape in shapes(classifier, names).items()
  }
  found: dict[str, list] = {name: [] for name in names}
  size = min(chunk_size, len(images))
  for start in range(0, len(images), size):
    chosen = np.minimum(np.arange(start, start + size), len(images) - 1)
    said = _activations(
      classifier, images[chosen], inner=inner, reduce=reduce
    )
    for name in names:
      rows = np.asarray(said[name], np.float32)[: len(images) - start]
      if not np.isfinite(rows).all():
        raise FloatingPointError(f'layer {name!r} says NaN or infinity.')
      found[name].append(thin[name](rows))
  return {name: np.concatenate(parts) for name, parts in found.items()}


def shapes(
  classifier: classifiers.Classifier, names: Sequence[str]
) -> dict[str, tuple[int, ...]]:
  """Returns what each layer says of one image, as a shape."""
  known = taps.layer_shapes(classifier) | {
    INPUT: (*classifier.image_size, classifier.channels),
    LOGITS: (len(classifier.class_names),),
  }
  return {name: known[name] for name in names}


def outline(
  classifier: classifiers.Classifier, number: int = 8
) -> tuple[str, ...]:
  """Returns layers spread over the depth, in calling order.

  Whole blocks stand for what is inside them; a layer that follows one of the
  same shape, as a batch norm, and the head are left out.

  Args:
    classifier: a Flax network.
    number: of layers, fewer if there are not so many.

  Raises:
    ValueError: number is not positive.
  """
  if number < 1:
    raise ValueError(f'number must be at least 1, got {number}.')
  known = taps.layer_shapes(classifier)
  inside = {
    name: [other for other in known if other.startswith(f'{name}.')]
    for name in known
  }
  # What holds nearly all layers is the network over again.
  blocks = {n for n, o in inside.items() if o and len(o) <= len(known) / 2}
  whole = {n for n, o in inside.items() if len(o) > len(known) / 2}
  kept, before = [], None
  for name, shape in known.items():
    if name in whole or any(name.startswith(f'{b}.') for b in blocks):
      continue
    repeats = name not in blocks and shape == before
    before = shape
    if not repeats and shape != (len(classifier.class_names),):
      kept.append(name)
  places = np.linspace(0, len(kept) - 1, min(number, len(kept)))
  return tuple(kept[round(i)] for i in places)


@functools.partial(jax.jit, static_argnames=('inner', 'reduce'))
def _activations(classifier, images, *, inner, reduce):
  logits, said = taps.apply(classifier, images, inner)
  said = {INPUT: images, **said, LOGITS: logits}
  if reduce == 'flatten':
    return said
  over = {'mean': jnp.mean, 'max': jnp.max}[reduce]
  return {
    name: over(y, range(1, y.ndim - 1)) if y.ndim > 2 else y
    for name, y in said.items()
  }


def _key_of(key, name):
  # Python's own hash of a text differs from process to process.
  return jax.random.fold_in(key, sum(
    ord(letter) * 257**i for i, letter in enumerate(name)
  ) % 2**31)


def _rows(values):
  return values.reshape(len(values), -1)


def _make_thinning(key, shape, limit, thinning):
  """Returns the function of (N, *shape) that leaves at most `limit` numbers."""
  size = int(np.prod(shape))
  if limit is None or size <= limit:
    return _rows
  rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
  if thinning == 'pixels':
    channels = shape[-1]
    number = max(1, limit // channels)
    pixels = np.sort(rng.choice(size // channels, number, replace=False))
    return lambda values: _rows(
      values.reshape(len(values), -1, channels)[:, pixels]
    )
  signs = rng.choice(np.array([-1, 1], np.float32), size)
  place = rng.integers(limit, size=size)
  sums = sparse.csr_matrix(
    (signs, (place, np.arange(size))), shape=(limit, size)
  )
  return lambda values: np.ascontiguousarray((sums @ _rows(values).T).T)
