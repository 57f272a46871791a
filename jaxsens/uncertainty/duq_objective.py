"""How a network with kernels is trained: an objective for `training.loop`."""

import dataclasses
import math
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from jaxsens.models import convolutions
from jaxsens.uncertainty import duq

_MODES = ('eval', 'train')


@dataclasses.dataclass(frozen=True)
class Objective:
  """The loss of the kernels and the centroids that follow the features.

  An update makes, in this order: the binary cross-entropy of the batch plus
  `penalty` times the gradient penalty, both from one pass in training mode
  (moments of the batch, dropping); the step of the optimiser; and the step of
  the centroids, on the same augmented images. Batch norm moves its running
  moments in the first pass only.

  Attributes:
    penalty: weight of the gradient penalty; 0 takes no second derivative.
    decay: of `duq.update_centroids`.
    norm_power, sides: see `duq.gradient_penalty`.
    centroids: 'eval': from a second pass with the new parameters and the
      running moments of batch norm, as the reference does, for another forward
      pass per update; 'train': from the features of the first pass, thus the
      parameters before the step and the moments of the batch, for nothing.

  Raises:
    ValueError: a value that makes no sense.
  """

  penalty: float = 0.0
  decay: float = 0.999
  norm_power: int = 1
  sides: str = 'two'
  centroids: str = 'eval'

  def __post_init__(self):
    if not (self.penalty >= 0 and math.isfinite(self.penalty)):
      raise ValueError(f'penalty must not be negative, got {self.penalty}.')
    if not 0 <= self.decay < 1:
      raise ValueError(f'decay must be in [0, 1), got {self.decay}.')
    duq.check_penalty(self.norm_power, self.sides)
    if self.centroids not in _MODES:
      raise ValueError(
        f'centroids must be one of {_MODES}, got {self.centroids!r}.'
      )

  def check(
    self, settings: Any, labels: np.ndarray, num_classes: int
  ) -> None:
    """Raises ValueError for settings or labels that kernels cannot take.

    Args:
      settings: `training.settings.Settings`.
      labels: (N,) of the training images; every class must occur, as one that
        does not would keep a centroid that was drawn.
      num_classes: K.
    """
    for name in ('mixup', 'label_smoothing', 'noise_doubling'):
      if getattr(settings, name):
        raise ValueError(
          f'{name} must be 0 for kernels, got {getattr(settings, name)}: an '
          'image counts for the centroid of one class.'
        )
    absent = sorted(set(range(num_classes)) - set(np.unique(labels).tolist()))
    if absent:
      raise ValueError(
        f'every class needs training images, but classes {absent} of '
        f'0..{num_classes - 1} have none; their centroids would stay where '
        'they were drawn.'
      )

  def loss(
    self,
    graphdef: nnx.GraphDef,
    params: nnx.State,
    rest: nnx.State,
    images: jax.Array,
    labels: jax.Array,
    class_weights: jax.Array,
    keys: Any,
  ) -> tuple[jax.Array, tuple[nnx.State, jax.Array]]:
    """Returns the loss, and the other variables and its sums beside it.

    Args:
      graphdef, params, rest: of a `duq.Network`.
      images: (B, H, W, C), augmented and normalised.
      labels: (B,) int.
      class_weights: (K,), see `duq.binary_cross_entropy`.
      keys: `training.steps.Keys`.
    """

    def forward(images):
      model = nnx.merge(graphdef, params, rest, copy=True)
      features = model.embed(images, train=True, key=keys.dropout)
      log_kernels = model.head(features)
      if self.centroids == 'train':
        duq.update_centroids(model.head, features, labels, self.decay)
      return log_kernels, nnx.split(model, nnx.Param, ...)[2]

    if self.penalty:
      with convolutions.differentiated_twice():
        log_kernels, pull_back, moved = jax.vjp(forward, images, has_aux=True)
      # d K = K d log K.
      gradients = pull_back(jnp.exp(log_kernels))[0]
      penalty = self.penalty * duq.penalty_of(
        gradients, norm_power=self.norm_power, sides=self.sides
      )
    else:
      log_kernels, moved = forward(images)
      penalty = jnp.zeros((), log_kernels.dtype)
    numerator, denominator = duq.binary_cross_entropy_sums(
      log_kernels, labels, class_weights
    )
    loss = numerator / denominator + penalty
    return loss, (moved, jnp.stack([loss * denominator, denominator]))

  def follow(
    self,
    graphdef: nnx.GraphDef,
    params: nnx.State,
    rest: nnx.State,
    images: jax.Array,
    labels: jax.Array,
  ) -> nnx.State:
    """Returns the other variables after the step of the optimiser."""
    if self.centroids == 'train':
      return rest
    model = nnx.merge(graphdef, params, rest, copy=True)
    duq.update_centroids(model.head, model.embed(images), labels, self.decay)
    return nnx.split(model, nnx.Param, ...)[2]

  def evaluate(
    self, logits: np.ndarray, labels: np.ndarray, class_weights: np.ndarray
  ) -> float:
    """Returns the loss of a whole set without the penalty, on the host.

    Args:
      logits: (N, K) log-kernels.
      labels: (N,) int.
      class_weights: (K,).

    Raises:
      ValueError: every label has weight zero.
    """
    weights = np.asarray(class_weights, np.float64)[labels]
    if not weights.sum() > 0:
      raise ValueError(
        f'the labels must carry weight, their classes have {class_weights}.'
      )
    distances = np.maximum(-np.asarray(logits, np.float64), 0)
    own = np.arange(distances.shape[1]) == np.asarray(labels)[:, None]
    others = np.maximum(distances, np.finfo(np.float32).eps)
    losses = np.where(own, distances, -np.log(-np.expm1(-others))).mean(1)
    return float(weights @ losses / weights.sum())
