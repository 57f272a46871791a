from collections import OrderedDict
import os
import pathlib
import pickle
import zipfile

import numpy as np
import pytest

from jaxsens.weights import torch_archive
from jaxsens.weights import torch_legacy

SHARED = pathlib.Path(os.environ.get('JAXSENS_SHARED', '../shared'))


class _Global:
  """Pickles as a global of any name, without that it need exist."""

  def __init__(self, module, name):
    self.module, self.name = module, name


class _Call:
  """Pickles as a call of a global."""

  def __init__(self, function, *arguments):
    self.function, self.arguments = function, arguments


class _Raw:
  """A piece of pickle program."""

  def __init__(self, program):
    self.program = program


_ORDERED = _Global('collections', 'OrderedDict')


def _pickled(content):
  """Returns the pickle of nested content, by protocol 2 opcodes."""
  if isinstance(content, _Global):
    return f'c{content.module}\n{content.name}\n'.encode()
  if isinstance(content, _Call):
    return _pickled(content.function) + _pickled(content.arguments) + b'R'
  if isinstance(content, tuple):
    return b'(' + b''.join(map(_pickled, content)) + b't'
  if isinstance(content, dict):
    items = [x for item in content.items() for x in item]
    return b'}(' + b''.join(map(_pickled, items)) + b'u'
  # The pickle of a plain value, without its header and its end.
  return pickle.dumps(content, 2)[2:-1]


def _tensor(kind, key, size, offset, shape, strides):
  # A persistent id is the tuple on the stack followed by the opcode Q.
  program = _pickled(('storage', _Global('torch', kind), key, 'cpu', size))
  function = _pickled(_Global('torch._utils', '_rebuild_tensor_v2'))
  rest = b''.join(
    map(_pickled, (offset, shape, strides, False, _Call(_ORDERED)))
  )
  return _Raw(function + b'(' + program + b'Q' + rest + b'tR')


def _write(path, program, members=None, *, order='little', compress=False):
  kind = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
  with zipfile.ZipFile(path, 'w', kind) as archive:
    archive.writestr('net/data.pkl', b'\x80\x02' + program + b'.')
    archive.writestr('net/byteorder', order)
    for key, data in (members or {}).items():
      archive.writestr(f'net/data/{key}', data)
  return path


def _state_dict(**tensors):
  items = b''.join(
    _pickled(name) + tensor.program for name, tensor in tensors.items()
  )
  return b'}(' + items + b'u'


NUMBERS = np.arange(12, dtype=np.float32)


def test_offset_and_strides_are_honoured(tmp_path):
  # Rows 1 and 2 of the transposed (4, 3) matrix: strides (1, 3), offset 1.
  tensor = _tensor('FloatStorage', '0', 12, 1, (2, 4), (1, 3))
  path = _write(
    tmp_path / 'a.pth', _state_dict(w=tensor), {'0': NUMBERS.tobytes()}
  )
  expected = NUMBERS.reshape(4, 3).T[1:]
  np.testing.assert_array_equal(torch_archive.read(path)['w'], expected)


@pytest.mark.parametrize(
  'dtype',
  [
    'float64',
    'float32',
    'float16',
    'bfloat16',
    'int64',
    'int32',
    'int16',
    'int8',
    'uint8',
    'bool',
    'complex64',
  ],
)
def test_files_of_torch_are_read_equal_to_torch(tmp_path, dtype):
  torch = pytest.importorskip('torch', reason='torch is the oracle here')
  matrix = torch.arange(12).reshape(4, 3).to(getattr(torch, dtype))
  content = {
    'step': 3,
    'best': [0.5, None, True],
    'shape': matrix.shape,
    'state_dict': OrderedDict(
      whole=matrix,
      view=matrix.T[1:],
      parameter=torch.nn.Parameter(torch.ones(2, 3)),
      empty=matrix[:0],
      scalar=matrix[1, 2],
    ),
  }
  torch.save(content, tmp_path / 'a.pth')
  read = torch_archive.read(tmp_path / 'a.pth')
  assert read['step'] == 3
  assert read['best'] == [0.5, None, True]
  assert read['shape'] == (4, 3)
  assert list(read['state_dict']) == list(content['state_dict'])
  for name, tensor in content['state_dict'].items():
    array, tensor = read['state_dict'][name], tensor.detach()
    assert array.shape == tuple(tensor.shape)
    assert array.dtype.name == str(tensor.dtype).removeprefix('torch.')
    # NumPy has no bfloat16 of its own; the cast to float64 is exact.
    expected = tensor if tensor.is_complex() else tensor.double()
    np.testing.assert_array_equal(
      array.astype(expected.numpy().dtype), expected.numpy(), err_msg=name
    )


