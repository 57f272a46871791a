"""Evaluates a function anew, with its nonlinear steps handed to rules.

The function is traced to a jaxpr and run through equation by equation, so that
whatever it is made of - methods, functions, layers used twice - is met. What
depends on the images is carried in lanes: several points at which the function
is evaluated in lock step, such as an image and its baseline. A step that is
affine in what depends on the images is run in every lane as it is, calls with a
derivative of their own as a whole. The others go to `Rules`:

- a function of single numbers, z -> f(z): a chain of elementwise steps that all
  start from the same array is one function, so that x * sigmoid(x) is SiLU and
  where(x <= 0, 0, x) a rectifier;
- a product of two arrays that both depend on the images, and a quotient;
- a maximum over windows, axes or several arrays.

Loops (`scan`, `map`) are run as loops. `stop_gradient` counts as the identity.
A primitive that none of this covers is refused by name.
"""

from collections.abc import Callable
from collections.abc import Sequence
import functools
from typing import Any
from typing import Protocol

import jax
from jax.extend import core as jex
import jax.numpy as jnp
import numpy as np

from jaxsens.attribution import activity
from jaxsens.attribution import chains

Lanes = chains.Lanes
Function = chains.Function
Operation = Callable[..., jax.Array]


class Rules(Protocol):
  """What becomes of the steps that are not affine; lanes in, lanes out."""

  def elementwise(self, function: Function, z: Lanes) -> Lanes:
    """Returns f(z) of a function of single numbers."""

  def product(self, operation: Operation, u: Lanes, v: Lanes) -> Lanes:
    """Returns operation(u, v), which is linear in each of them."""

  def quotient(self, u: Lanes, v: Lanes) -> Lanes:
    """Returns u / v."""

  def extremum(
    self, kind: str, operation: Operation, operands: Sequence[Lanes]
  ) -> Lanes:
    """Returns operation(*operands), a 'maximum' or a 'minimum' of numbers."""


def hoisted(
  operation: Operation, *operands: jax.Array
) -> tuple[Operation, tuple[jax.Array, ...]]:
  """Returns an operation with what it has captured as arguments.

  A rule of a derivative is traced when the loop around it has been left, and
  must not hold on to arrays of the body.

  Args:
    operation: (*operands) -> an array.
    *operands: as it will be called.

  Returns:
    The function (captured, *operands) -> the same array, and the captured.
  """
  closed = jax.make_jaxpr(operation)(*operands)
  _, captured, *_ = activity.parts(closed)

  def pure(captured, *operands):
    return activity.call(closed, captured, operands)[0]

  return pure, tuple(captured)


def evaluate(
  rules: Rules,
  function: Callable[..., jax.Array],
  lanes: Sequence[jax.Array],
  *constants: Any,
) -> Lanes:
  """Returns a function of images at several points, by the rules.

  Args:
    rules: see `Rules`.
    function: (images, *constants) -> an array.
    lanes: arrays of one shape and dtype, the points.
    *constants: further arguments, any pytrees.

  Returns:
    The value for each lane.

  Raises:
    ValueError: a step that the rules do not know, by its name.
  """
  closed = jax.make_jaxpr(function)(lanes[0], *constants)
  inputs = [_source(tuple(lanes))]
  inputs += [chains.Constant(leaf) for leaf in jax.tree.leaves(constants)]
  (found,) = _run(rules, closed, inputs)
  if isinstance(found, chains.Constant):
    return (found.array,) * len(lanes)
  return found.lanes


def _source(lanes) -> chains.Active:
  node = chains.Active(lanes)
  node.origins = (node,)
  return node


def _run(rules, jaxpr, inputs):
  """Returns what a jaxpr makes of constants and active values."""
  constvars, consts, invars, eqns, outvars = activity.parts(jaxpr)
  known = dict(zip(constvars, map(chains.Constant, consts), strict=True))
  known.update(zip(invars, inputs, strict=True))

  def read(v):
    if isinstance(v, jex.Literal):
      number = v.val if np.ndim(v.val) == 0 else None
      return chains.Constant(v.val, number)
    return known[v]

  for eqn in eqns:
    results = _step(rules, eqn, [read(v) for v in eqn.invars])
    known.update(zip(eqn.outvars, results, strict=True))
  return [read(v) for v in outvars]


