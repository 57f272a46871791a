"""Sets of multi-indices by trying every one."""

import itertools


def filtered(dim, degree, accepts, max_interaction=None):
  """All tuples up to `degree` per factor that a predicate accepts."""
  limit = dim if max_interaction is None else max_interaction
  return {
    alpha
    for alpha in itertools.product(range(degree + 1), repeat=dim)
    if accepts(alpha) and sum(a > 0 for a in alpha) <= limit
  }
