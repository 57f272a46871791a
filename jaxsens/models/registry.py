"""The networks by name, and what is known of each before it is made."""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import difflib

from flax import nnx
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxsens.models import cnn
from jaxsens.models import convolutions
from jaxsens.models import efficientnet
from jaxsens.models import lenet
from jaxsens.models import mobilenet
from jaxsens.models import resnet
from jaxsens.models import shufflenet
from jaxsens.models import squeezenet
from jaxsens.models import vgg


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


_IANDOLA = 'Iandola et al., SqueezeNet, 2016'
_SIMONYAN = 'Simonyan and Zisserman, Very deep convolutional networks, 2015'
_GRIMALDI = 'F. Grimaldi, machine_learning_intepretability_in_steel_industry'
_HE = 'He et al., Deep residual learning for image recognition, 2016'
_HOWARD = 'Howard et al., Searching for MobileNetV3, 2019'
_TAN = 'Tan and Le, EfficientNet, 2019'

# Parameters of SqueezeNet 1.1 cut behind so many entries of `features`, with a
# head of 1000 classes; the head of two stages has 5,005 more for 5 classes.
_REDUCED = {7: 327_976, 8: 377_416, 9: 377_416, 10: 610_296, 11: 721_320}


def _squeezenet(make, num_parameters):
  return Architecture(
    make, 'classifier.1', 'features.0', None, num_parameters, 1000, (224, 224),
    _IANDOLA,
  )


def _two_stage(make, num_parameters):
  return Architecture(
    make, 'classifier.5', 'features.0', None, num_parameters + 5_005, 5,
    (64, 400), f'{_IANDOLA}; {_GRIMALDI}',
  )


ARCHITECTURES: dict[str, Architecture] = {
  'cnn': Architecture(
    cnn.cnn, 'classifier.6', 'features.0', None, 414_117, 5, cnn.IMAGE_SIZE,
    _GRIMALDI,
  ),
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
  'mobilenet_v2': Architecture(
    mobilenet.mobilenet_v2, 'classifier.1', 'features.0.0', 'features.0.1',
    3_504_872, 1000, (224, 224), 'Sandler et al., MobileNetV2, 2018',
  ),
  'mobilenet_v3_small': Architecture(
    mobilenet.mobilenet_v3_small, 'classifier.3', 'features.0.0',
    'features.0.1', 2_542_856, 1000, (224, 224), _HOWARD,
  ),
  'mobilenet_v3_large': Architecture(
    mobilenet.mobilenet_v3_large, 'classifier.3', 'features.0.0',
    'features.0.1', 5_483_032, 1000, (224, 224), _HOWARD,
  ),
  'efficientnet_b0': Architecture(
    efficientnet.efficientnet_b0, 'classifier.1', 'features.0.0',
    'features.0.1', 5_288_548, 1000, (224, 224), _TAN,
  ),
  'efficientnet_b1': Architecture(
    efficientnet.efficientnet_b1, 'classifier.1', 'features.0.0',
    'features.0.1', 7_794_184, 1000, (240, 240), _TAN,
  ),
  'shufflenet_v2_x1_0': Architecture(
    shufflenet.shufflenet_v2_x1_0, 'fc', 'conv1.0', 'conv1.1', 2_278_604, 1000,
    (224, 224), 'Ma et al., ShuffleNet V2, 2018',
  ),
  'squeezenet1_0': _squeezenet(squeezenet.squeezenet1_0, 1_248_424),
  'squeezenet1_1': _squeezenet(squeezenet.squeezenet1_1, 1_235_496),
  'squeezenet1_1_two_stage': _two_stage(
    squeezenet.squeezenet1_1_two_stage, 1_235_496
  ),
  **{
    f'squeezenet1_1_reduced{k}': _squeezenet(squeezenet.reduced(k), count)
    for k, count in _REDUCED.items()
  },
  **{
    f'squeezenet1_1_reduced{k}_two_stage': _two_stage(
      squeezenet.reduced(k, 'two_stage'), count
    )
    for k, count in _REDUCED.items()
  },
  'vgg16_bn': Architecture(
    vgg.vgg16_bn, 'classifier.6', 'features.0', 'features.1', 138_365_992, 1000,
    (224, 224), _SIMONYAN,
  ),
  'vgg16_bn_narrow': Architecture(
    vgg.vgg16_bn_narrow, 'classifier.6', 'features.0', 'features.1', 21_154_309,
    5, (64, 400), f'{_SIMONYAN}; {_GRIMALDI}',
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


class NoHead(nnx.Module):
  """Stands where the head was, see `without_head`."""


def without_head(name: str, model: nnx.Module) -> nnx.Module:
  """Returns a network that has `features` and `embed`, and no head.

  So that nothing is trained, counted or saved that no answer depends on.

  Args:
    name: of the network, one of `ARCHITECTURES`.
    model: such a network, left as it is.
  """
  model = nnx.clone(model)
  *path, last = find(name).head.split('.')
  parent = model
  for part in path:
    parent = parent[int(part)] if part.isdigit() else getattr(parent, part)
  if last.isdigit():
    parent[int(last)] = NoHead()
  else:
    setattr(parent, last, NoHead())
  return model


def num_parameters(model: nnx.Module) -> int:
  """Returns how many trainable numbers a network has."""
  return sum(x.size for x in jax.tree.leaves(nnx.state(model, nnx.Param)))


def flops(model: nnx.Module, image_shape: Sequence[int]) -> float:
  """Returns the floating-point operations of one image, as XLA counts them.

  A multiply-add counts as two. Counted before any optimisation, so that the
  number is the same on every platform.

  Args:
    model: as trained; may be abstract.
    image_shape: (H, W, C).
  """
  graphdef, state = nnx.split(model)
  images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
  forward = lambda state, images: nnx.merge(graphdef, state)(images)
  # Some forms for CPUs multiply more than they need to.
  with convolutions.for_platform('gpu'):
    lowered = jax.jit(forward).lower(state, images)
  return float(lowered.cost_analysis()['flops'])
