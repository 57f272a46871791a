"""Networks with kernels as files for others, and back."""

import json
import pathlib
import tempfile

from absl.testing import parameterized
import numpy as np
import pytest

from experiments import convert_weights
from experiments import export
from experiments import kernel_networks
from experiments import train
from jaxsens.models import inference
from jaxsens.models import states
from jaxsens.training import checkpoints
from jaxsens.weights import kernel_names
from jaxsens.weights import safetensors

pytestmark = pytest.mark.usefixtures('quick_compiles')
_SHAPE = (32, 32, 1)


def _network(name='lenet', num_dimensions=6):
  """Every array at random; none is drawn as at the start of a training."""
  network = kernel_networks.blank(name, ('a', 'b', 'c'), 1, _SHAPE[:2], {
    'length_scale': 0.3, 'num_dimensions': num_dimensions
  })
  rng = np.random.default_rng(0)
  scale = lambda x: 1 / np.sqrt(max(1, np.prod(x.shape[:-1])))
  return states.replace(network, {
    path: (
      rng.normal(size=x.shape) * scale(x) if 'kernel' in path
      else rng.uniform(0.5, 1, x.shape)
    ).astype(np.float32)
    for path, x in states.flatten(network).items()
  })


def _metadata(name='lenet', **options):
  return checkpoints.Metadata(
    architecture=name, class_names=('a', 'b', 'c'), image_size=_SHAPE[:2],
    channels=1, mean=(0.4,), std=(0.3,), data='none', config_hash='abc',
    metrics={}, options=options,
  )


def _images(count=4):
  return np.random.default_rng(1).random((count, *_SHAPE), np.float32)


class ConversionTest(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    folder = self.enterContext(tempfile.TemporaryDirectory())
    self.folder = pathlib.Path(folder)

  def _write(self, network, metadata, **options):
    """Returns the .safetensors file of a checkpoint of a network."""
    checkpoints.save(self.folder / 'c', network, metadata)
    return convert_weights.run(convert_weights.Request(
      source=str(self.folder / 'c'), format='safetensors',
      output=str(self.folder / 'file'), **options
    ))

  @parameterized.parameters(
    ('lenet', 6, {'num_dimensions': 6}),
    # As many dimensions as features, batch norms, depthwise convolutions.
    ('shufflenet_v2_x1_0', 0, {'num_dimensions': 0, 'stem': 'imagenet'}),
  )
  def test_checkpoint_to_safetensors_and_back_is_bitwise(
    self, name, num_dimensions, options
  ):
    network = _network(name, num_dimensions)
    metadata = _metadata(name, length_scale=0.3, **options)
    path = self._write(network, metadata)
    folder = convert_weights.run(convert_weights.Request(
      source=str(path), output=str(self.folder / 'd')
    ))
    restored, found = convert_weights.read_checkpoint(folder)
    for field in ('architecture', 'class_names', 'image_size', 'channels',
                  'mean', 'std', 'options', 'data'):
      self.assertEqual(getattr(found, field), getattr(metadata, field), field)
    self.assertEqual(restored.head.length_scale, 0.3)
    expected = states.flatten(network)
    actual = states.flatten(restored)
    self.assertEqual(set(actual), set(expected))
    for field, array in expected.items():
      np.testing.assert_array_equal(actual[field], array, err_msg=field)
    if name == 'lenet':
      np.testing.assert_array_equal(restored(_images()), network(_images()))

  def test_file_has_the_names_and_the_formula_of_the_reference(self):
    network = _network()
    path = self._write(
      network, _metadata(length_scale=0.3, num_dimensions=6)
    )
    file = safetensors.read(path)
    features = np.asarray(network.embed(_images()))
    # The method `rbf` of the published code, in NumPy.
    z = np.einsum('ij,mnj->imn', features, file['W'])
    difference = z - (file['m'] / file['N'][None])[None]
    scale = json.loads(
      safetensors.read_metadata(path)['jaxsens']
    )['options']['length_scale']
    kernels = np.exp(-(difference**2).mean(1) / (2 * scale**2))
    np.testing.assert_allclose(
      kernels, np.exp(network(_images())), rtol=1e-4, atol=1e-7
    )
    self.assertIn('feature_extractor.conv1.weight', file)

  @parameterized.parameters(
    (dict(num_classes=4), 'num_classes must not be 4'),
    (dict(channels=3), 'channels must not be 3'),
    (dict(padding='same'), "padding must not be 'same'"),
    (dict(batch_norm_epsilon=1e-3), 'batch_norm_epsilon must not be 0.001'),
    (dict(model='resnet18'), 'holds a lenet, not a resnet18'),
  )
  def test_such_a_file_is_taken_as_it_is_or_not_at_all(self, asked, message):
    path = self._write(
      _network(), _metadata(length_scale=0.3, num_dimensions=6)
    )
    with self.assertRaisesRegex(ValueError, message):
      convert_weights.run(convert_weights.Request(source=str(path), **asked))

  def test_kernels_without_their_length_scale_are_refused(self):
    with self.assertRaisesRegex(ValueError, 'c: a network with kernels.*again'):
      self._write(_network(), _metadata())
    arrays = kernel_names.to_torch_names(_network())
    path = self.folder / 'other.safetensors'
    safetensors.write(path, arrays)
    with self.assertRaisesRegex(ValueError, 'no length_scale in its header'):
      convert_weights.run(convert_weights.Request(
        model='lenet', source=str(path)
      ))

  @parameterized.parameters(
    ('W', lambda x: x[:-1], r'head.kernels: needed \(6, 3, 84\)'),
    ('N', lambda x: x * np.nan, 'N, the counts of the kernels, must be finite'),
    ('m', None, 'missing.*head.sums'),
    ('feature_extractor.conv1.bias', None, 'missing.*conv1.bias'),
  )
  def test_arrays_that_do_not_fit_are_named(self, name, change, message):
    network = _network()
    arrays = kernel_names.to_torch_names(network)
    array = arrays.pop(name)
    if change is not None:
      arrays[name] = change(array)
    with self.assertRaisesRegex(ValueError, message):
      kernel_names.load_torch_names(network, arrays)


class ExportTest(parameterized.TestCase):

  def test_stablehlo_answers_with_the_log_kernels_for_any_batch(self):
    network = _network()
    classifier = inference.classifier(
      network, preprocess=lambda x: x, class_names=('a', 'b', 'c'),
      image_size=_SHAPE[:2], channels=1, answers='log_kernels',
    )
    portable = export.portable(train.Trained(
      classifier, network, _metadata(), True
    ))
    self.assertEqual(portable.answers, 'log_kernels')
    folder = self.enterContext(tempfile.TemporaryDirectory())
    path = pathlib.Path(folder) / 'a.stablehlo'
    path.write_bytes(export.to_stablehlo(portable))
    answer = export.read_stablehlo(path)
    for count in (1, 4):
      log_kernels = answer(_images(count))
      np.testing.assert_allclose(
        log_kernels, network(_images(count)), rtol=1e-4, atol=1e-6
      )
      self.assertTrue((log_kernels <= 0).all())
