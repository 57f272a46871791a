"""Secant lines in place of nonlinear steps, exact between two points.

Lanes are (z, z0), a point and its reference. Every step keeps its value; its
derivative by z becomes that of a line which is exact from z0 to z:

    f(z) - f(z0) = m (z - z0)                          functions of numbers
    u v - u0 v0 = (v + v0)/2 (u - u0) + (u + u0)/2 (v - v0)        products
    y - y0 = s1 P_x (z - z0) + s2 P_0 (z - z0)                       maxima

with P_x, P_0 the picks of the maximum at z and at z0, and
s1 = (max(y, y0) - y0) / P_x (z - z0), s2 = (y - max(y, y0)) / P_0 (z - z0),
both in [0, 1] since a maximum is convex. So x - x0 times the gradient of the
whole sums to the difference of the results, however steps are composed.

References:
  Shrikumar et al., Learning important features through propagating activation
  differences, 2017, sec. 3.2 and 3.5.1.
"""

from collections.abc import Sequence
import functools

import jax
import jax.numpy as jnp

from jaxsens.attribution import interpreter

# Rounding errors of the value within which a tangent is the secant.
_ROUNDINGS = 8


class Secants:
  """The rules of the secant lines, see `interpreter.Rules`."""

  def elementwise(
    self, function: interpreter.Function, z: interpreter.Lanes
  ) -> interpreter.Lanes:
    """Returns f(z) and f(z0); the tangent where it is exact to rounding.

    Taken so the slope is no quotient of two rounding errors: where z is near
    z0, and where both are on one straight piece of the function.
    """
    pure, captured = interpreter.hoisted(function, z[0])

    @jax.custom_jvp
    def step(captured, z, z0, y0):
      del z0, y0
      return pure(captured, z)

    @step.defjvp
    def _(primals, tangents):
      captured, z, z0, y0 = primals
      y, slope = jax.jvp(
        lambda z: pure(captured, z), (z,), (jnp.ones_like(z),)
      )
      dz, dy = z - z0, y - y0
      size = jnp.maximum(jnp.abs(y), jnp.abs(y0))
      near = jnp.abs(dy - slope * dz) <= _ROUNDINGS * _epsilon(z, y) * size
      secant = dy / jnp.where(dz == 0, 1, dz)
      line = jnp.where(near, slope, secant) * tangents[1]
      return y, line.astype(y.dtype)

    z, z0 = z
    y0 = function(z0)
    return step(captured, z, z0, y0), y0

  def product(
    self,
    operation: interpreter.Operation,
    u: interpreter.Lanes,
    v: interpreter.Lanes,
  ) -> interpreter.Lanes:
    """Returns operation(u, v) and operation(u0, v0)."""
    pure, captured = interpreter.hoisted(operation, u[0], v[0])

    @jax.custom_jvp
    def step(captured, u, v, u0, v0):
      del u0, v0
      return pure(captured, u, v)

    @step.defjvp
    def _(primals, tangents):
      captured, u, v, u0, v0 = primals
      _, du, dv, *_ = tangents
      by_u = pure(captured, du, (v + v0) / 2)
      by_v = pure(captured, (u + u0) / 2, dv)
      return pure(captured, u, v), by_u + by_v

    return step(captured, u[0], v[0], u[1], v[1]), operation(u[1], v[1])

  def quotient(
    self, u: interpreter.Lanes, v: interpreter.Lanes
  ) -> interpreter.Lanes:
    """Returns u / v and u0 / v0, the product with the secant of 1 / v."""
    @jax.custom_jvp
    def step(u, v, u0, v0):
      del u0, v0
      return u / v

    @step.defjvp
    def _(primals, tangents):
      u, v, u0, v0 = primals
      du, dv, *_ = tangents
      by_u = du * (1 / v + 1 / v0) / 2
      return u / v, by_u - (u + u0) / 2 * dv / (v * v0)

    return step(u[0], v[0], u[1], v[1]), u[1] / v[1]

  def extremum(
    self,
    kind: str,
    operation: interpreter.Operation,
    operands: Sequence[interpreter.Lanes],
  ) -> interpreter.Lanes:
    """Returns the maxima or minima of the operands at both points."""
    larger = jnp.maximum if kind == 'maximum' else jnp.minimum

    at, reference = zip(*operands, strict=True)
    pure, captured = interpreter.hoisted(operation, *at)

    @jax.custom_jvp
    def step(captured, at, reference, y0):
      del reference, y0
      return pure(captured, *at)

    @step.defjvp
    def _(primals, tangents):
      captured, at, reference, y0 = primals
      operation = functools.partial(pure, captured)
      y, pick = jax.linearize(operation, *at)
      _, pick0 = jax.linearize(operation, *reference)
      # Padding by minus infinity differs by nothing.
      moves = [
        jnp.where(one == other, 0, one - other)
        for one, other in zip(at, reference, strict=True)
      ]
      moved, moved0 = pick(*moves), pick0(*moves)
      outer = larger(y, y0)
      rises, falls = outer - y0, y - outer
      # Where nothing moves the derivative is that of the maximum itself.
      still = (y == y0) & (moved == 0)
      share = jnp.where(still, 1, _share(rises, moved))
      line = share * pick(*tangents[1])
      return y, line + _share(falls, moved0) * pick0(*tangents[1])

    y0 = operation(*reference)
    return step(captured, at, reference, y0), y0


def _share(change, move):
  return jnp.where(move == 0, 0, change / jnp.where(move == 0, 1, move))


def _epsilon(*arrays):
  return max(float(jnp.finfo(x.dtype).eps) for x in arrays)
