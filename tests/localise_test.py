"""Heat maps against masks, from images on disk to the page."""

import csv
import json

import numpy as np
from PIL import Image
import pytest

from configs import steel_masks
from configs import weld
from experiments import localise
from experiments import localised_maps
from experiments import methods
from experiments import runs
from jaxsens.data import image_sets
from tests.oracles import small_networks

pytestmark = pytest.mark.usefixtures('quick_compiles')

_SOME = ('integrated gradients', 'Grad-CAM', 'occlusion')


def _write_images(root, number=24):
  """Writes images like those of NEU-Seg: a dark, bright or striped square."""
  rng = np.random.default_rng(0)
  for part in ('training', 'test'):
    for folder in ('img_dir', 'ann_dir'):
      (root / folder / part).mkdir(parents=True)
    for i in range(number):
      kind = i % 3
      image = rng.uniform(100, 140, (40, 40))
      mask = np.zeros((40, 40), np.uint8)
      row, column = rng.integers(0, 20, 2)
      place = np.s_[row:row + 20, column:column + 20]
      image[place] = [
        np.zeros((20, 20)), np.full((20, 20), 255),
        np.tile([0, 0, 255, 255], (20, 5)),
      ][kind]
      mask[place] = kind + 1
      Image.fromarray(np.repeat(image[..., None], 3, 2).astype(np.uint8)).save(
        root / 'img_dir' / part / f'{i:06d}.jpg'
      )
      Image.fromarray(mask).save(root / 'ann_dir' / part / f'{i:06d}.png')


def _config(root, names=_SOME):
  config = steel_masks.get_config('small')
  config.data.root = str(root)
  config.localisation.methods = names
  return runs.resolve(config)


def test_small_run_judges_methods_and_goes_on_from_its_maps(
  tmp_path, monkeypatch
):
  _write_images(tmp_path / 'data')
  workdir = tmp_path / 'run'
  first = localise.run(_config(tmp_path / 'data', _SOME[:1]), workdir)
  done = {
    path: path.stat().st_mtime_ns
    for path in (workdir / 'localisation_maps').iterdir()
  }
  # What is there already must not be computed again.
  for name in _SOME[:1]:
    monkeypatch.setitem(methods.METHODS, name, None)
  found = localise.run(_config(tmp_path / 'data'), workdir)
  assert found.items() >= first.items() and set(found) >= {*_SOME}
  for path, time in done.items():
    assert path.stat().st_mtime_ns == time
  document = json.loads((workdir / 'localisation.json').read_text())
  rows = {row['method']: row for row in document['rows']}
  assert set(rows) == {
    *_SOME, 'random map', 'centre blob', 'image: darkness',
    'image: distance from its mean',
  }
  for name, row in rows.items():
    dice = row['measures']['Dice']
    np.testing.assert_allclose(dice['value'], np.mean(row['dice']))
    assert dice['lower'] <= dice['value'] <= dice['upper']
    assert 0 < row['faithfulness']['deletion'] < 1
    assert ('sanity' in row) == (name in _SOME)
  # The squares are as dark or as bright as nothing around them.
  assert rows['image: distance from its mean']['measures'][
    'pixel AUROC']['value'] > 0.9
  assert abs(
    rows['random map']['measures']['pixel AUROC']['value'] - 0.5
  ) < 0.1
  assert rows['integrated gradients']['num_gradients'] == 2
  best = max(_SOME, key=found.get)
  assert document['comparison']['best'] == best
  with (workdir / 'localisation.csv').open() as file:
    lines = {line['method']: line for line in csv.DictReader(file)}
  assert float(lines[best]['Dice']) == found[best]
  page = (workdir / 'localisation.html').read_text()
  for name in rows:
    assert f'<td>{name}' in page
  assert {path.name for path in (workdir / 'localisation').iterdir()} == {
    'dice.png', 'examples.png'
  }


def test_images_without_masks_are_refused_before_training(tmp_path):
  config = _config(tmp_path)
  plain = weld.get_config('small')
  plain.data.synthetic_per_class = 2
  plain.localisation = config.localisation
  with pytest.raises(ValueError, match='have no masks.*steel_masks'):
    localise.run(runs.resolve(plain), tmp_path / 'run')
  assert not (tmp_path / 'run' / 'checkpoint').exists()


@pytest.mark.parametrize('changed, message', [
  (dict(methods=('CAM',)), 'methods must be among saliency'),
  (dict(num_images=-1), 'num_images must be at least 0, got -1'),
  (dict(blurs=()), 'blurs must not be empty'),
  (dict(signs=('negative',)), "signs must be of .*got .'negative'"),
  (dict(replacement='red'), "must be 'blur' or 'black', got 'red'"),
])
def test_bad_options_are_named(tmp_path, changed, message):
  config = steel_masks.get_config('small')
  for name, value in changed.items():
    config.localisation[name] = value
  with pytest.raises(ValueError, match=message):
    localise.run(config, tmp_path)


def _part(masks, labels, names):
  number = len(labels)
  return image_sets.ImageSet(
    np.zeros((number, 16, 16, 3), np.float32), labels,
    tuple(map(str, range(number))), tuple(f'class {k}' for k in range(4)),
    tuple(map(str, range(number))), 'these', masks=masks, mask_names=names,
  )


def test_mask_is_that_of_the_class_at_the_size_of_the_network():
  classifier = small_networks.classifier(localise.jax.random.key(0), size=16)
  answer = int(np.argmax(classifier(np.zeros((1, 16, 16, 3), np.float32))))
  masks = np.zeros((4, 32, 32, 1), bool)
  masks[1, 8:24, :16, 0] = True  # the only one with a pixel
  masks[3, :2, :, 0] = True
  labels = np.full(4, answer)
  labels[3] = (answer + 1) % 4  # not recognised
  key = localise.jax.random.key(1)
  part = _part(masks, labels, (classifier.class_names[answer],))
  found = localised_maps.choose(key, classifier, part, 0, 'test')
  assert found.names == ('1',)
  assert (found.num_recognised, found.num_without_mask) == (3, 2)
  expected = np.zeros((16, 16), bool)
  expected[4:12, :8] = True
  np.testing.assert_array_equal(found.masks, expected[None])
  with pytest.raises(ValueError, match='masks mark x, none of which'):
    localised_maps.choose(
      key, classifier, _part(masks, labels, ('x',)), 0, 'test'
    )
  with pytest.raises(ValueError, match='none of the 4 test images'):
    localised_maps.choose(
      key, classifier, _part(0 * masks == 1, labels, ('class 0',)), 0, 'test'
    )


def test_masks_are_resized_by_the_nearest_pixel():
  mask = np.arange(6).reshape(2, 3)
  np.testing.assert_array_equal(
    localised_maps.nearest(mask, (4, 6)), mask.repeat(2, 0).repeat(2, 1)
  )
  large = np.arange(81).reshape(9, 9)
  np.testing.assert_array_equal(
    localised_maps.nearest(large, (3, 3)), large[1::3, 1::3]
  )


def test_broken_file_of_maps_is_no_maps(tmp_path):
  path = tmp_path / 'maps'
  arrays = [np.ones((i, 2, 2)) for i in (1, 2, 3)]
  localised_maps.save(path, localised_maps.Found(*arrays, {'a': 1.5}))
  found = localised_maps.saved(path)
  assert found.facts == {'a': 1.5} and found.test.shape == (2, 2, 2)
  content = path.with_suffix('.npz').read_bytes()
  path.with_suffix('.npz').write_bytes(content[:-30])
  assert localised_maps.saved(path) is None
  assert localised_maps.saved(tmp_path / 'absent') is None
