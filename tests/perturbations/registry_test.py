"""What every registered perturbation promises, whatever it does.

Each goes through a chain of its own, whose factors are all of its parameters,
on a thin picture with odd sides, on a single gray pixel, and some on a long
picture.
"""

import functools
import math

from absl.testing import absltest
from absl.testing import parameterized
import chaospy
import jax
import numpy as np

from jaxsens import factors
from jaxsens.perturbations import chains
from jaxsens.perturbations import perturbation as perturbation_lib
from jaxsens.perturbations import registry

_NAMED = tuple((name, registry.get(name)) for name in registry.names())
# Thin, with odd sides; shorter than most kernels.
_SHAPE = (3, 17, 3)
_NUM_ROWS = 32
# Where only the compiler's time matters: a third less of it.
_HASTY = {
  'xla_backend_optimization_level': 0, 'xla_llvm_disable_expensive_passes': True
}


def _image(shape=_SHAPE, seed=0):
  """Levels of 8 bits, black and white among them, float32."""
  levels = np.random.default_rng(seed).integers(-20, 276, shape)
  return np.float32(np.clip(levels, 0, 255) / 255)


@functools.cache
def _chain(name, size=_SHAPE[:2], clip_values=True):
  space = factors.FactorSpace(tuple(
    factors.Factor(p.name, chaospy.Uniform(*p.sensible_range))
    for p in registry.get(name).parameters
  ))
  return chains.make_chain(space, size, clip_values=clip_values)


@functools.cache
def _batched(name):
  """The chain over images, values and keys, compiled as by the engine."""
  return jax.jit(jax.vmap(_chain(name)))


def _pictures(name, rows, keys=None):
  """One image at rows of values; padded, so that all is compiled once."""
  padded = np.resize(np.float32(rows), (_NUM_ROWS, len(rows[0])))
  keys = _keys() if keys is None else keys
  images = np.broadcast_to(_image(), (_NUM_ROWS, *_SHAPE))
  return np.asarray(_batched(name)(images, padded, keys))[: len(rows)]


def _keys(seed=5, same=False):
  keys = jax.random.split(jax.random.key(seed), _NUM_ROWS)
  return keys[np.zeros(_NUM_ROWS, int)] if same else keys


def _generic(entry, share=0.71):
  """Values at a share of the sensible ranges, off every special point."""
  ranges = [p.sensible_range for p in entry.parameters]
  return [low + share * (high - low) for low, high in ranges]


def _end(parameter, i):
  """The limit where it is finite, else ten ranges outside the range."""
  low, high = parameter.sensible_range
  limit = parameter.limits[i]
  return limit if math.isfinite(limit) else (
    (low, high)[i] + (-10, 10)[i] * (high - low)
  )


def _identities(entry):
  """Rows with the identity; the others default, generic, at both ends."""
  return [
    [p.default for p in entry.parameters],
    [entry.identity, *_generic(entry)[1:]],
    *([entry.identity, *(_end(p, i) for p in entry.others)] for i in (0, 1)),
  ]


def _extremes(entry):
  """Rows at the ends of ranges and limits, one parameter at a time, and all."""
  rows = [[_end(p, i) for p in entry.parameters] for i in (0, 1)]
  for j, p in enumerate(entry.parameters):
    for value in (*p.sensible_range, _end(p, 0), _end(p, 1)):
      rows.append(_generic(entry))
      rows[-1][j] = value
  return rows


