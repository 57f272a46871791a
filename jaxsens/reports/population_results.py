"""Results of a whole data set as its report receives them.

Nothing here is computed; the constructor only checks that the parts agree.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

import numpy as np

from jaxsens import fragility
from jaxsens import population_accuracy
from jaxsens import populations
from jaxsens.reports import results


@dataclasses.dataclass(frozen=True, eq=False)
class FactorAxis:
  """The nodes of one factor on the common grid, in physical values.

  Attributes:
    name: Name of the factor.
    unit: Its unit, '' if it has none.
    values: (n,) Its values, increasing.
    identity: Value that leaves the image as it is, None if there is none.
  """

  name: str
  unit: str
  values: np.ndarray
  identity: float | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class PopulationStudy:
  """All that the report of a data set shows.

  Attributes:
    title: Title of the report.
    data_description: What the images are, in one line.
    population: The images.
    output: Position of the output that the report is about.
    distribution: Quantiles of the indices.
    aggregates: Averages over all images with defined indices.
    trusted_aggregates: Averages over the trusted images.
    fragility: Ranking of the images.
    accuracy: Indices of the accuracy, None without a common grid.
    axes: (D) Nodes of each factor on that grid, () without.
    steps: Convergence of the analysis, () if not recorded.
    tolerance: Half-width at which an image is finished, None without.
    thumbnails: (I, h, w, C) Images in [0, 1], None without.
    provenance: What made the results, nested mappings.

  Raises:
    ValueError: If the parts are not of the same images and factors.
  """

  title: str
  data_description: str
  population: populations.Population
  output: int
  distribution: populations.Distribution
  aggregates: populations.Aggregates
  trusted_aggregates: populations.Aggregates
  fragility: fragility.Fragility
  accuracy: population_accuracy.AccuracyIndices | None = None
  axes: tuple[FactorAxis, ...] = ()
  steps: tuple[results.ConvergenceStep, ...] = ()
  tolerance: float | None = None
  thumbnails: np.ndarray | None = None
  provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    num_images = self.population.num_images
    names = self.population.factor_names
    if not 0 <= self.output < len(self.population.output_names):
      raise ValueError(
        f'output: expected 0 to {len(self.population.output_names) - 1}, got '
        f'{self.output}'
      )
    if self.accuracy is not None:
      sizes = [len(axis.values) for axis in self.axes]
      effects = [
        effect.value.shape[1] for effect in self.accuracy.main_effects
      ]
      if tuple(a.name for a in self.axes) != names or sizes != effects:
        raise ValueError(
          f'axes: expected {list(names)} with {effects} values, got '
          f'{[axis.name for axis in self.axes]} with {sizes}'
        )
    lengths = {'fragility.order': len(self.fragility.order)}
    lengths |= {
      f'steps[{i}].half_widths': len(step.half_widths)
      for i, step in enumerate(self.steps)
    }
    if self.thumbnails is not None:
      lengths['thumbnails'] = len(self.thumbnails)
    for name, length in lengths.items():
      if length != num_images:
        raise ValueError(
          f'{name}: expected one entry for each of {num_images} images, got '
          f'{length}'
        )
