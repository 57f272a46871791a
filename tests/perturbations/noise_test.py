"""Noise: distributions by SciPy, moments within five standard errors.

A mean of n values of variance v has standard error sqrt(v / n), a variance of
normal values v sqrt(2 / n).
"""

import functools

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from jaxsens.perturbations import noise

_BY_NAME = {p.name: p for p in noise.PERTURBATIONS}
_SMOOTH = [p.name for p in noise.PERTURBATIONS if p.differentiable]
_SIZE = (160, 100, 3)


@functools.cache
def _jitted(name):
  function = _BY_NAME[name].function
  return jax.jit(lambda image, value, key: function(image, value, key=key))


def _noisy(name, image, value, seed=0):
  image = jnp.asarray(image, jnp.float32)
  return np.asarray(_jitted(name)(image, value, jax.random.key(seed)))


def _image(shape=(9, 7, 3), seed=0):
  """Random values, with black and white pixels."""
  image = np.random.default_rng(seed).random(shape).astype(np.float32)
  image[0, 0], image[-1, -1] = 0, 1
  return image


class NoiseTest(parameterized.TestCase):

  @parameterized.product(
    name=list(_BY_NAME), shape=[(9, 7, 3), (8, 5, 1)]
  )
  def test_identity_gives_the_image_and_values_stay_in_range(
    self, name, shape
  ):
    image = _image(shape)
    np.testing.assert_array_equal(_noisy(name, image, 0.0), image)
    heavy = _noisy(name, image, _BY_NAME[name].sensible_range[1])
    self.assertEqual(heavy.dtype, np.float32)
    self.assertBetween(heavy.min(), 0, 1)
    self.assertBetween(heavy.max(), 0, 1)
    if image.size > 3:
      self.assertTrue((heavy != image).any())

  @parameterized.named_parameters(
    ('gaussian_noise', 'gaussian_noise', lambda x, s: s),
    ('speckle_noise', 'speckle_noise', lambda x, s: x * s),
    ('gaussian_shot_noise', 'gaussian_shot_noise', lambda x, s: s * x**0.5),
  )
  def test_normal_noise_has_its_deviation(self, name, deviation):
    level, sigma = 0.4, 0.05
    field = _noisy(name, np.full(_SIZE, level), sigma) - level
    field = field.ravel() / deviation(level, sigma)
    # Not clipped at eight deviations; the quantiles are normal.
    self.assertLess(abs(field.mean()), 5 / field.size**0.5)
    self.assertLess(abs(field.var() - 1), 5 * (2 / field.size) ** 0.5)
    self.assertGreater(stats.kstest(field, 'norm').pvalue, 1e-6)

  @parameterized.parameters(*_SMOOTH)
  def test_one_key_gives_one_field_at_every_strength(self, name):
    image = np.full((6, 5, 3), 0.5)
    weak, strong = (_noisy(name, image, s) - 0.5 for s in (0.01, 0.04))
    np.testing.assert_allclose(strong, 4 * weak, atol=1e-6)
    other = _noisy(name, image, 0.01, seed=1) - 0.5
    self.assertFalse((other == weak).any())

  @parameterized.product(photons=[3, 12, 60, 500], level=[0.05, 0.4])
  def test_shot_noise_has_poisson_frequencies(self, photons, level):
    noisy = _noisy('shot_noise', np.full(_SIZE, level), 1 / photons)
    mean = np.float32(level) * photons
    counts = np.round(noisy.ravel() * photons)
    np.testing.assert_allclose(counts / photons, noisy.ravel(), atol=1e-5)
    values = np.arange(photons)  # The last bin takes what is white and more.
    expected = counts.size * np.append(
      stats.poisson.pmf(values, mean), stats.poisson.sf(photons - 1, mean)
    )
    observed = np.bincount(counts.astype(int), minlength=photons + 1)
    common = expected > 5
    statistic = (
      (observed - expected)[common] ** 2 / expected[common]
    ).sum()
    self.assertGreater(stats.chi2.sf(statistic, common.sum()), 1e-6)

  @parameterized.parameters(
    (0.0, 0), (0.01, 0), (3.0, 1e-5), (9.99, 1e-5), (10.0, 6e-4),
    (25.0, 3e-4), (300.0, 2e-4),
  )
  def test_poisson_quantile_equals_scipy(self, mean, wrong):
    share = (np.arange(2**17) + 0.5) / 2**17
    actual = np.asarray(jax.jit(noise.poisson_quantile)(
      share.astype(np.float32), np.full(share.shape, mean, np.float32)
    ))
    expected = stats.poisson.ppf(share, np.float32(mean))
    self.assertLessEqual((actual != expected).mean(), wrong)
    self.assertLessEqual(abs(actual - expected).max(), 1)

  @parameterized.parameters(1e-7, 0.3)
  def test_poisson_quantile_next_to_one_is_no_outlier(self, mean):
    last = jnp.float32(1 - 2**-24)
    self.assertLess(
      noise.poisson_quantile(last, jnp.float32(mean)), 10
    )

  def test_shot_noise_of_many_photons_is_the_normal_one(self):
    # The same uniform field drives both; a count is rounded to 1 / c.
    image, photons = _image(), 20_000
    np.testing.assert_allclose(
      _noisy('shot_noise', image, 1 / photons),
      _noisy('gaussian_shot_noise', image, photons**-0.5),
      atol=6 / photons,
    )

  @parameterized.parameters(0.03, 0.27, 1.0)
  def test_impulse_noise_hits_its_share_half_black_half_white(self, share):
    noisy = _noisy('impulse_noise', np.full(_SIZE, 0.5), share)
    error = (share / 2 * (1 - share / 2) / noisy.size) ** 0.5
    for level in (0, 1):
      self.assertLess(abs((noisy == level).mean() - share / 2), 5 * error)
    self.assertTrue(np.isin(noisy, (0, 0.5, 1)).all())

  def test_impulse_noise_keeps_what_a_smaller_share_hit(self):
    image = np.full(_SIZE, 0.5)
    few, many = (_noisy('impulse_noise', image, p) for p in (0.1, 0.2))
    np.testing.assert_array_equal(many[few != 0.5], few[few != 0.5])

  def test_colours_are_hit_independently(self):
    noisy = _noisy('impulse_noise', np.full(_SIZE, 0.5), 0.2)
    hit = (noisy != 0.5).reshape(-1, 3)
    both = (hit[:, 0] & hit[:, 1]).mean()
    self.assertLess(abs(both - 0.04), 5 * (0.04 * 0.96 / len(hit)) ** 0.5)


if __name__ == '__main__':
  absltest.main()
