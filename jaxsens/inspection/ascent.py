"""How an image climbs: its coefficients, its box, its steps.

An image is held in its box by projection; over the Fourier basis it is

    x = lower + (upper - lower) sigmoid(irfft2(s z)),   s = 1 / max(f, 1 / size)

with coefficients z and frequencies f, so that all frequencies climb at the
speed at which they occur in photographs; without a box the sigmoid is left out.

References:
  Olah et al., Feature visualization, 2017, for the Fourier basis.
"""

from collections.abc import Callable
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax


@dataclasses.dataclass(frozen=True)
class Settings:
  """How the ascent is done.

  Attributes:
    num_steps: steps at most.
    learning_rate: of the optimizer; in units of the image, or of the Fourier
      coefficients.
    optimizer: 'adam', or 'sgd', whose steps are the gradient itself.
    basis: 'pixels' or 'fourier'.
    limits: box of the image, (lower, upper); None leaves it free.
    jitter: largest random shift along each axis in pixels, cyclic.
    total_variation: weight of `total_variation`.
    l2: weight of the mean square of the image minus the middle of the box.
    clip_norm: longest gradient; a longer one is shortened. None: any.
    stop: activation at which a neuron is done; None: after all steps.
  """

  num_steps: int = 256
  learning_rate: float = 0.05
  optimizer: str = 'adam'
  basis: str = 'pixels'
  limits: tuple[float, float] | None = (0.0, 1.0)
  jitter: int = 0
  total_variation: float = 0.0
  l2: float = 0.0
  clip_norm: float | None = None
  stop: float | None = None

  def __post_init__(self):
    if self.num_steps < 1 or not self.learning_rate > 0 or self.jitter < 0:
      raise ValueError(
        'num_steps must be at least 1, learning_rate positive and jitter not '
        f'negative, got {self.num_steps}, {self.learning_rate} and '
        f'{self.jitter}.'
      )
    for field, known in (
      ('optimizer', ('adam', 'sgd')), ('basis', ('pixels', 'fourier'))
    ):
      if getattr(self, field) not in known:
        raise ValueError(
          f'{field} must be one of {known}, got {getattr(self, field)!r}.'
        )
    if not (self.total_variation >= 0 and self.l2 >= 0):
      raise ValueError(
        'total_variation and l2 must not be negative, got '
        f'{self.total_variation} and {self.l2}.'
      )
    if self.clip_norm is not None and not self.clip_norm > 0:
      raise ValueError(f'clip_norm must be positive, got {self.clip_norm}.')
    if self.limits is not None:
      object.__setattr__(self, 'limits', tuple(map(float, self.limits)))
      if len(self.limits) != 2 or not self.limits[0] < self.limits[1]:
        raise ValueError(
          f'limits must be (lower, upper) or None, got {self.limits}.'
        )


def total_variation(image: jax.Array) -> jax.Array:
  """Returns the mean absolute step between neighbouring pixels of (H, W, C).

  The mean is over pixels and channels, the sum over both directions.
  """
  down = jnp.abs(jnp.diff(image, axis=0))
  right = jnp.abs(jnp.diff(image, axis=1))
  return (jnp.sum(down) + jnp.sum(right)) / image.size


def parametrise(
  image: jax.Array, settings: Settings
) -> tuple[Callable[[Any], jax.Array], Any]:
  """Returns the function from coefficients to the image, and those of it.

  Args:
    image: (H, W, C) floating point.
    settings: `basis` and `limits` of it.

  Returns:
    A function (coefficients) -> image (H, W, C), and the coefficients of
    `image`; outside of the box, and within 0.001 of its ends, it is moved in.
  """
  if settings.basis == 'pixels':
    return (lambda x: x), image
  height, width, _ = image.shape
  frequency = np.hypot(
    np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
  )
  scale = 1 / np.maximum(frequency, 1 / max(height, width))
  # Of orthonormal transforms; so that pixels of unit coefficients have spread
  # near one.
  scale = jnp.asarray(scale / np.sqrt(np.mean(scale**2)), image.dtype)
  scale = scale[..., None]
  lower, upper = settings.limits or (0.0, 1.0)

  def render(coefficients):
    spectrum = jax.lax.complex(*coefficients) * scale
    x = jnp.fft.irfft2(spectrum, (height, width), (0, 1), norm='ortho')
    if settings.limits is None:
      return x
    return lower + (upper - lower) * jax.nn.sigmoid(x)

  x = image
  if settings.limits is not None:
    inside = jnp.clip((image - lower) / (upper - lower), 1e-3, 1 - 1e-3)
    x = jnp.log(inside) - jnp.log1p(-inside)
  spectrum = jnp.fft.rfft2(x, axes=(0, 1), norm='ortho') / scale
  return render, (spectrum.real, spectrum.imag)


def optimizer(settings: Settings) -> optax.GradientTransformation:
  """Returns what makes steps of gradients, that clips them first."""
  make = {'adam': optax.adam, 'sgd': optax.sgd}[settings.optimizer]
  steps = [make(settings.learning_rate)]
  if settings.clip_norm is not None:
    steps.insert(0, optax.clip_by_global_norm(settings.clip_norm))
  return optax.chain(*steps)


def project(coefficients: Any, settings: Settings) -> Any:
  """Returns coefficients whose image is in the box."""
  if settings.basis == 'pixels' and settings.limits is not None:
    return jnp.clip(coefficients, *settings.limits)
  return coefficients


def middle(settings: Settings) -> float:
  """Returns the middle of the box, 0.5 without one."""
  return 0.5 if settings.limits is None else sum(settings.limits) / 2
