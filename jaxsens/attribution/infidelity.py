"""Does an attribution foretell a change of the score, and does it hold still?

Infidelity compares what an attribution says that a change of the image costs
with what it costs; the largest sensitivity is how far the attribution itself
moves when the image hardly does. Both draw their own changes, image b and draw
s with a key of their own, or take those that they are given.
"""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np

from jaxsens import classifiers
from jaxsens.attribution import maps
from jaxsens.attribution import measures

Perturb = Callable[[jax.Array, jax.Array], jax.Array]
"""(key, image (H, W, C)) -> what is taken from the image, of its shape.

Static: pass one of the dataclasses below, or a function made once.
"""

Explain = Callable[[classifiers.Classifier, Any, Any], Any]
"""(classifier, images (b, H, W, C), targets (b,)) -> an `Attribution` or array.

Called on chunks; see `measures.heat_maps_of` for the shapes.
"""


@dataclasses.dataclass(frozen=True)
class GaussianNoise:
  """Normal noise on every number of the image.

  Attributes:
    std: its standard deviation.
  """

  std: float

  def __call__(self, key: jax.Array, image: jax.Array) -> jax.Array:
    """Returns what is taken from an image, of its shape."""
    return self.std * jax.random.normal(key, image.shape, image.dtype)


@dataclasses.dataclass(frozen=True)
class NoisyBaseline:
  """All of the image but a baseline of one value with normal noise.

  Attributes:
    value: of the baseline.
    std: standard deviation of the noise.
  """

  value: float
  std: float

  def __call__(self, key: jax.Array, image: jax.Array) -> jax.Array:
    """Returns what is taken from an image, of its shape."""
    noise = jax.random.normal(key, image.shape, image.dtype)
    return image - (self.value + self.std * noise)


@dataclasses.dataclass(frozen=True)
class SquareRemoval:
  """A square of the image, anywhere within it, which becomes black.

  Attributes:
    size: of the square in pixels.
  """

  size: int

  def __call__(self, key: jax.Array, image: jax.Array) -> jax.Array:
    """Returns what is taken from an image, of its shape."""
    height, width = image.shape[:2]
    last = jnp.array([height, width]) - self.size + 1
    top, left = jax.random.randint(key, (2,), 0, jnp.maximum(last, 1))
    rows = jnp.arange(height)[:, None] - top
    columns = jnp.arange(width)[None, :] - left
    inside = (rows >= 0) & (rows < self.size)
    inside &= (columns >= 0) & (columns < self.size)
    return jnp.where(inside[..., None], image, 0)


def infidelity(
  key: jax.Array | None,
  classifier: classifiers.Classifier,
  images: ArrayLike,
  attributions: ArrayLike | maps.Attribution,
  targets: ArrayLike | None = None,
  *,
  quantity: str = 'logit',
  perturb: Perturb = GaussianNoise(0.03),
  perturbations: ArrayLike | None = None,
  num_samples: int = 10,
  baselines: ArrayLike | None = None,
  normalise: bool = False,
  chunk_size: int = 8,
) -> measures.Measure:
  """Returns how wrong an attribution is about changes of the score.

      infidelity = mean over I of (β I·φ - d)²,    d = F(x) - F(x - I)

  with β = 1, or normalised, for attributions known up to a factor, the best
  one, β = mean(I·φ d) / mean((I·φ)²).

  Args:
    key: of the perturbations; None where these are given.
    classifier: whose score F.
    images: (B, H, W, C) in [0, 1].
    attributions: φ, (B, H, W, C), or an `Attribution` of such values.
    targets: see `maps.as_targets`.
    quantity: of one number, see `maps.score`.
    perturb: what draws I.
    perturbations: (B, S, H, W, C), I itself; None draws it.
    num_samples: S, where I is drawn.
    baselines: for attributions that are multiplied by image minus baseline
      (integrated gradients, gradient times input): the baseline, as
      `maps.as_baselines` takes it. Then I in I·φ is divided by image minus
      baseline, where that is not zero. None for gradients.
    normalise: whether β is fitted; zero where all I·φ are.
    chunk_size: images at a time.

  Returns:
    The infidelity, in units of the score squared; zero is best.

  Raises:
    ValueError: attributions or perturbations of another shape or not finite, no
      sample, neither key nor perturbations.

  References:
    Yeh et al., On the (in)fidelity and sensitivity of explanations, 2019,
    definition 2.1 and section 3.
  """
  images = maps.as_images(classifier, images)
  values = measures.as_values(attributions, images.shape)
  if baselines is not None:
    gaps = images - maps.as_baselines(images, baselines)
    values = values / np.where(gaps == 0, 1, gaps)
  targets = maps.as_targets(classifier, images, targets, chunk_size=chunk_size)
  rows = [images, values.astype(images.dtype), targets, np.arange(len(images))]
  if perturbations is not None:
    rows.append(_as_perturbations(perturbations, images))
  _check_source(key, perturbations, num_samples)
  dots, changed, scores = maps.run(
    _infidelity_rows, rows, chunk_size, key, classifier, perturb=perturb,
    num_samples=num_samples, quantity=quantity,
  )
  dots = dots.astype(np.float64)
  drops = scores[:, None].astype(np.float64) - changed
  if normalise:
    squares = (dots**2).sum(1, keepdims=True)
    products = (dots * drops).sum(1, keepdims=True)
    dots = dots * np.divide(
      products, squares, out=np.zeros_like(products), where=squares > 0
    )
  name = 'normalised infidelity' if normalise else 'infidelity'
  return measures.Measure(name, ((dots - drops) ** 2).mean(1))


