import io

import numpy as np
from PIL import Image
import pytest

from jaxsens.reports import attribution_figures
from jaxsens.reports import attribution_page
from jaxsens.reports import belief_figures
from jaxsens.reports import factor_attribution_figures
from jaxsens.reports import heat_maps
from jaxsens.reports import style


def _document(size=(12, 8), channels=3):
  rng = np.random.default_rng(0)
  images = rng.random((2, *size, channels), np.float32)
  maps = rng.normal(size=(2, *size, channels)).astype(np.float32)
  method = lambda name, kind: {
    'name': name, 'method': name, 'kind': kind, 'seconds': 1.0,
    'scores': [1.0, 2.0], 'baseline_scores': [0.0, 2.0],
    'completeness_error': [0.5, 3000.0], 'relative_error': [0.5, None],
    'num_gradients': [50, 1], 'num_forwards': [0, 2],
    'spearman': [0.5, None], 'absolute_spearman': [0.25, None],
    'ssim': [0.1, 0.2], 'complete': name == 'steps',
  }
  methods = [method('steps', 'signed'), method('sizes <b>', 'unsigned'),
             method('RISE', 'level')]
  values = {'steps': maps, 'sizes <b>': np.abs(maps), 'RISE': 5 + maps}
  arrays = {
    'images': images, 'masks': images[..., 0] > 0.7,
    'classes': np.abs(rng.normal(size=(2, 2, *size))),
    'panel/images': images[[0, 1, 0]],
    'paths/tilt/images': images[[[0, 1], [1, 0]]],
    'paths/tilt/values': maps,
  }
  for name, found in values.items():
    arrays[f'values/{name}'] = arrays[f'randomised/{name}'] = found
    arrays[f'panel/{name}'] = found[[0, 1, 0]]
  one = np.array([[0.25, np.nan], [0.5, np.nan]]).tolist()
  document = {
    'title': 'What <a network> looks at', 'facts': {'network': 'a & b'},
    'quantity': 'logit', 'class_names': ['cat', 'a $dog$'], 'settings': {},
    'images': [
      {'name': 'first', 'label': 0, 'answer': 0, 'target': 0,
       'certainty': 0.875, 'score': 1.0},
      {'name': 'second', 'label': 0, 'answer': 1, 'target': 0,
       'certainty': 0.625, 'score': 1.0},
    ],
    'methods': methods, 'randomised': methods, 'annotate': True,
    'belief': [{
      'name': name, 'deletion': [0.25, 0.5], 'insertion': [0.5, None],
      'road': [0.5, 0.5], 'mufidelity': [-0.5, 0.125], 'infidelity': None,
      'sensitivity': [0.5, 0.5], 'other_class': None,
      'stages': ['fc', 'conv'], 'cascade': [[0.9, None], [0.0625, 0.0625]],
    } for name in ('steps', 'RISE')],
    'skipped': [{'name': 'LIME', 'reason': 'none <such>'}],
    'classes': {'layer': 'conv', 'classes': [0, 1],
                'certainties': [[0.875, 0.125], [0.375, 0.625]]},
    'panel': {'factor': 'tilt', 'unit': 'deg', 'values': [-1.0, 0.0, 1.0],
              'image': 0, 'answers': [0, 1, 0], 'certainties': [0.9, 0.8, 0.7],
              'methods': methods},
    'paths': [{
      'factor': 'tilt', 'unit': 'deg', 'start': 0.0, 'ends': [1.0, -1.0],
      'answers': [[0, 1], [1, 0]], 'certainties': [[0.9, 0.8], [0.7, 0.6]],
      'changes': [-1.5, 0.0], 'positive': [1.0, 0.0], 'negative': [-2.5, 0.0],
      'completeness_error': [0.0, 0.0], 'num_gradients': [30, 60],
    }],
    'indices': {
      'method': 'steps', 'factors': ['tilt', 'rotation'],
      'outputs': ['centre x', 'soft Dice'], 'units': ['px', ''],
      'images': [{
        **{name: one for name in (
          'first_order', 'total', 'first_order_lower', 'first_order_upper',
          'total_lower', 'total_upper',
        )}, 'mean': [3.0, 0.5], 'std': [1.0, 0.0], 'q2': [0.99, None],
        'trusted': [True, False], 'num_evaluations': 64,
      }] * 2,
    },
  }
  document['indices']['images'][0] = _plain(document['indices']['images'][0])
  return document, arrays


