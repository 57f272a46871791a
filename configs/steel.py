"""Which change of pose and light moves a classifier of steel surfaces?

  python -m experiments.gpc --config=configs/steel.py

Gray images of hot-rolled steel in six classes of defects (NEU-DET, 1,800 images
of 200 pixels), split 70 : 15 : 15; a ResNet18 at 64 pixels is trained on first
use and kept in the run directory: 15,000 images pass through it, about as many
as for configs/weld.py. Expected: accuracy 0.948 (validation), 0.959 (test).
The images analysed are test images that it recognises.

The images are looked for in `neu_det` below `data` in the folder that
JAXSENS_SHARED names (`../shared`), or `--config.data.root=DIR`.

Variants, as `--config=configs/steel.py:NAME`:

  six    six factors: brightness, rotation, tilt, scale, shift, gamma
  small  everything in seconds, for tests; its numbers mean nothing
"""

from ml_collections import ConfigDict

from configs import weld

_VARIANTS = ('', 'six', 'small')


def get_config(arg: str = '') -> ConfigDict:
  """Returns the configuration; `arg` names a variant."""
  if arg not in _VARIANTS:
    raise ValueError(f'configs/steel.py: unknown variant {arg!r}, expected '
                     f'one of {", ".join(filter(None, _VARIANTS))}')
  # Network, perturbation, expansion and report are those of the welds.
  config = weld.get_config('small' if arg == 'small' else '')
  config.name = f'steel-{arg}' if arg else 'steel'
  config.data = ConfigDict({
    'name': 'steel',
    'root': '',  # folder that holds IMAGES; '' looks at JAXSENS_SHARED
    'validation_fraction': 0.15,
    'test_fraction': 0.15,
    'skip_unreadable': False,  # leave such files out, counted and named
    'only_recognised': True,  # analyse images that the network recognises
    'frame_width': 0,
    'num_images': 2 if arg == 'small' else 6,
  })
  if arg == 'small':
    config.data.validation_fraction = 0.05
    config.data.test_fraction = 0.85
  else:
    config.training.num_epochs = 12
    config.training.end_epoch = 11
  if arg == 'six':
    _add_factors(config)
  return config


def _add_factors(config: ConfigDict) -> None:
  uniform = lambda lower, upper: ConfigDict({
    'distribution': 'Uniform', 'lower': lower, 'upper': upper
  })
  config.factors.scale = uniform(0.7, 1.4)
  config.factors.translation_x = uniform(-0.25, 0.25)
  config.factors.gamma = uniform(0.5, 2.0)
  # The light falls, the sheet lies, the camera answers.
  config.factor_order = (
    'brightness', 'rotation', 'tilt', 'scale', 'translation_x', 'gamma'
  )
