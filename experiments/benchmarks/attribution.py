"""Attributions beside captum's: agreement, speed, memory, steps, in one run.

Networks of torchvision with random weights, the same ones in ours (batch norm
folded, kernels in the fastest form), float32, random RGB images.

    agreement   max |ours - captum| / max |captum| of an image at the same
                settings, largest of the images, in float32 and in float64;
                'DeepLIFT' with captum's two faults behind max pools repaired,
                'DeepLIFT, as shipped' without; 'saliency, captum beside
                itself': its two layouts of torch. Where rounding moves a kink
                of the network gradients in float32 differ by much
    speed       gradients (or images) per second, captum in both memory layouts
                of torch; ratio = median over rounds of ours / captum's faster
    memory      largest resident memory of a process of its own, less that of
                the same process before it explains anything
    steps       gradients until the completeness error is below the tolerance:
                fixed rules of Gauss and Legendre of growing numbers of steps,
                and the adaptive rule; error of the map = sum |map - dense map|
                over sum |dense map|; on photographs with public weights where
                there are some

    python -m experiments.benchmark --suite=attribution

What is not on this machine is left out with a line that says so.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import pathlib
import statistics
import subprocess
import sys
from typing import Any

import jax
import numpy as np

from experiments.benchmarks import races
from experiments.benchmarks import weights
from jaxsens import classifiers
from jaxsens.attribution import cam
from jaxsens.attribution import conductance
from jaxsens.attribution import deeplift
from jaxsens.attribution import gradients
from jaxsens.attribution import infidelity
from jaxsens.attribution import integrals
from jaxsens.attribution import maps
from jaxsens.attribution import rectifiers
from jaxsens.models import inference
from jaxsens.models import registry
from jaxsens.weights import convert

Log = Callable[[str], Any]

OURS = 'ours'
SECTIONS = ('agreement', 'speed', 'memory', 'steps')
# The layer of activation maps and of conductance, and one far from the end.
LAYERS = {
  'resnet18': ('layer4.1', 'layer3.0'),
  'squeezenet1_1': ('features.12', 'features.7'),
}
PUBLIC = {'resnet18': 'resnet18.pqf', 'squeezenet1_1': 'squeezenet1_1.fp16'}
_NUM_CLASSES = 10
TARGET = 3


def run(
  log: Log,
  *,
  parts: Sequence[str] = SECTIONS,
  networks: Sequence[str] = tuple(LAYERS),
  image_size: int = 224,
  num_images: int = 2,
  precisions: Sequence[str] = ('float32', 'float64'),
  batch_size: int = 8,
  num_steps: int = 16,
  speed_steps: int = 200,
  num_explained: int = 32,
  seconds: float = 1.0,
  num_rounds: int = 5,
  memory_steps: int = 50,
  steps_image_size: int = 112,
  num_photos: int = 8,
  tolerance: float = 1e-3,
  max_steps: int = 400,
) -> dict[str, Any]:
  """Compares.

  Args:
    log: receives one line of text at a time.
    parts: of `SECTIONS`.
    networks: keys of `LAYERS`.
    image_size: pixels per side.
    num_images: of agreement and memory.
    precisions: of agreement.
    batch_size: images that go through a network together.
    num_steps: of integrals in agreement.
    speed_steps: of integrals in speed, where one image is a unit of work.
    num_explained: images in speed of a unit of work of the other methods, gone
      through `batch_size` at a time by all.
    seconds: of work of each contestant in each round.
    num_rounds: rounds.
    memory_steps: steps of the integral whose memory is measured.
    steps_image_size: pixels per side of the photographs.
    num_photos: photographs.
    tolerance: relative completeness error.
    max_steps: most gradients that a rule may take.

  Returns:
    {section: {measure: {row: number}}}.
  """
  unknown = sorted(set(parts) - set(SECTIONS))
  if unknown:
    raise ValueError(f'parts must be among {SECTIONS}, got {unknown}.')
  twins = import_twins(log)
  result: dict[str, Any] = {}
  for name in networks:
    for precision in precisions if 'agreement' in parts and twins else ():
      log(f'{name}: agreement, {precision}')
      with jax.enable_x64(precision == 'float64'):
        found = _agreement(
          twins, name, image_size, num_images, num_steps, precision
        )
      _add(result, 'agreement', f'{name}, {precision}', found)
    if 'speed' in parts:
      log(f'{name}: speed')
      for row, measures in _speed(
        twins, name, image_size, batch_size, num_explained, speed_steps,
        seconds, num_rounds,
      ).items():
        _add(result, 'speed', f'{name}, {row}', measures)
        log(f'{name}, {row}: ' + ', '.join(
          f'{n} {value:.3g}' for n, value in measures.items()
        ))
    if 'memory' in parts:
      log(f'{name}: memory')
      _add(result, 'memory', name, _memory(
        name, image_size, num_images, memory_steps, twins is not None, log
      ))
    if 'steps' in parts:
      found = _steps(
        name, steps_image_size, num_photos, tolerance, max_steps, log
      )
      if found:
        _add(result, 'steps', name, found)
  return result


def _add(result, section, row, measures: Mapping[str, float]) -> None:
  for measure, value in measures.items():
    result.setdefault(section, {}).setdefault(measure, {})[row] = value


def import_twins(log: Log):
  """Returns the module of captum's networks, or None where it is absent."""
  try:
    from third_party.pytorch_baselines import torchvision_import

    torchvision_import.load()
    from third_party.pytorch_baselines import captum_twins
  except ImportError as error:
    log(f'captum is left out: {error}')
    return None
  return captum_twins


