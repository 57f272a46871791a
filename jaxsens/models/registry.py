"""The networks that a config can ask for by name."""

from collections.abc import Callable
import difflib

from flax import nnx

from jaxsens import classifiers
from jaxsens.models import lenet
from jaxsens.models import resnet

NETWORKS: dict[str, Callable[..., nnx.Module]] = {
  'lenet': lenet.lenet,
  'resnet18': resnet.resnet18,
}
"""Constructors `(key, num_classes, *, in_channels, dropout, dtype)`."""

CLASSIFIERS: dict[str, Callable[..., classifiers.Classifier]] = {
  'lenet': lenet.classifier,
  'resnet18': resnet.classifier,
}
"""`(model, *, preprocess, class_names, image_size, dtype)` -> classifier."""

HEADS: dict[str, str] = {'lenet': 'fc3', 'resnet18': 'fc'}
"""Name of the last linear layer, which depends on the classes."""


def find(name: str) -> Callable[..., nnx.Module]:
  """Returns the constructor of a network by its name.

  Raises:
    ValueError: no network has this name; the message lists the names.
  """
  if name not in NETWORKS:
    near = difflib.get_close_matches(name, NETWORKS, 1)
    hint = f'; did you mean {near[0]!r}?' if near else '.'
    raise ValueError(f'no network {name!r}, only {sorted(NETWORKS)}{hint}')
  return NETWORKS[name]
