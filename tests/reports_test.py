"""Tests of the sentences, the page and the directory of a report."""

import dataclasses
import html.parser
import json
import os
import re

import numpy as np
import pytest

from jaxsens import files
from jaxsens.reports import page
from jaxsens.reports import run_directory
from jaxsens.reports import sentences
from jaxsens.reports import tables
from tests.oracles import known_run

_curve = known_run.curve
_image = known_run.image
_run = known_run.run
_doubtful = known_run.doubtful
_undefined = known_run.undefined
_wrong = known_run.wrong


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


def test_sharp_responses_are_listed_with_degree_and_law(tmp_path):
  entry = {'law': 'algebraic', 'rate': 1.04, 'fall': 'n^-1', 'slow': True}
  smooth = {'required_degree': 4.0, 'law': 'finite', 'rate': np.nan,
            'fall': '', 'slow': False}
  sharp = _image(decay={
    'rotation': {**entry, 'required_degree': 40.0},
    'tilt': {**entry, 'required_degree': 85.0}, 'brightness': smooth,
  })
  assert sentences.sharpness(sharp) == (
    'tilt (degree 85, coefficients fall like n^-1), '
    'rotation (degree 40, coefficients fall like n^-1)'
  )
  paths = run_directory.write_all(tmp_path, _run(sharp, _image()))
  lines = _read_page(paths['report.html'])[1].lines
  assert 'Sharp responses: 1 of 2 images' in lines
  assert any(sentences.sharpness(sharp) in line for line in lines)
  record = json.loads(paths['indices.json'].read_text())['images']
  assert record[0]['decay']['tilt']['required_degree'] == 85
  assert record[0]['decay']['brightness']['rate'] is None
  assert record[1]['decay'] == {}


def test_page_without_sharp_responses_does_not_speak_of_them(tmp_path):
  paths = run_directory.write_all(tmp_path, _run(_image()))
  assert 'Sharp' not in ' '.join(_read_page(paths['report.html'])[1].lines)


def test_decay_along_an_unknown_factor_raises():
  with pytest.raises(ValueError, match=r"decay along \['blur'\]"):
    _image(decay={'blur': {}})


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
