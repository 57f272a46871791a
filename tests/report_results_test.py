"""Tests of the results of a run and of the tables they are written to."""

import csv
import dataclasses
import json

import numpy as np
import pytest

from jaxsens.reports import tables
from tests.oracles import known_run

_NAMES = known_run.NAMES
_expected = known_run.expected
_curve = known_run.curve
_surface = known_run.surface
_image = known_run.image
_run = known_run.run
_doubtful = known_run.doubtful
_wrong = known_run.wrong


# Results.


@pytest.mark.parametrize('field, shape', [
  ('first_order', (2, 3)), ('q2', (4,)), ('subset_values', (7, 2)),
])
def test_misshapen_result_raises_with_field_and_both_shapes(field, shape):
  with pytest.raises(ValueError, match=field) as error:
    _image(**{field: np.zeros(shape)})
  assert str(shape) in str(error.value)
  assert 'expected' in str(error.value)


def test_misshapen_curve_raises():
  with pytest.raises(ValueError, match=r'predicted has shape \(3,\)'):
    dataclasses.replace(_curve(3, 0, 1), predicted=np.zeros(3, int))
  with pytest.raises(ValueError, match='do not increase'):
    dataclasses.replace(_curve(3, 0, 1), values=np.zeros(37))
  with pytest.raises(ValueError, match='expected .T, H, W, C.'):
    dataclasses.replace(_curve(3, 0, 1), contact_images=np.zeros((4, 2, 2)))


def test_misshapen_surface_raises():
  with pytest.raises(ValueError, match='surrogate'):
    dataclasses.replace(_surface(3), x=np.arange(3.0))


def test_unknown_or_repeated_curve_raises():
  curve = dataclasses.replace(_curve(3, 0, 1), name='humidity')
  with pytest.raises(ValueError, match='humidity'):
    _image(curves=(curve,))
  with pytest.raises(ValueError, match='at most one'):
    _image(curves=(_curve(3, 0, 1),) * 2)
  with pytest.raises(ValueError, match='main_output is 3'):
    _image(main_output=3)


def test_run_of_no_images_or_of_different_factors_raises():
  with pytest.raises(ValueError, match='empty'):
    dataclasses.replace(_run(_image()), images=())
  with pytest.raises(ValueError, match='factors'):
    _run(_image(3), _image(2))


def test_wrong_ranges_end_half_way_between_right_and_wrong_nodes():
  curve = dataclasses.replace(
    _curve(3, 0, 1), predicted=np.array([1] * 3 + [0] * 30 + [2, 2, 1, 1])
  )
  expected = [(-90, -77.5, 1), (72.5, 82.5, 2), (82.5, 90, 1)]
  assert curve.wrong_ranges(0) == expected


def test_wrong_ranges_of_always_right_and_always_wrong_curves():
  curve = dataclasses.replace(_curve(3, 0, 1), predicted=np.zeros(37, int))
  assert curve.wrong_ranges(0) == []
  assert curve.wrong_ranges(1) == [(-90, 90, 0)]


# Tables.


def _read_csv(path):
  with open(path, newline='', encoding='utf-8') as file:
    return list(csv.DictReader(file))


def _strict(path):
  def refuse(token):
    raise AssertionError(f'{token} is not JSON')
  with open(path, encoding='utf-8') as file:
    return json.load(file, parse_constant=refuse)


@pytest.mark.parametrize('dim', [1, 3, 5])
def test_csv_gives_every_index_back_exactly(tmp_path, dim):
  rows = _read_csv(
    tables.write_indices_csv(tmp_path / 'a.csv', _run(_image(dim)))
  )
  _, first_order, total = _expected(dim)
  for index, expected in (('first_order', first_order), ('total', total)):
    found = [
      row for row in rows
      if row['index'] == index and row['output'] == 'p(good weld)'
    ]
    assert [row['factors'] for row in found] == list(_NAMES[:dim])
    assert [float(row['value']) for row in found] == list(expected)
    assert [float(row['upper']) for row in found] == list(expected + 0.02)
  subsets = [row for row in rows if row['index'] == 'subset']
  assert len(subsets) == 3 * (2 ** dim - 1)


def test_csv_has_empty_cells_with_reasons_for_nan(tmp_path):
  rows = _read_csv(tables.write_indices_csv(tmp_path / 'a', _run(_image())))
  for row in rows:
    if row['output'] == 'entropy' and row['index'] in ('first_order', 'total'):
      assert row['value'] == row['lower'] == row['upper'] == ''
      assert row['reason'] == 'the entropy never changes'
      assert row['trusted'] == 'false'
    if row['output'] != 'entropy':
      assert row['value'] and not row['reason']
  assert 'nan' not in (tmp_path / 'a').read_text().lower()


def test_csv_gives_mean_derivatives_per_unit(tmp_path):
  rows = _read_csv(tables.write_indices_csv(tmp_path / 'a', _run(_image())))
  slopes = {
    row['factors']: row for row in rows
    if row['index'] == 'mean_derivative' and row['output'] == 'p(good weld)'
  }
  assert slopes['rotation']['unit'] == '1/deg'
  assert float(slopes['rotation']['value']) == 0.3 / 90
  assert slopes['brightness']['unit'] == ''


@pytest.mark.parametrize('dim', [1, 3, 5])
def test_json_gives_every_index_back_exactly(tmp_path, dim):
  record = _strict(
    tables.write_indices_json(tmp_path / 'a.json', _run(_image(dim)))
  )
  assert list(record)[:2] == ['schema', 'version']
  assert (record['schema'], record['version']) == ('jaxsens.indices', 1)
  image, = record['images']
  output = image['outputs']['p(good weld)']
  variance, first_order, total = _expected(dim)
  for d, name in enumerate(_NAMES[:dim]):
    assert output['first_order'][name]['value'] == first_order[d]
    assert output['total'][name]['value'] == total[d]
    assert output['mean_derivative'][name] == 0.3 / 2 ** d / 90
  assert output['variance'] == variance
  assert output['reason'] is None
  np.testing.assert_allclose(
    sum(output['subsets'].values()), 1, rtol=0, atol=1e-12
  )
  assert image['first_errors']['rotation'] == [-30.0, None]
  assert record['provenance']['learning_rate'] == 0.5


def test_json_has_null_with_the_reason_beside_for_nan(tmp_path):
  record = _strict(tables.write_indices_json(tmp_path / 'a', _run(_image())))
  entropy = record['images'][0]['outputs']['entropy']
  assert entropy['first_order']['tilt'] == {
    'value': None, 'lower': None, 'upper': None
  }
  assert entropy['q2'] is None
  assert entropy['reason'] == 'the entropy never changes'
  assert entropy['trusted'] is False


def test_metrics_count_trusted_and_correct_images(tmp_path):
  run = _run(_image(), _doubtful(), _wrong())
  metrics = _strict(tables.write_metrics(tmp_path / 'metrics.json', run))
  assert metrics['num_images'] == 3
  assert metrics['num_trusted'] == 2
  assert metrics['num_correct'] == 2
  assert metrics['lowest_q2'] == 0.62
  assert metrics['images'][1]['q2']['p(burn through)'] == 0.95


def test_plain_values_hold_no_arrays_nor_nan():
  value = {'a': np.array([1.0, np.nan]), 2: (np.int64(3), {'x': np.inf})}
  assert tables.plain(value) == {'a': [1.0, None], '2': [3, {'x': None}]}
