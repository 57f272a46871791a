"""Smolyak's combination of tensor projections, each solved on its own."""

import itertools

import numpy as np

from jaxsens.gpc import expansions


def combination(space, multi_indices, nodes_of_factors, function):
  """Coefficients as a dict from multi-index to (K,).

  Wasilkowski and Wozniakowski 1995: Σ_i c_i ⊗_d P_d[i_d] f with
  c_i = Σ_{z in {0,1}^D, i + z in the set} (-1)^|z|. Each tensor projection
  interpolates on the first i_d + 1 nodes of factor d, by one dense system.
  """
  members = set(map(tuple, multi_indices.tolist()))
  result = {}
  for i in members:
    weight = sum(
      (-1) ** sum(z)
      for z in itertools.product((0, 1), repeat=len(i))
      if tuple(np.add(i, z).tolist()) in members
    )
    if weight == 0:
      continue
    terms = np.array(list(itertools.product(*(range(n + 1) for n in i))))
    nodes = np.stack(
      [x[terms[:, d]] for d, x in enumerate(nodes_of_factors)], axis=1
    )
    psi = expansions.Basis(space, terms).evaluate(nodes)
    coefficients = np.linalg.solve(psi, function(nodes))
    for term, row in zip(terms.tolist(), coefficients, strict=True):
      term = tuple(term)
      result[term] = result.get(term, 0.0) + weight * row
  return result
