"""EfficientNet B0 and B1 in Flax NNX.

Attribute paths equal torchvision's parameter names: the state path
('features', 1, 0, 'block', 0, 0, 'kernel') is
`features.1.0.block.0.0.weight`.

References:
  Tan and Le, EfficientNet, 2019, table 1 and section 5.
  torchvision.models.efficientnet, for names and initial values.
"""

import functools
import math

from flax import nnx
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxsens.models import inverted_residual
from jaxsens.models import layers
from jaxsens.models import networks

# Factor of the width, size of the filters, stride of the first block, channels
# out, number of blocks.
_STAGES = (
  (1, 3, 1, 16, 1),
  (6, 3, 2, 24, 2),
  (6, 5, 2, 40, 2),
  (6, 3, 2, 80, 3),
  (6, 5, 1, 112, 3),
  (6, 5, 2, 192, 4),
  (6, 3, 1, 320, 1),
)


class EfficientNet(networks.Network):
  """Stem, stages, 1x1 convolution, mean over the image, linear head.

  Attributes:
    features: images (B, H, W, C) -> last feature map (B, h, w, 1280).
    classifier: dropout and linear head.
    num_features: D, what the head takes.
  """

  def __init__(
    self,
    depth: float,
    num_classes: int,
    *,
    in_channels: int,
    dropout: float,
    stochastic_depth: float,
    stem: str,
    padding: str,
    dtype: DTypeLike,
    rngs: nnx.Rngs,
  ):
    self.dtype = jnp.dtype(dtype)
    self.num_features = 1280
    options = dict(padding=padding, dtype=dtype, rngs=rngs)
    part = functools.partial(
      inverted_residual.ConvolutionNorm, activation=layers.silu, **options
    )
    stride = 1 if layers.checked_stem(stem) == 'cifar' else 2
    self.features = inverted_residual.Chain(
      [part(in_channels, 32, 3, stride=stride)]
    )
    counts = [math.ceil(depth * count) for *_, count in _STAGES]
    channels, index = 32, 0
    for (factor, size, stride, width, _), count in zip(
      _STAGES, counts, strict=True
    ):
      stage = inverted_residual.Chain()
      for i in range(count):
        stage.append(inverted_residual.InvertedResidual(
          channels, factor * channels, width, size,
          stride=stride if i == 0 else 1, activation=layers.silu,
          squeezed=channels // 4, squeeze_activation=layers.silu,
          gate=jax.nn.sigmoid,
          drop_rate=stochastic_depth * index / sum(counts), **options,
        ))
        channels, index = width, index + 1
      self.features.append(stage)
    self.features.append(part(channels, self.num_features, 1))
    self.classifier = nnx.List([
      nnx.Dropout(dropout),
      layers.linear(
        self.num_features, num_classes,
        initial=layers.symmetric_uniform(num_classes**-0.5),
        initial_bias=nnx.initializers.zeros, rngs=rngs,
      ),
    ])

  def _logits(self, images, train, key):
    depth_key = drop_key = None
    if train and key is not None:
      depth_key, drop_key = jax.random.split(key)
    x = self._embed(images, train, depth_key)
    return networks.drop_and_project(x, *self.classifier, train, drop_key)


def _efficientnet(
  depth: float,
  key: jax.Array,
  num_classes: int,
  *,
  in_channels: int = 3,
  dropout: float | None = None,
  stochastic_depth: float = 0.2,
  stem: str = 'imagenet',
  padding: str = 'torch',
  dtype: DTypeLike = jnp.float32,
) -> EfficientNet:
  """Returns a network with torchvision's initial distributions.

  Args: see `registry.create`; the published dropout is 0.2. Moreover
    stochastic_depth: probability of leaving out a branch, which grows linearly
      from 0 in the first block towards this value behind the last one.
  """
  layers.check_widths(num_classes, in_channels)
  return EfficientNet(
    depth, num_classes, in_channels=in_channels,
    dropout=layers.checked_dropout(0.2 if dropout is None else dropout),
    stochastic_depth=layers.checked_dropout(stochastic_depth), stem=stem,
    padding=padding, dtype=dtype, rngs=nnx.Rngs(key),
  )


efficientnet_b0 = functools.partial(_efficientnet, 1.0)
efficientnet_b1 = functools.partial(_efficientnet, 1.1)
