"""Following images along factors, from networks to the page."""

import json

import chaospy
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import steel_uncertainty
from configs import weld as weld_config
from experiments import abstention
from experiments import certainty_methods
from experiments import judged_networks
from experiments import train
from jaxsens import classifiers
from jaxsens import factors
from jaxsens import marginals
from jaxsens.data import image_sets
from jaxsens.models import inference
from jaxsens.models import registry
from jaxsens.perturbations import chains
from jaxsens.reports import abstention_figures
from jaxsens.uncertainty import duq


def _space(**distributions):
  return factors.FactorSpace(tuple(
    factors.Factor(name, distribution, '')
    for name, distribution in distributions.items()
  ))


def test_ways_go_from_the_neutral_value_to_each_limit():
  space = _space(
    brightness=chaospy.Uniform(0, 3), defocus=chaospy.Uniform(0, 2),
    rotation=chaospy.Normal(0, 10),
  )
  ways, values = abstention.make_ways(space, (1, 0, 0), 3)
  found = [(way.factor, way.values.tolist()) for way in ways]
  assert found[:3] == [
    ('brightness', [1, 0.5, 0]), ('brightness', [1, 2, 3]),
    ('defocus', [0, 1, 2]),
  ]
  np.testing.assert_allclose(
    [v for _, v in found[3:]], np.outer([-1, 1], [0, 12.879, 25.758]),
    atol=1e-3,
  )
  np.testing.assert_array_equal(values[0], [1, 0, 0])
  assert len(values) == 1 + 2 * 5
  for way in ways:
    d = space.index(way.factor)
    np.testing.assert_array_equal(values[way.rows, d], way.values)
    others = np.delete(values[way.rows], d, axis=1)
    assert (others == np.delete(values[0], d)).all()
    np.testing.assert_allclose(way.strengths, [0, 0.5, 1])


def test_ways_of_a_discrete_factor_have_its_atoms():
  space = _space(quality=marginals.Discrete([1, 2, 3, 5, 9]))
  ways, _ = abstention.make_ways(space, (3,), 13)
  assert [way.values.tolist() for way in ways] == [[3, 2, 1], [3, 5, 9]]
  np.testing.assert_allclose(ways[1].strengths, [0, 1 / 3, 1])
  ways, _ = abstention.make_ways(space, (1,), 3)
  assert [way.values.tolist() for way in ways] == [[1, 2, 9]]


def test_factors_without_their_neutral_value_are_refused():
  space = _space(brightness=chaospy.Uniform(1.5, 2))
  with pytest.raises(ValueError, match="'brightness'.*neutral value 1,"):
    abstention.make_ways(space, (1,), 3)
  with pytest.raises(ValueError, match='num_strengths must be at least 2'):
    abstention.make_ways(space, (1,), 1)


def test_perturbed_parts_are_the_images_that_the_chain_gives(monkeypatch):
  monkeypatch.setattr(abstention, '_PART', 10)
  space = _space(
    rotation=chaospy.Uniform(-9, 9), gaussian_noise=chaospy.Uniform(0, 0.1)
  )
  chain = chains.make_chain(space, (8, 8))
  images = list(np.random.default_rng(0).random((5, 16, 16, 1), np.float32))
  _, values = abstention.make_ways(space, chain.identity, 2)
  key = jax.random.key(3)
  perturbed = abstention.Perturbed(key, chain, images, values)
  parts = [perturbed[name] for name in perturbed]
  assert [len(part) for part in parts] == [8, 8, 4] and len(perturbed) == 3
  found = np.concatenate(parts).reshape(5, 4, 8, 8, 1)
  perturb = jax.jit(chain)
  for i, image in enumerate(images):
    for row, picture in zip(values, found[i], strict=True):
      np.testing.assert_allclose(
        picture, perturb(
          jnp.asarray(image), jnp.asarray(row, jnp.float32),
          jax.random.fold_in(key, i),
        ), atol=2e-6,
      )
  assert 'test' not in perturbed


def test_method_is_followed_image_by_image():
  """Two images, one that fades and one that flips at once."""
  logits = np.array([
    [[4, 0], [1, 0], [0, 1]], [[0, 4], [3, 0], [3, 0]],
  ], float)
  outputs = {
    'held_out': certainty_methods.Outputs(
      np.empty((4, 0)), np.array([[0, 9], [2, 0], [5, 0], [9, 0.0]]),
      np.empty((0, 4, 2)),
    ),
    'perturbed': certainty_methods.Outputs(
      np.empty((6, 0)), logits.reshape(6, 2), np.empty((0, 6, 2))
    ),
  }
  method = certainty_methods.Method('gap', lambda o: (
    np.abs(np.diff(o.logits)[:, 0]), o.logits
  ))
  way = abstention.Way('a', np.array([0.0, 2, 4]), np.arange(3))
  threshold, refused, (line,) = abstention._follow(
    method, outputs, np.array([0, 1]), [way], 3, 0.3
  )
  assert (threshold, refused) == (5, 0.25)
  assert (line.outcome == 5).all()  # both are refused at once
  threshold, _, (line,) = abstention._follow(
    method, outputs, np.array([0, 1]), [way], 3, 0.2
  )
  assert threshold == 2
  names = [abstention.announcement.OUTCOMES[k] for k in line.outcome]
  assert names == ['announced', 'silent']
  np.testing.assert_allclose(line.margin, [0.5, np.nan])


