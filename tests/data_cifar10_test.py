"""Tests of the forms of CIFAR-10, all of one set of images."""

import builtins
import io
import pickle
import sys
import types

import jax
import numpy as np
from PIL import Image
import pytest

from jaxsens.data import cifar10
from jaxsens.data import cifar10_forms
from jaxsens.data import sources

KEY = jax.random.key(0)
PER_BATCH = 4
NUM = 6 * PER_BATCH


@pytest.fixture(scope='module')
def truth():
  """Images (24, 32, 32, 3) and labels; the last four are the test set."""
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (NUM, 32, 32, 3), np.uint8)
  return images, rng.integers(0, 10, NUM)


def planes(images):
  """Red, then green, then blue plane of each, pixel by pixel."""
  return np.array([
    [image[y, x, c] for c in range(3) for y in range(32) for x in range(32)]
    for image in images
  ], np.uint8)


def batches(truth):
  images, labels = truth
  for b, name in enumerate((*cifar10_forms.BATCHES, 'test_batch')):
    chosen = slice(b * PER_BATCH, (b + 1) * PER_BATCH)
    yield name, planes(images[chosen]), labels[chosen]


def write_python(root, truth):
  folder = root / cifar10_forms.PYTHON_FOLDER
  folder.mkdir(parents=True)
  for name, data, labels in batches(truth):
    content = {
      b'batch_label': b'a batch', b'labels': labels.tolist(), b'data': data,
      b'filenames': [b'x.png'] * len(labels),
    }
    (folder / name).write_bytes(pickle.dumps(content, protocol=2))
  return folder


def write_binary(root, truth):
  folder = root / cifar10_forms.BINARY_FOLDER
  folder.mkdir(parents=True)
  for name, data, labels in batches(truth):
    rows = [bytes([n]) + row.tobytes() for n, row in zip(labels, data,
                                                         strict=True)]
    (folder / f'{name}.bin').write_bytes(b''.join(rows))
  return folder


def write_jpeg(root, truth, **changes):
  root.mkdir(exist_ok=True)
  encoded = []
  for image in truth[0]:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, 'JPEG', quality=75)
    encoded.append(buffer.getvalue())
  arrays = {
    'jpeg_bytes': np.frombuffer(b''.join(encoded), np.uint8),
    'offsets': np.cumsum([0, *map(len, encoded)]),
    'labels': truth[1].astype(np.uint8),
    'split': np.repeat(['train', 'test'], [NUM - PER_BATCH, PER_BATCH]),
    'dataset_index': np.r_[np.arange(NUM - PER_BATCH), np.arange(PER_BATCH)],
    'class_names': np.array(cifar10.CLASS_NAMES),
  }
  np.savez(root / cifar10_forms.JPEG_FILE, **(arrays | changes))
  return encoded


def load(root, **changes):
  options = {'validation_fraction': 0.0} | changes
  return sources.load('cifar10', KEY, root=root, **options)


@pytest.mark.parametrize(
  ('write', 'form'), [(write_python, 'python'), (write_binary, 'binary')]
)
def test_batches_give_the_exact_pixels_in_order(tmp_path, truth, write, form):
  write(tmp_path, truth)
  for splits in (load(tmp_path, form=form), load(tmp_path)):
    images = np.concatenate([splits.train.images, splits.test.images])
    np.testing.assert_array_equal(np.rint(255 * images), truth[0])
    np.testing.assert_array_equal(
      np.concatenate([splits.train.labels, splits.test.labels]), truth[1]
    )
  assert splits.train.names[4] == 'train-2-00000'
  assert splits.test.names[0] == 'test-0-00000'
  assert '4 exact test images' in splits.test.description


def test_folder_of_the_batches_itself_is_a_root(tmp_path, truth):
  folder = write_binary(tmp_path, truth)
  assert len(load(folder).train) == NUM - PER_BATCH


def test_jpeg_bytes_are_decoded_like_pillow_and_said_to_be_lossy(
  tmp_path, truth
):
  encoded = write_jpeg(tmp_path, truth)
  test = load(tmp_path, form='jpeg').test
  expected = np.asarray(Image.open(io.BytesIO(encoded[-1]))) / 255
  np.testing.assert_allclose(test.images[-1], expected, atol=1e-6)
  assert '4 JPEG-compressed test images' in test.description


def test_validation_is_taken_from_training(tmp_path, truth):
  write_binary(tmp_path, truth)
  splits = load(tmp_path, validation_fraction=0.5)
  assert not set(splits.train.names) & set(splits.validation.names)
  assert len(splits.train) + len(splits.validation) == NUM - PER_BATCH


