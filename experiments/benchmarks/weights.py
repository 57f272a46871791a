"""Public weights: the answers of these networks beside PyTorch's, in one run.

For every file of `networks`: the photos, prepared by PIL as torchvision's
preset does, go through torchvision's network and through ours, the same arrays
through both:

    logit_difference = max |ours - torch| over photos and classes
    same = number of photos with the same largest logit

`ours` is the network as it is run, folded and with its kernels in the fastest
form; `unfolded` is the one that is trained. The photos are probably training
images: they check a port and tell no accuracy.

What resizing and cropping in JAX changes is stated on its own: differences of
pixels to PIL's in levels of 255, in floats and rounded to 8 bits behind each
axis, and how many predictions of ours change with them.

    python -m experiments.benchmark --suite=weights

What is not on this machine is left out with a line that says so.
"""

from collections.abc import Callable
from collections.abc import Sequence
import csv
import pathlib
from typing import Any

from flax import nnx
import jax
import numpy as np
import PIL.Image

from jaxsens import classifiers
from jaxsens.data import cifar10
from jaxsens.data import preprocessing
from jaxsens.data import roots
from jaxsens.models import inference
from jaxsens.models import registry
from jaxsens.weights import convert
from jaxsens.weights import manifest

Log = Callable[[str], Any]

NETWORKS = ('squeezenet1_1.fp16', 'resnet18.pqf', 'mobilenet_v2.keras')
_LENET = 'lenet.cifar10'
_FILTERS = {
  'bilinear': PIL.Image.BILINEAR, 'bicubic': PIL.Image.BICUBIC,
}  # fmt: skip
_FORMS = {'floats': None, '8 bits': 255}


def run(
  log: Log,
  *,
  networks: Sequence[str] = NETWORKS,
  num_photos: int | None = None,
  num_images: int | None = None,
  batch_size: int = 8,
) -> dict[str, Any]:
  """Compares the answers of networks with public weights.

  Args:
    log: receives one line of text at a time.
    networks: names of `manifest.PUBLIC_WEIGHTS`.
    num_photos: the first so many photos; None is all.
    num_images: the first so many exact CIFAR-10 test images; None is all.
    batch_size: images in one forward pass.

  Returns:
    {table: {measure: {row: number}}}.
  """
  torch = _torch(log)
  result: dict[str, Any] = {}
  folder = roots.find(None, 'imagenet_samples')
  if folder is None:
    log('left out: imagenet_samples is not on this machine')
  else:
    photos, labels = _read_photos(folder, num_photos)
    result |= _compare_photos(
      log, networks, photos, labels, torch, batch_size
    )
  result |= _compare_cifar(log, num_images, torch, batch_size)
  return result


def _torch(log: Log):
  """Returns the PyTorch networks, or None where torch is absent."""
  try:
    from third_party.pytorch_baselines import public_networks
    from third_party.pytorch_baselines import torchvision_import

    torchvision_import.load()
  except ImportError as error:
    log(f'left out: PyTorch ({error})')
    return None
  return public_networks


def _read_photos(folder: pathlib.Path, number: int | None):
  with open(folder / 'labels.csv', newline='') as file:
    rows = list(csv.DictReader(file))[:number]
  photos = []
  for row in rows:
    with PIL.Image.open(folder / 'images' / row['file']) as image:
      photos.append(image.convert('RGB'))
  return photos, np.asarray([int(row['class_index']) for row in rows])


