"""Ways of telling how sure a trained network is, fitted to what it says.

Each reads the features and logits of a network, and gives one number per image;
the larger, the surer.
"""

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import functools
import itertools

import jax
from ml_collections import ConfigDict
import numpy as np

from jaxsens.uncertainty import calibration
from jaxsens.uncertainty import gaussian_density
from jaxsens.uncertainty import scores
from jaxsens.uncertainty import sngp

BASELINE = 'maximum probability'


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


def of_softmax(
  outputs: Mapping[str, Outputs],
  labels: Mapping[str, np.ndarray],
  *,
  suffix: str = '',
) -> list[Method]:
  """Returns the methods that read the logits of one network.

  Args:
    outputs: of the validation and test images at least.
    labels: of the validation images, for the temperature.
    suffix: of their names.
  """
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
  return [
    dataclasses.replace(method, name=method.name + suffix) for method in methods
  ]


def of_features(
  key: jax.Array,
  asked: ConfigDict,
  outputs: Mapping[str, Outputs],
  labels: Mapping[str, np.ndarray],
  *,
  suffix: str = '',
) -> list[Method]:
  """Returns the methods that read the features of one network.

  Args:
    key: of the random features.
    asked: `comparison` of the config.
    outputs: of the training, validation and test images at least.
    labels: of the training and validation images.
    suffix: of their names.
  """
  methods = []
  features, truth = outputs['train'].features, labels['train']
  number = outputs['train'].logits.shape[1]
  for name, shared in (('Gaussian per class (DDU)', False),
                       ('Mahalanobis', True)):
    fitted = gaussian_density.fit(
      features, truth, number, shared=shared,
      shrinkage=_shrinkage(asked, outputs, labels, number, shared),
    )
    score = fitted.nearness if shared else fitted.score
    methods.append(Method(name + suffix, lambda o, score=score: (
      _batched(score, o.features), o.logits
    )))
  length_scale, ridge = _kernel(key, asked, outputs, labels, number)
  for name, likelihood in (('SNGP head', 'gaussian'),
                           ('SNGP head, Laplace', 'laplace')):
    head = sngp.fit(
      key, features, truth, number, num_features=asked.num_random_features,
      length_scale=length_scale, ridge=ridge, likelihood=likelihood,
    )
    methods.append(
      Method(name + suffix, functools.partial(_mean_field, head), True)
    )
    if likelihood == 'gaussian':
      methods.append(Method(
        f'SNGP head, variance{suffix}', lambda o, head=head: (
          _batched(head.negative_variance, o.features), o.logits
        )
      ))
  return methods


def of_ensemble() -> list[Method]:
  """Returns the methods that read the logits of several members."""
  return _of_samples('ensemble')


def of_kernels() -> Method:
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


def _kernel(key, asked, outputs, labels, number):
  """Length scale and ridge, by the validation images where they are to."""
  if 'validation' not in (asked.length_scale, asked.ridge):
    return asked.length_scale, asked.ridge
  pairs = itertools.product(*(
    asked[several] if asked[name] == 'validation' else (asked[name],)
    for name, several in (
      ('length_scale', 'length_scales'), ('ridge', 'ridges')
    )
  ))
  return sngp.choose(
    key, outputs['train'].features, labels['train'], number,
    outputs['validation'].features, labels['validation'],
    num_features=asked.num_random_features, candidates=tuple(pairs),
  )
