"""Geometry against torchvision, closed forms and invariants."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsens.perturbations import geometry
from tests.oracles import torchvision_ops


def _image(height, width, channels=1, seed=0):
  """A smooth random image with some structure, float32 in [0, 1]."""
  rng = np.random.default_rng(seed)
  image = rng.random((height, width, channels))
  image += np.roll(image, 1, 0) + np.roll(image, 1, 1)
  return (image / image.max()).astype(np.float32)


def _torchvision():
  return torchvision_ops.import_torchvision().transforms.functional


def _torch(image):
  torch = pytest.importorskip('torch', reason='torch is a test peer')
  return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def _numpy(tensor):
  return tensor.numpy().transpose(1, 2, 0)


@pytest.mark.parametrize('size', [(64, 64), (50, 80), (97, 61)])
@pytest.mark.parametrize('angle', [-90.0, -33.3, 0.0, 12.5, 90.0])
def test_rotation_equals_torchvision_bilinear(size, angle):
  image = _image(*size)
  functional, torch_image = _torchvision(), _torch(image)
  expected = _numpy(functional.rotate(
    torch_image, angle,
    interpolation=functional.InterpolationMode.BILINEAR,
  ))
  actual = geometry.transform(image, geometry.rotation(angle, size))
  np.testing.assert_allclose(actual, expected, atol=1e-4)


@pytest.mark.parametrize('size', [(64, 64), (50, 80)])
@pytest.mark.parametrize('angle', [-20.0, -7.0, 0.0, 7.0, 20.0])
def test_tilt_equals_torchvision_perspective(size, angle):
  image = _image(*size)
  functional, torch_image = _torchvision(), _torch(image)
  height, width = size
  shift = np.tan(np.deg2rad(angle)) * width
  start = [[0, 0], [width, 0], [width, height], [0, height]]
  end = [[shift, 0], [width - shift, 0], [width, height], [0, height]]
  expected = _numpy(functional.perspective(
    torch_image, start, end,
    interpolation=functional.InterpolationMode.BILINEAR,
  ))
  actual = geometry.transform(image, geometry.tilt(angle, size))
  np.testing.assert_allclose(actual, expected, atol=1e-4)


@pytest.mark.parametrize('size', [(32, 32), (24, 50), (120, 90), (64, 64)])
def test_resize_equals_torchvision_with_antialias(size):
  image = _image(97, 61, channels=3)
  functional, torch_image = _torchvision(), _torch(image)
  expected = _numpy(
    functional.resize(torch_image, list(size), antialias=True)
  )
  np.testing.assert_allclose(geometry.resize(image, size), expected, atol=1e-4)


@pytest.mark.parametrize('size', [(32, 32), (97, 61), (120, 90), (24, 80)])
@pytest.mark.parametrize('num_levels', [1, 3])
def test_identity_homography_is_the_antialiased_resize(size, num_levels):
  image = _image(97, 61)
  source = geometry.prefilter(image, size, num_levels=num_levels)
  actual = geometry.warp(source, jnp.eye(3), size)
  np.testing.assert_allclose(
    actual, geometry.resize(image, size), atol=2e-5
  )


@pytest.mark.parametrize('angle', [20.0, 10.0, -20.0])
@pytest.mark.parametrize('size', [(100, 100), (974, 800)])
def test_tilt_maps_the_corners_of_the_actual_image(angle, size):
  height, width = size
  pull = np.asarray(geometry.tilt(angle, size), np.float64)
  shift = np.tan(np.deg2rad(angle)) * width
  ends = [(shift, 0), (width - shift, 0), (width, height), (0, height)]
  starts = [(0, 0), (width, 0), (width, height), (0, height)]
  for end, start in zip(ends, starts, strict=True):
    u, v, w = pull @ np.array([*end, 1.0])
    np.testing.assert_allclose((u / w, v / w), start, atol=width * 1e-5)


def test_paper_box_has_the_coefficients_of_the_source_system():
  # Coefficients measured on the source system's own call at 20 degrees.
  pull = np.asarray(geometry.tilt(20.0, (244, 244)), np.float64)
  pull = pull / pull[2, 2]
  np.testing.assert_allclose(
    pull[:2], [[3.67567, 1.33783, -326.431], [0, 3.67567, 0]], rtol=2e-5,
    atol=1e-6,
  )
  np.testing.assert_allclose(pull[2, 1], 0.01097, rtol=1e-3)


def test_composition_equals_the_sequence_of_operations():
  # On a smooth image two interpolations and one differ by little.
  y, x = np.mgrid[0:120, 0:120] / 120
  image = (0.5 + 0.5 * np.sin(5 * x + 3 * y))[..., None].astype(np.float32)
  size = image.shape[:2]
  first, second = geometry.rotation(25.0, size), geometry.tilt(10.0, size)
  once = geometry.transform(image, geometry.compose([first, second]))
  twice = geometry.transform(geometry.transform(image, first), second)
  # The sequence also cuts what the first step moved out of the frame; the
  # composition still knows it. Compare where the first frame was whole.
  ones = geometry.transform(jnp.ones_like(image), first)
  whole = np.asarray(geometry.transform(ones, second)) > 0.999
  assert whole.mean() > 0.3
  assert np.abs(np.asarray(once - twice))[whole].max() < 2e-3


def test_minified_pattern_is_averaged_and_not_aliased():
  # A checkerboard under a strong tilt: at the far edge about four source pixels
  # fall on one output pixel, so the levels must bring it to its mean, 1/2.
  image = (np.indices((128, 128)).sum(0) % 2)[..., None].astype(np.float32)
  size = (128, 128)
  pull = geometry.tilt(20.0, size)
  plain = geometry.transform(image, pull)
  levels = geometry.warp(
    geometry.prefilter(image, size, num_levels=3), pull, size
  )
  top = (slice(2, 10), slice(55, 73))
  assert np.asarray(plain)[top].std() > 0.1
  assert np.asarray(levels)[top].std() < 0.01
  np.testing.assert_allclose(np.asarray(levels)[top].mean(), 0.5, atol=0.02)


def test_warp_of_a_large_image_agrees_with_supersampling():
  rng = np.random.default_rng(1)
  image = rng.random((240, 200, 1)).astype(np.float32)
  size, angle = (40, 40), 31.0
  pull = geometry.rotation(angle, image.shape[:2])
  actual = geometry.warp(geometry.prefilter(image, size), pull, size)
  # Reference: rotate at full resolution, then resize with antialias.
  expected = geometry.resize(geometry.transform(image, pull), size)
  error = np.abs(np.asarray(actual - expected))
  # The noise itself has a standard deviation of 0.29 before and about 0.05
  # after the resize.
  assert error.mean() < 0.012
  interpolated = geometry.transform(geometry.resize(image, size), pull)
  worse = np.abs(np.asarray(interpolated - expected))
  assert error.mean() < worse.mean()


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.float64])
def test_warp_differentiates_in_the_angle(dtype):
  with jax.enable_x64(dtype == jnp.float64):
    y, x = np.mgrid[0:40, 0:40] / 40
    image = jnp.asarray((np.sin(6 * x) * y)[..., None], dtype)

    def mean_square(angle):
      pull = geometry.rotation(angle, (40, 40))
      source = geometry.prefilter(image, (20, 20), num_levels=2)
      return jnp.mean(geometry.warp(source, pull, (20, 20)) ** 2)

    angle = jnp.asarray(20.0, dtype)
    derivative = jax.jit(jax.grad(mean_square))(angle)
    step = 0.05
    numeric = (mean_square(angle + step) - mean_square(angle - step)) / (
      2 * step
    )
    assert derivative.dtype == dtype
    # A difference over a finite step crosses kinks of the interpolation.
    np.testing.assert_allclose(derivative, numeric, rtol=0.1, atol=1e-6)


@pytest.mark.parametrize('size', [(64, 64), (50, 80)])
@pytest.mark.parametrize('scale, shift_x, shift_y', [
  (1.0, 0.0, 0.0), (1.7, 0.0, 0.0), (0.6, 0.0, 0.0), (1.0, 0.1, 0.0),
  (1.0, -0.25, 0.0), (1.0, 0.0, 0.3), (1.0, 0.0, -0.1),
])
def test_scaling_and_translations_equal_torchvision_affine(
  size, scale, shift_x, shift_y
):
  image = _image(*size)
  height, width = size
  # torchvision rounds a translation to whole pixels.
  shift = [round(shift_x * width), round(shift_y * height)]
  functional, torch_image = _torchvision(), _torch(image)
  expected = _numpy(functional.affine(
    torch_image, angle=0.0, translate=shift, scale=scale, shear=[0.0, 0.0],
    interpolation=functional.InterpolationMode.BILINEAR,
  ))
  pull = geometry.compose([
    geometry.scaling(scale, size),
    geometry.translation_x(shift[0] / width, size),
    geometry.translation_y(shift[1] / height, size),
  ])
  actual = geometry.transform(image, pull)
  np.testing.assert_allclose(actual, expected, atol=1e-4)


@pytest.mark.parametrize('make, value', [
  (geometry.scaling, 1.3), (geometry.translation_x, 0.2),
  (geometry.translation_y, -0.1),
])
def test_scaling_and_translations_follow_the_dtype_and_undo(make, value):
  for dtype in (jnp.float32, jnp.float64):
    with jax.enable_x64(dtype == jnp.float64):
      forth = jax.jit(make, static_argnums=1)(jnp.asarray(value, dtype), (5, 9))
      inverse = 1 / value if make is geometry.scaling else -value
      back = make(jnp.asarray(inverse, dtype), (5, 9))
      assert forth.dtype == dtype
      np.testing.assert_allclose(forth @ back, np.eye(3), atol=1e-5)


def test_points_behind_the_horizon_show_the_fill():
  image = _image(50, 50)
  pull = jnp.array([[1.0, 0, 0], [0, 1, 0], [0, -0.04, 1]])
  out = np.asarray(geometry.transform(image, pull, fill=0.25))
  np.testing.assert_array_equal(out[26:], 0.25)
  assert np.isfinite(out).all()


def test_nearest_takes_values_of_the_image_only():
  image = _image(30, 30)
  out = geometry.transform(
    image, geometry.rotation(17.0, (30, 30)), method='nearest'
  )
  assert np.isin(np.asarray(out), np.append(image, 0)).all()


@pytest.mark.parametrize('arguments', [{'method': 'cubic'}, {'border': 'wrap'}])
def test_unknown_options_are_refused(arguments):
  with pytest.raises(ValueError, match='must be'):
    geometry.transform(_image(8, 8), jnp.eye(3), **arguments)


def test_image_without_channels_is_refused_with_its_shape():
  with pytest.raises(ValueError, match=r'\(8, 8\)'):
    geometry.prefilter(np.zeros((8, 8)), (4, 4))