def test_bad_fields_are_refused_before_anything_is_trained(tmp_path):
  for name, value, message in (
    ('abstention_rate', 1.0, r'in \(0, 1\), got 1.0'),
    ('num_images', 0, 'abstention.num_images'),
    ('num_seeds', 0, 'abstention.num_seeds'),
  ):
    config = _config()
    config.abstention[name] = value
    with pytest.raises(ValueError, match=message):
      abstention.run(config, tmp_path)
  config = _config()
  config.factors.brightness.lower = 1.5
  with pytest.raises(ValueError, match='without its neutral value'):
    abstention.run(config, tmp_path)
  assert not list(tmp_path.glob('seed_*'))


def _config():
  config = weld_config.get_config('small')
  config.data.synthetic_per_class = 10
  asked = steel_uncertainty.get_config('small')
  config.comparison, config.abstention = asked.comparison, asked.abstention
  others = config.comparison.others
  config.comparison.others = {'kernels': others.kernels}
  # Nothing is chosen by the validation images.
  for name in ('shrinkage', 'length_scale', 'ridge'):
    with config.ignore_type():
      config.comparison[name] = 0.5
  return config


def _network(seed, kernels):
  """An untrained network for gray images of 32 pixels and six classes."""
  key = jax.random.key(seed)
  network = registry.create('lenet', key, 6, in_channels=1)
  if kernels:
    network = duq.make_network(
      key, registry.without_head('lenet', network), 6,
      image_shape=(32, 32, 1), num_dimensions=8, length_scale=0.1,
      initial_count=1.0,
    )
  classifier = inference.classifier(
    network, preprocess=classifiers.identity, class_names=tuple('abcdef'),
    image_size=(32, 32), channels=1,
    answers='log_kernels' if kernels else 'logits',
  )
  return train.Trained(classifier, network, None, restored=True)


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """A small run of two networks of each kind, on procedural frames."""
  workdir = tmp_path_factory.mktemp('run')
  config, asked = _config(), []
  config.abstention.num_seeds = 2

  def train_one(config, where, splits, seed, other=''):
    assert where == workdir
    asked.append((seed, other))
    return _network(seed, kernels=other == 'kernels')

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(judged_networks, 'train_one', train_one)
    result = abstention.run(config, workdir)
  assert asked == [(0, ''), (1, ''), (0, 'kernels'), (1, 'kernels')]
  return config, workdir, result


def test_small_run_writes_the_page_and_its_numbers(finished):
  config, workdir, result = finished
  methods = [row['method'] for row in result['rows']]
  assert 'ensemble: entropy' in methods and methods[-1] == 'DUQ'
  written = json.loads((workdir / 'abstention.json').read_text())
  assert written == json.loads(json.dumps(result))
  lines = (workdir / 'abstention.csv').read_text().splitlines()
  assert len(lines) == 1 + len(methods) * 4 * (7 + 7)
  page = (workdir / 'abstention.html').read_text()
  assert 'Announced by factor' in page and page.count('<img') == 2
  assert [line['factor'] for line in result['lines']] == [
    name for name in config.factor_order for _ in range(2)
  ]


def test_counts_are_of_all_images_lines_and_networks(finished):
  _, _, result = finished
  for row in result['rows']:
    networks = 1 if row['method'].startswith('ensemble') else 2
    assert row['networks'] == len(row['thresholds']) == networks
    assert sum(row['all']['counts'].values()) == 12 * 6 * networks
    for course in row['courses']:
      assert len(course['coverage']) == 3
    starts = [course['coverage'][0] for course in row['courses']]
    assert len(set(starts)) == 1  # the neutral pictures are shared
    assert max(row['refused']) <= 0.1


def test_samples_of_parts_are_joined_image_by_image():
  rng = np.random.default_rng(0)
  parts = [
    certainty_methods.Outputs(
      rng.random((n, 4)), rng.random((n, 2)), rng.random((3, n, 2))
    ) for n in (5, 2)
  ]
  joined = abstention._concatenate(parts)
  assert joined.features.shape == (7, 4) and joined.samples.shape == (3, 7, 2)
  np.testing.assert_array_equal(joined.logits[5:], parts[1].logits)
  np.testing.assert_array_equal(joined.samples[:, :5], parts[0].samples)


@pytest.mark.parametrize('with_validation', [True, False])
def test_threshold_is_of_images_that_are_not_followed(with_validation):
  part = lambda name, n: image_sets.ImageSet(
    images=np.zeros((n, 2, 2, 1), np.float32), labels=np.zeros(n, int),
    names=tuple(f'{name} {i}' for i in range(n)), class_names=('a', 'b'),
    groups=('',) * n, description='',
  )
  splits = image_sets.Splits(
    part('train', 3), part('validation', 4 * with_validation), part('test', 9)
  )
  held_out, test = abstention._held_out(jax.random.key(0), splits)
  assert (len(held_out), len(test)) == ((4, 9) if with_validation else (5, 4))
  assert len({*held_out.names, *test.names}) == (13 if with_validation else 9)


def test_figures_say_where_nothing_changes(finished):
  """A method whose flips are none has no bar, and no error."""
  _, _, result = finished
  row = json.loads(json.dumps(result['rows'][0]))
  for summary in (row['all'], *row['factors'].values()):
    for share in summary['shares'].values():
      share.update(dict.fromkeys(share))
    for name in ('announced', 'caught', 'silent'):
      summary['counts'][name] = 0
  page = abstention_figures.render(
    {**result, 'rows': [row], 'shown': [row['method']]}
  )
  assert 'no answer changes' in page and 'nan' not in page.split('<h2>')[2]
