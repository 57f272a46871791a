"""How usual the features of an image are: one Gaussian per class (DDU).

`features` are (N, D), what the head of a network takes; a certainty is larger
where the training images lie denser. With fewer images of a class than features
(210 of 512 for the steel surfaces) its covariance is singular: the share
`shrinkage` of it is replaced by a multiple of the identity,

    S_k = (1 - a) C_k + a (tr C_k / D) I,    C_k with n_k - 1 below

which is relative to the size of the features; a jitter that is not does
nothing in float32. The fit is made on the host in float64.

References:
  Mukhoti, Kirsch, van Amersfoort, Torr, Gal, Deep deterministic uncertainty,
  2023, algorithm 1 (the densities); Lee, Lee, Lee, Shin, A simple unified
  framework for detecting out-of-distribution samples, 2018, eq. 1 and 2 (the
  distance with one covariance for all classes).
  Ledoit and Wolf, A well-conditioned estimator for large-dimensional covariance
  matrices, 2004, for the share.
"""

from collections.abc import Sequence
import dataclasses

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np
from scipy import linalg
from sklearn import covariance as sklearn_covariance

from jaxsens.uncertainty import labelled_features


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Densities:
  """A Gaussian in feature space for each class.

  Attributes:
    means: (K, D).
    whitening: (K, D, D), or (1, D, D) where the classes share a covariance:
      lower triangular, W S W^T = I.
    log_normalisers: (K,) log of the density at the means.
    log_priors: (K,) log of the shares of the classes.
    shrinkage: (K,) or (1,) share a of each covariance.
  """

  means: jax.Array
  whitening: jax.Array
  log_normalisers: jax.Array
  log_priors: jax.Array
  shrinkage: jax.Array

  def squared_distances(self, features: ArrayLike) -> jax.Array:
    """Returns Mahalanobis' squared distances (N, K) to the means."""
    features = jnp.asarray(features)
    self._check(features)
    means = self.means.astype(features.dtype)
    whitening = self.whitening.astype(features.dtype)
    apart = features[:, None] - means[None]
    shared = len(whitening) == 1
    white = jnp.einsum(
      'de,nke->nkd' if shared else 'kde,nke->nkd',
      whitening[0] if shared else whitening, apart,
      precision=jax.lax.Precision.HIGHEST,
    )
    return jnp.sum(jnp.square(white), axis=-1)

  def log_density(self, features: ArrayLike) -> jax.Array:
    """Returns log N(features; mean_k, S_k), (N, K)."""
    squared = self.squared_distances(features)
    return self.log_normalisers.astype(squared.dtype) - squared / 2

  def score(self, features: ArrayLike) -> jax.Array:
    """Returns log Σ_k prior_k N(features; mean_k, S_k), (N,)."""
    logs = self.log_density(features)
    return jax.nn.logsumexp(logs + self.log_priors.astype(logs.dtype), axis=-1)

  def nearness(self, features: ArrayLike) -> jax.Array:
    """Returns minus the squared distance to the nearest mean, (N,)."""
    return -jnp.min(self.squared_distances(features), axis=-1)

  def _check(self, features):
    if features.ndim != 2 or features.shape[1] != self.means.shape[1]:
      raise ValueError(
        f'features must have shape (N, {self.means.shape[1]}), got '
        f'{features.shape}.'
      )


