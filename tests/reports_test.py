"""Tests of jaxsens.reports on a function whose Sobol indices are known.

With u_d = value_d / 90 uniform on [-1, 1] the main output is

    y = 0.5 + sum_d a_d u_d + b u_0 u_1,   a_d = 0.3 / 2^d,   b = 0.12,

so that Var y = sum_d a_d^2 / 3 + b^2 / 9 with b = 0 for one factor; the model
answers the true class where y >= 0.41.
"""

import csv
import dataclasses
import html.parser
import itertools
import json
import os
import re
import subprocess
import sys

import matplotlib
import numpy as np
import pytest

from jaxsens import files
from jaxsens.reports import figures
from jaxsens.reports import overview
from jaxsens.reports import page
from jaxsens.reports import results
from jaxsens.reports import run_directory
from jaxsens.reports import sentences
from jaxsens.reports import style
from jaxsens.reports import surfaces
from jaxsens.reports import tables

_CLASSES = ('good weld', 'burn <through> & more')
_OUTPUTS = ('p(good weld)', 'p(burn through)', 'entropy')
_NAMES = ('rotation', 'tilt', 'brightness', 'blur', 'noise')
_UNITS = ('deg', 'deg', '', 'px', '')
_THRESHOLD = 0.41


def _coefficients(dim):
  return 0.3 / 2.0 ** np.arange(dim), 0.12 if dim > 1 else 0.0


def _outputs(u):
  a, b = _coefficients(u.shape[1])
  main = 0.5 + u @ a + (b * u[:, 0] * u[:, 1] if len(a) > 1 else 0.0)
  return np.stack([main, 1 - main, np.zeros_like(main)], axis=1)


def _expected(dim):
  """Returns variance, first-order and total indices in closed form."""
  a, b = _coefficients(dim)
  variance = (a ** 2).sum() / 3 + b ** 2 / 9
  joint = np.where(np.arange(dim) < 2, b ** 2 / 9, 0.0)
  return variance, a ** 2 / 3 / variance, (a ** 2 / 3 + joint) / variance


def _curve(dim, d, channels):
  values = np.linspace(-90, 90, 37)
  u = np.zeros((37, dim))
  u[:, d] = values / 90
  truth = _outputs(u)
  wrong = truth[:, 0] < _THRESHOLD
  below = values[wrong & (values < 0)]
  rng = np.random.default_rng(d)
  return results.FactorCurve(
    name=_NAMES[d], unit=_UNITS[d], values=values, truth=truth,
    surrogate_values=values[::2], surrogate=truth[::2] + 0.01,
    predicted=wrong.astype(int), identity=0.0,
    contact_images=rng.uniform(-0.1, 1.1, (4, 12, 9, channels)),
    contact_values=values[::12], contact_predicted=wrong[::12].astype(int),
    contact_confidence=np.full(4, 0.75),
    first_flip_below=below.max() if below.size else None,
    first_error_below=below.max() if below.size else None,
  )


def _surface(dim):
  x, y = np.linspace(-90, 90, 8), np.linspace(-90, 90, 7)
  return results.Surface(
    name_x=_NAMES[0], unit_x=_UNITS[0], name_y=_NAMES[1], unit_y=_UNITS[1],
    fixed={name: 0.0 for name in _NAMES[2:dim]}, x=x, y=y,
    surrogate=0.5 + 0.3 * x[:, None] / 90 + 0.15 * y / 90,
    nodes_x=np.array([-80.0, 10]), nodes_y=np.array([5.0, 60]),
    nodes_truth=np.array([0.2, 0.6]), output_name=_OUTPUTS[0],
  )


