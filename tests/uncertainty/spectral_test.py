from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsens.models import layers
from jaxsens.models import registry
from jaxsens.uncertainty import spectral


def _dense(layer, kernel):
  """The matrix of a linear map, from its action on unit images."""
  size = int(np.prod(layer.input_shape))
  columns = jax.vmap(lambda x: layer(kernel, x.reshape(layer.input_shape)))(
    jnp.eye(size)
  )
  return np.asarray(columns).reshape(size, -1).T


class _Net(nnx.Module):
  """A strided, a depthwise and a dense layer."""

  def __init__(self, rngs):
    options = dict(dtype='float32', rngs=rngs)
    self.conv1 = layers.Convolution(2, 4, 3, stride=2, bias=True, **options)
    self.bn1 = layers.BatchNorm(4)
    self.conv2 = layers.Convolution(4, 4, 3, depthwise=True, **options)
    self.fc = layers.linear(4, 3, rngs=rngs)

  def __call__(self, x, *, train=False, key=None):
    del key
    x = layers.relu(self.bn1(self.conv1(x), train=train))
    return self.fc(layers.mean_pool(self.conv2(x)))


_SHAPE = (6, 6, 2)


def _parts(scale=1.0):
  model = _Net(nnx.Rngs(0))
  _, params, _ = nnx.split(model, nnx.Param, ...)
  return model, jax.tree.map(lambda x: scale * x, params)


def test_layers_are_found_with_the_sizes_that_they_meet():
  model, _ = _parts()
  found = spectral.find_layers(model, _SHAPE)
  assert [(x.name, x.input_shape, x.stride) for x in found] == [
    ('conv1', (6, 6, 2), 2), ('conv2', (3, 3, 4), 1), ('fc', (4,), 1)
  ]
  assert [
    x.name for x in spectral.find_layers(model, _SHAPE, exclude=('fc',))
  ] == ['conv1', 'conv2']
  with pytest.raises(ValueError, match='head'):
    spectral.find_layers(model, _SHAPE, exclude=('head',))


def test_norms_equal_singular_values_of_the_dense_maps():
  model, params = _parts()
  found = spectral.find_layers(model, _SHAPE)
  vectors = spectral.initial(jax.random.key(0), found)
  norms, _ = spectral.norms(params, found, vectors, num_steps=300)
  expected = [
    np.linalg.norm(_dense(layer, getattr(model, layer.name).kernel[...]), 2)
    for layer in found
  ]
  np.testing.assert_allclose(norms, expected, rtol=1e-4)


def test_estimates_rise_to_the_norm_and_go_on_where_they_stopped():
  model, params = _parts()
  found = spectral.find_layers(model, _SHAPE)
  vectors = spectral.initial(jax.random.key(0), found)
  exact, _ = spectral.norms(params, found, vectors, num_steps=300)
  estimates = []
  for _ in range(6):
    norms, vectors = spectral.norms(params, found, vectors)
    estimates.append(norms)
  assert (np.diff(estimates, axis=0) > -1e-5).all()
  assert (np.array(estimates) <= np.array(exact) * (1 + 1e-5)).all()


@pytest.mark.parametrize('coefficient', [0.5, 3.0])
def test_normalised_layers_have_at_most_the_norm_and_smaller_ones_stay(
  coefficient
):
  model, params = _parts(scale=2.0)
  found = spectral.find_layers(model, _SHAPE)
  vectors = spectral.initial(jax.random.key(0), found)
  before, vectors = spectral.norms(params, found, vectors, num_steps=300)
  after, _ = jax.jit(
    lambda p, v: spectral.normalise(p, found, v, coefficient=coefficient)
  )(params, vectors)
  norms, _ = spectral.norms(after, found, vectors, num_steps=300)
  np.testing.assert_allclose(
    norms, np.minimum(before, coefficient), rtol=1e-3
  )
  assert (np.array(before) > 0.5).all()  # so that something is to do
  # Biases and batch norms are no part of it.
  for name in ('bias',):
    np.testing.assert_array_equal(
      after['conv1'][name].get_value(), params['conv1'][name].get_value()
    )
  np.testing.assert_array_equal(
    after['bn1']['scale'].get_value(), params['bn1']['scale'].get_value()
  )
  nnx.update(model, after)
  assert np.isfinite(model(jnp.ones((1, *_SHAPE)))).all()


def test_projection_keeps_the_norms_during_optax_updates():
  model, _ = _parts()
  graphdef, params, rest = nnx.split(model, nnx.Param, ...)
  found = spectral.find_layers(model, _SHAPE, exclude=('fc',))
  optimizer = optax.chain(
    optax.sgd(0.1), spectral.projection(jax.random.key(0), found, 0.8)
  )
  images = jax.random.normal(jax.random.key(1), (8, *_SHAPE))

  def loss(params):
    return -jnp.mean(nnx.merge(graphdef, params, rest)(images)[:, 0])

  @jax.jit
  def step(params, state):
    updates, state = optimizer.update(jax.grad(loss)(params), state, params)
    return optax.apply_updates(params, updates), state

  state = optimizer.init(params)
  first = np.linalg.norm(params['fc']['kernel'].get_value(), 2)
  for _ in range(15):
    params, state = step(params, state)
  vectors = spectral.initial(jax.random.key(2), found)
  norms, _ = spectral.norms(params, found, vectors, num_steps=300)
  assert (np.array(norms) < 0.8 * 1.02).all()
  # The head, which is left out, has grown with the steps.
  assert np.linalg.norm(params['fc']['kernel'].get_value(), 2) > 1.1 * first


def test_zero_kernels_stay_zero():
  model, params = _parts(scale=0.0)
  found = spectral.find_layers(model, _SHAPE)
  vectors = spectral.initial(jax.random.key(0), found)
  after, vectors = spectral.normalise(params, found, vectors)
  assert all(np.isfinite(x).all() for x in jax.tree.leaves((after, vectors)))


def test_layers_of_a_network_of_the_registry_are_all_found():
  model = nnx.eval_shape(
    lambda: registry.create('resnet18', jax.random.key(0), 3, dropout=0.5)
  )
  found = spectral.find_layers(model, (64, 64, 3), exclude=('fc',))
  # torchvision's ResNet18: 17 convolutions and 3 shortcuts.
  assert len(found) == 20 and found[0].input_shape == (64, 64, 3)
  assert len(spectral.find_layers(model, (64, 64, 3))) == 21


@pytest.mark.parametrize('call, message', [
  (lambda p, f, v: spectral.normalise(p, f, v, coefficient=0), 'coefficient'),
  (lambda p, f, v: spectral.norms(p, f, v, num_steps=0), 'num_steps'),
  (lambda p, f, v: spectral.norms(p['bn1'], f, v), 'no kernels'),
])
def test_bad_input_is_named(call, message):
  model, params = _parts()
  found = spectral.find_layers(model, _SHAPE)
  with pytest.raises(ValueError, match=message):
    call(params, found, spectral.initial(jax.random.key(0), found))
