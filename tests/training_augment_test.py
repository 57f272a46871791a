"""Augmentation beside torchvision's, and what it must not depend on."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsens.training import augment
from jaxsens.training import operations
from jaxsens.training import policies
from tests.oracles import torchvision_ops

SIZE = (24, 20)


@functools.cache
def _image(channels=3):
  """Returns levels of 8 bits over 255, with dark and bright parts."""
  rng = np.random.default_rng(0)
  smooth = np.cumsum(rng.normal(size=(*SIZE, channels)), axis=0) * 12 + 110
  return np.rint(smooth.clip(20, 240)).astype(np.uint8)


def _peer(name, magnitude, channels=3):
  """Returns torchvision's result for 8-bit levels, (H, W, C)."""
  torchvision_ops.import_torchvision()
  import torch
  from torchvision.transforms import autoaugment
  from torchvision.transforms import functional

  levels = torch.tensor(_image(channels)).permute(2, 0, 1)
  result = autoaugment._apply_op(
    levels, name, magnitude, functional.InterpolationMode.NEAREST, None
  )
  return result.permute(1, 2, 0).numpy()


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('name', sorted(operations.OPERATIONS))
def test_operations_equal_torchvisions(name, channels):
  magnitude = operations.magnitude(name, 7, 10)
  image = jnp.asarray(_image(channels), jnp.float32) / 255
  signs = (1, -1) if operations.is_signed(name) else (1,)
  for sign in signs:
    value = sign * magnitude
    found = 255 * np.asarray(operations.OPERATIONS[name](image, value))
    passed = value
    if name == 'Solarize':
      passed = 255 * value
    if name.startswith('Translate'):
      passed = value * SIZE[1 if name.endswith('X') else 0]
    expected = _peer(name, passed, channels)
    # torchvision cuts what it blends and the blend to 8 bits; its red weighs
    # 0.2989.
    blended = name in ('Color', 'Contrast', 'Sharpness')
    differs = np.abs(found - expected) > (1.8 if blended else 1.001)
    # Nearest pixels of positions half way between two may be either.
    assert differs.mean() <= (0.01 if name == 'Rotate' else 0), name


def test_magnitudes_and_operations_are_torchvisions():
  torchvision_ops.import_torchvision()
  from torchvision.transforms import autoaugment

  for bins, transform in (
    (31, autoaugment.RandAugment()), (10, autoaugment.AutoAugment())
  ):
    space = transform._augmentation_space(bins, SIZE)
    if bins == 31:
      assert tuple(space) == policies._RAND_AUGMENT
    for name, (magnitudes, signed) in space.items():
      assert signed == operations.is_signed(name)
      scale = {'TranslateX': SIZE[1], 'TranslateY': SIZE[0], 'Solarize': 255}
      found = [operations.magnitude(name, i, bins) for i in range(bins)]
      np.testing.assert_allclose(
        scale.get(name, 1) * np.array(found),
        magnitudes.numpy() * np.ones(bins), rtol=1e-6, atol=1e-6,
      )


@pytest.mark.parametrize('policy', ['imagenet', 'cifar10'])
def test_policies_of_auto_augment_are_torchvisions(policy):
  torchvision_ops.import_torchvision()
  from torchvision.transforms import autoaugment

  expected = autoaugment.AutoAugment(
    autoaugment.AutoAugmentPolicy(policy)
  ).policies
  assert len(expected) == len(policies.AUTO_AUGMENT[policy]) == 25
  for ours, theirs in zip(policies.AUTO_AUGMENT[policy], expected, strict=True):
    assert ours == tuple((name, p, m or 0) for name, p, m in theirs)


def test_equalised_channel_of_one_level_stays():
  image = np.full((20, 20, 1), 0.4, np.float32)
  np.testing.assert_array_equal(operations.equalise(image), image)
  np.testing.assert_array_equal(operations.autocontrast(image), image)


@functools.cache
def _batch():
  rng = np.random.default_rng(1)
  return jnp.asarray(rng.random((6, *SIZE, 3), np.float32))


@functools.cache
def _run(name):
  options = {
    'crops': {'crop': 'padded', 'flip': 0.5}, 'resized': {'crop': 'resized'},
  }.get(name, {'policy': name})
  return jax.jit(augment.Augmentation(**options))


