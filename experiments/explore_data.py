r"""Writes a page about a data set: what is in it and what would spoil results.

  python -m experiments.explore_data --config=configs/steel.py
  python -m experiments.explore_data --data=neu_seg --root=DIR
  python -m experiments.explore_data --data=folder --root=DIR \
      --option=channels=1 --option=skip_unreadable=True

The page `data.html`, its numbers `data.json` and its pictures go to
`runs/data-<name>`, or `--workdir`. Every image is decoded once; the 1,800
images of configs/steel.py take about half a minute on two CPU cores.
"""

import ast
from collections.abc import Mapping
import pathlib

from absl import app
from absl import flags
import jax
from ml_collections import ConfigDict
import numpy as np
import tqdm

from experiments import runs
from experiments import train
from jaxsens import files
from jaxsens.data import image_sets
from jaxsens.data import measurements
from jaxsens.data import similarity
from jaxsens.data import sources
from jaxsens.data import summary
from jaxsens.reports import data_figures
from jaxsens.reports import data_page
from jaxsens.reports import data_results

_DATA = flags.DEFINE_string(
  'data', None, 'Name of a data source, instead of --config.'
)
_ROOT = flags.DEFINE_string('root', None, 'Folder of the data, with --data.')
_OPTION = flags.DEFINE_multi_string(
  'option', [], 'name=value of an option of the source, with --data.'
)
_THRESHOLD = flags.DEFINE_float(
  'threshold', 0.95, 'Correlation from which on images are nearly equal.'
)

_NUM_EXAMPLES = 9
_NUM_PICTURED = 12
_MAX_PAIRS = 100_000


def explore(
  key: jax.Array,
  splits: image_sets.Splits,
  title: str,
  threshold: float = 0.95,
) -> data_results.DataResult:
  """Looks at every image of a data set.

  Args:
    key: of the images that are shown.
    splits: the data set.
    title: of the page.
    threshold: correlation of thumbnails from which on images are called nearly
      equal.
  """
  sets = [getattr(splits, part) for part in summary.PARTS]
  with tqdm.tqdm(total=sum(map(len, sets)), unit='image') as bar:
    measured = [measurements.measure(s, on_image=bar.update) for s in sets]
  found = summary.summarise(splits, measured)
  everything = measurements.join(measured)
  labels = np.concatenate([s.labels for s in sets])
  names = [
    f'{part}/{name}'
    for part, s in zip(summary.PARTS, sets, strict=True) for name in s.names
  ]
  positions = [(p, i) for p, s in enumerate(sets) for i in range(len(s))]
  image = lambda i: sets[positions[i][0]].images[positions[i][1]]
  scores, shares = similarity.principal_components(everything.thumbnails)
  equal, near, truncated = _pairs(
    everything, names, labels, found.class_names, threshold
  )
  of_class = [
    np.flatnonzero(labels == k) for k in range(len(found.class_names))
  ]
  shown = sorted(equal + near, key=lambda pair: not pair[1].across)
  groups = [group for s in sets for group in s.groups]
  return data_results.DataResult(
    title=title,
    line=summary.line(found),
    descriptions={
      part: s.description
      for part, s in zip(summary.PARTS, sets, strict=True) if len(s)
    },
    class_names=found.class_names,
    parts=found.parts,
    counts=found.counts,
    sizes=found.sizes,
    mean=found.mean,
    std_of_pixels=found.std_of_pixels,
    mean_std_of_images=found.mean_std_of_images,
    class_means=_by_class(of_class, everything.means),
    histograms=everything.histograms,
    labels=labels,
    scores=scores,
    shares=shares,
    mean_images=_by_class(of_class, everything.thumbnails),
    examples=tuple(
      [image(i) for i in _choose(jax.random.fold_in(key, k), chosen)]
      for k, chosen in enumerate(of_class)
    ),
    duplicates=found.duplicates,
    leaking_duplicates=found.leaking_duplicates,
    mislabelled=found.labels_differ,
    leaking_groups=found.leaking_groups,
    num_groups=int((np.unique(groups, return_counts=True)[1] > 1).sum()),
    near=tuple(pair for _, pair in near),
    threshold=threshold,
    truncated=truncated,
    pictured=tuple(
      (pair, image(i), image(j)) for (i, j), pair in _pictured(shown)
    ),
  )


