"""The sensor: rows, defective pixels, grey levels and resolution.

References:
  Hendrycks and Dietterich (2019), Benchmarking neural network robustness to
    common corruptions and perturbations, arXiv:1903.12261 (pixelate).
"""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsens.perturbations import perturbation
from jaxsens.perturbations import random_fields


def row_banding(
  image: ArrayLike, amplitude: ArrayLike, period: ArrayLike, phase: ArrayLike
) -> jax.Array:
  """Returns clip(image * (1 + amplitude * sin(2 pi y / period + phase)), 0, 1).

  Args:
    image: (H, W, C) in [0, 1].
    amplitude: of the gain; 0 is the identity.
    period: rows of one cycle, > 0.
    phase: degrees, of the upper edge of the image.
  """
  image = jnp.asarray(image)
  amplitude, period, phase = (
    jnp.asarray(v, image.dtype) for v in (amplitude, period, phase)
  )
  y = jnp.arange(image.shape[0], dtype=image.dtype) + 0.5
  wave = jnp.sin(2 * math.pi * y / period + phase * (math.pi / 180))
  return jnp.clip(image * (1 + amplitude * wave[:, None, None]), 0, 1)


def row_noise(
  image: ArrayLike, sigma: ArrayLike, *, key: jax.Array
) -> jax.Array:
  """Returns clip(image + sigma * n, 0, 1), n a normal number for each row.

  Args:
    image: (H, W, C) in [0, 1].
    sigma: standard deviation, share of white; 0 is the identity.
    key: of the numbers, which all channels share.
  """
  image = jnp.asarray(image)
  sigma = jnp.asarray(sigma, image.dtype)
  rows = random_fields.normal(key, (image.shape[0], 1, 1), image.dtype)
  return jnp.clip(image + sigma * rows, 0, 1)


def dead_pixels(
  image: ArrayLike, share: ArrayLike, hot: ArrayLike, *, key: jax.Array
) -> jax.Array:
  """Sets a share of the pixels to black or white in all channels.

  What is defective at one share is so at every larger one.

  Args:
    image: (H, W, C) in [0, 1].
    share: probability in [0, 1] of a pixel to be defective; 0 is the identity.
    hot: share of the defective pixels that are white.
    key: of the sensor: keep it the same for all images of one camera.
  """
  image = jnp.asarray(image)
  share, hot = (jnp.asarray(v, jnp.float32) for v in (share, hot))
  field = random_fields.uniform(key, (*image.shape[:2], 1), jnp.float32)
  black, white = field < share * (1 - hot), field > 1 - share * hot
  stuck = jnp.where(black, 0, jnp.where(white, 1, image))
  return stuck.astype(image.dtype)


def quantisation(image: ArrayLike, step: ArrayLike) -> jax.Array:
  """Returns the image rounded to multiples of a step.

  Args:
    image: (H, W, C) in [0, 1].
    step: distance of the levels, share of white; B bits have
      step = 1 / (2**B - 1). 0 is the identity.
  """
  image = jnp.asarray(image)
  step = jnp.asarray(step, image.dtype)
  safe = jnp.where(step > 0, step, jnp.ones_like(step))
  levels = jnp.clip(jnp.round(image / safe) * safe, 0, 1)
  return jnp.where(step > 0, levels, image)


def pixelate(image: ArrayLike, loss: ArrayLike) -> jax.Array:
  """Replaces the image by square blocks, 1 / (1 - loss) pixels wide.

  A block has the mean of what it covers, and a pixel the mean of the blocks
  that it lies in, both weighted by area. The image is therefore continuous in
  the loss; blocks start at the upper left corner.

  Args:
    image: (H, W, C) in [0, 1].
    loss: share of the resolution that is lost, in [0, 1); 0 is the identity.
  """
  image = jnp.asarray(image)
  loss = jnp.asarray(loss, image.dtype)
  height, width, _ = image.shape
  side = 1 / jnp.maximum(1 - loss, 1 / (2 * max(height, width)))
  blocks = _apply(
    image, _block_matrix(side, height), _block_matrix(side, width)
  )
  # The image itself on every device, with the slope of the blocks.
  unchanged = image + (blocks - jax.lax.stop_gradient(blocks))
  return jnp.where(loss == 0, unchanged, blocks)


def pixelate_to_scale(image: ArrayLike, scale: ArrayLike) -> jax.Array:
  """Returns the pixelation of ImageNet-C, without its rounding to 8 bits.

  Pillow's `resize` to floor(scale * size) with BOX and back with NEAREST: a
  pixel counts for the one block that its centre lies in. Jumps in the scale.
  Where a centre lies on an edge, Pillow decides by rounding; this happens in
  odd sizes and where the blocks repeat, but not at the published parameters.

  Args:
    image: (H, W, C) in [0, 1].
    scale: in (0, 1]; ImageNet-C has 0.6, 0.5, 0.4, 0.3 and 0.25.
  """
  image = jnp.asarray(image)
  scale = jnp.asarray(scale, image.dtype)
  return _apply(image, *(_pillow_matrix(scale, n) for n in image.shape[:2]))


def _block_matrix(side, size):
  """Returns (size, size): what each pixel takes from which pixel."""
  start = jnp.arange(size, dtype=side.dtype)
  first = jnp.floor(start / side)
  # Blocks are not narrower than a pixel, so that it lies in two at most; the
  # one before grows into it where their edges meet, and adds to the slope.
  return sum(
    _block_share(block, start, side) for block in (first - 1, first, first + 1)
  )


