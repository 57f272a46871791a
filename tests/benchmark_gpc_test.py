"""The gPC benchmark: its methods against closed forms, its rows, its tables."""

import dataclasses
import json
import pathlib
import tempfile
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import chaospy
import jax
import numpy as np
import pytest

from experiments import benchmark
from experiments.benchmarks import coverage
from experiments.benchmarks import gpc_functions
from experiments.benchmarks import gpc_studies
from experiments.benchmarks import gpc_suite
from experiments.benchmarks import image_methods
from experiments.benchmarks import image_scores
from experiments.benchmarks import index_peers
from experiments.benchmarks import network_runs
from experiments.benchmarks import studies
from experiments.benchmarks import tables
from jaxsens import factors
from jaxsens.data import image_sets
from jaxsens.gpc import designs
from jaxsens.gpc import intervals as intervals_lib
from tests.oracles import slopes

_SPACE = factors.FactorSpace((
  factors.Factor('brightness', chaospy.Uniform(0, 2)),
  factors.Factor('rotation', chaospy.Uniform(-90, 90)),
  factors.Factor('keystone', chaospy.Uniform(-20, 20)),
))
_GRID = {'brightness': 16, 'rotation': 24, 'keystone': 8}
_ISHIGAMI, _SOBOL_G, _BOREHOLE, _ = coverage.problems()


def _ignore(line):
  del line


def _folder(test):
  folder = tempfile.TemporaryDirectory()
  test.addCleanup(folder.cleanup)
  return folder.name


def _problem():
  """Returns y = x0 + 2 x1 x2, x uniform on [-1, 1]: V = 1/3 + 4/9."""
  return coverage.Problem(
    'small', _ISHIGAMI.space,
    lambda germ: (germ[:, :1] + 2 * germ[:, 1:2] * germ[:, 2:]),
    lambda: {
      (0,): 3 / 7, (1,): 0.0, (2,): 0.0,
      (0, -1): 3 / 7, (1, -1): 4 / 7, (2, -1): 4 / 7,
    },
    np.zeros((1, 3)), 0,
  )


def _study():
  return slopes.study(_SPACE, gain=5, batch_size=16)


@dataclasses.dataclass
class _Polynomial:
  """Stands for `Runs`: log-odds are given polynomials of the germ."""

  study: studies.Study

  def logits(self, image, nodes):
    del image
    x, y, z = nodes.T
    logit = 2 * x - x * y + 0.5 * z**2
    return np.stack([logit, 0 * logit], axis=1)

  def probability(self, image, nodes):
    return studies.probability(self.logits(image, nodes), 0)

  def truth(self):
    sizes = (40, 40, 40)
    design = designs.tensor_gauss(_SPACE, sizes)
    weights = [np.polynomial.legendre.leggauss(n)[1] / 2 for n in sizes]
    values = self.probability(0, design.nodes).reshape(sizes)
    found = studies.grid_indices(values, weights, _SPACE.names)
    return found.first_order, found.total


def _truth(first, total, half_width=0.0, **errors):
  return studies.Truth(
    ('a', 'b'), np.array(first), np.array(total), 0.5, 0.1, 9, half_width,
    **{name: np.array(x) for name, x in errors.items()},
  )


def _intervals(first, total, half_width):
  """Of two factors and a given half-width about (D,) centres."""
  first, total = np.array(first)[:, None], np.array(total)[:, None]
  return intervals_lib.Intervals(
    names=('a', 'b'), subsets=((0,), (1,)), level=0.95, num_resamples=0,
    first_order_lower=first - half_width, first_order_upper=first + half_width,
    total_lower=total - half_width, total_upper=total + half_width,
    subset_lower=first - half_width, subset_upper=first + half_width,
  )


