"""Images that excite a neuron most, by gradient ascent on the image.

    maximise  a(x) - total_variation TV(x) - l2 mean(x^2)

where a is one channel of a layer, averaged over its pixels or at one of them,
or one logit; rectified it is the average of max(a, 0), what a ReLU behind the
layer lets through: the mean of a layer that is linear in the image would be
highest on an even one. Every step takes the gradient anew, at an image that may
be shifted at random (jitter), and several neurons climb at once. How is said by
`ascent.Settings`.

References:
  Erhan et al., Visualizing higher-layer features of a deep network, 2009.
  Olah et al., Feature visualization, 2017, for jitter.
"""

from collections.abc import Sequence
import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np
import optax

from jaxsens import classifiers
from jaxsens.attribution import taps
from jaxsens.inspection import ascent
from jaxsens.inspection import features

STARTS = ('noise', 'gray')
_NOISE = 0.1  # standard deviation of a random start, in lengths of the box


@dataclasses.dataclass(frozen=True, eq=False)
class Neurons:
  """What excites the neurons of a layer.

  Attributes:
    layer: its name.
    channels: the neurons, or classes of 'logits'.
    images: (N, H, W, C), the last one, or that of the step with the highest
      objective if that is higher.
    activations: (N,) of these images, unshifted.
    starts: (N,) activations of the images that the ascent began with.
    courses: (N, num_steps) activation at each step, as shifted; NaN behind the
      last one.
    num_steps: (N,) steps that were taken.
    stopped: (N,) whether the stop value was reached.
    dead: (N,) whether the activation never had a gradient.
  """

  layer: str
  channels: tuple[int, ...]
  images: np.ndarray
  activations: np.ndarray
  starts: np.ndarray
  courses: np.ndarray
  num_steps: np.ndarray
  stopped: np.ndarray
  dead: np.ndarray


def maximise(
  key: jax.Array,
  classifier: classifiers.Classifier,
  layer: str,
  channels: Sequence[int],
  *,
  pixel: tuple[int, int] | None = None,
  rectify: bool = False,
  start: str | ArrayLike = 'noise',
  settings: ascent.Settings | None = None,
  allow_dead: bool = False,
) -> Neurons:
  """Returns images that maximise channels of a layer, or logits.

  Args:
    key: of a random start and of the shifts; neuron i draws from
      `fold_in(key, channels[i])`.
    classifier: a Flax network.
    layer: its name, or 'logits'.
    channels: of the layer, or classes.
    pixel: (row, column) of the layer whose activation counts; None: the mean
      over all pixels.
    rectify: whether only what is positive of the channel counts; activations
      are then told rectified.
    start: 'noise' around the middle of the box, 'gray', its middle, or an image
      (H, W, C) or one for each neuron; without a box the middle is 0.5.
    settings: of the ascent; None: the defaults of `ascent.Settings`.
    allow_dead: whether neurons that never have a gradient are returned instead
      of raised.

  Raises:
    ValueError: an unknown layer (the nearest are named), channel, pixel or
      start, or neurons whose gradient is always zero, by name.
    FloatingPointError: an activation or a gradient is NaN or infinity.
  """
  settings = settings or ascent.Settings()
  channels = _checked_channels(classifier, layer, channels, pixel)
  keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.array(channels))
  images = _starts(keys, classifier, start, len(channels), settings)
  found = jax.device_get(_climb(
    keys, classifier, images, jnp.array(channels), layer=layer, pixel=pixel,
    rectify=rectify, settings=settings,
  ))
  if found['broken'].any():
    raise FloatingPointError(
      f'{layer!r}: activation or gradient of channels '
      f'{_some(channels, found["broken"])} is NaN or infinity.'
    )
  if found['dead'].any() and not allow_dead:
    raise ValueError(
      f'{layer!r}: the gradient of channels {_some(channels, found["dead"])} '
      'is zero: nothing there can be climbed. Start from another image, or '
      'leave them out.'
    )
  return Neurons(layer, channels, **{
    name: np.asarray(found[name]) for name in (
      'images', 'activations', 'starts', 'courses', 'num_steps', 'stopped',
      'dead',
    )
  })


@functools.partial(
  jax.jit, static_argnames=('layer', 'pixel', 'rectify', 'settings')
)
def _climb(
  keys, classifier, images, channels, *, layer, pixel, rectify, settings
):
  def one(key, image, channel):
    activation = functools.partial(
      _activation, classifier, layer=layer, pixel=pixel, channel=channel,
      rectify=rectify,
    )
    return _climb_one(key, image, activation, settings)

  return jax.vmap(one)(keys, images, channels)


