"""What the steps of a traced function do to the numbers that depend on images.

A function is traced to a jaxpr, a list of equations of primitives. Of an
equation some operands are active, that is, they depend on the images; the
others are constants of the network. This module tells how the results depend on
the active operands, without running anything; `interpreter` acts on it.

References:
  JAX, "Writing custom Jaxpr interpreters in JAX".
"""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import jax
from jax.extend import core as jex
import jax.numpy as jnp

# Affine in all of their float operands together.
_LINEAR = frozenset((
  'broadcast_in_dim', 'concatenate', 'copy', 'copy_p', 'cumsum', 'expand_dims',
  'fft', 'imag', 'pad', 'real', 'reduce_sum', 'reduce_window_sum', 'reshape',
  'rev', 'slice', 'split', 'squeeze', 'stack', 'tie', 'tile', 'transpose',
  'optimization_barrier', 'unstack',
))  # fmt: skip

# Affine in these operands; the others are indices.
_LINEAR_IN = {
  'dynamic_slice': (0,),
  'dynamic_update_slice': (0, 1),
  'gather': (0,),
  'scatter': (0, 2),
  'scatter-add': (0, 2),
  'scatter_add': (0, 2),
}

# Number by number, and affine in some operands.
_PASSING = frozenset((
  'copy', 'copy_p', 'name', 'neg', 'pvary', 'reduce_precision',
  'sharding_constraint', 'stop_gradient',
))  # fmt: skip
_SUMS = frozenset(('add', 'add_any', 'sub'))

_NONLINEAR = frozenset((
  'abs', 'acos', 'acosh', 'and', 'asin', 'asinh', 'atan', 'atan2', 'atanh',
  'cbrt', 'ceil', 'clamp', 'cos', 'cosh', 'digamma', 'eq', 'eq_to', 'erf',
  'erf_inv', 'erfc', 'exp', 'exp2', 'expm1', 'floor', 'ge', 'gt', 'integer_pow',
  'is_finite', 'le', 'le_to', 'lgamma', 'log', 'log1p', 'logistic', 'lt',
  'lt_to', 'max', 'min', 'ne', 'nextafter', 'not', 'or', 'pow', 'rem', 'round',
  'rsqrt', 'sign', 'sin', 'sinh', 'sqrt', 'square', 'tan', 'tanh', 'xor',
))  # fmt: skip
_BY_OPERANDS = frozenset(('convert_element_type', 'div', 'mul', 'select_n'))

_BILINEAR = frozenset(('conv_general_dilated', 'dot_general', 'mul'))
_MAXIMA = frozenset(('cummax', 'max', 'reduce_max', 'reduce_window_max'))
_MINIMA = frozenset(('cummin', 'min', 'reduce_min', 'reduce_window_min'))

_CALLS = frozenset((
  'checkpoint', 'closed_call', 'core_call', 'custom_jvp_call',
  'custom_vjp_call', 'custom_vjp_call_jaxpr', 'jit', 'pjit', 'remat', 'remat2',
))  # fmt: skip
_OWN_DERIVATIVE = frozenset((
  'custom_jvp_call', 'custom_vjp_call', 'custom_vjp_call_jaxpr',
))  # fmt: skip


def parts(jaxpr: Any) -> tuple[list, list, list, list, list]:
  """Returns (constvars, consts, invars, eqns, outvars) of any kind of jaxpr."""
  inner = getattr(jaxpr, 'jaxpr', jaxpr)
  return (
    list(inner.constvars), list(getattr(jaxpr, 'consts', ())),
    list(inner.invars), list(inner.eqns), list(inner.outvars),
  )


def bind(eqn: jex.JaxprEqn, operands: Sequence[Any]) -> list[jax.Array]:
  """Returns the results of an equation for other operands."""
  params = eqn.primitive.get_bind_params(eqn.params)
  found = eqn.primitive.bind(*operands, **params)
  return list(found) if eqn.primitive.multiple_results else [found]


def call(
  jaxpr: Any, consts: Sequence[Any], operands: Sequence[Any]
) -> list[jax.Array]:
  """Returns the results of a jaxpr for other constants and operands."""
  constvars, _, invars, eqns, outvars = parts(jaxpr)
  known = dict(zip((*constvars, *invars), (*consts, *operands), strict=True))

  def read(v):
    return v.val if isinstance(v, jex.Literal) else known[v]

  for eqn in eqns:
    results = bind(eqn, [read(v) for v in eqn.invars])
    known.update(zip(eqn.outvars, results, strict=True))
  return [read(v) for v in outvars]