def test_absent_batches_are_all_named(tmp_path, truth):
  folder = write_python(tmp_path, truth)
  (folder / 'data_batch_3').unlink()
  (folder / 'test_batch').unlink()
  with pytest.raises(
    FileNotFoundError, match=r"\['data_batch_3', 'test_batch'\] are absent"
  ):
    load(tmp_path)


def test_empty_folder_says_what_is_expected(tmp_path):
  with pytest.raises(FileNotFoundError, match='expected .*data_batch_1.bin'):
    load(tmp_path)
  with pytest.raises(ValueError, match="form must be 'auto' or one of"):
    load(tmp_path, form='png')


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    ([1], 'expected a dict, got list'),
    ({b'data': np.zeros((1, 3072), np.uint8)}, r"\['labels'\] are absent"),
    ({b'data': np.zeros((1, 3071), np.uint8), b'labels': [1]}, r'\(1, 3072\)'),
    ({b'data': np.zeros((1, 3072)), b'labels': [1]}, 'must be uint8'),
    ({b'data': [1], b'labels': [1]}, 'got list of no shape'),
    ({b'data': np.zeros((1, 3072), np.uint8), b'labels': [10]},
     'label 10 at 0 is out of range'),
    ({b'data': print, b'labels': [1]}, 'print, which is not admitted'),
  ],
)
def test_batch_of_other_content_is_refused(tmp_path, truth, content, message):
  folder = write_python(tmp_path, truth)
  (folder / 'data_batch_2').write_bytes(pickle.dumps(content, protocol=2))
  with pytest.raises(ValueError, match=f'data_batch_2: .*{message}'):
    load(tmp_path)


def test_cut_binary_batch_is_refused(tmp_path, truth):
  folder = write_binary(tmp_path, truth)
  path = folder / 'data_batch_4.bin'
  path.write_bytes(path.read_bytes()[:-1])
  with pytest.raises(ValueError, match='data_batch_4.bin: .*truncated'):
    load(tmp_path)


def test_damaged_jpeg_is_named_and_offsets_are_checked(tmp_path, truth):
  encoded = write_jpeg(tmp_path, truth)
  content = np.frombuffer(b''.join(encoded), np.uint8).copy()
  start = len(encoded[0])
  content[start:start + len(encoded[1])] = 7
  write_jpeg(tmp_path, truth, jpeg_bytes=content)
  with pytest.raises(ValueError, match='train-00001 is unreadable'):
    load(tmp_path)
  write_jpeg(tmp_path, truth, offsets=np.arange(NUM + 1))
  with pytest.raises(ValueError, match='offsets must rise from 0'):
    load(tmp_path)


class _Package(types.ModuleType):
  """Stands for tensorflow_datasets: what it was asked, what it gives."""

  def __init__(self, truth):
    super().__init__('tensorflow_datasets')
    self.truth, self.asked = truth, []

  def data_source(self, name, *, split, data_dir, download):
    """Rows as the package gives them: bytes, uint8 arrays, integers."""
    self.asked.append((name, split, data_dir, download))
    images, labels = self.truth
    chosen = {'train': range(20), 'test': range(20, 24)}[split]
    return [
      {'id': b'%s_%05d' % (split.encode(), i), 'image': images[i],
       'label': np.int64(labels[i])} for i in chosen
    ]


def test_tfds_rows_are_read_and_nothing_is_downloaded(
  tmp_path, truth, monkeypatch
):
  package = _Package(truth)
  monkeypatch.setitem(sys.modules, 'tensorflow_datasets', package)
  splits = load(tmp_path, form='tfds')
  images = np.concatenate([splits.train.images, splits.test.images])
  np.testing.assert_array_equal(np.rint(255 * images), truth[0])
  assert splits.test.names[0] == 'test_00020'
  assert package.asked == [
    ('cifar10', part, str(tmp_path), False) for part in ('train', 'test')
  ]
  load(None, form='tfds')
  assert package.asked[-1][2] is None


def test_tfds_that_is_absent_or_not_prepared_says_what_to_do(
  tmp_path, truth, monkeypatch
):
  package = _Package(truth)
  monkeypatch.setitem(sys.modules, 'tensorflow_datasets', package)

  def fail(*args, **options):
    raise NotImplementedError('file format TFRECORD is not supported')

  package.data_source = fail
  with pytest.raises(FileNotFoundError, match='tfds build cifar10 .*TFRECORD'):
    load(tmp_path, form='tfds')
  monkeypatch.delitem(sys.modules, 'tensorflow_datasets')
  known = builtins.__import__

  def without(name, *args, **options):
    if name.startswith('tensorflow_datasets'):
      raise ModuleNotFoundError(f'No module named {name!r}')
    return known(name, *args, **options)

  monkeypatch.setattr(builtins, '__import__', without)
  with pytest.raises(
    ModuleNotFoundError, match='pip install tensorflow-datasets array_record'
  ):
    load(tmp_path, form='tfds')
