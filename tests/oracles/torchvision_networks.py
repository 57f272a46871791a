"""Networks of torchvision with the same weights as ours, in both modes.

The weights are random: kernels of variance 2 / fan-in, so that signals neither
vanish nor grow, and running moments away from their initial values.
"""

import functools

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from jaxsens.models import registry
from jaxsens.models import states
from jaxsens.weights import convert
from tests.oracles import torchvision_ops

NUM_CLASSES = 7

# Programs that run once: making them faster costs more than it gains.
_ONCE = {'xla_backend_optimization_level': 0}


def network(name: str, **options) -> nnx.Module:
  """Returns a network of ours with random weights and running moments."""
  make = functools.partial(
    registry.find(name).make, num_classes=NUM_CLASSES, **options
  )
  abstract = nnx.eval_shape(lambda: make(jax.random.key(0)))
  rng = np.random.default_rng(5)
  arrays = {
    path: _draw(rng, path, x.shape)
    for path, x in states.flatten(abstract).items()
  }
  return states.replace(abstract, arrays)


def _draw(rng, path, shape):
  if path.endswith('kernel'):
    return rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[:-1]))
  if path.endswith(('scale', 'var')):
    return rng.uniform(0.5, 1.5, shape)
  return rng.normal(0, 0.1, shape)


def peer(
  name: str, model: nnx.Module, in_channels: int = 3, stride: int = 2
):
  """Returns torchvision's network with the weights of ours, without dropout.

  Args:
    name: torchvision's name of it.
    model: ours.
    in_channels: channels of the images.
    stride: step of the first convolution.
  """
  torchvision = torchvision_ops.import_torchvision()
  import torch

  made = getattr(torchvision.models, name)(num_classes=NUM_CLASSES)
  stem = made.features[0][0]
  if (in_channels, stride) != (3, 2):
    made.features[0][0] = torch.nn.Conv2d(
      in_channels, stem.out_channels, 3, stride, 1, bias=False
    )
  made.load_state_dict({
    key: torch.from_numpy(array)
    for key, array in convert.to_torch_names(model).items()
  })
  for module in made.modules():
    if isinstance(module, (torch.nn.Dropout, torchvision.ops.StochasticDepth)):
      module.p = 0.0
  return made.eval()


def peer_logits(made, images: np.ndarray) -> np.ndarray:
  """Returns the peer's logits (B, K) of images (B, H, W, C)."""
  import torch

  with torch.no_grad():
    return made(torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy()


@functools.partial(jax.jit, compiler_options=_ONCE)
def logits(model: nnx.Module, images: jax.Array) -> jax.Array:
  """Returns the logits (B, K) of ours."""
  return model(images)


def step(
  model: nnx.Module, images: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
  """Returns what one training step of ours has, by torch's names.

  Args:
    model: without dropout and stochastic depth.
    images: (B, H, W, C).
    weights: (B, K); the loss is the sum of weights x logits.

  Returns:
    'logits'; 'images' and each parameter: the gradient of the loss; each
    running moment: its value after the step.
  """
  graphdef, params, rest = nnx.split(model, nnx.Param, ...)

  @functools.partial(jax.jit, compiler_options=_ONCE)
  def run(params, rest, images):
    def loss(params, images):
      copy = nnx.merge(graphdef, params, rest, copy=True)
      logits = copy(images, train=True)
      return jnp.sum(weights * logits), (logits, nnx.state(copy, nnx.BatchStat))

    return jax.grad(loss, (0, 1), has_aux=True)(params, images)

  (by_params, by_images), (logits, moments) = run(params, rest, images)
  gradients = nnx.merge(graphdef, by_params, moments)
  return {
    **convert.to_torch_names(gradients),
    'logits': np.asarray(logits),
    'images': np.asarray(by_images),
  }


def peer_step(
  made, images: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
  """Returns what `step` returns, of the peer."""
  import torch

  made.train()
  inputs = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
  inputs.requires_grad_()
  logits = made(inputs)
  (logits * torch.from_numpy(weights)).sum().backward()
  found = {key: x.grad.numpy() for key, x in made.named_parameters()}
  found |= {key: x.numpy() for key, x in made.named_buffers()}
  found['logits'] = logits.detach().numpy()
  found['images'] = inputs.grad.numpy().transpose(0, 2, 3, 1)
  return found
