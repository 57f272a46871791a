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
  config.localisation = _localisation(arg == 'small')
  return config


def _localisation(small: bool) -> ConfigDict:
  """Of experiments.localise; none of it changes the network."""
  found = ConfigDict({
    'methods': (),  # names of experiments.methods; () takes all
    'layer': '',  # of activation maps; '': the last `features.N`, or last map
    'quantity': 'logit',  # of the predicted class, what is explained
    'num_steps': 25,  # of integrals, and draws of those that draw
    'num_masks': 150,  # of the black-box methods, about
    'num_references': 20,  # training images, for the methods that need some
    'chunk_size': 8,
    'num_validation_images': 60,  # that choose the thresholds; 0: all
    'num_images': 120,  # test images that are judged; 0: all
    # The grid that the validation images choose from; blurs in pixels,
    # thresholds in deviations of a map above its mean.
    'signs': ('positive', 'absolute'),
    'blurs': (0.0, 2.0, 4.0, 8.0, 12.0),
    'thresholds': (-0.5, 0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0),
    'num_resamples': 500,  # of the intervals
    'num_sanity': 16,  # test images explained with permuted params; 0: none
    'num_faithful': 24,  # test images whose pixels are exchanged; 0: none
    'num_faithful_steps': 20,
    'replacement': 'blur',  # what takes the place of pixels; or 'black'
    'num_examples': 4,  # images in the figure
  })
  if small:
    found.num_steps = 2
    found.chunk_size = 2
    found.num_masks = 16
    found.num_references = 2
    found.num_validation_images = 6
    found.num_images = 6
    found.blurs = (0.0, 2.0)
    found.thresholds = (0.0, 1.0)
    found.num_resamples = 20
    found.num_sanity = 2
    found.num_faithful = 2
    found.num_faithful_steps = 2
    found.num_examples = 2
  return found
