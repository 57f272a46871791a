"""The largest box of cells in which little fails.

The unit cube is cut into cells by the edges of each axis. A box is a pair of
edges per axis, (low, high) with low <= start[0] and high >= start[1], so that
every box holds the same start. Its mass is the product of the lengths between
its edges, and it is safe when, over the points in it,

    Σ weights failed <= max_failure Σ weights  and  Σ weights >= fewest.

Up to three axes all boxes are compared, by differences of cumulative sums; in
steps of several edges where there are too many of them, and then edge by edge
around the best. Beyond three axes pairs of them are searched in turn, all boxes
of the pair compared, from several first boxes, while the allowed share of
failures falls from that of the first box to `max_failure`.
"""

from collections.abc import Sequence
import dataclasses
import itertools

import jax
import numpy as np

from jaxsens import factors
from jaxsens.gpc import designs

# Boxes compared in one search.
_MAX_BOXES = 4_000_000
# Edges to either side that the search around an answer tries.
_WINDOW = 2
# Relative differences of masses and of sums that are rounding.
_TIE = 1e-9
_ROUNDING = 1e-12
# Probabilities nearer than this to 0 or 1 leave no cells on that side.
_END = 1e-12
# Factor by which the allowed share of failures falls to the limit.
_TIGHTER = 0.7


@dataclasses.dataclass(frozen=True, eq=False)
class Axis:
  """Edges of the cells along one axis.

  Attributes:
    edges: (M + 1,) increasing probabilities from 0 to 1.
    start: indices (a, b), a <= b, of the edges of the smallest box.
    germ: (M,) a point in each cell.
    lower: (M,) physical values at the lower edges of the cells.
    upper: (M,) at the upper edges.
  """

  edges: np.ndarray
  start: tuple[int, int]
  germ: np.ndarray
  lower: np.ndarray
  upper: np.ndarray

  @property
  def num_cells(self) -> int:
    """Number of cells M."""
    return len(self.edges) - 1


def make_axis(
  factor: factors.Factor, nominal: float, num_cells: int
) -> Axis:
  """Returns the cells of a factor.

  Args:
    factor: its probability is cut into equal parts on each side of the nominal
      value. A discrete factor has a cell for each atom, or for neighbouring
      ones where there are too many; the nominal atom is a cell of its own.
    nominal: value of the factor, within its range.
    num_cells: number of cells; a little more for many atoms.
  """
  if num_cells < 2:
    raise ValueError(f'num_cells: expected at least 2, got {num_cells}')
  if factor.atoms is None:
    return _continuous_axis(factor, nominal, num_cells)
  return _discrete_axis(factor, nominal, num_cells)


def places_of(axes: Sequence[Axis], uniform: np.ndarray) -> np.ndarray:
  """Returns the cells (N, F) of points (N, F) of the unit cube."""
  return np.stack([
    np.clip(np.searchsorted(axis.edges, u) - 1, 0, axis.num_cells - 1)
    for axis, u in zip(axes, uniform.T, strict=True)
  ], axis=1)


def largest_box(
  axes: Sequence[Axis],
  places: np.ndarray,
  failed: np.ndarray,
  weights: np.ndarray,
  max_failure: float,
  *,
  fewest: float = 0.0,
) -> np.ndarray | None:
  """Returns the largest safe box over one to three axes.

  Args:
    axes: F of them.
    places: (N, F) cell of each point along each axis.
    failed: (N,) in [0, 1].
    weights: (N,) of the points.
    max_failure: largest share of failures.
    fewest: smallest weight of the points in a box.

  Returns:
    (F, 2) indices of edges; None when no box of positive mass is safe. Of
    boxes of one mass, the one with the smallest share of failures.
  """
  tables = [
    _cumulative(axes, places, weights * failed),
    _cumulative(axes, places, weights),
  ]
  stride = 1
  while True:
    candidates = [_strided(axis, stride) for axis in axes]
    if _num_boxes(candidates) <= _MAX_BOXES:
      break
    stride += 1
  best, mass = _compare(axes, tables, candidates, max_failure, fewest)
  while stride > 1:
    around = [axis.start for axis in axes] if best is None else best
    near = [_near(*pair) for pair in zip(axes, around, strict=True)]
    found, larger = _compare(axes, tables, near, max_failure, fewest)
    if larger <= mass * (1 + _TIE):
      break
    best, mass = found, larger
  return best


