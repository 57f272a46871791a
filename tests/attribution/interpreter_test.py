"""Functions evaluated anew keep their values; what has no rule is named."""

from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsens.attribution import interpreter
from jaxsens.attribution import rectifiers
from jaxsens.attribution import secants
from jaxsens.models import convolutions
from jaxsens.models import layers

pytestmark = pytest.mark.usefixtures('quick_compiles')

_RULES = secants.Secants()


def _pair(shape=(3, 6), dtype=np.float32):
  rng = np.random.default_rng(3)
  return tuple(rng.normal(size=shape).astype(dtype) for _ in range(2))


def _sum_and_gain(function, z, z0):
  """Returns sum of contributions and gain, per row."""
  def total(z):
    y, y0 = interpreter.evaluate(_RULES, function, (z, z0))
    return y.sum(), (y, y0)

  slopes, (y, y0) = jax.jit(jax.grad(total, has_aux=True))(z)
  np.testing.assert_allclose(y, function(z), rtol=1e-12, atol=1e-14)
  np.testing.assert_allclose(y0, function(z0), rtol=1e-12, atol=1e-14)
  return np.sum((z - z0) * slopes), np.sum(y - y0)


def _affine_call(x):
  """Returns 3 x, whose own derivative says 5."""
  @jax.custom_jvp
  def call(x):
    return 3 * x

  call.defjvp(lambda primals, tangents: (call(*primals), 5 * tangents[0]))
  return call(x)


def _own_cotangent(x):
  """Returns sin(x) with a rule for reverse mode."""
  @jax.custom_vjp
  def call(x):
    return jnp.sin(x)

  call.defvjp(lambda x: (call(x), x), lambda x, g: (g * jnp.cos(x),))
  return call(x)


def _loop(x):
  def body(carry, row):
    carry = jnp.tanh(carry + row)
    return carry, carry * row

  carry, rows = jax.lax.scan(body, jnp.zeros(x.shape[1]), x)
  return rows.sum(0) + carry


def _attention(x):
  weights = jax.nn.softmax(x @ x.T / 2, -1)
  return weights @ x


def _layer_norm(x):
  centred = x - x.mean(-1, keepdims=True)
  return centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-5)


_FUNCTIONS = {
  'relu': jax.nn.relu,
  'gelu': jax.nn.gelu,
  'exact gelu': lambda x: jax.nn.gelu(x, approximate=False),
  'hard swish': layers.hard_swish,
  'written silu': lambda x: x * (1 / (1 + jnp.exp(-x))),
  'softmax': jax.nn.softmax,
  'log softmax': jax.nn.log_softmax,
  'logsumexp': lambda x: jax.nn.logsumexp(x, axis=-1),
  'layer norm': _layer_norm,
  'attention': _attention,
  'gate': lambda x: x * jax.nn.sigmoid(x.mean(-1, keepdims=True)),
  'quotient': lambda x: x[:, :3] / (3 + x[:, 3:] ** 2),
  'maximum': lambda x: jnp.maximum(x[:, :3], x[:, 3:]),
  'minimum': lambda x: jnp.minimum(x[:, :3], x[:, 3:]),
  'smallest': lambda x: x.min(-1),
  'masked largest': lambda x: jnp.where(
    np.arange(6) == 2, -jnp.inf, x).max(-1),
  'loop': _loop,
  'map': lambda x: jax.lax.map(lambda row: jnp.sin(row) * row.sum(), x),
  'map with constants': lambda x: jax.lax.map(
    lambda row: layers.relu(row * jnp.arange(6) + 0.2) * layers.silu(row), x),
  'map of gates': lambda x: jax.lax.map(
    lambda row: layers.hard_swish(row) * jax.nn.softmax(row * row.sum()), x),
  'map of pools': lambda x: jax.lax.map(
    lambda row: convolutions.max_pool(
      row.reshape(1, 2, 3, 1) * jnp.arange(3)[:, None], size=2, stride=1), x),
  'checkpoint': jax.checkpoint(lambda x: jnp.sin(x) * x.sum()),
  'own cotangent': _own_cotangent,
  'step': lambda x: (x > 0.3).astype(x.dtype) * x,
  'relu used twice': lambda x: jax.nn.relu(jax.nn.relu(x) - x.mean()),
  'split': lambda x: jnp.concatenate(jnp.split(jnp.exp(x), 2, 1)[::-1], 1),
  'taken': lambda x: jax.vmap(lambda row, i: row[i])(jnp.exp(x), jnp.arange(3)),
}


