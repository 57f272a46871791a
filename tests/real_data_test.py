"""The sources of published data sets: their files, splits and errors."""

import os
import pathlib

import jax
import numpy as np
from PIL import Image
import pytest

from jaxsens.data import cifar10
from jaxsens.data import roots
from jaxsens.data import separation
from jaxsens.data import sources
from jaxsens.data import steel

SHARED = pathlib.Path(os.environ.get('JAXSENS_SHARED', '../shared'))
CIFAR = SHARED / 'data' / 'cifar10'
STEEL = SHARED / 'data' / 'neu_det'
KEY = jax.random.key(0)
PARTS = ('train', 'validation', 'test')
FRACTIONS = {'validation_fraction': 0.2, 'test_fraction': 0.2}


@pytest.fixture(autouse=True)
def nothing_shared(monkeypatch, tmp_path):
  monkeypatch.delenv('JAXSENS_DATA', raising=False)
  monkeypatch.setenv('JAXSENS_SHARED', str(tmp_path / 'shared'))


def _write_cifar(folder, num_train=40, **changes):
  """Writes a small file of the same arrays; returns its folder."""
  rng = np.random.default_rng(0)
  size = num_train + 10
  arrays = {
    'images': rng.integers(0, 256, (size, 32, 32, 3), np.uint8),
    'labels': (np.arange(size) % 10).astype(np.uint8),
    'split': np.array(['train'] * num_train + ['test'] * 10),
    'batch': np.array([1] * num_train + [0] * 10, np.uint8),
    'index_in_batch': np.arange(size, dtype=np.uint16),
    'class_names': np.array(cifar10.CLASS_NAMES),
  }
  folder.mkdir(parents=True, exist_ok=True)
  arrays = {n: x for n, x in (arrays | changes).items() if x is not None}
  np.savez(folder / cifar10.FILE, **arrays)
  return folder


def _cifar(root, fraction=0.25):
  return sources.load(
    'cifar10', KEY, root=root, validation_fraction=fraction
  )


def _write_steel(folder, num_per_class=10, mode='RGB'):
  """Writes small images; `patches_2` is a copy of `patches_1`."""
  rng = np.random.default_rng(0)
  for name in steel.CLASS_NAMES:
    for k in range(1, num_per_class + 1):
      part = 'IMAGES' if k > 2 else 'Validation_Images'
      (folder / part).mkdir(parents=True, exist_ok=True)
      pixels = rng.integers(0, 256, (8, 8), np.uint8)
      path = folder / part / f'{name}_{k}.jpg'
      Image.fromarray(pixels).convert(mode).save(path)
  copies = folder / 'Validation_Images'
  (copies / 'patches_2.jpg').write_bytes(
    (copies / 'patches_1.jpg').read_bytes()
  )
  return folder


def test_cifar_images_are_exact_and_keep_their_order(tmp_path):
  root = _write_cifar(tmp_path)
  test = _cifar(root).test
  with np.load(root / cifar10.FILE) as arrays:
    expected = arrays['images'][40:]
  assert test.images.dtype == np.float32
  np.testing.assert_array_equal(np.round(test.images * 255), expected)
  assert test.images.max() <= 1
  np.testing.assert_array_equal(test.labels, np.arange(10))
  assert test.class_names == cifar10.CLASS_NAMES
  assert test.names[0] == 'test-0-00040'


def test_cifar_validation_is_a_stratified_part_of_training(tmp_path):
  splits = _cifar(_write_cifar(tmp_path))
  np.testing.assert_array_equal(np.bincount(splits.validation.labels), 1)
  np.testing.assert_array_equal(np.bincount(splits.train.labels), 3)
  names = [set(getattr(splits, part).names) for part in PARTS]
  assert len(set.union(*names)) == 50
  assert not len(_cifar(tmp_path, fraction=0.0).validation)


@pytest.mark.parametrize('changes, message', [
  ({'labels': None}, "'labels'.* are absent"),
  ({'images': np.zeros((50, 3, 32, 32), np.uint8)}, r'\(50, 3, 32, 32\)'),
  ({'images': np.zeros((50, 32, 32, 3))}, 'must be uint8, got float64'),
  ({'class_names': np.array(list('abcdefghij'))}, 'class_names must be'),
  ({'split': np.array(['train'] * 50)}, "no image of the split 'test'"),
])
def test_cifar_file_of_other_arrays_is_refused(tmp_path, changes, message):
  with pytest.raises(ValueError, match=message):
    _cifar(_write_cifar(tmp_path, **changes))


def test_damaged_and_absent_cifar_files_are_named(tmp_path):
  (tmp_path / cifar10.FILE).write_bytes(b'PK\x03\x04 cut')
  with pytest.raises(ValueError, match='not a readable .npz'):
    _cifar(tmp_path)
  (tmp_path / cifar10.FILE).unlink()
  with pytest.raises(FileNotFoundError, match=cifar10.FILE):
    _cifar(tmp_path)


@pytest.mark.skipif(not CIFAR.is_dir(), reason=f'no images at {CIFAR}')
def test_shared_cifar_file_has_its_published_numbers():
  splits = _cifar(CIFAR, fraction=0.0)
  assert (len(splits.train), len(splits.test)) == (5085, 1017)
  # The first test images of CIFAR-10: cat, ship, ship, airplane, frog.
  np.testing.assert_array_equal(splits.test.labels[:5], [3, 8, 8, 0, 6])


