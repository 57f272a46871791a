"""Chains against sequences of torchvision and PIL calls."""

import chaospy
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest

from jaxsens import factors
from jaxsens.perturbations import chains
from jaxsens.perturbations import geometry
from jaxsens.perturbations import homographies
from jaxsens.perturbations import optics
from jaxsens.perturbations import perspectives
from jaxsens.perturbations import photometry
from jaxsens.perturbations import registry
from tests.oracles import torchvision_ops


def _space(*names):
  ranges = {
    'brightness': (0, 2), 'rotation': (-90, 90), 'tilt': (-20, 20),
    'scale': (0.7, 1.4), 'translation_x': (-0.25, 0.25),
    'translation_y': (-0.25, 0.25), 'gamma': (0.5, 2), 'offset': (-0.5, 0.5),
  }
  return factors.FactorSpace(tuple(
    factors.Factor(name, chaospy.Uniform(*ranges[name])) for name in names
  ))


def _frame(height=97, width=80, seed=0):
  """A gray frame with smooth and sharp parts, 8-bit values, (H, W, 1)."""
  rng = np.random.default_rng(seed)
  y, x = np.mgrid[0:height, 0:width]
  frame = 90 + 60 * np.sin(x / 9) * np.cos(y / 13) + rng.normal(0, 8, x.shape)
  frame[20:40, 30:50] = 230
  return np.clip(frame, 0, 255).astype(np.uint8)[..., None]


def test_brightness_equals_torchvision():
  functional = torchvision_ops.import_torchvision().transforms.functional
  torch = pytest.importorskip('torch')
  image = np.random.default_rng(0).random((20, 30, 3)).astype(np.float32)
  for factor in (0.0, 0.4, 1.0, 1.7):
    expected = functional.adjust_brightness(
      torch.from_numpy(image.transpose(2, 0, 1)), factor
    ).numpy().transpose(1, 2, 0)
    np.testing.assert_allclose(
      photometry.brightness(image, factor), expected, atol=1e-6
    )


def test_gamma_equals_torchvision():
  functional = torchvision_ops.import_torchvision().transforms.functional
  torch = pytest.importorskip('torch')
  image = np.random.default_rng(0).random((20, 30, 3)).astype(np.float32)
  image[:5] = 0
  for exponent in (0.3, 1.0, 2.2):
    expected = functional.adjust_gamma(
      torch.from_numpy(image.transpose(2, 0, 1)), exponent
    ).numpy().transpose(1, 2, 0)
    np.testing.assert_allclose(
      photometry.gamma(image, exponent), expected, atol=1e-6
    )


def test_derivatives_of_gamma_are_finite_at_black():
  image = jnp.array([[0.0], [0.5]])
  light = lambda b: photometry.brightness(image, b)
  value = lambda b, g: photometry.gamma(light(b), g)[:, 0]
  slopes = jax.jacobian(value, argnums=(0, 1))(1.0, 0.5)
  # d/db (b x)^g and d/dg x^g at x = 1/2, b = 1, g = 1/2.
  expected = 0.5 * 0.5**0.5, np.log(0.5) * 0.5**0.5
  np.testing.assert_allclose(slopes[0], [0, expected[0]], rtol=1e-6)
  np.testing.assert_allclose(slopes[1], [0, expected[1]], rtol=1e-6)


def test_offset_shifts_and_clips():
  image = jnp.array([[0.0], [0.4], [0.9]])
  np.testing.assert_allclose(
    photometry.offset(image, 0.2)[:, 0], [0.2, 0.6, 1.0], rtol=1e-6
  )
  np.testing.assert_array_equal(photometry.offset(image, -1.0), 0)


_SIX = ('brightness', 'rotation', 'tilt', 'scale', 'translation_x', 'gamma')


@pytest.mark.parametrize('names', [
  ('brightness', 'rotation', 'tilt'), _SIX,
  ('offset', 'scale', 'translation_y'),
])
@pytest.mark.parametrize('size', [(32, 32), (97, 80), (120, 110)])
@pytest.mark.parametrize('convention', ['fused', 'sequential'])
def test_identity_values_give_the_resized_image_back(names, size, convention):
  chain = chains.make_chain(_space(*names), size, convention=convention)
  image = jnp.asarray(_frame() / 255, jnp.float32)
  actual = chain(image, jnp.asarray(chain.identity))
  assert actual.shape == (*size, 1)
  np.testing.assert_allclose(actual, geometry.resize(image, size), atol=2e-5)


