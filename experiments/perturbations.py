"""Shows every registered perturbation on an image, over its range.

  python -m experiments.perturbations --config=configs/weld.py
  python -m experiments.perturbations --config=configs/weld.py --image=part.png
  python -m experiments.perturbations --config=configs/weld.py \
    --catalogue=docs/perturbations
  python -m experiments.perturbations --config=configs/weld.py \
    --symptom='the housing vibrates'
  python -m experiments.perturbations --config=configs/weld.py \
    --image=photo.jpg --severities=imagenet_c

Writes a contact sheet per family into the run directory; with --catalogue also
a page per perturbation with pictures, units, limits and code; with --severities
instead one sheet of a benchmark's 19 corruptions at severity 1 to 5 and between
2 and 3, on the middle of the image at the benchmark's size.
"""

from collections.abc import Sequence
import math
import pathlib

from absl import app
from absl import flags
import chaospy
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np
from PIL import Image
import tqdm

from experiments import runs
from experiments import train
from experiments import training_fields
from jaxsens import factors
from jaxsens import files
from jaxsens.perturbations import chains
from jaxsens.perturbations import perturbation as perturbation_lib
from jaxsens.perturbations import registry
from jaxsens.perturbations import severity
from jaxsens.perturbations import severity_tables
from jaxsens.reports import catalogue
from jaxsens.reports import style

_IMAGE = flags.DEFINE_string(
  'image', None, 'Image file to show; default: the first test image.'
)
_CATALOGUE = flags.DEFINE_string(
  'catalogue', None, 'Folder to write a page per perturbation into.'
)
_SYMPTOM = flags.DEFINE_string(
  'symptom', None, 'What an operator says; lists what may be behind it.'
)
_SEVERITIES = flags.DEFINE_enum(
  'severities', None, severity.BENCHMARKS,
  'Benchmark whose severities are shown, instead of the perturbations.'
)
_NUM_PICTURES = 7
_PAGE_SIZE = 112
# Parts of the way from the identity to the far end of the sensible range.
_LEVELS = (0.0, 0.25, 0.5, 1.0)
# Of the sheet of severities: the published ones and one between.
_SHOWN_SEVERITIES = (1.0, 2.0, 2.5, 3.0, 4.0, 5.0)


def run(config: ConfigDict, workdir: pathlib.Path) -> dict:
  """Writes the contact sheets, and the catalogue if asked; returns paths."""
  if _SYMPTOM.value is not None:
    return _answer(_SYMPTOM.value)
  key, key_data = jax.random.split(jax.random.key(config.seed))
  image, described = _load(config, key_data)
  if _SEVERITIES.value is not None:
    return _write_severities(
      key, image, described, _SEVERITIES.value, workdir / 'perturbations'
    )
  size = training_fields.image_size(config)
  families = {}
  for name in tqdm.tqdm(registry.names(), unit='perturbation'):
    found = registry.get(name)
    values = _range(found)
    families.setdefault(found.family, []).append(catalogue.Row(
      name, found.unit, values, render(key, image, found, values, size)
    ))
  written = {}
  folder = workdir / 'perturbations'
  files.make_directory(folder)
  for family, rows in families.items():
    path = folder / f'{family.replace(" ", "_")}.png'
    sheet = catalogue.plot_sheet(f'{family.capitalize()} on {described}', rows)
    files.write_bytes(path, style.render_png(sheet))
    written[family] = str(path)
    runs.LOG.info('%s', path)
  if _CATALOGUE.value:
    pages = pathlib.Path(_CATALOGUE.value)
    entries = [
      make_entry(key, _tinted(image), registry.get(name))
      for name in registry.names()
    ]
    catalogue.write_pages(
      pages, entries,
      f'Pictures: {described}{", tinted" if image.shape[2] == 1 else ""}.',
    )
    runs.LOG.info('%s', pages / 'README.md')
    written['catalogue'] = str(pages)
  return written


def render(
  key: jax.Array,
  image: np.ndarray,
  found: perturbation_lib.Perturbation,
  values: Sequence[float],
  size: tuple[int, int],
) -> np.ndarray:
  """Returns pictures (N, H', W', C) at values of the main parameter.

  Args:
    key: of what is random.
    image: (H, W, C) in [0, 1].
    found: the perturbation; its other parameters keep their defaults.
    values: N of them.
    size: (H', W').
  """
  space = factors.FactorSpace((
    factors.Factor(found.name, chaospy.Uniform(*found.sensible_range)),
  ))
  chain = chains.make_chain(space, size)
  prepared = chain.prepare(image)
  apply = jax.jit(lambda value: chain.apply(prepared, value[None], key))
  return np.stack([apply(jnp.asarray(value, jnp.float32)) for value in values])