@pytest.mark.parametrize('name', [
  'crops', 'resized', 'rand_augment', 'auto_augment_cifar10', 'categorical'
])
def test_an_image_is_treated_alike_in_any_batch(name):
  images, key = _batch(), jax.random.key(3)
  indices = jnp.array([4, 0, 9, 2, 7, 5])
  order = np.array([3, 5, 0, 1, 4, 2])
  found = _run(name)(key, indices, images)
  assert found.shape == images.shape
  assert np.isfinite(found).all() and found.min() >= 0
  assert found.max() <= 1 + 1e-6
  shuffled = _run(name)(key, indices[order], images[order])
  np.testing.assert_array_equal(shuffled, found[order])
  other = _run(name)(jax.random.key(4), indices, images)
  assert (np.asarray(other) != np.asarray(found)).any()


def test_sharing_the_work_among_devices_changes_nothing():
  mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ('data',))
  run = augment.Augmentation(crop='padded', flip=0.5)
  indices = jnp.arange(6)
  np.testing.assert_array_equal(
    run(jax.random.key(0), indices, _batch(), mesh=mesh),
    run(jax.random.key(0), indices, _batch()),
  )


def test_padded_crop_is_a_window_and_every_place_occurs():
  image = jnp.arange(1.0, 17).reshape(4, 4, 1)
  padded = np.pad(image[..., 0], 1)
  windows = {
    padded[i:i + 4, j:j + 4].tobytes() for i in range(3) for j in range(3)
  }
  crop = jax.jit(jax.vmap(lambda key: augment.padded_crop(key, image, 1)))
  found = {
    np.asarray(one[..., 0]).tobytes()
    for one in crop(jax.random.split(jax.random.key(0), 200))
  }
  assert found == windows


def test_resized_crop_of_a_plane_is_a_plane_within_its_limits():
  height, width = 32, 40
  y, x = np.mgrid[:height, :width] + 0.5
  image = jnp.asarray(np.stack([x / width, y / height], -1), jnp.float32)
  crop = jax.jit(jax.vmap(augment.random_resized_crop, (0, None)))
  for found in np.asarray(crop(jax.random.split(jax.random.key(0), 8), image)):
    found = found[4:-4, 4:-4]
    slope_x = np.diff(found[..., 0], axis=1) * width
    slope_y = np.diff(found[..., 1], axis=0) * height
    np.testing.assert_allclose(slope_x, slope_x.mean(), atol=2e-3)
    np.testing.assert_allclose(slope_y, slope_y.mean(), atol=2e-3)
    # The slopes are the shares of the sides that are kept.
    area = slope_x.mean() * slope_y.mean()
    ratio = slope_x.mean() * width / (slope_y.mean() * height)
    assert 0.07 < area < 1.01 and 0.7 < ratio < 1.42


def test_parts_of_crops_are_distributed_as_torchvisions():
  torchvision_ops.import_torchvision()
  from scipy import stats
  import torch
  from torchvision import transforms

  torch.manual_seed(0)
  image = torch.zeros(1, 30, 40)
  expected = np.array([
    transforms.RandomResizedCrop.get_params(image, (0.08, 1), (3 / 4, 4 / 3))
    for _ in range(1500)
  ])
  found = np.asarray(jax.jit(jax.vmap(
    lambda key: augment._draw_part(key, (30, 40))
  ))(jax.random.split(jax.random.key(1), 1500)))
  for column in range(4):
    assert stats.ks_2samp(found[:, column], expected[:, column]).pvalue > 1e-3


def test_there_are_eighteen_operations_in_four_phases():
  assert [len(phase) for phase in policies.PHASES] == [3, 4, 4, 7]


def test_random_choice_applies_one_operation_and_categorical_up_to_all(
  monkeypatch,
):
  add = lambda amount: lambda key, image: image + amount
  monkeypatch.setattr(policies, 'PHASES', ({'a': add(1)}, {'b': add(10)}))
  image, keys = jnp.zeros((1, 1, 1)), jax.random.split(jax.random.key(0), 60)
  one, every = (
    {float(policy(key, image).sum()) for key in keys}
    for policy in (
      jax.jit(policies.random_choice), jax.jit(policies.categorical)
    )
  )
  assert one == {1, 10}
  assert every == {0, 1, 10, 11}


@pytest.mark.parametrize('phase', range(3))
def test_operations_of_the_phases_change_an_image(phase):
  image = _batch()[0]
  for name, operation in policies.PHASES[phase].items():
    # Solarise acts on every second image.
    changed = any(
      (np.abs(operation(jax.random.key(i), image) - image) > 1e-4).any()
      for i in range(4)
    )
    assert changed, name
