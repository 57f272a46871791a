"""Reproducer of a wrong compilation by JAX 0.10.2 on CPU (jax-ml/jax#39103).

`jit` of a mapped matrix-vector product followed by a sum returns wrong numbers
for all rows past 16,384 in float64 and past 32,768 in float32. That is the pattern of evaluating
a basis at many nodes and contracting it, so this version is excluded.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

NUM_ROWS = 40_000


def test_installed_version_is_not_the_excluded_one():
  assert jax.__version__ != '0.10.2'


@pytest.mark.parametrize('num_outputs', [2, 3])
@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_sum_of_mapped_matrix_vector_products_equals_numpy(dtype, num_outputs):
  generator = np.random.default_rng(0)
  matrix = generator.normal(size=(num_outputs, 3)).astype(dtype)
  rows = generator.normal(size=(NUM_ROWS, 3)).astype(dtype)

  @jax.jit
  def contract(matrix, rows):
    # The sum has to stand inside of the map.
    return jax.vmap(lambda row: jnp.sum(matrix @ row))(rows)

  with jax.enable_x64(dtype == np.float64):
    found = contract(jnp.asarray(matrix), jnp.asarray(rows))
  expected = rows.astype(np.float64) @ matrix.astype(np.float64).sum(axis=0)
  assert found.dtype == dtype
  tolerance = 1e-13 if dtype == np.float64 else 2e-5
  np.testing.assert_allclose(found, expected, atol=tolerance)
