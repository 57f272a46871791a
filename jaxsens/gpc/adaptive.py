"""Grows a design until the indices of many outputs are known well enough.

One nested design, a scrambled Sobol sequence, serves all images; it doubles
from round to round, and every run already paid for stays in use. In each round
the surrogates are fitted to all images together, and an image whose intervals
are narrow enough is taken out: the others go on. Two surrogates compete by
cross-validation:

- sparse polynomials of the quantities themselves, for smooth responses;
- kriging of the outputs behind them (logits), pushed through the quantities,
  for rough and sharp ones. Its prior, anisotropy included, is learned from all
  images that are still open and starts from that of the round before.
"""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
from typing import Protocol

import jax
import numpy as np

from jaxsens import factors
from jaxsens.gpc import designs
from jaxsens.gpc import expansions
from jaxsens.gpc import intervals as intervals_lib
from jaxsens.gpc import kriging
from jaxsens.gpc import pushed_indices
from jaxsens.gpc import sobol_indices
from jaxsens.gpc import sparse_regression

# Outputs from which the prior is learned at most.
_MAX_LEARNED = 128
# Quantities that sparse regression is asked for together at most.
_MAX_SPARSE = 64
# Share of the move of the indices since the last round that stays in doubt.
_MOVE = 1.0
# Share of the squared error of kriging below which sparse regression wins: its
# cross-validation is a little too optimistic, and it has more to choose from.
_ADVANTAGE = 0.6
# How far behind (ratio of errors) sparse regression may be and still try again:
# for a few responses, and for many, where its search takes longer than runs.
_OUT_OF_REACH = 3.0
_OUT_OF_REACH_OF_MANY = 1.2
_MANY = 5
_NUM_FOLDS = 10


class Evaluate(Protocol):
  """The model at nodes."""

  def __call__(self, image: int, nodes: np.ndarray) -> np.ndarray:
    """Returns outputs (N, C) of an image at germ nodes (N, D)."""


@dataclasses.dataclass(frozen=True)
class Options:
  """When to stop.

  Attributes:
    tolerance: half-width of the intervals of first-order and total indices of
      the first quantity at which an image is done.
    max_evaluations: runs per image at most.
    min_evaluations: runs per image of the first round.
    level: coverage of the intervals.
  """

  tolerance: float = 0.02
  max_evaluations: int = 1024
  min_evaluations: int = 64
  level: float = 0.95

  def __post_init__(self):
    if not 0 < self.tolerance < 1:
      raise ValueError(
        f'tolerance: expected a half-width in (0, 1), got {self.tolerance}'
      )
    if not 0 < self.level < 1:
      raise ValueError(
        f'level: expected a coverage in (0, 1), got {self.level}'
      )
    if self.min_evaluations < 8:
      raise ValueError(
        f'min_evaluations: expected at least 8, got {self.min_evaluations}'
      )
    if self.max_evaluations < self.min_evaluations:
      raise ValueError(
        f'max_evaluations is {self.max_evaluations}, below the first round of '
        f'min_evaluations = {self.min_evaluations} runs'
      )

  @property
  def sizes(self) -> tuple[int, ...]:
    """Numbers of runs after each round."""
    sizes = [self.min_evaluations]
    while sizes[-1] < self.max_evaluations:
      sizes.append(min(2 * sizes[-1], self.max_evaluations))
    return tuple(sizes)


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
  """What is known after a round.

  Attributes:
    num_evaluations: runs of each open image so far.
    half_widths: (I,) largest half-width of each image; NaN: no variance.
    q2: (I,) of the first quantity, by cross-validation.
    methods: (I) surrogate that won for each image.
    open: (I,) images that go on after this round.
  """

  num_evaluations: int
  half_widths: np.ndarray
  q2: np.ndarray
  methods: tuple[str, ...]
  open: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Answer:
  """What is known about the quantities of one image.

  Attributes:
    method: 'sparse' or 'kriging'.
    inference: indices, intervals, Q2 and surrogate.
    num_evaluations: runs N.
    nodes: (N, D) germ coordinates.
    outputs: (N, C) of the model there.
    direct: inference of the first quantity by kriging of that quantity
      itself, as a check of those that are pushed through; else None.
  """

  method: str
  inference: pushed_indices.Inference
  num_evaluations: int
  nodes: np.ndarray
  outputs: np.ndarray
  direct: pushed_indices.Inference | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Refinement:
  """Answers of all images and how they came about.

  Attributes:
    answers: one per image.
    history: one step per round.
    prior: of the last round.
  """

  answers: tuple[Answer, ...]
  history: tuple[Step, ...]
  prior: kriging.Prior