def _image(dim=3, channels=1, **changes):
  variance, first_order, total = _expected(dim)
  nan = np.full(dim, np.nan)
  subsets = [
    s for r in range(1, dim + 1) for s in itertools.combinations(range(dim), r)
  ]
  first_order, total = (
    np.stack([index, index, nan], 1) for index in (first_order, total)
  )
  interactions = np.zeros((dim, dim, 3))
  interactions[range(dim), range(dim)] = first_order
  if dim > 1:
    interactions[0, 1] = interactions[1, 0] = 0.0016 / variance
  values = np.zeros((len(subsets), 3))
  for s, subset in enumerate(subsets):
    if len(subset) < 3:
      values[s] = interactions[subset[0], subset[-1]]
  fields = {
    'name': 'clip 1/frame_<7>.png', 'label': 0, 'label_name': _CLASSES[0],
    'prediction': 0, 'prediction_name': _CLASSES[0], 'confidence': 0.8,
    'image': np.full((12, 9, channels), 0.5), 'output_names': _OUTPUTS,
    'main_output': 0, 'factor_names': _NAMES[:dim],
    'factor_units': _UNITS[:dim], 'first_order': first_order,
    'first_order_lower': first_order - 0.02,
    'first_order_upper': first_order + 0.02, 'total': total,
    'total_lower': total - 0.02, 'total_upper': total + 0.02,
    'interactions': interactions, 'subsets': tuple(subsets),
    'subset_values': values, 'mean': np.array([0.5, 0.5, 0.0]),
    'variance': np.array([variance, variance, 0.0]),
    'mean_derivatives': np.outer(_coefficients(dim)[0] / 90, [1, -1, 0]),
    'q2': np.array([0.97, 0.97, np.nan]),
    'explained_variance': np.array([0.98, 0.98, np.nan]), 'trusted': True,
    'advice': (), 'reasons': (None, None, 'the entropy never changes'),
    'curves': tuple(_curve(dim, d, channels) for d in range(dim)),
    'surfaces': (_surface(dim),) if dim > 1 else (),
  }
  return results.ImageResult(**fields | changes)


def _run(*images, title='Which factor moves the <model>?'):
  dim = len(images[0].factor_names)
  return results.RunResult(
    title=title, data_description='procedural frames', images=images,
    class_names=_CLASSES,
    provenance={
      'model': 'ResNet18', 'training': {'validation_accuracy': 0.953},
      'num_evaluations': 12000, 'stage_seconds': {'fit': 0.25},
      'config': {'seed': 0, 'note': '<b>'}, 'learning_rate': np.float32(0.5),
    },
    factors=[
      {'name': _NAMES[d], 'unit': _UNITS[d], 'distribution': 'Uniform(-90, 90)',
       'lower': -90.0, 'upper': 90.0} for d in range(dim)
    ],
  )


def _doubtful(**changes):
  return _image(
    q2=np.array([0.62, 0.95, np.nan]), trusted=False,
    advice=('raise the degree of rotation from 6 to 8',), **changes
  )


def _undefined():
  nan = np.full((3, 3), np.nan)
  return _image(
    first_order=nan, total=nan, first_order_lower=nan, first_order_upper=nan,
    total_lower=nan, total_upper=nan, interactions=np.full((3, 3, 3), np.nan),
    subset_values=np.full((7, 3), np.nan), variance=np.zeros(3),
    q2=np.full(3, np.nan), trusted=False, advice=('widen the ranges',),
    reasons=('the answer never changes',) * 3,
  )


def _wrong():
  return _image(prediction=1, prediction_name=_CLASSES[1], confidence=0.6)


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


# Sentences.


def test_answer_ranks_factors_with_closed_form_shares_and_intervals():
  # Var = 0.0393750 + 0.0016; 0.03 / Var = 73 %, 0.0316 / Var = 77 %;
  # tilt 0.0075 / Var = 18 % alone, 0.0091 / Var = 22 % in all.
  answer = tables.answer_sentence(_image())
  assert answer.startswith('Rotation moves the answer most')
  assert 'carries 73 % [71, 75] of the variance of p(good weld)' in answer
  assert '77 % [75, 79] with its interactions' in answer
  assert 'next, tilt carries 18 % [16, 20] alone and 22 %' in answer
  assert 'interaction, of rotation and tilt, carries 4 %' in answer


def test_answer_says_where_the_model_errs_and_where_it_never_does():
  # y < 0.41 for rotation < -27 and tilt < -54; never for brightness.
  answer = sentences.answer_sentence(_image())
  assert 'errs first at rotation -30 deg, at tilt -55 deg' in answer
  assert 'it never errs within the range of brightness alone' in answer


def test_both_first_errors_are_named():
  curve = dataclasses.replace(_curve(1, 0, 1), first_error_above=41.0)
  answer = sentences.answer_sentence(_image(1, curves=(curve,)))
  assert 'at rotation -30 deg and +41 deg' in answer


def test_values_are_signed_only_around_a_zero_identity():
  curve = dataclasses.replace(
    _curve(3, 2, 1), identity=1.0, first_error_above=1.5
  )
  assert sentences.first_errors(curve) == ['1.5']


def test_model_that_never_errs_is_said_to():
  curves = tuple(
    dataclasses.replace(c, first_error_below=None) for c in _image().curves
  )
  answer = sentences.answer_sentence(_image(curves=curves))
  assert (
    'the model never errs within the range of rotation, tilt and brightness'
    in answer
  )


