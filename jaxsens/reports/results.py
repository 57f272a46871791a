"""Results of a run as the reports receive them: plain arrays and strings.

Axes in this order: nodes m, factors d, classes or outputs k, subsets s. All
factor values are physical, in the factor's unit. Nothing here is computed from
a network or from an expansion; constructors only check that the shapes agree.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np

# An expansion whose held-out Q2 is below this is not a stand-in for the model.
MINIMUM_Q2 = 0.9


@dataclasses.dataclass(frozen=True, eq=False)
class FactorCurve:
  """Answers along one factor, the other factors at their identity.

  Attributes:
    name: Name of the factor.
    unit: Its unit, '' if it has none.
    values: (M,) Values at which the network was asked, increasing.
    truth: (M, K) The network's outputs there.
    surrogate_values: (M2,) Values at which the expansion was asked.
    surrogate: (M2, K) The expansion's outputs there.
    predicted: (M,) The network's class at `values`, int.
    identity: Value that leaves the image as it is.
    contact_images: (T, H, W, C) Perturbed images, C = 1 or 3, in [0, 1].
    contact_values: (T,) Their values.
    contact_predicted: (T,) The network's classes on them, int.
    contact_confidence: (T,) Its probabilities of those classes, in [0, 1].
    first_flip_below: The value nearest to the identity, below it, at which the
      network's class differs from its class at the identity; None: never.
    first_flip_above: The same above the identity.
    first_error_below: The value nearest to the identity, below it, at which the
      network's class differs from the label; None: never within the range.
    first_error_above: The same above the identity.

  Raises:
    ValueError: If the shapes do not agree.
  """

  name: str
  unit: str
  values: np.ndarray
  truth: np.ndarray
  surrogate_values: np.ndarray
  surrogate: np.ndarray
  predicted: np.ndarray
  identity: float
  contact_images: np.ndarray
  contact_values: np.ndarray
  contact_predicted: np.ndarray
  contact_confidence: np.ndarray
  first_flip_below: float | None = None
  first_flip_above: float | None = None
  first_error_below: float | None = None
  first_error_above: float | None = None

  def __post_init__(self):
    num_outputs = np.shape(self.truth)[-1:]
    num_values = np.shape(self.values)[:1]
    num_contacts = np.shape(self.contact_values)[:1]
    _check_shapes(self, f'FactorCurve {self.name!r}', {
      'values': num_values,
      'truth': num_values + num_outputs,
      'surrogate': np.shape(self.surrogate_values)[:1] + num_outputs,
      'predicted': num_values,
      'contact_predicted': num_contacts,
      'contact_confidence': num_contacts,
    })
    if np.ndim(self.contact_images) != 4:
      raise ValueError(
        f'FactorCurve {self.name!r}: contact_images has shape '
        f'{np.shape(self.contact_images)}, expected (T, H, W, C)'
      )
    _check_length(self, 'contact_images', num_contacts[0])
    if np.any(np.diff(self.values) <= 0):
      raise ValueError(f'FactorCurve {self.name!r}: values do not increase')

  def wrong_ranges(self, label: int) -> list[tuple[float, float, int]]:
    """Ranges of the factor in which the network's class is not the label.

    An edge lies half-way between the last right and the first wrong value.

    Args:
      label: The true class.

    Returns:
      (lower, upper, class) per run of one wrong class, in increasing order.
    """
    values = np.asarray(self.values, float)
    middles = (values[1:] + values[:-1]) / 2
    edges = np.concatenate([values[:1], middles, values[-1:]])
    predicted = np.asarray(self.predicted)
    starts = np.flatnonzero(np.diff(predicted, prepend=predicted[:1] - 1))
    stops = np.append(starts[1:], len(predicted))
    return [
      (float(edges[start]), float(edges[stop]), int(predicted[start]))
      for start, stop in zip(starts, stops, strict=True)
      if predicted[start] != label
    ]


@dataclasses.dataclass(frozen=True, eq=False)
class Surface:
  """One output of the expansion over two factors, the others fixed.

  Attributes:
    name_x: Name of the factor along x.
    unit_x: Its unit.
    name_y: Name of the factor along y.
    unit_y: Its unit.
    fixed: Name -> value of every other factor.
    x: (A,) Values of the first factor.
    y: (B,) Values of the second factor.
    surrogate: (A, B) The expansion's output.
    nodes_x: (M,) First factor of the network's evaluations on this plane.
    nodes_y: (M,) Second factor of them.
    nodes_truth: (M,) The network's output there; M may be 0.
    output_name: Name of the output.

  Raises:
    ValueError: If the shapes do not agree.
  """

  name_x: str
  unit_x: str
  name_y: str
  unit_y: str
  fixed: Mapping[str, float]
  x: np.ndarray
  y: np.ndarray
  surrogate: np.ndarray
  nodes_x: np.ndarray
  nodes_y: np.ndarray
  nodes_truth: np.ndarray
  output_name: str

  def __post_init__(self):
    num_nodes = np.shape(self.nodes_x)[:1]
    _check_shapes(self, f'Surface {self.name_x!r} x {self.name_y!r}', {
      'surrogate': np.shape(self.x) + np.shape(self.y),
      'nodes_x': num_nodes,
      'nodes_y': num_nodes,
      'nodes_truth': num_nodes,
    })


@dataclasses.dataclass(frozen=True, eq=False)
class ImageResult:
  """Indices, diagnostics and response of the classifier on one image.

  Attributes:
    name: Name of the image.
    label: Its true class.
    label_name: Name of the true class.
    prediction: The network's class for the unperturbed image.
    prediction_name: Name of that class.
    confidence: The network's probability of that class, in [0, 1].
    image: (H, W, C) The unperturbed image, C = 1 or 3, in [0, 1].
    output_names: (K) Names of the outputs.
    main_output: Index of the output that the report is about, the probability
      of the true class.
    factor_names: (D) Names of the factors.
    factor_units: (D) Their units.
    first_order: (D, K) First-order Sobol indices.
    first_order_lower: (D, K) Lower ends of their intervals, NaN if unknown.
    first_order_upper: (D, K) Upper ends.
    total: (D, K) Total Sobol indices.
    total_lower: (D, K) Lower ends of their intervals, NaN if unknown.
    total_upper: (D, K) Upper ends.
    interactions: (D, D, K) Pairwise indices; the diagonal holds first_order.
    subsets: (S) Subsets of factors, as positions in factor_names.
    subset_values: (S, K) Their indices; they sum to one over S.
    mean: (K,) Means of the outputs under the factors' distribution.
    variance: (K,) Variances of the outputs.
    mean_derivatives: (D, K) E[d output / d value], per unit of the factor.
    q2: (K,) Q2 on held-out nodes.
    explained_variance: (K,) Variance of the expansion over the sample variance.
    trusted: Whether the expansion may stand in for the model.
    advice: What to raise if not.
    reasons: (K) Why an index is NaN, else None.
    curves: Answers along the factors, at most one per factor.
    surfaces: Responses over pairs of factors.
    method: How the indices were found, '' if not recorded.
    num_evaluations: Runs of the network behind them, 0 if not recorded.
    max_half_width: Half-width of an interval up to which indices are trusted;
      None where held-out Q2 decides.
    limits: How far the image may be moved, as in limits/; {} if unknown.
    decay: Factor -> how fast the coefficients of the main output fall along
      it: required_degree (that misses 1 % of the variance, NaN if the output
      does not vary), law, rate, fall (the law in words) and slow (whether no
      affordable grid carries the degree); {} if unknown.

  Raises:
    ValueError: If the shapes do not agree or a name is unknown.
  """

  name: str
  label: int
  label_name: str
  prediction: int
  prediction_name: str
  confidence: float
  image: np.ndarray
  output_names: tuple[str, ...]
  main_output: int
  factor_names: tuple[str, ...]
  factor_units: tuple[str, ...]
  first_order: np.ndarray
  first_order_lower: np.ndarray
  first_order_upper: np.ndarray
  total: np.ndarray
  total_lower: np.ndarray
  total_upper: np.ndarray
  interactions: np.ndarray
  subsets: tuple[tuple[int, ...], ...]
  subset_values: np.ndarray
  mean: np.ndarray
  variance: np.ndarray
  mean_derivatives: np.ndarray
  q2: np.ndarray
  explained_variance: np.ndarray
  trusted: bool
  advice: tuple[str, ...]
  reasons: tuple[str | None, ...]
  curves: tuple[FactorCurve, ...] = ()
  surfaces: tuple[Surface, ...] = ()
  method: str = ''
  num_evaluations: int = 0
  max_half_width: float | None = None
  limits: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  decay: Mapping[str, Mapping[str, Any]] = dataclasses.field(
    default_factory=dict
  )

  def __post_init__(self):
    d, k = len(self.factor_names), len(self.output_names)
    per_output = ('mean', 'variance', 'q2', 'explained_variance')
    per_factor = ('mean_derivatives',) + tuple(
      f'{index}{end}' for index in ('first_order', 'total')
      for end in ('', '_lower', '_upper')
    )
    _check_shapes(self, f'ImageResult {self.name!r}', {
      **{field: (k,) for field in per_output},
      **{field: (d, k) for field in per_factor},
      'interactions': (d, d, k),
      'subset_values': (len(self.subsets), k),
    })
    _check_length(self, 'factor_units', d)
    _check_length(self, 'reasons', k)
    self._check_names()

  def _check_names(self):
    if not 0 <= self.main_output < len(self.output_names):
      raise ValueError(
        f'ImageResult {self.name!r}: main_output is {self.main_output}, '
        f'expected 0 to {len(self.output_names) - 1}'
      )
    names = [curve.name for curve in self.curves]
    unknown = sorted(set(names) - set(self.factor_names))
    if unknown or len(set(names)) < len(names):
      raise ValueError(
        f'ImageResult {self.name!r}: curves of {names}, expected at most one '
        f'for each of {list(self.factor_names)}'
      )
    unknown = sorted(set(self.decay) - set(self.factor_names))
    if unknown:
      raise ValueError(
        f'ImageResult {self.name!r}: decay along {unknown}, expected factors '
        f'of {list(self.factor_names)}'
      )

  @property
  def main_name(self) -> str:
    """Name of the main output."""
    return self.output_names[self.main_output]

  @property
  def correct(self) -> bool:
    """Whether the unperturbed image is classified as its label."""
    return self.prediction == self.label

  @property
  def defined(self) -> bool:
    """Whether every index of the main output is a number."""
    indices = (self.first_order, self.total)
    return all(np.isfinite(a[:, self.main_output]).all() for a in indices)

  @property
  def accepted(self) -> bool:
    """Whether the main output's indices may be read as the model's."""
    return bool(
      self.trusted and self.defined and self.sufficient(self.main_output)
    )

  def half_width(self, k: int) -> float:
    """Largest half-width of the intervals of output k, NaN if unknown."""
    first = self.first_order_upper[:, k] - self.first_order_lower[:, k]
    total = self.total_upper[:, k] - self.total_lower[:, k]
    return float(np.max([first, total])) / 2

  def sufficient(self, k: int) -> bool:
    """Whether output k passes the check that decides about trust."""
    if self.max_half_width is None:
      return bool(self.q2[k] >= MINIMUM_Q2)
    return bool(self.half_width(k) <= self.max_half_width)

  def check(self, k: int) -> str:
    """What that check found: 'Q2 0.97', or '±0.012' for the intervals."""
    if self.max_half_width is None:
      return f'Q2 {self.q2[k]:.2f}'
    return f'±{self.half_width(k):.2g}'

  def curve(self, factor_name: str) -> FactorCurve | None:
    """Returns the curve along a factor, None if there is none."""
    found = [c for c in self.curves if c.name == factor_name]
    return found[0] if found else None


@dataclasses.dataclass(frozen=True, eq=False)
class ConvergenceStep:
  """How far the intervals of all images were after one step of the analysis.

  Attributes:
    num_evaluations: () or (I,) Model runs per image up to this step.
    half_widths: (I,) Largest half-width of the intervals of each image, NaN
      where unknown.
  """

  num_evaluations: np.ndarray
  half_widths: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class RunResult:
  """All that a report tells of one run.

  Attributes:
    title: Title of the report.
    data_description: Which data were used, in one sentence.
    images: Results, one per image, at least one; same factors in each.
    class_names: Names of the classes, by label.
    provenance: Nested names -> text, numbers, lists, shown whole. 'model' (a
      text) and, at any depth, 'validation_accuracy' (a fraction) and
      'num_evaluations' also stand in the first lines of the report,
      'stage_seconds' (stage -> seconds) in a table.
    factors: One mapping per factor: name, unit, distribution, lower, upper.
    steps: Rounds of an adaptive run, of all its images.
    tolerance: Half-width at which an image was finished, None without.

  Raises:
    ValueError: If there is no image or the images have different factors.
  """

  title: str
  data_description: str
  images: tuple[ImageResult, ...]
  class_names: tuple[str, ...]
  provenance: Mapping[str, Any]
  factors: Sequence[Mapping[str, Any]]
  steps: tuple[ConvergenceStep, ...] = ()
  tolerance: float | None = None

  def __post_init__(self):
    if not self.images:
      raise ValueError('RunResult.images is empty, expected at least one')
    names = self.images[0].factor_names
    for image in self.images:
      if image.factor_names != names:
        raise ValueError(
          f'ImageResult {image.name!r} has the factors {image.factor_names}, '
          f'expected {names} as in {self.images[0].name!r}'
        )


def _check_shapes(result, owner, shapes):
  """Raises a ValueError naming the first field with another shape."""
  for field, expected in shapes.items():
    actual = np.shape(getattr(result, field))
    if actual != expected:
      raise ValueError(
        f'{owner}: {field} has shape {actual}, expected {expected}'
      )


def _check_length(result, field, expected):
  actual = len(getattr(result, field))
  if actual != expected:
    raise ValueError(
      f'{type(result).__name__} {result.name!r}: {field} has {actual} '
      f'entries, expected {expected}'
    )
