"""LIME against additive scores and scikit-learn, and segments."""

import dataclasses

from absl.testing import parameterized
import jax
import numpy as np
import pytest
from sklearn import linear_model

from jaxsens.attribution import lime
from jaxsens.attribution import masking
from tests.oracles import small_networks

pytestmark = pytest.mark.usefixtures('quick_compiles')


def _images(size=(6, 8), channels=2, number=2):
  rng = np.random.default_rng(3)
  return rng.uniform(size=(number, *size, channels)).astype(np.float32)


class LimeTest(parameterized.TestCase):

  @parameterized.parameters(
    ((2, 4),), (np.arange(48).reshape(6, 8) * 7 % 5,)
  )
  def test_coefficients_of_an_additive_score_are_exact(self, segments):
    classifier = small_networks.linear(jax.random.key(0))
    images, targets = _images(), np.array([1, 2])
    found = lime.lime(
      jax.random.key(1), classifier, images, targets, num_samples=60,
      segments=segments, ridge=0.0, baselines=0.3,
    )
    weights = np.asarray(classifier.params[0], np.float64)
    parts = np.einsum('bhwc,hwcb->bhw', images - 0.3, weights[..., targets])
    number = found.segments.max() + 1
    expected = np.stack([
      parts[:, found.segments == s].sum(1) for s in range(number)
    ], axis=1)  # fmt: skip
    np.testing.assert_allclose(found.coefficients, expected, atol=2e-5)
    np.testing.assert_allclose(found.r2, 1, atol=1e-6)
    np.testing.assert_allclose(
      found.intercepts, found.baseline_scores, atol=2e-5
    )
    np.testing.assert_allclose(
      found.values[:, 4, 5, 0], expected[:, found.segments[4, 5]], atol=2e-5
    )
    np.testing.assert_array_equal(found.num_forwards, 62)

  def test_fit_is_that_of_scikit_learn(self):
    rng = np.random.default_rng(0)
    kept = rng.uniform(size=(50, 6)) < 0.5
    scores = rng.normal(size=(50, 2))
    coefficients, intercepts, r2 = lime._fit(kept, scores, 0.4, 0.7)
    # The cosine distance of a vector of m ones among S from all ones.
    distance = 1 - np.sqrt(kept.sum(1) / 6)
    weights = np.exp(-(distance**2) / 0.4**2)
    weights /= weights.max()
    for b in range(2):
      peer = linear_model.Ridge(0.7).fit(kept, scores[:, b], weights)
      np.testing.assert_allclose(coefficients[b], peer.coef_, rtol=1e-9)
      np.testing.assert_allclose(intercepts[b], peer.intercept_, rtol=1e-9)
      expected = peer.score(kept, scores[:, b], weights)
      np.testing.assert_allclose(r2[b], expected, rtol=1e-9)

  def test_r2_tells_what_no_linear_model_has(self):
    classifier = small_networks.classifier(jax.random.key(1))
    images = _images((8, 8), 3)
    found = lime.lime(
      jax.random.key(1), classifier, images, 0, num_samples=100,
      segments=(2, 2), ridge=0.0,
    )
    self.assertTrue(np.all((found.r2 > 0.1) & (found.r2 < 0.9999)))
    still = dataclasses.replace(
      classifier, params=jax.tree.map(np.zeros_like, classifier.params)
    )
    found = lime.lime(
      jax.random.key(1), still, images, 0, num_samples=9, segments=(2, 2)
    )
    self.assertTrue(np.all(np.isnan(found.r2)))
    np.testing.assert_array_equal(found.values, 0)

  def test_result_does_not_depend_on_chunks_or_the_order_of_images(self):
    classifier = small_networks.classifier(jax.random.key(1))
    images, key = _images((8, 8), 3), jax.random.key(5)
    first = lime.lime(key, classifier, images, [0, 1], num_samples=30)
    again = lime.lime(
      key, classifier, images[::-1], [1, 0], num_samples=30, chunk_size=7
    )
    np.testing.assert_allclose(
      first.values, again.values[::-1], rtol=1e-4, atol=1e-6
    )

  @parameterized.parameters(
    ({'num_samples': 3, 'ridge': 0.0, 'segments': (2, 3)},
     '3 samples do not tell 6 segments apart'),
    ({'num_samples': 0}, 'num_samples must be at least 1'),
    ({'ridge': -1.0}, 'ridge must not be negative'),
    ({'kernel_width': 0.0}, 'kernel_width must be positive'),
    ({'segments': (7, 2)}, 'at most one block per pixel'),
    ({'segments': np.zeros((8, 6), int)}, r'shape \(6, 8\)'),
    ({'segments': np.ones((6, 8), int)}, 'numbered from 0 without a gap'),
    ({'segments': (2.0, 3.0)}, 'rows, columns'),
  )  # fmt: skip
  def test_bad_input_is_refused(self, options, message):
    options = {'num_samples': 20, 'segments': (2, 2)} | options
    with self.assertRaisesRegex(ValueError, message):
      lime.lime(
        jax.random.key(0), small_networks.linear(jax.random.key(0)), _images(),
        **options,
      )

  def test_blocks_of_a_grid_differ_by_one_pixel_at_most(self):
    found = masking.as_segments((7, 10), (3, 4))
    np.testing.assert_array_equal(found[:, 0] // 4, [0, 0, 0, 1, 1, 2, 2])
    np.testing.assert_array_equal(
      found[0], [0, 0, 0, 1, 1, 2, 2, 2, 3, 3]
    )
