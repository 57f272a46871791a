"""The state of a network as a flat dict of dotted names, and back.

A name is the attribute path joined by dots, `layer1.0.conv1.kernel`. Conversion
of public weights and checkpoints both compare such dicts name by name, so that
nothing is skipped in silence.
"""

from collections.abc import Mapping

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

Shapes = Mapping[str, tuple[int, ...]]


def flatten(model: nnx.Module) -> dict[str, jax.Array]:
  """Returns every array of a network, parameters and statistics, by name.

  Of an abstract network (`nnx.eval_shape`) shapes and dtypes take the place of
  the arrays.
  """
  return {
    _name(path): variable.get_value()
    for path, variable in nnx.to_flat_state(nnx.state(model))
  }


def replace(
  model: nnx.Module, arrays: Mapping[str, np.ndarray | jax.Array]
) -> nnx.Module:
  """Returns a copy of a network with all its arrays replaced.

  Args:
    model: network to copy, left as it is; may be abstract.
    arrays: one array per name of `flatten(model)`, of the same shape; cast to
      the dtype of the array that it replaces.

  Raises:
    ValueError: names are missing or left over, or shapes differ.
  """
  needed = {name: x.shape for name, x in flatten(model).items()}
  problems = differences(needed, {n: np.shape(x) for n, x in arrays.items()})
  if problems:
    raise ValueError(f'arrays do not fit the network: {problems}')
  graphdef, state = nnx.split(model)
  leaves = [
    (path, variable.replace(jnp.array(arrays[_name(path)], variable.dtype)))
    for path, variable in nnx.to_flat_state(state)
  ]
  return nnx.merge(graphdef, nnx.from_flat_state(leaves))


def differences(needed: Shapes, given: Shapes) -> str:
  """Returns what keeps `given` from filling `needed`; '' when nothing does.

  Args:
    needed: shape per name that the network has.
    given: shape per name that the file has.

  Returns:
    The missing, the left-over and the misshapen names, all of them.
  """
  missing = sorted(set(needed) - set(given))
  left_over = sorted(set(given) - set(needed))
  misshapen = [
    f'{name}: needed {tuple(needed[name])}, given {tuple(given[name])}'
    for name in sorted(set(needed) & set(given))
    if tuple(needed[name]) != tuple(given[name])
  ]
  parts = (
    ('missing', missing),
    ('left over', left_over),
    ('misshapen', misshapen),
  )
  return '; '.join(
    f'{len(names)} {title}: [{", ".join(names)}]'
    for title, names in parts
    if names
  )


def _name(path: tuple[str | int, ...]) -> str:
  return '.'.join(map(str, path))
