"""Downloads from a server of this machine that misbehaves when told to."""

import contextlib
import hashlib
import http.server
import re
import threading

import pytest

from jaxsens.weights import cache
from jaxsens.weights import download
from jaxsens.weights import manifest

CONTENT = bytes(range(256)) * 4096
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class _Handler(http.server.BaseHTTPRequestHandler):
  """Answers with CONTENT; `server.breaks` answers end halfway."""

  def do_GET(self):  # noqa: N802, the name that http.server calls
    server = self.server
    server.ranges.append(self.headers.get('Range'))
    if self.path == '/absent.pth':
      self.send_error(404)
      return
    begin = 0
    found = re.fullmatch(r'bytes=(\d+)-', self.headers.get('Range', ''))
    if found and server.has_range:
      begin = int(found.group(1))
    if begin >= len(CONTENT):
      self.send_response(416)
      self.send_header('Content-Range', f'bytes */{len(CONTENT)}')
      self.send_header('Content-Length', '0')
      self.end_headers()
      return
    body = CONTENT[begin:]
    self.send_response(206 if begin else 200)
    if begin:
      last = len(CONTENT) - 1
      self.send_header('Content-Range', f'bytes {begin}-{last}/{len(CONTENT)}')
    self.send_header('Content-Length', str(len(body)))
    self.end_headers()
    if server.breaks:
      server.breaks -= 1
      body = body[: len(body) // 2]
    self.wfile.write(body)

  def log_message(self, *_):
    pass


@pytest.fixture
def server():
  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), _Handler)
  server.breaks, server.has_range, server.ranges = 0, True, []
  server.url = f'http://127.0.0.1:{server.server_port}/net.pth'
  thread = threading.Thread(target=server.serve_forever, args=(0.01,))
  thread.start()
  yield server
  server.shutdown()
  server.server_close()
  thread.join()


def _files(folder):
  return sorted(path.name for path in folder.iterdir())


def test_file_comes_whole_and_progress_ends_at_its_size(server, tmp_path):
  seen = []
  download.download(
    server.url, tmp_path / 'new' / 'net.pth', sha256=DIGEST,
    progress=lambda have, total: seen.append((have, total)),
  )
  assert (tmp_path / 'new' / 'net.pth').read_bytes() == CONTENT
  assert _files(tmp_path / 'new') == ['net.pth']
  assert seen[-1] == (len(CONTENT), len(CONTENT))
  assert [have for have, _ in seen] == sorted(have for have, _ in seen)


def test_broken_connection_is_taken_up_where_it_ended(server, tmp_path):
  server.breaks = 2
  download.download(server.url, tmp_path / 'net.pth', sha256=DIGEST)
  assert (tmp_path / 'net.pth').read_bytes() == CONTENT
  half = len(CONTENT) // 2
  assert server.ranges == [
    None, f'bytes={half}-', f'bytes={half + half // 2}-'
  ]


def test_later_call_resumes_and_until_then_the_file_has_no_name(
  server, tmp_path
):
  server.breaks = 1
  with pytest.raises(OSError, match=f'{server.url}: the connection broke'):
    download.download(
      server.url, tmp_path / 'net.pth', sha256=DIGEST, num_tries=1
    )
  assert _files(tmp_path) == ['net.pth.part']
  download.download(server.url, tmp_path / 'net.pth', sha256=DIGEST)
  assert _files(tmp_path) == ['net.pth']
  assert (tmp_path / 'net.pth').read_bytes() == CONTENT
  assert server.ranges[-1] == f'bytes={len(CONTENT) // 2}-'


def test_server_without_ranges_sends_all_of_it_again(server, tmp_path):
  server.breaks, server.has_range = 1, False
  download.download(server.url, tmp_path / 'net.pth', sha256=DIGEST)
  assert (tmp_path / 'net.pth').read_bytes() == CONTENT


@pytest.mark.parametrize('rest', [b'', b'too much'])
def test_complete_part_is_used_and_a_longer_one_fetched_again(
  server, tmp_path, rest
):
  (tmp_path / 'net.pth.part').write_bytes(CONTENT + rest)
  download.download(server.url, tmp_path / 'net.pth', sha256=DIGEST)
  assert (tmp_path / 'net.pth').read_bytes() == CONTENT
  assert len(server.ranges) == (2 if rest else 1)


def test_part_of_another_file_is_found_by_the_digest(server, tmp_path):
  (tmp_path / 'net.pth.part').write_bytes(b'other')
  with pytest.raises(ValueError, match='SHA-256 of what came is .*removed'):
    download.download(server.url, tmp_path / 'net.pth', sha256=DIGEST)
  assert _files(tmp_path) == []


