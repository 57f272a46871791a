"""Networks written here run in torchvision, and the converter as users call it.

No test needs the network or files of others.
"""

import dataclasses
import os
import pathlib
import subprocess
import sys

from flax import nnx
import jax
import ml_dtypes
import numpy as np
import pytest

from experiments import benchmark
from experiments import convert_weights
from experiments import weight_sources
from experiments.benchmarks import weights as weights_suite
from jaxsens.models import registry
from jaxsens.models import states
from jaxsens.training import checkpoints
from jaxsens.weights import convert
from jaxsens.weights import manifest
from jaxsens.weights import safetensors
from tests.oracles import torchvision_networks
from tests.oracles import torchvision_ops

pytestmark = pytest.mark.usefixtures('quick_compiles')

_ROOT = pathlib.Path(__file__).parents[1]
SHARED = pathlib.Path(os.environ.get('JAXSENS_SHARED', '../shared'))


def _abstract(name, num_classes, **options):
  return nnx.eval_shape(lambda: registry.create(
    name, jax.random.key(0), num_classes, **options
  ))


def _network(name, num_classes=5, seed=0, **options):
  """Returns a network whose values keep its activations of order one."""
  rng = np.random.default_rng(seed)
  abstract = _abstract(name, num_classes, **options)

  def draw(name, shape):
    kind = name.rpartition('.')[2]
    if kind == 'kernel':
      # The 10^8 values of VGG repeat after a prime number of them.
      values = rng.standard_normal(min(np.prod(shape), 1_000_003), np.float32)
      scale = np.float32((2 / np.prod(shape[:-1])) ** 0.5)
      return scale * np.resize(values, shape)
    if kind in ('var', 'scale'):
      return rng.uniform(0.8, 1.2, shape)
    return 0.1 * rng.normal(size=shape)

  return states.replace(abstract, {
    n: draw(n, x.shape) for n, x in states.flatten(abstract).items()
  })


@jax.jit
def _answer(network, images):
  return network(images)


@pytest.mark.parametrize(
  'name, options',
  [('resnet18', dict(dropout=0.5)), ('squeezenet1_1', {})],
)
def test_network_written_here_runs_in_torchvision(tmp_path, name, options):
  torchvision = torchvision_ops.import_torchvision()
  network = _network(name, **options)
  path = tmp_path / 'a.safetensors'
  safetensors.write(
    path, convert.to_torchvision_names(network, name),
    metadata={'format': 'pt'},
  )
  library = pytest.importorskip(
    'safetensors.torch', reason='it reads the file for torch'
  )
  theirs = getattr(torchvision.models, name)(num_classes=5).eval()
  theirs.load_state_dict(library.load_file(path), strict=True)
  _check_same_logits(network, theirs)


def _check_same_logits(network, theirs):
  images = np.random.default_rng(1).normal(size=(2, 64, 64, 3))
  images = images.astype(np.float32)
  expected = torchvision_networks.peer_logits(theirs, images)
  assert np.ptp(expected) > 0.01
  np.testing.assert_allclose(
    torchvision_networks.logits(network, images), expected,
    atol=1e-4 * np.abs(expected).max(),
  )


@pytest.mark.parametrize('name', [
  'resnet34', 'resnet50', 'mobilenet_v2', 'mobilenet_v3_small',
  'mobilenet_v3_large', 'efficientnet_b0', 'efficientnet_b1',
  'shufflenet_v2_x1_0', 'squeezenet1_0', 'vgg16_bn',
])
def test_state_dict_fills_torchvisions_network_and_comes_back(name):
  torchvision = torchvision_ops.import_torchvision()
  import torch

  network = _network(name)
  # No initial values are drawn: every array must be in the state dict.
  with torch.device('meta'):
    theirs = getattr(torchvision.models, name)(num_classes=5).eval()
  theirs.load_state_dict({
    n: torch.from_numpy(x)
    for n, x in convert.to_torchvision_names(network, name).items()
  }, strict=True, assign=True)
  # The answers of the others are compared in tests/models.
  if name == 'vgg16_bn':
    _check_same_logits(network, theirs)
  loaded = convert.load(
    name, _abstract(name, 5), {n: x.numpy() for n, x in
                               theirs.state_dict().items()},
  )
  assert not loaded.fresh and not loaded.notes
  wanted = states.flatten(network)
  for path, array in states.flatten(loaded.model).items():
    np.testing.assert_array_equal(array, wanted[path], err_msg=path)


