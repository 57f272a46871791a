"""Tests of the image sets, their files and their splits."""

import collections
import json
import os
import pathlib

import jax
import numpy as np
from PIL import Image
from PIL import ImageFile
import pytest

from jaxsens.data import folder
from jaxsens.data import image_files
from jaxsens.data import image_sets
from jaxsens.data import separation
from jaxsens.data import sources
from jaxsens.data import weld

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


def write_image(path, value=100, size=(8, 10), mode='L'):
  path.parent.mkdir(parents=True, exist_ok=True)
  pixels = np.full((size[1], size[0]), value, np.uint8)
  pixels[0, 0] = 255
  Image.fromarray(pixels).convert(mode).save(path)
  return path


def write_json(root, part, rows):
  for name in rows:
    write_image(root / part / name)
  path = root / part / f'{part}.json'
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(rows))
  return path


def clips(part_of_class):
  """Returns json rows from {label: {clip: number of frames}}."""
  return {
      f'{clip}/frame_{label}_{i:03d}.png': label
      for label, sizes in part_of_class.items()
      for clip, count in sizes.items()
      for i in range(count)
  }


def load(root, **changes):
  return weld.load_weld(KEY, root=root, **(OPTIONS | changes))


# Reading image files.


def test_gray_image_is_read_as_floats_over_255(tmp_path):
  path = write_image(tmp_path / 'a.png', value=51)
  image = image_files.read_image(path, channels=1)
  assert image.shape == (10, 8, 1) and image.dtype == np.float32
  assert image[0, 0, 0] == 1.0
  np.testing.assert_allclose(image[1, 1, 0], 0.2, rtol=1e-6)


def test_absent_image_raises_with_its_path(tmp_path):
  with pytest.raises(FileNotFoundError, match='none.png: no such image'):
    image_files.read_image(tmp_path / 'none.png', channels=1)


@pytest.mark.parametrize('mode', ['RGB', 'RGBA', '1', 'P'])
def test_other_mode_than_gray_raises_and_says_how_to_convert(tmp_path, mode):
  path = write_image(tmp_path / 'a.png', mode=mode)
  with pytest.raises(ValueError, match=r"a\.png.*'L'.*convert\('L'\)"):
    image_files.read_image(path, channels=1)


def test_gray_where_colour_is_expected_raises(tmp_path):
  path = write_image(tmp_path / 'a.png')
  with pytest.raises(ValueError, match=r"a\.png.*convert\('RGB'\)"):
    image_files.read_image(path, channels=3)


@pytest.mark.parametrize('suffix', ['png', 'jpg', 'bmp'])
@pytest.mark.parametrize('kept', [0.0, 0.01, 0.3, 0.6, 0.95])
def test_truncated_image_raises_instead_of_half_loading(
    tmp_path, suffix, kept
):
  path = tmp_path / f'a.{suffix}'
  noise = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
  Image.fromarray(noise).save(path)
  data = path.read_bytes()
  path.write_bytes(data[: int(kept * len(data))])
  with pytest.raises(ValueError, match=rf'a\.{suffix}: .*truncated'):
    image_files.read_image(path, channels=1)


def test_truncated_png_raises_even_where_pil_is_set_to_accept_it(
    tmp_path, monkeypatch
):
  monkeypatch.setattr(ImageFile, 'LOAD_TRUNCATED_IMAGES', True)
  path = write_image(tmp_path / 'a.png', size=(64, 64))
  path.write_bytes(path.read_bytes()[:-20])
  with pytest.raises(ValueError, match='truncated'):
    image_files.read_image(path, channels=1)


def test_file_that_is_no_image_raises(tmp_path):
  path = tmp_path / 'a.png'
  path.write_text('no image')
  with pytest.raises(ValueError, match=r'a\.png: .*unreadable'):
    image_files.read_image(path, channels=1)


# Image sets.


def small_set(count=4, **changes):
  fields = {
      'images': np.zeros((count, 5, 4, 1), np.float32),
      'labels': np.arange(count) % 2,
      'names': tuple(f'n{i}' for i in range(count)),
      'class_names': ('a', 'b'),
      'groups': ('g',) * count,
      'description': 'zeros',
  }
  return image_sets.ImageSet(**(fields | changes))


def test_fields_of_different_length_raise():
  with pytest.raises(ValueError, match="'labels': 3"):
    small_set(labels=np.zeros(3, int))


def test_label_out_of_range_raises_with_the_name_of_the_image():
  with pytest.raises(ValueError, match=r'n1: label 2 is out of range'):
    small_set(labels=np.array([0, 2, 1, 0]))


def test_take_keeps_every_field_in_the_given_order():
  images = np.arange(4, dtype=np.float32)[:, None, None, None]
  taken = small_set(images=images, parameters={'p': np.arange(4.0)}).take(
      [3, 1]
  )
  assert taken.names == ('n3', 'n1')
  np.testing.assert_array_equal(taken.images[:, 0, 0, 0], [3, 1])
  np.testing.assert_array_equal(taken.parameters['p'], [3, 1])


