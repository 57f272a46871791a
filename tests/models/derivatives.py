"""Derivatives of a function of two arrays in every mode, to compare by."""

import jax
import jax.numpy as jnp
import numpy as np


def assert_same(ours, expected, arguments, tangents, atol):
  """Compares results, gradients, tangents, Hessians and mapped gradients.

  Args:
    ours: (x (B, ...), y) -> an array.
    expected: the same function in another form.
    arguments: (x, y).
    tangents: of their shapes.
    atol: absolute tolerance, in the largest number of what is compared.
  """
  x, y = arguments

  def everything(f):
    score = lambda *x: jnp.sum(jnp.sin(f(*x)))
    gradients = jax.grad(score, (0, 1))
    some = lambda x: jax.grad(score)(x, y)
    return {
      'result': f(x, y),
      'of both': gradients(x, y),
      'of the first': some(x),
      'of the second': jax.grad(score, 1)(x, y),
      'forward': jax.jvp(f, arguments, tangents),
      'hessian': jax.jvp(gradients, arguments, tangents),
      'mapped': jax.vmap(jax.grad(score), (0, None))(x[:, None], y),
      'in a loop': jax.lax.map(some, x[:, None]),
    }

  actual, wanted = jax.jit(
    lambda: (everything(ours), everything(expected))
  )()
  for name, value in wanted.items():
    jax.tree.map(
      lambda a, e, name=name: np.testing.assert_allclose(
        a, e, atol=atol * np.abs(e).max(), err_msg=name
      ),
      actual[name], value,
    )
