"""Networks with a kernel per class, from what a checkpoint says of them."""

from collections.abc import Mapping
from collections.abc import Sequence
import pathlib
from typing import Any

from flax import nnx
import jax

from experiments import weight_sources
from jaxsens.models import registry
from jaxsens.uncertainty import duq
from jaxsens.weights import kernel_names
from jaxsens.weights import state_dicts

OPTION = 'length_scale'
"""Entry of `checkpoints.Metadata.options` that such a network has."""


def blank(
  architecture: str,
  class_names: Sequence[str],
  channels: int,
  image_size: Sequence[int],
  options: Mapping[str, Any],
) -> nnx.Module:
  """Returns an abstract network of the kind of a checkpoint.

  Args: fields of `checkpoints.Metadata`; with kernels where `options` have a
    `length_scale`, and then of `num_dimensions`, 0 for that of the features.
  """
  options = dict(options)
  length_scale = options.pop(OPTION, None)
  num_dimensions = options.pop('num_dimensions', 0)

  def make():
    network = registry.create(
      architecture, jax.random.key(0), len(class_names), in_channels=channels,
      **options,
    )
    if length_scale is None:
      return network
    return duq.make_network(
      jax.random.key(0), registry.without_head(architecture, network),
      len(class_names), image_shape=(*image_size, channels),
      num_dimensions=num_dimensions or None, length_scale=length_scale,
      initial_count=1.0,
    )

  return nnx.eval_shape(make)


def from_file(
  path: pathlib.Path,
  own: Mapping[str, Any],
  state_dict: state_dicts.StateDict,
  **asked: Any,
) -> tuple[nnx.Module, dict[str, Any]]:
  """Returns the network of a file that was written here, and its facts.

  Args:
    path: the file.
    own: what stands in its header, see `weight_sources.own_facts`.
    state_dict: its arrays, see `weights.kernel_names`.
    **asked: `num_classes`, `channels`, `padding` and `batch_norm_epsilon`; None
      takes the network as it is.

  Raises:
    ValueError: the header lacks the length scale, something else is asked for
      than the file has, or the arrays do not fit.
  """
  options = own.get('options', {})
  if OPTION not in options:
    raise ValueError(
      f'{path} holds a network with kernels, and no {OPTION} in its header: '
      'only files that were written here are read.'
    )
  have = {
    'num_classes': len(own['class_names']), 'channels': own['channels'],
    'padding': options.get('padding', 'torch'),
  }
  for name, value in asked.items():
    if value not in (None, have.get(name)):
      raise ValueError(
        f'{path} holds a network with kernels, which is taken as it is: '
        f'{name} must not be {value!r}.'
      )
  lists = ('class_names', 'image_size', 'mean', 'std')
  facts = {
    name: tuple(own[name]) if name in lists else own[name]
    for name in weight_sources.FACTS
  }
  network = blank(*(
    facts[name] for name in (
      'architecture', 'class_names', 'channels', 'image_size', 'options'
    )
  ))
  return kernel_names.load_torch_names(network, state_dict), facts


def explain(
  folder: pathlib.Path, options: Mapping[str, Any], error: ValueError
) -> None:
  """Raises what is meant where a checkpoint does not tell its length scale."""
  if 'head.kernels' in str(error) and OPTION not in options:
    raise ValueError(
      f'{folder}: a network with kernels, whose checkpoint is of before their '
      f'{OPTION} was kept in it; train it again.'
    ) from error
