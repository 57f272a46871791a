"""Attribution by the integral of the gradient along a path of images.

With images g(alpha), alpha in [0, 1], each number i of the image is given

    values[i] = ∫ d score / d g[i] (g(alpha)) dg[i] / dalpha dalpha

so that the values add up to score(g(1)) - score(g(0)): what the score gains
along the path. `integrated_gradients` goes along the straight line from a
baseline, `blur_integrated_gradients` from a blurred image to the sharp one,
`perturbation_path` from the image as it should be taken to the one that is
rotated, tilted or dark: which pixels carry the effect. A rule of n steps takes
n gradients; of a network of rectifiers, whose gradient jumps, every rule is of
first order, and 'adaptive' puts the steps where the jumps are.

References:
  Sundararajan, Taly, Yan, Axiomatic attribution for deep networks, 2017, eq. 1.
  Xu, Venugopalan, Sundararajan, Attribution in scale and space, 2020, eq. 6.
  Erion et al., Improving performance of deep learning models with axiomatic
  attribution priors and expected gradients, 2021, eq. 3.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.typing import ArrayLike
import numpy as np

from jaxsens import classifiers
from jaxsens.attribution import adaptive
from jaxsens.attribution import maps
from jaxsens.attribution import pairs
from jaxsens.attribution import paths


def integrated_gradients(
  classifier: classifiers.Classifier,
  images: ArrayLike,
  targets: ArrayLike | None = None,
  *,
  quantity: str = 'logit',
  baselines: ArrayLike | None = None,
  rule: str = 'gauss_legendre',
  num_steps: int = 50,
  tolerance: float = 1e-3,
  chunk_size: int = 8,
) -> maps.Attribution:
  """Returns the integral along the straight line from a baseline.

  Args:
    classifier: what is explained.
    images: (B, H, W, C) in [0, 1].
    targets: class or classes whose score it is; None: the answers.
    quantity: what the score is, see `maps.score`.
    baselines: where the lines begin, see `maps.as_baselines`.
    rule: 'gauss_legendre', 'midpoint', 'simpson', 'trapezoid' or 'adaptive',
      see `rule_of`.
    num_steps: gradients per image; of 'adaptive' the most that it may take.
    tolerance: of 'adaptive': the relative completeness error that ends it.
    chunk_size: gradients at a time.

  Raises:
    ValueError: an argument of another shape or range.
  """
  images = maps.as_images(classifier, images)
  origins = maps.as_baselines(images, baselines)
  targets = maps.as_targets(classifier, images, targets, chunk_size=chunk_size)
  return along_path(
    'integrated gradients', classifier, paths.straight, (images, origins),
    targets, quantity=quantity, rule=rule, num_steps=num_steps,
    tolerance=tolerance, chunk_size=chunk_size,
  )


def blur_integrated_gradients(
  classifier: classifiers.Classifier,
  images: ArrayLike,
  targets: ArrayLike | None = None,
  *,
  quantity: str = 'logit',
  max_sigma: float | None = None,
  rule: str = 'gauss_legendre',
  num_steps: int = 50,
  tolerance: float = 1e-3,
  chunk_size: int = 8,
) -> maps.Attribution:
  """Returns the integral along the path from the blurred image.

  No baseline has to be chosen: what the image gains are its details.

  Args:
    max_sigma: of the blur at the beginning, in pixels; None: a quarter of the
      longer side, of which little more than the mean remains.
    classifier, images, targets, quantity, rule, num_steps, tolerance,
      chunk_size: see `integrated_gradients`.
  """
  images = maps.as_images(classifier, images)
  targets = maps.as_targets(classifier, images, targets, chunk_size=chunk_size)
  sigma = max(images.shape[1:3]) / 4 if max_sigma is None else max_sigma
  if not sigma > 0:
    raise ValueError(f'max_sigma must be positive, got {max_sigma}.')
  return along_path(
    'blur path', classifier, paths.Blur(float(sigma)), (images,), targets,
    quantity=quantity, rule=rule, num_steps=num_steps, tolerance=tolerance,
    chunk_size=chunk_size,
  )


def perturbation_path(
  key: jax.Array,
  classifier: classifiers.Classifier,
  images: ArrayLike,
  perturb: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
  start: ArrayLike,
  end: ArrayLike,
  targets: ArrayLike,
  *,
  quantity: str = 'logit',
  rule: str = 'gauss_legendre',
  num_steps: int = 50,
  tolerance: float = 1e-3,
  chunk_size: int = 8,
) -> maps.Attribution:
  """Returns which pixels carry the effect of a perturbation.

  The values of each image add up to what the score changes between `start` and
  `end`. They belong to the pixels that the network sees, which move where the
  perturbation moves them.

  Args:
    key: of what is random in the perturbation; one stream per image, the same
      along its path.
    classifier: what is explained.
    images: (B, h, w, C) in [0, 1], before the perturbation.
    perturb: (image, values (D,), key) -> image (H, W, C) for the classifier;
      static, see `chains.make_chain`; differentiable in the values.
    start: (D,) physical values, as a rule those that change nothing.
    end: (D,) physical values.
    targets: class or classes whose score it is.
    quantity, rule, num_steps, tolerance, chunk_size: see
      `integrated_gradients`.

  Raises:
    ValueError: an argument of another shape or range.
  """
  images = np.asarray(images)
  if images.ndim != 4 or not np.isfinite(images).all():
    raise ValueError(
      f'images must be finite, of shape (B, h, w, C), got {images.shape}.'
    )
  start, end = (np.asarray(v, images.dtype) for v in (start, end))
  if start.ndim != 1 or start.shape != end.shape:
    raise ValueError(
      'start and end must hold one value per factor, (D,) each, got '
      f'{start.shape} and {end.shape}.'
    )
  targets = maps.as_targets(classifier, images, targets, chunk_size=chunk_size)
  keys = jax.vmap(jax.random.fold_in, (None, 0))(key, np.arange(len(images)))
  rows = (len(images), len(start))
  return along_path(
    'perturbation path', classifier, paths.Perturbed(perturb),
    (images, np.broadcast_to(start, rows), np.broadcast_to(end, rows), keys),
    targets, quantity=quantity, rule=rule, num_steps=num_steps,
    tolerance=tolerance, chunk_size=chunk_size,
  )


def expected_gradients(
  key: jax.Array,
  classifier: classifiers.Classifier,
  images: ArrayLike,
  references: ArrayLike,
  targets: ArrayLike | None = None,
  *,
  quantity: str = 'logit',
  num_samples: int = 50,
  chunk_size: int = 8,
) -> maps.Attribution:
  """Returns integrated gradients averaged over images of the data as baselines.

  Each sample takes another reference, as long as there are others, at a
  point of the line drawn from a stratum of its own. The values add up to the
  score less the mean score of the references, but for the error of sampling.

  Args:
    key: of references and points.
    references: (M, H, W, C), as a rule training images.
    num_samples: S, gradients per image.
    classifier, images, targets, quantity, chunk_size: see
      `integrated_gradients`.

  Raises:
    ValueError: an argument of another shape or range.
  """
  images = maps.as_images(classifier, images)
  references = maps.as_images(classifier, references).astype(images.dtype)
  targets = maps.as_targets(classifier, images, targets, chunk_size=chunk_size)
  chosen, alphas = _drawn(key, len(images), len(references), num_samples)
  totals = None
  for chunk in pairs.chunks(len(images), num_samples, chunk_size):
    rows, samples = chunk.images, chunk.samples
    data = images[rows], references[chosen[rows, samples]]
    totals = paths.add_up(
      totals, chunk, num_samples, classifier, paths.straight, data,
      alphas[rows, samples], targets, np.ones(len(rows)), quantity=quantity,
    )
  maps.check_finite(totals)
  of_references = _mean_scores(
    classifier, references, targets, quantity, chunk_size
  )
  return maps.Attribution(
    method=f'expected gradients, {num_samples} samples',
    values=(totals / num_samples).astype(images.dtype), targets=targets,
    scores=maps.run(
      maps.scores_of, [images, targets], chunk_size, classifier,
      quantity=quantity,
    ).astype(np.float64),
    baseline_scores=of_references,
    num_gradients=np.full(len(images), num_samples),
    num_forwards=np.full(len(images), 1 + len(references)),
  )


def along_path(
  name: str,
  classifier: classifiers.Classifier,
  path: paths.Path,
  data: tuple[Any, ...],
  targets: np.ndarray,
  *,
  quantity: str,
  rule: str,
  num_steps: int,
  tolerance: float,
  chunk_size: int,
) -> maps.Attribution:
  """Returns the integral along any path, see `paths`.

  Args:
    name: of the method.
    classifier: what is explained.
    path: see `paths`.
    data: arrays with a row per image, in the order that the path takes.
    targets: (B,) classes.
    quantity, rule, num_steps, tolerance, chunk_size: see
      `integrated_gradients`.
  """
  if rule == 'adaptive':
    found = adaptive.integrate(
      classifier, path, data, targets, quantity=quantity, tolerance=tolerance,
      max_steps=num_steps, chunk_size=chunk_size,
    )
    return maps.Attribution(
      method=f'{name}, adaptive to {tolerance:g}', targets=targets, **found
    )
  nodes, weights = rule_of(rule, num_steps)
  number, totals = len(targets), None
  for chunk in pairs.chunks(number, num_steps, chunk_size):
    totals = paths.add_up(
      totals, chunk, num_steps, classifier, path,
      paths.rows_of(data, chunk.images), nodes[chunk.samples], targets,
      weights[chunk.samples], quantity=quantity,
    )
  maps.check_finite(totals)
  scores, baseline_scores = (
    paths.scores_at(
      classifier, path, data, np.full(number, alpha), targets,
      quantity=quantity, chunk_size=chunk_size,
    ) for alpha in (1.0, 0.0)
  )
  return maps.Attribution(
    method=f'{name}, {rule} {num_steps}', values=totals.astype(data[0].dtype),
    targets=targets, scores=scores, baseline_scores=baseline_scores,
    num_gradients=np.full(number, num_steps), num_forwards=np.full(number, 2),
  )


def rule_of(name: str, num_steps: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns the points in [0, 1] and the weights of a rule, (N,) each.

      gauss_legendre  exact for polynomials of degree 2 N - 1
      midpoint        points (k + 1/2) / N, equal weights
      simpson         N odd, at least 3: points k / (N - 1), weights as
                      1, 4, 2, 4, ..., 2, 4, 1
      trapezoid       N at least 2: points k / (N - 1), equal weights but for
                      half of them at both ends

  The weights of every rule add up to one.

  Raises:
    ValueError: there is no such rule, or it does not have so many points.
  """
  least = {'simpson': 3, 'trapezoid': 2}.get(name, 1)
  if name not in RULES or num_steps < least:
    raise ValueError(
      f'rule must be one of {RULES} or adaptive, with num_steps of at least '
      f'{least}, got {name!r} and {num_steps}.'
    )
  if name == 'gauss_legendre':
    points, weights = np.polynomial.legendre.leggauss(num_steps)
    return (points + 1) / 2, weights / 2
  if name == 'midpoint':
    points = (np.arange(num_steps) + 0.5) / num_steps
    return points, np.full(num_steps, 1 / num_steps)
  points, weights = np.linspace(0, 1, num_steps), np.ones(num_steps)
  if name == 'trapezoid':
    weights[[0, -1]] = 0.5
  elif num_steps % 2 == 0:
    raise ValueError(f'simpson needs an odd num_steps, got {num_steps}.')
  else:
    weights[1::2], weights[2:-1:2] = 4, 2
  return points, weights / weights.sum()


