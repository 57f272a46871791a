"""Does a weld classifier know when it is lost?

  python -m experiments.train_duq --config=configs/weld_duq.py

The network, the frames and the factors of configs/weld.py with kernels in place
of the softmax; options and other uses as in configs/steel_duq.py.

Variants, as `--config=configs/weld_duq.py:NAME`:

  line   what a camera above a running line sees change, see configs/weld.py
  small  everything in seconds, for tests; its numbers mean nothing
"""

from ml_collections import ConfigDict

from configs import steel_duq
from configs import weld

_VARIANTS = ('', 'line', 'small')


def get_config(arg: str = '') -> ConfigDict:
  """Returns the configuration; `arg` names a variant."""
  if arg not in _VARIANTS:
    raise ValueError(f'configs/weld_duq.py: unknown variant {arg!r}, expected '
                     f'one of {", ".join(filter(None, _VARIANTS))}')
  config = weld.get_config(arg)
  config.name = f'weld_duq-{arg}' if arg else 'weld_duq'
  steel_duq.add_kernels(config)
  return config
