"""The benchmarks run, and the PyTorch baseline gives the numbers of `paper`."""

import json
import math

import jax
import numpy as np
import pytest

from experiments import benchmark
from experiments.benchmarks import contestants
from experiments.benchmarks import races
from jaxsens import evaluation
from jaxsens import quantities
from jaxsens.gpc import designs
from jaxsens.models import inference
from jaxsens.perturbations import chains
from jaxsens.weights import convert
from tests.oracles import torchvision_ops

pytestmark = pytest.mark.usefixtures('quick_compiles')


def _ignore(line):
  del line


def test_paper_convention_gives_the_probabilities_of_the_torch_baseline():
  torchvision_ops.import_torchvision()
  from third_party.pytorch_baselines import gpc_weld

  size, label = 64, 1
  space = contestants.welding_space()
  frame = contestants.smooth_frame((150, 130))
  image = np.float32(frame[..., None]) / 255
  key_network, key_design = jax.random.split(jax.random.key(3))
  design = designs.latin_hypercube(key_design, space, 12)
  values = space.to_values(design.nodes).astype(np.float32)
  chain = chains.make_chain(space, (size, size), convention='paper')
  model = contestants.random_network(key_network, chain, image, values)
  evaluator = evaluation.make_evaluator(
    inference.classifier(
      model, preprocess=contestants.NORMALISE,
      class_names=contestants.CLASS_NAMES, image_size=(size, size),
      channels=1,
    ),
    chain,
    quantities.make_quantities(('probability',), contestants.CLASS_NAMES),
    batching=evaluation.Batching(4, 12),
  )
  ours = evaluator(jax.random.key(0), image, label, values)[:, 0]
  theirs = gpc_weld.probabilities(
    gpc_weld.load_network(convert.to_torch_names(model)), frame, label, values,
    size=size,
  )
  assert np.ptp(theirs) > 0.3
  np.testing.assert_allclose(ours, theirs, atol=0.02)


def test_evaluation_suite_measures_all_contestants_in_both_precisions(tmp_path):
  torchvision_ops.import_torchvision()
  output = tmp_path / 'evaluation.json'
  options = {'dtypes': ('float32', 'bfloat16'), 'seconds': 0.01}
  report = benchmark.run(
    'evaluation', quick=True, options=options, output=output, log=_ignore
  )
  result = report['result']
  section = result['32 pixels']
  expected = {
    'source loop, 32 pixels', 'source loop, 40 pixels',
    'torch float32, batch 4', 'torch bfloat16, batch 4',
    *(
      f'{kind} {dtype}'
      for kind in ('bare network', 'device program', 'engine')
      for dtype in ('float32', 'bfloat16')
    ),
  }
  for measure in ('nodes_per_second', 'engine_float32_over', 'batch_size'):
    assert set(section[measure]) == expected
  assert all(rate > 0 for rate in section['nodes_per_second'].values())
  ratios = result['32 pixels, ratios']
  assert set(ratios) == {
    'engine_over_source_32', 'engine_over_source_40', 'engine_over_torch',
    'overhead_over_bare_network', 'device_busy',
  }
  effect = result['32 pixels, bfloat16 against float32']
  changes = effect['output_change']
  # bfloat16 keeps eight bits: it must be seen, and be no other network.
  assert 0 < changes['probability of contamination'] < 0.2
  assert len(effect['first_order_change']) == len(effect['total_change']) == 8
  kept = json.loads(output.read_text())
  assert kept['machine']['cores'] >= 1 and kept['machine']['versions']['jax']
  table = benchmark.markdown(report)
  assert '| engine bfloat16 |' in table and 'device busy' in table


def test_evaluation_suite_says_what_is_left_out_without_torch(monkeypatch):
  from experiments.benchmarks import evaluation as suite

  def refuse(name):
    raise ImportError(f'no {name}')

  lines = []
  monkeypatch.setattr(suite.importlib, 'import_module', refuse)
  assert suite._import_baselines(lines.append) is None
  assert 'left out' in lines[0] and 'pytorch_baselines' in lines[0]


def test_fit_suite_reports_seconds_and_index_errors():
  result = benchmark.run('fit', quick=True, log=_ignore)['result']
  assert result['num_terms'] == 27
  assert result['K=1']['median_seconds']['jaxsens'] > 0
  # chaospy solves the same least squares.
  assert result['K=1']['max_difference_to_jaxsens']['chaospy'] < 1e-6


def test_race_alternates_and_reports_nodes_per_second(monkeypatch):
  clock = [0.0]
  order = []

  def contestant(name, seconds):
    def run(repeats):
      order.append((name, repeats))
      clock[0] += seconds * repeats

    return races.Contestant(name, name, 'float32', 10, run, 1)

  monkeypatch.setattr(races.time, 'perf_counter', lambda: clock[0])
  rates = races.race(
    [contestant('slow', 2.0), contestant('fast', 0.5)],
    seconds=2.0, num_rounds=2, log=_ignore,
  )
  assert order[4:] == [('slow', 1), ('fast', 4), ('slow', 1), ('fast', 4)]
  np.testing.assert_allclose(rates['slow'], [5.0, 5.0])
  np.testing.assert_allclose(rates['fast'], [20.0, 20.0])
  assert races.median_ratio(rates['fast'], rates['slow']) == 4.0
  assert races.fastest(rates) == [20.0, 20.0]
  assert races.fastest({}) is None


def test_what_json_cannot_hold_becomes_null_and_text_is_no_column():
  assert benchmark._plain({'a': (1.0, math.nan)}) == {'a': [1.0, None]}
  section = {'seconds': {'a': [1.0]}, 'median': {'a': 1.5}, 'note': 'text'}
  assert benchmark._columns(section) == {'median': {'a': 1.5}}
  with pytest.raises(ValueError, match='suite must be one of'):
    benchmark.run('speed')
  with pytest.raises(ValueError, match='JSON object'):
    benchmark._parse_options('[1]')
