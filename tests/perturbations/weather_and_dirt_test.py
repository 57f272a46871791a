"""Weather, dirt and splashes: contract of the family and closed forms."""

import functools

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from jaxsens.perturbations import dirt
from jaxsens.perturbations import perturbation
from jaxsens.perturbations import random_fields
from jaxsens.perturbations import splashes
from jaxsens.perturbations import weather

_ALL = (
  weather.PERTURBATIONS + dirt.PERTURBATIONS + splashes.PERTURBATIONS
)
_BY_NAME = [(p.name, p) for p in _ALL]
# With this key some of every disturbance falls into a picture of 31 by 34.
_KEY = jax.random.key(12)


def _image(height=17, width=20, channels=3):
  draws = np.random.default_rng(0).random((height, width, channels))
  # A black and a white pixel, where clipping would show.
  draws[0, 0], draws[0, 1] = 0, 1
  return draws


def _apply(entry):
  """Returns f(image, values (P,), key)."""
  def apply(image, values, key):
    keywords = {'key': key} if entry.random else {}
    return entry.function(image, *values, **keywords)

  return apply


@functools.cache
def _compiled(entry):
  return jax.jit(_apply(entry))


def _generic(entry, share=0.37):
  """A value inside the sensible range of every parameter."""
  return np.array([
    low + share * (high - low)
    for low, high in (p.sensible_range for p in entry.parameters)
  ])


class FamilyTest(parameterized.TestCase):

  def test_every_entry_has_its_page(self):
    for entry in _ALL:
      self.assertEqual(entry.family, 'weather and dirt')
      self.assertIn(entry.family, perturbation.FAMILIES)
      self.assertBetween(len(entry.symptoms), 3, 5)
      self.assertTrue(entry.happens and entry.caveats and entry.source)
      for p in entry.others:
        self.assertStartsWith(p.name, entry.name + '_')

  @parameterized.named_parameters(_BY_NAME)
  def test_gray_images_stay_at_the_identity_and_long_ones_pass(self, entry):
    values = jnp.asarray(_generic(entry), jnp.float32)
    image = _image(5, 4, 1).astype(np.float32)
    actual = _compiled(entry)(image, values.at[0].set(entry.identity), _KEY)
    np.testing.assert_array_equal(actual, image)
    long = jax.ShapeDtypeStruct((3000, 50, 1), jnp.float32)
    result = jax.eval_shape(_apply(entry), long, values, _KEY)
    self.assertEqual(result.shape, long.shape)

  @parameterized.named_parameters(
    (n, p) for n, p in _BY_NAME if p.kind == 'spatial'
  )
  def test_image_of_wrong_rank_raises(self, entry):
    keywords = {'key': _KEY} if entry.random else {}
    with self.assertRaisesRegex(ValueError, r'\(4, 4\)'):
      entry.function(np.zeros((4, 4), np.float32), 0.5, **keywords)


