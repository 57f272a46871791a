import json
import sys

import jax
import numpy as np
import pytest

from configs import weld
from experiments import export
from experiments import runs
from jaxsens import classifiers
from jaxsens.models import inference
from jaxsens.models import registry
from jaxsens.models import states


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


def test_run_writes_file_and_report(tmp_path):
  config = runs.resolve(weld.get_config('small'))
  found = export.run(config, tmp_path, ('stablehlo',))
  report = json.loads((tmp_path / 'export' / 'export.json').read_text())
  assert report['formats'] == found
  size = (tmp_path / 'export' / 'classifier.stablehlo').stat().st_size
  assert found['stablehlo']['bytes'] == size
  with pytest.raises(ValueError, match='some of'):
    export.run(config, tmp_path, ('tflite',))
