"""What a registered perturbation promises in float64: exactness and slopes.

`registry_test` asks the rest of everyone in float32. Those that move pixels
are in `geometry_family_test`.
"""

import functools

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from jaxsens.perturbations import registry

_ALL = tuple(
  (name, registry.get(name)) for name in registry.names()
  if registry.get(name).kind != 'geometric'
)
_SMOOTH = tuple((name, p) for name, p in _ALL if p.differentiable)
_SIZE = (31, 34)
# With this key some of every disturbance falls into the picture.
_KEY = jax.random.key(12)


def _image():
  """(31, 34, 3), away from black and white: no difference meets a clip."""
  return 0.3 + 0.4 * np.random.default_rng(0).random((*_SIZE, 3))


def _image_of_special_pixels():
  """The same with black, white, neutral, pure and tied colours."""
  image = _image()
  image[0], image[1], image[2] = 0, 1, 0.5
  image[3, :, 1] = image[3, :, 0]
  image[4, :3], image[5, :3] = np.eye(3), 1 - np.eye(3)
  return image


def _values(entry, share):
  return np.array([
    p.sensible_range[0] + share * np.subtract(*p.sensible_range[::-1])
    for p in entry.parameters
  ])


@functools.cache
def _compiled(entry):
  """Returns f(values (P,), image): ((mean, image), slopes by both).

  Of weather and dirt by the values alone, in forward mode: of their many
  specks it compiles in a third of the time.
  """
  weights = np.random.default_rng(1).random((*_SIZE, 3))
  keywords = {'key': _KEY} if entry.random else {}

  def weighted_mean(values, image):
    result = entry.function(image, *values, **keywords)
    return jnp.mean(weights * result), result

  if entry.family != 'weather and dirt':
    return jax.jit(jax.value_and_grad(weighted_mean, (0, 1), has_aux=True))

  along = jax.jit(lambda values, image, direction: jax.jvp(
    lambda values: weighted_mean(values, image), (values,), (direction,)
  ))

  def forward(values, image):
    both = [along(values, image, d) for d in np.eye(len(values))]
    return both[0][0], (np.array([slope for _, (slope, _) in both]), None)

  return forward


class DerivativesTest(parameterized.TestCase):

  @parameterized.named_parameters(*_ALL)
  def test_identity_is_exact_and_has_finite_slopes_in_float64(self, entry):
    image = _image_of_special_pixels()
    with jax.enable_x64(True):
      for share in (0.0, 0.6, 1.0):
        values = _values(entry, share)
        values[0] = entry.identity
        (_, result), slopes = _compiled(entry)(values, image)
        self.assertEqual(result.dtype, np.float64)
        np.testing.assert_array_equal(result, image)
        for slope in jax.tree.leaves(slopes):
          self.assertTrue(np.isfinite(slope).all())

  @parameterized.named_parameters(*_SMOOTH)
  def test_slopes_equal_central_differences(self, entry):
    image = _image()
    along = np.random.default_rng(2).standard_normal(image.shape)
    spans = _values(entry, 1.0) - _values(entry, 0.0)
    # So small that hardly a sample passes a kink of the interpolation.
    step, largest = 1e-7, 0
    with jax.enable_x64(True):
      mean = lambda values, image: _compiled(entry)(values, image)[0][0]
      for share in (0.37, 0.71):
        values = _values(entry, share)
        _, (by_value, by_pixel) = _compiled(entry)(values, image)
        for i, move in enumerate(np.diag(step * spans)):
          if not entry.parameters[i].differentiable:
            continue
          expected = mean(values + move, image) - mean(values - move, image)
          expected = expected / (2 * step)
          np.testing.assert_allclose(
            by_value[i] * spans[i], expected, rtol=1e-4, atol=5e-9,
            err_msg=entry.parameters[i].name,
          )
          largest = np.maximum(largest, abs(expected) * (move != 0))
        if by_pixel is None:
          continue
        expected = (
          mean(values, image + step * along)
          - mean(values, image - step * along)
        ) / (2 * step)
        np.testing.assert_allclose(
          np.sum(by_pixel * along), expected, rtol=1e-4, atol=1e-8
        )
    for slope, parameter in zip(largest, entry.parameters, strict=True):
      self.assertEqual(slope > 1e-5, parameter.differentiable, parameter.name)


if __name__ == '__main__':
  absltest.main()
