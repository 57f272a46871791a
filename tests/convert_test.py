import csv
import functools
import json
import os
import pathlib

from flax import nnx
import jax
import ml_dtypes
import numpy as np
import PIL.Image
import pytest

from jaxsens import classifiers
from jaxsens.models import inference
from jaxsens.models import layers
from jaxsens.models import resnet
from jaxsens.models import states
from jaxsens.weights import convert
from jaxsens.weights import safetensors
from tests.oracles import torchvision_ops

SHARED = pathlib.Path(os.environ.get('JAXSENS_SHARED', '../shared'))
GRAY = classifiers.Normalise((0.5,), (0.5,))


class _Network(nnx.Module):
  """Stem and head of a residual network, small enough for many tests."""

  def __init__(self, in_channels, num_classes, seed=0):
    rngs = nnx.Rngs(seed)
    self.conv1 = layers.Convolution(
      in_channels, 4, 3, dtype=np.float32, rngs=rngs
    )
    self.bn1 = layers.BatchNorm(4)
    self.fc = layers.linear(4, num_classes, rngs=rngs)

  def stem(self, images):
    return self.bn1(self.conv1(images))


def _state_dict(in_channels=3, num_classes=5):
  rng = np.random.default_rng(0)
  shapes = {
    'conv1.weight': (4, in_channels, 3, 3),
    'bn1.weight': (4,),
    'bn1.bias': (4,),
    'bn1.running_mean': (4,),
    'bn1.running_var': (4,),
    'fc.weight': (num_classes, 4),
    'fc.bias': (num_classes,),
  }
  state_dict = {
    name: rng.uniform(0.5, 1.5, shape).astype(np.float32)
    for name, shape in shapes.items()
  }
  return {**state_dict, 'bn1.num_batches_tracked': np.int64(7)}


def test_values_land_where_the_layout_rules_say():
  state_dict = _state_dict()
  loaded = convert.load_torch_names(_Network(3, 5), state_dict)
  arrays = states.flatten(loaded.model)
  kernel = state_dict['conv1.weight']
  assert arrays['conv1.kernel'][2, 0, 1, 3] == kernel[3, 1, 2, 0]
  np.testing.assert_array_equal(arrays['fc.kernel'], state_dict['fc.weight'].T)
  np.testing.assert_array_equal(arrays['bn1.scale'], state_dict['bn1.weight'])
  np.testing.assert_array_equal(
    arrays['bn1.var'], state_dict['bn1.running_var']
  )
  assert loaded.fresh == ()
  assert loaded.unused == ('bn1.num_batches_tracked',)


def test_loading_leaves_the_given_network_as_it_was():
  network = _Network(3, 5)
  before = states.flatten(network)
  convert.load_torch_names(network, _state_dict())
  for name, array in states.flatten(network).items():
    np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize('dtype', [np.float16, np.float64, ml_dtypes.bfloat16])
def test_other_precisions_are_cast_to_that_of_the_network(dtype):
  state_dict = {n: x.astype(dtype) for n, x in _state_dict().items()}
  loaded = convert.load_torch_names(_Network(3, 5), state_dict)
  arrays = states.flatten(loaded.model)
  assert {x.dtype.name for x in arrays.values()} == {'float32'}
  np.testing.assert_array_equal(
    arrays['fc.bias'], state_dict['fc.bias'].astype(np.float32)
  )


def test_one_error_lists_missing_left_over_and_misshapen_names():
  state_dict = _state_dict(in_channels=1)
  state_dict['layer9.weight'] = state_dict.pop('bn1.bias')
  state_dict['layer9.num_batches_tracked'] = np.int64(0)
  with pytest.raises(ValueError) as caught:
    convert.load_torch_names(_Network(3, 5), state_dict)
  message = str(caught.value)
  assert '1 missing: [bn1.bias]' in message
  assert (
    '2 left over: [layer9.num_batches_tracked, layer9.weight]' in message
  )
  assert 'conv1.weight: needed (4, 3, 3, 3), given (4, 1, 3, 3)' in message


