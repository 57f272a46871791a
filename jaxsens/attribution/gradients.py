"""Attribution by the gradient at the image, and by gradients at noisy copies.

    saliency           |d score / d image|
    gradient x input   image d score / d image
    SmoothGrad         mean of d score / d image over image + noise
    SmoothGrad squared mean of its squares
    VarGrad            its variance

Noise is Gaussian with a standard deviation of `noise_level` times the range of
values of the image; the s-th noise of the i-th image has the key
fold_in(fold_in(key, i), s). Only a chunk of gradients is held at a time.

References:
  Simonyan, Vedaldi, Zisserman, Deep inside convolutional networks, 2014.
  Smilkov et al., SmoothGrad: removing noise by adding noise, 2017, eq. 2.
  Hooker et al., A benchmark for interpretability methods, 2019 (squared).
  Adebayo et al., Local explanation methods, 2018 (VarGrad).
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np

from jaxsens import classifiers
from jaxsens.attribution import maps
from jaxsens.attribution import pairs

STATISTICS = ('mean', 'squared', 'variance')


def saliency(
  classifier: classifiers.Classifier,
  images: ArrayLike,
  targets: ArrayLike | None = None,
  *,
  quantity: str = 'logit',
  absolute: bool = True,
  baselines: ArrayLike | None = None,
  chunk_size: int = 8,
) -> maps.Attribution:
  """Returns the size of the gradient of the score by each number.

  Args:
    classifier: what is explained.
    images: (B, H, W, C) in [0, 1].
    targets: class or classes whose score it is; None: the answers.
    quantity: what the score is, see `maps.score`.
    absolute: whether the sign is dropped.
    baselines: what the completeness error is told of, see `maps.as_baselines`;
      the values do not depend on it.
    chunk_size: images at a time.

  Raises:
    ValueError: an argument of another shape or range.
  """
  name = 'saliency' if absolute else 'gradient'
  transform = (lambda image, g: np.abs(g)) if absolute else (lambda _, g: g)
  return _at_image(
    name, transform, classifier, images, targets, quantity, baselines,
    chunk_size,
  )


def gradient_x_input(
  classifier: classifiers.Classifier,
  images: ArrayLike,
  targets: ArrayLike | None = None,
  *,
  quantity: str = 'logit',
  baselines: ArrayLike | None = None,
  chunk_size: int = 8,
) -> maps.Attribution:
  """Returns the gradient times the difference from the baseline.

  With the black baseline that is the image itself. Args: see `saliency`.
  """
  images = maps.as_images(classifier, images)
  origin = maps.as_baselines(images, baselines)
  return _at_image(
    'gradient x input', lambda rows, g: (images - origin)[rows] * g,
    classifier, images, targets, quantity, origin, chunk_size,
  )


def _at_image(
  name, transform, classifier, images, targets, quantity, baselines, chunk_size
):
  images = maps.as_images(classifier, images)
  targets = maps.as_targets(classifier, images, targets, chunk_size=chunk_size)
  scores, gradients = maps.run(
    maps.scores_and_gradients, [images, targets], chunk_size, classifier,
    quantity=quantity,
  )
  ones = np.ones(len(images), np.int64)
  return maps.Attribution(
    method=name,
    values=np.asarray(transform(slice(None), gradients), images.dtype),
    targets=targets, scores=scores.astype(np.float64),
    baseline_scores=maps.baseline_scores(
      classifier, images, targets, baselines, quantity, chunk_size
    ),
    num_gradients=ones, num_forwards=ones,
  )


def smooth_grad(
  key: jax.Array,
  classifier: classifiers.Classifier,
  images: ArrayLike,
  targets: ArrayLike | None = None,
  *,
  quantity: str = 'logit',
  statistic: str = 'mean',
  noise_level: float = 0.15,
  num_samples: int = 50,
  baselines: ArrayLike | None = None,
  chunk_size: int = 8,
) -> maps.Attribution:
  """Returns a statistic of the gradients at noisy copies of each image.

  Args:
    key: of the noise.
    classifier: what is explained.
    images: (B, H, W, C) in [0, 1].
    targets: class or classes whose score it is; None: the answers.
    quantity: what the score is, see `maps.score`.
    statistic: 'mean' (SmoothGrad), 'squared' or 'variance' (VarGrad, with
      num_samples - 1 in the denominator).
    noise_level: standard deviation of the noise, in ranges of the image.
    num_samples: S, copies of each image.
    baselines: see `saliency`.
    chunk_size: copies at a time.

  Raises:
    ValueError: an argument of another shape or range.
  """
  if statistic not in STATISTICS:
    raise ValueError(
      f'statistic must be one of {STATISTICS}, got {statistic!r}.'
    )
  least = 2 if statistic == 'variance' else 1
  if num_samples < least or not noise_level >= 0:
    raise ValueError(
      f'{statistic} needs num_samples of at least {least} and a noise_level of '
      f'at least 0, got {num_samples} and {noise_level}.'
    )
  images = maps.as_images(classifier, images)
  targets = maps.as_targets(classifier, images, targets, chunk_size=chunk_size)
  deviation = noise_level * np.ptp(images, axis=(1, 2, 3))
  first, second = (np.zeros(images.shape) for _ in range(2))
  for chunk in pairs.chunks(len(images), num_samples, chunk_size):
    rows = chunk.images
    gradients = np.asarray(_at_noisy(
      classifier, images[rows], targets[rows], key, rows, chunk.samples,
      deviation[rows].astype(images.dtype), quantity=quantity,
    ))
    chunk.add(first, gradients)
    if statistic != 'mean':
      chunk.add(second, gradients.astype(np.float64) ** 2)
  mean = first / num_samples
  if statistic == 'squared':
    values = second / num_samples
  elif statistic == 'variance':
    # In float64 of float32 gradients the cancellation loses nothing.
    values = np.maximum(second - num_samples * mean**2, 0) / (num_samples - 1)
  else:
    values = mean
  maps.check_finite(values)
  return maps.Attribution(
    method={
      'mean': 'SmoothGrad', 'squared': 'SmoothGrad squared',
      'variance': 'VarGrad',
    }[statistic] + f', {num_samples} samples',
    values=values.astype(images.dtype), targets=targets,
    scores=maps.run(
      maps.scores_of, [images, targets], chunk_size, classifier,
      quantity=quantity,
    ).astype(np.float64),
    baseline_scores=maps.baseline_scores(
      classifier, images, targets, baselines, quantity, chunk_size
    ),
    num_gradients=np.full(len(images), num_samples),
    num_forwards=np.full(len(images), 2),
  )


@jax.jit
def _noise(key, images, rows, samples, deviation):
  def one(image, row, sample, deviation):
    own = jax.random.fold_in(jax.random.fold_in(key, row), sample)
    return deviation * jax.random.normal(own, image.shape, image.dtype)

  return jax.vmap(one)(images, rows, samples, deviation)


def _at_noisy(
  classifier, images, targets, key, rows, samples, deviation, *, quantity
):
  noise = _noise(key, images, rows, samples, deviation)
  return maps.scores_and_gradients(
    classifier, jnp.asarray(images) + noise, targets, quantity=quantity
  )[1]
