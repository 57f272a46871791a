"""Prints the MiB that integrated gradients add to a process.

    python -m experiments.benchmarks.attribution_memory WHO NETWORK SIZE IMAGES
      STEPS

WHO is 'ours', 'captum' (all steps of all images in one batch, its default) or
'captum, 8 at a time'.
"""

import sys

from experiments.benchmarks import attribution
from jaxsens.attribution import integrals


def main(
  who: str, name: str, size: int, num_images: int, num_steps: int
) -> None:
  """Explains once and prints what the largest resident memory grew by."""
  twins = None if who == attribution.OURS else attribution.import_twins(print)
  classifier, network = attribution.pair(twins, name, size)
  images = attribution.random_images(num_images, size)
  before = peak()
  if twins is None:
    integrals.integrated_gradients(
      classifier, images, attribution.TARGET, num_steps=num_steps
    )
  else:
    options = {} if who == 'captum' else {'internal_batch_size': 8}
    twins.attribute(
      network, 'integrated gradients', twins.tensor(images),
      attribution.TARGET, n_steps=num_steps, **options,
    )
  print(peak() - before)


def peak() -> float:
  """Returns the largest resident memory of this process so far, MiB."""
  with open('/proc/self/status') as file:
    for line in file:
      if line.startswith('VmHWM'):
        return int(line.split()[1]) / 1024
  raise OSError('/proc/self/status has no VmHWM')


if __name__ == '__main__':
  main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6]))
