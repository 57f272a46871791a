"""How well an expansion stands for the model, and what to raise when not.

Errors are measured where the model was not fitted: on held-out nodes. Shares
are relative to the variance of the model's outputs there, so one is perfect
and an expansion that predicts nothing but the mean has zero.
"""

from collections.abc import Sequence
import dataclasses

from jax.typing import ArrayLike
import numpy as np

from jaxsens.gpc import expansions

# Highest degrees that count as the edge of the basis: two, because the
# coefficients of an even or odd response vanish at every other degree.
_EDGE = 2


@dataclasses.dataclass(frozen=True)
class Verdict:
  """Whether the indices of one output can be trusted.

  Attributes:
    trusted: True when q2 reaches the threshold, or the half-width of the
      intervals does not exceed it.
    q2: held-out share of variance that is predicted, or NaN.
    threshold: smallest q2 or largest half-width that is trusted.
    advice: what to change, most urgent first; empty when trusted.
  """

  trusted: bool
  q2: float
  threshold: float
  advice: tuple[str, ...]


def q2(outputs: ArrayLike, predictions: ArrayLike) -> np.ndarray:
  """Share of the variance of held-out outputs that is predicted.

      q2[k] = 1 - Σ_n (outputs - predictions)² / Σ_n (outputs - mean)²

  Args:
    outputs: (M, K) outputs of the model at nodes that were not fitted.
    predictions: (M, K) predictions of the expansion there.

  Returns:
    (K,) at most 1; NaN for an output that does not vary.

  Raises:
    ValueError: shapes that differ.
  """
  outputs, predictions = _pair(outputs, predictions)
  error = np.sum((outputs - predictions) ** 2, axis=0)
  spread = np.sum((outputs - outputs.mean(axis=0)) ** 2, axis=0)
  return 1 - _ratio(error, spread)


def nrmse(outputs: ArrayLike, predictions: ArrayLike) -> np.ndarray:
  """Root mean square error relative to the range of the outputs.

      nrmse[k] = sqrt(mean_n (outputs - predictions)²) / (max - min)

  Args:
    outputs: (M, K) outputs of the model.
    predictions: (M, K) predictions of the expansion.

  Returns:
    (K,) at least 0; NaN for an output that does not vary.

  Raises:
    ValueError: shapes that differ.
  """
  outputs, predictions = _pair(outputs, predictions)
  error = np.sqrt(np.mean((outputs - predictions) ** 2, axis=0))
  return _ratio(error, np.ptp(outputs, axis=0))


def explained_variance_ratio(
  expansion: expansions.Expansion,
  outputs: ArrayLike,
  weights: ArrayLike | None = None,
) -> np.ndarray:
  """Variance of the expansion relative to that of the model's outputs.

  Below one the basis misses variance; above one it oscillates.

  Args:
    expansion: the expansion of K outputs.
    outputs: (N, K) outputs of the model at the nodes of a design.
    weights: (N,) weights of that design; None: equal weights.

  Returns:
    (K,) ratios; NaN for an output that does not vary.
  """
  outputs = np.asarray(outputs, np.float64)
  centred = outputs - np.average(outputs, axis=0, weights=weights)
  variance = np.average(centred**2, axis=0, weights=weights)
  return _ratio(np.asarray(expansion.variance, np.float64), variance)


def saturation(expansion: expansions.Expansion) -> np.ndarray:
  """Share of the variance at the highest degrees of each factor.

      saturation[d, k] = Σ_{p: multi_indices[p, d] >= n_d - 1} c[p, k]² / V[k]

  with n_d the highest degree of factor d. Coefficients of a resolved factor
  decay, so its share is small; the largest share names the factor whose
  degree is too low. A factor of degree zero is not resolved at all: one.

  Args:
    expansion: the expansion of K outputs.

  Returns:
    (D, K) shares in [0, 1]; NaN for an output without variance.
  """
  basis = expansion.basis
  squares = np.asarray(expansion.coefficients, np.float64)[1:] ** 2
  edges = [max(min(n, 1), n + 1 - _EDGE) for n in basis.degrees]
  at_edge = basis.multi_indices[1:] >= np.array(edges)
  shares = at_edge.T.astype(np.float64) @ squares
  return _ratio(shares, np.broadcast_to(squares.sum(axis=0), shares.shape))


