"""Where a model may be used: safe ranges and safe boxes of its factors.

Everything here asks a function `failing`, see `failure`, whether the model
fails at germ coordinates (N, D). If it answers for I images, (N, I), they are
treated one by one; average its columns for a box that serves them all.

A box is measured by the probability that the factors' distributions give it.
It is safe when the probability of failing, given that the factors are in it,
is at most `max_failure`, and it is only offered around a nominal point that
itself fails with at most that probability. Single points of a safe box may
fail: that is what `max_failure` allows.

The largest box is sought on cells between edges, of which the nominal value
is one (an atom of a discrete factor is a cell of its own), so its faces are
known to the width of a cell. It was chosen because few of the points in it
failed; on those points its failure probability is rather too small. `check`
is from independent draws that took no part in the choice.
"""

from collections.abc import Sequence
import dataclasses
import functools

import jax
import numpy as np
from scipy.stats import qmc

from jaxsens import box_search
from jaxsens import factors
from jaxsens import failure
from jaxsens.gpc import designs

# Cells per factor of tensor grids over 1, 2 and 3 factors, and of more.
_NUM_CELLS = {1: 1024, 2: 256, 3: 48}
_NUM_CELLS_OF_SAMPLE = 32
# Points of a sample that a box must be able to fail at, so that its failure
# probability is not zero by chance.
_FEWEST_FAILURES = 5


@dataclasses.dataclass(frozen=True, eq=False)
class SafeBox:
  """The largest safe box of F factors around a nominal point.

  All arrays are for one function, or have I rows for the I images.

  Attributes:
    names: the F factors that it bounds.
    units: of the factors.
    lower: (F,) physical values, NaN where the box is empty.
    upper: the same.
    mass: () probability that the F factors are in the box; 0 where empty.
    search_failure: () failure probability on the points of the search, of
      which few failing ones were chosen.
    status: () 'box'; 'whole' (all of the factors' ranges); 'nominal fails'
      (empty); 'below resolution' (empty: the nominal point is safe, but no box
      around it that holds a cell of every factor).
    check: failure probability on independent draws in the box; for several
      images in the smallest box that holds all of theirs.
    max_failure: what was asked for.
    num_evaluations: rows that `failing` was asked for.
  """

  names: tuple[str, ...]
  units: tuple[str, ...]
  lower: np.ndarray
  upper: np.ndarray
  mass: np.ndarray
  search_failure: np.ndarray
  status: np.ndarray
  check: failure.Probability
  max_failure: float
  num_evaluations: int

  def take(self, index: int) -> 'SafeBox':
    """Returns the box of one image."""
    rows = {
      name: value[index] for name, value in vars(self).items()
      if isinstance(value, np.ndarray)
    }
    return dataclasses.replace(self, **rows, check=self.check.take(index))

  @property
  def is_whole(self) -> np.ndarray:
    """() bool: it is all of the factors' ranges."""
    return self.status == 'whole'

  @property
  def is_refuted(self) -> np.ndarray:
    """() bool: by the check it fails more often than `max_failure`."""
    return self.check.lower > self.max_failure

  @property
  def is_empty(self) -> np.ndarray:
    """() bool: there is none; `status` says why."""
    return np.isnan(self.lower[..., 0])


@dataclasses.dataclass(frozen=True, eq=False)
class _Points:
  """Points germ (N, D) of the search, their cells places (N, F) on the axes."""

  axes: Sequence[box_search.Axis]
  germ: np.ndarray
  places: np.ndarray
  weights: np.ndarray
  fewest: float


