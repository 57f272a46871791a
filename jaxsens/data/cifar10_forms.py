"""CIFAR-10 in the forms that it is handed around in, each read to one `Pool`.

  exact   cifar10_exact_*.npz, pixels: see `read_exact`
  jpeg    cifar10_jpeg*.npz, the images as JPEG bytes: lossy
  python  data_batch_1 .. data_batch_5 and test_batch, pickles
  binary  data_batch_1.bin .. data_batch_5.bin and test_batch.bin
  tfds    a data folder of tensorflow-datasets; TensorFlow is not needed

The pickles are read by `restricted_pickle`, so that a file from anywhere can
be opened.

References:
  Krizhevsky, Learning multiple layers of features from tiny images, 2009.
  https://www.cs.toronto.edu/~kriz/cifar.html, "Dataset layout".
"""

from collections.abc import Mapping
import dataclasses
import io
import pathlib
import zipfile

import numpy as np
from PIL import Image

from jaxsens.data import restricted_pickle

CLASS_NAMES = (
  'airplane', 'automobile', 'bird', 'cat', 'deer', 'dog', 'frog', 'horse',
  'ship', 'truck',
)  # fmt: skip
EXACT_FILE = 'cifar10_exact_6102.npz'
JPEG_FILE = 'cifar10_jpeg75_15000train_10000test.npz'
BATCHES = tuple(f'data_batch_{i}' for i in range(1, 6))
TEST_BATCH = 'test_batch'
PYTHON_FOLDER = 'cifar-10-batches-py'
BINARY_FOLDER = 'cifar-10-batches-bin'

_EXACT_SHAPES = {
  'images': (32, 32, 3), 'labels': (), 'split': (), 'batch': (),
  'index_in_batch': (),
}  # fmt: skip
_JPEG_FIELDS = (
  'jpeg_bytes', 'offsets', 'labels', 'split', 'dataset_index', 'class_names'
)
_PIXELS = 32 * 32 * 3
_TFDS_HINT = (
  'pip install tensorflow-datasets array_record importlib_resources '
  '(TensorFlow is not needed to read)'
)


@dataclasses.dataclass(frozen=True, eq=False)
class Pool:
  """Images of one form, in its order.

  Attributes:
    images: uint8 (N, 32, 32, 3).
    labels: int32 (N,), in [0, 10).
    split: 'train' or 'test' of each, (N,).
    names: of the images, unique.
    kind: what the pixels are, in a word, for descriptions.
  """

  images: np.ndarray
  labels: np.ndarray
  split: np.ndarray
  names: tuple[str, ...]
  kind: str


def read_exact(path: pathlib.Path) -> Pool:
  """Reads exact pixels from one .npz file.

  It has the arrays images (N, 32, 32, 3) uint8, labels (N,), split (N,),
  batch (N,), the number of the training batch that an image is from,
  index_in_batch (N,) and class_names (10,).

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file is damaged or has other arrays.
  """
  arrays = _read_npz(path, (*_EXACT_SHAPES, 'class_names'))
  num_images = len(arrays['labels'])
  for name, shape in _EXACT_SHAPES.items():
    if arrays[name].shape != (num_images, *shape):
      raise ValueError(
        f'{path}: {name} must have shape {(num_images, *shape)}, got '
        f'{arrays[name].shape}.'
      )
  if arrays['images'].dtype != np.uint8:
    raise ValueError(
      f'{path}: images must be uint8, got {arrays["images"].dtype}.'
    )
  fields = (arrays[name] for name in ('split', 'batch', 'index_in_batch'))
  names = tuple(f'{s}-{b}-{i:05d}' for s, b, i in zip(*fields, strict=True))
  labels = _labels(path, arrays['labels'])
  return Pool(arrays['images'], labels, arrays['split'], names, 'exact')