def test_sequential_chain_equals_torchvision_calls():
  functional = torchvision_ops.import_torchvision().transforms.functional
  torch = pytest.importorskip('torch')
  space = _space('brightness', 'rotation', 'tilt')
  chain = chains.make_chain(space, (48, 48), convention='sequential')
  frame = (_frame() / 255).astype(np.float32)
  height, width = frame.shape[:2]
  bilinear = functional.InterpolationMode.BILINEAR
  for b, r, t in [(0.5, 30.0, 10.0), (1.6, -75.0, -15.0), (1.0, 0.0, 20.0)]:
    tensor = torch.from_numpy(frame.transpose(2, 0, 1))
    tensor = functional.adjust_brightness(tensor, b)
    tensor = functional.rotate(tensor, r, interpolation=bilinear)
    shift = np.tan(np.deg2rad(t)) * width
    tensor = functional.perspective(
      tensor,
      [[0, 0], [width, 0], [width, height], [0, height]],
      [[shift, 0], [width - shift, 0], [width, height], [0, height]],
      interpolation=bilinear,
    )
    expected = functional.resize(tensor, [48, 48], antialias=True)
    np.testing.assert_allclose(
      chain(frame, jnp.array([b, r, t])), expected.numpy().transpose(1, 2, 0),
      atol=1e-4,
    )


def test_six_factors_equal_the_torchvision_calls_at_full_resolution():
  functional = torchvision_ops.import_torchvision().transforms.functional
  torch = pytest.importorskip('torch')
  frame = (_frame(64, 64) / 255).astype(np.float32)
  names = ('rotation', 'scale', 'translation_x', 'translation_y', 'gamma')
  chain = chains.make_chain(_space(*names), (64, 64), convention='sequential')
  bilinear = functional.InterpolationMode.BILINEAR
  for r, s, x, y, g in [(20.0, 1.3, 5, -3, 0.7), (-60.0, 0.8, -9, 2, 1.8)]:
    tensor = torch.from_numpy(frame.transpose(2, 0, 1))
    tensor = functional.rotate(tensor, r, interpolation=bilinear)
    for shift, scale in (([0, 0], s), ([x, 0], 1.0), ([0, y], 1.0)):
      tensor = functional.affine(
        tensor, 0.0, shift, scale, [0.0, 0.0], interpolation=bilinear
      )
    expected = functional.adjust_gamma(tensor, g).numpy().transpose(1, 2, 0)
    actual = chain(frame, jnp.array([r, s, x / 64, y / 64, g]))
    # The root of nearly black has a steep slope.
    np.testing.assert_allclose(actual, expected, atol=2e-3)


def test_fused_chain_of_six_factors_is_one_resampling():
  frame = jnp.asarray(_frame(64, 64) / 255, jnp.float32)
  values = {
    'brightness': 1.2, 'rotation': 20.0, 'tilt': 5.0, 'scale': 1.4,
    'translation_x': 0.1, 'gamma': 0.7,
  }
  pull = geometry.compose([
    homographies.rotation(20.0, (64, 64)), perspectives.tilt(5.0, (64, 64)),
    homographies.scaling(1.4, (64, 64)),
    homographies.translation_x(0.1, (64, 64)),
  ])
  light = photometry.brightness(frame, 1.2)
  expected = photometry.gamma(geometry.transform(light, pull), 0.7)
  chain = chains.make_chain(_space(*values), (64, 64))
  actual = chain(frame, jnp.array(list(values.values())))
  # Footprint and zero border differ on the rim of the picture.
  difference = np.abs(np.asarray(actual - expected))
  assert np.quantile(difference, 0.9) < 1e-5