def test_head_is_replaced_only_when_asked_for():
  network, state_dict = _Network(3, 2), _state_dict(num_classes=5)
  with pytest.raises(ValueError, match=r'fc.weight: needed \(2, 4\), given'):
    convert.load_torch_names(network, state_dict)
  loaded = convert.load_torch_names(network, state_dict, replace_head=True)
  assert loaded.fresh == ('fc.bias', 'fc.weight')
  assert set(loaded.unused) >= {'fc.bias', 'fc.weight'}
  arrays = states.flatten(loaded.model)
  np.testing.assert_array_equal(
    arrays['fc.kernel'], network.fc.kernel[...]
  )
  np.testing.assert_array_equal(arrays['bn1.bias'], state_dict['bn1.bias'])
  with pytest.raises(ValueError, match="no head 'classifier'"):
    convert.load_torch_names(
      network, state_dict, replace_head=True, head='classifier'
    )


@pytest.mark.parametrize(
  'array', [np.full(5, np.nan, np.float32), np.zeros(5, np.int8)]
)
def test_values_that_are_no_finite_numbers_are_refused(array):
  state_dict = {**_state_dict(), 'fc.bias': array}
  with pytest.raises(ValueError, match=rf'fc.bias \({array.dtype}\)'):
    convert.load_torch_names(_Network(3, 5), state_dict)


def _abstract(in_channels, dropout):
  return nnx.eval_shape(
    lambda: resnet.resnet18(
      jax.random.key(0), 5, in_channels=in_channels, dropout=dropout
    )
  )


@functools.cache
def _resnet(in_channels, dropout=0.0):
  """Returns a network of random values without the time of drawing by key."""
  rng = np.random.default_rng(0)
  network = _abstract(in_channels, dropout)
  return states.replace(
    network,
    {n: rng.random(x.shape) for n, x in states.flatten(network).items()},
  )


def test_writing_and_loading_torch_names_is_the_identity():
  network = _resnet(1, 0.5)
  state_dict = convert.to_torch_names(network)
  assert 'layer2.0.downsample.0.weight' in state_dict
  assert state_dict['fc.1.weight'].shape == (5, 512)
  loaded = convert.load_torch_names(_abstract(1, 0.5), state_dict)
  loaded = states.flatten(loaded.model)
  for name, array in states.flatten(network).items():
    np.testing.assert_array_equal(loaded[name], array, err_msg=name)


def test_names_and_shapes_equal_torchvisions():
  torchvision = torchvision_ops.import_torchvision()
  expected = torchvision.models.resnet18(num_classes=5).state_dict()
  actual = convert.to_torch_names(_resnet(3))
  assert {n: x.shape for n, x in actual.items()} == {
    n: tuple(x.shape) for n, x in expected.items()
  }


