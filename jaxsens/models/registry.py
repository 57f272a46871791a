"""The networks that a config can ask for by name."""

from collections.abc import Callable
import difflib

from flax import nnx

from jaxsens.models import resnet

NETWORKS: dict[str, Callable[..., nnx.Module]] = {'resnet18': resnet.resnet18}
"""Constructors `(key, num_classes, *, in_channels, dropout, dtype)`."""


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
