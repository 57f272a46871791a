"""Which certainty tells unknown pictures from known ones, and wrong answers?

  python -m experiments.compare_uncertainty \\
    --config=configs/steel_uncertainty.py

Networks of `configs/steel.py`, several seeds on one and the same split, are
trained on first use and kept in the run directory, and as many with the kernels
of `configs/steel_duq.py`; every method judges the test images of NEU-DET and
pictures of other things. Training takes about four minutes a softmax network on
two CPU cores.

Variants, as `--config=configs/steel_uncertainty.py:NAME`:

  cifar10  colour photographs; two classes are held out of the training and are
           what is unknown; textures besides
  small    everything in a minute, for tests; its numbers mean nothing
"""

from ml_collections import ConfigDict

from configs import cifar10
from configs import steel
from configs import steel_duq

_VARIANTS = ('', 'cifar10', 'small')


def get_config(arg: str = '') -> ConfigDict:
  """Returns the configuration; `arg` names a variant."""
  if arg not in _VARIANTS:
    raise ValueError(
      f'configs/steel_uncertainty.py: unknown variant {arg!r}, expected one of '
      f'{", ".join(filter(None, _VARIANTS))}'
    )
  config = _cifar10() if arg == 'cifar10' else steel.get_config(arg)
  config.name = 'uncertainty-' + (arg or 'steel')
  config.comparison = ConfigDict({
    'num_seeds': 3,  # networks, and members of the ensemble
    'num_dropout_samples': 50,
    # Of the covariances in feature space: a share in [0, 1], 'ledoit_wolf', or
    # 'validation' for the likeliest share of `shrinkages`.
    'shrinkage': 'validation',
    'shrinkages': (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0),
    'num_random_features': 1024,
    'length_scale': 1.0,  # of the kernel, in root mean square distances
    'ridge': 1.0,
    'miscoverage': 0.05,  # of the prediction sets
    'num_resamples': 500,  # of the intervals
    # What is unknown: 'weld' (frames of TIG welding, real ones where
    # JAXSENS_DATA or `weld_root` has them), 'textures', and 'held_out', the
    # images of the classes below.
    'out_sets': ('weld', 'textures'),
    'num_out': 270,  # pictures of each, as many as there are test images
    'weld_root': '',
    'held_out_classes': (),
  })
  if arg != 'cifar10':  # a class without images has no centroid
    kernels = steel_duq.get_config(arg)
    # What differs in the config of the networks with a kernel per class.
    config.comparison.kernels = ConfigDict({
      'duq': kernels.duq, 'model': kernels.model, 'training': kernels.training,
    })
  if arg == 'cifar10':
    config.comparison.held_out_classes = ('truck', 'cat')
    config.comparison.out_sets = ('held_out', 'textures')
    config.comparison.num_out = 200
  if arg == 'small':
    config.comparison.num_seeds = 2
    config.comparison.num_dropout_samples = 3
    config.comparison.num_random_features = 32
    config.comparison.num_resamples = 20
    config.comparison.num_out = 12
  return config


def _cifar10() -> ConfigDict:
  config = cifar10.get_config()
  steel_config = steel.get_config()
  config.model = steel_config.model
  config.model.image_size = 32
  config.model.stem = 'cifar'
  config.training = steel_config.training
  config.data.validation_fraction = 0.15
  return config
