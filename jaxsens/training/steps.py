"""One update of a network, compiled."""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import optax

from jaxsens.training import batches
from jaxsens.training import objectives
from jaxsens.training import optimizers
from jaxsens.training import settings as settings_lib

Preprocess = Callable[[jax.Array], jax.Array]
Step = Callable[..., tuple[Any, jax.Array]]



@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
  """Everything that an update changes.

  Attributes:
    params: parameters.
    rest: other variables of the network, as running moments.
    opt_state: of the optimiser.
    average: moving averages of (params, rest), or None.
  """

  params: nnx.State
  rest: nnx.State
  opt_state: Any
  average: tuple[nnx.State, nnx.State] | None

  def evaluated(self) -> tuple[nnx.State, nnx.State]:
    """Returns parameters and other variables of the network to evaluate."""
    return (self.params, self.rest) if self.average is None else self.average


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Keys:
  """Where the random choices of an update come from.

  Attributes:
    augmentation: of the epoch; every image makes its own from it.
    dropout: of the update.
    mixing: of the update, for mixup and for noise.
  """

  augmentation: jax.Array
  dropout: jax.Array
  mixing: jax.Array


def initial(
  model: nnx.Module,
  optimizer: optax.GradientTransformation,
  settings: settings_lib.Settings,
) -> tuple[nnx.GraphDef, State]:
  """Returns the definition of a network and the state before any update."""
  graphdef, params, rest = nnx.split(model, nnx.Param, ...)
  average = (params, rest) if settings.ema_decay else None
  return graphdef, copy(
    State(params, rest, optimizer.init(params), average)
  )


def copy(tree: Any) -> Any:
  """Returns a tree of arrays with memory of its own.

  An update gives away the memory of the state that it is given.
  """
  return jax.tree.map(jnp.copy, tree)


def make(
  graphdef: nnx.GraphDef,
  optimizer: optax.GradientTransformation,
  preprocess: Preprocess,
  class_weights: jax.Array,
  settings: settings_lib.Settings,
  feeder: batches.Feeder,
  objective: objectives.Objective,
) -> Step:
  """Returns the compiled update (state, keys, step, batch) -> state, sums.

  The step is the number of updates made before. The sums are numerator and
  denominator of the loss before the update.
  """
  augmentation = settings.make_augmentation()
  replicated = feeder.sharding()

  def loss_fn(params, rest, keys, images, labels):
    return objective.loss(
      graphdef, params, rest, preprocess(images), labels, class_weights, keys
    )

  @functools.partial(
    jax.jit, donate_argnums=0, out_shardings=replicated
  )
  def step(state, keys, number, batch):
    images, labels = batch.take()
    images = augmentation(
      keys.augmentation, batch.indices, images, mesh=feeder.mesh
    )
    gradient, (rest, sums) = jax.grad(loss_fn, has_aux=True)(
      state.params, state.rest, keys, images, labels
    )
    updates, opt_state = optimizer.update(
      gradient, state.opt_state, state.params
    )
    params = optax.apply_updates(state.params, updates)
    rest = objective.follow(
      graphdef, params, rest, preprocess(images), labels
    )
    average = state.average
    if average is not None:
      average = optimizers.move_average(
        average, (params, rest), number, settings.ema_decay
      )
    return State(params, rest, opt_state, average), sums

  return step
