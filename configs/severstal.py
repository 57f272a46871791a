"""Which change of pose and light moves a classifier of sheet steel?

  python -m experiments.train --config=configs/severstal.py

Photographs of steel sheets (Severstal), 1600 x 256 pixels, without a defect or
with one of four kinds; images of several kinds are left out. They are resized
to 400 x 64 pixels, normalised with ImageNet's mean and standard deviation, and
split 60 : 20 : 20. A SqueezeNet 1.1 whose 1000 answers enter a linear layer is
trained from ImageNet weights as in Grimaldi's study of interpretability: Adam
at 1e-4 throughout, batches of ten, each doubled by a copy with noise of 0.15
standard deviations, at most 60 epochs, ended by five without a lower validation
loss. The study reports, on its own split, an accuracy of 0.920 and a macro F1
of 0.863, and 0.939 and 0.938 where it asks for any defect; these are not
measured here. Here batches are shuffled and the split is by class.

The images are not given out (kaggle.com/c/severstal-steel-defect-detection).
They are looked for in `severstal` below `data` in the folder that
JAXSENS_SHARED names (`../shared`), or `--config.data.root=DIR`, as `train.csv`
and `train_images`. The weights are downloaded on first use (5 MB), or
`--config.model.init=random`. `experiments.gpc` takes the same config.

Variants, as `--config=configs/severstal.py:NAME`:

  binary  defect or none, chosen by validation accuracy
  small   one epoch of a small network at 50 x 16 pixels, for tests; its numbers
          mean nothing
"""

from ml_collections import ConfigDict

from configs import weld

_VARIANTS = ('', 'binary', 'small')


def get_config(arg: str = '') -> ConfigDict:
  """Returns the configuration; `arg` names a variant."""
  if arg not in _VARIANTS:
    raise ValueError(
      f'configs/severstal.py: unknown variant {arg!r}, expected one of '
      f'{", ".join(filter(None, _VARIANTS))}'
    )
  # Factors, perturbation, expansion and report are those of the welds.
  config = weld.get_config('small' if arg == 'small' else '')
  config.name = f'severstal-{arg}' if arg else 'severstal'
  config.data = ConfigDict({
    'name': 'severstal',
    'root': '',  # folder of train.csv; '' looks at JAXSENS_SHARED
    'validation_fraction': 0.2,
    'test_fraction': 0.2,
    'label_policy': 'single',  # or 'largest', 'binary'
    'skip_unreadable': False,  # leave such files out, counted and named
    'only_recognised': True,  # analyse images that the network recognises
    'frame_width': 0,
    'num_images': 2 if arg == 'small' else 5,
  })
  config.model = ConfigDict({
    'name': 'squeezenet1_1_two_stage',
    'image_size': (64, 400),
    'dropout': 0.5,
    # An entry of the manifest, 'random', or a weight file.
    'init': 'squeezenet1_1.imagenet1k_v1',
    'normalise': 'imagenet',
  })
  config.training.update({
    'num_epochs': 60,
    'batch_size': 10,
    'optimizer': 'adam',
    'learning_rate': 1e-4,
    'weight_decay': 0.0,
    'schedule': 'constant',
    'class_weights': 'none',
    'noise_doubling': 0.15,
    'monitor': 'loss',
    'early_limit': 4,  # stops after the fifth epoch without a new best
  })
  if arg == 'binary':
    config.data.label_policy = 'binary'
    config.training.monitor = 'accuracy'
  if arg == 'small':
    config.model.update({
      'name': 'squeezenet1_1_reduced7_two_stage', 'image_size': (16, 50),
      'init': 'random',
    })
    config.training.update({'num_epochs': 1, 'batch_size': 4})
  return config
