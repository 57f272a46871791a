import dataclasses
import json

import jax
import numpy as np
import pytest

from configs import weld
from experiments import attribution_indices
from experiments import explain
from experiments import explained_images
from experiments import explanation_parts
from experiments import gpc
from experiments import methods as methods_lib
from experiments import runs
from experiments import train
from jaxsens.attribution import faithfulness
from jaxsens.attribution import gradients
from jaxsens.attribution import maps
from jaxsens.data import image_sets

pytestmark = pytest.mark.usefixtures('quick_compiles')

_METHODS = ('gradient x input', 'Grad-CAM')


@pytest.fixture(scope='module')
def run_directory(tmp_path_factory):
  """A run of a LeNet on tiny frames, with everything that can be asked for."""
  workdir = tmp_path_factory.mktemp('explain')
  config = weld.get_config('small')
  config.model.name = 'lenet'
  config.model.dropout = 0.0
  config.factor_order = ('brightness', 'rotation')
  config = runs.resolve(config)
  document = explain.run(config, workdir, explain.Options(
    methods=_METHODS, factor='brightness', num_steps=4, num_masks=9,
    randomised=True, believe=True, indices=True, indices_nodes=32,
    annotate=True, target='label',
  ))
  return config, workdir, document


def _network(config, workdir):
  key_data, key_train = runs.split_keys(config)[:2]
  splits = train.load_data(key_data, config)
  trained = train.train_or_restore(key_train, config, workdir, lambda: splits)
  return trained.classifier, splits.test


def test_files_hold_what_the_methods_say(run_directory):
  config, workdir, document = run_directory
  assert json.loads((workdir / 'explanation.json').read_text()) == document
  classifier, test = _network(config, workdir)
  frames = gpc.analysed_frames(test, config)
  assert [image['name'] for image in document['images']] == list(frames.names)
  with np.load(workdir / 'attributions.npz') as archive:
    arrays = dict(archive)
  images = image_sets.resize_all(frames.images, classifier.image_size)
  np.testing.assert_array_equal(arrays['images'], images)
  expected = gradients.gradient_x_input(classifier, images, frames.labels)
  np.testing.assert_allclose(
    arrays['values/gradient x input'], expected.values, rtol=1e-4, atol=1e-6
  )
  entry = document['methods'][0]
  assert entry['kind'] == 'signed' and entry['num_gradients'] == [1, 1]
  np.testing.assert_allclose(
    entry['completeness_error'], expected.completeness_error, atol=1e-4
  )
  assert document['methods'][1]['kind'] == 'unsigned'
  # The class of the label is explained.
  assert [image['target'] for image in document['images']] == (
    frames.labels.tolist()
  )
  np.testing.assert_allclose(
    [image['score'] for image in document['images']], expected.scores,
    rtol=1e-5,
  )
  # Among the maps of all classes there is that of the target.
  rows = np.arange(len(images)), frames.labels
  np.testing.assert_allclose(
    arrays['classes'][rows], arrays['values/Grad-CAM'][..., 0], atol=1e-6
  )


def test_paths_add_up_to_the_change_at_the_worse_end(run_directory):
  config, workdir, document = run_directory
  classifier, test = _network(config, workdir)
  frames = gpc.analysed_frames(test, config)
  arrays = np.load(workdir / 'attributions.npz')
  assert [part['factor'] for part in document['paths']] == [
    'brightness', 'rotation'
  ]
  part = document['paths'][0]
  both = arrays['paths/brightness/images']
  np.testing.assert_allclose(both[:, 0], arrays['images'], atol=1e-5)
  scores = [np.asarray(maps.scores_of(
    classifier, both[:, k], frames.labels, quantity='logit'
  )) for k in range(2)]
  np.testing.assert_allclose(
    part['changes'], scores[1] - scores[0], rtol=1e-3, atol=1e-4
  )
  # At the other end the score changes less.
  other = image_sets.resize_all(frames.images, classifier.image_size)
  other = np.clip(np.stack([
    (2 if end == 0 else 0) * image
    for image, end in zip(other, part['ends'], strict=True)
  ]), 0, 1)
  change = np.asarray(maps.scores_of(
    classifier, other, frames.labels, quantity='logit'
  )) - scores[0]
  assert (np.abs(part['changes']) >= np.abs(change) - 1e-4).all()
  for found in document['paths']:
    total = np.add(found['positive'], found['negative'])
    np.testing.assert_allclose(
      total - found['changes'], found['completeness_error'], atol=1e-4
    )


def test_panel_goes_over_the_range_of_the_factor(run_directory):
  _, workdir, document = run_directory
  panel = document['panel']
  np.testing.assert_allclose(panel['values'], np.linspace(0, 2, 7))
  arrays = np.load(workdir / 'attributions.npz')
  shown = arrays['panel/images']
  assert not shown[0].any()
  np.testing.assert_allclose(shown[3], arrays['images'][0], atol=1e-5)
  # Unperturbed, the map is that of the image.
  np.testing.assert_allclose(
    arrays['panel/gradient x input'][3],
    arrays['values/gradient x input'][0], rtol=1e-3, atol=1e-5,
  )
  assert panel['answers'][3] == document['images'][0]['answer']


def test_permuted_parameters_give_other_maps(run_directory):
  _, workdir, document = run_directory
  arrays = np.load(workdir / 'attributions.npz')
  name = 'gradient x input'
  own, permuted = (
    arrays[f'{part}/{name}'] for part in ('values', 'randomised')
  )
  found = document['randomised'][0]
  assert found['name'] == name and not np.allclose(own, permuted)
  assert all(-1 <= value < 0.95 for value in found['spearman'])


