"""Tests of the reader of pickles that may come from anywhere."""

import os
import pickle

import numpy as np
import pytest

from jaxsens.data import restricted_pickle

# What Python 2 and NumPy 1 wrote of {'data': array([[1, 2]], uint8),
# 'labels': [3]}: protocol 2, texts as byte strings.
_PYTHON_2 = (
  b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03"
  b"cnumpy\nndarray\nq\x04K\x00\x85U\x01b\x87Rq\x05(K\x01K\x01K\x02\x86"
  b"cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87Rq\x07(K\x03U\x01|NNNJ\xff\xff"
  b"\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x02\x01\x02tbU\x06labelsq\x08]q\t"
  b"K\x03au."
)


class _Calls:
  def __reduce__(self):
    return os.system, ('touch called',)


def write(path, content, protocol=2):
  path.write_bytes(pickle.dumps(content, protocol=protocol))
  return path


def test_batch_of_python_2_is_read(tmp_path):
  (tmp_path / 'a').write_bytes(_PYTHON_2)
  content = restricted_pickle.read(tmp_path / 'a')
  np.testing.assert_array_equal(content[b'data'], [[1, 2]])
  assert content[b'data'].dtype == np.uint8
  assert content[b'labels'] == [3]


@pytest.mark.parametrize('protocol', [2, 3, 4])
@pytest.mark.parametrize('dtype', [np.uint8, np.float64, 'S3', np.bool_])
def test_arrays_come_back_as_they_were(tmp_path, protocol, dtype):
  array = np.arange(6).reshape(2, 3).astype(dtype)
  content = {'a': array, b'b': [1, 2.5, None, 'text', b'bytes'], 'c': (True,)}
  read = restricted_pickle.read(write(tmp_path / 'a', content, protocol))
  np.testing.assert_array_equal(read['a'], array)
  assert read['a'].dtype == array.dtype
  assert read[b'b'] == content[b'b'] and read['c'] == (True,)


@pytest.mark.parametrize(
  ('content', 'asked'),
  [
    (_Calls(), 'system'),
    ({'f': len}, 'len'),
    (np.array([_Calls()], object), 'system|not admitted'),
    (np.random.default_rng(0), 'numpy.random'),
    ({1, 2}, 'set'),
  ],
)
def test_anything_that_is_called_is_refused_by_name(
  tmp_path, monkeypatch, content, asked
):
  monkeypatch.chdir(tmp_path)
  path = write(tmp_path / 'a', content)
  with pytest.raises(ValueError, match=rf'a: .*({asked})'):
    restricted_pickle.read(path)
  assert not (tmp_path / 'called').exists()


def test_numpy_functions_by_their_names_are_refused(tmp_path):
  # numpy.load by a global, as an attacker would write it.
  (tmp_path / 'a').write_bytes(b"cnumpy\nload\n(S'x'\ntR.")
  with pytest.raises(ValueError, match=r'numpy\.load, which is not admitted'):
    restricted_pickle.read(tmp_path / 'a')


def test_array_of_objects_is_refused(tmp_path):
  path = write(tmp_path / 'a', np.array([{}, None], object))
  with pytest.raises(ValueError, match='not admitted, only of numbers'):
    restricted_pickle.read(path)


def test_huge_array_is_not_made_before_its_content(tmp_path):
  (tmp_path / 'a').write_bytes(
    b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n"
    b"(L1000000000000L\ntS'u1'\ntR."
  )
  with pytest.raises(ValueError, match='not as NumPy writes it'):
    restricted_pickle.read(tmp_path / 'a')


@pytest.mark.parametrize('content', [b'', b'no pickle', _PYTHON_2[:40]])
def test_damaged_pickle_is_named(tmp_path, content):
  (tmp_path / 'a').write_bytes(content)
  with pytest.raises(ValueError, match='a: truncated or damaged pickle'):
    restricted_pickle.read(tmp_path / 'a')
