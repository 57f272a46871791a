"""Blur and colour errors on the way through the lens.

Every function takes an image (H, W, C) of floats in [0, 1], gray or RGB, and
scalars that may be traced; lengths are in pixels of this image. The main value
that means "nothing happens" gives the image back bit by bit whatever the other
values are, with finite derivatives. Beyond the image the outermost pixel is
repeated ('edge'), but for `defocus`, which mirrors at it ('reflect'), as the
benchmark ImageNet-C does. Results stay in [0, 1]; the rounding that would leave
it is cut without touching the derivative.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np

from jaxsens.perturbations import convolution
from jaxsens.perturbations import interpolation
from jaxsens.perturbations import perturbation
from jaxsens.perturbations import psf
from jaxsens.perturbations import random_fields

_MAX_SIGMA = 16.0
_MAX_RADIUS = 16.0
_MAX_LENGTH = 60.0
_MAX_DISPLACEMENT = 6.0
_MAX_SOFTNESS = 0.5
# 2**4 zooms: neighbours are less than 2 px apart at the corner of 224 x 224
# pixels at the largest zoom of ImageNet-C.
_ZOOM_DOUBLINGS = 4


def gaussian_blur(image: ArrayLike, sigma: ArrayLike) -> jax.Array:
  """Returns the image convolved with a Gaussian.

  Args:
    image: (H, W, C) in [0, 1].
    sigma: standard deviation in pixels, scalar in [0, 16]; 0 is the identity.

  Returns:
    (H, W, C); equal to `scipy.ndimage.gaussian_filter` with mode 'nearest' and
    a truncation at 64 pixels. Sampled weights: below 0.3 px nothing changes.
  """
  image = convolution.check_image(image)
  result = convolution.convolve_gaussian(
    image, sigma, reach=int(4 * _MAX_SIGMA)
  )
  return _settle(image, result, sigma, 0)


def defocus(image: ArrayLike, radius: ArrayLike) -> jax.Array:
  """Returns the image convolved with a disk, the blur of a lens out of focus.

  Args:
    image: (H, W, C) in [0, 1].
    radius: of the circle of confusion in pixels, scalar in [0, 16]; 0 is the
      identity, and so is everything below half a pixel.

  Returns:
    (H, W, C). The edge of the disk is one pixel wide (`psf.disk`).
  """
  image = convolution.check_image(image)
  kernel = psf.disk(jnp.asarray(radius, image.dtype), int(_MAX_RADIUS))
  result = convolution.convolve(image, kernel, border='reflect')
  return _settle(image, result, radius, 0)


def motion_blur(
  image: ArrayLike, length: ArrayLike, angle: ArrayLike = 0.0
) -> jax.Array:
  """Returns the mean of the image over a straight path of that length.

  Args:
    image: (H, W, C) in [0, 1].
    length: of the path during the exposure in pixels, scalar in [0, 60]; 0 is
      the identity.
    angle: of the path in degrees, counter-clockwise, 0 along x; of period 180.

  Returns:
    (H, W, C), smooth in both values (`psf.line`).
  """
  image = convolution.check_image(image)
  kernel = psf.line(
    jnp.asarray(length, image.dtype), angle, int(_MAX_LENGTH) // 2
  )
  result = convolution.convolve(image, kernel, border='edge')
  return _settle(image, result, length, 0)


def zoom_blur(image: ArrayLike, max_zoom: ArrayLike) -> jax.Array:
  """Returns the mean of the image over zooms about its centre, 1 to max_zoom.

  The mean of the 16 zooms max_zoom^(j / 15), j = 0 ... 15, in four doublings:

      image <- (image + zoomed by max_zoom^(2^i / 15)) / 2,  i = 0 ... 3

  with bilinear interpolation, so that a pixel far from the centre is
  interpolated twice on average.

  Args:
    image: (H, W, C) in [0, 1].
    max_zoom: largest zoom, scalar in [1, 2]; 1 is the identity.

  Returns:
    (H, W, C). Nothing beyond the image is needed.
  """
  image = convolution.check_image(image)
  max_zoom = jnp.asarray(max_zoom, image.dtype)
  exponents = 2.0 ** np.arange(_ZOOM_DOUBLINGS) / (2**_ZOOM_DOUBLINGS - 1)

  def double(result, exponent):
    grid = interpolation.zoomed_grid(result, max_zoom**exponent)
    zoomed = interpolation.bilinear(result, *grid)
    return (result + zoomed) / 2, None

  # A loop, because XLA would fuse gathers in a row and read 4^4 times.
  result, _ = jax.lax.scan(double, image, jnp.asarray(exponents, image.dtype))
  return _settle(image, result, max_zoom, 1)


def glass_blur(
  image: ArrayLike,
  displacement: ArrayLike,
  softness: ArrayLike = 0.4,
  *,
  key: jax.Array,
) -> jax.Array:
  """Returns the image through rough glass: displaced at random, then blurred.

      out = G(softness · displacement) image(p + displacement · u(p))

  with u(p) uniform in [-1, 1]², independent from pixel to pixel and fixed by
  the key, and G a Gaussian of that standard deviation.

  Args:
    image: (H, W, C) in [0, 1].
    displacement: largest displacement along an axis in pixels, scalar in
      [0, 6]; 0 is the identity.
    softness: standard deviation of the blur per displacement, in [0, 0.5].
    key: of the random field.

  Returns:
    (H, W, C), differentiable in both values at a fixed key.
  """
  image = convolution.check_image(image)
  height, width, _ = image.shape
  displacement = jnp.asarray(displacement, image.dtype)
  softness = jnp.asarray(softness, image.dtype)
  down, right = random_fields.uniform_pairs(key, (height, width), image.dtype)
  rows, columns = interpolation.pixel_grid(image)
  shaken = interpolation.bilinear(
    image, rows + displacement * down, columns + displacement * right
  )
  result = convolution.convolve_gaussian(
    shaken, softness * displacement,
    reach=int(4 * _MAX_DISPLACEMENT * _MAX_SOFTNESS),
  )
  return _settle(image, result, displacement, 0)


def chromatic_shift(image: ArrayLike, shift: ArrayLike) -> jax.Array:
  """Returns the image with red enlarged and blue shrunk about the centre.

  Lateral chromatic aberration: with ρ = √(H² + W²) / 2 the distance of the
  corner, red is scaled by 1 + shift / ρ, blue by 1 - shift / ρ, with bilinear
  interpolation; green stays.

  Args:
    image: (H, W, C) in [0, 1]. With C other than 3 it is given back.
    shift: of red outwards at the corner in pixels, scalar in [-32, 32],
      smaller than ρ; 0 is the identity.

  Returns:
    (H, W, C).
  """
  image = convolution.check_image(image)
  height, width, channels = image.shape
  if channels != 3:
    return image
  share = jnp.asarray(shift, image.dtype) * (2 / (height**2 + width**2) ** 0.5)
  # Past the centre the picture would turn over.
  share = jnp.clip(share, -0.9, 0.9)
  red, blue = (
    interpolation.bilinear(
      image[..., i:i + 1], *interpolation.zoomed_grid(image, 1 + sign * share)
    )
    for i, sign in ((0, 1), (2, -1))
  )
  result = jnp.concatenate([red, image[..., 1:2], blue], -1)
  return _settle(image, result, share, 0)


def _settle(image, result, value, identity):
  """Returns the result in [0, 1], or the image itself at the identity.

  The derivative is that of the result, at the identity as elsewhere.
  """
  at_identity = jnp.asarray(value) == identity
  exact = jnp.where(at_identity, image, jnp.clip(result, 0, 1))
  return jax.lax.stop_gradient(exact) + (
    result - jax.lax.stop_gradient(result)
  )


PERTURBATIONS = (
  perturbation.Perturbation(
    'gaussian_blur', 'spatial', gaussian_blur, 'px',
    identity=0.0, sensible_range=(0.0, 4.0), limits=(0.0, _MAX_SIGMA),
    source=(
      'scipy.ndimage.gaussian_filter, mode nearest; severity table of '
      'ImageNet-C gaussian_blur (sigma 1, 2, 3, 4, 6 at 224 px)'
    ),
    family='optics',
    happens=(
      'The whole picture is evenly soft: a cheap or stained lens, a protective '
      'window with a film of grease, a sensor filter, or software smoothing.'
    ),
    symptoms=(
      'everything looks slightly soft', 'fine scratches vanish',
      'the edges are no longer sharp', 'like through a greasy window',
    ),
    caveats=(
      'The same blur everywhere; a real lens is softer in the corners. '
      'Below 0.3 px nothing changes because the weights are sampled.'
    ),
  ),
  perturbation.Perturbation(
    'defocus', 'spatial', defocus, 'px',
    identity=0.0, sensible_range=(0.0, 6.0), limits=(0.0, _MAX_RADIUS),
    source=(
      'uniform disk of geometric optics with an edge of one pixel; '
      'ImageNet-C defocus_blur (radius 3, 4, 6, 8, 10 at 224 px)'
    ),
    family='optics',
    happens=(
      'The part lies before or behind the plane in focus: the fixture moved, '
      'the part is taller than usual, or the focus ring has worked loose.'
    ),
    symptoms=(
      'out of focus', 'tall parts are blurred', 'bright dots become discs',
      'blurred since the lens was touched',
    ),
    caveats=(
      'One depth for the whole picture, a round aperture, no diffraction and '
      'no change of magnification. Radii below half a pixel change nothing.'
    ),
  ),
  perturbation.Perturbation(
    'motion_blur', 'spatial', motion_blur, 'px',
    identity=0.0, sensible_range=(0.0, 20.0), limits=(0.0, _MAX_LENGTH),
    source=(
      'even motion along a straight line, mean over the path; '
      'torchvision has none, kornia motion_blur rounds the line to pixels'
    ),
    others=(
      perturbation.Parameter(
        'motion_blur_angle', 'deg', 0.0, sensible_range=(-90.0, 90.0)
      ),
    ),
    family='optics',
    happens=(
      'Part or camera moves while the shutter is open: a belt that does not '
      'stop, a robot that has not settled, an exposure that is too long.'
    ),
    symptoms=(
      'smeared in the direction of the belt', 'streaks behind bright spots',
      'sharp across but not along the line', 'blurred only at full speed',
      'the housing vibrates',
    ),
    caveats=(
      'Even speed along a straight line, the same for the whole picture; no '
      'rolling shutter. Vibration dwells at its turning points instead.'
    ),
  ),
  perturbation.Perturbation(
    'zoom_blur', 'spatial', zoom_blur, 'largest zoom',
    identity=1.0, sensible_range=(1.0, 1.3), limits=(1.0, 2.0),
    source=(
      'mean over zooms about the centre; ImageNet-C zoom_blur (largest zoom '
      '1.10, 1.15, 1.20, 1.24, 1.30)'
    ),
    family='optics',
    happens=(
      'Camera and part approach each other while the shutter is open, such as '
      'a camera on a moving robot arm or a lift that has not stopped.'
    ),
    symptoms=(
      'streaks that run to the centre', 'the corners are smeared',
      'the middle is sharp and the border is not',
    ),
    caveats=(
      'The motion is along the optical axis and aims at the centre of the '
      'image; 16 zooms, which show as separate edges in very large images.'
    ),
  ),
  perturbation.Perturbation(
    'glass_blur', 'spatial', glass_blur, 'px',
    identity=0.0, sensible_range=(0.0, 4.0), limits=(0.0, _MAX_DISPLACEMENT),
    source=(
      'after ImageNet-C glass_blur (displacement 1, 2, 2, 3, 4 px): random '
      'displacement and Gaussian, made differentiable; the published shuffle '
      'is in published_blurs'
    ),
    random=True,
    others=(
      perturbation.Parameter(
        'glass_blur_softness', 'px per px', 0.4, sensible_range=(0.2, 0.5),
        limits=(0.0, _MAX_SOFTNESS),
      ),
    ),
    family='optics',
    happens=(
      'The camera looks through rough, etched or sandblasted glass, or '
      'through a protective window scratched by years of wiping.'
    ),
    symptoms=(
      'like through frosted glass', 'edges look frayed',
      'grainy and soft at once', 'the window is worn',
    ),
    caveats=(
      'Displacements are independent from pixel to pixel, without the larger '
      'waves of pressed glass, and light is not scattered far (no haze).'
    ),
  ),
  perturbation.Perturbation(
    'chromatic_shift', 'spatial', chromatic_shift, 'px at the corner',
    identity=0.0, sensible_range=(-3.0, 3.0), limits=(-32.0, 32.0),
    source=(
      'lateral chromatic aberration to first order: magnification linear in '
      'the wavelength, red and blue opposite about green'
    ),
    family='optics',
    happens=(
      'The lens magnifies red and blue differently: a simple or wrong lens, or '
      'one used far from its distance, or with infrared light mixed in.'
    ),
    symptoms=(
      'coloured fringes at edges', 'red and blue rims towards the corners',
      'colours do not lie on top of each other',
    ),
    caveats=(
      'Linear in the distance from the centre, no axial chromatic blur; '
      'a gray image is given back unchanged.'
    ),
  ),
)
