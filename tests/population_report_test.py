"""Report of a made-up data set whose answer is known."""

import csv
import dataclasses
import html.parser
import re
import tempfile

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np
from PIL import Image

from jaxsens.reports import accuracy_figures
from jaxsens.reports import convergence
from jaxsens.reports import population_figures
from jaxsens.reports import population_page
from jaxsens.reports import population_sentences
from jaxsens.reports import population_tables
from jaxsens.reports import results
from tests.oracles import synthetic_images

STUDY = synthetic_images.study(48)


def changed(**fields):
  """The study with fields of itself or of its population changed."""
  names = {field.name for field in dataclasses.fields(STUDY)}
  own = {name: fields.pop(name) for name in list(fields) if name in names}
  population = dataclasses.replace(STUDY.population, **fields)
  return dataclasses.replace(STUDY, population=population, **own)


def estimate(value, half_width=0.02):
  value = np.asarray(value, np.float64)
  template = STUDY.fragility.failure_probability
  return dataclasses.replace(
    template, value=value, lower=value - half_width, upper=value + half_width
  )


class _Parser(html.parser.HTMLParser):
  """Counts tags, keeps the text and checks that every tag is closed."""

  def __init__(self, page):
    super().__init__()
    self.open, self.tags, self.text = [], [], ''
    self.feed(page)
    self.close()

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))
    if tag not in ('meta', 'img', 'br'):
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag, tag

  def handle_data(self, data):
    self.text += data


class StudyTest(parameterized.TestCase):

  @parameterized.parameters(
    ('output', {'output': 2}), ('axes', {'axes': STUDY.axes[:2]}),
    ('axes', {'axes': STUDY.axes[::-1]}),
    ('thumbnails', {'thumbnails': STUDY.thumbnails[:3]}),
    (r'steps\[0\]', {'steps': (
      results.ConvergenceStep(np.array(64), np.ones(3)),
    )}),
  )
  def test_parts_that_do_not_agree_are_named(self, message, fields):
    with self.assertRaisesRegex(ValueError, f'{message}.*expected'):
      dataclasses.replace(STUDY, **fields)


class SentencesTest(parameterized.TestCase):

  def test_accuracy_is_said_with_its_leading_factor_and_intervals(self):
    accuracy = dataclasses.replace(
      STUDY.accuracy,
      accuracy=estimate([0.7] * 5),
      first_order=estimate([[0.5, 0.2, 0.1]] * 5),
      total=estimate([[0.6, 0.3, 0.15]] * 5),
      main_effects=tuple(
        estimate(np.linspace(low, 0.9, len(axis.values))[None])
        for low, axis in zip((0.25, 0.6, 0.7), STUDY.axes, strict=True)
      ),
    )
    study = changed(
      accuracy=accuracy, predictions=STUDY.population.labels,
    )
    self.assertEqual(
      population_sentences.accuracy_sentences(study),
      'The accuracy is 100 % unperturbed and 70 % [68, 72] on average over the '
      'factors. Rotation moves it most: it carries 50 % [48, 52] of the '
      'variance of the accuracy alone and 60 % [58, 62] with interactions, and '
      'along it the accuracy runs from 25 % to 90 %; tilt carries 20 % [18, '
      '22] alone and 30 % [28, 32] in all; brightness carries 10 % [8, 12] '
      'alone and 15 % [13, 17] in all.',
    )
    wide = dataclasses.replace(accuracy, total=estimate(
      [[0.6, 0.3, 0.15]] * 5, 0.16
    ))  # fmt: skip
    self.assertIn(
      'Rotation and tilt move it most and their intervals overlap',
      population_sentences.accuracy_sentences(changed(accuracy=wide)),
    )

  def test_accuracy_without_indices_says_why(self):
    nothing = estimate(np.full((5, 3), np.nan))
    accuracy = dataclasses.replace(STUDY.accuracy, total=nothing)
    self.assertIn(
      'it does not vary with the factors',
      population_sentences.accuracy_sentences(changed(accuracy=accuracy)),
    )

  def test_images_that_are_not_trusted_are_counted_with_their_reasons(self):
    text = population_sentences.trust_sentences(STUDY)
    # Images 5, 12, ..., 47 of 48 and image 0 of the made-up data set.
    self.assertIn('indices of 40 of 48 images are trusted; of 8 they', text)
    self.assertIn('Q2 0.81 is below 0.9 (7: clip_005.png, clip_012', text)
    self.assertIn('and 2 more)', text)
    self.assertIn('the output does not vary (1: clip_000.png)', text)
    moved = np.abs(
      STUDY.aggregates.mean_total.value[0, :, 0]
      - STUDY.trusted_aggregates.mean_total.value[0, :, 0]
    ).max()
    self.assertIn(f'by more than {100 * moved:.1f} percentage points', text)

  def test_trust_in_all_images_is_said_in_one_sentence(self):
    self.assertEqual(
      population_sentences.trust_sentences(
        changed(trusted=np.ones(48, bool))
      ), 'The indices of all 48 images are trusted.',
    )  # fmt: skip

  def test_untrusted_image_without_a_reason_is_not_hidden(self):
    self.assertIn(
      'no reason was recorded (8:',
      population_sentences.trust_sentences(changed(reasons=())),
    )

  def test_most_fragile_class_is_named_with_its_rivals(self):
    def said(values, half_width):
      rank = dataclasses.replace(
        STUDY.fragility, failure_probability=estimate(values, half_width)
      )
      return population_sentences.class_sentence(changed(fragility=rank))

    text = said([0.3, 0.1, 0.6, 0.5, np.nan], 0.02)
    self.assertIn('most fragile class is burn <through> & more', text)
    self.assertIn('60 % [58, 62] on average, all images with 30 %', text)
    self.assertIn('those of good weld, the least fragile, with 10 %', text)
    self.assertNotIn('overlaps', text)
    self.assertIn(
      'Its interval overlaps with that of misaligned.',
      said([0.3, 0.1, 0.6, 0.5, np.nan], 0.06),
    )

  def test_images_without_indices_are_named(self):
    self.assertEqual(
      population_sentences.undefined_sentence(STUDY),
      '1 image has no indices, because p(true class) does not vary there; no '
      'average of indices holds them: clip_000.png.',
    )


