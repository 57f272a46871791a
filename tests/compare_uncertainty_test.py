"""The comparison of certainties as a user runs it, small."""

import json
import types

import jax
from ml_collections import ConfigDict
import numpy as np
import pytest
from scipy import special

from configs import steel_uncertainty as config_module
from configs import weld as weld_config
from experiments import certainty_methods
from experiments import compare_uncertainty
from experiments import judged_networks
from experiments import networks
from experiments import train
from experiments import unknown_images
from jaxsens.data import image_sets
from jaxsens.models import inference
from jaxsens.models import registry
from jaxsens.uncertainty import comparison

pytestmark = pytest.mark.usefixtures('quick_compiles')


def _outputs(seed=0, count=90, shift=0.0):
  """Features around three corners, and logits that know them."""
  rng = np.random.default_rng(seed)
  labels = np.arange(count) % 3
  features = rng.normal(size=(count, 6)) + 4 * np.eye(3, 6)[labels] + shift
  logits = features[:, :3] + 0.5 * rng.normal(size=(count, 3))
  samples = logits[None] + 0.3 * rng.normal(size=(5, count, 3))
  cast = lambda x: x.astype(np.float32)
  return certainty_methods.Outputs(
    cast(features), cast(logits), cast(samples)
  ), labels


def _asked():
  return config_module.get_config('small').comparison


def test_every_method_tells_far_images_and_answers_as_the_network():
  outputs, labels = {}, {}
  for i, part in enumerate(('train', 'validation', 'test')):
    outputs[part], labels[part] = _outputs(i)
  outputs['far'], _ = _outputs(7, shift=-9.0)
  methods = certainty_methods.of_softmax(outputs, labels)
  assert methods[0].name == certainty_methods.BASELINE
  assert len(methods) == 7
  fit = lambda **options: certainty_methods.of_features(
    jax.random.key(0), _asked(), outputs, labels, **options
  )
  methods += fit()
  names = [method.name for method in methods]
  assert len(set(names)) == len(names) == 12
  assert [m.name for m in fit(suffix=', x')] == [f'{n}, x' for n in names[7:]]
  areas = {}
  for method in methods:
    found = compare_uncertainty._answers(method, outputs, labels['test'])
    assert np.mean(found.correct) > 0.9, method.name
    assert list(found.out) == ['far']
    measures = comparison.measures(found)
    areas[method.name] = measures['AUROC, far']
  for name in ('Gaussian per class (DDU)', 'Mahalanobis', 'SNGP head',
               'SNGP head, variance'):
    assert areas[name] > 0.95, name


def test_ensemble_of_one_network_answers_as_it_does():
  outputs, labels = _outputs()
  joined = judged_networks.joined([{'test': outputs}])
  method = certainty_methods.of_ensemble()[0]
  found = compare_uncertainty._answers(method, joined, labels)
  np.testing.assert_array_equal(
    found.correct, outputs.logits.argmax(1) == labels
  )


def test_ensemble_says_the_mean_of_the_probabilities_of_its_networks():
  (first, _), (second, _) = _outputs(0), _outputs(1)
  joined = judged_networks.joined([{'test': first}, {'test': second}])
  certainty, logits = certainty_methods.of_ensemble()[0].judge(joined['test'])
  p = np.mean([
    special.softmax(one.logits, axis=1) for one in (first, second)
  ], axis=0)
  np.testing.assert_allclose(certainty, p.max(1), rtol=1e-5)
  np.testing.assert_allclose(
    special.softmax(np.asarray(logits), axis=1), p, rtol=1e-4, atol=1e-6
  )


def test_kernels_answer_with_the_largest_and_are_as_sure_as_it_is():
  log_kernels = np.log(np.float32([[0.9, 0.1], [0.2, 0.3], [1e-20, 1e-30]]))
  method = certainty_methods.of_kernels()
  certainty, logits = method.judge(certainty_methods.Outputs(
    np.zeros((3, 1)), log_kernels, log_kernels[None][:0]
  ))
  np.testing.assert_allclose(certainty, [0.9, 0.3, 1e-20], rtol=1e-5)
  assert logits.argmax(1).tolist() == [0, 1, 0] and not method.probabilistic


def test_temperature_needs_validation_images_and_orders_as_the_baseline():
  outputs, labels = {}, {}
  for i, part in enumerate(('validation', 'test')):
    outputs[part], labels[part] = _outputs(i)
  methods = {
    m.name: m for m in certainty_methods.of_softmax(outputs, labels)
  }
  scaled = methods['maximum probability, temperature']
  sure, logits = scaled.judge(outputs['test'])
  ratio = outputs['test'].logits / np.asarray(logits)
  np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-4)
  np.testing.assert_allclose(
    sure, special.softmax(logits, axis=1).max(1), rtol=1e-5
  )
  bare = certainty_methods.of_softmax({'test': outputs['test']}, {})
  assert {m.name for m in bare} == methods.keys() - {scaled.name}


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
    assert part.class_names == ('a', 'c') and set(part.labels) == {0, 1}
  names = splits.train.names
  assert [splits.train.labels[names.index(f'12-{i}')] for i in (0, 2)] == [0, 1]
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
  config.held_out_classes = ('b', 'd')
  assert unknown_images.describe('held_out', config) == 'images of b, d'
  assert 'procedural' in unknown_images.describe('textures', config)
  with pytest.raises(ValueError, match='held_out_classes is empty'):
    unknown_images.load(jax.random.key(0), config, None, (16, 16), 1)
  config.out_sets = ('cars',)
  with pytest.raises(ValueError, match="got 'cars'"):
    unknown_images.load(jax.random.key(0), config, None, (16, 16), 1)


