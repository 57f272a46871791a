"""The gPC benchmark on networks: its studies, what they keep, its tables."""

import dataclasses
import json
import pathlib
import tempfile
from unittest import mock

from absl.testing import absltest
import chaospy
import jax
import numpy as np

from experiments import benchmark
from experiments.benchmarks import gpc_studies
from experiments.benchmarks import gpc_suite
from experiments.benchmarks import network_runs
from experiments.benchmarks import studies
from experiments.benchmarks import tables
from jaxsens import factors
from jaxsens.data import image_sets
from jaxsens.gpc import designs
from tests.oracles import slopes

_SPACE = factors.FactorSpace((
  factors.Factor('brightness', chaospy.Uniform(0, 2)),
  factors.Factor('rotation', chaospy.Uniform(-90, 90)),
  factors.Factor('keystone', chaospy.Uniform(-20, 20)),
))
_GRID = {'brightness': 16, 'rotation': 24, 'keystone': 8}


def _ignore(line):
  del line


def _folder(test):
  folder = tempfile.TemporaryDirectory()
  test.addCleanup(folder.cleanup)
  return folder.name


def _study():
  return slopes.study(_SPACE, gain=5, batch_size=16)


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
