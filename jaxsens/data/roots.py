"""Where the folder of a data set is looked for.

    root given          that folder, whether or not it exists
    $JAXSENS_DATA/NAME  one's own data sets
    $JAXSENS_SHARED/data/NAME
                        data sets shared between checkouts; the variable
                        defaults to `../shared`
"""

import os
import pathlib

DATA_VARIABLE = 'JAXSENS_DATA'
SHARED_VARIABLE = 'JAXSENS_SHARED'
_SHARED_DEFAULT = '../shared'


def find(root: str | os.PathLike | None, name: str) -> pathlib.Path | None:
  """Returns the folder of a data set.

  Args:
    root: the folder, or None or '' to look for one.
    name: name of the folder that is looked for.

  Returns:
    The given root, whether or not it exists; else the first folder of that
    name; else None.
  """
  if root:
    return pathlib.Path(root)
  for folder in _candidates(name):
    if folder.is_dir():
      return folder
  return None


def require(root: str | os.PathLike | None, name: str) -> pathlib.Path:
  """Returns the folder of a data set, which has to exist.

  Raises:
    FileNotFoundError: there is none; the message says where it was sought.
  """
  found = find(root, name)
  if found is None:
    sought = ', '.join(map(str, _candidates(name)))
    raise FileNotFoundError(
      f'no data set {name!r}: no root given and no folder at {sought}.'
    )
  if not found.is_dir():
    raise FileNotFoundError(f'{found}: the data root is no folder.')
  return found


def _candidates(name: str) -> list[pathlib.Path]:
  base = os.environ.get(DATA_VARIABLE)
  shared = os.environ.get(SHARED_VARIABLE) or _SHARED_DEFAULT
  own = [pathlib.Path(base) / name] if base else []
  return [*own, pathlib.Path(shared) / 'data' / name]