def render_severities(
  key: jax.Array,
  image: np.ndarray,
  benchmark: str,
  severities: Sequence[float] = _SHOWN_SEVERITIES,
) -> list[catalogue.Row]:
  """Returns a row per corruption of a benchmark, all of the same draws.

  Args:
    key: of what is random; the same for all corruptions and severities.
    image: (H, W, C) in [0, 1] of the benchmark's size.
    benchmark: one of `severity.BENCHMARKS`.
    severities: in [1, 5].
  """
  rows = []
  for name in tqdm.tqdm(severity.names(benchmark), unit='corruption'):
    corrupt = getattr(severity, benchmark)
    rows.append(catalogue.Row(
      name, 'severity', tuple(severities),
      np.stack([
        jax.jit(corrupt(name, s))(image, key) for s in severities
      ]),
    ))
  return rows


def make_entry(
  key: jax.Array, image: np.ndarray, found: perturbation_lib.Perturbation
) -> catalogue.Entry:
  """Returns the page of a perturbation."""
  lower, upper = found.sensible_range
  far = max((upper, lower), key=lambda end: abs(end - found.identity))
  levels = tuple(
    found.identity + part * (far - found.identity) for part in _LEVELS
  )
  remarks = [
    text for text, holds in (
      ('random', found.random),
      ('not differentiable', not found.differentiable),
    ) if holds
  ]
  return catalogue.Entry(
    name=found.name, family=found.family, happens=found.happens,
    symptoms=found.symptoms, caveats=found.caveats, source=found.source,
    remarks=tuple(remarks),
    parameters=tuple(
      (f'`{p.name}`', p.unit, f'{p.default:g}', _interval(p.sensible_range),
       _interval(p.limits))
      for p in found.parameters
    ),
    levels=levels,
    pictures=render(key, image, found, levels, (_PAGE_SIZE, _PAGE_SIZE)),
    code='\n'.join([
      f"factor = factors.Factor('{found.name}', "
      f"chaospy.Uniform({lower:g}, {upper:g}), '{found.unit}')",
      'chain = chains.make_chain(factors.FactorSpace((factor,)), (224, 224))',
      f'picture = chain(image, [{levels[2]:.4g}], jax.random.key(0))',
    ]),
  )


def _load(config, key_data) -> tuple[np.ndarray, str]:
  """Returns the image to show and what it is."""
  if _IMAGE.value is not None:
    path = pathlib.Path(_IMAGE.value)
    try:
      with Image.open(path) as opened:
        pixels = np.asarray(opened.convert('RGB'), np.float32) / 255
    except OSError as error:
      raise ValueError(f'--image: {path} cannot be read: {error}') from error
    return pixels, path.name
  test = train.load_data(key_data, config).test
  return np.asarray(test.images[0], np.float32), (
    f'{test.names[0]} of the data of {config.name}'
  )


def _write_severities(key, image, described, benchmark, folder) -> dict:
  """Writes the sheet of a benchmark; returns its path."""
  side = severity_tables.SIDES[benchmark]
  path = folder / f'{benchmark}.png'
  rows = render_severities(key, _middle(image, side), benchmark)
  files.make_directory(folder)
  files.write_bytes(path, style.render_png(
    catalogue.plot_sheet(f'{benchmark} on {described}', rows)
  ))
  runs.LOG.info('%s', path)
  return {benchmark: str(path)}


def _middle(image: np.ndarray, side: int) -> np.ndarray:
  """The square in the middle of an image, resized to side x side."""
  short = min(image.shape[:2])
  top, left = ((n - short) // 2 for n in image.shape[:2])
  square = image[top:top + short, left:left + short]
  resized = jax.image.resize(
    square, (side, side, image.shape[2]), 'linear', antialias=True
  )
  return np.clip(np.asarray(resized, np.float32), 0, 1)


def _tinted(image: np.ndarray) -> np.ndarray:
  """A gray image in the colour of hot metal, so that colours can change."""
  if image.shape[2] == 3:
    return image
  return np.concatenate([image**0.8, image, image**1.3], axis=2)


def _range(found) -> tuple[float, ...]:
  """Values over the sensible range, the identity among them."""
  lower, upper = found.sensible_range
  values = np.linspace(lower, upper, _NUM_PICTURES)
  values[np.argmin(np.abs(values - found.identity))] = found.identity
  return tuple(float(value) for value in values)


def _interval(ends: tuple[float, float]) -> str:
  lower, upper = (
    ('-∞' if end < 0 else '∞') if math.isinf(end) else f'{end:g}'
    for end in ends
  )
  return f'{lower} to {upper}'


def _answer(text: str) -> dict:
  """Logs which perturbations a symptom may come from."""
  found = registry.find_by_symptom(text)
  if not found:
    runs.LOG.info('nothing matches %r', text)
  for one in found[:8]:
    runs.LOG.info('%s (%s): %s', one.name, one.unit, one.happens)
  return {'found': [one.name for one in found]}


if __name__ == '__main__':
  app.run(runs.make_main(run))