def refine(
  key: jax.Array,
  evaluate: Evaluate,
  space: factors.FactorSpace,
  transforms: Sequence[pushed_indices.Transform],
  options: Options | None = None,
  *,
  prior: kriging.Prior | None = None,
  on_step: Callable[[Step], None] | None = None,
) -> Refinement:
  """Returns the indices of I images at the least number of runs.

  An image whose first quantity does not vary is given up after four times the
  runs of the first round. All images have the same number of outputs C.

  Args:
    key: of the design, of the folds and of the draws.
    evaluate: the model.
    space: the factors.
    transforms: for each image, outputs (..., C) -> quantities (..., K). The
      first quantity is the one that has to meet the tolerance.
    options: when to stop.
    prior: from an earlier refinement of similar images; None: no preference.
    on_step: is told of each round.

  Raises:
    ValueError: no image, or outputs that are not finite or not of one shape.
  """
  if not transforms:
    raise ValueError('transforms: expected at least one image, got none')
  options = options or Options()
  key_design, key_rounds = jax.random.split(key)
  design = designs.sobol_sequence(
    key_design, space, options.max_evaluations
  )
  search = _Search(space, transforms, options, prior)
  for step, size in enumerate(options.sizes):
    search.evaluate(evaluate, design.nodes[:size])
    done = search.conclude(jax.random.fold_in(key_rounds, step))
    if on_step is not None:
      on_step(done)
    if not done.open.any():
      break
  return Refinement(
    tuple(search.answers), tuple(search.history), search.prior
  )


