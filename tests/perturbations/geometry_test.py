"""Geometry against torchvision, closed forms and invariants."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxsens.perturbations import distortions
from jaxsens.perturbations import geometry
from jaxsens.perturbations import homographies
from jaxsens.perturbations import perspectives
from tests.oracles import torchvision_ops

_transform = jax.jit(
  geometry.transform, static_argnames=('method', 'border', 'fill')
)
_resize = jax.jit(geometry.resize, static_argnums=1)
_prefilter = jax.jit(
  geometry.prefilter, static_argnums=1, static_argnames='num_levels'
)
_warp = jax.jit(
  geometry.warp, static_argnums=2, static_argnames=('border', 'fill')
)


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
  actual = _transform(image, homographies.rotation(angle, size))
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
  actual = _transform(image, perspectives.tilt(angle, size))
  np.testing.assert_allclose(actual, expected, atol=1e-4)


@pytest.mark.parametrize('size', [(32, 32), (24, 50), (120, 90), (64, 64)])
def test_resize_equals_torchvision_with_antialias(size):
  image = _image(97, 61, channels=3)
  functional, torch_image = _torchvision(), _torch(image)
  expected = _numpy(
    functional.resize(torch_image, list(size), antialias=True)
  )
  np.testing.assert_allclose(_resize(image, size), expected, atol=1e-4)


@pytest.mark.parametrize('size', [(32, 32), (97, 61), (120, 90), (24, 80)])
@pytest.mark.parametrize('num_levels', [1, 3])
def test_identity_homography_is_the_antialiased_resize(size, num_levels):
  image = _image(97, 61)
  source = _prefilter(image, size, num_levels=num_levels)
  actual = _warp(source, jnp.eye(3), size)
  np.testing.assert_allclose(
    actual, _resize(image, size), atol=2e-5
  )


@pytest.mark.parametrize('angle', [20.0, 10.0, -20.0])
@pytest.mark.parametrize('size', [(100, 100), (974, 800)])
def test_tilt_maps_the_corners_of_the_actual_image(angle, size):
  height, width = size
  pull = np.asarray(perspectives.tilt(angle, size), np.float64)
  shift = np.tan(np.deg2rad(angle)) * width
  ends = [(shift, 0), (width - shift, 0), (width, height), (0, height)]
  starts = [(0, 0), (width, 0), (width, height), (0, height)]
  for end, start in zip(ends, starts, strict=True):
    u, v, w = pull @ np.array([*end, 1.0])
    np.testing.assert_allclose((u / w, v / w), start, atol=width * 1e-5)


def test_paper_box_has_the_coefficients_of_the_source_system():
  # Coefficients measured on the source system's own call at 20 degrees.
  pull = np.asarray(perspectives.tilt(20.0, (244, 244)), np.float64)
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
  first = homographies.rotation(25.0, size)
  second = perspectives.tilt(10.0, size)
  once = _transform(image, geometry.compose([first, second]))
  twice = _transform(_transform(image, first), second)
  # The sequence also cuts what the first step moved out of the frame; the
  # composition still knows it. Compare where the first frame was whole.
  ones = _transform(jnp.ones_like(image), first)
  whole = np.asarray(_transform(ones, second)) > 0.999
  assert whole.mean() > 0.3
  assert np.abs(np.asarray(once - twice))[whole].max() < 2e-3


def test_minified_pattern_is_averaged_and_not_aliased():
  # A checkerboard under a strong tilt: at the far edge about four source pixels
  # fall on one output pixel, so the levels must bring it to its mean, 1/2.
  image = (np.indices((128, 128)).sum(0) % 2)[..., None].astype(np.float32)
  size = (128, 128)
  pull = perspectives.tilt(20.0, size)
  plain = _transform(image, pull)
  levels = _warp(
    _prefilter(image, size, num_levels=3), pull, size
  )
  top = (slice(2, 10), slice(55, 73))
  assert np.asarray(plain)[top].std() > 0.1
  assert np.asarray(levels)[top].std() < 0.01
  np.testing.assert_allclose(np.asarray(levels)[top].mean(), 0.5, atol=0.02)


def test_warp_of_a_large_image_agrees_with_supersampling():
  rng = np.random.default_rng(1)
  image = rng.random((240, 200, 1)).astype(np.float32)
  size, angle = (40, 40), 31.0
  pull = homographies.rotation(angle, image.shape[:2])
  actual = _warp(_prefilter(image, size), pull, size)
  # Reference: rotate at full resolution, then resize with antialias.
  expected = _resize(_transform(image, pull), size)
  error = np.abs(np.asarray(actual - expected))
  # The noise itself has a standard deviation of 0.29 before and about 0.05
  # after the resize.
  assert error.mean() < 0.012
  interpolated = _transform(_resize(image, size), pull)
  worse = np.abs(np.asarray(interpolated - expected))
  assert error.mean() < worse.mean()


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.float64])
def test_warp_differentiates_in_the_angle(dtype):
  with jax.enable_x64(dtype == jnp.float64):
    y, x = np.mgrid[0:40, 0:40] / 40
    image = jnp.asarray((np.sin(6 * x) * y)[..., None], dtype)

    @jax.jit
    @jax.value_and_grad
    def both(angle):
      pull = homographies.rotation(angle, (40, 40))
      source = _prefilter(image, (20, 20), num_levels=2)
      return jnp.mean(_warp(source, pull, (20, 20)) ** 2)

    angle = jnp.asarray(20.0, dtype)
    derivative = both(angle)[1]
    step = 0.05
    numeric = (both(angle + step)[0] - both(angle - step)[0]) / (2 * step)
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
    homographies.scaling(scale, size),
    homographies.translation_x(shift[0] / width, size),
    homographies.translation_y(shift[1] / height, size),
  ])
  actual = _transform(image, pull)
  np.testing.assert_allclose(actual, expected, atol=1e-4)


@pytest.mark.parametrize('make, value', [
  (homographies.scaling, 1.3), (homographies.translation_x, 0.2),
  (homographies.translation_y, -0.1),
])
def test_scaling_and_translations_follow_the_dtype_and_undo(make, value):
  for dtype in (jnp.float32, jnp.float64):
    with jax.enable_x64(dtype == jnp.float64):
      forth = jax.jit(make, static_argnums=1)(jnp.asarray(value, dtype), (5, 9))
      inverse = 1 / value if make is homographies.scaling else -value
      back = make(jnp.asarray(inverse, dtype), (5, 9))
      assert forth.dtype == dtype
      np.testing.assert_allclose(forth @ back, np.eye(3), atol=1e-5)


def test_common_zeros_are_those_of_the_product():
  rng = np.random.default_rng(3)
  for count in (1, 2, 3, 4):
    for _ in range(20):
      # Positive entries cannot cancel.
      matrices = rng.random((count, 3, 3)) + 0.1
      matrices[rng.random((count, 3, 3)) < 0.4] = 0
      zeros = [
        [tuple(entry) for entry in np.argwhere(matrix == 0)]
        for matrix in matrices
      ]
      product = functools.reduce(np.matmul, matrices)
      expected = [tuple(entry) for entry in np.argwhere(product == 0)]
      assert list(geometry.common_zeros(zeros)) == expected


@pytest.mark.parametrize(
  'size', [(1, 1), (1, 9), (2, 3), (7, 30), (64, 5), (33, 34)]
)
@pytest.mark.parametrize('channels', [1, 3])
def test_levels_are_triangles_that_sum_to_one_inside_the_image(size, channels):
  image = np.random.default_rng(0).random((*size, channels))
  with jax.enable_x64(True):
    source = _prefilter(image, size, num_levels=4)
  assert source.levels.shape == (4, *size, channels)
  for level, actual in enumerate(source.levels):
    expected = image
    for axis, length in enumerate(size):
      index = np.arange(length)
      distance = np.abs(index[:, None] - index)
      kernel = np.maximum(0, 1 - distance / 2**level)
      kernel /= kernel.sum(1, keepdims=True)
      expected = np.moveaxis(np.tensordot(kernel, expected, (1, axis)), 0, axis)
    np.testing.assert_allclose(actual, expected, atol=1e-13)


def test_points_behind_the_horizon_show_the_fill():
  image = _image(50, 50)
  pull = jnp.array([[1.0, 0, 0], [0, 1, 0], [0, -0.04, 1]])
  out = np.asarray(_transform(image, pull, fill=0.25))
  np.testing.assert_array_equal(out[26:], 0.25)
  assert np.isfinite(out).all()


def test_nearest_takes_values_of_the_image_only():
  image = _image(30, 30)
  out = _transform(
    image, homographies.rotation(17.0, (30, 30)), method='nearest'
  )
  assert np.isin(np.asarray(out), np.append(image, 0)).all()


@pytest.mark.parametrize('arguments', [{'method': 'cubic'}, {'border': 'wrap'}])
def test_unknown_options_are_refused(arguments):
  with pytest.raises(ValueError, match='must be'):
    _transform(_image(8, 8), jnp.eye(3), **arguments)


def test_image_without_channels_is_refused_with_its_shape():
  with pytest.raises(ValueError, match=r'\(8, 8\)'):
    geometry.prefilter(np.zeros((8, 8)), (4, 4))


def _pull_of_tilt_lens_and_rotation(x, y, size):
  """Reference in NumPy: the last operation is undone first."""
  height, width = size
  turn = np.deg2rad(15.0)
  x, y = x - width / 2, y - height / 2
  cos, sin = np.cos(turn), np.sin(turn)
  x, y = cos * x - sin * y, sin * x + cos * y
  square = (x**2 + y**2) / (np.hypot(height, width) / 2) ** 2
  factor = 1 + 0.3 * square - 0.06 * square**2
  x, y = factor * x, factor * y
  slope = np.tan(np.deg2rad(9.0))
  w = 1 + slope * y / height
  return x / w + width / 2, y / w + height / 2


def _tilt_lens_and_rotation(size):
  return geometry.compose([
    perspectives.keystone(9.0, size), distortions.radial(0.3, -0.06, size),
    homographies.rotation(15.0, size),
  ])


def _centres(size):
  y, x = np.mgrid[0:size[0], 0:size[1]] + 0.5
  return x, y


@pytest.mark.parametrize('fill, mode', [
  ('edge', 'nearest'), ('reflect', 'reflect'),
])
@pytest.mark.parametrize('size', [(24, 31), (9, 4), (1, 1)])
def test_sequence_with_a_distortion_is_one_interpolation_of_the_source(
  size, fill, mode
):
  image = _image(*size)
  x, y = _pull_of_tilt_lens_and_rotation(*_centres(size), size)
  expected = ndimage.map_coordinates(
    image[..., 0], [y - 0.5, x - 0.5], order=1, mode=mode
  )
  actual = _transform(image, _tilt_lens_and_rotation(size), fill=fill)
  np.testing.assert_allclose(actual[..., 0], expected, atol=3e-5)


def test_footprint_comes_from_the_jacobian_of_the_whole_sequence():
  # Over a white picture on black the result is the share of each footprint
  # inside, here from central differences of the reference map.
  size = (30, 40)
  with jax.enable_x64(True):
    source = _prefilter(np.ones((*size, 1)), size)
    actual = _warp(source, _tilt_lens_and_rotation(size), size)[..., 0]
  x, y = _centres(size)
  pull = lambda x, y: np.array(_pull_of_tilt_lens_and_rotation(x, y, size))
  h = 1e-5
  by_x = (pull(x + h, y) - pull(x - h, y)) / (2 * h)
  by_y = (pull(x, y + h) - pull(x, y - h)) / (2 * h)
  widths = np.sqrt(by_x**2 + by_y**2)
  expected = 1.0
  for position, width, extent in zip(
    pull(x, y), widths, size[::-1], strict=True
  ):
    expected = expected * np.clip(position / width + 0.5, 0, 1)
    expected = expected * np.clip((extent - position) / width + 0.5, 0, 1)
  assert (expected < 0.99).sum() > 50
  np.testing.assert_allclose(actual, expected, atol=1e-7)


def test_nested_compositions_multiply_neighbouring_homographies():
  size = (20, 30)
  turn, zoom = homographies.rotation(10.0, size), homographies.scaling(2., size)
  lens = distortions.radial(0.1, 0.0, size)
  flat = geometry.compose([turn, zoom, lens, zoom, turn])
  assert len(flat) == 3
  np.testing.assert_array_equal(flat[0], geometry.compose([turn, zoom]))
  np.testing.assert_array_equal(flat[2], geometry.compose([zoom, turn]))
  image = _image(*size)
  np.testing.assert_allclose(
    _transform(image, [turn, zoom, lens, zoom, turn]),
    _transform(image, flat), atol=1e-6,
  )


@pytest.mark.parametrize('fill, mode', [
  ('edge', 'edge'), ('reflect', 'symmetric'),
])
@pytest.mark.parametrize('method', ['bilinear', 'nearest'])
@pytest.mark.parametrize('right, down', [(3, 2), (-5, 1), (17, -23), (0, 40)])
def test_border_continues_like_numpy_pad(fill, mode, method, right, down):
  image = _image(9, 7, channels=3)
  pad = 45
  padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode=mode)
  expected = padded[pad - down:pad - down + 9, pad - right:pad - right + 7]
  pull = geometry.compose([
    homographies.translation_x(right / 7, (9, 7)),
    homographies.translation_y(down / 9, (9, 7)),
  ])
  # Whole pixels up to the rounding of the shift.
  actual = _transform(image, pull, method=method, fill=fill)
  np.testing.assert_allclose(actual, expected, atol=1e-5)


@pytest.mark.parametrize('fill, mode', [
  ('edge', 'nearest'), ('reflect', 'reflect'),
])
def test_rotation_with_continued_border_equals_scipy(fill, mode):
  image = _image(33, 20, channels=3)
  expected = ndimage.rotate(
    image, 40.0, reshape=False, order=1, mode=mode, prefilter=False
  )
  actual = _transform(
    image, homographies.rotation(40.0, (33, 20)), fill=fill
  )
  np.testing.assert_allclose(actual, expected, atol=2e-5)


@pytest.mark.parametrize('fill', ['edge', 'reflect', 0.3, (0.1, 0.2, 0.3)])
@pytest.mark.parametrize('size', [(32, 32), (97, 61)])
def test_identity_is_the_antialiased_resize_whatever_the_fill(fill, size):
  image = _image(97, 61, channels=3)
  source = _prefilter(image, size, num_levels=2)
  actual = _warp(source, jnp.eye(3), size, fill=fill)
  np.testing.assert_allclose(actual, _resize(image, size), atol=2e-5)


@pytest.mark.parametrize('border', ['footprint', 'zero', 'hard'])
def test_each_channel_has_its_own_fill(border):
  image = _image(12, 10, channels=3)
  fill = (1.0, 0.25, 0.0)
  source = _prefilter(image, (12, 10))
  pull = homographies.translation_x(0.5, (12, 10))
  out = _warp(source, pull, (12, 10), border=border, fill=fill)
  np.testing.assert_array_equal(
    out[:, :4], np.broadcast_to(np.float32(fill), (12, 4, 3))
  )
  np.testing.assert_allclose(out[:, 6:], image[:, 1:5], atol=1e-6)


@pytest.mark.parametrize('fill', ['edge', 'reflect'])
def test_continued_border_shows_the_picture_and_finite_slopes_at_the_horizon(
  fill
):
  image = _image(40, 40) + 0.5

  @jax.jit
  def shown(degrees):
    pull = perspectives.tilt_x(degrees, 90.0, (40, 40))
    out = _transform(image, pull, fill=fill)
    return out.mean(), out

  (_, out), slope = jax.value_and_grad(shown, has_aux=True)(70.0)
  out = np.asarray(out)
  assert out.min() >= image.min() and out.max() <= image.max()
  assert np.isfinite(slope)
  if fill == 'edge':
    # Behind the horizon and just before it the far edge goes on.
    assert np.isin(out[:8], image[0]).all()


def test_far_corner_of_a_barrel_is_averaged_and_not_aliased():
  image = (np.indices((128, 128)).sum(0) % 2)[..., None].astype(np.float32)
  size = (128, 128)
  lens = distortions.radial(0.45, 0.0, size)
  plain = _transform(image, lens, fill='reflect')
  levels = _warp(
    _prefilter(image, size, num_levels=3), lens, size, fill='reflect'
  )
  corner = (slice(0, 10), slice(0, 10))
  assert np.asarray(plain)[corner].std() > 0.1
  assert np.asarray(levels)[corner].std() < 0.03


@pytest.mark.parametrize('fill', ['black', 'wrap'])
def test_unknown_fill_is_refused(fill):
  with pytest.raises(ValueError, match="'edge' or 'reflect'"):
    _transform(_image(8, 8), jnp.eye(3), fill=fill)


def test_fill_of_another_number_of_channels_is_refused():
  with pytest.raises(ValueError, match=r'\(3,\).*got shape \(2,\)'):
    _transform(_image(8, 8, 3), jnp.eye(3), fill=(0.0, 1.0))


def test_matrix_of_another_shape_is_refused():
  with pytest.raises(ValueError, match=r'\(2, 3\)'):
    _transform(_image(8, 8), jnp.ones((2, 3)))
