"""Downloads a file: resumed where it broke off, verified before it has a name.

The bytes go to `<name>.part` beside the place of the file; a later call asks
the server for the rest of them (HTTP `Range`). A server that sends the whole
file again is taken at its word.

References:
  RFC 9110, HTTP Semantics, section 14.
"""

from collections.abc import Callable
import hashlib
import http.client
import os
import pathlib
import urllib.error
import urllib.request

Progress = Callable[[int, int | None], None]
"""(bytes that are there, bytes of the whole file or None) -> None."""

_CHUNK = 1 << 18
_AGENT = 'jaxsens'
_SATISFIED = 416
_PARTIAL = 206


def download(
  url: str,
  path: str | os.PathLike,
  *,
  sha256: str = '',
  progress: Progress | None = None,
  timeout: float = 30.0,
  num_tries: int = 3,
) -> None:
  """Downloads a file to `path`, which appears when it is whole and verified.

  Args:
    url: its address.
    path: where it goes; its folder is made.
    sha256: hexadecimal digits that its SHA-256 begins with; '' asks for none,
      and then what an earlier call left is fetched again.
    progress: called after every piece.
    timeout: seconds without an answer after which a try has failed.
    num_tries: how often a connection that broke is taken up again before this
      call gives up; what there is stays for the next.

  Raises:
    OSError: no connection, an answer other than the file, or a connection that
      broke num_tries times; the message names the address.
    ValueError: the file has another digest; it is removed.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  part = path.with_name(f'{path.name}.part')
  if not sha256:
    part.unlink(missing_ok=True)
  for i in range(num_tries):
    try:
      _continue(url, part, progress, timeout)
      break
    except urllib.error.HTTPError as error:
      raise OSError(f'{url}: {error.code} {error.reason}') from error
    except (OSError, http.client.HTTPException) as error:
      if i == num_tries - 1:
        reason = getattr(error, 'reason', error)
        raise OSError(f'{url}: {reason}') from error
  _verify(url, part, sha256)
  part.replace(path)


def _continue(
  url: str, part: pathlib.Path, progress: Progress | None, timeout: float
) -> None:
  """Appends to the part what is missing."""
  have = part.stat().st_size if part.exists() else 0
  headers = {'User-Agent': _AGENT, 'Accept-Encoding': 'identity'}
  if have:
    headers['Range'] = f'bytes={have}-'
  request = urllib.request.Request(url, headers=headers)
  try:
    answer = urllib.request.urlopen(request, timeout=timeout)
  except urllib.error.HTTPError as error:
    if not have or error.code != _SATISFIED:
      raise
    error.close()
    if _length_of_range(error.headers) == have:
      return
    # The part is of another file.
    part.unlink()
    return _continue(url, part, progress, timeout)
  with answer:
    resumed = _resumes_at(answer, have)
    _write(answer, part, have if resumed else 0, progress)


def _resumes_at(answer: http.client.HTTPResponse, have: int) -> bool:
  """Returns whether an answer goes on after so many bytes."""
  start = f'bytes {have}-'
  content_range = answer.headers.get('Content-Range', '')
  return have > 0 and answer.status == _PARTIAL and content_range.startswith(
    start
  )


def _length_of_range(headers: http.client.HTTPMessage) -> int | None:
  length = headers.get('Content-Range', '').rpartition('/')[2]
  return int(length) if length.isdigit() else None


def _write(
  answer: http.client.HTTPResponse,
  part: pathlib.Path,
  have: int,
  progress: Progress | None,
) -> None:
  length = answer.headers.get('Content-Length')
  total = have + int(length) if length and length.isdigit() else None
  with open(part, 'ab' if have else 'wb') as file:
    while chunk := answer.read(_CHUNK):
      file.write(chunk)
      have += len(chunk)
      if progress is not None:
        progress(have, total)
  if total is not None and have < total:
    raise ConnectionError(f'the connection broke after {have} of {total} bytes')


def _verify(url: str, part: pathlib.Path, sha256: str) -> None:
  with open(part, 'rb') as file:
    digest = hashlib.file_digest(file, 'sha256').hexdigest()
  if not digest.startswith(sha256.lower()):
    part.unlink()
    raise ValueError(
      f'{url}: SHA-256 of what came is {digest}, expected '
      f'{sha256}{"..." if len(sha256) < 64 else ""}; it was removed.'
    )
