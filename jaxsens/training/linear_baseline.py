"""What a linear classifier of pixels reaches: the least a network must beat."""

from jax.typing import ArrayLike
import numpy as np
from sklearn import decomposition
from sklearn import linear_model
from sklearn import pipeline
from sklearn import preprocessing


def fit(
  images: ArrayLike,
  labels: ArrayLike,
  *,
  explained_variance: float = 0.95,
  inverse_penalty: float = 1.0,
  seed: int = 0,
) -> pipeline.Pipeline:
  """Returns principal components and a logistic regression on them.

  Args:
    images: (N, H, W, C).
    labels: (N,) int.
    explained_variance: share of the variance that the components keep.
    inverse_penalty: C of the L2 penalty.
    seed: of the randomised parts of the solvers.

  Raises:
    ValueError: fewer than two classes or two images.
  """
  images, labels = np.asarray(images), np.asarray(labels)
  if len(set(labels.tolist())) < 2:
    raise ValueError(
      f'labels: a classifier needs two classes, got {set(labels.tolist())}.'
    )
  pixels = images.reshape(len(images), -1)
  # Exact both, by the smaller side of the matrix.
  solver = 'covariance_eigh' if len(pixels) > pixels.shape[1] else 'full'
  model = pipeline.make_pipeline(
    decomposition.PCA(explained_variance, svd_solver=solver),
    preprocessing.StandardScaler(),
    linear_model.LogisticRegression(
      C=inverse_penalty, max_iter=2000, random_state=seed
    ),
  )
  return model.fit(pixels, labels)


def logits(
  model: pipeline.Pipeline, images: ArrayLike, num_classes: int
) -> np.ndarray:
  """Returns log-probabilities (N, K) of images (N, H, W, C).

  A class that was not in the training set has the least number of the dtype.
  """
  images = np.asarray(images)
  found = model.predict_log_proba(images.reshape(len(images), -1))
  full = np.full((len(images), num_classes), -1e3)
  full[:, model.classes_] = np.maximum(found, -1e3)
  return full
