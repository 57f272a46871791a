"""A made-up data set of images whose answer to two or three factors is known.

Image i of class c gets its class with the probability

    p_i(x) = σ(margin_i - bend_i x_0² + slope_i x_1 + twist_i x_0 x_2)

for x uniform on [-1, 1]^3, and its class where p_i >= 1/2. Every number of the
population is that of the functional ANOVA of p_i on a Gauss grid.
"""

import jax
import numpy as np

from jaxsens import fragility
from jaxsens import population_accuracy
from jaxsens import populations
from jaxsens.gpc import grid_anova
from jaxsens.gpc import sobol_indices
from jaxsens.reports import population_results
from jaxsens.reports import results

CLASSES = ('good weld', 'burn <through> & more', 'misaligned', 'crater')
FACTORS = ('rotation', 'tilt', 'brightness')
RANGES = ((-90.0, 90.0, 'deg'), (-20.0, 20.0, 'deg'), (-0.3, 0.3, ''))


def rules(sizes=(11, 7, 5)):
  """Gauss nodes and weights, of sum one, of each factor."""
  found = [np.polynomial.legendre.leggauss(n) for n in sizes]
  return [x for x, _ in found], [w / 2 for _, w in found]


def probabilities(num_images, seed=0, sizes=(11, 7, 5)):
  """(I,) labels and (I, n_1, n_2, n_3) probabilities of the true class.

  Image 0 never varies; image 1 is wrong from the start; class 1 is fragile.
  """
  rng = np.random.default_rng(seed)
  nodes, _ = rules(sizes)
  x, y, z = np.meshgrid(*nodes, indexing='ij')
  labels = np.arange(num_images) % len(CLASSES)
  margin = rng.normal(2.2, 1.0, num_images) - 1.6 * (labels == 1)
  bend = rng.gamma(4.0, 0.7, num_images) + 1.5 * (labels == 1)
  slope, twist = rng.normal(0.8, 0.9, (2, num_images))
  margin[1] = -6.0
  margin, bend, slope, twist = (
    a[:, None, None, None] for a in (margin, bend, slope, twist)
  )
  logits = margin - bend * x**2 + slope * y + twist * x * z
  logits[0] = 40.0
  return labels, 1 / (1 + np.exp(-logits))


def population(num_images=48, seed=0, half_width=0.03):
  """The images as a `Population` of two outputs, p and the constant one."""
  labels, table = probabilities(num_images, seed)
  _, weights = rules()
  subsets, variances = grid_anova.partial_variances(
    np.moveaxis(table, 0, -1), weights
  )
  variance = variances.sum(axis=0)
  shares = variances / np.where(variance > 1e-20, variance, np.nan)
  # (I, D, K), the second output without variance.
  first_order, total = (
    np.stack([(matrix(subsets, 3) @ shares).T, np.full((num_images, 3),
                                                       np.nan)], axis=-1)
    for matrix in (
      sobol_indices.first_order_matrix, sobol_indices.total_matrix
    )
  )  # fmt: skip
  joint = np.einsum('i,j,k->ijk', *weights)
  trusted = np.isfinite(total[:, 0, 0]) & (np.arange(num_images) % 7 != 5)
  reasons = tuple(
    None if trusted[i] else
    'the output does not vary' if i == 0 else 'Q2 0.81 is below 0.9'
    for i in range(num_images)
  )  # fmt: skip
  return populations.Population(
    image_names=tuple(f'clip_{i:03d}.png' for i in range(num_images)),
    labels=labels, class_names=CLASSES, factor_names=FACTORS,
    output_names=('p(true class)', 'one'),
    first_order=first_order, first_order_lower=first_order - half_width,
    first_order_upper=first_order + half_width,
    total=total, total_lower=total - half_width,
    total_upper=total + half_width,
    mean=np.stack([
      np.tensordot(table, joint, axes=3), np.ones(num_images)
    ], axis=1),
    variance=np.stack([variance, np.zeros(num_images)], axis=1),
    q2=np.where(trusted, 0.98, 0.81)[:, None] * np.ones(2),
    failure_probability=np.tensordot(table < 0.5, joint, axes=3),
    trusted=trusted, method=('adaptive',) * num_images,
    num_evaluations=np.full(num_images, 512),
    predictions=np.where(table[:, 5, 3, 2] >= 0.5, labels, (labels + 1) % 4),
    reasons=reasons,
  )  # fmt: skip


def study(num_images=48, seed=0):
  """The population with everything its report shows."""
  images = population(num_images, seed)
  labels, table = probabilities(num_images, seed)
  nodes, weights = rules()
  key = jax.random.key(seed)
  rng = np.random.default_rng(seed)
  thumbnails = rng.uniform(0, 0.3, (num_images, 24, 24, 3))
  thumbnails[:, 8:16] += 0.1 + 0.2 * labels[:, None, None, None]
  return population_results.PopulationStudy(
    title='Welds under the camera',
    data_description='made-up welds, four classes',
    population=images, output=0,
    distribution=populations.distribution(images),
    aggregates=populations.aggregate(key, images),
    trusted_aggregates=populations.aggregate(
      key, images, include=images.trusted
    ),
    fragility=fragility.rank(key, images),
    accuracy=population_accuracy.accuracy_indices(
      key, table >= 0.5, weights, labels, CLASSES
    ),
    axes=tuple(
      population_results.FactorAxis(
        name, unit, (low + high) / 2 + (high - low) / 2 * x, 0.0
      ) for name, (low, high, unit), x in zip(
        FACTORS, RANGES, nodes, strict=True
      )
    ),
    steps=tuple(
      results.ConvergenceStep(
        n, 4 / n**0.8 * rng.lognormal(0, 0.5, num_images)
      ) for n in (64, 128, 256, 512)
    ),
    tolerance=0.03, thumbnails=thumbnails,
    provenance={'model': 'made up', 'seconds': {'analysis': 1.5}},
  )  # fmt: skip