def pair(twins, name: str, size: int, precision: str = 'float32'):
  """Returns the classifier, and torch's network of the same weights."""
  image_size = (size, size)
  options = dict(
    preprocess=classifiers.identity, image_size=image_size, channels=3,
    class_names=tuple(map(str, range(_NUM_CLASSES))),
  )
  model = registry.create(name, jax.random.key(0), _NUM_CLASSES)
  network = None
  if twins is not None:
    network, arrays = twins.create(name, _NUM_CLASSES, size, precision)
    model = convert.load(name, model, arrays).model
  return inference.classifier(model, dtype=precision, **options), network


def random_images(number: int, size: int) -> np.ndarray:
  """Returns images (number, size, size, 3) in [0, 1]."""
  return np.random.default_rng(0).random((number, size, size, 3), np.float32)


def _agreement(twins, name, size, num_images, num_steps, precision):
  classifier, network = pair(twins, name, size, precision)
  images = random_images(num_images, size).astype(precision)
  x = twins.tensor(images)
  last, inner = LAYERS[name]
  arguments = (classifier, images, TARGET)
  theirs = lambda method, **options: twins.array(
    twins.attribute(network, method, x, TARGET, **options)
  )
  found = {}
  for method, function in (
    ('saliency', gradients.saliency),
    ('gradient x input', gradients.gradient_x_input),
    ('guided backpropagation', rectifiers.guided_backpropagation),
    ('deconvolution', rectifiers.deconvolution),
  ):
    found[method] = _difference(function(*arguments).values, theirs(method))
  found['integrated gradients'] = _difference(
    integrals.integrated_gradients(*arguments, num_steps=num_steps).values,
    theirs(
      'integrated gradients', n_steps=num_steps, internal_batch_size=8
    ),
  )
  ours = deeplift.deeplift(*arguments).values
  found['DeepLIFT, as shipped'] = _difference(ours, theirs('DeepLIFT'))
  found['Grad-CAM'] = _difference(
    cam.layer_maps(*arguments, layer=last, kind='grad_cam'),
    twins.grad_cam(network, last, x, TARGET),
  )
  found['conductance'] = _difference(
    conductance.conductance(
      *arguments, layer=inner, num_steps=num_steps
    ).values, twins.conductance(network, inner, x, TARGET, num_steps),
  )
  changes = 0.05 * np.random.default_rng(1).standard_normal(
    (num_images, 4, *images.shape[1:])
  ).astype(precision)
  signed = gradients.saliency(*arguments, absolute=False).values
  found['infidelity'] = _difference(
    infidelity.infidelity(
      None, classifier, images, signed, TARGET, perturbations=changes
    ).values,
    twins.infidelity(network, x, twins.tensor(signed), TARGET, changes),
  )
  found['saliency, captum beside itself'] = _difference(
    theirs('saliency'), twins.array(twins.attribute(
      network.to(memory_format=twins.FORMATS['channels_last']), 'saliency',
      twins.tensor(images, 'channels_last'), TARGET,
    )),
  )
  network = twins.apart(network.to(memory_format=twins.FORMATS['NCHW']))
  with twins.summed_unpooling():
    found['DeepLIFT'] = _difference(ours, theirs('DeepLIFT'))
  return found


def _difference(ours, theirs) -> float:
  places = tuple(range(1, np.ndim(theirs)))
  scales = np.abs(theirs).max(places)
  if not np.all(scales > 0):
    raise ValueError('captum attributes nothing: the score does not change.')
  return float((np.abs(ours - theirs).max(places) / scales).max())


