"""What an update minimises, and what is done once it is made.

A network stands as its definition, its parameters and its other variables
(`nnx.split(model, nnx.Param, ...)`), so that objectives are pure functions.
"""

import dataclasses
from typing import Protocol

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from jaxsens.training import losses
from jaxsens.training import metrics
from jaxsens.training import settings as settings_lib


class Objective(Protocol):
  """What a training needs to know of its loss; hashable, without arrays."""

  def check(
    self,
    settings: settings_lib.Settings,
    labels: np.ndarray,
    num_classes: int,
  ) -> None:
    """Raises ValueError for settings or training labels (N,) it cannot use."""
    ...

  def loss(
    self, graphdef, params, rest, images, labels, class_weights, keys
  ) -> tuple[jax.Array, tuple[nnx.State, jax.Array]]:
    """Returns the loss of a batch; beside it moved variables and its sums.

    Args:
      graphdef, params, rest: the network.
      images: (B, H, W, C), augmented and normalised.
      labels: (B,) int.
      class_weights: (K,).
      keys: `steps.Keys` of the update.

    Returns:
      Loss; the other variables of the network as the pass left them and (2,)
      numerator and denominator of the loss.
    """
    ...

  def follow(self, graphdef, params, rest, images, labels) -> nnx.State:
    """Returns the other variables after the optimiser moved the parameters."""
    ...

  def evaluate(
    self, logits: np.ndarray, labels: np.ndarray, class_weights: np.ndarray
  ) -> float:
    """Returns the loss of a whole set from its logits (N, K), on the host."""
    ...


@dataclasses.dataclass(frozen=True)
class CrossEntropy:
  """Cross-entropy of the softmax, on images mixed or doubled where asked for.

  Attributes:
    label_smoothing, mixup, noise_doubling: see `settings.Settings`.
  """

  label_smoothing: float = 0.0
  mixup: float = 0.0
  noise_doubling: float = 0.0

  @classmethod
  def of(cls, settings: settings_lib.Settings) -> 'CrossEntropy':
    """Returns the objective that the settings ask for."""
    return cls(
      settings.label_smoothing, settings.mixup, settings.noise_doubling
    )

  def check(self, settings, labels, num_classes) -> None:
    """Refuses nothing."""

  def loss(self, graphdef, params, rest, images, labels, class_weights, keys):
    """See `Objective`."""
    model = nnx.merge(graphdef, params, rest, copy=True)
    if self.mixup:
      images, partners, share = losses.mix(
        jax.random.fold_in(keys.mixing, 0), images, labels, self.mixup
      )
    if self.noise_doubling:
      key = jax.random.fold_in(keys.mixing, 1)
      noise = jax.random.normal(key, images.shape, images.dtype)
      noisy = images + self.noise_doubling * noise
      images = jnp.concatenate([images, noisy])
      labels = jnp.concatenate([labels, labels])
      if self.mixup:
        partners = jnp.concatenate([partners, partners])
    logits = model(images, train=True, key=keys.dropout)
    if self.mixup:
      sums = losses.mixed_cross_entropy_sums(
        logits, labels, partners, share, class_weights,
        smoothing=self.label_smoothing,
      )
    else:
      sums = losses.cross_entropy_sums(
        logits, labels, class_weights, smoothing=self.label_smoothing
      )
    _, _, rest = nnx.split(model, nnx.Param, ...)
    return sums[0] / sums[1], (rest, jnp.stack(sums))

  def follow(self, graphdef, params, rest, images, labels):
    """Returns the variables as they are."""
    del graphdef, params, images, labels
    return rest

  def evaluate(self, logits, labels, class_weights) -> float:
    """Returns `metrics.weighted_cross_entropy`, without smoothing."""
    return metrics.weighted_cross_entropy(logits, labels, class_weights)