@pytest.mark.parametrize('names', [
  ('scale', 'translation_x'), ('tilt', 'scale'), ('rotation', 'translation_y'),
  ('scale', 'rotation', 'tilt'),
])
def test_chain_that_knows_zeros_equals_the_warp_that_does_not(names):
  with jax.enable_x64(True):
    frame = jnp.asarray(_frame(60, 50) / 255, float)
    chain = chains.make_chain(_space(*names), (40, 44))
    lower, upper = np.array([
      registry.get(name).sensible_range for name in names
    ]).T
    values = lower + 0.63 * (upper - lower)
    pull = geometry.compose([
      registry.get(name).function(value, size=(60, 50))
      for name, value in zip(names, values, strict=True)
    ])
    prepared = jax.jit(chain.prepare)(frame)
    expected = jax.jit(geometry.warp, static_argnums=2)(
      prepared, pull, (40, 44)
    )
    actual = jax.jit(chain.apply)(prepared, jnp.asarray(values))
    np.testing.assert_allclose(actual, expected, atol=1e-12)


@pytest.mark.parametrize('names', [
  ('brightness', 'rotation'), ('rotation', 'brightness'),
])
def test_fused_chain_agrees_with_the_sequence_at_equal_size(names):
  image = jnp.asarray(_frame(64, 64) / 255, jnp.float32)
  values = {'brightness': 1.5, 'rotation': 28.0}
  values = jnp.array([values[name] for name in names])
  results = [
    chains.make_chain(_space(*names), (64, 64), convention=convention)(
      image, values
    )
    for convention in ('fused', 'sequential')
  ]
  # Footprint and zero border differ on the rim of the rotated picture.
  difference = np.abs(np.asarray(results[0] - results[1]))
  assert np.quantile(difference, 0.9) < 1e-5


def test_fused_chain_approximates_the_sequence_at_full_resolution():
  image = jnp.asarray(_frame(388, 320) / 255, jnp.float32)
  space = _space('brightness', 'rotation', 'tilt')
  for values in ([0.7, 20.0, 5.0], [1.4, -60.0, -8.0]):
    fused, sequence = (
      chains.make_chain(space, (56, 56), convention=convention)(
        image, jnp.array(values)
      )
      for convention in ('fused', 'sequential')
    )
    assert np.abs(np.asarray(fused - sequence)).mean() < 0.015


def test_paper_convention_equals_pil_to_about_one_grey_level():
  space = _space('brightness', 'rotation', 'tilt')
  chain = chains.make_chain(space, (244, 244), convention='paper')
  frame = _frame(300, 260)
  functional = torchvision_ops.import_torchvision().transforms.functional
  box = [[0, 0], [244, 0], [244, 244], [0, 244]]
  for b, r, t in [(0.6, 25.0, 8.0), (1.8, -40.0, -6.0), (1.0, 0.0, 0.0)]:
    image = functional.adjust_brightness(Image.fromarray(frame[..., 0]), b)
    image = functional.rotate(image, r)
    shift = np.tan(np.deg2rad(t)) * 244
    end = [[shift, 0], [244 - shift, 0], [244, 244], [0, 244]]
    image = functional.perspective(image, box, end)
    expected = np.asarray(functional.resize(image, [244, 244]), np.float32)
    actual = chain(jnp.asarray(frame / 255, jnp.float32), jnp.array([b, r, t]))
    difference = np.abs(np.asarray(actual)[..., 0] * 255 - expected)
    # PIL rotates in fixed point, so that single source pixels differ by one
    # place, and cuts k - 1e-13 to k - 1 before it resizes.
    assert np.mean(difference > 2.01) < 0.02, (b, r, t)
    assert difference.mean() < 0.6


def test_chain_is_the_same_under_jit_and_vmap_and_differentiates():
  chain = chains.make_chain(_space('brightness', 'rotation', 'tilt'), (24, 24))
  image = jnp.asarray(_frame() / 255, jnp.float32)
  values = jnp.array([[0.8, 10.0, 3.0], [1.3, -50.0, -12.0]])
  prepared = chain.prepare(image)
  batch = jax.jit(jax.vmap(chain.apply, (None, 0)))(prepared, values)
  for row, value in zip(batch, values, strict=True):
    np.testing.assert_allclose(row, chain(image, value), atol=1e-5)
  total = lambda v: jnp.mean(chain(image, v) ** 2)
  gradient = jax.grad(total)(values[0])
  for i, step in enumerate((1e-2, 0.2, 0.1)):
    offset = jnp.zeros(3).at[i].set(step)
    numeric = (total(values[0] + offset) - total(values[0] - offset)) / (
      2 * step
    )
    np.testing.assert_allclose(gradient[i], numeric, rtol=0.1, atol=2e-4)