def test_joined_set_marks_unknown_parameters_with_nan():
  second = small_set(
      names=('m0', 'm1', 'm2', 'm3'),
      images=np.ones((4, 7, 6, 1), np.float32),
      parameters={'p': np.arange(4.0), 'k': np.ones((4, 2), np.uint32)},
  )
  joined = image_sets.join(small_set(), second, 'both')
  assert [image.shape for image in joined.images][3:5] == [(5, 4, 1), (7, 6, 1)]
  np.testing.assert_array_equal(
      joined.parameters['p'], [np.nan] * 4 + [0, 1, 2, 3]
  )
  np.testing.assert_array_equal(joined.parameters['k'][3:5], [[0, 0], [1, 1]])
  picked = joined.take([5, 0])
  assert picked.images[0].shape == (7, 6, 1)
  assert picked.take([1]).names == ('n0',)


def test_sets_of_other_classes_are_not_joined():
  with pytest.raises(ValueError, match='cannot join'):
    image_sets.join(small_set(), small_set(class_names=('a', 'c')), '')


def test_resize_all_takes_images_of_different_sizes(tmp_path):
  paths = (
      write_image(tmp_path / 'a.png', size=(8, 10)),
      write_image(tmp_path / 'b.png', size=(16, 12)),
  )
  images = image_sets.LazyImages(paths)
  resized = image_sets.resize_all(images, (5, 4))
  assert resized.shape == (2, 5, 4, 1) and resized.dtype == np.float32
  # A constant picture but for one pixel.
  np.testing.assert_allclose(resized[:, 3:, 3:], 100 / 255, rtol=1e-5)


def test_resize_all_halves_like_pillow():
  rng = np.random.default_rng(0)
  image = rng.random((40, 30), np.float32)
  expected = Image.fromarray(image).resize((15, 20), Image.Resampling.BILINEAR)
  resized = image_sets.resize_all(image[None, ..., None], (20, 15))
  np.testing.assert_allclose(
      resized[0, ..., 0], np.asarray(expected), atol=1e-5
  )


def test_resize_of_arrays_and_of_sequences_agree():
  images = np.random.default_rng(0).random((35, 9, 8, 1)).astype(np.float32)
  array = image_sets.resize_all(images, (5, 4))
  np.testing.assert_allclose(
      array, image_sets.resize_all(list(images), (5, 4)), atol=1e-6
  )


def test_resize_of_nothing_raises():
  with pytest.raises(ValueError, match='at least one image'):
    image_sets.resize_all([], (5, 4))


# Separation by recordings.


def test_smallest_recording_whose_class_remains_is_held_back():
  labels = [0] * 5 + [1] * 9
  groups = ['only'] * 5 + ['short'] * 3 + ['long'] * 6
  assert separation.held_back_group(labels, groups) == 'short'


def test_no_recording_is_held_back_that_is_the_last_of_its_class():
  assert separation.held_back_group([0, 0, 1], ['a', 'a', 'b']) is None


@pytest.mark.parametrize('seed', range(5))
def test_separated_parts_share_no_recording_and_hold_all_classes(seed):
  rows = {c: {f'{c}{i}': 10 + i for i in range(5)} for c in range(3)}
  rows[0] = {'mixed': 6} | rows[0]
  rows[1] = {'mixed': 6} | rows[1]
  names = clips(rows)
  labels = np.array(list(names.values()))
  groups = np.array([name.split('/')[0] for name in names])
  stay, leave = separation.separate(
      jax.random.key(seed), labels, groups, 0.25
  )
  assert sorted([*stay, *leave]) == list(range(len(labels)))
  assert not set(groups[stay]) & set(groups[leave])
  assert set(labels[stay]) == set(labels[leave]) == {0, 1, 2}
  # Five clips of 10 to 14 frames: one fits into a quarter of 60, or 66.
  for count in np.bincount(labels[leave]):
    assert 6 <= count <= 20


def test_huge_recording_is_not_separated_if_a_small_one_can_be():
  groups = ['big'] * 60 + ['small'] * 3
  _, leave = separation.separate(KEY, [0] * 63, groups, 0.1)
  assert list(leave) == [60, 61, 62]


def test_only_recording_of_a_class_gives_one_end():
  for seed in range(4):
    _, leave = separation.separate(
        jax.random.key(seed), [0] * 20, ['a'] * 20, 0.25
    )
    assert list(leave) in ([0, 1, 2, 3, 4], [15, 16, 17, 18, 19])


