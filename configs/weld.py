"""Which of brightness, rotation and tilt moves the answer of a weld classifier?

  python -m experiments.gpc --config=configs/weld.py

Gray TIG frames of aluminium 5083 in six classes; a ResNet18 is trained on first
use and kept in the run directory. Expected on two CPU cores: about four minutes
the first time, of which training takes two to three, then a report in
`runs/weld-<hash>/report.html`; validation accuracy above 0.95 on the procedural
frames.

Variants, as `--config=configs/weld.py:NAME`:

  small  everything in seconds, for tests; its numbers mean nothing
  paper  the conventions of the source system (arXiv:2506.18751): 8-bit steps,
         nearest-neighbour rotation, tilt corners in a 244-pixel box, networks
         trained at 224 and asked at 244, one image, 10,000 Latin hypercube
         samples and 343 terms. Slow on a CPU: half an hour.

Real frames: `--config.data.root=DIR`, or the folder `al5083` in the directory
that JAXSENS_DATA names.
"""

from ml_collections import ConfigDict

_VARIANTS = ('', 'line', 'small', 'paper')


def get_config(arg: str = '') -> ConfigDict:
  """Returns the configuration; `arg` names a variant."""
  if arg not in _VARIANTS:
    raise ValueError(f'configs/weld.py: unknown variant {arg!r}, expected '
                     f'one of {", ".join(filter(None, _VARIANTS))}')
  config = ConfigDict()
  config.name = f'weld-{arg}' if arg else 'weld'
  config.seed = 0
  config.data = _data()
  config.model = _model()
  config.training = _training()
  config.factors, config.factor_order = _factors()
  config.perturbation = ConfigDict({
    'convention': 'fused',  # 'fused', 'sequential' or 'paper'
    'method': 'bilinear',  # or 'nearest'
    'border': 'constant',  # outside the image; or 'edge', 'reflect'
    'fill': 0.0,  # the constant
    'clip_values': False,  # values outside a perturbation's limits: move them
  })
  config.precision = 'float32'  # of the network in the analysis; or 'bfloat16'
  # What is read off the logits; the first is what the report is about.
  config.quantities = (
    'probability', 'probabilities', 'margin', 'entropy', 'correctness'
  )
  config.gpc = _gpc()
  config.evaluation = ConfigDict({
    'batch_size': 0,  # 0: measured once and kept in the run directory
    'seconds_per_chunk': 4.0,  # what an interruption may lose
    # Draws of random perturbations at every node; of more than one the mean
    # of the probabilities counts.
    'num_draws': 1,
  })
  config.report = ConfigDict({
    'num_line_nodes': 33,  # along each factor
    'num_plane_nodes': 11,  # per side, over the strongest pair of factors
    'num_contact_images': 9,
    'num_detailed': 12,  # images that are shown one by one
    'max_failure': 0.05,  # probability of a wrong class in the safe ranges
    'num_worst_starts': 4,  # ascents to the worst case; 0: none
  })
  if arg == 'small':
    _make_small(config)
  if arg == 'paper':
    _make_paper(config)
  if arg == 'line':
    _make_line(config)
  return config


def _data() -> ConfigDict:
  return ConfigDict({
    'root': '',  # real frames; '' looks at JAXSENS_DATA, then draws its own
    'held_out_groups': '',  # clips held back, comma-separated; '' chooses
    'combine_synthetic': 'auto',  # 'auto', 'always' or 'never'
    'skip_unreadable': False,  # leave such files out, counted and named
    'synthetic_width': 128,  # pixels; frames have the aspect 800 : 974
    'synthetic_per_class': 340,  # training and validation together
    'validation_fraction': 0.2,
    'frame_width': 0,  # width of analysed procedural frames; 0: as drawn
    'num_images': 6,  # analysed test images, over the classes in turn
  })


def _model() -> ConfigDict:
  return ConfigDict({
    'name': 'resnet18',
    'image_size': 64,  # pixels in the analysis; or (height, width)
    'dropout': 0.5,
    'init': 'auto',  # 'auto', 'random', or a weight file
  })