def test_numpy_numbers_beside_the_tensors_are_read(tmp_path):
  torch = pytest.importorskip('torch', reason='torch is the oracle here')
  numbers = {'f1': np.float64(0.25), 'count': np.int32(-7), 'ok': np.bool_(1)}
  torch.save(numbers, tmp_path / 'a.pth')
  assert torch_archive.read(tmp_path / 'a.pth') == {
    'f1': 0.25,
    'count': -7,
    'ok': True,
  }


def test_public_checkpoint_is_read_equal_to_torch():
  path = SHARED / 'weights' / 'cifar_net.pth'
  if not path.is_file():
    pytest.skip('the shared weights are not on this machine')
  torch = pytest.importorskip('torch', reason='torch is the oracle here')
  expected = torch.load(path, map_location='cpu', weights_only=True)
  read = torch_archive.read(path)
  assert list(read) == list(expected)
  assert sum(array.size for array in read.values()) == 62_006
  for name, tensor in expected.items():
    np.testing.assert_array_equal(read[name], tensor.numpy(), err_msg=name)


class _Malicious:
  def __init__(self, marker):
    self.marker = marker

  def __reduce__(self):
    return os.system, (f'touch {self.marker}',)


@pytest.mark.parametrize('protocol', range(6))
def test_malicious_file_is_refused_by_the_name_of_its_global(
  tmp_path, protocol
):
  marker = tmp_path / 'executed'
  program = pickle.dumps({'w': _Malicious(marker)}, protocol)
  with zipfile.ZipFile(tmp_path / 'a.pth', 'w') as archive:
    archive.writestr('net/data.pkl', program)
  name = f'{os.system.__module__}.system'
  with pytest.raises(ValueError, match=f"a.pth: refused the global '{name}'"):
    torch_archive.read(tmp_path / 'a.pth')
  assert not marker.exists()


@pytest.mark.parametrize(
  'module, name',
  [
    ('builtins', 'eval'),
    ('builtins', 'getattr'),
    ('collections', 'OrderedDict.fromkeys'),
    ('numpy', 'load'),
    ('torch', 'load'),
    ('torch.nn.modules.linear', 'Linear'),
    ('jaxsens.weights.torch_archive', 'os'),
  ],
)
def test_every_other_global_is_refused(tmp_path, module, name):
  path = _write(tmp_path / 'a.pth', _pickled(_Global(module, name)))
  with pytest.raises(ValueError, match=f"refused the global '{module}.{name}'"):
    torch_archive.read(path)


@pytest.mark.parametrize(
  'target',
  [
    _Global('torch._utils', '_rebuild_tensor_v2'),
    _Global('torch', 'FloatStorage'),
    _Global('numpy', 'dtype'),
    _ORDERED,
  ],
)
@pytest.mark.parametrize('slots', [False, True])
def test_no_file_can_alter_the_reader(tmp_path, target, slots):
  # The opcode b sets attributes of what stands on the stack.
  state = {'__call__': 1, 'dtype': 1, 'update': 1}
  program = _pickled(target) + _pickled((None, state) if slots else state)
  path = _write(tmp_path / 'a.pth', program + b'b')
  with pytest.raises(ValueError, match='a.pth: truncated or damaged'):
    torch_archive.read(path)


