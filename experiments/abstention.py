"""Does the certainty fall before the answer changes?

  python -m experiments.abstention --config=configs/steel_uncertainty.py

Test images are followed from the neutral value of each factor to its limits,
one factor at a time, and judged by the methods of
`experiments.compare_uncertainty`; the networks are the same ones, and in the
same run directory they are restored. Writes `abstention.json`, `abstention.csv`
and `abstention.html`: accuracy, coverage and accuracy of the accepted answers
against the strength, and how many changes of the answer are announced, caught
or silent (`jaxsens.uncertainty.announcement`).
"""

import collections
from collections.abc import Mapping
from collections.abc import Sequence
import csv
import dataclasses
import functools
import io
import pathlib

from absl import app
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np

from experiments import certainty_methods
from experiments import gpc
from experiments import judged_networks
from experiments import runs
from experiments import train
from experiments import unknown_images
from jaxsens import factors
from jaxsens import files
from jaxsens import slices
from jaxsens.data import image_sets
from jaxsens.perturbations import chains
from jaxsens.reports import abstention_figures
from jaxsens.uncertainty import announcement

# Perturbed images that are in memory together, about.
_PART = 512


@dataclasses.dataclass(frozen=True, eq=False)
class Way:
  """Values of one factor from its neutral one to a limit.

  Attributes:
    factor: its name.
    values: (S,) in the unit of the factor, the neutral one first.
    rows: (S,) positions of its nodes among those of all ways.
  """

  factor: str
  values: np.ndarray
  rows: np.ndarray

  @property
  def strengths(self) -> np.ndarray:
    """Shares of the way (S,), from 0 to 1."""
    return (self.values - self.values[0]) / (self.values[-1] - self.values[0])