def test_safetensors_file_is_read_back_and_by_the_library(tmp_path):
  rng = np.random.default_rng(0)
  arrays = {
    'half': np.float16([1.5]), 'step': np.int64(7),
    'view': rng.random((4, 3)).T[1:], 'empty': np.zeros((0, 2), np.float32),
    'brain': np.asarray([0.5, -2], ml_dtypes.bfloat16),
    'flags': np.asarray([True, False]), 'big': np.arange(3, dtype='>i4'),
  }
  path = tmp_path / 'a.safetensors'
  safetensors.write(path, arrays, metadata={'made': 'here'})
  assert [p.name for p in tmp_path.iterdir()] == ['a.safetensors']
  read = safetensors.read(path)
  assert set(read) == set(arrays)
  for name, array in arrays.items():
    assert read[name].dtype == array.dtype.newbyteorder('=')
    np.testing.assert_array_equal(read[name], array, err_msg=name)
  library = pytest.importorskip(
    'safetensors', reason='safetensors is the oracle here'
  )
  with library.safe_open(path, 'np') as file:
    assert file.metadata() == {'made': 'here'}
    for name in set(arrays) - {'brain'}:
      np.testing.assert_array_equal(file.get_tensor(name), arrays[name])


def test_safetensors_refuses_what_the_format_has_not(tmp_path):
  with pytest.raises(ValueError, match=r"no such dtype: \['c \(complex64\)'\]"):
    safetensors.write(
      tmp_path / 'a.safetensors', {'c': np.zeros(1, np.complex64)}
    )
  assert not list(tmp_path.iterdir())


def _lenet_file(folder):
  network = _network('lenet', 10)
  path = folder / 'mine.npz'
  np.savez(path, **{
    f'module.{n}': x.astype(np.float16)
    for n, x in convert.to_torch_names(network).items()
  })
  return network, path


def test_file_is_converted_to_a_checkpoint_and_on_to_safetensors(tmp_path):
  network, path = _lenet_file(tmp_path)
  environment = {**os.environ, 'JAXSENS_CACHE': str(tmp_path / 'cache')}

  def call(*arguments):
    return subprocess.run(
      [sys.executable, '-m', 'experiments.convert_weights', *arguments],
      cwd=_ROOT, env=environment, capture_output=True, text=True, check=False,
    )

  done = call('--model=lenet', f'--source={path}')
  assert done.returncode == 0, done.stderr
  folder = tmp_path / 'cache' / 'converted' / 'lenet-mine'
  for part in (
    'NOT verified', '10 arrays of float16', '62,006 values', f'{folder}'
  ):
    assert part in done.stdout
  metadata = checkpoints.read_metadata(folder)
  assert metadata.architecture == 'lenet' and len(metadata.class_names) == 10
  restored, _ = checkpoints.restore(folder, _abstract('lenet', 10), expected={})
  wanted = states.flatten(network)
  for name, array in states.flatten(restored).items():
    np.testing.assert_allclose(array, wanted[name], atol=1e-3)
  model, metadata = convert_weights.read_checkpoint(folder)
  written = convert_weights.write(
    tmp_path / 'out', 'safetensors', model, metadata
  )
  assert written == tmp_path / 'out.safetensors'
  np.testing.assert_array_equal(
    safetensors.read(written)['fc3.weight'], restored.fc3.kernel[...].T
  )
  failed = call('--model=resnet18', f'--source={path}')
  assert failed.returncode == 1 and 'Traceback' not in failed.stderr
  assert 'error: weights do not fit the network' in failed.stderr


def test_checkpoint_knows_the_form_of_its_network(tmp_path):
  network = _network('resnet18', 3, dropout=0.2, stem='cifar', in_channels=1)
  checkpoints.save(tmp_path / 'c', network, checkpoints.Metadata(
    architecture='resnet18', class_names=('a', 'b', 'c'), image_size=(32, 32),
    channels=1, mean=(0.5,), std=(0.5,), data='none', config_hash='',
    metrics={}, options={'dropout': 0.2, 'stem': 'cifar'},
  ))
  model, _ = convert_weights.read_checkpoint(tmp_path / 'c')
  names = convert.to_torchvision_names(model, 'resnet18')
  assert names['conv1.weight'].shape == (64, 1, 3, 3)
  np.testing.assert_array_equal(
    names['fc.weight'], network.fc[1].kernel[...].T
  )


