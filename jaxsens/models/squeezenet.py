"""SqueezeNet 1.0 and 1.1, version 1.1 with fewer Fires, and two heads.

Attribute paths equal torchvision's parameter names, `features.3.squeeze` and
`classifier.1`; `features` is called like a method. Two heads:

    'conv'       dropout - conv 1x1 to K - ReLU - mean over the image
    'two_stage'  dropout - conv 1x1 to 1000 - ReLU - mean over the image
                 - linear to K, `classifier.5`

The second keeps the head of published weights and learns a linear layer on top.

References:
  Iandola et al., SqueezeNet: AlexNet-level accuracy with 50x fewer parameters
  and <0.5MB model size, 2016, table 1.
  torchvision.models.squeezenet, for padding, names and initial values.
"""

from collections.abc import Sequence
import functools

from flax import nnx
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxsens.models import convolutions
from jaxsens.models import layers
from jaxsens.models import networks

NUM_PUBLISHED_CLASSES = 1000
"""Width of the 1x1 convolution in the head of two stages."""

# Size and width of the stem, then 'pool' or (squeezed width, expanded width).
_VERSIONS = {
  '1_0': (
    (7, 96), 'pool', (16, 64), (16, 64), (32, 128), 'pool', (32, 128),
    (48, 192), (48, 192), (64, 256), 'pool', (64, 256),
  ),
  '1_1': (
    (3, 64), 'pool', (16, 64), (16, 64), 'pool', (32, 128), (32, 128), 'pool',
    (48, 192), (48, 192), (64, 256), (64, 256),
  ),
}  # fmt: skip


class Fire(nnx.Module):
  """A 1x1 convolution to few channels, and 1x1 and 3x3 ones back to many.

  Attributes:
    squeeze, expand1x1, expand3x3: the convolutions, a ReLU behind each.
  """

  def __init__(self, in_channels: int, squeezed: int, width: int, **options):
    self.squeeze = layers.Convolution(in_channels, squeezed, 1, **options)
    self.expand1x1 = layers.Convolution(squeezed, width, 1, **options)
    self.expand3x3 = layers.Convolution(squeezed, width, 3, **options)

  def __call__(self, x: jax.Array) -> jax.Array:
    """Returns (B, H, W, 2 width)."""
    x = layers.relu(self.squeeze(x))
    both = [self.expand1x1(x), self.expand3x3(x)]
    return layers.relu(jnp.concatenate(both, axis=-1))


class Features(nnx.List):
  """All but the head, numbered as torchvision does.

  An entry is the stem, 'relu', 'pool', None where there is nothing, or a Fire.

  Attributes:
    padding: of the max pools.
  """

  def __init__(self, entries: Sequence, padding: str):
    super().__init__(entries)
    self.padding = padding

  def __call__(
    self,
    images: jax.Array,
    *,
    train: bool = False,
    key: jax.Array | None = None,
  ) -> jax.Array:
    """Returns the last feature map (B, h, w, D) of images (B, H, W, C)."""
    del train, key
    x = images
    for entry in self:
      if entry == 'relu':
        x = layers.relu(x)
      elif entry == 'pool':
        padding = 0 if self.padding == 'torch' else self.padding
        x = convolutions.max_pool(x, padding=padding, ceil=padding == 0)
      elif entry is not None:
        x = entry(x)
    return x


