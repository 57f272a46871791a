"""Noise: random changes of each value by itself.

Every function takes `key` and draws one fixed field from it: the same key
gives the same field whatever the value, so that an image changes with the
strength of the noise and not with a new draw. The fields of an image depend on
its key and shape alone.

`gaussian_noise`, `impulse_noise` and `speckle_noise` are those of ImageNet-C
and CIFAR-C at the same parameter, `shot_noise` at 1 / c.

References:
  Hendrycks and Dietterich (2019), Benchmarking neural network robustness to
    common corruptions and perturbations, arXiv:1903.12261.
  Giles (2016), Algorithm 955: approximation of the inverse Poisson cumulative
    distribution function, ACM TOMS 42(1).
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsens.perturbations import perturbation
from jaxsens.perturbations import random_fields

# Counts of a mean below _LARGE_MEAN are found by summing probabilities, which
# ends where less than 1e-7 is left; above it by an expansion, which errs by
# one count in less than one pixel of 2,000.
_LARGE_MEAN = 10.0
_NUM_TERMS = 31
# Parts in which counts are found: on a CPU a loop ends a fusion, which
# otherwise evaluates the same terms several times over.
_NUM_CHUNKS = 8


def gaussian_noise(
  image: ArrayLike, sigma: ArrayLike, *, key: jax.Array
) -> jax.Array:
  """Returns clip(image + sigma * n, 0, 1) of a fixed normal field n.

  Args:
    image: (H, W, C) in [0, 1].
    sigma: standard deviation, share of white; 0 is the identity.
    key: of the field.
  """
  image = jnp.asarray(image)
  sigma = jnp.asarray(sigma, image.dtype)
  field = random_fields.normal(key, image.shape, image.dtype)
  return jnp.clip(image + sigma * field, 0, 1)


def speckle_noise(
  image: ArrayLike, sigma: ArrayLike, *, key: jax.Array
) -> jax.Array:
  """Returns clip(image * (1 + sigma * n), 0, 1) of a fixed normal field n.

  Args:
    image: (H, W, C) in [0, 1].
    sigma: standard deviation as a share of the value; 0 is the identity.
    key: of the field.
  """
  image = jnp.asarray(image)
  sigma = jnp.asarray(sigma, image.dtype)
  field = random_fields.normal(key, image.shape, image.dtype)
  return jnp.clip(image + image * (sigma * field), 0, 1)


def shot_noise(
  image: ArrayLike, inverse_photons: ArrayLike, *, key: jax.Array
) -> jax.Array:
  """Returns min(a * N, 1) of counts N of photons with mean image / a.

  The counts are quantiles of the Poisson distribution at a fixed uniform
  field: integers, so that the result is piecewise linear in a and jumps where
  a pixel wins or loses a photon. `gaussian_shot_noise` is smooth.

  Args:
    image: (H, W, C) in [0, 1].
    inverse_photons: a = 1 / c, where c photons make white; 0 is the identity.
      ImageNet-C has c = 60, 25, 12, 5 and 3.
    key: of the field.
  """
  image = jnp.asarray(image)
  step = jnp.asarray(inverse_photons, image.dtype)
  # Counts need float32 also where the image has less.
  wide = jnp.promote_types(image.dtype, jnp.float32)
  share = random_fields.uniform(key, image.shape, wide)
  safe = jnp.where(step > 0, step, jnp.ones_like(step)).astype(wide)
  counts = _in_chunks(poisson_quantile, share, image.astype(wide) / safe)
  noisy = jnp.clip(counts * safe, 0, 1).astype(image.dtype)
  return jnp.where(step == 0, image, noisy)


def gaussian_shot_noise(
  image: ArrayLike, sigma: ArrayLike, *, key: jax.Array
) -> jax.Array:
  """Returns clip(image + sigma * sqrt(image) * n, 0, 1), n a normal field.

  The limit of `shot_noise` for many photons, with the same mean and variance
  before clipping at every count: c photons at white have sigma = 1 / sqrt(c).

  Args:
    image: (H, W, C) in [0, 1].
    sigma: standard deviation at white, share of white; 0 is the identity.
    key: of the field.
  """
  image = jnp.asarray(image)
  sigma = jnp.asarray(sigma, image.dtype)
  field = random_fields.normal(key, image.shape, image.dtype)
  # A root has no slope at zero; black keeps its value and gets slope zero.
  positive = image > 0
  root = jnp.sqrt(jnp.where(positive, image, jnp.ones_like(image)))
  deviation = jnp.where(positive, root, jnp.zeros_like(image))
  return jnp.clip(image + sigma * (deviation * field), 0, 1)


def impulse_noise(
  image: ArrayLike, share: ArrayLike, *, key: jax.Array
) -> jax.Array:
  """Sets a share of the values to 0 or 1, half of them each.

  A fixed uniform field is compared with the share: what is hit at one share is
  hit at every larger one. Channels are hit independently.

  Args:
    image: (H, W, C) in [0, 1].
    share: probability in [0, 1] of a value to be hit; 0 is the identity.
    key: of the field.
  """
  image = jnp.asarray(image)
  share = jnp.asarray(share, image.dtype)
  field = random_fields.uniform(key, image.shape, jnp.float32)
  half = (share / 2).astype(jnp.float32)
  pepper, salt = field < half, field > 1 - half
  return jnp.where(pepper, 0, jnp.where(salt, 1, image)).astype(image.dtype)


def poisson_quantile(share: jax.Array, mean: jax.Array) -> jax.Array:
  """Returns the Poisson quantile: the least k with P(N <= k) >= share.

  Args:
    share: (...) in (0, 1), floating.
    mean: (...) >= 0, of that dtype.

  Returns:
    (...) whole numbers in that dtype. Exact up to rounding for means below 10;
    above them by the expansion of Giles (2016), which differs by one at a
    share of 5e-4 of all pixels at mean 10, of 1e-4 at 25 and of 3e-5 at 60.
  """
  small = jnp.minimum(mean, _LARGE_MEAN)
  term = jnp.exp(-small)
  total, count = term, jnp.zeros_like(mean)
  for k in range(1, _NUM_TERMS + 1):
    count = count + (share > total).astype(mean.dtype)
    term = term * (small * (1 / k))
    total = total + term
  # The sum may end below a share next to one by rounding.
  count = jnp.minimum(count, jnp.floor(small + 6 * jnp.sqrt(small) + 5))
  large = jnp.maximum(mean, _LARGE_MEAN)
  root = jnp.sqrt(large)
  z = random_fields.normal_quantile(share)
  z2 = z * z
  expansion = (
    large + root * z + (2 + z2) / 6 - z * (2 + z2) / (72 * root)
    + (-8 / 405 + z2 * (7 / 810 + z2 / 270)) / large
  )
  expansion = jnp.maximum(jnp.floor(expansion), 0)
  return jnp.where(mean < _LARGE_MEAN, count, expansion)


def _in_chunks(function, *arrays):
  """Applies a pointwise function of arrays of one shape, part by part."""
  shape, size = arrays[0].shape, arrays[0].size
  parts = [
    jnp.pad(a.ravel(), (0, -size % _NUM_CHUNKS)).reshape(_NUM_CHUNKS, -1)
    for a in arrays
  ]
  result = jax.lax.map(lambda p: function(*p), parts)
  return result.reshape(-1)[:size].reshape(shape)


_HENDRYCKS = 'ImageNet-C and CIFAR-C (arXiv:1903.12261)'

PERTURBATIONS = (
  perturbation.Perturbation(
    'gaussian_noise', 'spatial', gaussian_noise, 'share of white',
    identity=0.0, sensible_range=(0.0, 0.4), limits=(0.0, 10.0), random=True,
    source=f'{_HENDRYCKS} gaussian_noise: clip(x + sigma n)',
    family='noise and sensor',
    happens=(
      'Electronics add noise of the same strength to dark and bright parts: '
      'read noise and a high gain, mostly in dim light or a warm camera.'
    ),
    symptoms=(
      'the picture is grainy', 'dark areas flicker with speckles',
      'somebody raised the gain', 'the camera runs hot',
    ),
    caveats=(
      'Independent in every value: no correlation by demosaicing, denoising '
      'or compression, and the same in all channels.'
    ),
  ),
  perturbation.Perturbation(
    'shot_noise', 'spatial', shot_noise, '1 / photons at white',
    identity=0.0, sensible_range=(0.0, 0.34), limits=(0.0, 1.0), random=True,
    differentiable=False,
    source=f'{_HENDRYCKS} shot_noise: Poisson(x c) / c at 1 / c',
    family='noise and sensor',
    happens=(
      'Few photons reach each pixel, in a short exposure or weak light, and '
      'their number varies from pixel to pixel.'
    ),
    symptoms=(
      'grain in the bright parts', 'the lamp has grown weak',
      'the exposure was shortened for the faster belt',
      'only few grey levels are left',
    ),
    caveats=(
      'Linear sensor without gain, offset or gamma; jumps where a pixel wins a '
      'photon. Use gaussian_shot_noise where a derivative is wanted.'
    ),
  ),
  perturbation.Perturbation(
    'gaussian_shot_noise', 'spatial', gaussian_shot_noise, 'share of white',
    identity=0.0, sensible_range=(0.0, 0.4), limits=(0.0, 10.0), random=True,
    source='normal limit of shot_noise: x + sigma sqrt(x) n, sigma = c^-1/2',
    family='noise and sensor',
    happens=(
      'Photons are counted as in shot_noise, many enough for their number to '
      'be normally distributed; the noise grows with the root of brightness.'
    ),
    symptoms=(
      'grain in the bright parts', 'the exposure was shortened',
      'the lamp has grown weak',
    ),
    caveats=(
      'Below about ten photons at white the real distribution is discrete and '
      'skewed, which shot_noise has and this one has not.'
    ),
  ),
  perturbation.Perturbation(
    'impulse_noise', 'spatial', impulse_noise, 'share of values',
    identity=0.0, sensible_range=(0.0, 0.3), limits=(0.0, 1.0), random=True,
    differentiable=False,
    source=f"{_HENDRYCKS} impulse_noise: skimage random_noise 's&p'",
    family='noise and sensor',
    happens=(
      'Values are lost on the way: a loose cable, sparks of a weld or '
      'interference turn single values black or white.'
    ),
    symptoms=(
      'black and white dots all over', 'salt and pepper in the picture',
      'the cable has a loose contact', 'dots when the welder fires',
    ),
    caveats=(
      'Channels are hit independently, so that dots of an RGB image are '
      'coloured; real losses often hit whole lines or packets.'
    ),
  ),
  perturbation.Perturbation(
    'speckle_noise', 'spatial', speckle_noise, 'share of the value',
    identity=0.0, sensible_range=(0.0, 0.6), limits=(0.0, 10.0), random=True,
    source=f'{_HENDRYCKS} speckle_noise: clip(x + x sigma n)',
    family='noise and sensor',
    happens=(
      'Each pixel has a gain of its own, as under coherent (laser) light on a '
      'rough surface or with an uncorrected sensor.'
    ),
    symptoms=(
      'the laser line sparkles', 'bright parts look sandy',
      'black stays clean but white is noisy',
    ),
    caveats=(
      'Laser speckle has grains of several pixels and an exponential '
      'distribution; here it is normal and independent in every value.'
    ),
  ),
)
