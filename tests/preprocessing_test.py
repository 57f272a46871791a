"""Resizing and cropping against PIL and torchvision."""

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from jaxsens.data import preprocessing
from tests.oracles import torchvision_ops

_FILTERS = {
  'bilinear': PIL.Image.BILINEAR, 'bicubic': PIL.Image.BICUBIC,
}  # fmt: skip


def _image(height, width, seed=0):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize('interpolation', ['bilinear', 'bicubic'])
@pytest.mark.parametrize(
  'shape, size, num_ties',
  [((61, 90), (24, 35), 1e-3), ((20, 31), (45, 31), 0.05), ((9, 9), (9, 5), 0)],
)
def test_resized_image_in_8_bits_equals_that_of_pil(
  interpolation, shape, size, num_ties
):
  image = _image(*shape)
  expected = np.asarray(
    PIL.Image.fromarray(image).resize(size[::-1], _FILTERS[interpolation])
  )
  resized = preprocessing.resize(
    np.float32(image) / 255, size, interpolation=interpolation, levels=255
  )
  levels = np.rint(np.asarray(resized) * 255).astype(int)
  difference = np.abs(levels - expected)
  # Ties are decided by the last digit of float32 and of PIL's integers.
  assert difference.max() <= 1
  assert (difference > 0).mean() <= num_ties


def test_without_levels_only_the_rounding_of_pil_remains():
  image = _image(61, 90)
  floats = np.stack([
    PIL.Image.fromarray(np.float32(channel)).resize((35, 24), 2)
    for channel in image.transpose(2, 0, 1)
  ], -1)  # fmt: skip
  resized = preprocessing.resize(np.float32(image), (24, 35))
  np.testing.assert_allclose(resized, floats, atol=1e-3)


@pytest.mark.parametrize('interpolation', ['bilinear', 'bicubic'])
def test_constant_stays_and_whole_factors_are_means(interpolation):
  constant = jnp.full((7, 11, 1), 0.3)
  resized = preprocessing.resize(constant, (4, 13), interpolation=interpolation)
  np.testing.assert_allclose(resized, 0.3, rtol=1e-6)
  ramp = jnp.arange(24.0)[None, :, None]
  resized = preprocessing.resize(ramp, (1, 8), interpolation=interpolation)
  # A symmetric kernel keeps a ramp away from the borders.
  np.testing.assert_allclose(
    resized[0, 2:-2, 0], np.arange(8)[2:-2] * 3 + 1.0, atol=1e-4
  )


@pytest.mark.parametrize(
  'size',
  [(375, 500), (500, 375), (333, 500), (256, 256), (101, 77), (256, 257)],
)
def test_sizes_and_offsets_are_torchvisions(size):
  torchvision = torchvision_ops.import_torchvision()
  functional = torchvision.transforms.functional
  image = PIL.Image.fromarray(_image(*size))
  expected = functional.resize(image, 64)
  assert preprocessing.short_side_size(size, 64) == expected.size[::-1]
  for side in (41, 40, 64, 90):
    cropped = functional.center_crop(expected, [side, side])
    np.testing.assert_array_equal(
      preprocessing.centre_crop(np.asarray(expected), side),
      np.asarray(cropped),
    )


def test_preset_of_imagenet_equals_torchvisions():
  torchvision = torchvision_ops.import_torchvision()
  from torchvision.transforms import _presets

  image = PIL.Image.fromarray(_image(150, 203))
  preset = _presets.ImageClassification(
    crop_size=56, resize_size=64, mean=(0.0,) * 3, std=(1.0,) * 3
  )
  expected = preset(image).numpy().transpose(1, 2, 0)
  resized = preprocessing.resize_short_side(
    np.float32(image) / 255, 64, levels=255
  )
  actual = preprocessing.centre_crop(resized, 56)
  difference = np.rint(np.abs(np.asarray(actual) - expected) * 255)
  assert difference.max() <= 1 and (difference > 0).mean() < 1e-3
  assert torchvision is not None


def test_resizing_has_gradients_and_compiles():
  image = np.float32(_image(13, 17)) / 255
  function = jax.jit(lambda x: preprocessing.resize_short_side(x, 8))
  np.testing.assert_allclose(
    function(image), preprocessing.resize_short_side(image, 8), atol=1e-6
  )
  gradient = jax.grad(lambda x: function(x).sum())(image)
  # The weights of each pixel of the result sum to one.
  np.testing.assert_allclose(gradient.sum(), 8 * 10 * 3, rtol=1e-4)


def test_bad_arguments_are_named():
  image = jnp.zeros((4, 4, 3))
  with pytest.raises(ValueError, match="got 'nearest'"):
    preprocessing.resize(image, (2, 2), interpolation='nearest')
  with pytest.raises(ValueError, match=r'got shape \(1, 4, 4, 3\)'):
    preprocessing.resize(image[None], (2, 2))
  with pytest.raises(ValueError, match=r'size \(0, 2\)'):
    preprocessing.resize(image, (0, 2))
