"""Fine-tuning of a network on labelled images, and its evaluation.

Images are float (N, H, W, C) in [0, 1], already of the size that the network
takes; `preprocess` normalises them inside the compiled step. A network is
called as `model(images)` for inference and as `model(images, train=True,
key=key)` in training, where it may move its statistics and drop features.

Every random choice comes from the key that is passed in: the same key, data and
settings give bitwise the same network on the same machine.
"""

from collections.abc import Callable
from collections.abc import Iterator
import dataclasses
import functools
import math
import time
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np
import optax

from jaxsens.training import metrics
from jaxsens.training import optimizers

Preprocess = Callable[[jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Settings:
  """How long, how fast and in what portions a network is trained.

  Attributes:
    num_epochs: passes over the training images.
    batch_size: images per update. The images left over at the end of an epoch
      sit it out; another shuffle leaves out others. A set smaller than a batch
      is one batch.
    learning_rate, weight_decay, warmup_epochs, end_epoch, final_factor: see
      `optimizers.adamw`.
  """

  num_epochs: int
  batch_size: int = 32
  learning_rate: float = 1e-4
  weight_decay: float = 1e-4
  warmup_epochs: int = 3
  end_epoch: int = 10
  final_factor: float = 0.1

  def __post_init__(self):
    if self.num_epochs < 1 or self.batch_size < 1:
      raise ValueError(
        'num_epochs and batch_size must be at least 1, got '
        f'{self.num_epochs} and {self.batch_size}.'
      )


@dataclasses.dataclass(frozen=True)
class LabelledImages:
  """Images with their classes.

  Attributes:
    images: (N, H, W, C) float in [0, 1].
    labels: (N,) int in 0..K-1.
  """

  images: np.ndarray
  labels: np.ndarray

  def __post_init__(self):
    if np.ndim(self.images) != 4 or np.shape(self.labels) != (
      len(self.images),
    ):
      raise ValueError(
        'images must have shape (N, H, W, C) and labels (N,), got '
        f'{np.shape(self.images)} and {np.shape(self.labels)}.'
      )
    if not len(self.labels):
      raise ValueError('there must be at least one labelled image, got none.')


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """What a network does on labelled images.

  Attributes:
    loss: weighted cross-entropy over the whole set.
    scores: measures of its answers.
  """

  loss: float
  scores: metrics.Scores


@dataclasses.dataclass(frozen=True)
class Epoch:
  """One pass over the training images.

  Attributes:
    epoch: its number, from 0.
    learning_rate: rate of its updates.
    train_loss: weighted cross-entropy over its batches, each before its update.
    validation: evaluation after its last update.
    seconds: duration of its updates, without the evaluation.
  """

  epoch: int
  learning_rate: float
  train_loss: float
  validation: Evaluation
  seconds: float

  def as_dict(self) -> dict[str, Any]:
    """Returns the fields by name, nested, ready for JSON."""
    return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class FineTuned:
  """A trained network.

  Attributes:
    model: the network after its best epoch.
    best_epoch: the epoch of the smallest validation loss, the first of equals.
    history: every epoch, in order.
  """

  model: nnx.Module
  best_epoch: int
  history: tuple[Epoch, ...]


def fine_tune(
  key: jax.Array,
  model: nnx.Module,
  train: LabelledImages,
  validation: LabelledImages,
  *,
  preprocess: Preprocess,
  class_weights: ArrayLike,
  settings: Settings,
  on_step: Callable[[int, int, int], None] | None = None,
  on_epoch: Callable[[Epoch], None] | None = None,
) -> FineTuned:
  """Returns a network trained by AdamW, as it was after its best epoch.

  Args:
    key: key of the shuffles and of the dropout.
    model: network to start from, left as it is.
    train: images whose gradients are taken.
    validation: other images, which choose the epoch that is kept.
    preprocess: images -> normalised images.
    class_weights: (K,) weights of the cross-entropy, see `metrics`.
    settings: see `Settings`.
    on_step: called after every update with the epoch, the number of updates
      done in it and the number of updates in an epoch.
    on_epoch: called after every epoch.

  Returns:
    The network of the best epoch and the history of all.

  Raises:
    FloatingPointError: the loss of a batch or of the validation is not finite.
    ValueError: a label is out of range or class_weights is not (K,).
  """
  weights = _checked_weights(class_weights, train, validation)
  history: list[Epoch] = []
  best, best_epoch = model, None
  for trained, train_loss, seconds in _train(
    key, model, train, preprocess, weights, settings, on_step
  ):
    epoch = Epoch(
      epoch=len(history),
      learning_rate=_learning_rate(settings, len(history)),
      train_loss=train_loss,
      validation=evaluate(
        trained,
        validation,
        preprocess=preprocess,
        class_weights=weights,
        batch_size=settings.batch_size,
      ),
      seconds=seconds,
    )
    _check_finite(epoch.validation.loss, f'validation of epoch {epoch.epoch}')
    history.append(epoch)
    if (
      best_epoch is None
      or epoch.validation.loss < history[best_epoch].validation.loss
    ):
      best, best_epoch = trained, epoch.epoch
    if on_epoch is not None:
      on_epoch(epoch)
  return FineTuned(best, best_epoch, tuple(history))


def evaluate(
  model: nnx.Module,
  data: LabelledImages,
  *,
  preprocess: Preprocess,
  class_weights: ArrayLike,
  batch_size: int = 32,
) -> Evaluation:
  """Returns the loss and the scores of a network, which is left as it is.

  Args:
    model: network, used with its running statistics and without dropout.
    data: labelled images.
    preprocess: images -> normalised images.
    class_weights: (K,) weights of the loss.
    batch_size: images at a time; no effect on the result beyond rounding.

  Raises:
    ValueError: class_weights is not (K,), or the labels carry no weight.
  """
  logits = predict(
    model, data.images, preprocess=preprocess, batch_size=batch_size
  ).astype(np.float64)
  weights = np.asarray(class_weights, np.float64)
  if weights.shape != logits.shape[1:]:
    raise ValueError(
      f'class_weights must have shape {logits.shape[1:]}, one per logit, got '
      f'{weights.shape}.'
    )
  confusion = metrics.confusion_matrix(
    data.labels, logits.argmax(1), len(weights)
  )
  loss = metrics.weighted_cross_entropy(logits, data.labels, weights)
  return Evaluation(loss, metrics.scores(confusion))


def predict(
  model: nnx.Module,
  images: ArrayLike,
  *,
  preprocess: Preprocess,
  batch_size: int = 32,
) -> np.ndarray:
  """Returns the logits (N, K) of images (N, H, W, C) in inference mode.

  The last batch is padded and cut, so one compilation serves all batches.
  """
  graphdef, state = nnx.split(model)
  batches = []
  for start in range(0, len(images), batch_size):
    batch = np.asarray(images[start : start + batch_size])
    missing = batch_size - len(batch)
    padded = np.pad(batch, ((0, missing), (0, 0), (0, 0), (0, 0)))
    logits = _forward(graphdef, preprocess, state, padded)
    batches.append(np.asarray(logits)[: len(batch)])
  return np.concatenate(batches)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _forward(
  graphdef: nnx.GraphDef,
  preprocess: Preprocess,
  state: nnx.State,
  images: jax.Array,
) -> jax.Array:
  return nnx.merge(graphdef, state)(preprocess(images))


def _train(
  key: jax.Array,
  model: nnx.Module,
  data: LabelledImages,
  preprocess: Preprocess,
  class_weights: jax.Array,
  settings: Settings,
  on_step: Callable[[int, int, int], None] | None,
) -> Iterator[tuple[nnx.Module, float, float]]:
  """Yields the network, its training loss and its seconds, epoch by epoch."""
  key_shuffle, key_dropout = jax.random.split(key)
  batch_size = min(settings.batch_size, len(data.labels))
  num_steps = len(data.labels) // batch_size
  optimizer = _optimizer(settings, num_steps)
  graphdef, params, rest = nnx.split(model, nnx.Param, ...)
  step = _make_step(graphdef, optimizer, preprocess, class_weights)
  # A step gives away the buffers of its state, so that it starts from a copy.
  state = _copy((params, rest, optimizer.init(params)))
  for epoch in range(settings.num_epochs):
    start, sums = time.perf_counter(), np.zeros(2)
    order = jax.random.permutation(
      jax.random.fold_in(key_shuffle, epoch), len(data.labels)
    )
    chosen = np.asarray(order)[: num_steps * batch_size]
    for i, batch in enumerate(chosen.reshape(num_steps, batch_size)):
      key_step = jax.random.fold_in(key_dropout, epoch * num_steps + i)
      state, batch_sums = step(
        state, key_step, data.images[batch], data.labels[batch]
      )
      sums += np.asarray(batch_sums)
      _check_finite(sums[0] / sums[1], f'training of epoch {epoch}, step {i}')
      if on_step is not None:
        on_step(epoch, i + 1, num_steps)
    seconds = time.perf_counter() - start
    trained = nnx.merge(graphdef, *_copy(state[:2]))
    yield trained, float(sums[0] / sums[1]), seconds


def _make_step(
  graphdef: nnx.GraphDef,
  optimizer: optax.GradientTransformation,
  preprocess: Preprocess,
  class_weights: jax.Array,
) -> Callable[..., tuple[Any, jax.Array]]:
  """Returns the compiled update (state, key, images, labels) -> state, sums.

  The state is (params, other variables, optimiser state); the sums are those of
  `metrics.cross_entropy_sums` before the update.
  """

  def loss_fn(params, rest, key, images, labels):
    model = nnx.merge(graphdef, params, rest, copy=True)
    logits = model(preprocess(images), train=True, key=key)
    sums = metrics.cross_entropy_sums(logits, labels, class_weights)
    _, _, rest = nnx.split(model, nnx.Param, ...)
    return sums[0] / sums[1], (rest, jnp.stack(sums))

  @functools.partial(jax.jit, donate_argnums=0)
  def step(state, key, images, labels):
    params, rest, opt_state = state
    gradient, (rest, sums) = jax.grad(loss_fn, has_aux=True)(
      params, rest, key, images, labels
    )
    updates, opt_state = optimizer.update(gradient, opt_state, params)
    return (optax.apply_updates(params, updates), rest, opt_state), sums

  return step


def _optimizer(
  settings: Settings, steps_per_epoch: int
) -> optax.GradientTransformation:
  return optimizers.adamw(
    learning_rate=settings.learning_rate,
    weight_decay=settings.weight_decay,
    steps_per_epoch=steps_per_epoch,
    warmup_epochs=settings.warmup_epochs,
    end_epoch=settings.end_epoch,
    final_factor=settings.final_factor,
  )


def _learning_rate(settings: Settings, epoch: int) -> float:
  factor = optimizers.epoch_factor(
    epoch,
    warmup_epochs=settings.warmup_epochs,
    end_epoch=settings.end_epoch,
    final_factor=settings.final_factor,
  )
  return settings.learning_rate * float(factor)


def _checked_weights(
  class_weights: ArrayLike, *sets: LabelledImages
) -> jax.Array:
  """Returns the weights as float32 after checking that they fit the labels."""
  weights = np.asarray(class_weights, np.float32)
  if weights.ndim != 1 or not (weights >= 0).all():
    raise ValueError(
      f'class_weights must be (K,) and not negative, got {class_weights}.'
    )
  for data in sets:
    metrics.check_labels(data.labels, len(weights))
  return jnp.asarray(weights)


def _check_finite(loss: float, where: str) -> None:
  if not math.isfinite(loss):
    raise FloatingPointError(
      f'the loss is {loss} in the {where}; check the images, the class weights '
      'and the learning rate.'
    )


def _copy(tree: Any) -> Any:
  return jax.tree.map(jnp.copy, tree)
