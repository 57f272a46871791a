import csv
import json

import jax
import numpy as np
from PIL import Image
import pytest

from configs import weld
from experiments import evaluate
from experiments import runs
from jaxsens.data import image_sets
from jaxsens.models import registry
from jaxsens.training import linear_baseline

pytestmark = pytest.mark.usefixtures('quick_compiles')


def test_linear_baseline_separates_what_is_linear_and_knows_absent_classes():
  rng = np.random.default_rng(0)
  labels = np.repeat([0, 2], 40)
  images = rng.normal(size=(80, 6, 6, 1)) + labels[:, None, None, None]
  model = linear_baseline.fit(images, labels)
  found = linear_baseline.logits(model, images, 3)
  assert np.mean(found.argmax(1) == labels) > 0.95
  assert (found[:, 1] == -1e3).all()
  with pytest.raises(ValueError, match='two classes'):
    linear_baseline.fit(images, np.zeros(80, int))


def test_flops_of_lenet_are_those_counted_by_hand():
  model = registry.create('lenet', jax.random.key(0), 10)
  multiply_adds = (
    28**2 * 6 * 75 + 10**2 * 16 * 150 + 400 * 120 + 120 * 84 + 84 * 10
  )
  found = registry.flops(model, (32, 32, 3))
  # Biases, maxima and comparisons on top.
  assert 2 * multiply_adds < found < 2.2 * multiply_adds
  assert registry.num_parameters(model) == 62_006


def test_small_run_writes_page_numbers_and_predictions(tmp_path):
  config = runs.resolve(weld.get_config('small'))
  config.model.update({'name': 'lenet', 'init': 'random', 'dropout': 0.0})
  measures = evaluate.run(
    config, tmp_path, num_samples=20, coverages=(0.8, 1.0), num_annotated=2
  )
  document = json.loads((tmp_path / 'evaluation.json').read_text())
  assert set(document['parts']) == {'test', 'linear baseline'}
  found = document['parts']['test']
  np.testing.assert_allclose(
    found['measures']['accuracy']['value'], measures['accuracy']
  )
  confusion = np.array(found['confusion'])
  np.testing.assert_allclose(
    np.trace(confusion) / confusion.sum(), measures['accuracy']
  )
  lines = (tmp_path / 'predictions.csv').read_text().splitlines()
  assert len(lines) == 1 + found['num_images']
  page = (tmp_path / 'evaluation.html').read_text()
  assert 'linear baseline' in page and 'images/s' in page
  assert [row['batch'] for row in document['speed']] == [1, 8, 32]
  # Acceptance by hand, from the file.
  rows = list(csv.DictReader(lines))
  low, high = document['refusals']
  accepted = [row['accepted'] == 'yes' for row in rows]
  sure = [float(row['certainty']) for row in rows]
  limit = low['threshold']['value']
  assert all(
    a == (c >= limit) for a, c in zip(accepted, sure, strict=True)
    if abs(c - limit) > 1e-6
  )
  right = [row['answer'] == row['label'] for row in rows]
  found = low['measures']
  np.testing.assert_allclose(found['coverage']['value'], np.mean(accepted))
  if any(accepted):
    np.testing.assert_allclose(
      found['risk']['value'], 1 - np.mean(np.array(right)[accepted])
    )
  assert high['threshold']['asked'] == high['threshold']['coverage'] == 1
  assert high['threshold']['value'] <= limit
  assert 'Refusing the unsure' in page and 'share to accept' in page
  pictures = sorted((tmp_path / 'annotated').iterdir())
  assert [path.name[:6] for path in pictures] == ['00000_', '00001_']
  with Image.open(pictures[0]) as picture:
    assert picture.height > picture.width > 400


def test_without_validation_images_nothing_is_refused_and_that_is_said():
  part = lambda n: image_sets.ImageSet(
    np.zeros((n, 8, 8, 1), np.float32), np.arange(n) % 2,
    tuple(map(str, range(n))), ('a', 'b'), tuple(map(str, range(n))), '',
  )
  for sizes, missing in (((4, 0, 4), 'validation'), ((4, 4, 0), 'test')):
    splits = image_sets.Splits(*map(part, sizes))
    found, note = evaluate._thresholds(None, splits, (0.9,))
    assert found == [] and f'no {missing} images' in note
  with pytest.raises(ValueError, match='coverage must be in'):
    evaluate.run(weld.get_config('small'), None, coverages=(0.9, 90))