def test_photometric_chain_needs_no_geometry():
  chain = chains.make_chain(_space('brightness'), (97, 80))
  image = jnp.asarray(_frame() / 255, jnp.float32)
  np.testing.assert_allclose(
    chain(image, jnp.array([0.5])), 0.5 * image, atol=1e-5
  )


def test_unknown_factor_lists_the_known_perturbations():
  space = factors.FactorSpace((factors.Factor('zoom', chaospy.Uniform(0, 1)),))
  with pytest.raises(KeyError, match="unknown factor 'zoom'.*rotation"):
    chains.make_chain(space, (8, 8))


def test_range_outside_the_limits_is_refused():
  space = factors.FactorSpace(
    (factors.Factor('tilt', chaospy.Uniform(-20, 30)),)
  )
  with pytest.raises(ValueError, match='tilt.*30.*limits'):
    chains.make_chain(space, (8, 8))


def test_photometry_between_geometry_is_refused_only_where_it_cannot_fuse():
  space = _space('rotation', 'brightness', 'tilt')
  with pytest.raises(ValueError, match='sequential'):
    chains.make_chain(space, (8, 8))
  chains.make_chain(space, (8, 8), convention='sequential')


def test_wrong_number_of_values_and_unknown_convention_are_refused():
  chain = chains.make_chain(_space('rotation'), (8, 8))
  with pytest.raises(ValueError, match=r'\(1,\).*rotation'):
    chain(np.zeros((8, 8, 1), np.float32), jnp.zeros(2))
  with pytest.raises(ValueError, match='convention'):
    chains.make_chain(_space('rotation'), (8, 8), convention='seed')


def test_registered_perturbations_name_unit_identity_and_source():
  for name in registry.names():
    entry = registry.get(name)
    lower, upper = entry.sensible_range
    assert entry.unit and entry.source
    assert entry.limits[0] <= lower <= entry.identity <= upper
    assert upper <= entry.limits[1]
  with pytest.raises(ValueError, match='already registered'):
    registry.register(registry.Perturbation(
      'tilt', 'geometric', homographies.rotation, 'deg', 0.0, (-1.0, 1.0),
      'other',
    ))


def _any_space(**ranges):
  return factors.FactorSpace(tuple(
    factors.Factor(name, chaospy.Uniform(*ends))
    for name, ends in ranges.items()
  ))


def test_factors_of_one_perturbation_act_together_where_the_first_stands():
  space = _any_space(
    motion_blur_angle=(-90, 90), brightness=(0.5, 1.5), motion_blur=(0, 9)
  )
  chain = chains.make_chain(space, (24, 24))
  assert [s.perturbation.name for s in chain.steps] == [
    'motion_blur', 'brightness'
  ]
  image = jnp.asarray(_frame(24, 24) / 255, jnp.float32)
  expected = photometry.brightness(optics.motion_blur(image, 5.0, 30.0), 1.3)
  np.testing.assert_allclose(
    chain(image, jnp.array([30.0, 1.3, 5.0])), expected, atol=1e-6
  )
  assert chain.identity == (0.0, 1.0, 0.0)


def test_parameters_without_a_factor_keep_their_default():
  chain = chains.make_chain(_any_space(motion_blur_angle=(-90, 90)), (24, 24))
  image = jnp.asarray(_frame(24, 24) / 255, jnp.float32)
  # The length stays zero, whatever the angle.
  np.testing.assert_array_equal(chain(image, jnp.array([40.0])), image)


def test_draws_depend_on_the_key_alone():
  space = _any_space(gaussian_noise=(0, 0.2), speckle_noise=(0, 0.2))
  chain = chains.make_chain(space, (24, 24))
  image = jnp.full((24, 24, 1), 0.5)
  noise = lambda seed, *values: np.asarray(
    chain(image, jnp.array(values), jax.random.key(seed))
  ) - 0.5
  np.testing.assert_allclose(
    noise(0, 0.1, 0.0), 2 * noise(0, 0.05, 0.0), atol=1e-6
  )
  assert np.abs(noise(0, 0.1, 0.0) - noise(1, 0.1, 0.0)).mean() > 0.05
  # Two perturbations do not share their field.
  correlation = np.corrcoef(
    noise(0, 0.1, 0.0).ravel(), noise(0, 0.0, 0.2).ravel()
  )[0, 1]
  assert abs(correlation) < 0.2
  with pytest.raises(ValueError, match='needs a key'):
    chain(image, jnp.zeros(2))


