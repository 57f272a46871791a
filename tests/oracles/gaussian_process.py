"""Gaussian process regression by loops, full solves and refits."""

import numpy as np


def covariance(prior, x, y):
  """Covariance (N, M) of standardised points, entry by entry."""
  matrix = np.empty((len(x), len(y)))
  for n, a in enumerate(x):
    for m, b in enumerate(y):
      value = 0.0
      for share, lengths in zip((1.0, prior.share), prior.lengths, strict=True):
        product = share
        for d in range(len(a)):
          r = np.sqrt(3) * abs(a[d] - b[d]) / lengths[d]
          product *= (1 + r) * np.exp(-r)
        value += product
      for point in (a, b):
        exponent = sum(
          prior.amplitude[0, d] * point[d] + prior.amplitude[1, d] * point[d]**2
          for d in range(len(point))
        )
        value *= np.exp(exponent)
      matrix[n, m] = value + prior.constant
  return matrix


def with_nugget(prior, x):
  """Covariance (N, N) of outputs at nodes."""
  return covariance(prior, x, x) + prior.nugget * np.eye(len(x))


def profiled_mean(matrix, outputs):
  """Generalised least-squares mean (K,) of outputs (N, K)."""
  by_ones = np.linalg.solve(matrix, np.ones(len(matrix)))
  return by_ones @ outputs / by_ones.sum()


def predict(prior, x, outputs, point):
  """Prediction (K,) of a noisy output at a point, and its variance over s².

  The mean is profiled out; Rasmussen and Williams 2006, eq. 2.41 and 2.42,
  with a constant as the only function and no prior about it.
  """
  matrix = with_nugget(prior, x)
  cross = covariance(prior, x, point[None])[:, 0]
  mean = profiled_mean(matrix, outputs)
  weights = np.linalg.solve(matrix, cross)
  prediction = mean + weights @ (outputs - mean)
  own = covariance(prior, point[None], point[None])[0, 0] + prior.nugget
  of_mean = (1 - weights.sum()) ** 2 / np.linalg.solve(
    matrix, np.ones(len(x))
  ).sum()
  return prediction, own - weights @ cross + of_mean


def leave_one_out(prior, x, outputs):
  """Residuals (N, K) and variances (N,) of refits without one node each."""
  residuals, variance = np.empty_like(outputs), np.empty(len(x))
  for n in range(len(x)):
    keep = np.arange(len(x)) != n
    prediction, variance[n] = predict(prior, x[keep], outputs[keep], x[n])
    residuals[n] = outputs[n] - prediction
  return residuals, variance


def posterior_covariance(prior, x, points):
  """Covariance (M, M) over s² of the function without nugget, m known."""
  cross = covariance(prior, points, x)
  known = cross @ np.linalg.solve(with_nugget(prior, x), cross.T)
  return covariance(prior, points, points) - known


def mean_log_likelihood(prior, x, outputs):
  """Mean over outputs and nodes, scale of each output profiled, no constant.

  The normal density of y under s² k, with s² = y^T k^-1 y / N put in.
  """
  matrix = with_nugget(prior, x)
  _, log_determinant = np.linalg.slogdet(matrix)
  values = []
  for y in outputs.T:
    square = y @ np.linalg.solve(matrix, y) / len(y)
    values.append(-0.5 * np.log(square) - 0.5 * log_determinant / len(y))
  return np.mean(values)
