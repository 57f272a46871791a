"""Tests of the reading of single image files."""

import numpy as np
from PIL import Image
from PIL import ImageFile
import pytest

from jaxsens.data import image_files
from tests.oracles import image_folders


def test_gray_image_is_read_as_floats_over_255(tmp_path):
  path = image_folders.write_image(tmp_path / 'a.png', value=51)
  image = image_files.read_image(path, channels=1)
  assert image.shape == (10, 8, 1) and image.dtype == np.float32
  assert image[0, 0, 0] == 1.0
  np.testing.assert_allclose(image[1, 1, 0], 0.2, rtol=1e-6)


def test_absent_image_raises_with_its_path(tmp_path):
  with pytest.raises(FileNotFoundError, match='none.png: no such image'):
    image_files.read_image(tmp_path / 'none.png', channels=1)


@pytest.mark.parametrize('mode', ['RGB', 'RGBA', '1', 'P'])
def test_other_mode_than_gray_raises_and_says_how_to_convert(tmp_path, mode):
  path = image_folders.write_image(tmp_path / 'a.png', mode=mode)
  with pytest.raises(ValueError, match=r"a\.png.*'L'.*convert\('L'\)"):
    image_files.read_image(path, channels=1)


def test_gray_where_colour_is_expected_raises(tmp_path):
  path = image_folders.write_image(tmp_path / 'a.png')
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
  path = image_folders.write_image(tmp_path / 'a.png', size=(64, 64))
  path.write_bytes(path.read_bytes()[:-20])
  with pytest.raises(ValueError, match='truncated'):
    image_files.read_image(path, channels=1)


def test_file_that_is_no_image_raises(tmp_path):
  path = tmp_path / 'a.png'
  path.write_text('no image')
  with pytest.raises(ValueError, match=r'a\.png: .*unreadable'):
    image_files.read_image(path, channels=1)

def test_size_is_read_from_the_head_alone(tmp_path):
  path = image_folders.write_image(tmp_path / 'a.png', size=(8, 10))
  assert image_files.read_size(path) == (10, 8)
  path.write_bytes(path.read_bytes()[:-20])
  assert image_files.read_size(path) == (10, 8)
  with pytest.raises(FileNotFoundError, match='none.png'):
    image_files.read_size(tmp_path / 'none.png')
  path.write_bytes(b'text')
  with pytest.raises(ValueError, match='a.png: the image is unreadable'):
    image_files.read_size(path)


def test_unreadable_files_are_counted_out(tmp_path):
  paths = [image_folders.write_image(tmp_path / f'{i}.png') for i in range(4)]
  paths[1].write_bytes(b'text')
  paths[2] = image_folders.write_image(tmp_path / 'c.png', mode='RGB')
  assert image_files.unreadable(paths, channels=1) == (1, 2)
  assert image_files.skipped_note(()) == ''
  assert image_files.skipped_note(('a', 'b')) == (
      ', 2 unreadable images skipped: a, b'
  )