def test_without_a_digest_nothing_is_resumed(server, tmp_path):
  (tmp_path / 'net.pth.part').write_bytes(b'other')
  download.download(server.url, tmp_path / 'net.pth')
  assert (tmp_path / 'net.pth').read_bytes() == CONTENT


def test_wrong_digest_and_absent_file_are_reported(server, tmp_path):
  with pytest.raises(ValueError, match=f'is {DIGEST}, expected 0123abcd...'):
    download.download(server.url, tmp_path / 'net.pth', sha256='0123abcd')
  assert _files(tmp_path) == []
  absent = server.url.replace('net', 'absent')
  with pytest.raises(OSError, match=f'{absent}: 404'):
    download.download(absent, tmp_path / 'absent.pth')


@pytest.fixture
def empty_caches(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'user'))
  monkeypatch.delenv('TORCH_HOME', raising=False)
  monkeypatch.setenv('JAXSENS_CACHE', str(tmp_path / 'own'))
  monkeypatch.setenv('JAXSENS_SHARED', str(tmp_path / 'shared'))
  return tmp_path


def _entry(url, digest=DIGEST, name='resnet18.test'):
  return manifest.PublicWeights(name, 'net.pth', url, digest, 'MIT')


def test_entry_is_fetched_once_and_found_afterwards(
  server, empty_caches, monkeypatch
):
  monkeypatch.setitem(
    manifest.PUBLIC_WEIGHTS, 'resnet18.test', _entry(server.url)
  )
  assert manifest.find_pretrained('resnet18.test') is None
  path = manifest.fetch('resnet18.test')
  assert path == empty_caches / 'own' / 'weights' / 'net.pth'
  assert manifest.fetch('resnet18.test') == path
  assert len(server.ranges) == 1
  assert manifest.find_pretrained('resnet18.test') == path


def test_offline_one_error_says_what_to_place_where(
  empty_caches, monkeypatch
):
  # Nothing listens at this port of this machine.
  with contextlib.closing(
    http.server.HTTPServer(('127.0.0.1', 0), _Handler).socket
  ) as socket:
    port = socket.getsockname()[1]
  url = f'http://127.0.0.1:{port}/net.pth'
  monkeypatch.setitem(manifest.PUBLIC_WEIGHTS, 'resnet18.test', _entry(url))
  with pytest.raises(FileNotFoundError) as caught:
    manifest.fetch('resnet18.test')
  message = str(caught.value)
  assert message.count('\n') == 0
  for part in (
    url, 'net.pth', str(empty_caches / 'own' / 'weights' / 'net.pth'), DIGEST
  ):
    assert part in message


def test_file_that_is_not_given_out_is_asked_for(empty_caches):
  with pytest.raises(FileNotFoundError) as caught:
    manifest.fetch('resnet18.pqf')
  assert 'permute-quantize-finetune' in str(caught.value)
  assert str(empty_caches / 'own' / 'weights') in str(caught.value)


def _place(path, content):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(content)
  return path


def test_pretrained_weights_are_found_in_the_caches_in_order(
  empty_caches, monkeypatch
):
  monkeypatch.setitem(
    manifest.PUBLIC_WEIGHTS, 'resnet18.test', _entry('https://', DIGEST[:8])
  )
  assert manifest.find_pretrained('resnet18.test') is None
  assert not cache.is_present('net.pth')
  # Each place is looked into before the ones filled so far.
  for place in (
    'shared/weights', 'user/torch/hub/checkpoints', 'user/jaxsens/weights',
    'own/weights',
  ):
    path = _place(empty_caches / place / 'net.pth', CONTENT)
    assert manifest.find_pretrained('resnet18.test') == path
  assert cache.is_present('net.pth')


def test_default_cache_is_that_of_the_user(empty_caches, monkeypatch):
  monkeypatch.delenv('JAXSENS_CACHE')
  assert cache.folder() == empty_caches / 'user' / 'jaxsens' / 'weights'


def test_pretrained_weights_of_another_digest_are_refused(empty_caches):
  path = empty_caches / 'own' / 'weights' / 'resnet18-f37072fd.pth'
  _place(path, b'something else')
  with pytest.raises(ValueError, match='expected f37072fd'):
    manifest.find_pretrained('resnet18')
  with pytest.raises(ValueError, match='expected f37072fd'):
    manifest.fetch('resnet18')


def test_explicit_weights_are_used_or_reported_missing(empty_caches):
  path = _place(empty_caches / 'mine.npz', b'')
  assert manifest.find_pretrained('any', path=path) == path
  with pytest.raises(FileNotFoundError, match='absent.npz'):
    manifest.find_pretrained('any', path=empty_caches / 'absent.npz')
  assert manifest.find_pretrained('cnn') is None
  with pytest.raises(ValueError, match="'vgg99' are known, only of"):
    manifest.find_pretrained('vgg99')