class PeersTest(parameterized.TestCase):

  @parameterized.parameters(
    ('chaospy_regression', 64, 1e-9), ('salib_saltelli', 20_000, 0.03),
    ('pygpc_static', 64, 1e-9),
  )
  def test_peer_finds_the_indices_of_a_polynomial(self, name, size, atol):
    if 'chaospy' not in name:
      pytest.importorskip('SALib' if 'salib' in name else 'pygpc')
    problem = _problem()
    first, total, runs = getattr(index_peers, name)(problem, size, 0)
    expected = gpc_functions.true_indices(problem)
    np.testing.assert_allclose(first, expected[0], atol=atol)
    np.testing.assert_allclose(total, expected[1], atol=atol)
    self.assertGreaterEqual(runs, size)

  def test_saltelli_takes_the_next_power_of_two(self):
    pytest.importorskip('SALib')
    _, _, runs = index_peers.salib_saltelli(_SOBOL_G, 64, 0)
    self.assertEqual(runs, 8 * 10)

  def test_degree_leaves_two_nodes_per_term(self):
    # binomial(3 + 4, 3) = 35 and binomial(3 + 5, 3) = 56 terms.
    self.assertEqual(index_peers.total_degree_for(3, 111), 4)
    self.assertEqual(index_peers.total_degree_for(3, 112), 5)
    self.assertEqual(index_peers.total_degree_for(8, 4), 1)

  def test_missing_peer_is_said_and_left_out(self):
    lines = []
    self.assertFalse(index_peers.installed('no_such_peer', lines.append))
    self.assertIn('no_such_peer is left out', lines[0])


class FunctionsTest(absltest.TestCase):

  def test_true_indices_are_the_published_ones(self):
    first, total = gpc_functions.true_indices(_ISHIGAMI)
    # Closed form, to the digits of Saltelli et al. 2000, section 2.9.
    np.testing.assert_allclose(first, [0.3139, 0.4424, 0], atol=1e-4)
    np.testing.assert_allclose(total, [0.5576, 0.4424, 0.2437], atol=1e-4)

  def test_cut_rounds_share_one_sequence_of_nodes(self):
    problem = _problem()
    small, large = gpc_functions.rounds(
      jax.random.key(0), lambda _, nodes: problem.function(nodes),
      problem.space, [lambda outputs: outputs], (16, 32),
    )
    np.testing.assert_array_equal(
      large.answers[0].nodes[:16], small.answers[0].nodes
    )
    self.assertEqual(large.answers[0].num_evaluations, 32)
    indices = large.answers[0].inference.indices
    error = gpc_functions.largest_error(
      indices.first_order, indices.total, gpc_functions.true_indices(problem)
    )
    self.assertLess(error, 1e-6)

  def test_first_size_is_the_one_from_which_all_are_below(self):
    rows = [
      {'runs': n, 'worst error': e, 'seeds': 1, 'first key': 0}
      for n, e in ((32, 0.005), (64, 0.02), (128, 0.009), (256, 0.001))
    ]
    *passed, last = gpc_functions._first_below('engine', rows)
    self.assertEqual(passed, rows)
    self.assertEqual(last['runs'], 128)
    *_, last = gpc_functions._first_below('engine', rows[:2])
    self.assertNotIn('runs', last)
    self.assertEqual(last['worst error'], 0.02)


  def test_seeds_start_at_the_first_key(self):
    def rows(first_key, num_seeds):
      found = gpc_functions.errors(
        _ignore, 'ishigami', (20,), (), first_key=first_key,
        num_seeds=num_seeds, num_seeds_large=1, max_saltelli=8,
      )
      return {row['row']: row for row in found}

    both, one, other = rows(100, 2), rows(100, 1), rows(101, 1)
    for name in ('engine, 20', 'sparse regression, 20'):
      self.assertEqual(both[name]['first key'], 100)
      errors = [x[name]['worst error'] for x in (one, other)]
      self.assertNotEqual(*errors)
      np.testing.assert_allclose(both[name]['worst error'], max(errors))
      np.testing.assert_allclose(both[name]['median error'], np.mean(errors))
    self.assertGreater(both['engine, 20']['error / half-width'], 0)


