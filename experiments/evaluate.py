r"""Assesses the classifier of a config on its test images.

  python -m experiments.evaluate --config=configs/steel.py
  python -m experiments.evaluate --config=configs/steel.py \
    --coverage=0.8,0.9,0.95 --num_annotated=24

Trains on first use, as `experiments.train` does. Writes `evaluation.json`,
`evaluation.html` and `predictions.csv` into the run directory: accuracy,
balanced accuracy, macro and weighted F1, AUC, calibration, what refusing the
least confident gains, a report per class, all with 95 % bootstrap intervals
(over recordings where those are known); the least certain and the wrong answers
as pictures; images per second, parameters, FLOPs, size; and a linear baseline
(principal components, logistic regression) on the same split.

`--coverage` are the shares of images to be answered. The least certainty that
is accepted for each comes from the validation images, images of equal certainty
being accepted together; what it does is told of the test images. The first one
is that of the pictures and of the column `accepted` in `predictions.csv`.
`--num_annotated` of the test images, the least certain first, -1 for all, are
written one by one to `annotated`, with answer and certainty bar.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import pathlib
import time

from absl import app
from absl import flags
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np

from experiments import evaluation_files
from experiments import runs
from experiments import train
from jaxsens import assessment
from jaxsens import classifiers
from jaxsens.data import image_sets
from jaxsens.models import registry
from jaxsens.models import states
from jaxsens.reports import assessment_page
from jaxsens.training import linear_baseline
from jaxsens.uncertainty import duq
from jaxsens.uncertainty import scores
from jaxsens.uncertainty import selection

_BASELINE = flags.DEFINE_bool(
  'linear_baseline', True, 'Fit the linear baseline as well.'
)
_COVERAGE = flags.DEFINE_list(
  'coverage', ['0.9'], 'Shares of the images to be answered, in (0, 1].'
)
_ANNOTATED = flags.DEFINE_integer(
  'num_annotated', 0, 'Test images to write with answer and certainty; -1: all.'
)
_BATCHES = (1, 8, 32)
_BASELINE_NUMBERS = 64**2  # of an image, which the linear baseline takes


def run(
  config: ConfigDict,
  workdir: pathlib.Path,
  *,
  with_baseline: bool = True,
  num_samples: int = 500,
  coverages: Sequence[float] = (0.9,),
  num_annotated: int = 0,
) -> dict:
  """Assesses; returns the measures by name."""
  if not all(0 < share <= 1 for share in coverages):
    raise ValueError(f'coverage must be in (0, 1], got {tuple(coverages)}')
  runs.start(config, workdir)
  key_data, key_train, _, _, key_bootstrap = runs.split_keys(config)
  splits = train.load_data(key_data, config)
  trained = train.train_or_restore(
    key_train, config, workdir, lambda: splits
  )
  classifier = trained.classifier
  name = 'test' if len(splits.test) else 'validation'
  part = getattr(splits, name)
  images = image_sets.resize_all(part.images, classifier.image_size)
  logits = answer(classifier, images)
  parts = {name: assessment.assess(
    key_bootstrap, logits, part.labels, part.class_names,
    groups=_groups(part), num_samples=num_samples,
  )}
  if with_baseline and len(splits.train):
    runs.LOG.info('Fitting the linear baseline')
    parts['linear baseline'] = _baseline(
      key_bootstrap, splits, name, num_samples
    )
  speed = measure_speed(classifier, images)
  facts = describe(config, trained, part)
  certainty = certainty_of(classifier, logits)
  thresholds, note = _thresholds(classifier, splits, coverages)
  refusals = [
    assessment.assess_refusal(
      key_bootstrap, one, certainty, logits.argmax(1) == part.labels,
      groups=_groups(part), num_samples=num_samples,
    )
    for one in thresholds
  ]
  evaluation_files.write(
    workdir,
    evaluation_files.Found(
      facts, parts, speed, part, images, logits, certainty, refusals, note
    ), num_annotated=num_annotated,
  )
  if not refusals:
    runs.LOG.info('Nothing is refused: %s', note)
  for one in refusals:
    runs.LOG.info(
      'coverage %g asked: %s', one.threshold.asked, ', '.join(
        f'{name} {found.value:.4f}' for name, found in one.measures.items()
      ),
    )
  for measure, found in parts[name].measures.items():
    runs.LOG.info('%-24s %s', measure, assessment_page.describe(found))
  runs.LOG.info('Page: %s', workdir / 'evaluation.html')
  return {m: found.value for m, found in parts[name].measures.items()}


def answer(
  classifier: classifiers.Classifier, images: np.ndarray, batch: int = 32
) -> np.ndarray:
  """Returns the logits (N, K) of images (N, H, W, C)."""
  evaluate = jax.jit(lambda classifier, x: classifier(x))
  batches = []
  for start in range(0, len(images), batch):
    chosen = images[start : start + batch]
    padded = np.resize(chosen, (batch, *images.shape[1:]))
    batches.append(np.asarray(evaluate(classifier, padded))[: len(chosen)])
  return np.concatenate(batches)


def certainty_of(
  classifier: classifiers.Classifier, logits: np.ndarray
) -> np.ndarray:
  """Returns the largest softmax probability, or kernel, (N,)."""
  if classifier.answers == 'log_kernels':
    return np.asarray(duq.certainty(logits))
  return np.asarray(scores.maximum_probability(logits))


def measure_speed(
  classifier: classifiers.Classifier,
  images: np.ndarray,
  *,
  batches: Sequence[int] = _BATCHES,
  seconds: float = 1.0,
) -> list[dict[str, float]]:
  """Returns milliseconds and images per second, warm and synchronised.

  Args:
    classifier: what answers.
    images: (N, H, W, C), repeated where more are needed.
    batches: numbers of images at a time.
    seconds: of each measurement, about.
  """
  evaluate = jax.jit(lambda classifier, x: classifier(x))
  rows = []
  for batch in batches:
    inputs = jnp.asarray(np.resize(images, (batch, *images.shape[1:])))
    for _ in range(2):
      jax.block_until_ready(evaluate(classifier, inputs))
    times, start = [], time.perf_counter()
    while time.perf_counter() - start < seconds or len(times) < 3:
      begun = time.perf_counter()
      jax.block_until_ready(evaluate(classifier, inputs))
      times.append(time.perf_counter() - begun)
    median = float(np.median(times))
    rows.append({
      'batch': batch, 'milliseconds': 1000 * median,
      'images_per_second': batch / median,
    })
  return rows


def race(
  calls: Mapping[str, Callable[[], object]], num_rounds: int = 7
) -> dict[str, float]:
  """Returns the median milliseconds of calls that take turns, once warm."""
  times: dict[str, list[float]] = {name: [] for name in calls}
  for i in range(num_rounds + 1):
    for name, call in calls.items():
      begun = time.perf_counter()
      call()
      if i:
        times[name].append(time.perf_counter() - begun)
  return {name: 1000 * float(np.median(t)) for name, t in times.items()}


def describe(config, trained, part) -> dict:
  """Returns what network and data are, by name."""
  arrays = states.flatten(trained.network)
  size = (*trained.classifier.image_size, trained.classifier.channels)
  note = {}
  if trained.classifier.answers == 'log_kernels':
    note['probabilities'] = (
      'kernels divided by their sum; certainty: the largest kernel'
    )
  return note | {
    'network': config.model.name,
    'input': f'{size[0]} x {size[1]} pixels, {size[2]} channels',
    'parameters': f'{registry.num_parameters(trained.network):,}',
    'multiply-adds of an image': (
      f'{registry.flops(trained.network, size) / 2e6:,.0f} million'
    ),
    'size of its arrays': (
      f'{sum(x.nbytes for x in arrays.values()) / 2**20:.1f} MiB'
    ),
    'trained on': trained.metadata.data,
    'assessed on': f'{len(part)} images of {part.description}',
  }


def _thresholds(
  classifier, splits, coverages
) -> tuple[list[selection.Threshold], str]:
  """Thresholds by the validation images, and a sentence on them."""
  part = splits.validation
  if not len(part) or not len(splits.test):
    missing = 'validation' if len(splits.test) else 'test'
    return [], (
      f'There are no {missing} images: a threshold is chosen by the validation '
      'images and judged on the test images, and so there is none.'
    )
  certainty = certainty_of(classifier, answer(
    classifier, image_sets.resize_all(part.images, classifier.image_size)
  ))
  return [selection.choose_threshold(certainty, c) for c in coverages], (
    f'Each threshold is the largest that accepts at least its share of the '
    f'{len(part)} validation images, equal certainties together; it is judged '
    'on the test images. The validation images also chose the epoch.'
  )


def _groups(part) -> tuple[str, ...] | None:
  """Recordings, where some hold several images."""
  groups = part.groups
  return groups if len(set(groups)) < len(groups) else None


def _baseline(key, splits, name, num_samples):
  channels = splits.train.images[0].shape[-1]
  size = (int((_BASELINE_NUMBERS / channels) ** 0.5),) * 2
  train_images, images = (
    image_sets.resize_all(part.images, size)
    for part in (splits.train, getattr(splits, name))
  )
  fitted = linear_baseline.fit(train_images, splits.train.labels)
  part = getattr(splits, name)
  return assessment.assess(
    key, linear_baseline.logits(fitted, images, len(part.class_names)),
    part.labels, part.class_names, groups=_groups(part),
    num_samples=num_samples,
  )


def _shares(texts: Sequence[str]) -> tuple[float, ...]:
  try:
    return tuple(map(float, texts))
  except ValueError as error:
    raise ValueError(f'--coverage needs numbers, got {texts}') from error


if __name__ == '__main__':
  app.run(runs.make_main(
    lambda config, workdir: run(
      config, workdir, with_baseline=_BASELINE.value,
      coverages=_shares(_COVERAGE.value), num_annotated=_ANNOTATED.value,
    )
  ))
