"""The evaluator against a plain loop, and what must survive an interruption."""

import errno
import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import chaospy
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsens import classifiers
from jaxsens import evaluation
from jaxsens import factors
from jaxsens import files
from jaxsens import quantities
from jaxsens.perturbations import chains

_SPACE = factors.FactorSpace((
  factors.Factor('brightness', chaospy.Uniform(0, 2)),
  factors.Factor('rotation', chaospy.Uniform(-90, 90)),
))
_SIZE = (12, 12)


def _linear(params, images):
  return images.reshape(images.shape[0], -1) @ params['w'] + params['b']


def _classifier(seed=0, apply_fn=_linear):
  rng = np.random.default_rng(seed)
  params = {
    'w': jnp.asarray(rng.normal(size=(144, 3)), jnp.float32),
    'b': jnp.asarray(rng.normal(size=3), jnp.float32),
  }
  return classifiers.Classifier(
    apply_fn, params, classifiers.Normalise((0.5,), (0.5,)), ('a', 'b', 'c'),
    _SIZE, 1,
  )


def _image(seed=0):
  return np.random.default_rng(seed).random((20, 17, 1)).astype(np.float32)


def _values(num_nodes, seed=1):
  uniform = np.random.default_rng(seed).random((num_nodes, 2))
  return _SPACE.to_values(_SPACE.from_uniform(uniform))


def _evaluator(classifier=None, batching=(4, 8), store=None, mesh=None):
  classifier = classifier or _classifier()
  return evaluation.make_evaluator(
    classifier, chains.make_chain(_SPACE, _SIZE),
    quantities.make_quantities(
      ('probabilities', 'margin'), classifier.class_names
    ),
    batching=evaluation.Batching(*batching), store=store, mesh=mesh,
  )


def _loop(image, values, label):
  """Reference: one node at a time, NumPy after the perturbation."""
  chain, classifier = chains.make_chain(_SPACE, _SIZE), _classifier()
  rows = []
  for row in np.asarray(values, np.float32):
    pixels = np.asarray(chain(image, jnp.asarray(row)), np.float64)
    logits = ((pixels - 0.5) / 0.5).reshape(-1) @ np.asarray(
      classifier.params['w'], np.float64
    ) + np.asarray(classifier.params['b'])
    p = np.exp(logits - logits.max())
    others = np.delete(logits, label).max()
    rows.append([*(p / p.sum()), logits[label] - others])
  return np.array(rows)


@pytest.mark.parametrize('num_nodes', [1, 7, 8, 21])
@pytest.mark.parametrize('batching', [(1, 1), (4, 8), (16, 32)])
def test_outputs_equal_a_plain_loop_whatever_the_batching(num_nodes, batching):
  values = _values(num_nodes)
  evaluator = _evaluator(batching=batching)
  outputs = evaluator(jax.random.key(0), _image(), 1, values)
  assert outputs.shape == (num_nodes, 4) and outputs.dtype == np.float32
  np.testing.assert_allclose(
    outputs, _loop(_image(), values, 1), atol=2e-4, rtol=1e-4
  )


def test_progress_counts_every_node_once():
  seen = []
  _evaluator()(
    jax.random.key(0), _image(), 0, _values(21), progress=seen.append
  )
  assert sum(seen) == 21 and len(seen) == 3


def test_stored_chunks_are_reused_bitwise_and_not_computed_again(tmp_path):
  calls = []

  def counted(params, images):
    jax.debug.callback(lambda: calls.append(1))
    return _linear(params, images)

  arguments = (jax.random.key(0), _image(), 2, _values(21))
  store = evaluation.ChunkStore(tmp_path)
  evaluator = _evaluator(_classifier(apply_fn=counted), store=store)
  first = evaluator(*arguments)
  jax.effects_barrier()
  num_calls = len(calls)
  assert num_calls > 0
  second = evaluator(*arguments)
  jax.effects_barrier()
  assert len(calls) == num_calls
  np.testing.assert_array_equal(first, second)
  # One chunk lost: only that one is computed, and the result is the same.
  lost = sorted(tmp_path.glob('*.npy'))[0]
  lost.unlink()
  np.testing.assert_array_equal(evaluator(*arguments), first)
  jax.effects_barrier()
  assert num_calls < len(calls) < 2 * num_calls


@pytest.mark.parametrize('change', ['image', 'label', 'params', 'values'])
def test_chunks_of_other_inputs_are_not_taken(tmp_path, change):
  store = evaluation.ChunkStore(tmp_path)
  _evaluator(store=store)(jax.random.key(0), _image(), 0, _values(8))
  before = set(tmp_path.iterdir())
  _evaluator(
    _classifier(seed=1 if change == 'params' else 0), store=store
  )(
    jax.random.key(0), _image(1 if change == 'image' else 0),
    1 if change == 'label' else 0,
    _values(8, seed=2 if change == 'values' else 1),
  )
  assert len(set(tmp_path.iterdir()) - before) == 1