def _training() -> ConfigDict:
  return ConfigDict({
    'image_size': 0,  # 0: that of the model
    'num_epochs': 8,
    'fraction': 1.0,  # of the training images of each class that are used
    'batch_size': 32,
    'learning_rate': 0.0,  # 0: 1e-4 from pretrained weights, 1e-3 without
    'weight_decay': 1e-4,
    'warmup_epochs': 3,
    'end_epoch': 7,
    'final_factor': 0.1,
    'optimizer': 'adamw',  # or 'adam', 'sgd'
    'momentum': 0.9,  # of sgd
    'nesterov': False,
    'clip_norm': 0.0,  # longest gradient; 0: any
    # 'warmup_cosine', 'linear_warmup_cosine', 'multistep' or 'constant'
    'schedule': 'warmup_cosine',
    'milestones': (),  # epochs of multistep
    'milestone_factor': 0.1,
    'precision': 'float32',  # of the convolutions in training; or 'bfloat16'
    'spectral_norm': 0.0,  # that layers are kept below; 0 leaves them
    'class_weights': 'balanced',  # from the training images; or 'none'
    'label_smoothing': 0.0,
    'mixup': 0.0,  # alpha; 0: off
    'ema_decay': 0.0,  # of averaged parameters; 0: off
    # 'none', 'rand_augment', 'auto_augment_imagenet', 'auto_augment_cifar10',
    # 'categorical' or 'random_choice'
    'augmentation': 'none',
    'num_operations': 2,  # of rand_augment
    'magnitude': 9,  # of rand_augment, 0 to 30
    'crop': 'none',  # or 'padded', 'resized'
    'crop_padding': 4,  # pixels
    'flip': 0.0,  # probability of exchanging left and right
    'noise_doubling': 0.0,  # noise on a copy of every batch; 0: off
    'monitor': 'loss',  # what chooses the epoch; or 'accuracy', 'macro_f1'
    'early_limit': 0,  # epochs without a new best; 0: go on to the end
    'replacement_limit': 0,  # epochs until the best comes back; 0: never
    'num_runs': 1,  # trainings with seeds of their own, see experiments.train
    'tensorboard': True,
    'placement': 'auto',  # of the training images; or 'device', 'host'
  })


def _factors() -> tuple[ConfigDict, tuple[str, ...]]:
  """Marginals by chaospy's names, and the order in which they act."""
  uniform = lambda lower, upper: {
    'distribution': 'Uniform', 'lower': lower, 'upper': upper
  }
  factors = ConfigDict({
    'brightness': uniform(0.0, 2.0),
    'rotation': uniform(-90.0, 90.0),
    'tilt': uniform(-20.0, 20.0),
  })
  return factors, ('brightness', 'rotation', 'tilt')


def _gpc() -> ConfigDict:
  return ConfigDict({
    # Runs are added until the intervals are narrow enough; or a fixed design:
    # 'tensor_gauss', 'latin_hypercube', 'sobol_sequence'.
    'design': 'adaptive',
    'tolerance': 0.02,  # half-width of the intervals that is aimed at
    'max_evaluations': 1024,  # per image
    'min_evaluations': 64,
    'max_half_width': 0.05,  # above it the report refuses the indices
    'fallback_evaluations': 4096,  # per image that no surrogate describes
    # From here on: of fixed designs.
    'num_nodes': {'brightness': 10, 'rotation': 32, 'tilt': 8},
    'num_samples': 2000,  # of a random design
    'truncation': 'tensor',  # or 'total', 'hyperbolic'
    # -1: all that the quadrature carries; 6 for a random design
    'degrees': {'brightness': -1, 'rotation': -1, 'tilt': -1},
    'degree': 6,  # of the total and hyperbolic truncations
    'q': 0.75,
    'max_interaction': 0,  # 0: no limit
    'num_held_out': 512,
    'num_resamples': 400,
    'level': 0.95,
    'min_q2': 0.9,
  })


def _make_small(config: ConfigDict) -> None:
  config.data.synthetic_width = 32
  config.data.synthetic_per_class = 5
  config.data.num_images = 2
  config.model.image_size = 32
  config.training.num_epochs = 1
  config.training.batch_size = 8
  config.gpc.max_evaluations = 64
  config.gpc.min_evaluations = 32
  config.gpc.fallback_evaluations = 64
  config.gpc.num_nodes = {'brightness': 3, 'rotation': 5, 'tilt': 3}
  config.gpc.num_held_out = 16
  config.gpc.num_resamples = 50
  config.evaluation.batch_size = 8
  config.report.num_line_nodes = 5
  config.report.num_plane_nodes = 3
  config.report.num_contact_images = 3
  config.report.num_worst_starts = 0


def _make_line(config: ConfigDict) -> None:
  """What a camera above a running line sees change; lengths at 64 pixels."""
  uniform = lambda lower, upper: ConfigDict({
    'distribution': 'Uniform', 'lower': lower, 'upper': upper
  })
  config.factors = ConfigDict({
    'exposure': uniform(-1.0, 1.0),  # stops
    'rotation': uniform(-10.0, 10.0),
    'translation_x': uniform(-0.1, 0.1),
    'defocus': uniform(0.0, 2.5),  # radius, px
    'motion_blur': uniform(0.0, 6.0),  # length, px
    'gaussian_noise': uniform(0.0, 0.1),
  })
  # The light falls, the part lies, the camera answers.
  config.factor_order = (
    'exposure', 'rotation', 'translation_x', 'defocus', 'motion_blur',
    'gaussian_noise',
  )


def _make_paper(config: ConfigDict) -> None:
  config.data.frame_width = 800
  config.data.synthetic_width = 256
  config.data.num_images = 1
  config.model.image_size = 244
  config.training.image_size = 224
  config.training.num_epochs = 3
  config.perturbation.convention = 'paper'
  config.gpc.design = 'latin_hypercube'
  config.gpc.num_samples = 10000
  config.gpc.degree = 6
