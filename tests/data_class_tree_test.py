"""Tests of trees of class folders, of the filter labels and of NEU-Seg."""

import os
import pathlib

import jax
import numpy as np
from PIL import Image
import pytest

from jaxsens.data import class_tree
from jaxsens.data import sources

KEY = jax.random.key(0)
SHARES = {'validation_fraction': 0.25, 'test_fraction': 0.25}
SEG = pathlib.Path(os.environ.get('JAXSENS_SHARED', '../shared')) / (
  'data/neu_seg'
)


def write(path, seed, mode='L'):
  path.parent.mkdir(parents=True, exist_ok=True)
  pixels = np.random.default_rng(seed).integers(0, 256, (6, 8), np.uint8)
  Image.fromarray(pixels).convert(mode).save(path)


def write_tree(root, classes=('b', 'a', 'c'), parts=('',), number=4, **options):
  seed = 0
  for part in parts:
    for name in classes:
      for i in range(number):
        seed += 1
        write(root / part / name / f'{i}.{options.get("kind", "png")}', seed,
              options.get('mode', 'L'))
  return root


def load(root, **changes):
  return sources.load(
    'folder', KEY, root=root, **({'channels': 1} | SHARES | changes)
  )


def all_parts(splits):
  return splits.train, splits.validation, splits.test


def test_classes_are_sorted_whatever_the_file_system_says(
  tmp_path, monkeypatch
):
  write_tree(tmp_path)
  known = pathlib.Path.iterdir
  monkeypatch.setattr(
    pathlib.Path, 'iterdir',
    lambda self: iter(sorted(known(self), reverse=True)),
  )
  splits = load(tmp_path)
  assert splits.train.class_names == ('a', 'b', 'c')
  for part in all_parts(splits):
    for name, label in zip(part.names, part.labels, strict=True):
      assert name.split('/')[0] == 'abc'[label]
  assert sources.find('folder').classes({'root': tmp_path}) == ('a', 'b', 'c')


def test_tree_without_parts_is_split_by_class(tmp_path):
  splits = load(write_tree(tmp_path))
  counts = [np.bincount(part.labels) for part in all_parts(splits)]
  np.testing.assert_array_equal(counts, [[2] * 3, [1] * 3, [1] * 3])
  names = [name for part in all_parts(splits) for name in part.names]
  assert len(set(names)) == 12


@pytest.mark.parametrize('spelling', ['val', 'Valid', 'validation'])
def test_own_parts_of_a_tree_are_kept(tmp_path, spelling):
  splits = load(write_tree(tmp_path, parts=('train', spelling, 'test')))
  assert [len(part) for part in all_parts(splits)] == [12, 12, 12]
  assert splits.validation.names[0] == f'{spelling}/a/0.png'


def test_parts_that_a_tree_lacks_are_taken_from_training(tmp_path):
  splits = load(write_tree(tmp_path, parts=('train', 'test')))
  assert [len(part) for part in all_parts(splits)] == [9, 3, 12]
  assert all(name.startswith('test/') for name in splits.test.names)


def test_copies_and_folders_below_a_class_stay_together(tmp_path):
  write_tree(tmp_path, classes='ab', number=8)
  write(tmp_path / 'a' / 'copy.png', 1)  # of b's first
  for i in range(4):
    write(tmp_path / 'b' / 'clip' / f'{i}.png', 100 + i)
  for seed in range(6):
    splits = sources.load(
      'folder', jax.random.key(seed), root=tmp_path, channels=1, **SHARES
    )
    homes = {
      name: p for p, part in enumerate(all_parts(splits))
      for name in part.names
    }
    assert len(homes) == 21
    assert homes['a/copy.png'] == homes['a/0.png']
    assert len({homes[f'b/clip/{i}.png'] for i in range(4)}) == 1


