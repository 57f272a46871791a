"""Features of labelled images, checked before anything is fitted to them."""

from jax.typing import ArrayLike
import numpy as np


def checked(
  features: ArrayLike, labels: ArrayLike, num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
  """Returns features (N, D) float64 and labels (N,) int, N >= 1.

  Raises:
    ValueError: other shapes, NaN, or labels outside 0..num_classes - 1.
  """
  features, labels = np.asarray(features, np.float64), np.asarray(labels)
  if features.ndim != 2 or labels.shape != features.shape[:1] or not len(
    labels
  ):
    raise ValueError(
      'features must have shape (N, D) and labels (N,) with N >= 1, got '
      f'{features.shape} and {labels.shape}.'
    )
  if not np.isfinite(features).all():
    bad = np.sum(~np.isfinite(features).all(1))
    raise ValueError(
      f'features: {bad} of {len(features)} images have NaN or infinite ones.'
    )
  if not np.issubdtype(labels.dtype, np.integer) or (
    labels.min() < 0 or labels.max() >= num_classes
  ):
    raise ValueError(f'labels must be integers in 0..{num_classes - 1}.')
  return features, labels
