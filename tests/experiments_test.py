"""The main job as a user runs it, small, and what it says to bad input."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import jax
import numpy as np
from PIL import Image
import pytest

from configs import weld as weld_config
from experiments import gpc
from experiments import runs
from experiments import train
from jaxsens.perturbations import registry

pytestmark = pytest.mark.usefixtures('quick_compiles')

_ROOT = pathlib.Path(__file__).parents[1]
# A network that is quickly trained, for what does not depend on it.
_LENET = {'name': 'lenet', 'init': 'random', 'dropout': 0.0}


def _command(*arguments, config='configs/weld.py:small'):
  return [
    sys.executable, '-m', 'experiments.gpc', f'--config={config}', *arguments
  ]


def _run(*arguments, **options):
  environment = {**os.environ, 'JAXSENS_CACHE': '/nonexistent'}
  environment.pop('JAXSENS_DATA', None)
  return subprocess.run(
    _command(*arguments, **options), cwd=_ROOT, env=environment,
    capture_output=True, text=True, check=False,
  )


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """A finished small run and its log."""
  workdir = tmp_path_factory.mktemp('run')
  process = _run(
    f'--workdir={workdir}', '--config.report.num_worst_starts=1'
  )
  assert process.returncode == 0, process.stderr
  return workdir, process.stderr


def _outputs(workdir):
  return {
    path.name: np.load(path) for path in (workdir / 'outputs').glob('*.npy')
  }


def test_run_writes_everything_that_is_promised(finished):
  workdir, log = finished
  for name in (
    'config.json', 'versions.json', 'design.npz',
    'figures/convergence.png',
    'indices.json', 'indices.csv', 'metrics.json', 'report.html',
    'figures/overview.png', 'checkpoint/metadata.json',
  ):
    assert (workdir / name).stat().st_size > 0, name
  config = json.loads((workdir / 'config.json').read_text())
  assert 'procedural' in config['data_used']['test']
  assert 'procedural' in log
  assert 'procedural' in (workdir / 'report.html').read_text()
  versions = json.loads((workdir / 'versions.json').read_text())
  assert {'jax', 'flax', 'chaospy', 'backend'} <= set(versions)


def _index(image, factor, kind):
  return image['outputs'][image['main_output']][kind][factor]['value']


def test_second_run_trains_and_evaluates_nothing_and_gives_the_same(finished):
  workdir, _ = finished
  before = {
    path: path.stat().st_mtime_ns for path in (workdir / 'outputs').iterdir()
  }
  indices = json.loads((workdir / 'indices.json').read_text())
  process = _run(
    f'--workdir={workdir}', '--config.report.num_worst_starts=1'
  )
  assert process.returncode == 0, process.stderr
  assert 'epoch 1' not in process.stderr
  assert before == {
    path: path.stat().st_mtime_ns for path in (workdir / 'outputs').iterdir()
  }
  again = json.loads((workdir / 'indices.json').read_text())
  assert again['images'] == indices['images']


def test_interrupted_run_resumes_bitwise(finished, tmp_path):
  workdir, _ = finished
  # Neighbouring run directory: takes over the trained network and the batching.
  other = tmp_path / 'other'
  other.mkdir()
  (other / 'checkpoint').symlink_to(workdir / 'checkpoint')
  (other / 'batching.json').write_text(json.dumps(
    {'batch_size': 8, 'chunk_size': 8, 'backend': 'cpu, 1 devices'}
  ))
  # Many views, which no index depends on: the run must not end before it is
  # interrupted, however busy the machine.
  views = '--config.report.num_line_nodes=151'
  process = subprocess.Popen(
    _command(f'--workdir={other}', views), cwd=_ROOT, stderr=subprocess.PIPE,
    text=True,
  )
  deadline = time.monotonic() + 120
  while len(list(other.glob('outputs/*.npy'))) < 2:
    assert process.poll() is None and time.monotonic() < deadline
    time.sleep(0.02)
  process.send_signal(signal.SIGINT)
  _, log = process.communicate(timeout=120)
  assert process.returncode == 130 and 'resumes' in log
  assert not (other / 'report.html').exists()
  finished_chunks = _outputs(other)
  assert _run(f'--workdir={other}', views).returncode == 0
  for name, outputs in finished_chunks.items():
    np.testing.assert_array_equal(_outputs(other)[name], outputs)
  one, two = (
    [
      [_index(image, name, kind) for name in ('brightness', 'rotation', 'tilt')]
      for image in json.loads((path / 'indices.json').read_text())['images']
      for kind in ('first_order', 'total')
    ]
    for path in (other, workdir)
  )
  # Chunks of another size round differently, and the prior is learned anew.
  np.testing.assert_allclose(one, two, atol=5e-3)


def test_checkpoint_of_another_config_is_refused(finished, tmp_path):
  workdir, _ = finished
  (tmp_path / 'checkpoint').symlink_to(workdir / 'checkpoint')
  process = _run(f'--workdir={tmp_path}', '--config.training.num_epochs=2')
  assert process.returncode != 0
  assert 'config_hash' in process.stderr
  assert 'Traceback' not in process.stderr


def _kaggle(root, labels=None, image=None):
  """A data root in the Kaggle layout with two frames per class."""
  rng = np.random.default_rng(0)
  for part in ('train', 'test'):
    (root / part).mkdir(parents=True)
    entries = {}
    for i in range(12):
      pixels = rng.integers(0, 255, (30, 24), np.uint8)
      Image.fromarray(pixels).save(root / part / f'{i}.png')
      entries[f'{i}.png'] = i % 6
    if part == 'test':
      entries.update(labels or {})
    (root / part / f'{part}.json').write_text(json.dumps(entries))
  if image is not None:
    Image.fromarray(image).save(root / 'test' / '0.png')
  return root


@pytest.mark.parametrize(('arguments', 'message'), [
  (['--config.data.root=absent'], 'absent'),
  (['--config.factors.rotation.lower=95.0'], 'rotation'),
  (["--config.factor_order=('rotation','zoom')"], 'zoom'),
  (['--config.gpc.num_nodes.rotaton=5'], 'rotation'),
  (['--config.gpc.desing=tensor_gauss'], 'design'),
  (['--config.gpc.design=tensor_gaus'], 'tensor_gauss'),
  (
    [
      *(f'--config.model.{name}={x}' for name, x in _LENET.items()),
      '--config.perturbation.method=cubic',
    ],
    'bilinear',
  ),
  (['--workdir=/proc/nowhere'], '/proc/nowhere'),
  (['stray'], 'stray'),
])
def test_bad_configuration_is_named_without_a_trace(
  arguments, message, tmp_path
):
  if not any('workdir' in argument for argument in arguments):
    arguments = [*arguments, f'--workdir={tmp_path}']
  process = _run(*arguments)
  assert process.returncode != 0
  assert message in process.stderr.splitlines()[-1], process.stderr[-800:]


def test_unknown_variant_lists_the_known_ones():
  with pytest.raises(ValueError, match='small, paper'):
    weld_config.get_config('tiny')


def _small(tmp_path, **data):
  config = runs.resolve(weld_config.get_config('small'))
  config.data.update(data)
  config.model.update(_LENET)
  return config, tmp_path / 'run'


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """A run directory with the trained network of `_small`."""
  config, workdir = _small(tmp_path_factory.mktemp('lenet'))
  train.run(config, workdir)
  return workdir


@pytest.mark.parametrize(('options', 'message'), [
  ({'labels': {'0.png': 9}}, '9'),
  ({'labels': {'gone.png': 1}}, 'gone.png'),
  ({'image': np.zeros((30, 24, 3), np.uint8)}, '0.png'),
])
def test_bad_data_root_is_named(tmp_path, options, message):
  root = _kaggle(tmp_path / 'data', **options)
  config, workdir = _small(tmp_path, root=str(root))
  with pytest.raises((ValueError, OSError), match=message):
    gpc.run(config, workdir)


def test_truncated_image_is_named(tmp_path):
  root = _kaggle(tmp_path / 'data')
  path = root / 'test' / '0.png'
  path.write_bytes(path.read_bytes()[:200])
  config, workdir = _small(tmp_path, root=str(root))
  with pytest.raises((ValueError, OSError), match='0.png'):
    gpc.run(config, workdir)


def test_weights_of_another_architecture_raise_with_both_lists(tmp_path):
  path = tmp_path / 'weights.npz'
  np.savez(path, **{'conv1.weight': np.zeros((64, 1, 7, 7), np.float32),
                    'features.0.weight': np.zeros(3, np.float32)})
  config, workdir = _small(tmp_path)
  config.model.update({'name': 'resnet18', 'init': str(path)})
  with pytest.raises(ValueError, match='(?s)layer1.0.conv1.*features.0.weight'):
    gpc.run(config, workdir)


@pytest.mark.parametrize('order', [('rotation',), ('tilt', 'rotation')])
def test_any_number_of_factors_makes_a_report(trained, tmp_path, order):
  config, workdir = _small(tmp_path)
  config.factor_order = order
  workdir.mkdir()
  (workdir / 'checkpoint').symlink_to(trained / 'checkpoint')
  gpc.run(config, workdir)
  document = json.loads((workdir / 'indices.json').read_text())
  assert [factor['name'] for factor in document['factors']] == list(order)
  assert (workdir / 'report.html').stat().st_size > 0


def test_unknown_distribution_names_the_field():
  config = weld_config.get_config('small')
  config.factors.tilt.distribution = 'Unifrom'
  with pytest.raises(ValueError, match='factors.tilt.distribution.*Unifrom'):
    gpc.make_space(config)


def test_hash_of_the_training_ignores_settings_of_the_analysis():
  one, two = (weld_config.get_config('small') for _ in range(2))
  two.gpc.num_held_out = 99
  two.data.num_images = 5
  assert train.training_hash(one) == train.training_hash(two)
  assert runs.default_workdir(one) != runs.default_workdir(two)
  two.training.learning_rate = 1.0
  assert train.training_hash(one) != train.training_hash(two)


def test_unknown_precision_is_refused(trained, tmp_path):
  config, workdir = _small(tmp_path)
  config.precision = 'float8'
  workdir.mkdir()
  (workdir / 'checkpoint').symlink_to(trained / 'checkpoint')
  with pytest.raises(ValueError, match='precision.*bfloat16.*float8'):
    gpc.run(config, workdir)


def test_every_variant_of_the_config_has_the_same_fields():
  base = weld_config.get_config()
  for variant in ('small', 'paper'):
    other = weld_config.get_config(variant)
    assert set(base) == set(other)
    for name in base:
      if hasattr(base[name], 'keys'):
        assert set(base[name]) == set(other[name]), name


def test_limits_of_each_image_are_kept_and_shown(finished):
  workdir, _ = finished
  kept = sorted((workdir / 'limits').glob('*.json'))
  assert len(kept) == 2
  for path in kept:
    limits = json.loads(path.read_text())
    assert 0 <= limits['failure_probability'] <= 1
    assert set(limits['safe_range']) == {'brightness', 'rotation', 'tilt'}
    levels = list(limits['quantiles'].values())
    assert levels == sorted(levels)
    worst = limits['worst_case']
    # The worst case is at least as bad as the unperturbed image.
    assert worst['margin'] <= worst['nominal_margin']
    assert 0 <= worst['values']['brightness'] <= 2
  page = (workdir / 'report.html').read_text()
  assert 'Safe range' in page and 'Worst case found' in page


def test_a_fixed_design_keeps_its_expansions(trained):
  # Beside the trained network, so that it is taken over.
  config, _ = _small(trained)
  workdir = trained.parent / 'fixed'
  config.gpc.design = 'tensor_gauss'
  metrics = gpc.run(config, workdir)
  assert {image['method'] for image in metrics['images']} == {'projection'}
  with np.load(workdir / 'expansion.npz') as stored:
    coefficients = stored['coefficients_0'][:, 0]
    terms = stored['multi_indices_0']
    names = stored['factors'].tolist()
  assert len(coefficients) == 3 * 5 * 3
  # The indices of the run follow from what is stored.
  document = json.loads((workdir / 'indices.json').read_text())
  variance = (coefficients[1:] ** 2).sum()
  for d, name in enumerate(names):
    only = (terms[:, d] > 0) & (np.delete(terms, d, 1) == 0).all(1)
    expected = (coefficients[only] ** 2).sum() / variance
    found = _index(document['images'][0], name, 'first_order')
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_data_set_has_a_report_of_its_own(tmp_path):
  config, workdir = _small(tmp_path)
  config.data.num_images = 8
  config.data.synthetic_per_class = 10
  config.report.num_detailed = 1
  config.gpc.max_evaluations = 32
  config.gpc.fallback_evaluations = 0
  gpc.run(config, workdir)
  arrays = np.load(workdir / 'population.npz')
  assert arrays['population.total'].shape[:2] == (8, 3)
  page = (workdir / 'population.html').read_text()
  assert 'accuracy' in page
  assert (workdir / 'figures' / 'population_accuracy.png').stat().st_size > 0


def test_factor_that_is_only_named_takes_its_sensible_range():
  config = weld_config.get_config()
  config.factor_order = ('rotation', 'defocus', 'imagenet_c_fog')
  space = gpc.make_space(config)
  for name, factor in zip(space.names[1:], space.factors[1:], strict=True):
    _, parameter = registry.parameter(name)
    np.testing.assert_allclose(
      (factor.lower, factor.upper), parameter.sensible_range, atol=1e-9
    )
    assert factor.unit == parameter.unit


@pytest.mark.parametrize('border', ['constant', 'edge', 'reflect'])
def test_border_of_the_config_reaches_the_picture(border):
  config = weld_config.get_config('line')
  config.perturbation.border = border
  config.perturbation.fill = 0.25
  chain = gpc.make_chain(config, gpc.make_space(config))
  values = np.array(chain.identity)
  values[chain.names.index('translation_x')] = 0.1
  white = np.ones((70, 60, 1), np.float32)
  picture = chain(white, values, jax.random.key(0))
  expected = 0.25 if border == 'constant' else 1.0
  np.testing.assert_allclose(picture[:, 0], expected, atol=1e-6)


def test_unknown_border_is_refused():
  config = weld_config.get_config()
  config.perturbation.border = 'mirror'
  with pytest.raises(ValueError, match="'reflect'.*'mirror'"):
    gpc.make_chain(config, gpc.make_space(config))


class _Slow:
  def __del__(self):
    time.sleep(1.)


@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
def test_interrupt_that_python_drops_is_repeated(monkeypatch):
  monkeypatch.setattr(runs, '_REPEAT_AFTER', 1.)
  # What runs in the background of a shell has no default handler.
  before = signal.getsignal(signal.SIGINT)
  begun = time.monotonic()
  threading.Timer(.2, signal.raise_signal, [signal.SIGINT]).start()
  with pytest.raises(KeyboardInterrupt), runs._insistent_interrupts():
    _Slow()
    time.sleep(60.)
  assert time.monotonic() - begun < 30.
  assert signal.getsignal(signal.SIGINT) is before