def test_what_is_no_class_is_passed_over_or_refused(tmp_path):
  write_tree(tmp_path)
  (tmp_path / '.cache').mkdir()
  (tmp_path / '__MACOSX').mkdir()
  (tmp_path / 'a' / 'notes.txt').write_text('no image')
  write(tmp_path / 'a' / '._0.png', 9)
  assert sum(map(len, all_parts(load(tmp_path)))) == 12
  write(tmp_path / 'loose.png', 10)
  with pytest.raises(ValueError, match='1 images lie outside of class folders'):
    load(tmp_path)


def test_bad_trees_are_refused(tmp_path):
  with pytest.raises(FileNotFoundError, match='no folder: give its root'):
    load(None)
  with pytest.raises(FileNotFoundError, match='absent: the data root'):
    load(tmp_path / 'absent')
  with pytest.raises(ValueError, match='no class folders'):
    load(tmp_path)
  write_tree(tmp_path / '1')
  (tmp_path / '1' / 'd').mkdir()
  with pytest.raises(ValueError, match="the class 'd' has no images"):
    load(tmp_path / '1')
  write_tree(tmp_path / '2', parts=('train', 'test'))
  write(tmp_path / '2' / 'test' / 'z' / '0.png', 0)
  with pytest.raises(ValueError, match=r"test: the folders \['z'\] are no"):
    load(tmp_path / '2')
  write_tree(tmp_path / '3', parts=('test',))
  with pytest.raises(ValueError, match='no train folder'):
    load(tmp_path / '3')
  write_tree(tmp_path / '4', parts=('train', 'val', 'valid'))
  with pytest.raises(ValueError, match='val and valid are the same part'):
    load(tmp_path / '4')
  write_tree(tmp_path / '5', parts=('train',))
  write(tmp_path / '5' / 'extra' / '0.png', 0)
  with pytest.raises(ValueError, match=r"\['extra'\] lie beside"):
    load(tmp_path / '5')
  with pytest.raises(ValueError, match=r'sum below 1, got \(0.6, 0.4\)'):
    load(tmp_path / '1', validation_fraction=0.6, test_fraction=0.4)


def test_corrupt_image_in_the_middle_is_named_or_skipped(tmp_path):
  write_tree(tmp_path, parts=('train', 'val', 'test'))
  path = tmp_path / 'train' / 'b' / '2.png'
  path.write_bytes(path.read_bytes()[:60])
  train = load(tmp_path).train
  with pytest.raises(ValueError, match=r'train/b/2\.png: .*truncated'):
    list(train)
  skipped = load(tmp_path, skip_unreadable=True).train
  assert len(list(skipped)) == 11 and 'train/b/2.png' not in skipped.names
  assert '1 unreadable image skipped: train/b/2.png' in skipped.description
  for i in range(4):
    (tmp_path / 'train' / 'b' / f'{i}.png').write_bytes(b'')
  with pytest.raises(ValueError, match="class 'b' has no readable images"):
    load(tmp_path, skip_unreadable=True)


def test_filter_labels_have_their_classes_in_order(tmp_path):
  assert class_tree.FILTER_LABELS == tuple(sorted(class_tree.FILTER_LABELS))
  write_tree(
    tmp_path, classes=class_tree.FILTER_LABELS, kind='bmp', mode='RGB',
    parts=('train', 'val', 'test'),
  )
  splits = sources.load('filter_labels', KEY, root=tmp_path, **SHARES)
  assert splits.train.class_names == class_tree.FILTER_LABELS
  assert splits.train.images[0].shape == (6, 8, 3)
  np.testing.assert_array_equal(np.bincount(splits.test.labels), [4] * 4)
  for path in (tmp_path / 'train' / 'no_fail').iterdir():
    path.unlink()
  with pytest.raises(ValueError, match="'no_fail' has no images"):
    sources.load('filter_labels', KEY, root=tmp_path, **SHARES)
  (tmp_path / 'train' / 'no_fail').rmdir()
  with pytest.raises(ValueError, match=r"\['no_fail'\] are absent"):
    sources.load('filter_labels', KEY, root=tmp_path, **SHARES)