def test_spatial_factors_ahead_of_geometry_need_the_sequential_convention():
  space = _any_space(defocus=(0, 3), rotation=(-10, 10))
  with pytest.raises(ValueError, match="'defocus'.*sequential"):
    chains.make_chain(space, (24, 24))
  chain = chains.make_chain(space, (24, 24), convention='sequential')
  image = jnp.asarray(_frame(24, 24) / 255, jnp.float32)
  expected = geometry.transform(
    optics.defocus(image, 2.0), homographies.rotation(7.0, (24, 24))
  )
  np.testing.assert_allclose(
    chain(image, jnp.array([2.0, 7.0])), expected, atol=1e-5
  )


@pytest.mark.parametrize('fill', ['edge', 'reflect'])
def test_border_continues_the_picture(fill):
  chain = chains.make_chain(_any_space(rotation=(-45, 45)), (24, 24), fill=fill)
  image = jnp.full((24, 24, 1), 0.7)
  np.testing.assert_allclose(chain(image, jnp.array([33.0])), 0.7, atol=1e-6)


def test_values_beyond_the_limits_are_refused_or_moved_there():
  image = jnp.asarray(_frame(24, 24) / 255, jnp.float32)
  space = _any_space(defocus=(0, 3))
  with pytest.raises(ValueError, match='defocus: -1 .*limits'):
    chains.make_chain(space, (24, 24))(image, jnp.array([-1.0]))
  chain = chains.make_chain(space, (24, 24), clip_values=True)
  np.testing.assert_array_equal(chain(image, jnp.array([-1.0])), image)


def test_images_that_are_none_are_refused():
  chain = chains.make_chain(_space('brightness'), (8, 8))
  with pytest.raises(TypeError, match='uint8'):
    chain(_frame(), jnp.ones(1))
  with pytest.raises(ValueError, match='NaN'):
    chain(np.full((8, 8, 1), np.nan, np.float32), jnp.ones(1))
  with pytest.raises(ValueError, match='(H, W, C)'):
    chain(np.zeros((8, 8), np.float32), jnp.ones(1))


@pytest.mark.parametrize('size', [(97, 80), (33, 47), (97, 20)])
@pytest.mark.parametrize('fill', [0.0, 'edge'])
def test_mirrors_alone_equal_the_resampled_ones(size, fill, monkeypatch):
  image = np.float32(_frame()) / 255
  space = factors.FactorSpace(tuple(
    factors.Factor(name, chaospy.Uniform(0.1, 1))
    for name in ('gamma', 'flip_x', 'flip_y', 'brightness')
  ))
  rows = np.array([
    [0.7, x, y, 0.8] for x in (0.2, 0.9) for y in (0.0, 1.0)
  ])
  actual, expected = [], []
  for mirrored, found in ((True, actual), (False, expected)):
    monkeypatch.setattr(
      chains.Chain, '_only_mirrors', lambda self, shape, m=mirrored: m
    )
    chain = chains.make_chain(space, size, fill=fill)
    prepared = chain.prepare(image)
    assert isinstance(prepared, jax.Array) == mirrored
    found.extend(chain.apply(prepared, row) for row in rows)
  np.testing.assert_allclose(actual, expected, atol=2e-6)
  assert len({np.asarray(image).tobytes() for image in actual}) == 4


def test_mirrors_beside_other_geometry_are_resampled_with_it():
  for names, alone in (
    (('flip_x',), True), (('flip_x', 'flip_y'), True),
    (('flip_x', 'rotation'), False),
  ):
    space = factors.FactorSpace(tuple(
      factors.Factor(name, chaospy.Uniform(0, 1)) for name in names
    ))
    chain = chains.make_chain(space, (8, 8))
    assert chain._only_mirrors((9, 8, 1)) == alone
    assert not chain._only_mirrors((9, 7, 1))
  space = factors.FactorSpace((
    factors.Factor('flip_x', chaospy.Uniform(0, 1)),
  ))
  nearest = chains.make_chain(space, (8, 8), method='nearest')
  assert not nearest._only_mirrors((8, 8, 1))
