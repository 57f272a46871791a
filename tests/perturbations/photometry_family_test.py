"""What all perturbations of light and colour have in common."""

from absl.testing import absltest
from absl.testing import parameterized
import jax
import numpy as np

from jaxsens.perturbations import colour
from jaxsens.perturbations import illumination
from jaxsens.perturbations import photometry

_ALL = (
  photometry.PERTURBATIONS + colour.PERTURBATIONS + illumination.PERTURBATIONS
)
_SMOOTH = tuple(p for p in _ALL if p.differentiable)
_STEPPED = tuple(p for p in _ALL if not p.differentiable)


def _named(perturbations):
  return parameterized.named_parameters(*((p.name, p) for p in perturbations))


def _image(shape, seed=0, dtype=np.float32):
  return np.random.default_rng(seed).random(shape).astype(dtype)


def _others(perturbation, share):
  """Values at a share of the sensible ranges of the other parameters."""
  return [
    p.sensible_range[0] + share * (p.sensible_range[1] - p.sensible_range[0])
    for p in perturbation.others
  ]


class PhotometryFamilyTest(parameterized.TestCase):

  @_named(_ALL)
  def test_identity_gives_the_image_back_exactly(self, perturbation):
    function = jax.jit(perturbation.function)
    for channels in (1, 3):
      # Values of 8-bit images, black and white among them, and others.
      levels = np.arange(256).reshape(16, 16, 1).repeat(channels, 2) / 255
      levels = np.random.default_rng(1).permuted(levels, axis=0)
      both = np.concatenate([levels, _image((5, 16, channels), 0, np.float64)])
      image = both.astype(np.float32)
      for share in (0.0, 0.6, 1.0):
        others = _others(perturbation, share)
        result = function(image, perturbation.identity, *others)
        self.assertEqual(result.dtype, np.float32)
        np.testing.assert_array_equal(result, image)

  @_named(_ALL)
  def test_image_stays_in_the_unit_range_at_every_size(self, perturbation):
    values = np.linspace(*perturbation.sensible_range, 5, dtype=np.float32)
    others = np.array(_others(perturbation, 0.8), np.float32)
    function = jax.jit(jax.vmap(
      lambda image, value: perturbation.function(image, value, *others),
      in_axes=(None, 0),
    ))
    for shape in ((33, 7, 1), (3000, 50, 3)):
      result = function(_image(shape), values)
      self.assertEqual(result.shape, (5, *shape))
      self.assertEqual(result.dtype, np.float32)
      self.assertBetween(float(result.min()), 0, 1)
      self.assertBetween(float(result.max()), 0, 1)

  @_named(_STEPPED)
  def test_stepped_ones_are_constant_between_steps(self, perturbation):
    image = np.arange(256, dtype=np.float32).reshape(16, 16, 1) / 255
    value = np.mean(perturbation.sensible_range) + 0.0123
    near = [perturbation.function(image, value + h) for h in (-1e-4, 0, 1e-4)]
    np.testing.assert_array_equal(near[0], near[1])
    np.testing.assert_array_equal(near[2], near[1])
    self.assertFalse(np.array_equal(near[1], image))

  @_named([p for p in _ALL if p.kind == 'pointwise'])
  def test_pointwise_ones_do_not_see_where_a_pixel_lies(self, perturbation):
    pixels = _image((12, 3))
    value = np.float32(0.7 * perturbation.sensible_range[0]
                       + 0.3 * perturbation.sensible_range[1])
    order = np.random.default_rng(2).permutation(12)
    function = jax.jit(perturbation.function)
    result = function(pixels, value)
    moved = function(pixels[order].reshape(2, 6, 3), value).reshape(12, 3)
    np.testing.assert_allclose(moved, result[order], atol=1e-6)

  @_named(_ALL)
  def test_catalogue_entry_is_whole(self, perturbation):
    self.assertEqual(perturbation.family, 'photometry')
    for text in (
      perturbation.unit, perturbation.source, perturbation.happens,
      perturbation.caveats,
    ):
      self.assertNotEmpty(text)
    self.assertBetween(len(perturbation.symptoms), 3, 5)
    for p in perturbation.parameters:
      inside = (*p.sensible_range, p.default)
      self.assertGreaterEqual(min(inside), p.limits[0], p.name)
      self.assertLessEqual(max(inside), p.limits[1], p.name)
      self.assertTrue(p.name.startswith(perturbation.name))

  def test_names_of_parameters_are_unique(self):
    names = [p.name for entry in _ALL for p in entry.parameters]
    self.assertLen(set(names), len(names))


if __name__ == '__main__':
  absltest.main()