@pytest.mark.parametrize(
  'offset, shape, strides',
  [
    (0, (13,), (1,)),
    (1, (4, 3), (3, 1)),
    (-1, (2,), (1,)),
    (0, (2,), (-1,)),
    (0, (2, 2), (1,)),
  ],
)
def test_tensors_that_leave_their_storage_are_refused(
  tmp_path, offset, shape, strides
):
  tensor = _tensor('FloatStorage', '0', 12, offset, shape, strides)
  path = _write(
    tmp_path / 'a.pth', _state_dict(w=tensor), {'0': NUMBERS.tobytes()}
  )
  with pytest.raises(ValueError, match='a.pth: tensor of shape'):
    torch_archive.read(path)


def test_missing_and_short_storages_are_refused(tmp_path):
  program = _state_dict(w=_tensor('FloatStorage', '0', 12, 0, (12,), (1,)))
  with pytest.raises(ValueError, match='member net/data/0 is missing'):
    torch_archive.read(_write(tmp_path / 'a.pth', program))
  path = _write(tmp_path / 'b.pth', program, {'0': NUMBERS[1:].tobytes()})
  with pytest.raises(ValueError, match="storage '0' has 44 bytes where 12"):
    torch_archive.read(path)


def test_big_endian_and_compressed_archives_are_refused(tmp_path):
  with pytest.raises(ValueError, match="byte order 'big'"):
    torch_archive.read(_write(tmp_path / 'a.pth', b'}', order='big'))
  with pytest.raises(ValueError, match='is compressed'):
    torch_archive.read(_write(tmp_path / 'b.pth', b'}', compress=True))


def test_truncated_damaged_and_foreign_files_are_refused(tmp_path):
  program = _state_dict(w=_tensor('FloatStorage', '0', 12, 0, (12,), (1,)))
  whole = _write(tmp_path / 'a.pth', program, {'0': NUMBERS.tobytes()})
  data = whole.read_bytes()
  cases = {
    'truncated archive, the directory': data[: len(data) // 2],
    'truncated or damaged': data.replace(NUMBERS.tobytes(), bytes(48)),
    'not a file that torch.save writes': b'PNG, perhaps',
    'tar format of torch 0.1': bytes(257) + b'ustar' + bytes(50),
  }
  for message, content in cases.items():
    path = tmp_path / 'b.pth'
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f'b.pth: .*{message}'):
      torch_archive.read(path)


def test_damaged_program_and_other_zip_archives_are_refused(tmp_path):
  path = _write(tmp_path / 'a.pth', b'(((')
  with pytest.raises(ValueError, match='a.pth: truncated or damaged'):
    torch_archive.read(path)
  with zipfile.ZipFile(tmp_path / 'b.pth', 'w') as archive:
    archive.writestr('readme.txt', 'nothing')
  with pytest.raises(ValueError, match='one <name>/data.pkl and holds none'):
    torch_archive.read(tmp_path / 'b.pth')


def _legacy(
  path, program, storages=(), *, protocol=1001, little_endian=True, keys=None
):
  """Writes the stream of before torch 1.6 by hand."""
  keys = [key for key, _ in storages] if keys is None else keys
  head = (protocol, {'little_endian': little_endian})
  content = torch_legacy.MAGIC
  content += b''.join(pickle.dumps(part, 2) for part in head)
  content += b'\x80\x02' + program + b'.' + pickle.dumps(keys, 2)
  for _, array in storages:
    content += array.size.to_bytes(8, 'little') + array.tobytes()
  path.write_bytes(content)
  return path