def _step(rules, eqn, operands):
  """Returns the results of one equation."""
  active = [isinstance(operand, chains.Active) for operand in operands]
  if not any(active):
    return _constant_step(eqn, operands)
  inner = activity.body(eqn)
  # The rules differentiate in forward mode.
  whole = inner is None or activity.has_own_tangent(eqn)
  if inner is not None and not activity.has_own_derivative(eqn):
    return _run(rules, inner, operands)
  if whole and activity.is_elementwise(eqn, active):
    return _elementwise_step(rules, eqn, operands, active)
  if activity.is_affine(eqn, active):
    return _affine_step(eqn, operands)
  kind = activity.extremum(eqn, active)
  if whole and kind:
    return _extremum_step(rules, kind, eqn, operands)
  if inner is not None:
    return _run(rules, inner, operands)
  if activity.is_bilinear(eqn) and sum(active[:2]) == 2:
    return _product_step(rules, eqn, operands)
  if eqn.primitive.name == 'scan':
    return _scan_step(rules, eqn, operands)
  raise _refusal(eqn)


def _refusal(eqn):
  shapes = ', '.join(str(v.aval) for v in eqn.invars)
  return ValueError(
    f'no rule for the primitive {eqn.primitive.name!r} of what depends on the '
    f'images, here of {shapes}.'
  )


def _constant_step(eqn, operands):
  found = activity.bind(eqn, [operand.array for operand in operands])
  numbers = [operand.number for operand in operands]
  with jax.ensure_compile_time_eval():
    same = chains.bind_numbers(eqn, numbers)
  return [chains.Constant(*pair) for pair in zip(found, same, strict=True)]


def _in_lanes(eqn, operands, number):
  """Returns the results of an equation, of each the value in every lane."""
  found = [
    activity.bind(eqn, [
      o.array if isinstance(o, chains.Constant) else o.lanes[lane]
      for o in operands
    ])
    for lane in range(number)
  ]
  return list(zip(*found, strict=True))


def _number_of_lanes(operands):
  return next(len(o.lanes) for o in operands if isinstance(o, chains.Active))


def _affine_step(eqn, operands):
  found = _in_lanes(eqn, operands, _number_of_lanes(operands))
  return [_source(lanes) for lanes in found]


def _elementwise_step(rules, eqn, operands, active):
  """Returns elementwise results, to be computed when they are needed."""
  if eqn.primitive.name == 'stop_gradient':
    return operands
  operands = [
    _stretched(operand, v.aval.shape, eqn.outvars[0].aval.shape)
    for operand, v in zip(operands, eqn.invars, strict=True)
  ]
  own = [operand for operand in operands if isinstance(operand, chains.Active)]
  common = functools.reduce(_common, (node.origins for node in own))
  results = []
  for output in range(len(eqn.outvars)):
    node = chains.Active(None, step=eqn, operands=operands, output=output)
    is_float = activity.is_float(eqn.outvars[output])
    if is_float and activity.is_affine(eqn, active):
      node.origins = (node, *common)
      node.compute_by(functools.partial(_affine_lanes, eqn, operands, output))
    elif common:
      node.origins = common
      function = Function(node, common[0])
      node.compute_by(functools.partial(_chain_lanes, rules, function))
    else:
      return _mixed_step(rules, eqn, operands, active)
    results.append(node)
  return results


def _stretched(operand, shape, wanted):
  """Returns an active operand in the shape of the result."""
  if shape == wanted or isinstance(operand, chains.Constant):
    return operand
  return _source(tuple(jnp.broadcast_to(x, wanted) for x in operand.lanes))


def _common(one, other):
  """Returns the origins that two values share, the nearest first."""
  shared = {id(node) for node in other}
  return tuple(node for node in one if id(node) in shared)


def _affine_lanes(eqn, operands, output):
  return _in_lanes(eqn, operands, _number_of_lanes(operands))[output]


