"""The comparison of certainties as a user runs it, small."""

import json

import jax
from ml_collections import ConfigDict
import numpy as np
import pytest

from configs import steel_uncertainty as config_module
from configs import weld as weld_config
from experiments import compare_uncertainty
from experiments import unknown_images
from jaxsens.data import image_sets


def _outputs(seed=0, count=90, shift=0.0):
  """Features around three corners, and logits that know them."""
  rng = np.random.default_rng(seed)
  labels = np.arange(count) % 3
  features = rng.normal(size=(count, 6)) + 4 * np.eye(3, 6)[labels] + shift
  logits = features[:, :3] + 0.5 * rng.normal(size=(count, 3))
  samples = logits[None] + 0.3 * rng.normal(size=(5, count, 3))
  cast = lambda x: x.astype(np.float32)
  return compare_uncertainty.Outputs(
    cast(features), cast(logits), cast(samples)
  ), labels


def _asked():
  return config_module.get_config('small').comparison


def test_every_method_tells_far_images_and_answers_as_the_network():
  outputs, labels = {}, {}
  for i, part in enumerate(('train', 'validation', 'test')):
    outputs[part], labels[part] = _outputs(i)
  outputs['far'], _ = _outputs(7, shift=-9.0)
  methods = compare_uncertainty.fit_methods(
    jax.random.key(0), _asked(), outputs, labels
  )
  names = [method.name for method in methods]
  assert len(set(names)) == len(names) == 12
  assert names[0] == compare_uncertainty.BASELINE
  areas = {}
  for method in methods:
    found = compare_uncertainty._answers(method, outputs, labels['test'])
    assert np.mean(found.correct) > 0.9, method.name
    assert list(found.out) == ['far']
    measures = compare_uncertainty.comparison.measures(found)
    areas[method.name] = measures['AUROC, far']
  for name in ('Gaussian per class (DDU)', 'Mahalanobis', 'SNGP head',
               'SNGP head, variance'):
    assert areas[name] > 0.95, name


def test_ensemble_of_one_network_answers_as_it_does():
  outputs, labels = _outputs()
  joined = compare_uncertainty._joined([{'test': outputs}])
  method = compare_uncertainty.ensemble_methods()[0]
  found = compare_uncertainty._answers(method, joined, labels)
  np.testing.assert_array_equal(
    found.correct, outputs.logits.argmax(1) == labels
  )


@pytest.mark.parametrize('channels', [1, 3])
def test_textures_differ_and_are_those_of_the_key(channels):
  draw = lambda seed: unknown_images.draw_textures(
    jax.random.key(seed), 7, (16, 24), channels
  )
  images = draw(0)
  assert images.shape == (7, 16, 24, channels) and images.dtype == np.float32
  assert 0 <= images.min() and images.max() <= 1
  assert (images.std((1, 2)) > 0.02).all()
  np.testing.assert_array_equal(images, draw(0))
  assert np.abs(images - draw(1)).mean() > 0.02


def _splits():
  rng = np.random.default_rng(0)
  part = lambda n: image_sets.ImageSet(
    images=rng.random((n, 4, 4, 1), np.float32),
    labels=np.arange(n) % 4, names=tuple(f'{n}-{i}' for i in range(n)),
    class_names=('a', 'b', 'c', 'd'),
    groups=tuple(f'{n}-{i}' for i in range(n)), description='',
  )
  return image_sets.Splits(part(12), part(8), part(4))


def test_held_out_classes_are_in_no_split_and_all_in_the_unknown():
  splits, held_out = unknown_images.without_classes(_splits(), ('b', 'd'))
  assert len(held_out) == 12
  for part in (splits.train, splits.validation, splits.test):
    assert set(part.labels) == {0, 2}
  same, none = unknown_images.without_classes(_splits(), ())
  assert none is None and len(same.train) == 12
  for names in (('e',), ('a', 'b', 'c')):
    with pytest.raises(ValueError, match='must leave two'):
      unknown_images.without_classes(_splits(), names)


def test_unknown_sets_are_of_the_size_that_is_asked_for():
  config = ConfigDict({
    'out_sets': ('weld', 'textures', 'held_out'), 'num_out': 7, 'weld_root': '',
  })
  sets = unknown_images.load(
    jax.random.key(0), config, np.ones((9, 8, 8, 1), np.float32), (16, 16), 1
  )
  assert {n: x.shape for n, x in sets.items()} == {
    name: (7, 16, 16, 1) for name in config.out_sets
  }
  with pytest.raises(ValueError, match='held_out_classes is empty'):
    unknown_images.load(jax.random.key(0), config, None, (16, 16), 1)
  config.out_sets = ('cars',)
  with pytest.raises(ValueError, match="got 'cars'"):
    unknown_images.load(jax.random.key(0), config, None, (16, 16), 1)


def test_config_refuses_unknown_variants():
  with pytest.raises(ValueError, match="unknown variant 'tiny'"):
    config_module.get_config('tiny')
  assert config_module.get_config('cifar10').comparison.held_out_classes


def test_small_run_on_procedural_frames_writes_the_page(tmp_path):
  """The frames need no data."""
  config = weld_config.get_config('small')
  config.data.synthetic_per_class = 10
  config.model.name = 'squeezenet1_1_reduced7'
  config.model.init = 'random'
  config.comparison = _asked()
  config.comparison.out_sets = ('textures',)
  config.comparison.kernels.model = config.model
  config.comparison.kernels.training = config.training
  result = compare_uncertainty.run(config, tmp_path)
  methods = [row['method'] for row in result['rows']]
  assert methods[-2:] == ['ensemble: mutual information', 'DUQ']
  assert 'dropout: entropy' in methods and len(methods) == 16
  written = json.loads((tmp_path / 'uncertainty.json').read_text())
  assert written == json.loads(json.dumps(result))
  lines = (tmp_path / 'uncertainty.csv').read_text().splitlines()
  assert len(lines) == 1 + sum(len(r['measures']) for r in result['rows'])
  page = (tmp_path / 'uncertainty.html').read_text()
  assert 'Unknown: textures' in page and 'Gaussian per class' in page
