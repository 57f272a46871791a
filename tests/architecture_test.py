"""Who imports whom, read from the sources."""

import ast
import pathlib
import subprocess
import sys

import pytest

_ROOT = pathlib.Path(__file__).parents[1]

# Module or package -> what it may import of the project.
_MAY_IMPORT = {
  'attribution.maps': ('classifiers', 'quantities'),
  'attribution': ('attribution', 'classifiers'),
  'attribution.thresholds': ('attribution', 'uncertainty.resampling'),
  'attribution.mask_indices': (
    'attribution', 'classifiers', 'factors', 'gpc',
  ),
  'inspection': (
    'attribution.maps', 'attribution.taps', 'classifiers', 'inspection',
  ),
  'inspection.probes': ('uncertainty.resampling',),
  'inspection.regions': (
    'attribution.maps', 'attribution.road', 'classifiers',
  ),
  'factors': ('marginals', 'transports'),
  'transports': ('marginals',),
  'box_search': ('factors', 'gpc.designs'),
  'failure': ('factors', 'gpc.designs'),
  'operating_range': ('box_search', 'factors', 'failure', 'gpc'),
  'worst_case': (
    'classifiers', 'factors', 'gpc.designs', 'perturbations.chains',
    'quantities', 'slices',
  ),
  'marginals': (),
  'classifiers': (),
  'quantities': (),
  'files': (),
  'slices': ('factors',),
  'perturbations.geometry': ('perturbations.resampling',),
  'perturbations.resampling': (),
  'perturbations.homographies': ('perturbations.perturbation',),
  'perturbations.perspectives': ('perturbations.perturbation',),
  'perturbations.distortions': (
    'perturbations.geometry', 'perturbations.perturbation',
  ),
  'perturbations.colour': ('perturbations.perturbation',),
  'perturbations.illumination': ('perturbations.perturbation',),
  'perturbations.photometry': (
    'perturbations.colour', 'perturbations.perturbation',
  ),
  'perturbations.otf': (),
  'perturbations.spectral_filters': (),
  'perturbations.cameras': (
    'perturbations.otf', 'perturbations.spectral_filters',
  ),
  'perturbations.camera': (
    'perturbations.cameras', 'perturbations.otf', 'perturbations.perturbation',
    'perturbations.spectral_filters',
  ),
  'perturbations.sensor_noise': (
    'perturbations.cameras', 'perturbations.perturbation',
    'perturbations.random_fields',
  ),
  'perturbations': ('factors', 'perturbations'),
  'gpc.polynomials': ('marginals',),
  'gpc.multi_indices': (),
  'gpc': ('factors', 'gpc'),
  'sensitivity': ('factors', 'gpc'),
  'models': ('classifiers', 'models'),
  'weights.torch_pickle': (),
  'weights.torch_legacy': ('weights.torch_pickle',),
  'weights.torch_archive': ('weights.torch_legacy', 'weights.torch_pickle'),
  'weights': ('classifiers', 'models', 'weights'),
  'training.operations': ('perturbations',),
  'training.policies': ('perturbations', 'training.operations'),
  'training': ('classifiers', 'models', 'training', 'files'),
  'uncertainty': ('classifiers', 'uncertainty'),
  'uncertainty.duq_objective': ('models.convolutions', 'uncertainty'),
  'uncertainty.ensembles': ('models', 'training.checkpoints'),
  'uncertainty.spectral': ('models',),
  'assessment': ('uncertainty',),
  'reports.assessment_figures': ('assessment', 'reports', 'uncertainty'),
  'reports.assessment_page': ('assessment', 'reports'),
  'data': ('data',),
  'evaluation': ('classifiers', 'quantities', 'files'),
  'populations': ('gpc',),
  'population_accuracy': ('gpc', 'populations'),
  'fragility': ('gpc', 'populations'),
  'reports.population_results': (
    'fragility', 'population_accuracy', 'populations', 'reports.results',
  ),
  'reports': ('reports', 'files'),
}


def _sources(folder):
  return sorted((_ROOT / folder).rglob('*.py'))


def _imports(path):
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      yield from (f'{node.module}.{alias.name}' for alias in node.names)


def _module(path):
  return '.'.join(path.relative_to(_ROOT).with_suffix('').parts)


def _allowed(module):
  name = module.removeprefix('jaxsens.')
  while name not in _MAY_IMPORT:
    name = name.rpartition('.')[0]
    assert name, f'{module} has no row in the table of imports'
  return _MAY_IMPORT[name]


@pytest.mark.parametrize(
  'path', [p for p in _sources('jaxsens') if p.name != '__init__.py'],
  ids=_module,
)
def test_module_imports_only_what_the_architecture_allows(path):
  module = _module(path)
  for name in _imports(path):
    assert not name.startswith(('experiments', 'configs', 'tests')), name
    assert not name.startswith(('absl', 'ml_collections', 'tqdm')), name
    if name.startswith('jaxsens.'):
      target = name.removeprefix('jaxsens.')
      assert any(
        target == row or target.startswith(row + '.')
        for row in _allowed(module)
      ), f'{module} imports {name}'


@pytest.mark.parametrize('path', _sources('configs'), ids=_module)
def test_configs_import_only_ml_collections_and_each_other(path):
  for name in _imports(path):
    assert name.startswith(('ml_collections', 'configs')), name


@pytest.mark.parametrize('path', _sources('jaxsens'), ids=_module)
def test_nothing_below_experiments_prints(path):
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
      assert node.func.id != 'print'


def test_importing_the_package_changes_no_global_setting():
  code = (
    'import jax; before = dict(jax.config.values);'
    'from jaxsens import evaluation, sensitivity, slices;'
    'from jaxsens.perturbations import chains;'
    'from jaxsens.models import resnet; from jaxsens.weights import convert;'
    'from jaxsens.reports import run_directory; from jaxsens.data import weld;'
    'from jaxsens.training import loop, checkpoints;'
    'import sys; after = dict(jax.config.values);'
    'assert all(after[name] == before[name] for name in before);'
    'assert "torch" not in sys.modules'
  )
  subprocess.run([sys.executable, '-c', code], cwd=_ROOT, check=True)