class FiguresTest(parameterized.TestCase):

  def test_bars_of_the_accuracy_have_the_length_of_its_indices(self):
    figure = accuracy_figures.plot_accuracy(STUDY)
    bars = figure.axes[-1].patches
    lengths = [bar.get_width() for bar in bars]
    expected = np.concatenate([
      STUDY.accuracy.first_order.value[0], STUDY.accuracy.total.value[0]
    ])
    np.testing.assert_allclose(lengths, expected)

  def test_effect_panel_draws_the_accuracy_of_all_images_last(self):
    figure = accuracy_figures.plot_accuracy(STUDY)
    for d, axis in enumerate(STUDY.axes):
      drawn = [
        line for line in figure.axes[d].lines
        if len(line.get_xdata()) == len(axis.values)
      ]
      self.assertLen(drawn, 5)
      np.testing.assert_allclose(
        drawn[-1].get_ydata(), STUDY.accuracy.main_effects[d].value[0]
      )
      np.testing.assert_allclose(drawn[-1].get_xdata(), axis.values)
      # Class lines come in the order of the labels, in the class colours.
      np.testing.assert_allclose(
        [line.get_ydata() for line in drawn[:4]],
        STUDY.accuracy.main_effects[d].value[1:],
      )
      self.assertEqual(
        [line.get_color() for line in drawn[:4]],
        [population_figures.class_color(c, synthetic_images.CLASSES)
         for c in range(4)],
      )  # fmt: skip

  def test_every_defined_image_is_one_mark_per_factor(self):
    figure = population_figures.plot_distributions(STUDY)
    for axes, index in zip(figure.axes, ('total', 'first_order'), strict=True):
      marks = np.concatenate([
        np.asarray(c.get_offsets()) for c in axes.collections
        if hasattr(c, 'get_sizes')
      ])
      values = getattr(STUDY.population, index)[1:, :, 0]
      np.testing.assert_allclose(
        np.sort(marks[:, 0]), np.sort(values.ravel())
      )

  def test_heat_map_prints_the_mean_total_of_every_class(self):
    figure = population_figures.plot_class_totals(STUDY)
    printed = [text.get_text() for text in figure.axes[0].texts]
    totals = STUDY.aggregates.mean_total
    self.assertLen(printed, 15)
    self.assertEqual(printed[3], (
      f'{100 * totals.value[1, 0, 0]:.0f} %\n'
      f'[{100 * totals.lower[1, 0, 0]:.0f}, {100 * totals.upper[1, 0, 0]:.0f}]'
    ))  # fmt: skip

  def test_fragility_shows_images_that_are_right_unperturbed_in_order(self):
    figure = population_figures.plot_fragility(STUDY)
    failures = [
      axes.texts[0].get_text() for axes in figure.axes
    ]
    right = STUDY.population.correct
    probability = np.sort(STUDY.population.failure_probability[right])[::-1]
    self.assertLen(failures, 18)
    self.assertEqual(failures[0], f'fails {100 * probability[0]:.0f} %')
    self.assertEqual(failures[11], f'fails {100 * probability[11]:.0f} %')
    names = [axes.texts[3].get_text() for axes in figure.axes]
    self.assertNotIn('clip_001.png', names)

  def test_wrong_images_are_shown_where_there_is_no_other(self):
    predictions = (STUDY.population.labels + 1) % 4
    figure = population_figures.plot_fragility(
      changed(predictions=predictions)
    )
    self.assertEqual(
      figure.axes[0].texts[3].get_text(),
      STUDY.population.image_names[STUDY.fragility.order[0]],
    )

  def test_convergence_has_a_line_per_image_and_counts_the_finished(self):
    steps = [
      results.ConvergenceStep(np.array(n), width)
      for n, width in ((64, np.full(48, 0.1)), (128, np.full(48, 0.04)))
    ]
    # Image 0 was finished after 64 runs, image 1 after 128.
    steps[0].half_widths[0], steps[1].half_widths[:2] = 0.01, [np.nan, 0.02]
    study = changed(steps=tuple(steps))
    figure = convergence.plot(study.steps, study.tolerance)
    lines = figure.axes[0].lines
    self.assertLen(lines, 48 + 2)
    np.testing.assert_allclose(lines[48].get_ydata(), [0.1, 0.04])
    self.assertTrue(any(
      '2 of 48 images within the tolerance' in text.get_text()
      for text in figure.texts
    ))  # fmt: skip

  def test_many_classes_share_one_grey(self):
    names = [str(i) for i in range(11)]
    colors = {population_figures.class_color(i, names) for i in range(11)}
    few = {population_figures.class_color(i, names[:10]) for i in range(10)}
    self.assertLen(colors, 1)
    self.assertLen(few, 10)