def photographs(
  name: str, size: int, number: int
) -> tuple[classifiers.Classifier, np.ndarray]:
  """Returns a network with public weights and photographs for it.

  Args:
    name: a key of `manifest.PUBLIC_WEIGHTS`.
    size: pixels per side.
    number: of photographs, spread over the classes.

  Returns:
    The classifier, and images (number, size, size, 3) in [0, 1].

  Raises:
    FileNotFoundError: weights or photographs are not on this machine.
  """
  folder, path = roots.find(None, 'imagenet_samples'), (
    manifest.find_pretrained(name)
  )
  if folder is None or path is None:
    raise FileNotFoundError(
      f'imagenet_samples and {manifest.find(name).filename} are needed'
    )
  entry = manifest.find(name)
  photos, _ = _read_photos(folder, None)
  chosen = photos[:: max(len(photos) // number, 1)][:number]
  cropped = [prepare_with_pil(photo, entry.preprocessing) for photo in chosen]
  images = np.stack([
    PIL.Image.fromarray(image).resize((size, size), PIL.Image.BILINEAR)
    for image in cropped
  ])
  classifier = inference.classifier(
    _network(entry, convert.read_state_dict(path)),
    preprocess=entry.preprocessing.normalise, image_size=(size, size),
    class_names=tuple(map(str, range(1000))), channels=3,
  )
  return classifier, images.astype(np.float32) / np.float32(255)


def prepare_with_pil(
  photo: PIL.Image.Image, how: manifest.Preprocessing
) -> np.ndarray:
  """Returns a photo resized and cropped by PIL, (S, S, 3) uint8."""
  height, width = preprocessing.short_side_size(photo.size[::-1], how.resize)
  resized = photo.resize((width, height), _FILTERS[how.interpolation])
  left, top = (round((n - how.crop) / 2) for n in resized.size)
  return np.asarray(
    resized.crop((left, top, left + how.crop, top + how.crop))
  )


def prepare_with_jax(
  photo: PIL.Image.Image, how: manifest.Preprocessing, levels: int | None
) -> np.ndarray:
  """Returns a photo resized and cropped in JAX, (S, S, 3) float32 in [0, 1]."""
  resized = preprocessing.resize_short_side(
    np.asarray(photo, np.float32) / np.float32(255), how.resize,
    interpolation=how.interpolation, levels=levels,
  )
  return np.asarray(preprocessing.centre_crop(resized, how.crop))


def _compare_photos(log, networks, photos, labels, torch, batch_size):
  table: dict[str, dict[str, float]] = {}
  changed: dict[str, dict[str, float]] = {}
  prepared: dict[Any, Any] = {}
  for name in networks:
    path = manifest.find_pretrained(name)
    if path is None:
      log(f'left out: {manifest.find(name).filename} is not on this machine')
      continue
    log(f'{name}: {len(photos)} photos')
    entry = manifest.find(name)
    how = entry.preprocessing
    key = (how.resize, how.crop, how.interpolation)
    if key not in prepared:
      prepared[key] = _prepared(photos, how)
    images, others = prepared[key]
    arrays = convert.read_state_dict(path)
    network = _network(entry, arrays)
    answer = _make_answer(network, entry, batch_size)
    ours = answer(images)
    _add(table, name, _scores(ours, labels))
    if torch is not None:
      theirs = torch.logits(
        torch.load(entry.architecture, arrays, padding=how.padding),
        np.asarray(how.normalise(images)), batch_size=batch_size,
      )
      plain = _make_answer(network, entry, batch_size, fold=False)(images)
      _add(table, name, _differences(ours, theirs, plain))
      _add(table, name, {
        f'{n}_torch': x for n, x in _scores(theirs, labels).items()
        if n != 'images'
      })
    for form, other in others.items():
      answers = answer(other)
      row = f'{name}, {form}'
      _add(changed, row, {
        'predictions_changed': int((_top(answers) != _top(ours)).sum()),
        'top1': _scores(answers, labels)['top1'],
        'top5': _scores(answers, labels)['top5'],
        'logit_change': float(np.abs(answers - ours).max()),
      })
  pixels = {} if not prepared else _pixel_differences(prepared)
  return {
    'photos': table, 'preprocessing in JAX, pixels': pixels,
    'preprocessing in JAX, predictions': changed,
  }


def _prepared(photos, how):
  images = np.stack([prepare_with_pil(photo, how) for photo in photos])
  others = {
    form: np.stack([prepare_with_jax(photo, how, levels) for photo in photos])
    for form, levels in _FORMS.items()
  }
  return images.astype(np.float32) / np.float32(255), others


def _pixel_differences(prepared):
  """Returns differences to PIL in levels of 255, by preset and form."""
  table: dict[str, dict[str, float]] = {}
  for (resize, crop, interpolation), (images, others) in prepared.items():
    for form, other in others.items():
      difference = 255 * np.abs(other - images)
      _add(table, f'{interpolation} {resize}, crop {crop}, {form}', {
        'largest_difference': float(difference.max()),
        'mean_difference': float(difference.mean()),
        'pixels_off_by_half_a_level': float((difference > 0.5).mean()),
      })
  return table


def _compare_cifar(log, number, torch, batch_size):
  path = manifest.find_pretrained(_LENET)
  folder = roots.find(None, cifar10.FOLDER)
  if path is None or folder is None:
    log('left out: exact CIFAR-10 images or cifar_net.pth')
    return {}
  entry = manifest.find(_LENET)
  test = cifar10.load_cifar10(
    jax.random.key(0), root=folder, validation_fraction=0.0
  ).test
  images, labels = test.images[:number], test.labels[:number]
  arrays = convert.read_state_dict(path)
  network = _network(entry, arrays)
  ours = _make_answer(network, entry, batch_size)(images)
  table: dict[str, dict[str, float]] = {}
  _add(table, _LENET, _scores(ours, labels))
  if torch is not None:
    normalised = np.asarray(entry.preprocessing.normalise(images))
    theirs = torch.logits(
      torch.lenet(arrays), normalised, batch_size=batch_size
    )
    plain = _make_answer(network, entry, batch_size, fold=False)(images)
    _add(table, _LENET, _differences(ours, theirs, plain))
    _add(table, _LENET, {'top1_torch': _scores(theirs, labels)['top1']})
  return {'exact CIFAR-10 test images': table}


def _network(entry: manifest.PublicWeights, arrays) -> nnx.Module:
  blank = nnx.eval_shape(lambda: registry.create(
    entry.architecture, jax.random.key(0), entry.num_classes,
    **_padding(entry),
  ))
  return convert.load(entry.architecture, blank, arrays).model


def _padding(entry):
  # Not every network has the option.
  padding = entry.preprocessing.padding
  return {} if padding == 'torch' else {'padding': padding}


def _make_answer(
  network: nnx.Module,
  entry: manifest.PublicWeights,
  batch_size: int,
  *,
  fold: bool = True,
) -> Callable[[np.ndarray], np.ndarray]:
  """Returns a function from images (B, S, S, 3) in [0, 1] to logits (B, K)."""
  shape = (*(entry.preprocessing.crop,) * 2, 3)
  if fold:
    network = inference.prepare(network, shape)
  forward = jax.jit(
    lambda network, batch: network(entry.preprocessing.normalise(batch))
  )

  def answer(images: np.ndarray) -> np.ndarray:
    number = -(-len(images) // batch_size) * batch_size
    padded = np.resize(images, (number, *shape))
    logits = [
      np.asarray(forward(network, padded[i : i + batch_size]))
      for i in range(0, number, batch_size)
    ]
    return np.concatenate(logits)[: len(images)]

  return answer


def _scores(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
  order = np.argsort(-logits, 1, kind='stable')
  hits = order == labels[:, None]
  return {
    'images': len(labels),
    'top1': float(hits[:, :1].any(1).mean()),
    'top5': float(hits[:, :5].any(1).mean()),
  }


def _differences(ours, theirs, plain) -> dict[str, float]:
  return {
    'same_prediction': int((_top(ours) == _top(theirs)).sum()),
    'logit_difference': float(np.abs(ours - theirs).max()),
    'logit_difference_unfolded': float(np.abs(plain - theirs).max()),
    'largest_logit': float(np.abs(theirs).max()),
  }


def _top(logits: np.ndarray) -> np.ndarray:
  return np.argmax(logits, 1)


def _add(table: dict, row: str, measures: dict[str, float]) -> None:
  for measure, value in measures.items():
    table.setdefault(measure, {})[row] = value
