"""Which of brightness, rotation and keystone moves a small CIFAR-10 classifier?

  python -m experiments.gpc --config=configs/cifar10.py

Colour photographs of 32 pixels in ten classes; a LeNet-like network of 62,006
parameters whose weights are read from `cifar_net.pth`, not trained. It
recognises 64.0 % of the 1,017 test images; the images analysed are among those.
Expected on two CPU cores: a report in `runs/cifar10-<hash>/report.html` after
about half a minute.

Images and weights are looked for in the folder that JAXSENS_SHARED names
(`../shared`): `data/cifar10/cifar10_exact_6102.npz`, `weights/cifar_net.pth`;
or `--config.data.root=DIR` and `--config.model.init=FILE`.

Variants, as `--config=configs/cifar10.py:NAME`:

  train  the network is trained from random values on 15,000 images that were
         compressed by JPEG, and tested on 10,000 (`cifar10_jpeg75_*.npz` in the
         same folder): `experiments.train`, `experiments.evaluate`
  small  everything in seconds, for tests; its numbers mean nothing
"""

from ml_collections import ConfigDict

from configs import weld

_VARIANTS = ('', 'train', 'small')


def get_config(arg: str = '') -> ConfigDict:
  """Returns the configuration; `arg` names a variant."""
  if arg not in _VARIANTS:
    raise ValueError(f'configs/cifar10.py: unknown variant {arg!r}, expected '
                     f'one of {", ".join(filter(None, _VARIANTS))}')
  # Factors, perturbation, expansion and report are those of the welds.
  config = weld.get_config('small' if arg == 'small' else '')
  config.name = f'cifar10-{arg}' if arg else 'cifar10'
  config.data = ConfigDict({
    'name': 'cifar10',
    'root': '',  # folder of the .npz file; '' looks at JAXSENS_SHARED
    'validation_fraction': 0.0,
    'only_recognised': True,  # analyse images that the network recognises
    'frame_width': 0,
    'num_images': 2 if arg == 'small' else 12,
  })
  config.model = ConfigDict({
    'name': 'lenet',
    'image_size': 32,
    'dropout': 0.0,
    'init': 'auto',  # or a weight file
  })
  config.training.num_epochs = 0  # the weights are used as they are
  if arg == 'train':
    _train(config)
  # A milder camera tilt than that of the welds.
  config.factor_order = ('brightness', 'rotation', 'keystone')
  for fields in (config.factors, config.gpc.num_nodes, config.gpc.degrees):
    fields.keystone = fields.tilt
    del fields['tilt']
  return config


def _train(config: ConfigDict) -> None:
  config.data.form = 'jpeg'
  config.data.validation_fraction = 0.1
  config.model.init = 'random'
  config.training.num_epochs = 80
  config.training.end_epoch = 79
  config.training.learning_rate = 2e-3
  config.training.batch_size = 64
  config.training.warmup_epochs = 2
  config.training.final_factor = 0.0
  config.training.flip = 0.5
  config.training.crop = 'padded'
