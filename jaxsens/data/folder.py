"""Finds labelled image files below a data root, in three layouts.

  labels.csv   root/labels.csv with columns 'file' (relative to root) and
               'label'. Files below train/ are the training pool, all others
               the test set.
  json         root/train/train.json and, if there is one,
               root/test/test.json: path relative to the json -> label.
  classes      root/train/<class>/... and, if there is one,
               root/test/<class>/...; or root/<class>/... alone.

The first layout that is found counts, in this order. The folder that a file
lies in names its recording; in a class folder, only a folder below that of
the class does, else each file is a recording of its own.
"""

from collections.abc import Sequence
import csv
import dataclasses
import json
import pathlib

from jaxsens.data import image_files

LAYOUTS = (
    "(1) labels.csv with columns 'file' and 'label' beside train/, "
    '(2) train/train.json with an optional test/test.json, each mapping '
    'relative path to label, '
    '(3) folders of classes train/<class>/ with an optional test/<class>/, '
    'or <class>/ alone'
)


@dataclasses.dataclass(frozen=True)
class LabelledFiles:
  """Image files with labels.

  Attributes:
    paths: the files.
    labels: class of each, in [0, number of classes).
    names: path of each relative to the root, with forward slashes.
    groups: recording of each.
  """

  paths: tuple[pathlib.Path, ...]
  labels: tuple[int, ...]
  names: tuple[str, ...]
  groups: tuple[str, ...]

  def __len__(self) -> int:
    return len(self.paths)

  def take(self, indices: Sequence[int]) -> 'LabelledFiles':
    """Returns the files of the given positions."""
    fields = dataclasses.fields(self)
    return LabelledFiles(*(
        tuple(getattr(self, field.name)[i] for i in indices) for field in fields
    ))


@dataclasses.dataclass(frozen=True)
class Listing:
  """What lies below a data root.

  Attributes:
    pool: files to train and validate with.
    test: files of the data's own test set, None if it has none.
    separates: whether that test set was made to judge the pool by, so that
      no recording need be held back from the pool.
  """

  pool: LabelledFiles
  test: LabelledFiles | None
  separates: bool


def list_files(root: pathlib.Path, class_names: Sequence[str]) -> Listing:
  """Finds the files of a data root and checks that all of them exist.

  Args:
    root: the folder.
    class_names: name of each class, in the order of the labels.

  Returns:
    The training pool and the test set.

  Raises:
    FileNotFoundError: if the root or files that it lists are missing.
    ValueError: if the root is empty, has no known layout, or a list in it is
      malformed or has a label out of range.
  """
  root = pathlib.Path(root)
  if not root.is_dir():
    raise FileNotFoundError(f'{root}: the data root is no folder.')
  if not any(root.iterdir()):
    raise ValueError(f'{root}: the data root is empty. Expected {LAYOUTS}.')
  if (root / 'labels.csv').is_file():
    return _from_csv(root, class_names)
  if (root / 'train' / 'train.json').is_file():
    return _from_json(root, class_names)
  return _from_class_folders(root, class_names)


def readable(
    pool: LabelledFiles, test: LabelledFiles | None, *, channels: int
) -> tuple[LabelledFiles, LabelledFiles | None, str]:
  """Returns the files of both that can be decoded, and which cannot in words.

  Raises:
    ValueError: if none of the pool can.
  """
  skipped, kept = [], []
  for files in (pool, test):
    if files is None:
      kept.append(None)
      continue
    bad = set(image_files.unreadable(files.paths, channels=channels))
    skipped += [files.names[i] for i in sorted(bad)]
    kept.append(files.take([i for i in range(len(files)) if i not in bad]))
  if not len(kept[0]):
    raise ValueError(f'all {len(pool)} image files are unreadable.')
  return kept[0], kept[1] or None, image_files.skipped_note(skipped)


def _from_csv(root, class_names):
  path = root / 'labels.csv'
  with path.open(newline='', encoding='utf-8') as file:
    reader = csv.DictReader(file)
    if not {'file', 'label'} <= set(reader.fieldnames or ()):
      raise ValueError(
          f"{path}: expected columns 'file' and 'label', got "
          f'{reader.fieldnames}.'
      )
    rows = [(row['file'], row['label']) for row in reader]
  files = _checked(path, root, root, rows, class_names)
  in_pool = [name.startswith('train/') for name in files.names]
  pool = files.take([i for i, inside in enumerate(in_pool) if inside])
  test = files.take([i for i, inside in enumerate(in_pool) if not inside])
  if not pool:
    raise ValueError(f'{path}: no file below train/ is listed.')
  return Listing(pool, test if len(test) else None, separates=False)


