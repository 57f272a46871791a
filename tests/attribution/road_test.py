"""Imputation by neighbours and its curves."""

from absl.testing import parameterized
import jax
import numpy as np

from jaxsens.attribution import road
from tests.oracles import linear_scores
from tests.oracles import small_networks


def _dense_imputation(image, missing):
  """Solves for all pixels at once, with a full matrix."""
  height, width = missing.shape
  matrix = np.eye(height * width)
  values = image.reshape(height * width, -1).astype(float)
  for y, x in np.argwhere(missing):
    row = y * width + x
    weights = {}
    for dy in (-1, 0, 1):
      for dx in (-1, 0, 1):
        if (dy or dx) and 0 <= y + dy < height and 0 <= x + dx < width:
          weights[(y + dy) * width + x + dx] = 1 / (6 * (abs(dy) + abs(dx)))
    for column, weight in weights.items():
      matrix[row, column] = -weight / sum(weights.values())
    values[row] = 0
  return np.linalg.solve(matrix, values).reshape(image.shape)


class ImputeTest(parameterized.TestCase):

  def test_linear_ramp_is_restored_exactly(self):
    y, x = np.mgrid[:12.0, :10.0]
    ramp = np.stack([0.1 + 0.02 * y - 0.03 * x, 0.05 * x], -1)
    missing = np.zeros((12, 10), bool)
    missing[1:-1, 1:-1] = np.random.default_rng(0).random((10, 8)) < 0.8
    broken = np.where(missing[..., None], 99, ramp)
    found = road.impute(jax.random.key(0), broken, missing, noise=0)
    np.testing.assert_allclose(found, ramp, atol=1e-13)

  def test_noise_has_the_given_size_and_only_where_missing(self):
    ramp = np.tile(np.linspace(0, 1, 60)[:, None, None], (1, 60, 3))
    missing = np.zeros((60, 60), bool)
    missing[1:-1, 1:-1] = True
    found = road.impute(jax.random.key(0), ramp, missing, noise=0.01) - ramp
    np.testing.assert_array_equal(found[~missing], 0)
    noise = found[missing]
    # Standard error of a standard deviation: σ / sqrt(2 N).
    error = 0.01 / np.sqrt(2 * noise.size)
    self.assertLess(abs(noise.std() - 0.01), 5 * error)

  @parameterized.parameters(0.2, 0.6, 0.95)
  def test_imputation_equals_a_dense_solve_up_to_the_border(self, share):
    rng = np.random.default_rng(1)
    image, missing = rng.random((7, 9, 2)), rng.random((7, 9)) < share
    found = road.impute(jax.random.key(0), image, missing, noise=0)
    np.testing.assert_allclose(
      found, _dense_imputation(image, missing), atol=1e-12
    )

  def test_nothing_to_impute_from_is_refused(self):
    with self.assertRaisesRegex(ValueError, 'all pixels'):
      road.impute(
        jax.random.key(0), np.zeros((2, 2, 1)), np.ones((2, 2), bool)
      )
    with self.assertRaisesRegex(ValueError, r'\(2, 3\)'):
      road.impute(
        jax.random.key(0), np.zeros((2, 2, 1)), np.ones((2, 3), bool)
      )


class RoadTest(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    self.classifier = small_networks.classifier(jax.random.key(0))
    self.images = linear_scores.images(3, 8)
    self.maps = np.random.default_rng(1).normal(size=(3, 8, 8))

  def test_curve_equals_imputed_images(self):
    for sign, order in zip((1, -1), road.ORDERS, strict=True):
      curve = road.road(
        jax.random.key(0), self.classifier, self.images, self.maps, 1,
        quantity='logit', order=order, shares=(0.25, 0.5), noise=0,
      )
      for column, share in enumerate((0, 0.25, 0.5)):
        for b in range(3):
          limit = np.quantile(sign * self.maps[b], 1 - share)
          missing = sign * self.maps[b] > limit
          filled = _dense_imputation(self.images[b], missing)
          expected = self.classifier(filled[None].astype(np.float32))[0, 1]
          np.testing.assert_allclose(
            curve.scores[b, column], expected, rtol=2e-5, atol=1e-6
          )

  def test_curve_does_not_depend_on_the_size_of_chunks(self):
    curves = [
      road.road(
        jax.random.key(4), self.classifier, self.images, self.maps, 0,
        noise=0.1, shares=(0.3, 0.9), chunk_size=size,
      ).scores
      for size in (1, 2, 3)
    ]
    np.testing.assert_allclose(curves[0], curves[1], rtol=1e-5)
    np.testing.assert_allclose(curves[0], curves[2], rtol=1e-5)

  @parameterized.parameters(
    ({'order': 'best'}, 'order'), ({'shares': (0.5, 0.5)}, 'shares'),
    ({'shares': (0.5, 1.0)}, 'shares'), ({'shares': ()}, 'shares'),
    ({'shares': (0.001,)}, '64 pixels'), ({'noise': -1.0}, 'noise'),
  )
  def test_options_out_of_range_are_refused(self, options, name):
    with self.assertRaisesRegex(ValueError, name):
      road.road(
        jax.random.key(0), self.classifier, self.images, self.maps, **options
      )
