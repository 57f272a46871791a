"""Layers kept from stretching: kernels divided down to a spectral norm.

    kernel <- kernel / max(1, sigma / c)

sigma is the largest singular value of the layer as a map of images of the size
that it meets, stride and zero padding included, not that of the kernel written
as a matrix. It comes from power iteration, whose vectors are handed on from
update to update; one step an update follows the slow change of the weights. An
estimate is never above sigma.

Batch norms are left as they are, and so a network is not 1-Lipschitz. The use
is that distances of images survive in the features, for `gaussian_density` and
`sngp`.

References:
  Miyato, Kataoka, Koyama, Yoshida, Spectral normalization for generative
  adversarial networks, 2018, algorithm 1.
  Gouk, Frank, Pfahringer, Cree, Regularisation of neural networks by enforcing
  Lipschitz continuity, 2021, section 3.2, for convolutions and the bound c.
  Liu et al., Simple and principled uncertainty estimation with deterministic
  deep learning via distance awareness, 2020, eq. 10.
"""

from collections.abc import Sequence
import dataclasses

from flax import nnx
import jax
import jax.numpy as jnp
import optax

from jaxsens.models import convolutions
from jaxsens.models import inference

Vectors = tuple[jax.Array, ...]


@dataclasses.dataclass(frozen=True)
class Layer:
  """A linear map of a network.

  Attributes:
    name: attribute path joined by dots.
    input_shape: (H, W, C) of a convolution, (D,) of a dense layer.
    stride, padding: of a convolution, see `convolutions.convolve`.
  """

  name: str
  input_shape: tuple[int, ...]
  stride: int = 1
  padding: str | int = 'torch'

  def __call__(self, kernel: jax.Array, x: jax.Array) -> jax.Array:
    """Returns the map of x, shaped as its input, without the bias."""
    if len(self.input_shape) == 1:
      return jnp.matmul(x, kernel, precision=jax.lax.Precision.HIGHEST)
    return convolutions.convolve(
      x[None], kernel, stride=self.stride, padding=self.padding
    )[0]


def find_layers(
  model: nnx.Module,
  image_shape: Sequence[int],
  *,
  exclude: Sequence[str] = (),
) -> tuple[Layer, ...]:
  """Returns the convolutions and dense layers of a network.

  Args:
    model: network; may be abstract.
    image_shape: (H, W, C) of the images that it is trained on.
    exclude: names to leave out, as that of the head (`registry.find(name).head`
      and, with dropout, what lies below it).

  Raises:
    ValueError: a name to exclude that the network does not have.
  """
  found = {}
  for call in inference.convolution_calls(model, image_shape):
    found.setdefault(call.name, Layer(
      call.name, tuple(call.input_shape), call.layer.stride,
      call.layer.padding,
    ))
  for path, module in nnx.iter_modules(model):
    if isinstance(module, nnx.Linear):
      name = '.'.join(map(str, path))
      found[name] = Layer(name, (module.in_features,))
  below = lambda name, top: name == top or name.startswith(f'{top}.')
  unknown = [
    top for top in exclude if not any(below(name, top) for name in found)
  ]
  if unknown:
    raise ValueError(
      f'exclude: no layers {unknown}, the network has {sorted(found)}.'
    )
  return tuple(
    layer for name, layer in found.items()
    if not any(below(name, top) for top in exclude)
  )


def initial(key: jax.Array, layers: Sequence[Layer]) -> Vectors:
  """Returns random unit vectors to start the iteration from."""
  keys = jax.random.split(key, max(len(layers), 1))
  return tuple(
    _unit(jax.random.normal(k, layer.input_shape, jnp.float32))
    for k, layer in zip(keys, layers, strict=False)
  )