def largest_box_of_many(
  key: jax.Array,
  axes: Sequence[Axis],
  places: np.ndarray,
  failed: np.ndarray,
  weights: np.ndarray,
  max_failure: float,
  *,
  fewest: float,
  num_restarts: int,
) -> np.ndarray | None:
  """Returns a large safe box over two axes or more.

  Args:
    key: typed JAX key, for the first boxes and the order of the pairs.
    axes: see `largest_box`, as for all that is not named here.
    places: (N, F).
    failed: (N,).
    weights: (N,).
    max_failure: largest share of failures.
    fewest: smallest weight of the points in a box.
    num_restarts: first boxes that are tried.

  Returns:
    (F, 2) indices of edges, or None where no safe box was found.
  """
  generator = designs.random_generator(key)
  search = _Search(axes, places, failed, weights, max_failure, fewest)
  best, mass = None, 0.0
  for i in range(num_restarts):
    box = _tighten(search, generator, _first_box(axes, generator, i > 0))
    if box is not None and _mass(axes, box) > mass * (1 + _TIE):
      best, mass = box, _mass(axes, box)
  return best


def is_inside(box: np.ndarray, places: np.ndarray) -> np.ndarray:
  """Returns (N,) whether points in cells (N, axes) are in a box (axes, 2)."""
  return np.all((places >= box[:, 0]) & (places < box[:, 1]), axis=1)


def _continuous_axis(factor, nominal, num_cells) -> Axis:
  """Cells of equal probability on each side of the nominal value."""
  middle = float(np.ravel(factor.germ.fwd(factor.to_germ(nominal)))[0])
  below = int(np.clip(np.round(num_cells * middle), 1, num_cells - 1))
  if middle < _END or middle > 1 - _END:
    below, middle = (0, 0.0) if middle < _END else (num_cells, 1.0)
  edges = np.concatenate([
    np.linspace(0, middle, below + 1)[:-1],
    np.linspace(middle, 1, num_cells - below + 1),
  ])
  inner = np.ravel(factor.to_values(factor.germ.inv(edges[1:-1])))
  values = np.concatenate([[factor.lower], inner, [factor.upper]])
  if 0 < below < num_cells:
    values[below] = nominal
  return Axis(
    edges, (below, below),
    np.ravel(factor.germ.inv((edges[1:] + edges[:-1]) / 2)),
    values[:-1], values[1:],
  )


