"""Fixtures that every test can ask for."""

import os

import jax
import pytest

# What tests start as programs of their own compiles quickly as well. JAX has
# read its environment by now: nothing changes in this process.
os.environ['JAX_DISABLE_MOST_OPTIMIZATIONS'] = '1'


@pytest.fixture(autouse=True, scope='module')
def _no_programs_of_other_modules():
  """Frees compiled programs: a process can map only so many of them.

  Beyond `vm.max_map_count` LLVM ends in a segmentation fault.
  """
  yield
  jax.clear_caches()


@pytest.fixture(scope='module')
def quick_compiles():
  """Keeps LLVM at its lowest level; the rewriting of XLA stays as it is.

  For tests that spend their time in compiling large programs for small arrays.
  """
  before = jax.config.read('jax_disable_most_optimizations')
  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', before)