class RegistryTest(parameterized.TestCase):

  def assert_pictures(self, result, shape):
    self.assertEqual(result.shape[1:], shape)
    self.assertEqual(result.dtype, np.float32)
    self.assertTrue(np.isfinite(result).all())
    self.assertBetween(result.min(), 0, 1)
    self.assertBetween(result.max(), 0, 1)

  @parameterized.named_parameters(*_NAMED)
  def test_identity_gives_the_image_back_whatever_the_others_are(self, entry):
    rows = _identities(entry)
    np.testing.assert_array_equal(
      _pictures(entry.name, rows),
      np.broadcast_to(_image(), (len(rows), *_SHAPE)),
    )

  @parameterized.named_parameters(*_NAMED)
  def test_extreme_values_give_finite_pictures_in_the_unit_range(self, entry):
    self.assert_pictures(_pictures(entry.name, _extremes(entry)), _SHAPE)

  @parameterized.named_parameters(*_NAMED)
  def test_single_gray_pixel_stays_a_gray_pixel(self, entry):
    # One at a time and hardly optimised, which compiles fastest.
    function = jax.jit(
      _chain(entry.name, (1, 1)), compiler_options=_HASTY
    )
    image = np.float32([[[0.4]]])
    key = jax.random.key(1)
    rows = np.float32([*_identities(entry), *_extremes(entry)])
    result = np.stack([function(image, row, key) for row in rows])
    self.assert_pictures(result, (1, 1, 1))
    np.testing.assert_array_equal(result[:4].ravel(), image.ravel().repeat(4))

  @parameterized.named_parameters(*_NAMED)
  def test_batch_equals_a_loop(self, entry):
    rows = np.float32([_generic(entry, share) for share in (0.13, 0.52, 0.87)])
    single = jax.jit(
      _chain(entry.name, clip_values=False), compiler_options=_HASTY
    )
    loop = [single(_image(), *of) for of in zip(rows, _keys()[:3], strict=True)]
    np.testing.assert_allclose(_pictures(entry.name, rows), loop, atol=1e-5)

  @parameterized.named_parameters(*_NAMED)
  def test_order_of_the_batch_does_not_matter(self, entry):
    rng = np.random.default_rng(3)
    values = np.float32([_generic(entry, s) for s in rng.random(_NUM_ROWS)])
    batch = (_image((_NUM_ROWS, *_SHAPE)), values, _keys())
    order = rng.permutation(_NUM_ROWS)
    function = _batched(entry.name)
    np.testing.assert_array_equal(
      function(*(part[order] for part in batch)), function(*batch)[order]
    )

  @parameterized.named_parameters(*_NAMED)
  def test_key_alone_says_what_is_drawn(self, entry):
    # A longer exposure_time draws nothing, a shorter one does.
    rows = [_generic(entry, share) for share in (0.23, 0.71)] * 2
    first = _pictures(entry.name, rows, _keys(same=True))
    np.testing.assert_array_equal(first[:2], first[2:])
    other = _pictures(entry.name, rows, _keys(6, same=True))
    self.assertEqual(entry.random, not np.array_equal(first, other))
    if entry.random:
      with self.assertRaisesRegex(ValueError, 'needs a key'):
        _chain(entry.name)(_image(), rows[0])

  @parameterized.named_parameters(*_NAMED)
  def test_picture_changes_off_the_identity(self, entry):
    result = _pictures(entry.name, [_generic(entry, s) for s in (0.05, 0.95)])
    self.assertGreater(np.abs(result - _image()).max(), 0.01)

  @parameterized.named_parameters(*_NAMED)
  def test_values_beyond_the_limits_are_refused_or_moved_there(self, entry):
    refusing = _chain(entry.name, clip_values=False)
    for j, p in enumerate(entry.parameters):
      for limit, sign in zip(p.limits, (-1, 1), strict=True):
        if not math.isfinite(limit):
          continue
        rows = [_generic(entry), _generic(entry)]
        rows[0][j] = limit + sign * (0.01 + 0.1 * abs(limit))
        rows[1][j] = limit
        with self.assertRaisesRegex(ValueError, f'{p.name}: .*clip_values'):
          refusing.apply(None, rows[0], jax.random.key(0))
        moved, there = _pictures(entry.name, rows, _keys(same=True))
        np.testing.assert_array_equal(moved, there)

  @parameterized.named_parameters(*(
    (name, registry.get(name)) for name in (
      'gamma', 'hue', 'translation_x', 'lens', 'vignette', 'contrast',
      'gaussian_noise', 'pixelate', 'occlusion',
    )
  ))
  def test_long_pictures_stay_in_the_unit_range(self, entry):
    shape = (3000, 50, 3)
    function = jax.jit(
      _chain(entry.name, shape[:2]), compiler_options=_HASTY
    )
    rows = np.float32([_generic(entry, share) for share in (0.0, 1.0)])
    image, key = _image(shape), jax.random.key(1)
    result = np.stack([function(image, row, key) for row in rows])
    self.assert_pictures(result, shape)

  @parameterized.named_parameters(*_NAMED)
  def test_catalogue_entry_is_whole(self, entry):
    self.assertIn(entry.family, perturbation_lib.FAMILIES)
    for text in (entry.unit, entry.source, entry.happens, entry.caveats):
      self.assertNotEmpty(text)
    self.assertBetween(len(entry.symptoms), 3, 5)
    for p in entry.parameters:
      self.assertNotEmpty(p.unit)
      self.assertStartsWith(p.name, entry.name)
      self.assertLess(*p.sensible_range)
      self.assertBetween(p.default, *p.sensible_range)
      self.assertBetween(p.sensible_range[0], *p.limits)
      self.assertBetween(p.sensible_range[1], *p.limits)

  @parameterized.parameters(
    ('gausian_blur', 'gaussian_blur'), ('roation', 'rotation'),
    ('lens_k', 'lens_k2'), ('motion_blur_angel', 'motion_blur_angle'),
  )
  def test_unknown_names_suggest_the_nearest(self, name, nearest):
    with self.assertRaisesRegex(KeyError, f"did you mean .*'{nearest}'"):
      registry.parameter(name)
    if nearest in registry.names():
      with self.assertRaisesRegex(KeyError, f"did you mean .*'{nearest}'"):
        registry.get(name)

  @parameterized.named_parameters(
    ('nan', np.float32([[[np.nan]]]), ValueError, 'NaN or infinite'),
    ('infinite', np.float32([[[np.inf]]]), ValueError, 'NaN or infinite'),
    ('rank_2', np.zeros((4, 4), np.float32), ValueError, r'H, W, C.*\(4, 4\)'),
    ('batch', np.zeros((2, 4, 4, 1), np.float32), ValueError, 'H, W, C'),
    ('empty', np.zeros((0, 4, 3), np.float32), ValueError, r'\(0, 4, 3\)'),
    ('integers', np.zeros((4, 4, 3), np.uint8), TypeError, 'uint8; divide'),
  )
  def test_what_is_no_image_is_refused(self, image, error, message):
    for name in ('gamma', 'rotation', 'gaussian_blur'):
      with self.assertRaisesRegex(error, message):
        _chain(name).prepare(image)


if __name__ == '__main__':
  absltest.main()
