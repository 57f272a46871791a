import jax
import numpy as np
import pytest

from experiments import benchmark
from experiments.benchmarks import attribution
from experiments.benchmarks import attribution_memory
from tests.oracles import small_networks


def test_maps_agree_with_captums(quick_compiles):
  pytest.importorskip('captum', reason='captum is the peer here')
  found = attribution.run(
    lambda _: None,
    **benchmark.QUICK['attribution'] | {'parts': ('agreement',)},
  )['agreement']
  # Its DeepLIFT is wrong behind max pools until two faults are repaired, its
  # conductance takes differences of neighbouring steps for derivatives.
  for method in set(found) - {'DeepLIFT, as shipped', 'conductance'}:
    assert 0 < found[method]['squeezenet1_1, float32'] < 1e-4, method
  row = found['DeepLIFT, as shipped']
  assert row['squeezenet1_1, float32'] > 0.1


def test_steps_and_memory_are_measured(monkeypatch):
  monkeypatch.setattr(
    attribution.weights, 'photographs', _photographs
  )
  lines = []
  found = attribution.run(
    lines.append, parts=('steps',), networks=('squeezenet1_1',), num_photos=2,
    max_steps=30,
  )['steps']
  assert found['images']['squeezenet1_1'] == 2
  # The score is linear, for which every rule is exact.
  assert found['adaptive']['squeezenet1_1'] == 5
  assert found['fixed']['squeezenet1_1'] == 10
  assert found['map_error_fixed_as_many']['squeezenet1_1'] < 1e-5
  assert attribution_memory.peak() > 10


def _photographs(name, size, number):
  del name, size
  images = np.random.default_rng(0).random((number, 8, 8, 3), np.float32)
  classifier = small_networks.linear(jax.random.key(0), size=(8, 8), channels=3)
  return classifier, images


def test_what_is_absent_is_said(monkeypatch):
  def absent(*_):
    raise FileNotFoundError('no photographs')

  monkeypatch.setattr(attribution.weights, 'photographs', absent)
  lines = []
  found = attribution.run(
    lines.append, parts=('steps',), networks=('resnet18',)
  )
  assert not found
  assert any('no photographs' in line for line in lines)


def test_unknown_part_is_named():
  with pytest.raises(ValueError, match="parts must be among.*'pace'"):
    attribution.run(print, parts=('pace',))
