"""What the layers of an unmodified network say, and the network with it edited.

A layer is a module of a Flax network, by its attribute path joined by dots,
`layer4.1.conv2`; of one that is called several times the later calls have the
names `relu#2`, `relu#3`, ... Taps are set in a copy that lives as long as one
trace, so that nothing has to be removed again and nothing is shared between
threads. The derivative by an activation A is the one by eps at

    A -> A + eps,    eps = 0.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import difflib
import functools
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from jaxsens import classifiers

Edit = Callable[[jax.Array], jax.Array]


def layer_shapes(
  classifier: classifiers.Classifier,
) -> dict[str, tuple[int, ...]]:
  """Returns the shape of what each layer says of one image, in calling order.

  Without the leading axis of the batch; the network itself is left out. Modules
  that are never called, or whose result is not an array, are not layers.

  Raises:
    TypeError: the classifier is not a Flax network.
  """
  return dict(_shapes(
    classifier.apply_fn, jax.tree.structure(classifier.params),
    tuple((x.shape, x.dtype) for x in jax.tree.leaves(classifier.params)),
    classifier.preprocess, (*classifier.image_size, classifier.channels),
  ))


def layer_names(classifier: classifiers.Classifier) -> tuple[str, ...]:
  """Returns the names of all layers in the order in which they are called."""
  return tuple(layer_shapes(classifier))


def module_of(classifier: classifiers.Classifier) -> nnx.Module:
  """Returns the network of a classifier, a module of its own.

  Raises:
    TypeError: the classifier is not a Flax network.
  """
  return _module(classifier.apply_fn, classifier.params)


def check_layers(
  classifier: classifiers.Classifier, names: Sequence[str]
) -> None:
  """Raises ValueError for a name that no layer has, with those next to it."""
  check_known(layer_names(classifier), names)


def check_known(known: Sequence[str], names: Sequence[str]) -> None:
  """Raises ValueError for a name that is not known, with those next to it."""
  known = tuple(known)
  for name in names:
    if name not in known:
      near = difflib.get_close_matches(name, known, 4, 0.3) or known[-4:]
      raise ValueError(
        f'the network has no layer {name!r}; next to it are '
        f'{", ".join(near)} ({len(known)} in all).'
      )


def apply(
  classifier: classifiers.Classifier,
  images: jax.Array,
  names: Sequence[str],
  edit: Mapping[str, Edit] | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Returns logits and activations, where some of these may be edited.

  Args:
    classifier: a Flax network.
    images: (B, H, W, C).
    names: layers whose activations are returned.
    edit: for a layer what the rest of the network sees in place of its
      activation; need not be among `names`.

  Returns:
    logits (B, K), and by name the activations as the layers gave them, before
    the edit.

  Raises:
    TypeError: the classifier is not a Flax network.
    ValueError: there is no such layer.
  """
  edit = dict(edit or {})
  check_layers(classifier, [*names, *edit])
  seen = {}

  def show(name, y):
    if name in names:
      seen[name] = y
    return edit[name](y) if name in edit else y

  logits = _run(classifier, images, show)
  return logits, {name: seen[name] for name in names}


@functools.lru_cache(maxsize=64)
def _shapes(apply_fn, structure, leaves, preprocess, image_shape):
  params = jax.tree.unflatten(
    structure, [jax.ShapeDtypeStruct(*leaf) for leaf in leaves]
  )
  found = {}

  def trace(params, images):
    def show(name, y):
      found[name] = y.shape[1:]
      return y

    return _run_module(_module(apply_fn, params), preprocess(images), show)

  image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
  jax.eval_shape(trace, params, image)
  return tuple(found.items())


def _run(classifier, images, show):
  return _run_module(
    module_of(classifier), classifier.preprocess(images), show
  )


def _module(apply_fn, params):
  graphdef = getattr(apply_fn, 'graphdef', None)
  if graphdef is None:
    raise TypeError(
      'layers are known by name in a Flax network, see classifiers.from_flax; '
      f'this classifier is the function {apply_fn!r}.'
    )
  return nnx.merge(graphdef, params)


def _run_module(module, images, show):
  """Returns what a module of its own answers, with every layer shown."""
  calls: dict[str, int] = {}

  def shown(path, y):
    if not isinstance(y, jax.Array):
      return y
    calls[path] = calls.get(path, 0) + 1
    number = calls[path]
    return show(path if number == 1 else f'{path}#{number}', y)

  for path, layer in list(nnx.iter_modules(module)):
    if hasattr(layer, 'slice_size'):
      layer.slice_size = 0  # Batches go through whole: no loop hides a layer.
    if path and callable(layer):
      object.__setattr__(layer, '__class__', _tapped(type(layer)))
      object.__setattr__(
        layer, '_tap', functools.partial(shown, '.'.join(map(str, path)))
      )
  return module(images)


@functools.cache
def _tapped(kind: type) -> type:
  """Returns the class whose instances show their results to `_tap`."""
  def call(self, *args: Any, **options: Any):
    return object.__getattribute__(self, '_tap')(
      kind.__call__(self, *args, **options)
    )

  return type(kind.__name__, (kind,), {'__call__': call})