class SqueezeNet(networks.Network):
  """Stem, Fires with max pools between them, and a convolutional head.

  Attributes:
    features: all but the head; called as the method of other networks is.
    classifier: the head; entries without arrays are None.
    dropout: probability of dropping an element before the head.
    num_features: D.
  """

  def __init__(
    self,
    version: str,
    num_entries: int | None,
    head: str,
    num_classes: int,
    *,
    in_channels: int,
    dropout: float,
    stem: str,
    padding: str,
    dtype: DTypeLike,
    rngs: nnx.Rngs,
  ):
    self.dtype = jnp.dtype(dtype)
    self.dropout = dropout
    options = dict(
      bias=True, initial=layers.kaiming_uniform, padding=padding, dtype=dtype,
      rngs=rngs,
    )
    entries, channels = _entries(
      _VERSIONS[version], num_entries, in_channels, stem, options
    )
    self.features = Features(entries, padding)
    self.num_features = channels
    wide = NUM_PUBLISHED_CLASSES if head == 'two_stage' else num_classes
    if head == 'two_stage' and num_entries is not None:
      # A new layer on fewer Fires, as torch makes one.
      options['initial'] = layers.torch_uniform
      options['initial_bias'] = layers.symmetric_uniform(channels**-0.5)
    else:
      options['initial'] = nnx.initializers.normal(0.01)
    convolution = layers.Convolution(channels, wide, 1, **options)
    self.classifier = nnx.List([None, convolution])
    if head == 'two_stage':
      linear = layers.linear(wide, num_classes, rngs=rngs)
      self.classifier.extend([None, None, None, linear])

  def _embed(self, images, train, key):
    """Returns features of each image.

    With the head of two stages what its linear layer takes, (B, 1000). The
    other head has a ReLU between its weights and the mean over the image, so
    that nothing of this shape enters it; the mean of the last feature map,
    (B, D), takes its place.
    """
    x = self.features(images, train=train)
    if len(self.classifier) > 2:
      return self._scores(x, train, key)
    return layers.mean_pool(x)

  def _logits(self, images, train, key):
    scores = self._scores(self.features(images, train=train), train, key)
    if len(self.classifier) > 2:
      return self.classifier[5](scores)
    return scores

  def _scores(self, x, train, key):
    x = layers.dropout(x, self.dropout, train=train, key=key)
    return layers.mean_pool(layers.relu(self.classifier[1](x)))


def _entries(version, num_entries, in_channels, stem, options):
  """Returns the entries of `Features` and the channels of the last one."""
  (size, channels), *rest = version
  if layers.checked_stem(stem) == 'cifar':
    convolution = layers.Convolution(in_channels, channels, 3, **options)
    rest[0] = None
  else:
    unpadded = 0 if options['padding'] == 'torch' else options['padding']
    convolution = layers.Convolution(
      in_channels, channels, size, stride=2, **{**options, 'padding': unpadded}
    )
  entries = [convolution, 'relu']
  for entry in rest[: None if num_entries is None else num_entries - 2]:
    if isinstance(entry, tuple):
      squeezed, width = entry
      entry = Fire(channels, squeezed, width, **options)
      channels = 2 * width
    entries.append(entry)
  return entries, channels


def _squeezenet(
  version: str,
  num_entries: int | None,
  head: str,
  key: jax.Array,
  num_classes: int,
  *,
  in_channels: int = 3,
  dropout: float | None = None,
  stem: str = 'imagenet',
  padding: str = 'torch',
  dtype: DTypeLike = jnp.float32,
) -> SqueezeNet:
  """Returns a network with torchvision's initial distributions.

  Args: see `registry.create`; dropout is 0.5 unless given.
  """
  layers.check_widths(num_classes, in_channels)
  rate = 0.5 if dropout is None else dropout
  return SqueezeNet(
    version, num_entries, head, num_classes, in_channels=in_channels,
    dropout=layers.checked_dropout(rate), stem=stem, padding=padding,
    dtype=dtype, rngs=nnx.Rngs(key),
  )


squeezenet1_0 = functools.partial(_squeezenet, '1_0', None, 'conv')
squeezenet1_1 = functools.partial(_squeezenet, '1_1', None, 'conv')
squeezenet1_1_two_stage = functools.partial(
  _squeezenet, '1_1', None, 'two_stage'
)


def reduced(num_entries: int, head: str = 'conv'):
  """Returns what makes version 1.1 with the first entries of `features` only.

  Args:
    num_entries: 7 to 11; each from 8 on cuts one Fire less but for the max
      pool, entry 8.
    head: 'conv' or 'two_stage'.

  Raises:
    ValueError: another number of entries or another head.
  """
  if not 7 <= num_entries <= 11 or head not in ('conv', 'two_stage'):
    raise ValueError(
      "num_entries must be 7 to 11 and head 'conv' or 'two_stage', got "
      f'{num_entries} and {head!r}.'
    )
  return functools.partial(_squeezenet, '1_1', num_entries, head)