@dataclasses.dataclass(frozen=True, eq=False)
class Perturbed(Mapping):
  """Perturbed images in parts, rendered whenever one is asked for.

  A part holds whole images, one after the other, each at all nodes.

  Attributes:
    key: of perturbations that draw; an image keeps its draw at all nodes.
    chain: of the perturbations.
    images: (H, W, C) each, of any size.
    values: (M, D) nodes.
  """

  key: jax.Array
  chain: chains.Chain
  images: Sequence[np.ndarray]
  values: np.ndarray

  @functools.cached_property
  def _parts(self) -> dict[str, range]:
    step = max(1, _PART // len(self.values))
    return {
      f'perturbed {start}': range(start, min(start + step, len(self.images)))
      for start in range(0, len(self.images), step)
    }

  def __len__(self) -> int:
    return len(self._parts)

  def __iter__(self):
    return iter(self._parts)

  def __getitem__(self, name: str) -> np.ndarray:
    return np.concatenate([
      np.asarray(_render(
        self.chain, jnp.asarray(self.images[i]),
        jnp.asarray(self.values, jnp.float32), jax.random.fold_in(self.key, i),
      )) for i in self._parts[name]
    ])


@functools.partial(jax.jit, static_argnums=0)
def _render(chain, image, values, key):
  prepared = chain.prepare(image)
  return jax.vmap(lambda row: chain.apply(prepared, row, key))(values)


def make_ways(
  space: factors.FactorSpace, neutral: Sequence[float], num_strengths: int
) -> tuple[list[Way], np.ndarray]:
  """Returns the ways from the neutral point to every limit, and their nodes.

  Unbounded factors end at the 0.5 % and 99.5 % quantiles; of a discrete one the
  ways have its atoms, at most so many.

  Args:
    space: the factors.
    neutral: (D,) values that leave an image as it is.
    num_strengths: S, with the neutral one.

  Returns:
    The ways, two per factor or one where the neutral value is a limit, and
    (M, D) values, the neutral ones first.

  Raises:
    ValueError: fewer than two strengths, or a factor whose range is without
      its neutral value.
  """
  if num_strengths < 2:
    raise ValueError(
      f'abstention.num_strengths must be at least 2, got {num_strengths}'
    )
  neutral = np.asarray(neutral, float)
  ways, nodes = [], [neutral]
  for d, factor in enumerate(space.factors):
    if not factor.lower <= neutral[d] <= factor.upper:
      raise ValueError(
        f'factor {factor.name!r} ranges over [{factor.lower:g}, '
        f'{factor.upper:g}] without its neutral value {neutral[d]:g}, from '
        'which images are to be followed'
      )
    for end, sign in zip(
      slices.axis(space, factor.name, 2), (-1, 1), strict=True
    ):
      if sign * (end - neutral[d]) <= 0:
        continue
      along = _values(factor, neutral[d], end, num_strengths)
      rows = [0, *range(len(nodes), len(nodes) + len(along) - 1)]
      ways.append(Way(factor.name, along, np.array(rows)))
      for value in along[1:]:
        nodes.append(neutral.copy())
        nodes[-1][d] = value
  return ways, np.stack(nodes)


def _values(factor, neutral, end, number):
  if factor.atoms is None:
    return np.linspace(neutral, end, number)
  atoms = factor.atoms.values
  beyond = atoms[(atoms - neutral) * (end - neutral) > 0]
  beyond = beyond[np.argsort(np.abs(beyond - neutral))]
  chosen = np.linspace(0, len(beyond) - 1, min(number - 1, len(beyond)))
  return np.append(neutral, beyond[np.round(chosen).astype(int)])


def run(config: ConfigDict, workdir: pathlib.Path) -> dict:
  """Restores or trains, follows and judges; returns what was written."""
  asked = config.abstention
  _check(asked)
  runs.start(config, workdir)
  key_data, _, key_images, key_fit, key_bootstrap = runs.split_keys(config)
  key_half, key_draw = jax.random.split(key_images)
  space = gpc.make_space(config)
  chain = gpc.make_chain(config, space)
  ways, values = make_ways(space, chain.identity, asked.num_strengths)
  splits, _ = unknown_images.without_classes(
    train.load_data(key_data, config), config.comparison.held_out_classes
  )
  held_out, test = _held_out(key_half, splits)
  test = test.take(gpc.in_turn(test.labels)[: asked.num_images])
  runs.LOG.info(
    'Following %d images along %d lines, %d pictures of each', len(test),
    len(ways), len(values),
  )
  perturbed = Perturbed(key_draw, chain, test.images, values)
  seeds = range(config.seed, config.seed + asked.num_seeds)
  found, members = {}, []

  def ask(key, trained, num_samples):
    data = _data(config, splits, trained.classifier)
    # Not a dict of both: parts are to be rendered one at a time.
    images = collections.ChainMap(perturbed, {
      **data.images, 'held_out': image_sets.resize_all(
        held_out.images, trained.classifier.image_size
      ),
    })
    outputs = judged_networks.ask(
      key, trained, dataclasses.replace(data, images=images), num_samples
    )
    pooled = _concatenate([outputs.pop(name) for name in perturbed])
    return {**outputs, 'perturbed': pooled}, data.labels

  def judge(methods, outputs):
    for method in methods:
      found.setdefault(method.name, []).append(_follow(
        method, outputs, test.labels, ways, len(values), asked.abstention_rate
      ))

  for i, seed in enumerate(seeds):
    runs.LOG.info('Network of seed %d', seed)
    key = jax.random.fold_in(key_fit, i)
    one = judged_networks.train_one(config, workdir, splits, seed)
    outputs, labels = ask(key, one, config.comparison.num_dropout_samples)
    judge(certainty_methods.of_softmax(outputs, labels), outputs)
    judge(certainty_methods.of_features(
      key, config.comparison, outputs, labels
    ), outputs)
    members.append({n: outputs[n] for n in ('held_out', 'perturbed')})
  if len(members) > 1:
    judge(certainty_methods.of_ensemble(), judged_networks.joined(members))
  for name in sorted(config.comparison.get('others', {})):
    for i, seed in enumerate(seeds):
      runs.LOG.info('Network of seed %d, %s', seed, name)
      one = judged_networks.train_one(config, workdir, splits, seed, name)
      outputs, labels = ask(key_fit, one, 0)
      if one.classifier.answers == 'log_kernels':
        judge([certainty_methods.of_kernels()], outputs)
      else:
        judge(certainty_methods.of_features(
          jax.random.fold_in(key_fit, i), config.comparison, outputs, labels,
          suffix=f', {name}',
        ), outputs)
  runs.LOG.info('Resampling')
  result = {
    'facts': {
      'network': config.model.name,
      'networks': f'{len(seeds)}, seeds from {config.seed}',
      'threshold from': f'{len(held_out)} of {held_out.description}',
      'followed': f'{len(test)} of {test.description}',
      'strengths': f'{asked.num_strengths} from the neutral value to a limit',
    },
    'baseline': certainty_methods.BASELINE,
    'abstention_rate': asked.abstention_rate,
    'shown': [name for name in asked.shown if name in found],
    'outcomes': list(announcement.OUTCOMES),
    'lines': [
      {
        'factor': way.factor, 'unit': space.units[space.index(way.factor)],
        'values': way.values.tolist(),
      } for way in ways
    ],
    'rows': _rows(key_bootstrap, found, ways, test, asked.num_resamples),
  }
  _write(workdir, result)
  return result


def _check(asked):
  # The images decide the threshold only after all networks are trained.
  announcement.threshold([0.0], asked.abstention_rate)
  for name in ('num_seeds', 'num_images', 'num_resamples'):
    if asked[name] < 1:
      raise ValueError(f'abstention.{name} must be at least 1, got '
                       f'{asked[name]}')


def _held_out(key, splits):
  """Images of the threshold, and the test images that may be followed."""
  if len(splits.validation):
    return splits.validation, splits.test
  if len(splits.test) < 2:
    raise ValueError(
      'there are no validation images and fewer than two test images: none '
      'for the threshold'
    )
  order = np.asarray(jax.random.permutation(key, len(splits.test)))
  first, second = np.array_split(order, 2)
  return splits.test.take(np.sort(first)), splits.test.take(np.sort(second))


def _data(config, splits, classifier):
  known = config.copy_and_resolve_references()
  known.comparison.out_sets = ()
  return judged_networks.load(None, known, splits, None, classifier)


def _concatenate(outputs):
  return certainty_methods.Outputs(
    np.concatenate([o.features for o in outputs]),
    np.concatenate([o.logits for o in outputs]),
    np.concatenate([o.samples for o in outputs], axis=1),
  )


def _follow(method, outputs, labels, ways, num_nodes, rate):
  """Threshold, share of held-out images refused, and a line per way."""
  certainty = np.asarray(method.judge(outputs['held_out'])[0], np.float64)
  threshold = announcement.threshold(certainty, rate)
  refused = float(np.mean(certainty < threshold))
  certainty, logits = (
    np.asarray(x, np.float64) for x in method.judge(outputs['perturbed'])
  )
  of_nodes = lambda x: x.reshape(len(labels), num_nodes).T
  certainty, correct = (
    of_nodes(certainty), of_nodes(logits.argmax(1)) == labels
  )
  return threshold, refused, [
    announcement.follow(
      certainty[way.rows], correct[way.rows], threshold, way.strengths
    ) for way in ways
  ]


def _rows(key, found, ways, test, num_samples):
  groups = test.groups
  summarise = functools.partial(
    announcement.summarise, key, baseline=certainty_methods.BASELINE,
    groups=groups if len(set(groups)) < len(groups) else None,
    num_samples=num_samples,
  )
  lines_of = lambda factor: {
    method: [
      line for _, _, lines in networks
      for way, line in zip(ways, lines, strict=True)
      if factor in (None, way.factor)
    ] for method, networks in found.items()
  }
  names = dict.fromkeys(way.factor for way in ways)
  together = summarise(lines_of(None))
  apart = {name: summarise(lines_of(name)) for name in names}
  return [
    {
      'method': method, 'networks': len(networks),
      'thresholds': [threshold for threshold, _, _ in networks],
      'refused': [refused for _, refused, _ in networks],
      'all': together[method].as_dict(),
      'factors': {name: apart[name][method].as_dict() for name in names},
      'courses': [
        _course([lines[i] for _, _, lines in networks])
        for i in range(len(ways))
      ],
    } for method, networks in found.items()
  ]


def _course(lines):
  return {
    name: [None if np.isnan(v) else float(v) for v in values]
    for name, values in dataclasses.asdict(announcement.course(lines)).items()
  }


def _write(workdir, result) -> None:
  runs.write_json(workdir / 'abstention.json', result)
  text = io.StringIO()
  writer = csv.writer(text, lineterminator='\n')
  fields = (
    'value', 'lower', 'upper', 'difference', 'difference_lower',
    'difference_upper',
  )
  writer.writerow(['method', 'factor', 'measure', *fields])
  for row in result['rows']:
    for factor, summary in {'all': row['all'], **row['factors']}.items():
      for name, count in summary['counts'].items():
        writer.writerow(
          [row['method'], factor, f'number {name}', count, *[''] * 5]
        )
      for name, share in summary['shares'].items():
        writer.writerow([
          row['method'], factor, name, *(share[field] for field in fields)
        ])
  files.write_text(workdir / 'abstention.csv', text.getvalue())
  files.write_text(
    workdir / 'abstention.html', abstention_figures.render(result)
  )
  runs.LOG.info('Page: %s', workdir / 'abstention.html')


if __name__ == '__main__':
  app.run(runs.make_main(run))
