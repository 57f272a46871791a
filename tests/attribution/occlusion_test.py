"""Occlusion against a linear model and captum, and what it refuses."""

from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsens import classifiers
from jaxsens.attribution import occlusion
from tests.oracles import small_networks

pytestmark = pytest.mark.usefixtures('quick_compiles')

_TARGETS = np.array([2, 0, 1])


def _images(size=(6, 8), channels=2, number=3):
  rng = np.random.default_rng(3)
  return rng.uniform(size=(number, *size, channels)).astype(np.float32)


def _linear():
  return small_networks.linear(jax.random.key(0))


def _parts(images, baselines=0.0):
  """Returns what each pixel adds to the score of the target, (B, H, W)."""
  weights = np.asarray(_linear().params[0], np.float64)
  return np.einsum(
    'bhwc,hwcb->bhw', np.float64(images - baselines), weights[..., _TARGETS]
  )


class OcclusionTest(parameterized.TestCase):

  def test_drops_of_a_linear_model_are_sums_over_the_window(self):
    images = _images()
    found = occlusion.occlusion(
      _linear(), images, _TARGETS, window=(2, 4), baselines=0.25
    )
    expected = _parts(images, 0.25).reshape(3, 3, 2, 2, 4).sum((2, 4))
    np.testing.assert_allclose(found.drops, expected, atol=2e-5)
    np.testing.assert_allclose(
      found.values[..., 0], expected.repeat(2, 1).repeat(4, 2), atol=2e-5
    )
    np.testing.assert_allclose(found.baseline_scores, [
      _linear()(jnp.full((1, 6, 8, 2), 0.25))[0, k] for k in _TARGETS
    ], rtol=1e-5)  # fmt: skip

  def test_single_pixels_are_complete_for_a_linear_model(self):
    found = occlusion.occlusion(_linear(), _images(), _TARGETS, window=1)
    np.testing.assert_allclose(found.completeness_error, 0, atol=1e-4)
    np.testing.assert_array_equal(found.num_forwards, 48 + 2)
    np.testing.assert_array_equal(found.num_gradients, 0)

  def test_overlapping_windows_cut_at_the_border_are_averaged(self):
    images = _images()
    found = occlusion.occlusion(
      _linear(), images, _TARGETS, window=(4, 3), stride=(3, 2)
    )
    np.testing.assert_array_equal(found.tops, [0, 3])
    np.testing.assert_array_equal(found.lefts, [0, 2, 4, 6])
    parts = _parts(images)
    # The last window is two columns wide: it ends with the image.
    np.testing.assert_allclose(
      found.drops[:, 1, 3], parts[:, 3:6, 6:8].sum((1, 2)), atol=2e-5
    )
    # Pixel (3, 6) lies in both rows of windows and in the last two columns.
    four = found.drops[:, :, 2:4].mean((1, 2))
    np.testing.assert_allclose(found.values[:, 3, 6, 0], four, atol=1e-5)

  def test_mask_of_one_is_the_image_itself_exactly(self):
    classifier = classifiers.Classifier(
      apply_fn=_corner, params=None, preprocess=classifiers.identity,
      class_names=('corner',), image_size=(6, 8), channels=2,
    )
    found = occlusion.occlusion(
      classifier, _images(), 0, window=(3, 4), baselines=0.1
    )
    np.testing.assert_array_equal(found.drops.reshape(3, -1)[:, :3], 0)

  @parameterized.parameters(1, 5, 100)
  def test_result_does_not_depend_on_the_chunk_size(self, chunk_size):
    classifier = small_networks.classifier(jax.random.key(1))
    images = _images((8, 8), 3)
    first, second = (
      occlusion.occlusion(
        classifier, images, _TARGETS, window=3, stride=2, chunk_size=size
      ).values
      for size in (8, chunk_size)
    )
    np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-6)

  def test_agrees_with_captum(self):
    attr = pytest.importorskip('captum.attr', reason='captum is the oracle')
    import torch

    classifier = small_networks.classifier(jax.random.key(1))
    images = _images((8, 8), 3)
    answer = jax.jit(lambda x: classifier(x))

    def forward(x):
      return torch.from_numpy(
        np.array(answer(x.numpy().transpose(0, 2, 3, 1)))
      )

    expected = attr.Occlusion(forward).attribute(
      torch.from_numpy(images.transpose(0, 3, 1, 2)), (3, 4, 3),
      strides=(3, 3, 2), target=torch.from_numpy(_TARGETS), baselines=0.5,
    )
    found = occlusion.occlusion(
      classifier, images, _TARGETS, window=(4, 3), stride=(3, 2), baselines=0.5
    )
    expected = expected.numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(
      np.broadcast_to(found.values, expected.shape), expected,
      atol=1e-4 * np.abs(expected).max(),
    )

  @parameterized.parameters(
    ({'window': (7, 2)}, r'window must be .* \(6, 8\) pixels, got \(7, 2\)'),
    ({'window': 0}, 'window must be at least 1'),
    ({'window': 1.5}, 'window must be a whole number'),
    ({'window': 2, 'stride': 3}, 'stride must be at least 1 and at most'),
    ({'window': 2, 'targets': 3}, 'targets must be classes from 0 to 2'),
    ({'window': 2, 'baselines': np.zeros(2)}, 'baselines must be'),
    ({'window': 2, 'quantity': 'logits'}, 'one number per image'),
  )
  def test_bad_input_is_refused(self, options, message):
    with self.assertRaisesRegex(ValueError, message):
      occlusion.occlusion(_linear(), _images(), **options)


def _corner(params, images):
  del params
  return images[:, -1:, -1, 0] * 1.1
