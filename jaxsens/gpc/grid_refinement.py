"""Dimension-adaptive refinement of sparse grids for all outputs together.

Starting from a small grid, each step runs the multi-indices that promise the
largest change of the expansion per run. The change by an index is the norm of
its difference Δ_i, the root of the sum of squared changes of coefficients.

Unlike in Gerstner and Griebel an index is not run to learn its indicator, but
judged by its neighbours: half of their grid is a frontier whose sizes are
known when they are paid for. And an index whose ancestors are not run yet
brings them along, since a factor without effect at the mean of the others
would block its own interactions for ever (the third factor of Ishigami).

References:
  Gerstner and Griebel, Dimension-adaptive tensor-product quadrature, 2003.
  Conrad and Marzouk, Adaptive Smolyak pseudospectral approximations, 2013,
  section 5.
"""

from collections.abc import Sequence
import dataclasses
import heapq
from typing import Protocol

from jax.typing import ArrayLike
import numpy as np

from jaxsens import factors
from jaxsens.gpc import designs
from jaxsens.gpc import expansions
from jaxsens.gpc import multi_indices as index_sets
from jaxsens.gpc import sobol_indices
from jaxsens.gpc import sparse_grids

Index = tuple[int, ...]

# Weight, per index already seen in an interaction, of what its parents in
# smaller sets of factors promise against what the interaction itself showed.
_DOUBT = 0.3
# Runs of one step, as a share of the runs so far.
_GROWTH = 0.05
# The indices are compared with those of the grids of the last third of runs.
_WINDOW = 2 / 3


class Evaluate(Protocol):
  """The model as a function of germ coordinates."""

  def __call__(self, nodes: np.ndarray) -> ArrayLike:
    """Returns outputs (n, K) at nodes (n, D)."""


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
  """State of a refinement after one call of the model.

  Attributes:
    num_evaluations: runs so far.
    indicator: largest expected surplus of an index not yet run, as a standard
      deviation relative to that of the output, per run.
    change: largest change of a first-order or total index, or relative change
      of a variance, over the last third of the runs; infinite while there is
      no earlier grid to compare with.
    indices: Sobol indices of the expansion so far.
  """

  num_evaluations: int
  indicator: float
  change: float
  indices: sobol_indices.SobolIndices


@dataclasses.dataclass(frozen=True, eq=False)
class Refinement:
  """What an adaptive refinement found.

  Attributes:
    expansion: expansion of the K outputs; row n of its basis is node n.
    design: the N nodes in the order of their runs, kind 'sparse_grid'.
    outputs: (N, K) outputs of the model at the nodes.
    history: one entry per call of the model.
    stopped: 'tolerance', 'max_evaluations', or 'degrees' when the nested
      rules have no more nodes.
  """

  expansion: expansions.Expansion
  design: designs.Design
  outputs: np.ndarray
  history: tuple[Step, ...]
  stopped: str


def refine(
  evaluate: Evaluate,
  space: factors.FactorSpace,
  *,
  tolerance: float,
  max_evaluations: int,
  combine: str = 'max',
  initial: ArrayLike | None = None,
  start: Refinement | None = None,
) -> Refinement:
  """Grows a sparse grid where the model varies most per run.

  The size of an index is the standard deviation of its difference Δ_i,
  relative to that of each output, combined over outputs. Each step runs the
  indices with the largest expected size per run, 5 % as many as there are, at
  least one. What is expected of an index follows from the sizes of its parents
  i - e_d: from those in the same set of factors, or, with a doubt that fades
  with the number of indices seen in that set, from those in smaller sets.
  Parents not yet run are run with it, so that a factor acting only together
  with another one is not missed.

  Args:
    evaluate: the model; no node is passed to it twice.
    space: the D factors.
    tolerance: stops when no index and no variance, relative to itself,
      changed by more over the last third of the runs.
    max_evaluations: largest number of runs, never exceeded; a continued
      refinement counts the runs of its start.
    combine: 'max' or 'mean' over the outputs; 'max' serves the output that
      needs it most.
    initial: (P, D) downward closed set that is run first, for instance what a
      refinement of similar outputs needed; None: total degree 2, without
      interactions when it takes more than half of the budget. What is not in
      it is found only from the sizes of its members.
    start: earlier refinement in the same factors, which is continued.

  Returns:
    Expansion, nodes and outputs shared by all outputs, and the history.

  Raises:
    ValueError: a budget below one run or below the start, a negative
      tolerance, a bad set, outputs not of shape (n, K) or not finite; the
      message names the node.
  """
  _check_options(space, tolerance, max_evaluations, combine, start)
  limits = [r.num_nodes for r in sparse_grids.nested_rules_of(space)]
  if start is None:
    basis = _initial_basis(space, initial, max_evaluations)
    outputs, history = np.zeros((0, 0)), []
  else:
    basis, outputs = start.expansion.basis, start.outputs
    history = list(start.history[:-1])
  while True:
    outputs = _run(evaluate, sparse_grids.grid_nodes(basis), outputs)
    surpluses = sparse_grids.surpluses(basis, outputs)
    expansion = sparse_grids.sum_of_differences(basis, surpluses)
    shares = sobol_indices.sobol_indices(expansion)
    sizes = _sizes(basis, surpluses, shares, combine)
    budget = max_evaluations - basis.num_terms
    indicator, new = _next_indices(sizes, limits, budget)
    change = _change(history, basis.num_terms, shares)
    history.append(Step(basis.num_terms, indicator, change, shares))
    if change <= tolerance or not new:
      break
    basis = expansions.Basis(space, np.array([*sizes, *new]))
  exhausted = 'max_evaluations' if budget == 0 else 'degrees'
  stopped = 'tolerance' if change <= tolerance else exhausted
  design = sparse_grids.sparse_grid(basis)
  return Refinement(expansion, design, outputs, tuple(history), stopped)