def test_overlapping_intervals_are_not_ranked():
  image = _image()
  image = dataclasses.replace(image, total_upper=image.total + 0.6)
  answer = sentences.answer_sentence(image)
  assert answer.startswith(
    'Rotation and tilt move the answer most and their intervals overlap'
  )


def test_unknown_intervals_are_left_out():
  nan = np.full((3, 3), np.nan)
  answer = sentences.answer_sentence(_image(
    first_order_lower=nan, first_order_upper=nan, total_lower=nan,
    total_upper=nan,
  ))
  assert 'carries 73 % of the variance' in answer
  assert '[' not in answer and 'nan' not in answer


def test_single_factor_carries_all_of_the_variance():
  answer = sentences.answer_sentence(_image(1))
  assert answer.startswith('Rotation is the only factor and carries all')
  assert 'standard deviation 0.17' in answer  # 0.3 / sqrt(3)


def test_many_factors_are_bounded_together():
  answer = sentences.answer_sentence(_image(5))
  assert 'noise at most <1 % in all' in answer


def test_low_q2_begins_with_a_refusal_and_what_to_raise():
  answer = sentences.answer_sentence(_doubtful())
  assert answer.startswith(
    'Do not trust these indices: Q2 of p(good weld) on held-out nodes is 0.62, '
    'below 0.9; raise the degree of rotation from 6 to 8.'
  )
  assert 'Taken at face value: Rotation moves' in answer


def test_failed_check_refuses_in_spite_of_a_high_q2():
  answer = sentences.answer_sentence(_image(trusted=False))
  assert answer.startswith('Do not trust these indices: the checks of p(')


def test_nan_q2_refuses_although_trusted():
  image = _image(q2=np.full(3, np.nan))
  assert not image.accepted
  assert sentences.refusal(image).startswith('Do not trust these indices')


def test_undefined_indices_are_refused_with_reason_and_not_ranked():
  answer = sentences.answer_sentence(_undefined())
  assert answer.startswith(
    'Do not trust these indices: those of p(good weld) are undefined '
    '(the answer never changes); widen the ranges.'
  )
  assert 'moves the answer most' not in answer and 'nan' not in answer
  assert 'The model errs first at rotation -30 deg' in answer


def test_image_wrong_from_the_start_is_said_to_be():
  answer = sentences.answer_sentence(_wrong())
  assert 'already taken for burn <through> & more (60 %)' in answer
  assert 'errs first' not in answer


@pytest.mark.parametrize('value, text', [
  (0.0, '0 %'), (0.004, '<1 %'), (0.62, '62 %'), (np.nan, 'undefined'),
])
def test_shares_are_percent(value, text):
  assert sentences.format_share(value) == text


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


# Figures.


def _bars(axes):
  return [patch.get_width() for patch in axes.patches]


def test_bars_are_as_long_as_the_indices():
  axes, = figures.plot_indices(_image()).axes
  _, first_order, total = _expected(3)
  np.testing.assert_allclose(_bars(axes), [*first_order, *total], rtol=1e-12)


def test_undefined_indices_draw_no_bar_but_the_reason():
  axes, = figures.plot_indices(_undefined()).axes
  assert _bars(axes) == []
  texts = [text.get_text() for text in axes.texts]
  assert texts == ['undefined: the answer never changes']


def test_figure_of_doubtful_indices_says_so():
  figure = figures.plot_indices(_doubtful())
  texts = ' '.join(text.get_text() for text in figure.texts)
  assert 'NOT TO BE TRUSTED (Q² = 0.62)' in texts


def test_interactions_show_each_pair_once():
  axes, = figures.plot_interactions(_image()).axes
  texts = [text.get_text() for text in axes.texts]
  assert texts == ['73 %', '4 %', '18 %', '0 %', '0 %', '5 %']


def test_curves_show_the_network_and_shade_its_errors():
  panels = figures.plot_curves(_image(), _CLASSES).axes
  assert [len(panel.patches) for panel in panels] == [1, 1, 0]
  shaded = panels[0].patches[0]
  # Half-way between -30 (wrong) and -25 (right).
  np.testing.assert_allclose(shaded.get_x() + shaded.get_width(), -27.5)
  marks = sum(
    len(line.get_xdata()) for line in panels[0].lines
    if line.get_linestyle() == 'None'
  )
  assert marks == 37


