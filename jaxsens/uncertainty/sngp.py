"""A Gaussian process in place of the last layer, by random Fourier features.

    phi(x) = sqrt(2 / R) cos(W^T z + b),   z = (x - centre) / (length scale)

so that phi(x)^T phi(y) is about exp(-|x - y|^2 / (2 length^2)) with W standard
normal and b uniform on [0, 2 pi). On these a softmax regression with the prior
beta ~ N(0, I / ridge) is fitted, and its posterior covariance is exact or that
of Laplace:

    P = ridge I + Σ_n phi_n phi_n^T                        'gaussian'
    P_k = ridge I + Σ_n p_nk (1 - p_nk) phi_n phi_n^T      'laplace'
    variance(x) = phi^T P^-1 phi

over all training images at once, not by a moving average. There is no further
factor `ridge` on the variance. Far from all data it is about 1 / ridge, and the
mean-field logits shrink by sqrt(1 + pi / 8 variance). The fit is made on the
host in float64, `features` (N, D) are what the head of a network takes; see
`spectral` for networks made for it.

References:
  Liu, Lin, Padhy, Tran, Bedrax-Weiss, Lakshminarayanan, Simple and principled
  uncertainty estimation with deterministic deep learning via distance
  awareness, 2020, eq. 7 to 9.
  Rahimi and Recht, Random features for large-scale kernel machines, 2007.
  Lu, Ie, Sha, Mean-field approximation to Gaussian-softmax integral, 2020.
"""

from collections.abc import Sequence
import dataclasses

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np
from scipy import linalg
from scipy import optimize
from scipy import special

from jaxsens.uncertainty import labelled_features


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Head:
  """A Gaussian process over features.

  Attributes:
    centre: (D,) mean of the training features.
    scale: () length of the kernel in units of the features.
    frequencies: (D, R) W.
    phases: (R,) b.
    coefficients: (R, K) mean of beta.
    whitening: (1, R, R) or (K, R, R) lower triangular, inverse Cholesky factor
      of each precision.
  """

  centre: jax.Array
  scale: jax.Array
  frequencies: jax.Array
  phases: jax.Array
  coefficients: jax.Array
  whitening: jax.Array

  def random_features(self, features: ArrayLike) -> jax.Array:
    """Returns phi, (N, R)."""
    features = jnp.asarray(features)
    if features.ndim != 2 or features.shape[1] != len(self.centre):
      raise ValueError(
        f'features must have shape (N, {len(self.centre)}), got '
        f'{features.shape}.'
      )
    cast = lambda x: x.astype(features.dtype)
    z = (features - cast(self.centre)) / cast(self.scale)
    angles = jnp.matmul(
      z, cast(self.frequencies), precision=jax.lax.Precision.HIGHEST
    )
    factor = np.sqrt(2 / len(self.phases)).item()
    return factor * jnp.cos(angles + cast(self.phases))

  def logits(self, features: ArrayLike) -> jax.Array:
    """Returns the logits under the mean of the posterior, (N, K)."""
    phi = self.random_features(features)
    return jnp.matmul(
      phi, self.coefficients.astype(phi.dtype),
      precision=jax.lax.Precision.HIGHEST,
    )

  def variance(self, features: ArrayLike) -> jax.Array:
    """Returns the variance of the logits, (N, 1), or (N, K) by Laplace."""
    phi = self.random_features(features)
    white = jnp.einsum(
      'krs,ns->nkr', self.whitening.astype(phi.dtype), phi,
      precision=jax.lax.Precision.HIGHEST,
    )
    return jnp.sum(jnp.square(white), axis=-1)

  def mean_field(self, features: ArrayLike) -> jax.Array:
    """Returns logits whose softmax is about its mean over the posterior."""
    variance = self.variance(features)
    return self.logits(features) / jnp.sqrt(1 + np.pi / 8 * variance)

  def negative_variance(self, features: ArrayLike) -> jax.Array:
    """Returns minus the mean variance of the logits as a certainty, (N,)."""
    return -jnp.mean(self.variance(features), axis=-1)


