"""Transfer functions against sums over the pupil, series and pyBSM."""

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate
from scipy import special

from jaxsens.perturbations import otf
from tests.oracles import pupils

_SHARES = np.array([0.05, 0.2, 0.45, 0.7, 0.95])


def _double(function, *arguments):
  with jax.enable_x64(True):
    return np.asarray(
      jax.jit(function)(*[jnp.asarray(x, jnp.float64) for x in arguments])
    )


class OtfTest(parameterized.TestCase):

  def test_diffraction_equals_the_autocorrelation_of_a_disk(self):
    expected = [pupils.by_autocorrelation(s, 0.0) for s in _SHARES]
    actual = _double(otf.diffraction, _SHARES * 3.0, 3.0)
    # The step of the grid of the oracle is 1 / 150 of a radius.
    np.testing.assert_allclose(actual, expected, atol=4e-3)

  def test_diffraction_is_one_at_zero_and_zero_beyond_the_cutoff(self):
    actual = _double(otf.diffraction, [0.0, 1.0, 1.5], 1.0)
    np.testing.assert_array_equal(actual, [1, 0, 0])

  @parameterized.parameters(0.2, -0.7, 2.0)
  def test_defocus_equals_the_autocorrelation_of_a_pupil(self, waves):
    expected = [pupils.by_autocorrelation(s, waves) for s in _SHARES]
    actual = _double(otf.defocus, _SHARES, 1.0, waves)
    np.testing.assert_allclose(actual, expected, atol=4e-3)

  @parameterized.parameters(0.2, 0.9, 4.0, 16.0)
  def test_defocus_equals_hopkins_series(self, waves):
    expected = [pupils.by_hopkins_series(s, waves) for s in _SHARES]
    actual = _double(otf.defocus, _SHARES, 1.0, waves)
    np.testing.assert_allclose(actual, expected, atol=1e-10)

  def test_defocus_of_no_waves_is_diffraction(self):
    shares = np.linspace(0, 1.2, 30)
    np.testing.assert_allclose(
      _double(otf.defocus, shares, 1.0, 0.0),
      _double(otf.diffraction, shares, 1.0), atol=1e-12,
    )

  def test_large_defocus_approaches_the_disk_of_ray_optics(self):
    # A disk of diameter d has 2 J1(π d f) / (π d f), with d cutoff = 8 waves.
    waves, share = 15.0, np.array([0.001, 0.003, 0.006])
    argument = np.pi * 8 * waves * share
    np.testing.assert_allclose(
      _double(otf.defocus, share, 1.0, waves),
      2 * special.j1(argument) / argument, atol=0.01,
    )

  def test_vibration_and_box_are_transforms_of_their_densities(self):
    frequency = np.array([0.0, 0.1, 0.3])
    wave = np.cos(2 * np.pi * frequency[:, None] * np.linspace(-9, 9, 20001))
    x = np.linspace(-9, 9, 20001)
    normal = np.exp(-x**2 / (2 * 1.3**2)) / (1.3 * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(
      _double(otf.vibration, frequency, 1.3),
      integrate.trapezoid(wave * normal, x), atol=1e-9,
    )
    inside = np.linspace(-1.25, 1.25, 4001)
    np.testing.assert_allclose(
      _double(otf.box, frequency, 2.5), integrate.trapezoid(
        np.cos(2 * np.pi * frequency[:, None] * inside) / 2.5, inside
      ), atol=1e-6,
    )

  def test_turbulence_has_frieds_parameter_of_a_spherical_wave(self):
    wavelength, cn2, path = 0.55e-6, 2e-9, 0.7
    weight = cn2 * integrate.quad(lambda z: (z / path) ** (5 / 3), 0, path)[0]
    fried = (0.423 * (2 * np.pi / wavelength) ** 2 * weight) ** (-3 / 5)
    frequency = np.array([0.0, 500.0, 3000.0])
    expected = np.exp(-3.44 * (wavelength * frequency / fried) ** (5 / 3))
    actual = _double(otf.turbulence, frequency, wavelength, cn2, path)
    np.testing.assert_allclose(actual, expected, rtol=1e-9)

  @parameterized.parameters(
    (otf.diffraction, (3.0,)), (otf.defocus, (3.0, 0.8)),
    (otf.vibration, (0.3,)), (otf.box, (0.7,)),
    (otf.turbulence, (0.3, 0.02, 0.7)),
  )
  def test_derivatives_equal_differences(self, function, arguments):
    frequency = jnp.array([0.2, 1.0, 2.2])
    with jax.enable_x64(True):
      arguments = [jnp.asarray(x, jnp.float64) for x in arguments]
      both = jax.jit(jax.value_and_grad(
        lambda a: jnp.sum(function(frequency, *a) ** 2)
      ))
      total = lambda a: both(a)[0]
      for i, slope in enumerate(both(arguments)[1]):
        step = 1e-5 * arguments[i]
        up, down = list(arguments), list(arguments)
        up[i], down[i] = arguments[i] + step, arguments[i] - step
        np.testing.assert_allclose(
          slope, (total(up) - total(down)) / (2 * step), rtol=1e-6
        )

  def test_extra_of_the_same_camera_is_one_with_its_derivative(self):
    def response(cutoff, unchanged):
      frequency = jnp.array([0.0, 0.3, 2.5])
      nominal = otf.diffraction(frequency, 2.0)
      return otf.extra(
        otf.diffraction(frequency, cutoff), nominal, unchanged
      )

    np.testing.assert_array_equal(response(2.0, True), 1)
    slopes = jax.jit(jax.jacobian(response))
    slope = slopes(2.0, True)
    np.testing.assert_array_equal(slope, slopes(2.0, False))
    assert slope[1] > 0
    # The nominal camera shows nothing at 2.5, nor does the extra change it.
    np.testing.assert_array_equal(response(9.0, False)[2], 1)

  def test_follows_pybsm_where_the_definitions_agree(self):
    functional = pytest.importorskip('pybsm.otf.functional')
    u = np.linspace(0, 4000, 50)[None]
    v = np.zeros_like(u)
    wavelength, diameter = 0.55e-6, 2e-3
    cutoff = diameter / wavelength
    np.testing.assert_allclose(
      _double(otf.diffraction, u, cutoff), functional.circular_aperture_OTF(
        u=u, v=v, lambda0=wavelength, D=diameter, eta=0.0
      ), atol=1e-9,
    )
    np.testing.assert_allclose(
      _double(otf.vibration, u, 1e-4),
      functional.jitter_OTF(u=u, v=v, s_x=1e-4, s_y=1e-4), atol=1e-9,
    )
    np.testing.assert_allclose(
      _double(otf.box, u, 3e-4),
      functional.drift_OTF(u=u, v=v, a_x=3e-4, a_y=3e-4), atol=1e-9,
    )
    z = np.linspace(0, 0.7, 20001)
    fried = functional.coherence_diameter(
      lambda0=wavelength, z_path=z, cn2=np.full_like(z, 2e-9)
    )
    np.testing.assert_allclose(
      _double(otf.turbulence, u, wavelength, 2e-9, 0.7),
      functional.turbulence_OTF(
        u=u, v=v, lambda0=wavelength, D=diameter, r0=fried, alpha=0.0
      ), atol=1e-7,
    )


if __name__ == '__main__':
  absltest.main()
