"""How well a linear classifier of a layer's features tells the classes apart.

    principal components -> standardised -> logistic regression

All three are fitted on the training part alone and scored on a held-out part;
scored on what it was fitted to, such a probe of thousands of features is right
on every image of random labels too.

References:
  Alain and Bengio, Understanding intermediate layers using linear classifier
  probes, 2016.
"""

from collections.abc import Sequence
import dataclasses
import warnings

import jax
from jax.typing import ArrayLike
import numpy as np
from sklearn import decomposition
from sklearn import exceptions
from sklearn import linear_model
from sklearn import pipeline
from sklearn import preprocessing

from jaxsens.uncertainty import resampling


@dataclasses.dataclass(frozen=True)
class Probe:
  """A linear probe and what it reaches.

  Attributes:
    accuracy: share of the held-out images that it answers rightly.
    lower, upper: ends of its interval, over the held-out images.
    training_accuracy: on what it was fitted to; not a measure of the layer.
    majority: accuracy of always answering the commonest training class.
    num_features: numbers per image that it was given.
    num_components: principal components that are left of these.
    num_train, num_test: images.
    converged: whether the solver of the regression did.
    num_iterations: of the solver.
  """

  accuracy: float
  lower: float
  upper: float
  training_accuracy: float
  majority: float
  num_features: int
  num_components: int
  num_train: int
  num_test: int
  converged: bool
  num_iterations: int

  def as_dict(self) -> dict:
    """Returns the fields by name."""
    return dataclasses.asdict(self)


def fit(
  key: jax.Array,
  train_features: ArrayLike,
  train_labels: ArrayLike,
  test_features: ArrayLike,
  test_labels: ArrayLike,
  *,
  explained_variance: float = 0.95,
  inverse_penalty: float = 1.0,
  max_iterations: int = 2000,
  groups: Sequence | None = None,
  num_samples: int = 1000,
  level: float = 0.95,
) -> Probe:
  """Fits a probe on one part and scores it on another.

  Args:
    key: of the resamples of the interval.
    train_features: (N, D).
    train_labels: (N,) int.
    test_features: (M, D), of images that the probe has not seen.
    test_labels: (M,) int.
    explained_variance: share of the variance that the components keep, in
      (0, 1).
    inverse_penalty: C of the L2 penalty.
    max_iterations: of the solver.
    groups: recording of each held-out image, see `resampling.bootstrap`.
    num_samples: resamples of the interval.
    level: its coverage.

  Raises:
    ValueError: shapes that do not fit, features that are not finite or all
      equal, fewer than two classes in training, no held-out image.
  """
  train_x, train_y = _checked('train', train_features, train_labels)
  test_x, test_y = _checked('test', test_features, test_labels)
  if train_x.shape[1] != test_x.shape[1]:
    raise ValueError(
      'train and test features must have the same numbers per image, got '
      f'{train_x.shape} and {test_x.shape}.'
    )
  if not 0 < explained_variance < 1:
    raise ValueError(
      f'explained_variance must be in (0, 1), got {explained_variance}.'
    )
  classes, counts = np.unique(train_y, return_counts=True)
  if len(classes) < 2:
    raise ValueError(
      f'train_labels: a probe needs two classes, got {classes.tolist()}.'
    )
  if not np.ptp(train_x, axis=0).any():
    raise ValueError('train_features are the same for all images.')
  model = pipeline.make_pipeline(
    # Exact, by the smaller side of the matrix.
    decomposition.PCA(explained_variance, svd_solver=(
      'covariance_eigh' if len(train_x) > train_x.shape[1] else 'full'
    )),
    preprocessing.StandardScaler(),
    linear_model.LogisticRegression(
      C=inverse_penalty, max_iter=max_iterations
    ),
  )
  with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter('always')
    model.fit(train_x, train_y)
  right = (model.predict(test_x) == test_y).astype(np.float64)
  lower, upper = resampling.bootstrap(
    key, lambda x: float(x.mean()), [right], num_samples=num_samples,
    groups=None if groups is None else np.asarray(groups), level=level,
  )
  return Probe(
    accuracy=float(right.mean()), lower=lower, upper=upper,
    training_accuracy=float(model.score(train_x, train_y)),
    majority=float(np.mean(test_y == classes[counts.argmax()])),
    num_features=train_x.shape[1],
    num_components=int(model[0].n_components_),
    num_train=len(train_x), num_test=len(test_x),
    converged=not any(
      issubclass(w.category, exceptions.ConvergenceWarning) for w in caught
    ),
    num_iterations=int(np.max(model[-1].n_iter_)),
  )


def split(
  key: jax.Array,
  labels: ArrayLike,
  *,
  test_fraction: float,
  groups: Sequence | None = None,
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the rows of a training and a held-out part, each class in both.

  Args:
    key: of the shuffle.
    labels: (N,) int.
    test_fraction: share of each class that is held out, in (0, 1).
    groups: recording of each image; a recording is in one part only, and in
      the class of its first image.

  Raises:
    ValueError: a class has fewer than two images, or recordings, to share out.
  """
  labels = np.asarray(labels)
  if not 0 < test_fraction < 1:
    raise ValueError(f'test_fraction must be in (0, 1), got {test_fraction}.')
  if groups is not None and len(groups) != len(labels):
    raise ValueError(
      f'groups must be one per image, got {len(groups)} for {len(labels)}.'
    )
  _, first, member = np.unique(
    np.arange(len(labels)) if groups is None else np.asarray(groups),
    return_index=True, return_inverse=True,
  )
  rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
  held_out = np.zeros(len(first), bool)
  for k in np.unique(labels):
    units = np.flatnonzero(labels[first] == k)
    if len(units) < 2:
      what = 'images' if groups is None else 'recordings'
      raise ValueError(
        f'class {k} has {len(units)} {what}: it takes two or more to have '
        'some to fit on and some to score on.'
      )
    number = round(test_fraction * len(units))
    number = min(max(number, 1), len(units) - 1)
    held_out[rng.permutation(units)[:number]] = True
  chosen = held_out[member]
  return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def _checked(part, features, labels):
  # In float64 components of images with little variance stay exact.
  features, labels = np.asarray(features, np.float64), np.asarray(labels)
  if features.ndim != 2 or labels.shape != features.shape[:1]:
    raise ValueError(
      f'{part}_features must be (N, D) and {part}_labels (N,), got '
      f'{features.shape} and {labels.shape}.'
    )
  if not len(features):
    raise ValueError(f'{part}_features: there is no image.')
  if not np.isfinite(features).all():
    raise ValueError(f'{part}_features hold NaN or infinity.')
  return features, labels
