"""What a perturbation is: a pure function of an image and scalar values.

A perturbation has a main parameter, which bears its name, and may have others.
A `Factor` drives any of them by name; one that no factor drives keeps its
default. Three kinds differ in where they may act:

- 'pointwise': function(pixels (..., C), *values) -> (..., C). Each pixel by
  itself, the same everywhere; may be carried out on the samples that a
  resampling reads.
- 'geometric': function(*values, size) -> homography (3, 3), output to input in
  pixels of an image of size (H, W), or a `geometry.Distortion`. Neighbours of
  this kind become one resampling.
- 'spatial': function(image (H, W, C), *values) -> (H, W, C); with the keyword
  argument key where it is random. Lengths are in pixels of this image.

Images are float arrays with values in [0, 1], gray (C = 1) or RGB (C = 3).
"""

from collections.abc import Callable
import dataclasses
import math

KINDS = ('pointwise', 'geometric', 'spatial')
FAMILIES = (
  'geometry', 'photometry', 'optics', 'noise and sensor', 'weather and dirt',
  'camera physics', 'mixtures',
)


@dataclasses.dataclass(frozen=True)
class Parameter:
  """A scalar that a factor may drive.

  Attributes:
    name: the name that a `Factor` refers to, unique over all perturbations.
    unit: of the value.
    default: value where no factor drives it; of the main parameter the
      identity, which gives the image back whatever the others are.
    sensible_range: (lower, upper) of values that make sense.
    limits: (lower, upper) outside which the operation is not defined.
    differentiable: whether the image has a derivative in the value.
  """

  name: str
  unit: str
  default: float
  sensible_range: tuple[float, float]
  limits: tuple[float, float] = (-math.inf, math.inf)
  differentiable: bool = True


@dataclasses.dataclass(frozen=True)
class Perturbation:
  """One parametric change of an image.

  Attributes:
    name: of the perturbation and of its main parameter.
    kind: one of `KINDS`; says what `function` takes, see the module.
    function: pure, traceable, defined at module level.
    unit: of the main value.
    identity: the main value that gives the image back.
    sensible_range: (lower, upper) of main values that make sense.
    source: the convention followed: paper, library and function.
    limits: (lower, upper) outside which the operation is not defined.
    minifies: whether it shrinks parts of the picture, which then need kernels
      wider than an output pixel; of geometric ones.
    zeros: (row, column) of entries of the homography that are zero at every
      value, which makes resampling faster; of geometric ones.
    mirrors: the axis, 0 or 1, that values above one half reverse; of geometric
      ones that do nothing else.
    differentiable: whether the image has a derivative in the main value.
    random: whether it draws from a key.
    others: further parameters, in the order in which `function` takes them.
    family: one of `FAMILIES`.
    happens: what happens on the line, in one or two sentences.
    symptoms: what an operator would say, a few words each.
    caveats: what the model leaves out.
  """

  name: str
  kind: str
  function: Callable
  unit: str
  identity: float
  sensible_range: tuple[float, float]
  source: str
  limits: tuple[float, float] = (-math.inf, math.inf)
  minifies: bool = False
  zeros: tuple[tuple[int, int], ...] = ()
  mirrors: int | None = None
  differentiable: bool = True
  random: bool = False
  others: tuple[Parameter, ...] = ()
  family: str = ''
  happens: str = ''
  symptoms: tuple[str, ...] = ()
  caveats: str = ''

  def __post_init__(self):
    if self.kind not in KINDS:
      raise ValueError(
        f'perturbation {self.name!r}: kind must be one of {KINDS}, '
        f'got {self.kind!r}'
      )
    if self.random and self.kind != 'spatial':
      raise ValueError(
        f"perturbation {self.name!r}: only kind 'spatial' may be random"
      )
    names = [p.name for p in self.parameters]
    if len(set(names)) < len(names):
      raise ValueError(
        f'perturbation {self.name!r}: parameters named twice in {names}'
      )

  @property
  def parameters(self) -> tuple[Parameter, ...]:
    """The main parameter and the others, as `function` takes them."""
    main = Parameter(
      self.name, self.unit, self.identity, self.sensible_range, self.limits,
      self.differentiable,
    )
    return (main, *self.others)