def read_jpeg(path: pathlib.Path) -> Pool:
  """Reads images kept as JPEG bytes in one .npz file.

  It has the arrays jpeg_bytes uint8, offsets (N + 1,) of the images in them,
  labels (N,), split (N,), dataset_index (N,), the position in the split, and
  class_names (10,).

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file is damaged or has other arrays, or an image cannot be
      decoded; the message names it.
  """
  arrays = _read_npz(path, _JPEG_FIELDS)
  offsets, content = arrays['offsets'], arrays['jpeg_bytes']
  num_images = len(arrays['labels'])
  if (
    offsets.shape != (num_images + 1,) or (np.diff(offsets) < 0).any()
    or offsets[0] != 0 or offsets[-1] != content.size
  ):
    raise ValueError(
      f'{path}: offsets must rise from 0 to {content.size} in {num_images + 1} '
      'steps.'
    )
  fields = (arrays[name] for name in ('split', 'dataset_index'))
  names = tuple(f'{s}-{i:05d}' for s, i in zip(*fields, strict=True))
  images = np.empty((num_images, 32, 32, 3), np.uint8)
  for i, name in enumerate(names):
    encoded = content[offsets[i]:offsets[i + 1]].tobytes()
    try:
      with Image.open(io.BytesIO(encoded)) as image:
        images[i] = np.asarray(image)
    except (OSError, SyntaxError, ValueError) as error:
      raise ValueError(
        f'{path}: the image {name} is unreadable ({error}).'
      ) from error
  labels = _labels(path, arrays['labels'])
  return Pool(images, labels, arrays['split'], names, 'JPEG-compressed')


def read_python(folder: pathlib.Path) -> Pool:
  """Reads the six pickles of the version for Python.

  Raises:
    FileNotFoundError: batches are absent, all of them named.
    ValueError: a batch is damaged, asks for anything but arrays, or has other
      fields.
  """
  return _join_batches(folder, '', _read_python_batch)


def read_binary(folder: pathlib.Path) -> Pool:
  """Reads the six files of the binary version.

  Raises:
    FileNotFoundError: batches are absent, all of them named.
    ValueError: the length of a batch is no multiple of 3073 bytes, or a label
      is out of range.
  """
  return _join_batches(folder, '.bin', _read_binary_batch)


def read_tfds(folder: pathlib.Path | None) -> Pool:
  """Reads what tensorflow-datasets has prepared, without TensorFlow.

  Nothing is downloaded: the data set has to be prepared, in the format
  array_record, by `tfds build cifar10 --file_format=array_record`, which, other
  than reading, needs TensorFlow; the folder can be copied from elsewhere.

  Args:
    folder: its data_dir, None for its own default.

  Raises:
    ModuleNotFoundError: the package is absent; the message says what to
      install.
    FileNotFoundError: the data set is not prepared there.
  """
  try:
    import tensorflow_datasets as tfds
  except ImportError as error:
    raise ModuleNotFoundError(
      f'CIFAR-10 through tensorflow-datasets needs {_TFDS_HINT}: {error}.'
    ) from error
  images, labels, split, names = [], [], [], []
  for part in ('train', 'test'):
    for row in _tfds_source(tfds, folder, part):
      name = row.get('id', b'')
      name = name.decode() if isinstance(name, bytes) else name
      images.append(np.asarray(row['image'], np.uint8))
      labels.append(int(row['label']))
      split.append(part)
      names.append(name or f'{part}_{len(names):05d}')
  return Pool(
    np.stack(images), np.array(labels, np.int32), np.array(split),
    tuple(names), 'exact',
  )


def _tfds_source(tfds, folder, part):
  try:
    return tfds.data_source(
      'cifar10', split=part, download=False,
      data_dir=None if folder is None else str(folder),
    )
  except ImportError as error:
    raise ModuleNotFoundError(
      f'CIFAR-10 through tensorflow-datasets needs {_TFDS_HINT}: {error}.'
    ) from error
  except Exception as error:  # it raises whatever its back end does
    raise FileNotFoundError(
      f'{folder or "the default data_dir"}: no CIFAR-10 prepared by '
      'tensorflow-datasets in the format array_record; prepare it once by '
      '`tfds build cifar10 --file_format=array_record --data_dir=DIR`, '
      'which needs TensorFlow '
      f'({type(error).__name__}: {error}).'
    ) from error


