"""ImageNet-C and CIFAR-10-C at real severities: what lies between 1 and 5.

`imagenet_c(name, s)` is one of the 19 published corruptions at its published
parameters where s is a whole number, up to its draws and its rounding to 8
bits. Between whole numbers the parameters are interpolated linearly in s, but
where the parameters change the structure:

- defocus_blur: the two published kernels are blended.
- zoom_blur: the j-th zooms of the two lists are interpolated, and the weights
  of the lists, which differ in length.
- glass_blur: the two published results of one key are blended.
- spatter: water up to 3, mud from 4, a blend of the two between them.

Published quirks stay: `saturate` passes the unchanged image between 2 and 3,
and several corruptions are not monotone in s. What `snow` and the procedural
`frost` do unlike the published program is said in `published_weather`. Lengths
are in pixels whatever the size of the image: they mean what the benchmark means
at 224 x 224 and at 32 x 32.

`PERTURBATIONS` has each as a factor 'imagenet_c_<name>', 'cifar_c_<name>' of
severity 0 to 5: from 0, the identity, the image is blended linearly into that
of severity 1. The reference is in `severity_tables`.
"""

from collections.abc import Callable
import difflib
import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np

from jaxsens.perturbations import colour
from jaxsens.perturbations import convolution
from jaxsens.perturbations import elastic
from jaxsens.perturbations import jpeg
from jaxsens.perturbations import noise
from jaxsens.perturbations import perturbation
from jaxsens.perturbations import photometry
from jaxsens.perturbations import psf
from jaxsens.perturbations import published_blurs
from jaxsens.perturbations import published_spatter
from jaxsens.perturbations import published_weather
from jaxsens.perturbations import sensor
from jaxsens.perturbations import severity_tables

BENCHMARKS = tuple(severity_tables.TABLES)
_NUM_SEVERITIES = 5
# Of the Gaussian blur: four deviations of the widest.
_GAUSSIAN_REACH = 24
# Spatter is water up to the first and mud from the second.
_LAST_WATER, _FIRST_MUD = 3, 4


def imagenet_c(name: str, s: ArrayLike) -> Callable[..., jax.Array]:
  """Returns an ImageNet-C corruption of a real severity.

  Args:
    name: one of `names('imagenet_c')`.
    s: severity in [1, 5]; may be traced.

  Returns:
    A pure function (image, key) of an image (H, W, C) in [0, 1], C = 1 or 3,
    that returns the corrupted image of that shape, in [0, 1]. Corruptions that
    do not draw need no key; the others raise ValueError without.

  Raises:
    KeyError: unknown name.
    ValueError: a severity, where it is known, outside [1, 5].
  """
  return _corruption('imagenet_c', name, s)


def cifar_c(name: str, s: ArrayLike) -> Callable[..., jax.Array]:
  """Returns a CIFAR-10-C corruption of a real severity; see `imagenet_c`."""
  return _corruption('cifar_c', name, s)


def names(benchmark: str) -> tuple[str, ...]:
  """Returns the corruptions in the published order, the four extra ones last.

  Raises:
    KeyError: a benchmark that is not one of `BENCHMARKS`.
  """
  _check_known('benchmark', benchmark, BENCHMARKS)
  return tuple(severity_tables.TABLES[benchmark])


def _corruption(benchmark, name, s):
  _check_known(f'corruption of {benchmark}', name, names(benchmark))
  if not isinstance(s, jax.core.Tracer):
    if np.ndim(s) or not 1 <= s <= _NUM_SEVERITIES:
      raise ValueError(f'severity s must be a number in [1, 5], got {s}')
    s = float(s)
  return functools.partial(_corrupt, benchmark, name, s)


def _corrupt(benchmark, name, s, image, key=None):
  image = convolution.check_image(image)
  if image.shape[2] not in (1, 3):
    raise ValueError(f'image must have 1 or 3 channels, got {image.shape}')
  if isinstance(s, jax.core.Tracer):
    s = s.astype(image.dtype)
  if name not in _RANDOM:
    return _METHODS[name](benchmark, s, image)
  if key is None:
    raise ValueError(f'{name} draws and needs a key, got None')
  return _METHODS[name](benchmark, s, image, key)


def _check_known(what, name, known):
  if name not in known:
    near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.4)
    hint = f'; did you mean {" or ".join(map(repr, near))}?' if near else ''
    raise KeyError(f'unknown {what} {name!r}{hint} Known: {", ".join(known)}')


