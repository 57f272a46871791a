"""The network of a config, with the values that its training begins with."""

from flax import nnx
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import optax

from experiments import runs
from experiments import training_fields
from jaxsens import classifiers
from jaxsens.data import sources
from jaxsens.models import registry
from jaxsens.uncertainty import duq
from jaxsens.uncertainty import spectral
from jaxsens.weights import convert
from jaxsens.weights import manifest

_GRAY = classifiers.Normalise(mean=(0.5,), std=(0.5,))


def normalise(config: ConfigDict) -> classifiers.Normalise:
  """Returns the normalisation that a config asks for."""
  source = sources.find(training_fields.source_name(config))
  channels = source.image_channels(config.data)
  name = config.model.get('normalise', 'half')
  if name == 'imagenet' and channels == 3:
    return classifiers.IMAGENET
  if name != 'half':
    raise ValueError(
      "model.normalise must be 'half' (mean and std 0.5) or, for RGB images, "
      f"'imagenet', got {name!r} for {channels} channels"
    )
  return classifiers.Normalise(_GRAY.mean * channels, _GRAY.std * channels)


def create(key: jax.Array, config: ConfigDict) -> nnx.Module:
  """Returns the network of a config with random values."""
  return _with_head(key, config, _plain_network(key, config))


def _with_head(key, config, network):
  """Returns the network with kernels for its head, if the config has some."""
  if 'duq' not in config:
    return network
  source = sources.find(training_fields.source_name(config))
  num_classes = len(training_fields.class_names(config))
  size = training_fields.training_size(config)
  batch_size = config.training.batch_size
  return duq.make_network(
    jax.random.fold_in(key, 1),
    registry.without_head(config.model.name, network), num_classes,
    image_shape=(*size, source.image_channels(config.data)),
    num_dimensions=config.duq.num_dimensions or None,
    length_scale=config.duq.length_scale,
    initial_count=config.duq.initial_count or batch_size / num_classes,
  )


def _plain_network(key, config, dtype='float32'):
  source = sources.find(training_fields.source_name(config))
  return registry.create(
    config.model.name, key, len(training_fields.class_names(config)),
    in_channels=source.image_channels(config.data), dtype=jnp.dtype(dtype),
    **_plain_options(config),
  )


def options(config: ConfigDict) -> dict:
  """What the config says of the network beside its name, for its checkpoint.

  With kernels, `length_scale` and `num_dimensions` as well, see
  `kernel_networks.blank`.
  """
  kernels = {} if 'duq' not in config else {
    name: config.duq[name] for name in ('length_scale', 'num_dimensions')
  }
  return _plain_options(config) | kernels


def _plain_options(config):
  return {
    name: config.model[name] for name in ('dropout', 'stem', 'padding')
    if name in config.model
  }


def initial(
  key: jax.Array, config: ConfigDict
) -> tuple[nnx.Module, bool]:
  """Returns the network and whether its values are pretrained.

  Raises:
    FileNotFoundError: the weights that the config names are not there.
    ValueError: they are damaged or do not fit the network.
  """
  network = _plain_network(
    key, config, training_fields.option(config, 'precision')
  )
  network, pretrained = _filled(config, network)
  return _with_head(key, config, network), pretrained


def _filled(config, network):
  """Returns the network with the weights of others, if it takes some."""
  if config.model.init == 'random':
    return network, False
  given = None if config.model.init == 'auto' else config.model.init
  rgb = classifiers.IMAGENET
  if given in manifest.PUBLIC_WEIGHTS:
    path = manifest.fetch(given)
    how = manifest.find(given).preprocessing
    rgb = how.normalise
    if how.padding != config.model.get('padding', 'torch'):
      runs.LOG.warning(
        'The weights %s were trained with model.padding=%s', given, how.padding
      )
  else:
    path = manifest.find_pretrained(config.model.name, path=given)
  if path is None:
    runs.LOG.info('No pretrained weights on this machine; random initial ones')
    return network, False
  loaded = convert.load(
    config.model.name, network, convert.read_state_dict(path), rgb=rgb,
    gray=_GRAY,
    # A head for other things is of no use even where their number is the same.
    replace_head=config.training.num_epochs > 0,
    # A shortened network begins with the first layers of the whole one.
    allow_unused='_reduced' in config.model.name,
  )
  runs.LOG.info(
    'Initial weights from %s; new: %s%s', path, loaded.fresh,
    ''.join(f'; {note}' for note in loaded.notes),
  )
  return loaded.model, True


def constraint(
  key: jax.Array, network: nnx.Module, config: ConfigDict
) -> optax.GradientTransformation | None:
  """Returns what `training.spectral_norm` asks for, on all but the head."""
  norm = training_fields.option(config, 'spectral_norm')
  if not norm:
    return None
  source = sources.find(training_fields.source_name(config))
  shape = (
    *training_fields.training_size(config),
    source.image_channels(config.data),
  )
  head = 'head' if 'duq' in config else registry.find(config.model.name).head
  layers = spectral.find_layers(network, shape)
  below = lambda name: f'{name}.'.startswith(f'{head}.')
  return spectral.projection(
    jax.random.fold_in(key, 4), [x for x in layers if not below(x.name)], norm
  )
