"""The blurs of ImageNet-C against slow references written from its formulas."""

from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from jaxsens.perturbations import psf
from jaxsens.perturbations import published_blurs


def _image(shape, seed=0):
  return np.random.default_rng(seed).random(shape).astype(np.float32)


def _shuffled_in_turn(size, offsets, delta):
  """Returns the sources after copying pixel by pixel, last to first."""
  height, width = size
  source = np.arange(height * width).reshape(size)
  for row in range(height - delta, delta, -1):
    for column in range(width - delta, delta, -1):
      dy, dx = offsets[:, row, column]
      source[row, column] = source[row + dy, column + dx]
  return source


class PublishedBlursTest(parameterized.TestCase):

  @parameterized.parameters((3, 0.1), (10, 0.5), (0.4, 0.5))
  def test_defocus_equals_the_filter_with_a_mirrored_border(self, *severity):
    image = _image((40, 33, 3))
    kernel = psf.disk_with_alias(*severity)
    expected = ndimage.correlate(
      image.astype(np.float64), kernel[..., None], mode='mirror'
    )
    blur = jax.jit(published_blurs.defocus_blur, static_argnums=(1, 2))
    actual = blur(image, *severity)
    np.testing.assert_allclose(actual, np.clip(expected, 0, 1), atol=2e-6)

  @parameterized.product(angle=(-45.0, 0.0, 28.0), size=((64, 50), (9, 12)))
  def test_motion_equals_the_sum_of_shifted_images(self, angle, size):
    image = _image((*size, 3))
    radius, sigma = 10, 3
    weights = np.exp(-(np.arange(2 * radius + 1) ** 2) / (2 * sigma**2))
    weights /= weights.sum()
    rows, columns = (np.arange(n) for n in size)
    expected = np.zeros(image.shape)
    for i, weight in enumerate(weights):
      dx = int(np.ceil(i * np.cos(np.deg2rad(angle)) - 0.5))
      dy = int(np.ceil(i * np.sin(np.deg2rad(angle)) - 0.5))
      if abs(dy) >= size[0] or abs(dx) >= size[1]:
        break
      y = np.clip(rows + dy, 0, size[0] - 1)
      x = np.clip(columns + dx, 0, size[1] - 1)
      expected += weight * image[y][:, x]
    actual = jax.jit(published_blurs.motion_blur)(
      image, float(radius), float(sigma), angle
    )
    np.testing.assert_allclose(actual, expected, atol=3e-6)

  @parameterized.parameters(((48, 37),), ((32, 32),))
  def test_zoom_equals_scipy(self, size):
    image = _image((*size, 3))
    zooms = tuple(np.arange(1, 1.31, 0.03))
    total = image.astype(np.float64)
    for zoom in zooms:
      kept = [int(np.ceil(n / zoom)) for n in size]
      top, left = ((n - k) // 2 for n, k in zip(size, kept, strict=True))
      crop = image[top:top + kept[0], left:left + kept[1]].astype(np.float64)
      # mode 'nearest' mends scipy's rounding at the outermost pixel.
      stretched = ndimage.zoom(crop, (zoom, zoom, 1), order=1, mode='nearest')
      total += stretched[:size[0], :size[1]]
    blur = jax.jit(published_blurs.zoom_blur, static_argnums=1)
    actual = blur(image, zooms)
    np.testing.assert_allclose(actual, total / (len(zooms) + 1), atol=3e-6)

  @parameterized.parameters((1, (17, 23)), (2, (24, 24)), (4, (40, 31)))
  def test_shuffle_equals_copying_pixel_by_pixel(self, delta, size):
    offsets = np.random.default_rng(delta).integers(
      -delta, delta, (2, *size), dtype=np.int32
    )
    np.testing.assert_array_equal(
      published_blurs.shuffle_sources(*jnp.asarray(offsets), delta),
      _shuffled_in_turn(size, offsets, delta),
    )

  def test_glass_moves_like_the_published_loop_on_average(self):
    # The mean shift on ramps depends only on the law of the shuffle.
    height, width, delta = 60, 64, 2
    rows, columns = np.mgrid[0:height, 0:width]
    ramps = np.stack([columns, rows, columns], -1) / 64
    rng = np.random.default_rng(0)
    expected, actual = [], []
    glass = jax.jit(
      lambda key: published_blurs.glass_blur(
        ramps.astype(np.float32), 0.1, delta, 1, key=key
      )
    )
    inner = np.s_[12:-12, 12:-12]
    for i in range(12):
      offsets = rng.integers(-delta, delta, (2, height, width))
      source = _shuffled_in_turn((height, width), offsets, delta)
      shift = np.stack([source % width - columns, source // width - rows])
      expected.append([f(s[inner]) for s in shift for f in (np.mean, np.std)])
      shown = np.asarray(glass(jax.random.key(i)))
      shift = np.moveaxis(np.floor((shown[..., :2]) * 64 + 0.5), -1, 0)
      shift = shift - np.stack([columns, rows])
      actual.append([f(s[inner]) for s in shift for f in (np.mean, np.std)])
    expected, actual = np.array(expected), np.array(actual)
    error = np.sqrt((expected.var(0) + actual.var(0)) / 11)
    np.testing.assert_array_less(
      np.abs(expected.mean(0) - actual.mean(0)), 5 * error
    )

  def test_glass_without_offsets_is_two_gaussians_and_eight_bits(self):
    image = _image((20, 22, 3))
    expected = image.astype(np.float64)
    for rounding in (lambda x: np.floor(x * 255) / 255, lambda x: x):
      expected = rounding(ndimage.gaussian_filter(
        expected, 0.9, mode='nearest', axes=(0, 1), truncate=9.0
      ))
    glass = jax.jit(published_blurs.glass_blur, static_argnums=3)
    actual = glass(image, 0.9, 0, 2, key=jax.random.key(0))
    np.testing.assert_allclose(actual, expected, atol=4e-3)
    self.assertLess(np.mean(np.abs(actual - expected)), 1e-5)

  def test_bad_zooms_are_named(self):
    with self.assertRaisesRegex(ValueError, 'zooms'):
      published_blurs.zoom_blur(_image((4, 4, 1)), (0.9, 1.1))
