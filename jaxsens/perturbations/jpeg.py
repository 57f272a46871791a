"""JPEG compression: a smooth approximation and the codec itself.

Both do what an encoder and a decoder do together: luma and chroma, chroma at
half the resolution (4:2:0), blocks of 8 x 8, cosine transform, division by a
table and rounding, and the way back. `jpeg_codec` rounds where libjpeg does
and agrees with Pillow to a small fraction of a grey level; `jpeg` replaces the
rounding of the coefficients by a smooth function and leaves out the others.
An image whose sides are no multiples of the blocks is continued by its edge.

References:
  ITU-T Recommendation T.81 (1992), Annexes A and K; JFIF 1.02.
  Agustsson and Theis (2020), Universally quantized neural compression,
    NeurIPS (soft rounding).
"""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np

from jaxsens.perturbations import perturbation

# Tables K.1 and K.2 of T.81: steps of luma and chroma at quality 50.
_LUMA = np.array([
  [16, 11, 10, 16, 24, 40, 51, 61],
  [12, 12, 14, 19, 26, 58, 60, 55],
  [14, 13, 16, 24, 40, 57, 69, 56],
  [14, 17, 22, 29, 51, 87, 80, 62],
  [18, 22, 37, 56, 68, 109, 103, 77],
  [24, 35, 55, 64, 81, 104, 113, 92],
  [49, 64, 78, 87, 103, 121, 120, 101],
  [72, 92, 95, 98, 112, 100, 103, 99],
])
_CHROMA = np.full((8, 8), 99)
_CHROMA[:4, :4] = [
  [17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99],
]
# Orthonormal cosine transform of 8 samples, (frequency, position).
_DCT = np.sqrt(0.25) * np.cos(
  np.pi / 16 * np.arange(8)[:, None] * (2 * np.arange(8) + 1)
)
_DCT[0] *= np.sqrt(0.5)
# Weights of red, green and blue in luma (ITU-R BT.601).
_RED, _GREEN, _BLUE = 0.299, 0.587, 0.114
# Hardness of the soft rounding: 0 is none, infinity is rounding.
_HARDNESS = 20.0
# Encoders turn to 4:2:0 near quality 90; below this compression the smooth
# approximation goes gradually to full resolution of chroma.
_SUBSAMPLED_FROM = 10.0


