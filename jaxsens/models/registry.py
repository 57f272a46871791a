"""The networks by name, and what is known of each before it is made."""

from collections.abc import Callable
import dataclasses
import difflib

from flax import nnx
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxsens.models import lenet
from jaxsens.models import resnet


@dataclasses.dataclass(frozen=True)
class Architecture:
  """What is known of a network by its name.

  Attributes:
    make: (key, num_classes, *, in_channels, dropout, stem, padding, dtype) ->
      network.
    head: name of the last layer with weights, whose shape depends on the
      classes.
    stem: name of the first convolution, whose shape depends on the channels.
    stem_norm: name of the batch norm behind it, or None.
    num_parameters: published count for RGB images and `num_classes`.
    num_classes: classes of the published network.
    image_size: (height, width) of its published input, pixels.
    source: the paper.
  """

  make: Callable[..., nnx.Module]
  head: str
  stem: str
  stem_norm: str | None
  num_parameters: int
  num_classes: int
  image_size: tuple[int, int]
  source: str


_HE = 'He et al., Deep residual learning for image recognition, 2016'

ARCHITECTURES: dict[str, Architecture] = {
  'lenet': Architecture(
    lenet.lenet, 'fc3', 'conv1', None, 62_006, 10, (32, 32),
    'LeCun et al., Gradient-based learning applied to document recognition, '
    '1998; PyTorch tutorial "Training a classifier"',
  ),
  'resnet18': Architecture(
    resnet.resnet18, 'fc', 'conv1', 'bn1', 11_689_512, 1000, (224, 224), _HE,
  ),
  'resnet34': Architecture(
    resnet.resnet34, 'fc', 'conv1', 'bn1', 21_797_672, 1000, (224, 224), _HE,
  ),
  'resnet50': Architecture(
    resnet.resnet50, 'fc', 'conv1', 'bn1', 25_557_032, 1000, (224, 224), _HE,
  ),
}  # fmt: skip
"""The networks that a config can ask for by name."""


def find(name: str) -> Architecture:
  """Returns what is known of a network by its name.

  Raises:
    ValueError: no network has this name; the message lists the names.
  """
  if name not in ARCHITECTURES:
    near = difflib.get_close_matches(name, ARCHITECTURES, 1)
    hint = f'; did you mean {near[0]!r}?' if near else '.'
    raise ValueError(f'no network {name!r}, only {sorted(ARCHITECTURES)}{hint}')
  return ARCHITECTURES[name]


def create(
  name: str,
  key: jax.Array,
  num_classes: int,
  *,
  in_channels: int = 3,
  dropout: float | None = None,
  stem: str = 'imagenet',
  padding: str = 'torch',
  dtype: DTypeLike = jnp.float32,
) -> nnx.Module:
  """Returns a network with its published initial distributions.

  A network takes normalised images (B, H, W, C) and has `features` (the last
  feature map (B, h, w, D)), `embed` (what its head takes, (B, D)) and, when
  called, logits (B, K), all with `train=False` and `key=None`.

  Args:
    name: one of `ARCHITECTURES`.
    key: key of the initial values.
    num_classes: K, number of logits.
    in_channels: 3 for RGB, 1 for gray images.
    dropout: probability of dropping a feature before the head, in [0, 1); None
      is what the published network has.
    stem: 'imagenet', or 'cifar' for images of 32 pixels: 3x3 at stride 1
      without the max pool that may follow.
    padding: 'torch' (symmetric), or 'same' as weights of Keras and TensorFlow
      need it.
    dtype: dtype of the convolutions, float32 or bfloat16; parameters, batch
      norm and head are float32.

  Raises:
    ValueError: an unknown name, a number of classes or channels below one, a
      dropout outside [0, 1), or an option that this network does not have.
  """
  return find(name).make(
    key, num_classes, in_channels=in_channels, dropout=dropout, stem=stem,
    padding=padding, dtype=dtype,
  )
