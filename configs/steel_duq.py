"""Does a classifier of steel surfaces know when it is lost?

  python -m experiments.train_duq --config=configs/steel_duq.py

The network, the images and the factors of configs/steel.py, trained with a
kernel per class in place of the softmax (`jaxsens.uncertainty.duq`). Every
experiment takes this config: `experiments.gpc` gives Sobol indices of the
certainty, `experiments.evaluate` the assessment.

  --config.duq.length_scales="(0.1,0.3)" --config.duq.penalties="(0.0,0.5)"

chooses among these by the validation images.

Variants, as `--config=configs/steel_duq.py:NAME`:

  six    six factors, see configs/steel.py
  small  everything in seconds, for tests; its numbers mean nothing
"""

from ml_collections import ConfigDict

from configs import steel

QUANTITIES = ('certainty', 'kernel', 'kernels', 'margin', 'correctness')
"""What is read off the kernels; the first is what the report is about."""


def get_config(arg: str = '') -> ConfigDict:
  """Returns the configuration; `arg` names a variant."""
  config = steel.get_config(arg)
  config.name = f'steel_duq-{arg}' if arg else 'steel_duq'
  add_kernels(config)
  return config


def add_kernels(config: ConfigDict) -> None:
  """Replaces the softmax of a config by kernels."""
  config.duq = make_duq()
  config.quantities = QUANTITIES
  config.model.dropout = 0.0  # it sat in the head
  # The worst case is looked for along probabilities.
  config.report.num_worst_starts = 0


def make_duq() -> ConfigDict:
  """Returns the fields of a head with kernels and of its training."""
  return ConfigDict({
    'num_dimensions': 0,  # of the embedding; 0: as many as features
    'length_scale': 0.1,
    'initial_count': 0.0,  # of a class; 0: batch size / classes
    'penalty': 0.0,  # weight of the gradient penalty; the paper's is 0.5
    'decay': 0.99,  # of the centroids; 0.999 for long trainings
    'norm_power': 1,  # of the gradient in the penalty, or 2
    'sides': 'two',  # or 'one': gradients may be shorter
    # 'eval': from a second pass with the new weights and the running moments,
    # as the reference does; 'train': from the pass before the step.
    'centroids': 'eval',
    # Candidates of experiments.train_duq; none: the values above.
    'length_scales': (),
    'penalties': (),
  })
