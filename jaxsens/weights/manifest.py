"""The public weight files that this package knows.

A file is read only when its content has the digest that its publisher gives it;
where the publisher gives the first digits alone, as torchvision does in its
file names, those are compared. Licences are in `third_party/weights.md`.
"""

from collections.abc import Sequence
import dataclasses
import difflib
import os
import pathlib

from jaxsens import classifiers
from jaxsens.models import registry
from jaxsens.weights import cache
from jaxsens.weights import download


@dataclasses.dataclass(frozen=True)
class Preprocessing:
  """What images went through before the network that was trained.

  Attributes:
    resize: length of the short side after resizing, pixels; None: not resized.
    crop: side of the central square that is kept, pixels.
    interpolation: 'bilinear' or 'bicubic', with antialiasing.
    mean: mean per channel that is subtracted, images in [0, 1].
    std: standard deviation per channel that is divided by.
    padding: zeros around images in the network, 'torch' or 'same'.
  """

  resize: int | None = 256
  crop: int = 224
  interpolation: str = 'bilinear'
  mean: tuple[float, ...] = classifiers.IMAGENET.mean
  std: tuple[float, ...] = classifiers.IMAGENET.std
  padding: str = 'torch'

  @property
  def normalise(self) -> classifiers.Normalise:
    """Normalisation of images in [0, 1]."""
    return classifiers.Normalise(self.mean, self.std)


@dataclasses.dataclass(frozen=True)
class PublicWeights:
  """A weight file of others.

  Attributes:
    name: '<architecture>.<variant>'.
    filename: name under which its publisher gives it out.
    url: where it is published; a page to read where it is no file.
    sha256: its SHA-256, or the first digits where no more is published.
    licence: licence of the code that it belongs to; the data it was trained on
      may ask for more.
    top1, top5: published accuracy on the validation set of ImageNet (of
      `data`), percent; None where none is published.
    preprocessing: how images are prepared for it.
    num_classes: number of logits.
    data: what it was trained on.
  """

  name: str
  filename: str
  url: str
  sha256: str
  licence: str
  top1: float | None = None
  top5: float | None = None
  preprocessing: Preprocessing = Preprocessing()
  num_classes: int = 1000
  data: str = 'ImageNet-1k'

  @property
  def architecture(self) -> str:
    """Name of the network, a key of `registry.ARCHITECTURES`."""
    return self.name.partition('.')[0]

  @property
  def is_downloadable(self) -> bool:
    """Whether the address is that of the file itself."""
    return self.url.endswith(self.filename)


_TORCHVISION = 'https://download.pytorch.org/models/'
_BSD = 'BSD-3-Clause'
_V2 = Preprocessing(resize=232)
_HALF = (0.5, 0.5, 0.5)


def _torchvision(name, filename, top1, top5, preprocessing=Preprocessing()):  # noqa: B008
  """Returns an entry whose file name ends in the first digits of its digest."""
  digest = filename.rpartition('-')[2].removesuffix('.pth')
  return PublicWeights(
    name, filename, _TORCHVISION + filename, digest, _BSD, top1, top5,
    preprocessing,
  )


