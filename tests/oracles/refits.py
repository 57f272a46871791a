"""Leave-one-out by refitting, one node at a time."""

import numpy as np


def leave_one_out_residuals(psi, outputs, weights):
  """Outputs minus predictions of the fit to all other nodes, (N, K)."""
  residuals = np.empty_like(outputs)
  for n in range(len(psi)):
    keep = np.arange(len(psi)) != n
    root = np.sqrt(weights[keep])[:, None]
    coefficients, *_ = np.linalg.lstsq(
      root * psi[keep], root * outputs[keep], rcond=None
    )
    residuals[n] = outputs[n] - psi[n] @ coefficients
  return residuals