# NEU-Seg.


def write_seg(root, masks, part='val', channels=3):
  for i, mask in enumerate(masks):
    name = f'{i:06d}'
    write(root / 'img_dir' / part / f'{name}.jpg', i, 'RGB')
    folder = root / 'ann_dir' / part
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(mask, np.uint8)).save(folder / f'{name}.png')


def load_seg(root, **changes):
  options = {'validation_fraction': 0.0, 'label_policy': 'largest'}
  return sources.load('neu_seg', KEY, root=root, **(options | changes))


def test_masks_of_neu_seg_follow_their_images_and_give_the_labels(tmp_path):
  masks = np.zeros((3, 6, 8), np.uint8)
  masks[0, 0, :3] = 2
  masks[1, 1, :2], masks[1, 2, :5] = 1, 3
  masks[2, 3, 0] = 1
  write_seg(tmp_path, masks)
  write_seg(tmp_path, masks[:1], part='test')
  splits = load_seg(tmp_path)
  assert splits.train.names == ('val/000000', 'val/000001', 'val/000002')
  np.testing.assert_array_equal(splits.train.labels, [1, 2, 0])
  np.testing.assert_array_equal(
    splits.train.parameters['areas'], [[0, 3, 0], [2, 0, 5], [1, 0, 0]]
  )
  for mask, expected in zip(splits.train.masks, masks, strict=True):
    for m in range(3):
      np.testing.assert_array_equal(mask[..., m], expected == m + 1)
  taken = splits.train.take([1])
  assert taken.masks[0][2, 0].tolist() == [False, False, True]
  assert load_seg(tmp_path, label_policy='single').train.names == (
    'val/000000', 'val/000002'
  )


def test_bad_folders_of_neu_seg_are_refused(tmp_path):
  with pytest.raises(FileNotFoundError, match='img_dir: no folder'):
    load_seg(tmp_path)
  masks = np.ones((2, 6, 8), np.uint8)
  write_seg(tmp_path, masks)
  with pytest.raises(FileNotFoundError, match='test: no folder of test'):
    load_seg(tmp_path)
  write_seg(tmp_path, masks[:1], part='test')
  write_seg(tmp_path, [masks[0], 4 * masks[0]])
  with pytest.raises(ValueError, match=r'000001\.png: .*numbers in \[0, 3\]'):
    load_seg(tmp_path)
  write_seg(tmp_path, [masks[0], 0 * masks[0]])
  with pytest.raises(ValueError, match=r'000001\.png: the mask marks no'):
    load_seg(tmp_path)
  (tmp_path / 'ann_dir' / 'val' / '000001.png').unlink()
  with pytest.raises(FileNotFoundError, match=r'1 of 2 masks .*000001\.png'):
    load_seg(tmp_path)
  with pytest.raises(ValueError, match="'largest' or 'single', got 'binary'"):
    load_seg(tmp_path, label_policy='binary')


@pytest.mark.skipif(not SEG.is_dir(), reason=f'no images at {SEG}')
def test_shared_neu_seg_has_its_counted_images():
  splits = load_seg(SEG)
  # Files by `ls | wc -l`; kinds by np.unique of every mask file.
  assert (len(splits.train), len(splits.test)) == (894, 447)
  assert splits.train.masks[0].shape == (200, 200, 3)
  present = np.concatenate([
    part.parameters['areas'] > 0 for part in (splits.train, splits.test)
  ])
  kinds, counts = np.unique(present, axis=0, return_counts=True)
  assert dict(zip(map(tuple, kinds.astype(int).tolist()), counts.tolist(),
                  strict=True)) == {
    (1, 0, 0): 366, (0, 1, 0): 358, (0, 0, 1): 350, (0, 1, 1): 94,
    (1, 1, 0): 84, (1, 0, 1): 83, (1, 1, 1): 6,
  }
