"""The fields of `config.training`: what they may be and what they decide."""

import dataclasses
import difflib
import hashlib
import json

from ml_collections import ConfigDict
import numpy as np

from experiments import runs
from jaxsens.data import sources
from jaxsens.training import batches
from jaxsens.training import loop
from jaxsens.training import metrics
from jaxsens.training import objectives
from jaxsens.uncertainty import duq_objective

# Learning rates for random initial values and for pretrained ones.
_RATES = {False: 1e-3, True: 1e-4}
# What `config.data` says about the analysis and not about the data.
NOT_DATA = ('num_images', 'frame_width', 'only_recognised')
# What `config.training` has beside the fields of `loop.Settings`, by default.
_OPTIONS = {
  'image_size': 0, 'precision': 'float32', 'class_weights': 'balanced',
  'num_runs': 1, 'tensorboard': True, 'fraction': 1.0, 'placement': 'auto',
  # The norm that layers are kept below, see `spectral`; 0 leaves them.
  'spectral_norm': 0.0,
}
# What has no effect on the trained network.
_NOT_TRAINING = ('num_runs', 'tensorboard', 'placement')
# Fields that were in the hash before the others, which count where they are
# set: a network stays what it is when there is one more option.
HASHED = (
  'image_size', 'num_epochs', 'batch_size', 'learning_rate', 'weight_decay',
  'warmup_epochs', 'end_epoch', 'final_factor',
)
# What `config.duq` says of the search and not of the network.
SEARCHED = ('length_scales', 'penalties')
# Where the objective takes the other fields of `config.duq` from.
_OBJECTIVE = ('penalty', 'decay', 'norm_power', 'sides', 'centroids')
_HEAD = ('num_dimensions', 'length_scale', 'initial_count')
_PRECISIONS = ('float32', 'bfloat16')


