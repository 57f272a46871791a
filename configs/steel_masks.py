"""Do the heat maps of a classifier of steel surfaces show the defects?

  python -m experiments.localise --config=configs/steel_masks.py

Gray images of hot-rolled steel with one of three kinds of defects and a mask of
its pixels (NEU-Seg, 200 pixels); the class of an image is the defect that
covers most of it. A SqueezeNet 1.1 is trained at 200 pixels, so that masks and
heat maps have the same pixels; it begins with ImageNet weights where there are
some (`--config.model.init=squeezenet1_1.fp16`).

The images are looked for in `neu_seg` below `data` in the folder that
JAXSENS_SHARED names (`../shared`), or `--config.data.root=DIR`.

Variants, as `--config=configs/steel_masks.py:NAME`:

  reduced  the network without its last three Fires
  small    everything in a minute, for tests; its numbers mean nothing
"""

from ml_collections import ConfigDict

from configs import steel

_VARIANTS = ('', 'reduced', 'small')


def get_config(arg: str = '') -> ConfigDict:
  """Returns the configuration; `arg` names a variant."""
  if arg not in _VARIANTS:
    raise ValueError(
      f'configs/steel_masks.py: unknown variant {arg!r}, expected one of '
      f'{", ".join(filter(None, _VARIANTS))}'
    )
  config = steel.get_config('small' if arg == 'small' else '')
  config.name = f'steel_masks-{arg}' if arg else 'steel_masks'
  config.data = ConfigDict({
    'name': 'neu_seg',
    'root': '',  # folder that holds img_dir; '' looks at JAXSENS_SHARED
    'validation_fraction': 0.15,
    'label_policy': 'largest',  # or 'single'
    'skip_unreadable': False,  # leave such files out, counted and named
    'only_recognised': True,  # analyse images that the network recognises
    'frame_width': 0,
    'num_images': 2 if arg == 'small' else 6,
  })
  config.model = ConfigDict({
    'name': 'squeezenet1_1',
    'image_size': 200,
    'dropout': 0.5,
    'init': 'auto',  # 'auto', 'random', or a weight file
  })
  if arg == 'reduced':
    config.model.name = 'squeezenet1_1_reduced10'
  if arg == 'small':
    config.model.name = 'squeezenet1_1_reduced7'
    config.model.image_size = 40
  else:
    config.training.num_epochs = 20
    config.training.end_epoch = 19
    config.training.flip = 0.5
  # Of experiments.localise.
  config.localisation = ConfigDict({
    'methods': (),  # names of experiments.methods; () takes all
    'num_validation_images': 0,  # that choose the thresholds; 0: all
    'num_images': 0,  # test images that are judged; 0: all
    'num_resamples': 500,  # of the intervals
  })
  if arg == 'small':
    config.localisation.num_images = 6
    config.localisation.num_validation_images = 6
    config.localisation.num_resamples = 20
  return config
