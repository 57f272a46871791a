"""The worst case in a box of factor values, by projected gradient ascent.

An objective is a function of physical values (D,), written in JAX, that is
larger where things are worse: the loss of a network on a perturbed image, or
minus its margin. The nominal point and a scrambled Sobol sequence are screened
without derivatives, and ascents start from the worst of them: few factors make
many hills, of which an ascent from just anywhere climbs a low one. A step of
length s in the germ, measured in widths of the box, is

    trial = project(point + s sign(gradient))   or
    trial = project(point + s gradient / |gradient|),

where the gradient leaves out the factors that it would push out of the box. A
trial that is better is taken, and the next step is 1.3 times as long. One that
is not is forgotten, and the next step from the same point is half as long and
of the other kind: signs go further, gradients climb ridges.

What has no useful derivative: nearest-neighbour resampling and values cut to 8
bits (constant but for jumps), perturbations registered as not differentiable,
and discrete factors, which keep the atom of their start.
"""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses

import chaospy
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np

from jaxsens import classifiers
from jaxsens import factors
from jaxsens import quantities
from jaxsens import slices
from jaxsens.gpc import designs
from jaxsens.perturbations import chains

# Worse is larger: these are the signs of the quantities.
_SIGNS = {'margin': -1.0, 'probability': -1.0, 'loss': 1.0, 'entropy': 1.0}
# Points that are screened together.
_BLOCK_SIZE = 64
# First step in widths of the box, and how it changes.
_FIRST_STEP = 0.15
_LONGER = 1.3
_SHORTER = 0.5


@dataclasses.dataclass(frozen=True, eq=False)
class WorstCase:
  """The worst point that a search has seen.

  Attributes:
    names: the D factors.
    values: (D,) physical values of the point.
    objective: there.
    nominal_objective: at the nominal point.
    start_objective: at the worst screened point.
    starts: (S, D) physical values of the starts, the worst first.
    history: (num_steps + 1,) largest objective after each step.
    num_screened: evaluations of the objective alone.
    num_gradients: evaluations of the objective with its gradient.
  """

  names: tuple[str, ...]
  values: np.ndarray
  objective: float
  nominal_objective: float
  start_objective: float
  starts: np.ndarray
  history: np.ndarray
  num_screened: int
  num_gradients: int


@dataclasses.dataclass(frozen=True)
class _Objective:
  """Sign times a quantity of one perturbed image."""

  chain: chains.Chain
  quantity: quantities.Quantities
  sign: float

  def __call__(self, classifier, prepared, label, key, values):
    image = self.chain.apply(prepared, values, key)
    logits = classifier(image[None])[0].astype(jnp.float32)
    return self.sign * self.quantity(logits, label)[0]


def make_objective(
  classifier: classifiers.Classifier,
  chain: chains.Chain,
  image: ArrayLike,
  label: int,
  quantity: str = 'margin',
  key: jax.Array | None = None,
) -> Callable[[jax.Array], jax.Array]:
  """Returns the objective of a network on one image.

  It takes the path of `evaluation`: the chain, preprocessing, network and
  quantity. Objectives of one network share their compiled program.

  Args:
    classifier: the network.
    chain: the perturbations; its output has the size of the classifier.
    image: (H, W, C) float in [0, 1], of any size.
    label: the true class.
    quantity: 'margin' or 'probability' of the true class, with the sign
      changed, 'loss' or 'entropy'.
    key: for perturbations that draw; the same at every point.

  Returns:
    A function of values (D,) in the order of the chain, () float32.

  Raises:
    ValueError: another quantity, an image or label that does not fit, or a
      chain that does not differentiate.
  """
  if quantity not in _SIGNS:
    raise ValueError(
      f'quantity: expected one of {list(_SIGNS)}, got {quantity!r}'
    )
  _check_differentiable(chain)
  image = np.asarray(image, np.float32)
  if image.ndim != 3 or image.shape[2] != classifier.channels:
    raise ValueError(
      f'image: expected shape (H, W, {classifier.channels}), got {image.shape}'
    )
  if not (np.all(image >= 0) and np.all(image <= 1)):
    raise ValueError('image: expected pixels in [0, 1]')
  if not 0 <= label < len(classifier.class_names):
    raise ValueError(
      f'label: {label} is not among the {len(classifier.class_names)} classes'
    )
  one = quantities.make_quantities(
    (quantity,), classifier.class_names, answers=classifier.answers
  )
  return jax.tree_util.Partial(
    _Objective(chain, one, _SIGNS[quantity]), classifier,
    chain.prepare(image), jnp.asarray(label), key,
  )


