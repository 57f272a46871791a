"""Quick compiles: these tests spend their time in XLA, not in the pictures."""

import jax
import pytest


@pytest.fixture(autouse=True, scope='module')
def _quick_compiles():
  """Keeps LLVM at its lowest level; the rewriting of XLA stays as it is."""
  before = jax.config.read('jax_disable_most_optimizations')
  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', before)
