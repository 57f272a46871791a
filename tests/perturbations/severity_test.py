"""Severities against the published formulas, Pillow, scipy and each other."""

import colorsys
import io

from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest
from scipy import ndimage

from jaxsens.perturbations import elastic
from jaxsens.perturbations import noise
from jaxsens.perturbations import published_blurs
from jaxsens.perturbations import published_spatter
from jaxsens.perturbations import published_weather
from jaxsens.perturbations import severity
from tests.oracles import imagecorruptions_import

_KEY = jax.random.key(7)
# Each once, and those of ImageNet-C that have a path of their own.
_FACTORS = tuple(
  p for p in severity.PERTURBATIONS if p.name.startswith('cifar_c') or p.name in
  ('imagenet_c_spatter', 'imagenet_c_glass_blur', 'imagenet_c_zoom_blur')
)


def _image(shape=(32, 32, 3), seed=0):
  """Smooth with an edge, of 8 bits, and coloured."""
  rng = np.random.default_rng(seed)
  y, x = np.mgrid[0:shape[0], 0:shape[1]]
  image = np.stack([
    0.5 + 0.3 * np.sin(x / (3 + k) + y / 7) for k in range(shape[2])
  ], -1)
  image[y > x] *= 0.6
  image = image + rng.normal(0, 0.05, shape)
  return (np.clip(np.round(image * 255), 0, 255) / 255).astype(np.float32)


def _bytes(image):
  return np.round(image * 255).astype(np.uint8)


def _corrupt(benchmark, name, s, image, key=_KEY):
  return getattr(severity, benchmark)(name, s)(image, key)


def _jpeg(image, quality):
  file = io.BytesIO()
  Image.fromarray(_bytes(image)).save(file, 'JPEG', quality=quality)
  return np.asarray(Image.open(file)) / 255


def _pixelate(image, scale):
  height, width, _ = image.shape
  small = (int(width * scale), int(height * scale))
  small = Image.fromarray(_bytes(image)).resize(small, Image.Resampling.BOX)
  return np.asarray(small.resize((width, height), Image.Resampling.NEAREST))/255


def _hsv(image, change):
  pixels = [
    colorsys.hsv_to_rgb(*np.clip(change(*colorsys.rgb_to_hsv(*p)), 0, 1))
    for p in image.reshape(-1, 3).astype(float)
  ]
  return np.reshape(pixels, image.shape)


def _contrast(image, factor):
  mean = image.mean((0, 1), keepdims=True)
  return np.clip((image - mean) * factor + mean, 0, 1)


def _gaussian(image, sigma):
  return ndimage.gaussian_filter(image, (sigma, sigma, 0), mode='nearest')