def _speed(
  twins, name, size, batch, number, num_steps, seconds, num_rounds
):
  """Returns rates and ratios by kind of work."""
  classifier, network = pair(twins, name, size)
  layer = LAYERS[name][0]
  one, many = random_images(1, size), random_images(number, size)
  target = np.full(1, TARGET), np.full(number, TARGET)

  def repeated(call):
    def run(repeats):
      for _ in range(repeats):
        call()

    return run

  def in_batches(call):
    def run(twin, images):
      for part in images.split(batch):
        call(twin, part)

    return run

  attribute = lambda method: in_batches(
    lambda twin, part: twins.attribute(twin, method, part, TARGET)
  )
  one_pass = (classifier, many, target[1])
  work = {
    'integrated gradients': (num_steps, lambda: integrals.integrated_gradients(
      classifier, one, target[0], num_steps=num_steps, chunk_size=batch
    ), lambda twin, images: twins.attribute(
      twin, 'integrated gradients', images[:1], TARGET, n_steps=num_steps,
      internal_batch_size=batch,
    )),
    'Grad-CAM': (number, lambda: cam.activation_map(
      *one_pass, layer=layer, chunk_size=batch
    ), in_batches(
      lambda twin, part: twins.grad_cam(twin, layer, part, TARGET)
    )),
    'saliency': (number, lambda: gradients.saliency(
      *one_pass, chunk_size=batch
    ), attribute('saliency')),
    'DeepLIFT': (number, lambda: deeplift.deeplift(
      *one_pass, chunk_size=batch
    ), attribute('DeepLIFT')),
    'guided backpropagation': (
      number, lambda: rectifiers.guided_backpropagation(
        *one_pass, chunk_size=batch
      ), attribute('guided backpropagation'),
    ),
  }
  results = {}
  for kind, (amount, ours, theirs) in work.items():
    contestants = [races.Contestant(
      OURS, 'network', 'float32', amount, repeated(ours), batch
    )]
    for layout in twins.FORMATS if twins is not None else ():
      twin = network.to(memory_format=twins.FORMATS[layout])
      call = _in_layout(twins, twin, layout, theirs, many)
      contestants.append(races.Contestant(
        f'captum, {layout}', 'captum', 'float32', amount, repeated(call), batch
      ))
    rates = races.race(
      contestants, seconds=seconds, num_rounds=num_rounds, log=lambda _: None
    )
    results[kind] = {w: statistics.median(x) for w, x in rates.items()}
    if len(rates) > 1:
      best = races.fastest({w: x for w, x in rates.items() if w != OURS})
      ratios = [a / b for a, b in zip(rates[OURS], best, strict=True)]
      results[kind] |= {
        'ratio': statistics.median(ratios), 'least_ratio': min(ratios),
        'largest_ratio': max(ratios),
      }
  return results


def _in_layout(twins, network, layout, call, images):
  image = twins.tensor(images, layout)

  def run():
    network.to(memory_format=twins.FORMATS[layout])
    call(network, image)

  return run


def _memory(name, size, num_images, num_steps, with_captum, log):
  """Returns MiB of ours, and of captum where it goes through all at once."""
  found = {}
  for who in (OURS, 'captum', 'captum, 8 at a time')[: 3 if with_captum else 1]:
    done = subprocess.run(
      [sys.executable, '-m', 'experiments.benchmarks.attribution_memory', who,
       name, str(size), str(num_images), str(num_steps)],
      capture_output=True, text=True, check=False,
      cwd=pathlib.Path(__file__).parents[2],
    )
    if done.returncode:
      log(f'memory of {who} is left out: {done.stderr.strip()[-300:]}')
      continue
    found[who] = float(done.stdout.split()[-1])
  if 'captum' in found:
    found['share'] = found[OURS] / found['captum']
  return found


def _steps(name, size, num_photos, tolerance, max_steps, log):
  """Returns medians over photographs, and how many reach the tolerance."""
  try:
    classifier, images = weights.photographs(PUBLIC[name], size, num_photos)
  except FileNotFoundError as error:
    log(f'{name}: steps are left out: {error}')
    return {}
  targets = maps.as_targets(classifier, images, None)
  explain = lambda **options: integrals.integrated_gradients(
    classifier, images, targets, **options
  )
  log(f'{name}: steps: adaptive')
  adaptive = explain(
    rule='adaptive', num_steps=max_steps, tolerance=tolerance
  )
  dense = explain(rule='midpoint', num_steps=2 * max_steps).heat_maps
  error = lambda found: np.abs(found.heat_maps - dense).sum((1, 2)) / np.abs(
    dense
  ).sum((1, 2))
  needed = np.full(len(images), np.inf)
  at_equal = np.full(len(images), np.nan)
  for number in (10, 15, 20, 30, 40, 50, 75, 100, 150, 200, 300, 400):
    if number > max_steps:
      break
    fixed = explain(num_steps=number)
    reached = fixed.relative_completeness_error <= tolerance
    needed = np.where(reached & np.isinf(needed), number, needed)
    larger = np.isnan(at_equal) & (number >= adaptive.num_gradients)
    at_equal = np.where(larger, error(fixed), at_equal)
    log(f'{name}: steps: {number} fixed, {np.isfinite(needed).sum()} images')
  return {
    'adaptive': float(np.median(adaptive.num_gradients)),
    'adaptive_reached': int(
      (adaptive.relative_completeness_error <= tolerance).sum()
    ),
    'fixed': float(np.median(np.minimum(needed, max_steps))),
    'fixed_reached': int(np.isfinite(needed).sum()),
    'ratio': float(np.median(
      adaptive.num_gradients / np.minimum(needed, max_steps)
    )),
    'map_error_adaptive': float(np.median(error(adaptive))),
    'map_error_fixed_as_many': float(np.nanmedian(at_equal)),
    'images': len(images),
  }
