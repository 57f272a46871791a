"""Binds a space of factors to perturbations: perturb(image, values, key).

The factors act in the order of the space. Three conventions are offered:

- 'fused', the default: all geometric factors are composed into one homography
  and the image is resampled once, straight to the size of the network, with
  antialiasing. Photometric factors ahead of the geometry act on the samples
  that are read, those behind it on the result.
- 'sequential': each factor in turn at the full resolution of the image, each
  geometric one with its own interpolation, then the antialiased resize. Slow;
  what a chain of torchvision calls computes.
- 'paper': the sequential chain with the conventions of the source system
  (arXiv:2506.18751): values cut to 8 bits after every step, nearest-neighbour
  rotation, corners of the tilt in a 244 x 244 box whatever the image, and hard
  borders.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsens import factors
from jaxsens.perturbations import geometry
from jaxsens.perturbations import registry

CONVENTIONS = ('fused', 'sequential', 'paper')
_PAPER_BOX = (244, 244)
# Levels of the prefilter where a factor shrinks the picture: kernels up to
# four output pixels wide, which a tilt of 20 degrees needs (1 / 0.272 = 3.7).
_NUM_LEVELS = 3


@dataclasses.dataclass(frozen=True)
class Chain:
  """The perturbations of a space, in order, for one output size.

  Attributes:
    perturbations: in the order of the factors, which is that of application.
    size: (H', W') of the output.
    convention: one of `CONVENTIONS`.
    method: 'bilinear' or 'nearest', for the geometric factors.
    fill: value of what lies outside the source image.
  """

  perturbations: tuple[registry.Perturbation, ...]
  size: tuple[int, int]
  convention: str = 'fused'
  method: str = 'bilinear'
  fill: float = 0.0

  @property
  def names(self) -> tuple[str, ...]:
    """The names of the factors, in order."""
    return tuple(p.name for p in self.perturbations)

  @property
  def identity(self) -> tuple[float, ...]:
    """The values that leave the image as it is."""
    return tuple(p.identity for p in self.perturbations)

  def describe(self) -> dict:
    """Returns what defines the result, for provenance and content hashes."""
    return {
      'perturbations': [f'{p.name}: {p.source}' for p in self.perturbations],
      'size': list(self.size), 'convention': self.convention,
      'method': self.method, 'fill': self.fill,
    }

  def prepare(self, image: ArrayLike):
    """Does the part of the work that no value changes.

    Args:
      image: (H, W, C) in [0, 1], of any size.

    Returns:
      What `apply` takes: the prefiltered image, or the image itself where the
      convention is sequential.
    """
    image = jnp.asarray(image)
    if image.ndim != 3:
      raise ValueError(f'image must be (H, W, C), got shape {image.shape}')
    if self.convention != 'fused':
      return image
    minifies = any(p.minifies for p in self.perturbations)
    return geometry.prefilter(
      image, self.size, num_levels=_NUM_LEVELS if minifies else 1
    )

  def apply(
    self, prepared, values: ArrayLike, key: jax.Array | None = None
  ) -> jax.Array:
    """Returns the perturbed image.

    Args:
      prepared: from `prepare`.
      values: (D,) physical values in the order of the factors.
      key: for perturbations that draw; the same key gives the same draw at
        every value.

    Returns:
      (H', W', C) with the size of the chain.
    """
    del key  # No perturbation draws yet.
    values = jnp.asarray(values)
    if values.shape != (len(self.perturbations),):
      raise ValueError(
        f'values must have shape ({len(self.perturbations)},) for '
        f'{self.names}, got {values.shape}'
      )
    if self.convention == 'fused':
      return self._fused(prepared, values)
    return self._sequential(prepared, values)

  def __call__(
    self, image: ArrayLike, values: ArrayLike, key: jax.Array | None = None
  ) -> jax.Array:
    """Returns the image (H', W', C) perturbed by values (D,)."""
    return self.apply(self.prepare(image), values, key)

  def _fused(self, source, values):
    first, last = _geometric_block(self.perturbations)
    homography = geometry.compose([
      p.function(v, source.source_size)
      for p, v in zip(
        self.perturbations[first:last], values[first:last], strict=True
      )
    ])
    before = lambda pixels: self._pointwise(pixels, values, 0, first)
    image = geometry.warp(
      source, homography, self.size, pointwise=before,
      method=self.method, fill=self.fill,
    )
    return self._pointwise(image, values, last, len(self.perturbations))

  def _pointwise(self, pixels, values, start, stop):
    for i in range(start, stop):
      pixels = self.perturbations[i].function(pixels, values[i])
    return pixels

  def _sequential(self, image, values):
    paper = self.convention == 'paper'
    cut = _to_8_bits if paper else (lambda x: x)
    for perturbation, value in zip(self.perturbations, values, strict=True):
      if perturbation.kind == 'pointwise':
        image = cut(perturbation.function(image, value))
        continue
      tilts = paper and perturbation.name == 'tilt'
      nearest = paper and perturbation.name == 'rotation'
      size = _PAPER_BOX if tilts else image.shape[:2]
      image = cut(geometry.transform(
        image, perturbation.function(value, size),
        method='nearest' if nearest else self.method,
        border='hard' if paper else 'zero', fill=self.fill,
      ))
    return _round_to_8_bits(image, self.size) if paper else geometry.resize(
      image, self.size
    )


def make_chain(
  space: factors.FactorSpace,
  size: tuple[int, int],
  *,
  convention: str = 'fused',
  method: str = 'bilinear',
  fill: float = 0.0,
) -> Chain:
  """Returns the chain of the perturbations that a space's factors drive.

  Args:
    space: factors named like registered perturbations, in order of application.
    size: (H', W') of the perturbed images: the network's input.
    convention: one of `CONVENTIONS`.
    method: 'bilinear', or 'nearest' for the nearest sample.
    fill: value of what lies outside the image.

  Raises:
    KeyError: a factor names no registered perturbation.
    ValueError: unknown convention, a range outside a perturbation's limits, or
      an order that cannot be fused.
  """
  if convention not in CONVENTIONS:
    raise ValueError(
      f'convention must be one of {CONVENTIONS}, got {convention!r}'
    )
  perturbations = tuple(registry.get(name) for name in space.names)
  for factor, perturbation in zip(space.factors, perturbations, strict=True):
    _check_limits(factor, perturbation)
  first, last = _geometric_block(perturbations)
  if convention == 'fused' and any(
    p.kind != 'geometric' for p in perturbations[first:last]
  ):
    raise ValueError(
      'photometric factors between geometric ones cannot be fused into one '
      f'resampling: {space.names}. Put them before or after, or use '
      "convention='sequential'"
    )
  return Chain(perturbations, tuple(size), convention, method, fill)


def _check_limits(factor, perturbation):
  lower = float(factor.distribution.lower[0])
  upper = float(factor.distribution.upper[0])
  if lower < perturbation.limits[0] or upper > perturbation.limits[1]:
    raise ValueError(
      f'factor {factor.name!r} ranges over [{lower:g}, {upper:g}] '
      f'{perturbation.unit}, outside the limits {perturbation.limits} within '
      'which the perturbation is defined'
    )


def _geometric_block(perturbations):
  """Returns the first and one past the last geometric perturbation."""
  where = [i for i, p in enumerate(perturbations) if p.kind == 'geometric']
  return (where[0], where[-1] + 1) if where else (0, 0)


def _to_8_bits(image):
  """Cuts to the next lower of 256 values, as PIL's blend and transform do."""
  # The small number keeps k / 255 at level k in spite of rounding.
  return jnp.floor(image * 255 + 1e-3) / 255


def _round_to_8_bits(image, size):
  """Resizes as PIL does, columns first, rounding to 8 bits after each axis."""
  rounded = lambda x: jnp.round(x * 255) / 255
  columns = rounded(geometry.resize(image, (image.shape[0], size[1])))
  return rounded(geometry.resize(columns, size))