def _plain(value):
  if isinstance(value, dict):
    return {name: _plain(entry) for name, entry in value.items()}
  if isinstance(value, list):
    return [_plain(entry) for entry in value]
  return None if isinstance(value, float) and np.isnan(value) else value


def test_colours_are_those_of_the_numbers():
  white = np.ones((1, 3, 1))
  values = np.array([[-2.0, 0.0, 1.0]])
  signed = heat_maps.shade(white, values, heat_maps.Scale(-1, 1, True))
  np.testing.assert_allclose(signed[0, 1], 1, atol=0.01)
  # Numbers beyond the end have its colour.
  np.testing.assert_allclose(signed[0, 0], heat_maps.SIGNED(0.0)[:3])
  np.testing.assert_allclose(signed[0, 2], heat_maps.SIGNED(1.0)[:3])
  assert signed[0, 0, 2] > signed[0, 0, 0] and signed[0, 2, 0] > signed[0, 2, 2]
  plain = heat_maps.shade(white, values, heat_maps.Scale(0, 1, False))
  np.testing.assert_allclose(plain[0, :2], 1)
  # The image stays to be seen where the map is zero.
  black = heat_maps.shade(0 * white, 0 * values, heat_maps.Scale(-1, 1, True))
  assert (black < signed[0, 1] - 0.2).all()


def test_scale_ends_at_the_percentile_of_the_sizes():
  values = np.linspace(-1, 3, 401).reshape(1, 401)
  limit = np.percentile(np.abs(values), 99)
  signed = heat_maps.scale_of(values, 'signed')
  assert (signed.lower, signed.upper, signed.signed) == (-limit, limit, True)
  assert heat_maps.scale_of(values, 'unsigned').lower == 0
  level = heat_maps.scale_of(values, 'level')
  np.testing.assert_allclose((level.lower, level.upper), (-0.96, 2.96))
  # One pixel of many, and none.
  lonely = np.zeros((20, 20))
  lonely[3, 3] = -4
  assert heat_maps.scale_of(lonely, 'signed').upper == 4
  none = heat_maps.scale_of(0 * lonely, 'signed')
  np.testing.assert_allclose(none.colours(np.zeros(3)), 1, atol=0.01)


def test_tiles_keep_the_sum():
  values = np.random.default_rng(0).normal(size=(10, 7))
  tiles = heat_maps.in_tiles(values, 5)  # of 2 x 2 pixels, cut at the border
  np.testing.assert_allclose(tiles[:2, 2:4], values[:2, 2:4].sum())
  np.testing.assert_allclose(tiles[8:, 6], values[8:, 6].sum())
  np.testing.assert_allclose(tiles[::2, ::2].sum(), values.sum())
  np.testing.assert_array_equal(heat_maps.in_tiles(values, 100), values)


@pytest.mark.parametrize(
  'size, expected', [
    ((32, 32), (192, 192)), ((200, 200), (200, 200)), ((224, 224), (224, 224)),
    ((800, 400), (200, 100)), ((8, 4), (200, 100)),
  ],
)
def test_pictures_are_whole_multiples_unless_they_are_large(size, expected):
  assert heat_maps.picture_size(*size) == expected
  image = np.random.default_rng(0).integers(0, 256, (*size, 1)) / 255
  shown = heat_maps.fitted(image)
  assert shown.shape == (*expected, 3)
  if size[0] <= 224:
    step = expected[0] // size[0]
    np.testing.assert_array_equal(
      shown[::step, ::step, 0], np.round(255 * image[..., 0])
    )


def test_a_pixel_of_the_page_is_one_of_the_picture():
  rng = np.random.default_rng(0)
  image = rng.integers(0, 256, (50, 50, 3)) / 255
  figure = heat_maps.new_figure(3.3, 2.7)
  heat_maps.put(figure, image, 0.313, 0.271)
  page = np.asarray(
    Image.open(io.BytesIO(style.render_png(figure))).convert('RGB')
  )
  shown = heat_maps.fitted(image)
  height = page.shape[0]
  left, bottom = (round(x * style.DPI) for x in (0.313, 0.271))
  found = page[height - bottom - 200:height - bottom, left:left + 200]
  # But for the frame.
  np.testing.assert_array_equal(found[4:-4, 4:-4], shown[4:-4, 4:-4])