def trust(
  held_out_q2: ArrayLike,
  expansion: expansions.Expansion,
  *,
  threshold: float = 0.9,
  nodes_field: str = 'gpc.num_nodes.{}',
) -> tuple[Verdict, ...]:
  """Says for each output whether its indices can be trusted.

  Args:
    held_out_q2: (K,) from `q2`, or leave-one-out where there is nothing else.
    expansion: the expansion of the K outputs.
    threshold: smallest q2 that is trusted.
    nodes_field: what to raise for more nodes, {} standing for the factor.

  Returns:
    K verdicts; those without trust name the factors whose degree or number
    of nodes to raise first.

  Raises:
    ValueError: not one q2 per output.
  """
  shares = saturation(expansion)
  values = np.asarray(held_out_q2, np.float64)
  if values.shape != (shares.shape[1],):
    raise ValueError(
      f'held_out_q2: expected shape ({shares.shape[1]},), got {values.shape}'
    )
  names, degrees = expansion.basis.space.names, expansion.basis.degrees
  return tuple(
    Verdict(
      trusted=bool(value >= threshold),
      q2=float(value),
      threshold=threshold,
      advice=()
      if value >= threshold
      else _advice(float(value), share, names, degrees, nodes_field),
    )
    for value, share in zip(values, shares.T, strict=True)
  )


def trust_intervals(
  half_widths: ArrayLike, q2: ArrayLike, *, limit: float, advice: str
) -> tuple[Verdict, ...]:
  """Says for each output whether its intervals are narrow enough.

  For surrogates whose intervals count what they miss; q2 is only reported.

  Args:
    half_widths: (K,) largest half-width over the indices; NaN: no variance.
    q2: (K,) by cross-validation.
    limit: largest half-width that is trusted.
    advice: what to raise where it is not.
  """
  verdicts = []
  for width, value in zip(half_widths, q2, strict=True):
    lines = (f'{advice}: the indices are known to ±{width:.2g} only',)
    if np.isnan(width):
      lines = ('the output does not vary on the nodes',)
    trusted = bool(width <= limit)
    verdicts.append(
      Verdict(trusted, float(value), limit, () if trusted else lines)
    )
  return tuple(verdicts)


def _advice(
  value: float,
  shares: np.ndarray,
  names: Sequence[str],
  degrees: Sequence[int],
  nodes_field: str,
) -> tuple[str, ...]:
  """What to raise for one output, the least resolved factor first."""
  if np.isnan(value):
    return ('the output does not vary on the held-out nodes',)
  order = [d for d in np.argsort(-shares) if shares[d] > max(shares) / 4]
  lines = [
    f'raise the degree and {nodes_field.format(names[d])} (degree '
    f'{degrees[d]} now; '
    f'{100 * shares[d]:.2g} % of the variance sits in its highest degrees)'
    for d in order
  ]
  if max(shares) < (1 - value) / 10:
    # Resolved in every factor and still wrong: interactions that the basis
    # leaves out, noise, or too few nodes for the number of terms.
    lines.insert(
      0,
      'no factor is short of degree: add nodes, or raise the total degree '
      'or max_interaction',
    )
  return tuple(lines)


def _pair(
  outputs: ArrayLike, predictions: ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
  """Two (M, K) arrays of one shape."""
  outputs = np.asarray(outputs, np.float64)
  predictions = np.asarray(predictions, np.float64)
  if outputs.shape != predictions.shape or outputs.ndim != 2:
    raise ValueError(
      'outputs and predictions: expected one shape (M, K), got '
      f'{outputs.shape} and {predictions.shape}'
    )
  return outputs, predictions


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
  """Quotient; NaN where the denominator is zero."""
  return numerator / np.where(denominator > 0, denominator, np.nan)
