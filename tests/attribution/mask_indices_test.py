"""Sobol indices of masks against closed forms."""

import dataclasses

from absl.testing import parameterized
import jax
import numpy as np
import pytest

from jaxsens.attribution import mask_indices
from tests.oracles import small_networks

pytestmark = pytest.mark.usefixtures('quick_compiles')


def _images(size=(6, 8), channels=2, number=2):
  rng = np.random.default_rng(3)
  return rng.uniform(size=(number, *size, channels)).astype(np.float32)


def _spread(indices):
  """Returns the standard errors of the total indices."""
  return (indices.total_upper - indices.total_lower) / (2 * 1.96)


def _product(params, images):
  """Returns the product of the means of the two halves, (B, 1)."""
  del params
  left, right = images[:, :, :4].mean((1, 2, 3)), images[:, :, 4:]
  return (left * right.mean((1, 2, 3)))[:, None]


class MaskIndicesTest(parameterized.TestCase):

  def test_total_indices_of_an_additive_score_are_shares_of_its_variance(self):
    classifier = small_networks.linear(jax.random.key(0))
    images, targets = _images(), np.array([1, 2])
    found = mask_indices.mask_indices(
      jax.random.key(1), classifier, images, targets, num_base=512,
      segments=(2, 3), baselines=0.2, chunk_size=512,
    )
    weights = np.asarray(classifier.params[0], np.float64)
    parts = np.einsum('bhwc,hwcb->bhw', images - 0.2, weights[..., targets])
    sums = np.stack([
      parts[:, found.segments == s].sum(1) for s in range(6)
    ])  # fmt: skip
    # Each block has variance sum² / 12, and no interaction.
    expected = sums**2 / np.sum(sums**2, axis=0)
    error = np.abs(found.indices.total - expected)
    self.assertTrue(np.all(error < 5 * _spread(found.indices)))
    self.assertLess(error.max(), 0.05)
    np.testing.assert_allclose(
      found.indices.variance, np.sum(sums**2, axis=0) / 12, rtol=0.1
    )
    np.testing.assert_allclose(
      found.values[:, 5, 7, 0], found.indices.total[5], rtol=1e-6
    )
    np.testing.assert_array_equal(found.num_forwards, 512 * 8 + 2)

  def test_interaction_is_in_the_total_index_of_both_blocks(self):
    classifier = dataclasses.replace(
      small_networks.linear(jax.random.key(0)), apply_fn=_product,
      class_names=('product',),
    )
    found = mask_indices.mask_indices(
      jax.random.key(1), classifier, np.ones((1, 6, 8, 2), np.float32), 0,
      num_base=1024, segments=(1, 2), chunk_size=512,
    )
    # Var(uv) = 7/144, the share of E[Var(uv | v)] = 1/36 is 4/7; that of the
    # main effect 3/7.
    for values, expected in (
      (found.indices.total, 4 / 7), (found.indices.first_order, 3 / 7)
    ):
      np.testing.assert_allclose(values, expected, atol=0.05)

  def test_constant_score_has_no_indices_and_says_so(self):
    classifier = small_networks.linear(jax.random.key(0))
    weights, bias = classifier.params
    found = mask_indices.mask_indices(
      jax.random.key(1), dataclasses.replace(
        classifier, params=(weights.at[..., 1].set(0), bias)
      ), _images(), np.array([1, 2]), num_base=8, segments=(2, 2),
    )
    self.assertIsNotNone(found.indices.reasons[0])
    self.assertIsNone(found.indices.reasons[1])
    self.assertTrue(np.all(np.isnan(found.indices.total[:, 0])))
    np.testing.assert_array_equal(found.values[0], 0)

  def test_result_does_not_depend_on_chunks_or_the_order_of_images(self):
    classifier = small_networks.classifier(jax.random.key(1))
    images, key = _images((8, 8), 3), jax.random.key(5)
    options = {'num_base': 8, 'segments': (2, 2), 'num_resamples': 20}
    first = mask_indices.mask_indices(
      key, classifier, images, [0, 1], **options
    )
    again = mask_indices.mask_indices(
      key, classifier, images[::-1], [1, 0], chunk_size=5, **options
    )
    np.testing.assert_allclose(first.values, again.values[::-1], atol=1e-4)
    self.assertEqual(first.indices.intervals, 'bootstrap')
    np.testing.assert_allclose(
      first.indices.total_lower, again.indices.total_lower[:, ::-1], atol=1e-4
    )

  @parameterized.parameters(
    ({'num_base': 1}, 'num_base: expected at least 2'),
    ({'level': 1.0}, 'level: expected a number in'),
    ({'segments': (2, 9)}, 'at most one block per pixel'),
    ({'targets': 9}, 'targets must be classes from 0 to 2'),
  )
  def test_bad_input_is_refused(self, options, message):
    options = {'num_base': 4, 'segments': (2, 2)} | options
    with self.assertRaisesRegex(ValueError, message):
      mask_indices.mask_indices(
        jax.random.key(0), small_networks.linear(jax.random.key(0)), _images(),
        **options,
      )
