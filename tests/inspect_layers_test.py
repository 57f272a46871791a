import dataclasses
import json

import jax
import numpy as np
import pytest

from configs import weld
from experiments import inspect_layers
from experiments import layer_parts
from experiments import runs
from jaxsens.data import image_sets
from jaxsens.inspection import regions
from jaxsens.reports import inspection_page
from tests.oracles import linear_network

pytestmark = pytest.mark.usefixtures('quick_compiles')


def _config():
  config = weld.get_config('small')
  config.data.synthetic_per_class = 10
  config.model.name = 'lenet'
  config.model.dropout = 0.0
  return runs.resolve(config)


def test_small_run_writes_numbers_page_and_figures(tmp_path):
  options = inspect_layers.Options(
    layers=('conv1',), num_images=40, num_neurons=2, ascent_steps=3,
    num_samples=50, stain_level=0.6, perplexity=5,
  )
  config = _config()
  accuracies = inspect_layers.run(
    config, tmp_path / 'a', options, (config, tmp_path / 'a')
  )
  document = json.loads((tmp_path / 'a' / 'inspection.json').read_text())
  layers = ['input', 'conv1', 'logits']
  assert [row['layer'] for row in document['probes']] == layers
  for row in document['probes']:
    assert row['accuracy'] == accuracies[row['layer']]
    assert row['lower'] <= row['accuracy'] <= row['upper']
  own, between, other = document['similarity']
  # The other network is this one.
  for part in (own, other):
    np.testing.assert_allclose(np.diag(part['values']), 1, atol=1e-6)
  assert between['rows'] == layers
  i, j = between['rows'].index('logits'), between['columns'].index('logits')
  np.testing.assert_allclose(between['values'][i][j], 1, atol=1e-6)
  assert {row['method'] for row in document['embeddings']} == {
    'principal components', 't-SNE'
  }
  assert [part['layer'] for part in document['neurons']] == layers[1:]
  with np.load(tmp_path / 'a' / 'inspection' / 'neurons.npz') as images:
    assert images['conv1'].shape == (2, 32, 32, 1)
    assert all(np.isfinite(images[name]).all() for name in images)
  assert document['channels']['first'] == document['class_names'][0]
  names = [row['name'] for row in document['weights']]
  assert 'conv1.kernel' in names
  assert [part['kind'] for part in document['regions']] == [
    'white stains', 'black padding'
  ]
  page = (tmp_path / 'a' / 'inspection.html').read_text()
  for heading in ('Linear probes', 'Embeddings', 'Similarity of layers',
                  'Neurons', 'Channels', 'Weights', 'Region: white stains'):
    assert f'<h2>{heading}</h2>' in page
  stems = {path.stem for path in (tmp_path / 'a' / 'inspection').iterdir()}
  assert stems >= {
    'probes', 'embeddings_t-sne', 'similarity', 'neurons', 'courses',
    'channels', 'weights', 'region_white_stains',
  }
  _check_bad_input(config, tmp_path / 'a')



def _check_bad_input(config, workdir):
  for changed, message in (
    (dict(layers=('conv3',)), "no layer 'conv3'; next to it are conv"),
    (dict(perplexity=90.0), 'perplexity must be'),
  ):
    with pytest.raises(ValueError, match=message):
      inspect_layers.run(config, workdir, inspect_layers.Options(**changed))


def test_bad_options_are_named_before_anything_is_trained():
  for changed, message in (
    (dict(fill='red'), 'fill must be one of'),
    (dict(ascent_steps=0), '--ascent_steps must be at least 1'),
    (dict(num_neurons=-1), '--num_neurons must be at least 0'),
  ):
    with pytest.raises(ValueError, match=message):
      inspect_layers.Options(**changed)


def test_groups_are_classes_against_each_other_or_the_rest():
  names = ('a', 'b', 'c')
  choose = inspect_layers.choose_groups
  assert choose(names, ()) == ((0,), (1, 2))
  assert choose(names, ('c',)) == ((2,), (0, 1))
  assert choose(names, ('c', 'a')) == ((2,), (0,))
  with pytest.raises(ValueError, match="no class 'bb', next to it are b"):
    choose(names, ('bb',))
  with pytest.raises(ValueError, match='one or two classes'):
    choose(names, ('a', 'b', 'c'))
  with pytest.raises(ValueError, match='one or two classes'):
    choose(names, ('a', 'a'))