def _climb_one(key, image, activation, settings):
  render, coefficients = ascent.parametrise(image, settings)
  optimizer = ascent.optimizer(settings)
  middle = ascent.middle(settings)

  def gain(coefficients, shift):
    return activation(jnp.roll(render(coefficients), shift, (0, 1)))

  def cost(coefficients):
    x = render(coefficients)
    return (
      settings.total_variation * ascent.total_variation(x)
      + settings.l2 * jnp.mean((x - middle) ** 2)
    )

  def unfinished(state):
    return (state['step'] < settings.num_steps) & ~(
      state['stopped'] | state['stuck'] | state['broken']
    )

  def step(state):
    i = state['step']
    shift = jnp.zeros(2, jnp.int32)
    if settings.jitter:
      shift = jax.random.randint(
        jax.random.fold_in(key, i), (2,), -settings.jitter, settings.jitter + 1
      )
    here = state['coefficients']
    a, upward = jax.value_and_grad(gain)(here, shift)
    price, downward = jax.value_and_grad(cost)(here)
    length = optax.global_norm(upward)
    gradient = jax.tree.map(jnp.subtract, downward, upward)
    better = a - price > state['best']
    broken = ~(jnp.isfinite(a) & jnp.isfinite(length))
    stopped = jnp.zeros((), bool)
    if settings.stop is not None:
      stopped = a >= settings.stop
    # Without jitter nothing will change what has no slope.
    stuck = (i == 0) & (optax.global_norm(gradient) == 0) & ~stopped
    stuck &= settings.jitter == 0
    updates, memory = optimizer.update(gradient, state['memory'])
    moved = ascent.project(
      optax.apply_updates(here, updates), settings
    )
    stays = stopped | stuck | broken
    return {
      'step': i + ~stays, 'stopped': stopped, 'stuck': stuck, 'broken': broken,
      'lived': state['lived'] | (length > 0) | stopped,
      'course': state['course'].at[i].set(a), 'memory': memory,
      'coefficients': _where(stays, here, moved),
      'best': jnp.where(better, a - price, state['best']),
      'best_coefficients': _where(better, here, state['best_coefficients']),
    }

  no = jnp.zeros((), bool)
  last = jax.lax.while_loop(unfinished, step, {
    'step': jnp.zeros((), jnp.int32), 'stopped': no, 'stuck': no, 'broken': no,
    'lived': no,
    'course': jnp.full(settings.num_steps, jnp.nan, image.dtype),
    'memory': optimizer.init(coefficients), 'coefficients': coefficients,
    'best': jnp.asarray(-jnp.inf, image.dtype),
    'best_coefficients': coefficients,
  })
  # An ascent that lost its gradient on the way is taken back; rounding is no
  # reason to.
  objective = lambda z: gain(z, jnp.zeros(2, jnp.int32)) - cost(z)
  ends = last['coefficients'], last['best_coefficients']
  final, best = map(objective, ends)
  found = render(_where(
    last['stopped'] | (final >= best - 1e-5 * jnp.abs(best)), *ends
  ))
  reached = activation(found)
  stopped = last['stopped']
  if settings.stop is not None and not settings.jitter:
    stopped |= reached >= settings.stop  # by the very last step
  return {
    'images': found, 'activations': reached,
    'starts': activation(render(coefficients)), 'courses': last['course'],
    'num_steps': last['step'], 'stopped': stopped, 'dead': ~last['lived'],
    'broken': last['broken'] | ~jnp.isfinite(reached),
  }


def _where(condition, yes, no):
  return jax.tree.map(lambda x, y: jnp.where(condition, x, y), yes, no)


def _activation(classifier, image, *, layer, pixel, channel, rectify):
  inner = () if layer == features.LOGITS else (layer,)
  logits, said = taps.apply(classifier, image[None], inner)
  y = (logits if layer == features.LOGITS else said[layer])[0][..., channel]
  if rectify:
    y = jax.nn.relu(y)
  return jnp.mean(y) if pixel is None else y[pixel]


def _starts(keys, classifier, start, number, settings):
  shape = (*classifier.image_size, classifier.channels)
  lower, upper = settings.limits or (0.0, 1.0)
  middle = jnp.full((number, *shape), ascent.middle(settings), jnp.float32)
  if isinstance(start, str):
    if start not in STARTS:
      raise ValueError(
        f'start must be one of {STARTS} or an image, got {start!r}.'
      )
    if start == 'gray':
      return middle
    noise = jax.vmap(lambda key: jax.random.normal(key, shape))(keys)
    found = middle + _NOISE * (upper - lower) * noise
  else:
    given = np.asarray(start)
    if given.shape not in (shape, (number, *shape)):
      raise ValueError(
        f'start must be an image {shape} or one for each of {number} neurons, '
        f'got shape {given.shape}.'
      )
    if not np.isfinite(given).all():
      raise ValueError('start holds NaN or infinity.')
    found = jnp.broadcast_to(jnp.asarray(given, jnp.float32), middle.shape)
  return found if settings.limits is None else jnp.clip(found, lower, upper)


def _checked_channels(classifier, layer, channels, pixel):
  if layer != features.LOGITS:
    taps.check_layers(classifier, [layer])
  shape = features.shapes(classifier, [layer])[layer]
  channels = tuple(int(channel) for channel in channels)
  wrong = [c for c in channels if not 0 <= c < shape[-1]]
  if wrong or not channels:
    raise ValueError(
      f'{layer!r} has the channels 0 to {shape[-1] - 1}, got '
      f'{wrong[0] if wrong else "none"}.'
    )
  if pixel is not None and not (
    len(shape) == 3 and len(pixel) == 2
    and all(0 <= p < size for p, size in zip(pixel, shape, strict=False))
  ):
    raise ValueError(f'{layer!r} of shape {shape} has no pixel {pixel}.')
  return channels


def _some(channels, chosen):
  return ', '.join(str(c) for c, is_it in zip(channels, chosen, strict=True)
                   if is_it)
