"""How alike two layers see the same images: linear CKA.

With the Gram matrices K = X X', L = Y Y' of centred features,

    cka(X, Y) = hsic(K, L) / sqrt(hsic(K, K) hsic(L, L)),

which is 1 for features that are rotated, scaled and shifted copies of each
other. The plain hsic(K, L) = sum K_ij L_ij counts chance as likeness: of
independent features it is far from 0 unless there are more images than
features. The unbiased one (the default) leaves out what an image has to do with
itself,

    hsic(K, L) = sum U(K)_ij U(L)_ij / (n (n - 3)),  i != j,
    U(K)_ij = K_ij - (R_i + R_j) / (n - 2) + sum_i R_i / ((n - 1) (n - 2)),

with the sums R_i of the rows of K without its diagonal; it has mean 0 for
independent features, and the ratio may be slightly negative.

References:
  Kornblith et al., Similarity of neural network representations revisited,
  2019.
  Song et al., Feature selection via dependence maximization, 2012, equation 4.
  Székely and Rizzo, Partial distance correlation with methods for
  dissimilarities, 2014, for the form with U.
"""

from collections.abc import Mapping
import functools

from jax.typing import ArrayLike
import numpy as np


def linear_cka(
  x: ArrayLike, y: ArrayLike, *, unbiased: bool = True
) -> float:
  """Returns linear CKA of features (N, D) and (N, E) of the same images.

  Args:
    x: (N, D), any D.
    y: (N, E).
    unbiased: which hsic, see above.

  Raises:
    ValueError: shapes that do not fit, too few images (four unbiased, else
      two), or features that are the same for all images.
  """
  return float(cka_matrix({'x': x}, {'y': y}, unbiased=unbiased)[0, 0])


def cka_matrix(
  first: Mapping[str, ArrayLike],
  second: Mapping[str, ArrayLike] | None = None,
  *,
  unbiased: bool = True,
) -> np.ndarray:
  """Returns linear CKA of all layers of one model with all of another.

  Each layer is held as features or as a Gram matrix, whichever is smaller.

  Args:
    first: features (N, D) of the layers by name.
    second: those of another model on the same images; None compares the layers
      of the first with each other.
    unbiased: which hsic, see above.

  Returns:
    (number of layers of the first, number of those of the second) float64.

  Raises: as `linear_cka`, naming the layer.
  """
  rows = [_Layer(name, x, unbiased) for name, x in first.items()]
  columns = rows if second is None else [
    _Layer(name, x, unbiased) for name, x in second.items()
  ]
  numbers = {len(layer.x) for layer in (*rows, *columns)}
  if len(numbers) > 1:
    raise ValueError(
      'features must be of the same images, got '
      f'{sorted(numbers)} of them.'
    )
  found = np.empty((len(rows), len(columns)))
  for i, row in enumerate(rows):
    for j, column in enumerate(columns):
      if second is None and j < i:
        found[i, j] = found[j, i]
      else:
        found[i, j] = _hsic(row, column) / np.sqrt(row.norm * column.norm)
  return found


class _Layer:
  """Centred features with what every hsic takes of them."""

  def __init__(self, name, x, unbiased):
    x = np.asarray(x, np.float64)
    least = 4 if unbiased else 2
    if x.ndim != 2 or len(x) < least or not x.shape[1]:
      raise ValueError(
        f'features of {name!r} must be (N, D) of at least {least} images, got '
        f'{x.shape}.'
      )
    if not np.isfinite(x).all():
      raise ValueError(f'features of {name!r} hold NaN or infinity.')
    if not np.ptp(x, axis=0).any():
      raise ValueError(f'features of {name!r} are the same for all images.')
    self.x = x - x.mean(0)
    # Scaled, so that no square leaves the range of the numbers.
    self.x /= np.abs(self.x).max()
    self.unbiased = unbiased
    self.own = np.einsum('ij,ij->i', self.x, self.x)
    self.row_sums = self.x @ self.x.sum(0) - self.own
    self.norm = _hsic(self, self)
    if self.norm <= 0:
      raise ValueError(f'features of {name!r} have no hsic with themselves.')

  @functools.cached_property
  def gram(self):
    return self.x @ self.x.T


def _hsic(first, second):
  """Returns hsic up to a factor that the ratio does not see."""
  n = len(first.x)
  if n * n <= first.x.shape[1] * second.x.shape[1]:
    total = np.vdot(first.gram, second.gram)
  else:
    total = np.sum((first.x.T @ second.x) ** 2)
  if not first.unbiased:
    return total
  r, s = first.row_sums, second.row_sums
  return (
    total - first.own @ second.own
    + r.sum() * s.sum() / ((n - 1) * (n - 2))
    - 2 * (r @ s) / (n - 2)
  )
