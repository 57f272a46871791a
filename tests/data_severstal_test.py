"""Tests of run lengths and of the sheet steel with masks of four defects."""

import jax
import numpy as np
from PIL import Image
import pytest

from jaxsens.data import mask_labels
from jaxsens.data import run_lengths
from jaxsens.data import severstal
from jaxsens.data import sources

KEY = jax.random.key(0)
SHAPE = (4, 6)
OPTIONS = {
  'validation_fraction': 0.0, 'test_fraction': 0.0, 'label_policy': 'largest'
}
# Pixels 1..4 are column 0; 23, 24 the last two of the last column.
ROWS = {
  'a.jpg': {1: '1 4', 3: '3 4'},  # overlap in rows 2, 3 of column 0
  'b.jpg': {4: '23 2'},
  'c.jpg': {},
}


def write_images(folder, names=('a.jpg', 'b.jpg', 'c.jpg')):
  folder.mkdir(parents=True, exist_ok=True)
  for i, name in enumerate(names):
    pixels = np.full((*SHAPE, 3), 10 * i, np.uint8)
    Image.fromarray(pixels).save(folder / name)


def write(root, layout='columns', rows=None, names=None):
  write_images(root / 'train_images', names or ('a.jpg', 'b.jpg', 'c.jpg'))
  rows = ROWS if rows is None else rows
  if layout == 'columns':
    lines = ['ImageId,ClassId,EncodedPixels'] + [
      f'{name},{defect},{text}'
      for name, texts in rows.items() for defect, text in texts.items()
    ]
  elif layout == 'zero':  # with a row of class 0, and another column
    lines = [',ImageId,ClassId,EncodedPixels,Folder'] + [
      f'{i},{name},{defect},{text},train'
      for i, (name, texts) in enumerate(rows.items())
      for defect, text in (texts or {0: ''}).items()
    ]
  else:
    lines = ['ImageId_ClassId,EncodedPixels'] + [
      f'{name}_{defect},{texts.get(defect, "")}'
      for name, texts in rows.items() for defect in (1, 2, 3, 4)
    ]
  (root / 'train.csv').write_text('\n'.join(lines) + '\n')
  return root


def load(root, **changes):
  return sources.load('severstal', KEY, root=root, **(OPTIONS | changes))


def test_runs_go_down_the_columns_from_one():
  expected = np.zeros(SHAPE, bool)
  expected[1:, 0] = True  # pixels 2, 3, 4
  expected[0, 1] = True  # pixel 5
  expected[3, 5] = True  # pixel 24, the last
  np.testing.assert_array_equal(
    run_lengths.decode('2 4 24 1', SHAPE), expected
  )


@pytest.mark.parametrize('seed', range(5))
def test_decoded_mask_is_the_encoded_one(seed):
  rng = np.random.default_rng(seed)
  mask = rng.random((7, 5)) < rng.random()
  text = run_lengths.encode(mask)
  np.testing.assert_array_equal(run_lengths.decode(text, (7, 5)), mask)
  # The slow way round: every pixel by its number.
  numbers = {
    n for start, length in np.array(text.split(), int).reshape(-1, 2)
    for n in range(start, start + length)
  }
  slow = [[x * 7 + y + 1 in numbers for x in range(5)] for y in range(7)]
  np.testing.assert_array_equal(mask, slow)


def test_empty_text_is_an_empty_mask_and_runs_may_overlap():
  assert not run_lengths.decode('', SHAPE).any()
  assert run_lengths.encode(np.zeros(SHAPE)) == ''
  assert run_lengths.decode('1 3 2 3', SHAPE).sum() == 4


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('1 2 3', 'odd number of entries, 3'),
    ('0 2', '2 pixels from 0 on .* 4 x 6'),
    ('24 2', '2 pixels from 24 on'),
    ('3 0', '0 pixels from 3 on'),
    ('3 -1', '-1 pixels from 3 on'),
    ('1 2 x 4', 'must be integers'),
    ('1.5 2', 'must be integers'),
    ('99999999999999999999 1', 'must be integers'),
    ('9223372036854775807 9223372036854775807', 'does not lie'),
  ],
)
def test_run_lengths_that_cannot_be_are_refused_by_name(text, message):
  with pytest.raises(ValueError, match=f'a.jpg.*{message}'):
    run_lengths.decode(text, SHAPE, 'a.jpg')


