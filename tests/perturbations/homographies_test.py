"""Homographies within the plane against torchvision and closed forms."""

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsens.perturbations import geometry
from jaxsens.perturbations import homographies
from tests.oracles import torchvision_ops

_transform = jax.jit(geometry.transform, static_argnames=('method', 'fill'))


def _image(height, width, seed=0):
  rng = np.random.default_rng(seed)
  return rng.random((height, width, 3)).astype(np.float32)


def _torch(image):
  torch = pytest.importorskip('torch', reason='torch is a test peer')
  return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


class HomographiesTest(parameterized.TestCase):

  @parameterized.product(
    size=[(32, 32), (25, 40)],
    shears=[(20.0, 0.0), (0.0, -15.0), (35.0, 10.0), (-12.0, 40.0)],
  )
  def test_shears_equal_torchvision_affine(self, size, shears):
    image = _image(*size)
    functional = torchvision_ops.import_torchvision().transforms.functional
    expected = functional.affine(
      _torch(image), angle=0.0, translate=[0, 0], scale=1.0,
      shear=list(shears),
      interpolation=functional.InterpolationMode.BILINEAR,
    ).numpy().transpose(1, 2, 0)
    pull = geometry.compose([
      homographies.shear_x(shears[0], size),
      homographies.shear_y(shears[1], size),
    ])
    actual = _transform(image, pull)
    np.testing.assert_allclose(actual, expected, atol=1e-4)

  @parameterized.product(
    flip_axis=[(homographies.flip_x, 1), (homographies.flip_y, 0)],
    size=[(8, 13), (1, 1), (31, 2)], method=['bilinear', 'nearest'],
  )
  def test_flip_is_exact_and_twice_gives_the_image_back(
    self, flip_axis, size, method
  ):
    flip, axis = flip_axis
    image = _image(*size)
    once = _transform(image, flip(1.0, size), method=method)
    np.testing.assert_array_equal(once, np.flip(image, axis))
    twice = geometry.compose([flip(1.0, size), flip(1.0, size)])
    np.testing.assert_array_equal(twice, np.eye(3))
    np.testing.assert_array_equal(
      _transform(once, flip(1.0, size), method=method), image
    )

  @parameterized.parameters((0.4, False), (0.5, False), (0.6, True))
  def test_flip_switches_above_one_half(self, value, flips):
    first = homographies.flip_x(value, (4, 6))[0, 0]
    self.assertEqual(first, -1.0 if flips else 1.0)

  @parameterized.parameters(
    (0.25, 0.5, 0.5), (0.125, 0.0, 1.0), (0.25, 1.0, 0.25)
  )
  def test_crop_equals_torchvision_resized_crop(self, share, x, y):
    size = (32, 64)
    image = _image(*size)
    functional = torchvision_ops.import_torchvision().transforms.functional
    height, width = (round((1 - 2 * share) * n) for n in size)
    expected = functional.resized_crop(
      _torch(image), round(2 * share * y * 32), round(2 * share * x * 64),
      height, width, list(size), antialias=False,
    ).numpy().transpose(1, 2, 0)
    actual = _transform(image, homographies.crop(share, x, y, size))
    # At its edge the crop does not know its neighbours.
    inside = (slice(2, -2), slice(2, -2))
    np.testing.assert_allclose(actual[inside], expected[inside], atol=1e-5)

  def test_crop_in_the_middle_is_a_zoom(self):
    np.testing.assert_allclose(
      homographies.crop(0.2, 0.5, 0.5, (30, 50)),
      homographies.scaling(1 / 0.6, (30, 50)), atol=1e-5,
    )

  @parameterized.parameters(0.5, 1.0, 1.9)
  def test_aspect_keeps_area_and_centre_and_multiplies_the_proportion(
    self, ratio
  ):
    pull = np.asarray(homographies.aspect(ratio, (30, 50)))
    np.testing.assert_allclose(np.linalg.det(pull[:2, :2]), 1, rtol=1e-6)
    np.testing.assert_allclose(pull[1, 1] / pull[0, 0], ratio, rtol=1e-6)
    np.testing.assert_allclose(pull @ [25, 15, 1], [25, 15, 1], rtol=1e-6)

  @parameterized.named_parameters(
    ('rotation', homographies.rotation, 33.0, -33.0),
    ('scaling', homographies.scaling, 1.3, 1 / 1.3),
    ('aspect', homographies.aspect, 1.3, 1 / 1.3),
    ('translation_x', homographies.translation_x, 0.2, -0.2),
    ('translation_y', homographies.translation_y, 0.2, -0.2),
    ('shear_x', homographies.shear_x, 30.0, -30.0),
    ('shear_y', homographies.shear_y, 30.0, -30.0),
    ('flip_x', homographies.flip_x, 1.0, 1.0),
  )
  def test_inverse_value_undoes_in_either_dtype(self, make, value, inverse):
    for dtype in (jnp.float32, jnp.float64):
      with jax.enable_x64(dtype == jnp.float64):
        jitted = jax.jit(make, static_argnums=1)
        forth = jitted(jnp.asarray(value, dtype), (5, 9))
        back = jitted(jnp.asarray(inverse, dtype), (5, 9))
        self.assertEqual(forth.dtype, dtype)
        np.testing.assert_allclose(forth @ back, np.eye(3), atol=1e-5)

  def test_rotating_there_and_back_returns_a_smooth_image(self):
    y, x = np.mgrid[0:64, 0:64] / 64
    image = (0.5 + 0.5 * np.sin(5 * x + 3 * y))[..., None].astype(np.float32)
    turn = lambda image, angle: _transform(
      image, homographies.rotation(angle, (64, 64)), fill='edge'
    )
    back = turn(turn(image, 25.0), -25.0)
    middle = (slice(16, -16), slice(16, -16))
    np.testing.assert_allclose(back[middle], image[middle], atol=1e-3)
    self.assertGreater(np.abs(turn(image, 50.0) - image)[middle].max(), 0.1)


if __name__ == '__main__':
  absltest.main()