def sensitivity_max(
  key: jax.Array | None,
  classifier: classifiers.Classifier,
  images: ArrayLike,
  explain: Explain,
  targets: ArrayLike | None = None,
  *,
  radius: float = 0.02,
  perturbations: ArrayLike | None = None,
  num_samples: int = 10,
  chunk_size: int = 8,
) -> measures.Measure:
  """Returns how far an attribution moves near an image, at most.

      max over r of ‖φ(x + r) - φ(x)‖ / ‖φ(x)‖,    r uniform in ±radius

  in the Euclidean norm over all values. The target stays that of the image. An
  attribution that is zero at the image counts with norm one.

  Args:
    key: of the perturbations; None where these are given.
    classifier: what is explained.
    images: (B, H, W, C) in [0, 1].
    explain: gives φ.
    targets: see `maps.as_targets`.
    radius: of the uniform perturbations.
    perturbations: (B, S, H, W, C), r itself; None draws it.
    num_samples: S, where r is drawn.
    chunk_size: images at a time.

  Returns:
    The sensitivities, without unit; a maximum over more draws is larger.

  Raises:
    ValueError: perturbations of another shape or not finite, no sample, neither
      key nor perturbations, or an attribution that is not finite.

  References:
    Yeh et al., On the (in)fidelity and sensitivity of explanations, 2019,
    definition 3.1.
  """
  images = maps.as_images(classifier, images)
  if not radius > 0:
    raise ValueError(f'radius must be positive, got {radius}.')
  targets = maps.as_targets(classifier, images, targets, chunk_size=chunk_size)
  rows = [images, targets, np.arange(len(images))]
  if perturbations is not None:
    rows.append(_as_perturbations(perturbations, images))
  _check_source(key, perturbations, num_samples)
  found = maps.run(
    _sensitivity_rows, rows, chunk_size, key, classifier, explain=explain,
    radius=radius, num_samples=num_samples,
  )
  return measures.Measure('sensitivity-max', found)


def _as_perturbations(perturbations, images):
  given = np.asarray(perturbations)
  number, *shape = images.shape
  if given.ndim != 5 or (given.shape[0], *given.shape[2:]) != (number, *shape):
    raise ValueError(
      f'perturbations must have shape ({number}, S, '
      f'{", ".join(map(str, shape))}), got {given.shape}.'
    )
  measures.check_finite('perturbations', given)
  return given.astype(images.dtype)


def _check_source(key, perturbations, num_samples):
  if perturbations is None and (key is None or num_samples < 1):
    raise ValueError(
      'perturbations must be given, or a key and num_samples of at least 1 to '
      f'draw them with; got key={key} and num_samples={num_samples}.'
    )
  if perturbations is not None and np.shape(perturbations)[1] < 1:
    raise ValueError('perturbations hold no sample.')


def _infidelity_rows(
  key, classifier, images, values, targets, indices, given=None, *, perturb,
  num_samples, quantity,
):
  found = []
  for sample in range(num_samples if given is None else given.shape[1]):
    change = given[:, sample] if given is not None else _drawn(
      key, images, indices, sample, perturb=perturb
    )
    found.append(jax.tree.map(np.asarray, _effect(
      classifier, images, values, targets, change, quantity=quantity
    )))
  dots, changed = (np.stack(parts, 1) for parts in zip(*found, strict=True))
  scores = maps.scores_of(classifier, images, targets, quantity=quantity)
  return dots, changed, scores


@functools.partial(jax.jit, static_argnames='perturb')
def _drawn(key, images, indices, sample, *, perturb):
  def draw(index, image):
    own = jax.random.fold_in(jax.random.fold_in(key, index), sample)
    return perturb(own, image)

  return jax.vmap(draw)(indices, images)


@functools.partial(jax.jit, static_argnames='quantity')
def _effect(classifier, images, values, targets, change, *, quantity):
  dots = jnp.sum(values * change, (1, 2, 3))
  return dots, maps.score(classifier, images - change, targets, quantity)


@dataclasses.dataclass(frozen=True)
class _Uniform:
  radius: float

  def __call__(self, key, image):
    return jax.random.uniform(
      key, image.shape, image.dtype, -self.radius, self.radius
    )


def _sensitivity_rows(
  key, classifier, images, targets, indices, given=None, *, explain, radius,
  num_samples,
):
  def values_at(images):
    found = explain(classifier, images, targets)
    found = found.values if isinstance(found, maps.Attribution) else found
    return np.asarray(found, np.float64).reshape(len(images), -1)

  nominal = values_at(images)
  sizes = np.linalg.norm(nominal, axis=1)
  sizes = np.where(sizes == 0, 1, sizes)
  largest = np.zeros(len(images))
  for sample in range(num_samples if given is None else given.shape[1]):
    change = given[:, sample] if given is not None else np.asarray(_drawn(
      key, images, indices, sample, perturb=_Uniform(radius)
    ))
    moved = np.linalg.norm(values_at(images + change) - nominal, axis=1)
    # NaN must reach the caller, who names it: np.maximum keeps it.
    largest = np.maximum(largest, moved / sizes)
  return largest