def training_hash(config: ConfigDict) -> str:
  """Returns a hash of what decides the trained network."""
  fields = decisive(config)
  known = defaults()
  training = {
    name: value for name, value in fields['training'].items()
    if name in HASHED or value != known.get(name)
  }
  parts = [fields['seed'], fields['data'], fields['model'], training]
  if 'duq' in fields:
    parts.append(fields['duq'])
  text = json.dumps(parts, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def source_name(config: ConfigDict) -> str:
  """Returns the data source of a config, 'weld' where it names none."""
  return config.data.get('name', 'weld')


def class_names(config: ConfigDict) -> tuple[str, ...]:
  """Returns the names of the classes that the network answers with.

  Those of the data, without `data.held_out_classes`.
  """
  names = sources.find(source_name(config)).classes(config.data)
  held_out = config.data.get('held_out_classes', ())
  return tuple(name for name in names if name not in held_out)


def decisive(config: ConfigDict) -> dict:
  """Returns the fields that decide the trained network."""
  model = config.model.to_dict()
  if config.training.image_size:
    del model['image_size']
  kernels = {}
  if 'duq' in config:
    kernels['duq'] = {
      k: v for k, v in config.duq.to_dict().items() if k not in SEARCHED
    }
  return kernels | {
    'seed': config.seed,
    'data': {
      k: v for k, v in config.data.items()
      # What was there before the option skipped nothing.
      if k not in NOT_DATA and (k != 'skip_unreadable' or v)
    },
    'model': model,
    'training': {
      k: v for k, v in config.training.to_dict().items()
      if k not in _NOT_TRAINING
    },
  }


def defaults() -> dict:
  """Returns the fields of `config.training` that have a default, with it."""
  return _OPTIONS | {
    field.name: field.default for field in dataclasses.fields(loop.Settings)
    if field.default is not dataclasses.MISSING
  }


def image_size(config: ConfigDict) -> tuple[int, int]:
  """Returns height and width in pixels of the images of the analysis.

  Raises:
    ValueError: `model.image_size` is neither a number nor two of them, or one
      is not positive.
  """
  return _size('model.image_size', config.model.image_size)


def training_size(config: ConfigDict) -> tuple[int, int]:
  """Returns height and width in pixels of the images that are trained on.

  Raises:
    ValueError: as `image_size`, of `training.image_size` where that is set.
  """
  given = config.training.image_size
  return _size('training.image_size', given) if given else image_size(config)


def _size(name, given) -> tuple[int, int]:
  pair = (given,) * 2 if isinstance(given, int) else tuple(given)
  if len(pair) != 2 or not all(isinstance(n, int) and n > 0 for n in pair):
    raise ValueError(
      f'{name} must be one positive number of pixels or (height, width), got '
      f'{given!r}'
    )
  return pair


def option(config: ConfigDict, name: str):
  """Returns a field of `config.training` that may be absent."""
  return config.training.get(name, _OPTIONS[name])


def check(config: ConfigDict) -> None:
  """Raises ValueError for fields that are unknown or make no sense."""
  precisions = {
    'precision': config.precision,
    'training.precision': option(config, 'precision'),
  }
  for name, value in precisions.items():
    if value not in _PRECISIONS:
      raise ValueError(
        f"{name} must be 'float32' or 'bfloat16', got {value!r}"
      )
  known = {*defaults(), 'num_epochs'}
  for name in config.training:
    if name not in known:
      near = difflib.get_close_matches(name, known, 1)
      hint = f'; did you mean {near[0]!r}?' if near else ''
      raise ValueError(
        f'config.training has no field {name!r}{hint} Known: '
        f'{", ".join(sorted(known))}'
      )
  objective(config)
  image_size(config)
  training_size(config)
  batches.check_placement(option(config, 'placement'))
  weights = option(config, 'class_weights')
  if weights not in ('balanced', 'none'):
    raise ValueError(
      f"training.class_weights must be 'balanced' or 'none', got {weights!r}"
    )
  if not 0 < option(config, 'fraction') <= 1:
    raise ValueError(
      f"training.fraction must be in (0, 1], got {option(config, 'fraction')}"
    )
  norm = option(config, 'spectral_norm')
  if not (isinstance(norm, (int, float)) and norm >= 0):
    raise ValueError(
      f'training.spectral_norm must not be negative, got {norm!r}'
    )
  if config.training.num_epochs:
    settings(config, pretrained=True)


def settings(config: ConfigDict, pretrained: bool) -> loop.Settings:
  """Returns how the network of a config is trained."""
  fields = {
    name: value for name, value in config.training.items()
    if name not in _OPTIONS
  }
  fields['learning_rate'] = fields['learning_rate'] or _RATES[pretrained]
  return loop.Settings(**fields)


def objective(config: ConfigDict) -> objectives.Objective | None:
  """Returns what the network of a config minimises; None: cross-entropy.

  Raises:
    ValueError: a field of `config.duq` is unknown, missing or makes no sense.
  """
  if 'duq' not in config:
    return None
  known = {*_OBJECTIVE, *_HEAD, *SEARCHED}
  if set(config.duq) - known or {*_OBJECTIVE, *_HEAD} - set(config.duq):
    raise ValueError(
      f'config.duq has the fields {sorted(config.duq)}, known are '
      f'{sorted(known)}, of which only {SEARCHED} may be absent'
    )
  return duq_objective.Objective(
    **{name: config.duq[name] for name in _OBJECTIVE}
  )


def class_weights(
  config: ConfigDict, labels: np.ndarray, class_names: tuple[str, ...]
) -> np.ndarray:
  """Returns the weights (K,) of the classes of the training images.

  A class without any has weight zero, whatever is asked for: its images in the
  validation count in the scores and not in the loss.
  """
  weights = metrics.balanced_class_weights(labels, len(class_names))
  empty = [
    name for name, w in zip(class_names, weights, strict=True) if not w
  ]
  if empty:
    runs.LOG.warning(
      'No training images of %s: the network cannot learn to answer that',
      ', '.join(empty),
    )
  if option(config, 'class_weights') == 'none':
    return (weights > 0).astype(np.float32)
  return weights