def _block_share(block, start, side):
  size = start.shape[0]
  # Cut by `where`, whose slope at a kink is that for growing blocks.
  inside = lambda edge: jnp.where(edge < size, edge, size)
  lower, upper = inside(block * side), inside((block + 1) * side)
  share_left_of = lambda x: jnp.where(x < 0, 0, jnp.where(x < 1, x, 1))
  overlap = lambda left, lower, upper: (
    share_left_of(upper - left) - share_left_of(lower - left)
  )
  covered = overlap(start[None], lower[:, None], upper[:, None])
  own = overlap(start, lower, upper)
  extent = upper - lower
  share = jnp.where(extent > 0, own / jnp.where(extent > 0, extent, 1), 0)
  return share[:, None] * covered


def _pillow_matrix(scale, size):
  num_blocks = jnp.maximum(jnp.floor(scale * size), 1)
  # Whole numbers, so that no rounding moves a centre over an edge: twice the
  # centre times the number of blocks, in units of size / 2.
  twice = 2 * jnp.arange(size, dtype=jnp.int32) + 1
  position = twice * num_blocks.astype(jnp.int32)
  read = position // (2 * size)
  covers = (position - 1) // (2 * size)
  same = (read[:, None] == covers[None]).astype(scale.dtype)
  return same / jnp.maximum(same.sum(1, keepdims=True), 1)


def _apply(image, rows, columns):
  return jnp.einsum(
    'ih,hwc,jw->ijc', rows, image, columns,
    precision=jax.lax.Precision.HIGHEST,
  )


_INFINITE = float('inf')

PERTURBATIONS = (
  perturbation.Perturbation(
    'row_banding', 'spatial', row_banding, 'share of the brightness',
    identity=0.0, sensible_range=(0.0, 0.5), limits=(0.0, 1.0),
    source='flicker under a rolling shutter: x (1 + a sin(2 pi y / p + phi))',
    others=(
      perturbation.Parameter(
        'row_banding_period', 'px', 16.0, (2.0, 200.0), (0.1, _INFINITE)
      ),
      perturbation.Parameter('row_banding_phase', 'deg', 0.0, (0.0, 360.0)),
    ),
    family='noise and sensor',
    happens=(
      'The lamp flickers with the mains or its dimmer while the rolling '
      'shutter reads row after row.'
    ),
    symptoms=(
      'dark bands across the picture', 'bands wander from picture to picture',
      'stripes since the lamps were dimmed', 'the LED driver was changed',
    ),
    caveats=(
      'One sine; pulsed lamps have harmonics. The bands lie along the rows, '
      'so that a rotated camera needs a rotation after it.'
    ),
  ),
  perturbation.Perturbation(
    'row_noise', 'spatial', row_noise, 'share of white',
    identity=0.0, sensible_range=(0.0, 0.1), limits=(0.0, 10.0), random=True,
    source='row temporal noise (EMVA 1288): x + sigma n(y)',
    family='noise and sensor',
    happens=(
      'The readout adds an offset of its own to each row: a noisy supply or '
      'interference of a drive with the camera.'
    ),
    symptoms=(
      'thin horizontal lines', 'lines when the drive runs',
      'each row has a slightly different brightness',
    ),
    caveats='Independent rows; column noise and slow drifts are left out.',
  ),
  perturbation.Perturbation(
    'dead_pixels', 'spatial', dead_pixels, 'share of pixels',
    identity=0.0, sensible_range=(0.0, 0.05), limits=(0.0, 1.0), random=True,
    differentiable=False,
    source='stuck-at faults: 0 or 1 with probability share',
    others=(
      perturbation.Parameter(
        'dead_pixels_hot', 'share of the defects', 0.5, (0.0, 1.0), (0.0, 1.0),
        differentiable=False,
      ),
    ),
    family='noise and sensor',
    happens=(
      'Pixels of an ageing or irradiated sensor stay black or white, always '
      'the same ones.'
    ),
    symptoms=(
      'the same dots in every picture', 'white dots at long exposures',
      'the camera is old', 'dots stay when the part is moved',
    ),
    caveats=(
      'Whole pixels without the spread that demosaicing gives a defect; take '
      'the same key for all images of a camera.'
    ),
  ),
  perturbation.Perturbation(
    'quantisation', 'spatial', quantisation, 'share of white',
    identity=0.0, sensible_range=(0.0, 0.34), limits=(0.0, 1.0),
    differentiable=False,
    source='uniform rounding: step round(x / step); B bits: 1 / (2^B - 1)',
    family='noise and sensor',
    happens=(
      'The picture is stored with few grey levels, or a dark picture was '
      'brightened afterwards and only few levels were in it.'
    ),
    symptoms=(
      'steps in smooth shading', 'contour lines on curved surfaces',
      'only a few grey levels', 'the converter lost bits',
    ),
    caveats=(
      'Levels at multiples of the step, without dithering; white stays white '
      'only where 1 / step is whole.'
    ),
  ),
  perturbation.Perturbation(
    'pixelate', 'spatial', pixelate, 'share of the resolution',
    identity=0.0, sensible_range=(0.0, 0.75), limits=(0.0, 0.99),
    source=(
      'ImageNet-C (arXiv:1903.12261) pixelate at scale 1 - loss, with blocks '
      'weighted by area'
    ),
    family='noise and sensor',
    happens=(
      'The camera is too coarse or too far away, or the picture was stored '
      'small and enlarged without interpolation.'
    ),
    symptoms=(
      'the picture consists of squares', 'edges have steps',
      'small marks have disappeared', 'binning is switched on',
    ),
    caveats=(
      'Blocks at fractional positions are drawn with grey edges, where '
      'ImageNet-C jumps by whole pixels. No optical blur ahead of it.'
    ),
  ),
)