def search(
  key: jax.Array,
  objective: Callable[[jax.Array], jax.Array],
  space: factors.FactorSpace,
  *,
  nominal: Sequence[float],
  num_starts: int,
  num_steps: int,
  num_screened: int | None = None,
  lower: Sequence[float] | None = None,
  upper: Sequence[float] | None = None,
) -> WorstCase:
  """Searches a box for the values with the largest objective.

  Args:
    key: typed JAX key, for the screened points.
    objective: values (D,) -> (), in JAX and differentiable; points are
      evaluated together under `vmap`. A `jax.tree_util.Partial` compiles once
      for all of its arrays, any other function once for itself.
    space: the factors, in the order of the values.
    nominal: (D,) physical values in the box; the first screened point.
    num_starts: number of ascents S.
    num_steps: steps of each ascent.
    num_screened: points among which the starts are chosen, at least S; None:
      3 S (num_steps + 1), about the cost of the ascents.
    lower: (D,) physical values; None: the ranges of the factors, and their
      0.5 % quantiles where they are unbounded.
    upper: (D,), and so for the 99.5 % quantiles.

  Returns:
    The worst case; never better than the worst screened point.

  Raises:
    ValueError: limits outside the ranges or that do not hold the nominal
      point, no start, fewer screened points than starts.
    FloatingPointError: the objective or its derivative is not finite; names
      the factors and the values.
  """
  if num_screened is None:
    num_screened = 3 * num_starts * (num_steps + 1)
  if not (1 <= num_starts <= num_screened and num_steps >= 0):
    raise ValueError(
      'expected 1 <= num_starts <= num_screened and num_steps >= 0, got '
      f'{num_starts}, {num_screened} and {num_steps}'
    )
  box = _make_box(space, nominal, lower, upper)
  if not isinstance(objective, jax.tree_util.Partial):
    objective = jax.tree_util.Partial(objective)
  points = _screened_points(key, space, box, num_screened)
  first = _screen(objective, space, box, points)
  points = points[np.argsort(-first, kind='stable')[:num_starts]]
  starts = _to_values(space, box, points)
  points, scores, history = _ascend(objective, space, box, points, num_steps)
  best = np.argmax(scores)
  return WorstCase(
    space.names, _to_values(space, box, points[best:best + 1])[0],
    float(scores[best]), float(first[0]), float(history[0]), starts,
    history, num_screened, num_starts * (num_steps + 1),
  )


def _ascend(objective, space, box, points, num_steps):
  """Returns the ends of ascents, their objectives, and the largest by step."""
  scores, slopes = _evaluate(objective, space, box, points)
  history, steps = [np.max(scores)], np.full(len(points), _FIRST_STEP)
  by_sign = np.ones(len(points), bool)
  for _ in range(num_steps):
    trials = _step(points, slopes, steps, by_sign)
    found = _evaluate(objective, space, box, trials)
    better = found[0] > scores
    points = np.where(better[:, None], trials, points)
    slopes = np.where(better[:, None], found[1], slopes)
    scores = np.where(better, found[0], scores)
    steps = steps * np.where(better, _LONGER, _SHORTER)
    by_sign = by_sign == better
    history.append(np.max(scores))
  return points, scores, np.array(history)


@dataclasses.dataclass(frozen=True, eq=False)
class _Box:
  """Limits and nominal point (D,), as values and as germ coordinates.

  Points in the box are in widths of it: germ = lower_germ + points width.
  """

  lower: np.ndarray
  upper: np.ndarray
  nominal: np.ndarray
  lower_germ: np.ndarray
  width: np.ndarray
  nominal_point: np.ndarray


def _make_box(space, nominal, lower, upper) -> _Box:
  ends = np.array([slices.axis(space, name, 2) for name in space.names]).T
  limits = {'lower': lower, 'nominal': nominal, 'upper': upper}
  for name, default in (('lower', ends[0]), ('upper', ends[1])):
    limits[name] = default if limits[name] is None else limits[name]
  for name, values in limits.items():
    limits[name] = np.asarray(values, np.float64)
    if limits[name].shape != (space.dim,):
      raise ValueError(
        f'{name}: expected one value for each of {list(space.names)}, got '
        f'shape {limits[name].shape}'
      )
  low, middle, high = limits.values()
  for d, factor in enumerate(space.factors):
    ordered = [factor.lower, low[d], middle[d], high[d], factor.upper]
    if not all(a <= b for a, b in zip(ordered[:-1], ordered[1:], strict=True)):
      raise ValueError(
        f'factor {factor.name!r}: expected lower <= nominal <= upper in '
        f'[{factor.lower:g}, {factor.upper:g}], got {low[d]:g}, '
        f'{middle[d]:g}, {high[d]:g}'
      )
  germ = space.to_germ(np.stack([low, middle, high]))
  width = germ[2] - germ[0]
  some = np.where(width > 0, width, 1.0)
  return _Box(low, high, middle, germ[0], width, (germ[1] - germ[0]) / some)