def _chain_lanes(rules, function):
  result = function.result
  if not activity.is_float(result.step.outvars[result.output]):
    raise ValueError(
      f'what depends on the images is compared or counted ({function.names}) '
      'and then used as a number: no rule for that.'
    )
  return rules.elementwise(function, function.source.lanes)


def _mixed_step(rules, eqn, operands, active):
  """Returns a nonlinear elementwise step of values of several origins."""
  name = eqn.primitive.name
  if activity.body(eqn) is not None:
    return _run(rules, activity.body(eqn), operands)
  if name == 'mul':
    return _product_step(rules, eqn, operands)
  if name == 'div':
    u, v = operands
    return [_source(rules.quotient(u.lanes, v.lanes))]
  kind = activity.extremum(eqn, active)
  if kind:
    return _extremum_step(rules, kind, eqn, operands)
  raise _refusal(eqn)


def _operation(eqn, operands):
  """Returns the equation as a function of its active operands."""
  fixed = [None if isinstance(o, chains.Active) else o.array for o in operands]

  def operation(*own):
    remaining = iter(own)
    return activity.bind(eqn, [
      next(remaining) if isinstance(operand, chains.Active) else array
      for operand, array in zip(operands, fixed, strict=True)
    ])[0]

  return operation, [o.lanes for o in operands if isinstance(o, chains.Active)]


def _product_step(rules, eqn, operands):
  operation, (u, v) = _operation(eqn, operands)
  return [_source(rules.product(operation, u, v))]


def _extremum_step(rules, kind, eqn, operands):
  if len(eqn.outvars) > 1:
    raise _refusal(eqn)
  operation, own = _operation(eqn, operands)
  return [_source(rules.extremum(kind, operation, own))]


def _scan_step(rules, eqn, operands):
  """Returns the results of a loop, its body evaluated by the rules."""
  params = eqn.params
  num_consts, num_carry = _scan_sizes(params)
  jaxpr = params['jaxpr']
  active = [isinstance(operand, chains.Active) for operand in operands]
  active = _settled(jaxpr, active, num_consts, num_carry)
  number = _number_of_lanes(operands)
  values = [
    _as_lanes(operand, number) if is_active else operand.array
    for operand, is_active in zip(operands, active, strict=True)
  ]
  constants = values[:num_consts]
  found_active = []

  def body(carry, slices):
    inputs = [
      _source(value) if is_active else chains.Constant(value)
      for value, is_active in zip(
        (*constants, *carry, *slices), active, strict=True
      )
    ]
    results = _run(rules, jaxpr, inputs)
    wanted = active[num_consts:num_consts + num_carry]
    wanted += [isinstance(r, chains.Active) for r in results[num_carry:]]
    found_active[:] = wanted
    results = [
      _as_lanes(result, number) if is_active else result.array
      for result, is_active in zip(results, wanted, strict=True)
    ]
    return results[:num_carry], results[num_carry:]

  carry, stacked = jax.lax.scan(
    body, values[num_consts:num_consts + num_carry],
    values[num_consts + num_carry:], length=params['length'],
    reverse=params['reverse'], unroll=params['unroll'],
  )
  return [
    _source(tuple(value)) if is_active else chains.Constant(value)
    for value, is_active in zip((*carry, *stacked), found_active, strict=True)
  ]


def _scan_sizes(params):
  """Returns how many constants and carried values a loop has."""
  if 'num_consts' in params:
    return params['num_consts'], params['num_carry']
  constants, carry, _ = params['ft_in'].unpack()  # JAX 0.12.
  return len(constants), len(carry)


def _settled(jaxpr, active, num_consts, num_carry):
  """Returns the activity of the inputs of a loop once it has settled."""
  active = list(active)
  while True:
    carried = activity.active_results(jaxpr, active)[:num_carry]
    before = active[num_consts:num_consts + num_carry]
    after = [one or other for one, other in zip(before, carried, strict=True)]
    if after == before:
      return active
    active[num_consts:num_consts + num_carry] = after


def _as_lanes(value, number):
  if isinstance(value, chains.Active):
    return value.lanes
  return (jnp.asarray(value.array),) * number