def test_legacy_stream_written_by_hand_is_read(tmp_path):
  tensor = _tensor('FloatStorage', '0', 12, 1, (2, 4), (1, 3))
  path = _legacy(tmp_path / 'a.pth', _state_dict(w=tensor), [('0', NUMBERS)])
  read = torch_archive.read(path)['w']
  np.testing.assert_array_equal(read, NUMBERS.reshape(4, 3).T[1:])
  assert not read.flags.writeable


@pytest.mark.parametrize(
  'dtype', ['float64', 'float32', 'float16', 'bfloat16', 'int64', 'uint8']
)
def test_legacy_files_of_torch_are_read_equal_to_torch(tmp_path, dtype):
  torch = pytest.importorskip('torch', reason='torch is the oracle here')
  matrix = torch.arange(12).reshape(4, 3).to(getattr(torch, dtype))
  content = {
    'epoch': 3,
    'state_dict': OrderedDict(
      whole=matrix, view=matrix.T[1:], other=torch.ones(2, 3),
      parameter=torch.nn.Parameter(torch.full((2,), 0.5)),
    ),
  }
  path = tmp_path / 'a.pth'
  torch.save(content, path, _use_new_zipfile_serialization=False)
  assert path.read_bytes().startswith(torch_legacy.MAGIC)
  read = torch_archive.read(path)
  assert read['epoch'] == 3
  for name, tensor in content['state_dict'].items():
    np.testing.assert_array_equal(
      read['state_dict'][name].astype(np.float64),
      tensor.detach().double().numpy(), err_msg=name,
    )


def test_malicious_legacy_file_is_refused_wherever_the_program_stands(tmp_path):
  marker = tmp_path / 'executed'
  evil = pickle.dumps(_Malicious(marker), 2)
  start = torch_legacy.MAGIC + pickle.dumps(1001, 2)
  system = pickle.dumps({'little_endian': True}, 2)
  for content in (
    torch_legacy.MAGIC + evil, start + evil, start + system + evil,
    start + system + b'\x80\x02}.' + evil,
  ):
    (tmp_path / 'a.pth').write_bytes(content)
    with pytest.raises(ValueError, match=r'a.pth: refused the global .*system'):
      torch_archive.read(tmp_path / 'a.pth')
  assert not marker.exists()


def test_damaged_legacy_files_are_refused(tmp_path):
  program = _state_dict(w=_tensor('FloatStorage', '0', 12, 0, (12,), (1,)))
  storage = [('0', NUMBERS)]
  path = tmp_path / 'a.pth'
  for message, options in {
    'protocol 7, only 1001': dict(protocol=7),
    'little-endian machine': dict(little_endian=False),
    r"storages \['0'\] are needed, \['1'\] follow": dict(keys=['1']),
  }.items():
    with pytest.raises(ValueError, match=f'a.pth: .*{message}'):
      torch_archive.read(_legacy(path, program, storage, **options))
  with pytest.raises(ValueError, match="'0' has 11 values in 44 bytes"):
    torch_archive.read(_legacy(path, program, [('0', NUMBERS[1:])]))
  large = _state_dict(w=_tensor('FloatStorage', '0', 2**40, 0, (1,), (1,)))
  with pytest.raises(ValueError, match='larger than what there is'):
    torch_archive.read(_legacy(path, large, storage))
  whole = _legacy(path, program, storage).read_bytes()
  for length in range(len(torch_legacy.MAGIC), len(whole), 7):
    path.write_bytes(whole[:length])
    with pytest.raises(ValueError, match='a.pth: '):
      torch_archive.read(path)


def test_references_that_are_no_storages_are_refused(tmp_path):
  for program in (b'K\x01Q', _pickled(('storage', 'x', '0', 'cpu', 1)) + b'Q'):
    with pytest.raises(ValueError, match='a.pth: unknown kind of'):
      torch_archive.read(_write(tmp_path / 'a.pth', program))


def test_missing_file_is_reported(tmp_path):
  with pytest.raises(FileNotFoundError, match='absent.pth'):
    torch_archive.read(tmp_path / 'absent.pth')