def _pairs(everything, names, labels, class_names, threshold):
  """Returns equal pairs, nearly equal ones, and whether there are more."""
  pairs, correlations = similarity.near_duplicates(
    everything.thumbnails, threshold=threshold, max_pairs=_MAX_PAIRS
  )
  equal, near, first = [], [], {}
  for i, digest in enumerate(everything.digests):
    if digest in first:
      equal.append(((first[digest], i), 1.0))
    first.setdefault(digest, i)
  for (i, j), correlation in zip(pairs.tolist(), correlations, strict=True):
    if everything.digests[i] != everything.digests[j]:
      near.append(((i, j), min(float(correlation), 0.99999)))
  named = lambda found: [
    (
      (i, j),
      data_results.Pair(
        names=(names[i], names[j]),
        classes=(class_names[labels[i]], class_names[labels[j]]),
        correlation=correlation,
      ),
    )
    for (i, j), correlation in found
  ]
  return named(equal), named(near), len(pairs) == _MAX_PAIRS


def _pictured(shown):
  """Returns the first pairs, each image in one of them only."""
  chosen, seen = [], set()
  for (i, j), pair in shown:
    if len(chosen) < _NUM_PICTURED and not seen & {i, j}:
      chosen.append(((i, j), pair))
      seen |= {i, j}
  return chosen


def _by_class(of_class, values):
  blank = np.full(values.shape[1:], np.nan)
  return np.stack([
    values[chosen].mean(0) if len(chosen) else blank for chosen in of_class
  ])


def _choose(key, chosen):
  # Sorted on the host: XLA takes seconds to compile a sort on CPU.
  draws = np.asarray(jax.random.bits(key, (len(chosen),)))
  return chosen[np.argsort(draws)[:_NUM_EXAMPLES]].tolist()


def write(
  workdir: pathlib.Path, result: data_results.DataResult
) -> pathlib.Path:
  """Writes page, numbers and pictures; returns the path of the page."""
  files.make_directory(workdir)
  figures = data_figures.draw_all(result)
  for stem, png in figures.items():
    files.write_bytes(workdir / f'{stem}.png', png)
  runs.write_json(workdir / 'data.json', data_results.as_dict(result))
  return data_page.write_page(workdir / 'data.html', result, figures)


def run(config: ConfigDict, workdir: pathlib.Path) -> dict:
  """Explores the data of a config; returns the numbers of the page."""
  key_data, *_, key_shown = runs.split_keys(config)
  splits = train.load_data(key_data, config)
  return _finish(key_shown, splits, f'Data of {config.name}', workdir)


def run_source(
  name: str, root: str | None, options: Mapping, workdir: pathlib.Path
) -> dict:
  """Explores a data source; returns the numbers of the page."""
  key_data, key_shown = jax.random.split(jax.random.key(0))
  chosen = {**sources.find(name).defaults, **options}
  splits = sources.load(name, key_data, root=root or None, **chosen)
  return _finish(key_shown, splits, f'Data of {name}', workdir)


def _finish(key, splits, title, workdir):
  result = explore(key, splits, title, _THRESHOLD.value)
  path = write(workdir, result)
  print(result.line)
  for fault in data_page.faults(result):
    print(f'  {fault}')
  print(path)
  return data_results.as_dict(result)


def parse_options(texts: list[str]) -> dict:
  """Returns {name: value} of name=value texts; values as in Python, or text.

  Raises:
    ValueError: a text has no '='.
  """
  options = {}
  for text in texts:
    name, separator, value = text.partition('=')
    if not separator or not name.isidentifier():
      raise ValueError(f'--option={text}: expected name=value.')
    try:
      options[name] = ast.literal_eval(value)
    except (ValueError, SyntaxError):
      options[name] = value
  return options


def main(argv: list[str]) -> None:
  """Explores what --data names, or else the data of --config."""
  if _DATA.value is None:
    if flags.FLAGS.config is None:
      raise SystemExit('--config=configs/steel.py or --data=NAME is needed')
    runs.make_main(run)(argv)
    return
  if len(argv) > 1:
    raise SystemExit(f'unexpected arguments: {argv[1:]}')
  workdir = flags.FLAGS.workdir or f'runs/data-{_DATA.value}'
  try:
    options = parse_options(_OPTION.value)
    run_source(_DATA.value, _ROOT.value, options, pathlib.Path(workdir))
  except (ValueError, OSError, TypeError, ImportError) as error:
    raise SystemExit(f'error: {error}') from error


if __name__ == '__main__':
  app.run(main)