def norms(
  params: nnx.State,
  layers: Sequence[Layer],
  vectors: Vectors,
  *,
  num_steps: int = 1,
) -> tuple[jax.Array, Vectors]:
  """Returns estimates of the spectral norms, and the vectors that attain them.

  Args:
    params: parameters of the network, as `nnx.split` gives them.
    layers: L maps.
    vectors: of `initial` or of the update before.
    num_steps: of the power iteration.

  Returns:
    Norms (L,), each at most the true one, and unit vectors.

  Raises:
    ValueError: a layer whose kernel is not among the parameters, or no steps.
  """
  if num_steps < 1:
    raise ValueError(f'num_steps must be at least 1, got {num_steps}.')
  kernels = _kernels(params, layers)
  found = [
    _iterate(layer, kernels[layer.name], vector, num_steps)
    for layer, vector in zip(layers, vectors, strict=True)
  ]
  return (
    jnp.stack([norm for norm, _ in found]), tuple(v for _, v in found)
  )


def normalise(
  params: nnx.State,
  layers: Sequence[Layer],
  vectors: Vectors,
  *,
  coefficient: float = 3.0,
  num_steps: int = 1,
) -> tuple[nnx.State, Vectors]:
  """Returns parameters whose layers stretch by at most about `coefficient`.

  Pure; to be called between updates, or after the update inside a step.

  Args:
    params: parameters of the network.
    layers, vectors, num_steps: see `norms`.
    coefficient: c, positive; smaller norms stay as they are.

  Returns:
    The parameters and the vectors for the next call.

  Raises:
    ValueError: as `norms`, or another coefficient.
  """
  if not coefficient > 0:
    raise ValueError(f'coefficient must be positive, got {coefficient}.')
  sigmas, vectors = norms(params, layers, vectors, num_steps=num_steps)
  factors = {
    f'{layer.name}.kernel': 1 / jnp.maximum(1, sigma / coefficient)
    for layer, sigma in zip(layers, sigmas, strict=True)
  }
  leaves = []
  for path, variable in nnx.to_flat_state(params):
    factor = factors.get('.'.join(map(str, path)))
    if factor is not None:
      value = variable.get_value()
      variable = variable.replace(value * factor.astype(value.dtype))
    leaves.append((path, variable))
  return nnx.from_flat_state(leaves), vectors


def projection(
  key: jax.Array,
  layers: Sequence[Layer],
  coefficient: float = 3.0,
  *,
  num_steps: int = 1,
) -> optax.GradientTransformation:
  """Returns `normalise` as the last link of a chain of optax.

  The updates that it passes on lead to the normalised parameters. Its state,
  the vectors, is part of that of the optimiser and is saved with it.

  Args:
    key: of the first vectors.
    layers, coefficient, num_steps: see `normalise`.
  """

  def init(params):
    vectors = initial(key, layers)
    return norms(params, layers, vectors, num_steps=10)[1]

  def update(updates, state, params=None):
    moved = optax.apply_updates(params, updates)
    projected, state = normalise(
      moved, layers, state, coefficient=coefficient, num_steps=num_steps
    )
    return jax.tree.map(jnp.subtract, projected, params), state

  return optax.GradientTransformation(init, update)


def _iterate(layer, kernel, vector, num_steps):
  forward = lambda x: layer(kernel, x)
  _, back = jax.vjp(forward, vector)

  def body(_, vector):
    (pulled,) = back(forward(vector))
    return _unit(pulled)

  vector = jax.lax.fori_loop(0, num_steps, body, vector)
  vector = jax.lax.stop_gradient(vector)
  return jnp.linalg.norm(forward(vector).ravel()), vector


def _unit(x):
  # A kernel of zeros maps everything to zero; its norm stays 0, not NaN.
  return x / jnp.maximum(jnp.linalg.norm(x.ravel()), 1e-30)


def _kernels(params, layers):
  arrays = {
    '.'.join(map(str, path)): variable.get_value()
    for path, variable in nnx.to_flat_state(params)
  }
  missing = [x.name for x in layers if f'{x.name}.kernel' not in arrays]
  if missing:
    raise ValueError(
      f'layers: no kernels of {missing} among {len(arrays)} parameters.'
    )
  return {layer.name: arrays[f'{layer.name}.kernel'] for layer in layers}