class ClosedFormsTest(parameterized.TestCase):

  def test_haze_follows_beer_lambert_along_the_depth(self):
    image = _image().astype(np.float32)
    depth = np.linspace(0, 2, 17 * 20).reshape(17, 20)
    transmission = np.exp(-0.7 * depth)[..., None]
    expected = image * transmission + 0.8 * (1 - transmission)
    actual = weather.haze(image, 0.7, 0.8, depth=depth)
    np.testing.assert_allclose(actual, expected, atol=1e-6)
    np.testing.assert_allclose(
      weather.haze(image, 0.7, 0.8),
      weather.haze(image, 0.7, 0.8, depth=np.ones((17, 20))), atol=1e-6,
    )

  def test_haze_with_a_depth_of_another_shape_raises(self):
    with self.assertRaisesRegex(ValueError, r'\(17, 20\).*\(4, 4\)'):
      weather.haze(_image(), 0.7, depth=np.ones((4, 4)))

  def test_fog_without_patches_is_haze(self):
    image = _image().astype(np.float32)
    values = jnp.asarray([1.3, 0.8, 0.0], jnp.float32)
    entry = next(p for p in _ALL if p.name == 'fog')
    actual = _compiled(entry)(image, values, _KEY)
    np.testing.assert_allclose(actual, weather.haze(image, 1.3, 0.8), atol=1e-6)

  @parameterized.parameters((0.3, 0.5, 0.5), (0.43, 0.2, 0.9))
  def test_occlusion_covers_the_area_of_its_square(self, share, x, y):
    image = np.ones((30, 40, 1), np.float32)
    side = share * 40
    area = (
      (min(40, x * 40 + side / 2) - max(0, x * 40 - side / 2))
      * (min(30, y * 30 + side / 2) - max(0, y * 30 - side / 2))
    )
    covered = (1 - jax.jit(dirt.occlusion)(image, share, x, y, 0.0)).sum()
    np.testing.assert_allclose(covered, area, rtol=1e-5)

  def test_smudge_blurs_as_a_gaussian_away_from_borders(self):
    # Where the mask is 1 the result is 0.75 blur + 0.2; too few pixels for
    # ridges. 0.03 of 60 pixels is a deviation of 1.8, so the coarse grid is
    # the fine one.
    image = np.random.default_rng(1).random((60, 60, 1)).astype(np.float32)
    actual = jax.jit(dirt.smudge)(image, 1.0, 0.5, 0.5, 0.75)
    actual = actual[27:33, 27:33, 0]
    blurred = ndimage.gaussian_filter(image[..., 0], 1.8, truncate=8)
    np.testing.assert_allclose(
      actual, 0.75 * blurred[27:33, 27:33] + 0.2, atol=1e-4
    )

  def test_smudge_leaves_what_lies_outside_the_print(self):
    image = _image(64, 64).astype(np.float32)
    actual = np.asarray(jax.jit(dirt.smudge)(image, 1.0, 0.25, 0.25, 0.4))
    np.testing.assert_array_equal(actual[40:], image[40:])
    self.assertGreater(np.abs(actual - image)[10:20, 10:20].mean(), 0.1)

  def test_scratches_darken_in_proportion_to_a_width_below_a_pixel(self):
    # The lines of this picture do not cross within it often; the covered
    # share is linear in the width up to the products at crossings.
    image = np.zeros((64, 64, 1), np.float32)
    scratches = jax.jit(dirt.scratches)
    thin, wide = (
      scratches(image, 1.0, w, 1.0, key=_KEY).sum() for w in (0.05, 0.1)
    )
    self.assertGreater(thin, 0.5)
    np.testing.assert_allclose(wide, 2 * thin, rtol=0.02)

  def test_dust_takes_light_in_proportion_on_a_single_speck(self):
    # With specks far smaller than their distances no two overlap, and the
    # loss is linear in the opacity.
    image, dust = np.ones((200, 200, 1), np.float32), jax.jit(dirt.dust)
    light, dark = (
      1 - dust(image, o, 1.5, 0.2, key=_KEY) for o in (0.3, 0.6)
    )
    self.assertGreater(light.sum(), 1)
    np.testing.assert_allclose(dark.sum(), 2 * light.sum(), rtol=0.02)

  @parameterized.parameters((3.0, 0.8), (9.0, 0.0), (0.5, 3.0))
  def test_dust_is_a_product_over_ellipses(self, radius, softness):
    height, width = 40, 52
    image, opacity = _image(height, width), 0.6
    draws = np.asarray(random_fields.uniform(_KEY, (6, 24), np.float32), float)
    rows, columns = np.mgrid[:height, :width] + 0.5
    transmission = 1.0
    for x, y, size, turn, stretch, dark in draws.T:
      x, y = columns - x * width, rows - y * height
      cos, sin = np.cos(2 * np.pi * turn), np.sin(2 * np.pi * turn)
      u, v, stretch = x * cos + y * sin, y * cos - x * sin, 1 + 0.8 * stretch
      radii = radius * (0.4 + 1.2 * size)
      squares = (u * u * stretch + v * v / stretch) / radii**2
      border = np.sqrt(softness**2 + radii**-2)
      t = np.clip(0.5 + (1 - squares) / (2 * border), 0, 1)
      mask = t * t * (3 - 2 * t)
      transmission = transmission * (1 - opacity * (0.4 + 0.6 * dark) * mask)
    expected = image * transmission[..., None]
    self.assertGreater(np.abs(image - expected).max(), 0.1)
    actual = jax.jit(dirt.dust)(
      np.float32(image), opacity, radius, softness, key=_KEY
    )
    np.testing.assert_allclose(actual, expected, atol=5e-6)

  def test_mud_covers_its_share_on_average(self):
    # E smoothstep((share - v) / w) = share - w / 2 for v uniform and share
    # above w = 0.03.
    image = np.ones((24, 24, 1), np.float32)
    luma = (0.299 * 63 + 0.587 * 42 + 0.114 * 20) / 255
    draw = jax.vmap(
      lambda key: splashes.spatter(image, 0.3, 1.0, 1.0, key=key)
    )
    results = np.asarray(jax.jit(draw)(jax.random.split(_KEY, 400)))
    covered = (1 - results).mean((1, 2, 3)) / (1 - luma)
    error = covered.std() / np.sqrt(len(covered))
    self.assertLess(abs(covered.mean() - 0.285), 5 * error)
    self.assertLess(error, 0.01)

  def test_displaced_equals_mirrored_linear_interpolation(self):
    image = _image(11, 14)
    rng = np.random.default_rng(3)
    x, y = 30 * (rng.random((2, 11, 14)) - 0.5)
    i, j = np.indices((11, 14))
    expected = np.stack([
      ndimage.map_coordinates(image[..., c], [i + y, j + x], order=1,
                              mode='mirror')
      for c in range(3)
    ], -1)
    actual = splashes._displaced(
      jnp.asarray(image, jnp.float32), jnp.asarray(x, jnp.float32),
      jnp.asarray(y, jnp.float32),
    )
    np.testing.assert_allclose(actual, expected, atol=2e-5)

  def test_rain_falls_along_its_angle(self):
    image = np.zeros((64, 64, 1), np.float32)
    falls = jax.jit(
      lambda angle: weather.rain(image, 1.0, angle, 15.0, key=_KEY)[..., 0]
    )
    down, across = falls(-90.0), falls(0.0)
    for picture, axis in ((down, 0), (across, 1)):
      along, sideways = (
        np.abs(np.diff(picture, axis=a)).mean() for a in (axis, 1 - axis)
      )
      self.assertGreater(sideways, 3 * along)
    # At -45 degrees a streak goes down to the right.
    slanted = np.asarray(falls(-45.0))
    right = np.abs(slanted[1:, 1:] - slanted[:-1, :-1]).mean()
    left = np.abs(slanted[1:, :-1] - slanted[:-1, 1:]).mean()
    self.assertGreater(left, 3 * right)

  def test_snow_whitens_more_and_more(self):
    image = np.full((32, 32, 1), 0.3, np.float32)
    pictures = jax.jit(jax.vmap(
      lambda amount: weather.snow(image, amount, key=_KEY)
    ))(jnp.linspace(0, 1, 11))
    self.assertTrue((np.diff(pictures, axis=0) > -1e-5).all())
    self.assertGreater(pictures[-1].mean(), 0.45)


if __name__ == '__main__':
  absltest.main()