class ScoresTest(absltest.TestCase):

  def test_measures_of_two_images_and_two_keys(self):
    truths = {
      3: _truth([0.2, 0.3], [0.7, 0.8]), 5: _truth([0.1, 0.1], [0.9, 0.9])
    }
    # Largest errors: 0.1 and 0.4 of the first key, 0.2 and 0.02 of the other.
    found = [
      [([0.3, 0.3], [0.65, 0.8]), ([0.1, 0.5], [0.9, 0.9])],
      [([0.2, 0.3], [0.7, 0.6]), ([0.12, 0.1], [0.9, 0.9])],
    ]
    intervals = [
      [_intervals(*found[0][0], 0.08), _intervals(*found[0][1], 0.1)],
      [_intervals(*found[1][0], 0.05), _intervals(*found[1][1], 0.01)],
    ]
    scores = image_scores.score(truths, [3, 5], found, intervals)
    np.testing.assert_allclose(
      scores.wrong[0], [[0.1, 0, -0.05, 0], [0, 0.4, 0, 0]], atol=1e-12
    )
    whole = image_scores.summary(scores, [3, 5])
    expected = {
      'images': 2, 'keys': 2, 'median error': (0.25 + 0.11) / 2,
      'worst error': 0.4, 'position of the worst': 5,
      'median error of the worst key': 0.25,
      'root mean square error': np.sqrt(
        (0.1**2 + 0.05**2 + 0.4**2 + 0.2**2 + 0.02**2) / 16
      ),
      'covered': 12 / 16, 'mean half-width': 0.06,
      # The ratios are 1.25, 0.625, 4, 4, 2 and zeros; 95 % of 16.
      'error / half-width': np.quantile(
        [1.25, 0.625, 4, 4, 2] + [0] * 11, 0.95
      ),
      'worst image covered': 6 / 8,
    }
    self.assertEqual(whole.keys(), expected.keys())
    for name, value in expected.items():
      np.testing.assert_allclose(whole[name], value, err_msg=name)
    one = image_scores.summary(scores, [3])
    np.testing.assert_allclose(one['worst error'], 0.2)
    self.assertEqual(one['position of the worst'], 3)
    np.testing.assert_allclose(one['worst image covered'], 6 / 8)

  def test_noise_of_the_truth_leaves_the_root_mean_square_alone(self):
    noise = np.random.default_rng(0)
    errors = np.array([0.02, 0.05, 0.04, 0.1])
    true = np.array([0.3, 0.4, 0.6, 0.7])
    estimate = true + [0.03, -0.01, 0.02, 0.04]
    truths = {
      i: _truth(
        drawn[:2], drawn[2:], 0.2, first_order_error=errors[:2],
        total_error=errors[2:],
      )
      for i, drawn in enumerate(noise.normal(true, errors, (4000, 4)))
    }
    found = [[(estimate[:2], estimate[2:])] * len(truths)]
    row = image_scores.summary(
      image_scores.score(truths, list(truths), found), list(truths)
    )
    # The mean square of the noise is 0.0036, that of the estimate 0.00075; the
    # mean of 16,000 has a standard error below 6e-5.
    expected = np.mean((estimate - true) ** 2)
    np.testing.assert_allclose(
      row['root mean square error'] ** 2, expected, atol=3e-4
    )
    np.testing.assert_allclose(
      row["truth's own"], np.sqrt(np.mean(errors**2))
    )
    # One that repeats the truth to well within its error is not told from it.
    exact = [[(x.first_order, x.total) for x in truths.values()]]
    row = image_scores.summary(
      image_scores.score(truths, list(truths), exact), list(truths)
    )
    self.assertEqual(row['root mean square error'], 0)

  def test_truths_without_errors_stay_out_of_the_root_mean_square(self):
    truths = {
      0: _truth([0.2, 0.3], [0.7, 0.8], 0.1), 1: _truth([0.1, 0.1], [0.9, 0.9])
    }
    found = [[([0.9, 0.9], [0.9, 0.9]), ([0.1, 0.1], [0.9, 0.7])]]
    scores = image_scores.score(truths, [0, 1], found)
    row = image_scores.summary(scores, [0, 1])
    np.testing.assert_allclose(row['root mean square error'], 0.1)
    self.assertEqual(row['images of it'], 1)
    self.assertNotIn(
      'root mean square error', image_scores.summary(scores, [0])
    )

  def test_method_without_an_answer_has_no_error(self):
    truths = {0: _truth([0.2, 0.3], [0.7, 0.8])}
    nan = [np.nan, np.nan]
    found = image_scores.score(truths, [0], [[(nan, nan)]])
    row = image_scores.summary(found, [0])
    for name in ('median error', 'worst error', 'root mean square error'):
      self.assertTrue(np.isnan(row[name]), name)


