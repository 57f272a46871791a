"""Paths of images along which the score of a network is followed.

A path is a function (data of one image, alpha in [0, 1]) -> image (H, W, C),
differentiable in alpha, that ends at alpha = 1 in the image that is explained.
It is static where it is compiled: a function of a module, or a frozen dataclass
whose fields can be hashed. What differs between images is in the data, a tree
of arrays with a row per image.

References:
  Sundararajan, Taly, Yan, Axiomatic attribution for deep networks, 2017.
  Xu, Venugopalan, Sundararajan, Attribution in scale and space, 2020.
"""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsens import classifiers
from jaxsens.attribution import maps
from jaxsens.attribution import pairs

Path = Callable[[Any, jax.Array], jax.Array]


def straight(data: tuple[jax.Array, jax.Array], alpha: jax.Array) -> jax.Array:
  """Returns the point at alpha of the line between baseline and image.

  Args:
    data: image and baseline, (H, W, C) each.
    alpha: 0 for the baseline, 1 for the image.
  """
  image, baseline = data
  return baseline + alpha * (image - baseline)


@dataclasses.dataclass(frozen=True)
class Blur:
  """The image behind a Gaussian blur of max_sigma (1 - alpha) pixels.

  The blur is that of heat between insulated edges: cosine waves of w radians
  per pixel are damped by exp(-sigma² w² / 2), and means are kept.

  Attributes:
    max_sigma: at the beginning of the path, in pixels.
  """

  max_sigma: float

  def __call__(
    self, data: tuple[jax.Array], alpha: jax.Array
  ) -> jax.Array:
    """Returns the blurred image; `data` is the image alone."""
    (image,) = data
    sigma = self.max_sigma * (1 - alpha)
    rows, columns = (
      _blur_matrix(size, sigma, image.dtype) for size in image.shape[:2]
    )
    return jnp.einsum(
      'ij,jkc,lk->ilc', rows, image, columns,
      precision=jax.lax.Precision.HIGHEST,
    )


@dataclasses.dataclass(frozen=True)
class Perturbed:
  """A perturbed image, its perturbation coming in from start to end.

  Attributes:
    perturb: (image, values (D,), key) -> image, see `chains.make_chain`;
      differentiable in the values.
  """

  perturb: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]

  def __call__(self, data: tuple, alpha: jax.Array) -> jax.Array:
    """Returns the image under the values start + alpha (end - start).

    Args:
      data: image before the perturbation (h, w, C), start (D,), end (D,), key.
      alpha: 0 for the start, 1 for the end.
    """
    image, start, end, key = data
    return self.perturb(image, start + alpha * (end - start), key)


def _blur_matrix(size, sigma, dtype):
  """Returns the (size, size) matrix of the blur of a row."""
  waves = jnp.asarray(_cosines(size), dtype)
  frequencies = jnp.asarray(np.pi * np.arange(size) / size, dtype)
  damping = jnp.exp(-((sigma * frequencies) ** 2) / 2)
  return jnp.einsum(
    'ki,k,kj->ij', waves, damping, waves, precision=jax.lax.Precision.HIGHEST
  )


@functools.cache
def _cosines(size: int) -> np.ndarray:
  """Returns the orthonormal cosine waves (size, size), one in each row."""
  k, i = np.meshgrid(np.arange(size), np.arange(size), indexing='ij')
  waves = np.cos(np.pi * k * (2 * i + 1) / (2 * size))
  return waves * np.where(k == 0, np.sqrt(1 / size), np.sqrt(2 / size))


@functools.partial(jax.jit, static_argnames=('path', 'quantity'))
def _contributions(classifier, path, data, alphas, targets, *, quantity):
  def step(data, alpha):
    alpha = alpha.astype(data[0].dtype)
    return jax.jvp(
      functools.partial(path, data), (alpha,), (jnp.ones_like(alpha),)
    )

  def some(data, alphas, targets):
    points, velocities = jax.vmap(step)(data, alphas)
    scores, gradients = maps.scores_and_gradients(
      classifier, points, targets, quantity=quantity
    )
    return scores, gradients * velocities

  return maps.in_slices(classifier, some, data, alphas, targets)


def contributions(
  classifier: classifiers.Classifier,
  path: Path,
  data: Any,
  alphas: np.ndarray,
  targets: np.ndarray,
  *,
  quantity: str,
) -> tuple[jax.Array, jax.Array]:
  """Returns scores at points of paths, and what each number adds there.

  Args:
    classifier: what is explained.
    path: see above.
    data: arrays with a row per point.
    alphas: (N,) in [0, 1].
    targets: (N,) classes.
    quantity: see `maps.score`.

  Returns:
    scores (N,), and gradients times the velocity of the path, (N, H, W, C),
    whose sums are the derivatives of the scores by alpha.
  """
  return _contributions(
    classifier, path, data, alphas, targets, quantity=quantity
  )


@functools.partial(
  jax.jit, static_argnames=('path', 'num_groups', 'quantity')
)
def _sums(
  classifier, path, data, alphas, targets, weights, groups, *, num_groups,
  quantity,
):
  _, values = _contributions(
    classifier, path, data, alphas, targets, quantity=quantity
  )
  # XLA's CPU backend scatters far more slowly than it multiplies.
  shares = jnp.where(groups == jnp.arange(num_groups)[:, None], weights, 0)
  return jnp.einsum(
    'gn,nhwc->ghwc', shares.astype(values.dtype), values,
    precision=jax.lax.Precision.HIGHEST,
  )


def add_up(
  totals: np.ndarray | None,
  chunk: pairs.Chunk,
  num_samples: int,
  classifier: classifiers.Classifier,
  path: Path,
  data: Any,
  alphas: np.ndarray,
  targets: np.ndarray,
  weights: np.ndarray,
  *,
  quantity: str,
) -> np.ndarray:
  """Returns totals with weighted contributions of some points added to them.

  Args:
    totals: (B, H, W, C) float64 of every image, added to in place; None are
      zeros.
    chunk: which points they are, N of them.
    num_samples: points of every image.
    classifier: what is explained.
    path: see above.
    data: arrays with a row per point.
    alphas: (N,) in [0, 1].
    targets: (B,) classes.
    weights: (N,) of the points.
    quantity: see `maps.score`.
  """
  meant = np.arange(len(weights)) < chunk.kept
  sums = np.asarray(_sums(
    classifier, path, data, alphas, targets[chunk.images], weights * meant,
    chunk.groups, num_groups=pairs.max_groups(num_samples, len(weights)),
    quantity=quantity,
  ))
  if totals is None:
    totals = np.zeros((len(targets), *sums.shape[1:]))
  chunk.add_sums(totals, sums)
  return totals


@functools.partial(jax.jit, static_argnames=('path', 'quantity'))
def _scores(classifier, path, *rows, quantity):
  *data, alphas, targets = rows
  alphas = alphas.astype(data[0].dtype)
  points = jax.vmap(path)(tuple(data), alphas)
  return maps.score(classifier, points, targets, quantity)


def scores_at(
  classifier: classifiers.Classifier,
  path: Path,
  data: tuple[Any, ...],
  alphas: np.ndarray,
  targets: np.ndarray,
  *,
  quantity: str,
  chunk_size: int,
) -> np.ndarray:
  """Returns the scores at one point of the path of each image, float64 (B,)."""
  return maps.run(
    _scores, [*data, alphas, targets], chunk_size, classifier, path,
    quantity=quantity,
  ).astype(np.float64)


def rows_of(data: tuple[Any, ...], rows: np.ndarray) -> tuple[Any, ...]:
  """Returns the data of some images."""
  return tuple(part[rows] for part in data)