def _screened_points(key, space, box, num_points) -> np.ndarray:
  """Points (N, D) in [0, 1]: the nominal one and a Sobol sequence."""
  if num_points == 1:
    return box.nominal_point[None]
  cube = factors.FactorSpace(tuple(
    factors.Factor(name, chaospy.Uniform(-1, 1)) for name in space.names
  ))
  drawn = designs.sobol_sequence(key, cube, num_points - 1).nodes
  return np.concatenate([box.nominal_point[None], (drawn + 1) / 2])


def _to_values(space, box, points) -> np.ndarray:
  """Physical values (S, D) of points, within the box in spite of rounding."""
  values = space.to_values(box.lower_germ + points * box.width)
  at_nominal = points == box.nominal_point
  return np.clip(
    np.where(at_nominal, box.nominal, values), box.lower, box.upper
  )


def _screen(objective, space, box, points) -> np.ndarray:
  """Objectives (N,) of points, in blocks, float64."""
  values = _to_values(space, box, points)
  # The last block is filled up, so that all share a compiled program.
  size = min(_BLOCK_SIZE, len(values))
  padded = np.resize(values, (-(-len(values) // size) * size, space.dim))
  scores = np.concatenate([
    _value(objective, jnp.asarray(block))
    for block in padded.reshape(-1, size, space.dim)
  ])[:len(values)].astype(np.float64)
  _check_finite(space, values, scores, np.zeros_like(values))
  return scores


def _evaluate(objective, space, box, points):
  """Objectives (S,) and their slopes (S, D) by the points, float64."""
  values = _to_values(space, box, points)
  scores, gradients = _value_and_gradient(objective, jnp.asarray(values))
  scores, gradients = (np.asarray(x, np.float64) for x in (scores, gradients))
  _check_finite(space, values, scores, gradients)
  germ = box.lower_germ + points * box.width
  slopes = gradients * space.value_slope(germ) * box.width
  is_discrete = [factor.atoms is not None for factor in space.factors]
  return scores, np.where(is_discrete, 0.0, slopes)


@jax.jit
def _value(objective, values):
  return jax.vmap(objective)(values)


@jax.jit
def _value_and_gradient(objective, values):
  return jax.vmap(jax.value_and_grad(objective))(values)


def _check_finite(space, values, scores, gradients):
  bad = np.flatnonzero(~np.isfinite(scores))
  if bad.size:
    raise FloatingPointError(
      f'the objective is {scores[bad[0]]} at '
      f'{_named(space, values[bad[0]])}'
    )
  bad = np.argwhere(~np.isfinite(gradients))
  if bad.size:
    row = bad[0][0]
    names = [space.names[d] for d in bad[bad[:, 0] == row, 1]]
    raise FloatingPointError(
      f'the derivative of the objective by {names} is not finite at '
      f'{_named(space, values[row])}'
    )


def _named(space, values):
  return dict(zip(space.names, values.tolist(), strict=True))


def _step(points, slopes, steps, by_sign) -> np.ndarray:
  """Points one step uphill of others, in [0, 1]."""
  leaves = ((points <= 0) & (slopes < 0)) | ((points >= 1) & (slopes > 0))
  slopes = np.where(leaves, 0.0, slopes)
  # Scaled first, so that the squares of small slopes do not vanish.
  largest = np.max(np.abs(slopes), axis=1, keepdims=True)
  scaled = slopes / np.where(largest > 0, largest, 1.0)
  length = np.linalg.norm(scaled, axis=1, keepdims=True)
  direction = np.where(
    by_sign[:, None], np.sign(slopes), scaled / np.where(length > 0, length, 1)
  )
  return np.clip(points + steps[:, None] * direction, 0.0, 1.0)


def _check_differentiable(chain):
  if chain.convention == 'paper':
    raise ValueError(
      "convention 'paper' cuts the image to 8 bits: its derivative is zero; "
      "use 'fused' or 'sequential'"
    )
  geometric = [
    step.perturbation.name for step in chain.steps
    if step.perturbation.kind == 'geometric'
  ]
  if chain.method == 'nearest' and geometric:
    raise ValueError(
      f"method 'nearest' has no derivative in {geometric}; use 'bilinear'"
    )
  fixed = [p.name for p in chain.parameters if not p.differentiable]
  if fixed:
    raise ValueError(f'the image has no derivative in {fixed}')