def _initial_basis(
  space: factors.FactorSpace, initial: ArrayLike | None, budget: int
) -> expansions.Basis:
  """First set, cut at the budget from its high degrees downwards."""
  if initial is None:
    initial = index_sets.total_degree(space.dim, 2)
    if len(initial) > budget / 2:
      initial = index_sets.total_degree(space.dim, 2, max_interaction=1)
  basis = expansions.Basis(space, np.asarray(initial))
  order = np.argsort(basis.multi_indices.sum(axis=1), kind='stable')
  basis = expansions.Basis(space, basis.multi_indices[order[:budget]])
  sparse_grids.sparse_grid(basis)  # Refuses a bad set before it costs runs.
  return basis


def _sizes(
  basis: expansions.Basis,
  surpluses: np.ndarray,
  shares: sobol_indices.SobolIndices,
  combine: str,
) -> dict[Index, float]:
  """Combined relative standard deviation of each difference.

  An output that does not vary, up to rounding, has no say.
  """
  indices = [tuple(row) for row in basis.multi_indices.tolist()]
  varies = np.isfinite(shares.total[0])
  if not np.any(varies):
    return dict.fromkeys(indices, 0.0)
  norms = sparse_grids.difference_norms(basis)[:, None]
  sizes = np.abs(surpluses[:, varies]) * norms
  sizes /= np.sqrt(shares.variance[varies])
  combined = np.max(sizes, axis=1) if combine == 'max' else sizes.mean(axis=1)
  return dict(zip(indices, combined.tolist(), strict=True))


def _next_indices(
  sizes: dict[Index, float],
  limits: Sequence[int],
  budget: int,
) -> tuple[float, list[Index]]:
  """Largest expected size per run, and the indices of the next step."""
  seen: dict[Index, int] = {}
  for i in sizes:
    seen[_support(i)] = seen.get(_support(i), 0) + 1
  children = {
    child
    for i in sizes
    for d, limit in enumerate(limits)
    if (child := _shifted(i, d, 1)) not in sizes and child[d] < limit
  }
  # By value per run at best, which is exact once the ancestors are counted;
  # ties go to low degrees.
  heap = [
    (-_expected_size(child, sizes, seen), sum(child), child, ())
    for child in children
  ]
  heapq.heapify(heap)
  wanted = min(budget, max(1, int(_GROWTH * len(sizes))))
  indicator, new = None, {}
  while heap and (indicator is None or len(new) < wanted):
    value, degree, child, missing = heapq.heappop(heap)
    if not missing:
      missing = _missing(child, sizes)
      entry = (value / len(missing), degree, child, missing)
      heapq.heappush(heap, entry)
      continue
    indicator = -value if indicator is None else indicator
    fresh = [i for i in missing if i not in new]
    if len(new) + len(fresh) <= budget:
      new.update(dict.fromkeys(fresh))
  return indicator or 0.0, list(new)


