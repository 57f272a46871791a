"""What every geometric perturbation promises."""

import itertools

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from jaxsens.perturbations import distortions
from jaxsens.perturbations import geometry
from jaxsens.perturbations import homographies
from jaxsens.perturbations import perspectives

_ALL = (
  *homographies.PERTURBATIONS, *perspectives.PERTURBATIONS,
  *distortions.PERTURBATIONS,
)
_NAMED = [(entry.name, entry) for entry in _ALL]


def _image(size, channels=3):
  rng = np.random.default_rng(0)
  return rng.random((*size, channels)).astype(np.float32)


def _defaults(entry):
  return [parameter.default for parameter in entry.parameters]


def _generic(entry):
  """A value off every special point, for each parameter."""
  return [
    lower + 0.7131 * (upper - lower)
    for lower, upper in (p.sensible_range for p in entry.parameters)
  ]


@jax.jit
def _shown(image, mapping):
  """The image through one map and through the levels of a warp."""
  size = image.shape[:2]
  source = geometry.prefilter(image, size, num_levels=2)
  return (
    geometry.transform(image, mapping), geometry.warp(source, mapping, size)
  )


@jax.jit
def _reflected(image, mapping):
  return geometry.transform(image, mapping, fill='reflect')


class GeometryFamilyTest(parameterized.TestCase):

  @parameterized.named_parameters(*_NAMED)
  def test_identity_gives_the_image_back_bitwise(self, entry):
    others = list(itertools.product(
      *([p.default, *p.sensible_range] for p in entry.others)
    ))
    for size, channels in (((1, 1), 1), ((9, 14), 3)):
      image = _image(size, channels)
      function = jax.jit(entry.function, static_argnums=1 + len(others[0]))
      for rest in others:
        mapping = function(entry.identity, *rest, size)
        for out in _shown(image, mapping):
          np.testing.assert_array_equal(out, image)

  @parameterized.named_parameters(*_NAMED)
  def test_every_value_in_range_gives_a_picture(self, entry):
    size = (200, 5)
    image = _image(size, 1)
    function = jax.jit(entry.function, static_argnums=len(entry.parameters))
    for values in itertools.product(
      *(p.sensible_range for p in entry.parameters)
    ):
      out = np.asarray(_reflected(image, function(*values, size)))
      self.assertEqual(out.shape, image.shape)
      self.assertTrue(np.isfinite(out).all())
      self.assertGreaterEqual(out.min(), image.min() - 1e-5)
      self.assertLessEqual(out.max(), image.max() + 1e-5)

  @parameterized.named_parameters(*_NAMED)
  def test_slope_equals_central_differences_and_is_finite_at_the_identity(
    self, entry
  ):
    size = (16, 12)
    with jax.enable_x64(True):
      y, x = np.mgrid[0:16, 0:12] / 12
      image = jnp.asarray((0.5 + 0.4 * np.sin(5 * x) * y)[..., None])
      weights = jnp.asarray(_image(size, 1), float)

      @jax.jit
      @jax.value_and_grad
      def response(values):
        source = geometry.prefilter(image, (8, 6))
        out = geometry.warp(source, entry.function(*values, size), (8, 6))
        return jnp.sum(out * weights[:8, :6])

      _, at_identity = response(jnp.array(_defaults(entry), float))
      self.assertTrue(np.isfinite(at_identity).all())
      values = jnp.array(_generic(entry), float)
      _, actual = response(values)
      for i, parameter in enumerate(entry.parameters):
        if not parameter.differentiable:
          np.testing.assert_array_equal(actual[i], 0)
          continue
        step = jnp.zeros_like(values).at[i].set(1e-6)
        after, before = response(values + step)[0], response(values - step)[0]
        expected = (after - before) / 2e-6
        self.assertGreater(abs(expected), 1e-4)
        np.testing.assert_allclose(actual[i], expected, rtol=1e-5)

  @parameterized.named_parameters(*_NAMED)
  def test_minifies_is_declared_where_the_picture_shrinks(self, entry):
    # The largest singular value of the Jacobian over the sensible range.
    size = (20, 30)
    x, y = np.meshgrid(np.linspace(0, 30, 7), np.linspace(0, 20, 7))
    largest = 0.0
    function = jax.jit(entry.function, static_argnums=len(entry.parameters))
    for values in itertools.product(
      *(p.sensible_range for p in entry.parameters)
    ):
      mapping = function(*values, size)
      for point in zip(x.ravel(), y.ravel(), strict=True):
        jacobian = _numeric_jacobian(mapping, point, size)
        largest = max(largest, np.linalg.norm(jacobian, 2))
    self.assertEqual(largest > 1.01, entry.minifies)

  @parameterized.named_parameters(*_NAMED)
  def test_zeros_are_the_entries_that_vanish_at_every_value(self, entry):
    function = jax.jit(entry.function, static_argnums=len(entry.parameters))
    ranges = np.array([p.sensible_range for p in entry.parameters]).T
    shares = np.random.default_rng(0).random((8, len(entry.parameters)))
    maps = [
      function(*row, (20, 30)) for row in ranges[0] + shares * np.ptp(ranges, 0)
    ]
    if isinstance(maps[0], geometry.Distortion):
      self.assertEmpty(entry.zeros)
      return
    vanish = (np.asarray(maps) == 0).all(0)
    # The last column moves the origin, which no zero speeds up.
    self.assertCountEqual(
      entry.zeros, [tuple(k) for k in np.argwhere(vanish).tolist() if k[1] < 2]
    )

  @parameterized.named_parameters(*[n for n in _NAMED if n[1].zeros])
  def test_known_zeros_change_no_pixel(self, entry):
    size, output = (17, 23), (17, 12)

    @jax.jit
    def shown(image, mapping):
      source = geometry.prefilter(image, output, num_levels=2)
      return [
        geometry.warp(source, mapping, output, zeros=zeros, **option)
        for zeros in ((), entry.zeros)
        for option in ({'fill': 0.2}, {'fill': 'edge', 'method': 'nearest'})
      ]

    with jax.enable_x64(True):
      image = jnp.asarray(_image(size), float)
      out = shown(image, entry.function(*_generic(entry), size))
    np.testing.assert_allclose(out[2:], out[:2], atol=1e-12)

  @parameterized.named_parameters(*_NAMED)
  def test_catalogue_is_complete(self, entry):
    self.assertEqual(entry.kind, 'geometric')
    self.assertEqual(entry.family, 'geometry')
    self.assertBetween(len(entry.symptoms), 3, 5)
    for text in (entry.happens, entry.caveats, entry.source, entry.unit):
      self.assertNotEmpty(text)
    for parameter in entry.parameters:
      self.assertStartsWith(parameter.name, entry.name)
      lower, upper = parameter.sensible_range
      self.assertBetween(parameter.default, lower, upper)
      self.assertLessEqual(parameter.limits[0], lower)
      self.assertGreaterEqual(parameter.limits[1], upper)

  def test_names_are_unique(self):
    names = [p.name for entry in _ALL for p in entry.parameters]
    self.assertLen(set(names), len(names))

  def test_a_tall_narrow_image_is_distorted_and_tilted(self):
    size = (3000, 50)
    image = _image(size, 1)
    out = jax.jit(lambda k1, degrees: geometry.transform(image, [
      distortions.lens(k1, 0.0, size),
      perspectives.tilt_x(degrees, 50.0, size),
    ], fill='edge'))(0.1, 10.0)
    self.assertTrue(np.isfinite(out).all())


def _numeric_jacobian(mapping, point, size):
  """Central differences of a homography or distortion, (2, 2)."""
  def pull(x, y):
    if isinstance(mapping, geometry.Distortion):
      radius = np.hypot(*size) / 2
      du, dv = mapping.displacement(
        np.asarray(mapping.parameters, float), (x - size[1] / 2) / radius,
        (y - size[0] / 2) / radius,
      )
      return np.array([x + radius * du, y + radius * dv])
    u, v, w = np.asarray(mapping, float) @ [x, y, 1]
    return np.array([u / w, v / w])

  x, y = point
  return np.stack([
    pull(x + 0.5, y) - pull(x - 0.5, y), pull(x, y + 0.5) - pull(x, y - 0.5)
  ], -1)


if __name__ == '__main__':
  absltest.main()
