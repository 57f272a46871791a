"""Pages and contact sheets of the perturbations, read back."""

import io

import jax
import numpy as np
from PIL import Image
import pytest

from experiments import perturbations
from jaxsens.perturbations import registry
from jaxsens.perturbations import severity
from jaxsens.reports import catalogue
from jaxsens.reports import style

_KEY = jax.random.key(0)


def _image(channels=3):
  y, x = np.mgrid[0:40, 0:32] / 40
  stripes = (np.sin(40 * x) > 0) * 0.6 + 0.2 * y
  parts = [stripes, y, 1 - stripes][:channels]
  return np.stack(parts, axis=-1).astype(np.float32)


@pytest.mark.parametrize('name', ['defocus', 'gaussian_noise', 'posterise'])
def test_page_shows_what_the_registry_says(name, tmp_path):
  found = registry.get(name)
  entry = perturbations.make_entry(_KEY, _image(), found)
  assert entry.levels[0] == found.identity
  # The heavy end is the one further from the identity.
  far = max(found.sensible_range, key=lambda end: abs(end - found.identity))
  assert entry.levels[-1] == far
  catalogue.write_pages(tmp_path, [entry], 'Pictures: a ramp.')
  page = (tmp_path / f'{name}.md').read_text()
  for text in (
    found.happens, found.caveats, found.source, found.unit, 'Pictures: a ramp.',
    *found.symptoms, *(f'`{p.name}`' for p in found.parameters),
  ):
    assert text in page, text
  assert ('random' in page.splitlines()[2]) == found.random
  index = (tmp_path / 'README.md').read_text()
  assert all(f'| {s} | [{name}]({name}.md) |' in index for s in found.symptoms)
  with Image.open(tmp_path / f'{name}.jpg') as strip:
    assert strip.size == (4 * 112 + 3 * 2, 112)
    pixels = np.asarray(strip, float) / 255
  untouched = entry.pictures[0]
  assert np.abs(pixels[:, :112] - untouched).mean() < 0.02
  assert np.abs(pixels[:, -112:] - untouched).mean() > 0.02


def test_code_of_a_page_runs(tmp_path):
  entry = perturbations.make_entry(_KEY, _image(), registry.get('fog'))
  assert len(entry.code.splitlines()) == 3
  names = {}
  setup = (
    'import chaospy, jax\nfrom jaxsens import factors\n'
    'from jaxsens.perturbations import chains'
  )
  exec(setup, names)  # noqa: S102
  names['image'] = _image()
  exec(entry.code, names)  # noqa: S102
  assert names['picture'].shape == (224, 224, 3)


def test_severities_are_those_of_the_benchmark_on_the_middle(monkeypatch):
  names = ('gaussian_noise', 'contrast')
  monkeypatch.setattr(severity, 'names', lambda benchmark: names)
  image = perturbations._middle(_image(), 16)
  assert image.shape == (16, 16, 3)
  # The middle 32 x 32 of 40 x 32, two pixels into one.
  np.testing.assert_allclose(
    image.mean((0, 1)), _image()[4:36].mean((0, 1)), atol=0.01
  )
  rows = perturbations.render_severities(_KEY, image, 'cifar_c', (1, 2.5, 5))
  assert [row.name for row in rows] == list(names)
  for row in rows:
    for s, picture in zip(row.values, row.pictures, strict=True):
      np.testing.assert_allclose(
        picture, severity.cifar_c(row.name, s)(image, _KEY), atol=1e-5
      )


@pytest.mark.parametrize('channels', [1, 3])
def test_contact_sheet_has_one_picture_per_value(channels):
  rows = []
  for name in ('brightness', 'rotation'):
    found = registry.get(name)
    values = perturbations._range(found)
    assert found.identity in values
    rows.append(catalogue.Row(name, found.unit, values, perturbations.render(
      _KEY, _image(channels), found, values, (16, 16)
    )))
  figure = catalogue.plot_sheet('Two', rows)
  assert len(figure.axes) == 2 * len(rows[0].values)
  with Image.open(io.BytesIO(style.render_png(figure))) as picture:
    assert np.asarray(picture.convert('L')).std() > 10


def test_symptoms_lead_to_perturbations():
  found = [p.name for p in registry.find_by_symptom('the housing vibrates')]
  assert 'vibration' in found[:2] and 'motion_blur' in found
  assert not registry.find_by_symptom('xyzzy')