def test_contact_sheet_frames_only_wrong_answers():
  cells = figures.plot_contact_sheet(_image(), _CLASSES).axes
  assert len(cells) == 12
  framed = [
    cell.spines['left'].get_edgecolor()[:3]
    == matplotlib.colors.to_rgb(style.WRONG) for cell in cells
  ]
  # Rows rotation, tilt, brightness at -90, -30, 30, 90.
  assert framed == [True, True, False, False] + [True] + [False] * 7
  assert cells[0].get_xlabel().startswith('✗ burn')
  assert cells[3].get_xlabel() == 'good weld\n75 %'


def test_surface_draws_the_nodes_on_the_same_scale_in_both_views():
  views = surfaces.plot_surface(_surface(3)).axes
  dots = [
    collection for axes in (views[0], views[-1])
    for collection in axes.collections
    if np.array_equal(collection.get_array(), [0.2, 0.6])
  ]
  np.testing.assert_allclose([d.get_clim() for d in dots], [(0.05, 0.95)] * 2)


def test_surface_without_nodes_or_without_variation_is_drawn():
  none = np.zeros(0)
  surface = dataclasses.replace(
    _surface(2), nodes_x=none, nodes_y=none, nodes_truth=none,
    surrogate=np.full((8, 7), 0.5),
  )
  assert style.render_png(surfaces.plot_surface(surface), dpi=40)


def test_overview_shows_at_most_eight_rows_and_totals_show_all():
  run = _run(*[_image() for _ in range(11)])
  texts = [text.get_text() for text in overview.plot_overview(run).texts]
  assert any('8 of 11 images' in text for text in texts)
  axes, = overview.plot_totals(run).axes
  assert len(axes.texts) == 33


def test_totals_bracket_what_is_not_trusted_and_dash_what_is_undefined():
  run = _run(_image(), _doubtful(), _undefined())
  axes, = overview.plot_totals(run).axes
  texts = [text.get_text() for text in axes.texts]
  assert [texts[0], texts[3], texts[6]] == ['77 %', '[77 %]', '–']


def test_dollar_signs_in_names_are_no_formulas():
  image = _image(name='a$b$_{1}.png', label_name='$\\frac')
  style.render_png(figures.plot_indices(image), dpi=40)


@pytest.mark.parametrize('shape', [(40, 20), (40, 20, 1), (40, 20, 3)])
def test_thumbnail_keeps_the_aspect_and_is_rgb(shape):
  thumbnail = style.thumbnail(np.ones(shape), 10)
  assert thumbnail.shape == (10, 5, 3)
  assert thumbnail.dtype == np.uint8
  assert (thumbnail == 255).all()


def test_thumbnail_clips_and_does_not_enlarge():
  thumbnail = style.thumbnail(np.array([[[-1.0], [0.5], [2.0], [np.nan]]]), 9)
  assert thumbnail[0, :, 0].tolist() == [0, 128, 255, 0]


def test_thumbnail_of_another_shape_raises():
  with pytest.raises(ValueError, match=r'\(4, 4, 2\)'):
    style.thumbnail(np.zeros((4, 4, 2)), 4)


def test_shortened_text_keeps_both_ends():
  assert style.shorten('abcdefghij', 5) == 'ab…ij'
  assert style.shorten('abc', 3) == 'abc'


def test_drawing_touches_no_global_state():
  program = (
    'import sys\nfrom jaxsens.reports import run_directory\n'
    'assert "matplotlib.pyplot" not in sys.modules\n'
  )
  subprocess.run([sys.executable, '-c', program], check=True)
  before = dict(matplotlib.rcParams)
  figures.plot_curves(_image(), _CLASSES)
  assert dict(matplotlib.rcParams) == before


# The page and the directory.


class _Reader(html.parser.HTMLParser):
  """Collects sources and references; checks that tags close in order."""

  def __init__(self):
    super().__init__()
    self.open, self.tags, self.references, self.lines = [], [], [], []

  def handle_starttag(self, tag, attributes):
    self.tags.append(tag)
    self.references += [
      value for name, value in attributes if name in ('src', 'href')
    ]
    if tag not in ('meta', 'img'):
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    if data.strip() and self.open[-1] not in ('style', 'title'):
      self.lines.append(data.strip())


def _read_page(path):
  content = path.read_text(encoding='utf-8')
  reader = _Reader()
  reader.feed(content)
  assert reader.open == []
  return content, reader


