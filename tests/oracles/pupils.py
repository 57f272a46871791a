"""Transfer functions of a circular pupil, summed over a grid or by a series."""

import numpy as np
from scipy import special


def by_autocorrelation(share, waves, num_points=601):
  """Overlap of the pupil with itself, shifted by `share` of its diameter.

  Args:
    share: frequency over cutoff, in [0, 1].
    waves: path error at the edge of the pupil, in wavelengths.
    num_points: of the grid along an axis.

  Returns:
    Goodman, Introduction to Fourier Optics, equation 6-28, as a plain sum.
  """
  x, y = np.meshgrid(*[np.linspace(-2, 2, num_points)] * 2, indexing='ij')
  left, right = (x - share) ** 2 + y**2, (x + share) ** 2 + y**2
  overlap = (left < 1) & (right < 1)
  phase = 2 * np.pi * waves * (right - left)
  return np.sum(overlap * np.cos(phase)) / np.sum(x**2 + y**2 < 1)


def by_hopkins_series(share, waves, num_terms=300):
  """Hopkins' series in Bessel functions, for 0 < share < 1, waves not 0."""
  s = 2 * share
  a = 4 * np.pi * waves * s
  beta = np.arccos(s / 2)
  jn = lambda n: special.jv(n, a)
  even = beta * jn(1) + sum(
    (-1) ** (n + 1) / (2 * n) * np.sin(2 * n * beta)
    * (jn(2 * n - 1) - jn(2 * n + 1)) for n in range(1, num_terms)
  )
  odd = sum(
    (-1) ** n / (2 * n + 1) * np.sin((2 * n + 1) * beta)
    * (jn(2 * n) - jn(2 * n + 2)) for n in range(num_terms)
  )
  half = a * s / 2
  return 4 / (np.pi * a) * (np.cos(half) * even - np.sin(half) * odd)