def test_belief_is_what_the_measures_say(run_directory):
  config, workdir, document = run_directory
  classifier, test = _network(config, workdir)
  frames = gpc.analysed_frames(test, config)
  arrays = np.load(workdir / 'attributions.npz')
  slope, cam = document['belief']
  assert [slope['name'], cam['name']] == list(_METHODS)
  # A map that a network has by its gradient, not one that a layer has.
  assert cam['infidelity'] is None
  assert all(0 <= value <= 1 for value in slope['infidelity'])
  expected = faithfulness.deletion(
    classifier, arrays['images'], arrays[f'values/{slope["name"]}'].sum(-1),
    frames.labels,
  ).areas
  np.testing.assert_allclose(slope['deletion'], expected, rtol=1e-3)
  for row in (slope, cam):
    assert len(row['cascade']) == len(row['stages']) == 5
    assert min(row['sensitivity']) > 0
  # Without all that was learned a map is another one.
  assert np.max(slope['cascade'][-1]) < 0.95
  assert len(set(slope['stages'])) == 5


def test_page_shows_all_and_is_drawn_again_from_the_files(run_directory):
  config, workdir, document = run_directory
  page = workdir / 'explanation.html'
  before = page.read_text()
  for heading in ('Heat maps', 'For and against', 'Every class',
                  'Over the range of a factor', 'Effects of the factors',
                  'Permuted parameters', 'Can they be believed?',
                  'Where the map lies', 'Large'):
    assert f'<h2>{heading}</h2>' in before
  page.unlink()
  again = explain.run(config, workdir, explain.Options(render_only=True))
  assert again == document and page.read_text() == before
  with pytest.raises(ValueError, match='there is no .*explanation.json'):
    explain.run(config, workdir / 'none', explain.Options(render_only=True))


def test_mask_that_moves_with_the_image_keeps_what_is_inside(
  run_directory, monkeypatch
):
  config, workdir, document = run_directory
  found = document['indices']
  assert found['outputs'] == ['centre x', 'centre y', 'spread']
  assert found['factors'] == ['brightness', 'rotation']
  classifier, test = _network(config, workdir)
  frames = test.take([0, 1])
  context = methods_lib.Context(
    key=jax.random.key(0), classifier=classifier, references=np.empty(0)
  )
  # The map is the image: light in the left half, which is what the mask says.
  size = np.shape(frames.images[0])
  images = np.full((2, *size), 1e-6, np.float32)
  images[:, :, :size[1] // 2] = 0.5
  frames = dataclasses.replace(frames, images=images)
  monkeypatch.setitem(methods_lib.METHODS, 'light', _sees_light)
  result = attribution_indices.find(
    jax.random.key(1), context, config, frames, images[..., 0] > 0.1,
    frames.labels, 'light', 48,
  )
  k = result['outputs'].index('mass inside')
  part = result['images'][0]
  assert part['mean'][k] > 0.9 and part['std'][k] < 0.1
  # A rotated left half lies elsewhere, a darker one does not.
  y = result['outputs'].index('centre y')
  first = np.asarray(part['first_order'])
  assert first[1, y] > 0.8 and first[0, y] < 0.1


def _sees_light(context, images, targets):
  del context
  ones = np.ones(len(images))
  return maps.Attribution(
    method='light', values=images, targets=targets, scores=ones,
    baseline_scores=ones, num_gradients=ones, num_forwards=ones,
  )


def test_images_are_those_that_are_named(run_directory):
  config, workdir, _ = run_directory
  classifier, test = _network(config, workdir)
  found = explained_images.choose_images(
    test, classifier, config, [test.names[2], '0']
  )
  assert found.names == (test.names[2], test.names[0])
  with pytest.raises(ValueError, match=f'numbers go from 0 to {len(test) - 1}'):
    explained_images.choose_images(test, classifier, config, [str(len(test))])


def test_method_that_a_network_cannot_have_is_left_out_or_refused(
  run_directory
):
  config, workdir, _ = run_directory
  classifier, test = _network(config, workdir)
  images = image_sets.resize_all(
    test.take([0]).images, classifier.image_size
  )
  context = methods_lib.Context(jax.random.key(0), classifier, images)

  def refuse(*_):
    raise NotImplementedError('no such step')

  chosen = {'it': refuse, 'plain': methods_lib.METHODS['saliency']}
  entries, values, skipped = explanation_parts.attribute(
    context, chosen, images, test.labels[:1], skip=True
  )
  assert list(values) == [entry['name'] for entry in entries] == ['plain']
  assert skipped == [{'name': 'it', 'reason': 'no such step'}]
  with pytest.raises(NotImplementedError, match='no such step'):
    explanation_parts.attribute(context, chosen, images, test.labels[:1])


@pytest.mark.parametrize(
  'fields, message', [
    (dict(methods=('Grad-CAN',)), 'methods must be among .*got Grad-CAN'),
    (dict(indices_of='CAM'), 'methods must be among .*got CAM'),
    (dict(num_steps=0), '--num_steps must be at least 1'),
    (dict(path_to=1.0), '--path_to needs --factor'),
    (dict(factor='tint'), "no factor 'tint', it has brightness, rotation."),
    (dict(factor='brightness', path_to=-1.0), r'--path_to of brightness must'),
    (dict(target='arc'), "--target must be predicted, label or a class, got"),
    (dict(layer='conv9'), "conv9.*conv"),
    (dict(quantity='logits'), 'logits'),
  ],
)
def test_bad_settings_are_refused(run_directory, fields, message):
  config, workdir, _ = run_directory
  with pytest.raises(ValueError, match=message):
    explain.run(config, workdir, explain.Options(**fields))
