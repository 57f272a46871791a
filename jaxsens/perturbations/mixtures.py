"""Shifts of the distribution as factors: mixing in an image, a choice of kind.

Both functions return a `Perturbation` to be given to `registry.register`; a
factor of its name then drives it. Two that are made of the same parts under
the same name are equal, so that registering again does no harm.
"""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import hashlib

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np

from jaxsens.perturbations import colour
from jaxsens.perturbations import geometry
from jaxsens.perturbations import perturbation
from jaxsens.perturbations import resampling

Option = (
  Callable[..., jax.Array]
  | tuple[perturbation.Perturbation, float | Sequence[float]]
)


def mix_with(
  name: str, other: ArrayLike, mask: ArrayLike | None = None
) -> perturbation.Perturbation:
  """Returns the perturbation that fades an image into another one.

      out = image * (1 - share * mask) + other * share * mask

  With a mask that is one off the part, a share of one swaps the background.

  Args:
    name: of the perturbation and of the factor, the share in [0, 1].
    other: (H', W', C') in [0, 1], floating, C' = 1 or 3. Resized with
      antialiasing to the images that come; where those are gray, its luma.
    mask: (H', W') or (H', W', 1) in [0, 1], where other may show; resized
      likewise, and of a size of its own. None is one everywhere.

  Returns:
    A perturbation of kind 'spatial' and identity 0.

  Raises:
    ValueError: an array of another shape or dtype or with values outside
      [0, 1] or NaN.
  """
  other = _checked(f'{name}: other', other)
  if other.ndim != 3 or other.shape[2] not in (1, 3):
    raise ValueError(
      f'{name}: other must be (H, W, 1) or (H, W, 3), got shape {other.shape}'
    )
  if mask is None:
    mask = np.ones((1, 1, 1), other.dtype)
  mask = _checked(f'{name}: mask', mask)
  if mask.ndim == 2:
    mask = mask[..., None]
  if mask.ndim != 3 or mask.shape[2] != 1:
    raise ValueError(
      f'{name}: mask must be (H, W) or (H, W, 1), got shape {mask.shape}'
    )
  mix = _Mix(_digest(other, mask), other, mask)
  return perturbation.Perturbation(
    name, 'spatial', mix, 'share', identity=0.0, sensible_range=(0.0, 1.0),
    limits=(0.0, 1.0), family='mixtures',
    source=(
      f'linear mixing with an image {other.shape}, mask {mask.shape}, '
      f'SHA-256 {mix.digest}'
    ),
    happens=(
      'Another scene shows through or takes the place of the background: a '
      'new fixture, another belt, a reflection in a window.'
    ),
    symptoms=(
      'the background has changed', 'the part lies in another fixture',
      'something is reflected in the picture',
    ),
    caveats=(
      'Values are mixed, not light; the part keeps its shading and casts no '
      'shadow on the new background.'
    ),
  )


def choice(
  name: str, options: Sequence[Option], *, random: bool = False
) -> perturbation.Perturbation:
  """Returns the perturbation whose value picks one of several.

  The value is rounded to the nearest whole number, halves upwards: 0 leaves
  the image as it is, 1 picks the first option, and so on. Under `vmap` over
  values all options are computed.

  Args:
    name: of the perturbation and of the factor.
    options: each a function of an image (H, W, C), or a pair of a
      perturbation and its main value, or the values of all its parameters.
    random: whether functions take a key as their second argument, as those of
      `severity.imagenet_c` do. Perturbations say so themselves.

  Returns:
    A perturbation of kind 'spatial', identity 0, values 0 to len(options).

  Raises:
    ValueError: no options, or values that do not fit their perturbation.
    TypeError: an option that is neither.
  """
  options = tuple(
    _option(f'{name}: option {i}', option, random)
    for i, option in enumerate(options, 1)
  )
  if not options:
    raise ValueError(f'{name}: at least one option is needed, got none')
  described = ', '.join(f'{i} {o.text}' for i, o in enumerate(options, 1))
  return perturbation.Perturbation(
    name, 'spatial',
    _RandomChoice(options) if any(o.random for o in options)
    else _Choice(options),
    'index', identity=0.0, sensible_range=(0.0, float(len(options))),
    limits=(0.0, float(len(options))), differentiable=False,
    random=any(o.random for o in options), family='mixtures',
    source=f'choice of 0 nothing, {described}',
    happens=(
      'Something is exchanged for another of a kind: the filter, the lens, '
      'the camera, the supplier.'
    ),
    symptoms=(
      'a spare part was fitted', 'the second camera sees it differently',
      'since the filter was changed',
    ),
    caveats=(
      'The options have no order: give the factor a discrete distribution, '
      'and read its index, not its slope.'
    ),
  )


