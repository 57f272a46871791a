"""RISE against all of its masks enumerated, and its error against the truth."""

import itertools

from absl.testing import parameterized
import jax
import numpy as np
import pytest
from scipy import stats

from jaxsens.attribution import rise
from tests.oracles import small_networks

pytestmark = pytest.mark.usefixtures('quick_compiles')


def _images(size, channels=2, number=2):
  rng = np.random.default_rng(3)
  return rng.uniform(size=(number, *size, channels)).astype(np.float32)


def _enlarged(cells, length):
  """Returns rows of cells at `length` places, linear between centres."""
  centres = np.arange(len(cells)) + 0.5
  places = (np.arange(length) + 0.5) * len(cells) / length
  return np.stack([np.interp(places, centres, c) for c in cells.T], axis=1)


def _every_mask(size, grid):
  """Returns all masks (N, H, W), equally probable where half is kept."""
  cell = [-(-s // g) for s, g in zip(size, grid, strict=True)]
  masks = []
  for bits in itertools.product((0.0, 1.0), repeat=grid[0] * grid[1]):
    tall = _enlarged(np.reshape(bits, grid), (grid[0] + 1) * cell[0])
    large = _enlarged(tall.T, (grid[1] + 1) * cell[1]).T
    for top, left in itertools.product(range(cell[0]), range(cell[1])):
      masks.append(large[top:top + size[0], left:left + size[1]])
  return np.array(masks)


class RiseTest(parameterized.TestCase):

  def test_values_converge_to_the_mean_over_every_mask(self):
    size, grid, targets = (5, 8), (2, 3), np.array([1, 2])
    classifier = small_networks.linear(jax.random.key(0), size=size)
    images = _images(size)
    weights, bias = (np.asarray(p, np.float64) for p in classifier.params)
    masks = _every_mask(size, grid)
    parts = np.einsum('bhwc,hwcb->bhw', images, weights[..., targets])
    masked = np.einsum('nhw,bhw->bn', masks, parts) + bias[targets][:, None]
    expected = np.einsum('bn,nhw->bhw', masked, masks) / masks.sum(0)
    found = rise.rise(
      jax.random.key(7), classifier, images, targets, num_masks=3000,
      grid=grid, chunk_size=1000,
    )
    deviation = (found.values[..., 0] - expected) / found.standard_errors
    self.assertLess(np.abs(deviation).max(), 5)
    # The errors are neither too small nor too large to mean anything.
    self.assertBetween(np.sqrt(np.mean(deviation**2)), 0.3, 2.0)
    spread = np.std(expected, axis=(1, 2))
    self.assertLess(found.standard_errors.max(), 0.25 * spread.min())

  def test_ranks_the_pixels_of_a_linear_model(self):
    size = (8, 8)
    classifier = small_networks.linear(jax.random.key(0), size=size)
    weights = np.asarray(classifier.params[0])
    # One weight per 4x4 block, so that masks of such cells can tell them.
    blocks = np.array([[3.0, -1.0], [0.5, -2.0]])
    weights = np.broadcast_to(
      blocks.repeat(4, 0).repeat(4, 1)[..., None, None], weights.shape
    )
    classifier = classifier.__class__(
      classifier.apply_fn, (weights, np.zeros(3)), classifier.preprocess,
      classifier.class_names, size, 2,
    )
    found = rise.rise(
      jax.random.key(0), classifier, np.ones((1, *size, 2), np.float32), 0,
      num_masks=500, grid=4, chunk_size=100,
    )
    means = found.values[0, ..., 0].reshape(2, 4, 2, 4).mean((1, 3))
    self.assertEqual(stats.spearmanr(means, blocks, axis=None)[0], 1)

  def test_masks_do_not_depend_on_chunks_batches_or_their_number(self):
    classifier = small_networks.classifier(jax.random.key(1))
    images = _images((8, 8), 3)
    options = {'num_masks': 37, 'grid': 3, 'quantity': 'probability'}
    key = jax.random.key(2)
    first = rise.rise(key, classifier, images, [1, 3], **options)
    again = rise.rise(
      key, classifier, images[::-1], [3, 1], chunk_size=5, **options
    )
    np.testing.assert_allclose(first.values, again.values[::-1], rtol=1e-5)
    np.testing.assert_array_equal(first.num_forwards, 39)
    other = rise.rise(
      jax.random.key(3), classifier, images, [1, 3], **options
    )
    self.assertGreater(np.abs(first.values - other.values).max(), 1e-4)

  def test_means_and_errors_are_those_of_the_masks_one_by_one(self):
    make_mask, key = rise._Grid((4, 6), (2, 2), 0.5), jax.random.key(1)
    rows = np.arange(100)
    masks = np.float64(jax.jit(jax.vmap(make_mask, (None, 0)))(key, rows))
    # A level far from zero, and scores that lean on single pixels.
    scores = 50 + np.stack([masks[:, 0, 0] ** 2, np.exp(2 * masks[:, 3, 5])])
    mean, error = rise._means(make_mask, key, rows, scores)
    for b in range(2):
      for p in np.ndindex(4, 6):
        m, f = masks[:, *p], scores[b]
        expected = np.average(f, weights=m)
        np.testing.assert_allclose(mean[b][p], expected, rtol=1e-6)
        off = np.sqrt(np.sum((m * (f - expected)) ** 2)) / m.sum()
        np.testing.assert_allclose(error[b][p], off, rtol=1e-4)

  @parameterized.parameters(0.2, 0.7)
  def test_cells_are_open_as_often_as_asked(self, keep):
    make_mask = rise._Grid((12, 6), (4, 2), keep)
    draw = jax.jit(jax.vmap(make_mask, (None, 0)))
    masks = np.asarray(draw(jax.random.key(1), np.arange(4000)))
    error = np.std(masks, axis=0) / np.sqrt(len(masks))
    deviation = np.abs(np.mean(masks, axis=0) - keep) / error
    self.assertLess(deviation.max(), 5)
    self.assertBetween(np.min(masks), 0, 0.01)
    self.assertBetween(np.max(masks), 0.99, 1)

  @parameterized.parameters(
    ({'num_masks': 1, 'grid': 2}, 'num_masks must be at least 2'),
    ({'num_masks': 9, 'grid': (7, 4)}, r'grid must have .* got \(7, 4\)'),
    ({'num_masks': 9, 'keep': 1.0, 'grid': 2}, r'keep must lie in \(0, 1\)'),
    ({'num_masks': 2, 'keep': 1e-6, 'grid': 2}, 'leave 48 pixels in the dark'),
    ({'num_masks': 9, 'targets': -1, 'grid': 2}, 'targets must be classes'),
  )
  def test_bad_input_is_refused(self, options, message):
    classifier = small_networks.linear(jax.random.key(0))
    with self.assertRaisesRegex(ValueError, message):
      rise.rise(
        jax.random.key(0), classifier, _images((6, 8)), **options
      )