def fit(
  features: ArrayLike,
  labels: ArrayLike,
  num_classes: int,
  *,
  shrinkage: float | str,
  shared: bool = False,
) -> Densities:
  """Returns the Gaussians of training features.

  Args:
    features: (N, D).
    labels: (N,) int in 0..K-1; at least two images of every class.
    num_classes: K.
    shrinkage: share a in [0, 1], or 'ledoit_wolf' for the estimate of the share
      with the least expected squared error. See also `choose_shrinkage`.
    shared: whether all classes have one covariance, that of the differences
      from their means with N - K below.

  Returns:
    The densities, arrays in JAX's default float.

  Raises:
    ValueError: other shapes, labels out of range, NaN, a class with fewer than
      two images, a share outside [0, 1], or a covariance that is singular.
  """
  features, labels = _checked(features, labels, num_classes)
  if isinstance(shrinkage, str):
    if shrinkage != 'ledoit_wolf':
      raise ValueError(
        "shrinkage must be a share in [0, 1] or 'ledoit_wolf', got "
        f'{shrinkage!r}.'
      )
  elif not 0 <= shrinkage <= 1:
    raise ValueError(f'shrinkage must lie in [0, 1], got {shrinkage}.')
  counts = np.bincount(labels, minlength=num_classes)
  means = np.stack([features[labels == k].mean(0) for k in range(num_classes)])
  residuals = features - means[labels]
  parts = [residuals] if shared else [
    residuals[labels == k] for k in range(num_classes)
  ]
  freedom = [len(labels) - num_classes] if shared else counts - 1
  fitted = [
    _whitening(part, n, shrinkage)
    for part, n in zip(parts, freedom, strict=True)
  ]
  whitening, half_log_dets, shares = map(np.array, zip(*fitted, strict=True))
  constant = -0.5 * features.shape[1] * np.log(2 * np.pi)
  return Densities(
    jnp.asarray(means), jnp.asarray(whitening),
    jnp.asarray(np.broadcast_to(constant - half_log_dets, num_classes)),
    jnp.asarray(np.log(counts / counts.sum())), jnp.asarray(shares),
  )


def choose_shrinkage(
  features: ArrayLike,
  labels: ArrayLike,
  num_classes: int,
  held_out: ArrayLike,
  *,
  shrinkages: Sequence[float],
  shared: bool = False,
) -> float:
  """Returns the share under which held-out features are the likeliest.

  Args:
    features, labels, num_classes, shared: see `fit`.
    held_out: (M, D) features of validation images. Of the training images the
      features are narrower than of new ones.
    shrinkages: the shares to choose from; those with which a covariance is
      singular drop out.

  Raises:
    ValueError: as `fit`, or no share is left.
  """
  if not len(shrinkages):
    raise ValueError('shrinkages must hold at least one share, got none.')
  found, problem = {}, None
  for share in shrinkages:
    try:
      densities = fit(
        features, labels, num_classes, shrinkage=share, shared=shared
      )
    except np.linalg.LinAlgError as error:
      problem = error
      continue
    score = float(jnp.mean(densities.score(jnp.asarray(held_out))))
    if np.isfinite(score):
      found[share] = score
  if not found:
    raise ValueError(f'no share of {tuple(shrinkages)} is usable: {problem}')
  return max(found, key=found.get)


def _whitening(residuals, freedom, shrinkage):
  """Returns the inverse Cholesky factor, its log determinant and the share."""
  dim = residuals.shape[1]
  if shrinkage == 'ledoit_wolf':
    shrinkage = sklearn_covariance.ledoit_wolf_shrinkage(
      residuals, assume_centered=True
    )
  covariance = residuals.T @ residuals / freedom
  mean = np.trace(covariance) / dim
  covariance = (1 - shrinkage) * covariance
  covariance[np.diag_indices(dim)] += shrinkage * mean
  singular = np.linalg.LinAlgError(
    f'the covariance of {len(residuals)} images with {dim} features is '
    f'singular with a shrinkage of {shrinkage:.3g}; take a larger one.'
  )
  try:
    factor = np.linalg.cholesky(covariance)
  except np.linalg.LinAlgError:
    raise singular from None
  diagonal = np.diag(factor)
  # Rounding lets a singular matrix through now and then.
  if diagonal.min() < 1e-7 * diagonal.max():
    raise singular
  inverse = linalg.solve_triangular(factor, np.eye(dim), lower=True)
  return inverse, np.log(diagonal).sum(), shrinkage


def _checked(features, labels, num_classes):
  features, labels = labelled_features.checked(features, labels, num_classes)
  counts = np.bincount(labels, minlength=num_classes)
  if counts.min() < 2:
    raise ValueError(
      'every class needs at least two images, got '
      f'{dict(enumerate(counts.tolist()))}.'
    )
  return features, labels