def _expected_size(
  child: Index, sizes: dict[Index, float], seen: dict[Index, int]
) -> float:
  """Expected size of an index from the sizes of its parents."""
  same, smaller = [], []
  for d, degree in enumerate(child):
    parent = _shifted(child, d, -1)
    if degree == 1 and any(parent):
      smaller.append(sizes.get(parent, 0.0))
    elif degree > 1:
      # An odd function has no surplus at every second index of a line: the
      # index before the last speaks as well.
      before = _shifted(parent, d, -1) if degree > 2 else parent
      same.append(max(sizes.get(parent, 0.0), sizes.get(before, 0.0)))
  promise = sum(smaller) / max(len(smaller), 1)
  promise *= _DOUBT ** seen.get(_support(child), 0)
  return max(sum(same) / max(len(same), 1), promise)


def _missing(index: Index, present: dict[Index, float]) -> list[Index]:
  """The index and its ancestors that are not present, ancestors first."""
  found, stack = {index}, [index]
  while stack:
    i = stack.pop()
    for d, degree in enumerate(i):
      parent = _shifted(i, d, -1)
      if degree > 0 and parent not in present and parent not in found:
        found.add(parent)
        stack.append(parent)
  return sorted(found, key=lambda i: (sum(i), i))


def _shifted(index: Index, d: int, by: int) -> Index:
  return (*index[:d], index[d] + by, *index[d + 1 :])


def _support(index: Index) -> Index:
  return tuple(d for d, degree in enumerate(index) if degree)


def _change(
  history: Sequence[Step],
  num_evaluations: int,
  shares: sobol_indices.SobolIndices,
) -> float:
  """Largest change of indices and variances over the last third of runs."""
  old = [s for s in history if s.num_evaluations <= _WINDOW * num_evaluations]
  if not old:
    return np.inf
  varies = np.isfinite(shares.total[0])
  changes = [0.0]
  for step in history[len(old) - 1 :]:
    before = step.indices
    changes.append(_largest(shares.first_order - before.first_order, varies))
    changes.append(_largest(shares.total - before.total, varies))
    ratios = before.variance[varies] / shares.variance[varies]
    changes += np.abs(1 - ratios).tolist()
  return float(max(changes))


def _largest(differences: np.ndarray, varies: np.ndarray) -> float:
  """Largest of (D, K) for outputs that vary; infinite if they did not."""
  differences = np.abs(differences[:, varies])
  return np.max(np.nan_to_num(differences, nan=np.inf), initial=0.0)


def _run(
  evaluate: Evaluate, nodes: np.ndarray, outputs: np.ndarray
) -> np.ndarray:
  """Outputs (N, K) at all nodes from those at the first ones."""
  first = len(outputs)
  if first == len(nodes):
    return outputs
  new = np.asarray(evaluate(nodes[first:]), np.float64)
  num_outputs = outputs.shape[1] if first else 'K'
  if (
    new.ndim != 2
    or len(new) != len(nodes) - first
    or new.shape[1] not in ([num_outputs] if first else range(1, 2**62))
  ):
    raise ValueError(
      f'evaluate: expected outputs of shape ({len(nodes) - first}, '
      f'{num_outputs}) for nodes {nodes[first:].shape}, got {new.shape}'
    )
  bad = np.argwhere(~np.isfinite(new))
  if len(bad):
    n, k = bad[0]
    raise ValueError(
      f'evaluate: output {k} is {new[n, k]} at node {first + n}, germ '
      f'coordinates {nodes[first + n].tolist()}'
    )
  return np.concatenate([outputs, new]) if first else new


def _check_options(
  space: factors.FactorSpace,
  tolerance: float,
  max_evaluations: int,
  combine: str,
  start: Refinement | None,
) -> None:
  if not tolerance >= 0:
    raise ValueError(f'tolerance: expected at least 0, got {tolerance}')
  if combine not in ('max', 'mean'):
    raise ValueError(f"combine: expected 'max' or 'mean', got {combine!r}")
  spent = 1 if start is None else start.design.num_nodes
  if int(max_evaluations) != max_evaluations or max_evaluations < spent:
    raise ValueError(
      f'max_evaluations: expected an integer of at least {spent}, '
      f'got {max_evaluations}'
    )
  if start is not None and start.expansion.basis.space != space:
    raise ValueError(
      f'start: expected a refinement in the factors {list(space.names)}, got '
      f'{list(start.expansion.basis.space.names)} or other distributions'
    )
