import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsens.models import layers


def test_relu_keeps_nan_and_has_no_gradient_at_zero():
  x = jnp.array([-1.0, 0.0, 2.0, jnp.nan])
  np.testing.assert_array_equal(layers.relu(x), [0, 0, 2, np.nan])
  gradient = jax.grad(lambda x: layers.relu(x).sum())(x[:3])
  np.testing.assert_array_equal(gradient, [0, 0, 1])


@pytest.mark.parametrize('name, peer', [
  ('relu', 'relu'), ('relu6', 'relu6'), ('hard_sigmoid', 'hardsigmoid'),
  ('hard_swish', 'hardswish'), ('silu', 'silu'),
])  # fmt: skip
def test_activations_equal_torchs_and_keep_nan(name, peer):
  torch = pytest.importorskip('torch', reason='torch is the oracle here')
  x = np.float32([-7, -3, -1, 0, 0.5, 2.9, 3, 6, 7, np.nan])
  expected = getattr(torch.nn.functional, peer)(torch.from_numpy(x)).numpy()
  np.testing.assert_allclose(getattr(layers, name)(x), expected, atol=1e-6)


@pytest.mark.parametrize('drop', [layers.dropout, layers.stochastic_depth])
def test_dropping_keeps_the_mean_and_is_off_in_inference(drop):
  x = jnp.ones((4000, 2, 2, 1))
  key = jax.random.key(0)
  assert drop(x, 0.3, train=False, key=None) is x
  y = drop(x, 0.3, train=True, key=key)
  # Five standard errors of 4,000 independent draws.
  np.testing.assert_allclose(y.mean(), 1, atol=5 * (0.3 / 0.7 / 4000) ** 0.5)
  np.testing.assert_allclose(np.unique(y), [0, 1 / 0.7], rtol=1e-6)
  with pytest.raises(ValueError, match='needs a key'):
    drop(x, 0.3, train=True, key=None)


def test_stochastic_depth_drops_whole_images():
  y = layers.stochastic_depth(
    jnp.ones((64, 3, 3, 2)), 0.5, train=True, key=jax.random.key(1)
  )
  assert all(np.unique(image).size == 1 for image in y)
  assert np.unique(y).size == 2