def test_separate_is_the_same_for_a_key_and_differs_between_keys():
  groups = [f'g{i}' for i in range(40)]
  parts = [
      separation.separate(jax.random.key(s), [0] * 40, groups, 0.25)[1].tolist()
      for s in (0, 0, 1)
  ]
  assert parts[0] == parts[1] != parts[2]
  assert len(parts[0]) == 10


def test_class_of_one_image_keeps_it():
  stay, leave = separation.separate(KEY, [0, 1, 1], ['a', 'b', 'c'], 0.5)
  assert 0 in stay and len(leave) == 1


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
  return clips({
      c: {f'{c}-clip{i}': num_frames for i in range(num_clips)}
      for c in range(6)
  })


def test_kaggle_layout_uses_its_own_test_set_and_no_procedural_frames(
    tmp_path,
):
  write_json(tmp_path, 'train', full_rows())
  test_rows = {f'last/frame_{i}.png': i for i in (3, 1)}
  write_json(tmp_path, 'test', test_rows)
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
  rows = clips({1: {'a': 4, 'b': 4, 'c': 3}, 2: {'d': 8}})
  write_json(tmp_path, 'train', rows)
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
  write_json(tmp_path, 'train', clips({1: {'a': 4, 'b': 4, 'c': 3}}))
  never = load(tmp_path, combine_synthetic='never')
  assert set(never.train.labels) == {1}
  write_json(tmp_path, 'train', full_rows())
  always = load(tmp_path, combine_synthetic='always')
  assert 'procedural' in always.train.description


def test_held_out_groups_choose_the_clips(tmp_path):
  write_json(tmp_path, 'train', full_rows())
  splits = load(tmp_path, held_out_groups=('2-clip1', '3-clip0'))
  assert set(splits.test.groups) == {'2-clip1', '3-clip0'}
  with pytest.raises(ValueError, match=r"held_out_groups \['9'\]"):
    load(tmp_path, held_out_groups=('9',))


def test_root_is_found_through_the_environment(tmp_path, monkeypatch):
  write_json(tmp_path / 'al5083', 'train', full_rows())
  monkeypatch.setenv('JAXSENS_DATA', str(tmp_path))
  assert 'real frames' in load(None).train.description


def test_splits_are_the_same_for_a_key(tmp_path):
  write_json(tmp_path, 'train', full_rows())
  assert load(tmp_path).validation.names == load(tmp_path).validation.names


# Class folders and labels.csv.


def test_class_folders_take_names_in_any_spelling_and_numbers(tmp_path):
  for name in ('good_weld', 'Burn-Through', '2', 'lack of fusion', '4', '5'):
    for i in range(8):
      write_image(tmp_path / name / f'{i}.png')
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
      write_image(tmp_path / 'train' / name / clip / '0.png')
    write_image(tmp_path / 'test' / name / '0.png')
  splits = load(tmp_path)
  assert len(splits.test) == 6
  assert len(splits.train) + len(splits.validation) == 12
  assert 'good weld/a' in splits.train.groups + splits.validation.groups


def test_unknown_class_folder_raises(tmp_path):
  write_image(tmp_path / 'good weld' / '0.png')
  write_image(tmp_path / 'bad weld' / '0.png')
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
    write_image(tmp_path / row.split(',')[0])
  splits = load(tmp_path)
  # The only other frame of clip a follows, since clip b still shows class 1.
  assert splits.test.names == ('s/0.png', 'train/a/0.png')


def test_csv_that_lists_a_file_twice_raises(tmp_path):
  write_image(tmp_path / 'train' / 'a.png')
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
  write_image(tmp_path / 'pictures' / 'a.png')
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
  write_json(tmp_path, 'train', {})
  with pytest.raises(ValueError, match=r'train\.json: no image is listed'):
    load(tmp_path)


def test_json_naming_absent_files_lists_the_first_and_the_count(tmp_path):
  rows = full_rows()
  path = write_json(tmp_path, 'train', rows)
  rows |= {f'gone/{i}.png': 0 for i in range(7)}
  path.write_text(json.dumps(rows))
  with pytest.raises(
      FileNotFoundError, match=r'7 of 103 .*gone/0\.png, gone/1\.png'
  ):
    load(tmp_path)


def test_json_with_absolute_paths_raises(tmp_path):
  write_json(tmp_path, 'train', {str(tmp_path / 'a.png'): 0})
  with pytest.raises(ValueError, match=r'a\.png is no path relative to'):
    load(tmp_path)


@pytest.mark.parametrize('label', [-1, 6, 1.5, 'x', None, True])
def test_label_that_is_no_class_raises_with_file_and_value(tmp_path, label):
  write_json(tmp_path, 'train', {'clip/a.png': label})
  with pytest.raises(
      ValueError, match=rf'train\.json: label {label!r} of clip/a\.png'
  ):
    load(tmp_path)


def test_layout_is_described_by_the_listing(tmp_path):
  write_json(tmp_path, 'train', full_rows())
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
