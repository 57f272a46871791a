"""The fit benchmark on a small problem: all contestants agree."""

import pytest

from experiments.benchmarks import fit


@pytest.fixture(name='report', scope='module')
def fixture_report():
  lines = []
  report = fit.run(
    lines.append,
    num_nodes=300,
    degree=2,
    num_outputs=3,
    num_outputs_chaospy=2,
    num_repeats=1,
  )
  return report, lines


def test_chaospy_gives_the_same_indices(report):
  assert report[0]['K=1']['max_difference_to_jaxsens']['chaospy'] < 1e-12


def test_pygpc_gives_the_same_indices(report):
  pytest.importorskip('pygpc', reason='pygpc is a peer, not a dependency')
  for part in ('K=1', 'K=3'):
    assert report[0][part]['max_difference_to_jaxsens']['pygpc'] < 1e-12


def test_report_holds_times_ratios_and_errors(report):
  for part in ('K=1', 'K=3'):
    found = report[0][part]
    assert found['median_seconds']['jaxsens'] > 0
    assert found['times_slower_than_jaxsens'].keys() == (
      found['seconds'].keys() - {'jaxsens'}
    )
  assert report[0]['num_terms'] == 27
  assert report[0]['K=1']['max_index_error']['jaxsens'] < 1
  assert any('largest index error' in line for line in report[1])


def test_missing_pygpc_is_said_and_left_out(monkeypatch):
  def refuse(name):
    raise ImportError(f'No module named {name!r}')

  monkeypatch.setattr(fit.importlib, 'import_module', refuse)
  lines = []
  assert fit._import_pygpc(lines.append) is None
  assert 'pygpc is left out' in lines[0]
