"""Random fields against jax.random, and moments within five standard errors."""

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from jaxsens.perturbations import random_fields


class RandomFieldsTest(parameterized.TestCase):

  @parameterized.parameters((1,), (7,), (5, 7), (3, 3, 3), (300, 11, 3))
  def test_bits_are_those_of_jax_random(self, *shape):
    key = jax.random.key(3)
    np.testing.assert_array_equal(
      random_fields.bits(key, shape), jax.random.bits(key, shape)
    )

  def test_pairs_are_the_two_halves_of_the_bits(self):
    key, shape = jax.random.key(4), (9, 8)
    bits = np.asarray(jax.random.bits(key, shape)).astype(np.int64)
    pair = random_fields.uniform_pairs(key, shape, jnp.float32)
    for actual, half in zip(pair, np.divmod(bits, 2**16), strict=True):
      np.testing.assert_array_equal(actual, (2 * half + 1) / 2**16 - 1)

  def test_another_kind_of_key_draws_by_jax_random(self):
    key = jax.random.key(3, impl='rbg')
    np.testing.assert_array_equal(
      random_fields.bits(key, (4, 5)), jax.random.bits(key, (4, 5))
    )

  def test_fields_of_a_batch_are_those_of_its_keys(self):
    keys = jax.random.split(jax.random.key(0), 3)
    draw = lambda key: random_fields.normal(key, (6, 5), jnp.float32)
    np.testing.assert_array_equal(
      jax.jit(jax.vmap(draw))(keys), np.stack([draw(key) for key in keys])
    )

  def test_numbers_are_the_same_in_every_precision(self):
    key = jax.random.key(1)
    with jax.enable_x64(True):
      wide = random_fields.normal(key, (40,), jnp.float64)
      self.assertEqual(wide.dtype, jnp.float64)
      np.testing.assert_array_equal(
        wide, random_fields.normal(key, (40,), jnp.float32)
      )

  def test_uniform_is_uniform_and_never_an_end(self):
    field = np.asarray(
      random_fields.uniform(jax.random.key(2), (400, 400), jnp.float32)
    )
    self.assertGreater(field.min(), 0)
    self.assertLess(field.max(), 1)
    self.assertGreater(stats.kstest(field.ravel(), 'uniform').pvalue, 1e-6)

  def test_ends_of_the_bits_stay_inside_the_interval(self):
    for bits, expected in ((0, 2**-24), (2**32 - 1, 1 - 2**-24)):
      with absltest.mock.patch.object(
        random_fields, 'bits',
        lambda key, shape, b=bits: jnp.full(shape, b, jnp.uint32),
      ):
        field = random_fields.uniform(jax.random.key(0), (1,), jnp.float32)
      self.assertEqual(float(field[0]), expected)

  def test_normal_has_the_quantiles_of_its_uniform_numbers(self):
    key = jax.random.key(4)
    share = random_fields.uniform(key, (2000,), jnp.float32)
    np.testing.assert_allclose(
      random_fields.normal(key, (2000,), jnp.float32),
      stats.norm.ppf(np.asarray(share, float)), rtol=1e-5, atol=1e-6,
    )


if __name__ == '__main__':
  absltest.main()