def test_stain_that_decides_the_answer_is_found_to_do_so():
  # The first class sees white where the stain is, the second nothing at all.
  shape = (12, 12, 1)
  mask = regions.rectangle(shape[:2], 2, 3, 3, 3)
  kernel = np.stack([mask.ravel() - 0.7 * mask.mean(), 0 * mask.ravel()], 1)
  classifier = linear_network.classifier(kernel.astype('f'), shape)
  rng = np.random.default_rng(0)
  images = rng.uniform(0.3, 0.5, (20, *shape)).astype('f')
  images[:8, mask] = 1.0
  shown = layer_parts.Chosen(images, np.arange(20) % 2, None)
  certainty = np.linspace(0, 1, 20)
  stains, padding = layer_parts.replace_regions(
    jax.random.key(0), classifier, shown, certainty, inspect_layers.Options()
  )
  assert len(stains['areas']) == 8 and stains['num_images'] == 20
  np.testing.assert_allclose(stains['areas'], 9 / 144)
  gain = lambda x: 1 / (1 + np.exp(-(x @ kernel[:, 0])))
  before = gain(images[:8].reshape(8, -1))
  after = gain(regions.replace(images[:8], mask).reshape(8, -1))
  np.testing.assert_allclose(stains['changes'], after - before, atol=1e-5)
  assert stains['effect_p'] < 0.01
  assert np.abs(stains['control_changes']).max() < 0.1
  assert stains['groups']['u'] == 0  # the eight least certain
  assert set(stains['within']) == {'class 0', 'class 1'}
  assert padding['areas'] == [] and padding['groups'] is None
  # Of kernels the kernel itself is told.
  kernels = dataclasses.replace(classifier, answers='log_kernels')
  found, _ = layer_parts.replace_regions(
    jax.random.key(0), kernels, shown, certainty, inspect_layers.Options()
  )
  assert found['quantity'] == 'kernel' and stains['quantity'] == 'probability'
  gain = lambda x: np.exp(x.reshape(8, -1) @ kernel[:, 0])
  np.testing.assert_allclose(
    found['changes'],
    gain(regions.replace(images[:8], mask)) - gain(images[:8]), rtol=1e-3,
  )


def test_dead_layer_is_named():
  rng = np.random.default_rng(0)
  labels = np.arange(12) % 2
  found = {'a': rng.normal(size=(12, 3)), 'b': np.zeros((12, 3))}
  shown = layer_parts.Chosen(np.zeros((12, 2, 2, 1)), labels, None)
  with pytest.raises(ValueError, match="layer 'b': .* same for all images"):
    layer_parts.probe_layers(
      jax.random.key(0), [found, found], labels, shown, 10
    )
  with pytest.raises(ValueError, match="layer 'b': .* same for all images"):
    layer_parts.embed_layers(jax.random.key(0), found, labels, None)


def test_typical_channels_are_high_for_their_class_and_differ():
  rng = np.random.default_rng(0)
  labels = np.repeat([0, 1, 2], 20)
  values = rng.normal(size=(60, 6))
  values[labels == 0, 4] += 9
  values[labels == 1, 2] += 9
  values[labels == 2, 4] += 8  # second to that of the first class
  values[labels == 2, 5] += 5
  values[labels == 1, 3] -= 9
  found = layer_parts.typical_channels(values, labels, 3)
  assert found == [(4, 0), (2, 1), (5, 2)]
  many = layer_parts.typical_channels(values, labels, 99)
  assert sorted(channel for channel, _ in many) == list(range(6))


def test_weights_come_in_the_order_of_their_layers():
  arrays = {name: np.ones((2, 2)) for name in ('a.w', 'fc.w', 'left.w', 'b.w')}
  rows = layer_parts.describe_weights(arrays, ('b', 'a', 'fc'))
  assert [row['name'] for row in rows] == ['b.w', 'a.w', 'fc.w', 'left.w']


def test_too_few_images_are_refused():
  part = image_sets.ImageSet(
    np.zeros((9, 8, 8, 1), np.float32), np.arange(9) % 2,
    tuple(map(str, range(9))), ('a', 'b'), tuple(map(str, range(9))), '',
  )
  with pytest.raises(ValueError, match='there are 9'):
    layer_parts.choose(jax.random.key(0), part, 50, (8, 8))


def test_page_escapes_names_and_shows_what_there_is():
  result = {
    'title': '<a>', 'facts': {'x': '<b>'}, 'class_names': ['<c>', 'd'],
    'labels': [0, 1], 'network_accuracy': 0.5, 'probes': [{
      'layer': '<e>', 'accuracy': 0.5, 'lower': 0.2, 'upper': 0.8,
      'training_accuracy': 1.0, 'majority': 0.5, 'num_features': 3,
      'num_components': 2, 'num_train': 4, 'num_test': 2, 'converged': False,
      'num_iterations': 7,
    }], 'embeddings': [], 'similarity': [], 'neurons': [], 'channels': {},
    'weights': [], 'regions': [],
  }
  page = inspection_page.render(result)
  assert 'Not converged' in page and 'Neurons' not in page
  for name in 'abce':
    assert f'&lt;{name}&gt;' in page or name == 'c'
    assert f'<{name}></' not in page
