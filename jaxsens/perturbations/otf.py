"""Optical transfer functions of apertures, motion, detectors and air.

A transfer function says by how much a camera damps a sinusoid of a given
frequency. Those of this module are real and one at frequency zero, so that
they keep the mean. Frequencies and lengths are in reciprocal units, which the
caller chooses: cycles per pixel with pixels, cycles per radian with radians.
Every function is differentiable in every physical argument.

References:
  Goodman, Introduction to Fourier Optics, 3rd ed., 2005, chapter 6.
  Hopkins, The frequency response of a defocused optical system, 1955.
  Eismann and LeMaster, Infrared Broadband System Modeling, 3-3, 3-28, 3-29.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np

# Nodes of the integral over the pupil; enough for a phase of 100 rad.
_NUM_PUPIL_NODES = 64


def diffraction(frequency: ArrayLike, cutoff: ArrayLike) -> jax.Array:
  """Returns the transfer function of an ideal circular aperture.

      H = (2 / π) (arccos s - s sqrt(1 - s²)),  s = frequency / cutoff < 1

  Args:
    frequency: >= 0, any shape.
    cutoff: frequency beyond which nothing passes: 1 / (wavelength * working
      f-number) on the sensor, aperture / wavelength per radian.

  Returns:
    The transfer, shape of frequency; Goodman, equation 6-32.
  """
  ratio = jnp.asarray(frequency) / cutoff
  inside = ratio < 1
  s = jnp.where(inside, ratio, 0.5)
  transfer = (2 / np.pi) * (jnp.arccos(s) - s * jnp.sqrt(1 - s * s))
  return jnp.where(inside, transfer, jnp.zeros_like(transfer))


def defocus(
  frequency: ArrayLike, cutoff: ArrayLike, waves: ArrayLike
) -> jax.Array:
  """Returns the transfer function of a circular aperture out of focus.

      H = (4 / π) ∫ cos²φ cos(8 π waves s (sin φ - s)) dφ,
      φ from arcsin s to π / 2,  s = frequency / cutoff < 1

  Args:
    frequency: >= 0, any shape.
    cutoff: as in `diffraction`.
    waves: scalar, path error W20 at the edge of the pupil in wavelengths;
      either sign. Accurate up to |waves| s (1 - s) of 4.

  Returns:
    The transfer, shape of frequency, diffraction included; negative where the
    contrast is reversed. Goodman, equation 6-41, for a circular pupil.
  """
  ratio = jnp.asarray(frequency) / cutoff
  inside = ratio < 1
  s = jnp.where(inside, ratio, 0.5)[..., None]
  points, weights = (
    c.astype(s.dtype) for c in np.polynomial.legendre.leggauss(
      _NUM_PUPIL_NODES
    )
  )
  first = jnp.arcsin(s)
  span = np.pi / 2 - first
  angle = first + span * (points + 1) / 2
  phase = 8 * np.pi * waves * s * (jnp.sin(angle) - s)
  integrand = jnp.cos(angle) ** 2 * jnp.cos(phase)
  transfer = (2 / np.pi) * jnp.sum(weights * span * integrand, -1)
  return jnp.where(inside, transfer, jnp.zeros_like(transfer))


def vibration(frequency: ArrayLike, rms: ArrayLike) -> jax.Array:
  """Returns exp(-2 π² rms² frequency²), that of fast Gaussian vibration.

  Args:
    frequency: along the vibration, or radial where it is the same in all
      directions.
    rms: root mean square displacement along one axis, >= 0.

  Returns:
    The transfer, shape of frequency; Infrared Broadband System Modeling,
    equation 3-28 with π squared.
  """
  return jnp.exp(-2 * np.pi**2 * (jnp.asarray(rms) * frequency) ** 2)


def box(frequency: ArrayLike, width: ArrayLike) -> jax.Array:
  """Returns sinc(width * frequency), that of an average over a length.

  Args:
    frequency: along the motion or along a side of the detector.
    width: distance moved at constant speed during the exposure, or side of the
      light-sensitive area.

  Returns:
    The transfer sin(π w f) / (π w f), shape of frequency; equations 3-29 and
    3-36 of Infrared Broadband System Modeling.
  """
  return jnp.sinc(jnp.asarray(width) * frequency)


def turbulence(
  frequency: ArrayLike, wavelength: ArrayLike, cn2: ArrayLike, path: ArrayLike
) -> jax.Array:
  """Returns that of air of uniform turbulence over a long exposure.

      H = exp(-3.44 (wavelength frequency / r0)^(5/3)),
      r0^(-5/3) = 0.423 (2 π / wavelength)² cn2 path 3 / 8

  r0 is Fried's parameter of a spherical wave; at cn2 = 0, where it is
  infinite, the transfer is one and its derivative finite.

  Args:
    frequency: cycles per radian, >= 0.
    wavelength: m.
    cn2: structure parameter of the refractive index, m^(-2/3), >= 0.
    path: length of the way through the turbulent air, m.

  Returns:
    The transfer, shape of frequency; Infrared Broadband System Modeling,
    equation 3-3 with alpha = 0; Schmidt, Numerical Simulation of Optical Wave
    Propagation, 2010, for r0.
  """
  strength = 0.423 * (2 * np.pi / wavelength) ** 2 * cn2 * path * 3 / 8
  reach = jnp.asarray(frequency) * wavelength
  return jnp.exp(-3.44 * strength * reach ** (5 / 3))


def extra(
  transfer: jax.Array, nominal: jax.Array, unchanged: ArrayLike
) -> jax.Array:
  """Returns what an image from the nominal camera still has to go through.

      1 + (transfer - nominal) nominal / (nominal² + 1e-4)

  It is transfer / nominal where the nominal camera shows anything, and one
  where it shows nothing.

  Args:
    transfer: of the camera to be shown.
    nominal: of the camera that took the image, same shape.
    unchanged: bool, whether the two are the same camera; the result is then
      exactly one, with the derivative that it has otherwise.

  Returns:
    The extra transfer, same shape.
  """
  change = (transfer - nominal) * nominal / (nominal * nominal + 1e-4)
  return 1 + _zero_where(unchanged, change)


@jax.custom_jvp
def _zero_where(condition, x):
  return jnp.where(condition, jnp.zeros_like(x), x)


@_zero_where.defjvp
def _zero_where_jvp(primals, tangents):
  return _zero_where(*primals), tangents[1]
