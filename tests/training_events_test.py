"""Event files, read back by TensorBoard and by a reader of the format."""

import io

import numpy as np
from PIL import Image
import pytest

from jaxsens.training import events
from tests.oracles import event_reader


def test_checksum_has_its_published_values():
  # RFC 3720, appendix B.4, and the check value of the CRC catalogue.
  assert events.crc32c(b'123456789') == 0xE3069283
  assert events.crc32c(bytes(32)) == 0x8A9136AA
  assert events.crc32c(bytes(range(32))) == 0x46DD794E


def _write(path, **options):
  writer = events.Writer(path, **options)
  writer.scalars(3, {'train/loss': 0.25, 'validation/macro_f1': 0.125})
  writer.scalars(300, {'train/loss': -1.5})
  rng = np.random.default_rng(0)
  pictures = rng.integers(0, 256, (5, 7, 3), np.uint8), rng.random((4, 6, 1))
  for i, picture in enumerate(pictures):
    writer.image(i, f'picture/{i}', picture)
  return pictures


def test_scalars_and_images_are_read_back(tmp_path):
  pictures = _write(tmp_path)
  (path,) = tmp_path.iterdir()
  found = list(event_reader.read(path))
  assert found[0][3] == [b'brain.Event:2'] and found[0][1][0] > 1e9
  values = [
    (event[2][0] if 2 in event else None, event_reader.parse(value))
    for event in found[1:]
    for value in event_reader.parse(event[5][0])[1]
  ]
  scalars = [(step, v[1][0], v[2][0]) for step, v in values if 2 in v]
  assert scalars == [
    (3, b'train/loss', 0.25), (3, b'validation/macro_f1', 0.125),
    (300, b'train/loss', -1.5),
  ]
  images = [(v[1][0], event_reader.parse(v[4][0])) for _, v in values if 4 in v]
  for (tag, fields), picture in zip(images, pictures, strict=True):
    assert tag.startswith(b'picture/')
    assert (*fields[1], *fields[2], *fields[3]) == picture.shape
    decoded = np.asarray(Image.open(io.BytesIO(fields[4][0])))
    expected = picture
    if picture.dtype != np.uint8:
      expected = np.rint(255 * picture)
    np.testing.assert_array_equal(decoded.reshape(picture.shape), expected)


def test_tensorboard_reads_the_files_and_forgets_what_was_done_twice(tmp_path):
  accumulator = pytest.importorskip(
    'tensorboard.backend.event_processing.event_accumulator',
    reason='TensorBoard is the oracle here',
  )
  first = events.Writer(tmp_path)
  for step in range(4):
    first.scalars(step, {'loss': float(step)})
  second = events.Writer(tmp_path, first_step=2)
  second.scalars(2, {'loss': 20.0})
  second.image(2, 'picture', np.zeros((3, 4, 3)))
  found = accumulator.EventAccumulator(str(tmp_path)).Reload()
  scalars = [(e.step, e.value) for e in found.Scalars('loss')]
  assert scalars == [(0, 0.0), (1, 1.0), (2, 20.0)]
  (image,) = found.Images('picture')
  assert (image.height, image.width) == (3, 4)


def test_pictures_of_other_shapes_are_refused(tmp_path):
  with pytest.raises(ValueError, match=r'got \(4, 4\)'):
    events.Writer(tmp_path).image(0, 'a', np.zeros((4, 4)))


def test_grid_shows_every_image_at_its_place():
  images = np.arange(3)[:, None, None, None] + np.ones((3, 2, 2, 1))
  grid = events.grid_image(images, num_columns=2)
  np.testing.assert_array_equal(
    grid[::2, ::2, 0], [[1, 2], [3, 0]]
  )


def test_picture_of_a_confusion_matrix_is_darkest_on_full_cells():
  picture = events.confusion_image([[9, 0], [0, 9]], ('a', 'b'))
  assert picture.dtype == np.uint8 and picture.shape[2] == 3
  blue = (picture[..., 0] < 60) & (picture[..., 2] > 80)
  assert 0.1 < blue.mean() < 0.6