RULES = ('gauss_legendre', 'midpoint', 'simpson', 'trapezoid')


def _drawn(key, num_images, num_references, num_samples):
  """Returns references and points of all samples, (B, S) each."""
  if num_samples < 1:
    raise ValueError(f'num_samples must be at least 1, got {num_samples}.')

  def draw(index):
    one, other = jax.random.split(jax.random.fold_in(key, index))
    rounds = -(-num_samples // num_references)
    orders = jax.vmap(
      lambda k: jax.random.permutation(k, num_references)
    )(jax.random.split(one, rounds))
    offsets = jax.random.uniform(other, (num_samples,))
    # Each round of all references has a part of the path, so that each
    # reference comes to every part.
    alphas = (np.arange(num_samples) + offsets) / num_samples
    return orders.ravel()[:num_samples], alphas

  chosen, alphas = jax.vmap(draw)(np.arange(num_images))
  return np.asarray(chosen), np.asarray(alphas)


def _mean_scores(classifier, references, targets, quantity, chunk_size):
  """Returns the mean score of the references for the class of each image."""
  means = {
    int(target): maps.run(
      maps.scores_of, [references, np.full(len(references), target)],
      chunk_size, classifier, quantity=quantity,
    ).mean(dtype=np.float64) for target in np.unique(targets)
  }
  return np.array([means[int(target)] for target in targets])
