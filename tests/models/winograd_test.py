"""Tests of 3x3 convolutions by tiles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsens.models import winograd


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
