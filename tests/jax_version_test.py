"""Reproducers of wrong compilations by XLA on CPU (jax-ml/jax#39103).

`jit` of a mapped matrix-vector product followed by a sum returns wrong numbers
for rows past 16,384 in float64 and past 32,768 in float32, for products that
contract three numbers: XLA hands the pair to a fused kernel of YNNPACK. In
float64 this is JAX 0.10.2, which is excluded. In float32 it is also 0.9.2 to
0.10.1, for 32,769 to about 45,000 rows. The pattern is that of evaluating a
basis at many nodes and contracting it; the code of this package is tested to
stay clear of it.
"""

import os
import subprocess
import sys

import chaospy
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsens import factors
from jaxsens.gpc import expansions
from jaxsens.gpc import multi_indices

NUM_ROWS = 40_000
# Leaves product and sum to XLA itself.
SAFE_FLAG = '--xla_cpu_experimental_ynn_fusion_type='


def largest_error(dtype, num_outputs):
  """Of Σ_i (matrix @ row)[i] over all rows."""
  generator = np.random.default_rng(0)
  matrix = generator.normal(size=(num_outputs, 3)).astype(dtype)
  rows = generator.normal(size=(NUM_ROWS, 3)).astype(dtype)

  @jax.jit
  def contract(matrix, rows):
    # The sum has to stand inside of the map.
    return jax.vmap(lambda row: jnp.sum(matrix @ row))(rows)

  with jax.enable_x64(dtype == np.float64):
    found = contract(jnp.asarray(matrix), jnp.asarray(rows))
  assert found.dtype == dtype
  expected = rows.astype(np.float64) @ matrix.astype(np.float64).sum(axis=0)
  return np.max(np.abs(found - expected))


def test_installed_version_is_not_the_excluded_one():
  assert jax.__version__ != '0.10.2'


@pytest.mark.parametrize('num_outputs', [2, 3])
def test_sum_of_mapped_products_equals_numpy_in_float64(num_outputs):
  assert largest_error(np.float64, num_outputs) < 1e-13


@pytest.mark.xfail(
  (0, 9, 2) <= jax.__version_info__[:3] <= (0, 10, 2),
  reason='YNNPACK fusion of XLA:CPU, JAX 0.9.2 to 0.10.2', strict=False
)
@pytest.mark.parametrize('num_outputs', [2, 3])
def test_sum_of_mapped_products_equals_numpy_in_float32(num_outputs):
  assert largest_error(np.float32, num_outputs) < 2e-5


def test_without_the_fusion_float32_equals_numpy():
  flags = f'{os.environ.get("XLA_FLAGS", "")} {SAFE_FLAG}'.strip()
  code = (
    'import numpy as np\n'
    'from tests import jax_version_test as test\n'
    'assert test.largest_error(np.float32, 3) < 2e-5\n'
  )
  done = subprocess.run(
    [sys.executable, '-c', code],
    env={**os.environ, 'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'},
    cwd=os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
    capture_output=True,
    text=True,
    timeout=120,
    check=False,
  )
  assert done.returncode == 0, done.stderr


@pytest.mark.parametrize('num_rows', [16_385, 32_769, 40_000])
@pytest.mark.parametrize(
  ('dim', 'degree'), [(1, 2), (2, 1), (3, 1), (3, 3)],
  ids=['three_terms_one_factor', 'three_terms', 'four_terms', 'twenty_terms'],
)  # fmt: skip
def test_expansions_at_many_nodes_equal_numpy(dim, degree, num_rows):
  space = factors.FactorSpace(
    tuple(
      factors.Factor(f'x{d}', chaospy.Uniform(-1, 1)) for d in range(dim)
    )
  )
  basis = expansions.Basis(space, multi_indices.total_degree(dim, degree))
  generator = np.random.default_rng(0)
  coefficients = generator.normal(size=(basis.num_terms, 3))
  germ = generator.uniform(-1, 1, (num_rows, dim)).astype(np.float32)
  expansion = expansions.Expansion(basis, coefficients)
  expected = basis.evaluate(germ) @ coefficients
  at_once = jax.jit(expansion)(jnp.asarray(germ))
  summed = jax.jit(jax.vmap(lambda x: jnp.sum(expansion(x))))(germ)
  scale = np.max(np.abs(expected))
  np.testing.assert_allclose(at_once, expected, atol=1e-5 * scale)
  np.testing.assert_allclose(summed, expected.sum(axis=1), atol=2e-5 * scale)