class FilesTest(absltest.TestCase):

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.directory = tempfile.TemporaryDirectory()
    cls.addClassCleanup(cls.directory.cleanup)
    cls.paths = population_page.write_all(cls.directory.name, STUDY)
    cls.page = cls.paths['population.html'].read_text()

  def test_page_is_well_formed_and_holds_its_pictures(self):
    parser = _Parser(self.page)
    self.assertEmpty(parser.open)
    images = [attrs for tag, attrs in parser.tags if tag == 'img']
    self.assertLen(images, 5)
    for attrs in images:
      self.assertStartsWith(attrs['src'], 'data:image/png;base64,')
    self.assertEmpty([t for t, _ in parser.tags if t in ('script', 'link')])
    self.assertNotRegex(self.page, r'(src|href)="(?!data:)')

  def test_names_are_escaped(self):
    self.assertIn('burn &lt;through&gt; &amp; more', self.page)
    self.assertNotIn('<through>', self.page)

  def test_first_screen_holds_the_sentences_before_any_figure(self):
    text = _Parser(self.page[:self.page.index('<img')]).text
    for sentence in (
      population_sentences.accuracy_sentences(STUDY),
      population_sentences.trust_sentences(STUDY),
      population_sentences.class_sentence(STUDY),
    ):
      self.assertIn(sentence, text)

  def test_table_has_a_row_for_every_image_most_fragile_first(self):
    table = self.page[self.page.index('All images'):]
    names = re.findall(r'<tr><td>(clip_\d+\.png)</td><td>(\d+)</td>', table)
    self.assertEqual(
      [name for name, _ in names],
      [STUDY.population.image_names[i] for i in STUDY.fragility.order],
    )
    self.assertEqual([int(rank) for _, rank in names], list(range(1, 49)))

  def test_csv_has_a_line_per_image_output_and_factor_with_every_digit(self):
    with open(self.paths['population.csv'], newline='') as file:
      rows = list(csv.DictReader(file))
    self.assertLen(rows, 48 * 2 * 3)
    self.assertEqual(tuple(rows[0]), population_tables.COLUMNS)
    total = np.array([
      float(row['total'] or 'nan') for row in rows
    ]).reshape(48, 2, 3)  # fmt: skip
    np.testing.assert_array_equal(
      total, STUDY.population.total.transpose(0, 2, 1)
    )
    self.assertEqual(rows[0]['reason'], 'the output does not vary')
    ranks = {row['image']: int(row['fragility_rank']) for row in rows}
    first = STUDY.population.image_names[STUDY.fragility.order[0]]
    self.assertEqual(ranks[first], 1)

  def test_npz_has_every_array_and_needs_no_pickle(self):
    with np.load(self.paths['population.npz']) as arrays:
      for name in ('first_order', 'total_upper', 'variance', 'labels'):
        np.testing.assert_array_equal(
          arrays[f'population.{name}'], getattr(STUDY.population, name)
        )
      np.testing.assert_array_equal(
        arrays['aggregates.weighted_total.lower'],
        STUDY.aggregates.weighted_total.lower,
      )
      np.testing.assert_array_equal(
        arrays['accuracy.main_effects.1.value'],
        STUDY.accuracy.main_effects[1].value,
      )
      self.assertEqual(
        tuple(arrays['population.factor_names']), synthetic_images.FACTORS
      )
      self.assertEqual(arrays['population.reasons'][1], '')

  def test_figures_are_readable_pictures(self):
    figures = [name for name in self.paths if name.endswith('.png')]
    self.assertLen(figures, 5)
    for name in figures:
      with Image.open(self.paths[name]) as picture:
        self.assertGreater(min(picture.size), 300)
        self.assertGreater(np.ptp(np.asarray(picture)), 200)

  def test_report_without_optional_parts_has_what_is_left(self):
    study = changed(
      accuracy=None, axes=(), steps=(), thumbnails=None, reasons=()
    )
    paths = population_page.write_all(self.directory.name + '/less', study)
    self.assertCountEqual(paths, [
      'population.csv', 'population.npz', 'population.html',
      'figures/population_class_totals.png',
      'figures/population_distributions.png',
    ])  # fmt: skip
    parser = _Parser(paths['population.html'].read_text())
    self.assertIn('Image by image', parser.text)
    self.assertNotIn('What moves the accuracy', parser.text)


if __name__ == '__main__':
  absltest.main()