def test_steel_is_split_by_class_and_keeps_duplicates_together(tmp_path):
  root = _write_steel(tmp_path)
  for seed in range(20):
    splits = sources.load('steel', jax.random.key(seed), root=root, **FRACTIONS)
    parts = [getattr(splits, part) for part in PARTS]
    names = [set(part.names) for part in parts]
    assert len(set.union(*names)) == sum(map(len, names)) == 60
    assert any({'patches_1', 'patches_2'} <= part for part in names)
    counts = np.array([np.bincount(part.labels) for part in parts])
    # Only the class of the pair may be off by one.
    np.testing.assert_array_equal(
      np.delete(counts, 2, 1), [[6] * 5, [2] * 5, [2] * 5]
    )
    assert np.abs(counts[:, 2] - [6, 2, 2]).max() <= 1


def test_steel_split_is_a_function_of_the_key(tmp_path):
  root = _write_steel(tmp_path)
  names = [
    sources.load('steel', jax.random.key(k), root=root, **FRACTIONS).test.names
    for k in (0, 0, 1)
  ]
  assert names[0] == names[1] != names[2]


def test_steel_images_are_gray_and_named_by_class(tmp_path):
  splits = sources.load('steel', KEY, root=_write_steel(tmp_path), **FRACTIONS)
  image = splits.train.images[0]
  path = splits.train.images.paths[0]
  expected = np.asarray(Image.open(path))[..., :1] / 255
  np.testing.assert_allclose(image, expected, atol=1e-6)
  for name, label in zip(splits.train.names, splits.train.labels, strict=True):
    assert name.startswith(steel.CLASS_NAMES[label])


def test_bad_steel_folders_are_refused(tmp_path):
  load = lambda root, **changes: sources.load(
    'steel', KEY, root=root, **(FRACTIONS | changes)
  )
  with pytest.raises(FileNotFoundError, match="no data set 'neu_det'"):
    load(None)
  with pytest.raises(FileNotFoundError, match='no folder'):
    load(tmp_path / 'absent')
  with pytest.raises(ValueError, match='no .jpg files below IMAGES'):
    load(tmp_path)
  root = _write_steel(tmp_path)
  with pytest.raises(ValueError, match=r'sum below 1, got \(0.5, 0.5\)'):
    load(root, validation_fraction=0.5, test_fraction=0.5)
  coloured = np.zeros((8, 8, 3), np.uint8)
  coloured[..., 0] = 200
  Image.fromarray(coloured).save(root / 'IMAGES' / 'crazing_3.jpg')
  paths = (root / 'IMAGES' / 'crazing_3.jpg',)
  with pytest.raises(ValueError, match='crazing_3.jpg: the image is not gray'):
    steel.GrayImages(paths)[0]
  (root / 'IMAGES' / 'dent_1.jpg').write_bytes(b'')
  with pytest.raises(ValueError, match='begins with no class'):
    load(root)


@pytest.mark.skipif(not STEEL.is_dir(), reason=f'no images at {STEEL}')
def test_shared_steel_images_are_complete_and_their_duplicate_stays_together():
  splits = sources.load(
    'steel', KEY, root=STEEL, validation_fraction=0.15, test_fraction=0.15
  )
  parts = [getattr(splits, part) for part in PARTS]
  assert [len(part) for part in parts] == [1260, 270, 270]
  for part in parts:
    assert ('patches_101' in part.names) == ('patches_105' in part.names)
  assert splits.train.images[0].shape == (200, 200, 1)


def test_folders_are_found_in_the_order_given_own_shared(tmp_path, monkeypatch):
  assert roots.find(None, 'cifar10') is None
  shared = tmp_path / 'shared' / 'data' / 'cifar10'
  shared.mkdir(parents=True)
  assert roots.find('', 'cifar10') == shared
  own = tmp_path / 'own' / 'cifar10'
  own.mkdir(parents=True)
  monkeypatch.setenv('JAXSENS_DATA', str(tmp_path / 'own'))
  assert sources.find('cifar10').find_root(None) == own
  assert roots.find('elsewhere', 'cifar10') == pathlib.Path('elsewhere')


def test_stratify_refuses_bad_fractions_and_mixed_recordings():
  with pytest.raises(ValueError, match='sum below 1'):
    separation.stratify(KEY, [0, 1], ['a', 'b'], (0.5, 0.5))
  with pytest.raises(ValueError, match="recording 'a' has images of several"):
    separation.stratify(KEY, [0, 1], ['a', 'a'], (0.5,))


def test_unreadable_steel_image_raises_or_is_skipped_and_named(tmp_path):
  root = _write_steel(tmp_path)
  (root / 'IMAGES' / 'crazing_3.jpg').write_bytes(b'cut')
  load = lambda **options: sources.load(
    'steel', KEY, root=root, **FRACTIONS, **options
  )
  with pytest.raises(ValueError, match='crazing_3.jpg: the image is unread'):
    for part in PARTS:
      list(getattr(load(), part))
  splits = load(skip_unreadable=True)
  assert sum(len(list(getattr(splits, part))) for part in PARTS) == 59
  assert '1 unreadable image skipped: crazing_3.jpg' in splits.test.description