def test_mask_is_outlined_along_the_edges_of_its_pixels():
  mask = np.zeros((10, 10), bool)
  mask[2:4, 3:7] = True
  figure = heat_maps.new_figure(3, 3)
  axes = heat_maps.put(figure, np.ones((10, 10, 1)), 0.2, 0.2, mask=mask)
  x, y = axes.lines[0].get_data()
  assert (np.nanmin(x), np.nanmax(x)) == (3 * 20 - 0.5, 7 * 20 - 0.5)
  assert (np.nanmin(y), np.nanmax(y)) == (2 * 20 - 0.5, 4 * 20 - 0.5)
  assert np.isnan(x).sum() == 2 * (2 + 4)


def test_figures_say_what_is_known_of_each_map():
  document, arrays = _document()
  figure = attribution_figures.plot_heat_maps(
    document, arrays, range(2), document['methods']
  )
  texts = [text.get_text() for text in figure.texts]
  assert 'sum off by +0.5 (50 %)' in texts and 'sum off by +3,000' in texts
  assert texts.count('promises no sum') == 4
  assert '50 gradients' in texts and '1 gradient, 2 passes' in texts
  assert '✗ a $dog$' in texts and 'is cat' in texts and '0.88' in texts
  paths = factor_attribution_figures.plot_paths(document, arrays, 0)
  assert '0 to 1 deg' in [text.get_text() for text in paths.texts]
  widths = [bar.get_width() for bar in paths.axes[-1].patches]
  np.testing.assert_allclose(widths, [1, -2.5, -1.5, -1.5])
  indices = factor_attribution_figures.plot_indices(document, arrays)
  title = indices.axes[2].get_title(loc='left')
  assert title == 'centre x (px)\n3 ± 1, Q² 0.99'


def test_bars_and_lines_say_what_speaks_for_a_map():
  document, _ = _document()
  figure = belief_figures.plot_belief(document)
  deletion, *_, cascade = figure.axes
  widths = [bar.get_width() for bar in deletion.patches]
  np.testing.assert_allclose(widths, 0.375)
  texts = [text.get_text() for text in figure.axes[4].texts]
  assert texts == ['–', '–']
  assert [text.get_text() for text in cascade.texts] == ['0.06', '0.06']
  labels = [label.get_text() for label in cascade.get_xticklabels()]
  assert labels == ['trained', 'fc', 'conv']
  line = next(x for x in cascade.lines if len(x.get_xdata()) == 3)
  heights = (line.get_ydata() - line.get_ydata().min()) / 0.76
  np.testing.assert_allclose(heights, [0.9375, 0.8375, 0], atol=1e-6)


def test_no_signs_no_parts():
  document, arrays = _document()
  document['methods'] = document['methods'][1:]
  assert attribution_figures.plot_parts(document, arrays, 0) is None


def test_page_holds_every_part_and_escapes(tmp_path):
  document, arrays = _document(size=(16, 16), channels=1)
  attribution_page.write_all(tmp_path, document, arrays)
  stems = {path.stem for path in (tmp_path / 'explanation').iterdir()}
  assert stems == {
    'heat_maps', 'parts', 'classes', 'factor', 'paths', 'paths_2',
    'randomised', 'belief', 'indices', 'annotated_00000', 'annotated_00001',
  }
  page = (tmp_path / 'explanation.html').read_text()
  assert page.count('data:image/png') == len(stems)
  for text in ('What &lt;a network&gt; looks at', 'sizes &lt;b&gt;',
               'none &lt;such&gt;', '<h2>Permuted parameters</h2>',
               '0.25 / 0.25', 'a &amp; b', 'without conv', 'not promised'):
    assert text in page
  bare = document | {
    'classes': None, 'panel': None, 'paths': [], 'randomised': [],
    'belief': [],
    'indices': None, 'annotate': False, 'skipped': [],
  }
  page = attribution_page.render(bare, arrays)
  assert '<h2>Heat maps</h2>' in page and 'Left out' not in page
  assert 'Permuted' not in page and page.count('data:image/png') == 2