def test_damaged_chunk_is_named_and_evaluated_again(tmp_path):
  evaluator = _evaluator(store=evaluation.ChunkStore(tmp_path))
  arguments = (jax.random.key(0), _image(), 0, _values(8))
  first = evaluator(*arguments)
  (chunk,) = tmp_path.iterdir()
  chunk.write_bytes(chunk.read_bytes()[:40])
  with pytest.warns(UserWarning, match=chunk.name):
    np.testing.assert_array_equal(evaluator(*arguments), first)


def test_nan_from_the_network_names_image_and_values_and_keeps_chunks(tmp_path):
  def breaks(params, images):
    # NaN for images that are black throughout.
    bad = jnp.where(images.max((1, 2, 3)) < -0.9, jnp.nan, 0.0)
    return _linear(params, images) + bad[:, None]

  values = _values(16)
  values[:, 0] = np.maximum(values[:, 0], 0.5)
  values[12] = [0.0, 10.0]
  evaluator = _evaluator(
    _classifier(apply_fn=breaks), store=evaluation.ChunkStore(tmp_path)
  )
  with pytest.raises(FloatingPointError, match=r'frame 7.*\[0.0, 10.0\]'):
    evaluator(jax.random.key(0), _image(), 0, values, name='frame 7')
  assert len(list(tmp_path.iterdir())) == 1


def test_params_that_are_not_finite_are_named():
  classifier = _classifier()
  classifier.params['b'] = classifier.params['b'].at[1].set(jnp.nan)
  with pytest.raises(ValueError, match=r"params.*\['b'\]"):
    _evaluator(classifier)


def test_disk_full_names_the_file_and_says_what_is_kept(tmp_path, monkeypatch):
  evaluator = _evaluator(store=evaluation.ChunkStore(tmp_path))

  def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(os, 'fsync', full)
  with pytest.raises(OSError, match=r'\.npy.*No space.*resume.*kept'):
    evaluator(jax.random.key(0), _image(), 0, _values(8))
  assert not list(tmp_path.iterdir())