@pytest.mark.parametrize('layout', ['columns', 'zero', 'joined'])
def test_all_layouts_give_the_same_and_keep_overlaps(tmp_path, layout):
  train = load(write(tmp_path, layout)).train
  assert train.names == ('a', 'b', 'c')
  assert train.mask_names == severstal.DEFECTS
  masks = [train.masks[i] for i in range(3)]
  assert all(m.shape == (*SHAPE, 4) and m.dtype == bool for m in masks)
  # By hand: pixels 1..4 and 3..6, so that 3 and 4 have both defects.
  np.testing.assert_array_equal(masks[0][:, 0, 0], [1, 1, 1, 1])
  np.testing.assert_array_equal(masks[0][:, 0, 2], [0, 0, 1, 1])
  np.testing.assert_array_equal(masks[0][:, 1, 2], [1, 1, 0, 0])
  assert masks[0].sum() == 8
  np.testing.assert_array_equal(masks[1][:, 5, 3], [0, 0, 1, 1])
  assert not masks[2].any()
  np.testing.assert_array_equal(
    train.parameters['areas'], [[4, 0, 4, 0], [0, 0, 0, 2], [0, 0, 0, 0]]
  )


def test_rows_of_one_image_and_defect_are_united(tmp_path):
  root = write(tmp_path)
  with (root / 'train.csv').open('a') as file:
    file.write('b.jpg,4,1 1\n')
  np.testing.assert_array_equal(
    load(root).train.parameters['areas'][1], [0, 0, 0, 3]
  )


@pytest.mark.parametrize(
  ('policy', 'labels', 'names'),
  [
    ('binary', {'a': 1, 'b': 1, 'c': 0}, 2),
    ('single', {'b': 4, 'c': 0}, 5),
    ('largest', {'a': 1, 'b': 4, 'c': 0}, 5),
  ],
)
def test_policies_label_by_hand_counted_areas(tmp_path, policy, labels, names):
  train = load(write(tmp_path), label_policy=policy).train
  assert dict(zip(train.names, train.labels.tolist(), strict=True)) == labels
  assert len(train.class_names) == names
  assert train.class_names == sources.find('severstal').classes(
    {'label_policy': policy}
  )
  assert len(train.masks) == len(labels)


def test_largest_defect_counts_pixels():
  labels, kept = mask_labels.label(
    np.array([[1, 5, 0, 4], [3, 0, 0, 3]]), 'largest'
  )
  np.testing.assert_array_equal(labels, [2, 1])
  assert kept.all()


def test_parts_are_stratified_and_copies_stay_together(tmp_path):
  names = [f'{i:02d}.jpg' for i in range(20)]
  rows = {n: {1 + i % 2: '1 2'} for i, n in enumerate(names)}
  write(tmp_path, rows=rows, names=names)
  for i in range(20):  # distinct images, but the first two
    pixels = np.full((*SHAPE, 3), 10 * max(i, 1), np.uint8)
    Image.fromarray(pixels).save(tmp_path / 'train_images' / names[i])
  for seed in range(5):
    splits = sources.load(
      'severstal', jax.random.key(seed), root=tmp_path,
      **(OPTIONS | {'validation_fraction': 0.2, 'test_fraction': 0.2})
    )
    parts = [splits.train, splits.validation, splits.test]
    assert sum(map(len, parts)) == 20
    assert any({'00', '01'} <= set(part.names) for part in parts)
    for part, number in zip(parts, (6, 2, 2), strict=True):
      counts = np.bincount(part.labels, minlength=5)[1:3]
      assert np.abs(counts - number).max() <= 1


def test_bad_tables_are_refused(tmp_path):
  with pytest.raises(FileNotFoundError, match=r'train\.csv: no such table'):
    load(tmp_path)
  root = write(tmp_path)
  table = root / 'train.csv'
  good = table.read_text()
  table.write_text('ImageId,Class,EncodedPixels\na.jpg,1,1 2\n')
  with pytest.raises(ValueError, match=r"expected the columns .*'Class'"):
    load(root)
  table.write_text(good + 'gone.jpg,1,1 2\n')
  with pytest.raises(FileNotFoundError, match='1 listed images .*gone.jpg'):
    load(root)
  for row, message in (
    ('a.jpg,5,1 2', "defect '5' of image 'a.jpg'"),
    ('a.jpg,x,1 2', "defect 'x' of image 'a.jpg'"),
    ('a.jpg,2,1 2 3', 'a.jpg, defect 2: .*odd number'),
    ('a.jpg,2,24 2', 'a.jpg, defect 2: the run of 2 pixels from 24'),
    ('a.jpg,0,1 2', 'a.jpg has run lengths but no defect'),
  ):
    table.write_text(good + row + '\n')
    with pytest.raises(ValueError, match=message):
      load(root)
  table.write_text(good)
  with pytest.raises(ValueError, match="label_policy must be .* 'first'"):
    load(root, label_policy='first')
  with pytest.raises(ValueError, match=r'sum below 1, got \(0.5, 0.5\)'):
    load(root, validation_fraction=0.5, test_fraction=0.5)


def test_corrupt_image_is_named_or_skipped_counted_and_named(tmp_path):
  root = write(tmp_path)
  (root / 'train_images' / 'b.jpg').write_bytes(b'no image')
  with pytest.raises(ValueError, match=r'b\.jpg: the image is unreadable'):
    load(root)
  train = load(root, skip_unreadable=True).train
  assert train.names == ('a', 'c')
  assert '1 unreadable image skipped: b.jpg' in train.description
