"""Tests of the loading of weld images and of their splits."""

import collections
import json
import os
import pathlib

import jax
import numpy as np
import pytest

from jaxsens.data import folder
from jaxsens.data import image_sets
from jaxsens.data import sources
from jaxsens.data import weld
from tests.oracles import image_folders

SHARED = pathlib.Path(os.environ.get('JAXSENS_SHARED', '../shared'))
REAL = SHARED / 'data' / 'al5083'
needs_real_frames = pytest.mark.skipif(
    not REAL.is_dir(), reason=f'no real welding frames at {REAL}'
)
KEY = jax.random.key(0)
OPTIONS = {
    'size_of_synthetic': (20, 16),
    'num_synthetic_per_class': 4,
    'validation_fraction': 0.25,
}


@pytest.fixture(autouse=True)
def no_data_variable(monkeypatch):
  monkeypatch.delenv('JAXSENS_DATA', raising=False)


def load(root, **changes):
  return weld.load_weld(KEY, root=root, **(OPTIONS | changes))


# Procedural frames.


def test_without_root_all_frames_are_procedural_balanced_and_said_so():
  splits = load(None)
  for part, count in zip(
      (splits.train, splits.validation, splits.test), (18, 6, 6), strict=True
  ):
    assert len(part) == count
    assert 'procedural TIG frames (no real data found' in part.description
    np.testing.assert_array_equal(np.bincount(part.labels), [count // 6] * 6)
    assert part.images.all().shape == (count, 20, 16, 1)
    images = part.images.all()
    assert images.min() >= 0.0 and images.max() <= 1.0
    assert len(part.parameters['bead_half_width']) == count


def test_procedural_parts_are_disjoint_and_the_same_for_a_key():
  first, second = load(None), load(None)
  parts = [(s.train, s.validation, s.test) for s in (first, second)]
  for one, other in zip(*parts, strict=True):
    np.testing.assert_array_equal(one.images.all(), other.images.all())
  keys = [tuple(k) for p in parts[0] for k in p.parameters['noise_key']]
  assert len(set(keys)) == len(keys) == 30
  names = [name for part in parts[0] for name in part.names]
  assert len(set(names)) == 30


def test_description_names_the_folder_that_was_looked_for(
    tmp_path, monkeypatch
):
  monkeypatch.setenv('JAXSENS_DATA', str(tmp_path))
  assert str(tmp_path / 'al5083') in load(None).train.description


@pytest.mark.parametrize(
    ('field', 'value'),
    [
        ('size_of_synthetic', (4, 4)),
        ('num_synthetic_per_class', 1),
        ('validation_fraction', 1.0),
        ('combine_synthetic', 'sometimes'),
    ],
)
def test_argument_out_of_range_raises_by_name(field, value):
  with pytest.raises(ValueError, match=field):
    load(None, **{field: value})


def test_sources_load_by_name_and_refuse_unknown_names():
  assert len(sources.load('weld', KEY, root=None, **OPTIONS).train) == 18
  with pytest.raises(ValueError, match="unknown data source 'wled'"):
    sources.load('wled', KEY)


# The Kaggle layout.


def full_rows(num_clips=4, num_frames=4):
  return image_folders.clips({
      c: {f'{c}-clip{i}': num_frames for i in range(num_clips)}
      for c in range(6)
  })


def test_kaggle_layout_uses_its_own_test_set_and_no_procedural_frames(
    tmp_path,
):
  image_folders.write_json(tmp_path, 'train', full_rows())
  test_rows = {f'last/frame_{i}.png': i for i in (3, 1)}
  image_folders.write_json(tmp_path, 'test', test_rows)
  splits = load(tmp_path)
  assert len(splits.train) == 72 and len(splits.validation) == 24
  assert not set(splits.train.groups) & set(splits.validation.groups)
  assert splits.test.names == (
      'test/last/frame_3.png', 'test/last/frame_1.png'
  )
  np.testing.assert_array_equal(splits.test.labels, [3, 1])
  assert splits.test.groups == ('last', 'last')
  assert splits.train.parameters is None
  assert f'72 real frames from {tmp_path}' in splits.train.description
  assert 'procedural' not in splits.train.description
  assert splits.train.images[0].shape == (10, 8, 1)


def test_pool_without_a_class_is_joined_by_procedural_frames(tmp_path):
  rows = image_folders.clips({1: {'a': 4, 'b': 4, 'c': 3}, 2: {'d': 8}})
  image_folders.write_json(tmp_path, 'train', rows)
  splits = load(tmp_path)
  assert set(splits.train.labels) == set(range(6))
  assert splits.test.groups == ('c',) * 3
  assert 'c' not in splits.train.groups + splits.validation.groups
  assert 'plus 18 procedural TIG frames' in splits.train.description
  assert 'plus 6 procedural TIG frames' in splits.validation.description
  assert 'clip c held back' in splits.train.description
  assert not any('procedural' in name for name in splits.test.names)
  number = sum('procedural' not in name for name in splits.train.names)
  assert f'{number} real frames' in splits.train.description
  assert np.isnan(splits.train.parameters['noise'][:number]).all()
  assert np.isfinite(splits.train.parameters['noise'][number:]).all()


def test_combine_synthetic_overrides_what_the_data_call_for(tmp_path):
  rows = image_folders.clips({1: {'a': 4, 'b': 4, 'c': 3}})
  image_folders.write_json(tmp_path, 'train', rows)
  never = load(tmp_path, combine_synthetic='never')
  assert set(never.train.labels) == {1}
  image_folders.write_json(tmp_path, 'train', full_rows())
  always = load(tmp_path, combine_synthetic='always')
  assert 'procedural' in always.train.description


def test_held_out_groups_choose_the_clips(tmp_path):
  image_folders.write_json(tmp_path, 'train', full_rows())
  splits = load(tmp_path, held_out_groups=('2-clip1', '3-clip0'))
  assert set(splits.test.groups) == {'2-clip1', '3-clip0'}
  with pytest.raises(ValueError, match=r"held_out_groups \['9'\]"):
    load(tmp_path, held_out_groups=('9',))


def test_root_is_found_through_the_environment(tmp_path, monkeypatch):
  image_folders.write_json(tmp_path / 'al5083', 'train', full_rows())
  monkeypatch.setenv('JAXSENS_DATA', str(tmp_path))
  assert 'real frames' in load(None).train.description


def test_splits_are_the_same_for_a_key(tmp_path):
  image_folders.write_json(tmp_path, 'train', full_rows())
  assert load(tmp_path).validation.names == load(tmp_path).validation.names


# Class folders and labels.csv.


def test_class_folders_take_names_in_any_spelling_and_numbers(tmp_path):
  for name in ('good_weld', 'Burn-Through', '2', 'lack of fusion', '4', '5'):
    for i in range(8):
      image_folders.write_image(tmp_path / name / f'{i}.png')
  splits = load(tmp_path)
  parts = (splits.train, splits.validation, splits.test)
  assert sum(len(part) for part in parts) == 48
  assert len({name for part in parts for name in part.names}) == 48
  for part in parts:
    assert set(part.labels) == set(range(6))
  first = splits.train.names[list(splits.train.labels).index(1)]
  assert first.startswith('Burn-Through/')


def test_class_folders_below_train_and_test(tmp_path):
  for name in weld.CLASS_NAMES:
    for clip in 'ab':
      image_folders.write_image(tmp_path / 'train' / name / clip / '0.png')
    image_folders.write_image(tmp_path / 'test' / name / '0.png')
  splits = load(tmp_path)
  assert len(splits.test) == 6
  assert len(splits.train) + len(splits.validation) == 12
  assert 'good weld/a' in splits.train.groups + splits.validation.groups


def test_unknown_class_folder_raises(tmp_path):
  image_folders.write_image(tmp_path / 'good weld' / '0.png')
  image_folders.write_image(tmp_path / 'bad weld' / '0.png')
  with pytest.raises(ValueError, match=r"\['bad weld'\] are no classes"):
    load(tmp_path)


def test_csv_without_its_columns_raises(tmp_path):
  (tmp_path / 'labels.csv').write_text('path,class\na.png,1\n')
  with pytest.raises(ValueError, match=r"labels\.csv: expected columns 'file'"):
    load(tmp_path)


def test_csv_rows_outside_train_are_the_test_set(tmp_path):
  rows = ['train/a/0.png,1', 'train/b/0.png,1', 'train/b/1.png,1', 's/0.png,0']
  (tmp_path / 'labels.csv').write_text('file,label\n' + '\n'.join(rows))
  for row in rows:
    image_folders.write_image(tmp_path / row.split(',')[0])
  splits = load(tmp_path)
  # The only other frame of clip a follows, since clip b still shows class 1.
  assert splits.test.names == ('s/0.png', 'train/a/0.png')


def test_csv_that_lists_a_file_twice_raises(tmp_path):
  image_folders.write_image(tmp_path / 'train' / 'a.png')
  rows = 'file,label\ntrain/a.png,1\ntrain/a.png,2\n'
  (tmp_path / 'labels.csv').write_text(rows)
  with pytest.raises(ValueError, match=r'train/a\.png is listed more than'):
    load(tmp_path)


# Bad roots and lists.


def test_missing_root_raises(tmp_path):
  with pytest.raises(FileNotFoundError, match='nowhere: the data root is no'):
    load(tmp_path / 'nowhere')


def test_empty_root_raises_and_says_the_layouts(tmp_path):
  with pytest.raises(ValueError, match=r'is empty.*labels\.csv.*train\.json'):
    load(tmp_path)


def test_unknown_layout_raises_and_says_the_layouts(tmp_path):
  image_folders.write_image(tmp_path / 'pictures' / 'a.png')
  with pytest.raises(ValueError, match=r'unknown layout.*\(1\).*\(2\).*\(3\)'):
    load(tmp_path)


def test_class_folders_without_images_raise(tmp_path):
  (tmp_path / 'good weld').mkdir()
  with pytest.raises(ValueError, match='hold no image files'):
    load(tmp_path)


@pytest.mark.parametrize('text', ['{"a.png": 1', '[1, 2]', '\x00'])
def test_malformed_json_raises(tmp_path, text):
  (tmp_path / 'train').mkdir()
  (tmp_path / 'train' / 'train.json').write_text(text)
  with pytest.raises(ValueError, match=r'train\.json: .*json'):
    load(tmp_path)


def test_json_without_entries_raises(tmp_path):
  image_folders.write_json(tmp_path, 'train', {})
  with pytest.raises(ValueError, match=r'train\.json: no image is listed'):
    load(tmp_path)


def test_json_naming_absent_files_lists_the_first_and_the_count(tmp_path):
  rows = full_rows()
  path = image_folders.write_json(tmp_path, 'train', rows)
  rows |= {f'gone/{i}.png': 0 for i in range(7)}
  path.write_text(json.dumps(rows))
  with pytest.raises(
      FileNotFoundError, match=r'7 of 103 .*gone/0\.png, gone/1\.png'
  ):
    load(tmp_path)


def test_json_with_absolute_paths_raises(tmp_path):
  image_folders.write_json(tmp_path, 'train', {str(tmp_path / 'a.png'): 0})
  with pytest.raises(ValueError, match=r'a\.png is no path relative to'):
    load(tmp_path)


@pytest.mark.parametrize('label', [-1, 6, 1.5, 'x', None, True])
def test_label_that_is_no_class_raises_with_file_and_value(tmp_path, label):
  image_folders.write_json(tmp_path, 'train', {'clip/a.png': label})
  with pytest.raises(
      ValueError, match=rf'train\.json: label {label!r} of clip/a\.png'
  ):
    load(tmp_path)


def test_layout_is_described_by_the_listing(tmp_path):
  image_folders.write_json(tmp_path, 'train', full_rows())
  listing = folder.list_files(tmp_path, weld.CLASS_NAMES)
  assert listing.test is None and not listing.separates
  assert len(listing.pool) == 96


# The real frames.


@needs_real_frames
def test_all_131_real_frames_are_split_and_one_clip_is_held_back():
  splits = load(REAL, combine_synthetic='never')
  parts = (splits.train, splits.validation, splits.test)
  names = [name for part in parts for name in part.names]
  assert len(names) == len(set(names)) == 131
  # 55 burn through, 69 and 3 contamination from three clips, and four single
  # frames, counted by hand in labels.csv.
  held = '170815-134756-Al 2mm'
  assert splits.test.groups == ('singles',) * 4 + (held,) * 3
  np.testing.assert_array_equal(splits.test.labels, [0, 1, 3, 5, 2, 2, 2])
  fitted = splits.train.groups + splits.validation.groups
  assert collections.Counter(fitted) == {
      '170904-141232-Al 2mm-part2': 69, '170906-113317-Al 2mm-part3': 55,
  }
  assert splits.train.images[0].shape == (974, 800, 1)


@needs_real_frames
def test_real_frames_are_joined_by_procedural_ones_of_every_class():
  splits = load(REAL)
  assert set(splits.train.labels) == set(range(6))
  assert '93 real frames' in splits.train.description
  assert '18 procedural' in splits.train.description
  assert 'misalignment' in splits.train.description
  resized = image_sets.resize_all(splits.test.images, (39, 32))
  assert resized.shape == (7, 39, 32, 1)


@needs_real_frames
def test_published_json_layout_of_58_frames_is_read(tmp_path):
  rows = json.loads((REAL / 'train.json').read_text())
  (tmp_path / 'train').mkdir()
  for clip in {name.split('/')[0] for name in rows}:
    (tmp_path / 'train' / clip).symlink_to((REAL / 'train' / clip).resolve())
  (tmp_path / 'train' / 'train.json').write_text(json.dumps(rows))
  splits = load(tmp_path, combine_synthetic='never')
  parts = (splits.train, splits.validation, splits.test)
  assert sum(len(part) for part in parts) == 58


# Unreadable frames.


def test_unreadable_frame_raises_or_is_skipped_counted_and_named(tmp_path):
  image_folders.write_json(tmp_path, 'train', full_rows())
  path = tmp_path / 'train' / '2-clip1' / 'frame_2_002.png'
  path.write_bytes(path.read_bytes()[:30])
  splits = load(tmp_path)
  with pytest.raises(ValueError, match=r'frame_2_002\.png: .*truncated'):
    for part in (splits.train, splits.validation, splits.test):
      list(part)
  splits = load(tmp_path, skip_unreadable=True)
  parts = (splits.train, splits.validation, splits.test)
  assert sum(len(list(part)) for part in parts) == 95
  expected = '1 unreadable image skipped: train/2-clip1/frame_2_002.png'
  assert all(expected in part.description for part in parts)


def test_root_of_unreadable_frames_alone_is_refused(tmp_path):
  rows = image_folders.clips({1: {'a': 2}})
  image_folders.write_json(tmp_path, 'train', rows)
  for name in rows:
    (tmp_path / 'train' / name).write_bytes(b'')
  with pytest.raises(ValueError, match='all 2 image files are unreadable'):
    load(tmp_path, skip_unreadable=True)
