"""State dicts of other kinds become those of a network and stay equal."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsens import classifiers
from jaxsens.models import layers
from jaxsens.models import registry
from jaxsens.models import states
from jaxsens.weights import adaptation
from jaxsens.weights import convert
from jaxsens.weights import state_dicts
from jaxsens.weights import timm_names

GRAY = classifiers.Normalise((0.4,), (0.25,))


class _Network(nnx.Module):
  """Two convolutions with norms, of which the second has a bias, and a head."""

  def __init__(self, seed=0, epsilon=1e-3):
    options = dict(dtype=jnp.float32, rngs=nnx.Rngs(seed))
    self.stem = nnx.List([
      layers.Convolution(3, 4, 3, **options),
      layers.BatchNorm(4, epsilon=epsilon),
    ])  # fmt: skip
    self.conv2 = layers.Convolution(4, 5, 1, bias=True, **options)
    self.bn2 = layers.BatchNorm(5, epsilon=epsilon)
    self.fc = layers.linear(5, 2, rngs=nnx.Rngs(seed))

  def __call__(self, images):
    convolution, norm = self.stem
    x = layers.relu(norm(convolution(images)))
    x = layers.relu(self.bn2(self.conv2(x)))
    return self.fc(layers.mean_pool(x))


def _random(model, seed=0):
  """Returns a network with values that keep its activations of order one."""
  rng = np.random.default_rng(seed)

  def draw(name, shape):
    kind = name.rpartition('.')[2]
    if kind == 'kernel':
      return rng.normal(size=shape) * (2 / max(np.prod(shape[:-1]), 1)) ** 0.5
    if kind in ('var', 'scale'):
      return rng.uniform(0.5, 1.5, shape)
    return 0.1 * rng.normal(size=shape)

  return states.replace(model, {
    name: draw(name, x.shape) for name, x in states.flatten(model).items()
  })


def _images(size=8, channels=3, seed=1):
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.random((2, size, size, channels), np.float32))


@jax.jit
def _answer(network, images):
  return network(images)


def _folded(network):
  """Returns the state dict of a network, folded by the formula of the norm."""
  arrays = convert.to_torch_names(network)
  arrays = {name: np.float64(x) for name, x in arrays.items()}
  for conv, norm, epsilon in (
    ('stem.0', 'stem.1', 1e-3), ('conv2', 'bn2', 1e-3)
  ):
    weight, bias, mean, variance = (
      arrays.pop(f'{norm}.{leaf}')
      for leaf in ('weight', 'bias', 'running_mean', 'running_var')
    )
    arrays.pop(f'{norm}.num_batches_tracked')
    factor = weight / np.sqrt(variance + epsilon)
    before = arrays.get(f'{conv}.bias', 0.0)
    arrays[f'{conv}.weight'] *= factor[:, None, None, None]
    arrays[f'{conv}.bias'] = bias + (before - mean) * factor
  return arrays


def test_folded_state_dict_answers_as_the_network_it_is_from():
  network = _random(_Network())
  folded = _folded(network)
  unfolded, count = adaptation.unfold(folded, _Network(), (8, 8, 3))
  assert count == 2
  filled = convert.load_torch_names(_Network(), unfolded).model
  # Where the network has no bias of its own the norm has it.
  np.testing.assert_allclose(filled.stem[1].bias[...], folded['stem.0.bias'])
  np.testing.assert_allclose(filled.conv2.bias[...], folded['conv2.bias'])
  np.testing.assert_allclose(
    _answer(filled, _images()), _answer(network, _images()), atol=1e-5
  )


def test_state_dict_with_norms_is_not_unfolded():
  state_dict = convert.to_torch_names(_random(_Network()))
  unfolded, count = adaptation.unfold(state_dict, _Network(), (8, 8, 3))
  assert count == 0 and set(unfolded) == set(state_dict)


def test_norms_of_another_epsilon_do_the_same():
  network = _random(_Network(epsilon=1e-5))
  state_dict = convert.to_torch_names(network)
  # Small variances, where epsilon counts.
  for name in ('stem.1.running_var', 'bn2.running_var'):
    state_dict[name] = state_dict[name] * 1e-3
  network = convert.load_torch_names(network, state_dict).model
  plain = convert.load_torch_names(_Network(), state_dict).model
  changed, count = adaptation.change_epsilon(state_dict, _Network(), 1e-5)
  assert count == 2
  filled = convert.load_torch_names(_Network(), changed).model
  expected = _answer(network, _images())
  np.testing.assert_allclose(
    _answer(filled, _images()), expected, atol=1e-4
  )
  assert np.abs(_answer(plain, _images()) - expected).max() > 0.1
  assert adaptation.change_epsilon(state_dict, _Network(), 1e-3)[1] == 0


STEMS = ('resnet18', 'lenet', 'squeezenet1_1', 'mobilenet_v2', 'vgg16_bn')


@pytest.mark.parametrize('name', STEMS)
def test_gray_stem_of_every_kind_equals_the_rgb_stem_inside(name):
  known = registry.find(name)
  make = lambda channels: nnx.eval_shape(lambda: registry.create(
    name, jax.random.key(0), 10, in_channels=channels
  ))
  own = states.flatten(make(3))
  keys = [k for k in own if k.startswith(f'{known.stem}.') or (
    known.stem_norm and k.startswith(f'{known.stem_norm}.')
  )]
  rng = np.random.default_rng(0)
  leaves = dict(
    kernel='weight', scale='weight', bias='bias', mean='running_mean',
    var='running_var',
  )
  rgb_dict = {}
  for key in keys:
    module, _, leaf = key.rpartition('.')
    x = rng.uniform(0.5, 1.0, own[key].shape).astype(np.float32)
    rgb_dict[f'{module}.{leaves[leaf]}'] = (
      x.transpose(3, 2, 0, 1) if leaf == 'kernel' else x
    )
  gray_dict = adaptation.gray_stem(
    rgb_dict, rgb=classifiers.IMAGENET, gray=GRAY, conv=known.stem,
    norm=known.stem_norm,
  )
  assert set(gray_dict) == set(rgb_dict)
  gray = rng.random((9, 9)).astype(np.float32)

  def stem(state_dict, normalise):
    image = normalise(gray[..., None] * np.ones(
      state_dict[f'{known.stem}.weight'].shape[1], np.float32
    ))
    kernel = state_dict[f'{known.stem}.weight']
    size = kernel.shape[-1]
    # One position of the convolution, inside the image.
    y = np.einsum('hwc,ochw->o', image[:size, :size], kernel)
    y = y + state_dict.get(f'{known.stem}.bias', 0)
    if known.stem_norm is None:
      return y
    norm = {
      leaf: state_dict[f'{known.stem_norm}.{leaf}']
      for leaf in ('weight', 'bias', 'running_mean', 'running_var')
    }
    return (y - norm['running_mean']) / np.sqrt(norm['running_var'] + 1e-5) * (
      norm['weight']
    ) + norm['bias']

  np.testing.assert_allclose(
    stem(gray_dict, GRAY), stem(rgb_dict, classifiers.IMAGENET), rtol=1e-4,
    atol=1e-3,
  )


def test_rgb_weights_for_a_gray_network_need_both_normalisations():
  gray, blank = (
    nnx.eval_shape(lambda n=n: registry.create(
      'lenet', jax.random.key(0), 10, in_channels=n
    ))
    for n in (1, 3)
  )
  rgb = convert.to_torch_names(_random(blank))
  with pytest.raises(ValueError, match='need both'):
    convert.load('lenet', gray, rgb)
  loaded = convert.load(
    'lenet', gray, rgb, rgb=classifiers.IMAGENET, gray=GRAY
  )
  assert loaded.notes == ('the RGB stem became a gray one',)
  original = convert.load_torch_names(blank, rgb).model
  images = _images(32, 1)
  # LeNet pads nothing, so both networks answer the same everywhere.
  np.testing.assert_allclose(
    _answer(loaded.model, GRAY(images)),
    _answer(original, classifiers.IMAGENET(images.repeat(3, -1))), atol=1e-4,
  )


def test_head_for_another_number_of_classes_stays_fresh():
  many, few = (
    _random(nnx.eval_shape(
      lambda n=n: registry.create('lenet', jax.random.key(0), n)
    ), seed=n)
    for n in (10, 3)
  )
  state_dict, network = convert.to_torch_names(many), few
  loaded = convert.load('lenet', network, state_dict)
  assert loaded.fresh == ('fc3.bias', 'fc3.weight') == loaded.unused
  np.testing.assert_array_equal(
    loaded.model.fc3.kernel[...], network.fc3.kernel[...]
  )
  with pytest.raises(ValueError, match=r'fc3.weight: needed \(3, 84\)'):
    convert.load('lenet', network, state_dict, replace_head=False)


@pytest.mark.parametrize('to_dropout', [False, True])
def test_head_moves_with_the_dropout_before_it(to_dropout):
  plain, dropout = (
    nnx.eval_shape(lambda d=d: registry.create(
      'resnet18', jax.random.key(0), 5, dropout=d
    ))
    for d in (None, 0.3)
  )
  source, target = (plain, dropout) if to_dropout else (dropout, plain)
  state_dict = convert.to_torch_names(_random(source))
  loaded = convert.load('resnet18', target, state_dict)
  assert loaded.fresh == ()
  names = convert.to_torchvision_names(loaded.model, 'resnet18')
  name = 'fc.weight' if to_dropout else 'fc.1.weight'
  np.testing.assert_array_equal(names['fc.weight'], state_dict[name])
  assert 'fc.1.weight' not in names


def test_shortened_network_takes_what_it_has_of_the_whole_one():
  make = lambda name, classes: nnx.eval_shape(lambda: registry.create(
    name, jax.random.key(0), classes
  ))
  whole = convert.to_torch_names(_random(make('squeezenet1_1', 7)))
  short = _random(make('squeezenet1_1_reduced7', 3), seed=5)
  with pytest.raises(ValueError, match='left over'):
    convert.load('squeezenet1_1_reduced7', short, whole)
  loaded = convert.load(
    'squeezenet1_1_reduced7', short, whole, allow_unused=True
  )
  assert loaded.fresh == ('classifier.1.bias', 'classifier.1.weight')
  assert 'features.12.squeeze.weight' in loaded.unused
  taken = convert.to_torch_names(loaded.model)
  np.testing.assert_array_equal(
    taken['features.6.expand3x3.weight'], whole['features.6.expand3x3.weight']
  )


def test_prefixes_of_wrappers_are_removed_when_all_names_have_them():
  strip = state_dicts.strip_prefix
  x = np.zeros(1)
  assert set(strip({'module.a.w': x, 'module.b': x})) == {'a.w', 'b'}
  assert set(strip({'_orig_mod.module.a': x})) == {'a'}
  assert set(strip({'module.a': x, 'b': x})) == {'module.a', 'b'}
  assert strip({}) == {}


def test_integers_and_scales_become_floats(tmp_path):
  integers = np.array([[1, -2], [127, -128]], np.int8)
  path = tmp_path / 'a.npz'
  np.savez(
    path, w_int8=integers, w_scale=np.float32([0.5, 0.25]), v_int8=integers,
    v_scale=np.float16([2]), input_scale=np.float32([3]),
  )
  read = convert.read_state_dict(path)
  assert set(read) == {'w', 'v', 'input_scale'}
  np.testing.assert_array_equal(read['w'], [[0.5, -1], [31.75, -32]])
  np.testing.assert_array_equal(read['v'], 2.0 * integers)
  assert read['w'].dtype == np.float32


@pytest.mark.parametrize(
  'arrays, message',
  [
    (dict(), 'w_int8 has no w_scale'),
    (dict(w_scale=np.ones(3)), 'one value or 2, one per output'),
    (dict(w_scale=np.zeros(1)), 'finite positive'),
    (dict(w_scale=np.ones(1), w=np.ones(2)), 'w stands beside w_int8'),
    (dict(w_scale=np.ones(1), w_int8=np.ones(2)), 'int8, got float64'),
  ],
)
def test_integers_without_fitting_scales_are_refused(
  tmp_path, arrays, message
):
  path = tmp_path / 'a.npz'
  np.savez(path, **{'w_int8': np.ones((2, 2), np.int8), **arrays})
  with pytest.raises(ValueError, match=f'a.npz: .*{message}'):
    convert.read_state_dict(path)


# Blocks of timm's networks, stage by stage: how many of which kind. 'd' has a
# depthwise and a pointwise convolution, 'i' an expanding one before, 's' a
# squeeze-and-excitation as well, 'c' is one convolution.
_TIMM = {
  'mobilenet_v2': 'd ii iii iiii iii iii i',
  'mobilenet_v3_small': 'ds i,i is,is,is is,is is,is,is c',
  'mobilenet_v3_large': (
    'd i,i is,is,is i,i,i,i is,is is,is,is c'
  ),
  'efficientnet_b0': (
    'ds is,is is,is is,is,is is,is,is is,is,is,is is'
  ),
  'efficientnet_b1': (
    'ds,ds is,is,is is,is,is is,is,is,is is,is,is,is is,is,is,is,is is,is'
  ),
}
# Read off timm 1.0.31 and torchvision 0.28 beside each other.
_PAIRS = {
  'mobilenet_v2': {
    'bn1.running_var': 'features.0.1.running_var',
    'blocks.0.0.bn2.bias': 'features.1.conv.2.bias',
    'blocks.3.2.conv_dw.weight': 'features.9.conv.1.0.weight',
    'blocks.6.0.conv_pwl.weight': 'features.17.conv.2.weight',
    'blocks.6.0.bn3.weight': 'features.17.conv.3.weight',
    'conv_head.weight': 'features.18.0.weight',
    'classifier.bias': 'classifier.1.bias',
  },
  'mobilenet_v3_small': {
    'blocks.0.0.se.conv_expand.bias': 'features.1.block.1.fc2.bias',
    'blocks.0.0.conv_pw.weight': 'features.1.block.2.0.weight',
    'blocks.1.1.conv_pwl.weight': 'features.3.block.2.0.weight',
    'blocks.4.2.se.conv_reduce.weight': 'features.11.block.2.fc1.weight',
    'blocks.5.0.bn1.weight': 'features.12.1.weight',
    'conv_head.bias': 'classifier.0.bias',
    'classifier.weight': 'classifier.3.weight',
  },
  'mobilenet_v3_large': {
    'blocks.0.0.bn2.weight': 'features.1.block.1.1.weight',
    'blocks.3.3.bn3.weight': 'features.10.block.2.1.weight',
    'blocks.6.0.conv.weight': 'features.16.0.weight',
  },
  'efficientnet_b0': {
    'blocks.0.0.bn2.weight': 'features.1.0.block.2.1.weight',
    'blocks.3.1.se.conv_reduce.bias': 'features.4.1.block.2.fc1.bias',
    'conv_head.weight': 'features.8.0.weight',
    'bn2.running_mean': 'features.8.1.running_mean',
    'classifier.weight': 'classifier.1.weight',
  },
  'efficientnet_b1': {'blocks.0.1.bn1.bias': 'features.1.1.block.0.1.bias'},
}
_NORM = ('weight', 'bias', 'running_mean', 'running_var')


def _timm_modules(name):
  """Returns (module, leaves) of a network of timm."""
  bias, weight = ('weight', 'bias'), ('weight',)
  modules = [('conv_stem', weight), ('bn1', _NORM), ('classifier', bias)]
  for s, stage in enumerate(_TIMM[name].split()):
    kinds = stage.split(',') if ',' in stage or 's' in stage else list(stage)
    for j, kind in enumerate(kinds):
      convolutions = {
        'd': ('conv_dw', 'conv_pw'), 'i': ('conv_pw', 'conv_dw', 'conv_pwl'),
        'c': ('conv',),
      }[kind[0]]
      block = f'blocks.{s}.{j}'
      for k, convolution in enumerate(convolutions, 1):
        modules.append((f'{block}.{convolution}', weight))
        modules.append((f'{block}.bn{k}', _NORM))
      if 's' in kind:
        modules.append((f'{block}.se.conv_reduce', bias))
        modules.append((f'{block}.se.conv_expand', bias))
  if name.startswith('mobilenet_v3'):
    return [*modules, ('conv_head', bias)]
  return [*modules, ('conv_head', weight), ('bn2', _NORM)]


@pytest.mark.parametrize('name', _TIMM)
def test_names_of_timm_become_those_of_torchvision(name):
  modules = _timm_modules(name)
  names = [f'{m}.{leaf}' for m, leaves in modules for leaf in leaves]
  # Out of order, as .safetensors files have them.
  state_dict = {n: np.float32([i]) for i, n in enumerate(sorted(names))}
  assert timm_names.is_timm(state_dict)
  renamed = timm_names.to_torchvision(state_dict, name)
  own = nnx.eval_shape(lambda: registry.create(name, jax.random.key(0), 1000))
  expected = {
    convert._torch_name(n) for n in states.flatten(own)
  }
  assert set(renamed) == expected
  for timm, torchvision in _PAIRS[name].items():
    assert renamed[torchvision] is state_dict[timm], timm


def test_dense_layers_of_timm_become_matrices():
  kernel = np.arange(2 * 3 * 7 * 7, dtype=np.float32).reshape(2, 3, 7, 7)
  renamed = timm_names.to_torchvision(
    {
      'features.0.weight': kernel, 'pre_logits.fc1.weight': kernel,
      'pre_logits.fc2.bias': kernel[0, 0, 0], 'head.fc.weight': kernel[0, 0],
    },
    'vgg16_bn',
  )
  assert list(renamed) == [
    'features.0.weight', 'classifier.0.weight', 'classifier.3.bias',
    'classifier.6.weight',
  ]
  # torch flattens channel before row before column.
  np.testing.assert_array_equal(
    renamed['classifier.0.weight'], kernel.reshape(2, -1)
  )
  assert renamed['features.0.weight'].ndim == 4


def test_timm_names_of_unknown_networks_are_refused():
  with pytest.raises(ValueError, match="timm names of 'lenet' are not known"):
    timm_names.to_torchvision({'conv_stem.weight': np.zeros(1)}, 'lenet')
  assert not timm_names.is_timm({'conv1.weight': 0, 'layer1.0.bn1.bias': 0})