def _photos(number):
  """Returns photos (B, 224, 224, 3) in [0, 1], as ImageNet is evaluated."""
  folder = SHARED / 'data' / 'imagenet_samples'
  with open(folder / 'labels.csv', newline='') as file:
    rows = list(csv.DictReader(file))[::10][:number]
  images = []
  for row in rows:
    image = PIL.Image.open(folder / 'images' / row['file']).convert('RGB')
    ratio = 256 / min(image.size)
    image = image.resize(
      [round(ratio * side) for side in image.size], PIL.Image.BILINEAR
    )
    left, top = ((side - 224) // 2 for side in image.size)
    image = image.crop((left, top, left + 224, top + 224))
    images.append(np.asarray(image, np.float32) / 255)
  return np.stack(images), np.asarray([int(row['class_index']) for row in rows])


def test_public_resnet18_loads_without_left_overs_and_knows_its_images():
  path = SHARED / 'weights/resnet18_imagenet_pqf_torchvision_names_fp16.npz'
  if not path.is_file():
    pytest.skip('the shared weights are not on this machine')
  state_dict = convert.read_state_dict(path)
  network = nnx.eval_shape(lambda: resnet.resnet18(jax.random.key(0), 1000))
  loaded = convert.load_torch_names(network, state_dict)
  assert loaded.fresh == () and loaded.unused == ()
  arrays = states.flatten(loaded.model)
  assert arrays['conv1.kernel'].dtype == np.float32
  np.testing.assert_array_equal(
    arrays['conv1.kernel'][3, 2, 1, 7], state_dict['conv1.weight'][7, 1, 3, 2]
  )
  images, labels = _photos(16)
  network = inference.prepare(loaded.model, (224, 224, 3))
  logits = jax.jit(lambda network, x: network(x))(
    network, classifiers.IMAGENET(images)
  )
  # Its authors' own evaluation has 79 % on photos of this kind: 16 of them
  # give less than 8 with a probability of 0.2 %, chance would give 0.
  assert (np.argmax(logits, 1) == labels).sum() >= 8


def test_gray_stem_equals_the_rgb_stem_on_gray_images_away_from_borders():
  rgb_dict = _state_dict(in_channels=3)
  gray_dict = convert.gray_stem(rgb_dict, rgb=classifiers.IMAGENET, gray=GRAY)
  rgb = convert.load_torch_names(_Network(3, 5), rgb_dict).model
  gray = convert.load_torch_names(_Network(1, 5), gray_dict).model
  image = np.random.default_rng(1).random((2, 9, 9, 1), np.float32)
  image = jax.numpy.asarray(image)
  expected = rgb.stem(classifiers.IMAGENET(image.repeat(3, -1)))
  actual = gray.stem(GRAY(image))
  inside = np.s_[:, 1:-1, 1:-1]
  np.testing.assert_allclose(actual[inside], expected[inside], atol=1e-4)
  # Zero padding is another gray level in each network.
  assert np.abs(actual - expected)[:, 0].max() > 0.1


def test_gray_stem_has_the_weights_of_the_formula():
  gray_dict = convert.gray_stem(
    _state_dict(), rgb=classifiers.IMAGENET, gray=GRAY
  )
  kernel = _state_dict()['conv1.weight'].astype(np.float64)
  # 0.5 / 0.229, 0.5 / 0.224 and 0.5 / 0.225.
  ratio = (2.1834061, 2.2321429, 2.2222222)
  expected = sum(r * kernel[:, c] for c, r in enumerate(ratio))
  np.testing.assert_allclose(
    gray_dict['conv1.weight'][:, 0], expected, rtol=1e-6
  )
  assert set(gray_dict) == set(_state_dict())


def test_gray_stem_refuses_networks_that_are_not_rgb():
  options = dict(rgb=classifiers.IMAGENET, gray=GRAY)
  with pytest.raises(ValueError, match=r'\(3, 3, 1\), got \(1, 3, 1\)'):
    convert.gray_stem(_state_dict(in_channels=1), **options)
  with pytest.raises(ValueError, match="must have .'conv1.weight'"):
    convert.gray_stem({'bn1.running_mean': np.zeros(4)}, **options)


def _safetensors(header, body, length=None):
  text = header if isinstance(header, bytes) else json.dumps(header).encode()
  size = len(text) if length is None else length
  return size.to_bytes(8, 'little') + text + body


MATRIX = np.arange(6, dtype=np.float32).reshape(2, 3)
ENTRY = {'dtype': 'F32', 'shape': [2, 3], 'data_offsets': [2, 26]}


def test_safetensors_file_written_by_hand_is_read(tmp_path):
  half = np.asarray([1.5], ml_dtypes.bfloat16)
  header = {
    '__metadata__': {'format': 'pt'},
    'b': {'dtype': 'BF16', 'shape': [1], 'data_offsets': [0, 2]},
    'w': ENTRY,
  }
  path = tmp_path / 'a.safetensors'
  path.write_bytes(_safetensors(header, half.tobytes() + MATRIX.tobytes()))
  arrays = convert.read_state_dict(path)
  assert list(arrays) == ['b', 'w']
  np.testing.assert_array_equal(arrays['w'], MATRIX)
  assert arrays['b'].dtype == ml_dtypes.bfloat16 and arrays['b'][0] == 1.5


@pytest.mark.parametrize(
  'content, message',
  [
    (b'123', 'the file has 3'),
    (_safetensors({'w': ENTRY}, b'', 2**62), 'the file has'),
    (_safetensors({'w': ENTRY}, bytes(25)), 'claims 2:26 of 25'),
    (
      _safetensors({'w': {**ENTRY, 'data_offsets': [-4, 20]}}, bytes(26)),
      'claims -4:20',
    ),
    (
      _safetensors({'w': {**ENTRY, 'shape': [2, 4]}}, bytes(26)),
      'needs 32 bytes',
    ),
    (_safetensors({'w': {**ENTRY, 'dtype': 'X8'}}, bytes(26)), "dtype 'X8'"),
    (_safetensors({'w': {'dtype': 'F32'}}, bytes(26)), 'data_offsets'),
    (_safetensors(b'[1]', b''), 'not a JSON object'),
    (_safetensors(b'{"w"', b''), 'delimiter'),
    (_safetensors(b'{"w": 1, "w": 2}', b''), r"twice in the header: \['w'\]"),
  ],
)
def test_damaged_safetensors_files_are_refused(tmp_path, content, message):
  path = tmp_path / 'a.safetensors'
  path.write_bytes(content)
  with pytest.raises(ValueError, match=f'a.safetensors: .*{message}'):
    safetensors.read(path)


def test_safetensors_file_of_the_library_is_read(tmp_path):
  library = pytest.importorskip(
    'safetensors.numpy', reason='safetensors is the oracle here'
  )
  library.save_file({'w': MATRIX}, tmp_path / 'a.safetensors')
  read = convert.read_state_dict(tmp_path / 'a.safetensors')
  np.testing.assert_array_equal(read['w'], MATRIX)


def test_npz_file_is_read_and_pickled_objects_in_it_are_refused(tmp_path):
  np.savez(tmp_path / 'a.npz', w=MATRIX)
  read = convert.read_state_dict(tmp_path / 'a.npz')
  np.testing.assert_array_equal(read['w'], MATRIX)
  np.savez(tmp_path / 'b.npz', w=np.asarray([object()]))
  with pytest.raises(ValueError, match='b.npz: not a readable .npz file'):
    convert.read_state_dict(tmp_path / 'b.npz')
  (tmp_path / 'c.npz').write_bytes((tmp_path / 'a.npz').read_bytes()[:100])
  with pytest.raises(ValueError, match='c.npz: not a readable .npz file'):
    convert.read_state_dict(tmp_path / 'c.npz')


@pytest.mark.parametrize('entry', ['model_state_dict', 'state_dict', 'model'])
def test_nested_checkpoint_is_resolved_by_itself(tmp_path, entry):
  torch = pytest.importorskip('torch', reason='torch writes the file')
  checkpoint = {'epoch': 3, entry: {'w': torch.from_numpy(MATRIX)}}
  torch.save(checkpoint, tmp_path / 'a.pth')
  read = convert.read_state_dict(tmp_path / 'a.pth')
  np.testing.assert_array_equal(read['w'], MATRIX)


def test_ambiguous_checkpoint_needs_the_name_of_its_entry(tmp_path):
  torch = pytest.importorskip('torch', reason='torch writes the file')
  zeros, matrix = {'w': torch.zeros(1)}, {'w': torch.from_numpy(MATRIX)}
  checkpoint = {'model': zeros, 'state_dict': matrix, 'epoch': 3}
  path = tmp_path / 'a.pth'
  torch.save(checkpoint, path)
  read = convert.read_state_dict(path, entry='state_dict')
  np.testing.assert_array_equal(read['w'], MATRIX)
  with pytest.raises(ValueError, match=r"a.pth: no state dict; .*'epoch'"):
    convert.read_state_dict(path)
  with pytest.raises(ValueError, match="no state dict at entry 'epoch'"):
    convert.read_state_dict(path, entry='epoch')
  with pytest.raises(ValueError, match="no state dict at entry 'ema'"):
    convert.read_state_dict(path, entry='ema')


def test_unknown_suffix_and_missing_file_are_reported(tmp_path):
  with pytest.raises(ValueError, match='weights are read from .npz'):
    convert.read_state_dict(tmp_path / 'a.h5')
  for suffix in ('npz', 'safetensors', 'pth'):
    with pytest.raises(FileNotFoundError, match=f'absent.{suffix}'):
      convert.read_state_dict(tmp_path / f'absent.{suffix}')
