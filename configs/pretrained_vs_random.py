"""Does a network do better for having seen ImageNet first?

  python -m experiments.pretrained_vs_random \\
    --config=configs/pretrained_vs_random.py

Trains the network of `configs/steel.py` with each of `inits`, from each seed,
on each share of the training images; everything else is the same. The weights
of `inits` must lie on this machine (`experiments.convert_weights --list`).

Variants, as `--config=configs/pretrained_vs_random.py:NAME`:

  small  everything in a minute, for tests; its numbers mean nothing
"""

from ml_collections import ConfigDict

from configs import steel


def get_config(arg: str = '') -> ConfigDict:
  """Returns the configuration; `arg` names a variant."""
  config = steel.get_config(arg if arg == 'small' else '')
  if arg not in ('', 'small'):
    raise ValueError(
      f'configs/pretrained_vs_random.py: unknown variant {arg!r}, expected '
      'small'
    )
  config.name = 'pretrained-vs-random' + ('-small' if arg else '')
  config.comparison = ConfigDict({
    # Each is 'random', an entry of the manifest or a weight file.
    'inits': ('random', 'resnet18.pqf'),
    'num_seeds': 3,
    'fractions': (0.1, 0.3, 1.0),
    'sensitivity': True,  # Sobol indices of the networks of all images
  })
  if arg == 'small':
    config.comparison.inits = ('random', 'random')
    config.comparison.num_seeds = 2
    config.comparison.fractions = (0.5, 1.0)
    config.comparison.sensitivity = False
  return config
