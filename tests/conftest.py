"""Fixtures that every test can ask for."""

import jax
import pytest


@pytest.fixture(scope='module')
def quick_compiles():
  """Keeps LLVM at its lowest level; the rewriting of XLA stays as it is.

  For tests that spend their time in compiling large programs for small arrays.
  """
  before = jax.config.read('jax_disable_most_optimizations')
  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', before)
