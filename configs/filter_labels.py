"""Which change of pose and light moves a classifier of printed filter labels?

  python -m experiments.train --config=configs/filter_labels.py

Colour photographs of filter housings (NTZ), 320 x 240 pixels, in four classes:
label whole, half, not fully or crookedly printed. A MobileNetV2 is trained as
in Sparvriend's thesis on fast industrial image classification: 224 pixels,
ImageNet's mean and standard deviation, a head of one linear layer, 40 epochs of
SGD (rate 0.01, momentum 0.9, decay 0.001) that falls to a tenth at epochs 30
and 35, RandAugment, batches of 32, no class weights; it stops once more than
ten epochs bring no lower validation loss. Here the head is trained as well (it
was left at its initial values there), the network of the best epoch is kept
and not that of the last, and images are resized to 224 pixels, not to 256 and
cut. ImageNet weights are taken if they are on this machine
(`experiments.convert_weights --model=mobilenet_v2` fetches them).

The images are not public: no numbers are expected. They are looked for in
`filter_labels` below `data` in the folder that JAXSENS_SHARED names
(`../shared`), or `--config.data.root=DIR`, one folder per class; those of a
class are split 80 : 10 : 10. `experiments.gpc` takes the same config.

Variants, as `--config=configs/filter_labels.py:NAME`:

  synthetic  batches of 64, 20 epochs without early stop, as the thesis trains
             where drawn labels join the photographs
  small      one epoch at 32 pixels, for tests; its numbers mean nothing
"""

from ml_collections import ConfigDict

from configs import weld

_VARIANTS = ('', 'synthetic', 'small')


def get_config(arg: str = '') -> ConfigDict:
  """Returns the configuration; `arg` names a variant."""
  if arg not in _VARIANTS:
    raise ValueError(
      f'configs/filter_labels.py: unknown variant {arg!r}, expected one of '
      f'{", ".join(filter(None, _VARIANTS))}'
    )
  # Factors, perturbation, expansion and report are those of the welds.
  config = weld.get_config('small' if arg == 'small' else '')
  config.name = f'filter_labels-{arg}' if arg else 'filter_labels'
  config.data = ConfigDict({
    'name': 'filter_labels',
    'root': '',  # folder of the class folders; '' looks at JAXSENS_SHARED
    'validation_fraction': 0.1,
    'test_fraction': 0.1,
    'skip_unreadable': False,  # leave such files out, counted and named
    'only_recognised': True,  # analyse images that the network recognises
    'frame_width': 0,
    'num_images': 2 if arg == 'small' else 4,
  })
  config.model = ConfigDict({
    'name': 'mobilenet_v2',
    'image_size': 224,
    'dropout': 0.0,
    'init': 'auto',  # 'auto', 'random', or a weight file
    'normalise': 'imagenet',
  })
  config.training.update({
    'num_epochs': 40,
    'batch_size': 32,
    'optimizer': 'sgd',
    'learning_rate': 0.01,
    'momentum': 0.9,
    'weight_decay': 1e-3,
    'schedule': 'multistep',
    'milestones': (30, 35),
    'milestone_factor': 0.1,
    'class_weights': 'none',
    'augmentation': 'rand_augment',
    'num_operations': 2,
    'magnitude': 9,
    'monitor': 'loss',
    'early_limit': 10,
  })
  if arg == 'synthetic':
    config.training.update(
      {'num_epochs': 20, 'batch_size': 64, 'early_limit': 0}
    )
  if arg == 'small':
    config.model.update({'image_size': 32, 'init': 'random'})
    config.training.update({'num_epochs': 1, 'batch_size': 8})
  return config
