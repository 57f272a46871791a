"""Files that are either whole or absent: written beside, then renamed."""

import errno
import os
import pathlib


def make_directory(path: str | os.PathLike) -> pathlib.Path:
  """Makes a directory and its parents and checks that it can be written.

  Raises:
    OSError: names the directory when it cannot be made or written.
  """
  path = pathlib.Path(path)
  try:
    path.mkdir(parents=True, exist_ok=True)
    probe = path / f'.write-test.{os.getpid()}'
    probe.touch()
    probe.unlink()
  except OSError as error:
    raise _explained(error, f'cannot write to the directory {path}') from error
  return path


def write_bytes(path: str | os.PathLike, content: bytes) -> pathlib.Path:
  """Writes a file in one step, making its directory if there is none.

  A reader, or a run killed at any moment, sees the old file or the new one.

  Args:
    path: Where to write.
    content: The whole file.

  Returns:
    The path.

  Raises:
    OSError: Names the file if the directory cannot be written or the disk is
      full; then no temporary file is left and an older file is untouched.
  """
  path = pathlib.Path(path)
  temporary = path.with_name(f'.{path.name}.{os.getpid()}')
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(temporary, 'wb') as file:
      file.write(content)
      file.flush()
      os.fsync(file.fileno())
    os.replace(temporary, path)
  except BaseException as error:
    temporary.unlink(missing_ok=True)
    if isinstance(error, OSError):
      raise _explained(error, f'cannot write {path}') from error
    raise
  return path


def write_text(path: str | os.PathLike, content: str) -> pathlib.Path:
  """Writes a UTF-8 text file as `write_bytes` does."""
  return write_bytes(path, content.encode('utf-8'))


def _explained(error: OSError, what: str) -> OSError:
  hint = ''
  if error.errno == errno.ENOSPC:
    hint = '; free some space and run the same command again to resume'
  if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
    hint = '; choose another directory with --workdir'
  return type(error)(
    error.errno, f'{what}: {error.strerror}{hint}. Files that were written '
    'before are kept'
  )