def test_directory_that_cannot_be_made_is_named(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(OSError, match='file'):
    files.make_directory(tmp_path / 'file' / 'runs')


@pytest.mark.parametrize(('image', 'label', 'values', 'message'), [
  (np.zeros((8, 8, 3)), 0, np.ones((1, 2)), r'\(H, W, 1\).*\(8, 8, 3\)'),
  (np.full((8, 8, 1), np.nan), 0, np.ones((1, 2)), 'NaN'),
  (np.full((8, 8, 1), 255.0), 0, np.ones((1, 2)), r'\[0, 1\].*255'),
  (np.zeros((8, 8, 1)), 3, np.ones((1, 2)), 'label 3'),
  (np.zeros((8, 8, 1)), 0, np.ones(2), r'\(N, D\)'),
  (np.zeros((8, 8, 1)), 0, np.full((1, 2), np.inf), 'finite'),
])
def test_bad_input_is_refused(image, label, values, message):
  with pytest.raises(ValueError, match=message):
    _evaluator()(jax.random.key(0), image, label, values)


def test_chunk_must_be_a_multiple_of_the_batch():
  with pytest.raises(ValueError, match='multiple'):
    evaluation.Batching(4, 10)


def test_measured_batching_is_one_of_the_candidates():
  batching, rates = evaluation.measure_batching(
    _evaluator(), _image(), _values(4), (2, 8), seconds_per_chunk=0.01
  )
  assert set(rates) == {2, 8} and batching.batch_size in rates
  assert batching.chunk_size % batching.batch_size == 0


def test_rendered_images_are_those_of_the_chain():
  values = _values(3)
  rendered = _evaluator().render(jax.random.key(0), _image(), values)
  chain = chains.make_chain(_SPACE, _SIZE)
  for row, value in zip(rendered, values, strict=True):
    np.testing.assert_allclose(
      row, chain(_image(), jnp.asarray(value, jnp.float32)), atol=1e-5
    )


_SCRIPT = """
import json, sys, time
import jax, numpy as np
from tests import evaluation_test as t
from jaxsens import evaluation

def slow(params, images):
  jax.debug.callback(lambda: time.sleep(float(sys.argv[3])))
  return t._linear(params, images)

store = evaluation.ChunkStore(sys.argv[1])
mesh = None
if jax.device_count() > 1:
  mesh = jax.make_mesh((jax.device_count(),), ('data',))
evaluator = t._evaluator(
  t._classifier(apply_fn=slow), (8, 8), store, mesh)
print('ready', flush=True)
outputs = evaluator(jax.random.key(0), t._image(), 1, t._values(120))
np.save(sys.argv[2], outputs)
"""


def _start(tmp_path, store, result, pause, devices=1):
  script = tmp_path / 'script.py'
  script.write_text(textwrap.dedent(_SCRIPT))
  environment = dict(
    os.environ, PYTHONPATH=str(pathlib.Path(__file__).parents[1]),
    XLA_FLAGS=f'--xla_force_host_platform_device_count={devices}',
  )
  return subprocess.Popen(
    [sys.executable, script, tmp_path / store, tmp_path / result, str(pause)],
    env=environment, stdout=subprocess.PIPE, text=True,
  )


def test_killed_run_resumes_with_bitwise_equal_outputs(tmp_path):
  process = _start(tmp_path, 'killed', 'never.npy', 0.3)
  process.stdout.readline()
  deadline = time.monotonic() + 60
  while len(list((tmp_path / 'killed').glob('*.npy'))) < 3:
    assert process.poll() is None and time.monotonic() < deadline
    time.sleep(0.05)
  process.send_signal(signal.SIGKILL)
  process.wait()
  assert not (tmp_path / 'never.npy').exists()
  finished = {
    path: path.stat().st_mtime_ns
    for path in (tmp_path / 'killed').glob('*.npy')
  }
  assert 3 <= len(finished) < 15
  assert _start(tmp_path, 'killed', 'resumed.npy', 0.0).wait() == 0
  assert _start(tmp_path, 'whole', 'whole.npy', 0.0).wait() == 0
  np.testing.assert_array_equal(
    np.load(tmp_path / 'resumed.npy'), np.load(tmp_path / 'whole.npy')
  )
  for path, time_written in finished.items():
    assert path.stat().st_mtime_ns == time_written


def test_nodes_shared_over_eight_devices_give_the_same_outputs(tmp_path):
  process = _start(tmp_path, 'mesh', 'mesh.npy', 0.0, devices=8)
  assert process.wait() == 0
  expected = _evaluator()(jax.random.key(0), _image(), 1, _values(120))
  np.testing.assert_allclose(
    np.load(tmp_path / 'mesh.npy'), expected, atol=5e-5, rtol=1e-5
  )


def test_quantities_have_their_definitions():
  names = (
    'logits', 'probabilities', 'probability', 'margin', 'entropy', 'loss'
  )
  joined = quantities.make_quantities(names, ('a', 'b', 'c'))
  logits = np.array([1.0, -2.0, 0.5])
  p = np.exp(logits) / np.exp(logits).sum()
  expected = [
    *logits, *p, p[2], 0.5 - 1.0, -(p * np.log(p)).sum(), -np.log(p[2])
  ]
  np.testing.assert_allclose(
    joined(jnp.asarray(logits, jnp.float32), 2), expected, rtol=1e-5
  )
  assert len(joined.output_names) == 10
  assert joined.output_names[joined.index('margin')] == (
    'margin of the true class'
  )
  assert joined.columns('probabilities') == slice(3, 6)


@pytest.mark.parametrize('names', [(), ('margins',), ('margin', 'margin')])
def test_unknown_or_repeated_quantities_are_refused(names):
  with pytest.raises(ValueError, match='distinct and among logits'):
    quantities.make_quantities(names, ('a', 'b'))


def test_description_of_a_chain_is_json():
  json.dumps(chains.make_chain(_SPACE, _SIZE).describe())


def test_several_draws_give_the_mean_of_their_probabilities():
  space = factors.FactorSpace((
    factors.Factor('gaussian_noise', chaospy.Uniform(0, 0.3)),
  ))
  chain, classifier = chains.make_chain(space, _SIZE), _classifier()
  make = lambda names, num_draws: evaluation.make_evaluator(
    classifier, chain,
    quantities.make_quantities(names, classifier.class_names),
    batching=evaluation.Batching(2, 4), num_draws=num_draws,
  )
  key, image = jax.random.key(5), _image()
  values = np.array([[0.0], [0.1], [0.25]])
  found = make(('probabilities', 'logits'), 3)(key, image, 1, values)
  expected = np.mean([
    make(('probabilities',), 1)(one, image, 1, values)
    for one in jax.random.split(key, 3)
  ], axis=0)
  np.testing.assert_allclose(found[:, :3], expected, atol=1e-5)
  np.testing.assert_allclose(np.exp(found[:, 3:]), expected, atol=1e-5)
  with pytest.raises(ValueError, match='num_draws'):
    make(('logits',), 0)


def test_integer_images_are_refused():
  with pytest.raises(TypeError, match='uint8'):
    _evaluator()(
      jax.random.key(0), np.ones((20, 17, 1), np.uint8), 0, _values(2)
    )
