"""Does a classifier of small photographs know when it is lost?

  python -m experiments.train_duq --config=configs/cifar10_duq.py

The setting of van Amersfoort et al. (2020): a ResNet18 whose stem is for 32
pixels, 512 dimensions per class, length scale 0.1, stochastic gradient descent
with momentum at 0.05, a fifth of that after 25, 50 and 75 of 100 epochs,
penalty 0.5, random crops and flips. With all of CIFAR-10 below `data.root` that
is a training for an accelerator; the images that configs/cifar10.py knows are
6,102. Factors as there.

Variants, as `--config=configs/cifar10_duq.py:NAME`:

  small  everything in seconds, for tests; its numbers mean nothing
"""

from ml_collections import ConfigDict

from configs import cifar10
from configs import steel_duq


def get_config(arg: str = '') -> ConfigDict:
  """Returns the configuration; `arg` names a variant."""
  config = cifar10.get_config(arg)
  config.name = f'cifar10_duq-{arg}' if arg else 'cifar10_duq'
  steel_duq.add_kernels(config)
  config.data.validation_fraction = 0.2
  config.model = ConfigDict({
    'name': 'resnet18',
    'image_size': 32,
    'dropout': 0.0,
    'stem': 'cifar',
    'init': 'random',
  })
  config.training.update({
    'num_epochs': 100,
    'batch_size': 128,
    'learning_rate': 0.05,
    'weight_decay': 5e-4,
    'optimizer': 'sgd',
    'schedule': 'multistep',
    'milestones': (25, 50, 75),
    'milestone_factor': 0.2,
    'crop': 'padded',
    'flip': 0.5,
    'monitor': 'accuracy',
    'class_weights': 'none',
  })
  config.duq.penalty = 0.5
  config.duq.decay = 0.999
  if arg == 'small':
    config.model.name, config.model.stem = 'lenet', 'imagenet'
    config.data.validation_fraction = 0.9
    config.training.num_epochs = 1
  return config