class _Search:
  """State of a refinement between rounds."""

  def __init__(self, space, transforms, options, prior):
    self.space, self.transforms, self.options = space, transforms, options
    self.prior = prior
    self.outputs = [None] * len(transforms)
    self.answers = [None] * len(transforms)
    self.open = np.ones(len(transforms), bool)
    self.history = []
    self.nodes = np.empty((0, space.dim))
    self.width = None
    self.sparse_in_reach = True

  def evaluate(self, evaluate, nodes) -> None:
    """Runs the open images at the nodes that are new."""
    fresh = nodes[len(self.nodes):]
    for i in np.flatnonzero(self.open):
      rows = _checked(
        evaluate(int(i), fresh), len(self.nodes), len(fresh), i, self.width
      )
      before, self.width = self.outputs[i], rows.shape[1]
      self.outputs[i] = rows if before is None else np.concatenate(
        [before, rows]
      )
    self.nodes = nodes

  def conclude(self, key) -> Step:
    """Fits the open images and closes those that are known well enough."""
    key_some, key_learn, key_draw, key_sparse, key_all = jax.random.split(
      key, 5
    )
    chosen = np.flatnonzero(self.open)
    outputs = np.concatenate([self.outputs[i] for i in chosen], axis=1)
    self.prior = kriging.learn(
      key_learn, kriging.default_prior(self.space), self.nodes,
      _some(key_some, outputs), known=self.prior,
    )
    # Other quantities and dense points are only worth their time at the end.
    is_end = len(self.nodes) >= self.options.max_evaluations
    kriged = self._by_kriging(key_draw, chosen, coarse=not is_end)
    moves = [
      self._move(i, inference)
      for i, inference in zip(chosen, kriged, strict=True)
    ]
    kriged = list(map(pushed_indices.widen, kriged, moves))
    sparse = self._by_terms(key_sparse, chosen, kriged)
    methods, found = [], []
    for by_kriging, by_terms in zip(kriged, sparse, strict=True):
      wins = by_terms is not None and (
        1 - by_terms.q2[0] < _ADVANTAGE * (1 - by_kriging.q2[0])
      )
      methods.append('sparse' if wins else 'kriging')
      found.append(by_terms if wins else by_kriging)
    done = np.array([self._is_done(f.half_widths[0]) for f in found])
    for n in np.flatnonzero(done & (np.array(methods) == 'sparse')):
      # The same folds for all images: their order does not matter.
      found[n] = self._all_by_terms(key_all, chosen[n])
      if found[n] is None:
        methods[n] = 'kriging'
    last = np.flatnonzero(done & (np.array(methods) == 'kriging'))
    direct = {}
    if len(last) and self.width > 1:
      direct = self._directly(key_draw, chosen[last])
    if len(last):
      by_kriging = [kriged[n] for n in last]
      if not is_end:
        by_kriging = self._by_kriging(key_draw, chosen[last], coarse=False)
        by_kriging = [
          pushed_indices.widen(inference, moves[n])
          for n, inference in zip(last, by_kriging, strict=True)
        ]
      for n, inference in zip(last, by_kriging, strict=True):
        found[n] = inference
    for i, method, inference in zip(chosen, methods, found, strict=True):
      self.answers[i] = Answer(
        method, inference, len(self.nodes), self.nodes, self.outputs[i],
        direct.get(int(i)),
      )
    self.open[chosen[done]] = False
    return self._note()

  def _move(self, i, kriged) -> float:
    """How much wider the intervals become by how far the indices moved.

    The prior may be wrong about an image; then its indices move further from
    round to round than their intervals say.
    """
    before = self.answers[i]
    if before is None or before.method != 'kriging':
      return 1.0
    now, then = (
      np.stack([x.indices.first_order[:, 0], x.indices.total[:, 0]])
      for x in (kriged, before.inference)
    )
    intervals = kriged.intervals
    widths = np.stack([
      intervals.first_order_upper - intervals.first_order_lower,
      intervals.total_upper - intervals.total_lower,
    ])[:, :, 0] / 2
    ratio = np.mean((now - then) ** 2) / max(np.mean(widths**2), 1e-300)
    return float(np.sqrt(1 + _MOVE**2 * ratio)) if np.isfinite(ratio) else 1.0

  def _is_done(self, half_width: float) -> bool:
    """Whether an image gets no further runs."""
    num_nodes = len(self.nodes)
    if num_nodes >= self.options.max_evaluations:
      return True
    if np.isnan(half_width):
      # No variance has no indices; more runs may find some.
      return num_nodes >= 4 * self.options.min_evaluations
    return bool(half_width <= self.options.tolerance)

  def _by_kriging(
    self, key, images, *, coarse
  ) -> list[pushed_indices.Inference]:
    """Inferences of some images; coarse: of the first quantities alone."""
    transforms = [self.transforms[i] for i in images]
    if coarse:
      transforms = list(map(_first_of, transforms))
    posterior = kriging.condition(
      self.prior, self.nodes,
      np.concatenate([self.outputs[i] for i in images], axis=1),
    )
    field = pushed_indices.make_field(
      key, posterior, self.space, self.width, coarse=coarse
    )
    return [
      pushed_indices.infer(
        field, slice(n * self.width, (n + 1) * self.width), transform,
        self.outputs[i], level=self.options.level,
      )
      for n, (i, transform) in enumerate(
        zip(images, transforms, strict=True)
      )
    ]

  def _directly(self, key, images) -> dict[int, pushed_indices.Inference]:
    """Inferences of the first quantities without what lies behind them."""
    quantities = np.concatenate([
      _first_of(self.transforms[i])(self.outputs[i]) for i in images
    ], axis=1)
    posterior = kriging.condition(self.prior, self.nodes, quantities)
    field = pushed_indices.make_field(
      key, posterior, self.space, 1, coarse=True
    )
    return {
      int(i): pushed_indices.infer(
        field, slice(n, n + 1), lambda y: y, quantities[:, n : n + 1],
        level=self.options.level,
      )
      for n, i in enumerate(images)
    }

  def _note(self) -> Step:
    """Returns and keeps what is known after this round."""
    found = [answer.inference for answer in self.answers]
    step = Step(
      len(self.nodes), np.array([f.half_widths[0] for f in found]),
      np.array([f.q2[0] for f in found]),
      tuple(answer.method for answer in self.answers), self.open.copy(),
    )
    self.history.append(step)
    return step

  def _by_terms(self, key, chosen, kriged) -> list:
    """Sparse inferences of the first quantities, None where out of reach."""
    out_of_reach = [None] * len(chosen)
    if len(chosen) > _MAX_SPARSE or not self.sparse_in_reach:
      return out_of_reach
    found = self._fit_terms(key, [
      np.asarray(self.transforms[i](self.outputs[i]), np.float64)[:, :1]
      for i in chosen
    ])
    if found is None:
      # The mean alone has no indices; the next round may find more.
      return out_of_reach
    errors = np.array([
      [1 - one.q2[0] for one in many] for many in (found, kriged)
    ])
    errors = np.sqrt(errors[:, np.isfinite(errors).all(axis=0)])
    if errors.size:
      by_terms, by_kriging = np.median(errors, axis=1)
      limit = _OUT_OF_REACH if len(chosen) < _MANY else _OUT_OF_REACH_OF_MANY
      self.sparse_in_reach = bool(by_terms < limit * by_kriging)
    return found

  def _all_by_terms(self, key, i) -> pushed_indices.Inference | None:
    """Sparse inference of all quantities of an image."""
    found = self._fit_terms(
      key, [np.asarray(self.transforms[i](self.outputs[i]), np.float64)]
    )
    return None if found is None else found[0]

  def _fit_terms(self, key, quantities) -> list | None:
    """Sparse inferences from one fit; None where it has but the mean."""
    weights = np.full(len(self.nodes), 1 / len(self.nodes))
    design = designs.Design(self.nodes, weights, 'sobol_sequence')
    key_fit, key_bootstrap = jax.random.split(key)
    fit = sparse_regression.fit(
      key_fit, self.space, design, np.concatenate(quantities, axis=1),
      num_folds=min(_NUM_FOLDS, len(self.nodes) // 2),
    )
    if fit.expansion.basis.num_terms == 1:
      return None
    edges = np.cumsum([0] + [q.shape[1] for q in quantities])
    return [
      _of_expansion(
        key_bootstrap, fit, self.nodes, slice(a, b), q, self.options.level
      )
      for a, b, q in zip(edges[:-1], edges[1:], quantities, strict=True)
    ]


def _first_of(
  transform: pushed_indices.Transform
) -> pushed_indices.Transform:
  """The first quantity alone."""
  return lambda outputs: np.asarray(transform(outputs))[..., :1]


def _of_expansion(key, fit, nodes, columns, quantities, level):
  """Inference from some outputs of a sparse fit."""
  basis = fit.expansion.basis
  expansion = expansions.Expansion(
    basis, fit.expansion.coefficients[:, columns]
  )
  intervals = intervals_lib.bootstrap_residuals(
    key, expansion, nodes, fit.cv_residuals[:, columns],
    components=fit.cv_components[:, :, columns], level=level,
  )
  with np.errstate(invalid='ignore', divide='ignore'):
    explained = expansion.variance / quantities.var(axis=0)
  return pushed_indices.Inference(
    indices=sobol_indices.sobol_indices(expansion), intervals=intervals,
    q2=fit.cv_q2[columns], explained_variance=explained,
    mean_derivatives=expansions.mean_derivatives(expansion),
    surrogate=expansion,
  )


def _some(key: jax.Array, outputs: np.ndarray) -> np.ndarray:
  """At most _MAX_LEARNED columns, chosen by the key."""
  if outputs.shape[1] <= _MAX_LEARNED:
    return outputs
  generator = designs.random_generator(key)
  return outputs[:, generator.permutation(outputs.shape[1])[:_MAX_LEARNED]]


def _checked(rows, num_before, num_nodes, image, width) -> np.ndarray:
  """Outputs of an image at new nodes, after a check."""
  rows = np.asarray(rows, np.float64)
  if (
    rows.ndim != 2 or len(rows) != num_nodes or not rows.shape[1]
    or (width is not None and rows.shape[1] != width)
  ):
    raise ValueError(
      f'evaluate: expected ({num_nodes}, {width or "C"}) of image {image}, '
      f'got {rows.shape}'
    )
  if not np.all(np.isfinite(rows)):
    n, c = np.argwhere(~np.isfinite(rows))[0]
    raise ValueError(
      f'evaluate: output {c} of image {image} is {rows[n, c]} at node '
      f'{num_before + n}'
    )
  return rows