def fit(
  key: jax.Array,
  features: ArrayLike,
  labels: ArrayLike,
  num_classes: int,
  *,
  num_features: int,
  length_scale: float,
  ridge: float,
  likelihood: str = 'gaussian',
) -> Head:
  """Returns the head fitted to the features of a trained network.

  Args:
    key: of frequencies and phases.
    features: (N, D) of training images.
    labels: (N,) int in 0..K-1.
    num_classes: K.
    num_features: R.
    length_scale: of the kernel, in units of the root mean square distance of
      two training images.
    ridge: precision of the prior, positive.
    likelihood: 'gaussian' (unit noise) or 'laplace', of the covariance.

  Raises:
    ValueError: shapes, labels or numbers are not as described, or NaN.
  """
  features, labels = labelled_features.checked(features, labels, num_classes)
  if num_features < 1 or not (length_scale > 0 and ridge > 0):
    raise ValueError(
      'num_features, length_scale and ridge must be positive, got '
      f'{num_features}, {length_scale} and {ridge}.'
    )
  if likelihood not in ('gaussian', 'laplace'):
    raise ValueError(
      f"likelihood must be 'gaussian' or 'laplace', got {likelihood!r}."
    )
  centre = features.mean(0)
  scale = length_scale * np.sqrt(2 * features.var(0).sum())
  if not scale > 0:
    raise ValueError('features must differ from each other.')
  key_w, key_b = jax.random.split(key)
  frequencies = jax.random.normal(
    key_w, (features.shape[1], num_features), jnp.float32
  )
  phases = 2 * np.pi * jax.random.uniform(key_b, (num_features,), jnp.float32)
  frequencies, phases = (np.asarray(x, np.float64) for x in (
    frequencies, phases
  ))
  phi = np.cos((features - centre) / scale @ frequencies + phases)
  phi *= np.sqrt(2 / num_features)
  coefficients = fit_softmax(phi, labels, num_classes, ridge=ridge)
  weights = np.ones((1, len(phi)))
  if likelihood == 'laplace':
    p = special.softmax(phi @ coefficients, axis=1)
    weights = (p * (1 - p)).T
  whitening = np.stack([_whitening(phi, w, ridge) for w in weights])
  return Head(*map(jnp.asarray, (
    centre, scale, frequencies, phases, coefficients, whitening
  )))


def choose(
  key: jax.Array,
  features: ArrayLike,
  labels: ArrayLike,
  num_classes: int,
  held_out: ArrayLike,
  held_out_labels: ArrayLike,
  *,
  num_features: int,
  candidates: Sequence[tuple[float, float]],
) -> tuple[float, float]:
  """Returns the length scale and ridge with the likeliest held-out labels.

  Under the mean-field logits of the 'gaussian' covariance.

  Args:
    key: see `fit`.
    features, labels, num_classes: training images, see `fit`.
    held_out: (M, D) features of other images.
    held_out_labels: (M,) int in 0..K-1.
    num_features: R.
    candidates: pairs of length scale and ridge; the first of equals wins.

  Raises:
    ValueError: no candidates, or what `fit` refuses.
  """
  if not candidates:
    raise ValueError('candidates must not be empty.')
  held_out, held_out_labels = labelled_features.checked(
    held_out, held_out_labels, num_classes
  )
  losses = []
  for length_scale, ridge in candidates:
    head = fit(
      key, features, labels, num_classes, num_features=num_features,
      length_scale=length_scale, ridge=ridge,
    )
    logits = np.asarray(
      head.mean_field(held_out.astype(np.float32)), np.float64
    )
    logs = special.log_softmax(logits, axis=1)
    losses.append(-logs[np.arange(len(logs)), held_out_labels].mean())
  return tuple(map(float, candidates[int(np.argmin(losses))]))


def fit_softmax(
  inputs: np.ndarray, labels: np.ndarray, num_classes: int, *, ridge: float
) -> np.ndarray:
  """Returns the coefficients (R, K) of a softmax regression without intercept.

  They minimise Σ_n -log softmax(inputs_n beta)[label_n] + ridge / 2 |beta|².

  Args:
    inputs: (N, R) float64.
    labels: (N,) int in 0..K-1.
    num_classes: K.
    ridge: positive.
  """
  truth = np.eye(num_classes)[labels]
  shape = (inputs.shape[1], num_classes)

  def objective(flat):
    beta = flat.reshape(shape)
    logits = inputs @ beta
    logs = special.log_softmax(logits, axis=1)
    value = -np.sum(truth * logs) + ridge / 2 * np.sum(flat**2)
    gradient = inputs.T @ (np.exp(logs) - truth) + ridge * beta
    return value, gradient.ravel()

  found = optimize.minimize(
    objective, np.zeros(shape).ravel(), jac=True, method='L-BFGS-B',
    options={'maxiter': 2000, 'maxfun': 4000, 'ftol': 1e-14, 'gtol': 1e-7},
  )
  return found.x.reshape(shape)


def _whitening(phi, weights, ridge):
  precision = (phi * weights[:, None]).T @ phi
  precision[np.diag_indices(len(precision))] += ridge
  factor = np.linalg.cholesky(precision)
  return linalg.solve_triangular(factor, np.eye(len(factor)), lower=True)