@dataclasses.dataclass(frozen=True)
class _Mix:
  """Mixing with an image; equal to one of equal digest."""

  digest: str
  other: np.ndarray = dataclasses.field(compare=False, repr=False)
  mask: np.ndarray = dataclasses.field(compare=False, repr=False)

  def __call__(self, image: ArrayLike, share: ArrayLike) -> jax.Array:
    image = jnp.asarray(image)
    if image.ndim != 3 or image.shape[2] not in (1, 3):
      raise ValueError(
        f'image must be (H, W, 1) or (H, W, 3), got shape {image.shape}'
      )
    other, mask = (
      resampling.resize(jnp.asarray(a, image.dtype), image.shape[:2])
      for a in (self.other, self.mask)
    )
    if image.shape[2] == 1:
      other = colour.luma(other)
    shown = jnp.asarray(share, image.dtype) * mask
    return image * (1 - shown) + other * shown


@dataclasses.dataclass(frozen=True)
class _Option:
  """One option: a function, or a perturbation with its values.

  Attributes:
    text: what it is, for provenance.
    function: of the image, with the key where it is random.
    values: of the perturbation's parameters.
    kind: of the perturbation, or 'spatial'.
    random: whether it draws.
    by_name: whether the key is a keyword argument.
  """

  text: str
  function: Callable
  values: tuple[float, ...]
  kind: str
  random: bool
  by_name: bool

  def __call__(self, image, key):
    if self.kind == 'geometric':
      mapping = self.function(*self.values, size=image.shape[:2])
      result = geometry.transform(image, mapping)
    elif not self.random:
      result = self.function(image, *self.values)
    elif self.by_name:
      result = self.function(image, *self.values, key=key)
    else:
      result = self.function(image, key)
    result = jnp.asarray(result)
    if result.shape != image.shape:
      raise ValueError(
        f'{self.text} must keep the shape {image.shape}, got {result.shape}'
      )
    return result.astype(image.dtype)


@dataclasses.dataclass(frozen=True)
class _Choice:
  """Picks one of the options by a value."""

  options: tuple[_Option, ...]

  def __call__(self, image: ArrayLike, value: ArrayLike) -> jax.Array:
    return _pick(self.options, image, value, None)


@dataclasses.dataclass(frozen=True)
class _RandomChoice:
  """The same with a key."""

  options: tuple[_Option, ...]

  def __call__(
    self, image: ArrayLike, value: ArrayLike, *, key: jax.Array
  ) -> jax.Array:
    return _pick(self.options, image, value, key)


def _pick(options, image, value, key):
  image = jnp.asarray(image)
  index = jnp.floor(jnp.asarray(value, image.dtype) + 0.5).astype(jnp.int32)
  index = jnp.clip(index, 0, len(options))
  branches = [lambda image: image]
  branches += [lambda image, o=option: o(image, key) for option in options]
  return jax.lax.switch(index, branches, image)


def _option(where, option, random):
  if callable(option):
    # A partial object and the like have no name of their own.
    text = getattr(option, '__qualname__', None) or repr(option)
    return _Option(text, option, (), 'spatial', random, False)
  if not (
    isinstance(option, tuple) and len(option) == 2
    and isinstance(option[0], perturbation.Perturbation)
  ):
    raise TypeError(
      f'{where} must be a function of an image or a pair (perturbation, '
      f'values), got {option!r}'
    )
  chosen, values = option
  values = tuple(float(v) for v in np.atleast_1d(values))
  parameters = chosen.parameters
  if len(values) == 1:
    values += tuple(float(p.default) for p in parameters[1:])
  if len(values) != len(parameters):
    raise ValueError(
      f'{where}: {chosen.name} has the parameters '
      f'{[p.name for p in parameters]}, got {len(values)} values'
    )
  for value, parameter in zip(values, parameters, strict=True):
    if not parameter.limits[0] <= value <= parameter.limits[1]:
      raise ValueError(
        f'{where}: {parameter.name} {value:g} is outside the limits '
        f'{parameter.limits}'
      )
  described = ', '.join(
    f'{p.name} = {v:g}' for p, v in zip(parameters, values, strict=True)
  )
  return _Option(
    f'{described} ({chosen.source})', chosen.function, values, chosen.kind,
    chosen.random, True,
  )


def _checked(what, array):
  array = np.asarray(array)
  if not np.issubdtype(array.dtype, np.floating):
    raise ValueError(f'{what} must be floating in [0, 1], got {array.dtype}')
  if not array.size:
    raise ValueError(f'{what} is empty, shape {array.shape}')
  if not (array.min() >= 0 and array.max() <= 1):
    raise ValueError(
      f'{what} must lie in [0, 1], got {array.min():g} to {array.max():g}'
    )
  return array


def _digest(*arrays):
  """Returns 16 hexadecimal digits that stand for the arrays."""
  digest = hashlib.sha256()
  for array in arrays:
    digest.update(f'{array.shape} {array.dtype}'.encode())
    digest.update(np.ascontiguousarray(array).tobytes())
  return digest.hexdigest()[:16]
