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
    # Of the kernel, in root mean square distances, and of the prior; each a
    # number, or 'validation' for the likeliest of the candidates.
    'length_scale': 'validation',
    'length_scales': (0.25, 0.5, 1.0, 2.0),
    'ridge': 'validation',
    'ridges': (0.01, 0.1, 1.0),
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
  # Of experiments.abstention, which follows images along the factors.
  config.abstention = ConfigDict({
    'num_seeds': 1,  # networks of each kind; an ensemble needs two
    'abstention_rate': 0.1,  # share of unperturbed validation images refused
    'num_strengths': 13,  # from the neutral value of a factor to a limit
    'num_images': 270,  # test images that are followed, at most
    'num_resamples': 500,  # of the intervals
    # Methods whose course is drawn, where they are judged.
    'shown': (
      'maximum probability', 'ensemble: maximum probability', 'Mahalanobis',
      'SNGP head', 'DUQ',
    ),
  })
  # What differs in the configs of other networks, by a name for them.
  kernels = config.copy_and_resolve_references()
  steel_duq.add_kernels(kernels)
  config.comparison.others = ConfigDict({
    'kernels': {'duq': kernels.duq, 'model': {'dropout': 0.0}},
    'spectral': {'training': {'spectral_norm': 3.0}},
  })
  if arg == 'cifar10':
    del config.comparison.others['spectral']  # judged on the sheets
    config.comparison.held_out_classes = ('truck', 'cat')
    config.comparison.out_sets = ('held_out', 'textures')
    config.comparison.num_out = 200
  if arg == 'small':
    config.comparison.num_seeds = 2
    config.comparison.num_dropout_samples = 3
    config.comparison.num_random_features = 32
    config.comparison.num_resamples = 20
    config.comparison.num_out = 12
    config.abstention.num_strengths = 3
    config.abstention.num_images = 12
    config.abstention.num_resamples = 20
  return config


def _cifar10() -> ConfigDict:
  config = steel.get_config()
  photographs = cifar10.get_config()
  config.data = photographs.data
  config.data.validation_fraction = 0.15
  config.model.normalise = 'imagenet'
  config.training.num_epochs, config.training.end_epoch = 4, 3
  config.training.warmup_epochs = 1
  config.training.flip = 0.5
  return config