def _zoom(image, stop, step):
  total = image.astype(np.float64)
  zooms, size = np.arange(1, stop, step), image.shape[:2]
  for zoom in zooms:
    kept = [int(np.ceil(n / zoom)) for n in size]
    top, left = ((n - k) // 2 for n, k in zip(size, kept, strict=True))
    crop = image[top:top + kept[0], left:left + kept[1]].astype(np.float64)
    # mode 'nearest' mends scipy's rounding at the outermost pixel.
    zoomed = ndimage.zoom(crop, (zoom, zoom, 1), order=1, mode='nearest')
    total += zoomed[:size[0], :size[1]]
  return total / (len(zooms) + 1)


class PublishedTest(parameterized.TestCase):
  """Parameters are those of make_imagenet_c.py and make_cifar_c.py."""

  @parameterized.parameters(
    ('imagenet_c', 'contrast', 2, _contrast, (0.3,)),
    ('cifar_c', 'contrast', 5, _contrast, (0.15,)),
    ('imagenet_c', 'gaussian_blur', 5, _gaussian, (6,)),
    ('cifar_c', 'gaussian_blur', 1, _gaussian, (0.4,)),
    ('imagenet_c', 'zoom_blur', 1, _zoom, (1.11, 0.01)),
    ('imagenet_c', 'zoom_blur', 4, _zoom, (1.26, 0.02)),
    ('cifar_c', 'zoom_blur', 5, _zoom, (1.26, 0.01)),
  )
  def test_filters_equal_the_formula(self, benchmark, name, s, oracle, values):
    image = _image()
    np.testing.assert_allclose(
      _corrupt(benchmark, name, s, image), oracle(image, *values), atol=1e-4
    )

  @parameterized.parameters(
    ('imagenet_c', 'brightness', 5, lambda h, s, v: (h, s, min(v + 0.5, 1))),
    ('cifar_c', 'brightness', 1, lambda h, s, v: (h, s, min(v + 0.05, 1))),
    ('imagenet_c', 'saturate', 5, lambda h, s, v: (h, min(20*s + 0.2, 1), v)),
    ('cifar_c', 'saturate', 2, lambda h, s, v: (h, 0.1 * s, v)),
  )
  def test_colours_equal_those_of_colorsys(self, benchmark, name, s, change):
    image = _image()
    np.testing.assert_allclose(
      _corrupt(benchmark, name, s, image), _hsv(image, change), atol=3e-6
    )

  @parameterized.parameters(
    ('imagenet_c', 1, 0.6), ('imagenet_c', 5, 0.25), ('cifar_c', 2, 0.9)
  )
  def test_pixelate_equals_pillow_up_to_its_rounding(self, benchmark, s, scale):
    image = _image()
    np.testing.assert_allclose(
      _corrupt(benchmark, 'pixelate', s, image), _pixelate(image, scale),
      atol=1.01 / 255,
    )

  @parameterized.parameters(
    ('imagenet_c', 1, 25), ('imagenet_c', 5, 7), ('cifar_c', 3, 58)
  )
  def test_jpeg_equals_pillow_nearly_everywhere(self, benchmark, s, quality):
    image = _image()
    actual = _corrupt(benchmark, 'jpeg_compression', s, image)
    error = np.abs(actual - _jpeg(image, quality))
    # A coefficient next to a half may be rounded otherwise: one block of 16.
    self.assertGreater((error < 0.5 / 255).mean(), 0.85)

  def test_defocus_equals_the_published_kernels(self):
    # Radius 8 and 10, then a disk of one pixel: only the alias blur acts.
    for benchmark, s, row in (
      ('imagenet_c', 4, (8, 0.5)), ('imagenet_c', 5, (10, 0.5)),
      ('cifar_c', 1, (0.3, 0.4)),
    ):
      np.testing.assert_allclose(
        _corrupt(benchmark, 'defocus_blur', s, _image()),
        published_blurs.defocus_blur(_image(), *row), atol=2e-6,
      )

  @parameterized.parameters(
    ('imagenet_c', 'gaussian_noise', 4, noise.gaussian_noise, (0.26,)),
    ('cifar_c', 'gaussian_noise', 5, noise.gaussian_noise, (0.1,)),
    ('imagenet_c', 'shot_noise', 5, noise.shot_noise, (1 / 3,)),
    ('cifar_c', 'shot_noise', 1, noise.shot_noise, (1 / 500,)),
    ('imagenet_c', 'impulse_noise', 1, noise.impulse_noise, (0.03,)),
    ('cifar_c', 'speckle_noise', 3, noise.speckle_noise, (0.12,)),
    ('imagenet_c', 'fog', 5, published_weather.imagenet_fog, (3, 1.4)),
    ('cifar_c', 'fog', 3, published_weather.imagenet_fog, (0.75, 2.5)),
    ('imagenet_c', 'frost', 1, published_weather.imagenet_frost, (1, 0.4)),
    (
      'imagenet_c', 'snow', 4, published_weather.imagenet_snow,
      (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
    ),
    (
      'imagenet_c', 'spatter', 3, published_spatter.imagenet_spatter,
      (0.65, 0.3, 2, 0.68, 0.5, False),
    ),
    (
      'imagenet_c', 'spatter', 5, published_spatter.imagenet_spatter,
      (0.67, 0.4, 1, 0.65, 1.5, True),
    ),
    (
      'imagenet_c', 'glass_blur', 3, published_blurs.glass_blur, (1, 2, 3),
    ),
    ('cifar_c', 'glass_blur', 4, published_blurs.glass_blur, (0.25, 1, 2)),
    (
      'imagenet_c', 'elastic_transform', 3, elastic.elastic_transform,
      (12.2, 2.44, 4.88),
    ),
    (
      'cifar_c', 'elastic_transform', 2, elastic.elastic_transform,
      (1.6, 6.4, 2.24),
    ),
  )
  def test_random_ones_have_the_published_parameters(
    self, benchmark, name, s, function, values
  ):
    image = _image((40, 40, 3))
    np.testing.assert_allclose(
      _corrupt(benchmark, name, s, image),
      function(image, *values, key=_KEY), atol=2e-5,
    )

  def test_motion_draws_its_angle_evenly_within_45_degrees(self):
    # A bright pixel leaves a trace; its direction is that of the angle.
    image = np.zeros((64, 64, 1), np.float32)
    image[32, 32] = 1
    blur = jax.jit(severity.imagenet_c('motion_blur', 1))
    y, x = np.mgrid[0:64, 0:64] - 32
    angles = []
    for i in range(40):
      trace = np.asarray(blur(image, jax.random.key(i)))[..., 0]
      angles.append(np.degrees(np.arctan2((trace*y).sum(), (trace*x).sum())))
    angles = (np.array(angles) + 180) % 360
    angles = np.where(angles > 180, angles - 360, angles)
    self.assertLess(np.abs(angles).max(), 47)
    # 26 degrees is the deviation of the even law; five errors of forty draws.
    self.assertLess(abs(angles.mean()), 5 * 26 / np.sqrt(40))
    self.assertGreater(np.std(angles), 15)

  @parameterized.product(
    name=(
      'defocus_blur', 'zoom_blur', 'gaussian_blur', 'brightness', 'contrast',
      'saturate', 'pixelate', 'jpeg_compression',
    ),
  )
  def test_imagenet_c_equals_imagecorruptions(self, name):
    corruptions = imagecorruptions_import.import_corruptions()
    image = _image((64, 64, 3))
    for s in range(1, 6):
      expected = np.asarray(
        getattr(corruptions, name)(Image.fromarray(_bytes(image)), s)
      ) / 255
      error = np.abs(_corrupt('imagenet_c', name, s, image) - expected)
      if name == 'jpeg_compression':
        error = error.mean()
      np.testing.assert_array_less(
        error, 1.01 / 255 if name == 'pixelate' else 5e-4
      )


class BetweenTest(parameterized.TestCase):

  @parameterized.parameters(
    'defocus_blur', 'zoom_blur', 'elastic_transform', 'motion_blur', 'saturate'
  )
  def test_is_continuous_at_whole_severities(self, name):
    image = _image((24, 24, 3)).astype(np.float64)
    with jax.enable_x64(True):
      corrupt = jax.jit(lambda s: _corrupt('cifar_c', name, s, image))
      for s in (2, 3, 4):
        for side in (-1, 1):
          np.testing.assert_allclose(
            corrupt(s + side * 1e-6), corrupt(float(s)), atol=1e-3
          )

  @parameterized.parameters(
    ('defocus_blur', 3, 4), ('glass_blur', 2, 3), ('spatter', 3, 4)
  )
  def test_what_is_blended_is_half_of_each_half_way(self, name, lower, upper):
    corrupt = lambda s: _corrupt('imagenet_c', name, s, _image())
    np.testing.assert_allclose(
      corrupt((lower + upper) / 2), (corrupt(lower) + corrupt(upper)) / 2,
      atol=2e-6,
    )

  def test_parameters_are_linear_between_severities(self):
    # 0.08 and 0.12 are published; half way is 0.1, and a quarter 0.09.
    for s, sigma in ((1.5, 0.1), (1.25, 0.09)):
      np.testing.assert_allclose(
        _corrupt('imagenet_c', 'gaussian_noise', s, _image()),
        noise.gaussian_noise(_image(), sigma, key=_KEY), atol=1e-6,
      )

  @parameterized.parameters(
    'saturate', 'gaussian_noise', 'zoom_blur'
  )
  def test_derivative_equals_finite_differences(self, name):
    image = _image((12, 12, 3)).astype(np.float64)
    with jax.enable_x64(True):
      mean = jax.jit(
        lambda s: (_corrupt('cifar_c', name, s, image) ** 2).mean()
      )
      expected = (mean(3.4 + 1e-5) - mean(3.4 - 1e-5)) / 2e-5
      np.testing.assert_allclose(
        jax.grad(mean)(3.4), expected, rtol=1e-4, atol=1e-9
      )


class ErrorsTest(parameterized.TestCase):

  def test_both_benchmarks_have_the_nineteen(self):
    for benchmark in severity.BENCHMARKS:
      self.assertLen(set(severity.names(benchmark)), 19)
    self.assertEqual(severity.names('imagenet_c'), severity.names('cifar_c'))

  def test_unknown_names_suggest_the_nearest(self):
    with pytest.raises(KeyError, match="did you mean 'defocus_blur'"):
      severity.imagenet_c('defokus_blur', 2)
    with pytest.raises(KeyError, match="did you mean 'imagenet_c'"):
      severity.names('imagenetc')

  @parameterized.parameters(0.99, 5.01, float('nan'), -1)
  def test_severity_out_of_range_is_refused(self, s):
    with pytest.raises(ValueError, match=r'in \[1, 5\], got'):
      severity.cifar_c('fog', s)

  def test_random_ones_need_a_key_and_others_do_not(self):
    with pytest.raises(ValueError, match='fog draws and needs a key'):
      severity.imagenet_c('fog', 2)(_image())
    severity.imagenet_c('contrast', 2)(_image())

  def test_image_of_wrong_shape_or_dtype_is_refused(self):
    for image in (
      np.zeros((4, 4), np.float32), np.zeros((4, 4, 3), np.uint8),
      np.zeros((4, 4, 2), np.float32),
    ):
      with pytest.raises(ValueError, match='image must'):
        severity.imagenet_c('contrast', 2)(image)


class FactorsTest(parameterized.TestCase):

  @parameterized.parameters(*_FACTORS)
  def test_zero_is_the_image_and_from_one_the_corruption(self, entry):
    image = _image((13, 9, 1))
    benchmark = next(b for b in severity.BENCHMARKS if b in entry.name)
    name = entry.name.removeprefix(f'{benchmark}_')
    drawn = {'key': _KEY} if entry.random else {}
    function = jax.jit(lambda s: entry.function(image, s, **drawn))
    np.testing.assert_array_equal(function(0.0), image)
    np.testing.assert_allclose(
      function(0.5), (image + function(1.0)) / 2, atol=1e-6
    )
    # Known severities take other paths than traced ones.
    corrupt = jax.jit(getattr(severity, benchmark)(name, 3.25))
    error = np.abs(function(3.25) - corrupt(image, _KEY))
    # Where it jumps a rounding may move single pixels.
    self.assertLess(np.quantile(error, 0.98), 1e-5)

  def test_every_corruption_of_both_benchmarks_is_a_factor(self):
    self.assertEqual(
      {p.name for p in severity.PERTURBATIONS},
      {f'{b}_{n}' for b in severity.BENCHMARKS for n in severity.names(b)},
    )

  @parameterized.parameters('cifar_c_fog', 'imagenet_c_saturate')
  def test_derivative_at_zero_is_the_first_severity_less_the_image(self, name):
    entry = next(p for p in severity.PERTURBATIONS if p.name == name)
    image = _image((12, 12, 3))
    drawn = {'key': _KEY} if entry.random else {}
    corrupt = lambda s: entry.function(image, s, **drawn)
    slope = jax.jacfwd(corrupt)(0.0)
    np.testing.assert_allclose(slope, corrupt(1.0) - image, atol=1e-6)

  @parameterized.parameters('zoom_blur', 'elastic_transform', 'snow')
  def test_any_size_keeps_its_shape_and_range(self, name):
    for size in ((1, 1, 3), (60, 3, 1)):
      corrupt = jax.jit(severity.cifar_c(name, 4.5))
      result = np.asarray(corrupt(_image(size), _KEY))
      self.assertEqual(result.shape, size)
      self.assertTrue((result >= 0).all() and (result <= 1).all())

  def test_vmap_over_values_equals_a_loop(self):
    entry = next(
      p for p in severity.PERTURBATIONS if p.name == 'cifar_c_glass_blur'
    )
    values = jnp.array([0.0, 0.4, 2.5, 5.0])
    corrupt = lambda s: entry.function(_image(), s, key=_KEY)
    np.testing.assert_allclose(
      jax.jit(jax.vmap(corrupt))(values),
      jnp.stack([corrupt(s) for s in values]), atol=3e-6,
    )
