"""Greedy choice of terms, by one least-squares fit per candidate and step."""

import numpy as np


def greedy(psi, outputs, train, prior, num_terms):
  """Takes the term whose addition lowers the sum of squares most.

  Args:
    psi: (N, P) candidates, the constant first; it is taken first.
    outputs: (N, K) outputs.
    train: (N,) nodes that are fitted.
    prior: (P,) factors of the decreases.
    num_terms: number of terms to take.

  Returns:
    terms, in order, and residuals (num_terms, N, K) at all nodes.
  """

  def residuals_of(terms):
    chosen = psi[:, terms]
    fit, *_ = np.linalg.lstsq(chosen[train], outputs[train], rcond=None)
    return outputs - chosen @ fit

  terms, history = [0], [residuals_of([0])]
  while len(terms) < num_terms:
    before = np.sum(history[-1][train] ** 2)
    gains = np.full(psi.shape[1], -1.0)
    for p in set(range(psi.shape[1])) - set(terms):
      after = np.sum(residuals_of([*terms, p])[train] ** 2)
      gains[p] = prior[p] * (before - after)
    terms.append(int(np.argmax(gains)))
    history.append(residuals_of(terms))
  return terms, np.array(history)