def _weights(s):
  """Returns (5,): shares of the published severities, one where s is one."""
  numpy = jnp if isinstance(s, jax.core.Tracer) else np
  distance = numpy.abs(s - np.arange(1.0, _NUM_SEVERITIES + 1))
  return numpy.clip(1 - distance, 0, 1)


def _blend(rows, s):
  """Returns rows (5, ...) between severities; exact at the published ones."""
  weights = _weights(s)
  rows = np.asarray(rows, weights.dtype)
  return (weights.reshape(-1, *(1,) * (rows.ndim - 1)) * rows).sum(0)


def _between(function):
  """Returns the method function(image, *parameters) of interpolated ones.

  The method takes the key last where it gets one.
  """

  def method(name, benchmark, s, image, *key):
    table = np.reshape(severity_tables.TABLES[benchmark][name], (5, -1))
    parameters = list(_blend(table, s))
    if name == 'elastic_transform':
      unit = severity_tables.ELASTIC_UNIT[benchmark]
      parameters = [unit * p for p in parameters]
    return function(image, *parameters, **({'key': key[0]} if key else {}))

  return method


def _shot_noise(image, photons, *, key):
  return noise.shot_noise(image, 1 / photons, key=key)


def _motion_blur(image, radius, sigma, *, key):
  angle = jax.random.uniform(key, (), image.dtype, -45, 45)
  return published_blurs.motion_blur(image, radius, sigma, angle)


def _jpeg_compression(image, quality):
  return jpeg.jpeg_codec(image, 100 - quality)


def _saturate(image, c0, c1):
  return jnp.clip(colour.hsv_saturate(image, c0, c1), 0, 1)


def _gaussian_blur(image, sigma):
  blurred = convolution.convolve_gaussian(image, sigma, reach=_GAUSSIAN_REACH)
  return jnp.clip(blurred, 0, 1)


def _defocus_blur(benchmark, s, image):
  kernel = _blend(_defocus_kernels(benchmark), s)
  return jnp.clip(convolution.convolve(image, kernel, border='reflect'), 0, 1)