def _discrete_axis(factor, nominal, num_cells) -> Axis:
  """One cell for each atom, or for neighbours where there are too many."""
  atoms, germ = factor.atoms, factor.germ.values
  place = int(atoms.snap(nominal))
  rest = np.array([place, atoms.num_atoms - place - 1])
  sides = np.minimum(
    rest, np.ceil(rest * num_cells / atoms.num_atoms).astype(int)
  )
  groups = [
    *_split(np.arange(place), sides[0]), np.array([place]),
    *_split(np.arange(place + 1, atoms.num_atoms), sides[1]),
  ]
  lasts = np.array([group[-1] for group in groups])
  edges = np.append(0.0, np.cumsum(atoms.probabilities)[lasts])
  edges[-1] = 1.0
  return Axis(
    edges, (int(sides[0]), int(sides[0]) + 1),
    germ[[group[len(group) // 2] for group in groups]],
    atoms.values[[group[0] for group in groups]], atoms.values[lasts],
  )


def _split(places, num_groups):
  return np.array_split(places, num_groups) if num_groups else []


def _mass(axes, box):
  return float(np.prod([
    axis.edges[high] - axis.edges[low]
    for axis, (low, high) in zip(axes, box, strict=True)
  ]))


def _cumulative(axes, places, values):
  """Sum of the values of all points below each corner, (M_1 + 1, ...)."""
  shape = tuple(axis.num_cells for axis in axes)
  flat = np.ravel_multi_index(tuple(places.T), shape)
  table = np.bincount(flat, values, int(np.prod(shape))).reshape(shape)
  for d in range(len(axes)):
    table = np.cumsum(table, axis=d)
  return np.pad(table, [(1, 0)] * len(axes))


def _strided(axis, stride):
  """Edges that a box may have, every so many from the start outwards."""
  low, high = axis.start
  lows = np.append(np.arange(low, 0, -stride), 0)
  highs = np.append(np.arange(high, axis.num_cells, stride), axis.num_cells)
  return np.unique(lows), np.unique(highs)


def _near(axis, edges):
  """Edges that a box may have and that are near to given ones."""
  steps = np.arange(-_WINDOW, _WINDOW + 1)
  lows = np.clip(edges[0] + steps, 0, axis.start[0])
  highs = np.clip(edges[1] + steps, axis.start[1], axis.num_cells)
  return np.unique(lows), np.unique(highs)


def _num_boxes(candidates):
  return np.prod([float(len(low) * len(high)) for low, high in candidates])


def _compare(axes, tables, candidates, max_failure, fewest):
  """Returns the best of all boxes of candidate edges, and its mass."""
  pairs = [
    [edge.ravel() for edge in np.meshgrid(*edges, indexing='ij')]
    for edges in candidates
  ]
  sums, counts = (_differences(table, pairs) for table in tables)
  masses = np.ones(())
  for axis, (low, high) in zip(axes, pairs, strict=True):
    masses = np.multiply.outer(masses, axis.edges[high] - axis.edges[low])
  slack = _ROUNDING * tables[1].flat[-1]
  safe = (sums <= max_failure * counts + slack) & (counts >= fewest - slack)
  masses = np.where(safe, masses, 0.0).ravel()
  mass = np.max(masses)
  if mass <= 0:
    return None, 0.0
  ties = np.flatnonzero(masses >= mass * (1 - _TIE))
  shares = sums.ravel()[ties] / np.maximum(counts.ravel()[ties], slack)
  place = np.unravel_index(ties[np.argmin(shares)], sums.shape)
  box = [(low[i], high[i]) for (low, high), i in zip(pairs, place, strict=True)]
  return np.array(box), float(mass)


def _differences(table, pairs):
  """Sums over boxes from cumulative sums, one axis of pairs per axis."""
  for d, (low, high) in enumerate(pairs):
    table = np.take(table, high, axis=d) - np.take(table, low, axis=d)
  return table


@dataclasses.dataclass(frozen=True, eq=False)
class _Search:
  """The arguments of `largest_box`."""

  axes: Sequence[Axis]
  places: np.ndarray
  failed: np.ndarray
  weights: np.ndarray
  max_failure: float
  fewest: float

  def is_safe(self, box):
    inside = is_inside(box, self.places)
    weight = np.sum(self.weights[inside])
    failures = self.weights[inside] @ self.failed[inside]
    slack = _ROUNDING * np.sum(self.weights)
    return (
      weight >= self.fewest and failures <= self.max_failure * weight + slack
    )

  def share(self, box):
    """Returns the share of failures in a box, 1 where it has no points."""
    inside = is_inside(box, self.places)
    weight = np.sum(self.weights[inside])
    failures = self.weights[inside] @ self.failed[inside]
    return failures / weight if weight else 1.0

  def best_of_pair(self, pair, box):
    """Returns the box with the best edges of two axes, None if none is safe."""
    wide = box.copy()
    wide[pair] = [(0, self.axes[d].num_cells) for d in pair]
    inside = is_inside(wide, self.places)
    found = largest_box(
      [self.axes[d] for d in pair], self.places[inside][:, pair],
      self.failed[inside], self.weights[inside], self.max_failure,
      fewest=self.fewest,
    )
    if found is None:
      return None
    wide[pair] = found
    return wide


def _first_box(axes, generator, is_uneven):
  """Returns the largest box, or one that is cut at random on every side."""
  starts = np.array([axis.start for axis in axes])
  ends = np.array([(0, axis.num_cells) for axis in axes])
  shares = generator.uniform(0.3, 1.0, starts.shape) if is_uneven else 1.0
  return starts + np.round(shares * (ends - starts)).astype(int)


def _tighten(search, generator, box):
  """Returns a safe box as the allowed share of failures falls to the limit."""
  share = max(search.share(box), search.max_failure)
  while True:
    relaxed = dataclasses.replace(search, max_failure=share)
    box = _ascend(relaxed, generator, box)
    if not relaxed.is_safe(box):
      return None
    if share == search.max_failure:
      return box
    share = max(_TIGHTER * share, search.max_failure)


def _ascend(search, generator, box):
  """Returns the box after searching pairs of axes until none grows it."""
  mass = _mass(search.axes, box) if search.is_safe(box) else 0.0
  pairs = list(itertools.combinations(range(len(search.axes)), 2))
  is_growing = True
  while is_growing:
    is_growing = False
    for k in generator.permutation(len(pairs)):
      found = search.best_of_pair(list(pairs[k]), box)
      if found is None:
        continue
      if _mass(search.axes, found) > mass * (1 + _TIE):
        box, mass, is_growing = found, _mass(search.axes, found), True
  return box