def body(eqn: jex.JaxprEqn) -> Any | None:
  """Returns the jaxpr that an equation calls once; None where it calls none."""
  if eqn.primitive.name not in _CALLS:
    return None
  found = eqn.params.get('jaxpr', eqn.params.get('call_jaxpr'))
  return found if found is not None else eqn.params.get('fun_jaxpr')


def has_own_derivative(eqn: jex.JaxprEqn) -> bool:
  """Whether an equation calls a function with a derivative of its own."""
  return eqn.primitive.name in _OWN_DERIVATIVE


def has_own_tangent(eqn: jex.JaxprEqn) -> bool:
  """Whether that derivative is one that forward mode knows as well."""
  return eqn.primitive.name == 'custom_jvp_call'


def is_affine(eqn: jex.JaxprEqn, active: Sequence[bool]) -> bool:
  """Whether all results are affine in the active operands together."""
  inner = body(eqn)
  if inner is not None:
    return _all_of(inner, active, is_affine)
  name = eqn.primitive.name
  where = [i for i, is_active in enumerate(active) if is_active]
  if name in _LINEAR:
    return True
  if name in _LINEAR_IN:
    return set(where) <= set(_LINEAR_IN[name])
  if name in _BILINEAR:
    return len(where) == 1
  return _is_affine_elementwise(eqn, where)


def _is_affine_elementwise(eqn, where):
  name = eqn.primitive.name
  if name == 'convert_element_type':
    return all(is_float(v) for v in (*eqn.invars, *eqn.outvars))
  if name in ('div', 'mul'):
    return where == [0] or (name == 'mul' and where == [1])
  if name == 'select_n':
    return 0 not in where
  return name in _PASSING or name in _SUMS


def is_float(variable):
  """Whether a variable holds numbers that a derivative exists of."""
  return jnp.issubdtype(variable.aval.dtype, jnp.inexact)


def is_elementwise(eqn: jex.JaxprEqn, active: Sequence[bool]) -> bool:
  """Whether each number of a result depends on one of each active operand.

  A call has one active operand, and its results have the shape of that.
  """
  inner = body(eqn)
  shape = eqn.outvars[0].aval.shape
  own = [v for v, on in zip(eqn.invars, active, strict=True) if on]
  if inner is not None:
    same = all(v.aval.shape == shape for v in (*own, *eqn.outvars))
    return same and len(own) == 1 and _all_of(inner, active, is_elementwise)
  names = _PASSING, _SUMS, _NONLINEAR, _BY_OPERANDS
  return any(eqn.primitive.name in known for known in names)


def is_bilinear(eqn: jex.JaxprEqn) -> bool:
  """Whether an equation is a product of its operands."""
  return eqn.primitive.name in _BILINEAR


def extremum(eqn: jex.JaxprEqn, active: Sequence[bool]) -> str | None:
  """Returns 'maximum' where the results are convex maxima of affine functions.

  'minimum' where they are concave minima; None otherwise.
  """
  for kind, known in (('maximum', _MAXIMA), ('minimum', _MINIMA)):
    if _is_extremum(eqn, active, known):
      return kind
  return None


def _is_extremum(eqn, active, known):
  inner = body(eqn)
  if inner is None:
    return eqn.primitive.name in known

  def passes(step, active):
    return (
      _moves_only(step, active) or _is_extremum(step, active, known)
    )

  return _all_of(inner, active, passes)


def _moves_only(eqn, active):
  """Whether numbers are only moved, or added to constants."""
  inner = body(eqn)
  if inner is not None:
    return _all_of(inner, active, _moves_only)
  moves = _LINEAR - {'reduce_sum', 'reduce_window_sum', 'cumsum', 'fft'}
  return eqn.primitive.name in moves or eqn.primitive.name in _LINEAR_IN


def _all_of(
  jaxpr: Any,
  active: Sequence[bool],
  test: Callable[[jex.JaxprEqn, Sequence[bool]], bool],
) -> bool:
  """Whether all equations with active operands pass a test."""
  passed = []

  def visit(eqn, own):
    passed.append(test(eqn, own))

  _walk(jaxpr, active, visit)
  return all(passed)


def active_results(jaxpr: Any, active: Sequence[bool]) -> list[bool]:
  """Returns which results of a jaxpr depend on the active inputs."""
  return _walk(jaxpr, active, lambda eqn, own: None)


def _walk(jaxpr, active, visit):
  _, _, invars, eqns, outvars = parts(jaxpr)
  known = {v for v, is_active in zip(invars, active, strict=True) if is_active}

  def is_active(v):
    return not isinstance(v, jex.Literal) and v in known

  for eqn in eqns:
    own = [is_active(v) for v in eqn.invars]
    if any(own):
      visit(eqn, own)
      known.update(eqn.outvars)
  return [is_active(v) for v in outvars]
