import csv
import json
import sys

import jax
import numpy as np
import pytest

from configs import weld
from experiments import convert_weights
from experiments import evaluate
from experiments import export
from experiments import runs
from experiments import train
from jaxsens import classifiers
from jaxsens.data import image_sets
from jaxsens.models import inference
from jaxsens.models import registry
from jaxsens.models import states

pytestmark = pytest.mark.usefixtures('quick_compiles')


def _classifier(name='resnet18', size=(32, 32)):
  network = registry.create(name, jax.random.key(0), 3, in_channels=1)
  rng = np.random.default_rng(0)
  network = states.replace(network, {
    path: x + rng.uniform(0.05, 0.5, x.shape) if 'bn' in path else x
    for path, x in states.flatten(network).items()
  })
  return classifiers.from_flax(
    inference.prepare(network, (*size, 1), tiles=False),
    preprocess=classifiers.Normalise((0.5,), (0.5,)), class_names='abc',
    image_size=size, channels=1,
  )


def _images(count, size=(32, 32)):
  return np.random.default_rng(1).random((count, *size, 1), np.float32)


def test_stablehlo_has_the_answers_for_any_batch(tmp_path):
  classifier = _classifier()
  path = tmp_path / 'classifier.stablehlo'
  path.write_bytes(export.to_stablehlo(classifier))
  found = export.check(classifier, _images(5), export.read_stablehlo(path))
  assert found['equal_answers'] == 5
  assert found['largest_difference'] < 1e-4


def test_onnx_has_the_answers_for_any_batch(tmp_path):
  pytest.importorskip('jax2onnx', reason='jax2onnx writes the file')
  pytest.importorskip('onnxruntime', reason='onnxruntime reads it')
  classifier = _classifier()
  path = tmp_path / 'classifier.onnx'
  path.write_bytes(export.to_onnx(classifier))
  found = export.check(classifier, _images(5), export.read_onnx(path))
  assert found['equal_answers'] == 5


def test_another_function_is_refused():
  classifier = _classifier()
  with pytest.raises(ValueError, match='exported classifier differs'):
    export.check(
      classifier, _images(3), lambda images: np.ones((len(images), 3))
    )


def test_missing_package_is_named(monkeypatch):
  monkeypatch.setitem(sys.modules, 'jax2onnx', None)
  with pytest.raises(ImportError, match='pip install jax2onnx onnxruntime'):
    export.to_onnx(_classifier())


def test_network_of_another_form_is_exported_and_assessed_in_it(tmp_path):
  config = weld.get_config('small')
  options = {'stem': 'cifar', 'padding': 'same', 'dropout': 0.3}
  config.model.update({'name': 'squeezenet1_1_reduced7', 'init': 'random'})
  config.model.update(options)
  config = runs.resolve(config)
  export.run(config, tmp_path, ('stablehlo',))
  network, metadata = convert_weights.read_checkpoint(tmp_path / 'checkpoint')
  assert metadata.options == options
  images = _images(3)
  expected = network(classifiers.Normalise((0.5,), (0.5,))(images))
  path = tmp_path / 'export' / 'classifier.stablehlo'
  np.testing.assert_allclose(
    export.read_stablehlo(path)(images), expected,
    atol=1e-4 * np.abs(expected).max(),
  )
  evaluate.run(config, tmp_path, with_baseline=False, num_samples=5)
  rows = list(csv.DictReader((tmp_path / 'predictions.csv').open()))
  facts = json.loads((tmp_path / 'evaluation.json').read_text())['facts']
  assert facts['network'] == 'squeezenet1_1_reduced7' and rows
  # The same images, answered by the checkpoint alone.
  part = train.load_data(runs.split_keys(config)[0], config).test
  pixels = image_sets.resize_all(part.images, metadata.image_size)
  logits = network(classifiers.Normalise(metadata.mean, metadata.std)(pixels))
  answers = [metadata.class_names[k] for k in np.argmax(logits, 1)]
  assert [row['answer'] for row in rows] == answers


def test_run_writes_file_and_report(tmp_path):
  config = runs.resolve(weld.get_config('small'))
  config.model.update({'name': 'lenet', 'init': 'random', 'dropout': 0.0})
  found = export.run(config, tmp_path, ('stablehlo',))
  report = json.loads((tmp_path / 'export' / 'export.json').read_text())
  assert report['formats'] == found
  size = (tmp_path / 'export' / 'classifier.stablehlo').stat().st_size
  assert found['stablehlo']['bytes'] == size
  with pytest.raises(ValueError, match='some of'):
    export.run(config, tmp_path, ('tflite',))