class ImageMethodsTest(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    self.runs = _Polynomial(_study())
    self.expected = self.runs.truth()

  def error(self, found):
    return gpc_functions.largest_error(*found, self.expected)

  def test_pushed_logits_are_exact_where_the_grid_resolves_them(self):
    found = image_methods.gauss(self.runs, 0, (2, 2, 3), pushed=True)
    self.assertLess(self.error(found), 1e-9)
    direct = image_methods.gauss(self.runs, 0, (2, 2, 3), pushed=False)
    self.assertGreater(self.error(direct), 1e-3)

  def test_direct_gauss_converges(self):
    found = image_methods.gauss(self.runs, 0, (16, 12, 12), pushed=False)
    self.assertLess(self.error(found), 1e-6)

  def test_recipe_converges_for_a_smooth_probability(self):
    (found,) = image_methods.recipe(jax.random.key(0), self.runs, [0], 1500)
    self.assertLess(self.error(found), 2e-3)

  @parameterized.parameters(False, True)
  def test_gaussian_process_comes_near(self, log_odds):
    found = image_methods.gaussian_process(
      jax.random.key(0), self.runs, 0, 64, log_odds=log_odds
    )
    self.assertLess(self.error(found), 0.01)

  def test_pick_freeze_stays_within_the_runs(self):
    found, num_runs = image_methods.frozen(
      jax.random.key(0), self.runs, 0, 5004
    )
    self.assertEqual(num_runs, 5000)
    self.assertLess(self.error(found), 0.03)


class NetworkTest(absltest.TestCase):

  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(_folder(self))
    self.study = _study()
    self.runs = network_runs.Runs(self.study, self.places().folder)
    self.nodes = designs.sobol_sequence(
      jax.random.key(1), _SPACE, 32
    ).nodes

  def places(self, compute=True):
    path = self.folder
    return gpc_studies.Places(path, path / 'truths', path, compute)

  def test_grown_design_runs_its_new_nodes_alone(self):
    expected = self.study.evaluate(1, _SPACE.to_values(self.nodes))
    first = self.runs.logits(1, self.nodes[:20])
    asked = []

    def spy(*args, **options):
      asked.append(len(args[3]))
      return self.study.evaluator(*args, **options)

    runs = network_runs.Runs(
      dataclasses.replace(self.study, evaluator=spy), self.runs.folder
    )
    both = runs.logits(1, self.nodes)
    self.assertEqual(asked, [12])
    np.testing.assert_allclose(first, expected[:20], rtol=1e-5)
    np.testing.assert_allclose(both, expected, rtol=1e-5)
    np.testing.assert_array_equal(runs.logits(1, self.nodes[:9]), both[:9])
    self.assertEqual(asked, [12])
    runs.logits(0, self.nodes[:9])
    self.assertEqual(asked, [12, 9])
    self.assertGreater(sum(runs.seconds.values()), 0)

  def test_other_design_with_the_same_first_nodes_is_run_anew(self):
    self.runs.logits(0, self.nodes)
    other = np.concatenate([self.nodes[:10], -self.nodes[10:]])
    np.testing.assert_allclose(
      self.runs.logits(0, other),
      self.study.evaluate(0, _SPACE.to_values(other)), rtol=1e-5,
    )

  def test_transform_is_the_softmax(self):
    logits = np.array([[[0.0, np.log(3.0)], [1000.0, 0.0], [-1000.0, 0.0]]])
    np.testing.assert_allclose(
      network_runs.transform(0)(logits), [[[0.25], [1.0], [0.0]]], atol=1e-12
    )

  def test_only_truths_on_disk_are_used_unless_computed(self):
    lines = []

    def find(study, i, folder):
      return studies.truth(study, i, _GRID, folder=folder)

    find(self.study, 1, self.places().truths)
    for compute, there in ((False, [1]), (True, [0, 1])):
      found = gpc_studies._truths(
        lines.append, self.places(compute), self.study, find
      )
      self.assertEqual(list(found), there)
    self.assertLen(lines, 1)
    self.assertIn('no truth of image 0', lines[0])

  def test_image_that_is_there_twice_counts_once(self):
    lines, images = [], self.study.images
    study = dataclasses.replace(self.study, images=dataclasses.replace(
      images, images=images.images[[0, 1, 0]], labels=np.zeros(3),
      names=tuple('abc'), groups=('',) * 3,
    ))
    found = gpc_studies._truths(
      lines.append, self.places(), study, lambda *unused, **options: 'truth'
    )
    self.assertEqual(list(found), [0, 1])
    self.assertIn('image 2 is a copy of image 0', lines[0])

  def test_engine_beats_the_recipe_and_its_share_is_one_of_both(self):
    truths = {
      i: studies.truth(self.study, i, _GRID, folder=self.places().truths)
      for i in range(2)
    }
    *rows, ratio = gpc_studies._race_with_recipe(
      _ignore, self.runs, truths, (16, 32), 2, 1, 400
    )
    tables_of = {}
    for row in rows:
      tables_of.setdefault(row['table'], {})[row['row']] = row
    first, every, seconds = tables_of.values()
    self.assertEqual(
      list(tables_of),
      ['slopes, first 1', 'slopes, all 2',
       'slopes, seconds of 2 images and a key'],
    )  # fmt: skip
    self.assertEqual(list(every), ['engine, 16', 'engine, 32'])
    self.assertEqual(
      list(first),
      ['engine, 16', 'engine, 32', 'pick-freeze, 15', 'pick-freeze, 30',
       "the source system's recipe, 400"],
    )  # fmt: skip
    engine = every['engine, 32']
    self.assertLess(engine['worst error'], 0.1)
    self.assertBetween(engine['covered'], 0, 1)
    self.assertEqual((engine['keys'], engine['images']), (2, 2))
    times = seconds['engine, 32']
    np.testing.assert_allclose(
      times["engine's share"],
      times['engine seconds']
      / (times['engine seconds'] + times['network seconds']),
    )
    for measure in ('median error', 'root mean square error'):
      self.assertGreater(ratio[f'ratio of runs ({measure})'], 400 / 33)

  def test_keys_of_the_engine_have_nodes_of_their_own(self):
    truths = {0: studies.truth(self.study, 0, _GRID, folder=self.folder)}

    def row(num_keys):
      return next(gpc_studies.engine(
        self.runs, truths, {'all': [0]}, (16,), num_keys
      ))

    one, two = row(1), row(2)
    self.assertNotEqual(one['median error'], two['median error'])
    # The first of both is the same.
    other = 2 * two['median error'] - one['median error']
    np.testing.assert_allclose(
      two['worst error'], max(other, one['worst error'])
    )

  def test_images_that_had_no_say_are_apart(self):
    pictures = np.random.default_rng(0).random((18, 16, 16, 1), np.float32)
    study = dataclasses.replace(self.study, images=image_sets.ImageSet(
      images=pictures, labels=np.arange(18) % 2,
      names=tuple(map(str, range(18))), class_names=('mean', 'corner'),
      groups=('',) * 18, description='noise',
    ))
    truths = {
      i: studies.truth(study, i, _GRID, folder=self.folder)
      for i in (0, 14, 15, 16)
    }
    runs = network_runs.Runs(study, self.folder)
    rows = list(gpc_studies._race_with_recipe(
      _ignore, runs, truths, (16,), 1, 4, 400
    ))
    images = {
      row['table']: row['images'] for row in rows if row['row'] == 'engine, 16'
      and 'images' in row
    }
    self.assertEqual(images, {
      'slopes, all 4': 4, 'slopes, 2 tuned on': 2, 'slopes, 2 others': 2
    })
    self.assertEqual(
      [row['row'] for row in rows if row['table'].startswith('runs that')],
      list(images),
    )
    with mock.patch.object(studies, 'cifar_study', lambda n: study):
      with mock.patch.object(
        studies, 'truth', lambda study, i, folder: truths[min(i, 14) // 14 * 14]
      ):
        rows = list(gpc_studies.cifar(
          _ignore, self.places(), num_images=18, num_keys=1, sizes=(16,),
          num_first=2, num_others=1, recipe_sizes=(400,),
          pick_freeze_sizes=(), gaussian_sizes=(),
        ))
    of_recipe = [row for row in rows if 'least squares' in row['row']]
    self.assertEqual(
      [(row['table'], row['images']) for row in of_recipe],
      [('slopes, first 2', 2), ('slopes, first 1 others', 1)],
    )
    self.assertEqual(
      [row['table'] for row in rows[:4]],
      ['slopes, first 2', 'slopes, first 1 others', 'slopes, 2 others',
       'slopes, all 18'],
    )  # fmt: skip

  def test_goal_that_is_not_told_from_the_truth_gives_no_ratio(self):
    recipe = {'table': 't', 'runs': 1000, 'images': 1, 'median error': 0.1,
              'root mean square error': 0.0}  # fmt: skip
    engine = [
      recipe | {'runs': n, 'median error': error}
      for n, error in ((10, 0.2), (20, 0.1), (40, 0.01))
    ]
    row = gpc_studies._ratio(recipe, engine)
    self.assertEqual(row['ratio of runs (median error)'], 50)
    self.assertNotIn('ratio of runs (root mean square error)', row)
    row = gpc_studies._ratio(recipe, engine[:1])
    self.assertNotIn('ratio of runs (median error)', row)
    self.assertEqual(row['median error of the engine'], 0.2)


class TablesTest(absltest.TestCase):

  def test_rows_are_on_disk_before_the_section_ends(self):
    folder = pathlib.Path(_folder(self))

    def rows():
      yield {'table': 'a', 'row': 'engine, 2', 'runs': 2, 'error': 0.5}
      yield {'table': 'b', 'row': 'x', 'runs': 3, 'error': float('nan')}
      raise KeyboardInterrupt

    with self.assertRaises(KeyboardInterrupt):
      list(tables.record(folder, 'one', rows(), {}))
    found = tables.read(folder, ['none', 'one'])
    self.assertEqual(
      found['a'], {'runs': {'engine, 2': 2}, 'error': {'engine, 2': 0.5}}
    )
    self.assertTrue(np.isnan(found['b']['error']['x']))
    self.assertEqual(found['sections']['seconds'], {})
    self.assertIn('one', found['sections']['load before'])

  def test_quick_suite_prints_tables_with_command_and_versions(self):
    folder = _folder(self)
    output = f'{folder}/report.json'
    report = benchmark.run(
      'gpc', quick=True, output=output, command='the command', log=_ignore,
      options={
        'workdir': folder, 'sections': ['functions', 'coverage', 'bootstrap'],
        'num_seeds': 1, 'num_resamples': 4,
      },
    )
    text = benchmark.markdown(report)
    for part in ('`the command`', '### ishigami', '| engine, 64 |',
                 '| chaospy regression, 32 |', 'bootstrap resamples', 'numpy'):
      self.assertIn(part, text)
    with open(output) as file:
      kept = json.load(file)
    self.assertEqual(kept['result'].keys(), report['result'].keys())
    # Sections measured before are in the tables of a later run.
    again = gpc_suite.run(_ignore, sections=[], workdir=folder)
    self.assertEqual(again['ishigami'], report['result']['ishigami'])

  def test_unknown_section_is_refused(self):
    with self.assertRaisesRegex(ValueError, "sections.*'banana'"):
      gpc_suite.run(_ignore, sections=['banana'])
    with self.assertRaisesRegex(ValueError, "functions.*'banana'"):
      gpc_suite.run(_ignore, functions=['banana'])


if __name__ == '__main__':
  absltest.main()
