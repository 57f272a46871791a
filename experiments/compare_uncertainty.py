"""Compares ways of telling how sure a classifier is.

  python -m experiments.compare_uncertainty \\
    --config=configs/steel_uncertainty.py

Networks of several seeds are trained on one split, or restored, each in a
directory of its own. The test images are what is known; `comparison.out_sets`
are not. Writes `uncertainty.json`, `uncertainty.csv` and `uncertainty.html`:
accuracy, likelihood and calibration where a method has probabilities, how well
the certainty tells wrong answers (AUROC, AURC) and unknown images (AUROC, AUPR
both ways, FPR95), with intervals over images and differences from the largest
softmax probability; and coverage and size of conformal sets.
"""

from collections.abc import Callable
from collections.abc import Mapping
import csv
import dataclasses
import functools
import io
import pathlib

from absl import app
import jax
from ml_collections import ConfigDict
import numpy as np
from scipy import special

from experiments import runs
from experiments import train
from experiments import unknown_images
from jaxsens import files
from jaxsens.data import image_sets
from jaxsens.models import inference
from jaxsens.reports import uncertainty_page
from jaxsens.uncertainty import calibration
from jaxsens.uncertainty import comparison
from jaxsens.uncertainty import conformal
from jaxsens.uncertainty import ensembles
from jaxsens.uncertainty import gaussian_density
from jaxsens.uncertainty import scores
from jaxsens.uncertainty import sngp

BASELINE = 'maximum probability'
_BATCH = 32
_KNOWN = ('train', 'validation', 'test')
_NUM_CALIBRATIONS = 50
_SETS = (
  conformal.Method('thr'), conformal.Method('aps'),
  conformal.Method('raps', penalty=0.05, free_ranks=1),
)


@dataclasses.dataclass(frozen=True)
class Data:
  """Images by part, of the size of the network, and the labels of the known.

  Attributes:
    images: 'train', 'validation', 'test' and the unknown sets.
    labels: of the first three, in 0..K-1 of the known classes.
    columns: (K,) logits of the known classes.
  """

  images: Mapping[str, np.ndarray]
  labels: Mapping[str, np.ndarray]
  columns: np.ndarray


@dataclasses.dataclass(frozen=True)
class Outputs:
  """What a network says of the images of a part.

  Attributes:
    features: (N, D) what the head takes.
    logits: (N, K).
    samples: (S, N, K) under dropout; S is 0 where the network has none, or
      for the training images.
  """

  features: np.ndarray
  logits: np.ndarray
  samples: np.ndarray


@dataclasses.dataclass(frozen=True)
class Method:
  """A way of telling how sure an answer is, fitted.

  Attributes:
    name: of the method.
    judge: outputs -> certainty (N,), and logits (N, K) of the answers.
    probabilistic: whether the softmax of these logits is its own claim.
  """

  name: str
  judge: Callable[[Outputs], tuple[np.ndarray, np.ndarray]]
  probabilistic: bool = False


def run(config: ConfigDict, workdir: pathlib.Path) -> dict:
  """Trains, judges and compares; returns what was written."""
  runs.start(config, workdir)
  asked = config.comparison
  if asked.num_seeds < 1:
    raise ValueError(
      f'comparison.num_seeds must be at least 1, got {asked.num_seeds}'
    )
  key_data, _, key_out, key_fit, key_bootstrap = runs.split_keys(config)
  splits, held_out = unknown_images.without_classes(
    train.load_data(key_data, config), asked.held_out_classes
  )
  trained = [
    _train(config, config.seed + i, workdir, splits)
    for i in range(asked.num_seeds)
  ]
  data = _data(key_out, config, splits, held_out, trained[0].classifier)
  outputs, found = [], {}
  for i, one in enumerate(trained):
    runs.LOG.info('Judging with network %d of %d', i + 1, len(trained))
    key = jax.random.fold_in(key_fit, i)
    outputs.append(_outputs(key, one, data, asked.num_dropout_samples))
    for method in fit_methods(key, asked, outputs[-1], data.labels):
      found.setdefault(method.name, []).append(
        _answers(method, outputs[-1], data.labels['test'])
      )
  if len(outputs) > 1:
    members = _joined(outputs)
    for method in ensemble_methods():
      found[method.name] = [_answers(method, members, data.labels['test'])]
  if 'kernels' in asked:
    found['DUQ'] = []
    for i in range(asked.num_seeds):
      one = _train(config, config.seed + i, workdir, splits, kernels=True)
      found['DUQ'].append(_answers(
        kernel_method(), _outputs(key_fit, one, data, 0), data.labels['test']
      ))
  runs.LOG.info('Resampling')
  rows = comparison.compare(
    key_bootstrap, found, baseline=BASELINE, num_samples=asked.num_resamples
  )
  result = {
    'facts': _facts(config, trained, data),
    'baseline': BASELINE,
    'larger_is_better': comparison.LARGER_IS_BETTER,
    'out_sets': [n for n in data.images if n not in _KNOWN],
    'rows': [row.as_dict() for row in rows],
    'conformal': _conformal(key_bootstrap, asked, outputs[0], data.labels),
  }
  _write(workdir, result)
  return result


