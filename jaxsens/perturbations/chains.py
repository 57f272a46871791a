"""Binds a space of factors to perturbations: perturb(image, values, key).

The factors act in the order of the space; those that drive the same
perturbation act together, where the first of them stands. Three conventions
are offered:

- 'fused', the default: all geometric factors are composed into one map of
  coordinates and the image is resampled once, straight to the size of the
  network, with antialiasing. Pointwise factors ahead of the geometry act on
  the samples that are read, those behind it, and all spatial ones (blur,
  noise, dirt), on the result: their lengths are pixels of the network.
- 'sequential': each factor in turn at the full resolution of the image, each
  geometric one with its own interpolation, then the antialiased resize. Slow;
  what a chain of torchvision calls computes.
- 'paper': the sequential chain with the conventions of the source system
  (arXiv:2506.18751): values cut to 8 bits after every step, nearest-neighbour
  rotation, corners of the tilt in a 244 x 244 box whatever the image, and hard
  borders.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np

from jaxsens import factors
from jaxsens.perturbations import geometry
from jaxsens.perturbations import perturbation as perturbation_lib
from jaxsens.perturbations import registry

CONVENTIONS = ('fused', 'sequential', 'paper')
_PAPER_BOX = (244, 244)
# Levels of the prefilter where a factor shrinks the picture: kernels up to
# four output pixels wide, which a tilt of 20 degrees needs (1 / 0.272 = 3.7).
_NUM_LEVELS = 3


@dataclasses.dataclass(frozen=True)
class Step:
  """A perturbation and the factors that drive it.

  Attributes:
    perturbation: what is done.
    columns: for each of its parameters the position of its factor, or None
      where it keeps its default.
  """

  perturbation: perturbation_lib.Perturbation
  columns: tuple[int | None, ...]

  def describe(self) -> str:
    """Returns name, source, and which factors drive what."""
    text = f'{self.perturbation.name}: {self.perturbation.source}'
    if self.columns[1:] or self.columns[0] is None:
      driven = {
        p.name: p.default if column is None else f'value {column}'
        for p, column in zip(
          self.perturbation.parameters, self.columns, strict=True
        )
      }
      text += f'; {driven}'
    return text

  def values(self, row: jax.Array) -> list:
    """Values of the parameters from the values (D,) of all factors."""
    return [
      jnp.asarray(parameter.default, row.dtype) if column is None
      else row[column]
      for parameter, column in zip(
        self.perturbation.parameters, self.columns, strict=True
      )
    ]


@dataclasses.dataclass(frozen=True)
class Chain:
  """The perturbations of a space, in order, for one output size.

  Attributes:
    names: of the factors, in the order of the values.
    steps: in the order of application.
    size: (H', W') of the output.
    convention: one of `CONVENTIONS`.
    method: 'bilinear' or 'nearest', for the geometric factors.
    fill: what lies outside the source image: a value, 'edge' (the nearest
      pixel) or 'reflect'.
    clip_values: values outside the limits of a parameter are moved to them.
  """

  names: tuple[str, ...]
  steps: tuple[Step, ...]
  size: tuple[int, int]
  convention: str = 'fused'
  method: str = 'bilinear'
  fill: float | str = 0.0
  clip_values: bool = False

  @functools.cached_property
  def parameters(self) -> tuple[perturbation_lib.Parameter, ...]:
    """The parameters that the factors drive, in the order of the values."""
    return tuple(registry.parameter(name)[1] for name in self.names)

  @property
  def identity(self) -> tuple[float, ...]:
    """The values that leave the image as it is."""
    return tuple(parameter.default for parameter in self.parameters)

  @property
  def is_random(self) -> bool:
    """Whether a perturbation draws from the key."""
    return any(step.perturbation.random for step in self.steps)

  def describe(self) -> dict:
    """Returns what defines the result, for provenance and content hashes."""
    described = {
      'perturbations': [step.describe() for step in self.steps],
      'size': list(self.size), 'convention': self.convention,
      'method': self.method, 'fill': self.fill,
    }
    return described | ({'clip_values': True} if self.clip_values else {})

  def prepare(self, image: ArrayLike):
    """Does the part of the work that no value changes.

    Args:
      image: (H, W, C) floating point in [0, 1], of any size.

    Returns:
      What `apply` takes: the prefiltered image; where nothing moves, the image
      in the size of the network; where the convention is sequential, the image
      itself.

    Raises:
      TypeError: pixels that are integers.
      ValueError: not (H, W, C), without pixels, or with NaN.
    """
    image = check_image(image)
    if self.convention != 'fused':
      return image
    if not self._geometric or self._only_mirrors(image.shape):
      return geometry.resize(image, self.size)
    minifies = any(step.perturbation.minifies for step in self.steps)
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

    Raises:
      ValueError: another number of values, values that are known here to lie
        outside the limits, or no key where a perturbation draws.
    """
    values = jnp.asarray(values)
    if not jnp.issubdtype(values.dtype, jnp.floating):
      values = values.astype(float)
    if values.shape != (len(self.names),):
      raise ValueError(
        f'values must have shape ({len(self.names)},) for '
        f'{self.names}, got {values.shape}'
      )
    if key is None and self.is_random:
      raise ValueError(
        f'{self.names}: a perturbation draws and needs a key, got None'
      )
    values = self._within_limits(values)
    if self.convention == 'fused':
      return self._fused(prepared, values, key)
    return self._sequential(prepared, values, key)

  def __call__(
    self, image: ArrayLike, values: ArrayLike, key: jax.Array | None = None
  ) -> jax.Array:
    """Returns the image (H', W', C) perturbed by values (D,)."""
    return self.apply(self.prepare(image), values, key)

  @functools.cached_property
  def _geometric(self) -> tuple[int, int] | None:
    """First geometric step and one past the last; None without."""
    where = [
      i for i, step in enumerate(self.steps)
      if step.perturbation.kind == 'geometric'
    ]
    return (where[0], where[-1] + 1) if where else None

  def _only_mirrors(self, shape: tuple[int, ...]) -> bool:
    """Whether all the geometry is reversed axes, of pixels made no smaller."""
    first, last = self._geometric
    return (
      self.method == 'bilinear'
      and shape[0] >= self.size[0] and shape[1] >= self.size[1]
      and all(
        step.perturbation.mirrors is not None
        for step in self.steps[first:last]
      )
    )

  def _within_limits(self, values):
    lower, upper = np.array([p.limits for p in self.parameters]).T.reshape(
      2, -1
    )
    if self.clip_values:
      return jnp.clip(
        values, lower.astype(values.dtype), upper.astype(values.dtype)
      )
    if not isinstance(values, jax.core.Tracer):
      for value, parameter in zip(values, self.parameters, strict=True):
        # A limit in single precision may be a little further out.
        slack = 1e-6 * abs(float(value))
        if not (
          parameter.limits[0] - slack <= value <= parameter.limits[1] + slack
        ):
          raise ValueError(
            f'{parameter.name}: {float(value):g} {parameter.unit} is outside '
            f'the limits {parameter.limits}; clip_values=True moves it there'
          )
    return values

  def _fused(self, prepared, values, key):
    if not isinstance(prepared, geometry.Prefiltered):
      return self._run(prepared, values, key, 0, len(self.steps))
    first, last = self._geometric
    moved = geometry.compose([
      step.perturbation.function(
        *step.values(values), size=prepared.source_size
      )
      for step in self.steps[first:last]
    ])
    before = lambda pixels: self._run(pixels, values, None, 0, first)
    image = geometry.warp(
      prepared, moved, self.size, pointwise=before, method=self.method,
      fill=self.fill, zeros=geometry.common_zeros([
        step.perturbation.zeros for step in self.steps[first:last]
      ]),
    )
    return self._run(image, values, key, last, len(self.steps))

  def _run(self, image, values, key, start, stop):
    for i in range(start, stop):
      image = self._act(i, image, values, key)
    return image

  def _act(self, i, image, values, key):
    """Carries out a step that is not geometric, or reverses an axis."""
    step = self.steps[i]
    own = [value.astype(image.dtype) for value in step.values(values)]
    if step.perturbation.mirrors is not None:
      flipped = jnp.flip(image, step.perturbation.mirrors)
      return jnp.where(own[0] > 0.5, flipped, image)
    if step.perturbation.random:
      return step.perturbation.function(
        image, *own, key=jax.random.fold_in(key, i)
      )
    return step.perturbation.function(image, *own)

  def _sequential(self, image, values, key):
    paper = self.convention == 'paper'
    cut = _to_8_bits if paper else (lambda x: x)
    for i, step in enumerate(self.steps):
      if step.perturbation.kind != 'geometric':
        image = cut(self._act(i, image, values, key))
        continue
      tilts = paper and step.perturbation.name == 'tilt'
      nearest = paper and step.perturbation.name == 'rotation'
      size = _PAPER_BOX if tilts else image.shape[:2]
      image = cut(geometry.transform(
        image, step.perturbation.function(*step.values(values), size=size),
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
  fill: float | str = 0.0,
  clip_values: bool = False,
) -> Chain:
  """Returns the chain of the perturbations that a space's factors drive.

  Args:
    space: factors named like parameters of registered perturbations, in order
      of application.
    size: (H', W') of the perturbed images: the network's input.
    convention: one of `CONVENTIONS`.
    method: 'bilinear', or 'nearest' for the nearest sample.
    fill: what lies outside the image: a value, 'edge' or 'reflect'.
    clip_values: values outside the limits of a parameter are moved to them.

  Raises:
    KeyError: a factor names no registered parameter.
    ValueError: unknown convention, a range outside a parameter's limits, or an
      order that cannot be fused.
  """
  if convention not in CONVENTIONS:
    raise ValueError(
      f'convention must be one of {CONVENTIONS}, got {convention!r}'
    )
  driven = {}
  for column, factor in enumerate(space.factors):
    perturbation, parameter = registry.parameter(factor.name)
    if not clip_values:
      _check_limits(factor, parameter)
    driven.setdefault(perturbation.name, (perturbation, {}))[1][
      factor.name
    ] = column
  steps = tuple(
    Step(perturbation, tuple(
      columns.get(parameter.name) for parameter in perturbation.parameters
    ))
    for perturbation, columns in driven.values()
  )
  chain = Chain(
    space.names, steps, tuple(size), convention, method, fill, clip_values
  )
  if convention == 'fused':
    _check_order(chain)
  return chain


def check_image(image: ArrayLike) -> jax.Array:
  """Returns an image as an array, after a check.

  Raises:
    TypeError: pixels that are integers.
    ValueError: not (H, W, C), without pixels, or, where they are known, with
      NaN or infinite pixels.
  """
  image = jnp.asarray(image)
  if image.ndim != 3 or not image.size:
    raise ValueError(f'image must be (H, W, C), got shape {image.shape}')
  if not jnp.issubdtype(image.dtype, jnp.floating):
    raise TypeError(
      f'image must be floating point in [0, 1], got {image.dtype}; divide '
      'integers by their largest value'
    )
  if not isinstance(image, jax.core.Tracer) and not np.isfinite(image).all():
    raise ValueError('image: has NaN or infinite pixels')
  return image


def _check_limits(factor, parameter):
  lower = float(factor.distribution.lower[0])
  upper = float(factor.distribution.upper[0])
  # Ends of a distribution carry rounding errors.
  slack = 1e-9 * (abs(lower) + abs(upper))
  if (
    lower < parameter.limits[0] - slack or upper > parameter.limits[1] + slack
  ):
    raise ValueError(
      f'factor {factor.name!r} ranges over [{lower:g}, {upper:g}] '
      f'{parameter.unit}, outside the limits {parameter.limits} within '
      'which the perturbation is defined; perturbation.clip_values = True '
      'moves values there'
    )


def _check_order(chain):
  """Refuses what one resampling cannot do."""
  first, last = chain._geometric or (0, 0)
  kinds = [step.perturbation.kind for step in chain.steps]
  if any(kind != 'geometric' for kind in kinds[first:last]):
    raise ValueError(
      'other factors between geometric ones cannot be fused into one '
      f'resampling: {chain.names}. Put them before or after, or use '
      "convention='sequential'"
    )
  if 'spatial' in kinds[:first]:
    name = chain.steps[kinds.index('spatial')].perturbation.name
    raise ValueError(
      f'{name!r} acts on a whole image and cannot be fused ahead of the '
      f'geometric factors: {chain.names}. Put it behind them, or use '
      "convention='sequential'"
    )


def _to_8_bits(image):
  """Cuts to the next lower of 256 values, as PIL's blend and transform do."""
  # The small number keeps k / 255 at level k in spite of rounding.
  return jnp.floor(image * 255 + 1e-3) / 255


def _round_to_8_bits(image, size):
  """Resizes as PIL does, columns first, rounding to 8 bits after each axis."""
  rounded = lambda x: jnp.round(x * 255) / 255
  columns = rounded(geometry.resize(image, (image.shape[0], size[1])))
  return rounded(geometry.resize(columns, size))
