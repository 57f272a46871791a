"""Weather between the lens and the scene: haze, fog, frost, snow, rain.

Each function takes a float image (H, W, C) in [0, 1], scalar values and, where
it is random, a key; it returns an image of the same shape and dtype in [0, 1].
The main value 0 gives the image back exactly. One key fixes the field, so the
result is smooth in every value. The formulas of ImageNet-C are in
`published_weather`.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsens.perturbations import perturbation
from jaxsens.perturbations import textures

_ICE = (0.86, 0.93, 1.0)


def haze(
  image: ArrayLike,
  optical_depth: ArrayLike,
  airlight: ArrayLike = 0.9,
  *,
  depth: ArrayLike | None = None,
) -> jax.Array:
  """Returns the image behind a uniform scattering medium (Beer-Lambert).

      t = exp(-optical_depth depth),    x t + airlight (1 - t)

  Args:
    image: (..., C) in [0, 1].
    optical_depth: scalar >= 0, extinction times distance; 0 is the identity.
    airlight: gray level of the medium, in [0, 1].
    depth: (...), distance of each pixel relative to the one that
      `optical_depth` refers to; None is 1 everywhere.

  Returns:
    The image in the shape it came, in [0, 1].

  Raises:
    ValueError: a depth whose shape is not that of the pixels.

  References:
    Koschmieder, Theorie der horizontalen Sichtweite, 1924.
  """
  image = jnp.asarray(image)
  exponent = jnp.asarray(optical_depth, image.dtype)
  if depth is not None:
    depth = jnp.asarray(depth, image.dtype)
    if depth.shape != image.shape[:-1]:
      raise ValueError(
        f'depth must have the shape {image.shape[:-1]} of the pixels, '
        f'got {depth.shape}'
      )
    exponent = exponent * depth[..., None]
  transmission = jnp.exp(-exponent)
  airlight = jnp.asarray(airlight, image.dtype)
  return image * transmission + airlight * (1 - transmission)


def fog(
  image: ArrayLike,
  optical_depth: ArrayLike,
  airlight: ArrayLike = 0.85,
  patchiness: ArrayLike = 0.8,
  *,
  key: jax.Array,
) -> jax.Array:
  """Returns the image behind a medium that is denser in some places.

  Beer-Lambert as in `haze`, with the depth

      1 - patchiness + patchiness cloud,    cloud of mean 1.

  Args:
    image: (H, W, C) in [0, 1].
    optical_depth: scalar >= 0, mean over the picture; 0 is the identity.
    airlight: gray level of the fog, in [0, 1].
    patchiness: 0 (uniform, equal to `haze`) to 1.
    key: of the cloud.

  Returns:
    (H, W, C) in [0, 1].
  """
  image = textures.float_image(image)
  patchiness = jnp.asarray(patchiness, image.dtype)
  cloud = textures.clouds(key, image.shape[:2], image.dtype)
  depth = 1 - patchiness + patchiness * cloud
  return haze(image, optical_depth, airlight, depth=depth)


def frost(
  image: ArrayLike, opacity: ArrayLike, *, key: jax.Array
) -> jax.Array:
  """Returns the image behind a pane with frost flowers.

      x + opacity ice (white - x)

  Args:
    image: (H, W, C) in [0, 1].
    opacity: scalar in [0, 1], of the thickest ice; 0 is the identity.
    key: of the crystals, see `textures.ice`.

  Returns:
    (H, W, C) in [0, 1].
  """
  image = textures.float_image(image)
  ice = textures.ice(key, image.shape[:2], image.dtype)[..., None]
  opacity = jnp.asarray(opacity, image.dtype)
  return image + opacity * ice * (textures.colour(_ICE, image) - image)


def snow(
  image: ArrayLike,
  amount: ArrayLike,
  size: ArrayLike = 3.0,
  motion: ArrayLike = 5.0,
  angle: ArrayLike = -70.0,
  *,
  key: jax.Array,
) -> jax.Array:
  """Returns the image with falling flakes, near and far, and a white veil.

  Far flakes are half as large and move half as far; the veil is `haze` of
  optical depth amount / 4.

  Args:
    image: (H, W, C) in [0, 1].
    amount: scalar in [0, 1], number and strength of the flakes; 0 is the
      identity.
    size: scalar above 0, width of a near flake in pixels.
    motion: scalar >= 0, pixels that a near flake moves in the exposure.
    angle: degrees, direction of the motion; -90 is straight down.
    key: of the flakes.

  Returns:
    (H, W, C) in [0, 1].
  """
  image = textures.float_image(image)
  amount, size, motion = (
    jnp.asarray(a, image.dtype) for a in (amount, size, motion)
  )
  cover = jnp.zeros(image.shape[:2], image.dtype)
  key_near, key_far = jax.random.split(key)
  for layer_key, scale, spacing in (
    (key_near, 1.0, 14.0), (key_far, 0.5, 7.0)
  ):
    cover = cover + textures.specks(
      layer_key, image.shape[:2], amount, spacing=spacing,
      width=size * scale, length=motion * scale, angle=angle,
      dtype=image.dtype,
    )
  cover = 0.95 * (1 - jnp.exp(-2 * jnp.maximum(cover, 0)))[..., None]
  veiled = haze(image, amount / 4, 0.85)
  return veiled + cover * (1 - veiled)


def rain(
  image: ArrayLike,
  amount: ArrayLike,
  angle: ArrayLike = -80.0,
  length: ArrayLike = 18.0,
  *,
  key: jax.Array,
) -> jax.Array:
  """Returns the image with streaks of falling drops.

  Args:
    image: (H, W, C) in [0, 1].
    amount: scalar in [0, 1], number and strength of the streaks; 0 is the
      identity.
    angle: degrees, direction of the fall; -90 is straight down.
    length: scalar >= 0, pixels that a drop falls in the exposure (full width
      at half maximum).
    key: of the drops.

  Returns:
    (H, W, C) in [0, 1].
  """
  image = textures.float_image(image)
  streaks = textures.specks(
    key, image.shape[:2], amount, spacing=10.0, width=1.3, length=length,
    angle=angle, dtype=image.dtype,
  )
  cover = 0.7 * (1 - jnp.exp(-jnp.maximum(streaks, 0)))[..., None]
  return image + cover * (0.85 - image)


PERTURBATIONS = (
  perturbation.Perturbation(
    'haze', 'pointwise', haze, 'optical depth', identity=0.0,
    sensible_range=(0.0, 2.0), limits=(0.0, float('inf')),
    source='Beer-Lambert with airlight (Koschmieder 1924); NRTK '
      'HazePerturber: x exp(-factor depth) + sky (1 - exp(-factor depth))',
    others=(
      perturbation.Parameter(
        'haze_airlight', 'gray level', 0.9, (0.5, 1.0), (0.0, 1.0)
      ),
    ),
    family='weather and dirt',
    happens='Welding smoke, oil mist or dust in the air scatters ambient '
      'light into the camera and takes light from the part.',
    symptoms=(
      'the picture is milky', 'contrast drops when the extraction is off',
      'black is no longer black', 'smoke in front of the camera',
    ),
    caveats='All pixels at one distance unless the function is given a depth '
      'map; scattering does not blur.',
  ),
  perturbation.Perturbation(
    'fog', 'spatial', fog, 'mean optical depth', identity=0.0,
    sensible_range=(0.0, 3.0), limits=(0.0, float('inf')), random=True,
    source='Beer-Lambert through a diamond-square cloud; the cloud is that of '
      'ImageNet-C fog, whose formula is imagenet_fog',
    others=(
      perturbation.Parameter(
        'fog_airlight', 'gray level', 0.85, (0.5, 1.0), (0.0, 1.0)
      ),
      perturbation.Parameter(
        'fog_patchiness', 'share', 0.8, (0.0, 1.0), (0.0, 1.0)
      ),
    ),
    family='weather and dirt',
    happens='Steam, spray or swaths of smoke drift past: some parts of the '
      'picture fade more than others.',
    symptoms=(
      'clouds in the picture', 'steam from the washer drifts past',
      'one corner is paler than the other', 'outdoor camera in the morning',
    ),
    caveats='The density does not follow the depth of the scene; no blur.',
  ),
  perturbation.Perturbation(
    'frost', 'spatial', frost, 'opacity', identity=0.0,
    sensible_range=(0.0, 0.8), limits=(0.0, 1.0), random=True,
    source='procedural: Voronoi feathers under a cloud; ImageNet-C frost '
      'overlays photographs instead',
    family='weather and dirt',
    happens='Ice grows on the window in front of a camera in a cold store or '
      'outdoors.',
    symptoms=(
      'ice flowers on the window', 'fern patterns in the picture',
      'camera in the cold store', 'bad after a cold night',
    ),
    caveats='Ice covers and brightens; it does not refract or blur here. The '
      'crystals are drawn, not photographed.',
  ),
  perturbation.Perturbation(
    'snow', 'spatial', snow, 'amount', identity=0.0,
    sensible_range=(0.0, 1.0), limits=(0.0, 1.0), random=True,
    source='Gaussian flakes at random pixels, near and far, moved along a '
      'line; after ImageNet-C snow, whose formula is imagenet_snow',
    others=(
      perturbation.Parameter(
        'snow_size', 'px', 3.0, (1.0, 8.0), (0.5, 100.0)
      ),
      perturbation.Parameter(
        'snow_motion', 'px', 5.0, (0.0, 20.0), (0.0, 500.0)
      ),
      perturbation.Parameter('snow_angle', 'deg', -70.0, (-135.0, -45.0)),
    ),
    family='weather and dirt',
    happens='Flakes, chips or abrasive grains fly between camera and part and '
      'smear during the exposure.',
    symptoms=(
      'white dots all over', 'it snows on the outdoor line',
      'blasting grit in the picture', 'flying chips or foam',
    ),
    caveats='Flakes are white and soft; they neither settle nor cast shadows. '
      'What leaves the picture at one border comes in at the other.',
  ),
  perturbation.Perturbation(
    'rain', 'spatial', rain, 'amount', identity=0.0,
    sensible_range=(0.0, 1.0), limits=(0.0, 1.0), random=True,
    source='Gaussian streaks at random pixels; after Garg and Nayar, Vision '
      'and rain, 2007 (bright motion-blurred streaks)',
    others=(
      perturbation.Parameter('rain_angle', 'deg', -80.0, (-135.0, -45.0)),
      perturbation.Parameter(
        'rain_length', 'px', 18.0, (2.0, 40.0), (0.0, 500.0)
      ),
    ),
    family='weather and dirt',
    happens='Rain or coolant spray falls through the view and leaves bright '
      'streaks during the exposure.',
    symptoms=(
      'thin bright streaks', 'coolant sprays through the view',
      'it rains on the outdoor camera', 'all lines lean the same way',
    ),
    caveats='Streaks only: combine with fog for the veil of heavy rain and '
      'with droplets for water on the lens.',
  ),
)