def fit_methods(
  key: jax.Array,
  asked: ConfigDict,
  outputs: Mapping[str, Outputs],
  labels: Mapping[str, np.ndarray],
) -> list[Method]:
  """Returns the methods that one trained softmax network serves.

  Args:
    key: of the random features.
    asked: `comparison` of the config.
    outputs: of the training, validation and test images at least.
    labels: of the training and validation images.
  """
  logits = lambda o: o.logits
  methods = [
    Method(BASELINE, _plain(scores.maximum_probability), True),
    Method('entropy', _plain(scores.negative_entropy)),
    Method('energy', _plain(scores.negative_energy)),
  ]
  if 'validation' in labels and len(labels['validation']):
    temperature = calibration.fit_temperature(
      outputs['validation'].logits, labels['validation']
    )
    methods.insert(1, Method(
      'maximum probability, temperature', lambda o: (
        scores.maximum_probability(o.logits / temperature),
        o.logits / temperature,
      ), True,
    ))
  if len(outputs['test'].samples):
    methods += _of_samples('dropout')
  features, truth = outputs['train'].features, labels['train']
  number = outputs['train'].logits.shape[1]
  for name, shared in (('Gaussian per class (DDU)', False),
                       ('Mahalanobis', True)):
    fitted = gaussian_density.fit(
      features, truth, number, shared=shared,
      shrinkage=_shrinkage(asked, outputs, labels, number, shared),
    )
    score = fitted.nearness if shared else fitted.score
    methods.append(Method(
      name, lambda o, score=score: (_batched(score, o.features), logits(o))
    ))
  for name, likelihood in (('SNGP head', 'gaussian'),
                           ('SNGP head, Laplace', 'laplace')):
    head = sngp.fit(
      key, features, truth, number, num_features=asked.num_random_features,
      length_scale=asked.length_scale, ridge=asked.ridge, likelihood=likelihood,
    )
    methods.append(Method(name, functools.partial(_mean_field, head), True))
    if likelihood == 'gaussian':
      methods.append(Method('SNGP head, variance', lambda o, head=head: (
        _batched(head.negative_variance, o.features), logits(o)
      )))
  return methods


def ensemble_methods() -> list[Method]:
  """Returns the methods that read the logits of several members."""
  return _of_samples('ensemble')


def kernel_method() -> Method:
  """Returns the method of networks with kernels, see `uncertainty.duq`."""
  # Their columns are logs of kernels; exp keeps the certainty in (0, 1].
  return Method('DUQ', lambda o: (np.exp(o.logits.max(1)), o.logits))


def _plain(score):
  return lambda o: (score(o.logits), o.logits)


def _of_samples(name):
  """Methods of several answers, whose common one is the mean probability."""
  read = lambda o: scores.of_samples(o.samples)

  def judge(certainty):
    def judged(o):
      found = read(o)
      return certainty(found), found.log_probabilities

    return judged

  return [
    Method(f'{name}: maximum probability', judge(
      lambda p: scores.maximum_probability(p.log_probabilities)
    ), True),
    Method(f'{name}: entropy', judge(lambda p: p.negative_entropy)),
    Method(f'{name}: mutual information', judge(
      lambda p: p.negative_mutual_information
    )),
  ]


def _mean_field(head, outputs):
  logits = _batched(head.mean_field, outputs.features)
  return scores.maximum_probability(logits), logits


def _batched(score, features, batch=256):
  """Applies a score to some images at a time: (N, K, D) may be large."""
  return np.concatenate([
    np.asarray(score(features[i : i + batch]))
    for i in range(0, len(features), batch)
  ])


def _shrinkage(asked, outputs, labels, number, shared):
  if asked.shrinkage != 'validation':
    return asked.shrinkage
  return gaussian_density.choose_shrinkage(
    outputs['train'].features, labels['train'], number,
    outputs['validation'].features, shrinkages=asked.shrinkages, shared=shared,
  )


def _answers(method, outputs, labels) -> comparison.Answers:
  judged = {
    name: tuple(np.asarray(x, np.float64) for x in method.judge(o))
    for name, o in outputs.items() if name not in ('train', 'validation')
  }
  certainty, logits = judged.pop('test')
  own = (labels, logits) if method.probabilistic else ()
  return comparison.Answers(
    certainty, logits.argmax(1) == labels,
    {name: values for name, (values, _) in judged.items()}, *own,
  )


def _train(config, seed, workdir, splits, kernels=False) -> train.Trained:
  """Trains or restores the network of a seed, on the split of the config."""
  one = config.copy_and_resolve_references()
  one.seed = seed
  with one.unlocked():
    # They decide the network, and no other run may take it over.
    one.data.split_seed = config.seed
    if config.comparison.held_out_classes:
      one.data.held_out_classes = config.comparison.held_out_classes
    if kernels:
      one.update(config.comparison.kernels)
    del one['comparison']
  folder = workdir / f'{"kernels" if kernels else "seed"}_{seed}'
  runs.start(one, folder)
  return train.train_or_restore(
    runs.split_keys(one)[1], one, folder, lambda: splits
  )