def test_checkpoint_of_another_form_converts_there_and_back_and_runs(
  tmp_path, capsys
):
  name = 'shufflenet_v2_x1_0'
  options = {'dropout': 0.2, 'stem': 'cifar', 'padding': 'same'}
  network = _network(name, 3, in_channels=1, **options)
  metadata = checkpoints.Metadata(
    architecture=name, class_names=('a', 'b', 'c'), image_size=(16, 24),
    channels=1, mean=(0.4,), std=(0.3,), data='none', config_hash='abc',
    metrics={'accuracy': 0.5}, options=options,
  )
  checkpoints.save(tmp_path / 'c', network, metadata)
  path = convert_weights.run(convert_weights.Request(
    source=str(tmp_path / 'c'), format='safetensors',
    output=str(tmp_path / 'file'),
  ))
  printed = capsys.readouterr().out
  assert "padding 'same'" in printed and "stem 'cifar'" in printed
  # Nothing but the file says what it is.
  folder = convert_weights.run(convert_weights.Request(
    source=str(path), output=str(tmp_path / 'd')
  ))
  assert "stem 'cifar'" in capsys.readouterr().out
  restored, found = convert_weights.read_checkpoint(folder)
  for field in dataclasses.fields(found):
    if field.name not in ('config_hash', 'metrics'):
      expected = getattr(metadata, field.name)
      assert getattr(found, field.name) == expected, field.name
  images = np.random.default_rng(3).normal(size=(2, 16, 24, 1))
  images = images.astype(np.float32)
  expected = torchvision_networks.logits(network, images)
  actual = torchvision_networks.logits(restored, images)
  np.testing.assert_array_equal(actual, expected)
  # The arrays alone would fit a network that answers something else.
  other = states.replace(
    _abstract(name, 3, in_channels=1, **(options | {'padding': 'torch'})),
    states.flatten(network),
  )
  answers = torchvision_networks.logits(other, images)
  assert np.abs(answers - expected).max() > 1e-2 * np.abs(expected).max()
  with pytest.raises(ValueError, match='holds a shufflenet.*not a resnet18'):
    convert_weights.run(convert_weights.Request(
      source=str(path), model='resnet18'
    ))
  names = tmp_path / 'names.txt'
  names.write_text('x\ny\n')
  with pytest.raises(ValueError, match='2 class names for 3 classes'):
    convert_weights.run(convert_weights.Request(
      source=str(path), class_names=str(names)
    ))


def test_header_of_safetensors_is_read_and_a_damaged_one_refused(tmp_path):
  path = tmp_path / 'a.safetensors'
  safetensors.write(path, {'w': np.zeros(2)}, metadata={'jaxsens': '{"a"'})
  assert safetensors.read_metadata(path) == {'jaxsens': '{"a"'}
  request = convert_weights.Request(model='lenet', source=str(path))
  with pytest.raises(ValueError, match="damaged entry 'jaxsens'"):
    convert_weights.run(request)
  path.write_bytes(path.read_bytes()[:30])
  with pytest.raises(ValueError, match='a.safetensors: damaged safetensors'):
    safetensors.read_metadata(path)


def test_source_is_found_by_entry_file_or_address(tmp_path, monkeypatch):
  monkeypatch.setenv('JAXSENS_CACHE', str(tmp_path / 'cache'))
  _, path = _lenet_file(tmp_path)
  find = weight_sources.find
  digest = find(str(path), 'lenet').digest
  assert find(str(path), 'lenet', sha256=digest[:9]).verified
  with pytest.raises(ValueError, match='expected 0000'):
    find(str(path), 'lenet', sha256='0000')
  named = path.rename(tmp_path / f'net-{digest[:8]}.npz')
  fetched = find(named.as_uri(), 'lenet')
  assert fetched.path.parent == tmp_path / 'cache' / 'weights'
  assert fetched.verified == f'the digits {digest[:8]}'
  wrong = named.rename(tmp_path / 'net-00000000.npz')
  with pytest.raises(ValueError, match='expected 00000000'):
    find(wrong.as_uri(), 'lenet')
  first, second = (tmp_path / name / 'net.npz' for name in 'ab')
  for file, value in ((first, 1), (second, 2)):
    file.parent.mkdir()
    np.savez(file, w=np.float32([value]))
    unverified = find(file.as_uri(), 'lenet')
    assert convert.read_state_dict(unverified.path)['w'] == value
    assert unverified.verified == ''
  with pytest.raises(ValueError, match='address of a file is needed'):
    find('https://example.org/page', 'lenet')
  with pytest.raises(FileNotFoundError, match='absent.pth: no such weight'):
    find('absent.pth', 'lenet')
  with pytest.raises(ValueError, match='--model or --source is needed'):
    find(None, None)
  monkeypatch.setitem(
    manifest.PUBLIC_WEIGHTS, 'lenet.test', manifest.PublicWeights(
      'lenet.test', wrong.name, wrong.as_uri(), digest, 'MIT', num_classes=10
    ),
  )
  assert find('test', 'lenet').public.name == 'lenet.test'
  table = weight_sources.listing()
  assert len(table.splitlines()) == len(manifest.PUBLIC_WEIGHTS) + 2
  line = next(x for x in table.splitlines() if x.startswith('lenet.test'))
  assert line.endswith('yes')


