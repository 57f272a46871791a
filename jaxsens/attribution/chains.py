"""Values of a traced function, and chains of elementwise steps among them.

Of a value that depends on the images it is remembered by which elementwise
steps it came about, and from which arrays, so that a chain of them can be run
again as one function, on arrays or on numbers.
"""

from collections.abc import Callable
import dataclasses

import jax
from jax.extend import core as jex
import jax.numpy as jnp
import numpy as np

from jaxsens.attribution import activity

Lanes = tuple[jax.Array, ...]


class Constant:
  """What does not depend on the images.

  Attributes:
    array: the value.
    number: the number that all of it is, where that is known without running
      anything; None otherwise.
  """

  def __init__(self, array, number=None):
    self.array = array
    self.number = number


class Active:
  """What depends on the images.

  Attributes:
    lanes: the values; computed when first asked for.
    origins: arrays of which this one is an elementwise function, the nearest
      first; itself among them unless it is the result of a nonlinear step.
    operands: of the elementwise step that made it; None of another one.
    step: the equation of that step.
    output: which of its results this is.
  """

  def __init__(self, lanes, *, step=None, operands=None, output=0):
    self._values = lanes
    self.step = step
    self.operands = operands
    self.origins = ()
    self.output = output

  @property
  def lanes(self) -> Lanes:
    """The value in every lane."""
    if callable(self._values):
      self._values = self._values()
    return self._values

  def compute_by(self, lanes: Callable[[], Lanes]) -> None:
    """Sets what computes the lanes when they are first asked for."""
    self._values = lanes


@dataclasses.dataclass(frozen=True)
class Function:
  """A chain of elementwise steps that starts from one array.

  Attributes:
    result: the end of the chain.
    source: its start.
  """

  result: Active
  source: Active

  def __call__(self, z: jax.Array) -> jax.Array:
    """Returns the function of an array of the shape of the source."""
    return self._follow(z, lambda constant: constant.array, activity.bind)

  def of_numbers(self, z: np.ndarray) -> np.ndarray | None:
    """Returns the function of concrete numbers (n,), whatever the shapes.

    Args:
      z: in the dtype of the source.

    Returns:
      The values; None where it is not one function for all of the array.
    """
    with jax.ensure_compile_time_eval():
      found = self._follow(
        jnp.asarray(z), lambda constant: constant.number, bind_numbers
      )
    return None if found is None else np.asarray(found)

  @property
  def names(self) -> str:
    """The primitives of the chain, as an error message has them."""
    seen = {}
    self._follow(
      (), lambda constant: (),
      lambda step, operands: [seen.setdefault(step.primitive.name, ())]
      * len(step.outvars),
    )
    return ', '.join(seen)

  def _follow(self, z, constant, bind):
    done = {id(self.source): z}

    def value(node):
      if isinstance(node, Constant):
        return constant(node)
      if id(node) not in done:
        operands = [value(operand) for operand in node.operands]
        done[id(node)] = bind(node.step, operands)[node.output]
      return done[id(node)]

    return value(self.result)


# Steps that leave the same number everywhere.
_REPEATING = frozenset((
  'broadcast_in_dim', 'expand_dims', 'reshape', 'squeeze', 'stop_gradient',
))


def bind_numbers(eqn, operands):
  """Returns an elementwise equation of numbers, for any shape; None unknown."""
  if any(operand is None for operand in operands) or not operands:
    return [None] * len(eqn.outvars)
  inner = activity.body(eqn)
  if inner is not None:
    return _follow_body(inner, operands)
  if eqn.primitive.name in _REPEATING:
    return [operands[0]]
  if not activity.is_elementwise(eqn, [False] * len(operands)):
    return [None] * len(eqn.outvars)
  shape = np.broadcast_shapes(*map(np.shape, operands))
  like = [
    jnp.broadcast_to(jnp.asarray(operand, v.aval.dtype), shape)
    for operand, v in zip(operands, eqn.invars, strict=True)
  ]
  return activity.bind(eqn, like)


def _follow_body(jaxpr, operands):
  constvars, consts, invars, eqns, outvars = activity.parts(jaxpr)
  known = {v: None for v in constvars}
  known.update(zip(invars, operands, strict=True))

  def read(v):
    if isinstance(v, jex.Literal):
      return v.val if np.ndim(v.val) == 0 else None
    return known[v]

  for eqn in eqns:
    results = bind_numbers(eqn, [read(v) for v in eqn.invars])
    known.update(zip(eqn.outvars, results, strict=True))
  return [read(v) for v in outvars]