def _data(key, config, splits, held_out, classifier) -> Data:
  size = classifier.image_size
  parts = {
    name: part for name in _KNOWN if len(part := getattr(splits, name))
  }
  names = splits.train.class_names
  columns = np.array([
    k for k, name in enumerate(names)
    if name not in config.comparison.held_out_classes
  ])
  unknown = unknown_images.load(
    key, config.comparison, held_out, size, classifier.channels
  )
  return Data(
    {n: image_sets.resize_all(p.images, size) for n, p in parts.items()}
    | unknown,
    {n: np.searchsorted(columns, p.labels) for n, p in parts.items()},
    columns,
  )


def _outputs(key, trained, data, num_samples) -> dict[str, Outputs]:
  classifier = trained.classifier
  shape = (*classifier.image_size, classifier.channels)
  prepared = inference.prepare(trained.network, shape)
  try:
    dropping = ensembles.with_dropout(trained.network, shape)
  except ValueError:  # it drops nothing
    dropping = None

  @functools.partial(jax.jit, static_argnums=2)
  def ask(key, images, num_samples):
    images = classifier.preprocess(images)
    answers = prepared.embed(images), prepared(images)
    if not num_samples:
      return *answers, answers[1][None][:0]
    return *answers, dropping(key, images, num_samples)

  found = {}
  for i, (name, images) in enumerate(data.images.items()):
    of_part = 0 if name == 'train' or dropping is None else num_samples
    batches = []
    for start in range(0, len(images), _BATCH):
      chosen = images[start : start + _BATCH]
      padded = np.resize(chosen, (_BATCH, *images.shape[1:]))
      one = jax.random.fold_in(jax.random.fold_in(key, i), start)
      features, logits, samples = map(np.asarray, ask(one, padded, of_part))
      n = len(chosen)
      batches.append((
        features[:n], logits[:n, data.columns], samples[:, :n, data.columns]
      ))
    features, logits, samples = zip(*batches, strict=True)
    found[name] = Outputs(
      np.concatenate(features), np.concatenate(logits),
      np.concatenate(samples, axis=1),
    )
  return found


def _joined(outputs) -> dict[str, Outputs]:
  """Returns the outputs of all networks, their logits as samples."""
  return {
    name: dataclasses.replace(
      o, samples=np.stack([one[name].logits for one in outputs])
    )
    for name, o in outputs[0].items()
  }


def _conformal(key, asked, outputs, labels) -> list[dict]:
  """Sets calibrated on one half of the test images, judged on the other.

  The validation images would not do: they chose the epoch.
  """
  p = special.softmax(outputs['test'].logits.astype(np.float64), axis=1)
  truth, rows = labels['test'], []
  for method in _SETS:
    found = []
    for i in range(_NUM_CALIBRATIONS):
      keys = jax.random.split(jax.random.fold_in(key, i), 3)
      order = np.asarray(jax.random.permutation(keys[0], len(truth)))
      first, second = np.array_split(order, 2)
      threshold = conformal.calibrate(
        p[first], truth[first], method=method, key=keys[1],
        miscoverage=asked.miscoverage,
      )
      found.append(conformal.assess(conformal.predict(
        p[second], threshold, method=method, key=keys[2]
      ), truth[second]))
    mean = lambda field, found=found: float(
      np.mean([getattr(one, field) for one in found])
    )
    rows.append({
      'method': method.name.upper(), 'asked': 1 - asked.miscoverage,
      'coverage': mean('coverage'), 'size': mean('mean_size'),
      'empty': mean('empty'),
      'coverage_std': float(np.std([one.coverage for one in found])),
    })
  return rows


def _facts(config, trained, data) -> dict[str, str]:
  first = trained[0].metadata
  accuracy = [
    one.metadata.metrics['validation_accuracy'] for one in trained
  ]
  return {
    'network': config.model.name,
    'networks': f'{len(trained)}, seeds from {config.seed}',
    'validation accuracy': ', '.join(f'{a:.4f}' for a in accuracy),
    'data': first.data,
    **{
      name: f'{len(images)} images' for name, images in data.images.items()
    },
  }


def _write(workdir, result) -> None:
  runs.write_json(workdir / 'uncertainty.json', result)
  text = io.StringIO()
  writer = csv.writer(text, lineterminator='\n')
  fields = (
    'mean', 'std', 'lower', 'upper', 'difference', 'difference_lower',
    'difference_upper',
  )
  writer.writerow(['method', 'measure', *fields])
  for row in result['rows']:
    for name, entry in row['measures'].items():
      writer.writerow([row['method'], name, *(entry[f] for f in fields)])
  files.write_text(workdir / 'uncertainty.csv', text.getvalue())
  files.write_text(
    workdir / 'uncertainty.html', uncertainty_page.render(result)
  )
  runs.LOG.info('Page: %s', workdir / 'uncertainty.html')


if __name__ == '__main__':
  app.run(runs.make_main(run))