def test_folded_file_with_padding_of_keras_equals_torchvision():
  torchvision_ops.import_torchvision()
  from third_party.pytorch_baselines import public_networks

  rng = np.random.default_rng(0)
  abstract = _abstract('mobilenet_v2', 4)
  arrays = {}
  for name, x in states.flatten(abstract).items():
    if name.endswith('kernel'):
      torch_shape = [x.shape[i] for i in ((3, 2, 0, 1), (1, 0))[x.ndim == 2]]
      fan_in = np.prod(x.shape[:-1])
      kernel = rng.normal(size=torch_shape) * (2 / fan_in) ** 0.5
      module = name.removesuffix('.kernel')
      arrays[f'{module}.weight'] = kernel.astype(np.float32)
      arrays[f'{module}.bias'] = 0.1 * rng.normal(size=x.shape[-1])
  network = _abstract('mobilenet_v2', 4, padding='same')
  loaded = convert.load('mobilenet_v2', network, arrays)
  assert loaded.notes == (
    '52 batch norms were found folded into convolutions',
  )
  images = rng.normal(size=(1, 64, 64, 3)).astype(np.float32)
  full = public_networks.load(
    'mobilenet_v2', arrays, padding='same', num_classes=4
  )
  expected = public_networks.logits(full, images, batch_size=1)
  np.testing.assert_allclose(
    _answer(loaded.model, images), expected,
    atol=1e-5 * max(1, np.abs(expected).max()),
  )


@pytest.mark.skipif(
  not (SHARED / 'weights' / 'cifar_net.pth').is_file(),
  reason='the shared weights are not on this machine',
)
def test_suite_finds_the_same_answers_as_torch():
  torchvision_ops.import_torchvision()
  report = benchmark.run(
    'weights', quick=True, log=lambda _: None,
    options={'networks': ['squeezenet1_1.fp16'], 'num_photos': 2},
  )
  photos = report['result']['photos']
  name = 'squeezenet1_1.fp16'
  assert photos['same_prediction'][name] == photos['images'][name] == 2
  assert photos['logit_difference'][name] < 1e-3
  pixels = report['result']['preprocessing in JAX, pixels']
  assert max(pixels['largest_difference'].values()) < 1.01
  exact = report['result']['exact CIFAR-10 test images']
  assert exact['same_prediction']['lenet.cifar10'] == 64


def test_suite_leaves_out_what_is_absent(tmp_path, monkeypatch):
  monkeypatch.setenv('JAXSENS_SHARED', str(tmp_path))
  monkeypatch.setenv('JAXSENS_DATA', str(tmp_path))
  monkeypatch.setattr(weights_suite, '_torch', lambda log: None)
  lines = []
  assert weights_suite.run(lines.append) == {}
  assert len(lines) == 2 and all(x.startswith('left out') for x in lines)


def test_table_of_networks_has_their_sizes_and_weights():
  lines = weight_sources.networks().splitlines()
  rows = {line.split()[0]: line for line in lines[1:]}
  assert rows.keys() == registry.ARCHITECTURES.keys()
  assert '11,689,512' in rows['resnet18']
  assert 'imagenet1k_v1 (BSD-3-Clause)' in rows['resnet18']
  # 1.8 thousand million multiply-adds, fewer where the window is outside.
  assert float(rows['resnet18'].split()[2]) == pytest.approx(3.6, rel=0.1)
