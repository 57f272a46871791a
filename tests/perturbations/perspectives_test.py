"""Tilts against rays in space and torchvision's perspective."""

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsens.perturbations import geometry
from jaxsens.perturbations import perspectives
from tests.oracles import pinhole
from tests.oracles import torchvision_ops

_transform = jax.jit(geometry.transform, static_argnames=('method', 'fill'))
_TILTS = {'x': perspectives.tilt_x, 'y': perspectives.tilt_y}


def _mapped(pull, x, y):
  u, v, w = np.einsum(
    'ij,j...->i...', np.asarray(pull, float), np.stack([x, y, np.ones_like(x)])
  )
  return u / w, v / w


class PerspectivesTest(parameterized.TestCase):

  @parameterized.product(
    axis=['x', 'y'], degrees=[-60.0, -20.0, 0.0, 5.0, 45.0],
    field_of_view=[10.0, 50.0], size=[(40, 60), (60, 40), (7, 7)],
  )
  def test_tilt_is_the_picture_of_a_turned_plane(
    self, axis, degrees, field_of_view, size
  ):
    y, x = np.mgrid[0:size[0] + 1:3, 0:size[1] + 1:3].astype(float)
    expected = pinhole.pull(x, y, size, degrees, field_of_view, axis)
    with jax.enable_x64(True):
      pull = _TILTS[axis](degrees, field_of_view, size)
    np.testing.assert_allclose(_mapped(pull, x, y), expected, atol=1e-9)

  @parameterized.parameters('x', 'y')
  def test_image_of_a_tilt_equals_torchvision_perspective(self, axis):
    torch = pytest.importorskip('torch', reason='torch is a test peer')
    torchvision = torchvision_ops.import_torchvision()
    size = (40, 56)
    image = np.random.default_rng(0).random((*size, 3)).astype(np.float32)
    # Where the rays through four output points meet the plane.
    ends = np.array([[4.0, 5.0], [50, 3], [52, 36], [6, 30]])
    starts = np.stack(
      pinhole.pull(ends[:, 0], ends[:, 1], size, 25.0, 60.0, axis), -1
    )
    # By hand, since torchvision's function takes whole pixels only.
    rows = []
    for (x, y), (u, v) in zip(ends, starts, strict=True):
      rows += [
        [x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]
      ]
    coefficients = np.linalg.solve(rows, starts.reshape(-1))
    tensor = torch.from_numpy(image.transpose(2, 0, 1).copy())
    expected = torchvision.transforms._functional_tensor.perspective(
      tensor, coefficients.tolist(), interpolation='bilinear'
    ).numpy().transpose(1, 2, 0)
    actual = _transform(image, _TILTS[axis](25.0, 60.0, size))
    np.testing.assert_allclose(actual, expected, atol=1e-4)

  def test_tilt_y_is_tilt_x_of_the_transposed_picture(self):
    image = np.random.default_rng(1).random((20, 34, 3)).astype(np.float32)
    turned = image.transpose(1, 0, 2)
    np.testing.assert_allclose(
      _transform(image, perspectives.tilt_y(30.0, 50.0, (20, 34))),
      np.transpose(_transform(
        turned, perspectives.tilt_x(30.0, 50.0, (34, 20))
      ), (1, 0, 2)), atol=2e-5,
    )

  @parameterized.parameters(perspectives.tilt_x, perspectives.keystone)
  def test_positive_angles_show_the_upper_edge_smaller(self, function):
    values = (20.0, 50.0) if function is perspectives.tilt_x else (20.0,)
    image = _transform(
      np.ones((40, 40, 1)), function(*values, (40, 40))
    )
    widths = np.asarray(image[..., 0]).sum(1)
    self.assertLess(widths[8], 38)
    self.assertGreater(widths[30], 39)

  def test_a_narrow_field_of_view_only_shortens_by_the_cosine(self):
    pull = perspectives.tilt_x(60.0, 0.01, (50, 50))
    x, y = _mapped(pull, np.array([5.0, 25, 45]), np.array([20.0, 25, 30]))
    np.testing.assert_allclose(x, [5, 25, 45], atol=0.01)
    np.testing.assert_allclose(y, [15, 25, 35], atol=0.01)

  def test_keystone_is_a_camera_one_height_away_that_magnifies(self):
    # At the distance H the field of view over H is 2 arctan(1 / 2); a tilt
    # differs by the 1 / cos of the height only.
    size = (30, 30)
    y, x = np.mgrid[1:30:4, 1:30:4].astype(float)
    view = 2 * np.rad2deg(np.arctan(0.5))
    u, v = _mapped(perspectives.tilt_x(20.0, view, size), x, y)
    expected = u, 15 + (v - 15) * np.cos(np.deg2rad(20.0))
    np.testing.assert_allclose(
      _mapped(perspectives.keystone(20.0, size), x, y), expected, atol=1e-4
    )

  @parameterized.parameters(jnp.float32, jnp.float64)
  def test_matrix_follows_the_dtype(self, dtype):
    with jax.enable_x64(dtype == jnp.float64):
      pull = jax.jit(perspectives.tilt_y, static_argnums=2)(
        jnp.asarray(3.0, dtype), jnp.asarray(50.0, dtype), (5, 9)
      )
      self.assertEqual(pull.dtype, dtype)


if __name__ == '__main__':
  absltest.main()
