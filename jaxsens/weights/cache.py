"""Where weight files lie on a machine, and how they get there.

A file counts only when its SHA-256 has the digits that are expected of it, and
is written under its name only after that: what lies in the cache is whole.
"""

from collections.abc import Iterator
import hashlib
import os
import pathlib
import sys

from jaxsens.weights import download


def folder() -> pathlib.Path:
  """Returns the folder that downloads go to.

  `$JAXSENS_CACHE/weights`, or `jaxsens/weights` in the user's cache folder.
  """
  own = os.environ.get('JAXSENS_CACHE')
  if own:
    return pathlib.Path(own).expanduser() / 'weights'
  return _user_cache() / 'jaxsens' / 'weights'


def folders() -> Iterator[pathlib.Path]:
  """Yields the folders that are looked into, in order.

  `folder()`, the user's cache folder, torch's hub cache
  (`$TORCH_HOME/hub/checkpoints`) and `$JAXSENS_SHARED/weights`
  (`../shared/weights`).
  """
  yield folder()
  if os.environ.get('JAXSENS_CACHE'):
    yield _user_cache() / 'jaxsens' / 'weights'
  torch_home = os.environ.get('TORCH_HOME')
  if torch_home:
    yield pathlib.Path(torch_home) / 'hub' / 'checkpoints'
  else:
    # torch uses this folder on every platform.
    cache = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
    yield pathlib.Path(cache) / 'torch' / 'hub' / 'checkpoints'
  shared = os.environ.get('JAXSENS_SHARED') or '../shared'
  yield pathlib.Path(shared) / 'weights'


def _user_cache() -> pathlib.Path:
  if os.environ.get('XDG_CACHE_HOME'):
    return pathlib.Path(os.environ['XDG_CACHE_HOME'])
  if sys.platform == 'darwin':
    return pathlib.Path.home() / 'Library' / 'Caches'
  if sys.platform == 'win32' and os.environ.get('LOCALAPPDATA'):
    return pathlib.Path(os.environ['LOCALAPPDATA'])
  return pathlib.Path.home() / '.cache'


def find(filename: str, sha256: str) -> pathlib.Path | None:
  """Returns the file of a name on this machine, or None.

  Args:
    filename: its name.
    sha256: its SHA-256 in hexadecimal digits, or the first of them.

  Raises:
    ValueError: the first file found has another digest.
  """
  for place in folders():
    if (place / filename).is_file():
      return verified(place / filename, sha256)
  return None


def is_present(filename: str) -> bool:
  """Returns whether a file of this name lies anywhere, unverified."""
  return any((place / filename).is_file() for place in folders())


def fetch(
  filename: str,
  url: str,
  sha256: str,
  *,
  progress: download.Progress | None = None,
) -> pathlib.Path:
  """Returns the file of a name, downloaded to `folder()` where it is absent.

  Args:
    filename: its name.
    url: address of the file.
    sha256: its SHA-256 in hexadecimal digits, or the first of them; '' where
      none is known, and then nothing is verified.
    progress: see `download.download`.

  Raises:
    FileNotFoundError: it is absent and cannot be had; the message says what to
      place where.
    ValueError: what was found or downloaded has another digest.
  """
  path = find(filename, sha256)
  if path is not None:
    return path
  target = folder() / filename
  try:
    download.download(url, target, sha256=sha256, progress=progress)
  except OSError as error:
    raise FileNotFoundError(
      f'{filename} is not on this machine and {url} could not be had '
      f'({error}). {how_to_place(filename, url, sha256)}'
    ) from error
  return target


def how_to_place(filename: str, url: str, sha256: str) -> str:
  """Returns the sentence that says how to provide a file by hand."""
  digest = f', SHA-256 {sha256}{"..." if len(sha256) < 64 else ""}'
  return (
    f'Get the file from {url} elsewhere and place it as {folder() / filename}'
    f'{digest if sha256 else ""}.'
  )


def verified(path: pathlib.Path, sha256: str) -> pathlib.Path:
  """Returns the path of a file whose digest begins as expected.

  Raises:
    ValueError: it does not; the message has both.
  """
  with open(path, 'rb') as file:
    digest = hashlib.file_digest(file, 'sha256').hexdigest()
  if not digest.startswith(sha256.lower()):
    raise ValueError(
      f'{path}: SHA-256 begins with {digest[: len(sha256)]}, expected '
      f'{sha256}: the file is damaged or another one; remove it or fetch it '
      'again.'
    )
  return path
