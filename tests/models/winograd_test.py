"""Tests of 3x3 convolutions by tiles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsens.models import winograd
from tests.models import derivatives


@pytest.mark.parametrize('height, width', [(1, 2), (4, 8), (7, 7), (14, 9)])
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.float64])
def test_convolution_by_tiles_and_its_gradient_equal_xlas(
  height, width, dtype
):
  with jax.enable_x64(dtype == jnp.float64):
    rng = np.random.default_rng(2)
    images = jnp.asarray(rng.normal(size=(2, height, width, 8)), dtype)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 8, 5)), dtype)

    def xla(images):
      return jax.lax.conv_general_dilated(
        images, kernel, (1, 1), ((1, 1), (1, 1)),
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
        precision=jax.lax.Precision.HIGHEST,
      )

    @jax.jit
    def ours(images):
      tiled = winograd.tile_kernel(kernel)
      return winograd.convolve_tiles(images, tiled)

    atol = 1e-3 if dtype == jnp.float32 else 1e-11
    assert ours(images).dtype == dtype
    np.testing.assert_allclose(ours(images), xla(images), atol=atol)
    gradients = [
      jax.grad(lambda x, f=f: jnp.sum(jnp.sin(f(x))))(images)
      for f in (ours, xla)
    ]
    np.testing.assert_allclose(*gradients, atol=10 * atol)


def test_products_of_few_rows_have_the_same_derivatives_in_every_mode():
  rng = np.random.default_rng(5)
  shapes = (3, 36, 40), (36, 40, 30)
  arguments, tangents = (
    tuple(jnp.asarray(rng.normal(size=s) / 6, jnp.float32) for s in shapes)
    for _ in range(2)
  )

  def by_rows(product):
    return lambda x, y: product(x.swapaxes(0, 1), y).swapaxes(0, 1)

  derivatives.assert_same(
    by_rows(winograd._multiply_few), by_rows(winograd._multiply), arguments,
    tangents, 1e-5,
  )


@pytest.mark.parametrize('batch, few', [(1, True), (33, False)])
def test_few_rows_of_large_kernels_are_multiplied_by_their_own_form(batch, few):
  images, kernel = jnp.zeros((batch, 4, 4, 256)), jnp.zeros((36, 256, 256))
  text = str(jax.make_jaxpr(winograd.convolve_tiles)(images, kernel))
  assert ('_multiply_few' in text) == few
