"""The benchmark of the perturbations runs, and its peers mean the same."""

import functools
import json
import time
import types

import numpy as np
import pytest

from experiments import benchmark
from experiments.benchmarks import perturbation_peers
from experiments.benchmarks import perturbations
from jaxsens.perturbations import registry
from tests.oracles import torchvision_ops


def _ignore(line):
  del line


def test_suite_measures_ours_the_peers_and_the_network(tmp_path, monkeypatch):
  torchvision_ops.import_torchvision()
  # Making a ResNet18 takes longer than all the rest.
  wait = functools.partial(time.sleep, 0.01)
  monkeypatch.setattr(
    perturbations, '_forward',
    lambda *_: perturbations._contestant('resnet18', 1, wait),
  )
  output = tmp_path / 'perturbations.json'
  options = {
    'workdir': str(tmp_path / 'rows'), 'names': ['brightness', 'dust'],
    'severities': ['contrast'],
  }
  lines = []
  report = benchmark.run(
    'perturbations', quick=True, options=options, output=output,
    log=lines.append,
  )
  table = report['result']['milliseconds per image']
  names = {'brightness', 'dust'}
  for measure in ('values', 'images', 'resnet18', 'share_of_resnet18'):
    assert set(table[measure]) == names
    assert all(value > 0 for value in table[measure].values())
  # The speck of dust has no peer in torchvision.
  assert 'brightness' in table['torchvision']
  assert 'dust' not in table['torchvision'] and 'dust' not in table['over_peer']
  for flag, measure, bound in (
    ('costly', 'share_of_resnet18', 0.15), ('slower', 'over_peer', 1.05)
  ):
    for name, flagged in table[flag].items():
      assert flagged == (table[measure][name] > bound)
  rows = (tmp_path / 'rows' / 'perturbations.jsonl').read_text().splitlines()
  kept = [json.loads(row) for row in rows]
  assert {row['row'] for row in kept if 'row' in row} == names | {'contrast'}
  corruptions = report['result'][perturbations._SEVERITY]
  assert corruptions['images']['contrast'] > 0
  assert set(corruptions['share_of_resnet18']) == {'contrast'}
  assert 'share of resnet18' in benchmark.markdown(report)
  assert any('of a ResNet18' in line for line in lines)


def test_ratios_are_taken_within_a_round(monkeypatch):
  # Contestants by turns at speeds that the machine doubles in each round.
  rates = {
    'values': [40.0, 80.0], 'images': [20.0, 40.0], 'a': [30.0, 40.0],
    'b': [10.0, 60.0], 'resnet18': [8.0, 16.0],
  }
  monkeypatch.setattr(
    perturbations.races, 'race', lambda contestants, **_: {
      c.name: rates[c.name] for c in contestants
    },
  )
  peers = [perturbation_peers.Peer(n, 1, lambda: None) for n in 'ab']
  forward = perturbations._contestant('resnet18', 8, lambda: None)
  ours = {'values': len, 'images': len}
  row = perturbations._speed(ours, peers, forward, 4, 0.0, 2)
  assert row['share_of_resnet18'] == 0.2 and row['costly'] == 1
  # 30 over 20 in the first round, 60 over 40 in the second.
  assert row['over_peer'] == 1.5 and row['slower'] == 1
  assert row['values_over_peer'] == 0.75
  np.testing.assert_allclose(row['values'], 1000 / 60)
  row = perturbations._speed(ours, [], forward, 4, 0.0, 2)
  assert 'over_peer' not in row and 'slower' not in row
  row = perturbations._speed({'images': len}, peers, forward, 4, 0.0, 2)
  assert row['share_of_resnet18'] == 0.4 and row['costly'] == 1
  assert row['over_peer'] == 1.5 and 'values_over_peer' not in row


def test_images_that_are_streamed_do_not_add_to_the_peak():
  if not perturbations.has_resettable_peak():
    pytest.skip('the peak of memory cannot be reset here')
  images = perturbations._images(0, 2, 256)
  ours = perturbations._Ours('brightness', images, 0)
  measures = perturbations._memory(ours, (2, 40))
  # 38 pictures of 0.75 MiB would have been held.
  assert measures['if_all_were_held'] == 28.5
  assert measures['values'] < 10 and measures['images'] < 10
  assert measures['grows'] == 0


def test_images_that_are_all_held_are_seen_to_grow():
  if not perturbations.has_resettable_peak():
    pytest.skip('the peak of memory cannot be reset here')
  images = perturbations._images(0, 2, 256)

  def stream(num_images):
    held = [np.copy(images[0]) for _ in range(num_images)]
    del held

  ours = types.SimpleNamespace(
    images=images, at_values=abs, over_images=stream
  )
  measures = perturbations._memory(ours, (2, 400))
  assert measures['grows'] == 1
  assert measures['images'] > 0.5 * measures['if_all_were_held']


def test_peers_have_names_of_the_registry_and_give_pictures():
  modules = perturbation_peers.load(_ignore)
  modules = {n: m for n, m in modules.items() if n == 'torchvision'}
  if not modules:
    pytest.skip('torchvision is not installed')
  images = perturbations._images(0, 2, 16)
  table = perturbation_peers.peers(modules, images, _ignore)
  assert set(table) <= set(registry.names())
  assert len(table) > 20
  for name, found in table.items():
    if name == 'jpeg_codec':  # Needs the compiled part of torchvision.
      continue
    (result,) = [peer.call() for peer in found]
    assert tuple(result.shape) == (2, 3, 16, 16), name


def test_absent_and_failing_peers_are_logged(monkeypatch):
  def refuse(name):
    raise ImportError(f'no {name}')

  lines = []
  monkeypatch.setattr(perturbation_peers.importlib, 'import_module', refuse)
  monkeypatch.setattr(
    perturbation_peers, 'torchvision_import',
    types.SimpleNamespace(load=lambda: refuse('torchvision')),
  )
  assert perturbation_peers.load(lines.append) == {}
  assert len(lines) == len(perturbation_peers.LIBRARIES)
  assert all('is left out: ImportError' in line for line in lines)

  broken = {'skimage': types.SimpleNamespace(), 'dm_pix': np}
  images = perturbations._images(0, 2, 16)
  assert perturbation_peers.peers(broken, images, lines.append) == {}
  assert 'skimage is left out: AttributeError' in lines[-2]

  def fail():
    raise ValueError('of another version')

  works = perturbation_peers.Peer('dm_pix', 2, lambda: None)
  fails = perturbation_peers.Peer('kornia', 2, fail)
  assert perturbation_peers.working([fails, works], lines.append) == [works]
  assert lines[-1].startswith('kornia fails: ValueError')


def test_bad_options_are_refused(tmp_path):
  with pytest.raises(KeyError, match="did you mean 'brightness'"):
    perturbations.run(_ignore, names=['brightnes'], workdir=str(tmp_path))
  with pytest.raises(ValueError, match='num_images: 33.*chunk_size 8'):
    perturbations.run(_ignore, num_images=33, workdir=str(tmp_path))
  with pytest.raises(KeyError, match="did you mean 'frost'"):
    perturbations.run(_ignore, severities=['frots'], workdir=str(tmp_path))