_ENTRIES = (
  _torchvision(
    'resnet18.imagenet1k_v1', 'resnet18-f37072fd.pth', 69.758, 89.078
  ),
  PublicWeights(
    'resnet18.pqf', 'resnet18_imagenet_pqf_torchvision_names_fp16.npz',
    'https://github.com/uber-research/permute-quantize-finetune',
    'e87ca9d1e9ac8c500a231b4323ce2cd8952162cb32a26ea070e3dc4427d5f330',
    'Uber non-commercial', 66.7,
  ),
  _torchvision(
    'resnet34.imagenet1k_v1', 'resnet34-b627a593.pth', 73.314, 91.42
  ),
  _torchvision(
    'resnet50.imagenet1k_v1', 'resnet50-0676ba61.pth', 76.13, 92.862
  ),
  _torchvision(
    'resnet50.imagenet1k_v2', 'resnet50-11ad3fa6.pth', 80.858, 95.434, _V2
  ),
  _torchvision(
    'mobilenet_v2.imagenet1k_v1', 'mobilenet_v2-b0353104.pth', 71.878, 90.286
  ),
  _torchvision(
    'mobilenet_v2.imagenet1k_v2', 'mobilenet_v2-7ebf99e0.pth', 72.154, 90.822,
    _V2,
  ),
  PublicWeights(
    'mobilenet_v2.keras',
    'mobilenet_v2_imagenet_keras_int8_torchvision_names.npz',
    'https://storage.googleapis.com/tensorflow/keras-applications/'
    'mobilenet_v2/',
    'fbbcce3b97fc34201548267d8cf95c4e7785538c05417c59b4e2957384dc27be',
    'Apache-2.0', 71.3, 90.1,
    Preprocessing(mean=_HALF, std=_HALF, padding='same'),
  ),
  _torchvision(
    'mobilenet_v3_small.imagenet1k_v1', 'mobilenet_v3_small-047dcff4.pth',
    67.668, 87.402,
  ),
  _torchvision(
    'mobilenet_v3_large.imagenet1k_v1', 'mobilenet_v3_large-8738ca79.pth',
    74.042, 91.34,
  ),
  _torchvision(
    'mobilenet_v3_large.imagenet1k_v2', 'mobilenet_v3_large-5c1a4163.pth',
    75.274, 92.566, _V2,
  ),
  _torchvision(
    'squeezenet1_0.imagenet1k_v1', 'squeezenet1_0-b66bff10.pth', 58.092, 80.42
  ),
  _torchvision(
    'squeezenet1_1.imagenet1k_v1', 'squeezenet1_1-b8a52dc0.pth', 58.178, 80.624
  ),
  PublicWeights(
    'squeezenet1_1.fp16', 'squeezenet1_1_imagenet_torchvision_fp16.npz',
    'https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth',
    '0820e85584d6c7494cd1d545a4c52a2c1378c29d594515b2ae312a750e1bb15f',
    _BSD, 58.178, 80.624,
  ),
  _torchvision(
    'efficientnet_b0.imagenet1k_v1', 'efficientnet_b0_rwightman-7f5810bc.pth',
    77.692, 93.532, Preprocessing(interpolation='bicubic'),
  ),
  _torchvision(
    'efficientnet_b1.imagenet1k_v1', 'efficientnet_b1_rwightman-bac287d4.pth',
    78.642, 94.186, Preprocessing(crop=240, interpolation='bicubic'),
  ),
  _torchvision(
    'efficientnet_b1.imagenet1k_v2', 'efficientnet_b1-c27df63c.pth', 79.838,
    94.934, Preprocessing(resize=255, crop=240),
  ),
  _torchvision(
    'shufflenet_v2_x1_0.imagenet1k_v1', 'shufflenetv2_x1-5666bf0f80.pth',
    69.362, 88.316,
  ),
  _torchvision(
    'vgg16_bn.imagenet1k_v1', 'vgg16_bn-6c64b313.pth', 73.36, 91.516
  ),
  PublicWeights(
    'lenet.cifar10', 'cifar_net.pth',
    'https://github.com/neozhixuan/SC1015_Z139_Team3',
    'd87d120a52c759665777c5e4804d0bb5debb255fe66ec3a1d39b602f179b9573',
    'none stated', None, None,
    Preprocessing(resize=None, crop=32, mean=_HALF, std=_HALF),
    10, 'CIFAR-10',
  ),
)  # fmt: skip

PUBLIC_WEIGHTS = {entry.name: entry for entry in _ENTRIES}
"""The files by name; the first of an architecture is its usual one."""


def find(name: str) -> PublicWeights:
  """Returns an entry by its name, or the usual one of an architecture.

  Raises:
    ValueError: there is none; the message lists the names.
  """
  if name in PUBLIC_WEIGHTS:
    return PUBLIC_WEIGHTS[name]
  for entry in PUBLIC_WEIGHTS.values():
    if entry.architecture == name:
      return entry
  near = difflib.get_close_matches(name, PUBLIC_WEIGHTS, 1)
  hint = f'; did you mean {near[0]!r}?' if near else '.'
  raise ValueError(
    f'no public weights of {name!r} are known, only of '
    f'{sorted(PUBLIC_WEIGHTS)}{hint}'
  )


def of_architecture(architecture: str) -> Sequence[PublicWeights]:
  """Returns what is known for a network, the usual one first."""
  registry.find(architecture)
  return tuple(
    entry for entry in PUBLIC_WEIGHTS.values()
    if entry.architecture == architecture
  )


def fetch(
  name: str, *, progress: download.Progress | None = None
) -> pathlib.Path:
  """Returns the verified file of an entry, downloaded where it is absent.

  Args:
    name: see `find`.
    progress: see `download.download`.

  Raises:
    FileNotFoundError: it is absent and cannot be had; the message says what to
      place where.
    ValueError: the name is unknown, or a file has another digest.
  """
  entry = find(name)
  if entry.is_downloadable:
    return cache.fetch(
      entry.filename, entry.url, entry.sha256, progress=progress
    )
  path = cache.find(entry.filename, entry.sha256)
  if path is None:
    raise FileNotFoundError(
      f'{entry.filename} is not on this machine and is not given out as a '
      f'file. {cache.how_to_place(entry.filename, entry.url, entry.sha256)}'
    )
  return path


def find_pretrained(
  name: str, *, path: str | os.PathLike | None = None
) -> pathlib.Path | None:
  """Returns the local file with the pretrained weights of a network.

  Looked for where `cache.folders` says.

  Args:
    name: name of the network or of an entry of `PUBLIC_WEIGHTS`; of a network
      it is the usual entry.
    path: a file of the user's own in any format that `convert` reads; its
      digest is not checked.

  Returns:
    The file, or None when there is none on this machine or none is known.

  Raises:
    FileNotFoundError: `path` is given and absent.
    ValueError: the name is unknown, or a file found has another digest than its
      publisher's.
  """
  if path is not None:
    if not pathlib.Path(path).is_file():
      raise FileNotFoundError(f'{path}: no such weight file.')
    return pathlib.Path(path)
  if name in registry.ARCHITECTURES and not of_architecture(name):
    return None
  entry = find(name)
  return cache.find(entry.filename, entry.sha256)
