"""Elastic deformation: each pixel is read at a smooth random displacement.

Displacements are in pixels of the image, (down, right), and say where a pixel
of the result is read. The image is continued by reflection about its outer
edge, interpolation is bilinear.

References:
  Simard, Steinkraus and Platt (2003), Best practices for convolutional neural
    networks applied to visual document analysis.
  Hendrycks and Dietterich (2019), Benchmarking neural network robustness to
    common corruptions and perturbations, arXiv:1903.12261.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsens.perturbations import interpolation
from jaxsens.perturbations import perturbation
from jaxsens.perturbations import random_fields

# Reflections of an axis on either side, enough for a Gaussian that is cut at
# three sigma of 0.7 sizes of the image, the widest of ImageNet-C.
_NUM_REFLECTIONS = 2


def elastic(
  image: ArrayLike, amplitude: ArrayLike, sigma: ArrayLike, *, key: jax.Array
) -> jax.Array:
  """Returns the image read at normal displacements of a given smoothness.

  The displacements are the amplitude times a fixed field for each sigma:
  white noise under a Gaussian filter, made in the frequency domain and
  therefore periodic, of standard deviation 1 along each axis.

  Args:
    image: (H, W, C) in [0, 1].
    amplitude: standard deviation of the displacement along each axis, px; 0
      is the identity.
    sigma: standard deviation of the filter, px, > 0; the displacements of
      pixels 2 sigma apart correlate by 1 / e.
    key: of the field.
  """
  image = jnp.asarray(image)
  wide = jnp.promote_types(image.dtype, jnp.float32)
  amplitude, sigma = (jnp.asarray(v, wide) for v in (amplitude, sigma))
  down, right = _smooth_fields(key, image.shape[:2], sigma)
  return displace(image, amplitude * down, amplitude * right)


def elastic_transform(
  image: ArrayLike, alpha: ArrayLike, sigma: ArrayLike, affine: ArrayLike, *,
  key: jax.Array,
) -> jax.Array:
  """Returns the elastic transform of ImageNet-C: affine map, then elastic one.

  Three points about the centre move by uniform numbers, which defines an
  affine map; the result is read at displacements alpha G(sigma) u, where u is
  uniform noise in (-1, 1) and G a Gaussian filter cut at three sigma. The
  published affine map reflects about the centres of the outer pixels, this one
  about their edges.

  Args:
    image: (H, W, C) in [0, 1].
    alpha: factor of the filtered noise, px.
    sigma: of the filter, px, at most 0.7 times the smaller side; 0 is none.
    affine: largest move of a point along each axis, px.
    key: of the points and the noise.

  Returns:
    (H, W, C). ImageNet-C at 224 pixels has (alpha, sigma, affine) = 244 times
    (2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02) and
    (0.12, 0.01, 0.02); CIFAR-C 32 times (0, 0, 0.08), (0.05, 0.2, 0.07),
    (0.08, 0.06, 0.06), (0.1, 0.04, 0.05) and (0.1, 0.03, 0.03).
  """
  image = jnp.asarray(image)
  wide = jnp.promote_types(image.dtype, jnp.float32)
  alpha, sigma, affine = (jnp.asarray(v, wide) for v in (alpha, sigma, affine))
  height, width, _ = image.shape
  key_points, key_noise = jax.random.split(key)
  moves = affine * (2 * random_fields.uniform(key_points, (3, 2), wide) - 1)
  moved = displace(image, *_affine_displacements((height, width), moves))
  noise = 2 * random_fields.uniform(key_noise, (2, height, width), wide) - 1
  rows, columns = _filter_matrix(sigma, height), _filter_matrix(sigma, width)
  smooth = alpha * jnp.einsum(
    'ih,khw,jw->kij', rows, noise, columns,
    precision=jax.lax.Precision.HIGHEST,
  )
  return displace(moved, smooth[0], smooth[1])


def displace(
  image: ArrayLike, down: ArrayLike, right: ArrayLike
) -> jax.Array:
  """Returns the image read at displaced positions, bilinearly.

  Args:
    image: (H, W, C).
    down: (H, W) displacement in rows.
    right: (H, W) displacement in columns.

  Returns:
    (H, W, C); equal to SciPy's `map_coordinates` of order 1 and mode
    'reflect'.
  """
  image = jnp.asarray(image)
  height, width, _ = image.shape
  i = jnp.arange(height, dtype=down.dtype)[:, None] + down
  j = jnp.arange(width, dtype=right.dtype)[None] + right
  # Between the edge and the centre of the first pixel all is that pixel.
  moved = interpolation.bilinear(
    image, _reflected(i, height), _reflected(j, width)
  )
  return moved.astype(image.dtype)


def _reflected(position, size):
  """Folds positions into [-0.5, size - 0.5], about the outer edges."""
  folded = jnp.mod(position + 0.5, 2 * size)
  return jnp.minimum(folded, 2 * size - folded) - 0.5


def _smooth_fields(key, size, sigma):
  """Returns two independent fields of standard deviation one."""
  dtype = sigma.dtype
  real, imaginary = random_fields.normal(key, (2, *size), dtype)
  decay = lambda n: jnp.exp(
    -2 * (jnp.pi * sigma * jnp.fft.fftfreq(n, dtype=dtype)) ** 2
  )
  rows, columns = decay(size[0]), decay(size[1])
  norm = jnp.sqrt((rows**2).sum() * (columns**2).sum())
  spectrum = jax.lax.complex(real, imaginary) * (
    rows[:, None] * columns * (size[0] * size[1] / norm)
  )
  field = jnp.fft.ifft2(spectrum)
  return field.real, field.imag


def _filter_matrix(sigma, size):
  """Returns (size, size): a Gaussian filter of reflected samples."""
  index = jnp.arange(size, dtype=sigma.dtype)
  radius = jnp.floor(3 * sigma + 0.5)
  safe = jnp.where(sigma > 0, sigma, jnp.ones_like(sigma))

  def weight(sample):
    distance = jnp.abs(sample[None] - index[:, None])
    bell = jnp.exp(-0.5 * (distance / safe) ** 2)
    return jnp.where(distance <= radius, bell, 0)

  weights = sum(
    weight(index + 2 * size * k) + weight(2 * size * k - 1 - index)
    for k in range(-_NUM_REFLECTIONS, _NUM_REFLECTIONS + 1)
  )
  return weights / weights.sum(1, keepdims=True)


def _affine_displacements(size, moves):
  """Displacements of the affine map that takes three points to moved ones.

  Args:
    size: (H, W).
    moves: (3, 2), of the points along (right, down).

  Returns:
    (H, W) down and right: from a pixel of the result to where it is read.
  """
  height, width = size
  centre = jnp.array([width // 2, height // 2], moves.dtype)
  arm = max(min(height, width) // 3, 1)
  points = centre + arm * jnp.array([[1, 1], [1, -1], [-1, -1]], moves.dtype)
  moved = points + moves
  # Legs from the middle point; the map of images is inverse to that of points.
  legs = lambda p: jnp.stack([p[0] - p[1], p[2] - p[1]], -1)
  (a, b), (c, d) = legs(moved)
  determinant = a * d - b * c
  inverse = jnp.array([[d, -b], [-c, a]]) / determinant
  linear = legs(points) @ inverse
  x = jnp.arange(width, dtype=moves.dtype)[None] - moved[1, 0]
  y = jnp.arange(height, dtype=moves.dtype)[:, None] - moved[1, 1]
  right = linear[0, 0] * x + linear[0, 1] * y - moves[1, 0] - x
  down = linear[1, 0] * x + linear[1, 1] * y - moves[1, 1] - y
  return down, right


PERTURBATIONS = (
  perturbation.Perturbation(
    'elastic', 'spatial', elastic, 'px', identity=0.0,
    sensible_range=(0.0, 4.0), limits=(0.0, float('inf')), random=True,
    source=(
      'Simard et al. (2003) and ImageNet-C elastic_transform, without its '
      'affine part; amplitude as standard deviation of the displacement'
    ),
    others=(
      perturbation.Parameter(
        'elastic_sigma', 'px', 10.0, (4.0, 40.0), (0.5, float('inf'))
      ),
    ),
    family='noise and sensor',
    happens=(
      'A soft part (foil, textile, rubber, food) lies differently each time, '
      'or hot air and a wavy window bend the light.'
    ),
    symptoms=(
      'straight edges look wavy', 'the part is never quite the same shape',
      'the foil is wrinkled', 'the picture shimmers over hot metal',
    ),
    caveats=(
      'Random and periodic over the picture; no folds are prevented where the '
      'amplitude exceeds elastic_sigma, and shading does not follow the shape.'
    ),
  ),
)
