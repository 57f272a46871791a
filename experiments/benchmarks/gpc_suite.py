"""The gPC engine beside its peers: error of Sobol indices by model runs.

Sections, each with a file of rows in the work folder:

  functions  Ishigami, Sobol-g, borehole, a steep sigmoid: errors and intervals
  adaptive   runs that Ishigami takes to an error of 1e-5
  coverage   how often intervals of least-squares fits hold the truth
  bootstrap  seconds of 1,000 resamples beside refits
  cifar      a LeNet on CIFAR-10 images against dense grids
  steel3     a ResNet18 on steel surfaces, three factors
  steel6     the same with six factors

The error is the largest absolute one over all first-order and total indices.
Keys and images that had a say when constants of the engine were chosen (keys
0 to 19 of the functions, key 0 and the first 16 images of CIFAR-10, 12 images
of steel) are left out or kept apart.

    python -m experiments.benchmark --suite=gpc --sections=functions,cifar

Sections that ran earlier in the same work folder are in the tables as well.
Truths of the studies take minutes per image; only those that are on disk are
used, unless `compute_truths` is set.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import functools
import pathlib
from typing import Any

from experiments.benchmarks import gpc_functions
from experiments.benchmarks import gpc_races
from experiments.benchmarks import gpc_studies
from experiments.benchmarks import tables

SECTIONS = (
  'functions', 'adaptive', 'coverage', 'bootstrap', 'cifar', 'steel3', 'steel6'
)  # fmt: skip

_FUNCTIONS = ('ishigami', 'sobol_g', 'borehole', 'steep_sigmoid')


def run(
  log: Callable[[str], Any],
  *,
  sections: Sequence[str] = SECTIONS,
  workdir: str = 'runs/benchmark-gpc',
  truth_folder: str = '',
  steel_workdir: str = '',
  compute_truths: bool = False,
  num_seeds: int = 20,
  first_key: int = 100,
  num_seeds_large: int = 3,
  function_sizes: Sequence[int] = (32, 64, 80, 128, 256, 512),
  peer_sizes: Sequence[int] = (64, 128, 256, 512),
  functions: Sequence[str] = ('ishigami', 'sobol_g', 'borehole'),
  max_saltelli: int = 8192,
  adaptive_sizes: Sequence[int] = tuple(range(40, 101, 5)),
  pygpc_tolerance: float = 1e-3,
  num_coverage_seeds: int = 200,
  num_resamples: int = 1000,
  bootstrap_size: tuple[int, int] = (1000, 6),
  cifar_images: int = 52,
  num_keys: int = 3,
  cifar_sizes: Sequence[int] = (64, 128, 256, 512, 1024, 2048, 4096),
  num_first: int = 12,
  num_others: int = 12,
  recipe_sizes: Sequence[int] = (1000, 10_000),
  pick_freeze_sizes: Sequence[int] = (1000, 4096, 10_000),
  gaussian_sizes: Sequence[int] = (128, 256, 512),
  steel_images: int = 20,
  steel_sizes: Sequence[int] = (64, 128, 256, 500, 1000),
  steel_recipe_images: int = 20,
  steel_recipe_size: int = 10_000,
  steel_truth_size: int = 1024,
) -> dict[str, Any]:
  """Measures some sections and returns the tables of all on disk.

  Args:
    log: receives one line of text at a time.
    sections: some of `SECTIONS`.
    workdir: holds the rows and the runs of the networks.
    truth_folder: of `studies.truth`; '' is workdir/truths.
    steel_workdir: run directory of the steel network; '' is workdir/steel.
    compute_truths: compute the truths that are missing.
    num_seeds: designs per function and size up to 300.
    first_key: of the designs of functions; the others follow it.
    num_seeds_large: the same above.
    function_sizes: runs of the engine on functions.
    peer_sizes: runs of the peers on functions.
    functions: names of problems of `coverage`.
    max_saltelli: base points up to which pick-freeze tries to reach 1 %.
    adaptive_sizes: runs that sparse regression tries on Ishigami.
    pygpc_tolerance: at which pygpc's adaptive regression stops.
    num_coverage_seeds: designs of each problem of `coverage`.
    num_resamples: resamples of the bootstrap.
    bootstrap_size: nodes, and degree of each of three factors.
    cifar_images: images, of which those with a truth are used.
    num_keys: keys from 0 on that each random method has on the images; the
      recipe on steel has key 0 alone.
    cifar_sizes: runs per image of the engine, growing.
    num_first: first images, which the peers get; a table of their own.
    num_others: the same of images on which no factor was tuned.
    recipe_sizes: runs per image of the source system's recipe.
    pick_freeze_sizes: runs per image of pick-freeze.
    gaussian_sizes: runs per image of the plain Gaussian process.
    steel_images: images of the steel studies.
    steel_sizes: runs per image of the engine there.
    steel_recipe_images: images that the recipe and pick-freeze get there.
    steel_recipe_size: runs per image of the recipe there.
    steel_truth_size: base points of each sample of the truths of six factors;
      truths on disk have one size or another.

  Raises:
    ValueError: an unknown section or function.
  """
  unknown = [name for name in sections if name not in SECTIONS]
  if unknown:
    raise ValueError(f'sections: expected some of {SECTIONS}, got {unknown}')
  unknown = [name for name in functions if name not in _FUNCTIONS]
  if unknown:
    raise ValueError(f'functions: expected some of {_FUNCTIONS}, got {unknown}')
  folder = pathlib.Path(workdir)
  folder.mkdir(parents=True, exist_ok=True)
  places = gpc_studies.Places(
    folder, pathlib.Path(truth_folder or folder / 'truths'),
    pathlib.Path(steel_workdir or folder / 'steel'), compute_truths,
  )

  def steel(num_factors: int) -> Iterator[tables.Row]:
    return gpc_studies.steel(
      log, places, num_factors, num_images=steel_images, num_keys=num_keys,
      sizes=steel_sizes, num_recipe_images=steel_recipe_images,
      recipe_size=steel_recipe_size, truth_size=steel_truth_size,
    )

  def of_function(name: str) -> Iterator[tables.Row]:
    return gpc_functions.errors(
      log, name, function_sizes, peer_sizes, first_key=first_key,
      num_seeds=num_seeds, num_seeds_large=num_seeds_large,
      max_saltelli=max_saltelli,
    )

  measure = {
    'adaptive': lambda: gpc_races.to_five_digits(
      log, adaptive_sizes, num_seeds, pygpc_tolerance
    ),
    'coverage': lambda: gpc_races.coverage_of_fits(num_coverage_seeds),
    'bootstrap': lambda: gpc_races.bootstrap(num_resamples, *bootstrap_size),
    'cifar': lambda: gpc_studies.cifar(
      log, places, num_images=cifar_images, num_keys=num_keys,
      sizes=cifar_sizes, num_first=num_first, num_others=num_others,
      recipe_sizes=recipe_sizes,
      pick_freeze_sizes=pick_freeze_sizes, gaussian_sizes=gaussian_sizes,
    ),
    'steel3': lambda: steel(3),
    'steel6': lambda: steel(6),
  }
  # Each function has a file of its own, so that they can run side by side.
  measure |= {
    f'functions-{name}': functools.partial(of_function, name)
    for name in _FUNCTIONS
  }
  chosen = []
  for section in sections:
    chosen += (
      [f'functions-{name}' for name in functions]
      if section == 'functions' else [section]
    )
  options = {
    'num_seeds': num_seeds, 'first_key': first_key, 'num_keys': num_keys,
    'cifar_images': cifar_images, 'steel_images': steel_images,
    'steel_truth_size': steel_truth_size,
  }
  for section in chosen:
    log(f'section {section}, load {tables.load()}')
    rows = measure[section]()
    for row in tables.record(folder, section, rows, options):
      log(tables.describe(row))
  return tables.read(folder, sorted(measure, key=_place))


def _place(section: str) -> tuple[int, str]:
  """Order of the tables."""
  return SECTIONS.index(section.partition('-')[0]), section