@pytest.mark.parametrize('dim, channels', [(1, 1), (3, 3), (5, 1)])
def test_everything_is_written(tmp_path, dim, channels):
  run = _run(_image(dim, channels), _image(dim, channels))
  paths = run_directory.write_all(tmp_path / 'run', run)
  kinds = ['indices', 'curves', 'contact']
  kinds += ['interactions', 'surface_0'] if dim > 1 else []
  expected = {'indices.csv', 'indices.json', 'metrics.json', 'report.html',
              'figures/overview.png', 'figures/totals.png'}
  expected |= {
    f'figures/{i:02d}_clip_1_frame__7_{kind}.png' for i in range(2)
    for kind in kinds
  }
  written = {
    path.relative_to(tmp_path / 'run').as_posix()
    for path in (tmp_path / 'run').rglob('*') if path.is_file()
  }
  assert written == set(paths) == expected
  for name, path in paths.items():
    if name.endswith('.png'):
      assert path.read_bytes().startswith(b'\x89PNG\r\n')
  _, reader = _read_page(paths['report.html'])
  assert reader.tags.count('img') == len(expected) - 4


def test_report_is_self_contained_and_escaped(tmp_path):
  paths = run_directory.write_all(tmp_path, _run(_image(), _wrong()))
  content, reader = _read_page(paths['report.html'])
  without_pictures = re.sub(r'base64,[^"]*', '', content)
  assert 'http' not in without_pictures
  assert 'url(' not in without_pictures and '@import' not in without_pictures
  assert reader.references
  assert all(r.startswith('data:image/png;base64,') for r in reader.references)
  assert not {'script', 'link', 'iframe'} & set(reader.tags)
  assert 'through' not in reader.tags and 'model' not in reader.tags
  assert 'burn &lt;through&gt; &amp; more' in content


def test_first_lines_of_a_trusted_report_are_data_model_and_trust(tmp_path):
  paths = run_directory.write_all(tmp_path, _run(_image(1)))
  lines = _read_page(paths['report.html'])[1].lines
  text = ' '.join(lines[:14])
  data = lines.index('Data')
  assert data < 4 and lines[data + 1] == 'procedural frames'
  assert 'ResNet18, validation accuracy 95.3 %' in text
  assert '12,000 perturbed images' in text
  assert 'The indices can be trusted.' in text
  assert 'Do not trust' not in ' '.join(lines)


@pytest.mark.parametrize('image', [_doubtful, _undefined])
def test_first_lines_of_a_doubtful_report_refuse_and_advise(tmp_path, image):
  image = image(curves=()) if image is _doubtful else image()
  run = _run(_image(curves=(), surfaces=()), image)
  path = run_directory.write_all(tmp_path, run)['report.html']
  lines = _read_page(path)[1].lines
  assert lines[1] == 'Do not trust these indices (1 of 2 images).'
  assert image.advice[0] in ' '.join(lines[2:4])
  assert lines.index('Data') > 3


def test_doubtful_secondary_output_is_named_in_the_first_lines(tmp_path):
  image = _image(1, q2=np.array([0.97, 0.5, np.nan]))
  path = run_directory.write_all(tmp_path, _run(image))['report.html']
  first = ' '.join(_read_page(path)[1].lines[1:8])
  assert 'The indices can be trusted.' in first
  assert 'p(burn through) (Q2 0.50)' in first
  assert 'p(good weld) (Q2' not in first


def test_missing_accuracy_is_said_to_be_missing(tmp_path):
  run = dataclasses.replace(_run(_image(1, curves=())), provenance={})
  path = run_directory.write_all(tmp_path, run)['report.html']
  assert 'validation accuracy not recorded' in path.read_text('utf-8')


def test_report_is_the_same_when_written_again(tmp_path):
  run = _run(_image(1))
  first = run_directory.write_all(tmp_path, run)['report.html'].read_bytes()
  again = run_directory.write_all(tmp_path, run)['report.html'].read_bytes()
  assert first == again


def test_failed_write_keeps_the_old_file_and_leaves_no_other(
  tmp_path, monkeypatch
):
  path = files.write_text(tmp_path / 'report.html', 'old')

  def full(*_):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(os, 'replace', full)
  with pytest.raises(OSError, match='No space left'):
    files.write_text(path, 'new')
  assert path.read_text() == 'old'
  assert os.listdir(tmp_path) == ['report.html']


def test_directory_that_is_a_file_raises_with_its_path(tmp_path):
  (tmp_path / 'run').write_text('')
  with pytest.raises(OSError, match='run'):
    run_directory.write_all(tmp_path / 'run', _run(_image(1)))


def test_page_text_is_safe_in_attributes():
  assert page.text('"<&') == '&quot;&lt;&amp;'


def test_relief_is_seen_from_its_low_side():
  # The plane rises along x and y, so the viewer stands at low x and low y.
  relief = surfaces.plot_surface(_surface(3)).axes[-1]
  assert relief.azim == 215
