"""From a function of the factors to Sobol indices that can be trusted or not.

The steps of the main job after the images are out of the way. Two ways lead to
the indices:

- 'adaptive', the default: runs are added until the intervals are narrow enough
  or the budget is spent, for all images together (`refine`);
- a fixed design and basis: a design, its outputs, an expansion, indices with
  intervals, and a verdict from nodes that the expansion has not seen (`plan`
  and `conclude`, the halves before and after the evaluation).

`analyse` does either for any function.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses

import jax
import numpy as np

from jaxsens import factors
from jaxsens.gpc import adaptive
from jaxsens.gpc import coefficient_decay
from jaxsens.gpc import designs
from jaxsens.gpc import diagnostics
from jaxsens.gpc import expansions
from jaxsens.gpc import intervals as intervals_lib
from jaxsens.gpc import multi_indices
from jaxsens.gpc import pick_freeze
from jaxsens.gpc import pushed_indices
from jaxsens.gpc import regression
from jaxsens.gpc import sobol_indices

ADAPTIVE = 'adaptive'
_DESIGNS = (ADAPTIVE, 'tensor_gauss', 'latin_hypercube', 'sobol_sequence')
_TRUNCATIONS = ('tensor', 'total', 'hyperbolic')
_DEFAULT_NODES = 10
# Q2 below which a surrogate is no help and the indices are sampled instead.
_HOPELESS_Q2 = 0.5
# Lines per factor on which the decay of a surrogate is read off: as many as
# keep lines times factors times runs, which the time of kriging is like, below.
_FEWEST_LINES, _MOST_LINES = 4, 16
_LINES_TIMES_RUNS = 15_360


@dataclasses.dataclass(frozen=True)
class Settings:
  """How the indices are found.

  Attributes:
    design: 'adaptive'; 'tensor_gauss' (quadrature, projection),
      'latin_hypercube' or 'sobol_sequence' (random, least squares).
    tolerance: half-width of the intervals at which an adaptive run stops.
    max_evaluations: runs per image of an adaptive run at most.
    min_evaluations: runs per image of its first round.
    max_half_width: half-width above which its indices are not to be trusted.
    fallback_evaluations: further runs for an image whose surrogate predicts
      less than half of the variance; its indices are then sampled from the
      model itself. 0: none.
    num_nodes: nodes of each factor, by name; of a tensor design only. Factors
      that are not named get 10.
    num_samples: nodes of a random design.
    degrees: highest degree of each factor, by name, for truncation 'tensor'.
      Where not named: all that the quadrature carries, num_nodes - 1; for a
      random design 6.
    truncation: 'tensor', 'total' or 'hyperbolic'.
    degree: total degree, for 'total' and 'hyperbolic'.
    q: norm of the hyperbolic truncation, 0 < q <= 1.
    max_interaction: largest number of factors in one term; None for all.
    num_held_out: fresh random nodes that judge the expansion.
    num_resamples: bootstrap resamples of the intervals.
    level: coverage of the intervals.
    min_q2: held-out Q2 below which indices are not to be trusted.
  """

  design: str = ADAPTIVE
  tolerance: float = 0.02
  max_evaluations: int = 1024
  min_evaluations: int = 64
  max_half_width: float = 0.05
  fallback_evaluations: int = 4096
  num_nodes: Mapping[str, int] = dataclasses.field(default_factory=dict)
  num_samples: int = 2000
  degrees: Mapping[str, int] = dataclasses.field(default_factory=dict)
  truncation: str = 'tensor'
  degree: int = 6
  q: float = 0.75
  max_interaction: int | None = None
  num_held_out: int = 512
  num_resamples: int = 400
  level: float = 0.95
  min_q2: float = 0.9

  def __post_init__(self):
    for field, known in (('design', _DESIGNS), ('truncation', _TRUNCATIONS)):
      if getattr(self, field) not in known:
        raise ValueError(
          f'{field} must be one of {known}, got {getattr(self, field)!r}'
        )
    if self.num_held_out < 2:
      raise ValueError(
        f'num_held_out must be at least 2, got {self.num_held_out}: without '
        'fresh nodes there is no telling whether the indices hold'
      )
    if self.design == ADAPTIVE:
      self.options()

  def options(self) -> adaptive.Options:
    """Returns when an adaptive run stops; ValueError names a bad field."""
    return adaptive.Options(
      tolerance=self.tolerance, max_evaluations=self.max_evaluations,
      min_evaluations=self.min_evaluations, level=self.level,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
  """The nodes at which a function has to be evaluated.

  Attributes:
    space: the factors.
    settings: how the indices will be found.
    basis: the terms of the expansion.
    design: N nodes that the expansion is fitted to.
    held_out: M fresh nodes that judge it.
    values: (N + M, D) physical values of both, the design first.
  """

  space: factors.FactorSpace
  settings: Settings
  basis: expansions.Basis
  design: designs.Design
  held_out: designs.Design
  values: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Sensitivity:
  """What is known about K outputs of a function of D factors.

  Attributes:
    surrogate: germ (N, D) -> outputs (N, K).
    indices: the Sobol indices.
    intervals: their intervals, which hold the indices of the function itself.
    q2: (K,) on held-out nodes, or by cross-validation.
    explained_variance: (K,) variance of the surrogate over that of the outputs
      on the design.
    mean_derivatives: (D, K) E[d output / d value], physical units.
    verdicts: one per output; says what to raise where there is no trust.
    loo_q2: (K,) leave-one-out Q2 of a regression; else None.
    method: 'projection', 'regression', 'sparse', 'kriging' or 'pick_freeze'.
    num_evaluations: runs of the function.
    nodes: (N, D) germ coordinates of the runs behind the surrogate.
    direct_indices: of the first output by kriging of that output itself, where
      the others are pushed through logits: a check; else None.
    decay: of the surrogate of the first output, how fast its coefficients fall
      with the degree in each factor; the model's fall no faster as a rule.
  """

  surrogate: Callable[[np.ndarray], np.ndarray]
  indices: sobol_indices.SobolIndices
  intervals: intervals_lib.Intervals
  q2: np.ndarray
  explained_variance: np.ndarray
  mean_derivatives: np.ndarray
  verdicts: tuple[diagnostics.Verdict, ...]
  loo_q2: np.ndarray | None
  method: str
  num_evaluations: int
  nodes: np.ndarray
  direct_indices: sobol_indices.SobolIndices | None = None
  decay: coefficient_decay.Decay | None = None

  @property
  def direct_gap(self) -> float | None:
    """Largest difference of an index of the first output from that check."""
    if self.direct_indices is None:
      return None
    return float(np.max(np.abs([
      self.indices.first_order[:, 0] - self.direct_indices.first_order[:, 0],
      self.indices.total[:, 0] - self.direct_indices.total[:, 0],
    ])))

  @property
  def expansion(self) -> expansions.Expansion:
    """The surrogate where it is one expansion; TypeError where it is not."""
    if not isinstance(self.surrogate, expansions.Expansion):
      raise TypeError(
        f'the surrogate of method {self.method!r} is no expansion'
      )
    return self.surrogate


def refine(
  key: jax.Array,
  evaluate: adaptive.Evaluate,
  space: factors.FactorSpace,
  transforms: Sequence[pushed_indices.Transform],
  settings: Settings,
  *,
  on_step: Callable[[adaptive.Step], None] | None = None,
) -> tuple[list[Sensitivity], tuple[adaptive.Step, ...]]:
  """Returns what is known of every image after an adaptive run, and the steps.

  Args:
    key: of the design, the draws and the fallback.
    evaluate: outputs (N, C) of an image at germ nodes (N, D).
    space: the factors.
    transforms: of each image, outputs (..., C) -> quantities (..., K).
    settings: see `Settings`; what belongs to a fixed design is not used.
    on_step: is told of each round.
  """
  key_refine, key_fallback = jax.random.split(key)
  found = adaptive.refine(
    key_refine, evaluate, space, transforms, settings.options(),
    on_step=on_step,
  )
  results = []
  for i, answer in enumerate(found.answers):
    result = _of_answer(answer, settings, space)
    if result.q2[0] < _HOPELESS_Q2 and settings.fallback_evaluations:
      result = _fall_back(
        jax.random.fold_in(key_fallback, i), result, settings, space,
        lambda nodes, i=i: transforms[i](evaluate(i, nodes)),
      )
    results.append(_with_decay_in_words(result))
  return results, found.history


def _of_answer(
  answer: adaptive.Answer, settings: Settings, space: factors.FactorSpace
) -> Sensitivity:
  """Returns an answer with its verdicts and its decay."""
  inference = answer.inference
  return Sensitivity(
    surrogate=inference.surrogate, indices=inference.indices,
    intervals=inference.intervals, q2=inference.q2,
    explained_variance=inference.explained_variance,
    mean_derivatives=inference.mean_derivatives,
    verdicts=diagnostics.trust_intervals(
      inference.half_widths, inference.q2, limit=settings.max_half_width,
      advice=f'raise gpc.max_evaluations ({answer.num_evaluations} runs now)',
    ),
    loo_q2=None, method=answer.method,
    num_evaluations=answer.num_evaluations, nodes=answer.nodes,
    direct_indices=answer.direct.indices if answer.direct else None,
    decay=_decay(inference.surrogate, space, answer.nodes),
  )


def _decay(surrogate, space, nodes) -> coefficient_decay.Decay:
  """Returns the decay of the first output.

  As a rule less than the model needs. Of 14 images of CIFAR-10 whose network
  needs degrees of 36 to 76 along the rotation, on its own lines, the surrogate
  shows more than 30 in none with 64 runs, 3 with 256 and 14 with 1024.
  """
  if isinstance(surrogate, expansions.Expansion):
    return coefficient_decay.of_expansion(expansions.Expansion(
      surrogate.basis, surrogate.coefficients[:, :1]
    ))
  num_lines = _LINES_TIMES_RUNS // nodes.size
  num_lines = min(max(num_lines, _FEWEST_LINES), _MOST_LINES)
  return coefficient_decay.of_surrogate(
    lambda germ: np.asarray(surrogate(germ))[:, :1], space, nodes[:num_lines]
  )


def _with_decay_in_words(result: Sensitivity) -> Sensitivity:
  """Adds a sharp response to the advice of an output without trust."""
  first, *others = result.verdicts
  sentence = result.decay.sentence()
  if first.trusted or not sentence:
    return result
  first = dataclasses.replace(first, advice=(*first.advice, sentence))
  return dataclasses.replace(result, verdicts=(first, *others))


def _fall_back(key, result, settings, space, quantities) -> Sensitivity:
  """Returns the indices sampled from the model itself by pick-freeze."""
  num_base = max(2, settings.fallback_evaluations // (space.dim + 2))
  sample = pick_freeze.sample(key, space, num_base)
  found = pick_freeze.estimate(
    sample, np.asarray(quantities(sample.nodes)), level=settings.level
  )
  indices, intervals = pick_freeze.as_sobol_indices(found)
  return dataclasses.replace(
    result, indices=indices, intervals=intervals, method='pick_freeze',
    num_evaluations=result.num_evaluations + sample.num_nodes,
    verdicts=diagnostics.trust_intervals(
      pushed_indices.half_widths(intervals), result.q2,
      limit=settings.max_half_width,
      advice=f'raise gpc.fallback_evaluations ({sample.num_nodes} runs now)',
    ),
  )


def plan(
  key: jax.Array, space: factors.FactorSpace, settings: Settings
) -> Plan:
  """Returns the nodes that settle the indices of any function of a space.

  Args:
    key: for random designs and for the held-out nodes.
    space: the factors.
    settings: see `Settings`.

  Raises:
    ValueError: settings name a factor that the space lacks, or a basis that the
      design cannot carry; or an adaptive run, which has no plan.
  """
  if settings.design == ADAPTIVE:
    raise ValueError('design: an adaptive run has no plan; call refine')
  key_design, key_held_out = jax.random.split(key)
  for field in ('num_nodes', 'degrees'):
    unknown = set(getattr(settings, field)) - set(space.names)
    if unknown:
      raise ValueError(
        f'{field} names {sorted(unknown)}; the factors are {space.names}'
      )
  basis = expansions.Basis(space, _terms(space, settings))
  if settings.design == 'tensor_gauss':
    design = designs.tensor_gauss(space, _num_nodes(space, settings))
  else:
    make = getattr(designs, settings.design)
    design = make(key_design, space, settings.num_samples)
  held_out = designs.latin_hypercube(
    key_held_out, space, settings.num_held_out
  )
  values = space.to_values(np.concatenate([design.nodes, held_out.nodes]))
  return Plan(space, settings, basis, design, held_out, values)


def conclude(key: jax.Array, plan: Plan, outputs: np.ndarray) -> Sensitivity:
  """Returns the indices from the outputs at the nodes of a plan.

  Args:
    key: of the bootstrap.
    plan: from `plan`.
    outputs: (N + M, K) at `plan.values`.

  Raises:
    ValueError: outputs of another shape or with NaN.
  """
  outputs = np.asarray(outputs, np.float64)
  if outputs.ndim != 2 or len(outputs) != len(plan.values):
    raise ValueError(
      f'outputs must be ({len(plan.values)}, K), got {outputs.shape}'
    )
  settings = plan.settings
  fitted, unseen = np.split(outputs, [plan.design.num_nodes])
  if plan.design.kind == 'tensor_gauss':
    source = expansion = expansions.project(plan.basis, plan.design, fitted)
    loo_q2 = None
  else:
    source = regression.least_squares(plan.basis, plan.design, fitted)
    expansion, loo_q2 = source.expansion, source.loo_q2
  intervals = intervals_lib.bootstrap(
    key, source,
    design=None if loo_q2 is None else plan.design,
    held_out=plan.held_out, held_out_outputs=unseen,
    num_resamples=settings.num_resamples, level=settings.level,
  )
  q2 = diagnostics.q2(unseen, expansion(plan.held_out.nodes))
  return _with_decay_in_words(Sensitivity(
    surrogate=expansion,
    indices=sobol_indices.sobol_indices(expansion),
    intervals=intervals,
    q2=q2,
    explained_variance=diagnostics.explained_variance_ratio(
      expansion, fitted, plan.design.weights
    ),
    mean_derivatives=expansions.mean_derivatives(expansion),
    verdicts=diagnostics.trust(
      q2, expansion, threshold=settings.min_q2,
      nodes_field='gpc.num_nodes.{}' if loo_q2 is None else 'gpc.num_samples',
    ),
    loo_q2=loo_q2,
    method='projection' if loo_q2 is None else 'regression',
    num_evaluations=len(plan.values),
    nodes=plan.design.nodes,
    decay=_decay(expansion, plan.space, plan.design.nodes),
  ))


def analyse(
  key: jax.Array,
  function: Callable[[np.ndarray], np.ndarray],
  space: factors.FactorSpace,
  settings: Settings | None = None,
) -> Sensitivity:
  """Returns the Sobol indices of a function of the factors.

  Args:
    key: for random designs, held-out nodes and the bootstrap.
    function: physical values (N, D) -> outputs (N, K) or (N,).
    space: the factors.
    settings: see `Settings`; None takes its defaults.
  """
  settings = settings or Settings()
  if settings.design == ADAPTIVE:

    def evaluate(image, nodes):
      del image
      outputs = np.asarray(function(space.to_values(nodes)))
      return outputs.reshape(len(nodes), -1)

    (result,), _ = refine(key, evaluate, space, [lambda y: y], settings)
    return result
  key_plan, key_bootstrap = jax.random.split(key)
  nodes = plan(key_plan, space, settings)
  outputs = np.asarray(function(nodes.values))
  return conclude(
    key_bootstrap, nodes, outputs.reshape(len(nodes.values), -1)
  )


def _num_nodes(space, settings) -> tuple[int, ...]:
  return tuple(
    settings.num_nodes.get(name, _DEFAULT_NODES) for name in space.names
  )


def _terms(space, settings) -> np.ndarray:
  limit = {'max_interaction': settings.max_interaction}
  if settings.truncation == 'total':
    return multi_indices.total_degree(space.dim, settings.degree, **limit)
  if settings.truncation == 'hyperbolic':
    return multi_indices.hyperbolic(
      space.dim, settings.degree, settings.q, **limit
    )
  if settings.design == 'tensor_gauss':
    highest = [n - 1 for n in _num_nodes(space, settings)]
  else:
    highest = [settings.degree] * space.dim
  return multi_indices.tensor_product(
    [
      settings.degrees.get(name, default)
      for name, default in zip(space.names, highest, strict=True)
    ],
    **limit,
  )