def safe_range(
  key: jax.Array,
  space: factors.FactorSpace,
  failing: failure.Failing,
  name: str,
  nominal: Sequence[float],
  max_failure: float,
  *,
  others: str,
  num_cells: int = 1024,
  num_points: int = 2**14,
  num_check: int = 2**12,
) -> SafeBox:
  """Finds the largest safe interval of one factor around its nominal value.

  Args:
    key: typed JAX key.
    space: the D factors.
    failing: see `failure`.
    name: of the factor.
    nominal: (D,) physical values, in the order of the factors.
    max_failure: largest probability of failing, in (0, 1).
    others: 'nominal' holds the other factors at their nominal values;
      'distribution' averages over them, and the nominal value then fails when
      the average there is too large.
    num_cells: cells of the factor; its evaluations with others='nominal'.
    num_points: points in the space with others='distribution'.
    num_check: draws of the check, and points of the average at the nominal
      value.

  Returns:
    A box of one factor.

  Raises:
    ValueError: unknown name, a nominal value outside the factor's range,
      max_failure outside (0, 1), another word for `others`, answers of
      `failing` that are not in [0, 1].
  """
  index = space.index(name)
  start = _checked_start(space, nominal, max_failure)
  if others not in ('nominal', 'distribution'):
    raise ValueError(
      f"others: expected 'nominal' or 'distribution', got {others!r}"
    )
  axis = box_search.make_axis(space.factors[index], nominal[index], num_cells)
  key_points, key_check = jax.random.split(key)
  if others == 'nominal':
    search = _grid([axis])
    along = _with_column(start, index, search.germ[:, 0])
    search = dataclasses.replace(search, germ=along)
    held, at_nominal = start, start
  else:
    search = _sample(
      key_points, space, [index], [axis], num_points, max_failure
    )
    held = None
    at_nominal = _with_column(
      search.germ[:num_check], index, start[0, index]
    )
  return _solve(
    failing, space, [index], search, at_nominal, max_failure,
    box_search.largest_box,
    _Check(key_check, num_check, held),
  )


def safe_box(
  key: jax.Array,
  space: factors.FactorSpace,
  failing: failure.Failing,
  nominal: Sequence[float],
  max_failure: float,
  *,
  num_cells: int | None = None,
  num_points: int = 2**15,
  num_restarts: int = 2,
  num_check: int = 2**12,
) -> SafeBox:
  """Finds the largest safe box of all factors around the nominal point.

  Up to three factors `failing` is evaluated once on a tensor grid, and all
  boxes on it are compared (of 256^2 and 48^3 cells, first in larger steps).
  With more, it is evaluated on a scrambled Sobol sequence, and pairs of
  factors are searched in turn: the box found is safe, but there may be a
  larger one.

  Args:
    key: typed JAX key.
    space: the D factors.
    failing: see `failure`.
    nominal: (D,) physical values, in the order of the factors.
    max_failure: largest probability of failing, in (0, 1).
    num_cells: cells of each factor; None: 1024, 256, 48 for one, two, three
      factors, which is also the size of the grid, and 32 for more.
    num_points: points in the space for more than three factors.
    num_restarts: first boxes for more than three factors.
    num_check: draws of the check.

  Returns:
    The box.

  Raises:
    ValueError: as `safe_range`.
  """
  start = _checked_start(space, nominal, max_failure)
  num_cells = num_cells or _NUM_CELLS.get(space.dim, _NUM_CELLS_OF_SAMPLE)
  axes = [
    box_search.make_axis(factor, value, num_cells)
    for factor, value in zip(space.factors, nominal, strict=True)
  ]
  key_points, key_check, key_search = jax.random.split(key, 3)
  every = list(range(space.dim))
  largest = box_search.largest_box
  if space.dim in _NUM_CELLS:
    search = _grid(axes)
  else:
    search = _sample(key_points, space, every, axes, num_points, max_failure)
    largest = functools.partial(
      box_search.largest_box_of_many, key_search, num_restarts=num_restarts
    )
  return _solve(
    failing, space, every, search, start, max_failure, largest,
    _Check(key_check, num_check),
  )


@dataclasses.dataclass(frozen=True, eq=False)
class _Check:
  """Draws of the check; `held` (1, D) holds the factors beside the box."""

  key: jax.Array
  num_draws: int
  held: np.ndarray | None = None

  def __post_init__(self):
    if self.num_draws < 1:
      raise ValueError(f'num_check: expected at least 1, got {self.num_draws}')

  def __call__(self, failing, space, kept, axes, boxes):
    """Returns the estimates of boxes (I, F, 2) and the number of rows."""
    is_inside = np.zeros((self.num_draws, len(boxes)), bool)
    some = [box for box in boxes if box is not None]
    if not some:
      return failure.estimate(is_inside.astype(float), is_inside), 0
    low, high = np.min(some, axis=0)[:, 0], np.max(some, axis=0)[:, 1]
    shape = (self.num_draws, space.dim)
    uniform = designs.random_generator(self.key).random(shape)
    for d, axis, a, b in zip(kept, axes, low, high, strict=True):
      ends = axis.edges[[a, b]]
      uniform[:, d] = ends[0] + (ends[1] - ends[0]) * uniform[:, d]
    germ = space.from_uniform(uniform)
    if self.held is not None:
      others = np.delete(np.arange(space.dim), kept)
      germ[:, others] = self.held[:, others]
    places = box_search.places_of(axes, uniform[:, kept])
    for i, box in enumerate(boxes):
      if box is not None:
        is_inside[:, i] = box_search.is_inside(box, places)
    failed, _ = failure.evaluate(failing, germ)
    return failure.estimate(failed, is_inside), len(germ)


