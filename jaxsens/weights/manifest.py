"""The public weight files that this package knows, and where they may lie.

Nothing is downloaded: a file is used when it is already on the machine, and
only when its content has the digest that its publisher gives it. Licences are
in `third_party/weights.md`.
"""

from collections.abc import Iterator
import dataclasses
import hashlib
import os
import pathlib
import sys


@dataclasses.dataclass(frozen=True)
class PublicWeights:
  """A weight file of others.

  Attributes:
    filename: name under which its publisher gives it out.
    url: where it is published.
    sha256_prefix: first hexadecimal digits of its SHA-256.
    licence: licence of the code that it belongs to; the data it was trained on
      may ask for more.
  """

  filename: str
  url: str
  sha256_prefix: str
  licence: str


PUBLIC_WEIGHTS = {
  'resnet18': PublicWeights(
    filename='resnet18-f37072fd.pth',
    url='https://download.pytorch.org/models/resnet18-f37072fd.pth',
    sha256_prefix='f37072fd',
    licence='BSD-3-Clause',
  ),
  'lenet': PublicWeights(
    filename='cifar_net.pth',
    url='https://github.com/neozhixuan/SC1015_Z139_Team3',
    sha256_prefix='d87d120a52c75966',
    licence='none stated',
  ),
}


def find_pretrained(
  name: str, *, path: str | os.PathLike | None = None
) -> pathlib.Path | None:
  """Returns the local file with the pretrained weights of a network.

  Looked for in this order: `path`; the published file name in
  `$JAXSENS_CACHE/weights`, in `jaxsens/weights` of the user's cache folder, in
  torch's hub cache (`$TORCH_HOME/hub/checkpoints`) and in
  `$JAXSENS_SHARED/weights` (`../shared/weights`).

  Args:
    name: name of the network, a key of `PUBLIC_WEIGHTS`.
    path: a file of the user's own in any format that `convert` reads; its
      digest is not checked.

  Returns:
    The file, or None when there is none on this machine.

  Raises:
    FileNotFoundError: `path` is given and absent.
    ValueError: the name is unknown, or a file found has another digest than its
      publisher's.
  """
  if path is not None:
    if not pathlib.Path(path).is_file():
      raise FileNotFoundError(f'{path}: no such weight file.')
    return pathlib.Path(path)
  if name not in PUBLIC_WEIGHTS:
    raise ValueError(
      f'no public weights of {name!r} are known, only of '
      f'{sorted(PUBLIC_WEIGHTS)}.'
    )
  weights = PUBLIC_WEIGHTS[name]
  for folder in _folders():
    if (folder / weights.filename).is_file():
      return _verified(folder / weights.filename, weights.sha256_prefix)
  return None


def _folders() -> Iterator[pathlib.Path]:
  if os.environ.get('JAXSENS_CACHE'):
    yield pathlib.Path(os.environ['JAXSENS_CACHE']) / 'weights'
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


def _verified(path: pathlib.Path, sha256_prefix: str) -> pathlib.Path:
  with open(path, 'rb') as file:
    digest = hashlib.file_digest(file, 'sha256').hexdigest()
  if not digest.startswith(sha256_prefix):
    raise ValueError(
      f'{path}: SHA-256 begins with {digest[: len(sha256_prefix)]}, expected '
      f'{sha256_prefix}: the file is damaged or another one; remove it or '
      'fetch it again.'
    )
  return path