def _from_json(root, class_names):
  parts = {}
  for part in ('train', 'test'):
    path = root / part / f'{part}.json'
    if path.is_file():
      rows = _read_json(path)
      parts[part] = _checked(path, path.parent, root, rows, class_names)
  test = parts.get('test')
  return Listing(parts['train'], test, separates=test is not None)


def _read_json(path):
  try:
    content = json.loads(path.read_text(encoding='utf-8'))
  except (json.JSONDecodeError, UnicodeDecodeError) as error:
    raise ValueError(f'{path}: malformed json ({error}).') from error
  if not isinstance(content, dict):
    raise ValueError(
        f'{path}: expected a json object of path -> label, got a '
        f'{type(content).__name__}.'
    )
  return list(content.items())


def _checked(source, base, root, rows, class_names):
  """Returns the files of (path, label) rows, all of them checked."""
  if not rows:
    raise ValueError(f'{source}: no image is listed.')
  labels = [_label(source, name, label, class_names) for name, label in rows]
  for name, _ in rows:
    if pathlib.PurePath(name).is_absolute():
      raise ValueError(f'{source}: {name} is no path relative to {base}.')
  paths = [base / name for name, _ in rows]
  absent = [name for name, _ in rows if not (base / name).is_file()]
  if absent:
    raise FileNotFoundError(
        f'{source}: {len(absent)} of {len(rows)} listed files are absent '
        f'below {base}, first {", ".join(absent[:3])}.'
    )
  names = [path.relative_to(root).as_posix() for path in paths]
  if len(set(names)) < len(names):
    twice = next(name for name in names if names.count(name) > 1)
    raise ValueError(f'{source}: {twice} is listed more than once.')
  groups = [path.parent.name for path in paths]
  return LabelledFiles(tuple(paths), tuple(labels), tuple(names), tuple(groups))


def _label(source, name, label, class_names):
  try:
    number = int(label)
    whole = not isinstance(label, bool) and number == float(label)
  except (TypeError, ValueError):
    number, whole = -1, False
  if not whole or not 0 <= number < len(class_names):
    raise ValueError(
        f'{source}: label {label!r} of {name} is out of range, expected an '
        f'integer in [0, {len(class_names)}): {", ".join(class_names)}.'
    )
  return number


def _from_class_folders(root, class_names):
  if (root / 'train').is_dir():
    test_root = root / 'test'
    pool = _class_files(root / 'train', root, class_names)
    test = None
    if test_root.is_dir():
      test = _class_files(test_root, root, class_names)
    return Listing(pool, test, separates=test is not None)
  return Listing(_class_files(root, root, class_names), None, separates=False)


def _class_files(base, root, class_names):
  """Lists the images below folders named after classes or their numbers."""
  known = {_plain(name): i for i, name in enumerate(class_names)}
  known |= {str(i): i for i in range(len(class_names))}
  folders = sorted(f for f in base.iterdir() if f.is_dir())
  unknown = [f.name for f in folders if _plain(f.name) not in known]
  if not folders or len(unknown) == len(folders):
    raise ValueError(f'{base}: unknown layout. Expected {LAYOUTS}.')
  if unknown:
    raise ValueError(
        f'{base}: folders {unknown} are no classes. Expected names among '
        f'{list(class_names)} or their numbers.'
    )
  files = [
      (path, known[_plain(folder.name)], folder)
      for folder in folders
      for path in sorted(folder.rglob('*'))
      if path.suffix.lower() in image_files.SUFFIXES
  ]
  if not files:
    raise ValueError(f'{base}: the class folders hold no image files.')
  names = tuple(path.relative_to(root).as_posix() for path, _, _ in files)
  groups = tuple(
      path.parent.relative_to(base).as_posix() if path.parent != folder
      else name
      for (path, _, folder), name in zip(files, names, strict=True)
  )
  return LabelledFiles(
      tuple(path for path, _, _ in files),
      tuple(label for _, label, _ in files),
      names,
      groups,
  )


def _plain(name):
  """Returns a class name without case and punctuation."""
  return ' '.join(name.lower().replace('_', ' ').replace('-', ' ').split())