def test_config_refuses_unknown_variants():
  with pytest.raises(ValueError, match="unknown variant 'tiny'"):
    config_module.get_config('tiny')
  assert config_module.get_config('cifar10').comparison.held_out_classes


def _all_but_the_first_untrained(monkeypatch):
  """One training is enough to see that the parts fit."""
  restore = train.train_or_restore

  def untrained(key, config, folder, splits):
    if folder.name == 'seed_0':
      return restore(key, config, folder, splits)
    network = networks.create(key, config)
    classifier = inference.classifier(
      network, preprocess=networks.normalise(config), channels=1,
      class_names=splits().train.class_names, image_size=(32, 32),
      answers='log_kernels' if 'duq' in config else 'logits',
    )
    metadata = types.SimpleNamespace(metrics={'validation_accuracy': 0.25})
    return train.Trained(classifier, network, metadata, False)

  monkeypatch.setattr(train, 'train_or_restore', untrained)


def test_small_run_on_procedural_frames_writes_the_page(tmp_path, monkeypatch):
  """The frames need no data."""
  _all_but_the_first_untrained(monkeypatch)
  config = weld_config.get_config('small')
  config.model.update({'name': 'lenet', 'init': 'random', 'dropout': 0.0})
  config.training.tensorboard = False
  config.comparison = _asked()
  config.comparison.out_sets = ('textures',)
  config.comparison.num_resamples = 5
  config.comparison.others.kernels.model = config.model
  config.comparison.others.kernels.training = config.training
  result = compare_uncertainty.run(config, tmp_path)
  methods = [row['method'] for row in result['rows']]
  assert methods[:4] == [
    'maximum probability', 'maximum probability, temperature', 'entropy',
    'energy',
  ]
  others = [name for name in methods if name.endswith(', spectral')]
  assert len(others) == 9 and 'DUQ' in methods
  assert 'ensemble: mutual information' in methods and len(methods) == 22
  assert all(
    len(row['measures']['AURC']['values']) == (
      1 if row['method'].startswith('ensemble') else 2
    ) for row in result['rows']
  )
  written = json.loads((tmp_path / 'uncertainty.json').read_text())
  assert written == json.loads(json.dumps(result))
  lines = (tmp_path / 'uncertainty.csv').read_text().splitlines()
  assert len(lines) == 1 + sum(len(r['measures']) for r in result['rows'])
  page = (tmp_path / 'uncertainty.html').read_text()
  assert 'Unknown: textures' in page and 'Gaussian per class' in page
  # Areas, reliability, refusal and ROC.
  assert page.count('<img') == 4
  curves = result['curves']
  assert list(curves['methods']) == methods
  for row in result['rows']:
    drawn = curves['methods'][row['method']]
    np.testing.assert_allclose(
      drawn['accuracy'][-1], row['measures']['accuracy']['values'][0],
      atol=1e-5,
    )
    assert (drawn['reliability'] is None) == ('ECE' not in row['measures'])


def test_network_with_dropout_is_asked_with_masks_and_without():
  network = registry.create(
    'squeezenet1_1_reduced7', jax.random.key(0), 3, in_channels=1, dropout=0.5
  )
  classifier = inference.classifier(
    network, preprocess=lambda x: x, class_names='abc', image_size=(32, 32),
    channels=1,
  )
  images = np.random.default_rng(0).random((33, 32, 32, 1), np.float32)
  data = judged_networks.Data(
    {'train': images[:2], 'test': images}, {}
  )
  found = judged_networks.ask(
    jax.random.key(0), train.Trained(classifier, network, None, True), data, 2
  )
  # More than a batch, and none of the filling behind the last one.
  assert found['test'].samples.shape == (2, 33, 3)
  assert found['train'].samples.shape == (0, 2, 3)
  np.testing.assert_allclose(
    found['test'].logits, classifier(images), rtol=1e-4, atol=1e-5
  )
  np.testing.assert_array_equal(
    found['train'].features, found['test'].features[:2]
  )
  assert np.abs(np.diff(found['test'].samples, axis=0)).max() > 1e-3


def test_other_networks_differ_in_what_is_said_and_in_nothing_else(
  tmp_path, monkeypatch
):
  config = weld_config.get_config('small')
  config.comparison = _asked()
  config.comparison.held_out_classes = ('good',)
  seen = {}
  monkeypatch.setattr(
    train, 'train_or_restore',
    lambda key, one, folder, splits: seen.setdefault(folder.name, one)
  )
  for other in ('', 'spectral'):
    judged_networks.train_one(config, tmp_path, None, 3, other)
  assert set(seen) == {'seed_3', 'spectral_3'}
  plain, spectral = (one.to_dict() for one in seen.values())
  assert spectral['training'].pop('spectral_norm') == 3
  plain['training'].pop('spectral_norm', None)
  assert plain == spectral
  assert 'comparison' not in plain and plain['seed'] == 3
  assert plain['data']['split_seed'] == config.seed
  assert plain['data']['held_out_classes'] == ('good',)