class EvaluateTest(parameterized.TestCase):
  @parameterized.named_parameters(*_FUNCTIONS.items())
  def test_contributions_sum_to_the_gain_and_values_stay(self, function):
    with jax.enable_x64(True):
      total, gain = _sum_and_gain(function, *_pair(dtype=np.float64))
    np.testing.assert_allclose(total, gain, rtol=1e-12, atol=1e-13)

  def test_pool_sums_to_the_gain(self):
    def pool(x):
      return convolutions.max_pool(x) ** 2

    with jax.enable_x64(True):
      total, gain = _sum_and_gain(pool, *_pair((2, 6, 6, 2), np.float64))
    np.testing.assert_allclose(total, gain, rtol=1e-12)

  def test_affine_call_keeps_its_own_derivative(self):
    z, z0 = _pair()
    slopes = jax.grad(
      lambda z: interpreter.evaluate(_RULES, _affine_call, (z, z0))[0].sum()
    )(z)
    np.testing.assert_array_equal(slopes, 5)

  def test_chain_of_one_array_is_one_secant(self):
    z, z0 = _pair()
    slopes = jax.grad(
      lambda z: interpreter.evaluate(_RULES, layers.hard_swish, (z, z0))[0]
      .sum()
    )(z)
    f = layers.hard_swish
    np.testing.assert_allclose(slopes, (f(z) - f(z0)) / (z - z0), rtol=2e-4)

  def test_tangent_where_the_points_are_one(self):
    z, _ = _pair()
    slopes = jax.grad(
      lambda y: interpreter.evaluate(_RULES, jnp.tanh, (y, z))[0].sum()
    )(z)
    np.testing.assert_allclose(slopes, 1 - np.tanh(z) ** 2, atol=1e-6)

  def test_product_of_two_arrays_is_symmetric(self):
    z, z0 = _pair()
    slopes = jax.grad(lambda z: interpreter.evaluate(
      _RULES, lambda x: x[:, :3] * x[:, 3:], (z, z0)
    )[0].sum())(z)
    mean = (z + z0) / 2
    expected = np.concatenate([mean[:, 3:], mean[:, :3]], 1)
    np.testing.assert_allclose(slopes, expected, rtol=1e-6)

  def test_forward_and_reverse_mode_agree(self):
    z, z0 = _pair()

    def value(z):
      return interpreter.evaluate(_RULES, _attention, (z, z0))[0].sum()

    direction = np.cos(np.arange(z.size, dtype=np.float32)).reshape(z.shape)
    _, forward = jax.jit(lambda z, v: jax.jvp(value, (z,), (v,)))(z, direction)
    np.testing.assert_allclose(
      forward, np.sum(jax.jit(jax.grad(value))(z) * direction), rtol=1e-4
    )

  @parameterized.parameters(
    ('sort', lambda x: jnp.sort(x)),
    ('argmax', lambda x: x * jnp.argmax(x, -1)[:, None]),
    ('while', lambda x: jax.lax.while_loop(
      lambda y: y.sum() < 9, lambda y: y + 1, x)),
    ('reduce_prod', lambda x: x.prod(-1)),
    ('select_n', lambda x: jnp.where(x[:, :3] > 0, x[:, 3:], 0.0)),
    ('pow', lambda x: jnp.exp(x[:, :3]) ** x[:, 3:]),
    ('gt', lambda x: (x > 0).sum(-1)),
    ('select_n', lambda x: jnp.logaddexp(x[:, :3], x[:, 3:])),
  )
  def test_step_without_a_rule_is_refused_by_name(self, name, function):
    with self.assertRaisesRegex(ValueError, name):
      interpreter.evaluate(_RULES, function, _pair())

  def test_rectifiers_in_a_loop_have_their_rule(self):
    def loop(x):
      return jax.lax.map(lambda row: layers.relu(row * jnp.arange(6.0)), x)

    z, _ = _pair()
    rules = rectifiers.Rectifiers(True)
    slopes = jax.jit(jax.grad(
      lambda z: interpreter.evaluate(rules, loop, (z,))[0].sum()
    ))(z)
    np.testing.assert_array_equal(slopes, (z > 0) * np.arange(6))

  def test_result_that_depends_on_no_image_is_the_same_in_all_lanes(self):
    found = interpreter.evaluate(_RULES, lambda x: jnp.ones(2), _pair())
    np.testing.assert_array_equal(found, np.ones((2, 2)))

  def test_extremum_in_rectifier_rules_keeps_its_derivative(self):
    (x, _), f = _pair((1, 6, 6, 2)), convolutions.max_pool
    rules = rectifiers.Rectifiers(True)
    own = jax.grad(lambda x: f(x).sum())(x)
    found = jax.grad(
      lambda x: interpreter.evaluate(rules, f, (x,))[0].sum()
    )(x)
    np.testing.assert_array_equal(found, own)
