"""Params of a network whose layers lose what they have learned, one by one."""

from collections.abc import Sequence
import difflib
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np

from jaxsens import classifiers
from jaxsens.attribution import taps

MODES = ('cascading', 'independent')
"""Whether a stage randomises all layers down to its own, or its own alone."""


def module_names(params: Any) -> tuple[str, ...]:
  """Returns the modules of a tree of params, in the order of the tree.

  A module is the path of an array without its last part, joined by dots; an
  array at the root is a module of its own. Arrays that are not floating point
  (counters, keys) belong to none.
  """
  return tuple(dict.fromkeys(
    _module(path) for path, leaf in _leaves(params) if _is_float(leaf)
  ))


def calling_order(classifier: classifiers.Classifier) -> tuple[str, ...]:
  """Returns the modules with params in the order in which the network calls.

  Of a classifier that is no Flax network in the order of the tree, which for
  dicts is the alphabet.
  """
  known = module_names(classifier.params)
  try:
    called = taps.layer_names(classifier)
  except TypeError:
    return known
  first = [name for name in called if name in known]
  return (*first, *(name for name in known if name not in first))


def permuted(key: jax.Array, params: Any) -> Any:
  """Returns params whose numbers are permuted within each array.

  Which keeps the distribution of the values of every array, and its scale. An
  array of one value, such as the scales of an untrained batch norm, stays.

  Args:
    key: of the permutations.
    params: a pytree; what is not floating point is left as it is.
  """
  leaves, structure = jax.tree.flatten(params)
  result = []
  for i, leaf in enumerate(leaves):
    if _is_float(leaf):
      own = jax.random.fold_in(key, i)
      flat = jax.random.permutation(own, jnp.ravel(leaf))
      leaf = flat.reshape(jnp.shape(leaf))
    result.append(leaf)
  return structure.unflatten(result)


def stage_params(
  params: Any,
  fresh: Any,
  names: Sequence[str],
  mode: str,
  *,
  stages: ArrayLike | None = None,
) -> Any:
  """Returns the params of stages, stacked along a new leading axis.

  Args:
    params: trained, a pytree.
    fresh: of the same structure, what replaces them.
    names: L modules, or what modules begin with ('layer4' for all within), in
      calling order. Stage s randomises names[L - 1 - s], and in mode
      'cascading' all behind it as well. What no name covers stays.
    mode: one of `MODES`.
    stages: (S,) which, of 0 to L - 1; None for all.

  Returns:
    The tree with leaves (S, ...).

  Raises:
    ValueError: an unknown mode or name, a name within another, or a tree of
      another structure or other shapes.
  """
  _check_trees(params, fresh)
  covered = _covered(params, names, mode)
  stages = np.arange(len(names)) if stages is None else np.asarray(stages)
  # The first layer that is replaced, counted from the input.
  first = len(names) - 1 - stages

  def of_leaf(path, trained, new):
    layer = covered.get(_module(path))
    if layer is None or not _is_float(trained):
      replaced = np.zeros(len(first), bool)
    else:
      replaced = layer >= first if mode == 'cascading' else layer == first
    if not replaced.any():
      return jnp.broadcast_to(trained, (len(first), *jnp.shape(trained)))
    shape = (len(first),) + (1,) * jnp.ndim(trained)
    new = jnp.asarray(new).astype(jnp.result_type(trained))
    return jnp.where(
      replaced.reshape(shape), new[None], jnp.asarray(trained)[None]
    )

  return jax.tree_util.tree_map_with_path(of_leaf, params, fresh)


def _leaves(params):
  return jax.tree_util.tree_flatten_with_path(params)[0]


def _module(path):
  # Flax ends a path by the attribute `.value` of a variable.
  parts = [_part(entry) for entry in path]
  if path[-1] == jax.tree_util.GetAttrKey('value'):
    parts = parts[:-1]
  return '.'.join(parts[:-1] or parts)


def _part(entry):
  for name in ('key', 'idx', 'name'):
    if hasattr(entry, name):
      return str(getattr(entry, name))
  return str(entry)


def _is_float(leaf):
  return jnp.issubdtype(jnp.result_type(leaf), jnp.floating)


def _covered(params, names, mode):
  """Returns the place among the names of every module that one covers."""
  if mode not in MODES:
    raise ValueError(f'mode must be one of {MODES}, got {mode!r}.')
  known = module_names(params)
  result = {}
  for i, name in enumerate(names):
    within = [m for m in known if m == name or m.startswith(f'{name}.')]
    if not within:
      near = difflib.get_close_matches(name, known, 4, 0.3) or known[-4:]
      raise ValueError(
        f'no layer {name!r} has params; next to it are {", ".join(near)}.'
      )
    twice = sorted(set(within) & set(result))
    if twice:
      raise ValueError(f'names cover {twice[0]!r} twice: {tuple(names)}.')
    result.update(dict.fromkeys(within, i))
  if not result:
    raise ValueError('names must hold one layer at least.')
  return result


def _check_trees(params, fresh):
  if jax.tree.structure(params) != jax.tree.structure(fresh):
    raise ValueError(
      'fresh params must have the structure of the trained ones; modules are '
      f'{module_names(params)} and {module_names(fresh)}.'
    )
  for (path, old), new in zip(
    _leaves(params), jax.tree.leaves(fresh), strict=True
  ):
    if jnp.shape(old) != jnp.shape(new):
      raise ValueError(
        f'fresh params of {_module(path)} must have shape {jnp.shape(old)}, '
        f'got {jnp.shape(new)}.'
      )
