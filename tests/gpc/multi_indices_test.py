"""Index sets against trying every multi-index."""

import math

import numpy as np
import pytest

from jaxsens.gpc import multi_indices
from tests.oracles import multi_index_sets


def as_set(rows):
  found = {tuple(row) for row in rows.tolist()}
  assert len(found) == len(rows), 'a row is there twice'
  return found


@pytest.mark.parametrize('limit', [None, 1, 2])
@pytest.mark.parametrize(('dim', 'degree'), [(1, 4), (2, 5), (3, 4), (5, 2)])
def test_total_degree_holds_what_the_definition_says(dim, degree, limit):
  rows = multi_indices.total_degree(dim, degree, max_interaction=limit)
  expected = multi_index_sets.filtered(
    dim, degree, lambda alpha: sum(alpha) <= degree, limit
  )
  assert as_set(rows) == expected


@pytest.mark.parametrize('limit', [None, 1, 2])
def test_tensor_product_holds_what_the_definition_says(limit):
  rows = multi_indices.tensor_product((3, 0, 2), max_interaction=limit)
  expected = multi_index_sets.filtered(
    3, 3, lambda a: a[0] <= 3 and a[1] <= 0 and a[2] <= 2, limit
  )
  assert as_set(rows) == expected


@pytest.mark.parametrize('limit', [None, 2])
@pytest.mark.parametrize('q', [0.3, 0.5, 0.75, 1.0])
def test_hyperbolic_holds_what_the_definition_says(q, limit):
  rows = multi_indices.hyperbolic(3, 6, q, max_interaction=limit)
  expected = multi_index_sets.filtered(
    3, 6, lambda a: sum(x**q for x in a) ** (1 / q) <= 6 + 1e-9, limit
  )
  assert as_set(rows) == expected


def test_counts_are_the_known_ones():
  assert len(multi_indices.total_degree(10, 6)) == math.comb(16, 6)
  # The basis of the source system: degree (6, 6, 6).
  assert len(multi_indices.tensor_product((6, 6, 6))) == 343


@pytest.mark.parametrize(
  'rows',
  [
    multi_indices.total_degree(4, 3),
    multi_indices.tensor_product((2, 4, 1)),
    multi_indices.hyperbolic(3, 8, 0.6),
  ],
  ids=['total', 'tensor', 'hyperbolic'],
)
def test_rows_are_sorted_by_total_degree_and_downward_closed(rows):
  assert rows.dtype == np.int64
  assert not np.any(rows[0])
  assert np.all(np.diff(rows.sum(axis=1)) >= 0)
  found = as_set(rows)
  for row in rows:
    for d in np.flatnonzero(row):
      below = row.copy()
      below[d] -= 1
      assert tuple(below.tolist()) in found


def test_within_a_degree_the_first_factor_comes_first():
  rows = multi_indices.total_degree(2, 2).tolist()
  assert rows == [[0, 0], [1, 0], [0, 1], [2, 0], [1, 1], [0, 2]]


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda: multi_indices.total_degree(0, 2), 'dim'),
    (lambda: multi_indices.total_degree(2, -1), 'degree'),
    (lambda: multi_indices.tensor_product(()), 'dim'),
    (lambda: multi_indices.tensor_product((2, -1)), 'degrees'),
    (lambda: multi_indices.hyperbolic(2, 3, 1.5), 'q'),
    (lambda: multi_indices.hyperbolic(2, 3, 0.0), 'q'),
    (
      lambda: multi_indices.total_degree(2, 2, max_interaction=-1),
      'max_interaction',
    ),
  ],
)
def test_bad_arguments_are_refused_by_name(call, message):
  with pytest.raises(ValueError, match=message):
    call()