def jpeg(image: ArrayLike, compression: ArrayLike) -> jax.Array:
  """Returns a smooth approximation of the image after JPEG.

  Steps are those of libjpeg at quality 100 - compression, not rounded, and
  vanish with the compression; from 4:4:4 at 0 the chroma comes to 4:2:0 at a
  compression of 10. Rounding is x -> [x] + tanh(a r) / (2 tanh(a / 2)) about
  the half, r the distance from it, which has a continuous derivative. At a
  compression of a few per cent the true response is a fast sawtooth of small
  amplitude; so is the derivative.

  Args:
    image: (H, W, C) in [0, 1], gray or RGB.
    compression: 100 - quality, in [0, 100); 0 is the identity.
  """
  image = jnp.asarray(image)
  _check_channels(image)
  compression = jnp.asarray(compression, image.dtype)
  some = jnp.where(compression > 0, compression, jnp.ones_like(compression))
  scale = jnp.where(some <= 50, some / 50, 50 / (100 - jnp.maximum(some, 50)))
  steps = lambda table: jnp.minimum(
    scale * jnp.asarray(table, image.dtype), 255
  )
  code = lambda plane, table: _code(plane, steps(table), _round_softly)
  height, width, channels = image.shape
  if channels == 1:
    gray = 255 * image[..., 0] - 128
    decoded = code(gray, _LUMA)[..., None]
  else:
    luma, blue, red = _to_luma_chroma(255 * image)
    luma = code(luma - 128, _LUMA) + 128
    sharp = 1 - jnp.minimum(some / _SUBSAMPLED_FROM, 1)

    def code_chroma(plane):
      half = _pad(plane, 2, 2).reshape(-(-height // 2), 2, -(-width // 2), 2)
      half = half.mean((1, 3))
      enlarge = lambda p: _enlarge(p)[:height, :width]
      return enlarge(code(half, _CHROMA)) + sharp * (plane - enlarge(half))

    decoded = _to_rgb(luma, code_chroma(blue), code_chroma(red))
  if channels == 1:
    decoded = decoded + 128
  result = jnp.clip(decoded / 255, 0, 1)
  return jnp.where(compression > 0, result, image)


def jpeg_codec(image: ArrayLike, compression: ArrayLike) -> jax.Array:
  """Returns the image, rounded to 8 bits, after libjpeg at 4:2:0.

  Args:
    image: (H, W, C) in [0, 1], gray or RGB.
    compression: 100 - quality, in [0, 99]; 0 is the identity and not quality
      100, at which rounding and chroma remain. ImageNet-C has qualities 25,
      18, 15, 10 and 7. Piecewise constant.

  Returns:
    (H, W, C), multiples of 1 / 255: the pixels that Pillow decodes from what
    it has encoded, but for rare differences of the cosine transform, which
    libjpeg evaluates in fixed point.
  """
  image = jnp.asarray(image)
  _check_channels(image)
  compression = jnp.asarray(compression, image.dtype)
  # Whole numbers up to 2**16 are exact in float32.
  wide = jnp.promote_types(image.dtype, jnp.float32)
  quality = jnp.maximum(100 - compression.astype(wide), 1)
  scale = jnp.where(quality < 50, jnp.floor(5000 / quality), 200 - 2 * quality)
  steps = lambda table: jnp.clip(
    jnp.floor((jnp.asarray(table, wide) * scale + 50) / 100), 1, 255
  )

  def code(plane, table):
    decoded = _code(plane - 128, steps(table), _round_away, whole=True)
    return jnp.clip(jnp.floor(decoded + 0.5) + 128, 0, 255)

  pixels = jnp.clip(jnp.floor(image.astype(wide) * 255 + 0.5), 0, 255)
  if image.shape[2] == 1:
    decoded = code(pixels[..., 0], _LUMA)[..., None]
  else:
    luma, blue, red = _whole_luma_chroma(pixels)
    decoded = _whole_rgb(code(luma, _LUMA), *(
      _enlarge_whole(code(_halve_whole(plane), _CHROMA), luma.shape)
      for plane in (blue, red)
    ))
  return jnp.where(compression == 0, image, (decoded / 255).astype(image.dtype))


def _check_channels(image):
  if image.ndim != 3 or image.shape[2] not in (1, 3):
    raise ValueError(
      f'image must be (H, W, 1) or (H, W, 3) for JPEG, got {image.shape}'
    )


def _pad(plane, rows, columns):
  """Continues a plane by its edge to multiples of rows and columns."""
  height, width = plane.shape
  return jnp.pad(plane, ((0, -height % rows), (0, -width % columns)), 'edge')


def _code(plane, steps, rounding, *, whole=False):
  """Cosine transform, rounding in units of the steps, and back."""
  height, width = plane.shape
  padded = _pad(plane, 8, 8)
  blocks = padded.reshape(padded.shape[0] // 8, 8, padded.shape[1] // 8, 8)
  dct = jnp.asarray(_DCT, plane.dtype)
  transform = lambda form, b: jnp.einsum(
    form, dct, b, dct, precision=jax.lax.Precision.HIGHEST
  )
  coefficients = transform('uy,aybx,vx->aubv', blocks)
  if whole:  # libjpeg divides eight times the coefficient, a whole number.
    coefficients = jnp.round(8 * coefficients) / 8
  steps = steps[:, None, :]
  coefficients = rounding(coefficients / steps) * steps
  blocks = transform('uy,aubv,vx->aybx', coefficients)
  return blocks.reshape(padded.shape)[:height, :width]


def _round_away(x):
  return jnp.sign(x) * jnp.floor(jnp.abs(x) + 0.5)


def _round_softly(x):
  below = jnp.floor(x)
  step = jnp.tanh(_HARDNESS * (x - below - 0.5))
  return below + 0.5 + step * (0.5 / math.tanh(_HARDNESS / 2))


def _to_luma_chroma(pixels):
  """Returns luma and the differences to blue and red, about zero."""
  red, green, blue = (pixels[..., k] for k in range(3))
  luma = _RED * red + _GREEN * green + _BLUE * blue
  return luma, (blue - luma) / (2 - 2 * _BLUE), (red - luma) / (2 - 2 * _RED)


def _to_rgb(luma, blue_difference, red_difference):
  blue = luma + (2 - 2 * _BLUE) * blue_difference
  red = luma + (2 - 2 * _RED) * red_difference
  green = (luma - _RED * red - _BLUE * blue) / _GREEN
  return jnp.stack([red, green, blue], -1)


def _fixed(factor):
  """A factor of libjpeg's colour conversion: whole, in units of 2**-16."""
  return int(abs(factor) * 2**16 + 0.5) * (1 if factor > 0 else -1)


def _whole_luma_chroma(pixels):
  red, green, blue = (pixels[..., k].astype(jnp.int32) for k in range(3))
  half = 2**15
  luma = (
    _fixed(_RED) * red + _fixed(_GREEN) * green + _fixed(_BLUE) * blue + half
  )
  centre = 128 * 2**16 + half - 1
  to_blue = (
    _fixed(-0.168735892) * red + _fixed(-0.331264108) * green + half * blue
  )
  to_red = (
    half * red + _fixed(-0.418687589) * green + _fixed(-0.081312411) * blue
  )
  return tuple(
    (plane >> 16).astype(pixels.dtype)
    for plane in (luma, to_blue + centre, to_red + centre)
  )


def _whole_rgb(luma, blue_difference, red_difference):
  to_blue, to_red = (
    plane.astype(jnp.int32) - 128 for plane in (blue_difference, red_difference)
  )
  half = 2**15
  shifts = (
    _fixed(1.402) * to_red,
    _fixed(-0.344136286) * to_blue + _fixed(-0.714136286) * to_red,
    _fixed(1.772) * to_blue,
  )
  shifts = jnp.stack([(shift + half) >> 16 for shift in shifts], -1)
  return jnp.clip(luma[..., None] + shifts.astype(luma.dtype), 0, 255)


def _halve_whole(plane):
  """Means of 2 x 2; halves are rounded down and up in turn along a row."""
  # Columns are continued to whole blocks ahead of the means, rows behind them.
  padded = _pad(plane, 2, 16)
  rows, columns = padded.shape[0] // 2, padded.shape[1] // 2
  total = padded.reshape(rows, 2, columns, 2).sum((1, 3))
  bias = 1 + jnp.arange(columns, dtype=plane.dtype) % 2
  return jnp.floor((total + bias) / 4)


def _enlarge(plane):
  """Doubles a plane, each sample by 3/4 of the next one and 1/4 of another."""
  for axis in (0, 1):
    plane = _interleave(*_thirds(plane, axis), axis) / 4
  return plane


def _enlarge_whole(plane, size):
  height, width = size
  plane = plane[:-(-height // 2), :-(-width // 2)]
  if plane.shape[1] <= 2:  # libjpeg repeats samples where there are so few.
    plane = jnp.repeat(jnp.repeat(plane, 2, 0), 2, 1)
  else:
    plane = _interleave(*_thirds(plane, 0), 0)
    left, right = _thirds(plane, 1)
    plane = _interleave(
      jnp.floor((left + 8) / 16), jnp.floor((right + 7) / 16), 1
    )
  return plane[:height, :width]


def _thirds(plane, axis):
  """Returns three of each sample and one of its neighbour, before and after."""
  size = plane.shape[axis]
  take = lambda start, stop: jax.lax.slice_in_dim(plane, start, stop, axis=axis)
  before = jnp.concatenate([take(0, 1), take(0, size - 1)], axis)
  after = jnp.concatenate([take(1, size), take(size - 1, size)], axis)
  return 3 * plane + before, 3 * plane + after


def _interleave(first, second, axis):
  shape = list(first.shape)
  shape[axis] *= 2
  return jnp.stack([first, second], axis + 1).reshape(shape)


_OTHERS = dict(
  unit='100 - quality', identity=0.0, sensible_range=(0.0, 95.0),
  limits=(0.0, 99.0), family='noise and sensor',
  happens=(
    'The camera or the recorder compresses the picture on its way to the '
    'computer or to the archive.'
  ),
  symptoms=(
    'squares in smooth areas', 'ringing around edges', 'colours bleed',
    'fine texture is gone', 'old pictures were stored as JPEG',
  ),
)

PERTURBATIONS = (
  perturbation.Perturbation(
    'jpeg', 'spatial', jpeg,
    source=(
      'ITU-T T.81 with the tables of libjpeg at quality 100 - value and soft '
      'rounding (Agustsson and Theis 2020)'
    ),
    caveats=(
      'Smooth approximation for derivatives and expansions; jpeg_codec has '
      'what a file would give. Standard tables: cameras may have their own.'
    ),
    **_OTHERS,
  ),
  perturbation.Perturbation(
    'jpeg_codec', 'spatial', jpeg_codec, differentiable=False,
    source=(
      'ImageNet-C (arXiv:1903.12261) jpeg_compression: libjpeg through Pillow '
      'at quality 100 - value, 4:2:0'
    ),
    caveats=(
      'Piecewise constant. 0 passes the image through, which quality 100 of a '
      'file does not. Standard tables, no progressive or optimised ones.'
    ),
    **_OTHERS,
  ),
)