def _solve(
  failing, space, kept, search, at_nominal, max_failure, largest, check
) -> SafeBox:
  """Evaluates, finds the box of each image, and describes them."""
  axes, num_points = search.axes, len(search.germ)
  failed, is_single = failure.evaluate(
    failing, np.concatenate([search.germ, at_nominal])
  )
  is_safe = failed[num_points:].mean(0) <= max_failure
  boxes = [
    largest(
      axes, search.places, failed[:num_points, i], search.weights,
      max_failure, fewest=search.fewest,
    ) if safe else None
    for i, safe in enumerate(is_safe)
  ]
  estimates, num_check = check(failing, space, kept, axes, boxes)
  found = SafeBox(
    tuple(space.names[d] for d in kept), tuple(space.units[d] for d in kept),
    *_describe(search, failed[:num_points], boxes),
    np.array([_status(*x, axes) for x in zip(is_safe, boxes, strict=True)]),
    estimates, max_failure, len(failed) + num_check,
  )
  return found.take(0) if is_single else found


def _describe(search, failed, boxes):
  """Values of the faces (I, F), masses (I,) and failures (I,) of boxes."""
  axes = search.axes
  lower = np.full((len(boxes), len(axes)), np.nan)
  upper, share, mass = lower.copy(), lower[:, 0].copy(), np.zeros(len(boxes))
  for i, box in enumerate(boxes):
    if box is None:
      continue
    faces = list(zip(axes, box, strict=True))
    lower[i] = [axis.lower[a] for axis, (a, _) in faces]
    upper[i] = [axis.upper[b - 1] for axis, (_, b) in faces]
    mass[i] = np.prod([axis.edges[b] - axis.edges[a] for axis, (a, b) in faces])
    inside = box_search.is_inside(box, search.places)
    share[i] = np.average(failed[inside, i], weights=search.weights[inside])
  return lower, upper, mass, share


def _status(is_safe, box, axes) -> str:
  if not is_safe:
    return 'nominal fails'
  if box is None:
    return 'below resolution'
  sizes = [axis.num_cells for axis in axes]
  return 'whole' if np.array_equal(np.ptp(box, axis=1), sizes) else 'box'


def _grid(axes) -> _Points:
  """Tensor grid of one point in every cell, weighted by probability."""
  columns = lambda parts: np.stack([
    part.ravel() for part in np.meshgrid(*parts, indexing='ij')
  ], axis=1)
  return _Points(
    axes,
    columns([axis.germ for axis in axes]),
    columns([np.arange(axis.num_cells) for axis in axes]),
    np.prod(columns([np.diff(axis.edges) for axis in axes]), axis=1),
    0.0,
  )


def _sample(key, space, indices, axes, num_points, max_failure) -> _Points:
  """Scrambled Sobol sequence over the space, sorted into cells."""
  generator = designs.random_generator(key)
  sequence = qmc.Sobol(space.dim, scramble=True, rng=generator)
  exponent = int(np.ceil(np.log2(max(num_points, 2))))
  uniform = sequence.random_base2(exponent)[:num_points]
  places = box_search.places_of(axes, uniform[:, indices])
  return _Points(
    axes, space.from_uniform(uniform), places,
    np.ones(len(uniform)), _FEWEST_FAILURES / max_failure,
  )


def _checked_start(space, nominal, max_failure) -> np.ndarray:
  """Returns the germ (1, D) of the nominal point."""
  nominal = np.asarray(nominal, np.float64)
  if nominal.shape != (space.dim,):
    raise ValueError(
      f'nominal: expected one value for each of {list(space.names)}, got '
      f'shape {nominal.shape}'
    )
  for factor, value in zip(space.factors, nominal, strict=True):
    if not factor.lower <= value <= factor.upper:
      raise ValueError(
        f'nominal: {value:g} of factor {factor.name!r} is outside its range '
        f'[{factor.lower:g}, {factor.upper:g}] {factor.unit}'.rstrip()
      )
  if not 0 < max_failure < 1:
    raise ValueError(f'max_failure: expected 0 < p < 1, got {max_failure}')
  return space.to_germ(nominal[None])


def _with_column(germ, index, column) -> np.ndarray:
  """Returns germ points with one column replaced, broadcast over rows."""
  num_rows = max(len(germ), np.size(column))
  germ = np.array(np.broadcast_to(germ, (num_rows, germ.shape[1])))
  germ[:, index] = column
  return germ
