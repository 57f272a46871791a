"""Several networks, or one with several dropout masks, that answer together.

The answers are logits (S, B, K), one per member or mask, and are read with
`scores.of_samples`.

References:
  Lakshminarayanan, Pritzel, Blundell, Simple and scalable predictive
  uncertainty estimation using deep ensembles, 2017.
  Gal and Ghahramani, Dropout as a Bayesian approximation, 2016.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools
import os
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from jaxsens.models import inference
from jaxsens.models import layers
from jaxsens.training import checkpoints


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=['state'], meta_fields=['graphdef', 'mapping'],
)
@dataclasses.dataclass(frozen=True)
class Ensemble:
  """Networks of one architecture as a single tree of arrays.

  Attributes:
    graphdef: of each member.
    state: of all, every array with a leading axis of S members.
    mapping: 'vmap' asks all at once, which is quicker where a member alone
      leaves the device idle; 'map' one after the other, in the memory of one.
  """

  graphdef: nnx.GraphDef
  state: Any
  mapping: str = 'vmap'

  def __post_init__(self):
    if self.mapping not in ('vmap', 'map'):
      raise ValueError(f"mapping must be 'vmap' or 'map', got {self.mapping!r}")

  def __len__(self) -> int:
    return len(jax.tree.leaves(self.state)[0])

  def __call__(self, images: jax.Array) -> jax.Array:
    """Returns the logits (S, B, K) of normalised images (B, H, W, C)."""
    answer = lambda state: nnx.merge(self.graphdef, state)(images)
    if self.mapping == 'vmap':
      return jax.vmap(answer)(self.state)
    return jax.lax.map(answer, self.state)

  def member(self, index: int) -> nnx.Module:
    """Returns one of the networks."""
    return nnx.merge(
      self.graphdef, jax.tree.map(lambda x: x[index], self.state)
    )


def stack(
  models: Sequence[nnx.Module], *, mapping: str = 'vmap'
) -> Ensemble:
  """Returns networks of one architecture as an ensemble.

  Args:
    models: the members, trained from different initial values.
    mapping: see `Ensemble`.

  Raises:
    ValueError: there are none, or they differ in more than their arrays.
  """
  if not models:
    raise ValueError('models must hold at least one network, got none.')
  parts = [nnx.split(model) for model in models]
  graphdef = parts[0][0]
  shapes = [jax.tree.map(jnp.shape, state) for _, state in parts]
  for i, (other, _) in enumerate(parts):
    if other != graphdef or shapes[i] != shapes[0]:
      raise ValueError(f'models: number {i} has another architecture than 0.')
  state = jax.tree.map(
    lambda *arrays: jnp.stack(arrays), *(state for _, state in parts)
  )
  return Ensemble(graphdef, state, mapping)


def restore(
  paths: Sequence[str | os.PathLike],
  model: nnx.Module,
  *,
  expected: Mapping[str, Any],
  mapping: str = 'vmap',
) -> tuple[Ensemble, tuple[checkpoints.Metadata, ...]]:
  """Returns the ensemble of checkpoints, as trainings with several seeds leave.

  Images that a member was trained on are no test of the ensemble: the splits
  must be the same, or their test sets.

  Args:
    paths: folders of the checkpoints.
    model: network of their architecture; may be abstract.
    expected: see `checkpoints.restore`; 'class_names', 'mean' and 'std' are
      compared among the members as well.
    mapping: see `Ensemble`.

  Raises:
    FileNotFoundError, ValueError: see `checkpoints.restore` and `stack`.
  """
  found = []
  for path in paths:
    same = dict(expected)
    if found:
      same |= {
        name: getattr(found[0][1], name)
        for name in ('class_names', 'mean', 'std')
      }
    found.append(checkpoints.restore(path, model, expected=same))
  return (
    stack([member for member, _ in found], mapping=mapping),
    tuple(metadata for _, metadata in found),
  )


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=['state'], meta_fields=['graphdef'],
)
@dataclasses.dataclass(frozen=True)
class Dropout:
  """A network that drops features as in training, with its running moments.

  Attributes:
    graphdef, state: of the network with folded batch norms.
  """

  graphdef: nnx.GraphDef
  state: Any

  def __call__(
    self, key: jax.Array, images: jax.Array, num_samples: int
  ) -> jax.Array:
    """Returns the logits (S, B, K) under masks of their own.

    What lies before the first mask is computed once: `vmap` maps what depends
    on the keys and nothing else.

    Args:
      key: of the masks; every image and sample has its own.
      images: normalised, (B, H, W, C).
      num_samples: S.
    """
    if num_samples < 1:
      raise ValueError(f'num_samples must be at least 1, got {num_samples}.')
    model = nnx.merge(self.graphdef, self.state)
    return jax.vmap(lambda k: model(images, train=True, key=k))(
      jax.random.split(key, num_samples)
    )


def with_dropout(model: nnx.Module, image_shape: Sequence[int]) -> Dropout:
  """Returns a trained network that answers under random masks.

  Batch norms are folded into the convolutions before them, so that `train=True`
  drops and does not normalise by the moments of the batch. Stochastic depth,
  where a network has it, is drawn as well.

  Args:
    model: a trained network.
    image_shape: (H, W, C).

  Raises:
    ValueError: the network drops nothing, or has a batch norm that follows no
      convolution.
  """
  if not any(_rate(module) for _, module in nnx.iter_modules(model)):
    raise ValueError(
      f'{type(model).__name__} has no dropout: all its answers are the same.'
    )
  prepared = inference.prepare(model, image_shape)
  left = [
    '.'.join(map(str, path)) for path, module in nnx.iter_modules(prepared)
    if isinstance(module, layers.BatchNorm) and hasattr(module, 'scale')
  ]
  if left:
    raise ValueError(f'batch norms {left} follow no convolution.')
  return Dropout(*nnx.split(prepared))


def _rate(module) -> float:
  if isinstance(module, nnx.Dropout):
    return module.rate
  rate = getattr(module, 'dropout', 0)
  return rate if isinstance(rate, int | float) else 0
