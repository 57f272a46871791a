"""Tests of the figures of a run whose Sobol indices are known."""

import dataclasses
import subprocess
import sys

import matplotlib
import numpy as np
import pytest

from jaxsens.reports import figures
from jaxsens.reports import overview
from jaxsens.reports import style
from jaxsens.reports import surfaces
from tests.oracles import known_run

_CLASSES = known_run.CLASSES
_expected = known_run.expected
_surface = known_run.surface
_image = known_run.image
_run = known_run.run
_doubtful = known_run.doubtful
_undefined = known_run.undefined


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


def test_relief_is_seen_from_its_low_side():
  # The plane rises along x and y, so the viewer stands at low x and low y.
  relief = surfaces.plot_surface(_surface(3)).axes[-1]
  assert relief.azim == 215


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


def test_wrapped_text_breaks_at_blanks_and_behind_underscores():
  assert style.wrap('gaussian_noise', 12) == 'gaussian_\nnoise'
  assert style.wrap('(share of the width)', 12) == '(share of\nthe width)'
  assert style.wrap('tilt', 12) == 'tilt'
  assert style.wrap('translation_x', 13) == 'translation_x'