def _read_npz(path: pathlib.Path, fields) -> Mapping[str, np.ndarray]:
  if not path.is_file():
    raise FileNotFoundError(f'{path}: no such file of CIFAR-10 images.')
  try:
    with np.load(path, allow_pickle=False) as archive:
      arrays = {name: archive[name] for name in archive.files}
  except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
    raise ValueError(f'{path}: not a readable .npz file: {error}') from error
  absent = sorted(set(fields) - set(arrays))
  if absent:
    raise ValueError(f'{path}: the arrays {absent} are absent.')
  names = tuple(map(str, arrays['class_names']))
  if names != CLASS_NAMES:
    raise ValueError(f'{path}: class_names must be {CLASS_NAMES}, got {names}.')
  return arrays


def _join_batches(folder, suffix, read) -> Pool:
  paths = [folder / f'{name}{suffix}' for name in (*BATCHES, TEST_BATCH)]
  absent = [path.name for path in paths if not path.is_file()]
  if absent:
    raise FileNotFoundError(f'{folder}: the batches {absent} are absent.')
  parts = [read(path) for path in paths]
  counts = [len(labels) for _, labels in parts]
  names = [
    f'test-0-{i:05d}' if path is paths[-1] else f'train-{b + 1}-{i:05d}'
    for b, path in enumerate(paths) for i in range(counts[b])
  ]
  return Pool(
    images=np.concatenate([images for images, _ in parts]),
    labels=np.concatenate([labels for _, labels in parts]),
    split=np.repeat(['train'] * len(BATCHES) + ['test'], counts),
    names=tuple(names),
    kind='exact',
  )


def _read_python_batch(path):
  content = restricted_pickle.read(path)
  if not isinstance(content, dict):
    raise ValueError(f'{path}: expected a dict, got {type(content).__name__}.')
  # Python 2 wrote the names as bytes, Python 3 writes them as text.
  fields = {
    k.decode('latin1') if isinstance(k, bytes) else k: v
    for k, v in content.items()
  }
  absent = sorted({'data', 'labels'} - set(fields))
  if absent:
    raise ValueError(f'{path}: the fields {absent} are absent.')
  labels = _labels(path, fields['labels'])
  data = fields['data']
  expected = (len(labels), _PIXELS)
  if getattr(data, 'shape', None) != expected or data.dtype != np.uint8:
    raise ValueError(
      f'{path}: data must be uint8 of shape {expected}, got '
      f'{getattr(data, "dtype", type(data).__name__)} of '
      f'{getattr(data, "shape", "no shape")}.'
    )
  return _from_planes(data), labels


def _read_binary_batch(path):
  content = np.frombuffer(path.read_bytes(), np.uint8)
  if not content.size or content.size % (_PIXELS + 1):
    raise ValueError(
      f'{path}: the length must be a multiple of {_PIXELS + 1} bytes, a label '
      f'and the pixels of an image, got {content.size}: truncated?'
    )
  rows = content.reshape(-1, _PIXELS + 1)
  return _from_planes(rows[:, 1:]), _labels(path, rows[:, 0])


def _from_planes(rows):
  """Returns images of rows of a red, a green and a blue plane."""
  planes = rows.reshape(-1, 3, 32, 32)
  return np.ascontiguousarray(planes.transpose(0, 2, 3, 1))


def _labels(path, labels):
  labels = np.asarray(labels)
  if labels.ndim != 1 or labels.dtype.kind not in 'iu':
    raise ValueError(f'{path}: labels must be a row of integers.')
  for i in np.flatnonzero((labels < 0) | (labels >= len(CLASS_NAMES)))[:1]:
    raise ValueError(
      f'{path}: label {labels[i]} at {i} is out of range, expected an integer '
      f'in [0, {len(CLASS_NAMES)}).'
    )
  return labels.astype(np.int32)
