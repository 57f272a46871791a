"""The perturbations that a factor may drive, by name.

Each entry says what its value means (unit, identity, sensible range), whether
the image differentiates in it, and where the convention comes from. `register`
adds a perturbation of one's own; its name can then be used in a `Factor`.
"""

import dataclasses
from typing import Protocol

import jax

from jaxsens.perturbations import geometry
from jaxsens.perturbations import photometry


class Pointwise(Protocol):
  """A photometric function of pixel values alone."""

  def __call__(self, image: jax.Array, value: jax.Array) -> jax.Array:
    """Returns the image (..., C) changed by the scalar value."""


class Homography(Protocol):
  """A geometric operation given by its homography."""

  def __call__(self, value: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Returns (3, 3), output to input, in pixels of an image of that size."""


@dataclasses.dataclass(frozen=True)
class Perturbation:
  """One parametric change of an image.

  Attributes:
    name: the name that a `Factor` refers to.
    kind: 'pointwise' (function is a `Pointwise`) or 'geometric' (function is a
      `Homography`).
    function: pure, traceable, defined at module level.
    unit: of the value.
    identity: the value that gives the image back.
    sensible_range: (lower, upper) of values that make sense.
    limits: (lower, upper) outside which the operation is not defined.
    minifies: whether it shrinks parts of the picture, which then need kernels
      wider than an output pixel.
    differentiable: whether the image has a derivative in the value.
    random: whether it draws from a key.
    source: the convention followed.
  """

  name: str
  kind: str
  function: Pointwise | Homography
  unit: str
  identity: float
  sensible_range: tuple[float, float]
  source: str
  limits: tuple[float, float] = (-float('inf'), float('inf'))
  minifies: bool = False
  differentiable: bool = True
  random: bool = False

  def __post_init__(self):
    if self.kind not in ('pointwise', 'geometric'):
      raise ValueError(
        f'perturbation {self.name!r}: kind must be '
        f"'pointwise' or 'geometric', got {self.kind!r}"
      )


_REGISTRY: dict[str, Perturbation] = {}


def register(perturbation: Perturbation) -> Perturbation:
  """Adds a perturbation; a name that another one holds raises ValueError."""
  known = _REGISTRY.get(perturbation.name)
  if known is not None and known != perturbation:
    raise ValueError(
      f'perturbation {perturbation.name!r} is already registered'
    )
  _REGISTRY[perturbation.name] = perturbation
  return perturbation


def get(name: str) -> Perturbation:
  """Returns the perturbation of that name; KeyError lists the known ones."""
  if name not in _REGISTRY:
    raise KeyError(
      f'unknown factor {name!r}; known perturbations: {", ".join(names())}'
    )
  return _REGISTRY[name]


def names() -> tuple[str, ...]:
  """Returns the registered names in alphabetical order."""
  return tuple(sorted(_REGISTRY))


register(Perturbation(
  'brightness', 'pointwise', photometry.brightness, 'factor',
  identity=1.0, sensible_range=(0.0, 2.0), limits=(0.0, float('inf')),
  source="torchvision adjust_brightness: clip(factor * image)",
))
register(Perturbation(
  'rotation', 'geometric', geometry.rotation, 'deg',
  identity=0.0, sensible_range=(-90.0, 90.0),
  source='torchvision rotate: counter-clockwise about the centre',
))
register(Perturbation(
  'tilt', 'geometric', geometry.tilt, 'deg',
  identity=0.0, sensible_range=(-20.0, 20.0), limits=(-80.0, 26.5),
  minifies=True,
  source='arXiv:2506.18751: the top edge shrinks by tan(t) W per side',
))
register(Perturbation(
  'offset', 'pointwise', photometry.offset, 'share of white',
  identity=0.0, sensible_range=(-0.5, 0.5),
  source='additive brightness: clip(image + amount)',
))
register(Perturbation(
  'gamma', 'pointwise', photometry.gamma, 'exponent',
  identity=1.0, sensible_range=(0.5, 2.0), limits=(0.01, 100.0),
  source='torchvision adjust_gamma: image ** exponent',
))
register(Perturbation(
  'scale', 'geometric', geometry.scaling, 'factor',
  identity=1.0, sensible_range=(0.5, 2.0), limits=(0.05, 20.0), minifies=True,
  source='torchvision affine: zoom about the centre',
))
register(Perturbation(
  'translation_x', 'geometric', geometry.translation_x, 'share of the width',
  identity=0.0, sensible_range=(-0.5, 0.5),
  source='torchvision affine: positive values move the picture to the right',
))
register(Perturbation(
  'translation_y', 'geometric', geometry.translation_y, 'share of the height',
  identity=0.0, sensible_range=(-0.5, 0.5),
  source='torchvision affine: positive values move the picture down',
))
register(Perturbation(
  'keystone', 'geometric', geometry.keystone, 'deg',
  identity=0.0, sensible_range=(-20.0, 20.0), limits=(-60.0, 60.0),
  minifies=True,
  source='camera tilted about its horizontal axis, one image height away',
))