@functools.cache
def _defocus_kernels(benchmark):
  """Returns (5, 2 R + 1, 2 R + 1), padded to the largest R."""
  table = severity_tables.TABLES[benchmark]['defocus_blur']
  kernels = [psf.disk_with_alias(*row) for row in table]
  side = max(map(len, kernels))
  return np.stack([
    np.pad(kernel, (side - len(kernel)) // 2) for kernel in kernels
  ])


def _zoom_blur(benchmark, s, image):
  rows, columns = (
    jnp.asarray(_blend(_zoom_positions(benchmark, n), s), image.dtype)
    for n in image.shape[:2]
  )
  shares = jnp.asarray(_blend(_zoom_shares(benchmark), s), image.dtype)
  if not isinstance(s, jax.core.Tracer):
    used = np.asarray(_blend(_zoom_shares(benchmark), s)) > 0
    rows, columns, shares = rows[used], columns[used], shares[used]

  def add(total, zoom):
    rows, columns, share = zoom
    zoomed = jnp.swapaxes(published_blurs.read_rows(image, rows), 0, 1)
    zoomed = published_blurs.read_rows(zoomed, columns)
    return total + share * zoomed, None

  # The image counts as much as a zoom that is in the list at every severity.
  total = jnp.swapaxes(image, 0, 1) * shares[0]
  total, _ = jax.lax.scan(add, total, (rows, columns, shares))
  return jnp.clip(jnp.swapaxes(total, 0, 1), 0, 1)


def _zooms(benchmark):
  table = severity_tables.TABLES[benchmark]['zoom_blur']
  return [np.arange(1, *row) for row in table]


@functools.cache
def _zoom_shares(benchmark):
  """Returns (5, Z): the weights of the zooms, zero behind the end of a list."""
  lists = _zooms(benchmark)
  shares = np.zeros((_NUM_SEVERITIES, max(map(len, lists))))
  for row, zooms in zip(shares, lists, strict=True):
    row[:len(zooms)] = 1 / (len(zooms) + 1)
  return shares


@functools.cache
def _zoom_positions(benchmark, size):
  """Returns (5, Z, size): where each pixel of each zoom is read on an axis.

  A list that has ended repeats its last zoom.
  """
  lists = _zooms(benchmark)
  num = max(map(len, lists))
  positions = np.empty((_NUM_SEVERITIES, num, size))
  for i, j in np.ndindex(_NUM_SEVERITIES, num):
    zoom = lists[i][min(j, len(lists[i]) - 1)]
    kept = int(np.ceil(size / zoom))
    stretched = max(round(kept * zoom) - 1, 1)
    scale = (kept - 1) / stretched
    positions[i, j] = (size - kept) // 2 + np.arange(size) * scale
  return positions


def _glass_blur(benchmark, s, image, key):
  total, table = 0, severity_tables.TABLES[benchmark]['glass_blur']
  for weight, (sigma, max_delta, iterations) in zip(
    _weights(s), table, strict=True
  ):
    if isinstance(s, jax.core.Tracer) or weight > 0:
      result = published_blurs.glass_blur(
        image, sigma, max_delta, iterations, key=key
      )
      total = total + jnp.asarray(weight, image.dtype) * result
  return total


def _spatter(benchmark, s, image, key):
  table = severity_tables.TABLES[benchmark]['spatter']
  traced = isinstance(s, jax.core.Tracer)
  splash = lambda s, mud: published_spatter.imagenet_spatter(
    image, *_blend(table, s), mud, key=key
  )
  if not traced and s <= _LAST_WATER:
    return splash(s, False)
  if not traced and s >= _FIRST_MUD:
    return splash(s, True)
  numpy = jnp if traced else np
  share = jnp.asarray(numpy.clip(s - _LAST_WATER, 0, 1), image.dtype)
  water = splash(numpy.minimum(s, _LAST_WATER), False)
  mud = splash(numpy.maximum(s, _FIRST_MUD), True)
  return (1 - share) * water + share * mud


_METHODS = {
  name: functools.partial(_between(function), name)
  for name, function in (
    ('gaussian_noise', noise.gaussian_noise),
    ('shot_noise', _shot_noise),
    ('impulse_noise', noise.impulse_noise),
    ('motion_blur', _motion_blur),
    ('snow', published_weather.imagenet_snow),
    ('frost', published_weather.imagenet_frost),
    ('fog', published_weather.imagenet_fog),
    ('brightness', colour.hsv_brightness),
    ('contrast', photometry.imagenet_contrast),
    ('elastic_transform', elastic.elastic_transform),
    ('pixelate', sensor.pixelate_to_scale),
    ('jpeg_compression', _jpeg_compression),
    ('speckle_noise', noise.speckle_noise),
    ('gaussian_blur', _gaussian_blur),
    ('saturate', _saturate),
  )
} | {
  'defocus_blur': _defocus_blur, 'zoom_blur': _zoom_blur,
  'glass_blur': _glass_blur, 'spatter': _spatter,
}
_RANDOM = frozenset((
  'gaussian_noise', 'shot_noise', 'impulse_noise', 'speckle_noise',
  'glass_blur', 'motion_blur', 'snow', 'frost', 'fog', 'spatter',
  'elastic_transform',
))


def _from_identity(benchmark, name, image, s, *, key=None):
  """Returns the corruption of severity 0 to 5, where 0 is the image."""
  image = convolution.check_image(image)
  s = jnp.asarray(s, image.dtype)
  published, share = jnp.maximum(s, 1), jnp.minimum(s, 1)
  if not isinstance(s, jax.core.Tracer):
    published = float(published)
  corrupted = _corrupt(benchmark, name, published, image, key)
  return (1 - share) * image + share * corrupted


# Piecewise constant or with jumps in the severity.
_JUMPING = frozenset((
  'shot_noise', 'impulse_noise', 'snow', 'spatter', 'pixelate',
  'jpeg_compression',
))
_TITLES = {'imagenet_c': 'ImageNet-C', 'cifar_c': 'CIFAR-10-C'}


def _entry(benchmark, name):
  family, happens, symptom = severity_tables.CATALOGUE[name]
  title, side = _TITLES[benchmark], severity_tables.SIDES[benchmark]
  return perturbation.Perturbation(
    f'{benchmark}_{name}', 'spatial',
    functools.partial(_from_identity, benchmark, name), 'severity',
    identity=0.0, sensible_range=(0.0, 5.0), limits=(0.0, 5.0),
    source=(
      f'{title} (Hendrycks and Dietterich 2019) {name}, parameters '
      'interpolated between severities, blended from the image below 1'
    ),
    differentiable=name not in _JUMPING, random=name in _RANDOM,
    family=family, happens=happens,
    symptoms=(
      symptom, f'which severity of {title} is this',
      'is it as bad as in the literature',
    ),
    caveats=(
      f'A scale without a unit, made for photographs of {side} x {side} '
      'pixels; has kinks at whole severities and need not grow steadily.'
    ),
  )


PERTURBATIONS = tuple(
  _entry(benchmark, name)
  for benchmark in BENCHMARKS for name in names(benchmark)
)
